//! Ages of batches: the time from a batch's earliest due message to each device's receipt. Pure.
//!
//! A batch reaches a device in a single frame, so a device has one age per batch. In a run with more batches
//! than are kept, every worker keeps the same batches. So the coordinator can put all devices of a batch
//! together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::figures::timeline::{end_ns, step};

/// Batches kept of a worker, two megabytes at most. Past the bound every second batch is dropped, again and
/// again.
const BATCHES_MAX: usize = 4_096;

/// The ages of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BatchAges {
    /// The age at the first device.
    pub(crate) first_ns: u64,
    /// The age at the last device.
    pub(crate) last_ns: u64,
    /// Devices by step of age (`figures::timeline`), in the order of steps.
    pub(crate) steps: Vec<(u8, u32)>,
}

impl BatchAges {
    /// Adds `devices` of equal age.
    pub(crate) fn add(&mut self, age_ns: u64, devices: u32) {
        self.first_ns = if self.steps.is_empty() { age_ns } else { self.first_ns.min(age_ns) };
        self.last_ns = self.last_ns.max(age_ns);
        self.count(step(age_ns), devices);
    }

    fn count(&mut self, step: u8, devices: u32) {
        match self.steps.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => self.steps[at].1 = self.steps[at].1.saturating_add(devices),
            Err(at) => self.steps.insert(at, (step, devices)),
        }
    }

    /// Adds other devices of the same batch.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.first_ns =
            if self.steps.is_empty() { other.first_ns } else { self.first_ns.min(other.first_ns) };
        self.last_ns = self.last_ns.max(other.last_ns);
        other.steps.iter().for_each(|(step, devices)| self.count(*step, *devices));
    }

    /// The age at which all devices but `percent` in 100 had the batch. The devices of a step count as
    /// evenly spread: of 100 devices with ages from 100 to 104 ms, half had the batch at 102 ms.
    pub(crate) fn all_but_ns(&self, percent: u64) -> u64 {
        let devices: u64 = self.steps.iter().map(|(_, devices)| u64::from(*devices)).sum();
        let wanted = devices - devices * percent / 100;
        let mut had = 0;
        for (step, devices) in &self.steps {
            let before = had;
            let devices = u64::from(*devices);
            had += devices;
            // The wanted device lies in this step, so its age is between the step's ends.
            if had >= wanted {
                let low_ns = step.checked_sub(1).map_or(0, end_ns).max(self.first_ns);
                let high_ns = end_ns(*step).min(self.last_ns);
                return low_ns + high_ns.saturating_sub(low_ns) * (wanted - before) / devices.max(1);
            }
        }
        self.last_ns
    }
}

/// A room's index in the run, and the place of a life of the room among the lives of a worker.
pub(crate) type RoomLife = (u32, u32);

/// The ages of a worker's batches.
#[derive(Debug)]
pub(crate) struct KeptAges {
    /// One in `stride` batches is kept. A power of two.
    pub(crate) stride: u64,
    kept: BTreeMap<(RoomLife, u64), BatchAges>,
}

impl Default for KeptAges {
    fn default() -> Self {
        Self { stride: 1, kept: BTreeMap::new() }
    }
}

impl KeptAges {
    pub(crate) fn keeps(&self, room: u32, seq: u64) -> bool {
        is_kept(self.stride, room, seq)
    }

    /// Adds devices of a batch, where the batch is kept.
    pub(crate) fn add(&mut self, life: RoomLife, seq: u64, ages: &BatchAges) {
        // The stride may have grown since the batch came.
        if !self.keeps(life.0, seq) {
            return;
        }
        self.kept.entry((life, seq)).or_default().merge(ages);
        while self.kept.len() > BATCHES_MAX {
            self.stride *= 2;
            self.kept.retain(|((room, _), seq), _| is_kept(self.stride, *room, *seq));
        }
    }

    /// Takes out all batches, by life and seq.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = ((RoomLife, u64), BatchAges)> + use<> {
        std::mem::take(&mut self.kept).into_iter()
    }
}

/// Draws a batch by hashing its room and seq: all workers keep the same batches, and no room has all or none.
pub(crate) fn is_kept(stride: u64, room: u32, seq: u64) -> bool {
    let mixed =
        (seq ^ u64::from(room).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 32) & (stride - 1) == 0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    pub(crate) fn ages(ages_ms: &[(u64, u32)]) -> BatchAges {
        let mut ages = BatchAges::default();
        ages_ms.iter().for_each(|(age_ms, devices)| ages.add(age_ms * MS, *devices));
        ages
    }

    #[test]
    fn half_of_the_devices_of_one_step_are_not_all_of_them() {
        let within = ages(&[(100, 50), (104, 50)]);
        assert_eq!(within.steps.len(), 1);
        assert_eq!((within.all_but_ns(50), within.all_but_ns(0)), (102 * MS, 104 * MS));
        assert_eq!(ages(&[(70_000, 3)]).all_but_ns(50), 70_000 * MS, "past the last step");
    }

    #[test]
    fn what_two_workers_saw_of_a_batch_is_put_together() {
        let mut one = ages(&[(20, 30)]);
        one.merge(&ages(&[(10, 10), (90, 10)]));
        let together = ages(&[(10, 10), (20, 30), (90, 10)]);
        assert_eq!(one, together);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<BatchAges>(&text).unwrap(), one);
    }

    #[test]
    fn past_the_bound_fewer_are_kept_and_the_same_everywhere() {
        let mut one = KeptAges::default();
        let mut other = KeptAges::default();
        let batch = ages(&[(20, 1)]);
        for seq in 0..10_000 {
            let life = (u32::try_from(seq % 7).unwrap(), 0);
            one.add(life, seq, &batch);
            if seq % 2 == 0 {
                other.add(life, seq, &batch);
            }
        }
        let coarse = one.stride;
        let fine = other.stride;
        assert!(coarse > fine && fine > 1, "{coarse} {fine}");
        let mine: Vec<(RoomLife, u64)> = one.take().map(|(batch, _)| batch).collect();
        assert!(mine.len() <= BATCHES_MAX && mine.len() > BATCHES_MAX / 4, "{}", mine.len());
        let theirs: Vec<(RoomLife, u64)> = other
            .take()
            .map(|(batch, _)| batch)
            .filter(|(life, seq)| is_kept(coarse, life.0, *seq))
            .collect();
        assert!(mine.iter().filter(|(_, seq)| seq % 2 == 0).eq(theirs.iter()));
    }
}
