//! How long publishes wait in a shard's inbox, seen from the side that takes them out. Pure.
//!
//! A burst is taken in whole, however long its last message waits. A queue that stands is kept short by its way in: whoever
//! is refused at once may do something about it, and whoever waits gets an answer.

use std::time::{Duration, Instant};

use roomcast_core::limits::{INBOX_AGE_MAX, INBOX_STANDING, LADDER_DELAY_DOWN};
use roomcast_core::room::ladder::Step;

/// How much the last turn counts among those before it.
const SMOOTHING: u32 = 4;

/// What a turn took out of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Messages in all of its publishes.
    pub messages: usize,
    /// The least time that one of them had waited; `None`: there were none.
    pub least: Option<Duration>,
}

/// What is known of an inbox.
#[derive(Debug, Default)]
pub struct Queue {
    /// The least time that a publish has waited since this was last asked; zero if it was empty.
    least: Option<Duration>,
    /// Since when each publish has waited too long.
    standing_since: Option<Instant>,
    is_standing: bool,
    /// The turn before, unless it left nothing behind.
    turn: Option<(Instant, usize)>,
    /// When a refusal was last counted, and how many were since this was last asked.
    refused_at: Option<Instant>,
    turned_away: u32,
    /// What one message takes before the next is taken, whatever else the shard does meanwhile, smoothed.
    per_message: Option<Duration>,
}

impl Queue {
    /// A turn that began at `now` took this; `left`: what it left behind.
    pub fn took(&mut self, taken: Taken, left: Left, now: Instant) {
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
                // Nothing was measured: what was before counts less and less, so that a slow moment keeps nobody out for long.
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
        // Once the doors hold to it, the queue has just the length at which they would let go.
        let bound = if self.is_standing { LADDER_DELAY_DOWN } else { INBOX_AGE_MAX };
        if waited < bound {
            (self.standing_since, self.is_standing) = (None, false);
            return;
        }
        let since = *self.standing_since.get_or_insert(now);
        self.is_standing |= now.saturating_duration_since(since) >= INBOX_STANDING;
    }

    /// What one message takes, while a queue stands or the shard is on a step of its ladder: the doors are to keep the queue
    /// short. `None`: they need not.
    #[must_use]
    pub fn per_message_to_keep(&self, step: Step) -> Option<Duration> {
        self.per_message.filter(|_| self.is_standing || step > Step::Calm)
    }

    /// Publishes were refused lately. Counted once in `INBOX_STANDING`: what matters is for how long, not how many.
    pub fn turned_away(&mut self, now: Instant) {
        if self.refused_at.is_none_or(|at| now.saturating_duration_since(at) >= INBOX_STANDING) {
            self.refused_at = Some(now);
            self.turned_away += 1;
        }
    }

    /// How often refusals were counted since this was last asked.
    pub fn take_turned_away(&mut self) -> u32 {
        std::mem::take(&mut self.turned_away)
    }

    /// The least time that a publish waited since this was last asked.
    pub fn take_least(&mut self) -> Duration {
        self.least.take().unwrap_or(Duration::ZERO)
    }
}

/// What a turn left in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It was empty then.
    Nothing,
    /// More waits.
    Some,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    fn taken(messages: usize, waited_ms: u32) -> Taken {
        Taken { messages, least: Some(MS * waited_ms) }
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
        let (mut queue, now) = (Queue::default(), clock::now().instant);
        for waited in [40, 30, 50] {
            queue.took(taken(1, waited), Left::Some, now);
        }
        assert_eq!(queue.take_least(), MS * 30);
        queue.took(taken(1, 40), Left::Nothing, now);
        queue.took(taken(1, 40), Left::Some, now);
        assert_eq!(queue.take_least(), Duration::ZERO, "it was empty in between");
        queue.took(Taken::default(), Left::Nothing, now);
        assert_eq!(queue.take_least(), Duration::ZERO);
    }

    #[test]
    fn refusals_are_counted_by_how_long_they_last() {
        let (mut queue, now) = (Queue::default(), clock::now().instant);
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
        let (mut queue, now) = (Queue::default(), clock::now().instant);
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
        let (mut queue, now) = (Queue::default(), clock::now().instant);
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
        let (mut queue, now) = (Queue::default(), clock::now().instant);
        let now = turns(&mut queue, now, 60, 20);
        assert!(queue.per_message_to_keep(Step::Calm).is_some());
        queue.took(Taken::default(), Left::Nothing, now);
        assert_eq!(queue.per_message_to_keep(Step::Calm), None);
    }

    #[test]
    fn on_a_step_the_queue_is_kept_short_even_if_it_is_empty_at_times() {
        let (mut queue, now) = (Queue::default(), clock::now().instant);
        assert_eq!(queue.per_message_to_keep(Step::LossyOff), None, "nothing was measured");
        let now = turns(&mut queue, now, 10, 20);
        assert_eq!(
            [Step::Calm, Step::LossyOff].map(|step| queue.per_message_to_keep(step)),
            [None, Some(MS)]
        );
        queue.took(taken(10, 10), Left::Nothing, now);
        assert_eq!(queue.per_message_to_keep(Step::LossyOff), Some(MS * 3 / 4));
        for _ in 0..50 {
            queue.took(Taken::default(), Left::Nothing, now);
        }
        assert!(queue.per_message_to_keep(Step::LossyOff).unwrap() < MS / 1000, "it was long ago");
    }

    #[test]
    fn the_time_per_message_follows_the_shard() {
        let (mut queue, mut now) = (Queue::default(), clock::now().instant);
        now = turns(&mut queue, now, 60, 20);
        for _ in 0..40 {
            now += MS * 40;
            queue.took(taken(10, 60), Left::Some, now);
        }
        let per_message = queue.per_message_to_keep(Step::Calm).unwrap();
        assert!(per_message > MS * 39 / 10 && per_message <= MS * 4, "{per_message:?}");
    }
}
