//! `roomcast-loadgen selftest`: measures the load that this machine can generate and check.
//!
//! The parts of a real run work against doors that cost nearly nothing (`source`): a worker process with its
//! devices, the ledger, and the publisher. The worker judges every frame. With two processors or more, the
//! worker and the source each have a processor of their own.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use clap::Args;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use crate::clock::monotonic_ns;
use crate::commands::source::{Doors, Stream, Streamed, say};
use crate::error::RunError;
use crate::figures::latency::Percentiles;
use crate::figures::ratio;
use crate::fleet::processes::Fleet;
use crate::fleet::words::Order;
use crate::fleet::worker::SETTLE_NS;
use crate::ledger::{Outcome, Published, Violations};
use crate::machine::child;
use crate::machine::environment::{Environment, file};
use crate::publish::publisher::{self, Outcomes};
use crate::publish::request::Traffic;
use crate::report::Verdict;
use crate::report::output::{openable, show};
use crate::run::args::{RunArgs, typed};
use crate::run::settle::Merged;
use crate::scenario::mix::Load;
use crate::scenario::plan::{Plan, room_name};

const PAYLOAD_BYTES: usize = 100;
/// Frames of a batched write.
const FRAMES_PER_WRITE: usize = 16;
/// Most frames a second for each device. A faster worker exhausts the source, and the part ends early.
const FRAMES_PER_SECOND_MAX: u32 = 40_000;
/// Actions a second of the publishing part.
const ACTIONS_PER_SECOND: u32 = 2_000;
/// Longest wait for the devices to connect, and longest wait for them to read the last frames.
const CONNECT_SECONDS: u64 = 30;
/// Longest wait for the source's doors.
const START_SECONDS: u64 = 10;
/// Longest wait for the source's figures past the end of a stream: 30 s for the devices to become level, and
/// as much for the encoding of all frames before.
const LEVEL_SECONDS: u64 = 60;
/// Words of the source that wait to be read.
const WORDS_MAX: usize = 4;
/// Longest wait for the source's end. Past it the process is killed.
const END_AGE_MAX_NS: u64 = 5_000_000_000;
/// Time between the order to start and the start, so that the worker has read the order before.
const LEAD_NS: u64 = 100_000_000;

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Devices of the measured worker.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=19_000))]
    devices: u32,
    /// Seconds of each of the three parts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Write the figures to this JSON file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// This machine's ceiling as a generator.
#[derive(Debug, Serialize)]
struct Ceiling {
    devices: u32,
    payload_bytes: usize,
    seconds: u32,
    /// [`FRAMES_PER_WRITE`] frames in each write.
    batched: Verified,
    /// One frame in each write.
    single: Verified,
    publishing: PublishingFigures,
    environment: Environment,
    violations: Violations,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Verified {
    frames_per_write: usize,
    /// Frames that the worker judged.
    frames: u64,
    /// Decoded frames among `frames`. The worker compared the others, byte by byte, with a decoded frame.
    decoded: u64,
    /// Frames over wall time, from the start until the worker had the last frame.
    frames_per_s: f64,
    /// Frames over the worker's processor time, the kernel's work for the worker included.
    frames_per_s_per_core: f64,
    /// Processor time of the worker over wall time.
    worker_busy: f64,
    /// Processor time of the source over wall time. Near 1 the source was the limit.
    source_busy: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PublishingFigures {
    actions_per_s: u32,
    sent: u64,
    /// Actions answered as accepted.
    ok: u64,
    /// From the time at which an action was due to its leaving.
    lateness: Percentiles,
    /// From leaving to the answer.
    answer: Percentiles,
    /// Time for which the publisher was ready and other threads had the processors. A large value means that
    /// the lateness describes the other load of this machine.
    waited_ms: f64,
}

/// Measures all three parts. A message that was not accepted fails the selftest like a violation.
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

/// The child process of the doors. The drop of this value ends the process.
struct Source {
    child: Child,
    words: Receiver<String>,
}

impl Source {
    fn start() -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("starting the source's process: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("source").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take().ok_or("the source has no stdout")?;
        let (sender, words) = sync_channel(WORDS_MAX);
        // A thread of its own, since a pipe has no read with a limit.
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        Ok(Self { child, words })
    }

    fn doors(&self) -> Result<Doors, String> {
        self.word(START_SECONDS)
    }

    fn stream(&mut self, stream: &Stream) -> Result<Streamed, String> {
        let orders = self.child.stdin.as_mut().ok_or("the source has no stdin")?;
        say(orders, stream).map_err(|error| format!("the source: {error}"))?;
        let left_ns = stream.until_ns.saturating_sub(monotonic_ns());
        self.word(left_ns.div_ceil(1_000_000_000) + LEVEL_SECONDS)
    }

    /// The next word of the source, which ends the selftest when late.
    fn word<T: serde::de::DeserializeOwned>(&self, seconds: u64) -> Result<T, String> {
        let line = self.words.recv_timeout(Duration::from_secs(seconds)).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("the source said nothing in {seconds} s"),
            RecvTimeoutError::Disconnected => "the source ended".to_owned(),
        })?;
        serde_json::from_str(&line).map_err(|error| format!("the source said {line:?}: {error}"))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // The process ends at the end of its stdin.
        drop(self.child.stdin.take());
        child::end_by(&mut self.child, monotonic_ns() + END_AGE_MAX_NS);
    }
}

/// Resolves the flags of a run at the source's doors, so that a selftest takes the same path as a typed
/// command.
fn plan(args: &SelftestArgs, doors: Doors, rate: u32) -> Result<Plan, String> {
    let flags = format!(
        "--devices {} --rate {rate} --seconds {} --payload-bytes {PAYLOAD_BYTES} --encoding proto \
         --viewer-door ws://{} --publisher-door http://{} --ops-door http://{} --connect-seconds {CONNECT_SECONDS}",
        args.devices, args.seconds, doors.viewer, doors.publisher, doors.ops
    );
    typed::<RunArgs>(&flags)?.resolve()
}

/// The only load of such a run, with its start at `start_ns`.
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
    // A child inherits the processors of the thread that starts the child.
    pin(allowed.first().into_iter());
    let source = Source::start();
    pin(allowed.last().into_iter());
    let started = source.and_then(|source| {
        let plan = plan(args, source.doors()?, FRAMES_PER_SECOND_MAX)?;
        let fleet = Fleet::start(&plan)?;
        Ok((source, plan, fleet))
    });
    // Before any error leaves this function: later parts need all processors again.
    pin(allowed.iter());
    let (mut source, plan, fleet) = started?;
    measure(&mut source, &plan, fleet, frames_per_write, violations)
}

fn measure(
    source: &mut Source,
    plan: &Plan,
    mut fleet: Fleet,
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
        until_ns: start_ns + plan.seconds_milli * 1_000_000,
    };
    let streamed = source.stream(&stream)?;
    // The source's answer arrives at the end of the stream, so the start is computed backwards.
    let began_ns = monotonic_ns().saturating_sub(streamed.took_ns);
    let accepted = vec![vec![streamed.frames_each]];
    let grace_ms = CONNECT_SECONDS * 1_000;
    fleet.order_all(&Order::Finish { accepted, heads: Vec::new(), grace_ms })?;
    let results = fleet.await_results(grace_ms)?;
    // A worker waits SETTLE_NS after its last frame before it reports; that wait is not work.
    let took_ns = (monotonic_ns() - began_ns).saturating_sub(SETTLE_NS).max(1);
    // Includes the time to send the result, which is negligible.
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

/// The outcomes that a publisher of these messages would hand to the ledger. The source sends without a
/// publisher.
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
    let plan = plan(args, source.doors()?, ACTIONS_PER_SECOND)?;
    let load = load(&plan, monotonic_ns() + LEAD_NS)?;
    let traffic = Traffic { load, reliable_types: None, ttl_ms: None, attempts_max: 1 };
    // A thread of its own, as in a run: `schedstat` counts the wait of a single thread.
    let publisher = std::thread::spawn(move || {
        let before_ns = waited_ns(&file("/proc/thread-self/schedstat"));
        let outcomes = publisher::publish(&plan, traffic);
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

/// The second number of `schedstat`: nanoseconds for which the thread waited for a processor. 0 without
/// kernel support.
fn waited_ns(schedstat: &str) -> u64 {
    schedstat.split_whitespace().nth(1).and_then(|waited| waited.parse().ok()).unwrap_or(0)
}

/// The processors that this thread may use.
fn processors() -> Vec<usize> {
    let mine = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|processor| mine.is_set(*processor) == Ok(true)).collect()
}

/// Confines the calling thread, and all later children, to these processors. A refusal by the kernel has no
/// effect: the figures are then noisier, and still right.
fn pin<'a>(processors: impl Iterator<Item = &'a usize>) {
    let mut wanted = CpuSet::new();
    for processor in processors {
        wanted.set(*processor).ok();
    }
    sched_setaffinity(Pid::from_raw(0), &wanted).ok();
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames_per_write, frames, decoded, frames_per_s, frames_per_s_per_core, .. } = self;
        let writes = format!("{frames_per_write} a write");
        writeln!(
            f,
            "{writes:<12} {frames_per_s_per_core:.0} frames/s verified per core, {frames_per_s:.0} frames/s by the \
             clock: {frames} frames, {decoded} of them decoded; worker {:.0} % busy, source {:.0} % busy",
            100.0 * self.worker_busy,
            100.0 * self.source_busy
        )
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, payload_bytes, seconds, batched, single, environment, .. } = self;
        writeln!(
            f,
            "selftest     {devices} devices, one message of {payload_bytes} bytes in each frame, {seconds} s for each \
             part; {}, {} processors",
            environment.processor, environment.processors
        )?;
        write!(f, "{batched}{single}")?;
        let PublishingFigures { actions_per_s, sent, ok, lateness, waited_ms, .. } = self.publishing;
        let Percentiles { p50_ms, p99_ms, max_ms, .. } = lateness;
        writeln!(
            f,
            "publishing   {actions_per_s} actions/s: lateness p50 {p50_ms:.3} ms, p99 {p99_ms:.3} ms, max {max_ms:.3} \
             ms; {ok} of {sent} accepted; the publisher waited {waited_ms:.0} ms for a processor"
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
