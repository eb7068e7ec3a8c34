//! What a scenario does to the node: commands for the shell, each at its time, on threads of their own.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{monotonic_ns, sleep_until};
use crate::scenario::plan::Fault;

/// How long after the run's end commands may still be running, all together. Past it the report says so, and it is left alone.
const AFTER_END_NS: u64 = 5_000_000_000;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultDone {
    /// When it began, after the start.
    pub(crate) at_ms: u64,
    pub(crate) run: String,
    /// Its exit, in words.
    pub(crate) ended: String,
    /// It ran, and did not end other than with success.
    #[serde(default)]
    pub(crate) holds: bool,
}

/// Commands that wait for their time, or run.
#[derive(Debug)]
pub(crate) struct Faults(Vec<(Fault, Receiver<FaultDone>)>);

impl Faults {
    /// Each waits for its time on a thread of its own.
    pub(crate) fn begin(faults: &[Fault], start_ns: u64) -> Self {
        let begun = faults.iter().map(|fault| {
            let (sender, done) = channel();
            let waiting = fault.clone();
            std::thread::spawn(move || drop(sender.send(carry_out(waiting, start_ns))));
            (fault.clone(), done)
        });
        Self(begun.collect())
    }

    /// What became of each.
    pub(crate) fn end(self) -> Vec<FaultDone> {
        let deadline_ns = monotonic_ns() + AFTER_END_NS;
        let done = |(fault, done): (Fault, Receiver<FaultDone>)| {
            let left = Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns()));
            let still = || FaultDone {
                at_ms: fault.at.ms(),
                run: fault.run,
                ended: "still running after the run".into(),
                holds: true,
            };
            done.recv_timeout(left).unwrap_or_else(|_| still())
        };
        self.0.into_iter().map(done).collect()
    }
}

fn carry_out(fault: Fault, start_ns: u64) -> FaultDone {
    sleep_until(start_ns + fault.at.ms() * 1_000_000);
    let at_ms = monotonic_ns().saturating_sub(start_ns) / 1_000_000;
    // Its output is no part of the report, which stdout belongs to.
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
        let done = Faults::begin(&[fault("exit 3"), fault("true")], monotonic_ns()).end();
        let ended: Vec<&str> = done.iter().map(|done| &*done.ended).collect();
        assert_eq!(ended, ["exit status: 3", "exit status: 0"]);
        assert_eq!([done[0].holds, done[1].holds], [false, true]);
    }
}
