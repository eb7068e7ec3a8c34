//! A slot's log in the memory of its home: the streams of the slot's rooms, as the log gives them.
//!
//! The image knows each row without its payload, and the newest payloads. Older payloads are read from the log,
//! by the sequence of their record. The home's clock judges lives: a row goes from the image at its time, and
//! the record goes later by itself.
//!
//! A head row keeps epoch and head of a room where no row does: once the row at the head has gone. So an offset
//! is never given twice, even if older rows with longer lives are the only ones left in the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use roomcast_core::limits::{LOG_HEADS_MAX, TTL_MAX};
use roomcast_core::now::millis;
use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::{Message, Payload};

use super::record::{Content, HeadRow, LogRow};
use crate::store::row::{Marks, TailRoom, stored_bytes};
use crate::store::time::StoreNow;
use crate::store::{Page, Stored};

/// Bytes of a row in the list of payloads in memory, beside its payload.
const KEPT_ROW_BYTES: usize = 256;

/// The streams of a slot's rooms.
#[derive(Debug)]
pub(super) struct Image {
    rooms: BTreeMap<RoomName, ImageStream>,
    /// (store ms, offset, room): the time at which a row is due to go. With offset 0: the room is due to be
    /// forgotten.
    expiries: BTreeSet<(u64, u64, RoomName)>,
    /// Rooms whose head is in no row and no head row of the log.
    heads_due: BTreeSet<RoomName>,
    /// Bytes of all rows and their keys.
    bytes: u64,
    /// Rows with a payload in memory, the oldest first, among them rows that have gone.
    payloads: VecDeque<KeptPayload>,
    /// Invariant: the sum of `bytes` over `payloads`.
    payload_bytes: usize,
    payload_bytes_max: usize,
}

#[derive(Debug)]
struct ImageStream {
    epoch: Epoch,
    head: u64,
    /// The head of the last head row; 0: none.
    noted: u64,
    rows: BTreeMap<u64, ImageRow>,
    /// Store time at which the room is forgotten. 0 for a room with messages.
    forget_ms: u64,
}

#[derive(Debug)]
struct ImageRow {
    marks: Marks,
    /// Without its payload, unless `is_whole`.
    message: Arc<Message>,
    is_whole: bool,
    /// Bytes of the row and its key.
    stored: u64,
    place: RecordPlace,
}

/// The record of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub(super) sequence: u64,
    /// Bytes of the record.
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct KeptPayload {
    room: RoomName,
    offset: u64,
    sequence: u64,
    bytes: usize,
}

/// Messages of a room that were read from the log for a load or a page.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The sequences read so far. A message of such a record that was not found is lost.
    pub(super) read: BTreeSet<u64>,
    /// (sequence, offset) -> message.
    pub(super) messages: BTreeMap<(u64, u64), Arc<Message>>,
}

/// The records to be read for a load or a page: sequence -> bytes. Never empty.
pub(super) type Wanted = BTreeMap<u64, usize>;

impl Image {
    /// An empty image. `payload_bytes_max` bounds the payloads in memory.
    pub(super) fn new(payload_bytes_max: usize) -> Self {
        Self {
            rooms: BTreeMap::new(),
            expiries: BTreeSet::new(),
            heads_due: BTreeSet::new(),
            bytes: 0,
            payloads: VecDeque::new(),
            payload_bytes: 0,
            payload_bytes_max,
        }
    }

    /// Changes the bound of the payloads in memory.
    pub(super) fn bound_payloads(&mut self, bytes_max: usize) {
        self.payload_bytes_max = bytes_max;
        self.drop_payloads();
    }

    /// Takes the content of a record in the order of the log.
    pub(super) fn take(&mut self, content: Content, place: RecordPlace) {
        match content {
            Content::Rows(rows) => rows.into_iter().for_each(|row| self.put(row, place)),
            Content::Forget(room) => drop(self.forget(&room)),
            Content::Heads(heads) => heads.into_iter().for_each(|head| self.note(head)),
            Content::Claim(_) | Content::Renewal(_) => {}
        }
    }

    fn put(&mut self, LogRow { room, marks, message }: LogRow, place: RecordPlace) {
        // The room was forgotten, and the home began another stream. Rows of the former one are void.
        if self.rooms.get(&room).is_some_and(|stream| stream.epoch != marks.epoch) {
            self.forget(&room);
        }
        let stream = self.rooms.entry(room.clone()).or_insert_with(|| ImageStream::new(marks.epoch));
        // The same record twice: the repeat of an append past the log's window of repeats.
        if message.offset <= stream.head {
            return;
        }
        stream.head = message.offset;
        self.expiries.remove(&(stream.forget_ms, 0, room.clone()));
        stream.forget_ms = 0;
        if let Some(recalled) = stream.rows.get_mut(&message.recall) {
            recalled.marks.recalled_by = message.offset;
        }
        let stored = stored_bytes(&room, &message);
        self.bytes += stored;
        self.heads_due.remove(&room);
        self.expiries.insert((marks.delete_at_ms(&message), message.offset, room.clone()));
        let bytes = KEPT_ROW_BYTES + message.payload.bytes().len();
        self.payload_bytes += bytes;
        let offset = message.offset;
        let sequence = place.sequence;
        stream.rows.insert(offset, ImageRow { marks, message, is_whole: true, stored, place });
        self.payloads.push_back(KeptPayload { room, offset, sequence, bytes });
        self.drop_payloads();
    }

    /// Drops the oldest payloads past the bound.
    fn drop_payloads(&mut self) {
        while self.payload_bytes > self.payload_bytes_max {
            let Some(kept) = self.payloads.pop_front() else { return };
            self.payload_bytes -= kept.bytes;
            let rows = self.rooms.get_mut(&kept.room).map(|stream| &mut stream.rows);
            let row = rows.and_then(|rows| rows.get_mut(&kept.offset));
            // Another stream of the room may have given the offset again.
            if let Some(row) = row.filter(|row| row.place.sequence == kept.sequence) {
                row.is_whole = false;
                row.message = Arc::new(bare(&row.message));
            }
        }
    }

    /// Takes a head row.
    fn note(&mut self, row: HeadRow) {
        let HeadRow { room, epoch, head, has_rows, forget_ms } = row;
        let is_other = |stream: &ImageStream| stream.epoch != epoch;
        // Without rows by the clock of their home: those that the log still has are void.
        if !has_rows || self.rooms.get(&room).is_some_and(is_other) {
            self.forget(&room);
        }
        let stream = self.rooms.entry(room.clone()).or_insert_with(|| ImageStream::new(epoch));
        let is_emptied_since = stream.forget_ms > 0 && stream.head == head;
        stream.head = stream.head.max(head);
        stream.noted = head;
        // Emptied while the head row was on its way: another one follows, which lives long enough.
        if is_emptied_since {
            return;
        }
        if stream.rows.is_empty() {
            self.expiries.remove(&(stream.forget_ms, 0, room.clone()));
            stream.forget_ms = forget_ms;
            self.expiries.insert((forget_ms, 0, room.clone()));
        }
        self.heads_due.remove(&room);
    }

    /// Removes everything of a room. True if there was anything.
    pub(super) fn forget(&mut self, room: &RoomName) -> bool {
        let Some(stream) = self.rooms.remove(room) else { return false };
        self.heads_due.remove(room);
        self.expiries.remove(&(stream.forget_ms, 0, room.clone()));
        for row in stream.rows.values() {
            self.expiries.remove(&(row.marks.delete_at_ms(&row.message), row.message.offset, room.clone()));
            self.bytes -= row.stored;
        }
        true
    }

    /// Removes up to `rows_max` expired rows, and forgets rooms that were empty for `TTL_MAX`. Returns the number
    /// of expiries looked at.
    pub(super) fn purge(&mut self, now_ms: u64, rows_max: usize) -> usize {
        let mut looked_at = 0;
        while looked_at < rows_max && self.expiries.first().is_some_and(|(at, ..)| *at <= now_ms) {
            let (at_ms, offset, room) = self.expiries.pop_first().expect("it was looked at");
            looked_at += 1;
            let stream = self.rooms.get_mut(&room).expect("an expiry has its room");
            if offset > 0 {
                let row = stream.rows.remove(&offset).expect("an expiry has its row");
                self.bytes -= row.stored;
                let is_empty = stream.rows.is_empty();
                if is_empty {
                    stream.forget_ms = now_ms.saturating_add(millis(TTL_MAX));
                    self.expiries.insert((stream.forget_ms, 0, room.clone()));
                }
                // The head row of a room with rows goes before the room is forgotten.
                if is_empty || (offset == stream.head && stream.noted < stream.head) {
                    self.heads_due.insert(room);
                }
            // A row that came since has set another time, or none.
            } else if stream.forget_ms == at_ms {
                self.rooms.remove(&room);
                self.heads_due.remove(&room);
            }
        }
        looked_at
    }

    /// Store time of the next purge.
    pub(super) fn next_purge_ms(&self) -> Option<u64> {
        self.expiries.first().map(|(at_ms, ..)| *at_ms)
    }

    /// True if a head row is due.
    pub(super) fn is_head_due(&self) -> bool {
        !self.heads_due.is_empty()
    }

    /// The next head rows for the log, at most `LOG_HEADS_MAX`. The rooms stay due until the image takes the rows.
    pub(super) fn heads(&self, now_ms: u64) -> Vec<HeadRow> {
        let head = |room: &RoomName| {
            let stream = self.rooms.get(room).expect("a room with a head due is there");
            let has_rows = !stream.rows.is_empty();
            // All rows of today have gone by then.
            let forget_ms = if has_rows { now_ms.saturating_add(millis(TTL_MAX)) } else { stream.forget_ms };
            HeadRow { room: room.clone(), epoch: stream.epoch, head: stream.head, has_rows, forget_ms }
        };
        self.heads_due.iter().take(LOG_HEADS_MAX).map(head).collect()
    }

    /// Epoch and head of a room's stream.
    pub(super) fn head(&self, room: &RoomName) -> Option<(Epoch, u64)> {
        self.rooms.get(room).map(|stream| (stream.epoch, stream.head))
    }

    /// Store time at which the row of a message may go.
    pub(super) fn delete_at_ms(&self, room: &RoomName, offset: u64) -> Option<u64> {
        let row = self.rooms.get(room)?.rows.get(&offset)?;
        Some(row.marks.delete_at_ms(&row.message))
    }

    /// Bytes of all rows and their keys.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stream of a room, as `Store::load` gives it.
    ///
    /// # Errors
    /// Records have to be read first.
    pub(super) fn load(
        &self,
        room: &RoomName,
        whole_after: u64,
        fetched: &Fetched,
        now: StoreNow,
    ) -> Result<Option<Stored>, Wanted> {
        let Some(stream) = self.rooms.get(room) else { return Ok(None) };
        let mut stored =
            Stored { epoch: stream.epoch, head: stream.head, records: Vec::new(), tail: Vec::new() };
        let mut wanted = Wanted::new();
        let mut tail = TailRoom::default();
        for row in stream.rows.values().rev() {
            if tail.takes(row.message.wire_bytes) || row.message.offset > whole_after {
                match row.whole(fetched, &mut wanted) {
                    Some(message) => stored.tail.push(message),
                    None => continue,
                }
            }
            stored.records.push(row.marks.record(&row.message, now));
        }
        stored.records.reverse();
        stored.tail.reverse();
        if wanted.is_empty() { Ok(Some(stored)) } else { Err(wanted) }
    }

    /// The messages behind `after`, as `Store::page` gives them.
    ///
    /// # Errors
    /// Records have to be read first.
    pub(super) fn page(
        &self,
        room: &RoomName,
        after: u64,
        bytes_max: usize,
        fetched: &Fetched,
    ) -> Result<Page, Wanted> {
        let mut page = Page { messages: Vec::new(), through: after };
        let Some(stream) = self.rooms.get(room) else { return Ok(page) };
        let mut wanted = Wanted::new();
        let mut bytes = 0;
        let mut end = after.max(stream.head);
        for (offset, row) in stream.rows.range(after.saturating_add(1)..) {
            if bytes > 0 && bytes + row.message.wire_bytes > bytes_max {
                end = page.through;
                break;
            }
            let message = row.whole(fetched, &mut wanted);
            // A lost message takes no place of the page.
            if message.is_none() && fetched.read.contains(&row.place.sequence) {
                continue;
            }
            bytes += row.message.wire_bytes;
            page.through = *offset;
            page.messages.extend(message);
        }
        page.through = end;
        if wanted.is_empty() { Ok(page) } else { Err(wanted) }
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let rows =
            || self.rooms.iter().flat_map(|(room, stream)| stream.rows.values().map(move |row| (room, row)));
        assert_eq!(self.bytes, rows().map(|(_, row)| row.stored).sum::<u64>());
        assert!(self.payload_bytes <= self.payload_bytes_max);
        assert_eq!(self.payload_bytes, self.payloads.iter().map(|kept| kept.bytes).sum::<usize>());
        for (room, row) in rows() {
            let key = (row.marks.delete_at_ms(&row.message), row.message.offset, room.clone());
            assert!(self.expiries.contains(&key), "{key:?}");
        }
        for (room, stream) in &self.rooms {
            assert!(stream.rows.is_empty() == (stream.forget_ms > 0), "{room:?} {stream:?}");
            assert!(stream.rows.keys().all(|offset| *offset <= stream.head));
        }
    }
}

impl ImageStream {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, head: 0, noted: 0, rows: BTreeMap::new(), forget_ms: 0 }
    }
}

impl ImageRow {
    /// The message with its payload. `None`: the message is lost, or its record has to be read and is in `wanted`.
    fn whole(&self, fetched: &Fetched, wanted: &mut Wanted) -> Option<Arc<Message>> {
        if self.is_whole {
            return Some(Arc::clone(&self.message));
        }
        let RecordPlace { sequence, bytes } = self.place;
        let found = fetched.messages.get(&(sequence, self.message.offset));
        if found.is_none() && !fetched.read.contains(&sequence) {
            wanted.insert(sequence, bytes);
        }
        found.map(Arc::clone)
    }
}

/// The message without its payload.
fn bare(message: &Message) -> Message {
    let payload = match message.payload {
        Payload::Json(_) => Payload::Json(Bytes::new()),
        Payload::Opaque(_) => Payload::Opaque(Bytes::new()),
    };
    Message { payload, ..message.clone() }
}
