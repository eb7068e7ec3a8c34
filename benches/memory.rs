//! The memory of an idle device: every block that a whole node allocates for devices that joined and then
//! stay silent, by the place in the code that holds the block. Also the kernel's memory for these devices,
//! and the blocks that a join, a publish and a flush allocate.
//!
//! The node and the devices are in this process. A device is a bare socket, which holds nothing on the heap.
//! A counting allocator replaces the node's own, so bytes are as asked for, without the roundings of size
//! classes. The kernel's figures come from `/proc/slabinfo` (as root) and count both ends of each connection.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use dhat::{HeapStats, Profiler};
use roomcast::config::Config;
use roomcast::config::args::Args;
use roomcast::server::Server;
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const DEVICES: u64 = 8_000;
const EVENTS: u64 = 50;
/// Longer than the node tells of joins.
const QUIET: Duration = Duration::from_millis(2_500);
/// Frames of a backtrace: down to the function of the node that asked for the memory.
const FRAMES: usize = 48;

fn main() {
    let server = Server::start(anywhere()).expect("loopback has free ports");
    let door = server.viewer_addr;
    let publisher = server.publisher_addr;
    // The first join and the first publish allocate what all later ones share.
    let mut first = Device::join(door);
    publish(publisher, "r1");
    first.hear_until_quiet();

    let slabs = slabs();
    let file = std::env::temp_dir().join(format!("roomcast-memory-{}.json", std::process::id()));
    let profiler = Profiler::builder().file_name(&file).trim_backtraces(Some(FRAMES)).build();
    let mut devices = Vec::with_capacity(usize::try_from(DEVICES).expect("they are few"));
    let before = HeapStats::get();
    devices.extend((0..DEVICES).map(|_| Device::join(door)));
    let joined = HeapStats::get();
    first.hear_until_quiet();
    // Unread frames would count as the kernel's memory.
    devices.iter_mut().for_each(Device::hear_what_came);
    let idle = HeapStats::get();
    let more_slabs = self::slabs();
    print("user memory of an idle device, in bytes and blocks:");
    let each = |bytes: usize, before: usize| (bytes as f64 - before as f64) / DEVICES as f64;
    print(&format!(
        "{:8.1} B {:6.2} blocks  in all",
        each(idle.curr_bytes, before.curr_bytes),
        each(idle.curr_blocks, before.curr_blocks)
    ));
    drop(profiler);
    holders(&fs::read_to_string(&file).expect("the profiler wrote it"));
    fs::remove_file(&file).expect("it is there");
    print("kernel memory per connection, both ends, in bytes and objects:");
    kernel(&slabs, &more_slabs);

    let _profiler = Profiler::builder().file_name(&file).trim_backtraces(Some(1)).build();
    let join_blocks = (joined.total_blocks - before.total_blocks) as f64 / DEVICES as f64;
    let empty = blocks_of(|| publish(publisher, "nobody-is-here"));
    let room = blocks_of(|| {
        publish(publisher, "r1");
        // The last device has the last place in the segment: once it has the frame, every device has.
        devices.last_mut().expect("there are devices").hear();
    });
    print(&format!(
        "blocks allocated: {join_blocks:.1} per join, handshake included; {empty:.1} per publish over HTTP; {:.1} per \
         flush of one message to {} devices",
        room - empty,
        DEVICES + 1
    ));
    drop(server);
    std::process::exit(0);
}

/// The configuration of a node on free ports, with one shard and no file.
fn anywhere() -> Config {
    let mut args = Args::default();
    let free = Some("127.0.0.1:0".to_owned());
    args.flags.viewer_listen.clone_from(&free);
    args.flags.publisher_listen.clone_from(&free);
    args.flags.ops_listen = free;
    args.flags.ephemeral = true;
    args.flags.shards = Some("1".to_owned());
    Config::load(&args, std::iter::empty()).expect("the defaults are good")
}

/// A device that says nothing after its handshake.
struct Device(TcpStream);

impl Device {
    fn join(door: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(door).expect("the door is open");
        let head =
            b"GET /v1/rooms/r1/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            sec-websocket-protocol: roomcast.v1.proto\r\n\r\n";
        stream.write_all(head).expect("the door is open");
        let mut last = [0; 4];
        let mut byte = [0];
        while last != *b"\r\n\r\n" {
            stream.read_exact(&mut byte).expect("the door answers");
            last = [last[1], last[2], last[3], byte[0]];
        }
        let mut device = Self(stream);
        device.hear();
        device
    }

    /// Reads one frame.
    fn hear(&mut self) {
        self.try_hear().expect("a frame comes");
    }

    fn try_hear(&mut self) -> io::Result<()> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut long = [0; 2];
        let length = match head[1] {
            126 => {
                self.0.read_exact(&mut long)?;
                usize::from(u16::from_be_bytes(long))
            }
            short => usize::from(short),
        };
        let mut payload = [0; 1 << 16];
        self.0.read_exact(&mut payload[..length])
    }

    /// Reads frames until none has come for `QUIET`.
    fn hear_until_quiet(&mut self) {
        self.0.set_read_timeout(Some(QUIET)).expect("not zero");
        while self.try_hear().is_ok() {}
        self.0.set_read_timeout(None).expect("it was set before");
    }

    /// Reads the frames that are in the socket.
    fn hear_what_came(&mut self) {
        self.0.set_nonblocking(true).expect("a socket");
        while self.try_hear().is_ok() {}
        self.0.set_nonblocking(false).expect("a socket");
    }
}

/// Publishes one message, and waits for the answer.
fn publish(door: SocketAddr, room: &str) {
    let body = format!(r#"{{"type":"chat","payload":{{"text":"{}"}}}}"#, "x".repeat(100));
    let mut stream = TcpStream::connect(door).expect("the door is open");
    let head = format!("POST /v1/rooms/{room}/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    let head = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// The number of blocks that one `event` allocates, on average.
fn blocks_of(mut event: impl FnMut()) -> f64 {
    event();
    let before = HeapStats::get().total_blocks;
    (0..EVENTS).for_each(|_| event());
    (HeapStats::get().total_blocks - before) as f64 / EVENTS as f64
}

/// The part of the profiler's file that this bench reads.
#[derive(Deserialize)]
struct Profile {
    pps: Vec<Place>,
    ftbl: Vec<String>,
}

/// A backtrace, with its bytes and blocks that are still allocated at the end.
#[derive(Deserialize)]
struct Place {
    eb: u64,
    ebk: u64,
    fs: Vec<usize>,
}

/// Prints the holders of at least a byte per device, the largest first.
fn holders(profile: &str) {
    let profile: Profile = serde_json::from_str(profile).expect("the profiler's own format");
    let mut held: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for place in &profile.pps {
        let (bytes, blocks) = held.entry(holder(place, &profile.ftbl)).or_default();
        *bytes += place.eb;
        *blocks += place.ebk;
    }
    let mut held: Vec<_> = held.into_iter().filter(|(_, (bytes, _))| *bytes >= DEVICES).collect();
    held.sort_by_key(|(_, (bytes, _))| u64::MAX - bytes);
    for (holder, (bytes, blocks)) in held {
        let bytes = bytes as f64 / DEVICES as f64;
        let blocks = blocks as f64 / DEVICES as f64;
        print(&format!("{bytes:8.1} B {blocks:6.2} blocks  {holder}"));
    }
}

/// The innermost functions of a backtrace that say whose memory it is.
fn holder(place: &Place, frames: &[String]) -> String {
    let ours = |frame: &&String| {
        ["roomcast::", "tokio::", "hyper", "bytes::", "slab::"].iter().any(|of| frame.contains(of))
            && !frame.contains("memory::")
    };
    let frames = place.fs.iter().map(|frame| &frames[*frame]).filter(ours).take(3);
    let name = |frame: &String| {
        let frame = frame.split_once(": ").map_or(frame.as_str(), |(_, function)| function);
        frame.rsplit_once(" (").map_or(frame, |(function, _)| function).to_owned()
    };
    frames.map(name).collect::<Vec<_>>().join(" < ")
}

/// Kernel cache -> its objects, and the bytes of one object.
fn slabs() -> BTreeMap<String, (u64, u64)> {
    // Only root may read the file. Without it, the kernel's figures are left out.
    let table = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        let numbers: Vec<u64> = fields.take(3).filter_map(|field| field.parse().ok()).collect();
        let [active, _, bytes] = numbers[..] else { return None };
        Some((name, (active, bytes)))
    };
    table.lines().filter_map(row).collect()
}

/// Prints the caches that grew with the devices.
fn kernel(before: &BTreeMap<String, (u64, u64)>, after: &BTreeMap<String, (u64, u64)>) {
    let mut sum = 0.0;
    for (name, (objects, bytes)) in after {
        let more = objects.saturating_sub(before.get(name).map_or(0, |(objects, _)| *objects));
        let each = more as f64 / DEVICES as f64;
        if each >= 0.2 {
            sum += each * *bytes as f64;
            print(&format!("{:8.1} B {each:6.2} objects of {bytes} B  {name}", each * *bytes as f64));
        }
    }
    print(&format!("{sum:8.1} B in all"));
}

/// Prints one line for people.
fn print(line: &str) {
    writeln!(io::stdout(), "{line}").expect("the terminal is there");
}
