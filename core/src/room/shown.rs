//! How much more devices may be asked to show: never more than so many messages in any second, and smoothly where more
//! come than that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over which no more is shown than configured.
const SECOND: Duration = Duration::from_secs(1);
/// What is shown within this is counted as one, at its end, so that there is a bound to what is kept.
const SLOT: Duration = Duration::from_millis(20);

/// What was shown in the last second.
#[derive(Debug, Default)]
pub struct Shown {
    /// Oldest first; at most a second's slots.
    slots: VecDeque<Slot>,
    /// Invariant: the sum over `slots`.
    sum: usize,
    asked_at: Option<Instant>,
    /// What is left of the last answer.
    granted: usize,
}

#[derive(Debug)]
struct Slot {
    began: Instant,
    ended: Instant,
    shown: usize,
}

impl Shown {
    /// How many of `waiting` may be shown now at `per_second`: all of them if the last second leaves so many; if not, of what
    /// it leaves, what has come free since this was last asked, or half of it, so that a flood does not leave once a second.
    /// Asked again at the same moment, it is what is left of the answer.
    pub fn allowance(&mut self, per_second: u32, waiting: usize, now: Instant) -> usize {
        if self.asked_at == Some(now) {
            return self.granted;
        }
        self.forget_what_is_past(now);
        let since = self.asked_at.map_or(SECOND, |asked| now.saturating_duration_since(asked).min(SECOND));
        self.asked_at = Some(now);
        let per_second = per_second as usize;
        let free = per_second.saturating_sub(self.sum);
        let fresh = per_second * usize::try_from(since.as_millis()).unwrap_or(0) / 1000;
        self.granted = if waiting <= free { free } else { free.min(fresh.max(free.div_ceil(2))) };
        self.granted
    }

    /// So many are shown now.
    pub fn take(&mut self, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        self.sum += count;
        self.granted = self.granted.saturating_sub(count);
        match self.slots.back_mut().filter(|slot| now.saturating_duration_since(slot.began) < SLOT) {
            Some(slot) => (slot.ended, slot.shown) = (now, slot.shown + count),
            None => self.slots.push_back(Slot { began: now, ended: now, shown: count }),
        }
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Lets go of what was shown more than a second ago.
    pub fn forget_what_is_past(&mut self, now: Instant) {
        while self.slots.front().is_some_and(|slot| slot.ended + SECOND <= now) {
            self.sum -= self.slots.pop_front().map_or(0, |slot| slot.shown);
        }
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now::Now;

    /// What is shown in each of `flushes` flushes so many milliseconds apart, while more comes than may be.
    fn flooded(per_second: u32, apart_ms: u64, flushes: u32) -> Vec<(Duration, usize)> {
        let (mut shown, began) = (Shown::default(), Now::made_up().instant);
        let flush = |n| {
            let at = Duration::from_millis(apart_ms) * n;
            let count = shown.allowance(per_second, usize::MAX, began + at);
            shown.take(count, began + at);
            (at, count)
        };
        (0..flushes).map(flush).collect()
    }

    #[test]
    fn no_second_has_more_than_it_may_and_a_flood_uses_most_of_it() {
        for (per_second, apart_ms) in
            [(1, 100), (3, 37), (20, 100), (40, 100), (40, 7), (1000, 100), (40, 1000), (40, 333)]
        {
            let flushes = flooded(per_second, apart_ms, 2000);
            for (n, (from, _)) in flushes.iter().enumerate() {
                let within = flushes[n..].iter().take_while(|(at, _)| *at < *from + SECOND);
                let sum: usize = within.map(|(_, count)| count).sum();
                assert!(sum <= per_second as usize, "{sum} of {per_second} in a second from {from:?}");
            }
            let sum: usize = flushes.iter().map(|(_, count)| count).sum();
            let least = 2000 * u64::from(per_second) * apart_ms / 1000 * 7 / 10;
            assert!(sum as u64 >= least, "{sum} of {least} at {per_second}/s every {apart_ms} ms");
        }
    }

    #[test]
    fn a_flood_is_shown_smoothly_before_long() {
        let late: Vec<usize> = flooded(40, 100, 150)[70..].iter().map(|(_, count)| *count).collect();
        assert!(late.iter().all(|count| (3..=5).contains(count)), "{late:?}");
    }

    #[test]
    fn what_the_second_has_room_for_passes_and_more_is_spread() {
        let (mut shown, now) = (Shown::default(), Now::made_up().instant);
        shown.take(24, now);
        let soon = now + Duration::from_millis(100);
        assert_eq!(shown.allowance(40, 16, soon), 16, "all that wait fit");
        let soon = now + Duration::from_millis(200);
        assert_eq!(shown.allowance(40, 17, soon), 8, "they do not");
    }

    #[test]
    fn a_burst_in_a_quiet_room_passes() {
        let (mut shown, now) = (Shown::default(), Now::made_up().instant);
        assert_eq!(shown.allowance(40, 30, now), 40);
        shown.take(15, now);
        assert_eq!(shown.allowance(40, 30, now), 25, "asked again at once");
        let later = now + Duration::from_secs(30);
        assert_eq!(shown.allowance(40, 30, later), 40);
    }
}
