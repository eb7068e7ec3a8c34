//! The ledger of a crash test. The publishers' answers, the store's rows at the end and the devices' applied
//! messages must agree (I1 to I7).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::viewer::Viewer;

/// The outcome of one message, as its publisher knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer came.
    Unknown,
    /// The answer gave this offset.
    Durable { offset: u64, at: Instant },
    /// The message was refused for good.
    Refused,
}

/// A published message.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) room: String,
    pub(crate) payload: Value,
    pub(crate) outcome: Outcome,
}

/// The id and the payload that one place holds at an offset.
pub(crate) type Found = (String, Value);

/// The name of a message: its id. A recall has no id, and is named by the offset of the recalled message.
pub(crate) fn name_of(message: &Value) -> String {
    match message["recall"].as_u64() {
        Some(offset) => recall_of(offset),
        None => message["id"].as_str().unwrap_or_default().to_owned(),
    }
}

fn recall_of(offset: u64) -> String {
    format!("recall of {offset}")
}

/// Every published message, by id, and every violation.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) published: BTreeMap<String, Published>,
    /// Room -> recalled offset -> offset of the recall.
    pub(crate) recalled: BTreeMap<String, BTreeMap<u64, u64>>,
    pub(crate) violations: Vec<String>,
    /// The times from a message's answer, or from the device's later return, to the message's application.
    pub(crate) lags: Vec<Duration>,
    pub(crate) applied: u64,
    pub(crate) duplicates: u64,
    pub(crate) returns: u64,
    pub(crate) gaps: u64,
}

impl Ledger {
    pub(crate) fn violated(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// Notes the offset in a publisher's answer.
    pub(crate) fn durable(&mut self, id: &str, offset: u64, at: Instant) {
        let published = self.published.get_mut(id).unwrap();
        match published.outcome {
            Outcome::Durable { offset: before, .. } if before != offset => {
                self.violated(format!("I1: {id} was answered with offset {before} and with {offset}"));
            }
            Outcome::Durable { .. } => {}
            _ => published.outcome = Outcome::Durable { offset, at },
        }
    }

    /// Notes the offset of a recall in a publisher's answer.
    pub(crate) fn recalled(&mut self, room: &str, offset: u64, recall: u64) {
        let before = self.recalled.entry(room.to_owned()).or_default().insert(offset, recall);
        if before.is_some_and(|before| before != recall) {
            self.violated(format!("I1: {room}: the recall of {offset} is {recall}, and was {before:?}"));
        }
    }

    /// The last offset in an answer for a room.
    pub(crate) fn last_offset(&self, room: &str) -> u64 {
        let of_room = self.published.values().filter(|published| published.room == room);
        let durable = of_room.filter_map(|published| match published.outcome {
            Outcome::Durable { offset, .. } => Some(offset),
            Outcome::Unknown | Outcome::Refused => None,
        });
        let recalls = self.recalled.get(room).into_iter().flat_map(BTreeMap::values).copied();
        durable.chain(recalls).max().unwrap_or(0)
    }

    fn is_recalled(&self, room: &str, offset: u64) -> bool {
        self.recalled.get(room).is_some_and(|recalled| recalled.contains_key(&offset))
    }

    pub(crate) fn durable_messages(&self) -> usize {
        let outcomes = self.published.values().map(|published| published.outcome);
        outcomes.filter(|outcome| matches!(outcome, Outcome::Durable { .. })).count()
    }

    /// Holds the store's rows of a room against its publisher's answers.
    pub(crate) fn check_store(&mut self, room: &str, stored: &BTreeMap<u64, Found>) {
        let mut wrong = Vec::new();
        for (id, published) in self.published.iter().filter(|(_, published)| published.room == room) {
            let at: Vec<u64> =
                stored.iter().filter(|(_, (it, _))| it == id).map(|(offset, _)| *offset).collect();
            match published.outcome {
                Outcome::Durable { offset, .. } if self.is_recalled(room, offset) => {
                    let still = format!("I4: {id} was recalled, and is stored at {at:?}");
                    wrong.extend((!at.is_empty()).then_some(still));
                }
                Outcome::Durable { offset, .. } if at != [offset] => {
                    wrong.push(format!("I1: {id} was answered with offset {offset} and is stored at {at:?}"));
                }
                Outcome::Refused if !at.is_empty() => {
                    wrong.push(format!("I7: {id} was refused and is stored at {at:?}"));
                }
                _ if at.len() > 1 => wrong.push(format!("I3: {id} is stored at {at:?}")),
                _ => {}
            }
        }
        for n in 1..=self.last_offset(room) {
            match stored.get(&n) {
                Some(found) => wrong.extend(self.unlike_published(room, found)),
                None if self.is_recalled(room, n) => {}
                None => wrong.push(format!("I4: {room} has nothing at {n}")),
            }
        }
        for (offset, recall) in self.recalled.get(room).into_iter().flatten() {
            if stored.get(recall).is_none_or(|(id, _)| *id != recall_of(*offset)) {
                wrong
                    .push(format!("I1: {room}: the recall {recall} of {offset} is {:?}", stored.get(recall)));
            }
        }
        self.violations.append(&mut wrong);
    }

    /// The mistake in a message that a device or the store holds, if any.
    fn unlike_published(&self, room: &str, found: &Found) -> Option<String> {
        let (id, payload) = found;
        match self.published.get(id) {
            None if id.starts_with("recall of") && payload.is_null() => None,
            None => Some(format!("I6: {room} has {id:?}, which nobody published")),
            Some(published) if published.room != room => {
                Some(format!("I5: {room} has {id}, which is of {}", published.room))
            }
            Some(published) if published.payload != *payload => {
                Some(format!("I6: {id} is {payload}, and was published as {}", published.payload))
            }
            Some(_) => None,
        }
    }

    /// Checks a receipt in a room whose devices all have names, and change their connections.
    pub(crate) fn check_receipt(&mut self, receipt: &Value, devices_max: u64) {
        let figure = |name: &str| receipt[name].as_u64().unwrap_or(u64::MAX);
        let sum = figure("acknowledged").saturating_add(figure("left")).saturating_add(figure("pending"));
        let is_right = figure("online") == sum
            && figure("online") == figure("devices")
            && figure("devices") <= devices_max;
        if !is_right {
            self.violated(format!("a receipt counts each of {devices_max} devices once: {receipt}"));
        }
    }

    /// Holds a device's applied messages against the store's rows.
    pub(crate) fn check_viewer(&mut self, viewer: &Viewer, stored: &BTreeMap<u64, Found>) {
        let name = &viewer.name;
        self.violations.extend(viewer.violations.iter().map(|it| format!("{name}: {it}")));
        let missing: Vec<u64> =
            stored.keys().filter(|offset| !viewer.applied.contains_key(offset)).copied().collect();
        if !missing.is_empty() {
            self.violated(format!("I2: {name} never applied {missing:?} of {}", stored.len()));
        }
        for (offset, applied) in &viewer.applied {
            let is_gone = stored.get(offset).is_none() && self.is_recalled(viewer.room(), *offset);
            if !is_gone && stored.get(offset) != Some(&applied.found) {
                let stored = stored.get(offset);
                self.violated(format!(
                    "I4: {name} applied {:?} at {offset}, where {stored:?} is",
                    applied.found
                ));
            }
            let published = self.published.get(&applied.found.0);
            if let Some(Outcome::Durable { at, .. }) = published.map(|published| published.outcome) {
                self.lags.push(applied.at.saturating_duration_since(at.max(applied.joined_at)));
            }
        }
        self.applied += viewer.applied.len() as u64;
        self.duplicates += viewer.duplicates;
        self.returns += viewer.returns;
        self.gaps += viewer.gaps;
    }
}

/// The p50, the p99 and the longest time.
pub(crate) fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let Some(longest) = times.last() else { return "none".into() };
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    format!("p50 {:.0?}, p99 {:.0?}, max {longest:.0?} of {}", at(50), at(99), times.len())
}
