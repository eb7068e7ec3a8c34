//! The readers of the reliable stream, waiting for messages from the store.

use std::collections::BTreeSet;
use std::time::Instant;

use super::exchange::{CarryWant, Reach, RefreshWant};
use super::id::Seq;
use crate::limits::STORE_RETRY;

/// A reader of the reliable stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamReader {
    /// The wanted part of the stream.
    pub(super) reach: Reach,
    /// The offset behind which the store has to read.
    pub(super) from: u64,
    /// Most bytes of the answer; the first message is given in any case.
    pub(super) bytes_max: usize,
    pub(super) purpose: Purpose,
}

/// The use of what is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The refresh of members without the newest batches, reliable messages or both.
    Refresh { shard: usize, want: RefreshWant },
    /// A carry to members late to acknowledge.
    Carry { shard: usize, want: CarryWant },
    /// A page for the pull side. `reset`: the reason why the cursor was not honoured.
    Pull { ticket: u64, reset: Option<&'static str> },
}

/// All waiting readers of a room.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Bounded by the distinct states of members in segments, and by the pulls of the node.
    pub(super) waiting: Vec<StreamReader>,
    /// The offsets behind which the store was asked to read, in the present life of the stream.
    pub(super) pages_asked: BTreeSet<u64>,
    /// The end of the pause after a failed read; `None`: the store may be asked.
    pub(super) retry: Option<Instant>,
}

impl Readers {
    /// Has a reader wait. Returns true if the store is to be asked for the page behind `reader.from`.
    pub(super) fn wait(&mut self, reader: StreamReader) -> bool {
        self.waiting.push(reader);
        // Readers of the same place share a page, and during a pause the store is left alone.
        self.retry.is_none() && self.pages_asked.insert(reader.from)
    }

    /// Begins a pause, if anybody waits. Returns the readers that go on without the store; the others wait
    /// on.
    pub(super) fn put_off(&mut self, seq: Seq, now: Instant) -> Vec<StreamReader> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.retry.get_or_insert(now + STORE_RETRY);
        let goes_on = |reader: &mut StreamReader| match reader.purpose {
            // A refresh without batches, values or reliable messages would be a frame that says nothing.
            Purpose::Refresh { want, .. } => want.since < seq || want.latest.is_some(),
            // A carry without messages would say that none of them is alive any more.
            Purpose::Carry { .. } => false,
            // The publisher waits for an answer.
            Purpose::Pull { .. } => true,
        };
        self.waiting.extract_if(.., goes_on).collect()
    }
}
