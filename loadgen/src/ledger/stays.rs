//! The stays of devices in a life of a room, put together: a relay. Pure.
//!
//! A device that was welcomed at seq 4 and holds seq 9 was owed the batches 5 to 9. Stays from 0 to 6 and from 4 to 9
//! are one range from 0 to 9: each batch was owed to some device. After stays from 0 to 3 and from 4 to 9 nobody knows
//! batch 4, because no device was there when it left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Ranges of seqs at which the life had a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stays {
    /// Begin -> end; no two overlap or touch.
    ranges: BTreeMap<u64, u64>,
    /// A device that was there when the life began.
    first: Option<u32>,
    /// A device that was there when the life ended, or the run.
    last: Option<u32>,
}

/// Devices that were there one after the other, from the beginning to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relay {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl Stays {
    /// Adds a stay from the welcome at `from` to the seq held at its end.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        let mut from = from;
        let mut to = to.max(from);
        // Ranges are apart, so those that meet the new one are the last that begin before its end.
        while let Some((begin, end)) = self.ranges.range(..=to).next_back().map(|(begin, end)| (*begin, *end))
            && end >= from
        {
            self.ranges.remove(&begin);
            from = from.min(begin);
            to = to.max(end);
        }
        self.ranges.insert(from, to);
    }

    /// Notes that a device was there when the life began.
    pub(crate) fn begins_with(&mut self, device: u32) {
        self.first.get_or_insert(device);
    }

    /// Notes that a device was there when the life ended, or the run.
    pub(crate) fn ends_with(&mut self, device: u32) {
        self.last.get_or_insert(device);
    }

    /// Adds the stays that another worker saw.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.ranges.iter().for_each(|(from, to)| self.add(*from, *to));
        self.first = self.first.or(other.first);
        self.last = self.last.or(other.last);
    }

    /// `None`: all devices were away when a batch left, or at an end of the life.
    pub(crate) fn relay(&self) -> Option<Relay> {
        let mut ranges = self.ranges.iter();
        let (from, to) = ranges.next()?;
        let is_one = ranges.next().is_none();
        is_one.then_some(Relay { from: *from, to: *to, first: self.first?, last: self.last? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(stays: &[(u64, u64)]) -> Option<(u64, u64)> {
        let mut all = Stays::default();
        stays.iter().for_each(|(from, to)| all.add(*from, *to));
        assert_eq!(all.relay(), None, "nobody was at the ends");
        let mut other = Stays::default();
        other.begins_with(3);
        other.ends_with(4);
        all.merge(&other);
        all.relay().map(|relay| (relay.from, relay.to))
    }

    #[test]
    fn stays_that_meet_are_a_relay_and_a_batch_that_nobody_was_owed_is_a_hole() {
        assert_eq!(relay(&[(0, 6), (4, 9)]), Some((0, 9)));
        assert_eq!(relay(&[(0, 4), (4, 9)]), Some((0, 9)), "no batch left in between");
        assert_eq!(relay(&[(0, 3), (4, 9)]), None);
        assert_eq!(relay(&[(0, 3), (7, 9), (2, 8)]), Some((0, 9)), "whatever the order");
        assert_eq!(relay(&[(2, 3), (5, 6), (8, 9), (0, 10)]), Some((0, 10)));
        assert_eq!(relay(&[(5, 2)]), Some((5, 5)), "a forged seq");
        assert_eq!(relay(&[]), None);
    }
}
