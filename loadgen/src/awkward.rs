//! Devices that behave as real ones do: which of them lose acknowledgements, stop reading, or come back. Pure.
//!
//! Everything is drawn from the run's seed and the device's number, so that a run can be repeated.

use serde::{Deserialize, Serialize};

/// Earliest and latest time from one cut (or stall) of a device to its next.
const CUT_EVERY_NS: std::ops::Range<u64> = 2_000_000_000..12_000_000_000;
const STALL_EVERY_NS: std::ops::Range<u64> = 1_000_000_000..60_000_000_000;
/// How long a device that cut itself off stays away, at most.
const AWAY_NS: std::ops::Range<u64> = 50_000_000..1_000_000_000;
/// How long a device waits before it tries again after the node was gone.
const RETURN_NS: std::ops::Range<u64> = 100_000_000..300_000_000;

/// Shares of awkward devices, in millionths of the crowd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Awkward {
    /// Devices that drop some of their acknowledgements.
    pub(crate) drop_acks_share: u32,
    /// The part of its acknowledgements that such a device drops.
    pub(crate) drop_acks: u32,
    /// Devices that stop reading now and then.
    pub(crate) stall_share: u32,
    /// For how long.
    pub(crate) stall_ns: u64,
    /// Devices that cut their connection now and then and come back with their cursor.
    pub(crate) reconnect_share: u32,
    /// Devices that leave for another room now and then.
    pub(crate) hop_share: u32,
    /// Devices that read no faster than `slow_bytes_per_s`.
    pub(crate) slow_share: u32,
    pub(crate) slow_bytes_per_s: u32,
    /// Devices that fall silent.
    pub(crate) dead_share: u32,
    /// Every device comes back when its connection ends, and tries until it is there.
    pub(crate) through_restarts: bool,
}

/// What one device does besides listening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Habits {
    /// It drops some of its acknowledgements.
    pub(crate) drops_acks: bool,
    /// It stops reading now and then.
    pub(crate) stalls: bool,
    /// It cuts its connection now and then.
    pub(crate) reconnects: bool,
}

impl Awkward {
    /// The habits of device `device` under `seed`.
    #[must_use]
    pub(crate) fn habits(&self, seed: u64, device: u32) -> Habits {
        let mut random =
            fastrand::Rng::with_seed(seed ^ u64::from(device).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut is_one_of = |share: u32| random.u32(..1_000_000) < share;
        Habits {
            drops_acks: is_one_of(self.drop_acks_share),
            stalls: is_one_of(self.stall_share),
            reconnects: is_one_of(self.reconnect_share),
        }
    }

    /// Whether a device that drops acknowledgements drops this one.
    #[must_use]
    pub(crate) fn drops_this(&self, random: &mut fastrand::Rng) -> bool {
        random.u32(..1_000_000) < self.drop_acks
    }
}

/// From now to a device's next cut.
#[must_use]
pub(crate) fn until_cut_ns(random: &mut fastrand::Rng) -> u64 {
    random.u64(CUT_EVERY_NS)
}

/// From now to a device's next stall: once a minute, at a drawn moment; the first within the first 12 s.
#[must_use]
pub(crate) fn until_stall_ns(random: &mut fastrand::Rng, stalls: u32) -> u64 {
    if stalls == 0 { random.u64(1_000_000_000..12_000_000_000) } else { random.u64(STALL_EVERY_NS) }
}

/// How long a device that cut itself off stays away.
#[must_use]
pub(crate) fn away_ns(random: &mut fastrand::Rng) -> u64 {
    random.u64(AWAY_NS)
}

/// How long a device waits before it tries to come back to a node that was gone.
#[must_use]
pub(crate) fn until_return_ns(random: &mut fastrand::Rng) -> u64 {
    random.u64(RETURN_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_a_seed_repeats_them() {
        let awkward = Awkward { drop_acks_share: 100_000, reconnect_share: 1_000_000, ..Awkward::default() };
        let all: Vec<Habits> = (0..10_000).map(|device| awkward.habits(7, device)).collect();
        let dropping = all.iter().filter(|habits| habits.drops_acks).count();
        assert!((900..1_100).contains(&dropping), "{dropping} of 10000");
        assert!(all.iter().all(|habits| habits.reconnects && !habits.stalls));
        assert_eq!(all, (0..10_000).map(|device| awkward.habits(7, device)).collect::<Vec<_>>());
        assert_ne!(all, (0..10_000).map(|device| awkward.habits(8, device)).collect::<Vec<_>>());
    }
}
