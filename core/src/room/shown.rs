//! The reading rate of devices: at most so many messages in any second, and an even flow while more come.
//!
//! The rate is a sliding window of a second. With `free` = rate − messages shown in the last second:
//!
//! - In a flood (some question of the last second was not granted whole), the rate × (time since the last
//!   question with `free` = 0) may leave, less the messages shown since; `free` at most.
//! - Otherwise, if no more than `free` wait, all may leave.
//! - Otherwise the greater of two numbers may: rate × (time since the last question), or half of `free`;
//!   `free` at most.
//!
//! The first rule spreads a flood. Without it each second would open with a full burst and then be empty: at
//! 20 a second, a flood after a pause would show 40 messages in 1.1 s. Example of the third: at 40 a second,
//! 24 shown in the last second leave `free` = 16. Of 17 waiting messages, 100 ms after the last question,
//! max(40 × 0.1, 16 ÷ 2) = 8 leave.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The length of the window.
const SECOND: Duration = Duration::from_secs(1);
/// Messages shown within this time count as an entry, at the end of the time. So the window has about 50
/// entries at most.
const SLOT: Duration = Duration::from_millis(20);

/// The messages shown in the last second.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Oldest first.
    slots: VecDeque<ShownSlot>,
    /// Invariant: the sum of `shown` over `slots`.
    sum: usize,
    asked_at: Option<Instant>,
    /// The rest of the last answer.
    granted: usize,
    /// The last question that was not granted whole.
    pressed_at: Option<Instant>,
    /// The part of the rate that a flood has not used, in thousandths of a message.
    credit_permille: i64,
}

#[derive(Debug)]
struct ShownSlot {
    began: Instant,
    ended: Instant,
    shown: usize,
}

impl Shown {
    /// The number of messages to be shown now, while `waiting` wait. A second question at the same moment
    /// returns the rest of the first answer.
    pub(super) fn allowance(&mut self, per_second: u32, waiting: usize, now: Instant) -> usize {
        // The batches of one flush share one allowance.
        if self.asked_at == Some(now) {
            return self.granted;
        }
        self.forget_what_is_past(now);
        let per_second = per_second as usize;
        let free = per_second.saturating_sub(self.sum);
        // A flush for other messages. Taken as a question, it would start the flow anew, and the burst behind
        // it would get half of what the second has room for.
        if waiting == 0 {
            return free;
        }
        let since = self.asked_at.map_or(SECOND, |asked| now.saturating_duration_since(asked).min(SECOND));
        self.asked_at = Some(now);
        let fresh_permille = per_second * usize::try_from(since.as_millis()).unwrap_or(0);
        let is_flood = self.pressed_at.is_some_and(|pressed| now < pressed + SECOND);
        let permille = |messages: usize| i64::try_from(messages * 1000).unwrap_or(i64::MAX);
        self.credit_permille = match i64::try_from(fresh_permille) {
            // A second's worth at most: after a lull the next burst is spread as well.
            Ok(fresh) if is_flood && free > 0 => (self.credit_permille + fresh).min(permille(per_second)),
            _ => 0,
        };
        self.granted = if is_flood {
            // Rounded up, and paid back later: at 1 a second the credit of a window would be 0 for ever.
            let credit = usize::try_from(self.credit_permille).unwrap_or(0).div_ceil(1000);
            free.min(credit)
        } else if waiting <= free {
            free
        } else {
            free.min((fresh_permille / 1000).max(free.div_ceil(2)))
        };
        if self.granted < waiting {
            self.pressed_at = Some(now);
        }
        self.granted
    }

    /// Counts messages shown now.
    pub(super) fn take(&mut self, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        self.sum += count;
        self.granted = self.granted.saturating_sub(count);
        self.credit_permille -= i64::try_from(count * 1000).unwrap_or(0);
        match self.slots.back_mut().filter(|slot| now.saturating_duration_since(slot.began) < SLOT) {
            // The later end counts for all: a message is forgotten late rather than early, so no second has
            // too many.
            Some(slot) => {
                slot.ended = now;
                slot.shown += count;
            }
            None => self.slots.push_back(ShownSlot { began: now, ended: now, shown: count }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Forgets messages shown more than a second ago.
    pub(super) fn forget_what_is_past(&mut self, now: Instant) {
        while self.slots.front().is_some_and(|slot| slot.ended + SECOND <= now) {
            self.sum -= self.slots.pop_front().map_or(0, |slot| slot.shown);
        }
        // An idle room holds no memory for its busy past.
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
        let mut shown = Shown::default();
        let began = Now::made_up().instant;
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

    /// A room that flushes every ten milliseconds showed 20 messages at once, and 20 more a second later.
    #[test]
    fn a_flood_after_a_pause_opens_no_second_with_a_burst() {
        let mut shown = Shown::default();
        let began = Now::made_up().instant;
        let mut at_ms = Vec::new();
        for flush in 0..300 {
            let now = began + Duration::from_millis(10) * flush;
            let count = shown.allowance(20, 2, now).min(2);
            shown.take(count, now);
            at_ms.extend((0..count).map(|_| flush * 10));
        }
        let within = |from: u32, to: u32| at_ms.iter().filter(|at| (from..to).contains(*at)).count();
        assert_eq!((within(0, 200), within(0, 1000)), (20, 20), "what the second has room for");
        assert!(within(0, 1100) <= 23, "{at_ms:?}");
        assert!((36..=40).contains(&within(1000, 3000)), "{at_ms:?}");
        assert!((0..8).all(|n| within(1000 + n * 250, 1250 + n * 250) <= 6), "an even flow: {at_ms:?}");
    }

    #[test]
    fn what_the_second_has_room_for_passes_and_more_is_spread() {
        let mut shown = Shown::default();
        let now = Now::made_up().instant;
        shown.take(24, now);
        let soon = now + Duration::from_millis(100);
        assert_eq!(shown.allowance(40, 16, soon), 16, "all that wait fit");
        let soon = now + Duration::from_millis(200);
        assert_eq!(shown.allowance(40, 17, soon), 8, "they do not");
    }

    /// A gift before a burst of chat used to halve the burst: its flush counted as a question.
    #[test]
    fn a_flush_without_any_of_them_changes_nothing_for_the_next() {
        let mut shown = Shown::default();
        let now = Now::made_up().instant;
        assert_eq!(shown.allowance(20, 0, now), 20);
        let soon = now + Duration::from_millis(10);
        assert_eq!(shown.allowance(20, 40, soon), 20);
    }

    #[test]
    fn a_burst_in_a_quiet_room_passes() {
        let mut shown = Shown::default();
        let now = Now::made_up().instant;
        assert_eq!(shown.allowance(40, 30, now), 40);
        shown.take(15, now);
        assert_eq!(shown.allowance(40, 30, now), 25, "asked again at once");
        let later = now + Duration::from_secs(30);
        assert_eq!(shown.allowance(40, 30, later), 40);
    }
}
