//! A total that only grows, and what it was at each of the room's recent seqs: so that "how much since seq s" is a
//! difference of two rows, and a member stores nothing but s.

use std::collections::VecDeque;

use super::id::Seq;

/// A growing total with its recent past. Keeps a row only for the seqs that changed it, so a quiet room keeps none.
#[derive(Debug, Clone, Default)]
pub struct Cumulative {
    /// The total once the batch of that seq was cut; both rise strictly.
    rows: VecDeque<(Seq, u64)>,
    /// The total before the oldest row.
    base: u64,
}

impl Cumulative {
    /// The total now.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.back().map_or(self.base, |row| row.1)
    }

    /// The batch `seq` brings the total to `total`.
    pub fn record(&mut self, seq: Seq, total: u64) {
        debug_assert!(total >= self.total(), "it only grows");
        debug_assert!(self.rows.back().is_none_or(|row| row.0 <= seq), "seqs rise");
        if total == self.total() {
            return;
        }
        match self.rows.back_mut() {
            Some(row) if row.0 == seq => row.1 = total,
            _ => self.rows.push_back((seq, total)),
        }
    }

    /// How much it grew in the batches after `seq`. Exact for every seq that `forget_before` has left.
    #[must_use]
    pub fn since(&self, seq: Seq) -> u64 {
        let newer = self.rows.partition_point(|row| row.0 <= seq);
        let then = newer.checked_sub(1).and_then(|at| self.rows.get(at)).map_or(self.base, |row| row.1);
        self.total() - then
    }

    /// Nobody will ask for what came before `floor` any more.
    pub fn forget_before(&mut self, floor: Seq) {
        while let Some(row) = self.rows.front().filter(|row| row.0 <= floor) {
            self.base = row.1;
            self.rows.pop_front();
        }
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
