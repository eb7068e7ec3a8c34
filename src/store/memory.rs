//! The store without a file, for `--ephemeral` and for tests. The content ends with the process. In a test, a
//! clone stands for the content of a disk at some moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roomcast_core::limits::{STORE_BYTES_MAX, TTL_MAX};
use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;

use super::row::{delete_at_ms, stored_bytes};
use super::{Append, Page, Purged, Store, StoreError, StoreHoldings, Stored, in_order};
use roomcast_core::now::millis;

/// Reliable messages in memory. The same calls in the same order give the same results.
#[derive(Debug, Clone)]
pub struct Memory {
    rooms: BTreeMap<RoomName, Stream>,
    /// (unix ms, offset, room): the time at which a row is due to go. With offset 0: the room is due to be
    /// forgotten.
    expiries: BTreeSet<(u64, u64, RoomName)>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug, Clone)]
struct Stream {
    epoch: Epoch,
    head: u64,
    messages: BTreeMap<u64, Arc<Message>>,
    /// Unix ms at which the room is forgotten. 0 for a room with messages.
    forget_ms: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(STORE_BYTES_MAX)
    }
}

impl Memory {
    /// An empty store for `bytes_max` bytes of rows and their keys.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { rooms: BTreeMap::new(), expiries: BTreeSet::new(), bytes: 0, bytes_max }
    }

    fn append_one(&mut self, append: &Append) -> Result<(), StoreError> {
        let stream = self.rooms.get(&append.room);
        let head = stream.map_or(0, |stream| stream.head);
        if stream.is_some_and(|stream| stream.epoch != append.epoch) || !append.follows(head) {
            return Err(StoreError::Moved);
        }
        let bytes = append.stored_bytes();
        if self.bytes + bytes > self.bytes_max {
            return Err(StoreError::Full);
        }
        self.bytes += bytes;
        let stream = self.rooms.entry(append.room.clone()).or_insert_with(|| Stream {
            epoch: append.epoch,
            head: 0,
            messages: BTreeMap::new(),
            forget_ms: 0,
        });
        stream.forget_ms = 0;
        for message in &append.messages {
            stream.head = message.offset;
            stream.messages.insert(message.offset, Arc::clone(message));
            self.expiries.insert((delete_at_ms(message), message.offset, append.room.clone()));
        }
        Ok(())
    }

    /// Removes a row. A room without further rows is due to be forgotten `TTL_MAX` from now.
    fn remove(&mut self, room: &RoomName, offset: u64, now_ms: u64) {
        let stream = self.rooms.get_mut(room).expect("a row that expires has a room");
        let message = stream.messages.remove(&offset).expect("an expiry has its row");
        self.bytes -= stored_bytes(room, &message);
        if stream.messages.is_empty() {
            stream.forget_ms = now_ms.saturating_add(millis(TTL_MAX));
            self.expiries.insert((stream.forget_ms, 0, room.clone()));
        }
    }
}

impl Store for Memory {
    fn load(&mut self, room: &RoomName) -> Result<Option<Stored>, StoreError> {
        Ok(self.rooms.get(room).map(|stream| Stored {
            epoch: stream.epoch,
            head: stream.head,
            messages: stream.messages.values().cloned().collect(),
        }))
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        let mut page = Page { messages: Vec::new(), through: after };
        let Some(stream) = self.rooms.get(room) else { return Ok(page) };
        let mut bytes = 0;
        for message in stream.messages.range(after.saturating_add(1)..).map(|(_, message)| message) {
            bytes += message.wire_bytes;
            if bytes > bytes_max && !page.messages.is_empty() {
                return Ok(page);
            }
            page.through = message.offset;
            page.messages.push(Arc::clone(message));
        }
        page.through = after.max(stream.head);
        Ok(page)
    }

    fn append(&mut self, appends: &[Append]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        in_order(appends, |append| Ok(self.append_one(append)))
    }

    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError> {
        let Some(stream) = self.rooms.remove(room) else { return Ok(false) };
        self.expiries.remove(&(stream.forget_ms, 0, room.clone()));
        for message in stream.messages.values() {
            // An expiry left behind would take a row of the next stream with it.
            self.expiries.remove(&(delete_at_ms(message), message.offset, room.clone()));
            self.bytes -= stored_bytes(room, message);
        }
        Ok(true)
    }

    fn purge(&mut self, now_ms: u64, rows_max: usize) -> Result<Purged, StoreError> {
        let mut purged = Purged::default();
        while purged.looked_at < rows_max && self.expiries.first().is_some_and(|(at, ..)| *at <= now_ms) {
            let (at_ms, offset, room) = self.expiries.pop_first().expect("it was looked at");
            purged.looked_at += 1;
            if offset > 0 {
                self.remove(&room, offset, now_ms);
                purged.rows += 1;
            // A row that came since has set another time, or none.
            } else if self.rooms.get(&room).is_some_and(|stream| stream.forget_ms == at_ms) {
                self.rooms.remove(&room);
                purged.rooms += 1;
            }
        }
        Ok(purged)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn holdings(&self) -> StoreHoldings {
        StoreHoldings { bytes: self.bytes, quarantined: 0 }
    }

    fn trouble(&self) -> &str {
        ""
    }
}
