//! The node's memory over a run, by its own `/metrics`. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::figures::ratio;
use crate::node::samples::Sample;

/// Memory should be flat from here on: rooms, histories and outboxes have reached their size.
const SETTLED_MS: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resident {
    /// Time after the first publish.
    pub(crate) at_ms: u64,
    pub(crate) bytes: u64,
}

/// All `Option` fields are `None` in a run shorter than 10 s.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemoryFigures {
    /// The first reading past 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settled_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) most_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) least_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_bytes: Option<u64>,
    pub(crate) readings: Vec<Resident>,
}

impl MemoryFigures {
    /// Drops samples before the first publish, and samples without memory.
    pub(crate) fn of_samples(samples: &[Sample]) -> Self {
        let reading = |sample: &Sample| {
            let at_ms = u64::try_from(sample.at_ms).ok()?;
            (sample.resident_bytes > 0).then_some(Resident { at_ms, bytes: sample.resident_bytes })
        };
        Self::of(samples.iter().filter_map(reading).collect())
    }

    fn of(readings: Vec<Resident>) -> Self {
        let settled =
            || readings.iter().filter(|reading| reading.at_ms >= SETTLED_MS).map(|reading| reading.bytes);
        Self {
            settled_bytes: settled().next(),
            most_bytes: settled().max(),
            least_bytes: settled().min(),
            end_bytes: settled().next_back(),
            readings,
        }
    }
}

impl fmt::Display for MemoryFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settled_bytes, most_bytes, least_bytes, end_bytes, .. } = *self;
        let figures = [settled_bytes, least_bytes, most_bytes, end_bytes];
        let [Some(settled), Some(least), Some(most), Some(end)] = figures else { return Ok(()) };
        let mib = |bytes: u64| ratio(bytes, 1 << 20);
        let percent = |bytes: u64| 100.0 * (ratio(bytes, settled) - 1.0);
        writeln!(
            f,
            "memory       {:.1} MiB of the node after 10 s; from then on {:.1} ({:+.1} %) to {:.1} ({:+.1} %), \
             {:.1} at the end ({:+.1} %)",
            mib(settled),
            mib(least),
            percent(least),
            mib(most),
            percent(most),
            mib(end),
            percent(end)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_held_against_what_it_was_after_ten_seconds() {
        let at = |(at_s, mib): (u64, u64)| Resident { at_ms: at_s * 1_000, bytes: mib << 20 };
        let figures =
            MemoryFigures::of([(1, 10), (9, 90), (10, 100), (20, 103), (30, 99), (60, 101)].map(at).to_vec());
        let said = figures.to_string();
        let expected = "100.0 MiB of the node after 10 s; from then on 99.0 (-1.0 %) to 103.0 (+3.0 %), \
            101.0 at the end (+1.0 %)";
        assert!(said.contains(expected), "{said}");
        assert_eq!(MemoryFigures::of(vec![at((3, 10))]).to_string(), "");
    }

    #[test]
    fn what_was_before_the_first_publish_or_is_not_known_is_no_reading() {
        let sample = |at_ms, resident_bytes| Sample { at_ms, resident_bytes, ..Sample::default() };
        let figures = MemoryFigures::of_samples(&[sample(-100, 5), sample(900, 0), sample(1_900, 7)]);
        assert_eq!(figures.readings, [Resident { at_ms: 1_900, bytes: 7 }]);
    }
}
