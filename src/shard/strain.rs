//! How much of a shard its passes take, and what follows for its rooms' windows. Pure.
//!
//! Each room keeps its own passes to the shard's share by what one pass costs (`room::pace`). What remains is the sum:
//! rooms that fit alone may not fit together. Then the windows of all of them are stretched by the same factor, slowly
//! enough that passes a whole window apart do not make it swing.

use std::time::{Duration, Instant};

use crate::config::limits::{LOAD_INTERVAL, STRETCH_MAX_PERMILLE};
use crate::room::pace::STRETCH_NONE;

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
    interval_began: Instant,
    /// Processor time of passes since then.
    spent: Duration,
    /// What they took, smoothed over some intervals, in thousandths.
    permille: u32,
    stretch_permille: u32,
}

impl Strain {
    /// Nothing was measured yet.
    #[must_use]
    pub fn new(permille_max: u32, now: Instant) -> Self {
        Self {
            permille_max,
            interval_began: now,
            spent: Duration::ZERO,
            permille: 0,
            stretch_permille: STRETCH_NONE,
        }
    }

    /// Passes took so much processor time.
    pub fn spend(&mut self, cpu: Duration) {
        self.spent += cpu;
    }

    /// Weighs the interval, once it is over.
    pub fn weigh(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.interval_began);
        if elapsed < LOAD_INTERVAL {
            return;
        }
        let spent = std::mem::take(&mut self.spent);
        let permille = spent.as_micros().saturating_mul(1000) / elapsed.as_micros();
        let permille = u32::try_from(permille).unwrap_or(u32::MAX).min(1000);
        self.permille = (self.permille * (SMOOTHING - 1) + permille).div_ceil(SMOOTHING);
        self.interval_began = now;
        let (stretch, is, may_be) =
            (u64::from(self.stretch_permille), u64::from(self.permille), u64::from(self.permille_max));
        let fit = stretch * is / may_be;
        let next = (stretch * u64::from(GAIN - 1) + fit) / u64::from(GAIN);
        let next = u32::try_from(next).unwrap_or(u32::MAX);
        self.stretch_permille = next.clamp(STRETCH_NONE, STRETCH_MAX_PERMILLE);
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
    use super::*;
    use crate::clock::Now;

    /// Rooms whose passes take `demand` of a shard unless their windows are stretched, up to `stretch_max`.
    fn weighed(strain: &mut Strain, demand_permille: u64, intervals: u32, from: Instant) -> Vec<u32> {
        (1..=intervals)
            .map(|interval| {
                let took = demand_permille * 1000 / u64::from(strain.stretch_permille());
                strain.spend(Duration::from_millis(took.min(1000)));
                strain.weigh(from + LOAD_INTERVAL * interval);
                strain.stretch_permille()
            })
            .collect()
    }

    #[test]
    fn passes_that_fit_their_share_stretch_nothing() {
        let now = Now::read().instant;
        let mut strain = Strain::new(600, now);
        assert_eq!(weighed(&mut strain, 590, 20, now), [STRETCH_NONE; 20]);
        assert!((580..=600).contains(&strain.permille()), "{}", strain.permille());
    }

    #[test]
    fn many_rooms_that_do_not_fit_together_are_stretched_until_they_do_and_released_again() {
        let now = Now::read().instant;
        let mut strain = Strain::new(600, now);
        let up = weighed(&mut strain, 1800, 60, now);
        assert!((2900..=3100).contains(&up[59]), "{up:?}");
        assert!((580..=630).contains(&strain.permille()), "{}", strain.permille());
        assert!(up.iter().all(|stretch| *stretch <= 3600), "it does not swing far: {up:?}");
        let down = weighed(&mut strain, 300, 60, now + LOAD_INTERVAL * 60);
        assert_eq!(down[59], STRETCH_NONE);
    }

    #[test]
    fn a_shard_that_can_not_be_helped_is_stretched_to_the_limit() {
        let now = Now::read().instant;
        let mut strain = Strain::new(600, now);
        for interval in 1..=60 {
            strain.spend(LOAD_INTERVAL);
            strain.weigh(now + LOAD_INTERVAL * interval);
        }
        assert_eq!(strain.stretch_permille(), STRETCH_MAX_PERMILLE);
    }
}
