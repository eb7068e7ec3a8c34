//! How devices connect, and what becomes of connections that end: attempts, retries, and who is given up.

use std::io::Write as _;

use mio::{Interest, Token};

use super::{Devices, Phase};
use crate::clock::monotonic_ns;
use crate::devices::errands::Errand;
use crate::ledger::Kind;
use crate::machine::sockets;
use crate::scenario::habits::{DeviceHabits, until_return_ns};

/// Attempts at one device's connection. Past it the run is given up, or after the first publish the device.
const ATTEMPTS_MAX: u8 = 5;
/// How long a failed attempt waits for its next, times the attempts so far.
const RETRY_AFTER_NS: u64 = 200_000_000;
/// What the kernel may hold for a device that stalls, dawdles or dies: little, or it stops reading without anybody noticing.
const STALLING_RECEIVE_BYTES: usize = 4 * 1024;

impl Devices {
    pub(super) fn connect_more(&mut self) -> Result<(), String> {
        while self.shaking < self.crowd.handshakes_max {
            let index = if let Some(index) = self.retries.pop_front() {
                index
            } else if self.untried < self.devices.len() {
                self.untried += 1;
                self.devices[self.untried - 1].due_ns = monotonic_ns();
                self.untried - 1
            } else {
                return Ok(());
            };
            // Away as yet; or it left, or is here, before its turn came.
            if self.devices[index].phase != Phase::Idle {
                continue;
            }
            self.shaking += 1;
            if let Err(error) = self.connect(index) {
                self.give_back(index, &error.to_string())?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) -> std::io::Result<()> {
        let DeviceHabits { stalls, is_slow, dies, .. } = self.devices[index].habits;
        let receive_bytes = (stalls || is_slow || dies).then_some(STALLING_RECEIVE_BYTES);
        let mut stream = sockets::connect(self.door, self.crowd.source_of(index), receive_bytes)?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let device = &mut self.devices[index];
        device.stream = Some(stream);
        device.phase = Phase::Connecting;
        Ok(())
    }

    /// Connected: asks for the room.
    pub(super) fn ask(&mut self, index: usize) -> Result<(), String> {
        let seat = self.seat(index);
        let query = self.watch.resume_query(self.devices[index].track, seat);
        let request = self.handshake.request(&self.room_names[seat.place], &query);
        let Some(stream) = &mut self.devices[index].stream else { return Ok(()) };
        let written = match stream.take_error() {
            Ok(None) => stream.write(&request),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match written {
            Ok(written) if written == request.len() => {
                self.devices[index].phase = Phase::Handshaking;
                Ok(())
            }
            Ok(_) => self.give_back(index, "the kernel took half a request"),
            Err(error) => self.give_back(index, &error.to_string()),
        }
    }

    /// A connection that ended before its welcome: tried again a little later, unless it was tried enough.
    #[cold]
    pub(super) fn give_back(&mut self, index: usize, reason: &str) -> Result<(), String> {
        self.shaking -= 1;
        let device = &mut self.devices[index];
        device.stream = None;
        device.half = Vec::new();
        device.phase = Phase::Idle;
        device.attempts = device.attempts.saturating_add(1);
        let attempts = device.attempts;
        let is_known = device.track.is_known() || self.start_ns > 0;
        let wait_ns = if self.crowd.awkward.through_restarts {
            until_return_ns(&mut self.random)
        } else if attempts < ATTEMPTS_MAX {
            RETRY_AFTER_NS * u64::from(attempts)
        } else if is_known {
            self.give_up(index, reason);
            return Ok(());
        } else {
            return Err(format!("device {} after {attempts} attempts: {reason}", self.seat(index).device));
        };
        self.errands.add(monotonic_ns() + wait_ns, index, Errand::Connect);
        Ok(())
    }

    /// A device that is not in its room and should be.
    #[cold]
    pub(super) fn give_up(&mut self, index: usize, reason: &str) {
        let device = &mut self.devices[index];
        device.stream = None;
        device.phase = Phase::Ended;
        let seat = self.seat(index);
        self.watch.violations.add(Kind::Disconnected, 1, || format!("device {}: {reason}", seat.device));
    }

    /// A connection that ended: an attempt that failed, or a device that was cut off.
    #[cold]
    pub(super) fn lose(&mut self, index: usize, reason: &str) -> Result<(), String> {
        match self.devices[index].phase {
            Phase::Away | Phase::Idle | Phase::Dead | Phase::Ended => Ok(()),
            Phase::Connecting | Phase::Handshaking | Phase::Waiting => self.give_back(index, reason),
            Phase::Watching if self.may_return(index) => {
                let wait_ns = until_return_ns(&mut self.random);
                self.leave(index, monotonic_ns() + wait_ns);
                Ok(())
            }
            Phase::Watching => {
                self.watching -= 1;
                self.give_up(index, reason);
                Ok(())
            }
        }
    }
}
