//! Where reliable messages are kept until they expire: the promises a store makes, and what shards ask of it.
//!
//! A shard never waits for the store. It hands over a [`Request`] and goes on; the [`Answer`] comes back later, in the
//! order of the requests. One thread (`writer`) owns the [`Store`] and takes everything that waits into one commit.
//! A message may be broadcast, and its publisher answered, only after [`Answer::Durable`].

use std::sync::Arc;

use crate::room::id::{Epoch, RoomName};
use crate::room::message::Message;
pub use crate::room::stored::{Asked, Page, Stored};

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
