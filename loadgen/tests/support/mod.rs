//! A small fake node that speaks roomcast's protocol and can break one promise on purpose.
//!
//! One batch per room and 50 ms, one reliable stream per room, JSON or protobuf, a thread or two per
//! connection. The node stands in for the engine in tests of the load generator itself.

mod doors;
mod frames;
mod misdeed;
mod room;

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;
use roomcast_core::proto;
use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket};

use doors::{accept, read_request};
use frames::{EPOCH, Message, Told, Welcome, page};
pub(crate) use misdeed::Misdeed;
use room::{Frame, Member, Room};

/// Processor time of the node of [`Misdeed::SayProcessorTime`] between two questions.
pub(crate) const PROCESSOR_US: u64 = 6_000;
/// Time between two flushes.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// Messages of a page: few, so that devices must pull several.
const PAGE_MESSAGES: u64 = 4;

#[derive(Default)]
struct State {
    rooms: BTreeMap<String, Room>,
    failed_once: bool,
    /// Plain messages taken.
    taken: usize,
    restarted: bool,
    /// Acknowledgements as they came: room, epoch and offset.
    acks: Vec<(String, String, u64)>,
    /// Upgrades that brought a cursor.
    resumed: u64,
    /// Upgrades by node.
    upgrades: [u64; 2],
    /// Publish requests by node.
    requests: [u64; 2],
}

/// The node's doors.
pub(crate) struct FakeNode {
    pub(crate) viewer: SocketAddr,
    pub(crate) publisher: SocketAddr,
    pub(crate) ops: SocketAddr,
    /// The viewer and the publisher door of the second node of a pair.
    second: Option<(SocketAddr, SocketAddr)>,
    state: Arc<Mutex<State>>,
    /// Dropped with the node, which ends the flushing thread.
    _stop: Sender<()>,
}

impl FakeNode {
    /// Starts one on free ports.
    pub(crate) fn start(misdeed: Misdeed) -> Self {
        Self::with_second(misdeed, false)
    }

    /// Starts two nodes with the same rooms, and one operator door.
    pub(crate) fn start_pair(misdeed: Misdeed) -> Self {
        Self::with_second(misdeed, true)
    }

    fn with_second(misdeed: Misdeed, is_pair: bool) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = |listener: &TcpListener| listener.local_addr().expect("bound");
        let viewer = listen();
        let publisher = listen();
        let ops = listen();
        let second = is_pair.then(|| (listen(), listen()));
        let (stop, stopped) = channel();
        let node = Self {
            viewer: address(&viewer),
            publisher: address(&publisher),
            ops: address(&ops),
            second: second.as_ref().map(|(viewer, publisher)| (address(viewer), address(publisher))),
            state: Arc::clone(&state),
            _stop: stop,
        };
        let elsewhere = node.second.map(|(viewer, _)| format!("ws://{viewer}"));
        for (number, (viewer, publisher)) in [(viewer, publisher)].into_iter().chain(second).enumerate() {
            let for_viewers = Arc::clone(&state);
            let for_publishers = Arc::clone(&state);
            let place = NodePlace { number, elsewhere: elsewhere.clone().filter(|_| number == 0) };
            accept(viewer, move |stream, arrival| view(stream, arrival, &for_viewers, &place, misdeed));
            accept(publisher, move |stream, _| take_publishes(stream, &for_publishers, number, misdeed));
        }
        let asked = AtomicU64::new(0);
        let for_operators = Arc::clone(&state);
        accept(ops, move |stream, _| answer_operators(stream, &for_operators, &asked, misdeed));
        std::thread::spawn(move || {
            while stopped.recv_timeout(FLUSH_EVERY) == Err(RecvTimeoutError::Timeout) {
                state.lock().rooms.iter_mut().for_each(|(name, room)| room.flush(name, misdeed));
            }
        });
        node
    }

    /// The flags that name the node's doors.
    pub(crate) fn doors(&self) -> Vec<String> {
        let mut doors = vec![format!("--ops-door=http://{}", self.ops)];
        for (viewer, publisher) in [(self.viewer, self.publisher)].into_iter().chain(self.second) {
            doors.push(format!("--viewer-door=ws://{viewer}"));
            doors.push(format!("--publisher-door=http://{publisher}"));
        }
        doors
    }

    /// Runs the load generator against the node.
    pub(crate) fn run(&self, flags: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-loadgen"));
        command.arg("run").args(flags.split_whitespace()).args(self.doors());
        command.output().expect("the program starts")
    }

    /// Acknowledgements so far.
    pub(crate) fn acks(&self) -> Vec<(String, String, u64)> {
        self.state.lock().acks.clone()
    }

    /// Devices that came to each node, and publish requests to each node.
    pub(crate) fn visits(&self) -> ([u64; 2], [u64; 2]) {
        let state = self.state.lock();
        (state.upgrades, state.requests)
    }

    /// Devices that came with a cursor.
    pub(crate) fn resumed(&self) -> u64 {
        self.state.lock().resumed
    }
}

/// Runs against a node with this misdeed, checks the exit code and the report, and gives the node back.
pub(crate) fn ends(misdeed: Misdeed, flags: &str, code: i32, names: &[&str]) -> FakeNode {
    ends_at(FakeNode::start(misdeed), misdeed, flags, code, names)
}

/// The same against `node`.
pub(crate) fn ends_at(node: FakeNode, misdeed: Misdeed, flags: &str, code: i32, names: &[&str]) -> FakeNode {
    let output = node.run(flags);
    let report = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    // On a machine that stood still for a moment only the generator's own lateness changes the verdict.
    let is_late = code == 0 && report.contains("verdict      generator-limited: no promise was broken");
    let code = if is_late { 3 } else { code };
    assert_eq!(output.status.code(), Some(code), "{misdeed:?}\n{report}{said}");
    for name in names {
        let is_said = report.contains(name) || said.contains(name) || (is_late && *name == "verdict      ok");
        assert!(is_said, "{misdeed:?} names {name}\n{report}{said}");
    }
    node
}

/// The value of a request's parameter; `None` when absent.
fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn offset_of(cursor: Option<&str>) -> u64 {
    cursor.and_then(|cursor| cursor.split_once(':')?.1.parse().ok()).unwrap_or(0)
}

/// One of the nodes of a pair, or the only node.
struct NodePlace {
    number: usize,
    elsewhere: Option<String>,
}

#[expect(clippy::result_large_err, reason = "tungstenite's signature")]
fn view(
    mut stream: TcpStream,
    arrival: usize,
    state: &Arc<Mutex<State>>,
    place: &NodePlace,
    misdeed: Misdeed,
) {
    if misdeed == Misdeed::NotRoomcast {
        drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
        return;
    }
    let mut head = vec![0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(stream.peek(&mut head), Ok(1..)) {
            return;
        }
    }
    hang(state, misdeed);
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    if target.starts_with("/v1/route?") {
        drop(stream.write_all(response(200, &route(&target, place)).as_bytes()));
        return;
    }
    let name = target.split(['/', '?']).nth(3).unwrap_or_default().to_owned();
    if target.split('?').next().is_some_and(|path| path.ends_with("/reliable")) {
        let page = page_of(&state.lock(), &name, parameter(&target, "after"), misdeed);
        drop(stream.write_all(response(200, &page).as_bytes()));
        return;
    }
    let mut is_proto = false;
    let upgraded = tungstenite::accept_hdr(stream, |request: &Request, mut response: Response| {
        let asked = request.headers().get("sec-websocket-protocol").cloned();
        is_proto = asked.as_ref().is_some_and(|asked| asked.as_bytes().ends_with(b"proto"));
        let chosen = asked.unwrap_or(HeaderValue::from_static("roomcast.v1.json"));
        response.headers_mut().insert("sec-websocket-protocol", chosen);
        Ok::<_, ErrorResponse>(response)
    });
    let Ok(socket) = upgraded else { return };
    let Ok(reading) = socket.get_ref().try_clone() else { return };
    let (frames, receiver) = channel();
    state.lock().upgrades[place.number] += 1;
    let elsewhere = place.elsewhere.clone();
    let member =
        Member { arrival, is_proto, is_late: false, node: place.number, elsewhere, frames, missed: 0 };
    join(&mut state.lock(), &name, parameter(&target, "cursor"), member, misdeed);
    let for_reader = Arc::clone(state);
    std::thread::spawn(move || listen(reading, &for_reader, is_proto));
    send_frames(socket, &receiver, is_proto);
}

/// Sends a device its frames, up to the end of its connection.
fn send_frames(mut socket: WebSocket<TcpStream>, receiver: &Receiver<Frame>, is_proto: bool) {
    while let Ok(frame) = receiver.recv() {
        let frame = match frame {
            Frame::Bytes(frame) => frame,
            Frame::Wait => {
                std::thread::park_timeout(Duration::from_millis(3_500));
                continue;
            }
            Frame::Cut => break,
            Frame::Elsewhere(door) => {
                let close = CloseFrame { code: CloseCode::from(4005), reason: door.into() };
                drop(socket.close(Some(close)));
                break;
            }
        };
        let message = if is_proto {
            tungstenite::Message::binary(frame)
        } else {
            tungstenite::Message::text(String::from_utf8(frame).expect("JSON is text"))
        };
        if socket.send(message).is_err() {
            return;
        }
    }
    drop(socket.get_ref().shutdown(std::net::Shutdown::Both));
}

/// Notes what a device acknowledges.
fn listen(stream: TcpStream, state: &Arc<Mutex<State>>, is_proto: bool) {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    while let Ok(message) = socket.read() {
        if !(message.is_text() || message.is_binary()) {
            continue;
        }
        let bytes = message.into_data();
        if is_proto {
            let frame = proto::DeviceFrame::decode(bytes).expect("a device frame");
            if let Some(proto::device_frame::Frame::Ack(ack)) = frame.frame {
                let acks = ack.acks.into_iter().map(|ack| (ack.room, ack.epoch, ack.offset));
                state.lock().acks.extend(acks);
            }
            continue;
        }
        let frame: Value = serde_json::from_slice(&bytes).expect("a device frame");
        if frame["kind"] == "ack" {
            let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
            let ack = (text("room"), text("epoch"), frame["offset"].as_u64().unwrap_or(0));
            state.lock().acks.push(ack);
        }
    }
}

fn page_of(state: &State, name: &str, cursor: Option<&str>, misdeed: Misdeed) -> String {
    let Some(room) = state.rooms.get(name) else { return page(name, 0, Told::default(), &[]) };
    let after = offset_of(cursor);
    let through = room.head.min(after + PAGE_MESSAGES);
    let is_in = |kept: &&Message| (after + 1..=through).contains(&kept.offset);
    let is_kept = |kept: &&Message| !(misdeed == Misdeed::ForgetOne && kept.offset == 3);
    let messages: Vec<&Message> = room.stored.iter().filter(is_in).filter(is_kept).collect();
    page(name, room.head, Told { after, through }, &messages)
}

fn join(state: &mut State, name: &str, cursor: Option<&str>, mut member: Member, misdeed: Misdeed) {
    state.resumed += u64::from(cursor.is_some());
    let room = state.rooms.entry(name.to_owned()).or_default();
    let mut after = offset_of(cursor);
    let mut reset = "";
    if after > room.head || (misdeed == Misdeed::ResetFalsely && after > 0) {
        after = 0;
        reset = "ahead";
    }
    let knows = misdeed != Misdeed::KnowNothing;
    let reliable = room.stored.iter().filter(|kept| knows && kept.offset > after).collect();
    let welcome = Welcome {
        room: name,
        run: room.run,
        seq: room.seq,
        epoch: if knows { EPOCH } else { "" },
        reset,
        told: Told { after, through: if knows { room.head } else { 0 } },
        reliable,
    };
    member.send(Frame::Bytes(welcome.frame(member.is_proto)));
    member.is_late = room.seq > 0 || !room.gathered.is_empty();
    // Misdeeds choose a member by its place, whichever thread comes first.
    let place = room.members.partition_point(|earlier| earlier.arrival < member.arrival);
    room.members.insert(place, member);
}

/// The second node for every room; the first has a weight of 0.
fn route(target: &str, place: &NodePlace) -> String {
    let second = place.elsewhere.as_deref().unwrap_or_default();
    let room = parameter(target, "room");
    json!({"room": room, "nodes": [{"url": second, "region": "", "weight": 70}], "ttl_ms": 10_000})
        .to_string()
}

fn response(code: u16, body: &str) -> String {
    format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Holds up its thread for ever once the node hangs.
fn hang(state: &Mutex<State>, misdeed: Misdeed) {
    while misdeed == Misdeed::Hang && state.lock().taken >= 30 {
        std::thread::park();
    }
}

/// Answers every question: `{}`, or by the misdeed the only metric.
fn answer_operators(stream: TcpStream, state: &Mutex<State>, asked: &AtomicU64, misdeed: Misdeed) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        hang(state, misdeed);
        let body = if misdeed == Misdeed::SayProcessorTime {
            let used =
                PROCESSOR_US * asked.fetch_add(u64::from(request.path == "/metrics"), Ordering::Relaxed);
            format!(
                "# TYPE roomcast_cpu_microseconds_total counter\nroomcast_cpu_microseconds_total {used}\n"
            )
        } else {
            "{}".to_owned()
        };
        if reader.get_mut().write_all(response(200, &body).as_bytes()).is_err() {
            return;
        }
    }
}

fn take_publishes(stream: TcpStream, state: &Arc<Mutex<State>>, node: usize, misdeed: Misdeed) {
    let mut reader = BufReader::new(stream);
    let mut taken = 0;
    while let Some(request) = read_request(&mut reader) {
        hang(state, misdeed);
        state.lock().requests[node] += u64::from(request.is_post);
        let mut messages =
            if request.is_post { Message::all_of(&request.body, request.is_proto) } else { Vec::new() };
        let answered = if messages.first().is_some_and(|message| !message.id.is_empty()) {
            take_reliable(&mut state.lock(), request.room(), messages.remove(0), misdeed)
        } else {
            taken += messages.len();
            state.lock().taken += messages.len();
            let answer = answer(misdeed, messages.len(), taken);
            let takes_none = matches!(misdeed, Misdeed::RefuseAll | Misdeed::FailAll | Misdeed::DuplicateAll);
            // A question of the coordinator names no room, so no room comes of it.
            if request.is_post && !takes_none {
                let mut state = state.lock();
                state.rooms.entry(request.room().to_owned()).or_default().gathered.extend(messages);
            }
            Some(answer)
        };
        // No answer: the connection is cut, as by a node that was killed.
        let Some((code, body)) = answered else { return };
        if reader.get_mut().write_all(response(code, &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// The status and body for a request of `messages` plain messages. The connection has had `taken` messages in
/// all.
fn answer(misdeed: Misdeed, messages: usize, taken: usize) -> (u16, String) {
    let results = |result: &str| json!({"results": vec![json!({"result": result}); messages]}).to_string();
    let inbox_full = || (503, r#"{"code":"inbox_full"}"#.to_owned());
    match misdeed {
        Misdeed::ShedAndDeliver if taken == 10 => {
            (429, r#"{"results":[{"result":"shed","reason":"room_full"}]}"#.to_owned())
        }
        Misdeed::RefuseAndDeliver if taken == 10 => inbox_full(),
        Misdeed::FailOne if taken == 10 => (500, "{}".to_owned()),
        // The question that looks for roomcast behind the door is answered as ever.
        Misdeed::RefuseAll if messages > 0 => inbox_full(),
        Misdeed::FailAll if messages > 0 => (500, "{}".to_owned()),
        Misdeed::DuplicateAll => (200, results("duplicate")),
        _ => (200, results("accepted")),
    }
}

/// Stores a reliable message and tells the room; `None`: the node was killed meanwhile.
fn take_reliable(
    state: &mut State,
    name: &str,
    mut message: Message,
    misdeed: Misdeed,
) -> Option<(u16, String)> {
    let result = |result: &str, offset: u64| {
        Some((200, json!({"results": [{"result": result, "offset": offset}]}).to_string()))
    };
    let other = state.rooms.keys().find(|other| *other != name).cloned();
    let room = state.rooms.entry(name.to_owned()).or_default();
    let known = room.stored.iter().find(|kept| kept.id == message.id).map(|kept| kept.offset);
    if let Some(offset) = known.filter(|_| misdeed != Misdeed::StoreTwice) {
        return result("duplicate", offset);
    }
    room.head += if misdeed == Misdeed::SkipOffset && room.head == 2 { 2 } else { 1 };
    let offset = room.head;
    message.offset = offset;
    let takes_over =
        [Misdeed::TakeOver, Misdeed::TakeOverAndLose, Misdeed::TakeOverAndSkip, Misdeed::TakeOverInSilence];
    if takes_over.contains(&misdeed) && offset == 4 && !state.restarted {
        state.restarted = true;
        room.take_over(name, &message, misdeed);
        room.stored.push(message);
        return None;
    }
    room.tell(name, &message, misdeed);
    if !(misdeed == Misdeed::AnswerOnly && offset == 3) {
        room.stored.push(message);
    }
    let restarts = matches!(misdeed, Misdeed::Restart | Misdeed::RestartAndForget);
    if restarts && offset == 4 && !state.restarted {
        state.restarted = true;
        restart(state, misdeed);
        return None;
    }
    if misdeed == Misdeed::CrossRooms && offset == 3 {
        cross(state, name, other.as_deref());
    }
    let once = state.failed_once;
    state.failed_once |= offset == 3;
    match misdeed {
        Misdeed::AnswerLate | Misdeed::StoreTwice if offset == 3 && !once => {
            Some((503, r#"{"code":"store_failing"}"#.to_owned()))
        }
        Misdeed::RefuseAndStore if offset == 3 => Some((429, r#"{"code":"quota"}"#.to_owned())),
        _ => result("durable", offset),
    }
}

/// Tells the members of `name` a message of another room under their own next offset.
fn cross(state: &mut State, name: &str, other: Option<&str>) {
    let theirs = other.and_then(|other| state.rooms.get(other)?.stored.first()).cloned();
    let Some(mut theirs) = theirs else { return };
    let Some(room) = state.rooms.get_mut(name) else { return };
    room.head += 1;
    theirs.offset = room.head;
    room.tell(name, &theirs, Misdeed::None);
}

fn restart(state: &mut State, misdeed: Misdeed) {
    for (name, room) in &mut state.rooms {
        // Plain messages that were accepted have left before the node is killed.
        room.flush(name, misdeed);
        room.run += 1;
        room.seq = 0;
        for member in room.members.drain(..) {
            member.send(Frame::Cut);
        }
        if misdeed == Misdeed::RestartAndForget {
            let kept = room.stored.len().saturating_sub(2);
            room.stored.truncate(kept);
            room.head = room.stored.last().map_or(0, |kept| kept.offset);
        }
    }
}
