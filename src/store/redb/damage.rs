//! What happens to damaged rows and entries: they are put aside, counted, and never sent.
//!
//! A damaged row leaves a hole, as an expired one does. A damaged entry is worse: nobody knows how far its offsets had gone.
//! So the stream goes on under a new epoch: no pair of epoch and offset is given twice, and each device with a cursor gets a
//! reset with everything that is alive.

use ::redb::{ReadableTable, ReadableTableMetadata, Table};

use crate::store::row;
use roomcast_core::limits::STORE_QUARANTINE_ROWS_MAX;
use roomcast_core::room::id::{Epoch, RoomName};

use super::{
    Bytes, Entry, HEADER, HEADER_BYTES, MESSAGES, Opened, QUARANTINE, ROOMS, Result, begin, seal_bytes,
};

impl Opened {
    /// Moves damaged rows of a room into quarantine, in one commit.
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
            write.open_table(HEADER)?.insert(HEADER_BYTES, seal_bytes(bytes).as_slice())?;
        }
        write.commit()?;
        tracing::error!(%room, rows = offsets.len(), "damaged messages were put aside");
        self.bytes = bytes;
        self.quarantined += offsets.len() as u64;
        Ok(())
    }

    /// Makes a room's entry anew from its rows, under a new epoch, with the head past the highest of them. `None`: there
    /// are none, so the room is forgotten.
    pub(super) fn rebuild(&mut self, room: &RoomName) -> Result<Option<Entry>> {
        let name = room.as_str().as_bytes();
        let epoch = Epoch(getrandom::u64().map_err(std::io::Error::from)?);
        let mut entry = Entry { epoch, head: 0, forget_ms: 0 };
        let (mut kept, mut damaged) = (Vec::new(), Vec::new());
        let write = begin(&self.database)?;
        let mut bytes = self.bytes;
        {
            let mut rooms = write.open_table(ROOMS)?;
            let mut messages = write.open_table(MESSAGES)?;
            let mut quarantine = write.open_table(QUARANTINE)?;
            if let Some(old) = rooms.remove(name)? {
                quarantine_one(&mut quarantine, name, old.value())?;
            }
            let (first, last) = (row::key(room, 0), row::key(room, u64::MAX));
            for found in messages.range(first.as_slice()..=last.as_slice())? {
                let (key, value) = found?;
                entry.head = row::offset_of(key.value()).unwrap_or(entry.head);
                match row::decode(key.value(), value.value()) {
                    Some(read) => kept.push((key.value().to_vec(), read.message)),
                    None => damaged.push(key.value().to_vec()),
                }
            }
            for key in &damaged {
                bytes = bytes.saturating_sub(quarantine_row(&mut messages, &mut quarantine, key)?);
            }
            for (key, message) in &kept {
                messages.insert(key.as_slice(), row::encode(key, epoch, message).as_slice())?;
            }
            if !kept.is_empty() {
                rooms.insert(name, entry.encode(name).as_slice())?;
            }
            write.open_table(HEADER)?.insert(HEADER_BYTES, seal_bytes(bytes).as_slice())?;
        }
        write.commit()?;
        tracing::error!(%room, messages = kept.len(), "a room's damaged entry was put aside: its stream has a new epoch");
        self.bytes = bytes;
        self.quarantined += 1 + damaged.len() as u64;
        Ok((!kept.is_empty()).then_some(entry))
    }
}

/// Moves one row into quarantine, and says how many bytes the store holds less.
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
    while quarantine.len()? >= STORE_QUARANTINE_ROWS_MAX {
        quarantine.pop_first()?;
    }
    let number = quarantine.last()?.map_or(0, |(number, _)| number.value().wrapping_add(1));
    let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let kept = [&key_len.to_le_bytes(), key, value].concat();
    quarantine.insert(number, kept.as_slice())?;
    Ok(())
}
