//! The views of a room over HTTP. The field names are the contract (`docs/protocol.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Counts;
use super::id::{Epoch, TypeName};
use super::ladder::Step;
use super::message::{Homeless, Unavailable};
use super::pace::{Readable, RoomRules};
use super::policy::{Merge, PolicyChange, Priority, Types};
use crate::now::millis;

/// The answer of `GET /v1/rooms/{room}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomView {
    /// The room's name.
    pub room: String,
    /// The room's run, 16 hexadecimal digits.
    pub run: String,
    /// Members on all shards of all nodes.
    pub members: u64,
    /// Devices with a name among the members: each once, over all its connections.
    pub devices: u64,
    /// The name of the home node; absent on a node without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The segments of the home node, by shard.
    pub shards: Vec<SegmentView>,
    /// The members on other nodes, by node; absent if there are none. The door adds them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeMembersView>,
    /// Nodes whose counts are missing, since they did not answer; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
    /// The index of the home shard.
    pub home: usize,
    /// True if further devices are placed on several shards.
    pub hot: bool,
    /// The shards on which further devices are placed.
    pub placed_on: Vec<usize>,
    /// The processor time of the room's passes, all shards together, in thousandths of a processor. Smoothed
    /// over about ten seconds.
    pub load_permille: u64,
    /// The audience expected by the publisher; `null` if no `PUT` named one.
    pub expected_audience: Option<u64>,
    /// The present window, in milliseconds.
    pub window_ms: u64,
    /// The rates of messages and batches, smoothed over about ten seconds.
    pub rates: RatesView,
    /// The totals of counters in this run, exact.
    pub counters: BTreeMap<String, u64>,
    /// The newest batch and the newest reliable message.
    pub head: HeadView,
    /// The ladder's step in force for the room.
    pub ladder: StepView,
    /// The rules in force for the room.
    pub rules: RulesView,
    /// The waiting messages.
    pub backlog: BacklogView,
    /// The counts of frames and acknowledgements in this run.
    pub counts: Counts,
    /// The account of this run, by type.
    pub account: BTreeMap<String, AccountView>,
}

/// A room's members on a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentView {
    /// The index of the shard.
    pub shard: usize,
    /// Members on the shard.
    pub members: u64,
    /// The processor time of a pass, in microseconds.
    pub pass_us: u64,
    /// The counts of frames and acknowledgements since the segment began.
    pub counts: Counts,
}

/// A room's members on another node than its home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeMembersView {
    /// The name of the node.
    pub node: String,
    /// Members on the node.
    pub members: u64,
    /// The counts of frames and acknowledgements since the segments began.
    pub counts: Counts,
}

/// The rates of a room.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RatesView {
    /// Messages published a second.
    pub messages_per_second: f64,
    /// Batches cut a second.
    pub batches_per_second: f64,
}

/// The newest batch, and the newest reliable message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeadView {
    /// The number of the newest batch.
    pub seq: u64,
    /// The epoch of the reliable stream; absent while the stream is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The last durable offset.
    pub offset: u64,
}

/// A step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// The number of the step, 0 to 5.
    pub step: u8,
    /// The name of the step.
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
    /// The rules of flushes and batches.
    pub flush: FlushView,
    /// The rates at which devices are shown messages.
    pub readable: Readable,
    /// The limits for publishers.
    pub limits: LimitsView,
    /// The settings of types unlike the default of the class: configured, or changed for the room.
    pub types: BTreeMap<String, PolicyChangeView>,
}

/// The rules of a room's flushes and batches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FlushView {
    /// The wait of the oldest message for company, in milliseconds.
    pub gather_ms: u64,
    /// Most messages of a batch.
    pub max_messages: usize,
    /// Most bytes of a batch.
    pub max_bytes: usize,
    /// Most members with which the room flushes at once.
    pub direct_members: u64,
    /// The least time between early flushes, in milliseconds.
    pub urgent_spacing_ms: u64,
    /// The widest window, in milliseconds.
    pub gather_max_ms: u64,
    /// The part of a batch reserved for high priority.
    pub high_share: f64,
    /// The part of a batch reserved for normal priority.
    pub normal_share: f64,
    /// The part of a batch reserved for low priority.
    pub low_share: f64,
}

/// The limits for a room's publishers; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LimitsView {
    /// Messages to the room a second.
    pub room_messages_per_second: u32,
}

impl RulesView {
    /// The view of these rules, and of the changes by type.
    pub fn new(rules: &RoomRules, changes: &BTreeMap<TypeName, PolicyChange>) -> Self {
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
            readable: rules.readable,
            limits: LimitsView { room_messages_per_second: rules.messages_per_second },
            types: changes.iter().map(|(name, change)| (name.to_string(), change.into())).collect(),
        }
    }

    /// Adds the node's settings of types. A room knows its own changes alone.
    pub fn add_configured(&mut self, types: &Types) {
        for (name, policy) in types.iter() {
            let configured = PolicyChange::configured(policy);
            if configured != PolicyChange::default() {
                let of_room = self.types.entry(name.to_string()).or_default();
                *of_room = of_room.over(&(&configured).into());
            }
        }
    }
}

/// The settings of a type. An absent field: as the class has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PolicyChangeView {
    /// The priority: `high`, `normal` or `low`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<&'static str>,
    /// The merge of waiting messages of the same key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<&'static str>,
    /// True if messages of the type make the room flush at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urgent: Option<bool>,
    /// The longest life or wait of a message, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Messages of the type a second; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Messages of the type at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// True if the history keeps messages of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<bool>,
    /// The weight in a sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

impl PolicyChangeView {
    /// These settings, and those of `base` where there are none.
    fn over(&self, base: &Self) -> Self {
        // A rate and its burst go together.
        let of_rate = if self.rate.is_some() { self } else { base };
        Self {
            rate: of_rate.rate,
            burst: of_rate.burst,
            priority: self.priority.or(base.priority),
            merge: self.merge.or(base.merge),
            urgent: self.urgent.or(base.urgent),
            ttl_ms: self.ttl_ms.or(base.ttl_ms),
            history: self.history.or(base.history),
            weight: self.weight.or(base.weight),
        }
    }
}

impl From<&PolicyChange> for PolicyChangeView {
    fn from(change: &PolicyChange) -> Self {
        Self {
            priority: change.priority.map(Priority::name),
            merge: change.merge.map(Merge::name),
            urgent: change.urgent,
            ttl_ms: change.ttl.map(millis),
            // In `PUT` and in views, 0 says "no limit". An absent field says "as the node does".
            rate: change.rate.map(|rate| rate.map_or(0, |rate| rate.per_second)),
            burst: change.rate.flatten().map(|rate| rate.burst),
            history: change.history,
            weight: change.weight,
        }
    }
}

/// The waiting messages in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BacklogView {
    /// Messages gathered for the next flush.
    pub gathered: u64,
    /// The age of the oldest, in milliseconds; 0 if nothing waits.
    pub oldest_ms: u64,
    /// Reliable messages on their way to the store.
    pub not_durable: u64,
}

/// The account of a type: `accepted` = `delivered` + `merged` + `shed` + `waiting`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// Messages taken in.
    pub accepted: u64,
    /// Messages sent in a batch, increments included.
    pub delivered: u64,
    /// Messages merged into another one.
    pub merged: u64,
    /// Messages dropped on purpose after they were taken in, by reason. Members are told with the next batch.
    pub shed: BTreeMap<String, u64>,
    /// Messages still gathered.
    pub waiting: u64,
    /// Messages dropped on purpose instead of being taken in, by reason. Their publishers were told.
    pub refused: BTreeMap<String, u64>,
}

/// The answer of `DELETE /v1/rooms/{room}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosedView {
    /// The room's name.
    pub room: String,
    /// Members told of the end.
    pub members: u64,
    /// Accepted messages lost to all devices: no batch had taken them.
    pub shed: u64,
}

/// A line in the answer of `GET /v1/rooms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomLine {
    /// The room's name.
    pub room: String,
    /// The name of the home node; absent on a node without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Members on all shards of all nodes.
    pub members: u64,
    /// The index of the home shard.
    pub home: usize,
    /// The number of shards with members of the room.
    pub shards: usize,
    /// The number of the newest batch.
    pub seq: u64,
    /// The present window, in milliseconds.
    pub window_ms: u64,
    /// True if further devices are placed on several shards.
    pub hot: bool,
    /// The processor time of the room's passes, all shards together, in thousandths of a processor. Smoothed
    /// over about ten seconds.
    pub load_permille: u64,
}

/// The answer of `GET /v1/rooms/{room}/reliable/{offset}`: `online` = `acknowledged` + `left` + `pending`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptView {
    /// The room's name.
    pub room: String,
    /// The epoch of the stream.
    #[serde(serialize_with = "as_text")]
    pub epoch: Epoch,
    /// The message's offset in the stream.
    pub offset: u64,
    /// The message's type.
    pub r#type: String,
    /// The publisher's id for the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The time at which the engine took the message in, unix milliseconds.
    pub at: u64,
    /// The time at which the message expires, unix milliseconds.
    pub expires_at: u64,
    /// True once the message has expired.
    pub expired: bool,
    /// True once the publisher has taken the message back.
    pub recalled: bool,
    /// The offset of the recall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recalled_by: Option<u64>,
    /// The beginning of the counts, unix milliseconds. A restart of the node, or a new run of the room, is a
    /// new beginning.
    pub since: u64,
    /// Devices with a name and connections without one: members at the sending, and later returners.
    pub online: u64,
    /// The part of `online` with a name: each device once, over all its connections.
    pub devices: u64,
    /// The part of `online` with an acknowledgement, or with a cursor at or past the message on return.
    pub acknowledged: u64,
    /// The part of `online` gone before an acknowledgement.
    pub left: u64,
    /// The part of `online` still to acknowledge.
    pub pending: u64,
    /// The times from the first sending to the acknowledgements; absent while there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_ms: Option<AckTimes>,
    /// Nodes that did not answer, so that the acknowledgements of their members are missing; absent if there
    /// are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
}

/// Times to acknowledge in milliseconds, the percentiles rounded up by at most an eighth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AckTimes {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The longest time.
    pub max: u64,
}

/// The answer of `DELETE /v1/rooms/{room}/reliable/{offset}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecallView {
    /// The room's name.
    pub room: String,
    /// The offset of the recall, which is durable.
    pub offset: u64,
    /// The offset of the recalled message.
    pub recalls: u64,
}

/// The reason why an ask about a room's reliable stream is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamRefusal {
    /// The room is not open, and the store holds nothing of the room.
    NoRoom,
    /// No entry has this offset.
    NoOffset,
    /// There is nothing to take back: the message has expired, or is a recall itself.
    NotAlive,
    /// The store did not take the recall, or could not be read.
    Unavailable(Unavailable),
    /// The node holds as many rooms as it may.
    RoomsFull,
    /// The node is draining.
    Draining,
    /// This node does not order the room.
    Homeless(Homeless),
}

fn as_text<S: serde::Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(epoch)
}
