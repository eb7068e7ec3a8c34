//! After the run: merges the results of the workers, and judges them against the publishes and the store.

use std::collections::BTreeMap;

use crate::devices::moves::Moves;
use crate::devices::readable::Reading;
use crate::devices::streams::{Original, StreamTally};
use crate::devices::type_figures::TypeFigures;
use crate::figures::latency::Latency;
use crate::fleet::words::WorkerResult;
use crate::ledger::{
    Account, ApplyTimes, Case, Kind, RoomSeen, StreamSeen, Tally, Violations, add_fields, check,
    check_counter, check_lives, check_stored, check_stream, slow_apply_age_max_ns,
};
use crate::publish::publisher::Outcomes;
use crate::report::generator::GeneratorFigures;
use crate::report::last_device::FirstToLastTable;
use crate::report::{JudgedRooms, ReliableFigures};
use crate::run::stored::{self, PullTime};
use crate::scenario::plan::Plan;

/// The results of all workers.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    pub(crate) seen: Tally,
    /// By type.
    pub(crate) types: Vec<TypeFigures>,
    /// By limit.
    pub(crate) readings: Vec<Reading>,
    pub(crate) violations: Violations,
    /// From the due time of a join or a return to the welcome.
    pub(crate) joins: Latency,
    pub(crate) moves: Moves,
    /// Without the publishers.
    pub(crate) generator: GeneratorFigures,
    /// The largest stride of a worker: every worker kept the ages of at least these batches.
    ages_stride: u64,
    /// (room, run) -> batches seen in that life of the room.
    rooms: BTreeMap<(u32, String), RoomSeen>,
    stream_tally: StreamTally,
    after_return: Latency,
    /// Filled by [`Merged::check_rooms`].
    pub(crate) judged_rooms: JudgedRooms,
    /// Filled by [`Merged::check_rooms`].
    pub(crate) runs_changed: u64,
    /// Room -> lives of its stream, each with its own epoch.
    streams: BTreeMap<u32, Vec<StreamSeen>>,
}

impl Merged {
    pub(crate) fn of(results: Vec<WorkerResult>) -> Self {
        let mut merged = Self::default();
        for result in results {
            merged.joins.merge(&result.joins);
            merged.moves.add(result.moves);
            merged.generator.add_worker(result.peak_bytes, result.devices, result.busy);
            merged.ages_stride = merged.ages_stride.max(result.ages_stride);
            add_fields!(merged.seen, result.tally; frames, deliveries, skipped, decoded, bytes);
            merged.types.resize_with(result.types.len().max(merged.types.len()), TypeFigures::default);
            for (mine, theirs) in merged.types.iter_mut().zip(&result.types) {
                mine.merge(theirs);
            }
            merged.readings.resize_with(result.readings.len().max(merged.readings.len()), Reading::default);
            for (mine, theirs) in merged.readings.iter_mut().zip(result.readings) {
                mine.join(theirs);
            }
            merged.violations.merge(result.violations);
            merged.stream_tally.add(&result.stream_tally);
            merged.after_return.merge(&result.after_return);
            for room in result.rooms {
                merged.add_room(room);
            }
            for stream in result.streams {
                merged.add_stream(stream);
            }
        }
        merged
    }

    fn add_room(&mut self, room: RoomSeen) {
        let index = room.room;
        let run = room.run.clone();
        let mine = self.rooms.entry((index, run)).or_insert_with(|| RoomSeen::new(index, room.types.len()));
        let conflicts = mine.merge(room);
        self.violations.add(Kind::Altered, conflicts.len() as u64, || {
            format!("room {index}: batches {conflicts:?} differed between workers")
        });
    }

    fn add_stream(&mut self, stream: StreamSeen) {
        let room = stream.room;
        let lives = self.streams.entry(room).or_default();
        // A new epoch is a new life: its offsets have nothing to do with those before.
        let Some(mine) = lives.iter_mut().find(|life| life.epoch == stream.epoch) else {
            lives.push(stream);
            return;
        };
        let conflicts = mine.merge(stream);
        self.violations.add(Kind::I4OffsetOrder, conflicts.len() as u64, || {
            format!("I4 room {room}: offsets {conflicts:?} had different messages at different workers")
        });
    }

    /// Judges every type in each room with devices, and returns the account of each type over all rooms.
    pub(crate) fn check_rooms(&mut self, published: &[Outcomes], plan: &Plan) -> Vec<Account> {
        self.rooms.values_mut().for_each(RoomSeen::rely_on_relay);
        let mut rooms: BTreeMap<u32, Vec<&RoomSeen>> = BTreeMap::new();
        for ((room, _), seen) in &self.rooms {
            rooms.entry(*room).or_default().push(seen);
        }
        let mut accounts = vec![Account::default(); plan.loads.len()];
        for (room, lives) in &mut rooms {
            lives.sort_by_key(|seen| seen.first_ns);
            self.runs_changed += lives.len() as u64 - 1;
            if lives.len() > 1 && !plan.awkward.through_restarts {
                // Only a restart or a takeover begins a second life of a room.
                let run = &lives[1].run;
                self.violations.add(Kind::Altered, 1, || format!("room {room}: an unexpected run {run}"));
            }
            // While all devices were away, no device saw the messages of the room.
            let is_judged = match &**lives {
                [seen] => !seen.starts.is_empty(),
                lives => lives.iter().all(|seen| seen.is_watched()),
            };
            // Counters are judged in one life alone.
            let has_judge = lives.len() == 1 || plan.loads.iter().any(|load| !load.is_counter());
            self.judged_rooms.add(is_judged && has_judge);
            for ((kind, load), (outcomes, account)) in
                (0_u8..).zip(&plan.loads).zip(published.iter().zip(&mut accounts))
            {
                let case = Case { kind, load, published: &outcomes.published, others: plan.others };
                match (&**lives, load.is_counter()) {
                    ([seen], is_counter) if is_judged => account.add(if is_counter {
                        check_counter(&case, seen, &mut self.violations)
                    } else {
                        check(&case, seen, &mut self.violations)
                    }),
                    (lives, false) => account.add(check_lives(&case, lives, &mut self.violations)),
                    // Another run begins the totals of counters anew.
                    (_, true) => {}
                }
            }
        }
        accounts
    }

    pub(crate) fn first_to_last(&self, plan: &Plan) -> FirstToLastTable {
        FirstToLastTable::of(self.rooms.values(), &plan.loads, self.ages_stride.max(1))
    }

    /// Judges the limits on messages a second.
    pub(crate) fn check_readable(&mut self, plan: &Plan) {
        for (limit, reading) in plan.limits.iter().zip(&self.readings) {
            if let Some(excess) = reading.excess(limit) {
                self.violations.add(Kind::ReadableExceeded, 1, || excess);
            }
        }
    }

    /// Judges the reliable streams against the publishes and the store. `took_ms` is the time of publishing.
    pub(crate) fn check_streams(
        &mut self,
        outcomes: &Outcomes,
        plan: &Plan,
        took_ms: u64,
        pull_time: &mut PullTime,
    ) -> Option<ReliableFigures> {
        let published = &outcomes.published;
        let mut original = Original::of(plan)?;
        original.reliable.schedule.start_ns = published.schedule.start_ns;
        let timed_from_ns = published.schedule.start_ns + plan.warm_up_ms * 1_000_000;
        let mut times =
            ApplyTimes::since(timed_from_ns, slow_apply_age_max_ns(plan.awkward.slow_bytes_per_s));
        let ttl_ns = original.ttl_ns();
        let mut unread = false;
        // A room without a reliable message has no stream to pull.
        for room in (0..plan.rooms).filter(|room| published.schedule.messages_of(*room) > 0) {
            // A room without an answer uses up the time of all, and one room is proof enough.
            let pulled = (!unread)
                .then(|| stored::pull(&plan.target, room, &original, pull_time, &mut self.violations));
            if let Some(Err(reason)) = &pulled {
                unread = true;
                self.violations.add(Kind::I1NotStored, 1, || {
                    format!("I1 room {room}: the store could not be read after the run: {reason}")
                });
            }
            let pulled = pulled.and_then(Result::ok);
            if let Some(stored) = &pulled {
                check_stored(published, room, stored, ttl_ns, &mut self.violations);
            }
            if let Some(lives) = self.streams.get(&room) {
                check_stream(published, lives, pulled.as_ref(), ttl_ns, &mut times, &mut self.violations);
            }
        }
        Some(ReliableFigures::new(outcomes, took_ms, &self.stream_tally, &times, &self.after_return))
    }
}
