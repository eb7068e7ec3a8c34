//! The wait of publishes in a shard's inbox, seen from the side that takes publishes out. Pure.
//!
//! A burst is taken in whole, however long the last message waits. A standing queue is kept short at the way
//! in: a publisher that is refused at once can react, and a publisher that waits gets an answer.

use std::time::{Duration, Instant};

use roomcast_core::limits::{INBOX_AGE_MAX, INBOX_STANDING, LADDER_DELAY_DOWN};
use roomcast_core::room::ladder::Step;

/// Weight of earlier turns: the last one counts for a quarter.
const SMOOTHING: u32 = 4;

/// The publishes of the inbox in one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct InboxTaken {
    /// Messages in all publishes of the turn.
    pub(super) messages: usize,
    /// The least wait of a publish; `None`: the turn took none.
    pub(super) least: Option<Duration>,
}

/// Measurements of an inbox.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The least wait of a publish since `take_least`; zero if the inbox was empty meanwhile.
    least: Option<Duration>,
    /// Moment from which on every publish has waited too long.
    standing_since: Option<Instant>,
    is_standing: bool,
    /// The turn before: its beginning and its messages. `None` if nothing was left behind.
    turn: Option<(Instant, usize)>,
    /// Moment of the last counted refusal.
    refused_at: Option<Instant>,
    /// Counted refusals since `take_turned_away`.
    turned_away: u32,
    /// Time from one message to the next, with all other work of the shard between them, smoothed.
    per_message: Option<Duration>,
}

impl Queue {
    /// Notes a turn that began at `now`, and the publishes that it left behind.
    pub(super) fn took(&mut self, taken: InboxTaken, left: Left, now: Instant) {
        if let Some((before, messages)) = self.turn.take() {
            let took =
                now.saturating_duration_since(before) / u32::try_from(messages).unwrap_or(u32::MAX).max(1);
            let per_message = self
                .per_message
                .map_or(took, |per_message| (per_message * (SMOOTHING - 1) + took) / SMOOTHING);
            self.per_message = Some(per_message);
        }
        let waited = match left {
            Left::Nothing => {
                // An empty inbox measures nothing. The earlier time fades, so that a slow moment keeps nobody
                // out for long.
                self.per_message =
                    self.per_message.map(|per_message| per_message * (SMOOTHING - 1) / SMOOTHING);
                Duration::ZERO
            }
            Left::Some => {
                self.turn = (taken.messages > 0).then_some((now, taken.messages));
                taken.least.unwrap_or(Duration::ZERO)
            }
        };
        self.least = Some(self.least.map_or(waited, |least| least.min(waited)));
        self.judge(waited, now);
    }

    fn judge(&mut self, waited: Duration, now: Instant) {
        // Two bounds: while the doors keep the queue short, its wait is just at the upper one.
        let bound = if self.is_standing { LADDER_DELAY_DOWN } else { INBOX_AGE_MAX };
        if waited < bound {
            self.standing_since = None;
            self.is_standing = false;
            return;
        }
        let since = *self.standing_since.get_or_insert(now);
        self.is_standing |= now.saturating_duration_since(since) >= INBOX_STANDING;
    }

    /// Time per message for the doors to keep the queue short by, while a queue stands or the shard is on a
    /// step of its ladder. `None`: the doors let in what fits.
    pub(super) fn per_message_to_keep(&self, step: Step) -> Option<Duration> {
        self.per_message.filter(|_| self.is_standing || step > Step::Calm)
    }

    /// Notes that publishes were refused. Counted once per `INBOX_STANDING`: the duration matters, not the
    /// number.
    pub(super) fn turned_away(&mut self, now: Instant) {
        if self.refused_at.is_none_or(|at| now.saturating_duration_since(at) >= INBOX_STANDING) {
            self.refused_at = Some(now);
            self.turned_away += 1;
        }
    }

    /// Counted refusals since the last call.
    pub(super) fn take_turned_away(&mut self) -> u32 {
        std::mem::take(&mut self.turned_away)
    }

    /// The least wait of a publish since the last call.
    pub(super) fn take_least(&mut self) -> Duration {
        self.least.take().unwrap_or(Duration::ZERO)
    }
}

/// The state of the inbox after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The inbox was empty.
    Nothing,
    /// More publishes wait.
    Some,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    fn taken(messages: usize, waited_ms: u32) -> InboxTaken {
        InboxTaken { messages, least: Some(MS * waited_ms) }
    }

    /// Turns 10 ms apart from `from` on, each of which takes ten messages that have waited so long.
    fn turns(queue: &mut Queue, from: Instant, waited_ms: u32, count: u32) -> Instant {
        for turn in 0..count {
            queue.took(taken(10, waited_ms), Left::Some, from + MS * 10 * turn);
        }
        from + MS * 10 * count
    }

    #[test]
    fn the_least_of_an_interval_is_what_stands() {
        let mut queue = Queue::default();
        let now = clock::now().instant;
        for waited in [40, 30, 50] {
            queue.took(taken(1, waited), Left::Some, now);
        }
        assert_eq!(queue.take_least(), MS * 30);
        queue.took(taken(1, 40), Left::Nothing, now);
        queue.took(taken(1, 40), Left::Some, now);
        assert_eq!(queue.take_least(), Duration::ZERO, "it was empty in between");
        queue.took(InboxTaken::default(), Left::Nothing, now);
        assert_eq!(queue.take_least(), Duration::ZERO);
    }

    #[test]
    fn refusals_are_counted_by_how_long_they_last() {
        let mut queue = Queue::default();
        let now = clock::now().instant;
        (0..500).for_each(|ms| queue.turned_away(now + MS * ms));
        assert_eq!(queue.take_turned_away(), 5);
        (500..1000).step_by(30).for_each(|ms| queue.turned_away(now + MS * ms));
        assert!((4..=5).contains(&queue.take_turned_away()), "whenever the shard happens to look");
        (1500..1599).for_each(|ms| queue.turned_away(now + MS * ms));
        assert_eq!(queue.take_turned_away(), 1, "a burst");
        assert_eq!(queue.take_turned_away(), 0);
    }

    #[test]
    fn a_burst_is_no_standing_queue() {
        let mut queue = Queue::default();
        let now = clock::now().instant;
        let now = turns(&mut queue, now, 60, 10);
        assert_eq!(queue.per_message_to_keep(Step::Calm), None, "not for long enough");
        queue.took(taken(10, 60), Left::Nothing, now);
        turns(&mut queue, now, 60, 10);
        assert_eq!(queue.per_message_to_keep(Step::Calm), None, "it was empty in between");
        let mut queue = Queue::default();
        turns(&mut queue, now, 24, 100);
        assert_eq!(queue.per_message_to_keep(Step::Calm), None, "it stands, and nobody waits long");
    }

    #[test]
    fn a_standing_queue_is_known_by_its_time_per_message_until_it_is_short() {
        let mut queue = Queue::default();
        let now = clock::now().instant;
        let now = turns(&mut queue, now, 60, 11);
        assert_eq!(queue.per_message_to_keep(Step::Calm), Some(MS), "ten messages in ten milliseconds");
        let now = turns(&mut queue, now, 5, 50);
        assert_eq!(queue.per_message_to_keep(Step::Calm), Some(MS), "the doors keep it short");
        let now = turns(&mut queue, now, 4, 1);
        assert_eq!(queue.per_message_to_keep(Step::Calm), None);
        turns(&mut queue, now, 60, 10);
        assert_eq!(queue.per_message_to_keep(Step::Calm), None, "it has to stand anew");
    }

    #[test]
    fn an_inbox_that_is_empty_stands_no_more_whatever_it_was() {
        let mut queue = Queue::default();
        let now = clock::now().instant;
        let now = turns(&mut queue, now, 60, 20);
        assert!(queue.per_message_to_keep(Step::Calm).is_some());
        queue.took(InboxTaken::default(), Left::Nothing, now);
        assert_eq!(queue.per_message_to_keep(Step::Calm), None);
    }

    #[test]
    fn on_a_step_the_queue_is_kept_short_even_if_it_is_empty_at_times() {
        let mut queue = Queue::default();
        let now = clock::now().instant;
        assert_eq!(queue.per_message_to_keep(Step::LossyOff), None, "nothing was measured");
        let now = turns(&mut queue, now, 10, 20);
        assert_eq!(
            [Step::Calm, Step::LossyOff].map(|step| queue.per_message_to_keep(step)),
            [None, Some(MS)]
        );
        queue.took(taken(10, 10), Left::Nothing, now);
        assert_eq!(queue.per_message_to_keep(Step::LossyOff), Some(MS * 3 / 4));
        for _ in 0..50 {
            queue.took(InboxTaken::default(), Left::Nothing, now);
        }
        assert!(queue.per_message_to_keep(Step::LossyOff).unwrap() < MS / 1000, "it was long ago");
    }

    #[test]
    fn the_time_per_message_follows_the_shard() {
        let mut queue = Queue::default();
        let mut now = clock::now().instant;
        now = turns(&mut queue, now, 60, 20);
        for _ in 0..40 {
            now += MS * 40;
            queue.took(taken(10, 60), Left::Some, now);
        }
        let per_message = queue.per_message_to_keep(Step::Calm).unwrap();
        assert!(per_message > MS * 39 / 10 && per_message <= MS * 4, "{per_message:?}");
    }
}
