//! The store's file, `store.redb`: redb's tables and their content. `row` has the bytes of a row.
//!
//! | table | key | value |
//! |---|---|---|
//! | `header` | `form` | the form of the tables: 1, four bytes |
//! | | `bytes` | checksum ‖ bytes of all rows and their keys |
//! | `rooms` | room | checksum ‖ epoch ‖ head ‖ `forget_ms` (0: the room has rows) |
//! | `messages` | room ‖ 0 ‖ offset | a row |
//! | `expiry` | ms ‖ offset ‖ room | none. At `ms` the row goes; with offset 0 the room is forgotten |
//! | `quarantine` | number | a damaged row or entry: length of its key (2) ‖ key ‖ value |
//!
//! Numbers are eight bytes, big endian in keys, little endian in values. A checksum is xxh3-64 over the key
//! and the rest of the value.
//!
//! Each commit has two phases and carries the allocator's state (redb's "quick repair"). So opening after a
//! crash reads a few pages instead of the whole file, and no later commit builds upon the pages of a failed
//! sync. After any error the handle is dropped at once, and only [`Store::reopen`] makes another.

mod damage;
mod forget;
mod open;
mod purge;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use roomcast_core::limits::STORE_BYTES_MAX;
use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;

use super::row;
use super::{Append, Page, Purged, Store, StoreError, StoreHoldings, Stored, in_order};

use open::{Missing, StoreLocation};
pub use open::{OpenBackend, OpenError};

type Bytes = &'static [u8];

const HEADER: TableDefinition<'static, &str, Bytes> = TableDefinition::new("header");
const ROOMS: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("rooms");
const MESSAGES: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("messages");
const EXPIRY: TableDefinition<'static, Bytes, ()> = TableDefinition::new("expiry");
const QUARANTINE: TableDefinition<'static, u64, Bytes> = TableDefinition::new("quarantine");

const HEADER_FORM: &str = "form";
const HEADER_BYTES: &str = "bytes";
/// The form of the tables above. A file with another form is refused.
pub(crate) const FORM: u32 = 1;

type Result<T, E = ::redb::Error> = std::result::Result<T, E>;

/// The store in a file. A single process may have the file open, and only the writer's thread makes calls.
pub struct Redb {
    place: StoreLocation,
    /// `None` after a failure, until a reopening.
    opened: Option<Opened>,
    holdings: StoreHoldings,
    bytes_max: u64,
    trouble: String,
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
        if let Some(opened) = self.opened.take() {
            opened.let_go();
        }
    }
}

/// The open file.
struct Opened {
    database: Database,
    /// Bytes of all rows and their keys.
    bytes: u64,
    bytes_max: u64,
    /// Damaged rows and entries found since the file was opened.
    quarantined: u64,
}

impl Redb {
    /// Opens `store.redb` in `folder`, and makes both if missing. The time does not depend on the size of the
    /// file.
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
            holdings: StoreHoldings::default(),
            bytes_max,
            trouble: String::new(),
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
            let bytes = bytes_of(&database).map_err(|error| open::failed(&path, error))?;
            Ok((database, bytes))
        }));
        let (database, bytes) = opened.unwrap_or_else(|_| Err(OpenError::Damaged(path)))?;
        self.holdings.bytes = bytes;
        self.opened = Some(Opened { database, bytes, bytes_max: self.bytes_max, quarantined: 0 });
        Ok(())
    }

    /// Calls the open file. After an error or a panic the file is closed.
    fn ask<T>(&mut self, what: &str, ask: impl FnOnce(&mut Opened) -> Result<T>) -> Result<T, StoreError> {
        let mut opened = self.opened.take().ok_or(StoreError::Failing)?;
        let before = opened.quarantined;
        let outcome = catch_unwind(AssertUnwindSafe(|| ask(&mut opened)));
        self.holdings.quarantined += opened.quarantined - before;
        self.trouble = match outcome {
            Ok(Ok(answer)) => {
                self.holdings.bytes = opened.bytes;
                self.opened = Some(opened);
                return Ok(answer);
            }
            Ok(Err(error)) => format!("{what} failed: {error}"),
            // redb trusts the structure of its pages, and panics at a turned bit in it.
            Err(_) => format!("{what} failed: the file is damaged, or there is a bug; the panic was printed"),
        };
        opened.let_go();
        Err(StoreError::Failing)
    }
}

impl Store for Redb {
    fn load(&mut self, room: &RoomName) -> Result<Option<Stored>, StoreError> {
        self.ask("loading a room", |opened| opened.load(room))
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        self.ask("reading a room's messages", |opened| opened.page(room, after, bytes_max))
    }

    fn append(&mut self, appends: &[Append]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.ask("storing messages", |opened| opened.append(appends))
    }

    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError> {
        self.ask("forgetting a room", |opened| opened.forget(room))
    }

    fn purge(&mut self, now_ms: u64, rows_max: usize) -> Result<Purged, StoreError> {
        self.ask("removing expired messages", |opened| opened.purge(now_ms, rows_max))
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        // The file is locked by an open handle, so the old one goes first.
        self.opened = None;
        self.place.forget_cached();
        self.open_file(Missing::Refuse).map_err(|error| {
            self.trouble = error.to_string();
            StoreError::Failing
        })
    }

    fn holdings(&self) -> StoreHoldings {
        self.holdings
    }

    fn trouble(&self) -> &str {
        &self.trouble
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

/// The bytes of all rows and keys, as the header says. A damaged number is counted again.
fn bytes_of(database: &Database) -> Result<u64> {
    let read = database.begin_read()?;
    let header = read.open_table(HEADER)?;
    if let Some(bytes) = header.get(HEADER_BYTES)?.and_then(|value| open_bytes(value.value())) {
        return Ok(bytes);
    }
    // An unlimited store would fill the disk, and a store taken for full would refuse everything.
    tracing::warn!("the store's count of its bytes is damaged: all rows are counted again");
    let mut bytes = 0;
    for row in read.open_table(MESSAGES)?.iter()? {
        let (key, value) = row?;
        bytes += (key.value().len() + value.value().len()) as u64;
    }
    Ok(bytes)
}

/// The rows of a room behind an offset. `None` for the message of a damaged row.
fn rows_behind(
    messages: &ReadOnlyTable<Bytes, Bytes>,
    room: &RoomName,
    after: u64,
    epoch: Epoch,
) -> Result<impl Iterator<Item = Result<(u64, Option<Message>)>>> {
    let first = row::key(room, after.saturating_add(1));
    let last = row::key(room, u64::MAX);
    let rows = messages.range(first.as_slice()..=last.as_slice())?;
    Ok(rows.map(move |row| {
        let (key, value) = row?;
        let offset = row::offset_of(key.value()).unwrap_or_default();
        // A row of another epoch is intact, and would give an offset of this epoch to another message.
        let read = row::decode(key.value(), value.value()).filter(|row| row.epoch == epoch);
        Ok((offset, read.map(|row| row.message)))
    }))
}

impl Opened {
    /// Closes the file. redb writes at the close, and may panic at damage there as well.
    fn let_go(self) {
        catch_unwind(AssertUnwindSafe(|| drop(self))).ok();
    }

    /// The entry of a room. A damaged entry, or a missing entry of a room with rows, is rebuilt first.
    fn entry(&mut self, room: &RoomName) -> Result<Option<RoomEntry>> {
        let name = room.as_str().as_bytes();
        let read = self.database.begin_read()?;
        match find(&read.open_table(ROOMS)?, name)? {
            Found::Intact(entry) => return Ok(Some(entry)),
            Found::Nothing if !has_rows(&read.open_table(MESSAGES)?, name)? => return Ok(None),
            Found::Damaged | Found::Nothing => {}
        }
        drop(read);
        self.rebuild(room)
    }

    fn load(&mut self, room: &RoomName) -> Result<Option<Stored>> {
        let Some(entry) = self.entry(room)? else { return Ok(None) };
        let page = self.collect(room, entry, 0, usize::MAX)?;
        Ok(Some(Stored { epoch: entry.epoch, head: entry.head, messages: page.messages }))
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page> {
        match self.entry(room)? {
            Some(entry) => self.collect(room, entry, after, bytes_max),
            None => Ok(Page { messages: Vec::new(), through: after }),
        }
    }

    /// The messages behind `after`, up to `bytes_max` bytes. Damaged rows are put aside.
    fn collect(&mut self, room: &RoomName, entry: RoomEntry, after: u64, bytes_max: usize) -> Result<Page> {
        let mut page = Page { messages: Vec::new(), through: after.max(entry.head) };
        let mut bytes = 0;
        let mut damaged = Vec::new();
        let read = self.database.begin_read()?;
        let messages = read.open_table(MESSAGES)?;
        let mut through = after;
        for row in rows_behind(&messages, room, after, entry.epoch)? {
            let (offset, message) = row?;
            let Some(message) = message else {
                damaged.push(offset);
                continue;
            };
            bytes += message.wire_bytes;
            if bytes > bytes_max && !page.messages.is_empty() {
                page.through = through;
                break;
            }
            through = offset;
            page.messages.push(Arc::new(message));
        }
        // A read that stays open would keep the pages that putting aside frees.
        drop((messages, read));
        if !damaged.is_empty() {
            self.put_aside(room, &damaged)?;
        }
        Ok(page)
    }

    fn append(&mut self, appends: &[Append]) -> Result<Vec<Result<(), StoreError>>> {
        let write = begin(&self.database)?;
        let mut commit = Commit {
            rooms: write.open_table(ROOMS)?,
            messages: write.open_table(MESSAGES)?,
            expiry: write.open_table(EXPIRY)?,
            entries: BTreeMap::new(),
            bytes: self.bytes,
            bytes_max: self.bytes_max,
        };
        let outcomes = in_order(appends, |append| commit.append(append))?;
        let bytes = commit.finish()?;
        // A commit costs a sync; one without content would cost it for nothing.
        if outcomes.iter().all(Result::is_err) {
            write.abort()?;
            return Ok(outcomes);
        }
        self.commit(write, bytes)?;
        Ok(outcomes)
    }

    /// Ends a commit after which all rows and keys have `bytes` bytes.
    fn commit(&mut self, write: WriteTransaction, bytes: u64) -> Result<()> {
        write.open_table(HEADER)?.insert(HEADER_BYTES, seal_bytes(bytes).as_slice())?;
        write.commit()?;
        self.bytes = bytes;
        Ok(())
    }
}

/// The tables of a commit of messages.
struct Commit<'t, 'a> {
    rooms: Table<'t, Bytes, Bytes>,
    messages: Table<'t, Bytes, Bytes>,
    expiry: Table<'t, Bytes, ()>,
    /// The new entries. Each is written once at the end, whatever the number of the room's appends.
    entries: BTreeMap<&'a RoomName, RoomEntry>,
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
        let mut entry = entry.unwrap_or(RoomEntry { epoch: append.epoch, head: 0, forget_ms: 0 });
        if entry.epoch != append.epoch || !append.follows(entry.head) {
            return Ok(Err(StoreError::Moved));
        }
        let bytes = append.stored_bytes();
        if self.bytes + bytes > self.bytes_max {
            return Ok(Err(StoreError::Full));
        }
        for message in &append.messages {
            let key = row::key(&append.room, message.offset);
            let value = row::encode(&key, append.epoch, message);
            self.messages.insert(key.as_slice(), value.as_slice())?;
            let expiry = expiry_key(row::delete_at_ms(message), message.offset, name);
            self.expiry.insert(expiry.as_slice(), ())?;
            entry.head = message.offset;
        }
        self.bytes += bytes;
        entry.forget_ms = 0;
        self.entries.insert(&append.room, entry);
        Ok(Ok(()))
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
