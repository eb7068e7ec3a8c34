//! What a room shows of itself over HTTP. The field names are the contract (docs/protocol.md).

use std::collections::BTreeMap;

use serde::Serialize;

/// `GET /v1/rooms/{room}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomView {
    /// Its name.
    pub room: String,
    /// This life of it, 16 hexadecimal digits.
    pub run: String,
    /// Members on all shards.
    pub members: u64,
    /// Where they are.
    pub shards: Vec<SegmentView>,
    /// The shard that orders it.
    pub home: usize,
    /// What `PUT` said of its audience.
    pub expected_audience: Option<u64>,
    /// The present gather window, in milliseconds.
    pub window_ms: u64,
    /// Smoothed over about ten seconds.
    pub rates: RatesView,
    /// Exact totals of this run.
    pub counters: BTreeMap<String, u64>,
    /// The newest batch.
    pub head: HeadView,
    /// What waits.
    pub backlog: BacklogView,
    /// By type: what became of everything accepted in this run.
    pub account: BTreeMap<String, AccountView>,
}

/// A room's members on one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentView {
    /// Index of the shard.
    pub shard: usize,
    /// Members there.
    pub members: u64,
}

/// How busy a room is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RatesView {
    /// Messages accepted a second.
    pub messages_per_second: f64,
    /// Batches cut a second.
    pub batches_per_second: f64,
}

/// The newest batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HeadView {
    /// Its number.
    pub seq: u64,
}

/// What waits in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BacklogView {
    /// Messages gathered for the next flush.
    pub gathered: u64,
    /// Age of the oldest, in milliseconds; 0 when nothing waits.
    pub oldest_ms: u64,
}

/// What became of the messages of one type: `accepted` = `delivered` + `merged` + `waiting`, where
/// `delivered` means that they left in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// Taken in.
    pub accepted: u64,
    /// Left in a batch.
    pub delivered: u64,
    /// Replaced by a later one of their key before they left.
    pub merged: u64,
    /// Dropped on purpose instead of being taken in, by reason.
    pub shed: BTreeMap<String, u64>,
    /// Still gathered.
    pub waiting: u64,
}

/// What `DELETE /v1/rooms/{room}` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosedView {
    /// Its name.
    pub room: String,
    /// Members that were told.
    pub members: u64,
    /// Messages that were accepted and had not left yet: nobody will get them.
    pub shed: u64,
}

/// One line of `GET /v1/rooms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomLine {
    /// Its name.
    pub room: String,
    /// Members on all shards.
    pub members: u64,
    /// The shard that orders it.
    pub home: usize,
    /// Shards that hold members of it.
    pub shards: usize,
    /// The newest batch.
    pub seq: u64,
}

/// A room's history after some seq, already encoded.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The whole answer, JSON: `{"room","run","seq","resumed","history":[…]}`.
    pub json: bytes::Bytes,
}
