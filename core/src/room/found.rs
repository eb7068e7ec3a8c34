//! What a look into the reliable stream finds for a frame.

use std::sync::Arc;

use super::exchange::{Carried, Span};
use super::message::Message;

/// Reliable messages that are to go into a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// They are at hand: all that are alive in (after, through].
    Here {
        /// In order of offset.
        messages: Vec<Arc<Message>>,
        /// How far they reach.
        through: u64,
    },
    /// They have to be read from the store, behind this offset: up to it nothing is alive.
    InStore {
        /// Where to read.
        from: u64,
    },
}

impl Found {
    /// As a frame carries it.
    #[must_use]
    pub fn carried(self, after: u64, ack_within_ms: u32) -> Option<Carried> {
        match self {
            Self::Here { messages, through } => {
                Some(Carried { span: Span { after, through, ack_within_ms }, messages })
            }
            Self::InStore { .. } => None,
        }
    }
}
