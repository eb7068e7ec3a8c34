//! A shard: one thread with its homes, its residents, and the turns that both take.
//!
//! [`Homes`] order rooms. [`Residents`] are the segments and connections that serve devices. Each owns its
//! state alone, and both speak only through the lanes (`lane`), even on one shard: another shard's homes, or
//! another node's, look the same to a segment.
//!
//! [`Shard`] owns both and waits for nothing: no task, timer, clock or runtime, generic over the socket. Its
//! driver (the shell in `run`, or a simulated world) gives connections, bytes, publishes and `now`, calls
//! [`Shard::turn`] while the shard is busy, and sleeps until [`Shard::poll_deadline`] otherwise.

pub mod board;
mod branches;
pub mod directory;
pub mod handle;
pub mod homes;
pub mod lane;
pub mod residents;

mod ask;
mod drain;
mod inbox;
mod ladder;
mod nodes;
mod plan;
mod run;
pub(crate) mod slots;
mod socket;
mod way_in;
pub(crate) mod ways;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use self::branches::Branches;
use self::homes::Homes;
use self::lane::Lanes;
pub use self::plan::Plan;
use self::residents::Residents;
use self::residents::connection::Socket;
use crate::metrics::tally::{Holdings, Tally};
use roomcast_core::limits::HAND_OVER_LOOK_INTERVAL;
use roomcast_core::now::Now;
use roomcast_core::room::id::NameKey;

/// Deliveries of one lane, control entries of one lane, and due rooms of a turn, each at most; so that no
/// source starves another.
const TURN_ENTRIES_MAX: usize = 256;

/// Pause before entries that found a lane full are sent again.
const PUMP_INTERVAL: Duration = Duration::from_millis(2);

/// Hash tables with seeds of the plan: the same order of events and the same key give the same shard.
type Table<K, V> = HashMap<K, V, ahash::RandomState>;

/// A table whose seeds nobody outside knows: viewers name rooms, and names that fall into one place of the
/// table would make each look-up a walk.
fn table<K, V>(key: NameKey) -> Table<K, V> {
    HashMap::with_hasher(ahash::RandomState::with_seeds(key.0[0], key.0[1], 3, 4))
}

/// A shard.
#[derive(Debug)]
pub struct Shard<S> {
    /// The rooms that this shard orders.
    pub homes: Homes,
    /// The segments and connections on this shard.
    pub residents: Residents<S>,
    /// The stand-ins of rooms that other nodes order. `None`: the node is alone.
    branches: Option<Branches>,
    drain: Drain,
    /// Moment to send again what found a lane full.
    pump_again: Option<Instant>,
    /// Moment to look again at rooms that settle for their hand-over.
    pack_again: Option<Instant>,
}

/// Progress of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// Nothing is taken in; rooms flush.
    Flushing,
    /// Connections are told to go.
    Farewell,
}

impl<S: Socket> Shard<S> {
    /// A shard without rooms or connections. `lanes` is its part of [`lane::mesh`].
    #[must_use]
    pub fn new(plan: Plan, lanes: Lanes, now: Instant) -> Self {
        let Lanes { homes, residents } = lanes;
        Self {
            homes: Homes::new(plan.clone(), homes),
            residents: Residents::new(plan, residents, now),
            branches: None,
            drain: Drain::No,
            pump_again: None,
            pack_again: None,
        }
    }

    /// Takes a bounded turn: entries of the lanes, due rooms, members of passes under way, connections past
    /// a deadline. True if there is more to do at once.
    pub fn turn(&mut self, now: Now) -> bool {
        self.follow_slots(now);
        // Publishes since the last turn have left batches for segments here.
        self.exchange(now);
        let mut busy = self.take_from_nodes(now);
        busy |= self.residents.take_from_lanes(now);
        busy |= self.take_from_lanes(now);
        self.exchange(now);
        busy |= match self.drain {
            Drain::Flushing => self.homes.flush_all(now),
            Drain::No | Drain::Farewell => self.homes.take_due_rooms(now),
        };
        self.pack_rooms(now);
        // Before the passes, so that a batch leaves in the turn that cut it.
        self.exchange(now);
        let nodes = self.homes.nodes.as_ref();
        busy |= self.residents.take_moves(|room| nodes.is_none_or(|nodes| nodes.has_home(room)), now);
        busy |= self.residents.take_looks(now);
        busy |= self.residents.take_metered_passes(now);
        busy |= self.residents.take_farewells(now);
        self.residents.sweep(now);
        self.residents.drop_ended(now);
        self.exchange(now);
        // Behind all that may cut.
        busy |= self.homes.say_kept(now);
        let is_stuck = self.pump_nodes(now) | self.homes.lanes.pump() | self.residents.lanes.pump();
        // A full lane empties by the other shard's doing: there is nothing to do at once, but soon.
        self.pump_again = is_stuck.then(|| now.instant + PUMP_INTERVAL);
        self.pack_again = self.homes.is_packing().then(|| now.instant + HAND_OVER_LOOK_INTERVAL);
        busy || self.residents.is_passing_somewhere()
    }

    /// The moment of the next turn, unless something happens before.
    #[must_use]
    pub fn poll_deadline(&self) -> Instant {
        let deadline = self.residents.poll_deadline();
        let look = self.branches.as_ref().and_then(Branches::poll_deadline);
        let others = [self.homes.poll_deadline(), self.pump_again, look, self.pack_again];
        others.into_iter().flatten().fold(deadline, Instant::min)
    }

    /// The shards to wake, because entries were sent to them.
    pub fn poll_wakes(&mut self) -> impl Iterator<Item = usize> {
        let homes = &mut self.homes.lanes;
        let residents = &mut self.residents.lanes;
        (0..homes.shards()).filter(|shard| homes.take_touched(*shard) | residents.take_touched(*shard))
    }

    /// Counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        let mut homes = self.homes.take_tally();
        if let Some(branches) = &mut self.branches {
            homes.rooms.stale_words += std::mem::take(&mut branches.stale);
        }
        Tally { homes, ..std::mem::take(&mut self.residents.tally) }
    }

    /// Present holdings. Walks rooms and waiting connections: for a gauge once a second, not for a turn.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        self.homes.hold(self.residents.holdings())
    }

    /// Begins to drain: nothing is taken in any more, and rooms flush what waits in them.
    pub fn drain(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Flushing;
            self.homes.take_no_more();
        }
    }

    /// True if all that waited has left: the rooms are empty, the lanes quiet, and no pass is under
    /// way.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.homes.is_flushed() && self.residents.is_flushed()
    }

    /// Says goodbye to every connection, a turn's worth at a time.
    pub fn bid_farewell(&mut self) {
        if self.drain != Drain::Farewell {
            self.drain = Drain::Farewell;
            self.homes.take_no_more();
            self.residents.bid_farewell();
        }
    }

    /// Asserts what every turn keeps; for the simulated world.
    pub fn check_invariants(&self) {
        self.homes.check_invariants();
        self.residents.check_invariants();
    }

    /// Takes a turn's worth of entries off each control lane. True if more are there.
    fn take_from_lanes(&mut self, now: Now) -> bool {
        let mut busy = false;
        for shard in 0..self.homes.lanes.shards() {
            for taken in 1..=TURN_ENTRIES_MAX {
                let Some(control) = self.homes.lanes.next_from(shard) else { break };
                self.take_control(shard, control, now);
                busy |= taken == TURN_ENTRIES_MAX;
            }
        }
        busy
    }

    /// Empties the lanes between the homes and the residents of this shard.
    ///
    /// Each word of a segment may have the home deliver something, which comes before the next word: so a
    /// segment meets its answers in the order of its questions, as over a lane between two shards.
    fn exchange(&mut self, now: Now) {
        loop {
            while let Some(delivery) = self.homes.lanes.next_own() {
                self.residents.take_delivery(delivery, now);
            }
            let Some(control) = self.residents.lanes.next_own() else { return };
            self.take_control(self.homes.lanes.index, control, now);
        }
    }
}

#[cfg(test)]
mod tests;
