//! The room's dealings with its stream: loading it, asking the store, and answering those who read from it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Room;
use super::entry::Entry;
use super::exchange::{
    Ask, Carried, CarryWant, Input, Join, Opening, Output, Reach, Refresh, RefreshWant, Stands, Told,
};
use super::found::Found;
use super::id::{Cursor, Epoch};
use super::message::{Class, Message, Payload, ShedReason, Unavailable, Verdict};
use super::policy::TypePolicy;
use super::publish::Whose;
use super::receipt::Acks;
use super::stored::{Asked, Page, Stored};
use super::stream::{Judged, Loaded, Phase};
use super::tally::RoomTally;
use super::view::{RecallView, ReceiptView, StreamRefusal};
use crate::limits::{
    ACK_MEMBERS_PER_MS, ACK_WITHIN_MAX, ACK_WITHIN_MIN, CARRY_BYTES_MAX, CATCH_UP_BYTES_MAX, PARKED_MAX,
    PULL_BYTES_MAX, STORE_RETRY, WELCOME_RELIABLE_BYTES_MAX,
};
use crate::now::{Now, millis};

/// The wire size of a recall beside its type: `{"type":"","payload":null,"at":…,"offset":…,"recall":…},` with the largest
/// numbers.
const RECALL_BYTES: usize = 128;

/// Who waits for messages that are read from the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    reach: Reach,
    /// Behind what the store was asked to read for it.
    from: u64,
    bytes_max: usize,
    whose: Reading,
}

/// What the messages are for.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// The refresh of members that miss batches, reliable messages or both.
    Refresh { shard: usize, want: RefreshWant },
    /// Members that did not acknowledge in time.
    Carry { shard: usize, want: CarryWant },
    /// The pull side.
    Pull { ticket: u64, reset: Option<&'static str> },
}

/// What waits until the room's stream is loaded.
#[derive(Debug, Default)]
pub(super) struct Parked {
    inputs: VecDeque<Input>,
    /// Messages of the publishes among them.
    messages: usize,
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Joins are as many as there are connections; what publishers want has a bound.
    fn has_room_for(&self, input: &Input) -> bool {
        match input {
            Input::Publish { messages, .. } => self.messages + messages.len() <= PARKED_MAX,
            _ if input.is_join() => true,
            _ => self.inputs.len() < PARKED_MAX,
        }
    }
}

impl Room {
    /// Whether an input that needs the stream has to wait for it. Begins to load it.
    pub(super) fn needs_stream(&mut self, now: Now) -> bool {
        self.begin_load(now);
        self.stream.is_worth_waiting_for(now.instant)
    }

    /// Has an input wait until the stream is loaded, unless too much waits: then it comes back.
    pub(super) fn park(&mut self, input: Input) -> Option<Input> {
        if !self.parked.has_room_for(&input) {
            return Some(input);
        }
        if let Input::Publish { messages, .. } = &input {
            self.parked.messages += messages.len();
        }
        self.parked.inputs.push_back(input);
        None
    }

    fn begin_load(&mut self, now: Now) {
        if let Some(life) = self.stream.load(now.instant) {
            self.outputs.push_back(Output::Load { life });
        }
    }

    /// The store gave back what it holds.
    pub(super) fn loaded(&mut self, life: u64, stored: Option<Stored>, now: Now, tally: &mut RoomTally) {
        if life != self.stream.life() || !matches!(self.stream.phase(), Phase::Loading { .. }) {
            return;
        }
        self.is_stored |= stored.is_some();
        let loaded = self.stream.loaded(stored, self.run, now.unix_ms);
        let blind = std::mem::take(&mut self.has_blind_members);
        match loaded {
            Loaded::Same(messages) => {
                for message in messages {
                    self.gather_durable(message, now, tally);
                }
                if blind {
                    self.outputs.push_back(Output::StreamChanged);
                }
            }
            Loaded::Another => {
                // What was to be sent of the former stream is in nobody's account any more.
                for message in self.buffer.give_up_durable() {
                    if let Some(column) = self.account.column(&message.type_name) {
                        column.accepted -= 1;
                    }
                    tally.shed[ShedReason::RoomClosed as usize].add(Class::Reliable, 1);
                }
                self.outputs.push_back(Output::StreamChanged);
            }
        }
        self.tidy_due.get_or_insert(now.instant + super::TIDY_INTERVAL);
        self.unpark(now, tally);
        self.read_again();
    }

    /// Everything up to `through` is synced.
    pub(super) fn durable(&mut self, life: u64, through: u64, now: Now, tally: &mut RoomTally) {
        if life == self.stream.life() {
            self.is_stored = true;
            self.stream.durable_through(through);
            self.settle(None, now, tally);
        }
    }

    /// The store did not do what it was asked.
    pub(super) fn store_failed(
        &mut self,
        life: u64,
        asked: Asked,
        reason: Unavailable,
        now: Now,
        tally: &mut RoomTally,
    ) {
        if life != self.stream.life() {
            return;
        }
        if let Asked::Page { after } = asked {
            self.pages_asked.retain(|asked| *asked != after);
            return self.put_readers_off(now);
        }
        tally.store_failures += 1;
        self.stream.failed(reason, now.instant);
        // Of a life that is over, no page is taken.
        self.pages_asked.clear();
        self.put_readers_off(now);
        self.settle(Some(reason), now, tally);
        self.unpark(now, tally);
    }

    /// Does what the time has come for in the dealings with the store.
    pub(super) fn store_due(&mut self, now: Now, tally: &mut RoomTally) {
        if self.stream.due().is_some_and(|due| due <= now.instant) {
            match self.stream.phase() {
                Phase::Failing { .. } => self.begin_load(now),
                // Whoever waits has waited long enough; the answer may still come.
                Phase::Loading { .. } => self.unpark(now, tally),
                Phase::Cold | Phase::Ready => {}
            }
        }
        if self.read_retry.is_some_and(|retry| retry <= now.instant) {
            self.read_retry = None;
            self.read_again();
        }
    }

    /// When `store_due` has something to do.
    pub(super) fn poll_store_due(&self) -> Option<Instant> {
        let waited_for = match self.stream.phase() {
            Phase::Loading { .. } => !self.parked.is_empty(),
            // What was given up may be durable after all: members are to get it without a further publish.
            Phase::Failing { .. } => self.members() > 0,
            Phase::Cold | Phase::Ready => false,
        };
        let store = self.stream.due().filter(|_| waited_for);
        store.into_iter().chain(self.read_retry).min()
    }

    fn unpark(&mut self, now: Now, tally: &mut RoomTally) {
        let parked = std::mem::take(&mut self.parked);
        for input in parked.inputs {
            self.take_input(input, now, tally);
        }
    }

    /// Where a joining member stands, and what it means for receipts.
    pub(super) fn stands(&mut self, join: &Join) -> Option<Stands> {
        if self.stream.epoch().is_none() {
            self.has_blind_members = true;
            return None;
        }
        let Judged { after, reset, returns } = self.stream.judge(join.cursor);
        if returns {
            self.stream.come_back(after, join.device);
        }
        let counts_from = if returns { after } else { self.stream.sent() };
        Some(Stands { after, reset, counts_from })
    }

    /// The stream as a member finds it that has everything up to `after`.
    pub(super) fn opening(&self, after: Option<u64>, bytes_max: usize) -> Option<Opening> {
        let (epoch, after) = (self.stream.epoch()?, after?);
        let found = self.stream.find(after, u64::MAX, bytes_max.min(WELCOME_RELIABLE_BYTES_MAX));
        let ack_within_ms = self.ack_within_ms();
        let nothing = Found::Here { messages: Vec::new(), through: after };
        let carried =
            found.carried(after, ack_within_ms).or_else(|| nothing.carried(after, ack_within_ms))?;
        Some(Opening { epoch, offset: self.stream.sent(), carried })
    }

    /// The life of its reliable stream; `None` while it is not known.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.stream.epoch()
    }

    /// Over how long devices are to spread their acknowledgements.
    #[must_use]
    pub fn ack_within(&self) -> Duration {
        Duration::from_millis(self.ack_within_ms().into())
    }

    /// Over how long devices are to spread their acknowledgements (design: members / 20, within 200 … 5 000).
    pub(super) fn ack_within_ms(&self) -> u32 {
        let within =
            (self.members() / ACK_MEMBERS_PER_MS).clamp(millis(ACK_WITHIN_MIN), millis(ACK_WITHIN_MAX));
        u32::try_from(within).expect("a few seconds")
    }

    /// Members of a segment miss batches, reliable messages or both.
    pub(super) fn refresh(&mut self, shard: usize, want: RefreshWant) {
        let reach = Reach { after: want.sent, through: u64::MAX };
        let whose = Reading::Refresh { shard, want };
        self.read(Reader { reach, from: want.sent, bytes_max: CATCH_UP_BYTES_MAX, whose });
    }

    /// Members of a segment did not acknowledge in time.
    pub(super) fn carry(&mut self, shard: usize, want: CarryWant, now: Now) {
        self.stream.age(now.unix_ms);
        let whose = Reading::Carry { shard, want };
        self.read(Reader { reach: want.reach, from: want.reach.after, bytes_max: CARRY_BYTES_MAX, whose });
    }

    /// Something is asked of the stream, which is ready or not worth waiting for.
    pub(super) fn ask(&mut self, ticket: u64, ask: Ask, now: Now, tally: &mut RoomTally) {
        self.stream.age(now.unix_ms);
        let known = match self.stream.epoch() {
            None => Err(StreamRefusal::Unavailable(self.stream.unavailable())),
            Some(_) if !self.is_stored && self.members() == 0 && !self.is_published => {
                Err(StreamRefusal::NoRoom)
            }
            Some(epoch) => Ok(epoch),
        };
        let told = match (ask, known) {
            (Ask::Receipt { offset }, known) => {
                let acks = self.stream.entry(offset).map_or_else(Acks::default, |entry| entry.acks.clone());
                let receipt = known.and_then(|epoch| {
                    let entry =
                        self.stream.entry(offset).filter(|entry| entry.offset <= self.stream.durable());
                    let entry = entry.ok_or(StreamRefusal::NoOffset)?;
                    Ok(Box::new(self.receipt(epoch, entry)))
                });
                Told::Receipt(receipt, acks)
            }
            (Ask::Recall { offset }, Ok(_)) => return self.recall(ticket, offset, now, tally),
            (Ask::Pull { after }, Ok(_)) => return self.pull(ticket, after),
            (Ask::Recall { .. }, Err(refusal)) => Told::Recalled(Err(refusal)),
            (Ask::Pull { .. }, Err(refusal)) => Told::Pulled(Err(refusal)),
        };
        self.outputs.push_back(Output::Told { ticket, told });
    }

    fn pull(&mut self, ticket: u64, after: Option<Cursor>) {
        let Judged { after, reset, .. } = self.stream.judge(after);
        let reach = Reach { after, through: u64::MAX };
        let whose = Reading::Pull { ticket, reset };
        self.read(Reader { reach, from: after, bytes_max: PULL_BYTES_MAX, whose });
    }

    fn recall(&mut self, ticket: u64, offset: u64, now: Now, tally: &mut RoomTally) {
        let refused = |refusal| Output::Told { ticket, told: Told::Recalled(Err(refusal)) };
        let durable = self.stream.durable();
        let Some(entry) = self.stream.entry(offset).filter(|entry| entry.offset <= durable) else {
            return self.outputs.push_back(refused(StreamRefusal::NoOffset));
        };
        let recall = entry.recall_offset();
        if recall == 0 && (entry.recall > 0 || !entry.is_alive()) {
            return self.outputs.push_back(refused(StreamRefusal::NotAlive));
        }
        if recall > 0 && recall <= durable {
            return self.tell_recalled(ticket, offset, &[Verdict::Durable { offset: recall }]);
        }
        if recall > 0 {
            // A recall of the same message is on its way: its outcome is this one's.
            return self.await_twin(Whose::Recall { ticket, offset }, recall);
        }
        let message = Message {
            type_name: entry.type_name.clone(),
            policy: TypePolicy::of(Class::Reliable),
            key: None,
            id: None,
            payload: Payload::Json(Bytes::from_static(b"null")),
            count: 1,
            // It lives as long as what it takes back would have.
            ttl: Duration::from_millis(entry.expires_ms.saturating_sub(now.unix_ms)),
            offset: 0,
            recall: offset,
            at_ms: 0,
            wire_bytes: RECALL_BYTES + entry.type_name.as_str().len(),
        };
        self.used_by_publisher(now.instant);
        self.take(Whose::Recall { ticket, offset }, vec![message], now, tally);
    }

    pub(super) fn tell_recalled(&mut self, ticket: u64, recalls: u64, verdicts: &[Verdict]) {
        let told = match verdicts {
            [Verdict::Durable { offset } | Verdict::Duplicate { offset: Some(offset) }] => {
                Ok(RecallView { room: self.name.to_string(), offset: *offset, recalls })
            }
            [Verdict::Unavailable(reason)] => Err(StreamRefusal::Unavailable(*reason)),
            _ => Err(StreamRefusal::Unavailable(Unavailable::RoomFull)),
        };
        self.outputs.push_back(Output::Told { ticket, told: Told::Recalled(told) });
    }

    /// The home's part of a receipt.
    fn receipt(&self, epoch: Epoch, entry: &Entry) -> ReceiptView {
        ReceiptView {
            room: self.name.to_string(),
            epoch,
            offset: entry.offset,
            r#type: entry.type_name.to_string(),
            id: entry.id.as_ref().map(ToString::to_string),
            at: entry.at_ms,
            expires_at: entry.expires_ms,
            expired: !entry.is_alive() && entry.recalled_by == 0,
            recalled: entry.recalled_by > 0,
            recalled_by: (entry.recalled_by > 0).then_some(entry.recalled_by),
            since: self.stream.counted_since_ms(),
            online: entry.receipt.online,
            acknowledged: entry.receipt.returned,
            left: self.stream.left(entry),
            pending: 0,
            ack_ms: None,
        }
    }

    /// A segment is no more; it had counted these.
    pub(super) fn acked(&mut self, acks: &[(u64, Acks)]) {
        for (offset, acks) in acks {
            if let Some(entry) = self.stream.entry_mut(*offset) {
                entry.acks.merge(acks);
            }
        }
    }

    /// The room ends: those who read from its stream hear that there is none.
    pub(super) fn turn_readers_away(&mut self) {
        for reader in std::mem::take(&mut self.readers) {
            if let Reading::Pull { ticket, .. } = reader.whose {
                let told = Told::Pulled(Err(StreamRefusal::NoRoom));
                self.outputs.push_back(Output::Told { ticket, told });
            }
        }
    }

    /// The store can't be read for now. Who pulls hears so; members go on without what is stored, and ask again.
    fn put_readers_off(&mut self, now: Now) {
        if self.readers.is_empty() {
            return;
        }
        self.read_retry.get_or_insert(now.instant + STORE_RETRY);
        for reader in std::mem::take(&mut self.readers) {
            match reader.whose {
                // A frame that says nothing is not sent.
                Reading::Refresh { want, .. } if want.since >= self.seq => self.readers.push(reader),
                Reading::Carry { .. } => self.readers.push(reader),
                Reading::Pull { .. } | Reading::Refresh { .. } => {
                    self.hand_out(reader, Found::InStore { from: reader.from });
                }
            }
        }
    }

    fn read(&mut self, reader: Reader) {
        let Reader { reach, bytes_max, .. } = reader;
        match self.stream.find(reach.after, reach.through, bytes_max) {
            Found::InStore { from } => self.read_from_store(Reader { from, ..reader }),
            found @ Found::Here { .. } => self.hand_out(reader, found),
        }
    }

    fn read_from_store(&mut self, reader: Reader) {
        let after = reader.from;
        if self.read_retry.is_some() && matches!(reader.whose, Reading::Pull { .. }) {
            return self.hand_out(reader, Found::InStore { from: after });
        }
        self.readers.push(reader);
        if self.read_retry.is_none() && !self.pages_asked.contains(&after) {
            self.pages_asked.push(after);
            let life = self.stream.life();
            self.outputs.push_back(Output::Page { life, after, bytes_max: reader.bytes_max });
        }
    }

    /// Reads what had to be put off.
    fn read_again(&mut self) {
        self.pages_asked.clear();
        for reader in std::mem::take(&mut self.readers) {
            self.read(reader);
        }
    }

    /// The store gave messages back.
    pub(super) fn paged(&mut self, life: u64, after: u64, page: &Page, now: Now, tally: &mut RoomTally) {
        if life != self.stream.life() {
            return; // What was asked since, or will be after the load, is of the stream as it is now.
        }
        self.pages_asked.retain(|asked| *asked != after);
        self.stream.age(now.unix_ms);
        if page.through <= after && self.stream.durable() > after {
            // The store does not know what it has synced: all there is to know of the stream has to be learnt again.
            return self.store_failed(life, Asked::Append, Unavailable::StoreFailing, now, tally);
        }
        self.stream.bury_missing(&page.messages, after, page.through);
        let (waited, others) =
            std::mem::take(&mut self.readers).into_iter().partition(|reader| reader.from == after);
        self.readers = others;
        let waited: Vec<Reader> = waited;
        for reader in waited {
            let Reader { reach, bytes_max, .. } = reader;
            let through = reach.through.min(page.through);
            let found = self.stream.page(page.messages.iter().cloned(), reach.after, through, bytes_max);
            match &found {
                // It has died since it was asked for; there may be more behind it.
                Found::Here { messages, .. } if messages.is_empty() => self.read(reader),
                Found::Here { .. } | Found::InStore { .. } => self.hand_out(reader, found),
            }
        }
    }

    /// Answers a reader with what was found; with nothing of what is in the store.
    fn hand_out(&mut self, reader: Reader, found: Found) {
        let Reader { reach, whose, .. } = reader;
        let carried = found.carried(reach.after, self.ack_within_ms());
        let output = match whose {
            Reading::Refresh { shard, want } => {
                // A stream that told nothing new is not spoken of.
                let carried = carried.filter(|carried| carried.span.through > reach.after);
                let refresh = self.account.since(want.since).map(|missed| Refresh {
                    missed,
                    latest: self.latest.since(want.since),
                    counters: self.counters.since(want.since),
                    carried,
                });
                let head = self.stream.sent();
                Output::Refreshed { shard, want, to: self.seq, head, refresh }
            }
            Reading::Carry { shard, want } => {
                let carried = carried.filter(|carried: &Carried| !carried.messages.is_empty());
                let floor = self.stream.floor();
                Output::Carried { shard, want, seq: self.seq, carried, floor }
            }
            Reading::Pull { ticket, reset } => {
                let opening = carried
                    .zip(self.stream.epoch())
                    .map(|(carried, epoch)| (Opening { epoch, offset: self.stream.sent(), carried }, reset));
                let refused = StreamRefusal::Unavailable(Unavailable::StoreFailing);
                Output::Told { ticket, told: Told::Pulled(opening.ok_or(refused)) }
            }
        };
        self.outputs.push_back(output);
    }
}
