//! The parts of a device's handshake: RFC 6455 headers, subprotocol, token, query.
//!
//! Pure functions over a request's head. The door decides their order, and acts on the result.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode, Version};
use tungstenite::handshake::derive_accept_key;

use crate::auth;
use crate::http::problem::Problem;
use crate::http::request::{Query, only};
use roomcast_core::room::id::{Cursor, DeviceName, Encoding, Seen};

/// The prefix of a subprotocol entry with a token. A browser's WebSocket lets a page set no other
/// header. The entry is never echoed.
const TOKEN_SUBPROTOCOL_PREFIX: &str = "roomcast.token.";

/// Checks a request to be a WebSocket handshake, and returns the `Sec-WebSocket-Accept` of the answer.
///
/// # Errors
/// 426 `upgrade_required` or `websocket_version`; 400 `bad_websocket_key`.
pub(super) fn accept_key(head: &Parts) -> Result<HeaderValue, Problem> {
    let is_upgrade = head.version == Version::HTTP_11
        && names(&head.headers, &UPGRADE, "websocket")
        && names(&head.headers, &CONNECTION, "upgrade");
    if !is_upgrade {
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required")
            .allowed("a WebSocket handshake (RFC 6455) over HTTP/1.1")
            .header(UPGRADE, HeaderValue::from_static("websocket"))
            .header(CONNECTION, HeaderValue::from_static("upgrade")));
    }
    if only(&head.headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket_version")
            .field("sec-websocket-version")
            .allowed("13")
            .header(UPGRADE, HeaderValue::from_static("websocket"))
            .header(CONNECTION, HeaderValue::from_static("upgrade"))
            .header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = only(&head.headers, &SEC_WEBSOCKET_KEY).filter(|key| is_sixteen_bytes(key));
    let accept = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok());
    accept.ok_or_else(|| Problem::bad("bad_websocket_key", "sec-websocket-key", "the base64 of 16 bytes"))
}

/// True if one of the header's comma-separated values is `token`, in any case.
fn names(headers: &HeaderMap, header: &HeaderName, token: &str) -> bool {
    listed(headers, header).any(|value| value.eq_ignore_ascii_case(token))
}

fn listed<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

fn is_sixteen_bytes(key: &str) -> bool {
    // The length first: no stranger makes the door decode a long header.
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// The choice among the offered subprotocols.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Subprotocol<'a> {
    pub(super) encoding: Encoding,
    /// The chosen entry, to be echoed. `None`: without an offer, an echo would break the
    /// handshake.
    pub(super) answer: Option<&'static str>,
    token: Option<&'a str>,
}

/// Shows no token: a token must not reach a log.
impl fmt::Debug for Subprotocol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subprotocol")
            .field("encoding", &self.encoding)
            .field("answer", &self.answer)
            .field("has_token", &self.token.is_some())
            .finish()
    }
}

/// Chooses the first known subprotocol. A device without an offer gets JSON.
///
/// # Errors
/// 400 `no_subprotocol` if there are offers and none of them can be echoed: foreign ones, or a token alone.
/// With a 101, a browser would drop the connection without a reason.
pub(super) fn subprotocol(headers: &HeaderMap) -> Result<Subprotocol<'_>, Problem> {
    let mut chosen = None;
    let mut token = None;
    let mut has_offers = false;
    for offer in listed(headers, &SEC_WEBSOCKET_PROTOCOL) {
        has_offers = true;
        if let Some(offered) = offer.strip_prefix(TOKEN_SUBPROTOCOL_PREFIX) {
            token = token.or(Some(offered));
        } else if let Some(encoding) = Encoding::ALL.into_iter().find(|ours| ours.subprotocol() == offer) {
            chosen = chosen.or(Some(encoding));
        }
    }
    match chosen {
        Some(encoding) => Ok(Subprotocol { encoding, answer: Some(encoding.subprotocol()), token }),
        None if has_offers => Err(Problem::bad(
            "no_subprotocol",
            "sec-websocket-protocol",
            "roomcast.v1.json or roomcast.v1.proto among the subprotocols, or none at all",
        )),
        None => Ok(Subprotocol { encoding: Encoding::Json, answer: None, token }),
    }
}

/// A device's token: from the `Authorization` header, else from the subprotocols, else from the query. The
/// token must not reach a log, an error or a metric.
///
/// # Errors
/// 400 `bad_query` if `token=` is not percent-encoded UTF-8.
pub(super) fn token<'a>(
    headers: &'a HeaderMap,
    subprotocol: Option<&Subprotocol<'a>>,
    query: Query<'a>,
) -> Result<Option<Cow<'a, str>>, Problem> {
    let given = only(headers, &AUTHORIZATION).and_then(auth::bearer);
    match given.or_else(|| subprotocol.and_then(|subprotocol| subprotocol.token)) {
        Some(token) => Ok(Some(token.into())),
        None => query.field("token"),
    }
}

/// The query of a join.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct JoinQuery {
    /// `cursor=EPOCH:OFFSET`
    pub(super) cursor: Option<Cursor>,
    /// `seen=RUN:SEQ`
    pub(super) seen: Option<Seen>,
    /// `device=`
    pub(super) device: Option<DeviceName>,
}

impl JoinQuery {
    /// Reads the three fields. Other fields are ignored: newer devices can speak to older nodes.
    ///
    /// # Errors
    /// 400 `bad_query` with the field.
    pub(super) fn of(query: Query<'_>) -> Result<Self, Problem> {
        Ok(Self {
            cursor: query.parsed("cursor", Cursor::parse)?,
            seen: query.parsed("seen", Seen::parse)?,
            device: query.parsed("device", DeviceName::parse)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(uri: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The example of RFC 6455, section 1.3.
    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn a_handshake_is_answered_with_its_key() {
        assert_eq!(accept_key(&head("/", &GOOD)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_header_of_a_handshake_is_checked() {
        for (broken, value, status, code) in [
            ("upgrade", "h2c", 426, "upgrade_required"),
            ("connection", "keep-alive", 426, "upgrade_required"),
            ("sec-websocket-version", "8", 426, "websocket_version"),
            ("sec-websocket-key", "", 400, "bad_websocket_key"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25j", 400, "bad_websocket_key"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=!", 400, "bad_websocket_key"),
        ] {
            let headers = GOOD.map(|(name, good)| (name, if name == broken { value } else { good }));
            let problem = accept_key(&head("/", &headers)).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code), "{broken}: {value}");
            let version = problem.into_answer().headers().get(SEC_WEBSOCKET_VERSION).cloned();
            assert_eq!(version.is_some(), code == "websocket_version");
        }
        let twice: Vec<_> = GOOD.into_iter().chain([GOOD[3]]).collect();
        assert_eq!(accept_key(&head("/", &twice)).unwrap_err().code(), "bad_websocket_key");
    }

    #[test]
    fn the_first_subprotocol_that_is_ours_is_chosen_and_echoed() {
        for (offered, encoding, answer) in [
            ("roomcast.v1.proto", Encoding::Proto, Some("roomcast.v1.proto")),
            ("chat, roomcast.v1.json,roomcast.v1.proto", Encoding::Json, Some("roomcast.v1.json")),
            ("roomcast.token.abc, roomcast.v1.json", Encoding::Json, Some("roomcast.v1.json")),
            ("", Encoding::Json, None),
        ] {
            let head = head("/", &[("sec-websocket-protocol", offered)]);
            let chosen = subprotocol(&head.headers).unwrap();
            assert_eq!((chosen.encoding, chosen.answer), (encoding, answer), "{offered}");
        }
        let lines =
            head("/", &[("sec-websocket-protocol", "x"), ("sec-websocket-protocol", "roomcast.v1.proto")]);
        assert_eq!(subprotocol(&lines.headers).unwrap().encoding, Encoding::Proto);
    }

    #[test]
    fn foreign_subprotocols_alone_are_refused() {
        for offered in
            ["graphql-ws", "Roomcast.v1.json", "graphql-ws, roomcast.token.abc", "roomcast.token.abc"]
        {
            let head = head("/", &[("sec-websocket-protocol", offered)]);
            assert_eq!(subprotocol(&head.headers).unwrap_err().code(), "no_subprotocol", "{offered}");
        }
    }

    #[test]
    fn a_token_comes_from_the_header_then_the_subprotocol_then_the_query() {
        let bearer = ("authorization", "Bearer one");
        let entry = ("sec-websocket-protocol", "roomcast.v1.json, roomcast.token.two");
        let of = |head: &Parts| {
            let chosen = subprotocol(&head.headers).unwrap();
            token(&head.headers, Some(&chosen), Query::of(&head.uri)).unwrap().map(Cow::into_owned)
        };
        assert_eq!(of(&head("/?token=three", &[bearer, entry])).as_deref(), Some("one"));
        assert_eq!(of(&head("/?token=three", &[entry])).as_deref(), Some("two"));
        assert_eq!(of(&head("/?token=three", &[])).as_deref(), Some("three"));
        assert_eq!(of(&head("/", &[])), None);
    }

    #[test]
    fn a_token_is_not_in_what_can_be_logged() {
        let head = head("/", &[("sec-websocket-protocol", "roomcast.token.canary")]);
        assert!(!format!("{:?}", subprotocol(&head.headers)).contains("canary"));
    }

    #[test]
    fn the_query_says_where_the_device_left_off() {
        let uri = "/?cursor=00000000000000ff:7&seen=00000000000000aa%3A3&device=tv%201&colour=blue";
        let join = JoinQuery::of(Query::of(&head(uri, &[]).uri)).unwrap();
        assert_eq!(join.cursor, Cursor::parse("00000000000000ff:7").ok());
        assert_eq!(join.seen, Seen::parse("00000000000000aa:3").ok());
        assert_eq!(join.device.unwrap().as_str(), "tv 1");
        for field in ["cursor", "seen", "device"] {
            let uri = format!("/?{field}=%00");
            let problem = JoinQuery::of(Query::of(&head(&uri, &[]).uri)).unwrap_err();
            assert_eq!((problem.code(), problem.named_field()), ("bad_query", Some(field)));
        }
    }
}
