//! What became of each type of a mix: the same figures for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::devices::readable::Reading;
use crate::devices::type_figures::TypeFigures;
use crate::figures::latency::Percentiles;
use crate::figures::ratio;
use crate::figures::timeline::Moment;
use crate::ledger::Account;
use crate::publish::publisher::Outcomes;
use crate::report::last_device::FirstToLast;
use crate::scenario::mix::Class;
use crate::scenario::plan::Plan;

/// One type. Of a counter all but its publishes and their answers is in counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TypeReport {
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    pub(crate) class: Class,
    pub(crate) rate_per_s: f64,
    /// What each publish counts.
    pub(crate) each: u64,
    pub(crate) keys: u32,
    /// Publishes that were tried.
    pub(crate) published: u64,
    /// What they came to, like the three that follow.
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Refused messages by reason.
    pub(crate) shed: BTreeMap<String, u64>,
    /// Publishes that were answered as merged.
    pub(crate) answered_merged: u64,
    /// What every device that was there throughout can add up of the rooms that had devices; of a counter `given` is its
    /// last total. `accepted` is `given` and `merged` and `skipped` together, where nothing is unknown.
    pub(crate) account: Account,
    /// Over all devices: messages, or what counters grew by.
    pub(crate) delivered: u64,
    /// Over all devices: told as merged.
    pub(crate) merged: u64,
    /// Over all devices: told as skipped.
    pub(crate) skipped: u64,
    /// From when a message was due to when a device had it.
    pub(crate) latency: Percentiles,
    /// The first and the last device of each message; of long runs a part of the messages.
    #[serde(default, rename = "spread")]
    pub(crate) first_to_last: FirstToLast,
    /// The same by quarters of a second in which messages were due.
    pub(crate) latency_over_time: Vec<Moment>,
    /// From when a publish left to its answer.
    pub(crate) answer: Percentiles,
    /// The same by quarters of a second in which publishes left.
    pub(crate) answer_over_time: Vec<Moment>,
    /// Answers by their status.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// How many devices were given in a second, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) readable: Option<ReadableReport>,
}

/// How many messages devices were given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadableReport {
    pub(crate) per_second_max: u32,
    #[serde(flatten)]
    pub(crate) reading: Reading,
    /// Of the device that was given most.
    pub(crate) most_per_s_on_average: f64,
}

/// All types.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TypeTable(Vec<TypeReport>);

impl TypeTable {
    /// The table of a run: what was published, seen and settled, each by type.
    #[must_use]
    pub(crate) fn of(
        plan: &Plan,
        published: &[Outcomes],
        figures: &[TypeFigures],
        readings: &[Reading],
        accounts: &[Account],
        first_to_last: &[FirstToLast],
    ) -> Self {
        let nothing = TypeFigures::default();
        let rows = plan.loads.iter().enumerate().map(|(kind, load)| {
            let outcomes = &published[kind];
            let figures = figures.get(kind).unwrap_or(&nothing);
            let ended = outcomes.published.outcomes();
            let each = if load.is_counter() { load.each() } else { 1 };
            let latency = figures.latency.percentiles();
            let limit = plan.limits.iter().zip(readings).find(|(limit, _)| limit.type_name == load.type_name);
            TypeReport {
                type_name: load.type_name.clone(),
                class: load.class,
                rate_per_s: ratio(load.schedule.rate_milli, 1_000),
                each: load.each(),
                keys: load.keys,
                published: ended.ok + ended.refused + ended.unknown,
                offered: (ended.ok + ended.refused + ended.unknown) * each,
                accepted: ended.ok * each,
                refused: ended.refused * each,
                unknown: ended.unknown * each,
                shed: outcomes.refusals.clone(),
                answered_merged: outcomes.merged,
                account: accounts.get(kind).copied().unwrap_or_default(),
                delivered: if load.is_counter() { figures.added } else { figures.given },
                merged: figures.merged,
                skipped: figures.skipped,
                latency,
                first_to_last: first_to_last.get(kind).copied().unwrap_or_default(),
                latency_over_time: figures.timeline.moments(),
                answer: outcomes.answer_latency.percentiles(),
                answer_over_time: outcomes.answers.moments(),
                answers: outcomes.codes.clone(),
                readable: limit.map(|(limit, reading)| ReadableReport {
                    per_second_max: limit.per_second,
                    reading: *reading,
                    most_per_s_on_average: ratio(reading.most_in_all * 1_000, reading.took_ms),
                }),
            }
        });
        Self(rows.collect())
    }

    /// Its types, in the order of the mix.
    #[must_use]
    pub(crate) fn rows(&self) -> &[TypeReport] {
        &self.0
    }

    /// A type by its name.
    #[must_use]
    pub(crate) fn row(&self, type_name: &str) -> Option<&TypeReport> {
        self.0.iter().find(|row| row.type_name == type_name)
    }

    /// Whether it says anything that the totals do not.
    #[must_use]
    pub(crate) fn is_worth_showing(&self) -> bool {
        let [only] = &*self.0 else { return !self.0.is_empty() };
        only.type_name != "chat" || only.readable.is_some() || only.account.merged + only.account.skipped > 0
    }
}

impl fmt::Display for TypeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>9} {:>9} {:>8} {:>8} | {:>9} {:>8} {:>8} | {:>8} {:>8} {:>8} {:>8}",
            "type",
            "offered",
            "accepted",
            "refused",
            "unknown",
            "given",
            "merged",
            "skipped",
            "p50 ms",
            "p99 ms",
            "p99.9",
            "max ms"
        )?;
        for row in &self.0 {
            let Account { given, merged, skipped, .. } = row.account;
            write!(
                f,
                "{:<12} {:>9} {:>9} {:>8} {:>8} | {given:>9} {merged:>8} {skipped:>8} |",
                row.type_name, row.offered, row.accepted, row.refused, row.unknown
            )?;
            let Percentiles { count, p50_ms, p99_ms, p999_ms, max_ms } = row.latency;
            if count == 0 {
                writeln!(f, " {:>8} {:>8} {:>8} {:>8}", "-", "-", "-", "-")?;
            } else {
                writeln!(f, " {p50_ms:>8.1} {p99_ms:>8.1} {p999_ms:>8.1} {max_ms:>8.1}")?;
            }
        }
        for row in &self.0 {
            if row.refused > 0 {
                writeln!(f, "  {} refused: {:?}; answers {:?}", row.type_name, row.shed, row.answers)?;
            }
            if let Some(ReadableReport { per_second_max, reading, most_per_s_on_average }) = &row.readable {
                writeln!(
                    f,
                    "  {} given to one device: at most {} within a second, {most_per_s_on_average:.1}/s on average; {per_second_max}/s \
                     asked",
                    row.type_name, reading.most_in_a_second
                )?;
            }
        }
        Ok(())
    }
}
