//! Broken promises: kinds, counts, and a few examples of each kind.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Examples kept of each kind.
const EXAMPLES_MAX: usize = 5;

/// A broken promise. I1 to I7 number the promises of the reliable class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A door of the node gave no answer after the run: the node hangs or is gone.
    NodeSilent,
    /// An accepted message never reached a device in the room, and was not told as skipped.
    Lost,
    /// A message reached a device, or entered a room, more than once.
    Twice,
    /// Two messages, or two batches, came in another order than the room's.
    OutOfOrder,
    /// A message has other bytes than were published, or two devices got different bytes for a batch.
    Altered,
    /// A message not published by this run, or not to this room (I5, I6).
    Foreign,
    /// A message appeared after a refused or shed publish (I7).
    RefusedAppeared,
    /// A `seq` was passed over without a reason in the frame.
    Gap,
    /// `skipped` and `merged` do not add up: together, given, skipped and merged messages exceed the accepted
    /// messages, or two frames contradict each other about the same batches.
    SkipInexact,
    /// A counter's total is not the sum of the accepted publishes, or not the sum of the growth told to
    /// devices.
    CounterInexact,
    /// The counts of a key's messages do not add up to the accepted count.
    CountInexact,
    /// A device was given more messages of a type than a person is meant to read.
    ReadableExceeded,
    /// An unreadable frame.
    Undecodable,
    /// A frame without a place here: `error`, `closed`, another welcome.
    Unexpected,
    /// A connection ended too early, or did not come back.
    Disconnected,
    /// I1: a reliable message was answered as durable, or broadcast, and is missing in the store after the
    /// run.
    I1NotStored,
    /// I2: a durable message was applied later than 3 s after its answer and after the device's return.
    I2Late,
    /// I2: a durable message was never applied by a device present for 3 s.
    I2NotApplied,
    /// I3: a message was applied twice, under two offsets.
    I3AppliedTwice,
    /// I4: an offset neither expired nor recalled was passed over.
    I4OffsetMissing,
    /// I4: offsets that do not rise, lie outside their frame's span, or stand for two messages.
    I4OffsetOrder,
    /// I4: a reset for a cursor that could be honoured, or a change of epoch without a reset.
    I4FalseReset,
    /// I5: a reliable message of a room not joined.
    I5OtherRoom,
    /// I6: a reliable message not published by this run.
    I6NotPublished,
    /// I6: a reliable message with another payload or id than was published.
    I6Altered,
    /// I7: a reliable message appeared after a refused publish.
    I7RefusedAppeared,
}

/// The kind's name in the report: the same as in JSON.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The findings of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) count: u64,
    /// The first few, in words.
    pub(crate) examples: Vec<String>,
}

/// Every broken promise of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Violations(BTreeMap<Kind, Found>);

impl Violations {
    /// Adds `count` findings of `kind`. `example` is called only while examples are wanted, and never for a
    /// count of 0.
    pub(crate) fn add(&mut self, kind: Kind, count: u64, example: impl FnOnce() -> String) {
        // A kind in the map is a broken promise, so a count of 0 must leave no entry.
        if count == 0 {
            return;
        }
        let found = self.0.entry(kind).or_default();
        found.count += count;
        if found.examples.len() < EXAMPLES_MAX {
            found.examples.push(example());
        }
    }

    /// Adds the findings of another worker or check.
    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, found) in other.0 {
            let mine = self.0.entry(kind).or_default();
            mine.count += found.count;
            mine.examples.extend(found.examples);
            mine.examples.truncate(EXAMPLES_MAX);
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.0.get(&kind).map_or(0, |found| found.count)
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().map(|found| found.count).sum()
    }

    pub(crate) fn found(&self) -> impl Iterator<Item = (Kind, &Found)> {
        self.0.iter().map(|(kind, found)| (*kind, found))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, found) in &self.0 {
            writeln!(f, "  {kind:<20} {}", found.count)?;
            for example in &found.examples {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_in_words_and_in_json() {
        let mut violations = Violations::default();
        violations.add(Kind::I1NotStored, 2, || "there".into());
        violations.add(Kind::Gap, 0, || "nowhere".into());
        assert_eq!(violations.to_string(), "  i1_not_stored        2\n    there\n");
        assert!(serde_json::to_string(&violations).unwrap().starts_with(r#"{"i1_not_stored":"#));
    }
}
