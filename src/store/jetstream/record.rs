//! The entries of a slot's log as bytes.
//!
//! An entry, little endian:
//!
//! | at | bytes | content |
//! |---|---|---|
//! | 0 | 8 | checksum: xxh3-64 over the number of the slot, then over all further bytes |
//! | 8 | 1 | format: the version of the words between nodes that all nodes spoke, at present 1 |
//! | 9 | 1 | kind: 1 rows, 2 claim, 3 renewal, 4 removal, 5 head rows |
//! | 10 | 8 + 8 | term: generation, sequence (of a claim: 0, since the log gives it) |
//! | 26 | 8 | number in the term, rising; of a claim: the number of the claim |
//! | 34 | rest | content |
//!
//! - rows: room ‖ offset ‖ length ‖ row, again and again. A row is as in `store/row.rs`, with its payload inside.
//! - claim, renewal: node ‖ incarnation.
//! - removal: room.
//! - head rows: room ‖ epoch ‖ head ‖ `forget_ms` ‖ one byte, 1: has rows; again and again.
//!
//! A text is one byte of length, then the text. A length is 4 bytes, all other numbers are 8.
//!
//! Parsing is strict: a wrong checksum, an unknown format or kind, and bytes behind the content make an entry
//! damaged as a whole.

use std::sync::Arc;

use bytes::Bytes;

use roomcast_core::cluster::node::NODE_VERSION;
use roomcast_core::cluster::{Slot, Term};
use roomcast_core::limits::TTL_MAX;
use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;

use crate::store::row::{self, Marks};

/// Bytes before the content.
pub(super) const HEAD_BYTES: usize = 34;
/// Generations are counted one by one, so a larger one was never given.
const GENERATION_MAX: u64 = u32::MAX as u64;

/// An entry of a slot's log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogRecord {
    /// The term of the home that wrote the entry. The sequence of a claim is 0: see [`LogRecord::term_at`].
    pub(super) term: Term,
    /// The place among the entries of the term.
    pub(super) number: u64,
    pub(super) content: Content,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// Messages of any rooms of the slot, in order.
    Rows(Vec<LogRow>),
    /// From here on the claimant is the home.
    Claim(Claimant),
    /// The claimant is still the home.
    Renewal(Claimant),
    /// Everything of the room before this entry is void.
    Forget(RoomName),
    /// The heads of rooms without a row at their head.
    Heads(Vec<HeadRow>),
}

/// The node that claims, as its claims in the log name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimant {
    /// The name of the node. More than 255 bytes are cut in the log.
    pub(super) node: String,
    /// The random number of the node's life.
    pub(super) incarnation: u64,
}

/// A message in the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogRow {
    pub(super) room: RoomName,
    pub(super) marks: Marks,
    pub(super) message: Arc<Message>,
}

/// The head of a room's stream, for the time after the row at the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeadRow {
    pub(super) room: RoomName,
    pub(super) epoch: Epoch,
    pub(super) head: u64,
    /// True: the room has rows of lower offsets.
    pub(super) has_rows: bool,
    /// Store time at which a room without rows is forgotten.
    pub(super) forget_ms: u64,
}

impl LogRow {
    /// Bytes of the row in a record, at most.
    pub(super) fn bytes(room: &RoomName, message: &Message) -> usize {
        // The length beside the key and the row.
        4 + usize::try_from(row::stored_bytes(room, message)).expect("a message fits memory")
    }
}

impl LogRecord {
    /// The term of the entry at a sequence.
    pub(super) fn term_at(&self, sequence: u64) -> Term {
        match self.content {
            Content::Claim(_) => Term { sequence, ..self.term },
            _ => self.term,
        }
    }

    /// The entry as bytes, in this format.
    pub(super) fn encode(&self, slot: Slot, format: u8) -> Bytes {
        let mut bytes = vec![format, self.content.kind()];
        for number in [self.term.generation, self.term.sequence, self.number] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        match &self.content {
            Content::Rows(rows) => rows.iter().for_each(|row| push_row(&mut bytes, row)),
            Content::Claim(claimant) | Content::Renewal(claimant) => {
                let node = &claimant.node[..claimant.node.floor_char_boundary(usize::from(u8::MAX))];
                push_text(&mut bytes, node);
                bytes.extend_from_slice(&claimant.incarnation.to_le_bytes());
            }
            Content::Forget(room) => push_text(&mut bytes, room.as_str()),
            Content::Heads(heads) => {
                for head in heads {
                    push_text(&mut bytes, head.room.as_str());
                    for number in [head.epoch.0, head.head, head.forget_ms] {
                        bytes.extend_from_slice(&number.to_le_bytes());
                    }
                    bytes.push(u8::from(head.has_rows));
                }
            }
        }
        row::sealed(&[slot.0], &bytes).into()
    }

    /// True for an entry of the slot in a format after this build's.
    pub(super) fn is_newer(slot: Slot, entry: &[u8]) -> bool {
        let format = row::unsealed(&[slot.0], entry).and_then(|rest| rest.first().copied());
        format.is_some_and(|format| format > NODE_VERSION)
    }

    /// Reads an entry of the slot's log. `None` for a damaged entry, the entry of another slot, or a newer one.
    pub(super) fn parse(slot: Slot, entry: &[u8]) -> Option<Self> {
        let mut rest = row::unsealed(&[slot.0], entry)?;
        let [format, kind] = row::take(&mut rest)?;
        let generation = row::take_u64(&mut rest).filter(|generation| *generation <= GENERATION_MAX)?;
        let term = Term { generation, sequence: row::take_u64(&mut rest)? };
        let number = row::take_u64(&mut rest)?;
        // All former ones: an entry lives for days.
        if !(1..=NODE_VERSION).contains(&format) {
            return None;
        }
        let content = match kind {
            1 => Content::Rows(all(&mut rest, take_row)?),
            2 => Content::Claim(take_claimant(&mut rest)?),
            3 => Content::Renewal(take_claimant(&mut rest)?),
            4 => Content::Forget(take_room(&mut rest)?),
            5 => Content::Heads(all(&mut rest, take_head)?),
            _ => return None,
        };
        rest.is_empty().then_some(Self { term, number, content })
    }
}

impl Content {
    fn kind(&self) -> u8 {
        match self {
            Self::Rows(_) => 1,
            Self::Claim(_) => 2,
            Self::Renewal(_) => 3,
            Self::Forget(_) => 4,
            Self::Heads(_) => 5,
        }
    }

    /// The node that wrote a claim or a renewal.
    pub(super) fn claimant(&self) -> Option<&Claimant> {
        match self {
            Self::Claim(claimant) | Self::Renewal(claimant) => Some(claimant),
            _ => None,
        }
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).expect("names have at most 255 bytes"));
    bytes.extend_from_slice(text.as_bytes());
}

fn push_row(bytes: &mut Vec<u8>, LogRow { room, marks, message }: &LogRow) {
    push_text(bytes, room.as_str());
    bytes.extend_from_slice(&message.offset.to_le_bytes());
    let row = row::encode(&row::key(room, message.offset), marks, message);
    let length = u32::try_from(row.len()).expect("a row fits a record");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&row);
}

/// Takes items up to the end of the bytes.
fn all<T>(rest: &mut &[u8], mut take: impl FnMut(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        items.push(take(rest)?);
    }
    Some(items)
}

fn take_room(rest: &mut &[u8]) -> Option<RoomName> {
    RoomName::parse(row::take_text(rest)?).ok()
}

fn take_claimant(rest: &mut &[u8]) -> Option<Claimant> {
    Some(Claimant { node: row::take_text(rest)?.to_owned(), incarnation: row::take_u64(rest)? })
}

fn take_head(rest: &mut &[u8]) -> Option<HeadRow> {
    Some(HeadRow {
        room: take_room(rest)?,
        epoch: Epoch(row::take_u64(rest)?),
        head: row::take_u64(rest)?,
        forget_ms: row::take_u64(rest).filter(|forget_ms| *forget_ms > 0)?,
        has_rows: match row::take(rest)? {
            [0] => false,
            [1] => true,
            _ => return None,
        },
    })
}

fn take_row(rest: &mut &[u8]) -> Option<LogRow> {
    let room = take_room(rest)?;
    let offset = row::take_u64(rest)?;
    let length = usize::try_from(u32::from_le_bytes(row::take(rest)?)).ok()?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    let row::Row { marks, message } = row::decode(&row::key(&room, offset), bytes)?;
    // A payload apart has no place in the log, and a life past the longest was never given.
    let is_ours = !marks.is_apart && message.ttl <= TTL_MAX && offset > 0;
    is_ours.then(|| LogRow { room, marks, message: Arc::new(message) })
}
