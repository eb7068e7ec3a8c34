//! What a door answers when it does not do what was asked: `application/problem+json` (RFC 9457) with a stable `code`,
//! the field at fault and what is allowed.

use std::borrow::Cow;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::auth;
use crate::http::accept::Answer;
use crate::http::admission::TooFast;
use crate::shard::handle::Unanswered;
use roomcast_core::limits;
use roomcast_core::room::message::{ShedReason, Unavailable};
use roomcast_core::room::view::StreamRefusal;
use roomcast_core::wire::publish::PublishError;

use super::answer;

/// One refusal. Its `code` is part of the protocol; its sentences may change.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Boxed, since every check returns a `Result` with a problem in it, and hardly any is one.
    told: Box<Told>,
}

#[derive(Debug, Clone)]
struct Told {
    status: StatusCode,
    code: &'static str,
    field: Option<Cow<'static, str>>,
    allowed: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    headers: HeaderMap,
    /// A JSON object whose members follow the problem's own.
    members: Option<Vec<u8>>,
}

impl Problem {
    /// A refusal with this code and nothing else to say.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str) -> Self {
        let headers = HeaderMap::new();
        let told = Told { status, code, field: None, allowed: None, detail: None, headers, members: None };
        Self { told: Box::new(told) }
    }

    /// 400: `field` is not what is allowed.
    #[must_use]
    pub fn bad(code: &'static str, field: &'static str, allowed: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code).field(field).allowed(allowed)
    }

    /// 503: not now; the same request may succeed after [`limits::RETRY_AFTER`].
    #[must_use]
    pub fn unavailable(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code).detail(detail).retry_after(limits::RETRY_AFTER)
    }

    /// 503: the node is stopping.
    #[must_use]
    pub fn draining() -> Self {
        Self::unavailable("draining", "this node is draining; another one will answer")
    }

    /// 503: more devices come than may; this one is to come back then.
    #[must_use]
    pub fn joining_too_fast(too_fast: TooFast) -> Self {
        Self::unavailable("joining_too_fast", "too many devices are joining; come back after Retry-After")
            .retry_after(too_fast.retry_after)
    }

    /// 429: more messages than may come a second. Each is of at least one a second, so that
    /// [`limits::RETRY_AFTER`] later one may come, unless reliable messages have gone first.
    #[must_use]
    pub fn past_limit(limit: ShedReason) -> Self {
        let whose = match limit {
            ShedReason::KeyRate => "limits.key_messages_per_second: this key publishes more than it may",
            ShedReason::TypeRate => "types.NAME.rate: the room takes no more of this type a second",
            _ => "limits.room_messages_per_second: the room takes no more messages a second",
        };
        Self::new(StatusCode::TOO_MANY_REQUESTS, limit.name()).detail(whose).retry_after(limits::RETRY_AFTER)
    }

    /// 503: the room takes no device for now.
    #[must_use]
    pub fn joins_refused(too_fast: TooFast) -> Self {
        Self::unavailable(
            "joins_refused",
            "this node has too much to do to take in devices; come back after Retry-After",
        )
        .retry_after(too_fast.retry_after)
    }

    /// 503: no more rooms.
    #[must_use]
    pub fn rooms_full() -> Self {
        Self::unavailable("rooms_full", "this node holds as many rooms as it may; nothing was taken")
    }

    /// 503: what became of the request is unknown.
    #[must_use]
    pub fn shard_silent() -> Self {
        Self::unavailable(
            "shard_silent",
            "the room's shard did not answer; what became of the request is unknown, repeat it with the same ids",
        )
    }

    /// 404: no such resource at this door.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found").detail("this door has nothing at that path")
    }

    /// 404: the room is not open on this node.
    #[must_use]
    pub fn room_not_open() -> Self {
        Self::new(StatusCode::NOT_FOUND, "room_not_open")
            .field("room")
            .detail("nobody has joined this room or published to it lately")
    }

    /// 405: the path exists, for these methods.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            .allowed(allow)
            .header(ALLOW, HeaderValue::from_static(allow))
    }

    /// Names what is at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.told.field = Some(field.into());
        self
    }

    /// Says what is allowed in its place.
    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<Cow<'static, str>>) -> Self {
        self.told.allowed = Some(allowed.into());
        self
    }

    /// Says what happened.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.told.detail = Some(detail.into());
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.told.headers.insert(name, value);
        self
    }

    /// Says when to try again, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().max(1);
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds the members of a JSON object to the answer.
    #[must_use]
    pub fn members(mut self, object: Vec<u8>) -> Self {
        self.told.members = Some(object);
        self
    }

    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.told.code
    }

    /// What is at fault, if one thing is.
    #[must_use]
    pub fn named_field(&self) -> Option<&str> {
        self.told.field.as_deref()
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.told.status
    }

    /// As it travels.
    #[must_use]
    pub fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            code: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            allowed: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
        }
        let told = *self.told;
        let body = Body {
            r#type: "about:blank",
            title: told.status.canonical_reason().unwrap_or_default(),
            status: told.status.as_u16(),
            code: told.code,
            field: told.field.as_deref(),
            allowed: told.allowed.as_deref(),
            detail: told.detail.as_deref(),
        };
        let mut json = serde_json::to_vec(&body).expect("strings and a number are JSON");
        if let Some(more) = told.members.as_deref().and_then(|object| object.strip_prefix(b"{")) {
            json.pop();
            json.push(b',');
            json.extend_from_slice(more);
        }
        let mut answer =
            answer(told.status, HeaderValue::from_static("application/problem+json"), json.into());
        answer.headers_mut().extend(told.headers);
        debug_assert!(answer.headers().contains_key(CONTENT_TYPE));
        answer
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Busy(_) => {
                Self::unavailable("inbox_full", "the room's shard has too much waiting; nothing was taken")
            }
            Unanswered::Silent => Self::shard_silent(),
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(reason: Unavailable) -> Self {
        let detail = match reason {
            Unavailable::StoreFailing => {
                "the store is failing; what became of the message is unknown, repeat it with the same id"
            }
            Unavailable::StoreFull => "the store holds as many bytes as it may; the message was not taken",
            Unavailable::StoreBusy => {
                "too much waits for the store; what became of the message is unknown, repeat it with the same id"
            }
            Unavailable::StreamFull => {
                "as many reliable messages of the room are alive as may be; the message was not taken"
            }
            Unavailable::RoomFull => "too much waits in the room already; the message was not taken",
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
                .detail("no reliable message of this room has this offset, or it is too long ago"),
            StreamRefusal::NotAlive => Self::new(StatusCode::CONFLICT, "not_alive")
                .field("offset")
                .detail("the message has expired, or is a recall itself: there is nothing to take back"),
            StreamRefusal::Unavailable(reason) => reason.into(),
            StreamRefusal::RoomsFull => Self::rooms_full(),
            StreamRefusal::Draining => Self::draining(),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
        let problem = Self::new(status, error.code).allowed(error.allowed);
        match error.field {
            Some(field) => problem.field(field),
            None => problem,
        }
    }
}

impl From<auth::Refused> for Problem {
    fn from(refused: auth::Refused) -> Self {
        let status = StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        let problem = Self::new(status, refused.code());
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
