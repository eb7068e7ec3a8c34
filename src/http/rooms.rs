//! Rooms as publishers see them: open, configure, look at, list, close.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use crate::http::accept::Answer;
use crate::metrics::tally::Holdings;
use crate::shard::publishers::NotConfigured;
use roomcast_core::limits::{ROOMS_LISTED_DEFAULT, ROOMS_LISTED_MAX};
use roomcast_core::room::id::{Encoding, RoomName};
use roomcast_core::room::pace::RoomSettings;
use roomcast_core::room::view::RoomLine;

use super::problem::Problem;
use super::request::{Query, body_encoding, read_body};
use super::settings::{Settings, unfit_settings};
use super::{Node, answer_json, from_shard};

/// `GET /v1/rooms`: the hot list.
///
/// # Errors
/// 400 for another order or a limit out of range; 503.
pub async fn list(node: &Node, query: Query<'_>) -> Result<Answer, Problem> {
    #[derive(serde::Serialize)]
    struct Listed {
        rooms: Vec<RoomLine>,
        shards: Vec<ShardLine>,
    }
    if query.field("sort")?.is_some_and(|sort| sort != "members") {
        return Err(Problem::bad("bad_query", "sort", "members"));
    }
    let limit = query.whole_number("limit", 1..=ROOMS_LISTED_MAX)?.unwrap_or(ROOMS_LISTED_DEFAULT);
    let rooms = from_shard(node.shards.rooms_by_members(limit)).await?;
    let held = node.metrics.held();
    let shards = held.iter().enumerate().map(|(shard, held)| ShardLine::new(shard, held)).collect();
    Ok(answer_json(&Listed { rooms, shards }))
}

/// What a shard held, and how busy it was, when it last said: once a second.
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

/// `GET /v1/rooms/{room}`.
///
/// # Errors
/// 404 `room_not_open`; 503.
pub async fn look_at(node: &Node, room: RoomName) -> Result<Answer, Problem> {
    let view = from_shard(node.shards.describe(room)).await?;
    Ok(answer_json(&view.ok_or_else(Problem::room_not_open)?))
}

/// `PUT /v1/rooms/{room}`: opens it if need be, changes what the body names, and shows the result.
///
/// # Errors
/// 400 that names the field; 413, 415, 503.
pub async fn configure(node: &Node, room: RoomName, request: Request<Incoming>) -> Result<Answer, Problem> {
    if node.is_draining() {
        return Err(Problem::draining());
    }
    let (parts, body) = request.into_parts();
    let body = read_body(body).await?;
    let settings = if body.is_empty() {
        RoomSettings::default()
    } else {
        match body_encoding(&parts.headers)? {
            Encoding::Json => Settings { types: &node.types }.read(&body)?,
            Encoding::Proto => {
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type")
                    .field("content-type")
                    .allowed("application/json"));
            }
        }
    };
    let shares = Settings::shares_named(&settings);
    match from_shard(node.shards.configure(room, settings)).await? {
        Ok(view) => Ok(answer_json(&view)),
        // The drain may have begun since it was looked for.
        Err(NotConfigured::NotOpened) if node.is_draining() => Err(Problem::draining()),
        Err(NotConfigured::NotOpened) => Err(Problem::rooms_full()),
        Err(NotConfigured::Unfit(unfit)) => Err(unfit_settings(unfit, shares)),
    }
}

/// `DELETE /v1/rooms/{room}`: closes it; its members are told.
///
/// # Errors
/// 404 `room_not_open`; 503.
pub async fn close(node: &Node, room: RoomName) -> Result<Answer, Problem> {
    let closed = from_shard(node.shards.close(room)).await?;
    Ok(answer_json(&closed.ok_or_else(Problem::room_not_open)?))
}
