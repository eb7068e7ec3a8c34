//! The report of a run: the same figures as text and as JSON.

pub(crate) mod generator;
pub(crate) mod html;
pub(crate) mod junit;
pub(crate) mod last_device;
pub(crate) mod output;
mod over_time;
pub(crate) mod thresholds;
pub(crate) mod types;

use std::collections::BTreeMap;
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
use crate::node::samples::{NodeFigures, Sample};
use crate::publish::publisher::Outcomes;
use crate::report::generator::GeneratorFigures;
use crate::report::last_device::{FirstToLast, RoomSkew};
use crate::report::over_time::OverTime;
use crate::report::types::TypeTable;
use crate::scenario::habits::Awkward;
use crate::scenario::thresholds::Condition;
use crate::wire::frame::Encoding;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The reason for an end before the plan's, in words: the figures cover the time until then. `None`: a whole
    /// run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partial: Option<String>,
    pub(crate) devices: u32,
    pub(crate) rooms: u32,
    pub(crate) workers: usize,
    /// The largest clock error of workers on other machines, either way; 0 if every worker is on this
    /// machine.
    #[serde(default)]
    pub(crate) workers_clock_error_ms: f64,
    pub(crate) encoding: Encoding,
    pub(crate) payload_bytes: usize,
    pub(crate) messages_per_request: u32,
    pub(crate) rate_per_s: f64,
    pub(crate) seconds: f64,
    /// The due time of the first publish.
    pub(crate) started_unix_ms: u64,
    pub(crate) connect_ms: u64,
    pub(crate) published: PublishedFigures,
    /// Every type but reliable types.
    pub(crate) types: TypeTable,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reliable: Option<ReliableFigures>,
    /// The habits of awkward devices; shares in millionths.
    pub(crate) awkward: Awkward,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) faults: Vec<FaultDone>,
    /// Second from the first publish -> messages due in that second that were refused or are unknown, reliable messages
    /// included.
    #[serde(default)]
    pub(crate) failed_by_second: BTreeMap<u64, u64>,
    #[serde(default)]
    pub(crate) moves: Moves,
    pub(crate) seen: Tally,
    /// Messages of this run per batch frame.
    pub(crate) messages_per_frame: f64,
    /// From the due time of a message to the arrival at a device. All messages and devices count, except slow
    /// readers and devices away or not reading at the due time.
    pub(crate) latency: Percentiles,
    /// From the due time of a message to the departure. Time with the most requests in flight does not count:
    /// the node caused such a delay.
    pub(crate) lateness: Percentiles,
    /// From the departure of a publish to its answer.
    pub(crate) answer: Percentiles,
    /// The percentile curve of `latency`: quantiles from 0 to 1, and milliseconds.
    pub(crate) curve: Vec<(f64, f64)>,
    /// Over the messages of all types but reliable types.
    #[serde(rename = "spread")]
    pub(crate) first_to_last: FirstToLast,
    pub(crate) skew: RoomSkew,
    /// From the due time of a join to the welcome.
    pub(crate) join: Percentiles,
    pub(crate) generator: GeneratorFigures,
    /// The node, or all nodes together, second by second.
    pub(crate) server: Vec<Sample>,
    /// Each of several nodes, on the same axis of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<NodeFigures>,
    pub(crate) environment: Environment,
    /// The resolved scenario in the format of a scenario file.
    pub(crate) scenario: String,
    /// The command line without secrets.
    pub(crate) command: String,
    /// The judged conditions, and each fault as a condition.
    pub(crate) thresholds: Vec<Judged>,
    pub(crate) memory: MemoryFigures,
    pub(crate) cpu: CpuFigures,
    #[serde(default)]
    pub(crate) judged_rooms: JudgedRooms,
    /// Runs of the rooms besides the first of each, as the devices saw them: restarts and takeovers.
    #[serde(default)]
    pub(crate) runs_changed: u64,
    pub(crate) verdict: Verdict,
    pub(crate) violations: Violations,
}

/// Rooms with devices, by the judgement of their messages. Reliable messages are judged in all rooms, against the
/// store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JudgedRooms {
    pub(crate) whole: u32,
    /// Rooms whose devices were all away at once: nobody knows which messages were sent meanwhile.
    pub(crate) in_part: u32,
}

impl JudgedRooms {
    pub(crate) fn add(&mut self, is_whole: bool) {
        *if is_whole { &mut self.whole } else { &mut self.in_part } += 1;
    }
}

impl fmt::Display for JudgedRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whole, in_part } = self;
        let all = whole + in_part;
        writeln!(
            f,
            "not judged   missing messages in {in_part} of {all} rooms: all devices of the room were away at once"
        )
    }
}

/// Messages of all types but reliable types, by outcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PublishedFigures {
    /// The sum of the three outcomes below.
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    /// Never sent, shed, or refused: with 4xx, or with a 503 of which nothing was taken.
    pub(crate) failed: u64,
    /// Without an answer, or with an ambiguous answer.
    pub(crate) unknown: u64,
    /// From the due time of the first message to the last answer.
    pub(crate) took_ms: u64,
    /// The first 5 refusals and failures.
    pub(crate) troubles: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReliableFigures {
    /// The sum of `durable`, `unknown` and `refused`.
    pub(crate) sent: u64,
    pub(crate) durable: u64,
    /// Durable messages a second, from the due time of the first message to the last answer.
    pub(crate) durable_per_s: f64,
    /// Without an answer after all attempts.
    pub(crate) unknown: u64,
    /// No device may receive a refused message.
    pub(crate) refused: u64,
    /// Attempts after the first of each message.
    pub(crate) retried: u64,
    /// From the departure of a publish to its answer.
    pub(crate) publish: Percentiles,
    /// From the answer to the time a device applied the message. Deliveries soon after the return of a device
    /// do not count.
    pub(crate) apply: Percentiles,
    /// The same for slow readers, which have a time of their own.
    #[serde(default)]
    pub(crate) apply_slow: Percentiles,
    /// The same from the due time.
    pub(crate) apply_from_due: Percentiles,
    /// `apply_from_due` by the quarter second of the due time.
    #[serde(default)]
    pub(crate) apply_over_time: Vec<Moment>,
    /// From the return of a device to the application of a message published before.
    pub(crate) after_return: Percentiles,
    #[serde(flatten)]
    pub(crate) devices: StreamTally,
    /// Copies received per message applied, over devices that acknowledge everything; 1: none came twice.
    pub(crate) copies_acknowledging: f64,
    /// The same over devices with dropped acknowledgements.
    pub(crate) copies_dropping: f64,
    pub(crate) troubles: Vec<String>,
}

impl ReliableFigures {
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
            apply_slow: times.slow.percentiles(),
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
}

impl fmt::Display for ReliableFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, durable, durable_per_s, unknown, refused, retried, .. } = self;
        writeln!(
            f,
            "reliable     {sent} published: {durable} durable ({durable_per_s:.1}/s), {unknown} unknown, \
             {refused} refused; {retried} attempts repeated"
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
        if self.apply_slow.count > 0 {
            write_latency(f, "apply (slow)", &self.apply_slow)?;
        }
        let StreamTally { applied, duplicates, acks_sent, acks_dropped, reconnects, stalls, .. } =
            self.devices;
        let StreamTally { pulls, pulls_failed, resets, recalls, .. } = self.devices;
        writeln!(
            f,
            "applied      {applied}, {duplicates} came again: {:.3} copies each for devices that acknowledge, {:.3} \
             for others",
            self.copies_acknowledging, self.copies_dropping
        )?;
        writeln!(
            f,
            "devices did  {acks_sent} acks, {acks_dropped} dropped; {reconnects} reconnects, {stalls} stalls, {pulls} \
             pulls ({pulls_failed} failed), {resets} resets, {recalls} recalls"
        )
    }
}

fn write_latency(f: &mut fmt::Formatter<'_>, name: &str, figures: &Percentiles) -> fmt::Result {
    let Percentiles { count, p50_ms, p99_ms, p999_ms, max_ms } = figures;
    writeln!(
        f,
        "{name:<12} p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, p99.9 {p999_ms:.1} ms, max {max_ms:.1} ms ({count})"
    )
}

impl PublishedFigures {
    pub(crate) fn of(outcomes: &[Outcomes], took_ms: u64) -> Self {
        let ended = outcomes.iter().map(|outcomes| outcomes.published.outcomes());
        let (ok, failed, unknown) = ended.fold((0, 0, 0), |(ok, failed, unknown), ended| {
            (ok + ended.ok, failed + ended.refused, unknown + ended.unknown)
        });
        let troubles = outcomes.iter().flat_map(|outcomes| outcomes.troubles.clone()).take(5).collect();
        Self { sent: ok + failed + unknown, ok, failed, unknown, took_ms, troubles }
    }
}

/// The verdict on a run, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    /// The generator was late or too busy, so the latencies measure the generator. No promise was broken.
    GeneratorLimited,
    /// A signal ended the run early. No promise was broken so far.
    Partial,
    /// No promise was broken.
    ThresholdFailed,
    /// No message was accepted, so nothing was proved.
    NothingPublished,
    /// In each room all devices were away at once, so nothing was proved.
    NothingJudged,
    /// A promise was broken.
    Violations,
}

impl Verdict {
    /// The worst applicable verdict. `generator` is the limit reached by the generator. Refused and unknown
    /// messages break no promise if other messages were accepted.
    pub(crate) fn of(
        violations: &Violations,
        published: &PublishedFigures,
        reliable: Option<&ReliableFigures>,
        judged_rooms: JudgedRooms,
        generator: Option<&str>,
    ) -> Self {
        // A broken promise counts whatever else happened. Without an accepted message there is nothing to
        // judge, and the lateness of the generator says nothing.
        let nothing_durable = reliable.is_some_and(|reliable| reliable.durable == 0 && reliable.sent > 0);
        // The store tells of durable messages, whoever was away.
        let nothing_judged = judged_rooms.whole == 0
            && judged_rooms.in_part > 0
            && reliable.is_none_or(|reliable| reliable.durable == 0);
        if !violations.is_empty() {
            Self::Violations
        } else if (published.ok == 0 && published.sent > 0) || nothing_durable {
            Self::NothingPublished
        } else if nothing_judged {
            Self::NothingJudged
        } else if generator.is_some() {
            Self::GeneratorLimited
        } else {
            Self::Ok
        }
    }

    /// The verdict of a run that may have been stopped early.
    pub(crate) fn of_a_part(self, is_stopped: bool) -> Self {
        // Whatever else the part says, the whole was not measured. A broken promise stays broken.
        if is_stopped && !matches!(self, Self::Violations) { Self::Partial } else { self }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// The text of a condition, or a fault and the time of the fault.
    pub(crate) condition: String,
    /// The figure of the run in the unit of the condition; `None` if the run did not measure the figure.
    pub(crate) found: Option<f64>,
    /// `found` as text with the unit.
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
    /// Judges `conditions`, and each fault as a condition: a run without a planned fault is another run. A
    /// failure becomes the verdict only of an otherwise good run.
    pub(crate) fn held_to(mut self, conditions: &[Condition]) -> Self {
        let asked = conditions.iter().map(|condition| condition.judge(&self));
        self.thresholds = asked.chain(self.faults.iter().map(FaultDone::judged)).collect();
        // The figures of a worse run may be wrong, so a threshold on them proves nothing.
        if self.verdict == Verdict::Ok && self.thresholds.iter().any(|judged| !judged.holds) {
            self.verdict = Verdict::ThresholdFailed;
        }
        self
    }

    /// Messages given to devices a second, over the time of publishing.
    pub(crate) fn deliveries_per_s(&self) -> f64 {
        // Publishing behind its schedule takes longer than planned.
        ratio(self.seen.deliveries, 1) / self.seconds.max(ratio(self.published.took_ms, 1_000)).max(0.001)
    }

    /// Second from the first publish -> deliveries of messages due in that second. Reliable messages have no
    /// timeline and are not counted.
    pub(crate) fn deliveries_by_second(&self) -> BTreeMap<u64, u64> {
        let mut by_second = BTreeMap::new();
        for moment in self.types.rows().iter().flat_map(|row| &row.latency_over_time) {
            *by_second.entry(moment.at_ms / 1_000).or_default() += moment.count;
        }
        by_second
    }

    /// Messages sent, reliable messages included.
    pub(crate) fn sent(&self) -> u64 {
        self.published.sent + self.reliable.as_ref().map_or(0, |reliable| reliable.sent)
    }

    /// The share of refused and unknown messages, reliable messages included; `None` if nothing was sent.
    pub(crate) fn refused_share(&self) -> Option<f64> {
        let PublishedFigures { failed, unknown, .. } = self.published;
        let reliable = self.reliable.as_ref().map_or(0, |reliable| reliable.refused + reliable.unknown);
        (self.sent() > 0).then(|| ratio(failed + unknown + reliable, self.sent()))
    }

    /// Samples of the node during publishing.
    pub(crate) fn node_at_work(&self) -> impl Iterator<Item = &Sample> {
        // A sample tells of the second before it: the last counts up to a second after the end.
        let during = |sample: &&Sample| {
            sample.at_ms > 0 && ratio(sample.at_ms.unsigned_abs(), 1_000) <= self.seconds + 1.0
        };
        self.server.iter().filter(during)
    }

    /// Processors kept busy by the node, on average.
    pub(crate) fn node_cpu(&self) -> Option<f64> {
        let samples = self.node_at_work().count() as u64;
        (samples > 0).then(|| self.node_at_work().map(|sample| sample.cpu).sum::<f64>() / ratio(samples, 1))
    }

    /// The most memory of the node at any time of the run.
    pub(crate) fn node_bytes_most(&self) -> Option<u64> {
        let read = self.memory.readings.iter().map(|reading| reading.bytes);
        // 0 bytes stand for a failed reading.
        read.chain(self.server.iter().map(|sample| sample.resident_bytes)).max().filter(|bytes| *bytes > 0)
    }

    /// The verdict in a sentence.
    pub(crate) fn verdict_words(&self) -> String {
        let PublishedFigures { sent, ok, failed, unknown, .. } = self.published;
        let mut not_ok = String::new();
        if ok != sent {
            not_ok = format!("; but of {sent} messages {failed} were refused and {unknown} unknown");
        }
        if let Some(ReliableFigures { sent, durable, refused, unknown, .. }) = &self.reliable
            && durable != sent
        {
            not_ok += &format!("; of {sent} reliable messages {refused} were refused and {unknown} unknown");
        }
        match self.verdict {
            Verdict::Ok if self.devices == 0 => format!("ok: no device, so nothing was checked{not_ok}"),
            Verdict::Ok => format!("ok: nothing lost, twice, out of order or altered{not_ok}"),
            Verdict::GeneratorLimited => format!(
                "generator-limited: no promise was broken, but {}{not_ok}",
                self.generator.limit(self.lateness.p99_ms).unwrap_or_default()
            ),
            Verdict::Partial => format!(
                "PARTIAL: {}; no promise was broken until then{not_ok}",
                self.partial.as_deref().unwrap_or("ended early")
            ),
            Verdict::ThresholdFailed => {
                let failed = self.thresholds.iter().filter(|judged| !judged.holds).count();
                let asked = self.thresholds.len();
                format!("THRESHOLD FAILED: {failed} of {asked} thresholds; no promise was broken{not_ok}")
            }
            Verdict::NothingPublished => format!(
                "NOTHING PUBLISHED: none of {} messages was accepted, so nothing was checked",
                self.sent()
            ),
            Verdict::NothingJudged => {
                "NOTHING JUDGED: in each room all devices were away at once, so nothing was checked"
                    .to_owned()
            }
            Verdict::Violations => {
                let found =
                    self.violations.found().map(|(kind, found)| format!("{kind} {} times", found.count));
                let until = self.partial.iter().map(|partial| format!(" (partial: {partial})"));
                let until: String = until.collect();
                format!("VIOLATIONS: {}{until}", found.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, rooms, workers, payload_bytes, connect_ms, .. } = self;
        let Self { published, seen, workers_clock_error_ms: clock_error_ms, .. } = self;
        let encoding = self.encoding.subprotocol();
        if let Some(partial) = &self.partial {
            writeln!(f, "PARTIAL      {partial}: the figures cover the time until then")?;
        }
        writeln!(
            f,
            "devices      {devices} in {rooms} rooms, {workers} workers, {encoding} of {payload_bytes} bytes, \
             connected in {connect_ms} ms"
        )?;
        if *clock_error_ms > 0.0 {
            writeln!(f, "clocks       workers on other machines are at most {clock_error_ms:.3} ms off")?;
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
        write!(f, "{}", OverTime(self))?;
        for (name, figures) in [
            ("latency", &self.latency),
            ("first device", &self.first_to_last.first),
            ("last device", &self.first_to_last.last),
            ("join", &self.join),
            ("lateness", &self.lateness),
            ("answer", &self.answer),
        ] {
            // The line of the latency is always there: zeros show that nothing was measured.
            if figures.count > 0 || name == "latency" {
                write_latency(f, name, figures)?;
            }
        }
        if self.skew.rooms > 1 {
            let RoomSkew { rooms, median_p99_ms, worst_p99_ms, worst_room } = self.skew;
            writeln!(
                f,
                "rooms        p99 of the median of {rooms} rooms {median_p99_ms:.1} ms, \
                 of the worst (room {worst_room}) {worst_p99_ms:.1} ms"
            )?;
        }
        write!(f, "{}{}{}{}", self.moves, self.generator, self.memory, self.cpu)?;
        if self.types.is_worth_showing() {
            write!(f, "{}", self.types)?;
        }
        if let Some(reliable) = &self.reliable {
            write!(f, "{reliable}")?;
        }
        for judged in &self.thresholds {
            writeln!(f, "{judged}")?;
        }
        if !self.nodes.is_empty() || self.runs_changed > 0 {
            writeln!(f, "runs         {} changes in {rooms} rooms", self.runs_changed)?;
        }
        if self.judged_rooms.in_part > 0 {
            write!(f, "{}", self.judged_rooms)?;
        }
        writeln!(f, "verdict      {}", self.verdict_words())?;
        write!(f, "{}", self.violations)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An invented run: every promise kept, p99 120 ms, one message in fifty refused.
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
            let fault = FaultDone {
                at_ms: 3,
                took_ms: Some(2),
                name: None,
                run: "kill-nodee".into(),
                ended: ended.into(),
                holds,
            };
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
    fn a_run_in_which_no_room_was_judged_is_not_ok() {
        let report = made_up();
        let verdict = |whole, in_part, reliable: Option<&ReliableFigures>| {
            let rooms = JudgedRooms { whole, in_part };
            Verdict::of(&Violations::default(), &report.published, reliable, rooms, Some("late"))
        };
        assert_eq!(verdict(0, 4, None), Verdict::NothingJudged);
        assert_eq!(verdict(1, 3, None), Verdict::GeneratorLimited);
        assert_eq!(verdict(0, 0, None), Verdict::GeneratorLimited, "a run without devices");
        // The store was asked for the durable messages.
        assert_eq!(verdict(0, 4, report.reliable.as_ref()), Verdict::GeneratorLimited);
    }

    #[test]
    fn rooms_that_were_not_judged_are_told() {
        let told =
            |whole, in_part| Report { judged_rooms: JudgedRooms { whole, in_part }, ..made_up() }.to_string();
        assert!(told(3, 1).contains("not judged   missing messages in 1 of 4 rooms"), "{}", told(3, 1));
        assert!(!told(4, 0).contains("not judged"));
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
