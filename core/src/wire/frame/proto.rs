//! Frames as protobuf: `WebSocket header ‖ outer tag and length ‖ scalar fields ‖ … ‖ body`.
//!
//! The encoder writes into one buffer. The generated code would first build a tree of owned messages, with an
//! allocation for each string. Lengths of nested messages are summed beforehand, since protobuf puts a length
//! before the content. Field numbers come from `proto/room.proto`, and a test decodes every kind with the
//! generated code.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{BINARY, BatchFields, FrameDraft, Greeting, Head, Notice, OUTER_BYTES_MAX};
use crate::limits::{INTEGER_MAX, RECONNECT_WITHIN};
use crate::proto::{self, server_frame::Frame};
use crate::room::counters::CounterChange;
use crate::room::history::Past;
use crate::room::id::{Seq, TypeName};
use crate::room::message::{Class, Message, Payload};
use crate::room::policy::Merge;
use crate::room::{Opening, Snapshot};
use crate::wire::close::CloseReason;

/// Field numbers of `ServerFrame`.
const WELCOME: u32 = 1;
const BATCH: u32 = 2;
const HISTORY: u32 = 9;

pub(super) fn message_bytes(message: &Message) -> usize {
    // The door sizes a reliable message before the stream assigns offset and recall: reserve the most bytes.
    let largest = if message.class() == Class::Reliable { INTEGER_MAX } else { 0 };
    // A message of a summed type grows by the counts of merged messages.
    let count = if message.policy.merge == Merge::Sum { number_length(INTEGER_MAX) } else { 0 };
    let length = unplaced_length(message) + 2 * number_length(largest) + count;
    1 + encoded_len_varint(length as u64) + length
}

pub(super) fn batch(head: Head<'_>, fields: &BatchFields<'_>) -> Bytes {
    let mut frame = FrameDraft::new(BINARY, fields.capacity());
    let out = &mut frame.bytes;
    // Literal field numbers: each occurs once, in the order of `Batch` in `proto/room.proto`.
    room_run_seq(out, head);
    if let Some(span) = fields.span {
        number(out, 4, span.after);
        number(out, 5, span.through);
        number(out, 6, u64::from(span.ack_within_ms));
    }
    messages(out, 7, fields.carried);
    counts(out, 8, fields.skipped);
    messages(out, 9, fields.latest);
    messages(out, 10, fields.messages);
    counts(out, 11, fields.merged);
    counters(out, 12, fields.counters);
    finish(frame, BATCH)
}

pub(super) fn welcome(head: Head<'_>, greeting: Greeting, snapshot: &Snapshot) -> Bytes {
    let mut frame = FrameDraft::new(BINARY, 0);
    let out = &mut frame.bytes;
    // Literal field numbers: each occurs once, in the order of `Welcome` in `proto/room.proto`.
    room_run_seq(out, head);
    if let Some(opening) = &snapshot.stream {
        bytes(out, 4, opening.epoch.to_string().as_bytes());
        number(out, 5, opening.offset);
    }
    number(out, 6, u64::from(greeting.heartbeat_ms));
    number(out, 7, u64::from(greeting.resumed));
    bytes(out, 8, greeting.reset.unwrap_or_default().as_bytes());
    for past in &snapshot.history {
        message(out, 9, &past.message, Some(past.seq));
    }
    messages(out, 10, &snapshot.latest);
    counts(out, 11, &snapshot.counters);
    if let Some(Opening { carried, .. }) = &snapshot.stream {
        number(out, 12, carried.span.after);
        number(out, 13, carried.span.through);
        number(out, 14, u64::from(carried.span.ack_within_ms));
        messages(out, 15, &carried.messages);
    }
    finish(frame, WELCOME)
}

pub(super) fn history_piece(head: Head<'_>, history: &[Past]) -> Bytes {
    let mut frame = FrameDraft::new(BINARY, 0);
    let out = &mut frame.bytes;
    room_run_seq(out, head);
    for past in history {
        message(out, 4, &past.message, Some(past.seq));
    }
    finish(frame, HISTORY)
}

pub(super) fn notice(notice: Notice<'_>) -> Bytes {
    let notice = match notice {
        Notice::Pong => Frame::Pong(proto::Pong {}),
        Notice::Joined(room) => Frame::Joined(proto::Joined { room: room.to_string() }),
        Notice::Left(room) => Frame::Left(proto::Left { room: room.to_string() }),
        Notice::Closed(room) => {
            let code = CloseReason::RoomClosed.name().to_owned();
            Frame::Closed(proto::Closed { room: room.to_string(), code })
        }
        Notice::Error { code, room, field } => Frame::Error(proto::Error {
            code: code.to_owned(),
            room: room.map(ToString::to_string).unwrap_or_default(),
            field: field.unwrap_or_default().to_owned(),
        }),
        Notice::Bye => Frame::Bye(proto::Bye {
            code: CloseReason::Draining.name().to_owned(),
            reconnect_within_ms: u32::try_from(RECONNECT_WITHIN.as_millis()).expect("half a minute"),
        }),
    };
    let mut frame = FrameDraft::new(BINARY, 0);
    notice.encode(&mut frame.bytes);
    frame.finish()
}

/// Puts the tag and the length of `kind` in front of the fields, and the WebSocket header in front of both.
fn finish(frame: FrameDraft, kind: u32) -> Bytes {
    // `ServerFrame` is a oneof: one outer field, whose number is the kind of the frame.
    let length = frame.bytes.len() - super::HEADER_ROOM;
    let mut outer = [0_u8; OUTER_BYTES_MAX];
    let mut rest = &mut outer[..];
    encode_key(kind, WireType::LengthDelimited, &mut rest);
    encode_varint(length as u64, &mut rest);
    let written = OUTER_BYTES_MAX - rest.len();
    frame.finish_behind(&outer[..written])
}

/// Writes fields 1 to 3, common to welcome, batch and history.
fn room_run_seq(out: &mut BytesMut, head: Head<'_>) {
    bytes(out, 1, head.room.as_str().as_bytes());
    bytes(out, 2, head.run.to_string().as_bytes());
    number(out, 3, head.seq.0);
}

/// Writes messages without the seq of a batch, each as `field`.
fn messages(out: &mut BytesMut, field: u32, messages: &[Arc<Message>]) {
    for each in messages {
        message(out, field, each, None);
    }
}

fn message(out: &mut BytesMut, field: u32, message: &Message, seq: Option<Seq>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(message_length(message, seq) as u64, out);
    bytes(out, 1, message.type_name.as_str().as_bytes());
    bytes(out, 2, message.payload.bytes());
    number(out, 3, u64::from(matches!(message.payload, Payload::Json(_))));
    bytes(out, 4, message.id.as_ref().map_or(&[], |id| id.as_str().as_bytes()));
    number(out, 5, message.at_ms);
    number(out, 6, seq.map_or(0, |seq| seq.0));
    number(out, 7, message.offset);
    bytes(out, 8, message.key.as_ref().map_or(&[], |key| key.as_str().as_bytes()));
    number(out, 9, message.recall);
    number(out, 10, told_count(message));
}

/// Count field of a message. A count of 1 is spelt as 0 and so left out: a device reads 1 for an absent
/// count.
fn told_count(message: &Message) -> u64 {
    if message.count == 1 { 0 } else { message.count }
}

fn message_length(message: &Message, seq: Option<Seq>) -> usize {
    unplaced_length(message)
        + seq.map_or(0, |seq| number_length(seq.0))
        + number_length(message.offset)
        + number_length(message.recall)
        + number_length(told_count(message))
}

/// Length of a message without seq, offset, recall and count.
fn unplaced_length(message: &Message) -> usize {
    // The door sizes a message before the home sets the time: a tag, and six bytes of varint until the year
    // 2109.
    let at = if message.at_ms == 0 { 7 } else { number_length(message.at_ms) };
    bytes_length(message.type_name.as_str().len())
        + bytes_length(message.payload.bytes().len())
        + if matches!(message.payload, Payload::Json(_)) { 2 } else { 0 }
        + message.id.as_ref().map_or(0, |id| bytes_length(id.as_str().len()))
        + at
        + message.key.as_ref().map_or(0, |key| bytes_length(key.as_str().len()))
}

/// Writes a `map<string, uint64>`: one entry per type, each a message of key and value.
fn counts(out: &mut BytesMut, field: u32, counts: &[(TypeName, u64)]) {
    for (type_name, count) in counts {
        let name = type_name.as_str().as_bytes();
        entry(out, field, name, number_length(*count));
        number(out, 2, *count);
    }
}

/// Writes a `map<string, CounterChange>`.
fn counters(out: &mut BytesMut, field: u32, changes: &[CounterChange]) {
    for CounterChange { type_name, add, total } in changes {
        let change = number_length(*add) + number_length(*total);
        entry(out, field, type_name.as_str().as_bytes(), 1 + encoded_len_varint(change as u64) + change);
        encode_key(2, WireType::LengthDelimited, out);
        encode_varint(change as u64, out);
        number(out, 1, *add);
        number(out, 2, *total);
    }
}

/// Opens a map entry and writes the key. The caller writes `value_length` bytes of value.
fn entry(out: &mut BytesMut, field: u32, key: &[u8], value_length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint((bytes_length(key.len()) + value_length) as u64, out);
    bytes(out, 1, key);
}

/// Writes a varint field. Zero is left out, as in proto3.
fn number(out: &mut BytesMut, field: u32, value: u64) {
    if value > 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// Length of a varint field. Valid for field numbers below sixteen, with a tag of one byte.
fn number_length(value: u64) -> usize {
    if value > 0 { 1 + encoded_len_varint(value) } else { 0 }
}

/// Writes a length-delimited field. An empty value is left out.
fn bytes(out: &mut BytesMut, field: u32, value: &[u8]) {
    if !value.is_empty() {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(value.len() as u64, out);
        out.put_slice(value);
    }
}

/// Length of a length-delimited field. Valid for field numbers below sixteen, with a tag of one byte.
fn bytes_length(length: usize) -> usize {
    if length > 0 { 1 + encoded_len_varint(length as u64) + length } else { 0 }
}
