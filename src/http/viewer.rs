//! The viewer door: devices join here, and pages read what was sent.
//!
//! All that can be refused is refused before 101; after it, the plain socket goes to a shard, and this door is done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONNECTION, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE, VARY,
};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::time::timeout;
use tracing::debug;

use crate::auth::Grant;
use crate::auth::Refused;
use crate::clock;
use crate::http::accept::{Answer, Door};
use crate::http::paced::PacedStream;
use crate::http::upgrade::{Asks, Subprotocol, accept_key, parsed, subprotocol, token};
use crate::metrics::{DoorName, Refusal};
use crate::seat::Seat;
use crate::shard::handle::{Arrival, Hello};
use roomcast_core::limits::{DESCRIPTORS_KEPT, HALF_OPEN_MAX, HANDSHAKE_AGE_MAX, HISTORY_MESSAGES_MAX};
use roomcast_core::room::id::{Cursor, RoomName, Seen};

use super::problem::Problem;
use super::request::{Query, check_host};
use super::routes::{Part, Route, room_name};
use super::{JSON, Node, answer, from_shard};

/// The door of devices.
#[derive(Debug)]
pub struct ViewerDoor {
    node: Arc<Node>,
}

impl ViewerDoor {
    /// A door to this node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let wanted = check_host(request.version(), request.headers())
            .and_then(|()| Route::of(request.uri().path()).ok_or_else(Problem::not_found));
        match wanted {
            Ok(Route::Part(room, Part::Ws)) => {
                let room = room.to_owned();
                self.join(&room, request)
            }
            Ok(Route::Part(room, part @ (Part::History | Part::Reliable))) => {
                let room = room.to_owned();
                let (head, _) = request.into_parts();
                self.pull(&room, part, head).await
            }
            Ok(
                Route::Rooms | Route::Room(_) | Route::Part(_, Part::Messages) | Route::ReliableMessage(..),
            ) => Problem::not_found().into_answer(),
            Err(problem) => problem.into_answer(),
        }
    }

    /// Answers a handshake, and on success sends the socket on its way once hyper has written the 101.
    fn join(&self, room: &str, mut request: Request<Incoming>) -> Answer {
        let upgrade = hyper::upgrade::on(&mut request);
        let has_body = !request.body().is_end_stream();
        let (head, _) = request.into_parts();
        let welcomed = if has_body {
            Err(Problem::bad("bad_body", "body", "a handshake without a body"))
        } else {
            self.welcome(room, &head)
        };
        match welcomed {
            Ok(welcomed) => {
                tokio::spawn(hand_over(Arc::clone(&self.node), upgrade, welcomed.hello));
                welcomed.answer
            }
            Err(problem) => {
                self.node.metrics.handshake_refused(refusal(&problem));
                debug!(code = problem.code(), "a device was not let in");
                problem.into_answer()
            }
        }
    }

    /// All checks of a handshake, cheapest first and the token's before anything that is taken.
    fn welcome(&self, room: &str, head: &Parts) -> Result<Welcomed, Problem> {
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
        let query = Query::of(&head.uri);
        let grant = self.grant(&room, head, Some(&subprotocol))?;
        let Asks { cursor, seen, device } = Asks::of(query)?;
        let now = clock::now().instant;
        if node.shards.refuses_joins(&room) {
            return Err(Problem::joins_refused(node.admission.put_off(now)));
        }
        let Some(seat) = node.seats.take() else {
            let full =
                Problem::unavailable("connections_full", "this node holds as many connections as it may");
            return Err(full.retry_after(node.admission.put_off(now).retry_after));
        };
        // Behind all that a device may be refused for besides: the rate is for those who can come in.
        node.admission.admit(now).map_err(Problem::joining_too_fast)?;
        if !node.shards.has_room_for(&room) {
            let full = Problem::unavailable("arrivals_full", "too many devices are arriving; try again");
            return Err(full.retry_after(node.admission.put_off(now).retry_after));
        }
        let answer = switching(accept, &subprotocol);
        let hello = Hello { room, encoding: subprotocol.encoding, cursor, seen, device, grant, seat };
        Ok(Welcomed { answer, hello })
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut given = headers.get_all(ORIGIN).into_iter();
        let is_allowed = match (given.next(), given.next()) {
            (None, _) => self.node.origins.allows(None),
            // No browser sends two: which of them counted would be for whoever stands between to guess.
            (Some(_), Some(_)) => false,
            // What is not text is on no list.
            (Some(origin), None) => {
                origin.to_str().is_ok_and(|origin| self.node.origins.allows(Some(origin)))
            }
        };
        if is_allowed {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed")
            .field("origin")
            .allowed("an origin of viewer.origins"))
    }

    /// Which rooms a request may see, `room` among them.
    fn grant(
        &self,
        room: &RoomName,
        head: &Parts,
        subprotocol: Option<&Subprotocol<'_>>,
    ) -> Result<Grant, Problem> {
        let token = token(&head.headers, subprotocol, Query::of(&head.uri))?;
        let grant = self.node.device_keys.grant(token.as_deref(), clock::now().unix_ms / 1000)?;
        if grant.covers(room) { Ok(grant) } else { Err(Refused::RoomNotGranted.into()) }
    }

    /// The pull side: what was sent, for those who read instead of listen. Pages of other origins may, if listed.
    async fn pull(&self, room: &str, part: Part, head: Parts) -> Answer {
        if let Err(problem) = self.check_origin(&head.headers) {
            return problem.into_answer();
        }
        let mut answer = if head.method == Method::OPTIONS {
            preflight()
        } else if head.method == Method::GET {
            self.read(room, part, &head).await.unwrap_or_else(Problem::into_answer)
        } else {
            Problem::method_not_allowed("GET, OPTIONS").into_answer()
        };
        let headers = answer.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = head.headers.get(ORIGIN) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        answer
    }

    async fn read(&self, room: &str, part: Part, head: &Parts) -> Result<Answer, Problem> {
        let room = room_name(room)?;
        self.grant(&room, head, None)?;
        let query = Query::of(&head.uri);
        let shards = &self.node.shards;
        if part == Part::Reliable {
            let after = parsed(query, "after", Cursor::parse)?;
            let place = self.place_for_a_pull()?;
            let page = from_shard(shards.reliable(room, after)).await??;
            return Ok(page_answer(Page { json: page.json, _place: place }));
        }
        let after = parsed(query, "after", Seen::parse)?;
        let limit = query.whole_number("limit", 1..=HISTORY_MESSAGES_MAX)?.unwrap_or(HISTORY_MESSAGES_MAX);
        let place = self.place_for_a_pull()?;
        let page =
            from_shard(shards.history(room, after, limit)).await?.ok_or_else(Problem::room_not_open)?;
        Ok(page_answer(Page { json: page.json, _place: place }))
    }

    /// Taken before the page is made, so that pages made and not yet read have a bound too.
    fn place_for_a_pull(&self) -> Result<Seat, Problem> {
        let full = || Problem::unavailable("pulls_full", "too many pages are being read; try again");
        self.node.pulls.take().ok_or_else(full)
    }
}

/// A page, which nobody on the way may keep: the next request finds another.
fn page_answer(page: Page) -> Answer {
    let mut answer = answer(StatusCode::OK, JSON, Bytes::from_owner(page));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A page of history or of reliable messages on its way out. hyper drops it when the kernel has taken the whole of it.
struct Page {
    json: Bytes,
    _place: Seat,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// A device that may come in.
struct Welcomed {
    answer: Answer,
    hello: Hello,
}

/// Takes the socket back from hyper and gives it to the shard that placement names.
async fn hand_over(node: Arc<Node>, upgrade: OnUpgrade, hello: Hello) {
    let Ok(Ok(upgraded)) = timeout(HANDSHAKE_AGE_MAX, upgrade).await else {
        return node.metrics.handshake_refused(Refusal::Gone);
    };
    let parts = upgraded.downcast::<PacedStream>().expect("the doors serve PacedStreams and nothing else");
    let Ok(stream) = parts.io.into_stream().into_std() else {
        return node.metrics.handshake_refused(Refusal::Gone);
    };
    match node.shards.admit(Arrival { stream, early: parts.read_buf, hello }) {
        Ok(()) => node.metrics.handshake_accepted(),
        // Between the check and now its place was taken. The socket closes; a device reads that as "come back".
        Err(_) => node.metrics.handshake_refused(Refusal::ArrivalsFull),
    }
}

/// 101, with the subprotocol only if the device offered it. No extension is ever agreed to: with permessage-deflate a
/// few bytes from a stranger could unpack to anything.
fn switching(accept: HeaderValue, subprotocol: &Subprotocol<'_>) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(chosen) = subprotocol.answer {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    }
    answer
}

fn preflight() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer
}

/// The metric's word for a problem: a fixed set, whatever codes there are.
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
    /// One request per connection: its place among the half-open ones is for handshakes.
    const IDLE_AGE_MAX: Option<Duration> = None;

    /// Half of what is kept back may be used to say 503.
    const DESCRIPTORS_LEFT: u64 = DESCRIPTORS_KEPT / 2;

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        self.route(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::admission::TooFast;
    use roomcast_core::room::id::Encoding;

    #[test]
    fn each_problem_has_a_word_of_the_fixed_set() {
        let full = Problem::unavailable("connections_full", "");
        for (problem, word) in [
            (Problem::draining(), Refusal::Draining),
            (full, Refusal::ConnectionsFull),
            (Problem::joining_too_fast(TooFast { retry_after: Duration::ZERO }), Refusal::TooFast),
            (Problem::joins_refused(TooFast { retry_after: Duration::ZERO }), Refusal::JoinsRefused),
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
        let offered =
            Request::get("/").header("sec-websocket-protocol", "roomcast.v1.proto, roomcast.token.canary");
        let head = offered.body(()).unwrap().into_parts().0;
        let chosen = subprotocol(&head.headers).unwrap();
        assert_eq!(chosen.encoding, Encoding::Proto);
        let answer = switching(accept.clone(), &chosen);
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "roomcast.v1.proto");
        assert!(!format!("{answer:?}").contains("canary"));
        assert!(!answer.headers().contains_key("sec-websocket-extensions"));
        let bare = Request::get("/").body(()).unwrap().into_parts().0;
        let answer = switching(accept, &subprotocol(&bare.headers).unwrap());
        assert!(!answer.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }
}
