//! Judges every frame of every device of a worker, on arrival.
//!
//! Nearly every frame is a batch known from another device. The bytes are compared with the copy, the
//! device's seq grows by 1, and a few counters grow. Any other frame takes the slow way: the frame is
//! decoded, the messages are compared with the publishes, and the account goes into the ledger. Pure.

use std::fmt;
use std::rc::Rc;

use crate::devices::copies::Said;
use crate::devices::known::{ENGINE_TYPE, Known, Which};
use crate::devices::readable::Readers;
use crate::devices::streams::{Brought, Streams};
use crate::devices::track::{Seat, Track};
use crate::devices::type_figures::Figures;
use crate::ledger::{Kind, Numbers, RoomSeen, Tally, Violations};
use crate::scenario::mix::Class;
use crate::scenario::plan::room_name;
use crate::wire::frame::{Batch, Encoding, Message, ServerFrame, decode};

mod life;
mod welcome;

use life::{OursOfType, WatchedRoom, difference};

/// Letters of a payload shown in an example.
const SHOWN_MAX: usize = 60;

/// The consequence of a frame for the connection. `ack_within_ms` is there when the frame brought reliable
/// messages, which are to be acknowledged within the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Judged {
        ack_within_ms: Option<u64>,
    },
    /// The device is in the room now, and must send something once in `heartbeat_ms`.
    Welcomed {
        heartbeat_ms: u64,
        ack_within_ms: Option<u64>,
    },
    /// The room has a new home, and the device is in the room as before.
    Rewelcomed {
        heartbeat_ms: u64,
        ack_within_ms: Option<u64>,
    },
    /// The first frame is not roomcast's welcome to this room.
    NotAWelcome,
}

/// All rooms of a worker.
#[derive(Debug)]
pub(crate) struct Watch {
    known: Known,
    encoding: Encoding,
    /// The first life of each room by the room's place, followed by later lives, after restarts.
    lives: Vec<WatchedRoom>,
    rooms: usize,
    /// The rooms' reliable streams; `None` in a run without reliable messages.
    pub(crate) streams: Option<Streams>,
    /// Rooms may begin new lives.
    pub(crate) through_restarts: bool,
    pub(crate) figures: Figures,
    /// Messages per second and device, for types with a limit; `None` without limits.
    pub(crate) readers: Option<Readers>,
    pub(crate) tally: Tally,
    /// Broken promises visible in a frame.
    pub(crate) violations: Violations,
}

/// A batch, and the bytes of the frame.
#[derive(Debug, Clone, Copy)]
struct Decoded<'a> {
    batch: &'a Batch,
    bytes: &'a [u8],
}

impl Watch {
    /// A watch of `rooms`, by index in the run. A seat names a room by its place here.
    pub(crate) fn new(known: Known, encoding: Encoding, room_stem: &str, rooms: &[u32]) -> Self {
        let types = known.types.len();
        let life = |(life, room): (usize, &u32)| {
            WatchedRoom::new(room_name(room_stem, *room), life, RoomSeen::new(*room, types))
        };
        let lives: Vec<WatchedRoom> = rooms.iter().enumerate().map(life).collect();
        Self {
            figures: Figures::new(types),
            known,
            encoding,
            rooms: lives.len(),
            lives,
            streams: None,
            through_restarts: false,
            readers: None,
            tally: Tally::default(),
            violations: Violations::default(),
        }
    }

    /// The name of the room at `place`.
    pub(crate) fn room_name(&self, place: usize) -> &str {
        &self.lives[place].name
    }

    /// Sets the time of the first publish, which lies ahead. Earlier counts are no part of the run, and
    /// messages due in the first `warm_up_ns` are not timed.
    pub(crate) fn start(&mut self, start_ns: u64, warm_up_ns: u64) {
        self.known.start(start_ns);
        self.figures.start_ns = start_ns;
        self.figures.timed_from_ns = start_ns + warm_up_ns;
        self.tally = Tally::default();
        if let Some(streams) = &mut self.streams {
            streams.original.reliable.schedule.start_ns = start_ns;
        }
    }

    /// Notes the end of a device's connection. The device may come back to its room.
    pub(crate) fn leave(&mut self, track: &mut Track) {
        if track.is_in {
            let life = &mut self.lives[track.life as usize];
            life.copies.left();
            life.seen.stays.add(track.start_seq, track.seq.unwrap_or(0));
        }
        track.is_in = false;
        track.was_away = true;
    }

    /// Adds a broken promise towards a device.
    pub(crate) fn broke(&mut self, kind: Kind, seat: Seat, reason: fmt::Arguments<'_>) {
        self.violations.add(kind, 1, || format!("device {}: {reason}", seat.device));
    }

    /// Judges the payload of a text or binary frame.
    #[inline]
    pub(crate) fn hear(&mut self, track: &mut Track, seat: Seat, bytes: &[u8], now_ns: u64) -> Heard {
        self.tally.bytes += bytes.len() as u64;
        // The fast way of nearly every frame: no decoding, no allocation.
        if let Some(seq) = track.seq.filter(|_| track.is_in) {
            let copies = &mut self.lives[track.life as usize].copies;
            if let Some(said) = copies.take_level(seq + 1, bytes, track.arrival(now_ns), &mut self.figures) {
                track.seq = Some(seq + 1);
                self.count(&said);
                if let Some(readers) = &mut self.readers {
                    readers.take(seat.device, said.readable, now_ns);
                }
                return self.bring(track, seat, said.brought.as_ref(), now_ns);
            }
        }
        self.hear_new(track, seat, bytes, now_ns)
    }

    /// Gives a device the reliable messages of a frame.
    #[inline]
    fn bring(&mut self, track: &mut Track, seat: Seat, brought: Option<&Brought>, now_ns: u64) -> Heard {
        let nothing = Heard::Judged { ack_within_ms: None };
        let Some(brought) = brought else { return nothing };
        let Some(streams) = &mut self.streams else { return nothing };
        streams.apply(&mut track.place, seat, brought, now_ns, &mut self.violations);
        Heard::Judged { ack_within_ms: Some(brought.ack_within_ms) }
    }

    #[cold]
    fn hear_new(&mut self, track: &mut Track, seat: Seat, bytes: &[u8], now_ns: u64) -> Heard {
        let life = track.life as usize;
        if let Some(seq) = track.seq.filter(|_| track.is_in)
            && let Some(said) =
                self.lives[life].copies.take_composed(bytes, track.arrival(now_ns), &mut self.figures)
        {
            self.follow(track, seat, seq, now_ns, &said);
            return self.bring(track, seat, said.brought.as_ref(), now_ns);
        }
        self.tally.decoded += 1;
        let frame = match decode(self.encoding, bytes) {
            Ok(frame) => frame,
            // Before the welcome the other side may be any server, so an unreadable frame is no broken
            // promise.
            Err(_) if !track.is_in => return Heard::NotAWelcome,
            Err(reason) => {
                self.broke(Kind::Undecodable, seat, format_args!("{reason}"));
                return Heard::Judged { ack_within_ms: None };
            }
        };
        let judged = Heard::Judged { ack_within_ms: None };
        let unexpected = match (frame, track.seq.filter(|_| track.is_in)) {
            (ServerFrame::Welcome(welcome), None) => return self.hear_welcome(track, seat, &welcome, now_ns),
            (_, None) => return Heard::NotAWelcome,
            (ServerFrame::Batch(batch), Some(seq)) => {
                return self.hear_batch(track, seat, Decoded { batch: &batch, bytes }, seq, now_ns);
            }
            (ServerFrame::History(piece), Some(seq)) => {
                self.hear_history(track, seat, &piece, seq);
                return judged;
            }
            // Answers to frames that this generator's devices do not wait for.
            (
                ServerFrame::Pong(_) | ServerFrame::Joined(_) | ServerFrame::Left(_) | ServerFrame::Token(_),
                Some(_),
            ) => return judged,
            // A node says goodbye before a restart.
            (ServerFrame::Bye(_), Some(_)) if self.through_restarts => return judged,
            // Another home welcomes a room's devices anew, on their connections.
            (ServerFrame::Welcome(welcome), Some(seq)) if self.through_restarts => {
                return self.hear_rewelcome(track, seat, &welcome, seq, now_ns);
            }
            (ServerFrame::Welcome(_), Some(_)) => "a second welcome".to_owned(),
            (ServerFrame::Closed(closed), Some(_)) => format!("closed {}", closed.code),
            (ServerFrame::Error(error), Some(_)) => format!("error {}", error.code),
            (ServerFrame::Bye(bye), Some(_)) => format!("bye {}", bye.code),
        };
        self.broke(Kind::Unexpected, seat, format_args!("{unexpected}"));
        judged
    }

    fn hear_batch(
        &mut self,
        track: &mut Track,
        seat: Seat,
        decoded: Decoded<'_>,
        seq: u64,
        now_ns: u64,
    ) -> Heard {
        let life = track.life as usize;
        let Decoded { batch, bytes } = decoded;
        let Some(said) = self.judge_batch(seat, life, batch, seq) else {
            // The fault is noted. The device moves on, so that one fault is not found again in every later
            // batch.
            track.seq = Some(seq.max(batch.seq));
            return Heard::Judged { ack_within_ms: None };
        };
        let said = Rc::new(said);
        self.lives[life].seen.heard(said.seq, now_ns);
        let level = self.lives[life].copies.level(said.seq);
        // The messages agree and the bytes do not: the node encoded one batch twice.
        if said.is_level && said.seq == seq + 1 && level.is_some_and(|level| level != bytes) {
            let reason = format_args!("other bytes for batch {} than other devices", said.seq);
            self.broke(Kind::Altered, seat, reason);
        }
        self.follow(track, seat, seq, now_ns, &said);
        self.lives[life].copies.keep(bytes, Rc::clone(&said), track.arrival(now_ns), &mut self.figures);
        self.bring(track, seat, said.brought.as_ref(), now_ns)
    }

    /// Compares a batch with the published messages and with other devices' accounts. `None`: the batch
    /// breaks a promise by itself, and must not become a copy for other devices.
    fn judge_batch(&mut self, seat: Seat, life: usize, batch: &Batch, held_seq: u64) -> Option<Said> {
        let room = &self.lives[life];
        // Before any message: a frame of another room or life would enter its places into this room's order.
        if batch.room != room.name || batch.run != room.seen.run {
            let reason = format_args!("batch {} of room {} run {}", batch.seq, batch.room, batch.run);
            self.broke(Kind::Foreign, seat, reason);
            return None;
        }
        let mut ours = vec![OursOfType::default(); self.known.types.len()];
        let mut dues = Vec::with_capacity(batch.messages.len());
        let mut faultless = true;
        let brought = self.read_reliable(seat, batch);
        let is_plain = |message: &&Message| message.r#type != ENGINE_TYPE && message.offset == 0;
        for message in batch.messages.iter().filter(is_plain) {
            match self.judge_message(seat, life, message, batch.seq) {
                Some(Which::Ours { kind, number }) => {
                    let schedule = &self.known.load(kind).schedule;
                    let of_type = &mut ours[usize::from(kind)];
                    of_type.places.push(schedule.place_of(number));
                    of_type.counts.push(message.count);
                    dues.push((kind, schedule.due_ns(number)));
                }
                Some(Which::Others { kind }) => ours[usize::from(kind)].others += 1,
                None => faultless = false,
            }
        }
        let carried = batch.carried.iter().filter(|message| message.offset == 0);
        for message in carried.chain(batch.latest.iter().filter(is_plain)) {
            faultless &= self.is_a_value(seat, life, message, batch.seq);
        }
        let has_messages = !batch.messages.is_empty();
        let nothing_besides = batch.carried.is_empty() && batch.latest.is_empty();
        // A refresh may come at the seq held, a batch may not.
        if has_messages && batch.seq <= held_seq {
            let count = batch.messages.len() as u64;
            self.violations.add(Kind::Twice, count, || {
                format!("device {}: batch {} when it held {held_seq} already", seat.device, batch.seq)
            });
            return None;
        }
        if !faultless || (has_messages && !self.enter(seat, life, batch.seq, ours)) {
            return None;
        }
        Some(Said {
            seq: batch.seq,
            // An account of messages shed and merged before they left is in every frame of the batch.
            is_level: has_messages && nothing_besides && batch.seq == held_seq + 1,
            has_messages,
            dues: dues.into(),
            told: self.known.told(batch),
            readable: self.known.readable(batch),
            // A batch of reliable messages alone may be passed over without a reason, because they are
            // carried. The settlement of skips finds chat in such a batch.
            explains: !(batch.skipped.is_empty()
                && batch.merged.is_empty()
                && batch.counters.is_empty()
                && nothing_besides)
                || self.streams.is_some(),
            brought,
        })
    }

    /// Reads the reliable part of a batch, carried messages first.
    fn read_reliable(&mut self, seat: Seat, batch: &Batch) -> Option<Brought> {
        let reliable = batch.carried.iter().chain(&batch.messages).filter(|message| message.offset > 0);
        if let Some(streams) = &mut self.streams {
            let span = Brought::spanning(batch.after, batch.through, batch.ack_within_ms);
            return streams.read(seat, span, reliable, &mut self.violations);
        }
        for message in reliable {
            self.broke(Kind::Foreign, seat, format_args!("a {} in batch {}", message.r#type, batch.seq));
        }
        None
    }

    /// Finds the published message; `None` after a broken promise.
    fn judge_message(&mut self, seat: Seat, life: usize, message: &Message, seq: u64) -> Option<Which> {
        let room = self.lives[life].seen.room;
        let (kind, forgery) = match self.known.which(room, message) {
            Ok(which) => return Some(which),
            Err(wrong) => wrong,
        };
        self.violations.add(kind, 1, || {
            let shown: String = String::from_utf8_lossy(&message.payload).chars().take(SHOWN_MAX).collect();
            format!("device {}: batch {seq} has a {} {forgery:?}: {shown}", seat.device, message.r#type)
        });
        None
    }

    /// Accepts the latest value of a known type beside a batch: other messages have no place there.
    fn is_a_value(&mut self, seat: Seat, life: usize, message: &Message, seq: u64) -> bool {
        let Some(Which::Ours { kind, .. } | Which::Others { kind }) =
            self.judge_message(seat, life, message, seq)
        else {
            return false;
        };
        let is_latest = self.known.load(kind).class == Class::Latest;
        if !is_latest {
            self.broke(Kind::Foreign, seat, format_args!("a {} beside batch {seq}", message.r#type));
        }
        is_latest
    }

    /// Enters a batch into the room's order, or compares the batch with other devices' sight. `false`: a
    /// difference.
    fn enter(&mut self, seat: Seat, life: usize, seq: u64, ours: Vec<OursOfType>) -> bool {
        let mut fits = true;
        for (of_type, mine) in self.lives[life].seen.types.iter_mut().zip(ours) {
            let numbers = Numbers::from(mine.places);
            let counts = (!mine.counts.iter().all(|count| *count == 1)).then_some(mine.counts);
            // The first device with the batch says what the batch is. The settlement finds what all devices
            // lack.
            let Some(known) = of_type.batches.get(&seq) else {
                of_type.batches.insert(seq, numbers);
                of_type.counts.extend(counts.map(|counts| (seq, counts)));
                of_type.others.extend((mine.others > 0).then_some((seq, mine.others)));
                continue;
            };
            let (kind, count) = if *known != numbers {
                difference(known, &numbers)
            } else if of_type.counts.get(&seq) != counts.as_ref() {
                (Kind::Altered, 1)
            } else {
                continue;
            };
            self.violations.add(kind, count, || {
                format!("device {}: batch {seq} was {numbers:?} for it, {known:?} for others", seat.device)
            });
            fits = false;
        }
        fits
    }

    #[inline]
    fn count(&mut self, said: &Said) {
        self.tally.frames += 1;
        self.tally.skipped += said.skipped();
        self.tally.deliveries += said.messages();
    }

    /// Moves a device along by a faultless frame.
    fn follow(&mut self, track: &mut Track, seat: Seat, held: u64, now_ns: u64, said: &Said) {
        self.count(said);
        if said.seq < held || (said.has_messages && said.seq == held) {
            let kind = if said.has_messages { Kind::Twice } else { Kind::OutOfOrder };
            self.broke(kind, seat, format_args!("seq {} after seq {held}", said.seq));
            return;
        }
        track.seq = Some(said.seq);
        if let Some(readers) = &mut self.readers {
            readers.take(seat.device, said.readable, now_ns);
        }
        // A batch brings its own seq. The rest of its account, and a refresh's, is about the seqs between.
        let through = if said.has_messages { said.seq - 1 } else { said.seq };
        if through > held && !said.explains {
            let reason = format_args!("from seq {held} to {} without a reason", said.seq);
            self.broke(Kind::Gap, seat, reason);
        } else if said.seq > held || !said.told.is_empty() {
            self.lives[track.life as usize].claim(held, said, seat.device);
        }
    }

    /// Every accepted message of each type is accounted for in the room at `place`. No further message is
    /// awaited.
    pub(crate) fn is_complete(&self, place: usize, accepted: &[u64]) -> bool {
        let room = self.lives[place].seen.room;
        let later = self.lives.iter().skip(self.rooms).filter(|life| life.seen.room == room);
        let lives: Vec<&WatchedRoom> = later.chain([&self.lives[place]]).collect();
        accepted.iter().enumerate().all(|(kind, accepted)| {
            lives.iter().map(|life| life.accounted.get(kind).copied().unwrap_or(0)).sum::<u64>() >= *accepted
        })
    }

    /// The device has every batch of any device in the room, and the stream at least up to `head`.
    pub(crate) fn is_level(&self, track: Track, seat: Seat, head: u64) -> bool {
        let newest_seq = self.lives[track.life as usize].newest_seq;
        self.later_life(track, seat).is_none()
            && track.seq.is_some_and(|seq| seq >= newest_seq)
            && self.streams.as_ref().is_none_or(|streams| streams.is_level(track.place, seat, head))
    }

    /// A life of the device's room with later batches than the device's own life.
    fn later_life(&self, track: Track, seat: Seat) -> Option<&WatchedRoom> {
        // Nearly every room has one life, in its own place.
        if self.lives.len() == self.rooms {
            return None;
        }
        let room = self.lives[seat.place].seen.room;
        let own = &self.lives[track.life as usize].seen;
        let is_later = |life: &&WatchedRoom| life.seen.room == room && life.seen.last_ns > own.last_ns;
        self.lives.iter().find(is_later)
    }

    /// The sum of all rooms' newest batches. The sum grows whenever a device hears of a new batch.
    pub(crate) fn newest(&self) -> u64 {
        self.lives.iter().map(|life| life.newest_seq).sum()
    }

    /// Judges the reliable messages owed to a device that leaves its room for good.
    pub(crate) fn end_stay(&mut self, track: Track, seat: Seat, now_ns: u64) {
        if let Some(streams) = self.streams.as_mut().filter(|_| track.is_in && track.is_known()) {
            streams.end(track.place, seat, now_ns);
        }
    }

    /// Enters a device's place at the end of the run. A device without a welcome has none.
    pub(crate) fn end(&mut self, track: Track, seat: Seat, now_ns: u64) {
        let Some(seq) = track.seq else { return };
        if let Some(later) = self.later_life(track, seat).filter(|_| track.is_in) {
            let runs = (&self.lives[track.life as usize].seen.run, &later.seen.run);
            let reason = format!("ended in a run of the room that is over: {runs:?}");
            self.broke(Kind::Lost, seat, format_args!("{reason}"));
        }
        let life = &mut self.lives[track.life as usize];
        let newest_seq = life.newest_seq;
        if track.is_in {
            life.seen.stays.add(track.start_seq, seq);
            life.seen.stays.ends_with(seat.device);
        }
        if !track.was_away {
            life.seen.started(track.start_seq, seat.device);
            life.seen.ended(seq, seat.device);
        } else if track.is_in && seq < newest_seq {
            // The run waited for every device, and others of the room had the batch in time.
            let reason = format_args!("came late, and ended at batch {seq} of {newest_seq}");
            self.broke(Kind::Lost, seat, reason);
        }
        self.end_stay(track, seat, now_ns);
    }

    /// Records the latencies still gathered, and gives the sight of each room with devices.
    pub(crate) fn finish(&mut self) -> Vec<RoomSeen> {
        for room in &mut self.lives {
            room.copies.settle(&mut self.figures);
        }
        for (((_, life), seq), ages) in self.figures.kept_ages.take() {
            self.lives[life as usize].seen.ages.insert(seq, ages);
        }
        self.lives.drain(..).map(|room| room.seen).filter(|seen| !seen.run.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests;
