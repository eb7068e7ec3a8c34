//! The newest reliable messages of a room, at hand to spare most frames a read from the store.

use std::collections::VecDeque;
use std::sync::Arc;

use super::message::Message;
use crate::limits::{TAIL_BYTES_MAX, TAIL_MESSAGES_MAX};

/// The tail of a stream. Bounded in messages and bytes: past a bound, the oldest go.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// In order of offset, without a gap but for messages lost by the store.
    messages: VecDeque<Arc<Message>>,
    /// Invariant: the sum of `wire_bytes` over `messages`.
    bytes: usize,
}

impl Tail {
    pub(super) fn push(&mut self, message: Arc<Message>) {
        self.bytes += message.wire_bytes;
        self.messages.push_back(message);
        while self.messages.len() > TAIL_MESSAGES_MAX || self.bytes > TAIL_BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.wire_bytes;
        }
    }

    /// Lets go of every message behind `offset`.
    pub(super) fn give_up_after(&mut self, offset: u64) {
        while let Some(message) = self.messages.pop_back_if(|message| message.offset > offset) {
            self.bytes -= message.wire_bytes;
        }
    }

    /// Returns true if the message at `offset` is older than the whole tail.
    pub(super) fn begins_after(&self, offset: u64) -> bool {
        self.messages.front().is_none_or(|first| offset < first.offset)
    }

    /// The messages behind `offset`, in order.
    pub(super) fn after(&self, offset: u64) -> impl Iterator<Item = Arc<Message>> {
        let from = self.messages.partition_point(|message| message.offset <= offset);
        self.messages.range(from..).cloned()
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.messages.len() <= TAIL_MESSAGES_MAX);
        let bytes: usize = self.messages.iter().map(|message| message.wire_bytes).sum();
        assert_eq!(bytes, self.bytes);
    }
}
