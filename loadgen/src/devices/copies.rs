//! One room's distinct frames, each decoded once: the copies that every device's bytes are compared with.
//!
//! Copies stand on two shelves. A *level* copy is a batch for devices at the seq before, found by its seq:
//! the way of nearly every frame. A *composed* copy (a refresh, or a batch with an account) is found by
//! comparing bytes with the last few. A copy is dropped once every device of this worker in the room has had
//! the frame. Two bounds hold besides: [`LEVEL_COPIES_MAX`] seqs, and about [`COPY_AGE_MAX_NS`]. The frame of
//! a device further behind is decoded on its own and judged by its messages alone. So no frame goes
//! unchecked, and a lagging device only costs more. Pure.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::devices::readable::Counts;
use crate::devices::streams::Brought;
use crate::devices::track::Arrival;
use crate::devices::type_figures::{Due, Figures};
use crate::ledger::Told;
use crate::ledger::ages::{BatchAges, RoomLife};

/// Level copies kept of a room. The oldest are dropped first.
pub(crate) const LEVEL_COPIES_MAX: usize = 4096;
/// Composed copies kept of a room. The oldest are dropped first.
pub(crate) const COMPOSED_COPIES_MAX: usize = 64;
/// Time for which a level copy waits for the remaining devices of the room.
const COPY_AGE_MAX_NS: u64 = 2_000_000_000;
/// Receive times within 2^15 ns = 33 µs count as one, at the later end: the most by which latencies are
/// overstated.
const INSTANT_SHIFT: u32 = 15;

/// The content of a judged frame, as far as a device's state depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) seq: u64,
    /// A frame for every device at the seq before.
    pub(crate) is_level: bool,
    /// A batch with messages. Otherwise a refresh, with an account alone.
    pub(crate) has_messages: bool,
    /// Type and due time of each of this run's messages, in `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) dues: Box<[Due]>,
    /// The account of each type.
    pub(crate) told: Box<[Told]>,
    /// Messages of the types with a limit.
    pub(crate) readable: Counts,
    /// The frame gives a reason for a jump in seq.
    pub(crate) explains: bool,
    /// The part of the reliable stream.
    pub(crate) brought: Option<Brought>,
}

impl Said {
    pub(crate) fn messages(&self) -> u64 {
        self.dues.len() as u64
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.told.iter().map(|told| told.skipped).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Copy {
    bytes: Box<[u8]>,
    said: Rc<Said>,
    /// Devices that had the frame.
    taken: u32,
    /// The instant of the latest devices, and the devices of this instant that are timed.
    instant: u64,
    instant_devices: u32,
    /// Devices since the last settlement that caused their delay themselves.
    untimed_devices: u32,
    /// Earliest due time of the frame's messages.
    earliest_ns: u64,
    /// Ages of the batch; `None` where the batch is not among the kept ones.
    ages: Option<Box<BatchAges>>,
}

impl Copy {
    fn new(bytes: &[u8], said: Rc<Said>, life: RoomLife, figures: &Figures) -> Self {
        let earliest_ns = said.dues.iter().map(|(_, due_ns)| *due_ns).min();
        Self {
            bytes: bytes.into(),
            ages: earliest_ns.and_then(|earliest_ns| figures.ages_of(life, said.seq, earliest_ns)),
            earliest_ns: earliest_ns.unwrap_or(0),
            said,
            taken: 0,
            instant: 0,
            instant_devices: 0,
            untimed_devices: 0,
        }
    }

    /// Counts one more device. Devices of one instant are gathered and recorded together.
    fn take(&mut self, arrival: Arrival, figures: &mut Figures) {
        let instant = arrival.now_ns >> INSTANT_SHIFT;
        // A hot room's devices read one frame within microseconds: one record for all instead of thousands.
        if instant != self.instant {
            self.settle(figures);
            self.instant = instant;
        }
        if self.earliest_ns >= arrival.timed_from_ns {
            self.instant_devices += 1;
        } else {
            self.untimed_devices += 1;
        }
        self.taken += 1;
    }

    /// Records the gathered devices.
    fn settle(&mut self, figures: &mut Figures) {
        let received_ns = (self.instant + 1) << INSTANT_SHIFT;
        if self.instant_devices > 0 {
            figures.given(&self.said.dues, received_ns, self.instant_devices.into());
            if let Some(ages) = &mut self.ages {
                ages.add(received_ns.saturating_sub(self.earliest_ns), self.instant_devices);
            }
        }
        figures.given_untimed(&self.said.dues, self.untimed_devices.into());
        figures.told(&self.said.told, u64::from(self.instant_devices) + u64::from(self.untimed_devices));
        self.instant_devices = 0;
        self.untimed_devices = 0;
    }

    fn end(mut self, life: RoomLife, figures: &mut Figures) {
        self.settle(figures);
        if let Some(ages) = &self.ages {
            figures.kept_ages.add(life, self.said.seq, ages);
        }
    }
}

/// The copies of a life of a room.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The seq of the first place in `level`.
    first_seq: u64,
    level: VecDeque<Option<Copy>>,
    composed: VecDeque<Copy>,
    /// Devices of this worker in the room now. A level copy that as many devices had is dropped.
    devices: u32,
    life: RoomLife,
}

impl Copies {
    pub(crate) fn new(life: RoomLife) -> Self {
        Self { life, ..Self::default() }
    }

    /// Counts a device that came into the room.
    pub(crate) fn arrived(&mut self) {
        self.devices += 1;
    }

    /// Counts a device that left the room.
    pub(crate) fn left(&mut self) {
        self.devices = self.devices.saturating_sub(1);
    }

    /// Takes the level frame of `seq` for another device; `None` unless the bytes are equal.
    #[inline]
    pub(crate) fn take_level(
        &mut self,
        seq: u64,
        bytes: &[u8],
        arrival: Arrival,
        figures: &mut Figures,
    ) -> Option<Rc<Said>> {
        let place = self.place(seq)?;
        let slot = self.level.get_mut(place)?;
        let copy = slot.as_mut().filter(|copy| *copy.bytes == *bytes)?;
        copy.take(arrival, figures);
        let said = Rc::clone(&copy.said);
        // Every device of the room had the frame: the bytes are not needed again.
        if copy.taken >= self.devices {
            self.drop_level(place, figures);
        }
        Some(said)
    }

    /// Takes a recent composed frame for another device; `None` unless the bytes are equal.
    pub(crate) fn take_composed(
        &mut self,
        bytes: &[u8],
        arrival: Arrival,
        figures: &mut Figures,
    ) -> Option<Rc<Said>> {
        let copy = self.composed.iter_mut().find(|copy| *copy.bytes == *bytes)?;
        copy.take(arrival, figures);
        Some(Rc::clone(&copy.said))
    }

    /// The bytes of the level frame of `seq`, while the copy is kept.
    pub(crate) fn level(&self, seq: u64) -> Option<&[u8]> {
        self.level.get(self.place(seq)?)?.as_ref().map(|copy| &*copy.bytes)
    }

    /// The place of `seq` on the level shelf; `None` before the shelf.
    fn place(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.first_seq)?).ok()
    }

    /// Keeps a frame that a device just had. Without other devices for the frame, only its latencies are
    /// recorded.
    pub(crate) fn keep(&mut self, bytes: &[u8], said: Rc<Said>, arrival: Arrival, figures: &mut Figures) {
        let level = said.is_level;
        let seq = said.seq;
        let mut copy = Copy::new(bytes, said, self.life, figures);
        copy.take(arrival, figures);
        // A room with one device of this worker, or a second frame of one seq, which differs and is a fault.
        if self.devices <= 1 || (level && self.level(seq).is_some()) {
            copy.end(self.life, figures);
        } else if level {
            self.keep_level(seq, copy, figures);
        } else {
            if self.composed.len() == COMPOSED_COPIES_MAX
                && let Some(oldest) = self.composed.pop_front()
            {
                oldest.end(self.life, figures);
            }
            self.composed.push_back(copy);
        }
    }

    fn keep_level(&mut self, seq: u64, copy: Copy, figures: &mut Figures) {
        // A room's slowest devices must not make the worker keep minutes of frames.
        let old = (copy.instant << INSTANT_SHIFT).saturating_sub(COPY_AGE_MAX_NS) >> INSTANT_SHIFT;
        while self.level.front().is_some_and(|front| front.as_ref().is_none_or(|front| front.instant < old)) {
            self.drop_level(0, figures);
        }
        if self.level.is_empty() {
            self.first_seq = seq;
        }
        // Before the shelf: a device too far behind. Far past the shelf: a leap that no run makes, and that
        // would fill the memory with empty places.
        let Some(place) = self.place(seq).filter(|place| *place < self.level.len() + LEVEL_COPIES_MAX) else {
            copy.end(self.life, figures);
            return;
        };
        while self.level.len() <= place {
            self.level.push_back(None);
        }
        self.level[place] = Some(copy);
        while self.level.len() > LEVEL_COPIES_MAX {
            self.drop_level(0, figures);
        }
    }

    /// Empties one place, and removes the empty places in front.
    #[cold]
    fn drop_level(&mut self, place: usize, figures: &mut Figures) {
        if let Some(copy) = self.level[place].take() {
            copy.end(self.life, figures);
        }
        while let Some(None) = self.level.front() {
            self.level.pop_front();
            self.first_seq += 1;
        }
    }

    /// Records the gathered devices of all copies, and drops the copies.
    pub(crate) fn settle(&mut self, figures: &mut Figures) {
        for copy in self.level.drain(..).flatten().chain(self.composed.drain(..)) {
            copy.end(self.life, figures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now_ns: u64) -> Arrival {
        Arrival { now_ns, timed_from_ns: 0 }
    }

    fn copies(devices: u32) -> Copies {
        let mut copies = Copies::new((0, 0));
        (0..devices).for_each(|_| copies.arrived());
        copies
    }

    fn said(seq: u64) -> Said {
        Said {
            seq,
            is_level: true,
            has_messages: true,
            dues: Box::new([(1, 1_000), (1, 2_000)]),
            told: Box::new([Told { kind: 1, messages: 2, skipped: 3, ..Told::default() }]),
            readable: [2, 0, 0, 0],
            explains: false,
            brought: None,
        }
    }

    fn level(seq: u64) -> Rc<Said> {
        Rc::new(said(seq))
    }

    #[test]
    fn equal_bytes_are_taken_and_one_different_byte_is_not() {
        let mut copies = copies(3);
        let mut figures = Figures::new(2);
        copies.keep(b"batch seven", level(7), at(5_000_000), &mut figures);
        let taken = level(7);
        assert_eq!(copies.take_level(7, b"batch seveN", at(5_000_000), &mut figures), None);
        assert_eq!(copies.take_level(8, b"batch seven", at(5_000_000), &mut figures), None);
        assert_eq!(
            copies.take_level(7, b"batch seven", at(6_000_000), &mut figures),
            Some(Rc::clone(&taken))
        );
        assert_eq!(copies.take_level(7, b"batch seven", at(6_000_000), &mut figures), Some(taken));
        assert!(copies.level(7).is_none(), "every device had it");
        assert_eq!(figures.types[1].latency.percentiles().count, 6, "three devices, two messages");
        assert_eq!(figures.types[1].skipped, 9, "three devices, three each");
    }

    #[test]
    fn the_shelf_is_bounded_and_drops_the_oldest() {
        let mut copies = copies(2);
        let mut figures = Figures::new(2);
        for seq in 1..=LEVEL_COPIES_MAX as u64 + 10 {
            copies.keep(&seq.to_be_bytes(), level(seq), at(5_000_000), &mut figures);
        }
        assert!(copies.level(10).is_none() && copies.level(11).is_some());
        assert_eq!(figures.types[1].latency.percentiles().count, 20);
        copies.settle(&mut figures);
        assert_eq!(figures.types[1].latency.percentiles().count, 2 * (LEVEL_COPIES_MAX as u64 + 10));
    }

    #[test]
    fn a_device_that_left_is_not_waited_for_and_one_far_behind_not_for_long() {
        let mut copies = copies(3);
        let mut figures = Figures::new(2);
        copies.keep(b"seven", level(7), at(5_000_000), &mut figures);
        copies.left();
        assert!(copies.take_level(7, b"seven", at(6_000_000), &mut figures).is_some());
        assert!(copies.level(7).is_none(), "all who are there had it");
        copies.keep(b"eight", level(8), at(5_000_000), &mut figures);
        copies.keep(b"nine", level(9), at(5_000_000 + COPY_AGE_MAX_NS / 2), &mut figures);
        assert!(copies.level(8).is_some());
        copies.keep(b"ten", level(10), at(6_000_000 + COPY_AGE_MAX_NS), &mut figures);
        assert!(copies.level(8).is_none() && copies.level(9).is_some());
        copies.settle(&mut figures);
        let mut kept: Vec<u64> = figures.kept_ages.take().map(|((_, seq), _)| seq).collect();
        kept.sort_unstable();
        assert_eq!(kept, [7, 8, 9, 10]);
    }

    #[test]
    fn a_device_that_was_late_by_itself_is_counted_and_not_timed() {
        let mut copies = copies(3);
        let mut figures = Figures::new(2);
        copies.keep(b"seven", level(7), at(5_000_000), &mut figures);
        let slow = Arrival { timed_from_ns: u64::MAX, ..at(9_000_000_000) };
        assert!(copies.take_level(7, b"seven", slow, &mut figures).is_some());
        let back = Arrival { timed_from_ns: 1_001, ..at(9_000_000_000) };
        assert!(copies.take_level(7, b"seven", back, &mut figures).is_some());
        let chat = &figures.types[1];
        assert_eq!((chat.given, chat.latency.percentiles().count, chat.skipped), (6, 2, 9));
        let ages = figures.kept_ages.take().next().unwrap().1;
        assert!(ages.last_ns < 10_000_000, "{ages:?}");
    }

    #[test]
    fn composed_frames_are_shared_too() {
        let mut copies = copies(3);
        let mut figures = Figures::new(2);
        let said =
            Said { is_level: false, has_messages: false, dues: Box::default(), explains: true, ..said(9) };
        let said = Rc::new(said);
        copies.keep(b"refresh", Rc::clone(&said), at(1), &mut figures);
        assert_eq!(copies.take_composed(b"refresh", at(2), &mut figures), Some(said));
        assert_eq!(copies.take_composed(b"refresH", at(2), &mut figures), None);
    }
}
