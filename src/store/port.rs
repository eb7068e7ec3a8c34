//! A shard's way to the store: two bounded queues. Never waits.
//!
//! A shard may have `STORE_WAITING_MAX` requests under way, so the queue of answers can't overflow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;

use roomcast_core::limits::{STORE_WAITING_BYTES_MAX, STORE_WAITING_MAX};

use super::{Answer, Request, StoreError};

/// A request on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) request: Request,
    /// How many answers its shard had taken when it sent this.
    pub(super) taken: u64,
}

/// What a shard and the writer share.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) requests: ArrayQueue<Sent>,
    pub(super) answers: ArrayQueue<Answer>,
}

impl Passage {
    pub(super) fn new() -> Arc<Self> {
        let (requests, answers) = (ArrayQueue::new(STORE_WAITING_MAX), ArrayQueue::new(STORE_WAITING_MAX));
        Arc::new(Self { requests, answers })
    }
}

/// One shard's end.
#[derive(Debug)]
pub struct Port {
    passage: Arc<Passage>,
    /// Whom to wake.
    writer: Thread,
    sent: u64,
    taken: u64,
    /// Of the requests under way, in their order.
    sizes: VecDeque<usize>,
    /// Invariant: their sum.
    bytes: usize,
}

impl Port {
    pub(super) fn new(passage: Arc<Passage>, writer: Thread) -> Self {
        Self { passage, writer, sent: 0, taken: 0, sizes: VecDeque::new(), bytes: 0 }
    }

    /// Hands a request over. Each one that is taken gets exactly one answer.
    ///
    /// # Errors
    /// The request comes back with [`StoreError::Busy`]: `STORE_WAITING_MAX` answers are outstanding, or messages of
    /// `STORE_WAITING_BYTES_MAX`.
    pub fn send(&mut self, request: Request) -> Result<(), (Request, StoreError)> {
        let size = bytes_of(&request);
        if self.outstanding() == STORE_WAITING_MAX
            || (self.bytes > 0 && self.bytes + size > STORE_WAITING_BYTES_MAX)
        {
            return Err((request, StoreError::Busy));
        }
        self.sizes.push_back(size);
        self.bytes += size;
        let sent = Sent { request, taken: self.taken };
        self.passage.requests.push(sent).expect("as many places as requests that may be under way");
        self.sent += 1;
        // Kept by the thread until it parks next, so none is lost; a system call only if it is parked.
        self.writer.unpark();
        Ok(())
    }

    /// The next answer, in the order of the requests.
    pub fn next_answer(&mut self) -> Option<Answer> {
        let answer = self.passage.answers.pop()?;
        self.taken += 1;
        // Answers come in the order of the requests.
        self.bytes -= self.sizes.pop_front().unwrap_or(0);
        Some(answer)
    }

    /// Requests whose answers were not taken yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        usize::try_from(self.sent - self.taken).expect("at most STORE_WAITING_MAX")
    }
}

/// What a request keeps in memory while it waits.
fn bytes_of(request: &Request) -> usize {
    match request {
        Request::Append(append) => append.messages.iter().map(|message| message.wire_bytes).sum(),
        Request::Load { .. } | Request::Page { .. } => 0,
    }
}
