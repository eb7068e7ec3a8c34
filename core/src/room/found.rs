//! The result of a look into the reliable stream for a frame.

use std::sync::Arc;

use super::exchange::{Carried, Span};
use super::message::Message;

/// The reliable messages of a frame, or their place in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All messages alive in (after, `through`], from memory.
    Here {
        /// Rising in offset.
        messages: Vec<Arc<Message>>,
        /// The end of the answer. Up to here no alive message is missing.
        through: u64,
    },
    /// Memory does not reach back far enough: the store has to be read.
    InStore {
        /// The offset to read behind. Nothing between the asked offset and this one is alive.
        from: u64,
    },
}

impl Found {
    /// A frame's part in answer to a look behind `after`; `None` for messages in the store.
    pub(super) fn carried(self, after: u64, ack_within_ms: u32) -> Option<Carried> {
        match self {
            Self::Here { messages, through } => {
                Some(Carried { span: Span { after, through, ack_within_ms }, messages })
            }
            Self::InStore { .. } => None,
        }
    }
}
