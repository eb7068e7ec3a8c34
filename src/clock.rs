//! The only reader of clocks. All other code is given a [`Now`], or reads its own processor time here.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roomcast_core::now::{Now, millis};
use rustix::time::{ClockId, clock_gettime};

/// Reads the monotonic clock and the wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Now { instant: Instant::now(), unix_ms: millis(since_1970) }
}

/// Processor time that this process has used, in all its threads, the kernel's work for it included.
///
/// The value comes from a clock. `getrusage` may count in ticks of 4 ms.
#[must_use]
pub fn node_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or(Duration::ZERO)
}

/// Processor time that the calling thread has used, the kernel's work for it included.
#[must_use]
pub fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or(Duration::ZERO)
}
