//! The slots as the log holds them, for metrics and `/readyz`. Pure.

use std::time::Instant;

use roomcast_core::cluster::{SLOTS, Slot};
use roomcast_core::limits::LOG_SIZE_INTERVAL;

use super::orders::{LogNews, LogOrder};
use crate::store::health::LogTally;

/// The standing of every slot at this node.
#[derive(Debug)]
pub(super) struct Holds {
    slots: [SlotHold; SLOTS],
    tally: LogTally,
    /// The time of the last order.
    ordered_at: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct SlotHold {
    standing: HoldStanding,
    /// True: the last operation failed, or its answer was lost.
    is_troubled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum HoldStanding {
    #[default]
    Out,
    Claiming,
    Held,
}

impl Holds {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: [SlotHold::default(); SLOTS], tally: LogTally::default(), ordered_at: now }
    }

    pub(super) fn ordered(&mut self, order: &LogOrder, now: Instant) {
        let hold = &mut self.slots[order.slot().index()];
        match order {
            LogOrder::Claim { .. } => {
                self.ordered_at = now;
                hold.standing = HoldStanding::Claiming;
            }
            LogOrder::Release { .. } => *hold = SlotHold::default(),
            LogOrder::Reclaim { .. } | LogOrder::Renew { .. } => {}
        }
    }

    pub(super) fn told(&mut self, news: &LogNews) {
        let hold = &mut self.slots[news.slot().index()];
        match news {
            LogNews::Claimed { .. } => {
                match std::mem::replace(&mut hold.standing, HoldStanding::Held) {
                    HoldStanding::Claiming => self.tally.claims_ordered += 1,
                    HoldStanding::Held | HoldStanding::Out => self.tally.claims_reopened += 1,
                }
                hold.is_troubled = false;
            }
            LogNews::Fenced { .. } => {
                self.tally.fenced += 1;
                *hold = SlotHold::default();
            }
            LogNews::Proven { .. } => hold.is_troubled = false,
        }
    }

    pub(super) fn troubled(&mut self, slot: Slot) {
        self.slots[slot.index()].is_troubled = true;
    }

    pub(super) fn well(&mut self, slot: Slot) {
        self.slots[slot.index()].is_troubled = false;
    }

    pub(super) fn is_troubled(&self, slot: Slot) -> bool {
        self.slots[slot.index()].is_troubled
    }

    /// The slots with a trouble, rising.
    pub(super) fn troubled_slots(&self) -> Vec<Slot> {
        Slot::all().filter(|slot| self.is_troubled(*slot)).collect()
    }

    /// True if no slot has a trouble.
    pub(super) fn are_well(&self) -> bool {
        self.slots.iter().all(|hold| !hold.is_troubled)
    }

    /// The slots that are wanted and not held, as a sentence, once orders had their time.
    pub(super) fn late(&self, now: Instant) -> Option<String> {
        let claiming = self.count(HoldStanding::Claiming);
        let is_late = now.saturating_duration_since(self.ordered_at) > LOG_SIZE_INTERVAL;
        (claiming > 0 && is_late).then(|| format!("{claiming} slots are claimed and not held yet"))
    }

    pub(super) fn tally(&self, out_of_term: u64) -> LogTally {
        LogTally {
            held: self.count(HoldStanding::Held),
            claiming: self.count(HoldStanding::Claiming),
            out_of_term,
            ..self.tally
        }
    }

    fn count(&self, standing: HoldStanding) -> u64 {
        self.slots.iter().filter(|hold| hold.standing == standing).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use roomcast_core::cluster::Term;

    #[test]
    fn slots_are_counted_as_they_are_ordered_claimed_and_lost() {
        let now = clock::now().instant;
        let mut holds = Holds::new(now);
        let term = Term::default();
        for slot in [Slot(1), Slot(2)] {
            holds.ordered(&LogOrder::Claim { slot, heard: term }, now);
        }
        holds.told(&LogNews::Claimed { slot: Slot(1), term, behind: term });
        holds.told(&LogNews::Claimed { slot: Slot(1), term, behind: term });
        let tally = holds.tally(0);
        assert_eq!((tally.held, tally.claiming), (1, 1));
        assert_eq!((tally.claims_ordered, tally.claims_reopened, tally.fenced), (1, 1, 0));
        assert_eq!(holds.late(now), None);
        let late = holds.late(now + LOG_SIZE_INTERVAL * 2);
        assert_eq!(late.as_deref(), Some("1 slots are claimed and not held yet"));
        holds.told(&LogNews::Fenced { slot: Slot(1), by: term, node: "n2".to_owned() });
        holds.ordered(&LogOrder::Release { slot: Slot(2) }, now);
        let tally = holds.tally(3);
        assert_eq!((tally.held, tally.claiming, tally.fenced, tally.out_of_term), (0, 0, 1, 3));
    }

    #[test]
    fn one_troubled_slot_is_a_trouble_until_it_is_well_again() {
        let mut holds = Holds::new(clock::now().instant);
        holds.troubled(Slot(7));
        assert_eq!(holds.troubled_slots(), [Slot(7)]);
        assert!(!holds.are_well());
        holds.well(Slot(7));
        assert!(holds.are_well());
        assert_eq!(holds.troubled_slots(), []);
    }
}
