//! A server small enough to be seen through, which speaks roomcast's protocol and can break one promise on purpose.
//!
//! One batch per room and 50 ms, JSON or protobuf, a thread per connection. It stands in for the engine where the
//! load generator itself is under test.

mod doors;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doors::{accept, read_request};
use prost::Message as _;
use roomcast::wire::proto;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;

/// Which promise the server breaks, for its second device and third batch unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misdeed {
    None,
    LoseOne,
    LoseOneForAll,
    SendTwice,
    PublishTwiceForAll,
    Swap,
    SwapForAll,
    AlterOneByte,
    PassOverWithoutAWord,
    PassOverAndSayExactly,
    PassOverAndMiscount,
    CutOff,
    ShedAndDeliver,
    /// Every publish: 503 `inbox_full`, and nothing is delivered.
    RefuseAll,
    /// Every publish: 500.
    FailAll,
    /// Every publish: 200, and each message a duplicate.
    DuplicateAll,
    /// One publish: 503 `inbox_full`, and its message is delivered.
    RefuseAndDeliver,
    /// One publish: 500, and its message is delivered.
    FailOne,
    /// Not at all what a viewer door answers.
    NotRoomcast,
    /// None; chat is sampled to one message a flush, and each batch says how many were shed before it left.
    ShedAndSay,
    /// The same, but the third batch says one less.
    ShedAndSayLess,
    /// The same, but every batch says one more.
    ShedAndSayMore,
    /// One gift is in no batch.
    LoseGift,
    /// The counter's totals are one off from the third batch on.
    MiscountTotal,
    /// The counter is one more for a device than for the others.
    MiscountForOne,
    /// Messages of one key are merged in each flush, and one of a merged message's counts is lost.
    MergeAndForget,
    /// Messages of one key are merged in each flush, exactly.
    Merge,
    /// Who joins after the first publish is given a welcome, and nothing more.
    ForgetLate,
    /// None, and at the operator door it says what its processor did: [`PROCESSOR_US`] more each time it is asked.
    SayProcessorTime,
}

/// What the processor of [`Misdeed::SayProcessorTime`] seems to do between two questions.
pub(crate) const PROCESSOR_US: u64 = 6_000;

/// The server's doors.
#[derive(Debug)]
pub(crate) struct FakeServer {
    pub(crate) viewer: SocketAddr,
    pub(crate) publisher: SocketAddr,
    pub(crate) ops: SocketAddr,
    /// Dropped with the server, which ends the flushing thread.
    _stop: Sender<()>,
}

struct Member {
    proto: bool,
    /// It joined after the first publish.
    is_late: bool,
    frames: Sender<Option<Vec<u8>>>,
    /// What it missed and has not been told of.
    missed: u64,
}

#[derive(Default)]
struct Room {
    seq: u64,
    gathered: Vec<Draft>,
    members: Vec<Member>,
    /// Where the counter stands.
    total: u64,
}

/// One message of a publish request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Draft {
    type_name: String,
    key: String,
    count: u64,
    payload: String,
}

/// What a batch says beside its messages.
#[derive(Debug, Clone, Copy, Default)]
struct Aside {
    /// Chat that was shed, or in batches that were passed over.
    skipped: u64,
    /// Gifts that were merged.
    merged: u64,
    /// The counter's growth and total.
    likes: Option<(u64, u64)>,
}

type Rooms = Arc<Mutex<BTreeMap<String, Room>>>;

impl FakeServer {
    /// Starts one on free ports.
    pub(crate) fn start(misdeed: Misdeed) -> Self {
        let rooms: Rooms = Arc::default();
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let viewer = listen();
        let publisher = listen();
        let ops = listen();
        let (stop, stopped) = channel();
        let fake = Self {
            viewer: viewer.local_addr().expect("bound"),
            publisher: publisher.local_addr().expect("bound"),
            ops: ops.local_addr().expect("bound"),
            _stop: stop,
        };
        let for_viewers = Arc::clone(&rooms);
        let for_publishers = Arc::clone(&rooms);
        let for_flushes = rooms;
        accept(viewer, move |stream| view(stream, &for_viewers, misdeed));
        accept(publisher, move |stream| take_publishes(stream, &for_publishers, misdeed));
        let asked = AtomicU64::new(0);
        accept(ops, move |stream| match misdeed {
            Misdeed::SayProcessorTime => answer_operators(stream, &asked),
            _ => take_publishes(stream, &Rooms::default(), Misdeed::None),
        });
        std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(50))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                let mut rooms = for_flushes.lock().unwrap_or_else(PoisonError::into_inner);
                rooms.iter_mut().for_each(|(name, room)| flush(name, room, misdeed));
            }
        });
        fake
    }
}

#[expect(clippy::result_large_err, reason = "tungstenite's signature")]
fn view(mut stream: TcpStream, rooms: &Rooms, misdeed: Misdeed) {
    if misdeed == Misdeed::NotRoomcast {
        drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
        return;
    }
    let mut name = String::new();
    let mut is_proto = false;
    let upgraded = tungstenite::accept_hdr(stream, |request: &Request, mut response: Response| {
        name = request.uri().path().split('/').nth(3).unwrap_or_default().to_owned();
        let asked = request.headers().get("sec-websocket-protocol").cloned();
        is_proto = asked.as_ref().is_some_and(|asked| asked.as_bytes().ends_with(b"proto"));
        let chosen = asked.unwrap_or(HeaderValue::from_static("roomcast.v1.json"));
        response.headers_mut().insert("sec-websocket-protocol", chosen);
        Ok::<_, ErrorResponse>(response)
    });
    let Ok(mut socket) = upgraded else { return };
    let frames = join(rooms, &name, is_proto);
    while let Ok(Some(frame)) = frames.recv() {
        let message = if is_proto {
            tungstenite::Message::binary(frame)
        } else {
            tungstenite::Message::text(String::from_utf8(frame).expect("JSON is text"))
        };
        if socket.send(message).is_err() {
            return;
        }
    }
}

fn join(rooms: &Rooms, name: &str, is_proto: bool) -> Receiver<Option<Vec<u8>>> {
    let (frames, receiver) = channel();
    let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    let room = rooms.entry(name.to_owned()).or_default();
    let welcome = if is_proto {
        let frame = proto::server_frame::Frame::Welcome(proto::Welcome {
            room: name.to_owned(),
            run: "0a".to_owned(),
            seq: room.seq,
            heartbeat_ms: 25_000,
            ..proto::Welcome::default()
        });
        proto::ServerFrame { frame: Some(frame) }.encode_to_vec()
    } else {
        format!(r#"{{"kind":"welcome","room":"{name}","run":"0a","seq":{},"heartbeat_ms":25000}}"#, room.seq)
            .into_bytes()
    };
    frames.send(Some(welcome)).expect("the receiver is here");
    let is_late = room.seq > 0 || !room.gathered.is_empty();
    room.members.push(Member { proto: is_proto, is_late, frames, missed: 0 });
    receiver
}

fn batch(name: &str, seq: u64, drafts: &[Draft], aside: Aside, is_proto: bool) -> Vec<u8> {
    let Aside { skipped, merged, likes } = aside;
    if is_proto {
        let message = |draft: &Draft| proto::Message {
            r#type: draft.type_name.clone(),
            payload: draft.payload.clone().into_bytes().into(),
            json: true,
            key: draft.key.clone(),
            count: if draft.count == 1 { 0 } else { draft.count },
            ..proto::Message::default()
        };
        let one =
            |name: &str, count: u64| (count > 0).then(|| (name.to_owned(), count)).into_iter().collect();
        let change = |(add, total)| ("like".to_owned(), proto::CounterChange { add, total });
        let batch = proto::Batch {
            room: name.to_owned(),
            run: "0a".to_owned(),
            seq,
            skipped: one("chat", skipped),
            merged: one("gift", merged),
            counters: likes.map(change).into_iter().collect(),
            messages: drafts.iter().map(message).collect(),
            ..proto::Batch::default()
        };
        return proto::ServerFrame { frame: Some(proto::server_frame::Frame::Batch(batch)) }.encode_to_vec();
    }
    let spell = |draft: &Draft| {
        let key = if draft.key.is_empty() { String::new() } else { format!(r#","key":"{}""#, draft.key) };
        let count = if draft.count == 1 { String::new() } else { format!(r#","count":{}"#, draft.count) };
        format!(r#"{{"type":"{}","payload":{},"at":1{key}{count}}}"#, draft.type_name, draft.payload)
    };
    let messages: Vec<String> = drafts.iter().map(spell).collect();
    let skipped = if skipped > 0 { format!(r#""skipped":{{"chat":{skipped}}},"#) } else { String::new() };
    let merged = if merged > 0 { format!(r#""merged":{{"gift":{merged}}},"#) } else { String::new() };
    let likes =
        likes.map(|(add, total)| format!(r#""counters":{{"like":{{"add":{add},"total":{total}}}}},"#));
    format!(
        r#"{{"kind":"batch","room":"{name}","run":"0a","seq":{seq},{skipped}{merged}{}"messages":[{}]}}"#,
        likes.unwrap_or_default(),
        messages.join(",")
    )
    .into_bytes()
}

/// What leaves of what was gathered, and what is said of the rest.
fn cut(room: &mut Room, misdeed: Misdeed) -> (Vec<Draft>, Aside) {
    let now = room.seq == 3;
    let gathered = std::mem::take(&mut room.gathered);
    let (likes, mut drafts): (Vec<Draft>, Vec<Draft>) =
        gathered.into_iter().partition(|draft| draft.type_name == "like");
    let mut aside = Aside::default();
    if !likes.is_empty() {
        let add = likes.iter().map(|draft| draft.count).sum();
        room.total += add + u64::from(misdeed == Misdeed::MiscountTotal && now);
        aside.likes = Some((add, room.total));
    }
    let is = |draft: &Draft, type_name: &str| draft.type_name == type_name;
    if matches!(misdeed, Misdeed::ShedAndSay | Misdeed::ShedAndSayLess | Misdeed::ShedAndSayMore) {
        let mut seen = 0;
        let before = drafts.len();
        drafts.retain(|draft| {
            seen += u64::from(is(draft, "chat"));
            !is(draft, "chat") || seen == 1
        });
        aside.skipped = (before - drafts.len()) as u64;
        aside.skipped -= u64::from(misdeed == Misdeed::ShedAndSayLess && now);
        aside.skipped += u64::from(misdeed == Misdeed::ShedAndSayMore);
    }
    if matches!(misdeed, Misdeed::Merge | Misdeed::MergeAndForget) {
        let mut kept: Vec<Draft> = Vec::new();
        for draft in drafts {
            match kept.iter_mut().find(|kept| is(kept, "gift") && kept.key == draft.key) {
                Some(first) if is(&draft, "gift") => {
                    aside.merged += 1;
                    let sum = first.count + draft.count;
                    *first = Draft { count: sum - u64::from(misdeed == Misdeed::MergeAndForget), ..draft };
                }
                _ => kept.push(draft),
            }
        }
        drafts = kept;
    }
    match misdeed {
        Misdeed::LoseOneForAll if now => drop(drafts.remove(0)),
        Misdeed::PublishTwiceForAll if now => drafts.push(drafts[0].clone()),
        Misdeed::SwapForAll if now => drafts.reverse(),
        Misdeed::LoseGift if now => {
            if let Some(gift) = drafts.iter().position(|draft| is(draft, "gift")) {
                drafts.remove(gift);
            }
        }
        _ => {}
    }
    (drafts, aside)
}

fn flush(name: &str, room: &mut Room, misdeed: Misdeed) {
    if room.gathered.is_empty() {
        return;
    }
    room.seq += 1;
    let seq = room.seq;
    let now = seq == 3;
    let (drafts, aside) = cut(room, misdeed);
    for (index, member) in room.members.iter_mut().enumerate() {
        if misdeed == Misdeed::ForgetLate && member.is_late {
            continue;
        }
        let told = Aside { skipped: aside.skipped + member.missed, ..aside };
        let honest = batch(name, seq, &drafts, told, member.proto);
        member.missed = 0;
        let send = |frame: Vec<u8>| drop(member.frames.send(Some(frame)));
        if !(now && index == 1) {
            send(honest);
            continue;
        }
        let mut mine = drafts.clone();
        let mut told = told;
        match misdeed {
            Misdeed::LoseOne => drop(mine.remove(0)),
            Misdeed::Swap => mine.reverse(),
            Misdeed::SendTwice => send(honest),
            Misdeed::AlterOneByte => {
                let last = mine[0].payload.len() - 2;
                let other = if mine[0].payload.as_bytes()[last] == b'x' { "y" } else { "x" };
                mine[0].payload.replace_range(last..=last, other);
            }
            Misdeed::MiscountForOne => told.likes = told.likes.map(|(add, total)| (add + 1, total + 1)),
            Misdeed::PassOverWithoutAWord => continue,
            Misdeed::PassOverAndSayExactly => {
                member.missed = mine.len() as u64;
                continue;
            }
            Misdeed::PassOverAndMiscount => {
                member.missed = mine.len() as u64 + 1;
                continue;
            }
            Misdeed::CutOff => {
                drop(member.frames.send(None));
                continue;
            }
            _ => {}
        }
        send(batch(name, seq, &mine, told, member.proto));
    }
}

/// Answers whatever is asked with the one metric there is.
fn answer_operators(stream: TcpStream, asked: &AtomicU64) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut path = String::new();
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(asked) = line.strip_prefix("GET ") {
            asked.split(' ').next().unwrap_or_default().clone_into(&mut path);
        }
    }
    let times = asked.fetch_add(u64::from(path == "/metrics"), Ordering::Relaxed);
    let used = PROCESSOR_US * times;
    let metrics =
        format!("# TYPE roomcast_cpu_microseconds_total counter\nroomcast_cpu_microseconds_total {used}\n");
    let answer = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{metrics}", metrics.len());
    drop(reader.get_mut().write_all(answer.as_bytes()));
}

fn take_publishes(stream: TcpStream, rooms: &Rooms, misdeed: Misdeed) {
    let mut reader = BufReader::new(stream);
    let mut taken = 0;
    while let Some(request) = read_request(&mut reader) {
        let drafts = if request.is_post { drafts(&request.body, request.is_proto) } else { Vec::new() };
        taken += drafts.len();
        let (code, answer) = answer(misdeed, drafts.len(), taken);
        if !matches!(misdeed, Misdeed::RefuseAll | Misdeed::FailAll | Misdeed::DuplicateAll) {
            let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
            rooms.entry(request.room).or_default().gathered.extend(drafts);
        }
        let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The status and body for a request of `messages` messages, with which the connection has had `taken` in all.
fn answer(misdeed: Misdeed, messages: usize, taken: usize) -> (u16, String) {
    let results = |result: &str| {
        let each = vec![format!(r#"{{"result":"{result}"}}"#); messages].join(",");
        format!(r#"{{"results":[{each}]}}"#)
    };
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

/// The messages of a request, their payloads as JSON text.
fn drafts(body: &[u8], is_proto: bool) -> Vec<Draft> {
    if is_proto {
        let request = proto::PublishRequest::decode(body).expect("a request");
        let draft = |message: proto::PublishMessage| Draft {
            type_name: message.r#type,
            key: message.key,
            count: message.count.unwrap_or(1),
            payload: String::from_utf8(message.payload.to_vec()).expect("JSON is text"),
        };
        return request.messages.into_iter().map(draft).collect();
    }
    let request: serde_json::Value = serde_json::from_slice(body).expect("a request");
    let messages = request["messages"].as_array().cloned().unwrap_or_else(|| vec![request]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let draft = |message: &serde_json::Value| Draft {
        type_name: text(&message["type"]),
        key: text(&message["key"]),
        count: message["count"].as_u64().unwrap_or(1),
        payload: message["payload"].to_string(),
    };
    messages.iter().map(draft).collect()
}
