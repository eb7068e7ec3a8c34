//! When a room flushes. One type owns the window; whatever wants to change it passes bounds to it.

use std::time::{Duration, Instant};

use crate::config::limits::DIRECT_SPACING;

/// The flush policy of a room, as configured (`flush.*`) and overridden by `PUT /v1/rooms/{room}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushRules {
    /// How long the oldest message waits for company.
    pub gather: Duration,
    /// Messages of one batch.
    pub messages_max: usize,
    /// Bytes of one batch, as encoded.
    pub bytes_max: usize,
    /// Up to this many members a room flushes at once.
    pub direct_members: u64,
    /// Early flushes for urgent messages are at least this far apart.
    pub urgent_spacing: Duration,
}

impl Default for FlushRules {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(100),
            messages_max: 100,
            bytes_max: 32 * 1024,
            direct_members: 20,
            urgent_spacing: Duration::from_millis(20),
        }
    }
}

/// What waits in a buffer, as far as the pace is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// When the oldest message came.
    pub oldest: Instant,
    /// A whole batch waits.
    pub full: bool,
    /// An urgent message waits.
    pub urgent: bool,
}

/// The pace of one room.
#[derive(Debug, Default)]
pub struct Pace {
    rules: FlushRules,
    last_flush: Option<Instant>,
    last_early: Option<Instant>,
}

impl Pace {
    /// A pace of these rules.
    #[must_use]
    pub fn new(rules: FlushRules) -> Self {
        Self { rules, last_flush: None, last_early: None }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &FlushRules {
        &self.rules
    }

    /// Changes what `settings` names.
    pub fn configure(&mut self, settings: &RoomSettings) {
        let rules = &mut self.rules;
        rules.gather = settings.gather.unwrap_or(rules.gather);
        rules.messages_max = settings.messages_max.unwrap_or(rules.messages_max);
        rules.bytes_max = settings.bytes_max.unwrap_or(rules.bytes_max);
        rules.direct_members = settings.direct_members.unwrap_or(rules.direct_members);
        rules.urgent_spacing = settings.urgent_spacing.unwrap_or(rules.urgent_spacing);
    }

    /// How long the oldest message may wait in a room of so many members. For a room that flushes directly it is
    /// what two flushes are apart.
    #[must_use]
    pub fn window(&self, members: u64) -> Duration {
        if self.is_direct(members) { self.rules.gather.min(DIRECT_SPACING) } else { self.rules.gather }
    }

    /// When what waits has to leave. Never re-armed by later messages: it depends on the oldest alone.
    #[must_use]
    pub fn due(&self, waiting: Waiting, members: u64) -> Instant {
        let window = self.window(members);
        let by_age = match (self.is_direct(members), self.last_flush) {
            (true, Some(last)) => waiting.oldest.max(last + window),
            (true, None) => waiting.oldest,
            (false, _) => waiting.oldest + window,
        };
        if waiting.full {
            return waiting.oldest;
        }
        if waiting.urgent { by_age.min(self.early_due(waiting.oldest)) } else { by_age }
    }

    /// The first moment at which urgent messages may flush early.
    #[must_use]
    pub fn early_due(&self, since: Instant) -> Instant {
        self.last_early.map_or(since, |last| since.max(last + self.rules.urgent_spacing))
    }

    /// A batch left for its age or its size.
    pub fn flushed(&mut self, now: Instant) {
        self.last_flush = Some(now);
    }

    /// Urgent messages left early.
    pub fn flushed_early(&mut self, now: Instant) {
        self.last_early = Some(now);
    }

    fn is_direct(&self, members: u64) -> bool {
        members <= self.rules.direct_members
    }
}

/// What `PUT /v1/rooms/{room}` may change. `None` leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomSettings {
    /// How many devices the publisher expects.
    pub expected_audience: Option<u64>,
    /// How long the oldest message waits for company.
    pub gather: Option<Duration>,
    /// Messages of one batch.
    pub messages_max: Option<usize>,
    /// Bytes of one batch.
    pub bytes_max: Option<usize>,
    /// Up to this many members the room flushes at once.
    pub direct_members: Option<u64>,
    /// Early flushes for urgent messages are at least this far apart.
    pub urgent_spacing: Option<Duration>,
    /// The room closes after this long without a published message.
    pub idle_close: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;

    const MANY: u64 = 1000;

    fn waiting(oldest: Instant) -> Waiting {
        Waiting { oldest, full: false, urgent: false }
    }

    #[test]
    fn the_oldest_message_waits_for_the_window_and_no_longer() {
        let (pace, now) = (Pace::default(), Now::read().instant);
        assert_eq!(pace.due(waiting(now), MANY), now + Duration::from_millis(100));
    }

    #[test]
    fn a_small_room_flushes_at_once_and_then_keeps_its_spacing() {
        let (mut pace, now) = (Pace::default(), Now::read().instant);
        assert_eq!(pace.due(waiting(now), 20), now);
        pace.flushed(now);
        assert_eq!(pace.due(waiting(now), 20), now + DIRECT_SPACING);
        assert_eq!(pace.due(waiting(now), 21), now + Duration::from_millis(100));
    }

    #[test]
    fn a_whole_batch_waits_for_nothing() {
        let (pace, now) = (Pace::default(), Now::read().instant);
        assert_eq!(pace.due(Waiting { full: true, ..waiting(now) }, MANY), now);
    }

    #[test]
    fn urgent_messages_flush_early_but_not_more_often_than_their_spacing() {
        let (mut pace, now) = (Pace::default(), Now::read().instant);
        let urgent = Waiting { urgent: true, ..waiting(now) };
        assert_eq!(pace.due(urgent, MANY), now);
        pace.flushed_early(now);
        assert_eq!(pace.due(urgent, MANY), now + Duration::from_millis(20));
    }
}
