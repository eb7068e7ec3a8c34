//! A room's reliable stream as given back by the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::{Carried, Span};
use super::id::{Epoch, MessageId, TypeName};
use super::ids::Fingerprint;
use super::message::Message;

/// A room's stream as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The life of the stream.
    pub epoch: Epoch,
    /// The last offset given out; 0: none yet.
    pub head: u64,
    /// A record of each message that is alive, or whose `id` still counts, rising in offset. A damaged message
    /// is left out.
    pub records: Vec<Record>,
    /// The newest messages of `records`, whole: those of the tail, and all behind the offset that was asked
    /// for.
    pub tail: Vec<Arc<Message>>,
}

/// A reliable message without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Place in the stream, from 1.
    pub offset: u64,
    /// The message's type.
    pub type_name: TypeName,
    /// The publisher's id, if any.
    pub id: Option<MessageId>,
    /// The digest of the content, to tell a retry from a reused id.
    pub fingerprint: Fingerprint,
    /// The moment of acceptance by the wall clock, unix milliseconds. For people: steps of the wall clock
    /// change nothing of the message's life.
    pub at_ms: u64,
    /// The message's life, from acceptance on.
    pub ttl: Duration,
    /// The offset that this message recalls; 0: none.
    pub recall: u64,
    /// The offset of this message's durable recall; 0: none.
    pub recalled_by: u64,
    /// Size in the larger encoding.
    pub wire_bytes: usize,
    /// The moment of acceptance. For a message from the store: the moment at which it would have been
    /// accepted in this life of the node.
    pub accepted: Instant,
    /// The moment of expiry.
    pub expires: Instant,
}

impl Record {
    /// The record of a message that is accepted now.
    #[must_use]
    pub fn of(message: &Message, now: Instant) -> Self {
        Self {
            offset: message.offset,
            type_name: message.type_name.clone(),
            id: message.id.clone(),
            fingerprint: Fingerprint::of(message),
            at_ms: message.at_ms,
            ttl: message.ttl,
            recall: message.recall,
            recalled_by: 0,
            wire_bytes: message.wire_bytes,
            accepted: now,
            expires: now + message.ttl,
        }
    }
}

/// A part of a room's stream, from the store or from memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Rising in offset. A damaged message is left out.
    pub messages: Vec<Arc<Message>>,
    /// The end of the page: `messages` has everything stored, or alive, in (after, through].
    pub through: u64,
}

impl Page {
    /// A frame's part in answer to a look behind `after`.
    pub(super) fn carried(self, after: u64, ack_within_ms: u32) -> Carried {
        Carried { span: Span { after, through: self.through, ack_within_ms }, messages: self.messages }
    }
}

/// The request behind a failure of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A load of the room's stream.
    Load,
    /// An append. Every later append of the same life fails as well.
    Append,
    /// The end of the room's stream.
    Forget,
    /// A page behind an offset.
    Page {
        /// The offset asked for, exclusive.
        after: u64,
    },
}
