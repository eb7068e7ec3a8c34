//! The pieces that nodes ask of each other: counts of a room's members, their part of a receipt, lists of rooms,
//! ladders, and the words of nodes about themselves. A node that does not answer within [`NODE_PART_AGE_MAX`] is
//! named, and the rest is answered.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::route::region;
use super::{ClusterDoors, Effect};
use crate::clock;
use crate::cluster::calls::{CallOutcome, NodeRequest};
use crate::cluster::shown::ClusterShown;
use crate::http::accept::Answer;
use crate::http::ops::{NodeLadder, ladder_here};
use crate::http::problem::Problem;
use crate::http::request::Query;
use crate::http::routes::room_name;
use crate::http::{Node, answer_json, from_shard};
use roomcast_core::cluster::NodeKey;
use roomcast_core::limits::{NODE_PART_AGE_MAX, ROOMS_LISTED_DEFAULT, ROOMS_LISTED_MAX};
use roomcast_core::room::Counts;
use roomcast_core::room::id::{Cursor, Epoch, RoomName};
use roomcast_core::room::receipt::{HomeReceipt, SegmentReceipt};
use roomcast_core::room::view::{NodeMembersView, ReceiptView, RoomLine, RoomView};

/// The paths of the pieces. No door has them.
const PATH: &str = "/v1/node/";

/// A piece that another node is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NodePart<'a> {
    /// The rooms of the node with most members.
    Rooms { limit: usize },
    /// The counts of the members on the node, in one run of the room.
    Counts { room: Cow<'a, RoomName>, run: Cow<'a, str> },
    /// The acknowledgements of the members on the node.
    Receipt { room: Cow<'a, RoomName>, epoch: Epoch, offset: u64 },
    /// The nodes for a room, from its home.
    Route { room: Cow<'a, RoomName>, region: Cow<'a, str> },
    /// The ladder of the node.
    Ladder,
    /// The word of the node about itself.
    Report,
}

impl<'a> NodePart<'a> {
    fn target(&self) -> String {
        match self {
            Self::Rooms { limit } => format!("{PATH}rooms?limit={limit}"),
            Self::Counts { room, run } => format!("{PATH}counts?room={room}&run={run}"),
            Self::Receipt { room, epoch, offset } => {
                format!("{PATH}receipt?room={room}&cursor={epoch}:{offset}")
            }
            Self::Route { room, region } => format!("{PATH}route?room={room}&region={region}"),
            Self::Ladder => format!("{PATH}ladder"),
            Self::Report => format!("{PATH}report"),
        }
    }

    /// The piece that a target asks for. `None`: the target is none of a piece.
    ///
    /// # Errors
    /// 400 with the field; 404.
    fn of(path: &str, query: Query<'a>) -> Option<Result<Self, Problem>> {
        let name = path.strip_prefix(PATH)?;
        Some(Self::named(name, query))
    }

    fn named(name: &str, query: Query<'a>) -> Result<Self, Problem> {
        let missing = |field| Problem::bad("bad_query", field, "a value");
        let room = || -> Result<_, Problem> {
            Ok(Cow::Owned(room_name(&query.field("room")?.unwrap_or_default())?))
        };
        match name {
            "rooms" => {
                let limit = query.whole_number("limit", 1..=ROOMS_LISTED_MAX)?;
                Ok(Self::Rooms { limit: limit.unwrap_or(ROOMS_LISTED_DEFAULT) })
            }
            "counts" => {
                let run = query.field("run")?.ok_or_else(|| missing("run"))?;
                Ok(Self::Counts { room: room()?, run })
            }
            "receipt" => {
                let at = query.parsed("cursor", Cursor::parse)?.ok_or_else(|| missing("cursor"))?;
                Ok(Self::Receipt { room: room()?, epoch: at.epoch, offset: at.offset })
            }
            "route" => {
                let region = query.parsed("region", region)?.unwrap_or_default();
                Ok(Self::Route { room: room()?, region: Cow::Owned(region) })
            }
            "ladder" => Ok(Self::Ladder),
            "report" => Ok(Self::Report),
            _ => Err(Problem::not_found()),
        }
    }
}

/// Answers another node's request for a piece. `None`: the target is none of a piece.
pub(super) async fn answer_part(
    node: &Node,
    path: &str,
    query: Query<'_>,
) -> Option<Result<Answer, Problem>> {
    let part = match NodePart::of(path, query)? {
        Ok(part) => part,
        Err(problem) => return Some(Err(problem)),
    };
    Some(part.answer(node).await)
}

impl NodePart<'_> {
    async fn answer(self, node: &Node) -> Result<Answer, Problem> {
        match self {
            Self::Rooms { limit } => {
                from_shard(node.shards.rooms_by_members(limit)).await.map(|rooms| answer_json(&rooms))
            }
            Self::Counts { room, run } => Ok(answer_json(&node.shards.counts(&room, &run).await)),
            Self::Receipt { room, epoch, offset } => {
                let part = from_shard(node.shards.receipt_part(&room, epoch, offset)).await;
                part.map(|part| answer_json(&part))
            }
            Self::Route { room, region } => {
                node.check_is_home(&room, Effect::None)?;
                let cluster = node.cluster.as_ref().ok_or_else(Problem::not_home)?;
                Ok(answer_json(&cluster.route_here(node, &room, &region).await))
            }
            Self::Ladder => Ok(answer_json(&ladder_here(node))),
            Self::Report => {
                let cluster = node.cluster.as_ref().ok_or_else(Problem::no_cluster)?;
                Ok(answer_json(&cluster.report_here(node)))
            }
        }
    }
}

/// Adds the rooms of the other nodes to those of this node, and keeps the `limit` with most members. Returns
/// the names of silent nodes; `None`: this node is alone.
pub(in crate::http) async fn add_rooms_of_others(
    node: &Node,
    limit: usize,
    rooms: &mut Vec<RoomLine>,
) -> Option<Vec<String>> {
    let cluster = node.cluster.as_ref()?;
    for line in rooms.iter_mut() {
        line.node = Some(cluster.name.clone());
    }
    let HeardParts { heard, silent } = cluster.ask_all::<Vec<RoomLine>>(&NodePart::Rooms { limit }).await;
    for (name, mut lines) in heard {
        lines.truncate(limit);
        rooms.extend(lines.into_iter().map(|line| RoomLine { node: Some(name.clone()), ..line }));
    }
    rooms.sort_by(|a, b| b.members.cmp(&a.members).then_with(|| a.room.cmp(&b.room)));
    rooms.truncate(limit);
    Some(silent)
}

/// The ladders of the other nodes. `None`: this node is alone.
pub(in crate::http) async fn ladders_of_others(node: &Node) -> Option<HeardParts<NodeLadder>> {
    Some(node.cluster.as_ref()?.ask_all(&NodePart::Ladder).await)
}

/// Completes the view of a room that this node orders with the counts of other nodes.
///
/// # Errors
/// 503 `shard_silent`: without the home the nodes with members are not known, and the counts would lack them.
pub(in crate::http) async fn complete(node: &Node, view: &mut RoomView) -> Result<(), Problem> {
    let Some(cluster) = &node.cluster else { return Ok(()) };
    view.node = Some(cluster.name.clone());
    let Ok(room) = RoomName::parse(&view.room) else { return Ok(()) };
    let spread = from_shard(node.shards.spread(&room)).await?;
    let others = spread.map_or_else(Vec::new, |spread| spread.nodes);
    let part = NodePart::Counts { room: Cow::Owned(room), run: Cow::Owned(view.run.clone()) };
    cluster.add_counts(&others, &part, view).await;
    Ok(())
}

/// The receipt of a reliable message of a room that this node orders, over all nodes.
///
/// # Errors
/// 404 `room_not_open` or `offset_unknown`; 503.
pub(in crate::http) async fn whole_receipt(
    node: &Node,
    room: RoomName,
    offset: u64,
) -> Result<ReceiptView, Problem> {
    let home = from_shard(node.shards.receipt(room.clone(), offset)).await??;
    let epoch = home.view.epoch;
    let here = from_shard(node.shards.receipt_part(&room, epoch, offset)).await?;
    let Some(cluster) = &node.cluster else { return Ok(home.with([here])) };
    let spread = from_shard(node.shards.spread(&room)).await?;
    let others = spread.map_or_else(Vec::new, |spread| spread.nodes);
    let part = NodePart::Receipt { room: Cow::Owned(room), epoch, offset };
    Ok(cluster.with_others(*home, here, &others, &part).await)
}

/// The pieces of all other nodes that are known.
pub(in crate::http) struct HeardParts<T> {
    /// Each with the name of its node.
    pub(in crate::http) heard: Vec<(String, T)>,
    /// The names of the nodes that were silent.
    pub(in crate::http) silent: Vec<String>,
}

/// The piece of a node.
pub(super) struct HeardPart<T> {
    /// The name of the node.
    name: String,
    /// `None`: the node was silent.
    pub(super) heard: Option<T>,
}

impl ClusterDoors {
    /// Adds the counts of nodes with members to a view.
    async fn add_counts(&self, others: &[(NodeKey, u64)], part: &NodePart<'_>, view: &mut RoomView) {
        let asked: Vec<_> = others.iter().map(|(key, _)| *key).collect();
        let heard = self.ask::<Counts>(&self.shown.newest(), &asked, part).await;
        for ((_, members), HeardPart { name, heard }) in others.iter().zip(heard) {
            if heard.is_none() {
                view.partial.push(name.clone());
            }
            let counts = heard.unwrap_or_default();
            view.counts += counts;
            view.nodes.push(NodeMembersView { node: name, members: *members, counts });
        }
    }

    /// A receipt with the parts of nodes with members.
    pub(super) async fn with_others(
        &self,
        home: HomeReceipt,
        here: SegmentReceipt,
        others: &[(NodeKey, u64)],
        part: &NodePart<'_>,
    ) -> ReceiptView {
        let asked: Vec<_> = others.iter().map(|(key, _)| *key).collect();
        let mut parts = vec![here];
        let mut partial = Vec::new();
        for HeardPart { name, heard } in self.ask::<SegmentReceipt>(&self.shown.newest(), &asked, part).await
        {
            match heard {
                Some(part) => parts.push(part),
                None => partial.push(name),
            }
        }
        ReceiptView { partial, ..home.with(parts) }
    }

    /// Asks all other nodes that are known for a piece each.
    async fn ask_all<T: DeserializeOwned>(&self, part: &NodePart<'_>) -> HeardParts<T> {
        let shown = self.shown.newest();
        let asked: Vec<_> = shown.peers.iter().map(|peer| peer.key).collect();
        let mut parts = HeardParts { heard: Vec::new(), silent: Vec::new() };
        for HeardPart { name, heard } in self.ask(&shown, &asked, part).await {
            match heard {
                Some(part) => parts.heard.push((name, part)),
                None => parts.silent.push(name),
            }
        }
        parts
    }

    /// Asks nodes for a piece each, all at once. The result is in their order.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        shown: &ClusterShown,
        nodes: &[NodeKey],
        part: &NodePart<'_>,
    ) -> Vec<HeardPart<T>> {
        let deadline = clock::now().instant + NODE_PART_AGE_MAX;
        let target = part.target();
        // All of them first, so that the slowest node bounds the wait.
        let asked: Vec<_> = nodes.iter().map(|key| self.ask_one(shown, *key, &target)).collect();
        let mut heard = Vec::new();
        for (key, answer) in nodes.iter().zip(asked) {
            // A node that left may still have members at the home, for a moment.
            let name = shown.peer(*key).map_or_else(|| "unknown".to_owned(), |peer| peer.name.clone());
            heard.push(HeardPart { name, heard: piece(answer, deadline).await });
        }
        heard
    }

    /// Asks one node; `None`: nothing was sent.
    fn ask_one(
        &self,
        shown: &ClusterShown,
        key: NodeKey,
        target: &str,
    ) -> Option<oneshot::Receiver<CallOutcome>> {
        shown.peer(key).filter(|peer| peer.is_alive)?;
        let request = NodeRequest {
            method: Method::GET,
            target: target.to_owned(),
            content_type: None,
            body: Bytes::new(),
            shed: Vec::new(),
        };
        self.calls.send(key, request).ok()
    }
}

/// The piece in a node's answer; `None`: no answer in time, or none that can be read.
async fn piece<T: DeserializeOwned>(
    answer: Option<oneshot::Receiver<CallOutcome>>,
    deadline: Instant,
) -> Option<T> {
    let answer = timeout_at(deadline.into(), answer?).await.ok()?.ok()?.ok()?;
    if answer.status == StatusCode::OK { serde_json::from_slice(&answer.body).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use hyper::Uri;

    use super::*;

    #[test]
    fn a_piece_is_read_as_it_was_spelt() {
        let room: Cow<'_, RoomName> = Cow::Owned(RoomName::parse("live:42").unwrap());
        for part in [
            NodePart::Rooms { limit: 7 },
            NodePart::Counts { room: room.clone(), run: "00000000000000ab".into() },
            NodePart::Receipt { room: room.clone(), epoch: Epoch(0xab), offset: 9 },
            NodePart::Route { room, region: "eu".into() },
            NodePart::Ladder,
            NodePart::Report,
        ] {
            let target = Uri::try_from(part.target()).unwrap();
            assert_eq!(NodePart::of(target.path(), Query::of(&target)).unwrap().unwrap(), part);
        }
    }

    #[test]
    fn a_strange_piece_is_refused_with_its_field() {
        for (target, code, field) in [
            ("/v1/node/rooms?limit=1001", "bad_query", Some("limit")),
            ("/v1/node/counts?room=r1", "bad_query", Some("run")),
            ("/v1/node/counts?run=1", "bad_room", Some("room")),
            ("/v1/node/receipt?room=r1&cursor=7", "bad_query", Some("cursor")),
            ("/v1/node/receipt?room=r1", "bad_query", Some("cursor")),
            ("/v1/node/keys", "not_found", None),
        ] {
            let uri = Uri::try_from(target).unwrap();
            let problem = NodePart::of(uri.path(), Query::of(&uri)).unwrap().unwrap_err();
            assert_eq!((problem.code(), problem.named_field()), (code, field), "{target}");
        }
        assert!(NodePart::of("/v1/rooms", Query::of(&Uri::from_static("/v1/rooms"))).is_none());
    }
}
