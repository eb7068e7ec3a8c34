//! How devices come and go while a run runs: stays by the audience, hops, storms, deaths, and devices that read slowly.

use std::io::Write as _;

use super::{Devices, Phase};
use crate::clock::monotonic_ns;
use crate::devices::errands::Errand;
use crate::devices::watch::Track;
use crate::scenario::habits::{SIP_EVERY_NS, until_death_ns, until_hop_ns};
use crate::wire::frame::{OPCODE_CLOSE, write_device_frame};

/// How long a device that is to join as a newcomer waits for the end of a pull that it began before.
const JOIN_AGAIN_NS: u64 = 100_000_000;

impl Devices {
    /// What the device at `index` is to do from the first publish on, besides what follows from what it hears.
    pub(super) fn plan_comings(&mut self, index: usize, now_ns: u64) {
        self.plan_stay(index);
        let start_ns = self.start_ns;
        let habits = self.devices[index].habits;
        let storms: Vec<(u8, u64)> = self.crowd.storms_of(index).collect();
        for (place, at_ns) in storms {
            self.errands.add(start_ns + at_ns, index, Errand::Storm(place));
        }
        if habits.hops {
            self.plan_hop(index, now_ns);
        }
        if habits.dies {
            let wait_ns = until_death_ns(&mut self.random);
            self.errands.add(start_ns + wait_ns, index, Errand::Die);
        }
        self.sip_from_now(index);
    }

    /// The end of the stay that a device is in, or the beginning of its next.
    fn plan_stay(&mut self, index: usize) {
        let is_away = self.devices[index].phase == Phase::Away;
        let after_start_ns = monotonic_ns().saturating_sub(self.start_ns);
        let Some(stay) = self.crowd.stay(index, after_start_ns) else { return };
        match (is_away, stay.from_ns, stay.to_ns) {
            (true, from_ns, _) => {
                let due_ns = self.start_ns + from_ns.unwrap_or(0);
                self.devices[index].due_ns = due_ns;
                self.errands.add(due_ns, index, Errand::Join);
            }
            (false, _, Some(to_ns)) => self.errands.add(self.start_ns + to_ns, index, Errand::Leave),
            (false, _, None) => {}
        }
    }

    /// A stay begins: the device connects as soon as a handshake is free, and its latency counts from now.
    pub(super) fn join(&mut self, index: usize, now_ns: u64) {
        let device = &mut self.devices[index];
        if self.is_calm || device.phase != Phase::Away {
            return;
        }
        if device.is_pulling {
            self.errands.add(now_ns + JOIN_AGAIN_NS, index, Errand::Join);
            return;
        }
        device.track = Track::late(device.habits);
        device.phase = Phase::Idle;
        self.moves.joins += 1;
        self.retries.push_back(index);
        self.plan_stay(index);
    }

    /// A stay is over: the device says goodbye, and owes nothing any more.
    pub(super) fn leave_room(&mut self, index: usize) {
        if self.is_calm || matches!(self.devices[index].phase, Phase::Away | Phase::Dead | Phase::Ended) {
            return;
        }
        if self.devices[index].phase != Phase::Watching && self.devices[index].due_ns <= monotonic_ns() {
            // It was never let in: at least so long it has waited.
            self.joined(index, monotonic_ns());
        }
        self.say_goodbye(index);
        self.end_stay(index);
        self.devices[index].phase = Phase::Away;
        self.moves.leaves += 1;
        self.plan_stay(index);
    }

    fn plan_hop(&mut self, index: usize, now_ns: u64) {
        let wait_ns = until_hop_ns(&mut self.random);
        self.errands.add(now_ns + wait_ns, index, Errand::Hop);
    }

    /// A device goes to another room, as one that was never there: to large ones more often, as people do. Where devices hop
    /// a worker has all rooms that any sit in, so a room's index is its place.
    pub(super) fn hop(&mut self, index: usize, now_ns: u64) {
        let device = &self.devices[index];
        if self.is_calm || matches!(device.phase, Phase::Dead | Phase::Ended) || self.room_names.len() < 2 {
            return;
        }
        let may_go = device.phase == Phase::Watching && !device.is_pulling;
        if may_go {
            self.say_goodbye(index);
            self.end_stay(index);
            let room = self.crowd.seating.another(self.devices[index].place, &mut self.random);
            let device = &mut self.devices[index];
            device.place = room;
            device.track = Track::late(device.habits);
            device.phase = Phase::Idle;
            device.due_ns = now_ns;
            self.moves.hops += 1;
            self.moves.joins += 1;
            self.retries.push_back(index);
        }
        self.plan_hop(index, now_ns);
    }

    /// A device is cut off with many others, and comes back within the time that the storm gives.
    pub(super) fn storm(&mut self, index: usize, place: u8) {
        let Some(storm) = self.crowd.storms.get(usize::from(place)).copied() else { return };
        if self.is_calm || self.devices[index].phase != Phase::Watching {
            return;
        }
        let away_ns = self.random.u64(..=storm.back_within.ms() * 1_000_000);
        self.moves.storm_cuts += 1;
        self.leave(index, self.start_ns + storm.at.ms() * 1_000_000 + away_ns);
    }

    /// A device stops for ever: it neither reads nor pings, and its connection stays. It owes nothing any more.
    pub(super) fn die(&mut self, index: usize, now_ns: u64) {
        let device = &mut self.devices[index];
        if self.is_calm || matches!(device.phase, Phase::Dead | Phase::Ended) {
            return;
        }
        if device.phase != Phase::Watching {
            let wait_ns = until_death_ns(&mut self.random);
            self.errands.add(now_ns + wait_ns, index, Errand::Die);
            return;
        }
        let kept = device.stream.take();
        self.end_stay(index);
        let device = &mut self.devices[index];
        (device.stream, device.phase, device.is_stalled) = (kept, Phase::Dead, true);
        self.moves.deaths += 1;
    }

    /// From here on a slow device reads in sips.
    pub(super) fn sip_from_now(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if !device.habits.is_slow || self.is_calm || self.start_ns == 0 || device.phase != Phase::Watching {
            return;
        }
        device.is_stalled = true;
        if !device.is_sipping {
            device.is_sipping = true;
            self.errands.add(monotonic_ns() + SIP_EVERY_NS, index, Errand::Sip);
        }
    }

    /// A slow device reads a little.
    pub(super) fn sip(&mut self, index: usize, now_ns: u64) -> Result<(), String> {
        let device = &mut self.devices[index];
        if self.is_calm || device.phase != Phase::Watching {
            device.is_sipping = false;
            return Ok(());
        }
        self.errands.add(now_ns + SIP_EVERY_NS, index, Errand::Sip);
        self.read_once(index, self.crowd.awkward.sip_bytes()).map(drop)
    }

    /// A device is in its room: the time that took, counted from when it was due, goes into the figures. Those of the start
    /// are no part of them: they come as handshakes are free.
    pub(super) fn joined(&mut self, index: usize, now_ns: u64) {
        let due_ns = self.devices[index].due_ns;
        if self.start_ns > 0 && due_ns >= self.watch.figures.timed_from_ns.max(self.start_ns) {
            self.joins.record(now_ns.saturating_sub(due_ns), 1);
        }
    }

    /// A device leaves its room for good.
    fn end_stay(&mut self, index: usize) {
        self.watch.end_stay(self.devices[index].track, self.seat(index), monotonic_ns());
        self.depart(index);
    }

    /// A device's connection is given up by itself.
    pub(super) fn depart(&mut self, index: usize) {
        let device = &mut self.devices[index];
        match device.phase {
            Phase::Watching => self.watching -= 1,
            Phase::Connecting | Phase::Handshaking | Phase::Waiting => self.shaking -= 1,
            Phase::Idle | Phase::Away | Phase::Dead | Phase::Ended => {}
        }
        device.stream = None;
        device.half = Vec::new();
        device.attempts = 0;
        device.is_stalled = false;
        device.owes_ack = false;
        self.watch.leave(&mut device.track);
    }

    fn say_goodbye(&mut self, index: usize) {
        let mask = self.random.u32(..);
        let device = &mut self.devices[index];
        if let (Phase::Watching, Some(stream)) = (device.phase, &mut device.stream) {
            let mut close = Vec::new();
            write_device_frame(&mut close, OPCODE_CLOSE, &1000_u16.to_be_bytes(), mask);
            // What the kernel does not take now is not waited for.
            drop(stream.write(&close));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use crate::scenario::habits::Awkward;

    #[test]
    fn who_hops_goes_where_most_are() {
        let mut viewers = fixture::watching(1_000, 10, Awkward::default());
        let mut hop = |index: usize| {
            let before = viewers.devices[index].place;
            viewers.hop(index, 5);
            (before, viewers.devices[index].place)
        };
        let hops: Vec<(u32, u32)> = (10..1_000).map(&mut hop).collect();
        assert!(hops.iter().all(|(before, after)| before != after && *after < 10));
        let small: Vec<u32> =
            hops.iter().filter(|(before, _)| *before > 0).map(|(_, after)| *after).collect();
        let to_first = small.iter().filter(|after| **after == 0).count();
        assert!(to_first * 10 > small.len() * 7, "{to_first} of {}", small.len());
    }
}
