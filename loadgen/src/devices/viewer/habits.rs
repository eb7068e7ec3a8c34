//! Acts of devices on their own: acknowledgements, pulls, stalls, cuts and returns.

use mio::Token;

use super::{Devices, Ending, Phase};
use crate::clock::monotonic_ns;
use crate::devices::errands::Errand;
use crate::devices::pulls::Pulled;
use crate::machine::sockets;
use crate::scenario::habits::{AWAY_NS, CUT_EVERY_NS, FIRST_STALL_NS, STALL_EVERY_NS};
use crate::wire::page::page_path;

/// Wait of a device between a pull without progress and the next.
const PULL_AGAIN_NS: u64 = 300_000_000;

impl Devices {
    /// Sets the time of the first publish. Devices follow their habits from now on.
    pub(crate) fn begin(&mut self, start_ns: u64) {
        self.start_ns = start_ns;
        let now_ns = monotonic_ns();
        for index in 0..self.devices.len() {
            if self.devices[index].habits.stalls {
                let wait_ns = self.random.u64(FIRST_STALL_NS);
                self.errands.add(now_ns + wait_ns, index, Errand::Stall);
            }
            if self.devices[index].phase == Phase::Watching {
                self.plan_cut(index, now_ns);
            }
            self.plan_comings(index, now_ns);
        }
    }

    /// Ends the habits after the last publish: stalled devices read again, and no device goes away any more.
    pub(crate) fn calm(&mut self) -> Result<(), String> {
        self.is_calm = true;
        for index in 0..self.devices.len() {
            self.wake(index)?;
        }
        Ok(())
    }

    /// Plans a device's cut. A second cut is never planned: returns for other reasons must not multiply the
    /// cuts.
    fn plan_cut(&mut self, index: usize, now_ns: u64) {
        let device = &mut self.devices[index];
        if device.habits.reconnects && !device.is_cut_planned && !self.is_calm {
            device.is_cut_planned = true;
            let wait_ns = self.random.u64(CUT_EVERY_NS);
            self.errands.add(now_ns + wait_ns, index, Errand::Cut);
        }
    }

    /// Cuts a device's connection. For a device outside the room, the next cut is planned at the return.
    fn cut(&mut self, index: usize, now_ns: u64) {
        let device = &mut self.devices[index];
        device.is_cut_planned = false;
        if device.phase == Phase::Watching && !self.is_calm {
            let wait_ns = self.random.u64(AWAY_NS);
            self.leave(index, now_ns + wait_ns);
        }
    }

    pub(super) fn run_errands(&mut self) -> Result<(), String> {
        let now_ns = monotonic_ns();
        while let Some((index, errand)) = self.errands.take_due(now_ns) {
            match errand {
                Errand::Acknowledge => self.acknowledge(index),
                Errand::Connect => self.retries.push_back(index),
                Errand::Cut => self.cut(index, now_ns),
                Errand::Join => self.join(index, now_ns),
                Errand::Leave => self.leave_room(index),
                Errand::Hop => self.hop(index, now_ns),
                Errand::Storm(place) => self.storm(index, place),
                Errand::Die => self.die(index, now_ns),
                Errand::Sip => self.sip(index, now_ns)?,
                Errand::Stall => self.stall(index, now_ns),
                Errand::Wake => self.wake(index)?,
                Errand::Pull => self.want_pull(index),
            }
        }
        Ok(())
    }

    /// Has a device pull missing offsets, and acknowledge, after a frame with a part of the stream.
    #[inline]
    pub(super) fn heard_reliable(&mut self, index: usize, ack_within_ms: u64, now_ns: u64) {
        let device = &mut self.devices[index];
        if device.track.place.wanted > device.track.place.offset && !device.is_pulling {
            device.is_pulling = true;
            self.pulls.want(index);
        }
        if !device.owes_ack && device.track.place.offset > 0 {
            device.owes_ack = true;
            // Spread over the time that the node allows, so that a crowd does not acknowledge at one moment.
            let wait_ns = self.random.u64(..=ack_within_ms * 1_000_000);
            self.errands.add(now_ns + wait_ns, index, Errand::Acknowledge);
        }
    }

    /// Takes note of a device's welcome, first or later.
    pub(super) fn welcomed(&mut self, index: usize, ack_within_ms: Option<u64>, now_ns: u64) {
        self.joined(index, now_ns);
        self.sip_from_now(index);
        // Only a return sets this time. The cuts of first joins are planned at the first publish.
        if self.devices[index].track.place.returned_ns == now_ns {
            self.latest_return_ns = now_ns;
            self.plan_cut(index, now_ns);
        }
        if let Some(within_ms) = ack_within_ms {
            self.heard_reliable(index, within_ms, now_ns);
        }
    }

    /// The end of this device's connection is no broken promise, and the device comes back. A node may cut
    /// devices without reads.
    pub(super) fn may_return(&self, index: usize) -> bool {
        let habits = self.devices[index].habits;
        self.assignment.plan.awkward.through_restarts || habits.stalls || habits.is_slow
    }

    /// Ends a device's connection without a goodbye. The device connects again at `due_ns`.
    pub(super) fn leave(&mut self, index: usize, due_ns: u64) {
        self.depart(index);
        let device = &mut self.devices[index];
        device.phase = Phase::Idle;
        device.due_ns = due_ns;
        self.moves.absences += 1;
        self.errands.add(due_ns, index, Errand::Connect);
    }

    fn stall(&mut self, index: usize, now_ns: u64) {
        if self.is_calm {
            return;
        }
        let again_ns = now_ns + self.assignment.plan.awkward.stall_ns + self.random.u64(STALL_EVERY_NS);
        self.errands.add(again_ns, index, Errand::Stall);
        let device = &mut self.devices[index];
        if device.phase != Phase::Watching || device.is_stalled {
            return;
        }
        device.is_stalled = true;
        self.errands.add(now_ns + self.assignment.plan.awkward.stall_ns, index, Errand::Wake);
        if let Some(streams) = &mut self.watch.streams {
            streams.tally.stalls += 1;
        }
    }

    /// Has a stalled device read again.
    fn wake(&mut self, index: usize) -> Result<(), String> {
        let device = &mut self.devices[index];
        // The connection may be gone by now, and a dead device stays silent.
        if !device.is_stalled || device.phase == Phase::Dead {
            return Ok(());
        }
        device.is_stalled = false;
        // A slow device wakes only after the last publish, and then reads like any other.
        device.track.place.is_slow = false;
        let now_ns = monotonic_ns();
        device.track.place.returned_ns = now_ns;
        self.latest_return_ns = now_ns;
        // Events during the stall were not looked at, so the socket is read until it is empty.
        self.read(index, Ending(true))
    }

    /// Sends one cumulative acknowledgement, or drops the acknowledgement by the device's habit.
    fn acknowledge(&mut self, index: usize) {
        let seat = self.seat(index);
        let room = self.watch.room_name(seat.place).to_owned();
        let device = &mut self.devices[index];
        if !device.owes_ack || device.phase != Phase::Watching {
            return;
        }
        let place = device.track.place;
        device.owes_ack = false;
        let Some(streams) = &mut self.watch.streams else { return };
        if place.drops_acks && self.assignment.plan.awkward.drops_this(&mut self.random) {
            streams.tally.acks_dropped += 1;
            return;
        }
        let Some(epoch) = streams.epoch(place, seat) else { return };
        let ack = self.handshake.encoding.ack(&room, epoch, place.offset);
        streams.tally.acks_sent += 1;
        // A connection that ends here is counted by `lose`.
        drop(self.say(index, self.handshake.encoding.opcode(), &ack));
    }

    fn want_pull(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let place = device.track.place;
        device.is_pulling = device.phase == Phase::Watching && place.wanted > place.offset;
        if device.is_pulling {
            self.pulls.want(index);
        }
    }

    /// Begins the waiting pulls, as far as slots are free.
    pub(super) fn pull_more(&mut self) {
        let now_ns = monotonic_ns();
        while let Some(pulled) = self.pulls.expire(now_ns) {
            self.pulled(pulled);
        }
        while let Some(index) = self.pulls.next() {
            let seat = self.seat(index);
            let place = self.devices[index].track.place;
            let cursor = self.watch.streams.as_ref().and_then(|streams| streams.cursor(place, seat));
            let path = page_path(self.watch.room_name(seat.place), cursor.as_deref());
            let target = &self.assignment.plan.target;
            let door = self.doors.door(self.devices[index].door);
            let request = door.request(&path, target.device_token.as_deref()).into_bytes();
            let begun = sockets::connect(door.address, self.assignment.source_of(index), None)
                .and_then(|stream| self.pulls.begin(self.poll.registry(), index, stream, request, now_ns));
            if begun.is_err() {
                self.pulled(Pulled { device: index, page: None });
            }
        }
    }

    pub(super) fn pull_ready(&mut self, token: Token) {
        if let Some(pulled) = self.pulls.ready(token) {
            self.pulled(pulled);
        }
    }

    /// Applies a pulled page, and plans the next pull while offsets are missing.
    fn pulled(&mut self, pulled: Pulled) {
        let index = pulled.device;
        let now_ns = monotonic_ns();
        let seat = self.seat(index);
        let room = self.watch.room_name(seat.place).to_owned();
        let device = &mut self.devices[index];
        let Some(streams) = &mut self.watch.streams else { return };
        let before = device.track.place;
        let mut brought = None;
        match pulled.page {
            Some(page) if device.phase == Phase::Watching && page.room == room => {
                let place = &mut device.track.place;
                brought = streams.take_page(place, seat, &page, now_ns, &mut self.watch.violations);
            }
            // The device left meanwhile. Its welcome will honour its cursor.
            Some(_) => {}
            None => streams.tally.pulls_failed += 1,
        }
        let place = device.track.place;
        if place.wanted > place.offset {
            let wait_ns = if place == before { PULL_AGAIN_NS } else { 0 };
            self.errands.add(now_ns + wait_ns, index, Errand::Pull);
        } else {
            device.is_pulling = false;
        }
        if let Some(brought) = brought {
            self.heard_reliable(index, brought.ack_within_ms, now_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::watching;
    use super::*;
    use crate::scenario::habits::Awkward;

    #[test]
    fn a_device_that_comes_back_often_is_cut_no_more_often_for_it() {
        let awkward = Awkward { reconnect_share: 1_000_000, ..Awkward::default() };
        let mut viewers = watching(2, 1, awkward);
        for now_ns in [10, 20, 30] {
            viewers.devices[1].track.place.returned_ns = now_ns;
            viewers.welcomed(1, None, now_ns);
        }
        let planned = |viewers: &mut Devices| {
            let errands = std::iter::from_fn(|| viewers.errands.take_due(u64::MAX));
            errands.filter(|(_, errand)| *errand == Errand::Cut).count()
        };
        assert_eq!(planned(&mut viewers), 1);
        viewers.cut(1, 40);
        assert_eq!((viewers.devices[1].phase, planned(&mut viewers)), (Phase::Idle, 0));
        viewers.devices[1].track.place.returned_ns = 50;
        viewers.welcomed(1, None, 50);
        assert_eq!(planned(&mut viewers), 1, "the next follows its return");
    }
}
