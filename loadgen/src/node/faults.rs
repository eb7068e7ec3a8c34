//! A scenario's faults: shell commands against a node or a NATS server, each at its time on a thread of its own.

use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock::{monotonic_ns, sleep_until};
use crate::scenario::faults::Fault;

/// Longest time of a command. Past this time the command is killed, with all processes of its group.
const COMMAND_AGE_MAX_NS: u64 = 60_000_000_000;
/// Most time for all commands to end after the run. Past this time they are killed.
const AFTER_END_NS: u64 = 5_000_000_000;
/// Time between two looks at a command.
const LOOK_NS: u64 = 5_000_000;
/// Time for the word of a thread whose command was killed.
const WORD_NS: u64 = 1_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultDone {
    /// Begin, after the start.
    pub(crate) at_ms: u64,
    /// From the begin to the end of the command; `None` for a fault that did not begin.
    #[serde(default)]
    pub(crate) took_ms: Option<u64>,
    /// The action and its target; `None` for a command without a name.
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) run: String,
    /// Exit status in words, or the error.
    pub(crate) ended: String,
    /// False where the command failed, hung or never started.
    #[serde(default)]
    pub(crate) holds: bool,
}

impl FaultDone {
    /// The action and its target, or the command.
    pub(crate) fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.run)
    }
}

#[derive(Debug)]
pub(crate) struct Faults {
    faults: Vec<(Fault, Receiver<FaultDone>)>,
    start_ns: u64,
    /// No command begins or goes on past this time.
    until_ns: Arc<AtomicU64>,
}

impl Faults {
    /// Starts a thread for each fault.
    pub(crate) fn begin(faults: &[Fault], start_ns: u64) -> Self {
        let until_ns = Arc::new(AtomicU64::new(u64::MAX));
        let begun = faults.iter().map(|fault| {
            let (sender, done) = channel();
            let waiting = fault.clone();
            let until_ns = Arc::clone(&until_ns);
            std::thread::spawn(move || drop(sender.send(carry_out(waiting, start_ns, &until_ns))));
            (fault.clone(), done)
        });
        Self { faults: begun.collect(), start_ns, until_ns }
    }

    /// Waits for the commands under way until `until_ns`, and at most [`AFTER_END_NS`].
    pub(crate) fn end(self, until_ns: u64) -> Vec<FaultDone> {
        let ended_ns = monotonic_ns();
        let deadline_ns = until_ns.min(ended_ns + AFTER_END_NS);
        self.until_ns.store(deadline_ns, Ordering::Relaxed);
        let done = |(fault, done): (Fault, Receiver<FaultDone>)| {
            // A run that a signal ended early begins no later fault, so nothing is awaited.
            let is_begun = self.start_ns + fault.at.ms() * 1_000_000 <= ended_ns;
            let left_ns = if is_begun { (deadline_ns + WORD_NS).saturating_sub(monotonic_ns()) } else { 0 };
            // The deadline is shared, so many stuck commands delay the report as little as one.
            let done = done.recv_timeout(Duration::from_nanos(left_ns));
            done.unwrap_or_else(|_| not_begun(fault))
        };
        self.faults.into_iter().map(done).collect()
    }
}

fn not_begun(Fault { at, name, run }: Fault) -> FaultDone {
    FaultDone { at_ms: at.ms(), took_ms: None, name, run, ended: "not begun".into(), holds: false }
}

fn carry_out(fault: Fault, start_ns: u64, until_ns: &AtomicU64) -> FaultDone {
    sleep_until(start_ns + fault.at.ms() * 1_000_000);
    let begun_ns = monotonic_ns();
    if begun_ns > until_ns.load(Ordering::Relaxed) {
        return not_begun(fault);
    }
    // stdout belongs to the report, so the command's output is dropped. The group makes all of a shell's processes end
    // together, and keeps a terminal's Ctrl-C from them.
    let mut command = Command::new("sh");
    command.arg("-c").arg(&fault.run).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let ended = command.spawn().map_err(|error| error.to_string());
    let ended = ended.and_then(|mut child| await_end(&mut child, begun_ns + COMMAND_AGE_MAX_NS, until_ns));
    let ms = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) / 1_000_000;
    FaultDone {
        at_ms: ms(start_ns, begun_ns),
        took_ms: Some(ms(begun_ns, monotonic_ns())),
        name: fault.name,
        run: fault.run,
        holds: ended.is_ok(),
        ended: ended.unwrap_or_else(|why| why),
    }
}

/// Waits for the end of a command, and kills the command past a limit. Gives the exit status in words.
fn await_end(child: &mut Child, limit_ns: u64, until_ns: &AtomicU64) -> Result<String, String> {
    let killed_because = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(status.to_string()),
            Ok(Some(status)) => return Err(status.to_string()),
            Ok(None) => {}
            Err(error) => break error.to_string(),
        }
        let now_ns = monotonic_ns();
        if now_ns > until_ns.load(Ordering::Relaxed) {
            break "still running after the run".to_owned();
        }
        if now_ns > limit_ns {
            break format!("still running after {} s", COMMAND_AGE_MAX_NS / 1_000_000_000);
        }
        sleep_until(now_ns + LOOK_NS);
    };
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    // A process of another user, as after `sudo`, is not this program's to kill: nobody may wait for its end.
    killpg(group, Signal::SIGKILL).map_err(|errno| format!("not killed ({errno}): {killed_because}"))?;
    drop(child.wait());
    Err(format!("killed: {killed_because}"))
}

impl fmt::Display for FaultDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} ms: {}: {}", self.at_ms, self.title(), self.ended)?;
        self.took_ms.map_or(Ok(()), |took_ms| write!(f, ", took {took_ms} ms"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::scenario::units::Span;

    fn fault(run: &str) -> Fault {
        Fault { at: Span::default(), name: Some("kill node-1".into()), run: run.into() }
    }

    #[test]
    fn a_command_runs_and_says_how_it_ended() {
        let done = Faults::begin(&[fault("exit 3"), fault("true")], monotonic_ns()).end(u64::MAX);
        let ended: Vec<&str> = done.iter().map(|done| &*done.ended).collect();
        assert_eq!(ended, ["exit status: 3", "exit status: 0"]);
        assert_eq!([done[0].holds, done[1].holds], [false, true]);
        assert!(done[0].took_ms.is_some() && done[0].title() == "kill node-1", "{done:?}");
    }

    #[test]
    fn a_command_that_was_not_due_yet_is_not_awaited() {
        let later = Fault { at: Span::of_seconds(600), ..fault("true") };
        let done = Faults::begin(&[later], monotonic_ns()).end(u64::MAX);
        assert_eq!((&*done[0].ended, done[0].holds, done[0].took_ms), ("not begun", false, None));
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children_and_fails() {
        for (limit_ns, until_ns, why) in [
            (0, u64::MAX, "killed: still running after 60 s"),
            (u64::MAX, 0, "killed: still running after the run"),
        ] {
            let mut hung = Command::new("sh");
            hung.args(["-c", "sleep 600 & wait"]).process_group(0).stdout(Stdio::piped());
            let mut hung = hung.spawn().unwrap();
            let mut said = hung.stdout.take().unwrap();
            assert_eq!(await_end(&mut hung, limit_ns, &AtomicU64::new(until_ns)), Err(why.to_owned()));
            // The pipe ends with the last process that holds it.
            assert_eq!(said.read_to_end(&mut Vec::new()).unwrap(), 0);
        }
    }
}
