//! Welcomes, and the pages of the pull side.

use std::sync::Arc;

use roomcast_core::room::id::{Encoding, Epoch, Seq};
use roomcast_core::room::{Carried, Opening, Snapshot, Span};
use roomcast_core::wire::frame::{self, Greeting, Head};

use super::{assert_golden, chat, coupon, head, past, price, room, type_name};

fn snapshot() -> Snapshot {
    Snapshot {
        seq: Seq(42),
        history: past([(41, chat())]),
        cut_short: false,
        latest: vec![Arc::new(price())],
        latest_rest: None,
        counters: vec![(type_name("like"), 1234)],
        stream: None,
    }
}

/// A stream of eight messages, of which one is alive.
fn opening() -> Opening {
    let span = Span { after: 0, through: 8, ack_within_ms: 200 };
    Opening { epoch: Epoch(0xe), offset: 8, carried: Carried { span, messages: vec![Arc::new(coupon())] } }
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
        latest_rest: None,
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
fn a_piece_of_history_in_both_encodings() {
    let history = past([(41, chat())]);
    let frame = frame::history(head(&room()), &history, Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x00, 0x99],                               // FIN and text, 153 bytes
            br#"{"kind":"history","room":"r1""#,                    // behind a welcome or a refresh
            br#","run":"000000000000001f","seq":42"#,               // of the frame that it belongs to
            br#","history":[{"type":"chat","payload":{"t": "hi"}"#, // oldest first
            br#","id":"m-1","at":1700000000000,"seq":41}]}"#,       // with the batch each travelled in
        ],
    );
    let frame = frame::history(head(&room()), &history, Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 63],                     // FIN and binary, 63 bytes
            b"\x4a\x3d",                     // ServerFrame.history = 9, 61 bytes
            b"\x0a\x02r1",                   // History.room = 1
            b"\x12\x10000000000000001f",     // History.run = 2
            b"\x18\x2a",                     // History.seq = 3
            b"\x22\x23",                     // History.history = 4, 35 bytes
            b"\x0a\x04chat",                 // Message.type = 1
            b"\x12\x0b{\"t\": \"hi\"}",      // Message.payload = 2
            b"\x18\x01\x22\x03m-1",          // Message.json = 3, id = 4
            b"\x28\x80\xd0\x95\xff\xbc\x31", // Message.at = 5
            b"\x30\x29",                     // Message.seq = 6: 41
        ],
    );
}

#[test]
fn a_welcome_to_a_stream_in_json() {
    let mut snapshot = Snapshot { history: vec![], latest: vec![], stream: Some(opening()), ..snapshot() };
    let greeting = Greeting { reset: Some("epoch_changed"), ..GREETING };
    let frame = frame::welcome(head(&room()), greeting, &snapshot, Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x01, 0x4d], // FIN and text, 333 bytes
            br#"{"kind":"welcome","room":"r1","run":"000000000000001f","seq":42"#, // as ever
            br#","epoch":"000000000000000e""#, // the stream's life
            br#","offset":8"#,        // the last offset that was sent to members
            br#","heartbeat_ms":25000,"resumed":true"#, // as ever
            br#","reset":"epoch_changed""#, // why its cursor was not honoured
            br#","history":[],"latest":[],"counters":{"like":1234}"#, // as ever
            br#","after":0"#,         // it is told from here on: from the beginning, after a reset
            br#","through":8"#,       // where it stands afterwards
            br#","ack_within_ms":200"#, // the time over which devices spread their acknowledgements
            br#","reliable":[{"type":"coupon","payload":{"c":1},"at":1700000000000,"offset":8}]}"#, // all alive
        ],
    );
    let span = Span { after: 8, through: 8, ack_within_ms: 200 };
    snapshot.stream = Some(Opening { carried: Carried { span, messages: vec![] }, ..opening() });
    let frame =
        frame::welcome(head(&room()), Greeting { reset: None, ..GREETING }, &snapshot, Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x01, 0x01], // FIN and text, 257 bytes
            br#"{"kind":"welcome","room":"r1","run":"000000000000001f","seq":42"#, // as ever
            br#","epoch":"000000000000000e","offset":8"#, // as above
            br#","heartbeat_ms":25000,"resumed":true,"reset":null"#, // its cursor was honoured
            br#","history":[],"latest":[],"counters":{"like":1234}"#, // as ever
            br#","after":8,"through":8,"ack_within_ms":200,"reliable":[]}"#, // it lacks nothing: told all the same
        ],
    );
}

#[test]
fn a_welcome_to_a_stream_in_proto() {
    let snapshot = Snapshot { history: vec![], latest: vec![], stream: Some(opening()), ..snapshot() };
    let frame =
        frame::welcome(head(&room()), Greeting { reset: None, ..GREETING }, &snapshot, Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 98],                                // FIN and binary, 98 bytes
            b"\x0a\x60",                                // ServerFrame.welcome = 1, 96 bytes
            b"\x0a\x02r1",                              // Welcome.room = 1
            b"\x12\x10000000000000001f",                // Welcome.run = 2
            b"\x18\x2a",                                // Welcome.seq = 3
            b"\x22\x10000000000000000e",                // Welcome.epoch = 4
            b"\x28\x08",                                // Welcome.offset = 5: 8
            b"\x30\xa8\xc3\x01\x38\x01", // Welcome.heartbeat_ms = 6, resumed = 7; reset is left out
            b"\x5a\x09\x0a\x04like\x10\xd2\x09", // Welcome.counters = 11
            b"\x68\x08",                 // after = 12 is left out: 0; Welcome.through = 13: 8
            b"\x70\xc8\x01",             // Welcome.ack_within_ms = 14: 200
            b"\x7a\x1c",                 // Welcome.reliable = 15, 28 bytes
            b"\x0a\x06coupon\x12\x07{\"c\":1}\x18\x01", // Message.type = 1, payload = 2, json = 3
            b"\x28\x80\xd0\x95\xff\xbc\x31\x38\x08", // Message.at = 5, offset = 7
        ],
    );
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

#[test]
fn a_reliable_page() {
    assert_golden(
        &frame::reliable_page(&room(), &opening(), None),
        &[
            br#"{"room":"r1""#,                // no WebSocket header: it is an HTTP body
            br#","epoch":"000000000000000e""#, // the stream's life
            br#","offset":8"#,                 // the last offset that was sent to members
            br#","reset":null"#,               // the cursor was honoured, or none was given
            br#","after":0,"through":8"#, // every message between them that is alive is here; behind 8 is more
            br#","reliable":[{"type":"coupon","payload":{"c":1},"at":1700000000000,"offset":8}]}"#, // by offset
        ],
    );
    let nothing = Carried { messages: vec![], ..opening().carried };
    assert_golden(
        &frame::reliable_page(&room(), &Opening { carried: nothing, ..opening() }, Some("ahead")),
        &[
            br#"{"room":"r1","epoch":"000000000000000e","offset":8"#, // as above
            br#","reset":"ahead""#,                                   // why the cursor was not honoured
            br#","after":0,"through":8,"reliable":[]}"#,              // told although it is empty
        ],
    );
}
