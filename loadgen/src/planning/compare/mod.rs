//! `roomcast-loadgen compare`: whether a report is worse than an older report, beyond noise.
//!
//! Every figure (`figure`) is judged by the noise within the two runs (`noise`). A promise broken more often
//! is worse, and a newly failed threshold is worse, whatever the figures say. Runs with different loads are
//! refused (`alike`): the difference of their figures would be the difference of their loads.

pub(crate) mod alike;
mod figure;
mod noise;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::error::RunError;
use crate::ledger::Kind;
use crate::planning::{part, places};
use crate::report::output::{openable, show};
use crate::report::{Report, Verdict};
use crate::scenario::thresholds;

use alike::{incomparable, machines_differ};
use figure::{ComparedFigure, FIGURES};
use noise::{Change, Interval, blocks, interval};

/// Largest report to read. The quarter seconds of a whole day need less.
const REPORT_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The older report, as written by `run --json`.
    old: PathBuf,
    /// The report to judge.
    new: PathBuf,
    /// Smaller changes do not count.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = |text: &str| part(text, 0.0..=10.0))]
    tolerance: f64,
    /// Compare runs with different loads and generator-limited runs, too.
    #[arg(long)]
    anyway: bool,
    /// Write the comparison to this JSON file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// 0.05 for 5 %.
    tolerance: f64,
    /// The reason against the comparison, when --anyway forced the comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomparable: Option<String>,
    /// Differences of the runs' machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    machines: Vec<String>,
    figures: Vec<Compared>,
    more_violations: Vec<MoreViolations>,
    /// Thresholds that the new report fails and the old report meets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    newly_failed: Vec<String>,
    verdict: Change,
}

/// A promise that the new run broke more often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct MoreViolations {
    kind: String,
    old: u64,
    new: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Compared {
    figure: &'static str,
    unit: &'static str,
    old: Option<f64>,
    new: Option<f64>,
    /// The new over the old value of the reports.
    ratio: Option<f64>,
    /// Interval that holds 95 % of the resamples. `None`: too few blocks.
    interval: Option<Interval>,
    change: Change,
    /// The figure is unclear, and its value in the report is worse.
    #[serde(skip)]
    may_be_worse: bool,
}

/// Compares two reports and shows the result on stdout and in the JSON file. Files that are no reports, and
/// runs with different loads, are usage errors.
pub(crate) fn run(args: &CompareArgs) -> Result<Verdict, RunError> {
    openable("--json", args.json.as_ref()).map_err(RunError::Usage)?;
    let old = read(&args.old).map_err(RunError::Usage)?;
    let new = read(&args.new).map_err(RunError::Usage)?;
    let incomparable = incomparable(&old, &new);
    if let Some(why) = incomparable.as_ref().filter(|_| !args.anyway) {
        return Err(RunError::Usage(format!("not comparable: {why} (--anyway compares them all the same)")));
    }
    let comparison = Comparison { incomparable, ..Comparison::of(&old, &new, args.tolerance) };
    show(&comparison, args.json.as_deref())
        .map_err(|error| RunError::Usage(format!("writing the comparison: {error}")))?;
    Ok(if comparison.verdict == Change::Worse { Verdict::ThresholdFailed } else { Verdict::Ok })
}

/// Reads a report. Unknown fields are ignored, so newer reports can be compared with older reports.
fn read(path: &Path) -> Result<Report, String> {
    let wrong = |reason: &dyn fmt::Display| format!("{}: {reason}", path.display());
    let bytes = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    // Bounds the memory for a file that is no report at all.
    if bytes > REPORT_BYTES_MAX {
        return Err(wrong(&format!("{bytes} bytes; a report has at most {REPORT_BYTES_MAX}")));
    }
    let text = std::fs::read(path).map_err(|error| wrong(&error))?;
    serde_json::from_slice(&text).map_err(|error| wrong(&format!("not the report of a run: {error}")))
}

impl Comparison {
    fn of(old: &Report, new: &Report, tolerance: f64) -> Self {
        let figures = FIGURES.iter().map(|figure| Compared::of(figure, old, new, tolerance));
        let figures: Vec<Compared> =
            figures.filter(|compared| compared.old.or(compared.new).is_some()).collect();
        let more_violations = more_violations(old, new);
        let newly_failed = newly_failed(old, new);
        let is = |change| figures.iter().any(|compared| compared.change == change);
        let verdict = match () {
            () if !more_violations.is_empty() || !newly_failed.is_empty() => Change::Worse,
            () if is(Change::Worse) => Change::Worse,
            () if figures.iter().any(|compared| compared.may_be_worse) => Change::Unclear,
            () if figures.iter().all(|compared| compared.change == Change::Unclear) => Change::Unclear,
            () if is(Change::Better) => Change::Better,
            () => Change::Same,
        };
        let machines = machines_differ(old, new);
        Self { tolerance, incomparable: None, machines, figures, more_violations, newly_failed, verdict }
    }
}

/// The kinds of violations that became more frequent. A single further violation is worse, because none is
/// allowed.
fn more_violations(old: &Report, new: &Report) -> Vec<MoreViolations> {
    let before = |kind: Kind| {
        old.violations.found().find(|(known, _)| *known == kind).map_or(0, |(_, found)| found.count)
    };
    let all = new.violations.found().map(|(kind, found)| MoreViolations {
        kind: kind.to_string(),
        old: before(kind),
        new: found.count,
    });
    all.filter(|more| more.new > more.old).collect()
}

/// The thresholds that only the new report fails. The old report is judged again, because its run may have
/// had other thresholds, or none.
fn newly_failed(old: &Report, new: &Report) -> Vec<String> {
    let failed = new.thresholds.iter().filter(|judged| !judged.holds);
    let kept = |condition: &str| {
        thresholds::parse_all(condition)
            .is_ok_and(|all| all.iter().all(|condition| condition.judge(old).holds))
    };
    failed.filter(|judged| kept(&judged.condition)).map(|judged| judged.to_string()).collect()
}

impl Compared {
    fn of(figure: &ComparedFigure, old: &Report, new: &Report, tolerance: f64) -> Self {
        let series = |report: &Report| blocks(&(figure.series)(report), report.seconds);
        let said_old = (figure.said)(old);
        let said_new = (figure.said)(new);
        let both = said_old.zip(said_new);
        let ratio = both.filter(|(old, _)| *old > 0.0).map(|(old, new)| new / old);
        let interval = both.and_then(|_| interval(&series(old), &series(new)));
        let blocks_say = interval.map(|interval| interval.change(figure.worse, tolerance));
        // The judgement of the reports' own values, as if the values had no noise.
        let values_say = ratio
            .map(|ratio| Interval { low: ratio, middle: ratio, high: ratio }.change(figure.worse, tolerance));
        let change = match (both, blocks_say) {
            (Some((old, new)), _) if (new - old).abs() < figure.least => Change::Same,
            (Some(_), Some(change)) if values_say == Some(change) => change,
            // The noise is too large for a judgement.
            (_, Some(Change::Unclear)) => Change::Unclear,
            // The values differ and the blocks do not, or there are no blocks. A stall, for example, is in
            // few blocks. A small change of this sort may be chance; a large change is not.
            (Some((old, new)), _) if figure.is_far_worse(old, new) => Change::Worse,
            _ => Change::Unclear,
        };
        Self {
            figure: figure.name,
            unit: figure.unit,
            old: said_old,
            new: said_new,
            ratio,
            interval,
            change,
            may_be_worse: change == Change::Unclear
                && interval.is_some()
                && values_say == Some(Change::Worse),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.incomparable {
            writeln!(f, "not comparable: {why}")?;
        }
        for machine in &self.machines {
            writeln!(f, "machines differ: {machine}")?;
        }
        writeln!(f, "                        old          new           ratio     95 % interval  verdict")?;
        for Compared { figure, unit, old, new, ratio, interval, change, .. } in &self.figures {
            let old = places(*old, 2);
            let new = places(*new, 2);
            let ratio = places(*ratio, 3);
            let between =
                interval.map_or_else(|| "-".to_owned(), |all| format!("{:.3} to {:.3}", all.low, all.high));
            let change = change.name();
            writeln!(f, "{figure:<14} {old:>12} {new:>12} {unit:<6} {ratio:>8} {between:>17}  {change}")?;
        }
        for MoreViolations { kind, old, new } in &self.more_violations {
            writeln!(f, "{kind:<14} {new} times, {old} times in the old report: worse")?;
        }
        for failed in &self.newly_failed {
            writeln!(f, "{failed}, and the old report meets this threshold: worse")?;
        }
        let verdict = match self.verdict {
            Change::Worse => "WORSE",
            Change::Unclear => "unclear, the noise hides whether the new run is worse",
            Change::Better | Change::Same => "not worse",
        };
        let [better, same, unclear, worse] = [Change::Better, Change::Same, Change::Unclear, Change::Worse]
            .map(|change| self.figures.iter().filter(|compared| compared.change == change).count());
        writeln!(
            f,
            "verdict        {verdict}: {better} better, {same} same, {unclear} unclear, {worse} worse (tolerance {} %)",
            100.0 * self.tolerance
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Kind, Violations};
    use crate::report::tests::made_up;

    /// A run whose latencies, and the node's processor time, are so many times those of the made up one.
    fn times(factor: f64) -> Report {
        let mut written = serde_json::to_value(made_up()).unwrap();
        let scale = |value: &mut serde_json::Value| *value = (value.as_f64().unwrap() * factor).into();
        for name in ["p50_ms", "p99_ms", "p999_ms", "max_ms"] {
            scale(&mut written["latency"][name]);
        }
        for row in written["types"].as_array_mut().unwrap() {
            for moment in row["latency_over_time"].as_array_mut().unwrap() {
                for name in ["p50_ms", "p99_ms", "max_ms"] {
                    scale(&mut moment[name]);
                }
            }
        }
        for sample in written["server"].as_array_mut().unwrap() {
            scale(&mut sample["cpu"]);
        }
        serde_json::from_value(written).unwrap()
    }

    fn change(comparison: &Comparison, name: &str) -> Change {
        comparison.figures.iter().find(|compared| compared.figure == name).unwrap().change
    }

    #[test]
    fn a_run_is_the_same_as_itself_and_slower_ones_are_worse() {
        let same = Comparison::of(&made_up(), &made_up(), 0.05);
        assert_ne!(same.verdict, Change::Worse, "{same}");
        assert_eq!(change(&same, "p99"), Change::Same, "{same}");
        assert_eq!(change(&Comparison::of(&made_up(), &times(1.03), 0.05), "p99"), Change::Same);
        let slower = Comparison::of(&made_up(), &times(1.3), 0.05);
        assert_eq!((change(&slower, "p99"), slower.verdict), (Change::Worse, Change::Worse), "{slower}");
        assert_eq!(change(&slower, "node cpu"), Change::Worse, "{slower}");
        assert!(slower.to_string().contains("verdict        WORSE"), "{slower}");
        let faster = Comparison::of(&times(1.3), &made_up(), 0.05);
        assert_eq!((change(&faster, "p99"), faster.verdict), (Change::Better, Change::Better), "{faster}");
    }

    #[test]
    fn what_only_the_series_shows_is_unclear() {
        let mut new = times(1.3);
        new.latency = made_up().latency;
        let comparison = Comparison::of(&made_up(), &new, 0.05);
        assert_eq!(change(&comparison, "p99"), Change::Same, "the report says the same to the millisecond");
        new.latency.p99_ms += 2.0;
        assert_eq!(change(&Comparison::of(&made_up(), &new, 0.05), "p99"), Change::Unclear);
    }

    #[test]
    fn a_short_run_is_unclear() {
        let short = |factor| {
            let mut report = times(factor);
            report.seconds = 60.0;
            report.server.truncate(8);
            report
        };
        let comparison = Comparison::of(&short(1.0), &short(1.3), 0.05);
        assert_eq!(change(&comparison, "node cpu"), Change::Unclear, "{comparison}");
    }

    #[test]
    fn a_promise_that_was_kept_before_is_worse_when_it_is_broken() {
        let old = made_up();
        let mut new = made_up();
        let mut violations = Violations::default();
        violations.add(Kind::Lost, 1, String::new);
        new.violations = violations;
        let comparison = Comparison::of(&old, &new, 0.05);
        assert_eq!(comparison.verdict, Change::Worse);
        assert!(
            comparison.to_string().contains("lost           1 times, 0 times in the old report: worse"),
            "{comparison}"
        );
        assert_ne!(Comparison::of(&new, &new, 0.05).verdict, Change::Worse);
        let mut more = new.clone();
        more.violations.add(Kind::Lost, 9_999, String::new);
        let comparison = Comparison::of(&new, &more, 0.05);
        assert_eq!(comparison.verdict, Change::Worse, "the same kind more often: {comparison}");
        assert_ne!(Comparison::of(&more, &new, 0.05).verdict, Change::Worse);
    }

    #[test]
    fn a_threshold_that_the_old_one_keeps_is_worse_when_it_fails() {
        let held = |report: Report| report.held_to(&thresholds::parse_all("p99<121ms").unwrap());
        let mut new = made_up();
        new.latency.p99_ms = 121.5;
        let told = |old: &Report, new: &Report| Comparison::of(old, new, 0.05);
        let comparison = told(&made_up(), &held(new.clone()));
        assert_eq!(comparison.verdict, Change::Worse, "{comparison}");
        assert!(
            comparison.to_string().contains("p99<121ms: 121.5 ms, and the old report meets this threshold"),
            "{comparison}"
        );
        assert_ne!(told(&made_up(), &new).verdict, Change::Worse, "nobody asked");
        assert_ne!(told(&new, &held(new.clone())).verdict, Change::Worse, "it failed before");
    }

    #[test]
    fn a_stall_is_in_few_blocks_and_no_less_worse_for_that() {
        let mut new = made_up();
        new.latency.p99_ms = 135.0;
        let comparison = Comparison::of(&made_up(), &new, 0.05);
        assert_eq!(
            (change(&comparison, "p99"), comparison.verdict),
            (Change::Unclear, Change::Unclear),
            "{comparison}"
        );
        new.latency.p99_ms = 2_000.0;
        let comparison = Comparison::of(&made_up(), &new, 0.05);
        assert_eq!(
            (change(&comparison, "p99"), comparison.verdict),
            (Change::Worse, Change::Worse),
            "{comparison}"
        );
        let faster = Comparison::of(&new, &made_up(), 0.05);
        assert_ne!(change(&faster, "p99"), Change::Same, "{faster}");
    }

    #[test]
    fn what_has_no_series_is_worse_when_it_is_far_worse() {
        let told = |change: fn(&mut Report)| {
            let mut new = made_up();
            change(&mut new);
            Comparison::of(&made_up(), &new, 0.05)
        };
        let apply = |ms: f64| move |new: &mut Report| new.reliable.as_mut().unwrap().apply.p99_ms = ms;
        let of = |ms: f64| {
            let mut new = made_up();
            apply(ms)(&mut new);
            change(&Comparison::of(&made_up(), &new, 0.05), "apply p99")
        };
        assert_eq!([of(0.5), of(15.0), of(5_000.0)], [Change::Same, Change::Unclear, Change::Worse]);
        assert_eq!(told(|new| new.join.p99_ms = 900.0).verdict, Change::Worse);
        assert_eq!(told(|new| new.latency.p999_ms = 900.0).verdict, Change::Worse);
        assert_eq!(
            told(|new| new.published.failed = 300).verdict,
            Change::Worse,
            "a tenth is refused, was a fiftieth"
        );
        assert_eq!(change(&told(|new| new.seen.skipped = 50_000), "skipped"), Change::Worse);
    }

    #[test]
    fn a_file_that_is_no_report_is_named() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let wrong = read(&here).unwrap_err();
        assert!(wrong.contains("Cargo.toml: not the report of a run") && !wrong.contains('\n'), "{wrong}");
        assert!(read(Path::new("/nowhere.json")).unwrap_err().starts_with("/nowhere.json: "));
        let mut written = serde_json::to_value(made_up()).unwrap();
        written.as_object_mut().unwrap().remove("latency");
        let missing = serde_json::from_value::<Report>(written).unwrap_err().to_string();
        assert!(missing.contains("missing field `latency`"), "{missing}");
    }
}
