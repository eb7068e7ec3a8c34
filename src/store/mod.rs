//! The store: reliable messages until their expiry. This file has the promises of a store, and the requests
//! of shards.
//!
//! A shard never waits for the store. The shard sends a [`StoreRequest`] and goes on. The [`StoreAnswer`]
//! comes back later: appends in their order, and a load after the earlier appends of its room. One thread
//! ([`writer`]) owns the [`Store`] and takes all waiting messages into one commit. A message may be broadcast,
//! and the publisher answered, only after [`StoreAnswer::Durable`].
//!
//! Loads and pages are read by threads of their own ([`reads`]), so a large room delays no commit. A failed
//! read answers that request alone, and a commit that meets a room's damaged page is done again without that
//! room. A room with repeated failures is put [`aside`], and the others go on.
//!
//! A row stays while the message is alive, and at least while the message's `id` counts (5 minutes). A room
//! without rows keeps epoch and head for `TTL_MAX` (7 days) more: within this time a device with an old
//! cursor gets a true answer. Then the room is forgotten, and the next stream begins a new epoch.
//!
//! - [`redb`]: the file. [`memory`]: the same promises without a file. `row`: a message as bytes.
//! - [`writer`]: the thread. [`port`]: a shard's way to the thread. [`handle`]: the running store. [`health`]: the
//!   store's numbers and troubles. [`time`]: the clock by which messages expire.
//! - [`jetstream`]: the log of a cluster, with a thread of its own in place of the writer.

pub mod aside;
mod desk;
pub mod handle;
pub mod health;
pub mod jetstream;
pub mod memory;
pub mod port;
pub mod reads;
pub mod redb;
pub(crate) mod row;
pub mod time;
pub mod writer;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;

use aside::RoomCall;
use time::{Stamp, StoreNow};

pub use roomcast_core::room::stored::{Asked, Page, Record, Stored};

/// A place for reliable messages. Every call waits for the disk, so only the writer's thread and tests make
/// calls.
///
/// The error of a call is always [`StoreError::Failing`]. After a failed write each call fails until
/// [`Store::reopen`] has succeeded. Then a load tells if the failed append is stored. After a failed read
/// [`Store::is_open`] tells if the store goes on.
pub trait Store: Send + Debug {
    /// The stored stream of a room: a record of each message, and the messages of the tail and behind
    /// `whole_after`. `None` for a room without a stream, or with a forgotten stream. Damaged rows are put
    /// aside, counted and left out. If the room's own entry is damaged, the stream goes on under a new epoch.
    ///
    /// # Errors
    /// The read failed.
    fn load(
        &mut self,
        room: &RoomName,
        whole_after: u64,
        now: StoreNow,
    ) -> Result<Option<Stored>, StoreError>;

    /// The messages behind the offset `after`, up to `bytes_max` bytes of `wire_bytes`. The first message is
    /// always part of the page, at any size.
    ///
    /// # Errors
    /// The read failed.
    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError>;

    /// Stores all appends in one commit, and returns after the sync. One outcome per append, in order.
    /// [`StoreError::Moved`] and [`StoreError::Full`] concern an append, and each later append of the same
    /// room and life. The commit also marks each recalled message, so that no damage to a recall revives it.
    ///
    /// # Errors
    /// The commit failed. Each append is stored or not; nobody knows before a load.
    fn append(
        &mut self,
        appends: &[Append],
        now: StoreNow,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError>;

    /// Removes everything of a room in one commit, and returns after the sync. True if anything was stored.
    ///
    /// # Errors
    /// The commit failed. The stream is stored or not; nobody knows before a load.
    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError>;

    /// Removes up to `rows_max` expired rows, and forgets rooms that were empty for `TTL_MAX`, in one commit.
    /// After a failure the next purge tries fewer rows, and at last passes over a row that fails alone.
    ///
    /// # Errors
    /// The commit failed.
    fn purge(&mut self, now: StoreNow, rows_max: usize) -> Result<Purged, StoreError>;

    /// Writes the clocks and `bytes` more in a commit, and removes the bytes. So the store takes as much
    /// afterwards.
    ///
    /// # Errors
    /// The commit failed.
    fn prove(&mut self, now: StoreNow, bytes: usize) -> Result<(), StoreError>;

    /// The clocks at the last commit; `None` before the first.
    fn stamp(&self) -> Option<Stamp>;

    /// The newest acceptance of a stored message, in store time. Only known to a store without a stamp.
    fn newest_ms(&self) -> Option<u64> {
        None
    }

    /// Reads for other threads; `None` if reads are so fast that the writer makes them.
    fn reader(&self) -> Option<Arc<dyn Reader>> {
        None
    }

    /// True if the store can be called. False after a failed write, and after a failed read of a disk that
    /// fails.
    fn is_open(&self) -> bool;

    /// Closes the store and opens it again. A failed sync is never retried on an open file.
    ///
    /// # Errors
    /// The store cannot be opened now.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// The bytes and the damage of the store, without a look at the disk.
    fn holdings(&self) -> StoreHoldings;

    /// The part at fault in the last failed call.
    fn fault(&self) -> FaultOf {
        FaultOf::Disk
    }

    /// The reason of the last failed call, for operators. Empty before the first failure.
    fn trouble(&self) -> &str;
}

/// The part at fault in a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOf {
    /// The disk, or a bug: every further call may fail.
    Disk,
    /// A disk without space: writes fail, whatever pages they touch.
    FullDisk,
    /// Damaged pages: the calls for other rooms may succeed.
    Pages,
    /// An earlier call: the store was closed, or its handle useless. The call itself may succeed after a
    /// reopening.
    EarlierCall,
}

/// The reads of a store, from any thread.
pub trait Reader: Send + Sync + Debug {
    /// As [`Store::load`], without repairs.
    ///
    /// # Errors
    /// [`ReadError`].
    fn load(&self, room: &RoomName, whole_after: u64, now: StoreNow) -> Result<Option<Stored>, ReadError>;

    /// As [`Store::page`], without repairs.
    ///
    /// # Errors
    /// [`ReadError`].
    fn page(&self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, ReadError>;
}

/// The reason for a read without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// A row or an entry is damaged: the read is for the writer, which may repair.
    Damaged,
    /// The read failed. The text is for operators.
    Failed(String),
    /// The store is closed and being opened again, or has to be: an earlier call made the handle useless. The
    /// read may succeed afterwards.
    Closed,
}

/// The counts of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Expiries read by the purge. If the number equals `rows_max`, more may be due.
    pub looked_at: usize,
    /// Rows removed.
    pub rows: usize,
    /// Rooms forgotten.
    pub rooms: usize,
}

/// The size of a store, and the damage found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreHoldings {
    /// Bytes of all rows and their keys.
    pub bytes: u64,
    /// Damaged rows and entries found since the process started.
    pub quarantined: u64,
}

/// A request of a shard. Each has a `life`, the number of the room's load. The answer has the same `life`,
/// and a room ignores the answers of its earlier lives.
#[derive(Debug, Clone)]
pub enum StoreRequest {
    /// Reads the stored stream of a room. Answered by [`StoreAnswer::Loaded`].
    Load {
        /// The room to load.
        room: RoomName,
        /// The number of the room's load.
        life: u64,
        /// Messages behind this offset come whole. Of older messages the tail comes whole.
        whole_after: u64,
    },
    /// Stores messages at the end of their room's stream. Answered by [`StoreAnswer::Durable`].
    Append(Append),
    /// Reads stored messages. Answered by [`StoreAnswer::Paged`].
    Page {
        /// The room of the messages.
        room: RoomName,
        /// The number of the room's load.
        life: u64,
        /// The offset before the first message of the page.
        after: u64,
        /// Bytes (`wire_bytes`) of the page, at most. The first message is always part of the page.
        bytes_max: usize,
    },
    /// Removes the stored stream of a room. Answered by [`StoreAnswer::Forgotten`].
    Forget {
        /// The room of the stream.
        room: RoomName,
        /// The number of the room's load.
        life: u64,
    },
}

impl StoreRequest {
    /// The room of the request.
    pub(crate) fn room(&self) -> &RoomName {
        match self {
            Self::Load { room, .. }
            | Self::Append(Append { room, .. })
            | Self::Page { room, .. }
            | Self::Forget { room, .. } => room,
        }
    }

    /// The sort of call that the request needs.
    fn call(&self) -> RoomCall {
        match self {
            Self::Load { .. } => RoomCall::Load,
            Self::Page { .. } => RoomCall::Page,
            Self::Append(_) | Self::Forget { .. } => RoomCall::Write,
        }
    }

    /// The answer to the request after `error`.
    pub(crate) fn failed(self, error: StoreError) -> StoreAnswer {
        let (room, life, asked) = match self {
            Self::Load { room, life, .. } => (room, life, Asked::Load),
            Self::Append(Append { room, life, .. }) => (room, life, Asked::Append),
            Self::Page { room, life, after, .. } => (room, life, Asked::Page { after }),
            Self::Forget { room, life } => (room, life, Asked::Forget),
        };
        StoreAnswer::Failed { room, life, asked, error }
    }
}

/// Messages of a room, to be stored all or none.
#[derive(Debug, Clone)]
pub struct Append {
    /// The room of the messages.
    pub room: RoomName,
    /// The number of the room's load.
    pub life: u64,
    /// The epoch of the room's stream. The first append of a room begins the epoch.
    pub epoch: Epoch,
    /// The last offset reported durable to the room. If the store has forgotten the room since, an append of
    /// the next offset recreates the room's entry.
    pub durable: u64,
    /// The moment at which the room accepted the messages.
    pub accepted: Instant,
    /// At least one message. The offsets are consecutive, and the first follows the stored head.
    pub messages: Vec<Arc<Message>>,
}

impl Append {
    /// True if the offsets continue a stream with this head.
    fn follows(&self, head: u64) -> bool {
        (head + 1..).zip(&self.messages).all(|(offset, message)| message.offset == offset)
    }

    /// Bytes of the messages in memory.
    fn wire_bytes(&self) -> usize {
        self.messages.iter().map(|message| message.wire_bytes).sum()
    }

    /// Bytes of the rows and their keys.
    fn stored_bytes(&self) -> u64 {
        self.messages.iter().map(|message| row::stored_bytes(&self.room, message)).sum()
    }
}

/// Has `store` take appends one by one. The result is one outcome per append, in order.
fn in_order<'a, E>(
    appends: &'a [Append],
    mut store: impl FnMut(&'a Append) -> Result<Result<(), StoreError>, E>,
) -> Result<Vec<Result<(), StoreError>>, E> {
    let mut refused = BTreeSet::new();
    let outcomes = appends.iter().map(|append| {
        // The shard had sent the later appends of a life before it could know: stored, they would leave a
        // hole.
        let is_late = refused.contains(&(&append.room, append.life));
        let outcome = if is_late { Err(StoreError::Moved) } else { store(append)? };
        if outcome.is_err() {
            refused.insert((&append.room, append.life));
        }
        Ok(outcome)
    });
    outcomes.collect()
}

/// The answer to a [`StoreRequest`].
#[derive(Debug, Clone)]
pub enum StoreAnswer {
    /// The answer to [`StoreRequest::Load`].
    Loaded {
        /// The room of the request.
        room: RoomName,
        /// The life of the request.
        life: u64,
        /// The stored stream. `None`: the room never had a reliable message, or the stream is forgotten.
        stream: Option<Stored>,
    },
    /// The answer to [`StoreRequest::Append`], after the sync. Messages up to `through` may be broadcast.
    Durable {
        /// The room of the request.
        room: RoomName,
        /// The life of the request.
        life: u64,
        /// The last offset of the append.
        through: u64,
    },
    /// The answer to [`StoreRequest::Page`].
    Paged {
        /// The room of the request.
        room: RoomName,
        /// The life of the request.
        life: u64,
        /// The offset of the request.
        after: u64,
        /// The messages, and the last offset of the page.
        page: Page,
    },
    /// The answer to [`StoreRequest::Forget`], after the sync.
    Forgotten {
        /// The room of the request.
        room: RoomName,
        /// The life of the request.
        life: u64,
        /// True: something was stored.
        existed: bool,
    },
    /// The answer to a failed request. After [`StoreError::Failing`] an append may be stored all the same.
    Failed {
        /// The room of the request.
        room: RoomName,
        /// The life of the request.
        life: u64,
        /// The sort of the request.
        asked: Asked,
        /// The reason.
        error: StoreError,
    },
}

/// The reason of a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store failed and is being opened again. An append may be stored or not.
    #[error("the store is failing and being opened again")]
    Failing,
    /// The store is at its limit of bytes. The append is not stored.
    #[error("the store is full")]
    Full,
    /// The append does not continue the stored stream. The append is not stored, and the room has to load
    /// again.
    #[error("the append does not continue the stored stream")]
    Moved,
    /// The shard is at its limit of requests under way. The append is not stored.
    #[error("too many requests wait for the store")]
    Busy,
}
