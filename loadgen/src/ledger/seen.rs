//! What the devices of one worker saw of one room, in a form that can be sent to the coordinator and merged there.
//!
//! Devices agree on almost everything, so nothing is kept per device: a batch is kept once, and what sets devices
//! apart (where they began, where they ended, what they were told they missed) is kept once per distinct fact, with
//! the number of devices it holds for and one of them as a witness.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ledger::ages::BatchAges;

/// The places (see `Schedule::place_of`) of one batch's messages, in the batch's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<u32>", from = "Vec<u32>")]
pub(crate) enum Numbers {
    /// Consecutive ones, as nearly always.
    Run {
        /// The first.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Any others.
    List(Box<[u32]>),
}

impl Numbers {
    /// How many.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Run { count, .. } => u64::from(*count),
            Self::List(places) => places.len() as u64,
        }
    }

    /// All of them, in order.
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

/// How many devices a fact holds for, and one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Witness {
    /// How many.
    pub(crate) devices: u64,
    /// One of them, numbered over the whole run.
    pub(crate) example: u32,
}

impl Witness {
    fn join(slot: Option<&mut Self>, more: Self) -> Option<Self> {
        match slot {
            Some(known) => {
                known.devices += more.devices;
                None
            }
            None => Some(more),
        }
    }
}

/// What one frame says of one type of the mix. Nothing: it says nothing of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The type's place in the mix.
    pub(crate) kind: u8,
    /// Messages in it, another run's among them.
    pub(crate) messages: u64,
    /// Messages told as skipped.
    pub(crate) skipped: u64,
    /// Messages told as merged.
    pub(crate) merged: u64,
    /// What a counter grew by.
    pub(crate) add: u64,
    /// Where the counter stands now.
    pub(crate) total: Option<u64>,
}

impl Told {
    /// What entered the room: given, skipped and merged.
    #[must_use]
    pub(crate) fn account(&self) -> u64 {
        self.messages + self.skipped + self.merged
    }
}

/// "After `after` up to `through`, this is what there was." A level batch says it of itself, a refresh of all it replaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// The last batch before.
    pub(crate) after: u64,
    /// The last batch that it speaks of.
    pub(crate) through: u64,
    /// By type; those of which nothing is said had nothing.
    pub(crate) told: Box<[Told]>,
}

impl Claim {
    /// What it says of a type.
    #[must_use]
    pub(crate) fn of(&self, kind: u8) -> Told {
        let said = self.told.iter().find(|told| told.kind == kind);
        said.copied().unwrap_or_else(|| Told { kind, ..Told::default() })
    }
}

/// One type in one room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TypeSeen {
    /// Our messages of each batch with messages that some device was sent, by seq; often none.
    #[serde(with = "pairs")]
    pub(crate) batches: BTreeMap<u64, Numbers>,
    /// What each message of a batch stands for; left out where all stand for one.
    #[serde(with = "pairs")]
    pub(crate) counts: BTreeMap<u64, Vec<u64>>,
    /// How many messages of another run a batch holds, where it holds any.
    #[serde(with = "pairs")]
    pub(crate) others: BTreeMap<u64, u64>,
}

/// One room, as the devices of one worker (or, merged, of all) saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomSeen {
    /// Its index in the run.
    pub(crate) room: u32,
    /// The run that every frame named; empty until a welcome came.
    pub(crate) run: String,
    /// What was seen of each type of the mix.
    pub(crate) types: Vec<TypeSeen>,
    /// The seqs devices were welcomed at.
    #[serde(with = "pairs")]
    pub(crate) starts: BTreeMap<u64, Witness>,
    /// The seqs devices had reached at the end.
    #[serde(with = "pairs")]
    pub(crate) ends: BTreeMap<u64, Witness>,
    /// What frames said of the account. Of level batches, only the first device of each worker is witness.
    #[serde(with = "pairs")]
    pub(crate) claims: BTreeMap<Claim, Witness>,
    /// When devices had each batch, of those that are kept, by seq. Nothing is judged by it.
    #[serde(with = "pairs")]
    pub(crate) ages: BTreeMap<u64, BatchAges>,
}

impl RoomSeen {
    /// Room `room`, of which nothing was seen yet, with so many types.
    #[must_use]
    pub(crate) fn new(room: u32, types: usize) -> Self {
        Self { room, types: vec![TypeSeen::default(); types], ..Self::default() }
    }

    /// A device was welcomed at `seq`.
    pub(crate) fn started(&mut self, seq: u64, device: u32) {
        note(&mut self.starts, seq, Witness { devices: 1, example: device });
    }

    /// A device ended at `seq`.
    pub(crate) fn ended(&mut self, seq: u64, device: u32) {
        note(&mut self.ends, seq, Witness { devices: 1, example: device });
    }

    /// A device was told this.
    pub(crate) fn claimed(&mut self, claim: Claim, device: u32) {
        note(&mut self.claims, claim, Witness { devices: 1, example: device });
    }

    /// Takes in what another worker saw of the same room. Gives back the seqs that the two saw differently.
    pub(crate) fn merge(&mut self, other: Self) -> Vec<u64> {
        let mut conflicts = Vec::new();
        if self.run.is_empty() {
            self.run = other.run;
        }
        for (mine, other) in self.types.iter_mut().zip(other.types) {
            for (seq, numbers) in other.batches {
                match mine.batches.get(&seq) {
                    Some(known) if *known != numbers => conflicts.push(seq),
                    Some(_) => {}
                    None => drop(mine.batches.insert(seq, numbers)),
                }
            }
            mine.counts.extend(other.counts);
            mine.others.extend(other.others);
        }
        for (seq, witness) in other.starts {
            note(&mut self.starts, seq, witness);
        }
        for (seq, witness) in other.ends {
            note(&mut self.ends, seq, witness);
        }
        for (claim, witness) in other.claims {
            note(&mut self.claims, claim, witness);
        }
        for (seq, ages) in other.ages {
            self.ages.entry(seq).or_default().merge(&ages);
        }
        conflicts.dedup();
        conflicts
    }
}

fn note<K: Ord>(facts: &mut BTreeMap<K, Witness>, fact: K, witness: Witness) {
    if let Some(new) = Witness::join(facts.get_mut(&fact), witness) {
        facts.insert(fact, new);
    }
}

/// Maps as lists of pairs: JSON has only text as keys.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::ledger) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(in crate::ledger) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
