//! One thing published to a room, as the engine holds it, and what its class promises.

use std::time::Duration;

use bytes::Bytes;

use crate::now::millis;

use super::id::{Key, MessageId, TypeName};
use super::policy::TypePolicy;

/// What the engine promises for a type of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Stored first, carried until each device has acknowledged it.
    Reliable,
    /// At most once per connection, in order, kept in the history.
    Normal,
    /// The newest value per key arrives; older ones may be skipped.
    Latest,
    /// Increments are summed; devices get the increment and the exact total.
    Counter,
    /// First to go under pressure.
    Lossy,
}

impl Class {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 5] = [Self::Reliable, Self::Normal, Self::Latest, Self::Counter, Self::Lossy];

    /// Its name in the configuration, in metrics and in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reliable => "reliable",
            Self::Normal => "normal",
            Self::Latest => "latest",
            Self::Counter => "counter",
            Self::Lossy => "lossy",
        }
    }
}

/// The publisher's bytes. The engine never looks inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payload {
    /// One JSON value, checked at the door.
    Json(Bytes),
    /// Anything; travels as base64 where the encoding is JSON.
    Opaque(Bytes),
}

impl Payload {
    /// The bytes as the publisher gave them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Opaque(bytes) => bytes,
        }
    }
}

/// One message of a publish, checked, with its type looked up. `at` is given by the home when it takes it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The publisher's name for this kind of message.
    pub type_name: TypeName,
    /// What is promised for it, and how it is treated where not everything fits.
    pub policy: TypePolicy,
    /// What a later message of the same type and key replaces. Class latest always has one.
    pub key: Option<Key>,
    /// Makes the publish idempotent.
    pub id: Option<MessageId>,
    /// Owned bytes: never a slice of the request, which would keep all of it alive.
    pub payload: Payload,
    /// How much a counter grows, or how many it stands for where counts are summed; 1 otherwise.
    pub count: u64,
    /// How long it is alive once the engine has taken it in, if it is reliable; how long it may wait for its turn otherwise.
    pub ttl: Duration,
    /// Its place in the reliable stream; 0: none, or none yet.
    pub offset: u64,
    /// The offset of the reliable message that it takes back; 0: none.
    pub recall: u64,
    /// When the engine accepted it, unix milliseconds.
    pub at_ms: u64,
    /// Its size in the larger of the two encodings; what every bound in bytes counts.
    pub wire_bytes: usize,
}

impl Message {
    /// What is promised for it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.policy.class
    }

    /// Unix milliseconds from which on it is not alive any more; class reliable only.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.at_ms.saturating_add(millis(self.ttl))
    }
}

/// A made-up normal message for the tests and benches of every crate.
///
/// # Panics
/// If `type_name` is no type name.
#[must_use]
pub fn sample(type_name: &str, payload: &str) -> Message {
    Message {
        type_name: TypeName::parse(type_name).expect("a type name"),
        policy: TypePolicy::of(Class::Normal),
        key: None,
        id: None,
        payload: Payload::Json(Bytes::copy_from_slice(payload.as_bytes())),
        count: 1,
        ttl: TypePolicy::of(Class::Normal).ttl,
        offset: 0,
        recall: 0,
        at_ms: 0,
        wire_bytes: 60 + payload.len(),
    }
}

/// What became of one message of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It waits for its room's next flush, or has left with one.
    Accepted,
    /// It was accepted, but the counter is at the largest total there is: not all of its count was added.
    Saturated,
    /// It is synced on this node, with this offset.
    Durable {
        /// Its place in the room's reliable stream.
        offset: u64,
    },
    /// It took the place of a waiting one of its key.
    Merged,
    /// Its `id` was published within the last five minutes.
    Duplicate {
        /// The first one's offset, where it was reliable.
        offset: Option<u64>,
    },
    /// It was dropped on purpose.
    Shed(ShedReason),
    /// It is reliable and was not, or perhaps not, stored. The same `id` may be tried again.
    Unavailable(Unavailable),
}

/// Why a reliable message was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unavailable {
    /// The store is failing; what became of the message is unknown.
    StoreFailing,
    /// The store holds as many bytes as it may.
    StoreFull,
    /// Too much waits for the store; what became of the message is unknown, since others of its room were on their way.
    StoreBusy,
    /// As many reliable messages of the room are alive as may be.
    StreamFull,
    /// Too much waits in the room already.
    RoomFull,
}

impl Unavailable {
    /// Whether the message may have been stored all the same.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::StoreFailing | Self::StoreBusy)
    }

    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::StoreFailing, Self::StoreFull, Self::StoreBusy, Self::StreamFull, Self::RoomFull];

    /// Its name in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StoreFailing => "store_failing",
            Self::StoreFull => "store_full",
            Self::StoreBusy => "store_busy",
            Self::StreamFull => "stream_full",
            Self::RoomFull => "room_full",
        }
    }
}

/// Why a message was dropped on purpose. The publisher, the room's account and a metric all hear it; where it had been
/// accepted before, the room's members do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShedReason {
    /// Too much waits in the room already, or waited when one of a higher priority came.
    RoomFull,
    /// The room keeps as many latest keys as it may.
    LatestKeysFull,
    /// The room keeps as many counter types as it may.
    CounterTypesFull,
    /// The room accounts for as many types as it may.
    TypesFull,
    /// The room was closed while the message waited in it.
    RoomClosed,
    /// More came than devices are asked to show, and it was not drawn.
    Sampled,
    /// Its turn did not come within its `ttl_ms`.
    Expired,
    /// The room takes no more of its type a second.
    TypeRate,
    /// The room takes no more messages a second.
    RoomRate,
    /// The publisher's key may publish no more messages a second.
    KeyRate,
    /// It is lossy, and the ladder has those off.
    LossyOff,
}

impl ShedReason {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 11] = [
        Self::RoomFull,
        Self::LatestKeysFull,
        Self::CounterTypesFull,
        Self::TypesFull,
        Self::RoomClosed,
        Self::Sampled,
        Self::Expired,
        Self::TypeRate,
        Self::RoomRate,
        Self::KeyRate,
        Self::LossyOff,
    ];

    /// Its name in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoomFull => "room_full",
            Self::LatestKeysFull => "latest_keys_full",
            Self::CounterTypesFull => "counter_types_full",
            Self::TypesFull => "types_full",
            Self::RoomClosed => "room_closed",
            Self::Sampled => "sampled",
            Self::Expired => "expired",
            Self::TypeRate => "type_rate",
            Self::RoomRate => "room_rate",
            Self::KeyRate => "key_rate",
            Self::LossyOff => "lossy_off",
        }
    }

    /// Whether it may be otherwise a second later. The bounds that are not so hold for the room's whole run.
    #[must_use]
    pub fn passes(self) -> bool {
        self.is_limit() || matches!(self, Self::RoomFull | Self::Sampled | Self::Expired | Self::LossyOff)
    }

    /// Whether it is the publisher that sent more than it may, rather than the node that has too much to do.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Self::TypeRate | Self::RoomRate | Self::KeyRate)
    }
}

/// What became of a publish whose messages were all valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// One verdict per message, in their order.
    Taken(Vec<Verdict>),
    /// `messages[index]` has an id that was used for something else; nothing was taken.
    IdReused {
        /// Which message of the request.
        index: usize,
    },
    /// The node holds as many rooms as it may; nothing was taken.
    RoomsFull,
    /// The node is draining; nothing was taken.
    Draining,
}
