//! `roomcast-loadgen find-max`: the highest value along an axis at which all conditions hold (the knee).
//!
//! Each probe is a run of its own at a single value, in rooms of its own. The answer names the reason for the
//! end of the search: the node's processors, refusals, latency, a broken promise, or this generator. In the
//! last case the node may carry more.

mod page;
mod probe;
mod search;

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::error::RunError;
use crate::figures::{ratio, rounded};
use crate::machine::environment::Environment;
use crate::planning::sweep::{ROOMS, gauges};
use crate::planning::{part, places};
use crate::report::output::{self, tell};
use crate::report::{Verdict, html};
use crate::run;
use crate::run::args::{Axis, RunArgs};
use crate::scenario::plan::Plan;
use crate::scenario::thresholds::{self, Condition};
use crate::scenario::units::Span;
use crate::stop;
use crate::wire::doors::ANSWER_AGE_MAX;

use probe::{Bar, Probe, ProbeFigures, Short};
use search::{Bounds, End, ProbeOutcome, ProbeTally, Search};

const STOPPED: &str = "stopped by a signal: the search is not over";
/// Probes of a search. A search that needs more has met a node without a stable knee.
const PROBES_MAX: usize = 200;

#[derive(Debug, Args)]
pub(crate) struct FindMaxArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Conditions that must hold, separated by commas (`p99<300ms,loss=0`). The thresholds of the scenario
    /// and of --threshold must hold, too.
    #[arg(long, default_value = "p99<300ms,loss=0")]
    slo: String,
    /// The value to raise.
    #[arg(long, value_enum)]
    axis: Axis,
    /// The first value. Default: 100 devices, 10 messages a second, 1 room, 64 bytes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The last value. Default: the end of the axis.
    #[arg(long)]
    to: Option<u64>,
    /// Time for which each probe publishes after its warm-up.
    #[arg(long, default_value = "10s")]
    probe_seconds: Span,
    /// Time for which each probe publishes before its figures count.
    #[arg(long, default_value = "2s")]
    warm_up_seconds: Span,
    /// Probes of the found value, of which most must hold.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeat: u32,
    /// Largest distance at the end between a value that holds and a value that fails.
    #[arg(long, default_value = "5%", value_parser = permille)]
    precision: u64,
    /// Processors of the node. Default: the number of its shards.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    cores: Option<u32>,
}

fn permille(text: &str) -> Result<u64, String> {
    part(text, 0.001..=0.5).map(|part| rounded(part * 1_000.0))
}

/// Flags of `run` without an effect on a search, and the replacement for each.
const REFUSED: [(&str, &str); 3] = [
    ("--seconds", "each probe publishes for --probe-seconds"),
    ("--warm-up", "each probe has --warm-up-seconds"),
    ("--junit", "a search has a single result; use --json or --html"),
];

/// The result of a search, as printed and as JSON.
#[derive(Debug, Serialize)]
struct FoundMost {
    axis: Axis,
    slo: String,
    probes: Vec<Probe>,
    #[serde(flatten)]
    found: KneeFound,
    /// The reason for an end before the knee was found; `None`: a whole search.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<String>,
    processors: f64,
    environment: Environment,
    command: String,
}

/// The conclusion from all probes.
#[derive(Debug, Default, Serialize)]
struct KneeFound {
    /// The highest value that holds. After the generator ended the search: the highest confirmed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    knee: Option<u64>,
    /// Probes at the knee that held, among `of`.
    held: u32,
    /// Probes at the knee that the generator did not limit.
    of: u32,
    /// The lowest value at which the node failed; the knee is below.
    #[serde(skip_serializing_if = "Option::is_none")]
    fails_at: Option<u64>,
    /// The generator ended the search, so the node may carry more.
    is_lower_bound: bool,
    /// Nothing failed up to the end of the axis.
    is_end_of_axis: bool,
    /// The search ran out of probes.
    is_unsure: bool,
    /// The scarce resource at the lowest failed value above the knee.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<Short>,
}

/// Probes until the knee is found, and shows the result on stdout and in the files. An error of the first
/// probe ends the search; later errors count as failed probes.
pub(crate) fn run(args: &FindMaxArgs) -> Result<Verdict, RunError> {
    let bounds = bounds(args).map_err(RunError::Usage)?;
    let plan = plan_at(args, bounds.from).map_err(RunError::Usage)?;
    let conditions = conditions(args, &plan).map_err(RunError::Usage)?;
    let processors = processors(args, &plan)?;
    let may_refuse = conditions.iter().any(Condition::is_of_refusals);
    let bar = Bar { may_refuse, warm_up_ms: args.warm_up_seconds.ms(), processors };
    let mut probes: Vec<Probe> = Vec::new();
    let mut environment = Environment::default();
    // The report of the last run that held, for the page: at the knee, or next below.
    let mut held = None;
    let mut ended_early = None;
    let mut search = Search::new(bounds);
    while let Some(value) = search.value().filter(|_| probes.len() < PROBES_MAX) {
        let plan = plan_at(args, value).map_err(RunError::Usage)?;
        let probe = match run::measure(&plan) {
            Ok(report) => {
                // A part of a probe is no probe.
                if stop::is_wanted() {
                    ended_early = Some(RunError::Stopped(STOPPED.to_owned()));
                    break;
                }
                let probe = Probe::of(value, &report, &conditions, bar);
                environment = report.environment.clone();
                if probe.outcome == ProbeOutcome::Held {
                    held = Some(report);
                }
                probe
            }
            Err(error) if probes.is_empty() => {
                output::write_reason(&error, plan.target.json.as_deref());
                return Err(error);
            }
            Err(RunError::Stopped(_)) => {
                ended_early = Some(RunError::Stopped(STOPPED.to_owned()));
                break;
            }
            // The run could not be made at all, for example for want of descriptors: the generator's limit.
            Err(RunError::Usage(reason)) => Probe::without_verdict(value, reason, ProbeOutcome::Limited),
            // The node was there at the first probe, so its absence is a failure.
            Err(RunError::Target(reason)) => Probe::without_verdict(value, reason, ProbeOutcome::Failed),
        };
        tell(&probe)?;
        search.record(probe.outcome);
        let is_without_report = probe.measured.is_none() && probe.outcome == ProbeOutcome::Failed;
        probes.push(probe);
        // Every further probe of a node that is gone would fail, and the search would walk down to nothing.
        if is_without_report && let Err(reason) = run::doors::look(&plan) {
            ended_early = Some(RunError::Target(format!("the node does not come back: {reason}")));
            break;
        }
    }
    let most = FoundMost {
        axis: args.axis,
        slo: conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        found: KneeFound::of(&search, &probes),
        probes,
        partial: ended_early.as_ref().map(ToString::to_string),
        processors,
        environment,
        command: plan.target.command,
    };
    tell(&most)?;
    let page = || most.page(&conditions, held.as_ref().map(html::sections)).to_string();
    output::write_json(&most, plan.target.json.as_deref())
        .and_then(|()| output::write_text(plan.target.html.as_deref(), page))
        .map_err(|error| RunError::Usage(format!("writing the figures: {error}")))?;
    ended_early.map_or_else(|| Ok(most.found.verdict()), Err)
}

fn plan_at(args: &FindMaxArgs, value: u64) -> Result<Plan, String> {
    let seconds = Span::of_ms(args.probe_seconds.ms() + args.warm_up_seconds.ms());
    let at = args.run.at(args.axis, value);
    at.probing(seconds).warmed_up(args.warm_up_seconds).resolve().map_err(|error| {
        // The same run resolves with the scenario's own length, so the probe is too short for its storms or
        // shape.
        let is_short = at.resolve().is_ok_and(|whole| whole.seconds_milli > seconds.ms());
        if is_short {
            format!("{error}, and a probe is shorter (--probe-seconds makes it longer)")
        } else {
            error
        }
    })
}

/// The conditions for every probe: --slo, the scenario's thresholds, and --threshold.
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

/// The range of the search. Both ends are checked before any load, so a search does not fail halfway up.
fn bounds(args: &FindMaxArgs) -> Result<Bounds, String> {
    args.run.refuse(&REFUSED)?;
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
        return Err(format!("--from, --to: must be 1 to {last} along this axis, and --from at most --to"));
    }
    plan_at(args, from).map_err(|error| format!("--from {from}: {error}"))?;
    plan_at(args, to).map_err(|error| format!("--to {to}: {error}"))?;
    Ok(Bounds { from, to, precision_permille: args.precision, repeat: args.repeat })
}

fn processors(args: &FindMaxArgs, plan: &Plan) -> Result<f64, RunError> {
    if let Some(cores) = args.cores {
        return Ok(f64::from(cores));
    }
    let door = plan.target.ops_door();
    let metrics = door.read("/metrics", ANSWER_AGE_MAX);
    let metrics = metrics.map_err(|reason| RunError::Target(format!("operator door {door}: {reason}")))?;
    // The gauge has a value for each shard.
    Ok(ratio(gauges(&metrics, ROOMS).len() as u64, 1).max(1.0))
}

impl KneeFound {
    fn of(search: &Search, probes: &[Probe]) -> Self {
        let Some(End { knee, fails_at, is_lower_bound }) = search.end() else {
            return Self { is_unsure: true, ..Self::default() };
        };
        let ProbeTally { held, failed, .. } = knee.map(|knee| search.tally(knee)).unwrap_or_default();
        // Of the values above the knee, the lowest says which resource ran out first. A failure below the
        // knee was chance.
        let ended = if is_lower_bound { ProbeOutcome::Limited } else { ProbeOutcome::Failed };
        let above = probes.iter().filter(|probe| Some(probe.value) > knee && probe.outcome == ended);
        Self {
            knee,
            held,
            of: held + failed,
            fails_at,
            is_lower_bound,
            is_end_of_axis: knee == Some(search.bounds.to),
            is_unsure: false,
            ended_by: above.min_by_key(|probe| probe.value).and_then(|probe| probe.short.clone()),
        }
    }

    fn verdict(&self) -> Verdict {
        match self.knee {
            _ if self.is_lower_bound => Verdict::GeneratorLimited,
            Some(_) => Verdict::Ok,
            None => Verdict::ThresholdFailed,
        }
    }
}

/// The unit of the axis, in words.
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
                let p50 = places(*p50_ms, 1);
                let p99 = places(*p99_ms, 1);
                let cpu = places(*cpu, 3);
                let refused = refused + unknown;
                write!(
                    f,
                    "p50 {p50:>7} ms  p99 {p99:>7} ms  violations {violations}  refused {refused}  cpu {cpu:>6}  "
                )?;
            }
            None => write!(f, "no result  ")?,
        }
        f.write_str(match self.outcome {
            ProbeOutcome::Held => "holds",
            ProbeOutcome::Failed => "fails",
            ProbeOutcome::Limited => "generator-limited",
        })?;
        let because = self.because.join("; ");
        if because.is_empty() { writeln!(f) } else { writeln!(f, ": {because}") }
    }
}

impl fmt::Display for FoundMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = unit(self.axis);
        let Self { slo, found, .. } = self;
        let KneeFound { held, of, fails_at, .. } = found;
        let first = self.probes.first().map_or(0, |probe| probe.value);
        let below = fails_at.map(|worst| format!(", and below {worst}")).unwrap_or_default();
        if let Some(partial) = &self.partial {
            let held = self.probes.iter().filter(|probe| probe.outcome == ProbeOutcome::Held);
            let most = held.map(|probe| probe.value).max().map(|value| format!("; {value} {unit} held"));
            let probes = self.probes.len();
            return writeln!(
                f,
                "knee         PARTIAL, {probes} probes: {partial}{}",
                most.unwrap_or_default()
            );
        }
        if found.is_unsure {
            return writeln!(
                f,
                "knee         not found in {PROBES_MAX} probes: the same value holds in some probes and fails in others"
            );
        }
        match (found.knee, found.is_lower_bound) {
            (Some(knee), false) => {
                writeln!(f, "knee         {knee} {unit}: {slo} held in {held} of {of} probes")?;
            }
            (Some(knee), true) => writeln!(
                f,
                "knee         at least {knee} {unit}{below}: {slo} held in {held} of {of} probes; the limit was this \
                 generator, not the node"
            )?,
            (None, true) => writeln!(
                f,
                "knee         not known{below}: the limit was this generator, not the node, already at {first} {unit}"
            )?,
            (None, false) => {
                writeln!(f, "knee         none: {slo} failed already at the first value, {first} {unit}")?;
            }
        }
        match &found.ended_by {
            Some(short) => writeln!(f, "ended by     {short}"),
            None if found.is_end_of_axis => writeln!(f, "ended by     the end of the axis: nothing failed"),
            None => writeln!(f, "ended by     not known"),
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
    fn flags_without_an_effect_are_refused() {
        for flag in ["--seconds 5", "--warm-up 1", "--junit /nowhere/at/all.xml"] {
            let error = typed(&format!("--axis rooms {flag}")).unwrap_err();
            let (name, _) = flag.split_once(' ').unwrap();
            assert!(error.starts_with(&format!("{name} can't be used here: ")), "{flag}: {error}");
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
            ("--axis devices --rate 0 --reliable-rate 2", "--slo: p99<300ms: no published type"),
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

    fn most(search: &Search, probes: Vec<Probe>) -> FoundMost {
        FoundMost {
            partial: None,
            axis: Axis::Devices,
            slo: "loss=0".into(),
            found: KneeFound::of(search, &probes),
            probes,
            processors: 1.0,
            environment: Environment::default(),
            command: String::new(),
        }
    }

    const BOUNDS: Bounds = Bounds { from: 100, to: 1_000, precision_permille: 500, repeat: 1 };

    #[test]
    fn a_search_that_ran_out_of_probes_names_no_knee() {
        let most = most(&Search::new(BOUNDS), Vec::new());
        assert_eq!((most.found.verdict(), most.found.knee), (Verdict::ThresholdFailed, None));
        assert!(most.to_string().contains("not found in 200 probes"), "{most}");
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
        let some = most(&search, probes);
        let KneeFound { fails_at, ended_by, .. } = &some.found;
        assert_eq!((some.found.verdict(), *fails_at, ended_by.clone()), (Verdict::Ok, Some(300), Some(slow)));
        let said = some.to_string();
        assert!(said.contains("knee         200 devices: loss=0 held in 1 of 1 probes"), "{said}");
        assert!(
            said.contains(
                "ended by     latency, although the node's processors are not full: 0.50 of 1 busy"
            ),
            "{said}"
        );
        let (search, probes) = searched(50, u64::MAX);
        let none = most(&search, probes);
        assert_eq!(none.found.verdict(), Verdict::ThresholdFailed);
        assert!(none.to_string().contains("loss=0 failed already at the first value, 100 devices"), "{none}");
    }

    #[test]
    fn a_generator_that_can_do_no_more_leaves_a_lower_bound() {
        let (search, probes) = searched(500, 300);
        let mut limited = most(&search, probes);
        assert_eq!(
            (limited.found.verdict(), limited.found.knee, limited.found.held, limited.found.of),
            (Verdict::GeneratorLimited, Some(200), 1, 1)
        );
        limited.found.fails_at = Some(800);
        let said = limited.to_string();
        assert!(said.contains("at least 200 devices, and below 800: loss=0 held in 1 of 1"), "{said}");
        assert!(said.contains("ended by     this generator, not the node"), "{said}");
        let (search, probes) = searched(500, 100);
        let nothing = most(&search, probes);
        assert_eq!(nothing.found.verdict(), Verdict::GeneratorLimited);
        let said = nothing.to_string();
        assert!(
            said.contains("not known: the limit was this generator, not the node, already at 100"),
            "{said}"
        );
    }

    #[test]
    fn a_probe_says_no_figure_that_was_not_measured() {
        let said = probe(700, ProbeOutcome::Limited).to_string();
        assert_eq!(said, "      700  no result  generator-limited: made up\n");
    }
}
