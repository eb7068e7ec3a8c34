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
//! | 44 | 1 | bit 0: urgent; bit 1: the payload is opaque |
//! | 45 | 1 + n | type: length, then text |
//! | … | 1 + n | key; length 0: none |
//! | … | 1 + n | id; length 0: none |
//! | … | rest | payload |
//!
//! The row's key is `room ‖ 0 ‖ offset`, the offset big endian. So the rows of a room stand together, in
//! order of offset (no room name has a zero byte). The checksum covers the key: a row at a wrong key counts
//! as damaged.

use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use roomcast_core::limits::ID_AGE_MAX;
use roomcast_core::now::millis;
use roomcast_core::room::id::{Epoch, Key, MessageId, RoomName, TypeName};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::policy::TypePolicy;

const FIXED_BYTES: usize = 45;
const URGENT: u8 = 1;
const OPAQUE: u8 = 2;

/// A row with a correct checksum.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) epoch: Epoch,
    pub(super) message: Message,
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

/// Unix ms at which the row may go: the later of the message's expiry and the end of the `id` (`ID_AGE_MAX`).
pub(super) fn delete_at_ms(message: &Message) -> u64 {
    message.expires_ms().max(message.at_ms.saturating_add(millis(ID_AGE_MAX)))
}

/// Bytes of a message's row and key. `STORE_BYTES_MAX` bounds their sum.
pub(super) fn stored_bytes(room: &RoomName, message: &Message) -> u64 {
    let text = message.type_name.as_str().len()
        + message.key.as_ref().map_or(0, |key| key.as_str().len())
        + message.id.as_ref().map_or(0, |id| id.as_str().len());
    let row = FIXED_BYTES + 3 + text + message.payload.bytes().len();
    (room.as_str().len() + 9 + row) as u64
}

/// The row of a message at `key`. The class is not among the bytes: every stored message is reliable.
pub(super) fn encode(key: &[u8], epoch: Epoch, message: &Message) -> Vec<u8> {
    let payload = message.payload.bytes();
    let mut row = Vec::with_capacity(FIXED_BYTES + 3 + 256 + payload.len());
    row.extend_from_slice(&[0; 8]);
    for number in [epoch.0, message.at_ms, millis(message.ttl), message.recall] {
        row.extend_from_slice(&number.to_le_bytes());
    }
    row.extend_from_slice(&u32::try_from(message.wire_bytes).unwrap_or(u32::MAX).to_le_bytes());
    let opaque = matches!(message.payload, Payload::Opaque(_));
    row.push(if message.policy.urgent { URGENT } else { 0 } | if opaque { OPAQUE } else { 0 });
    push_text(&mut row, message.type_name.as_str());
    push_text(&mut row, message.key.as_ref().map_or("", Key::as_str));
    push_text(&mut row, message.id.as_ref().map_or("", MessageId::as_str));
    row.extend_from_slice(payload);
    let sum = seal(key, &row[8..]);
    row[..8].copy_from_slice(&sum.to_le_bytes());
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
    let type_name = TypeName::parse(take_text(&mut rest)?).ok()?;
    let message_key = some_text(take_text(&mut rest)?, Key::parse)?;
    let id = some_text(take_text(&mut rest)?, MessageId::parse)?;
    let payload = Bytes::copy_from_slice(rest);
    let message = Message {
        type_name,
        policy: TypePolicy { urgent: flags & URGENT != 0, ..TypePolicy::of(Class::Reliable) },
        key: message_key,
        id,
        payload: if flags & OPAQUE == 0 { Payload::Json(payload) } else { Payload::Opaque(payload) },
        count: 1,
        ttl,
        offset: offset_of(key)?,
        recall,
        at_ms,
        wire_bytes,
    };
    Some(Row { epoch, message })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

pub(super) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
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

    #[test]
    fn a_row_comes_back_as_it_was() {
        let room = RoomName::parse("live:1").unwrap();
        for message in [
            coupon(),
            Message { policy: TypePolicy::of(Class::Reliable), offset: 7, ..sample("red_packet", "{}") },
        ] {
            let key = key(&room, 7);
            let row = encode(&key, Epoch(9), &message);
            let read = decode(&key, &row).unwrap();
            assert_eq!(read.epoch, Epoch(9));
            assert_eq!(format!("{:?}", read.message), format!("{message:?}"));
            assert_eq!((key.len() + row.len()) as u64, stored_bytes(&room, &message));
        }
    }

    #[test]
    fn a_row_with_one_bit_turned_or_cut_or_in_another_place_is_damaged() {
        let room = RoomName::parse("live:1").unwrap();
        let key = key(&room, 7);
        let row = encode(&key, Epoch(9), &coupon());
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
        let short = Message { ttl: Duration::from_secs(1), at_ms: 1000, ..coupon() };
        assert_eq!(delete_at_ms(&short), 301_000);
        let long = Message { ttl: Duration::from_secs(600), at_ms: 1000, ..coupon() };
        assert_eq!(delete_at_ms(&long), 601_000);
    }
}
