//! Metrics for operators. `table` defines and documents each metric once; [`Metrics`] counts.
//!
//! Each server owns its recorder, so several servers can live in one process. Nothing is installed globally.
//! No label has a value of a stranger's choice: there is no room, type or device label.

mod labels;
mod summary;
mod table;
pub mod tally;

use std::array;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use parking_lot::Mutex;

pub use self::labels::DoorName;
pub(crate) use self::labels::{Dropped, NodeCallOutcome, Refusal, ReloadOutcome, RouteKind};
pub use self::table::{DEFINITIONS, Definition, Kind};

use self::summary::{Line, Summary};
use self::table::*;

use self::tally::{ClusterReport, HandOverOutcome, Holdings, LinkTally, Tally};
use crate::clock;
use crate::store::health::{StoreTally, Trouble};
use roomcast_core::cluster::quota::QuotaRate;
use roomcast_core::limits::{BEARER_KEYS_MAX, NODES_MAX};
use roomcast_core::room::ladder::{Step, StepChange};
use roomcast_core::room::message::{Class, ShedReason, Unavailable};
use roomcast_core::room::tally::ByClass;
use roomcast_core::wire::close::CloseReason;

/// Upper bounds of the latency buckets, in seconds: narrow around the default gather window (0.1) and the
/// promise (3).
const LATENCY_BUCKETS_S: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.125, 0.16, 0.25, 0.5, 1.0, 3.0, 10.0];
/// Upper bounds of the window buckets, in seconds: direct (0), the default (0.1), and up to
/// `flush.gather_max_ms` (1).
const WINDOW_BUCKETS_S: [f64; 9] = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0];
/// Upper bounds of the buckets of takeovers, in seconds: narrow around the promise (2 to 4).
const TAKEOVER_BUCKETS_S: [f64; 10] = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0];
/// Upper bounds of the buckets of records, in messages.
const ROWS_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 512.0, 1024.0];

/// The limits of messages per second, as the reasons of their shedding.
const LIMITS: [ShedReason; 3] = [ShedReason::KeyRate, ShedReason::RoomRate, ShedReason::TypeRate];
/// The `peer` of links past [`NODES_MAX`] names.
const OTHER_PEERS: &str = "other";
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of one server. A clone counts into the same numbers. Counting is an atomic addition.
#[derive(Debug, Clone)]
pub struct Metrics {
    cells: Arc<Cells>,
    exposition: PrometheusHandle,
}

#[derive(Debug)]
struct Cells {
    published: [Counter; 5],
    accepted: [Counter; 5],
    merged: [Counter; 5],
    /// Indexed by reason, then by class.
    shed: Vec<[Counter; 5]>,
    /// Indexed as [`LIMITS`].
    over_limit: [Counter; LIMITS.len()],
    unavailable: Vec<Counter>,
    /// Indexed as [`TALLIED`].
    tallied: [Counter; TALLIED.len()],
    closed: Vec<Counter>,
    /// Shard -> its gauges.
    shards: Vec<ShardCells>,
    /// The last report of each shard.
    held: Mutex<Vec<Holdings>>,
    /// Index 0: down. Index 1: up.
    ladder_changes: [Counter; 2],
    busy_spread: Gauge,
    members_spread: Gauge,
    rooms_hot: Gauge,
    /// Indexed as [`STORE_TOTALS`].
    store_totals: [Counter; STORE_TOTALS.len()],
    store_bytes: Gauge,
    store_failing: Gauge,
    store_rooms_aside: Gauge,
    store_call: Gauge,
    /// Held, and claimed.
    log_slots: [Gauge; 2],
    log_commit: Histogram,
    log_record_rows: Histogram,
    cpu: Counter,
    resident: Gauge,
    /// Indexed as [`LIMITED`].
    limited: [Gauge; LIMITED.len()],
    draining: Gauge,
    publish_to_write: Histogram,
    window: Histogram,
    /// Indexed by door, then by class of status.
    http: Vec<[Counter; 5]>,
    /// Indexed by door, then by reason.
    dropped: Vec<[Counter; 2]>,
    accept_failed: Vec<Counter>,
    reloads: Vec<Counter>,
    /// Indexed by outcome.
    node_calls: Vec<Counter>,
    /// Indexed by kind.
    route_answers: Vec<Counter>,
    /// Name of the node at the other end -> the cells of the link. At most `NODES_MAX`; further nodes share
    /// [`OTHER_PEERS`].
    links: Mutex<BTreeMap<String, LinkCells>>,
    echo: Gauge,
    hand_overs: Vec<Counter>,
    takeover: Histogram,
    /// Indexed as [`SlotCounts`].
    slots: [Gauge; 4],
    key_allocations: [Gauge; BEARER_KEYS_MAX],
    joins_allocation: Gauge,
    quotas_without_share: Gauge,
    handshakes: Counter,
    handshakes_refused: Vec<Counter>,
    summary: Summary,
    /// Links begin while the node runs.
    register: Register,
}

/// The cells of the link to one node.
#[derive(Debug)]
struct LinkCells {
    /// Indexed as the fields of [`LinkTally`].
    counts: [Counter; 6],
    age: Gauge,
}

/// The gauges of one shard.
#[derive(Debug)]
struct ShardCells {
    /// Indexed as [`HELD`].
    held: [Gauge; HELD.len()],
    ladder_step: Gauge,
    owed: Gauge,
}

/// A row of the table, and its number in a `T`.
type Shown<T, Number> = (Definition, fn(&T) -> Number);

/// A counter of a shard's [`Tally`]: its row, the values of its labels, and its count.
type Tallied = (Definition, &'static [&'static str], fn(&Tally) -> u64);

/// A counter of the store: its row, the values of its labels, and its count.
type StoreTotal = (Definition, &'static [&'static str], fn(&StoreTally) -> u64);

const TALLIED: [Tallied; 23] = [
    (REWELCOMES, &[], |tally| tally.rewelcomes),
    (STALE_WORDS, &[], |tally| tally.homes.rooms.stale_words),
    (DUPLICATES, &[], |tally| tally.homes.rooms.duplicates),
    (IDS_EVICTED, &[], |tally| tally.homes.rooms.ids_evicted),
    (BATCHES, &[], |tally| tally.homes.rooms.batches),
    (FRAMES, &["level"], |tally| tally.frames_level),
    (FRAMES, &["composed"], |tally| tally.frames_composed),
    (WELCOMES_ENCODED, &[], |tally| tally.homes.welcomes_encoded),
    (FRAMES, &["refresh"], |tally| tally.frames_refresh),
    (FRAMES_SKIPPED, &[], |tally| tally.frames_skipped),
    (FRAMES_QUEUED, &[], |tally| tally.frames_queued),
    (MESSAGES_SKIPPED, &[], |tally| tally.messages_skipped),
    (LANE_FULL, &[], |tally| tally.homes.lane_full),
    (FRAMES_CARRIED, &[], |tally| tally.frames_carried),
    (FRAMES_CATCHING_UP, &[], |tally| tally.frames_catching_up),
    (ACKS, &[], |tally| tally.acks),
    (ACKS_IGNORED, &[], |tally| tally.acks_ignored),
    (CURSORS_RESET, &[], |tally| tally.homes.rooms.resets),
    (STREAMS_FAILED, &[], |tally| tally.homes.rooms.store_failures),
    (ROOMS_FORGOTTEN, &[], |tally| tally.homes.rooms_forgotten),
    (KEPT_LEFT_OUT, &[], |tally| tally.homes.kept_left_out),
    (ROOMS_PROMOTED, &[], |tally| tally.homes.rooms_promoted),
    (ROOMS_DEMOTED, &[], |tally| tally.homes.rooms_demoted),
];

/// The gauges of a shard's [`Holdings`], each with its value.
const HELD: [Shown<Holdings, f64>; 13] = [
    (CONNECTIONS, |held| as_gauge(held.connections)),
    (MEMBERS, |held| as_gauge(held.members)),
    (OVERDUE, |held| as_gauge(held.overdue)),
    (ROOMS, |held| as_gauge(held.rooms)),
    (WAITING, |held| as_gauge(held.waiting)),
    (BEHIND, |held| as_gauge(held.behind)),
    (GATHERED, |held| as_gauge(held.gathered)),
    (NOT_DURABLE, |held| as_gauge(held.not_durable)),
    (KEPT, |held| as_gauge(held.kept_bytes)),
    (BUSY, |held| as_gauge(held.busy_permille) / 1000.0),
    (PASSES, |held| as_gauge(held.passes_permille) / 1000.0),
    (STRETCH, |held| as_gauge(held.stretch_permille) / 1000.0),
    (WINDOW_NEEDED, |held| held.window_needed.as_secs_f64()),
];

/// The node's limits and its use of each, for all shards together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LimitsHeld {
    /// Places for devices.
    pub(crate) connections_max: u64,
    /// Descriptors of devices and of connections at the doors.
    pub(crate) descriptors: u64,
    /// The process's limit of descriptors.
    pub(crate) descriptors_max: u64,
    /// Bytes that the store holds at most.
    pub(crate) store_bytes_max: u64,
    /// Bytes that devices are owed at most.
    pub(crate) outbound_owed_max: u64,
}

/// The slots of the cluster by standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SlotCounts {
    /// Slots that this node orders.
    pub(crate) here: u64,
    /// Slots that other nodes order.
    pub(crate) there: u64,
    /// Slots of this node without the right to order.
    pub(crate) frozen: u64,
    /// Slots without a living node.
    pub(crate) nobody: u64,
}

/// The shares of this node of the cluster's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Allocations {
    /// Publisher keys, by their place.
    pub(crate) keys: [QuotaRate; BEARER_KEYS_MAX],
    /// Joins.
    pub(crate) joins: QuotaRate,
    /// Limits for which the node has no share.
    pub(crate) without_share: usize,
}

/// The gauges of [`LimitsHeld`], each with its value.
const LIMITED: [Shown<LimitsHeld, u64>; 5] = [
    (CONNECTIONS_MAX, |held| held.connections_max),
    (DESCRIPTORS, |held| held.descriptors),
    (DESCRIPTORS_MAX, |held| held.descriptors_max),
    (STORE_LIMIT, |held| held.store_bytes_max),
    (OUTBOUND_OWED_MAX, |held| held.outbound_owed_max),
];

/// The totals in the store's [`StoreTally`], each with the values of its labels, and its count.
const STORE_TOTALS: [StoreTotal; 13] = [
    (STORE_COMMITS, &[], |tally| tally.commits),
    (STORE_COMMIT_TIME, &[], |tally| micros(tally.commit_time)),
    (STORE_MESSAGES, &[], |tally| tally.messages),
    (STORE_FAILURES, &[], |tally| tally.failures),
    (STORE_REOPENINGS, &[], |tally| tally.reopenings),
    (STORE_QUARANTINED, &[], |tally| tally.quarantined),
    (STORE_READS_FAILED, &[], |tally| tally.reads_failed),
    (STORE_WRITES_FAILED, &[], |tally| tally.writes_failed),
    (STORE_PURGED, &[], |tally| tally.purged),
    (CLAIMS, &["ordered"], |tally| tally.log.claims_ordered),
    (CLAIMS, &["reopened"], |tally| tally.log.claims_reopened),
    (FENCED, &[], |tally| tally.log.fenced),
    (OUT_OF_TERM, &[], |tally| tally.log.out_of_term),
];

impl Metrics {
    /// The metrics of a server with `shards` shards, all at zero.
    ///
    /// # Errors
    /// A histogram has no buckets: a defect of the constants above.
    pub(crate) fn new(shards: usize) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(PUBLISH_TO_WRITE.name.to_owned()), &LATENCY_BUCKETS_S)?
            .set_buckets_for_metric(Matcher::Full(WINDOW.name.to_owned()), &WINDOW_BUCKETS_S)?
            .set_buckets_for_metric(Matcher::Full(LOG_COMMIT.name.to_owned()), &LATENCY_BUCKETS_S)?
            .set_buckets_for_metric(Matcher::Full(TAKEOVER.name.to_owned()), &TAKEOVER_BUCKETS_S)?
            .set_buckets_for_metric(Matcher::Full(LOG_RECORD_ROWS.name.to_owned()), &ROWS_BUCKETS)?
            .build_recorder();
        let exposition = recorder.handle();
        let register = Register(recorder);
        register.gauge(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        register.gauge(&START_TIME, &[]).set(as_gauge(clock::now().unix_ms / 1000));
        let cells = Arc::new(Cells::register(register, shards));
        Ok(Self { cells, exposition })
    }

    /// Adds the counts of a shard. `now` is the end of the passes in `tally.written`.
    pub(crate) fn add(&self, tally: &Tally, now: Instant) {
        let cells = &*self.cells;
        let rooms = &tally.homes.rooms;
        add_each(&cells.published, &rooms.published.0);
        add_each(&cells.accepted, &rooms.accepted.0);
        add_each(&cells.merged, &rooms.merged.0);
        for (shed, count) in cells.shed.iter().zip(&rooms.shed) {
            add_each(shed, &count.0);
        }
        for (counter, (_, _, count)) in cells.tallied.iter().zip(TALLIED) {
            add_some(counter, count(tally));
        }
        add_each(&cells.unavailable, &rooms.unavailable);
        add_each(&cells.closed, &tally.closed);
        cells.summary.closed(&tally.closed);
        // Index 0 is the rate of a publisher key, counted at the doors by `past_key_rate`.
        add_each(&cells.over_limit[1..], &[rooms.over_room_rate, rooms.over_type_rate]);
        for oldest in &tally.written {
            cells.publish_to_write.record(now.saturating_duration_since(*oldest).as_secs_f64());
        }
        if let Some(window) = rooms.window {
            cells.window.record(window.as_secs_f64());
        }
    }

    /// Counts `over` messages past the limit of a publisher key. `shed` has the shed part of `over`.
    pub(crate) fn past_key_rate(&self, over: u64, shed: &ByClass) {
        add_some(&self.cells.over_limit[0], over);
        add_each(&self.cells.shed[ShedReason::KeyRate as usize], &shed.0);
    }

    /// Shows the holdings of a shard. An unknown shard is ignored.
    pub(crate) fn hold(&self, shard: usize, holdings: &Holdings) {
        let Some(cells) = self.cells.shards.get(shard) else { return };
        for (gauge, (_, value)) in cells.held.iter().zip(HELD) {
            gauge.set(value(holdings));
        }
        // Shards report one by one, and a spread needs the last report of each.
        let mut held = self.cells.held.lock();
        held[shard] = *holdings;
        self.cells.busy_spread.set(max_over_mean(held.iter().map(|held| held.busy_permille)));
        self.cells.members_spread.set(max_over_mean(held.iter().map(|held| held.members)));
    }

    /// Shows the step of the ladder in force on a shard, and the bytes owed to the shard's devices. An
    /// unknown shard is ignored.
    pub(crate) fn degraded(&self, shard: usize, step: Step, owed_bytes: u64) {
        let Some(cells) = self.cells.shards.get(shard) else { return };
        cells.ladder_step.set(f64::from(step.number()));
        cells.owed.set(as_gauge(owed_bytes));
    }

    /// Counts a change of a shard's own step of the ladder.
    pub(crate) fn step_changed(&self, change: StepChange) {
        self.cells.ladder_changes[usize::from(change.is_up())].increment(1);
    }

    /// The last holdings of each shard, by index.
    pub(crate) fn held(&self) -> Vec<Holdings> {
        self.cells.held.lock().clone()
    }

    /// Shows the number of hot rooms.
    pub(crate) fn hot(&self, rooms: usize) {
        self.cells.rooms_hot.set(as_gauge(rooms as u64));
    }

    /// Shows the store's counts, its trouble, and the time of its call under way. Called for each scrape: the
    /// store counts by itself, with or without scrapes.
    pub(crate) fn show_store(&self, tally: &StoreTally, trouble: Option<&Trouble>, under_way: Duration) {
        let cells = &*self.cells;
        for (counter, (_, _, total)) in cells.store_totals.iter().zip(STORE_TOTALS) {
            // The store's own totals: adding them up again would count each scrape.
            counter.absolute(total(tally));
        }
        cells.store_bytes.set(as_gauge(tally.bytes));
        cells.store_failing.set(if trouble.is_some() { 1.0 } else { 0.0 });
        // A hanging disk shows in this gauge alone: its call neither fails nor ends.
        cells.store_rooms_aside.set(as_gauge(tally.rooms_aside));
        cells.store_call.set(under_way.as_secs_f64());
        for (gauge, slots) in cells.log_slots.iter().zip([tally.log.held, tally.log.claiming]) {
            gauge.set(as_gauge(slots));
        }
    }

    /// Counts a record of messages that JetStream has acknowledged.
    pub(crate) fn record_logged(&self, took: Duration, rows: usize) {
        self.cells.log_commit.record(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "at most some thousand")]
        self.cells.log_record_rows.record(rows as f64);
    }

    /// Shows the processor time of the process since the start, and the memory now. Called for each scrape.
    pub(crate) fn show_process(&self, processor_time: Duration, resident_bytes: u64) {
        self.cells.cpu.absolute(micros(processor_time));
        self.cells.resident.set(as_gauge(resident_bytes));
    }

    /// Shows the limits of the node beside what is used. Called for each scrape.
    pub(crate) fn show_limits(&self, held: &LimitsHeld) {
        for (gauge, (_, value)) in self.cells.limited.iter().zip(LIMITED) {
            gauge.set(as_gauge(value(held)));
        }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, door: DoorName, status: StatusCode) {
        // A handler cannot make a status below 100; a panic of the index would close a connection for a
        // count.
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.cells.http[door as usize][class].increment(1);
    }

    /// Counts a connection closed by a door without an answer.
    pub(crate) fn dropped(&self, door: DoorName, why: Dropped) {
        self.cells.dropped[door as usize][why as usize].increment(1);
    }

    /// Counts a failure of a door to accept a connection.
    pub(crate) fn accept_failed(&self, door: DoorName, error: &io::Error) {
        self.cells.accept_failed[door as usize].increment(1);
        self.cells.summary.accept_failed(door, error);
    }

    /// Counts a reload of the configuration.
    pub(crate) fn reloaded(&self, outcome: ReloadOutcome) {
        self.cells.reloads[outcome as usize].increment(1);
    }

    /// Notes a connection that a shard could not take in, for the log.
    pub(crate) fn not_taken_in(&self, error: &io::Error) {
        self.cells.summary.not_taken_in(error);
    }

    /// Writes the log lines about connections since the last call: one line per reason.
    pub(crate) fn write_summary(&self) {
        self.cells.summary.take().into_iter().for_each(Line::write);
    }

    /// Counts a device answered with 101.
    pub(crate) fn handshake_accepted(&self) {
        self.cells.handshakes.increment(1);
    }

    /// Counts a refused device.
    pub(crate) fn handshake_refused(&self, why: Refusal) {
        self.cells.handshakes_refused[why as usize].increment(1);
    }

    /// Counts a request for a room of another node.
    pub(crate) fn node_called(&self, outcome: NodeCallOutcome) {
        self.cells.node_calls[outcome as usize].increment(1);
    }

    /// Counts an answer of `/v1/route`.
    pub(crate) fn route_answered(&self, kind: RouteKind) {
        self.cells.route_answers[kind as usize].increment(1);
    }

    /// Takes a report of the cluster's thread.
    pub(crate) fn cluster_reported(&self, report: ClusterReport) {
        match report {
            ClusterReport::Link { peer, tally, age } => self.link_counted(peer, tally, age),
            ClusterReport::Echo { age } => self.cells.echo.set(age.as_secs_f64()),
            ClusterReport::HandOver { outcome } => self.cells.hand_overs[outcome as usize].increment(1),
            ClusterReport::Takeover { took } => self.cells.takeover.record(took.as_secs_f64()),
        }
    }

    fn link_counted(&self, peer: &str, tally: LinkTally, age: Duration) {
        let mut links = self.cells.links.lock();
        let is_place = links.len() < NODES_MAX || links.contains_key(peer);
        let peer = if is_place { peer } else { OTHER_PEERS };
        let link = links.entry(peer.to_owned()).or_insert_with(|| self.cells.register.link(peer));
        let LinkTally { bytes, frames, lapsed, repeated, resets, stale } = tally;
        add_each(&link.counts, &[bytes, frames, lapsed, repeated, resets, stale]);
        link.age.set(age.as_secs_f64());
    }

    /// Shows the slots by standing. Called for each scrape.
    pub(crate) fn show_slots(&self, counts: SlotCounts) {
        let SlotCounts { here, there, frozen, nobody } = counts;
        for (gauge, count) in self.cells.slots.iter().zip([here, there, frozen, nobody]) {
            gauge.set(as_gauge(count));
        }
    }

    /// Shows the shares of this node of the cluster's limits. Called for each scrape.
    pub(crate) fn show_allocations(&self, allocations: &Allocations) {
        let Allocations { keys, joins, without_share } = allocations;
        let per_second = |rate: QuotaRate| as_gauge(rate.permille()) / 1000.0;
        for (gauge, rate) in self.cells.key_allocations.iter().zip(keys) {
            gauge.set(per_second(*rate));
        }
        self.cells.joins_allocation.set(per_second(*joins));
        self.cells.quotas_without_share.set(as_gauge(*without_share as u64));
    }

    /// Shows the drain of the node.
    pub(crate) fn draining(&self) {
        self.cells.draining.set(1.0);
    }

    /// Every metric, as Prometheus text.
    pub(crate) fn render(&self) -> String {
        self.exposition.render()
    }

    /// Adds the histograms' observations to their buckets. Until then each observation is kept in memory, so
    /// the server calls this function every few seconds, with or without scrapes.
    pub(crate) fn run_upkeep(&self) {
        self.exposition.run_upkeep();
    }
}

fn add_each(counters: &[Counter], counts: &[u64]) {
    for (counter, count) in counters.iter().zip(counts) {
        add_some(counter, *count);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A count as the value of a gauge, exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^53")]
fn as_gauge(held: u64) -> f64 {
    held as f64
}

/// The largest count over the mean: 1 for equal counts, 2 if the first of two shards has everything.
fn max_over_mean(held: impl ExactSizeIterator<Item = u64> + Clone) -> f64 {
    let sum: u64 = held.clone().sum();
    let shards = held.len() as u64;
    // Without holdings no shard has more than the others.
    if sum == 0 { 1.0 } else { as_gauge(held.max().unwrap_or(0) * shards) / as_gauge(sum) }
}

fn add_some(counter: &Counter, count: u64) {
    // Most counts of a turn are zero, and all shards share the counter: adding zero would move its cache
    // line.
    if count > 0 {
        counter.increment(count);
    }
}

/// The recorder of one server, to register the rows of the table.
#[derive(Debug)]
struct Register(PrometheusRecorder);

impl Cells {
    fn register(register: Register, shards: usize) -> Self {
        Self {
            published: register.by_class(&PUBLISHED),
            accepted: register.by_class(&ACCEPTED),
            merged: register.by_class(&MERGED),
            shed: ShedReason::ALL
                .iter()
                .map(|reason| Class::ALL.map(|class| register.counter(&SHED, &[class.name(), reason.name()])))
                .collect(),
            over_limit: LIMITS.map(|limit| register.counter(&OVER_LIMIT, &[limit.name()])),
            unavailable: register.each(&UNAVAILABLE, Unavailable::ALL.map(Unavailable::name)),
            tallied: TALLIED.map(|(row, labels, _)| register.counter(&row, labels)),
            // Every label value is registered at the start: an alert on a rate needs the zero before the
            // first count.
            closed: register.each(&CLOSED, CloseReason::ALL.map(CloseReason::name)),
            shards: (0..shards).map(|shard| register.shard(&shard.to_string())).collect(),
            held: Mutex::new(vec![Holdings::default(); shards]),
            ladder_changes: ["down", "up"].map(|direction| register.counter(&LADDER_CHANGES, &[direction])),
            busy_spread: register.gauge(&BUSY_SPREAD, &[]),
            members_spread: register.gauge(&MEMBERS_SPREAD, &[]),
            rooms_hot: register.gauge(&ROOMS_HOT, &[]),
            store_totals: STORE_TOTALS.map(|(row, labels, _)| register.counter(&row, labels)),
            store_bytes: register.gauge(&STORE_BYTES, &[]),
            store_failing: register.gauge(&STORE_FAILING, &[]),
            store_rooms_aside: register.gauge(&STORE_ROOMS_ASIDE, &[]),
            store_call: register.gauge(&STORE_CALL, &[]),
            log_slots: ["held", "claiming"].map(|state| register.gauge(&LOG_SLOTS, &[state])),
            log_commit: register.histogram(&LOG_COMMIT),
            log_record_rows: register.histogram(&LOG_RECORD_ROWS),
            cpu: register.counter(&CPU, &[]),
            resident: register.gauge(&RESIDENT, &[]),
            limited: LIMITED.map(|(row, _)| register.gauge(&row, &[])),
            draining: register.gauge(&DRAINING, &[]),
            publish_to_write: register.histogram(&PUBLISH_TO_WRITE),
            window: register.histogram(&WINDOW),
            http: DoorName::ALL
                .iter()
                .map(|door| STATUS_CLASSES.map(|status| register.counter(&HTTP, &[door.name(), status])))
                .collect(),
            dropped: DoorName::ALL
                .iter()
                .map(|door| Dropped::ALL.map(|why| register.counter(&DROPPED, &[door.name(), why.name()])))
                .collect(),
            accept_failed: register.each(&ACCEPT_FAILED, DoorName::ALL.map(DoorName::name)),
            reloads: register.each(&RELOADS, ReloadOutcome::ALL.map(ReloadOutcome::name)),
            node_calls: register.each(&NODE_CALLS, NodeCallOutcome::ALL.map(NodeCallOutcome::name)),
            route_answers: register.each(&ROUTE_ANSWERS, RouteKind::ALL.map(RouteKind::name)),
            links: Mutex::default(),
            echo: register.gauge(&ECHO, &[]),
            hand_overs: register.each(&HAND_OVERS, HandOverOutcome::ALL.map(HandOverOutcome::name)),
            takeover: register.histogram(&TAKEOVER),
            slots: ["here", "there", "frozen", "nobody"].map(|state| register.gauge(&SLOTS, &[state])),
            key_allocations: array::from_fn(|key| register.gauge(&QUOTA_ALLOCATION, &[&key.to_string()])),
            joins_allocation: register.gauge(&JOINS_ALLOCATION, &[]),
            quotas_without_share: register.gauge(&QUOTAS_WITHOUT_SHARE, &[]),
            handshakes: register.counter(&HANDSHAKES, &[]),
            handshakes_refused: register.each(&HANDSHAKES_REFUSED, Refusal::ALL.map(Refusal::name)),
            summary: Summary::default(),
            register,
        }
    }
}

impl Register {
    fn counter(&self, row: &Definition, labels: &[&str]) -> Counter {
        debug_assert_eq!(row.kind, Kind::Counter);
        self.0.describe_counter(KeyName::from_const_str(row.name), None, row.help.into());
        self.0.register_counter(&key(row, labels), &METADATA)
    }

    fn gauge(&self, row: &Definition, labels: &[&str]) -> Gauge {
        debug_assert_eq!(row.kind, Kind::Gauge);
        self.0.describe_gauge(KeyName::from_const_str(row.name), None, row.help.into());
        self.0.register_gauge(&key(row, labels), &METADATA)
    }

    fn histogram(&self, row: &Definition) -> Histogram {
        debug_assert_eq!(row.kind, Kind::Histogram);
        self.0.describe_histogram(KeyName::from_const_str(row.name), None, row.help.into());
        self.0.register_histogram(&key(row, &[]), &METADATA)
    }

    /// A counter for each value of the row's only label.
    fn each<const N: usize>(&self, row: &Definition, values: [&str; N]) -> Vec<Counter> {
        values.iter().map(|value| self.counter(row, &[value])).collect()
    }

    fn by_class(&self, row: &Definition) -> [Counter; 5] {
        Class::ALL.map(|class| self.counter(row, &[class.name()]))
    }

    fn link(&self, peer: &str) -> LinkCells {
        let rows = [&LINK_BYTES, &LINK_FRAMES, &LINK_LAPSED, &LINK_REPEATED, &LINK_RESETS, &LINK_STALE];
        LinkCells { counts: rows.map(|row| self.counter(row, &[peer])), age: self.gauge(&LINK_AGE, &[peer]) }
    }

    fn shard(&self, shard: &str) -> ShardCells {
        ShardCells {
            held: HELD.map(|(row, _)| self.gauge(&row, &[shard])),
            ladder_step: self.gauge(&LADDER_STEP, &[shard]),
            owed: self.gauge(&OUTBOUND_OWED, &[shard]),
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

fn key(row: &Definition, values: &[&str]) -> Key {
    // zip would silently drop a label without a value.
    assert_eq!(row.labels.len(), values.len(), "a value for each label of {}", row.name);
    let labels: Vec<Label> =
        row.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(row.name, labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::tally::HomesTally;
    use roomcast_core::room::tally::RoomTally;

    #[test]
    fn every_metric_of_the_table_is_shown_with_its_help_and_no_other() {
        let metrics = Metrics::new(2).unwrap();
        let now = clock::now().instant;
        let rooms = RoomTally { window: Some(Duration::from_millis(100)), ..RoomTally::default() };
        let homes = HomesTally { rooms, ..HomesTally::default() };
        metrics.add(&Tally { written: vec![now], homes, ..Tally::default() }, now);
        let tally = LinkTally { bytes: 7, ..LinkTally::default() };
        for peer in (0..NODES_MAX + 2).map(|node| format!("node-{node}")) {
            metrics.cluster_reported(ClusterReport::Link { peer: &peer, tally, age: Duration::ZERO });
        }
        let text = metrics.render();
        assert!(text.contains("roomcast_link_bytes_total{peer=\"node-63\"} 7\n"));
        assert!(text.contains("roomcast_link_bytes_total{peer=\"other\"} 14\n"), "names have a bound");
        let shown: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let defined: BTreeSet<&str> = DEFINITIONS.iter().map(|row| row.name).collect();
        assert_eq!(shown, defined);
        assert_eq!(defined.len(), DEFINITIONS.len(), "no name twice");
        for row in DEFINITIONS {
            assert!(text.contains(&format!("# HELP {} {}", row.name, row.help)), "{}", row.name);
            assert!(row.name.starts_with("roomcast_"));
            assert!(row.labels.iter().all(|label| !["room", "type", "device"].contains(label)));
            assert_eq!(row.name.ends_with("_total"), row.kind == Kind::Counter, "{}", row.name);
            let units = ["_seconds", "_rows"];
            assert!(
                row.kind != Kind::Histogram || units.iter().any(|unit| row.name.ends_with(unit)),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn a_tally_lands_under_its_class_and_reason() {
        let metrics = Metrics::new(1).unwrap();
        let mut tally = Tally::default();
        tally.homes.rooms.accepted.add(Class::Lossy, 3);
        tally.homes.rooms.shed[ShedReason::RoomFull as usize].add(Class::Lossy, 2);
        tally.homes.rooms.unavailable[Unavailable::StreamFull as usize] = 5;
        tally.closed[CloseReason::Behind as usize] = 4;
        let now = clock::now().instant;
        tally.written.push(now);
        metrics.add(&tally, now + Duration::from_millis(90));
        metrics.add(&tally, now + Duration::from_millis(90));
        metrics.hold(0, &Holdings { members: 7, ..Holdings::default() });
        metrics.hold(9, &Holdings::default());
        metrics.hot(3);
        metrics.run_upkeep();
        let text = metrics.render();
        for line in [
            r#"roomcast_messages_accepted_total{class="lossy"} 6"#,
            r#"roomcast_messages_shed_total{class="lossy",reason="room_full"} 4"#,
            r#"roomcast_messages_unavailable_total{reason="stream_full"} 10"#,
            &format!(r#"roomcast_connections_closed_total{{reason="{}"}} 8"#, CloseReason::Behind.name()),
            r#"roomcast_publish_to_write_seconds_bucket{le="0.1"} 2"#,
            r#"roomcast_publish_to_write_seconds_bucket{le="0.05"} 0"#,
            r#"roomcast_members{shard="0"} 7"#,
            "roomcast_rooms_hot 3",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_fullest_and_the_busiest_shard_are_held_against_the_mean() {
        let metrics = Metrics::new(2).unwrap();
        let spread = "roomcast_shards_members_max_over_mean";
        let busy = "roomcast_shards_busy_max_over_mean";
        metrics.hold(0, &Holdings::default());
        assert!(metrics.render().contains(&format!("{spread} 1\n")), "nobody has more than the others");
        metrics.hold(0, &Holdings { members: 300, busy_permille: 500, ..Holdings::default() });
        metrics.hold(1, &Holdings { members: 100, busy_permille: 500, ..Holdings::default() });
        let text = metrics.render();
        assert!(text.contains(&format!("{spread} 1.5\n")) && text.contains(&format!("{busy} 1\n")), "{text}");
        assert!(text.contains(r#"roomcast_shard_busy_ratio{shard="1"} 0.5"#), "{text}");
    }

    #[test]
    fn the_store_is_shown_as_it_counts_itself() {
        let metrics = Metrics::new(1).unwrap();
        let trouble = Trouble { since: clock::now(), why: "storing messages failed: no space left".into() };
        let mut tally = StoreTally { bytes: 5_000_000_000, ..StoreTally::default() };
        for commits in [3, 5] {
            (tally.commits, tally.commit_time) = (commits, Duration::from_micros(700 * commits));
            metrics.show_store(&tally, Some(&trouble), Duration::from_millis(2500));
        }
        let text = metrics.render();
        for line in [
            "roomcast_store_commits_total 5",
            "roomcast_store_commit_microseconds_total 3500",
            "roomcast_store_bytes 5000000000",
            "roomcast_store_failing 1",
            "roomcast_store_call_seconds 2.5",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
        metrics.show_store(&tally, None, Duration::ZERO);
        assert!(metrics.render().contains("roomcast_store_failing 0"), "it heals");
    }

    #[test]
    fn requests_count_by_door_and_class_of_status() {
        let metrics = Metrics::new(1).unwrap();
        metrics.answered(DoorName::Viewer, StatusCode::SWITCHING_PROTOCOLS);
        metrics.answered(DoorName::Publisher, StatusCode::SERVICE_UNAVAILABLE);
        metrics.handshake_refused(Refusal::Origin);
        metrics.dropped(DoorName::Viewer, Dropped::Late);
        let text = metrics.render();
        assert!(text.contains(r#"roomcast_http_requests_total{door="viewer",status="1xx"} 1"#), "{text}");
        assert!(text.contains(r#"roomcast_http_requests_total{door="publisher",status="5xx"} 1"#));
        assert!(text.contains(r#"roomcast_handshakes_refused_total{reason="origin"} 1"#));
        assert!(text.contains(r#"roomcast_door_connections_dropped_total{door="viewer",reason="late"} 1"#));
    }

    #[test]
    fn what_is_past_a_key_s_limit_is_counted_and_what_was_shed_of_it_by_class() {
        let metrics = Metrics::new(1).unwrap();
        let mut shed = ByClass::default();
        metrics.past_key_rate(7, &shed);
        shed.add(Class::Counter, 2);
        metrics.past_key_rate(2, &shed);
        let text = metrics.render();
        for line in [
            r#"roomcast_messages_over_limit_total{limit="key_rate"} 9"#,
            r#"roomcast_messages_over_limit_total{limit="room_rate"} 0"#,
            r#"roomcast_messages_shed_total{class="counter",reason="key_rate"} 2"#,
            r#"roomcast_messages_shed_total{class="normal",reason="key_rate"} 0"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    }

    #[test]
    fn two_servers_of_one_process_count_apart() {
        let one = Metrics::new(1).unwrap();
        let other = Metrics::new(1).unwrap();
        one.handshake_accepted();
        assert!(one.render().contains("roomcast_handshakes_accepted_total 1"));
        assert!(other.render().contains("roomcast_handshakes_accepted_total 0"));
    }
}
