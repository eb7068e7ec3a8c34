//! What policy costs a message: the same messages through a buffer, and through a whole room, with everything that flow
//! control may do to them and with nothing of it. The difference of two rows that begin alike is the price.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use roomcast_core::limits::SEGMENT_QUEUED_MAX;
use roomcast_core::room::buffer::{Allowance, Budget, Buffer};
use roomcast_core::room::id::{Key, RoomName, Run, TypeName};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::pace::{Quotas, Readable, RoomRules};
use roomcast_core::room::policy::{Merge, Priority, TypePolicy, TypeRate};
use roomcast_core::room::tally::RoomTally;
use roomcast_core::room::{Input, Room};
use roomcast_core::wire::frame;

/// What comes within one window of 100 ms at 10 000 messages a second.
const WINDOW_MESSAGES: usize = 1000;
const WINDOW: Duration = Duration::from_millis(100);
/// What devices may be shown of it at 40 a second.
const SHOWN: usize = 4;

/// Which of the messages are treated otherwise than plain ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    /// All are chat.
    Chat,
    /// A tenth are gifts of eight keys, three tenths are notices of who came in, the others chat.
    Gala,
}

fn message(type_name: &str, policy: TypePolicy, key: Option<usize>) -> Message {
    let mut message = Message {
        type_name: TypeName::parse(type_name).expect("a constant"),
        policy,
        key: key.map(|key| Key::parse(&format!("k{key}")).expect("a key")),
        id: None,
        payload: Payload::Opaque(Bytes::from(vec![7; 100])),
        count: 1,
        ttl: policy.ttl,
        offset: 0,
        recall: 0,
        at_ms: 0,
        wire_bytes: 0,
    };
    message.wire_bytes = frame::message_bytes(&message);
    message
}

/// A window's messages. Plain ones differ in their policy alone.
fn window(mix: Mix, is_plain: bool) -> Vec<Message> {
    let plain = TypePolicy { history: false, ..TypePolicy::of(Class::Normal) };
    let rate = Some(TypeRate { per_second: 1_000_000, burst: 1_000_000 });
    let chat = TypePolicy { rate, ..plain };
    let gift = TypePolicy { priority: Priority::High, merge: Merge::Sum, ..plain };
    let enter = TypePolicy { merge: Merge::First, history: false, ..TypePolicy::of(Class::Lossy) };
    let of = |n: usize| {
        let (type_name, policy, key) = match (mix, n % 10) {
            (Mix::Gala, 0) => ("gift", gift, Some(n % 8)),
            (Mix::Gala, 1..4) => ("enter", enter, None),
            _ => ("chat", chat, None),
        };
        message(type_name, if is_plain { plain } else { policy }, key)
    };
    (0..WINDOW_MESSAGES).map(of).collect()
}

fn budget(normal: Allowance) -> Budget {
    Budget {
        messages_max: 100,
        bytes_max: 32 * 1024,
        batches: SEGMENT_QUEUED_MAX,
        quotas: Quotas::default(),
        normal,
        high: Allowance::Any,
    }
}

/// Into a buffer, and out with cuts until it is empty.
fn buffer(criterion: &mut Criterion) {
    let now = roomcast::clock::now().instant;
    let mut group = criterion.benchmark_group("flow_buffer");
    group.throughput(Throughput::Elements(WINDOW_MESSAGES as u64));
    for (name, mix, is_plain, shown) in [
        ("chat_plain", Mix::Chat, true, 0),
        ("chat_readable_40", Mix::Chat, false, SHOWN),
        ("gala_plain", Mix::Gala, true, 0),
        ("gala_merged", Mix::Gala, false, 0),
        ("gala_merged_readable_40", Mix::Gala, false, SHOWN),
    ] {
        let messages = window(mix, is_plain);
        let normal = if shown > 0 { Allowance::AtMost(shown) } else { Allowance::Any };
        let mut buffer = Buffer::default();
        let mut fill_and_cut = |messages: Vec<Message>| {
            for message in messages {
                black_box(buffer.push(message, now));
                if shown > 0 {
                    buffer.thin(shown * 10, 7, now);
                }
            }
            while !buffer.is_empty() {
                black_box(buffer.cut(&budget(normal), 7, now));
            }
        };
        let inputs = || messages.clone();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(inputs, &mut fill_and_cut, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Through a room without members, which flushes what is due before it takes the next request.
fn room(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow_room");
    group.throughput(Throughput::Elements(WINDOW_MESSAGES as u64));
    let readable = Readable { normal_per_second: 40, high_per_second: 20 };
    // Nothing is sampled: every message is cut, accounted for and put out, as without a policy.
    let limited = RoomRules { messages_per_second: 1_000_000, ..RoomRules::default() };
    let policed = RoomRules { readable, ..limited };
    for (name, mix, is_plain, rules) in [
        ("chat_plain", Mix::Chat, true, RoomRules::default()),
        ("chat_limited", Mix::Chat, false, limited),
        ("chat_policed", Mix::Chat, false, policed),
        ("gala_plain", Mix::Gala, true, RoomRules::default()),
        ("gala_limited", Mix::Gala, false, limited),
        ("gala_policed", Mix::Gala, false, policed),
    ] {
        let messages = window(mix, is_plain);
        let (mut now, mut tally) = (roomcast::clock::now(), RoomTally::default());
        let mut room = Room::new(RoomName::parse("r1").expect("a constant"), Run(1), rules, now.instant);
        let mut handle = |messages: Vec<Message>| {
            now = now.later(WINDOW);
            room.handle(Input::Publish { ticket: 1, messages }, now, &mut tally);
            while let Some(output) = room.poll_output() {
                black_box(&output);
            }
        };
        let inputs = || messages.clone();
        group
            .bench_function(name, |bencher| bencher.iter_batched(inputs, &mut handle, BatchSize::SmallInput));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    buffer(&mut criterion);
    room(&mut criterion);
    criterion.final_summary();
}
