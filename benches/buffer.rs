//! What a message costs its room before it is encoded: into the buffer, out with a cut, and through the whole core.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use roomcast_core::room::buffer::{Allowance, Budget, Buffer};
use roomcast_core::room::id::{RoomName, Run, TypeName};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::pace::{Quotas, RoomRules};
use roomcast_core::room::policy::TypePolicy;
use roomcast_core::room::tally::RoomTally;
use roomcast_core::room::{Input, Room};
use roomcast_core::wire::frame;

const BATCH_MESSAGES: usize = 100;

fn chat() -> Message {
    let mut message = Message {
        type_name: TypeName::parse("chat").expect("a constant"),
        policy: TypePolicy::of(Class::Normal),
        key: None,
        id: None,
        payload: Payload::Opaque(Bytes::from(vec![7; 300])),
        count: 1,
        ttl: TypePolicy::of(Class::Normal).ttl,
        offset: 0,
        recall: 0,
        at_ms: 0,
        wire_bytes: 0,
    };
    message.wire_bytes = frame::message_bytes(&message);
    message
}

fn push(criterion: &mut Criterion) {
    let now = roomcast::clock::now().instant;
    // A batch at a time, so that making and dropping the buffer is shared by many.
    let mut group = criterion.benchmark_group("buffer");
    group.throughput(Throughput::Elements(BATCH_MESSAGES as u64));
    group.bench_function("push_100", |bencher| {
        let inputs = || (Buffer::default(), vec![chat(); BATCH_MESSAGES]);
        let fill = |(mut buffer, messages): (Buffer, Vec<Message>)| {
            for message in messages {
                black_box(buffer.push(message, now));
            }
            buffer
        };
        bencher.iter_batched(inputs, fill, BatchSize::SmallInput);
    });
    group.bench_function("push_and_cut_100", |bencher| {
        let mut buffer = Buffer::default();
        let budget = Budget {
            messages_max: BATCH_MESSAGES,
            bytes_max: 1 << 30,
            batches: 1,
            quotas: Quotas::default(),
            normal: Allowance::Any,
            high: Allowance::Any,
        };
        let fill_and_cut = |messages: Vec<Message>| {
            for message in messages {
                black_box(buffer.push(message, now));
            }
            buffer.cut(&budget, 7, now)
        };
        bencher.iter_batched(|| vec![chat(); BATCH_MESSAGES], fill_and_cut, BatchSize::SmallInput);
    });
    group.finish();
}

/// A request of 100 messages to a room without members: what bounds a publisher, the door aside. Each fills a batch,
/// so each is cut, accounted for and put into the history as well.
fn publish(criterion: &mut Criterion) {
    let mut now = roomcast::clock::now();
    let name = RoomName::parse("r1").expect("a constant");
    let mut room = Room::new(name, Run(1), RoomRules::default(), now.instant);
    let mut tally = RoomTally::default();
    let mut group = criterion.benchmark_group("room");
    group.throughput(Throughput::Elements(BATCH_MESSAGES as u64));
    group.bench_function("publish_100", |bencher| {
        let handle = |messages: Vec<Message>| {
            now = now.later(Duration::from_millis(1));
            room.handle(Input::Publish { ticket: 1, messages }, now, &mut tally);
            while let Some(output) = room.poll_output() {
                black_box(&output);
            }
        };
        bencher.iter_batched(|| vec![chat(); BATCH_MESSAGES], handle, BatchSize::SmallInput);
    });
    group.finish();
    assert!(room.gathered() < BATCH_MESSAGES, "what was published has left in batches");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    push(&mut criterion);
    publish(&mut criterion);
    criterion.final_summary();
}
