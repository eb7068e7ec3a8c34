//! The machine of one slot's log: claims, commits, loads and pages. Pure: no client, clock or thread.
//!
//! The caller passes orders, requests, answers of the client and due deadlines in, each with `now`. After each
//! input the caller drains `poll_op`, `poll_answer` and `poll_news` to `None`, and calls `due` at
//! `poll_deadline`.
//!
//! A machine is released, claims, or holds its slot. A claim is appended without expectation, the log is read up
//! to the claim, and the slot is held under the claim's term. A held slot has one record under way, which expects
//! the last sequence of the slot's log. An append without an answer has an unknown outcome: the slot is claimed
//! and read again, which decides the outcome. A refused append asks the log for its last entry: see
//! [`SlotLog::judge`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use roomcast_core::cluster::{Slot, Term};
use roomcast_core::limits::{
    LOG_APPEND_PATIENCE, LOG_CLAIM_AGE, LOG_PROOF_AGE, LOG_PROVEN_INTERVAL, LOG_READ_PATIENCE,
    LOG_RENEW_INTERVAL, LOG_RETRY_PAUSE, LOG_SLOT_BYTES_MAX, LOG_SLOT_READS_MAX, LOG_SLOT_REQUESTS_MAX,
    STORE_PURGE_INTERVAL, STORE_PURGE_ROWS_MAX,
};
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

use super::claim::{Claim, Replay};
use super::commit::{Commit, HeldRequest, life_of, stored};
use super::fetch::Fetch;
use super::image::{Image, RecordPlace};
use super::ops::{LogEntry, LogHeard, LogOp, LogOpKind, OpId};
use super::orders::{LogNews, LogOrder};
pub(super) use super::record::Claimant;
use super::record::{Content, LogRecord};
use crate::store::time::StoreClock;
use crate::store::{StoreAnswer, StoreError, StoreHoldings, StoreRequest};

/// The log of one slot, as this node uses it. A machine without the slot keeps nothing of the log.
#[derive(Debug)]
pub(super) struct SlotLog {
    slot: Slot,
    own: Claimant,
    clock: StoreClock,
    bytes_max: u64,
    /// Operations and claims made so far.
    made: u64,
    /// The highest term heard of, read or held. The next claim has to be above.
    floor: Term,
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
    /// The sequence of the log's last entry, as far as known.
    last: u64,
    /// The number of the last entry made in the term.
    number: u64,
    image: Image,
    /// The writes under way.
    commit: Option<Commit>,
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
    /// The first sending.
    at: Instant,
    until: Instant,
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
            made: 0,
            floor: Term::default(),
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

    /// Takes an order of the cluster for this slot.
    pub(super) fn order(&mut self, order: &LogOrder, now: Now) {
        match order {
            LogOrder::Claim { heard, .. } => {
                self.floor = self.floor.max(*heard);
                match &self.hold {
                    Hold::Released => self.begin_claim(None, now),
                    // The term is compared at the acknowledgement.
                    Hold::Claiming(_) => {}
                    Hold::Held(held) if held.term >= *heard => {
                        self.news.push_back(LogNews::Claimed { slot: self.slot, term: held.term });
                    }
                    Hold::Held(_) => self.fall(now),
                }
            }
            LogOrder::Release { .. } => self.release(),
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

    /// Acts on all deadlines up to `now`.
    pub(super) fn due(&mut self, now: Now) {
        match &mut self.hold {
            Hold::Released => {}
            Hold::Claiming(claim) => {
                let fails_requests = claim.requests_until.is_some_and(|until| until <= now.instant);
                if claim.until <= now.instant {
                    claim.op = None;
                }
                if fails_requests {
                    claim.requests_until = None;
                    self.fail_all();
                }
            }
            Hold::Held(held) => {
                if held.sent.as_ref().is_some_and(|sent| sent.until <= now.instant) {
                    self.fall(now);
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
        self.give_up_fetches(now);
        self.go_on(now);
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

    /// The bytes of the slot's rows, and the damaged entries met since the start.
    pub(super) fn holdings(&self) -> StoreHoldings {
        let bytes = if let Hold::Held(held) = &self.hold { held.image.bytes() } else { 0 };
        StoreHoldings { bytes, quarantined: self.damaged }
    }

    /// Entries of an older term met behind a newer claim since the start. Above 0: the fence has failed.
    pub(super) fn out_of_term(&self) -> u64 {
        self.out_of_term
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

/// Claims.
impl SlotLog {
    /// Begins a claim. `requests_until`: requests wait so long.
    fn begin_claim(&mut self, requests_until: Option<Instant>, now: Now) {
        self.hold = Hold::Claiming(Box::new(Claim {
            generation: self.floor.generation,
            claimed: None,
            replay: Replay::default(),
            op: None,
            until: now.instant,
            requests_until,
        }));
    }

    /// Appends the claim, or reads on.
    fn step_claim(&mut self, now: Now) {
        let Hold::Claiming(claim) = &self.hold else { return };
        let (kind, patience) = match claim.claimed {
            Some(term) => {
                (LogOpKind::Read { from: claim.replay.next, through: term.sequence }, LOG_READ_PATIENCE)
            }
            None => {
                // Each try is a claim of its own. The repeat of an earlier one would be answered with its
                // sequence, and a claim of another node may stand behind that.
                let number = self.made + 1;
                let term = Term { generation: claim.generation, sequence: 0 };
                let record = LogRecord { term, number, content: Content::Claim(self.own.clone()) };
                let kind = LogOpKind::Append {
                    expect: None,
                    message_id: format!("{}:claim:{:x}:{number}", self.slot.0, self.own.incarnation),
                    ttl: LOG_CLAIM_AGE,
                    entry: record.encode(self.slot),
                    rows: 0,
                };
                (kind, LOG_APPEND_PATIENCE)
            }
        };
        let op = self.op(kind);
        let Hold::Claiming(claim) = &mut self.hold else { return };
        claim.op = Some(op);
        claim.until = now.instant + patience;
    }

    fn hear_claim(&mut self, heard: LogHeard, now: Now) {
        let Hold::Claiming(claim) = &mut self.hold else { return };
        match heard {
            LogHeard::Appended { sequence } if claim.claimed.is_none() => {
                let term = Term { generation: claim.generation, sequence };
                claim.op = None;
                claim.until = now.instant;
                // The log has shrunk, or another home counts generations higher.
                if term > self.floor {
                    claim.claimed = Some(term);
                } else {
                    claim.generation = self.floor.generation.saturating_add(1);
                    claim.until += LOG_RETRY_PAUSE;
                }
            }
            LogHeard::Read { entries, done } if claim.claimed.is_some() => {
                entries.iter().for_each(|entry| claim.replay.take(self.slot, entry, &self.own));
                claim.until = now.instant + LOG_READ_PATIENCE;
                if done {
                    self.end_read(now);
                }
            }
            LogHeard::Appended { .. }
            | LogHeard::Read { .. }
            | LogHeard::Refused
            | LogHeard::Full
            | LogHeard::Last(_)
            | LogHeard::Unknown(_) => {
                claim.op = None;
                claim.until = now.instant + LOG_RETRY_PAUSE;
            }
        }
    }

    /// Holds the slot, if the read has reached the claim.
    fn end_read(&mut self, now: Now) {
        let Hold::Claiming(claim) = &mut self.hold else { return };
        let Some(term) = claim.claimed else { return };
        claim.op = None;
        // A replica that lags has ended the read.
        if claim.replay.next <= term.sequence {
            claim.until = now.instant + LOG_RETRY_PAUSE;
            return;
        }
        // Without its own claim the log is another than the one that took the claim.
        if claim.replay.own != term.sequence || claim.replay.highest > term {
            self.floor = self.floor.max(claim.replay.highest);
            if claim.replay.own != term.sequence {
                claim.replay = Replay::default();
            }
            claim.generation = self.floor.generation;
            claim.claimed = None;
            claim.until = now.instant + LOG_RETRY_PAUSE;
            return;
        }
        let replay = std::mem::take(&mut claim.replay);
        self.damaged += replay.damaged;
        self.out_of_term += replay.out_of_term;
        self.floor = term;
        let mut image = replay.image;
        let now_ms = self.clock.now(now).stamp.store_ms;
        while image.purge(now_ms, STORE_PURGE_ROWS_MAX) == STORE_PURGE_ROWS_MAX {}
        self.hold = Hold::Held(Box::new(Held {
            term,
            last: term.sequence,
            number: 0,
            image,
            commit: None,
            sent: None,
            proof_is_due: false,
            proven_at: now.instant,
            renew_at: now.instant + LOG_RENEW_INTERVAL,
            quiet_until: now.instant,
            purged_at: now.instant,
            purge_at: None,
        }));
        self.news.push_back(LogNews::Claimed { slot: self.slot, term });
    }

    /// Claims again: the state of the log is unknown. Writes under way have failed.
    fn fall(&mut self, now: Now) {
        let commit = if let Hold::Held(held) = &mut self.hold { held.commit.take() } else { None };
        if let Some(commit) = commit {
            self.fail_commit(commit, StoreError::Failing);
        }
        self.fetches.iter_mut().for_each(Fetch::reset);
        self.begin_claim(Some(now.instant + LOG_APPEND_PATIENCE), now);
    }

    /// Gives the slot up.
    fn release(&mut self) {
        let hold = std::mem::replace(&mut self.hold, Hold::Released);
        if let Hold::Held(held) = hold
            && let Some(commit) = held.commit
        {
            self.fail_commit(commit, StoreError::Failing);
        }
        self.fail_all();
    }
}

/// Commits.
impl SlotLog {
    /// Sends the next record, if none is under way.
    fn send_next(&mut self, now: Now) {
        let store_now = self.clock.now(now);
        loop {
            let Hold::Held(held) = &mut self.hold else { return };
            if held.sent.is_some() {
                return;
            }
            if held.commit.as_ref().is_some_and(|commit| commit.records.is_empty()) {
                self.end_commit();
                continue;
            }
            let of_commit = held.commit.as_mut().and_then(|commit| commit.records.pop_front());
            let is_renewal_due = held.renew_at <= now.instant;
            let may_speak = held.quiet_until <= now.instant;
            let content = if let Some(content) = of_commit {
                content
            } else if is_renewal_due && may_speak {
                Content::Renewal(self.own.clone())
            } else if may_speak && held.image.is_head_due() {
                Content::Heads(held.image.heads(store_now.stamp.store_ms))
            } else {
                let commit = Commit::gather(&mut self.waiting, &held.image, self.bytes_max, store_now);
                if !commit.writes.is_empty() {
                    held.commit = Some(commit);
                    continue;
                }
                if !held.proof_is_due || !may_speak {
                    return;
                }
                Content::Renewal(self.own.clone())
            };
            let ttl = match &content {
                Content::Renewal(_) if !is_renewal_due => LOG_PROOF_AGE,
                content => life_of(content, &held.image, store_now),
            };
            return self.send(content, ttl, now);
        }
    }

    fn send(&mut self, content: Content, ttl: Duration, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        held.number += 1;
        let Held { term, number, .. } = **held;
        let record = LogRecord { term, number, content };
        let entry = record.encode(self.slot);
        let message_id = format!("{}:{}.{}:{number}", self.slot.0, term.generation, term.sequence);
        let proves = std::mem::take(&mut held.proof_is_due);
        let until = now.instant + LOG_APPEND_PATIENCE;
        held.sent = Some(Sent {
            op: OpId(0),
            content: record.content,
            number,
            message_id,
            ttl,
            entry,
            proves,
            at: now.instant,
            until,
        });
        self.append();
    }

    /// Appends the record under way, expecting the last entry.
    fn append(&mut self) {
        let Hold::Held(held) = &self.hold else { return };
        let Some(sent) = &held.sent else { return };
        let op = self.op_of_sent(LogOpKind::Append {
            expect: Some(held.last),
            message_id: sent.message_id.clone(),
            ttl: sent.ttl,
            entry: sent.entry.clone(),
            rows: if let Content::Rows(rows) = &sent.content { rows.len() } else { 0 },
        });
        debug_assert!(op, "a record is under way");
    }

    /// Makes an operation of the record under way. False: none is under way.
    fn op_of_sent(&mut self, kind: LogOpKind) -> bool {
        let op = self.op(kind);
        let Hold::Held(held) = &mut self.hold else { return false };
        let Some(sent) = &mut held.sent else { return false };
        sent.op = op;
        true
    }

    fn hear_sent(&mut self, heard: LogHeard, now: Now) {
        match heard {
            LogHeard::Appended { sequence } => self.appended(sequence, now),
            LogHeard::Refused => drop(self.op_of_sent(LogOpKind::Last)),
            LogHeard::Last(entry) => self.judge(entry, now),
            LogHeard::Full => self.log_is_full(now),
            LogHeard::Read { .. } | LogHeard::Unknown(_) => self.fall(now),
        }
    }

    /// The record under way is in the log.
    fn appended(&mut self, sequence: u64, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        let Some(sent) = held.sent.take() else { return };
        held.last = sequence;
        if sent.proves || held.proven_at + LOG_PROVEN_INTERVAL <= now.instant {
            held.proven_at = now.instant;
            self.news.push_back(LogNews::Proven { slot: self.slot, sent: sent.at });
        }
        match &sent.content {
            Content::Renewal(_) if sent.ttl == LOG_CLAIM_AGE => {
                held.renew_at = now.instant + LOG_RENEW_INTERVAL;
            }
            Content::Rows(_) | Content::Forget(_) => {
                held.commit.iter_mut().for_each(|commit| commit.is_begun = true);
            }
            Content::Renewal(_) | Content::Claim(_) | Content::Heads(_) => {}
        }
        held.image.take(sent.content, RecordPlace { sequence, bytes: sent.entry.len() });
    }

    /// Judges the refusal of the record under way by the last entry of the log.
    fn judge(&mut self, entry: Option<LogEntry>, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        let Some(sent) = &held.sent else { return };
        let Some(LogEntry { sequence, entry }) = entry else { return self.fall(now) };
        let Some(record) = LogRecord::parse(self.slot, &entry) else { return self.fall(now) };
        let term = record.term_at(sequence);
        if term > held.term {
            self.floor = self.floor.max(term);
            let claimant = record.content.claimant();
            // A claim of this node that came late.
            if claimant == Some(&self.own) {
                return self.fall(now);
            }
            let node = claimant.map_or_else(String::new, |claimant| claimant.node.clone());
            self.release();
            return self.news.push_back(LogNews::Fenced { slot: self.slot, by: term, node });
        }
        let is_claim = matches!(record.content, Content::Claim(_));
        // Entries of lower terms behind the claim were never acknowledged, and a number ahead was never given.
        if term < held.term || (!is_claim && record.number > sent.number) {
            return self.fall(now);
        }
        if !is_claim && record.number == sent.number {
            return self.appended(sequence, now);
        }
        // The last entry has expired, and took its sequence along.
        held.last = sequence;
        self.append();
    }

    /// The log took nothing.
    fn log_is_full(&mut self, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        let Some(sent) = held.sent.take() else { return };
        held.proof_is_due |= sent.proves;
        held.quiet_until = now.instant + STORE_PURGE_INTERVAL;
        if matches!(sent.content, Content::Rows(_) | Content::Forget(_))
            && let Some(commit) = held.commit.take()
        {
            // A part of a large append may be stored.
            let error = if commit.is_begun { StoreError::Failing } else { StoreError::Full };
            self.fail_commit(commit, error);
            self.free_reads();
        }
    }

    /// Answers the writes of a commit that is in the log.
    fn end_commit(&mut self) {
        let commit = if let Hold::Held(held) = &mut self.hold { held.commit.take() } else { None };
        let Some(Commit { writes, is_begun, .. }) = commit else { return };
        for (HeldRequest { desk, request }, outcome) in writes {
            self.give_back(desk, &request);
            let answer = match outcome {
                Ok(()) => stored(request, is_begun),
                Err(error) => request.failed(error),
            };
            self.answers.push_back((desk, answer));
        }
        self.free_reads();
    }

    /// Answers the writes of a failed commit, and the appends that wait behind in the same lives.
    fn fail_commit(&mut self, commit: Commit, error: StoreError) {
        let mut broken = BTreeMap::new();
        for (held, outcome) in commit.writes {
            let error = outcome.err().unwrap_or(error);
            if let StoreRequest::Append(append) = &held.request {
                broken.insert((append.room.clone(), append.life), error);
            }
            self.fail(held, error);
        }
        for held in std::mem::take(&mut self.waiting) {
            let error = match &held.request {
                StoreRequest::Append(append) => broken.get(&(append.room.clone(), append.life)),
                _ => None,
            };
            match error {
                Some(error) => self.fail(held, *error),
                None => self.waiting.push_back(held),
            }
        }
    }

    fn fail(&mut self, held: HeldRequest, error: StoreError) {
        self.give_back(held.desk, &held.request);
        self.answers.push_back((held.desk, held.request.failed(error)));
    }

    /// Fails every request that waits, the writes first.
    fn fail_all(&mut self) {
        let fetches = std::mem::take(&mut self.fetches).into_iter().map(|fetch| fetch.held);
        let all: Vec<_> = std::mem::take(&mut self.waiting).into_iter().chain(fetches).collect();
        all.into_iter().for_each(|held| self.fail(held, StoreError::Failing));
    }

    /// Ends the part of a request in its desk's share.
    fn give_back(&mut self, desk: usize, request: &StoreRequest) {
        let share = self.shares.get_mut(&desk).expect("a held request is part of a share");
        share.requests -= 1;
        share.bytes -= append_bytes(request);
        if share.requests == 0 {
            self.shares.remove(&desk);
        }
    }
}

/// Reads and the purge.
impl SlotLog {
    /// Has reads go on that wait behind no write of their room any more.
    fn free_reads(&mut self) {
        let mut written = BTreeSet::new();
        for held in std::mem::take(&mut self.waiting) {
            let room = held.request.room();
            if is_read(&held.request) && !written.contains(room) {
                self.fetches.push_back(Fetch::new(held));
            } else {
                written.insert(room.clone());
                self.waiting.push_back(held);
            }
        }
    }

    fn run_fetches(&mut self, now: Now) {
        let store_now = self.clock.now(now);
        let mut under_way = self.fetches.iter().filter(|fetch| fetch.op.is_some()).count();
        for mut fetch in std::mem::take(&mut self.fetches) {
            let Hold::Held(held) = &self.hold else { return };
            if fetch.op.is_none() {
                if let Some(answer) = fetch.answer(&held.image, store_now) {
                    self.give_back(fetch.held.desk, &fetch.held.request);
                    self.answers.push_back((fetch.held.desk, answer));
                    continue;
                }
                if under_way < LOG_SLOT_READS_MAX {
                    let op = self.op(LogOpKind::Get { sequences: fetch.next_sequences() });
                    fetch.op = Some((op, now.instant + LOG_READ_PATIENCE));
                    under_way += 1;
                }
            }
            self.fetches.push_back(fetch);
        }
    }

    fn hear_fetch(&mut self, id: OpId, heard: LogHeard, now: Now) {
        let is_asked = |fetch: &Fetch| fetch.op.is_some_and(|(op, _)| op == id);
        let Some(index) = self.fetches.iter().position(is_asked) else { return };
        let fetch = &mut self.fetches[index];
        if let LogHeard::Read { entries, done } = heard {
            fetch.take(self.slot, &entries);
            fetch.op = Some((id, now.instant + LOG_READ_PATIENCE));
            if done {
                self.damaged += fetch.end_read();
            }
        } else if let Some(fetch) = self.fetches.remove(index) {
            self.fail(fetch.held, StoreError::Failing);
        }
    }

    /// Fails reads that the log left without an answer.
    fn give_up_fetches(&mut self, now: Now) {
        for fetch in std::mem::take(&mut self.fetches) {
            if fetch.op.is_some_and(|(_, until)| until <= now.instant) {
                self.fail(fetch.held, StoreError::Failing);
            } else {
                self.fetches.push_back(fetch);
            }
        }
    }

    fn plan_purge(&mut self, now: Now) {
        let now_ms = self.clock.now(now).stamp.store_ms;
        let Hold::Held(held) = &mut self.hold else { return };
        held.purge_at = held.image.next_purge_ms().and_then(|at_ms| {
            let at = now.instant.checked_add(Duration::from_millis(at_ms.saturating_sub(now_ms)))?;
            Some(at.max(held.purged_at + STORE_PURGE_INTERVAL))
        });
    }
}

impl Held {
    fn deadline(&self) -> Option<Instant> {
        let of_sent = match &self.sent {
            Some(sent) => sent.until,
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
