//! The rate at which one device takes bytes: how large a frame a connection may begin, how much may be owed to
//! it, and how much the kernel may hold for it.
//!
//! Pure. A quiet room says nothing about its devices, so a slow trickle is no sample. Two things are:
//!
//! - the bytes acknowledged between two refusals of the socket, which was full throughout;
//! - the bytes acknowledged over the time in which the kernel had bytes to send: the device takes at least that.

use std::time::Duration;

use crate::limits::{
    BUCKET_BYTES_MAX, FAST_RATE_MIN, FRAME_AGE_MAX, KERNEL_QUEUED_AGE_MAX, KERNEL_QUEUED_BYTES_MAX,
    KERNEL_QUEUED_BYTES_MIN, KERNEL_QUEUED_BYTES_UNPROVEN, KERNEL_UNSENT_AGE_MAX, KERNEL_UNSENT_BYTES_MAX,
    KERNEL_UNSENT_BYTES_MIN, KERNEL_WRITE_BYTES_MAX, OUTBOX_RATE_AGE_MAX, PROOF_BYTES, PROOF_TIME_MIN,
    RATE_PRESUMED, ROUND_TRIP_MAX, SMALL_FRAME_BYTES_MAX,
};

/// Step of the bound on unsent bytes: a smaller change is not worth a system call.
const STEP: u32 = 4 * 1024;
const _: () = assert!(KERNEL_UNSENT_BYTES_MIN == STEP, "a new connection has one step");

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
    /// The shortest round trip that the kernel has seen. Zero: it tells none.
    pub round_trip: Duration,
}

/// Bytes that the kernel may hold for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelRoom {
    /// In steps of 4 KiB.
    unsent_steps: u8,
    /// In KiB. 0: no bound.
    queued_kib: u8,
}

impl KernelRoom {
    /// Bounds of a new connection: the kernel tunes the bytes on their way.
    pub const NEW: Self = Self { unsent_steps: 1, queued_kib: 0 };

    fn new(unsent: u32, queued: u32) -> Self {
        let steps = |bytes| u8::try_from(bytes).unwrap_or(u8::MAX);
        Self { unsent_steps: steps(unsent / STEP), queued_kib: steps(queued / 1024) }
    }

    /// True if the bytes on their way are bounded.
    #[inline]
    #[must_use]
    pub fn is_bounded(self) -> bool {
        self.queued_kib > 0
    }

    /// Bytes of one write, at most.
    #[must_use]
    pub fn write_max(self) -> usize {
        if self.is_bounded() { KERNEL_WRITE_BYTES_MAX } else { usize::MAX }
    }

    /// The same, where the kernel tunes the bytes on their way.
    #[must_use]
    pub fn without_queued_max(self) -> Self {
        Self { queued_kib: 0, ..self }
    }

    /// Unsent bytes at which the socket takes no more (`TCP_NOTSENT_LOWAT`).
    #[must_use]
    pub fn unsent_max(self) -> u32 {
        u32::from(self.unsent_steps) * STEP
    }

    /// Bytes without an acknowledgement, unsent ones included, at which the socket takes no more. `None`: as
    /// many as the kernel sees fit.
    #[must_use]
    pub fn queued_max(self) -> Option<u32> {
        self.is_bounded().then(|| u32::from(self.queued_kib) * 1024)
    }
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

    /// Adds what the kernel counted in the time `between` two looks. A lower bound: it proves a device fast, and
    /// never slow. True if that was enough to measure by, so that the next look measures anew.
    pub fn bear_out(&mut self, before: Progress, after: Progress, between: Duration) -> bool {
        let acked = after.acked.saturating_sub(before.acked);
        let is_beyond_buckets = acked >= BUCKET_BYTES_MAX;
        // Few bytes pass any link at once.
        if acked < PROOF_BYTES_ACKED || (between < PROOF_TIME_MIN && !is_beyond_buckets) {
            return false;
        }
        let at_least = per_second(acked, after.busy.saturating_sub(before.busy));
        // A link with a bucket takes one burst at the speed of its wire: one burst only doubles the rate.
        let most = if is_beyond_buckets { u32::MAX } else { self.bytes_per_second.saturating_mul(2) };
        self.bytes_per_second = self.bytes_per_second.max(at_least.min(most));
        // Half an estimate of a slow link is no proof of a fast one.
        if self.bytes_per_second >= 2 * RATE_PRESUMED {
            self.unproven_bytes = 0;
        }
        true
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

    /// True if a device may be offered as much as one of unknown rate: nothing slower than twice the presumed rate
    /// was measured.
    #[must_use]
    pub fn may_burst(&self) -> bool {
        !self.is_proven() || self.bytes_per_second >= 2 * RATE_PRESUMED
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

    /// Bytes that the kernel may hold for a device with this round trip.
    #[must_use]
    pub fn kernel_room(&self, round_trip: Duration) -> KernelRoom {
        let bytes = |time| u32::try_from(bytes_at(self.bytes_per_second, time)).unwrap_or(u32::MAX);
        let unsent = if self.is_proven() { bytes(KERNEL_UNSENT_AGE_MAX) } else { 0 };
        // The bytes of a round trip are on their way and in no queue. Without them the bound would set the rate that
        // it is made of, and a healthy device far away would fall to the least for good.
        let on_the_way = bytes(round_trip.min(ROUND_TRIP_MAX));
        let queued = if self.is_fast() {
            0
        } else if self.unproven_bytes == PROOF_BYTES {
            KERNEL_QUEUED_BYTES_UNPROVEN + on_the_way
        } else {
            let queued = bytes(KERNEL_QUEUED_AGE_MAX).clamp(KERNEL_QUEUED_BYTES_MIN, KERNEL_QUEUED_BYTES_MAX);
            queued + on_the_way
        };
        KernelRoom::new(unsent.clamp(KERNEL_UNSENT_BYTES_MIN, KERNEL_UNSENT_BYTES_MAX), queued)
    }

    fn bytes_in(&self, time: Duration) -> usize {
        bytes_at(if self.is_proven() { self.bytes_per_second } else { RATE_PRESUMED }, time)
    }
}

fn bytes_at(bytes_per_second: u32, time: Duration) -> usize {
    let bytes = u128::from(bytes_per_second) * time.as_millis() / 1000;
    usize::try_from(bytes).unwrap_or(usize::MAX)
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
        assert_eq!((rate.frame_room(), rate.outbox_room()), (8_000, 6_000));
        let room = rate.kernel_room(Duration::ZERO);
        assert_eq!((room.unsent_max(), room.queued_max()), (4096, Some(8192)));
        rate.sample(15 * KIB, Duration::from_millis(10));
        assert!(!rate.is_proven());
        assert_eq!(rate.frame_room(), 8_000);
        rate.sample(KIB, Duration::from_millis(1));
        assert!(rate.is_fast());
        let room = rate.kernel_room(Duration::ZERO);
        assert_eq!((room.unsent_max(), room.queued_max()), (16 * 1024, None), "the kernel tunes its buffer");
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
        let room = rate.kernel_room(Duration::ZERO);
        assert_eq!((room.unsent_max(), room.queued_max()), (4096, Some(4096)));
        for _ in 0..3 {
            rate.sample(10_000, Duration::from_millis(500));
        }
        assert_eq!(rate.kernel_room(Duration::ZERO).queued_max(), Some(9216), "half a second's bytes");
    }

    #[test]
    fn what_the_kernel_counted_proves_a_fast_device_and_says_nothing_of_a_slow_one() {
        let before = Progress { acked: 1_000, busy: Duration::from_secs(60), ..Progress::default() };
        let busy_for = |acked, ms| Progress {
            queued: 0,
            acked: before.acked + acked,
            busy: before.busy + Duration::from_millis(ms),
            ..before
        };
        let second = Duration::from_secs(1);
        let mut rate = DrainRate::UNPROVEN;
        assert!(!rate.bear_out(before, busy_for(5_000, 1), second), "few bytes pass any link at once");
        assert!(rate.bear_out(before, busy_for(16_000, 2_000), second));
        assert_eq!(rate, DrainRate::UNPROVEN, "8 KB/s, as presumed");
        assert!(rate.bear_out(before, busy_for(300_000, 100), Duration::ZERO), "no bucket holds as much");
        assert!(rate.is_fast());
        rate.bear_out(before, busy_for(16_000, 1_000), second);
        assert!(rate.is_fast(), "a lower bound takes nothing back");
    }

    /// The bound of a device with a round trip of 600 ms used to set the rate, and the rate the bound.
    #[test]
    fn a_device_far_away_measures_more_than_its_bound_and_gets_fast() {
        for round_trip in [50, 400, 600, 1_000, 2_000].map(Duration::from_millis) {
            let mut rate = DrainRate::UNPROVEN;
            rate.sample(4_000, Duration::from_secs(1));
            for _ in 0..60 {
                // The device takes whatever is on its way in a round trip.
                let Some(bound) = rate.kernel_room(round_trip).queued_max() else { break };
                rate.sample(bound as usize, round_trip);
            }
            assert!(rate.is_fast(), "{round_trip:?}: {rate:?}");
        }
    }

    /// A burst that the bucket of a slow link took at once used to prove a fast device.
    #[test]
    fn a_burst_doubles_the_rate_and_three_apart_prove_a_fast_device() {
        let start = Progress::default();
        let burst = Progress { acked: 20_000, busy: Duration::from_millis(5), ..start };
        let mut rate = DrainRate::UNPROVEN;
        assert!(!rate.bear_out(start, burst, Duration::from_millis(99)), "the same burst");
        assert!(rate.bear_out(start, burst, PROOF_TIME_MIN));
        assert!(rate.is_proven() && !rate.is_fast());
        assert_eq!(rate.frame_room(), 16_000);
        rate.bear_out(start, burst, PROOF_TIME_MIN);
        assert!(!rate.is_fast());
        rate.bear_out(start, burst, PROOF_TIME_MIN);
        assert!(rate.is_fast());
    }

    /// A device in the lift is slow, and gets well again outside, without a refusal.
    #[test]
    fn a_device_that_was_proven_slow_gets_better() {
        let start = Progress::default();
        let mut rate = DrainRate::UNPROVEN;
        for _ in 0..5 {
            rate.sample(4_000, Duration::from_secs(1));
        }
        assert!(rate.is_proven() && rate.frame_room() == SMALL_FRAME_BYTES_MAX);
        let burst = Progress { acked: 8_000, busy: Duration::from_millis(50), ..start };
        for _ in 0..5 {
            rate.bear_out(start, burst, PROOF_TIME_MIN);
        }
        assert!(rate.is_fast(), "{rate:?}");
    }
}
