//! Damaged rows and entries: put aside, counted, and never sent.
//!
//! A damaged row leaves a hole, as an expired row does. A damaged entry is worse: the last offset of the room
//! is unknown. So the stream goes on under a new epoch. No pair of epoch and offset is given twice, and each
//! device with a cursor gets a reset with every message alive.

use ::redb::{ReadableTable, ReadableTableMetadata, Table};

use crate::store::row;
use roomcast_core::limits::STORE_QUARANTINE_ROWS_MAX;
use roomcast_core::room::id::{Epoch, RoomName};

use super::{Bytes, MESSAGES, Opened, QUARANTINE, ROOMS, Result, RoomEntry, begin};

impl Opened {
    /// Moves the rows of a room at `offsets` into quarantine, in one commit.
    pub(super) fn put_aside(&mut self, room: &RoomName, offsets: &[u64]) -> Result<()> {
        let write = begin(&self.database)?;
        let mut bytes = self.bytes;
        {
            let mut messages = write.open_table(MESSAGES)?;
            let mut quarantine = write.open_table(QUARANTINE)?;
            for offset in offsets {
                let key = row::key(room, *offset);
                bytes = bytes.saturating_sub(quarantine_row(&mut messages, &mut quarantine, &key)?);
            }
        }
        self.commit(write, bytes)?;
        tracing::error!(%room, rows = offsets.len(), "damaged messages were put aside");
        self.quarantined += offsets.len() as u64;
        Ok(())
    }

    /// Rebuilds the entry of a room from the rows, under a new epoch, with the highest offset as the head.
    /// `None` for a room without intact rows: the room is forgotten.
    pub(super) fn rebuild(&mut self, room: &RoomName) -> Result<Option<RoomEntry>> {
        let name = room.as_str().as_bytes();
        let epoch = Epoch(getrandom::u64().map_err(std::io::Error::from)?);
        let mut entry = RoomEntry { epoch, head: 0, forget_ms: 0 };
        let mut kept = Vec::new();
        let mut damaged = Vec::new();
        let write = begin(&self.database)?;
        let mut bytes = self.bytes;
        {
            let mut rooms = write.open_table(ROOMS)?;
            let mut messages = write.open_table(MESSAGES)?;
            let mut quarantine = write.open_table(QUARANTINE)?;
            if let Some(old) = rooms.remove(name)? {
                quarantine_one(&mut quarantine, name, old.value())?;
            }
            let first = row::key(room, 0);
            let last = row::key(room, u64::MAX);
            for found in messages.range(first.as_slice()..=last.as_slice())? {
                let (key, value) = found?;
                // Damaged rows count as well: their offsets were given.
                entry.head = row::offset_of(key.value()).unwrap_or(entry.head);
                match row::decode(key.value(), value.value()) {
                    Some(read) => kept.push((key.value().to_vec(), read.message)),
                    None => damaged.push(key.value().to_vec()),
                }
            }
            for key in &damaged {
                bytes = bytes.saturating_sub(quarantine_row(&mut messages, &mut quarantine, key)?);
            }
            // The epoch is part of a row, so every row is written again.
            for (key, message) in &kept {
                messages.insert(key.as_slice(), row::encode(key, epoch, message).as_slice())?;
            }
            if !kept.is_empty() {
                rooms.insert(name, entry.encode(name).as_slice())?;
            }
        }
        self.commit(write, bytes)?;
        tracing::error!(%room, messages = kept.len(), "a damaged entry was put aside: its stream has a new epoch");
        self.quarantined += 1 + damaged.len() as u64;
        Ok((!kept.is_empty()).then_some(entry))
    }
}

/// Moves one row into quarantine, and returns the freed bytes.
pub(super) fn quarantine_row(
    messages: &mut Table<'_, Bytes, Bytes>,
    quarantine: &mut Table<'_, u64, Bytes>,
    key: &[u8],
) -> Result<u64> {
    let Some(damaged) = messages.remove(key)? else { return Ok(0) };
    quarantine_one(quarantine, key, damaged.value())?;
    Ok((key.len() + damaged.value().len()) as u64)
}

fn quarantine_one(quarantine: &mut Table<'_, u64, Bytes>, key: &[u8], value: &[u8]) -> Result<()> {
    // The oldest go: a disk that turns bits for days must not fill itself with the finds.
    while quarantine.len()? >= STORE_QUARANTINE_ROWS_MAX {
        quarantine.pop_first()?;
    }
    let number = quarantine.last()?.map_or(0, |(number, _)| number.value().wrapping_add(1));
    let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let kept = [&key_len.to_le_bytes(), key, value].concat();
    quarantine.insert(number, kept.as_slice())?;
    Ok(())
}
