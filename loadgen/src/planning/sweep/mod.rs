//! `roomcast-loadgen sweep`: measures the node at many points, for `plan`.
//!
//! Each point is a run of its own, in rooms of its own, and becomes a row. A row that the models can't use
//! says the reason. The file is written after each point, so an interrupted sweep keeps its rows.

pub(crate) mod design;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::clock::unix_ms;
use crate::error::RunError;
use crate::figures::ratio;
use crate::machine::environment::Environment;
use crate::planning::model::cost::{BASE, Linear, Measured};
use crate::planning::model::{Column, Features, Row, Sweep};
use crate::report::output::{self, tell};
use crate::report::{Report, Verdict};
use crate::run;
use crate::run::args::RunArgs;
use crate::scenario::plan::Plan;
use crate::scenario::shape::RunShape;
use crate::scenario::units::Span;
use crate::stop;
use crate::wire::doors::ANSWER_AGE_MAX;
use crate::wire::frame::header_bytes;

/// The gauge with a value for each shard.
pub(crate) const ROOMS: &str = "roomcast_rooms";
/// Past this part of its processors a node flushes late, so its windows can't be estimated.
const BUSY_MAX: f64 = 0.9;

/// Flags of `run` without an effect on a sweep, and the replacement for each.
const REFUSED: [(&str, &str); 14] = [
    ("--scenario", BY_POINTS),
    ("--set", BY_POINTS),
    ("--devices", BY_POINTS),
    ("--rooms", BY_POINTS),
    ("--rate", BY_POINTS),
    ("--type", BY_POINTS),
    ("--reliable-rate", BY_POINTS),
    ("--payload-bytes", BY_POINTS),
    ("--messages-per-request", BY_POINTS),
    ("--reconnect-share", BY_POINTS),
    ("--seconds", "each point publishes for --probe-seconds"),
    ("--threshold", "a sweep measures and has no thresholds"),
    ("--html", "plan --html makes a page from the rows of --json"),
    ("--junit", "a sweep measures and has no thresholds"),
];
const BY_POINTS: &str = "the points of the sweep decide this (the built-in points, or --points)";

/// The points decide devices, rooms, rates, payloads, requests and types, so the flags for these are refused.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    run: RunArgs,
    /// TOML file of the points to measure, each a `[[point]]` with devices and rate. Optional keys are rooms,
    /// payload_bytes, messages_per_request, reliable_rate, reconnect_share and encoding. Default: 22 built-in
    /// points.
    #[arg(long, conflicts_with_all = ["devices_max", "rate_max"])]
    points: Option<PathBuf>,
    /// Devices of the largest built-in point.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(500..))]
    devices_max: u32,
    /// Messages a second of the built-in points; a few points publish up to 1.5 times as much. At least 300:
    /// below, no request would hold more than a single message, and the costs of messages and requests could
    /// not be told apart.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(300..=1_000_000))]
    rate_max: u32,
    /// Time for which each point publishes.
    #[arg(long, default_value = "8s")]
    probe_seconds: Span,
    /// Runs of each point. The run with the least processor time of the node counts, because other work on
    /// the machine can only add to the cost.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeat: u32,
    /// Processors of the node. Default: the number of its shards.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    cores: Option<u32>,
}

/// Measures every point and writes the rows to the JSON file. Rows that fit no model are a failed verdict.
pub(crate) fn run(args: &SweepArgs) -> Result<Verdict, RunError> {
    let usage = RunError::Usage;
    args.run.refuse(&REFUSED).map_err(usage)?;
    let plan = args.run.clone().resolve().map_err(usage)?;
    let json =
        plan.target.json.clone().ok_or_else(|| usage("--json: a sweep needs a file for its rows".into()))?;
    let points = points(args, &plan).map_err(usage)?;
    let condition = check_condition(&points).map_err(usage)?;
    let runs = args.run.probing(args.probe_seconds);
    let plan_of = |number: usize, point: &RunShape| {
        runs.shaped(point).resolve().map_err(|error| format!("point {}: {error}", number + 1))
    };
    // A mistake in the last point is reported before the first load, and not an hour later.
    for (number, point) in points.iter().enumerate() {
        drop(plan_of(number, point).map_err(usage)?);
    }
    tell(&format!("{} points, condition number of the points {condition:.1}\n", points.len()))?;
    let mut sweep = Sweep {
        started_unix_ms: unix_ms(),
        processors: args.cores.unwrap_or(0),
        environment: Environment::default(),
        command: plan.target.command,
        rows: Vec::new(),
    };
    let mut broke_a_promise = false;
    for (number, point) in points.iter().enumerate() {
        let mut least: Option<Row> = None;
        for _ in 0..args.repeat {
            // Resolved again, because each run needs rooms of its own.
            let plan = plan_of(number, point).map_err(usage)?;
            let report = match run::measure(&plan) {
                Err(RunError::Stopped(_)) => return stopped(&sweep, points.len(), &json),
                // The rows so far are in the file; without any row the file says why.
                Err(error) if sweep.rows.is_empty() => {
                    output::write_reason(&error, Some(&json));
                    return Err(error);
                }
                measured => measured?,
            };
            if report.verdict == Verdict::Partial || stop::is_wanted() {
                return stopped(&sweep, points.len(), &json);
            }
            broke_a_promise |= report.verdict == Verdict::Violations;
            let metrics =
                plan.target.ops_door().read("/metrics", ANSWER_AGE_MAX).map_err(RunError::Target)?;
            let rooms = gauges(&metrics, ROOMS);
            if sweep.processors == 0 {
                sweep.processors = u32::try_from(rooms.len()).unwrap_or(1).max(1);
            }
            let row = row(point, &report, rooms.iter().sum(), f64::from(sweep.processors));
            sweep.environment = report.environment;
            least = Some(better(least, row));
        }
        let Some(row) = least else { continue };
        tell(&line(number + 1, points.len(), &row))?;
        sweep.rows.push(row);
        output::write_json(&sweep, Some(&json))
            .map_err(|error| usage(format!("--json {}: {error}", json.display())))?;
    }
    let concluded = conclusion(&sweep);
    tell(concluded.as_ref().unwrap_or_else(|unfit| unfit))?;
    Ok(match concluded {
        _ if broke_a_promise => Verdict::Violations,
        Ok(_) => Verdict::Ok,
        // `plan` would refuse these rows.
        Err(_) => Verdict::ThresholdFailed,
    })
}

/// The condition number of the points, or the reason why no model could be made of them.
fn check_condition(points: &[RunShape]) -> Result<f64, String> {
    let condition = design::condition(points);
    if condition <= design::CONDITION_MAX {
        return Ok(condition);
    }
    Err(format!(
        "--points: the columns are nearly collinear (condition number {condition:.0}, at most {}), so no model \
         could separate the costs",
        design::CONDITION_MAX
    ))
}

/// The end of a sweep by a signal: the rows so far are in the file, and the point under way is left out.
fn stopped(sweep: &Sweep, points: usize, json: &Path) -> Result<Verdict, RunError> {
    let rows = sweep.rows.len();
    if rows == 0 {
        let reason = RunError::Stopped("stopped by a signal before the first point was whole".into());
        output::write_reason(&reason, Some(json));
        return Err(reason);
    }
    tell(&format!(
        "PARTIAL      stopped by a signal: {rows} of {points} points are in {}\n",
        json.display()
    ))?;
    Ok(Verdict::Partial)
}

/// The better of two runs of a point: a usable run before an unusable run, then the run with less processor
/// time.
fn better(one: Option<Row>, other: Row) -> Row {
    let rank = |row: &Row| (row.unusable_because.is_some(), row.cpu);
    one.filter(|one| rank(one) <= rank(&other)).unwrap_or(other)
}

fn points(args: &SweepArgs, plan: &Plan) -> Result<Vec<RunShape>, String> {
    let Some(path) = &args.points else {
        return Ok(design::built_in(args.devices_max, args.rate_max, plan.encoding));
    };
    let text = std::fs::read_to_string(path);
    text.map_err(|error| error.to_string())
        .and_then(|text| design::read(&text))
        .map_err(|error| format!("--points {}: {error}", path.display()))
}

/// The values of a gauge that has a value for each shard.
pub(crate) fn gauges(metrics: &str, name: &str) -> Vec<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?.1.parse().ok();
    metrics.lines().filter_map(value).collect()
}

/// The row of a run of `shape`, on a node with `rooms_alive` rooms of all runs and `processors` processors.
///
/// Every rate is for a second of publishing. The node's work after the last publish, until the last frame has
/// arrived, is little and belongs to the run.
pub(crate) fn row(shape: &RunShape, report: &Report, rooms_alive: f64, processors: f64) -> Row {
    let seconds = report.seconds.max(ratio(report.published.took_ms, 1_000)).max(0.001);
    let per_s = |count: u64| ratio(count, 1) / seconds;
    let seen = &report.seen;
    let reliable = report.reliable.as_ref();
    let requests = report.published.sent.div_ceil(shape.messages_of_a_request().into());
    let header_bytes = header_bytes(seen.bytes.checked_div(seen.frames).unwrap_or(0));
    let applied = reliable.map_or(0, |reliable| reliable.devices.applied + reliable.devices.duplicates);
    let spent = report.cpu.spent;
    let features = Features {
        connections: f64::from(report.devices),
        rooms: f64::from(report.rooms),
        publishes_per_s: per_s(requests + reliable.map_or(0, |reliable| reliable.sent)),
        messages_per_s: per_s(report.published.ok + reliable.map_or(0, |reliable| reliable.durable)),
        frames_per_s: per_s(seen.frames),
        deliveries_per_s: per_s(seen.deliveries + applied),
        bytes_per_s: per_s(seen.bytes + header_bytes * seen.frames),
        joins_per_s: per_s(spent.map_or(0, |spent| spent.joins)),
        acks_per_s: per_s(reliable.map_or(0, |reliable| reliable.devices.acks_sent)),
        flushes_per_s: per_s(seen.frames) / shape.members().max(1.0),
        idle_rooms: (rooms_alive - f64::from(report.rooms)).max(0.0),
    };
    let cpu = per_s(spent.map_or(0, |spent| spent.cpu_us)) / 1_000_000.0;
    let sockets = report.server.iter().filter_map(|sample| sample.socket_bytes).max();
    Row {
        shape: *shape,
        features,
        cpu,
        memory_bytes: report.memory.readings.last().map_or(0.0, |reading| ratio(reading.bytes, 1)),
        socket_bytes: sockets.map(|bytes| ratio(bytes, 1)),
        p99_ms: report.latency.p99_ms,
        unusable_because: unusable_because(report, cpu, processors),
    }
}

fn unusable_because(report: &Report, cpu: f64, processors: f64) -> Option<String> {
    match report.verdict {
        Verdict::Violations => Some("a promise was broken".into()),
        Verdict::NothingPublished => Some("nothing was published".into()),
        Verdict::NothingJudged => Some("nothing was judged".into()),
        Verdict::Partial => Some("the run was stopped early".into()),
        _ if report.cpu.spent.is_none() => {
            Some(report.cpu.missing_because.clone().unwrap_or_else(|| "no processor time".into()))
        }
        // The node did less than the shape asks.
        _ if report.published.ok < report.published.sent => {
            Some(format!("only {} of {} messages were accepted", report.published.ok, report.published.sent))
        }
        // A late generator publishes in bursts, so the node did other work than the shape asks.
        Verdict::GeneratorLimited => {
            let limit = report.generator.limit(report.lateness.p99_ms);
            Some(format!("generator-limited: {}", limit.unwrap_or_else(|| "its own limit".to_owned())))
        }
        _ if cpu >= BUSY_MAX * processors => {
            Some(format!("the node's processors were full: {cpu:.2} of {processors} busy"))
        }
        Verdict::Ok | Verdict::ThresholdFailed => None,
    }
}

fn line(number: usize, points: usize, row: &Row) -> String {
    let Row { shape, features, cpu, p99_ms, memory_bytes, .. } = row;
    let RunShape { devices, rooms, rate, messages_per_request, payload_bytes, .. } = shape;
    let Features { frames_per_s, deliveries_per_s, bytes_per_s, joins_per_s, .. } = features;
    let unusable = row.unusable_because.as_ref().map(|why| format!("; not used: {why}")).unwrap_or_default();
    format!(
        "{number:>2}/{points} {devices:>6} devices, {rooms:>4} rooms, {rate:>7} messages/s, {messages_per_request} a \
         request, of {payload_bytes} bytes: {frames_per_s:.0} frames/s, {deliveries_per_s:.0} deliveries/s, \
         {:.1} MB/s, \
         {joins_per_s:.0} joins/s; cpu {cpu:.3}, {:.1} MiB, p99 {p99_ms:.1} ms{unusable}\n",
        bytes_per_s / 1e6,
        memory_bytes / f64::from(1 << 20),
    )
}

/// The columns of the processor model. Rooms are left out, because a room costs processor time by its
/// flushes, and flushes are a column.
pub(crate) fn cpu_columns() -> Vec<Column> {
    let rooms = |column: &Column| column.name != "rooms";
    std::iter::once(BASE).chain(Features::COLUMNS.into_iter().filter(rooms)).collect()
}

/// The quality of the processor model, in words. `Err`: no model fits the rows.
fn conclusion(sweep: &Sweep) -> Result<String, String> {
    let usable = sweep.rows.iter().filter(|row| row.unusable_because.is_none());
    let usable: Vec<Measured> = usable.map(|row| (row.features, row.cpu)).collect();
    let rows = format!("{} of {} rows usable", usable.len(), sweep.rows.len());
    let model = Linear::fit(&cpu_columns(), &usable).map_err(|reason| format!("{rows}: {reason}\n"))?;
    let Linear { condition_number, .. } = model;
    let [own, most, rms] =
        [model.residual_max, model.left_out_max, model.left_out_rms].map(|off| 100.0 * off);
    Ok(format!(
        "{rows}; condition number of the measured rows {condition_number:.1}; the processor model is at most \
         {own:.1} % off its own rows, and {most:.1} % off rows left out of the fit (root mean square {rms:.1} %)\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::model::usl::Usl;
    use crate::report::tests::made_up;

    const SPENT: &str = r#"{"cpu_us": 1000, "took_us": 2000, "joins": 3}"#;

    #[test]
    fn flags_without_an_effect_are_refused_before_a_file_is_made() {
        for flags in REFUSED.map(|(flag, _)| match flag {
            "--type" => "--type chat=5".to_owned(),
            "--reconnect-share" => "--reconnect-share 0.5".to_owned(),
            flag => format!("{flag} 7"),
        }) {
            let args: SweepArgs = run::args::typed(&format!("--json /nowhere/at/all.json {flags}")).unwrap();
            let error = run(&args).unwrap_err().to_string();
            let (flag, _) = flags.split_once(' ').unwrap();
            assert!(error.starts_with(&format!("{flag} can't be used here: ")), "{flags}: {error}");
        }
    }

    #[test]
    fn of_two_runs_of_a_point_the_usable_one_and_then_the_cheaper_counts() {
        let shape: RunShape = toml::from_str("devices = 1\nrate = 1").unwrap();
        let row = |cpu: f64, unusable: Option<&str>| Row {
            shape,
            features: Features::default(),
            cpu,
            memory_bytes: 0.0,
            socket_bytes: None,
            p99_ms: 0.0,
            unusable_because: unusable.map(str::to_owned),
        };
        assert_eq!(better(Some(row(0.2, None)), row(0.1, None)).cpu, 0.1);
        assert_eq!(better(Some(row(0.2, None)), row(0.1, Some("late"))).cpu, 0.2);
        assert_eq!(better(Some(row(0.1, Some("late"))), row(0.2, None)).cpu, 0.2);
        assert_eq!(better(None, row(0.3, Some("late"))).cpu, 0.3);
    }

    #[test]
    fn rooms_of_runs_before_are_idle_and_not_of_the_run() {
        let shape: RunShape = toml::from_str("devices = 1000\nrate = 500\nrooms = 4").unwrap();
        let row = row(&shape, &made_up(), 44.0, 2.0);
        assert_eq!((row.features.rooms, row.features.idle_rooms), (4.0, 40.0));
        let columns: Vec<&str> = cpu_columns().iter().map(|column| column.name).collect();
        assert!(!columns.contains(&"rooms") && !columns.contains(&"idle rooms"));
    }

    #[test]
    fn a_run_that_the_generator_limited_is_marked() {
        let mut report = made_up();
        let why = |report: &Report| unusable_because(report, 0.1, 2.0).unwrap_or_default();
        report.published.ok = report.published.sent;
        report.cpu.spent = serde_json::from_str(SPENT).unwrap();
        assert_eq!(why(&report), "");
        report.verdict = Verdict::GeneratorLimited;
        report.generator.busiest_worker = 0.97;
        assert!(
            why(&report).starts_with("generator-limited: a worker used 0.97 of a processor"),
            "{}",
            why(&report)
        );
    }

    #[test]
    fn rows_that_no_model_fits_are_no_success() {
        let sweep = |count: usize| {
            let mut sweep = crate::planning::capacity::known_sweep(1, Usl::default()).1;
            sweep.rows.truncate(count);
            sweep
        };
        assert!(conclusion(&sweep(22)).unwrap().contains("22 of 22 rows usable; condition"));
        assert!(conclusion(&sweep(5)).unwrap_err().contains("5 usable rows are too few"));
    }

    #[test]
    fn a_gauge_is_summed_over_the_shards_and_no_other_is() {
        let metrics = "# HELP roomcast_rooms x\nroomcast_rooms{shard=\"0\"} 3\nroomcast_rooms{shard=\"1\"} 4\n\
                       roomcast_rooms_hot 9\n";
        assert_eq!(gauges(metrics, ROOMS), [3.0, 4.0]);
        assert!(gauges(metrics, "roomcast").is_empty());
    }
}
