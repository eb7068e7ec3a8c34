//! The time in the core: a value that the shell reads and passes in. The core reads no clock.

use std::time::{Duration, Instant};

/// A reading of both clocks: the monotonic clock of deadlines, and the wall clock of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time; never goes back.
    pub instant: Instant,
    /// Wall clock in unix milliseconds; may jump either way.
    pub unix_ms: u64,
}

impl Now {
    /// The same reading, `by` later on both clocks. Simulated worlds move time with this function.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        Self { instant: self.instant + by, unix_ms: self.unix_ms.saturating_add(millis(by)) }
    }

    /// A made-up moment for unit tests. The standard library makes an `Instant` only by reading the clock.
    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "there is no other way to an instant")]
    pub(crate) fn made_up() -> Self {
        Self { instant: Instant::now(), unix_ms: 1_800_000_000_000 }
    }
}

/// A duration in whole milliseconds, rounded down, at most `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
