//! The doors of a node of a cluster: requests for rooms of other nodes, and the answers to other nodes.
//!
//! A request for a room with its home elsewhere goes to the home, without credentials, and the answer passes
//! on as it came. The first node has judged the key, its limit, the origin and the body's size. A request is
//! sent once: its publisher repeats it, never the node.
//!
//! `answers` answers the requests of other nodes. `parts` has the pieces of views and receipts that nodes ask
//! of each other, and `status` shows the cluster over all nodes. `route` names the nodes for a room, and `elsewhere`
//! sends devices there.

mod answers;
mod elsewhere;
pub(super) mod parts;
pub(super) mod route;
pub(super) mod status;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Uri};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clock;
use crate::cluster::calls::{CallFailed, CallIn, Calls, NodeAnswer, NodeRequest};
use crate::cluster::quotas::meter::QuotaMeters;
use crate::cluster::shown::ShownCell;
use crate::config::cluster::ClusterConfig;
use crate::metrics::{NodeCallOutcome, SlotCounts};
use crate::shard::slots::Slots;
use roomcast_core::cluster::{NodeKey, Slot, SlotHome};
use roomcast_core::limits::{HAND_OVER_HOLD_MAX, UNREACHABLE_AFTER};
use roomcast_core::room::id::RoomName;

use super::Node;
use super::accept::{Answer, Stop};
use super::answer;
use super::problem::Problem;
use super::routes::{Route, room_name};
use route::Routes;

/// The cluster around a node, as the doors use it.
#[derive(Debug)]
pub(crate) struct ClusterDoors {
    slots: Arc<Slots>,
    calls: Calls,
    shown: Arc<ShownCell>,
    /// The limits of the cluster.
    pub(super) meters: Arc<QuotaMeters>,
    /// `cluster.name`.
    cluster: String,
    /// The start of this process, in unix milliseconds.
    started_at: u64,
    /// `cluster.node`, `cluster.region` and `cluster.viewer_url` of this node.
    name: String,
    region: String,
    viewer_url: String,
    routes: Routes,
}

/// Starts what the doors of a node of a cluster do beside their own requests, until they stop: the answers to
/// `calls` of other nodes, and the look for devices that came to a wrong node.
pub(crate) fn serve(node: &Arc<Node>, calls: mpsc::Receiver<CallIn>, stop: &Stop) {
    tokio::spawn(answers::answer_calls(Arc::clone(node), calls, stop.clone()));
    tokio::spawn(elsewhere::keep_room(Arc::clone(node), stop.clone()));
}

/// The effect of a request on its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The room stays as it is: a home without the right to order answers all the same.
    None,
    /// The room changes.
    Change,
}

/// Another node that orders a room.
#[derive(Debug)]
pub(super) struct OtherHome<'a> {
    node: &'a Node,
    calls: &'a Calls,
    key: NodeKey,
}

impl ClusterDoors {
    pub(crate) fn new(
        config: &ClusterConfig,
        started_at: u64,
        slots: Arc<Slots>,
        calls: Calls,
        shown: Arc<ShownCell>,
        meters: Arc<QuotaMeters>,
    ) -> Self {
        let ClusterConfig { name, node, region, viewer_url, .. } = config;
        Self {
            slots,
            calls,
            shown,
            meters,
            cluster: name.clone(),
            started_at,
            name: node.clone(),
            region: region.clone(),
            viewer_url: viewer_url.clone(),
            routes: Routes::default(),
        }
    }

    fn home_of(&self, room: &RoomName) -> SlotHome {
        self.slots.standing(self.slots.of(room)).home
    }

    /// The slot of the room that a request is about. `None`: it is about no room.
    fn slot_of(&self, target: &str) -> Option<Slot> {
        let path = target.split('?').next().unwrap_or_default();
        let room = match Route::of(path)? {
            Route::Room(room) | Route::Part(room, _) | Route::ReliableMessage(room, _) => room,
            Route::Rooms => return None,
        };
        Some(self.slots.of(&room_name(room).ok()?))
    }

    /// Waits until a slot is handed over no longer.
    async fn left(&self, slot: Slot) {
        self.slots.left(slot).await;
    }

    /// True if a slot is handed over, or was to the node that has it.
    fn moves(&self, slot: Slot) -> bool {
        self.slots.is_leaving(slot) || self.slots.given_to(slot).is_some()
    }

    /// The node to which this one has handed a slot over.
    fn next_home<'a>(&'a self, node: &'a Node, slot: Slot) -> Option<OtherHome<'a>> {
        Some(OtherHome { node, calls: &self.calls, key: self.slots.given_to(slot)? })
    }

    /// True while this node's own heartbeat comes back from NATS.
    pub(super) fn is_reachable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.shown.newest().echo_at) <= UNREACHABLE_AFTER
    }

    /// The slots by standing.
    pub(super) fn slot_counts(&self) -> SlotCounts {
        let mut counts = SlotCounts::default();
        for standing in self.slots.all().standings {
            let count = match standing.home {
                SlotHome::Here => &mut counts.here,
                SlotHome::There(_) => &mut counts.there,
                SlotHome::Frozen => &mut counts.frozen,
                SlotHome::Nobody => &mut counts.nobody,
            };
            *count += 1;
        }
        counts
    }

    /// The other nodes: the number of living ones, and the names of those that fell silent within the last
    /// minute.
    pub(super) fn peers(&self) -> (usize, Vec<String>) {
        let shown = self.shown.newest();
        let alive = shown.peers.iter().filter(|peer| peer.is_alive).count();
        let silent = shown.peers.iter().filter(|peer| !peer.is_alive);
        (alive, silent.map(|peer| peer.name.clone()).collect())
    }

    /// The refusal of a request for a room that no node orders, as far as this node knows.
    fn without_home(&self, now: Instant) -> Problem {
        if self.is_reachable(now) { Problem::no_home() } else { Problem::cluster_unreachable() }
    }
}

impl Node {
    /// The other node that answers a request for `room`; `None`: this node answers.
    ///
    /// # Errors
    /// 503 `no_home` or `cluster_unreachable`; 503 `draining` for a change, since the doors of this node
    /// close soon.
    pub(super) fn other_home(
        &self,
        room: &RoomName,
        effect: Effect,
    ) -> Result<Option<OtherHome<'_>>, Problem> {
        // A node alone: nothing else happens here.
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let now = clock::now().instant;
        match cluster.home_of(room) {
            SlotHome::Here => Ok(None),
            SlotHome::Frozen if effect == Effect::None => Ok(None),
            SlotHome::There(_) if effect == Effect::Change && self.is_draining() => Err(Problem::draining()),
            // Without NATS nothing leaves: the wait for an answer would end as unknown.
            SlotHome::There(key) if cluster.is_reachable(now) => {
                Ok(Some(OtherHome { node: self, calls: &cluster.calls, key }))
            }
            SlotHome::There(_) | SlotHome::Frozen | SlotHome::Nobody => {
                self.metrics.node_called(NodeCallOutcome::NoHome);
                Err(cluster.without_home(now))
            }
        }
    }

    /// As [`Node::other_home`], behind a hand-over of the room's slot that is under way: for the doors of this node.
    ///
    /// # Errors
    /// As [`Node::other_home`].
    pub(super) async fn settled_home(
        &self,
        room: &RoomName,
        effect: Effect,
    ) -> Result<Option<OtherHome<'_>>, Problem> {
        if let Some(cluster) = &self.cluster {
            let slot = cluster.slots.of(room);
            if cluster.slots.is_leaving(slot) {
                // Boxed: requests that need not wait do not carry the wait. Past the time the room refuses below.
                Box::pin(timeout(HAND_OVER_HOLD_MAX, cluster.left(slot))).await.ok();
            }
        }
        self.other_home(room, effect)
    }

    /// Checks that this node is to answer another node's request for `room`. Such a request is never sent on.
    ///
    /// # Errors
    /// 503 `not_home`; 503 `no_home` for a change while this node may not order.
    pub(super) fn check_is_home(&self, room: &RoomName, effect: Effect) -> Result<(), Problem> {
        let home = self.cluster.as_ref().map_or(SlotHome::Here, |cluster| cluster.home_of(room));
        match home {
            SlotHome::Here => Ok(()),
            SlotHome::Frozen if effect == Effect::None => Ok(()),
            SlotHome::Frozen => Err(Problem::no_home()),
            SlotHome::There(_) | SlotHome::Nobody => {
                self.metrics.node_called(NodeCallOutcome::NotHome);
                Err(Problem::not_home())
            }
        }
    }
}

impl OtherHome<'_> {
    /// Asks the home, and passes its answer on as it came.
    ///
    /// # Errors
    /// 503 `inbox_full`: nothing was taken. 503 `node_silent`: the outcome is unknown.
    pub(super) async fn answer(self, request: NodeRequest) -> Result<Answer, Problem> {
        passed_on(self.call(request).await?)
    }

    /// Asks the home.
    ///
    /// # Errors
    /// As [`OtherHome::answer`].
    pub(super) async fn call(self, request: NodeRequest) -> Result<NodeAnswer, Problem> {
        let answered = self.calls.call(self.key, request).await;
        self.node.metrics.node_called(match answered {
            Ok(_) => NodeCallOutcome::Answered,
            Err(CallFailed::Busy) => NodeCallOutcome::Busy,
            Err(CallFailed::Unknown) => NodeCallOutcome::Unknown,
        });
        answered.map_err(Problem::from)
    }
}

/// The answer of another node, as this door gives it.
///
/// # Errors
/// 503 `node_silent` if the answer is none of HTTP.
pub(super) fn passed_on(from: NodeAnswer) -> Result<Answer, Problem> {
    let NodeAnswer { status, content_type, retry_after, body } = from;
    let content_type = HeaderValue::from_str(&content_type);
    // A status below 200 would leave the caller waiting for another answer.
    let (200..=599, Ok(content_type)) = (status.as_u16(), content_type) else {
        return Err(CallFailed::Unknown.into());
    };
    let mut answer = answer(status, content_type, body);
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(answer)
}

/// The answer of this node to another one.
async fn sent_back(answer: Answer) -> NodeAnswer {
    let (head, body) = answer.into_parts();
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let retry_after = text(RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
    let content_type = text(CONTENT_TYPE).unwrap_or_default().to_owned();
    let Ok(body) = body.collect().await;
    NodeAnswer { status: head.status, content_type, retry_after, body: body.to_bytes() }
}

/// A request of a door's peer, for the home of its room. A token in the query is left out.
pub(super) fn sent_on(method: &Method, uri: &Uri, content_type: Option<&str>, body: Bytes) -> NodeRequest {
    // The home's answer to HEAD would have a body all the same; this node's door leaves it out.
    let method = if method == Method::HEAD { Method::GET } else { method.clone() };
    let fields = uri.query().unwrap_or_default().split('&');
    let fields = fields.filter(|field| !field.is_empty() && field.split('=').next() != Some("token"));
    let mut target = uri.path().to_owned();
    for (at, field) in fields.enumerate() {
        target.push(if at == 0 { '?' } else { '&' });
        target.push_str(field);
    }
    NodeRequest { method, target, content_type: content_type.map(str::to_owned), body, shed: Vec::new() }
}

#[cfg(test)]
mod tests;
