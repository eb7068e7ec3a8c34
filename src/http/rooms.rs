//! Rooms as publishers see them: open, configure, look at, list, close.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};

use crate::config::flush::FlushField;
use crate::config::limits::{EXPECTED_AUDIENCE_MAX, IDLE_CLOSE_MAX, ROOMS_LISTED_DEFAULT, ROOMS_LISTED_MAX};
use crate::connection::accept::Answer;
use crate::room::id::{Encoding, RoomName};
use crate::room::pace::RoomSettings;
use crate::room::view::RoomLine;
use crate::shard::tally::Holdings;

use super::problem::Problem;
use super::request::{Query, body_encoding, read_body};
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
            Encoding::Json => settings(&body)?,
            Encoding::Proto => {
                return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type")
                    .field("content-type")
                    .allowed("application/json"));
            }
        }
    };
    let view = from_shard(node.shards.configure(room, settings)).await?;
    let Some(view) = view else {
        // The drain may have begun since it was looked for.
        return Err(if node.is_draining() { Problem::draining() } else { Problem::rooms_full() });
    };
    Ok(answer_json(&view))
}

/// `DELETE /v1/rooms/{room}`: closes it; its members are told.
///
/// # Errors
/// 404 `room_not_open`; 503.
pub async fn close(node: &Node, room: RoomName) -> Result<Answer, Problem> {
    let closed = from_shard(node.shards.close(room)).await?;
    Ok(answer_json(&closed.ok_or_else(Problem::room_not_open)?))
}

/// What a `PUT` asks for. A field that is left out, or `null`, leaves the room as it is.
///
/// # Errors
/// 400 `bad_json`, `unknown_field` or `bad_value`.
fn settings(body: &[u8]) -> Result<RoomSettings, Problem> {
    const FIELDS: &str = "expected_audience, flush, idle_close_s";
    let body: Value = serde_json::from_slice(body).map_err(|error| {
        Problem::bad("bad_json", "body", "one JSON object").detail(format!(
            "line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let Value::Object(fields) = body else {
        return Err(Problem::bad("bad_json", "body", "one JSON object"));
    };
    let mut settings = RoomSettings::default();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "expected_audience" => {
                let audience = whole(value, "expected_audience", 0..=EXPECTED_AUDIENCE_MAX)?;
                settings.expected_audience = Some(audience);
            }
            "idle_close_s" => {
                let span = 1..=IDLE_CLOSE_MAX.as_secs();
                settings.idle_close = Some(Duration::from_secs(whole(value, "idle_close_s", span)?));
            }
            "flush" => {
                let Value::Object(flush) = value else {
                    return Err(Problem::bad("bad_value", "flush", "a JSON object"));
                };
                flush_settings(flush, &mut settings)?;
            }
            unknown => return Err(unknown_field("", unknown, FIELDS)),
        }
    }
    Ok(settings)
}

fn flush_settings(fields: &Map<String, Value>, settings: &mut RoomSettings) -> Result<(), Problem> {
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let Some(field) = FlushField::named(name) else {
            let allowed: Vec<&str> = FlushField::ALL.into_iter().map(FlushField::name).collect();
            return Err(unknown_field("flush.", name, allowed.join(", ")));
        };
        let refused = |allowed| {
            Problem::new(StatusCode::BAD_REQUEST, "bad_value")
                .field(format!("flush.{}", field.name()))
                .allowed(allowed)
        };
        let number = value.as_u64().ok_or_else(|| refused(format!("a whole number of {}", field.unit())))?;
        field.set(number, settings).map_err(|bad| refused(bad.allowed))?;
    }
    Ok(())
}

/// A whole number from one to the other, both included.
fn whole(value: &Value, field: &'static str, span: RangeInclusive<u64>) -> Result<u64, Problem> {
    let allowed = || format!("a whole number from {} to {}", span.start(), span.end());
    value
        .as_u64()
        .filter(|number| span.contains(number))
        .ok_or_else(|| Problem::bad("bad_value", field, allowed()))
}

/// 400: nobody reads a field of this name.
pub(super) fn unknown_field(prefix: &str, name: &str, allowed: impl Into<Cow<'static, str>>) -> Problem {
    // Enough to find the slip; a megabyte of a name is not sent back.
    let name: String = name.chars().take(64).collect();
    Problem::new(StatusCode::BAD_REQUEST, "unknown_field").field(format!("{prefix}{name}")).allowed(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_changes_what_it_names_and_nothing_else() {
        let all = settings(
            br#"{"expected_audience":5000,"idle_close_s":60,"flush":{"gather_ms":10,"max_messages":5,
                "max_bytes":2048,"direct_members":0,"urgent_spacing_ms":30,"gather_max_ms":2000}}"#,
        )
        .unwrap();
        assert_eq!(
            all,
            RoomSettings {
                expected_audience: Some(5000),
                gather: Some(Duration::from_millis(10)),
                messages_max: Some(5),
                bytes_max: Some(2048),
                direct_members: Some(0),
                urgent_spacing: Some(Duration::from_millis(30)),
                gather_max: Some(Duration::from_secs(2)),
                idle_close: Some(Duration::from_mins(1)),
                ..RoomSettings::default()
            }
        );
        assert_eq!(settings(br#"{"flush":null}"#).unwrap(), RoomSettings::default());
    }

    #[test]
    fn a_mistake_is_named() {
        for (body, code, field) in [
            (r#"{"flush":{"gather":1}}"#, "unknown_field", "flush.gather"),
            (r#"{"audience":1}"#, "unknown_field", "audience"),
            (r#"{"flush":{"gather_ms":-1}}"#, "bad_value", "flush.gather_ms"),
            (r#"{"flush":{"gather_ms":1.5}}"#, "bad_value", "flush.gather_ms"),
            (r#"{"flush":7}"#, "bad_value", "flush"),
            (r#"{"idle_close_s":0}"#, "bad_value", "idle_close_s"),
            (r#"{"idle_close_s":604801}"#, "bad_value", "idle_close_s"),
            (r#"{"expected_audience":"many"}"#, "bad_value", "expected_audience"),
            ("[]", "bad_json", "body"),
            ("{", "bad_json", "body"),
        ] {
            let problem = settings(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status(), 400, "{body}");
            assert_eq!((problem.code(), problem.named_field()), (code, Some(field)), "{body}");
        }
    }
}
