//! Damaged rows and entries: put aside, counted, and never sent.
//!
//! A damaged row leaves a hole, as an expired row does. A damaged entry is worse: the last offset of the room
//! is unknown. So the stream goes on under a new epoch. No pair of epoch and offset is given twice, and each
//! device with a cursor gets a reset with every message alive.

use ::redb::{ReadableTable, ReadableTableMetadata, Table};

use crate::store::row;
use roomcast_core::limits::STORE_QUARANTINE_ROWS_MAX;
use roomcast_core::room::id::{Epoch, RoomName};

use super::{Bytes, MESSAGES, Marks, Opened, PAYLOADS, QUARANTINE, ROOMS, Result, RoomEntry};

impl Opened {
    /// Moves the rows of a room at `offsets` into quarantine, in one commit.
    pub(super) fn put_aside(&mut self, room: &RoomName, offsets: &[u64]) -> Result<()> {
        let write = self.begin()?;
        let mut bytes = self.bytes;
        {
            let mut messages = write.open_table(MESSAGES)?;
            let mut payloads = write.open_table(PAYLOADS)?;
            let mut quarantine = write.open_table(QUARANTINE)?;
            for offset in offsets {
                let key = row::key(room, *offset);
                for table in [&mut messages, &mut payloads] {
                    bytes = bytes.saturating_sub(quarantine_row(table, &mut quarantine, &key)?);
                }
            }
        }
        self.commit(write, bytes, None)?;
        tracing::error!(%room, rows = offsets.len(), "damaged messages were put aside");
        self.quarantined += offsets.len() as u64;
        Ok(())
    }

    /// Rebuilds the entry of a room from the rows, under a new epoch, with the highest offset as the head.
    /// A room without intact rows is forgotten.
    pub(super) fn rebuild(&mut self, room: &RoomName) -> Result<()> {
        let name = room.as_str().as_bytes();
        let epoch = Epoch(getrandom::u64().map_err(std::io::Error::from)?);
        let mut entry = RoomEntry { epoch, head: 0, forget_ms: 0 };
        let mut kept = Vec::new();
        let mut damaged = Vec::new();
        let write = self.begin()?;
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
                    Some(read) => kept.push((key.value().to_vec(), read)),
                    None => damaged.push(key.value().to_vec()),
                }
            }
            let mut payloads = write.open_table(PAYLOADS)?;
            for key in &damaged {
                for table in [&mut messages, &mut payloads] {
                    bytes = bytes.saturating_sub(quarantine_row(table, &mut quarantine, key)?);
                }
            }
            // The epoch is part of a row, so every row is written again.
            for (key, read) in &kept {
                let row = row::encode(key, &Marks { epoch, ..read.marks }, &read.message);
                let before = messages.insert(key.as_slice(), row.as_slice())?;
                let before = before.map_or(0, |before| before.value().len() as u64);
                bytes = bytes.saturating_sub(before) + row.len() as u64;
            }
            if !kept.is_empty() {
                rooms.insert(name, entry.encode(name).as_slice())?;
            }
        }
        self.commit(write, bytes, None)?;
        tracing::error!(%room, messages = kept.len(), "a damaged entry was put aside: its stream has a new epoch");
        self.quarantined += 1 + damaged.len() as u64;
        Ok(())
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
