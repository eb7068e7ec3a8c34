//! The world's devices: they read their pipe, decode each frame independently of the engine's encoder, and note down
//! what they were told for the oracle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use prost::Message as _;
use roomcast::room::id::Encoding;
use roomcast::wire::proto::{self, server_frame::Frame};
use serde_json::Value;

use crate::socket::Pipe;

/// A message as a device sees it: type, payload, key.
pub(crate) type Told = (String, String, String);
/// Counts by type.
pub(crate) type Counts = BTreeMap<String, u64>;

/// What a batch brings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Content {
    pub(crate) messages: Vec<Told>,
    pub(crate) merged: Counts,
    /// Increment and total.
    pub(crate) counters: BTreeMap<String, (u64, u64)>,
}

/// One frame about one room.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    Welcome { run: String, seq: u64, history: Vec<Told>, latest: Vec<Told>, totals: Counts },
    Batch { run: String, seq: u64, skipped: Counts, latest: Vec<Told>, content: Content },
    Left,
    Closed,
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) shard: usize,
    pub(crate) key: u64,
    pub(crate) encoding: Encoding,
    pub(crate) pipe: Rc<RefCell<Pipe>>,
    /// Its pipe takes everything at once.
    pub(crate) healthy: bool,
    /// It reads nothing.
    pub(crate) stalled: bool,
    /// By room, in order.
    pub(crate) heard: Vec<(String, Heard)>,
    /// Rooms it has asked to join and not to leave.
    pub(crate) rooms: Vec<String>,
    /// Room and code.
    pub(crate) errors: Vec<(String, String)>,
    pub(crate) bye: bool,
    /// The code of the close frame it got.
    pub(crate) closed: Option<u16>,
    buffer: Vec<u8>,
}

impl Device {
    pub(crate) fn new(
        shard: usize,
        key: u64,
        encoding: Encoding,
        pipe: Rc<RefCell<Pipe>>,
        healthy: bool,
    ) -> Self {
        Self {
            shard,
            key,
            encoding,
            pipe,
            healthy,
            stalled: false,
            heard: Vec::new(),
            rooms: Vec::new(),
            errors: Vec::new(),
            bye: false,
            closed: None,
            buffer: Vec::new(),
        }
    }

    /// Whether its connection still stands.
    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none() && !self.pipe.borrow().ended
    }

    /// Reads at most `bytes_max`. The whole frames among them; whether the shard has to be told that it may write.
    pub(crate) fn read(&mut self, bytes_max: usize) -> bool {
        let mut pipe = self.pipe.borrow_mut();
        let bytes = bytes_max.min(pipe.in_flight.len());
        self.buffer.extend(pipe.in_flight.drain(..bytes));
        let tell = bytes > 0 && std::mem::take(&mut pipe.armed);
        drop(pipe);
        while let Some((opcode, payload)) = self.next_frame() {
            match opcode {
                1 => self.hear_json(&payload),
                2 => self.hear_proto(&payload),
                8 => self.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("no frame of opcode {other} was asked for"),
            }
        }
        tell
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.buffer.first()?, *self.buffer.get(1)?);
        assert_eq!(first & 0xf0, 0x80, "whole, without reserved bits");
        assert!(second < 128, "a server never masks");
        let (header, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(self.buffer.get(2..10)?.try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        let payload = self.buffer.get(header..header + length)?.to_vec();
        self.buffer.drain(..header + length);
        Some((first & 0x0f, payload))
    }

    fn hear_json(&mut self, payload: &[u8]) {
        assert_eq!(self.encoding, Encoding::Json);
        let frame: Value = serde_json::from_slice(payload).expect("a frame is JSON");
        let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        let room = text("room");
        let (run, seq) = (text("run"), frame["seq"].as_u64().unwrap_or(0));
        let told = |name: &str| json_messages(&frame[name]);
        let heard = match frame["kind"].as_str().expect("a frame has a kind") {
            "welcome" => Heard::Welcome {
                run,
                seq,
                history: told("history"),
                latest: told("latest"),
                totals: json_counts(&frame["counters"]),
            },
            "batch" => {
                let counters = frame["counters"].as_object().into_iter().flatten();
                let change = |of: &Value| (of["add"].as_u64().unwrap(), of["total"].as_u64().unwrap());
                let content = Content {
                    messages: told("messages"),
                    merged: json_counts(&frame["merged"]),
                    counters: counters.map(|(name, of)| (name.clone(), change(of))).collect(),
                };
                Heard::Batch {
                    run,
                    seq,
                    skipped: json_counts(&frame["skipped"]),
                    latest: told("latest"),
                    content,
                }
            }
            "left" => Heard::Left,
            "closed" => Heard::Closed,
            "joined" | "pong" => return,
            "error" => return self.errors.push((room, text("code"))),
            "bye" => return self.bye = true,
            other => panic!("unknown kind {other}"),
        };
        self.heard.push((room, heard));
    }

    fn hear_proto(&mut self, payload: &[u8]) {
        assert_eq!(self.encoding, Encoding::Proto);
        let frame =
            proto::ServerFrame::decode(payload).expect("a frame is a ServerFrame").frame.expect("a kind");
        let (room, heard) = match frame {
            Frame::Welcome(welcome) => {
                let heard = Heard::Welcome {
                    run: welcome.run,
                    seq: welcome.seq,
                    history: proto_messages(welcome.history),
                    latest: proto_messages(welcome.latest),
                    totals: welcome.counters,
                };
                (welcome.room, heard)
            }
            Frame::Batch(of) => {
                let counters =
                    of.counters.into_iter().map(|(name, change)| (name, (change.add, change.total)));
                let messages = proto_messages(of.messages);
                let content = Content { messages, merged: of.merged, counters: counters.collect() };
                let latest = proto_messages(of.latest);
                (of.room, Heard::Batch { run: of.run, seq: of.seq, skipped: of.skipped, latest, content })
            }
            Frame::Left(left) => (left.room, Heard::Left),
            Frame::Closed(closed) => (closed.room, Heard::Closed),
            Frame::Joined(_) | Frame::Pong(_) => return,
            Frame::Error(error) => return self.errors.push((error.room, error.code)),
            Frame::Bye(_) => return self.bye = true,
        };
        self.heard.push((room, heard));
    }
}

fn json_messages(messages: &Value) -> Vec<Told> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let told = |message: &Value| {
        let key = message["key"].as_str().unwrap_or_default().to_owned();
        (text(&message["type"]), message["payload"].to_string(), key)
    };
    messages.as_array().into_iter().flatten().map(told).collect()
}

fn json_counts(counts: &Value) -> Counts {
    let counts = counts.as_object().into_iter().flatten();
    counts.map(|(name, count)| (name.clone(), count.as_u64().expect("a count"))).collect()
}

fn proto_messages(messages: Vec<proto::Message>) -> Vec<Told> {
    let told = |message: proto::Message| {
        (message.r#type, String::from_utf8(message.payload.to_vec()).expect("JSON"), message.key)
    };
    messages.into_iter().map(told).collect()
}
