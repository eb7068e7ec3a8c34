//! Judges every frame of every device of one worker, as it arrives.
//!
//! Nearly every frame is a batch that another device had before: its bytes are compared with the copy, the device's
//! seq grows by one, two counters grow, and that is all. Everything else takes the slow way: it is decoded, its
//! messages are compared with what was published, and what it says of the room goes into the ledger. Pure.

use std::rc::Rc;

use crate::devices::copies::{Arrival, Said};
use crate::devices::known::{ENGINE_TYPE, Known, Which};
use crate::devices::readable::Readers;
use crate::devices::streams::{Brought, StreamPlace, Streams};
use crate::devices::type_figures::Figures;
use crate::ledger::{Kind, Numbers, RoomSeen, Violations};
use crate::scenario::habits::DeviceHabits;
use crate::scenario::mix::Class;
use crate::wire::frame::{Batch, Encoding, HeardMessage, ServerFrame, decode};

mod life;
mod welcome;

use crate::ledger::Tally;
use life::{Ours, WatchedRoom, difference};

/// One device's place in its room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Track {
    /// The newest seq it holds; `None` before its first welcome.
    pub(crate) seq: Option<u64>,
    /// Whether it was welcomed on the connection it has.
    is_in: bool,
    /// Whether it was away, or came late: chat that it missed then is not owed to it.
    was_away: bool,
    /// The seq of its first welcome.
    start_seq: u64,
    /// The life of its room that it is in, by its place in `Watch::lives`.
    life: u32,
    /// Its place in the reliable stream.
    pub(crate) place: StreamPlace,
}

impl Track {
    /// Of a device that joins after publishing began: what was published before is not owed to it.
    #[must_use]
    pub(crate) fn late(habits: DeviceHabits) -> Self {
        Self { was_away: true, ..Self::new(habits) }
    }

    /// Of a device that joins before the first publish.
    #[must_use]
    pub(crate) fn new(habits: DeviceHabits) -> Self {
        let place =
            StreamPlace { drops_acks: habits.drops_acks, is_slow: habits.is_slow, ..StreamPlace::default() };
        Self { place, ..Self::default() }
    }

    #[inline]
    fn arrival(&self, now_ns: u64) -> Arrival {
        let timed_from_ns = if self.place.is_slow { u64::MAX } else { self.place.returned_ns };
        Arrival { now_ns, timed_from_ns }
    }

    /// Whether it is in its room, and was from before the first publish: then all that the room accepted is owed to it.
    #[must_use]
    pub(crate) fn is_throughout(&self) -> bool {
        self.is_in && !self.was_away
    }

    /// Whether it was in its room before.
    #[must_use]
    pub(crate) fn is_known(&self) -> bool {
        self.seq.is_some()
    }
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
    /// It was judged.
    Judged {
        /// It brought reliable messages, to be acknowledged within this time.
        ack_within_ms: Option<u64>,
    },
    /// The device is in its room now.
    Welcomed {
        /// How often it must say something.
        heartbeat_ms: u64,
        /// It brought reliable messages, to be acknowledged within this time.
        ack_within_ms: Option<u64>,
    },
    /// What arrived first is not roomcast's welcome to this room.
    NotAWelcome,
}

/// All rooms of one worker.
#[derive(Debug)]
pub(crate) struct Watch {
    known: Known,
    encoding: Encoding,
    /// The rooms' lives: the first of each room by its place, later ones (a restart) behind them.
    lives: Vec<WatchedRoom>,
    /// How many rooms there are.
    rooms: usize,
    /// The rooms' reliable streams, where reliable messages are published.
    pub(crate) streams: Option<Streams>,
    /// A room may have several lives.
    through_restarts: bool,
    /// What was given of each type, and how late.
    pub(crate) figures: Figures,
    /// How many of some types each device was given in any second.
    pub(crate) readers: Option<Readers>,
    /// What was counted.
    pub(crate) tally: Tally,
    /// What was broken, as far as it shows here.
    pub(crate) violations: Violations,
}

/// A batch, and the bytes of its frame.
#[derive(Debug, Clone, Copy)]
struct Decoded<'a> {
    batch: &'a Batch,
    bytes: &'a [u8],
}

/// One room to watch.
#[derive(Debug)]
pub(crate) struct RoomToWatch {
    /// Its index in the run.
    pub(crate) room: u32,
    /// Its name.
    pub(crate) name: String,
}

impl Watch {
    /// Watches these rooms; devices name them by their place here. The schedule's start is told later.
    #[must_use]
    pub(crate) fn new(
        known: Known,
        encoding: Encoding,
        rooms: impl IntoIterator<Item = RoomToWatch>,
    ) -> Self {
        let types = known.types.len();
        let seen = |room| RoomSeen::new(room, types);
        let rooms = rooms.into_iter().enumerate();
        let rooms = rooms.map(|(life, room)| WatchedRoom::new(room.name, life, seen(room.room)));
        let lives: Vec<WatchedRoom> = rooms.collect();
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

    /// Watches the rooms' reliable streams, too.
    pub(crate) fn with_streams(mut self, streams: Option<Streams>) -> Self {
        self.streams = streams;
        self
    }

    /// Watches how many of some types each device is given in any second.
    pub(crate) fn with_readers(mut self, readers: Option<Readers>) -> Self {
        self.readers = readers;
        self
    }

    /// Allows rooms to begin a new life.
    pub(crate) fn through_restarts(mut self, allowed: bool) -> Self {
        self.through_restarts = allowed;
        self
    }

    /// Publishing begins at this time; told before it does. What was counted until now is no part of the run, and what is
    /// due in the first `warm_up_ns` is not timed.
    pub(crate) fn start(&mut self, start_ns: u64, warm_up_ns: u64) {
        self.known.start(start_ns);
        self.figures.start_ns = start_ns;
        self.figures.timed_from_ns = start_ns + warm_up_ns;
        self.tally = Tally::default();
        if let Some(streams) = &mut self.streams {
            streams.original.schedule.start_ns = start_ns;
        }
    }

    /// A device is not in its room any more: its connection ended. It may come back to it.
    pub(crate) fn leave(&mut self, track: &mut Track) {
        if track.is_in {
            self.lives[track.life as usize].copies.left();
        }
        track.is_in = false;
        track.was_away = true;
    }

    /// Judges the payload of one text or binary frame.
    #[inline]
    pub(crate) fn hear(&mut self, track: &mut Track, seat: Seat, bytes: &[u8], now_ns: u64) -> Heard {
        self.tally.bytes += bytes.len() as u64;
        if let Some(seq) = track.seq.filter(|_| track.is_in) {
            let copies = &mut self.lives[track.life as usize].copies;
            if let Some(taken) = copies.take_level(seq + 1, bytes, track.arrival(now_ns), &mut self.figures) {
                track.seq = Some(seq + 1);
                self.tally.frames += 1;
                self.tally.deliveries += taken.messages;
                self.tally.skipped += taken.skipped;
                if let Some(readers) = &mut self.readers {
                    readers.take(seat.device, taken.readable, now_ns);
                }
                return self.bring(track, seat, taken.brought.as_ref(), now_ns);
            }
        }
        self.hear_new(track, seat, bytes, now_ns)
    }

    /// Gives a device what a frame brings of the reliable stream.
    #[inline]
    fn bring(&mut self, track: &mut Track, seat: Seat, brought: Option<&Rc<Brought>>, now_ns: u64) -> Heard {
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
            Err(reason) => {
                if !track.is_in {
                    return Heard::NotAWelcome;
                }
                self.violations.add(Kind::Undecodable, 1, || format!("device {}: {reason}", seat.device));
                return Heard::Judged { ack_within_ms: None };
            }
        };
        match (frame, track.seq.filter(|_| track.is_in)) {
            (ServerFrame::Welcome(welcome), None) => return self.hear_welcome(track, seat, &welcome, now_ns),
            (_, None) => return Heard::NotAWelcome,
            (ServerFrame::Batch(batch), Some(seq)) => {
                return self.hear_batch(track, seat, Decoded { batch: &batch, bytes }, seq, now_ns);
            }
            (ServerFrame::Pong | ServerFrame::Membership, Some(_)) => {}
            (ServerFrame::Welcome(_), Some(_)) => self.unexpected(seat, "a second welcome", ""),
            (ServerFrame::Closed { code }, Some(_)) => self.unexpected(seat, "closed", &code),
            (ServerFrame::Error { code }, Some(_)) => self.unexpected(seat, "error", &code),
            // A node that is stopped says goodbye.
            (ServerFrame::Bye { .. }, Some(_)) if self.through_restarts => {}
            (ServerFrame::Bye { code }, Some(_)) => self.unexpected(seat, "bye", &code),
        }
        Heard::Judged { ack_within_ms: None }
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
            track.seq = Some(seq.max(batch.seq));
            return Heard::Judged { ack_within_ms: None };
        };
        let level = self.lives[life].copies.level(said.seq);
        if said.is_level && said.seq == seq + 1 && level.is_some_and(|level| level != bytes) {
            self.violations.add(Kind::Altered, 1, || {
                format!("device {}: other bytes for batch {} than other devices", seat.device, said.seq)
            });
        }
        self.follow(track, seat, seq, now_ns, &said);
        let brought = said.brought.clone();
        self.lives[life].copies.keep(bytes, said, track.arrival(now_ns), &mut self.figures);
        self.bring(track, seat, brought.as_ref(), now_ns)
    }

    fn unexpected(&mut self, seat: Seat, what: &str, code: &str) {
        self.violations.add(Kind::Unexpected, 1, || format!("device {}: {what} {code}", seat.device));
    }

    /// Compares a batch with what was published and with what other devices were told of it. `None`: it broke a
    /// promise by itself, and is no copy for others.
    fn judge_batch(&mut self, seat: Seat, life: usize, batch: &Batch, held_seq: u64) -> Option<Said> {
        let room = &self.lives[life];
        if batch.room != room.name || batch.run != room.seen.run {
            self.violations.add(Kind::Foreign, 1, || {
                format!(
                    "device {}: batch {} of room {} run {}",
                    seat.device, batch.seq, batch.room, batch.run
                )
            });
            return None;
        }
        let mut ours = Ours::new(self.known.types.len());
        let mut dues = Vec::with_capacity(batch.messages.len());
        let mut faultless = true;
        let brought = self.read_reliable(seat, batch);
        let is_ours = |message: &&HeardMessage| message.type_name != ENGINE_TYPE && message.offset == 0;
        for message in batch.messages.iter().filter(is_ours) {
            match self.judge_message(seat, life, message, batch.seq) {
                Some(Which::Ours { kind, number }) => {
                    let schedule = &self.known.load(kind).schedule;
                    ours.add(kind, schedule.place_of(number), message.count);
                    dues.push((kind, schedule.due_ns(number)));
                }
                Some(Which::Others { kind }) => ours.0[usize::from(kind)].others += 1,
                None => faultless = false,
            }
        }
        let carried = batch.carried.iter().filter(|message| message.offset == 0);
        for message in carried.chain(batch.latest.iter().filter(is_ours)) {
            faultless &= self.is_a_value(seat, life, message, batch.seq);
        }
        let has_messages = !batch.messages.is_empty();
        let nothing_besides = batch.carried.is_empty() && batch.latest.is_empty();
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
            // It may say what was shed and merged before it left: so do all frames that bring it.
            is_level: has_messages && nothing_besides && batch.seq == held_seq + 1,
            has_messages,
            dues: dues.into(),
            told: self.known.told(batch),
            readable: self.known.readable(batch),
            // A batch of reliable messages alone may be passed over without a word: they are carried. That it held no
            // chat is checked when the skips are settled.
            explains: !(batch.skipped.is_empty()
                && batch.merged.is_empty()
                && batch.counters.is_empty()
                && nothing_besides)
                || self.streams.is_some(),
            brought,
        })
    }

    /// What a batch brings of the reliable stream, carried messages first.
    fn read_reliable(&mut self, seat: Seat, batch: &Batch) -> Option<Rc<Brought>> {
        let reliable = batch.carried.iter().chain(&batch.messages).filter(|message| message.offset > 0);
        match &mut self.streams {
            Some(streams) => streams.read(seat, batch.span, reliable, &mut self.violations),
            None => {
                for message in reliable {
                    self.violations.add(Kind::Foreign, 1, || {
                        format!("device {}: a {} in batch {}", seat.device, message.type_name, batch.seq)
                    });
                }
                None
            }
        }
    }

    /// Which message it is, if it is one that this room was given.
    fn judge_message(&mut self, seat: Seat, life: usize, message: &HeardMessage, seq: u64) -> Option<Which> {
        let room = self.lives[life].seen.room;
        let (kind, forgery) = match self.known.which(room, message) {
            Ok(which) => return Some(which),
            Err(wrong) => wrong,
        };
        self.violations.add(kind, 1, || {
            let shown: String = String::from_utf8_lossy(&message.payload).chars().take(60).collect();
            format!("device {}: batch {seq} has a {} {forgery:?}: {shown}", seat.device, message.type_name)
        });
        None
    }

    /// Whether a message beside a batch is the latest value of one of our types: nothing else has its place there.
    fn is_a_value(&mut self, seat: Seat, life: usize, message: &HeardMessage, seq: u64) -> bool {
        match self.judge_message(seat, life, message, seq) {
            None => false,
            Some(Which::Ours { kind, .. } | Which::Others { kind })
                if self.known.load(kind).class == Class::Latest =>
            {
                true
            }
            Some(_) => {
                self.violations.add(Kind::Foreign, 1, || {
                    format!("device {}: a {} beside batch {seq}", seat.device, message.type_name)
                });
                false
            }
        }
    }

    /// Enters a batch into the room's order, or compares it with what other devices were told. Whether it fits.
    fn enter(&mut self, seat: Seat, life: usize, seq: u64, ours: Ours) -> bool {
        let mut fits = true;
        for (of_type, mine) in self.lives[life].seen.types.iter_mut().zip(ours.0) {
            let numbers = Numbers::from(mine.places);
            let counts = (!mine.counts.iter().all(|count| *count == 1)).then_some(mine.counts);
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
            let known = known.clone();
            self.violations.add(kind, count, || {
                format!("device {}: batch {seq} was {numbers:?} for it, {known:?} for others", seat.device)
            });
            fits = false;
        }
        fits
    }

    /// Moves a device along by a frame that is faultless in itself.
    fn follow(&mut self, track: &mut Track, seat: Seat, held: u64, now_ns: u64, said: &Said) {
        self.tally.frames += 1;
        self.tally.skipped += said.skipped();
        self.tally.deliveries += said.messages();
        if said.seq < held || (said.has_messages && said.seq == held) {
            let kind = if said.has_messages { Kind::Twice } else { Kind::OutOfOrder };
            self.violations
                .add(kind, 1, || format!("device {}: seq {} after seq {held}", seat.device, said.seq));
            return;
        }
        track.seq = Some(said.seq);
        if let Some(readers) = &mut self.readers {
            readers.take(seat.device, said.readable, now_ns);
        }
        // A batch brings its own seq; what it or a refresh says besides is about the seqs between.
        let through = if said.has_messages { said.seq - 1 } else { said.seq };
        if through > held && !said.explains {
            self.violations.add(Kind::Gap, 1, || {
                format!("device {}: from seq {held} to {} and no word of why", seat.device, said.seq)
            });
        } else if said.seq > held || !said.told.is_empty() {
            self.lives[track.life as usize].claim(held, said, seat.device);
        }
    }

    /// Whether all that was accepted of each type is accounted for in the room at `place`, so that nothing more is awaited.
    #[must_use]
    pub(crate) fn is_complete(&self, place: usize, accepted: &[u64]) -> bool {
        let room = self.lives[place].seen.room;
        let later = self.lives.iter().skip(self.rooms).filter(|life| life.seen.room == room);
        let lives: Vec<&WatchedRoom> = later.chain([&self.lives[place]]).collect();
        accepted.iter().enumerate().all(|(kind, accepted)| {
            lives.iter().map(|life| life.accounted.get(kind).copied().unwrap_or(0)).sum::<u64>() >= *accepted
        })
    }

    /// Whether a device has every message that any device of its room has, and its stream at least up to `head`.
    #[must_use]
    pub(crate) fn is_level(&self, track: Track, seat: Seat, head: u64) -> bool {
        let newest_seq = self.lives[track.life as usize].newest_seq;
        track.seq.is_some_and(|seq| seq >= newest_seq)
            && self.streams.as_ref().is_none_or(|streams| streams.is_level(track.place, seat, head))
    }

    /// The newest batches of all rooms together: it grows whenever a device hears of a new one.
    #[must_use]
    pub(crate) fn newest(&self) -> u64 {
        self.lives.iter().map(|life| life.newest_seq).sum()
    }

    /// A device leaves its room for good: what it was owed of the reliable stream until now is judged.
    pub(crate) fn end_stay(&mut self, track: Track, seat: Seat, now_ns: u64) {
        if let Some(streams) = self.streams.as_mut().filter(|_| track.is_in && track.seq.is_some()) {
            streams.end(track.place, seat, now_ns);
        }
    }

    /// The run is over for a device that was welcomed.
    pub(crate) fn end(&mut self, track: Track, seat: Seat, now_ns: u64) {
        let Some(seq) = track.seq else { return };
        let life = &mut self.lives[track.life as usize];
        if !track.was_away {
            life.seen.started(track.start_seq, seat.device);
            life.seen.ended(seq, seat.device);
        } else if track.is_in && seq < life.newest_seq {
            // Everybody was waited for, and others of its room had this in time.
            let newest_seq = life.newest_seq;
            self.violations.add(Kind::Lost, 1, || {
                format!("device {}: came late, and ended at batch {seq} of {newest_seq}", seat.device)
            });
        }
        if let Some(streams) = self.streams.as_mut().filter(|_| track.is_in) {
            streams.end(track.place, seat, now_ns);
        }
    }

    /// The run is over: records what is gathered still, and gives what was seen of each room that a device was in.
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
