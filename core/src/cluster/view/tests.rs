//! Facts of the view of a cluster, and seeds of a world of several views.

mod world;

use self::world::{Coverage, MS, S, World};
use super::*;
use crate::cluster::node::{spoken, spoken_to_all};
use crate::now::Now;

/// Nodes that agree on the homes of all slots.
fn calm(nodes: usize) -> World {
    let mut world = World::new(7, nodes);
    world.run_until(4 * S, |world| world.homeless().is_empty());
    // The shares are settled, and each node has heard all others.
    world.run(world.now + 2 * S);
    world
}

#[test]
fn nodes_of_neighbouring_versions_speak_the_older_one_and_others_have_no_link() {
    assert_eq!(
        [(2, 2), (2, 3), (3, 2), (1, 3), (3, 1), (1, 0)].map(|(own, other)| spoken(own, other)),
        [Some(2), Some(2), Some(2), None, None, None]
    );
    let to_all = |others: &[u8]| spoken_to_all(3, others.iter().copied());
    // To nobody, up to a node of the version before, and with one that hears no word of this node anyway.
    assert_eq!([to_all(&[]), to_all(&[4, 3]), to_all(&[3, 2, 3]), to_all(&[2, 1])], [3, 3, 2, 2]);
    let now = Now::made_up().instant;
    let node = |name| {
        let name = NodeName::parse(name).unwrap();
        View::new(
            OwnNode { name, incarnation: 1, shards: 1, dead_after: std::time::Duration::from_secs(3) },
            now,
        )
    };
    let mut view = node("a");
    for (other, ahead, met) in [("b", 1, Some(NODE_VERSION)), ("c", 2, None)] {
        let mut beat = node(other).heartbeat(NodeLoad::default(), now);
        beat.version += ahead;
        view.hear(&beat, now);
        let heard = std::iter::from_fn(|| view.poll_word()).find_map(|word| match word {
            ViewWord::Met { version, .. } => Some(version),
            _ => None,
        });
        assert_eq!(heard, met, "{ahead} ahead");
    }
    assert_eq!(view.version(), NODE_VERSION, "all of them read it");
}

#[test]
fn a_node_that_has_said_goodbye_counts_for_the_version_until_it_is_forgotten() {
    let mut world = calm(3);
    world.say_goodbye(0);
    // A restart is no end of its version.
    let known = |world: &World| world.nodes[1].view.members.versions().count();
    world.run(world.now + 55 * S);
    assert_eq!((known(&world), world.nodes[1].view.peers().count()), (2, 1));
    world.run(world.now + 10 * S);
    assert_eq!(known(&world), 1);
}

#[test]
fn nodes_that_start_together_share_the_slots() {
    let world = calm(3);
    for node in 0..3 {
        assert!((50..130).contains(&world.count(node, SlotHome::Here)), "node {node}");
    }
    assert_eq!(world.coverage.two_claims, 0);
}

#[test]
fn a_killed_process_is_replaced_within_two_seconds() {
    for node in 0..3 {
        let mut world = calm(3);
        world.kill(node, false);
        world.run_until(2 * S, |world| world.homeless().is_empty());
    }
}

#[test]
fn a_lost_machine_is_replaced_within_four_seconds() {
    let mut world = calm(3);
    world.kill(1, true);
    assert!(world.run_until(4 * S, |world| world.homeless().is_empty()) > 2 * S);
}

#[test]
fn a_node_that_stands_still_is_silent_and_has_ended_once_nobody_listens() {
    let mut world = calm(3);
    let shown = |world: &World| {
        let name = world.nodes[1].name.clone();
        let (_, peer) =
            world.nodes[0].view.peers().find(|(peer, _)| **peer == name).expect("known for a minute");
        (peer.is_alive, peer.has_ended())
    };
    assert_eq!(shown(&world), (true, false));
    world.pause(1, 60 * S);
    world.run(world.now + 5 * S);
    assert_eq!(shown(&world), (false, false));
    // Asked on, though it counts as dead.
    world.kill(1, false);
    world.run(world.now + S);
    assert_eq!(shown(&world), (false, true));
}

#[test]
fn a_goodbye_frees_the_slots_at_once() {
    let mut world = calm(3);
    world.say_goodbye(0);
    world.run_until(200 * MS, |world| world.homeless().is_empty());
    assert_eq!(world.count(1, SlotHome::Frozen) + world.count(2, SlotHome::Frozen), 0);
}

#[test]
fn a_node_that_drains_keeps_its_slots_and_takes_no_others() {
    let mut world = calm(3);
    let held = world.count(0, SlotHome::Here);
    let now = world.clock(0);
    world.nodes[0].view.drain(now);
    world.run(world.now + S);
    world.kill(1, false);
    world.run_until(2 * S, |world| world.homeless().is_empty());
    assert_eq!(world.count(0, SlotHome::Here), held);
}

#[test]
fn a_node_that_drains_hands_its_slots_over_in_the_same_runs() {
    let mut world = calm(3);
    let held = world.count(0, SlotHome::Here);
    world.drain(0);
    world.run_until(20 * S, |world| world.count(0, SlotHome::Here) == 0);
    assert_eq!(world.coverage.freezes, 0);
    // Some offers are lost or late in this world.
    assert!(world.coverage.handed > held as u64 * 3 / 4, "{:?}", world.coverage);
    world.run_until(2 * S, |world| world.homeless().is_empty());
}

#[test]
fn a_node_that_could_not_read_the_log_is_handed_no_slot() {
    let world = calm(2);
    let View { members, written, .. } = &world.nodes[0].view;
    assert_eq!(*written, NODE_VERSION, "both nodes speak it");
    assert!(members.has_taker(NODE_VERSION) && members.taker_of(Slot(0), NODE_VERSION).is_some());
    assert!(!members.has_taker(NODE_VERSION + 1) && members.taker_of(Slot(0), NODE_VERSION + 1).is_none());
}

#[test]
fn slots_move_to_a_node_that_stays_one_by_one_and_in_the_same_runs() {
    let mut world = calm(3);
    world.say_goodbye(1);
    world.run_until(S, |world| world.homeless().is_empty());
    world.start_at(1, world.now);
    // What nobody had claimed meanwhile.
    world.run(world.now + 29 * S);
    let first = world.count(1, SlotHome::Here);
    assert_eq!(world.coverage.handed, 0);
    let mut held = first;
    while held < 70 {
        world.run(world.now + 3 * S);
        let next = world.count(1, SlotHome::Here);
        // Two nodes give, each a slot a second; their clocks are fast, or the last claim comes late.
        assert!(next <= held + 8, "{held}, {next}");
        assert!(world.now < 200 * S, "{held} of about 85 slots have moved, from {first} on");
        held = next;
    }
    // A third of them have their first choice at each node, and then nothing moves any more.
    world.run(world.now + 60 * S);
    let handed = world.coverage.handed;
    world.run(world.now + 30 * S);
    assert_eq!((world.coverage.handed, world.coverage.freezes), (handed, 0));
    for slot in Slot::all() {
        let first = world.nodes[0].view.members.order_of(slot, true)[0];
        let stands = world.nodes[0].view.seats[slot.index()].standing.home;
        assert_eq!(stands, first.map_or(SlotHome::Here, SlotHome::There), "{slot:?}");
    }
}

#[test]
fn a_restarted_process_takes_over_its_own_share_and_leaves_the_rest_alone() {
    let mut world = calm(3);
    let held = world.count(1, SlotHome::Here);
    world.kill(0, false);
    world.start_at(0, world.now + 200 * MS);
    world.run(world.now + 200 * MS);
    world.run_until(3 * S, |world| world.homeless().is_empty());
    assert!(world.count(1, SlotHome::Here) >= held);
    assert_eq!(world.coverage.freezes, 0);
}

#[test]
fn a_node_that_is_cut_off_freezes_within_two_and_a_half_seconds_and_thaws_in_the_same_run() {
    let mut world = calm(3);
    let held = world.count(0, SlotHome::Here);
    // All of NATS is gone: nobody can take the slots over.
    world.log_down_until = u64::MAX;
    for node in &mut world.nodes {
        node.hears_bus = false;
    }
    let frozen = world.run_until(2500 * MS, |world| world.count(0, SlotHome::Frozen) == held);
    assert!(frozen >= 1500 * MS, "{frozen}");
    world.run(world.now + 5 * S);
    world.heal();
    world.run_until(2 * S, |world| world.homeless().is_empty());
    assert_eq!(world.coverage.takeovers, 0);
    assert!(world.coverage.thaws >= 256);
}

#[test]
fn a_slot_that_stays_frozen_is_released_after_a_minute() {
    let mut world = calm(1);
    world.nodes[0].reaches_log = false;
    world.nodes[0].hears_bus = false;
    world.run(world.now + 61 * S);
    assert_eq!(world.count(0, SlotHome::Frozen), 256);
    world.run(world.now + 2 * S);
    assert_eq!(world.count(0, SlotHome::Nobody), 256);
}

#[test]
fn a_home_that_nobody_hears_gives_way_within_the_overlap() {
    let mut world = calm(3);
    // The node has its echo and hears the others.
    world.cuts[0][1] = true;
    world.cuts[0][2] = true;
    world.run_until(4 * S, |world| world.count(0, SlotHome::Here) == 0);
    assert!(world.coverage.takeovers > 0);
}

#[test]
fn a_home_that_hears_nothing_gives_way_although_it_is_heard() {
    let mut world = calm(3);
    world.nodes[0].hears_bus = false;
    world.run_until(4 * S, |world| world.count(1, SlotHome::Here) + world.count(2, SlotHome::Here) == 256);
    assert_eq!(world.count(0, SlotHome::Here), 0);
    world.heal();
    world.run_until(2 * S, |world| world.homeless().is_empty());
}

#[test]
fn a_node_that_a_third_one_hears_is_not_dead() {
    let mut world = calm(3);
    world.cuts[0][1] = true;
    world.run(world.now + 10 * S);
    assert_eq!(world.coverage.takeovers, 0);
    assert!(world.coverage.reconnects > 0, "node 1 looks for a better server");
}

#[test]
fn the_rest_goes_on_by_renewals_when_half_of_the_nodes_are_lost_at_once() {
    let mut world = calm(4);
    let held = world.count(0, SlotHome::Here);
    world.kill(2, true);
    world.kill(3, true);
    world.run_until(4500 * MS, |world| world.homeless().is_empty());
    world.run(world.now + 10 * S);
    assert_eq!(world.coverage.freezes, 0, "each slot was proven in time");
    assert!(world.count(0, SlotHome::Here) > held);
    // Without the log the right ends.
    world.log_down_until = u64::MAX;
    world.run_until(2500 * MS, |world| world.count(0, SlotHome::Here) == 0);
}

#[test]
fn a_stopped_process_orders_nothing_when_it_goes_on() {
    let mut world = calm(3);
    world.pause(0, 5 * S);
    world.run(world.now + 5 * S + 2 * MS);
    assert_eq!(world.count(0, SlotHome::Here), 0, "its echoes are old");
    world.run_until(4 * S, |world| world.homeless().is_empty());
}

#[test]
fn a_suspended_machine_freezes_and_thaws_with_new_proofs() {
    let mut world = calm(3);
    let now = world.clock(0);
    world.nodes[0].view.slept(now);
    world.nodes[0].view.due(now);
    world.drive(0);
    assert_eq!(world.count(0, SlotHome::Here), 0);
    world.run_until(S, |world| world.homeless().is_empty());
    assert_eq!(world.coverage.takeovers, 0);
}

#[test]
fn a_log_that_has_shrunk_gets_claims_above_every_term_heard() {
    let mut world = calm(3);
    let highest = world.nodes[0].standings.iter().map(|standing| standing.term).max();
    world.shrink();
    world.kill(0, false);
    world.run_until(3 * S, |world| world.homeless().is_empty());
    assert!(world.nodes[1].standings.iter().map(|standing| standing.term).max() > highest);
    // The living homes find out with their next renewals.
    world.run(world.now + 3 * S);
    assert!(world.coverage.shrunken > 0);
    assert!(world.homeless().is_empty());
}

#[test]
fn nodes_past_the_bound_are_ignored_and_counted() {
    let now = Now::made_up().instant;
    let name = |index: usize| NodeName::parse(&format!("n{index}")).unwrap();
    let own = OwnNode { name: name(0), incarnation: 1, shards: 1, dead_after: RIGHT_AGE_MAX };
    let mut view = View::new(own.clone(), now);
    for index in 1..=crate::limits::NODES_MAX + 3 {
        let beat =
            View::new(OwnNode { name: name(index), ..own.clone() }, now).heartbeat(NodeLoad::default(), now);
        view.hear(&beat, now);
    }
    assert_eq!(view.peers().count(), crate::limits::NODES_MAX);
    assert_eq!(view.ignored(), 3);
}

/// Draws faults for some seconds.
fn suffer(world: &mut World) {
    world.slow_claims_permille = 20;
    world.reconnects_help = true;
    let nodes = world.nodes.len();
    for _ in 0..world.rng.usize(2..6) {
        let node = world.rng.usize(0..nodes);
        let other = world.rng.usize(0..nodes);
        match world.rng.u32(0..12) {
            0 | 1 if world.nodes[node].is_up => {
                let is_gone = world.rng.bool();
                world.kill(node, is_gone);
                if world.rng.bool() {
                    let time = world.now + world.rng.u64(100 * MS..4 * S);
                    world.start_at(node, time);
                }
            }
            2 if world.nodes[node].is_up => {
                world.say_goodbye(node);
                let time = world.now + world.rng.u64(100 * MS..4 * S);
                world.start_at(node, time);
            }
            3 | 4 => {
                let time = world.rng.u64(500 * MS..6 * S);
                world.pause(node, time);
            }
            5 | 6 => {
                let at = &mut world.nodes[node];
                at.hears_bus = false;
                at.reaches_bus = false;
                at.reaches_log = false;
            }
            7 => world.nodes[node].hears_bus = false,
            8 => world.nodes[node].reaches_bus = false,
            9 => {
                world.cuts[node][other] = node != other;
                world.cuts[other][node] = node != other && world.rng.bool();
            }
            10 => world.log_down_until = world.now + world.rng.u64(S..5 * S),
            11 => {
                world.loss_permille = world.rng.u32(0..300);
                world.delay_max = world.rng.u64(3 * MS..250 * MS);
            }
            _ => {}
        }
        let pause = world.rng.u64(0..2500 * MS);
        world.run(world.now + pause);
    }
}

/// Runs a seed. A failure tells the story of its slot.
fn live_through(seed: u64) -> Coverage {
    let mut traced = Slot(0);
    loop {
        let mut world = World::new(seed, 3 + (seed % 3) as usize);
        world.traced = traced;
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run(3 * S);
            suffer(&mut world);
            world.heal();
            world.run(world.now + 4 * S);
            let homeless = world.homeless();
            world.failed = homeless.first().copied();
            assert!(homeless.is_empty(), "{} slots have not one home: {:?}", homeless.len(), homeless[0]);
        }));
        let Err(cause) = lived else { return world.coverage };
        let failed = world.failed.unwrap_or(traced);
        let cause = cause.downcast_ref::<String>();
        assert!(failed != traced, "seed {seed}: {cause:?}\n{}", Vec::from(world.trace).join("\n"));
        traced = failed;
    }
}

#[test]
fn every_slot_has_one_home_again_after_every_trouble() {
    let mut sum = Coverage::default();
    for seed in 0..300 {
        let seen = live_through(seed);
        sum.takeovers += seen.takeovers;
        sum.freezes += seen.freezes;
        sum.thaws += seen.thaws;
        sum.two_claims += seen.two_claims;
        sum.reconnects += seen.reconnects;
        sum.fences += seen.fences;
        sum.releases += seen.releases;
        sum.met_claims += seen.met_claims;
    }
    for count in
        [sum.takeovers, sum.freezes, sum.thaws, sum.two_claims, sum.reconnects, sum.fences, sum.releases]
    {
        assert!(count >= 50, "{sum:?}");
    }
}

/// The world itself asserts that no batch of a run is cut twice.
#[test]
fn a_run_has_one_order_whatever_becomes_of_its_hand_overs() {
    let mut sum = Coverage::default();
    for seed in 0..70 {
        let mut world = World::new(seed, 3 + (seed % 2) as usize);
        world.run(3 * S);
        for _ in 0..3 {
            let node = world.rng.usize(0..world.nodes.len());
            if world.nodes.iter().all(|node| node.is_up && node.view.stage == NodeStage::Serving) {
                world.drain(node);
            }
            let pause = world.rng.u64(20 * MS..400 * MS);
            world.run(world.now + pause);
            suffer(&mut world);
            world.heal();
            world.run(world.now + 2 * S);
        }
        let seen = world.coverage;
        sum.handed += seen.handed;
        sum.declined += seen.declined;
        sum.resumed += seen.resumed;
        sum.reclaims += seen.reclaims;
        sum.void += seen.void;
    }
    for count in [sum.handed, sum.declined, sum.resumed, sum.reclaims, sum.void] {
        assert!(count >= 50, "{sum:?}");
    }
}
