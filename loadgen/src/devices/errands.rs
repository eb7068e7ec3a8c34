//! The devices' plans: acts and their times. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Errand {
    /// Acknowledge the applied offset.
    Acknowledge,
    /// Connect for the first time, or again.
    Connect,
    /// Begin a stay.
    Join,
    /// End a stay.
    Leave,
    /// Move to another room.
    Hop,
    /// Cut the connection.
    Cut,
    /// Cut the connection with many others, in the storm at this place of the run's list.
    Storm(u8),
    /// Stop reading.
    Stall,
    /// Read again.
    Wake,
    /// Read a little, as a slow device.
    Sip,
    /// Fall silent for ever.
    Die,
    /// Pull the missing part of the stream.
    Pull,
}

/// The errands of a worker's devices, a few for each device.
#[derive(Debug, Default)]
pub(crate) struct Errands(BinaryHeap<Reverse<(u64, u32, Errand)>>);

impl Errands {
    pub(crate) fn add(&mut self, due_ns: u64, index: usize, errand: Errand) {
        self.0.push(Reverse((due_ns, u32::try_from(index).unwrap_or(u32::MAX), errand)));
    }

    /// The time of the next errand.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((due_ns, _, _))| *due_ns)
    }

    /// Takes out the next due errand, with the index of the device.
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
