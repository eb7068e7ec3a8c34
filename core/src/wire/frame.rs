//! Frames to devices, WebSocket header included: immutable bytes, shared by any number of sockets.
//!
//! A batch is encoded once per encoding in use. The *body* of a batch (messages, counters, merged) knows no
//! device. A level frame is a header in front of the body. A composed frame has further fields between header
//! and body. Server frames are never masked or fragmented (RFC 6455 §5.1, §5.4).
//!
//! Layout: `0x81 or 0x82 ‖ length in 1, 3 or 9 bytes ‖ payload`. Example: a payload of 300 bytes has the
//! header `81 7e 01 2c`.

mod json;
mod proto;

pub use self::json::{history_page, reliable_page};

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::close::CloseReason;
use crate::limits::CLOSE_TEXT_BYTES_MAX;
use crate::room::counters::CounterChange;
use crate::room::history::Past;
use crate::room::id::{Encoding, RoomName, Run, Seq, TypeName};
use crate::room::message::Message;
use crate::room::{Batch, Carried, Refresh, Snapshot, Span};

/// Largest WebSocket header of a server frame: two bytes and a length of eight (RFC 6455 §5.2).
const HEADER_BYTES_MAX: usize = 10;
/// Bytes before the fields of a protobuf frame: the tag of the frame's kind, and a length of at most five
/// bytes.
const OUTER_BYTES_MAX: usize = 6;
/// Buffer room for the fields beside the messages: a head, a span and some counts. A larger frame grows the
/// buffer.
const FIELDS_ROOM: usize = 256;
/// FIN and opcode 1: a whole text message.
const TEXT: u8 = 0x81;
/// FIN and opcode 2: a whole binary message.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// Head of a frame of a room: room, run and seq.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Name of the room.
    pub room: &'a RoomName,
    /// Life of the room that `seq` counts in.
    pub run: Run,
    /// Seq of a member after the frame.
    pub seq: Seq,
}

/// Content of a frame for one device: an answer or a piece of news, without a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Answer to a `ping` frame of the protocol. A WebSocket ping gets [`websocket_pong`].
    Pong,
    /// The connection has joined a further room; the welcome of the room follows.
    Joined(&'a RoomName),
    /// The connection has left a room.
    Left(&'a RoomName),
    /// The publisher closed a room.
    Closed(&'a RoomName),
    /// A request of the device failed; the connection lives.
    Error {
        /// Stable code, for programs.
        code: &'static str,
        /// Room of the request, if the request named one.
        room: Option<&'a RoomName>,
        /// Field at fault in the device's frame.
        field: Option<&'static str>,
    },
    /// The node is going away.
    Bye,
    /// The device's fresh token is taken.
    TokenTaken {
        /// End of the token, in seconds since 1970. `None`: the door has no keys.
        expires_s: Option<u64>,
    },
}

/// Bytes of a message in the larger of the two encodings, separator included: an upper bound.
///
/// The door sizes a message before the home assigns time, offset and recall. So a reliable message has room
/// for the largest offset and recall, and a message of a summed type has room for the largest count.
pub fn message_bytes(message: &Message) -> usize {
    json::message_bytes(message).max(proto::message_bytes(message))
}

/// Level frame: takes members from `head.seq - 1` to `head.seq`.
pub fn level(head: Head<'_>, batch: &Batch, encoding: Encoding) -> Bytes {
    let fields = BatchFields {
        span: batch.span,
        skipped: &batch.skipped,
        messages: &batch.messages,
        merged: &batch.merged,
        counters: &batch.counters,
        ..BatchFields::default()
    };
    fields.encode(head, encoding)
}

/// Refresh: takes members from an earlier seq to `head.seq`, without the messages of the missed batches.
pub fn refresh(head: Head<'_>, refresh: &Refresh, encoding: Encoding) -> Bytes {
    let fields = BatchFields {
        skipped: &refresh.missed.skipped,
        latest: &refresh.latest,
        merged: &refresh.missed.merged,
        counters: &refresh.counters,
        ..refresh.carried.as_ref().map_or_else(BatchFields::default, BatchFields::of_carried)
    };
    fields.encode(head, encoding)
}

/// Carry: repeats reliable messages for members at `head.seq`, without the messages of a batch.
pub fn carry(head: Head<'_>, carried: &Carried, encoding: Encoding) -> Bytes {
    BatchFields::of_carried(carried).encode(head, encoding)
}

/// Fields of a batch frame behind the head. Each kind of batch frame leaves out most of them.
#[derive(Default)]
struct BatchFields<'a> {
    span: Option<Span>,
    /// Alive reliable messages of the span, repeated. A span without any still moves the device's cursor.
    carried: &'a [Arc<Message>],
    skipped: &'a [(TypeName, u64)],
    latest: &'a [Arc<Message>],
    messages: &'a [Arc<Message>],
    merged: &'a [(TypeName, u64)],
    counters: &'a [CounterChange],
}

impl<'a> BatchFields<'a> {
    fn of_carried(carried: &'a Carried) -> Self {
        Self { span: Some(carried.span), carried: &carried.messages, ..Self::default() }
    }

    fn encode(&self, head: Head<'_>, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Json => json::batch(head, self),
            Encoding::Proto => proto::batch(head, self),
        }
    }

    /// Buffer room for the frame: an upper bound of the messages, and a guess of the rest.
    fn capacity(&self) -> usize {
        let messages = self.messages.iter().chain(self.carried).chain(self.latest);
        messages.map(|message| message.wire_bytes).sum::<usize>() + FIELDS_ROOM
    }
}

/// Fields of a welcome beside the room's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// Interval of the device's pings, in milliseconds.
    pub heartbeat_ms: u32,
    /// The history continues exactly at the device's `seen`, without a gap.
    pub resumed: bool,
    /// Reason for a cursor that was not honoured: `epoch_changed`, `ahead` or `expired`.
    pub reset: Option<&'static str>,
}

/// Welcome: the first frame of a room. A snapshot without a stream leaves out epoch, offset and span: the
/// store does not answer yet.
pub fn welcome(head: Head<'_>, greeting: Greeting, snapshot: &Snapshot, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::welcome(head, greeting, snapshot),
        Encoding::Proto => proto::welcome(head, greeting, snapshot),
    }
}

/// Piece of history: messages of earlier batches, each with its seq. The frame moves neither the seq nor the
/// cursor of a device.
#[must_use]
pub fn history(head: Head<'_>, history: &[Past], encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::history_piece(head, history),
        Encoding::Proto => proto::history_piece(head, history),
    }
}

/// Frame of a notice.
pub fn notice(notice: Notice<'_>, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Json => json::notice(notice),
        Encoding::Proto => proto::notice(notice),
    }
}

/// WebSocket close frame of a reason. `None` for a reason without a code.
pub fn close(reason: CloseReason) -> Option<Bytes> {
    Some(close_frame(reason.code()?, reason.name()))
}

/// WebSocket close frame of [`CloseReason::Elsewhere`], with the URL of the other node as its text. A URL
/// above [`CLOSE_TEXT_BYTES_MAX`] is left out.
pub fn close_elsewhere(url: &str) -> Option<Bytes> {
    let reason = CloseReason::Elsewhere;
    let text = if url.len() <= CLOSE_TEXT_BYTES_MAX { url } else { reason.name() };
    Some(close_frame(reason.code()?, text))
}

/// `text` has at most [`CLOSE_TEXT_BYTES_MAX`].
fn close_frame(code: u16, text: &str) -> Bytes {
    let mut frame = FrameDraft::new(CLOSE, 0);
    frame.bytes.extend_from_slice(&code.to_be_bytes());
    frame.bytes.extend_from_slice(text.as_bytes());
    frame.finish()
}

/// WebSocket pong with the payload of the ping, at most 125 bytes (RFC 6455 §5.5).
pub fn websocket_pong(payload: &[u8]) -> Bytes {
    let mut frame = FrameDraft::new(PONG, 0);
    frame.bytes.extend_from_slice(payload);
    frame.finish()
}

/// Frame under construction: the payload grows behind room for the largest header, and `finish` writes the
/// header directly before the payload. So a known length costs no copy.
struct FrameDraft {
    opcode: u8,
    bytes: BytesMut,
}

const HEADER_ROOM: usize = HEADER_BYTES_MAX + OUTER_BYTES_MAX;

impl FrameDraft {
    /// A frame without a payload, with room for `capacity` bytes of it.
    fn new(opcode: u8, capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER_ROOM + capacity);
        bytes.resize(HEADER_ROOM, 0);
        Self { opcode, bytes }
    }

    fn finish(self) -> Bytes {
        self.finish_behind(&[])
    }

    /// Ends the frame, with `outer` between header and payload.
    fn finish_behind(mut self, outer: &[u8]) -> Bytes {
        let payload = self.bytes.len() - HEADER_ROOM + outer.len();
        let mut header = [0_u8; HEADER_BYTES_MAX];
        header[0] = self.opcode;
        // RFC 6455 §5.2: the length takes the fewest bytes; 126 and 127 announce a longer form.
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
        // The unused room before the header stays allocated: at most 14 bytes a frame.
        self.bytes.freeze().slice(start..)
    }
}
