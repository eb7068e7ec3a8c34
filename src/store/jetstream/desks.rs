//! The desks of all shards before the log: requests come in turns, and each gets its answer.

use std::sync::Arc;

use roomcast_core::limits::LOG_TURN_REQUESTS_MAX;

use crate::store::desk::{Desk, Wake};
use crate::store::port::{Passage, Port, SentRequest};
use crate::store::{StoreAnswer, StoreRequest};

/// A desk for each shard.
#[derive(Debug)]
pub(super) struct Desks {
    desks: Vec<Desk>,
    /// The desk that comes first in the next turn. The place moves on, so no shard is always served last.
    first: usize,
    /// Requests handed out without an answer.
    under_way: usize,
}

impl Desks {
    pub(super) fn new(wakes: Vec<Wake>) -> Self {
        Self { desks: wakes.into_iter().map(Desk::new).collect(), first: 0, under_way: 0 }
    }

    /// A port for each desk. `wake` makes the function that wakes the log's thread.
    pub(super) fn ports(&self, wake: impl Fn() -> Wake) -> Vec<Port> {
        let passages = self.desks.iter().map(|desk| Arc::<Passage>::clone(&desk.outlet.passage));
        passages.map(|passage| Port::new(passage, wake(), None)).collect()
    }

    /// Takes a turn's worth of requests and hands each to `take`, with its desk. Appends of a life with a failed
    /// append are answered here: the shard sent them before it could know, and they would leave a hole. True if more
    /// requests may wait.
    pub(super) fn take(&mut self, mut take: impl FnMut(&mut Self, usize, StoreRequest)) -> bool {
        let count = self.desks.len();
        let first = self.first;
        self.first = (first + 1) % count.max(1);
        let mut is_more = false;
        for index in (0..count).map(|at| (first + at) % count) {
            for _ in 0..LOG_TURN_REQUESTS_MAX {
                let Some(sent) = self.desks[index].outlet.passage.requests.pop() else { break };
                let SentRequest { request, writes_taken } = sent;
                self.under_way += 1;
                let broken = match &request {
                    StoreRequest::Append(append) => self.desks[index].broken_life(append, writes_taken),
                    StoreRequest::Load { .. } | StoreRequest::Page { .. } | StoreRequest::Forget { .. } => {
                        None
                    }
                };
                match broken {
                    Some(error) => self.answer(index, request.failed(error)),
                    None => take(self, index, request),
                }
            }
            is_more |= !self.desks[index].outlet.passage.requests.is_empty();
        }
        is_more
    }

    /// Gives the answer to a request that was handed out, without a wake.
    pub(super) fn answer(&mut self, desk: usize, answer: StoreAnswer) {
        self.under_way -= 1;
        self.desks[desk].answer(answer);
    }

    /// Wakes the shards with new answers.
    pub(super) fn wake(&self) {
        self.desks.iter().for_each(|desk| desk.outlet.wake());
    }

    /// True if every request has its answer.
    pub(super) fn are_idle(&self) -> bool {
        self.under_way == 0 && self.desks.iter().all(|desk| desk.outlet.passage.requests.is_empty())
    }
}
