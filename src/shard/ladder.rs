//! The step of the degradation ladder that one shard comes to by itself. Pure. Rooms decide for themselves
//! what they leave out on a step.
//!
//! Two pressures make a shard climb. One is its inbox: a queue that was never empty (a standing queue, as
//! CoDel tells it from a burst: Nichols and Jacobson 2012), or an inbox that refuses publishes all the while.
//! The other is the bytes owed to all devices of the node. A busy processor is no reason: a storm of joins
//! takes a whole shard and nobody waits for it, and no step below the last makes a pass cheaper.

use std::time::{Duration, Instant};

use roomcast_core::limits::{
    LADDER_DELAY_DOWN, LADDER_DELAY_UP, LADDER_INTERVAL, LADDER_OWED_PERMILLE, LADDER_OWED_SLACK_PERMILLE,
    LADDER_REFUSALS_DOWN, LADDER_REFUSALS_UP,
};
use roomcast_core::room::ladder::{Step, StepChange};

/// The highest step that refused publishes alone lead to.
const REFUSALS_STEP_MAX: Step = Step::WindowWidest;

/// The pressures of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pressure {
    /// The least wait of a publish in the inbox; zero if the inbox was empty at any moment.
    pub(super) delay: Duration,
    /// Moments at which publishes were refused because too much waited, `INBOX_STANDING` apart.
    pub(super) turned_away: u32,
    /// Bytes owed to the devices of all shards, in thousandths of the limit.
    pub(super) owed_permille: u64,
}

/// A shard's place on the ladder.
#[derive(Debug)]
pub(super) struct Ladder {
    weighed_at: Instant,
    by_delay: Step,
    by_owed: Step,
}

impl Ladder {
    /// A ladder on its lowest step.
    pub(super) fn new(now: Instant) -> Self {
        Self { weighed_at: now, by_delay: Step::Calm, by_owed: Step::Calm }
    }

    /// The step the shard stands on.
    pub(super) fn step(&self) -> Step {
        self.by_delay.max(self.by_owed)
    }

    /// Moment of the next weighing.
    pub(super) fn due(&self) -> Instant {
        self.weighed_at + LADDER_INTERVAL
    }

    /// Weighs the interval that is over, and climbs or descends one step for the inbox, any number for owed
    /// bytes.
    pub(super) fn weigh(&mut self, pressure: Pressure, now: Instant) -> Option<StepChange> {
        let from = self.step();
        self.weighed_at = now;
        // A full inbox is soon worked off, so its wait may read as zero while publishers are refused all the
        // time. Yet requests may be larger than the inbox, on a shard with time left: no reason to keep
        // devices out.
        let is_refusing = pressure.turned_away >= LADDER_REFUSALS_UP && self.by_delay < REFUSALS_STEP_MAX;
        if pressure.delay >= LADDER_DELAY_UP || is_refusing {
            self.by_delay = self.by_delay.up();
        } else if pressure.delay < LADDER_DELAY_DOWN
            && (pressure.turned_away <= LADDER_REFUSALS_DOWN || self.by_delay > REFUSALS_STEP_MAX)
        {
            self.by_delay = self.by_delay.down();
        }
        self.by_owed = owed_step(self.by_owed, pressure.owed_permille);
        let to = self.step();
        (from != to).then_some(StepChange { from, to })
    }
}

/// The step for so much owed, for a shard that stands on `before`.
fn owed_step(before: Step, permille: u64) -> Step {
    let reached = |slack: u64| {
        let steps =
            LADDER_OWED_PERMILLE.iter().take_while(|threshold| permille + slack >= **threshold).count();
        Step::ALL[steps]
    };
    before.clamp(reached(0), reached(LADDER_OWED_SLACK_PERMILLE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn late(delay_ms: u64) -> Pressure {
        Pressure { delay: Duration::from_millis(delay_ms), ..Pressure::default() }
    }

    fn owed(owed_permille: u64) -> Pressure {
        Pressure { owed_permille, ..Pressure::default() }
    }

    /// The numbers of the steps it stands on after each of these intervals.
    fn weighed(ladder: &mut Ladder, intervals: impl IntoIterator<Item = Pressure>) -> Vec<u8> {
        let weigh = |pressure| {
            let before = ladder.step();
            let due = ladder.due();
            let change = ladder.weigh(pressure, due);
            let changed = (before != ladder.step()).then(|| StepChange { from: before, to: ladder.step() });
            assert_eq!(change, changed);
            ladder.step().number()
        };
        intervals.into_iter().map(weigh).collect()
    }

    fn ladder() -> Ladder {
        Ladder::new(clock::now().instant)
    }

    #[test]
    fn a_queue_that_stands_takes_it_up_a_step_an_interval_and_one_that_is_gone_down() {
        let mut ladder = ladder();
        assert_eq!(weighed(&mut ladder, [late(25); 7]), [1, 2, 3, 4, 5, 5, 5]);
        assert_eq!(weighed(&mut ladder, [late(4); 6]), [4, 3, 2, 1, 0, 0]);
    }

    /// A stall took it to the last step; what follows are bursts that do not fit the inbox.
    #[test]
    fn refusals_alone_keep_no_device_out() {
        let mut ladder = ladder();
        weighed(&mut ladder, [late(25); 5]);
        let refused = Pressure { turned_away: 5, ..Pressure::default() };
        assert_eq!(weighed(&mut ladder, [refused; 3]), [4, 4, 4]);
    }

    #[test]
    fn a_queue_in_between_changes_nothing_however_near_the_threshold() {
        let mut ladder = ladder();
        assert_eq!(weighed(&mut ladder, [24, 5, 24, 5].map(late)), [0; 4]);
        weighed(&mut ladder, [late(30), late(30)]);
        assert_eq!(weighed(&mut ladder, [24, 5, 24, 5].map(late)), [2; 4]);
    }

    #[test]
    fn publishes_that_are_refused_all_the_while_take_it_up_and_bursts_that_do_not_fit_do_not() {
        let mut ladder = ladder();
        let refused = |turned_away| Pressure { turned_away, ..Pressure::default() };
        assert_eq!(weighed(&mut ladder, [1, 2, 3, 1].map(refused)), [0; 4]);
        assert_eq!(weighed(&mut ladder, [4, 5, 4].map(refused)), [1, 2, 3]);
        assert_eq!(weighed(&mut ladder, [3, 2, 3, 0, 1].map(refused)), [3, 2, 2, 1, 0]);
    }

    #[test]
    fn a_load_that_ends_at_the_last_step_is_forgotten_within_five_seconds() {
        let mut ladder = ladder();
        weighed(&mut ladder, [Pressure { owed_permille: 1000, turned_away: 5, ..late(100) }; 5]);
        let ended = ladder.due() - LADDER_INTERVAL;
        while ladder.step() != Step::Calm {
            weighed(&mut ladder, [late(0)]);
        }
        assert!(ladder.due() - LADDER_INTERVAL - ended <= Duration::from_secs(5));
    }

    #[test]
    fn what_is_owed_takes_it_to_its_step_at_once() {
        for (permille, step) in
            [(799, 0), (800, 1), (824, 1), (825, 2), (850, 3), (875, 4), (899, 4), (900, 5), (4000, 5)]
        {
            assert_eq!(weighed(&mut ladder(), [owed(permille)]), [step], "{permille}");
        }
    }

    #[test]
    fn a_step_for_what_is_owed_is_left_five_points_below() {
        let mut ladder = ladder();
        assert_eq!(weighed(&mut ladder, [900, 850, 849, 824, 799].map(owed)), [5, 5, 4, 3, 2]);
        assert_eq!(weighed(&mut ladder, [774, 750, 749].map(owed)), [1, 1, 0]);
        assert_eq!(weighed(&mut ladder, [799, 801, 799, 801, 799].map(owed)), [0, 1, 1, 1, 1], "no flapping");
        assert_eq!(weighed(&mut ladder, [owed(900), owed(0)]), [5, 0], "all of it is gone");
    }

    #[test]
    fn the_higher_of_both_reasons_counts() {
        let mut ladder = ladder();
        assert_eq!(weighed(&mut ladder, [Pressure { owed_permille: 850, ..late(30) }]), [3]);
        assert_eq!(weighed(&mut ladder, [late(30), late(30)]), [2, 3]);
    }
}
