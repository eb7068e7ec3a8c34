//! Removing expired rows, by an index of their own: messages do not expire in order of offset.

use std::collections::BTreeSet;

use ::redb::{ReadableDatabase, ReadableTable, Table};

use crate::store::{Purged, row};
use roomcast_core::limits::TTL_MAX;
use roomcast_core::now::millis;

use super::damage::quarantine_row;
use super::{
    Bytes, EXPIRY, Found, MESSAGES, Opened, QUARANTINE, ROOMS, Result, RoomEntry, begin, expiry_key, find,
    has_rows,
};

/// The tables of a purge.
struct Purge<'t> {
    rooms: Table<'t, Bytes, Bytes>,
    messages: Table<'t, Bytes, Bytes>,
    expiry: Table<'t, Bytes, ()>,
    quarantine: Table<'t, u64, Bytes>,
    now_ms: u64,
    /// Bytes of removed rows and keys.
    freed: u64,
    quarantined: u64,
    purged: Purged,
}

impl Opened {
    pub(super) fn purge(&mut self, now_ms: u64, rows_max: usize) -> Result<Purged> {
        let due = self.due(now_ms, rows_max)?;
        if due.is_empty() {
            return Ok(Purged::default());
        }
        let write = begin(&self.database)?;
        let mut purge = Purge {
            rooms: write.open_table(ROOMS)?,
            messages: write.open_table(MESSAGES)?,
            expiry: write.open_table(EXPIRY)?,
            quarantine: write.open_table(QUARANTINE)?,
            now_ms,
            freed: 0,
            quarantined: 0,
            purged: Purged { looked_at: due.len(), ..Purged::default() },
        };
        let mut emptied = BTreeSet::new();
        for key in &due {
            purge.expiry.remove(key.as_slice())?;
            // A key that is too short is damaged. Its row stays until a load of the room.
            let Some((at_ms, rest)) = key.split_first_chunk() else { continue };
            let Some((offset, room)) = rest.split_first_chunk() else { continue };
            match u64::from_be_bytes(*offset) {
                0 => purge.forget(room, u64::from_be_bytes(*at_ms))?,
                offset => {
                    purge.remove(room, offset)?;
                    emptied.insert(room);
                }
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
        self.commit(write, bytes)?;
        self.quarantined += quarantined;
        Ok(purged)
    }

    /// The due index keys, the oldest first.
    fn due(&self, now_ms: u64, rows_max: usize) -> Result<Vec<Vec<u8>>> {
        let read = self.database.begin_read()?;
        let expiry = read.open_table(EXPIRY)?;
        let end = now_ms.saturating_add(1).to_be_bytes();
        let due = expiry.range(..end.as_slice())?.take(rows_max);
        due.map(|key| Ok(key?.0.value().to_vec())).collect()
    }
}

impl Purge<'_> {
    fn remove(&mut self, room: &[u8], offset: u64) -> Result<()> {
        let key = row::key_of(room, offset);
        // The row's own expiry counts: an index key with a turned bit must not remove a message that is
        // alive.
        let Some(stays_until) = self
            .messages
            .get(key.as_slice())?
            .map(|value| row::decode(&key, value.value()).map(|row| row::delete_at_ms(&row.message)))
        else {
            return Ok(());
        };
        match stays_until {
            None => {
                self.freed += quarantine_row(&mut self.messages, &mut self.quarantine, &key)?;
                self.quarantined += 1;
            }
            Some(at_ms) if at_ms > self.now_ms => {
                self.expiry.insert(expiry_key(at_ms, offset, room).as_slice(), ())?;
            }
            Some(_) => {
                let row = self.messages.remove(key.as_slice())?;
                self.freed += row.map_or(0, |row| (key.len() + row.value().len()) as u64);
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
        // A row that came and went since has set a later mark.
        let marked = matches!(find(&self.rooms, room)?, Found::Intact(entry) if entry.forget_ms == at_ms);
        if marked && !has_rows(&self.messages, room)? {
            self.rooms.remove(room)?;
            self.purged.rooms += 1;
        }
        Ok(())
    }
}
