//! Latencies over the time of a run: how they were in each quarter of a second, in little memory.

use serde::{Deserialize, Serialize};

use crate::figures::ratio;

/// One slot.
const SLOT_NS: u64 = 250_000_000;
/// Slots kept: half an hour. What comes later counts in the last.
const SLOTS_MAX: usize = 7_200;
/// Steps per doubling: a figure read is at most 9 % above what was.
const STEPS: f64 = 8.0;
/// Steps in all: from 1 ms to a minute.
pub(crate) const BUCKETS: usize = 128;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Slot {
    /// Counts by step; empty while nothing was recorded.
    buckets: Vec<u64>,
    max_ns: u64,
}

/// Latencies by when they began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Timeline(Vec<Slot>);

/// A timeline between processes: of each slot in use its place, its longest, and its steps in use with their counts.
pub(crate) type Slots = Vec<(usize, u64, Vec<(usize, u64)>)>;

/// One slot of a report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Where it begins, counted from the first publish.
    pub(crate) at_ms: u64,
    /// How many began in it.
    pub(crate) count: u64,
    /// Half were at most this, to 9 %.
    #[serde(default)]
    pub(crate) p50_ms: f64,
    /// 99 in 100 were at most this, to 9 %.
    pub(crate) p99_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Timeline {
    /// `count` times the same latency, begun `after_start_ns` after the first publish. Gives its step.
    pub(crate) fn record(&mut self, after_start_ns: u64, latency_ns: u64, count: u64) -> u8 {
        let place = usize::try_from(after_start_ns / SLOT_NS).unwrap_or(SLOTS_MAX);
        let step = step(latency_ns);
        let slot = self.slot(place);
        slot.buckets[usize::from(step)] += count;
        slot.max_ns = slot.max_ns.max(latency_ns);
        step
    }

    fn slot(&mut self, place: usize) -> &mut Slot {
        let place = place.min(SLOTS_MAX - 1);
        if self.0.len() <= place {
            self.0.resize_with(place + 1, Slot::default);
        }
        let slot = &mut self.0[place];
        slot.buckets.resize(BUCKETS, 0);
        slot
    }

    /// All of it, to be sent to the coordinator.
    #[must_use]
    pub(crate) fn slots(&self) -> Slots {
        let used = self.0.iter().enumerate().filter(|(_, slot)| !slot.buckets.is_empty());
        used.map(|(place, slot)| {
            let buckets = slot.buckets.iter().copied().enumerate().filter(|(_, count)| *count > 0);
            (place, slot.max_ns, buckets.collect())
        })
        .collect()
    }

    /// Adds what another process recorded.
    pub(crate) fn merge(&mut self, slots: &Slots) {
        for (place, max_ns, buckets) in slots {
            let slot = self.slot(*place);
            slot.max_ns = slot.max_ns.max(*max_ns);
            for (index, count) in buckets {
                slot.buckets[(*index).min(BUCKETS - 1)] += count;
            }
        }
    }

    /// What a report says, slot by slot; those in which nothing began are left out.
    #[must_use]
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
    /// What so many in a hundred were at most.
    fn at_most_ms(&self, percent: u64) -> f64 {
        let count: u64 = self.buckets.iter().sum();
        let wanted = count - count * (100 - percent) / 100;
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let step = u8::try_from(reached.unwrap_or(0)).unwrap_or(u8::MAX);
        end_ms(step).min(ratio(self.max_ns, 1_000_000))
    }
}

/// The step whose upper end a latency is at or just below; less than [`BUCKETS`].
#[must_use]
pub(crate) fn step(latency_ns: u64) -> u8 {
    let step = (ratio(latency_ns, 1_000_000).log2() * STEPS).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 127")]
    let index = step.clamp(0.0, 127.0) as u8;
    index
}

/// The upper end of a step.
#[must_use]
pub(crate) fn end_ms(step: u8) -> f64 {
    (f64::from(step) / STEPS).exp2()
}

/// The upper end of a step.
#[must_use]
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
        merged.merge(&timeline.slots());
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
