//! The way of a publish into the room: idempotency, admission by class, and the verdict on each message.
//!
//! A publish with a reliable message is answered after the store has answered. The messages behind the
//! reliable message wait as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Room;
use super::exchange::Output;
use super::id::TypeName;
use super::ids::Fingerprint;
use super::ladder::Step;
use super::life::End;
use super::message::{Class, Message, Published, ShedReason, Unavailable, Verdict};
use super::pending::{Pending, PendingMessage, Whose};
use super::stream::{Phase, Twin};
use super::tally::RoomTally;
use crate::now::Now;

impl Room {
    /// Takes a publish in. The stream is ready, or not worth waiting for: the caller has parked the publish
    /// otherwise.
    pub(super) fn publish(&mut self, ticket: u64, messages: Vec<Message>, now: Now, tally: &mut RoomTally) {
        self.ids.age(now.instant);
        // Checked for all messages first: a request with a reused id is refused whole, so that it can be sent
        // again whole.
        if let Some(index) = self.reused_id(&messages) {
            let published = Published::IdReused { index };
            return self.outputs.push_back(Output::Published { ticket, published });
        }
        self.message_rate.add(messages.len() as f64, now.instant);
        self.take(Whose::Publish { ticket }, messages, now, tally);
    }

    /// The first message whose id was used for another message, earlier or within this request.
    fn reused_id(&self, messages: &[Message]) -> Option<usize> {
        let mut here = BTreeMap::new();
        messages.iter().position(|message| {
            let Some(id) = &message.id else { return false };
            let fingerprint = Fingerprint::of(message);
            // Within one request, a repeated id is fine only for a repeated message.
            let first_here = *here.entry(id).or_insert(fingerprint);
            first_here != fingerprint
                || self.ids.known.get(id).is_some_and(|known| *known != fingerprint)
                || self.pending.reserved(id).is_some_and(|waiting| waiting != fingerprint)
                || self.stream.twin(id, fingerprint) == Twin::Other
        })
    }

    /// Takes messages in, in order, and answers once the last has a verdict.
    pub(super) fn take(&mut self, whose: Whose, messages: Vec<Message>, now: Now, tally: &mut RoomTally) {
        let mut pending = Pending::new(whose);
        let mut append = Vec::new();
        for message in messages {
            let message = match message.class() {
                Class::Reliable => self.offer_to_stream(message, now, tally),
                // The order of a request is the order of the room: the message waits for a reliable one
                // before it.
                _ if !pending.is_decided() => PendingMessage::Behind(message),
                _ if self.is_retry_of_waiting(&message) => self.wait_for_twin(message, tally),
                _ => PendingMessage::Decided(self.publish_one(message, now, tally)),
            };
            if let PendingMessage::InStore(message) = &message {
                append.push(Arc::clone(message));
            }
            pending.push(message);
        }
        if !append.is_empty() {
            let epoch = self.stream.epoch.expect("a stream takes messages once it is loaded");
            self.outputs.push_back(Output::Append {
                life: self.stream.life,
                epoch,
                durable: self.stream.durable,
                accepted: now.instant,
                messages: append,
            });
        }
        if pending.is_decided() {
            return self.answer(pending);
        }
        self.pending.push(pending);
    }

    /// Goes on with waiting publishes: up to the durable offset, or, after a failure, through all of them.
    pub(super) fn settle(&mut self, failed: Option<Unavailable>, now: Now, tally: &mut RoomTally) {
        let durable = self.stream.durable;
        // A failure answers for every offset: appends fail in order, and so do all that follow in this life.
        let answered = if failed.is_some() { u64::MAX } else { durable };
        while let Some(message) = self.pending.pop(answered) {
            let verdict = match message {
                PendingMessage::Decided(verdict) => verdict,
                PendingMessage::Behind(message) => self.publish_one(message, now, tally),
                PendingMessage::InStore(message) if message.offset <= durable => {
                    self.gather_durable(message, now, tally)
                }
                PendingMessage::Twin(offset) if offset <= durable => {
                    Verdict::Duplicate { offset: Some(offset) }
                }
                PendingMessage::InStore(_) | PendingMessage::Twin(_) => {
                    let reason = failed.expect("past the durable offset, only a failure is an answer");
                    unavailable(reason, tally)
                }
            };
            if let Some(decided) = self.pending.decide(verdict) {
                self.answer(decided);
            }
        }
    }

    /// Gives a durable message a place in the room's order.
    pub(super) fn gather_durable(
        &mut self,
        message: Arc<Message>,
        now: Now,
        tally: &mut RoomTally,
    ) -> Verdict {
        let offset = message.offset;
        self.state.accepted(Class::Reliable, &message.type_name);
        tally.accepted.add(Class::Reliable, 1);
        self.gathering.buffer.push_durable(message, now.instant);
        Verdict::Durable { offset }
    }

    pub(super) fn answer(&mut self, Pending { whose, verdicts, .. }: Pending) {
        match whose {
            Whose::Publish { ticket } => {
                let published = Published::Taken(verdicts);
                self.outputs.push_back(Output::Published { ticket, published });
            }
            Whose::Recall { ticket, offset } => self.tell_recalled(ticket, offset, &verdicts),
        }
    }

    /// Returns true if the same message waits behind a reliable one, under the same id.
    fn is_retry_of_waiting(&self, message: &Message) -> bool {
        let waiting = message.id.as_ref().and_then(|id| self.pending.reserved(id));
        waiting.is_some_and(|waiting| waiting == Fingerprint::of(message))
    }

    /// Has a retry wait for the outcome of the first try: told `duplicate` at once, it would be lost if the
    /// first try is shed.
    fn wait_for_twin(&mut self, message: Message, tally: &mut RoomTally) -> PendingMessage {
        // Retries of one message would otherwise wait without a bound.
        if self.pending.is_full() {
            tally.published.add(message.class(), 1);
            let shed = self.shed(message.class(), &message.type_name, ShedReason::RoomFull, tally);
            return PendingMessage::Decided(shed);
        }
        PendingMessage::Behind(message)
    }

    /// Gives a reliable message an offset, or decides otherwise.
    fn offer_to_stream(&mut self, mut message: Message, now: Now, tally: &mut RoomTally) -> PendingMessage {
        tally.published.add(Class::Reliable, 1);
        self.limits.apply(&mut message);
        if let Some(id) = &message.id {
            match self.stream.twin(id, Fingerprint::of(&message)) {
                // A reused id has had the whole request refused.
                Twin::No | Twin::Other => {}
                Twin::Durable(offset) => {
                    tally.duplicates += 1;
                    return PendingMessage::Decided(Verdict::Duplicate { offset: Some(offset) });
                }
                Twin::InFlight(offset) if !self.pending.is_full() => {
                    tally.duplicates += 1;
                    return PendingMessage::Twin(offset);
                }
                // Retries of one message would otherwise wait without a bound.
                Twin::InFlight(_) => {
                    return PendingMessage::Decided(unavailable(Unavailable::RoomFull, tally));
                }
            }
        }
        if let Some(reason) = self.stream_unavailable(&message) {
            return PendingMessage::Decided(unavailable(reason, tally));
        }
        if let Some(reason) = self.reliable_shed(&message, now, tally) {
            let verdict = self.shed(Class::Reliable, &message.type_name, reason, tally);
            return PendingMessage::Decided(verdict);
        }
        message.at_ms = now.unix_ms;
        PendingMessage::InStore(self.stream.append(message, now.instant))
    }

    /// The reason why the stream can't take a message now.
    fn stream_unavailable(&self, message: &Message) -> Option<Unavailable> {
        if self.life.end != End::Open {
            // Parked until the close. A closed room waits for answers of the store, and asks nothing more.
            return Some(Unavailable::StoreBusy);
        }
        if self.stream.phase != Phase::Ready {
            return Some(self.stream.unavailable());
        }
        if self.gathering.buffer.is_full() || self.pending.is_full() {
            return Some(Unavailable::RoomFull);
        }
        // A recall frees the room that its message took: a full stream takes it all the same.
        let has_room = message.recall > 0 || self.stream.entries.has_room_for(message.wire_bytes);
        (!has_room).then_some(Unavailable::StreamFull)
    }

    /// The reason why a reliable message is shed.
    fn reliable_shed(&mut self, message: &Message, now: Now, tally: &mut RoomTally) -> Option<ShedReason> {
        // A recall is never past a rate: a publisher must be able to take back what the rate let through.
        if message.recall > 0 {
            return None;
        }
        self.limits.refuses(message, &self.gathering.pace.rules, now.instant, tally)
    }

    fn publish_one(&mut self, mut message: Message, now: Now, tally: &mut RoomTally) -> Verdict {
        tally.published.add(message.class(), 1);
        let named = message.id.clone().map(|id| (id, Fingerprint::of(&message)));
        // Before the rates: a retry of what was taken is a duplicate, however much came meanwhile.
        if let Some((id, fingerprint)) = &named
            && self.ids.known.get(id) == Some(fingerprint)
        {
            tally.duplicates += 1;
            return Verdict::Duplicate { offset: None };
        }
        self.limits.apply(&mut message);
        let refused = self
            .refuses(&message)
            .or_else(|| self.limits.refuses(&message, &self.gathering.pace.rules, now.instant, tally));
        let verdict = match refused {
            Some(reason) => self.shed(message.class(), &message.type_name, reason, tally),
            None => self.accept(message, now, tally),
        };
        // The id of a shed message is not remembered: its publisher may try again with the same id.
        if let Some((id, fingerprint)) = named
            && !matches!(verdict, Verdict::Shed(_))
        {
            tally.ids_evicted += self.ids.remember(id, fingerprint, now.instant);
        }
        verdict
    }

    /// The reason why a message is not taken in, rates aside.
    fn refuses(&self, message: &Message) -> Option<ShedReason> {
        if self.life.end == End::Closed {
            // The message waited behind a reliable one, and its members are gone.
            return Some(ShedReason::RoomClosed);
        }
        if message.class() == Class::Lossy && self.gathering.step >= Step::LossyOff {
            return Some(ShedReason::LossyOff);
        }
        (!self.state.account.admits(&message.type_name)).then_some(ShedReason::TypesFull)
    }

    /// Takes a message in past the rates, or sheds the message.
    pub(super) fn accept(&mut self, mut message: Message, now: Now, tally: &mut RoomTally) -> Verdict {
        message.at_ms = now.unix_ms;
        let class = message.class();
        let type_name = message.type_name.clone();
        if let Some(reason) = self.refuses(&message) {
            return self.shed(class, &type_name, reason, tally);
        }
        let verdict = match class {
            Class::Counter => self.count(&message, now),
            _ => self.gather(message, now),
        };
        if let Verdict::Shed(reason) = verdict {
            return self.shed(class, &type_name, reason, tally);
        }
        self.state.accepted(class, &type_name);
        tally.accepted.add(class, 1);
        if verdict == Verdict::Merged {
            tally.merged.add(class, 1);
        }
        verdict
    }

    /// Accounts for a shed message.
    fn shed(
        &mut self,
        class: Class,
        type_name: &TypeName,
        reason: ShedReason,
        tally: &mut RoomTally,
    ) -> Verdict {
        tally.shed[reason as usize].add(class, 1);
        self.state.refused(class, type_name, reason);
        Verdict::Shed(reason)
    }

    fn count(&mut self, message: &Message, now: Now) -> Verdict {
        let Some(added) = self.state.counters.add(&message.type_name, message.count) else {
            return Verdict::Shed(ShedReason::CounterTypesFull);
        };
        self.gathering.counting_since.get_or_insert(now.instant);
        // A total never passes the largest integer that a JSON reader holds exactly.
        if added < message.count { Verdict::Saturated } else { Verdict::Accepted }
    }

    fn gather(&mut self, message: Message, now: Now) -> Verdict {
        if let (Class::Latest, Some(key)) = (message.class(), &message.key)
            && !self.state.latest.admit(&message.type_name, key)
        {
            return Verdict::Shed(ShedReason::LatestKeysFull);
        }
        self.gathering.push(message, self.run.0, now.instant)
    }
}

fn unavailable(reason: Unavailable, tally: &mut RoomTally) -> Verdict {
    tally.unavailable[reason as usize] += 1;
    Verdict::Unavailable(reason)
}
