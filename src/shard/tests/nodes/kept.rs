//! Takeovers in the world of nodes: homes die, and the heirs go on with what they were told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::device::Device;
use super::world::{CLUSTER_KEY, Node, ROOMS, World, key, name};
use crate::shard::ways::{FromNode, NodeWord};
use roomcast_core::cluster::{SLOTS, Slot, SlotHome, Term};
use roomcast_core::limits::KEEP_INTERVAL;
use roomcast_core::room::id::RoomName;
use roomcast_core::wire::publish;

/// Time for a batch to be cut and for its word to come, in a calm world.
const ON_THE_WAY: Duration = Duration::from_millis(500);

/// The likes and the price of a room at each moment, as published.
type Told = VecDeque<(Instant, u64, u64)>;

impl Node {
    /// The heir of each slot is the next node.
    pub(super) fn set_heirs(&self, own: usize, count: usize) {
        self.slots.set_heirs(std::iter::repeat_n(SlotHome::There(key((own + 1) % count)), SLOTS));
    }

    /// Takes rooms of another node, as the exchange would.
    pub(super) fn take_kept(&mut self, word: NodeWord) {
        let NodeWord::Keep(keep) = word else { panic!("rooms") };
        let slot = Slot(u8::try_from(keep.slot).unwrap());
        let of = keep.term.unwrap();
        let term = Term { generation: of.generation, sequence: of.sequence };
        for room in keep.rooms {
            let name = RoomName::parse(&room.room).unwrap();
            let shard = self.home(&name);
            self.backlog[shard].push_back(FromNode::Keep { slot, term, rooms: vec![(name, room)] });
        }
    }
}

impl World {
    /// Homes die again and again while totals and values change. Returns the number of takeovers that were behind.
    pub(super) fn takeovers(seed: u64) -> u64 {
        let mut world = Self::of_nodes(seed, 3, fastrand::Rng::with_seed(seed));
        world.is_calm = true;
        for index in 0..6 {
            world.devices.push(Device::new(index % 3, ROOMS[index / 3], None, 1 << 20));
            world.connect(index);
        }
        let mut behind = 0;
        let mut told: BTreeMap<&str, Told> = ROOMS.map(|room| (room, Told::default())).into();
        for _ in 0..4 {
            world.live(&mut told);
            for room in ROOMS {
                behind += u64::from(world.kill_home(room, told.get_mut(room).unwrap()));
            }
        }
        world.calm();
        world.check();
        behind
    }

    /// Some seconds with likes and prices.
    fn live(&mut self, told: &mut BTreeMap<&str, Told>) {
        let steps = self.random.usize(50..300);
        for _ in 0..steps {
            self.now = self.now.later(Duration::from_millis(self.random.u64(1..=60)));
            if self.chance(25) {
                let room = ROOMS[self.random.usize(..ROOMS.len())];
                self.change(room, told.get_mut(room).unwrap());
            }
            self.step();
        }
        // All is cut.
        for _ in 0..5 {
            self.now = self.now.later(Duration::from_millis(100));
            self.step();
        }
    }

    /// Publishes a few likes, and a price now and then.
    fn change(&mut self, room: &str, told: &mut Told) {
        let (_, mut likes, mut price) = told.back().copied().unwrap_or((self.now.instant, 0, 0));
        let more = self.random.u64(1..5);
        likes += more;
        let mut messages = format!(r#"{{"messages":[{{"type":"like","count":{more}}}"#);
        if self.chance(40) {
            price += 1;
            messages.push_str(&format!(r#",{{"type":"price","key":"p","payload":{price}}}"#));
        }
        messages.push_str("]}");
        let messages = publish::parse_json(messages.as_bytes(), &super::world::types()).unwrap();
        self.tickets += 1;
        let node = self.claimants[&Slot::of(&name(room), CLUSTER_KEY)];
        let node = &mut self.nodes[node];
        let shard = node.home(&name(room));
        node.shards[shard].homes.publish(self.tickets, &name(room), messages, self.now);
        told.push_back((self.now.instant, likes, price));
    }

    /// The home of a room dies as far as its heir can tell: its words on the way are lost, and the heir orders the
    /// room. True: the totals or values of the next home are behind.
    fn kill_home(&mut self, room: &str, told: &mut Told) -> bool {
        let slot = Slot::of(&name(room), CLUSTER_KEY);
        let home = self.claimants[&slot];
        let heir = (home + 1) % self.nodes.len();
        let run = self.shown(room).map(|shown| shown.0);
        for other in (0..self.nodes.len()).filter(|other| *other != home) {
            self.reset(home, other);
        }
        self.claim(slot, heir);
        let died_at = self.now.instant;
        for _ in 0..40 {
            self.now = self.now.later(Duration::from_millis(5));
            self.step();
        }
        let Some(&(_, most_likes, newest)) = told.back() else { return false };
        let before = |(at, ..): &&(Instant, u64, u64)| *at + KEEP_INTERVAL + ON_THE_WAY <= died_at;
        let (_, least_likes, oldest) = told.iter().rev().find(before).copied().unwrap_or((died_at, 0, 0));
        let (next_run, likes, price) = self.shown(room).expect("the next home has the room open");
        assert_ne!(Some(&next_run), run.as_ref(), "another run");
        assert!((least_likes..=most_likes).contains(&likes), "{least_likes} to {most_likes}: {likes}");
        assert!((oldest..=newest).contains(&price), "{oldest} to {newest}: {price}");
        *told = Told::from([(self.now.instant - KEEP_INTERVAL * 2, likes, price)]);
        (likes, price) != (most_likes, newest)
    }

    /// Run, likes and price of a room at its home, as its devices were told.
    fn shown(&mut self, room: &str) -> Option<(String, u64, u64)> {
        let node = self.claimants[&Slot::of(&name(room), CLUSTER_KEY)];
        let node = &mut self.nodes[node];
        let shard = node.home(&name(room));
        let view = node.shards[shard].homes.describe(&name(room), self.now.instant)?;
        let likes = view.counters.get("like").copied().unwrap_or(0);
        let mut price = None;
        for device in &self.devices {
            let Some(known) = device.rooms.get(room) else { continue };
            assert_eq!(known.stands.as_ref().map(|(run, _)| run), Some(&view.run), "{:#?}", device.trace);
            assert_eq!(known.likes, likes, "{:#?}", device.trace);
            assert_eq!(known.price, *price.get_or_insert(known.price), "{:#?}", device.trace);
        }
        Some((view.run, likes, price.unwrap_or(0)))
    }
}
