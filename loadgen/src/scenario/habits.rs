//! Awkward devices: devices that lose acknowledgements, pause, leave or come back. Pure.
//!
//! The run's seed and the device's number fix every draw, so a run can be repeated.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::scenario::units::{Share, Span};

/// Time from a device's cut (or pause, or hop) to the next.
pub(crate) const CUT_EVERY_NS: Range<u64> = 2_000_000_000..12_000_000_000;
/// Time to a device's first pause. Early, because a short run must meet the habit as well.
pub(crate) const FIRST_STALL_NS: Range<u64> = 1_000_000_000..12_000_000_000;
pub(crate) const STALL_EVERY_NS: Range<u64> = 1_000_000_000..60_000_000_000;
pub(crate) const HOP_EVERY_NS: Range<u64> = 2_000_000_000..20_000_000_000;
/// Time to a device's death, from the first publish or from a death that found the device away.
pub(crate) const DEATH_NS: Range<u64> = 500_000_000..12_000_000_000;
/// Interval between a slow device's small reads. A late read brings as much more, so the rate is kept.
pub(crate) const SIP_EVERY_NS: u64 = 100_000_000;
pub(crate) const AWAY_NS: Range<u64> = 50_000_000..1_000_000_000;
/// Wait before the next try to reach a node that was gone.
pub(crate) const RETURN_NS: Range<u64> = 100_000_000..300_000_000;

/// Shares of awkward devices, in millionths of all devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Awkward {
    pub(crate) drop_acks_share: u32,
    /// Dropped part of such a device's acknowledgements, in millionths.
    pub(crate) drop_acks: u32,
    pub(crate) stall_share: u32,
    /// Length of a pause.
    pub(crate) stall_ns: u64,
    /// Devices that cut their connection now and then, and come back with their cursor.
    pub(crate) reconnect_share: u32,
    /// Devices that close now and then and join another room as newcomers.
    #[serde(default)]
    pub(crate) hop_share: u32,
    #[serde(default)]
    pub(crate) slow_share: u32,
    /// Read speed of a slow device, in ten reads a second.
    #[serde(default)]
    pub(crate) slow_bytes_per_s: u32,
    /// Devices that fall silent for ever within the first 12 s and never close.
    #[serde(default)]
    pub(crate) dead_share: u32,
    /// Every device comes back when its connection ends, and retries until the node accepts.
    pub(crate) through_restarts: bool,
}

/// One device's habits besides listening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeviceHabits {
    pub(crate) drops_acks: bool,
    pub(crate) stalls: bool,
    pub(crate) reconnects: bool,
    pub(crate) hops: bool,
    pub(crate) is_slow: bool,
    pub(crate) dies: bool,
}

impl DeviceHabits {
    /// A witness keeps only the dropped acknowledgements. A witness must be present from before the first publish to
    /// the end, and must read everything.
    pub(crate) fn of_a_witness(self) -> Self {
        Self { drops_acks: self.drops_acks, ..Self::default() }
    }
}

impl Awkward {
    pub(crate) fn habits(&self, seed: u64, device: u32) -> DeviceHabits {
        let mut random =
            fastrand::Rng::with_seed(seed ^ u64::from(device).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // All draws happen in one fixed order, so a changed share moves no other habit.
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

    /// Bytes of a slow device's read after `since_ns`, at least 1 and at most those of a second.
    pub(crate) fn sip_bytes(&self, since_ns: u64) -> usize {
        let bytes = u64::from(self.slow_bytes_per_s) * since_ns.min(1_000_000_000) / 1_000_000_000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
    }

    pub(crate) fn drops_this(&self, random: &mut fastrand::Rng) -> bool {
        random.u32(..1_000_000) < self.drop_acks
    }
}

/// Many devices cut their connections at the same moment and come back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Storm {
    /// Time after the start.
    pub(crate) at: Span,
    /// Share of the present devices.
    pub(crate) share: Share,
    /// Each device returns at a time drawn from this span.
    pub(crate) back_within: Span,
}

impl Storm {
    /// Reports whether the run's storm number `place` hits a device.
    pub(crate) fn takes(&self, place: u8, seed: u64, device: u32) -> bool {
        let mixed = (u64::from(device) << 8 | u64::from(place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        fastrand::Rng::with_seed(seed ^ mixed).u32(..1_000_000) < self.share.millionths()
    }
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
        let storm = Storm {
            at: Span::of_seconds(5),
            share: Share::of_millionths(300_000),
            back_within: Span::of_seconds(1),
        };
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
        assert_eq!(Awkward { slow_bytes_per_s: 2_000, ..all }.sip_bytes(SIP_EVERY_NS), 200);
    }
}
