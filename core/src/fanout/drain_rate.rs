//! The rate at which one device takes bytes: how large a frame a connection may begin, how much may be owed to
//! it, and how much the kernel may hold for it.
//!
//! Pure. A quiet room says nothing about its devices, so a slow trickle is no sample. Two things are:
//!
//! - the bytes acknowledged between two refusals of the socket, which was full throughout;
//! - the bytes acknowledged over the time in which the kernel had bytes to send: the device takes at least that.

use std::time::Duration;

use crate::limits::{
    FAST_RATE_MIN, FRAME_AGE_MAX, KERNEL_UNSENT_AGE_MAX, KERNEL_UNSENT_BYTES_MAX, KERNEL_UNSENT_BYTES_MIN,
    OUTBOX_RATE_AGE_MAX, PROOF_BYTES, RATE_PRESUMED, SMALL_FRAME_BYTES_MAX,
};

/// Step of the low mark, in bytes: a smaller change is not worth a system call.
const MARK_STEP: u32 = 4 * 1024;

/// Bytes a second taken by a device, smoothed. Kept for the life of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainRate {
    bytes_per_second: u32,
    /// Bytes to measure before the rate counts. 0: the rate is proven.
    unproven_bytes: u16,
}

/// Counts of the kernel about one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes in the kernel without an acknowledgement of the peer's.
    pub queued: u64,
    /// Bytes acknowledged by the peer's kernel so far.
    pub acked: u64,
    /// Time so far in which the kernel had bytes to send, or to have acknowledged.
    pub busy: Duration,
}

impl DrainRate {
    /// Rate of a new connection: presumed, not proven.
    pub const UNPROVEN: Self = Self { bytes_per_second: RATE_PRESUMED, unproven_bytes: PROOF_BYTES };

    /// Adds the bytes that the device acknowledged between two refusals of its socket.
    pub fn sample(&mut self, bytes: usize, between: Duration) {
        let measured = per_second(bytes as u64, between);
        // A device that moves to a slow network is believed at once, another one by and by.
        let smoothed = self.bytes_per_second.midpoint(measured).min(measured.saturating_mul(2));
        self.bytes_per_second = smoothed.max(1);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.unproven_bytes = self.unproven_bytes.saturating_sub(bytes);
    }

    /// Adds what the kernel counted between two looks. A lower bound: it proves a device fast, and never slow.
    pub fn bear_out(&mut self, before: Progress, after: Progress) {
        let acked = after.acked.saturating_sub(before.acked);
        let at_least = per_second(acked, after.busy.saturating_sub(before.busy));
        // Few bytes pass any link at once, and half an estimate of a slow link is no proof of a fast one.
        if acked >= PROOF_BYTES_ACKED && at_least >= 2 * RATE_PRESUMED {
            self.bytes_per_second = self.bytes_per_second.max(at_least);
            self.unproven_bytes = 0;
        }
    }

    /// True if the device takes any frame fast enough.
    #[must_use]
    pub fn is_fast(&self) -> bool {
        self.is_proven() && self.bytes_per_second >= FAST_RATE_MIN
    }

    /// True if enough was measured for the rate to count.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.unproven_bytes == 0
    }

    /// Bytes of the largest frame that the connection may begin while it is owed nothing.
    #[must_use]
    pub fn frame_room(&self) -> usize {
        self.bytes_in(FRAME_AGE_MAX).max(SMALL_FRAME_BYTES_MAX)
    }

    /// Bytes that may be owed to the connection at once.
    #[must_use]
    pub fn outbox_room(&self) -> usize {
        self.bytes_in(OUTBOX_RATE_AGE_MAX)
    }

    /// Bytes without a send that the kernel may hold (`TCP_NOTSENT_LOWAT`), in steps of 4 KiB.
    #[must_use]
    pub fn low_mark(&self) -> u32 {
        if !self.is_proven() {
            return KERNEL_UNSENT_BYTES_MIN;
        }
        let bytes = u32::try_from(self.bytes_in(KERNEL_UNSENT_AGE_MAX)).unwrap_or(u32::MAX);
        (bytes / MARK_STEP * MARK_STEP).clamp(KERNEL_UNSENT_BYTES_MIN, KERNEL_UNSENT_BYTES_MAX)
    }

    fn bytes_in(&self, time: Duration) -> usize {
        let rate = if self.is_proven() { self.bytes_per_second } else { RATE_PRESUMED };
        let bytes = u128::from(rate) * time.as_millis() / 1000;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// Acknowledged bytes that bear a rate out: most of a small frame.
const PROOF_BYTES_ACKED: u64 = 6_000;

fn per_second(bytes: u64, time: Duration) -> u32 {
    let rate = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
    u32::try_from(rate).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_device_is_presumed_slow_until_sixteen_kibibytes_have_drained() {
        let mut rate = DrainRate::UNPROVEN;
        assert_eq!((rate.frame_room(), rate.outbox_room(), rate.low_mark()), (8_000, 6_000, 4096));
        rate.sample(15 * KIB, Duration::from_millis(10));
        assert!(!rate.is_proven());
        assert_eq!(rate.frame_room(), 8_000);
        rate.sample(KIB, Duration::from_millis(1));
        assert!(rate.is_fast());
        assert_eq!(rate.low_mark(), 16 * 1024);
    }

    #[test]
    fn a_device_that_moves_to_a_slow_network_is_believed_after_one_sample() {
        let mut rate = DrainRate::UNPROVEN;
        rate.sample(1024 * KIB, Duration::from_secs(1));
        assert!(rate.is_fast());
        rate.sample(4_000, Duration::from_millis(500));
        assert!(!rate.is_fast());
        assert!(rate.outbox_room() <= 12_000, "{rate:?}");
        rate.sample(4_000, Duration::from_millis(500));
        rate.sample(4_000, Duration::from_millis(500));
        assert!((8_000..=11_000).contains(&rate.frame_room()), "{rate:?}");
        assert_eq!(rate.low_mark(), 4096);
    }

    #[test]
    fn what_the_kernel_counted_proves_a_fast_device_and_says_nothing_of_a_slow_one() {
        let before = Progress { queued: 0, acked: 1_000, busy: Duration::from_secs(60) };
        let busy_for = |acked, ms| Progress {
            queued: 0,
            acked: before.acked + acked,
            busy: before.busy + Duration::from_millis(ms),
        };
        let mut rate = DrainRate::UNPROVEN;
        rate.bear_out(before, busy_for(5_000, 1));
        assert_eq!(rate, DrainRate::UNPROVEN, "few bytes pass any link at once");
        rate.bear_out(before, busy_for(16_000, 2_000));
        assert_eq!(rate, DrainRate::UNPROVEN, "8 KB/s, as presumed");
        rate.bear_out(before, busy_for(16_000, 100));
        assert!(rate.is_fast());
        rate.bear_out(before, busy_for(16_000, 1_000));
        assert!(rate.is_fast(), "a lower bound takes nothing back");
    }
}
