//! The only reader of the clock in the load generator.
//!
//! `CLOCK_MONOTONIC` counts from the same moment in every process of a machine, so a time that the publisher wrote
//! into a payload can be subtracted from a time that a worker process read. `std::time::Instant` can't cross a process.
//! A worker on another machine has another such clock: it is told how far that is from its coordinator's, once, before it
//! does anything, and from then on every time it names is of the coordinator's clock.

use std::sync::atomic::{AtomicI64, Ordering};

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// How far this machine's clock is ahead of the coordinator's.
static AHEAD_NS: AtomicI64 = AtomicI64::new(0);

/// This process's clock is so far ahead of its coordinator's: from here on it reads as the coordinator's does.
pub(crate) fn is_ahead_by(ahead_ns: i64) {
    AHEAD_NS.store(ahead_ns, Ordering::Relaxed);
}

/// Nanoseconds of the coordinator's `CLOCK_MONOTONIC`.
#[must_use]
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC).saturating_add_signed(-AHEAD_NS.load(Ordering::Relaxed))
}

/// Milliseconds since 1970: for reports of several programs on one axis of time, and for nothing else.
#[must_use]
pub(crate) fn unix_ms() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME) / 1_000_000
}

/// Nanoseconds for which the calling thread had a processor so far, the kernel's work for it included.
#[must_use]
pub(crate) fn thread_processor_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Sleeps until a time of [`monotonic_ns`]; not at all where it has passed.
pub(crate) fn sleep_until(time_ns: u64) {
    let time_ns = time_ns.saturating_add_signed(AHEAD_NS.load(Ordering::Relaxed));
    let seconds = i64::try_from(time_ns / 1_000_000_000).unwrap_or(i64::MAX);
    let part_ns = i64::try_from(time_ns % 1_000_000_000).unwrap_or(0);
    let flags = ClockNanosleepFlags::TIMER_ABSTIME;
    let time = TimeSpec::new(seconds, part_ns);
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &time) == Err(Errno::EINTR) {}
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("Linux always has this clock");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).unwrap_or(0)
}
