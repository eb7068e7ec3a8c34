//! When the first, the middle and the last device of a message's room had it, message by message. Pure.
//!
//! A batch reaches its devices as one frame, so its ages are gathered once, counted from when the earliest of its messages
//! was due; each message's own follow from that and from when it was due itself. Where a run has more batches than are
//! kept, every worker keeps the same of them, so that the coordinator can put all devices of a batch together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::{Latency, Percentiles};
use crate::ledger::RoomSeen;
use crate::mix::Load;
use crate::timeline::{BUCKETS, end_ms, end_ns, step};

/// Batches kept of a worker: two megabytes of them at most. Past it every second one goes, and so on.
const SPREADS_MAX: usize = 4_096;

/// Over the messages of a type: when their devices had them, counted from when each was due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpreadFigures {
    /// The first device of each message.
    pub(crate) first: Percentiles,
    /// Half of the devices of each message.
    pub(crate) half: Percentiles,
    /// 99 in 100 of the devices of each message.
    pub(crate) p99: Percentiles,
    /// The last device of each message.
    pub(crate) last: Percentiles,
}

/// How far apart rooms are: the p99 over the devices and messages of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skew {
    /// Rooms that were given messages.
    pub(crate) rooms: u64,
    /// Of the rooms in the middle.
    pub(crate) median_p99_ms: f64,
    /// Of the worst room.
    pub(crate) worst_p99_ms: f64,
    /// Which that is.
    pub(crate) worst_room: u32,
}

/// When the devices of one batch had it, counted from when its earliest message was due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spread {
    first_ns: u64,
    last_ns: u64,
    /// Devices by step of age, in the order of steps.
    steps: Vec<(u8, u32)>,
}

impl Spread {
    /// So many devices had it at this age.
    pub(crate) fn add(&mut self, age_ns: u64, devices: u32) {
        self.first_ns = if self.steps.is_empty() { age_ns } else { self.first_ns.min(age_ns) };
        self.last_ns = self.last_ns.max(age_ns);
        self.count(step(age_ns), devices);
    }

    fn count(&mut self, step: u8, devices: u32) {
        match self.steps.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => self.steps[at].1 = self.steps[at].1.saturating_add(devices),
            Err(at) => self.steps.insert(at, (step, devices)),
        }
    }

    /// The age at which the last device had it.
    #[cfg(test)]
    pub(crate) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// Takes in what other devices of the same batch had.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.first_ns =
            if self.steps.is_empty() { other.first_ns } else { self.first_ns.min(other.first_ns) };
        self.last_ns = self.last_ns.max(other.last_ns);
        other.steps.iter().for_each(|(step, devices)| self.count(*step, *devices));
    }

    /// The age at which all devices had it but so many in a hundred. Those of one step are taken to lie evenly in it.
    fn all_but_ns(&self, percent: u64) -> u64 {
        let devices: u64 = self.steps.iter().map(|(_, devices)| u64::from(*devices)).sum();
        let (wanted, mut had) = (devices - devices * percent / 100, 0);
        for (step, devices) in &self.steps {
            let (before, devices) = (had, u64::from(*devices));
            had += devices;
            if had >= wanted {
                let low_ns = step.checked_sub(1).map_or(0, end_ns).max(self.first_ns);
                let high_ns = end_ns(*step).min(self.last_ns);
                return low_ns + high_ns.saturating_sub(low_ns) * (wanted - before) / devices.max(1);
            }
        }
        self.last_ns
    }
}

/// Which life of which room: the room's index in the run, and the life's among a worker's.
pub(crate) type Life = (u32, u32);

/// The spreads of one worker's batches.
#[derive(Debug)]
pub(crate) struct Spreads {
    /// A power of two: one in so many batches is kept.
    stride: u64,
    kept: BTreeMap<(Life, u64), Spread>,
}

impl Default for Spreads {
    fn default() -> Self {
        Self { stride: 1, kept: BTreeMap::new() }
    }
}

impl Spreads {
    /// Whether a room's batch is one of those that are kept.
    #[must_use]
    pub(crate) fn keeps(&self, room: u32, seq: u64) -> bool {
        is_kept(self.stride, room, seq)
    }

    /// Some devices of a batch had it so.
    pub(crate) fn add(&mut self, life: Life, seq: u64, spread: &Spread) {
        if !self.keeps(life.0, seq) {
            return;
        }
        self.kept.entry((life, seq)).or_default().merge(spread);
        while self.kept.len() > SPREADS_MAX {
            self.stride *= 2;
            self.kept.retain(|((room, _), seq), _| is_kept(self.stride, *room, *seq));
        }
    }

    /// One in so many batches was kept.
    #[must_use]
    pub(crate) fn stride(&self) -> u64 {
        self.stride
    }

    /// All of them, by life and seq.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = ((Life, u64), Spread)> + use<> {
        std::mem::take(&mut self.kept).into_iter()
    }
}

/// Drawn from the batch itself, so that all workers keep the same ones and no room has all or none.
fn is_kept(stride: u64, room: u32, seq: u64) -> bool {
    let mixed =
        (seq ^ u64::from(room).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 32) & (stride - 1) == 0
}

/// What the spreads of all rooms come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpreadTable {
    /// By type of the mix.
    pub(crate) types: Vec<SpreadFigures>,
    /// All types together.
    pub(crate) all: SpreadFigures,
    pub(crate) skew: Skew,
}

impl SpreadTable {
    /// Over all rooms, of whose batches one in `stride` counts.
    #[must_use]
    pub(crate) fn of<'a>(rooms: impl Iterator<Item = &'a RoomSeen>, loads: &[Load], stride: u64) -> Self {
        let mut types = vec![Sums::default(); loads.len()];
        let mut by_room: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for seen in rooms {
            let kept = seen.spreads.iter().filter(|(seq, _)| is_kept(stride, seen.room, **seq));
            for (seq, spread) in kept {
                let dues = dues(seen, *seq, loads);
                let Some(earliest_ns) = dues.keys().map(|(due_ns, _)| *due_ns).min() else { continue };
                let room = by_room.entry(seen.room).or_insert_with(|| vec![0; BUCKETS]);
                for ((due_ns, kind), messages) in dues {
                    let younger_ns = due_ns - earliest_ns;
                    types[kind].add(spread, younger_ns, messages);
                    for (step_of, devices) in &spread.steps {
                        let age_ns = end_ns(*step_of).min(spread.last_ns).saturating_sub(younger_ns);
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
            skew: Skew::of(&by_room),
        }
    }
}

/// When a batch's messages were due, by type, and how many then.
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

#[derive(Debug, Clone, Default)]
struct Sums {
    first: Latency,
    half: Latency,
    p99: Latency,
    last: Latency,
}

impl Sums {
    fn add(&mut self, spread: &Spread, younger_ns: u64, messages: u64) {
        for (latency, age_ns) in [
            (&mut self.first, spread.first_ns),
            (&mut self.half, spread.all_but_ns(50)),
            (&mut self.p99, spread.all_but_ns(1)),
            (&mut self.last, spread.last_ns),
        ] {
            latency.record(age_ns.saturating_sub(younger_ns), messages);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.first.merge(&other.first.buckets());
        self.half.merge(&other.half.buckets());
        self.p99.merge(&other.p99.buckets());
        self.last.merge(&other.last.buckets());
    }

    fn figures(&self) -> SpreadFigures {
        SpreadFigures {
            first: self.first.percentiles(),
            half: self.half.percentiles(),
            p99: self.p99.percentiles(),
            last: self.last.percentiles(),
        }
    }
}

impl Skew {
    /// Of rooms' devices and messages by step of age.
    fn of(by_room: &BTreeMap<u32, Vec<u64>>) -> Self {
        let mut rooms: Vec<(f64, u32)> = by_room.iter().map(|(room, steps)| (p99_ms(steps), *room)).collect();
        rooms.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (Some(worst), Some(median)) = (rooms.last(), rooms.get(rooms.len() / 2)) else {
            return Self::default();
        };
        Self {
            rooms: rooms.len() as u64,
            median_p99_ms: median.0,
            worst_p99_ms: worst.0,
            worst_room: worst.1,
        }
    }
}

fn p99_ms(steps: &[u64]) -> f64 {
    let all: u64 = steps.iter().sum();
    let (wanted, mut had) = (all - all / 100, 0);
    let reached = steps.iter().position(|count| {
        had += count;
        had >= wanted
    });
    end_ms(u8::try_from(reached.unwrap_or(0)).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Numbers;
    use crate::mix::Class;
    use crate::payload::Length;
    use crate::schedule::Schedule;

    const MS: u64 = 1_000_000;

    fn spread(ages_ms: &[(u64, u32)]) -> Spread {
        let mut spread = Spread::default();
        ages_ms.iter().for_each(|(age_ms, devices)| spread.add(age_ms * MS, *devices));
        spread
    }

    /// A message each 10 ms.
    fn load() -> Load {
        let (schedule, length) = (Schedule::even(100, 100_000, 1, 1), Length::Fixed(60));
        Load { type_name: "chat".into(), class: Class::Normal, schedule, count: None, keys: 0, length }
    }

    fn seen(room: u32, batches: &[(u64, Vec<u32>, Spread)]) -> RoomSeen {
        let mut seen = RoomSeen::new(room, 1);
        for (seq, places, spread) in batches {
            seen.types[0].batches.insert(*seq, Numbers::from(places.clone()));
            seen.spreads.insert(*seq, spread.clone());
        }
        seen
    }

    fn is_near(ms: f64, expected_ms: f64) -> bool {
        (expected_ms * 0.99..expected_ms * 1.1).contains(&ms)
    }

    #[test]
    fn the_first_half_and_last_device_of_a_message_are_told_apart() {
        let seen = seen(0, &[(5, vec![0], spread(&[(20, 1), (40, 59), (80, 39), (300, 1)]))]);
        let table = SpreadTable::of([&seen].into_iter(), &[load()], 1);
        let SpreadFigures { first, half, p99, last } = table.types[0];
        assert!(is_near(first.max_ms, 20.0) && is_near(half.max_ms, 40.0), "{first:?} {half:?}");
        assert!(is_near(p99.max_ms, 80.0) && is_near(last.max_ms, 300.0), "{p99:?} {last:?}");
        assert_eq!((table.all, first.count), (table.types[0], 1));
    }

    #[test]
    fn half_of_the_devices_of_one_step_are_not_all_of_them() {
        let within = spread(&[(100, 50), (104, 50)]);
        assert_eq!(within.steps.len(), 1);
        assert_eq!((within.all_but_ns(50), within.all_but_ns(0)), (102 * MS, 104 * MS));
        assert_eq!(spread(&[(70_000, 3)]).all_but_ns(50), 70_000 * MS, "past the last step");
    }

    #[test]
    fn a_later_message_of_a_batch_is_that_much_younger() {
        // Due at 0, 10 and 20 ms, all with one device 50 ms after the first was due.
        let seen = seen(0, &[(5, vec![0, 1, 2], spread(&[(50, 1)]))]);
        let table = SpreadTable::of([&seen].into_iter(), &[load()], 1);
        let last = table.all.last;
        assert!(last.count == 3 && is_near(last.max_ms, 50.0) && is_near(last.p50_ms, 40.0), "{last:?}");
    }

    #[test]
    fn what_two_workers_saw_of_a_batch_is_one_spread() {
        let mut one = spread(&[(20, 30)]);
        one.merge(&spread(&[(10, 10), (90, 10)]));
        let together = spread(&[(10, 10), (20, 30), (90, 10)]);
        assert_eq!(one, together);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Spread>(&text).unwrap(), one);
    }

    #[test]
    fn the_worst_room_is_named() {
        let rooms: Vec<RoomSeen> = (0..5)
            .map(|room| seen(room, &[(5, vec![0], spread(&[(if room == 3 { 400 } else { 20 }, 10)]))]))
            .collect();
        let loads = [Load { schedule: Schedule::even(100, 100_000, 5, 1), ..load() }];
        let skew = SpreadTable::of(rooms.iter(), &loads, 1).skew;
        assert_eq!((skew.rooms, skew.worst_room), (5, 3));
        assert!(is_near(skew.median_p99_ms, 20.0) && is_near(skew.worst_p99_ms, 400.0), "{skew:?}");
    }

    #[test]
    fn past_the_bound_fewer_are_kept_and_the_same_everywhere() {
        let (mut one, mut other) = (Spreads::default(), Spreads::default());
        let batch = spread(&[(20, 1)]);
        for seq in 0..10_000 {
            let life = (u32::try_from(seq % 7).unwrap(), 0);
            one.add(life, seq, &batch);
            if seq % 2 == 0 {
                other.add(life, seq, &batch);
            }
        }
        let (coarse, fine) = (one.stride(), other.stride());
        assert!(coarse > fine && fine > 1, "{coarse} {fine}");
        let mine: Vec<(Life, u64)> = one.take().map(|(batch, _)| batch).collect();
        assert!(mine.len() <= SPREADS_MAX && mine.len() > SPREADS_MAX / 4, "{}", mine.len());
        let theirs: Vec<(Life, u64)> = other
            .take()
            .map(|(batch, _)| batch)
            .filter(|(life, seq)| is_kept(coarse, life.0, *seq))
            .collect();
        assert!(mine.iter().filter(|(_, seq)| seq % 2 == 0).eq(theirs.iter()));
    }
}
