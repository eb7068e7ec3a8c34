//! Shards as benches drive them: the engine's own, over sockets that are memory and count what they are given.

use std::cell::Cell;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use roomcast::auth::Grant;
use roomcast::seat::Seats;
use roomcast::shard::connection::Socket;
use roomcast::shard::lane::Peer;
use roomcast::shard::{Plan, Shard};
use roomcast::store::{Answer, Request};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Encoding, RoomName, TypeName};
use roomcast_core::room::message::{Class, Message, Payload};
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::policy::TypePolicy;
use roomcast_core::wire::frame;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// So long that no device of a bench is silent.
const HEARTBEAT: Duration = Duration::from_secs(24 * 3600);
const PAYLOAD_BYTES: usize = 100;

/// A socket that takes everything at once and keeps nothing but the count.
#[derive(Debug)]
pub(crate) struct MemorySocket {
    /// Frames it was given.
    pub(crate) frames: u64,
    /// Frames that the sockets of its shard were given.
    all: Rc<Cell<u64>>,
}

impl MemorySocket {
    fn took(&mut self, frames: usize) {
        self.frames += frames as u64;
        self.all.set(self.all.get() + frames as u64);
    }
}

impl Socket for MemorySocket {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.took(1);
        Ok(bytes.len())
    }

    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.took(parts.len());
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn tell_when_writable(&mut self) {
        unreachable!("it takes everything at once");
    }

    fn finish(&mut self) {}
}

/// A shard and its devices.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) shard: Shard<MemorySocket>,
    /// The connections' keys, in the order they came.
    pub(crate) keys: Vec<u64>,
    /// Frames that all its sockets were given.
    pub(crate) frames: Rc<Cell<u64>>,
    seats: Seats,
}

impl Driven {
    /// The shard of that index, without rooms or connections.
    pub(crate) fn new(index: usize, shards: usize, peers: Vec<Peer>, now: Now) -> Self {
        let plan = Plan::new(index, shards, rules(), HEARTBEAT, 1);
        let shard = Shard::new(plan, peers, now.instant);
        Self { shard, keys: Vec::new(), frames: Rc::default(), seats: Seats::new(u64::MAX) }
    }

    /// Connects a device and has it ask for a room. Every other one speaks protobuf.
    pub(crate) fn join(&mut self, room: &RoomName, now: Now) {
        let socket = MemorySocket { frames: 0, all: Rc::clone(&self.frames) };
        let encoding = if self.keys.len().is_multiple_of(2) { Encoding::Json } else { Encoding::Proto };
        let seat = self.seats.take().expect("there are seats for all");
        let key = self.shard.connect(socket, encoding, Grant::Any, seat, now);
        self.shard.join(key, room, None, None, now);
        self.keys.push(key);
    }

    /// One turn, and what the shell does after it: the store answers that it holds nothing. Whether there is more to do.
    pub(crate) fn turn(&mut self, now: Now) -> bool {
        let mut busy = self.shard.turn(now);
        while let Some(request) = self.shard.poll_store() {
            let Request::Load { room, life } = request else { unreachable!("nothing reliable is published") };
            self.shard.take_stored(Answer::Loaded { room, life, stream: None }, now);
            busy = true;
        }
        while self.shard.poll_answer().is_some() {}
        busy
    }

    /// Frames that each of its sockets was given.
    pub(crate) fn frames_each(&mut self) -> Vec<u64> {
        let frames = |key: &u64| self.shard.connection(*key).expect("nobody leaves").socket.frames;
        self.keys.iter().map(frames).collect()
    }
}

/// As they are by default, but for what would make a bench wait: a batch is one message, and passes may take all there is.
fn rules() -> RoomRules {
    RoomRules { messages_max: 1, cpu_permille: u32::MAX, ..RoomRules::default() }
}

/// A chat message as a publisher's door makes it.
pub(crate) fn chat() -> Message {
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(PAYLOAD_BYTES - 11));
    let mut message = Message {
        type_name: TypeName::parse("chat").expect("a constant"),
        policy: TypePolicy::of(Class::Normal),
        key: None,
        id: None,
        payload: Payload::Json(Bytes::from(payload)),
        count: 1,
        ttl: TypePolicy::of(Class::Normal).ttl,
        offset: 0,
        recall: 0,
        at_ms: 0,
        wire_bytes: 0,
    };
    message.wire_bytes = frame::message_bytes(&message);
    message
}

/// One line for people.
pub(crate) fn print(line: &str) {
    writeln!(io::stdout(), "{line}").expect("the terminal is there");
}
