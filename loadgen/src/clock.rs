//! The only reader of the clock in the load generator.
//!
//! `CLOCK_MONOTONIC` counts from the same moment in every process of a machine, so a time that the publisher wrote
//! into a payload can be subtracted from a time that a worker process read. `std::time::Instant` can't cross a process.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux always has this clock");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}
