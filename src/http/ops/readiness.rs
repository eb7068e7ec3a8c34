//! `/readyz`: may a balancer send traffic to this node? Pure: the signs go in, the verdict comes out.
//!
//! *Reasons* stand in the way of traffic: the node is draining, a shard does not answer, the store fails or
//! hangs, no publisher finds a descriptor, the cluster is out of reach. A strained or degraded shard is only
//! named, and so is a room with a damaged stream. The node goes on, and the next room may go elsewhere.
//!
//! A node without a place for another device is named as well, and stays ready. Its viewer door refuses devices
//! by itself, and a balancer that took the node out would take the publishers of all its rooms away.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use crate::clock;
use crate::http::accept::{Answer, DescriptorsHeld};
use crate::http::cluster::ClusterDoors;
use crate::http::{JSON, answer};
use crate::metrics::{DoorName, SlotCounts};
use crate::store::aside::RoomAside;
use crate::store::health::Trouble;
use roomcast_core::limits::STORE_CALL_AGE_MAX;
use roomcast_core::now::millis;
use roomcast_core::room::ladder::Step;

/// The body of `/readyz`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    /// States of a node that goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    states: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards_silent: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_failing: Option<StoreFailing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_slow: Option<StoreSlow>,
    /// Rooms whose streams can't be read. Their reliable messages are refused, and all other rooms go on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms_aside: Vec<AsideRoom>,
    /// Descriptors, once none is left for another device, handshake or publisher.
    #[serde(skip_serializing_if = "Option::is_none")]
    descriptors: Option<DescriptorsHeld>,
    /// Shards that need a wider window than their rooms may have. Such a shard goes on, with later flushes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards_strained: Vec<ShardStrained>,
    /// Shards on a step of the ladder. Such a shard leaves something out, and keeps every other promise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards_degraded: Vec<ShardDegraded>,
    /// The cluster, as this node sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterSigns>,
}

/// The slots of the cluster by standing, and the other nodes.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ClusterSigns {
    /// Slots that this node orders.
    here: u64,
    /// Slots that other nodes order.
    there: u64,
    /// Slots of this node without the right to order.
    frozen: u64,
    /// Slots without a living node.
    nobody: u64,
    /// Other nodes that live.
    peers: usize,
    /// Nodes that fell silent within the last minute, by name.
    silent: Vec<String>,
    /// False while this node's own heartbeat does not come back from NATS.
    #[serde(skip)]
    is_reachable: bool,
}

impl ClusterSigns {
    pub(super) fn of(cluster: &ClusterDoors) -> Self {
        let SlotCounts { here, there, frozen, nobody } = cluster.slot_counts();
        let (peers, silent) = cluster.peers();
        let is_reachable = cluster.is_reachable(clock::now().instant);
        Self { here, there, frozen, nobody, peers, silent, is_reachable }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ShardDegraded {
    shard: usize,
    step: u8,
    name: &'static str,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ShardStrained {
    shard: usize,
    /// The gather window with which passes would stay within `flush.cpu_share`.
    window_needed_ms: u64,
    /// The widest window of the configuration.
    window_max_ms: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct StoreFailing {
    /// Unix milliseconds.
    since: u64,
    /// The error of the last try.
    why: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct AsideRoom {
    room: String,
    /// Unix milliseconds.
    since: u64,
    /// The error of the last try.
    why: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct StoreSlow {
    /// The age of the store's call under way.
    call_ms: u64,
}

/// The evidence for the verdict.
#[derive(Debug)]
#[cfg_attr(test, derive(Default))]
pub(super) struct Signs {
    pub(super) is_draining: bool,
    /// Shard -> answered in time.
    pub(super) answering: Vec<bool>,
    pub(super) trouble: Option<Trouble>,
    pub(super) rooms_aside: Vec<RoomAside>,
    /// The age of the store's call under way.
    pub(super) under_way: Duration,
    /// Shard -> the needed window.
    pub(super) windows_needed: Vec<Duration>,
    pub(super) window_max: Duration,
    pub(super) descriptors: DescriptorsHeld,
    /// Shard -> its step.
    pub(super) steps: Vec<Step>,
    /// `None`: the node is alone.
    pub(super) cluster: Option<ClusterSigns>,
}

impl Readiness {
    pub(super) fn of(status: &'static str) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn judge(signs: Signs) -> Self {
        let Signs { is_draining, answering, trouble, rooms_aside, under_way, .. } = signs;
        let Signs { windows_needed, window_max, descriptors, steps, cluster, .. } = signs;
        let silent = answering.iter().enumerate().filter(|(_, answers)| !**answers);
        let shards_silent: Vec<usize> = silent.map(|(shard, _)| shard).collect();
        let store_failing =
            trouble.map(|trouble| StoreFailing { since: trouble.since.unix_ms, why: trouble.why });
        let aside = rooms_aside.into_iter().map(|RoomAside { room, since, why }| AsideRoom {
            room: room.to_string(),
            since: since.unix_ms,
            why,
        });
        let rooms_aside = aside.collect();
        let store_slow = (under_way > STORE_CALL_AGE_MAX).then(|| StoreSlow { call_ms: millis(under_way) });
        let strained = windows_needed.into_iter().enumerate().filter(|(_, needed)| *needed > window_max);
        let shards_strained = strained.map(|(shard, needed)| ShardStrained {
            shard,
            window_needed_ms: millis(needed),
            window_max_ms: millis(window_max),
        });
        let shards_strained = shards_strained.collect();
        let degraded = steps.into_iter().enumerate().filter(|(_, step)| *step != Step::Calm);
        let degraded =
            degraded.map(|(shard, step)| ShardDegraded { shard, step: step.number(), name: step.name() });
        let shards_degraded = degraded.collect();
        let reasons: Vec<&str> = [
            (is_draining, "draining"),
            (!shards_silent.is_empty(), "shards_silent"),
            (store_failing.is_some(), "store_failing"),
            (store_slow.is_some(), "store_slow"),
            (descriptors.are_used_up_by(DoorName::Publisher), "descriptors_used_up"),
            (cluster.as_ref().is_some_and(|cluster| !cluster.is_reachable), "cluster_unreachable"),
        ]
        .into_iter()
        .filter_map(|(stands_in_the_way, name)| stands_in_the_way.then_some(name))
        .collect();
        let status = if reasons.is_empty() { "ready" } else { "not_ready" };
        let states: Vec<&str> = [
            (descriptors.is_full(), "connections_full"),
            // A crowd at the viewer door can't touch the publishers' descriptors, and gives way.
            (descriptors.are_used_up_at(DoorName::Viewer), "viewer_door_full"),
        ]
        .into_iter()
        .filter_map(|(is_so, name)| is_so.then_some(name))
        .collect();
        let are_scarce = !states.is_empty() || reasons.contains(&"descriptors_used_up");
        Self {
            status,
            reasons,
            states,
            shards_silent,
            store_failing,
            store_slow,
            rooms_aside,
            descriptors: are_scarce.then_some(descriptors),
            shards_strained,
            shards_degraded,
            cluster,
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        let status = if self.reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let json = serde_json::to_vec(&self).expect("names and numbers are JSON");
        answer(status, JSON, json.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::now::Now;
    use roomcast_core::room::id::RoomName;

    #[test]
    fn a_node_is_ready_when_every_shard_answers() {
        let ready = Readiness::judge(Signs {
            answering: vec![true, true],
            under_way: STORE_CALL_AGE_MAX,
            ..Signs::default()
        });
        assert_eq!(serde_json::to_string(&ready).unwrap(), r#"{"status":"ready"}"#);
        assert_eq!(ready.into_answer().status(), 200);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let silent = Readiness::judge(Signs { answering: vec![true, false, false], ..Signs::default() });
        assert_eq!(
            serde_json::to_string(&silent).unwrap(),
            r#"{"status":"not_ready","reasons":["shards_silent"],"shards_silent":[1,2]}"#
        );
        assert_eq!(silent.into_answer().status(), 503);
        let draining = Readiness::judge(Signs { is_draining: true, ..Signs::default() });
        assert_eq!(draining.reasons, ["draining"]);
    }

    #[test]
    fn used_up_descriptors_stand_in_the_way_and_the_numbers_are_told() {
        let descriptors = |connections, connections_max| DescriptorsHeld {
            connections,
            connections_max,
            taken: connections,
            max: 148,
            at_doors: [0; 3],
        };
        let judged = |descriptors| Readiness::judge(Signs { descriptors, ..Signs::default() });
        let free = judged(descriptors(19, 20));
        assert_eq!((free.status, &*free.states), ("ready", &[][..]));
        assert_eq!(judged(descriptors(10, 10)).states, ["connections_full"], "by the configuration");
        // Whatever strangers do at the viewer door leaves descriptors to the publisher door.
        let at_doors = |viewer, publisher| {
            judged(DescriptorsHeld { at_doors: [viewer, publisher, 1], ..descriptors(0, 20) })
        };
        for publishers in [0, 17, 48] {
            let crowded = at_doors(52, publishers);
            assert_eq!((crowded.status, &*crowded.states), ("ready", &["viewer_door_full"][..]));
        }
        let by_publishers = at_doors(0, 68);
        assert_eq!(by_publishers.reasons, ["descriptors_used_up"]);
        assert_eq!(by_publishers.into_answer().status(), 503);
    }

    #[test]
    fn a_node_full_of_devices_is_named_and_keeps_its_publishers() {
        let descriptors = DescriptorsHeld {
            connections: 20,
            connections_max: 20,
            taken: 21,
            max: 148,
            at_doors: [0, 0, 1],
        };
        let full = Readiness::judge(Signs { descriptors, ..Signs::default() });
        assert_eq!(
            serde_json::to_value(&full).unwrap(),
            serde_json::json!({
                "status": "ready",
                "states": ["connections_full"],
                "descriptors": {"connections": 20, "connections_max": 20, "taken": 21, "max": 148},
            })
        );
        assert_eq!(full.into_answer().status(), 200);
    }

    #[test]
    fn a_shard_with_more_to_write_than_it_may_is_named_and_goes_on() {
        let window_max = Duration::from_secs(1);
        let windows_needed = vec![window_max, Duration::from_millis(1170)];
        let strained = Readiness::judge(Signs {
            answering: vec![true; 2],
            windows_needed,
            window_max,
            ..Signs::default()
        });
        assert_eq!(
            serde_json::to_value(&strained).unwrap(),
            serde_json::json!({
                "status": "ready",
                "shards_strained": [{"shard": 1, "window_needed_ms": 1170, "window_max_ms": 1000}],
            })
        );
        assert_eq!(strained.into_answer().status(), 200);
    }

    #[test]
    fn a_shard_that_leaves_something_out_is_named_and_goes_on() {
        let steps = vec![Step::Calm, Step::CountersSlow];
        let degraded = Readiness::judge(Signs { answering: vec![true; 2], steps, ..Signs::default() });
        assert_eq!(
            serde_json::to_value(&degraded).unwrap(),
            serde_json::json!({
                "status": "ready",
                "shards_degraded": [{"shard": 1, "step": 2, "name": "counters_slow"}],
            })
        );
        assert_eq!(degraded.into_answer().status(), 200);
    }

    #[test]
    fn a_node_that_does_not_reach_its_cluster_is_not_ready() {
        let cluster = |is_reachable| {
            let silent = vec!["node-3".to_owned()];
            let signs =
                ClusterSigns { here: 100, there: 156, peers: 2, silent, is_reachable, ..Default::default() };
            Readiness::judge(Signs { cluster: Some(signs), ..Signs::default() })
        };
        assert_eq!(
            serde_json::to_value(cluster(true)).unwrap(),
            serde_json::json!({
                "status": "ready",
                "cluster": {"here": 100, "there": 156, "frozen": 0, "nobody": 0, "peers": 2, "silent": ["node-3"]},
            })
        );
        assert_eq!(cluster(false).reasons, ["cluster_unreachable"]);
        assert_eq!(cluster(false).into_answer().status(), 503);
    }

    #[test]
    fn a_room_that_can_not_be_read_is_named_and_the_node_goes_on() {
        let since = Now { unix_ms: 1_795_243_015_617, ..clock::now() };
        let why = "loading a room failed: its pages are damaged".to_owned();
        let rooms_aside = vec![RoomAside { room: RoomName::parse("live:1").unwrap(), since, why }];
        let ready = Readiness::judge(Signs { answering: vec![true], rooms_aside, ..Signs::default() });
        assert_eq!(
            serde_json::to_value(&ready).unwrap(),
            serde_json::json!({
                "status": "ready",
                "rooms_aside": [{
                    "room": "live:1",
                    "since": 1_795_243_015_617_u64,
                    "why": "loading a room failed: its pages are damaged",
                }],
            })
        );
        assert_eq!(ready.into_answer().status(), 200);
    }

    #[test]
    fn a_store_that_fails_or_hangs_stands_in_the_way() {
        let since = Now { unix_ms: 1_795_243_015_617, ..clock::now() };
        let trouble = Some(Trouble { since, why: "storing messages failed: I/O error".into() });
        let under_way = STORE_CALL_AGE_MAX + Duration::from_millis(12);
        let stuck = Readiness::judge(Signs { answering: vec![true], trouble, under_way, ..Signs::default() });
        assert_eq!(
            serde_json::to_value(&stuck).unwrap(),
            serde_json::json!({
                "status": "not_ready",
                "reasons": ["store_failing", "store_slow"],
                "store_failing": {"since": 1_795_243_015_617_u64, "why": "storing messages failed: I/O error"},
                "store_slow": {"call_ms": 5012},
            })
        );
        assert_eq!(stuck.into_answer().status(), 503);
    }
}
