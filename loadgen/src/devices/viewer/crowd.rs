//! The devices of a worker: their numbers, rooms, stays and habits. Pure.

use std::net::Ipv4Addr;

use crate::scenario::audience::{Audience, Stay};
use crate::scenario::habits::{Awkward, DeviceHabits, Storm};
use crate::scenario::seating::Seating;

/// Devices for each source address. The kernel gives a connection every second of 28 000 ports at once. Past
/// 14 000 connections the search goes port by port: each of a raid's last devices would wait milliseconds.
pub(crate) const DEVICES_PER_SOURCE: usize = 8_000;

/// The devices of a worker and their ways to connect. Device n of the run belongs to worker n modulo the
/// workers, so all workers share every rush of joins.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    /// Number of this worker, from 0.
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    /// Rooms of the run. The first device of each room is the witness.
    pub(crate) rooms: u32,
    /// The first room of every device of the run.
    pub(crate) seating: Seating,
    pub(crate) audience: Audience,
    pub(crate) storms: Vec<Storm>,
    /// The loopback address of the first devices; used with a door on loopback.
    pub(crate) source: Ipv4Addr,
    /// Handshakes under way at a time.
    pub(crate) handshakes_max: u32,
    pub(crate) awkward: Awkward,
    pub(crate) seed: u64,
}

/// The rooms of a worker's devices.
#[derive(Debug)]
pub(crate) struct Seats {
    /// The worker's rooms, by place.
    pub(crate) room_names: Vec<String>,
    /// The place of each device's room.
    pub(crate) places: Vec<u32>,
}

impl Crowd {
    /// The number in the run of this worker's device at `index`.
    pub(crate) fn number(&self, index: usize) -> u32 {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        index.saturating_mul(self.workers).saturating_add(self.worker)
    }

    /// The loopback address of the device at `index`. The second part grows by 1 for each
    /// [`DEVICES_PER_SOURCE`].
    pub(crate) fn source_of(&self, index: usize) -> Ipv4Addr {
        let [net, first, subnet, host] = self.source.octets();
        let further = u8::try_from(index / DEVICES_PER_SOURCE).unwrap_or(u8::MAX);
        Ipv4Addr::new(net, first.wrapping_add(further), subnet, host)
    }

    /// A witness stays in the room from before the first publish to the end, and the room is judged by it.
    fn is_witness(&self, device: u32) -> bool {
        device < self.rooms
    }

    pub(crate) fn habits(&self, index: usize) -> DeviceHabits {
        let device = self.number(index);
        let habits = self.awkward.habits(self.seed, device);
        if self.is_witness(device) { habits.of_a_witness() } else { habits }
    }

    /// The first stay of the device at `index` with an end later than `after_start_ns` after the first
    /// publish.
    pub(crate) fn stay(&self, index: usize, after_start_ns: u64) -> Option<Stay> {
        let device = self.number(index);
        if self.is_witness(device) {
            return Some(Stay { from_ns: None, to_ns: None });
        }
        self.audience.stays(device).find(|stay| stay.to_ns.is_none_or(|to_ns| to_ns > after_start_ns))
    }

    /// The storms over the device at `index`: place in the run's list, and ns after the first publish.
    pub(crate) fn storms_of(&self, index: usize) -> impl Iterator<Item = (u8, u64)> + '_ {
        let device = self.number(index);
        let storms = (0_u8..)
            .zip(&self.storms)
            .filter(move |(place, storm)| !self.is_witness(device) && storm.takes(*place, self.seed, device));
        storms.map(|(place, storm)| (place, storm.at.ms() * 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::seating::Sizes;
    use crate::scenario::units::{Share, Span};

    fn crowd(worker: u32) -> Crowd {
        Crowd {
            worker,
            workers: 3,
            rooms: 4,
            seating: Seating::new(Sizes::Even, 9, 4, 1),
            audience: Audience::steady(2),
            storms: vec![Storm {
                at: Span::of_seconds(2),
                share: Share::of_millionths(1_000_000),
                back_within: Span::default(),
            }],
            source: Ipv4Addr::LOCALHOST,
            handshakes_max: 1,
            awkward: Awkward { dead_share: 1_000_000, ..Awkward::default() },
            seed: 1,
        }
    }

    #[test]
    fn workers_hold_devices_in_turn() {
        let numbers: Vec<u32> =
            (0..3).flat_map(|worker| (0..3).map(move |index| crowd(worker).number(index))).collect();
        assert_eq!(numbers, [0, 3, 6, 1, 4, 7, 2, 5, 8]);
    }

    #[test]
    fn many_devices_come_from_several_addresses() {
        let crowd = crowd(0);
        let sources = [0, 7_999, 8_000, 18_000].map(|index| crowd.source_of(index).octets());
        assert_eq!(sources, [[127, 0, 0, 1], [127, 0, 0, 1], [127, 1, 0, 1], [127, 2, 0, 1]]);
    }

    #[test]
    fn a_witness_is_there_throughout_whatever_others_do() {
        let crowd = crowd(0);
        let throughout = Some(Stay { from_ns: None, to_ns: None });
        assert_eq!(
            (crowd.stay(1, 0), crowd.habits(1).dies, crowd.storms_of(1).count()),
            (throughout, false, 0)
        );
        assert_eq!((crowd.stay(2, 0), crowd.habits(2).dies), (None, true));
        assert_eq!(crowd.storms_of(2).collect::<Vec<_>>(), [(0, 2_000_000_000)]);
    }
}
