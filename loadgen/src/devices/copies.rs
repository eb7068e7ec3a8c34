//! One room's distinct frames, each decoded once: the copies every device's bytes are compared with.
//!
//! Two shelves. *Level* copies are batches that ask nothing of a device but to be at the seq before; they are found
//! by seq, which is what nearly every frame takes. *Composed* copies (refreshes, batches with an account) are found by
//! comparing with the last few. A copy keeps its bytes until as many devices have had it as this worker has in the room,
//! at most [`LEVEL_COPIES_MAX`] seqs and about [`COPY_AGE_MAX_NS`] long; a device further behind has its frame decoded on its own and is judged by the
//! messages alone, so nothing goes unchecked, it only costs more. Pure.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::devices::readable::Counts;
use crate::devices::streams::Brought;
use crate::devices::type_figures::{Due, Figures};
use crate::ledger::Told;
use crate::ledger::ages::{BatchAges, RoomLife};

/// Level copies kept of one room. Past it the oldest go.
pub(crate) const LEVEL_COPIES_MAX: usize = 4096;
/// Composed copies kept of one room. Past it the oldest go.
pub(crate) const COMPOSED_COPIES_MAX: usize = 64;
/// How long a level copy waits for devices that have not had it. Whoever is further behind, or left, is not waited for.
const COPY_AGE_MAX_NS: u64 = 2_000_000_000;
/// Receive instants this close count as one, at the later end: latencies are at most this much overstated.
const INSTANT_SHIFT: u32 = 15;

/// What an already judged frame says, as far as a device's own state needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its seq.
    pub(crate) seq: u64,
    /// Whether it asks nothing of a device but to be at the seq before.
    pub(crate) is_level: bool,
    /// Whether it is a batch with messages, or only an account of what was skipped.
    pub(crate) has_messages: bool,
    /// Each of our messages in it: its type, and when it was due, in `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) dues: Box<[Due]>,
    /// What it says of each type.
    pub(crate) told: Box<[Told]>,
    /// Messages of the types that are watched for how many a device is to show.
    pub(crate) readable: Counts,
    /// Whether it gives any reason for a jump in seq.
    pub(crate) explains: bool,
    /// What it brings of the reliable stream.
    pub(crate) brought: Option<Rc<Brought>>,
}

impl Said {
    /// Messages of ours in it.
    #[must_use]
    pub(crate) fn messages(&self) -> u64 {
        self.dues.len() as u64
    }

    /// Messages that it says were skipped.
    #[must_use]
    pub(crate) fn skipped(&self) -> u64 {
        self.told.iter().map(|told| told.skipped).sum()
    }
}

/// What the fast way has to know of a level frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) messages: u64,
    pub(crate) skipped: u64,
    pub(crate) readable: Counts,
    pub(crate) brought: Option<Rc<Brought>>,
}

/// When a device had a frame, and what of it is timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) now_ns: u64,
    /// What was due before is not: the device was away then, or did not read, and was late by itself.
    pub(crate) timed_from_ns: u64,
}

/// One distinct frame.
#[derive(Debug)]
pub(crate) struct Copy {
    bytes: Box<[u8]>,
    said: Said,
    /// Devices that had it.
    taken: u32,
    /// The instant of the latest devices, and how many had it then.
    instant: u64,
    instant_devices: u32,
    /// Devices that were late by themselves, since it was settled the last time.
    untimed_devices: u32,
    /// When its earliest message was due.
    earliest_ns: u64,
    /// When devices had it, where that is kept.
    ages: Option<Box<BatchAges>>,
}

impl Copy {
    fn new(bytes: &[u8], said: Said, life: RoomLife, figures: &Figures) -> Self {
        let earliest_ns = said.dues.iter().map(|(_, due_ns)| *due_ns).min();
        let ages = earliest_ns.and_then(|earliest_ns| figures.ages_of(life, said.seq, earliest_ns));
        let earliest_ns = earliest_ns.unwrap_or(0);
        Self {
            bytes: bytes.into(),
            said,
            taken: 0,
            instant: 0,
            instant_devices: 0,
            untimed_devices: 0,
            earliest_ns,
            ages,
        }
    }

    /// One more device had it. Devices of one instant are gathered, and recorded together.
    fn take(&mut self, arrival: Arrival, figures: &mut Figures) {
        let instant = arrival.now_ns >> INSTANT_SHIFT;
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
        (self.instant_devices, self.untimed_devices) = (0, 0);
    }

    /// Nobody else is compared with it.
    fn end(mut self, life: RoomLife, figures: &mut Figures) {
        self.settle(figures);
        if let Some(ages) = &self.ages {
            figures.kept_ages.add(life, self.said.seq, ages);
        }
    }
}

/// The copies of one room.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The seq of the first place in `level`.
    first_seq: u64,
    level: VecDeque<Option<Copy>>,
    composed: VecDeque<Copy>,
    /// Devices of this worker that are in this room now; a level copy that so many had goes.
    devices: u32,
    life: RoomLife,
}

impl Copies {
    /// None yet, of a room that nobody is in.
    #[must_use]
    pub(crate) fn new(life: RoomLife) -> Self {
        Self { life, ..Self::default() }
    }

    /// One more device is in the room.
    pub(crate) fn arrived(&mut self) {
        self.devices += 1;
    }

    /// One is not any more.
    pub(crate) fn left(&mut self) {
        self.devices = self.devices.saturating_sub(1);
    }

    /// If these bytes are the level frame of `seq`: takes it for one more device and gives what that means to it.
    #[inline]
    pub(crate) fn take_level(
        &mut self,
        seq: u64,
        bytes: &[u8],
        arrival: Arrival,
        figures: &mut Figures,
    ) -> Option<Taken> {
        let place = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        let slot = self.level.get_mut(place)?;
        let copy = slot.as_mut().filter(|copy| *copy.bytes == *bytes)?;
        copy.take(arrival, figures);
        let said = &copy.said;
        let taken = Taken {
            messages: said.messages(),
            skipped: said.skipped(),
            readable: said.readable,
            brought: said.brought.clone(),
        };
        if copy.taken >= self.devices {
            self.drop_level(place, figures);
        }
        Some(taken)
    }

    /// If these bytes are a composed frame seen lately: takes it for one more device and gives what it says.
    pub(crate) fn take_composed(
        &mut self,
        bytes: &[u8],
        arrival: Arrival,
        figures: &mut Figures,
    ) -> Option<Said> {
        let copy = self.composed.iter_mut().find(|copy| *copy.bytes == *bytes)?;
        copy.take(arrival, figures);
        Some(copy.said.clone())
    }

    /// The level frame of `seq`, while it is kept.
    #[must_use]
    pub(crate) fn level(&self, seq: u64) -> Option<&[u8]> {
        let place = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.level.get(place)?.as_ref().map(|copy| &*copy.bytes)
    }

    /// Keeps a frame that a device just had for the others, or records its latencies and lets it go where there is
    /// nobody left to have it.
    pub(crate) fn keep(&mut self, bytes: &[u8], said: Said, arrival: Arrival, figures: &mut Figures) {
        let level = said.is_level;
        let seq = said.seq;
        let mut copy = Copy::new(bytes, said, self.life, figures);
        copy.take(arrival, figures);
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
        let old = (copy.instant << INSTANT_SHIFT).saturating_sub(COPY_AGE_MAX_NS) >> INSTANT_SHIFT;
        while self.level.front().is_some_and(|front| front.as_ref().is_none_or(|front| front.instant < old)) {
            self.drop_level(0, figures);
        }
        if self.level.is_empty() {
            self.first_seq = seq;
        }
        let place = seq.checked_sub(self.first_seq).and_then(|place| usize::try_from(place).ok());
        // A device so far behind that its batch lies before the shelf, or a leap no run makes: not kept.
        let Some(place) = place.filter(|place| *place < self.level.len() + LEVEL_COPIES_MAX) else {
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

    /// Empties one place, and takes away the empty places in front.
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

    /// Records what is gathered still, and lets go of all.
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

    fn level(seq: u64) -> Said {
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

    #[test]
    fn equal_bytes_are_taken_and_one_different_byte_is_not() {
        let mut copies = copies(3);
        let mut figures = Figures::new(2);
        copies.keep(b"batch seven", level(7), at(5_000_000), &mut figures);
        let taken = Taken { messages: 2, skipped: 3, readable: [2, 0, 0, 0], brought: None };
        assert_eq!(copies.take_level(7, b"batch seveN", at(5_000_000), &mut figures), None);
        assert_eq!(copies.take_level(8, b"batch seven", at(5_000_000), &mut figures), None);
        assert_eq!(copies.take_level(7, b"batch seven", at(6_000_000), &mut figures), Some(taken.clone()));
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
        assert!(ages.last_ns() < 10_000_000, "{ages:?}");
    }

    #[test]
    fn composed_frames_are_shared_too() {
        let mut copies = copies(3);
        let mut figures = Figures::new(2);
        let said =
            Said { is_level: false, has_messages: false, dues: Box::default(), explains: true, ..level(9) };
        copies.keep(b"refresh", said.clone(), at(1), &mut figures);
        assert_eq!(copies.take_composed(b"refresh", at(2), &mut figures), Some(said));
        assert_eq!(copies.take_composed(b"refresH", at(2), &mut figures), None);
    }
}
