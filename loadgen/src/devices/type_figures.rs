//! Figures of each type over a worker's devices: messages given, latencies, skips, merges and growth. Pure.

use serde::{Deserialize, Serialize};

use crate::figures::latency::{Buckets, Latency};
use crate::figures::timeline::{BUCKETS, Timeline, end_ns};
use crate::ledger::ages::{BatchAges, KeptAges, RoomLife};
use crate::ledger::{Told, add_fields};

/// The figures of a type, each summed over devices.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct TypeFigures {
    /// Messages given.
    pub(crate) given: u64,
    /// Time from a message's due time to a device's receipt. Messages due in the warm-up are left out. So are
    /// slow readers, and devices away or stalled at the due time.
    pub(crate) latency: Latency,
    /// The same for the whole run, warm-up included, by due time.
    pub(crate) timeline: Timeline,
    /// Messages told as skipped.
    pub(crate) skipped: u64,
    /// Messages told as merged.
    pub(crate) merged: u64,
    /// Growth told of counters.
    pub(crate) added: u64,
}

impl TypeFigures {
    /// Adds the figures of another process.
    pub(crate) fn merge(&mut self, other: &Self) {
        add_fields!(self, other; given, skipped, merged, added);
        self.latency.merge(&other.latency.buckets());
        self.timeline.merge(&other.timeline);
    }
}

/// The figures of a worker's devices.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Time of the first publish.
    pub(crate) start_ns: u64,
    /// End of the warm-up. Messages due before are in no latency.
    pub(crate) timed_from_ns: u64,
    /// By place of the type in the mix.
    pub(crate) types: Vec<TypeFigures>,
    pub(crate) kept_ages: KeptAges,
    /// Latencies since the last reading, by step.
    recent: [u64; BUCKETS],
}

/// A message of this run in a frame: place of the type in the mix, and due time in ns.
pub(crate) type Due = (u8, u64);

impl Figures {
    pub(crate) fn new(types: usize) -> Self {
        Self {
            start_ns: 0,
            timed_from_ns: 0,
            types: vec![TypeFigures::default(); types],
            kept_ages: KeptAges::default(),
            recent: [0; BUCKETS],
        }
    }

    /// Empty ages for a kept batch with this earliest due time; `None` for other batches.
    pub(crate) fn ages_of(&self, life: RoomLife, seq: u64, earliest_ns: u64) -> Option<Box<BatchAges>> {
        let is_kept = earliest_ns >= self.timed_from_ns && self.kept_ages.keeps(life.0, seq);
        is_kept.then(Box::default)
    }

    /// The latencies since the last call, up to 9 % too high.
    pub(crate) fn take_recent(&mut self) -> Buckets {
        let recent = std::mem::replace(&mut self.recent, [0; BUCKETS]);
        let used = (0_u8..).zip(recent).filter(|(_, count)| *count > 0);
        used.map(|(step, count)| (end_ns(step) / 1_000, count)).collect()
    }

    /// Adds the receipt of a frame's messages by `devices` at the same time.
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

    /// Adds the receipt by devices with a delay of their own making: counted, and not timed.
    pub(crate) fn given_untimed(&mut self, dues: &[Due], devices: u64) {
        // Nearly always 0, and this is called for each instant of each frame.
        for (kind, _) in dues.iter().take_while(|_| devices > 0) {
            if let Some(figures) = self.types.get_mut(usize::from(*kind)) {
                figures.given += devices;
            }
        }
    }

    /// Adds the account of a frame for `devices`.
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
        figures.start_ns = 1_000_000_000;
        figures.timed_from_ns = 3_000_000_000;
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
