//! A door's places for connections. At a full door, the longest silent connection gives way to a
//! newcomer.
//!
//! This file knows the time of a connection's last answer. The content of requests must stay unknown here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::clock;
use roomcast_core::limits::FULL_DOOR_GRACE;

use super::paced::Pulse;

/// Key of a place -> the connection in the place. Keys rise in the order of arrival.
type Holders = Arc<Mutex<BTreeMap<u64, Arc<Pulse>>>>;

/// The places of one door.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    holders: Holders,
    /// Places taken so far, which is the key of the last one.
    taken: u64,
}

/// One connection's place at a door. Dropping the place gives it back.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) pulse: Arc<Pulse>,
    key: u64,
    holders: Holders,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// `places_max` places, all free.
    pub(super) fn new(places_max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places_max)), holders: Holders::default(), taken: 0 }
    }

    /// Waits for a place. At a full door, the longest silent connection gives way, after at
    /// least [`FULL_DOOR_GRACE`] of silence. So silent connections can't keep out a connection with a
    /// request.
    ///
    /// Cancel safe: nothing is taken before the return.
    pub(super) async fn take(&mut self) -> Place {
        let permit = loop {
            // The usual case, without a look at the holders and without a timer.
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                break permit;
            }
            let wait = self.ask_to_give_way(clock::now().instant);
            if let Ok(Ok(permit)) = timeout(wait, Arc::clone(&self.free).acquire_owned()).await {
                break permit;
            }
        };
        self.taken += 1;
        let pulse = Arc::new(Pulse::new(clock::now().instant));
        let mut holders = self.holders.lock();
        holders.insert(self.taken, Arc::clone(&pulse));
        Place { pulse, key: self.taken, holders: Arc::clone(&self.holders), _permit: permit }
    }

    /// Asks the longest silent connection to give way, if its grace is over. Returns the time until the next
    /// look.
    fn ask_to_give_way(&self, now: Instant) -> Duration {
        let holders = self.holders.lock();
        let silent = holders.values().filter_map(|pulse| Some((pulse.silent_since()?, pulse)));
        // Every connection is being answered: the door is busy, not held up, and each answer frees a
        // candidate.
        let Some((since, longest)) = silent.min_by_key(|(since, _)| *since) else { return FULL_DOOR_GRACE };
        let left = FULL_DOOR_GRACE.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() {
            longest.asked.notify_one();
            return FULL_DOOR_GRACE;
        }
        left
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.holders.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_asked_to_go(place: &Place) -> bool {
        // The question itself: `gives_way` would pass over one that came at the wrong moment.
        timeout(Duration::ZERO, place.pulse.asked.notified()).await.is_ok()
    }

    #[tokio::test]
    async fn who_is_silent_longest_gives_way_and_who_is_answered_does_not() {
        let mut places = Places::new(3);
        let asking = places.take().await;
        let silent = places.take().await;
        let late = places.take().await;
        asking.pulse.request_began();
        let now = clock::now().instant;
        assert!(places.ask_to_give_way(now) > Duration::ZERO);
        assert!(!is_asked_to_go(&silent).await, "it has its time to speak");
        places.ask_to_give_way(now + FULL_DOOR_GRACE);
        assert!(!is_asked_to_go(&asking).await);
        assert!(is_asked_to_go(&silent).await);
        assert!(!is_asked_to_go(&late).await);
        drop(silent);
        assert_eq!(places.take().await.key, 4);
    }

    #[tokio::test]
    async fn who_has_not_taken_its_answer_is_not_asked() {
        let mut places = Places::new(1);
        let place = places.take().await;
        place.pulse.request_began();
        place.pulse.request_answered();
        let later = clock::now().instant + FULL_DOOR_GRACE * 2;
        places.ask_to_give_way(later);
        assert!(!is_asked_to_go(&place).await, "its answer is on the way");
        place.pulse.answer_taken();
        places.ask_to_give_way(later);
        assert!(is_asked_to_go(&place).await);
    }
}
