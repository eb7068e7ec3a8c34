//! The engine's own shards, driven by a bench, over counting sockets in memory.

use std::cell::Cell;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::Duration;

use roomcast::auth::Grant;
use roomcast::seat::Seats;
use roomcast::shard::lane::Lanes;
use roomcast::shard::residents::connection::Socket;
use roomcast::shard::{Plan, Shard};
use roomcast::store::{StoreAnswer, StoreRequest};
use roomcast_core::fanout::drain_rate::Progress;
use roomcast_core::now::Now;
use roomcast_core::room::id::{Encoding, RoomName};
use roomcast_core::room::message::{Message, sample};
use roomcast_core::room::pace::RoomRules;
use roomcast_core::wire::frame;

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longer than any bench, so that no device is closed as silent.
const HEARTBEAT: Duration = Duration::from_secs(24 * 3600);
const PAYLOAD_BYTES: usize = 100;

/// A socket that takes everything at once and keeps only the count.
#[derive(Debug)]
pub(crate) struct MemorySocket {
    /// Frames given to this socket.
    pub(crate) frames: u64,
    /// Frames given to all sockets of the shard.
    all: Rc<Cell<u64>>,
}

impl MemorySocket {
    fn took(&mut self, frames: usize) {
        self.frames += frames as u64;
        self.all.set(self.all.get() + frames as u64);
    }
}

impl Socket for MemorySocket {
    fn try_write(&mut self, bytes: &[u8], _is_segment: bool) -> io::Result<usize> {
        self.took(1);
        Ok(bytes.len())
    }

    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>], _is_segment: bool) -> io::Result<usize> {
        self.took(parts.len());
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn tell_when_writable(&mut self) {
        unreachable!("it takes everything at once");
    }

    fn finish(&mut self) {}

    fn progress(&self) -> Option<Progress> {
        Some(Progress::default())
    }

    fn set_unsent_max(&mut self, _bytes: u32) {}

    fn set_queued_max(&mut self, _bytes: Option<u32>, _had: Option<u32>, _queued: Option<u64>) {}
}

/// A shard and its devices.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) shard: Shard<MemorySocket>,
    /// Keys of the connections, in the order of their arrival.
    pub(crate) keys: Vec<u64>,
    /// Frames given to all sockets of the shard.
    pub(crate) frames: Rc<Cell<u64>>,
    seats: Seats,
}

impl Driven {
    /// Shard `index` of `shards`, without rooms or connections.
    pub(crate) fn new(index: usize, shards: usize, lanes: Lanes, now: Now) -> Self {
        let plan = Plan::new(index, shards, rules(), HEARTBEAT, 1);
        let shard = Shard::new(plan, lanes, now.instant);
        Self { shard, keys: Vec::new(), frames: Rc::default(), seats: Seats::new(u64::MAX) }
    }

    /// Connects a device and has it ask for a room. Every other device speaks protobuf.
    pub(crate) fn join(&mut self, room: &RoomName, now: Now) {
        let socket = MemorySocket { frames: 0, all: Rc::clone(&self.frames) };
        let encoding = if self.keys.len().is_multiple_of(2) { Encoding::Json } else { Encoding::Proto };
        let seat = self.seats.take().expect("there are seats for all");
        let key = self.shard.residents.connect(socket, encoding, Grant::Any, seat, now);
        self.shard.residents.join(key, room, None, None, now);
        self.keys.push(key);
    }

    /// Takes one turn, and answers the store's requests with an empty store. Returns true if more is to be
    /// done.
    pub(crate) fn turn(&mut self, now: Now) -> bool {
        let mut busy = self.shard.turn(now);
        while let Some(request) = self.shard.homes.poll_store() {
            let StoreRequest::Load { room, life, .. } = request else {
                unreachable!("nothing reliable is published")
            };
            self.shard.homes.take_stored(StoreAnswer::Loaded { room, life, stream: None }, now);
            busy = true;
        }
        while self.shard.homes.poll_answer().is_some() {}
        busy
    }

    /// Connection, in the order of arrival -> frames given to its socket.
    pub(crate) fn frames_each(&mut self) -> Vec<u64> {
        let frames = |key: &u64| self.shard.residents.connection(*key).expect("nobody leaves").socket.frames;
        self.keys.iter().map(frames).collect()
    }
}

/// The default rules, without what would make a bench wait: a batch is one message, and passes may take all
/// time.
fn rules() -> RoomRules {
    RoomRules { messages_max: 1, cpu_permille: u32::MAX, ..RoomRules::default() }
}

/// A chat message as the publisher door makes it.
pub(crate) fn chat() -> Message {
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(PAYLOAD_BYTES - 11));
    let mut message = sample("chat", &payload);
    message.wire_bytes = frame::message_bytes(&message);
    message
}

/// Prints one line for people.
pub(crate) fn print(line: &str) {
    writeln!(io::stdout(), "{line}").expect("the terminal is there");
}
