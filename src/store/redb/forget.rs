//! Removing a room's stream: its rows, their expiries and its entry, in one commit.

use crate::store::row;
use roomcast_core::room::id::RoomName;

use super::{EXPIRY, MESSAGES, Opened, PAYLOADS, ROOMS, Result, RoomEntry, expiry_key};

impl Opened {
    /// Removes everything of a room. True if anything was stored.
    pub(super) fn forget(&mut self, room: &RoomName) -> Result<bool> {
        let name = room.as_str().as_bytes();
        let write = self.begin()?;
        let mut freed = 0;
        let mut rooms = write.open_table(ROOMS)?;
        let mut messages = write.open_table(MESSAGES)?;
        let mut expiry = write.open_table(EXPIRY)?;
        let entry = rooms.remove(name)?;
        let mut existed = entry.is_some();
        // A room without rows is due to be forgotten by itself.
        if let Some(entry) = entry.and_then(|entry| RoomEntry::decode(name, entry.value())) {
            expiry.remove(expiry_key(entry.forget_ms, 0, name).as_slice())?;
        }
        let first = row::key_of(name, 0);
        let last = row::key_of(name, u64::MAX);
        for row in messages.extract_from_if(first.as_slice()..=last.as_slice(), |_, _| true)? {
            let (key, value) = row?;
            existed = true;
            freed += (key.value().len() + value.value().len()) as u64;
            // The expiry of a damaged row stays, and finds nothing: a purge asks the row itself.
            if let Some(row) = row::decode(key.value(), value.value()) {
                let at_ms = row.marks.delete_at_ms(&row.message);
                expiry.remove(expiry_key(at_ms, row.message.offset, name).as_slice())?;
            }
        }
        let mut payloads = write.open_table(PAYLOADS)?;
        for apart in payloads.extract_from_if(first.as_slice()..=last.as_slice(), |_, _| true)? {
            let (key, value) = apart?;
            freed += (key.value().len() + value.value().len()) as u64;
        }
        drop((rooms, messages, expiry, payloads));
        if existed {
            self.commit(write, self.bytes.saturating_sub(freed), None)?;
        } else {
            self.ended(write)?.abort()?;
        }
        Ok(existed)
    }
}
