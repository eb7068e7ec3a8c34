//! Latency histograms: one shape for all, so that workers' histograms merge bucket by bucket.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart, in microseconds: ten minutes. Longer ones count as this.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Points of a percentile curve in each halving of what is left to 1.
const CURVE_STEPS: u32 = 5;

/// Latencies in microseconds, three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latency(Histogram<u64>);

/// A histogram between processes: `(value in µs, count)` of each bucket in use.
pub(crate) type Buckets = Vec<(u64, u64)>;

/// What a report says of a histogram, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// How many were recorded.
    pub(crate) count: u64,
    /// Half were at most this.
    pub(crate) p50_ms: f64,
    /// 99 in 100 were at most this.
    pub(crate) p99_ms: f64,
    /// 999 in 1 000 were at most this.
    pub(crate) p999_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("these bounds are allowed"))
    }
}

impl Latency {
    /// `count` times the same latency.
    pub(crate) fn record(&mut self, latency_ns: u64, count: u64) {
        self.0.saturating_record_n(latency_ns.div_ceil(1_000), count);
    }

    /// All of it, to be sent to the coordinator.
    #[must_use]
    pub(crate) fn buckets(&self) -> Buckets {
        self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
    }

    /// Adds what another process recorded.
    pub(crate) fn merge(&mut self, buckets: &Buckets) {
        for (value_us, count) in buckets {
            self.0.saturating_record_n(*value_us, *count);
        }
    }

    /// The percentile curve: quantiles from 0 to 1 and what they come to in milliseconds, closer together towards 1.
    #[must_use]
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let points = self.0.iter_quantiles(CURVE_STEPS);
        points.map(|point| (point.quantile_iterated_to(), milliseconds(point.value_iterated_to()))).collect()
    }

    /// The figures of a report.
    #[must_use]
    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile: f64| milliseconds(self.0.value_at_quantile(quantile));
        Percentiles {
            count: self.0.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: if self.0.is_empty() { 0.0 } else { milliseconds(self.0.max()) },
        }
    }
}

/// Microseconds as milliseconds; exact enough below 2^53 µs.
#[expect(clippy::cast_precision_loss, reason = "ten minutes in microseconds fit a double exactly")]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_histogram_equals_one_that_recorded_everything() {
        let mut all = Latency::default();
        let mut left = Latency::default();
        let mut right = Latency::default();
        let mut random = fastrand::Rng::with_seed(3);
        for turn in 0..10_000 {
            let latency_ns = random.u64(..3_000_000_000);
            all.record(latency_ns, 2);
            if turn % 3 == 0 { &mut left } else { &mut right }.record(latency_ns, 2);
        }
        let mut merged = Latency::default();
        merged.merge(&left.buckets());
        merged.merge(&right.buckets());
        assert_eq!(merged.percentiles(), all.percentiles());
        assert_eq!(merged.percentiles().count, 20_000);
    }
}
