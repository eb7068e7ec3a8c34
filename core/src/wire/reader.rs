//! Reads the WebSocket frames that devices send: bytes as they come off the socket in, whole messages out.
//!
//! Pure: no socket, no clock, no log. A reader borrows the shard's scratch and unmasks in place; it owns bytes only
//! while a frame or a fragmented message is half here, so an idle connection costs it two words. What a header
//! announces is compared with the limit and never reserved: memory follows what has arrived.

use std::io::Cursor;
use std::mem;
use std::ops::ControlFlow;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::limits::DEVICE_MESSAGE_BYTES_MAX;

use super::close::CloseReason;

/// What a reader refuses to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderLimits {
    /// Largest message, all its fragments together. Past it: [`CloseReason::TooBig`].
    pub message_bytes_max: usize,
}

impl Default for ReaderLimits {
    fn default() -> Self {
        Self { message_bytes_max: DEVICE_MESSAGE_BYTES_MAX }
    }
}

/// What one frame of a device amounted to. There is exactly one per frame, so whoever counts these counts frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A data frame that is not the end of its message.
    Fragment,
    /// To be answered with a pong of the same bytes, at most 125.
    Ping(&'a [u8]),
    /// An answer to a ping, asked for or not.
    Pong,
    /// The device says goodbye, with its code where it gave one. Nothing follows.
    Close(Option<u16>),
}

/// The reading side of one connection.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Between two messages.
    #[default]
    Whole,
    /// A frame or a message is half here.
    Half(Box<Partial>),
    /// The device closed or misbehaved: whatever else it sends is not read.
    Over,
}

/// A frame whose header has been read and allowed.
#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    payload_bytes: usize,
    arrived_bytes: usize,
}

/// A data message that has begun and not ended.
#[derive(Debug)]
struct OpenMessage {
    kind: Data,
    bytes: Vec<u8>,
    /// Of a text: everything before this is known to be UTF-8. At most three bytes of a character lie behind it.
    utf8_bytes: usize,
}

/// What is half here.
#[derive(Debug, Default)]
struct Partial {
    /// Less than one header.
    header: Vec<u8>,
    frame: Option<OpenFrame>,
    /// Set while no frame is open: a continuation must follow.
    message: Option<OpenMessage>,
    /// Payload of an open control frame.
    control: Vec<u8>,
}

impl Reader {
    /// Reads what came off the socket, and gives each frame that ends in it to `take`, in order. `bytes` is used as
    /// scratch: afterwards it holds nothing of use. How the bytes are cut over calls makes no difference.
    ///
    /// `take` breaks when the connection is to be read no further; the rest of `bytes`, and of later calls, is dropped.
    /// So it is after a close and after an error.
    ///
    /// # Errors
    /// The reason the connection must close with, after `take` has seen everything before the offence:
    /// [`CloseReason::ProtocolError`], [`CloseReason::NotUtf8`] or [`CloseReason::TooBig`].
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        limits: ReaderLimits,
        take: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(), CloseReason> {
        // Over until proven otherwise: each early return below ends the reading.
        let mut partial = match mem::replace(&mut self.state, State::Over) {
            State::Whole => None,
            State::Half(partial) => Some(partial),
            State::Over => return Ok(()),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(mut frame) = open_frame(&mut partial, &mut rest, limits)? else { break };
            let here = frame.missing_bytes().min(rest.len());
            let (payload, after) = mem::take(&mut rest).split_at_mut(here);
            rest = after;
            unmask(payload, frame.mask, frame.arrived_bytes);
            frame.arrived_bytes += here;
            if frame.missing_bytes() > 0 {
                partial.get_or_insert_default().keep(frame, payload, limits)?;
            } else if end_frame(&mut partial, frame, payload, limits, take)?.is_break() {
                return Ok(());
            }
        }
        self.state = partial.filter(|p| !p.is_empty()).map_or(State::Whole, State::Half);
        Ok(())
    }

    /// Heap bytes held for what is half here: never more than the largest message and 512 bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let State::Half(partial) = &self.state else { return 0 };
        let message_bytes = partial.message.as_ref().map_or(0, |m| m.bytes.capacity());
        size_of::<Partial>() + partial.header.capacity() + partial.control.capacity() + message_bytes
    }
}

/// The frame that `rest` continues or begins, its header taken off. `None`: not even the header is all here.
fn open_frame(
    partial: &mut Option<Box<Partial>>,
    rest: &mut &mut [u8],
    limits: ReaderLimits,
) -> Result<Option<OpenFrame>, CloseReason> {
    if let Some(frame) = partial.as_mut().and_then(|p| p.frame.take()) {
        return Ok(Some(frame));
    }
    let kept = partial.as_ref().map_or(0, |p| p.header.len());
    let mut joined = [0; HEADER_BYTES_MAX];
    let head = if kept == 0 {
        &**rest
    } else {
        let more = rest.len().min(HEADER_BYTES_MAX - kept);
        let earlier = partial.as_ref().map_or(&[][..], |p| &p.header);
        joined[..kept].copy_from_slice(earlier);
        joined[kept..kept + more].copy_from_slice(&rest[..more]);
        &joined[..kept + more]
    };
    let mut cursor = Cursor::new(head);
    // The only complaint the parser has over a slice is a reserved opcode.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseReason::ProtocolError)?;
    let Some((header, payload_bytes)) = parsed else {
        let unread = mem::take(rest);
        partial.get_or_insert_default().header.extend_from_slice(unread);
        return Ok(None);
    };
    let header_bytes = usize::try_from(cursor.position()).map_err(|_| CloseReason::ProtocolError)?;
    // RFC 6455 §5.2: the length is written in the fewest bytes.
    if header_bytes != header.len(payload_bytes) {
        return Err(CloseReason::ProtocolError);
    }
    *rest = &mut mem::take(rest)[header_bytes - kept..];
    let message = partial.as_mut().and_then(|p| {
        p.header = Vec::new();
        p.message.as_ref()
    });
    allow(&header, payload_bytes, message, limits).map(Some)
}

/// Judges a header before anything of its payload is kept.
fn allow(
    header: &FrameHeader,
    payload_bytes: u64,
    message: Option<&OpenMessage>,
    limits: ReaderLimits,
) -> Result<OpenFrame, CloseReason> {
    let Some(mask) = header.mask else { return Err(CloseReason::ProtocolError) };
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(CloseReason::ProtocolError);
    }
    let (in_order, bytes_max) = match header.opcode {
        OpCode::Control(_) => (header.is_final && payload_bytes <= CONTROL_BYTES_MAX, usize::MAX),
        OpCode::Data(Data::Continue) => {
            (message.is_some(), limits.message_bytes_max.saturating_sub(message.map_or(0, |m| m.bytes.len())))
        }
        OpCode::Data(_) => (message.is_none(), limits.message_bytes_max),
    };
    if !in_order {
        return Err(CloseReason::ProtocolError);
    }
    let payload_bytes = usize::try_from(payload_bytes).map_err(|_| CloseReason::TooBig)?;
    if payload_bytes > bytes_max {
        return Err(CloseReason::TooBig);
    }
    Ok(OpenFrame { opcode: header.opcode, is_final: header.is_final, mask, payload_bytes, arrived_bytes: 0 })
}

/// Gives a frame whose last bytes are `payload` to `take`.
fn end_frame(
    partial: &mut Option<Box<Partial>>,
    frame: OpenFrame,
    payload: &[u8],
    limits: ReaderLimits,
    take: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, CloseReason> {
    match frame.opcode {
        OpCode::Control(control) => {
            let mut kept = partial.as_mut().map(|p| mem::take(&mut p.control)).unwrap_or_default();
            if kept.is_empty() {
                return end_control(control, payload, take);
            }
            kept.extend_from_slice(payload);
            end_control(control, &kept, take)
        }
        // The everyday path: a whole message in one frame in one read. Nothing is copied.
        OpCode::Data(kind) if frame.is_final && partial.as_ref().is_none_or(|p| p.message.is_none()) => {
            Ok(take(whole(kind, payload)?))
        }
        OpCode::Data(kind) => {
            let partial = partial.get_or_insert_default();
            partial.append(kind, payload, limits)?;
            if !frame.is_final {
                return Ok(take(Incoming::Fragment));
            }
            match partial.message.take() {
                Some(message) => Ok(take(whole(message.kind, &message.bytes)?)),
                None => Err(CloseReason::Internal),
            }
        }
    }
}

fn whole(kind: Data, bytes: &[u8]) -> Result<Incoming<'_>, CloseReason> {
    if kind == Data::Text {
        return str::from_utf8(bytes).map(Incoming::Text).map_err(|_| CloseReason::NotUtf8);
    }
    Ok(Incoming::Binary(bytes))
}

fn end_control(
    control: Control,
    payload: &[u8],
    take: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, CloseReason> {
    match control {
        Control::Ping => Ok(take(Incoming::Ping(payload))),
        Control::Pong => Ok(take(Incoming::Pong)),
        Control::Close => {
            // Whether or not `take` says so, nothing is read after a close.
            let _said: ControlFlow<()> = take(Incoming::Close(close_code(payload)?));
            Ok(ControlFlow::Break(()))
        }
        Control::Reserved(_) => Err(CloseReason::ProtocolError),
    }
}

/// Reads a close frame's payload: nothing, or a code and a reason in UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseReason> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_close_code(code) {
                return Err(CloseReason::ProtocolError);
            }
            str::from_utf8(reason).map_err(|_| CloseReason::NotUtf8)?;
            Ok(Some(code))
        }
        [_] => Err(CloseReason::ProtocolError),
    }
}

/// Whether a close frame may carry this code: RFC 6455 §7.4 and IANA's registry. 1004 to 1006 and 1015 never travel.
#[must_use]
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Takes the mask off bytes that begin `offset` bytes into their frame's payload.
fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut turned = mask;
    turned.rotate_left(offset % 4);
    // Whole words first: this shape becomes vector instructions.
    let (words, tail) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(turned)).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(turned) {
        *byte ^= key;
    }
}

impl OpenFrame {
    fn missing_bytes(&self) -> usize {
        self.payload_bytes - self.arrived_bytes
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    /// Keeps what has arrived of a frame that goes on.
    fn keep(&mut self, frame: OpenFrame, payload: &[u8], limits: ReaderLimits) -> Result<(), CloseReason> {
        self.frame = Some(frame);
        match frame.opcode {
            OpCode::Control(_) => self.control.extend_from_slice(payload),
            OpCode::Data(kind) => self.append(kind, payload, limits)?,
        }
        Ok(())
    }

    /// Adds to the open message, or opens one of this kind. A text fails at the first byte that can't be UTF-8.
    fn append(&mut self, kind: Data, payload: &[u8], limits: ReaderLimits) -> Result<(), CloseReason> {
        let message =
            self.message.get_or_insert_with(|| OpenMessage { kind, bytes: Vec::new(), utf8_bytes: 0 });
        message.reserve(payload.len(), limits);
        message.bytes.extend_from_slice(payload);
        if message.kind == Data::Text {
            match str::from_utf8(&message.bytes[message.utf8_bytes..]) {
                Ok(_) => message.utf8_bytes = message.bytes.len(),
                Err(error) if error.error_len().is_none() => message.utf8_bytes += error.valid_up_to(),
                Err(_) => return Err(CloseReason::NotUtf8),
            }
        }
        Ok(())
    }
}

impl OpenMessage {
    /// Grows by doubling, as a `Vec` does, but never past the largest message.
    fn reserve(&mut self, more: usize, limits: ReaderLimits) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let doubled = (2 * self.bytes.capacity()).min(limits.message_bytes_max);
            self.bytes.reserve_exact(needed.max(doubled) - self.bytes.len());
        }
    }
}

/// Two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// RFC 6455 §5.5.
const CONTROL_BYTES_MAX: u64 = 125;

const _: () = assert!(size_of::<Reader>() <= 16, "what an idle connection pays");

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame. `first` is the byte with the fin bit and the opcode.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0x22, 0x33, 0x44];
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<String>, Result<(), CloseReason>) {
        let mut seen = Vec::new();
        let outcome = Reader::default().feed(&mut bytes.to_vec(), ReaderLimits::default(), &mut |incoming| {
            seen.push(format!("{incoming:?}"));
            ControlFlow::Continue(())
        });
        (seen, outcome)
    }

    fn verdict(bytes: &[u8]) -> Result<(), CloseReason> {
        read(bytes).1
    }

    const PROTOCOL: Result<(), CloseReason> = Err(CloseReason::ProtocolError);

    #[test]
    fn whole_messages_come_out_in_order_and_leave_nothing_behind() {
        let mut bytes =
            [frame(0x81, b"hello"), frame(0x82, &[0, 255]), frame(0x89, b"hi"), frame(0x8a, b"x")].concat();
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        reader
            .feed(&mut bytes, ReaderLimits::default(), &mut |incoming| {
                seen.push(format!("{incoming:?}"));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, [r#"Text("hello")"#, "Binary([0, 255])", "Ping([104, 105])", "Pong"]);
        assert_eq!(reader.held_bytes(), 0);
    }

    #[test]
    fn fragments_are_joined_and_each_is_counted() {
        let euro = "€".as_bytes();
        let parts = [frame(0x01, &euro[..1]), frame(0x89, b""), frame(0x00, b""), frame(0x80, &euro[1..])];
        let (seen, outcome) = read(&parts.concat());
        assert_eq!((seen.join(" "), outcome), ("Fragment Ping([]) Fragment Text(\"€\")".to_owned(), Ok(())));
    }

    #[test]
    fn what_rfc_6455_forbids_is_a_protocol_error() {
        assert_eq!(verdict(&[0x81, 0x01, b'x']), PROTOCOL, "unmasked");
        for reserved in [0xc1, 0xa1, 0x91, 0x83, 0x8b] {
            assert_eq!(verdict(&frame(reserved, b"")), PROTOCOL, "{reserved:x}");
        }
        assert_eq!(verdict(&frame(0x09, b"")), PROTOCOL, "a fragmented ping");
        assert_eq!(verdict(&frame(0x89, &[b'x'; 126])), PROTOCOL, "a ping of 126 bytes");
        assert_eq!(verdict(&frame(0x80, b"x")), PROTOCOL, "a continuation of nothing");
        assert_eq!(
            verdict(&[frame(0x01, b"a"), frame(0x81, b"b")].concat()),
            PROTOCOL,
            "a message in a message"
        );
        assert_eq!(verdict(&[0x81, 0xfe, 0, 1, 0, 0, 0, 0, b'x']), PROTOCOL, "a length in too many bytes");
    }

    #[test]
    fn text_that_cannot_become_utf8_fails_at_the_byte_that_shows_it() {
        assert_eq!(verdict(&frame(0x81, b"\xff")), Err(CloseReason::NotUtf8));
        assert_eq!(verdict(&frame(0x81, b"\xe2\x82")), Err(CloseReason::NotUtf8), "ends inside a character");
        let split = [frame(0x01, b"\xe2\x82"), frame(0x80, b"")].concat();
        assert_eq!(verdict(&split), Err(CloseReason::NotUtf8), "ends inside a character, in fragments");
        let mut early = frame(0x81, b"\xf4\x90 and much more");
        early.truncate(8);
        assert_eq!(verdict(&early), Err(CloseReason::NotUtf8), "two bytes are enough");
    }

    #[test]
    fn a_message_past_the_limit_is_refused_by_its_header() {
        let announced = [0x82, 0xff, 0, 0, 0, 255, 0, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(verdict(&announced), Err(CloseReason::TooBig));
        assert_eq!(verdict(&[&[0x82, 0xff][..], &[255; 12]].concat()), Err(CloseReason::TooBig));
        let most = vec![0; DEVICE_MESSAGE_BYTES_MAX];
        assert_eq!(verdict(&frame(0x82, &most)), Ok(()));
        assert_eq!(verdict(&[frame(0x02, &most), frame(0x80, b"")].concat()), Ok(()));
        assert_eq!(verdict(&[frame(0x02, &most), frame(0x80, b"x")].concat()), Err(CloseReason::TooBig));
    }

    #[test]
    fn a_close_is_checked_and_ends_the_reading() {
        assert_eq!(
            read(&[frame(0x88, b""), frame(0x81, b"x")].concat()),
            (vec!["Close(None)".to_owned()], Ok(()))
        );
        assert_eq!(read(&frame(0x88, b"\x03\xe8bye")).0, ["Close(Some(1000))"]);
        assert_eq!(verdict(&frame(0x88, b"\x03")), PROTOCOL, "half a code");
        assert_eq!(verdict(&frame(0x88, b"\x03\xe8\xff")), Err(CloseReason::NotUtf8));
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(verdict(&frame(0x88, &code.to_be_bytes())), PROTOCOL, "{code}");
        }
    }

    #[test]
    fn a_reader_that_was_broken_off_reads_no_more() {
        let mut reader = Reader::default();
        let mut seen = 0;
        for _ in 0..2 {
            let mut bytes = frame(0x81, b"x").repeat(3);
            reader
                .feed(&mut bytes, ReaderLimits::default(), &mut |_| {
                    seen += 1;
                    ControlFlow::Break(())
                })
                .unwrap();
        }
        assert_eq!(seen, 1);
    }
}
