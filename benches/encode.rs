//! The cost of encoding a frame, in each encoding. A frame is encoded once per batch, once per state of
//! members that are behind or have not acknowledged, and once per join.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use roomcast_core::room::account::Missed;
use roomcast_core::room::counters::CounterChange;
use roomcast_core::room::history::{History, Past};
use roomcast_core::room::id::{Encoding, Key, RoomName, Run, Seq, TypeName};
use roomcast_core::room::message::{Class, Message, sample};
use roomcast_core::room::policy::TypePolicy;
use roomcast_core::room::{Batch, Carried, Refresh, Snapshot, Span};
use roomcast_core::wire::frame::{self, Greeting, Head};

/// A room with 100 messages a second flushes five times a second.
const BATCH_MESSAGES: usize = 20;
const HISTORY_MESSAGES: u64 = 200;
const PAYLOAD_BYTES: usize = 300;

fn type_name(name: &str) -> TypeName {
    TypeName::parse(name).expect("a constant")
}

/// A message with a JSON payload of `PAYLOAD_BYTES`.
fn chat() -> Arc<Message> {
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(PAYLOAD_BYTES - 11));
    let key = Some(Key::parse("viewer-1000001").expect("a constant"));
    let mut message = Message { key, at_ms: 1_700_000_000_000, ..sample("chat", &payload) };
    message.wire_bytes = frame::message_bytes(&message);
    Arc::new(message)
}

fn coupon(offset: u64) -> Arc<Message> {
    Arc::new(Message { policy: TypePolicy::of(Class::Reliable), offset, ..(*chat()).clone() })
}

fn likes() -> Vec<CounterChange> {
    vec![CounterChange { type_name: type_name("like"), add: 17, total: 1_234_567 }]
}

fn history() -> Vec<Past> {
    let mut history = History::default();
    let now = roomcast::clock::now().instant;
    for seq in 1..=HISTORY_MESSAGES {
        history.push(Seq(seq), chat(), now);
    }
    history.since(Seq(0)).cloned().collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let room = RoomName::parse("live:1").expect("a constant");
    let head = Head { room: &room, run: Run(0x1f), seq: Seq(42) };
    let batch = Batch {
        seq: Seq(42),
        messages: (0..BATCH_MESSAGES).map(|_| chat()).collect(),
        skipped: vec![],
        merged: vec![(type_name("enter"), 3)],
        counters: likes(),
        oldest: roomcast::clock::now().instant,
        span: None,
    };
    let span = Span { after: 7, through: 9, ack_within_ms: 200 };
    let carried = Carried { span, messages: (8..=9).map(coupon).collect() };
    let missed = Missed { skipped: vec![(type_name("chat"), 700)], merged: vec![(type_name("enter"), 30)] };
    let refresh = Refresh {
        missed,
        latest: vec![chat()],
        latest_rest: None,
        counters: likes(),
        carried: None,
        history: Vec::new(),
    };
    let greeting = Greeting { heartbeat_ms: 25_000, resumed: false, reset: None };
    let counters = vec![(type_name("like"), 1_234_567)];
    let snapshot = Snapshot {
        seq: Seq(200),
        history: history(),
        cut_short: false,
        latest: vec![chat()],
        latest_rest: None,
        counters,
        stream: None,
    };
    assert_eq!(snapshot.history.len() as u64, HISTORY_MESSAGES, "the history holds as many");

    let mut group = criterion.benchmark_group("encode");
    for encoding in Encoding::ALL {
        let mut bench = |what: &str, encode: &dyn Fn() -> Bytes| {
            group.throughput(Throughput::Bytes(encode().len() as u64));
            group.bench_function(format!("{what}/{encoding:?}"), |bencher| {
                bencher.iter(|| black_box(encode()));
            });
        };
        bench("level_20", &|| frame::level(head, black_box(&batch), encoding));
        bench("refresh", &|| frame::refresh(head, black_box(&refresh), encoding));
        bench("carry_2", &|| frame::carry(head, black_box(&carried), encoding));
        bench("welcome_200", &|| frame::welcome(head, greeting, black_box(&snapshot), encoding));
    }
    group.finish();
    criterion.final_summary();
}
