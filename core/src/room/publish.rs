//! Taking messages in: idempotency, admission by class, and the verdict on each. A publish with a reliable message is
//! answered when the store has; what follows that message in its request waits with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Room;
use super::buffer::Push;
use super::exchange::Output;
use super::id::TypeName;
use super::ids::{Fingerprint, Known};
use super::ladder;
use super::message::{Class, Message, Published, ShedReason, Unavailable, Verdict};
use super::stream::{Phase, Twin};
use super::tally::RoomTally;
use crate::limits::{GATHERED_BYTES_MAX, GATHERED_MESSAGES_MAX};
use crate::now::Now;

/// A publish that waits for the store.
#[derive(Debug)]
pub(super) struct Pending {
    whose: Whose,
    /// On its first messages.
    verdicts: Vec<Verdict>,
    /// Its other messages; the first waits for the store.
    rest: VecDeque<Step>,
}

/// Who hears what became of messages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    /// A publisher.
    Publish { ticket: u64 },
    /// A publisher that takes a message back.
    Recall { ticket: u64, offset: u64 },
}

/// What is still to be done for one message of a pending publish.
#[derive(Debug)]
enum Step {
    /// Nothing: this became of it.
    Told(Verdict),
    /// It is to be taken in.
    Take(Message),
    /// It is on its way to the store.
    Await(Arc<Message>),
    /// It is the same as one on its way to the store, with this offset.
    AwaitTwin(u64),
}

/// How much waits for the store, what follows reliable messages in their requests included. Bounded as what is gathered
/// is, but for one request.
#[derive(Debug, Default)]
pub(super) struct WaitingForStore {
    messages: usize,
    bytes: usize,
}

impl WaitingForStore {
    fn is_full(&self) -> bool {
        self.messages >= GATHERED_MESSAGES_MAX || self.bytes >= GATHERED_BYTES_MAX
    }

    fn add(&mut self, step: &Step) {
        self.messages += 1;
        self.bytes += step.bytes();
    }

    fn remove(&mut self, step: &Step) {
        self.messages -= 1;
        self.bytes -= step.bytes();
    }
}

impl Step {
    fn bytes(&self) -> usize {
        match self {
            Self::Take(message) => message.wire_bytes,
            // The stream counts these.
            Self::Await(_) | Self::Told(_) | Self::AwaitTwin(_) => 0,
        }
    }
}

impl Pending {
    /// What waits for the same outcome as the message with this offset.
    fn twin(whose: Whose, offset: u64) -> Self {
        Self { whose, verdicts: Vec::new(), rest: VecDeque::from([Step::AwaitTwin(offset)]) }
    }
}

impl Room {
    /// Takes a publish in. Whether it was parked is the caller's to see to: the stream is ready, or not worth waiting for.
    pub(super) fn publish(&mut self, ticket: u64, messages: Vec<Message>, now: Now, tally: &mut RoomTally) {
        self.ids.age(now.instant);
        self.stream.age(now.unix_ms);
        if let Some(index) = self.reused_id(&messages) {
            let published = Published::IdReused { index };
            return self.outputs.push_back(Output::Published { ticket, published });
        }
        self.message_rate.add(messages.len() as f64, now.instant);
        self.take(Whose::Publish { ticket }, messages, now, tally);
    }

    /// Takes messages in one after the other, and answers when the last has its verdict.
    pub(super) fn take(&mut self, whose: Whose, messages: Vec<Message>, now: Now, tally: &mut RoomTally) {
        let (mut verdicts, mut rest, mut append) = (Vec::new(), VecDeque::new(), Vec::new());
        for message in messages {
            let step = match message.class() {
                Class::Reliable => self.offer_to_stream(message, now, tally),
                _ if rest.is_empty() => Step::Told(self.publish_one(message, now, tally)),
                _ => Step::Take(message),
            };
            match step {
                Step::Told(verdict) if rest.is_empty() => verdicts.push(verdict),
                Step::Await(message) => {
                    append.push(Arc::clone(&message));
                    rest.push_back(Step::Await(message));
                }
                step => rest.push_back(step),
            }
        }
        if !append.is_empty() {
            let epoch = self.stream.epoch().expect("a stream takes messages once it is loaded");
            self.outputs.push_back(Output::Append { life: self.stream.life(), epoch, messages: append });
        }
        if rest.is_empty() {
            return self.answer(whose, verdicts);
        }
        rest.iter().for_each(|step| self.waiting_for_store.add(step));
        self.pending.push_back(Pending { whose, verdicts, rest });
    }

    /// Has somebody wait for the outcome of a message on its way to the store.
    pub(super) fn await_twin(&mut self, whose: Whose, offset: u64) {
        let pending = Pending::twin(whose, offset);
        pending.rest.iter().for_each(|step| self.waiting_for_store.add(step));
        self.pending.push_back(pending);
    }

    /// Goes on with what waited for the store: as far as messages are durable, or, after a failure, through all of it.
    pub(super) fn settle(&mut self, failed: Option<Unavailable>, now: Now, tally: &mut RoomTally) {
        while let Some(mut pending) = self.pending.pop_front() {
            while let Some(step) = pending.rest.pop_front() {
                self.waiting_for_store.remove(&step);
                let awaited = match &step {
                    Step::Await(message) => message.offset,
                    Step::AwaitTwin(offset) => *offset,
                    Step::Told(_) | Step::Take(_) => 0,
                };
                let verdict = match (step, failed) {
                    (Step::Told(verdict), _) => verdict,
                    (Step::Take(message), _) => self.publish_one(message, now, tally),
                    (step, None) if awaited > self.stream.durable() => {
                        self.waiting_for_store.add(&step);
                        pending.rest.push_front(step);
                        return self.pending.push_front(pending);
                    }
                    (Step::Await(_) | Step::AwaitTwin(_), Some(reason))
                        if awaited > self.stream.durable() =>
                    {
                        tally.unavailable[reason as usize] += 1;
                        Verdict::Unavailable(reason)
                    }
                    (Step::Await(message), _) => self.gather_durable(message, now, tally),
                    (Step::AwaitTwin(offset), _) => Verdict::Duplicate { offset: Some(offset) },
                };
                pending.verdicts.push(verdict);
            }
            self.answer(pending.whose, pending.verdicts);
        }
    }

    /// A message is durable: it takes its place in the room's order.
    pub(super) fn gather_durable(
        &mut self,
        message: Arc<Message>,
        now: Now,
        tally: &mut RoomTally,
    ) -> Verdict {
        let offset = message.offset;
        // Of a type that came back from the store there may be no column yet, or no room for one: it is sent all the same.
        if let Some(column) = self.account.column(&message.type_name) {
            column.apart = true;
            column.accepted += 1;
        }
        tally.accepted.add(Class::Reliable, 1);
        self.buffer.push_durable(message, now.instant);
        Verdict::Durable { offset }
    }

    fn answer(&mut self, whose: Whose, verdicts: Vec<Verdict>) {
        match whose {
            Whose::Publish { ticket } => {
                let published = Published::Taken(verdicts);
                self.outputs.push_back(Output::Published { ticket, published });
            }
            Whose::Recall { ticket, offset } => self.tell_recalled(ticket, offset, &verdicts),
        }
    }

    /// Gives a reliable message its place in the stream, or says why it has none.
    fn offer_to_stream(&mut self, mut message: Message, now: Now, tally: &mut RoomTally) -> Step {
        tally.published.add(Class::Reliable, 1);
        self.limits.apply(&mut message);
        if let Some(id) = &message.id {
            match self.stream.twin(id, Fingerprint::of(&message)) {
                Ok(Twin::No) | Err(_) => {}
                Ok(Twin::Durable(offset)) => {
                    tally.duplicates += 1;
                    return Step::Told(Verdict::Duplicate { offset: Some(offset) });
                }
                Ok(Twin::InFlight(offset)) if !self.waiting_for_store.is_full() => {
                    tally.duplicates += 1;
                    return Step::AwaitTwin(offset);
                }
                Ok(Twin::InFlight(_)) => {
                    tally.unavailable[Unavailable::RoomFull as usize] += 1;
                    return Step::Told(Verdict::Unavailable(Unavailable::RoomFull));
                }
            }
        }
        let unavailable = if self.is_closing {
            // It closes once what waits for the store has its answers: nothing more may wait.
            Some(Unavailable::StoreBusy)
        } else if self.stream.phase() != Phase::Ready {
            Some(self.stream.unavailable())
        } else if self.buffer.is_full() || self.waiting_for_store.is_full() {
            Some(Unavailable::RoomFull)
        } else if message.recall == 0 && !self.stream.has_room_for(message.wire_bytes) {
            Some(Unavailable::StreamFull)
        } else {
            None
        };
        if let Some(reason) = unavailable {
            tally.unavailable[reason as usize] += 1;
            return Step::Told(Verdict::Unavailable(reason));
        }
        // What takes an earlier one back is never too much.
        let refused = if !self.account.admits(&message.type_name) {
            Some(ShedReason::TypesFull)
        } else if message.recall > 0 {
            None
        } else {
            self.limits.refuses(&message, self.pace.rules(), now.instant, tally)
        };
        if let Some(reason) = refused {
            return Step::Told(self.refuse(Class::Reliable, &message.type_name, reason, tally));
        }
        message.at_ms = now.unix_ms;
        Step::Await(self.stream.append(message))
    }

    /// The first message whose id was used for another one, earlier or within this request.
    fn reused_id(&self, messages: &[Message]) -> Option<usize> {
        let mut here = BTreeMap::new();
        messages.iter().position(|message| {
            let Some(id) = &message.id else { return false };
            let fingerprint = Fingerprint::of(message);
            let first_here = *here.entry(id).or_insert(fingerprint);
            first_here != fingerprint
                || self.ids.know(id, fingerprint) == Known::Other
                || self.stream.twin(id, fingerprint).is_err()
        })
    }

    fn publish_one(&mut self, mut message: Message, now: Now, tally: &mut RoomTally) -> Verdict {
        tally.published.add(message.class(), 1);
        let id = message.id.clone().map(|id| (id, Fingerprint::of(&message)));
        if let Some((id, fingerprint)) = &id
            && self.ids.know(id, *fingerprint) == Known::Same
        {
            tally.duplicates += 1;
            return Verdict::Duplicate { offset: None };
        }
        self.limits.apply(&mut message);
        let refused = self.refuses(&message);
        let refused =
            refused.or_else(|| self.limits.refuses(&message, self.pace.rules(), now.instant, tally));
        let verdict = match refused {
            Some(reason) => self.refuse(message.class(), &message.type_name, reason, tally),
            None => self.accept(message, now, tally),
        };
        // What was shed is not remembered: its publisher may well try again with the same id.
        if let (Some((id, fingerprint)), false) = (id, matches!(verdict, Verdict::Shed(_))) {
            tally.ids_evicted += self.ids.remember(id, fingerprint, now.instant);
        }
        verdict
    }

    /// Why a message is not taken in, whatever the rates say.
    fn refuses(&self, message: &Message) -> Option<ShedReason> {
        if message.class() == Class::Lossy && self.step >= ladder::Step::LossyOff {
            return Some(ShedReason::LossyOff);
        }
        (!self.account.admits(&message.type_name)).then_some(ShedReason::TypesFull)
    }

    /// Takes one message in, or says why not.
    pub(super) fn accept(&mut self, mut message: Message, now: Now, tally: &mut RoomTally) -> Verdict {
        message.at_ms = now.unix_ms;
        let (class, type_name) = (message.class(), message.type_name.clone());
        if let Some(reason) = self.refuses(&message) {
            return self.refuse(class, &type_name, reason, tally);
        }
        let verdict = match class {
            Class::Counter => self.count(&message, now),
            _ => self.gather(message, now),
        };
        if let Verdict::Shed(reason) = verdict {
            return self.refuse(class, &type_name, reason, tally);
        }
        let column = self.account.column(&type_name).expect("there is one, or room for it");
        column.accepted += 1;
        tally.accepted.add(class, 1);
        if verdict == Verdict::Merged {
            tally.merged.add(class, 1);
        }
        verdict
    }

    /// Accounts for a message that is not taken in.
    fn refuse(
        &mut self,
        class: Class,
        type_name: &TypeName,
        reason: ShedReason,
        tally: &mut RoomTally,
    ) -> Verdict {
        tally.shed[reason as usize].add(class, 1);
        if let Some(column) = self.account.column_of_refused(type_name) {
            column.refused[reason as usize] += 1;
        }
        Verdict::Shed(reason)
    }

    fn count(&mut self, message: &Message, now: Now) -> Verdict {
        let Some(added) = self.counters.add(&message.type_name, message.count) else {
            return Verdict::Shed(ShedReason::CounterTypesFull);
        };
        self.counted_since.get_or_insert(now.instant);
        if let Some(increments) = self.increments.get_mut(&message.type_name) {
            *increments += 1;
        } else {
            self.increments.insert(message.type_name.clone(), 1);
            if let Some(column) = self.account.column(&message.type_name) {
                column.apart = true;
            }
        }
        if added < message.count { Verdict::Saturated } else { Verdict::Accepted }
    }

    fn gather(&mut self, message: Message, now: Now) -> Verdict {
        if let (Class::Latest, Some(key)) = (message.class(), &message.key)
            && !self.latest.admit(&message.type_name, key)
        {
            return Verdict::Shed(ShedReason::LatestKeysFull);
        }
        let push = self.buffer.push(message, now.instant);
        let shown = self.normal_per_second();
        if shown > 0 {
            self.buffer.thin(shown as usize, self.run.0, now.instant);
        }
        match push {
            Push::Gathered => Verdict::Accepted,
            Push::Merged => Verdict::Merged,
            Push::Full => Verdict::Shed(ShedReason::RoomFull),
        }
    }
}
