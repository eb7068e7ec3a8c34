//! The outbox of one connection: references to shared frames that the socket has not taken.
//!
//! A connection has an outbox only while frames are owed or the connection is behind. An idle connection has
//! none. A slow device costs pointers, not copies.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::limits::{
    BEHIND_AGE_MAX, FIRST_OWED_AGE_MAX, OUTBOX_AGE_MAX, OUTBOX_BYTES_MAX, OUTBOX_FRAMES_MAX, OWED_AGE_MAX,
    PROGRESS_AGE_MAX, RATE_PRESUMED, UNPROVEN_BYTES_MAX, WELCOME_FIRST_BYTES_MAX,
};
use crate::wire::close::CloseReason;

/// Slices of one vectored write: a full outbox and two further frames, such as `bye` and the close frame.
/// Frames beyond wait for the next write.
pub const SLICES_MAX: usize = OUTBOX_FRAMES_MAX + 2;

/// The frames one connection is owed.
#[derive(Debug)]
pub struct Outbox {
    /// Oldest first.
    owed: VecDeque<Owed>,
    /// The first entry is the tail of a frame whose head the socket has taken. A begun frame is finished
    /// before any other byte: the device could not parse the stream otherwise.
    begun: bool,
    /// Invariant: the sum of the lengths in `owed` that are not exempt.
    owed_bytes: usize,
    /// Last moment at which the socket took a byte, or the first frame was owed.
    progress_at: Instant,
    /// Moment at which the first entry became the first.
    first_since: Instant,
    /// Time of the first entry from then on.
    first_age_max: Duration,
    /// Moment of the first refusal, or of the end of the last long frame after it. An empty outbox is
    /// dropped, and the moment with it.
    behind_since: Option<Instant>,
    /// The socket has never taken a byte, so the kernel holds none.
    fresh: bool,
    /// The last refusal by the socket that was noted.
    refused: Option<Refused>,
    /// Bytes taken by the socket so far.
    taken: u64,
}

/// A refusal by the socket.
#[derive(Debug, Clone, Copy)]
struct Refused {
    at: Instant,
    /// Bytes that the device had acknowledged.
    acked: u64,
}

#[derive(Debug)]
struct Owed {
    rest: Bytes,
    since: Instant,
    /// A welcome or a piece of history: only the room by the device's rate counts the frame.
    exempt: bool,
    /// A frame so long that an honest slow device takes it for seconds: it may take longer than a device may be
    /// behind.
    long: bool,
}

/// Bytes that a device acknowledged between two refusals of its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Bytes acknowledged.
    pub bytes: usize,
    /// Time between the refusals.
    pub between: Duration,
}

/// Shortest time of a [`Sample`].
const SAMPLE_TIME_MIN: Duration = Duration::from_millis(100);

impl Outbox {
    /// An empty outbox, at the moment of the first owed frame.
    pub fn new(now: Instant) -> Self {
        Self {
            owed: VecDeque::new(),
            begun: false,
            owed_bytes: 0,
            progress_at: now,
            first_since: now,
            first_age_max: FIRST_OWED_AGE_MAX,
            behind_since: None,
            fresh: false,
            refused: None,
            taken: 0,
        }
    }

    /// Notes that the socket has never taken a byte. Nothing is in front of the owed frames then, so more
    /// of them are in time.
    pub fn is_of_fresh_socket(&mut self) {
        self.fresh = true;
        self.refused = None;
    }

    /// Owes a frame. `false`: the frame is past a bound, and the connection is behind from now on. `room` is
    /// the number of bytes that may be owed at once, by the rate of the device.
    ///
    /// An empty outbox takes a frame of any size: a frame may be larger than the bound.
    #[must_use]
    pub fn offer(&mut self, frame: &Bytes, room: usize, now: Instant) -> bool {
        if self.is_full(frame.len(), room, now) {
            self.behind_since.get_or_insert(now);
            return false;
        }
        self.owe(frame.clone(), now);
        true
    }

    /// Owes the tail of a begun frame.
    pub fn owe_tail(&mut self, tail: Bytes, now: Instant) {
        debug_assert!(self.owed.is_empty(), "a frame begins when nothing else is owed");
        self.begun = true;
        self.owe(tail, now);
    }

    /// Owes a frame regardless of the bounds. For the goodbye of a connection, and for answers with a bound
    /// of their own.
    pub fn owe(&mut self, frame: Bytes, now: Instant) {
        self.owed_bytes += frame.len();
        let long = age_max(frame.len()) > FIRST_OWED_AGE_MAX;
        self.push(Owed { rest: frame, since: now, exempt: false, long });
    }

    /// Owes a welcome, outside the bounds. The caller sees to one welcome at a time.
    pub fn owe_welcome(&mut self, frame: Bytes, now: Instant) {
        let long = frame.len() > WELCOME_FIRST_BYTES_MAX;
        self.push(Owed { rest: frame, since: now, exempt: true, long });
    }

    fn push(&mut self, owed: Owed) {
        // The time before the first owed frame is no lack of progress.
        if self.owed.is_empty() {
            self.progress_at = owed.since;
            self.first_since = owed.since;
            self.first_age_max = age_max(owed.rest.len());
        }
        self.owed.push_back(owed);
    }

    /// Exempts the first owed frame from the bounds: the tail of a welcome or of a piece of history that the
    /// socket took in part.
    pub fn exempt_first(&mut self) {
        if let Some(first) = self.owed.front_mut().filter(|first| !first.exempt) {
            first.exempt = true;
            first.long = first.rest.len() > WELCOME_FIRST_BYTES_MAX;
            self.owed_bytes -= first.rest.len();
        }
    }

    /// Drops every frame but a begun one, to make way for the goodbye.
    pub fn keep_only_begun(&mut self) {
        self.owed.truncate(usize::from(self.begun));
        self.owed_bytes = self.owed.iter().filter(|owed| !owed.exempt).map(|owed| owed.rest.len()).sum();
    }

    /// Fills `slices` with the owed bytes, oldest first, for one vectored write of at most `bytes_max`. Returns
    /// the number of filled slices.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>], bytes_max: usize) -> usize {
        fill(slices, self.owed.iter().map(|owed| &owed.rest), bytes_max)
    }

    /// Removes the first `bytes` owed bytes, taken by the socket. True if nothing is owed any more.
    pub fn took(&mut self, mut bytes: usize, now: Instant) -> bool {
        self.taken += bytes as u64;
        if bytes > 0 {
            self.progress_at = now;
            self.fresh = false;
        }
        while let Some(first) = self.owed.front_mut() {
            let taken = bytes.min(first.rest.len());
            self.owed_bytes -= if first.exempt { 0 } else { taken };
            if bytes < first.rest.len() {
                // `advance` moves a reference: the tail stays a part of the shared frame, without a copy.
                bytes::Buf::advance(&mut first.rest, bytes);
                self.begun |= bytes > 0;
                return false;
            }
            bytes -= first.rest.len();
            self.begun = false;
            if first.long {
                self.behind_since = self.behind_since.map(|_| now);
            }
            self.owed.pop_front();
            self.first_since = now;
            self.first_age_max =
                self.owed.front().map_or(FIRST_OWED_AGE_MAX, |next| age_max(next.rest.len()));
        }
        true
    }

    /// True if a refusal by the socket begins or ends a sample now. A shorter time measures the steps in which
    /// the kernel frees memory.
    #[must_use]
    pub fn is_sample_due(&self, now: Instant) -> bool {
        self.refused.is_none_or(|last| now.saturating_duration_since(last.at) >= SAMPLE_TIME_MIN)
            && !self.fresh
    }

    /// Notes a refusal by the socket, with the bytes that the device has acknowledged so far. The result is what
    /// it acknowledged since the last refusal noted: the socket was full throughout. The bytes that the socket
    /// took are worse, since the kernel has them on the way for seconds: they serve where the kernel does not
    /// count. `None`: there was none before.
    pub fn refused(&mut self, acked: Option<u64>, now: Instant) -> Option<Sample> {
        let acked = acked.unwrap_or(self.taken);
        // A pause of the radio is no rate of 0: the sample runs on until something is acknowledged.
        if self.refused.is_some_and(|last| last.acked == acked) {
            return None;
        }
        let last = self.refused.replace(Refused { at: now, acked })?;
        let bytes = usize::try_from(acked.saturating_sub(last.acked)).unwrap_or(usize::MAX);
        Some(Sample { bytes, between: now.saturating_duration_since(last.at) })
    }

    /// True if no frame is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Owed bytes, welcomes and history left out: the number that [`OUTBOX_BYTES_MAX`] bounds.
    pub fn owed_bytes(&self) -> usize {
        self.owed_bytes
    }

    /// Owed bytes, welcomes and history included.
    pub fn held_bytes(&self) -> usize {
        self.owed.iter().map(|owed| owed.rest.len()).sum()
    }

    /// Owed frames, a begun frame included, welcomes and history left out: the number that
    /// [`OUTBOX_FRAMES_MAX`] bounds.
    pub fn owed_frames(&self) -> usize {
        self.owed.iter().filter(|owed| !owed.exempt).count()
    }

    /// True if a frame was refused: the connection stays behind until the outbox is empty.
    pub fn is_behind(&self) -> bool {
        self.behind_since.is_some()
    }

    /// Reason to close the connection, for a deadline that has passed: [`BEHIND_AGE_MAX`],
    /// [`FIRST_OWED_AGE_MAX`], [`PROGRESS_AGE_MAX`] or [`OWED_AGE_MAX`].
    pub fn overdue(&self, now: Instant) -> Option<CloseReason> {
        let past = |since: Instant, max| now.saturating_duration_since(since) >= max;
        let oldest = self.owed.front()?;
        // While a long welcome is on its way, the device is behind through no fault of its own.
        let is_behind = !oldest.long && self.behind_since.is_some_and(|since| past(since, BEHIND_AGE_MAX));
        if is_behind || (!oldest.exempt && past(self.first_since, self.first_age_max)) {
            return Some(CloseReason::Behind);
        }
        // The second deadline catches a device that drips: a byte every few seconds is progress without an
        // end.
        let too_slow = past(self.progress_at, PROGRESS_AGE_MAX) || past(oldest.since, OWED_AGE_MAX);
        too_slow.then_some(CloseReason::NoProgress)
    }

    fn is_full(&self, more: usize, room: usize, now: Instant) -> bool {
        // Nothing owed: a frame of any size is taken, or a large frame would never leave.
        if self.owed.is_empty() {
            return false;
        }
        let room = if self.fresh { room.max(UNPROVEN_BYTES_MAX) } else { room };
        // A welcome is older than it should be through no fault of the device.
        let oldest = self.owed.iter().find(|owed| !owed.exempt);
        // Behind until the outbox is empty: a frame that fits again must not overtake the refused frames
        // before.
        self.behind_since.is_some()
            || self.owed_frames() >= OUTBOX_FRAMES_MAX
            || (self.owed_frames() > 0 && self.owed_bytes + more > OUTBOX_BYTES_MAX)
            || self.held_bytes() + more > room
            || oldest.is_some_and(|oldest| now.saturating_duration_since(oldest.since) > OUTBOX_AGE_MAX)
    }
}

/// Fills `slices` with the first `bytes_max` bytes of `frames`. Returns the number of filled slices.
pub fn fill<'a>(
    slices: &mut [IoSlice<'a>],
    frames: impl IntoIterator<Item = &'a Bytes>,
    bytes_max: usize,
) -> usize {
    let mut left = bytes_max;
    let mut filled = 0;
    for (slice, frame) in slices.iter_mut().zip(frames) {
        if left == 0 {
            break;
        }
        let part = &frame[..frame.len().min(left)];
        *slice = IoSlice::new(part);
        left -= part.len();
        filled += 1;
    }
    filled
}

/// Time for the first owed frame.
fn age_max(bytes: usize) -> Duration {
    let at_rate = Duration::from_secs(bytes as u64) / RATE_PRESUMED;
    FIRST_OWED_AGE_MAX.max(at_rate * 5 / 4)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::now::Now;

    /// The room of a device whose rate bounds nothing.
    const ROOM: usize = usize::MAX;

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    #[test]
    fn four_frames_may_wait_and_the_fifth_makes_it_behind() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        for _ in 0..4 {
            assert!(outbox.offer(&frame(10), ROOM, now));
        }
        assert!(!outbox.is_behind());
        assert!(!outbox.offer(&frame(10), ROOM, now));
        assert!(outbox.is_behind());
        assert!(!outbox.took(15, now), "one frame and a half are gone");
        assert!(!outbox.offer(&frame(10), ROOM, now), "behind until it has drained");
        assert!(outbox.took(25, now));
    }

    #[test]
    fn a_frame_of_any_size_is_owed_when_nothing_else_is_and_a_welcome_is_not_counted() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        assert!(outbox.offer(&frame(400_000), ROOM, now));
        assert!(!outbox.offer(&frame(1), ROOM, now));
        let mut outbox = Outbox::new(now);
        outbox.owe_welcome(frame(400_000), now);
        for _ in 0..4 {
            assert!(outbox.offer(&frame(1000), ROOM, now));
        }
        assert!(!outbox.offer(&frame(1), ROOM, now));
        assert!(!outbox.took(400_500, now));
        assert_eq!(outbox.owed_bytes(), 3500);
    }

    #[test]
    fn a_device_that_drips_is_closed_all_the_same() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        outbox.owe_welcome(frame(400_000), now);
        outbox.took(1, now + OWED_AGE_MAX - Duration::from_secs(1));
        assert_eq!(outbox.overdue(now + OWED_AGE_MAX - Duration::from_secs(1)), None);
        assert_eq!(outbox.overdue(now + OWED_AGE_MAX), Some(CloseReason::NoProgress));
    }

    #[test]
    fn what_waits_too_long_makes_it_behind_and_then_closes_it() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        assert!(outbox.offer(&frame(10), ROOM, now));
        let late = now + OUTBOX_AGE_MAX + Duration::from_millis(1);
        assert!(!outbox.offer(&frame(10), ROOM, late));
        assert_eq!(outbox.overdue(now + PROGRESS_AGE_MAX), Some(CloseReason::NoProgress));
        outbox.took(1, late);
        assert_eq!(outbox.overdue(now + PROGRESS_AGE_MAX), None, "it took something");
        outbox.took(1, late + BEHIND_AGE_MAX);
        assert_eq!(outbox.overdue(late + BEHIND_AGE_MAX), Some(CloseReason::Behind));
    }

    #[test]
    fn a_slow_device_is_owed_what_it_takes_in_time_and_no_more() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        assert!(outbox.offer(&frame(5_000), 6_000, now));
        assert!(outbox.offer(&frame(1_000), 6_000, now));
        assert!(!outbox.offer(&frame(1), 6_000, now), "more would keep a coupon waiting");
        let mut outbox = Outbox::new(now);
        outbox.is_of_fresh_socket();
        outbox.owe_welcome(frame(12_000), now);
        assert!(outbox.offer(&frame(5_000), 6_000, now), "the kernel holds nothing yet");
        assert!(!outbox.offer(&frame(1), 6_000, now));
    }

    #[test]
    fn a_welcome_that_takes_its_time_makes_nobody_behind() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        outbox.owe_welcome(frame(240_000), now);
        let after = |seconds| now + Duration::from_secs(seconds);
        for second in 1..30 {
            outbox.took(8_000, after(second));
            if second >= 5 {
                // The first at 5 s: the age of the welcome does not count, that of the first frame behind it does.
                assert_eq!(outbox.offer(&frame(10), ROOM, after(second)), second <= 6, "second {second}");
            }
            assert_eq!(outbox.overdue(after(second)), None, "second {second}");
        }
        outbox.took(8_000, after(30));
        assert_eq!(outbox.overdue(after(44)), Some(CloseReason::NoProgress));
        outbox.took(1, after(44));
        assert_eq!(outbox.overdue(after(44)), None);
        assert_eq!(
            outbox.overdue(after(45)),
            Some(CloseReason::Behind),
            "what came behind it is due as ever"
        );
    }

    /// 200 KB take 25 s at 64 kbit/s: the device used to be closed after 15 s, again and again.
    #[test]
    fn a_long_frame_has_the_time_that_it_takes_at_64_kilobits_and_a_quarter() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        assert!(outbox.offer(&frame(200_000), ROOM, now));
        assert!(!outbox.offer(&frame(10), ROOM, now), "behind from the first second on");
        let after = |seconds| now + Duration::from_secs(seconds);
        for second in 1..31 {
            outbox.took(1, after(second));
            assert_eq!(outbox.overdue(after(second)), None, "second {second}");
        }
        outbox.took(1, after(31));
        assert_eq!(outbox.overdue(now + Duration::from_millis(31_250)), Some(CloseReason::Behind));
        let mut outbox = Outbox::new(now);
        assert!(outbox.offer(&frame(90_000), ROOM, now));
        outbox.took(1, after(14));
        assert_eq!(outbox.overdue(after(15)), Some(CloseReason::Behind), "others have 15 s as ever");
    }

    #[test]
    fn where_the_kernel_does_not_count_a_sample_is_what_the_socket_took() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        outbox.owe(frame(100_000), now);
        assert_eq!(outbox.refused(None, now), None);
        outbox.took(3_000, now);
        let sample = Sample { bytes: 3_000, between: Duration::from_millis(400) };
        assert_eq!(outbox.refused(None, now + Duration::from_millis(400)), Some(sample));
    }

    #[test]
    fn a_sample_is_what_was_acknowledged_between_two_refusals() {
        let now = Now::made_up().instant;
        let after = |ms| now + Duration::from_millis(ms);
        let mut outbox = Outbox::new(now);
        outbox.owe(frame(100_000), now);
        assert!(outbox.is_sample_due(now));
        assert_eq!(outbox.refused(Some(5_000), now), None, "nobody knows how full it was before");
        assert!(!outbox.is_sample_due(after(99)), "a step of the kernel's memory");
        let sample = Sample { bytes: 3_000, between: Duration::from_millis(400) };
        assert_eq!(outbox.refused(Some(8_000), after(400)), Some(sample));
        assert_eq!(outbox.refused(Some(8_000), after(700)), None, "a pause of the radio");
        let sample = Sample { bytes: 4_000, between: Duration::from_millis(600) };
        assert_eq!(outbox.refused(Some(12_000), after(1_000)), Some(sample), "the pause counts");
        let mut outbox = Outbox::new(now);
        outbox.is_of_fresh_socket();
        outbox.owe_welcome(frame(100_000), now);
        assert!(!outbox.is_sample_due(now), "a socket that is not registered yet is not full");
        outbox.took(20_000, after(5));
        assert!(outbox.is_sample_due(after(5)));
    }

    #[test]
    fn the_tail_of_a_frame_is_what_the_next_write_begins_with() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        outbox.owe(Bytes::from_static(b"abc"), now);
        outbox.owe(Bytes::from_static(b"de"), now);
        outbox.took(2, now);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut slices, usize::MAX);
        let parts: Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
        assert_eq!(parts, [b"c".as_slice(), b"de"]);
        let count = outbox.slices(&mut slices, 2);
        let parts: Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
        assert_eq!(parts, [b"c".as_slice(), b"d"], "a write to a slow device is short");
        assert_eq!(outbox.owed_bytes(), 3);
        outbox.keep_only_begun();
        assert_eq!(outbox.owed_bytes(), 1, "what was begun is finished, whatever happens");
        outbox.took(1, now);
        outbox.owe(Bytes::from_static(b"fg"), now);
        outbox.keep_only_begun();
        assert!(outbox.is_empty());
    }
}
