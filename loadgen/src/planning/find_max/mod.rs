//! `roomcast-loadgen find-max`: the most that holds an objective, along one axis.
//!
//! Each probe is a run of its own, in rooms of its own, at one value of the axis. What ends the search is named: the node's
//! processors, what it refused, latency, a promise, or this generator, in which case the node may do more.

mod probe;
mod search;

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::error::RunError;
use crate::machine::environment::Environment;
use crate::planning::sweep::gauges;
use crate::report::output::{self, tell};
use crate::report::{Verdict, html};
use crate::run;
use crate::run::args::{Axis, RunArgs};
use crate::scenario::plan::Plan;
use crate::scenario::thresholds::{self, Condition};
use crate::scenario::units::Span;

use probe::{Bar, Probe, ProbeFigures, Short};
use search::{Bounds, End, ProbeOutcome, ProbeTally, Search};

/// Probes of one search. Past it nothing is sure.
const PROBES_MAX: usize = 200;
/// The gauge that there is one of for each shard.
const SHARDS: &str = "roomcast_rooms";

#[derive(Debug, Args)]
pub(crate) struct FindMaxArgs {
    #[command(flatten)]
    run: RunArgs,
    /// What must hold: conditions, separated by commas (`p99<300ms,loss=0`). A scenario's thresholds, and --threshold, must
    /// hold besides.
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
    let part = (1.0..=500.0).contains(&(part * scale)).then(|| crate::figures::rounded(part * scale));
    part.ok_or_else(wrong)
}

/// Flags of `run` that would be lost here, and what is there instead.
const NOT_HEEDED: [(&str, &str); 3] = [
    ("--seconds", "each probe publishes for --probe-seconds"),
    ("--warm-up", "each probe has --warm-up-seconds"),
    ("--junit", "a search has one verdict, and --json and --html"),
];

/// What a search found.
#[derive(Debug, Serialize)]
struct FoundMost {
    axis: Axis,
    slo: String,
    probes: Vec<Probe>,
    /// The highest value that holds; where the generator ended the search, the highest that is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    knee: Option<u64>,
    /// In so many of its probes the knee held; of those that the generator did not limit.
    held: u32,
    of: u32,
    /// The lowest value at which the node failed: the knee is below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fails_at: Option<u64>,
    /// The node may do more: the generator could not.
    is_lower_bound: bool,
    /// Nothing failed up to the end of the axis.
    is_end_of_axis: bool,
    /// Probes ran out before it was sure.
    is_unsure: bool,
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
    let bounds = bounds(args).map_err(RunError::Usage)?;
    let plan = plan_at(args, bounds.from).map_err(RunError::Usage)?;
    let conditions = conditions(args, &plan).map_err(RunError::Usage)?;
    let processors = processors(args, &plan)?;
    let may_refuse = conditions.iter().any(Condition::is_of_refusals);
    let bar = Bar { may_refuse, warm_up_ms: args.warm_up_seconds.ms(), processors };
    let mut found = FoundMost {
        axis: args.axis,
        slo: conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        probes: Vec::new(),
        knee: None,
        held: 0,
        of: 0,
        fails_at: None,
        is_lower_bound: false,
        is_end_of_axis: false,
        is_unsure: false,
        ended_by: None,
        processors,
        environment: Environment::default(),
        command: plan.target.command.clone(),
    };
    // Of the runs that held, the last: at the knee, or right below it.
    let mut held = None;
    let mut search = Search::new(bounds);
    while let Some(value) = search.value().filter(|_| found.probes.len() < PROBES_MAX) {
        let plan = plan_at(args, value).map_err(RunError::Usage)?;
        let probe = match run::measure(&plan) {
            Ok(report) => {
                let probe = Probe::of(value, &report, &conditions, bar);
                found.environment = report.environment.clone();
                if probe.outcome == ProbeOutcome::Held {
                    held = Some(report);
                }
                probe
            }
            Err(error) if found.probes.is_empty() => return Err(error),
            Err(RunError::Usage(reason)) => Probe::without_verdict(value, reason, ProbeOutcome::Limited),
            Err(RunError::Target(reason)) => Probe::without_verdict(value, reason, ProbeOutcome::Failed),
        };
        tell(&probe)?;
        search.record(probe.outcome);
        found.probes.push(probe);
    }
    let verdict = found.conclude(&search, bounds);
    tell(&found)?;
    let page = || html::knee::page(&found.search(&conditions), held.as_ref().map(html::sections)).to_string();
    output::write_json(&found, plan.target.json.as_deref())
        .and_then(|()| output::write_text(plan.target.html.as_deref(), page))
        .map_err(|error| RunError::Usage(format!("writing the figures: {error}")))?;
    Ok(verdict)
}

fn plan_at(args: &FindMaxArgs, value: u64) -> Result<Plan, String> {
    let seconds = Span::of_ms(args.probe_seconds.ms() + args.warm_up_seconds.ms());
    let at = args.run.at(args.axis, value);
    at.probing(seconds).warmed_up(args.warm_up_seconds).resolve().map_err(|error| {
        // What is right in a run of the scenario's own length wants a longer probe.
        let is_short = at.resolve().is_ok_and(|whole| whole.seconds_milli > seconds.ms());
        if is_short { format!("{error} (a probe; --probe-seconds makes it longer)") } else { error }
    })
}

/// What every probe is held to: --slo, and the thresholds of the scenario and of --threshold.
fn conditions(args: &FindMaxArgs, plan: &Plan) -> Result<Vec<Condition>, String> {
    let named = |error| format!("--slo: {error}");
    let mut conditions = thresholds::parse_all(&args.slo).map_err(named)?;
    thresholds::check_types(&conditions, &plan.loads).map_err(named)?;
    for threshold in &plan.thresholds {
        if !conditions.contains(threshold) {
            conditions.push(threshold.clone());
        }
    }
    Ok(conditions)
}

/// Where to look: checked at both ends before any load.
fn bounds(args: &FindMaxArgs) -> Result<Bounds, String> {
    args.run.refuse(&NOT_HEEDED)?;
    if args.probe_seconds == Span::default() {
        return Err("--probe-seconds: must be more than 0".into());
    }
    let (first, last) = match args.axis {
        Axis::Devices => (100, 1_000_000),
        Axis::Rate => (10, 1_000_000),
        Axis::Rooms => (1, 200_000),
        Axis::PayloadBytes => (64, roomcast_core::limits::PAYLOAD_BYTES_MAX as u64),
    };
    let from = args.from.unwrap_or(first);
    let to = args.to.unwrap_or(last);
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

impl FoundMost {
    /// Takes in how the search ended.
    fn conclude(&mut self, search: &Search, bounds: Bounds) -> Verdict {
        let Some(end) = search.end() else {
            self.is_unsure = true;
            return Verdict::ThresholdFailed;
        };
        let (knee, fails_at, verdict) = match end {
            End::Knee { value, fails_at } => (Some(value), fails_at, Verdict::Ok),
            End::NothingHolds => (None, Some(bounds.from), Verdict::ThresholdFailed),
            End::Limited { at_least, fails_at } => (at_least, fails_at, Verdict::GeneratorLimited),
        };
        (self.knee, self.fails_at) = (knee, fails_at);
        self.is_lower_bound = verdict == Verdict::GeneratorLimited;
        self.is_end_of_axis = knee == Some(bounds.to);
        let ProbeTally { held, failed, .. } = knee.map(|knee| search.tally(knee)).unwrap_or_default();
        (self.held, self.of) = (held, held + failed);
        // Of the values above the knee the lowest says what was short first; what chance made of one that is below is not it.
        let ended = if self.is_lower_bound { ProbeOutcome::Limited } else { ProbeOutcome::Failed };
        let knee = knee.unwrap_or(0);
        let above = self.probes.iter().filter(|probe| probe.value > knee && probe.outcome == ended);
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
        write!(f, "{:>9}  ", self.value)?;
        match &self.measured {
            Some(ProbeFigures { p50_ms, p99_ms, violations, refused, unknown, cpu, .. }) => {
                let ms = |ms: &Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
                let cpu = cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.3}"));
                let p50 = ms(p50_ms);
                let p99 = ms(p99_ms);
                let refused = refused + unknown;
                write!(
                    f,
                    "p50 {p50:>7} ms  p99 {p99:>7} ms  violations {violations}  refused {refused}  cpu {cpu:>6}  "
                )?;
            }
            None => write!(f, "no verdict  ")?,
        }
        f.write_str(match self.outcome {
            ProbeOutcome::Held => "holds",
            ProbeOutcome::Failed => "fails",
            ProbeOutcome::Limited => "limited",
        })?;
        let because = self.because.join("; ");
        if because.is_empty() { writeln!(f) } else { writeln!(f, ": {because}") }
    }
}

impl fmt::Display for FoundMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = unit(self.axis);
        let Self { slo, held, of, .. } = self;
        let first = self.probes.first().map_or(0, |probe| probe.value);
        let below = self.fails_at.map(|worst| format!(", and below {worst}")).unwrap_or_default();
        if self.is_unsure {
            writeln!(
                f,
                "knee         not sure after {PROBES_MAX} probes: {unit} that hold once fail the next time"
            )?;
            return Ok(());
        }
        match (self.knee, self.is_lower_bound) {
            (Some(knee), false) => {
                writeln!(f, "knee         {knee} {unit}: {slo} held in {held} of {of} probes")?;
            }
            (Some(knee), true) => writeln!(
                f,
                "knee         at least {knee} {unit}{below}: {slo} held in {held} of {of} probes; the generator, not the node, was the limit"
            )?,
            (None, true) => writeln!(
                f,
                "knee         not known{below}: the generator, not the node, was the limit already at {first} {unit}"
            )?,
            (None, false) => {
                writeln!(f, "knee         none: not even the first value, {first} {unit}, holds {slo}")?;
            }
        }
        self.say_end(f)
    }
}

impl FoundMost {
    /// What its page shows.
    fn search(&self, conditions: &[Condition]) -> html::knee::SearchFound {
        let probed = |probe: &Probe| html::knee::Probed {
            value: probe.value,
            p99_ms: probe.measured.as_ref().and_then(|measured| measured.p99_ms),
            cpu: probe.measured.as_ref().and_then(|measured| measured.cpu),
            mark: match probe.outcome {
                ProbeOutcome::Held => html::knee::Mark::Held,
                ProbeOutcome::Failed => html::knee::Mark::Failed,
                ProbeOutcome::Limited => html::knee::Mark::Limited,
            },
            because: probe.because.join("; "),
        };
        html::knee::SearchFound {
            axis: unit(self.axis).to_owned(),
            asked: self.slo.clone(),
            p99_most_ms: conditions.iter().filter_map(Condition::p99_most_ms).reduce(f64::min),
            probes: self.probes.iter().map(probed).collect(),
            knee: self.knee,
            is_lower_bound: self.is_lower_bound,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: &str) -> Result<FindMaxArgs, String> {
        run::args::typed(flags)
    }

    fn typed(flags: &str) -> Result<Bounds, String> {
        bounds(&args(flags)?)
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
    fn what_would_not_be_heeded_is_refused() {
        for flag in ["--seconds 5", "--warm-up 1", "--junit /nowhere/at/all.xml"] {
            let error = typed(&format!("--axis rooms {flag}")).unwrap_err();
            let (name, _) = flag.split_once(' ').unwrap();
            assert!(error.starts_with(&format!("{name} is not heeded here: ")), "{flag}: {error}");
        }
    }

    #[test]
    fn a_probe_too_short_for_its_scenario_names_the_flag_that_makes_it_longer() {
        for scenario in ["double-eleven", "raid", "reconnect-storm"] {
            let flags = format!("--axis devices --to 9000 --scenario {scenario}");
            let error = typed(&flags).unwrap_err();
            assert!(error.contains("--probe-seconds"), "{scenario}: {error}");
            assert!(typed(&format!("{flags} --probe-seconds 58")).is_ok(), "{scenario}");
        }
        assert!(typed("--axis devices --to 9000 --scenario soak").is_ok(), "its warm-up is not the probe's");
        let error = typed("--axis rooms --rate 0").unwrap_err();
        assert!(!error.contains("--probe-seconds"), "{error}");
    }

    #[test]
    fn a_probe_is_held_to_the_objective_and_to_every_threshold() {
        let held_to = |flags: &str| {
            let args = args(flags)?;
            let plan = plan_at(&args, 100)?;
            let conditions = conditions(&args, &plan)?;
            Ok::<_, String>(conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        };
        let flags = "--axis devices --threshold loss=0 --threshold skipped<1%";
        assert_eq!(held_to(flags).unwrap(), "p99<300ms,loss=0,skipped<1%");
        let soak = held_to("--axis devices --scenario soak --slo last_p99<2s").unwrap();
        assert_eq!(soak, "last_p99<2s,loss=0,p99<500ms,apply_p99<1s");
        for (flags, named) in [
            ("--axis devices --slo like.p99<1s", "--slo: like.p99<1s: no type like in this run"),
            ("--axis devices --rate 0 --reliable-rate 2", "--slo: p99<300ms: of what this run publishes"),
        ] {
            let error = held_to(flags).unwrap_err();
            assert!(error.starts_with(named), "{flags}: {error}");
        }
    }

    #[test]
    fn a_precision_is_a_part() {
        assert_eq!((permille("5%"), permille("0.05"), permille("0.5 %")), (Ok(50), Ok(50), Ok(5)));
        for wrong in ["", "0", "0%", "60%", "x", "-5%", "5"] {
            assert!(permille(wrong).is_err(), "{wrong}");
        }
    }

    fn probe(value: u64, outcome: ProbeOutcome) -> Probe {
        let mut probe = Probe::without_verdict(value, "made up".into(), outcome);
        if outcome == ProbeOutcome::Held {
            (probe.short, probe.because) = (None, Vec::new());
        }
        probe
    }

    fn found(probes: Vec<Probe>) -> FoundMost {
        FoundMost {
            axis: Axis::Devices,
            slo: "loss=0".into(),
            probes,
            knee: None,
            held: 0,
            of: 0,
            fails_at: None,
            is_lower_bound: false,
            is_end_of_axis: false,
            is_unsure: false,
            ended_by: None,
            processors: 1.0,
            environment: Environment::default(),
            command: String::new(),
        }
    }

    const BOUNDS: Bounds = Bounds { from: 100, to: 1_000, precision_permille: 500, repeat: 1 };

    #[test]
    fn a_search_that_ran_out_of_probes_names_no_knee() {
        let mut found = found(Vec::new());
        assert_eq!(found.conclude(&Search::new(BOUNDS), BOUNDS), Verdict::ThresholdFailed);
        assert!(found.to_string().contains("not sure after 200 probes"), "{found}");
        assert_eq!(found.knee, None);
    }

    /// A search of a node that holds up to `most`, and of a generator that can do less than `limit`.
    fn searched(most: u64, limit: u64) -> (Search, Vec<Probe>) {
        let mut search = Search::new(BOUNDS);
        let mut probes = Vec::new();
        while let Some(value) = search.value() {
            let outcome = match value {
                value if value >= limit => ProbeOutcome::Limited,
                value if value > most => ProbeOutcome::Failed,
                _ => ProbeOutcome::Held,
            };
            search.record(outcome);
            probes.push(probe(value, outcome));
        }
        (search, probes)
    }

    #[test]
    fn the_lowest_value_above_the_knee_says_what_was_short() {
        let slow = Short::Latency { busy: Some(0.5), of: 1.0 };
        let (search, mut probes) = searched(250, u64::MAX);
        let lowest = probes.iter_mut().filter(|probe| probe.value == 300);
        lowest.for_each(|probe| probe.short = Some(slow.clone()));
        // The generator was late there once, too; it is not what ended the search.
        probes.insert(0, probe(300, ProbeOutcome::Limited));
        let mut some = found(probes);
        let verdict = some.conclude(&search, BOUNDS);
        assert_eq!((verdict, some.fails_at, some.ended_by.clone()), (Verdict::Ok, Some(300), Some(slow)));
        let said = some.to_string();
        assert!(said.contains("knee         200 devices: loss=0 held in 1 of 1 probes"), "{said}");
        assert!(
            said.contains("ended by     latency, with the node's processors not full: 0.50 of 1 busy"),
            "{said}"
        );
        let (search, probes) = searched(50, u64::MAX);
        let mut none = found(probes);
        assert_eq!(none.conclude(&search, BOUNDS), Verdict::ThresholdFailed);
        assert!(none.to_string().contains("not even the first value, 100 devices, holds"), "{none}");
    }

    #[test]
    fn a_generator_that_can_do_no_more_leaves_a_lower_bound() {
        let (search, probes) = searched(500, 300);
        let mut limited = found(probes);
        let verdict = limited.conclude(&search, BOUNDS);
        assert_eq!(
            (verdict, limited.knee, limited.held, limited.of),
            (Verdict::GeneratorLimited, Some(200), 1, 1)
        );
        limited.fails_at = Some(800);
        let said = limited.to_string();
        assert!(said.contains("at least 200 devices, and below 800: loss=0 held in 1 of 1"), "{said}");
        assert!(said.contains("ended by     the generator, not the node"), "{said}");
        let (search, probes) = searched(500, 100);
        let mut nothing = found(probes);
        assert_eq!(nothing.conclude(&search, BOUNDS), Verdict::GeneratorLimited);
        let said = nothing.to_string();
        assert!(
            said.contains("not known: the generator, not the node, was the limit already at 100"),
            "{said}"
        );
    }

    #[test]
    fn a_probe_says_no_figure_that_was_not_measured() {
        let said = probe(700, ProbeOutcome::Limited).to_string();
        assert_eq!(said, "      700  no verdict  limited: made up\n");
    }
}
