//! The pull side of the viewer door: pages of a room's history and of the reliable messages.
//!
//! A device reads missed frames here, and so does a program without a WebSocket. A web page of
//! another origin may read as well, if the origin is listed (CORS).

use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::http::accept::Answer;
use crate::http::problem::Problem;
use crate::http::request::Query;
use crate::http::routes::{Part, room_name};
use crate::http::{JSON, answer, from_shard};
use crate::seat::Seat;
use roomcast_core::limits::HISTORY_MESSAGES_MAX;
use roomcast_core::room::id::{Cursor, Seen};

use super::ViewerDoor;

impl ViewerDoor {
    /// Answers a request for a page, or the preflight of one.
    pub(super) async fn pull(&self, room: &str, part: Part, head: Parts) -> Answer {
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
        // A cache on the way must not give one origin's answer to a page of another.
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        // On problems too: without the header, a browser hides the code from the page.
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
            let after = query.parsed("after", Cursor::parse)?;
            let seat = self.seat_for_a_pull()?;
            let page = from_shard(shards.reliable(room, after)).await??;
            return Ok(page_answer(Page { json: page, _seat: seat }));
        }
        let after = query.parsed("after", Seen::parse)?;
        let limit = query.whole_number("limit", 1..=HISTORY_MESSAGES_MAX)?.unwrap_or(HISTORY_MESSAGES_MAX);
        let seat = self.seat_for_a_pull()?;
        let page =
            from_shard(shards.history(room, after, limit)).await?.ok_or_else(Problem::room_not_open)?;
        Ok(page_answer(Page { json: page, _seat: seat }))
    }

    /// Takes a seat for one page. The seat comes before the page, so pages in the making are bounded too.
    fn seat_for_a_pull(&self) -> Result<Seat, Problem> {
        let full = || Problem::unavailable("pulls_full", "too many pages are being read; try again");
        self.node.pulls.take().ok_or_else(full)
    }
}

fn page_answer(page: Page) -> Answer {
    let mut answer = answer(StatusCode::OK, JSON, Bytes::from_owner(page));
    // The room goes on: a kept page would hide newer messages from the next request.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
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

/// A page on its way out. hyper drops the page, and so the seat, once the kernel has taken all of its bytes.
struct Page {
    json: Bytes,
    _seat: Seat,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}
