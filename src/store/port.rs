//! A shard's way to the store: bounded queues. No call of this file waits.
//!
//! A shard may have `STORE_WAITING_MAX` requests under way, so the queue of answers cannot overflow. The store's
//! threads answer. The writes of a room are answered in their order, and reads as they end.
//!
//! Before a store with readers, a load or a page goes straight to them, past a commit that takes its time. Behind a
//! write of the same room under way the read goes to the writer, because it has to see the write.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use roomcast_core::limits::{STORE_WAITING_BYTES_MAX, STORE_WAITING_MAX};

use super::desk::Wake;
use super::reads::{DueRead, ReadQueue};
use super::{Asked, StoreAnswer, StoreError, StoreRequest};
use roomcast_core::room::id::RoomName;

/// A request on the way to the store's thread.
#[derive(Debug)]
pub(super) struct SentRequest {
    pub(super) request: StoreRequest,
    /// Answers to writes taken by the shard before the request.
    pub(super) writes_taken: u64,
}

/// The queues between a shard and the store's thread.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) requests: ArrayQueue<SentRequest>,
    pub(super) answers: ArrayQueue<StoreAnswer>,
}

impl Passage {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: ArrayQueue::new(STORE_WAITING_MAX),
            answers: ArrayQueue::new(STORE_WAITING_MAX),
        })
    }
}

/// A shard's end of the passage to the store's thread.
pub struct Port {
    passage: Arc<Passage>,
    /// Wakes the store's thread.
    wake: Wake,
    /// The way to the readers; `None`: the store's thread reads.
    reads: Option<WayToReaders>,
    sent: u64,
    taken: u64,
    /// Answers to writes among `taken`.
    writes_taken: u64,
    /// The writes under way, in order.
    writes: VecDeque<WriteUnderWay>,
    /// Invariant: the sum of the bytes of `writes`.
    bytes: usize,
}

/// A shard's place before the readers.
#[derive(Debug, Clone)]
pub(super) struct WayToReaders {
    pub(super) queue: Arc<ReadQueue>,
    /// The index of the shard's desk.
    pub(super) desk: usize,
}

#[derive(Debug)]
struct WriteUnderWay {
    room: RoomName,
    bytes: usize,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("sent", &self.sent).field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Port {
    pub(super) fn new(passage: Arc<Passage>, wake: Wake, reads: Option<WayToReaders>) -> Self {
        Self { passage, wake, reads, sent: 0, taken: 0, writes_taken: 0, writes: VecDeque::new(), bytes: 0 }
    }

    /// Sends a request. Each sent request gets exactly one answer.
    ///
    /// # Errors
    /// The request comes back with [`StoreError::Busy`] if `STORE_WAITING_MAX` answers are outstanding, or if
    /// the messages under way would exceed `STORE_WAITING_BYTES_MAX`.
    pub fn send(&mut self, request: StoreRequest) -> Result<(), (StoreRequest, StoreError)> {
        let bytes = match &request {
            StoreRequest::Append(append) => append.wire_bytes(),
            StoreRequest::Load { .. } | StoreRequest::Page { .. } | StoreRequest::Forget { .. } => 0,
        };
        // A single request larger than the bound passes, or it would be refused for ever.
        if self.outstanding() == STORE_WAITING_MAX
            || (self.bytes > 0 && bytes > 0 && self.bytes + bytes > STORE_WAITING_BYTES_MAX)
        {
            return Err((request, StoreError::Busy));
        }
        self.sent += 1;
        if matches!(request, StoreRequest::Append(_) | StoreRequest::Forget { .. }) {
            self.writes.push_back(WriteUnderWay { room: request.room().clone(), bytes });
            self.bytes += bytes;
        } else if let Some(reads) = &self.reads
            && !self.writes.iter().any(|write| write.room == *request.room())
        {
            reads.queue.push(DueRead { desk: reads.desk, request });
            return Ok(());
        }
        let sent = SentRequest { request, writes_taken: self.writes_taken };
        self.passage.requests.push(sent).expect("as many places as requests that may be under way");
        (self.wake)();
        Ok(())
    }

    /// The next answer. `None` if no answer waits.
    pub fn next_answer(&mut self) -> Option<StoreAnswer> {
        let answer = self.passage.answers.pop()?;
        self.taken += 1;
        if answer.is_of_write() {
            self.writes_taken += 1;
            // Answers to the writes of a room come in their order. A store of one file answers all in order, so the
            // first place is the one.
            let at = self.writes.iter().position(|write| write.room == *answer.room());
            self.bytes -= at.and_then(|at| self.writes.remove(at)).map_or(0, |write| write.bytes);
        }
        Some(answer)
    }

    /// The number of requests without a taken answer, at most `STORE_WAITING_MAX`.
    #[must_use]
    pub(crate) fn outstanding(&self) -> usize {
        usize::try_from(self.sent - self.taken).expect("at most STORE_WAITING_MAX")
    }
}

impl StoreAnswer {
    /// The room of the request.
    fn room(&self) -> &RoomName {
        match self {
            Self::Loaded { room, .. }
            | Self::Durable { room, .. }
            | Self::Paged { room, .. }
            | Self::Forgotten { room, .. }
            | Self::Failed { room, .. } => room,
        }
    }

    /// True for the answer to an append, or to the removal of a stream.
    pub(super) fn is_of_write(&self) -> bool {
        matches!(
            self,
            Self::Durable { .. }
                | Self::Forgotten { .. }
                | Self::Failed { asked: Asked::Append | Asked::Forget, .. }
        )
    }
}
