//! The reliable streams of a worker's rooms: messages given to devices, and the moves of their cursors.
//!
//! A frame's reliable part is compared with the published messages once (`read`), and then applied to each
//! device with the frame (`apply`), which only compares and counts integers. Pure.

use crate::devices::track::{Seat, StreamPlace};
use crate::figures::latency::Latency;
use crate::ledger::{
    APPLY_AGE_MAX_NS, Kind, StreamSeen, Violations, What, add_fields, slow_apply_age_max_ns,
};
use crate::scenario::payload::{Forgery, Payloads, reliable_seed};
use crate::scenario::plan::{Plan, Reliable};
use crate::wire::frame::{Message, Welcome};

/// Time for the spread of acknowledgements where a frame names none.
const ACK_WITHIN_MS: u64 = 200;
/// Life of a reliable message where the run names none: the default of the engine's types.
pub(crate) const TTL_MS: u64 = 600_000;
/// Holes noted between two messages of a frame, and before a beginning. A wider gap is a fault all the
/// same.
const HOLES_MAX: usize = 1_024;
/// Letters of a payload shown in an example.
const SHOWN_MAX: usize = 60;

/// The stream's part of a frame, compared with the published messages. A frame without a part spans 0 to 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    after: u64,
    pub(crate) through: u64,
    pub(crate) ack_within_ms: u64,
    /// Rising offsets and their content.
    messages: Vec<(u64, What)>,
    /// Offsets of the span without a message.
    holes: Vec<u64>,
}

impl Brought {
    /// A part after `after` up to `through`, without messages.
    pub(crate) fn spanning(after: u64, through: u64, ack_within_ms: u32) -> Self {
        // 0: the frame names no time.
        let ack_within_ms = if ack_within_ms == 0 { ACK_WITHIN_MS } else { ack_within_ms.into() };
        Self { after, through, ack_within_ms, messages: Vec::new(), holes: Vec::new() }
    }
}

/// Counts over a worker's devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StreamTally {
    /// Reliable messages applied.
    pub(crate) applied: u64,
    /// The part of `applied` at devices that drop no acknowledgement.
    pub(crate) applied_acknowledging: u64,
    /// Reliable messages received again after they were applied.
    pub(crate) duplicates: u64,
    /// The part of `duplicates` at devices that drop no acknowledgement.
    pub(crate) duplicates_acknowledging: u64,
    pub(crate) acks_sent: u64,
    /// Acknowledgements dropped on purpose.
    pub(crate) acks_dropped: u64,
    /// Pages pulled.
    pub(crate) pulls: u64,
    /// Pulls without a page.
    pub(crate) pulls_failed: u64,
    /// Returns of devices.
    pub(crate) reconnects: u64,
    /// Times at which a device stopped reading.
    pub(crate) stalls: u64,
    /// Cursors answered with a reset.
    pub(crate) resets: u64,
    /// Recalls applied.
    pub(crate) recalls: u64,
}

impl StreamTally {
    /// Adds the counts of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        add_fields!(self, other; applied, applied_acknowledging, duplicates, duplicates_acknowledging);
        add_fields!(self, other; acks_sent, acks_dropped, pulls, pulls_failed);
        add_fields!(self, other; reconnects, stalls, resets, recalls);
    }
}

/// The published reliable messages.
#[derive(Debug)]
pub(crate) struct Original {
    pub(crate) reliable: Reliable,
    pub(crate) payloads: Payloads,
    /// Another run publishes to the same rooms.
    pub(crate) others: bool,
}

impl Original {
    /// `None` for a run without reliable messages.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let reliable = plan.reliable.clone()?;
        let payloads = Payloads::new(reliable.length, reliable_seed(plan.seed));
        Some(Self { reliable, payloads, others: plan.others })
    }

    /// Identifies a message of `room`.
    ///
    /// # Errors
    /// The broken promise, for a message of no allowed run.
    pub(crate) fn tell(&self, room: u32, message: &Message, scratch: &mut Vec<u8>) -> Result<What, Kind> {
        // A recall has no payload to compare.
        if message.recall > 0 {
            return Ok(What::Recall(message.recall));
        }
        if !message.json {
            return Err(Kind::I6NotPublished);
        }
        let Reliable { schedule, types, .. } = &self.reliable;
        match self.payloads.check(schedule, &message.payload, scratch) {
            Ok(number) if schedule.room_of(number) != room => Err(Kind::I5OtherRoom),
            Ok(number) if message.r#type != types.of(number) => Err(Kind::I6NotPublished),
            Ok(number) if message.id != self.payloads.id(number) => Err(Kind::I6Altered),
            Ok(number) => Ok(What::Message(number)),
            Err(Forgery::Altered { .. }) => Err(Kind::I6Altered),
            Err(Forgery::OtherRun) if self.others => Ok(What::Other),
            Err(Forgery::OtherRun | Forgery::Foreign) => Err(Kind::I6NotPublished),
        }
    }

    pub(crate) fn ttl_ns(&self) -> u64 {
        self.reliable.ttl_ms.unwrap_or(TTL_MS) * 1_000_000
    }
}

#[derive(Debug)]
struct StreamOfRoom {
    room: u32,
    epochs: Vec<StreamSeen>,
}

impl StreamOfRoom {
    /// The stream known to a device.
    fn known(&mut self, place: StreamPlace) -> Option<&mut StreamSeen> {
        self.epochs.get_mut((place.epoch as usize).checked_sub(1)?)
    }
}

/// The streams of a worker's rooms, by the rooms' places.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) original: Original,
    rooms: Vec<StreamOfRoom>,
    scratch: Vec<u8>,
    pub(crate) tally: StreamTally,
    /// Time from a device's return to the applying of messages published before.
    pub(crate) after_return: Latency,
    /// Time within which slow readers are to apply a message.
    slow_age_max_ns: u64,
}

impl Streams {
    /// Streams of `rooms`, with devices of which the slow ones read `slow_bytes_per_s`.
    pub(crate) fn new(
        original: Original,
        rooms: impl IntoIterator<Item = u32>,
        slow_bytes_per_s: u32,
    ) -> Self {
        let rooms = rooms.into_iter().map(|room| StreamOfRoom { room, epochs: Vec::new() });
        Self {
            original,
            rooms: rooms.collect(),
            scratch: Vec::new(),
            tally: StreamTally::default(),
            after_return: Latency::default(),
            slow_age_max_ns: slow_apply_age_max_ns(slow_bytes_per_s),
        }
    }

    /// The device's cursor, `EPOCH:OFFSET`; `None` before the first epoch.
    pub(crate) fn cursor(&self, place: StreamPlace, seat: Seat) -> Option<String> {
        let epoch = self.epoch(place, seat)?;
        Some(format!("{epoch}:{}", place.offset))
    }

    /// The epoch known to the device, in the node's spelling.
    pub(crate) fn epoch(&self, place: StreamPlace, seat: Seat) -> Option<&str> {
        let index = (place.epoch as usize).checked_sub(1)?;
        self.rooms[seat.place].epochs.get(index).map(|stream| &*stream.epoch)
    }

    /// Compares a frame's reliable messages with the publishes; `None` for a frame without a part of the
    /// stream.
    pub(crate) fn read<'a>(
        &mut self,
        seat: Seat,
        mut brought: Brought,
        messages: impl Iterator<Item = &'a Message>,
        violations: &mut Violations,
    ) -> Option<Brought> {
        let room = self.rooms[seat.place].room;
        let Brought { after, through, .. } = brought;
        let device = seat.device;
        let mut before = after;
        let mut any = false;
        for message in messages {
            any = true;
            let offset = message.offset;
            // Applied in this order, the message would move the cursor back, or past the frame's end.
            if offset <= before || offset > through {
                violations.add(Kind::I4OffsetOrder, 1, || {
                    format!(
                        "I4 room {room}: device {device}: offset {offset} after {before} \
                         in a frame of ({after}, {through}]"
                    )
                });
                continue;
            }
            brought.holes.extend((before + 1..offset).take(HOLES_MAX));
            before = offset;
            match self.original.tell(room, message, &mut self.scratch) {
                Ok(what) => brought.messages.push((offset, what)),
                Err(kind) => violations.add(kind, 1, || {
                    let shown: String =
                        String::from_utf8_lossy(&message.payload).chars().take(SHOWN_MAX).collect();
                    let Message { r#type: type_name, id, .. } = message;
                    format!("room {room}: device {device}: offset {offset} is a {type_name} with id {id:?}: {shown}")
                }),
            }
        }
        brought.holes.extend((before + 1..=through).take(HOLES_MAX));
        (any || through > 0).then_some(brought)
    }

    /// Gives a device the part of the stream in a frame. A device that lacks earlier offsets wants to pull
    /// instead.
    pub(crate) fn apply(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        brought: &Brought,
        now_ns: u64,
        violations: &mut Violations,
    ) {
        place.wanted = place.wanted.max(brought.through);
        let Some(stream) = self.rooms[seat.place].known(*place) else { return };
        // Applied now, the frame would leave a hole before its span.
        if place.offset < brought.after {
            return;
        }
        // The cursor moves past the whole span, so the ledger must hear of offsets without a message.
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
                    let device = seat.device;
                    format!("I4 room {room}: device {device}: offset {offset} is {what:?}, and was {other:?}")
                });
                continue;
            }
            // Carried again, or pulled besides: allowed, and counted.
            if *offset <= place.offset {
                duplicates += 1;
                continue;
            }
            applied += 1;
            let published_before = match what {
                What::Recall(_) => {
                    self.tally.recalls += 1;
                    true
                }
                What::Other => false,
                What::Message(number) => self.original.reliable.schedule.due_ns(*number) < place.returned_ns,
            };
            let since_return_ns = now_ns.saturating_sub(place.returned_ns);
            let age_max_ns = if place.is_slow { self.slow_age_max_ns } else { APPLY_AGE_MAX_NS };
            let after_start_ns = now_ns.saturating_sub(self.original.reliable.schedule.start_ns);
            // The device was away at the publish, so the time since the publish says nothing of the node.
            if published_before && since_return_ns <= age_max_ns {
                // The figure is the node's, and a slow reader's time is its own.
                self.after_return.record(since_return_ns, u64::from(!place.is_slow));
                seen.after_return += 1;
            } else if place.is_slow {
                seen.apply_slowly(after_start_ns, seat.device);
            } else {
                seen.apply(after_start_ns, seat.device);
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

    /// Gives a device the stream's part of a welcome: the cursor is honoured, or the device begins anew. A
    /// welcome without an epoch has no such part, because the node does not know the stream just now.
    pub(crate) fn welcome(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        welcome: &Welcome,
        now_ns: u64,
        violations: &mut Violations,
    ) -> Option<Brought> {
        if welcome.epoch.is_empty() {
            return None;
        }
        self.enter(place, seat, welcome, now_ns, violations);
        let span = Brought::spanning(welcome.after, welcome.through, welcome.ack_within_ms);
        let brought = self.read(seat, span, welcome.reliable.iter(), violations)?;
        self.apply(place, seat, &brought, now_ns, violations);
        Some(brought)
    }

    /// Gives a device a pulled page.
    pub(crate) fn take_page(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        page: &Welcome,
        now_ns: u64,
        violations: &mut Violations,
    ) -> Option<Brought> {
        self.tally.pulls += 1;
        let brought = self.welcome(place, seat, page, now_ns, violations);
        // A page ends at a bound, and the rest up to the head has to be pulled as well.
        if !page.epoch.is_empty() {
            place.wanted = place.wanted.max(page.offset);
        }
        brought
    }

    /// Puts a device into the epoch of a welcome or page, with or without a reset.
    fn enter(
        &mut self,
        place: &mut StreamPlace,
        seat: Seat,
        welcome: &Welcome,
        now_ns: u64,
        violations: &mut Violations,
    ) {
        let stream = &mut self.rooms[seat.place];
        let known = stream.epochs.iter().position(|seen| seen.epoch == welcome.epoch);
        let index = known.unwrap_or_else(|| {
            stream.epochs.push(StreamSeen::new(stream.room, &welcome.epoch));
            stream.epochs.len() - 1
        });
        let epoch = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let held = *place;
        let room = stream.room;
        let same = held.epoch == epoch;
        let is_reset = !welcome.reset.is_empty();
        // Without a cursor, or with one at 0, there is nothing to honour: another epoch is no fault.
        if held.epoch == 0 || (held.offset == 0 && !is_reset) {
            // At the same epoch the cursor stays: a device may come back before its first message.
            if !same {
                place.epoch = epoch;
                self.begin_at(place, seat, welcome.after, now_ns);
            }
            return;
        }
        let expired = now_ns >= self.original.reliable.schedule.start_ns + self.original.ttl_ns();
        // Each reason must be true of the cursor, or the node threw away a cursor that it could honour.
        let justified = match &*welcome.reset {
            "" => same,
            "epoch_changed" => !same && held.offset > 0,
            "ahead" => same && held.offset > welcome.offset,
            "expired" => expired && held.offset > 0,
            _ => false,
        };
        if !justified {
            violations.add(Kind::I4FalseReset, 1, || {
                format!(
                    "I4 room {room}: device {}: cursor {held:?} was answered with epoch {} offset {} reset {:?}",
                    seat.device, welcome.epoch, welcome.offset, welcome.reset
                )
            });
        }
        if is_reset || !same {
            self.tally.resets += u64::from(is_reset);
            *place = StreamPlace { epoch, offset: 0, wanted: 0, ..held };
            self.begin_at(place, seat, welcome.after, now_ns);
        }
    }

    /// Lets a device begin an epoch behind `after`. The offsets before count as passed over, so the
    /// ledger asks for their expiry or recall.
    fn begin_at(&mut self, place: &mut StreamPlace, seat: Seat, after: u64, now_ns: u64) {
        let Some(stream) = self.rooms[seat.place].known(*place) else { return };
        // The newest offsets: a long stream's oldest ones are expired anyway.
        for hole in (1..=after).rev().take(HOLES_MAX) {
            stream.passed_over(hole, seat.device, now_ns, place.returned_ns);
        }
        place.offset = after;
    }

    /// The device has applied everything applied by any other, and at least up to `head`.
    pub(crate) fn is_level(&self, place: StreamPlace, seat: Seat, head: u64) -> bool {
        let index = (place.epoch as usize).checked_sub(1);
        let stream = index.and_then(|index| self.rooms[seat.place].epochs.get(index));
        place.offset >= stream.map_or(0, StreamSeen::newest).max(head).max(place.wanted)
    }

    /// Enters a device's place at the end of a stay or of the run.
    pub(crate) fn end(&mut self, place: StreamPlace, seat: Seat, now_ns: u64) {
        let room = &mut self.rooms[seat.place];
        // A device that was never told of an epoch owes the account all the same.
        if room.epochs.is_empty() {
            room.epochs.push(StreamSeen::new(room.room, ""));
        }
        let index = (place.epoch as usize).saturating_sub(1);
        room.epochs[index].ended(place.offset, seat.device, now_ns, place.returned_ns);
    }

    /// Takes out the sight of each stream.
    pub(crate) fn finish(&mut self) -> Vec<StreamSeen> {
        self.rooms.drain(..).flat_map(|room| room.epochs).collect()
    }
}
