//! The world's devices. A device reads its pipe, decodes each frame without the engine's encoder, and notes
//! the content for the oracle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use prost::Message as _;
use roomcast_core::proto::{self, server_frame::Frame};
use roomcast_core::room::id::Encoding;
use serde_json::Value;

use crate::keeps::Link;
use crate::socket::Pipe;

/// A message as a device decodes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Told {
    pub(crate) type_name: String,
    pub(crate) payload: String,
    pub(crate) key: String,
    pub(crate) id: String,
    /// The offset in the reliable stream. 0 for other classes.
    pub(crate) offset: u64,
    /// The offset of the recalled message. 0 if the message is no recall.
    pub(crate) recall: u64,
}
/// A message of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    /// The message's batch.
    pub(crate) seq: u64,
    pub(crate) told: Told,
}

/// Counts by type.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The content of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Content {
    pub(crate) messages: Vec<Told>,
    pub(crate) merged: Counts,
    /// Type -> increment and total.
    pub(crate) counters: BTreeMap<String, (u64, u64)>,
}

/// The part of the reliable stream in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) after: u64,
    pub(crate) through: u64,
    /// `reliable`, or `carried` and the `messages` with an offset, in the order of the frame.
    pub(crate) messages: Vec<Told>,
}

/// The reliable stream in a welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) reset: String,
    pub(crate) part: Part,
}

/// One frame about one room.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    Welcome {
        run: String,
        seq: u64,
        history: Vec<Told>,
        latest: Vec<Told>,
        totals: Counts,
        stream: Option<Opened>,
    },
    Batch {
        run: String,
        seq: u64,
        skipped: Counts,
        latest: Vec<Told>,
        content: Content,
        part: Option<Part>,
        /// The number of carried messages in `part`.
        carried: usize,
    },
    /// A piece of history: messages of earlier batches, each with its seq.
    History {
        run: String,
        history: Vec<Past>,
    },
    Left,
    Closed,
}

impl Heard {
    /// The frame's line in a trace.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Welcome { seq, stream, .. } => {
                let shown = |stream: &Opened| {
                    let Part { after, through, messages } = &stream.part;
                    let Opened { epoch, offset, reset, .. } = stream;
                    format!("({after}, {through}] of {epoch}:{offset} {reset} {}", messages.len())
                };
                format!("welcome {seq} {}", stream.as_ref().map_or_else(String::new, shown))
            }
            Self::Batch { seq, part, carried, skipped, .. } => {
                let shown = |part: &Part| format!("({}, {}]", part.after, part.through);
                let part = part.as_ref().map_or_else(String::new, shown);
                format!("batch {seq} {part} carried {carried} skipped {skipped:?}")
            }
            Self::History { history, .. } => {
                let seqs: Vec<u64> = history.iter().map(|past| past.seq).collect();
                format!("history {seqs:?}")
            }
            Self::Left => "left".to_owned(),
            Self::Closed => "closed".to_owned(),
        }
    }
}

/// One device, for the life of its connection.
#[derive(Debug)]
pub(crate) struct Device {
    /// The index of the state that outlives the connection.
    pub(crate) keeps: usize,
    /// Room -> the device's knowledge of the room. Rooms enter with the request to join.
    pub(crate) links: BTreeMap<String, Link>,
    /// The number of entries of `heard` that were searched for reliable messages.
    pub(crate) taken: usize,
    /// The time of the last acknowledgement.
    pub(crate) acked_at: Option<Instant>,
    pub(crate) shard: usize,
    pub(crate) key: u64,
    pub(crate) encoding: Encoding,
    pub(crate) pipe: Rc<RefCell<Pipe>>,
    /// True: the pipe takes every write whole.
    pub(crate) healthy: bool,
    /// True: the device reads nothing.
    pub(crate) stalled: bool,
    /// True: the device has another connection since, and will never hear of this one again.
    pub(crate) deaf: bool,
    /// Every frame with its room, in the order of arrival.
    pub(crate) heard: Vec<(String, Heard)>,
    /// Bytes of each frame in `heard`.
    pub(crate) sizes: Vec<usize>,
    /// Rooms with a request to join and none to leave.
    pub(crate) rooms: Vec<String>,
    /// Room and code of each error.
    pub(crate) errors: Vec<(String, String)>,
    pub(crate) bye: bool,
    /// The code of the close frame, once received.
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
            keeps: 0,
            links: BTreeMap::new(),
            taken: 0,
            acked_at: None,
            shard,
            key,
            encoding,
            pipe,
            healthy,
            stalled: false,
            deaf: false,
            heard: Vec::new(),
            sizes: Vec::new(),
            rooms: Vec::new(),
            errors: Vec::new(),
            bye: false,
            closed: None,
            buffer: Vec::new(),
        }
    }

    /// True while the connection stands.
    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none() && !self.deaf && !self.pipe.borrow().ended
    }

    /// True if the last frame about the room shows the device as a member.
    pub(crate) fn stands_in(&self, room: &str) -> bool {
        let last = self.heard.iter().rev().find(|(of, _)| of == room);
        last.is_some_and(|(_, heard)| !matches!(heard, Heard::Left | Heard::Closed))
    }

    /// Reads at most `bytes_max` bytes, and decodes the whole frames among them. True if the shard must hear
    /// that the socket takes bytes again.
    pub(crate) fn read(&mut self, bytes_max: usize) -> bool {
        let mut pipe = self.pipe.borrow_mut();
        let bytes = bytes_max.min(pipe.in_flight.len());
        self.buffer.extend(pipe.in_flight.drain(..bytes));
        pipe.read += bytes as u64;
        let tell = (bytes > 0 || pipe.has_heard()) && std::mem::take(&mut pipe.armed);
        drop(pipe);
        while let Some((opcode, payload)) = self.next_frame() {
            match opcode {
                1 => self.hear_json(&payload),
                2 => self.hear_proto(&payload),
                8 => self.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("no frame of opcode {other} was asked for"),
            }
            self.sizes.resize(self.heard.len(), payload.len());
        }
        tell
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = *self.buffer.first()?;
        let second = *self.buffer.get(1)?;
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
        let run = text("run");
        let seq = frame["seq"].as_u64().unwrap_or(0);
        let told = |name: &str| json_messages(&frame[name]);
        let heard = match frame["kind"].as_str().expect("a frame has a kind") {
            "welcome" => Heard::Welcome {
                run,
                seq,
                history: told("history"),
                latest: told("latest"),
                totals: json_counts(&frame["counters"]),
                stream: frame["epoch"].as_str().map(|epoch| Opened {
                    epoch: epoch.to_owned(),
                    offset: frame["offset"].as_u64().unwrap_or(0),
                    reset: text("reset"),
                    part: json_part(&frame, told("reliable")),
                }),
            },
            "batch" => {
                let counters = frame["counters"].as_object().into_iter().flatten();
                let change = |of: &Value| (of["add"].as_u64().unwrap(), of["total"].as_u64().unwrap());
                let content = Content {
                    messages: told("messages"),
                    merged: json_counts(&frame["merged"]),
                    counters: counters.map(|(name, of)| (name.clone(), change(of))).collect(),
                };
                let carried = told("carried");
                let count = carried.len();
                let through = frame["through"].as_u64();
                let part = through.map(|_| json_part(&frame, reliable(carried, &content)));
                Heard::Batch {
                    run,
                    seq,
                    skipped: json_counts(&frame["skipped"]),
                    latest: told("latest"),
                    content,
                    part,
                    carried: count,
                }
            }
            "history" => {
                let seqs = frame["history"].as_array().into_iter().flatten();
                let seqs = seqs.map(|message| message["seq"].as_u64().expect("each has a seq"));
                let past = seqs.zip(told("history")).map(|(seq, told)| Past { seq, told });
                Heard::History { run, history: past.collect() }
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
                let opened = |epoch: String| Opened {
                    epoch,
                    offset: welcome.offset,
                    reset: welcome.reset,
                    part: Part {
                        after: welcome.after,
                        through: welcome.through,
                        messages: proto_messages(welcome.reliable),
                    },
                };
                let heard = Heard::Welcome {
                    run: welcome.run,
                    seq: welcome.seq,
                    history: proto_messages(welcome.history),
                    latest: proto_messages(welcome.latest),
                    totals: welcome.counters,
                    stream: Some(welcome.epoch).filter(|epoch| !epoch.is_empty()).map(opened),
                };
                (welcome.room, heard)
            }
            Frame::Batch(of) => {
                let counters =
                    of.counters.into_iter().map(|(name, change)| (name, (change.add, change.total)));
                let messages = proto_messages(of.messages);
                let content = Content { messages, merged: of.merged, counters: counters.collect() };
                let latest = proto_messages(of.latest);
                let carried = proto_messages(of.carried);
                let count = carried.len();
                let through = of.through;
                let messages = reliable(carried, &content);
                let part = (through > 0).then_some(Part { after: of.after, through, messages });
                let run = of.run;
                let seq = of.seq;
                let skipped = of.skipped;
                (of.room, Heard::Batch { run, seq, skipped, latest, content, part, carried: count })
            }
            Frame::History(piece) => {
                let seqs: Vec<u64> = piece.history.iter().map(|message| message.seq).collect();
                let past = seqs.into_iter().zip(proto_messages(piece.history));
                let history = past.map(|(seq, told)| Past { seq, told }).collect();
                (piece.room, Heard::History { run: piece.run, history })
            }
            Frame::Left(left) => (left.room, Heard::Left),
            Frame::Closed(closed) => (closed.room, Heard::Closed),
            Frame::Joined(_) | Frame::Pong(_) | Frame::Token(_) => return,
            Frame::Error(error) => return self.errors.push((error.room, error.code)),
            Frame::Bye(_) => return self.bye = true,
        };
        self.heard.push((room, heard));
    }
}

fn json_messages(messages: &Value) -> Vec<Told> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = |message: &Value| Told {
        type_name: text(&message["type"]),
        payload: message["payload"].to_string(),
        key: word(&message["key"]),
        id: word(&message["id"]),
        offset: message["offset"].as_u64().unwrap_or(0),
        recall: message["recall"].as_u64().unwrap_or(0),
    };
    messages.as_array().into_iter().flatten().map(told).collect()
}

fn json_counts(counts: &Value) -> Counts {
    let counts = counts.as_object().into_iter().flatten();
    counts.map(|(name, count)| (name.clone(), count.as_u64().expect("a count"))).collect()
}

fn proto_messages(messages: Vec<proto::Message>) -> Vec<Told> {
    let told = |message: proto::Message| Told {
        type_name: message.r#type,
        payload: String::from_utf8(message.payload.to_vec()).expect("JSON"),
        key: message.key,
        id: message.id,
        offset: message.offset,
        recall: message.recall,
    };
    messages.into_iter().map(told).collect()
}

fn json_part(frame: &Value, messages: Vec<Told>) -> Part {
    let number = |name: &str| frame[name].as_u64().unwrap_or(0);
    Part { after: number("after"), through: number("through"), messages }
}

/// The reliable messages of a batch frame, in the order of the frame.
fn reliable(carried: Vec<Told>, content: &Content) -> Vec<Told> {
    let among = content.messages.iter().filter(|told| told.offset > 0).cloned();
    carried.into_iter().chain(among).collect()
}
