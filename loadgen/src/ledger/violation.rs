//! Broken promises: their kinds, how many there were, and a few examples of each.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Examples kept of each kind; the rest is only counted.
const EXAMPLES_MAX: usize = 5;

/// What was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A message that was accepted never reached a device that was there, and was not told as skipped.
    Lost,
    /// A message reached a device, or entered a room, more than once.
    Twice,
    /// Two messages, or two batches, in another order than the room's.
    OutOfOrder,
    /// A message's bytes are not those that were published, or two devices got different bytes for one batch.
    Altered,
    /// A message that this run did not publish, or not to this room (I5, I6).
    Foreign,
    /// A message whose publish was refused or shed appeared all the same (I7).
    RefusedAppeared,
    /// A `seq` was passed over and nothing said why.
    Gap,
    /// `skipped` and `merged` do not add up: with what devices were given, they are more than was accepted, or two
    /// frames say otherwise of the same batches.
    SkipInexact,
    /// A counter's total is not the sum of what was accepted, or not that of what devices were told it grew by.
    CounterInexact,
    /// The counts of a key's messages do not add up to what was accepted of it.
    CountInexact,
    /// A device was given more messages of a type than it is asked to show.
    ReadableExceeded,
    /// A frame that can't be read.
    Undecodable,
    /// A frame that has no place here: `error`, `closed`, another welcome.
    Unexpected,
    /// A connection ended while it should have lasted, or did not come back.
    Disconnected,
    /// I1: a reliable message that was answered as durable, or was broadcast, is not in the store after the run.
    I1NotStored,
    /// I2: a durable message was applied later than 3 s after its answer and after the device's return.
    I2Late,
    /// I2: a durable message was never applied by a device that was there for 3 s.
    I2NotApplied,
    /// I3: one message was applied twice, under two offsets.
    I3AppliedTwice,
    /// I4: an offset was passed over that is neither expired nor recalled.
    I4OffsetMissing,
    /// I4: offsets that do not rise, lie outside their frame's span, or stand for two messages.
    I4OffsetOrder,
    /// I4: a reset for a cursor that could be honoured, or an epoch that changed without one.
    I4FalseReset,
    /// I5: a reliable message of a room that was not joined.
    I5OtherRoom,
    /// I6: a reliable message that this run did not publish.
    I6NotPublished,
    /// I6: a reliable message whose payload or id is not what was published.
    I6Altered,
    /// I7: a reliable message appeared whose publish was refused.
    I7RefusedAppeared,
}

impl Kind {
    /// Its name in the report.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Twice => "twice",
            Self::OutOfOrder => "out_of_order",
            Self::Altered => "altered",
            Self::Foreign => "foreign",
            Self::RefusedAppeared => "refused_appeared",
            Self::Gap => "gap",
            Self::SkipInexact => "skip_inexact",
            Self::CounterInexact => "counter_inexact",
            Self::CountInexact => "count_inexact",
            Self::ReadableExceeded => "readable_exceeded",
            Self::Undecodable => "undecodable",
            Self::Unexpected => "unexpected",
            Self::Disconnected => "disconnected",
            Self::I1NotStored => "i1_not_stored",
            Self::I2Late => "i2_late",
            Self::I2NotApplied => "i2_not_applied",
            Self::I3AppliedTwice => "i3_applied_twice",
            Self::I4OffsetMissing => "i4_offset_missing",
            Self::I4OffsetOrder => "i4_offset_order",
            Self::I4FalseReset => "i4_false_reset",
            Self::I5OtherRoom => "i5_other_room",
            Self::I6NotPublished => "i6_not_published",
            Self::I6Altered => "i6_altered",
            Self::I7RefusedAppeared => "i7_refused_appeared",
        }
    }
}

/// How often one kind was found, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// How often.
    pub(crate) count: u64,
    /// The first few, in words.
    pub(crate) examples: Vec<String>,
}

/// Every broken promise of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Violations(BTreeMap<Kind, Found>);

impl Violations {
    /// Counts `count` more of `kind`; `example` is asked only while examples are wanted. Nothing for a count of 0.
    pub(crate) fn add(&mut self, kind: Kind, count: u64, example: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let found = self.0.entry(kind).or_default();
        found.count += count;
        if found.examples.len() < EXAMPLES_MAX {
            found.examples.push(example());
        }
    }

    /// Takes in what somebody else found.
    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, found) in other.0 {
            let mine = self.0.entry(kind).or_default();
            mine.count += found.count;
            mine.examples.extend(found.examples);
            mine.examples.truncate(EXAMPLES_MAX);
        }
    }

    /// How often `kind` was found.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.0.get(&kind).map_or(0, |found| found.count)
    }

    /// How many were found, of all kinds.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(|found| found.count).sum()
    }

    /// Whether every promise was kept.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, found) in &self.0 {
            writeln!(f, "  {:<20} {}", kind.name(), found.count)?;
            for example in &found.examples {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}
