//! A life of a room in the sight of a worker's devices: copies, ledger, and the account so far. Pure.

use std::collections::BTreeSet;

use crate::devices::copies::{Copies, Said};
use crate::ledger::{Claim, Kind, Numbers, RoomSeen};

#[derive(Debug)]
pub(super) struct WatchedRoom {
    pub(super) name: String,
    pub(super) copies: Copies,
    pub(super) seen: RoomSeen,
    /// Messages of each type given, skipped and merged so far; of a counter the total.
    pub(super) accounted: Vec<u64>,
    /// The batches in `accounted`.
    accounted_seqs: BTreeSet<u64>,
    /// The newest batch with an account of this run's types.
    pub(super) newest_seq: u64,
}

impl WatchedRoom {
    /// The life at place `life` among the worker's lives, without devices.
    pub(super) fn new(name: String, life: usize, seen: RoomSeen) -> Self {
        let accounted = vec![0; seen.types.len()];
        let copies = Copies::new((seen.room, u32::try_from(life).unwrap_or(u32::MAX)));
        Self { name, copies, seen, accounted, accounted_seqs: BTreeSet::new(), newest_seq: 0 }
    }

    /// Notes the account told to a device at `after`.
    pub(super) fn claim(&mut self, after: u64, said: &Said, device: u32) {
        if !said.told.is_empty() {
            self.newest_seq = self.newest_seq.max(said.seq);
        }
        // Only a frame about one batch counts here, and once: frames about several batches overlap.
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

/// The messages of a type in a batch.
#[derive(Debug, Default, Clone)]
pub(super) struct OursOfType {
    /// Places of this run's messages.
    pub(super) places: Vec<u32>,
    /// The count of each.
    pub(super) counts: Vec<u64>,
    /// Messages of another run.
    pub(super) others: u64,
}

/// A device's batch against the others' batch of equal seq: the broken promise, and the messages
/// concerned.
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
        // Messages more than the others had, each one once.
        (0, 0) => (Kind::Foreign, 1),
        (0, repeated) => (Kind::Twice, repeated),
        (lost, _) => (Kind::Lost, lost),
    }
}
