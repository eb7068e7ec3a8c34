//! The report of each type of a mix: the same figures as text and as JSON.

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

/// A type. Figures of a counter are sums of counts, except `published`, `answered_merged` and `answers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TypeReport {
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    pub(crate) class: Class,
    pub(crate) rate_per_s: f64,
    /// The count of each publish; 1 for all but counters.
    pub(crate) each: u64,
    pub(crate) keys: u32,
    /// Publishes, with or without an answer.
    pub(crate) published: u64,
    /// The sum of the three outcomes below.
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Refused messages by reason.
    pub(crate) shed: BTreeMap<String, u64>,
    pub(crate) answered_merged: u64,
    /// The sum over rooms with devices, from devices present throughout; `given` of a counter is the last
    /// total. Unless answers are unknown, `accepted` = `given` + `merged` + `skipped` + `lost_with_run`.
    pub(crate) account: Account,
    /// Over all devices: messages, or the growth of counters.
    pub(crate) delivered: u64,
    /// Over all devices, as reported in frames.
    pub(crate) merged: u64,
    /// Over all devices, as reported in frames.
    pub(crate) skipped: u64,
    /// From the due time of a message to the arrival at a device.
    pub(crate) latency: Percentiles,
    /// Over a part of the messages in long runs.
    #[serde(default, rename = "spread")]
    pub(crate) first_to_last: FirstToLast,
    /// `latency` by the quarter second of the due time.
    pub(crate) latency_over_time: Vec<Moment>,
    /// From the departure of a publish to the answer.
    pub(crate) answer: Percentiles,
    /// `answer` by the quarter second of the departure.
    pub(crate) answer_over_time: Vec<Moment>,
    /// Answers by HTTP status.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// Only for a type with a limit of messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) readable: Option<ReadableReport>,
}

/// The messages of a type on the screen of a single device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadableReport {
    pub(crate) per_second_max: u32,
    #[serde(flatten)]
    pub(crate) reading: Reading,
    /// At the device with the most messages.
    pub(crate) most_per_s_on_average: f64,
}

/// The columns of the text table, as wide as the cells.
const HEADER: &str = "\
type           offered  accepted  refused  unknown |     given   merged  skipped |   p50 ms   p99 ms    p99.9   max ms";

/// Types in the order of the mix.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TypeTable(Vec<TypeReport>);

impl TypeTable {
    /// Joins the figures of a run. `readings` are by limit, all other slices by type.
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
            // Without workers there are no figures of devices.
            let figures = figures.get(kind).unwrap_or(&nothing);
            let ended = outcomes.published.outcomes();
            let tried = ended.ok + ended.refused + ended.unknown;
            let each = if load.is_counter() { load.each() } else { 1 };
            let limit = plan.limits.iter().zip(readings).find(|(limit, _)| limit.type_name == load.type_name);
            TypeReport {
                type_name: load.type_name.clone(),
                class: load.class,
                rate_per_s: ratio(load.schedule.rate_milli, 1_000),
                each: load.each(),
                keys: load.keys,
                published: tried,
                offered: tried * each,
                accepted: ended.ok * each,
                refused: ended.refused * each,
                unknown: ended.unknown * each,
                shed: outcomes.refusals.clone(),
                answered_merged: outcomes.merged,
                account: accounts.get(kind).copied().unwrap_or_default(),
                delivered: if load.is_counter() { figures.added } else { figures.given },
                merged: figures.merged,
                skipped: figures.skipped,
                latency: figures.latency.percentiles(),
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

    pub(crate) fn rows(&self) -> &[TypeReport] {
        &self.0
    }

    pub(crate) fn row(&self, type_name: &str) -> Option<&TypeReport> {
        self.0.iter().find(|row| row.type_name == type_name)
    }

    /// False if the totals of the run already say everything: for chat without a limit, a merge or a skip.
    pub(crate) fn is_worth_showing(&self) -> bool {
        // A table of one row would repeat the lines above it.
        let [only] = &*self.0 else { return !self.0.is_empty() };
        only.type_name != "chat"
            || only.readable.is_some()
            || only.account.merged + only.account.skipped + only.account.lost_with_run > 0
    }
}

impl fmt::Display for TypeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        for row in &self.0 {
            let TypeReport { type_name, offered, accepted, refused, unknown, .. } = row;
            let Account { given, merged, skipped, .. } = row.account;
            write!(
                f,
                "{type_name:<12} {offered:>9} {accepted:>9} {refused:>8} {unknown:>8} | \
                 {given:>9} {merged:>8} {skipped:>8} |"
            )?;
            let Percentiles { count, p50_ms, p99_ms, p999_ms, max_ms } = row.latency;
            if count == 0 {
                writeln!(f, " {:>8} {:>8} {:>8} {:>8}", "-", "-", "-", "-")?;
            } else {
                writeln!(f, " {p50_ms:>8.1} {p99_ms:>8.1} {p999_ms:>8.1} {max_ms:>8.1}")?;
            }
        }
        for row in &self.0 {
            if row.account.lost_with_run > 0 {
                writeln!(f, "  {} lost with a run that ended: {}", row.type_name, row.account.lost_with_run)?;
            }
            if row.refused > 0 {
                writeln!(f, "  {} refused: {:?}; answers {:?}", row.type_name, row.shed, row.answers)?;
            }
            if let Some(ReadableReport { per_second_max, reading, most_per_s_on_average }) = &row.readable {
                writeln!(
                    f,
                    "  {} given to one device: at most {} within a second, {most_per_s_on_average:.1}/s on average; \
                     {per_second_max}/s asked",
                    row.type_name, reading.most_in_a_second
                )?;
            }
        }
        Ok(())
    }
}
