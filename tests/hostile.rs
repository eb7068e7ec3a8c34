//! Slow, broken and malicious devices cost the other devices nothing, and the node a bounded amount
//! (assurance: T6 slow readers, T7 hostile devices, T8 half handshakes).
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use roomcast_core::limits::HALF_OPEN_MAX;
use serde_json::{Value, json};
use support::device::{list, published};
use support::raw::{frame, handshake_head};
use support::{
    Device, Doors, Encoding, Handshake, Heard, Node, Process, RawDevice, comes, one_and_four_shards, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, sleep, timeout};

one_and_four_shards!(
    slow_devices_harm_nobody_and_are_told_exactly_what_they_missed,
    a_device_that_trickles_is_closed_for_being_behind,
    a_silent_device_is_closed_and_one_that_pings_is_not,
    each_offence_is_closed_with_its_code,
    a_hostile_crowd_costs_a_bounded_amount_of_memory,
    half_handshakes_are_closed_and_keep_nobody_out,
    a_door_full_of_the_silent_still_lets_devices_in,
);

/// Small enough that a device which stops reading is soon behind.
const RECEIVE_BUFFER_BYTES: u32 = 4096;
/// The time of a device's end after its deadline. The kernel still holds bytes for the device then.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// The sums of what one device was told of a room.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    seq: u64,
    /// Type -> messages that came.
    came: BTreeMap<String, u64>,
    /// Type -> messages told as skipped.
    skipped: BTreeMap<String, u64>,
    /// Type -> messages told as merged away.
    merged: BTreeMap<String, u64>,
    /// The increments of `like`, and its total.
    likes: [u64; 2],
    refreshes: u64,
}

impl Told {
    fn add(&mut self, frame: &Value) {
        self.seq = frame["seq"].as_u64().unwrap();
        for message in list(frame, "messages") {
            *self.came.entry(message["type"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        for (sum, member) in [(&mut self.skipped, "skipped"), (&mut self.merged, "merged")] {
            for (type_name, count) in frame[member].as_object().into_iter().flatten() {
                *sum.entry(type_name.clone()).or_default() += count.as_u64().unwrap();
            }
        }
        self.refreshes += u64::from(!frame["skipped"].is_null());
        if let Some(like) = frame["counters"]["like"].as_object() {
            self.likes = [self.likes[0] + like["add"].as_u64().unwrap(), like["total"].as_u64().unwrap()];
        }
    }

    /// Type -> messages that were cut: those that came, and the skipped ones.
    fn cut(&self) -> BTreeMap<String, u64> {
        let mut cut = self.came.clone();
        for (type_name, count) in &self.skipped {
            *cut.entry(type_name.clone()).or_default() += count;
        }
        cut
    }
}

/// A message of 3 KB, an increment, and two messages of one key, of which one is merged away.
fn round(n: u64) -> Value {
    json!({"messages": [
        {"type": "chat", "payload": [n, "x".repeat(3000)]}, {"type": "like", "count": n + 1},
        {"type": "enter", "payload": n, "key": "k"}, {"type": "enter", "payload": n, "key": "k"},
    ]})
}

/// A handshake with a small receive buffer.
fn small(encoding: Encoding) -> Handshake {
    Handshake { receive_buffer_bytes: Some(RECEIVE_BUFFER_BYTES), ..Handshake::new(encoding) }
}

/// One member of the busy room, and all it was told there.
#[derive(Debug)]
struct Member {
    device: Device,
    /// The seq of the welcome.
    joined: u64,
    told: Told,
    /// The numbers of the rounds whose chat came.
    rounds: Vec<u64>,
    /// Seq -> the sums at that seq.
    ledger: BTreeMap<u64, Told>,
}

impl Member {
    /// Comes in through a room that lives on some shard, so that the busy room has members on all shards.
    async fn join(doors: &Doors, through: &str, room: &str, handshake: Handshake) -> Self {
        let mut device = Device::join_with(doors, through, handshake).await;
        let welcome = device.join_further(room).await;
        device.leave(through).await;
        let joined = welcome["seq"].as_u64().unwrap();
        let told = Told { seq: joined, ..Told::default() };
        let ledger = BTreeMap::from([(joined, told.clone())]);
        Self { device, joined, told, rounds: Vec::new(), ledger }
    }

    /// Hears one frame. Returns the end of the connection, if it has ended.
    async fn hear(&mut self) -> Option<Heard> {
        let frame = match self.device.hear().await {
            Heard::Frame(frame) => frame,
            end => return Some(end),
        };
        self.told.add(&frame);
        self.ledger.insert(self.told.seq, self.told.clone());
        let messages = published(&frame).into_iter();
        let chats = messages.filter(|message| message["type"] == "chat");
        self.rounds.extend(chats.map(|chat| chat["payload"][0].as_u64().unwrap()));
        None
    }

    async fn hear_up_to(&mut self, seq: u64) {
        while self.told.seq < seq {
            assert_eq!(self.hear().await, None, "at seq {} of {seq}", self.told.seq);
        }
    }

    /// Hears everything up to a round. Nothing may be skipped: a skipped round would never come.
    async fn hear_round(&mut self, n: u64) {
        while self.rounds.last() != Some(&n) {
            assert_eq!(self.hear().await, None, "before round {n}");
            assert_eq!(self.told.skipped, BTreeMap::new(), "before round {n}");
        }
    }

    /// Hears everything, and is never closed.
    async fn stay(&mut self) {
        loop {
            assert_eq!(self.hear().await, None, "after seq {}", self.told.seq);
        }
    }

    /// Asserts that the member came, skipped and merged as many messages as `witness` saw in the same seqs.
    fn adds_up(&self, witness: &Self) {
        let before = &witness.ledger[&self.joined];
        let after = &witness.ledger[&self.told.seq];
        let since = |after: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let grown = after.iter().map(|(name, n)| (name.clone(), n - before.get(name).unwrap_or(&0)));
            grown.filter(|(_, n)| *n > 0).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(self.told.cut(), since(&after.cut(), &before.cut()), "came and skipped");
        assert_eq!(self.told.merged, since(&after.merged, &before.merged), "merged");
        assert_eq!(self.told.likes[0], after.likes[0] - before.likes[0], "added");
        assert_eq!(self.told.likes[1], after.likes[1], "total");
        assert!(self.rounds.is_sorted_by(|a, b| a < b), "no round twice, none out of order");
    }
}

/// Publishes a round, and waits until all of `members` have heard it.
async fn play(doors: &Doors, n: u64, members: &mut [Member]) {
    doors.publish("busy", &round(n)).await;
    join_all(members.iter_mut().map(|member| member.hear_round(n))).await;
}

/// Publishes rounds, `n` the first, until each of `recovering` has heard one. Returns the last.
///
/// History follows a refresh. A round that finds a piece of it on its way to a slow device is skipped and told,
/// and comes as history.
async fn recover(doors: &Doors, mut n: u64, healthy: &mut [Member], recovering: &mut [Member]) -> u64 {
    const ROUNDS_MAX: u64 = 20;
    let most = n + ROUNDS_MAX;
    loop {
        play(doors, n, healthy).await;
        let seq = healthy[0].told.seq;
        join_all(recovering.iter_mut().map(|member| member.hear_up_to(seq))).await;
        if recovering.iter().all(|member| member.rounds.last() == Some(&n)) {
            return n;
        }
        n += 1;
        assert!(n < most, "who reads again soon hears every round");
    }
}

/// Waits until `members` were told of as many skipped messages as the node counts.
async fn told_is_counted(doors: &Doors, members: &mut [Member]) {
    until("told is counted", async || {
        let counted = doors.metrics().await.sum("roomcast_messages_skipped_total", &[]);
        let head = doors.view("busy").await["head"]["seq"].as_u64().unwrap();
        join_all(members.iter_mut().map(|member| member.hear_up_to(head))).await;
        let told = members.iter().flat_map(|member| member.told.skipped.values()).sum::<u64>();
        (told == counted).then_some(())
    })
    .await;
}

async fn slow_devices_harm_nobody_and_are_told_exactly_what_they_missed(shards: usize) {
    const HEALTHY: usize = 180;
    const RECOVERING: usize = 12;
    const STUCK: usize = 8;
    const ROUNDS_MAX: u64 = 1000;
    let node = Node::start(shards);
    let doors = node.doors;
    node.configure("busy", &json!({"flush": {"direct_members": 0, "gather_ms": 5}})).await;
    let rooms = node.rooms_apart("start", 4, shards).await;
    let join = async |count: usize, handshake: fn(Encoding) -> Handshake| {
        let mut members = Vec::new();
        for n in 0..count {
            let through = &rooms[n % 4];
            let encoding = Encoding::ALL[n / 4 % 2];
            members.push(Member::join(&doors, through, "busy", handshake(encoding)).await);
        }
        members
    };
    let mut healthy = join(HEALTHY, Handshake::new).await;
    let mut recovering = join(RECOVERING, small).await;
    let mut stuck = join(STUCK, small).await;

    // All slow devices stop reading and fall behind; the others hear every round.
    let mut n = 0;
    while node.metrics().await.sum("roomcast_connections_behind", &[]) < (RECOVERING + STUCK) as u64 {
        play(&doors, n, &mut healthy).await;
        n += 1;
        assert!(n < ROUNDS_MAX, "the kernel's memory for one device has an end");
    }
    assert!(node.metrics().await.sum("roomcast_frames_skipped_total", &[]) > 0);

    // Some devices read again. They get the begun frames, then an account of the missed ones, and no backlog.
    let head = node.view_when("busy", |view| view["backlog"]["gathered"] == 0).await["head"]["seq"].as_u64();
    let head = head.unwrap();
    join_all(healthy.iter_mut().chain(&mut recovering).map(|member| member.hear_up_to(head))).await;
    assert!(recovering.iter().all(|member| member.told.refreshes > 0), "each was refreshed");
    // Soon they are as good as any.
    let n = recover(&doors, n, &mut healthy, &mut recovering).await;
    healthy.append(&mut recovering);
    let (witness, others) = healthy.split_first().unwrap();
    assert_eq!(witness.rounds, (0..=n).collect::<Vec<_>>());
    for (at, member) in others.iter().enumerate() {
        member.adds_up(witness);
        assert!(member.told.refreshes > 0 || member.rounds == witness.rounds, "device {at} missed a round");
        assert_eq!(member.told.refreshes > 0, at + 1 >= HEALTHY, "only slow devices are refreshed");
    }

    // Devices that still take nothing are closed at their deadline, resumably, and were told nothing wrong
    // before. Nobody else is closed, as long as they read.
    let deadline = node.metrics_when("the deadline", |it| it.closed("no_progress") == STUCK as u64);
    tokio::select! {
        _ = deadline => {}
        _ = join_all(healthy.iter_mut().map(Member::stay)) => {}
    }
    let ends = join_all(stuck.iter_mut().map(async |member| {
        loop {
            if let Some(end) = member.hear().await {
                return end;
            }
        }
    }));
    let ends = ends.await;
    assert!(ends.iter().all(|end| matches!(end, Heard::Closed(4001) | Heard::Ended)), "{ends:?}");
    assert!(ends.contains(&Heard::Closed(4001)), "who reads in time hears why: {ends:?}");
    for member in &stuck {
        member.adds_up(&healthy[0]);
    }
    told_is_counted(&doors, &mut healthy).await;
    let metrics =
        node.metrics_when("nobody behind", |it| it.sum("roomcast_connections_behind", &[]) == 0).await;
    assert!(metrics.sum("roomcast_frames_total", &["refresh"]) >= RECOVERING as u64);
}

async fn a_device_that_trickles_is_closed_for_being_behind(shards: usize) {
    /// Messages of half a batch, so that a device's outbox holds the most it may.
    const CHATS: usize = 5;
    /// Bytes taken every quarter of a second: the device makes progress, and never drains.
    const SIP_BYTES: usize = 700;
    let node = Node::start(shards);
    let mut healthy = Device::join(&node, "r1", Encoding::Json).await;
    let small = Handshake { receive_buffer_bytes: Some(4096), ..Handshake::new(Encoding::Json) };
    let mut trickling = Device::join_with(&node, "r1", small).await;
    let batch = json!({"messages": vec![json!({"type": "chat", "payload": "x".repeat(3000)}); CHATS]});
    // It reads at first, and is known to be fast: only such a device is owed so much.
    for _ in 0..5 {
        // Bursts prove a rate if they are 100 ms apart.
        sleep(Duration::from_millis(150)).await;
        node.publish("r1", &batch).await;
        assert_eq!(healthy.messages(CHATS).await.len(), CHATS);
        trickling.until_pong().await;
        // The second ping tells the node's kernel that all before the first pong was taken.
        trickling.until_pong().await;
    }
    let mut published = 0;
    while node.metrics().await.sum("roomcast_connections_behind", &[]) == 0 {
        node.publish("r1", &batch).await;
        assert_eq!(healthy.messages(CHATS).await.len(), CHATS);
        published += 1;
        assert!(published < 1000, "the kernel's memory for one device has an end");
    }
    let mut sips = interval(Duration::from_millis(250));
    let mut sip = [0; SIP_BYTES];
    let to_the_deadline = Box::pin(async {
        while node.metrics().await.closed("behind") == 0 {
            sips.tick().await;
            trickling.stream().readable().await.unwrap();
            trickling.stream().try_read(&mut sip).unwrap();
        }
    });
    comes("the deadline", to_the_deadline).await;
    assert_eq!(node.metrics().await.closed("no_progress"), 0);
    node.chat("r1", 0..1).await;
    assert_eq!(healthy.numbers(1).await, [0]);
}

async fn a_silent_device_is_closed_and_one_that_pings_is_not(shards: usize) {
    let node = Node::with(shards, &[("VIEWER__HEARTBEAT_MS", "1000")]);
    let mut pinging = Device::join(&node, "r1", Encoding::Proto).await;
    assert_eq!(pinging.welcome["heartbeat_ms"], 1000);
    let mut silent = RawDevice::join(&node, "r1", Encoding::Json).await;
    let is_owed_pong = Cell::new(false);
    let pings = async {
        let mut heartbeats = interval(Duration::from_secs(1));
        loop {
            heartbeats.tick().await;
            pinging.say(&json!({"kind": "ping"})).await;
            is_owed_pong.set(true);
            pinging.notice("pong").await;
            is_owed_pong.set(false);
        }
    };
    let closed = tokio::select! {
        code = silent.close_code() => code,
        () = pings => None,
    };
    assert_eq!(closed, Some(4000), "silent for 2.5 heartbeats");
    if is_owed_pong.get() {
        pinging.notice("pong").await;
    }
    node.metrics_when("one silence", |metrics| metrics.closed("silent") == 1).await;
    node.chat("r1", 0..1).await;
    assert_eq!(pinging.numbers(1).await, [0]);
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;
/// Text, to be continued.
const TEXT_BEGUN: u8 = 0x01;
const CONTINUED: u8 = 0x00;

fn times(count: usize, frame: &[u8]) -> Vec<u8> {
    frame.repeat(count)
}

/// A header that announces `length` in eight bytes, and no payload.
fn announced(length: u64) -> Vec<u8> {
    [&[TEXT, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

fn join_flood() -> Vec<u8> {
    let join = |n: usize| frame(TEXT, format!(r#"{{"kind":"join","room":"flood-{n}"}}"#).as_bytes());
    (0..400).flat_map(join).collect()
}

/// The offences of a JSON device, each with its bytes and its close code.
fn offences() -> Vec<(&'static str, Vec<u8>, u16)> {
    let close = |payload: &[u8]| frame(CLOSE, payload);
    vec![
        ("a flood of pings", times(400, &frame(PING, &[b'x'; 125])), 1008),
        ("a flood of frames", times(400, &frame(TEXT, br#"{"kind":"ping"}"#)), 1008),
        ("a flood of joins", join_flood(), 1008),
        (
            "a drip of fragments",
            [frame(TEXT_BEGUN, b"x"), times(400, &frame(CONTINUED, b"x"))].concat(),
            1008,
        ),
        (
            "fragments that add up",
            [frame(TEXT_BEGUN, &[b'x'; 1024]), times(4, &frame(CONTINUED, &[b'x'; 1024]))].concat(),
            1009,
        ),
        ("2^63 - 1 bytes announced", announced(u64::MAX >> 1), 1009),
        ("64 KiB announced", announced(0x1_0000), 1009),
        ("a byte too many announced", [&[TEXT, 0xfe][..], &4097_u16.to_be_bytes(), &[0; 4]].concat(), 1009),
        ("a length in more bytes than it takes", announced(5), 1002),
        ("text that is not UTF-8", frame(TEXT, b"\xc3\x28"), 1007),
        ("a fragment that is not UTF-8", frame(TEXT_BEGUN, b"ok \xff"), 1007),
        ("a frame without a mask", vec![TEXT, 2, b'{', b'}'], 1002),
        ("a reserved bit", frame(TEXT | 0x40, b"{}"), 1002),
        ("a reserved opcode", frame(0x83, b"{}"), 1002),
        ("a reserved control opcode", frame(0x8b, b""), 1002),
        ("a continuation of nothing", frame(0x80, b"{}"), 1002),
        ("a message within a message", [frame(TEXT_BEGUN, b"{"), frame(TEXT, b"{}")].concat(), 1002),
        ("a ping in fragments", frame(0x09, b""), 1002),
        ("a ping too long", frame(PING, &[0; 126]), 1002),
        ("a close of one byte", close(&[3]), 1002),
        ("a close code that never travels", close(&1005_u16.to_be_bytes()), 1002),
        ("a close reason that is not UTF-8", close(&[3, 232, 0xff]), 1007),
        ("binary for a text encoding", frame(BINARY, b"{}"), 1003),
    ]
}

async fn each_offence_is_closed_with_its_code(shards: usize) {
    let node = Node::start(shards);
    let mut honest = Device::join(&node, "r1", Encoding::Json).await;
    let mut expected = BTreeMap::<u16, u64>::new();
    for (offence, bytes, code) in offences() {
        let mut device = RawDevice::join(&node, "r1", Encoding::Json).await;
        device.send(&bytes).await;
        let closed = timeout(CLOSES_WITHIN, device.close_code()).await;
        assert_eq!(closed.unwrap_or_else(|_| panic!("{offence} is not closed")), Some(code), "{offence}");
        *expected.entry(code).or_default() += 1;
    }
    let mut device = RawDevice::join(&node, "r1", Encoding::Proto).await;
    device.send(&frame(TEXT, b"{}")).await;
    assert_eq!(device.close_code().await, Some(1003), "text for a binary encoding");
    *expected.entry(1003).or_default() += 1;
    // The highest bit of a length must be 0. The node may call it too big or a breach of protocol, but ends
    // there.
    let mut device = RawDevice::join(&node, "r1", Encoding::Json).await;
    device.send(&announced(1 << 63)).await;
    assert!(matches!(device.close_code().await, Some(1002 | 1009)));
    let reasons =
        [(1002, "protocol_error"), (1003, "unsupported"), (1007, "not_utf8"), (1008, "frame_flood")];
    node.metrics_when("closes counted by reason", |metrics| {
        let counted = |(code, reason): &(u16, &str)| (metrics.closed(reason), expected[code]);
        reasons.iter().map(counted).all(|(counted, expected)| (expected..=expected + 1).contains(&counted))
    })
    .await;
    // A misspelt frame is answered, and a message of the largest size is taken.
    let mut device = RawDevice::join(&node, "r1", Encoding::Json).await;
    device.send(&frame(TEXT, &[b'x'; 4096])).await;
    let answer = loop {
        let (_, payload) = device.frame().await.unwrap();
        let frame: Value = serde_json::from_slice(&payload).unwrap();
        if frame["kind"] == "error" {
            break frame;
        }
    };
    assert_eq!(answer["code"], "bad_frame");
    // The honest device heard nothing of all this but the audience.
    node.chat("r1", 0..1).await;
    assert_eq!(honest.numbers(1).await, [0]);
}

async fn a_hostile_crowd_costs_a_bounded_amount_of_memory(shards: usize) {
    const CROWD: usize = 200;
    const GROWTH_KIB_MAX: u64 = 10 * 1024;
    let process = Process::start(shards).await;
    let doors = process.doors;
    let mut honest = Device::join(&doors, "r1", Encoding::Json).await;
    doors.chat("r1", 0..1).await;
    assert_eq!(honest.numbers(1).await, [0]);
    let before = process.memory_kib("VmRSS");
    let mut crowd = Vec::new();
    let held = [
        // Within the rules: the most that a device may leave half said.
        [&[TEXT, 0xfe][..], &4096_u16.to_be_bytes(), &[0; 4], &[b'x'; 4000]].concat(),
        [frame(TEXT_BEGUN, &[b'x'; 4000]), frame(PING, b"")].concat(),
        vec![TEXT],
    ];
    let offences = offences();
    for n in 0..CROWD {
        let mut device = RawDevice::join(&doors, "r1", Encoding::Json).await;
        // None of these devices ever reads.
        match held.get(n % 6) {
            Some(half_said) => device.send(half_said).await,
            None => device.send(&offences[n % offences.len()].1).await,
        }
        crowd.push(device);
    }
    // Every device is written to, and the offenders are gone.
    let large = json!({"type": "chat", "payload": "x".repeat(16_000)});
    for _ in 0..20 {
        doors.publish("r1", &large).await;
        assert_eq!(honest.messages(1).await.len(), 1);
    }
    let offended = (CROWD - CROWD.div_ceil(6) * 3) as u64;
    let closed = |metrics: &support::Metrics| metrics.sum("roomcast_connections_closed_total", &[]);
    doors.metrics_when("offenders closed", |metrics| closed(metrics) >= offended - 3).await;
    let grown = process.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown <= GROWTH_KIB_MAX, "{CROWD} hostile devices cost {grown} KiB");
    drop(crowd);
}

async fn a_door_full_of_the_silent_still_lets_devices_in(shards: usize) {
    const HONEST: usize = 50;
    /// All the silent connections have their second, twice. The deadline of a head would take twice 5 s.
    const IN_WITHIN: Duration = Duration::from_secs(8);
    let node = Node::start(shards);
    let mut silent = Vec::new();
    for _ in 0..2 * HALF_OPEN_MAX {
        silent.push(TcpStream::connect(node.viewer).await.unwrap());
    }
    let joins = join_all((0..HONEST).map(|n| Device::join(&node, "r1", Encoding::ALL[n % 2])));
    let devices = timeout(IN_WITHIN, joins).await.expect("silence keeps nobody out");
    assert_eq!(devices.len(), HONEST);
    let metrics = node.metrics().await;
    let full =
        metrics.sum("roomcast_door_connections_dropped_total", &["door=\"viewer\"", "reason=\"full\""]);
    assert!(full >= HALF_OPEN_MAX as u64, "{full} gave way");
}

async fn half_handshakes_are_closed_and_keep_nobody_out(shards: usize) {
    const HALF: usize = 1000;
    const DRIPPING: usize = 100;
    /// The deadline of a head is 5 s.
    const GONE_WITHIN: Duration = Duration::from_secs(9);
    const _: () = assert!(HALF < HALF_OPEN_MAX, "honest devices find a place beside them");
    let node = Node::start(shards);
    let head = handshake_head(&node, "/v1/rooms/r1/ws");
    let mut halves = Vec::new();
    for n in 0..HALF - DRIPPING {
        let mut stream = TcpStream::connect(node.viewer).await.unwrap();
        // Some say nothing, most say something, none says enough.
        stream.write_all(&head.as_bytes()[..n % head.len()]).await.unwrap();
        halves.push(stream);
    }
    let mut dripping = Vec::new();
    for _ in 0..DRIPPING {
        let mut stream = TcpStream::connect(node.viewer).await.unwrap();
        stream.write_all(format!("{head}x-never-ending: ").as_bytes()).await.unwrap();
        dripping.push(stream);
    }
    let gone = join_all(halves.iter_mut().map(async |stream| {
        let mut read = Vec::new();
        drop(stream.read_to_end(&mut read).await);
        assert!(!read.starts_with(b"HTTP/1.1 101"), "half a handshake lets nobody in");
    }));
    // A byte now and then does not buy a handshake more time.
    let drip = async {
        let mut drops = interval(Duration::from_millis(200));
        while !dripping.is_empty() {
            drops.tick().await;
            let mut alive = Vec::new();
            for mut stream in dripping.drain(..) {
                let is_closed = stream.try_read(&mut [0; 1]).is_ok();
                if !is_closed && stream.write_all(b"x").await.is_ok() {
                    alive.push(stream);
                }
            }
            dripping = alive;
        }
    };
    let honest = async {
        let mut devices = Vec::new();
        for n in 0..20 {
            devices.push(Device::join(&node, "r1", Encoding::ALL[n % 2]).await);
        }
        node.chat("r1", 0..5).await;
        for device in &mut devices {
            assert_eq!(device.numbers(5).await, [0, 1, 2, 3, 4]);
        }
    };
    let all = Box::pin(async { tokio::join!(gone, drip, honest) });
    timeout(GONE_WITHIN, all).await.expect("half handshakes are given up on");
    node.metrics_when("late ones counted", |metrics| {
        let labels = ["door=\"viewer\"", "reason=\"late\""];
        metrics.sum("roomcast_door_connections_dropped_total", &labels) == HALF as u64
    })
    .await;
}
