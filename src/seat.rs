//! The node's places for connections: as many as its file descriptors allow, and shared by address once they
//! are used up.
//!
//! Every address may take a free place. Once a place was missing for an address that holds few, the places
//! are *contended* for `CONTENDED_FOR`. Then an address that holds more than there are free places gets no
//! further one, and the address that holds most is told to give way. So the last places go to addresses that
//! hold little (the dynamic threshold of Choudhury and Hahne, 1998). Example: 10 000 places, 9 000 of them
//! held by one address. While the places are contended, that address may hold 1 000 more than are free.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use roomcast_core::limits::CLOSE_LINGER;

/// Time for which places count as contended after a place was missing.
const CONTENDED_FOR: Duration = Duration::from_secs(10);
/// Shortest time between two calls to give way: the connections of a call linger for [`CLOSE_LINGER`], and hold
/// their seats until then.
const GIVE_WAY_INTERVAL: Duration = CLOSE_LINGER.saturating_add(Duration::from_millis(500));
/// Connections told to give way by one call, or a 64th of the largest share, if that is more.
const GIVE_WAY_MAX: u32 = 32;
/// Shares of the addresses. Two addresses with one share count as one; a stranger can't choose with whom,
/// since the hash has a key.
const SHARES: usize = 1 << 16;

/// The address of a peer, as places are shared: an IPv4 address, or the /64 of an IPv6 address. A provider
/// gives each of its customers a whole /64 at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    /// The address that `ip` counts for.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // The /64 in front of all IPv4 addresses belongs to nobody: 0:ffff::/32 is reserved.
            IpAddr::V4(ip) => Self(0xffff << 32 | u64::from(u32::from(ip))),
            IpAddr::V6(ip) => Self((u128::from(ip) >> 64) as u64),
        }
    }
}

/// The node's places for connections. A clone counts the same places.
#[derive(Debug, Clone)]
pub struct Seats {
    table: Arc<SeatTable>,
    seats_max: u64,
}

#[derive(Debug)]
struct SeatTable {
    taken: AtomicU64,
    /// Share -> places held. Fixed in size: a map would cost each idle device some 20 bytes more.
    held: Box<[AtomicU32]>,
    key: RandomState,
    began: Instant,
    /// The most places of one share when a place was last missing.
    most: AtomicU32,
    /// The end of the contention, and the next call to give way, in milliseconds after `began`.
    contended_until_ms: AtomicU64,
    calls_from_ms: AtomicU64,
}

/// A taken place. Dropping the seat frees the place.
#[derive(Debug)]
pub struct Seat {
    table: Arc<SeatTable>,
    share: u16,
}

/// A call to connections of one share to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveWay {
    /// The share of the address that holds most.
    pub share: u16,
    /// Number of connections that are to go, at most.
    pub connections: u32,
}

impl Seats {
    /// `seats_max` places, all free.
    #[must_use]
    pub fn new(seats_max: u64) -> Self {
        Self::with_shares(seats_max, 1)
    }

    /// `seats_max` places, all free, which addresses share.
    #[must_use]
    pub fn shared(seats_max: u64) -> Self {
        Self::with_shares(seats_max, SHARES)
    }

    fn with_shares(seats_max: u64, shares: usize) -> Self {
        let table = SeatTable {
            taken: AtomicU64::new(0),
            held: (0..shares).map(|_| AtomicU32::new(0)).collect(),
            key: RandomState::new(),
            began: clock::now().instant,
            most: AtomicU32::new(0),
            contended_until_ms: AtomicU64::new(0),
            calls_from_ms: AtomicU64::new(0),
        };
        Self { table: Arc::new(table), seats_max }
    }

    /// Takes a place. `None` if every place is taken.
    #[must_use]
    pub fn take(&self) -> Option<Seat> {
        self.take_share(0)
    }

    /// Takes a place for an address. `None` if every place is taken, or if the places are contended and the
    /// address is one of the largest.
    #[must_use]
    pub fn take_for(&self, address: Address, now: Instant) -> Option<Seat> {
        let share = self.table.share_of(address);
        if self.table.ms_at(now) < self.table.contended_until_ms.load(Ordering::Relaxed) {
            let free = self.seats_max.saturating_sub(self.taken());
            let held = self.table.held_by(share);
            if u64::from(held) > free && held.saturating_mul(2) >= self.table.most.load(Ordering::Relaxed) {
                return None;
            }
        }
        self.take_share(share)
    }

    fn take_share(&self, share: u16) -> Option<Seat> {
        // Added first and given back past the limit: two doors that ask at once cannot both take the last
        // place.
        let before = self.table.taken.fetch_add(1, Ordering::Relaxed);
        self.table.held[usize::from(share)].fetch_add(1, Ordering::Relaxed);
        let seat = Seat { table: Arc::clone(&self.table), share };
        (before < self.seats_max).then_some(seat)
    }

    /// Notes that a place was missing for `address`. Returns a call to the address that holds most, if that
    /// address holds more and none was called for `GIVE_WAY_INTERVAL`.
    #[must_use]
    pub fn missed_by(&self, address: Address, now: Instant) -> Option<GiveWay> {
        let mine = self.table.held_by(self.table.share_of(address));
        let held = self.table.held.iter().enumerate();
        let (share, most) =
            held.map(|(share, held)| (share, held.load(Ordering::Relaxed))).max_by_key(|(_, held)| *held)?;
        // Whoever holds most is refused like everybody at a full node: only a smaller holder has a claim.
        let claim = most.saturating_sub(mine + 1);
        if claim == 0 {
            return None;
        }
        let now_ms = self.table.ms_at(now);
        self.table.most.store(most, Ordering::Relaxed);
        self.table.contended_until_ms.store(now_ms + ms(CONTENDED_FOR), Ordering::Relaxed);
        let calls_from_ms = self.table.calls_from_ms.load(Ordering::Relaxed);
        let next = now_ms + ms(GIVE_WAY_INTERVAL);
        let is_first = calls_from_ms <= now_ms
            && self
                .table
                .calls_from_ms
                .compare_exchange(calls_from_ms, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        let connections = claim.div_ceil(2).min(GIVE_WAY_MAX.max(most / 64));
        is_first.then(|| GiveWay { share: u16::try_from(share).unwrap_or_default(), connections })
    }

    /// The number of places, taken or free.
    #[must_use]
    pub fn seats_max(&self) -> u64 {
        self.seats_max
    }

    /// The number of taken places. It may exceed the limit for a moment, while a refused caller gives its
    /// place back.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.table.taken.load(Ordering::Relaxed)
    }
}

impl SeatTable {
    fn share_of(&self, address: Address) -> u16 {
        let shares = self.held.len() as u64;
        u16::try_from(self.key.hash_one(address) % shares).unwrap_or_default()
    }

    fn held_by(&self, share: u16) -> u32 {
        self.held[usize::from(share)].load(Ordering::Relaxed)
    }

    fn ms_at(&self, now: Instant) -> u64 {
        ms(now.saturating_duration_since(self.began))
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Seat {
    /// The share of the connection's address.
    #[must_use]
    pub fn share(&self) -> u16 {
        self.share
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.taken.fetch_sub(1, Ordering::Relaxed);
        self.table.held[usize::from(self.share)].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::of(text.parse().unwrap())
    }

    #[test]
    fn a_64_of_ipv6_is_one_address_and_each_of_ipv4_is_one() {
        assert_eq!(address("2001:db8:1:2::1"), address("2001:db8:1:2:ffff::9"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("::1"), address("127.0.0.1"));
    }

    #[test]
    fn one_address_may_take_everything_until_another_misses_a_place() {
        let seats = Seats::shared(10);
        let now = clock::now().instant;
        let crowd = address("192.0.2.1");
        let mut held: Vec<Seat> = (0..10).map(|_| seats.take_for(crowd, now).unwrap()).collect();
        assert!(seats.take_for(crowd, now).is_none());
        assert_eq!(seats.missed_by(crowd, now), None, "it holds most itself");
        let few = address("192.0.2.2");
        assert!(seats.take_for(few, now).is_none());
        let call = seats.missed_by(few, now).unwrap();
        assert_eq!(call, GiveWay { share: held[0].share(), connections: 5 });
        assert_eq!(seats.missed_by(few, now), None, "the call is on its way");
        assert!(seats.missed_by(few, now + GIVE_WAY_INTERVAL).is_some());
        // A place that is given back is not the crowd's for now.
        held.pop();
        assert!(seats.take_for(crowd, now).is_none());
        let seat = seats.take_for(few, now);
        assert!(seat.is_some());
        drop(seat);
        let later = now + GIVE_WAY_INTERVAL + CONTENDED_FOR;
        assert!(seats.take_for(crowd, later).is_some());
        assert_eq!(seats.taken(), 9);
        drop(held);
        assert_eq!(seats.taken(), 0);
    }
}
