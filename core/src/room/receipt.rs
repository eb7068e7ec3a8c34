//! The receipt of a reliable message: members at the sending, acknowledgements, and departures before one.
//!
//! The home counts the connections without a name here, and knows the devices with a name (`StreamMembers`). A
//! segment counts the acknowledgements of its own members, so no acknowledgement crosses a thread. The parts
//! meet at the ask.

use std::time::Duration;

use super::view::{AckTimes, ReceiptView};
use crate::now::millis;

/// The home's part of a message's receipt: connections without a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Members at the sending, and later returners without the message.
    pub online: u64,
    /// The part of `online` back with a cursor at or past the message.
    pub returned: u64,
    /// The part of `online` gone before an acknowledgement.
    pub(super) left: u64,
    /// The message was sent in an earlier life of the room. Connections with a cursor count on their return.
    was_sent_before: bool,
}

impl Receipt {
    /// The receipt of a message from an earlier life of the room.
    pub(super) fn of_earlier_life() -> Self {
        Self { was_sent_before: true, ..Self::default() }
    }

    /// Counts a connection with a cursor before the message: the message is carried to it.
    pub(super) fn come_back_for(&mut self) {
        self.online += 1;
    }

    /// Counts a connection with a cursor at or past the message.
    pub(super) fn come_back_with(&mut self) {
        // In this life the connection that got the message was counted. Whether this one is its successor
        // nobody knows without a name.
        if self.was_sent_before {
            self.online += 1;
            self.returned += 1;
        }
    }
}

/// The home's part of a receipt, to be completed by the segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeReceipt {
    /// The receipt, as far as the home knows.
    pub view: ReceiptView,
    /// Acknowledgements counted by former segments.
    pub acks: Acks,
    /// Named devices that are connected, without an acknowledgement known to the home. Rising.
    pub waiting: Vec<u64>,
}

/// A segment's part of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentReceipt {
    /// Acknowledgements of connections without a name, and the times of all.
    pub acks: Acks,
    /// Named devices with an acknowledgement at or past the message.
    pub devices: Vec<u64>,
}

impl HomeReceipt {
    /// The whole receipt. A device with connections on several segments counts once.
    #[must_use]
    pub fn with(mut self, segments: impl IntoIterator<Item = SegmentReceipt>) -> ReceiptView {
        // The message went to nobody. Segments count acknowledgements of its offset all the same.
        if self.view.online == 0 {
            return self.view;
        }
        let mut devices = Vec::new();
        for mut segment in segments {
            self.acks.merge(&segment.acks);
            devices.append(&mut segment.devices);
        }
        devices.sort_unstable();
        devices.dedup();
        let here = devices.iter().filter(|device| self.waiting.binary_search(device).is_ok()).count();
        let mut view = self.view;
        let acknowledged = view.acknowledged.saturating_add(self.acks.count).saturating_add(here as u64);
        // A segment may have handed its counts over between the two parts. The members of a lost place count as
        // gone without an acknowledgement, and some of them had acknowledged.
        view.acknowledged = acknowledged.min(view.online);
        view.left = view.left.min(view.online - view.acknowledged);
        view.pending = view.online - view.acknowledged - view.left;
        view.ack_ms = self.acks.times();
        view
    }
}

/// The acknowledgements of a message: the number, and the times taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    /// Acknowledgements by connections without a name. Devices with a name are counted by the home.
    pub count: u64,
    /// All acknowledgements with a time.
    timed: u64,
    /// Bucket -> acknowledgements. As long as the longest time needs.
    times: Vec<u32>,
    longest_ms: u64,
}

/// Buckets between two powers of two. With 8, a percentile is too high by an eighth at most.
const BUCKETS_PER_OCTAVE: u64 = 8;

impl Acks {
    /// Counts an acknowledgement, `took` after the sending (after the acceptance, if no segment existed
    /// then). Of a device with a name only the time counts here.
    pub fn add(&mut self, took: Duration, is_named: bool) {
        // Past an hour all are the same.
        let took_ms = millis(took).min(3_600_000);
        let bucket = bucket_of(took_ms);
        if self.times.len() <= bucket {
            self.times.resize(bucket + 1, 0);
        }
        self.times[bucket] = self.times[bucket].saturating_add(1);
        self.timed += 1;
        self.count += u64::from(!is_named);
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
        self.count = self.count.saturating_add(other.count);
        self.timed = self.timed.saturating_add(other.timed);
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }

    /// The percentiles; `None` while there are no acknowledgements.
    pub fn times(&self) -> Option<AckTimes> {
        (!self.is_empty()).then(|| AckTimes {
            p50: self.percentile(50),
            p99: self.percentile(99),
            max: self.longest_ms,
        })
    }

    /// True without an acknowledgement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timed == 0
    }

    /// The upper end of the percentile's bucket.
    fn percentile(&self, percent: u64) -> u64 {
        let rank = self.timed.saturating_mul(percent).div_ceil(100);
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
            acks.add(Duration::from_millis(ms), ms % 2 == 0);
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
            part.add(Duration::from_millis(ms * ms), ms % 2 == 0);
            both.add(Duration::from_millis(ms * ms), ms % 2 == 0);
        }
        one.merge(&other);
        assert_eq!(one, both);
    }
}
