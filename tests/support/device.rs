//! A device: tokio-tungstenite's WebSocket. Frames of either encoding are read into the shape of their JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use roomcast_core::proto;
use roomcast_core::proto::server_frame::Frame;
use serde_json::{Map, Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{COMES_WITHIN, Doors, Encoding, comes};

/// A connection that has been let in.
#[derive(Debug)]
pub(crate) struct Device {
    socket: WebSocketStream<TcpStream>,
    pub(crate) encoding: Encoding,
    /// The first frame.
    pub(crate) welcome: Value,
    /// The subprotocol in the answer.
    pub(crate) subprotocol: Option<String>,
    /// Room -> its newest seq, for each room that the device is a member of.
    seqs: BTreeMap<String, u64>,
    /// Room -> the run of its welcome.
    runs: BTreeMap<String, Value>,
    /// Pieces of history in the order of arrival, apart from all other frames.
    pub(crate) pieces: Vec<Value>,
}

/// One thing that a device hears.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// A frame, in the shape of its JSON.
    Frame(Value),
    /// The close frame's code.
    Closed(u16),
    /// The connection ended without a close frame.
    Ended,
}

/// A device's handshake.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    pub(crate) encoding: Encoding,
    /// The text after the `?`.
    pub(crate) query: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// `SO_RCVBUF`, set before the connect. Without it, the kernel hides a slow device for megabytes.
    pub(crate) receive_buffer_bytes: Option<u32>,
}

impl Handshake {
    /// A handshake that asks for this encoding and nothing else.
    pub(crate) fn new(encoding: Encoding) -> Self {
        let headers = vec![("sec-websocket-protocol", encoding.subprotocol().to_owned())];
        Self { encoding, query: String::new(), headers, receive_buffer_bytes: None }
    }

    /// Adds `query`.
    pub(crate) fn query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }
}

impl Device {
    /// Joins a room with this encoding, and hears the welcome.
    pub(crate) async fn join(doors: &Doors, room: &str, encoding: Encoding) -> Self {
        Box::pin(Self::join_with(doors, room, Handshake::new(encoding))).await
    }

    /// Joins with this handshake, and hears the welcome.
    pub(crate) async fn join_with(doors: &Doors, room: &str, handshake: Handshake) -> Self {
        Box::pin(Self::try_join(doors, room, handshake))
            .await
            .unwrap_or_else(|error| panic!("{room}: {error}"))
    }

    /// Joins, unless the handshake is refused.
    pub(crate) async fn try_join(doors: &Doors, room: &str, handshake: Handshake) -> Result<Self, Error> {
        let Handshake { encoding, query, headers, receive_buffer_bytes } = handshake;
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let uri = format!("ws://{}/v1/rooms/{room}/ws{query}", doors.viewer);
        let mut request = uri.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        // Boxed: a handshake's future is larger than everything else in a test.
        let connecting = Box::pin(async {
            let socket = TcpSocket::new_v4()?;
            if let Some(bytes) = receive_buffer_bytes {
                socket.set_recv_buffer_size(bytes)?;
            }
            let stream = socket.connect(doors.viewer).await?;
            Box::pin(client_async(request, stream)).await
        });
        let (socket, answer) = comes("a handshake", connecting).await?;
        let subprotocol = answer.headers().get("sec-websocket-protocol");
        let subprotocol = subprotocol.map(|chosen| chosen.to_str().unwrap().to_owned());
        let welcome = Value::Null;
        let seqs = BTreeMap::new();
        let runs = BTreeMap::new();
        let mut device = Self { socket, encoding, welcome, subprotocol, seqs, runs, pieces: Vec::new() };
        device.welcome = match device.hear().await {
            // The room has no home that this node reaches.
            Heard::Frame(error) if error["code"] == "no_home" => return Err(Error::ConnectionClosed),
            Heard::Frame(welcome) => welcome,
            Heard::Closed(_) | Heard::Ended => return Err(Error::ConnectionClosed),
        };
        assert_eq!(device.welcome["kind"], "welcome", "{}", device.welcome);
        assert_eq!(device.welcome["room"], room);
        Ok(device)
    }

    /// Hears the next frame, and checks it: within a room no batch is lost without a word, and none comes
    /// twice.
    pub(crate) async fn hear(&mut self) -> Heard {
        comes("a frame", self.listen()).await
    }

    /// Hears the next frame without a time limit, and keeps pieces of history aside. Cancel safe: nothing is
    /// lost.
    pub(crate) async fn listen(&mut self) -> Heard {
        loop {
            match self.listen_once().await {
                Heard::Frame(frame) if frame["kind"] == "history" => self.pieces.push(frame),
                heard => return heard,
            }
        }
    }

    async fn listen_once(&mut self) -> Heard {
        let heard = self.hear_sometime().await;
        let frame = match heard {
            Ok(Message::Text(text)) => {
                assert_eq!(self.encoding, Encoding::Json, "text for a protobuf device");
                serde_json::from_str(&text).unwrap()
            }
            Ok(Message::Binary(bytes)) => {
                assert_eq!(self.encoding, Encoding::Proto, "binary for a JSON device");
                spelt(proto::ServerFrame::decode(bytes).unwrap())
            }
            Ok(Message::Close(close)) => return Heard::Closed(close.map_or(1005, |close| close.code.into())),
            Ok(other) => panic!("{other:?} is no frame of the protocol"),
            Err(_) => return Heard::Ended,
        };
        self.check(&frame);
        Heard::Frame(frame)
    }

    /// The next WebSocket message that is no ping or pong, unread and unchecked.
    pub(crate) async fn hear_bytes(&mut self) -> Result<Message, Error> {
        comes("a frame", self.hear_sometime()).await
    }

    async fn hear_sometime(&mut self) -> Result<Message, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(heard) => return heard,
                None => return Err(Error::ConnectionClosed),
            }
        }
    }

    fn check(&mut self, frame: &Value) {
        let room = || frame["room"].as_str().unwrap().to_owned();
        let seq = frame["seq"].as_u64().unwrap_or(0);
        match frame["kind"].as_str().unwrap() {
            "welcome" => {
                // Another node that takes the room over welcomes its members anew, to a run of its own. A link
                // that begins anew has them welcomed to the same run.
                let run = self.runs.insert(room(), frame["run"].clone());
                let before = self.seqs.insert(room(), seq);
                let is_later = before.is_none_or(|before| seq >= before);
                assert!(is_later || run != Some(frame["run"].clone()), "back in the run: {frame}");
            }
            "batch" => {
                let before = self.seqs.get_mut(&room()).unwrap_or_else(|| panic!("not joined: {frame}"));
                let is_level = seq == *before + 1;
                let is_refresh = seq >= *before && list(frame, "messages").is_empty();
                assert!(is_level || is_refresh, "seq {seq} after {before}: {frame}");
                *before = seq;
            }
            "history" => {
                let held = self.seqs.get(&room()).unwrap_or_else(|| panic!("not joined: {frame}"));
                let seqs = list(frame, "history").into_iter().map(|message| message["seq"].as_u64().unwrap());
                let seqs: Vec<u64> = seqs.collect();
                assert!(seqs.is_sorted() && seqs.iter().all(|seq| seq <= held), "{seqs:?} at {held}");
            }
            "left" | "closed" => {
                self.seqs.remove(&room());
                self.runs.remove(&room());
            }
            _ => {}
        }
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Value {
        match self.hear().await {
            Heard::Frame(frame) => frame,
            other => panic!("{other:?} in place of a frame"),
        }
    }

    /// The next frame of this kind; only batches may come before it.
    pub(crate) async fn notice(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame().await;
            if frame["kind"] == kind {
                return frame;
            }
            assert_eq!(frame["kind"], "batch", "{frame} before {kind}");
        }
    }

    /// The welcome of a node that takes the room over; batches of the former run may come before it.
    pub(crate) async fn rewelcome(&mut self) -> Value {
        let welcome = self.notice("welcome").await;
        assert_ne!(welcome["run"], self.welcome["run"], "{welcome}");
        assert_eq!(welcome["epoch"], self.welcome["epoch"], "{welcome}");
        assert!(welcome["reset"].is_null(), "{welcome}");
        welcome
    }

    /// The next batch with a publisher's message, increment or merge, without the audience.
    pub(crate) async fn batch(&mut self) -> Value {
        loop {
            let mut frame = self.frame().await;
            assert_eq!(frame["kind"], "batch", "{frame}");
            let messages = published(&frame);
            if messages.is_empty() && ["counters", "skipped", "latest"].iter().all(|it| frame[it].is_null()) {
                continue;
            }
            frame["messages"] = Value::Array(messages);
            return frame;
        }
    }

    /// The next batch with reliable messages; others may come before it.
    pub(crate) async fn told(&mut self) -> Value {
        loop {
            let frame = self.frame().await;
            assert_eq!(frame["kind"], "batch", "{frame}");
            if !frame["through"].is_null() {
                return frame;
            }
        }
    }

    /// Acknowledges the room's reliable messages up to and with `offset`.
    pub(crate) async fn ack(&mut self, room: &str, epoch: &Value, offset: u64) {
        self.say(&json!({"kind": "ack", "room": room, "epoch": epoch, "offset": offset})).await;
    }

    /// The frames before the pong: the node has then read all that the device said.
    pub(crate) async fn until_pong(&mut self) -> Vec<Value> {
        self.say(&json!({"kind": "ping"})).await;
        let mut heard = Vec::new();
        loop {
            let frame = self.frame().await;
            if frame["kind"] == "pong" {
                return heard;
            }
            heard.push(frame);
        }
    }

    /// The next `count` published messages, over any number of batches.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<Value> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.extend(list(&self.batch().await, "messages"));
        }
        assert_eq!(messages.len(), count, "more than was published: {messages:?}");
        messages
    }

    /// The payloads of the next `count` published messages, which are numbers.
    pub(crate) async fn numbers(&mut self, count: u64) -> Vec<u64> {
        let messages = self.messages(usize::try_from(count).unwrap()).await;
        messages.iter().map(|message| message["payload"].as_u64().unwrap()).collect()
    }

    /// The end of the connection; batches and notices may come before it.
    pub(crate) async fn end(&mut self) -> Heard {
        loop {
            let heard = self.hear().await;
            if !matches!(heard, Heard::Frame(_)) {
                return heard;
            }
        }
    }

    /// Says a frame, given in the shape of its JSON.
    pub(crate) async fn say(&mut self, frame: &Value) {
        self.try_say(frame).await.unwrap();
    }

    /// Says a frame, if the connection still takes one.
    pub(crate) async fn try_say(&mut self, frame: &Value) -> Result<(), Error> {
        let message = match self.encoding {
            Encoding::Json => Message::text(frame.to_string()),
            Encoding::Proto => Message::binary(device_frame(frame).encode_to_vec()),
        };
        self.socket.send(message).await
    }

    /// Joins a further room, and hears its welcome.
    pub(crate) async fn join_further(&mut self, room: &str) -> Value {
        self.join_further_from(room, None).await
    }

    /// Joins a further room with a cursor, and hears its welcome.
    pub(crate) async fn join_further_from(&mut self, room: &str, cursor: Option<&str>) -> Value {
        let mut join = json!({"kind": "join", "room": room});
        if let Some(cursor) = cursor {
            join["cursor"] = cursor.into();
        }
        self.say(&join).await;
        assert_eq!(self.notice("joined").await["room"], room);
        let welcome = self.notice("welcome").await;
        assert_eq!(welcome["room"], room);
        welcome
    }

    /// Leaves a room, and hears so.
    pub(crate) async fn leave(&mut self, room: &str) {
        self.say(&json!({"kind": "leave", "room": room})).await;
        assert_eq!(self.notice("left").await["room"], room);
    }

    /// Says close, and waits until the node has ended the connection.
    pub(crate) async fn close(mut self) {
        let closing = async {
            self.socket.close(None).await?;
            while let Some(heard) = self.socket.next().await {
                heard?;
            }
            Ok::<_, Error>(())
        };
        drop(comes("the end", closing).await);
    }

    /// The plain socket. Only the test reads it from now on.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }
}

/// A list in a frame. A list that was left out is empty.
pub(crate) fn list(frame: &Value, member: &str) -> Vec<Value> {
    frame[member].as_array().cloned().unwrap_or_default()
}

/// The publishers' messages of a batch, without the audience.
pub(crate) fn published(frame: &Value) -> Vec<Value> {
    let messages = list(frame, "messages").into_iter();
    messages.filter(|message| message["type"] != "online").collect()
}

/// The reliable messages of a frame, in the order of their application.
pub(crate) fn reliable(frame: &Value) -> Vec<Value> {
    let all = ["reliable", "carried", "messages"].into_iter().flat_map(|member| list(frame, member));
    all.filter(|message| !message["offset"].is_null()).collect()
}

/// The offsets of a frame's reliable messages.
pub(crate) fn offsets(frame: &Value) -> Vec<u64> {
    reliable(frame).iter().map(|message| message["offset"].as_u64().unwrap()).collect()
}

/// A frame's `after` and `through`.
pub(crate) fn span(frame: &Value) -> (u64, u64) {
    let number = |member: &str| frame[member].as_u64().unwrap_or_else(|| panic!("no {member}: {frame}"));
    (number("after"), number("through"))
}

/// A protobuf frame in the shape of its JSON.
fn spelt(frame: proto::ServerFrame) -> Value {
    match frame.frame.expect("a frame is of some kind") {
        Frame::Welcome(welcome) => {
            let mut frame = json!({
                "kind": "welcome", "room": welcome.room, "run": welcome.run, "seq": welcome.seq,
                "heartbeat_ms": welcome.heartbeat_ms, "resumed": welcome.resumed,
                "reset": if welcome.reset.is_empty() { Value::Null } else { welcome.reset.into() },
                "history": messages(welcome.history), "latest": messages(welcome.latest),
                "counters": welcome.counters.into_iter().collect::<BTreeMap<_, _>>(),
            });
            if !welcome.epoch.is_empty() {
                frame["epoch"] = welcome.epoch.into();
                frame["offset"] = welcome.offset.into();
                frame["reliable"] = messages(welcome.reliable);
                speak(&mut frame, [welcome.after, welcome.through], welcome.ack_within_ms);
            }
            frame
        }
        Frame::Batch(batch) => {
            let mut frame = json!({"kind": "batch", "room": batch.room, "run": batch.run, "seq": batch.seq,
                "messages": messages(batch.messages)});
            if batch.through > 0 {
                speak(&mut frame, [batch.after, batch.through], batch.ack_within_ms);
            }
            if !batch.carried.is_empty() {
                frame["carried"] = messages(batch.carried);
            }
            if !batch.skipped.is_empty() {
                frame["skipped"] = json!(batch.skipped);
            }
            if !batch.merged.is_empty() {
                frame["merged"] = json!(batch.merged);
            }
            if !batch.latest.is_empty() {
                frame["latest"] = messages(batch.latest);
            }
            let counters = batch.counters.into_iter();
            let counters: Map<String, Value> =
                counters.map(|(name, it)| (name, json!({"add": it.add, "total": it.total}))).collect();
            if !counters.is_empty() {
                frame["counters"] = Value::Object(counters);
            }
            frame
        }
        Frame::History(piece) => json!({
            "kind": "history", "room": piece.room, "run": piece.run, "seq": piece.seq,
            "history": messages(piece.history),
        }),
        Frame::Pong(_) => json!({"kind": "pong"}),
        Frame::Joined(joined) => json!({"kind": "joined", "room": joined.room}),
        Frame::Left(left) => json!({"kind": "left", "room": left.room}),
        Frame::Closed(closed) => json!({"kind": "closed", "room": closed.room, "code": closed.code}),
        Frame::Error(error) => {
            let mut frame = json!({"kind": "error", "code": error.code});
            if !error.room.is_empty() {
                frame["room"] = error.room.into();
            }
            if !error.field.is_empty() {
                frame["field"] = error.field.into();
            }
            frame
        }
        Frame::Token(taken) => json!({"kind": "token", "exp": taken.exp}),
        Frame::Bye(bye) => {
            json!({"kind": "bye", "code": bye.code, "reconnect_within_ms": bye.reconnect_within_ms})
        }
    }
}

/// Adds a frame's fields of the reliable stream.
fn speak(frame: &mut Value, [after, through]: [u64; 2], ack_within_ms: u32) {
    frame["after"] = after.into();
    frame["through"] = through.into();
    frame["ack_within_ms"] = ack_within_ms.into();
}

fn messages(messages: Vec<proto::Message>) -> Value {
    messages.into_iter().map(message).collect()
}

fn message(message: proto::Message) -> Value {
    let mut spelt = json!({"type": message.r#type, "at": message.at});
    if message.json {
        spelt["payload"] = serde_json::from_slice(&message.payload).unwrap();
    } else {
        spelt["payload_b64"] = BASE64.encode(&message.payload).into();
    }
    if !message.id.is_empty() {
        spelt["id"] = message.id.into();
    }
    if !message.key.is_empty() {
        spelt["key"] = message.key.into();
    }
    if message.seq > 0 {
        spelt["seq"] = message.seq.into();
    }
    if message.offset > 0 {
        spelt["offset"] = message.offset.into();
    }
    if message.recall > 0 {
        spelt["recall"] = message.recall.into();
    }
    spelt
}

/// A device's frame in protobuf.
fn device_frame(frame: &Value) -> proto::DeviceFrame {
    use proto::device_frame::Frame;
    let text = |member: &str| frame[member].as_str().unwrap_or_default().to_owned();
    let frame = match frame["kind"].as_str().unwrap() {
        "ping" => Frame::Ping(proto::Ping {}),
        "join" => Frame::Join(proto::Join { room: text("room"), cursor: text("cursor") }),
        "leave" => Frame::Leave(proto::Leave { room: text("room") }),
        "token" => Frame::Token(proto::Token { token: text("token") }),
        "ack" => {
            let entries = frame["acks"].as_array().cloned().unwrap_or_else(|| vec![frame.clone()]);
            let entry = |entry: &Value| proto::AckEntry {
                room: entry["room"].as_str().unwrap_or_default().to_owned(),
                epoch: entry["epoch"].as_str().unwrap_or_default().to_owned(),
                offset: entry["offset"].as_u64().unwrap(),
            };
            Frame::Ack(proto::Ack { acks: entries.iter().map(entry).collect() })
        }
        kind => panic!("no device says {kind}"),
    };
    proto::DeviceFrame { frame: Some(frame) }
}

const _: () = assert!(COMES_WITHIN.as_secs() > 16, "longer than any deadline a test waits out");
