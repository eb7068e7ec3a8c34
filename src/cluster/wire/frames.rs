//! Frames that travel once per link, and are named by number afterwards: the welcome of a storm of joins, its
//! pieces of history, and refreshes.
//!
//! Both ends of a link keep the same frames by the same rule, since kept words come once and in order. A reset
//! empties both ends.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{BadWord, pb};
use roomcast_core::limits::{LINK_FRAME_KEPT_BYTES_MIN, LINK_FRAMES_KEPT_BYTES_MAX, LINK_FRAMES_KEPT_MAX};

/// The newest frames of a link that have a number.
#[derive(Debug, Default)]
struct NumberedFrames {
    /// The number of the oldest frame, less one.
    before: u64,
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl NumberedFrames {
    /// The number of the next frame.
    fn next(&self) -> u64 {
        self.before + self.frames.len() as u64 + 1
    }

    fn keep(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Lets go of the oldest frame, if the frames are past a bound.
    fn shed(&mut self) -> Option<Bytes> {
        let is_past = self.frames.len() > LINK_FRAMES_KEPT_MAX || self.bytes > LINK_FRAMES_KEPT_BYTES_MAX;
        let frame = if is_past { self.frames.pop_front()? } else { return None };
        self.bytes -= frame.len();
        self.before += 1;
        Some(frame)
    }

    fn find(&self, number: u64) -> Option<&Bytes> {
        let at = number.checked_sub(self.before + 1)?;
        self.frames.get(usize::try_from(at).ok()?)
    }
}

/// The place of a frame in memory. A kept frame keeps the place from another use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FrameAt {
    address: usize,
    length: usize,
}

impl FrameAt {
    fn of(frame: &Bytes) -> Self {
        Self { address: frame.as_ptr() as usize, length: frame.len() }
    }
}

/// The numbered frames at the sending end of a link.
#[derive(Debug, Default)]
pub(in crate::cluster) struct FramesSent {
    generation: u32,
    frames: NumberedFrames,
    numbers: BTreeMap<FrameAt, u64>,
}

impl FramesSent {
    /// Forgets all frames if the link has begun anew.
    pub(in crate::cluster) fn begin(&mut self, generation: u32) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }

    /// A frame of a kept word: the number of the same bytes, or the bytes.
    pub(super) fn encode(&mut self, frame: &Bytes) -> pb::Frame {
        if frame.len() < LINK_FRAME_KEPT_BYTES_MIN {
            return pb::Frame { number: 0, frame: Some(frame.clone()) };
        }
        let at = FrameAt::of(frame);
        if let Some(number) = self.numbers.get(&at) {
            return pb::Frame { number: *number, frame: None };
        }
        let number = self.frames.next();
        self.frames.keep(frame.clone());
        self.numbers.insert(at, number);
        while let Some(gone) = self.frames.shed() {
            self.numbers.remove(&FrameAt::of(&gone));
        }
        pb::Frame { number, frame: Some(frame.clone()) }
    }

    pub(super) fn encode_all(&mut self, frames: &[Bytes]) -> Vec<pb::Frame> {
        frames.iter().map(|frame| self.encode(frame)).collect()
    }
}

/// The numbered frames at the receiving end of a link.
#[derive(Debug, Default)]
pub(in crate::cluster) struct FramesTaken {
    generation: u32,
    frames: NumberedFrames,
    /// Bytes that a frame of the present word keeps in memory if it shares the bytes of its message.
    shared_bytes: usize,
}

impl FramesTaken {
    /// Forgets all frames if the link has begun anew.
    pub(in crate::cluster) fn begin(&mut self, generation: u32) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }

    pub(super) fn begin_word(&mut self, shared_bytes: usize) {
        self.shared_bytes = shared_bytes;
    }

    /// A frame that shares the bytes of its message if it is most of them. Others are copied: a slow device would
    /// keep a bundle of 64 KiB for a frame of 100 bytes.
    pub(super) fn own(&self, frame: Bytes) -> Bytes {
        if frame.len() >= self.shared_bytes / 2 { frame } else { Bytes::copy_from_slice(&frame) }
    }

    /// The frame of a kept word.
    ///
    /// # Errors
    /// [`BadWord`] for an empty frame, and for a number without a frame.
    pub(super) fn decode(&mut self, frame: pb::Frame) -> Result<Bytes, BadWord> {
        let pb::Frame { number, frame } = frame;
        let Some(frame) = frame.filter(|frame| !frame.is_empty()) else {
            return self.frames.find(number).cloned().ok_or(BadWord);
        };
        let frame = self.own(frame);
        if number == 0 {
            return Ok(frame);
        }
        if number != self.frames.next() {
            // A word between could not be read, so its frames have no place here: their numbers find nothing.
            self.frames = NumberedFrames { before: number - 1, ..NumberedFrames::default() };
        }
        self.frames.keep(frame.clone());
        while self.frames.shed().is_some() {}
        Ok(frame)
    }

    pub(super) fn decode_all(&mut self, frames: Vec<pb::Frame>) -> Result<Vec<Bytes>, BadWord> {
        // All of them, even behind a bad one: the other end has given them numbers.
        let frames: Vec<_> = frames.into_iter().map(|frame| self.decode(frame)).collect();
        frames.into_iter().collect()
    }
}
