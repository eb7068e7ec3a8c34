//! The standing of each slot, as the cluster says it: shards and doors read, and the cluster writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::clock;
use roomcast_core::cluster::{NodeKey, SLOTS, Slot, SlotHome, SlotStanding};
use roomcast_core::now::millis;
use roomcast_core::room::id::{NameKey, RoomName};

/// The standings of all slots.
///
/// The right to order ends by the clock, whether the cluster's thread runs or not: a process that was stopped may
/// find its shards awake before that thread. Own slots then count as frozen.
#[derive(Debug)]
pub(crate) struct Slots {
    key: NameKey,
    /// The end of the right to order, in milliseconds since the machine's boot.
    right_until_ms: AtomicU64,
    /// Grows with each change of a slot. A shard compares the number with its last look.
    changes: AtomicU64,
    /// Locked for one copy at a time.
    stood: RwLock<Stood>,
    handed: Mutex<HandedSlots>,
    /// The number of slots being handed over: most requests need no look at them.
    leaving: AtomicUsize,
    /// Rings at the end of each hand-over.
    hand_over_ended: Notify,
}

/// The standings of all slots at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stood {
    pub(crate) standings: [SlotStanding; SLOTS],
    /// Times that this node has lost each slot. A slot that was lost and is held again has no rooms from before,
    /// even if nobody looked meanwhile.
    pub(crate) losses: [u32; SLOTS],
    /// The hand-over by which this node has each slot.
    pub(crate) arrivals: [Option<SlotArrival>; SLOTS],
    /// The other node that would take each slot over.
    pub(crate) heirs: [Option<NodeKey>; SLOTS],
}

/// A hand-over, as its next home knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotArrival {
    /// The former home.
    pub(crate) node: NodeKey,
    /// The number of the attempt at that home.
    pub(crate) attempt: u64,
}

/// The slots that this node hands over, for the doors.
#[derive(Debug, Default)]
struct HandedSlots {
    /// Being handed over: requests wait.
    leaving: BTreeSet<Slot>,
    /// Handed over, each to the node that has it.
    given: BTreeMap<Slot, NodeKey>,
}

impl Default for Stood {
    /// Slots without a home.
    fn default() -> Self {
        Self {
            standings: [SlotStanding::default(); SLOTS],
            losses: [0; SLOTS],
            arrivals: [None; SLOTS],
            heirs: [None; SLOTS],
        }
    }
}

impl Slots {
    /// Slots without a home. `key` is the cluster's.
    pub(crate) fn new(key: NameKey) -> Self {
        let right_until_ms = AtomicU64::new(u64::MAX);
        Self {
            key,
            right_until_ms,
            changes: AtomicU64::new(0),
            stood: RwLock::default(),
            handed: Mutex::default(),
            leaving: AtomicUsize::new(0),
            hand_over_ended: Notify::new(),
        }
    }

    /// The slot of a room.
    pub(crate) fn of(&self, room: &RoomName) -> Slot {
        Slot::of(room, self.key)
    }

    /// The standing of a slot.
    pub(crate) fn standing(&self, slot: Slot) -> SlotStanding {
        self.as_of_right(self.stood.read().standings[slot.index()])
    }

    /// The standings of all slots.
    pub(crate) fn all(&self) -> Stood {
        let mut stood = *self.stood.read();
        if !self.has_right() {
            stood.standings = stood.standings.map(|standing| self.as_of_right(standing));
        }
        stood
    }

    /// Moves the end of the right to order, in time since the machine's boot. True: the right had ended, and the
    /// caller wakes the shards.
    pub(crate) fn move_right(&self, until: Duration) -> bool {
        let had_right = self.has_right();
        self.right_until_ms.store(millis(until), Ordering::Release);
        !had_right
    }

    fn has_right(&self) -> bool {
        // Time of a suspended machine counts: the other nodes were awake.
        millis(clock::since_boot()) < self.right_until_ms.load(Ordering::Acquire)
    }

    fn as_of_right(&self, standing: SlotStanding) -> SlotStanding {
        let is_ended = standing.home == SlotHome::Here && !self.has_right();
        if is_ended { SlotStanding { home: SlotHome::Frozen, ..standing } } else { standing }
    }

    /// Changes the standing of a slot, which does not come by a hand-over.
    #[cfg(test)]
    pub(crate) fn set(&self, slot: Slot, standing: SlotStanding) {
        self.set_handed(slot, standing, None);
    }

    /// Changes the standing of a slot. The caller wakes the shards. `arrival`: the hand-over by which the slot comes to
    /// this node. Its rooms were told to the shards before.
    pub(crate) fn set_handed(&self, slot: Slot, standing: SlotStanding, arrival: Option<SlotArrival>) {
        let mut handed = self.handed.lock();
        if handed.given.get(&slot).is_some_and(|to| standing.home != SlotHome::There(*to)) {
            handed.given.remove(&slot);
        }
        drop(handed);
        let mut stood = self.stood.write();
        let former = stood.standings[slot.index()];
        // A renewed term is the same hold.
        if !(former.home.is_own() && standing.home.is_own()) {
            stood.arrivals[slot.index()] = arrival;
        }
        let former = std::mem::replace(&mut stood.standings[slot.index()], standing);
        let is_lost = former.home.is_own() && !standing.home.is_own();
        stood.losses[slot.index()] += u32::from(is_lost);
        // Under the lock: a shard that sees the number finds the change.
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Changes the heirs of all slots, in order. True: some have changed, and the caller wakes the shards.
    pub(crate) fn set_heirs(&self, heirs: impl Iterator<Item = SlotHome>) -> bool {
        let mut stood = self.stood.write();
        let mut is_changed = false;
        for (known, heir) in stood.heirs.iter_mut().zip(heirs) {
            is_changed |= std::mem::replace(known, heir.other()) != heir.other();
        }
        self.changes.fetch_add(u64::from(is_changed), Ordering::Release);
        is_changed
    }

    /// True if this node holds a slot, as it did at the last look with so many losses.
    pub(crate) fn still_holds(&self, slot: Slot, losses: u32) -> bool {
        let stood = self.stood.read();
        stood.standings[slot.index()].home.is_own() && stood.losses[slot.index()] == losses
    }

    /// Has requests for the rooms of a slot wait: it is handed over.
    pub(crate) fn leave(&self, slot: Slot) {
        let mut handed = self.handed.lock();
        handed.leaving.insert(slot);
        self.leaving.store(handed.leaving.len(), Ordering::Release);
    }

    /// The hand-over of a slot has ended. `to`: the node that has it now; `None`: it stays, or is lost.
    pub(crate) fn end_leave(&self, slot: Slot, to: Option<NodeKey>) {
        let mut handed = self.handed.lock();
        handed.leaving.remove(&slot);
        self.leaving.store(handed.leaving.len(), Ordering::Release);
        handed.given.extend(to.map(|to| (slot, to)));
        drop(handed);
        self.hand_over_ended.notify_waiters();
    }

    /// True while a slot is handed over.
    pub(crate) fn is_leaving(&self, slot: Slot) -> bool {
        self.leaving.load(Ordering::Acquire) > 0 && self.handed.lock().leaving.contains(&slot)
    }

    /// The node to which this one has handed a slot over, as long as it stands there.
    pub(crate) fn given_to(&self, slot: Slot) -> Option<NodeKey> {
        self.handed.lock().given.get(&slot).copied()
    }

    /// Waits until a slot is handed over no longer.
    pub(crate) async fn left(&self, slot: Slot) {
        loop {
            // Before the look: an end behind it is heard.
            let ended = self.hand_over_ended.notified();
            if !self.is_leaving(slot) {
                return;
            }
            ended.await;
        }
    }

    /// A number that changes with each change, and with the right to order.
    pub(crate) fn changes(&self) -> u64 {
        2 * self.changes.load(Ordering::Acquire) + u64::from(self.has_right())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::cluster::Term;

    #[test]
    fn own_slots_freeze_when_the_right_to_order_ends_whoever_sleeps() {
        let slots = Slots::new(NameKey::default());
        let here = SlotStanding { home: SlotHome::Here, term: Term::default() };
        slots.set(Slot(3), here);
        assert_eq!(slots.standing(Slot(3)), here);
        let before = slots.changes();
        assert!(!slots.move_right(Duration::ZERO), "it had not ended yet");
        assert_ne!(slots.changes(), before, "shards look again");
        let frozen = SlotStanding { home: SlotHome::Frozen, ..here };
        assert_eq!((slots.standing(Slot(3)), slots.all().standings[3]), (frozen, frozen));
        assert_eq!(slots.all().standings[4].home, SlotHome::Nobody);
        assert!(slots.move_right(Duration::MAX), "it had ended");
        assert_eq!(slots.standing(Slot(3)), here);
        assert_eq!(slots.all().losses[3], 0, "a freeze is no loss");
    }
}
