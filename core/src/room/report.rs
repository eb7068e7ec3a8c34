//! What a room shows of itself: its view over HTTP, and the smoothed rates in it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::account::Column;
use super::buffer::Backlog;
use super::id::TypeName;
use super::message::{Class, ShedReason};
use super::tally::RoomTally;
use super::view::{
    AccountView, BacklogView, HeadView, RatesView, RoomLine, RoomView, RulesView, SegmentView,
};
use super::{Counts, Room};
use crate::now::millis;

/// Over how many seconds a rate is smoothed.
const SMOOTHING_S: f64 = 10.0;

/// Something per second, exponentially smoothed: each count decays with a time constant of ten seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    per_second: f64,
    at: Option<Instant>,
}

impl Rate {
    pub(super) fn add(&mut self, count: f64, now: Instant) {
        self.per_second = self.per_second(now) + count / SMOOTHING_S;
        self.at = Some(now);
    }

    pub(super) fn per_second(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        self.per_second * (-now.saturating_duration_since(at).as_secs_f64() / SMOOTHING_S).exp()
    }
}

impl Room {
    /// What `GET /v1/rooms/{room}` shows. `home` is the shard that asks; what other shards count, and where further devices
    /// are placed, is for whoever knows it to add.
    #[must_use]
    pub fn view(&self, home: usize, now: Instant) -> RoomView {
        let oldest = self.buffer.oldest().into_iter().chain(self.counted_since).min();
        let oldest = oldest.map(|oldest| now.saturating_duration_since(oldest));
        let held = self.segments.iter().filter(|(_, segment)| segment.census.members() > 0);
        let segments = held.map(|(shard, segment)| SegmentView {
            shard: *shard,
            members: segment.census.members(),
            pass_us: u64::try_from(segment.cost.pass(segment.census).as_micros()).unwrap_or(u64::MAX),
            counts: Counts::default(),
        });
        RoomView {
            room: self.name.to_string(),
            run: self.run.to_string(),
            members: self.members(),
            shards: segments.collect(),
            home,
            hot: false,
            placed_on: vec![home],
            load_permille: self.load_permille(now),
            expected_audience: self.expected_audience,
            window_ms: millis(self.pace.window(self.members())),
            rates: RatesView {
                messages_per_second: self.message_rate.per_second(now),
                batches_per_second: self.batch_rate.per_second(now),
            },
            counters: self.counters.totals().map(|(name, total)| (name.to_string(), total)).collect(),
            head: HeadView {
                seq: self.seq.0,
                epoch: self.stream.epoch().map(|epoch| epoch.to_string()),
                offset: self.stream.durable(),
            },
            backlog: BacklogView {
                gathered: self.buffer.len() as u64,
                oldest_ms: oldest.map_or(0, millis),
                not_durable: self.stream.in_flight(),
            },
            ladder: self.step.into(),
            rules: RulesView::new(self.pace.rules(), self.limits.changes()),
            counts: self.counts,
            account: self.account_view(),
        }
    }

    /// Counts what waits as shed: the room is closed.
    pub fn shed_rest(&self, tally: &mut RoomTally) {
        let shed = &mut tally.shed[ShedReason::RoomClosed as usize];
        for class in self.buffer.classes() {
            shed.add(class, 1);
        }
        shed.add(Class::Counter, self.increments.values().sum());
        for (_, class, reason, count) in self.buffer.dropped().reasons() {
            tally.shed[reason as usize].add(class, count);
        }
    }

    /// Messages and increments that wait, and messages that were dropped and not told yet.
    #[must_use]
    pub fn rest(&self) -> u64 {
        let dropped: u64 = self.buffer.dropped().by_type().map(|(_, count)| count).sum();
        self.buffer.len() as u64 + self.increments.values().sum::<u64>() + dropped
    }

    /// Its line in `GET /v1/rooms`.
    #[must_use]
    pub fn line(&self, home: usize, now: Instant) -> RoomLine {
        RoomLine {
            room: self.name.to_string(),
            members: self.members(),
            home,
            shards: self.segments().count(),
            seq: self.seq.0,
            window_ms: millis(self.pace.window(self.members())),
            hot: false,
            load_permille: self.load_permille(now),
        }
    }

    fn account_view(&self) -> BTreeMap<String, AccountView> {
        let waiting = self.buffer.by_type();
        let counted = |counts: &[u64]| counts.iter().any(|count| *count > 0);
        let told = |column: &Column| column.accepted > 0 || counted(&column.refused);
        let columns = self.account.columns().filter(|(_, column)| told(column));
        columns.map(|(name, column)| (name.to_string(), self.type_view(name, column, &waiting))).collect()
    }

    /// The account of one type, with what waits of it and what was dropped since the last cut.
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
        let dropped = self.buffer.dropped().of(type_name);
        for (reason, count) in dropped.iter().flat_map(|(_, reasons)| *reasons) {
            *shed.entry(reason.name().to_owned()).or_default() += count;
        }
        let merged_of_dropped = dropped.map_or(0, |(merged, _)| merged);
        AccountView {
            accepted: column.accepted,
            delivered: column.delivered(),
            merged: column.merged() + backlog.merged + merged_of_dropped,
            shed,
            waiting: backlog.messages + self.increments.get(type_name).copied().unwrap_or(0),
            refused: by_reason(&column.refused),
        }
    }
}
