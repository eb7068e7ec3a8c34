//! The connections on a shard: found by key, as passes write to them, and in order of their deadlines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use super::connection::{Connection, Socket};
use roomcast_core::fanout::{Offer, Sink};
use roomcast_core::limits::{CLOSE_LINGER, ELSEWHERE_INTERVAL, PROGRESS_AGE_MAX};

/// Time between two looks at the deadlines of waiting connections.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// The connections of a shard. Indexed by their places in the table.
#[derive(Debug)]
pub(super) struct Connections<S> {
    all: Slab<Connection<S>>,
    /// Invariant: exactly the connections with an outbox.
    waiting: BTreeSet<u32>,
    /// Connections to drop at the end of the turn: they have said their last, or their socket failed. Nobody
    /// gets their index before, so each entry means the connection that it was made for.
    pub(super) ended: Vec<u32>,
    /// Number of the last connection, from which keys are made.
    generation: u32,
    /// Connections that have said goodbye: the moment to drop them, and their key. Rising, since all linger
    /// as long.
    lingering: VecDeque<(Instant, u64)>,
    /// Connections with history that waits for its turn. Invariant: exactly those.
    patient: BTreeSet<u32>,
    /// Connections that took a carry, with bytes left in the kernel.
    watched: BTreeMap<u32, Watched>,
    pub(super) next_sweep: Instant,
    /// Place in the table where the search for silent connections goes on.
    silent_at: usize,
    ages: Ages,
}

/// The numbers of connections by age. A moment in each connection would cost each idle device 16 bytes.
#[derive(Debug)]
struct Ages {
    /// The begin of the present interval.
    since: Instant,
    /// The last connection at `since`.
    newest: u32,
    /// The last connection that is older than a whole interval.
    old: u32,
}

/// A connection whose device may not read.
#[derive(Debug)]
struct Watched {
    /// Bytes that its kernel had acknowledged at `since`.
    acked: u64,
    since: Instant,
}

impl<S: Socket> Sink for Connections<S> {
    #[inline]
    fn offer(&mut self, connection: u32, frames: &[Bytes], now: Instant) -> Offer {
        debug_assert!(frames.iter().all(|frame| !frame.is_empty()), "a frame for each encoding in use");
        let placed = &mut self.all[connection as usize];
        let offer = placed.offer(frames, now);
        if offer != Offer::Written {
            self.waits(connection);
        }
        offer
    }

    fn is_waiting(&self, connection: u32) -> bool {
        self.all[connection as usize].is_waiting()
    }

    fn is_fast(&self, connection: u32) -> bool {
        self.all[connection as usize].is_fast()
    }

    fn room_for(&mut self, connection: u32, now: Instant) -> usize {
        self.all[connection as usize].room_for(now)
    }
}

impl<S: Socket> Connections<S> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: Slab::new(),
            waiting: BTreeSet::new(),
            ended: Vec::new(),
            generation: 0,
            lingering: VecDeque::new(),
            patient: BTreeSet::new(),
            watched: BTreeMap::new(),
            next_sweep: now + SWEEP_INTERVAL,
            silent_at: 0,
            ages: Ages { since: now, newest: 0, old: 0 },
        }
    }

    /// Takes in a connection. The result is its key, valid while the connection lives.
    pub(super) fn insert(&mut self, mut connection: Connection<S>) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        connection.generation = self.generation;
        key_of(self.all.insert(connection), self.generation)
    }

    /// True if the connection is older than [`ELSEWHERE_INTERVAL`], and at most twice as old when it first
    /// is.
    pub(super) fn is_old(&self, index: u32) -> bool {
        // Numbers wrap: the difference counts.
        self.ages.old.wrapping_sub(self[index].generation) < u32::MAX / 2
    }

    /// Notes the time, for the ages of connections.
    pub(super) fn age(&mut self, now: Instant) {
        if now.saturating_duration_since(self.ages.since) >= ELSEWHERE_INTERVAL {
            self.ages = Ages { since: now, newest: self.generation, old: self.ages.newest };
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Places in the table, taken or free.
    pub(super) fn capacity(&self) -> usize {
        self.all.capacity()
    }

    pub(super) fn living(&mut self, index: u32) -> Option<&mut Connection<S>> {
        self.all.get_mut(index as usize)
    }

    /// True if a connection stands at this place of the table; its index, if so.
    pub(super) fn at(&self, place: usize) -> Option<u32> {
        let index = u32::try_from(place).expect("a shard has fewer than 2^32 connections");
        self.all.contains(place).then_some(index)
    }

    /// The connection of a key, while it lives.
    pub(super) fn find(&self, key: u64) -> Option<u32> {
        let index = u32::try_from(key & u64::from(u32::MAX)).expect("masked");
        let generation = u32::try_from(key >> 32).expect("shifted");
        let connection = self.all.get(index as usize)?;
        // Another connection may have the place by now.
        (connection.generation == generation).then_some(index)
    }

    /// The key of a connection, by which homes and the shell name it.
    pub(super) fn key(&self, index: u32) -> u64 {
        key_of(index as usize, self[index].generation)
    }

    /// Waiting connections with their places in the table.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u32, &Connection<S>)> {
        self.waiting.iter().map(|index| (*index, &self.all[*index as usize]))
    }

    /// Up to `most` connections with this share of the seats: first those that take nothing at the moment.
    pub(super) fn of_share(&self, share: u16, most: u32) -> Vec<u32> {
        let is_one =
            |connection: &Connection<S>| connection.seat.share() == share && connection.closing.is_none();
        let all = self.all.iter().filter_map(|(index, one)| Some((u32::try_from(index).ok()?, one)));
        let resting = all.filter(|(_, one)| !one.is_waiting());
        let of_share = self.waiting().chain(resting).filter(|(_, one)| is_one(one));
        of_share.map(|(index, _)| index).take(most as usize).collect()
    }

    /// Notes a connection that was offered something beside a pass, if it is owed some of it.
    pub(super) fn note_waiting(&mut self, index: u32) {
        if self[index].is_waiting() {
            self.waits(index);
        }
    }

    /// Notes whether history of the connection waits for its turn.
    pub(super) fn note_patient(&mut self, index: u32) {
        if self[index].has_history() {
            self.patient.insert(index);
        } else {
            self.patient.remove(&index);
        }
    }

    /// Connections with history that waits for its turn.
    pub(super) fn patient_indices(&self) -> Vec<u32> {
        self.patient.iter().copied().collect()
    }

    /// Bytes of history that waits for its turn. Devices with the same pieces count them together: until a piece
    /// is begun, it costs one memory, and the storm after a break shares its welcomes.
    pub(super) fn history_bytes(&self) -> u64 {
        let patient = self.patient.iter().filter_map(|index| self.all.get(*index as usize));
        patient.map(Connection::history_bytes).sum()
    }

    /// Watches whether a device takes the bytes of a carry off the kernel: one that reads nothing and answers
    /// all the same has an empty outbox, and no deadline there.
    pub(super) fn watch(&mut self, index: u32, now: Instant) {
        let Some(connection) = self.all.get(index as usize) else { return };
        // A kernel that does not count: the deadlines of the outbox are the only ones.
        let Some(progress) = connection.progress() else { return };
        if progress.queued > 0 {
            self.watched.entry(index).or_insert(Watched { acked: progress.acked, since: now });
        }
    }

    /// Devices that have taken nothing of a carry for [`PROGRESS_AGE_MAX`]. Forgets those that have it all.
    pub(super) fn stuck(&mut self, now: Instant) -> Vec<u32> {
        let mut stuck = Vec::new();
        let all = &self.all;
        self.watched.retain(|index, watched| {
            let progress = all.get(*index as usize).and_then(|connection| connection.progress());
            let Some(progress) = progress else { return false };
            if progress.acked != watched.acked {
                *watched = Watched { acked: progress.acked, since: now };
            }
            if now.saturating_duration_since(watched.since) >= PROGRESS_AGE_MAX {
                stuck.push(*index);
            }
            progress.queued > 0
        });
        stuck
    }

    #[cold]
    fn waits(&mut self, index: u32) {
        self.waiting.insert(index);
        if self[index].broken {
            self.ended.push(index);
        }
    }

    /// The connection is owed nothing any more.
    pub(super) fn has_drained(&mut self, index: u32) {
        self.waiting.remove(&index);
    }

    /// The connection has said its last words, and is dropped when it has lingered.
    pub(super) fn linger(&mut self, index: u32, now: Instant) {
        self.waiting.insert(index);
        self.lingering.push_back((now + CLOSE_LINGER, self.key(index)));
    }

    /// A connection that has lingered long enough.
    pub(super) fn next_lingered(&mut self, now: Instant) -> Option<u32> {
        while self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.lingering.pop_front()?;
            // The device may have ended first.
            if let Some(index) = self.find(key) {
                return Some(index);
            }
        }
        None
    }

    /// The next connection to drop at the end of the turn.
    pub(super) fn next_ended(&mut self) -> Option<u32> {
        while let Some(index) = self.ended.pop() {
            // A connection may have ended for two reasons.
            if self.all.contains(index as usize) {
                return Some(index);
            }
        }
        None
    }

    /// Drops the connection, its socket and its seat.
    pub(super) fn remove(&mut self, index: u32) {
        self.waiting.remove(&index);
        self.patient.remove(&index);
        self.watched.remove(&index);
        self.all.try_remove(index as usize);
    }

    /// The next deadline of a connection; `None` if there is none.
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        let dropped = self.lingering.front().map(|(at, _)| *at);
        // An idle node without connections sleeps.
        let sweep = (!self.all.is_empty()).then_some(self.next_sweep);
        [dropped, sweep].into_iter().flatten().min()
    }

    /// The next place of the table to look at for a silent connection.
    pub(super) fn next_place(&mut self) -> usize {
        self.silent_at = if self.silent_at + 1 < self.all.capacity() { self.silent_at + 1 } else { 0 };
        self.silent_at
    }

    pub(super) fn check_invariants(&self) {
        for (index, connection) in &self.all {
            let index = u32::try_from(index).expect("a shard has fewer than 2^32 connections");
            let is_known = self.waiting.contains(&index);
            assert_eq!(connection.is_waiting(), is_known, "a connection that is owed something is known");
            let is_patient = self.patient.contains(&index);
            assert_eq!(connection.has_history(), is_patient, "a connection with history to come is known");
        }
    }
}

impl<S> Index<u32> for Connections<S> {
    type Output = Connection<S>;

    fn index(&self, index: u32) -> &Connection<S> {
        &self.all[index as usize]
    }
}

impl<S> IndexMut<u32> for Connections<S> {
    fn index_mut(&mut self, index: u32) -> &mut Connection<S> {
        &mut self.all[index as usize]
    }
}

/// The key of a connection: its place in the table, and its number among all connections of the shard.
fn key_of(index: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | index as u64
}
