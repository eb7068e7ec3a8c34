//! A room as the devices of a worker saw it, in a form for the coordinator, where sights are merged.
//!
//! Devices agree on almost everything, so nothing is kept per device. A batch is kept once. Differences
//! between devices (start, end, told skips) are kept once per distinct fact, with the number of devices and
//! an example.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stays::{Relay, Stays};
use crate::ledger::ages::BatchAges;

/// The places (`Schedule::place_of`) of a batch's messages, in the batch's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<u32>", from = "Vec<u32>")]
pub(crate) enum Numbers {
    /// Consecutive places, in nearly every batch: 8 bytes instead of 4 per message.
    Run {
        first: u32,
        count: u32,
    },
    List(Box<[u32]>),
}

impl Numbers {
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Run { count, .. } => u64::from(*count),
            Self::List(places) => places.len() as u64,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (run, list) = match self {
            Self::Run { first, count } => (*first..*first + *count, [].as_slice()),
            Self::List(places) => (0..0, &**places),
        };
        run.chain(list.iter().copied())
    }
}

impl From<Vec<u32>> for Numbers {
    fn from(places: Vec<u32>) -> Self {
        let first = places.first().copied().unwrap_or(0);
        let consecutive = (first..).zip(&places).all(|(expected, place)| expected == *place);
        match u32::try_from(places.len()) {
            Ok(count) if consecutive => Self::Run { first, count },
            _ => Self::List(places.into_boxed_slice()),
        }
    }
}

impl From<Numbers> for Vec<u32> {
    fn from(numbers: Numbers) -> Self {
        numbers.iter().collect()
    }
}

/// The devices for which a fact holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Witness {
    pub(crate) devices: u64,
    /// A device's number in the run.
    pub(crate) example: u32,
}

impl Witness {
    pub(super) fn of(device: u32) -> Self {
        Self { devices: 1, example: device }
    }
}

/// The account of a type in a frame. A type without an entry had none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Place of the type in the mix.
    pub(crate) kind: u8,
    /// Messages in the frame, another run's included.
    pub(crate) messages: u64,
    pub(crate) skipped: u64,
    pub(crate) merged: u64,
    /// Growth of a counter.
    pub(crate) add: u64,
    /// Total of a counter after the growth.
    pub(crate) total: Option<u64>,
}

impl Told {
    /// Messages that entered the room: given, skipped and merged.
    pub(crate) fn account(&self) -> u64 {
        self.messages + self.skipped + self.merged
    }
}

/// The account of all batches after `after` up to `through`. A level batch has a claim about itself, a
/// refresh of all batches replaced by the refresh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) after: u64,
    pub(crate) through: u64,
    pub(crate) told: Box<[Told]>,
}

impl Claim {
    pub(crate) fn of(&self, kind: u8) -> Told {
        let said = self.told.iter().find(|told| told.kind == kind);
        said.copied().unwrap_or_else(|| Told { kind, ..Told::default() })
    }
}

/// A type in a room, by seq of a batch sent to some device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TypeSeen {
    /// Own messages of each batch with messages of any type; often none.
    pub(crate) batches: BTreeMap<u64, Numbers>,
    /// Counts of a batch's messages, where a count differs from 1.
    pub(crate) counts: BTreeMap<u64, Vec<u64>>,
    /// Messages of another run, where there are any.
    pub(crate) others: BTreeMap<u64, u64>,
}

/// A life of a room, as the devices of a worker (or, merged, of all) saw the room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomSeen {
    /// Index of the room in the run.
    pub(crate) room: u32,
    /// The `run` of every frame; empty until a welcome came.
    pub(crate) run: String,
    /// Time of the first welcome; 0: none came.
    pub(crate) first_ns: u64,
    /// Seq of the newest batch.
    pub(crate) last_seq: u64,
    /// Time at which the first device had the newest batch; 0: none came.
    pub(crate) last_ns: u64,
    /// By place of the type in the mix.
    pub(crate) types: Vec<TypeSeen>,
    /// Devices by the seq of their welcome.
    pub(crate) starts: BTreeMap<u64, Witness>,
    /// Devices by their seq at the end.
    pub(crate) ends: BTreeMap<u64, Witness>,
    pub(crate) stays: Stays,
    /// Claims of frames. The claim of a level batch has one device of each worker as witness.
    #[serde(with = "pairs")]
    pub(crate) claims: BTreeMap<Claim, Witness>,
    /// Ages of the kept batches, by seq: figures, and no part of the verdict.
    pub(crate) ages: BTreeMap<u64, BatchAges>,
}

impl RoomSeen {
    /// A room without sights, of a mix of `types` types.
    pub(crate) fn new(room: u32, types: usize) -> Self {
        Self { room, types: vec![TypeSeen::default(); types], ..Self::default() }
    }

    /// True if the life had a device from the welcome to the end: then missing messages can be judged.
    pub(crate) fn is_watched(&self) -> bool {
        !self.starts.is_empty() && !self.ends.is_empty()
    }

    /// Has a relay of devices stand for a witness, where no device was there throughout: in a rolling restart each
    /// device is away once.
    pub(crate) fn rely_on_relay(&mut self) {
        if self.is_watched() {
            return;
        }
        if let Some(Relay { from, to, first, last }) = self.stays.relay() {
            self.started(from, first);
            self.ended(to, last);
        }
    }

    /// Notes a batch. Its time is that of the first device: a node that stood still gives its devices the last batches
    /// of a run long after the end of the run.
    pub(crate) fn heard(&mut self, seq: u64, now_ns: u64) {
        if seq > self.last_seq || self.last_ns == 0 {
            self.last_ns = now_ns;
        } else if seq == self.last_seq {
            self.last_ns = self.last_ns.min(now_ns);
        }
        self.last_seq = self.last_seq.max(seq);
    }

    /// Notes a device's welcome at `seq`.
    pub(crate) fn started(&mut self, seq: u64, device: u32) {
        note(&mut self.starts, seq, Witness::of(device));
    }

    /// Notes a device's end at `seq`.
    pub(crate) fn ended(&mut self, seq: u64, device: u32) {
        note(&mut self.ends, seq, Witness::of(device));
    }

    /// Notes a claim told to a device.
    pub(crate) fn claimed(&mut self, claim: Claim, device: u32) {
        note(&mut self.claims, claim, Witness::of(device));
    }

    /// Adds another worker's sight of the same room. Gives the seqs of batches seen differently by the
    /// two workers.
    pub(crate) fn merge(&mut self, other: Self) -> Vec<u64> {
        let mut conflicts = Vec::new();
        // A room just made for the merge has no run yet.
        if self.run.is_empty() {
            self.run = other.run;
            self.first_ns = other.first_ns;
        }
        self.first_ns = self.first_ns.min(other.first_ns);
        if other.last_ns > 0 {
            self.heard(other.last_seq, other.last_ns);
        }
        for (mine, other) in self.types.iter_mut().zip(other.types) {
            for (seq, numbers) in other.batches {
                if *mine.batches.entry(seq).or_insert_with(|| numbers.clone()) != numbers {
                    conflicts.push(seq);
                }
            }
            mine.counts.extend(other.counts);
            mine.others.extend(other.others);
        }
        other.starts.into_iter().for_each(|(seq, witness)| note(&mut self.starts, seq, witness));
        other.ends.into_iter().for_each(|(seq, witness)| note(&mut self.ends, seq, witness));
        other.claims.into_iter().for_each(|(claim, witness)| note(&mut self.claims, claim, witness));
        self.stays.merge(&other.stays);
        for (seq, ages) in other.ages {
            self.ages.entry(seq).or_default().merge(&ages);
        }
        // Two types of one batch may both differ.
        conflicts.dedup();
        conflicts
    }
}

fn note<K: Ord>(facts: &mut BTreeMap<K, Witness>, fact: K, more: Witness) {
    facts.entry(fact).and_modify(|known| known.devices += more.devices).or_insert(more);
}

/// A map as a list of pairs, because JSON has only numbers and text as keys.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Claim, Witness};

    type Claims = BTreeMap<Claim, Witness>;

    pub(super) fn serialize<S: Serializer>(claims: &Claims, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(claims)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Claims, D::Error> {
        Ok(Vec::<(Claim, Witness)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_the_time_of_its_first_device_and_of_its_first_worker() {
        let heard = |batches: &[(u64, u64)]| {
            let mut seen = RoomSeen::new(0, 1);
            batches.iter().for_each(|(seq, now_ns)| seen.heard(*seq, *now_ns));
            seen
        };
        let mut mine = heard(&[(1, 10), (2, 20), (1, 600), (2, 700)]);
        assert_eq!((mine.last_seq, mine.last_ns), (2, 20));
        mine.merge(heard(&[(2, 15), (1, 900)]));
        assert_eq!(mine.last_ns, 15);
        mine.merge(heard(&[]));
        mine.merge(heard(&[(1, 5)]));
        assert_eq!(mine.last_ns, 15);
        mine.merge(heard(&[(3, 40)]));
        assert_eq!(mine.last_ns, 40);
    }
}
