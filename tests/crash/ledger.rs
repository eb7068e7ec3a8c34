//! What publishers were told, what the store holds in the end and what devices applied: whether the three agree (I1 to I7).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::viewer::Viewer;

/// What became of one message, as its publisher knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nobody knows.
    Unknown,
    /// It was answered with this offset.
    Durable { offset: u64, at: Instant },
    /// It was refused for good.
    Refused,
}

/// One message that was published.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) room: String,
    pub(crate) payload: Value,
    pub(crate) outcome: Outcome,
}

/// What one place says of an offset: the id and the payload it found there.
pub(crate) type Found = (String, Value);

/// Everything that was published, by id, and everything that was wrong.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) published: BTreeMap<String, Published>,
    pub(crate) violations: Vec<String>,
    /// From the answer, or the device's return if that was later, to the message's application.
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

    /// A publisher was told an offset.
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

    pub(crate) fn durable_messages(&self) -> usize {
        let outcomes = self.published.values().map(|published| published.outcome);
        outcomes.filter(|outcome| matches!(outcome, Outcome::Durable { .. })).count()
    }

    /// Holds what the store has of a room against what its publisher was told.
    pub(crate) fn check_store(&mut self, room: &str, stored: &BTreeMap<u64, Found>) {
        let mut wrong = Vec::new();
        for (id, published) in self.published.iter().filter(|(_, published)| published.room == room) {
            let at: Vec<u64> =
                stored.iter().filter(|(_, (it, _))| it == id).map(|(offset, _)| *offset).collect();
            match published.outcome {
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
        for (n, (offset, found)) in (1..).zip(stored) {
            if n != *offset {
                wrong.push(format!("I4: {room} has no offset {n}, but {offset}"));
                break;
            }
            wrong.extend(self.unlike_published(room, found));
        }
        self.violations.append(&mut wrong);
    }

    /// What is wrong about a message that somebody got from a room.
    fn unlike_published(&self, room: &str, (id, payload): &Found) -> Option<String> {
        match self.published.get(id) {
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

    /// Holds what a device applied against what the store has.
    pub(crate) fn check_viewer(&mut self, viewer: &Viewer, stored: &BTreeMap<u64, Found>) {
        let name = &viewer.name;
        self.violations.extend(viewer.violations.iter().map(|it| format!("{name}: {it}")));
        let missing: Vec<u64> =
            stored.keys().filter(|offset| !viewer.applied.contains_key(offset)).copied().collect();
        if !missing.is_empty() {
            self.violated(format!("I2: {name} never applied {missing:?} of {}", stored.len()));
        }
        for (offset, applied) in &viewer.applied {
            if stored.get(offset) != Some(&applied.found) {
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

/// p50, p99 and the longest.
pub(crate) fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let Some(longest) = times.last() else { return "none".into() };
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    format!("p50 {:.0?}, p99 {:.0?}, max {longest:.0?} of {}", at(50), at(99), times.len())
}
