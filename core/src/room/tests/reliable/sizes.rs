//! Facts about the bytes of welcomes and refreshes: what has no room follows, and the newest of each key arrives.

use std::collections::BTreeMap;

use super::*;
use crate::limits::{
    CATCH_UP_BYTES_MAX, COUNTER_TYPES_MAX, LATEST_KEYS_MAX, LATEST_PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX,
    REFRESH_SMALL_BYTES_MAX, WELCOME_FIRST_BYTES_MAX,
};
use crate::room::id::Key;
use crate::room::message::Payload;
use crate::wire::frame::{self, Greeting, Head};

/// A message as a door takes it in: with its size on the wire.
fn sized(message: Message) -> Message {
    Message { wire_bytes: frame::message_bytes(&message), ..message }
}

fn price(key: usize, payload_bytes: usize) -> Message {
    let key = Key::parse(&format!("k{key}")).unwrap();
    let policy = TypePolicy::of(Class::Latest);
    sized(Message { policy, key: Some(key), ..sample("price", &"7".repeat(payload_bytes)) })
}

/// A counter with a name of the longest kind.
fn like(number: usize) -> Message {
    let policy = TypePolicy::of(Class::Counter);
    sized(Message { policy, count: 1, ..sample(&format!("{number:064}"), "") })
}

impl Bench {
    /// Publishes in small requests, and has all of it leave.
    fn tell_all(&mut self, messages: &[Message]) {
        for few in messages.chunks(50) {
            self.publish(few.to_vec());
            self.wait(Duration::from_millis(200));
        }
    }

    fn head_of<T>(&self, write: impl Fn(Head<'_>, Encoding) -> T) -> [T; 2] {
        let head = Head { room: self.room.name(), run: self.room.run(), seq: self.room.seq() };
        Encoding::ALL.map(|encoding| write(head, encoding))
    }

    /// The welcome of a newcomer, and the bytes of the larger encoding.
    fn welcomed_in(&mut self) -> (Snapshot, usize) {
        let mut snapshot = self.room.snapshot(Seq(0), Some(0), self.now);
        snapshot.history.clear();
        let greeting = Greeting { heartbeat_ms: 25_000, resumed: false, reset: None };
        let frames = self.head_of(|head, encoding| frame::welcome(head, greeting, &snapshot, encoding).len());
        (snapshot, frames.into_iter().max().unwrap())
    }

    fn refreshed_in(&mut self, want: RefreshWant) -> (Refresh, usize) {
        let mut outputs = self.tell(Input::Segment { shard: 0, said: SegmentSaid::Refresh(want) });
        let Some(Output::Refreshed { refresh: Some(refresh), .. }) = outputs.pop() else {
            panic!("a refresh")
        };
        let frames = self.head_of(|head, encoding| frame::refresh(head, &refresh, encoding).len());
        (refresh, frames.into_iter().max().unwrap())
    }

    /// The values of a newcomer who has caught up, and the sizes of the refreshes on the way.
    fn caught_up(&mut self, small: bool) -> (BTreeMap<String, Arc<Message>>, Vec<usize>) {
        let (snapshot, bytes) = self.welcomed_in();
        assert!(bytes <= WELCOME_FIRST_BYTES_MAX, "a welcome of {bytes} bytes");
        let mut held = BTreeMap::new();
        let mut latest = snapshot.latest;
        let mut want = RefreshWant {
            encoding: Encoding::Json,
            since: snapshot.seq,
            sent: snapshot.stream.unwrap().carried.span.through,
            small,
            latest: snapshot.latest_rest,
        };
        let mut sizes = Vec::new();
        loop {
            held.extend(
                latest.iter().map(|value| (value.key.as_ref().unwrap().to_string(), Arc::clone(value))),
            );
            if want.latest.is_none() && want.sent == self.room.stream.sent {
                return (held, sizes);
            }
            let (refresh, bytes) = self.refreshed_in(want);
            sizes.push(bytes);
            assert!(sizes.len() < 1_000, "each refresh brings something");
            want.since = self.room.seq();
            want.sent = refresh.carried.map_or(want.sent, |carried| carried.span.through);
            want.latest = refresh.latest_rest;
            latest = refresh.latest;
        }
    }
}

/// 64 values of 2 KiB made a first frame of 140 KB, and as much again with each refresh.
#[test]
fn many_latest_values_are_told_in_frames_of_a_bound() {
    for (keys, payload_bytes) in [(64, 2048), (LATEST_KEYS_MAX, LATEST_PAYLOAD_BYTES_MAX), (100, 3)] {
        for small in [true, false] {
            let mut bench = Bench::ready();
            bench.tell_all(&(0..COUNTER_TYPES_MAX).map(like).collect::<Vec<_>>());
            bench.tell_all(&(0..keys).map(|key| price(key, payload_bytes)).collect::<Vec<_>>());
            let (held, sizes) = bench.caught_up(small);
            assert_eq!(held.len(), keys);
            let most = if small { REFRESH_SMALL_BYTES_MAX } else { CATCH_UP_BYTES_MAX };
            assert!(sizes.iter().all(|bytes| *bytes <= most), "{keys} of {payload_bytes} bytes: {sizes:?}");
        }
    }
}

#[test]
fn a_small_refresh_of_everything_at_once_keeps_its_bound() {
    let mut bench = Bench::ready();
    let since = bench.room.seq();
    bench.tell_all(&(0..COUNTER_TYPES_MAX).map(like).collect::<Vec<_>>());
    bench.tell_all(&(0..64).map(|key| price(key, 300)).collect::<Vec<_>>());
    bench.tell_all(&(0..20).map(|n| sized(sample(&format!("chat{n}"), "1"))).collect::<Vec<_>>());
    bench.publish((0..30).map(|_| sized(coupon(&"5".repeat(400)))).collect());
    bench.sync();
    bench.wait(Duration::from_secs(1));
    let want = RefreshWant { encoding: Encoding::Json, since, sent: 0, small: true, latest: None };
    let (refresh, bytes) = bench.refreshed_in(want);
    assert!(bytes <= REFRESH_SMALL_BYTES_MAX, "{bytes} bytes");
    let carried = refresh.carried.unwrap();
    assert!((2..30).contains(&carried.messages.len()), "reliable messages first: {}", carried.messages.len());
    assert_eq!(refresh.counters.len(), COUNTER_TYPES_MAX, "the totals whole");
    assert!(refresh.latest_rest.is_some() && refresh.history.is_empty(), "the rest follows");
}

#[test]
fn one_reliable_message_goes_whatever_its_size_and_few_values_ride_along() {
    let mut bench = Bench::ready();
    bench.tell_all(&(0..64).map(|key| price(key, 300)).collect::<Vec<_>>());
    let payload = Payload::Json(bytes::Bytes::from("5".repeat(PAYLOAD_BYTES_MAX)));
    bench.publish(vec![sized(Message { payload, ..coupon("") })]);
    bench.sync();
    let (snapshot, _) = bench.welcomed_in();
    assert_eq!((snapshot.stream.unwrap().carried.messages.len(), snapshot.latest.len()), (1, 0));
    let want = RefreshWant {
        encoding: Encoding::Json,
        since: bench.room.seq(),
        sent: 0,
        small: true,
        latest: snapshot.latest_rest,
    };
    let (refresh, bytes) = bench.refreshed_in(want);
    assert_eq!(refresh.carried.unwrap().messages.len(), 1);
    assert!(bytes < PAYLOAD_BYTES_MAX + 1_000 && refresh.latest.is_empty(), "{bytes} bytes");
    bench.publish(vec![sized(coupon("1"))]);
    bench.sync();
    bench.wait(Duration::from_millis(20));
    let (refresh, bytes) = bench.refreshed_in(RefreshWant { sent: 1, ..want });
    assert!((1..4).contains(&refresh.latest.len()), "{} of 64 values", refresh.latest.len());
    assert!(bytes < 2_000, "a device reads the reliable message once it has {bytes} bytes");
}
