//! `roomcast-loadgen find-max`: the most that holds an objective, along one axis.
//!
//! Each probe is a run of its own, in rooms of its own, at one value of the axis. What ends the search is named: the node's
//! processors, what it refused, latency, a promise, or this generator, in which case the node may do more.

mod probe;
mod search;

use std::fmt;
use std::io::Write as _;

use clap::Args;
use serde::Serialize;

use crate::args::{Axis, RunArgs};
use crate::environment::Environment;
use crate::html;
use crate::plan::Plan;
use crate::report::Verdict;
use crate::run::{self, RunError};
use crate::scenario::Span;
use crate::slo::{self, Condition};
use crate::sweep::gauges;

use probe::{Bar, Probe, Short};
use search::{Bounds, End, Outcome, Search};

/// The gauge that there is one of for each shard.
const SHARDS: &str = "roomcast_rooms";

#[derive(Debug, Args)]
pub(crate) struct FindMaxArgs {
    #[command(flatten)]
    run: RunArgs,
    /// What must hold: conditions, separated by commas (`p99<300ms,loss=0`).
    #[arg(long, default_value = "p99<300ms,loss=0")]
    slo: String,
    /// What is turned up.
    #[arg(long, value_enum)]
    axis: Axis,
    /// The first value. Without it: 100 devices, 10 messages a second, 1 room, 64 bytes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The last value. Without it: as far as the axis goes.
    #[arg(long)]
    to: Option<u64>,
    /// How long each probe publishes after its warm-up.
    #[arg(long, default_value = "10s")]
    probe_seconds: Span,
    /// How long each probe publishes before it counts.
    #[arg(long, default_value = "2s")]
    warm_up_seconds: Span,
    /// Probes of the value that was found, of which most must hold.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeat: u32,
    /// How close what holds and what fails are in the end.
    #[arg(long, default_value = "5%", value_parser = permille)]
    precision: u64,
    /// Processors that the node has. Without it: as many as it has shards.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    cores: Option<u32>,
}

/// A part, `5%` or `0.05`, in thousandths: at least one of them, and less than the whole.
fn permille(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no part from 0.1% to 50%");
    let (number, scale) = text.strip_suffix('%').map_or((text, 1_000.0), |number| (number, 10.0));
    let part: f64 = number.trim().parse().map_err(|_| wrong())?;
    let part = (1.0..=500.0).contains(&(part * scale)).then(|| crate::model::rounded(part * scale));
    part.ok_or_else(wrong)
}

/// What a search found.
#[derive(Debug, Serialize)]
struct Found {
    axis: Axis,
    slo: String,
    probes: Vec<Probe>,
    /// The highest value that holds; where the generator ended the search, the highest that was seen to hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    knee: Option<u64>,
    /// In so many of its probes the knee held.
    held: u32,
    of: u32,
    /// The node may do more: the generator could not.
    is_lower_bound: bool,
    /// Nothing failed up to the end of the axis.
    is_end_of_axis: bool,
    /// What was short right above the knee.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<Short>,
    processors: f64,
    environment: Environment,
    command: String,
}

/// Probes until the knee is found, and says so on stdout and in the JSON file.
///
/// # Errors
/// [`RunError`], when the arguments are wrong or the first probe came to no verdict.
pub(crate) fn run(args: &FindMaxArgs) -> Result<Verdict, RunError> {
    let conditions = slo::parse_all(&args.slo).map_err(|error| RunError::Usage(format!("--slo: {error}")))?;
    let bounds = bounds(args).map_err(RunError::Usage)?;
    let plan = args.run.clone().resolve().map_err(RunError::Usage)?;
    let processors = processors(args, &plan)?;
    let bar =
        Bar { may_refuse: args.slo.contains("refused"), warm_up_ms: args.warm_up_seconds.ms(), processors };
    let mut found = Found {
        axis: args.axis,
        slo: args.slo.clone(),
        probes: Vec::new(),
        knee: None,
        held: 0,
        of: 0,
        is_lower_bound: false,
        is_end_of_axis: false,
        ended_by: None,
        processors,
        environment: Environment::default(),
        command: plan.target.command.clone(),
    };
    // Of the runs that held, the last: at the knee, or right below it.
    let mut held = None;
    let mut search = Search::new(bounds);
    while let Some(value) = search.value() {
        let mut plan = plan_at(args, value).map_err(RunError::Usage)?;
        plan.warm_up_ms = args.warm_up_seconds.ms();
        let probe = match run::measure(&plan) {
            Ok(report) => {
                let judged = conditions.iter().map(|condition: &Condition| condition.judge(&report));
                let probe = Probe::of(value, &report, judged.collect(), bar);
                found.environment = report.environment.clone();
                if probe.outcome == Outcome::Held {
                    held = Some(report);
                }
                probe
            }
            Err(error) if found.probes.is_empty() => return Err(error),
            Err(RunError::Usage(reason)) => Probe::without_verdict(value, reason, Outcome::Limited),
            Err(RunError::Target(reason)) => Probe::without_verdict(value, reason, Outcome::Failed),
        };
        tell(&probe)?;
        search.record(probe.outcome);
        found.probes.push(probe);
    }
    let verdict = found.conclude(search.end(), bounds);
    tell(&found)?;
    let page = || html::knee::page(&found.search(&conditions), held.as_ref().map(html::sections)).to_string();
    run::write_json(&found, plan.target.json.as_deref())
        .and_then(|()| run::write_text(plan.target.html.as_deref(), page))
        .map_err(|error| RunError::Usage(format!("writing the figures: {error}")))?;
    Ok(verdict)
}

fn plan_at(args: &FindMaxArgs, value: u64) -> Result<Plan, String> {
    let seconds = Span::of_ms(args.probe_seconds.ms() + args.warm_up_seconds.ms());
    args.run.probing(seconds).at(args.axis, value).resolve()
}

/// Where to look: checked at both ends before any load.
fn bounds(args: &FindMaxArgs) -> Result<Bounds, String> {
    if args.probe_seconds == Span::default() {
        return Err("--probe-seconds: must be more than 0".into());
    }
    let (first, last) = match args.axis {
        Axis::Devices => (100, 1_000_000),
        Axis::Rate => (10, 1_000_000),
        Axis::Rooms => (1, 200_000),
        Axis::PayloadBytes => (64, roomcast::config::limits::PAYLOAD_BYTES_MAX as u64),
    };
    let (from, to) = (args.from.unwrap_or(first), args.to.unwrap_or(last));
    if from > to || to > last {
        return Err(format!("--from, --to: from 1 to {last} along this axis, and the first below the last"));
    }
    plan_at(args, from).map_err(|error| format!("--from {from}: {error}"))?;
    plan_at(args, to).map_err(|error| format!("--to {to}: {error}"))?;
    Ok(Bounds { from, to, precision_permille: args.precision, repeat: args.repeat })
}

fn processors(args: &FindMaxArgs, plan: &Plan) -> Result<f64, RunError> {
    if let Some(cores) = args.cores {
        return Ok(f64::from(cores));
    }
    let metrics = plan.target.ops_door.read("/metrics");
    let metrics = metrics
        .map_err(|reason| RunError::Target(format!("operator door {}: {reason}", plan.target.ops_door)))?;
    let shards = u32::try_from(gauges(&metrics, SHARDS).len()).unwrap_or(1);
    Ok(f64::from(shards.max(1)))
}

impl Found {
    fn conclude(&mut self, end: Option<End>, bounds: Bounds) -> Verdict {
        let Some(end) = end else { return Verdict::NothingPublished };
        let verdict = match end {
            End::Knee { value, held, of } => {
                (self.knee, self.held, self.of) = (Some(value), held, of);
                self.is_end_of_axis = value == bounds.to;
                Verdict::Ok
            }
            End::NothingHolds => Verdict::ThresholdFailed,
            End::Limited { at_least } => {
                (self.knee, self.is_lower_bound) = (at_least, true);
                let probes = self.probes.iter().filter(|probe| Some(probe.value) == at_least);
                (self.held, self.of) = probes.fold((0, 0), |(held, of), probe| {
                    (held + u32::from(probe.outcome == Outcome::Held), of + 1)
                });
                Verdict::GeneratorLimited
            }
        };
        // Of the values above the knee the lowest says what was short first.
        let knee = self.knee.unwrap_or(0);
        let above = self.probes.iter().filter(|probe| probe.value > knee && probe.short.is_some());
        self.ended_by = above.min_by_key(|probe| probe.value).and_then(|probe| probe.short.clone());
        verdict
    }
}

/// What the axis counts.
fn unit(axis: Axis) -> &'static str {
    match axis {
        Axis::Devices => "devices",
        Axis::Rate => "messages/s",
        Axis::Rooms => "rooms",
        Axis::PayloadBytes => "bytes of payload",
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.3}"));
        let held = if self.outcome == Outcome::Held { "holds" } else { "fails" };
        write!(
            f,
            "{:>9}  p50 {:>7.1} ms  p99 {:>7.1} ms  violations {}  refused {}  cpu {cpu:>6}  {held}",
            self.value,
            self.p50_ms,
            self.p99_ms,
            self.violations,
            self.refused + self.unknown
        )?;
        let because = self.because.join("; ");
        if because.is_empty() { writeln!(f) } else { writeln!(f, ": {because}") }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, slo) = (unit(self.axis), &self.slo);
        let Some(knee) = self.knee else {
            let first = self.probes.first().map_or(0, |probe| probe.value);
            writeln!(f, "knee         none: not even the first value, {first} {unit}, holds {slo}")?;
            return self.say_end(f);
        };
        if self.is_lower_bound {
            writeln!(
                f,
                "knee         at least {knee} {unit}: {slo} held in {} of {} probes; the generator, not the node, was the limit",
                self.held, self.of
            )?;
        } else {
            writeln!(f, "knee         {knee} {unit}: {slo} held in {} of {} probes", self.held, self.of)?;
        }
        self.say_end(f)
    }
}

impl Found {
    /// What its page shows.
    fn search(&self, conditions: &[Condition]) -> html::knee::Search {
        let probed = |probe: &Probe| html::knee::Probed {
            value: probe.value,
            p99_ms: probe.p99_ms,
            cpu: probe.cpu,
            because: probe.because.join("; "),
        };
        html::knee::Search {
            axis: unit(self.axis).to_owned(),
            asked: self.slo.clone(),
            p99_most_ms: conditions.iter().find_map(Condition::p99_most_ms),
            probes: self.probes.iter().map(probed).collect(),
            knee: self.knee,
            ended_by: self.to_string(),
            command: self.command.clone(),
        }
    }

    fn say_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ended_by {
            Some(short) => writeln!(f, "ended by     {short}"),
            None if self.is_end_of_axis => writeln!(f, "ended by     the end of the axis: nothing failed"),
            None => writeln!(f, "ended by     nothing that was seen twice"),
        }
    }
}

fn tell(text: &impl fmt::Display) -> Result<(), RunError> {
    let told = write!(std::io::stdout(), "{text}").and_then(|()| std::io::stdout().flush());
    told.map_err(|error| RunError::Usage(format!("writing to stdout: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::args::{Command, CommandLine};

    fn typed(flags: &str) -> Result<Bounds, String> {
        let line = ["roomcast-loadgen", "find-max"].into_iter().chain(flags.split_whitespace());
        match CommandLine::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::FindMax(args) => bounds(&args),
            _ => Err("find-max was typed".into()),
        }
    }

    #[test]
    fn no_two_flags_of_a_command_have_one_name() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn both_ends_are_checked_before_any_load() {
        let bounds = typed("--axis rate --from 50 --precision 10%").unwrap();
        assert_eq!(bounds, Bounds { from: 50, to: 1_000_000, precision_permille: 100, repeat: 3 });
        for (flags, named) in [
            ("", "--axis"),
            ("--axis speed", "--axis"),
            ("--axis devices --from 10 --to 5", "--from, --to"),
            ("--axis rooms --to 200001", "--from, --to"),
            ("--axis payload-bytes --from 10", "--from 10: payload (--payload-bytes)"),
            ("--axis rate --probe-seconds 0", "--probe-seconds"),
            ("--axis rate --repeat 0", "--repeat"),
            ("--axis devices --rate 0", "--from 100: --rate"),
        ] {
            let error = typed(flags).unwrap_err();
            assert!(error.contains(named), "{flags}: {error}");
        }
    }

    #[test]
    fn a_precision_is_a_part() {
        assert_eq!((permille("5%"), permille("0.05"), permille("0.5 %")), (Ok(50), Ok(50), Ok(5)));
        for wrong in ["", "0", "0%", "60%", "x", "-5%", "5"] {
            assert!(permille(wrong).is_err(), "{wrong}");
        }
    }

    fn probe(value: u64, outcome: Outcome) -> Probe {
        let mut probe = Probe::without_verdict(value, "made up".into(), outcome);
        if outcome == Outcome::Held {
            (probe.short, probe.because) = (None, Vec::new());
        }
        probe
    }

    fn found(probes: Vec<Probe>) -> Found {
        Found {
            axis: Axis::Devices,
            slo: "loss=0".into(),
            probes,
            knee: None,
            held: 0,
            of: 0,
            is_lower_bound: false,
            is_end_of_axis: false,
            ended_by: None,
            processors: 1.0,
            environment: Environment::default(),
            command: String::new(),
        }
    }

    #[test]
    fn the_lowest_value_above_the_knee_says_what_was_short() {
        let bounds = Bounds { from: 100, to: 1_000, precision_permille: 50, repeat: 3 };
        let slow = Short::Latency { busy: Some(0.5), of: 1.0 };
        let mut probes =
            vec![probe(100, Outcome::Held), probe(400, Outcome::Failed), probe(200, Outcome::Failed)];
        probes[2].short = Some(slow.clone());
        let mut some = found(probes);
        let verdict = some.conclude(Some(End::Knee { value: 100, held: 2, of: 2 }), bounds);
        assert_eq!((verdict, some.ended_by.clone()), (Verdict::Ok, Some(slow)));
        let said = some.to_string();
        assert!(said.contains("knee         100 devices: loss=0 held in 2 of 2 probes"), "{said}");
        assert!(
            said.contains("ended by     latency, with the node's processors not full: 0.50 of 1 busy"),
            "{said}"
        );
        assert_eq!(found(Vec::new()).conclude(Some(End::NothingHolds), bounds), Verdict::ThresholdFailed);
    }

    #[test]
    fn a_generator_that_can_do_no_more_leaves_a_lower_bound() {
        let bounds = Bounds { from: 100, to: 1_000, precision_permille: 50, repeat: 3 };
        let mut limited = found(vec![probe(100, Outcome::Held), probe(200, Outcome::Limited)]);
        let verdict = limited.conclude(Some(End::Limited { at_least: Some(100) }), bounds);
        assert_eq!(
            (verdict, limited.knee, limited.held, limited.of),
            (Verdict::GeneratorLimited, Some(100), 1, 1)
        );
        let said = limited.to_string();
        assert!(
            said.contains("at least 100 devices") && said.contains("the generator, not the node"),
            "{said}"
        );
    }
}
