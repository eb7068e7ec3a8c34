//! Places that connections share by address: those of a door, and those of its pages.
//!
//! Everybody gets a place while one is free: carriers put thousands of phones behind one address. At full
//! places, the address that holds most gives way first, by its longest silent connection. A half-open
//! connection of that address has [`HALF_OPEN_GRACE`]. All other connections have [`FULL_DOOR_GRACE`] to stir.
//! A connection that is asked to go looks at its socket first, and stays if its request is there.
//!
//! Example: a flood of silent connections from one address takes all 1 024 places. A device of another
//! address comes: the flood holds 1 024 places, the device's address would hold one. So the flood's oldest
//! connection closes. A flood of 2 000 connections a second has its oldest half a second ago, and the device
//! does not wait.
//!
//! A newcomer whose own address holds most is not turned away: the address may be a carrier's. It stands
//! *aside*, where it holds up nobody, and takes a place that no other newcomer waits for. After
//! [`FULL_DOOR_GRACE`] aside it waits like the others.
//!
//! This file knows the address of a connection, and the moment since which the door waits for the peer. The
//! content of requests must stay unknown here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::seat::{Address, Seat};
use roomcast_core::limits::{FULL_DOOR_GRACE, HALF_OPEN_GRACE, PLACES_PER_ASIDE};

use super::paced::Pulse;

/// Time after which another connection is asked, if the one that was asked stays.
const ASKED_WAIT: Duration = Duration::from_millis(10);

/// Time between two tries of a newcomer aside. It stands in no line: a place that is given back goes to the
/// others first.
const ASIDE_PAUSE: Duration = Duration::from_millis(20);

/// Time between two looks at all holders by a newcomer aside. Hundreds may stand there, and a look takes the lock
/// that the door's loop needs.
const ASIDE_LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Longest wait for a descriptor: other connections have had [`FULL_DOOR_GRACE`] to stir, and the time to go.
const DESCRIPTOR_PATIENCE: Duration = FULL_DOOR_GRACE.saturating_mul(2);

/// The places of a door, or of its pages. A clone shares the same places.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    /// Newcomers that may still stand aside.
    aside: Arc<Semaphore>,
    holders: Arc<Mutex<Holders>>,
}

/// The outcome of a search for a place at a door.
#[derive(Debug)]
pub(super) enum Search {
    /// The place.
    Found(Place),
    /// The newcomer's address holds most, and others may stand behind the newcomer.
    Aside,
}

/// One connection's place. Dropping the place gives it back.
#[derive(Debug)]
pub(in crate::http) struct Place {
    key: u64,
    holders: Arc<Mutex<Holders>>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Holders {
    /// Key of a place -> the connection in the place. Keys rise in the order of arrival.
    all: BTreeMap<u64, Holder>,
    /// Address -> its places. Invariant: the count over `all`, without entries of 0.
    by_address: BTreeMap<Address, usize>,
    /// Places taken so far, which is the key of the last one.
    taken: u64,
}

#[derive(Debug)]
struct Holder {
    /// `None`: a trusted proxy has not named the address yet. Such places count for nobody.
    address: Option<Address>,
    pulse: Arc<Pulse>,
}

/// Result of a search for a connection that gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Yielding {
    /// A connection was asked to go.
    Asked,
    /// Nobody has to go before this time is over.
    Later(Duration),
    /// The newcomer's own address holds most, and none of its connections has to go before this time is over.
    HoldsMost(Duration),
}

impl Places {
    /// `places_max` places, all free.
    pub(crate) fn new(places_max: usize) -> Self {
        let free = Arc::new(Semaphore::new(places_max));
        let aside = Arc::new(Semaphore::new(places_max.div_ceil(PLACES_PER_ASIDE)));
        Self { free, aside, holders: Arc::default() }
    }

    /// Waits for a place for a connection from `address`. [`Search::Aside`]: the address holds most places, all
    /// of them in use, and others stand in line behind the connection, which is to [`Self::take_aside`].
    ///
    /// Cancel safe: nothing is taken before the return.
    pub(super) async fn take(&self, address: Option<Address>, pulse: Arc<Pulse>) -> Search {
        let permit = loop {
            // The usual case, without a look at the holders and without a timer.
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                break permit;
            }
            let wait = match self.look(address, clock::now().instant) {
                Yielding::Later(wait) => wait,
                // An accept loop takes one connection after the other, so a wait here is everybody's wait.
                Yielding::HoldsMost(wait) if wait > HALF_OPEN_GRACE && self.has_rivals() => {
                    return Search::Aside;
                }
                Yielding::HoldsMost(wait) => wait,
                Yielding::Asked => ASKED_WAIT,
            };
            if let Ok(Ok(permit)) = timeout(wait, Arc::clone(&self.free).acquire_owned()).await {
                break permit;
            }
        };
        Search::Found(self.settle(address, pulse, permit))
    }

    /// Waits until `take` finds a descriptor for a connection from `address`, while connections in these places
    /// give way as for a place. `None`: the others hold too few descriptors for that, or go too late.
    ///
    /// Cancel safe: nothing is taken before the return.
    pub(super) async fn spare(
        &self,
        address: Option<Address>,
        take: impl Fn() -> Option<Seat>,
    ) -> Option<Seat> {
        let began = clock::now().instant;
        loop {
            // The usual case, without a look at the holders and without a timer.
            if let Some(descriptor) = take() {
                return Some(descriptor);
            }
            let now = clock::now().instant;
            let wait = match self.look(address, now) {
                // The connection holds a descriptor that nobody can spare, and would hold it aside.
                Yielding::HoldsMost(wait) if wait > HALF_OPEN_GRACE && self.has_rivals() => return None,
                Yielding::HoldsMost(wait) | Yielding::Later(wait) => wait.min(ASIDE_PAUSE),
                Yielding::Asked => ASKED_WAIT,
            };
            let is_alone = self.holders.lock().all.is_empty();
            if is_alone || now.saturating_duration_since(began) >= DESCRIPTOR_PATIENCE {
                return None;
            }
            // A descriptor tells nobody that it is free.
            sleep(wait).await;
        }
    }

    /// Waits aside for at most `patience`. `None` at once if too many stand aside.
    ///
    /// Cancel safe: nothing is taken before the return.
    pub(super) async fn take_aside(
        &self,
        address: Option<Address>,
        pulse: Arc<Pulse>,
        patience: Duration,
    ) -> Option<Place> {
        let _aside = self.aside.try_acquire().ok()?;
        let began = clock::now().instant;
        // Who did nothing until then would have to make room for anybody.
        let mut look_at = began + FULL_DOOR_GRACE;
        loop {
            sleep(ASIDE_PAUSE).await;
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return Some(self.settle(address, pulse, permit));
            }
            let now = clock::now().instant;
            if now.saturating_duration_since(began) >= patience {
                return None;
            }
            if now >= look_at {
                self.look(None, now);
                look_at = now + ASIDE_LOOK_PAUSE;
            }
        }
    }

    /// Waits for a place for at most `patience`. `None` at once if the newcomer's own address holds most
    /// places and too many of it wait.
    ///
    /// Cancel safe: nothing is taken before the return.
    pub(in crate::http) async fn take_within(
        &self,
        address: Option<Address>,
        pulse: Arc<Pulse>,
        patience: Duration,
    ) -> Option<Place> {
        let deadline = clock::now().instant + patience;
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                break permit;
            }
            let now = clock::now().instant;
            let wait = match self.look(address, now) {
                // In line it would take turns from the others.
                Yielding::HoldsMost(_) => {
                    let patience = deadline.saturating_duration_since(now);
                    return self.take_aside(address, pulse, patience).await;
                }
                Yielding::Later(wait) => wait,
                Yielding::Asked => ASKED_WAIT,
            };
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return None;
            }
            if let Ok(Ok(permit)) = timeout(wait.min(left), Arc::clone(&self.free).acquire_owned()).await {
                break permit;
            }
        };
        Some(self.settle(address, pulse, permit))
    }

    fn settle(&self, address: Option<Address>, pulse: Arc<Pulse>, permit: OwnedSemaphorePermit) -> Place {
        let mut holders = self.holders.lock();
        holders.taken += 1;
        let key = holders.taken;
        holders.all.insert(key, Holder { address, pulse });
        holders.count(address);
        Place { key, holders: Arc::clone(&self.holders), _permit: permit }
    }

    fn has_rivals(&self) -> bool {
        self.holders.lock().by_address.len() > 1
    }

    /// Looks for a connection that gives way to a newcomer from `address`, and asks that connection to go.
    fn look(&self, address: Option<Address>, now: Instant) -> Yielding {
        self.holders.lock().look(address, now)
    }
}

impl Place {
    /// Notes the address that a trusted proxy has named.
    pub(super) fn name(&self, address: Address) {
        let mut holders = self.holders.lock();
        let named = holders.all.get_mut(&self.key).map(|holder| holder.address.replace(address));
        if let Some(former) = named {
            holders.discount(former);
            holders.count(Some(address));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut holders = self.holders.lock();
        if let Some(Holder { address, .. }) = holders.all.remove(&self.key) {
            holders.discount(address);
        }
    }
}

impl Holders {
    fn count(&mut self, address: Option<Address>) {
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
    }

    fn discount(&mut self, address: Option<Address>) {
        let Some(address) = address else { return };
        if let Some(places) = self.by_address.get_mut(&address) {
            *places -= 1;
            if *places == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// The address with most places, the newcomer's place among them.
    fn most(&self, newcomer: Option<Address>) -> Option<Address> {
        let with_newcomer = |address: Address, places: usize| places + usize::from(newcomer == Some(address));
        let most = self.by_address.iter().max_by_key(|(address, places)| with_newcomer(**address, **places));
        // An address with a single place holds no more than its due.
        most.filter(|(address, places)| with_newcomer(**address, **places) > 1).map(|(address, _)| *address)
    }

    fn look(&self, newcomer: Option<Address>, now: Instant) -> Yielding {
        let most = self.most(newcomer);
        let of_most = |holder: &Holder| most.is_some() && holder.address == most;
        // A half-open connection of that address has shown nothing that a longer wait could be for. Its rivals may
        // stand behind the newcomer in the kernel's queue, where nobody sees them.
        let is_half_open = |holder: &Holder| of_most(holder) && holder.pulse.is_half_open();
        let half_open = self.longest_silent(is_half_open);
        if let Some((since, pulse)) = half_open
            && left(HALF_OPEN_GRACE, since, now).is_zero()
        {
            pulse.asked.notify_one();
            return Yielding::Asked;
        }
        // Then the longest silent connection of the address, and after it the one of all. A newcomer whose own
        // address holds most takes no place from others.
        let is_large = newcomer.is_some() && newcomer == most;
        let of_most = self.longest_silent(of_most);
        let ripe = of_most.filter(|(since, _)| left(FULL_DOOR_GRACE, *since, now).is_zero());
        let longest = if is_large { ripe } else { ripe.or_else(|| self.longest_silent(|_| true)) };
        if let Some((since, pulse)) = longest
            && left(FULL_DOOR_GRACE, since, now).is_zero()
        {
            pulse.asked.notify_one();
            return Yielding::Asked;
        }
        // Without a candidate every connection is being answered: the door is busy, not held up, and each
        // answer frees a candidate.
        let wait = longest.map_or(FULL_DOOR_GRACE, |(since, _)| left(FULL_DOOR_GRACE, since, now));
        // The half-open one may come to the end of its shorter grace first.
        let wait = half_open.map_or(wait, |(since, _)| wait.min(left(HALF_OPEN_GRACE, since, now)));
        if is_large { Yielding::HoldsMost(wait) } else { Yielding::Later(wait) }
    }

    fn longest_silent(&self, is_candidate: impl Fn(&Holder) -> bool) -> Option<(Instant, &Arc<Pulse>)> {
        let candidates = self.all.values().filter(|holder| is_candidate(holder));
        let silent = candidates.filter_map(|holder| Some((holder.pulse.silent_since()?, &holder.pulse)));
        silent.min_by_key(|(since, _)| *since)
    }
}

fn left(grace: Duration, since: Instant, now: Instant) -> Duration {
    grace.saturating_sub(now.saturating_duration_since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse() -> Arc<Pulse> {
        Arc::new(Pulse::new(clock::now().instant))
    }

    fn address(last: u8) -> Option<Address> {
        Some(Address::of([10, 0, 0, last].into()))
    }

    /// A connection from this address, in its place.
    async fn comes(places: &Places, last: u8) -> (Place, Arc<Pulse>) {
        let pulse = pulse();
        (found(places.take(address(last), Arc::clone(&pulse)).await), pulse)
    }

    fn found(search: Search) -> Place {
        let Search::Found(place) = search else { panic!("a place") };
        place
    }

    /// The connection has sent a request, and has taken the answer.
    fn was_served(pulse: &Pulse) {
        pulse.request_began();
        pulse.request_answered(false);
        pulse.answer_taken();
    }

    async fn is_asked_to_go(pulse: &Pulse) -> bool {
        // The question itself: `gives_way` would pass over one that came at the wrong moment.
        timeout(Duration::ZERO, pulse.asked.notified()).await.is_ok()
    }

    #[tokio::test]
    async fn the_address_that_holds_most_gives_way_first() {
        let places = Places::new(3);
        let (_other, other) = comes(&places, 1).await;
        let (place, first) = comes(&places, 2).await;
        let (_second, second) = comes(&places, 2).await;
        let now = clock::now().instant;
        assert!(matches!(places.look(address(3), now), Yielding::Later(wait) if wait <= HALF_OPEN_GRACE));
        let soon = now + HALF_OPEN_GRACE;
        assert_eq!(places.look(address(3), soon), Yielding::Asked);
        assert!(is_asked_to_go(&first).await, "its longest silent one");
        assert!(!is_asked_to_go(&second).await && !is_asked_to_go(&other).await);
        drop(place);
        let (_third, _) = comes(&places, 3).await;
        // Nobody holds more than another now, so silence alone counts.
        assert!(matches!(places.look(None, soon), Yielding::Later(_)));
        assert_eq!(places.look(None, soon + FULL_DOOR_GRACE), Yielding::Asked);
        assert!(is_asked_to_go(&other).await);
    }

    #[tokio::test]
    async fn a_flood_of_one_address_makes_room_for_itself_out_of_its_own() {
        let places = Places::new(2);
        let (_honest, honest) = comes(&places, 1).await;
        let (_flood, flood) = comes(&places, 2).await;
        assert_eq!(places.look(address(2), clock::now().instant + HALF_OPEN_GRACE), Yielding::Asked);
        assert!(is_asked_to_go(&flood).await && !is_asked_to_go(&honest).await);
    }

    #[tokio::test]
    async fn an_address_alone_at_the_door_makes_room_as_well() {
        let places = Places::new(1);
        let (_flood, flood) = comes(&places, 1).await;
        let now = clock::now().instant;
        assert!(matches!(places.look(address(1), now), Yielding::HoldsMost(wait) if wait <= HALF_OPEN_GRACE));
        assert!(!is_asked_to_go(&flood).await, "its request may be on the way");
        assert_eq!(places.look(address(1), now + HALF_OPEN_GRACE), Yielding::Asked);
        assert!(is_asked_to_go(&flood).await);
    }

    #[tokio::test]
    async fn who_has_asked_before_has_its_grace_and_who_is_answered_is_not_asked() {
        let places = Places::new(3);
        let (_served, served) = comes(&places, 1).await;
        let (_asking, asking) = comes(&places, 1).await;
        let (_other, other) = comes(&places, 3).await;
        was_served(&served);
        was_served(&other);
        asking.request_began();
        let now = clock::now().instant;
        assert!(matches!(places.look(address(2), now), Yielding::Later(_)));
        assert!(matches!(places.look(address(1), now), Yielding::HoldsMost(_)));
        assert!(!is_asked_to_go(&served).await);
        assert_eq!(places.look(address(1), now + FULL_DOOR_GRACE), Yielding::Asked);
        assert!(is_asked_to_go(&served).await && !is_asked_to_go(&asking).await);
        served.request_began();
        assert!(matches!(places.look(address(1), now + FULL_DOOR_GRACE), Yielding::HoldsMost(_)));
        assert!(!is_asked_to_go(&other).await, "it holds one place and keeps it");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_gives_way_and_each_part_of_it_stirs() {
        let places = Places::new(1);
        let (_place, pulse) = comes(&places, 1).await;
        pulse.request_began();
        pulse.body_awaited();
        let now = clock::now().instant;
        assert!(matches!(places.look(address(2), now), Yielding::Later(_)), "it may be on the way");
        assert_eq!(places.look(address(2), now + FULL_DOOR_GRACE), Yielding::Asked);
        assert!(is_asked_to_go(&pulse).await);
        pulse.asked.notify_one();
        let stays = timeout(Duration::ZERO, pulse.gives_way()).await;
        assert!(stays.is_err(), "the head came between the question and the answer");
        sleep(Duration::from_millis(2)).await;
        pulse.body_part_came();
        assert!(matches!(places.look(address(2), now + FULL_DOOR_GRACE), Yielding::Later(_)));
        pulse.body_ended();
        assert!(matches!(places.look(address(2), now + FULL_DOOR_GRACE * 9), Yielding::Later(_)), "at work");
    }

    #[tokio::test]
    async fn who_takes_nothing_of_its_answer_gives_way() {
        let places = Places::new(1);
        let (_place, pulse) = comes(&places, 1).await;
        pulse.request_began();
        pulse.request_answered(false);
        let now = clock::now().instant;
        assert!(matches!(places.look(address(2), now), Yielding::Later(_)), "its answer is on the way");
        assert_eq!(places.look(address(2), now + FULL_DOOR_GRACE), Yielding::Asked);
        assert!(is_asked_to_go(&pulse).await);
    }

    #[tokio::test]
    async fn a_place_counts_for_the_address_that_a_proxy_names() {
        let places = Places::new(3);
        let unnamed = pulse();
        let proxied = found(places.take(None, Arc::clone(&unnamed)).await);
        let (_one, one) = comes(&places, 1).await;
        let (_two, _) = comes(&places, 2).await;
        let now = clock::now().instant;
        assert!(matches!(places.look(address(3), now), Yielding::Later(_)), "each holds one at most");
        proxied.name(Address::of([10, 0, 0, 1].into()));
        assert_eq!(places.look(address(3), now + HALF_OPEN_GRACE), Yielding::Asked);
        assert!(is_asked_to_go(&unnamed).await && !is_asked_to_go(&one).await);
        drop(proxied);
        assert_eq!(places.holders.lock().by_address.len(), 2);
    }

    #[tokio::test]
    async fn an_address_with_most_places_waits_aside_and_the_others_go_first() {
        let places = Places::new(4);
        let (held, busy) = comes(&places, 1).await;
        let (_more, more) = comes(&places, 1).await;
        let (_other, other) = comes(&places, 2).await;
        let (_another, another) = comes(&places, 2).await;
        for pulse in [&busy, &more, &other, &another] {
            pulse.request_began();
        }
        assert!(matches!(places.take(address(1), pulse()).await, Search::Aside), "the loop goes on");
        let long = Duration::from_secs(9);
        let large = tokio::spawn({
            let places = places.clone();
            async move { places.take_within(address(1), pulse(), long).await }
        });
        while places.aside.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(places.take_within(address(1), pulse(), long).await.is_none(), "enough stand aside");
        assert!(places.take_within(address(3), pulse(), Duration::ZERO).await.is_none());
        let small = tokio::spawn({
            let places = places.clone();
            async move { places.take_within(address(3), pulse(), long).await }
        });
        sleep(ASIDE_PAUSE * 2).await;
        drop(held);
        let small = small.await.unwrap();
        assert!(small.is_some(), "who holds least came last, and goes first");
        assert!(!large.is_finished());
        drop(small);
        assert!(large.await.unwrap().is_some(), "nobody else wants it");
        assert_eq!(places.aside.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_large_address_is_not_kept_out_by_silence_of_many() {
        let places = Places::new(3);
        let (_large, large) = comes(&places, 1).await;
        let (place, silent) = comes(&places, 2).await;
        let (_silent, _) = comes(&places, 3).await;
        large.request_began();
        let aside = places.take_aside(address(1), pulse(), FULL_DOOR_GRACE * 3);
        let asked = async {
            silent.asked.notified().await;
            drop(place);
        };
        let (place, ()) = tokio::join!(aside, asked);
        assert!(place.is_some());
    }
}
