//! What a device may say: acknowledgements, pings, joins and leaves, in either encoding.
//!
//! Pure. It checks spelling, never sense: whether a room is joined or an offset was ever sent is the shard's to know.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use prost::Message as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::limits::{INTEGER_MAX, ROOMS_PER_CONNECTION_MAX};
use crate::room::id::{Cursor, Encoding, Epoch, RoomName};

use super::close::CloseReason;
use super::reader::Incoming;
use crate::proto;

/// One frame of a device, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceFrame {
    /// It has applied reliable messages: 1 to [`ROOMS_PER_CONNECTION_MAX`] entries.
    Ack(Vec<Ack>),
    /// It lives, and wants a pong.
    Ping,
    /// It wants to hear a further room.
    Join {
        /// Which one.
        room: RoomName,
        /// Where it left off.
        cursor: Option<Cursor>,
    },
    /// It wants to hear a room no longer.
    Leave {
        /// Which one.
        room: RoomName,
    },
}

/// Up to where a device has applied the reliable messages of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// May be left out while one room is joined.
    pub room: Option<RoomName>,
    /// May be left out while one room is joined.
    pub epoch: Option<Epoch>,
    /// The last offset applied.
    pub offset: u64,
}

/// Why a frame was not understood. The device hears it in an error frame and stays connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct BadFrame {
    /// `bad_frame`, `unknown_kind`, `bad_room`, `bad_cursor` or `too_many_acks`.
    pub code: &'static str,
    /// The field at fault, where it is one.
    pub field: Option<&'static str>,
}

/// What a message that is no [`DeviceFrame`] leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An error frame; the connection lives.
    #[error("an error frame: {0}")]
    Answer(BadFrame),
    /// The connection closes.
    #[error("a close: {0:?}")]
    Close(CloseReason),
}

/// Reads one frame. `None` for what addresses no room: fragments and control frames.
///
/// # Errors
/// [`Refusal::Close`] with [`CloseReason::Unsupported`] for the other encoding's kind of message, else
/// [`Refusal::Answer`].
pub fn parse(encoding: Encoding, incoming: &Incoming<'_>) -> Result<Option<DeviceFrame>, Refusal> {
    let frame = match (encoding, *incoming) {
        (Encoding::Json, Incoming::Text(text)) => parse_json(text),
        (Encoding::Proto, Incoming::Binary(bytes)) => parse_proto(bytes),
        (_, Incoming::Text(_) | Incoming::Binary(_)) => return Err(Refusal::Close(CloseReason::Unsupported)),
        (_, Incoming::Fragment | Incoming::Ping(_) | Incoming::Pong | Incoming::Close(_)) => return Ok(None),
    };
    frame.map(Some).map_err(Refusal::Answer)
}

/// A JSON frame as it is spelt. Fields it does not know are passed over, so that newer devices can talk to older nodes.
#[derive(serde::Deserialize)]
struct SpeltFrame<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    epoch: Option<Cow<'a, str>>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(borrow, default)]
    cursor: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    acks: Option<Vec<Object<SpeltAck<'a>>>>,
}

#[derive(serde::Deserialize)]
struct SpeltAck<'a> {
    #[serde(borrow, default)]
    room: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    epoch: Option<Cow<'a, str>>,
    offset: u64,
}

/// A struct that is spelt as an object. Serde alone would read an array for one as well, field by field in this file's
/// order, and that order is no part of the protocol.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

fn parse_json(text: &str) -> Result<DeviceFrame, BadFrame> {
    let Object::<SpeltFrame<'_>>(spelt) = serde_json::from_str(text).map_err(|_| bad_frame(None))?;
    let room = spelt.room.as_deref().unwrap_or_default();
    match &*spelt.kind {
        "ack" => {
            let entries = match (spelt.acks, spelt.offset) {
                (Some(entries), None) => entries,
                (None, Some(offset)) => {
                    vec![Object(SpeltAck { room: spelt.room, epoch: spelt.epoch, offset })]
                }
                (Some(_), Some(_)) => return Err(bad_frame(Some("acks"))),
                (None, None) => return Err(bad_frame(Some("offset"))),
            };
            acks(
                entries.len(),
                entries.iter().map(|Object(entry)| {
                    ack(
                        entry.room.as_deref().unwrap_or_default(),
                        entry.epoch.as_deref().unwrap_or_default(),
                        entry.offset,
                    )
                }),
            )
        }
        "ping" => Ok(DeviceFrame::Ping),
        "join" => join(room, spelt.cursor.as_deref().unwrap_or_default()),
        "leave" => Ok(DeviceFrame::Leave { room: room_name(room)? }),
        _ => Err(UNKNOWN_KIND),
    }
}

fn parse_proto(bytes: &[u8]) -> Result<DeviceFrame, BadFrame> {
    use proto::device_frame::Frame;
    let spelt = proto::DeviceFrame::decode(bytes).map_err(|_| bad_frame(None))?;
    match spelt.frame.ok_or(UNKNOWN_KIND)? {
        Frame::Ack(proto::Ack { acks: entries }) => {
            acks(entries.len(), entries.iter().map(|entry| ack(&entry.room, &entry.epoch, entry.offset)))
        }
        Frame::Ping(proto::Ping {}) => Ok(DeviceFrame::Ping),
        Frame::Join(spelt) => join(&spelt.room, &spelt.cursor),
        Frame::Leave(spelt) => Ok(DeviceFrame::Leave { room: room_name(&spelt.room)? }),
    }
}

/// An empty field counts as left out, in both encodings.
fn ack(room: &str, epoch: &str, offset: u64) -> Result<Ack, BadFrame> {
    let room = if room.is_empty() { None } else { Some(room_name(room)?) };
    let epoch = if epoch.is_empty() { None } else { Some(epoch_of(epoch)?) };
    if offset > INTEGER_MAX {
        return Err(bad_cursor("offset"));
    }
    Ok(Ack { room, epoch, offset })
}

fn acks(count: usize, entries: impl Iterator<Item = Result<Ack, BadFrame>>) -> Result<DeviceFrame, BadFrame> {
    match count {
        0 => Err(bad_frame(Some("acks"))),
        1..=ROOMS_PER_CONNECTION_MAX => Ok(DeviceFrame::Ack(entries.collect::<Result<_, _>>()?)),
        _ => Err(BadFrame { code: "too_many_acks", field: Some("acks") }),
    }
}

fn join(room: &str, cursor: &str) -> Result<DeviceFrame, BadFrame> {
    let cursor = match cursor {
        "" => None,
        given => Some(Cursor::parse(given).map_err(|_| bad_cursor("cursor"))?),
    };
    Ok(DeviceFrame::Join { room: room_name(room)?, cursor })
}

fn room_name(text: &str) -> Result<RoomName, BadFrame> {
    RoomName::parse(text).map_err(|_| BadFrame { code: "bad_room", field: Some("room") })
}

/// Sixteen hexadecimal digits.
fn epoch_of(text: &str) -> Result<Epoch, BadFrame> {
    let spelt = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = if spelt { u64::from_str_radix(text, 16).ok() } else { None };
    number.map(Epoch).ok_or(bad_cursor("epoch"))
}

const fn bad_frame(field: Option<&'static str>) -> BadFrame {
    BadFrame { code: "bad_frame", field }
}

const fn bad_cursor(field: &'static str) -> BadFrame {
    BadFrame { code: "bad_cursor", field: Some(field) }
}

const UNKNOWN_KIND: BadFrame = BadFrame { code: "unknown_kind", field: Some("kind") };

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<DeviceFrame, BadFrame> {
        parse_json(text)
    }

    fn refused(text: &str) -> (&'static str, &'static str) {
        let bad = json(text).unwrap_err();
        (bad.code, bad.field.unwrap_or(""))
    }

    fn proto_of(frame: proto::device_frame::Frame) -> Result<DeviceFrame, BadFrame> {
        parse_proto(&proto::DeviceFrame { frame: Some(frame) }.encode_to_vec())
    }

    #[test]
    fn both_encodings_say_the_same() {
        use proto::device_frame::Frame;
        let entry = |room: &str, offset| proto::AckEntry {
            room: room.into(),
            epoch: "00000000000000ff".into(),
            offset,
        };
        assert_eq!(
            json(r#"{"kind":"ack","room":"r1","epoch":"00000000000000FF","offset":8}"#),
            proto_of(Frame::Ack(proto::Ack { acks: vec![entry("r1", 8)] }))
        );
        assert_eq!(
            json(
                r#"{"kind":"ack","acks":[{"room":"a","epoch":"00000000000000ff","offset":1},{"offset":2}]}"#
            ),
            proto_of(Frame::Ack(proto::Ack {
                acks: vec![entry("a", 1), proto::AckEntry { offset: 2, ..Default::default() }]
            }))
        );
        assert_eq!(json(r#"{"kind":"ping"}"#), proto_of(Frame::Ping(proto::Ping {})));
        let cursor = "00000000000000ff:7";
        assert_eq!(
            json(&format!(r#"{{"kind":"join","room":"r2","cursor":"{cursor}"}}"#)),
            proto_of(Frame::Join(proto::Join { room: "r2".into(), cursor: cursor.into() }))
        );
        assert_eq!(
            json(r#"{"kind":"join","room":"r2","cursor":null}"#),
            proto_of(Frame::Join(proto::Join { room: "r2".into(), cursor: String::new() }))
        );
        assert_eq!(
            json(r#"{"kind":"leave","room":"r2"}"#),
            proto_of(Frame::Leave(proto::Leave { room: "r2".into() }))
        );
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        assert_eq!(json(r#"{"since":[{"x":1}],"kind":"ping"}"#), Ok(DeviceFrame::Ping));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(refused("{}"), ("bad_frame", ""));
        assert_eq!(refused(r#"{"kind":"ping"} x"#), ("bad_frame", ""));
        for no_object in [r#"["ping"]"#, r#"["leave","r1"]"#, r#""ping""#, "7", "null"] {
            assert_eq!(refused(no_object), ("bad_frame", ""), "{no_object}");
        }
        let entry = r#"{"kind":"ack","acks":[["r1","00000000000000ff",1]]}"#;
        assert_eq!(refused(entry), ("bad_frame", ""));
        assert_eq!(refused(r#"{"kind":"shout"}"#), ("unknown_kind", "kind"));
        assert_eq!(refused(r#"{"kind":"join"}"#), ("bad_room", "room"));
        assert_eq!(refused(r#"{"kind":"leave","room":"a/b"}"#), ("bad_room", "room"));
        assert_eq!(refused(r#"{"kind":"join","room":"r","cursor":"7"}"#), ("bad_cursor", "cursor"));
        assert_eq!(refused(r#"{"kind":"ack"}"#), ("bad_frame", "offset"));
        assert_eq!(refused(r#"{"kind":"ack","epoch":"ff","offset":1}"#), ("bad_cursor", "epoch"));
        assert_eq!(refused(r#"{"kind":"ack","offset":9007199254740992}"#), ("bad_cursor", "offset"));
        assert_eq!(refused(r#"{"kind":"ack","acks":[]}"#), ("bad_frame", "acks"));
        assert_eq!(refused(r#"{"kind":"ack","offset":1,"acks":[{"offset":1}]}"#), ("bad_frame", "acks"));
        let many = vec![r#"{"offset":1}"#; ROOMS_PER_CONNECTION_MAX + 1].join(",");
        assert_eq!(refused(&format!(r#"{{"kind":"ack","acks":[{many}]}}"#)), ("too_many_acks", "acks"));
        assert_eq!(parse_proto(b"").unwrap_err(), UNKNOWN_KIND);
        assert_eq!(parse_proto(b"\xff").unwrap_err().code, "bad_frame");
    }

    #[test]
    fn the_other_encodings_message_closes_the_connection() {
        let closed = Err(Refusal::Close(CloseReason::Unsupported));
        assert_eq!(parse(Encoding::Json, &Incoming::Binary(b"")), closed);
        assert_eq!(parse(Encoding::Proto, &Incoming::Text("")), closed);
        assert_eq!(parse(Encoding::Json, &Incoming::Fragment), Ok(None));
    }
}
