//! Many devices on one thread: connections, reads, and pings.
//!
//! Here are only sockets; `watch` judges the frames. Submodules: `connecting` (attempts and retries),
//! `habits` (acknowledgements, pulls, stalls, cuts), `comings` (stays, hops, storms, deaths).
//!
//! A device is one `Device` of some hundred bytes and a socket. All devices read into one scratch. Only a
//! half frame owns bytes, from a reused pool, so the steady state allocates nothing.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Poll, Token, Waker};

use crate::clock::monotonic_ns;
use crate::devices::assignment::Assignment;
use crate::devices::doors::{DoorPlace, ViewerDoors};
use crate::devices::errands::Errands;
use crate::devices::moves::Moves;
use crate::devices::pulls::Pulls;
use crate::devices::track::{Seat, Track};
use crate::devices::watch::{Heard, Watch};
use crate::figures::latency::Latency;
use crate::ledger::Kind;
use crate::scenario::habits::DeviceHabits;
use crate::scenario::seating::Seating;
use crate::wire::frame::{self, FRAME_BYTES_MAX, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, Start};
use crate::wire::handshake::Handshake;

mod comings;
mod connecting;
mod habits;

/// Largest read: a whole frame and the half of the next.
const SCRATCH_BYTES: usize = 2 * FRAME_BYTES_MAX;
/// Readiness events taken in one turn.
const EVENTS_MAX: usize = 4096;
/// Buffers for half frames kept for reuse.
const SPARE_MAX: usize = 1024;
/// Code of a close with the URL of another node's viewer door as its reason.
const CODE_ELSEWHERE: u16 = 4005;
const WAKE: Token = Token(usize::MAX);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Before the first stay, or between two.
    #[default]
    Away,
    /// Meant to be in a room, without a connection.
    Idle,
    Connecting,
    Handshaking,
    /// Upgraded, without a welcome.
    Waiting,
    Watching,
    /// Connected, and silent for ever.
    Dead,
    Ended,
}

#[derive(Debug, Default)]
struct Device {
    stream: Option<TcpStream>,
    /// The received part of a frame or of a handshake's answer.
    half: Vec<u8>,
    track: Track,
    /// Due time of the latest join or return.
    due_ns: u64,
    /// The door of the connection; without a connection, of the next.
    door: DoorPlace,
    /// A node named `door` for the next connection.
    is_sent: bool,
    /// Place of the room among this worker's rooms.
    place: u32,
    phase: Phase,
    attempts: u8,
    habits: DeviceHabits,
    /// The device does not read now.
    is_stalled: bool,
    /// An acknowledgement is planned.
    owes_ack: bool,
    /// A pull is wanted or under way.
    is_pulling: bool,
    /// The next sip is planned.
    is_sipping: bool,
    /// Milliseconds from the first publish to the last sip.
    sipped_ms: u32,
    is_cut_planned: bool,
}

/// The devices of a worker.
#[derive(Debug)]
pub(crate) struct Devices {
    poll: Poll,
    events: Events,
    assignment: Assignment,
    /// The first room of every device of the run.
    seating: Seating,
    handshake: Handshake,
    doors: ViewerDoors,
    devices: Vec<Device>,
    pub(crate) watch: Watch,
    scratch: Vec<u8>,
    /// The last frame sent, for reuse.
    outgoing: Vec<u8>,
    spare: Vec<Vec<u8>>,
    random: fastrand::Rng,
    /// Time of the first publish; 0: unknown so far.
    start_ns: u64,
    /// Devices to join before the first publish.
    first: usize,
    /// Time from a device's due join or return to the welcome.
    pub(crate) joins: Latency,
    pub(crate) moves: Moves,
    /// The first device without an attempt to connect; later devices have none either.
    untried: usize,
    /// Devices whose next attempt to connect is due.
    retries: VecDeque<usize>,
    errands: Errands,
    pulls: Pulls,
    /// Publishing is over, and the devices' habits with it.
    is_calm: bool,
    /// The time of the latest return of a device, or of the latest end of a stall.
    pub(crate) latest_return_ns: u64,
    /// Devices between the start of their connection and their welcome.
    shaking: u32,
    /// Devices in their rooms.
    pub(crate) watching: usize,
    /// Time between two pings of a device; 0 before the first welcome.
    ping_every_ns: u64,
    /// Devices pinged in this round.
    pinged: usize,
    /// Start of this round.
    ping_round_ns: u64,
}

impl Devices {
    /// Devices without connections. `rooms` are their rooms, and those of `watch`.
    ///
    /// # Errors
    /// When the kernel gives no epoll descriptor.
    pub(crate) fn new(assignment: Assignment, rooms: &[u32], watch: Watch) -> std::io::Result<Self> {
        let plan = &assignment.plan;
        let target = &plan.target;
        let doors = assignment.first_doors(target.viewer_doors.len());
        let idle = |(index, (place, door)): (usize, (u32, usize))| {
            let habits = assignment.habits(index);
            let is_first = assignment.stay(index, 0).is_some_and(|stay| stay.from_ns.is_none());
            let phase = if is_first { Phase::Idle } else { Phase::Away };
            let door = DoorPlace::try_from(door).unwrap_or(0);
            Device { track: Track::new(habits), place, door, phase, habits, ..Device::default() }
        };
        let devices: Vec<Device> = assignment.places(rooms).zip(doors).enumerate().map(idle).collect();
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            handshake: Handshake::new(plan.encoding, target.device_token.as_deref()),
            doors: ViewerDoors::new(
                target.viewer_doors.clone(),
                target.route.clone(),
                target.device_token.clone(),
            ),
            first: devices.iter().filter(|device| device.phase == Phase::Idle).count(),
            devices,
            watch,
            scratch: vec![0; SCRATCH_BYTES],
            outgoing: Vec::new(),
            spare: Vec::new(),
            random: fastrand::Rng::with_seed(plan.seed ^ u64::from(assignment.worker)),
            seating: assignment.seating(),
            start_ns: 0,
            joins: Latency::default(),
            moves: Moves::default(),
            untried: 0,
            retries: VecDeque::new(),
            errands: Errands::default(),
            pulls: Pulls::default(),
            is_calm: false,
            latest_return_ns: 0,
            shaking: 0,
            watching: 0,
            ping_every_ns: 0,
            pinged: 0,
            ping_round_ns: 0,
            assignment,
        })
    }

    /// A handle by which another thread ends a turn.
    ///
    /// # Errors
    /// When the kernel gives no eventfd.
    pub(crate) fn waker(&self) -> std::io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKE)
    }

    /// Every device due before the first publish is in its room.
    pub(crate) fn is_ready(&self) -> bool {
        self.watching == self.first
    }

    /// Devices on their way to their rooms.
    pub(crate) fn joining(&self) -> usize {
        self.shaking as usize + self.retries.len()
    }

    fn seat(&self, index: usize) -> Seat {
        Seat { device: self.assignment.number(index), place: self.devices[index].place as usize }
    }

    /// Takes a turn: begins due errands, connections and pulls, waits at most `wait`, reads, and sends due
    /// pings.
    ///
    /// # Errors
    /// A sentence, when a device could not be connected and has no attempt left.
    pub(crate) fn turn(&mut self, wait: Duration) -> Result<(), String> {
        self.run_errands()?;
        self.connect_more()?;
        self.pull_more();
        let until_errand = |due_ns: u64| Duration::from_nanos(due_ns.saturating_sub(monotonic_ns()));
        let wait = self.errands.due_ns().map_or(wait, |due_ns| wait.min(until_errand(due_ns)));
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(format!("waiting for devices: {error}")),
        }
        // Taken out of `self`, because the loop needs all of `self`.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut outcome = Ok(());
        for event in &events {
            if event.token() == WAKE {
                continue;
            }
            if Pulls::owns(event.token()) {
                self.pull_ready(event.token());
                continue;
            }
            let index = event.token().0;
            // After an error the other events are still taken, and the first error is told.
            if self.devices[index].phase == Phase::Connecting && event.is_writable() {
                outcome = outcome.and_then(|()| self.ask(index));
            }
            if (event.is_readable() || event.is_read_closed()) && !self.devices[index].is_stalled {
                outcome = outcome.and_then(|()| self.read(index, Ending(event.is_read_closed())));
            }
        }
        self.events = events;
        self.ping_due();
        outcome
    }

    /// Reads until the socket is empty. A read that did not fill the scratch emptied the socket (epoll(7)),
    /// which saves another read, unless the connection is ending.
    fn read(&mut self, index: usize, ending: Ending) -> Result<(), String> {
        loop {
            match self.read_once(index, SCRATCH_BYTES)? {
                Got::All => {}
                Got::Less if ending.0 => {}
                Got::Less | Got::Nothing => return Ok(()),
            }
        }
    }

    /// Reads once, at most `bytes_max`, and takes the whole frames.
    #[inline]
    fn read_once(&mut self, index: usize, bytes_max: usize) -> Result<Got, String> {
        let device = &mut self.devices[index];
        let Some(stream) = &mut device.stream else { return Ok(Got::Nothing) };
        let held = device.half.len();
        let until = self.scratch.len().min(held + bytes_max);
        let read = match stream.read(&mut self.scratch[held..until]) {
            Ok(0) => return self.lose(index, "ended by the server").map(|()| Got::Nothing),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Got::Nothing),
            // `All` makes the caller read again.
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Got::All),
            Err(error) => return self.lose(index, &error.to_string()).map(|()| Got::Nothing),
        };
        // Copied in front of the new bytes only after the read: a read without bytes costs no copy.
        if held > 0 {
            self.scratch[..held].copy_from_slice(&device.half);
            let mut emptied = std::mem::take(&mut device.half);
            emptied.clear();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(emptied);
            }
        }
        let end = held + read;
        self.take(index, end)?;
        Ok(if end < until { Got::Less } else { Got::All })
    }

    /// Takes every whole frame of the scratch up to `end`, and keeps the half frame behind.
    fn take(&mut self, index: usize, end: usize) -> Result<(), String> {
        let now_ns = monotonic_ns();
        let mut at = 0;
        if self.devices[index].phase == Phase::Handshaking {
            let door = self.doors.door(self.devices[index].door);
            match self.handshake.answer(door, &self.scratch[..end]) {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    at = bytes;
                    self.devices[index].phase = Phase::Waiting;
                }
                Err(reason) => return self.give_back(index, &reason),
            }
        }
        while matches!(self.devices[index].phase, Phase::Waiting | Phase::Watching) {
            match frame::start(&self.scratch[at..end]) {
                Start::Half => break,
                Start::Bad(reason) => return self.lose_unreadable(index, reason),
                Start::Whole { opcode, header_bytes, payload_bytes } => {
                    let from = at + header_bytes;
                    at = from + payload_bytes;
                    self.take_frame(index, opcode, from..at, now_ns)?;
                }
            }
        }
        if at < end && self.devices[index].stream.is_some() {
            let mut half = self.spare.pop().unwrap_or_default();
            half.extend_from_slice(&self.scratch[at..end]);
            self.devices[index].half = half;
        }
        Ok(())
    }

    /// Drops a connection behind an unreadable frame, whose end is unknown.
    fn lose_unreadable(&mut self, index: usize, reason: &str) -> Result<(), String> {
        self.watch.broke(Kind::Undecodable, self.seat(index), format_args!("{reason}"));
        self.lose(index, reason)
    }

    #[inline]
    fn take_frame(
        &mut self,
        index: usize,
        opcode: u8,
        at: std::ops::Range<usize>,
        now_ns: u64,
    ) -> Result<(), String> {
        if opcode != self.handshake.encoding.opcode() {
            return self.take_control(index, opcode, at);
        }
        let seat = self.seat(index);
        let heard = self.watch.hear(&mut self.devices[index].track, seat, &self.scratch[at], now_ns);
        match heard {
            Heard::Judged { ack_within_ms: None } => Ok(()),
            Heard::Judged { ack_within_ms: Some(within_ms) } => {
                self.heard_reliable(index, within_ms, now_ns);
                Ok(())
            }
            Heard::Welcomed { heartbeat_ms, ack_within_ms } => {
                self.devices[index].phase = Phase::Watching;
                self.devices[index].attempts = 0;
                self.shaking -= 1;
                self.watching += 1;
                self.welcomed(index, ack_within_ms, now_ns);
                self.set_heartbeat(heartbeat_ms);
                Ok(())
            }
            Heard::Rewelcomed { heartbeat_ms, ack_within_ms } => {
                self.moves.rewelcomes += 1;
                self.latest_return_ns = now_ns;
                self.set_heartbeat(heartbeat_ms);
                if let Some(within_ms) = ack_within_ms {
                    self.heard_reliable(index, within_ms, now_ns);
                }
                Ok(())
            }
            Heard::NotAWelcome => {
                self.give_back(index, "not roomcast: its first frame is no welcome to the room")
            }
        }
    }

    fn set_heartbeat(&mut self, heartbeat_ms: u64) {
        // Eight tenths of the heartbeat: a busy turn delays a ping. The server waits for 2.5 heartbeats.
        self.ping_every_ns = heartbeat_ms * 800_000;
    }

    #[cold]
    fn take_control(&mut self, index: usize, opcode: u8, at: std::ops::Range<usize>) -> Result<(), String> {
        match opcode {
            OPCODE_PING => {
                let payload = self.scratch[at].to_vec();
                self.say(index, OPCODE_PONG, &payload)
            }
            OPCODE_PONG => Ok(()),
            OPCODE_CLOSE => {
                // 1005: the close frame names no code (RFC 6455, 7.4.1).
                let code = self.scratch.get(at.start..at.start + 2).filter(|_| at.len() >= 2);
                let code = code.map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                if code == CODE_ELSEWHERE {
                    let url = String::from_utf8_lossy(&self.scratch[at.start + 2..at.end]).into_owned();
                    return self.go_elsewhere(index, &url);
                }
                self.lose(index, &format!("closed by the server, code {code}"))
            }
            other => self.lose_unreadable(index, &format!("a frame with opcode {other}")),
        }
    }

    /// Sends one frame.
    fn say(&mut self, index: usize, opcode: u8, payload: &[u8]) -> Result<(), String> {
        let Some(stream) = &mut self.devices[index].stream else { return Ok(()) };
        self.outgoing.clear();
        frame::write_device_frame(&mut self.outgoing, opcode, payload, self.random.u32(..));
        match stream.write(&self.outgoing) {
            Ok(written) if written == self.outgoing.len() => Ok(()),
            // Half a frame would garble the next one, and a buffer full of pings means a server that reads
            // nothing.
            Ok(_) => self.lose(index, "the kernel took half a ping"),
            // A server that reads nothing ends the connection by its own heartbeat.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.lose(index, &error.to_string()),
        }
    }

    /// Pings the due devices: each once in `ping_every_ns`, evenly spread.
    fn ping_due(&mut self) {
        // No device is in its room, so no heartbeat is known.
        if self.ping_every_ns == 0 {
            return;
        }
        let now_ns = monotonic_ns();
        if self.ping_round_ns == 0 {
            self.ping_round_ns = now_ns;
        }
        let count = self.devices.len();
        let passed = u128::from(now_ns - self.ping_round_ns) * count as u128 / u128::from(self.ping_every_ns);
        let due = usize::try_from(passed).map_or(count, |due| due.min(count));
        let opcode = self.handshake.encoding.opcode();
        let ping = self.handshake.encoding.ping();
        while self.pinged < due {
            let index = self.pinged;
            self.pinged += 1;
            if self.devices[index].phase == Phase::Watching {
                // A connection that ends here is counted by `lose`.
                drop(self.say(index, opcode, &ping));
            }
        }
        if due == count {
            self.pinged = 0;
            self.ping_round_ns += self.ping_every_ns;
        }
    }

    /// Every device is back and has everything: all batches of the room, and the stream up to `heads` (by
    /// place). Each room with a device throughout has everything `accepted` (by place). Given up devices are
    /// not waited for.
    pub(crate) fn is_level(&self, accepted: &[Vec<u64>], heads: &[u64]) -> bool {
        let are_level = self.devices.iter().enumerate().all(|(index, device)| {
            let seat = self.seat(index);
            let head = heads.get(seat.place).copied().unwrap_or(0);
            match device.phase {
                Phase::Away | Phase::Dead | Phase::Ended => true,
                Phase::Watching => self.watch.is_level(device.track, seat, head),
                Phase::Idle | Phase::Connecting | Phase::Handshaking | Phase::Waiting => false,
            }
        });
        let is_complete = |place: u32| {
            let place = place as usize;
            accepted.get(place).is_none_or(|of| self.watch.is_complete(place, of))
        };
        are_level && self.places_of(Track::is_throughout).into_iter().all(is_complete)
    }

    /// Each room with devices has one there throughout. Only such a device shows when everything has
    /// come.
    pub(crate) fn knows_all_rooms(&self) -> bool {
        self.places_of(Track::is_known).is_subset(&self.places_of(Track::is_throughout))
    }

    /// The places of the rooms of matching devices.
    fn places_of(&self, is_so: impl Fn(&Track) -> bool) -> BTreeSet<u32> {
        self.devices.iter().filter(|device| is_so(&device.track)).map(|device| device.place).collect()
    }

    /// Enters the end of each device into the ledger. The devices stay connected, and read no more.
    pub(crate) fn end(&mut self) {
        for index in 0..self.devices.len() {
            let seat = self.seat(index);
            // The run waited for returns as long as it may.
            if !matches!(
                self.devices[index].phase,
                Phase::Away | Phase::Watching | Phase::Dead | Phase::Ended
            ) {
                self.give_up(index, "did not come back");
            }
            self.watch.end(self.devices[index].track, seat, monotonic_ns());
            // From here on the end of a connection is no violation.
            self.devices[index].phase = Phase::Ended;
        }
    }

    /// Closes every connection with a goodbye.
    pub(crate) fn leave_all(&mut self) {
        let mut close = Vec::new();
        frame::write_device_frame(&mut close, OPCODE_CLOSE, &1000_u16.to_be_bytes(), self.random.u32(..));
        for mut stream in self.devices.iter_mut().filter_map(|device| device.stream.take()) {
            drop(stream.write(&close));
        }
    }
}

/// The yield of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Nothing,
    /// Less than was asked for: the socket is empty.
    Less,
    All,
}

/// The other side has ended the connection, so a short read is not the last.
#[derive(Debug, Clone, Copy)]
struct Ending(bool);

#[cfg(test)]
mod tests;
