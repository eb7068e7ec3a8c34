//! How much of a shard its passes take, and what follows for its rooms' windows. Pure.
//!
//! Each room keeps its own passes to the shard's share by what one pass costs (`room::pace`). What remains is the sum:
//! rooms that fit alone may not fit together. Then the windows of all of them are stretched by the same factor, slowly
//! enough that passes a whole window apart do not make it swing.

use std::time::{Duration, Instant};

use crate::config::limits::{LOAD_INTERVAL, STRETCH_MAX_PERMILLE};
use crate::room::pace::{FlushRules, STRETCH_NONE};

/// How much the last interval counts among those before it.
const SMOOTHING: u32 = 2;
/// What part of what is missing, or too much, one interval changes. With passes as far apart as an interval, and shares
/// smoothed, more of it swings.
const GAIN: u32 = 4;

/// What one shard's passes take.
#[derive(Debug)]
pub struct Strain {
    /// What they may take, in thousandths.
    permille_max: u32,
    window_max: Duration,
    interval_began: Instant,
    /// Processor time of passes since then.
    spent: Duration,
    /// What they took, smoothed over some intervals, in thousandths.
    permille: u32,
    stretch_permille: u32,
    /// The widest window that a room needed in the last interval, the stretch not counted.
    widest: Duration,
}

impl Strain {
    /// Nothing was measured yet.
    #[must_use]
    pub fn new(rules: &FlushRules, now: Instant) -> Self {
        Self {
            permille_max: rules.cpu_permille,
            window_max: rules.window_max(),
            interval_began: now,
            spent: Duration::ZERO,
            permille: 0,
            stretch_permille: STRETCH_NONE,
            widest: Duration::ZERO,
        }
    }

    /// Passes took so much processor time.
    pub fn spend(&mut self, cpu: Duration) {
        self.spent += cpu;
    }

    /// Whether an interval is over, so that it is to be weighed.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.interval_began) >= LOAD_INTERVAL
    }

    /// Weighs the interval that is over. `widest` is the widest window that a room which had passes in it needs for its own
    /// passes alone.
    pub fn weigh(&mut self, widest: Duration, now: Instant) {
        let elapsed = now.saturating_duration_since(self.interval_began).as_micros().max(1);
        let spent = std::mem::take(&mut self.spent);
        let permille = u32::try_from(spent.as_micros().saturating_mul(1000) / elapsed).unwrap_or(u32::MAX);
        self.permille = (self.permille * (SMOOTHING - 1) + permille.min(1000)) / SMOOTHING;
        (self.interval_began, self.widest) = (now, widest);
        let fit = u64::from(self.stretch_permille) * u64::from(self.permille) / u64::from(self.permille_max);
        let next = (u64::from(self.stretch_permille) * u64::from(GAIN - 1) + fit) / u64::from(GAIN);
        let next = u32::try_from(next).unwrap_or(u32::MAX).clamp(STRETCH_NONE, STRETCH_MAX_PERMILLE);
        // A room whose window is as wide as it may be can't be helped; to slow down all others for it would be in vain.
        if next < self.stretch_permille || self.stretched_widest() < self.window_max {
            self.stretch_permille = next;
        }
    }

    /// The window that the most costly room would need so that passes keep to their share; zero while nothing is written.
    #[must_use]
    pub fn window_needed(&self) -> Duration {
        let over = self.permille.max(self.permille_max);
        self.stretched_widest().saturating_mul(over) / self.permille_max.max(1)
    }

    fn stretched_widest(&self) -> Duration {
        self.widest.saturating_mul(self.stretch_permille) / STRETCH_NONE
    }

    /// What passes take, in thousandths of the shard's time.
    #[must_use]
    pub fn permille(&self) -> u32 {
        self.permille
    }

    /// By how much windows are stretched, in thousandths.
    #[must_use]
    pub fn stretch_permille(&self) -> u32 {
        self.stretch_permille
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Now;
    use crate::room::pace::{self, Pace, Waiting};

    const GATHER: Duration = Duration::from_millis(100);

    fn strain() -> (Strain, Instant) {
        let now = Now::read().instant;
        (Strain::new(&FlushRules::default(), now), now)
    }

    /// Rooms whose passes take `demand` of a shard unless their windows are stretched.
    fn weighed(strain: &mut Strain, demand_permille: u64, intervals: u32, from: Instant) -> Vec<u32> {
        (1..=intervals)
            .map(|interval| {
                let took = demand_permille * 1000 / u64::from(strain.stretch_permille());
                strain.spend(Duration::from_millis(took.min(1000)));
                strain.weigh(GATHER, from + LOAD_INTERVAL * interval);
                strain.stretch_permille()
            })
            .collect()
    }

    #[test]
    fn passes_that_fit_their_share_stretch_nothing() {
        let (mut strain, now) = strain();
        assert_eq!(weighed(&mut strain, 590, 20, now), [STRETCH_NONE; 20]);
        assert!((580..=600).contains(&strain.permille()), "{}", strain.permille());
        assert_eq!(strain.window_needed(), GATHER);
        weighed(&mut strain, 0, 20, now + LOAD_INTERVAL * 20);
        assert_eq!(strain.permille(), 0, "an idle shard takes nothing");
    }

    #[test]
    fn many_rooms_that_do_not_fit_together_are_stretched_until_they_do_and_released_again() {
        let (mut strain, now) = strain();
        let up = weighed(&mut strain, 1800, 60, now);
        assert!((2900..=3100).contains(&up[59]), "{up:?}");
        assert!((580..=630).contains(&strain.permille()), "{}", strain.permille());
        assert!(up.iter().all(|stretch| *stretch <= 3600), "it does not swing far: {up:?}");
        let down = weighed(&mut strain, 300, 60, now + LOAD_INTERVAL * 60);
        assert_eq!(down[59], STRETCH_NONE);
    }

    #[test]
    fn rooms_that_can_not_be_helped_are_stretched_as_far_as_windows_go_and_the_shard_says_what_it_needs() {
        let (mut strain, now) = strain();
        for interval in 1..=60 {
            strain.spend(LOAD_INTERVAL);
            strain.weigh(GATHER, now + LOAD_INTERVAL * interval);
        }
        let widest = GATHER * strain.stretch_permille() / STRETCH_NONE;
        assert!((1000..1250).contains(&widest.as_millis()), "{widest:?}");
        assert!(strain.window_needed() >= widest * 3 / 2, "{:?}", strain.window_needed());
    }

    /// It is as wide as it may be and still takes 62 % of the shard.
    #[test]
    fn a_room_at_its_widest_window_does_not_slow_down_all_others() {
        let (mut strain, now) = strain();
        let own = Duration::from_millis(1030);
        for interval in 1..=900 {
            strain.spend(Duration::from_millis(620));
            strain.weigh(own, now + LOAD_INTERVAL * interval);
        }
        assert_eq!(strain.stretch_permille(), STRETCH_NONE);
        assert!((1030..1070).contains(&strain.window_needed().as_millis()), "{:?}", strain.window_needed());
    }

    /// 27 rooms cut 30 whole batches a second, as long as their pace lets them: 80 % of the shard.
    #[test]
    fn the_stretch_finds_a_place_where_rooms_with_whole_batches_fit_and_stays_there() {
        let (mut strain, now) = strain();
        let mut pace = Pace::default();
        pace.flushed(now);
        let pass = Duration::from_millis(1);
        let mut spacings = Vec::new();
        for interval in 1..=60 {
            pace.strained(pace::Strain { pass, stretch_permille: strain.stretch_permille() });
            let waiting = Waiting { oldest: now, batches: 4, urgent: false };
            let spacing = pace.due(waiting, 1000).max(now + Duration::from_millis(33)) - now;
            strain.spend(pass * 27_000 / u32::try_from(spacing.as_millis()).unwrap());
            strain.weigh(GATHER, now + LOAD_INTERVAL * interval);
            spacings.push(spacing.as_millis());
        }
        let late: BTreeSet<u128> = spacings[40..].iter().copied().collect();
        assert!(late.iter().max().unwrap() - late.iter().min().unwrap() <= 10, "{spacings:?}");
        assert!(late.iter().all(|spacing| (40..=50).contains(spacing)), "{spacings:?}");
    }
}
