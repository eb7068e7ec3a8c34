//! The declared size of a message, beside its size on the wire.

use std::sync::Arc;

use roomcast_core::limits::{INTEGER_MAX, PAYLOAD_DEPTH_MAX};
use roomcast_core::room::account::Missed;
use roomcast_core::room::audience::Audience;
use roomcast_core::room::id::{Encoding, Epoch, Seq};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::policy::Merge;
use roomcast_core::room::{Batch, Carried, Opening, Refresh, Snapshot, Span};
use roomcast_core::wire::frame::{self, Greeting};

use super::batches::batch;
use super::inputs::Inputs;
use super::{head, message, past, room, unframe};

/// The bytes that one message adds to a level frame's body, without the separator of the next one.
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

/// Every bound in bytes counts `wire_bytes`. With less than the message's size, a batch would outgrow its
/// budget; with much more, the node would shed messages that fit.
#[test]
fn a_message_is_sized_as_it_travels_in_the_larger_encoding() {
    /// The comma between two messages of a JSON batch.
    const SEPARATOR_BYTES: usize = 1;
    for seed in 0..3_000 {
        let mut message = Inputs(fastrand::Rng::with_seed(seed)).message();
        if message.class() == Class::Reliable {
            // Sized before it had an offset: with room for the largest.
            message.offset = INTEGER_MAX;
            message.recall = INTEGER_MAX;
        }
        if message.policy.merge == Merge::Sum {
            message.count = INTEGER_MAX;
        }
        let [in_json, in_proto] = Encoding::ALL.map(|encoding| encoded_bytes(&message, encoding));
        let sized = message.wire_bytes;
        let travels = (in_json + SEPARATOR_BYTES).max(in_proto);
        assert!(sized >= travels, "seed {seed}: sized {sized}, travels {travels}: {message:?}");
        assert!(sized <= travels + 2, "seed {seed}: sized {sized}, travels {travels}: {message:?}");
    }
}

/// The bound that the protocol's page tells readers to set.
const FRAME_DEPTH_MAX: usize = 67;

/// Nesting of a text.
fn depth(text: &[u8]) -> usize {
    let mut open = 0_usize;
    let mut deepest = 0;
    for byte in text {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open -= 1,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// .NET refuses a deeper text by default, and with it all other messages of the frame.
#[test]
fn a_frame_around_the_deepest_payload_is_as_deep_as_readers_are_told() {
    let payload = "[".repeat(PAYLOAD_DEPTH_MAX) + &"]".repeat(PAYLOAD_DEPTH_MAX);
    let deep = || message("x", Payload::Json(payload.clone().into()));
    let one = || vec![Arc::new(deep())];
    let span = Span { after: 7, through: 8, ack_within_ms: 200 };
    let carried = || Carried { span, messages: one() };
    let opening = Opening { epoch: Epoch(7), offset: 8, carried: carried() };
    let history = past([(41, deep())]);
    let room = room();
    let batch = Batch { messages: one(), ..batch() };
    let snapshot = Snapshot {
        seq: Seq(42),
        history: history.clone(),
        cut_short: false,
        latest: one(),
        latest_rest: None,
        counters: vec![],
        stream: Some(opening.clone()),
    };
    let missed = Missed { skipped: vec![], merged: vec![] };
    let refresh = Refresh {
        missed,
        latest: one(),
        latest_rest: None,
        counters: vec![],
        carried: Some(carried()),
        history: history.clone(),
    };
    let greeting = Greeting { heartbeat_ms: 1, resumed: false, reset: None };
    for frame in [
        frame::level(head(&room), &batch, Encoding::Json),
        frame::carry(head(&room), &carried(), Encoding::Json),
        frame::refresh(head(&room), &refresh, Encoding::Json),
        frame::welcome(head(&room), greeting, &snapshot, Encoding::Json),
        frame::history(head(&room), &history, Encoding::Json),
    ] {
        assert_eq!(depth(unframe(&frame).1), FRAME_DEPTH_MAX);
    }
    assert_eq!(depth(&frame::reliable_page(&room, &opening, None)), FRAME_DEPTH_MAX);
    assert_eq!(depth(&frame::history_page(head(&room), false, &snapshot)), FRAME_DEPTH_MAX);
}

#[test]
fn the_audience_message_is_never_larger_than_it_says() {
    for members in [0, 1, 1_000_000, INTEGER_MAX] {
        let message = Message { at_ms: 9_999_999_999_999, ..Audience::message(members) };
        for encoding in Encoding::ALL {
            let travels = encoded_bytes(&message, encoding) + 1;
            assert!(travels <= message.wire_bytes, "{encoding:?}, {members} members: {travels} bytes");
        }
    }
}
