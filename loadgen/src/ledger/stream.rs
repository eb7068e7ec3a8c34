//! A reliable stream as the devices of a worker saw the stream, in a form for the coordinator, where sights
//! are merged.
//!
//! A device applies everything up to the cursor in order, so nothing is kept per device and message. Applied
//! messages are counted per offset and tick, holes and ends once per offset with a witness. 5 000 devices and
//! 200 messages make 200 offsets with at most [`APPLIED_TICKS_MAX`] pairs of eight bytes each, and a few more
//! past the first second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::seen::Witness;

/// Nanoseconds of a tick, as a power of two: 262 µs. Times to apply are overstated by a tick at most.
pub(crate) const TICK_SHIFT: u32 = 18;
/// Ticks told apart for an offset. Later ticks are counted in steps of 64 ticks (17 ms), at the later end.
const APPLIED_TICKS_MAX: usize = 4_096;
const COARSE_TICKS: u32 = 63;

/// The content of an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A message of this run, by number.
    Message(u64),
    /// The recall of the message at an offset.
    Recall(u64),
    /// A message of another run, which is not judged.
    Other,
}

/// An offset applied by some device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OffsetSeen {
    pub(crate) what: What,
    /// Devices by the tick in which they applied the offset, counted from the start.
    pub(crate) applied: BTreeMap<u32, u32>,
    /// Devices that applied the offset soon after a return. They are not timed from the publish.
    pub(crate) after_return: u64,
    /// The latest tick, and the device.
    pub(crate) slowest: (u32, u32),
    /// Slow readers by the tick in which they applied the offset. Their times are no figures of the node, and
    /// they have a time of their own.
    #[serde(default)]
    pub(crate) applied_slowly: BTreeMap<u32, u32>,
    /// The latest tick of a slow reader, and the device.
    #[serde(default)]
    pub(crate) slowest_reader: (u32, u32),
}

impl OffsetSeen {
    fn new(what: What, device: u32) -> Self {
        Self {
            what,
            applied: BTreeMap::new(),
            after_return: 0,
            slowest: (0, device),
            applied_slowly: BTreeMap::new(),
            slowest_reader: (0, device),
        }
    }

    /// Devices that applied the offset.
    pub(crate) fn devices(&self) -> u64 {
        let counts = self.applied.values().chain(self.applied_slowly.values());
        counts.map(|count| u64::from(*count)).sum::<u64>() + self.after_return
    }

    /// Notes that `device` applied the offset `after_start_ns` after the start.
    pub(crate) fn apply(&mut self, after_start_ns: u64, device: u32) {
        let tick = count(&mut self.applied, after_start_ns);
        self.slowest = self.slowest.max((tick, device));
    }

    /// The same for a device that reads slowly.
    pub(crate) fn apply_slowly(&mut self, after_start_ns: u64, device: u32) {
        let tick = count(&mut self.applied_slowly, after_start_ns);
        self.slowest_reader = self.slowest_reader.max((tick, device));
    }
}

/// Counts one device, and gives the tick.
fn count(ticks: &mut BTreeMap<u32, u32>, after_start_ns: u64) -> u32 {
    let tick = u32::try_from(after_start_ns >> TICK_SHIFT).unwrap_or(u32::MAX);
    // Instants of a slow crowd are without end, and the coordinator keeps those of all workers.
    let tick = if ticks.len() >= APPLIED_TICKS_MAX { tick | COARSE_TICKS } else { tick };
    *ticks.entry(tick).or_default() += 1;
    tick
}

/// Devices that passed an offset without a message, or ended at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passed {
    pub(crate) witness: Witness,
    /// The earliest time at which a device did so.
    pub(crate) first_ns: u64,
    /// The earliest of the devices' last returns; 0: a device was there throughout.
    pub(crate) returned_ns: u64,
}

impl Passed {
    fn one(device: u32, now_ns: u64, returned_ns: u64) -> Self {
        Self { witness: Witness::of(device), first_ns: now_ns, returned_ns }
    }
}

/// An epoch of a room's reliable stream, as the devices of a worker (or, merged, of all) saw the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamSeen {
    /// Index of the room in the run.
    pub(crate) room: u32,
    pub(crate) epoch: String,
    /// Applied offsets.
    pub(crate) offsets: BTreeMap<u64, OffsetSeen>,
    /// Offsets passed by devices without a message.
    pub(crate) holes: BTreeMap<u64, Passed>,
    /// Devices by their offset at the end.
    pub(crate) ends: BTreeMap<u64, Passed>,
}

impl StreamSeen {
    pub(crate) fn new(room: u32, epoch: &str) -> Self {
        Self { room, epoch: epoch.to_owned(), ..Self::default() }
    }

    /// The entry of `offset`, made with `what` where there is none.
    pub(crate) fn at(&mut self, offset: u64, what: What, device: u32) -> &mut OffsetSeen {
        self.offsets.entry(offset).or_insert_with(|| OffsetSeen::new(what, device))
    }

    /// Notes a device's move past `offset` without a message.
    pub(crate) fn passed_over(&mut self, offset: u64, device: u32, now_ns: u64, returned_ns: u64) {
        note(&mut self.holes, offset, Passed::one(device, now_ns, returned_ns));
    }

    /// Notes a device's end at `offset`.
    pub(crate) fn ended(&mut self, offset: u64, device: u32, now_ns: u64, returned_ns: u64) {
        note(&mut self.ends, offset, Passed::one(device, now_ns, returned_ns));
    }

    /// The newest applied offset.
    pub(crate) fn newest(&self) -> u64 {
        self.offsets.last_key_value().map_or(0, |(offset, _)| *offset)
    }

    /// Adds another worker's sight of the same epoch. Gives the offsets at which the two workers saw other
    /// messages.
    pub(crate) fn merge(&mut self, other: Self) -> Vec<u64> {
        let mut conflicts = Vec::new();
        for (offset, theirs) in other.offsets {
            let Some(mine) = self.offsets.get_mut(&offset) else {
                self.offsets.insert(offset, theirs);
                continue;
            };
            // One of the two workers was told a wrong message, and nothing here says which worker.
            if mine.what != theirs.what {
                conflicts.push(offset);
            }
            for (tick, count) in theirs.applied {
                *mine.applied.entry(tick).or_default() += count;
            }
            for (tick, count) in theirs.applied_slowly {
                *mine.applied_slowly.entry(tick).or_default() += count;
            }
            mine.after_return += theirs.after_return;
            mine.slowest = mine.slowest.max(theirs.slowest);
            mine.slowest_reader = mine.slowest_reader.max(theirs.slowest_reader);
        }
        other.holes.into_iter().for_each(|(offset, passed)| note(&mut self.holes, offset, passed));
        other.ends.into_iter().for_each(|(offset, passed)| note(&mut self.ends, offset, passed));
        conflicts
    }
}

fn note(facts: &mut BTreeMap<u64, Passed>, offset: u64, more: Passed) {
    let join = |known: &mut Passed| {
        known.witness.devices += more.witness.devices;
        known.first_ns = known.first_ns.min(more.first_ns);
        known.returned_ns = known.returned_ns.min(more.returned_ns);
    };
    facts.entry(offset).and_modify(join).or_insert(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_past_the_bound_are_coarser_and_never_earlier() {
        let mut seen = OffsetSeen::new(What::Message(0), 0);
        for tick in 0..20_000_u64 {
            seen.apply(tick << TICK_SHIFT, 1);
        }
        assert_eq!(seen.devices(), 20_000);
        assert!(seen.applied.len() < APPLIED_TICKS_MAX + 20_000 / 64 + 2, "{}", seen.applied.len());
        assert!(seen.slowest.0 >= 19_999);
    }

    #[test]
    fn two_workers_that_saw_other_messages_at_one_offset_are_told() {
        let mut one = StreamSeen::new(0, "0e");
        let mut other = StreamSeen::new(0, "0e");
        one.at(3, What::Message(7), 1).apply(1, 1);
        other.at(3, What::Message(8), 2).apply(1, 2);
        other.at(4, What::Message(9), 2).apply(1, 2);
        assert_eq!(one.merge(other.clone()), [3]);
        assert_eq!((one.newest(), one.offsets[&3].devices()), (4, 2));
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<StreamSeen>(&text).unwrap(), one);
    }
}
