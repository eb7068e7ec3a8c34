//! The state of a room as of one seq: the content of a welcome or a refresh at the seq, in agreement with the
//! batches before and after. Only a cut moves the state on.
//!
//! The account counts messages taken in as well, and so knows the fate of every message. Counters hold the
//! increments before the next batch beside the totals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::account::{Account, Left};
use super::buffer::Cut;
use super::counters::{CounterChange, Counters};
use super::exchange::{Carried, Opening, Refresh, RefreshWant, Snapshot};
use super::history::{History, Past};
use super::id::{Run, Seen, Seq, TypeName};
use super::latest::{Latest, LatestPart, LatestPlace};
use super::message::{Class, Message, ShedReason};
use super::tally::RoomTally;
use crate::limits::{
    CATCH_UP_BYTES_MAX, CHANGE_WIRE_BYTES, COUNT_WIRE_BYTES, FIELDS_WIRE_BYTES, REFRESH_LATEST_BYTES_MAX,
    REFRESH_RIDING_BYTES_MAX, REFRESH_SMALL_BYTES_MAX, WELCOME_BYTES_MAX, WELCOME_FIRST_BYTES_MAX,
};

/// The latest values, counter totals, history and account of a room.
#[derive(Debug, Default)]
pub(super) struct RoomState {
    /// The newest batch.
    pub(super) seq: Seq,
    pub(super) counters: Counters,
    pub(super) latest: Latest,
    pub(super) history: History,
    pub(super) account: Account,
}

impl RoomState {
    pub(super) fn accepted(&mut self, class: Class, type_name: &TypeName) {
        let column = match class {
            Class::Reliable => self.account.reserved_column(type_name),
            _ => self.account.column(type_name).expect("messages are accepted if their type is admitted"),
        };
        column.accepted += 1;
        // Devices account for reliable messages by offset, and for counters by total.
        column.apart |= matches!(class, Class::Reliable | Class::Counter);
    }

    /// Takes an accepted message out of the account: its stream is no more, and no device gets the message.
    pub(super) fn give_up(&mut self, type_name: &TypeName) {
        if let Some(column) = self.account.column(type_name) {
            column.accepted -= 1;
        }
    }

    pub(super) fn refused(&mut self, class: Class, type_name: &TypeName, reason: ShedReason) {
        let column = match class {
            Class::Reliable => Some(self.account.reserved_column(type_name)),
            _ => self.account.column_of_refused(type_name),
        };
        if let Some(column) = column {
            column.refused[reason as usize] += 1;
        }
    }

    /// An accepted reliable message expired before it could leave. Devices account for it by its offset.
    pub(super) fn expired(&mut self, type_name: &TypeName) {
        if let Some(column) = self.account.column(type_name) {
            column.shed[ShedReason::Expired as usize] += 1;
        }
    }

    /// Makes a place for the engine's own message, beside the bounds of publishers.
    pub(super) fn make_place(&mut self, own: &Message) {
        self.account.reserved_column(&own.type_name);
        if let Some(key) = &own.key {
            self.latest.make_place(&own.type_name, key);
        }
    }

    /// Adds the waiting increments to the totals, as of the batch `seq`.
    pub(super) fn tell_counters(&mut self, seq: Seq) -> Vec<CounterChange> {
        for (type_name, delivered) in self.counters.waiting() {
            self.account.record(seq, type_name, Left { delivered, ..Left::default() });
        }
        self.counters.cut(seq)
    }

    /// Moves the state on to the batch `seq`, which holds `cut`.
    pub(super) fn tell(&mut self, seq: Seq, cut: &Cut, now: Instant, tally: &mut RoomTally) {
        self.seq = seq;
        let mut left: BTreeMap<&TypeName, Left> = BTreeMap::new();
        for message in &cut.messages {
            left.entry(&message.type_name).or_default().delivered += 1;
            if message.class() == Class::Latest {
                self.latest.record(seq, message);
            } else if message.policy.history {
                self.history.push(seq, Arc::clone(message), now);
            } else if message.class() == Class::Normal {
                // A device that missed this batch can't repair it from the history, and must not believe so.
                self.history.pass_over(seq);
            }
        }
        for (type_name, merged) in &cut.merged {
            left.entry(type_name).or_default().merged += merged;
        }
        // Devices hear of dropped messages with this batch, so the account counts them as of its seq.
        for (type_name, dropped) in &cut.dropped {
            left.entry(type_name).or_default().skipped += dropped.count();
            if dropped.class == Class::Normal {
                self.history.pass_over(seq);
            }
            dropped.add_to(tally);
            if let Some(column) = self.account.column(type_name) {
                for (reason, count) in &dropped.by_reason {
                    column.shed[*reason as usize] += count;
                }
            }
        }
        for (type_name, left) in left {
            self.account.record(seq, type_name, left);
        }
        // Counters need to reach back no further than the account: an older refresh is refused.
        if let Some(floor) = self.account.trim(seq) {
            self.counters.forget_before(floor);
        }
    }

    /// The refresh of members in the state `want`; `None` if the account reaches back less far.
    pub(super) fn refresh(&self, want: RefreshWant, carried: Option<Carried>) -> Option<Refresh> {
        let missed = self.account.since(want.since)?;
        let counters = self.counters.since(want.since);
        let reliable = carried.iter().flat_map(|carried| &carried.messages);
        let reliable_bytes: usize = reliable.map(|message| message.wire_bytes).sum();
        let has_reliable = reliable_bytes > 0;
        let bytes_max = if want.small {
            // A device reads a frame once it has all of it: values would delay the reliable message beside them.
            let most = if has_reliable { REFRESH_RIDING_BYTES_MAX } else { REFRESH_LATEST_BYTES_MAX };
            most.min(self.small_bytes_left(want.since, reliable_bytes))
        } else {
            CATCH_UP_BYTES_MAX.saturating_sub(reliable_bytes)
        };
        let place = want.latest.unwrap_or_else(|| LatestPlace::begin(want.since, self.seq));
        let LatestPart { values: latest, rest: latest_rest } =
            self.latest.part(place, self.seq, bytes_max, !has_reliable);
        Some(Refresh { missed, latest, latest_rest, counters, carried, history: Vec::new() })
    }

    /// Bytes of a slow device's refresh left beside its counts and `more` bytes.
    pub(super) fn small_bytes_left(&self, since: Seq, more: usize) -> usize {
        let missed = self.account.since(since).unwrap_or_default();
        let counts = missed.skipped.iter().chain(&missed.merged);
        let counts: usize = counts.map(|(name, _)| name.as_str().len() + COUNT_WIRE_BYTES).sum();
        let changes = self.counters.since(since);
        let changes: usize =
            changes.iter().map(|change| change.type_name.as_str().len() + CHANGE_WIRE_BYTES).sum();
        REFRESH_SMALL_BYTES_MAX.saturating_sub(FIELDS_WIRE_BYTES + counts + changes + more)
    }

    /// The newest history behind `since`, oldest first, as far as it fits `bytes_max` on the wire.
    pub(super) fn recent(&self, since: Seq, bytes_max: usize) -> Vec<Past> {
        let mut bytes_left = bytes_max;
        let fitting = self.history.since(since).rev().take_while(|past| {
            let fits = past.wire_bytes() <= bytes_left;
            bytes_left = bytes_left.saturating_sub(past.wire_bytes());
            fits
        });
        let mut recent: Vec<Past> = fitting.cloned().collect();
        recent.reverse();
        recent
    }

    /// The seq behind which the history is new to a device, and whether the history begins there without a
    /// gap.
    pub(super) fn resume(&self, seen: Option<Seen>, run: Run) -> (Seq, bool) {
        match seen {
            Some(seen) if seen.run == run && seen.seq <= self.seq => {
                (self.history.last_before(seen.seq), self.history.is_whole_after(seen.seq))
            }
            // The device comes for the first time, or has seen another run of the room.
            _ => (Seq(0), false),
        }
    }

    /// Bytes of a welcome's first frame left beside the fields and totals.
    pub(super) fn first_bytes_left(&self) -> usize {
        let totals = self.counters.totals().map(|(name, _)| name.as_str().len() + COUNT_WIRE_BYTES);
        WELCOME_FIRST_BYTES_MAX.saturating_sub(FIELDS_WIRE_BYTES + totals.sum::<usize>())
    }

    /// The snapshot for a member with the history up to `history_after`. `stream` is the part of the reliable
    /// stream. The history fills the rest of the welcome, the newest messages first.
    pub(super) fn snapshot(&self, history_after: Seq, stream: Option<Opening>) -> Snapshot {
        let carried = stream.iter().flat_map(|stream| &stream.carried.messages);
        let carried_bytes: usize = carried.map(|message| message.wire_bytes).sum();
        let latest_bytes_max = self.first_bytes_left().saturating_sub(carried_bytes);
        let latest =
            self.latest.part(LatestPlace::begin(Seq(0), self.seq), self.seq, latest_bytes_max, false);
        let mut bytes_left = WELCOME_BYTES_MAX.saturating_sub(self.latest.bytes() + carried_bytes);
        let newer = self.history.since(history_after);
        let newer_len = newer.len();
        // The newest messages are worth more to a late joiner than the oldest.
        let fitting = newer.rev().take_while(|past| {
            let fits = past.message.wire_bytes <= bytes_left;
            bytes_left = bytes_left.saturating_sub(past.message.wire_bytes);
            fits
        });
        let mut history: Vec<Past> = fitting.cloned().collect();
        history.reverse();
        Snapshot {
            seq: self.seq,
            cut_short: history.len() < newer_len,
            history,
            latest: latest.values,
            latest_rest: latest.rest,
            counters: self.counters.totals().map(|(name, total)| (name.clone(), total)).collect(),
            stream,
        }
    }
}
