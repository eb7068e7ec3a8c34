//! The store's file, `store.redb`: redb's tables and their content. `row` has the bytes of a row.
//!
//! | table | key | value |
//! |---|---|---|
//! | `header` | `form` | the form of the tables: 2, four bytes |
//! | | `bytes` | checksum ‖ bytes of all rows and their keys |
//! | | `clock` | checksum ‖ store time ‖ wall clock, both at the last commit |
//! | `rooms` | room | checksum ‖ epoch ‖ head ‖ `forget_ms` (0: the room has rows) |
//! | `messages` | room ‖ 0 ‖ offset | a row |
//! | `payloads` | room ‖ 0 ‖ offset | checksum ‖ a large payload |
//! | `expiry` | ms ‖ offset ‖ room | none. At `ms` the row goes; with offset 0 the room is forgotten |
//! | `quarantine` | number | a damaged row or entry: length of its key (2) ‖ key ‖ value |
//!
//! Numbers are eight bytes, big endian in keys, little endian in values. A checksum is xxh3-64 over the key
//! and the rest of the value.
//!
//! `forget_ms` and the `ms` of `expiry` are in store time. A file of form 1 (without `payloads` and `clock`) gets
//! form 2 at its opening, and its rows are read as they are.
//!
//! Each commit has two phases and carries the allocator's state (redb's "quick repair"). So opening after a
//! crash reads a few pages instead of the whole file, and no later commit builds upon the pages of a failed
//! sync. After a failed write the handle is dropped at once, and only [`Store::reopen`] makes another. A failed
//! read keeps the handle, unless the disk failed.

mod append;
mod damage;
mod forget;
mod open;
mod purge;
mod read;

use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use roomcast_core::limits::STORE_BYTES_MAX;
use roomcast_core::room::id::{Epoch, RoomName};

use super::row::{self, Marks};
use super::time::{Stamp, StoreNow};
use super::{Append, FaultOf, Page, Purged, ReadError, Reader, Store, StoreError, StoreHoldings, Stored};

use open::{Missing, StoreLocation};
pub use open::{OpenBackend, OpenError};
use purge::PurgeState;
use read::{LOADING, OpenRead, PAGING, Read, RedbReader, Shared};

type Bytes = &'static [u8];

const HEADER: TableDefinition<'static, &str, Bytes> = TableDefinition::new("header");
const ROOMS: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("rooms");
const MESSAGES: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("messages");
const PAYLOADS: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("payloads");
const EXPIRY: TableDefinition<'static, Bytes, ()> = TableDefinition::new("expiry");
const QUARANTINE: TableDefinition<'static, u64, Bytes> = TableDefinition::new("quarantine");

const HEADER_FORM: &str = "form";
const HEADER_BYTES: &str = "bytes";
const HEADER_CLOCK: &str = "clock";
/// The form of the tables above. A file with a later form is refused.
pub(crate) const FORM: u32 = 2;
/// The bytes of a proof that the disk takes writes. A table of its own: a proof must not meet the damaged page
/// of a room.
const PROOF: TableDefinition<'static, (), Bytes> = TableDefinition::new("proof");

type Result<T, E = ::redb::Error> = std::result::Result<T, E>;

/// The store in a file. A single process may have the file open, and only the writer's thread makes calls.
pub struct Redb {
    place: StoreLocation,
    /// `None` after a failure, until a reopening.
    opened: Option<Opened>,
    shared: Arc<Shared>,
    /// The clocks at the last commit.
    stamp: Option<Stamp>,
    /// The newest acceptance of a stored message, in a file without a stamp.
    newest_ms: Option<u64>,
    purging: PurgeState,
    /// The rows asked for by a purge that met an I/O error. The next proof says whether the rows or the disk are
    /// at fault.
    purge_in_question: Option<usize>,
    /// Rows of recalled messages whose pages gave an I/O error: the recalls are stored without a mark there.
    unmarkable: BTreeSet<Vec<u8>>,
    holdings: StoreHoldings,
    bytes_max: u64,
    trouble: String,
    /// The part at fault in the last failed call.
    fault: FaultOf,
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb")
            .field("holdings", &self.holdings)
            .field("trouble", &self.trouble)
            .finish_non_exhaustive()
    }
}

impl Drop for Redb {
    fn drop(&mut self) {
        self.close();
    }
}

/// The open file.
struct Opened {
    database: Arc<Database>,
    /// Bytes of all rows and their keys.
    bytes: u64,
    bytes_max: u64,
    stamp: Option<Stamp>,
    /// Damaged rows and entries found since the file was opened.
    quarantined: u64,
    /// The commit under way. Kept here so that a panic does not drop it while it unwinds: redb then leaves the
    /// commit's pages allocated, and reads all pages of all rooms at the next opening.
    begun: Option<Arc<WriteTransaction>>,
}

impl Redb {
    /// Opens `store.redb` in `folder`, and makes both if missing. The time does not depend on the size of the
    /// file. Only a file without a stamp, or with a damaged count of its bytes, has all its rows read.
    ///
    /// # Errors
    /// [`OpenError`], with a remedy for the operator.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::at(StoreLocation::Folder(folder.to_owned()), STORE_BYTES_MAX)
    }

    /// Opens a store of at most `bytes_max` bytes on a backend of the caller. Each reopening calls `open`
    /// again.
    ///
    /// # Errors
    /// [`OpenError`], with a remedy for the operator.
    pub fn over(open: OpenBackend, bytes_max: u64) -> Result<Self, OpenError> {
        Self::at(StoreLocation::Backend(open), bytes_max)
    }

    fn at(place: StoreLocation, bytes_max: u64) -> Result<Self, OpenError> {
        let mut store = Self {
            place,
            opened: None,
            shared: Arc::default(),
            stamp: None,
            newest_ms: None,
            purging: PurgeState::default(),
            purge_in_question: None,
            unmarkable: BTreeSet::new(),
            holdings: StoreHoldings::default(),
            bytes_max,
            trouble: String::new(),
            fault: FaultOf::Disk,
        };
        store.open_file(Missing::Make)?;
        Ok(store)
    }

    fn open_file(&mut self, missing: Missing) -> Result<(), OpenError> {
        let path = self.place.path();
        let place = &mut self.place;
        // redb panics at some damage of its own pages, also while it opens a file.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = place.open(missing)?;
            let header = header_of(&database).map_err(|error| open::failed(&path, error))?;
            let newest_ms = header.clock.is_none().then(|| newest_of(&database)).flatten();
            Ok((database, header, newest_ms))
        }));
        let (database, header, newest_ms) = opened.unwrap_or_else(|_| Err(OpenError::Damaged(path)))?;
        let database = Arc::new(database);
        self.holdings.bytes = header.bytes;
        self.stamp = header.clock;
        self.newest_ms = newest_ms;
        // Before the readers have the handle: an error of theirs from then on must not be forgotten.
        self.shared.has_failed.store(false, Ordering::Release);
        self.shared.is_closing.store(false, Ordering::Release);
        *self.shared.database.write() = Some(Arc::clone(&database));
        self.opened = Some(Opened {
            database,
            bytes: header.bytes,
            bytes_max: self.bytes_max,
            stamp: header.clock,
            quarantined: 0,
            begun: None,
        });
        Ok(())
    }

    /// Closes the file. The reads under way end at their next row, so a large room keeps nobody waiting. redb
    /// writes at the close, and may panic at damage there as well.
    fn close(&mut self) {
        self.shared.is_closing.store(true, Ordering::Release);
        let shared = self.shared.database.write().take();
        let opened = self.opened.take();
        catch_unwind(AssertUnwindSafe(|| drop((shared, opened)))).ok();
    }

    /// Writes to the open file. After an error or a panic the file is closed.
    fn ask<T>(&mut self, what: &str, ask: impl FnOnce(&mut Opened) -> Result<T>) -> Result<T, StoreError> {
        let Some(opened) = &mut self.opened else {
            self.fault = FaultOf::EarlierCall;
            return Err(StoreError::Failing);
        };
        let before = opened.quarantined;
        let outcome = catch_unwind(AssertUnwindSafe(|| ask(opened)));
        // The panic has ended: a commit that is left is undone.
        let left = opened.begun.take();
        catch_unwind(AssertUnwindSafe(|| drop(left))).ok();
        self.holdings.quarantined += opened.quarantined - before;
        self.trouble = match outcome {
            Ok(Ok(answer)) => {
                self.holdings.bytes = opened.bytes;
                self.stamp = opened.stamp;
                return Ok(answer);
            }
            Ok(Err(error)) => {
                self.fault = fault_of(&error);
                format!("{what} failed: {error}")
            }
            // redb trusts the structure of its pages, and panics at a turned bit in it.
            Err(_) => {
                self.fault = FaultOf::Pages;
                format!("{what} failed: the file is damaged, or there is a bug; the panic was printed")
            }
        };
        self.close();
        Err(StoreError::Failing)
    }

    /// Reads the open file. An error keeps the file open, unless the disk failed.
    fn read<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&OpenRead<'_>) -> Result<Read<T>>,
    ) -> Result<Read<T>, StoreError> {
        self.shared.read(what, read).map_err(|error| {
            self.fault = FaultOf::EarlierCall;
            if let ReadError::Failed(why) = error {
                self.trouble = why;
                let has_failed = self.shared.has_failed.load(Ordering::Acquire);
                self.fault = if has_failed { FaultOf::Disk } else { FaultOf::Pages };
            }
            StoreError::Failing
        })
    }

    /// Reads, and repairs the damage on the way. `again` reads once more after the entry was rebuilt.
    fn read_and_repair<T>(
        &mut self,
        what: &str,
        room: &RoomName,
        read: impl Fn(&OpenRead<'_>) -> Result<Read<T>>,
    ) -> Result<T, StoreError> {
        let mut found = self.read(what, &read)?;
        if matches!(found, Read::WithoutEntry) {
            self.ask(what, |opened| opened.rebuild(room))?;
            found = self.read(what, &read)?;
        }
        match found {
            Read::Whole(read) => Ok(read),
            Read::WithoutRows(read, damaged) => {
                self.ask(what, |opened| opened.put_aside(room, &damaged))?;
                Ok(read)
            }
            Read::WithoutEntry => {
                self.fault = FaultOf::Pages;
                self.trouble = format!("{what} failed: its entry can't be rebuilt");
                Err(StoreError::Failing)
            }
        }
    }
}

impl Store for Redb {
    fn load(
        &mut self,
        room: &RoomName,
        whole_after: u64,
        now: StoreNow,
    ) -> Result<Option<Stored>, StoreError> {
        self.read_and_repair(LOADING, room, |read| read::load(read, room, whole_after, now))
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        self.read_and_repair(PAGING, room, |read| read::page(read, room, after, bytes_max))
    }

    fn append(
        &mut self,
        appends: &[Append],
        now: StoreNow,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut unmarkable = std::mem::take(&mut self.unmarkable);
        let outcomes = self.ask("storing messages", |opened| opened.append(appends, now, &mut unmarkable));
        self.unmarkable = unmarkable;
        outcomes
    }

    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError> {
        self.ask("forgetting a room", |opened| opened.forget(room))
    }

    fn purge(&mut self, now: StoreNow, rows_max: usize) -> Result<Purged, StoreError> {
        let mut state = std::mem::take(&mut self.purging);
        let purged = self.ask("removing expired messages", |opened| opened.purge(now, rows_max, &mut state));
        // An earlier call says nothing about the rows of this one, and neither does a full disk.
        if purged.is_ok() || self.fault == FaultOf::Pages {
            state.pace = state.pace.after(rows_max, purged.is_ok());
        }
        self.purge_in_question = (purged.is_err() && self.fault == FaultOf::Disk).then_some(rows_max);
        self.purging = state;
        purged
    }

    fn prove(&mut self, now: StoreNow, bytes: usize) -> Result<(), StoreError> {
        let in_question = self.purge_in_question.take();
        self.ask("writing a proof", |opened| opened.prove(now, bytes))?;
        if let Some(rows_max) = in_question {
            self.purging.pace = self.purging.pace.after(rows_max, false);
        }
        Ok(())
    }

    fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    fn newest_ms(&self) -> Option<u64> {
        self.newest_ms
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(Arc::new(RedbReader(Arc::clone(&self.shared))))
    }

    fn is_open(&self) -> bool {
        self.opened.is_some() && !self.shared.has_failed.load(Ordering::Acquire)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        // The file is locked by an open handle, so the old one goes first.
        self.close();
        self.place.forget_cached();
        self.open_file(Missing::Refuse).map_err(|error| {
            self.trouble = error.to_string();
            self.fault = FaultOf::Disk;
            StoreError::Failing
        })
    }

    fn holdings(&self) -> StoreHoldings {
        self.holdings
    }

    fn fault(&self) -> FaultOf {
        self.fault
    }

    fn trouble(&self) -> &str {
        &self.trouble
    }
}

fn fault_of(error: &::redb::Error) -> FaultOf {
    match error {
        ::redb::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => FaultOf::FullDisk,
            _ => FaultOf::Disk,
        },
        // After an error, or a panic with a lock held, redb refuses all further calls of the handle.
        ::redb::Error::PreviousIo | ::redb::Error::DatabaseClosed | ::redb::Error::LockPoisoned(_) => {
            FaultOf::EarlierCall
        }
        _ => FaultOf::Pages,
    }
}

/// The value of a room in the table `rooms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RoomEntry {
    epoch: Epoch,
    head: u64,
    /// Unix ms at which the room is forgotten. 0 for a room with rows.
    forget_ms: u64,
}

impl RoomEntry {
    fn encode(self, room: &[u8]) -> Vec<u8> {
        row::sealed(room, [self.epoch.0, self.head, self.forget_ms].map(u64::to_le_bytes).as_flattened())
    }

    /// Reads an entry. `None` for a damaged entry.
    fn decode(room: &[u8], entry: &[u8]) -> Option<Self> {
        let mut rest = row::unsealed(room, entry).filter(|rest| rest.len() == 24)?;
        let epoch = Epoch(row::take_u64(&mut rest)?);
        Some(Self { epoch, head: row::take_u64(&mut rest)?, forget_ms: row::take_u64(&mut rest)? })
    }
}

/// The result of looking for a room's entry.
enum Found {
    Intact(RoomEntry),
    Damaged,
    Nothing,
}

fn find(rooms: &impl ReadableTable<Bytes, Bytes>, room: &[u8]) -> Result<Found> {
    let Some(entry) = rooms.get(room)? else { return Ok(Found::Nothing) };
    Ok(RoomEntry::decode(room, entry.value()).map_or(Found::Damaged, Found::Intact))
}

/// True if the room has rows.
fn has_rows(messages: &impl ReadableTable<Bytes, Bytes>, room: &[u8]) -> Result<bool> {
    let first = row::key_of(room, 0);
    let last = row::key_of(room, u64::MAX);
    Ok(messages.range(first.as_slice()..=last.as_slice())?.next().transpose()?.is_some())
}

fn expiry_key(at_ms: u64, offset: u64, room: &[u8]) -> Vec<u8> {
    [&at_ms.to_be_bytes(), &offset.to_be_bytes(), room].concat()
}

/// Begins a commit in two phases, with the allocator's state.
fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

fn seal_bytes(bytes: u64) -> Vec<u8> {
    row::sealed(HEADER_BYTES.as_bytes(), &bytes.to_le_bytes())
}

fn open_bytes(value: &[u8]) -> Option<u64> {
    let bytes = u64::from_le_bytes(*value.last_chunk()?);
    (value == seal_bytes(bytes)).then_some(bytes)
}

/// The content of the header.
#[derive(Debug, Clone, Copy)]
struct Header {
    /// Bytes of all rows and their keys.
    bytes: u64,
    /// `None` before the first commit of form 2, or if damaged: the wall clock then counts.
    clock: Option<Stamp>,
}

fn seal_clock(stamp: Stamp) -> Vec<u8> {
    let numbers = [stamp.store_ms, stamp.wall_ms].map(u64::to_le_bytes);
    row::sealed(HEADER_CLOCK.as_bytes(), numbers.as_flattened())
}

fn open_clock(value: &[u8]) -> Option<Stamp> {
    let mut rest = row::unsealed(HEADER_CLOCK.as_bytes(), value)?;
    Some(Stamp { store_ms: row::take_u64(&mut rest)?, wall_ms: row::take_u64(&mut rest)? })
}

/// The header. A damaged number of bytes is counted again.
fn header_of(database: &Database) -> Result<Header> {
    let read = database.begin_read()?;
    let header = read.open_table(HEADER)?;
    let clock = header.get(HEADER_CLOCK)?.and_then(|value| open_clock(value.value()));
    if let Some(bytes) = header.get(HEADER_BYTES)?.and_then(|value| open_bytes(value.value())) {
        return Ok(Header { bytes, clock });
    }
    // An unlimited store would fill the disk, and a store taken for full would refuse everything.
    tracing::warn!("the store's count of its bytes is damaged: all rows are counted again");
    let mut bytes = 0;
    for table in [MESSAGES, PAYLOADS] {
        for row in read.open_table(table)?.iter()? {
            let (key, value) = row?;
            bytes += (key.value().len() + value.value().len()) as u64;
        }
    }
    Ok(Header { bytes, clock })
}

/// The newest acceptance of a stored message. Reads all rows, which a file without a stamp needs once. A damaged
/// page ends the search: an older time is better than no store.
fn newest_of(database: &Database) -> Option<u64> {
    let mut newest = None;
    let search = || -> Result<()> {
        for row in database.begin_read()?.open_table(MESSAGES)?.iter()? {
            let (key, value) = row?;
            newest = newest.max(row::accepted_ms(key.value(), value.value()));
        }
        Ok(())
    };
    catch_unwind(AssertUnwindSafe(search)).map(Result::ok).ok();
    newest
}

impl Opened {
    /// Begins a commit. [`Opened::commit`] or [`Opened::ended`] has to follow, unless an error ends the call.
    fn begin(&mut self) -> Result<Arc<WriteTransaction>> {
        let write = Arc::new(begin(&self.database)?);
        self.begun = Some(Arc::clone(&write));
        Ok(write)
    }

    /// The commit itself, at its end.
    fn ended(&mut self, write: Arc<WriteTransaction>) -> Result<WriteTransaction> {
        self.begun = None;
        // No table is open any more, and nobody else has the commit.
        Arc::into_inner(write).ok_or(::redb::Error::TransactionPoisoned)
    }

    fn prove(&mut self, now: StoreNow, bytes: usize) -> Result<()> {
        if bytes > 0 {
            let write = self.begin()?;
            write.open_table(PROOF)?.insert((), vec![7; bytes].as_slice())?;
            self.ended(write)?.commit()?;
        }
        let write = self.begin()?;
        write.open_table(PROOF)?.remove(())?;
        self.commit(write, self.bytes, Some(now))
    }

    /// Ends a commit after which all rows and keys have `bytes` bytes. Notes the clocks, if known.
    fn commit(&mut self, write: Arc<WriteTransaction>, bytes: u64, now: Option<StoreNow>) -> Result<()> {
        let stamp = now.map(|now| now.noted);
        {
            let mut header = write.open_table(HEADER)?;
            header.insert(HEADER_BYTES, seal_bytes(bytes).as_slice())?;
            if let Some(stamp) = stamp {
                header.insert(HEADER_CLOCK, seal_clock(stamp).as_slice())?;
            }
        }
        self.ended(write)?.commit()?;
        self.bytes = bytes;
        self.stamp = stamp.or(self.stamp);
        Ok(())
    }
}
