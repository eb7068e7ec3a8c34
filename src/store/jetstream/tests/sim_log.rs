//! The subject of a slot as three replicas judge it: one line of messages with expectations, ids and lives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::store::jetstream::ops::{LogEntry, LogHeard, LogOpKind};
use roomcast_core::now::Now;

/// Time for which an id counts.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The log of one slot.
#[derive(Debug, Default)]
pub(super) struct SimLog {
    entries: BTreeMap<u64, SimEntry>,
    /// Everything that was ever appended: sequence, entry, moment.
    pub(super) history: Vec<(u64, Bytes, Instant)>,
    /// id -> sequence, end of the window.
    ids: BTreeMap<String, (u64, Instant)>,
    /// An expecting append is under way up to this moment. Another one is refused.
    expecting_until: Option<Instant>,
    /// Sequences taken by other subjects of the stream, for each append.
    pub(super) gap: u64,
    /// True: the streams have no place.
    pub(super) is_full: bool,
    /// Refusals since an expecting append was under way.
    pub(super) parallel: u64,
}

#[derive(Debug)]
struct SimEntry {
    entry: Bytes,
    expires: Instant,
    /// The moment at which a majority has the entry.
    visible: Instant,
}

impl SimLog {
    /// Performs an operation without delay.
    pub(super) fn perform(&mut self, op: &LogOpKind, now: Now) -> LogHeard {
        match op {
            LogOpKind::Append { .. } => self.append(op, Duration::ZERO, now),
            LogOpKind::Last => LogHeard::Last(self.last(now)),
            LogOpKind::Read { from, through } => {
                LogHeard::Read { entries: self.read(*from, *through, now), done: true }
            }
            LogOpKind::Get { sequences } => LogHeard::Read { entries: self.get(sequences, now), done: true },
        }
    }

    /// Takes an append, which a majority has after `takes`.
    pub(super) fn append(&mut self, op: &LogOpKind, takes: Duration, now: Now) -> LogHeard {
        let LogOpKind::Append { expect, message_id, ttl, entry, .. } = op else { panic!("{op:?}") };
        self.expire(now);
        if let Some((sequence, _)) = self.ids.get(message_id) {
            // The first one is under way.
            if self.entries.get(sequence).is_some_and(|entry| entry.visible > now.instant) {
                self.parallel += 1;
                return LogHeard::Refused;
            }
            return LogHeard::Appended { sequence: *sequence };
        }
        if self.is_full {
            return LogHeard::Full;
        }
        if let Some(expect) = expect {
            if self.expecting_until.is_some_and(|until| until > now.instant) {
                self.parallel += 1;
                return LogHeard::Refused;
            }
            if self.entries.last_key_value().map_or(0, |(sequence, _)| *sequence) != *expect {
                return LogHeard::Refused;
            }
        }
        let newest = self.history.last().map_or(0, |(sequence, ..)| *sequence);
        let sequence = newest + 1 + self.gap;
        // One line: nobody sees an entry before those in front.
        let before = self.entries.values().map(|entry| entry.visible).max();
        let visible = before.unwrap_or(now.instant).max(now.instant + takes);
        if expect.is_some() {
            self.expecting_until = Some(visible);
        }
        assert!(*ttl >= Duration::from_secs(1) && ttl.subsec_nanos() == 0, "{ttl:?}");
        let expires = now.instant + *ttl;
        self.entries.insert(sequence, SimEntry { entry: entry.clone(), expires, visible });
        self.history.push((sequence, entry.clone(), now.instant));
        self.ids.insert(message_id.clone(), (sequence, now.instant + DUPLICATE_WINDOW));
        LogHeard::Appended { sequence }
    }

    /// The leader's last message.
    pub(super) fn last(&mut self, now: Now) -> Option<LogEntry> {
        self.read(0, u64::MAX, now).pop()
    }

    /// The messages that a majority has.
    pub(super) fn read(&mut self, from: u64, through: u64, now: Now) -> Vec<LogEntry> {
        self.expire(now);
        let range = self.entries.range(from..=through.max(from));
        let visible = range.filter(|(_, entry)| entry.visible <= now.instant);
        visible
            .map(|(sequence, entry)| LogEntry { sequence: *sequence, entry: entry.entry.clone() })
            .collect()
    }

    pub(super) fn get(&mut self, sequences: &[u64], now: Now) -> Vec<LogEntry> {
        assert!((1..=64).contains(&sequences.len()) && sequences.is_sorted(), "{sequences:?}");
        let all = self.read(0, u64::MAX, now);
        all.into_iter().filter(|entry| sequences.contains(&entry.sequence)).collect()
    }

    /// Removes messages at the end of their lives. The last one takes its sequence along.
    fn expire(&mut self, now: Now) {
        self.entries.retain(|_, entry| entry.expires > now.instant);
        self.ids.retain(|_, (_, until)| *until > now.instant);
    }
}
