//! Where reliable messages are kept until they expire: the promises a store makes, and what shards ask of it.
//!
//! A shard never waits for the store. It hands over a [`Request`] and goes on; the [`Answer`] comes back later, in the
//! order of the requests. One thread (`writer`) owns the [`Store`] and takes everything that waits into one commit.
//! A message may be broadcast, and its publisher answered, only after [`Answer::Durable`].

use std::sync::Arc;

use crate::room::id::{Epoch, RoomName};
use crate::room::message::Message;

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

/// What a failed request had asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// [`Request::Load`].
    Load,
    /// [`Request::Append`]. Every later append of that life fails as well.
    Append,
    /// [`Request::Page`] behind this offset.
    Page {
        /// As asked.
        after: u64,
    },
}

/// A room's stream as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its life.
    pub epoch: Epoch,
    /// The last offset; 0: none yet.
    pub head: u64,
    /// The messages still stored, in order of offset: those alive, and those whose `id` still counts. A message that was
    /// found damaged is not among them.
    pub messages: Vec<Arc<Message>>,
}

/// A part of a room's stream.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In order of offset. A message that was found damaged is not among them.
    pub messages: Vec<Arc<Message>>,
    /// All that is stored in (after, through] is in `messages`.
    pub through: u64,
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
