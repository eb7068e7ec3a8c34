//! Receipts against an oracle that knows the devices: named ones on old and new connections over several
//! shards, with a cursor, an older one or none, and connections without a name. The node comes to rest after
//! each step, so the oracle knows who was a member at each sending.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use roomcast::shard::Plan;
use roomcast::shard::homes::heat::HeatRules;
use roomcast_core::room::id::Cursor;
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::{Ask, Told};

use crate::crowd::ack;
use crate::device::Heard;
use crate::node::Node;

const ROOM: &str = "r";
const SHARDS: usize = 3;
const STEPS: usize = 60;
const SEEDS: u64 = 300;
/// Names of devices. Few, so that most connections are of a device that is known, or even present.
const NAMES: usize = 5;

/// A connection, as its device knows it.
#[derive(Debug)]
struct Link {
    /// Index of the name. `None`: the device gives none.
    name: Option<usize>,
    is_open: bool,
    acked: u64,
}

/// A message, as somebody who sees all devices counts it.
#[derive(Debug, Default)]
struct Counted {
    expires_ms: u64,
    is_recalled: bool,
    names: BTreeSet<usize>,
    /// Connections without a name, by index.
    links: BTreeSet<usize>,
    /// Connections without a name that came back with the message of an earlier life.
    returned: u64,
}

struct Watch {
    rng: Rng,
    node: Node,
    links: Vec<Link>,
    /// By offset, from 1.
    messages: Vec<Counted>,
    /// Name -> the last offset that the device has acknowledged, by frame or cursor.
    acked: BTreeMap<usize, u64>,
    /// Name -> the last offset sent as the device lost its last connection.
    gone_at: BTreeMap<usize, u64>,
    /// Messages up to this offset are of an earlier life of the node.
    earlier: u64,
    trace: Vec<String>,
}

impl Watch {
    fn new(seed: u64) -> Self {
        let rules = RoomRules { direct_members: 100, ..RoomRules::default() };
        let heat =
            HeatRules { shards: SHARDS, ..Plan::new(0, SHARDS, rules, Duration::from_secs(1), 1).heat };
        Self {
            rng: Rng::with_seed(seed),
            node: Node::new(rules, heat),
            links: Vec::new(),
            messages: Vec::new(),
            acked: BTreeMap::new(),
            gone_at: BTreeMap::new(),
            earlier: 0,
            trace: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..24) {
            0..6 => self.join(),
            6..10 => self.leave(),
            10..15 => self.publish(),
            15..21 => self.acknowledge(),
            21 => self.recall(),
            22 => self.wait(),
            _ if self.rng.u8(..4) == 0 => self.crash(),
            _ => {}
        }
    }

    fn is_alive(&self, message: &Counted) -> bool {
        !message.is_recalled && message.expires_ms > self.node.now.unix_ms
    }

    fn open_links(&self) -> Vec<usize> {
        (0..self.links.len()).filter(|index| self.links[*index].is_open).collect()
    }

    fn is_present(&self, name: usize) -> bool {
        self.links.iter().any(|link| link.is_open && link.name == Some(name))
    }

    fn join(&mut self) {
        let name = (self.rng.u8(..4) > 0).then(|| self.rng.usize(..NAMES));
        let newest = name.and_then(|name| self.acked.get(&name).copied()).unwrap_or(0);
        let sent = self.messages.len() as u64;
        // A device may have applied more than it acknowledged, or have lost some of it.
        let cursor = match self.rng.u8(..4) {
            0 => None,
            1 => Some(newest),
            _ => Some(self.rng.u64(0..=sent)),
        };
        let cursor = cursor.filter(|_| sent > 0);
        let epoch = cursor.map(|_| self.epoch());
        let asked = epoch.zip(cursor).map(|(epoch, at)| Cursor::parse(&format!("{epoch}:{at}")).unwrap());
        let shard = self.rng.usize(..SHARDS);
        self.trace.push(format!("{name:?} joins on {shard} with {cursor:?}"));
        let device = name.map(|name| format!("device-{name}"));
        let was_present = name.is_some_and(|name| self.is_present(name));
        let index = self.node.join_at(shard, ROOM, device.as_deref(), asked);
        assert_eq!(index, self.links.len());
        self.links.push(Link { name, is_open: true, acked: cursor.unwrap_or(0) });
        self.count_in(index, cursor, was_present);
    }

    /// Counts a newly joined connection in the messages that were sent before.
    fn count_in(&mut self, index: usize, cursor: Option<u64>, was_present: bool) {
        let is_alive: Vec<bool> = self.messages.iter().map(|message| self.is_alive(message)).collect();
        // All before the first that is alive will never be sent again.
        let floor = is_alive.iter().position(|alive| *alive).unwrap_or(is_alive.len()) as u64;
        let name = self.links[index].name;
        let is_known =
            name.is_some_and(|name| self.messages.iter().any(|message| message.names.contains(&name)));
        let gone_at = name.and_then(|name| self.gone_at.get(&name).copied()).unwrap_or(0);
        for ((offset, message), alive) in (1..).zip(&mut self.messages).zip(is_alive) {
            let has_it = cursor.is_some_and(|cursor| offset <= cursor);
            match name {
                Some(name) => {
                    let comes_back = cursor.is_some() || (is_known && !was_present && offset > gone_at);
                    if (has_it && offset <= self.earlier) || (comes_back && !has_it && alive) {
                        message.names.insert(name);
                    }
                }
                None if has_it => message.returned += u64::from(offset <= self.earlier),
                None if cursor.is_some() && offset > floor => {
                    message.links.insert(index);
                }
                None => {}
            }
        }
        if let (Some(name), Some(cursor)) = (name, cursor) {
            let acked = self.acked.entry(name).or_default();
            *acked = cursor.max(*acked);
        }
    }

    fn leave(&mut self) {
        let Some(index) = self.rng.choice(self.open_links()) else { return };
        self.trace.push(format!("connection {index} ends"));
        self.node.leave(index);
        self.links[index].is_open = false;
        if let Some(name) = self.links[index].name.filter(|name| !self.is_present(*name)) {
            self.gone_at.insert(name, self.messages.len() as u64);
            // A device that stands in no receipt is forgotten, and what it acknowledged as well.
            if !self.messages.iter().any(|message| message.names.contains(&name)) {
                self.acked.remove(&name);
            }
        }
    }

    fn publish(&mut self) {
        let ttl_ms = if self.rng.bool() { 60_000 } else { self.rng.u64(1000..4000) };
        let body = format!(r#"{{"type":"coupon","payload":1,"ttl_ms":{ttl_ms}}}"#);
        self.trace.push(format!("publish {} for {ttl_ms} ms", self.messages.len() + 1));
        let expires_ms = self.node.now.unix_ms + ttl_ms;
        self.node.publish(ROOM, &body);
        self.count_sent(Counted { expires_ms, ..Counted::default() });
    }

    /// Counts all members in a message that has been sent.
    fn count_sent(&mut self, mut message: Counted) {
        // Urgent flushes keep their distance.
        self.node.wait(Duration::from_millis(30));
        for index in self.open_links() {
            match self.links[index].name {
                Some(name) => _ = message.names.insert(name),
                None => _ = message.links.insert(index),
            }
        }
        self.messages.push(message);
    }

    fn recall(&mut self) {
        let alive = (1..).zip(&self.messages).filter(|(_, message)| self.is_alive(message));
        let alive: Vec<u64> = alive.map(|(offset, _)| offset).collect();
        let Some(offset) = self.rng.choice(alive) else { return };
        let Told::Recalled(told) = self.node.ask(ROOM, Ask::Recall { offset }) else { panic!("a recall") };
        self.trace.push(format!("recall {offset}: {told:?}"));
        // A recall can't be recalled.
        if told.is_err() {
            return;
        }
        let recalled = &mut self.messages[usize::try_from(offset).unwrap() - 1];
        recalled.is_recalled = true;
        let expires_ms = recalled.expires_ms;
        self.count_sent(Counted { expires_ms, ..Counted::default() });
    }

    fn acknowledge(&mut self) {
        let Some(index) = self.rng.choice(self.open_links()) else { return };
        let sent = self.heard_through(index);
        let acked = self.links[index].acked;
        if sent <= acked {
            return;
        }
        let offset = self.rng.u64(acked + 1..=sent);
        let epoch = self.epoch();
        self.trace.push(format!("connection {index} acknowledges {offset}"));
        self.node.say(index, &ack(ROOM, &epoch, offset));
        self.links[index].acked = offset;
        if let Some(name) = self.links[index].name {
            let acked = self.acked.entry(name).or_default();
            *acked = offset.max(*acked);
        }
    }

    /// The last offset that a connection has heard of.
    fn heard_through(&self, index: usize) -> u64 {
        let through = |heard: &Heard| match heard {
            Heard::Welcome { stream: Some(opened), .. } => opened.part.through,
            Heard::Batch { part: Some(part), .. } => part.through,
            _ => 0,
        };
        self.node.devices[index].heard.iter().map(|(_, heard)| through(heard)).max().unwrap_or(0)
    }

    fn wait(&mut self) {
        let by = Duration::from_millis(self.rng.u64(1..3000));
        self.trace.push(format!("wait {by:?}"));
        self.node.wait(by);
    }

    fn crash(&mut self) {
        self.trace.push("crash".to_owned());
        self.node.crash();
        self.links.clear();
        self.acked.clear();
        self.gone_at.clear();
        self.earlier = self.messages.len() as u64;
        for message in &mut self.messages {
            message.names.clear();
            message.links.clear();
            message.returned = 0;
        }
    }

    /// The epoch of the room's stream. Loads the room if need be.
    fn epoch(&mut self) -> String {
        let Told::Pulled(Ok((opening, _))) = self.node.ask(ROOM, Ask::Pull { after: None }) else {
            panic!("the stream is stored")
        };
        opening.epoch.to_string()
    }

    fn check(&mut self) {
        for offset in 1..=self.messages.len() as u64 {
            let receipt = self.node.receipt(ROOM, offset);
            let counted = &self.messages[usize::try_from(offset).unwrap() - 1];
            let has = |name: &&usize| self.acked.get(name).is_some_and(|acked| *acked >= offset);
            let is_gone = |name: &&usize| !has(name) && !self.is_present(**name);
            let links = || counted.links.iter().map(|index| &self.links[*index]);
            let link_has = links().filter(|link| link.acked >= offset).count();
            let link_gone = links().filter(|link| link.acked < offset && !link.is_open).count();
            let devices = counted.names.len() as u64;
            let online = devices + counted.links.len() as u64 + counted.returned;
            let acknowledged = counted.names.iter().filter(has).count() + link_has;
            let acknowledged = acknowledged as u64 + counted.returned;
            let left = (counted.names.iter().filter(is_gone).count() + link_gone) as u64;
            let told = (receipt.online, receipt.devices, receipt.acknowledged, receipt.left, receipt.pending);
            let pending = online - acknowledged - left;
            assert_eq!(told, (online, devices, acknowledged, left, pending), "{offset}: {counted:?}");
        }
    }
}

#[test]
fn a_receipt_counts_each_device_once_whatever_it_does_and_connections_without_a_name() {
    let many = crate::number("ROOMCAST_SEEDS").unwrap_or(SEEDS);
    let seeds = crate::number("ROOMCAST_RECEIPT").map_or(0..many, |seed| seed..seed + 1);
    for seed in seeds {
        let mut watch = Watch::new(seed);
        for _ in 0..STEPS {
            watch.step();
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watch.check()));
            if let Err(panic) = checked {
                watch.trace.iter().for_each(|line| crate::print(line));
                crate::print(&format!("seed {seed}; replay it with ROOMCAST_RECEIPT={seed}"));
                std::panic::resume_unwind(panic);
            }
        }
    }
}
