//! A room's reliable stream as its store gives it back.

use std::sync::Arc;

use super::id::Epoch;
use super::message::Message;

/// A room's stream as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In order of offset. A message that was found damaged is not among them.
    pub messages: Vec<Arc<Message>>,
    /// All that is stored in (after, through] is in `messages`.
    pub through: u64,
}

/// What a request to the store that failed had asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// What is stored of a room.
    Load,
    /// That messages be stored. Every later append of that life fails as well.
    Append,
    /// Messages behind this offset.
    Page {
        /// As asked.
        after: u64,
    },
}
