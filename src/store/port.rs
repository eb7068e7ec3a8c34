//! A shard's way to the store: two bounded queues. No call of this file waits.
//!
//! A shard may have `STORE_WAITING_MAX` requests under way, so the queue of answers cannot overflow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;

use roomcast_core::limits::{STORE_WAITING_BYTES_MAX, STORE_WAITING_MAX};

use super::{StoreAnswer, StoreError, StoreRequest};

/// A request on the way to the writer.
#[derive(Debug)]
pub(super) struct SentRequest {
    pub(super) request: StoreRequest,
    /// Answers taken by the shard before the request.
    pub(super) taken: u64,
}

/// The queues between a shard and the writer.
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

/// A shard's end of the passage to the writer.
#[derive(Debug)]
pub struct Port {
    passage: Arc<Passage>,
    writer: Thread,
    /// Answers taken so far.
    taken: u64,
    /// Bytes of each request without a taken answer, in order. At most `STORE_WAITING_MAX` entries.
    sizes: VecDeque<usize>,
    /// Invariant: the sum of `sizes`.
    bytes: usize,
}

impl Port {
    pub(super) fn new(passage: Arc<Passage>, writer: Thread) -> Self {
        Self { passage, writer, taken: 0, sizes: VecDeque::new(), bytes: 0 }
    }

    /// Sends a request. Each sent request gets exactly one answer.
    ///
    /// # Errors
    /// The request comes back with [`StoreError::Busy`] if `STORE_WAITING_MAX` answers are outstanding, or if
    /// the messages under way would exceed `STORE_WAITING_BYTES_MAX`.
    pub fn send(&mut self, request: StoreRequest) -> Result<(), (StoreRequest, StoreError)> {
        let size = bytes_of(&request);
        // A single request larger than the bound passes, or it would be refused for ever.
        if self.sizes.len() == STORE_WAITING_MAX
            || (self.bytes > 0 && self.bytes + size > STORE_WAITING_BYTES_MAX)
        {
            return Err((request, StoreError::Busy));
        }
        self.sizes.push_back(size);
        self.bytes += size;
        let sent = SentRequest { request, taken: self.taken };
        self.passage.requests.push(sent).expect("as many places as requests that may be under way");
        // A token for the next park, so no wake is lost between the writer's turn and its park. The call
        // enters the kernel only if the thread is parked.
        self.writer.unpark();
        Ok(())
    }

    /// The next answer, in the order of the requests. `None` if no answer waits.
    pub fn next_answer(&mut self) -> Option<StoreAnswer> {
        let answer = self.passage.answers.pop()?;
        self.taken += 1;
        // Answers come in the order of the requests.
        self.bytes -= self.sizes.pop_front().unwrap_or(0);
        Some(answer)
    }
}

/// Bytes of a waiting request in memory.
fn bytes_of(request: &StoreRequest) -> usize {
    match request {
        StoreRequest::Append(append) => append.wire_bytes(),
        StoreRequest::Load { .. } | StoreRequest::Page { .. } | StoreRequest::Forget { .. } => 0,
    }
}
