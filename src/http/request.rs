//! The checks of a request at every door: host, authorization, content type, body, query.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, TRANSFER_ENCODING};
use hyper::http::Extensions;
use hyper::{HeaderMap, StatusCode, Version};
use serde_json::{Map, Value};
use tokio::time::timeout;

use roomcast_core::limits::{BODY_AGE_MAX, REQUEST_BYTES_MAX};
use roomcast_core::room::id::{BadName, Encoding};
use roomcast_core::wire::ijson::{self, Fault, FaultKind};

use super::accept::paced::Pulse;
use super::accept::visitor;
use super::problem::Problem;

/// Checks the parts of a head that hyper leaves unread: exactly one `Host` header (none is fine in HTTP/1.0),
/// and no transfer coding but `chunked`.
///
/// # Errors
/// 400 `bad_host`, 501 `transfer_encoding`.
pub(super) fn check_head(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    // hyper lets none and several pass. Of two hosts, a proxy and this door might believe different ones.
    let is_fine = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().iter().all(|byte| is_host_byte(*byte)),
        (None, _) => version == Version::HTTP_10,
        (Some(_), Some(_)) => false,
    };
    if !is_fine {
        return Err(Problem::bad("bad_host", "host", "exactly one Host header, a host and perhaps a port"));
    }
    // hyper unpacks the chunks and leaves a coding before them in place. Its bytes would be taken for a body.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_plain = codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    if !is_plain || headers.get_all(TRANSFER_ENCODING).iter().count() > 1 {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "transfer_encoding")
            .field("transfer-encoding")
            .allowed("chunked, or none"));
    }
    Ok(())
}

/// True for a byte of a host and a port (RFC 3986 §3.2). The comma is left out: proxies join two headers by it.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// Checks that the peer takes JSON: the `Accept` header has no range, or one that fits.
///
/// # Errors
/// 406 `not_acceptable`.
pub(super) fn check_accepts_json(headers: &HeaderMap) -> Result<(), Problem> {
    let lines = headers.get_all(ACCEPT).iter().map(|line| line.to_str().unwrap_or_default());
    let mut ranges = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|range| !range.is_empty());
    let fits = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let fits = ["application/json", "application/*", "*/*"]
            .contains(&parts.next().unwrap_or_default().to_ascii_lowercase().as_str());
        // A weight of 0 says "anything but this" (RFC 9110 §12.4.2).
        let is_wanted = parts.all(|part| !matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        fits && is_wanted
    };
    let mut seen = ranges.by_ref().peekable();
    if seen.peek().is_none() || seen.any(fits) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable")
        .field("accept")
        .allowed("application/json"))
}

/// The value of a header. `None` if the header is missing, is no text, or stands twice.
pub(super) fn only<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(header).into_iter();
    let first = values.next()?;
    // Of two headers, a proxy and this door might believe different ones.
    if values.next().is_some() { None } else { first.to_str().ok().map(str::trim) }
}

/// The encoding of a body, from its content type. Nothing is guessed: a body without a content type is
/// refused.
///
/// # Errors
/// 415 `content_encoding` or `content_type`.
pub(super) fn body_encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    // The unpacked size of a compressed body is unknown until the body is unpacked: no bound could be kept.
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(unsupported("content_encoding", "content-encoding", "no Content-Encoding"));
    }
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split_once(';').map_or(value, |(essence, _)| essence).trim());
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case("application/json") => Ok(Encoding::Json),
        Some(essence) if essence.eq_ignore_ascii_case("application/x-protobuf") => Ok(Encoding::Proto),
        _ => Err(unsupported("content_type", "content-type", "application/json or application/x-protobuf")),
    }
}

/// Checks the content type of a body without a schema in protobuf.
///
/// # Errors
/// 415 `content_encoding` or `content_type`.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    match body_encoding(headers) {
        Ok(Encoding::Json) => Ok(()),
        // Names the one type that fits here, not the two of a publish.
        Err(problem) if problem.code() != "content_type" => Err(problem),
        _ => Err(unsupported("content_type", "content-type", "application/json")),
    }
}

/// Reads a JSON body of settings: one I-JSON object (RFC 7493). A name that stands twice is refused, since the
/// publisher can't know which of the two would be in force.
///
/// # Errors
/// 400 `bad_json`; 400 `bad_value` with the path of a name that stands twice.
pub(super) fn json_object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    match ijson::check(body) {
        Ok(()) => {}
        Err(Fault { kind: FaultKind::RepeatedName, path, .. }) => {
            return Err(Problem::bad("bad_value", path, "each field at most once"));
        }
        Err(fault) => {
            return Err(Problem::bad("bad_json", "body", "one JSON object").detail(fault.to_string()));
        }
    }
    serde_json::from_slice(body).map_err(|_| Problem::bad("bad_json", "body", "one JSON object"))
}

fn unsupported(code: &'static str, field: &'static str, allowed: &'static str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code).field(field).allowed(allowed)
}

/// Reads the whole body: at most [`REQUEST_BYTES_MAX`], within [`BODY_AGE_MAX`]. `extensions` are those of the
/// request: at a full door, a peer whose body does not come makes room for others.
///
/// # Errors
/// 413 `request_too_large`, 408 `request_too_slow`, 400 `bad_body` if the body breaks off.
pub(super) async fn read_body(extensions: &Extensions, body: Incoming) -> Result<Bytes, Problem> {
    let pulse = visitor(extensions).map(|visitor| &*visitor.pulse);
    if let Some(pulse) = pulse {
        pulse.body_awaited();
    }
    let read = timeout(BODY_AGE_MAX, collect(body, pulse)).await;
    if let Some(pulse) = pulse {
        pulse.body_ended();
    }
    match read {
        Ok(read) => read,
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request_too_slow")
            .allowed(format!("the whole body within {} s", BODY_AGE_MAX.as_secs()))),
    }
}

async fn collect(mut body: Incoming, pulse: Option<&Pulse>) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large")
            .allowed(format!("a body of at most {REQUEST_BYTES_MAX} bytes"))
    };
    // A large Content-Length is refused unread. A small one is never allocated for: it may be a lie.
    if body.size_hint().lower() > REQUEST_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|_| Problem::bad("bad_body", "body", "as many bytes as the Content-Length says"))?;
        if let Some(pulse) = pulse {
            pulse.body_part_came();
        }
        // Trailers mean nothing to any call.
        let Ok(part) = frame.into_data() else { continue };
        if first.len() + rest.len() + part.len() > REQUEST_BYTES_MAX {
            return Err(too_large());
        }
        // Most publishes arrive in one part, which is used without a copy.
        if first.is_empty() {
            first = part;
        } else {
            rest.extend_from_slice(&part);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// The fields of a request's query. Unknown fields are ignored. Of a field given twice, the first counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// The query of a target. A target without a query has an empty one.
    pub(super) fn of(uri: &'a hyper::Uri) -> Self {
        Self(uri.query().unwrap_or_default())
    }

    /// The decoded value of a field. An empty value counts as a missing field.
    ///
    /// # Errors
    /// 400 `bad_query` with the field, if the value is not percent-encoded UTF-8.
    pub(super) fn field(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Problem> {
        let value = self
            .0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(given, value)| (given == name).then_some(value))
            .filter(|value| !value.is_empty());
        let Some(value) = value else { return Ok(None) };
        // Browsers' form encoders write a space as "+".
        let decoded = if value.contains('+') {
            percent_decoded(&value.replace('+', " ")).map(|value| Cow::Owned(value.into_owned()))
        } else {
            percent_decoded(value)
        };
        decoded.map(Some).ok_or_else(|| Problem::bad("bad_query", name, "percent-encoded UTF-8"))
    }

    /// The value of a field, read by the parser of the type.
    ///
    /// # Errors
    /// 400 `bad_query` with the field.
    pub(super) fn parsed<T>(
        self,
        field: &'static str,
        parse: fn(&str) -> Result<T, BadName>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.field(field)? else { return Ok(None) };
        parse(&value).map(Some).map_err(|error| Problem::bad("bad_query", field, error.allowed))
    }

    /// The value of a field as a whole number within `range`.
    ///
    /// # Errors
    /// 400 `bad_query` with the field.
    pub(super) fn whole_number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<usize>, Problem> {
        let Some(value) = self.field(name)? else { return Ok(None) };
        let number = value.parse().ok().filter(|number| range.contains(number));
        let allowed = || format!("a whole number from {} to {}", range.start(), range.end());
        number.map(Some).ok_or_else(|| Problem::bad("bad_query", name, allowed()))
    }
}

/// Decodes `%XX`. `None` if an escape is broken, or if the result is not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    // Nearly every room name and query: borrowed, without an allocation.
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        decoded.push(digit()? * 16 + digit()?);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn there_is_exactly_one_host_and_it_is_one() {
        let one = headers(&[("host", "a")]);
        let two = headers(&[("host", "a"), ("host", "a")]);
        assert!(check_head(Version::HTTP_11, &one).is_ok());
        for bad in [two.clone(), HeaderMap::new()] {
            assert_eq!(check_head(Version::HTTP_11, &bad).unwrap_err().code(), "bad_host");
        }
        assert!(check_head(Version::HTTP_10, &HeaderMap::new()).is_ok());
        assert!(check_head(Version::HTTP_10, &two).is_err());
        for good in ["a", "a.example:7600", "[::1]:80", "127.0.0.1", "a_b-c", ""] {
            assert!(check_head(Version::HTTP_11, &headers(&[("host", good)])).is_ok(), "{good}");
        }
        for bad in ["a b", "a/b", "a@b", "a?", "a#", "a b/@?#", "a,b", "http://a", "a\\b"] {
            let problem = check_head(Version::HTTP_11, &headers(&[("host", bad)])).unwrap_err();
            assert_eq!((problem.code(), problem.named_field()), ("bad_host", Some("host")), "{bad}");
        }
    }

    #[test]
    fn no_coding_hides_in_the_chunks() {
        let check = |given: &[(&'static str, &'static str)]| {
            let host = [("host", "a")];
            check_head(Version::HTTP_11, &headers(&[&host[..], given].concat()))
        };
        assert!(check(&[("transfer-encoding", " Chunked")]).is_ok());
        for bad in ["gzip, chunked", "gzip", "chunked, chunked", "identity", "xchunked"] {
            let problem = check(&[("transfer-encoding", bad)]).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (501, "transfer_encoding"), "{bad}");
        }
        assert!(check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]).is_err());
    }

    #[test]
    fn who_takes_no_json_is_told() {
        let check = |accept| check_accepts_json(&headers(&[("accept", accept)]));
        assert!(check_accepts_json(&HeaderMap::new()).is_ok());
        for good in
            ["*/*", "application/json", "text/html, Application/*;q=0.8", "", "application/json;q=0.1"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["application/x-protobuf", "text/html, image/*", "application/json;q=0"] {
            let problem = check(bad).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (406, "not_acceptable"), "{bad}");
        }
    }

    #[test]
    fn an_object_says_each_name_once() {
        let refused = |body: &str| {
            let problem = json_object(body.as_bytes()).unwrap_err();
            (problem.code(), problem.named_field().unwrap().to_owned())
        };
        assert_eq!(json_object(b"{\"a\":{\"a\":1},\"b\":1}").unwrap().len(), 2);
        assert_eq!(refused(r#"{"a":1,"a":1}"#), ("bad_value", "a".to_owned()));
        assert_eq!(
            refused(r#"{"flush":{"gather_ms":1,"gather_ms":2}}"#),
            ("bad_value", "flush.gather_ms".to_owned())
        );
        for bad in ["", "[]", "7", "{", "{\"a\":1e999}"] {
            assert_eq!(refused(bad), ("bad_json", "body".to_owned()), "{bad}");
        }
    }

    #[test]
    fn the_content_type_chooses_the_encoding() {
        let encoding = |value| body_encoding(&headers(&[("content-type", value)]));
        assert_eq!(encoding("application/json").unwrap(), Encoding::Json);
        assert_eq!(encoding("Application/JSON; charset=utf-8").unwrap(), Encoding::Json);
        assert_eq!(encoding("application/x-protobuf").unwrap(), Encoding::Proto);
        for bad in ["text/plain", "", "application/jsonx", "application/x-www-form-urlencoded"] {
            assert_eq!(encoding(bad).unwrap_err().status(), 415, "{bad}");
        }
        assert_eq!(body_encoding(&HeaderMap::new()).unwrap_err().code(), "content_type");
    }

    #[test]
    fn a_compressed_body_is_refused() {
        let gzip = headers(&[("content-type", "application/json"), ("content-encoding", "gzip")]);
        assert_eq!(body_encoding(&gzip).unwrap_err().code(), "content_encoding");
    }

    #[test]
    fn a_query_field_is_found_and_decoded() {
        let query = Query("x=1&device=my%20tv+set&device=other&cursor=&odd&token=a%3Db");
        assert_eq!(query.field("device").unwrap().unwrap(), "my tv set");
        assert_eq!(query.field("token").unwrap().unwrap(), "a=b");
        assert_eq!(query.field("cursor").unwrap(), None);
        assert_eq!(query.field("odd").unwrap(), None);
        for bad in ["device=%", "device=%4", "device=%zz", "device=%ff", "device=%+1"] {
            let problem = Query(bad).field("device").unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "bad_query"), "{bad}");
        }
    }

    #[test]
    fn a_number_keeps_to_its_range() {
        let limit = |query| Query(query).whole_number("limit", 1..=1000);
        assert_eq!(limit("limit=1000").unwrap(), Some(1000));
        assert_eq!(limit("").unwrap(), None);
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=99999999999999999999"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_text_makes_the_decoder_panic() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let text: String =
                (0..rng.usize(..12)).map(|_| *rng.choice(&['%', 'a', '0', 'ü', 'f', '+']).unwrap()).collect();
            if let Some(decoded) = percent_decoded(&text) {
                assert!(decoded.len() <= text.len(), "seed {seed}");
            }
        }
    }
}
