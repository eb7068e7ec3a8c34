//! `roomcast-loadgen selftest`: what this machine can generate and check.
//!
//! A run's own parts, against doors that cost nearly nothing (`source`): a worker process with its devices, which judges
//! every frame as in any run; the ledger; and the publisher. Where there are two processors the worker has one to itself.

use std::fmt;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::Args;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock::monotonic_ns;
use crate::commands::source::{Doors, Stream, Streamed};
use crate::error::RunError;
use crate::figures::latency::Percentiles;
use crate::figures::ratio;
use crate::fleet::processes::Fleet;
use crate::fleet::words::Order;
use crate::fleet::worker::SETTLE_NS;
use crate::ledger::{Outcome, Published, Violations};
use crate::machine::environment::{Environment, file};
use crate::publish::publisher::{self, Outcomes};
use crate::publish::request::Traffic;
use crate::report::Verdict;
use crate::report::output::{openable, show};
use crate::run::args::{RunArgs, typed};
use crate::run::settle::Merged;
use crate::scenario::mix::{Load, type_seed};
use crate::scenario::payload::Payloads;
use crate::scenario::plan::{Plan, room_name};

/// Bytes of each payload.
const PAYLOAD_BYTES: usize = 100;
/// Frames of a batched write.
const FRAMES_PER_WRITE: usize = 16;
/// Frames that each device may be sent in a second. Past it the source has no more, and the part ends early.
const FRAMES_PER_SECOND_MAX: u32 = 40_000;
/// Actions a second of the publishing part.
const ACTIONS_PER_SECOND: u32 = 2_000;
/// How long devices may take to connect, and to read what they were sent.
const CONNECT_SECONDS: u64 = 30;
/// From telling the worker the start to the start.
const LEAD_NS: u64 = 100_000_000;

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Devices of the worker whose checking is measured.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=19_000))]
    devices: u32,
    /// How long each of the three parts takes.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Write the figures here as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// This machine's ceiling as a generator.
#[derive(Debug, Serialize, Deserialize)]
struct Ceiling {
    devices: u32,
    payload_bytes: usize,
    seconds: u32,
    /// Sixteen frames in each write.
    batched: Verified,
    /// One frame in each write.
    single: Verified,
    publishing: PublishingFigures,
    environment: Environment,
    violations: Violations,
}

/// How fast a worker checked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Verified {
    frames_per_write: usize,
    /// Frames that the worker judged.
    frames: u64,
    /// Of those: decoded; the others were compared with one of these.
    decoded: u64,
    /// By the clock, from the start until the worker had the last.
    frames_per_s: f64,
    /// By the worker's processor time, the kernel's work for it included.
    frames_per_s_per_core: f64,
    /// Part of that time for which the worker had a processor.
    worker_busy: f64,
    /// The same of the source: near 1 it could not send more.
    source_busy: f64,
}

/// How late publishes left.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct PublishingFigures {
    actions_per_s: u32,
    sent: u64,
    /// Of those: answered as accepted.
    ok: u64,
    /// From when an action was due to when it left.
    lateness: Percentiles,
    /// From when it left to its answer.
    answer: Percentiles,
    /// For how long the publisher could have gone on and others had the processors: much of it, and the lateness says more
    /// about what else this machine does.
    waited_ms: f64,
}

/// Measures, and says what it came to on stdout and in the JSON file.
///
/// # Errors
/// [`RunError`], when something could not be measured or said.
pub(crate) fn run(args: &SelftestArgs) -> Result<Verdict, RunError> {
    openable("--json", args.json.as_ref()).map_err(RunError::Usage)?;
    let failed = |reason: String| RunError::Target(format!("selftest: {reason}"));
    let mut violations = Violations::default();
    let mut verify = |frames_per_write| {
        drop(writeln!(std::io::stderr(), "verifying, {frames_per_write} frames in each write"));
        verified(args, frames_per_write, &mut violations).map_err(failed)
    };
    let batched = verify(FRAMES_PER_WRITE)?;
    let single = verify(1)?;
    drop(writeln!(std::io::stderr(), "publishing, {ACTIONS_PER_SECOND} actions/s"));
    let ceiling = Ceiling {
        devices: args.devices,
        payload_bytes: PAYLOAD_BYTES,
        seconds: args.seconds,
        batched,
        single,
        publishing: published(args).map_err(failed)?,
        environment: Environment::read(),
        violations,
    };
    show(&ceiling, args.json.as_deref())
        .map_err(|error| RunError::Usage(format!("writing the figures: {error}")))?;
    let PublishingFigures { sent, ok, .. } = ceiling.publishing;
    Ok(match (ceiling.violations.is_empty(), sent == ok) {
        (false, _) => Verdict::Violations,
        (true, false) => Verdict::ThresholdFailed,
        (true, true) => Verdict::Ok,
    })
}

/// The source's process. It is ended with this.
struct Source {
    child: Child,
    orders: Option<ChildStdin>,
    words: Lines<BufReader<ChildStdout>>,
    doors: Doors,
}

impl Source {
    fn start() -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("starting the source's process: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("source").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let orders = child.stdin.take();
        let stdout = child.stdout.take();
        let mut words = BufReader::new(stdout.ok_or("the source has no stdout")?).lines();
        let doors = word(&mut words)?;
        Ok(Self { child, orders, words, doors })
    }

    fn stream(&mut self, stream: &Stream) -> Result<Streamed, String> {
        let orders = self.orders.as_mut().ok_or("the source has no stdin")?;
        let mut line = serde_json::to_vec(stream).map_err(|error| error.to_string())?;
        line.push(b'\n');
        orders.write_all(&line).map_err(|error| format!("the source: {error}"))?;
        word(&mut self.words)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // It ends when its stdin does.
        drop(self.orders.take());
        drop(self.child.wait());
    }
}

/// The next word of a source.
fn word<T: serde::de::DeserializeOwned>(words: &mut Lines<BufReader<ChildStdout>>) -> Result<T, String> {
    let line = words.next().and_then(Result::ok).ok_or("the source ended")?;
    serde_json::from_str(&line).map_err(|error| format!("the source said {line:?}: {error}"))
}

/// A run at the source's doors, as if it had been typed.
fn plan(args: &SelftestArgs, doors: Doors, rate: u32) -> Result<Plan, String> {
    let flags = format!(
        "--devices {} --rate {rate} --seconds {} --payload-bytes {PAYLOAD_BYTES} --encoding proto \
         --viewer-door ws://{} --publisher-door http://{} --ops-door http://{} --connect-seconds {CONNECT_SECONDS}",
        args.devices, args.seconds, doors.viewer, doors.publisher, doors.ops
    );
    typed::<RunArgs>(&flags)?.resolve()
}

/// The one load of such a run, from so on.
fn load(plan: &Plan, start_ns: u64) -> Result<Load, String> {
    let mut load = plan.loads.first().cloned().ok_or("a run publishes something")?;
    load.schedule.start_ns = start_ns;
    Ok(load)
}

fn verified(
    args: &SelftestArgs,
    frames_per_write: usize,
    violations: &mut Violations,
) -> Result<Verified, String> {
    let allowed = processors();
    // Children run where the thread runs that starts them.
    pin(allowed.first().into_iter());
    let source = Source::start();
    pin(allowed.last().into_iter());
    let started = source.and_then(|source| {
        let plan = plan(args, source.doors, FRAMES_PER_SECOND_MAX)?;
        let fleet = Fleet::start(&plan).map_err(|error| error.to_string())?;
        Ok((source, plan, fleet))
    });
    pin(allowed.iter());
    let (mut source, plan, fleet) = started?;
    measure(&mut source, &plan, fleet, args, frames_per_write, violations)
}

fn measure(
    source: &mut Source,
    plan: &Plan,
    mut fleet: Fleet,
    args: &SelftestArgs,
    frames_per_write: usize,
    violations: &mut Violations,
) -> Result<Verified, String> {
    fleet.await_ready(CONNECT_SECONDS, |_| {})?;
    let start_ns = monotonic_ns() + LEAD_NS;
    fleet.order_all(&Order::Start { start_ns })?;
    fleet.await_started()?;
    let load = load(plan, start_ns)?;
    let before_ns = fleet.processor_ns()?;
    let stream = Stream {
        load: load.clone(),
        seed: plan.seed,
        room: room_name(&plan.target.room_stem, 0),
        frames_per_write,
        until_ns: start_ns + u64::from(args.seconds) * 1_000_000_000,
    };
    let streamed = source.stream(&stream)?;
    let began_ns = monotonic_ns().saturating_sub(streamed.took_ns);
    let accepted = vec![vec![streamed.frames_each]];
    let grace_ms = CONNECT_SECONDS * 1_000;
    fleet.order_all(&Order::Finish { accepted, heads: Vec::new(), grace_ms })?;
    let results = fleet.await_results(grace_ms)?;
    let took_ns = (monotonic_ns() - began_ns).saturating_sub(SETTLE_NS).max(1);
    // What the worker needed to send its result is in it, and so small that it says nothing.
    let spent_ns = fleet.processor_ns()?.saturating_sub(before_ns);
    drop(fleet);
    let mut merged = Merged::of(results);
    let outcomes = all_accepted(&load, streamed.frames_each);
    merged.check_rooms(&[outcomes], plan);
    let frames = merged.seen.frames;
    violations.merge(merged.violations);
    Ok(Verified {
        frames_per_write,
        frames,
        decoded: merged.seen.decoded,
        frames_per_s: ratio(frames.saturating_mul(1_000_000), took_ns / 1_000),
        frames_per_s_per_core: ratio(frames.saturating_mul(1_000_000), spent_ns / 1_000),
        worker_busy: ratio(spent_ns, took_ns),
        source_busy: ratio(streamed.processor_ns, streamed.took_ns),
    })
}

/// What a publisher would know of so many messages that were all accepted.
fn all_accepted(load: &Load, messages: u64) -> Outcomes {
    let mut published = Published::new(load.schedule.clone());
    for request in 0..messages {
        published.sent(request, load.schedule.start_ns);
        published.answered(request, load.schedule.start_ns, [Outcome::Ok]);
    }
    Outcomes::new(published)
}

fn published(args: &SelftestArgs) -> Result<PublishingFigures, String> {
    let source = Source::start()?;
    let plan = plan(args, source.doors, ACTIONS_PER_SECOND)?;
    let load = load(&plan, monotonic_ns() + LEAD_NS)?;
    let publishing = publisher::PublisherPlan {
        door: plan.target.publisher_door.clone(),
        encoding: plan.encoding,
        publisher_key: None,
        room_names: vec![room_name(&plan.target.room_stem, 0)],
        payloads: Payloads::new(load.length, type_seed(plan.seed, &load.type_name)),
        warm_up_ns: 0,
        traffic: Traffic { load: load.clone(), reliable_types: None, ttl_ms: None, attempts_max: 1 },
    };
    let published = Published::new(load.schedule);
    // A thread of its own, as in a run.
    let publisher = std::thread::spawn(move || {
        let before_ns = waited_ns(&file("/proc/thread-self/schedstat"));
        let outcomes = publisher::publish(publishing, published);
        (outcomes, waited_ns(&file("/proc/thread-self/schedstat")).saturating_sub(before_ns))
    });
    let (outcomes, waited_ns) = publisher.join().map_err(|_| "the publisher broke down".to_owned())?;
    let outcomes = outcomes.map_err(|error| format!("publishing: {error}"))?;
    let ended = outcomes.published.outcomes();
    Ok(PublishingFigures {
        actions_per_s: ACTIONS_PER_SECOND,
        sent: ended.ok + ended.refused + ended.unknown,
        ok: ended.ok,
        lateness: outcomes.lateness.percentiles(),
        answer: outcomes.answer_latency.percentiles(),
        waited_ms: ratio(waited_ns, 1_000_000),
    })
}

/// The second figure of a `schedstat`: how long its thread waited for a processor. 0 where the kernel does not count it.
fn waited_ns(schedstat: &str) -> u64 {
    schedstat.split_whitespace().nth(1).and_then(|waited| waited.parse().ok()).unwrap_or(0)
}

/// The processors that this thread may use.
fn processors() -> Vec<usize> {
    let mine = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|processor| mine.is_set(*processor) == Ok(true)).collect()
}

/// Keeps the calling thread, and what it starts from now on, to these processors; where the kernel refuses, to none.
fn pin<'a>(processors: impl Iterator<Item = &'a usize>) {
    let mut wanted = CpuSet::new();
    for processor in processors {
        wanted.set(*processor).ok();
    }
    sched_setaffinity(Pid::from_raw(0), &wanted).ok();
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = format!("{} a write", self.frames_per_write);
        writeln!(
            f,
            "{writes:<12} {:.0} frames/s verified per core, {:.0} by the clock: {} frames, {} decoded; worker {:.0} % busy, \
             source {:.0} %",
            self.frames_per_s_per_core,
            self.frames_per_s,
            self.frames,
            self.decoded,
            100.0 * self.worker_busy,
            100.0 * self.source_busy
        )
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publishing, environment, .. } = self;
        writeln!(
            f,
            "selftest     {} devices, one message of {} bytes in each frame, {} s each; {}, {} processors",
            self.devices, self.payload_bytes, self.seconds, environment.processor, environment.processors
        )?;
        write!(f, "{}{}", self.batched, self.single)?;
        let Percentiles { p50_ms, p99_ms, max_ms, .. } = publishing.lateness;
        writeln!(
            f,
            "publishing   {} actions/s: late by p50 {p50_ms:.3} ms, p99 {p99_ms:.3} ms, max {max_ms:.3} ms; {} of {} accepted; others had its \
             processor for {:.0} ms",
            publishing.actions_per_s, publishing.ok, publishing.sent, publishing.waited_ms
        )?;
        if self.violations.is_empty() {
            return writeln!(f, "verdict      ok: nothing lost, twice, out of order or altered");
        }
        write!(f, "verdict      VIOLATIONS\n{}", self.violations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_figure_is_how_long_a_thread_waited() {
        assert_eq!(waited_ns("883088 73939 3\n"), 73_939);
        assert_eq!((waited_ns(""), waited_ns("1 x 2")), (0, 0));
    }
}
