//! The store's promises, in memory and in its file. The store keeps its content after a failure, a full disk,
//! damage or a loss of power.

#![expect(clippy::unwrap_used, reason = "a test may fail at any line")]

#[path = "../support/loopfs.rs"]
mod loopfs;

mod crash;
mod damage;
mod disk;
mod facts;
mod faults;
mod files;
mod full;
mod isolation;
mod readers;
mod writer;

use std::io::Write;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast::store::time::{Stamp, StoreNow};
use roomcast::store::{Append, Store, StoreError, Stored};
use roomcast_core::room::id::{Epoch, MessageId, RoomName, TypeName};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::policy::TypePolicy;

const EPOCH: Epoch = Epoch(0xabc);
/// The acceptance time of made-up messages: far ahead, so that no thread with a real clock purges them.
const AT_MS: u64 = 4_000_000_000_000;
/// The same moment on the monotonic clock.
static BEGAN: LazyLock<Instant> = LazyLock::new(|| roomcast::clock::now().instant);

/// A moment in store time, with the wall clock at the same time.
fn at(store_ms: u64) -> StoreNow {
    let instant = *BEGAN + Duration::from_millis(store_ms.saturating_sub(AT_MS));
    let stamp = Stamp { store_ms, wall_ms: store_ms };
    StoreNow { instant, stamp, noted: stamp }
}

/// The calls of a store at the acceptance time of made-up messages.
trait AtThatTime: Store {
    fn put(&mut self, appends: &[Append]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.append(appends, at(AT_MS))
    }

    /// The stream with all its messages.
    fn whole(&mut self, room: &RoomName) -> Result<Option<Stored>, StoreError> {
        self.load(room, 0, at(AT_MS))
    }
}

impl<S: Store + ?Sized> AtThatTime for S {}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

/// A message whose payload tells its room and offset, so that no other message passes for it.
fn message(room: &RoomName, offset: u64, ttl_s: u64) -> Arc<Message> {
    let text = format!("{room} {offset} {}", "x".repeat(usize::try_from(offset % 7).unwrap() * 40));
    Arc::new(Message {
        type_name: TypeName::parse("coupon").unwrap(),
        policy: TypePolicy::of(Class::Reliable),
        key: None,
        id: Some(MessageId::parse(&format!("id-{offset}")).unwrap()),
        payload: Payload::Opaque(Bytes::from(text.into_bytes())),
        count: 1,
        ttl: Duration::from_secs(ttl_s),
        offset,
        recall: 0,
        at_ms: AT_MS,
        wire_bytes: 100,
    })
}

/// An append of these offsets, each alive for ten minutes.
fn append(room_name: &str, offsets: std::ops::RangeInclusive<u64>) -> Append {
    let room = room(room_name);
    let messages = offsets.map(|offset| message(&room, offset, 600)).collect();
    Append { room, life: 1, epoch: EPOCH, durable: 0, accepted: *BEGAN, messages }
}

/// The stored offsets of a room. Each stored message is compared with the sent one.
#[track_caller]
fn offsets(store: &mut dyn Store, name: &str) -> Vec<u64> {
    let room = room(name);
    let Some(stream) = store.whole(&room).unwrap() else { return Vec::new() };
    for read in &stream.tail {
        let written = message(&room, read.offset, read.ttl.as_secs());
        assert_eq!(format!("{read:?}"), format!("{written:?}"));
    }
    assert!(stream.records.iter().map(|record| record.offset).eq(stream.tail.iter().map(|read| read.offset)));
    stream.tail.iter().map(|message| message.offset).collect()
}

fn print(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}
