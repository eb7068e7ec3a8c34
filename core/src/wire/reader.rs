//! WebSocket frames from devices: bytes of a socket in, whole messages out (RFC 6455).
//!
//! Pure: no socket, no clock, no log. A reader borrows the shard's scratch and unmasks in place. Only a
//! partial frame or a partial message owns bytes, so an idle connection costs two words. A header's length is
//! compared with the limit and never reserved: memory follows the bytes that have arrived.

use std::io::Cursor;
use std::mem;
use std::ops::ControlFlow;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::CloseReason;

/// Content of one frame. Each frame gives exactly one value, so the shard counts frames by counting values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A data frame before the last one of a message.
    Fragment,
    /// A ping; the answer is a pong with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong, with or without a ping before.
    Pong,
    /// A close, with the device's code if the frame has one. No value follows.
    Close(Option<u16>),
}

/// Reading side of one connection.
#[derive(Debug, Default)]
pub struct FrameReader {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Between two messages.
    #[default]
    Whole,
    /// Inside a frame or a fragmented message.
    Half(Box<Partial>),
    /// After a close or an error: further bytes are dropped unread.
    Over,
}

/// A frame after its header was read and allowed.
#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    payload_bytes: usize,
    arrived_bytes: usize,
}

/// A data message between the first and the last byte.
#[derive(Debug)]
struct OpenMessage {
    kind: Data,
    bytes: Vec<u8>,
    /// Bytes of a text that are checked UTF-8. At most three bytes follow: the begin of a character.
    utf8_bytes: usize,
}

#[derive(Debug, Default)]
struct Partial {
    /// Less than a whole header.
    header: Vec<u8>,
    frame: Option<OpenFrame>,
    /// A begun message. Between two fragments no frame is open, and a continuation must follow.
    message: Option<OpenMessage>,
    /// Payload of an open control frame. Kept apart, since a control frame may stand between two fragments.
    control: Vec<u8>,
}

impl FrameReader {
    /// Reads bytes of the socket, and gives each frame ending in `bytes` to `take`, in order. The result is
    /// the same however the socket cuts the stream. `bytes` is scratch: the call unmasks in place and leaves
    /// rubbish.
    ///
    /// `message_bytes_max` bounds a message, all fragments together. Above: [`CloseReason::TooBig`].
    ///
    /// A break of `take` ends the reading: the rest of `bytes` and of later calls is dropped. A close and an
    /// error end the reading as well.
    ///
    /// # Errors
    /// The reason to close the connection with: [`CloseReason::ProtocolError`], [`CloseReason::NotUtf8`] or
    /// [`CloseReason::TooBig`]. `take` has seen every frame before the offence.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        message_bytes_max: usize,
        take: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(), CloseReason> {
        // Over until the end of this function: each early return below ends the reading for good.
        let mut partial = match mem::replace(&mut self.state, State::Over) {
            State::Whole => Partial::default(),
            State::Half(partial) => *partial,
            State::Over => return Ok(()),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            // The header is not whole yet, and `open_frame` has kept all the bytes.
            let Some(mut frame) = partial.open_frame(&mut rest, message_bytes_max)? else { break };
            let here = frame.missing_bytes().min(rest.len());
            let (payload, after) = mem::take(&mut rest).split_at_mut(here);
            rest = after;
            unmask(payload, frame.mask, frame.arrived_bytes);
            frame.arrived_bytes += here;
            if frame.missing_bytes() > 0 {
                partial.keep(frame, payload, message_bytes_max)?;
            } else if partial.end_frame(frame, payload, message_bytes_max, take)?.is_break() {
                return Ok(());
            }
        }
        // An empty `Partial` is not kept, so that an idle connection owns nothing.
        let is_whole = partial.header.is_empty() && partial.frame.is_none() && partial.message.is_none();
        self.state = if is_whole { State::Whole } else { State::Half(Box::new(partial)) };
        Ok(())
    }

    /// Heap bytes of a partial frame or message: at most the largest message and 512 bytes.
    pub fn held_bytes(&self) -> usize {
        let State::Half(partial) = &self.state else { return 0 };
        let message_bytes = partial.message.as_ref().map_or(0, |m| m.bytes.capacity());
        size_of::<Partial>() + partial.header.capacity() + partial.control.capacity() + message_bytes
    }
}

/// Checks a header before any byte of the payload is kept.
fn allow(
    header: &FrameHeader,
    payload_bytes: u64,
    message: Option<&OpenMessage>,
    message_bytes_max: usize,
) -> Result<OpenFrame, CloseReason> {
    // RFC 6455 §5.1: a device masks every frame.
    let Some(mask) = header.mask else { return Err(CloseReason::ProtocolError) };
    // RFC 6455 §5.2: reserved bits belong to extensions, and none was agreed on.
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(CloseReason::ProtocolError);
    }
    let (in_order, bytes_max) = match header.opcode {
        // RFC 6455 §5.5: a control frame is whole and small, and may come between two fragments.
        OpCode::Control(_) => (header.is_final && payload_bytes <= CONTROL_BYTES_MAX, usize::MAX),
        // The limit counts a message, so earlier fragments use up a part of it.
        OpCode::Data(Data::Continue) => {
            (message.is_some(), message_bytes_max.saturating_sub(message.map_or(0, |m| m.bytes.len())))
        }
        OpCode::Data(_) => (message.is_none(), message_bytes_max),
    };
    if !in_order {
        return Err(CloseReason::ProtocolError);
    }
    // Refused by the header alone: a device can't make the node hold what it only announces.
    let payload_bytes = usize::try_from(payload_bytes).map_err(|_| CloseReason::TooBig)?;
    if payload_bytes > bytes_max {
        return Err(CloseReason::TooBig);
    }
    Ok(OpenFrame { opcode: header.opcode, is_final: header.is_final, mask, payload_bytes, arrived_bytes: 0 })
}

fn whole(kind: Data, bytes: &[u8]) -> Result<Incoming<'_>, CloseReason> {
    // RFC 6455 §8.1: text is UTF-8, else the connection fails.
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
            // RFC 6455 §5.5.1: no frame follows a close, whatever `take` answers.
            let _said: ControlFlow<()> = take(Incoming::Close(close_code(payload)?));
            Ok(ControlFlow::Break(()))
        }
        Control::Reserved(_) => Err(CloseReason::ProtocolError),
    }
}

/// Reads the payload of a close frame: empty, or a code and a reason in UTF-8 (RFC 6455 §5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<u16>, CloseReason> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // RFC 6455 §7.4.1: some codes are for local use and never travel.
            if !is_close_code(code) {
                return Err(CloseReason::ProtocolError);
            }
            str::from_utf8(reason).map_err(|_| CloseReason::NotUtf8)?;
            Ok(Some(code))
        }
        // Half a code.
        [_] => Err(CloseReason::ProtocolError),
    }
}

/// True for a code allowed in a close frame: RFC 6455 §7.4 and IANA's registry. 1004 to 1006 and 1015 never
/// travel.
pub(crate) fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Takes the mask off `payload`. The first byte stands `offset` bytes into the payload of the frame (RFC 6455
/// §5.3).
fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    // The mask runs through the whole frame, so a later part begins inside the mask.
    let mut turned = mask;
    turned.rotate_left(offset % 4);
    // Words of four bytes: the compiler turns this loop into vector instructions.
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
    /// Returns the open frame, or takes the header of the next frame off `rest`. `None`: the header is not
    /// whole yet, and is kept.
    fn open_frame(
        &mut self,
        rest: &mut &mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<OpenFrame>, CloseReason> {
        if let Some(frame) = self.frame.take() {
            return Ok(Some(frame));
        }
        // A header cut by the socket is joined on the stack: earlier bytes first, then as many new bytes as a
        // header may need.
        let kept = self.header.len();
        let more = rest.len().min(HEADER_BYTES_MAX - kept);
        let mut joined = [0; HEADER_BYTES_MAX];
        joined[..kept].copy_from_slice(&self.header);
        joined[kept..kept + more].copy_from_slice(&rest[..more]);
        let mut cursor = Cursor::new(&joined[..kept + more]);
        // Over a slice, the parser fails for one cause alone: a reserved opcode.
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseReason::ProtocolError)?;
        let Some((header, payload_bytes)) = parsed else {
            let unread = mem::take(rest);
            self.header.extend_from_slice(unread);
            return Ok(None);
        };
        let header_bytes = usize::try_from(cursor.position()).map_err(|_| CloseReason::ProtocolError)?;
        // RFC 6455 §5.2: the length takes the fewest bytes.
        if header_bytes != header.len(payload_bytes) {
            return Err(CloseReason::ProtocolError);
        }
        *rest = &mut mem::take(rest)[header_bytes - kept..];
        self.header = Vec::new();
        allow(&header, payload_bytes, self.message.as_ref(), message_bytes_max).map(Some)
    }

    /// Gives a complete frame to `take`. `payload` holds the last bytes of the frame.
    fn end_frame(
        &mut self,
        frame: OpenFrame,
        payload: &[u8],
        message_bytes_max: usize,
        take: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, CloseReason> {
        match frame.opcode {
            OpCode::Control(control) => {
                // A control frame cut by the socket has its first bytes in `control`.
                let mut kept = mem::take(&mut self.control);
                if kept.is_empty() {
                    return end_control(control, payload, take);
                }
                kept.extend_from_slice(payload);
                end_control(control, &kept, take)
            }
            // The everyday path: a message in one frame in one read. No byte is copied.
            OpCode::Data(kind) if frame.is_final && self.message.is_none() => Ok(take(whole(kind, payload)?)),
            OpCode::Data(kind) => {
                self.append(kind, payload, message_bytes_max)?;
                if !frame.is_final {
                    return Ok(take(Incoming::Fragment));
                }
                match self.message.take() {
                    Some(message) => Ok(take(whole(message.kind, &message.bytes)?)),
                    // `append` has just set the message.
                    None => Err(CloseReason::Internal),
                }
            }
        }
    }

    /// Keeps the arrived bytes of an unfinished frame.
    fn keep(
        &mut self,
        frame: OpenFrame,
        payload: &[u8],
        message_bytes_max: usize,
    ) -> Result<(), CloseReason> {
        self.frame = Some(frame);
        match frame.opcode {
            OpCode::Control(_) => self.control.extend_from_slice(payload),
            OpCode::Data(kind) => self.append(kind, payload, message_bytes_max)?,
        }
        Ok(())
    }

    /// Adds to the open message, or opens a message of this kind. A text fails at the first byte outside
    /// UTF-8.
    fn append(&mut self, kind: Data, payload: &[u8], message_bytes_max: usize) -> Result<(), CloseReason> {
        let message =
            self.message.get_or_insert_with(|| OpenMessage { kind, bytes: Vec::new(), utf8_bytes: 0 });
        message.reserve(payload.len(), message_bytes_max);
        message.bytes.extend_from_slice(payload);
        if message.kind == Data::Text {
            match str::from_utf8(&message.bytes[message.utf8_bytes..]) {
                Ok(_) => message.utf8_bytes = message.bytes.len(),
                // A character is cut by the end of the bytes: the next bytes may complete it.
                Err(error) if error.error_len().is_none() => message.utf8_bytes += error.valid_up_to(),
                Err(_) => return Err(CloseReason::NotUtf8),
            }
        }
        Ok(())
    }
}

impl OpenMessage {
    /// Grows by doubling, like a `Vec`, but never past the largest message.
    fn reserve(&mut self, more: usize, message_bytes_max: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let doubled = (2 * self.bytes.capacity()).min(message_bytes_max);
            self.bytes.reserve_exact(needed.max(doubled) - self.bytes.len());
        }
    }
}

/// Largest header of a device frame: two bytes, eight of length, four of mask (RFC 6455 §5.2).
const HEADER_BYTES_MAX: usize = 14;
/// Largest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;

const _: () = assert!(size_of::<FrameReader>() <= 16, "an idle connection pays two words");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEVICE_MESSAGE_BYTES_MAX;

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
        let outcome =
            FrameReader::default().feed(&mut bytes.to_vec(), DEVICE_MESSAGE_BYTES_MAX, &mut |incoming| {
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
        let mut reader = FrameReader::default();
        let mut seen = Vec::new();
        reader
            .feed(&mut bytes, DEVICE_MESSAGE_BYTES_MAX, &mut |incoming| {
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
        let mut reader = FrameReader::default();
        let mut seen = 0;
        for _ in 0..2 {
            let mut bytes = frame(0x81, b"x").repeat(3);
            reader
                .feed(&mut bytes, DEVICE_MESSAGE_BYTES_MAX, &mut |_| {
                    seen += 1;
                    ControlFlow::Break(())
                })
                .unwrap();
        }
        assert_eq!(seen, 1);
    }
}
