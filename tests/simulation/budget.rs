//! The write budget of one shard with a made-up meter. Windows widen and narrow, batches leave in one write,
//! and urgent messages keep to the budget.

use std::time::Duration;

use roomcast::shard::homes::heat::HeatRules;
use roomcast_core::room::pace::RoomRules;

use crate::device::Heard;
use crate::node::Node;
use crate::socket::writes_cost;

const MEMBERS: usize = 10;
const ROOM: &str = "r0";

/// One shard with the same number of members in each of `rooms`.
fn node(rooms: &[&str]) -> Node {
    let rules = RoomRules { direct_members: 0, ..RoomRules::default() };
    let mut node = Node::new(rules, HeatRules { shards: 1, hot_members: 2000, hot_permille: 300 });
    for room in rooms {
        join(&mut node, room, MEMBERS);
    }
    node
}

fn join(node: &mut Node, room: &str, members: usize) {
    for _ in 0..members {
        node.join(room);
    }
}

/// Publishes to all rooms for this many seconds, so that every window has a batch.
fn flow(node: &mut Node, rooms: &[&str], seconds: u64) {
    for round in 0..seconds * 50 {
        for room in rooms {
            node.publish_numbers(room, "chat", round..round + 1);
        }
        node.wait(Duration::from_millis(20));
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn writes(node: &Node) -> Vec<u64> {
    node.devices.iter().map(|device| device.pipe.borrow().writes).collect()
}

/// Publishes a message of this type, and returns the time until the first device hears the message.
fn hears_after(node: &mut Node, type_name: &str) -> Duration {
    let from = node.devices[0].heard.len();
    let at = node.now.instant;
    node.publish_numbers(ROOM, type_name, 0..1);
    let brings = |heard: &(String, Heard)| match &heard.1 {
        Heard::Batch { content, .. } => content.messages.iter().any(|told| told.type_name == type_name),
        _ => false,
    };
    while !node.devices[0].heard[from..].iter().any(brings) {
        assert!(node.now.instant < at + millis(5000), "{type_name} never came");
        node.wait(millis(1));
    }
    node.now.instant - at
}

#[test]
fn passes_that_cost_nothing_leave_the_window_as_configured() {
    writes_cost(Duration::ZERO);
    let mut node = node(&[ROOM]);
    flow(&mut node, &[ROOM], 5);
    assert_eq!(node.window_ms(ROOM), 100);
    assert_eq!(
        (node.shards[0].holdings().passes_permille, node.shards[0].holdings().window_needed),
        (0, millis(100))
    );
}

#[test]
fn the_window_widens_with_what_passes_cost_and_narrows_with_members_that_leave_and_cheaper_writes() {
    writes_cost(millis(12));
    let mut node = node(&[ROOM]);
    flow(&mut node, &[ROOM], 20);
    let permille = node.shards[0].holdings().passes_permille;
    assert!((500..=640).contains(&permille), "passes keep to their share: {permille}");
    let widened = node.window_ms(ROOM);
    assert!((190..=230).contains(&widened), "120 ms a pass, three fifths of the time: {widened}");
    (0..MEMBERS / 2).for_each(|index| node.leave(index));
    flow(&mut node, &[ROOM], 20);
    let fewer = node.window_ms(ROOM);
    assert!((100..=130).contains(&fewer), "half the members: {fewer}");
    join(&mut node, ROOM, MEMBERS / 2);
    flow(&mut node, &[ROOM], 20);
    assert!(node.window_ms(ROOM) >= 190, "they are back: {}", node.window_ms(ROOM));
    writes_cost(millis(1));
    flow(&mut node, &[ROOM], 20);
    assert_eq!(node.window_ms(ROOM), 100, "writes got cheaper");
}

/// Regression: the cost of a pass used to be divided by places that members had left as well. Each remaining
/// member then seemed cheaper with every leave.
#[test]
fn members_that_have_left_do_not_make_the_rest_seem_cheaper() {
    writes_cost(millis(12));
    let mut node = node(&[ROOM]);
    join(&mut node, ROOM, 3 * MEMBERS);
    flow(&mut node, &[ROOM], 10);
    (0..3 * MEMBERS).for_each(|index| node.leave(index));
    flow(&mut node, &[ROOM], 20);
    let pass_us = node.view(ROOM).shards[0].pass_us;
    assert!((115_000..=125_000).contains(&pass_us), "ten are left, at 12 ms each: {pass_us}");
}

#[test]
fn a_shard_that_would_need_more_than_the_widest_window_says_so_and_waits_no_longer() {
    writes_cost(millis(120));
    let mut node = node(&[ROOM]);
    flow(&mut node, &[ROOM], 30);
    assert_eq!(node.window_ms(ROOM), 1000);
    let needed = node.shards[0].holdings().window_needed;
    assert!(needed > millis(1900), "1.2 s a pass, three fifths of the time: {needed:?}");
    assert!(hears_after(&mut node, "chat") <= millis(1000));
    writes_cost(millis(1));
    flow(&mut node, &[ROOM], 60);
    assert_eq!((node.window_ms(ROOM), node.shards[0].holdings().window_needed), (100, millis(100)));
}

#[test]
fn rooms_that_do_not_fit_together_are_all_stretched_until_they_do() {
    writes_cost(millis(5));
    let rooms = ["r0", "r1", "r2", "r3"];
    let mut node = node(&rooms);
    flow(&mut node, &rooms, 60);
    // Each room alone would take half of the shard with a window of 100 ms.
    for room in rooms {
        let window = node.window_ms(room);
        assert!((280..=420).contains(&window), "{room}: {window}");
    }
    let permille = node.shards[0].holdings().passes_permille;
    assert!((500..=680).contains(&permille), "{permille}");
    let needed = node.shards[0].holdings().window_needed;
    assert!((millis(280)..millis(420)).contains(&needed), "{needed:?}");
    flow(&mut node, &rooms[..1], 60);
    assert_eq!(node.window_ms("r0"), 100, "the others are silent");
}

#[test]
fn several_batches_of_one_flush_are_one_write_for_each_member() {
    writes_cost(millis(60));
    let mut node = node(&[ROOM]);
    flow(&mut node, &[ROOM], 20);
    node.wait(millis(2000));
    // After the pass of this alert, no pass follows for a second. Three whole batches and a part of a fourth
    // wait.
    node.publish_numbers(ROOM, "alert", 0..1);
    let before = writes(&node);
    let seq = node.view(ROOM).head.seq;
    for from in (0..350).step_by(50) {
        node.wait(millis(100));
        node.publish_numbers(ROOM, "chat", from..from + 50);
    }
    assert_eq!(writes(&node), before, "the budget is spent");
    node.wait(millis(400));
    assert_eq!(node.view(ROOM).head.seq, seq + 4);
    let after = writes(&node);
    assert!(after.iter().zip(&before).all(|(after, before)| *after == before + 1), "{before:?}, {after:?}");
}

#[test]
fn urgent_messages_leave_at_once_but_inside_the_budget_and_within_the_widest_window() {
    writes_cost(millis(12));
    let mut node = node(&[ROOM]);
    flow(&mut node, &[ROOM], 20);
    node.wait(millis(1000));
    for type_name in ["alert", "coupon"] {
        assert!(hears_after(&mut node, type_name) <= millis(1), "{type_name}: the budget has recovered");
        let second = hears_after(&mut node, type_name);
        assert!(
            (millis(150)..=millis(230)).contains(&second),
            "{type_name}: a pass is paid for first: {second:?}"
        );
        node.wait(millis(1000));
    }
    writes_cost(millis(200));
    flow(&mut node, &[ROOM], 30);
    for _ in 0..20 {
        let coupon = hears_after(&mut node, "coupon");
        assert!(coupon <= millis(1000), "{coupon:?}");
        node.wait(millis(37));
    }
}
