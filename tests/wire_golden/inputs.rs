//! Random inputs of frames.

use std::collections::BTreeMap;
use std::sync::Arc;

use roomcast_core::limits::INTEGER_MAX;
use roomcast_core::room::account::Missed;
use roomcast_core::room::counters::CounterChange;
use roomcast_core::room::id::{Epoch, Key, MessageId, Seq, TypeName};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::policy::{Merge, TypePolicy};
use roomcast_core::room::{Batch, Carried, Opening, Refresh, Snapshot, Span};
use roomcast_core::wire::frame;
use serde_json::json;

use super::{AT_MS, message, past};

/// Random inputs of frames.
pub(crate) struct Inputs(pub(crate) fastrand::Rng);

impl Inputs {
    fn text(&mut self, alphabet: &[&str], bytes_max: usize) -> String {
        let mut text = String::new();
        for _ in 0..self.0.usize(1..=bytes_max) {
            let next = self.0.choice(alphabet).unwrap();
            if text.len() + next.len() > bytes_max {
                break;
            }
            text += next;
        }
        if text.is_empty() { "x".into() } else { text }
    }

    /// Text without control characters; a third of it needs escapes.
    fn free_text(&mut self, bytes_max: usize) -> String {
        self.text(&["a", "Z", "0", " ", "\"", "\\", "/", "é", "€", "𝄞", "\u{2028}"], bytes_max)
    }

    fn type_name(&mut self) -> TypeName {
        TypeName::parse(&self.text(&["a", "z", "0", "_", ".", "-"], 64)).unwrap()
    }

    /// Small numbers often, so that each length of varint comes up.
    fn number(&mut self) -> u64 {
        (self.0.u64(1..=INTEGER_MAX) >> self.0.u32(0..53)).max(1)
    }

    fn payload(&mut self) -> Payload {
        let bytes_max = *self.0.choice(&[0, 8, 60, 400, 16_000]).unwrap();
        let bytes = self.0.usize(0..=bytes_max);
        match self.0.u8(..3) {
            0 => Payload::Opaque((0..bytes).map(|_| self.0.u8(..)).collect()),
            1 => Payload::Json(
                json!({ "t": "x".repeat(bytes), "n": [1, -0.5, null, {"": true}] }).to_string().into(),
            ),
            _ => Payload::Json(serde_json::to_string(&self.free_text(bytes.max(1))).unwrap().into()),
        }
    }

    pub(crate) fn message(&mut self) -> Message {
        let mut message = message("x", self.payload());
        message.type_name = self.type_name();
        message.id = self.0.bool().then(|| MessageId::parse(&self.free_text(64)).unwrap());
        message.key = self.0.bool().then(|| Key::parse(&self.free_text(128)).unwrap());
        if self.0.bool() {
            message.policy = TypePolicy::of(Class::Reliable);
        } else if self.0.bool() {
            message.policy.merge = Merge::Sum;
        }
        // As at the door, before the home gives the message its time and its place.
        message.at_ms = 0;
        message.wire_bytes = frame::message_bytes(&message);
        message.at_ms = self.0.u64(AT_MS..2 * AT_MS);
        if message.policy.merge == Merge::Sum {
            // As merged since.
            message.count = self.number().max(1);
        }
        if message.class() == Class::Reliable {
            message.offset = self.number();
            message.recall = if self.0.bool() { self.number() } else { 0 };
        }
        message
    }

    fn messages(&mut self, max: usize) -> Vec<Arc<Message>> {
        (0..self.0.usize(0..=max)).map(|_| Arc::new(self.message())).collect()
    }

    fn counts(&mut self) -> Vec<(TypeName, u64)> {
        let counts: BTreeMap<_, _> =
            (0..self.0.usize(0..4)).map(|_| (self.type_name(), self.number())).collect();
        counts.into_iter().collect()
    }

    fn counters(&mut self) -> Vec<CounterChange> {
        let counts = self.counts().into_iter();
        counts
            .map(|(type_name, add)| CounterChange { type_name, add, total: add.max(self.number()) })
            .collect()
    }

    pub(crate) fn batch(&mut self) -> Batch {
        let messages_max = *self.0.choice(&[0, 1, 12, 40]).unwrap();
        Batch {
            seq: Seq(self.number()),
            messages: self.messages(messages_max),
            skipped: self.counts(),
            merged: self.counts(),
            counters: self.counters(),
            oldest: roomcast::clock::now().instant,
            span: self.0.bool().then(|| self.span()),
        }
    }

    fn span(&mut self) -> Span {
        let through = self.number();
        // The ends of the range often: 0 is spelt or left out, and a span without news is still a span.
        let after = *self.0.choice(&[0, through / 2, through]).unwrap();
        Span { after, through, ack_within_ms: self.0.u32(200..=5_000) }
    }

    pub(crate) fn carried(&mut self) -> Carried {
        Carried { span: self.span(), messages: self.messages(4) }
    }

    pub(crate) fn refresh(&mut self) -> Refresh {
        Refresh {
            missed: Missed { skipped: self.counts(), merged: self.counts() },
            latest: self.messages(4),
            latest_rest: None,
            counters: self.counters(),
            carried: self.0.bool().then(|| self.carried()),
            history: Vec::new(),
        }
    }

    pub(crate) fn opening(&mut self) -> Opening {
        let carried = self.carried();
        let epoch = Epoch(self.0.u64(..));
        Opening { epoch, offset: carried.span.through.max(self.number()), carried }
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let mut seq = 0;
        let history: Vec<_> = self.messages(12).into_iter().map(|one| (*one).clone()).collect();
        let history = history.into_iter().map(|one| {
            seq += self.number() >> 8;
            (seq.max(1), one)
        });
        let history = past(history.collect::<Vec<_>>());
        Snapshot {
            seq: Seq(seq),
            history,
            cut_short: false,
            latest: self.messages(3),
            latest_rest: None,
            counters: self.counts(),
            stream: self.0.bool().then(|| self.opening()),
        }
    }
}
