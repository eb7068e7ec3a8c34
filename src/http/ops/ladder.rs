//! `/v1/ops/ladder` and `/v1/ops/rooms/{room}/ladder`: shows the ladder's steps, and sets an operator's step. The steps
//! of all nodes are shown, and those of the asked node are set.
//!
//! The effect of a step is the rooms' business.

use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::info;

use crate::cluster::calls::NodeRequest;
use crate::http::accept::{Answer, Request};
use crate::http::cluster::parts::{HeardParts, ladders_of_others};
use crate::http::cluster::{Effect, sent_on};
use crate::http::problem::Problem;
use crate::http::request::{check_json, json_object, read_body};
use crate::http::routes::room_name;
use crate::http::{JSON_TYPE, Node, answer_json, from_shard};
use crate::shard::board::ShardStep;
use roomcast_core::room::id::RoomName;
use roomcast_core::room::ladder::{RoomStep, Step};

/// The owner of a step on the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StepOwner {
    /// `/v1/ops/ladder`
    Node,
    /// `/v1/ops/rooms/{room}/ladder`
    Room(RoomName),
}

/// The steps of all shards of a node. Nodes send it to each other.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::http) struct NodeLadder {
    /// The operator's step for all shards. `null`: no override.
    r#override: Option<u8>,
    /// Bytes owed to all devices, in thousandths of `limits.outbound_bytes`.
    outbound_permille: u64,
    shards: Vec<ShardStep>,
}

/// The steps of all shards of all nodes.
#[derive(Debug, Serialize)]
struct LaddersView {
    #[serde(flatten)]
    here: NodeLadder,
    /// The other nodes; absent on a node without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<OtherLadder>>,
    /// Nodes whose steps are missing; absent on a node without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent: Option<Vec<String>>,
}

/// The steps of another node.
#[derive(Debug, Serialize)]
struct OtherLadder {
    node: String,
    #[serde(flatten)]
    ladder: NodeLadder,
}

/// The step of a room.
#[derive(Debug, Serialize)]
struct RoomStepView {
    room: String,
    /// The operator's step for the room. `null`: the home's step is in force.
    r#override: Option<u8>,
    /// The step in force.
    step: u8,
    name: &'static str,
}

impl StepOwner {
    /// The owner that `path` names. `None`: the path is no path of the ladder.
    ///
    /// # Errors
    /// 400 `bad_room`.
    pub(super) fn of(path: &str) -> Option<Result<Self, Problem>> {
        let rest = path.strip_prefix("/v1/ops/")?;
        if rest == "ladder" {
            return Some(Ok(Self::Node));
        }
        let room = rest.strip_prefix("rooms/")?.strip_suffix("/ladder")?;
        // A slash within the name would be part of a longer, unknown path.
        (!room.contains('/')).then(|| room_name(room).map(Self::Room))
    }
}

/// `GET` shows a step, `PUT` sets and shows a step.
///
/// # Errors
/// 400 with the field, 404 `room_not_open`, 405; 408, 413, 415; 503.
pub(super) async fn ladder(node: &Node, owner: StepOwner, request: Request) -> Result<Answer, Problem> {
    let (parts, body) = match *request.method() {
        Method::GET | Method::HEAD => (request.into_parts().0, Bytes::new()),
        Method::PUT => {
            let (parts, body) = request.into_parts();
            check_json(&parts.headers)?;
            let body = read_body(&parts.extensions, body).await?;
            (parts, body)
        }
        _ => return Err(Problem::method_not_allowed("GET, HEAD, PUT")),
    };
    let wish = StepWish::of(&parts.method, &body)?;
    let room = match owner {
        StepOwner::Node => return Ok(of_node(node, wish).await),
        StepOwner::Room(room) => room,
    };
    match node.settled_home(&room, Effect::None).await? {
        None => of_room(node, &room, wish).await,
        Some(home) => home.answer(sent_on(&parts.method, &parts.uri, Some(JSON_TYPE), body)).await,
    }
}

/// Answers another node's request for the step of a room. `None`: the path is no path of a room's ladder.
pub(in crate::http) async fn answer_ladder(
    node: &Node,
    request: &NodeRequest,
    path: &str,
) -> Option<Result<Answer, Problem>> {
    let room = match StepOwner::of(path)? {
        Ok(StepOwner::Room(room)) => room,
        // Another node has no say on this node's own step.
        Ok(StepOwner::Node) => return None,
        Err(problem) => return Some(Err(problem)),
    };
    let wish = match node
        .check_is_home(&room, Effect::None)
        .and_then(|()| StepWish::of(&request.method, &request.body))
    {
        Ok(wish) => wish,
        Err(problem) => return Some(Err(problem)),
    };
    Some(of_room(node, &room, wish).await)
}

/// The wish of a request for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepWish {
    Show,
    /// `None`: the operator takes the override back.
    Set(Option<Step>),
}

impl StepWish {
    fn of(method: &Method, body: &[u8]) -> Result<Self, Problem> {
        if method == Method::PUT { Ok(Self::Set(step_in(body)?)) } else { Ok(Self::Show) }
    }
}

async fn of_node(node: &Node, wish: StepWish) -> Answer {
    if let StepWish::Set(step) = wish {
        node.shards.board().set_node(step);
        info!(step = step.map(Step::name), "an operator set the node's step");
        // Without the other nodes: an operator in an emergency waits for none of them.
        return answer_json(&ladder_here(node));
    }
    let others = ladders_of_others(node).await;
    let mut view = LaddersView { here: ladder_here(node), nodes: None, silent: None };
    if let Some(HeardParts { heard, silent }) = others {
        view.nodes = Some(heard.into_iter().map(|(node, ladder)| OtherLadder { node, ladder }).collect());
        view.silent = Some(silent);
    }
    answer_json(&view)
}

/// The ladder of this node.
pub(in crate::http) fn ladder_here(node: &Node) -> NodeLadder {
    let board = node.shards.board();
    NodeLadder {
        r#override: board.node().map(Step::number),
        outbound_permille: board.owed_permille(),
        shards: board.shards(),
    }
}

async fn of_room(node: &Node, room: &RoomName, wish: StepWish) -> Result<Answer, Problem> {
    let answered = match wish {
        StepWish::Show => from_shard(node.shards.room_step(room.clone())).await?,
        StepWish::Set(step) => from_shard(node.shards.set_own_step(room.clone(), step)).await?,
    };
    let RoomStep { own, in_force } = answered.ok_or_else(Problem::room_not_open)?;
    // Logged only after the home has taken the step.
    if let StepWish::Set(step) = wish {
        info!(%room, step = step.map(Step::name), "an operator set a room's step");
    }
    Ok(answer_json(&RoomStepView {
        room: room.to_string(),
        r#override: own.map(Step::number),
        step: in_force.number(),
        name: in_force.name(),
    }))
}

/// The step in the body of a `PUT`. `None`: the operator takes the override back.
fn step_in(body: &[u8]) -> Result<Option<Step>, Problem> {
    const ALLOWED: &str = "a whole number from 0 to 5, or null";
    let fields = json_object(body)?;
    if let Some(unknown) = fields.keys().find(|name| *name != "step") {
        // Refused, not ignored: a misspelt field must not look like a step that was set.
        return Err(Problem::unknown_field("", unknown, "step"));
    }
    match fields.get("step") {
        None => Err(Problem::bad("missing_field", "step", ALLOWED)),
        Some(Value::Null) => Ok(None),
        Some(typed) => {
            let number = typed.as_u64().and_then(|number| u8::try_from(number).ok());
            let step = number.and_then(Step::numbered);
            step.map(Some).ok_or_else(|| Problem::bad("bad_value", "step", ALLOWED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_node_or_a_room() {
        let owner = |path| StepOwner::of(path).map(Result::unwrap);
        assert_eq!(owner("/v1/ops/ladder"), Some(StepOwner::Node));
        let room = StepOwner::Room(RoomName::parse("live:42").unwrap());
        assert_eq!(owner("/v1/ops/rooms/live%3A42/ladder"), Some(room));
        for path in ["/v1/ops/rooms//ladder", "/v1/ops/rooms/a%20b/ladder"] {
            assert_eq!(StepOwner::of(path).unwrap().unwrap_err().code(), "bad_room", "{path}");
        }
        for path in
            ["/v1/ops", "/v1/ops/ladder/", "/v1/ops/rooms/ladder", "/v1/ops/rooms/a/b/ladder", "/v1/ladder"]
        {
            assert!(StepOwner::of(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_step_is_a_number_or_null_and_nothing_else() {
        for (number, step) in (0_u8..).zip(Step::ALL) {
            assert_eq!(step_in(format!(r#"{{"step":{number}}}"#).as_bytes()).unwrap(), Some(step));
        }
        assert_eq!(step_in(br#"{"step":null}"#).unwrap(), None);
        for (body, code, field) in [
            (r#"{"step":6}"#, "bad_value", "step"),
            (r#"{"step":-1}"#, "bad_value", "step"),
            (r#"{"step":1.5}"#, "bad_value", "step"),
            (r#"{"step":257}"#, "bad_value", "step"),
            (r#"{"step":"lossy_off"}"#, "bad_value", "step"),
            (r#"{"step":1,"until":7}"#, "unknown_field", "until"),
            (r#"{"step":1,"step":2}"#, "bad_value", "step"),
            ("{}", "missing_field", "step"),
            ("[1]", "bad_json", "body"),
            ("", "bad_json", "body"),
        ] {
            let problem = step_in(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status(), 400, "{body}");
            assert_eq!((problem.code(), problem.named_field()), (code, Some(field)), "{body}");
        }
    }
}
