//! The device's side of the wire: WebSocket frames in and out, and what a server's frame says.
//!
//! Written from docs/protocol.md and the schema alone, sharing no code with the engine's encoder, so that the two
//! can't be wrong together. Pure: bytes in, values out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use roomcast_core::proto;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Largest frame a server may send: a welcome of 512 KiB, with room to spare. Past it the connection is given up.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// How frames are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Text frames, `application/json`.
    Json,
    /// Binary frames, `application/x-protobuf`.
    Proto,
}

impl Encoding {
    /// The subprotocol that asks for it.
    #[must_use]
    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "roomcast.v1.json",
            Self::Proto => "roomcast.v1.proto",
        }
    }

    /// The content type of a publish in it.
    #[must_use]
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/x-protobuf",
        }
    }

    /// The opcode its frames travel under.
    #[must_use]
    pub(crate) fn opcode(self) -> u8 {
        match self {
            Self::Json => OPCODE_TEXT,
            Self::Proto => OPCODE_BINARY,
        }
    }

    /// The payload of a device's ping frame.
    #[must_use]
    pub(crate) fn ping(self) -> Vec<u8> {
        match self {
            Self::Json => br#"{"kind":"ping"}"#.to_vec(),
            Self::Proto => {
                let frame = Some(proto::device_frame::Frame::Ping(proto::Ping {}));
                proto::DeviceFrame { frame }.encode_to_vec()
            }
        }
    }
}

/// RFC 6455 opcodes.
pub(crate) const OPCODE_TEXT: u8 = 1;
pub(crate) const OPCODE_BINARY: u8 = 2;
pub(crate) const OPCODE_CLOSE: u8 = 8;
pub(crate) const OPCODE_PING: u8 = 9;
pub(crate) const OPCODE_PONG: u8 = 10;

/// Bytes of the header that a frame of a node has before so many bytes.
#[must_use]
pub(crate) const fn header_bytes(payload_bytes: u64) -> u64 {
    match payload_bytes {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Not yet a whole frame.
    Half,
    /// Nothing a server may send: masked, fragmented, reserved bits, or past [`FRAME_BYTES_MAX`].
    Bad(&'static str),
    /// A whole frame.
    Whole {
        /// Its opcode.
        opcode: u8,
        /// Bytes of its header.
        header_bytes: usize,
        /// Bytes after the header.
        payload_bytes: usize,
    },
}

/// Looks at the first frame of `bytes`. The engine never fragments, so a frame is a message.
#[must_use]
pub(crate) fn start(bytes: &[u8]) -> Start {
    let [first, second, ..] = *bytes else { return Start::Half };
    if first & 0xf0 != 0x80 {
        return Start::Bad("a fragment or a reserved bit");
    }
    if second & 0x80 != 0 {
        return Start::Bad("a masked frame from a server");
    }
    let (header_bytes, payload_bytes) = match second {
        126 => {
            let Some(length) = bytes.get(2..4) else { return Start::Half };
            (4, u64::from(u16::from_be_bytes([length[0], length[1]])))
        }
        127 => {
            let Some(length) = bytes.get(2..10) else { return Start::Half };
            (10, u64::from_be_bytes(length.try_into().expect("eight bytes were asked for")))
        }
        short => (2, u64::from(short)),
    };
    match usize::try_from(payload_bytes) {
        Ok(payload_bytes) if payload_bytes <= FRAME_BYTES_MAX => {
            if bytes.len() < header_bytes + payload_bytes {
                return Start::Half;
            }
            Start::Whole { opcode: first & 0x0f, header_bytes, payload_bytes }
        }
        _ => Start::Bad("a frame of more than 1 MiB"),
    }
}

/// Appends one masked frame of at most 65 535 bytes of payload; more is cut off.
pub(crate) fn write_device_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: u32) {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let payload = &payload[..usize::from(length)];
    out.push(0x80 | opcode);
    match u8::try_from(length) {
        Ok(short) if short <= 125 => out.push(0x80 | short),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    let mask = mask.to_be_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// One message as a device sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeardMessage {
    /// Its type.
    pub(crate) type_name: String,
    /// Its payload as it travelled.
    pub(crate) payload: Bytes,
    /// Whether it is marked JSON.
    pub(crate) json: bool,
    /// The publisher's own id; empty: none.
    pub(crate) id: String,
    /// Its key; empty: none.
    pub(crate) key: String,
    /// What it stands for.
    pub(crate) count: u64,
    /// Its place in the reliable stream; 0: it is not reliable.
    pub(crate) offset: u64,
    /// The offset that it takes back; 0: none.
    pub(crate) recall: u64,
}

/// What a frame says of the reliable stream. All zero: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamSpan {
    /// Nothing at or before this offset is told.
    pub(crate) after: u64,
    /// Where a device stands that has applied it.
    pub(crate) through: u64,
    /// The time over which devices spread their acknowledgements; 0: not said.
    pub(crate) ack_within_ms: u64,
}

/// The first frame of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) room: String,
    pub(crate) run: String,
    pub(crate) seq: u64,
    pub(crate) heartbeat_ms: u64,
    /// The life of the reliable stream; empty: not known just now.
    pub(crate) epoch: String,
    /// The last offset that was sent to members.
    pub(crate) offset: u64,
    /// Why the cursor was not honoured; empty: it was.
    pub(crate) reset: String,
    pub(crate) span: StreamSpan,
    /// The total of each counter.
    pub(crate) counters: BTreeMap<String, u64>,
    /// History and latest, in that order.
    pub(crate) messages: Vec<HeardMessage>,
    pub(crate) reliable: Vec<HeardMessage>,
}

/// What the viewer door answers to a pull of a room's reliable stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPage {
    pub(crate) room: String,
    pub(crate) epoch: String,
    /// The head of the stream.
    pub(crate) offset: u64,
    pub(crate) reset: String,
    pub(crate) span: StreamSpan,
    pub(crate) reliable: Vec<HeardMessage>,
}

/// What a frame says of a counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Growth {
    /// What it grew by.
    pub(crate) add: u64,
    /// Where it stands.
    pub(crate) total: u64,
}

/// What one flush brought, or what one device needs besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) room: String,
    pub(crate) run: String,
    pub(crate) seq: u64,
    pub(crate) skipped: BTreeMap<String, u64>,
    pub(crate) merged: BTreeMap<String, u64>,
    pub(crate) counters: BTreeMap<String, Growth>,
    pub(crate) span: StreamSpan,
    /// Messages of this batch, in room order; reliable ones among them.
    pub(crate) messages: Vec<HeardMessage>,
    /// Reliable messages that come besides the batch.
    pub(crate) carried: Vec<HeardMessage>,
    /// Latest values that come besides the batch.
    pub(crate) latest: Vec<HeardMessage>,
}

/// What a server's frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerFrame {
    Welcome(Welcome),
    Batch(Batch),
    Pong,
    /// `joined` or `left`: answers this generator does not wait for.
    Membership,
    Closed {
        code: String,
    },
    Error {
        code: String,
    },
    Bye {
        code: String,
    },
}

/// Reads one frame's payload.
///
/// # Errors
/// A sentence that says what was not understood.
pub(crate) fn decode(encoding: Encoding, payload: &[u8]) -> Result<ServerFrame, String> {
    match encoding {
        Encoding::Json => decode_json(payload),
        Encoding::Proto => decode_proto(payload),
    }
}

#[derive(Debug, Deserialize)]
struct JsonMessage<'a> {
    #[serde(rename = "type", borrow)]
    type_name: Cow<'a, str>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    payload_b64: Option<Cow<'a, str>>,
    id: Option<String>,
    key: Option<String>,
    count: Option<u64>,
    #[serde(default)]
    offset: u64,
    recall: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct JsonFrame<'a> {
    kind: Cow<'a, str>,
    room: Option<String>,
    run: Option<String>,
    seq: Option<u64>,
    heartbeat_ms: Option<u64>,
    code: Option<String>,
    epoch: Option<String>,
    reset: Option<String>,
    offset: Option<u64>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    through: u64,
    #[serde(default)]
    ack_within_ms: u64,
    #[serde(default)]
    skipped: BTreeMap<String, u64>,
    #[serde(default)]
    merged: BTreeMap<String, u64>,
    /// Of a welcome their totals, of a batch what they grew by besides.
    #[serde(default, borrow)]
    counters: BTreeMap<String, &'a RawValue>,
    #[serde(default, borrow)]
    messages: Vec<JsonMessage<'a>>,
    #[serde(default, borrow)]
    history: Vec<JsonMessage<'a>>,
    #[serde(default, borrow)]
    latest: Vec<JsonMessage<'a>>,
    #[serde(default, borrow)]
    carried: Vec<JsonMessage<'a>>,
    #[serde(default, borrow)]
    reliable: Vec<JsonMessage<'a>>,
}

fn heard_json(message: &JsonMessage<'_>) -> HeardMessage {
    let (payload, json) = match (message.payload, &message.payload_b64) {
        (Some(raw), _) => (Bytes::copy_from_slice(raw.get().as_bytes()), true),
        (None, Some(opaque)) => (Bytes::copy_from_slice(opaque.as_bytes()), false),
        (None, None) => (Bytes::new(), false),
    };
    HeardMessage {
        type_name: message.type_name.clone().into_owned(),
        payload,
        json,
        id: message.id.clone().unwrap_or_default(),
        key: message.key.clone().unwrap_or_default(),
        count: message.count.unwrap_or(1),
        offset: message.offset,
        recall: message.recall.unwrap_or(0),
    }
}

fn all_heard<'a>(lists: impl IntoIterator<Item = &'a Vec<JsonMessage<'a>>>) -> Vec<HeardMessage> {
    lists.into_iter().flatten().map(heard_json).collect()
}

/// Reads the answer to a pull, which is JSON whatever the encoding of the frames.
///
/// # Errors
/// A sentence that says what was not understood.
pub(crate) fn decode_page(body: &[u8]) -> Result<StreamPage, String> {
    #[derive(Deserialize)]
    struct JsonPage<'a> {
        room: String,
        epoch: Option<String>,
        #[serde(default)]
        offset: u64,
        reset: Option<String>,
        #[serde(default)]
        after: u64,
        #[serde(default)]
        through: u64,
        #[serde(default, borrow)]
        reliable: Vec<JsonMessage<'a>>,
    }
    let page: JsonPage<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(StreamPage {
        epoch: page.epoch.unwrap_or_default(),
        offset: page.offset,
        reset: page.reset.unwrap_or_default(),
        span: StreamSpan { after: page.after, through: page.through, ack_within_ms: 0 },
        reliable: all_heard([&page.reliable]),
        room: page.room,
    })
}

/// The payload of a device's acknowledgement.
#[must_use]
pub(crate) fn ack(encoding: Encoding, room: &str, epoch: &str, offset: u64) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            format!(r#"{{"kind":"ack","room":"{room}","epoch":"{epoch}","offset":{offset}}}"#).into_bytes()
        }
        Encoding::Proto => {
            let entry = proto::AckEntry { room: room.to_owned(), epoch: epoch.to_owned(), offset };
            let frame = Some(proto::device_frame::Frame::Ack(proto::Ack { acks: vec![entry] }));
            proto::DeviceFrame { frame }.encode_to_vec()
        }
    }
}

fn decode_json(payload: &[u8]) -> Result<ServerFrame, String> {
    let frame: JsonFrame<'_> = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let missing = |field: &str| format!("a {} without {field}", frame.kind);
    let code = || frame.code.clone().unwrap_or_default();
    let span = StreamSpan { after: frame.after, through: frame.through, ack_within_ms: frame.ack_within_ms };
    Ok(match &*frame.kind {
        "welcome" => ServerFrame::Welcome(Welcome {
            room: frame.room.clone().ok_or_else(|| missing("room"))?,
            run: frame.run.clone().ok_or_else(|| missing("run"))?,
            seq: frame.seq.ok_or_else(|| missing("seq"))?,
            heartbeat_ms: frame.heartbeat_ms.ok_or_else(|| missing("heartbeat_ms"))?,
            epoch: frame.epoch.clone().unwrap_or_default(),
            offset: frame.offset.unwrap_or(0),
            reset: frame.reset.clone().unwrap_or_default(),
            span,
            counters: counters(&frame)?,
            messages: all_heard([&frame.history, &frame.latest]),
            reliable: all_heard([&frame.reliable]),
        }),
        "batch" => ServerFrame::Batch(Batch {
            room: frame.room.clone().ok_or_else(|| missing("room"))?,
            run: frame.run.clone().ok_or_else(|| missing("run"))?,
            seq: frame.seq.ok_or_else(|| missing("seq"))?,
            span,
            messages: all_heard([&frame.messages]),
            carried: all_heard([&frame.carried]),
            latest: all_heard([&frame.latest]),
            counters: counters(&frame)?,
            skipped: frame.skipped,
            merged: frame.merged,
        }),
        "pong" => ServerFrame::Pong,
        "joined" | "left" => ServerFrame::Membership,
        "closed" => ServerFrame::Closed { code: code() },
        "error" => ServerFrame::Error { code: code() },
        "bye" => ServerFrame::Bye { code: code() },
        other => return Err(format!("kind {other:?}")),
    })
}

/// The counters of a frame, as its kind spells them.
fn counters<T: serde::de::DeserializeOwned>(frame: &JsonFrame<'_>) -> Result<BTreeMap<String, T>, String> {
    let spelt = frame.counters.iter();
    let read = spelt.map(|(name, value)| Ok((name.clone(), serde_json::from_str(value.get())?)));
    read.collect::<serde_json::Result<_>>().map_err(|error| format!("counters: {error}"))
}

fn heard_proto(message: proto::Message) -> HeardMessage {
    HeardMessage {
        type_name: message.r#type,
        payload: message.payload,
        json: message.json,
        id: message.id,
        key: message.key,
        // Absent means 1.
        count: message.count.max(1),
        offset: message.offset,
        recall: message.recall,
    }
}

fn decode_proto(payload: &[u8]) -> Result<ServerFrame, String> {
    use proto::server_frame::Frame;
    let decoded =
        proto::ServerFrame::decode(Bytes::copy_from_slice(payload)).map_err(|error| error.to_string())?;
    Ok(match decoded.frame.ok_or("a frame without a kind")? {
        Frame::Welcome(welcome) => ServerFrame::Welcome(Welcome {
            room: welcome.room,
            run: welcome.run,
            seq: welcome.seq,
            heartbeat_ms: u64::from(welcome.heartbeat_ms),
            epoch: welcome.epoch,
            offset: welcome.offset,
            reset: welcome.reset,
            span: StreamSpan {
                after: welcome.after,
                through: welcome.through,
                ack_within_ms: u64::from(welcome.ack_within_ms),
            },
            counters: welcome.counters,
            messages: [welcome.history, welcome.latest].into_iter().flatten().map(heard_proto).collect(),
            reliable: welcome.reliable.into_iter().map(heard_proto).collect(),
        }),
        Frame::Batch(batch) => ServerFrame::Batch(Batch {
            room: batch.room,
            run: batch.run,
            seq: batch.seq,
            skipped: batch.skipped,
            merged: batch.merged,
            counters: batch
                .counters
                .into_iter()
                .map(|(name, change)| (name, Growth { add: change.add, total: change.total }))
                .collect(),
            span: StreamSpan {
                after: batch.after,
                through: batch.through,
                ack_within_ms: u64::from(batch.ack_within_ms),
            },
            messages: batch.messages.into_iter().map(heard_proto).collect(),
            carried: batch.carried.into_iter().map(heard_proto).collect(),
            latest: batch.latest.into_iter().map(heard_proto).collect(),
        }),
        Frame::Pong(_) => ServerFrame::Pong,
        Frame::Joined(_) | Frame::Left(_) => ServerFrame::Membership,
        Frame::Closed(closed) => ServerFrame::Closed { code: closed.code },
        Frame::Error(error) => ServerFrame::Error { code: error.code },
        Frame::Bye(bye) => ServerFrame::Bye { code: bye.code },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte() {
        for payload_bytes in [0_usize, 5, 125, 126, 65_535, 65_536] {
            let mut frame = vec![0x81];
            match payload_bytes {
                0..=125 => frame.push(u8::try_from(payload_bytes).unwrap()),
                126..=65_535 => {
                    frame.push(126);
                    frame.extend(u16::try_from(payload_bytes).unwrap().to_be_bytes());
                }
                _ => {
                    frame.push(127);
                    frame.extend((payload_bytes as u64).to_be_bytes());
                }
            }
            let header_bytes = frame.len();
            frame.resize(header_bytes + payload_bytes, b'x');
            assert_eq!(start(&frame), Start::Whole { opcode: 1, header_bytes, payload_bytes });
            assert_eq!(super::header_bytes(payload_bytes as u64), header_bytes as u64);
            assert_eq!(start(&frame[..frame.len() - 1]), Start::Half);
        }
        assert!(matches!(start(&[0x01, 0x00]), Start::Bad(_)));
        assert!(matches!(start(&[0x81, 0x80]), Start::Bad(_)));
        assert!(matches!(start(&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]), Start::Bad(_)));
    }

    #[test]
    fn a_json_payload_keeps_its_bytes_and_absent_fields_are_empty() {
        let text = br#"{"kind":"batch","room":"r","run":"00","seq":7,"messages":[{"type":"chat","payload": "a\u0041" ,"at":1}]}"#;
        let Ok(ServerFrame::Batch(batch)) = decode(Encoding::Json, text) else { panic!("a batch") };
        assert_eq!((batch.seq, batch.messages.len()), (7, 1));
        assert_eq!(&batch.messages[0].payload[..], br#""a\u0041""#);
        assert!(batch.messages[0].json && batch.skipped.is_empty());
        assert!(decode(Encoding::Json, br#"{"kind":"batch"}"#).is_err());
        assert!(decode(Encoding::Json, b"\xff").is_err());
    }

    #[test]
    fn both_encodings_say_the_same() {
        let batch = proto::Batch {
            room: "r".into(),
            run: "00".into(),
            seq: 7,
            skipped: BTreeMap::from([("chat".into(), 3)]),
            messages: vec![proto::Message {
                r#type: "gift".into(),
                payload: Bytes::from_static(b"1"),
                json: true,
                key: "k1".into(),
                count: 12,
                ..Default::default()
            }],
            counters: BTreeMap::from([("like".into(), proto::CounterChange { add: 17, total: 1_251 })]),
            ..Default::default()
        };
        let bytes =
            proto::ServerFrame { frame: Some(proto::server_frame::Frame::Batch(batch)) }.encode_to_vec();
        let text = br#"{"kind":"batch","room":"r","run":"00","seq":7,"skipped":{"chat":3},
            "messages":[{"type":"gift","payload":1,"key":"k1","count":12}],"counters":{"like":{"add":17,"total":1251}}}"#;
        assert_eq!(decode(Encoding::Proto, &bytes), decode(Encoding::Json, text));
    }

    #[test]
    fn both_encodings_say_the_same_of_the_reliable_stream() {
        let coupon = proto::Message {
            r#type: "coupon".into(),
            payload: Bytes::from_static(b"1"),
            json: true,
            id: "c1".into(),
            offset: 8,
            ..Default::default()
        };
        let recall = proto::Message { r#type: "coupon".into(), offset: 9, recall: 8, ..Default::default() };
        let welcome = proto::Welcome {
            room: "r".into(),
            run: "00".into(),
            heartbeat_ms: 9,
            epoch: "0e".into(),
            offset: 9,
            reset: "ahead".into(),
            after: 7,
            through: 9,
            ack_within_ms: 200,
            counters: BTreeMap::from([("like".into(), 3)]),
            reliable: vec![coupon, recall],
            ..Default::default()
        };
        let frame = proto::ServerFrame { frame: Some(proto::server_frame::Frame::Welcome(welcome)) };
        let text =
            br#"{"kind":"welcome","room":"r","run":"00","seq":0,"heartbeat_ms":9,"epoch":"0e","offset":9,
            "resumed":false,"reset":"ahead","after":7,"through":9,"ack_within_ms":200,"counters":{"like":3},"reliable":[
            {"type":"coupon","payload":1,"id":"c1","offset":8},{"type":"coupon","offset":9,"recall":8}]}"#;
        assert_eq!(decode(Encoding::Proto, &frame.encode_to_vec()), decode(Encoding::Json, text));
    }

    #[test]
    fn a_device_frame_of_any_length_can_be_read_back() {
        for length in [0_usize, 125, 126, 300] {
            let payload = vec![7; length];
            let mut out = Vec::new();
            write_device_frame(&mut out, OPCODE_TEXT, &payload, 0x0102_0304);
            let header_bytes = if length <= 125 { 6 } else { 8 };
            assert_eq!(out.len(), header_bytes + length);
            let mask = [1, 2, 3, 4];
            let read: Vec<u8> =
                out[header_bytes..].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
            assert_eq!(read, payload);
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let seed = 0x5eed;
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
            drop((start(&bytes), decode(Encoding::Proto, &bytes), decode(Encoding::Json, &bytes)));
        }
    }
}
