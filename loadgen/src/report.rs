//! What a run found: the same figures for people and as JSON.

use std::fmt;

use serde::Serialize;

use crate::frame::Encoding;
use crate::latency::Percentiles;
use crate::ledger::Violations;
use crate::watch::Tally;

/// Lateness past which the figures say more about this machine than about the node.
pub(crate) const LATENESS_P99_MAX_MS: f64 = 20.0;

/// The report of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) devices: u32,
    pub(crate) rooms: u32,
    pub(crate) workers: usize,
    pub(crate) encoding: Encoding,
    pub(crate) payload_bytes: usize,
    pub(crate) messages_per_request: u32,
    pub(crate) rate_per_s: f64,
    pub(crate) seconds: f64,
    pub(crate) connect_ms: u64,
    pub(crate) published: PublishedFigures,
    pub(crate) seen: Tally,
    /// Messages of ours per batch frame.
    pub(crate) messages_per_frame: f64,
    /// From when a message was due to when a device had it; every device and message.
    pub(crate) latency: Percentiles,
    /// From when a message was due to when it left.
    pub(crate) lateness: Percentiles,
    /// From when a publish left to its answer.
    pub(crate) answer: Percentiles,
    pub(crate) verdict: Verdict,
    pub(crate) violations: Violations,
}

/// How publishing went.
#[derive(Debug, Serialize)]
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

impl PublishedFigures {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Every promise was kept.
    Ok,
    /// Every promise was kept, but this machine published late: the latencies are its own.
    GeneratorLimited,
    /// Not one message was accepted, so nothing was proved.
    NothingPublished,
    /// A promise was broken.
    Violations,
}

impl Verdict {
    /// The verdict on these. Messages that were refused or are unknown break no promise while others were accepted.
    #[must_use]
    pub(crate) fn of(violations: &Violations, published: &PublishedFigures, lateness: Percentiles) -> Self {
        if !violations.is_empty() {
            Self::Violations
        } else if published.ok == 0 && published.sent > 0 {
            Self::NothingPublished
        } else if lateness.p99_ms > LATENESS_P99_MAX_MS {
            Self::GeneratorLimited
        } else {
            Self::Ok
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
        for (name, figures) in
            [("latency", &self.latency), ("lateness", &self.lateness), ("answer", &self.answer)]
        {
            writeln!(
                f,
                "{name:<12} p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms ({})",
                figures.p50_ms, figures.p99_ms, figures.p999_ms, figures.max_ms, figures.count
            )?;
        }
        let not_ok = published.not_ok();
        match self.verdict {
            Verdict::Ok if self.devices == 0 => writeln!(f, "verdict      ok: nothing was watched{not_ok}"),
            Verdict::Ok => {
                writeln!(f, "verdict      ok: nothing lost, twice, out of order or altered{not_ok}")
            }
            Verdict::GeneratorLimited => writeln!(
                f,
                "verdict      generator-limited: no violation, but messages left later than {LATENESS_P99_MAX_MS} ms \
                 after they were due{not_ok}"
            ),
            Verdict::NothingPublished => writeln!(
                f,
                "verdict      NOTHING PUBLISHED: not one of {} messages was accepted, so nothing was proved",
                published.sent
            ),
            Verdict::Violations => write!(f, "verdict      VIOLATIONS\n{}", self.violations),
        }
    }
}
