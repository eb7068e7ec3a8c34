//! Random frames, read back by decoders that share no code with the encoder.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use roomcast_core::proto;
use roomcast_core::room::counters::CounterChange;
use roomcast_core::room::history::Past;
use roomcast_core::room::id::{Encoding, Seq, TypeName};
use roomcast_core::room::message::{Message, Payload};
use roomcast_core::room::{Carried, Opening, Span};
use roomcast_core::wire::frame::{self, Greeting, Head};
use serde_json::{Value, json};

use super::inputs::Inputs;
use super::{RUN, RUN_TEXT, head, room, unframe};

pub(crate) fn read_json(frame: &[u8]) -> Value {
    let (first, payload) = unframe(frame);
    assert_eq!(first, 0x81);
    serde_json::from_slice(payload).expect("valid JSON")
}

pub(crate) fn read_proto(frame: &[u8]) -> proto::server_frame::Frame {
    let (first, payload) = unframe(frame);
    assert_eq!(first, 0x82);
    let read = proto::ServerFrame::decode(payload).expect("valid protobuf");
    assert_eq!(
        read.encoded_len(),
        payload.len(),
        "nothing unknown, nothing twice, every length in its shortest form"
    );
    read.frame.expect("a kind")
}

/// A message as a decoder has to find it.
fn in_proto(message: &Message, seq: Option<Seq>) -> proto::Message {
    proto::Message {
        r#type: message.type_name.to_string(),
        payload: message.payload.bytes().clone(),
        json: matches!(message.payload, Payload::Json(_)),
        id: message.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        at: message.at_ms,
        seq: seq.map_or(0, |seq| seq.0),
        offset: message.offset,
        key: message.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        recall: message.recall,
        count: if message.count == 1 { 0 } else { message.count },
    }
}

fn in_json(message: &Message, seq: Option<Seq>) -> Value {
    let mut is = json!({ "type": message.type_name.as_str(), "at": message.at_ms });
    match &message.payload {
        Payload::Json(bytes) => is["payload"] = serde_json::from_slice(bytes).unwrap(),
        Payload::Opaque(bytes) => is["payload_b64"] = BASE64.encode(bytes).into(),
    }
    if message.count != 1 {
        is["count"] = message.count.into();
    }
    if let Some(id) = &message.id {
        is["id"] = id.as_str().into();
    }
    if let Some(key) = &message.key {
        is["key"] = key.as_str().into();
    }
    if let Some(Seq(seq)) = seq {
        is["seq"] = seq.into();
    }
    for (member, offset) in [("offset", message.offset), ("recall", message.recall)] {
        if offset > 0 {
            is[member] = offset.into();
        }
    }
    is
}

fn all_in_proto(messages: &[Arc<Message>]) -> Vec<proto::Message> {
    messages.iter().map(|message| in_proto(message, None)).collect()
}

fn all_in_json(messages: &[Arc<Message>]) -> Value {
    messages.iter().map(|message| in_json(message, None)).collect()
}

fn past_in_json(history: &[Past]) -> Value {
    history.iter().map(|past| in_json(&past.message, Some(past.seq))).collect()
}

fn counts_in_proto(counts: &[(TypeName, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

fn counters_in_proto(changes: &[CounterChange]) -> BTreeMap<String, proto::CounterChange> {
    let entry = |change: &CounterChange| proto::CounterChange { add: change.add, total: change.total };
    changes.iter().map(|change| (change.type_name.to_string(), entry(change))).collect()
}

/// Adds a member to a JSON frame, unless the member is empty: empty ones are left out.
fn put_some(frame: &mut Value, member: &str, object: Value) {
    if object.as_object().is_some_and(|entries| !entries.is_empty()) {
        frame[member] = object;
    }
}

fn put_span(frame: &mut Value, span: Span) {
    let Span { after, through, ack_within_ms } = span;
    for (member, number) in [("after", after), ("through", through), ("ack_within_ms", ack_within_ms.into())]
    {
        frame[member] = number.into();
    }
}

fn put_carried(frame: &mut Value, carried: &Carried) {
    put_span(frame, carried.span);
    if !carried.messages.is_empty() {
        frame["carried"] = all_in_json(&carried.messages);
    }
}

/// A batch with these fields of the stream alone. `None`: an empty batch.
fn of_stream(carried: Option<&Carried>) -> proto::Batch {
    let Some(Carried { span: Span { after, through, ack_within_ms }, messages }) = carried else {
        return proto::Batch::default();
    };
    proto::Batch {
        after: *after,
        through: *through,
        ack_within_ms: *ack_within_ms,
        carried: all_in_proto(messages),
        ..proto::Batch::default()
    }
}

fn counters_in_json(changes: &[CounterChange]) -> Value {
    let entry = |change: &CounterChange| json!({ "add": change.add, "total": change.total });
    changes.iter().map(|change| (change.type_name.to_string(), entry(change))).collect()
}

/// Encoding -> random frames with a length of each of WebSocket's three forms.
#[derive(Default)]
struct Lengths([[u32; 3]; 2]);

impl Lengths {
    fn count(&mut self, encoding: Encoding, frame: &[u8]) {
        let form = match frame[1] {
            127 => 2,
            126 => 1,
            _ => 0,
        };
        self.0[encoding as usize][form] += 1;
    }
}

#[test]
fn what_goes_into_a_level_batch_comes_out_again() {
    let mut lengths = Lengths::default();
    for seed in 0..5_000 {
        let mut inputs = Inputs(fastrand::Rng::with_seed(seed));
        let room = room();
        let batch = inputs.batch();
        let head = Head { room: &room, run: RUN, seq: batch.seq };
        let [as_json, as_proto] = Encoding::ALL.map(|encoding| {
            let frame = frame::level(head, &batch, encoding);
            lengths.count(encoding, &frame);
            frame
        });

        let mut wanted = json!({
            "kind": "batch", "room": "r1", "run": RUN_TEXT, "seq": batch.seq.0,
            "messages": all_in_json(&batch.messages),
        });
        put_some(&mut wanted, "skipped", json!(counts_in_proto(&batch.skipped)));
        put_some(&mut wanted, "merged", json!(counts_in_proto(&batch.merged)));
        put_some(&mut wanted, "counters", counters_in_json(&batch.counters));
        if let Some(span) = batch.span {
            put_span(&mut wanted, span);
        }
        assert_eq!(read_json(&as_json), wanted, "seed {seed}");

        let wanted = proto::Batch {
            room: "r1".into(),
            run: RUN_TEXT.into(),
            seq: batch.seq.0,
            skipped: counts_in_proto(&batch.skipped),
            messages: all_in_proto(&batch.messages),
            merged: counts_in_proto(&batch.merged),
            counters: counters_in_proto(&batch.counters),
            ..of_stream(batch.span.map(|span| Carried { span, messages: vec![] }).as_ref())
        };
        assert_eq!(read_proto(&as_proto), proto::server_frame::Frame::Batch(wanted), "seed {seed}");
    }
    for (encoding, forms) in Encoding::ALL.iter().zip(lengths.0) {
        assert!(
            forms.iter().all(|count| *count > 20),
            "{encoding:?}: each form of length was reached: {forms:?}"
        );
    }
}

#[test]
fn what_goes_into_a_refresh_comes_out_again() {
    for seed in 0..1_000 {
        let mut inputs = Inputs(fastrand::Rng::with_seed(seed));
        let room = room();
        let refresh = inputs.refresh();
        let [as_json, as_proto] =
            Encoding::ALL.map(|encoding| frame::refresh(head(&room), &refresh, encoding));

        let mut wanted = json!({ "kind": "batch", "room": "r1", "run": RUN_TEXT, "seq": 42, "messages": [] });
        put_some(&mut wanted, "skipped", json!(counts_in_proto(&refresh.missed.skipped)));
        put_some(&mut wanted, "merged", json!(counts_in_proto(&refresh.missed.merged)));
        put_some(&mut wanted, "counters", counters_in_json(&refresh.counters));
        if !refresh.latest.is_empty() {
            wanted["latest"] = all_in_json(&refresh.latest);
        }
        if let Some(carried) = &refresh.carried {
            put_carried(&mut wanted, carried);
        }
        assert_eq!(read_json(&as_json), wanted, "seed {seed}");

        let wanted = proto::Batch {
            room: "r1".into(),
            run: RUN_TEXT.into(),
            seq: 42,
            skipped: counts_in_proto(&refresh.missed.skipped),
            latest: all_in_proto(&refresh.latest),
            merged: counts_in_proto(&refresh.missed.merged),
            counters: counters_in_proto(&refresh.counters),
            ..of_stream(refresh.carried.as_ref())
        };
        assert_eq!(read_proto(&as_proto), proto::server_frame::Frame::Batch(wanted), "seed {seed}");
    }
}

#[test]
fn what_is_carried_comes_out_again() {
    for seed in 0..1_000 {
        let room = room();
        let carried = Inputs(fastrand::Rng::with_seed(seed)).carried();
        let [as_json, as_proto] = Encoding::ALL.map(|encoding| frame::carry(head(&room), &carried, encoding));

        let mut wanted = json!({ "kind": "batch", "room": "r1", "run": RUN_TEXT, "seq": 42, "messages": [] });
        put_carried(&mut wanted, &carried);
        assert_eq!(read_json(&as_json), wanted, "seed {seed}");

        let head =
            proto::Batch { room: "r1".into(), run: RUN_TEXT.into(), seq: 42, ..of_stream(Some(&carried)) };
        assert_eq!(read_proto(&as_proto), proto::server_frame::Frame::Batch(head), "seed {seed}");
    }
}

#[test]
fn what_goes_into_a_welcome_or_a_page_comes_out_again() {
    for seed in 0..1_000 {
        let mut inputs = Inputs(fastrand::Rng::with_seed(seed));
        let snapshot = inputs.snapshot();
        let reset = *inputs.0.choice(&[None, Some("epoch_changed"), Some("ahead"), Some("expired")]).unwrap();
        let greeting = Greeting { heartbeat_ms: inputs.0.u32(1_000..), resumed: inputs.0.bool(), reset };
        let room = room();
        let head = Head { room: &room, run: RUN, seq: snapshot.seq };
        let [as_json, as_proto] =
            Encoding::ALL.map(|encoding| frame::welcome(head, greeting, &snapshot, encoding));

        let mut wanted = json!({
            "kind": "welcome", "room": "r1", "run": RUN_TEXT, "seq": snapshot.seq.0,
            "heartbeat_ms": greeting.heartbeat_ms, "resumed": greeting.resumed, "reset": reset,
            "history": past_in_json(&snapshot.history), "latest": all_in_json(&snapshot.latest),
            "counters": counts_in_proto(&snapshot.counters),
        });
        let mut stream = proto::Welcome::default();
        if let Some(Opening { epoch, offset, carried: Carried { span, messages } }) = &snapshot.stream {
            wanted["epoch"] = epoch.to_string().into();
            wanted["offset"] = (*offset).into();
            put_span(&mut wanted, *span);
            wanted["reliable"] = all_in_json(messages);
            stream.epoch = epoch.to_string();
            stream.offset = *offset;
            stream.after = span.after;
            stream.through = span.through;
            stream.ack_within_ms = span.ack_within_ms;
            stream.reliable = all_in_proto(messages);
        }
        assert_eq!(read_json(&as_json), wanted, "seed {seed}");

        let wanted = proto::Welcome {
            room: "r1".into(),
            run: RUN_TEXT.into(),
            seq: snapshot.seq.0,
            heartbeat_ms: greeting.heartbeat_ms,
            resumed: greeting.resumed,
            reset: reset.unwrap_or_default().into(),
            history: snapshot.history.iter().map(|past| in_proto(&past.message, Some(past.seq))).collect(),
            latest: all_in_proto(&snapshot.latest),
            counters: counts_in_proto(&snapshot.counters),
            ..stream
        };
        assert_eq!(read_proto(&as_proto), proto::server_frame::Frame::Welcome(wanted), "seed {seed}");

        let pieces = Encoding::ALL.map(|encoding| frame::history(head, &snapshot.history, encoding));
        let wanted = json!({
            "kind": "history", "room": "r1", "run": RUN_TEXT, "seq": snapshot.seq.0,
            "history": past_in_json(&snapshot.history),
        });
        assert_eq!(read_json(&pieces[0]), wanted, "seed {seed}");
        let wanted = proto::History {
            room: "r1".into(),
            run: RUN_TEXT.into(),
            seq: snapshot.seq.0,
            history: snapshot.history.iter().map(|past| in_proto(&past.message, Some(past.seq))).collect(),
        };
        assert_eq!(read_proto(&pieces[1]), proto::server_frame::Frame::History(wanted), "seed {seed}");

        let page = frame::history_page(head, greeting.resumed, &snapshot);
        let wanted = json!({
            "room": "r1", "run": RUN_TEXT, "seq": snapshot.seq.0, "resumed": greeting.resumed,
            "history": past_in_json(&snapshot.history),
        });
        assert_eq!(serde_json::from_slice::<Value>(&page).unwrap(), wanted, "seed {seed}");

        let opening = inputs.opening();
        let page = frame::reliable_page(&room, &opening, reset);
        let wanted = json!({
            "room": "r1", "epoch": opening.epoch.to_string(), "offset": opening.offset, "reset": reset,
            "after": opening.carried.span.after, "through": opening.carried.span.through,
            "reliable": all_in_json(&opening.carried.messages),
        });
        assert_eq!(serde_json::from_slice::<Value>(&page).unwrap(), wanted, "seed {seed}");
    }
}
