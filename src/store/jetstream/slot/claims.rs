//! A slot's way to a term: the claim, and the read up to the claim.

use std::time::Instant;

use tracing::error;

use roomcast_core::cluster::Term;
use roomcast_core::limits::{
    LOG_APPEND_PATIENCE, LOG_CLAIM_AGE, LOG_NEWER_PAUSE, LOG_READ_PATIENCE, LOG_RENEW_INTERVAL,
    LOG_RETRY_PAUSE, LOG_TURN_AGE_MAX, STORE_PURGE_ROWS_MAX,
};
use roomcast_core::now::Now;

use super::{Held, Hold, SlotLog};
use crate::store::StoreError;
use crate::store::jetstream::claim::{Claim, Replay};
use crate::store::jetstream::fetch::Fetch;
use crate::store::jetstream::ops::{LogHeard, LogOpKind};
use crate::store::jetstream::orders::LogNews;
use crate::store::jetstream::record::{Content, LogRecord};

impl SlotLog {
    /// Begins a claim. `former`: the term held until now. `requests_until`: requests wait so long.
    pub(super) fn begin_claim(&mut self, former: Option<Term>, requests_until: Option<Instant>, now: Now) {
        self.hold = Hold::Claiming(Box::new(Claim {
            generation: self.floor.generation,
            claimed: None,
            replay: Replay::new(self.payload_bytes_max, former),
            op: None,
            patience: LOG_APPEND_PATIENCE,
            until: self.newer_until.map_or(now.instant, |until| until.max(now.instant)),
            requests_until,
        }));
    }

    /// Appends the claim, or reads on.
    pub(super) fn step_claim(&mut self, now: Now) {
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
                    rows: 0,
                    entry: record.encode(self.slot, self.version),
                };
                (kind, LOG_TURN_AGE_MAX)
            }
        };
        let op = self.op(kind);
        let Hold::Claiming(claim) = &mut self.hold else { return };
        claim.op = Some(op);
        claim.until = now.instant + patience;
    }

    pub(super) fn hear_claim(&mut self, heard: LogHeard, now: Now) {
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
    pub(super) fn end_read(&mut self, now: Now) {
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
                claim.replay = claim.replay.anew(self.payload_bytes_max);
            }
            claim.generation = self.floor.generation;
            claim.claimed = None;
            claim.until = now.instant + LOG_RETRY_PAUSE;
            return;
        }
        if claim.replay.is_newer {
            return self.meet_newer(term, now);
        }
        let replay = std::mem::replace(&mut claim.replay, Replay::new(0, None));
        self.damaged += replay.damaged;
        self.out_of_term += replay.out_of_term;
        self.floor = term;
        let behind = replay.behind;
        let mut image = replay.image;
        image.bound_payloads(self.payload_bytes_max);
        let now_ms = self.clock.now(now).stamp.store_ms;
        while image.purge(now_ms, STORE_PURGE_ROWS_MAX) == STORE_PURGE_ROWS_MAX {}
        // Requests of rooms that go by what the other node has changed.
        if let Some(fenced) = replay.fenced {
            self.fail_all();
            self.news.push_back(fenced);
        }
        self.hold = Hold::Held(Box::new(Held {
            term,
            behind,
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
        self.news.push_back(LogNews::Claimed { slot: self.slot, term, behind });
    }

    /// Waits: the log has entries of a later version in front of the claim.
    fn meet_newer(&mut self, term: Term, now: Now) {
        let Hold::Claiming(claim) = &mut self.hold else { return };
        error!(slot = self.slot.0, "the log has entries of a later version of roomcast: run that version");
        self.floor = term;
        let until = now.instant + LOG_NEWER_PAUSE;
        self.newer_until = Some(until);
        if claim.replay.has_rooms() {
            // Another home may have ordered meanwhile: the rooms here must not go on.
            self.release();
            self.news.push_back(LogNews::Fenced { slot: self.slot, by: term, node: String::new() });
            return;
        }
        claim.replay = claim.replay.anew(self.payload_bytes_max);
        claim.claimed = None;
        claim.until = until;
    }

    /// Claims again: the state of the log is unknown. Writes under way have failed.
    pub(super) fn fall(&mut self, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        let former = held.term;
        if let Some(commit) = held.commit.take() {
            self.answer_commit(commit, Err(StoreError::Failing));
        }
        self.fetches.iter_mut().for_each(Fetch::reset);
        self.begin_claim(Some(former), Some(now.instant + LOG_APPEND_PATIENCE), now);
    }

    /// Gives the slot up.
    pub(super) fn release(&mut self) {
        let hold = std::mem::replace(&mut self.hold, Hold::Released);
        if let Hold::Held(held) = hold
            && let Some(commit) = held.commit
        {
            self.answer_commit(commit, Err(StoreError::Failing));
        }
        self.fail_all();
    }
}
