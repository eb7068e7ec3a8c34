//! Removing expired rows, by an index of their own: messages do not expire in order of offset.
//!
//! A damaged page must not stop the purge of all rooms. A row that can't be read stays, and is tried again
//! after `STORE_PURGE_PUT_OFF`. A removal also reads the neighbours of its page. So a failed purge tries half
//! as many rows the next time, and a single row that fails is put off. A damaged page of the index itself is
//! passed over: the purge goes on behind the page, and tries the page again after the same time.
//!
//! A bad sector answers a look with an I/O error, after which redb refuses each call. So the purge ends there as
//! failed, before it begins a commit.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::redb::{ReadTransaction, ReadableDatabase, ReadableTable, Table};

use crate::store::time::StoreNow;
use crate::store::{FaultOf, Purged, row};
use roomcast_core::limits::{STORE_PURGE_PUT_OFF, STORE_PURGE_ROWS_MAX, TTL_MAX};
use roomcast_core::now::millis;

use super::damage::quarantine_row;
use super::{
    Bytes, EXPIRY, Found, MESSAGES, Opened, PAYLOADS, QUARANTINE, ROOMS, Result, RoomEntry, expiry_key,
    fault_of, find, has_rows,
};

/// The rows of the next purge, after failures of the last ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PurgePace {
    /// `None`: as many as asked for.
    rows_max: Option<usize>,
    /// True: the first due row failed alone, and is put off.
    puts_off_first: bool,
    /// Index keys to pass over: the first one could not even be put off, since its page stands beside a damaged
    /// one.
    passes_over: usize,
}

impl PurgePace {
    /// The pace after a purge at this pace for `asked` rows. A failure counts only if the rows are at fault.
    pub(super) fn after(self, asked: usize, succeeded: bool) -> Self {
        let rows = self.rows_max.unwrap_or(asked).min(asked);
        if succeeded {
            let more = rows * 2;
            return Self { rows_max: (more < asked).then_some(more), ..Self::default() };
        }
        let passes_over = match self.passes_over {
            0 => usize::from(self.puts_off_first),
            keys => (keys * 2).min(STORE_PURGE_ROWS_MAX),
        };
        let puts_off_first = rows <= 1 && passes_over == 0;
        Self { rows_max: Some((rows / 2).max(1)), puts_off_first, passes_over }
    }
}

/// The state of the purge between two calls.
#[derive(Debug, Default)]
pub(super) struct PurgeState {
    pub(super) pace: PurgePace,
    /// The first index key to look at. Empty: the first of all.
    from: Vec<u8>,
    /// Store time from which the keys before `from` are tried again.
    again_ms: u64,
}

impl PurgeState {
    /// Passes over the index keys before `from`. True: no other keys are passed over now.
    fn pass_over(&mut self, from: Vec<u8>, now_ms: u64) -> bool {
        let is_first = self.from.is_empty();
        if is_first {
            self.again_ms = now_ms.saturating_add(millis(STORE_PURGE_PUT_OFF));
        }
        self.from = from;
        is_first
    }
}

/// The tables of a purge.
struct Purge<'t> {
    rooms: Table<'t, Bytes, Bytes>,
    messages: Table<'t, Bytes, Bytes>,
    payloads: Table<'t, Bytes, Bytes>,
    expiry: Table<'t, Bytes, ()>,
    quarantine: Table<'t, u64, Bytes>,
    now_ms: u64,
    /// Bytes of removed rows and keys.
    freed: u64,
    quarantined: u64,
    purged: Purged,
}

impl Opened {
    pub(super) fn purge(&mut self, now: StoreNow, rows_max: usize, state: &mut PurgeState) -> Result<Purged> {
        let now_ms = now.stamp.store_ms;
        let pace = state.pace;
        if state.again_ms <= now_ms {
            state.from.clear();
        }
        let mut due = self.due(now_ms, pace.rows_max.unwrap_or(rows_max).min(rows_max), state)?;
        if due.is_empty() {
            return Ok(Purged::default());
        }
        let mut put_off = Vec::new();
        // Before any look: the pages of this row may be those that failed.
        if pace.puts_off_first {
            put_off.push(due.remove(0));
        }
        for key in std::mem::take(&mut due) {
            let is_readable = self.has_readable_row(&key)?;
            let keys = if is_readable { &mut due } else { &mut put_off };
            keys.push(key);
        }
        let of_rows = due.iter().filter(|key| key.get(8..16).is_some_and(|offset| offset != [0; 8]));
        let mut emptied: BTreeSet<&[u8]> = of_rows.map(|key| &key[16..]).collect();
        for room in emptied.clone() {
            // A room with a damaged first page has rows.
            if !self.is_readable(|read| has_rows(&read.open_table(MESSAGES)?, room))? {
                emptied.remove(room);
            }
        }
        let write = self.begin()?;
        let mut purge = Purge {
            rooms: write.open_table(ROOMS)?,
            messages: write.open_table(MESSAGES)?,
            payloads: write.open_table(PAYLOADS)?,
            expiry: write.open_table(EXPIRY)?,
            quarantine: write.open_table(QUARANTINE)?,
            now_ms,
            freed: 0,
            quarantined: 0,
            purged: Purged { looked_at: due.len() + put_off.len(), ..Purged::default() },
        };
        for key in &put_off {
            purge.put_off(key)?;
        }
        for key in &due {
            purge.expiry.remove(key.as_slice())?;
            // A key that is too short is damaged. Its row stays until a load of the room.
            let Some((at_ms, rest)) = key.split_first_chunk() else { continue };
            let Some((offset, room)) = rest.split_first_chunk() else { continue };
            match u64::from_be_bytes(*offset) {
                0 => purge.forget(room, u64::from_be_bytes(*at_ms))?,
                offset => purge.remove(room, offset)?,
            }
        }
        for room in emptied {
            purge.mark_if_empty(room)?;
        }
        let bytes = self.bytes.saturating_sub(purge.freed);
        let purged = purge.purged;
        let quarantined = purge.quarantined;
        // The tables borrow the commit.
        drop(purge);
        self.commit(write, bytes, Some(now))?;
        self.quarantined += quarantined;
        Ok(purged)
    }

    /// The due index keys, the oldest first. Keys on damaged pages are passed over.
    fn due(&mut self, now_ms: u64, rows_max: usize, state: &mut PurgeState) -> Result<Vec<Vec<u8>>> {
        let mut is_first = false;
        if state.pace.passes_over > 0 {
            let passed = self.keys(&state.from, now_ms, state.pace.passes_over)?.0;
            if let Some(last) = passed.last() {
                is_first = state.pass_over([last.as_slice(), &[0]].concat(), now_ms);
            }
        }
        let (mut due, is_cut) = self.keys(&state.from, now_ms, rows_max)?;
        if due.is_empty() && is_cut {
            let behind = self.behind_damage(&state.from, now_ms)?;
            is_first |= state.pass_over(behind.to_be_bytes().to_vec(), now_ms);
            due = self.keys(&state.from, now_ms, rows_max)?.0;
        }
        if is_first {
            tracing::error!("the index of expiries is damaged: a purge passes over a part of it");
            self.quarantined += 1;
        }
        Ok(due)
    }

    /// The due index keys from `from` on, up to the first damaged page. True: there is such a page.
    fn keys(&self, from: &[u8], now_ms: u64, keys_max: usize) -> Result<(Vec<Vec<u8>>, bool)> {
        let end = now_ms.saturating_add(1).to_be_bytes();
        let mut keys = Vec::new();
        if from >= end.as_slice() {
            return Ok((keys, false));
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let expiry = self.database.begin_read()?.open_table(EXPIRY)?;
            for key in expiry.range(from..end.as_slice())?.take(keys_max) {
                keys.push(key?.0.value().to_vec());
            }
            Ok(())
        }));
        match outcome {
            Ok(Ok(())) => Ok((keys, false)),
            Ok(Err(error)) if fault_of(&error) != FaultOf::Pages => Err(error),
            Ok(Err(_)) | Err(_) => Ok((keys, true)),
        }
    }

    /// The beginning of the first readable index key behind `from`, whose page is damaged; at most the first
    /// moment that is not due. A beginning is a time and an offset in one number.
    fn behind_damage(&self, from: &[u8], now_ms: u64) -> Result<u128> {
        let end = u128::from(now_ms.saturating_add(1)) << 64;
        let can_be_read = |at: u128| {
            if at >= end {
                return Ok(true);
            }
            self.is_readable(|read| {
                let expiry = read.open_table(EXPIRY)?;
                let found = expiry.range(at.to_be_bytes().as_slice()..end.to_be_bytes().as_slice())?.next();
                Ok(found.transpose()?.is_some())
            })
        };
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        let mut damaged = u128::from_be_bytes(bytes);
        let mut step = 1;
        // Longer and longer steps, and then halves of the last one.
        while !can_be_read(damaged.saturating_add(step))? {
            damaged = damaged.saturating_add(step);
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if !can_be_read(damaged.saturating_add(step))? {
                damaged = damaged.saturating_add(step);
            }
        }
        Ok(damaged.saturating_add(1))
    }

    /// True if the pages of the row behind a due index key can be read.
    fn has_readable_row(&self, key: &[u8]) -> Result<bool> {
        let Some((_, rest)) = key.split_at_checked(8) else { return Ok(true) };
        let Some((offset, room)) = rest.split_first_chunk() else { return Ok(true) };
        let key = row::key_of(room, u64::from_be_bytes(*offset));
        self.is_readable(|read| {
            for table in [MESSAGES, PAYLOADS] {
                read.open_table(table)?.get(key.as_slice())?;
            }
            Ok(true)
        })
    }

    /// True if a look at the pages succeeds. redb may panic at damage. Any other error makes the handle useless.
    pub(super) fn is_readable(&self, look: impl FnOnce(&ReadTransaction) -> Result<bool>) -> Result<bool> {
        let look = || look(&self.database.begin_read()?);
        match catch_unwind(AssertUnwindSafe(look)) {
            Ok(Err(error)) if fault_of(&error) != FaultOf::Pages => Err(error),
            outcome => Ok(matches!(outcome, Ok(Ok(_)))),
        }
    }
}

impl Purge<'_> {
    /// Has a row that can't be removed wait for a later purge.
    fn put_off(&mut self, key: &[u8]) -> Result<()> {
        self.expiry.remove(key)?;
        let Some((_, rest)) = key.split_at_checked(8) else { return Ok(()) };
        let later = self.now_ms.saturating_add(millis(STORE_PURGE_PUT_OFF));
        self.expiry.insert([&later.to_be_bytes(), rest].concat().as_slice(), ())?;
        Ok(())
    }

    fn remove(&mut self, room: &[u8], offset: u64) -> Result<()> {
        let key = row::key_of(room, offset);
        // The row's own expiry counts: an index key with a turned bit must not remove a message that is
        // alive.
        let Some(stays_until) = self
            .messages
            .get(key.as_slice())?
            .map(|value| row::decode(&key, value.value()).map(|row| row.marks.delete_at_ms(&row.message)))
        else {
            return Ok(());
        };
        match stays_until {
            None => {
                for table in [&mut self.messages, &mut self.payloads] {
                    self.freed += quarantine_row(table, &mut self.quarantine, &key)?;
                }
                self.quarantined += 1;
            }
            Some(at_ms) if at_ms > self.now_ms => {
                self.expiry.insert(expiry_key(at_ms, offset, room).as_slice(), ())?;
            }
            Some(_) => {
                for table in [&mut self.messages, &mut self.payloads] {
                    let row = table.remove(key.as_slice())?;
                    self.freed += row.map_or(0, |row| (key.len() + row.value().len()) as u64);
                }
                self.purged.rows += 1;
            }
        }
        Ok(())
    }

    /// Marks a room without rows as forgotten from `TTL_MAX` after now.
    fn mark_if_empty(&mut self, room: &[u8]) -> Result<()> {
        if has_rows(&self.messages, room)? {
            return Ok(());
        }
        let Found::Intact(entry) = find(&self.rooms, room)? else { return Ok(()) };
        let forget_ms = self.now_ms.saturating_add(millis(TTL_MAX));
        self.rooms.insert(room, RoomEntry { forget_ms, ..entry }.encode(room).as_slice())?;
        self.expiry.insert(expiry_key(forget_ms, 0, room).as_slice(), ())?;
        Ok(())
    }

    /// Forgets a room, unless a row came after the mark.
    fn forget(&mut self, room: &[u8], at_ms: u64) -> Result<()> {
        // A row that came and went since has set a later mark, with an index key of its own. An earlier mark is
        // this one, put off.
        let marked = matches!(
            find(&self.rooms, room)?,
            Found::Intact(entry) if entry.forget_ms > 0 && entry.forget_ms <= at_ms
        );
        if marked && !has_rows(&self.messages, room)? {
            self.rooms.remove(room)?;
            self.purged.rooms += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_purge_tries_fewer_rows_until_one_is_put_off_and_then_more_again() {
        let mut pace = PurgePace::default();
        let mut rows = Vec::new();
        for succeeded in [false, false, false, false, true, true, true] {
            pace = pace.after(8, succeeded);
            rows.push((pace.rows_max, pace.puts_off_first));
            assert_eq!(pace.passes_over, 0);
        }
        let failing = [(Some(4), false), (Some(2), false), (Some(1), false), (Some(1), true)];
        assert_eq!(rows, [&failing[..], &[(Some(2), false), (Some(4), false), (None, false)]].concat());
    }

    #[test]
    fn a_row_that_can_not_even_be_put_off_is_passed_over_with_more_and_more_others() {
        let mut pace = PurgePace::default().after(1, false);
        assert!(pace.puts_off_first);
        let mut passed = Vec::new();
        for _ in 0..3 {
            pace = pace.after(1, false);
            passed.push((pace.puts_off_first, pace.passes_over));
        }
        assert_eq!(passed, [(false, 1), (false, 2), (false, 4)]);
        assert_eq!(pace.after(1, true), PurgePace::default());
    }
}
