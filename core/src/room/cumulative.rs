//! A growing total, and the total at each of the room's recent seqs.
//!
//! The growth after seq s is a difference of two rows: `total − row(s)`. So a member stores s alone. Example:
//! with rows (3, 10) and (7, 15), the growth after seq 3 is 15 − 10 = 5, and after seq 7 0.

use std::collections::VecDeque;

use super::id::Seq;
use crate::limits::INTEGER_MAX;
use crate::node_proto as pb;

/// A growing total and the recent past. A seq without growth has no row, so a quiet room has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Cumulative {
    /// Rising strictly in seq and in total.
    rows: VecDeque<TotalAt>,
    /// The total before the oldest row.
    base: u64,
}

/// The total once batch `seq` was cut.
#[derive(Debug, Clone, Copy)]
struct TotalAt {
    seq: Seq,
    total: u64,
}

impl Cumulative {
    pub(super) fn total(&self) -> u64 {
        self.rows.back().map_or(self.base, |row| row.total)
    }

    /// Sets the total as of batch `seq`. Neither number may fall.
    pub(super) fn record(&mut self, seq: Seq, total: u64) {
        debug_assert!(total >= self.total(), "a total only grows");
        debug_assert!(self.rows.back().is_none_or(|row| row.seq <= seq), "seqs rise");
        // A row that repeats the total would tell nothing, and a batch touches every type of its room.
        if total == self.total() {
            return;
        }
        match self.rows.back_mut() {
            Some(row) if row.seq == seq => row.total = total,
            _ => self.rows.push_back(TotalAt { seq, total }),
        }
    }

    /// The growth in the batches after `seq`; exact from the last `forget_before` on.
    pub(super) fn since(&self, seq: Seq) -> u64 {
        let newer = self.rows.partition_point(|row| row.seq <= seq);
        let then = newer.checked_sub(1).and_then(|at| self.rows.get(at)).map_or(self.base, |row| row.total);
        self.total() - then
    }

    /// Frees the rows up to `floor`. Later calls of `since` name `floor` or a newer seq.
    pub(super) fn forget_before(&mut self, floor: Seq) {
        while let Some(row) = self.rows.front().filter(|row| row.seq <= floor) {
            self.base = row.total;
            self.rows.pop_front();
        }
    }

    /// The total for the next home of the room.
    pub(super) fn handed(&self) -> pb::Total {
        let (seqs, totals) = self.rows.iter().map(|row| (row.seq.0, row.total)).unzip();
        pb::Total { base: self.base, seqs, totals }
    }

    /// The total of a former home, as of the batch `head`. `None`: no home says so.
    pub(super) fn of_handed(said: Option<pb::Total>, head: Seq) -> Option<Self> {
        let pb::Total { base, seqs, totals } = said.unwrap_or_default();
        let is_whole = seqs.len() == totals.len() && seqs.last().is_none_or(|last| *last <= head.0);
        let is_rising =
            seqs.is_sorted_by(|one, next| one < next) && totals.is_sorted_by(|one, next| one < next);
        let is_within = totals.first().is_none_or(|first| base < *first)
            && totals.last().copied().unwrap_or(base) <= INTEGER_MAX;
        let rows = seqs.into_iter().zip(totals).map(|(seq, total)| TotalAt { seq: Seq(seq), total });
        (is_whole && is_rising && is_within).then(|| Self { rows: rows.collect(), base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_since_a_seq_is_a_difference_of_two_rows() {
        let mut total = Cumulative::default();
        total.record(Seq(3), 10);
        total.record(Seq(7), 15);
        assert_eq!(total.since(Seq(0)), 15);
        assert_eq!(total.since(Seq(3)), 5);
        assert_eq!(total.since(Seq(6)), 5);
        assert_eq!(total.since(Seq(7)), 0);
    }

    #[test]
    fn forgetting_keeps_every_later_answer_exact() {
        let mut total = Cumulative::default();
        for seq in 1..=100 {
            total.record(Seq(seq), seq * 2);
        }
        total.forget_before(Seq(60));
        assert_eq!(total.since(Seq(60)), 80);
        assert_eq!(total.since(Seq(99)), 2);
        assert_eq!(total.total(), 200);
        assert_eq!(total.rows.len(), 40);
    }
}
