//! `roomcast-loadgen run`: asks the doors, connects, publishes, settles the ledger, reports.

pub(crate) mod args;
pub(crate) mod doors;
mod live;
pub(crate) mod settle;
mod stored;

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::clock::{monotonic_ns, unix_ms};
use crate::devices::type_figures::TypeFigures;
use crate::error::RunError;
use crate::figures::latency::{Latency, Percentiles};
use crate::figures::ratio;
use crate::fleet::preflight;
use crate::fleet::processes::{Fleet, Latest};
use crate::fleet::words::{Order, WorkerResult};
use crate::ledger::{Kind, Violations};
use crate::machine::environment::Environment;
use crate::node::cpu::{CpuFigures, Meter, Spent};
use crate::node::faults::{FaultDone, Faults};
use crate::node::memory::MemoryFigures;
use crate::node::samples::{Lately, NodeFigures, Sample, ServerWatch, enter_deliveries};
use crate::publish::publisher::{self, Outcomes};
use crate::publish::request::Traffic;
use crate::report::generator::GeneratorFigures;
use crate::report::output::{show, write_reason, write_text};
use crate::report::types::TypeTable;
use crate::report::{PublishedFigures, Report, Verdict, html, junit};
use crate::run::live::{Live, Totals};
use crate::run::settle::Merged;
use crate::run::stored::PullTime;
use crate::scenario::mix::{Class, Load};
use crate::scenario::plan::{Plan, Reliable};
use crate::scenario::schedule::Schedule;
use crate::stop;

/// The time from the order to start until the start, and an addition for each thousand devices of a worker: a
/// worker first plans the moves of every device.
const LEAD_NS: u64 = 300_000_000;
const LEAD_PER_THOUSAND_NS: u64 = 10_000_000;
/// The time between two looks for missing answers.
const LOOK_NS: u64 = 10_000_000;
/// Attempts at a reliable message: about ten seconds.
const ATTEMPTS_MAX: u32 = 15;
/// Attempts at a reliable message through restarts of the node: about two minutes.
const ATTEMPTS_MAX_RESTARTS: u32 = 80;

/// Time past the settling for everything after: last questions to the node, pulls of the store, the floor. A
/// run ends within seconds + settle + 10 s, whatever the node does.
const AFTER_SETTLE_NS: u64 = 10_000_000_000;
/// Time within the above for judging and writing.
const REPORT_NS: u64 = 1_000_000_000;
/// Time before the end of the last questions from which a silent node is not asked again.
const LAST_LOOK_NS: u64 = 2_000_000_000;
/// Longest wait for the publishers' threads past the end. They give up after 4 s, so a later end is a mistake
/// of this program.
const PUBLISHERS_AGE_MAX_NS: u64 = 60_000_000_000;

/// Runs `plan` and reports on stdout and to the files of the plan. Without a report the JSON file says why.
pub(crate) fn run(plan: &Plan) -> Result<Verdict, RunError> {
    let target = &plan.target;
    let report = measure(plan).inspect_err(|error| write_reason(error, target.json.as_deref()))?;
    show(&report, target.json.as_deref())
        .and_then(|()| write_text(target.html.as_deref(), || html::page(&report).to_string()))
        .and_then(|()| write_text(target.junit.as_deref(), || junit::xml(&report)))
        .map_err(|error| RunError::Usage(format!("writing the report: {error}")))?;
    Ok(report.verdict)
}

/// Runs `plan` without an output.
pub(crate) fn measure(plan: &Plan) -> Result<Report, RunError> {
    doors::look(plan).map_err(RunError::Target)?;
    let begun_ns = monotonic_ns();
    preflight::look(plan)?;
    let mut fleet = Fleet::start(plan)?;
    fleet.await_ready(plan.target.connect_seconds, |connected| {
        let start = plan.audience.at_start();
        drop(writeln!(std::io::stderr(), "connected {connected} of {start} devices"));
    })?;
    let connect_ms = (monotonic_ns() - begun_ns) / 1_000_000;
    let lead_ns = lead_ns(plan.devices, fleet.len());
    let start_ns = monotonic_ns() + lead_ns;
    let started_unix_ms = unix_ms() + lead_ns / 1_000_000;
    fleet.order_all(&Order::Start { start_ns })?;
    fleet.await_started()?;
    let meter = Meter::begin(plan);
    let mut server = ServerWatch::begin(plan.target.ops_doors.clone(), start_ns);
    let live = show_live(plan, start_ns, fleet.latest.clone(), server.lately.clone());
    let publishing: Vec<Publishing> =
        plan.loads.iter().map(|load| spawn_load(plan, load, start_ns)).collect();
    let reliable = plan.reliable.as_ref().map(|reliable| spawn_reliable(plan, reliable, start_ns));
    let faults = Faults::begin(&plan.faults, start_ns);
    let are_answered = || publishing.iter().chain(&reliable).all(Publishing::is_finished);
    let ended = await_end(plan, &fleet, start_ns, are_answered)?;
    let until_ns = ended.at_ns + plan.settle_ms * 1_000_000 + AFTER_SETTLE_NS - REPORT_NS;
    let outcomes = publishing.into_iter().map(await_published);
    let outcomes: Vec<Outcomes> = outcomes.collect::<Result<_, _>>()?;
    let reliable = reliable.map(await_published).transpose()?;
    let accepted = accepted(plan, &outcomes);
    let heads = reliable.as_ref().map(|reliable| reliable.published.heads_by_room()).unwrap_or_default();
    let grace_ms = plan.settle_ms;
    fleet.order_all(&Order::Finish { accepted, heads, grace_ms })?;
    let results = fleet.await_results(grace_ms)?;
    server.hush();
    let spent = meter.and_then(|meter| meter.end(plan));
    let silence = doors::silence(plan, until_ns.saturating_sub(LAST_LOOK_NS));
    // The lines leave the terminal before the report comes.
    drop(live);
    let (server, nodes) = server.end(plan);
    let faults = faults.end(until_ns);
    let workers_clock_error_ms = ratio(fleet.clock_error_ns()?, 1_000_000);
    let aside = Aside {
        workers: fleet.len(),
        workers_clock_error_ms,
        connect_ms,
        started_unix_ms,
        ended,
        spent,
        silence,
        until_ns,
        server,
        nodes,
        faults,
    };
    drop(fleet);
    Ok(settle(plan, aside, &outcomes, reliable.as_ref(), results))
}

fn lead_ns(devices: u32, workers: usize) -> u64 {
    // Workers plan at the same time, so the largest share decides.
    let of_worker = u64::from(devices).div_ceil((workers as u64).max(1));
    LEAD_NS + of_worker.div_ceil(1_000) * LEAD_PER_THOUSAND_NS
}

fn show_live(plan: &Plan, start_ns: u64, latest: Latest, node: Lately) -> Live {
    let schedules = plan.loads.iter().map(|load| &load.schedule);
    let schedules = schedules.chain(plan.reliable.as_ref().map(|reliable| &reliable.schedule));
    // Schedules of a plan start at 0, like the milliseconds of the progress.
    let schedules: Vec<Schedule> = schedules.cloned().collect();
    Live::begin(start_ns, plan.seconds_milli, move |at_ms| {
        let due = schedules.iter().map(|schedule| schedule.due_by(at_ms * 1_000_000)).sum();
        Totals { at_ms, due, workers: latest.take(), node: node.last() }
    })
}

/// The thread of a publisher.
type Publishing = std::thread::JoinHandle<std::io::Result<Outcomes>>;

fn spawn_load(plan: &Plan, load: &Load, start_ns: u64) -> Publishing {
    let mut load = load.clone();
    load.schedule.start_ns = start_ns;
    spawn(plan, Traffic { load, reliable_types: None, ttl_ms: None, attempts_max: 1 })
}

fn spawn_reliable(plan: &Plan, reliable: &Reliable, start_ns: u64) -> Publishing {
    let load = Load {
        type_name: reliable.types.names().collect::<Vec<_>>().join("+"),
        class: Class::Reliable,
        schedule: reliable.schedule.clone().starting(start_ns),
        count: None,
        keys: 0,
        length: reliable.length,
    };
    let attempts_max = if plan.awkward.through_restarts { ATTEMPTS_MAX_RESTARTS } else { ATTEMPTS_MAX };
    let reliable_types = Some(reliable.types.clone());
    spawn(plan, Traffic { load, reliable_types, ttl_ms: reliable.ttl_ms, attempts_max })
}

fn spawn(plan: &Plan, traffic: Traffic) -> Publishing {
    let plan = plan.clone();
    std::thread::spawn(move || publisher::publish(&plan, traffic))
}

/// Accepted messages by type and room: a device is done after so many.
fn accepted(plan: &Plan, outcomes: &[Outcomes]) -> Vec<Vec<u64>> {
    let by_type = plan.loads.iter().zip(outcomes);
    let accepted = by_type.map(|(load, outcomes)| {
        let each = if load.is_counter() { load.each() } else { 1 };
        let rooms = outcomes.published.ok_by_room(each);
        // Messages of another run would complete the count too early, so devices wait until the end of their
        // time.
        if plan.others { vec![u64::MAX; rooms.len()] } else { rooms }
    });
    accepted.collect()
}

/// The end of publishing.
#[derive(Debug, Clone, Copy)]
struct Ended {
    /// From the first publish to the last answer.
    took_ms: u64,
    /// The end of the plan, or of the run before.
    at_ns: u64,
    /// From the first publish to the signal that ended the run early.
    stopped_after_ms: Option<u64>,
}

/// Waits for the answers to all publishes and for the end of the run. The loss of a worker ends the wait at
/// once, and so does a signal.
fn await_end(
    plan: &Plan,
    fleet: &Fleet,
    start_ns: u64,
    are_answered: impl Fn() -> bool,
) -> Result<Ended, RunError> {
    // Devices come and go, and faults happen, until the end of the run: that end may be after the last
    // message.
    let mut end_ns = start_ns + plan.seconds_milli * 1_000_000;
    let mut took_ns = None;
    let mut stopped_after_ms = None;
    loop {
        let now_ns = monotonic_ns();
        if took_ns.is_none() && are_answered() {
            took_ns = Some(now_ns.saturating_sub(start_ns));
        }
        if now_ns < end_ns && stop::is_wanted() {
            end_ns = now_ns;
            stopped_after_ms = Some(now_ns.saturating_sub(start_ns) / 1_000_000);
        }
        match took_ns {
            Some(took_ns) if now_ns >= end_ns => {
                return Ok(Ended { took_ms: took_ns / 1_000_000, at_ns: end_ns, stopped_after_ms });
            }
            None if now_ns > end_ns + PUBLISHERS_AGE_MAX_NS => {
                return Err(RunError::Target("the publishers' threads do not end".into()));
            }
            _ => fleet.stay_until(now_ns + LOOK_NS)?,
        }
    }
}

fn await_published(publishing: Publishing) -> Result<Outcomes, RunError> {
    publishing
        .join()
        .map_err(|_| RunError::Target("the publisher broke down".into()))?
        .map_err(|error| RunError::Target(format!("publishing: {error}")))
}

/// The parts of a report besides publishes and the figures of devices.
#[derive(Debug)]
struct Aside {
    workers: usize,
    workers_clock_error_ms: f64,
    connect_ms: u64,
    /// The due time of the first publish.
    started_unix_ms: u64,
    ended: Ended,
    /// Processor time of the node, or the reason of its absence.
    spent: Result<Spent, String>,
    /// The doors that did not answer after the run, in words.
    silence: Option<String>,
    /// End of the time for the report.
    until_ns: u64,
    server: Vec<Sample>,
    nodes: Vec<NodeFigures>,
    faults: Vec<FaultDone>,
}

/// Merges the results of the workers and judges them against the publishes.
fn settle(
    plan: &Plan,
    aside: Aside,
    outcomes: &[Outcomes],
    reliable: Option<&Outcomes>,
    results: Vec<WorkerResult>,
) -> Report {
    let mut merged = Merged::of(results);
    let accounts = merged.check_rooms(outcomes, plan);
    merged.check_readable(plan);
    judge_silence(&aside, outcomes.iter().chain(reliable), &mut merged.violations);
    let Ended { took_ms, stopped_after_ms, .. } = aside.ended;
    let first_to_last = merged.first_to_last(plan);
    let generator = with_publishers(merged.generator, outcomes.iter().chain(reliable));
    let lateness = lateness(outcomes, reliable);
    let failed_by_second = failed_by_second(outcomes.iter().chain(reliable));
    let mut pull_time = PullTime { deadline_ns: aside.until_ns, silence: aside.silence };
    let reliable =
        reliable.and_then(|reliable| merged.check_streams(reliable, plan, took_ms, &mut pull_time));
    let cpu = CpuFigures::of(aside.spent, &merged.seen, plan, pull_time.deadline_ns);
    let types =
        TypeTable::of(plan, outcomes, &merged.types, &merged.readings, &accounts, &first_to_last.types);
    let server = with_deliveries(aside.server, &merged.types);
    let Merged { seen, violations, joins, moves, judged_rooms, runs_changed, .. } = merged;
    let published = PublishedFigures::of(outcomes, took_ms);
    let latency = together(merged.types.iter().map(|figures| &figures.latency));
    let limited = generator.limit(lateness.p99_ms);
    let verdict = Verdict::of(&violations, &published, reliable.as_ref(), judged_rooms, limited.as_deref());
    let seconds = ratio(plan.seconds_milli, 1_000);
    let stopped_after = stopped_after_ms.map(|after_ms| ratio(after_ms, 1_000));
    Report {
        partial: stopped_after.map(|after| format!("stopped by a signal after {after:.1} of {seconds} s")),
        devices: plan.devices,
        rooms: plan.rooms,
        workers: aside.workers,
        workers_clock_error_ms: aside.workers_clock_error_ms,
        encoding: plan.encoding,
        payload_bytes: plan.payload_bytes,
        messages_per_request: plan.messages_per_request,
        rate_per_s: ratio(plan.loads.iter().map(|load| load.schedule.rate_milli).sum(), 1_000),
        seconds: stopped_after.unwrap_or(seconds),
        started_unix_ms: aside.started_unix_ms,
        connect_ms: aside.connect_ms,
        published,
        types,
        reliable,
        awkward: plan.awkward,
        faults: aside.faults,
        failed_by_second,
        moves,
        seen,
        messages_per_frame: ratio(seen.deliveries, seen.frames),
        latency: latency.percentiles(),
        curve: latency.curve(),
        first_to_last: first_to_last.all,
        skew: first_to_last.skew,
        join: joins.percentiles(),
        generator,
        memory: MemoryFigures::of_samples(&server),
        server,
        nodes: aside.nodes,
        environment: Environment::read(),
        scenario: plan.scenario.clone(),
        command: plan.target.command.clone(),
        thresholds: Vec::new(),
        lateness,
        answer: all(outcomes.iter().map(|outcomes| &outcomes.answer_latency)),
        cpu,
        judged_rooms,
        runs_changed,
        verdict: verdict.of_a_part(stopped_after_ms.is_some()),
        violations,
    }
    .held_to(&plan.thresholds)
}

fn failed_by_second<'a>(outcomes: impl Iterator<Item = &'a Outcomes>) -> BTreeMap<u64, u64> {
    let mut seconds = BTreeMap::new();
    for (second, failed) in outcomes.flat_map(|outcomes| outcomes.published.failed_by_second()) {
        *seconds.entry(second).or_default() += failed;
    }
    seconds
}

fn judge_silence<'a>(
    aside: &Aside,
    outcomes: impl Iterator<Item = &'a Outcomes> + Clone,
    violations: &mut Violations,
) {
    if let Some(doors) = &aside.silence {
        violations.add(Kind::NodeSilent, 1, || silence_words(doors, outcomes));
    }
}

/// The samples of the node, with the messages that devices got in the same seconds.
fn with_deliveries(mut samples: Vec<Sample>, types: &[TypeFigures]) -> Vec<Sample> {
    let moments: Vec<_> = types.iter().flat_map(|figures| figures.timeline.moments()).collect();
    enter_deliveries(&mut samples, &moments);
    samples
}

fn with_publishers<'a>(
    generator: GeneratorFigures,
    outcomes: impl Iterator<Item = &'a Outcomes>,
) -> GeneratorFigures {
    let busiest_publisher = outcomes.map(|outcomes| outcomes.busy).fold(0.0, f64::max);
    GeneratorFigures { busiest_publisher, ..generator }
}

/// The doors without an answer, and the time since which no publish was answered.
fn silence_words<'a>(silence: &str, outcomes: impl Iterator<Item = &'a Outcomes> + Clone) -> String {
    let start_ns = outcomes.clone().map(|outcomes| outcomes.published.schedule.start_ns).min();
    match outcomes.map(|outcomes| outcomes.answered_ns).max() {
        None => silence.to_owned(),
        Some(0) => format!("{silence}; no publish was ever answered"),
        Some(answered_ns) => {
            let after = ratio(answered_ns.saturating_sub(start_ns.unwrap_or(0)) / 1_000_000, 1_000);
            format!("{silence}; the last answer to a publish came {after:.1} s after the start")
        }
    }
}

/// The lateness of all messages, reliable messages included.
fn lateness(outcomes: &[Outcomes], reliable: Option<&Outcomes>) -> Percentiles {
    all(outcomes.iter().chain(reliable).map(|outcomes| &outcomes.lateness))
}

fn all<'a>(latencies: impl Iterator<Item = &'a Latency>) -> Percentiles {
    together(latencies).percentiles()
}

fn together<'a>(latencies: impl Iterator<Item = &'a Latency>) -> Latency {
    let mut all = Latency::default();
    latencies.for_each(|latency| all.merge(&latency.buckets()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Published;

    #[test]
    fn large_workers_are_told_the_start_sooner() {
        let lead_ms = |devices, workers| lead_ns(devices, workers) / 1_000_000;
        assert_eq!([lead_ms(0, 0), lead_ms(1, 1), lead_ms(38_000, 2)], [300, 310, 490]);
    }

    #[test]
    fn a_reliable_publisher_that_is_late_is_the_generators_limit_too() {
        let outcomes = |late_ms: u64| {
            let mut outcomes = Outcomes::new(Published::new(Schedule::even(100, 10_000, 1, 1)));
            outcomes.lateness.record(late_ms * 1_000_000, 100);
            outcomes
        };
        let late = lateness(&[outcomes(1)], Some(&outcomes(500)));
        assert!(late.count == 200 && late.p99_ms > 400.0, "{late:?}");
        assert!(lateness(&[outcomes(1)], None).p99_ms < 2.0);
    }
}
