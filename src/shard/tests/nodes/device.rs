//! The devices of the world of nodes: they read JSON frames, keep a cursor, and check each frame.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::rc::Rc;

use serde_json::Value;

use crate::shard::residents::connection::Socket;
use roomcast_core::fanout::drain_rate::Progress;

/// The bytes between a shard and a device.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) bytes: Vec<u8>,
    pub(super) capacity: usize,
    /// The shard waits to hear that the pipe takes bytes again.
    pub(super) armed: bool,
    pub(super) ended: bool,
}

/// The shard's end of a pipe.
#[derive(Debug)]
pub(super) struct SimSocket(pub(super) Rc<RefCell<Pipe>>);

impl Socket for SimSocket {
    fn try_write(&mut self, bytes: &[u8], _is_segment: bool) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        let taken = bytes.len().min(pipe.capacity.saturating_sub(pipe.bytes.len()));
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>], is_segment: bool) -> io::Result<usize> {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.try_write(&whole, is_segment)
    }

    fn tell_when_writable(&mut self) {
        self.0.borrow_mut().armed = true;
    }

    fn finish(&mut self) {
        self.0.borrow_mut().ended = true;
    }

    fn progress(&self) -> Option<Progress> {
        None
    }

    fn set_unsent_max(&mut self, _bytes: u32) {}

    fn set_queued_max(&mut self, _bytes: Option<u32>, _had: Option<u32>, _queued: Option<u64>) {}
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.0.borrow_mut().ended = true;
    }
}

/// The knowledge of a device about a room.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    /// Epoch and offset, over all connections.
    pub(super) cursor: Option<(String, u64)>,
    /// Offset -> payload of each applied message of the cursor's epoch.
    pub(super) applied: BTreeMap<u64, String>,
    /// The run and the last seq on this connection. `None`: not welcomed yet.
    pub(super) stands: Option<(String, u64)>,
    /// Chat heard in batches of the run.
    chat: BTreeSet<String>,
    pub(super) online: Option<u64>,
    /// The total of likes, and the price, in the run.
    pub(super) likes: u64,
    pub(super) price: u64,
    pub(super) owes_ack: bool,
    /// Welcomes on this connection in another run than before, and in the same.
    pub(super) rewelcomed: u64,
    pub(super) rewelcomed_in_run: u64,
}

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) node: usize,
    pub(super) shard: usize,
    pub(super) key: u64,
    pub(super) name: Option<String>,
    /// Room -> knowledge. The first is the room of the URL.
    pub(super) rooms: BTreeMap<String, Known>,
    pub(super) first: String,
    pub(super) pipe: Rc<RefCell<Pipe>>,
    pub(super) read_max: usize,
    buffer: Vec<u8>,
    pub(super) closed: Option<u16>,
    pub(super) trace: Vec<String>,
}

impl Device {
    pub(super) fn new(node: usize, first: &str, name: Option<String>, capacity: usize) -> Self {
        Self {
            node,
            shard: 0,
            key: 0,
            name,
            rooms: BTreeMap::from([(first.to_owned(), Known::default())]),
            first: first.to_owned(),
            pipe: Rc::new(RefCell::new(Pipe { capacity, ..Pipe::default() })),
            read_max: capacity,
            buffer: Vec::new(),
            closed: None,
            trace: Vec::new(),
        }
    }

    /// A new connection: the cursor stays, and the place in the run goes.
    pub(super) fn begin(&mut self) {
        let capacity = self.pipe.borrow().capacity;
        self.pipe = Rc::new(RefCell::new(Pipe { capacity, ..Pipe::default() }));
        self.buffer.clear();
        self.closed = None;
        let first = self.rooms.remove(&self.first).unwrap_or_default();
        self.rooms = BTreeMap::from([(self.first.clone(), Known { stands: None, ..first })]);
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed.is_some() || self.pipe.borrow().ended
    }

    /// Reads, and checks whole frames. True if the shard must hear that the pipe takes bytes again.
    pub(super) fn read(&mut self) -> bool {
        let mut pipe = self.pipe.borrow_mut();
        let taken = self.read_max.min(pipe.bytes.len());
        self.buffer.extend(pipe.bytes.drain(..taken));
        let tell = taken > 0 && std::mem::take(&mut pipe.armed);
        drop(pipe);
        while let Some((opcode, payload)) = self.next_frame() {
            match opcode {
                1 => {
                    let frame: Value = serde_json::from_slice(&payload).expect("a whole frame is JSON");
                    self.hear(&frame);
                }
                8 => self.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("opcode {other}"),
            }
        }
        tell
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = *self.buffer.first()?;
        let second = *self.buffer.get(1)?;
        assert_eq!(first & 0xf0, 0x80, "a frame begins where the one before ends");
        let (header, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().unwrap()))),
            127 => {
                (10, usize::try_from(u64::from_be_bytes(self.buffer.get(2..10)?.try_into().unwrap())).ok()?)
            }
            short => (2, usize::from(short)),
        };
        let payload = self.buffer.get(header..header + length)?.to_vec();
        self.buffer.drain(..header + length);
        Some((first & 0x0f, payload))
    }

    fn hear(&mut self, frame: &Value) {
        let kind = frame["kind"].as_str().unwrap();
        let room = frame["room"].as_str().unwrap_or_default().to_owned();
        self.trace.push(frame.to_string().chars().take(400).collect());
        let shown = || format!("{:?}: {:#?}", self.name, &self.trace[self.trace.len().saturating_sub(6)..]);
        match kind {
            "pong" | "joined" | "history" => return,
            "welcome" | "batch" => {}
            other => panic!("nobody said {other}: {}", shown()),
        }
        let known = self.rooms.get_mut(&room).unwrap_or_else(|| panic!("{room} was asked for"));
        let run = frame["run"].as_str().unwrap().to_owned();
        let seq = frame["seq"].as_u64().unwrap();
        if kind == "welcome" {
            match &known.stands {
                Some((former, last)) if *former == run => {
                    assert!(seq >= *last, "a run goes on: {:?}", self.trace);
                    known.rewelcomed_in_run += 1;
                }
                Some(_) => known.rewelcomed += 1,
                None => {}
            }
            if known.stands.as_ref().is_none_or(|(former, _)| *former != run) {
                known.chat.clear();
                (known.likes, known.price) = (0, 0);
            }
            known.likes = frame["counters"]["like"].as_u64().unwrap_or(0);
            if let Some(epoch) = frame["epoch"].as_str() {
                if known.cursor.as_ref().is_none_or(|(of, _)| of != epoch) {
                    known.cursor = Some((epoch.to_owned(), frame["after"].as_u64().unwrap()));
                    known.applied.clear();
                }
                assert_eq!(frame["reset"].as_str().filter(|reset| *reset != "epoch_changed"), None);
            }
        } else {
            let (of, last) = known.stands.as_ref().expect("the welcome comes first");
            assert_eq!(*of, run, "no word of a former run behind a welcome: {:#?}", self.trace);
            assert!(seq >= *last, "level order: {:#?}", self.trace);
            for told in frame["messages"].as_array().into_iter().flatten() {
                if told["type"] == "chat" {
                    let is_new = known.chat.insert(told["payload"].to_string());
                    assert!(is_new, "chat comes once: {:#?}", self.trace);
                }
            }
        }
        known.stands = Some((run, seq));
        known.likes = frame["counters"]["like"]["total"].as_u64().unwrap_or(known.likes);
        for told in
            ["latest", "messages"].iter().flat_map(|part| frame[*part].as_array().into_iter().flatten())
        {
            if told["type"] == "online" {
                known.online = told["payload"].as_u64();
            }
            if told["type"] == "price" {
                known.price = told["payload"].as_u64().unwrap();
            }
        }
        if let (Some(through), Some((_, cursor))) = (frame["through"].as_u64(), &mut known.cursor) {
            let after = frame["after"].as_u64().unwrap();
            assert!(after <= *cursor, "no message is passed over: {cursor} before {frame}");
            let parts = ["reliable", "carried", "messages"];
            for told in parts.iter().flat_map(|part| frame[*part].as_array().into_iter().flatten()) {
                let Some(offset) = told["offset"].as_u64().filter(|offset| offset > cursor) else { continue };
                assert!(offset <= through);
                let former = known.applied.insert(offset, told["payload"].to_string());
                assert_eq!(former, None, "applied once");
            }
            *cursor = (*cursor).max(through);
            known.owes_ack = true;
        }
    }
}
