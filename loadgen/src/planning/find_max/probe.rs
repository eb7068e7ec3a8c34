//! The result of a single run at a value: whether the value holds, and the resource that was short if not.
//! Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::search::ProbeOutcome;
use crate::figures::timeline::Moment;
use crate::planning::model::cost::median;
use crate::report::{Judged, Report, Verdict};
use crate::scenario::thresholds::Condition;

/// Part of its processors past which a node has no processor to spare.
const BUSY_MAX: f64 = 0.9;
/// Latency has not settled once the second half of a probe is slower than the first by this factor, and by
/// [`GROWTH_MIN_MS`]. Timelines resolve 9 %, and chance decides which quarter second a flush falls into.
const GROWTH_MAX: f64 = 1.5;
const GROWTH_MIN_MS: f64 = 20.0;
/// A probe with fewer moments is too short for a comparison of its halves.
const MOMENTS_MIN: usize = 8;

/// The resource or the promise that was short in a probe that did not hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Short {
    /// The node kept `busy` of its `of` processors busy.
    Processors { busy: f64, of: f64 },
    /// Messages were refused or shed, by reason.
    Refusals { reasons: BTreeMap<String, u64> },
    /// A promise was broken.
    Promises,
    /// Latency was too high or grew, with processors to spare.
    Latency { busy: Option<f64>, of: f64 },
    /// A condition on something else failed.
    Condition,
    /// The generator was late or busy, or could not make a device.
    Generator,
    /// The run ended without a report.
    NoVerdict,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Probe {
    pub(crate) value: u64,
    /// `None`: the run ended without a report.
    #[serde(flatten)]
    pub(crate) measured: Option<ProbeFigures>,
    pub(crate) conditions: Vec<Judged>,
    /// The reasons for a probe that did not hold; otherwise empty.
    pub(crate) because: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) short: Option<Short>,
    pub(crate) outcome: ProbeOutcome,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProbeFigures {
    /// Over all devices and all messages but reliable messages; `None`: the run had no such message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    /// Violations of any promise.
    pub(crate) violations: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Processors that the node kept busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<f64>,
    pub(crate) frames: u64,
    pub(crate) deliveries: u64,
    pub(crate) verdict: Verdict,
}

/// The rules for every probe beside the conditions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    /// A condition bounds the refusals. Without such a condition no refusal is allowed.
    pub(crate) may_refuse: bool,
    /// Moments before this time do not count for a steady state.
    pub(crate) warm_up_ms: u64,
    /// Processors of the node.
    pub(crate) processors: f64,
}

impl ProbeFigures {
    fn of(report: &Report) -> Self {
        let published = &report.published;
        let reliable = report.reliable.as_ref();
        // Without a sample the percentiles read 0, which would look like a perfect latency.
        let timed = (report.latency.count > 0).then_some(report.latency);
        Self {
            p50_ms: timed.map(|latency| latency.p50_ms),
            p99_ms: timed.map(|latency| latency.p99_ms),
            violations: report.violations.total(),
            refused: published.failed + reliable.map_or(0, |reliable| reliable.refused),
            unknown: published.unknown + reliable.map_or(0, |reliable| reliable.unknown),
            cpu: report.cpu.spent.map(|spent| spent.processors()),
            frames: report.seen.frames,
            deliveries: report.seen.deliveries,
            verdict: report.verdict,
        }
    }
}

impl Probe {
    /// Judges the report of a run at `value` by the conditions and the rules for every probe.
    pub(crate) fn of(value: u64, report: &Report, conditions: &[Condition], bar: Bar) -> Self {
        let judged: Vec<Judged> = conditions.iter().map(|condition| condition.judge(report)).collect();
        let measured = ProbeFigures::of(report);
        let mut because = broken_rules(report, &measured, bar);
        because.extend(judged.iter().filter(|judged| !judged.holds).map(|judged| judged.condition.clone()));
        let growing = growing(report, bar.warm_up_ms);
        let mut failed = conditions.iter().zip(&judged).filter(|(_, judged)| !judged.holds);
        let is_slow = growing.is_some() || failed.any(|(condition, _)| condition.is_of_time());
        because.extend(growing);
        let short = (!because.is_empty()).then(|| short_of(report, &measured, is_slow, bar.processors));
        let outcome = match short {
            None => ProbeOutcome::Held,
            Some(Short::Generator) => ProbeOutcome::Limited,
            Some(_) => ProbeOutcome::Failed,
        };
        Self { value, measured: Some(measured), conditions: judged, because, short, outcome }
    }

    /// A run without a report; `outcome` says whether the node or the generator was the cause.
    pub(crate) fn without_verdict(value: u64, reason: String, outcome: ProbeOutcome) -> Self {
        let short = if outcome == ProbeOutcome::Limited { Short::Generator } else { Short::NoVerdict };
        let because = vec![reason];
        Self { value, measured: None, conditions: Vec::new(), because, short: Some(short), outcome }
    }
}

/// The rules for every probe that this report breaks, in words.
fn broken_rules(report: &Report, measured: &ProbeFigures, bar: Bar) -> Vec<String> {
    let limit = || report.generator.limit(report.lateness.p99_ms).unwrap_or_else(|| "the generator".into());
    let verdict = match report.verdict {
        Verdict::Violations => Some("a promise was broken".to_owned()),
        Verdict::NothingPublished => Some("nothing was published".to_owned()),
        Verdict::NothingJudged => Some("nothing was judged".to_owned()),
        Verdict::Partial => Some("the run was stopped early".to_owned()),
        Verdict::GeneratorLimited => Some(limit()),
        // A failed threshold is among the conditions.
        Verdict::Ok | Verdict::ThresholdFailed => None,
    };
    let ProbeFigures { refused, unknown, .. } = measured;
    let is_refused = !bar.may_refuse && refused + unknown > 0;
    let refusals = is_refused.then(|| format!("{refused} messages refused, {unknown} unknown"));
    verdict.into_iter().chain(refusals).collect()
}

/// The first type whose latency grew during the probe, in words.
fn growing(report: &Report, warm_up_ms: u64) -> Option<String> {
    let types = report.types.rows().iter().map(|row| (&*row.type_name, &row.latency_over_time));
    let reliable = report.reliable.iter().map(|reliable| ("reliable", &reliable.apply_over_time));
    types.chain(reliable).find_map(|(name, moments)| {
        let (before, after) = growth(moments, warm_up_ms)?;
        Some(format!("{name}: latency grew from {before:.0} to {after:.0} ms"))
    })
}

/// The cause of a probe that did not hold. Causes hide each other: full processors also cause latency and
/// refusals, and lateness of the generator also looks like latency. So the deepest cause is asked first.
fn short_of(report: &Report, measured: &ProbeFigures, is_slow: bool, of: f64) -> Short {
    if report.verdict == Verdict::Violations {
        return Short::Promises;
    }
    // Asked before the generator: on a shared machine a full node also makes the generator late.
    if let Some(busy) = measured.cpu.filter(|busy| *busy >= BUSY_MAX * of) {
        return Short::Processors { busy, of };
    }
    if report.verdict == Verdict::GeneratorLimited {
        return Short::Generator;
    }
    if measured.refused + measured.unknown > 0 {
        return Short::Refusals { reasons: refusals(report) };
    }
    if is_slow { Short::Latency { busy: measured.cpu, of } } else { Short::Condition }
}

/// Reasons of shed messages and statuses of refused requests -> their number.
fn refusals(report: &Report) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for row in report.types.rows() {
        for (reason, count) in &row.shed {
            *reasons.entry(reason.clone()).or_insert(0) += count;
        }
        for (status, count) in row.answers.iter().filter(|(status, _)| **status >= 400) {
            *reasons.entry(format!("status {status}")).or_insert(0) += count;
        }
    }
    reasons
}

/// The median p99 of the first half and of the second half of the moments. `None`: no growth past chance.
fn growth(moments: &[Moment], warm_up_ms: u64) -> Option<(f64, f64)> {
    let settled: Vec<f64> =
        moments.iter().filter(|moment| moment.at_ms >= warm_up_ms).map(|moment| moment.p99_ms).collect();
    if settled.len() < MOMENTS_MIN {
        return None;
    }
    let (before, after) = settled.split_at(settled.len() / 2);
    let before = median(before.iter().copied());
    let after = median(after.iter().copied());
    (after > before * GROWTH_MAX && after > before + GROWTH_MIN_MS).then_some((before, after))
}

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Processors { busy, of } => write!(f, "the node's processors: {busy:.2} of {of} busy"),
            Self::Refusals { reasons } if reasons.is_empty() => write!(f, "publishes without an answer"),
            Self::Refusals { reasons } => {
                let reasons: Vec<String> =
                    reasons.iter().map(|(why, count)| format!("{why} {count} times")).collect();
                write!(f, "refusals: {}", reasons.join(", "))
            }
            Self::Promises => write!(f, "a broken promise; a run at this value shows the violations"),
            Self::Latency { busy: Some(busy), of } => {
                write!(f, "latency, although the node's processors are not full: {busy:.2} of {of} busy")
            }
            Self::Latency { busy: None, .. } => {
                write!(f, "latency; the load of the node's processors is not known")
            }
            Self::Condition => write!(f, "a failed condition"),
            Self::Generator => write!(f, "this generator, not the node"),
            Self::NoVerdict => write!(f, "the run ended without a result"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::made_up;

    fn moments(p99_ms: impl Fn(u64) -> f64) -> Vec<Moment> {
        (0..40)
            .map(|place| Moment {
                at_ms: place * 250,
                count: 9,
                p50_ms: 0.0,
                p99_ms: p99_ms(place),
                max_ms: 0.0,
            })
            .collect()
    }

    #[test]
    fn latency_that_grows_is_no_steady_state_and_a_warm_up_is_no_growth() {
        let (before, after) =
            growth(&moments(|place| 50.0 + 10.0 * f64::from(u32::try_from(place).unwrap())), 0).unwrap();
        assert!(before < after);
        assert_eq!(growth(&moments(|place| if place % 5 == 0 { 300.0 } else { 100.0 }), 0), None);
        assert_eq!(growth(&moments(|_| 5.0)[..7], 0), None, "too few");
        let cold = moments(|place| if place < 8 { 10.0 } else { 110.0 });
        assert_eq!(growth(&cold[..16], 2_000), None);
        assert_eq!(growth(&moments(|place| if place < 20 { 2.0 } else { 9.0 }), 0), None, "milliseconds");
    }

    #[test]
    fn what_was_short_reads_as_a_sentence() {
        let said = Short::Processors { busy: 0.953, of: 1.0 }.to_string();
        assert_eq!(said, "the node's processors: 0.95 of 1 busy");
        let reasons = BTreeMap::from([("room_full".to_owned(), 7)]);
        assert_eq!(Short::Refusals { reasons }.to_string(), "refusals: room_full 7 times");
    }

    const BAR: Bar = Bar { may_refuse: true, warm_up_ms: 0, processors: 64.0 };

    /// A run of which nothing was refused.
    fn smooth() -> Report {
        let mut report = made_up();
        (report.published.failed, report.published.ok) = (0, report.published.sent);
        report
    }

    fn probe(report: &Report, slo: &str) -> Probe {
        Probe::of(7, report, &crate::scenario::thresholds::parse_all(slo).unwrap(), BAR)
    }

    #[test]
    fn every_condition_of_time_that_fails_is_latency_and_no_other_is() {
        for slow in ["max<1ms", "p99.9<1ms", "last_max<1ms", "chat.max<1ms", "answer_p99<1us"] {
            let short = probe(&smooth(), slow).short;
            assert!(matches!(short, Some(Short::Latency { .. })), "{slow}: {short:?}");
        }
        assert_eq!(probe(&smooth(), "memory<1KiB").short, Some(Short::Condition));
        assert_eq!(probe(&smooth(), "p99<10s").outcome, ProbeOutcome::Held);
    }

    #[test]
    fn a_run_that_the_generator_limited_says_by_what() {
        let mut report = smooth();
        report.verdict = Verdict::GeneratorLimited;
        report.generator.busiest_worker = 0.95;
        let limited = probe(&report, "p99<10s");
        assert_eq!((limited.outcome, limited.because.len()), (ProbeOutcome::Limited, 1));
        assert!(limited.because[0].starts_with("a worker used 0.95 of a processor"), "{limited:?}");
    }

    #[test]
    fn reliable_messages_have_to_be_in_a_steady_state_too() {
        let mut report = smooth();
        let reliable = report.reliable.as_mut().unwrap();
        reliable.apply_over_time = moments(|place| if place < 20 { 40.0 } else { 140.0 });
        let growing = probe(&report, "loss=0");
        assert_eq!((growing.outcome, growing.because.len()), (ProbeOutcome::Failed, 1));
        assert_eq!(growing.because[0], "reliable: latency grew from 40 to 140 ms");
    }

    #[test]
    fn what_was_not_measured_is_not_nothing() {
        let none = Probe::without_verdict(7, "it was gone".into(), ProbeOutcome::Failed);
        let said = serde_json::to_value(&none).unwrap();
        assert_eq!((said.get("p99_ms"), said.get("violations")), (None, None), "{said}");
        let mut report = smooth();
        report.latency = crate::figures::latency::Percentiles::default();
        let said = serde_json::to_value(probe(&report, "loss=0")).unwrap();
        assert_eq!((said.get("p99_ms"), said["violations"].as_u64()), (None, Some(0)), "{said}");
    }
}
