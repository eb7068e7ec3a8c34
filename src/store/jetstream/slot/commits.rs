//! A held slot's records: one under way, and the judgement of its outcome.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast_core::cluster::Term;
use roomcast_core::limits::{
    LOG_CLAIM_AGE, LOG_PROOF_AGE, LOG_PROVEN_INTERVAL, LOG_RENEW_INTERVAL, STORE_PURGE_INTERVAL,
};
use roomcast_core::now::Now;

use super::{Held, Hold, Sent, SlotLog, append_bytes};
use crate::store::jetstream::commit::{HeldRequest, SlotCommit, life_of, stored};
use crate::store::jetstream::image::RecordPlace;
use crate::store::jetstream::ops::{LogEntry, LogHeard, LogOpKind, OpId};
use crate::store::jetstream::orders::LogNews;
use crate::store::jetstream::record::{Content, LogRecord};
use crate::store::{StoreError, StoreRequest};

impl SlotLog {
    /// Sends the next record, if none is under way.
    pub(super) fn send_next(&mut self, now: Now) {
        let store_now = self.clock.now(now);
        loop {
            let Hold::Held(held) = &mut self.hold else { return };
            if held.sent.is_some() {
                return;
            }
            if let Some(commit) = held.commit.take_if(|commit| commit.records.is_empty()) {
                self.answer_commit(commit, Ok(()));
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
                let commit = SlotCommit::gather(&mut self.waiting, &held.image, self.bytes_max, store_now);
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

    pub(super) fn send(&mut self, content: Content, ttl: Duration, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        held.number += 1;
        let Held { term, number, .. } = **held;
        let record = LogRecord { term, number, content };
        let entry = record.encode(self.slot, self.version);
        let message_id = format!("{}:{}.{}:{number}", self.slot.0, term.generation, term.sequence);
        let proves = std::mem::take(&mut held.proof_is_due);
        held.sent = Some(Sent {
            op: OpId(0),
            content: record.content,
            number,
            message_id,
            ttl,
            entry,
            proves,
            began: now.instant,
            left_at: None,
        });
        self.append();
    }

    /// Appends the record under way, expecting the last entry.
    pub(super) fn append(&mut self) {
        let Hold::Held(held) = &self.hold else { return };
        let Some(sent) = &held.sent else { return };
        let op = self.op_of_sent(LogOpKind::Append {
            expect: Some(held.last),
            message_id: sent.message_id.clone(),
            ttl: sent.ttl,
            rows: if let Content::Rows(rows) = &sent.content { rows.len() } else { 0 },
            entry: sent.entry.clone(),
        });
        debug_assert!(op, "a record is under way");
    }

    /// Makes an operation of the record under way. False: none is under way.
    pub(super) fn op_of_sent(&mut self, kind: LogOpKind) -> bool {
        let op = self.op(kind);
        let Hold::Held(held) = &mut self.hold else { return false };
        let Some(sent) = &mut held.sent else { return false };
        sent.op = op;
        true
    }

    pub(super) fn hear_sent(&mut self, heard: LogHeard, now: Now) {
        match heard {
            LogHeard::Appended { sequence } => self.appended(sequence, now),
            LogHeard::Refused => drop(self.op_of_sent(LogOpKind::Last)),
            LogHeard::Last(entry) => self.judge(entry, now),
            LogHeard::Full => self.log_is_full(now),
            LogHeard::Read { .. } | LogHeard::Unknown(_) => self.fall(now),
        }
    }

    /// The record under way is in the log.
    pub(super) fn appended(&mut self, sequence: u64, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        let Some(sent) = held.sent.take() else { return };
        held.last = sequence;
        if sent.proves || held.proven_at + LOG_PROVEN_INTERVAL <= now.instant {
            held.proven_at = now.instant;
            self.news.push_back(LogNews::Proven { slot: self.slot, sent: sent.began });
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
    pub(super) fn judge(&mut self, entry: Option<LogEntry>, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        let Some(sent) = &held.sent else { return };
        let Some(LogEntry { sequence, entry }) = entry else { return self.fall(now) };
        let Some(record) = LogRecord::parse(self.slot, &entry) else {
            if LogRecord::is_newer(self.slot, &entry) {
                // Not of this node, and a claim of this node would end its writer's right. The least term that its
                // writer can have: with a higher one in mind, nobody here would follow that home.
                let by = Term { sequence: held.term.sequence.saturating_add(1), ..held.term };
                self.floor = self.floor.max(by);
                self.release();
                return self.news.push_back(LogNews::Fenced { slot: self.slot, by, node: String::new() });
            }
            return self.fall(now);
        };
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

    /// The record had no turn: nothing of it is in the log, so the slot stays.
    pub(super) fn give_up_unsent(&mut self) {
        let Hold::Held(held) = &mut self.hold else { return };
        let Some(sent) = held.sent.take() else { return };
        held.proof_is_due |= sent.proves;
        if matches!(sent.content, Content::Rows(_) | Content::Forget(_))
            && let Some(commit) = held.commit.take()
        {
            self.answer_commit(commit, Err(StoreError::Failing));
        }
    }

    /// The log took nothing.
    pub(super) fn log_is_full(&mut self, now: Now) {
        let Hold::Held(held) = &mut self.hold else { return };
        let Some(sent) = held.sent.take() else { return };
        held.proof_is_due |= sent.proves;
        held.quiet_until = now.instant + STORE_PURGE_INTERVAL;
        if matches!(sent.content, Content::Rows(_) | Content::Forget(_))
            && let Some(commit) = held.commit.take()
        {
            // A part of a large append may be stored.
            let error = if commit.is_begun { StoreError::Failing } else { StoreError::Full };
            self.answer_commit(commit, Err(error));
        }
    }

    /// Answers the writes of a commit, and fails the appends that wait behind a failed one of their life: they
    /// would leave a hole.
    pub(super) fn answer_commit(&mut self, commit: SlotCommit, result: Result<(), StoreError>) {
        let mut broken = BTreeMap::new();
        for (held, outcome) in commit.writes {
            let error = match outcome.and(result) {
                Ok(()) => {
                    self.give_back(held.desk, &held.request);
                    self.answers.push_back((held.desk, stored(held.request, commit.is_begun)));
                    continue;
                }
                Err(error) => error,
            };
            if let StoreRequest::Append(append) = &held.request {
                let of_later = if error == StoreError::Failing { error } else { StoreError::Moved };
                broken.insert((append.room.clone(), append.life), of_later);
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
        self.free_reads();
    }

    pub(super) fn fail(&mut self, held: HeldRequest, error: StoreError) {
        self.give_back(held.desk, &held.request);
        self.answers.push_back((held.desk, held.request.failed(error)));
    }

    /// Fails every request that waits, the writes first.
    pub(super) fn fail_all(&mut self) {
        let fetches = std::mem::take(&mut self.fetches).into_iter().map(|fetch| fetch.held);
        let all: Vec<_> = std::mem::take(&mut self.waiting).into_iter().chain(fetches).collect();
        all.into_iter().for_each(|held| self.fail(held, StoreError::Failing));
    }

    /// Ends the part of a request in its desk's share.
    pub(super) fn give_back(&mut self, desk: usize, request: &StoreRequest) {
        let share = self.shares.get_mut(&desk).expect("a held request is part of a share");
        share.requests -= 1;
        share.bytes -= append_bytes(request);
        if share.requests == 0 {
            self.shares.remove(&desk);
        }
    }
}
