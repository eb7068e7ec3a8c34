//! The store without a file, for `--ephemeral` and for tests. The content ends with the process. In a test, a
//! clone stands for the content of a disk at some moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roomcast_core::limits::{STORE_BYTES_MAX, TTL_MAX};
use roomcast_core::now::millis;
use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;

use super::row::{Marks, TailRoom, stored_bytes};
use super::time::{Stamp, StoreNow};
use super::{Append, Page, Purged, Store, StoreError, StoreHoldings, Stored, in_order};

/// Reliable messages in memory. The same calls in the same order give the same results.
#[derive(Debug, Clone)]
pub struct Memory {
    rooms: BTreeMap<RoomName, Stream>,
    /// (store ms, offset, room): the time at which a row is due to go. With offset 0: the room is due to be
    /// forgotten.
    expiries: BTreeSet<(u64, u64, RoomName)>,
    stamp: Option<Stamp>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug, Clone)]
struct Stream {
    epoch: Epoch,
    head: u64,
    rows: BTreeMap<u64, KeptRow>,
    /// Store time at which the room is forgotten. 0 for a room with messages.
    forget_ms: u64,
}

#[derive(Debug, Clone)]
struct KeptRow {
    marks: Marks,
    message: Arc<Message>,
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
        Self { rooms: BTreeMap::new(), expiries: BTreeSet::new(), stamp: None, bytes: 0, bytes_max }
    }

    fn append_one(&mut self, append: &Append, now: StoreNow) -> Result<(), StoreError> {
        let stream = self.rooms.get(&append.room);
        let head = stream.map_or(append.durable, |stream| stream.head);
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
            head,
            rows: BTreeMap::new(),
            forget_ms: 0,
        });
        stream.forget_ms = 0;
        let accepted_ms = now.ms_of(append.accepted);
        for message in &append.messages {
            stream.head = message.offset;
            let marks = Marks::of(append.epoch, accepted_ms, message);
            self.expiries.insert((marks.delete_at_ms(message), message.offset, append.room.clone()));
            stream.rows.insert(message.offset, KeptRow { marks, message: Arc::clone(message) });
            if let Some(recalled) = stream.rows.get_mut(&message.recall) {
                recalled.marks.recalled_by = message.offset;
            }
        }
        self.stamp = Some(now.noted);
        Ok(())
    }

    /// Removes a row. A room without further rows is due to be forgotten `TTL_MAX` from now.
    fn remove(&mut self, room: &RoomName, offset: u64, now_ms: u64) {
        let stream = self.rooms.get_mut(room).expect("a row that expires has a room");
        let row = stream.rows.remove(&offset).expect("an expiry has its row");
        self.bytes -= stored_bytes(room, &row.message);
        if stream.rows.is_empty() {
            stream.forget_ms = now_ms.saturating_add(millis(TTL_MAX));
            self.expiries.insert((stream.forget_ms, 0, room.clone()));
        }
    }
}

impl Store for Memory {
    fn load(
        &mut self,
        room: &RoomName,
        whole_after: u64,
        now: StoreNow,
    ) -> Result<Option<Stored>, StoreError> {
        let Some(stream) = self.rooms.get(room) else { return Ok(None) };
        let mut tail = TailRoom::default();
        let newest_first = stream.rows.values().rev();
        let whole = newest_first.filter(|row| {
            let is_tail = tail.takes(row.message.wire_bytes);
            is_tail || row.message.offset > whole_after
        });
        let mut whole: Vec<_> = whole.map(|row| Arc::clone(&row.message)).collect();
        whole.reverse();
        Ok(Some(Stored {
            epoch: stream.epoch,
            head: stream.head,
            records: stream.rows.values().map(|row| row.marks.record(&row.message, now)).collect(),
            tail: whole,
        }))
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        let mut page = Page { messages: Vec::new(), through: after };
        let Some(stream) = self.rooms.get(room) else { return Ok(page) };
        let mut bytes = 0;
        for message in stream.rows.range(after.saturating_add(1)..).map(|(_, row)| &row.message) {
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

    fn append(
        &mut self,
        appends: &[Append],
        now: StoreNow,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        in_order(appends, |append| Ok(self.append_one(append, now)))
    }

    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError> {
        let Some(stream) = self.rooms.remove(room) else { return Ok(false) };
        self.expiries.remove(&(stream.forget_ms, 0, room.clone()));
        for KeptRow { marks, message } in stream.rows.values() {
            // An expiry left behind would take a row of the next stream with it.
            self.expiries.remove(&(marks.delete_at_ms(message), message.offset, room.clone()));
            self.bytes -= stored_bytes(room, message);
        }
        Ok(true)
    }

    fn purge(&mut self, now: StoreNow, rows_max: usize) -> Result<Purged, StoreError> {
        let now_ms = now.stamp.store_ms;
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
            self.stamp = Some(now.noted);
        }
        Ok(purged)
    }

    fn prove(&mut self, now: StoreNow, _bytes: usize) -> Result<(), StoreError> {
        self.stamp = Some(now.noted);
        Ok(())
    }

    fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    fn is_open(&self) -> bool {
        true
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
