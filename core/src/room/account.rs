//! The account of a room: for each type, the fate of every message taken in, and the content of the batches
//! after any recent seq. A device with missed batches is told exactly how much they held.

use std::collections::BTreeMap;

use super::cumulative::Cumulative;
use super::id::{Seq, TypeName};
use super::message::ShedReason;
use crate::limits::{ACCOUNT_SEQS_MAX, ROOM_TYPES_MAX};
use crate::node_proto as pb;

/// The account of a room. For each type: accepted = delivered + merged + shed (by reason) + waiting.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) columns: BTreeMap<TypeName, Column>,
    /// Columns within the bound. Invariant: those that are not `reserved`.
    bounded: usize,
    /// The first seq for which `since` is exact.
    floor: Seq,
}

/// The part of the account for a type.
#[derive(Debug, Default)]
pub(super) struct Column {
    /// Messages taken in.
    pub(super) accepted: u64,
    /// Messages taken in, and dropped on purpose later, by reason.
    pub(super) shed: [u64; ShedReason::ALL.len()],
    /// Messages dropped on purpose instead of being taken in, by reason.
    pub(super) refused: [u64; ShedReason::ALL.len()],
    /// Devices account for the messages in another way: by offset if reliable, by total if counters.
    pub(super) apart: bool,
    /// The column stands beside the bound.
    reserved: bool,
    pub(super) delivered: Cumulative,
    pub(super) merged: Cumulative,
    skipped: Cumulative,
}

/// The fate of a type's messages with one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Left {
    /// Messages in the batch.
    pub(super) delivered: u64,
    /// Messages merged into others of the batch.
    pub(super) merged: u64,
    /// Messages shed since the batch before.
    pub(super) skipped: u64,
}

/// The content of the batches after some seq, by type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed {
    /// Messages in the batches, and messages shed meanwhile.
    pub skipped: Vec<(TypeName, u64)>,
    /// Messages merged into others of the batches.
    pub merged: Vec<(TypeName, u64)>,
}

impl Account {
    /// The column of a type, new if need be; `None` if the room accounts for the most types allowed.
    pub(super) fn column(&mut self, type_name: &TypeName) -> Option<&mut Column> {
        if !self.columns.contains_key(type_name) {
            if self.bounded >= ROOM_TYPES_MAX {
                return None;
            }
            self.bounded += 1;
            self.columns.insert(type_name.clone(), Column::default());
        }
        self.columns.get_mut(type_name)
    }

    /// The column of a type beside the bound, new if need be. Such types are few: publishers can't make up
    /// their names.
    pub(super) fn reserved_column(&mut self, type_name: &TypeName) -> &mut Column {
        if !self.columns.contains_key(type_name) {
            self.columns.insert(type_name.clone(), Column { reserved: true, ..Column::default() });
        }
        let column = self.columns.get_mut(type_name).expect("just made");
        self.bounded -= usize::from(!column.reserved);
        column.reserved = true;
        column
    }

    /// Returns true if a type has a column, or room for one.
    pub(super) fn admits(&self, type_name: &TypeName) -> bool {
        self.bounded < ROOM_TYPES_MAX || self.columns.contains_key(type_name)
    }

    /// The column of a type of which a message was refused; `None` if the type has no column and gets none.
    pub(super) fn column_of_refused(&mut self, type_name: &TypeName) -> Option<&mut Column> {
        // Types that are only ever refused take half of the columns at most, or strange names would keep real
        // types out.
        if self.bounded >= ROOM_TYPES_MAX / 2 {
            return self.columns.get_mut(type_name);
        }
        self.column(type_name)
    }

    /// Adds the fate of a type's messages with the batch `seq`.
    pub(super) fn record(&mut self, seq: Seq, type_name: &TypeName, left: Left) {
        let Some(column) = self.columns.get_mut(type_name) else { return };
        for (cumulative, more) in [
            (&mut column.delivered, left.delivered),
            (&mut column.merged, left.merged),
            (&mut column.skipped, left.skipped),
        ] {
            cumulative.record(seq, cumulative.total() + more);
        }
    }

    /// Lets go of rows without use to any member. `head` is the newest seq. Returns the new floor if the
    /// floor has moved.
    pub(super) fn trim(&mut self, head: Seq) -> Option<Seq> {
        // In strides, so that a batch does not touch every column of its room.
        let floor = Seq(head.0.saturating_sub(ACCOUNT_SEQS_MAX));
        if floor.0 < self.floor.0 + ACCOUNT_SEQS_MAX / 8 {
            return None;
        }
        self.floor = floor;
        for column in self.columns.values_mut() {
            column.delivered.forget_before(floor);
            column.merged.forget_before(floor);
            column.skipped.forget_before(floor);
        }
        Some(floor)
    }

    /// The account for the next home of the room, which has nothing waiting.
    pub(super) fn handed(&self) -> Vec<pb::AccountColumn> {
        let column = |(name, column): (&TypeName, &Column)| pb::AccountColumn {
            r#type: name.as_str().into(),
            accepted: column.accepted,
            shed: column.shed.to_vec(),
            refused: column.refused.to_vec(),
            is_apart: column.apart,
            is_reserved: column.reserved,
            delivered: Some(column.delivered.handed()),
            merged: Some(column.merged.handed()),
            skipped: Some(column.skipped.handed()),
        };
        self.columns.iter().map(column).collect()
    }

    /// The first seq for which `since` is exact.
    pub(super) fn floor(&self) -> Seq {
        self.floor
    }

    /// The account of a former home, as of the batch `head`. `None`: no home says so.
    pub(super) fn of_handed(said: Vec<pb::AccountColumn>, floor: Seq, head: Seq) -> Option<Self> {
        let mut account = Self { floor, ..Self::default() };
        // Reserved columns are as few as configured types, and stand beside the bound.
        if said.len() > 2 * ROOM_TYPES_MAX || floor > head {
            return None;
        }
        for said in said {
            let column = Column {
                accepted: said.accepted,
                shed: said.shed.try_into().ok()?,
                refused: said.refused.try_into().ok()?,
                apart: said.is_apart,
                reserved: said.is_reserved,
                delivered: Cumulative::of_handed(said.delivered, head)?,
                merged: Cumulative::of_handed(said.merged, head)?,
                skipped: Cumulative::of_handed(said.skipped, head)?,
            };
            let shed = column.shed.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count))?;
            let left = column.delivered.total() + column.merged.total();
            // Nothing waits in a room that is handed over.
            if left.checked_add(shed) != Some(column.accepted) {
                return None;
            }
            account.bounded += usize::from(!column.reserved);
            if account.columns.insert(TypeName::parse(&said.r#type).ok()?, column).is_some() {
                return None;
            }
        }
        Some(account)
    }

    /// The content of the batches after `seq`; `None` if the account reaches back less far.
    pub(super) fn since(&self, seq: Seq) -> Option<Missed> {
        if seq < self.floor {
            return None;
        }
        let mut missed = Missed::default();
        // Reliable messages and counters are made good by carries and totals: no device lacks them for good.
        for (type_name, column) in self.columns.iter().filter(|(_, column)| !column.apart) {
            let skipped = column.delivered.since(seq) + column.skipped.since(seq);
            let merged = column.merged.since(seq);
            if skipped > 0 {
                missed.skipped.push((type_name.clone(), skipped));
            }
            if merged > 0 {
                missed.merged.push((type_name.clone(), merged));
            }
        }
        Some(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> TypeName {
        TypeName::parse("chat").unwrap()
    }

    #[test]
    fn what_a_member_missed_is_exact_between_any_two_seqs() {
        let mut account = Account::default();
        account.column(&chat()).unwrap();
        for seq in 1..=10 {
            account.record(Seq(seq), &chat(), Left { delivered: seq - 1, merged: 1, skipped: 1 });
        }
        let missed = account.since(Seq(7)).unwrap();
        assert_eq!(missed.skipped, [(chat(), 8 + 9 + 10)]);
        assert_eq!(missed.merged, [(chat(), 3)]);
        assert_eq!(account.since(Seq(10)), Some(Missed::default()));
    }

    #[test]
    fn beyond_its_reach_it_says_so_instead_of_guessing() {
        let mut account = Account::default();
        account.column(&chat()).unwrap();
        for seq in 1..=ACCOUNT_SEQS_MAX * 2 {
            account.record(Seq(seq), &chat(), Left { delivered: 1, ..Left::default() });
            account.trim(Seq(seq));
        }
        assert_eq!(account.since(Seq(1)), None);
        let missed = account.since(Seq(ACCOUNT_SEQS_MAX * 2 - 100)).unwrap();
        assert_eq!(missed.skipped, [(chat(), 100)]);
    }

    #[test]
    fn a_room_accounts_for_no_more_types_than_its_bound() {
        let mut account = Account::default();
        for n in 0..ROOM_TYPES_MAX {
            assert!(account.column(&TypeName::parse(&format!("t{n}")).unwrap()).is_some());
        }
        assert!(account.column(&chat()).is_none());
        assert!(account.column(&TypeName::parse("t0").unwrap()).is_some());
        account.reserved_column(&TypeName::parse("coupon").unwrap());
        assert!(!account.admits(&chat()), "a reserved column frees none");
        account.reserved_column(&TypeName::parse("t0").unwrap());
        assert!(account.column(&chat()).is_some(), "t0 has left the bound");
    }
}
