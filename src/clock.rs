//! The only reader of clocks. All other code gets a [`Now`] as an argument, or reads its own processor time
//! here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roomcast_core::now::{Now, millis};
use rustix::time::{ClockId, clock_gettime};

/// Reads the monotonic clock and the wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Now {
    // A clock set before 1970 counts as 1970: a wrong clock must not stop the node.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Now { instant: Instant::now(), unix_ms: millis(since_1970) }
}

/// Time for which the machine has been suspended since its start. [`Now::instant`] stands still meanwhile.
pub(crate) fn suspended() -> Duration {
    // In this order, so that a pause between the two readings is no suspension.
    let boot = since_boot();
    boot.saturating_sub(Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or(Duration::ZERO))
}

/// Time since the machine's boot, with the time of suspensions.
pub(crate) fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or(Duration::ZERO)
}

/// The processor time of this process, in all its threads, with the kernel's work for the process.
pub(crate) fn node_cpu() -> Duration {
    // A clock, since `getrusage` may count in ticks of 4 ms.
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or(Duration::ZERO)
}

/// The processor time of the calling thread, with the kernel's work for the thread.
pub(crate) fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or(Duration::ZERO)
}
