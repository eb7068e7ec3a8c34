//! The board: numbers of the ladder, read by shards and doors at any time and without a lock.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use roomcast_core::now::millis;
use roomcast_core::room::ladder::Step;

/// Stands for a step's number while the operator has set none.
const UNSAID: u8 = u8::MAX;

/// The steps of all shards of a node, and the numbers behind them.
#[derive(Debug)]
pub struct Board {
    /// The operator's step for the whole node.
    node: AtomicU8,
    /// Limit of bytes owed to all devices, at least 1.
    owed_max: AtomicU64,
    shards: Box<[Cell]>,
}

#[derive(Debug, Default)]
struct Cell {
    automatic: AtomicU8,
    delay_ms: AtomicU64,
    owed: AtomicU64,
}

/// A shard's place on the ladder, as operators see it. Nodes send it to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStep {
    /// Index of the shard.
    pub shard: usize,
    /// Number of the step the shard has come to by itself.
    pub automatic: u8,
    /// Number of the step in force.
    pub step: u8,
    /// Name of the step in force.
    pub name: Cow<'static, str>,
    /// The least wait of a publish in the interval that was last weighed, in milliseconds.
    pub delay_ms: u64,
    /// Bytes owed to the shard's devices, in thousandths of the node's limit.
    pub outbound_permille: u64,
}

impl Board {
    /// The board of `shards` calm shards. `owed_max` is the node's limit of bytes owed to devices.
    #[must_use]
    pub fn new(shards: usize, owed_max: u64) -> Self {
        let shards = (0..shards).map(|_| Cell::default()).collect();
        Self { node: AtomicU8::new(UNSAID), owed_max: AtomicU64::new(owed_max.max(1)), shards }
    }

    /// Takes over the node's limit of bytes owed to devices.
    pub fn limit_owed(&self, owed_max: u64) {
        self.owed_max.store(owed_max.max(1), Ordering::Relaxed);
    }

    /// The node's limit of bytes owed to devices.
    #[must_use]
    pub fn owed_max(&self) -> u64 {
        self.owed_max.load(Ordering::Relaxed)
    }

    /// Sets the operator's step for all shards; `None`: each shard's own counts.
    pub fn set_node(&self, step: Option<Step>) {
        self.node.store(step.map_or(UNSAID, Step::number), Ordering::SeqCst);
    }

    /// The operator's step for all shards.
    #[must_use]
    pub fn node(&self) -> Option<Step> {
        Step::numbered(self.node.load(Ordering::SeqCst))
    }

    /// The step in force on a shard.
    #[must_use]
    pub fn in_force(&self, shard: usize) -> Step {
        self.node().unwrap_or_else(|| self.automatic(shard))
    }

    /// The step in force on each shard, by index.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        (0..self.shards.len()).map(|shard| self.in_force(shard)).collect()
    }

    /// Notes the step a shard has come to, and the wait in its inbox.
    pub fn weighed(&self, shard: usize, step: Step, delay: Duration) {
        let cell = &self.shards[shard];
        cell.automatic.store(step.number(), Ordering::Relaxed);
        cell.delay_ms.store(millis(delay), Ordering::Relaxed);
    }

    /// Notes the bytes a shard's devices are owed.
    pub fn owes(&self, shard: usize, bytes: u64) {
        self.shards[shard].owed.store(bytes, Ordering::Relaxed);
    }

    /// Bytes owed to the devices of all shards, in thousandths of the limit.
    #[must_use]
    pub fn owed_permille(&self) -> u64 {
        let owed = self.shards.iter().map(|cell| cell.owed.load(Ordering::Relaxed));
        self.permille(owed.fold(0, u64::saturating_add))
    }

    /// The step of each shard, by index.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardStep> {
        let one = |(shard, cell): (usize, &Cell)| {
            let step = self.in_force(shard);
            ShardStep {
                shard,
                automatic: self.automatic(shard).number(),
                step: step.number(),
                name: step.name().into(),
                delay_ms: cell.delay_ms.load(Ordering::Relaxed),
                outbound_permille: self.permille(cell.owed.load(Ordering::Relaxed)),
            }
        };
        self.shards.iter().enumerate().map(one).collect()
    }

    fn automatic(&self, shard: usize) -> Step {
        let number = self.shards[shard].automatic.load(Ordering::Relaxed);
        Step::numbered(number).expect("only numbers of steps are stored")
    }

    fn permille(&self, bytes: u64) -> u64 {
        let permille = u128::from(bytes) * 1000 / u128::from(self.owed_max());
        u64::try_from(permille).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_step_is_in_force_on_all_shards_until_it_is_taken_back() {
        let board = Board::new(2, 1000);
        board.weighed(1, Step::NormalSampled, Duration::from_millis(31));
        assert_eq!([0, 1].map(|shard| board.in_force(shard)), [Step::Calm, Step::NormalSampled]);
        for step in Step::ALL {
            board.set_node(Some(step));
            assert_eq!((board.node(), board.in_force(0), board.in_force(1)), (Some(step), step, step));
        }
        assert_eq!((board.shards()[1].automatic, board.shards()[1].delay_ms), (3, 31));
        board.set_node(None);
        assert_eq!((board.node(), board.in_force(1)), (None, Step::NormalSampled));
    }

    #[test]
    fn what_all_shards_owe_counts_together() {
        let board = Board::new(3, 4000);
        board.owes(0, 2000);
        board.owes(2, 1000);
        assert_eq!(board.owed_permille(), 750);
        assert_eq!(board.shards()[0].outbound_permille, 500);
        board.owes(0, u64::MAX);
        assert!(board.owed_permille() > 1000, "nothing overflows");
        board.owes(0, 0);
        assert_eq!(board.owed_permille(), 250);
    }
}
