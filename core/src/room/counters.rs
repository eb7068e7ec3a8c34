//! Counters: published increments are summed, and a batch brings each increment with the exact total.

use std::collections::BTreeMap;

use super::cumulative::Cumulative;
use super::id::{Seq, TypeName};
use crate::limits::{COUNTER_TYPES_MAX, INTEGER_MAX};
use crate::node_proto as pb;

/// The growth of a counter over a batch, or over all batches missed by a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterChange {
    /// The counter's message type.
    pub type_name: TypeName,
    /// The increment, at least 1.
    pub add: u64,
    /// The total after the increment, at most `INTEGER_MAX`.
    pub total: u64,
}

/// The counters of a room, at most `COUNTER_TYPES_MAX`. Devices are told totals as of the newest batch.
#[derive(Debug, Default)]
pub(super) struct Counters(BTreeMap<TypeName, Counter>);

#[derive(Debug, Default)]
struct Counter {
    told: Cumulative,
    /// Increments since the newest batch.
    waiting: u64,
    /// Counter messages behind `waiting`, for the account.
    messages: u64,
}

impl Counters {
    /// Adds `count` to a counter and returns the part added. The total saturates at `INTEGER_MAX`. `None`:
    /// the room has no place for another counter, and nothing changed.
    pub(super) fn add(&mut self, type_name: &TypeName, count: u64) -> Option<u64> {
        // `entry` would clone the name for each like.
        if !self.0.contains_key(type_name) {
            if self.0.len() >= COUNTER_TYPES_MAX {
                return None;
            }
            self.0.insert(type_name.clone(), Counter::default());
        }
        let counter = self.0.get_mut(type_name)?;
        let room_left = INTEGER_MAX - counter.told.total() - counter.waiting;
        let added = count.min(room_left);
        counter.waiting += added;
        counter.messages += 1;
        Some(added)
    }

    /// The counter messages before the next batch, by type.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&TypeName, u64)> {
        self.0.iter().map(|(name, counter)| (name, counter.messages)).filter(|(_, messages)| *messages > 0)
    }

    /// The counter messages of a type before the next batch.
    pub(super) fn waiting_of(&self, type_name: &TypeName) -> u64 {
        self.0.get(type_name).map_or(0, |counter| counter.messages)
    }

    /// Moves all waiting increments into the totals of batch `seq`, and returns the changes in order of type.
    pub(super) fn cut(&mut self, seq: Seq) -> Vec<CounterChange> {
        let mut changes = Vec::new();
        for (type_name, counter) in &mut self.0 {
            counter.messages = 0;
            if counter.waiting == 0 {
                continue;
            }
            let add = std::mem::take(&mut counter.waiting);
            let total = counter.told.total() + add;
            counter.told.record(seq, total);
            changes.push(CounterChange { type_name: type_name.clone(), add, total });
        }
        changes
    }

    /// The changes of all batches after `seq`, in order of type.
    pub(super) fn since(&self, seq: Seq) -> Vec<CounterChange> {
        let changes = self.0.iter().map(|(type_name, counter)| CounterChange {
            type_name: type_name.clone(),
            add: counter.told.since(seq),
            total: counter.told.total(),
        });
        changes.filter(|change| change.add > 0).collect()
    }

    /// The totals above 0, as told to devices.
    pub(super) fn totals(&self) -> impl Iterator<Item = (&TypeName, u64)> {
        self.0
            .iter()
            .map(|(type_name, counter)| (type_name, counter.told.total()))
            .filter(|(_, total)| *total > 0)
    }

    /// The totals that grew behind `since`, for the node that would take the room over. 0: all of them.
    pub(super) fn kept(&self, since: Seq) -> Vec<pb::KeptTotal> {
        // The past of a total does not reach back to the first batch.
        let has_grown = |name: &&TypeName| since == Seq(0) || self.0[name.as_str()].told.since(since) > 0;
        let total = |(name, total): (&TypeName, u64)| {
            has_grown(&name).then(|| pb::KeptTotal { r#type: name.as_str().into(), total })
        };
        self.totals().filter_map(total).collect()
    }

    /// The totals for the next home of the room, which has nothing waiting.
    pub(super) fn handed(&self) -> Vec<pb::CounterTotal> {
        let total = |(name, counter): (&TypeName, &Counter)| pb::CounterTotal {
            r#type: name.as_str().into(),
            told: Some(counter.told.handed()),
        };
        self.0.iter().map(total).collect()
    }

    /// The totals of a former home, as of the batch `head`. `None`: no home says so.
    pub(super) fn of_handed(said: Vec<pb::CounterTotal>, head: Seq) -> Option<Self> {
        if said.len() > COUNTER_TYPES_MAX {
            return None;
        }
        let counter = |said: pb::CounterTotal| {
            let told = Cumulative::of_handed(said.told, head)?;
            Some((TypeName::parse(&said.r#type).ok()?, Counter { told, ..Counter::default() }))
        };
        Some(Self(said.into_iter().map(counter).collect::<Option<_>>()?))
    }

    /// Frees the past before `floor`. Later calls of `since` name `floor` or a newer seq.
    pub(super) fn forget_before(&mut self, floor: Seq) {
        for counter in self.0.values_mut() {
            counter.told.forget_before(floor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like() -> TypeName {
        TypeName::parse("like").unwrap()
    }

    #[test]
    fn increments_are_summed_and_the_total_is_exact() {
        let mut counters = Counters::default();
        assert_eq!(counters.add(&like(), 3), Some(3));
        assert_eq!(counters.add(&like(), 4), Some(4));
        assert_eq!(counters.cut(Seq(1)), [CounterChange { type_name: like(), add: 7, total: 7 }]);
        assert!(counters.cut(Seq(2)).is_empty(), "what was told is not told again");
        counters.add(&like(), 1);
        assert_eq!(counters.cut(Seq(3)), [CounterChange { type_name: like(), add: 1, total: 8 }]);
        assert_eq!(counters.since(Seq(1)), [CounterChange { type_name: like(), add: 1, total: 8 }]);
    }

    #[test]
    fn a_total_saturates_at_what_travels() {
        let mut counters = Counters::default();
        counters.add(&like(), INTEGER_MAX - 1);
        counters.cut(Seq(1));
        assert_eq!(counters.add(&like(), 5), Some(1));
        assert_eq!(counters.cut(Seq(2)), [CounterChange { type_name: like(), add: 1, total: INTEGER_MAX }]);
    }

    #[test]
    fn one_counter_too_many_changes_nothing() {
        let mut counters = Counters::default();
        for n in 0..COUNTER_TYPES_MAX {
            assert!(counters.add(&TypeName::parse(&format!("c{n}")).unwrap(), 1).is_some());
        }
        assert_eq!(counters.add(&like(), 1), None);
        assert_eq!(counters.cut(Seq(1)).len(), COUNTER_TYPES_MAX);
    }
}
