//! A door's refusal: `application/problem+json` (RFC 9457) with a stable `code`, the field at fault, and the
//! allowed values.

use std::borrow::Cow;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::auth;
use crate::cluster::calls::CallFailed;
use crate::shard::handle::Unanswered;
use roomcast_core::limits;
use roomcast_core::room::message::{Homeless, ShedReason, Unavailable};
use roomcast_core::room::view::StreamRefusal;
use roomcast_core::wire::publish::PublishError;

use super::accept::Answer;
use super::answer;

const PROBLEM_JSON: &str = "application/problem+json";
const KEY_ALLOWED: &str = "Bearer and one of the keys of publisher.keys";
// The failed check is not named: a forger would learn from the answer. The log tells it at level debug.
const TOKEN_ALLOWED: &str = "a token of auth.device_keys before its exp: as Authorization: Bearer TOKEN, as the \
                             subprotocol entry roomcast.token.TOKEN, or as token=TOKEN";
/// Characters of an unknown name in a problem: enough to find the slip, and no megabyte.
const NAME_CHARS_SHOWN: usize = 64;

/// A part of a problem in words.
type Text = Cow<'static, str>;

/// One refusal. The `code` is part of the protocol; the sentences may change.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    /// Boxed: every check returns `Result<_, Problem>`, and the usual `Ok` must not carry 200 bytes for a
    /// rare problem.
    parts: Box<ProblemParts>,
}

/// The members of a problem in their order, and the parts of the answer beside them.
#[derive(Debug, Clone, Serialize)]
struct ProblemParts {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Text>,
    #[serde(skip)]
    http_status: StatusCode,
    #[serde(skip)]
    headers: HeaderMap,
    /// A JSON object whose members follow the problem's own.
    #[serde(skip)]
    members: Option<Vec<u8>>,
}

impl Problem {
    /// A refusal with this code alone.
    pub(super) fn new(status: StatusCode, code: &'static str) -> Self {
        let parts = ProblemParts {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code,
            field: None,
            allowed: None,
            detail: None,
            http_status: status,
            headers: HeaderMap::new(),
            members: None,
        };
        Self { parts: Box::new(parts) }
    }

    /// 400: the value of `field` is not allowed.
    pub(super) fn bad(code: &'static str, field: impl Into<Text>, allowed: impl Into<Text>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code).field(field).allowed(allowed)
    }

    /// 400: no such field. `prefix` is the path of the field's object, with the dot.
    pub(super) fn unknown_field(prefix: &str, name: &str, allowed: impl Into<Text>) -> Self {
        let field = format!("{prefix}{}", Self::shown(name));
        Self::new(StatusCode::BAD_REQUEST, "unknown_field").field(field).allowed(allowed)
    }

    /// The part of an unknown name to be shown in a problem.
    pub(super) fn shown(name: &str) -> String {
        name.chars().take(NAME_CHARS_SHOWN).collect()
    }

    /// 503: the same request may succeed after [`limits::RETRY_AFTER`].
    pub(super) fn unavailable(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code).detail(detail).retry_after(limits::RETRY_AFTER)
    }

    /// 503: the node is stopping.
    pub(super) fn draining() -> Self {
        Self::unavailable("draining", "this node is stopping; another node will answer")
    }

    /// 503: this node does not order the room.
    pub(super) fn homeless(homeless: Homeless) -> Self {
        let detail = match homeless {
            Homeless::NoHome => "no node orders the room at present; try again after Retry-After",
            Homeless::NotHome => "another node orders the room; try again after Retry-After",
        };
        Self::unavailable(homeless.name(), detail)
    }

    /// 503: more devices join than the rate allows. The `Retry-After` is this device's own.
    pub(super) fn joining_too_fast(retry_after: Duration) -> Self {
        Self::unavailable("joining_too_fast", "too many devices are joining; try again after Retry-After")
            .retry_after(retry_after)
    }

    /// 429: more messages a second than the limit.
    ///
    /// Every limit is at least one message a second. So one message fits after [`limits::RETRY_AFTER`],
    /// unless reliable messages have gone first.
    pub(super) fn past_limit(limit: ShedReason) -> Self {
        let detail = match limit {
            ShedReason::KeyRate => "limits.key_messages_per_second: this publisher key is past its rate",
            ShedReason::TypeRate => "types.NAME.rate: the room is past its rate of messages of this type",
            _ => "limits.room_messages_per_second: the room is past its rate of messages",
        };
        Self::new(StatusCode::TOO_MANY_REQUESTS, limit.name()).detail(detail).retry_after(limits::RETRY_AFTER)
    }

    /// 503: the room takes in no devices for now.
    pub(super) fn joins_refused(retry_after: Duration) -> Self {
        Self::unavailable(
            "joins_refused",
            "the node is overloaded, or an operator refuses joins to this room; try again after Retry-After",
        )
        .retry_after(retry_after)
    }

    /// 503: the node has no place for another room.
    pub(super) fn rooms_full() -> Self {
        Self::unavailable("rooms_full", "this node has no place for another room; nothing was taken")
    }

    /// 503: no living node is known to order the room.
    pub(super) fn no_home() -> Self {
        Self::unavailable("no_home", "no node orders this room at present; nothing was taken")
    }

    /// 503: this node can't reach the cluster, so that rooms of other nodes are out of its reach.
    pub(super) fn cluster_unreachable() -> Self {
        Self::unavailable(
            "cluster_unreachable",
            "this node does not reach its cluster, and another node may; nothing was taken",
        )
    }

    /// 503: another node sent a request here, and this node does not order the room.
    pub(super) fn not_home() -> Self {
        Self::unavailable("not_home", "the room has moved to another node; nothing was taken")
    }

    /// 404: no such resource at this door.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found").detail("this door has nothing at that path")
    }

    /// 404: this node is no node of a cluster.
    pub(super) fn no_cluster() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_cluster")
            .detail("this node is alone: its cluster.nats names no NATS server")
    }

    /// 404: the room is not open on this node.
    pub(super) fn room_not_open() -> Self {
        Self::new(StatusCode::NOT_FOUND, "room_not_open")
            .field("room")
            .detail("no device or publisher has used this room lately")
    }

    /// 405: the path exists, but only for these methods.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            .allowed(allow)
            .header(ALLOW, HeaderValue::from_static(allow))
    }

    /// Names the field at fault.
    pub(super) fn field(mut self, field: impl Into<Text>) -> Self {
        self.parts.field = Some(field.into());
        self
    }

    /// Names the allowed values of the field.
    pub(super) fn allowed(mut self, allowed: impl Into<Text>) -> Self {
        self.parts.allowed = Some(allowed.into());
        self
    }

    /// Adds a sentence on the cause.
    pub(super) fn detail(mut self, detail: impl Into<Text>) -> Self {
        self.parts.detail = Some(detail.into());
        self
    }

    /// Adds a header to the answer.
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.headers.insert(name, value);
        self
    }

    /// Adds the wait before another try: whole seconds, at least one.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds the members of a JSON object to the body.
    pub(super) fn members(mut self, object: Vec<u8>) -> Self {
        self.parts.members = Some(object);
        self
    }

    pub(super) fn code(&self) -> &'static str {
        self.parts.code
    }

    pub(super) fn status(&self) -> StatusCode {
        self.parts.http_status
    }

    /// The answer, ready to be sent.
    pub(super) fn into_answer(self) -> Answer {
        let json = self.body();
        let parts = *self.parts;
        let mut answer = answer(parts.http_status, HeaderValue::from_static(PROBLEM_JSON), json.into());
        answer.headers_mut().extend(parts.headers);
        debug_assert!(answer.headers().contains_key(CONTENT_TYPE));
        answer
    }

    /// The whole answer as bytes of HTTP/1.1, without the headers of the problem. The connection closes behind
    /// such an answer.
    pub(super) fn spelt(&self) -> Vec<u8> {
        let body = self.body();
        let length = body.len();
        let status = self.parts.http_status;
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\nconnection: close\r\ncontent-length: {length}"
        );
        [head.as_bytes(), b"\r\n\r\n", &body].concat()
    }

    fn body(&self) -> Vec<u8> {
        let parts = &*self.parts;
        let mut json = serde_json::to_vec(parts).expect("strings and a number are JSON");
        // The object of the members was encoded by someone else: spliced in, not parsed again.
        if let Some(more) = parts.members.as_deref().and_then(|object| object.strip_prefix(b"{")) {
            json.pop();
            json.push(b',');
            json.extend_from_slice(more);
        }
        json
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Busy(_) => {
                Self::unavailable("inbox_full", "the inbox of the room's shard is full; nothing was taken")
            }
            Unanswered::Silent => Self::unavailable(
                "shard_silent",
                "the room's shard did not answer; the outcome is unknown: repeat the request with the same ids",
            ),
        }
    }
}

impl From<CallFailed> for Problem {
    fn from(failed: CallFailed) -> Self {
        match failed {
            CallFailed::Busy => Self::unavailable(
                "inbox_full",
                "too much waits for the node that orders the room; nothing was taken",
            ),
            CallFailed::Unknown => Self::unavailable(
                "node_silent",
                "the node that orders the room did not answer; the outcome is unknown: repeat the request with the \
                 same ids",
            ),
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(reason: Unavailable) -> Self {
        let detail = match reason {
            Unavailable::StoreFailing => {
                "the store is failing; the outcome is unknown: repeat the message with the same id"
            }
            Unavailable::StoreFull => "the store is full; the message was not taken",
            Unavailable::StoreBusy => {
                "the store is too slow; the outcome is unknown: repeat the message with the same id"
            }
            Unavailable::StreamFull => {
                "the room has the most reliable messages that may be alive at once; the message was not taken"
            }
            Unavailable::RoomFull => "the room is full of waiting messages; the message was not taken",
        };
        Self::unavailable(reason.name(), detail)
    }
}

impl From<StreamRefusal> for Problem {
    fn from(refusal: StreamRefusal) -> Self {
        match refusal {
            StreamRefusal::NoRoom => Self::room_not_open(),
            StreamRefusal::NoOffset => Self::new(StatusCode::NOT_FOUND, "offset_unknown")
                .field("offset")
                .detail("no reliable message of this room has this offset, or the message is forgotten"),
            StreamRefusal::NotAlive => Self::new(StatusCode::CONFLICT, "not_alive")
                .field("offset")
                .detail("the message has expired, or is a recall itself, so it can't be recalled"),
            StreamRefusal::Unavailable(reason) => reason.into(),
            StreamRefusal::RoomsFull => Self::rooms_full(),
            StreamRefusal::Draining => Self::draining(),
            StreamRefusal::Homeless(homeless) => Self::homeless(homeless),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        // The core's statuses are constants; a wrong one must not panic on a publisher's mistake.
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut problem = Self::new(status, error.code).allowed(error.allowed);
        problem.parts.field = error.field.map(Cow::Owned);
        problem.parts.detail = error.detail.map(Cow::Owned);
        problem
    }
}

impl From<auth::Refused> for Problem {
    fn from(refused: auth::Refused) -> Self {
        let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        let (field, allowed) = match refused {
            auth::Refused::KeyMissing | auth::Refused::KeyUnknown => ("authorization", KEY_ALLOWED),
            auth::Refused::RoomNotGranted => ("room", "a room that the token names"),
            _ => ("token", TOKEN_ALLOWED),
        };
        let problem = Self::new(status, refused.name()).field(field).allowed(allowed);
        // RFC 9110 wants a challenge with each 401. A 403 has none: other credentials would not help.
        if status == StatusCode::UNAUTHORIZED {
            return problem.header(hyper::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    impl Problem {
        /// The field at fault, for the tests of all calls.
        pub(in crate::http) fn named_field(&self) -> Option<&str> {
            self.parts.field.as_deref()
        }
    }

    fn body_of(problem: Problem) -> serde_json::Value {
        let body = problem.into_answer().into_body();
        let mut frames = std::pin::pin!(body.collect());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match frames.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(Ok(body)) => serde_json::from_slice(&body.to_bytes()).unwrap(),
            std::task::Poll::Ready(Err(never)) => match never {},
            std::task::Poll::Pending => panic!("a full body is ready"),
        }
    }

    #[test]
    fn a_problem_names_its_code_its_field_and_what_is_allowed() {
        let problem = Problem::bad("bad_room", "room", "1 to 128 characters");
        let answer = problem.clone().into_answer();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body_of(problem),
            serde_json::json!({"type": "about:blank", "title": "Bad Request", "status": 400, "code": "bad_room",
                "field": "room", "allowed": "1 to 128 characters"})
        );
    }

    #[test]
    fn what_may_succeed_later_says_when() {
        let answer = Problem::draining().into_answer();
        assert_eq!((answer.status().as_u16(), &answer.headers()[RETRY_AFTER]), (503, &HeaderValue::from(1)));
    }

    #[test]
    fn each_refusal_of_the_stream_has_its_status_and_code() {
        for (refusal, status, code) in [
            (StreamRefusal::NoRoom, 404, "room_not_open"),
            (StreamRefusal::NoOffset, 404, "offset_unknown"),
            (StreamRefusal::NotAlive, 409, "not_alive"),
            (StreamRefusal::RoomsFull, 503, "rooms_full"),
            (StreamRefusal::Draining, 503, "draining"),
        ] {
            let problem = Problem::from(refusal);
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code), "{refusal:?}");
        }
        for reason in Unavailable::ALL {
            let problem = Problem::from(StreamRefusal::Unavailable(reason));
            assert_eq!((problem.status().as_u16(), problem.code()), (503, reason.name()));
            assert!(problem.into_answer().headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn a_wrong_method_hears_the_right_ones() {
        assert_eq!(Problem::method_not_allowed("GET, PUT").into_answer().headers()[ALLOW], "GET, PUT");
    }

    #[test]
    fn further_members_follow_the_problems_own() {
        let problem =
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shed").members(br#"{"results":[1]}"#.to_vec());
        let body = body_of(problem);
        assert_eq!((&body["code"], &body["results"]), (&"shed".into(), &serde_json::json!([1])));
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let body = body_of(Problem::new(StatusCode::BAD_REQUEST, "unknown_field").field("a\"\n".to_owned()));
        assert_eq!(body["field"], "a\"\n");
    }
}
