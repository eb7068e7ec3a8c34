//! The ends of child processes.

use std::process::Child;

use crate::clock::{monotonic_ns, sleep_until};

/// Time between two looks at a child.
const LOOK_NS: u64 = 2_000_000;

/// Waits for the end of a child until `deadline_ns`, and kills the child past this time.
///
/// A stopped child (SIGSTOP) reads no end of its stdin, so an unbounded wait would hang the command.
pub(crate) fn end_by(child: &mut Child, deadline_ns: u64) {
    while matches!(child.try_wait(), Ok(None)) && monotonic_ns() < deadline_ns {
        sleep_until(monotonic_ns() + LOOK_NS);
    }
    // A child that ended by itself is no longer there to kill.
    drop(child.kill());
    drop(child.wait());
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_stopped_child_holds_nobody_up() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGSTOP).unwrap();
        end_by(&mut child, monotonic_ns());
        assert!(!child.try_wait().unwrap().unwrap().success());
    }
}
