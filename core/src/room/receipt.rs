//! The receipt of a reliable message: members at the sending, acknowledgements, and departures before one.
//!
//! The home counts the members at the sending, and departures since. A segment counts the acknowledgements of
//! its own members, so no acknowledgement crosses a thread.

use std::collections::BTreeSet;
use std::time::Duration;

use super::view::AckTimes;
use crate::now::millis;

/// The home's part of a message's receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Members at the sending, and later returners without the message.
    pub online: u64,
    /// The part of `online` back with a cursor at or past the message.
    pub returned: u64,
    /// The part of `online` gone without a name before an acknowledgement.
    pub(super) left: u64,
    /// The part of `online` gone likewise, with a name: hashes of the names.
    devices_left: BTreeSet<u64>,
    /// The message was sent in an earlier life of the room. Devices of the earlier life count on their
    /// return.
    was_sent_before: bool,
    /// Devices with a name, back since: hashes of the names.
    devices_back: BTreeSet<u64>,
}

impl Receipt {
    /// The receipt of a message from an earlier life of the room.
    pub(super) fn of_earlier_life() -> Self {
        Self { was_sent_before: true, ..Self::default() }
    }

    /// Counts a departure before an acknowledgement. `device` is 0 without a name.
    pub(super) fn leave(&mut self, device: u64) {
        let remembered = device != 0 && self.devices_left.insert(device);
        self.left += u64::from(!remembered);
    }

    /// A device comes back without the message, and is pending again. At most `names_max` further names are
    /// remembered.
    pub(super) fn come_back_for(&mut self, device: u64, names_max: usize) {
        if !self.come_back(device) {
            self.online += 1;
            self.is_new_here(device, names_max);
        }
    }

    /// A device comes back with the message. At most `names_max` further names are remembered.
    pub(super) fn come_back_with(&mut self, device: u64, names_max: usize) {
        if self.come_back(device) {
            self.returned += 1;
        } else if self.was_sent_before && self.is_new_here(device, names_max) {
            self.online += 1;
            self.returned += 1;
        }
    }

    /// Returns true if a returning device counts: once with a name, each time without.
    fn is_new_here(&mut self, device: u64, names_max: usize) -> bool {
        let is_remembered = device != 0 && self.was_sent_before && names_max > 0;
        !is_remembered || self.devices_back.insert(device)
    }

    /// The number of remembered names.
    pub(super) fn names(&self) -> usize {
        self.devices_left.len() + self.devices_back.len()
    }

    /// Members gone, and not back since.
    pub(super) fn left(&self) -> u64 {
        self.left + self.devices_left.len() as u64
    }

    /// Takes a departed device back. Returns false for a device without a known departure.
    fn come_back(&mut self, device: u64) -> bool {
        if device != 0 {
            return self.devices_left.remove(&device);
        }
        // Without a name one device is like another: the sum is right, whichever it was.
        let came_back = self.left > 0;
        self.left -= u64::from(came_back);
        came_back
    }
}

/// The acknowledgements of a message: the number, and the times taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    /// Acknowledgements by members at the sending, and by later returners.
    pub count: u64,
    /// Bucket -> acknowledgements. As long as the longest time needs.
    times: Vec<u32>,
    longest_ms: u64,
}

/// Buckets between two powers of two. With 8, a percentile is too high by an eighth at most.
const BUCKETS_PER_OCTAVE: u64 = 8;

impl Acks {
    /// Counts an acknowledgement, `took` after the sending (after the acceptance, if no segment existed
    /// then).
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

    /// Adds the counts of another segment.
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

    /// The percentiles; `None` while there are no acknowledgements.
    pub fn times(&self) -> Option<AckTimes> {
        (self.count > 0).then(|| AckTimes {
            p50: self.percentile(50),
            p99: self.percentile(99),
            max: self.longest_ms,
        })
    }

    /// The upper end of the percentile's bucket.
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
    let octave = bucket / BUCKETS_PER_OCTAVE + 2;
    let steps = bucket % BUCKETS_PER_OCTAVE;
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
        let mut one = Acks::default();
        let mut other = Acks::default();
        let mut both = Acks::default();
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
