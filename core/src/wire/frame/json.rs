//! Frames as JSON text: `{"kind":"batch","room":…,"seq":…` ‖ optional fields ‖ `,"messages":…}`.
//!
//! The publisher door checks each payload marked JSON. The encoder copies the payload unread.

use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};

use super::{BatchFields, FrameDraft, Greeting, Head, Notice, TEXT};
use crate::limits::{COUNT_WIRE_BYTES, RECONNECT_WITHIN};
use crate::room::counters::CounterChange;
use crate::room::history::Past;
use crate::room::id::{RoomName, Seq, TypeName};
use crate::room::message::{Class, Message, Payload};
use crate::room::policy::Merge;
use crate::room::{Carried, Opening, Snapshot, Span};
use crate::wire::close::CloseReason;

pub(super) fn message_bytes(message: &Message) -> usize {
    let payload = match &message.payload {
        Payload::Json(bytes) => bytes.len(),
        Payload::Opaque(bytes) => bytes.len().div_ceil(3) * 4 + br#""_b64""#.len(),
    };
    // Type names have a safe alphabet. Ids and keys may hold quotes and backslashes.
    let named = |name: Option<&str>, field: &str| name.map_or(0, |text| field.len() + string_bytes(text));
    // The door sizes a reliable message before the stream assigns the offset: reserve the most digits.
    let places = if message.class() == Class::Reliable {
        br#","offset":,"recall":"#.len() + 2 * INTEGER_DIGITS_MAX
    } else {
        0
    };
    br#"{"type":"","payload":,"at":},"#.len()
        + message.type_name.as_str().len()
        + payload
        + UNIX_MS_DIGITS
        + places
        + if message.policy.merge == Merge::Sum { COUNT_WIRE_BYTES } else { 0 }
        + named(message.id.as_ref().map(|id| id.as_str()), r#","id":"#)
        + named(message.key.as_ref().map(|key| key.as_str()), r#","key":"#)
}

/// Digits of unix milliseconds from 2001 to 2286.
const UNIX_MS_DIGITS: usize = 13;
/// Digits of [`INTEGER_MAX`](crate::limits::INTEGER_MAX).
const INTEGER_DIGITS_MAX: usize = 16;

/// Length of `text` as a JSON string: two quotes, and one more byte for each escape. Control characters, with
/// longer escapes, are refused at the door.
fn string_bytes(text: &str) -> usize {
    2 + text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count()
}

pub(super) fn batch(head: Head<'_>, fields: &BatchFields<'_>) -> Bytes {
    let mut frame = FrameDraft::new(TEXT, fields.capacity());
    let out = &mut frame.bytes;
    text(out, r#"{"kind":"batch","#);
    room_run_seq(out, head);
    // Optional fields are left out when empty: most frames have few.
    if let Some(of) = fields.span {
        span(out, of);
    }
    if !fields.carried.is_empty() {
        text(out, ",\"carried\":");
        shared(out, fields.carried);
    }
    counts(out, "skipped", fields.skipped);
    if !fields.latest.is_empty() {
        text(out, ",\"latest\":");
        shared(out, fields.latest);
    }
    // A device finds `messages` in every batch frame.
    text(out, ",\"messages\":");
    shared(out, fields.messages);
    counts(out, "merged", fields.merged);
    counters(out, fields.counters);
    text(out, "}");
    frame.finish()
}

pub(super) fn welcome(head: Head<'_>, greeting: Greeting, snapshot: &Snapshot) -> Bytes {
    let mut frame = FrameDraft::new(TEXT, 0);
    let out = &mut frame.bytes;
    text(out, r#"{"kind":"welcome","#);
    room_run_seq(out, head);
    if let Some(Opening { epoch, offset, carried: _ }) = &snapshot.stream {
        format(out, format_args!(",\"epoch\":\"{epoch}\",\"offset\":{offset}"));
    }
    let Greeting { heartbeat_ms, resumed, reset } = greeting;
    format(out, format_args!(",\"heartbeat_ms\":{heartbeat_ms},\"resumed\":{resumed}"));
    why_reset(out, reset);
    text(out, ",\"history\":");
    history(out, &snapshot.history);
    text(out, ",\"latest\":");
    shared(out, &snapshot.latest);
    text(out, ",\"counters\":");
    by_type(out, &snapshot.counters);
    if let Some(Opening { carried, .. }) = &snapshot.stream {
        span(out, carried.span);
        text(out, ",\"reliable\":");
        shared(out, &carried.messages);
    }
    text(out, "}");
    frame.finish()
}

pub(super) fn history_piece(head: Head<'_>, past: &[Past]) -> Bytes {
    let mut frame = FrameDraft::new(TEXT, 0);
    let out = &mut frame.bytes;
    text(out, r#"{"kind":"history","#);
    room_run_seq(out, head);
    text(out, ",\"history\":");
    history(out, past);
    text(out, "}");
    frame.finish()
}

/// Page of the history for the pull side: JSON without a WebSocket header.
pub fn history_page(head: Head<'_>, resumed: bool, snapshot: &Snapshot) -> Bytes {
    let mut page = BytesMut::new();
    text(&mut page, "{");
    room_run_seq(&mut page, head);
    format(&mut page, format_args!(",\"resumed\":{resumed},\"history\":"));
    history(&mut page, &snapshot.history);
    text(&mut page, "}");
    page.freeze()
}

/// Page of the reliable stream for the pull side: JSON without a WebSocket header. `reset` is the reason for
/// a cursor that was not honoured.
pub fn reliable_page(room: &RoomName, opening: &Opening, reset: Option<&str>) -> Bytes {
    let Opening { epoch, offset, carried: Carried { span: Span { after, through, .. }, messages } } = opening;
    let mut page = BytesMut::new();
    format(&mut page, format_args!(r#"{{"room":"{room}","epoch":"{epoch}","offset":{offset}"#));
    why_reset(&mut page, reset);
    // No `ack_within_ms`: pulled messages are not acknowledged, so no acknowledgements need a spread.
    format(&mut page, format_args!(r#","after":{after},"through":{through},"reliable":"#));
    shared(&mut page, messages);
    text(&mut page, "}");
    page.freeze()
}

pub(super) fn notice(notice: Notice<'_>) -> Bytes {
    let mut frame = FrameDraft::new(TEXT, 0);
    let out = &mut frame.bytes;
    match notice {
        Notice::Pong => text(out, r#"{"kind":"pong"}"#),
        Notice::Joined(room) => format(out, format_args!(r#"{{"kind":"joined","room":"{room}"}}"#)),
        Notice::Left(room) => format(out, format_args!(r#"{{"kind":"left","room":"{room}"}}"#)),
        Notice::Closed(room) => {
            let code = CloseReason::RoomClosed.name();
            format(out, format_args!(r#"{{"kind":"closed","room":"{room}","code":"{code}"}}"#));
        }
        Notice::Error { code, room, field } => {
            format(out, format_args!(r#"{{"kind":"error","code":"{code}""#));
            if let Some(room) = room {
                format(out, format_args!(r#","room":"{room}""#));
            }
            if let Some(field) = field {
                format(out, format_args!(r#","field":"{field}""#));
            }
            text(out, "}");
        }
        Notice::Bye => {
            let code = CloseReason::Draining.name();
            let within = RECONNECT_WITHIN.as_millis();
            format(out, format_args!(r#"{{"kind":"bye","code":"{code}","reconnect_within_ms":{within}}}"#));
        }
    }
    frame.finish()
}

fn room_run_seq(out: &mut BytesMut, head: Head<'_>) {
    let Head { room, run, seq: Seq(seq) } = head;
    format(out, format_args!(r#""room":"{room}","run":"{run}","seq":{seq}"#));
}

/// Writes the reason for a cursor that was not honoured, or `null`.
fn why_reset(out: &mut BytesMut, reset: Option<&str>) {
    text(out, ",\"reset\":");
    match reset {
        Some(reason) => string(out, reason),
        None => text(out, "null"),
    }
}

fn span(out: &mut BytesMut, of: Span) {
    let Span { after, through, ack_within_ms } = of;
    format(out, format_args!(r#","after":{after},"through":{through},"ack_within_ms":{ack_within_ms}"#));
}

fn history(out: &mut BytesMut, history: &[Past]) {
    messages(out, history.iter().map(|past| (&*past.message, Some(past.seq))));
}

/// Writes messages without the seq of a batch.
fn shared(out: &mut BytesMut, all: &[Arc<Message>]) {
    messages(out, all.iter().map(|message| (&**message, None)));
}

fn messages<'a>(out: &mut BytesMut, messages: impl Iterator<Item = (&'a Message, Option<Seq>)>) {
    out.put_u8(b'[');
    for (index, (each, seq)) in messages.enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        message(out, each, seq);
    }
    out.put_u8(b']');
}

fn message(out: &mut BytesMut, message: &Message, seq: Option<Seq>) {
    text(out, "{\"type\":\"");
    text(out, message.type_name.as_str());
    match &message.payload {
        // A JSON value goes in as it is, anything else as base64 under another name.
        Payload::Json(bytes) => {
            text(out, "\",\"payload\":");
            out.put_slice(bytes);
        }
        Payload::Opaque(bytes) => {
            text(out, "\",\"payload_b64\":\"");
            text(out, &BASE64.encode(bytes));
            text(out, "\"");
        }
    }
    if let Some(id) = &message.id {
        text(out, ",\"id\":");
        string(out, id.as_str());
    }
    format(out, format_args!(",\"at\":{}", message.at_ms));
    if let Some(Seq(seq)) = seq {
        format(out, format_args!(",\"seq\":{seq}"));
    }
    // Offsets begin at 1: zero marks a message that is not reliable.
    if message.offset > 0 {
        format(out, format_args!(",\"offset\":{}", message.offset));
    }
    if let Some(key) = &message.key {
        text(out, ",\"key\":");
        string(out, key.as_str());
    }
    // A single count goes without saying: a device reads 1 for an absent count.
    if message.count != 1 {
        format(out, format_args!(",\"count\":{}", message.count));
    }
    if message.recall > 0 {
        format(out, format_args!(",\"recall\":{}", message.recall));
    }
    text(out, "}");
}

/// Writes `,"name":{"type":count,…}`, or nothing for no counts.
fn counts(out: &mut BytesMut, name: &str, counts: &[(TypeName, u64)]) {
    if !counts.is_empty() {
        format(out, format_args!(",\"{name}\":"));
        by_type(out, counts);
    }
}

/// Writes `{"type":count,…}`.
fn by_type(out: &mut BytesMut, counts: &[(TypeName, u64)]) {
    let mut separator = "";
    text(out, "{");
    for (type_name, count) in counts {
        format(out, format_args!("{separator}\"{type_name}\":{count}"));
        separator = ",";
    }
    text(out, "}");
}

fn counters(out: &mut BytesMut, changes: &[CounterChange]) {
    // Most batches change no counter.
    if changes.is_empty() {
        return;
    }
    text(out, ",\"counters\":");
    let mut separator = '{';
    for CounterChange { type_name, add, total } in changes {
        format(out, format_args!("{separator}\"{type_name}\":{{\"add\":{add},\"total\":{total}}}"));
        separator = ',';
    }
    text(out, "}");
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
}

fn format(out: &mut BytesMut, arguments: std::fmt::Arguments<'_>) {
    out.writer().write_fmt(arguments).expect("memory takes every write");
}

/// Writes a JSON string with the escapes that ids and keys need.
fn string(out: &mut BytesMut, text: &str) {
    serde_json::to_writer(out.writer(), text).expect("memory takes every write");
}
