//! The judgement of thresholds on a report. A condition on an unmeasured figure fails. Pure.

use crate::figures::latency::Percentiles;
use crate::figures::ratio;
use crate::node::faults::FaultDone;
use crate::report::types::TypeReport;
use crate::report::{Judged, Report};
use crate::scenario::thresholds::{Condition, Metric, Quantile, Relation};

impl Condition {
    pub(crate) fn judge(&self, report: &Report) -> Judged {
        // A type that the run did not have is an unmeasured figure.
        let found = match &self.of {
            None => self.metric.of_run(report),
            Some(name) => report.types.row(name).and_then(|row| self.metric.of_type(row)),
        };
        let found = found.map(|found| found / self.scale);
        let holds = found.is_some_and(|found| match self.comparison {
            Relation::Below => found < self.value,
            Relation::AtMost => found <= self.value,
            Relation::Above => found > self.value,
            Relation::AtLeast => found >= self.value,
            // A scaled figure is a rounded double.
            Relation::Equal => (found - self.value).abs() <= f64::EPSILON * self.value.abs(),
        });
        let found_text = found.map_or_else(
            || "nothing was measured".to_owned(),
            |found| format!("{} {}", rounded(found), self.unit).trim_end().to_owned(),
        );
        Judged { condition: self.to_string(), found, found_text, holds }
    }
}

impl FaultDone {
    /// The fault as a condition, which fails if the fault did not happen.
    pub(crate) fn judged(&self) -> Judged {
        Judged {
            condition: format!("fault `{}` after {} ms", self.title(), self.at_ms),
            found: None,
            found_text: self.ended.clone(),
            holds: self.holds,
        }
    }
}

impl Metric {
    /// The figure of a run: milliseconds, a share from 0 to 1, bytes, or a number.
    pub(crate) fn of_run(self, report: &Report) -> Option<f64> {
        match self {
            Self::Latency(point) => point.of(&report.latency),
            Self::Last(point) => point.of(&report.first_to_last.last),
            Self::Apply(point) => point.of(&report.reliable.as_ref()?.apply),
            Self::Join => Quantile::P99.of(&report.join),
            Self::Answer => Quantile::P99.of(&report.answer),
            Self::Lateness => Quantile::P99.of(&report.lateness),
            // Without devices nothing was checked, so no loss proves nothing.
            Self::Loss => (report.devices > 0).then(|| ratio(report.violations.total(), 1)),
            Self::Runs => (report.devices > 0).then(|| ratio(report.runs_changed, 1)),
            Self::Refused => report.refused_share(),
            Self::Skipped => share(report.seen.skipped, report.seen.deliveries + report.seen.skipped),
            Self::Cpu => report.node_cpu(),
            Self::Memory => report.node_bytes_most().map(|bytes| ratio(bytes, 1)),
            Self::Deliveries => (report.seen.deliveries > 0).then(|| report.deliveries_per_s()),
        }
    }

    /// The figure of one type. `scenario::thresholds` refuses conditions without such a figure.
    fn of_type(self, row: &TypeReport) -> Option<f64> {
        match self {
            Self::Latency(point) => point.of(&row.latency),
            Self::Last(point) => point.of(&row.first_to_last.last),
            Self::Refused => share(row.refused + row.unknown, row.offered),
            Self::Skipped => share(row.skipped, row.delivered + row.merged + row.skipped),
            // Counted over all types together.
            Self::Apply(_) | Self::Join | Self::Answer | Self::Lateness | Self::Loss | Self::Runs => None,
            Self::Cpu | Self::Memory | Self::Deliveries => None,
        }
    }
}

/// A figure with four significant digits.
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

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| ratio(part, whole))
}

impl Quantile {
    /// In milliseconds; `None` without a measurement.
    pub(crate) fn of(self, figures: &Percentiles) -> Option<f64> {
        let at = match self {
            Self::P50 => figures.p50_ms,
            Self::P99 => figures.p99_ms,
            Self::P999 => figures.p999_ms,
            Self::Max => figures.max_ms,
        };
        (figures.count > 0).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;
    use crate::report::tests::made_up;
    use crate::scenario::thresholds::parse_all;

    fn judged(text: &str, report: &Report) -> Judged {
        text.parse::<Condition>().unwrap().judge(report)
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
        assert!(judged("runs=0", &report).holds);
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let mut report = made_up();
        report.latency = Percentiles::default();
        report.reliable = None;
        report.server.clear();
        report.devices = 0;
        for text in ["p99<1000s", "max>0us", "apply_p99<1s", "cpu<100", "nobody.p99<1s", "loss=0", "runs=0"] {
            let judged = judged(text, &report);
            assert_eq!((judged.found, judged.holds), (None, false), "{text}");
            assert_eq!(judged.found_text, "nothing was measured");
        }
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
