//! Comings and goings of devices during the run: stays, hops, storms, deaths, and slow reading.

use std::io::Write as _;

use super::{Devices, Phase};
use crate::clock::monotonic_ns;
use crate::devices::errands::Errand;
use crate::devices::track::Track;
use crate::scenario::habits::{DEATH_NS, HOP_EVERY_NS, SIP_EVERY_NS};
use crate::wire::frame::{OPCODE_CLOSE, write_device_frame};

/// Wait of a newcomer until an earlier pull of the same device ends.
const JOIN_AGAIN_NS: u64 = 100_000_000;

impl Devices {
    /// Plans the acts of the device at `index` from the first publish on, besides answers to frames.
    pub(super) fn plan_comings(&mut self, index: usize, now_ns: u64) {
        self.plan_stay(index);
        let start_ns = self.start_ns;
        let habits = self.devices[index].habits;
        for (place, at_ns) in self.assignment.storms_of(index) {
            self.errands.add(start_ns + at_ns, index, Errand::Storm(place));
        }
        if habits.hops {
            self.plan_hop(index, now_ns);
        }
        if habits.dies {
            let wait_ns = self.random.u64(DEATH_NS);
            self.errands.add(start_ns + wait_ns, index, Errand::Die);
        }
        self.sip_from_now(index);
    }

    /// Plans the end of a device's stay; for a device that is away, the beginning of the next stay.
    fn plan_stay(&mut self, index: usize) {
        let is_away = self.devices[index].phase == Phase::Away;
        let after_start_ns = monotonic_ns().saturating_sub(self.start_ns);
        let Some(stay) = self.assignment.stay(index, after_start_ns) else { return };
        if is_away {
            let due_ns = self.start_ns + stay.from_ns.unwrap_or(0);
            self.devices[index].due_ns = due_ns;
            self.errands.add(due_ns, index, Errand::Join);
        } else if let Some(to_ns) = stay.to_ns {
            self.errands.add(self.start_ns + to_ns, index, Errand::Leave);
        }
    }

    /// Begins a stay: the device connects as soon as a handshake is free.
    pub(super) fn join(&mut self, index: usize, now_ns: u64) {
        let device = &mut self.devices[index];
        if self.is_calm || device.phase != Phase::Away {
            return;
        }
        // The old pull's page would be taken for the new stay's.
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

    /// Ends a stay: the device says goodbye, and owes no further account.
    pub(super) fn leave_room(&mut self, index: usize) {
        if self.is_calm || matches!(self.devices[index].phase, Phase::Away | Phase::Dead | Phase::Ended) {
            return;
        }
        // A device that was never let in has waited at least until now, and a wait left out would flatter the
        // node.
        if self.devices[index].phase != Phase::Watching && self.devices[index].due_ns <= monotonic_ns() {
            self.joined(index, monotonic_ns());
        }
        self.say_goodbye(index);
        self.end_stay(index);
        self.devices[index].phase = Phase::Away;
        self.moves.leaves += 1;
        self.plan_stay(index);
    }

    fn plan_hop(&mut self, index: usize, now_ns: u64) {
        let wait_ns = self.random.u64(HOP_EVERY_NS);
        self.errands.add(now_ns + wait_ns, index, Errand::Hop);
    }

    /// Moves a device to another room as a newcomer; large rooms draw more devices. In a run with hops every
    /// worker watches all rooms, so a room's index and place are equal.
    pub(super) fn hop(&mut self, index: usize, now_ns: u64) {
        let device = &self.devices[index];
        if self.is_calm
            || matches!(device.phase, Phase::Dead | Phase::Ended)
            || self.assignment.plan.rooms.min(self.assignment.plan.devices) < 2
        {
            return;
        }
        // A device that is not in its room, or in the middle of a pull, tries again at its next hop.
        if device.phase == Phase::Watching && !device.is_pulling {
            self.say_goodbye(index);
            self.end_stay(index);
            let room = self.seating.another(self.devices[index].place, &mut self.random);
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

    /// Cuts a device's connection in a storm. The device comes back within the storm's time.
    pub(super) fn storm(&mut self, index: usize, place: u8) {
        let Some(storm) = self.assignment.plan.storms.get(usize::from(place)).copied() else { return };
        if self.is_calm || self.devices[index].phase != Phase::Watching {
            return;
        }
        let away_ns = self.random.u64(..=storm.back_within.ms() * 1_000_000);
        self.moves.storm_cuts += 1;
        self.leave(index, self.start_ns + storm.at.ms() * 1_000_000 + away_ns);
    }

    /// Stops a device for ever: no reads and no pings on an open connection. A dead device
    /// owes no further account.
    pub(super) fn die(&mut self, index: usize, now_ns: u64) {
        let device = &mut self.devices[index];
        if self.is_calm || matches!(device.phase, Phase::Dead | Phase::Ended) {
            return;
        }
        // Only a connection can be left silent, so a device without one dies later.
        if device.phase != Phase::Watching {
            let wait_ns = self.random.u64(DEATH_NS);
            self.errands.add(now_ns + wait_ns, index, Errand::Die);
            return;
        }
        let kept = device.stream.take();
        self.end_stay(index);
        let device = &mut self.devices[index];
        device.stream = kept;
        device.phase = Phase::Dead;
        device.is_stalled = true;
        self.moves.deaths += 1;
    }

    /// Has a slow device read in sips from here on.
    pub(super) fn sip_from_now(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if !device.habits.is_slow || self.is_calm || self.start_ns == 0 || device.phase != Phase::Watching {
            return;
        }
        device.is_stalled = true;
        if !device.is_sipping {
            device.is_sipping = true;
            let now_ns = monotonic_ns();
            device.sipped_ms = after_ms(self.start_ns, now_ns);
            self.errands.add(now_ns + SIP_EVERY_NS, index, Errand::Sip);
        }
    }

    /// Reads a sip, and plans the next.
    pub(super) fn sip(&mut self, index: usize, now_ns: u64) -> Result<(), String> {
        let device = &mut self.devices[index];
        if self.is_calm || device.phase != Phase::Watching {
            device.is_sipping = false;
            return Ok(());
        }
        let now_ms = after_ms(self.start_ns, now_ns);
        let since_ns = u64::from(now_ms.saturating_sub(device.sipped_ms)) * 1_000_000;
        device.sipped_ms = now_ms;
        self.errands.add(now_ns + SIP_EVERY_NS, index, Errand::Sip);
        self.read_once(index, self.assignment.plan.awkward.sip_bytes(since_ns)).map(drop)
    }

    /// Records the time from a device's due time to the welcome. Joins before the first publish follow the
    /// free handshakes instead of a schedule, and are left out.
    pub(super) fn joined(&mut self, index: usize, now_ns: u64) {
        let due_ns = self.devices[index].due_ns;
        if self.start_ns > 0 && due_ns >= self.watch.figures.timed_from_ns.max(self.start_ns) {
            self.joins.record(now_ns.saturating_sub(due_ns), 1);
        }
    }

    /// Settles a device that leaves its room for good, and drops its connection.
    fn end_stay(&mut self, index: usize) {
        self.watch.end_stay(self.devices[index].track, self.seat(index), monotonic_ns());
        self.depart(index);
    }

    /// Drops a device's connection from this side.
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
        device.door = self.doors.another(device.door, |below| self.random.u64(..below));
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
            // A full kernel buffer loses the goodbye, as a real device does.
            drop(stream.write(&close));
        }
    }
}

/// Whole milliseconds, of which a run has at most some millions.
fn after_ms(start_ns: u64, now_ns: u64) -> u32 {
    u32::try_from(now_ns.saturating_sub(start_ns) / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::watching;
    use crate::scenario::habits::Awkward;

    #[test]
    fn who_hops_goes_where_most_are() {
        let mut viewers = watching(1_000, 10, Awkward::default());
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
