//! Shards of several nodes in one world: slots move and freeze, links delay, reset and lapse, and devices check
//! what they hear.

mod device;
mod handed;
mod homeless;
mod kept;
mod world;

use self::world::{Cover, World};

/// Storms until each event has come often enough, and at least so many.
const SEEDS: u64 = 100;
/// Times that each event has to come.
const EACH: u64 = 50;

/// Lives through storms, and returns the number of events.
fn live_through(hands_over: bool) -> Cover {
    let only = std::env::var("ROOMCAST_NODES").ok().and_then(|seed| seed.parse().ok());
    // `ROOMCAST_FROM` draws others.
    let from = std::env::var("ROOMCAST_FROM").ok().and_then(|from| from.parse().ok());
    let first = only.or(from).unwrap_or(0);
    let seeds = if only.is_some() { 1 } else { SEEDS };
    let mut cover = Cover::default();
    for seed in first..first + seeds {
        world::note_seed(seed);
        let mut world = World::new(seed);
        world.storm(hands_over);
        world.calm();
        world.check();
        cover += world.cover;
    }
    assert!(only.is_some() || cover.least() >= EACH, "{cover:?}");
    cover
}

#[test]
fn whatever_happens_between_nodes_every_member_gets_every_durable_message_once_and_is_level_in_the_end() {
    live_through(false);
}

#[test]
fn whatever_happens_while_rooms_are_handed_over_every_member_is_level_in_the_end() {
    let cover = live_through(true);
    assert!(cover.handed >= EACH && cover.resumed >= EACH, "{cover:?}");
}

#[test]
fn members_notice_nothing_of_rooms_that_are_handed_over() {
    let mut handed = 0;
    for seed in 0..20 {
        world::note_seed(seed);
        handed += World::quiet_moves(seed);
    }
    assert_eq!(handed, 20 * 2 * 3, "each room, each time");
}

#[test]
fn a_takeover_begins_with_totals_and_values_that_are_an_interval_old_at_most() {
    let mut behind = 0;
    for seed in 0..60 {
        world::note_seed(seed);
        behind += World::takeovers(seed);
    }
    assert!(behind >= 20, "some are behind: {behind}");
}
