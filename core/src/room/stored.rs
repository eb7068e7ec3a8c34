//! A room's reliable stream as given back by the store.

use std::sync::Arc;

use super::exchange::{Carried, Span};
use super::id::Epoch;
use super::message::Message;

/// A room's stream as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The life of the stream.
    pub epoch: Epoch,
    /// The last offset given out; 0: none yet.
    pub head: u64,
    /// Messages alive, or with an `id` that still counts, rising in offset. A damaged message is left out.
    pub messages: Vec<Arc<Message>>,
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
