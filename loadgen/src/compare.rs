//! `roomcast-loadgen compare`: whether a report is worse than an older one, or only different by noise.
//!
//! It reads two reports, and judges figure by figure (`figure`) by what the runs' own noise allows (`noise`). A promise
//! that is broken now and was not before is worse, whatever the figures are. Runs of another shape are not compared: what
//! differs would be the shape.

mod figure;
mod noise;

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::args::openable;
use crate::report::{Report, Verdict, ratio};
use crate::run::RunError;

use figure::{FIGURES, Figure};
use noise::{Change, Interval, blocks, interval};

/// Largest report that is read: a day of quarter seconds has less.
const REPORT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Rates of reliable messages, which a report has only by their number, may be so many times each other: they may come at
/// random.
const RELIABLE_RATES_MAX: f64 = 1.1;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The report to hold the other against, as `run --json` wrote it.
    old: PathBuf,
    /// The report to judge.
    new: PathBuf,
    /// A change by less than this is none.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    tolerance: f64,
    /// Compare runs of different shapes, and runs that were generator-limited, too.
    #[arg(long)]
    anyway: bool,
    /// Write the comparison here as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Two reports, figure by figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// 0.05: 5 %.
    tolerance: f64,
    /// Why these should not be compared, where they were all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomparable: Option<String>,
    figures: Vec<Compared>,
    /// Kinds of violations that the old one has not.
    new_violations: Vec<String>,
    verdict: Change,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Compared {
    figure: String,
    unit: String,
    old: Option<f64>,
    new: Option<f64>,
    /// New to old, as the reports say.
    ratio: Option<f64>,
    /// 95 in 100 of the resamples of both runs lie in it; `None` where too little is known.
    interval: Option<Interval>,
    change: Change,
}

/// Compares two reports and says so on stdout, and in the JSON file.
///
/// # Errors
/// [`RunError::Usage`]: a file that is no report, or runs that can't be compared.
pub(crate) fn run(args: &CompareArgs) -> Result<Verdict, RunError> {
    openable("--json", args.json.as_ref()).map_err(RunError::Usage)?;
    let (old, new) = (read(&args.old).map_err(RunError::Usage)?, read(&args.new).map_err(RunError::Usage)?);
    let incomparable = incomparable(&old, &new);
    if let Some(why) = incomparable.as_ref().filter(|_| !args.anyway) {
        return Err(RunError::Usage(format!("not comparable: {why} (--anyway compares them all the same)")));
    }
    let comparison = Comparison { incomparable, ..Comparison::of(&old, &new, args.tolerance) };
    write!(std::io::stdout(), "{comparison}")
        .and_then(|()| match &args.json {
            Some(path) => std::fs::write(path, serde_json::to_vec_pretty(&comparison)?),
            None => Ok(()),
        })
        .map_err(|error| RunError::Usage(format!("writing the comparison: {error}")))?;
    Ok(if comparison.verdict == Change::Worse { Verdict::ThresholdFailed } else { Verdict::Ok })
}

/// A report as `run --json` wrote it. What it has beyond that is passed over.
fn read(path: &Path) -> Result<Report, String> {
    let wrong = |reason: &dyn fmt::Display| format!("{}: {reason}", path.display());
    let bytes = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if bytes > REPORT_BYTES_MAX {
        return Err(wrong(&format!("{bytes} bytes; a report has at most {REPORT_BYTES_MAX}")));
    }
    let text = std::fs::read(path).map_err(|error| wrong(&error))?;
    serde_json::from_slice(&text).map_err(|error| wrong(&format!("no report of a run: {error}")))
}

/// `5%` or `0.05`.
fn percent(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    let share = number.trim().parse::<f64>().ok().map(|number| number * scale);
    share
        .filter(|share| (0.0..=10.0).contains(share))
        .ok_or_else(|| format!("{text:?} is no share like 5% or 0.05"))
}

/// Why two runs can't be compared: their shapes, or that one says more about its generator.
fn incomparable(old: &Report, new: &Report) -> Option<String> {
    let types = |report: &Report| {
        let each = report.types.rows().iter();
        each.map(|row| format!("{} {}/s", row.type_name, row.rate_per_s)).collect::<Vec<_>>().join(", ")
    };
    let shapes = [
        ("devices", old.devices.to_string(), new.devices.to_string()),
        ("rooms", old.rooms.to_string(), new.rooms.to_string()),
        ("payload bytes", old.payload_bytes.to_string(), new.payload_bytes.to_string()),
        ("encoding", old.encoding.subprotocol().to_owned(), new.encoding.subprotocol().to_owned()),
        ("types", types(old), types(new)),
        ("messages per request", old.messages_per_request.to_string(), new.messages_per_request.to_string()),
        ("reliable messages", reliable(old).to_owned(), reliable(new).to_owned()),
    ];
    if let Some((what, old, new)) = shapes.into_iter().find(|(_, old, new)| old != new) {
        return Some(format!("{what}: {old} in the old one, {new} in the new one"));
    }
    if let Some((old, new)) = reliable_per_s(old).zip(reliable_per_s(new)) {
        let ratio = if old > 0.0 { new / old } else { 1.0 };
        if !(1.0 / RELIABLE_RATES_MAX..=RELIABLE_RATES_MAX).contains(&ratio) {
            return Some(format!("reliable messages: {old:.1}/s in the old one, {new:.1}/s in the new one"));
        }
    }
    for (report, name) in [(old, "old"), (new, "new")] {
        match report.verdict {
            Verdict::GeneratorLimited => return Some(format!("the {name} one was generator-limited")),
            Verdict::NothingPublished => return Some(format!("in the {name} one nothing was published")),
            Verdict::Ok | Verdict::ThresholdFailed | Verdict::Violations => {}
        }
    }
    None
}

fn reliable_per_s(report: &Report) -> Option<f64> {
    report.reliable.as_ref().map(|reliable| ratio(reliable.sent, 1) / report.seconds)
}

fn reliable(report: &Report) -> &'static str {
    if report.reliable.is_some() { "some" } else { "none" }
}

impl Comparison {
    /// What the new one is, held against the old one.
    #[must_use]
    fn of(old: &Report, new: &Report, tolerance: f64) -> Self {
        let figures = FIGURES.iter().map(|figure| Compared::of(figure, (old, new), tolerance));
        let figures: Vec<Compared> =
            figures.filter(|compared| compared.old.or(compared.new).is_some()).collect();
        let before: Vec<&str> = old.violations.found().map(|(kind, _)| kind).collect();
        let now = new.violations.found().map(|(kind, _)| kind);
        let new_violations: Vec<String> =
            now.filter(|kind| !before.contains(kind)).map(str::to_owned).collect();
        let is = |change| figures.iter().any(|compared| compared.change == change);
        let verdict = match () {
            () if !new_violations.is_empty() || is(Change::Worse) => Change::Worse,
            () if figures.iter().all(|compared| compared.change == Change::Unclear) => Change::Unclear,
            () if is(Change::Better) => Change::Better,
            () => Change::Same,
        };
        Self { tolerance, incomparable: None, figures, new_violations, verdict }
    }
}

impl Compared {
    fn of(figure: &Figure, (old, new): (&Report, &Report), tolerance: f64) -> Self {
        let series = |report: &Report| blocks(&(figure.series)(report), report.seconds);
        let (said_old, said_new) = ((figure.said)(old), (figure.said)(new));
        let both = said_old.zip(said_new);
        let ratio = both.filter(|(old, _)| *old > 0.0).map(|(old, new)| new / old);
        let interval = both.and_then(|_| interval(&series(old), &series(new)));
        let change = match (both, ratio, interval) {
            (Some((old, new)), ..) if (new - old).abs() < figure.least => Change::Same,
            (Some(_), Some(ratio), Some(interval)) => {
                let said = Interval { low: ratio, middle: ratio, high: ratio };
                let change = interval.change(figure.worse, tolerance);
                // A series is coarser than what the report says: what only one of them shows is not known.
                let agrees = said.change(figure.worse, tolerance) == change || change == Change::Same;
                if agrees { change } else { Change::Unclear }
            }
            _ => Change::Unclear,
        };
        let (figure, unit) = (figure.name.to_owned(), figure.unit.to_owned());
        Self { figure, unit, old: said_old, new: said_new, ratio, interval, change }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.incomparable {
            writeln!(f, "not comparable: {why}")?;
        }
        writeln!(
            f,
            "{:<14} {:>12} {:>12} {:<6} {:>8} {:>17}  verdict",
            "", "old", "new", "", "ratio", "95 % of resamples"
        )?;
        for Compared { figure, unit, old, new, ratio, interval, change } in &self.figures {
            let number = |figure: &Option<f64>, places: usize| {
                figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.places$}"))
            };
            let between =
                interval.map_or_else(|| "-".to_owned(), |all| format!("{:.3} to {:.3}", all.low, all.high));
            writeln!(
                f,
                "{figure:<14} {:>12} {:>12} {unit:<6} {:>8} {between:>17}  {}",
                number(old, 2),
                number(new, 2),
                number(ratio, 3),
                change.name()
            )?;
        }
        for kind in &self.new_violations {
            writeln!(f, "{kind:<14} was not found in the old one: worse")?;
        }
        let count = |change| self.figures.iter().filter(|compared| compared.change == change).count();
        let percent = 100.0 * self.tolerance;
        writeln!(
            f,
            "verdict        {}: {} better, {} same, {} unclear, {} worse, by more than {percent} %",
            match self.verdict {
                Change::Worse => "WORSE",
                Change::Unclear => "unclear, nothing shows that it is worse",
                Change::Better | Change::Same => "not worse",
            },
            count(Change::Better),
            count(Change::Same),
            count(Change::Unclear),
            count(Change::Worse)
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
        let (old, mut new) = (made_up(), made_up());
        let mut violations = Violations::default();
        violations.add(Kind::Lost, 1, String::new);
        new.violations = violations;
        let comparison = Comparison::of(&old, &new, 0.05);
        assert_eq!(
            (comparison.verdict, &*comparison.new_violations),
            (Change::Worse, &["lost".to_owned()][..])
        );
        assert_ne!(Comparison::of(&new, &new, 0.05).verdict, Change::Worse);
    }

    #[test]
    fn other_shapes_are_not_compared() {
        let told = |change: fn(&mut Report)| {
            let mut new = made_up();
            change(&mut new);
            incomparable(&made_up(), &new).unwrap_or_default()
        };
        assert_eq!(told(|_| {}), "");
        assert_eq!(told(|new| new.devices = 7), "devices: 1000 in the old one, 7 in the new one");
        assert!(told(|new| new.payload_bytes = 9).starts_with("payload bytes"));
        assert!(told(|new| new.reliable.as_mut().unwrap().sent *= 2).contains("2.5/s in the old one, 5.0/s"));
        assert!(told(|new| new.reliable = None).starts_with("reliable messages: some"));
        assert!(
            told(|new| new.verdict = Verdict::GeneratorLimited).contains("new one was generator-limited")
        );
    }

    #[test]
    fn a_file_that_is_no_report_is_named() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let wrong = read(&here).unwrap_err();
        assert!(wrong.contains("Cargo.toml: no report of a run") && !wrong.contains('\n'), "{wrong}");
        assert!(read(Path::new("/nowhere.json")).unwrap_err().starts_with("/nowhere.json: "));
        let mut written = serde_json::to_value(made_up()).unwrap();
        written.as_object_mut().unwrap().remove("latency");
        let missing = serde_json::from_value::<Report>(written).unwrap_err().to_string();
        assert!(missing.contains("missing field `latency`"), "{missing}");
    }

    #[test]
    fn a_tolerance_is_a_share() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("0.1"), Ok(0.1));
        for wrong in ["", "%", "-1%", "x", "NaN", "2000%"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
