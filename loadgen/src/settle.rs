//! After the run: merges what the workers saw, and holds it against what was published and what the store has.

use std::collections::BTreeMap;

use crate::args::Plan;
use crate::latency::Latency;
use crate::ledger::{
    ApplyTimes, Kind, Published, RoomSeen, Stored, StreamSeen, Violations, check, check_one_life,
    check_stored, check_stream,
};
use crate::payload::{Payloads, reliable_seed};
use crate::publisher::Outcomes;
use crate::report::ReliableFigures;
use crate::stored;
use crate::streams::{Original, StreamTally};
use crate::watch::Tally;
use crate::worker::{Outcome, room_name};

/// What all workers saw.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    pub(crate) seen: Tally,
    pub(crate) latency: Latency,
    pub(crate) violations: Violations,
    /// Lives of rooms, by room and run.
    rooms: BTreeMap<(u32, String), RoomSeen>,
    stream_tally: StreamTally,
    after_return: Latency,
    /// Lives of streams, by room and epoch.
    streams: BTreeMap<u32, Vec<StreamSeen>>,
}

impl Merged {
    /// Puts the workers' results together.
    #[must_use]
    pub(crate) fn of(results: Vec<Outcome>) -> Self {
        let mut merged = Self::default();
        for result in results {
            merged.seen.frames += result.tally.frames;
            merged.seen.deliveries += result.tally.deliveries;
            merged.seen.skipped += result.tally.skipped;
            merged.seen.decoded += result.tally.decoded;
            merged.seen.bytes += result.tally.bytes;
            merged.latency.merge(&result.latency);
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
        let (index, run) = (room.room, room.run.clone());
        let mine = self.rooms.entry((index, run)).or_insert_with(|| RoomSeen::new(index));
        let conflicts = mine.merge(room);
        self.violations.add(Kind::Altered, conflicts.len() as u64, || {
            format!("room {index}: batches {conflicts:?} were others for devices of other workers")
        });
    }

    fn add_stream(&mut self, stream: StreamSeen) {
        let room = stream.room;
        let lives = self.streams.entry(room).or_default();
        let Some(mine) = lives.iter_mut().find(|life| life.epoch == stream.epoch) else {
            lives.push(stream);
            return;
        };
        let conflicts = mine.merge(stream);
        self.violations.add(Kind::I4OffsetOrder, conflicts.len() as u64, || {
            format!("I4 room {room}: offsets {conflicts:?} were other messages for devices of other workers")
        });
    }

    /// Judges the chat: each room that devices were in.
    pub(crate) fn check_rooms(&mut self, published: &Published, plan: &Plan) {
        let mut lives: BTreeMap<u32, u32> = BTreeMap::new();
        for (room, _) in self.rooms.keys() {
            *lives.entry(*room).or_default() += 1;
        }
        for ((room, run), seen) in &self.rooms {
            if lives[room] == 1 {
                check(published, seen, &mut self.violations);
                continue;
            }
            check_one_life(published, seen, &mut self.violations);
            if !plan.awkward.through_restarts {
                self.violations.add(Kind::Altered, 1, || format!("room {room}: one of its runs was {run}"));
            }
        }
    }

    /// Judges the reliable streams, with what the store has after the run, whose publishing took so long.
    pub(crate) fn check_streams(
        &mut self,
        outcomes: &Outcomes,
        plan: &Plan,
        took_ms: u64,
    ) -> Option<ReliableFigures> {
        let reliable = plan.reliable.as_ref()?;
        let published = &outcomes.published;
        let original = Original {
            schedule: *published.schedule(),
            payloads: Payloads::new(plan.payload_bytes, reliable_seed(plan.seed)),
            type_name: reliable.type_name.clone(),
            ttl_ms: reliable.ttl_ms,
        };
        let handshake = stored::handshake(plan.viewer_door.clone(), plan.device_token.clone());
        let (mut times, ttl_ns) = (ApplyTimes::default(), original.ttl_ns());
        let mut unread = false;
        for room in (0..plan.schedule.rooms).filter(|room| published.schedule().messages_of(*room) > 0) {
            let name = room_name(&plan.room_stem, room);
            let mut pulled: Option<Stored> = None;
            if !unread {
                match stored::pull(&handshake, &name, room, &original, &mut self.violations) {
                    Ok(stored) => pulled = Some(stored),
                    Err(reason) => {
                        // One room that can't be had is enough to say so; the others are not waited for.
                        unread = true;
                        self.violations.add(Kind::I1NotStored, 1, || {
                            format!("I1 room {room}: the store could not be read after the run: {reason}")
                        });
                    }
                }
            }
            if let Some(stored) = &pulled {
                check_stored(published, room, stored, ttl_ns, &mut self.violations);
            }
            if let Some(lives) = self.streams.get(&room) {
                check_stream(published, lives, pulled.as_ref(), ttl_ns, (&mut times, &mut self.violations));
            }
        }
        Some(ReliableFigures::new((outcomes, took_ms), &self.stream_tally, &times, &self.after_return))
    }
}
