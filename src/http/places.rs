//! A door's places: who holds one, and who gives way when all are taken and somebody waits.
//!
//! Knows when a connection last had an answer, not what it asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::clock;
use roomcast_core::limits::FULL_DOOR_GRACE;

use super::paced::Pulse;

/// The connections that hold places, in the order they came.
type Holders = Arc<Mutex<BTreeMap<u64, Arc<Pulse>>>>;

/// The places of one door.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    holders: Holders,
    taken: u64,
}

/// One of them; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    /// Where the connection that holds it stands.
    pub pulse: Arc<Pulse>,
    key: u64,
    holders: Holders,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// `places_max` places, all free.
    #[must_use]
    pub fn new(places_max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places_max)), holders: Holders::default(), taken: 0 }
    }

    /// Waits for a place. While there is none, the connection that has been without a whole request the longest gives
    /// way, once that is [`FULL_DOOR_GRACE`]: silence can't keep out those who came to say something.
    ///
    /// Cancel safe: nothing is taken before it returns.
    pub async fn take(&mut self) -> Place {
        let permit = loop {
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

    /// Asks the connection that has waited longest to give way if it has waited long enough. When to look again.
    fn ask_to_give_way(&self, now: Instant) -> Duration {
        let holders = self.holders.lock();
        let silent = holders.values().filter_map(|pulse| Some((pulse.silent_since()?, pulse)));
        let Some((since, longest)) = silent.min_by_key(|(since, _)| *since) else { return FULL_DOOR_GRACE };
        let left = FULL_DOOR_GRACE.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() {
            longest.ask_to_give_way();
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

    #[tokio::test]
    async fn who_is_silent_longest_gives_way_and_who_is_answered_does_not() {
        let mut places = Places::new(3);
        let (asking, silent, late) = (places.take().await, places.take().await, places.take().await);
        asking.pulse.request_began();
        let now = clock::now().instant;
        assert!(places.ask_to_give_way(now) > Duration::ZERO);
        assert!(!silent.pulse.is_to_give_way(), "it has its time to speak");
        places.ask_to_give_way(now + FULL_DOOR_GRACE);
        let told = [&asking, &silent, &late].map(|place| place.pulse.is_to_give_way());
        assert_eq!(told, [false, true, false]);
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
        assert!(!place.pulse.is_to_give_way(), "its answer is on the way");
        place.pulse.answer_taken();
        places.ask_to_give_way(later);
        assert!(place.pulse.is_to_give_way());
    }
}
