//! Desks of two nodes that hand each other their words.

use std::time::Duration;

use super::*;
use crate::clock;
use roomcast_core::cluster::node::NodeLoad;
use roomcast_core::cluster::quota::QuotaRate;
use roomcast_core::cluster::view::ViewWord;
use roomcast_core::cluster::{NodeKey, SlotStanding};
use roomcast_core::limits::QUOTA_SHARE_AGE_MAX;
use roomcast_core::room::id::NameKey;

const KEY: NameKey = NameKey([1, 2]);

struct Node {
    view: View,
    desk: QuotaDesk,
    slots: Arc<Slots>,
    meters: Arc<QuotaMeters>,
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

impl Node {
    fn new(own: &str, region: &str, now: Instant) -> Self {
        let own = OwnNode { name: name(own), incarnation: 1, shards: 1, dead_after: Duration::from_secs(3) };
        let slots = Arc::new(Slots::new(KEY));
        let meters = Arc::new(QuotaMeters::new(KEY, region));
        let desk = QuotaDesk::new(&own, region, Arc::clone(&slots), Arc::clone(&meters), now);
        Self { view: View::new(own, now), desk, slots, meters }
    }

    /// Hears a heartbeat of another node. Returns the number of that node.
    fn meet(&mut self, other: &mut Self, now: Instant) -> NodeKey {
        let load = NodeLoad { shards: 1, region: other.desk.region.clone(), ..NodeLoad::default() };
        self.view.hear(&other.view.heartbeat(load, now), now);
        let met = std::iter::from_fn(|| self.view.poll_word()).find_map(|word| match word {
            ViewWord::Met { node, .. } => Some(node),
            _ => None,
        });
        met.expect("the other node is new")
    }

    fn place(&self, home: SlotHome, sequence: u64) {
        let standing = SlotStanding { home, term: Term { generation: 0, sequence } };
        (0..=u8::MAX).for_each(|slot| self.slots.set(roomcast_core::cluster::Slot(slot), standing));
    }
}

/// Two nodes that know each other. The first one orders all slots.
fn two(regions: [&str; 2], now: Instant) -> [Node; 2] {
    let mut home = Node::new("home", regions[0], now);
    let mut other = Node::new("other", regions[1], now);
    home.meet(&mut other, now);
    let key = other.meet(&mut home, now);
    home.place(SlotHome::Here, 1);
    other.place(SlotHome::There(key), 1);
    [home, other]
}

/// Drives the nodes for a while. Words that `is_lost` are lost.
fn drive(nodes: &mut [Node; 2], now: &mut Instant, time: Duration, is_lost: bool) {
    let end = *now + time;
    while *now < end {
        for Node { view, desk, .. } in nodes.iter_mut() {
            if desk.poll_deadline() <= *now {
                desk.due(view, *now);
            }
        }
        while let Some((to, bytes)) =
            nodes.iter_mut().find_map(|Node { view, desk, .. }| desk.poll_send(view, *now))
        {
            let to = nodes.iter_mut().find(|node| node.desk.own == to).unwrap();
            if !is_lost {
                to.desk.hear(&bytes, *now).unwrap();
            }
        }
        *now += Duration::from_millis(10);
    }
}

fn rates(of: [&Arc<meter::QuotaMeter>; 2]) -> [u64; 2] {
    of.map(|meter| meter.rate().permille() / 1000)
}

#[test]
fn a_limit_goes_where_it_is_asked_for_and_is_halved_without_words() {
    let mut now = clock::now().instant;
    let mut nodes = two(["eu", "us"], now);
    let keys = nodes.each_ref().map(|node| node.meters.of_key(b"hash", 100));
    let seconds = Duration::from_secs;
    drive(&mut nodes, &mut now, seconds(1), false);
    assert_eq!(rates(keys.each_ref()), [50, 50], "nobody asks");
    // The first shares of a new divider wait for those of the one before.
    for _ in 0..60 {
        keys[1].ask(10, 90);
        drive(&mut nodes, &mut now, Duration::from_millis(100), false);
    }
    assert_eq!(rates(keys.each_ref()), [1, 99]);
    assert_eq!(nodes[0].meters.without_share() + nodes[1].meters.without_share(), 0);
    drive(&mut nodes, &mut now, QUOTA_SHARE_AGE_MAX, true);
    assert_eq!(keys[1].rate(), QuotaRate::per_second(50));
    assert!(!keys[1].has_share() && nodes[1].meters.without_share() == 1);
    drive(&mut nodes, &mut now, seconds(2), false);
    assert!(keys[1].has_share());
    nodes[1].desk.slept(now);
    assert!(!keys[1].has_share(), "the machine was suspended");
}

#[test]
fn joins_are_shared_within_a_region_and_keys_by_all() {
    let mut now = clock::now().instant;
    let mut nodes = two(["eu", "us"], now);
    let joins = nodes.each_ref().map(|node| node.meters.of_joins(100));
    let keys = nodes.each_ref().map(|node| node.meters.of_key(b"", 100));
    drive(&mut nodes, &mut now, Duration::from_secs(6), false);
    assert_eq!((rates(joins.each_ref()), rates(keys.each_ref())), ([100, 100], [50, 50]));
    let mut nodes = two(["eu", "eu"], now);
    let joins = nodes.each_ref().map(|node| node.meters.of_joins(100));
    drive(&mut nodes, &mut now, Duration::from_secs(6), false);
    assert_eq!(rates(joins.each_ref()), [50, 50]);
}

#[test]
fn a_frozen_divider_divides_nothing_and_a_limit_without_users_goes() {
    let mut now = clock::now().instant;
    let mut nodes = two(["eu", "eu"], now);
    let keys = nodes.each_ref().map(|node| node.meters.of_key(b"hash", 100));
    drive(&mut nodes, &mut now, Duration::from_secs(1), false);
    assert!(keys.iter().all(|key| key.has_share()));
    nodes[0].place(SlotHome::Frozen, 1);
    drive(&mut nodes, &mut now, QUOTA_SHARE_AGE_MAX + Duration::from_secs(1), false);
    assert!(!keys.iter().any(|key| key.has_share()));
    assert_eq!(rates(keys.each_ref()), [50, 50]);
    let again = nodes[0].meters.of_key(b"hash", 60);
    assert!(Arc::ptr_eq(&again, &keys[0]), "one meter for a limit");
    assert_eq!(again.rate(), QuotaRate::per_second(30), "at once");
    drop((keys, again));
    assert_eq!(nodes[0].meters.without_share(), 0);
}
