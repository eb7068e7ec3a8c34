//! Loads and pages of a held slot, and the purge of its image.

use std::collections::BTreeSet;
use std::time::Duration;

use roomcast_core::limits::{LOG_READ_PATIENCE, LOG_SLOT_READS_MAX, STORE_PURGE_INTERVAL};
use roomcast_core::now::Now;

use super::{Hold, SlotLog, is_read};
use crate::store::StoreError;
use crate::store::jetstream::fetch::Fetch;
use crate::store::jetstream::ops::{LogHeard, LogOpKind, OpId};

impl SlotLog {
    /// Has reads go on that wait behind no write of their room any more.
    pub(super) fn free_reads(&mut self) {
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

    pub(super) fn run_fetches(&mut self, now: Now) {
        let store_now = self.clock.now(now);
        let mut under_way = self.fetches.iter().filter(|fetch| fetch.op.is_some()).count();
        for mut fetch in std::mem::take(&mut self.fetches) {
            if fetch.op.is_none() {
                let Hold::Held(held) = &self.hold else { unreachable!("only a held slot reads") };
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

    pub(super) fn hear_fetch(&mut self, id: OpId, heard: LogHeard, now: Now) {
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

    /// Fails reads that the log left without an answer. True: there were some.
    pub(super) fn give_up_fetches(&mut self, now: Now) -> bool {
        let before = self.fetches.len();
        for fetch in std::mem::take(&mut self.fetches) {
            if fetch.op.is_some_and(|(_, until)| until <= now.instant) {
                self.fail(fetch.held, StoreError::Failing);
            } else {
                self.fetches.push_back(fetch);
            }
        }
        self.fetches.len() < before
    }

    pub(super) fn plan_purge(&mut self, now: Now) {
        let now_ms = self.clock.now(now).stamp.store_ms;
        let Hold::Held(held) = &mut self.hold else { return };
        held.purge_at = held.image.next_purge_ms().and_then(|at_ms| {
            let at = now.instant.checked_add(Duration::from_millis(at_ms.saturating_sub(now_ms)))?;
            Some(at.max(held.purged_at + STORE_PURGE_INTERVAL))
        });
    }
}
