//! The store's file, `store.redb`: redb's tables, and what stands in them. Rows are spelt in [`super::row`].
//!
//! | table | key | value |
//! |---|---|---|
//! | `header` | `form` | the form of all this: 1, four bytes |
//! | | `bytes` | checksum ‖ bytes of all rows and their keys |
//! | `rooms` | room | checksum ‖ epoch ‖ head ‖ `forget_ms` (0: it has rows) |
//! | `messages` | room ‖ 0 ‖ offset | a row |
//! | `expiry` | ms ‖ offset ‖ room | none: then the row goes; offset 0: then the room is forgotten |
//! | `quarantine` | number | what was found damaged: length of its key (2) ‖ key ‖ value |
//!
//! Numbers are eight bytes, big endian in keys, little endian in values; a checksum is xxh3-64 over key and rest.
//!
//! Each commit is made in two phases and carries the allocator's state (redb's "quick repair"): opening after a crash reads
//! a few pages instead of the whole file, and a sync that failed leaves nothing that a later commit would build upon.
//! After any error the handle is dropped at once, and only [`Store::reopen`] gets another.

mod damage;
mod open;
mod purge;

use std::collections::{BTreeMap, BTreeSet};
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
use super::{Append, Holdings, Page, Purged, Store, StoreError, Stored};

use open::{Missing, Place};
pub use open::{OpenBackend, OpenError};

type Bytes = &'static [u8];

const HEADER: TableDefinition<'static, &str, Bytes> = TableDefinition::new("header");
const ROOMS: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("rooms");
const MESSAGES: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("messages");
const EXPIRY: TableDefinition<'static, Bytes, ()> = TableDefinition::new("expiry");
const QUARANTINE: TableDefinition<'static, u64, Bytes> = TableDefinition::new("quarantine");

const HEADER_FORM: &str = "form";
const HEADER_BYTES: &str = "bytes";
/// The form of the tables above. Another one in a file: refused.
pub const FORM: u32 = 1;

type Result<T> = std::result::Result<T, ::redb::Error>;

/// The store in a file. One process at a time; its writer's thread alone.
pub struct Redb {
    place: Place,
    /// `None`: it failed, and was dropped.
    opened: Option<Opened>,
    holdings: Holdings,
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

/// An open file.
struct Opened {
    database: Database,
    /// Bytes of rows and their keys.
    bytes: u64,
    bytes_max: u64,
    /// Found damaged since the file was opened.
    quarantined: u64,
}

impl Redb {
    /// Opens `store.redb` in `folder`; both are made if they are missing. Takes time that does not depend on how much is
    /// stored.
    ///
    /// # Errors
    /// [`OpenError`] says what to do.
    pub fn open(folder: &Path) -> std::result::Result<Self, OpenError> {
        Self::at(Place::Folder(folder.to_owned()), STORE_BYTES_MAX)
    }

    /// Opens a store of at most `bytes_max` bytes over what `open` gives, for each opening anew.
    ///
    /// # Errors
    /// [`OpenError`] says what to do.
    pub fn over(open: OpenBackend, bytes_max: u64) -> std::result::Result<Self, OpenError> {
        Self::at(Place::Backend(open), bytes_max)
    }

    fn at(place: Place, bytes_max: u64) -> std::result::Result<Self, OpenError> {
        let mut store =
            Self { place, opened: None, holdings: Holdings::default(), bytes_max, trouble: String::new() };
        store.open_file(Missing::Make)?;
        Ok(store)
    }

    fn open_file(&mut self, missing: Missing) -> std::result::Result<(), OpenError> {
        let (path, place) = (self.place.path(), &mut self.place);
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

    /// Asks the open file. After an error or a panic it is open no more.
    fn ask<T>(
        &mut self,
        what: &str,
        ask: impl FnOnce(&mut Opened) -> Result<T>,
    ) -> std::result::Result<T, StoreError> {
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
            // redb trusts the structure of its pages: where a bit has turned there, it panics.
            Err(_) => format!("{what} failed: its file is damaged, or there is a bug; the panic was printed"),
        };
        opened.let_go();
        Err(StoreError::Failing)
    }
}

impl Store for Redb {
    fn load(&mut self, room: &RoomName) -> std::result::Result<Option<Stored>, StoreError> {
        self.ask("loading a room", |opened| opened.load(room))
    }

    fn page(
        &mut self,
        room: &RoomName,
        after: u64,
        bytes_max: usize,
    ) -> std::result::Result<Page, StoreError> {
        self.ask("reading a room's messages", |opened| opened.page(room, after, bytes_max))
    }

    fn append(
        &mut self,
        appends: &[Append],
    ) -> std::result::Result<Vec<std::result::Result<(), StoreError>>, StoreError> {
        self.ask("storing messages", |opened| opened.append(appends))
    }

    fn purge(&mut self, now_ms: u64, rows_max: usize) -> std::result::Result<Purged, StoreError> {
        self.ask("removing expired messages", |opened| opened.purge(now_ms, rows_max))
    }

    fn reopen(&mut self) -> std::result::Result<(), StoreError> {
        self.opened = None;
        self.place.forget_cached();
        self.open_file(Missing::Refuse).map_err(|error| {
            self.trouble = error.to_string();
            StoreError::Failing
        })
    }

    fn holdings(&self) -> Holdings {
        self.holdings
    }

    fn trouble(&self) -> &str {
        &self.trouble
    }
}

/// What stands in `rooms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    epoch: Epoch,
    head: u64,
    /// When it is forgotten; 0: it has rows.
    forget_ms: u64,
}

impl Entry {
    fn encode(self, room: &[u8]) -> [u8; 32] {
        let mut entry = [0; 32];
        entry[8..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        entry[16..24].copy_from_slice(&self.head.to_le_bytes());
        entry[24..].copy_from_slice(&self.forget_ms.to_le_bytes());
        let sum = row::seal(room, &entry[8..]);
        entry[..8].copy_from_slice(&sum.to_le_bytes());
        entry
    }

    /// `None`: it is damaged.
    fn decode(room: &[u8], entry: &[u8]) -> Option<Self> {
        let (sum, mut rest) = entry.split_first_chunk()?;
        let intact = rest.len() == 24 && u64::from_le_bytes(*sum) == row::seal(room, rest);
        if !intact {
            return None;
        }
        let epoch = Epoch(row::take_u64(&mut rest)?);
        Some(Self { epoch, head: row::take_u64(&mut rest)?, forget_ms: row::take_u64(&mut rest)? })
    }
}

/// What was found where an entry should be.
enum Found {
    Intact(Entry),
    Damaged,
    Nothing,
}

fn find(rooms: &impl ReadableTable<Bytes, Bytes>, room: &[u8]) -> Result<Found> {
    let Some(entry) = rooms.get(room)? else { return Ok(Found::Nothing) };
    Ok(Entry::decode(room, entry.value()).map_or(Found::Damaged, Found::Intact))
}

/// Whether a room has rows.
fn has_rows(messages: &impl ReadableTable<Bytes, Bytes>, room: &[u8]) -> Result<bool> {
    let (first, last) = (row::key_of(room, 0), row::key_of(room, u64::MAX));
    Ok(messages.range(first.as_slice()..=last.as_slice())?.next().transpose()?.is_some())
}

fn expiry_key(at_ms: u64, offset: u64, room: &[u8]) -> Vec<u8> {
    [&at_ms.to_be_bytes(), &offset.to_be_bytes(), room].concat()
}

/// Begins a commit as all of them are made.
fn begin(database: &Database) -> Result<WriteTransaction> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

fn seal_bytes(bytes: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[8..].copy_from_slice(&bytes.to_le_bytes());
    let sum = row::seal(HEADER_BYTES.as_bytes(), &value[8..]);
    value[..8].copy_from_slice(&sum.to_le_bytes());
    value
}

fn open_bytes(value: &[u8]) -> Option<u64> {
    let bytes = u64::from_le_bytes(*value.last_chunk()?);
    (value == seal_bytes(bytes)).then_some(bytes)
}

/// How many bytes the file says it holds; counted anew if that is damaged.
fn bytes_of(database: &Database) -> Result<u64> {
    let read = database.begin_read()?;
    let header = read.open_table(HEADER)?;
    if let Some(bytes) = header.get(HEADER_BYTES)?.and_then(|value| open_bytes(value.value())) {
        return Ok(bytes);
    }
    tracing::warn!("the store's count of its bytes is damaged: counting them");
    let mut bytes = 0;
    for row in read.open_table(MESSAGES)?.iter()? {
        let (key, value) = row?;
        bytes += (key.value().len() + value.value().len()) as u64;
    }
    Ok(bytes)
}

/// A room's rows behind an offset, as read. `None` for a damaged one.
fn rows_behind(
    messages: &ReadOnlyTable<Bytes, Bytes>,
    room: &RoomName,
    after: u64,
    epoch: Epoch,
) -> Result<impl Iterator<Item = Result<(u64, Option<Message>)>>> {
    let (first, last) = (row::key(room, after.saturating_add(1)), row::key(room, u64::MAX));
    let rows = messages.range(first.as_slice()..=last.as_slice())?;
    Ok(rows.map(move |row| {
        let (key, value) = row?;
        let offset = row::offset_of(key.value()).unwrap_or_default();
        let read = row::decode(key.value(), value.value()).filter(|row| row.epoch == epoch);
        Ok((offset, read.map(|row| row.message)))
    }))
}

impl Opened {
    /// Closes the file. redb tidies up as it closes, and may panic over damage there as well.
    fn let_go(self) {
        catch_unwind(AssertUnwindSafe(|| drop(self))).ok();
    }

    /// A room's entry. One that is damaged, or missing though there are rows, is made anew first.
    fn entry(&mut self, room: &RoomName) -> Result<Option<Entry>> {
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

    /// Messages behind `after` within `bytes_max`; puts aside what is damaged.
    fn collect(&mut self, room: &RoomName, entry: Entry, after: u64, bytes_max: usize) -> Result<Page> {
        let mut page = Page { messages: Vec::new(), through: after.max(entry.head) };
        let (mut bytes, mut damaged) = (0, Vec::new());
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
        drop((messages, read));
        if !damaged.is_empty() {
            self.put_aside(room, &damaged)?;
        }
        Ok(page)
    }

    fn append(&mut self, appends: &[Append]) -> Result<Vec<std::result::Result<(), StoreError>>> {
        let write = begin(&self.database)?;
        let mut commit = Commit {
            rooms: write.open_table(ROOMS)?,
            messages: write.open_table(MESSAGES)?,
            expiry: write.open_table(EXPIRY)?,
            entries: BTreeMap::new(),
            bytes: self.bytes,
            bytes_max: self.bytes_max,
        };
        let mut outcomes = Vec::with_capacity(appends.len());
        let mut refused = BTreeSet::new();
        for append in appends {
            // A life that was refused once stays so, even if what comes next would fit.
            let outcome = if refused.contains(&(&append.room, append.life)) {
                Err(StoreError::Moved)
            } else {
                commit.append(append)?
            };
            if outcome.is_err() {
                refused.insert((&append.room, append.life));
            }
            outcomes.push(outcome);
        }
        let bytes = commit.finish()?;
        if outcomes.iter().all(std::result::Result::is_err) {
            write.abort()?;
            return Ok(outcomes);
        }
        write.open_table(HEADER)?.insert(HEADER_BYTES, seal_bytes(bytes).as_slice())?;
        write.commit()?;
        self.bytes = bytes;
        Ok(outcomes)
    }
}

/// The tables of one commit of messages.
struct Commit<'t, 'a> {
    rooms: Table<'t, Bytes, Bytes>,
    messages: Table<'t, Bytes, Bytes>,
    expiry: Table<'t, Bytes, ()>,
    /// Entries as they will be; written once at the end, however many appends a room has.
    entries: BTreeMap<&'a RoomName, Entry>,
    bytes: u64,
    bytes_max: u64,
}

impl<'a> Commit<'_, 'a> {
    fn append(&mut self, append: &'a Append) -> Result<std::result::Result<(), StoreError>> {
        let name = append.room.as_str().as_bytes();
        let entry = match self.entries.get(&append.room) {
            Some(entry) => Some(*entry),
            None => match find(&self.rooms, name)? {
                Found::Intact(entry) => Some(entry),
                Found::Nothing if !has_rows(&self.messages, name)? => None,
                // The room has to load: that makes the entry anew.
                Found::Damaged | Found::Nothing => return Ok(Err(StoreError::Moved)),
            },
        };
        let mut entry = entry.unwrap_or(Entry { epoch: append.epoch, head: 0, forget_ms: 0 });
        let follows =
            (entry.head + 1..).zip(&append.messages).all(|(offset, message)| message.offset == offset);
        if entry.epoch != append.epoch || !follows {
            return Ok(Err(StoreError::Moved));
        }
        let bytes: u64 = append.messages.iter().map(|message| row::stored_bytes(&append.room, message)).sum();
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

    /// Writes the entries, and says how many bytes the store then holds.
    fn finish(mut self) -> Result<u64> {
        for (room, entry) in &self.entries {
            let name = room.as_str().as_bytes();
            self.rooms.insert(name, entry.encode(name).as_slice())?;
        }
        Ok(self.bytes)
    }
}
