//! A link's message in bytes.
//!
//! ```text
//! version 1 B ‖ flags 1 B ‖ sender 8 B ‖ addressee 8 B ‖ generation 4 B
//! ‖ seq ‖ kept before ‖ floor ‖ ack ‖ number of skips ‖ (first, more)…
//! ‖ (length ‖ entry)…
//! ```
//!
//! Fixed numbers are big endian, and all others are varints of protobuf. The first 18 bytes stay the same in every
//! version, so a node knows the sender of a version that it can't read.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use crate::cluster::node::{NODE_VERSION, spoken};
use crate::limits::{
    LINK_HEADER_BYTES_MAX, LINK_MESSAGE_BYTES_MAX, LINK_MESSAGE_ENTRIES_MAX, LINK_SKIPS_MAX,
};

/// The message is kept: it is repeated until an ack.
const KEPT: u8 = 1;
/// The batches of the message are left out, since the message is a repeated one.
const STRIPPED: u8 = 2;
/// The message has a part of an entry.
const PART: u8 = 4;
/// The part is the first of its entry.
const FIRST: u8 = 8;
/// The part is the last of its entry.
const LAST: u8 = 16;

/// Bytes of the fixed numbers.
const FIXED_BYTES: usize = 22;
/// The largest sequence: sums of two stay below 2^64.
const SEQ_MAX: u64 = 1 << 62;
/// The largest generation that a message may name, so that a reset always finds a higher one.
const GENERATION_MAX: u32 = 1 << 31;

/// The incarnations of the two nodes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkEnds {
    /// The incarnation of this node.
    pub own: u64,
    /// The incarnation of the other node.
    pub peer: u64,
    /// The version of both: see [`spoken`].
    pub version: u8,
}

/// A message of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkMessage {
    /// The version of the message.
    pub version: u8,
    /// The incarnation of the sender.
    pub from: u64,
    /// The incarnation of the addressee.
    pub to: u64,
    /// The number of the link among the links of the two incarnations.
    pub(super) generation: u32,
    /// The number of the message, from 1; 0: the message only acknowledges.
    pub(super) seq: u64,
    pub(super) sort: Sort,
    pub(super) shape: Shape,
    /// The number of the last kept message before this one.
    pub(super) kept_before: u64,
    /// The sender has settled all messages before this one, so the addressee forgets their skips.
    pub(super) floor: u64,
    pub(super) ack: LinkAck,
    pub(super) entries: Vec<Bytes>,
    /// Bytes of the entries.
    pub(super) bytes: usize,
}

/// The fate of a lost message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// The message holds batches alone, and is never repeated.
    Lapsing,
    /// The message is repeated until an ack.
    Kept,
    /// A repeated message without its batches.
    Stripped,
}

/// The content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Whole entries.
    Whole,
    /// One part of an entry.
    Part {
        /// The entry begins with this part.
        is_first: bool,
        /// The entry ends with this part.
        is_last: bool,
    },
}

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LinkAck {
    /// All messages up to this one were taken or skipped.
    pub(super) through: u64,
    /// Messages whose batches were skipped, rising.
    pub(super) skips: Vec<RangeInclusive<u64>>,
}

/// The reason why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// The sender speaks another version.
    #[error("version {version} of links is unknown")]
    Version {
        /// The version of the message.
        version: u8,
        /// The incarnation of the sender.
        from: u64,
    },
    /// The bytes are no message of a node.
    #[error("the bytes are no message of a link")]
    Malformed,
}

impl LinkMessage {
    /// Reads a message. Entries share its bytes. Takes memory for at most [`LINK_MESSAGE_ENTRIES_MAX`] entries.
    ///
    /// # Errors
    /// [`BadMessage`].
    pub fn parse(mut bytes: Bytes) -> Result<Self, BadMessage> {
        if bytes.len() < FIXED_BYTES || bytes.len() > LINK_MESSAGE_BYTES_MAX {
            return Err(BadMessage::Malformed);
        }
        let version = bytes.get_u8();
        let flags = bytes.get_u8();
        let from = bytes.get_u64();
        let to = bytes.get_u64();
        if spoken(NODE_VERSION, version) != Some(version) {
            return Err(BadMessage::Version { version, from });
        }
        let generation = bytes.get_u32();
        let seq = number(&mut bytes)?;
        let kept_before = number(&mut bytes)?;
        let floor = number(&mut bytes)?;
        let ack = LinkAck { through: number(&mut bytes)?, skips: skips(&mut bytes)? };
        let bytes_left = bytes.len();
        let entries = entries(bytes)?;
        let shape = if flags & PART == 0 {
            Shape::Whole
        } else {
            Shape::Part { is_first: flags & FIRST != 0, is_last: flags & LAST != 0 }
        };
        let sort = match (flags & KEPT != 0, flags & STRIPPED != 0) {
            (true, false) => Sort::Kept,
            (true, true) => Sort::Stripped,
            (false, _) => Sort::Lapsing,
        };
        let is_part = shape != Shape::Whole;
        let is_possible = (1..=GENERATION_MAX).contains(&generation)
            && flags < 2 * LAST
            && (kept_before < seq || seq == 0)
            && (seq > 0 || entries.is_empty())
            && (!is_part || entries.len() == 1);
        if !is_possible {
            return Err(BadMessage::Malformed);
        }
        let bytes = bytes_left;
        Ok(Self { version, from, to, generation, seq, sort, shape, kept_before, floor, ack, entries, bytes })
    }

    /// The message in bytes.
    pub(super) fn encode(&self) -> Bytes {
        let length = |entry: &Bytes| encoded_len_varint(entry.len() as u64) + entry.len();
        // The numbers of a usual header take less than 32 bytes, and a skip at most 20.
        let capacity =
            FIXED_BYTES + 64 + 20 * self.ack.skips.len() + self.entries.iter().map(length).sum::<usize>();
        let mut out = BytesMut::with_capacity(capacity);
        out.put_u8(self.version);
        out.put_u8(self.flags());
        out.put_u64(self.from);
        out.put_u64(self.to);
        out.put_u32(self.generation);
        for value in [self.seq, self.kept_before, self.floor, self.ack.through] {
            encode_varint(value, &mut out);
        }
        encode_varint(self.ack.skips.len() as u64, &mut out);
        for skip in &self.ack.skips {
            encode_varint(*skip.start(), &mut out);
            encode_varint(skip.end() - skip.start(), &mut out);
        }
        debug_assert!(out.len() <= LINK_HEADER_BYTES_MAX, "the skips are few");
        for entry in &self.entries {
            encode_varint(entry.len() as u64, &mut out);
            out.put_slice(entry);
        }
        out.freeze()
    }

    fn flags(&self) -> u8 {
        let sort = match self.sort {
            Sort::Lapsing => 0,
            Sort::Kept => KEPT,
            Sort::Stripped => KEPT | STRIPPED,
        };
        let shape = match self.shape {
            Shape::Whole => 0,
            Shape::Part { is_first, is_last } => {
                PART | if is_first { FIRST } else { 0 } | if is_last { LAST } else { 0 }
            }
        };
        sort | shape
    }
}

fn number(bytes: &mut Bytes) -> Result<u64, BadMessage> {
    let value = decode_varint(bytes).map_err(|_| BadMessage::Malformed)?;
    if value <= SEQ_MAX { Ok(value) } else { Err(BadMessage::Malformed) }
}

fn skips(bytes: &mut Bytes) -> Result<Vec<RangeInclusive<u64>>, BadMessage> {
    let count = number(bytes)?;
    if count > LINK_SKIPS_MAX as u64 {
        return Err(BadMessage::Malformed);
    }
    let mut skips = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let first = number(bytes)?;
        let last = first + number(bytes)?;
        if first <= end {
            return Err(BadMessage::Malformed);
        }
        end = last;
        skips.push(first..=last);
    }
    Ok(skips)
}

fn entries(mut bytes: Bytes) -> Result<Vec<Bytes>, BadMessage> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(number(&mut bytes)?).map_err(|_| BadMessage::Malformed)?;
        if length > bytes.len() || entries.len() == LINK_MESSAGE_ENTRIES_MAX {
            return Err(BadMessage::Malformed);
        }
        entries.push(bytes.split_to(length));
    }
    Ok(entries)
}
