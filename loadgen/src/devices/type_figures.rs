//! What devices were given of each type: how late, how much, and what they were told instead. Pure.

use serde::{Deserialize, Serialize};

use crate::figures::latency::{Buckets, Latency};
use crate::figures::timeline::{BUCKETS, Slots, Timeline, end_ns};
use crate::ledger::Told;
use crate::ledger::ages::{BatchAges, KeptAges, RoomLife};

/// What was counted of one type, over all devices.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeFigures {
    /// Messages devices were given.
    pub(crate) given: u64,
    /// From when a message was due to when a device had it; without what was due while the run warmed up, and
    /// without devices that read slowly, or were away or did not read when it was due.
    pub(crate) latency: Latency,
    /// The same over the whole time of the run, by when messages were due.
    pub(crate) timeline: Timeline,
    /// Messages devices were told as skipped.
    pub(crate) skipped: u64,
    /// Messages devices were told as merged.
    pub(crate) merged: u64,
    /// What counters grew by, as devices were told.
    pub(crate) added: u64,
}

/// [`TypeFigures`] between processes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct TypeCounts {
    given: u64,
    latency: Buckets,
    timeline: Slots,
    skipped: u64,
    merged: u64,
    added: u64,
}

impl TypeFigures {
    /// All of it, to be sent to the coordinator.
    #[must_use]
    pub(crate) fn counts(&self) -> TypeCounts {
        TypeCounts {
            given: self.given,
            latency: self.latency.buckets(),
            timeline: self.timeline.slots(),
            skipped: self.skipped,
            merged: self.merged,
            added: self.added,
        }
    }

    /// Adds what another process counted.
    pub(crate) fn merge(&mut self, counts: &TypeCounts) {
        self.given += counts.given;
        self.latency.merge(&counts.latency);
        self.timeline.merge(&counts.timeline);
        self.skipped += counts.skipped;
        self.merged += counts.merged;
        self.added += counts.added;
    }
}

/// The figures of a worker's devices, by type.
#[derive(Debug)]
pub(crate) struct Figures {
    /// The first publish.
    pub(crate) start_ns: u64,
    /// What is due before is in no latency.
    pub(crate) timed_from_ns: u64,
    pub(crate) types: Vec<TypeFigures>,
    /// When the devices of each batch had it.
    pub(crate) kept_ages: KeptAges,
    /// Latencies since they were last taken, by step.
    recent: [u64; BUCKETS],
}

/// A message of ours in a frame: its type's place in the mix, and when it was due.
pub(crate) type Due = (u8, u64);

impl Figures {
    /// Nothing counted yet of so many types.
    #[must_use]
    pub(crate) fn new(types: usize) -> Self {
        Self {
            start_ns: 0,
            timed_from_ns: 0,
            types: vec![TypeFigures::default(); types],
            kept_ages: KeptAges::default(),
            recent: [0; BUCKETS],
        }
    }

    /// Empty ages for a batch whose devices are to be told apart, counted from when its earliest message was due.
    #[must_use]
    pub(crate) fn ages_of(&self, life: RoomLife, seq: u64, earliest_ns: u64) -> Option<Box<BatchAges>> {
        let is_kept = earliest_ns >= self.timed_from_ns && self.kept_ages.keeps(life.0, seq);
        is_kept.then(Box::default)
    }

    /// The latencies since this was last asked, to 9 %.
    pub(crate) fn take_recent(&mut self) -> Buckets {
        let recent = std::mem::replace(&mut self.recent, [0; BUCKETS]);
        let used = (0_u8..).zip(recent).filter(|(_, count)| *count > 0);
        used.map(|(step, count)| (end_ns(step) / 1_000, count)).collect()
    }

    /// So many devices had these messages at this time.
    pub(crate) fn given(&mut self, dues: &[Due], received_ns: u64, devices: u64) {
        for (kind, due_ns) in dues {
            let Some(figures) = self.types.get_mut(usize::from(*kind)) else { continue };
            let latency_ns = received_ns.saturating_sub(*due_ns);
            figures.given += devices;
            if *due_ns >= self.timed_from_ns {
                figures.latency.record(latency_ns, devices);
            }
            let after_start_ns = due_ns.saturating_sub(self.start_ns);
            let step = figures.timeline.record(after_start_ns, latency_ns, devices);
            self.recent[usize::from(step)] += devices;
        }
    }

    /// So many devices had these messages, and were late by themselves.
    pub(crate) fn given_untimed(&mut self, dues: &[Due], devices: u64) {
        for (kind, _) in dues.iter().take_while(|_| devices > 0) {
            if let Some(figures) = self.types.get_mut(usize::from(*kind)) {
                figures.given += devices;
            }
        }
    }

    /// So many devices were told this.
    pub(crate) fn told(&mut self, all: &[Told], devices: u64) {
        for told in all {
            let Some(figures) = self.types.get_mut(usize::from(told.kind)) else { continue };
            figures.skipped += told.skipped * devices;
            figures.merged += told.merged * devices;
            figures.added += told.add * devices;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_while_a_run_warms_up_is_counted_and_not_timed() {
        let mut figures = Figures::new(1);
        (figures.start_ns, figures.timed_from_ns) = (1_000_000_000, 3_000_000_000);
        figures.given(&[(0, 2_999_999_999), (0, 3_000_000_000)], 3_010_000_000, 5);
        assert_eq!((figures.types[0].given, figures.types[0].latency.percentiles().count), (10, 5));
        assert!(
            figures.ages_of((0, 0), 1, 2_999_999_999).is_none()
                && figures.ages_of((0, 0), 1, 3_000_000_000).is_some()
        );
    }

    #[test]
    fn what_is_recent_is_told_once() {
        let mut figures = Figures::new(1);
        figures.given(&[(0, 1_000_000_000)], 1_050_000_000, 5);
        let recent = figures.take_recent();
        assert!(matches!(*recent, [(50_000..55_000, 5)]), "{recent:?}");
        assert_eq!(figures.take_recent(), []);
    }
}
