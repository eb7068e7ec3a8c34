//! The first, the middle and the last device of each message, and the distance between rooms. Pure.
//!
//! The ages of a batch count from the due time of the earliest message. A later message of the batch is
//! younger by the difference of the due times: a batch with messages due at 0 and 10 ms and a last device at
//! 50 ms gives 50 and 40 ms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::figures::latency::{Latency, Percentiles};
use crate::figures::timeline::{BUCKETS, at_most_ms, end_ns, step};
use crate::ledger::RoomSeen;
use crate::ledger::ages::{BatchAges, is_kept};
use crate::scenario::mix::Load;

/// Times from the due time of a message to the devices, over the messages of a type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FirstToLast {
    pub(crate) first: Percentiles,
    /// Half of the devices of a message had the message.
    pub(crate) half: Percentiles,
    /// 99 in 100 of the devices of a message had the message.
    pub(crate) p99: Percentiles,
    pub(crate) last: Percentiles,
}

/// The distance between rooms: p99 over the devices and messages of each room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoomSkew {
    /// Rooms with messages.
    pub(crate) rooms: u64,
    pub(crate) median_p99_ms: f64,
    pub(crate) worst_p99_ms: f64,
    pub(crate) worst_room: u32,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FirstToLastTable {
    /// By type of the mix.
    pub(crate) types: Vec<FirstToLast>,
    /// All types together.
    pub(crate) all: FirstToLast,
    pub(crate) skew: RoomSkew,
}

impl FirstToLastTable {
    /// Counts a batch in `stride`: workers kept the ages of no other batches.
    pub(crate) fn of<'a>(rooms: impl Iterator<Item = &'a RoomSeen>, loads: &[Load], stride: u64) -> Self {
        let mut types = vec![Sums::default(); loads.len()];
        let mut by_room: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for seen in rooms {
            let kept = seen.ages.iter().filter(|(seq, _)| is_kept(stride, seen.room, **seq));
            for (seq, ages) in kept {
                let dues = dues(seen, *seq, loads);
                // Another run may share the rooms: nothing of this run may be in a batch.
                let Some(earliest_ns) = dues.keys().map(|(due_ns, _)| *due_ns).min() else { continue };
                let room = by_room.entry(seen.room).or_insert_with(|| vec![0; BUCKETS]);
                for ((due_ns, kind), messages) in dues {
                    let younger_ns = due_ns - earliest_ns;
                    types[kind].add(ages, younger_ns, messages);
                    for (step_of, devices) in &ages.steps {
                        // The end of the last step may lie past the last device.
                        let age_ns = end_ns(*step_of).min(ages.last_ns).saturating_sub(younger_ns);
                        room[usize::from(step(age_ns))] += u64::from(*devices) * messages;
                    }
                }
            }
        }
        let mut all = Sums::default();
        types.iter().for_each(|sums| all.merge(sums));
        Self {
            types: types.iter().map(Sums::figures).collect(),
            all: all.figures(),
            skew: RoomSkew::of(&by_room),
        }
    }
}

/// (due time in ns, type) -> messages of a batch.
fn dues(seen: &RoomSeen, seq: u64, loads: &[Load]) -> BTreeMap<(u64, usize), u64> {
    let mut dues = BTreeMap::new();
    for (kind, (of_type, load)) in seen.types.iter().zip(loads).enumerate() {
        for place in of_type.batches.get(&seq).into_iter().flat_map(|numbers| numbers.iter()) {
            let due_ns = load.schedule.due_ns(load.schedule.number_at(seen.room, place));
            *dues.entry((due_ns, kind)).or_default() += 1;
        }
    }
    dues
}

/// The latencies of the first, the half, the 99 in 100 and the last device, in this order.
#[derive(Debug, Clone, Default)]
struct Sums([Latency; 4]);

impl Sums {
    fn add(&mut self, ages: &BatchAges, younger_ns: u64, messages: u64) {
        let of_devices = [ages.first_ns, ages.all_but_ns(50), ages.all_but_ns(1), ages.last_ns];
        for (latency, age_ns) in self.0.iter_mut().zip(of_devices) {
            latency.record(age_ns.saturating_sub(younger_ns), messages);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.merge(&theirs.buckets());
        }
    }

    fn figures(&self) -> FirstToLast {
        let [first, half, p99, last] = self.0.each_ref().map(Latency::percentiles);
        FirstToLast { first, half, p99, last }
    }
}

impl RoomSkew {
    /// `by_room` holds deliveries by step of age.
    fn of(by_room: &BTreeMap<u32, Vec<u64>>) -> Self {
        let mut rooms: Vec<(f64, u32)> =
            by_room.iter().map(|(room, steps)| (at_most_ms(steps, 99), *room)).collect();
        rooms.sort_by(|one, other| one.0.total_cmp(&other.0));
        let Some(&(worst_p99_ms, worst_room)) = rooms.last() else { return Self::default() };
        let median_p99_ms = rooms[rooms.len() / 2].0;
        Self { rooms: rooms.len() as u64, median_p99_ms, worst_p99_ms, worst_room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Numbers;
    use crate::ledger::ages::tests::ages;
    use crate::scenario::mix::Class;
    use crate::scenario::payload::Length;
    use crate::scenario::schedule::Schedule;

    /// A message every 10 ms.
    fn load() -> Load {
        let schedule = Schedule::even(100, 100_000, 1, 1);
        let length = Length::Fixed(60);
        Load { type_name: "chat".into(), class: Class::Normal, schedule, count: None, keys: 0, length }
    }

    fn seen(room: u32, batches: &[(u64, Vec<u32>, BatchAges)]) -> RoomSeen {
        let mut seen = RoomSeen::new(room, 1);
        for (seq, places, ages) in batches {
            seen.types[0].batches.insert(*seq, Numbers::from(places.clone()));
            seen.ages.insert(*seq, ages.clone());
        }
        seen
    }

    fn is_near(ms: f64, expected_ms: f64) -> bool {
        (expected_ms * 0.99..expected_ms * 1.1).contains(&ms)
    }

    #[test]
    fn the_first_half_and_last_device_of_a_message_are_told_apart() {
        let seen = seen(0, &[(5, vec![0], ages(&[(20, 1), (40, 59), (80, 39), (300, 1)]))]);
        let table = FirstToLastTable::of([&seen].into_iter(), &[load()], 1);
        let FirstToLast { first, half, p99, last } = table.types[0];
        assert!(is_near(first.max_ms, 20.0) && is_near(half.max_ms, 40.0), "{first:?} {half:?}");
        assert!(is_near(p99.max_ms, 80.0) && is_near(last.max_ms, 300.0), "{p99:?} {last:?}");
        assert_eq!((table.all, first.count), (table.types[0], 1));
    }

    #[test]
    fn a_later_message_of_a_batch_is_that_much_younger() {
        // Due at 0, 10 and 20 ms, all with one device 50 ms after the first was due.
        let seen = seen(0, &[(5, vec![0, 1, 2], ages(&[(50, 1)]))]);
        let table = FirstToLastTable::of([&seen].into_iter(), &[load()], 1);
        let last = table.all.last;
        assert!(last.count == 3 && is_near(last.max_ms, 50.0) && is_near(last.p50_ms, 40.0), "{last:?}");
    }

    #[test]
    fn the_worst_room_is_named() {
        let rooms: Vec<RoomSeen> = (0..5)
            .map(|room| seen(room, &[(5, vec![0], ages(&[(if room == 3 { 400 } else { 20 }, 10)]))]))
            .collect();
        let loads = [Load { schedule: Schedule::even(100, 100_000, 5, 1), ..load() }];
        let skew = FirstToLastTable::of(rooms.iter(), &loads, 1).skew;
        assert_eq!((skew.rooms, skew.worst_room), (5, 3));
        assert!(is_near(skew.median_p99_ms, 20.0) && is_near(skew.worst_p99_ms, 400.0), "{skew:?}");
    }
}
