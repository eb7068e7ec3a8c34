//! The world's publishers: their messages, their questions about streams, and the answers.

use std::time::{Duration, Instant};

use roomcast::shard::directory;
use roomcast_core::limits::SEGMENT_QUEUED_MAX;
use roomcast_core::room::id::{Cursor, NameKey};
use roomcast_core::room::message::{Published, Verdict};
use roomcast_core::room::{Ask, Told as Answer};
use roomcast_core::wire::publish;

use crate::device::Part;
use crate::keeps::{self, at, number_of};
use crate::ledger::Mark;
use crate::world::{CLOSING, ROOMS, World, name};

/// A question about a stream.
#[derive(Debug)]
pub(crate) enum Asked {
    Receipt { room: String, offset: u64 },
    Recall { room: String, offset: u64 },
    Pull { room: String, after: Option<keeps::Cursor>, keeps: usize, asked_at: Instant },
    EndStream,
}

impl Asked {
    /// The question's line in a trace, without moments: a seed has one trace.
    fn summary(&self) -> String {
        match self {
            Self::Pull { room, after, keeps, .. } => {
                format!("device {keeps} pulls from {room} after {after:?}")
            }
            asked => format!("{asked:?}"),
        }
    }
}

/// The lateness past a window that is allowed, because the clock moves in steps of up to 10 ms.
const SLACK: Duration = Duration::from_millis(15);

/// The state of the world at the entry of a message.
#[derive(Debug)]
pub(crate) struct Since {
    at: Instant,
    /// The time for which the world had held shards back.
    held_back: Duration,
    /// The seq of the room's newest batch.
    seq: u64,
}

impl World {
    pub(crate) fn publish(&mut self) {
        let room = self.rng.choice(ROOMS).unwrap();
        self.publish_to(room);
    }

    pub(crate) fn publish_to(&mut self, room: &str) {
        let mut marks = Vec::new();
        for _ in 0..self.rng.usize(1..=4) {
            let mark = self.draw_message();
            marks.push(mark);
        }
        // Only one message takes a used id: two messages of one request with one id would be refused.
        let reused = marks.iter().position(|mark| mark.id.is_some() && self.rng.u8(..12) == 0);
        if let Some((index, id)) = reused.zip(self.ids.get(room).and_then(|ids| ids.last())) {
            marks[index].id = Some(id.id.clone().expect("it has one"));
        }
        self.send(room, marks);
    }

    /// Publishes dozens of coupons: more than a room keeps at hand, and more than one page holds.
    pub(crate) fn publish_many(&mut self) {
        let room = self.rng.choice(&ROOMS[..2]).unwrap();
        let padding = self.rng.usize(0..1500);
        let marks = (0..self.rng.usize(66..120)).map(|_| {
            self.number += 1;
            let payload = format!("\"{}{}\"", self.number, "m".repeat(padding));
            coupon(payload, None, 60_000)
        });
        let marks = marks.collect();
        self.send(room, marks);
    }

    /// Publishes one of the last messages with an id again, stored or not.
    pub(crate) fn publish_again(&mut self) {
        let room = self.rng.choice([ROOMS[0], ROOMS[1], CLOSING]).unwrap();
        let Some(ids) = self.ids.get(room).filter(|ids| !ids.is_empty()) else { return };
        let newest = ids.len() - 1;
        let mark = ids[newest - self.rng.usize(..3).min(newest)].clone();
        self.send(room, vec![mark]);
    }

    fn draw_message(&mut self) -> Mark {
        self.number += 1;
        let number = self.number;
        let padding = "x".repeat(self.rng.usize(0..60));
        let plain = |class, type_name: &str, payload: String, count| Mark {
            class,
            type_name: type_name.to_owned(),
            count,
            payload,
            id: None,
            ttl_ms: 0,
        };
        match self.rng.u8(..17) {
            0..6 => plain("normal", "chat", format!("\"{number}{padding}\""), 1),
            6 => plain("normal", "alert", format!("\"{number}\""), 1),
            7 | 8 => {
                // A few of these are more than a small frame has room for.
                let padding = if self.rng.u8(..4) == 0 { "p".repeat(2500) } else { padding };
                plain("latest", "price", format!("\"{number}{padding}\""), 1)
            }
            9 => plain("lossy", "enter", format!("{number}"), 1),
            10 | 11 => plain("counter", "like", String::new(), number),
            15 => plain("gift", "gift", format!("{number}"), self.rng.u64(1..10)),
            16 => plain("low", "whisper", format!("\"{number}\""), 1),
            _ => {
                let id = self.rng.bool().then(|| format!("id-{number}"));
                let padding = if self.rng.u8(..4) == 0 { "y".repeat(3000) } else { padding };
                coupon(format!("\"{number}{padding}\""), id, self.rng.u64(1000..60_000))
            }
        }
    }

    fn send(&mut self, room: &str, marks: Vec<Mark>) {
        let home = directory::home(&name(room), NameKey::default(), self.shards.len());
        let passing = self.shards[home].residents.is_passing(&name(room));
        let urgent = marks.iter().any(|mark| mark.type_name == "alert");
        self.coverage.count("urgent flush during a pass", u64::from(urgent && passing));
        let bodies: Vec<String> = marks.iter().map(|mark| body(mark, self.rng.u8(..3))).collect();
        let text = format!(r#"{{"messages":[{}]}}"#, bodies.join(","));
        let messages = publish::parse_json(text.as_bytes(), &self.types).expect("valid messages");
        let ids = self.ids.entry(room.to_owned()).or_default();
        for mark in marks.iter().filter(|mark| mark.id.is_some()) {
            if !ids.iter().any(|known| known.id == mark.id) {
                ids.push(mark.clone());
            }
        }
        let reliable = marks.iter().any(|mark| mark.class == "reliable");
        let parked = reliable && self.loading.contains(room);
        self.coverage.count("parked publish", u64::from(parked));
        self.ticket += 1;
        let told: Vec<_> = marks.iter().map(|mark| (&mark.type_name, mark.payload.len(), &mark.id)).collect();
        let from = self.number;
        self.say(format!("publish {} to {room}, up to {from}: {told:?}", self.ticket));
        for mark in marks.iter().filter(|mark| mark.class == "normal" && !reliable) {
            let since = Since { at: self.now.instant, held_back: self.held_back, seq: self.seq_of(room) };
            self.chat.insert(mark.payload.clone(), since);
        }
        self.ledger.offer(self.ticket, room, marks);
        self.shards[home].homes.publish(self.ticket, &name(room), messages, self.now);
        self.busy[home] = true;
        self.take_answers(home);
    }

    /// Takes a shard's answers to publishers.
    pub(crate) fn take_answers(&mut self, shard: usize) {
        while let Some((ticket, published)) = self.shards[shard].homes.poll_answer() {
            self.say(format!("publish {ticket} is answered: {}", shown(&published)));
            self.note_duplicates(ticket, &published);
            let store = self.store.clone();
            self.ledger.answer(ticket, published, &mut store.disk());
        }
        while let Some((ticket, told)) = self.shards[shard].homes.poll_told() {
            let asked = self.asked.remove(&ticket).expect("each ask is answered once");
            self.take_told(asked, told);
        }
    }

    fn note_duplicates(&mut self, ticket: u64, published: &Published) {
        let Published::Taken(verdicts) = published else { return };
        // The request waited for the store, though all its messages are duplicates.
        let duplicates =
            verdicts.iter().all(|verdict| matches!(verdict, Verdict::Duplicate { offset: Some(_) }));
        let waited = self.ledger.has_waited(ticket);
        self.coverage.count("duplicate in flight", u64::from(duplicates && waited));
    }

    pub(crate) fn recall(&mut self) {
        let room = self.rng.choice(&ROOMS[..2]).unwrap();
        let Some(head) = self.head_of(room) else { return };
        let offset = self.rng.u64(head.saturating_sub(6)..=head + 1);
        self.ask(room, Asked::Recall { room: (*room).to_owned(), offset }, Ask::Recall { offset });
    }

    pub(crate) fn ask_receipt(&mut self) {
        let room = self.rng.choice(&ROOMS[..2]).unwrap();
        let Some(head) = self.head_of(room) else { return };
        let offset = self.rng.u64(head.saturating_sub(6)..=head + 1);
        self.ask(room, Asked::Receipt { room: (*room).to_owned(), offset }, Ask::Receipt { offset });
    }

    /// A device pulls the messages behind its cursor without a connection.
    pub(crate) fn pull(&mut self) {
        let room = *self.rng.choice(&ROOMS[..2]).unwrap();
        let keeps = self.rng.usize(..self.kept.len());
        let after = self.kept[keeps].get(room).and_then(|kept| kept.cursor.clone());
        let cursor = after.as_ref().map(cursor_of);
        let asked_at = self.now.instant;
        let asked = Asked::Pull { room: room.to_owned(), after, keeps, asked_at };
        self.ask(room, asked, Ask::Pull { after: cursor });
    }

    pub(crate) fn ask(&mut self, room: &str, asked: Asked, ask: Ask) {
        let home = directory::home(&name(room), NameKey::default(), self.shards.len());
        self.ticket += 1;
        self.say(format!("ask {}: {}", self.ticket, asked.summary()));
        self.asked.insert(self.ticket, asked);
        self.shards[home].homes.ask(self.ticket, &name(room), ask, self.now);
        self.busy[home] = true;
        self.take_answers(home);
    }

    fn seq_of(&self, room: &str) -> u64 {
        let home = directory::home(&name(room), NameKey::default(), self.shards.len());
        self.shards[home].homes.describe(&name(room), self.now.instant).map_or(0, |view| view.head.seq)
    }

    fn head_of(&self, room: &str) -> Option<u64> {
        let store = self.store.clone();
        let epoch = store.disk().epoch(&name(room))?;
        let head = store.disk().of(room, epoch.0).len() as u64;
        Some(head)
    }

    fn take_told(&mut self, asked: Asked, told: Answer) {
        let store = self.store.clone();
        let mut disk = store.disk();
        match (asked, told) {
            (Asked::Receipt { room, offset }, Answer::Receipt(Ok(of_home))) => {
                let epoch = of_home.view.epoch;
                let parts = self.shards.iter();
                let parts = parts.filter_map(|shard| shard.residents.receipt(&name(&room), epoch, offset));
                let view = of_home.with(parts.collect::<Vec<_>>());
                let known = view.acknowledged + view.left;
                assert!(known <= view.online && view.devices <= view.online, "{room}: {view:?}");
                let named = self.kept.len().div_ceil(2) as u64;
                assert!(view.devices <= named, "{room}: {named} devices with a name, {view:?}");
                self.pending.insert((room.clone(), offset), view.pending);
                drop(disk);
                self.say(format!("receipt of {room}: {view:?}"));
            }
            (Asked::EndStream, Answer::StreamEnded(_)) => {}
            (Asked::Recall { room, offset }, Answer::Recalled(Ok(view))) => {
                let epoch = disk.epoch(&name(&room)).expect("it is stored").0;
                let recall = &at(disk.of(&room, epoch), view.offset).message;
                assert_eq!((recall.recall, view.recalls), (offset, offset), "{room}: a recall is durable");
            }
            (Asked::Pull { room, after, keeps, asked_at }, Answer::Pulled(Ok((opening, reset)))) => {
                let epoch = opening.epoch.to_string();
                let messages = opening.carried.messages.iter().map(told_of).collect();
                let span = opening.carried.span;
                let part = Part { after: span.after, through: span.through, messages };
                keeps::check_part(&part, &epoch, &disk, &room);
                let written = disk.of(&room, number_of(&epoch));
                for told in &part.messages {
                    let had_expired = disk.was_surely_expired(at(written, told.offset), asked_at);
                    assert!(!had_expired, "{room}: {told:?} had expired when it was pulled");
                }
                let is_honoured = reset.is_none() && after.as_ref().is_some_and(|after| after.0 == epoch);
                let kept = self.kept[keeps].entry(room.clone()).or_default();
                if is_honoured && kept.cursor == after {
                    let mut link = keeps::Link { epoch: Some(epoch), ..Default::default() };
                    kept.take(&mut link, &part, &disk, &room);
                }
            }
            (_, Answer::Receipt(Err(_)) | Answer::Recalled(Err(_)) | Answer::Pulled(Err(_))) => {}
            (asked, told) => panic!("{asked:?} was answered with {told:?}"),
        }
    }

    /// True if a message waits longer than its window, however many messages join. With metered writes the
    /// pass of the batch before is paid for first.
    pub(crate) fn is_late(&self, room: &str, payload: &str, seq: u64) -> bool {
        let Some(since) = self.chat.get(payload) else { return false };
        let passes = 1 + (seq - since.seq - 1).div_ceil(SEGMENT_QUEUED_MAX as u64);
        let passes = if self.scatter.is_metered { u32::try_from(passes).expect("few") } else { 1 };
        // A flush may leave a message behind for a pass within the budget, and the cost of this pass may
        // exceed the estimate.
        let left_behind = if self.scatter.is_metered { self.window } else { Duration::ZERO };
        let window = self.window_since(room, since.at) * passes + left_behind;
        self.now.instant - since.at > window + SLACK + (self.held_back - since.held_back)
    }
}

pub(crate) fn cursor_of(cursor: &keeps::Cursor) -> Cursor {
    Cursor::parse(&format!("{}:{}", cursor.0, cursor.1)).expect("a cursor")
}

fn told_of(message: &std::sync::Arc<roomcast_core::room::message::Message>) -> crate::device::Told {
    crate::device::Told {
        type_name: message.type_name.to_string(),
        payload: String::from_utf8(message.payload.bytes().to_vec()).unwrap(),
        key: message.key.as_ref().map_or_else(String::new, ToString::to_string),
        id: message.id.as_ref().map_or_else(String::new, ToString::to_string),
        offset: message.offset,
        recall: message.recall,
    }
}

fn coupon(payload: String, id: Option<String>, ttl_ms: u64) -> Mark {
    Mark { class: "reliable", type_name: "coupon".to_owned(), count: 1, payload, id, ttl_ms }
}

fn body(mark: &Mark, key: u8) -> String {
    let Mark { type_name, payload, ttl_ms, .. } = mark;
    let id = mark.id.as_ref().map_or_else(String::new, |id| format!(r#","id":"{id}""#));
    match mark.class {
        "reliable" => format!(r#"{{"type":"{type_name}","payload":{payload},"ttl_ms":{ttl_ms}{id}}}"#),
        "latest" => format!(r#"{{"type":"{type_name}","key":"k{key}","payload":{payload}}}"#),
        "gift" => {
            format!(r#"{{"type":"{type_name}","key":"g{key}","count":{},"payload":{payload}}}"#, mark.count)
        }
        "lossy" => format!(r#"{{"type":"{type_name}","key":"who","payload":{payload}}}"#),
        "counter" => format!(r#"{{"type":"{type_name}","count":{}}}"#, mark.count),
        _ => format!(r#"{{"type":"{type_name}","payload":{payload}}}"#),
    }
}

fn shown(published: &Published) -> String {
    match published {
        Published::Taken(verdicts) if verdicts.len() > 8 => format!("{:?} …", &verdicts[..3]),
        other => format!("{other:?}"),
    }
}
