//! The strain: the share of passes in a shard's time, and the stretch of windows that follows. Pure.
//!
//! Each room keeps its own passes to the shard's share by the cost of one pass (`room::pace`). Rooms that fit
//! alone may not fit together. Then one factor, the stretch, widens all windows.
//!
//! Once an interval: fit = stretch × takes / may take; next stretch = (3 × stretch + fit) / 4.
//!
//! Example: passes take 900 ‰ and may take 600 ‰. At a stretch of 1 000 the one that fits is 1 500, so the
//! next is 1 125. A whole step at once would make the stretch swing, since passes may be a whole window
//! apart.

use std::time::{Duration, Instant};

use roomcast_core::limits::{LOAD_INTERVAL, STRETCH_MAX_PERMILLE};
use roomcast_core::room::pace::{RoomRules, STRETCH_NONE};

/// Weight of earlier intervals: the last one counts for a half.
const SMOOTHING: u32 = 2;
/// Part of the difference that one interval makes up for: one fourth. With passes as far apart as an
/// interval, and smoothed shares, a larger part swings.
const GAIN: u32 = 4;

/// The strain of a shard.
#[derive(Debug)]
pub(super) struct Strain {
    /// Share allowed to passes, in thousandths.
    permille_max: u32,
    window_max: Duration,
    interval_began: Instant,
    /// Processor time of passes in the present interval.
    spent: Duration,
    /// Part of `spent` for rooms whose windows can't widen: see `Windows`.
    spent_in_vain: Duration,
    /// Share of passes, smoothed over some intervals, in thousandths.
    pub(super) permille: u32,
    in_vain_permille: u32,
    /// The stretch, in thousandths; 1 000: windows as they are.
    pub(super) stretch_permille: u32,
    windows: Windows,
}

/// The widest windows that rooms need for their own passes alone, among rooms with a pass in the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Windows {
    /// The widest of all rooms.
    pub(super) of_all: Duration,
    /// The widest of rooms whose window may still widen. The others can't be helped, and slowing down the
    /// rest for them would be in vain.
    pub(super) of_helped: Duration,
}

impl Strain {
    /// The strain of a shard that has measured nothing.
    pub(super) fn new(rules: &RoomRules, now: Instant) -> Self {
        Self {
            permille_max: rules.cpu_permille.max(1),
            window_max: rules.window_max(),
            interval_began: now,
            spent: Duration::ZERO,
            spent_in_vain: Duration::ZERO,
            permille: 0,
            in_vain_permille: 0,
            stretch_permille: STRETCH_NONE,
            windows: Windows::default(),
        }
    }

    /// Adds the processor time of a pass. `window` is the one the room needs for its passes alone.
    pub(super) fn spend(&mut self, cpu: Duration, window: Duration) {
        self.spent += cpu;
        if !self.is_helped(window) {
            self.spent_in_vain += cpu;
        }
    }

    /// True if a room that needs this window can still be slowed down by a wider one.
    pub(super) fn is_helped(&self, window: Duration) -> bool {
        window < self.window_max
    }

    /// True if the interval is over.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.interval_began) >= LOAD_INTERVAL
    }

    /// Weighs the interval that is over, and moves the stretch a part of the way to where passes fit their
    /// share.
    pub(super) fn weigh(&mut self, windows: Windows, now: Instant) {
        let elapsed = now.saturating_duration_since(self.interval_began);
        let spent = std::mem::take(&mut self.spent);
        let spent_in_vain = std::mem::take(&mut self.spent_in_vain);
        self.permille = smoothed(self.permille, spent, elapsed);
        self.in_vain_permille = smoothed(self.in_vain_permille, spent_in_vain, elapsed);
        self.interval_began = now;
        self.windows = windows;
        let next = self.next_stretch();
        if next < self.stretch_permille {
            // Passes take less than they may: their rooms need not wait as long.
            self.stretch_permille = next;
            return;
        }
        if !self.is_helped(stretched(windows.of_helped, self.stretch_permille)) {
            // The widest of these windows is at its bound already. More stretch would slow down small rooms,
            // and the room that costs most would go on as it does.
            return;
        }
        self.stretch_permille = next;
    }

    /// The stretch after this interval: a `GAIN`th of the way from the present one to the one that fits.
    fn next_stretch(&self) -> u32 {
        // Rooms that can't be helped keep what they take. The others have the rest, and in any case a part.
        let rest = self.permille_max.saturating_sub(self.in_vain_permille);
        let may_take = rest.max(self.permille_max / GAIN).max(1);
        let takes = self.permille.saturating_sub(self.in_vain_permille);
        let present = u64::from(self.stretch_permille);
        let fit = present * u64::from(takes) / u64::from(may_take);
        let next = (present * u64::from(GAIN - 1) + fit) / u64::from(GAIN);
        u32::try_from(next).unwrap_or(u32::MAX).clamp(STRETCH_NONE, STRETCH_MAX_PERMILLE)
    }

    /// The window with which the most costly room would keep passes to their share; zero while nothing is
    /// written.
    pub(super) fn window_needed(&self) -> Duration {
        let widest = stretched(self.windows.of_helped, self.stretch_permille).max(self.windows.of_all);
        if self.permille <= self.permille_max {
            // A room may be dear and yet seldom written to.
            return widest.min(self.window_max);
        }
        widest.saturating_mul(self.permille) / self.permille_max
    }
}

fn smoothed(before_permille: u32, spent: Duration, elapsed: Duration) -> u32 {
    let permille = spent.as_micros().saturating_mul(1000) / elapsed.as_micros().max(1);
    let permille = u32::try_from(permille).unwrap_or(u32::MAX).min(1000);
    (before_permille * (SMOOTHING - 1) + permille) / SMOOTHING
}

fn stretched(window: Duration, permille: u32) -> Duration {
    window.saturating_mul(permille) / STRETCH_NONE
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock;
    use roomcast_core::room::pace::{Pace, PassCost, Waiting};

    const GATHER: Duration = Duration::from_millis(100);
    const USUAL: Windows = Windows { of_all: GATHER, of_helped: GATHER };

    fn strain() -> (Strain, Instant) {
        let now = clock::now().instant;
        (Strain::new(&RoomRules::default(), now), now)
    }

    /// Rooms whose passes take `demand` of a shard unless their windows are stretched.
    fn weighed(strain: &mut Strain, demand_permille: u64, intervals: u32, from: Instant) -> Vec<u32> {
        (1..=intervals)
            .map(|interval| {
                let took = demand_permille * 1000 / u64::from(strain.stretch_permille);
                strain.spend(Duration::from_millis(took.min(1000)), GATHER);
                strain.weigh(USUAL, from + LOAD_INTERVAL * interval);
                strain.stretch_permille
            })
            .collect()
    }

    #[test]
    fn passes_that_fit_their_share_stretch_nothing() {
        let (mut strain, now) = strain();
        assert_eq!(weighed(&mut strain, 590, 20, now), [STRETCH_NONE; 20]);
        assert!((580..=600).contains(&strain.permille), "{}", strain.permille);
        assert_eq!(strain.window_needed(), GATHER);
        weighed(&mut strain, 0, 20, now + LOAD_INTERVAL * 20);
        assert_eq!(strain.permille, 0, "an idle shard takes nothing");
    }

    #[test]
    fn many_rooms_that_do_not_fit_together_are_stretched_until_they_do_and_released_again() {
        let (mut strain, now) = strain();
        let up = weighed(&mut strain, 1800, 60, now);
        assert!((2900..=3100).contains(&up[59]), "{up:?}");
        assert!((580..=630).contains(&strain.permille), "{}", strain.permille);
        assert!(up.iter().all(|stretch| *stretch <= 3600), "it does not swing far: {up:?}");
        let down = weighed(&mut strain, 300, 60, now + LOAD_INTERVAL * 60);
        assert_eq!(down[59], STRETCH_NONE);
    }

    #[test]
    fn rooms_that_can_not_be_helped_are_stretched_as_far_as_windows_go_and_the_shard_says_what_it_needs() {
        let (mut strain, now) = strain();
        for interval in 1..=60 {
            strain.spend(LOAD_INTERVAL, GATHER);
            strain.weigh(USUAL, now + LOAD_INTERVAL * interval);
        }
        let widest = GATHER * strain.stretch_permille / STRETCH_NONE;
        assert!((1000..1250).contains(&widest.as_millis()), "{widest:?}");
        assert!(strain.window_needed() >= widest * 3 / 2, "{:?}", strain.window_needed());
    }

    /// It is as wide as it may be and still takes 62 % of the shard.
    #[test]
    fn a_room_at_its_widest_window_does_not_slow_down_all_others() {
        let (mut strain, now) = strain();
        let own = Duration::from_millis(1030);
        let windows = Windows { of_all: own, of_helped: GATHER };
        for interval in 1..=900 {
            strain.spend(Duration::from_millis(620), own);
            strain.spend(Duration::from_millis(100), GATHER);
            strain.weigh(windows, now + LOAD_INTERVAL * interval);
        }
        assert_eq!(strain.stretch_permille, STRETCH_NONE);
        assert!(strain.window_needed() > own, "{:?}", strain.window_needed());
        // Others that take too much beside it are slowed down all the same.
        for interval in 901..=960 {
            strain.spend(Duration::from_millis(620), own);
            let took = 700 * STRETCH_NONE / strain.stretch_permille;
            strain.spend(Duration::from_millis(took.into()), GATHER);
            strain.weigh(windows, now + LOAD_INTERVAL * interval);
        }
        assert!((4000..6000).contains(&strain.stretch_permille), "{}", strain.stretch_permille);
    }

    #[test]
    fn a_dear_room_that_is_seldom_written_to_needs_no_more_than_there_is() {
        let (mut strain, now) = strain();
        let own = Duration::from_millis(1170);
        strain.spend(Duration::from_millis(10), own);
        strain.weigh(Windows { of_all: own, of_helped: Duration::ZERO }, now + LOAD_INTERVAL);
        assert_eq!(strain.window_needed(), RoomRules::default().window_max());
    }

    /// Rooms of 1000 members whose passes take a millisecond cut a whole batch every so often, as far as
    /// their pace lets them.
    #[test]
    fn the_stretch_finds_a_place_where_rooms_with_whole_batches_fit_and_stays_there() {
        for (rooms, natural_ms, fit_ms) in [(27, 33, 45), (90, 60, 150), (85, 70, 142)] {
            let (mut strain, now) = strain();
            let mut pace = Pace::default();
            pace.flushed(now);
            let pass = Duration::from_millis(1);
            let mut spacings = Vec::new();
            for interval in 1..=90 {
                pace.passes_cost(PassCost { pass, stretch_permille: strain.stretch_permille });
                let full = now + Duration::from_millis(natural_ms);
                let waiting = Waiting { oldest: now, batches: 1, bytes: 0, urgent: false };
                let spacing = pace.due(waiting, 1000).max(full) - now;
                let took = pass * rooms * 1000 / u32::try_from(spacing.as_millis()).unwrap();
                strain.spend(took.min(LOAD_INTERVAL), GATHER);
                strain.weigh(USUAL, now + LOAD_INTERVAL * interval);
                spacings.push(spacing.as_millis());
            }
            let late: BTreeSet<u128> = spacings[60..].iter().copied().collect();
            assert!(late.iter().max().unwrap() - late.iter().min().unwrap() <= 10, "{rooms}: {spacings:?}");
            assert!(late.iter().all(|spacing| spacing.abs_diff(fit_ms) <= 10), "{rooms}: {spacings:?}");
        }
    }
}
