//! Latency histograms of one shape, so that workers' histograms merge bucket by bucket.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::figures::ratio;

/// Longest latency told apart, in microseconds: ten minutes. Longer latencies count as ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Points of a percentile curve for each halving of the distance to quantile 1.
const CURVE_STEPS: u32 = 5;

/// Latencies in microseconds, three significant digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "Buckets", from = "Buckets")]
pub(crate) struct Latency(Histogram<u64>);

/// A histogram between processes: `(value in µs, count)` of each bucket in use.
pub(crate) type Buckets = Vec<(u64, u64)>;

/// The figures that a report shows of a histogram. Half of the latencies are at most `p50_ms`, 99 in 100 at
/// most `p99_ms`, 999 in 1 000 at most `p999_ms`. All are 0 for an empty histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("these bounds are allowed"))
    }
}

impl From<Latency> for Buckets {
    fn from(latency: Latency) -> Self {
        latency.buckets()
    }
}

impl From<Buckets> for Latency {
    fn from(buckets: Buckets) -> Self {
        let mut latency = Self::default();
        latency.merge(&buckets);
        latency
    }
}

impl Latency {
    /// Records `count` equal latencies.
    pub(crate) fn record(&mut self, latency_ns: u64, count: u64) {
        // Rounded up: a histogram from 1 µs on has no place for 0.
        self.0.saturating_record_n(latency_ns.div_ceil(1_000), count);
    }

    /// The buckets in use, for another process.
    pub(crate) fn buckets(&self) -> Buckets {
        self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
    }

    /// Adds the buckets of another process.
    pub(crate) fn merge(&mut self, buckets: &Buckets) {
        for (value_us, count) in buckets {
            self.0.saturating_record_n(*value_us, *count);
        }
    }

    /// The percentile curve: quantiles from 0 to 1, denser towards 1, and their latencies in milliseconds.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        // Without latencies the library would give the point (1, 0), which a chart would show as a
        // measurement.
        if self.0.is_empty() {
            return Vec::new();
        }
        let points = self.0.iter_quantiles(CURVE_STEPS);
        points.map(|point| (point.quantile_iterated_to(), ratio(point.value_iterated_to(), 1_000))).collect()
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let at = |quantile: f64| ratio(self.0.value_at_quantile(quantile), 1_000);
        Percentiles {
            count: self.0.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ratio(self.0.max(), 1_000),
        }
    }
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
