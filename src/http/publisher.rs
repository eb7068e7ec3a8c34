//! The publisher door: streaming backends publish here, open, look at and close rooms, and follow and recall
//! reliable messages.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request};

use crate::http::accept::{Answer, Door};
use crate::metrics::DoorName;
use roomcast_core::limits::{DESCRIPTORS_KEPT, DOOR_CONNECTIONS_MAX, IDLE_AGE_MAX};

use super::problem::Problem;
use super::publish::publish;
use super::request::{Query, authorization, check_host};
use super::routes::{Part, Route, offset, room_name};
use super::{Node, reliable, rooms};

/// The door of those who publish.
#[derive(Debug)]
pub struct PublisherDoor {
    node: Arc<Node>,
}

impl PublisherDoor {
    /// A door to this node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        let node = &*self.node;
        check_host(request.version(), request.headers())?;
        // Before anything else: a stranger learns nothing of rooms, not even which paths there are.
        let key = node.publisher_keys.admits(authorization(request.headers()))?;
        match asked(request.method(), request.uri().path())? {
            Asked::List => rooms::list(node, Query::of(request.uri())).await,
            Asked::Publish(room) => {
                let room = room_name(room)?;
                publish(node, key, room, request).await
            }
            Asked::Configure(room) => {
                let room = room_name(room)?;
                Box::pin(rooms::configure(node, room, request)).await
            }
            Asked::LookAt(room) => rooms::look_at(node, room_name(room)?).await,
            Asked::Close(room) => rooms::close(node, room_name(room)?).await,
            Asked::Receipt(room, at) => reliable::receipt(node, room_name(room)?, offset(at)?).await,
            Asked::Recall(room, at) => reliable::recall(node, room_name(room)?, offset(at)?).await,
        }
    }
}

impl Door for PublisherDoor {
    const NAME: DoorName = DoorName::Publisher;
    const CONNECTIONS_MAX: usize = DOOR_CONNECTIONS_MAX;
    const IDLE_AGE_MAX: Option<Duration> = Some(IDLE_AGE_MAX);
    const DESCRIPTORS_LEFT: u64 = DESCRIPTORS_KEPT * 3 / 8;

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        // Boxed: the connection's own future would carry its two kilobytes while it is idle.
        Box::pin(self.route(request)).await.unwrap_or_else(Problem::into_answer)
    }
}

/// What a publisher wants.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    List,
    Publish(&'a str),
    Configure(&'a str),
    LookAt(&'a str),
    Close(&'a str),
    /// How many devices have the reliable message of this room and offset.
    Receipt(&'a str, &'a str),
    /// That it be taken back.
    Recall(&'a str, &'a str),
}

/// # Errors
/// 404, or 405 with what the path allows.
fn asked<'a>(method: &Method, path: &'a str) -> Result<Asked<'a>, Problem> {
    let allow = Problem::method_not_allowed;
    match Route::of(path) {
        Some(Route::Part(room, Part::Messages)) => match *method {
            Method::POST => Ok(Asked::Publish(room)),
            _ => Err(allow("POST")),
        },
        Some(Route::Room(room)) => match *method {
            Method::GET => Ok(Asked::LookAt(room)),
            Method::PUT => Ok(Asked::Configure(room)),
            Method::DELETE => Ok(Asked::Close(room)),
            _ => Err(allow("GET, PUT, DELETE")),
        },
        Some(Route::Rooms) => match *method {
            Method::GET => Ok(Asked::List),
            _ => Err(allow("GET")),
        },
        Some(Route::ReliableMessage(room, offset)) => match *method {
            Method::GET => Ok(Asked::Receipt(room, offset)),
            Method::DELETE => Ok(Asked::Recall(room, offset)),
            _ => Err(allow("GET, DELETE")),
        },
        Some(Route::Part(_, Part::Ws | Part::History | Part::Reliable)) | None => Err(Problem::not_found()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_paths_say_what_is_wanted() {
        for (method, path, wanted) in [
            (Method::POST, "/v1/rooms/r1/messages", Asked::Publish("r1")),
            (Method::PUT, "/v1/rooms/r1", Asked::Configure("r1")),
            (Method::GET, "/v1/rooms/r1", Asked::LookAt("r1")),
            (Method::DELETE, "/v1/rooms/r1", Asked::Close("r1")),
            (Method::GET, "/v1/rooms", Asked::List),
            (Method::GET, "/v1/rooms/r1/reliable/7", Asked::Receipt("r1", "7")),
            (Method::DELETE, "/v1/rooms/r1/reliable/7", Asked::Recall("r1", "7")),
        ] {
            assert_eq!(asked(&method, path).unwrap(), wanted, "{method} {path}");
        }
    }

    #[test]
    fn another_method_hears_405_and_another_path_404() {
        for path in ["/v1/rooms/r1/messages", "/v1/rooms/r1", "/v1/rooms", "/v1/rooms/r1/reliable/7"] {
            assert_eq!(asked(&Method::PATCH, path).unwrap_err().code(), "method_not_allowed", "{path}");
        }
        for path in ["/", "/v1/rooms/r1/ws", "/v1/rooms/r1/history", "/metrics"] {
            assert_eq!(asked(&Method::GET, path).unwrap_err().code(), "not_found", "{path}");
        }
    }
}
