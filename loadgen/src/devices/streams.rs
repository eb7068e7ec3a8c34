//! The reliable streams of one worker's rooms: what devices are given of them, and how their cursors move.
//!
//! A frame's reliable part is compared with what was published once (`read`), and then applied to each device that is
//! given it (`apply`): an integer or two compared, a count or two raised. Pure.

use std::rc::Rc;

use crate::devices::watch::Seat;
use crate::figures::latency::Latency;
use crate::ledger::{APPLY_AGE_MAX_NS, Kind, StreamSeen, Violations, What};
use crate::scenario::mix::ReliableTypes;
use crate::scenario::payload::{Forgery, Payloads};
use crate::scenario::schedule::Schedule;
use crate::wire::frame::{HeardMessage, StreamPage, StreamSpan, Welcome};

/// How a device spreads its acknowledgements where a frame does not say.
const ACK_WITHIN_MS: u64 = 200;
/// Life of a reliable message where the run gives none, as the engine's own types have it.
pub(crate) const TTL_MS: u64 = 600_000;

/// One device's place in its room's stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamPlace {
    /// Which life of the stream, counted from 1; 0: none known.
    pub(crate) epoch: u32,
    /// Everything up to here is applied.
    pub(crate) offset: u64,
    /// The newest offset it was told of. Past `offset` while something has to be pulled.
    pub(crate) wanted: u64,
    /// When it came back the last time, or began to read again; 0: it was there throughout.
    pub(crate) returned_ns: u64,
    /// It drops some of its acknowledgements.
    pub(crate) drops_acks: bool,
    /// It reads slowly just now, so that when it applies something says nothing of the node.
    pub(crate) is_slow: bool,
}

/// What one frame brings of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    pub(crate) after: u64,
    pub(crate) through: u64,
    pub(crate) ack_within_ms: u64,
    /// Rising offsets, and what stands there.
    pub(crate) messages: Vec<(u64, What)>,
    /// Offsets of the span at which there was nothing.
    pub(crate) holes: Vec<u64>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StreamTally {
    /// Reliable messages that devices applied.
    pub(crate) applied: u64,
    /// Of those: devices that acknowledge everything.
    pub(crate) applied_acknowledging: u64,
    /// Reliable messages that came when they were applied already.
    pub(crate) duplicates: u64,
    /// Of those: to devices that acknowledge everything.
    pub(crate) duplicates_acknowledging: u64,
    /// Acknowledgements sent.
    pub(crate) acks_sent: u64,
    /// Acknowledgements dropped on purpose.
    pub(crate) acks_dropped: u64,
    /// Pages pulled.
    pub(crate) pulls: u64,
    /// Pulls that failed, and were tried again.
    pub(crate) pulls_failed: u64,
    /// Devices that came back.
    pub(crate) reconnects: u64,
    /// Times a device stopped reading.
    pub(crate) stalls: u64,
    /// Cursors that were answered with a reset.
    pub(crate) resets: u64,
    /// Recalls that devices applied.
    pub(crate) recalls: u64,
}

impl StreamTally {
    /// Adds what another worker counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.applied_acknowledging += other.applied_acknowledging;
        self.duplicates += other.duplicates;
        self.duplicates_acknowledging += other.duplicates_acknowledging;
        self.acks_sent += other.acks_sent;
        self.acks_dropped += other.acks_dropped;
        self.pulls += other.pulls;
        self.pulls_failed += other.pulls_failed;
        self.reconnects += other.reconnects;
        self.stalls += other.stalls;
        self.resets += other.resets;
        self.recalls += other.recalls;
    }
}

/// What is published reliably, and how to tell whether a message is that.
#[derive(Debug)]
pub(crate) struct Original {
    pub(crate) schedule: Schedule,
    pub(crate) payloads: Payloads,
    pub(crate) types: ReliableTypes,
    pub(crate) ttl_ms: Option<u64>,
    /// Another run publishes to the same rooms.
    pub(crate) others: bool,
}

impl Original {
    /// What a message of room `room` is.
    ///
    /// # Errors
    /// The promise that it breaks, when it is none of ours.
    pub(crate) fn tell(
        &self,
        room: u32,
        message: &HeardMessage,
        scratch: &mut Vec<u8>,
    ) -> Result<What, Kind> {
        if message.recall > 0 {
            return Ok(What::Recall(message.recall));
        }
        if !message.json {
            return Err(Kind::I6NotPublished);
        }
        match self.payloads.check(&self.schedule, &message.payload, scratch) {
            Ok(number) if self.schedule.room_of(number) != room => Err(Kind::I5OtherRoom),
            Ok(number) if message.type_name != self.types.of(number) => Err(Kind::I6NotPublished),
            Ok(number) if message.id != self.payloads.id(number) => Err(Kind::I6Altered),
            Ok(number) => Ok(What::Message(number)),
            Err(Forgery::Altered { .. }) => Err(Kind::I6Altered),
            Err(Forgery::OtherRun) if self.others => Ok(What::Other),
            Err(Forgery::OtherRun | Forgery::Foreign) => Err(Kind::I6NotPublished),
        }
    }

    /// How long a message lives.
    #[must_use]
    pub(crate) fn ttl_ns(&self) -> u64 {
        self.ttl_ms.unwrap_or(TTL_MS) * 1_000_000
    }
}

#[derive(Debug)]
struct StreamOfRoom {
    room: u32,
    epochs: Vec<StreamSeen>,
}

/// The streams of one worker's rooms, by the rooms' places.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) original: Original,
    rooms: Vec<StreamOfRoom>,
    scratch: Vec<u8>,
    /// What was counted.
    pub(crate) tally: StreamTally,
    /// From a device's return to when it applied what was published before.
    pub(crate) after_return: Latency,
}

impl Streams {
    /// The streams of these rooms.
    #[must_use]
    pub(crate) fn new(original: Original, rooms: impl IntoIterator<Item = u32>) -> Self {
        let rooms = rooms.into_iter().map(|room| StreamOfRoom { room, epochs: Vec::new() });
        Self {
            original,
            rooms: rooms.collect(),
            scratch: Vec::new(),
            tally: StreamTally::default(),
            after_return: Latency::default(),
        }
    }

    /// The device's cursor as it is spelt; `None` while it has none.
    #[must_use]
    pub(crate) fn cursor(&self, place: StreamPlace, seat: Seat) -> Option<String> {
        let epoch = self.epoch(place, seat)?;
        Some(format!("{epoch}:{}", place.offset))
    }

    /// The life of the stream that the device knows.
    #[must_use]
    pub(crate) fn epoch(&self, place: StreamPlace, seat: Seat) -> Option<&str> {
        let index = (place.epoch as usize).checked_sub(1)?;
        self.rooms[seat.place].epochs.get(index).map(|stream| &*stream.epoch)
    }

    /// Compares a frame's reliable messages with what was published: `None` if it says nothing of the stream.
    pub(crate) fn read<'a>(
        &mut self,
        seat: Seat,
        span: StreamSpan,
        messages: impl Iterator<Item = &'a HeardMessage>,
        violations: &mut Violations,
    ) -> Option<Rc<Brought>> {
        let room = self.rooms[seat.place].room;
        let mut read = Vec::new();
        let mut holes = Vec::new();
        let mut before = span.after;
        let mut any = false;
        for message in messages {
            any = true;
            let offset = message.offset;
            if offset <= before || offset > span.through {
                violations.add(Kind::I4OffsetOrder, 1, || {
                    format!(
                        "I4 room {room}: device {}: offset {offset} after {before} in a frame of ({}, {}]",
                        seat.device, span.after, span.through
                    )
                });
                continue;
            }
            holes.extend((before + 1..offset).take(HOLES_MAX));
            before = offset;
            match self.original.tell(room, message, &mut self.scratch) {
                Ok(what) => read.push((offset, what)),
                Err(kind) => violations.add(kind, 1, || {
                    let shown: String = String::from_utf8_lossy(&message.payload).chars().take(60).collect();
                    format!(
                        "room {room}: device {}: offset {offset} is a {} with id {:?}: {shown}",
                        seat.device, message.type_name, message.id
                    )
                }),
            }
        }
        holes.extend((before + 1..=span.through).take(HOLES_MAX));
        (any || span.through > 0).then(|| {
            Rc::new(Brought {
                after: span.after,
                through: span.through,
                ack_within_ms: if span.ack_within_ms == 0 { ACK_WITHIN_MS } else { span.ack_within_ms },
                messages: read,
                holes,
            })
        })
    }

    /// Gives a device what a frame brings, or has it pull when it lacks something before.
    pub(crate) fn apply(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        brought: &Brought,
        now_ns: u64,
        violations: &mut Violations,
    ) {
        place.wanted = place.wanted.max(brought.through);
        let Some(index) = (place.epoch as usize).checked_sub(1) else { return };
        if place.offset < brought.after {
            return;
        }
        let stream = &mut self.rooms[seat.place].epochs[index];
        for hole in brought.holes.iter().filter(|hole| **hole > place.offset) {
            stream.passed_over(*hole, seat.device, now_ns, place.returned_ns);
        }
        let mut applied = 0;
        let mut duplicates = 0;
        let room = stream.room;
        for (offset, what) in &brought.messages {
            let seen = stream.at(*offset, *what, seat.device);
            if seen.what != *what {
                let other = seen.what;
                violations.add(Kind::I4OffsetOrder, 1, || {
                    format!(
                        "I4 room {room}: device {}: offset {offset} is {what:?}, and was {other:?}",
                        seat.device
                    )
                });
            } else if *offset <= place.offset {
                duplicates += 1;
            } else {
                applied += 1;
                let published_before = match what {
                    What::Recall(_) => {
                        self.tally.recalls += 1;
                        true
                    }
                    What::Other => false,
                    What::Message(number) => self.original.schedule.due_ns(*number) < place.returned_ns,
                };
                let since_return_ns = now_ns.saturating_sub(place.returned_ns);
                if place.is_slow {
                    seen.after_return += 1;
                } else if published_before && since_return_ns <= APPLY_AGE_MAX_NS {
                    self.after_return.record(since_return_ns, 1);
                    seen.after_return += 1;
                } else {
                    seen.apply(now_ns.saturating_sub(self.original.schedule.start_ns), seat.device);
                }
            }
        }
        place.offset = place.offset.max(brought.through);
        self.tally.applied += applied;
        self.tally.duplicates += duplicates;
        if !place.drops_acks {
            self.tally.applied_acknowledging += applied;
            self.tally.duplicates_acknowledging += duplicates;
        }
    }

    /// A device was welcomed: its cursor is honoured, or it begins anew, or the stream is not known just now.
    pub(crate) fn welcome(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        welcome: &Welcome,
        now_ns: u64,
        violations: &mut Violations,
    ) -> Option<Rc<Brought>> {
        if welcome.epoch.is_empty() {
            return None;
        }
        let epoch = &*welcome.epoch;
        let reset = &*welcome.reset;
        let said = CursorSaid { epoch, head: welcome.offset, reset, after: welcome.span.after };
        self.enter(place, seat, said, now_ns, violations);
        let brought = self.read(seat, welcome.span, welcome.reliable.iter(), violations);
        if let Some(brought) = &brought {
            self.apply(place, seat, brought, now_ns, violations);
        }
        brought
    }

    /// A page was pulled for a device.
    pub(crate) fn take_page(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        page: &StreamPage,
        now_ns: u64,
        violations: &mut Violations,
    ) -> Option<Rc<Brought>> {
        self.tally.pulls += 1;
        if page.epoch.is_empty() {
            return None;
        }
        let epoch = &*page.epoch;
        let reset = &*page.reset;
        let said = CursorSaid { epoch, head: page.offset, reset, after: page.span.after };
        self.enter(place, seat, said, now_ns, violations);
        place.wanted = place.wanted.max(page.offset);
        let brought = self.read(seat, page.span, page.reliable.iter(), violations);
        if let Some(brought) = &brought {
            self.apply(place, seat, brought, now_ns, violations);
        }
        brought
    }

    /// Puts a device into the epoch it is told of, with or without a reset.
    fn enter(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        said: CursorSaid<'_>,
        now_ns: u64,
        violations: &mut Violations,
    ) {
        let stream = &mut self.rooms[seat.place];
        let known = stream.epochs.iter().position(|seen| seen.epoch == said.epoch);
        let index = known.unwrap_or_else(|| {
            stream.epochs.push(StreamSeen::new(stream.room, said.epoch));
            stream.epochs.len() - 1
        });
        let epoch = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let held = *place;
        let room = stream.room;
        let same = held.epoch == epoch;
        if held.epoch == 0 || (held.offset == 0 && said.reset.is_empty()) {
            if !same {
                place.epoch = epoch;
                self.begin_at(place, seat, said.after, now_ns);
            }
            return;
        }
        let expired = now_ns >= self.original.schedule.start_ns + self.original.ttl_ns();
        let justified = match said.reset {
            "" => same,
            "epoch_changed" => !same && held.offset > 0,
            "ahead" => same && held.offset > said.head,
            "expired" => expired && held.offset > 0,
            _ => false,
        };
        if !justified {
            violations.add(Kind::I4FalseReset, 1, || {
                format!(
                    "I4 room {room}: device {}: cursor {held:?} was answered with epoch {} offset {} reset {:?}",
                    seat.device, said.epoch, said.head, said.reset
                )
            });
        }
        if !said.reset.is_empty() || !same {
            self.tally.resets += u64::from(!said.reset.is_empty());
            (place.epoch, place.offset, place.wanted) = (epoch, 0, 0);
            self.begin_at(place, seat, said.after, now_ns);
        }
    }

    /// A device begins an epoch behind `after`: what lies before it is passed over, and must be expired or recalled.
    fn begin_at(&mut self, place: &mut StreamPlace, seat: Seat, after: u64, now_ns: u64) {
        let Some(index) = (place.epoch as usize).checked_sub(1) else { return };
        let stream = &mut self.rooms[seat.place].epochs[index];
        for hole in (1..=after).rev().take(HOLES_MAX) {
            stream.passed_over(hole, seat.device, now_ns, place.returned_ns);
        }
        place.offset = after;
    }

    /// Whether the device has applied everything that any device has, and at least up to `head`.
    #[must_use]
    pub(crate) fn is_level(&self, place: StreamPlace, seat: Seat, head: u64) -> bool {
        let newest = (place.epoch as usize)
            .checked_sub(1)
            .and_then(|index| self.rooms[seat.place].epochs.get(index))
            .map_or(0, StreamSeen::newest);
        place.offset >= newest.max(head).max(place.wanted)
    }

    /// The run is over for a device.
    pub(crate) fn end(&mut self, place: StreamPlace, seat: Seat, now_ns: u64) {
        let room = &mut self.rooms[seat.place];
        if room.epochs.is_empty() {
            room.epochs.push(StreamSeen::new(room.room, ""));
        }
        let index = (place.epoch as usize).saturating_sub(1);
        room.epochs[index].ended(place.offset, seat.device, now_ns, place.returned_ns);
    }

    /// The run is over: what was seen of each stream.
    pub(crate) fn finish(&mut self) -> Vec<StreamSeen> {
        self.rooms.drain(..).flat_map(|room| room.epochs).collect()
    }
}

/// Holes noted between two messages of one frame. Past it a gap is as wrong as can be.
const HOLES_MAX: usize = 1_024;

/// What a welcome or a page says of a cursor.
#[derive(Debug, Clone, Copy)]
struct CursorSaid<'a> {
    epoch: &'a str,
    head: u64,
    reset: &'a str,
    after: u64,
}
