//! The frames devices get, WebSocket header and all: immutable bytes that any number of sockets share.
//!
//! A batch is encoded once per encoding in use. Its *body* (messages, counters, merged) knows no device; a level
//! frame is a header in front of it, a composed frame has more between header and body. Server frames are never
//! masked or fragmented (RFC 6455 §5.1, §5.4).

mod json;
mod proto;

use bytes::{Bytes, BytesMut};

use super::close::CloseReason;
use crate::room::id::{Encoding, RoomName, Run, Seq};
use crate::room::message::Message;
use crate::room::{Batch, Carried, Opening, Refresh, Snapshot};

/// The largest WebSocket header a server sends: two bytes and a length of eight.
const HEADER_BYTES_MAX: usize = 10;
/// What a protobuf frame has before its fields: the tag of the frame's kind and a length of at most five bytes.
const OUTER_BYTES_MAX: usize = 6;
/// FIN and opcode 1: a whole text message.
const TEXT: u8 = 0x81;
/// FIN and opcode 2: a whole binary message.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// A batch frame's head: which room, in which life, up to which batch.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The room.
    pub room: &'a RoomName,
    /// Its life.
    pub run: Run,
    /// The seq a device has after this frame.
    pub seq: Seq,
}

/// A frame that answers or tells one device something, rather than bringing a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Answers a ping of the protocol's own.
    Pong,
    /// A further room was joined; its welcome follows.
    Joined(&'a RoomName),
    /// A room was left.
    Left(&'a RoomName),
    /// A room was closed by its publisher.
    Closed(&'a RoomName),
    /// Something the device asked for can't be had.
    Error {
        /// Stable.
        code: &'static str,
        /// Which room it was about.
        room: Option<&'a RoomName>,
        /// Which field of the device's frame.
        field: Option<&'static str>,
    },
    /// The node is going away.
    Bye,
}

/// The size of a message in the larger of the two encodings, with what separates it from the next. A reliable one has
/// room for the largest offset and recall: it is sized before it has them.
#[must_use]
pub fn message_bytes(message: &Message) -> usize {
    json::message_bytes(message).max(proto::message_bytes(message))
}

/// The frame for members that hold everything up to the batch before.
#[must_use]
pub fn level(head: Head<'_>, batch: &Batch, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::level(head, batch),
        Encoding::Proto => proto::level(head, batch),
    }
}

/// The frame that brings members which missed batches up to `head.seq`; it has no messages.
#[must_use]
pub fn refresh(head: Head<'_>, refresh: &Refresh, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::refresh(head, refresh),
        Encoding::Proto => proto::refresh(head, refresh),
    }
}

/// The frame that brings reliable messages beside the batches, to members that hold everything up to `head.seq`
/// otherwise; it has no messages of a batch.
#[must_use]
pub fn carry(head: Head<'_>, carried: &Carried, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::carry(head, carried),
        Encoding::Proto => proto::carry(head, carried),
    }
}

/// What the carried messages take at most.
fn carried_bytes(carried: &Carried) -> usize {
    carried.messages.iter().map(|message| message.wire_bytes).sum()
}

/// What a welcome says beside the room's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// How often the device is to ping.
    pub heartbeat_ms: u32,
    /// The history continues exactly where it left off.
    pub resumed: bool,
    /// Why its cursor was not honoured.
    pub reset: Option<&'static str>,
}

/// The first frame of a room. Without a stream in the snapshot it has neither epoch nor offset nor span.
#[must_use]
pub fn welcome(head: Head<'_>, greeting: Greeting, snapshot: &Snapshot, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::welcome(head, greeting, snapshot),
        Encoding::Proto => proto::welcome(head, greeting, snapshot),
    }
}

/// A frame for one device.
#[must_use]
pub fn notice(notice: Notice<'_>, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::notice(notice),
        Encoding::Proto => proto::notice(notice),
    }
}

/// A history page for the pull side, JSON without a WebSocket header.
#[must_use]
pub fn history_page(head: Head<'_>, resumed: bool, snapshot: &Snapshot) -> Bytes {
    json::history_page(head, resumed, snapshot)
}

/// A part of the reliable stream for the pull side, JSON without a WebSocket header; `reset` says why the cursor was not
/// honoured.
#[must_use]
pub fn reliable_page(room: &RoomName, opening: &Opening, reset: Option<&str>) -> Bytes {
    json::reliable_page(room, opening, reset)
}

/// The WebSocket close frame of a reason; `None` where nothing is sent.
#[must_use]
pub fn close(reason: CloseReason) -> Option<Bytes> {
    let code = reason.code()?;
    let mut frame = Draft::new(CLOSE);
    frame.bytes.extend_from_slice(&code.to_be_bytes());
    frame.bytes.extend_from_slice(reason.name().as_bytes());
    Some(frame.finish())
}

/// The WebSocket pong that answers a WebSocket ping. `payload` is at most 125 bytes, as in any control frame.
#[must_use]
pub fn websocket_pong(payload: &[u8]) -> Bytes {
    let mut frame = Draft::new(PONG);
    frame.bytes.extend_from_slice(payload);
    frame.finish()
}

/// A frame being written: the payload grows behind room for the largest header, and `finish` puts the header right
/// before it. So nothing is copied once its length is known.
struct Draft {
    opcode: u8,
    bytes: BytesMut,
}

const HEADER_ROOM: usize = HEADER_BYTES_MAX + OUTER_BYTES_MAX;

impl Draft {
    fn new(opcode: u8) -> Self {
        Self { opcode, bytes: BytesMut::zeroed(HEADER_ROOM) }
    }

    fn with_capacity(opcode: u8, capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER_ROOM + capacity);
        bytes.resize(HEADER_ROOM, 0);
        Self { opcode, bytes }
    }

    fn finish(self) -> Bytes {
        self.finish_behind(&[])
    }

    /// Ends the frame with `outer` between its header and what was written.
    fn finish_behind(mut self, outer: &[u8]) -> Bytes {
        let payload = self.bytes.len() - HEADER_ROOM + outer.len();
        let mut header = [0_u8; HEADER_BYTES_MAX];
        header[0] = self.opcode;
        let header_bytes = match (u8::try_from(payload), u16::try_from(payload)) {
            (Ok(short), _) if short < 126 => {
                header[1] = short;
                2
            }
            (_, Ok(medium)) => {
                header[1] = 126;
                header[2..4].copy_from_slice(&medium.to_be_bytes());
                4
            }
            _ => {
                header[1] = 127;
                header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        let start = HEADER_ROOM - outer.len() - header_bytes;
        let written = &mut self.bytes[start..HEADER_ROOM];
        written[..header_bytes].copy_from_slice(&header[..header_bytes]);
        written[header_bytes..].copy_from_slice(outer);
        self.bytes.freeze().slice(start..)
    }
}
