//! The machine of one slot's log: claims, commits, loads and pages. Pure: no client, clock or thread.
//!
//! The caller passes orders, requests, answers of the client and due deadlines in, each with `now`. After each
//! input the caller drains `poll_op`, `poll_answer` and `poll_news` to `None`, and calls `due` at
//! `poll_deadline`. An append may wait for its turn, as long as the machine `awaits` its answer: `leaves` says that it
//! is on its way.
//!
//! A machine is released, claims, or holds its slot. A claim is appended without expectation, the log is read up
//! to the claim, and the slot is held under the claim's term. A held slot has one record under way, which expects
//! the last sequence of the slot's log. An append without an answer has an unknown outcome: the slot is claimed
//! and read again, which decides the outcome. A refused append asks the log for its last entry: see
//! `judge`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use roomcast_core::cluster::node::NODE_VERSION_OLDEST;
use roomcast_core::cluster::{Slot, Term};
#[cfg(test)]
use roomcast_core::limits::LOG_SLOT_READS_MAX;
use roomcast_core::limits::{
    LOG_APPEND_PATIENCE, LOG_CLAIM_PATIENCE_MAX, LOG_PAYLOADS_BYTES_MAX, LOG_SLOT_BYTES_MAX,
    LOG_SLOT_REQUESTS_MAX, STORE_PURGE_ROWS_MAX,
};
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

use super::claim::Claim;
use super::commit::{HeldRequest, SlotCommit};
use super::fetch::Fetch;
use super::image::Image;
use super::ops::{LogHeard, LogOp, LogOpKind, OpId};
use super::orders::{LogNews, LogOrder};
pub(super) use super::record::Claimant;
use super::record::Content;
use crate::store::time::StoreClock;
use crate::store::{StoreAnswer, StoreError, StoreHoldings, StoreRequest};

mod claims;
mod commits;
mod reads;

/// The log of one slot, as this node uses it. A machine without the slot keeps nothing of the log.
#[derive(Debug)]
pub(super) struct SlotLog {
    slot: Slot,
    own: Claimant,
    clock: StoreClock,
    bytes_max: u64,
    payload_bytes_max: usize,
    /// The version of new entries.
    version: u8,
    /// Operations and claims made so far.
    made: u64,
    /// The highest term heard of, read or held. The next claim has to be above.
    floor: Term,
    /// The log had entries of a later version: it is not claimed before this time.
    newer_until: Option<Instant>,
    hold: Hold,
    /// Writes in order, and reads behind a write of their room.
    waiting: VecDeque<HeldRequest>,
    /// Loads and pages.
    fetches: VecDeque<Fetch>,
    shares: BTreeMap<usize, DeskShare>,
    ops: VecDeque<LogOp>,
    answers: VecDeque<(usize, StoreAnswer)>,
    news: VecDeque<LogNews>,
    damaged: u64,
    out_of_term: u64,
}

/// The standing of a machine.
#[derive(Debug)]
enum Hold {
    Released,
    Claiming(Box<Claim>),
    Held(Box<Held>),
}

/// A slot that is held.
#[derive(Debug)]
struct Held {
    term: Term,
    /// The term of the last claim of another node before it.
    behind: Term,
    /// The sequence of the log's last entry, as far as known.
    last: u64,
    /// The number of the last entry made in the term.
    number: u64,
    image: Image,
    /// The writes under way.
    commit: Option<SlotCommit>,
    sent: Option<Sent>,
    /// True: the next acknowledged append is to be told, whenever the last one was.
    proof_is_due: bool,
    /// The time of the last `Proven`, or of the claim.
    proven_at: Instant,
    /// The time of the next renewal that lives as long as a claim.
    renew_at: Instant,
    /// A full log: neither head rows nor renewals before this time.
    quiet_until: Instant,
    purged_at: Instant,
    /// The time of the next purge. `None`: nothing expires.
    purge_at: Option<Instant>,
}

/// An append under way.
#[derive(Debug)]
struct Sent {
    /// The append, or the look at the last entry after a refusal.
    op: OpId,
    content: Content,
    number: u64,
    message_id: String,
    ttl: Duration,
    entry: Bytes,
    proves: bool,
    /// The time at which it was made.
    began: Instant,
    /// The time at which it left first. `None`: it waits for its turn.
    left_at: Option<Instant>,
}

/// The requests of a shard that the slot holds.
#[derive(Debug, Default)]
struct DeskShare {
    requests: usize,
    /// Bytes of appends.
    bytes: usize,
}

impl SlotLog {
    /// A machine that does not hold its slot. `bytes_max` bounds the bytes of the slot's rows: above, appends
    /// fail with `StoreError::Full`.
    pub(super) fn new(slot: Slot, own: Claimant, clock: StoreClock, bytes_max: u64) -> Self {
        Self {
            slot,
            own,
            clock,
            bytes_max,
            payload_bytes_max: LOG_PAYLOADS_BYTES_MAX,
            version: NODE_VERSION_OLDEST,
            made: 0,
            floor: Term::default(),
            newer_until: None,
            hold: Hold::Released,
            waiting: VecDeque::new(),
            fetches: VecDeque::new(),
            shares: BTreeMap::new(),
            ops: VecDeque::new(),
            answers: VecDeque::new(),
            news: VecDeque::new(),
            damaged: 0,
            out_of_term: 0,
        }
    }

    /// Writes new entries in this version.
    pub(super) fn write_version(&mut self, version: u8) {
        self.version = version;
    }

    /// Takes an order of the cluster for this slot.
    pub(super) fn order(&mut self, order: &LogOrder, now: Now) {
        match order {
            LogOrder::Claim { heard, .. } => {
                self.floor = self.floor.max(*heard);
                match &self.hold {
                    Hold::Released => self.begin_claim(None, None, now),
                    // The term is compared at the acknowledgement.
                    Hold::Claiming(_) => {}
                    Hold::Held(held) if held.term >= *heard => {
                        let Held { term, behind, .. } = **held;
                        self.news.push_back(LogNews::Claimed { slot: self.slot, term, behind });
                    }
                    Hold::Held(_) => self.fall(now),
                }
            }
            LogOrder::Release { .. } => self.release(),
            // A claim under way answers as well.
            LogOrder::Reclaim { .. } => self.fall(now),
            LogOrder::Renew { .. } => {
                if let Hold::Held(held) = &mut self.hold {
                    held.proof_is_due = true;
                }
            }
        }
        self.go_on(now);
    }

    /// Takes a request of the shard at `desk`. Each request gets one answer. The answers to the writes of a room
    /// come in order, but for `StoreError::Busy`, which comes at once. A read is answered behind the earlier
    /// writes of its room.
    ///
    /// The caller has refused appends of broken lives itself (`Desk::broken_life`). The machine fails the appends
    /// that wait behind a failed append of their life, in the same turn.
    pub(super) fn request(&mut self, desk: usize, request: StoreRequest, now: Now) {
        let takes_requests = match &self.hold {
            Hold::Released => false,
            Hold::Claiming(claim) => claim.requests_until.is_some(),
            Hold::Held(_) => true,
        };
        if !takes_requests {
            return self.answers.push_back((desk, request.failed(StoreError::Failing)));
        }
        let share = self.shares.entry(desk).or_default();
        let bytes = append_bytes(&request);
        // A single append larger than the bound passes, or it would be refused for ever.
        let is_full = share.bytes > 0 && bytes > 0 && share.bytes + bytes > LOG_SLOT_BYTES_MAX;
        if share.requests >= LOG_SLOT_REQUESTS_MAX || is_full {
            return self.answers.push_back((desk, request.failed(StoreError::Busy)));
        }
        share.requests += 1;
        share.bytes += bytes;
        let held = HeldRequest { desk, request };
        if is_read(&held.request) && !self.has_write_of(held.request.room()) {
            self.fetches.push_back(Fetch::new(held));
        } else {
            self.waiting.push_back(held);
        }
        self.go_on(now);
    }

    /// Takes an answer of the client. Answers to operations that were given up are ignored.
    pub(super) fn hear(&mut self, id: OpId, heard: LogHeard, now: Now) {
        match &self.hold {
            Hold::Claiming(claim) if claim.op == Some(id) => self.hear_claim(heard, now),
            Hold::Held(held) if held.sent.as_ref().is_some_and(|sent| sent.op == id) => {
                self.hear_sent(heard, now);
            }
            Hold::Held(_) => self.hear_fetch(id, heard, now),
            Hold::Released | Hold::Claiming(_) => {}
        }
        self.go_on(now);
    }

    /// Acts on all deadlines up to `now`. True: an operation was given up that had its time and no answer.
    pub(super) fn due(&mut self, now: Now) -> bool {
        let mut is_silent = false;
        match &mut self.hold {
            Hold::Released => {}
            Hold::Claiming(claim) => {
                let fails_requests = claim.requests_until.is_some_and(|until| until <= now.instant);
                if claim.until <= now.instant && claim.op.take().is_some() {
                    is_silent = true;
                    if claim.claimed.is_none() {
                        claim.patience = (2 * claim.patience).min(LOG_CLAIM_PATIENCE_MAX);
                    }
                }
                if fails_requests {
                    claim.requests_until = None;
                    self.fail_all();
                }
            }
            Hold::Held(held) => {
                if let Some(sent) = held.sent.as_ref().filter(|sent| sent.until() <= now.instant) {
                    is_silent = sent.left_at.is_some();
                    if is_silent { self.fall(now) } else { self.give_up_unsent() }
                } else if held.purge_at.is_some_and(|at| at <= now.instant) {
                    let now_ms = self.clock.now(now).stamp.store_ms;
                    let looked_at = held.image.purge(now_ms, STORE_PURGE_ROWS_MAX);
                    // A purge at its bound is followed by the next at once.
                    if looked_at < STORE_PURGE_ROWS_MAX {
                        held.purged_at = now.instant;
                    }
                }
            }
        }
        is_silent |= self.give_up_fetches(now);
        self.go_on(now);
        is_silent
    }

    /// True if an answer to the operation matters.
    pub(super) fn awaits(&self, id: OpId) -> bool {
        let is_of_hold = match &self.hold {
            Hold::Released => false,
            Hold::Claiming(claim) => claim.op == Some(id),
            Hold::Held(held) => held.sent.as_ref().is_some_and(|sent| sent.op == id),
        };
        is_of_hold || self.fetches.iter().any(|fetch| fetch.op.is_some_and(|(op, _)| op == id))
    }

    /// Begins the patience with an append that has waited for its turn.
    pub(super) fn leaves(&mut self, id: OpId, now: Now) {
        match &mut self.hold {
            Hold::Claiming(claim) if claim.op == Some(id) => claim.until = now.instant + claim.patience,
            Hold::Held(held) => {
                if let Some(sent) = held.sent.as_mut().filter(|sent| sent.op == id) {
                    // The repeat of a refused append has the rest of the first one's time.
                    sent.left_at.get_or_insert(now.instant);
                }
            }
            Hold::Released | Hold::Claiming(_) => {}
        }
    }

    /// The next operation for the client.
    pub(super) fn poll_op(&mut self) -> Option<LogOp> {
        self.ops.pop_front()
    }

    /// The next answer, with the desk of its request.
    pub(super) fn poll_answer(&mut self) -> Option<(usize, StoreAnswer)> {
        self.answers.pop_front()
    }

    /// The next word for the cluster.
    pub(super) fn poll_news(&mut self) -> Option<LogNews> {
        self.news.pop_front()
    }

    /// The moment of the next `due`.
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        let of_hold = match &self.hold {
            Hold::Released => None,
            Hold::Claiming(claim) => Some(claim.requests_until.map_or(claim.until, |at| at.min(claim.until))),
            Hold::Held(held) => held.deadline(),
        };
        let of_fetches = self.fetches.iter().filter_map(|fetch| fetch.op.map(|(_, until)| until));
        of_hold.into_iter().chain(of_fetches).min()
    }

    /// Bounds the bytes of payloads in memory: the slot's part of what the node keeps.
    pub(super) fn bound_payloads(&mut self, bytes_max: usize) {
        self.payload_bytes_max = bytes_max.min(LOG_PAYLOADS_BYTES_MAX);
        if let Hold::Held(held) = &mut self.hold {
            held.image.bound_payloads(self.payload_bytes_max);
        }
    }

    /// The bytes of the slot's rows, and the damaged entries met since the start.
    pub(super) fn holdings(&self) -> StoreHoldings {
        let bytes = if let Hold::Held(held) = &self.hold { held.image.bytes() } else { 0 };
        StoreHoldings { bytes, quarantined: self.damaged }
    }

    /// Entries of an older term met behind a newer claim since the start. Above 0: the fence has failed.
    pub(super) fn out_of_term(&self) -> u64 {
        self.out_of_term
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut shares = BTreeMap::<usize, DeskShare>::new();
        let mut count = |held: &HeldRequest| {
            let share = shares.entry(held.desk).or_default();
            share.requests += 1;
            share.bytes += append_bytes(&held.request);
        };
        self.waiting.iter().for_each(&mut count);
        self.fetches.iter().for_each(|fetch| count(&fetch.held));
        if let Hold::Held(held) = &self.hold {
            let writes = held.commit.iter().flat_map(|commit| &commit.writes);
            writes.for_each(|(held, _)| count(held));
            held.image.check_invariants();
        }
        assert_eq!(format!("{shares:?}"), format!("{:?}", self.shares));
        assert!(shares.values().all(|share| share.requests <= LOG_SLOT_REQUESTS_MAX));
        let reading = self.fetches.iter().filter(|fetch| fetch.op.is_some()).count();
        assert!(reading <= LOG_SLOT_READS_MAX);
    }

    /// Begins what can begin.
    fn go_on(&mut self, now: Now) {
        match &self.hold {
            Hold::Released => {}
            Hold::Claiming(claim) if claim.op.is_none() && claim.until <= now.instant => self.step_claim(now),
            Hold::Claiming(_) => {}
            Hold::Held(_) => {
                self.send_next(now);
                self.run_fetches(now);
                self.plan_purge(now);
            }
        }
    }

    fn op(&mut self, kind: LogOpKind) -> OpId {
        self.made += 1;
        // Machines of other slots have other remainders.
        let id = OpId(self.made * 256 + u64::from(self.slot.0));
        self.ops.push_back(LogOp { id, slot: self.slot, kind });
        id
    }

    fn has_write_of(&self, room: &RoomName) -> bool {
        let is_under_way = matches!(&self.hold, Hold::Held(held)
            if held.commit.as_ref().is_some_and(|commit| commit.is_of(room)));
        // A read among them stands behind a write of its room.
        is_under_way || self.waiting.iter().any(|held| held.request.room() == room)
    }
}

impl Sent {
    /// The end of the patience with the append.
    fn until(&self) -> Instant {
        self.left_at.unwrap_or(self.began) + LOG_APPEND_PATIENCE
    }
}

impl Held {
    fn deadline(&self) -> Option<Instant> {
        let of_sent = match &self.sent {
            Some(sent) => sent.until(),
            None if self.proof_is_due || self.image.is_head_due() => self.quiet_until,
            None => self.renew_at.max(self.quiet_until),
        };
        Some(self.purge_at.map_or(of_sent, |at| at.min(of_sent)))
    }
}

fn is_read(request: &StoreRequest) -> bool {
    matches!(request, StoreRequest::Load { .. } | StoreRequest::Page { .. })
}

fn append_bytes(request: &StoreRequest) -> usize {
    if let StoreRequest::Append(append) = request { append.wire_bytes() } else { 0 }
}
