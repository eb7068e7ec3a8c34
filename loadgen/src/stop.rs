//! Ctrl-C and SIGTERM: the first signal ends publishing and asks for the figures so far, the second ends the
//! command.
//!
//! The signals are blocked in every thread and taken by a thread of their own. Child processes begin with an
//! empty mask, and workers with a process group of their own, so a terminal's Ctrl-C reaches no worker.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

/// Exit code of a command that a signal ended: 128 and the number of SIGINT, as shells count.
pub(crate) const EXIT_STOPPED: u8 = 130;

static WANTED: AtomicBool = AtomicBool::new(false);

/// Takes both signals from now on. Called before the command starts a thread: later threads inherit the mask.
///
/// # Errors
/// When the kernel refuses the mask.
pub(crate) fn watch() -> std::io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        // A failed wait leaves the signals blocked: the run still ends by its own limits.
        while signals.wait().is_ok() {
            if WANTED.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(EXIT_STOPPED));
            }
            drop(writeln!(
                std::io::stderr(),
                "stopping: nothing more is published, the figures so far follow; once more ends at once"
            ));
        }
    });
    Ok(())
}

/// A signal came: publishing ends, and the figures so far are the result.
pub(crate) fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}
