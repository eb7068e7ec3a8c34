//! Connections of devices: attempts, retries, and the end of a connection.

use std::io::Write as _;

use mio::{Interest, Token};

use super::{Device, Devices, Phase};
use crate::clock::monotonic_ns;
use crate::devices::errands::Errand;
use crate::ledger::Kind;
use crate::machine::sockets;
use crate::scenario::habits::{DeviceHabits, RETURN_NS};
use crate::wire::route::viewer_door;

/// Attempts at a device's connection. After the last, the run is given up; once publishing began, the
/// device.
const ATTEMPTS_MAX: u8 = 5;
/// Wait before another look for the answer about a room's nodes.
const ROUTE_AGAIN_NS: u64 = 20_000_000;
/// Wait between a failed attempt and the next, times the attempts so far.
const RETRY_AFTER_NS: u64 = 200_000_000;
/// The reason of a close without room for the URL.
const NAME_ELSEWHERE: &str = "elsewhere";
/// Kernel buffer of a stalling, slow or dying device. In a larger buffer the silence would go
/// unnoticed.
const STALLING_RECEIVE_BYTES: usize = 4 * 1024;

impl Devices {
    /// Begins handshakes until `handshakes_max` of the assignment are under way: retries first, then untried
    /// devices.
    pub(super) fn connect_more(&mut self) -> Result<(), String> {
        while self.shaking < self.assignment.handshakes_max {
            let index = if let Some(index) = self.retries.pop_front() {
                index
            } else if self.untried < self.devices.len() {
                self.untried += 1;
                self.devices[self.untried - 1].due_ns = monotonic_ns();
                self.untried - 1
            } else {
                return Ok(());
            };
            // A device before its first stay; or one that left, or came in, before its turn.
            if self.devices[index].phase != Phase::Idle {
                continue;
            }
            if !self.choose_door(index) {
                self.errands.add(monotonic_ns() + ROUTE_AGAIN_NS, index, Errand::Connect);
                continue;
            }
            self.shaking += 1;
            if let Err(error) = self.connect(index) {
                self.give_back(index, &error.to_string())?;
            }
        }
        Ok(())
    }

    /// Chooses the door of the next connection. `false`: the nodes for the room are being asked for.
    fn choose_door(&mut self, index: usize) -> bool {
        let Device { place, door, is_sent, .. } = self.devices[index];
        // The node knows better than an older answer.
        if is_sent {
            self.devices[index].is_sent = false;
            return true;
        }
        let room = self.watch.room_name(place as usize);
        let chosen = self.doors.choose(room, door, monotonic_ns(), |below| self.random.u64(..below));
        if let Some(door) = chosen {
            self.devices[index].door = door;
        }
        chosen.is_some()
    }

    /// Follows a close with the URL of another door.
    #[cold]
    pub(super) fn go_elsewhere(&mut self, index: usize, url: &str) -> Result<(), String> {
        let door = match viewer_door(url).map(|door| self.doors.learn(&door)) {
            Ok(Some(door)) => door,
            Ok(None) => return self.lose(index, "sent to one door too many"),
            // A URL that is too long for a close frame.
            Err(_) if url == NAME_ELSEWHERE => {
                self.doors.another(self.devices[index].door, |below| self.random.u64(..below))
            }
            Err(reason) => {
                self.watch.broke(
                    Kind::Unexpected,
                    self.seat(index),
                    format_args!("sent elsewhere: {reason}"),
                );
                return self.lose(index, &reason);
            }
        };
        match self.devices[index].phase {
            Phase::Watching => self.leave(index, monotonic_ns()),
            Phase::Connecting | Phase::Handshaking | Phase::Waiting => {
                self.give_back(index, "sent elsewhere")?;
            }
            Phase::Away | Phase::Idle | Phase::Dead | Phase::Ended => return Ok(()),
        }
        self.devices[index].door = door;
        self.devices[index].is_sent = true;
        self.moves.sent_elsewhere += 1;
        Ok(())
    }

    fn connect(&mut self, index: usize) -> std::io::Result<()> {
        let DeviceHabits { stalls, is_slow, dies, .. } = self.devices[index].habits;
        let receive_bytes = (stalls || is_slow || dies).then_some(STALLING_RECEIVE_BYTES);
        let mut stream = sockets::connect(
            self.doors.door(self.devices[index].door).address,
            self.assignment.source_of(index),
            receive_bytes,
        )?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let device = &mut self.devices[index];
        device.stream = Some(stream);
        device.phase = Phase::Connecting;
        Ok(())
    }

    /// Asks for the room over a new connection.
    pub(super) fn ask(&mut self, index: usize) -> Result<(), String> {
        let seat = self.seat(index);
        let query = self.watch.resume_query(self.devices[index].track, seat);
        let request = self.handshake.request(
            self.doors.door(self.devices[index].door),
            self.watch.room_name(seat.place),
            &query,
        );
        let Some(stream) = &mut self.devices[index].stream else { return Ok(()) };
        // A refused connection becomes writable as well, with an error.
        let written = match stream.take_error() {
            Ok(None) => stream.write(&request),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match written {
            Ok(written) if written == request.len() => {
                self.devices[index].phase = Phase::Handshaking;
                Ok(())
            }
            // A new connection's buffer holds many requests, so a rest is not worth keeping.
            Ok(_) => self.give_back(index, "the kernel took half a request"),
            Err(error) => self.give_back(index, &error.to_string()),
        }
    }

    /// Ends an attempt without a welcome, and plans another while attempts are left.
    #[cold]
    pub(super) fn give_back(&mut self, index: usize, reason: &str) -> Result<(), String> {
        self.shaking -= 1;
        let device = &mut self.devices[index];
        device.stream = None;
        device.half = Vec::new();
        device.phase = Phase::Idle;
        device.attempts = device.attempts.saturating_add(1);
        device.door = self.doors.another(device.door, |below| self.random.u64(..below));
        self.doors.forget(self.watch.room_name(device.place as usize));
        let attempts = device.attempts;
        let is_known = device.track.is_known() || self.start_ns > 0;
        let wait_ns = if self.assignment.plan.awkward.through_restarts {
            // The node may be down for as long as it takes to start.
            self.random.u64(RETURN_NS)
        } else if attempts < ATTEMPTS_MAX {
            RETRY_AFTER_NS * u64::from(attempts)
        } else if is_known {
            self.give_up(index, reason);
            return Ok(());
        } else {
            // Before the first publish a missing device would make the run another run.
            return Err(format!("device {} after {attempts} attempts: {reason}", self.seat(index).device));
        };
        self.errands.add(monotonic_ns() + wait_ns, index, Errand::Connect);
        Ok(())
    }

    /// Counts a device as cut off, for good.
    #[cold]
    pub(super) fn give_up(&mut self, index: usize, reason: &str) {
        let device = &mut self.devices[index];
        device.stream = None;
        device.phase = Phase::Ended;
        self.watch.broke(Kind::Disconnected, self.seat(index), format_args!("{reason}"));
    }

    /// Takes note of an end by the other side: an attempt fails, or a device was cut off.
    #[cold]
    pub(super) fn lose(&mut self, index: usize, reason: &str) -> Result<(), String> {
        match self.devices[index].phase {
            Phase::Away | Phase::Idle | Phase::Dead | Phase::Ended => {}
            Phase::Connecting | Phase::Handshaking | Phase::Waiting => return self.give_back(index, reason),
            Phase::Watching if self.may_return(index) => {
                let wait_ns = self.random.u64(RETURN_NS);
                self.leave(index, monotonic_ns() + wait_ns);
            }
            Phase::Watching => {
                self.watching -= 1;
                self.give_up(index, reason);
            }
        }
        Ok(())
    }
}
