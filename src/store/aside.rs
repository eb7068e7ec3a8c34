//! Rooms put aside: reads of their streams failed again and again. Each room is tried again after a pause, and
//! all other rooms go on.
//!
//! Pure: no lock, no clock. A failed read of a room says nothing about other rooms. A disk that fails shows at
//! the writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roomcast_core::limits::{
    STORE_ASIDE_AFTER, STORE_ASIDE_FORGET, STORE_ASIDE_PAUSE_MAX, STORE_ASIDE_PAUSE_MIN,
    STORE_ASIDE_ROOMS_MAX,
};
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

/// A room that is put aside, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomAside {
    /// The room.
    pub room: RoomName,
    /// The time of the first failed read.
    pub since: Now,
    /// The error of the last failed read.
    pub why: String,
}

/// The rooms with failed reads, at most `STORE_ASIDE_ROOMS_MAX`.
#[derive(Debug, Default)]
pub(super) struct Aside(BTreeMap<RoomName, FailedRoom>);

#[derive(Debug)]
struct FailedRoom {
    failures: u32,
    since: Now,
    why: String,
    /// The first moment of the next read.
    again: Instant,
    /// The pause after the next failure.
    pause: Duration,
}

impl FailedRoom {
    fn is_aside(&self) -> bool {
        self.failures >= STORE_ASIDE_AFTER
    }
}

impl Aside {
    /// True if the room may be read now.
    pub(super) fn may_read(&self, room: &RoomName, now: Instant) -> bool {
        self.0.get(room).is_none_or(|failed| !failed.is_aside() || failed.again <= now)
    }

    /// Notes a failed read. Returns true if the room is put aside now.
    pub(super) fn failed(&mut self, room: &RoomName, why: &str, now: Now) -> bool {
        self.forget_old(now.instant);
        // Past the bound a room is tried each time it is asked for. A disk with so much damage is known by
        // the rooms on the list.
        if self.0.len() >= STORE_ASIDE_ROOMS_MAX && !self.0.contains_key(room) {
            return false;
        }
        let failed = self.0.entry(room.clone()).or_insert_with(|| FailedRoom {
            failures: 0,
            since: now,
            why: String::new(),
            again: now.instant,
            pause: STORE_ASIDE_PAUSE_MIN,
        });
        let was_aside = failed.is_aside();
        failed.failures = failed.failures.saturating_add(1);
        why.clone_into(&mut failed.why);
        if failed.is_aside() {
            failed.again = now.instant + failed.pause;
            failed.pause = (failed.pause * 2).min(STORE_ASIDE_PAUSE_MAX);
        }
        failed.is_aside() && !was_aside
    }

    /// Notes a read that succeeded. Returns true if the room was aside.
    pub(super) fn succeeded(&mut self, room: &RoomName) -> bool {
        self.0.remove(room).is_some_and(|failed| failed.is_aside())
    }

    /// The rooms aside, in order of name.
    pub(super) fn rooms(&self) -> Vec<RoomAside> {
        let aside = self.0.iter().filter(|(_, failed)| failed.is_aside());
        aside
            .map(|(room, failed)| RoomAside {
                room: room.clone(),
                since: failed.since,
                why: failed.why.clone(),
            })
            .collect()
    }

    /// Lets go of rooms that nobody has asked for since.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.0.retain(|_, failed| now.saturating_duration_since(failed.again) < STORE_ASIDE_FORGET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    #[test]
    fn a_room_is_put_aside_after_repeated_failures_and_tried_again_after_growing_pauses() {
        let mut aside = Aside::default();
        let now = crate::clock::now();
        let a = room("a");
        for _ in 1..STORE_ASIDE_AFTER {
            assert!(!aside.failed(&a, "damaged", now) && aside.may_read(&a, now.instant));
        }
        assert!(aside.failed(&a, "damaged", now));
        assert!(!aside.may_read(&a, now.instant) && aside.may_read(&room("b"), now.instant));
        let mut later = now.later(STORE_ASIDE_PAUSE_MIN);
        assert!(aside.may_read(&a, later.instant));
        assert!(!aside.failed(&a, "still damaged", later), "it was told");
        later = later.later(STORE_ASIDE_PAUSE_MIN);
        assert!(!aside.may_read(&a, later.instant), "the pause has doubled");
        let told = [RoomAside { room: a.clone(), since: now, why: "still damaged".into() }];
        assert_eq!(aside.rooms(), told);
        assert!(aside.succeeded(&a) && aside.rooms().is_empty());
        assert!(!aside.succeeded(&a));
    }

    #[test]
    fn the_list_is_bounded_and_forgets_rooms_that_nobody_asks_for() {
        let mut aside = Aside::default();
        let now = crate::clock::now();
        for number in 0..STORE_ASIDE_ROOMS_MAX + 3 {
            for _ in 0..STORE_ASIDE_AFTER {
                aside.failed(&room(&number.to_string()), "damaged", now);
            }
        }
        assert_eq!(aside.rooms().len(), STORE_ASIDE_ROOMS_MAX);
        aside.forget_old(now.instant + STORE_ASIDE_FORGET + STORE_ASIDE_PAUSE_MIN);
        assert!(aside.rooms().is_empty());
    }
}
