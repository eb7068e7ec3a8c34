//! `roomcast-loadgen run`: look at the doors, connect, publish, settle the ledger, report.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::args::Plan;
use crate::clock::monotonic_ns;
use crate::fleet::Fleet;
use crate::latency::Latency;
use crate::ledger::{Kind, Published, RoomSeen, Violations, check};
use crate::payload::Payloads;
use crate::publisher::{self, Outcomes};
use crate::report::{PublishedFigures, Report, Verdict};
use crate::watch::Tally;
use crate::worker::{Order, Outcome, room_name};

/// From telling the workers the start to the start.
const LEAD_NS: u64 = 300_000_000;
/// After the last answer, how long devices may take to get what they are owed: the longest gather window is a second,
/// a behind device has its refresh within a few.
const GRACE_MS: u64 = 6_000;

/// Why a run gave no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// What was typed can't be done.
    #[error("{0}")]
    Usage(String),
    /// What was named can't be reached, or is not roomcast.
    #[error("{0}")]
    Target(String),
}

/// Runs `plan` and reports on stdout, and to the JSON file.
///
/// # Errors
/// [`RunError`], when no verdict could be reached.
pub(crate) fn run(plan: &Plan) -> Result<Verdict, RunError> {
    look_at_doors(plan).map_err(RunError::Target)?;
    let begun_ns = monotonic_ns();
    let mut fleet = Fleet::start(plan).map_err(RunError::Usage)?;
    let at_viewer_door = |reason| RunError::Target(format!("viewer door {}: {reason}", plan.viewer_door));
    fleet
        .await_ready(plan.connect_seconds, |connected| {
            drop(writeln!(std::io::stderr(), "connected {connected} of {} devices", plan.devices));
        })
        .map_err(at_viewer_door)?;
    let connect_ms = (monotonic_ns() - begun_ns) / 1_000_000;
    let mut schedule = plan.schedule;
    schedule.start_ns = monotonic_ns() + LEAD_NS;
    fleet.order_all(&Order::Start { start_ns: schedule.start_ns }).map_err(at_viewer_door)?;
    fleet.await_started().map_err(at_viewer_door)?;
    let publishing = publisher::Plan {
        door: plan.publisher_door.clone(),
        encoding: plan.encoding,
        publisher_key: plan.publisher_key.clone(),
        room_names: (0..schedule.rooms).map(|room| room_name(&plan.room_stem, room)).collect(),
        payloads: Payloads::new(plan.payload_bytes, plan.seed),
    };
    let publishing = std::thread::spawn(move || publisher::publish(publishing, Published::new(schedule)));
    let outcomes = publishing
        .join()
        .map_err(|_| RunError::Target("the publisher broke down".into()))?
        .map_err(|error| RunError::Target(format!("publisher door {}: {error}", plan.publisher_door)))?;
    let took_ms = monotonic_ns().saturating_sub(schedule.start_ns) / 1_000_000;
    let accepted = outcomes.published.ok_by_room();
    fleet.order_all(&Order::Finish { accepted, grace_ms: GRACE_MS }).map_err(at_viewer_door)?;
    let results = fleet.await_results(GRACE_MS).map_err(at_viewer_door)?;
    let (workers, figures) = (fleet.len(), Times { connect_ms, took_ms });
    drop(fleet);
    let report = settle(plan, workers, figures, &outcomes, results);
    publish_report(plan, &report).map_err(|error| RunError::Usage(format!("writing the report: {error}")))?;
    Ok(report.verdict)
}

#[derive(Debug, Clone, Copy)]
struct Times {
    connect_ms: u64,
    took_ms: u64,
}

/// Whether roomcast is behind the doors, as far as one question each can tell.
fn look_at_doors(plan: &Plan) -> Result<(), String> {
    let ready = plan.ops_door.ask("/readyz", None);
    match ready {
        Ok(200) => {}
        Ok(503) => return Err(format!("operator door {}: the node is not ready", plan.ops_door)),
        Ok(code) => {
            return Err(format!("operator door {}: /readyz answers {code}, not roomcast", plan.ops_door));
        }
        Err(reason) => return Err(format!("operator door {}: {reason}", plan.ops_door)),
    }
    match plan.publisher_door.ask("/v1/rooms?limit=1", plan.publisher_key.as_deref()) {
        Ok(200) => Ok(()),
        Ok(401 | 403) => {
            Err(format!("publisher door {}: wants another --publisher-key", plan.publisher_door))
        }
        Ok(code) => {
            Err(format!("publisher door {}: /v1/rooms answers {code}, not roomcast", plan.publisher_door))
        }
        Err(reason) => Err(format!("publisher door {}: {reason}", plan.publisher_door)),
    }
}

/// Merges what the workers saw and judges it against what was published.
fn settle(plan: &Plan, workers: usize, times: Times, outcomes: &Outcomes, results: Vec<Outcome>) -> Report {
    let (mut seen, mut latency, mut violations) =
        (Tally::default(), Latency::default(), Violations::default());
    let mut rooms: BTreeMap<u32, RoomSeen> = BTreeMap::new();
    for result in results {
        seen.frames += result.tally.frames;
        seen.deliveries += result.tally.deliveries;
        seen.skipped += result.tally.skipped;
        seen.decoded += result.tally.decoded;
        seen.bytes += result.tally.bytes;
        latency.merge(&result.latency);
        violations.merge(result.violations);
        for room in result.rooms {
            let index = room.room;
            let run = room.run.clone();
            let merged = rooms.entry(index).or_insert_with(|| RoomSeen::new(index));
            let conflicts = merged.merge(room);
            violations.add(Kind::Altered, conflicts.len() as u64, || {
                format!("room {index}: batches {conflicts:?} were others for devices of other workers")
            });
            if merged.run != run {
                violations.add(Kind::Altered, 1, || format!("room {index}: runs {run} and {}", merged.run));
            }
        }
    }
    for room in rooms.values() {
        check(&outcomes.published, room, &mut violations);
    }
    let ended = outcomes.published.outcomes();
    let lateness = outcomes.lateness.percentiles();
    let published = PublishedFigures {
        sent: ended.ok + ended.refused + ended.unknown,
        ok: ended.ok,
        failed: ended.refused,
        unknown: ended.unknown,
        took_ms: times.took_ms,
        troubles: outcomes.troubles.clone(),
    };
    let verdict = Verdict::of(&violations, &published, lateness);
    Report {
        devices: plan.devices,
        rooms: plan.schedule.rooms,
        workers,
        encoding: plan.encoding,
        payload_bytes: plan.payload_bytes,
        messages_per_request: plan.schedule.messages_per_request,
        rate_per_s: ratio(plan.schedule.rate_milli, 1_000),
        seconds: ratio(plan.seconds_milli, 1_000),
        connect_ms: times.connect_ms,
        published,
        seen,
        messages_per_frame: ratio(seen.deliveries, seen.frames),
        latency: latency.percentiles(),
        lateness,
        answer: outcomes.answer_latency.percentiles(),
        verdict,
        violations,
    }
}

/// A ratio for people; 0 where there is nothing to divide by.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn publish_report(plan: &Plan, report: &Report) -> std::io::Result<()> {
    write!(std::io::stdout(), "{report}")?;
    if let Some(path) = &plan.json {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)?;
    }
    Ok(())
}
