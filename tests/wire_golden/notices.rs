//! Frames for one device, closes and pongs.

use roomcast_core::proto;
use roomcast_core::room::id::Encoding;
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::frame::{self, Notice};
use serde_json::json;

use super::round_trips::{read_json, read_proto};
use super::{assert_golden, room};

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
        (Notice::TokenTaken { expires_s: Some(1_800_000_000) }, 33, r#"{"kind":"token","exp":1800000000}"#),
        (Notice::TokenTaken { expires_s: None }, 16, r#"{"kind":"token"}"#),
    ] {
        // FIN and text, the length in seven bits, then the text.
        assert_golden(&frame::notice(notice, Encoding::Json), &[&[0x81, length], text.as_bytes()]);
    }
}

#[test]
fn notices_in_proto() {
    let room = room();
    let error = |room, field| Notice::Error { code: "too_many_rooms", room, field };
    let goldens: [(Notice<'_>, &[&[u8]]); 9] = [
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
        (
            Notice::TokenTaken { expires_s: Some(1_800_000_000) },
            // .token = 10: exp = 1: 1 800 000 000
            &[&[0x82, 8], b"\x52\x06", b"\x08\x80\xa4\xa7\xda\x06"],
        ),
        (Notice::TokenTaken { expires_s: None }, &[&[0x82, 2], b"\x52\x00"]),
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
        (
            Notice::TokenTaken { expires_s: Some(9) },
            json!({"kind": "token", "exp": 9}),
            Frame::Token(proto::TokenTaken { exp: 9 }),
        ),
    ] {
        assert_eq!(read_json(&frame::notice(notice, Encoding::Json)), in_json);
        assert_eq!(read_proto(&frame::notice(notice, Encoding::Proto)), in_proto);
    }
}
