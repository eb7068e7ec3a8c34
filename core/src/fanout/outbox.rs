//! The outbox of one connection: references to shared frames that the socket has not taken.
//!
//! A connection has an outbox only while frames are owed or the connection is behind. An idle connection has
//! none. A slow device costs pointers, not copies.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::Bytes;

use crate::limits::{
    BEHIND_AGE_MAX, OUTBOX_AGE_MAX, OUTBOX_BYTES_MAX, OUTBOX_FRAMES_MAX, OWED_AGE_MAX, PROGRESS_AGE_MAX,
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
    /// Moment of the first refusal. Never reset: an empty outbox is dropped.
    behind_since: Option<Instant>,
}

#[derive(Debug)]
struct Owed {
    rest: Bytes,
    since: Instant,
    /// A welcome: the bounds do not count the frame.
    exempt: bool,
}

impl Outbox {
    /// An empty outbox, at the moment of the first owed frame.
    pub fn new(now: Instant) -> Self {
        Self { owed: VecDeque::new(), begun: false, owed_bytes: 0, progress_at: now, behind_since: None }
    }

    /// Owes a frame. `false`: the frame is past a bound, and the connection is behind from now on.
    ///
    /// An empty outbox takes a frame of any size: a frame may be larger than the bound.
    #[must_use]
    pub fn offer(&mut self, frame: &Bytes, now: Instant) -> bool {
        if self.is_full(frame.len(), now) {
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
        // The time before the first owed frame is no lack of progress.
        if self.owed.is_empty() {
            self.progress_at = now;
        }
        self.owed_bytes += frame.len();
        self.owed.push_back(Owed { rest: frame, since: now, exempt: false });
    }

    /// Owes a welcome, outside the bounds. The caller sees to one welcome at a time.
    pub fn owe_welcome(&mut self, frame: Bytes, now: Instant) {
        self.owed.push_back(Owed { rest: frame, since: now, exempt: true });
    }

    /// Exempts the first owed frame from the bounds: the tail of a welcome that the socket took in part.
    pub fn exempt_first(&mut self) {
        if let Some(first) = self.owed.front_mut().filter(|first| !first.exempt) {
            first.exempt = true;
            self.owed_bytes -= first.rest.len();
        }
    }

    /// Drops every frame but a begun one, to make way for the goodbye.
    pub fn keep_only_begun(&mut self) {
        self.owed.truncate(usize::from(self.begun));
        self.owed_bytes = self.owed.iter().filter(|owed| !owed.exempt).map(|owed| owed.rest.len()).sum();
    }

    /// Fills `slices` with the owed bytes, oldest first, for one vectored write. Returns the number of filled
    /// slices.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.owed);
        pairs.map(|(slice, owed)| *slice = IoSlice::new(&owed.rest)).count()
    }

    /// Removes the first `bytes` owed bytes, taken by the socket. True if nothing is owed any more.
    pub fn took(&mut self, mut bytes: usize, now: Instant) -> bool {
        if bytes > 0 {
            self.progress_at = now;
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
            self.owed.pop_front();
        }
        true
    }

    /// True if no frame is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Owed bytes, a welcome left out: the number that [`OUTBOX_BYTES_MAX`] bounds.
    pub fn owed_bytes(&self) -> usize {
        self.owed_bytes
    }

    /// Owed bytes, a welcome included.
    pub fn held_bytes(&self) -> usize {
        self.owed.iter().map(|owed| owed.rest.len()).sum()
    }

    /// Owed frames, a begun frame included, a welcome left out: the number that [`OUTBOX_FRAMES_MAX`] bounds.
    pub fn owed_frames(&self) -> usize {
        self.owed.iter().filter(|owed| !owed.exempt).count()
    }

    /// True if a frame was refused: the connection stays behind until the outbox is empty.
    pub fn is_behind(&self) -> bool {
        self.behind_since.is_some()
    }

    /// Reason to close the connection, for a deadline that has passed: [`BEHIND_AGE_MAX`],
    /// [`PROGRESS_AGE_MAX`] or [`OWED_AGE_MAX`].
    pub fn overdue(&self, now: Instant) -> Option<CloseReason> {
        let past = |since: Instant, max| now.saturating_duration_since(since) >= max;
        if self.behind_since.is_some_and(|since| past(since, BEHIND_AGE_MAX)) {
            return Some(CloseReason::Behind);
        }
        let oldest = self.owed.front()?;
        // The second deadline catches a device that drips: a byte every few seconds is progress without an
        // end.
        let too_slow = past(self.progress_at, PROGRESS_AGE_MAX) || past(oldest.since, OWED_AGE_MAX);
        too_slow.then_some(CloseReason::NoProgress)
    }

    fn is_full(&self, more: usize, now: Instant) -> bool {
        // Nothing owed: a frame of any size is taken, or a large frame would never leave.
        let Some(oldest) = self.owed.front() else { return false };
        // Behind until the outbox is empty: a frame that fits again must not overtake the refused frames
        // before.
        self.behind_since.is_some()
            || self.owed_frames() >= OUTBOX_FRAMES_MAX
            || (self.owed_frames() > 0 && self.owed_bytes + more > OUTBOX_BYTES_MAX)
            || now.saturating_duration_since(oldest.since) > OUTBOX_AGE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::now::Now;

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    #[test]
    fn four_frames_may_wait_and_the_fifth_makes_it_behind() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        for _ in 0..4 {
            assert!(outbox.offer(&frame(10), now));
        }
        assert!(!outbox.is_behind());
        assert!(!outbox.offer(&frame(10), now));
        assert!(outbox.is_behind());
        assert!(!outbox.took(15, now), "one frame and a half are gone");
        assert!(!outbox.offer(&frame(10), now), "behind until it has drained");
        assert!(outbox.took(25, now));
    }

    #[test]
    fn a_frame_of_any_size_is_owed_when_nothing_else_is_and_a_welcome_is_not_counted() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        assert!(outbox.offer(&frame(400_000), now));
        assert!(!outbox.offer(&frame(1), now));
        let mut outbox = Outbox::new(now);
        outbox.owe_welcome(frame(400_000), now);
        for _ in 0..4 {
            assert!(outbox.offer(&frame(1000), now));
        }
        assert!(!outbox.offer(&frame(1), now));
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
        assert!(outbox.offer(&frame(10), now));
        let late = now + OUTBOX_AGE_MAX + Duration::from_millis(1);
        assert!(!outbox.offer(&frame(10), late));
        assert_eq!(outbox.overdue(now + PROGRESS_AGE_MAX), Some(CloseReason::NoProgress));
        outbox.took(1, late);
        assert_eq!(outbox.overdue(now + PROGRESS_AGE_MAX), None, "it took something");
        outbox.took(1, late + BEHIND_AGE_MAX);
        assert_eq!(outbox.overdue(late + BEHIND_AGE_MAX), Some(CloseReason::Behind));
    }

    #[test]
    fn the_tail_of_a_frame_is_what_the_next_write_begins_with() {
        let now = Now::made_up().instant;
        let mut outbox = Outbox::new(now);
        outbox.owe(Bytes::from_static(b"abc"), now);
        outbox.owe(Bytes::from_static(b"de"), now);
        outbox.took(2, now);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut slices);
        let parts: Vec<&[u8]> = slices[..count].iter().map(|slice| &**slice).collect();
        assert_eq!(parts, [b"c".as_slice(), b"de"]);
        assert_eq!(outbox.owed_bytes(), 3);
        outbox.keep_only_begun();
        assert_eq!(outbox.owed_bytes(), 1, "what was begun is finished, whatever happens");
        outbox.took(1, now);
        outbox.owe(Bytes::from_static(b"fg"), now);
        outbox.keep_only_begun();
        assert!(outbox.is_empty());
    }
}
