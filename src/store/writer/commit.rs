//! The commit of a turn: all appends at once, as a rule.
//!
//! A commit that met damaged pages is done again in halves, until the rooms on these pages stand alone. Their
//! appends fail, all others are stored. From then on such a room has commits of its own, behind those of the
//! others, and is put aside after further failures. Each answer waits for the whole turn, so a turn tries
//! `STORE_TURN_SUSPECTS_MAX` such rooms; the appends of the others fail at once. A bad sector counts as damage, if
//! the disk takes a proof.

use std::collections::{BTreeMap, BTreeSet};

use roomcast_core::limits::{STORE_COMMITS_FAILED_MAX, STORE_REOPEN_PAUSE_MIN, STORE_TURN_SUSPECTS_MAX};
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

use super::{Retry, Writer};
use crate::clock;
use crate::store::aside::{RoomCall, Standing};
use crate::store::desk::Gathered;
use crate::store::{Append, FaultOf, StoreError};

impl Writer {
    pub(super) fn commit(&mut self, gathered: Gathered, now: Now) {
        let outcomes = self.store_all(&gathered.appends, now);
        self.answer(gathered, &outcomes);
        if self.failing.is_some() {
            self.fail_all_queued();
        }
    }

    /// Stores appends, mostly in one commit. A commit that meets damage is done again in halves: the appends of
    /// the rooms on damaged pages fail alone. One outcome per append, in order.
    fn store_all(&mut self, appends: &[Append], now: Now) -> Vec<Result<(), StoreError>> {
        let mut outcomes = vec![Err(StoreError::Failing); appends.len()];
        let mut parts = self.parts(appends, now);
        let mut failures = 0;
        while let Some(part) = parts.pop() {
            let why = match self.store_part(appends, &part, now) {
                Ok(stored) => {
                    part.iter().zip(stored).for_each(|(append, outcome)| outcomes[*append] = outcome);
                    continue;
                }
                Err(why) => why,
            };
            failures += 1;
            let doubt = self.doubt;
            let fault = self.fault_behind(now);
            // A disk that fails would fail each half as well, one pause after the other. A handle that is useless
            // again and again is no damage either.
            let is_of_all = match fault {
                FaultOf::Disk | FaultOf::FullDisk => true,
                FaultOf::EarlierCall => failures > STORE_COMMITS_FAILED_MAX,
                FaultOf::Pages => false,
            };
            if is_of_all {
                self.health.failed(&why, now);
                self.doubt = None;
                let pause = doubt.map_or(STORE_REOPEN_PAUSE_MIN, |doubt| doubt.pause);
                self.failing = Some(Retry::after(pause, now.instant));
                break;
            }
            if !self.reopen_after(fault, now) {
                break;
            }
            let rooms: BTreeSet<&RoomName> = part.iter().map(|append| &appends[*append].room).collect();
            if fault == FaultOf::EarlierCall {
                parts.push(part);
            } else if rooms.len() == 1 {
                rooms.iter().for_each(|room| self.health.room_failed(room, RoomCall::Write, &why, now));
            } else if failures <= STORE_COMMITS_FAILED_MAX {
                // Past the bound a part fails as a whole. The few parts that are left have one try each.
                let half: BTreeSet<&RoomName> = rooms.iter().take(rooms.len() / 2).copied().collect();
                let (first, second) = part.iter().partition(|append| half.contains(&appends[**append].room));
                parts.extend([first, second]);
            }
        }
        outcomes
    }

    /// The commits of appends, the last one first: rooms whose last write failed have commits of their own,
    /// behind all others. Appends of rooms aside are left out, and those of suspects past the bound of a turn.
    fn parts(&self, appends: &[Append], now: Now) -> Vec<Vec<usize>> {
        let mut shared = Vec::with_capacity(appends.len());
        let mut suspect = BTreeMap::<&RoomName, Vec<usize>>::new();
        let standings = self.health.standings(appends.iter().map(|append| &append.room), now);
        for (index, standing) in standings.into_iter().enumerate() {
            match standing {
                Standing::Well => shared.push(index),
                Standing::Suspect => suspect.entry(&appends[index].room).or_default().push(index),
                Standing::Aside => {}
            }
        }
        let shared = Some(shared).filter(|shared| !shared.is_empty());
        suspect.into_values().take(STORE_TURN_SUSPECTS_MAX).chain(shared).collect()
    }

    /// Stores some appends in one commit. One outcome per index in `part`.
    fn store_part(
        &mut self,
        appends: &[Append],
        part: &[usize],
        now: Now,
    ) -> Result<Vec<Result<(), StoreError>>, String> {
        let of_part: Vec<Append>;
        let all = if part.len() == appends.len() {
            appends
        } else {
            of_part = part.iter().map(|append| appends[*append].clone()).collect();
            &of_part
        };
        // The clock, not `now`: the reads of this turn may have taken a while.
        let began = clock::now();
        let store_now = self.clock.now(now);
        let outcomes = self.call(|store| store.append(all, store_now))?;
        assert_eq!(outcomes.len(), all.len(), "one outcome per append");
        let kept = all.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(append, _)| append);
        let messages: usize = kept.clone().map(|append| append.messages.len()).sum();
        self.health.rooms_written(kept.map(|append| &append.room));
        let took = clock::now().instant.saturating_duration_since(began.instant);
        // Without a message there was no write, and nothing is proven.
        if messages > 0 {
            self.doubt = None;
            self.health.committed(messages, took, now);
        }
        self.stored += messages;
        Ok(outcomes)
    }
}
