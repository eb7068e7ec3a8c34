//! What became of everything a room took in, by type; and what the batches after any recent seq held, so that a
//! device can be told exactly what it was not sent.

use std::collections::BTreeMap;

use super::cumulative::Cumulative;
use super::id::{Seq, TypeName};
use super::message::ShedReason;
use crate::limits::{ACCOUNT_SEQS_MAX, ROOM_TYPES_MAX};

/// The room's account. For each type: accepted = delivered + merged + shed (by reason) + waiting.
#[derive(Debug, Default)]
pub struct Account {
    columns: BTreeMap<TypeName, Column>,
    /// `since` is exact for every seq from here on.
    floor: Seq,
}

/// One type's part of the account.
#[derive(Debug, Default)]
pub struct Column {
    /// Messages taken in.
    pub accepted: u64,
    /// Messages dropped on purpose after they were taken in, by reason.
    pub shed: [u64; ShedReason::ALL.len()],
    /// Messages dropped on purpose instead of being taken in, by reason.
    pub refused: [u64; ShedReason::ALL.len()],
    /// Devices have another account of its messages: offsets of reliable ones, totals of counters.
    pub apart: bool,
    delivered: Cumulative,
    merged: Cumulative,
    skipped: Cumulative,
}

/// What became of a type's messages with one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// They are in it.
    pub delivered: u64,
    /// Others stand for them.
    pub merged: u64,
    /// They were shed since the batch before.
    pub skipped: u64,
}

impl Column {
    /// Messages that left in batches.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.total()
    }

    /// Messages that were replaced while they waited, counted with the batch their replacement left in.
    #[must_use]
    pub fn merged(&self) -> u64 {
        self.merged.total()
    }
}

/// What the batches after some seq held, by type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed {
    /// Messages in them, and those shed meanwhile.
    pub skipped: Vec<(TypeName, u64)>,
    /// Messages merged away in them.
    pub merged: Vec<(TypeName, u64)>,
}

impl Account {
    /// The column of a type; `None` if the room accounts for as many types as it may.
    pub fn column(&mut self, type_name: &TypeName) -> Option<&mut Column> {
        if !self.columns.contains_key(type_name) {
            if self.columns.len() >= ROOM_TYPES_MAX {
                return None;
            }
            self.columns.insert(type_name.clone(), Column::default());
        }
        self.columns.get_mut(type_name)
    }

    /// Whether there is a column for a type, or room for one.
    #[must_use]
    pub fn admits(&self, type_name: &TypeName) -> bool {
        self.columns.len() < ROOM_TYPES_MAX || self.columns.contains_key(type_name)
    }

    /// The column of a type of which something was refused; `None` if it has none and should get none: types that are only
    /// ever refused leave room for others.
    pub fn column_of_refused(&mut self, type_name: &TypeName) -> Option<&mut Column> {
        if self.columns.len() >= ROOM_TYPES_MAX / 2 {
            return self.columns.get_mut(type_name);
        }
        self.column(type_name)
    }

    /// All columns, in order of type.
    pub fn columns(&self) -> impl Iterator<Item = (&TypeName, &Column)> {
        self.columns.iter()
    }

    /// What became of a type's messages with the batch `seq`.
    pub fn record(&mut self, seq: Seq, type_name: &TypeName, left: Left) {
        // A recall may be of a type that came back from the store when there was no column left.
        let Some(column) = self.columns.get_mut(type_name) else { return };
        for (cumulative, more) in [
            (&mut column.delivered, left.delivered),
            (&mut column.merged, left.merged),
            (&mut column.skipped, left.skipped),
        ] {
            cumulative.record(seq, cumulative.total() + more);
        }
    }

    /// Lets go of rows older than any member may need. `head` is the newest seq. From where on it is exact now, if that
    /// has changed.
    pub fn trim(&mut self, head: Seq) -> Option<Seq> {
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

    /// What the batches after `seq` held; `None` if that is further back than the account reaches.
    #[must_use]
    pub fn since(&self, seq: Seq) -> Option<Missed> {
        if seq < self.floor {
            return None;
        }
        let mut missed = Missed::default();
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
    }
}
