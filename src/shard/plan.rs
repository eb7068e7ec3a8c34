//! The plan of a shard: its part of the configuration.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::directory;
use super::homes::heat::HeatRules;
use crate::auth::DeviceKeys;
use roomcast_core::limits::{DEVICE_ROOMS_MAX, HOT_MEMBERS, PASS_TURN_MEMBERS, ROOMS_MAX};
use roomcast_core::room::id::{NameKey, RoomName};
use roomcast_core::room::pace::RoomRules;

/// The plan of a shard. Homes and residents keep a copy each.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The shard's own index.
    pub index: usize,
    /// Number of shards.
    pub shards: usize,
    /// The flush policy of rooms without settings of their own. A reload changes it.
    pub rules: RoomRules,
    /// The keys of tokens that devices send over their connections. A reload changes them.
    pub device_keys: DeviceKeys,
    /// Time between two pings of a device.
    pub heartbeat: Duration,
    /// Seed of the runs' numbers; a new one for each start of a node.
    pub run_seed: u64,
    /// The key of `home()`, the same on all shards of a node.
    pub home_key: NameKey,
    /// Rooms the shard may hold; past that, joins and publishes to new rooms are refused.
    pub rooms_max: usize,
    /// Rooms of the shard that only devices have opened; past that, joins to new rooms are refused. The rest of
    /// `rooms_max` is kept for publishers.
    pub device_rooms_max: usize,
    /// Members visited by a turn at most.
    pub turn_members: usize,
    /// Bounds past which a room is hot.
    pub heat: HeatRules,
    /// Rooms that are hot from the first device on.
    pub hot_rooms: Arc<BTreeSet<RoomName>>,
    /// The processor time the shard's thread has used; in a simulated world, a made-up cost.
    pub meter: fn() -> Duration,
}

impl Plan {
    /// The plan of one of `shards` shards, with the bounds of `limits` and a fixed key. No room is listed as
    /// hot, and passes cost nothing.
    #[must_use]
    pub fn new(index: usize, shards: usize, rules: RoomRules, heartbeat: Duration, run_seed: u64) -> Self {
        // Half of the passes' share: a room gets its second shard before its window has to widen.
        let hot_permille = u64::from(rules.cpu_permille / 2);
        Self {
            index,
            shards,
            rules,
            device_keys: DeviceKeys::default(),
            heartbeat,
            run_seed,
            home_key: NameKey::default(),
            rooms_max: ROOMS_MAX.div_ceil(shards),
            device_rooms_max: DEVICE_ROOMS_MAX.div_ceil(shards),
            turn_members: PASS_TURN_MEMBERS,
            heat: HeatRules { shards, hot_members: HOT_MEMBERS, hot_permille },
            hot_rooms: Arc::default(),
            meter: || Duration::ZERO,
        }
    }

    /// The home of a room.
    #[must_use]
    pub fn home(&self, room: &RoomName) -> usize {
        directory::home(room, self.home_key, self.shards)
    }
}
