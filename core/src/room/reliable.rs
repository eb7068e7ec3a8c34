//! The room's dealings with its store: loading the stream, taking the store's answers, and reading for
//! waiting readers.

use std::time::Instant;

use super::Room;
use super::exchange::{CarryWant, Opening, Output, Reach, Refresh, RefreshWant, Stands, Told};
use super::id::{Cursor, Epoch};
use super::message::{Class, ShedReason, Unavailable};
use super::readers::{Purpose, StreamReader};
use super::stored::{Asked, Page, Stored};
use super::stream::Phase;
use super::tally::RoomTally;
use super::view::StreamRefusal;
use crate::limits::{
    ACK_MEMBERS_PER_MS, ACK_WITHIN_MAX, ACK_WITHIN_MIN, CARRY_BYTES_MAX, CATCH_UP_BYTES_MAX,
    CATCH_UP_SMALL_BYTES_MAX, PULL_BYTES_MAX, REFRESH_HISTORY_BYTES_MAX, STORE_PATIENCE,
    WELCOME_RELIABLE_BYTES_MAX,
};
use crate::now::{Now, millis};

/// The time over which so many members are to spread their acknowledgements: members / 20 milliseconds,
/// clamped to 200 … 5 000 ms. Example: 40 000 members take 2 000 ms, so their node gets 20 acknowledgements a
/// millisecond.
pub(super) fn ack_within_ms(members: u64) -> u32 {
    let within = (members / ACK_MEMBERS_PER_MS).clamp(millis(ACK_WITHIN_MIN), millis(ACK_WITHIN_MAX));
    u32::try_from(within).expect("a few seconds")
}

impl Room {
    /// Begins to load the stream if need be. Returns whether an input may wait for the load.
    pub(super) fn needs_stream(&mut self, now: Now) -> bool {
        self.begin_load(now);
        matches!(self.stream.phase, Phase::Loading { since } if now.instant < since + STORE_PATIENCE)
    }

    pub(super) fn begin_load(&mut self, now: Now) {
        if let Some(life) = self.stream.load(now.instant) {
            // Messages that turn out durable after a failure are sent, so they are read whole.
            let whole_after = if self.stream.epoch.is_some() { self.stream.durable } else { u64::MAX };
            self.outputs.push_back(Output::Load { life, whole_after });
        }
    }

    /// Takes the store's answer to a load.
    pub(super) fn loaded(&mut self, stored: Option<Stored>, now: Now, tally: &mut RoomTally) {
        // An answer that comes after the load was given up.
        if !matches!(self.stream.phase, Phase::Loading { .. }) {
            return;
        }
        let was_handed = self.stream.is_handed();
        let loaded = self.stream.loaded(stored, self.run, now);
        if was_handed {
            // First: other nodes hear nothing of the room before.
            self.go_on();
        }
        if let Some(unsent) = loaded {
            for message in unsent {
                self.gather_durable(message, now, tally);
            }
        } else {
            // An offset of the former stream would be taken for one of the new stream.
            for message in self.gathering.buffer.give_up_durable() {
                self.state.give_up(&message.type_name);
                tally.shed[ShedReason::RoomClosed as usize].add(Class::Reliable, 1);
            }
            self.outputs.push_back(Output::StreamChanged);
        }
        // Stored messages expire, in a room that nobody uses as well.
        self.life.holds_what_ages(now.instant);
        self.unpark(now, tally);
        self.read_again();
    }

    /// Takes the store's refusal of a request.
    pub(super) fn store_failed(
        &mut self,
        asked: Asked,
        reason: Unavailable,
        now: Now,
        tally: &mut RoomTally,
    ) {
        // A read that fails says nothing about what was appended.
        if let Asked::Page { after } = asked {
            self.readers.pages_asked.remove(&after);
            return self.put_readers_off(now);
        }
        tally.store_failures += 1;
        if self.stream.is_handed() {
            // Without the stream the run can't go on: members join again, as after a takeover.
            return self.lose(tally);
        }
        self.stream.failed(reason, now.instant);
        // Pages of the life that ends are not taken, so waiting for them would be in vain.
        self.readers.pages_asked.clear();
        self.put_readers_off(now);
        self.settle(Some(reason), now, tally);
        self.unpark(now, tally);
    }

    /// Does what is due in the dealings with the store.
    pub(super) fn store_due(&mut self, now: Now, tally: &mut RoomTally) {
        if self.stream.due().is_some_and(|due| due <= now.instant) {
            match self.stream.phase {
                Phase::Failing { .. } => self.begin_load(now),
                Phase::Loading { .. } if self.stream.is_handed() => return self.lose(tally),
                // The store's patience is used up: joins go on without the stream. Its answer may still come.
                Phase::Loading { .. } => self.unpark(now, tally),
                Phase::Cold | Phase::Ready => {}
            }
        }
        if self.readers.retry.take_if(|retry| *retry <= now.instant).is_some() {
            self.read_again();
        }
    }

    /// The next moment for `store_due`.
    pub(super) fn poll_store_due(&self) -> Option<Instant> {
        let is_waited_for = match self.stream.phase {
            Phase::Loading { .. } => !self.parked.inputs.is_empty() || self.stream.is_handed(),
            // What was given up may be durable after all: members are to get it without a further publish.
            Phase::Failing { .. } => self.members() > 0,
            Phase::Cold | Phase::Ready => false,
        };
        let store = self.stream.due().filter(|_| is_waited_for);
        store.into_iter().chain(self.readers.retry).min()
    }

    fn unpark(&mut self, now: Now, tally: &mut RoomTally) {
        for input in std::mem::take(&mut self.parked).inputs {
            self.take_input(input, now, tally);
        }
    }

    /// The stream for a joining member with everything up to `after`.
    pub(super) fn opening(&self, after: Option<u64>, bytes_max: usize) -> Option<Opening> {
        let epoch = self.stream.epoch?;
        let after = after?;
        let reach = Reach { after, through: u64::MAX };
        let found = self.stream.find(reach, bytes_max.min(WELCOME_RELIABLE_BYTES_MAX));
        let ack_within_ms = ack_within_ms(self.members());
        // A welcome does not wait for the store. The member is catching up, and gets stored messages in
        // refreshes.
        let page = found.unwrap_or(Page { messages: Vec::new(), through: after });
        Some(Opening { epoch, offset: self.stream.sent, carried: page.carried(after, ack_within_ms) })
    }

    /// The epoch of the reliable stream; `None` while unknown.
    pub fn epoch(&self) -> Option<Epoch> {
        self.stream.epoch
    }

    /// Reliable messages that expired or were recalled so far. A frame with reliable messages is good for
    /// further members as long as the number stays.
    pub fn deaths(&self) -> u64 {
        self.stream.entries.deaths
    }

    /// Reads for members without the newest batches, reliable messages or both.
    pub(super) fn refresh(&mut self, shard: usize, want: RefreshWant) {
        let reach = Reach { after: want.sent, through: u64::MAX };
        let purpose = Purpose::Refresh { shard, want };
        let bytes_max = if want.small {
            CATCH_UP_SMALL_BYTES_MAX.min(self.state.small_bytes_left(want.since, 0))
        } else {
            CATCH_UP_BYTES_MAX
        };
        self.read(StreamReader { reach, from: want.sent, bytes_max, purpose });
    }

    /// Reads for members late to acknowledge.
    pub(super) fn carry(&mut self, shard: usize, want: CarryWant) {
        let purpose = Purpose::Carry { shard, want };
        let reach = want.reach;
        self.read(StreamReader { reach, from: reach.after, bytes_max: CARRY_BYTES_MAX, purpose });
    }

    /// Reads the living messages behind a cursor for the pull side.
    pub(super) fn pull(&mut self, ticket: u64, after: Option<Cursor>) {
        let Stands { after, reset, .. } = self.stream.judge(after);
        let reach = Reach { after, through: u64::MAX };
        let purpose = Purpose::Pull { ticket, reset };
        self.read(StreamReader { reach, from: after, bytes_max: PULL_BYTES_MAX, purpose });
    }

    /// The room ends: pulls are refused.
    pub(super) fn turn_readers_away(&mut self) {
        for reader in std::mem::take(&mut self.readers.waiting) {
            if let Purpose::Pull { ticket, .. } = reader.purpose {
                let told = Told::Pulled(Err(StreamRefusal::NoRoom));
                self.outputs.push_back(Output::Told { ticket, told });
            }
        }
    }

    /// The store can't be read for now. Pulls hear so. Members go on without what is stored, and ask again.
    fn put_readers_off(&mut self, now: Now) {
        for reader in self.readers.put_off(self.state.seq, now.instant) {
            self.hand_out(reader, None);
        }
    }

    fn read(&mut self, reader: StreamReader) {
        let from = match self.stream.find(reader.reach, reader.bytes_max) {
            Ok(page) => return self.hand_out(reader, Some(page)),
            Err(from) => from,
        };
        // A pull is refused at once during a pause, since the publisher can ask again.
        if self.readers.retry.is_some() && matches!(reader.purpose, Purpose::Pull { .. }) {
            return self.hand_out(reader, None);
        }
        if self.readers.wait(StreamReader { from, ..reader }) {
            let life = self.stream.life;
            self.outputs.push_back(Output::Page { life, after: from, bytes_max: reader.bytes_max });
        }
    }

    /// Reads for all readers anew: the stream is another, or the store's pause is over.
    fn read_again(&mut self) {
        self.readers.pages_asked.clear();
        for reader in std::mem::take(&mut self.readers.waiting) {
            self.read(reader);
        }
    }

    /// The store gave messages back.
    pub(super) fn paged(&mut self, after: u64, page: &Page, now: Now, tally: &mut RoomTally) {
        self.readers.pages_asked.remove(&after);
        // The store does not know what it has synced: everything about the stream has to be learnt again.
        if page.through <= after && self.stream.durable > after {
            return self.store_failed(Asked::Append, Unavailable::StoreFailing, now, tally);
        }
        // A missing message is damaged or lost, and dies.
        let through = page.through.min(self.stream.durable);
        self.stream.entries.bury_missing(&page.messages, Reach { after, through });
        let readers: Vec<_> = self.readers.waiting.extract_if(.., |reader| reader.from == after).collect();
        for reader in readers {
            let reach = Reach { through: reader.reach.through.min(page.through), ..reader.reach };
            let found = self.stream.page(page.messages.iter().cloned(), reach, reader.bytes_max);
            // All of the page has died since it was asked for, but something behind it may be alive.
            if found.messages.is_empty() {
                self.read(reader);
            } else {
                self.hand_out(reader, Some(found));
            }
        }
    }

    /// Answers a reader with `found`; `None`: the messages are still in the store.
    fn hand_out(&mut self, reader: StreamReader, found: Option<Page>) {
        let StreamReader { reach, purpose, .. } = reader;
        let within = ack_within_ms(self.members());
        let carried = found.map(|page| page.carried(reach.after, within));
        let output = match purpose {
            Purpose::Refresh { shard, want } => {
                // A stream that tells nothing new is not spoken of.
                let carried = carried.filter(|carried| carried.span.through > reach.after);
                let sent = carried.as_ref().map_or(want.sent, |carried| carried.span.through);
                let mut refresh = self.state.refresh(want, carried);
                // Reliable messages and latest values first: a member that lacks more asks again at once.
                let is_last =
                    |refresh: &&mut Refresh| sent >= self.stream.sent && refresh.latest_rest.is_none();
                if let Some(refresh) = refresh.as_mut().filter(is_last).filter(|_| want.small) {
                    refresh.history = self.state.recent(want.since, REFRESH_HISTORY_BYTES_MAX);
                }
                Output::Refreshed { shard, want, to: self.state.seq, head: self.stream.sent, refresh }
            }
            Purpose::Carry { shard, want } => {
                let carried = carried.filter(|carried| !carried.messages.is_empty());
                let floor = self.stream.entries.floor(self.stream.sent);
                Output::Carried { shard, want, seq: self.state.seq, carried, floor }
            }
            Purpose::Pull { ticket, reset } => {
                let opening = carried
                    .zip(self.stream.epoch)
                    .map(|(carried, epoch)| (Opening { epoch, offset: self.stream.sent, carried }, reset));
                let refused = StreamRefusal::Unavailable(Unavailable::StoreFailing);
                Output::Told { ticket, told: Told::Pulled(opening.ok_or(refused)) }
            }
        };
        self.outputs.push_back(output);
    }
}
