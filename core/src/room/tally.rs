//! Counts of the rooms' work. Plain integers: the shard adds them up for the metrics.

use std::time::Duration;

use super::message::{Class, ShedReason, Unavailable};

/// A count for each class, in the order of [`Class::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByClass(pub [u64; Class::ALL.len()]);

impl ByClass {
    /// Counts `count` more of a class.
    pub fn add(&mut self, class: Class, count: u64) {
        self.0[class as usize] += count;
    }
}

/// Counts of a shard's rooms since the shard's last report.
#[derive(Debug, Clone, Default)]
pub struct RoomTally {
    /// Messages offered to a room, refused messages included.
    pub published: ByClass,
    /// Messages taken in.
    pub accepted: ByClass,
    /// Messages merged with another message of the same key.
    pub merged: ByClass,
    /// Messages with an id known to the room.
    pub duplicates: u64,
    /// Ids forgotten before their time, because the room knew `IDS_MAX`.
    pub ids_evicted: u64,
    /// Messages dropped on purpose, by reason and class.
    pub shed: [ByClass; ShedReason::ALL.len()],
    /// Messages past their type's rate, refused or only counted.
    pub over_type_rate: u64,
    /// Messages past their room's rate, refused or only counted.
    pub over_room_rate: u64,
    /// Reliable messages not stored, or perhaps not stored, by reason.
    pub unavailable: [u64; Unavailable::ALL.len()],
    /// Failures of the store, each at the cost of a room's knowledge of the stream.
    pub store_failures: u64,
    /// Joins with a refused cursor (`reset`).
    pub resets: u64,
    /// Words of segments that were stale or wrong, and changed nothing: a departure of nobody, or a batch taken
    /// that was never sent.
    pub stale_words: u64,
    /// Batches cut.
    pub batches: u64,
    /// The gather window at the last cut.
    pub window: Option<Duration>,
}
