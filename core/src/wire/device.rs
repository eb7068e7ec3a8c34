//! Frames from devices: acknowledgements, pings, joins and leaves, in both encodings.
//!
//! Pure. The parser checks the spelling of a frame. The shard checks the sense: a room may not be joined, an
//! offset may never have been sent.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use prost::Message as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::limits::{INTEGER_MAX, ROOMS_PER_CONNECTION_MAX};
use crate::room::id::{Cursor, Encoding, Epoch, RoomName, life_number};

use super::close::CloseReason;
use super::ijson::{self, Fault, FaultKind};
use super::reader::Incoming;
use crate::proto;

/// A checked frame from a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceFrame {
    /// The device has applied reliable messages: 1 to [`ROOMS_PER_CONNECTION_MAX`] entries.
    Ack(Vec<Ack>),
    /// The device is alive and expects a pong.
    Ping,
    /// The device joins a further room.
    Join {
        /// The room to join.
        room: RoomName,
        /// Last applied place in the reliable stream. `None`: no earlier visit.
        cursor: Option<Cursor>,
    },
    /// The device leaves a room.
    Leave {
        /// The room to leave.
        room: RoomName,
    },
}

/// Acknowledgement of the reliable messages of one room, up to an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// `None` is allowed while the connection has exactly one room.
    pub room: Option<RoomName>,
    /// Life of the stream that `offset` counts in. `None` is allowed while the connection has exactly one
    /// room.
    pub epoch: Option<Epoch>,
    /// Last applied offset, at most [`INTEGER_MAX`].
    pub offset: u64,
}

/// Mistake in a frame. The device hears the code and the field in an error frame, and stays connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct BadFrame {
    /// Stable code: `bad_frame`, `unknown_kind`, `bad_room`, `bad_cursor` or `too_many_acks`.
    pub code: &'static str,
    /// Field at fault. `None`: the frame as a whole.
    pub field: Option<&'static str>,
}

/// Reaction to a message that is no [`DeviceFrame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The device gets an error frame; the connection lives.
    #[error("answered with the error frame {0}")]
    Answer(BadFrame),
    /// The connection closes.
    #[error("answered with a close: {0:?}")]
    Close(CloseReason),
}

/// Reads one frame. `None`: a fragment or a control frame, without content for a room.
///
/// # Errors
/// [`Refusal::Close`] with [`CloseReason::Unsupported`] for a text message on a binary connection or the
/// reverse. [`Refusal::Answer`] for every other mistake.
pub fn parse(encoding: Encoding, incoming: &Incoming<'_>) -> Result<Option<DeviceFrame>, Refusal> {
    let frame = match (encoding, *incoming) {
        (Encoding::Json, Incoming::Text(text)) => parse_json(text),
        (Encoding::Proto, Incoming::Binary(bytes)) => parse_proto(bytes),
        // The handshake fixed the encoding: every further frame of such a program would fail as well.
        (_, Incoming::Text(_) | Incoming::Binary(_)) => return Err(Refusal::Close(CloseReason::Unsupported)),
        (_, Incoming::Fragment | Incoming::Ping(_) | Incoming::Pong | Incoming::Close(_)) => return Ok(None),
    };
    frame.map(Some).map_err(Refusal::Answer)
}

/// A JSON frame before its checks. Unknown fields are passed over: newer devices talk to older nodes.
#[derive(serde::Deserialize)]
struct SpeltFrame<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    room: Option<String>,
    epoch: Option<String>,
    offset: Option<u64>,
    cursor: Option<String>,
    acks: Option<Vec<Object<SpeltAck>>>,
}

#[derive(serde::Deserialize)]
struct SpeltAck {
    room: Option<String>,
    epoch: Option<String>,
    offset: u64,
}

/// A struct spelt as a JSON object. Serde alone reads an array for a struct as well, field by field in the
/// order of this file. The order is no part of the protocol, so an array is refused.
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
    let Object::<SpeltFrame<'_>>(spelt) = serde_json::from_str(text).map_err(|_| misspelt(text))?;
    let room = spelt.room.as_deref().unwrap_or_default();
    match &*spelt.kind {
        "ack" => {
            // A device in one room spells its only entry at the top, without a list.
            let entries = match (spelt.acks, spelt.offset) {
                (Some(entries), None) => entries,
                (None, Some(offset)) => {
                    vec![Object(SpeltAck { room: spelt.room, epoch: spelt.epoch, offset })]
                }
                // Two spellings at once may contradict each other.
                (Some(_), Some(_)) => return Err(bad_frame(Some("acks"))),
                (None, None) => return Err(bad_frame(Some("offset"))),
            };
            acks(entries.iter().map(|Object(entry)| {
                let room = entry.room.as_deref().unwrap_or_default();
                ack(room, entry.epoch.as_deref().unwrap_or_default(), entry.offset)
            }))
        }
        "ping" => Ok(DeviceFrame::Ping),
        "join" => join(room, spelt.cursor.as_deref().unwrap_or_default()),
        "leave" => Ok(DeviceFrame::Leave { room: room_name(room)? }),
        _ => Err(UNKNOWN_KIND),
    }
}

/// Names the field at fault in a frame that serde refused. Serde's own error has no field.
#[cold]
fn misspelt(text: &str) -> BadFrame {
    let Ok(frame) = serde_json::from_str::<Map<String, Value>>(text) else { return bad_frame(None) };
    // A name that stands twice is lost in a map. The check knows its path.
    if let Err(Fault { kind: FaultKind::RepeatedName, path, .. }) = ijson::check(text.as_bytes()) {
        let name = path.rsplit('.').next().unwrap_or_default();
        return bad_frame(FIELDS.into_iter().find(|field| *field == name));
    }
    let entries = frame.get("acks").and_then(Value::as_array);
    let entries = entries.into_iter().flatten().filter_map(Value::as_object);
    let in_entries = entries.flat_map(|entry| ["room", "epoch", "offset"].map(|field| (entry, field)));
    let at_top = FIELDS.map(|field| (&frame, field));
    // The fields of an entry before the list around it: the name of the list helps less.
    let wrong = at_top.into_iter().filter(|(_, field)| *field != "acks").chain(in_entries);
    let wrong = wrong.chain([(&frame, "acks")]).find(|(object, field)| !fits(object, &frame, field));
    bad_frame(wrong.map(|(_, field)| field))
}

/// True if the value of a field in `object`, the frame or an entry of its list, has the field's form.
fn fits(object: &Map<String, Value>, frame: &Map<String, Value>, field: &str) -> bool {
    let is_entry = !std::ptr::eq(object, frame);
    match (field, object.get(field)) {
        ("kind", kind) => kind.is_some_and(Value::is_string),
        ("offset", None) => !is_entry,
        ("offset", Some(offset)) => offset.is_u64() || (offset.is_null() && !is_entry),
        ("acks", Some(acks)) => {
            acks.is_null() || acks.as_array().is_some_and(|acks| acks.iter().all(Value::is_object))
        }
        (_, None | Some(Value::Null | Value::String(_))) => true,
        _ => false,
    }
}

/// Fields of all frames.
const FIELDS: [&str; 6] = ["kind", "room", "epoch", "offset", "cursor", "acks"];

fn parse_proto(bytes: &[u8]) -> Result<DeviceFrame, BadFrame> {
    use proto::device_frame::Frame;
    let spelt = proto::DeviceFrame::decode(bytes).map_err(|_| bad_frame(None))?;
    // A frame kind of a later version decodes as an absent one.
    match spelt.frame.ok_or(UNKNOWN_KIND)? {
        Frame::Ack(proto::Ack { acks: entries }) => {
            acks(entries.iter().map(|entry| ack(&entry.room, &entry.epoch, entry.offset)))
        }
        Frame::Ping(proto::Ping {}) => Ok(DeviceFrame::Ping),
        Frame::Join(spelt) => join(&spelt.room, &spelt.cursor),
        Frame::Leave(spelt) => Ok(DeviceFrame::Leave { room: room_name(&spelt.room)? }),
    }
}

/// Checks an entry. An empty field counts as left out in both encodings, since proto3 can't tell the two
/// apart.
fn ack(room: &str, epoch: &str, offset: u64) -> Result<Ack, BadFrame> {
    let room = if room.is_empty() { None } else { Some(room_name(room)?) };
    let epoch =
        if epoch.is_empty() { None } else { Some(life_number(epoch).map(Epoch).ok_or(bad_cursor("epoch"))?) };
    // No node ever hands out such an offset: a JSON reader could not hold it exactly.
    if offset > INTEGER_MAX {
        return Err(bad_cursor("offset"));
    }
    Ok(Ack { room, epoch, offset })
}

/// Checks the number of entries first, so that an overlong list costs no check of its names.
fn acks(entries: impl ExactSizeIterator<Item = Result<Ack, BadFrame>>) -> Result<DeviceFrame, BadFrame> {
    match entries.len() {
        0 => Err(bad_frame(Some("acks"))),
        1..=ROOMS_PER_CONNECTION_MAX => Ok(DeviceFrame::Ack(entries.collect::<Result<_, _>>()?)),
        _ => Err(BadFrame { code: "too_many_acks", field: Some("acks") }),
    }
}

fn join(room: &str, cursor: &str) -> Result<DeviceFrame, BadFrame> {
    let cursor = match cursor {
        // Left out: the device joins the room for the first time.
        "" => None,
        given => Some(Cursor::parse(given).map_err(|_| bad_cursor("cursor"))?),
    };
    Ok(DeviceFrame::Join { room: room_name(room)?, cursor })
}

fn room_name(text: &str) -> Result<RoomName, BadFrame> {
    RoomName::parse(text).map_err(|_| BadFrame { code: "bad_room", field: Some("room") })
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
    fn a_misspelt_frame_names_its_field() {
        for (text, field) in [
            (r#"{"kind":"ack","offset":"8"}"#, "offset"),
            (r#"{"kind":"ack","offset":-1}"#, "offset"),
            (r#"{"kind":"ack","offset":1.5}"#, "offset"),
            (r#"{"kind":"ack","offset":1e3}"#, "offset"),
            (r#"{"kind":"join","room":7}"#, "room"),
            (r#"{"kind":"join","room":"r1","cursor":[]}"#, "cursor"),
            (r#"{"kind":"ack","offset":1,"epoch":{}}"#, "epoch"),
            (r#"{"kind":"ack","acks":{}}"#, "acks"),
            (r#"{"kind":"ack","acks":[1]}"#, "acks"),
            (r#"{"kind":"ack","acks":[["r1",null,1]]}"#, "acks"),
            (r#"{"kind":"ack","acks":[{"offset":1},{"offset":"2"}]}"#, "offset"),
            (r#"{"kind":"ack","acks":[{"room":"r1"}]}"#, "offset"),
            (r#"{"kind":"ack","acks":[{"offset":1,"room":1}]}"#, "room"),
            (r#"{"kind":7}"#, "kind"),
            (r#"{"kind":null}"#, "kind"),
            ("{}", "kind"),
            (r#"{"kind":"ping","kind":"ping"}"#, "kind"),
            (r#"{"kind":"ack","acks":[{"offset":1,"offset":2}]}"#, "offset"),
            ("{", ""),
            ("[]", ""),
            ("7", ""),
        ] {
            assert_eq!(refused(text), ("bad_frame", field), "{text}");
        }
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
        assert_eq!(refused("{}"), ("bad_frame", "kind"));
        assert_eq!(refused(r#"{"kind":"ping"} x"#), ("bad_frame", ""));
        for no_object in [r#"["ping"]"#, r#"["leave","r1"]"#, r#""ping""#, "7", "null"] {
            assert_eq!(refused(no_object), ("bad_frame", ""), "{no_object}");
        }
        let entry = r#"{"kind":"ack","acks":[["r1","00000000000000ff",1]]}"#;
        assert_eq!(refused(entry), ("bad_frame", "acks"));
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
