//! What devices were given of each type: how late, how much, and what they were told instead. Pure.

use serde::{Deserialize, Serialize};

use crate::latency::{Buckets, Latency};
use crate::ledger::Told;
use crate::timeline::{Slots, Timeline};

/// What was counted of one type, over all devices.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeFigures {
    /// From when a message was due to when a device had it.
    pub(crate) latency: Latency,
    /// The same over the time of the run, by when messages were due.
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
            latency: self.latency.buckets(),
            timeline: self.timeline.slots(),
            skipped: self.skipped,
            merged: self.merged,
            added: self.added,
        }
    }

    /// Adds what another process counted.
    pub(crate) fn merge(&mut self, counts: &TypeCounts) {
        self.latency.merge(&counts.latency);
        self.timeline.merge(&counts.timeline);
        self.skipped += counts.skipped;
        self.merged += counts.merged;
        self.added += counts.added;
    }
}

/// The figures of a worker's devices, by type.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// The first publish.
    pub(crate) start_ns: u64,
    pub(crate) types: Vec<TypeFigures>,
}

/// A message of ours in a frame: its type's place in the mix, and when it was due.
pub(crate) type Due = (u8, u64);

impl Figures {
    /// Nothing counted yet of so many types.
    #[must_use]
    pub(crate) fn new(types: usize) -> Self {
        Self { start_ns: 0, types: vec![TypeFigures::default(); types] }
    }

    /// So many devices had these messages at this time.
    pub(crate) fn given(&mut self, dues: &[Due], received_ns: u64, devices: u64) {
        for (kind, due_ns) in dues {
            let Some(figures) = self.types.get_mut(usize::from(*kind)) else { continue };
            let latency_ns = received_ns.saturating_sub(*due_ns);
            figures.latency.record(latency_ns, devices);
            figures.timeline.record(due_ns.saturating_sub(self.start_ns), latency_ns, devices);
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
