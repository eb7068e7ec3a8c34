//! The part of a run that one worker has: its devices with their numbers, rooms, stays and habits. Pure.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::scenario::audience::Stay;
use crate::scenario::habits::DeviceHabits;
use crate::scenario::plan::Plan;
use crate::scenario::seating::Seating;

/// Devices for each source address. The kernel gives a connection every second of 28 000 ports at once. Past
/// 14 000 connections the search goes port by port: each of a raid's last devices would wait milliseconds.
pub(crate) const DEVICES_PER_SOURCE: usize = 8_000;

/// One worker's part of a run. Device n belongs to worker n modulo the workers, so all workers share every
/// rush of joins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) plan: Plan,
    /// Number of this worker, from 0.
    pub(crate) worker: u32,
    /// Number of workers, at least 1.
    pub(crate) workers: u32,
    /// The loopback address of the first devices; used with a door on loopback.
    pub(crate) source: Ipv4Addr,
    /// Handshakes under way at a time.
    pub(crate) handshakes_max: u32,
    /// Lead of the worker's clock over the coordinator's.
    pub(crate) ahead_ns: i64,
}

impl Assignment {
    pub(crate) fn own_devices(&self) -> u32 {
        self.plan.devices.saturating_sub(self.worker).div_ceil(self.workers)
    }

    /// The first room of every device of the run.
    pub(crate) fn seating(&self) -> Seating {
        Seating::new(self.plan.sizes, self.plan.devices, self.plan.rooms, self.plan.seed)
    }

    /// The room of each of this worker's devices.
    fn seats(&self) -> Vec<u32> {
        let seating = self.seating();
        let own = (self.worker..self.plan.devices).step_by(self.workers as usize);
        own.map(|device| seating.room_of(device)).collect()
    }

    /// The rooms open to this worker's devices, sorted, without repeats.
    pub(crate) fn own_rooms(&self) -> Vec<u32> {
        if self.plan.awkward.hop_share > 0 {
            return (0..self.plan.rooms.min(self.plan.devices)).collect();
        }
        let mut rooms = self.seats();
        rooms.sort_unstable();
        rooms.dedup();
        rooms
    }

    /// The place of each device's room among `rooms`, the worker's own rooms.
    pub(crate) fn places(&self, rooms: &[u32]) -> impl Iterator<Item = u32> {
        let place = |room| rooms.partition_point(|other| *other < room);
        self.seats().into_iter().map(move |room| u32::try_from(place(room)).unwrap_or(u32::MAX))
    }

    /// The first door of each of this worker's devices among `doors`: the devices of each room are spread
    /// evenly, and the first devices of all rooms, too.
    pub(crate) fn first_doors(&self, doors: usize) -> impl Iterator<Item = usize> {
        let seating = self.seating();
        let mut next: Vec<usize> = (0..self.plan.rooms as usize).collect();
        let Self { plan, worker, workers, .. } = self;
        let worker = *worker;
        let workers = *workers;
        // One door needs no count over all devices.
        let all = if doors > 1 { 0..plan.devices } else { 0..0 };
        let spread = all.filter_map(move |device| {
            let next = &mut next[seating.room_of(device) as usize];
            *next += 1;
            (device % workers == worker).then_some((*next - 1) % doors)
        });
        spread.chain(std::iter::repeat_n(0, if doors > 1 { 0 } else { self.own_devices() as usize }))
    }

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
        device < self.plan.rooms
    }

    pub(crate) fn habits(&self, index: usize) -> DeviceHabits {
        let device = self.number(index);
        let habits = self.plan.awkward.habits(self.plan.seed, device);
        if self.is_witness(device) { habits.of_a_witness() } else { habits }
    }

    /// The first stay of the device at `index` with an end later than `after_start_ns` after the first
    /// publish.
    pub(crate) fn stay(&self, index: usize, after_start_ns: u64) -> Option<Stay> {
        let device = self.number(index);
        if self.is_witness(device) {
            return Some(Stay { from_ns: None, to_ns: None });
        }
        self.plan.audience.stays(device).find(|stay| stay.to_ns.is_none_or(|to_ns| to_ns > after_start_ns))
    }

    /// The storms over the device at `index`: place in the run's list, and ns after the first publish.
    pub(crate) fn storms_of(&self, index: usize) -> impl Iterator<Item = (u8, u64)> + '_ {
        let device = self.number(index);
        let storms = (0_u8..).zip(&self.plan.storms).filter(move |(place, storm)| {
            !self.is_witness(device) && storm.takes(*place, self.plan.seed, device)
        });
        storms.map(|(place, storm)| (place, storm.at.ms() * 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::tests::resolve;
    use crate::scenario::audience::Audience;

    fn assignment(worker: u32) -> Assignment {
        let plan = resolve(
            "--devices 9 --rooms 4 --set habits.dead_share=1 --set storms=[{at=2,share=1,back_within=0}]",
        );
        let mut plan = plan.unwrap();
        plan.audience = Audience::steady(2);
        Assignment { plan, worker, workers: 3, source: Ipv4Addr::LOCALHOST, handshakes_max: 1, ahead_ns: 0 }
    }

    #[test]
    fn where_devices_hop_a_worker_has_the_rooms_of_all() {
        let rooms = |hop_share, worker| {
            let mut plan = resolve("--devices 6 --rooms 2").unwrap();
            plan.awkward.hop_share = hop_share;
            Assignment { plan, workers: 2, ..assignment(worker) }.own_rooms()
        };
        assert_eq!([rooms(0, 0), rooms(0, 1)], [[0], [1]]);
        assert_eq!(rooms(500_000, 1), [0, 1]);
    }

    #[test]
    fn workers_hold_devices_in_turn() {
        let numbers: Vec<u32> =
            (0..3).flat_map(|worker| (0..3).map(move |index| assignment(worker).number(index))).collect();
        assert_eq!(numbers, [0, 3, 6, 1, 4, 7, 2, 5, 8]);
    }

    #[test]
    fn the_devices_of_each_room_are_spread_over_the_doors() {
        let mut plan = resolve("--devices 60 --rooms 4").unwrap();
        plan.audience = Audience::steady(60);
        let mut spread = std::collections::BTreeMap::new();
        for worker in 0..3 {
            let ours = Assignment { plan: plan.clone(), ..assignment(worker) };
            let doors: Vec<usize> = ours.first_doors(2).collect();
            assert_eq!(doors.len(), 20);
            for (index, door) in doors.into_iter().enumerate() {
                *spread.entry((ours.seating().room_of(ours.number(index)), door)).or_insert(0) += 1;
            }
            assert!(ours.first_doors(1).eq([0; 20]));
        }
        assert_eq!(spread.len(), 8, "{spread:?}");
        assert!(spread.values().all(|devices| (7..=8).contains(devices)), "{spread:?}");
    }

    #[test]
    fn many_devices_come_from_several_addresses() {
        let ours = assignment(0);
        let sources = [0, 7_999, 8_000, 18_000].map(|index| ours.source_of(index).octets());
        assert_eq!(sources, [[127, 0, 0, 1], [127, 0, 0, 1], [127, 1, 0, 1], [127, 2, 0, 1]]);
    }

    #[test]
    fn a_witness_is_there_throughout_whatever_others_do() {
        let ours = assignment(0);
        let throughout = Some(Stay { from_ns: None, to_ns: None });
        assert_eq!((ours.stay(1, 0), ours.habits(1).dies, ours.storms_of(1).count()), (throughout, false, 0));
        assert_eq!((ours.stay(2, 0), ours.habits(2).dies), (None, true));
        assert_eq!(ours.storms_of(2).collect::<Vec<_>>(), [(0, 2_000_000_000)]);
    }
}
