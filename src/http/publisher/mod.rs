//! The publisher door. Streaming backends publish here, open and close rooms, and follow and recall reliable
//! messages.

pub(crate) mod key_limits;
mod publish;
mod reliable;
mod rooms;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method};

use crate::config::Config;
use crate::metrics::DoorName;
use roomcast_core::limits::{DOOR_CONNECTIONS_MAX, IDLE_AGE_MAX};

use super::Node;
use super::accept::{Answer, Door, Request};
use super::foreign::check_not_foreign;
use super::problem::Problem;
use super::request::{Query, check_head, only};
use super::routes::{Part, Route, offset, room_name};

use publish::{Caller, publish};

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
            Call::LookAt(room) => rooms::look_at(node, room_name(room)?).await,
            Call::Close(room) => rooms::close(node, room_name(room)?, Query::of(request.uri())).await,
            Call::Receipt(room, at) => reliable::receipt(node, room_name(room)?, offset(at)?).await,
            Call::Recall(room, at) => reliable::recall(node, room_name(room)?, offset(at)?).await,
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
    LookAt(&'a str),
    Close(&'a str),
    /// The receipt of the reliable message at this offset of the room.
    Receipt(&'a str, &'a str),
    /// The recall of the reliable message at this offset of the room.
    Recall(&'a str, &'a str),
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
            (Route::Room(room), &Method::GET) => Ok(Self::LookAt(room)),
            (Route::Room(room), &Method::PUT) => Ok(Self::Configure(room)),
            (Route::Room(room), &Method::DELETE) => Ok(Self::Close(room)),
            (Route::Room(_), _) => Err(allow("GET, HEAD, PUT, DELETE")),
            (Route::Rooms, &Method::GET) => Ok(Self::List),
            (Route::Rooms, _) => Err(allow("GET, HEAD")),
            (Route::ReliableMessage(room, offset), &Method::GET) => Ok(Self::Receipt(room, offset)),
            (Route::ReliableMessage(room, offset), &Method::DELETE) => Ok(Self::Recall(room, offset)),
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
            (Method::GET, "/v1/rooms/r1", Call::LookAt("r1")),
            (Method::DELETE, "/v1/rooms/r1", Call::Close("r1")),
            (Method::GET, "/v1/rooms", Call::List),
            (Method::HEAD, "/v1/rooms", Call::List),
            (Method::HEAD, "/v1/rooms/r1", Call::LookAt("r1")),
            (Method::GET, "/v1/rooms/r1/reliable/7", Call::Receipt("r1", "7")),
            (Method::DELETE, "/v1/rooms/r1/reliable/7", Call::Recall("r1", "7")),
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
