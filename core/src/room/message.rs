//! One thing published to a room, as the engine holds it, and the promise of its class.

use std::time::Duration;

use bytes::Bytes;

use crate::now::millis;

use super::id::{Key, MessageId, TypeName};
use super::policy::TypePolicy;

named! {
    /// The engine's promise for a type of message.
    pub enum Class {
        /// Stored first, carried until each device has acknowledged.
        Reliable = "reliable",
        /// At most once per connection, in order, kept in the history.
        Normal = "normal",
        /// The newest value per key arrives; older values may be skipped.
        Latest = "latest",
        /// Increments are summed; devices get the increment and the exact total.
        Counter = "counter",
        /// First to go under pressure.
        Lossy = "lossy",
    }
}

/// The publisher's bytes. The engine never looks inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payload {
    /// One JSON value, checked at the door.
    Json(Bytes),
    /// Any bytes; base64 in JSON frames.
    Opaque(Bytes),
}

impl Payload {
    /// The bytes as published.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Opaque(bytes) => bytes,
        }
    }
}

/// A checked message of a publish, with the policy of the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The publisher's name for a sort of message.
    pub type_name: TypeName,
    /// Class, priority and further treatment. The room may change the node's policy.
    pub policy: TypePolicy,
    /// Key of merging, and of the latest value. Class latest always has a key.
    pub key: Option<Key>,
    /// The publisher's id, which makes the publish idempotent.
    pub id: Option<MessageId>,
    /// Owned bytes. A slice would keep the whole request alive.
    pub payload: Payload,
    /// The increment of a counter, or the messages of a sum; 1 otherwise.
    pub count: u64,
    /// Life of a reliable message from acceptance on. Longest wait in the room for any other.
    pub ttl: Duration,
    /// Place in the reliable stream; 0: none, or none yet.
    pub offset: u64,
    /// The offset recalled by this message; 0: none.
    pub recall: u64,
    /// The moment of acceptance at the home, unix milliseconds; 0 before.
    pub at_ms: u64,
    /// Size in the larger of the two encodings. Every bound in bytes counts this size.
    pub wire_bytes: usize,
}

impl Message {
    /// A message with a count of 1, the ttl of its policy, and no place in a stream yet.
    pub fn new(type_name: TypeName, policy: TypePolicy, payload: Payload) -> Self {
        Self {
            type_name,
            ttl: policy.ttl,
            policy,
            key: None,
            id: None,
            payload,
            count: 1,
            offset: 0,
            recall: 0,
            at_ms: 0,
            wire_bytes: 0,
        }
    }

    /// The engine's promise for the message.
    pub fn class(&self) -> Class {
        self.policy.class
    }

    /// The moment of expiry of a reliable message, unix milliseconds.
    pub fn expires_ms(&self) -> u64 {
        self.at_ms.saturating_add(millis(self.ttl))
    }
}

/// A made-up normal message for the tests and benches of every crate.
///
/// # Panics
/// If `type_name` is no type name.
pub fn sample(type_name: &str, payload: &str) -> Message {
    let type_name = TypeName::parse(type_name).expect("a type name");
    let json = Payload::Json(Bytes::copy_from_slice(payload.as_bytes()));
    Message { wire_bytes: 60 + payload.len(), ..Message::new(type_name, TypePolicy::of(Class::Normal), json) }
}

/// The room's answer to a message of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The message waits for the next flush, or has left.
    Accepted,
    /// Only a part of the count was added: the counter is at `INTEGER_MAX`.
    Saturated,
    /// The message is synced on this node.
    Durable {
        /// Place in the room's reliable stream.
        offset: u64,
    },
    /// The message and a waiting message of the same key leave as one.
    Merged,
    /// The message's `id` was published within the last five minutes.
    Duplicate {
        /// The first message's offset, if reliable.
        offset: Option<u64>,
    },
    /// The message was dropped on purpose.
    Shed(ShedReason),
    /// The reliable message was not, or perhaps not, stored. A retry with the same `id` is safe.
    Unavailable(Unavailable),
}

named! {
    /// The reason for not storing a reliable message.
    pub enum Unavailable {
        /// The store is failing. The message may or may not be stored.
        StoreFailing = "store_failing",
        /// The store holds `STORE_BYTES_MAX`.
        StoreFull = "store_full",
        /// Too much waits for the store. The message may be stored: others of the room were on their way.
        StoreBusy = "store_busy",
        /// The room's alive reliable messages number `STREAM_MESSAGES_MAX`, or take `STREAM_BYTES_MAX`.
        StreamFull = "stream_full",
        /// Too much waits in the room already.
        RoomFull = "room_full",
    }
}

impl Unavailable {
    /// True if the message may have been stored all the same.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::StoreFailing | Self::StoreBusy)
    }
}

named! {
    /// The reason for a message dropped on purpose. The publisher and a metric tell of the message, and so
    /// does the room's account, unless a key's limit stopped the message at the door. The room's members are
    /// told if the message had been accepted.
    pub enum ShedReason {
        /// The room is full, or was full as a message of a higher priority came.
        RoomFull = "room_full",
        /// The room keeps `LATEST_KEYS_MAX` keys.
        LatestKeysFull = "latest_keys_full",
        /// The room keeps `COUNTER_TYPES_MAX` counters.
        CounterTypesFull = "counter_types_full",
        /// The room accounts for `ROOM_TYPES_MAX` types.
        TypesFull = "types_full",
        /// The room was closed while the message waited.
        RoomClosed = "room_closed",
        /// More messages came than devices are asked to show, and the sample left this message out.
        Sampled = "sampled",
        /// The message waited for `ttl_ms`.
        Expired = "expired",
        /// The type is past the rate in this room.
        TypeRate = "type_rate",
        /// The room is past the rate for all types.
        RoomRate = "room_rate",
        /// The publisher's key is past the key's rate.
        KeyRate = "key_rate",
        /// The ladder sheds lossy messages.
        LossyOff = "lossy_off",
    }
}

impl ShedReason {
    /// True if a retry a second later may be taken. The other bounds hold for the room's whole run.
    pub fn passes(self) -> bool {
        self.is_limit() || matches!(self, Self::RoomFull | Self::Sampled | Self::Expired | Self::LossyOff)
    }

    /// True for a limit of messages a second: the publisher sent too much.
    pub fn is_limit(self) -> bool {
        matches!(self, Self::TypeRate | Self::RoomRate | Self::KeyRate)
    }
}

named! {
    /// The reason why a node does not order a room.
    pub enum Homeless {
        /// No node orders the room at present, or its home has lost the right to. The same request may succeed
        /// in a second.
        NoHome = "no_home",
        /// Another node orders the room. A request that came from a node is not forwarded again.
        NotHome = "not_home",
    }
}

/// The result of a publish with valid messages alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// A verdict per message, in the request's order.
    Taken(Vec<Verdict>),
    /// An id was used for another message before. Nothing was taken.
    IdReused {
        /// Index of the first such message in the request.
        index: usize,
    },
    /// The node holds `ROOMS_MAX` rooms. Nothing was taken.
    RoomsFull,
    /// The node is draining. Nothing was taken.
    Draining,
    /// This node does not order the room. Nothing was taken.
    Homeless(Homeless),
}
