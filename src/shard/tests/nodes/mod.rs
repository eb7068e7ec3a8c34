//! Shards of several nodes in one world: slots move and freeze, links delay, reset and lapse, and devices check
//! what they hear.

mod device;
mod homeless;
mod world;

use self::world::{Cover, World};

/// Storms until each event has come often enough, and at least so many.
const SEEDS: u64 = 100;
/// Times that each event has to come.
const EACH: u64 = 50;

#[test]
fn whatever_happens_between_nodes_every_member_gets_every_durable_message_once_and_is_level_in_the_end() {
    let only = std::env::var("ROOMCAST_NODES").ok().and_then(|seed| seed.parse().ok());
    // `ROOMCAST_FROM` draws others.
    let from = std::env::var("ROOMCAST_FROM").ok().and_then(|from| from.parse().ok());
    let first = only.or(from).unwrap_or(0);
    let seeds = if only.is_some() { 1 } else { SEEDS };
    let mut cover = Cover::default();
    for seed in first..first + seeds {
        world::note_seed(seed);
        let mut world = World::new(seed);
        world.storm();
        world.calm();
        world.check();
        cover += world.cover;
    }
    assert!(only.is_some() || cover.least() >= EACH, "{cover:?}");
}
