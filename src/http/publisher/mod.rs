//! The publisher door. Streaming backends publish here, open and close rooms, and follow and recall reliable
//! messages.

pub(crate) mod key_limits;
mod publish;
mod reliable;
mod rooms;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Uri};

use crate::cluster::calls::NodeRequest;
use crate::config::Config;
use crate::metrics::DoorName;
use roomcast_core::limits::{DOOR_CONNECTIONS_MAX, IDLE_AGE_MAX};
use roomcast_core::room::id::RoomName;

use super::Node;
use super::accept::{Answer, Door, Request};
use super::cluster::{Effect, sent_on};
use super::foreign::check_not_foreign;
use super::problem::Problem;
use super::request::{Query, check_head, only};
use super::routes::{Part, Route, offset, room_name};

use publish::{Caller, publish, publish_for_node};

/// The door of streaming backends.
#[derive(Debug)]
pub(crate) struct PublisherDoor {
    pub(crate) node: Arc<Node>,
}

impl Door for PublisherDoor {
    const NAME: DoorName = DoorName::Publisher;
    const CONNECTIONS_MAX: usize = DOOR_CONNECTIONS_MAX;
    const IDLE_AGE_MAX: Option<Duration> = Some(IDLE_AGE_MAX);

    async fn answer(&self, request: Request) -> Result<Answer, Problem> {
        let node = &*self.node;
        check_head(request.version(), request.headers())?;
        // The key comes before the path: a stranger must not learn from a 404 which rooms or paths there are.
        let in_force = node.in_force();
        let key = check_caller(&in_force.config, request.headers())?;
        match Call::of(request.method(), request.uri().path())? {
            Call::List => rooms::list(node, Query::of(request.uri())).await,
            Call::Publish(room) => {
                let room = room_name(room)?;
                publish(node, Caller { in_force, key }, room, request).await
            }
            Call::Configure(room) => {
                let room = room_name(room)?;
                // Boxed: the settings are large and rare, and the publish path should not carry their bytes.
                Box::pin(rooms::configure(node, room, request)).await
            }
            Call::OnRoom(room, call) => {
                let room = room_name(room)?;
                match node.settled_home(&room, call.effect()).await? {
                    None => on_room(node, room, call, Query::of(request.uri())).await,
                    Some(home) => {
                        home.answer(sent_on(request.method(), request.uri(), None, Bytes::new())).await
                    }
                }
            }
        }
    }
}

/// Answers a call on a room that this node orders.
async fn on_room(
    node: &Node,
    room: RoomName,
    call: BareCall<'_>,
    query: Query<'_>,
) -> Result<Answer, Problem> {
    match call {
        BareCall::LookAt => rooms::look_at(node, room).await,
        BareCall::Close => rooms::close(node, room, query).await,
        BareCall::Receipt(at) => reliable::receipt(node, room, offset(at)?).await,
        BareCall::Recall(at) => reliable::recall(node, room, offset(at)?).await,
    }
}

/// Answers a publisher's request that another node has sent here, with that node's leave.
pub(super) async fn answer_node(node: &Node, request: &NodeRequest, uri: &Uri) -> Result<Answer, Problem> {
    match Call::of(&request.method, uri.path())? {
        // Each node lists its own rooms.
        Call::List => Err(Problem::not_found()),
        Call::Publish(room) => publish_for_node(node, room_name(room)?, request).await,
        Call::Configure(room) => {
            let room = room_name(room)?;
            node.check_is_home(&room, Effect::Change)?;
            Box::pin(rooms::configure_here(node, room, &request.body)).await
        }
        Call::OnRoom(room, call) => {
            let room = room_name(room)?;
            node.check_is_home(&room, call.effect())?;
            on_room(node, room, call, Query::of(uri)).await
        }
    }
}

/// The caller's key, by its index.
fn check_caller(config: &Config, headers: &HeaderMap) -> Result<usize, Problem> {
    let Config { publisher_keys, hosts, publisher_listen, .. } = config;
    let key = publisher_keys.admits(only(headers, &AUTHORIZATION))?;
    if publisher_keys.is_open() {
        check_not_foreign(headers, hosts, publisher_listen.ip())?;
    }
    Ok(key)
}

/// One call of a publisher. Rooms and offsets are as typed.
#[derive(Debug, PartialEq, Eq)]
enum Call<'a> {
    List,
    Publish(&'a str),
    Configure(&'a str),
    /// A call without a body.
    OnRoom(&'a str, BareCall<'a>),
}

/// A call on a room, without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BareCall<'a> {
    LookAt,
    Close,
    /// The receipt of the reliable message at this offset of the room.
    Receipt(&'a str),
    /// The recall of the reliable message at this offset of the room.
    Recall(&'a str),
}

impl BareCall<'_> {
    fn effect(self) -> Effect {
        match self {
            Self::LookAt | Self::Receipt(_) => Effect::None,
            Self::Close | Self::Recall(_) => Effect::Change,
        }
    }
}

impl<'a> Call<'a> {
    /// # Errors
    /// 404, or 405 with the methods of the path.
    fn of(method: &Method, path: &'a str) -> Result<Self, Problem> {
        let allow = Problem::method_not_allowed;
        // HEAD asks for the head of what GET gives; hyper leaves the body out.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match (Route::of(path).ok_or_else(Problem::not_found)?, method) {
            (Route::Part(room, Part::Messages), &Method::POST) => Ok(Self::Publish(room)),
            (Route::Part(_, Part::Messages), _) => Err(allow("POST")),
            (Route::Room(room), &Method::GET) => Ok(Self::OnRoom(room, BareCall::LookAt)),
            (Route::Room(room), &Method::PUT) => Ok(Self::Configure(room)),
            (Route::Room(room), &Method::DELETE) => Ok(Self::OnRoom(room, BareCall::Close)),
            (Route::Room(_), _) => Err(allow("GET, HEAD, PUT, DELETE")),
            (Route::Rooms, &Method::GET) => Ok(Self::List),
            (Route::Rooms, _) => Err(allow("GET, HEAD")),
            (Route::ReliableMessage(room, offset), &Method::GET) => {
                Ok(Self::OnRoom(room, BareCall::Receipt(offset)))
            }
            (Route::ReliableMessage(room, offset), &Method::DELETE) => {
                Ok(Self::OnRoom(room, BareCall::Recall(offset)))
            }
            (Route::ReliableMessage(..), _) => Err(allow("GET, HEAD, DELETE")),
            // The viewer door's paths do not exist at this door.
            (Route::Part(_, Part::Ws | Part::History | Part::Reliable), _) => Err(Problem::not_found()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_paths_say_what_is_wanted() {
        for (method, path, wanted) in [
            (Method::POST, "/v1/rooms/r1/messages", Call::Publish("r1")),
            (Method::PUT, "/v1/rooms/r1", Call::Configure("r1")),
            (Method::GET, "/v1/rooms/r1", Call::OnRoom("r1", BareCall::LookAt)),
            (Method::DELETE, "/v1/rooms/r1", Call::OnRoom("r1", BareCall::Close)),
            (Method::GET, "/v1/rooms", Call::List),
            (Method::HEAD, "/v1/rooms", Call::List),
            (Method::HEAD, "/v1/rooms/r1", Call::OnRoom("r1", BareCall::LookAt)),
            (Method::GET, "/v1/rooms/r1/reliable/7", Call::OnRoom("r1", BareCall::Receipt("7"))),
            (Method::DELETE, "/v1/rooms/r1/reliable/7", Call::OnRoom("r1", BareCall::Recall("7"))),
        ] {
            assert_eq!(Call::of(&method, path).unwrap(), wanted, "{method} {path}");
        }
    }

    #[test]
    fn another_method_hears_405_and_another_path_404() {
        for path in ["/v1/rooms/r1/messages", "/v1/rooms/r1", "/v1/rooms", "/v1/rooms/r1/reliable/7"] {
            assert_eq!(Call::of(&Method::PATCH, path).unwrap_err().code(), "method_not_allowed", "{path}");
        }
        for path in ["/", "/v1/rooms/r1/ws", "/v1/rooms/r1/history", "/metrics"] {
            assert_eq!(Call::of(&Method::GET, path).unwrap_err().code(), "not_found", "{path}");
        }
    }
}
