//! Devices that behave as real ones do: which of them lose acknowledgements, stop reading, leave or come back. Pure.
//!
//! Everything is drawn from the run's seed and the device's number, so that a run can be repeated.

use serde::{Deserialize, Serialize};

/// Earliest and latest time from one cut (or stall) of a device to its next.
const CUT_EVERY_NS: std::ops::Range<u64> = 2_000_000_000..12_000_000_000;
const STALL_EVERY_NS: std::ops::Range<u64> = 1_000_000_000..60_000_000_000;
/// Earliest and latest time from one hop of a device to another room to its next.
const HOP_EVERY_NS: std::ops::Range<u64> = 2_000_000_000..20_000_000_000;
/// When a device dies, counted from the first publish, or from when it was found to be away.
const DEATH_NS: std::ops::Range<u64> = 500_000_000..12_000_000_000;
/// How often a slow device reads a little.
pub(crate) const SIP_EVERY_NS: u64 = 100_000_000;
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
    /// Devices that leave now and then, with a close, and join another room as newcomers at once.
    #[serde(default)]
    pub(crate) hop_share: u32,
    /// Devices that read slowly throughout.
    #[serde(default)]
    pub(crate) slow_share: u32,
    /// How much such a device reads in a second, in ten parts.
    #[serde(default)]
    pub(crate) slow_bytes_per_s: u32,
    /// Devices that stop reading and saying anything within the first 12 s, for ever, and never close.
    #[serde(default)]
    pub(crate) dead_share: u32,
    /// Every device comes back when its connection ends, and tries until it is there.
    pub(crate) through_restarts: bool,
}

/// What one device does besides listening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeviceHabits {
    /// It drops some of its acknowledgements.
    pub(crate) drops_acks: bool,
    /// It stops reading now and then.
    pub(crate) stalls: bool,
    /// It cuts its connection now and then.
    pub(crate) reconnects: bool,
    /// It goes to another room now and then.
    pub(crate) hops: bool,
    /// It reads slowly.
    pub(crate) is_slow: bool,
    /// It stops for ever.
    pub(crate) dies: bool,
}

impl DeviceHabits {
    /// What a witness of a room keeps of them: it is there from before the first publish to the end, and reads.
    #[must_use]
    pub(crate) fn of_a_witness(self) -> Self {
        Self { drops_acks: self.drops_acks, ..Self::default() }
    }
}

impl Awkward {
    /// The habits of device `device` under `seed`.
    #[must_use]
    pub(crate) fn habits(&self, seed: u64, device: u32) -> DeviceHabits {
        let mut random =
            fastrand::Rng::with_seed(seed ^ u64::from(device).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut is_one_of = |share: u32| random.u32(..1_000_000) < share;
        DeviceHabits {
            drops_acks: is_one_of(self.drop_acks_share),
            stalls: is_one_of(self.stall_share),
            reconnects: is_one_of(self.reconnect_share),
            hops: is_one_of(self.hop_share),
            is_slow: is_one_of(self.slow_share),
            dies: is_one_of(self.dead_share),
        }
    }

    /// The most that a slow device reads at one time.
    #[must_use]
    pub(crate) fn sip_bytes(&self) -> usize {
        let bytes = u64::from(self.slow_bytes_per_s) * SIP_EVERY_NS / 1_000_000_000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
    }

    /// Whether a device that drops acknowledgements drops this one.
    #[must_use]
    pub(crate) fn drops_this(&self, random: &mut fastrand::Rng) -> bool {
        random.u32(..1_000_000) < self.drop_acks
    }
}

/// Many devices that cut their connections at one time and come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Storm {
    /// After the start.
    pub(crate) at_ms: u64,
    /// Of the devices that are there, in millionths.
    pub(crate) share: u32,
    /// They come back at times drawn from this.
    pub(crate) back_within_ms: u64,
}

impl Storm {
    /// Whether the storm at this place of the run's takes device `device` under `seed`.
    #[must_use]
    pub(crate) fn takes(&self, place: u8, seed: u64, device: u32) -> bool {
        let mixed = (u64::from(device) << 8 | u64::from(place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        fastrand::Rng::with_seed(seed ^ mixed).u32(..1_000_000) < self.share
    }
}

/// From now to a device's next hop.
#[must_use]
pub(crate) fn until_hop_ns(random: &mut fastrand::Rng) -> u64 {
    random.u64(HOP_EVERY_NS)
}

/// From now to a device's death.
#[must_use]
pub(crate) fn until_death_ns(random: &mut fastrand::Rng) -> u64 {
    random.u64(DEATH_NS)
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
        let all: Vec<DeviceHabits> = (0..10_000).map(|device| awkward.habits(7, device)).collect();
        let dropping = all.iter().filter(|habits| habits.drops_acks).count();
        assert!((900..1_100).contains(&dropping), "{dropping} of 10000");
        assert!(all.iter().all(|habits| habits.reconnects && !habits.stalls));
        assert_eq!(all, (0..10_000).map(|device| awkward.habits(7, device)).collect::<Vec<_>>());
        assert_ne!(all, (0..10_000).map(|device| awkward.habits(8, device)).collect::<Vec<_>>());
    }

    #[test]
    fn a_storm_takes_its_share_and_not_the_same_as_the_next_one() {
        let storm = Storm { at_ms: 5_000, share: 300_000, back_within_ms: 1_000 };
        let taken =
            |place: u8| -> Vec<u32> { (0..10_000).filter(|device| storm.takes(place, 7, *device)).collect() };
        assert!((2_800..3_200).contains(&taken(0).len()), "{}", taken(0).len());
        assert_eq!(taken(0), taken(0));
        assert_ne!(taken(0), taken(1));
    }

    #[test]
    fn a_witness_has_no_habit_that_keeps_it_from_seeing_everything() {
        let all = Awkward {
            drop_acks_share: 1_000_000,
            stall_share: 1_000_000,
            reconnect_share: 1_000_000,
            hop_share: 1_000_000,
            slow_share: 1_000_000,
            dead_share: 1_000_000,
            ..Awkward::default()
        };
        let habits = all.habits(1, 1);
        assert!(habits.hops && habits.is_slow && habits.dies && habits.stalls);
        assert_eq!(habits.of_a_witness(), DeviceHabits { drops_acks: true, ..DeviceHabits::default() });
        assert_eq!(Awkward { slow_bytes_per_s: 2_000, ..all }.sip_bytes(), 200);
    }
}
