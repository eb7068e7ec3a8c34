//! The device's side of the wire: WebSocket frames in and out, and the content of a server's frame.
//!
//! Written from docs/protocol.md and the schema alone. The engine's encoder is not used here, because a
//! mistake shared by both sides would stay unseen. A JSON frame is read into the schema's own types, so the
//! rest of the generator knows a single shape. Pure: bytes in, values out.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use roomcast_core::proto;
pub(crate) use roomcast_core::proto::server_frame::Frame as ServerFrame;
pub(crate) use roomcast_core::proto::{Batch, History, Message, Welcome};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Largest payload of a server's frame: a welcome of 512 KiB, with room to spare.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The spelling of frames, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Text frames, `application/json`.
    Json,
    /// Binary frames, `application/x-protobuf`.
    Proto,
}

impl Encoding {
    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "roomcast.v1.json",
            Self::Proto => "roomcast.v1.proto",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Proto => "application/x-protobuf",
        }
    }

    pub(crate) fn opcode(self) -> u8 {
        match self {
            Self::Json => OPCODE_TEXT,
            Self::Proto => OPCODE_BINARY,
        }
    }

    /// The payload of a device's ping frame.
    pub(crate) fn ping(self) -> Cow<'static, [u8]> {
        match self {
            Self::Json => br#"{"kind":"ping"}"#.into(),
            Self::Proto => device_frame(proto::device_frame::Frame::Ping(proto::Ping {})).into(),
        }
    }

    /// The payload of a device's acknowledgement.
    pub(crate) fn ack(self, room: &str, epoch: &str, offset: u64) -> Vec<u8> {
        match self {
            Self::Json => format!(r#"{{"kind":"ack","room":"{room}","epoch":"{epoch}","offset":{offset}}}"#)
                .into_bytes(),
            Self::Proto => {
                let entry = proto::AckEntry { room: room.to_owned(), epoch: epoch.to_owned(), offset };
                device_frame(proto::device_frame::Frame::Ack(proto::Ack { acks: vec![entry] }))
            }
        }
    }
}

fn device_frame(frame: proto::device_frame::Frame) -> Vec<u8> {
    proto::DeviceFrame { frame: Some(frame) }.encode_to_vec()
}

/// RFC 6455 opcodes.
pub(crate) const OPCODE_TEXT: u8 = 1;
pub(crate) const OPCODE_BINARY: u8 = 2;
pub(crate) const OPCODE_CLOSE: u8 = 8;
pub(crate) const OPCODE_PING: u8 = 9;
pub(crate) const OPCODE_PONG: u8 = 10;

/// Length of the header of a server's frame with `payload_bytes` (RFC 6455, 5.2; servers do not mask).
pub(crate) const fn header_bytes(payload_bytes: u64) -> u64 {
    match payload_bytes {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

/// The first frame of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Bytes of the frame are missing.
    Half,
    /// No frame that a server may send: masked, fragmented, with reserved bits, or past [`FRAME_BYTES_MAX`].
    Bad(&'static str),
    Whole {
        opcode: u8,
        header_bytes: usize,
        /// Bytes behind the header.
        payload_bytes: usize,
    },
}

/// Looks at the first frame of `bytes`. The engine never fragments, so a frame is a message.
pub(crate) fn start(bytes: &[u8]) -> Start {
    let [first, second, ..] = *bytes else { return Start::Half };
    // FIN set and no extension: the engine never fragments and negotiates no compression.
    if first & 0xf0 != 0x80 {
        return Start::Bad("a fragment or a reserved bit");
    }
    // RFC 6455, 5.1: a client must close the connection on a masked frame.
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
        // The bound holds before the bytes arrive: a forged length must not make a device wait for gigabytes.
        _ => Start::Bad("a frame of more than 1 MiB"),
    }
}

/// Appends one masked frame of at most 65 535 bytes of payload; the rest of a longer payload is cut off.
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

/// Reads the payload of one server's frame.
///
/// # Errors
/// A sentence about the part that could not be read.
pub(crate) fn decode(encoding: Encoding, payload: &[u8]) -> Result<ServerFrame, String> {
    match encoding {
        Encoding::Json => json_frame(payload)?.read(),
        Encoding::Proto => decode_proto(payload),
    }
}

/// Reads the answer to a pull: JSON in every encoding. A page has the stream's fields of a welcome, and no
/// others.
///
/// # Errors
/// A sentence about the part that could not be read.
pub(crate) fn decode_page(body: &[u8]) -> Result<Welcome, String> {
    let mut page = json_frame(body)?;
    page.kind = "page".into();
    let room = page.required(page.room.clone(), "room")?;
    Ok(page.welcome(room))
}

fn json_frame(payload: &[u8]) -> Result<JsonFrame<'_>, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

#[derive(Debug, Deserialize)]
struct JsonMessage<'a> {
    #[serde(rename = "type", borrow)]
    type_name: Cow<'a, str>,
    // Raw, because the payload must be compared byte by byte.
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

impl From<JsonMessage<'_>> for Message {
    fn from(message: JsonMessage<'_>) -> Self {
        // An opaque payload stays in base64: the generator publishes JSON alone, so the payload is foreign
        // anyway.
        let (payload, json) = match (message.payload, &message.payload_b64) {
            (Some(raw), _) => (Bytes::copy_from_slice(raw.get().as_bytes()), true),
            (None, Some(opaque)) => (Bytes::copy_from_slice(opaque.as_bytes()), false),
            (None, None) => (Bytes::new(), false),
        };
        Self {
            r#type: message.type_name.into_owned(),
            payload,
            json,
            id: message.id.unwrap_or_default(),
            key: message.key.unwrap_or_default(),
            count: message.count.unwrap_or(1),
            offset: message.offset,
            recall: message.recall.unwrap_or(0),
            ..Self::default()
        }
    }
}

fn messages<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<Message>, D::Error> {
    Ok(Vec::<JsonMessage<'_>>::deserialize(list)?.into_iter().map(Message::from).collect())
}

/// Every field of every kind of frame, and of a page, which has no kind.
#[derive(Debug, Deserialize)]
struct JsonFrame<'a> {
    #[serde(default, borrow)]
    kind: Cow<'a, str>,
    room: Option<String>,
    run: Option<String>,
    seq: Option<u64>,
    heartbeat_ms: Option<u32>,
    code: Option<String>,
    epoch: Option<String>,
    reset: Option<String>,
    offset: Option<u64>,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    through: u64,
    #[serde(default)]
    ack_within_ms: u32,
    #[serde(default)]
    skipped: BTreeMap<String, u64>,
    #[serde(default)]
    merged: BTreeMap<String, u64>,
    /// A welcome has totals here, a batch has growth and total.
    #[serde(default, borrow)]
    counters: BTreeMap<String, &'a RawValue>,
    #[serde(default, deserialize_with = "messages")]
    messages: Vec<Message>,
    #[serde(default, deserialize_with = "messages")]
    history: Vec<Message>,
    #[serde(default, deserialize_with = "messages")]
    latest: Vec<Message>,
    #[serde(default, deserialize_with = "messages")]
    carried: Vec<Message>,
    #[serde(default, deserialize_with = "messages")]
    reliable: Vec<Message>,
}

impl JsonFrame<'_> {
    fn read(mut self) -> Result<ServerFrame, String> {
        let code = self.code.take().unwrap_or_default();
        Ok(match &*self.kind {
            "welcome" => {
                let room = self.required(self.room.clone(), "room")?;
                let run = self.required(self.run.clone(), "run")?;
                let seq = self.required(self.seq, "seq")?;
                let heartbeat_ms = self.required(self.heartbeat_ms, "heartbeat_ms")?;
                let counters = self.counters(|total: u64| total)?;
                ServerFrame::Welcome(Welcome { run, seq, heartbeat_ms, counters, ..self.welcome(room) })
            }
            "batch" => ServerFrame::Batch(Batch {
                room: self.required(self.room.clone(), "room")?,
                run: self.required(self.run.clone(), "run")?,
                seq: self.required(self.seq, "seq")?,
                counters: self.counters(|JsonGrowth { add, total }| proto::CounterChange { add, total })?,
                after: self.after,
                through: self.through,
                ack_within_ms: self.ack_within_ms,
                messages: self.messages,
                carried: self.carried,
                latest: self.latest,
                skipped: self.skipped,
                merged: self.merged,
            }),
            "history" => ServerFrame::History(History {
                room: self.required(self.room.clone(), "room")?,
                run: self.required(self.run.clone(), "run")?,
                seq: self.required(self.seq, "seq")?,
                history: self.history,
            }),
            "pong" => ServerFrame::Pong(proto::Pong {}),
            "joined" => ServerFrame::Joined(proto::Joined::default()),
            "left" => ServerFrame::Left(proto::Left::default()),
            "closed" => ServerFrame::Closed(proto::Closed { code, ..proto::Closed::default() }),
            "error" => ServerFrame::Error(proto::Error { code, ..proto::Error::default() }),
            "bye" => ServerFrame::Bye(proto::Bye { code, ..proto::Bye::default() }),
            other => return Err(format!("kind {other:?}")),
        })
    }

    fn required<T>(&self, field: Option<T>, name: &str) -> Result<T, String> {
        field.ok_or_else(|| format!("a {} without {name}", self.kind))
    }

    /// The fields that a welcome and a page share.
    fn welcome(self, room: String) -> Welcome {
        Welcome {
            room,
            epoch: self.epoch.unwrap_or_default(),
            offset: self.offset.unwrap_or(0),
            reset: self.reset.unwrap_or_default(),
            after: self.after,
            through: self.through,
            ack_within_ms: self.ack_within_ms,
            history: self.history,
            latest: self.latest,
            reliable: self.reliable,
            ..Welcome::default()
        }
    }

    fn counters<J: DeserializeOwned, T>(&self, read: impl Fn(J) -> T) -> Result<BTreeMap<String, T>, String> {
        let spelt = self.counters.iter();
        let read = spelt.map(|(name, value)| Ok((name.clone(), read(serde_json::from_str(value.get())?))));
        read.collect::<serde_json::Result<_>>().map_err(|error| format!("counters: {error}"))
    }
}

#[derive(Debug, Deserialize)]
struct JsonGrowth {
    add: u64,
    total: u64,
}

fn decode_proto(payload: &[u8]) -> Result<ServerFrame, String> {
    let decoded =
        proto::ServerFrame::decode(Bytes::copy_from_slice(payload)).map_err(|error| error.to_string())?;
    let mut frame = decoded.frame.ok_or("a frame without a kind")?;
    let lists = match &mut frame {
        ServerFrame::Welcome(welcome) => [&mut welcome.history, &mut welcome.latest, &mut welcome.reliable],
        ServerFrame::Batch(batch) => [&mut batch.messages, &mut batch.latest, &mut batch.carried],
        ServerFrame::History(piece) => {
            piece.history.iter_mut().for_each(|message| message.count = message.count.max(1));
            return Ok(frame);
        }
        _ => return Ok(frame),
    };
    // An absent count means 1, and the schema's type reads absent as 0.
    lists.into_iter().flatten().for_each(|message| message.count = message.count.max(1));
    Ok(frame)
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
        let text = br#"{"kind":"batch","room":"r","run":"00","seq":7,
            "messages":[{"type":"chat","payload": "a\u0041" ,"at":1}]}"#;
        let Ok(ServerFrame::Batch(batch)) = decode(Encoding::Json, text) else { panic!("a batch") };
        assert_eq!((batch.seq, batch.messages.len()), (7, 1));
        assert_eq!(&batch.messages[0].payload[..], br#""a\u0041""#);
        assert!(batch.messages[0].json && batch.skipped.is_empty());
        assert!(decode(Encoding::Json, br#"{"kind":"batch"}"#).is_err());
        assert!(decode(Encoding::Json, b"\xff").is_err());
    }

    #[test]
    fn both_encodings_say_the_same() {
        let batch = Batch {
            room: "r".into(),
            run: "00".into(),
            seq: 7,
            skipped: BTreeMap::from([("chat".into(), 3)]),
            messages: vec![Message {
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
            "messages":[{"type":"gift","payload":1,"key":"k1","count":12}],
            "counters":{"like":{"add":17,"total":1251}}}"#;
        assert_eq!(decode(Encoding::Proto, &bytes), decode(Encoding::Json, text));
    }

    #[test]
    fn both_encodings_say_the_same_of_the_reliable_stream() {
        let coupon = Message {
            r#type: "coupon".into(),
            payload: Bytes::from_static(b"1"),
            json: true,
            id: "c1".into(),
            offset: 8,
            ..Default::default()
        };
        let recall = Message { r#type: "coupon".into(), offset: 9, recall: 8, ..Default::default() };
        let welcome = Welcome {
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
