//! One life of a room as a worker's devices see it: its copies, its ledger, and what is accounted for so far. Pure.

use std::collections::BTreeSet;

use crate::devices::copies::{Copies, Said};
use crate::ledger::{Claim, Kind, Numbers, RoomSeen};

/// One life in memory of one room.
#[derive(Debug)]
pub(super) struct WatchedRoom {
    pub(super) name: String,
    pub(super) copies: Copies,
    pub(super) seen: RoomSeen,
    /// What is accounted for of each type: messages given, skipped and merged; of a counter its total.
    pub(super) accounted: Vec<u64>,
    /// The batches in that.
    accounted_seqs: BTreeSet<u64>,
    /// The newest batch that says anything of our types.
    pub(super) newest_seq: u64,
}

impl WatchedRoom {
    /// The life at this place among the worker's, in which nobody is yet.
    pub(super) fn new(name: String, life: usize, seen: RoomSeen) -> Self {
        let accounted = vec![0; seen.types.len()];
        let accounted_seqs = BTreeSet::new();
        let copies = Copies::new((seen.room, u32::try_from(life).unwrap_or(u32::MAX)));
        Self { name, copies, seen, accounted, accounted_seqs, newest_seq: 0 }
    }

    /// A device that held `after` was told this of what came then.
    pub(super) fn claim(&mut self, after: u64, said: &Said, device: u32) {
        if !said.told.is_empty() {
            self.newest_seq = self.newest_seq.max(said.seq);
        }
        if after + 1 == said.seq && self.accounted_seqs.insert(said.seq) {
            for told in &said.told {
                let accounted = &mut self.accounted[usize::from(told.kind)];
                *accounted =
                    told.total.map_or_else(|| *accounted + told.account(), |total| total.max(*accounted));
            }
        }
        self.seen.claimed(Claim { after, through: said.seq, told: said.told.clone() }, device);
    }
}

/// What a batch holds of ours, by type: places, what each stands for, and how many of another run.
#[derive(Debug, Default, Clone)]
pub(super) struct OursOfType {
    pub(super) places: Vec<u32>,
    pub(super) counts: Vec<u64>,
    pub(super) others: u64,
}

pub(super) struct Ours(pub(super) Vec<OursOfType>);

impl Ours {
    pub(super) fn new(types: usize) -> Self {
        Self(vec![OursOfType::default(); types])
    }

    pub(super) fn add(&mut self, kind: u8, place: u32, count: u64) {
        let of_type = &mut self.0[usize::from(kind)];
        of_type.places.push(place);
        of_type.counts.push(count);
    }
}

/// How a device's batch differs from what others had under its seq, and by how many messages.
pub(super) fn difference(known: &Numbers, numbers: &Numbers) -> (Kind, u64) {
    let sorted = |numbers: &Numbers| {
        let mut places: Vec<u32> = numbers.iter().collect();
        places.sort_unstable();
        places
    };
    let mut known = sorted(known);
    let mine = sorted(numbers);
    if known == mine {
        return (Kind::OutOfOrder, 1);
    }
    known.retain(|place| mine.binary_search(place).is_err());
    let repeated = mine.windows(2).filter(|pair| pair[0] == pair[1]).count();
    match (known.len() as u64, repeated as u64) {
        (0, 0) => (Kind::Foreign, 1),
        (0, repeated) => (Kind::Twice, repeated),
        (lost, _) => (Kind::Lost, lost),
    }
}
