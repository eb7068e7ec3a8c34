//! The readers of the reliable stream, waiting for messages from the store.

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
    waiting: Vec<StreamReader>,
    /// The offsets behind which the store was asked to read.
    pages_asked: Vec<u64>,
    /// The end of the pause after a failed read; `None`: the store may be asked.
    pub(super) retry: Option<Instant>,
}

impl Readers {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns true if a reader is refused at once during a pause. A pull is, since the publisher can ask
    /// again.
    pub(super) fn turns_away(&self, reader: &StreamReader) -> bool {
        self.retry.is_some() && matches!(reader.purpose, Purpose::Pull { .. })
    }

    /// Has a reader wait. Returns true if the store is to be asked for the page behind `reader.from`.
    pub(super) fn wait(&mut self, reader: StreamReader) -> bool {
        self.waiting.push(reader);
        // Readers of the same place share a page, and during a pause the store is left alone.
        if self.retry.is_some() || self.pages_asked.contains(&reader.from) {
            return false;
        }
        self.pages_asked.push(reader.from);
        true
    }

    /// The store has answered for the page behind `after`.
    pub(super) fn page_answered(&mut self, after: u64) {
        self.pages_asked.retain(|asked| *asked != after);
    }

    /// Gives up the readers of the page behind `after`.
    pub(super) fn take_readers_of(&mut self, after: u64) -> Vec<StreamReader> {
        self.waiting.extract_if(.., |reader| reader.from == after).collect()
    }

    /// Gives up all readers.
    pub(super) fn take(&mut self) -> Vec<StreamReader> {
        std::mem::take(&mut self.waiting)
    }

    /// Forgets all requested pages: the answers would be of an earlier life.
    pub(super) fn forget_pages(&mut self) {
        self.pages_asked.clear();
    }

    /// Begins a pause, if anybody waits. Returns the readers that go on without the store; the others wait
    /// on.
    pub(super) fn put_off(&mut self, seq: Seq, now: Instant) -> Vec<StreamReader> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.retry.get_or_insert(now + STORE_RETRY);
        let goes_on = |reader: &mut StreamReader| match reader.purpose {
            // A refresh without batches or reliable messages would be a frame that says nothing.
            Purpose::Refresh { want, .. } => want.since < seq,
            // A carry without messages would say that none of them is alive any more.
            Purpose::Carry { .. } => false,
            // The publisher waits for an answer.
            Purpose::Pull { .. } => true,
        };
        self.waiting.extract_if(.., goes_on).collect()
    }

    /// Ends the pause if the time has come. Returns true if the pause ended now.
    pub(super) fn end_pause(&mut self, now: Instant) -> bool {
        self.retry.take_if(|retry| *retry <= now).is_some()
    }
}
