//! The standing of each slot, as the cluster says it: shards and doors read, and the cluster writes.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use roomcast_core::cluster::{SLOTS, Slot, Standing};
use roomcast_core::room::id::{NameKey, RoomName};

/// The standings of all slots.
#[derive(Debug)]
pub(crate) struct Slots {
    key: NameKey,
    /// Grows with each change. A shard compares the number with its last look.
    changes: AtomicU64,
    /// Locked for one copy at a time.
    standings: RwLock<[Standing; SLOTS]>,
}

impl Slots {
    /// Slots without a home. `key` is the cluster's.
    pub(crate) fn new(key: NameKey) -> Self {
        Self { key, changes: AtomicU64::new(0), standings: RwLock::new([Standing::default(); SLOTS]) }
    }

    /// The slot of a room.
    pub(crate) fn of(&self, room: &RoomName) -> Slot {
        Slot::of(room, self.key)
    }

    /// The standing of a slot.
    pub(crate) fn standing(&self, slot: Slot) -> Standing {
        self.standings.read()[slot.index()]
    }

    /// The standings of all slots.
    pub(crate) fn all(&self) -> [Standing; SLOTS] {
        *self.standings.read()
    }

    /// Changes the standing of a slot. The caller wakes the shards.
    pub(crate) fn set(&self, slot: Slot, standing: Standing) {
        let mut standings = self.standings.write();
        standings[slot.index()] = standing;
        // Under the lock: a shard that sees the number finds the change.
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// A number that grows with each change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
