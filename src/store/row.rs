//! A stored message as bytes, and the time of its removal. Files and tables are elsewhere.
//!
//! A row, little endian:
//!
//! | at | bytes | content |
//! |---|---|---|
//! | 0 | 8 | checksum: xxh3-64 over the row's key, then over all further bytes of the row |
//! | 8 | 8 | epoch |
//! | 16 | 8 | `at_ms` |
//! | 24 | 8 | ttl in milliseconds |
//! | 32 | 8 | offset of the recalled message; 0: none |
//! | 40 | 4 | `wire_bytes` |
//! | 44 | 1 | bit 0: urgent; bit 1: the payload is opaque; bit 2: marks; bit 3: the payload is apart |
//! | 45 | 24 | marks, if bit 2 is set: acceptance in store time, offset of the recall (0: none), fingerprint |
//! | … | 1 + n | type: length, then text |
//! | … | 1 + n | key; length 0: none |
//! | … | 1 + n | id; length 0: none |
//! | … | rest | payload, unless bit 3 is set |
//!
//! Rows of form 1 have no marks: their acceptance is `at_ms`, and a recalled row of form 1 gets marks. A
//! payload above `PAYLOAD_INLINE_BYTES_MAX` stands apart at the same key: checksum ‖ payload. So a load reads
//! large payloads for the tail alone.
//!
//! The row's key is `room ‖ 0 ‖ offset`, the offset big endian. So the rows of a room stand together, in
//! order of offset (no room name has a zero byte). The checksum covers the key: a row at a wrong key counts
//! as damaged.

use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use roomcast_core::limits::{ID_AGE_MAX, PAYLOAD_INLINE_BYTES_MAX, TAIL_BYTES_MAX, TAIL_MESSAGES_MAX};
use roomcast_core::now::millis;
use roomcast_core::room::id::{Epoch, Key, MessageId, RoomName, TypeName};
use roomcast_core::room::ids::Fingerprint;
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::policy::TypePolicy;
use roomcast_core::room::stored::Record;

use super::time::StoreNow;

/// Bytes before the type, with marks.
const FIXED_BYTES: usize = 45 + 24;
/// Bytes of a checksum.
const SEAL_BYTES: usize = 8;
const URGENT: u8 = 1;
const OPAQUE: u8 = 2;
const MARKED: u8 = 4;
const APART: u8 = 8;

/// A row with a correct checksum.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) marks: Marks,
    /// Without a payload if the payload is apart.
    pub(super) message: Message,
}

/// The content of a row beside the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) epoch: Epoch,
    /// Acceptance in store time. The message expires, and its `id` stops counting, by this time.
    pub(super) accepted_ms: u64,
    /// The offset of the message's recall; 0: none. The recall's own row may be damaged.
    pub(super) recalled_by: u64,
    pub(super) fingerprint: Fingerprint,
    /// True: the payload has a row of its own.
    pub(super) is_apart: bool,
}

impl Marks {
    /// The marks of a message accepted at `accepted_ms`.
    pub(super) fn of(epoch: Epoch, accepted_ms: u64, message: &Message) -> Self {
        let is_apart = message.payload.bytes().len() > PAYLOAD_INLINE_BYTES_MAX;
        Self { epoch, accepted_ms, recalled_by: 0, fingerprint: Fingerprint::of(message), is_apart }
    }

    /// Store time at which the row may go: the later of the message's expiry and the end of the `id`.
    pub(super) fn delete_at_ms(&self, message: &Message) -> u64 {
        self.accepted_ms.saturating_add(millis(message.ttl.max(ID_AGE_MAX)))
    }

    /// The record of the message, as of `now`.
    pub(super) fn record(&self, message: &Message, now: StoreNow) -> Record {
        let age = now.age(self.accepted_ms);
        Record {
            offset: message.offset,
            type_name: message.type_name.clone(),
            id: message.id.clone(),
            fingerprint: self.fingerprint,
            at_ms: message.at_ms,
            ttl: message.ttl,
            recall: message.recall,
            recalled_by: self.recalled_by,
            wire_bytes: message.wire_bytes,
            // Some systems have no instant before their boot. The age then counts from now.
            accepted: now.instant.checked_sub(age).unwrap_or(now.instant),
            expires: now.instant + message.ttl.saturating_sub(age),
        }
    }
}

/// The room left in a tail that is filled from its newest message.
#[derive(Debug, Default)]
pub(super) struct TailRoom {
    messages: usize,
    bytes: usize,
}

impl TailRoom {
    /// True if a message of this size belongs to the tail. After the first one that does not, none does.
    pub(super) fn takes(&mut self, wire_bytes: usize) -> bool {
        self.messages += 1;
        self.bytes += wire_bytes;
        self.messages <= TAIL_MESSAGES_MAX && self.bytes <= TAIL_BYTES_MAX
    }
}

/// The key of a message's row.
pub(super) fn key(room: &RoomName, offset: u64) -> Vec<u8> {
    key_of(room.as_str().as_bytes(), offset)
}

pub(super) fn key_of(room: &[u8], offset: u64) -> Vec<u8> {
    [room, &[0], &offset.to_be_bytes()].concat()
}

/// The offset at the end of a key. `None` for a key below 8 bytes.
pub(super) fn offset_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|offset| u64::from_be_bytes(*offset))
}

/// The checksum over `key`, then `rest`.
fn seal(key: &[u8], rest: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(key);
    sum.update(rest);
    sum.digest()
}

/// `rest` behind its checksum.
pub(super) fn sealed(key: &[u8], rest: &[u8]) -> Vec<u8> {
    [&seal(key, rest).to_le_bytes(), rest].concat()
}

/// The bytes behind a checksum. `None` for a wrong checksum.
pub(super) fn unsealed<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, rest) = value.split_first_chunk()?;
    (u64::from_le_bytes(*sum) == seal(key, rest)).then_some(rest)
}

/// Bytes of a message's rows and their keys. `STORE_BYTES_MAX` bounds their sum.
pub(super) fn stored_bytes(room: &RoomName, message: &Message) -> u64 {
    let text = message.type_name.as_str().len()
        + message.key.as_ref().map_or(0, |key| key.as_str().len())
        + message.id.as_ref().map_or(0, |id| id.as_str().len());
    let key = room.as_str().len() + 9;
    let payload = message.payload.bytes().len();
    let apart = if payload > PAYLOAD_INLINE_BYTES_MAX { key + SEAL_BYTES } else { 0 };
    (key + FIXED_BYTES + 3 + text + payload + apart) as u64
}

/// The row of a message at `key`. The class is not among the bytes: every stored message is reliable.
pub(super) fn encode(key: &[u8], marks: &Marks, message: &Message) -> Vec<u8> {
    let inline: &[u8] = if marks.is_apart { &[] } else { message.payload.bytes() };
    let mut row = Vec::with_capacity(FIXED_BYTES + 3 + 256 + inline.len());
    row.extend_from_slice(&[0; SEAL_BYTES]);
    for number in [marks.epoch.0, message.at_ms, millis(message.ttl), message.recall] {
        row.extend_from_slice(&number.to_le_bytes());
    }
    row.extend_from_slice(&u32::try_from(message.wire_bytes).unwrap_or(u32::MAX).to_le_bytes());
    let mut flags = MARKED;
    for (flag, is_set) in [
        (URGENT, message.policy.urgent),
        (OPAQUE, matches!(message.payload, Payload::Opaque(_))),
        (APART, marks.is_apart),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    row.push(flags);
    for number in [marks.accepted_ms, marks.recalled_by, marks.fingerprint.0] {
        row.extend_from_slice(&number.to_le_bytes());
    }
    push_text(&mut row, message.type_name.as_str());
    push_text(&mut row, message.key.as_ref().map_or("", Key::as_str));
    push_text(&mut row, message.id.as_ref().map_or("", MessageId::as_str));
    row.extend_from_slice(inline);
    let sum = seal(key, &row[SEAL_BYTES..]);
    row[..SEAL_BYTES].copy_from_slice(&sum.to_le_bytes());
    row
}

fn push_text(row: &mut Vec<u8>, text: &str) {
    row.push(u8::try_from(text.len()).expect("names are at most 128 bytes"));
    row.extend_from_slice(text.as_bytes());
}

/// Reads the row at `key`. `None` for a damaged row, or a row of another key.
pub(super) fn decode(key: &[u8], row: &[u8]) -> Option<Row> {
    let mut rest = unsealed(key, row)?;
    let epoch = Epoch(take_u64(&mut rest)?);
    let at_ms = take_u64(&mut rest)?;
    let ttl = Duration::from_millis(take_u64(&mut rest)?);
    let recall = take_u64(&mut rest)?;
    let wire_bytes = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
    let [flags] = take(&mut rest)?;
    let has = |flag| flags & flag != 0;
    let mut marks = Marks {
        epoch,
        accepted_ms: at_ms,
        recalled_by: 0,
        fingerprint: Fingerprint(0),
        is_apart: has(MARKED) && has(APART),
    };
    if has(MARKED) {
        marks.accepted_ms = take_u64(&mut rest)?;
        marks.recalled_by = take_u64(&mut rest)?;
        marks.fingerprint = Fingerprint(take_u64(&mut rest)?);
    }
    let type_name = TypeName::parse(take_text(&mut rest)?).ok()?;
    let message_key = some_text(take_text(&mut rest)?, Key::parse)?;
    let id = some_text(take_text(&mut rest)?, MessageId::parse)?;
    let payload = Bytes::copy_from_slice(rest);
    let message = Message {
        type_name,
        policy: TypePolicy { urgent: has(URGENT), ..TypePolicy::of(Class::Reliable) },
        key: message_key,
        id,
        payload: if has(OPAQUE) { Payload::Opaque(payload) } else { Payload::Json(payload) },
        count: 1,
        ttl,
        offset: offset_of(key)?,
        recall,
        at_ms,
        wire_bytes,
    };
    if !has(MARKED) {
        marks.fingerprint = Fingerprint::of(&message);
    }
    Some(Row { marks, message })
}

/// The acceptance of a row's message in store time. `None` for a damaged row.
pub(super) fn accepted_ms(key: &[u8], row: &[u8]) -> Option<u64> {
    decode(key, row).map(|row| row.marks.accepted_ms)
}

impl Row {
    /// The message with its payload from the row at the same key; `None` if that row is damaged.
    pub(super) fn with_payload(self, key: &[u8], apart: &[u8]) -> Option<Message> {
        let payload = Bytes::copy_from_slice(unsealed(key, apart)?);
        let payload = match self.message.payload {
            Payload::Json(_) => Payload::Json(payload),
            Payload::Opaque(_) => Payload::Opaque(payload),
        };
        Some(Message { payload, ..self.message })
    }
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

pub(super) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

pub(super) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [len] = take(rest)?;
    let (text, behind) = rest.split_at_checked(usize::from(len))?;
    *rest = behind;
    std::str::from_utf8(text).ok()
}

/// An optional text: `Some(None)` for an empty text, `None` for a text that is not allowed.
fn some_text<T, E>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text).ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::room::message::sample;

    fn coupon() -> Message {
        Message {
            policy: TypePolicy::of(Class::Reliable),
            key: Some(Key::parse("shop 7").unwrap()),
            id: Some(MessageId::parse("order-1").unwrap()),
            payload: Payload::Opaque(Bytes::from_static(b"\0ten\xff")),
            ttl: Duration::from_secs(60),
            offset: 7,
            recall: 3,
            at_ms: 1_700_000_000_000,
            ..sample("coupon", "")
        }
    }

    fn marks(message: &Message) -> Marks {
        Marks { recalled_by: 9, ..Marks::of(Epoch(9), 1_600_000_000_000, message) }
    }

    /// A row as form 1 had it.
    fn of_form_1(key: &[u8], message: &Message) -> Vec<u8> {
        let row = encode(key, &marks(message), message);
        let flags = row[44] & !MARKED;
        sealed(key, &[&row[8..44], &[flags], &row[FIXED_BYTES..]].concat())
    }

    #[test]
    fn a_row_comes_back_as_it_was() {
        let room = RoomName::parse("live:1").unwrap();
        for message in [
            coupon(),
            Message { policy: TypePolicy::of(Class::Reliable), offset: 7, ..sample("red_packet", "{}") },
        ] {
            let key = key(&room, 7);
            let row = encode(&key, &marks(&message), &message);
            let read = decode(&key, &row).unwrap();
            assert_eq!(read.marks, marks(&message));
            assert_eq!(format!("{:?}", read.message), format!("{message:?}"));
            assert_eq!((key.len() + row.len()) as u64, stored_bytes(&room, &message));
        }
    }

    #[test]
    fn a_large_payload_stands_apart_and_comes_back_whole() {
        let room = RoomName::parse("live:1").unwrap();
        let key = key(&room, 7);
        let payload = Bytes::from(vec![7; PAYLOAD_INLINE_BYTES_MAX + 1]);
        let large = Message { payload: Payload::Opaque(payload.clone()), ..coupon() };
        let row = encode(&key, &marks(&large), &large);
        let apart = sealed(&key, &payload);
        assert_eq!((2 * key.len() + row.len() + apart.len()) as u64, stored_bytes(&room, &large));
        let read = decode(&key, &row).unwrap();
        assert!(read.marks.is_apart && read.message.payload.bytes().is_empty());
        assert_eq!(read.with_payload(&key, &apart).unwrap(), large);
        let mut turned = apart;
        turned[100] ^= 1;
        assert!(decode(&key, &row).unwrap().with_payload(&key, &turned).is_none());
    }

    #[test]
    fn a_row_of_form_1_is_read_with_the_marks_that_it_would_have() {
        let room = RoomName::parse("live:1").unwrap();
        let key = key(&room, 7);
        let read = decode(&key, &of_form_1(&key, &coupon())).unwrap();
        assert_eq!(read.marks, Marks::of(Epoch(9), coupon().at_ms, &coupon()));
        assert_eq!(read.message, coupon());
    }

    #[test]
    fn a_row_with_one_bit_turned_or_cut_or_in_another_place_is_damaged() {
        let room = RoomName::parse("live:1").unwrap();
        let key = key(&room, 7);
        let row = encode(&key, &marks(&coupon()), &coupon());
        for bit in 0..row.len() * 8 {
            let mut turned = row.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &turned).is_none(), "bit {bit}");
        }
        for len in 0..row.len() {
            assert!(decode(&key, &row[..len]).is_none(), "{len} bytes");
        }
        assert!(decode(&super::key(&room, 8), &row).is_none());
        assert!(decode(&super::key(&RoomName::parse("live:2").unwrap(), 7), &row).is_none());
    }

    #[test]
    fn a_row_stays_while_the_message_lives_and_while_its_id_counts() {
        let of = |seconds| {
            let message = Message { ttl: Duration::from_secs(seconds), ..coupon() };
            Marks { accepted_ms: 1000, ..marks(&message) }.delete_at_ms(&message)
        };
        assert_eq!([of(1), of(600)], [301_000, 601_000]);
    }
}
