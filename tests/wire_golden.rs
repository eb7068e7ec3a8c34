//! The bytes devices get. Golden: every server frame in both encodings, spelt out field by field, so that a change of
//! the wire can't go unseen. Round trip: random frames, read back by decoders that share no code with the encoder.

#![expect(clippy::unwrap_used, reason = "clippy allows it in test functions alone, not in what they share")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use prost::Message as _;
use roomcast::clock::Now;
use roomcast::config::limits::INTEGER_MAX;
use roomcast::room::account::Missed;
use roomcast::room::audience::Audience;
use roomcast::room::counters::CounterChange;
use roomcast::room::history::{History, Past};
use roomcast::room::id::{Encoding, Key, MessageId, RoomName, Run, Seq, TypeName};
use roomcast::room::message::{Class, Message, Payload};
use roomcast::room::{Batch, Refresh, Snapshot};
use roomcast::wire::close::CloseReason;
use roomcast::wire::frame::{self, Greeting, Head, Notice};
use roomcast::wire::proto;
use serde_json::{Value, json};

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
    let (class, type_name) = (Class::Normal, type_name(name));
    let (key, id) = (None, None);
    Message {
        type_name,
        class,
        urgent: false,
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

fn batch() -> Batch {
    Batch {
        seq: Seq(42),
        messages: vec![Arc::new(chat()), Arc::new(price())],
        merged: vec![(type_name("enter"), 3), (type_name("price"), 300)],
        counters: vec![CounterChange { type_name: type_name("like"), add: 5, total: 1234 }],
        oldest: Now::read().instant,
        span: None,
    }
}

fn refresh() -> Refresh {
    Refresh {
        missed: Missed { skipped: vec![(type_name("chat"), 7)], merged: vec![(type_name("enter"), 3)] },
        latest: vec![Arc::new(price())],
        counters: vec![CounterChange { type_name: type_name("like"), add: 5, total: 1234 }],
        carried: None,
    }
}

fn past(messages: impl IntoIterator<Item = (u64, Message)>) -> Vec<Past> {
    let (mut history, now) = (History::default(), Now::read().instant);
    for (seq, message) in messages {
        history.push(Seq(seq), Arc::new(message), now);
    }
    history.since(Seq(0)).cloned().collect()
}

fn snapshot() -> Snapshot {
    Snapshot {
        seq: Seq(42),
        history: past([(41, chat())]),
        cut_short: false,
        latest: vec![Arc::new(price())],
        counters: vec![(type_name("like"), 1234)],
        stream: None,
    }
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

#[test]
fn a_level_batch_in_json() {
    let frame = frame::level(head(&room()), &batch(), Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126],                                       // FIN and text; the length follows in 16 bits
            &[0x01, 0x21],                                      // 289 bytes
            br#"{"kind":"batch""#,                              // what this frame is
            br#","room":"r1""#,                                 // which room
            br#","run":"000000000000001f""#,                    // its life
            br#","seq":42"#,                                    // what the device holds after it
            br#","messages":["#,                                // in room order
            br#"{"type":"chat","payload":{"t": "hi"}"#,         // a JSON payload, copied as it came
            br#","id":"m-1","at":1700000000000}"#,              // the publisher's id; when it was accepted
            br#",{"type":"price","payload_b64":"AP8Q""#,        // an opaque payload, in base64
            br#","at":1700000000000,"key":"k\"1"}]"#,           // the key, escaped
            br#","merged":{"enter":3,"price":300}"#,            // messages merged away, by type
            br#","counters":{"like":{"add":5,"total":1234}}}"#, // increment and exact total
        ],
    );
}

#[test]
fn a_level_batch_in_proto() {
    let frame = frame::level(head(&room()), &batch(), Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 125],                         // FIN and binary, 125 bytes: the most that seven bits say
            b"\x12\x7b",                          // ServerFrame.batch = 2, 123 bytes
            b"\x0a\x02r1",                        // Batch.room = 1
            b"\x12\x10000000000000001f",          // Batch.run = 2
            b"\x18\x2a",                          // Batch.seq = 3: 42
            b"\x52\x21",                          // Batch.messages = 10, 33 bytes
            b"\x0a\x04chat",                      // Message.type = 1
            b"\x12\x0b{\"t\": \"hi\"}",           // Message.payload = 2, copied as it came
            b"\x18\x01",                          // Message.json = 3: true
            b"\x22\x03m-1",                       // Message.id = 4
            b"\x28\x80\xd0\x95\xff\xbc\x31",      // Message.at = 5: 1 700 000 000 000
            b"\x52\x18",                          // Batch.messages = 10, 24 bytes
            b"\x0a\x05price",                     // Message.type = 1
            b"\x12\x03\x00\xff\x10",              // Message.payload = 2, opaque; json is left out: false
            b"\x28\x80\xd0\x95\xff\xbc\x31",      // Message.at = 5
            b"\x42\x03k\"1",                      // Message.key = 8
            b"\x5a\x09\x0a\x05enter\x10\x03",     // Batch.merged = 11: an entry of key = 1, value = 2: 3
            b"\x5a\x0a\x0a\x05price\x10\xac\x02", // another: 300
            b"\x62\x0d\x0a\x04like",              // Batch.counters = 12: an entry of key = 1 …
            b"\x12\x05\x08\x05\x10\xd2\x09", // … and value = 2: CounterChange.add = 1: 5, total = 2: 1 234
        ],
    );
}

#[test]
fn a_refresh_in_json() {
    let frame = frame::refresh(head(&room()), &refresh(), Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x00, 0xf2],                              // FIN and text, 242 bytes
            br#"{"kind":"batch","room":"r1""#,                     // a batch without messages
            br#","run":"000000000000001f","seq":42"#,              // the room's present seq
            br#","skipped":{"chat":7}"#,                           // messages of the batches it was not sent
            br#","latest":[{"type":"price","payload_b64":"AP8Q""#, // values that changed meanwhile
            br#","at":1700000000000,"key":"k\"1"}]"#,              // … with their keys
            br#","messages":[]"#,                                  // none: chat is not sent again
            br#","merged":{"enter":3}"#,                           // merged away in those batches
            br#","counters":{"like":{"add":5,"total":1234}}}"#,    // what those batches did
        ],
    );
}

#[test]
fn a_refresh_in_proto() {
    let frame = frame::refresh(head(&room()), &refresh(), Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 88],                          // FIN and binary, 88 bytes
            b"\x12\x56",                          // ServerFrame.batch = 2, 86 bytes
            b"\x0a\x02r1",                        // Batch.room = 1
            b"\x12\x10000000000000001f",          // Batch.run = 2
            b"\x18\x2a",                          // Batch.seq = 3
            b"\x42\x08\x0a\x04chat\x10\x07",      // Batch.skipped = 8: an entry, 7
            b"\x4a\x18",                          // Batch.latest = 9, 24 bytes
            b"\x0a\x05price\x12\x03\x00\xff\x10", // Message.type = 1, payload = 2
            b"\x28\x80\xd0\x95\xff\xbc\x31",      // Message.at = 5
            b"\x42\x03k\"1",                      // Message.key = 8
            b"\x5a\x09\x0a\x05enter\x10\x03",     // Batch.merged = 11
            b"\x62\x0d\x0a\x04like",              // Batch.counters = 12: key = 1 …
            b"\x12\x05\x08\x05\x10\xd2\x09",      // … value = 2: add = 1: 5, total = 2: 1 234
        ],
    );
}

const GREETING: Greeting = Greeting { heartbeat_ms: 25_000, resumed: true, reset: Some("ahead") };

#[test]
fn a_welcome_in_json() {
    let frame = frame::welcome(head(&room()), GREETING, &snapshot(), Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x01, 0x37],                               // FIN and text, 311 bytes
            br#"{"kind":"welcome","room":"r1""#,                    // the first frame of a room
            br#","run":"000000000000001f","seq":42"#,               // everything in it is as of this seq
            br#","heartbeat_ms":25000"#,                            // how often the device pings
            br#","resumed":true"#,                                  // the history continues where it left off
            br#","reset":"ahead""#,                                 // why its cursor was not honoured
            br#","history":[{"type":"chat","payload":{"t": "hi"}"#, // oldest first
            br#","id":"m-1","at":1700000000000,"seq":41}]"#,        // with the batch each travelled in
            br#","latest":[{"type":"price","payload_b64":"AP8Q""#,  // the newest value of each key
            br#","at":1700000000000,"key":"k\"1"}]"#,               // … with the key
            br#","counters":{"like":1234}}"#,                       // exact totals
        ],
    );
    let greeting = Greeting { resumed: false, reset: None, ..GREETING };
    let empty = Snapshot {
        seq: Seq(0),
        history: vec![],
        cut_short: false,
        latest: vec![],
        counters: vec![],
        stream: None,
    };
    let frame = frame::welcome(Head { seq: Seq(0), ..head(&room()) }, greeting, &empty, Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x00, 0x98], // FIN and text, 152 bytes
            br#"{"kind":"welcome","room":"r1","run":"000000000000001f""#, // of a room …
            br#","seq":0,"heartbeat_ms":25000,"resumed":false"#, // … where nothing has happened yet
            br#","reset":null,"history":[],"latest":[],"counters":{}}"#, // absent, not left out
        ],
    );
}

#[test]
fn a_welcome_in_proto() {
    let frame = frame::welcome(head(&room()), GREETING, &snapshot(), Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 113],                         // FIN and binary, 113 bytes
            b"\x0a\x6f",                          // ServerFrame.welcome = 1, 111 bytes
            b"\x0a\x02r1",                        // Welcome.room = 1
            b"\x12\x10000000000000001f",          // Welcome.run = 2
            b"\x18\x2a",                          // Welcome.seq = 3
            b"\x30\xa8\xc3\x01",                  // Welcome.heartbeat_ms = 6: 25 000
            b"\x38\x01",                          // Welcome.resumed = 7: true
            b"\x42\x05ahead",                     // Welcome.reset = 8
            b"\x4a\x23",                          // Welcome.history = 9, 35 bytes
            b"\x0a\x04chat",                      // Message.type = 1
            b"\x12\x0b{\"t\": \"hi\"}",           // Message.payload = 2
            b"\x18\x01\x22\x03m-1",               // Message.json = 3, id = 4
            b"\x28\x80\xd0\x95\xff\xbc\x31",      // Message.at = 5
            b"\x30\x29",                          // Message.seq = 6: 41
            b"\x52\x18",                          // Welcome.latest = 10, 24 bytes
            b"\x0a\x05price\x12\x03\x00\xff\x10", // Message.type = 1, payload = 2
            b"\x28\x80\xd0\x95\xff\xbc\x31",      // Message.at = 5
            b"\x42\x03k\"1",                      // Message.key = 8
            b"\x5a\x09\x0a\x04like\x10\xd2\x09",  // Welcome.counters = 11: an entry, 1 234
        ],
    );
}

#[test]
fn notices_in_json() {
    let room = room();
    let error = |room, field| Notice::Error { code: "too_many_rooms", room, field };
    for (notice, length, text) in [
        (Notice::Pong, 15, r#"{"kind":"pong"}"#),
        (Notice::Joined(&room), 29, r#"{"kind":"joined","room":"r1"}"#),
        (Notice::Left(&room), 27, r#"{"kind":"left","room":"r1"}"#),
        (Notice::Closed(&room), 50, r#"{"kind":"closed","room":"r1","code":"room_closed"}"#),
        (error(None, None), 40, r#"{"kind":"error","code":"too_many_rooms"}"#),
        (
            error(Some(&room), Some("room")),
            67,
            r#"{"kind":"error","code":"too_many_rooms","room":"r1","field":"room"}"#,
        ),
        (Notice::Bye, 60, r#"{"kind":"bye","code":"draining","reconnect_within_ms":30000}"#),
    ] {
        // FIN and text, the length in seven bits, then the text.
        assert_golden(&frame::notice(notice, Encoding::Json), &[&[0x81, length], text.as_bytes()]);
    }
}

#[test]
fn notices_in_proto() {
    let room = room();
    let error = |room, field| Notice::Error { code: "too_many_rooms", room, field };
    let goldens: [(Notice<'_>, &[&[u8]]); 7] = [
        (Notice::Pong, &[&[0x82, 2], b"\x1a\x00"]), // ServerFrame.pong = 3, empty
        (Notice::Joined(&room), &[&[0x82, 6], b"\x22\x04", b"\x0a\x02r1"]), // .joined = 4: room = 1
        (Notice::Left(&room), &[&[0x82, 6], b"\x2a\x04", b"\x0a\x02r1"]), // .left = 5: room = 1
        (
            Notice::Closed(&room),
            &[&[0x82, 19], b"\x32\x11", b"\x0a\x02r1", b"\x12\x0broom_closed"], // .closed = 6: room = 1, code = 2
        ),
        (
            error(None, None),
            &[&[0x82, 18], b"\x3a\x10", b"\x0a\x0etoo_many_rooms"], // .error = 7: code = 1
        ),
        (
            error(Some(&room), Some("room")),
            // .error = 7: code = 1, room = 2, field = 3
            &[&[0x82, 28], b"\x3a\x1a", b"\x0a\x0etoo_many_rooms", b"\x12\x02r1", b"\x1a\x04room"],
        ),
        (
            Notice::Bye,
            // .bye = 8: code = 1, reconnect_within_ms = 2: 30 000
            &[&[0x82, 16], b"\x42\x0e", b"\x0a\x08draining", b"\x10\xb0\xea\x01"],
        ),
    ];
    for (notice, fields) in goldens {
        assert_golden(&frame::notice(notice, Encoding::Proto), fields);
    }
}

#[test]
fn a_close_and_a_pong() {
    let close = frame::close(CloseReason::Behind).unwrap();
    // FIN and close; 8 bytes; code 4002 in network order; why.
    assert_golden(&close, &[&[0x88], &[8], &[0x0f, 0xa2], b"behind"]);
    assert_eq!(frame::close(CloseReason::Gone), None, "nobody is left to read it");
    for reason in CloseReason::ALL {
        let Some(code) = reason.code() else { continue };
        let length = u8::try_from(2 + reason.name().len()).expect("a control frame has at most 125 bytes");
        let close = frame::close(reason).unwrap();
        assert_golden(&close, &[&[0x88, length], &code.to_be_bytes(), reason.name().as_bytes()]);
    }
    // FIN and pong; the ping's own bytes.
    assert_golden(&frame::websocket_pong(b"are you there"), &[&[0x8a], &[13], b"are you there"]);
    assert_golden(&frame::websocket_pong(b""), &[&[0x8a], &[0]]);
}

#[test]
fn a_history_page() {
    let page = frame::history_page(head(&room()), false, &snapshot());
    assert_golden(
        &page,
        &[
            br#"{"room":"r1","run":"000000000000001f""#, // no WebSocket header: it is an HTTP body
            br#","seq":42"#,                             // the room's present seq
            br#","resumed":false"#,                      // there is a gap before the first of them
            br#","history":[{"type":"chat","payload":{"t": "hi"}"#, // oldest first
            br#","id":"m-1","at":1700000000000,"seq":41}]}"#, // with the batch each travelled in
        ],
    );
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

fn read_json(frame: &[u8]) -> Value {
    let (first, payload) = unframe(frame);
    assert_eq!(first, 0x81);
    serde_json::from_slice(payload).expect("valid JSON")
}

fn read_proto(frame: &[u8]) -> proto::server_frame::Frame {
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

/// Random inputs of frames.
struct Inputs(fastrand::Rng);

impl Inputs {
    fn text(&mut self, alphabet: &[&str], bytes_max: usize) -> String {
        let mut text = String::new();
        for _ in 0..self.0.usize(1..=bytes_max) {
            let next = self.0.choice(alphabet).unwrap();
            if text.len() + next.len() > bytes_max {
                break;
            }
            text += next;
        }
        if text.is_empty() { "x".into() } else { text }
    }

    /// Text without control characters; a third of it needs escapes.
    fn free_text(&mut self, bytes_max: usize) -> String {
        self.text(&["a", "Z", "0", " ", "\"", "\\", "/", "é", "€", "𝄞", "\u{2028}"], bytes_max)
    }

    fn type_name(&mut self) -> TypeName {
        TypeName::parse(&self.text(&["a", "z", "0", "_", ".", "-"], 64)).unwrap()
    }

    /// Small ones often, so that each length of varint comes up.
    fn number(&mut self) -> u64 {
        (self.0.u64(1..=INTEGER_MAX) >> self.0.u32(0..53)).max(1)
    }

    fn payload(&mut self) -> Payload {
        let bytes_max = *self.0.choice(&[0, 8, 60, 400, 16_000]).unwrap();
        let bytes = self.0.usize(0..=bytes_max);
        match self.0.u8(..3) {
            0 => Payload::Opaque((0..bytes).map(|_| self.0.u8(..)).collect()),
            1 => Payload::Json(
                json!({ "t": "x".repeat(bytes), "n": [1, -0.5, null, {"": true}] }).to_string().into(),
            ),
            _ => Payload::Json(serde_json::to_string(&self.free_text(bytes.max(1))).unwrap().into()),
        }
    }

    fn message(&mut self) -> Message {
        let mut message = message("x", self.payload());
        message.type_name = self.type_name();
        message.id = self.0.bool().then(|| MessageId::parse(&self.free_text(64)).unwrap());
        message.key = self.0.bool().then(|| Key::parse(&self.free_text(128)).unwrap());
        // As at the door, before the home gives it its time.
        message.at_ms = 0;
        message.wire_bytes = frame::message_bytes(&message);
        message.at_ms = self.0.u64(AT_MS..2 * AT_MS);
        message
    }

    fn messages(&mut self, max: usize) -> Vec<Arc<Message>> {
        (0..self.0.usize(0..=max)).map(|_| Arc::new(self.message())).collect()
    }

    fn counts(&mut self) -> Vec<(TypeName, u64)> {
        let counts: BTreeMap<_, _> =
            (0..self.0.usize(0..4)).map(|_| (self.type_name(), self.number())).collect();
        counts.into_iter().collect()
    }

    fn counters(&mut self) -> Vec<CounterChange> {
        let counts = self.counts().into_iter();
        counts
            .map(|(type_name, add)| CounterChange { type_name, add, total: add.max(self.number()) })
            .collect()
    }

    fn batch(&mut self) -> Batch {
        let messages_max = *self.0.choice(&[0, 1, 12, 40]).unwrap();
        Batch {
            seq: Seq(self.number()),
            messages: self.messages(messages_max),
            merged: self.counts(),
            counters: self.counters(),
            oldest: Now::read().instant,
            span: None,
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut seq = 0;
        let history: Vec<_> = self.messages(12).into_iter().map(|one| (*one).clone()).collect();
        let history = history.into_iter().map(|one| {
            seq += self.number() >> 8;
            (seq.max(1), one)
        });
        let history = past(history.collect::<Vec<_>>());
        Snapshot {
            seq: Seq(seq),
            history,
            cut_short: false,
            latest: self.messages(3),
            counters: self.counts(),
            stream: None,
        }
    }
}

/// What a decoder has to find of a message.
fn in_proto(message: &Message, seq: Option<Seq>) -> proto::Message {
    proto::Message {
        r#type: message.type_name.to_string(),
        payload: message.payload.bytes().clone(),
        json: matches!(message.payload, Payload::Json(_)),
        id: message.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        at: message.at_ms,
        seq: seq.map_or(0, |seq| seq.0),
        key: message.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..proto::Message::default()
    }
}

fn in_json(message: &Message, seq: Option<Seq>) -> Value {
    let mut is = json!({ "type": message.type_name.as_str(), "at": message.at_ms });
    match &message.payload {
        Payload::Json(bytes) => is["payload"] = serde_json::from_slice(bytes).unwrap(),
        Payload::Opaque(bytes) => is["payload_b64"] = BASE64.encode(bytes).into(),
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

/// Adds a member to a JSON frame unless it is empty: those are left out.
fn put_some(frame: &mut Value, member: &str, object: Value) {
    if object.as_object().is_some_and(|entries| !entries.is_empty()) {
        frame[member] = object;
    }
}

fn counters_in_json(changes: &[CounterChange]) -> Value {
    let entry = |change: &CounterChange| json!({ "add": change.add, "total": change.total });
    changes.iter().map(|change| (change.type_name.to_string(), entry(change))).collect()
}

/// How often a random frame had a length of each of WebSocket's three forms, by encoding.
#[derive(Default)]
struct Lengths([[u32; 3]; 2]);

impl Lengths {
    fn count(&mut self, encoding: Encoding, frame: &[u8]) {
        let form = match frame[1] {
            127 => 2,
            126 => 1,
            _ => 0,
        };
        self.0[encoding.index()][form] += 1;
    }
}

#[test]
fn what_goes_into_a_level_batch_comes_out_again() {
    let mut lengths = Lengths::default();
    for seed in 0..2_000 {
        let mut inputs = Inputs(fastrand::Rng::with_seed(seed));
        let (room, batch) = (room(), inputs.batch());
        let head = Head { room: &room, run: RUN, seq: batch.seq };
        let [as_json, as_proto] = Encoding::ALL.map(|encoding| {
            let frame = frame::level(head, &batch, encoding);
            lengths.count(encoding, &frame);
            frame
        });

        let mut wanted = json!({
            "kind": "batch", "room": "r1", "run": RUN_TEXT, "seq": batch.seq.0, "messages": all_in_json(&batch.messages),
        });
        put_some(&mut wanted, "merged", json!(counts_in_proto(&batch.merged)));
        put_some(&mut wanted, "counters", counters_in_json(&batch.counters));
        assert_eq!(read_json(&as_json), wanted, "seed {seed}");

        let wanted = proto::Batch {
            room: "r1".into(),
            run: RUN_TEXT.into(),
            seq: batch.seq.0,
            messages: all_in_proto(&batch.messages),
            merged: counts_in_proto(&batch.merged),
            counters: counters_in_proto(&batch.counters),
            ..proto::Batch::default()
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
        let missed = Missed { skipped: inputs.counts(), merged: inputs.counts() };
        let refresh =
            Refresh { missed, latest: inputs.messages(4), counters: inputs.counters(), carried: None };
        let room = room();
        let [as_json, as_proto] =
            Encoding::ALL.map(|encoding| frame::refresh(head(&room), &refresh, encoding));

        let mut wanted = json!({ "kind": "batch", "room": "r1", "run": RUN_TEXT, "seq": 42, "messages": [] });
        put_some(&mut wanted, "skipped", json!(counts_in_proto(&refresh.missed.skipped)));
        put_some(&mut wanted, "merged", json!(counts_in_proto(&refresh.missed.merged)));
        put_some(&mut wanted, "counters", counters_in_json(&refresh.counters));
        if !refresh.latest.is_empty() {
            wanted["latest"] = all_in_json(&refresh.latest);
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
            ..proto::Batch::default()
        };
        assert_eq!(read_proto(&as_proto), proto::server_frame::Frame::Batch(wanted), "seed {seed}");
    }
}

#[test]
fn what_goes_into_a_welcome_or_a_history_page_comes_out_again() {
    for seed in 0..1_000 {
        let mut inputs = Inputs(fastrand::Rng::with_seed(seed));
        let snapshot = inputs.snapshot();
        let reset = *inputs.0.choice(&[None, Some("epoch_changed"), Some("ahead"), Some("expired")]).unwrap();
        let greeting = Greeting { heartbeat_ms: inputs.0.u32(1_000..), resumed: inputs.0.bool(), reset };
        let room = room();
        let head = Head { room: &room, run: RUN, seq: snapshot.seq };
        let [as_json, as_proto] =
            Encoding::ALL.map(|encoding| frame::welcome(head, greeting, &snapshot, encoding));

        let wanted = json!({
            "kind": "welcome", "room": "r1", "run": RUN_TEXT, "seq": snapshot.seq.0,
            "heartbeat_ms": greeting.heartbeat_ms, "resumed": greeting.resumed, "reset": reset,
            "history": past_in_json(&snapshot.history), "latest": all_in_json(&snapshot.latest),
            "counters": counts_in_proto(&snapshot.counters),
        });
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
            ..proto::Welcome::default()
        };
        assert_eq!(read_proto(&as_proto), proto::server_frame::Frame::Welcome(wanted), "seed {seed}");

        let page = frame::history_page(head, greeting.resumed, &snapshot);
        let wanted = json!({
            "room": "r1", "run": RUN_TEXT, "seq": snapshot.seq.0, "resumed": greeting.resumed,
            "history": past_in_json(&snapshot.history),
        });
        assert_eq!(serde_json::from_slice::<Value>(&page).unwrap(), wanted, "seed {seed}");
    }
}

#[test]
fn what_goes_into_a_notice_comes_out_again() {
    use proto::server_frame::Frame;
    let room = room();
    let error = Notice::Error { code: "bad_frame", room: Some(&room), field: Some("acks[0].offset") };
    let name = || "r1".to_owned();
    for (notice, in_json, in_proto) in [
        (Notice::Pong, json!({"kind": "pong"}), Frame::Pong(proto::Pong {})),
        (
            Notice::Joined(&room),
            json!({"kind": "joined", "room": "r1"}),
            Frame::Joined(proto::Joined { room: name() }),
        ),
        (
            Notice::Left(&room),
            json!({"kind": "left", "room": "r1"}),
            Frame::Left(proto::Left { room: name() }),
        ),
        (
            Notice::Closed(&room),
            json!({"kind": "closed", "room": "r1", "code": "room_closed"}),
            Frame::Closed(proto::Closed { room: name(), code: "room_closed".into() }),
        ),
        (
            error,
            json!({"kind": "error", "code": "bad_frame", "room": "r1", "field": "acks[0].offset"}),
            Frame::Error(proto::Error {
                code: "bad_frame".into(),
                room: name(),
                field: "acks[0].offset".into(),
            }),
        ),
        (
            Notice::Bye,
            json!({"kind": "bye", "code": "draining", "reconnect_within_ms": 30_000}),
            Frame::Bye(proto::Bye { code: "draining".into(), reconnect_within_ms: 30_000 }),
        ),
    ] {
        assert_eq!(read_json(&frame::notice(notice, Encoding::Json)), in_json);
        assert_eq!(read_proto(&frame::notice(notice, Encoding::Proto)), in_proto);
    }
}

/// What one message adds to a level frame's body, without what separates it from the next.
fn encoded_bytes(message: &Message, encoding: Encoding) -> usize {
    let one =
        Batch { messages: vec![Arc::new(message.clone())], merged: vec![], counters: vec![], ..batch() };
    let none = Batch { messages: vec![], ..one.clone() };
    let body_bytes = |batch: &Batch| {
        let frame = frame::level(head(&room()), batch, encoding);
        let (_, payload) = unframe(&frame);
        match encoding {
            Encoding::Json => payload.len(),
            // Behind the tag of the frame's kind and its length, whose own size depends on the message's.
            Encoding::Proto => {
                let mut fields = &payload[1..];
                prost::decode_length_delimiter(&mut fields).unwrap();
                fields.len()
            }
        }
    };
    body_bytes(&one) - body_bytes(&none)
}

/// Every bound in bytes counts `wire_bytes`: less than what travels would let a batch outgrow its budget, much more
/// would shed what fits.
#[test]
fn a_message_is_sized_as_it_travels_in_the_larger_encoding() {
    /// The comma between two messages of a JSON batch.
    const SEPARATOR_BYTES: usize = 1;
    for seed in 0..3_000 {
        let message = Inputs(fastrand::Rng::with_seed(seed)).message();
        let [in_json, in_proto] = Encoding::ALL.map(|encoding| encoded_bytes(&message, encoding));
        let (sized, travels) = (message.wire_bytes, (in_json + SEPARATOR_BYTES).max(in_proto));
        assert!(sized >= travels, "seed {seed}: sized {sized}, travels {travels}: {message:?}");
        assert!(sized <= travels + 2, "seed {seed}: sized {sized}, travels {travels}: {message:?}");
    }
}

#[test]
fn the_audience_message_is_never_larger_than_it_says() {
    for members in [0, 1, 1_000_000, INTEGER_MAX] {
        let message = Message { at_ms: 9_999_999_999_999, ..Audience::default().tell(members) };
        for encoding in Encoding::ALL {
            let travels = encoded_bytes(&message, encoding) + 1;
            assert!(travels <= message.wire_bytes, "{encoding:?}, {members} members: {travels} bytes");
        }
    }
}
