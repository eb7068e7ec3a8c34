//! Taking messages in: idempotency, admission by class, and the verdict on each.

use std::collections::BTreeMap;

use super::Room;
use super::buffer::Push;
use super::ids::{Fingerprint, Known};
use super::message::{Class, Message, Published, ShedReason, Verdict};
use super::tally::RoomTally;
use crate::clock::Now;

impl Room {
    pub(super) fn publish(&mut self, messages: Vec<Message>, now: Now, tally: &mut RoomTally) -> Published {
        self.ids.age(now.instant);
        if let Some(index) = self.reused_id(&messages) {
            return Published::IdReused { index };
        }
        let verdicts: Vec<Verdict> =
            messages.into_iter().map(|message| self.publish_one(message, now, tally)).collect();
        self.message_rate.add(verdicts.len() as f64, now.instant);
        Published::Taken(verdicts)
    }

    /// The first message whose id was used for another one, earlier or within this request.
    fn reused_id(&self, messages: &[Message]) -> Option<usize> {
        let mut here = BTreeMap::new();
        messages.iter().position(|message| {
            let Some(id) = &message.id else { return false };
            let fingerprint = Fingerprint::of(message);
            let first_here = *here.entry(id).or_insert(fingerprint);
            first_here != fingerprint || self.ids.know(id, fingerprint) == Known::Other
        })
    }

    fn publish_one(&mut self, message: Message, now: Now, tally: &mut RoomTally) -> Verdict {
        tally.published.add(message.class, 1);
        let Some(id) = message.id.clone() else { return self.accept(message, now, tally) };
        let fingerprint = Fingerprint::of(&message);
        if self.ids.know(&id, fingerprint) == Known::Same {
            tally.duplicates += 1;
            return Verdict::Duplicate { offset: None };
        }
        let verdict = self.accept(message, now, tally);
        // What was shed is not remembered: its publisher may well try again with the same id.
        if !matches!(verdict, Verdict::Shed(_)) {
            tally.ids_evicted += self.ids.remember(id, fingerprint, now.instant);
        }
        verdict
    }

    /// Takes one message in, or says why not.
    pub(super) fn accept(&mut self, mut message: Message, now: Now, tally: &mut RoomTally) -> Verdict {
        message.at_ms = now.unix_ms;
        let (class, type_name) = (message.class, message.type_name.clone());
        let verdict = match self.account.column(&type_name) {
            None => Verdict::Shed(ShedReason::TypesFull),
            Some(_) => self.admit(message, now),
        };
        let Some(column) = self.account.column(&type_name) else {
            tally.shed[ShedReason::TypesFull as usize].add(class, 1);
            return verdict;
        };
        if let Verdict::Shed(reason) = verdict {
            column.shed[reason as usize] += 1;
            tally.shed[reason as usize].add(class, 1);
            return verdict;
        }
        // A counter's increments have an exact account of their own.
        column.accepted += u64::from(class != Class::Counter);
        tally.accepted.add(class, 1);
        if verdict == Verdict::Merged {
            tally.merged.add(class, 1);
        }
        verdict
    }

    fn admit(&mut self, message: Message, now: Now) -> Verdict {
        let push = match (message.class, &message.key) {
            (Class::Counter, _) => {
                if !self.counters.add(&message.type_name, message.count) {
                    return Verdict::Shed(ShedReason::CounterTypesFull);
                }
                self.counted_since.get_or_insert(now.instant);
                self.increments += 1;
                return Verdict::Accepted;
            }
            (Class::Latest, Some(key)) => {
                if !self.latest.admit(&message.type_name, key) {
                    return Verdict::Shed(ShedReason::LatestKeysFull);
                }
                self.buffer.merge(message, now.instant)
            }
            (Class::Lossy, Some(_)) => self.buffer.merge(message, now.instant),
            _ => self.buffer.push(message, now.instant),
        };
        match push {
            Push::Gathered => Verdict::Accepted,
            Push::Merged => Verdict::Merged,
            Push::Full => Verdict::Shed(ShedReason::RoomFull),
        }
    }
}
