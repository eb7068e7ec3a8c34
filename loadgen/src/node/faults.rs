//! A scenario's faults: shell commands against the node, each at its time on a thread of its own.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{monotonic_ns, sleep_until};
use crate::scenario::plan::Fault;

/// Most time for all commands to end after the run. Past this time the report calls a command still running, and
/// leaves the process alone.
const AFTER_END_NS: u64 = 5_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultDone {
    /// Begin, after the start.
    pub(crate) at_ms: u64,
    pub(crate) run: String,
    /// Exit status in words, or the error.
    pub(crate) ended: String,
    /// False where the command failed or never started.
    #[serde(default)]
    pub(crate) holds: bool,
}

#[derive(Debug)]
pub(crate) struct Faults {
    faults: Vec<(Fault, Receiver<FaultDone>)>,
    start_ns: u64,
}

impl Faults {
    /// Starts a thread for each fault.
    pub(crate) fn begin(faults: &[Fault], start_ns: u64) -> Self {
        let begun = faults.iter().map(|fault| {
            let (sender, done) = channel();
            let waiting = fault.clone();
            std::thread::spawn(move || drop(sender.send(carry_out(waiting, start_ns))));
            (fault.clone(), done)
        });
        Self { faults: begun.collect(), start_ns }
    }

    /// Waits for the commands under way until `until_ns`, and at most [`AFTER_END_NS`].
    pub(crate) fn end(self, until_ns: u64) -> Vec<FaultDone> {
        let ended_ns = monotonic_ns();
        let deadline_ns = until_ns.min(ended_ns + AFTER_END_NS);
        let done = |(fault, done): (Fault, Receiver<FaultDone>)| {
            // A run that a signal ended early begins no later fault, so nothing is awaited.
            let is_begun = self.start_ns + fault.at.ms() * 1_000_000 <= ended_ns;
            let left_ns = if is_begun { deadline_ns.saturating_sub(monotonic_ns()) } else { 0 };
            let left = Duration::from_nanos(left_ns);
            let ended = if is_begun { "still running after the run" } else { "not begun" };
            let still =
                || FaultDone { at_ms: fault.at.ms(), run: fault.run, ended: ended.into(), holds: is_begun };
            // The deadline is shared, so many stuck commands delay the report as little as one.
            done.recv_timeout(left).unwrap_or_else(|_| still())
        };
        self.faults.into_iter().map(done).collect()
    }
}

fn carry_out(fault: Fault, start_ns: u64) -> FaultDone {
    sleep_until(start_ns + fault.at.ms() * 1_000_000);
    let at_ms = monotonic_ns().saturating_sub(start_ns) / 1_000_000;
    // stdout belongs to the report, so the command's output is dropped.
    let status =
        Command::new("sh").arg("-c").arg(&fault.run).stdin(Stdio::null()).stdout(Stdio::null()).status();
    let holds = status.as_ref().is_ok_and(ExitStatus::success);
    let ended = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    FaultDone { at_ms, run: fault.run, ended, holds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::units::Span;

    #[test]
    fn a_command_runs_and_says_how_it_ended() {
        let fault = |run: &str| Fault { at: Span::default(), run: run.into() };
        let done = Faults::begin(&[fault("exit 3"), fault("true")], monotonic_ns()).end(u64::MAX);
        let ended: Vec<&str> = done.iter().map(|done| &*done.ended).collect();
        assert_eq!(ended, ["exit status: 3", "exit status: 0"]);
        assert_eq!([done[0].holds, done[1].holds], [false, true]);
    }

    #[test]
    fn a_command_that_was_not_due_yet_is_not_awaited() {
        let later = Fault { at: Span::of_seconds(600), run: "true".into() };
        let done = Faults::begin(&[later], monotonic_ns()).end(u64::MAX);
        assert_eq!((&*done[0].ended, done[0].holds), ("not begun", false));
    }
}
