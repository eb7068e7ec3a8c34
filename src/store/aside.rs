//! Rooms put aside: calls for their streams failed again and again. Each room is tried again after a pause, and
//! all other rooms go on.
//!
//! Loads, pages and writes of a room count apart: each reads other pages of the file, so the success of a page
//! says nothing about a load. Pure: no lock, no clock. A failed call of a room says nothing about other rooms.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roomcast_core::limits::{
    STORE_ASIDE_AFTER, STORE_ASIDE_FORGET, STORE_ASIDE_LISTED_MAX, STORE_ASIDE_PAUSE_MAX,
    STORE_ASIDE_PAUSE_MIN, STORE_ASIDE_ROOMS_MAX,
};
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

/// A room that is put aside, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomAside {
    /// The room.
    pub room: RoomName,
    /// The time of the first failed call.
    pub since: Now,
    /// The error of the last failed call.
    pub why: String,
}

/// The sort of a call for a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RoomCall {
    Load,
    Page,
    /// An append, or the removal of the stream.
    Write,
}

/// The trust in the next call for a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Well,
    /// The last calls failed. The next one may be made, but not together with other rooms.
    Suspect,
    /// No call is made before the end of a pause.
    Aside,
}

/// The failed calls of rooms, at most `STORE_ASIDE_ROOMS_MAX` entries.
#[derive(Debug, Default)]
pub(super) struct Aside(BTreeMap<(RoomName, RoomCall), FailedRoom>);

#[derive(Debug)]
struct FailedRoom {
    /// Failures in a row.
    failures: u32,
    since: Now,
    why: String,
    /// The first moment of the next call, for a room aside. Else the moment of the last failure.
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
    pub(super) fn standing(&self, room: &RoomName, call: RoomCall, now: Instant) -> Standing {
        // Nearly always: a store without damage pays for no copy of a name.
        if self.0.is_empty() {
            return Standing::Well;
        }
        match self.0.get(&(room.clone(), call)) {
            None => Standing::Well,
            Some(failed) if failed.is_aside() && failed.again > now => Standing::Aside,
            Some(_) => Standing::Suspect,
        }
    }

    /// Notes a failed call. Returns true if the room is put aside now.
    pub(super) fn failed(&mut self, room: &RoomName, call: RoomCall, why: &str, now: Now) -> bool {
        self.forget_old(now.instant);
        let key = (room.clone(), call);
        if self.0.len() >= STORE_ASIDE_ROOMS_MAX && !self.0.contains_key(&key) && !self.make_room() {
            return false;
        }
        let failed = self.0.entry(key).or_insert_with(|| FailedRoom {
            failures: 0,
            since: now,
            why: String::new(),
            again: now.instant,
            pause: STORE_ASIDE_PAUSE_MIN,
        });
        let was_aside = failed.is_aside();
        failed.failures = failed.failures.saturating_add(1);
        why.clone_into(&mut failed.why);
        failed.again = now.instant;
        if failed.is_aside() {
            failed.again = now.instant + failed.pause;
            failed.pause = (failed.pause * 2).min(STORE_ASIDE_PAUSE_MAX);
        }
        failed.is_aside() && !was_aside
    }

    /// Takes the oldest entry of a room that is not aside from a full list: rooms that failed once must not keep
    /// a damaged room off the list. False: all are aside. Further rooms are then tried each time they are asked
    /// for; a disk with so much damage is known by the rooms on the list.
    fn make_room(&mut self) -> bool {
        let not_aside = self.0.iter().filter(|(_, failed)| !failed.is_aside());
        let oldest = not_aside.min_by_key(|(_, failed)| failed.again).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.0.remove(&key).is_some())
    }

    /// Notes a call that succeeded. Returns true if the room was aside for calls of this sort.
    pub(super) fn succeeded(&mut self, room: &RoomName, call: RoomCall) -> bool {
        if self.0.is_empty() {
            return false;
        }
        self.0.remove(&(room.clone(), call)).is_some_and(|failed| failed.is_aside())
    }

    /// The first entry of each room aside, in order of name.
    fn each_room(&self) -> impl Iterator<Item = (&RoomName, &FailedRoom)> {
        let aside = self.0.iter().filter(|(_, failed)| failed.is_aside());
        let mut last = None;
        aside
            .map(|((room, _), failed)| (room, failed))
            .filter(move |(room, _)| last.replace(*room) != Some(*room))
    }

    /// The rooms aside, each once, in order of name: the first `STORE_ASIDE_LISTED_MAX`.
    pub(super) fn rooms(&self) -> Vec<RoomAside> {
        let rooms = self.each_room().take(STORE_ASIDE_LISTED_MAX);
        let told = |(room, failed): (&RoomName, &FailedRoom)| RoomAside {
            room: room.clone(),
            since: failed.since,
            why: failed.why.clone(),
        };
        rooms.map(told).collect()
    }

    /// The number of rooms aside.
    pub(super) fn count(&self) -> usize {
        self.each_room().count()
    }

    /// Lets go of rooms that nobody has asked for since.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.0.retain(|_, failed| now.saturating_duration_since(failed.again) < STORE_ASIDE_FORGET);
    }
}

#[cfg(test)]
mod tests {
    use super::RoomCall::{Load, Page, Write};
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
            assert!(!aside.failed(&a, Load, "damaged", now));
            assert_eq!(aside.standing(&a, Load, now.instant), Standing::Suspect);
        }
        assert!(aside.failed(&a, Load, "damaged", now));
        assert_eq!(aside.standing(&a, Load, now.instant), Standing::Aside);
        assert_eq!(aside.standing(&room("b"), Load, now.instant), Standing::Well);
        let mut later = now.later(STORE_ASIDE_PAUSE_MIN);
        assert_eq!(aside.standing(&a, Load, later.instant), Standing::Suspect);
        assert!(!aside.failed(&a, Load, "still damaged", later), "it was told");
        later = later.later(STORE_ASIDE_PAUSE_MIN);
        assert_eq!(aside.standing(&a, Load, later.instant), Standing::Aside, "the pause has doubled");
        let told = [RoomAside { room: a.clone(), since: now, why: "still damaged".into() }];
        assert_eq!(aside.rooms(), told);
        assert!(aside.succeeded(&a, Load) && aside.rooms().is_empty());
        assert!(!aside.succeeded(&a, Load));
    }

    #[test]
    fn the_list_is_bounded_and_forgets_rooms_that_nobody_asks_for() {
        let mut aside = Aside::default();
        let now = crate::clock::now();
        for number in 0..STORE_ASIDE_ROOMS_MAX + 3 {
            for _ in 0..STORE_ASIDE_AFTER {
                aside.failed(&room(&number.to_string()), Load, "damaged", now);
            }
        }
        assert_eq!([aside.count(), aside.rooms().len()], [STORE_ASIDE_ROOMS_MAX, STORE_ASIDE_LISTED_MAX]);
        aside.forget_old(now.instant + STORE_ASIDE_FORGET + STORE_ASIDE_PAUSE_MIN);
        assert!(aside.rooms().is_empty());
    }

    #[test]
    fn a_page_that_succeeds_does_not_bring_back_a_room_that_can_not_be_loaded() {
        let mut aside = Aside::default();
        let now = crate::clock::now();
        let a = room("a");
        for number in 1..=STORE_ASIDE_AFTER {
            assert_eq!(aside.failed(&a, Load, "damaged", now), number == STORE_ASIDE_AFTER);
            aside.failed(&a, Write, "damaged", now);
            assert!(!aside.succeeded(&a, Page));
        }
        assert_eq!(aside.rooms().len(), 1, "a room is named once");
        assert!(aside.succeeded(&a, Load) && !aside.rooms().is_empty(), "its writes fail still");
        assert!(aside.succeeded(&a, Write) && aside.rooms().is_empty());
    }

    #[test]
    fn rooms_that_failed_once_give_way_to_a_room_that_fails_again_and_again() {
        let mut aside = Aside::default();
        let mut now = crate::clock::now();
        for number in 0..STORE_ASIDE_ROOMS_MAX {
            now = now.later(Duration::from_millis(1));
            aside.failed(&room(&number.to_string()), Load, "an error", now);
        }
        for number in 1..=STORE_ASIDE_AFTER {
            assert_eq!(aside.failed(&room("a"), Load, "damaged", now), number == STORE_ASIDE_AFTER);
        }
        assert_eq!(aside.rooms().len(), 1);
        assert_eq!(aside.0.len(), STORE_ASIDE_ROOMS_MAX);
        assert_eq!(aside.standing(&room("0"), Load, now.instant), Standing::Well, "the oldest has gone");
        assert_eq!(aside.standing(&room("1"), Load, now.instant), Standing::Suspect);
    }
}
