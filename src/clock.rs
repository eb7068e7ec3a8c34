//! The only reader of clocks. Everything else is given `Now`, or what it needs to know of its own cost.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// One reading of both clocks: the monotonic one that deadlines are kept in, and the wall clock that devices see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic; never goes back.
    pub instant: Instant,
    /// Wall clock, milliseconds since 1970; may jump.
    pub unix_ms: u64,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn read() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { instant: Instant::now(), unix_ms: millis(since_1970) }
    }

    /// The same reading, `by` later on both clocks; for simulated worlds.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self { instant: self.instant + by, unix_ms: self.unix_ms.saturating_add(millis(by)) }
    }
}

/// Processor time that this process has used so far, in all its threads, the kernel's work for it included. Read by
/// clock, not by `getrusage`, which may count in ticks.
#[must_use]
pub fn node_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or(Duration::ZERO)
}

/// The same of this thread.
#[must_use]
pub fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or(Duration::ZERO)
}

/// A duration in whole milliseconds, rounded down; longer ones than integers hold are as long as those.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
