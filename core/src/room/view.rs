//! What a room shows of itself over HTTP. The field names are the contract (docs/protocol.md).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::Counts;
use super::id::{Epoch, TypeName};
use super::ladder::Step;
use super::message::Unavailable;
use super::pace::RoomRules;
use super::policy::{Merge, PolicyChange, Priority};
use crate::now::millis;

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
    /// Further devices are placed on several shards.
    pub hot: bool,
    /// The shards that further devices are placed on.
    pub placed_on: Vec<usize>,
    /// What its passes take of all shards together, in thousandths of one; smoothed over about ten seconds.
    pub load_permille: u64,
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
    /// The step of the ladder that is in force for it.
    pub ladder: StepView,
    /// The rules in force for it.
    pub rules: RulesView,
    /// What waits.
    pub backlog: BacklogView,
    /// What its members got in this run, and did.
    pub counts: Counts,
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
    /// Processor time of a pass over them, in microseconds.
    pub pass_us: u64,
    /// What they got while the segment was there, and did.
    pub counts: Counts,
}

/// How busy a room is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RatesView {
    /// Messages accepted a second.
    pub messages_per_second: f64,
    /// Batches cut a second.
    pub batches_per_second: f64,
}

/// The newest batch, and the newest reliable message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadView {
    /// The batch's number.
    pub seq: u64,
    /// The reliable stream's life; absent while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The last durable offset.
    pub offset: u64,
}

/// A step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// Its number, 0 to 5.
    pub step: u8,
    /// Its name.
    pub name: &'static str,
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        Self { step: step.number(), name: step.name() }
    }
}

/// The rules in force, in the words of `PUT`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RulesView {
    /// When it flushes, and what a batch holds.
    pub flush: FlushView,
    /// What devices are asked to show.
    pub readable: ReadableView,
    /// What its publishers may send.
    pub limits: LimitsView,
    /// What it does otherwise than the node, by type.
    pub types: BTreeMap<String, PolicyChangeView>,
}

/// When a room flushes, and what a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FlushView {
    /// How long the oldest message waits.
    pub gather_ms: u64,
    /// Messages of one batch.
    pub max_messages: usize,
    /// Bytes of one batch.
    pub max_bytes: usize,
    /// Members up to which it flushes at once.
    pub direct_members: u64,
    /// Between early flushes.
    pub urgent_spacing_ms: u64,
    /// To which the window may widen.
    pub gather_max_ms: u64,
    /// The part of a batch that is reserved for high priority.
    pub high_share: f64,
    /// The part of a batch that is reserved for normal priority.
    pub normal_share: f64,
    /// The part of a batch that is reserved for low priority.
    pub low_share: f64,
}

/// What devices are asked to show a second; 0: as much as comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReadableView {
    /// Messages of normal and low priority.
    pub normal_per_second: u32,
    /// Messages of high priority.
    pub high_per_second: u32,
}

/// What a room's publishers may send; 0: as much as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LimitsView {
    /// Messages a second.
    pub room_messages_per_second: u32,
}

impl RulesView {
    /// The view of these rules, and of what is done otherwise.
    pub fn new<'a>(
        rules: &RoomRules,
        changes: impl Iterator<Item = (&'a TypeName, &'a PolicyChange)>,
    ) -> Self {
        let share = |priority: Priority| f64::from(rules.quotas.permille[priority as usize]) / 1000.0;
        Self {
            flush: FlushView {
                gather_ms: millis(rules.gather),
                max_messages: rules.messages_max,
                max_bytes: rules.bytes_max,
                direct_members: rules.direct_members,
                urgent_spacing_ms: millis(rules.urgent_spacing),
                gather_max_ms: millis(rules.gather_max),
                high_share: share(Priority::High),
                normal_share: share(Priority::Normal),
                low_share: share(Priority::Low),
            },
            readable: ReadableView {
                normal_per_second: rules.readable.normal_per_second,
                high_per_second: rules.readable.high_per_second,
            },
            limits: LimitsView { room_messages_per_second: rules.messages_per_second },
            types: changes.map(|(name, change)| (name.to_string(), change.into())).collect(),
        }
    }
}

/// What a room does otherwise for a type; absent: as the node does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyChangeView {
    /// Who goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<&'static str>,
    /// What becomes of several that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<&'static str>,
    /// Whether it makes its room flush at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urgent: Option<bool>,
    /// How long it lives or waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Messages a second; 0: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Messages at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Whether it is kept in the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<bool>,
    /// Its chance to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

impl From<&PolicyChange> for PolicyChangeView {
    fn from(change: &PolicyChange) -> Self {
        Self {
            priority: change.priority.map(Priority::name),
            merge: change.merge.map(Merge::name),
            urgent: change.urgent,
            ttl_ms: change.ttl.map(millis),
            rate: change.rate.map(|rate| rate.map_or(0, |rate| rate.per_second)),
            burst: change.rate.flatten().map(|rate| rate.burst),
            history: change.history,
            weight: change.weight,
        }
    }
}

/// What waits in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BacklogView {
    /// Messages gathered for the next flush.
    pub gathered: u64,
    /// Age of the oldest, in milliseconds; 0 when nothing waits.
    pub oldest_ms: u64,
    /// Reliable messages that are on their way to the store.
    pub not_durable: u64,
}

/// What became of the messages of one type: `accepted` = `delivered` + `merged` + `shed` + `waiting`, where
/// `delivered` means that they left in a batch, or that their increments did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// Taken in.
    pub accepted: u64,
    /// Left in a batch.
    pub delivered: u64,
    /// Another one stands for them.
    pub merged: u64,
    /// Dropped on purpose after they were taken in, by reason: members were told, or will be with the next batch.
    pub shed: BTreeMap<String, u64>,
    /// Still gathered.
    pub waiting: u64,
    /// Dropped on purpose instead of being taken in, by reason: their publishers were told.
    pub refused: BTreeMap<String, u64>,
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
    /// The present gather window, in milliseconds.
    pub window_ms: u64,
    /// Further devices are placed on several shards.
    pub hot: bool,
    /// What its passes take of all shards together, in thousandths of one; smoothed over about ten seconds.
    pub load_permille: u64,
}

/// A room's history after some seq, already encoded.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The whole answer, JSON: `{"room","run","seq","resumed","history":[…]}`.
    pub json: Bytes,
}

/// What `GET /v1/rooms/{room}/reliable/{offset}` shows: online = acknowledged + left + pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptView {
    /// Its name.
    pub room: String,
    /// The stream's life.
    #[serde(serialize_with = "as_text")]
    pub epoch: Epoch,
    /// The message's place in it.
    pub offset: u64,
    /// Its type.
    pub r#type: String,
    /// The publisher's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When the engine took it in, unix milliseconds.
    pub at: u64,
    /// When it expires, unix milliseconds.
    pub expires_at: u64,
    /// It has expired.
    pub expired: bool,
    /// Its publisher has taken it back.
    pub recalled: bool,
    /// The offset of the recall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recalled_by: Option<u64>,
    /// Since when these counts count, unix milliseconds: they begin anew when the node does, or the room was forgotten.
    pub since: u64,
    /// Members when it was sent, and those that came back for it.
    pub online: u64,
    /// Of those: have acknowledged it, or came back with a cursor at or past it.
    pub acknowledged: u64,
    /// Of those: left before they had.
    pub left: u64,
    /// Of those: are still to acknowledge it.
    pub pending: u64,
    /// From its first sending to the acknowledgements; absent while there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_ms: Option<AckTimes>,
}

/// Times to acknowledge in milliseconds, the percentiles rounded up by at most an eighth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AckTimes {
    /// Half of them took no longer.
    pub p50: u64,
    /// 99 % of them took no longer.
    pub p99: u64,
    /// None took longer.
    pub max: u64,
}

/// What `DELETE /v1/rooms/{room}/reliable/{offset}` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecallView {
    /// Its name.
    pub room: String,
    /// The offset of the recall, which is durable.
    pub offset: u64,
    /// The offset that it takes back.
    pub recalls: u64,
}

/// A part of a room's reliable stream, encoded for the pull side.
#[derive(Debug, Clone)]
pub struct ReliablePage {
    /// A JSON object.
    pub json: Bytes,
}

/// Why something of a room's reliable stream can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRefusal {
    /// The room is not open, and nothing is stored of it.
    NoRoom,
    /// No message has this offset, or it is too long ago.
    NoOffset,
    /// The message has expired, or is a recall itself: there is nothing to take back.
    NotAlive,
    /// The recall could not be stored, or the store not be read.
    Unavailable(Unavailable),
    /// The node holds as many rooms as it may.
    RoomsFull,
    /// The node is draining.
    Draining,
}

/// As the protocol spells it.
fn as_text<S: serde::Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(epoch)
}
