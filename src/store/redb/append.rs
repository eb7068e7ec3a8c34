//! Storing messages: the rows, their expiries and the rooms' entries, in one commit.

use std::collections::{BTreeMap, BTreeSet};

use ::redb::{ReadableTable, Table};

use crate::store::row::{self, Marks};
use crate::store::time::StoreNow;
use crate::store::{Append, FaultOf, StoreError, in_order};
use roomcast_core::limits::STORE_ASIDE_ROOMS_MAX;
use roomcast_core::room::id::RoomName;

use super::{
    Bytes, EXPIRY, Found, MESSAGES, Opened, PAYLOADS, ROOMS, Result, RoomEntry, expiry_key, fault_of, find,
    has_rows,
};

impl Opened {
    /// One outcome per append, in order.
    pub(super) fn append(
        &mut self,
        appends: &[Append],
        now: StoreNow,
        unmarkable: &mut BTreeSet<Vec<u8>>,
    ) -> Result<Vec<Result<(), StoreError>>> {
        let unmarked = self.unmarked(appends, unmarkable)?;
        let write = self.begin()?;
        let mut commit = Commit {
            rooms: write.open_table(ROOMS)?,
            messages: write.open_table(MESSAGES)?,
            payloads: write.open_table(PAYLOADS)?,
            expiry: write.open_table(EXPIRY)?,
            now,
            entries: BTreeMap::new(),
            unmarked,
            bytes: self.bytes,
            bytes_max: self.bytes_max,
        };
        let outcomes = in_order(appends, |append| commit.append(append))?;
        let bytes = commit.finish()?;
        // A commit costs a sync; one without content would cost it for nothing.
        if outcomes.iter().all(Result::is_err) {
            self.ended(write)?.abort()?;
            return Ok(outcomes);
        }
        self.commit(write, bytes, Some(now))?;
        Ok(outcomes)
    }

    /// The rows of recalled messages that can't be read. The mark is a second guard, so a damaged page there must
    /// not refuse the recall. An I/O error fails the whole call; the row is in `unmarkable` at the next try.
    fn unmarked(&self, appends: &[Append], unmarkable: &mut BTreeSet<Vec<u8>>) -> Result<BTreeSet<Vec<u8>>> {
        let mut unmarked = BTreeSet::new();
        for append in appends {
            for message in append.messages.iter().filter(|message| message.recall > 0) {
                let key = row::key(&append.room, message.recall);
                if unmarkable.contains(key.as_slice()) {
                    unmarked.insert(key.clone());
                    continue;
                }
                let look =
                    self.is_readable(|read| Ok(read.open_table(MESSAGES)?.get(key.as_slice())?.is_some()));
                match look {
                    Ok(true) => {}
                    Ok(false) => drop(unmarked.insert(key)),
                    Err(error) => {
                        if unmarkable.len() >= STORE_ASIDE_ROOMS_MAX {
                            unmarkable.clear();
                        }
                        // An earlier error says nothing about this row.
                        if fault_of(&error) == FaultOf::Disk {
                            unmarkable.insert(key);
                        }
                        return Err(error);
                    }
                }
            }
        }
        Ok(unmarked)
    }
}

/// The tables of a commit of messages.
struct Commit<'t, 'a> {
    rooms: Table<'t, Bytes, Bytes>,
    messages: Table<'t, Bytes, Bytes>,
    payloads: Table<'t, Bytes, Bytes>,
    expiry: Table<'t, Bytes, ()>,
    now: StoreNow,
    /// The new entries. Each is written once at the end, whatever the number of the room's appends.
    entries: BTreeMap<&'a RoomName, RoomEntry>,
    /// Rows of recalled messages that get no mark.
    unmarked: BTreeSet<Vec<u8>>,
    bytes: u64,
    bytes_max: u64,
}

impl<'a> Commit<'_, 'a> {
    fn append(&mut self, append: &'a Append) -> Result<Result<(), StoreError>> {
        let name = append.room.as_str().as_bytes();
        let entry = match self.entries.get(&append.room) {
            Some(entry) => Some(*entry),
            None => match find(&self.rooms, name)? {
                Found::Intact(entry) => Some(entry),
                Found::Nothing if !has_rows(&self.messages, name)? => None,
                // The room has to load, which rebuilds the entry.
                Found::Damaged | Found::Nothing => return Ok(Err(StoreError::Moved)),
            },
        };
        // A room that was alive for days without a message is forgotten here. The room itself knows its head.
        let forgotten = RoomEntry { epoch: append.epoch, head: append.durable, forget_ms: 0 };
        let mut entry = entry.unwrap_or(forgotten);
        if entry.epoch != append.epoch || !append.follows(entry.head) {
            return Ok(Err(StoreError::Moved));
        }
        let bytes = append.stored_bytes();
        if self.bytes + bytes > self.bytes_max {
            return Ok(Err(StoreError::Full));
        }
        let accepted_ms = self.now.ms_of(append.accepted);
        for message in &append.messages {
            let key = row::key(&append.room, message.offset);
            let marks = Marks::of(append.epoch, accepted_ms, message);
            self.messages.insert(key.as_slice(), row::encode(&key, &marks, message).as_slice())?;
            if marks.is_apart {
                let apart = row::sealed(&key, message.payload.bytes());
                self.payloads.insert(key.as_slice(), apart.as_slice())?;
            }
            let expiry = expiry_key(marks.delete_at_ms(message), message.offset, name);
            self.expiry.insert(expiry.as_slice(), ())?;
            entry.head = message.offset;
            if message.recall > 0 {
                self.mark_recalled(append, message.recall, message.offset)?;
            }
        }
        self.bytes += bytes;
        entry.forget_ms = 0;
        self.entries.insert(&append.room, entry);
        Ok(Ok(()))
    }

    /// Notes a recall on the row of the recalled message.
    fn mark_recalled(&mut self, append: &Append, recalled: u64, recalled_by: u64) -> Result<()> {
        let key = row::key(&append.room, recalled);
        if self.unmarked.contains(key.as_slice()) {
            return Ok(());
        }
        let before = self.messages.get(key.as_slice())?.map(|row| row.value().to_vec());
        // An expired row is gone. A damaged row is never read again.
        let Some(before) = before else { return Ok(()) };
        let Some(read) = row::decode(&key, &before) else { return Ok(()) };
        let marks = Marks { recalled_by, ..read.marks };
        let after = row::encode(&key, &marks, &read.message);
        // A row of form 1 grows by its marks.
        self.bytes = self.bytes.saturating_sub(before.len() as u64) + after.len() as u64;
        self.messages.insert(key.as_slice(), after.as_slice())?;
        Ok(())
    }

    /// Writes the entries, and returns the bytes of all rows and keys.
    fn finish(mut self) -> Result<u64> {
        for (room, entry) in &self.entries {
            let name = room.as_str().as_bytes();
            self.rooms.insert(name, entry.encode(name).as_slice())?;
        }
        Ok(self.bytes)
    }
}
