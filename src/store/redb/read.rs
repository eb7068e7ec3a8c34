//! Reads of the file, in read transactions of their own: loads and pages, from any thread.
//!
//! A read changes nothing. Damaged rows are left out and named, so that the writer can put them aside.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use parking_lot::RwLock;

use super::{Bytes, Found, MESSAGES, PAYLOADS, ROOMS, Result, RoomEntry, fault_of, find, has_rows};
use crate::store::row::{self, Row, TailRoom};
use crate::store::time::StoreNow;
use crate::store::{FaultOf, Page, ReadError, Reader, Stored};
use roomcast_core::room::id::RoomName;
use roomcast_core::room::message::Message;

/// The result of a read, and the damage on its way.
#[derive(Debug)]
pub(super) enum Read<T> {
    Whole(T),
    /// The rows at these offsets are damaged, and left out.
    WithoutRows(T, Vec<u64>),
    /// The entry of the room is damaged, or missing for a room with rows.
    WithoutEntry,
}

/// The open file, shared by the writer and the readers.
#[derive(Default)]
pub(super) struct Shared {
    /// `None` while the file is closed. A read holds the lock, so the file never closes under a read.
    pub(super) database: RwLock<Option<Arc<Database>>>,
    /// A read met an I/O error. redb then refuses every further call of the same handle.
    pub(super) has_failed: AtomicBool,
    /// The writer closes the file: reads under way end.
    pub(super) is_closing: AtomicBool,
}

/// A read transaction, which ends early if the file is closed.
pub(super) struct OpenRead<'s> {
    transaction: ReadTransaction,
    is_closing: &'s AtomicBool,
}

impl OpenRead<'_> {
    fn check_open(&self) -> Result<()> {
        if self.is_closing.load(Ordering::Acquire) { Err(::redb::Error::DatabaseClosed) } else { Ok(()) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("has_failed", &self.has_failed).finish_non_exhaustive()
    }
}

impl Shared {
    /// Reads the open file. A panic of redb at a damaged page ends this read alone.
    pub(super) fn read<T>(
        &self,
        what: &str,
        read: impl FnOnce(&OpenRead<'_>) -> Result<Read<T>>,
    ) -> Result<Read<T>, ReadError> {
        let database = self.database.read();
        let database = database.as_ref().ok_or(ReadError::Closed)?;
        let is_closing = &self.is_closing;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            read(&OpenRead { transaction: database.begin_read()?, is_closing })
        }));
        match outcome {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(error)) => {
                let fault = fault_of(&error);
                if fault != FaultOf::Pages {
                    self.has_failed.store(true, Ordering::Release);
                }
                // The room of the earlier call bears the blame, and no other.
                if fault == FaultOf::EarlierCall {
                    return Err(ReadError::Closed);
                }
                Err(ReadError::Failed(format!("{what} failed: {error}")))
            }
            Err(_) => Err(ReadError::Failed(format!(
                "{what} failed: its pages are damaged, or there is a bug; the panic was printed"
            ))),
        }
    }
}

/// Reads of the file for other threads than the writer's.
#[derive(Debug)]
pub(super) struct RedbReader(pub(super) Arc<Shared>);

impl Reader for RedbReader {
    fn load(&self, room: &RoomName, whole_after: u64, now: StoreNow) -> Result<Option<Stored>, ReadError> {
        self.0.read(LOADING, |read| load(read, room, whole_after, now)).and_then(whole)
    }

    fn page(&self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, ReadError> {
        self.0.read(PAGING, |read| page(read, room, after, bytes_max)).and_then(whole)
    }
}

pub(super) const LOADING: &str = "loading a room";
pub(super) const PAGING: &str = "reading a room's messages";

fn whole<T>(read: Read<T>) -> Result<T, ReadError> {
    match read {
        Read::Whole(read) => Ok(read),
        Read::WithoutRows(..) | Read::WithoutEntry => Err(ReadError::Damaged),
    }
}

/// The tables of a read.
struct Tables {
    messages: ReadOnlyTable<Bytes, Bytes>,
    payloads: ReadOnlyTable<Bytes, Bytes>,
}

impl Tables {
    fn open(read: &OpenRead<'_>) -> Result<Self> {
        let read = &read.transaction;
        Ok(Self { messages: read.open_table(MESSAGES)?, payloads: read.open_table(PAYLOADS)? })
    }

    /// The whole message of a row; `None` if its payload is damaged or missing.
    fn message(&self, key: &[u8], row: Row) -> Result<Option<Message>> {
        if !row.marks.is_apart {
            return Ok(Some(row.message));
        }
        let apart = self.payloads.get(key)?;
        Ok(apart.and_then(|apart| row.with_payload(key, apart.value())))
    }
}

fn entry(read: &OpenRead<'_>, room: &RoomName) -> Result<Found> {
    let name = room.as_str().as_bytes();
    let read = &read.transaction;
    match find(&read.open_table(ROOMS)?, name)? {
        Found::Nothing if has_rows(&read.open_table(MESSAGES)?, name)? => Ok(Found::Damaged),
        found => Ok(found),
    }
}

/// Reads the stream of a room, the newest row first: large payloads are read for the tail alone.
pub(super) fn load(
    read: &OpenRead<'_>,
    room: &RoomName,
    whole_after: u64,
    now: StoreNow,
) -> Result<Read<Option<Stored>>> {
    let entry = match entry(read, room)? {
        Found::Intact(entry) => entry,
        Found::Nothing => return Ok(Read::Whole(None)),
        Found::Damaged => return Ok(Read::WithoutEntry),
    };
    let tables = Tables::open(read)?;
    let mut stored = Stored { epoch: entry.epoch, head: entry.head, records: Vec::new(), tail: Vec::new() };
    let mut tail = TailRoom::default();
    let mut damaged = Vec::new();
    for found in rows_behind(&tables, room, 0, entry)?.rev() {
        read.check_open()?;
        let (key, offset, row) = found?;
        let Some(row) = row else {
            damaged.push(offset);
            continue;
        };
        let record = row.marks.record(&row.message, now);
        if tail.takes(row.message.wire_bytes) || offset > whole_after {
            let Some(message) = tables.message(&key, row)? else {
                damaged.push(offset);
                continue;
            };
            stored.tail.push(Arc::new(message));
        }
        stored.records.push(record);
    }
    stored.records.reverse();
    stored.tail.reverse();
    Ok(if damaged.is_empty() { Read::Whole(Some(stored)) } else { Read::WithoutRows(Some(stored), damaged) })
}

/// Reads the messages behind `after`, up to `bytes_max` bytes.
pub(super) fn page(read: &OpenRead<'_>, room: &RoomName, after: u64, bytes_max: usize) -> Result<Read<Page>> {
    let entry = match entry(read, room)? {
        Found::Intact(entry) => entry,
        Found::Nothing => return Ok(Read::Whole(Page { messages: Vec::new(), through: after })),
        Found::Damaged => return Ok(Read::WithoutEntry),
    };
    let tables = Tables::open(read)?;
    let mut page = Page { messages: Vec::new(), through: after.max(entry.head) };
    let mut bytes = 0;
    let mut through = after;
    let mut damaged = Vec::new();
    for found in rows_behind(&tables, room, after, entry)? {
        read.check_open()?;
        let (key, offset, row) = found?;
        let message = match row {
            // Asked before the payload is read: a page does not read past its end.
            Some(row) if bytes + row.message.wire_bytes > bytes_max && !page.messages.is_empty() => {
                page.through = through;
                break;
            }
            Some(row) => tables.message(&key, row)?,
            None => None,
        };
        let Some(message) = message else {
            damaged.push(offset);
            continue;
        };
        bytes += message.wire_bytes;
        through = offset;
        page.messages.push(Arc::new(message));
    }
    Ok(if damaged.is_empty() { Read::Whole(page) } else { Read::WithoutRows(page, damaged) })
}

/// A row with its key and offset; `None` for a damaged row.
type KeyedRow = (Vec<u8>, u64, Option<Row>);

/// The rows of a room behind an offset.
fn rows_behind(
    tables: &Tables,
    room: &RoomName,
    after: u64,
    entry: RoomEntry,
) -> Result<impl DoubleEndedIterator<Item = Result<KeyedRow>>> {
    let first = row::key(room, after.saturating_add(1));
    let last = row::key(room, u64::MAX);
    let rows = tables.messages.range(first.as_slice()..=last.as_slice())?;
    Ok(rows.map(move |found| {
        let (key, value) = found?;
        let offset = row::offset_of(key.value()).unwrap_or_default();
        // A row of another epoch is intact, and would give an offset of this epoch to another message.
        let row = row::decode(key.value(), value.value()).filter(|row| row.marks.epoch == entry.epoch);
        Ok((key.value().to_vec(), offset, row))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::Redb;
    use crate::store::time::StoreClock;
    use crate::store::{Append, Store};
    use roomcast_core::room::id::Epoch;
    use roomcast_core::room::message::sample;

    #[test]
    fn a_read_under_way_ends_at_its_next_row_as_the_file_closes() {
        let backend = ::redb::backends::InMemoryBackend::new();
        let mut backend = Some(backend);
        let open = Box::new(move |builder: &::redb::Builder| {
            builder.create_with_backend(backend.take().expect("opened once"))
        });
        let mut store = Redb::over(open, u64::MAX).unwrap();
        let room = RoomName::parse("a").unwrap();
        let now = crate::clock::now();
        let messages = vec![Arc::new(Message { offset: 1, ..sample("coupon", "{}") })];
        let append = Append {
            room: room.clone(),
            life: 1,
            epoch: Epoch(1),
            durable: 0,
            accepted: now.instant,
            messages,
        };
        let now = StoreClock::start(crate::store::time::LastTimes::default(), now).now(now);
        assert_eq!(store.append(&[append], now).unwrap(), [Ok(())]);
        let reader = store.reader().unwrap();
        store.shared.is_closing.store(true, Ordering::Release);
        assert_eq!(reader.load(&room, 0, now).unwrap_err(), ReadError::Closed);
        assert_eq!(reader.page(&room, 0, 100).unwrap_err(), ReadError::Closed);
        store.shared.is_closing.store(false, Ordering::Release);
        assert_eq!(reader.load(&room, 0, now).unwrap().unwrap().head, 1);
    }
}
