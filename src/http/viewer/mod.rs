//! The viewer door: devices join here, and pages read the past here.
//!
//! Every refusal comes before the 101. After the 101 the plain socket goes to a shard, and the door is done
//! with the device.

pub(crate) mod admission;
mod pull;
mod upgrade;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Body;
use hyper::header::{CONNECTION, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;
use tracing::debug;

use crate::auth::{Grant, Refused};
use crate::clock;
use crate::config::Config;
use crate::metrics::{DoorName, Refusal};
use crate::seat::Address;
use crate::shard::handle::{Arrival, Hello};
use roomcast_core::limits::{HALF_OPEN_MAX, HANDSHAKE_AGE_MAX};
use roomcast_core::room::id::RoomName;

use super::accept::paced::PacedStream;
use super::accept::{Answer, Door, Request, visitor};
use super::cluster::route;
use super::foreign::check_own_host;
use super::problem::Problem;
use super::request::{Query, check_head};
use super::routes::{Part, Route, room_name};
use super::{Node, answer};

use pull::PullWish;
pub(super) use pull::answer_pull;
use upgrade::{JoinQuery, Subprotocol, accept_key, subprotocol, token};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// The page at `/`, for people: a browser's console on it is of this door's own origin. A console on a page of
/// problem+json is none in every browser.
const PAGE: &str = "<!doctype html><html lang=en><title>roomcast</title><body><h1>roomcast</h1><p>The viewer door of a \
    roomcast node. Devices join a room at <code>/v1/rooms/{room}/ws</code>, over a WebSocket.</p>\n";

/// The door of devices.
#[derive(Debug)]
pub(crate) struct ViewerDoor {
    pub(crate) node: Arc<Node>,
}

impl ViewerDoor {
    /// Answers a handshake. After a 101, a further task takes the socket to the shard.
    fn join(&self, room: &str, mut request: Request) -> Answer {
        let upgrade = hyper::upgrade::on(&mut request);
        let has_body = !request.body().is_end_stream();
        let (head, _) = request.into_parts();
        let welcomed = if has_body {
            // The unread bytes of a body could be taken for WebSocket frames.
            Err(Problem::bad("bad_body", "body", "a handshake without a body"))
        } else {
            self.welcome(room, &head, upgrade)
        };
        welcomed.unwrap_or_else(|problem| {
            self.node.metrics.handshake_refused(refusal(&problem));
            debug!(code = problem.code(), "a device's handshake was refused");
            problem.into_answer()
        })
    }

    /// Checks a handshake: the cheap checks first, and the token before anything is taken from the node.
    fn welcome(&self, room: &str, head: &Parts, upgrade: OnUpgrade) -> Result<Answer, Problem> {
        let node = &*self.node;
        if node.is_draining() {
            return Err(Problem::draining());
        }
        let room = room_name(room)?;
        if head.method != Method::GET {
            return Err(Problem::method_not_allowed("GET"));
        }
        let accept = accept_key(head)?;
        self.check_origin(&head.headers)?;
        let subprotocol = subprotocol(&head.headers)?;
        let grant = self.grant(&room, head, Some(&subprotocol))?;
        let JoinQuery { cursor, seen, device } = JoinQuery::of(Query::of(&head.uri))?;
        let now = clock::now().instant;
        // The ladder's last step, or the operator's word on this room.
        if node.shards.refuses_joins(&room) {
            return Err(Problem::joins_refused(node.admission.lock().put_off(now)));
        }
        let address = visitor(&head.extensions).and_then(|visitor| visitor.address);
        let seat = address.map_or_else(|| node.seats.take(), |address| node.seats.take_for(address, now));
        let Some(seat) = seat else { return Err(self.connections_full(address, now)) };
        // The rate comes late: a refused device must not use up the turn of a device that could join.
        node.admission.lock().admit(address, now).map_err(Problem::joining_too_fast)?;
        if !node.shards.has_room_for(&room) {
            let full = Problem::unavailable("arrivals_full", "too many devices are arriving; try again");
            return Err(full.retry_after(node.admission.lock().put_off(now)));
        }
        let hello = Hello { room, encoding: subprotocol.encoding, cursor, seen, device, grant, seat };
        // Not awaited: hyper gives the socket up only after this answer has been written.
        tokio::spawn(hand_over(Arc::clone(&self.node), upgrade, hello));
        Ok(switching(accept, &subprotocol))
    }

    /// Refuses a device for want of a seat. If another address holds more seats, some of its connections are
    /// told to go, and the device finds a seat when it comes back.
    fn connections_full(&self, address: Option<Address>, now: Instant) -> Problem {
        let node = &self.node;
        if let Some(call) = address.and_then(|address| node.seats.missed_by(address, now)) {
            let shards = node.shards.clone();
            // Not awaited: the device must not wait for shards that may be busy.
            tokio::spawn(async move { shards.give_way(call).await });
        }
        Problem::unavailable("connections_full", "this node has no place for another connection")
            .retry_after(node.admission.lock().put_off(now))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let in_force = self.node.in_force();
        let origins = &in_force.config.origins;
        let mut given = headers.get_all(ORIGIN).into_iter();
        let is_allowed = match (given.next(), given.next()) {
            (None, _) => origins.allows(None),
            // No browser sends two origins. A proxy and this door might pick different ones.
            (Some(_), Some(_)) => false,
            // Allow-lists hold text, so an origin that is no text is on none.
            (Some(origin), None) => origin.to_str().is_ok_and(|origin| origins.allows(Some(origin))),
        };
        if is_allowed {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed")
            .field("origin")
            .allowed("an origin of viewer.origins"))
    }

    /// The rooms of the request's token, which must cover `room`.
    fn grant(
        &self,
        room: &RoomName,
        head: &Parts,
        subprotocol: Option<&Subprotocol<'_>>,
    ) -> Result<Grant, Problem> {
        let token = token(&head.headers, subprotocol, Query::of(&head.uri))?;
        let grant =
            self.node.in_force().config.device_keys.grant(token.as_deref(), clock::now().unix_ms / 1000)?;
        if grant.covers(room) { Ok(grant) } else { Err(Refused::RoomNotGranted.into()) }
    }
}

/// Takes the socket back from hyper and gives the socket to the shard of the room's placement.
async fn hand_over(node: Arc<Node>, upgrade: OnUpgrade, hello: Hello) {
    // An error, or no upgrade in time, says that the device left before it had the 101.
    let Ok(Ok(upgraded)) = timeout(HANDSHAKE_AGE_MAX, upgrade).await else {
        return node.metrics.handshake_refused(Refusal::Gone);
    };
    let parts = upgraded.downcast::<PacedStream>().expect("the doors serve PacedStreams and nothing else");
    let Ok(stream) = parts.io.into_stream().into_std() else {
        return node.metrics.handshake_refused(Refusal::Gone);
    };
    match node.shards.admit(Arrival { stream, early: parts.read_buf, hello }) {
        Ok(()) => node.metrics.handshake_accepted(),
        // Another device took the last place since the check. The socket closes, and the device connects
        // again.
        Err(_) => node.metrics.handshake_refused(Refusal::ArrivalsFull),
    }
}

/// The 101. A subprotocol is named only after an offer.
fn switching(accept: HeaderValue, subprotocol: &Subprotocol<'_>) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    // No extension is ever accepted. With permessage-deflate, a few bytes from a stranger could unpack to
    // gigabytes.
    if let Some(chosen) = subprotocol.answer {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    }
    answer
}

/// The metric's label for a problem. Labels are a fixed set; every other problem is a bad
/// request.
fn refusal(problem: &Problem) -> Refusal {
    match (problem.code(), problem.status()) {
        ("draining", _) => Refusal::Draining,
        ("connections_full", _) => Refusal::ConnectionsFull,
        ("joining_too_fast", _) => Refusal::TooFast,
        ("joins_refused", _) => Refusal::JoinsRefused,
        ("arrivals_full", _) => Refusal::ArrivalsFull,
        ("origin_not_allowed", _) => Refusal::Origin,
        ("no_subprotocol", _) => Refusal::Subprotocol,
        (_, StatusCode::UNAUTHORIZED) => Refusal::Token,
        (_, StatusCode::FORBIDDEN) => Refusal::Room,
        _ => Refusal::BadRequest,
    }
}

impl Door for ViewerDoor {
    const NAME: DoorName = DoorName::Viewer;
    const CONNECTIONS_MAX: usize = HALF_OPEN_MAX;
    /// One request per connection: the 1 024 half-open places are for handshakes.
    const IDLE_AGE_MAX: Option<Duration> = None;

    async fn answer(&self, request: Request) -> Result<Answer, Problem> {
        check_head(request.version(), request.headers())?;
        {
            let in_force = self.node.in_force();
            let Config { device_keys, hosts, viewer_listen, .. } = &in_force.config;
            if device_keys.is_open() {
                check_own_host(request.headers(), hosts, viewer_listen.ip())?;
            }
        }
        match Route::of(request.uri().path()) {
            Some(Route::Part(room, Part::Ws)) => {
                let room = room.to_owned();
                Ok(self.join(&room, request))
            }
            Some(Route::Part(room, part @ (Part::History | Part::Reliable))) => {
                let room = room.to_owned();
                let (head, _) = request.into_parts();
                Ok(self.pull(PullWish::Page(&room, part), head).await)
            }
            None if request.uri().path() == route::PATH => {
                let (head, _) = request.into_parts();
                Ok(self.pull(PullWish::Route, head).await)
            }
            None if request.uri().path() == "/" => match *request.method() {
                Method::GET | Method::HEAD => Ok(answer(StatusCode::OK, HTML, PAGE.into())),
                _ => Err(Problem::method_not_allowed("GET, HEAD")),
            },
            // The publisher door's paths do not exist at this door.
            _ => Err(Problem::not_found()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::room::id::Encoding;

    #[test]
    fn each_problem_has_a_word_of_the_fixed_set() {
        let full = Problem::unavailable("connections_full", "");
        for (problem, word) in [
            (Problem::draining(), Refusal::Draining),
            (full, Refusal::ConnectionsFull),
            (Problem::joining_too_fast(Duration::ZERO), Refusal::TooFast),
            (Problem::joins_refused(Duration::ZERO), Refusal::JoinsRefused),
            (Refused::TokenExpired.into(), Refusal::Token),
            (Refused::RoomNotGranted.into(), Refusal::Room),
            (Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed"), Refusal::Origin),
            (Problem::bad("no_subprotocol", "", ""), Refusal::Subprotocol),
            (Problem::bad("bad_room", "room", ""), Refusal::BadRequest),
        ] {
            assert_eq!(refusal(&problem), word, "{}", problem.code());
        }
    }

    #[test]
    fn only_what_was_offered_is_echoed_and_no_extension_is_agreed_to() {
        let accept = HeaderValue::from_static("x");
        let offered = hyper::Request::get("/")
            .header("sec-websocket-protocol", "roomcast.v1.proto, roomcast.token.canary");
        let head = offered.body(()).unwrap().into_parts().0;
        let chosen = subprotocol(&head.headers).unwrap();
        assert_eq!(chosen.encoding, Encoding::Proto);
        let answer = switching(accept.clone(), &chosen);
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "roomcast.v1.proto");
        assert!(!format!("{answer:?}").contains("canary"));
        assert!(!answer.headers().contains_key("sec-websocket-extensions"));
        let bare = hyper::Request::get("/").body(()).unwrap().into_parts().0;
        let answer = switching(accept, &subprotocol(&bare.headers).unwrap());
        assert!(!answer.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }
}
