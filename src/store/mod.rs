//! Where reliable messages are kept until they expire: the promises a store makes, and what shards ask of it.
//!
//! A shard never waits for the store. It hands over a [`Request`] and goes on; the [`Answer`] comes back later, in the
//! order of the requests. One thread ([`writer`]) owns the [`Store`] and takes everything that waits into one commit.
//! A message may be broadcast, and its publisher answered, only after [`Answer::Durable`].
//!
//! A row stays until its message is not alive any more and its `id` does not count any more
//! ([`row::delete_at_ms`]). A room whose last row has gone keeps its epoch and head for `TTL_MAX` more: until then a
//! device with an old cursor is told the truth about it. After that the room is forgotten, and its next stream is a new
//! epoch.
//!
//! - [`redb`]: the file. [`memory`]: the same promises without one. [`row`]: a message as bytes.
//! - [`writer`]: the thread; [`port`]: a shard's way to it; [`health`]: how it fares.

pub mod health;
pub mod memory;
pub mod port;
pub mod redb;
pub mod row;
pub mod writer;

use std::fmt::Debug;
use std::sync::Arc;

use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;
pub use roomcast_core::room::stored::{Asked, Page, Stored};

/// Keeps reliable messages. Every call waits for the disk; only the writer's thread, and tests, make them.
///
/// `Err` is [`StoreError::Failing`], always: from then on each call fails until [`Store::reopen`] has succeeded, and
/// whether an append that failed so is stored shows only then.
pub trait Store: Send + Debug {
    /// What is stored of a room; `None`: nothing, or it was forgotten. What is found damaged is put aside, counted and
    /// left out; where the room's own entry is damaged, the stream goes on under a new epoch.
    ///
    /// # Errors
    /// The store failed.
    fn load(&mut self, room: &RoomName) -> Result<Option<Stored>, StoreError>;

    /// The messages behind `after`, up to `bytes_max` of `wire_bytes`, but at least one if there is one.
    ///
    /// # Errors
    /// The store failed.
    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError>;

    /// Stores them all in one commit, and returns once it is synced. One outcome per append, in their order:
    /// [`StoreError::Moved`] and [`StoreError::Full`] leave the others untouched, but for later appends of the same room and
    /// life: those fail as well.
    ///
    /// # Errors
    /// The commit failed; what became of each is unknown.
    fn append(&mut self, appends: &[Append]) -> Result<Vec<Result<(), StoreError>>, StoreError>;

    /// Removes up to `rows_max` rows whose time has passed, and forgets rooms that were empty for long, in one commit.
    ///
    /// # Errors
    /// The store failed.
    fn purge(&mut self, now_ms: u64, rows_max: usize) -> Result<Purged, StoreError>;

    /// Lets go of what it has open, and opens it anew.
    ///
    /// # Errors
    /// It can't be opened now.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// What it holds.
    fn holdings(&self) -> Holdings;

    /// Why the last call failed, for operators.
    fn trouble(&self) -> &str;
}

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Expiries it went through. As many as it may: there may be more.
    pub looked_at: usize,
    /// Rows removed.
    pub rows: usize,
    /// Rooms forgotten.
    pub rooms: usize,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Bytes of rows and their keys.
    pub bytes: u64,
    /// Rows and entries found damaged since it was made.
    pub quarantined: u64,
}

/// What a shard asks of the store. `life` comes back with the answer: a room numbers its loads, and passes over answers to
/// what it asked in an earlier life.
#[derive(Debug, Clone)]
pub enum Request {
    /// What is stored of a room. Answered by [`Answer::Loaded`].
    Load {
        /// Which room.
        room: RoomName,
        /// Of the room's load.
        life: u64,
    },
    /// Store messages behind what is stored of their room. Answered by [`Answer::Durable`].
    Append(Append),
    /// Read messages back. Answered by [`Answer::Paged`].
    Page {
        /// Which room.
        room: RoomName,
        /// Of the room's load.
        life: u64,
        /// Messages behind this offset.
        after: u64,
        /// Stop before this many bytes (`wire_bytes`), but never before the first message.
        bytes_max: usize,
    },
}

impl Request {
    /// The answer that says that it was not done, or that nobody knows.
    #[must_use]
    pub fn failed(self, error: StoreError) -> Answer {
        let (room, life, asked) = match self {
            Self::Load { room, life } => (room, life, Asked::Load),
            Self::Append(append) => (append.room, append.life, Asked::Append),
            Self::Page { room, life, after, .. } => (room, life, Asked::Page { after }),
        };
        Answer::Failed { room, life, asked, error }
    }
}

/// Messages to be stored, all or none.
#[derive(Debug, Clone)]
pub struct Append {
    /// Which room.
    pub room: RoomName,
    /// Of the room's load.
    pub life: u64,
    /// Of the room's stream. The first append of a room begins it.
    pub epoch: Epoch,
    /// At least one; offsets that follow one another, the first right behind the stored head.
    pub messages: Vec<Arc<Message>>,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Request::Load`].
    Loaded {
        /// As asked.
        room: RoomName,
        /// As asked.
        life: u64,
        /// `None`: the room never had a reliable message, or its stream is long forgotten.
        stream: Option<Stored>,
    },
    /// To [`Request::Append`]: synced. Everything up to `through` may be broadcast.
    Durable {
        /// As asked.
        room: RoomName,
        /// As asked.
        life: u64,
        /// The last offset of the append.
        through: u64,
    },
    /// To [`Request::Page`].
    Paged {
        /// As asked.
        room: RoomName,
        /// As asked.
        life: u64,
        /// As asked.
        after: u64,
        /// What was found.
        page: Page,
    },
    /// To any of them: it was not done, or nobody knows whether it was done.
    Failed {
        /// As asked.
        room: RoomName,
        /// As asked.
        life: u64,
        /// What was asked.
        asked: Asked,
        /// Why.
        error: StoreError,
    },
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It failed, and is being opened anew. What became of an append is unknown.
    #[error("the store is failing and being opened anew")]
    Failing,
    /// It holds as many bytes as it may; nothing was stored.
    #[error("the store is full")]
    Full,
    /// The append does not continue the stored stream: the room has to load again. Nothing was stored.
    #[error("the append does not continue the stored stream")]
    Moved,
    /// More is asked of it than it may have waiting; nothing was stored.
    #[error("too much waits for the store")]
    Busy,
}
