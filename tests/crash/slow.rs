//! C6: a node that stands still for a second, and one behind a link that carries less than its rooms. The others'
//! devices miss nothing, the home of the rooms keeps to its bounds, and the slow node's devices are level again
//! afterwards.
//!
//! `ROOMCAST_SLOW=40` makes the long run, with so many seconds of each kind. The long run judges times as well.

use std::ops::Range;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roomcast_core::limits::{LINK_BATCH_BYTES_MAX, LINK_HELD_BYTES_MAX, LINK_KEPT_BYTES_MAX};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::homes::plan;
use super::ledger::percentiles;
use super::support::device::{published, reliable};
use super::support::{Cluster, Device, Doors, Encoding, Handshake, Heard, comes, until};
use super::{Crowd, Plan, Waits, print};

/// The home of the hot rooms, the node of their publishers, and the slow one.
const HOME: usize = 0;
const TAKES: usize = 1;
const SLOW: usize = 2;

/// Rooms of 100 KB of chat a second: together 3.2 Mbit/s to each node, and more to devices.
const ROOMS: usize = 4;
const CHAT_EVERY: Duration = Duration::from_millis(20);
const CHAT_BYTES: usize = 2000;
/// Devices of a hot room at each node.
const DEVICES: usize = 2;

/// The time for which the node stands still.
const STOPPED: Duration = Duration::from_secs(1);

/// The growth of the home's memory: what a link may keep in either direction for a peer that does not listen.
const GROWTH_KIB_MAX: usize = (LINK_KEPT_BYTES_MAX + LINK_BATCH_BYTES_MAX + LINK_HELD_BYTES_MAX) / 1024;

/// The p99 of the others' devices beside a slow node, in parts of that of the quiet time.
const P99_RATIO_MAX: f64 = 1.2;

/// The flush of a room, as that of a small one and as that of a large one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// Each message by itself, without delay.
    Direct,
    /// The messages of a window together.
    Windowed,
}

/// Chat of one room: the moment of each publish that was taken.
type Sent = Vec<Option<Instant>>;

/// The chat that a device has heard, by its number, with the moment.
struct Listened {
    chat: Vec<(usize, Instant)>,
    /// The ends of its connections before the last one.
    ends: Vec<Heard>,
}

/// Publishes chat until the stop, and then a coupon that names the last of it.
async fn publish(at: Doors, room: String, stopped: watch::Receiver<bool>) -> Sent {
    let mut sent = Vec::new();
    let mut turns = interval(CHAT_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        turns.tick().await;
        let payload = json!({"n": sent.len(), "x": "x".repeat(CHAT_BYTES)});
        let began = roomcast::clock::now().instant;
        let answer =
            at.publisher_door().try_publish(&room, &json!({"type": "chat", "payload": payload})).await;
        sent.push(answer.filter(|answer| answer.status == 200).map(|_| began));
    }
    // Coupons overtake chat.
    let last = sent.iter().rposition(Option::is_some);
    at.durable(&room, &json!({"type": "coupon", "payload": last, "id": "end"})).await;
    sent
}

/// The end of a device's listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The coupon alone. Chat may be missed.
    Coupon,
    /// The coupon, and the last of the chat.
    LastChat,
}

/// Listens until the end, over as many connections as that takes.
async fn listen(at: Doors, room: String, end: End) -> Listened {
    let mut last = None;
    let mut listened = Listened { chat: Vec::new(), ends: Vec::new() };
    loop {
        let joined = Box::pin(Device::try_join(&at, &room, Handshake::new(Encoding::Json))).await;
        let Ok(mut device) = joined else {
            sleep(CHAT_EVERY).await;
            continue;
        };
        let mut frame = device.welcome.take();
        for number in 1_usize.. {
            let now = roomcast::clock::now().instant;
            let numbers = published(&frame).into_iter().filter_map(|it| it["payload"]["n"].as_u64());
            listened.chat.extend(numbers.map(|number| (usize::try_from(number).unwrap(), now)));
            last = last.or_else(|| reliable(&frame).first()?["payload"].as_u64());
            let is_heard =
                |last| end == End::Coupon || listened.chat.iter().any(|(number, _)| *number as u64 == last);
            if last.is_some_and(is_heard) {
                return listened;
            }
            // A device that says nothing for long is closed. An end of the connection is heard below.
            if number.is_multiple_of(100) {
                device.try_say(&json!({"kind": "ping"})).await.ok();
            }
            frame = match device.listen().await {
                Heard::Frame(frame) => frame,
                end => {
                    listened.ends.push(end);
                    break;
                }
            };
        }
    }
}

/// A hot room with its publisher and its devices.
struct Hot {
    flush: Flush,
    sent: JoinHandle<Sent>,
    /// At the home, and at the node that takes the chat.
    others: Vec<JoinHandle<Listened>>,
    at_slow: Vec<JoinHandle<Listened>>,
}

impl Hot {
    async fn start(cluster: &Cluster, number: usize, stopped: watch::Receiver<bool>) -> Self {
        let room = cluster.room_at(HOME, &format!("hot-{number}")).await;
        let flush = if number.is_multiple_of(2) { Flush::Direct } else { Flush::Windowed };
        if flush == Flush::Windowed {
            cluster.doors[TAKES].configure(&room, &json!({"flush": {"direct_members": 0}})).await;
        }
        let devices = |node: usize, end: End| {
            let doors = cluster.doors[node];
            (0..DEVICES).map(|_| tokio::spawn(listen(doors, room.clone(), end))).collect::<Vec<_>>()
        };
        let others = [HOME, TAKES].into_iter().flat_map(|node| devices(node, End::LastChat)).collect();
        let at_slow = devices(SLOW, End::Coupon);
        let doors = cluster.doors[TAKES];
        until("all devices", async || {
            let view = doors.publisher_door().get(&format!("/v1/rooms/{room}")).await;
            (view.status == 200 && view.json()["members"].as_u64() >= Some(3 * DEVICES as u64)).then_some(())
        })
        .await;
        Self { flush, sent: tokio::spawn(publish(doors, room, stopped)), others, at_slow }
    }

    /// The times from the publish to each of the others' devices.
    async fn judge(self) -> Vec<Took> {
        let sent = self.sent.await.unwrap();
        let mut times = Vec::new();
        for listening in self.others {
            let Listened { chat, ends } = comes("the end", listening).await.unwrap();
            assert_eq!(ends, [], "a device at another node was closed");
            assert!(chat.is_sorted_by_key(|(number, _)| *number), "out of order");
            let heard: Vec<usize> = chat.iter().map(|(number, _)| *number).collect();
            let taken: Vec<usize> = (0..sent.len()).filter(|number| sent[*number].is_some()).collect();
            let missed: Vec<&usize> =
                taken.iter().filter(|number| heard.binary_search(number).is_err()).collect();
            assert!(missed.is_empty(), "of {} messages a device missed {missed:?}", taken.len());
            let took = |number: usize, at: Instant| {
                sent[number].map(|sent| Took { flush: self.flush, sent, time: at - sent })
            };
            times.extend(chat.iter().filter_map(|(number, at)| took(*number, *at)));
        }
        for listening in self.at_slow {
            comes("the end at the slow node", listening).await.unwrap();
        }
        times
    }
}

/// The time from a publish to a device.
struct Took {
    flush: Flush,
    sent: Instant,
    time: Duration,
}

/// Prints the times of these spans, the quiet one first. The result is the p99 of each by that of the quiet one.
fn ratios(took: &[Took], flush: Flush, spans: &[(&str, Range<Instant>)]) -> Vec<f64> {
    let p99 = |(what, span): &(&str, Range<Instant>)| {
        let in_span = took.iter().filter(|took| took.flush == flush && span.contains(&took.sent));
        let mut times: Vec<Duration> = in_span.map(|took| took.time).collect();
        print(&format!(
            "TC6: {flush:?}: publish to the others' devices, {what}: {}",
            percentiles(&mut times)
        ));
        times[times.len() * 99 / 100].as_secs_f64()
    };
    let p99s: Vec<f64> = spans.iter().map(p99).collect();
    p99s.iter().map(|p99| p99 / p99s[0]).collect()
}

/// The moments between which something was done to the node.
async fn during(doing: impl Future<Output = ()>) -> Range<Instant> {
    let began = roomcast::clock::now().instant;
    doing.await;
    began..roomcast::clock::now().instant
}

/// Stops the node for a second, in about so long.
async fn stop_and_go(cluster: &Cluster, lasts: Duration) {
    cluster.signal(SLOW, Signal::STOP);
    sleep(STOPPED).await;
    cluster.signal(SLOW, Signal::CONT);
    sleep(lasts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tc6_a_slow_node_is_no_burden_to_the_others() {
    let name = "TC6";
    let long = std::env::var("ROOMCAST_SLOW").ok().map(|seconds| seconds.parse().expect("seconds"));
    let plan = plan("ROOMCAST_SLOW", 1);
    let plan = Plan { rooms: 4, devices: 6, heals_in_ms: 3000, ..plan };
    let lasts = long.map_or(Duration::from_millis(700), Duration::from_secs);
    let Some(cluster) = Cluster::start_apart("TC6 a slow node", 1, 3).await else { return };
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let crowd = Crowd::gather(&plan, cluster.doors.clone(), &mut random);
    let (stop, stopped) = watch::channel(false);
    let hot = join_all((0..ROOMS).map(|room| Hot::start(&cluster, room, stopped.clone()))).await;
    let net = cluster.net.as_ref().expect("namespaces");
    let quiet = during(sleep(lasts)).await;
    let before = cluster.process(HOME).memory_kib("VmRSS");
    let standing = during(stop_and_go(&cluster, lasts)).await;
    net.slow_down(SLOW);
    let shaped = during(sleep(lasts)).await;
    net.speed_up(SLOW);
    let growth = cluster.process(HOME).memory_kib("VmHWM").saturating_sub(before);
    stop.send_replace(true);
    let took: Vec<Took> = join_all(hot.into_iter().map(Hot::judge)).await.into_iter().flatten().collect();
    let metrics = cluster.doors[HOME].metrics().await;
    let count = |name: &str| metrics.sum(&format!("roomcast_link_{name}_total"), &["peer=\"node-2\""]);
    print(&format!(
        "{name}: the home's memory grew by {growth} KiB; its link lapsed {} batches and began anew {} times",
        count("lapsed"),
        count("resets")
    ));
    let spans = [("quiet", quiet), ("a node stands still", standing), ("a node's link is slow", shaped)];
    let [direct, windowed] = [Flush::Direct, Flush::Windowed].map(|flush| ratios(&took, flush, &spans));
    print(&format!("{name}: p99 by that of the quiet time: direct {direct:.2?}, windowed {windowed:.2?}"));
    let waits = Waits { name: "(no waits)", times: Vec::new() };
    Box::pin(crowd.judge(name, &plan, waits)).await;
    assert!(growth <= GROWTH_KIB_MAX as u64, "the home's memory grew by {growth} KiB");
    // A room that flushes each message waits up to a quarter second for a node that falls behind.
    assert!(long.is_none() || windowed.iter().all(|ratio| *ratio <= P99_RATIO_MAX), "{windowed:.2?}");
}
