//! The process's descriptors for connections, shared by devices and the three doors.
//!
//! Each door keeps descriptors of its own, so no crowd at one door shuts another. All further descriptors go to
//! the first comer. Example: a node with 148 descriptors and no device. A flood at the viewer door takes 52.
//! The publisher door keeps its 48, the operator door its 16, and 32 are for the store, the log and the runtimes.

use serde::Serialize;

use crate::metrics::DoorName;
use crate::seat::{Seat, Seats};
use roomcast_core::limits::DESCRIPTORS_KEPT;

/// The descriptors kept for a door. The sum over all doors leaves [`PROCESS_KEPT`] of [`DESCRIPTORS_KEPT`].
const fn kept_for(door: DoorName) -> u64 {
    match door {
        // Handshakes and refusals are short.
        DoorName::Viewer => DESCRIPTORS_KEPT / 4,
        // Backends keep their connections.
        DoorName::Publisher => DESCRIPTORS_KEPT * 3 / 8,
        DoorName::Operator => DESCRIPTORS_KEPT / 8,
    }
}

/// Descriptors of the process that are no connections, or one that each door has accepted beyond the count.
const PROCESS_KEPT: u64 = DESCRIPTORS_KEPT / 4;

/// The process's descriptors for connections. A clone counts the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Descriptors {
    devices: Seats,
    /// Door -> its connections.
    visits: [Seats; DoorName::ALL.len()],
    descriptors_max: u64,
}

impl Descriptors {
    /// At most `descriptors_max` descriptors in all, the seats of `devices` included.
    pub(crate) fn new(devices: Seats, descriptors_max: u64) -> Self {
        Self { devices, visits: DoorName::ALL.map(|_| Seats::new(u64::MAX)), descriptors_max }
    }

    /// Takes a descriptor for a connection at a door, unless what is left is for others.
    pub(super) fn take(&self, door: DoorName) -> Option<Seat> {
        // Taken first and weighed afterwards: two doors that ask at once may both be refused, never both let
        // in.
        let visit = self.visits[door as usize].take();
        let held = self.held();
        visit.filter(|_| held.needed_with(door) <= held.max)
    }

    /// The descriptors in use, beside their limits.
    pub(crate) fn held(&self) -> DescriptorsHeld {
        let connections = self.devices.taken();
        let at_doors = self.visits.each_ref().map(Seats::taken);
        DescriptorsHeld {
            connections,
            connections_max: self.devices.seats_max(),
            taken: connections + at_doors.iter().sum::<u64>(),
            max: self.descriptors_max,
            at_doors,
        }
    }
}

/// Descriptors of a node's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct DescriptorsHeld {
    /// Connections of devices.
    pub(crate) connections: u64,
    /// Places for connections of devices.
    pub(crate) connections_max: u64,
    /// Descriptors of devices and of visits at the doors.
    pub(crate) taken: u64,
    /// The process's limit of descriptors.
    pub(crate) max: u64,
    /// Door -> its connections.
    #[serde(skip)]
    pub(crate) at_doors: [u64; DoorName::ALL.len()],
}

#[cfg(test)]
impl Default for DescriptorsHeld {
    fn default() -> Self {
        let at_doors = Default::default();
        Self { connections: 0, connections_max: 1000, taken: 0, max: 1128, at_doors }
    }
}

impl DescriptorsHeld {
    /// True if no place is left for another device.
    pub(crate) fn is_full(&self) -> bool {
        self.connections >= self.connections_max
    }

    /// True if no descriptor is left for another connection at this door.
    pub(crate) fn are_used_up_at(&self, door: DoorName) -> bool {
        self.needed_with(door) >= self.max
    }

    /// True if the connections of this door alone, beside the devices, leave the door no descriptor.
    pub(crate) fn are_used_up_by(&self, door: DoorName) -> bool {
        self.needed(door, kept_for) >= self.max
    }

    /// The descriptors in use and those kept for others than this door.
    fn needed_with(&self, door: DoorName) -> u64 {
        self.needed(door, |other| kept_for(other).max(self.at_doors[other as usize]))
    }

    fn needed(&self, door: DoorName, of_other: impl Fn(DoorName) -> u64) -> u64 {
        let others = DoorName::ALL.into_iter().filter(|other| *other != door);
        self.connections + self.at_doors[door as usize] + others.map(of_other).sum::<u64>() + PROCESS_KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOORS: [DoorName; 3] = DoorName::ALL;

    #[test]
    fn what_is_kept_is_shared_out() {
        assert_eq!(DOORS.map(kept_for).iter().sum::<u64>() + PROCESS_KEPT, DESCRIPTORS_KEPT);
    }

    #[test]
    fn a_crowd_at_one_door_leaves_the_others_theirs() {
        for crowded in DOORS {
            // All seats are taken, or none.
            for devices in [0, 20] {
                let seats = Seats::new(20);
                let descriptors = Descriptors::new(seats.clone(), 20 + DESCRIPTORS_KEPT);
                let _devices: Vec<Seat> = (0..devices).filter_map(|_| seats.take()).collect();
                let crowd: Vec<Seat> = std::iter::from_fn(|| descriptors.take(crowded)).collect();
                assert_eq!(crowd.len() as u64, kept_for(crowded) + 20 - devices);
                assert!(descriptors.held().are_used_up_by(crowded));
                for other in DOORS.into_iter().filter(|other| *other != crowded) {
                    let visits: Vec<Seat> = std::iter::from_fn(|| descriptors.take(other)).collect();
                    assert_eq!(visits.len() as u64, kept_for(other), "{other:?} beside {crowded:?}");
                    let held = descriptors.held();
                    assert!(held.are_used_up_at(other));
                    assert_eq!(held.are_used_up_by(other), devices == 20, "{other:?} beside {crowded:?}");
                }
            }
        }
    }
}
