//! The child process of a selftest: the doors of a node with nothing behind them, as cheap as possible.
//!
//! - The viewer door lets every device in. On the order that arrives on stdin, all devices are sent the same
//!   batches as fast as their sockets take them.
//! - The publisher door accepts everything; the operator door says ready.
//! - On stdout the process says the addresses of its doors, and later the volume of the stream.
//! - The process ends at the end of stdin.

use std::io::{BufRead as _, ErrorKind, Read as _, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use prost::Message as _;
use roomcast_core::proto;
use serde::{Deserialize, Serialize};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::clock::{monotonic_ns, thread_processor_ns};
use crate::machine::descriptors::{DEVICES_PER_PROCESS_MAX, devices_per_process};
use crate::scenario::mix::{Load, type_seed};
use crate::scenario::payload::Payloads;
use crate::wire::frame::Encoding;

/// The run of every room.
const RUN: &str = "0a";
/// Longest request of a device or a publisher. Past it the connection is closed.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for a device's request, because the viewer door serves the devices in turn.
const REQUEST_AGE_MAX: Duration = Duration::from_secs(5);
/// Publisher connections at the same time. Further connections are closed.
const PUBLISHERS_MAX: usize = 256;
/// Writes by which a device may be ahead of the slowest. A node's passes keep devices about as close
/// together.
const WRITES_AHEAD_MAX: usize = 64;
/// Longest wait for a free socket before the source looks at the clock again.
const FULL_MAX: Duration = Duration::from_millis(100);
/// Time after the end for the devices to become level. Past it the source gives up.
const LEVEL_MAX_NS: u64 = 30_000_000_000;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Doors {
    pub(crate) viewer: SocketAddr,
    pub(crate) publisher: SocketAddr,
    pub(crate) ops: SocketAddr,
}

/// The order to send a stream to all devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// The messages, each in a frame of its own; the schedule begins at the start of the run.
    pub(crate) load: Load,
    /// The run's seed.
    pub(crate) seed: u64,
    pub(crate) room: String,
    pub(crate) frames_per_write: usize,
    /// End of the stream, on the monotonic clock. Afterwards the other devices only catch up with the
    /// foremost device.
    pub(crate) until_ns: u64,
}

/// The volume and the cost of a stream.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Streamed {
    /// Frames to each device.
    pub(crate) frames_each: u64,
    /// Processor time of the sending thread.
    pub(crate) processor_ns: u64,
    pub(crate) took_ns: u64,
}

/// Runs a source until its stdin ends.
pub(crate) fn run() -> std::io::Result<()> {
    devices_per_process().map_err(std::io::Error::other)?;
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let viewer = listen()?;
    let publisher = listen()?;
    let ops = listen()?;
    let [viewer_at, publisher_at, ops_at] = [&viewer, &publisher, &ops].map(TcpListener::local_addr);
    let doors = Doors { viewer: viewer_at?, publisher: publisher_at?, ops: ops_at? };
    say(&mut std::io::stdout(), &doors)?;
    let (door, arrived) = sync_channel(DEVICES_PER_PROCESS_MAX as usize);
    std::thread::spawn(move || let_in(&viewer, &door));
    for door in [publisher, ops] {
        std::thread::spawn(move || answer_all(&door));
    }
    let mut devices = Vec::new();
    let mut orders = std::io::stdin().lock().lines();
    if let Some(order) = orders.next() {
        let stream: Stream = serde_json::from_str(&order?)?;
        // The order comes after the worker said ready, so every device has arrived.
        devices.extend(arrived.try_iter().map(SinkDevice::new));
        say(&mut std::io::stdout(), &send(&stream, &mut devices)?)?;
    }
    // A closed connection would count as a violation, so the devices stay connected until the selftest is
    // over.
    while orders.next().is_some_and(|line| line.is_ok()) {}
    Ok(())
}

/// Writes a word of the selftest and its source to each other, as a line.
pub(crate) fn say(to: &mut impl Write, word: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *to, word)?;
    to.write_all(b"\n")?;
    to.flush()
}

fn let_in(door: &TcpListener, devices: &SyncSender<TcpStream>) {
    for stream in door.incoming() {
        let welcomed = stream.and_then(welcome);
        if welcomed.is_ok_and(|stream| devices.send(stream).is_err()) {
            return;
        }
    }
}

/// Answers a device's handshake, and sends the welcome behind the answer.
fn welcome(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REQUEST_AGE_MAX))?;
    let mut room = None;
    #[expect(clippy::result_large_err, reason = "the error is tungstenite's, and is never made")]
    let answer = |request: &Request, mut response: Response| {
        let path = request.uri().path().strip_prefix("/v1/rooms/");
        room = path.and_then(|path| path.split('/').next()).map(str::to_owned);
        let subprotocol = HeaderValue::from_static(Encoding::Proto.subprotocol());
        response.headers_mut().insert("sec-websocket-protocol", subprotocol);
        Ok(response)
    };
    let accepted = tungstenite::accept_hdr(stream, answer);
    let accepted = accepted.map_err(|error| std::io::Error::other(error.to_string()))?;
    let room = room.ok_or_else(|| std::io::Error::other("no handshake of a device"))?;
    let welcome =
        proto::Welcome { room, run: RUN.to_owned(), heartbeat_ms: 25_000, ..proto::Welcome::default() };
    let mut first = Vec::new();
    write_frame(&mut first, proto::server_frame::Frame::Welcome(welcome));
    let mut stream = accepted.into_inner();
    stream.write_all(&first)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Reads the next bytes of a request. `false`: the request ended or is too long.
fn read_more(stream: &mut TcpStream, asked: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = [0; 4_096];
    let read = stream.read(&mut chunk)?;
    asked.extend_from_slice(&chunk[..read]);
    Ok(read > 0 && asked.len() <= REQUEST_BYTES_MAX)
}

/// Answers every request at a door with "accepted"; a readiness probe only looks at the status.
fn answer_all(door: &TcpListener) {
    let held = Arc::new(());
    for stream in door.incoming().filter_map(Result::ok) {
        let hold = Arc::clone(&held);
        // This loop and the new connection hold one count each.
        if Arc::strong_count(&held) <= PUBLISHERS_MAX + 1 {
            std::thread::spawn(move || {
                drop(answer(stream));
                drop(hold);
            });
        }
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    const BODY: &str = r#"{"results":[{"result":"accepted"}]}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.set_nodelay(true)?;
    let mut asked = Vec::new();
    // No HTTP request, no answer: the connection closes.
    while let Some(bytes) = request_bytes(&asked) {
        match bytes.filter(|bytes| *bytes <= asked.len()) {
            Some(bytes) => {
                asked.drain(..bytes);
                stream.write_all(answer.as_bytes())?;
            }
            None if read_more(&mut stream, &mut asked)? => {}
            None => break,
        }
    }
    Ok(())
}

/// Bytes of the first request, head and body. `Some(None)`: the head is incomplete. `None`: no HTTP request.
fn request_bytes(asked: &[u8]) -> Option<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(asked).ok()? else { return Some(None) };
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body_bytes = match length {
        Some(length) => std::str::from_utf8(length.value).ok()?.trim().parse::<usize>().ok()?,
        None => 0,
    };
    head_bytes.checked_add(body_bytes).map(Some)
}

fn write_frame(out: &mut Vec<u8>, frame: proto::server_frame::Frame) {
    let payload = proto::ServerFrame { frame: Some(frame) }.encode_to_vec();
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    // A Vec takes every byte.
    header.format(payload.len() as u64, out).unwrap_or_default();
    out.extend_from_slice(&payload);
}

/// All frames that a device can be sent, encoded once before the stream.
#[derive(Debug)]
struct Frames {
    bytes: Vec<u8>,
    /// End of each write in `bytes`.
    ends: Vec<usize>,
    frames: u64,
    frames_per_write: usize,
}

impl Frames {
    /// The batches of a room whose batches hold a single message each: seq 1 is message 0.
    fn of(stream: &Stream) -> Self {
        let Stream { load, frames_per_write, .. } = stream;
        let payloads = Payloads::new(load.length, type_seed(stream.seed, &load.type_name));
        let mut frames =
            Self { bytes: Vec::new(), ends: Vec::new(), frames: 0, frames_per_write: *frames_per_write };
        for number in 0..load.schedule.messages {
            let mut payload = Vec::new();
            payloads.write(&load.schedule, number, &mut payload);
            let message = proto::Message {
                r#type: load.type_name.clone(),
                payload: payload.into(),
                json: true,
                ..proto::Message::default()
            };
            let batch = proto::Batch {
                room: stream.room.clone(),
                run: RUN.to_owned(),
                seq: number + 1,
                messages: vec![message],
                ..proto::Batch::default()
            };
            write_frame(&mut frames.bytes, proto::server_frame::Frame::Batch(batch));
            frames.frames += 1;
            if frames.frames.is_multiple_of(*frames_per_write as u64) {
                frames.ends.push(frames.bytes.len());
            }
        }
        frames
    }
}

#[derive(Debug)]
struct SinkDevice {
    stream: mio::net::TcpStream,
    /// Bytes that the socket took.
    sent: usize,
    /// Writes that the socket took completely.
    writes: usize,
    /// The socket takes nothing until the kernel reports room.
    is_full: bool,
}

impl SinkDevice {
    fn new(stream: TcpStream) -> Self {
        Self { stream: mio::net::TcpStream::from_std(stream), sent: 0, writes: 0, is_full: false }
    }
}

/// Sends until the end of the time, and then until all devices have the same number of writes.
fn send(stream: &Stream, devices: &mut [SinkDevice]) -> std::io::Result<Streamed> {
    let frames = Frames::of(stream);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1_024);
    for (place, device) in devices.iter_mut().enumerate() {
        poll.registry().register(&mut device.stream, Token(place), Interest::WRITABLE)?;
    }
    let began_ns = monotonic_ns();
    let began_processor_ns = thread_processor_ns();
    let mut last = frames.ends.len();
    loop {
        // The time is over: the foremost device decides where the stream ends for all.
        if last == frames.ends.len() && monotonic_ns() >= stream.until_ns {
            last = devices.iter().map(|device| device.writes).max().unwrap_or(0);
        }
        let slowest = devices.iter().map(|device| device.writes).min().unwrap_or(last);
        if slowest >= last {
            break;
        }
        if monotonic_ns() >= stream.until_ns + LEVEL_MAX_NS {
            return Err(std::io::Error::other("the devices stopped reading"));
        }
        let wrote_any = send_round(devices, &frames, last.min(slowest + WRITES_AHEAD_MAX))?;
        // Every socket is full, or the slowest device holds the others back.
        if !wrote_any {
            match poll.poll(&mut events, Some(FULL_MAX)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => events.iter().for_each(|event| devices[event.token().0].is_full = false),
            }
        }
    }
    Ok(Streamed {
        frames_each: last as u64 * frames.frames_per_write as u64,
        processor_ns: thread_processor_ns() - began_processor_ns,
        took_ns: monotonic_ns() - began_ns,
    })
}

/// Writes once to each device with a free socket and fewer than `most` writes. `true`: some socket took bytes.
fn send_round(devices: &mut [SinkDevice], frames: &Frames, most: usize) -> std::io::Result<bool> {
    let mut wrote_any = false;
    for device in devices.iter_mut().filter(|device| !device.is_full && device.writes < most) {
        let end = frames.ends[device.writes];
        match device.stream.write(&frames.bytes[device.sent..end]) {
            Ok(written) => {
                wrote_any = true;
                device.sent += written;
                // A partial write goes on in the next round.
                device.writes += usize::from(device.sent == end);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => device.is_full = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wrote_any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::mix::Class;
    use crate::scenario::payload::Length;
    use crate::scenario::schedule::Schedule;
    use crate::wire::frame::{self, ServerFrame, Start};

    #[test]
    fn frames_are_batches_of_one_message_each_that_the_checker_knows() {
        let schedule = Schedule::even(40, 1_000, 1, 1).starting(7);
        let length = Length::Fixed(100);
        let load =
            Load { type_name: "chat".into(), class: Class::Normal, schedule, count: None, keys: 0, length };
        let stream = Stream { load, seed: 3, room: "r".to_owned(), frames_per_write: 16, until_ns: 0 };
        let frames = Frames::of(&stream);
        assert_eq!((frames.frames, frames.ends.len()), (40, 2), "half a write is not sent");
        let payloads = Payloads::new(length, type_seed(3, "chat"));
        let mut at = 0;
        let mut seq = 0;
        let mut scratch = Vec::new();
        while at < frames.ends[1] {
            let Start::Whole { opcode, header_bytes, payload_bytes } = frame::start(&frames.bytes[at..])
            else {
                panic!("a frame at {at}")
            };
            assert_eq!(opcode, Encoding::Proto.opcode());
            let from = at + header_bytes;
            at = from + payload_bytes;
            let Ok(ServerFrame::Batch(batch)) = frame::decode(Encoding::Proto, &frames.bytes[from..at])
            else {
                panic!("a batch at {from}")
            };
            assert_eq!((batch.seq, &*batch.room, &*batch.run), (seq + 1, "r", RUN));
            let payload = &batch.messages[0].payload;
            assert_eq!(payloads.check(&stream.load.schedule, payload, &mut scratch), Ok(seq));
            seq += 1;
        }
        assert_eq!((at, seq), (frames.ends[1], 32));
    }

    #[test]
    fn a_request_is_as_long_as_it_says() {
        let asked = b"POST /v1/rooms/r/messages HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST";
        let head_bytes = asked.len() - "helloPOST".len();
        for end in 0..head_bytes {
            assert_eq!(request_bytes(&asked[..end]), Some(None), "{end} bytes");
        }
        assert_eq!(request_bytes(asked), Some(Some(head_bytes + 5)));
        assert_eq!(request_bytes(b"GET / HTTP/1.1\r\n\r\n"), Some(Some(18)));
        assert_eq!(request_bytes(b"\x16\x03\x01"), None);
        assert_eq!(request_bytes(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), None);
    }

    #[test]
    fn a_device_is_let_into_the_room_of_its_path() {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let let_in = |path: &str| {
            let mut device = TcpStream::connect(door.local_addr().unwrap()).unwrap();
            let asked = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            device.write_all(asked.as_bytes()).unwrap();
            welcome(door.accept().unwrap().0).map(drop)?;
            let mut answer = Vec::new();
            device.read_to_end(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = let_in("/v1/rooms/lg-0/ws").unwrap();
        let at = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..at]);
        // The key and its answer are the example of RFC 6455, section 1.3.
        assert!(
            head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") && head.contains("roomcast.v1.proto"),
            "{head}"
        );
        let Start::Whole { header_bytes, payload_bytes, .. } = frame::start(&answer[at + 4..]) else {
            panic!("{head}")
        };
        assert_eq!(at + 4 + header_bytes + payload_bytes, answer.len());
        let welcome = frame::decode(Encoding::Proto, &answer[at + 4 + header_bytes..]);
        assert!(
            matches!(&welcome, Ok(ServerFrame::Welcome(welcome)) if welcome.room == "lg-0"),
            "{welcome:?}"
        );
        assert!(let_in("/elsewhere").is_err());
    }
}
