//! `GET /v1/ops/cluster`: the cluster over all nodes, put together by the node that is asked.
//!
//! Heartbeats tell who is there, and the nodes themselves tell the rest: slots, links, log. A node that does not
//! answer within `NODE_PART_AGE_MAX` is shown as it was last heard, and named as silent.

use std::time::Instant;

use super::ClusterDoors;
use super::parts::NodePart;
use crate::clock;
use crate::cluster::shown::{ClusterShown, LinkLag, PeerShown};
use crate::http::accept::Answer;
use crate::http::problem::Problem;
use crate::http::{Node, answer_json};
use roomcast_core::cluster::node::NODE_VERSION;
use roomcast_core::cluster::status::{
    ClusterNodeView, ClusterPart, ClusterView, FailingView, HeardSlot, LinkView, LogView, NodeReport,
    NodeSaid, NodeState, OwnSlot,
};
use roomcast_core::cluster::{Slot, SlotHome, SlotStanding};
use roomcast_core::now::millis;

/// The path at the operator door.
pub(in crate::http) const CLUSTER_PATH: &str = "/v1/ops/cluster";

/// Shows the cluster.
///
/// # Errors
/// 404 `no_cluster`.
pub(in crate::http) async fn status(node: &Node) -> Result<Answer, Problem> {
    let cluster = node.cluster.as_ref().ok_or_else(Problem::no_cluster)?;
    let shown = cluster.shown.newest();
    // Before the other nodes are asked: a slot that moves meanwhile has the higher term of its new home.
    let heard = cluster.heard_slots(&shown);
    let asked: Vec<_> = shown.peers.iter().map(|peer| peer.key).collect();
    // The wait for a silent node makes no other node's heartbeat older.
    let asked_at = clock::now().instant;
    let reports = cluster.ask::<NodeReport>(&shown, &asked, &NodePart::Report).await;
    let now = clock::now();
    let mut parts = vec![cluster.part_here(node, now.instant)];
    for (peer, report) in shown.peers.iter().zip(reports) {
        parts.push(part_of(peer, report.heard, asked_at));
    }
    Ok(answer_json(&ClusterView::new(&cluster.cluster, &cluster.name, now.unix_ms, parts, &heard)))
}

/// Another node, with its report if it has answered.
fn part_of(peer: &PeerShown, report: Option<NodeReport>, asked_at: Instant) -> ClusterPart {
    let (said, slots) =
        report.map_or((None, Vec::new()), |report| (Some(report.said.bounded()), report.slots));
    let state = match peer.state() {
        // Its heartbeats come, and its doors or the link do not work.
        NodeState::Serving | NodeState::Draining if said.is_none() => NodeState::Silent,
        state => state,
    };
    let view = ClusterNodeView {
        node: peer.name.clone(),
        state,
        region: peer.region.clone(),
        seats: peer.seats,
        free_seats: peer.free_seats,
        busy_permille: peer.busy_permille,
        words_version: peer.words_version,
        heard_ms: millis(asked_at.saturating_duration_since(peer.heard_at)),
        said,
    };
    ClusterPart { view, slots }
}

impl ClusterDoors {
    /// This node as another one would show it.
    fn part_here(&self, node: &Node, now: Instant) -> ClusterPart {
        let state = match (self.is_reachable(now), node.is_leaving()) {
            (false, _) => NodeState::Deaf,
            (true, true) => NodeState::Draining,
            (true, false) => NodeState::Serving,
        };
        let NodeReport { said, slots } = self.report_here(node);
        let seats = node.seats.seats_max();
        let view = ClusterNodeView {
            node: self.name.clone(),
            state,
            region: self.region.clone(),
            seats,
            free_seats: seats.saturating_sub(node.seats.taken()),
            busy_permille: node.metrics.held().iter().map(|held| held.busy_permille).max().unwrap_or(0),
            words_version: NODE_VERSION,
            heard_ms: millis(now.saturating_duration_since(self.shown.newest().echo_at)),
            said: Some(said),
        };
        ClusterPart { view, slots }
    }

    /// The word of this node about itself. No shard and no store is asked: a node that hangs in part has to say so.
    pub(super) fn report_here(&self, node: &Node) -> NodeReport {
        let held = node.metrics.held();
        let log = LogView {
            claiming: node.store.tally().log.claiming,
            troubled: node.store.slots_troubled(),
            failing: node
                .store
                .trouble()
                .map(|trouble| FailingView { since: trouble.since.unix_ms, why: trouble.why }),
        };
        let said = NodeSaid {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            members: held.iter().map(|held| held.members).sum(),
            rooms: held.iter().map(|held| held.rooms).sum(),
            links: self.shown.newest().peers.iter().map(link).collect(),
            log,
        };
        let own = |(slot, standing): (Slot, SlotStanding)| {
            let is_frozen = match standing.home {
                SlotHome::Here => false,
                SlotHome::Frozen => true,
                SlotHome::There(_) | SlotHome::Nobody => return None,
            };
            Some(OwnSlot { slot, term: standing.term, is_frozen })
        };
        NodeReport { said, slots: Slot::all().zip(self.slots.all().standings).filter_map(own).collect() }
    }

    /// The slots as this node has heard of them, in order.
    fn heard_slots(&self, shown: &ClusterShown) -> Vec<HeardSlot> {
        let heard = |standing: SlotStanding| {
            let home = standing.home.other().and_then(|key| shown.peer(key));
            HeardSlot { home: home.map(|peer| peer.name.clone()), term: standing.term }
        };
        self.slots.all().standings.into_iter().map(heard).collect()
    }
}

/// The link to another node.
fn link(peer: &PeerShown) -> LinkView {
    let LinkLag { age, kept_bytes } = peer.link.unwrap_or_default();
    LinkView {
        node: peer.name.clone(),
        state: peer.state(),
        lag_ms: peer.link.map(|_| millis(age)),
        kept_bytes: kept_bytes as u64,
    }
}
