//! A server with one reliable stream per room, that can break one promise of it on purpose.
//!
//! Every publish is a batch of its own, sent at once; a thread or two per connection. It stands in for the engine where
//! the load generator itself is under test.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::doors::{accept, read_request};
use prost::Message as _;
use roomcast::wire::proto;
use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::{Role, WebSocket};

/// Which promise the server breaks: for its second device and the third offset unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    None,
    /// The frame with it is lost; the next says `after`, so the device can pull.
    LoseFrame,
    /// A frame says that nothing is missing.
    HideOffset,
    /// The device is told of nothing any more.
    TellNothing,
    /// Every frame is carried once more.
    CarryTwice,
    /// It comes 3.5 s late, and everything after it.
    TellLate,
    /// The first attempt is stored and answered 503, the second one is a duplicate.
    AnswerLate,
    /// The first attempt is stored and answered 503, and so is the second.
    StoreTwice,
    /// No device is told of it, and the store does not have it.
    AnswerOnly,
    /// The store does not have it after the run.
    ForgetOne,
    AlterPayload,
    AlterId,
    /// A message of another room.
    CrossRooms,
    /// A message that nobody published.
    Invent,
    /// It is answered 429 and stored.
    RefuseAndStore,
    /// An offset that is given to nobody.
    SkipOffset,
    /// Whoever comes back is told that his cursor is ahead.
    ResetFalsely,
    /// Whoever comes back is given everything from the beginning without a reset, and no epoch.
    KnowNothing,
    /// A second after the first publish, every connection is cut and every room begins a new run.
    Restart,
    /// The same, and the last two offsets of each room are gone.
    RestartAndForget,
}

struct Kept {
    offset: u64,
    type_name: String,
    id: String,
    payload: String,
}

struct Member {
    proto: bool,
    frames: Sender<Option<Vec<u8>>>,
}

#[derive(Default)]
struct Room {
    seq: u64,
    run: u64,
    head: u64,
    stored: Vec<Kept>,
    members: Vec<Member>,
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<String, Room>,
    failed_once: bool,
    restarted: bool,
    /// Acknowledgements as they came: room, epoch and offset.
    acks: Vec<(String, String, u64)>,
    /// Upgrades that brought a cursor.
    resumed: u64,
}

/// The server's doors.
pub(crate) struct ReliableServer {
    pub(crate) viewer: SocketAddr,
    pub(crate) publisher: SocketAddr,
    pub(crate) ops: SocketAddr,
    state: Arc<Mutex<State>>,
}

const EPOCH: &str = "000000000000000e";

impl ReliableServer {
    /// Starts one on free ports.
    pub(crate) fn start(lapse: Lapse) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let viewer = listen();
        let publisher = listen();
        let ops = listen();
        let address = |listener: &TcpListener| listener.local_addr().expect("bound");
        let server = Self {
            viewer: address(&viewer),
            publisher: address(&publisher),
            ops: address(&ops),
            state: Arc::clone(&state),
        };
        let for_publishers = Arc::clone(&state);
        accept(viewer, move |stream| view(stream, &state, lapse));
        accept(publisher, move |stream| take_publishes(stream, &for_publishers, lapse));
        accept(ops, move |stream| take_publishes(stream, &Arc::default(), lapse));
        server
    }

    /// Acknowledgements so far.
    pub(crate) fn acks(&self) -> Vec<(String, String, u64)> {
        lock(&self.state).acks.clone()
    }

    /// Devices that came with a cursor.
    pub(crate) fn resumed(&self) -> u64 {
        lock(&self.state).resumed
    }
}

fn lock(state: &Arc<Mutex<State>>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands behind `after` in a request, if it is there.
fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn offset_of(cursor: Option<&str>) -> u64 {
    cursor.and_then(|cursor| cursor.split_once(':')?.1.parse().ok()).unwrap_or(0)
}

#[expect(clippy::result_large_err, reason = "tungstenite's signature")]
fn view(mut stream: TcpStream, state: &Arc<Mutex<State>>, lapse: Lapse) {
    let mut head = vec![0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(stream.peek(&mut head), Ok(1..)) {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let name = target.split(['/', '?']).nth(3).unwrap_or_default().to_owned();
    if target.split('?').next().is_some_and(|path| path.ends_with("/reliable")) {
        let page = page(&lock(state), &name, parameter(&target, "after"), lapse).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
        drop(stream.write_all(format!("{head}{page}").as_bytes()));
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
    let Ok(mut socket) = upgraded else { return };
    let Ok(reading) = socket.get_ref().try_clone() else { return };
    let (frames, receiver) = channel();
    join(&mut lock(state), (&name, &target), Member { proto: is_proto, frames }, lapse);
    let for_reader = Arc::clone(state);
    std::thread::spawn(move || listen(reading, &for_reader, is_proto));
    while let Ok(Some(frame)) = receiver.recv() {
        if frame.is_empty() {
            // A pause: what comes after it comes late.
            std::thread::park_timeout(Duration::from_millis(3_500));
            continue;
        }
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
                lock(state).acks.extend(acks);
            }
            continue;
        }
        let frame: Value = serde_json::from_slice(&bytes).expect("a device frame");
        if frame["kind"] == "ack" {
            let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
            let ack = (text("room"), text("epoch"), frame["offset"].as_u64().unwrap_or(0));
            lock(state).acks.push(ack);
        }
    }
}

fn page(state: &State, name: &str, cursor: Option<&str>, lapse: Lapse) -> Value {
    let Some(room) = state.rooms.get(name) else {
        return json!({"room": name, "epoch": EPOCH, "offset": 0, "reset": null, "after": 0, "through": 0, "reliable": []});
    };
    let after = offset_of(cursor);
    // Pages of at most four, so that devices have to go on.
    let through = room.head.min(after + 4);
    let in_page = |kept: &&Kept| kept.offset > after && kept.offset <= through;
    let forgotten = |kept: &&Kept| lapse == Lapse::ForgetOne && kept.offset == 3;
    let messages: Vec<Value> =
        room.stored.iter().filter(in_page).filter(|kept| !forgotten(kept)).map(spell).collect();
    json!({"room": name, "epoch": EPOCH, "offset": room.head, "reset": null, "after": after, "through": through,
           "reliable": messages})
}

fn spell(kept: &Kept) -> Value {
    let payload: Value = serde_json::from_str(&kept.payload).expect("JSON");
    let mut message = json!({"type": kept.type_name, "payload": payload, "at": 1});
    if kept.offset > 0 {
        message["offset"] = kept.offset.into();
        message["id"] = kept.id.clone().into();
    }
    message
}

fn spell_proto(kept: &Kept) -> proto::Message {
    proto::Message {
        r#type: kept.type_name.clone(),
        payload: kept.payload.clone().into_bytes().into(),
        json: true,
        id: kept.id.clone(),
        offset: kept.offset,
        ..proto::Message::default()
    }
}

fn join(state: &mut State, (name, target): (&str, &str), member: Member, lapse: Lapse) {
    let cursor = parameter(target, "cursor");
    state.resumed += u64::from(cursor.is_some());
    let room = state.rooms.entry(name.to_owned()).or_default();
    let mut after = offset_of(cursor);
    let mut reset = "";
    if after > room.head || (lapse == Lapse::ResetFalsely && after > 0) {
        (after, reset) = (0, "ahead");
    }
    let epoch = if lapse == Lapse::KnowNothing { "" } else { EPOCH };
    let missed: Vec<&Kept> = if epoch.is_empty() {
        Vec::new()
    } else {
        room.stored.iter().filter(|kept| kept.offset > after).collect()
    };
    let through = if epoch.is_empty() { 0 } else { room.head };
    let run = format!("{:016x}", room.run);
    let frame = if member.proto {
        let welcome = proto::Welcome {
            room: name.to_owned(),
            run,
            seq: room.seq,
            heartbeat_ms: 25_000,
            epoch: epoch.to_owned(),
            offset: through,
            reset: reset.to_owned(),
            after,
            through,
            ack_within_ms: 50,
            reliable: missed.into_iter().map(spell_proto).collect(),
            ..proto::Welcome::default()
        };
        proto::ServerFrame { frame: Some(proto::server_frame::Frame::Welcome(welcome)) }.encode_to_vec()
    } else {
        let reliable: Vec<Value> = missed.into_iter().map(spell).collect();
        let mut welcome = json!({"kind": "welcome", "room": name, "run": run, "seq": room.seq, "heartbeat_ms": 25_000,
            "reset": if reset.is_empty() { Value::Null } else { reset.into() }});
        if !epoch.is_empty() {
            welcome["epoch"] = epoch.into();
            welcome["offset"] = through.into();
            welcome["after"] = after.into();
            welcome["through"] = through.into();
            welcome["ack_within_ms"] = 50.into();
            welcome["reliable"] = reliable.into();
        }
        welcome.to_string().into_bytes()
    };
    drop(member.frames.send(Some(frame)));
    room.members.push(member);
}

/// What one frame says.
struct Said<'a> {
    name: &'a str,
    room: &'a Room,
    after: u64,
    through: u64,
    is_carried: bool,
}

fn frame(said: &Said<'_>, messages: &[&Kept], is_proto: bool) -> Vec<u8> {
    let Said { name, room, after, through, is_carried } = said;
    let run = format!("{:016x}", room.run);
    if is_proto {
        let spelt: Vec<proto::Message> = messages.iter().map(|kept| spell_proto(kept)).collect();
        let (carried, messages) = if *is_carried { (spelt, Vec::new()) } else { (Vec::new(), spelt) };
        let batch = proto::Batch {
            room: (*name).to_owned(),
            run,
            seq: room.seq,
            after: *after,
            through: *through,
            ack_within_ms: 50,
            carried,
            messages,
            ..proto::Batch::default()
        };
        return proto::ServerFrame { frame: Some(proto::server_frame::Frame::Batch(batch)) }.encode_to_vec();
    }
    let spelt: Vec<Value> = messages.iter().map(|kept| spell(kept)).collect();
    let field = if *is_carried { "carried" } else { "messages" };
    let mut batch = json!({"kind": "batch", "room": name, "run": run, "seq": room.seq, field: spelt});
    if *through > 0 {
        batch["after"] = (*after).into();
        batch["through"] = (*through).into();
        batch["ack_within_ms"] = 50.into();
    }
    batch.to_string().into_bytes()
}

/// Sends the newest message to every member.
fn tell(name: &str, room: &mut Room, newest: &Kept, lapse: Lapse) {
    room.seq += 1;
    let offset = newest.offset;
    let after = offset.saturating_sub(1);
    let strange = |type_name: &str, id: &str, payload: &str| Kept {
        offset,
        type_name: type_name.to_owned(),
        id: id.to_owned(),
        payload: payload.to_owned(),
    };
    for (index, member) in room.members.iter().enumerate() {
        let said = Said { name, room, after, through: offset, is_carried: false };
        let send = |said: &Said<'_>, messages: &[&Kept]| {
            drop(member.frames.send(Some(frame(said, messages, member.proto))));
        };
        let chosen = index == 1 && offset > 0;
        match lapse {
            Lapse::TellLate if chosen && offset == 3 => {
                drop(member.frames.send(Some(Vec::new())));
                send(&said, &[newest]);
            }
            Lapse::LoseFrame if chosen && offset == 3 => {
                send(&Said { after: 0, through: 0, ..said }, &[]);
            }
            Lapse::HideOffset if chosen && offset == 3 => send(&said, &[]),
            Lapse::TellNothing if chosen && offset >= 3 => send(&Said { after: 0, through: 0, ..said }, &[]),
            Lapse::AnswerOnly if offset == 3 => send(&Said { after: 0, through: 0, ..said }, &[]),
            Lapse::AnswerOnly if offset > 3 => {
                send(&Said { after: if offset == 4 { 2 } else { after }, ..said }, &[newest]);
            }
            Lapse::AlterPayload if chosen && offset == 3 => {
                let other = newest.payload.replace(|letter: char| letter.is_ascii_uppercase(), "_");
                send(&said, &[&strange(&newest.type_name, &newest.id, &other)]);
            }
            Lapse::AlterId if chosen && offset == 3 => {
                send(&said, &[&strange(&newest.type_name, "lg-other", &newest.payload)]);
            }
            Lapse::Invent if chosen && offset == 3 => {
                send(&said, &[&strange("coupon", "lg-1", "\"free money\"")]);
            }
            Lapse::CarryTwice => {
                send(&said, &[newest]);
                if offset > 0 {
                    send(&Said { is_carried: true, ..said }, &[newest]);
                }
            }
            _ => send(&said, &[newest]),
        }
    }
}

/// One message of a publish request.
struct Draft {
    type_name: String,
    id: String,
    payload: String,
}

fn draft(body: &[u8], is_proto: bool) -> Draft {
    if is_proto {
        let message = proto::PublishRequest::decode(body).expect("a request").messages.remove(0);
        let payload = String::from_utf8(message.payload.to_vec()).expect("JSON is text");
        return Draft { type_name: message.r#type, id: message.id, payload };
    }
    let message: Value = serde_json::from_slice(body).expect("a request");
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    Draft { type_name: text("type"), id: text("id"), payload: message["payload"].to_string() }
}

fn take_publishes(stream: TcpStream, state: &Arc<Mutex<State>>, lapse: Lapse) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let answered = if request.is_post {
            take(&mut lock(state), &request.room, draft(&request.body, request.is_proto), lapse)
        } else {
            Some((200, "{}".to_owned()))
        };
        // No answer: the connection is cut, as by a node that was killed.
        let Some((code, answer)) = answered else { return };
        let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn take(state: &mut State, name: &str, draft: Draft, lapse: Lapse) -> Option<(u16, String)> {
    let result = |result: &str, offset: u64| {
        Some((200, json!({"results": [{"result": result, "offset": offset}]}).to_string()))
    };
    let other = state.rooms.keys().find(|other| *other != name).cloned();
    let room = state.rooms.entry(name.to_owned()).or_default();
    if draft.id.is_empty() {
        let kept = Kept { offset: 0, type_name: draft.type_name, id: String::new(), payload: draft.payload };
        tell(name, room, &kept, Lapse::None);
        return result("accepted", 0);
    }
    let known = room.stored.iter().find(|kept| kept.id == draft.id).map(|kept| kept.offset);
    if let Some(offset) = known.filter(|_| lapse != Lapse::StoreTwice) {
        return result("duplicate", offset);
    }
    room.head += if lapse == Lapse::SkipOffset && room.head == 2 { 2 } else { 1 };
    let offset = room.head;
    let kept = Kept { offset, type_name: draft.type_name, id: draft.id, payload: draft.payload };
    tell(name, room, &kept, lapse);
    if !(lapse == Lapse::AnswerOnly && offset == 3) {
        room.stored.push(kept);
    }
    let restarts = matches!(lapse, Lapse::Restart | Lapse::RestartAndForget);
    if restarts && offset == 4 && !state.restarted {
        state.restarted = true;
        restart(state, lapse);
        return None;
    }
    if lapse == Lapse::CrossRooms && offset == 3 {
        cross(state, name, other.as_deref());
    }
    let once = state.failed_once;
    state.failed_once |= offset == 3;
    match lapse {
        Lapse::AnswerLate | Lapse::StoreTwice if offset == 3 && !once => {
            Some((503, r#"{"code":"store_failing"}"#.to_owned()))
        }
        Lapse::RefuseAndStore if offset == 3 => Some((429, r#"{"code":"quota"}"#.to_owned())),
        _ => result("durable", offset),
    }
}

/// Tells the members of `name` a message of another room, as the next of their own.
fn cross(state: &mut State, name: &str, other: Option<&str>) {
    let other = other.and_then(|other| state.rooms.get(other)?.stored.first());
    let Some(theirs) = other.map(|kept| (kept.type_name.clone(), kept.id.clone(), kept.payload.clone()))
    else {
        return;
    };
    let Some(room) = state.rooms.get_mut(name) else { return };
    room.head += 1;
    let kept = Kept { offset: room.head, type_name: theirs.0, id: theirs.1, payload: theirs.2 };
    tell(name, room, &kept, Lapse::None);
}

fn restart(state: &mut State, lapse: Lapse) {
    for room in state.rooms.values_mut() {
        room.run += 1;
        room.seq = 0;
        for member in room.members.drain(..) {
            drop(member.frames.send(None));
        }
        if lapse == Lapse::RestartAndForget {
            let kept = room.stored.len().saturating_sub(2);
            room.stored.truncate(kept);
            room.head = room.stored.last().map_or(0, |kept| kept.offset);
        }
    }
}
