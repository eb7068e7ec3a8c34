//! What happened in rooms, in numbers. Plain integers: the shard adds them up for the metrics.

use std::time::Duration;

use super::message::{Class, ShedReason, Unavailable};

/// A count for each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByClass(pub [u64; Class::ALL.len()]);

impl ByClass {
    /// Counts `count` more of a class.
    pub fn add(&mut self, class: Class, count: u64) {
        self.0[class as usize] += count;
    }
}

/// Counts of the rooms of one shard.
#[derive(Debug, Clone, Default)]
pub struct RoomTally {
    /// Messages that reached a room, whatever became of them.
    pub published: ByClass,
    /// Messages taken in.
    pub accepted: ByClass,
    /// Messages replaced by a later one of their key while they waited.
    pub merged: ByClass,
    /// Messages whose id was known.
    pub duplicates: u64,
    /// Ids forgotten before their time because their room knew too many.
    pub ids_evicted: u64,
    /// Messages dropped on purpose, by reason and class.
    pub shed: [ByClass; ShedReason::ALL.len()],
    /// Messages past what a room takes of their type, refused or only counted.
    pub over_type_rate: u64,
    /// Messages past what a room takes, refused or only counted.
    pub over_room_rate: u64,
    /// Reliable messages that were not, or perhaps not, stored, by reason.
    pub unavailable: [u64; Unavailable::ALL.len()],
    /// Times a room's stream was lost sight of because the store failed it.
    pub store_failures: u64,
    /// Joins whose cursor was not honoured.
    pub resets: u64,
    /// Batches cut.
    pub batches: u64,
    /// The last gather window in force when a batch was cut.
    pub window: Option<Duration>,
}
