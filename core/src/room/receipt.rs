//! Who has a reliable message: what its home counts, what the segments count, and the two put together.
//!
//! The home counts who was there when the message was sent and who left since; acknowledgements are counted where they
//! arrive, on the member's own segment, so that none of them crosses a thread.

use std::collections::BTreeSet;
use std::time::Duration;

use super::view::AckTimes;
use crate::now::millis;

/// What the home knows of one message's members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Members when it was sent, and devices that came back for it later.
    pub online: u64,
    /// Of those: came back with a cursor at or past it.
    pub returned: u64,
    /// Of those: have left without a name before they had acknowledged it.
    left: u64,
    /// Of those: likewise, with a name. Hashes of the names.
    devices_left: BTreeSet<u64>,
    /// It was sent in an earlier life of the room: who had it then is counted when it comes back.
    was_sent_before: bool,
    /// Devices with a name that came back since.
    devices_back: BTreeSet<u64>,
}

impl Receipt {
    /// Of a message that was sent in an earlier life of its room.
    #[must_use]
    pub fn of_earlier_life() -> Self {
        Self { was_sent_before: true, ..Self::default() }
    }

    /// A member leaves that has not acknowledged it. `device` is 0 without a name.
    pub fn leave(&mut self, device: u64) {
        let remembered = device != 0 && self.devices_left.insert(device);
        self.left += u64::from(!remembered);
    }

    /// So many members leave that have not acknowledged it, and have no name.
    pub fn leave_without_name(&mut self, members: u64) {
        self.left += members;
    }

    /// A device comes back that lacks it: it is pending again. `names_max`: how many more may be remembered.
    pub fn come_back_for(&mut self, device: u64, names_max: usize) {
        if !self.come_back(device) {
            self.online += 1;
            self.is_new_here(device, names_max);
        }
    }

    /// A device comes back that has it. `names_max`: how many more may be remembered.
    pub fn come_back_with(&mut self, device: u64, names_max: usize) {
        if self.come_back(device) {
            self.returned += 1;
        } else if self.was_sent_before && self.is_new_here(device, names_max) {
            self.online += 1;
            self.returned += 1;
        }
    }

    /// Whether a device that comes back is to be counted: with a name, once; without one, each time.
    fn is_new_here(&mut self, device: u64, names_max: usize) -> bool {
        let is_remembered = device != 0 && self.was_sent_before && names_max > 0;
        !is_remembered || self.devices_back.insert(device)
    }

    /// Names it remembers.
    #[must_use]
    pub fn names(&self) -> usize {
        self.devices_left.len() + self.devices_back.len()
    }

    /// Members that left and did not come back.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left + self.devices_left.len() as u64
    }

    /// Whether it is one of those that left. A device without a name is taken for any that had none.
    fn come_back(&mut self, device: u64) -> bool {
        if device != 0 {
            return self.devices_left.remove(&device);
        }
        let came_back = self.left > 0;
        self.left -= u64::from(came_back);
        came_back
    }
}

/// The acknowledgements of one message: how many there were, and how long they took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    /// Acknowledgements by members that were there when it was sent, or came back for it.
    pub count: u64,
    /// By bucket; as long as the longest needs.
    times: Vec<u32>,
    longest_ms: u64,
}

/// Buckets between two powers of two: a percentile is too high by an eighth at most.
const BUCKETS_PER_OCTAVE: u64 = 8;

impl Acks {
    /// One more, so long after the message was sent.
    pub fn add(&mut self, took: Duration) {
        // Past an hour all are the same.
        let took_ms = millis(took).min(3_600_000);
        let bucket = bucket_of(took_ms);
        if self.times.len() <= bucket {
            self.times.resize(bucket + 1, 0);
        }
        self.times[bucket] = self.times[bucket].saturating_add(1);
        self.count += 1;
        self.longest_ms = self.longest_ms.max(took_ms);
    }

    /// Takes in what another segment counted.
    pub fn merge(&mut self, other: &Self) {
        if self.times.len() < other.times.len() {
            self.times.resize(other.times.len(), 0);
        }
        for (count, more) in self.times.iter_mut().zip(&other.times) {
            *count = count.saturating_add(*more);
        }
        self.count += other.count;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }

    /// The times; `None` while there are no acknowledgements.
    #[must_use]
    pub fn times(&self) -> Option<AckTimes> {
        (self.count > 0).then(|| AckTimes {
            p50: self.percentile(50),
            p99: self.percentile(99),
            max: self.longest_ms,
        })
    }

    /// The upper end of the bucket that holds the percentile.
    fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        let bucket = self.times.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        bucket.map_or(self.longest_ms, |bucket| bucket_end(bucket as u64).min(self.longest_ms))
    }
}

fn bucket_of(ms: u64) -> usize {
    let bucket = match ms.checked_ilog2() {
        Some(octave) if ms >= BUCKETS_PER_OCTAVE => {
            let steps = (ms >> (octave - 3)) - BUCKETS_PER_OCTAVE;
            u64::from(octave - 2) * BUCKETS_PER_OCTAVE + steps
        }
        _ => ms,
    };
    usize::try_from(bucket).expect("an hour has fewer than 200 buckets")
}

/// The largest time of a bucket.
fn bucket_end(bucket: u64) -> u64 {
    if bucket < 2 * BUCKETS_PER_OCTAVE {
        return bucket;
    }
    let (octave, steps) = (bucket / BUCKETS_PER_OCTAVE + 2, bucket % BUCKETS_PER_OCTAVE);
    ((BUCKETS_PER_OCTAVE + steps + 1) << (octave - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_too_high_by_an_eighth_at_most() {
        for ms in (0..20_000).chain([3_599_999, 3_600_000]) {
            let end = bucket_end(bucket_of(ms) as u64);
            assert!(ms <= end && end <= ms + ms / 8, "{ms} in a bucket up to {end}");
        }
        let mut acks = Acks::default();
        for ms in 1..=1000 {
            acks.add(Duration::from_millis(ms));
        }
        let times = acks.times().unwrap();
        assert!((500..=562).contains(&times.p50) && (990..=1000).contains(&times.p99), "{times:?}");
        assert_eq!((times.max, Acks::default().times()), (1000, None));
    }

    #[test]
    fn what_segments_counted_is_put_together() {
        let (mut one, mut other, mut both) = (Acks::default(), Acks::default(), Acks::default());
        for ms in 0..100 {
            let part = if ms % 3 == 0 { &mut one } else { &mut other };
            part.add(Duration::from_millis(ms * ms));
            both.add(Duration::from_millis(ms * ms));
        }
        one.merge(&other);
        assert_eq!(one, both);
    }

    #[test]
    fn a_named_device_is_recognised_when_it_comes_back_and_one_without_a_name_is_taken_for_another() {
        let mut receipt = Receipt { online: 3, ..Receipt::default() };
        for device in [7, 0, 8] {
            receipt.leave(device);
        }
        receipt.come_back_for(9, 1);
        assert_eq!((receipt.online, receipt.left()), (4, 3), "9 was not there");
        receipt.come_back_for(7, 1);
        receipt.come_back_with(0, 1);
        assert_eq!((receipt.online, receipt.left(), receipt.returned), (4, 1, 1));
        receipt.come_back_with(0, 1);
        assert_eq!((receipt.left(), receipt.returned), (1, 1), "8 has a name");
    }

    #[test]
    fn who_had_it_in_an_earlier_life_counts_when_it_comes_back_and_with_a_name_once() {
        let mut receipt = Receipt::of_earlier_life();
        for device in [7, 7, 0, 0] {
            receipt.come_back_with(device, 10);
        }
        assert_eq!((receipt.online, receipt.returned), (3, 3));
        receipt.come_back_for(8, 10);
        receipt.come_back_with(8, 10);
        assert_eq!((receipt.online, receipt.returned), (4, 3), "its acknowledgement has counted");
        assert_eq!(receipt.names(), 2);
    }
}
