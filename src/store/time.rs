//! The store's clock: the time in which stored messages age and expire.
//!
//! While the node lives, the store's clock is the monotonic clock, so no step of the wall clock kills or
//! revives a message. Across a restart the wall clock tells how long the node was away. Each commit writes a
//! [`Stamp`] of both clocks, and the next start goes on from the last stamp:
//!
//! store time at the start = stamp.store + max(0, wall − stamp.wall)
//!
//! Example: the wall clock steps from 12:00 to 13:00 while the node runs, and a commit at store time 12:01
//! notes the wall time 13:01. A start at 13:05 by the wall goes on at 12:05 by the store. A wall clock that
//! went back while the node was away counts as no time, and the stored messages go on aging from there.
//!
//! A file without a stamp (form 1, or a damaged stamp) goes on at the wall clock, and never before the newest
//! stored message. After a start with a doubtful wall clock the purge is held for `STORE_PURGE_HOLD`: rows that
//! count as expired stay in the file until an operator has had time to look. A wall clock far ahead is not noted
//! either before the end of the hold: the commits write the last stamp again. So a restart within the hold
//! begins at the last stamp, as if this life had not been. With the right clock all messages are alive again; with
//! the same wrong clock the purge is held again.
//!
//! The time of a suspended machine does not count. The monotonic clock of Linux (`CLOCK_MONOTONIC`) stands still
//! meanwhile, as do the devices' timers behind it: nobody could acknowledge. `CLOCK_BOOTTIME` would expire all
//! live messages at the wake-up, before any device is back.

use std::time::{Duration, Instant};

use roomcast_core::limits::{STORE_AWAY_MAX, STORE_CLOCK_STEP_MAX, STORE_PURGE_HOLD};
use roomcast_core::now::{Now, millis};

/// A reading of both clocks as stored, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Store time.
    pub store_ms: u64,
    /// Wall clock, unix time.
    pub wall_ms: u64,
}

/// The store's clock in one life of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreClock {
    began: Instant,
    began_ms: u64,
    held: Option<HeldStamp>,
}

/// The last stamp, kept after a start with a wall clock far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeldStamp {
    stamp: Stamp,
    until: Instant,
}

/// The times that a store knows at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastTimes {
    /// The last stamp. `None` before the first commit, in a file of form 1, or if damaged.
    pub stamp: Option<Stamp>,
    /// The newest acceptance of a stored message, in store time. Only known without a stamp.
    pub newest_ms: Option<u64>,
}

/// The wall clock at a start, against the last times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WallClock {
    /// As after a restart.
    Plausible,
    /// Behind the last times: the clock went back while the node was away.
    Behind,
    /// Ahead by more than `STORE_AWAY_MAX`: the node was away for long, or the clock is wrong.
    FarAhead,
}

impl LastTimes {
    /// Compares the wall clock with the last times.
    #[must_use]
    pub fn judge(self, now: Now) -> WallClock {
        let Some(last_ms) = self.stamp.map(|stamp| stamp.wall_ms).or(self.newest_ms) else {
            return WallClock::Plausible;
        };
        let behind = Duration::from_millis(last_ms.saturating_sub(now.unix_ms));
        let ahead = Duration::from_millis(now.unix_ms.saturating_sub(last_ms));
        // A clock that is being slewed may be behind by moments.
        if behind > STORE_CLOCK_STEP_MAX {
            WallClock::Behind
        } else if ahead > STORE_AWAY_MAX {
            WallClock::FarAhead
        } else {
            WallClock::Plausible
        }
    }
}

/// A moment on all clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreNow {
    /// Monotonic time.
    pub instant: Instant,
    /// Store time and wall clock.
    pub stamp: Stamp,
    /// The stamp that a commit writes: both clocks, or the last stamp while the wall clock is in doubt.
    pub noted: Stamp,
}

impl StoreClock {
    /// The clock of a store with these last times.
    #[must_use]
    pub fn start(last: LastTimes, now: Now) -> Self {
        let began_ms = match last.stamp {
            Some(stamp) => stamp.store_ms.saturating_add(now.unix_ms.saturating_sub(stamp.wall_ms)),
            // Before the newest message, all messages would count as new again.
            None => now.unix_ms.max(last.newest_ms.unwrap_or(0)),
        };
        // A file without a stamp goes on at the newest message, which this stamp says as well.
        let kept = last.stamp.or_else(|| last.newest_ms.map(|ms| Stamp { store_ms: ms, wall_ms: ms }));
        let held = kept
            .filter(|_| last.judge(now) == WallClock::FarAhead)
            .map(|stamp| HeldStamp { stamp, until: now.instant + STORE_PURGE_HOLD });
        Self { began: now.instant, began_ms, held }
    }

    /// The moment `now` on this clock.
    #[must_use]
    pub fn now(self, now: Now) -> StoreNow {
        let store_ms =
            self.began_ms.saturating_add(millis(now.instant.saturating_duration_since(self.began)));
        let stamp = Stamp { store_ms, wall_ms: now.unix_ms };
        let held = self.held.filter(|held| now.instant < held.until);
        StoreNow { instant: now.instant, stamp, noted: held.map_or(stamp, |held| held.stamp) }
    }
}

impl StoreNow {
    /// The store time of a moment at or before this one.
    #[must_use]
    pub fn ms_of(self, moment: Instant) -> u64 {
        self.stamp.store_ms.saturating_sub(millis(self.instant.saturating_duration_since(moment)))
    }

    /// The time since a moment in store time. A moment in the future counts as now.
    #[must_use]
    pub fn age(self, store_ms: u64) -> Duration {
        Duration::from_millis(self.stamp.store_ms.saturating_sub(store_ms))
    }
}

impl Stamp {
    /// The change of the distance between both clocks since the stamp `earlier`: a step of the wall clock.
    #[must_use]
    pub fn step_since(self, earlier: Self) -> Duration {
        let passed = self.store_ms.saturating_sub(earlier.store_ms);
        Duration::from_millis(self.wall_ms.abs_diff(earlier.wall_ms.saturating_add(passed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn of(stamp: Stamp) -> LastTimes {
        LastTimes { stamp: Some(stamp), newest_ms: None }
    }

    fn stepped(now: Now, by_ms: i64) -> Now {
        Now { unix_ms: now.unix_ms.saturating_add_signed(by_ms), ..now }
    }

    #[test]
    fn a_step_of_the_wall_clock_changes_nothing_while_the_node_lives() {
        let now = clock::now();
        let clock = StoreClock::start(LastTimes::default(), now);
        for by_ms in [3_600_000, -3_600_000] {
            let later = clock.now(stepped(now.later(MINUTE), by_ms));
            assert_eq!(later.stamp.store_ms, now.unix_ms + 60_000);
            assert_eq!(later.stamp.step_since(clock.now(now).stamp), Duration::from_secs(3600));
        }
    }

    #[test]
    fn a_restart_counts_the_time_away_and_no_step_before_the_last_stamp() {
        let now = clock::now();
        let last =
            StoreClock::start(LastTimes::default(), now).now(stepped(now.later(MINUTE), 3_600_000)).stamp;
        let next = StoreClock::start(of(last), stepped(now.later(MINUTE * 5), 3_600_000));
        assert_eq!(next.began_ms, now.unix_ms + 300_000);
    }

    #[test]
    fn a_clock_that_went_back_while_the_node_was_away_stops_no_message_from_aging() {
        let now = clock::now();
        let mut stamp = StoreClock::start(LastTimes::default(), now).now(now).stamp;
        // Each boot begins at the same wrong time, and lives for a minute.
        for life in 1..10 {
            let boot = Now { unix_ms: 1_000, ..now };
            stamp = StoreClock::start(of(stamp), boot).now(boot.later(MINUTE)).stamp;
            assert_eq!(stamp.store_ms, now.unix_ms + life * 60_000);
        }
    }

    #[test]
    fn a_clock_far_ahead_is_not_noted_before_the_end_of_the_hold() {
        let now = clock::now();
        let right = Stamp { store_ms: now.unix_ms, wall_ms: now.unix_ms };
        let wrong = stepped(now, 2 * millis(STORE_AWAY_MAX).cast_signed());
        let newest = LastTimes { stamp: None, newest_ms: Some(now.unix_ms) };
        for last in [of(right), newest] {
            let clock = StoreClock::start(last, wrong);
            assert_eq!(clock.now(wrong.later(MINUTE)).noted, right);
            assert_eq!(StoreClock::start(of(right), wrong).began_ms, clock.began_ms, "the next start");
            let behind = clock.now(wrong.later(STORE_PURGE_HOLD));
            assert_eq!(behind.noted, behind.stamp);
        }
        let ahead = clock::now().later(MINUTE);
        let plausible = StoreClock::start(of(right), ahead).now(ahead);
        assert_eq!(plausible.noted, plausible.stamp);
    }

    #[test]
    fn moments_before_and_ages_are_told_in_store_time() {
        let now = clock::now();
        let later = StoreClock::start(LastTimes::default(), now).now(now.later(MINUTE));
        assert_eq!(later.ms_of(now.instant), now.unix_ms);
        assert_eq!(later.age(now.unix_ms), MINUTE);
        assert_eq!(later.age(u64::MAX), Duration::ZERO, "a row from the future is new");
    }

    #[test]
    fn a_store_without_a_stamp_begins_at_its_newest_message_if_the_wall_clock_is_behind() {
        let now = clock::now();
        for (newest_ms, began_ms) in [
            (None, now.unix_ms),
            (Some(now.unix_ms - 60_000), now.unix_ms),
            (Some(now.unix_ms + 60_000), now.unix_ms + 60_000),
        ] {
            assert_eq!(StoreClock::start(LastTimes { stamp: None, newest_ms }, now).began_ms, began_ms);
        }
    }

    #[test]
    fn a_wall_clock_behind_or_far_ahead_of_the_last_times_is_doubtful() {
        let now = clock::now();
        let away_ms = millis(STORE_AWAY_MAX);
        for (by_ms, judged) in [
            (0, WallClock::Plausible),
            (-1000, WallClock::Plausible),
            (-1001, WallClock::Behind),
            (away_ms.cast_signed(), WallClock::Plausible),
            (away_ms.cast_signed() + 1, WallClock::FarAhead),
        ] {
            let last = Stamp { store_ms: 5, wall_ms: now.unix_ms };
            let newest = LastTimes { stamp: None, newest_ms: Some(now.unix_ms) };
            assert_eq!(of(last).judge(stepped(now, by_ms)), judged);
            assert_eq!(newest.judge(stepped(now, by_ms)), judged);
        }
        assert_eq!(LastTimes::default().judge(now), WallClock::Plausible);
    }
}
