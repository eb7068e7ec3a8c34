//! Latencies over the time of a run: a coarse histogram for each quarter of a second.
//!
//! A step's upper end is `2^(step / 8)` ms: step 0 ends at 1 ms, step 8 at 2 ms, step 37 at 24.7 ms. A
//! latency of 23 ms is in step `ceil(8 * log2(23)) = 37`, and a figure reads 24.7 ms. No figure is more than
//! 9 % above its latency.

use serde::{Deserialize, Serialize};

use crate::figures::ratio;

const SLOT_NS: u64 = 250_000_000;
/// Slots kept: half an hour. Later latencies count in the last slot.
const SLOTS_MAX: usize = 7_200;
/// Steps per doubling.
const STEPS: f64 = 8.0;
/// Steps in all: from 1 ms to a minute.
pub(crate) const BUCKETS: usize = 128;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Slot {
    /// Counts by step; empty in a slot without latencies.
    buckets: Vec<u64>,
    max_ns: u64,
}

/// Latencies by the time of their beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Slots", from = "Slots")]
pub(crate) struct Timeline(Vec<Slot>);

/// A timeline between processes: each slot in use as `(place, longest latency in ns, steps in use with their
/// counts)`.
type Slots = Vec<(usize, u64, Vec<(usize, u64)>)>;

/// One slot of a report. Percentiles are read from steps, so up to 9 % too high.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Beginning of the slot, counted from the first publish.
    pub(crate) at_ms: u64,
    pub(crate) count: u64,
    #[serde(default)]
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl From<Timeline> for Slots {
    fn from(timeline: Timeline) -> Self {
        let used = timeline.0.into_iter().enumerate().filter(|(_, slot)| !slot.buckets.is_empty());
        used.map(|(place, slot)| {
            let buckets = slot.buckets.into_iter().enumerate().filter(|(_, count)| *count > 0);
            (place, slot.max_ns, buckets.collect())
        })
        .collect()
    }
}

impl From<Slots> for Timeline {
    fn from(slots: Slots) -> Self {
        let mut timeline = Self::default();
        for (place, max_ns, buckets) in slots {
            let slot = timeline.slot(place);
            slot.max_ns = max_ns;
            // The words of another process are no reason to index out of bounds.
            buckets.iter().for_each(|(step, count)| slot.buckets[(*step).min(BUCKETS - 1)] += count);
        }
        timeline
    }
}

impl Timeline {
    /// Records `count` equal latencies that began `after_start_ns` after the first publish. Gives their step.
    pub(crate) fn record(&mut self, after_start_ns: u64, latency_ns: u64, count: u64) -> u8 {
        let place = usize::try_from(after_start_ns / SLOT_NS).unwrap_or(SLOTS_MAX);
        let step = step(latency_ns);
        let slot = self.slot(place);
        slot.buckets[usize::from(step)] += count;
        slot.max_ns = slot.max_ns.max(latency_ns);
        step
    }

    fn slot(&mut self, place: usize) -> &mut Slot {
        // A soak of hours must not grow without bound.
        let place = place.min(SLOTS_MAX - 1);
        if self.0.len() <= place {
            self.0.resize_with(place + 1, Slot::default);
        }
        let slot = &mut self.0[place];
        // Only slots in use own buckets: a run of half an hour has 7 200 slots of 1 KiB.
        slot.buckets.resize(BUCKETS, 0);
        slot
    }

    /// Adds the latencies of another process.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (place, theirs) in other.0.iter().enumerate().filter(|(_, slot)| !slot.buckets.is_empty()) {
            let slot = self.slot(place);
            slot.max_ns = slot.max_ns.max(theirs.max_ns);
            slot.buckets.iter_mut().zip(&theirs.buckets).for_each(|(mine, count)| *mine += count);
        }
    }

    /// The slots of a report; slots without latencies are left out.
    pub(crate) fn moments(&self) -> Vec<Moment> {
        let used = (0_u64..).zip(&self.0).filter(|(_, slot)| !slot.buckets.is_empty());
        used.map(|(place, slot)| Moment {
            at_ms: place * SLOT_NS / 1_000_000,
            count: slot.buckets.iter().sum(),
            p50_ms: slot.at_most_ms(50),
            p99_ms: slot.at_most_ms(99),
            max_ms: ratio(slot.max_ns, 1_000_000),
        })
        .collect()
    }
}

impl Slot {
    /// The latency that `percent` of the slot's latencies do not exceed.
    fn at_most_ms(&self, percent: u64) -> f64 {
        // A step's end may lie above every latency of the slot.
        at_most_ms(&self.buckets, percent).min(ratio(self.max_ns, 1_000_000))
    }
}

/// The end of the step that `percent` of the latencies in `buckets`, counts by step, do not exceed.
pub(crate) fn at_most_ms(buckets: &[u64], percent: u64) -> f64 {
    let count: u64 = buckets.iter().sum();
    let wanted = count - count * (100 - percent) / 100;
    let mut seen = 0;
    let reached = buckets.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    end_ms(u8::try_from(reached.unwrap_or(0)).unwrap_or(u8::MAX))
}

/// The step of a latency: its upper end is the first at or above the latency. Less than [`BUCKETS`].
pub(crate) fn step(latency_ns: u64) -> u8 {
    let step = (ratio(latency_ns, 1_000_000).log2() * STEPS).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 127")]
    let index = step.clamp(0.0, 127.0) as u8;
    index
}

/// The upper end of a step.
pub(crate) fn end_ms(step: u8) -> f64 {
    (f64::from(step) / STEPS).exp2()
}

/// The upper end of a step.
pub(crate) fn end_ns(step: u8) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a minute at most")]
    let end_ns = (end_ms(step) * 1_000_000.0) as u64;
    end_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_moment_stands_out_and_merging_changes_nothing() {
        let mut timeline = Timeline::default();
        for place in 0..8 {
            timeline.record(place * SLOT_NS + 5, if place == 3 { 400_000_000 } else { 20_000_000 }, 1_000);
        }
        let mut merged = Timeline::default();
        let text = serde_json::to_string(&timeline).unwrap();
        merged.merge(&serde_json::from_str(&text).unwrap());
        assert_eq!(merged, timeline);
        let moments = timeline.moments();
        assert_eq!(moments.len(), 8);
        assert_eq!((moments[3].at_ms, moments[3].count, moments[3].max_ms), (750, 1_000, 400.0));
        for (place, moment) in moments.iter().enumerate() {
            let true_ms = if place == 3 { 400.0 } else { 20.0 };
            assert!(moment.p99_ms >= true_ms * 0.999 && moment.p99_ms <= true_ms * 1.1, "{moment:?}");
        }
    }

    #[test]
    fn one_in_a_hundred_is_not_the_p99_and_two_are() {
        let mut timeline = Timeline::default();
        timeline.record(0, 1_000_000, 99);
        timeline.record(0, 900_000_000, 1);
        assert!(timeline.moments()[0].p99_ms < 2.0);
        timeline.record(0, 900_000_000, 2);
        assert!(timeline.moments()[0].p99_ms > 800.0);
        timeline.record(u64::MAX, 0, 1);
        assert_eq!(timeline.moments().len(), 2, "the end of a long run is its last slot");
    }
}
