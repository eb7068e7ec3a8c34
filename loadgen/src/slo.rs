//! What a run is held to: `p99<300ms`, `loss=0`, `gift.p99<1s`. Pure.
//!
//! A condition is parsed before any load and judged on the report. What was not measured does not hold: a run that gave
//! nothing must not pass for one that was fast.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::latency::Percentiles;
use crate::mix::Load;
use crate::report::{Report, ratio};
use crate::types::TypeReport;

/// Conditions of one run, at most.
const CONDITIONS_MAX: usize = 64;
/// What may be asked of a run.
const METRICS: [(&str, Metric); 18] = [
    ("p50", Metric::Latency(Point::P50)),
    ("p99", Metric::Latency(Point::P99)),
    ("p99.9", Metric::Latency(Point::P999)),
    ("max", Metric::Latency(Point::Max)),
    ("last_p50", Metric::Last(Point::P50)),
    ("last_p99", Metric::Last(Point::P99)),
    ("last_max", Metric::Last(Point::Max)),
    ("apply_p99", Metric::Apply(Point::P99)),
    ("apply_max", Metric::Apply(Point::Max)),
    ("join_p99", Metric::Join),
    ("answer_p99", Metric::Answer),
    ("lateness_p99", Metric::Lateness),
    ("loss", Metric::Loss),
    ("refused", Metric::Refused),
    ("skipped", Metric::Skipped),
    ("cpu", Metric::Cpu),
    ("memory", Metric::Memory),
    ("deliveries", Metric::Deliveries),
];
/// What may be asked of one type.
const TYPE_METRICS: [&str; 7] = ["p50", "p99", "p99.9", "max", "last_p99", "refused", "skipped"];
/// Longest first, so that `<=` is not read as `<`.
const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Below),
    (">", Comparison::Above),
    ("=", Comparison::Equal),
];
/// Units, each with what it is of the unit a figure is kept in: milliseconds, parts of 1, bytes.
const UNITS: [(&str, Quantity, f64); 9] = [
    ("us", Quantity::Time, 0.001),
    ("ms", Quantity::Time, 1.0),
    ("s", Quantity::Time, 1_000.0),
    ("%", Quantity::Share, 0.01),
    ("", Quantity::Share, 1.0),
    ("KiB", Quantity::Bytes, 1_024.0),
    ("MiB", Quantity::Bytes, 1_048_576.0),
    ("GiB", Quantity::Bytes, 1_073_741_824.0),
    ("", Quantity::Number, 1.0),
];

/// One condition, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// As it was written.
    pub(crate) condition: String,
    /// What the run came to, in the condition's unit; `None` where nothing was measured.
    pub(crate) found: Option<f64>,
    /// The same for people, with its unit.
    pub(crate) found_text: String,
    pub(crate) holds: bool,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.holds { "holds " } else { "FAILED" };
        write!(f, "threshold    {kept} {}: {}", self.condition, self.found_text)
    }
}

/// A point of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    P50,
    P99,
    P999,
    Max,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    /// Every device and message.
    Latency(Point),
    /// The last device of each message.
    Last(Point),
    /// Reliable messages, from their answer.
    Apply(Point),
    Join,
    Answer,
    Lateness,
    /// Violations of any kind.
    Loss,
    /// Share of the messages that were refused, or whose answer said nothing.
    Refused,
    /// Share of what devices were owed that they were told they missed.
    Skipped,
    /// Processors that the node kept busy, on average.
    Cpu,
    /// The most that the node held.
    Memory,
    /// Messages to devices, a second.
    Deliveries,
}

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Time,
    Share,
    Bytes,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

/// One condition: `METRIC OP VALUE`, of the run or of one type of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "String")]
pub(crate) struct Condition {
    /// The type it is about; `None`: the run.
    of: Option<String>,
    metric: Metric,
    comparison: Comparison,
    /// In `unit`.
    value: f64,
    /// As written.
    unit: &'static str,
    /// What `unit` is in the figure's own unit.
    scale: f64,
}

/// Reads a list of conditions, separated by commas.
///
/// # Errors
/// One line that names the condition that is wrong, and what is allowed.
pub(crate) fn parse_all(text: &str) -> Result<Vec<Condition>, String> {
    let conditions = text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
    if conditions.len() > CONDITIONS_MAX {
        return Err(format!("{} conditions: at most {CONDITIONS_MAX}", conditions.len()));
    }
    Ok(conditions)
}

/// Whether each type that a condition names is published, and whether there is a message whose latency it asks for.
///
/// # Errors
/// One line that names the condition, and the types there are.
pub(crate) fn check_types(conditions: &[Condition], loads: &[Load]) -> Result<(), String> {
    for condition in conditions {
        let Some(of) = &condition.of else {
            let is_timed = matches!(condition.metric, Metric::Latency(_) | Metric::Last(_));
            if is_timed && loads.iter().all(Load::is_counter) {
                return Err(format!(
                    "{condition}: of what this run publishes nothing has that latency (reliable messages are asked by apply_p99)"
                ));
            }
            continue;
        };
        if !loads.iter().any(|load| load.type_name == *of) {
            let types: Vec<&str> = loads.iter().map(|load| &*load.type_name).collect();
            let types = types.join(", ");
            return Err(format!(
                "{condition}: no type {of} in this run but {types} (a reliable one is asked by apply_p99)"
            ));
        }
    }
    Ok(())
}

impl Condition {
    /// Holds it against what a run found. A type that the run had not is as good as nothing measured.
    #[must_use]
    pub(crate) fn judge(&self, report: &Report) -> Judged {
        let found = match &self.of {
            None => self.metric.of_run(report),
            Some(name) => report.types.row(name).and_then(|row| self.metric.of_type(row)),
        };
        let found = found.map(|found| found / self.scale);
        let holds = found.is_some_and(|found| match self.comparison {
            Comparison::Below => found < self.value,
            Comparison::AtMost => found <= self.value,
            Comparison::Above => found > self.value,
            Comparison::AtLeast => found >= self.value,
            Comparison::Equal => (found - self.value).abs() <= f64::EPSILON * self.value.abs(),
        });
        let found_text = found.map_or_else(
            || "nothing was measured".to_owned(),
            |found| format!("{} {}", rounded(found), self.unit).trim_end().to_owned(),
        );
        Judged { condition: self.to_string(), found, found_text, holds }
    }
}

impl Condition {
    /// The most that it allows to a p99 of every device and message, for a line in a chart.
    #[must_use]
    pub(crate) fn p99_most_ms(&self) -> Option<f64> {
        let is_most = matches!(self.comparison, Comparison::Below | Comparison::AtMost);
        let is_p99 = self.of.is_none() && self.metric == Metric::Latency(Point::P99);
        (is_most && is_p99).then_some(self.value * self.scale)
    }

    /// Whether it asks how long something took.
    #[must_use]
    pub(crate) fn is_of_time(&self) -> bool {
        self.metric.quantity() == Quantity::Time
    }

    /// Whether it says how much may be refused.
    #[must_use]
    pub(crate) fn is_of_refusals(&self) -> bool {
        self.metric == Metric::Refused
    }
}

/// Four digits that say something, and no more.
fn rounded(figure: f64) -> String {
    let places = match figure.abs() {
        size if size >= 1_000.0 || size == size.trunc() => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 0.1 => 3,
        size if size >= 0.01 => 4,
        size if size >= 0.001 => 5,
        _ => 6,
    };
    format!("{figure:.places$}")
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let form = || format!("{text:?} is no condition like p99<300ms, loss=0 or gift.p99<=1s");
        let at = text.find(['<', '>', '=']).ok_or_else(form)?;
        let (name, rest) = text.split_at(at);
        let (sign, comparison) =
            COMPARISONS.into_iter().find(|(sign, _)| rest.starts_with(sign)).ok_or_else(form)?;
        let (of, metric) = named(name.trim()).map_err(|wrong| format!("{text:?}: {wrong}"))?;
        let value = rest[sign.len()..].trim();
        let (value, unit, scale) = metric
            .quantity()
            .measured(value)
            .map_err(|allowed| format!("{text:?}: {value:?} is no value of {}: {allowed}", name.trim()))?;
        Ok(Self { of, metric, comparison, value, unit, scale })
    }
}

/// The type and the metric of a name; no type: the whole run. A type may have dots, and so has p99.9: the last dot counts
/// that has a metric after it.
fn named(name: &str) -> Result<(Option<String>, Metric), String> {
    let metric = |name: &str| METRICS.into_iter().find(|(known, _)| *known == name).map(|(_, metric)| metric);
    if let Some(metric) = metric(name) {
        return Ok((None, metric));
    }
    let mut dots = name.rmatch_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
    let Some((_, last)) = dots.clone().next() else {
        let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
        return Err(format!("no metric {name:?}; there are {}, and TYPE.p99", names.join(", ")));
    };
    let of_type = dots.find_map(|(of, rest)| {
        let metric = metric(rest).filter(|_| !of.is_empty() && TYPE_METRICS.contains(&rest))?;
        Some((Some(of.to_owned()), metric))
    });
    of_type.ok_or_else(|| format!("a type has no {last:?} but {}", TYPE_METRICS.join(", ")))
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(of) = &self.of {
            write!(f, "{of}.")?;
        }
        let known = METRICS.iter().find(|(_, metric)| *metric == self.metric);
        let sign = COMPARISONS.iter().find(|(_, comparison)| *comparison == self.comparison);
        let (name, sign) = (known.map_or("", |known| known.0), sign.map_or("", |sign| sign.0));
        write!(f, "{name}{sign}{}{}", self.value, self.unit)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.to_string()
    }
}

impl Quantity {
    /// A value of this, the unit it is in, and what that is in the figure's own unit.
    fn measured(self, text: &str) -> Result<(f64, &'static str, f64), &'static str> {
        let allowed = match self {
            Self::Time => "a time has a unit: us, ms or s",
            Self::Share => "a share is 0 to 100 %, or 0 to 1",
            Self::Bytes => "bytes have a unit: KiB, MiB or GiB",
            Self::Number => "a number that is not negative",
        };
        let units = UNITS.into_iter().filter(|(_, quantity, _)| *quantity == self);
        for (unit, _, scale) in units {
            let Some(number) = text.strip_suffix(unit) else { continue };
            let plain = number.trim_end().bytes().all(|digit| digit.is_ascii_digit() || digit == b'.');
            let Some(value) = number.trim_end().parse::<f64>().ok().filter(|_| plain) else { continue };
            if self == Self::Share && value * scale > 1.0 {
                break;
            }
            return Ok((value, unit, scale));
        }
        Err(allowed)
    }
}

impl Metric {
    fn quantity(self) -> Quantity {
        match self {
            Self::Latency(_) | Self::Last(_) | Self::Apply(_) => Quantity::Time,
            Self::Join | Self::Answer | Self::Lateness => Quantity::Time,
            Self::Refused | Self::Skipped => Quantity::Share,
            Self::Memory => Quantity::Bytes,
            Self::Loss | Self::Cpu | Self::Deliveries => Quantity::Number,
        }
    }

    /// What a run came to: milliseconds, a part of 1, bytes, or a number. `None`: nothing was measured.
    fn of_run(self, report: &Report) -> Option<f64> {
        match self {
            Self::Latency(point) => point.of(&report.latency),
            Self::Last(point) => point.of(&report.spread.last),
            Self::Apply(point) => point.of(&report.reliable.as_ref()?.apply),
            Self::Join => Point::P99.of(&report.join),
            Self::Answer => Point::P99.of(&report.answer),
            Self::Lateness => Point::P99.of(&report.lateness),
            Self::Loss => (report.devices > 0).then(|| ratio(report.violations.total(), 1)),
            Self::Refused => report.refused_share(),
            Self::Skipped => share(report.seen.skipped, report.seen.deliveries + report.seen.skipped),
            Self::Cpu => report.node_cpu(),
            Self::Memory => report.node_bytes_most().map(|bytes| ratio(bytes, 1)),
            Self::Deliveries => (report.seen.deliveries > 0).then(|| report.deliveries_per_s()),
        }
    }

    /// What one type came to; only what [`TYPE_METRICS`] allows.
    fn of_type(self, row: &TypeReport) -> Option<f64> {
        match self {
            Self::Latency(point) => point.of(&row.latency),
            Self::Last(point) => point.of(&row.spread.last),
            Self::Refused => share(row.refused + row.unknown, row.offered),
            Self::Skipped => share(row.skipped, row.delivered + row.merged + row.skipped),
            Self::Apply(_) | Self::Join | Self::Answer | Self::Lateness | Self::Loss => None,
            Self::Cpu | Self::Memory | Self::Deliveries => None,
        }
    }
}

impl Point {
    fn of(self, figures: &Percentiles) -> Option<f64> {
        let at = match self {
            Self::P50 => figures.p50_ms,
            Self::P99 => figures.p99_ms,
            Self::P999 => figures.p999_ms,
            Self::Max => figures.max_ms,
        };
        (figures.count > 0).then_some(at)
    }
}

/// A part of what there was; `None` where there was nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| ratio(part, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::report::tests::made_up;

    fn judged(text: &str, report: &Report) -> Judged {
        text.parse::<Condition>().unwrap().judge(report)
    }

    #[test]
    fn a_condition_is_written_as_it_was_read() {
        for text in [
            "p50<1.5ms",
            "p99<=300ms",
            "p99.9<2s",
            "max>=100us",
            "last_p99<800ms",
            "apply_max<3s",
            "loss=0",
            "refused<0.5%",
            "skipped<0.01",
            "cpu<1.75",
            "memory<=512MiB",
            "deliveries>100000",
            "gift.p99.9<1s",
            "gift.last_p99<1s",
            "vip.gift.p99<1s",
            "vip.gift.p99.9<1s",
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.to_string(), text);
            let spelt = serde_json::to_string(&condition).unwrap();
            assert_eq!(serde_json::from_str::<Condition>(&spelt).unwrap(), condition);
        }
        assert_eq!(" p99 <= 300 ms ".parse::<Condition>().unwrap().to_string(), "p99<=300ms");
    }

    #[test]
    fn a_type_may_have_dots() {
        for (text, of) in [
            ("vip.gift.p99<1s", "vip.gift"),
            ("vip.gift.p99.9<1s", "vip.gift"),
            ("vip.p99.max<1s", "vip.p99"),
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().of.as_deref(), Some(of), "{text}");
        }
        assert!(parse_all("vip.gift.cpu<1").unwrap_err().contains("a type has no \"cpu\""));
    }

    #[test]
    fn a_list_is_read_and_a_mistake_in_it_named() {
        let all = parse_all("p99<300ms, loss=0").unwrap();
        assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["p99<300ms", "loss=0"]);
        for (text, named) in [
            ("", "is no condition like p99<300ms"),
            ("p99<300ms,", "is no condition like"),
            ("p99", "is no condition like"),
            ("p98<1ms", "no metric \"p98\"; there are p50, p99"),
            ("p99<300", "us, ms or s"),
            ("p99<fast", "us, ms or s"),
            ("p99<-1ms", "us, ms or s"),
            ("p99<infms", "us, ms or s"),
            ("refused<200%", "0 to 100 %"),
            ("memory<12", "KiB, MiB or GiB"),
            ("loss=0ms", "a number"),
            ("gift.cpu<1", "a type has no \"cpu\" but p50"),
            (".p99<1ms", "a type has no"),
        ] {
            let wrong = parse_all(text).unwrap_err();
            assert!(wrong.contains(named) && !wrong.contains('\n'), "{text}: {wrong}");
        }
        assert!(parse_all(&vec!["loss=0"; 65].join(",")).unwrap_err().contains("at most 64"));
    }

    #[test]
    fn a_condition_is_judged_in_its_own_unit() {
        let report = made_up();
        let slow = judged("p99<0.1s", &report);
        assert_eq!((slow.found, &*slow.found_text, slow.holds), (Some(0.12), "0.120 s", false));
        assert!(judged("p99<=120ms", &report).holds);
        assert!(!judged("p99<120ms", &report).holds);
        assert!(judged("chat.p99>100ms", &report).holds);
        assert!(judged("loss=0", &report).holds);
        let refused = judged("refused<=2%", &report);
        assert_eq!((&*refused.found_text, refused.holds), ("2 %", true));
        assert!(judged("memory<1GiB", &report).holds);
        assert!(judged("cpu>=0.5", &report).holds);
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let mut report = made_up();
        report.latency = Percentiles::default();
        report.reliable = None;
        report.server.clear();
        report.devices = 0;
        for text in ["p99<1000s", "max>0us", "apply_p99<1s", "cpu<100", "nobody.p99<1s", "loss=0"] {
            let judged = judged(text, &report);
            assert_eq!((judged.found, judged.holds), (None, false), "{text}");
            assert_eq!(judged.found_text, "nothing was measured");
        }
    }

    #[test]
    fn a_type_that_is_not_published_is_named_before_the_load() {
        let loads = crate::args::tests::resolve("--type gift=2 --rate 10").unwrap().loads;
        assert_eq!(check_types(&parse_all("gift.p99<1s,p99<1s").unwrap(), &loads), Ok(()));
        let wrong = check_types(&parse_all("like.p99<1s").unwrap(), &loads).unwrap_err();
        assert!(wrong.contains("like.p99<1s: no type like in this run but chat, gift"), "{wrong}");
        let wrong = check_types(&parse_all("loss=0,max<1s").unwrap(), &[]).unwrap_err();
        assert!(wrong.contains("max<1s: of what this run publishes nothing has"), "{wrong}");
        assert_eq!(check_types(&parse_all("loss=0,apply_p99<1s").unwrap(), &[]), Ok(()));
    }

    #[test]
    fn a_threshold_fails_a_run_that_is_otherwise_fine_and_says_so() {
        let run = |text: &str| made_up().held_to(&parse_all(text).unwrap());
        assert_eq!(run("p99<1s,loss=0").verdict, Verdict::Ok);
        let failed = run("p99<1ms,loss=0");
        assert_eq!(failed.verdict, Verdict::ThresholdFailed);
        let said = failed.to_string();
        assert!(said.contains("threshold    FAILED p99<1ms: 120 ms\n"), "{said}");
        assert!(said.contains("threshold    holds  loss=0: 0\n"), "{said}");
        let mut limited = made_up();
        limited.verdict = Verdict::GeneratorLimited;
        assert_eq!(limited.held_to(&parse_all("p99<1ms").unwrap()).verdict, Verdict::GeneratorLimited);
    }
}
