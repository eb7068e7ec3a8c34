//! The receipt of a reliable message: members at the sending, acknowledgements, and departures before one.
//!
//! The home counts the connections without a name here, and knows the devices with a name (`StreamMembers`). A
//! segment counts the acknowledgements of its own members, so no acknowledgement crosses a thread. The parts
//! meet at the ask.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::view::{AckTimes, ReceiptView};
use crate::limits::INTEGER_MAX;
use crate::node_proto as pb;
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

    /// The receipt for the next home of the room. `acks`: those counted by former segments.
    pub(super) fn handed(&self, offset: u64, acks: &Acks) -> pb::MessageReceipt {
        pb::MessageReceipt {
            online: self.online,
            returned: self.returned,
            left: self.left,
            was_sent_before: self.was_sent_before,
            acks: Some(pb::OffsetAcks {
                offset,
                count: acks.count,
                times: acks.times.clone(),
                longest_ms: u32::try_from(acks.longest_ms).unwrap_or(u32::MAX),
            }),
        }
    }

    /// The receipt of a former home, with the offset. `None`: no home says so.
    pub(super) fn of_handed(said: pb::MessageReceipt) -> Option<(u64, Self, Acks)> {
        let pb::MessageReceipt { online, returned, left, was_sent_before, acks } = said;
        let pb::OffsetAcks { offset, count, times, longest_ms } = acks?;
        let is_possible = online <= INTEGER_MAX && returned <= online && left <= online;
        let acks = Acks::of_parts(count, times, longest_ms.into())?;
        is_possible.then_some((offset, Self { online, returned, left, was_sent_before }, acks))
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

/// A segment's part of a receipt. Nodes send it to each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentReceipt {
    /// Acknowledgements of connections without a name, and the times of all.
    pub acks: Acks,
    /// Named devices with an acknowledgement at or past the message.
    pub devices: Vec<u64>,
}

impl SegmentReceipt {
    /// Adds the part of another segment.
    pub fn merge(&mut self, mut other: Self) {
        self.acks.merge(&other.acks);
        self.devices.append(&mut other.devices);
    }
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acks {
    /// Acknowledgements by connections without a name. Devices with a name are counted by the home.
    pub count: u64,
    /// All acknowledgements with a time.
    timed: u64,
    /// Bucket -> acknowledgements. As long as the longest time needs.
    times: Vec<u32>,
    longest_ms: u64,
}

/// Longest time of an acknowledgement, in milliseconds. Past an hour all are the same.
const MS_MAX: u64 = 3_600_000;

/// Buckets between two powers of two. With 8, a percentile is too high by an eighth at most.
const BUCKETS_PER_OCTAVE: u64 = 8;

impl Acks {
    /// Counts an acknowledgement, `took` after the sending (after the acceptance, if no segment existed
    /// then). Of a device with a name only the time counts here.
    pub fn add(&mut self, took: Duration, is_named: bool) {
        let took_ms = millis(took).min(MS_MAX);
        let bucket = bucket_of(took_ms);
        if self.times.len() <= bucket {
            self.times.resize(bucket + 1, 0);
        }
        self.times[bucket] = self.times[bucket].saturating_add(1);
        self.timed += 1;
        self.count += u64::from(!is_named);
        self.longest_ms = self.longest_ms.max(took_ms);
    }

    /// The counts with these parts, as another node says them. `None` for counts that no segment can have.
    #[must_use]
    pub fn of_parts(count: u64, times: Vec<u32>, longest_ms: u64) -> Option<Self> {
        let timed = times.iter().copied().map(u64::from).sum();
        let is_possible = times.len() <= bucket_of(MS_MAX) + 1 && longest_ms <= MS_MAX && count <= timed;
        is_possible.then_some(Self { count, timed, times, longest_ms })
    }

    /// The acknowledgements in each bucket of time, as far as the longest time needs.
    #[must_use]
    pub fn in_buckets(&self) -> &[u32] {
        &self.times
    }

    /// The longest time, in milliseconds.
    #[must_use]
    pub fn longest_ms(&self) -> u64 {
        self.longest_ms
    }

    /// Adds the counts of another segment.
    pub fn merge(&mut self, other: &Self) {
        // Bounded and saturating: the other part may come from another node, and peers are strangers.
        let buckets = other.times.len().min(bucket_of(MS_MAX) + 1);
        if self.times.len() < buckets {
            self.times.resize(buckets, 0);
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
    fn a_strange_part_breaks_no_receipt() {
        let strange = format!(
            r#"{{"acks":{{"count":{0},"timed":{0},"times":[{1}7],"longest_ms":{0}}},"devices":[7,7,{0}]}}"#,
            u64::MAX,
            "4294967295,".repeat(1000)
        );
        let part: SegmentReceipt = serde_json::from_str(&strange).unwrap();
        let mut acks = Acks::default();
        acks.add(Duration::from_millis(3), false);
        acks.merge(&part.acks);
        acks.merge(&part.acks);
        assert_eq!((acks.count, acks.times.len()), (u64::MAX, bucket_of(MS_MAX) + 1));
        assert!(acks.times().is_some());
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
