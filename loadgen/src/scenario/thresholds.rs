//! Conditions on a run: `p99<300ms`, `loss=0`, `gift.p99<1s`. Pure.
//!
//! A condition is parsed before any load and judged on the report. A condition on an unmeasured figure does
//! not hold: a run without messages must not pass for a fast run.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::scenario::mix::Load;

const CONDITIONS_MAX: usize = 64;
/// Names of a run's figures.
const METRICS: [(&str, Metric); 19] = [
    ("p50", Metric::Latency(Quantile::P50)),
    ("p99", Metric::Latency(Quantile::P99)),
    ("p99.9", Metric::Latency(Quantile::P999)),
    ("max", Metric::Latency(Quantile::Max)),
    ("last_p50", Metric::Last(Quantile::P50)),
    ("last_p99", Metric::Last(Quantile::P99)),
    ("last_max", Metric::Last(Quantile::Max)),
    ("apply_p99", Metric::Apply(Quantile::P99)),
    ("apply_max", Metric::Apply(Quantile::Max)),
    ("join_p99", Metric::Join),
    ("answer_p99", Metric::Answer),
    ("lateness_p99", Metric::Lateness),
    ("loss", Metric::Loss),
    ("runs", Metric::Runs),
    ("refused", Metric::Refused),
    ("skipped", Metric::Skipped),
    ("cpu", Metric::Cpu),
    ("memory", Metric::Memory),
    ("deliveries", Metric::Deliveries),
];
/// Names of a type's figures.
const TYPE_METRICS: [&str; 7] = ["p50", "p99", "p99.9", "max", "last_p99", "refused", "skipped"];
/// Longest sign first, so `<=` is not read as `<`.
const COMPARISONS: [(&str, Relation); 5] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("<", Relation::Below),
    (">", Relation::Above),
    ("=", Relation::Equal),
];
/// Unit -> factor to the figure's own unit: milliseconds, parts of 1, bytes.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantile {
    P50,
    P99,
    P999,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// All devices and messages.
    Latency(Quantile),
    /// The last device of each message.
    Last(Quantile),
    /// Reliable messages, from the publish answer to the device's apply.
    Apply(Quantile),
    Join,
    Answer,
    Lateness,
    /// Violations of any kind.
    Loss,
    /// Changes of a room's run.
    Runs,
    /// Share of messages refused, or without a verdict in the answer.
    Refused,
    /// Share of owed messages that devices were told they missed.
    Skipped,
    /// Processors kept busy by the node, on average.
    Cpu,
    /// Largest memory of the node.
    Memory,
    /// Messages to devices, a second.
    Deliveries,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Time,
    Share,
    Bytes,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

/// One condition: `METRIC OP VALUE`, on the run or on one type.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "String")]
pub(crate) struct Condition {
    /// `None`: the condition is on the run.
    pub(crate) of: Option<String>,
    pub(crate) metric: Metric,
    pub(crate) comparison: Relation,
    /// In `unit`.
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// Factor from `unit` to the figure's own unit.
    pub(crate) scale: f64,
}

/// Parses conditions separated by commas.
///
/// # Errors
/// One line with the wrong condition and the allowed values.
pub(crate) fn parse_all(text: &str) -> Result<Vec<Condition>, String> {
    let conditions = text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
    if conditions.len() > CONDITIONS_MAX {
        return Err(format!("{} conditions: at most {CONDITIONS_MAX}", conditions.len()));
    }
    Ok(conditions)
}

/// Checks every named type, and that some published type has the asked latency.
///
/// # Errors
/// One line with the condition and the published types.
pub(crate) fn check_types(conditions: &[Condition], loads: &[Load]) -> Result<(), String> {
    for condition in conditions {
        let Some(of) = &condition.of else {
            // A run of counters alone has no message with a latency.
            let is_timed = matches!(condition.metric, Metric::Latency(_) | Metric::Last(_));
            if is_timed && loads.iter().all(Load::is_counter) {
                return Err(format!(
                    "{condition}: no published type has this latency (for reliable messages use apply_p99)"
                ));
            }
            continue;
        };
        if !loads.iter().any(|load| load.type_name == *of) {
            let types: Vec<&str> = loads.iter().map(|load| &*load.type_name).collect();
            let types = types.join(", ");
            return Err(format!(
                "{condition}: no type {of} in this run, only {types} (for reliable types use apply_p99)"
            ));
        }
    }
    Ok(())
}

impl Condition {
    /// The upper bound on the run's p99, for a line in a chart.
    pub(crate) fn p99_most_ms(&self) -> Option<f64> {
        let is_most = matches!(self.comparison, Relation::Below | Relation::AtMost);
        let is_p99 = self.of.is_none() && self.metric == Metric::Latency(Quantile::P99);
        (is_most && is_p99).then_some(self.value * self.scale)
    }

    pub(crate) fn is_of_time(&self) -> bool {
        self.metric.quantity() == Quantity::Time
    }

    pub(crate) fn is_of_refusals(&self) -> bool {
        self.metric == Metric::Refused
    }
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

/// Splits a name into type and metric; no type: the whole run. Types and `p99.9` both contain dots, so the
/// split is at the last dot with a metric behind it.
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
        let name = known.map_or("", |known| known.0);
        let sign = sign.map_or("", |sign| sign.0);
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
    /// Parses a value of this quantity: the number, its unit, and the factor to the figure's own unit.
    fn measured(self, text: &str) -> Result<(f64, &'static str, f64), &'static str> {
        let allowed = match self {
            Self::Time => "a time has a unit: us, ms or s",
            Self::Share => "a share is 0 to 100 %, or 0 to 1",
            Self::Bytes => "bytes have a unit: KiB, MiB or GiB",
            Self::Number => "a number that is not negative",
        };
        let units = UNITS.into_iter().filter(|(_, quantity, _)| *quantity == self);
        for (unit, _, scale) in units {
            // `parse` alone would take `inf`, `1e3` and `-1`.
            let Some(number) = text.strip_suffix(unit) else { continue };
            let plain = number.trim_end().bytes().all(|digit| digit.is_ascii_digit() || digit == b'.');
            let Some(value) = number.trim_end().parse::<f64>().ok().filter(|_| plain) else { continue };
            // More than the whole is a typing error, such as `refused<5` for 5 %.
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
            Self::Loss | Self::Runs | Self::Cpu | Self::Deliveries => Quantity::Number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "runs<=3",
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
    fn a_type_that_is_not_published_is_named_before_the_load() {
        let loads = crate::run::args::tests::resolve("--type gift=2 --rate 10").unwrap().loads;
        assert_eq!(check_types(&parse_all("gift.p99<1s,p99<1s").unwrap(), &loads), Ok(()));
        let wrong = check_types(&parse_all("like.p99<1s").unwrap(), &loads).unwrap_err();
        assert!(wrong.contains("like.p99<1s: no type like in this run, only chat, gift"), "{wrong}");
        let wrong = check_types(&parse_all("loss=0,max<1s").unwrap(), &[]).unwrap_err();
        assert!(wrong.contains("max<1s: no published type has this latency"), "{wrong}");
        assert_eq!(check_types(&parse_all("loss=0,apply_p99<1s").unwrap(), &[]), Ok(()));
    }
}
