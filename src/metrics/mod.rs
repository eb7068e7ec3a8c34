//! What operators see: each metric of the node is defined and documented here once, and is counted through one typed
//! struct.
//!
//! Each server owns its recorder, so that several live in one process; nothing is installed globally. No label takes
//! a value that a stranger can choose: there is no room, type or device label.

mod labels;
mod table;
pub mod tally;

use std::sync::Arc;

use parking_lot::Mutex;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use self::labels::{DoorName, Dropped, Refusal};
pub use self::table::{DEFINITIONS, Definition, Kind};

use self::table::*;

use self::tally::{Holdings, Tally};
use crate::store::health::{StoreTally, Trouble};
use roomcast_core::room::ladder::{Step, StepChange};
use roomcast_core::room::message::{Class, ShedReason, Unavailable};
use roomcast_core::room::tally::ByClass;
use roomcast_core::wire::close::CloseReason;

/// Upper bounds of the latency buckets, in seconds: fine around the default gather window (0.1) and the promise (3).
const LATENCY_BUCKETS_S: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.125, 0.16, 0.25, 0.5, 1.0, 3.0, 10.0];
/// Upper bounds of the window buckets, in seconds: direct, the default, and what adapting may widen it to.
const WINDOW_BUCKETS_S: [f64; 9] = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0];

/// In the order of their indices.
const CLASSES: [Class; 5] = [Class::Reliable, Class::Normal, Class::Latest, Class::Counter, Class::Lossy];
/// The limits of messages a second, by the reason with which they shed.
const LIMITS: [ShedReason; 3] = [ShedReason::KeyRate, ShedReason::RoomRate, ShedReason::TypeRate];
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// All metrics of one server. Cheap to clone; counting is an atomic addition.
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
    /// By reason, then class.
    shed: Vec<[Counter; 5]>,
    /// In the order of [`LIMITS`].
    over_limit: [Counter; LIMITS.len()],
    unavailable: Vec<Counter>,
    duplicates: Counter,
    ids_evicted: Counter,
    batches: Counter,
    frames_level: Counter,
    frames_composed: Counter,
    welcomes_encoded: Counter,
    frames_refresh: Counter,
    frames_skipped: Counter,
    frames_queued: Counter,
    messages_skipped: Counter,
    lane_full: Counter,
    frames_carried: Counter,
    frames_catching_up: Counter,
    acks: Counter,
    acks_ignored: Counter,
    cursors_reset: Counter,
    streams_failed: Counter,
    rooms_forgotten: Counter,
    closed: Vec<Counter>,
    holdings: Vec<HoldingsCells>,
    /// What each shard said last.
    held: Mutex<Vec<Holdings>>,
    /// Down, then up.
    ladder_changes: [Counter; 2],
    busy_spread: Gauge,
    members_spread: Gauge,
    rooms_hot: Gauge,
    rooms_promoted: Counter,
    rooms_demoted: Counter,
    store: StoreCells,
    cpu: Counter,
    resident: Gauge,
    draining: Gauge,
    publish_to_write: Histogram,
    window: Histogram,
    /// By door, then class of status.
    http: Vec<[Counter; 5]>,
    /// By door, then reason.
    dropped: Vec<[Counter; 2]>,
    accept_failed: Vec<Counter>,
    handshakes: Counter,
    handshakes_refused: Vec<Counter>,
}

/// One shard's gauges.
#[derive(Debug)]
struct HoldingsCells {
    connections: Gauge,
    members: Gauge,
    rooms: Gauge,
    waiting: Gauge,
    behind: Gauge,
    gathered: Gauge,
    not_durable: Gauge,
    busy: Gauge,
    passes: Gauge,
    stretch: Gauge,
    window_needed: Gauge,
    ladder_step: Gauge,
    owed: Gauge,
}

/// What the store counts itself, as it was last asked.
#[derive(Debug)]
struct StoreCells {
    commits: Counter,
    commit_time: Counter,
    messages: Counter,
    failures: Counter,
    reopenings: Counter,
    quarantined: Counter,
    purged: Counter,
    bytes: Gauge,
    failing: Gauge,
    call: Gauge,
}

impl Metrics {
    /// A fresh set for a server of this many shards, all at zero.
    ///
    /// # Errors
    /// The exporter's, when a histogram has no buckets: a defect of the table above.
    pub fn new(shards: usize) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(PUBLISH_TO_WRITE.name.to_owned()), &LATENCY_BUCKETS_S)?
            .set_buckets_for_metric(Matcher::Full(WINDOW.name.to_owned()), &WINDOW_BUCKETS_S)?
            .build_recorder();
        let exposition = recorder.handle();
        let cells = Arc::new(Cells::register(&Register(recorder), shards));
        Ok(Self { cells, exposition })
    }

    /// Moves what a shard counted since it was last asked into the metrics. `now` is when the writing ended.
    pub fn add(&self, tally: &Tally, now: Instant) {
        let cells = &*self.cells;
        add_by_class(&cells.published, &tally.rooms.published);
        add_by_class(&cells.accepted, &tally.rooms.accepted);
        add_by_class(&cells.merged, &tally.rooms.merged);
        for (shed, count) in cells.shed.iter().zip(&tally.rooms.shed) {
            add_by_class(shed, count);
        }
        for (counter, count) in [
            (&cells.duplicates, tally.rooms.duplicates),
            (&cells.ids_evicted, tally.rooms.ids_evicted),
            (&cells.batches, tally.rooms.batches),
            (&cells.frames_level, tally.frames_level),
            (&cells.frames_composed, tally.frames_composed),
            (&cells.welcomes_encoded, tally.welcomes_encoded),
            (&cells.frames_refresh, tally.frames_refresh),
            (&cells.frames_skipped, tally.frames_skipped),
            (&cells.frames_queued, tally.frames_queued),
            (&cells.messages_skipped, tally.messages_skipped),
            (&cells.lane_full, tally.lane_full),
            (&cells.frames_carried, tally.frames_carried),
            (&cells.frames_catching_up, tally.frames_catching_up),
            (&cells.acks, tally.acks),
            (&cells.acks_ignored, tally.acks_ignored),
            (&cells.cursors_reset, tally.rooms.resets),
            (&cells.streams_failed, tally.rooms.store_failures),
            (&cells.rooms_forgotten, tally.rooms_forgotten),
            (&cells.rooms_promoted, tally.rooms_promoted),
            (&cells.rooms_demoted, tally.rooms_demoted),
        ]
        .into_iter()
        .chain(cells.unavailable.iter().zip(tally.rooms.unavailable))
        .chain(cells.over_limit[1..].iter().zip([tally.rooms.over_room_rate, tally.rooms.over_type_rate]))
        .chain(cells.closed.iter().zip(tally.closed))
        {
            add_some(counter, count);
        }
        for oldest in &tally.written {
            cells.publish_to_write.record(now.saturating_duration_since(*oldest).as_secs_f64());
        }
        if let Some(window) = tally.rooms.window {
            cells.window.record(window.as_secs_f64());
        }
    }

    /// So many messages of a request were past the limit of its publisher key; those of `shed` were shed for it.
    pub fn past_key_rate(&self, over: u64, shed: &ByClass) {
        add_some(&self.cells.over_limit[0], over);
        add_by_class(&self.cells.shed[ShedReason::KeyRate as usize], shed);
    }

    /// Says what a shard holds now. A shard the server was not built with is ignored.
    pub fn hold(&self, shard: usize, holdings: &Holdings) {
        let Some(cells) = self.cells.holdings.get(shard) else { return };
        for (gauge, held) in [
            (&cells.connections, holdings.connections),
            (&cells.members, holdings.members),
            (&cells.rooms, holdings.rooms),
            (&cells.waiting, holdings.waiting),
            (&cells.behind, holdings.behind),
            (&cells.gathered, holdings.gathered),
            (&cells.not_durable, holdings.not_durable),
        ] {
            gauge.set(as_gauge(held));
        }
        cells.busy.set(as_gauge(holdings.busy_permille) / 1000.0);
        cells.passes.set(as_gauge(holdings.passes_permille) / 1000.0);
        cells.stretch.set(as_gauge(holdings.stretch_permille) / 1000.0);
        cells.window_needed.set(holdings.window_needed.as_secs_f64());
        let mut held = self.cells.held.lock();
        held[shard] = *holdings;
        self.cells.busy_spread.set(max_over_mean(held.iter().map(|held| held.busy_permille)));
        self.cells.members_spread.set(max_over_mean(held.iter().map(|held| held.members)));
    }

    /// Says which step of the ladder is in force on a shard, and what its devices are owed. A shard the server was not
    /// built with is ignored.
    pub fn degraded(&self, shard: usize, step: Step, owed_bytes: u64) {
        let Some(cells) = self.cells.holdings.get(shard) else { return };
        cells.ladder_step.set(f64::from(step.number()));
        cells.owed.set(as_gauge(owed_bytes));
    }

    /// A shard changed its own step of the ladder.
    pub fn step_changed(&self, change: StepChange) {
        self.cells.ladder_changes[usize::from(change.is_up())].increment(1);
    }

    /// What each shard said last that it holds, by index.
    #[must_use]
    pub fn held(&self) -> Vec<Holdings> {
        self.cells.held.lock().clone()
    }

    /// How many rooms are hot now.
    pub fn hot(&self, rooms: usize) {
        self.cells.rooms_hot.set(as_gauge(rooms as u64));
    }

    /// Says how the store fares: what it has done since it was started, what troubles it, and how long its call under way
    /// takes already. For each scrape: the store counts by itself, whether or not anybody looks.
    pub fn show_store(&self, tally: &StoreTally, trouble: Option<&Trouble>, under_way: Duration) {
        let cells = &self.cells.store;
        let commit_micros = u64::try_from(tally.commit_time.as_micros()).unwrap_or(u64::MAX);
        for (counter, count) in [
            (&cells.commits, tally.commits),
            (&cells.commit_time, commit_micros),
            (&cells.messages, tally.messages),
            (&cells.failures, tally.failures),
            (&cells.reopenings, tally.reopenings),
            (&cells.quarantined, tally.quarantined),
            (&cells.purged, tally.purged),
        ] {
            counter.absolute(count);
        }
        cells.bytes.set(as_gauge(tally.bytes));
        cells.failing.set(if trouble.is_some() { 1.0 } else { 0.0 });
        cells.call.set(under_way.as_secs_f64());
    }

    /// Says what the process has used: processor time since it was started, and memory now. For each scrape.
    pub fn show_process(&self, processor_time: Duration, resident_bytes: u64) {
        self.cells.cpu.absolute(u64::try_from(processor_time.as_micros()).unwrap_or(u64::MAX));
        self.cells.resident.set(as_gauge(resident_bytes));
    }

    /// One request was answered.
    pub fn answered(&self, door: DoorName, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.cells.http[door as usize][class].increment(1);
    }

    /// A door closed a connection without an answer.
    pub fn dropped(&self, door: DoorName, why: Dropped) {
        self.cells.dropped[door as usize][why as usize].increment(1);
    }

    /// A door could not accept a connection.
    pub fn accept_failed(&self, door: DoorName) {
        self.cells.accept_failed[door as usize].increment(1);
    }

    /// A device was answered with 101.
    pub fn handshake_accepted(&self) {
        self.cells.handshakes.increment(1);
    }

    /// A device was not let in.
    pub fn handshake_refused(&self, why: Refusal) {
        self.cells.handshakes_refused[why as usize].increment(1);
    }

    /// The node began to drain.
    pub fn draining(&self) {
        self.cells.draining.set(1.0);
    }

    /// Everything, as Prometheus text.
    #[must_use]
    pub fn render(&self) -> String {
        self.exposition.render()
    }

    /// Folds histogram observations into their buckets; until then they are kept one by one, so the server calls it
    /// every few seconds whether or not anybody scrapes.
    pub fn run_upkeep(&self) {
        self.exposition.run_upkeep();
    }
}

fn add_by_class(counters: &[Counter; 5], counts: &ByClass) {
    for (counter, count) in counters.iter().zip(counts.0) {
        add_some(counter, count);
    }
}

/// Exact as far as integers travel, 2^53: far above what a node can hold.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^53")]
fn as_gauge(held: u64) -> f64 {
    held as f64
}

/// 1 where nothing is held at all: nobody has more than the others.
fn max_over_mean(held: impl ExactSizeIterator<Item = u64> + Clone) -> f64 {
    let (sum, shards) = (held.clone().sum::<u64>(), held.len() as u64);
    if sum == 0 { 1.0 } else { as_gauge(held.max().unwrap_or(0) * shards) / as_gauge(sum) }
}

/// Most counts of a turn are zero, and a counter is shared between shards: leave its cache line alone.
fn add_some(counter: &Counter, count: u64) {
    if count > 0 {
        counter.increment(count);
    }
}

/// Registers rows of the table with one recorder.
struct Register(PrometheusRecorder);

impl Cells {
    fn register(register: &Register, shards: usize) -> Self {
        let closed = CloseReason::ALL.map(CloseReason::name);
        Self {
            published: register.by_class(&PUBLISHED),
            accepted: register.by_class(&ACCEPTED),
            merged: register.by_class(&MERGED),
            shed: ShedReason::ALL
                .iter()
                .map(|reason| CLASSES.map(|class| register.counter(&SHED, &[class.name(), reason.name()])))
                .collect(),
            over_limit: LIMITS.map(|limit| register.counter(&OVER_LIMIT, &[limit.name()])),
            unavailable: Unavailable::ALL
                .iter()
                .map(|reason| register.counter(&UNAVAILABLE, &[reason.name()]))
                .collect(),
            duplicates: register.counter(&DUPLICATES, &[]),
            ids_evicted: register.counter(&IDS_EVICTED, &[]),
            batches: register.counter(&BATCHES, &[]),
            frames_level: register.counter(&FRAMES, &["level"]),
            frames_composed: register.counter(&FRAMES, &["composed"]),
            welcomes_encoded: register.counter(&WELCOMES_ENCODED, &[]),
            frames_refresh: register.counter(&FRAMES, &["refresh"]),
            frames_skipped: register.counter(&FRAMES_SKIPPED, &[]),
            frames_queued: register.counter(&FRAMES_QUEUED, &[]),
            messages_skipped: register.counter(&MESSAGES_SKIPPED, &[]),
            lane_full: register.counter(&LANE_FULL, &[]),
            frames_carried: register.counter(&FRAMES_CARRIED, &[]),
            frames_catching_up: register.counter(&FRAMES_CATCHING_UP, &[]),
            acks: register.counter(&ACKS, &[]),
            acks_ignored: register.counter(&ACKS_IGNORED, &[]),
            cursors_reset: register.counter(&CURSORS_RESET, &[]),
            streams_failed: register.counter(&STREAMS_FAILED, &[]),
            rooms_forgotten: register.counter(&ROOMS_FORGOTTEN, &[]),
            closed: closed.iter().map(|reason| register.counter(&CLOSED, &[reason])).collect(),
            holdings: (0..shards).map(|shard| register.holdings(shard)).collect(),
            held: Mutex::new(vec![Holdings::default(); shards]),
            ladder_changes: ["down", "up"].map(|direction| register.counter(&LADDER_CHANGES, &[direction])),
            busy_spread: register.gauge(&BUSY_SPREAD, &[]),
            members_spread: register.gauge(&MEMBERS_SPREAD, &[]),
            rooms_hot: register.gauge(&ROOMS_HOT, &[]),
            rooms_promoted: register.counter(&ROOMS_PROMOTED, &[]),
            rooms_demoted: register.counter(&ROOMS_DEMOTED, &[]),
            store: register.store(),
            cpu: register.counter(&CPU, &[]),
            resident: register.gauge(&RESIDENT, &[]),
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
            accept_failed: DoorName::ALL
                .iter()
                .map(|door| register.counter(&ACCEPT_FAILED, &[door.name()]))
                .collect(),
            handshakes: register.counter(&HANDSHAKES, &[]),
            handshakes_refused: Refusal::ALL
                .iter()
                .map(|why| register.counter(&HANDSHAKES_REFUSED, &[why.name()]))
                .collect(),
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

    fn by_class(&self, row: &Definition) -> [Counter; 5] {
        CLASSES.map(|class| self.counter(row, &[class.name()]))
    }

    fn holdings(&self, shard: usize) -> HoldingsCells {
        let shard = shard.to_string();
        let gauge = |row| self.gauge(row, &[&shard]);
        HoldingsCells {
            connections: gauge(&CONNECTIONS),
            members: gauge(&MEMBERS),
            rooms: gauge(&ROOMS),
            waiting: gauge(&WAITING),
            behind: gauge(&BEHIND),
            gathered: gauge(&GATHERED),
            not_durable: gauge(&NOT_DURABLE),
            busy: gauge(&BUSY),
            passes: gauge(&PASSES),
            stretch: gauge(&STRETCH),
            window_needed: gauge(&WINDOW_NEEDED),
            ladder_step: gauge(&LADDER_STEP),
            owed: gauge(&OUTBOUND_OWED),
        }
    }

    fn store(&self) -> StoreCells {
        StoreCells {
            commits: self.counter(&STORE_COMMITS, &[]),
            commit_time: self.counter(&STORE_COMMIT_TIME, &[]),
            messages: self.counter(&STORE_MESSAGES, &[]),
            failures: self.counter(&STORE_FAILURES, &[]),
            reopenings: self.counter(&STORE_REOPENINGS, &[]),
            quarantined: self.counter(&STORE_QUARANTINED, &[]),
            purged: self.counter(&STORE_PURGED, &[]),
            bytes: self.gauge(&STORE_BYTES, &[]),
            failing: self.gauge(&STORE_FAILING, &[]),
            call: self.gauge(&STORE_CALL, &[]),
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

fn key(row: &Definition, values: &[&str]) -> Key {
    assert_eq!(row.labels.len(), values.len(), "a value for each label of {}", row.name);
    let labels: Vec<Label> =
        row.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(row.name, labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock;
    use roomcast_core::room::tally::RoomTally;

    #[test]
    fn every_metric_of_the_table_is_shown_with_its_help_and_no_other() {
        let metrics = Metrics::new(2).unwrap();
        let now = clock::now().instant;
        let rooms = RoomTally { window: Some(Duration::from_millis(100)), ..RoomTally::default() };
        metrics.add(&Tally { written: vec![now], rooms, ..Tally::default() }, now);
        let text = metrics.render();
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
            assert!(row.kind != Kind::Histogram || row.name.ends_with("_seconds"), "{}", row.name);
        }
    }

    #[test]
    fn a_tally_lands_under_its_class_and_reason() {
        let metrics = Metrics::new(1).unwrap();
        let mut tally = Tally::default();
        tally.rooms.accepted.add(Class::Lossy, 3);
        tally.rooms.shed[ShedReason::RoomFull as usize].add(Class::Lossy, 2);
        tally.rooms.unavailable[Unavailable::StreamFull as usize] = 5;
        tally.closed[CloseReason::Behind.index()] = 4;
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
        let (spread, busy) = ("roomcast_shards_members_max_over_mean", "roomcast_shards_busy_max_over_mean");
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
        let (one, other) = (Metrics::new(1).unwrap(), Metrics::new(1).unwrap());
        one.handshake_accepted();
        assert!(one.render().contains("roomcast_handshakes_accepted_total 1"));
        assert!(other.render().contains("roomcast_handshakes_accepted_total 0"));
    }
}
