//! What a run found: the same figures for people and as JSON.

pub(crate) mod generator;
pub(crate) mod html;
pub(crate) mod junit;
pub(crate) mod last_device;
pub(crate) mod output;
pub(crate) mod thresholds;
pub(crate) mod types;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::devices::moves::Moves;
use crate::devices::streams::StreamTally;
use crate::figures::latency::{Latency, Percentiles};
use crate::figures::ratio;
use crate::figures::timeline::Moment;
use crate::ledger::{ApplyTimes, Tally, Violations};
use crate::machine::environment::Environment;
use crate::node::cpu::CpuFigures;
use crate::node::faults::FaultDone;
use crate::node::memory::MemoryFigures;
use crate::node::samples::Sample;
use crate::publish::publisher::Outcomes;
use crate::report::generator::GeneratorFigures;
use crate::report::last_device::{FirstToLast, RoomSkew};
use crate::report::types::TypeTable;
use crate::scenario::habits::Awkward;
use crate::scenario::thresholds::Condition;
use crate::wire::frame::Encoding;

/// The report of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) devices: u32,
    pub(crate) rooms: u32,
    pub(crate) workers: usize,
    /// By how much times of devices on other machines may be wrong either way, at most; 0: all are on this one.
    #[serde(default)]
    pub(crate) workers_clock_error_ms: f64,
    pub(crate) encoding: Encoding,
    pub(crate) payload_bytes: usize,
    pub(crate) messages_per_request: u32,
    pub(crate) rate_per_s: f64,
    pub(crate) seconds: f64,
    /// When the first publish was due.
    pub(crate) started_unix_ms: u64,
    pub(crate) connect_ms: u64,
    pub(crate) published: PublishedFigures,
    /// Each type but the reliable one.
    pub(crate) types: TypeTable,
    /// The reliable messages, where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reliable: Option<ReliableFigures>,
    /// What some devices did besides listening; shares in millionths.
    pub(crate) awkward: Awkward,
    /// What was done to the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) faults: Vec<FaultDone>,
    /// How often they joined, left, or were cut off.
    #[serde(default)]
    pub(crate) moves: Moves,
    pub(crate) seen: Tally,
    /// Messages of ours per batch frame.
    pub(crate) messages_per_frame: f64,
    /// From when a message was due to when a device had it; every message, and every device but those that read slowly, or
    /// were away or did not read when it was due.
    pub(crate) latency: Percentiles,
    /// From when a message was due, and fewer than the most requests were in flight, to when it left.
    pub(crate) lateness: Percentiles,
    /// From when a publish left to its answer.
    pub(crate) answer: Percentiles,
    /// The percentile curve of `latency`: quantiles and milliseconds.
    pub(crate) curve: Vec<(f64, f64)>,
    /// Of all types but reliable ones: the first and the last device of each message.
    #[serde(rename = "spread")]
    pub(crate) first_to_last: FirstToLast,
    pub(crate) skew: RoomSkew,
    /// From when a device was to join to its welcome.
    pub(crate) join: Percentiles,
    /// What the generator itself used.
    pub(crate) generator: GeneratorFigures,
    /// The node, second by second.
    pub(crate) server: Vec<Sample>,
    pub(crate) environment: Environment,
    /// The whole scenario, as a scenario file.
    pub(crate) scenario: String,
    /// What repeats the run.
    pub(crate) command: String,
    /// What the run is held to.
    pub(crate) thresholds: Vec<Judged>,
    /// The node's memory over the run.
    pub(crate) memory: MemoryFigures,
    /// What it cost the node's processor.
    pub(crate) cpu: CpuFigures,
    pub(crate) verdict: Verdict,
    pub(crate) violations: Violations,
}

/// How publishing went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PublishedFigures {
    /// Tried.
    pub(crate) sent: u64,
    /// Accepted.
    pub(crate) ok: u64,
    /// Refused with 4xx or a 503 that says nothing was taken, or shed; or never left.
    pub(crate) failed: u64,
    /// No answer, or one that says nothing.
    pub(crate) unknown: u64,
    /// From the first message's time to the last answer.
    pub(crate) took_ms: u64,
    /// The first few refusals and failures.
    pub(crate) troubles: Vec<String>,
}

/// How the reliable messages went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReliableFigures {
    /// Tried.
    pub(crate) sent: u64,
    /// Answered as durable.
    pub(crate) durable: u64,
    /// Of those in a second of publishing, from the first message's time to the last answer.
    pub(crate) durable_per_s: f64,
    /// Never answered, for all their attempts.
    pub(crate) unknown: u64,
    /// Refused, so none may appear.
    pub(crate) refused: u64,
    /// Attempts after a message's first.
    pub(crate) retried: u64,
    /// From when a publish left to its answer.
    pub(crate) publish: Percentiles,
    /// From the answer to when a device applied it; without what a device applied soon after it came back.
    pub(crate) apply: Percentiles,
    /// From when it was due to when a device applied it; without the same.
    pub(crate) apply_from_due: Percentiles,
    /// The same by quarters of a second in which messages were due.
    #[serde(default)]
    pub(crate) apply_over_time: Vec<Moment>,
    /// From a device's return to when it applied what was published before.
    pub(crate) after_return: Percentiles,
    /// What devices did.
    #[serde(flatten)]
    pub(crate) devices: StreamTally,
    /// How often a message came, per message applied, to devices that acknowledge everything: 1 is never twice.
    pub(crate) copies_acknowledging: f64,
    /// The same of devices that drop acknowledgements.
    pub(crate) copies_dropping: f64,
    /// The first few refusals and failures.
    pub(crate) troubles: Vec<String>,
}

impl ReliableFigures {
    /// The figures of a run.
    #[must_use]
    pub(crate) fn new(
        outcomes: &Outcomes,
        took_ms: u64,
        devices: &StreamTally,
        times: &ApplyTimes,
        after_return: &Latency,
    ) -> Self {
        let ended = outcomes.published.outcomes();
        let copies = |applied: u64, duplicates: u64| ratio(applied + duplicates, applied);
        Self {
            sent: ended.ok + ended.refused + ended.unknown,
            durable: ended.ok,
            durable_per_s: ratio(ended.ok * 1_000, took_ms),
            unknown: ended.unknown,
            refused: ended.refused,
            retried: outcomes.retried,
            publish: outcomes.answer_latency.percentiles(),
            apply: times.from_answer.percentiles(),
            apply_from_due: times.from_due.percentiles(),
            apply_over_time: times.over_time.moments(),
            after_return: after_return.percentiles(),
            devices: *devices,
            copies_acknowledging: copies(devices.applied_acknowledging, devices.duplicates_acknowledging),
            copies_dropping: copies(
                devices.applied - devices.applied_acknowledging,
                devices.duplicates - devices.duplicates_acknowledging,
            ),
            troubles: outcomes.troubles.clone(),
        }
    }

    /// What a verdict has to add when not every message was durable.
    fn not_durable(&self) -> String {
        if self.durable == self.sent {
            return String::new();
        }
        let Self { sent, refused, unknown, .. } = self;
        format!("; of {sent} reliable messages {refused} were refused and {unknown} unknown")
    }
}

impl fmt::Display for ReliableFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, .. } = self;
        writeln!(
            f,
            "reliable     {} published: {} durable ({:.1}/s), {} unknown, {} refused; {} attempts repeated",
            self.sent, self.durable, self.durable_per_s, self.unknown, self.refused, self.retried
        )?;
        for trouble in &self.troubles {
            writeln!(f, "  {trouble}")?;
        }
        for (name, figures) in [
            ("publish", &self.publish),
            ("apply", &self.apply),
            ("apply (due)", &self.apply_from_due),
            ("apply (back)", &self.after_return),
        ] {
            write_latency(f, name, figures)?;
        }
        writeln!(
            f,
            "applied      {}, {} came again: {:.3} copies each for devices that acknowledge, {:.3} for others",
            devices.applied, devices.duplicates, self.copies_acknowledging, self.copies_dropping
        )?;
        writeln!(
            f,
            "devices did  {} acks, {} dropped; {} reconnects, {} stalls, {} pulls ({} failed), {} resets, {} recalls",
            devices.acks_sent,
            devices.acks_dropped,
            devices.reconnects,
            devices.stalls,
            devices.pulls,
            devices.pulls_failed,
            devices.resets,
            devices.recalls
        )
    }
}

fn write_latency(f: &mut fmt::Formatter<'_>, name: &str, figures: &Percentiles) -> fmt::Result {
    writeln!(
        f,
        "{name:<12} p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms ({})",
        figures.p50_ms, figures.p99_ms, figures.p999_ms, figures.max_ms, figures.count
    )
}

impl PublishedFigures {
    /// The figures of all types together, whose publishing took so long.
    #[must_use]
    pub(crate) fn of(outcomes: &[Outcomes], took_ms: u64) -> Self {
        let ended = outcomes.iter().map(|outcomes| outcomes.published.outcomes());
        let (ok, failed, unknown) = ended.fold((0, 0, 0), |(ok, failed, unknown), ended| {
            (ok + ended.ok, failed + ended.refused, unknown + ended.unknown)
        });
        let troubles = outcomes.iter().flat_map(|outcomes| outcomes.troubles.clone());
        Self {
            sent: ok + failed + unknown,
            ok,
            failed,
            unknown,
            took_ms,
            troubles: troubles.take(5).collect(),
        }
    }

    /// What a verdict has to add when not every message was accepted; empty when all were.
    fn not_ok(&self) -> String {
        if self.ok == self.sent {
            return String::new();
        }
        let Self { sent, failed, unknown, .. } = self;
        format!("; but of {sent} messages {failed} were refused and {unknown} unknown")
    }
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Every promise was kept.
    Ok,
    /// Every promise was kept, but this machine was late or too busy (`generator`): the latencies are its own.
    GeneratorLimited,
    /// Every promise was kept, but a threshold was not.
    ThresholdFailed,
    /// Not one message was accepted, so nothing was proved.
    NothingPublished,
    /// A promise was broken.
    Violations,
}

impl Verdict {
    /// The verdict on these; `generator` is what limited the generator itself. Messages that were refused or are unknown break no promise while others were accepted.
    #[must_use]
    pub(crate) fn of(
        violations: &Violations,
        published: &PublishedFigures,
        reliable: Option<&ReliableFigures>,
        generator: Option<&str>,
    ) -> Self {
        let nothing_durable = reliable.is_some_and(|reliable| reliable.durable == 0 && reliable.sent > 0);
        if !violations.is_empty() {
            Self::Violations
        } else if (published.ok == 0 && published.sent > 0) || nothing_durable {
            Self::NothingPublished
        } else if generator.is_some() {
            Self::GeneratorLimited
        } else {
            Self::Ok
        }
    }
}

/// One condition, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// As it was written.
    pub(crate) condition: String,
    /// What the run came to, in the condition's unit; `None` where nothing was measured.
    pub(crate) found: Option<f64>,
    /// The same for people, with its unit.
    pub(crate) found_text: String,
    pub(crate) holds: bool,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = if self.holds { "holds " } else { "FAILED" };
        write!(f, "threshold    {kept} {}: {}", self.condition, self.found_text)
    }
}

impl Report {
    /// The same report of a run that is held to these conditions, and to its faults having been done. A failed one is the
    /// verdict only where nothing worse is.
    #[must_use]
    pub(crate) fn held_to(mut self, conditions: &[Condition]) -> Self {
        let asked = conditions.iter().map(|condition| condition.judge(&self));
        self.thresholds = asked.chain(self.faults.iter().map(FaultDone::judged)).collect();
        if self.verdict == Verdict::Ok && self.thresholds.iter().any(|judged| !judged.holds) {
            self.verdict = Verdict::ThresholdFailed;
        }
        self
    }

    /// Messages to devices in a second, over the time that publishing took.
    #[must_use]
    pub(crate) fn deliveries_per_s(&self) -> f64 {
        ratio(self.seen.deliveries, 1) / self.seconds.max(ratio(self.published.took_ms, 1_000)).max(0.001)
    }

    /// Share of the messages that were refused or whose answer said nothing, reliable ones among them.
    #[must_use]
    pub(crate) fn refused_share(&self) -> Option<f64> {
        let reliable = self.reliable.as_ref();
        let (sent, bad) =
            reliable.map_or((0, 0), |reliable| (reliable.sent, reliable.refused + reliable.unknown));
        let sent = sent + self.published.sent;
        let bad = bad + self.published.failed + self.published.unknown;
        (sent > 0).then(|| ratio(bad, sent))
    }

    /// The node while messages were published.
    pub(crate) fn node_at_work(&self) -> impl Iterator<Item = &Sample> {
        let during = |sample: &&Sample| {
            sample.at_ms > 0 && ratio(sample.at_ms.unsigned_abs(), 1_000) <= self.seconds + 1.0
        };
        self.server.iter().filter(during)
    }

    /// Processors that the node kept busy, on average.
    #[must_use]
    pub(crate) fn node_cpu(&self) -> Option<f64> {
        let samples = self.node_at_work().count() as u64;
        (samples > 0).then(|| self.node_at_work().map(|sample| sample.cpu).sum::<f64>() / ratio(samples, 1))
    }

    /// The most memory that the node held at any time of the run.
    #[must_use]
    pub(crate) fn node_bytes_most(&self) -> Option<u64> {
        let read = self.memory.readings.iter().map(|reading| reading.bytes);
        read.chain(self.server.iter().map(|sample| sample.resident_bytes)).max().filter(|bytes| *bytes > 0)
    }

    /// What it comes to, in one sentence.
    #[must_use]
    pub(crate) fn verdict_words(&self) -> String {
        let mut not_ok = self.published.not_ok();
        let durable = self.reliable.as_ref();
        not_ok.push_str(&durable.map(ReliableFigures::not_durable).unwrap_or_default());
        match self.verdict {
            Verdict::Ok if self.devices == 0 => format!("ok: nothing was watched{not_ok}"),
            Verdict::Ok => format!("ok: nothing lost, twice, out of order or altered{not_ok}"),
            Verdict::GeneratorLimited => format!(
                "generator-limited: no violation, but {}{not_ok}",
                self.generator.limit(self.lateness.p99_ms).unwrap_or_default()
            ),
            Verdict::ThresholdFailed => {
                let failed = self.thresholds.iter().filter(|judged| !judged.holds).count();
                let asked = self.thresholds.len();
                format!("THRESHOLD FAILED: no violation, but {failed} of {asked} thresholds{not_ok}")
            }
            Verdict::NothingPublished => format!(
                "NOTHING PUBLISHED: not one of {} messages was accepted, so nothing was proved",
                self.published.sent + durable.map_or(0, |reliable| reliable.sent)
            ),
            Verdict::Violations => {
                let found =
                    self.violations.found().map(|(kind, found)| format!("{kind} {} times", found.count));
                format!("VIOLATIONS: {}", found.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, seen, .. } = self;
        writeln!(
            f,
            "devices      {} in {} rooms, {} workers, {} of {} bytes, connected in {} ms",
            self.devices,
            self.rooms,
            self.workers,
            self.encoding.subprotocol(),
            self.payload_bytes,
            self.connect_ms
        )?;
        if self.workers_clock_error_ms > 0.0 {
            writeln!(
                f,
                "clocks       workers on other machines are at most {:.3} ms off",
                self.workers_clock_error_ms
            )?;
        }
        writeln!(
            f,
            "published    {} ok, {} failed, {} unknown at {}/s, took {} ms",
            published.ok, published.failed, published.unknown, self.rate_per_s, published.took_ms
        )?;
        for trouble in &published.troubles {
            writeln!(f, "  {trouble}")?;
        }
        writeln!(
            f,
            "delivered    {} messages in {} frames ({:.2} each), {} told as skipped, {} frames decoded, {} bytes",
            seen.deliveries, seen.frames, self.messages_per_frame, seen.skipped, seen.decoded, seen.bytes
        )?;
        for fault in &self.faults {
            writeln!(f, "fault        after {} ms: {}: {}", fault.at_ms, fault.run, fault.ended)?;
        }
        let of_devices = [
            ("latency", &self.latency),
            ("first device", &self.first_to_last.first),
            ("last device", &self.first_to_last.last),
        ];
        let of_others = [("join", &self.join), ("lateness", &self.lateness), ("answer", &self.answer)];
        for (name, figures) in of_devices.into_iter().chain(of_others) {
            if figures.count > 0 || name == "latency" {
                write_latency(f, name, figures)?;
            }
        }
        if self.skew.rooms > 1 {
            let RoomSkew { rooms, median_p99_ms, worst_p99_ms, worst_room } = self.skew;
            writeln!(
                f,
                "rooms        p99 {median_p99_ms:.1} ms in the middle of {rooms}, {worst_p99_ms:.1} ms in room {worst_room}"
            )?;
        }
        write!(f, "{}{}", self.moves, self.generator)?;
        write!(f, "{}{}", self.memory, self.cpu)?;
        if self.types.is_worth_showing() {
            write!(f, "{}", self.types)?;
        }
        if let Some(reliable) = &self.reliable {
            write!(f, "{reliable}")?;
        }
        for judged in &self.thresholds {
            writeln!(f, "{judged}")?;
        }
        writeln!(f, "verdict      {}", self.verdict_words())?;
        write!(f, "{}", self.violations)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run that never was: every promise kept, p99 120 ms, one message in fifty refused.
    pub(crate) fn made_up() -> Report {
        serde_json::from_str(include_str!("made_up.json")).unwrap()
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = made_up();
        let written = serde_json::to_value(&report).unwrap();
        let read: Report = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        assert_eq!(read.to_string(), report.to_string());
    }

    #[test]
    fn a_fault_that_did_not_happen_is_a_threshold_that_failed() {
        let held = |ended: &str, holds| {
            let fault = FaultDone { at_ms: 3, run: "kill-nodee".into(), ended: ended.into(), holds };
            Report { faults: vec![fault], ..made_up() }.held_to(&[])
        };
        assert_eq!(held("exit status: 0", true).verdict, Verdict::Ok);
        let report = held("exit status: 127", false);
        assert_eq!(report.verdict, Verdict::ThresholdFailed);
        assert!(
            report.to_string().contains("FAILED fault `kill-nodee` after 3 ms: exit status: 127"),
            "{report}"
        );
    }

    #[test]
    fn what_is_missing_is_nothing() {
        let mut report = made_up();
        assert_eq!(report.refused_share(), Some(0.02));
        report.published.sent = 0;
        report.reliable = None;
        report.server.clear();
        report.memory.readings.clear();
        assert_eq!((report.refused_share(), report.node_cpu(), report.node_bytes_most()), (None, None, None));
    }
}
