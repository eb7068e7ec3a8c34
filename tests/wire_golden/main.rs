//! The bytes devices get. Golden: every server frame in both encodings, spelt out field by field, so that a change of
//! the wire can't go unseen. Round trip: random frames, read back by decoders that share no code with the encoder.

#![expect(clippy::unwrap_used, reason = "clippy allows it in test functions alone, not in what they share")]

mod batches;
mod inputs;
mod notices;
mod round_trips;
mod sizes;
mod welcomes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_core::room::history::{History, Past};
use roomcast_core::room::id::{Key, MessageId, RoomName, Run, Seq, TypeName};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::policy::TypePolicy;
use roomcast_core::wire::frame::Head;

const RUN: Run = Run(0x1f);
const RUN_TEXT: &str = "000000000000001f";
/// Within the thirteen digits that unix milliseconds have in our time.
const AT_MS: u64 = 1_700_000_000_000;

fn type_name(name: &str) -> TypeName {
    TypeName::parse(name).unwrap()
}

fn room() -> RoomName {
    RoomName::parse("r1").unwrap()
}

fn head(room: &RoomName) -> Head<'_> {
    Head { room, run: RUN, seq: Seq(42) }
}

fn message(name: &str, payload: Payload) -> Message {
    let (policy, type_name) = (TypePolicy::of(Class::Normal), type_name(name));
    let (key, id) = (None, None);
    Message {
        type_name,
        policy,
        key,
        id,
        payload,
        count: 1,
        ttl: Duration::ZERO,
        offset: 0,
        recall: 0,
        at_ms: AT_MS,
        wire_bytes: 0,
    }
}

/// JSON payload, publisher's id.
fn chat() -> Message {
    let payload = Payload::Json(Bytes::from_static(br#"{"t": "hi"}"#));
    Message { id: Some(MessageId::parse("m-1").unwrap()), ..message("chat", payload) }
}

/// Opaque payload, a key that JSON has to escape.
fn price() -> Message {
    let payload = Payload::Opaque(Bytes::from_static(&[0x00, 0xff, 0x10]));
    Message { key: Some(Key::parse("k\"1").unwrap()), ..message("price", payload) }
}

/// A reliable message.
fn coupon() -> Message {
    let payload = Payload::Json(Bytes::from_static(b"{\"c\":1}"));
    Message { policy: TypePolicy::of(Class::Reliable), offset: 8, ..message("coupon", payload) }
}

/// What takes an earlier one back.
fn recall() -> Message {
    let payload = Payload::Json(Bytes::from_static(b"null"));
    Message { policy: TypePolicy::of(Class::Reliable), offset: 300, recall: 5, ..message("coupon", payload) }
}

fn past(messages: impl IntoIterator<Item = (u64, Message)>) -> Vec<Past> {
    let (mut history, now) = (History::default(), roomcast::clock::now().instant);
    for (seq, message) in messages {
        history.push(Seq(seq), Arc::new(message), now);
    }
    history.since(Seq(0)).cloned().collect()
}

/// Compares a frame with its fields, one after the other, and names the first that differs.
#[track_caller]
fn assert_golden(frame: &[u8], fields: &[&[u8]]) {
    let mut rest = frame;
    for (n, field) in fields.iter().enumerate() {
        let (is, behind) = rest.split_at(field.len().min(rest.len()));
        assert_eq!(is.escape_ascii().to_string(), field.escape_ascii().to_string(), "field {n} of the list");
        rest = behind;
    }
    assert_eq!(rest.escape_ascii().to_string(), "", "behind the last field");
}

/// Splits a server's frame by RFC 6455 §5.2: the first byte, and the payload behind a length in its shortest form.
fn unframe(frame: &[u8]) -> (u8, &[u8]) {
    let (length, payload) = match frame[1] {
        126 => (u64::from(u16::from_be_bytes([frame[2], frame[3]])), &frame[4..]),
        127 => (u64::from_be_bytes(frame[2..10].try_into().unwrap()), &frame[10..]),
        short => (u64::from(short), &frame[2..]),
    };
    assert_eq!(length, payload.len() as u64);
    let shortest = if length < 126 {
        2
    } else if length < 65_536 {
        4
    } else {
        10
    };
    assert_eq!(frame.len() - payload.len(), shortest, "{length} bytes in the shortest form");
    (frame[0], payload)
}
