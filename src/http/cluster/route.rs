//! `GET /v1/route`: the nodes at which devices join a room.
//!
//! A cold room is routed to its home, and to the heir too once the home is nearly full. A hot room is routed
//! to as many nodes as its members ask for, by weight = free seats × idle share, × 0.1 in another region.
//! Example: 8 000 free seats on a node that is busy for a quarter of its time weigh 6 000.
//!
//! A node knows its own rooms' heat, so the other nodes ask the home, once a second and room at most.
//! Placement is advice: a device is served wherever it comes.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use hyper::header::{CACHE_CONTROL, HeaderValue};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::ClusterDoors;
use super::parts::NodePart;
use crate::clock;
use crate::http::accept::Answer;
use crate::http::problem::Problem;
use crate::http::request::Query;
use crate::http::{Node, answer_json, from_shard};
use crate::metrics::RouteKind;
use crate::shard::homes::publishers::Spread;
use roomcast_core::cluster::SlotHome;
use roomcast_core::limits::{
    NODE_BUSY_PERMILLE_MAX, NODE_SEATS_PERMILLE_MAX, REGION_BYTES_MAX, ROUTE_AGE_MAX,
    ROUTE_FREE_PERMILLE_MIN, ROUTE_NODES_MAX, ROUTE_TTL, ROUTES_MAX,
};
use roomcast_core::now::millis;
use roomcast_core::room::id::{BadName, RoomName};

/// The path at the viewer door.
pub(in crate::http) const PATH: &str = "/v1/route";

/// The nodes for a room. Nodes send it to each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct NodeRoute {
    is_hot: bool,
    /// Best first. Empty: the door that was asked is as good as any.
    nodes: Vec<RouteNode>,
}

/// A node of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RouteNode {
    url: String,
    region: String,
    /// The share of devices that are to come here, against the weights of the other nodes. At least 1.
    weight: u64,
}

/// A node, as far as routes care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeLoad {
    /// `Here` or `There`.
    pub(super) node: SlotHome,
    /// Empty: devices can't be sent there.
    pub(super) url: String,
    pub(super) region: String,
    pub(super) seats: u64,
    pub(super) free_seats: u64,
    pub(super) busy_permille: u64,
    /// Alive, and not draining.
    pub(super) is_open: bool,
}

/// The routes of the last second, by room and region.
#[derive(Debug, Default)]
pub(super) struct Routes {
    kept: Mutex<HashMap<(RoomName, String), KeptRoute>>,
}

#[derive(Debug)]
struct KeptRoute {
    until: Instant,
    route: NodeRoute,
}

impl Routes {
    fn get(&self, room: &RoomName, region: &str, now: Instant) -> Option<NodeRoute> {
        let kept = self.kept.lock();
        let found = kept.get(&(room.clone(), region.to_owned())).filter(|kept| kept.until > now);
        found.map(|kept| kept.route.clone())
    }

    fn keep(&self, room: RoomName, region: String, route: NodeRoute, now: Instant) {
        let mut kept = self.kept.lock();
        // All at once: nothing here is worth more than a second.
        if kept.len() >= ROUTES_MAX {
            kept.clear();
        }
        kept.insert((room, region), KeptRoute { until: now + ROUTE_AGE_MAX, route });
    }
}

/// Answers a device with the nodes for `room`.
///
/// # Errors
/// 400 `bad_query`.
pub(in crate::http) async fn routed(
    node: &Node,
    room: RoomName,
    query: Query<'_>,
) -> Result<Answer, Problem> {
    let region = query.parsed("region", region)?;
    let route = match &node.cluster {
        None => NodeRoute::default(),
        Some(cluster) => {
            // A device that names no region is taken to be near the node that it asks.
            cluster.route(node, &room, region.as_deref().unwrap_or(&cluster.region)).await
        }
    };
    node.metrics.route_answered(match &route {
        route if route.nodes.is_empty() => RouteKind::Door,
        route if route.is_hot => RouteKind::Hot,
        _ => RouteKind::Cold,
    });
    Ok(shown(&room, &route, ROUTE_TTL))
}

fn shown(room: &RoomName, route: &NodeRoute, ttl: Duration) -> Answer {
    #[derive(Serialize)]
    struct RouteView<'a> {
        room: &'a str,
        nodes: &'a [RouteNode],
        ttl_ms: u64,
    }
    let view = RouteView { room: room.as_str(), nodes: &route.nodes, ttl_ms: millis(ttl) };
    let mut answer = answer_json(&view);
    // A proxy's copy would outlive the node that it names.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Reads the name of a region.
pub(super) fn region(typed: &str) -> Result<String, BadName> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if typed.len() > REGION_BYTES_MAX || !typed.bytes().all(fits) {
        return Err(BadName { allowed: "1 to 32 characters of a-z 0-9 - _" });
    }
    Ok(typed.to_owned())
}

impl ClusterDoors {
    /// The nodes for a room.
    async fn route(&self, node: &Node, room: &RoomName, region: &str) -> NodeRoute {
        match self.home_of(room) {
            SlotHome::Here => self.route_here(node, room, region).await,
            home @ SlotHome::There(_) => {
                self.remembered(room, region, self.route_there(node, room, home, region)).await
            }
            // The heir is about to take the slot.
            SlotHome::Frozen | SlotHome::Nobody => self.cold_route(node, room, SlotHome::Nobody, region),
        }
    }

    /// The route of the last second, or a new one.
    async fn remembered(
        &self,
        room: &RoomName,
        region: &str,
        found: impl Future<Output = NodeRoute>,
    ) -> NodeRoute {
        let now = clock::now().instant;
        if let Some(kept) = self.routes.get(room, region, now) {
            return kept;
        }
        let mut route = found.await;
        route.nodes.truncate(ROUTE_NODES_MAX);
        self.routes.keep(room.clone(), region.to_owned(), route.clone(), now);
        route
    }

    async fn route_there(&self, node: &Node, room: &RoomName, home: SlotHome, region: &str) -> NodeRoute {
        let part = NodePart::Route { room: Cow::Borrowed(room), region: Cow::Borrowed(region) };
        let asked = if let SlotHome::There(key) = home { vec![key] } else { Vec::new() };
        let heard = self.ask::<NodeRoute>(&self.shown.newest(), &asked, &part).await.pop();
        // A home that is silent names no further nodes: the room counts as cold.
        let route = heard.and_then(|heard| heard.heard);
        route.unwrap_or_else(|| self.cold_route(node, room, home, region))
    }

    /// The nodes for a room that this node orders.
    pub(super) async fn route_here(&self, node: &Node, room: &RoomName, region: &str) -> NodeRoute {
        self.remembered(room, region, self.new_route(node, room, region)).await
    }

    async fn new_route(&self, node: &Node, room: &RoomName, region: &str) -> NodeRoute {
        // A shard that is silent says nothing of the room's heat.
        let spread = from_shard(node.shards.spread(room)).await.ok().flatten();
        let loads = self.loads(node);
        let open = loads.iter().filter(|load| load.is_open).count();
        let width = if node.shards.is_listed(room) {
            open
        } else {
            spread.as_ref().map_or(1, |spread| node.shards.heat_of_nodes(open).width(spread.fuel))
        };
        if width > 1 {
            let nodes = hot(&loads, &holders(spread), width, region);
            if !nodes.is_empty() {
                return NodeRoute { is_hot: true, nodes };
            }
        }
        self.cold_route(node, room, SlotHome::Here, region)
    }

    fn cold_route(&self, node: &Node, room: &RoomName, home: SlotHome, region: &str) -> NodeRoute {
        let heir = self.shown.newest().heirs.get(self.slots.of(room).index()).copied();
        let nodes = cold(&self.loads(node), home, heir.unwrap_or_default(), region);
        NodeRoute { is_hot: false, nodes }
    }

    /// All nodes with their loads, this one first.
    pub(super) fn loads(&self, node: &Node) -> Vec<NodeLoad> {
        let shown = self.shown.newest();
        let seats = node.seats.seats_max();
        let here = NodeLoad {
            node: SlotHome::Here,
            url: self.viewer_url.clone(),
            region: self.region.clone(),
            seats,
            free_seats: seats.saturating_sub(node.seats.taken()),
            busy_permille: node.metrics.held().iter().map(|held| held.busy_permille).max().unwrap_or(0),
            is_open: !node.is_leaving(),
        };
        let others = shown.peers.iter().map(|peer| NodeLoad {
            node: SlotHome::There(peer.key),
            url: peer.viewer_url.clone(),
            region: peer.region.clone(),
            seats: peer.seats,
            free_seats: peer.free_seats,
            busy_permille: peer.busy_permille,
            is_open: peer.is_alive && !peer.is_draining,
        });
        [here].into_iter().chain(others).collect()
    }
}

/// The nodes with members of a room, its home included.
fn holders(spread: Option<Spread>) -> Vec<SlotHome> {
    let others = spread.map_or_else(Vec::new, |spread| spread.nodes);
    let others = others.into_iter().map(|(key, _)| SlotHome::There(key));
    [SlotHome::Here].into_iter().chain(others).collect()
}

/// The nodes for a cold room: its home, and the heir if the home is nearly full or not open.
fn cold(loads: &[NodeLoad], home: SlotHome, heir: SlotHome, region: &str) -> Vec<RouteNode> {
    let open = |node| loads.iter().find(|load| load.node == node && load.is_open);
    let home = open(home);
    let heir = open(heir).filter(|_| home.is_none_or(NodeLoad::is_nearly_full));
    let named = [home, heir].into_iter().flatten().filter(|load| !load.url.is_empty());
    named.map(|load| load.named(region)).collect()
}

/// The nodes for a hot room: at most `width` of those with free seats. Nodes of the device's region come
/// before the home and the other `holders` of members, and these before further nodes by weight.
fn hot(loads: &[NodeLoad], holders: &[SlotHome], width: usize, region: &str) -> Vec<RouteNode> {
    let fit = loads.iter().filter(|load| load.is_open && load.free_seats > 0 && !load.url.is_empty());
    let mut fit: Vec<_> = fit.collect();
    let rank = |load: &NodeLoad| holders.iter().position(|holder| *holder == load.node);
    fit.sort_by_cached_key(|load| {
        let rank = rank(load).map_or(usize::MAX, |at| at.min(1));
        (!load.is_near(region), rank, Reverse(load.weight(region)), load.url.clone())
    });
    fit.truncate(width);
    fit.sort_by_cached_key(|load| (!load.is_near(region), Reverse(load.weight(region)), load.url.clone()));
    fit.into_iter().map(|load| load.named(region)).collect()
}

impl NodeLoad {
    fn is_near(&self, region: &str) -> bool {
        region.is_empty() || self.region == region
    }

    fn weight(&self, region: &str) -> u64 {
        let idle_permille = 1000 - self.busy_permille.min(1000);
        let weight = self.free_seats.saturating_mul(idle_permille) / 1000;
        (if self.is_near(region) { weight } else { weight / 10 }).max(1)
    }

    fn is_nearly_full(&self) -> bool {
        self.free_seats.saturating_mul(1000) < self.seats.saturating_mul(ROUTE_FREE_PERMILLE_MIN)
    }

    /// True if the node is to get rid of devices of rooms elsewhere.
    pub(super) fn is_short(&self) -> bool {
        let taken = self.seats.saturating_sub(self.free_seats);
        taken.saturating_mul(1000) > self.seats.saturating_mul(NODE_SEATS_PERMILLE_MAX)
            || self.busy_permille > NODE_BUSY_PERMILLE_MAX
    }

    fn named(&self, region: &str) -> RouteNode {
        RouteNode { url: self.url.clone(), region: self.region.clone(), weight: self.weight(region) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::cluster::NodeKey;

    const HERE: SlotHome = SlotHome::Here;
    const OTHER: SlotHome = SlotHome::There(NodeKey(1));
    const THIRD: SlotHome = SlotHome::There(NodeKey(2));

    /// A node with 10 000 seats in `eu`.
    fn load(node: SlotHome, free_seats: u64, busy_permille: u64) -> NodeLoad {
        let url = match node {
            SlotHome::There(NodeKey(key)) => format!("wss://n{key}"),
            _ => "wss://n0".to_owned(),
        };
        let region = "eu".to_owned();
        NodeLoad { node, url, region, seats: 10_000, free_seats, busy_permille, is_open: true }
    }

    fn named(nodes: &[RouteNode]) -> Vec<(&str, u64)> {
        nodes.iter().map(|node| (node.url.as_str(), node.weight)).collect()
    }

    #[test]
    fn a_cold_room_is_routed_to_its_home_and_to_the_heir_once_the_home_is_nearly_full() {
        let loads = |free| vec![load(HERE, 5000, 0), load(OTHER, free, 250), load(THIRD, 400, 0)];
        assert_eq!(named(&cold(&loads(8000), OTHER, HERE, "eu")), [("wss://n1", 6000)]);
        assert_eq!(named(&cold(&loads(1000), OTHER, HERE, "eu")), [("wss://n1", 750)]);
        assert_eq!(named(&cold(&loads(999), OTHER, HERE, "eu")), [("wss://n1", 749), ("wss://n0", 5000)]);
        assert_eq!(named(&cold(&loads(0), OTHER, HERE, "eu")), [("wss://n1", 1), ("wss://n0", 5000)]);
    }

    #[test]
    fn a_draining_or_dead_home_is_never_named() {
        let mut loads = vec![load(HERE, 5000, 0), load(OTHER, 8000, 0)];
        loads[1].is_open = false;
        assert_eq!(named(&cold(&loads, OTHER, HERE, "")), [("wss://n0", 5000)]);
        assert_eq!(named(&cold(&loads, SlotHome::Nobody, HERE, "")), [("wss://n0", 5000)]);
        assert_eq!(named(&cold(&loads, OTHER, SlotHome::Nobody, "")), []);
        assert_eq!(named(&hot(&loads, &[OTHER], 2, "")), [("wss://n0", 5000)]);
    }

    #[test]
    fn a_home_without_a_url_leaves_its_devices_at_their_door() {
        let mut loads = vec![load(HERE, 5000, 0), load(OTHER, 8000, 0)];
        loads[1].url.clear();
        assert_eq!(named(&cold(&loads, OTHER, HERE, "")), [], "the heir is no better");
    }

    #[test]
    fn a_hot_room_is_routed_by_free_seats_and_idle_share_with_its_own_region_first() {
        let mut loads = vec![load(HERE, 1000, 500), load(OTHER, 8000, 0), load(THIRD, 4000, 0)];
        loads[1].region = "us".to_owned();
        let all = hot(&loads, &[HERE], 3, "eu");
        assert_eq!(named(&all), [("wss://n2", 4000), ("wss://n0", 500), ("wss://n1", 800)]);
        let of_us = hot(&loads, &[HERE], 3, "us");
        assert_eq!(named(&of_us), [("wss://n1", 8000), ("wss://n2", 400), ("wss://n0", 50)]);
        let anywhere = hot(&loads, &[HERE], 3, "");
        assert_eq!(named(&anywhere), [("wss://n1", 8000), ("wss://n2", 4000), ("wss://n0", 500)]);
    }

    #[test]
    fn a_hot_room_stays_on_its_nodes_before_it_takes_further_ones() {
        let loads = vec![load(HERE, 1000, 0), load(OTHER, 8000, 0), load(THIRD, 4000, 0)];
        let two = hot(&loads, &[HERE, THIRD], 2, "eu");
        assert_eq!(named(&two), [("wss://n2", 4000), ("wss://n0", 1000)]);
        let one_more = hot(&loads, &[HERE], 2, "eu");
        assert_eq!(named(&one_more), [("wss://n1", 8000), ("wss://n0", 1000)], "the one with most room");
        let full = vec![load(HERE, 0, 0), load(OTHER, 8000, 0)];
        assert_eq!(named(&hot(&full, &[HERE], 2, "eu")), [("wss://n1", 8000)]);
    }

    #[test]
    fn a_node_is_short_past_four_fifths_of_its_seats_or_when_it_is_busy() {
        assert!(!load(HERE, 2000, 900).is_short());
        assert!(load(HERE, 1999, 0).is_short());
        assert!(load(HERE, 10_000, 901).is_short());
    }

    #[test]
    fn a_region_is_a_short_word() {
        assert_eq!(region("eu-west_1").unwrap(), "eu-west_1");
        for bad in ["EU", "eu west", &"x".repeat(33)] {
            assert!(region(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_route_is_kept_for_a_second() {
        let now = clock::now().instant;
        let routes = Routes::default();
        let room = RoomName::parse("r1").unwrap();
        let route = NodeRoute { is_hot: true, nodes: Vec::new() };
        routes.keep(room.clone(), "eu".to_owned(), route.clone(), now);
        assert_eq!(routes.get(&room, "eu", now), Some(route));
        assert_eq!(routes.get(&room, "us", now), None);
        assert_eq!(routes.get(&room, "eu", now + ROUTE_AGE_MAX), None);
    }
}
