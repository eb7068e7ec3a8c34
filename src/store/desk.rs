//! The store's end of the shards' passages: a desk for each shard, and the appends of one commit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roomcast_core::limits::{STORE_COMMIT_BYTES_MAX, STORE_COMMIT_MESSAGES_MAX};
use roomcast_core::room::id::RoomName;

use super::port::{Passage, SentRequest};
use super::{Append, Asked, StoreAnswer, StoreError};

/// Wakes a shard whose answers wait. Called on the store's threads, so the function must not wait.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// The way of answers to a shard, for the writer and the readers.
pub(super) struct Outlet {
    pub(super) passage: Arc<Passage>,
    wake: Wake,
    /// True: the shard has new answers since the last wake.
    touched: AtomicBool,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("touched", &self.touched).finish_non_exhaustive()
    }
}

impl Outlet {
    /// Gives an answer, without a wake.
    pub(super) fn answer(&self, answer: StoreAnswer) {
        self.passage.answers.push(answer).expect("as many places as requests that may be under way");
        self.touched.store(true, Ordering::Release);
    }

    /// Wakes the shard if it has new answers.
    pub(super) fn wake(&self) {
        if self.touched.swap(false, Ordering::AcqRel) {
            (self.wake)();
        }
    }
}

/// The writer's end of a shard's passage.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) outlet: Arc<Outlet>,
    /// A request taken from the queue, and kept for a later turn.
    pub(super) held: Option<SentRequest>,
    /// Answers to writes given so far.
    answered: u64,
    /// Lives with a failed append, maybe not known to the shard yet.
    broken: BTreeMap<RoomName, Broken>,
}

#[derive(Debug, Clone, Copy)]
struct Broken {
    life: u64,
    error: StoreError,
    /// The number of the failing answer. A shard with this many answers to writes taken knows of the failure.
    answer: u64,
}

impl Desk {
    pub(super) fn new(wake: Wake) -> Self {
        let outlet = Outlet { passage: Passage::new(), wake, touched: AtomicBool::new(false) };
        Self { outlet: Arc::new(outlet), held: None, answered: 0, broken: BTreeMap::new() }
    }

    pub(super) fn answer(&mut self, answer: StoreAnswer) {
        self.answered += u64::from(answer.is_of_write());
        if let StoreAnswer::Failed { room, life, asked: Asked::Append, error } = &answer {
            let broken = Broken { life: *life, error: *error, answer: self.answered };
            self.broken.insert(room.clone(), broken);
        }
        self.outlet.answer(answer);
    }

    /// The error of an earlier append of the same life, if one failed. `writes_taken` counts the answers to
    /// writes taken by the shard before the append.
    pub(super) fn broken_life(&mut self, append: &Append, writes_taken: u64) -> Option<StoreError> {
        if self.broken.is_empty() {
            return None;
        }
        // A shard that has taken the failing answer has begun another life.
        self.broken.retain(|_, broken| broken.answer > writes_taken);
        self.broken.get(&append.room).filter(|broken| broken.life == append.life).map(|broken| broken.error)
    }
}

/// The appends of one turn's commit.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) appends: Vec<Append>,
    /// The answers of the turn in order: those of gathered appends, and between them those of refused
    /// appends.
    pub(super) order: Vec<AnswerDue>,
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct AnswerDue {
    pub(super) desk: usize,
    /// The answer of a refused append. `None`: the answer follows from the outcome of the next append.
    pub(super) refused: Option<StoreAnswer>,
}

impl Gathered {
    pub(super) fn has_room_for(&self, append: &Append) -> bool {
        // The first append always fits: an append larger than a commit would wait for ever.
        self.appends.is_empty()
            || (self.messages + append.messages.len() <= STORE_COMMIT_MESSAGES_MAX
                && self.bytes + append.wire_bytes() <= STORE_COMMIT_BYTES_MAX)
    }

    pub(super) fn push(&mut self, desk: usize, append: Append) {
        self.messages += append.messages.len();
        self.bytes += append.wire_bytes();
        self.appends.push(append);
        self.order.push(AnswerDue { desk, refused: None });
    }

    /// True if an append of the desk waits for the commit.
    pub(super) fn is_from(&self, desk: usize) -> bool {
        self.order.iter().any(|place| place.desk == desk)
    }

    /// True if an append of the room waits for the commit.
    pub(super) fn is_of(&self, room: &RoomName) -> bool {
        self.appends.iter().any(|append| append.room == *room)
    }
}
