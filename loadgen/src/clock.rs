//! The only reader of the clock in the load generator.
//!
//! `CLOCK_MONOTONIC` counts from the same moment in every process of a machine. So a time written into a
//! payload by the publisher can be subtracted from a time read by a worker process, which
//! `std::time::Instant` does not allow. A worker on another machine has another such clock. The coordinator
//! measures the difference once, before the worker connects, and every later time of the worker is a time of
//! the coordinator's clock.

use std::sync::atomic::{AtomicI64, Ordering};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// Lead of this machine's clock over the coordinator's.
static AHEAD_NS: AtomicI64 = AtomicI64::new(0);

/// Sets the lead of this machine's clock over the coordinator's. Later readings are of the coordinator's
/// clock.
pub(crate) fn is_ahead_by(ahead_ns: i64) {
    AHEAD_NS.store(ahead_ns, Ordering::Relaxed);
}

/// Nanoseconds of the coordinator's `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC).saturating_add_signed(-AHEAD_NS.load(Ordering::Relaxed))
}

/// Milliseconds since 1970: only for reports of several programs on one axis of time.
pub(crate) fn unix_ms() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME) / 1_000_000
}

/// Processor time of the calling thread in ns, the kernel's work for the thread included.
pub(crate) fn thread_processor_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Sleeps until a time of [`monotonic_ns`]; a time in the past returns at once.
pub(crate) fn sleep_until(time_ns: u64) {
    let time_ns = time_ns.saturating_add_signed(AHEAD_NS.load(Ordering::Relaxed));
    let seconds = i64::try_from(time_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let part_ns = i64::try_from(time_ns % 1_000_000_000).unwrap_or(0);
    let flags = ClockNanosleepFlags::TIMER_ABSTIME;
    let time = TimeSpec::new(seconds, part_ns);
    // A signal ends the sleep early.
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &time) == Err(Errno::EINTR) {}
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("Linux always has this clock");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}
