//! Batches as they travel: level, as refreshes, and as carries of reliable messages.

use std::sync::Arc;

use roomcast_core::room::account::Missed;
use roomcast_core::room::counters::CounterChange;
use roomcast_core::room::id::{Encoding, Seq};
use roomcast_core::room::{Batch, Carried, Refresh, Span};
use roomcast_core::wire::frame;

use super::{assert_golden, chat, coupon, head, price, recall, room, type_name};

pub(crate) fn batch() -> Batch {
    Batch {
        seq: Seq(42),
        messages: vec![Arc::new(chat()), Arc::new(price())],
        skipped: vec![],
        merged: vec![(type_name("enter"), 3), (type_name("price"), 300)],
        counters: vec![CounterChange { type_name: type_name("like"), add: 5, total: 1234 }],
        oldest: roomcast::clock::now().instant,
        span: None,
    }
}

fn refresh() -> Refresh {
    Refresh {
        missed: Missed { skipped: vec![(type_name("chat"), 7)], merged: vec![(type_name("enter"), 3)] },
        latest: vec![Arc::new(price())],
        latest_rest: None,
        counters: vec![CounterChange { type_name: type_name("like"), add: 5, total: 1234 }],
        carried: None,
        history: vec![],
    }
}

/// A coupon and the recall of an earlier one.
fn carried() -> Carried {
    let span = Span { after: 7, through: 300, ack_within_ms: 200 };
    Carried { span, messages: vec![Arc::new(coupon()), Arc::new(recall())] }
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

/// A batch with a reliable message among the others.
fn reliable_batch() -> Batch {
    let span = Span { after: 7, through: 8, ack_within_ms: 5_000 };
    let messages = vec![Arc::new(price()), Arc::new(coupon())];
    Batch { messages, merged: vec![], counters: vec![], span: Some(span), ..batch() }
}

#[test]
fn a_level_batch_with_a_reliable_message_in_json() {
    let frame = frame::level(head(&room()), &reliable_batch(), Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x00, 0xfe], // FIN and text, 254 bytes
            br#"{"kind":"batch","room":"r1","run":"000000000000001f","seq":42"#, // as ever
            br#","after":7"#,         // who has applied everything up to this offset …
            br#","through":8"#,       // … has applied everything up to this one with this frame
            br#","ack_within_ms":5000"#, // the time over which devices spread their acknowledgements
            br#","messages":[{"type":"price","payload_b64":"AP8Q","at":1700000000000,"key":"k\"1"}"#, // no offset
            br#",{"type":"coupon","payload":{"c":1},"at":1700000000000,"offset":8}]}"#, // in the room's order
        ],
    );
}

#[test]
fn a_level_batch_with_a_reliable_message_in_proto() {
    let frame = frame::level(head(&room()), &reliable_batch(), Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 89],                                   // FIN and binary, 89 bytes
            b"\x12\x57",                                   // ServerFrame.batch = 2, 87 bytes
            b"\x0a\x02r1\x12\x10000000000000001f\x18\x2a", // Batch.room = 1, run = 2, seq = 3
            b"\x20\x07",                                   // Batch.after = 4: 7
            b"\x28\x08",                                   // Batch.through = 5: 8
            b"\x30\x88\x27",                               // Batch.ack_within_ms = 6: 5 000
            b"\x52\x18\x0a\x05price\x12\x03\x00\xff\x10",  // Batch.messages = 10, 24 bytes: type, payload
            b"\x28\x80\xd0\x95\xff\xbc\x31\x42\x03k\"1",   // … at, key
            b"\x52\x1c",                                   // Batch.messages = 10, 28 bytes
            b"\x0a\x06coupon",                             // Message.type = 1
            b"\x12\x07{\"c\":1}\x18\x01",                  // Message.payload = 2, json = 3
            b"\x28\x80\xd0\x95\xff\xbc\x31",               // Message.at = 5
            b"\x38\x08",                                   // Message.offset = 7: 8
        ],
    );
}

#[test]
fn a_carry_in_json() {
    let frame = frame::carry(head(&room()), &carried(), Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x01, 0x12],                                   // FIN and text, 274 bytes
            br#"{"kind":"batch","room":"r1","run":"000000000000001f""#, // a batch without messages
            br#","seq":42"#, // the room's present seq: nothing was missed
            br#","after":7,"through":300,"ack_within_ms":200"#, // what it says of the stream
            br#","carried":[{"type":"coupon","payload":{"c":1},"at":1700000000000,"offset":8}"#, // what is alive …
            br#",{"type":"coupon","payload":null,"at":1700000000000"#, // … of the span, in order of offset
            br#","offset":300,"recall":5}]"#,                          // a recall, and what it takes back
            br#","messages":[]}"#,                                     // none of a batch
        ],
    );
    let span = Span { after: 0, through: 3, ack_within_ms: 200 };
    let hole = Carried { span, messages: vec![] };
    let frame = frame::carry(head(&room()), &hole, Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 118],                                                        // FIN and text, 118 bytes
            br#"{"kind":"batch","room":"r1","run":"000000000000001f","seq":42"#, // as ever
            br#","after":0,"through":3,"ack_within_ms":200"#, // 0 is spelt: nothing of the stream is wanted before
            br#","messages":[]}"#,                            // nothing of it is alive
        ],
    );
}

#[test]
fn a_carry_in_proto() {
    let frame = frame::carry(head(&room()), &carried(), Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 94],                                   // FIN and binary, 94 bytes
            b"\x12\x5c",                                   // ServerFrame.batch = 2, 92 bytes
            b"\x0a\x02r1\x12\x10000000000000001f\x18\x2a", // Batch.room = 1, run = 2, seq = 3
            b"\x20\x07\x28\xac\x02\x30\xc8\x01", // Batch.after = 4, through = 5: 300, ack_within_ms = 6: 200
            b"\x3a\x1c",                         // Batch.carried = 7, 28 bytes
            b"\x0a\x06coupon\x12\x07{\"c\":1}\x18\x01", // Message.type = 1, payload = 2, json = 3
            b"\x28\x80\xd0\x95\xff\xbc\x31\x38\x08", // Message.at = 5, offset = 7
            b"\x3a\x1c",                         // Batch.carried = 7, 28 bytes
            b"\x0a\x06coupon\x12\x04null\x18\x01", // Message.type = 1, payload = 2, json = 3
            b"\x28\x80\xd0\x95\xff\xbc\x31",     // Message.at = 5
            b"\x38\xac\x02",                     // Message.offset = 7: 300
            b"\x48\x05",                         // Message.recall = 9: 5
        ],
    );
    let span = Span { after: 0, through: 3, ack_within_ms: 200 };
    let hole = Carried { span, messages: vec![] };
    let frame = frame::carry(head(&room()), &hole, Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 31],                                   // FIN and binary, 31 bytes
            b"\x12\x1d",                                   // ServerFrame.batch = 2, 29 bytes
            b"\x0a\x02r1\x12\x10000000000000001f\x18\x2a", // Batch.room = 1, run = 2, seq = 3
            b"\x28\x03\x30\xc8\x01", // after is left out: 0; Batch.through = 5: 3, ack_within_ms = 6
        ],
    );
}

#[test]
fn a_refresh_that_carries() {
    let refresh = Refresh { carried: Some(carried()), latest: vec![], ..refresh() };
    let frame = frame::refresh(head(&room()), &refresh, Encoding::Json);
    assert_golden(
        &frame,
        &[
            &[0x81, 126, 0x01, 0x67], // FIN and text, 359 bytes
            br#"{"kind":"batch","room":"r1","run":"000000000000001f","seq":42"#, // as ever
            br#","after":7,"through":300,"ack_within_ms":200"#, // first the stream
            br#","carried":[{"type":"coupon","payload":{"c":1},"at":1700000000000,"offset":8}"#, // … and what is alive
            br#",{"type":"coupon","payload":null,"at":1700000000000,"offset":300,"recall":5}]"#, // … of the span
            br#","skipped":{"chat":7},"messages":[]"#, // then what was missed
            br#","merged":{"enter":3},"counters":{"like":{"add":5,"total":1234}}}"#, // as in any refresh
        ],
    );
    let frame = frame::refresh(head(&room()), &refresh, Encoding::Proto);
    assert_golden(
        &frame,
        &[
            &[0x82, 126, 0x00, 0x83],                            // FIN and binary, 131 bytes
            b"\x12\x80\x01",                                     // ServerFrame.batch = 2, 128 bytes
            b"\x0a\x02r1\x12\x10000000000000001f\x18\x2a",       // Batch.room = 1, run = 2, seq = 3
            b"\x20\x07\x28\xac\x02\x30\xc8\x01", // Batch.after = 4, through = 5, ack_within_ms = 6
            b"\x3a\x1c\x0a\x06coupon\x12\x07{\"c\":1}\x18\x01", // Batch.carried = 7: type, payload, json
            b"\x28\x80\xd0\x95\xff\xbc\x31\x38\x08", // … at, offset
            b"\x3a\x1c\x0a\x06coupon\x12\x04null\x18\x01", // Batch.carried = 7: type, payload, json
            b"\x28\x80\xd0\x95\xff\xbc\x31\x38\xac\x02\x48\x05", // … at, offset, recall
            b"\x42\x08\x0a\x04chat\x10\x07",     // Batch.skipped = 8
            b"\x5a\x09\x0a\x05enter\x10\x03",    // Batch.merged = 11
            b"\x62\x0d\x0a\x04like\x12\x05\x08\x05\x10\xd2\x09", // Batch.counters = 12
        ],
    );
}
