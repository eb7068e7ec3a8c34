//! What a message is said to take, beside what it takes.

use std::sync::Arc;

use roomcast_core::limits::INTEGER_MAX;
use roomcast_core::room::Batch;
use roomcast_core::room::audience::Audience;
use roomcast_core::room::id::Encoding;
use roomcast_core::room::message::{Class, Message};
use roomcast_core::room::policy::Merge;
use roomcast_core::wire::frame;

use super::batches::batch;
use super::inputs::Inputs;
use super::{head, room, unframe};

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
        let mut message = Inputs(fastrand::Rng::with_seed(seed)).message();
        if message.class() == Class::Reliable {
            // It was sized before it had them: with room for the largest.
            (message.offset, message.recall) = (INTEGER_MAX, INTEGER_MAX);
        }
        if message.policy.merge == Merge::Sum {
            message.count = INTEGER_MAX;
        }
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
