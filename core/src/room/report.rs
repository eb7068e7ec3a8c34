//! The views of a room for operators and publishers, over HTTP.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Room;
use super::account::Column;
use super::buffer::{Backlog, DroppedOfType};
use super::id::TypeName;
use super::message::{Class, ShedReason};
use super::tally::RoomTally;
use super::view::{AccountView, BacklogView, HeadView, RatesView, RoomLine, RoomView, RulesView};
use crate::now::millis;

impl Room {
    /// The view for `GET /v1/rooms/{room}`. `home` is the asking shard. The caller adds the counts of other
    /// shards, and the placement of further devices.
    pub fn view(&self, home: usize, now: Instant) -> RoomView {
        let oldest = self.gathering.oldest().map(|oldest| now.saturating_duration_since(oldest));
        RoomView {
            room: self.name.to_string(),
            run: self.run.to_string(),
            members: self.members(),
            devices: self.devices(),
            node: None,
            shards: self.segments.views().collect(),
            nodes: Vec::new(),
            partial: Vec::new(),
            home,
            hot: false,
            placed_on: vec![home],
            load_permille: self.load_permille(now),
            expected_audience: self.audience.expected,
            window_ms: millis(self.gathering.pace.window(self.members())),
            rates: RatesView {
                messages_per_second: self.message_rate.per_second(now),
                batches_per_second: self.gathering.batch_rate.per_second(now),
            },
            counters: self.state.counters.totals().map(|(name, total)| (name.to_string(), total)).collect(),
            head: HeadView {
                seq: self.state.seq.0,
                epoch: self.stream.epoch.map(|epoch| epoch.to_string()),
                offset: self.stream.durable,
            },
            backlog: BacklogView {
                gathered: self.gathering.buffer.len() as u64,
                oldest_ms: oldest.map_or(0, millis),
                not_durable: self.not_durable(),
            },
            ladder: self.gathering.step.into(),
            rules: RulesView::new(&self.gathering.pace.rules, &self.limits.changes),
            counts: self.segments.ended,
            account: self.account_view(),
        }
    }

    /// Counts all waiting messages as shed: the room is closed.
    pub fn shed_rest(&self, tally: &mut RoomTally) {
        let shed = &mut tally.shed[ShedReason::RoomClosed as usize];
        for class in self.gathering.buffer.classes() {
            shed.add(class, 1);
        }
        shed.add(Class::Counter, self.counter_messages());
        for dropped in self.gathering.buffer.dropped.values() {
            dropped.add_to(tally);
        }
    }

    /// Waiting messages and increments, and dropped messages untold yet.
    pub fn rest(&self) -> u64 {
        let dropped: u64 = self.gathering.buffer.dropped.values().map(DroppedOfType::count).sum();
        self.gathering.buffer.len() as u64 + self.counter_messages() + dropped
    }

    /// The room's line in `GET /v1/rooms`.
    pub fn line(&self, home: usize, now: Instant) -> RoomLine {
        RoomLine {
            room: self.name.to_string(),
            node: None,
            members: self.members(),
            home,
            shards: self.segments.held().count(),
            seq: self.state.seq.0,
            window_ms: millis(self.gathering.pace.window(self.members())),
            hot: false,
            load_permille: self.load_permille(now),
        }
    }

    /// Counter messages before the next batch.
    fn counter_messages(&self) -> u64 {
        self.state.counters.waiting().map(|(_, messages)| messages).sum()
    }

    fn account_view(&self) -> BTreeMap<String, AccountView> {
        let waiting = self.gathering.buffer.by_type();
        // A type may have a column without a message: its first one found the room full.
        let counted = |counts: &[u64]| counts.iter().any(|count| *count > 0);
        let told = |column: &Column| column.accepted > 0 || counted(&column.refused);
        let columns = self.state.account.columns.iter().filter(|(_, column)| told(column));
        columns.map(|(name, column)| (name.to_string(), self.type_view(name, column, &waiting))).collect()
    }

    /// The account of a type, with waiting and dropped messages.
    pub(super) fn type_view(
        &self,
        type_name: &TypeName,
        column: &Column,
        waiting: &BTreeMap<TypeName, Backlog>,
    ) -> AccountView {
        let by_reason = |counts: &[u64; ShedReason::ALL.len()]| -> BTreeMap<String, u64> {
            let some = ShedReason::ALL.iter().filter(|reason| counts[**reason as usize] > 0);
            some.map(|reason| (reason.name().to_owned(), counts[*reason as usize])).collect()
        };
        let backlog = waiting.get(type_name).copied().unwrap_or_default();
        let mut shed = by_reason(&column.shed);
        // Dropped since the last cut: waiting no more, and not in the column before the next batch tells
        // them.
        let dropped = self.gathering.buffer.dropped.get(type_name);
        for (reason, count) in dropped.iter().flat_map(|dropped| &dropped.by_reason) {
            *shed.entry(reason.name().to_owned()).or_default() += count;
        }
        let merged_of_dropped = dropped.map_or(0, |dropped| dropped.merged);
        AccountView {
            accepted: column.accepted,
            delivered: column.delivered.total(),
            merged: column.merged.total() + backlog.merged + merged_of_dropped,
            shed,
            waiting: backlog.messages + self.state.counters.waiting_of(type_name),
            refused: by_reason(&column.refused),
        }
    }
}
