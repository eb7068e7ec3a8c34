//! The pull side of the viewer door: pages of a room's history and of the reliable messages, and routes.
//!
//! A device reads missed frames here, and so does a program without a WebSocket. A web page of
//! another origin may read as well, if the origin is listed (CORS).

use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::http::accept::places::Place;
use crate::http::accept::{Answer, Visitor, visitor};
use crate::http::cluster::route::routed;
use crate::http::cluster::{Effect, passed_on, sent_on};
use crate::http::problem::Problem;
use crate::http::request::{Query, check_accepts_json};
use crate::http::routes::{Part, room_name};
use crate::http::{JSON, Node, answer, from_shard};
use roomcast_core::limits::{HISTORY_MESSAGES_MAX, PULL_PATIENCE};
use roomcast_core::room::id::{Cursor, RoomName, Seen};

use super::ViewerDoor;

/// The wish of a request without an upgrade.
#[derive(Debug, Clone, Copy)]
pub(super) enum PullWish<'a> {
    /// A page of this room, as typed.
    Page(&'a str, Part),
    /// The nodes for a room.
    Route,
}

impl ViewerDoor {
    /// Answers a request for a page or a route, or the preflight of one.
    pub(super) async fn pull(&self, wish: PullWish<'_>, head: Parts) -> Answer {
        if let Err(problem) = self.check_origin(&head.headers) {
            return problem.into_answer();
        }
        let mut answer = if head.method == Method::OPTIONS {
            preflight()
        } else if matches!(head.method, Method::GET | Method::HEAD) {
            self.read(wish, &head).await.unwrap_or_else(Problem::into_answer)
        } else {
            Problem::method_not_allowed("GET, HEAD, OPTIONS").into_answer()
        };
        let headers = answer.headers_mut();
        // A cache on the way must not give one origin's answer to a page of another.
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        // On problems too: without the header, a browser hides the code from the page.
        if let Some(origin) = head.headers.get(ORIGIN) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            // Without it the page can't see how long a 503 asks it to wait.
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        }
        answer
    }

    async fn read(&self, wish: PullWish<'_>, head: &Parts) -> Result<Answer, Problem> {
        let query = Query::of(&head.uri);
        let room = match wish {
            PullWish::Page(room, _) => room_name(room)?,
            PullWish::Route => room_name(&query.field("room")?.unwrap_or_default())?,
        };
        self.grant(&room, head, None)?;
        check_accepts_json(&head.headers)?;
        match wish {
            PullWish::Page(_, part) => self.page(room, part, head).await,
            PullWish::Route => routed(&self.node, room, query).await,
        }
    }

    async fn page(&self, room: RoomName, part: Part, head: &Parts) -> Result<Answer, Problem> {
        let wanted = PageWanted::of(part, Query::of(&head.uri))?;
        let home = self.node.settled_home(&room, Effect::None).await?;
        let place = self.place_for_a_pull(head).await?;
        let page = match home {
            None => wanted.page(&self.node, room).await?,
            Some(home) => {
                let call = home.call(sent_on(&head.method, &head.uri, None, Bytes::new())).await?;
                if call.status != StatusCode::OK {
                    return passed_on(call);
                }
                call.body
            }
        };
        Ok(page_answer(Page { json: page, _place: place }))
    }

    /// Takes a place for one page. The place comes before the page, so pages in the making are bounded too. A
    /// page that nobody reads gives way.
    async fn place_for_a_pull(&self, head: &Parts) -> Result<Place, Problem> {
        let full = || Problem::unavailable("pulls_full", "too many pages are being read; try again");
        let Visitor { address, pulse } = visitor(&head.extensions).cloned().ok_or_else(full)?;
        self.node.pulls.take_within(address, pulse, PULL_PATIENCE).await.ok_or_else(full)
    }
}

/// Answers another node's request for a page.
pub(in crate::http) async fn answer_pull(
    node: &Node,
    room: &str,
    part: Part,
    query: Query<'_>,
) -> Result<Answer, Problem> {
    let room = room_name(room)?;
    node.check_is_home(&room, Effect::None)?;
    let page = PageWanted::of(part, query)?.page(node, room).await?;
    Ok(answer(StatusCode::OK, JSON, page))
}

/// The page that a query asks for.
#[derive(Debug, Clone, Copy)]
enum PageWanted {
    History { after: Option<Seen>, limit: usize },
    Reliable { after: Option<Cursor> },
}

impl PageWanted {
    fn of(part: Part, query: Query<'_>) -> Result<Self, Problem> {
        if part == Part::Reliable {
            return Ok(Self::Reliable { after: query.parsed("after", Cursor::parse)? });
        }
        let after = query.parsed("after", Seen::parse)?;
        let limit = query.whole_number("limit", 1..=HISTORY_MESSAGES_MAX)?.unwrap_or(HISTORY_MESSAGES_MAX);
        Ok(Self::History { after, limit })
    }

    /// The page of a room that this node orders.
    async fn page(self, node: &Node, room: RoomName) -> Result<Bytes, Problem> {
        let shards = &node.shards;
        match self {
            Self::Reliable { after } => Ok(from_shard(shards.reliable(room, after)).await??),
            Self::History { after, limit } => {
                from_shard(shards.history(room, after, limit)).await?.ok_or_else(Problem::room_not_open)
            }
        }
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

/// A page on its way out. hyper drops the page, and so the place, once the kernel has taken all of its bytes.
struct Page {
    json: Bytes,
    _place: Place,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}
