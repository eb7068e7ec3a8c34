//! The standing of each slot, as the cluster says it: shards and doors read, and the cluster writes.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use roomcast_core::cluster::{SLOTS, Slot, SlotStanding};
use roomcast_core::room::id::{NameKey, RoomName};

/// The standings of all slots.
#[derive(Debug)]
pub(crate) struct Slots {
    key: NameKey,
    /// Grows with each change. A shard compares the number with its last look.
    changes: AtomicU64,
    /// Locked for one copy at a time.
    stood: RwLock<Stood>,
}

/// The standings of all slots at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stood {
    pub(crate) standings: [SlotStanding; SLOTS],
    /// Times that this node has lost each slot. A slot that was lost and is held again has no rooms from before,
    /// even if nobody looked meanwhile.
    pub(crate) losses: [u32; SLOTS],
}

impl Default for Stood {
    /// Slots without a home.
    fn default() -> Self {
        Self { standings: [SlotStanding::default(); SLOTS], losses: [0; SLOTS] }
    }
}

impl Slots {
    /// Slots without a home. `key` is the cluster's.
    pub(crate) fn new(key: NameKey) -> Self {
        Self { key, changes: AtomicU64::new(0), stood: RwLock::default() }
    }

    /// The slot of a room.
    pub(crate) fn of(&self, room: &RoomName) -> Slot {
        Slot::of(room, self.key)
    }

    /// The standing of a slot.
    pub(crate) fn standing(&self, slot: Slot) -> SlotStanding {
        self.stood.read().standings[slot.index()]
    }

    /// The standings of all slots.
    pub(crate) fn all(&self) -> Stood {
        *self.stood.read()
    }

    /// Changes the standing of a slot. The caller wakes the shards.
    pub(crate) fn set(&self, slot: Slot, standing: SlotStanding) {
        let mut stood = self.stood.write();
        let former = std::mem::replace(&mut stood.standings[slot.index()], standing);
        let is_lost = former.home.is_own() && !standing.home.is_own();
        stood.losses[slot.index()] += u32::from(is_lost);
        // Under the lock: a shard that sees the number finds the change.
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A number that grows with each change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
