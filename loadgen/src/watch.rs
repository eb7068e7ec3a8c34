//! Judges every frame of every device of one worker, as it arrives.
//!
//! Nearly every frame is a batch that another device had before: its bytes are compared with the copy, the device's
//! seq grows by one, two counters grow, and that is all. Everything else takes the slow way: it is decoded, its
//! messages are compared with what was published, and what it says of the room goes into the ledger. Pure.

use crate::copies::{Copies, Said};
use crate::frame::{Batch, Encoding, HeardMessage, ServerFrame, Welcome, decode};
use crate::latency::Latency;
use crate::ledger::{Claim, Kind, Numbers, RoomSeen, Violations};
use crate::payload::{Forgery, Payloads};
use crate::schedule::Schedule;

/// The type this generator publishes.
pub(crate) const OUR_TYPE: &str = "chat";
/// The type the engine itself publishes, at most once a second per room.
const ENGINE_TYPE: &str = "online";

/// One device's place in its room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Track {
    /// The newest seq it holds; `None` before its welcome.
    pub(crate) seq: Option<u64>,
}

/// Which device, and which room it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    /// Its number in the whole run, for examples.
    pub(crate) device: u32,
    /// Its room's place among this worker's rooms.
    pub(crate) place: usize,
}

/// What a frame means for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing: it was judged.
    Judged,
    /// The device is in its room now.
    Welcomed {
        /// How often it must say something.
        heartbeat_ms: u64,
    },
    /// What arrived first is not roomcast's welcome to this room.
    NotAWelcome,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tally {
    /// Batch frames.
    pub(crate) frames: u64,
    /// Messages of ours in them, over all devices.
    pub(crate) deliveries: u64,
    /// Messages of ours that devices were told they missed.
    pub(crate) skipped: u64,
    /// Frames that were decoded; the others equalled one of these.
    pub(crate) decoded: u64,
    /// Bytes of frames, without WebSocket headers.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct WatchedRoom {
    name: String,
    copies: Copies,
    seen: RoomSeen,
    /// Messages of ours in `seen.batches`.
    messages: u64,
    /// The newest batch that holds one.
    newest_seq: u64,
}

/// All rooms of one worker.
#[derive(Debug)]
pub(crate) struct Watch {
    schedule: Schedule,
    encoding: Encoding,
    payloads: Payloads,
    rooms: Vec<WatchedRoom>,
    scratch: Vec<u8>,
    /// From when a message was due to when a device had it.
    pub(crate) latency: Latency,
    /// What was counted.
    pub(crate) tally: Tally,
    /// What was broken, as far as it shows here.
    pub(crate) violations: Violations,
}

/// One room to watch.
#[derive(Debug)]
pub(crate) struct RoomToWatch {
    /// Its index in the run.
    pub(crate) room: u32,
    /// Its name.
    pub(crate) name: String,
    /// Devices of this worker in it.
    pub(crate) devices: u32,
}

impl Watch {
    /// Watches these rooms; devices name them by their place here. The schedule's start is told later.
    #[must_use]
    pub(crate) fn new(
        schedule: Schedule,
        encoding: Encoding,
        payloads: Payloads,
        rooms: impl IntoIterator<Item = RoomToWatch>,
    ) -> Self {
        let rooms = rooms.into_iter().map(|room| WatchedRoom {
            name: room.name,
            copies: Copies::new(room.devices),
            seen: RoomSeen::new(room.room),
            messages: 0,
            newest_seq: 0,
        });
        Self {
            schedule,
            encoding,
            payloads,
            rooms: rooms.collect(),
            scratch: Vec::new(),
            latency: Latency::default(),
            tally: Tally::default(),
            violations: Violations::default(),
        }
    }

    /// Publishing begins at this time; told before it does.
    pub(crate) fn start(&mut self, start_ns: u64) {
        self.schedule.start_ns = start_ns;
    }

    /// Judges the payload of one text or binary frame.
    #[inline]
    pub(crate) fn hear(&mut self, track: &mut Track, seat: Seat, bytes: &[u8], now_ns: u64) -> Heard {
        self.tally.bytes += bytes.len() as u64;
        if let Some(seq) = track.seq {
            let copies = &mut self.rooms[seat.place].copies;
            if let Some(messages) = copies.take_level(seq + 1, bytes, now_ns, &mut self.latency) {
                track.seq = Some(seq + 1);
                self.tally.frames += 1;
                self.tally.deliveries += messages;
                return Heard::Judged;
            }
        }
        self.hear_new(track, seat, bytes, now_ns)
    }

    #[cold]
    fn hear_new(&mut self, track: &mut Track, seat: Seat, bytes: &[u8], now_ns: u64) -> Heard {
        if let Some(seq) = track.seq
            && let Some(said) = self.rooms[seat.place].copies.take_composed(bytes, now_ns, &mut self.latency)
        {
            self.follow(track, seat, seq, &said);
            return Heard::Judged;
        }
        self.tally.decoded += 1;
        let frame = match decode(self.encoding, bytes) {
            Ok(frame) => frame,
            Err(reason) => {
                if track.seq.is_none() {
                    return Heard::NotAWelcome;
                }
                self.violations.add(Kind::Undecodable, 1, || format!("device {}: {reason}", seat.device));
                return Heard::Judged;
            }
        };
        match (frame, track.seq) {
            (ServerFrame::Welcome(welcome), None) => return self.hear_welcome(track, seat, &welcome),
            (_, None) => return Heard::NotAWelcome,
            (ServerFrame::Batch(batch), Some(seq)) => {
                if let Some(said) = self.judge_batch(seat, &batch, seq) {
                    let level = self.rooms[seat.place].copies.level(said.seq);
                    if said.is_level && said.seq == seq + 1 && level.is_some_and(|level| level != bytes) {
                        self.violations.add(Kind::Altered, 1, || {
                            format!(
                                "device {}: other bytes for batch {} than other devices",
                                seat.device, said.seq
                            )
                        });
                    }
                    self.follow(track, seat, seq, &said);
                    let copies = &mut self.rooms[seat.place].copies;
                    copies.keep(bytes, said, now_ns, &mut self.latency);
                } else {
                    track.seq = Some(seq.max(batch.seq));
                }
            }
            (ServerFrame::Pong | ServerFrame::Membership, Some(_)) => {}
            (ServerFrame::Welcome(_), Some(_)) => self.unexpected(seat, "a second welcome", ""),
            (ServerFrame::Closed { code }, Some(_)) => self.unexpected(seat, "closed", &code),
            (ServerFrame::Error { code }, Some(_)) => self.unexpected(seat, "error", &code),
            (ServerFrame::Bye { code }, Some(_)) => self.unexpected(seat, "bye", &code),
        }
        Heard::Judged
    }

    fn unexpected(&mut self, seat: Seat, what: &str, code: &str) {
        self.violations.add(Kind::Unexpected, 1, || format!("device {}: {what} {code}", seat.device));
    }

    fn hear_welcome(&mut self, track: &mut Track, seat: Seat, welcome: &Welcome) -> Heard {
        let room = &mut self.rooms[seat.place];
        if welcome.room != room.name || welcome.heartbeat_ms == 0 {
            return Heard::NotAWelcome;
        }
        if room.seen.run.is_empty() {
            room.seen.run.clone_from(&welcome.run);
        }
        if room.seen.run != welcome.run {
            let runs = (room.seen.run.clone(), welcome.run.clone());
            self.violations
                .add(Kind::Unexpected, 1, || format!("device {}: runs {runs:?} of one room", seat.device));
        }
        self.rooms[seat.place].seen.started(welcome.seq, seat.device);
        track.seq = Some(welcome.seq);
        // Rooms are new: nothing of ours can be in their history before the first publish.
        for message in welcome.messages.iter().filter(|message| message.type_name != ENGINE_TYPE) {
            self.violations.add(Kind::Foreign, 1, || {
                format!("device {}: a {} in the welcome of a new room", seat.device, message.type_name)
            });
        }
        Heard::Welcomed { heartbeat_ms: welcome.heartbeat_ms }
    }

    /// Compares a batch with what was published and with what other devices were told of it. `None`: it broke a
    /// promise by itself, and is no copy for others.
    fn judge_batch(&mut self, seat: Seat, batch: &Batch, held_seq: u64) -> Option<Said> {
        let room = &self.rooms[seat.place];
        if batch.room != room.name || batch.run != room.seen.run {
            self.violations.add(Kind::Foreign, 1, || {
                format!(
                    "device {}: batch {} of room {} run {}",
                    seat.device, batch.seq, batch.room, batch.run
                )
            });
            return None;
        }
        let mut places = Vec::with_capacity(batch.messages.len());
        let mut dues_ns = Vec::with_capacity(batch.messages.len());
        let mut faultless = true;
        for message in batch.messages.iter().filter(|message| message.type_name != ENGINE_TYPE) {
            match self.judge_message(seat, message, batch.seq) {
                Some(number) => {
                    places.push(self.schedule.place_of(number));
                    dues_ns.push(self.schedule.due_ns(number));
                }
                None => faultless = false,
            }
        }
        for message in batch.besides.iter().filter(|message| message.type_name != ENGINE_TYPE) {
            faultless = false;
            self.violations.add(Kind::Foreign, 1, || {
                format!("device {}: a {} beside batch {}", seat.device, message.type_name, batch.seq)
            });
        }
        let has_messages = !batch.messages.is_empty();
        if has_messages && batch.seq <= held_seq {
            let count = batch.messages.len() as u64;
            self.violations.add(Kind::Twice, count, || {
                format!("device {}: batch {} when it held {held_seq} already", seat.device, batch.seq)
            });
            return None;
        }
        if !faultless || (has_messages && !self.enter(seat, batch.seq, places.into())) {
            return None;
        }
        Some(Said {
            seq: batch.seq,
            is_level: has_messages && batch.skipped.is_empty() && batch.besides.is_empty(),
            has_messages,
            dues_ns: dues_ns.into(),
            skipped: batch.skipped.get(OUR_TYPE).copied().unwrap_or(0),
            explains: !(batch.skipped.is_empty() && batch.merged.is_empty() && batch.besides.is_empty()),
        })
    }

    /// The number of a message, if it is one that this room was given.
    fn judge_message(&mut self, seat: Seat, message: &HeardMessage, seq: u64) -> Option<u64> {
        let room = self.rooms[seat.place].seen.room;
        let forgery = if message.type_name == OUR_TYPE && message.json {
            match self.payloads.check(&self.schedule, &message.payload, &mut self.scratch) {
                Ok(number) if self.schedule.room_of(number) == room => return Some(number),
                Ok(_) => Forgery::Foreign,
                Err(forgery) => forgery,
            }
        } else {
            Forgery::Foreign
        };
        let kind = match forgery {
            Forgery::Foreign => Kind::Foreign,
            Forgery::Altered { .. } => Kind::Altered,
        };
        self.violations.add(kind, 1, || {
            let shown: String = String::from_utf8_lossy(&message.payload).chars().take(60).collect();
            format!("device {}: batch {seq} has a {} {forgery:?}: {shown}", seat.device, message.type_name)
        });
        None
    }

    /// Enters a batch into the room's order, or compares it with what other devices were told. Whether it fits.
    fn enter(&mut self, seat: Seat, seq: u64, numbers: Numbers) -> bool {
        let room = &mut self.rooms[seat.place];
        if let Some(known) = room.seen.batches.get(&seq) {
            if *known == numbers {
                return true;
            }
            let (kind, count) = difference(known, &numbers);
            let known = known.clone();
            self.violations.add(kind, count, || {
                format!("device {}: batch {seq} was {numbers:?} for it, {known:?} for others", seat.device)
            });
            return false;
        }
        if numbers.count() > 0 {
            room.messages += numbers.count();
            room.newest_seq = room.newest_seq.max(seq);
        }
        room.seen.batches.insert(seq, numbers);
        true
    }

    /// Moves a device along by a frame that is faultless in itself.
    fn follow(&mut self, track: &mut Track, seat: Seat, held: u64, said: &Said) {
        self.tally.frames += 1;
        self.tally.skipped += said.skipped;
        self.tally.deliveries += said.dues_ns.len() as u64;
        if said.seq < held || (said.has_messages && said.seq == held) {
            let kind = if said.has_messages { Kind::Twice } else { Kind::OutOfOrder };
            self.violations
                .add(kind, 1, || format!("device {}: seq {} after seq {held}", seat.device, said.seq));
            return;
        }
        track.seq = Some(said.seq);
        // A batch brings its own seq; what it or a refresh says of skips is about the seqs between.
        let through = if said.has_messages { said.seq - 1 } else { said.seq };
        if through > held && !said.explains {
            self.violations.add(Kind::Gap, 1, || {
                format!("device {}: from seq {held} to {} and no word of why", seat.device, said.seq)
            });
        } else if through > held || said.skipped > 0 {
            let claim = Claim { after: held, through, count: said.skipped };
            self.rooms[seat.place].seen.claimed(claim, seat.device);
        }
    }

    /// Whether the room at `place` has all `accepted` messages in batches, so that nothing more is awaited.
    #[must_use]
    pub(crate) fn is_complete(&self, place: usize, accepted: u64) -> bool {
        self.rooms[place].messages >= accepted
    }

    /// Whether a device has every message that any device of its room has.
    #[must_use]
    pub(crate) fn is_level(&self, track: Track, seat: Seat) -> bool {
        track.seq.is_some_and(|seq| seq >= self.rooms[seat.place].newest_seq)
    }

    /// The run is over for a device that was welcomed.
    pub(crate) fn end(&mut self, track: Track, seat: Seat) {
        if let Some(seq) = track.seq {
            self.rooms[seat.place].seen.ended(seq, seat.device);
        }
    }

    /// The run is over: records what is gathered still, and gives what was seen of each room.
    pub(crate) fn finish(&mut self) -> Vec<RoomSeen> {
        for room in &mut self.rooms {
            room.copies.settle(&mut self.latency);
        }
        self.rooms.drain(..).map(|room| room.seen).collect()
    }
}

/// How a device's batch differs from what others had under its seq, and by how many messages.
fn difference(known: &Numbers, numbers: &Numbers) -> (Kind, u64) {
    let sorted = |numbers: &Numbers| {
        let mut places: Vec<u32> = numbers.iter().collect();
        places.sort_unstable();
        places
    };
    let (mut known, mine) = (sorted(known), sorted(numbers));
    if known == mine {
        return (Kind::OutOfOrder, 1);
    }
    known.retain(|place| mine.binary_search(place).is_err());
    let repeated = mine.windows(2).filter(|pair| pair[0] == pair[1]).count();
    match (known.len() as u64, repeated as u64) {
        (0, 0) => (Kind::Foreign, 1),
        (0, repeated) => (Kind::Twice, repeated),
        (lost, _) => (Kind::Lost, lost),
    }
}

#[cfg(test)]
mod tests;
