//! The publisher door's answers, read as outcomes. Pure.

use prost::Message as _;
use roomcast_core::proto;
use serde::Deserialize;

use crate::ledger::Outcome;
use crate::wire::http::read_head;

/// Largest answer accepted: a thousand results, with room to spare.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishAnswer {
    pub(crate) code: u16,
    /// Length of head and body.
    pub(crate) bytes: usize,
    /// Results in the order of the request's messages. A message without a result is unknown.
    pub(crate) results: Vec<MessageResult>,
    /// The wait before another attempt, as asked by the door.
    pub(crate) retry_after_ms: Option<u64>,
    /// The first 200 letters of an answer other than plain success.
    pub(crate) trouble: Option<String>,
    /// The door keeps the connection open.
    pub(crate) keeps: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessageResult {
    pub(crate) outcome: Outcome,
    /// Place in the reliable stream; 0: none.
    pub(crate) offset: u64,
    /// The message took the place of a waiting message.
    pub(crate) is_merged: bool,
    /// The reason for a refusal: of the result, or else the code of the problem. Empty otherwise.
    pub(crate) reason: String,
}

/// The codes of a 503 after which no message of the request may appear (docs/protocol.md, problems).
const CODES_NOTHING_TAKEN: [&str; 7] =
    ["inbox_full", "rooms_full", "draining", "shed", "no_home", "not_home", "cluster_unreachable"];

#[derive(Debug, Deserialize)]
struct JsonProblem {
    code: String,
}

#[derive(Debug, Deserialize)]
struct JsonAnswer {
    results: Vec<JsonResult>,
}

#[derive(Debug, Deserialize)]
struct JsonResult {
    result: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    offset: u64,
}

/// Reads the answer to a request of `messages` messages; `None` while bytes are missing.
///
/// | answer | outcomes (design, 2.7) |
/// |---|---|
/// | 2xx, 429 or 503 with results | as each result says |
/// | other 4xx, and a 503 with a code of `CODES_NOTHING_TAKEN` | refused |
/// | other 5xx, and unreadable results | unknown |
///
/// # Errors
/// A sentence about bytes foreign to a publisher door. The connection is of no further use.
pub(crate) fn read_answer(received: &[u8], messages: usize) -> Result<Option<PublishAnswer>, String> {
    let Some(head) = read_head(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
    let Some(body) = head.body(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
    let code = head.code;
    let is_proto =
        head.header("content-type").is_some_and(|value| value.starts_with("application/x-protobuf"));
    let refused = |reason: String| {
        let result = MessageResult { outcome: Outcome::Refused, offset: 0, is_merged: false, reason };
        vec![result; messages]
    };
    let results = match (code, if is_proto { proto_results(body) } else { json_results(body) }) {
        // A door that sheds some messages answers 429 or 503, with a result for each.
        (200..=299 | 429 | 503, Some(results)) => results,
        (400..=499, _) => refused(problem_code(body).unwrap_or_else(|| format!("http_{code}"))),
        (503, None) => {
            // `shard_silent`, `node_silent`, and the codes of a proxy in between, leave the fate of the request open.
            let problem = problem_code(body).filter(|problem| CODES_NOTHING_TAKEN.contains(&&**problem));
            problem.map(refused).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    // A 2xx may hold shed messages as well.
    let plain = code / 100 == 2 && results.iter().all(|result| result.outcome == Outcome::Ok);
    let shown = || String::from_utf8_lossy(body).chars().take(200).collect::<String>();
    let seconds = head.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    Ok(Some(PublishAnswer {
        code,
        bytes: head.bytes + body.len(),
        results,
        retry_after_ms: seconds.map(|seconds| seconds.saturating_mul(1_000)),
        trouble: (!plain).then(|| format!("HTTP {code}: {}", shown())),
        keeps: !head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
    }))
}

fn problem_code(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<JsonProblem>(body).ok().map(|problem| problem.code)
}

fn json_results(body: &[u8]) -> Option<Vec<MessageResult>> {
    let answer: JsonAnswer = serde_json::from_slice(body).ok()?;
    let results = answer.results.into_iter();
    Some(results.map(|result| read_result(&result.result, result.offset, result.reason)).collect())
}

fn proto_results(body: &[u8]) -> Option<Vec<MessageResult>> {
    let results = proto::PublishAnswer::decode(body).ok()?.results.into_iter();
    Some(results.map(|result| read_result(&result.result, result.offset, result.reason)).collect())
}

fn read_result(result: &str, offset: u64, reason: String) -> MessageResult {
    let outcome = match result {
        "accepted" | "durable" | "merged" => Outcome::Ok,
        // An earlier attempt was stored after all. Only a reliable message has an offset.
        "duplicate" if offset > 0 => Outcome::Ok,
        "shed" => Outcome::Refused,
        // `unavailable` asks for another attempt; a message without an id cannot be a `duplicate`.
        _ => Outcome::Unknown,
    };
    MessageResult { outcome, offset, is_merged: result == "merged", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(code: u16, body: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    fn whole(answer: &[u8], messages: usize) -> PublishAnswer {
        read_answer(answer, messages).unwrap().expect("a whole answer")
    }

    fn outcomes(answer: &[u8], messages: usize) -> Vec<Outcome> {
        whole(answer, messages).results.iter().map(|result| result.outcome).collect()
    }

    fn reasons(answer: &[u8], messages: usize) -> Vec<String> {
        whole(answer, messages).results.into_iter().map(|result| result.reason).collect()
    }

    #[test]
    fn results_say_how_each_message_ended() {
        let body = r#"{"results":[{"result":"accepted"},{"result":"shed","reason":"room_full"}]}"#;
        let answer = http(200, body);
        assert_eq!(outcomes(&answer, 2), [Outcome::Ok, Outcome::Refused]);
        assert_eq!(outcomes(&http(429, body), 2), [Outcome::Ok, Outcome::Refused]);
        assert_eq!(read_answer(&answer[..answer.len() - 1], 2), Ok(None));
        let results = vec![proto::PublishResult { result: "accepted".into(), ..Default::default() }];
        let body = proto::PublishAnswer { results }.encode_to_vec();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend(body);
        assert_eq!(outcomes(&answer, 1), [Outcome::Ok]);
    }

    #[test]
    fn a_durable_message_and_a_duplicate_of_one_have_their_offset() {
        let body = r#"{"results":[{"result":"durable","offset":7},{"result":"duplicate","offset":3},
            {"result":"duplicate"},
            {"result":"unavailable","reason":"store_failing","retry_after_ms":1000}]}"#;
        let answer = http(200, body);
        assert_eq!(outcomes(&answer, 4), [Outcome::Ok, Outcome::Ok, Outcome::Unknown, Outcome::Unknown]);
        let offsets: Vec<u64> = whole(&answer, 4).results.iter().map(|result| result.offset).collect();
        assert_eq!(offsets, [7, 3, 0, 0]);
        let busy = b"HTTP/1.1 503 X\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(whole(busy, 1).retry_after_ms, Some(2_000));
    }

    #[test]
    fn what_was_merged_was_taken_and_what_was_shed_has_its_reason() {
        let body = r#"{"results":[{"result":"merged"},{"result":"shed","reason":"type_rate"},
            {"result":"shed","reason":"room_full"},{"result":"shed","reason":"type_rate"}]}"#;
        let answer = http(200, body);
        let merged: Vec<bool> = whole(&answer, 4).results.iter().map(|result| result.is_merged).collect();
        assert_eq!((outcomes(&answer, 4)[0], merged), (Outcome::Ok, vec![true, false, false, false]));
        assert_eq!(reasons(&answer, 4), ["", "type_rate", "room_full", "type_rate"]);
        for (code, body, reason) in [
            (429, r#"{"code":"key_rate"}"#, "key_rate"),
            (503, r#"{"code":"inbox_full"}"#, "inbox_full"),
            (413, "too large", "http_413"),
        ] {
            assert_eq!(reasons(&http(code, body), 3), [reason; 3]);
        }
    }

    #[test]
    fn a_refusal_is_final_and_a_failure_is_unknown() {
        assert_eq!(outcomes(&http(400, "{}"), 2), [Outcome::Refused; 2]);
        assert_eq!(outcomes(&http(500, "{}"), 2), []);
        for code in CODES_NOTHING_TAKEN {
            let problem = http(503, &format!(r#"{{"code":"{code}"}}"#));
            assert_eq!(outcomes(&problem, 2), [Outcome::Refused; 2], "{code}");
        }
        let shed = r#"{"code":"shed","results":[{"result":"shed"}]}"#;
        assert_eq!(outcomes(&http(503, shed), 1), [Outcome::Refused]);
        for body in [r#"{"code":"shard_silent"}"#, r#"{"code":"node_silent"}"#, "{}", "busy"] {
            assert_eq!(outcomes(&http(503, body), 2), [], "{body}");
        }
        assert_eq!(outcomes(&http(500, r#"{"code":"inbox_full"}"#), 1), []);
        assert!(read_answer(b"SSH-2.0-x\r\n\r\n", 1).is_err());
    }
}
