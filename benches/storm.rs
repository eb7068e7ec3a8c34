//! A storm of joins, and a crowd that is cut: the cost of either for the devices in the room, over real
//! sockets.
//!
//! `cargo bench --bench storm -- joins` runs one part. `BENCH_SERVER_CORE` and `BENCH_LOAD_CORE`, both or
//! none, pin the node and the load to a core each.
//!
//! Every join comes at its due moment, even before the answers to earlier joins, and latencies count from the
//! due moment. `STORM_JOINS` joins a second (4 000) come for `STORM_SECONDS` (5). A guest leaves after
//! `STORM_STAY` (1 000) further guests, because a process may not hold more sockets. `STORM_DEVICES` (11 000)
//! are in the room that loses ten of eleven devices. `STORM_PERF` names a file for `perf record` of the node
//! during the storm.
//!
//! The load is two threads: one holds the devices, one publishes. Each line says how busy both were. Near 100
//! %, the figures are of the load and not of the node.

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as Blocking};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};
use support::{Answer, Node, cpu, percentile, pin_the_load, print};

/// Devices in the room before the storm, which hear the published messages.
const LISTENERS: usize = 1000;
/// One in ten devices reads the payloads; the others only take bytes off their sockets.
const READERS_EACH: usize = 10;
const PAYLOAD_BYTES: usize = 100;
const HISTORY: usize = 200;
const CALM: Duration = Duration::from_secs(5);
/// The time after the cut in which the bench looks for its effects.
const AFTERMATH: Duration = Duration::from_secs(3);
/// One of eleven devices stays.
const STAYS_EACH: usize = 11;
/// Marks the due moment of a message in its payload, in microseconds of the bench.
const STAMP: &[u8; 2] = b"@@";
const STAMP_DIGITS: usize = 12;
/// Sockets of one source address.
const PORTS_EACH: u32 = 500;
/// `EINPROGRESS` on Linux: the connection is on its way.
const IN_PROGRESS: i32 = 115;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let runs = |name: &str| wanted.is_none_or(|wanted| name.contains(wanted.as_str()));
    pin_the_load();
    if runs("joins") {
        joins();
    }
    if runs("cut") {
        cut();
    }
}

/// A number from the environment.
fn number(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().expect("a whole number"))
}

fn now() -> Instant {
    roomcast::clock::now().instant
}

/// Joins come to a room in use.
fn joins() {
    let node = Node::start(&["--ephemeral"]);
    let per_second = number("STORM_JOINS", 4000);
    let stay = number("STORM_STAY", 1000) as usize;
    let storm = Duration::from_secs(number("STORM_SECONDS", 5).into());
    let mut crowd = Crowd::new(&node);
    crowd.gather(LISTENERS, 1000);
    let publisher =
        Publisher::start(&node, crowd.began, Pace { messages: HISTORY, every: Duration::from_micros(500) });
    publisher.join_thread();
    crowd.listen(Duration::from_secs(1));

    let pace = Pace { messages: usize::MAX, every: Duration::from_millis(5) };
    let publisher = Publisher::start(&node, crowd.began, pace);
    let before = crowd.listen(CALM);
    let published_before = publisher.take();
    let perf = profile(&node, storm);
    let node_cpu = node.cpu();
    let load_cpu = cpu("self");
    let began = now();
    let came = crowd.storm(per_second, storm, stay);
    let took = now() - began;
    let percent = |cpu: Duration| cpu.as_micros() * 100 / took.as_micros();
    let node_percent = percent(node.cpu() - node_cpu);
    let load_percent = percent(cpu("self") - load_cpu);
    let published_during = publisher.stop();
    if let Some(mut perf) = perf {
        perf.wait().expect("perf ends with its time");
    }

    let held = crowd.welcomes.len() as u128 * 1000 / came.under_way.as_millis();
    print(&format!(
        "joins: {} asked for at {per_second}/s, {} welcomed ({held}/s), {} refused, {} lost; a welcome {} bytes",
        came.asked,
        crowd.welcomes.len(),
        crowd.refused,
        came.asked - crowd.welcomes.len() - crowd.refused,
        crowd.welcome_bytes,
    ));
    for told in &crowd.refusals {
        print(&format!("joins: refused: {told}"));
    }
    print(&format!(
        "joins: from due to welcome: {}; the node {node_percent} % of its core, the load {load_percent} %",
        line(crowd.welcomes),
    ));
    compare("joins: a publish, from due to its answer", published_before, published_during);
    compare("joins: from due to a device", before.latencies, came.heard.latencies);
}

/// Ten of eleven devices leave at once.
fn cut() {
    let node = Node::start(&["--ephemeral"]);
    let mut crowd = Crowd::new(&node);
    crowd.gather(number("STORM_DEVICES", 11_000) as usize, 3000);
    let publisher =
        Publisher::start(&node, crowd.began, Pace { messages: usize::MAX, every: Duration::from_millis(50) });
    crowd.listen(Duration::from_secs(2));
    let before = crowd.listen(CALM);
    let leavers = crowd.take_leavers();
    let count = leavers.len();
    let began = now();
    let perf = profile(&node, AFTERMATH);
    let cutting = thread::spawn(move || {
        drop(leavers);
        now() - began
    });
    let during = crowd.listen(AFTERMATH);
    let took = cutting.join().expect("closing does not fail");
    // Passes over the remaining devices are shorter than before, so the excess over these passes is the
    // effect of the cut.
    let after = crowd.listen(CALM);
    publisher.stop();
    if let Some(mut perf) = perf {
        perf.wait().expect("perf ends with its time");
    }
    print(&format!("cut: {count} of {} devices cut within {took:.1?}", count + crowd.devices.len()));
    let [before_gap, during_gap, after_gap] = [&before, &during, &after].map(Ears::longest_gap);
    print(&format!(
        "cut: longest time between two frames of a device: {during_gap:.1?} during, \
         {after_gap:.1?} after (in the calm of those that stay), {before_gap:.1?} before (in that of all): \
         held up by {:.1?}",
        during_gap.saturating_sub(after_gap)
    ));
    compare("cut: from due to a device, after and during", after.latencies, during.latencies);
}

fn compare(what: &str, mut before: Vec<Duration>, mut during: Vec<Duration>) {
    before.sort_unstable();
    during.sort_unstable();
    let ratio = percentile(&during, 990).as_micros() * 100 / percentile(&before, 990).as_micros().max(1);
    print(&format!(
        "{what}: before {}; during {}; p99 × {}.{:02}",
        line(before),
        line(during),
        ratio / 100,
        ratio % 100
    ));
}

fn line(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    if times.is_empty() {
        return "none".to_owned();
    }
    let [p50, p99, max] = [500, 990, 1000].map(|per_mille| percentile(&times, per_mille));
    format!("p50 {p50:.2?}, p99 {p99:.2?}, max {max:.2?}")
}

/// Starts `perf record` over the node, if a file for it is named.
fn profile(node: &Node, time: Duration) -> Option<std::process::Child> {
    let file = std::env::var("STORM_PERF").ok()?;
    let node = node.id().to_string();
    let seconds = time.as_secs().to_string();
    let arguments = ["record", "-q", "-g", "-F", "999", "-o", &file, "-p", &node, "--", "sleep", &seconds];
    Some(Command::new("perf").args(arguments).spawn().expect("perf is there"))
}

/// The rhythm of a publisher.
#[derive(Clone, Copy)]
struct Pace {
    messages: usize,
    every: Duration,
}

/// A thread that publishes each chat message at its due moment.
struct Publisher {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    times: Arc<std::sync::Mutex<Vec<Duration>>>,
}

impl Publisher {
    fn start(node: &Node, began: Instant, pace: Pace) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let times = Arc::default();
        let mut stream = Blocking::connect(node.publisher_door).expect("the door is open");
        stream.set_nodelay(true).expect("it is connected");
        let stopped = Arc::clone(&stop);
        let noted = Arc::clone(&times);
        let thread = thread::spawn(move || {
            let mut due = now();
            for _ in 0..pace.messages {
                while let Some(early) = due.checked_duration_since(now()).filter(|early| !early.is_zero()) {
                    park_timeout(early);
                }
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                exchange(&mut stream, &request(due - began));
                let noted: &std::sync::Mutex<Vec<Duration>> = &noted;
                noted.lock().expect("nobody panics with it").push(now() - due);
                due += pace.every;
            }
        });
        Self { thread, stop, times }
    }

    /// The times since the last call.
    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.times.lock().expect("nobody panics with it"))
    }

    fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.take();
        self.join_thread();
        times
    }

    fn join_thread(self) {
        self.thread.join().expect("every publish is taken");
    }
}

/// A chat message, stamped with its due moment.
fn request(due: Duration) -> Vec<u8> {
    let stamp = format!("@@{:0width$}", due.as_micros(), width = STAMP_DIGITS);
    let text = format!("{stamp}{}", "x".repeat(PAYLOAD_BYTES - stamp.len() - 2));
    let body = format!(r#"{{"type":"chat","payload":"{text}"}}"#);
    let head =
        "POST /v1/rooms/storm/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn exchange(stream: &mut Blocking, request: &[u8]) {
    stream.write_all(request).expect("the node takes it");
    let mut bytes = [0; 4096];
    let mut read = 0;
    let answer = loop {
        match stream.read(&mut bytes[read..]).expect("the node answers") {
            0 => panic!("the node has gone"),
            more => read += more,
        }
        if let Some(answer) = Answer::of(&bytes[..read]) {
            break answer;
        }
    };
    assert_eq!(answer.code, 200, "{}", answer.body);
}

/// The frames heard by the devices.
#[derive(Default)]
struct Ears {
    /// From the due moment to the device, for each message and reader.
    latencies: Vec<Duration>,
    gaps: Vec<Duration>,
}

impl Ears {
    fn longest_gap(&self) -> Duration {
        self.gaps.iter().copied().max().unwrap_or_default()
    }
}

/// The course of a storm.
struct Came {
    asked: usize,
    heard: Ears,
    /// From the first due join to the last welcome.
    under_way: Duration,
}

/// The state of a device.
enum Stage {
    /// The socket is not connected yet.
    Connecting,
    /// The answer and the welcome are on their way. Holds the bytes so far.
    Asked(Vec<u8>),
    /// The head of the welcome was read, and this many bytes are still to come.
    Welcome {
        left: usize,
    },
    Joined,
}

struct Device {
    stream: TcpStream,
    stage: Stage,
    due: Instant,
    /// Came with the storm, and leaves again.
    is_guest: bool,
    /// A reader: the end of the last bytes, and their moment.
    reads: Option<(Vec<u8>, Instant)>,
}

/// All devices of the load, and their observations.
struct Crowd {
    poll: Poll,
    door: SocketAddr,
    began: Instant,
    devices: slab::Slab<Device>,
    /// Sockets opened so far. No single source address has ports for all sockets.
    opened: u32,
    guests: VecDeque<usize>,
    welcomes: Vec<Duration>,
    last_welcome: Instant,
    welcome_bytes: usize,
    refused: usize,
    /// The texts of the refusals.
    refusals: BTreeSet<String>,
    ears: Ears,
    /// Messages with an earlier due moment are history.
    hears_from: Duration,
    scratch: Vec<u8>,
}

impl Crowd {
    fn new(node: &Node) -> Self {
        let began = now();
        Self {
            poll: Poll::new().expect("the system has descriptors"),
            door: node.viewer_door,
            began,
            devices: slab::Slab::new(),
            opened: 0,
            guests: VecDeque::new(),
            welcomes: Vec::new(),
            last_welcome: began,
            welcome_bytes: 0,
            refused: 0,
            refusals: BTreeSet::new(),
            ears: Ears::default(),
            hears_from: Duration::ZERO,
            scratch: vec![0; 256 * 1024],
        }
    }

    /// Has `count` staying devices join.
    fn gather(&mut self, count: usize, per_second: u32) {
        let began = now();
        for number in 0..count {
            let due = began + Duration::from_secs(1) * u32::try_from(number).expect("few") / per_second;
            while now() < due {
                self.turn(Duration::from_millis(1));
            }
            self.open(due, false);
        }
        while self.welcomes.len() < count {
            self.turn(Duration::from_millis(10));
        }
        self.welcomes.clear();
    }

    /// Listens for `time`, and returns what was heard.
    fn listen(&mut self, time: Duration) -> Ears {
        let end = now() + time;
        self.ears = Ears::default();
        self.hears_from = now() - self.began;
        for (_, device) in &mut self.devices {
            device.reads.iter_mut().for_each(|(_, heard_at)| *heard_at = now());
        }
        while now() < end {
            self.turn(end - now());
        }
        std::mem::take(&mut self.ears)
    }

    /// Has `per_second` guests join a second. Past `stay` guests, the oldest one leaves.
    fn storm(&mut self, per_second: u32, time: Duration, stay: usize) -> Came {
        let began = now();
        let mut asked = 0;
        self.hears_from = began - self.began;
        let all = per_second * u32::try_from(time.as_secs()).expect("a few seconds");
        let patience = began + time + Duration::from_secs(5);
        while now() < patience && (asked < all || self.welcomes.len() + self.refused < asked as usize) {
            let due_by_now = (now() - began).as_micros() * u128::from(per_second) / 1_000_000;
            while asked < all && u128::from(asked) <= due_by_now {
                self.open(began + Duration::from_secs(1) * asked / per_second, true);
                asked += 1;
            }
            self.turn(Duration::from_millis(1));
            while self.guests.len() > stay {
                let guest = self.guests.pop_front().expect("it is not empty");
                self.devices.remove(guest);
            }
        }
        let under_way = self.last_welcome - began;
        Came { asked: asked as usize, heard: std::mem::take(&mut self.ears), under_way }
    }

    /// Takes all devices except the staying ones.
    fn take_leavers(&mut self) -> Vec<Device> {
        let leave = self.devices.iter().map(|(key, _)| key).filter(|key| key % STAYS_EACH != 0);
        let leave: Vec<usize> = leave.collect();
        leave.into_iter().map(|key| self.devices.remove(key)).collect()
    }

    fn open(&mut self, due: Instant, is_guest: bool) {
        let mut stream = connect(self.door, self.opened).expect("the machine has sockets");
        self.opened += 1;
        let entry = self.devices.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(entry.key()), both).expect("it is new");
        let is_reader = !is_guest && (self.opened as usize).is_multiple_of(READERS_EACH);
        let reads = is_reader.then(|| (Vec::new(), due));
        entry.insert(Device { stream, stage: Stage::Connecting, due, is_guest, reads });
    }

    fn turn(&mut self, wait: Duration) {
        let mut events = Events::with_capacity(256);
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            polled => polled.expect("epoll works"),
        }
        for event in &events {
            self.serve(event.token().0);
        }
    }

    fn serve(&mut self, key: usize) {
        let Some(device) = self.devices.get_mut(key) else { return };
        if matches!(device.stage, Stage::Connecting) {
            match device.stream.write(&handshake()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                written => written.expect("the door is open"),
            };
            device.stage = Stage::Asked(Vec::new());
        }
        loop {
            let Some(device) = self.devices.get_mut(key) else { return };
            match device.stream.read(&mut self.scratch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(read) if read > 0 => self.take(key, read),
                end => self.refused(key, end.as_ref().err()),
            }
        }
    }

    /// The node has closed a device's connection. A device of the staying crowd comes again.
    fn refused(&mut self, key: usize, error: Option<&io::Error>) {
        let device = self.devices.remove(key);
        let said = match &device.stage {
            Stage::Connecting => "connecting".to_owned(),
            Stage::Asked(begun) => {
                Answer::of(begun).map_or_else(|| "closed early".to_owned(), |answer| answer.body)
            }
            Stage::Welcome { .. } => "cut in its welcome".to_owned(),
            Stage::Joined => panic!("device {key} was in, and was closed: {error:?}"),
        };
        self.refusals.insert(said);
        if device.is_guest {
            self.refused += 1;
        } else {
            self.open(now(), false);
        }
    }

    fn take(&mut self, key: usize, read: usize) {
        let device = &mut self.devices[key];
        let left = match &mut device.stage {
            Stage::Connecting => unreachable!("it asks before it reads"),
            Stage::Asked(begun) => {
                begun.extend_from_slice(&self.scratch[..read]);
                let Some((end, bytes)) = welcome_end(begun) else { return };
                self.welcome_bytes = bytes;
                end.saturating_sub(begun.len())
            }
            Stage::Welcome { left } => left.saturating_sub(read),
            Stage::Joined => return self.hear(key, read),
        };
        if left == 0 {
            return self.welcomed(key);
        }
        device.stage = Stage::Welcome { left };
    }

    fn welcomed(&mut self, key: usize) {
        let device = &mut self.devices[key];
        device.stage = Stage::Joined;
        self.last_welcome = now();
        self.welcomes.push(self.last_welcome - device.due);
        if device.is_guest {
            self.guests.push_back(key);
        }
    }

    /// Reads the stamps in new bytes, if this device is a reader.
    fn hear(&mut self, key: usize, read: usize) {
        let Some((kept, heard_at)) = &mut self.devices[key].reads else { return };
        let at = now();
        self.ears.gaps.push(at - *heard_at);
        *heard_at = at;
        kept.extend_from_slice(&self.scratch[..read]);
        let stamp_bytes = STAMP.len() + STAMP_DIGITS;
        let mut from = 0;
        while let Some(found) = kept[from..].windows(stamp_bytes).position(|bytes| bytes.starts_with(STAMP)) {
            let digits = &kept[from + found + STAMP.len()..from + found + stamp_bytes];
            let digits = std::str::from_utf8(digits).expect("ASCII");
            let due = Duration::from_micros(digits.parse().expect("a number"));
            if due >= self.hears_from {
                self.ears.latencies.push((at - self.began).saturating_sub(due));
            }
            from += found + stamp_bytes;
        }
        // A stamp may be cut in two.
        kept.drain(..from.max(kept.len().saturating_sub(stamp_bytes - 1)));
    }
}

/// The end of the welcome behind the answer, and the welcome's length, once both are known.
fn welcome_end(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    if !bytes.starts_with(b"HTTP/1.1 101") {
        return None; // Refused: the node closes it.
    }
    let frame = &bytes[head..];
    let short = usize::from(*frame.get(1)?);
    let (header, payload) = match short {
        126 => (4, frame.get(2..4)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))),
        127 => (10, frame.get(2..10)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))),
        length => (2, length),
    };
    Some((head + header + payload, header + payload))
}

fn handshake() -> Vec<u8> {
    b"GET /v1/rooms/storm/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
      sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec()
}

/// Begins to connect, from an address of this process with free ports. The ports of gone devices stay taken
/// for a minute. A search for a free port among many taken ports would cost the load more than all else.
fn connect(door: SocketAddr, number: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    let [.., own] = std::process::id().to_be_bytes();
    let [high, low] = u16::try_from(number / PORTS_EACH).expect("fewer sockets than that").to_be_bytes();
    let source = Ipv4Addr::new(127, own.max(1), high, low.max(1));
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&door.into()) {
        Err(error) if error.raw_os_error() == Some(IN_PROGRESS) => {}
        connected => connected?,
    }
    Ok(TcpStream::from_std(socket.into()))
}
