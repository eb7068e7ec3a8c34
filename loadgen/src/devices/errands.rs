//! What devices are to do, and when: come and go, acknowledge, cut themselves off, stop reading and begin again. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What one device is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Errand {
    /// Acknowledge what it has applied.
    Acknowledge,
    /// Connect, or connect again.
    Connect,
    /// Join its room for a stay that begins.
    Join,
    /// Leave it: the stay is over.
    Leave,
    /// Leave it for another.
    Hop,
    /// Cut its connection.
    Cut,
    /// Cut it with others: the storm at this place of the run's.
    Storm(u8),
    /// Stop reading.
    Stall,
    /// Read again.
    Wake,
    /// Read a little, as a slow device does.
    Sip,
    /// Neither read nor say anything any more.
    Die,
    /// Pull what it lacks.
    Pull,
}

/// The errands of a worker's devices: a few of each device at most.
#[derive(Debug, Default)]
pub(crate) struct Errands(BinaryHeap<Reverse<(u64, u32, Errand)>>);

impl Errands {
    /// Device `index` is to do this at `due_ns`.
    pub(crate) fn add(&mut self, due_ns: u64, index: usize, errand: Errand) {
        self.0.push(Reverse((due_ns, u32::try_from(index).unwrap_or(u32::MAX), errand)));
    }

    /// When the next is due.
    #[must_use]
    pub(crate) fn due_ns(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((due_ns, _, _))| *due_ns)
    }

    /// The next that is due.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<(usize, Errand)> {
        self.due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        self.0.pop().map(|Reverse((_, index, errand))| (index as usize, errand))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errands_come_when_they_are_due() {
        let mut errands = Errands::default();
        errands.add(20, 1, Errand::Cut);
        errands.add(10, 2, Errand::Acknowledge);
        assert_eq!((errands.due_ns(), errands.take_due(9)), (Some(10), None));
        assert_eq!(errands.take_due(25), Some((2, Errand::Acknowledge)));
        assert_eq!(errands.take_due(25), Some((1, Errand::Cut)));
        assert_eq!(errands.take_due(25), None);
    }
}
