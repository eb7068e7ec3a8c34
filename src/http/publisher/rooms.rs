//! The calls on a room: open and configure, look at, list, close.

use bytes::Bytes;

use crate::http::accept::{Answer, Request};
use crate::http::cluster::parts::{add_rooms_of_others, complete};
use crate::http::cluster::{Effect, sent_on};
use crate::http::problem::Problem;
use crate::http::request::{Query, check_json, read_body};
use crate::http::{JSON_TYPE, Node, answer_json, from_shard};
use crate::metrics::tally::Holdings;
use crate::shard::homes::publishers::NotConfigured;
use roomcast_core::limits::{ROOMS_LISTED_DEFAULT, ROOMS_LISTED_MAX};
use roomcast_core::room::id::RoomName;
use roomcast_core::room::pace::RoomSettings;
use roomcast_core::room::view::{RoomLine, RoomView};

use super::settings;

/// `GET /v1/rooms`: lists the rooms with the most members over all nodes, and the load of each shard of this
/// one.
///
/// # Errors
/// 400 for another order than `members`, or a limit out of range; 503.
pub(super) async fn list(node: &Node, query: Query<'_>) -> Result<Answer, Problem> {
    #[derive(serde::Serialize)]
    struct Listed {
        rooms: Vec<RoomLine>,
        shards: Vec<ShardLine>,
        /// Nodes whose rooms are missing; absent on a node without a cluster.
        #[serde(skip_serializing_if = "Option::is_none")]
        silent: Option<Vec<String>>,
    }
    if query.field("sort")?.is_some_and(|sort| sort != "members") {
        return Err(Problem::bad("bad_query", "sort", "members"));
    }
    let limit = query.whole_number("limit", 1..=ROOMS_LISTED_MAX)?.unwrap_or(ROOMS_LISTED_DEFAULT);
    let mut rooms = from_shard(node.shards.rooms_by_members(limit)).await?;
    let silent = add_rooms_of_others(node, limit, &mut rooms).await;
    let held = node.metrics.held();
    let shards = held.iter().enumerate().map(|(shard, held)| ShardLine::new(shard, held)).collect();
    Ok(answer_json(&Listed { rooms, shards, silent }))
}

/// The load of a shard in its last report. Shards report once a second.
#[derive(Debug, serde::Serialize)]
struct ShardLine {
    shard: usize,
    connections: u64,
    members: u64,
    rooms: u64,
    busy_permille: u64,
    passes_permille: u64,
}

impl ShardLine {
    fn new(shard: usize, held: &Holdings) -> Self {
        let Holdings { connections, members, rooms, busy_permille, passes_permille, .. } = *held;
        Self { shard, connections, members, rooms, busy_permille, passes_permille }
    }
}

/// `GET /v1/rooms/{room}`: shows the room.
///
/// # Errors
/// 404 `room_not_open`; 503.
pub(super) async fn look_at(node: &Node, room: RoomName) -> Result<Answer, Problem> {
    let view = from_shard(node.shards.describe(room)).await?.ok_or_else(Problem::room_not_open)?;
    shown(node, view).await
}

/// Completes the view of a room with the configuration's part and that of other nodes.
///
/// # Errors
/// 503 `shard_silent`.
async fn shown(node: &Node, mut view: Box<RoomView>) -> Result<Answer, Problem> {
    view.rules.add_configured(&node.in_force().config.types);
    complete(node, &mut view).await?;
    Ok(answer_json(&view))
}

/// `PUT /v1/rooms/{room}`: opens a closed room, changes the settings in the body, and shows the result.
///
/// # Errors
/// 400 with the field; 413, 415, 503.
pub(super) async fn configure(node: &Node, room: RoomName, request: Request) -> Result<Answer, Problem> {
    if node.is_draining() {
        return Err(Problem::draining());
    }
    let (parts, body) = request.into_parts();
    let body = read_body(&parts.extensions, body).await?;
    // A `PUT` without a body opens the room as it is, and needs no content type.
    if !body.is_empty() {
        check_json(&parts.headers)?;
    }
    match node.settled_home(&room, Effect::Change).await? {
        None => configure_here(node, room, &body).await,
        Some(home) => home.answer(sent_on(&parts.method, &parts.uri, Some(JSON_TYPE), body)).await,
    }
}

/// Opens or configures a room that this node orders.
///
/// # Errors
/// As [`configure`].
pub(super) async fn configure_here(node: &Node, room: RoomName, body: &Bytes) -> Result<Answer, Problem> {
    let settings = if body.is_empty() {
        RoomSettings::default()
    } else {
        settings::read(body, &node.in_force().config.types)?
    };
    let share = settings::share_to_blame(&settings);
    match from_shard(node.shards.configure(room, settings)).await? {
        Ok(view) => shown(node, view).await,
        // The drain may have begun since the check above.
        Err(NotConfigured::NotOpened) if node.is_draining() => Err(Problem::draining()),
        Err(NotConfigured::NotOpened) => Err(Problem::rooms_full()),
        Err(NotConfigured::Homeless(homeless)) => Err(Problem::homeless(homeless)),
        Err(NotConfigured::Unfit(unfit)) => Err(settings::unfit_settings(unfit, share)),
    }
}

/// `DELETE /v1/rooms/{room}`: closes the room, and tells the members. With `stream=true`, also forgets the
/// room's reliable stream; the answer comes after the sync.
///
/// # Errors
/// 400 for another `stream`; 404 `room_not_open`; 503.
pub(super) async fn close(node: &Node, room: RoomName, query: Query<'_>) -> Result<Answer, Problem> {
    let ends_stream = match query.field("stream")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::bad("bad_query", "stream", "true, or false")),
    };
    if ends_stream {
        let closed = from_shard(node.shards.end_stream(room)).await??;
        return Ok(answer_json(&closed));
    }
    let closed = from_shard(node.shards.close(room)).await?;
    Ok(answer_json(&closed.ok_or_else(Problem::room_not_open)?))
}
