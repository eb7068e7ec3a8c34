//! The life of a room: the last uses, and the moments of tidying, closing and dropping.

use std::time::{Duration, Instant};

use crate::limits::{HISTORY_AGE_MAX, ROOM_IDLE};

/// The time between two looks for outdated state.
const TIDY_INTERVAL: Duration = HISTORY_AGE_MAX;

/// The uses and the end of a room.
#[derive(Debug)]
pub(super) struct Life {
    /// True once a publisher has published, recalled a message or configured the room.
    pub(super) is_published: bool,
    /// The last use by a publisher.
    last_published: Instant,
    /// The last use by a publisher or a device.
    pub(super) last_used: Instant,
    /// The time without a publish after which the room closes; `None`: the room stays open.
    pub(super) idle_close: Option<Duration>,
    /// The next look for outdated state; `None` while nothing in the room ages.
    pub(super) tidy_due: Option<Instant>,
    pub(super) end: End,
    /// The right to order is in doubt: nothing is cut, and publishes are refused.
    pub(super) is_frozen: bool,
    /// The room is handed over, or was and waits for its stream: nothing is cut, and publishes are refused or wait.
    pub(super) is_paused: bool,
}

/// The room's way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Open,
    /// The room closes with this input.
    Closing,
    /// The members are told. Publishers may still wait for the store's answers.
    Closed,
}

impl Life {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_published: false,
            last_published: now,
            last_used: now,
            idle_close: None,
            tidy_due: None,
            end: End::Open,
            is_frozen: false,
            is_paused: false,
        }
    }

    /// Notes a publish, a recall or a `PUT`.
    pub(super) fn used_by_publisher(&mut self, now: Instant) {
        self.last_published = now;
        self.last_used = now;
        self.is_published = true;
        self.holds_what_ages(now);
    }

    /// Schedules a look for outdated state, unless a look is scheduled.
    pub(super) fn holds_what_ages(&mut self, now: Instant) {
        self.tidy_due.get_or_insert(now + TIDY_INTERVAL);
    }

    /// The moment at which the room closes for want of publishes.
    pub(super) fn close_due(&self) -> Option<Instant> {
        Some(self.last_published + self.idle_close?)
    }

    /// The moment from which on an empty room may be dropped.
    pub(super) fn drop_due(&self) -> Instant {
        self.last_used + ROOM_IDLE
    }
}
