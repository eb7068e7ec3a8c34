//! What the publisher door answers, read as outcomes. Pure.

use std::collections::BTreeMap;

use prost::Message as _;
use roomcast_core::proto;
use serde::Deserialize;

use crate::ledger::Outcome;

/// Largest answer that is waited for: a thousand results, with room to spare.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What the bytes read so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not the whole answer yet.
    Half,
    /// No answer this generator understands; the connection is of no use any more.
    Bad(String),
    /// An answer.
    Whole {
        /// Its status.
        code: u16,
        /// Its length.
        bytes: usize,
        /// How each message ended; missing ones are unknown.
        outcomes: Vec<Outcome>,
        /// The offset of each message, 0: none; as many as there are results.
        offsets: Vec<u64>,
        /// Messages that took the place of a waiting one.
        merged: u64,
        /// Messages that were not taken, by the reason that was given: that of their result, or the code of the problem.
        refusals: BTreeMap<String, u64>,
        /// After how long another try makes sense.
        retry_after_ms: Option<u64>,
        /// What to tell the user when it is not plain success.
        trouble: Option<String>,
        /// Whether the connection can be used again.
        keeps: bool,
    },
}

/// The codes of a 503 after which nothing of its request may appear (docs/protocol.md, problems).
const CODES_NOTHING_TAKEN: [&str; 4] = ["inbox_full", "rooms_full", "draining", "shed"];

#[derive(Debug, Deserialize)]
struct JsonProblem {
    code: String,
}

#[derive(Debug, Deserialize)]
struct JsonResult {
    result: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    offset: u64,
}

/// One message's result.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ended {
    outcome: Outcome,
    offset: u64,
    is_merged: bool,
    /// Why it was not taken; empty: it was, or nobody said.
    reason: String,
}

#[derive(Debug, Deserialize)]
struct JsonAnswer {
    results: Vec<JsonResult>,
}

/// Reads the answer to a request of `messages` messages.
///
/// 2xx and 429 or 503 with results: as each result says. Any other 4xx, and a 503 whose `code` says so: nothing was
/// taken. Any other 5xx, and results that can't be read: unknown (design, 2.7).
#[must_use]
pub(crate) fn read_answer(bytes: &[u8], messages: usize) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_BYTES_MAX => return Answer::Half,
        Ok(httparse::Status::Partial) => return Answer::Bad("an endless answer".into()),
        Err(error) => return Answer::Bad(format!("no HTTP answer: {error}")),
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let Some(body_bytes) = header("content-length").and_then(|length| length.trim().parse::<usize>().ok())
    else {
        return Answer::Bad("an answer without Content-Length".into());
    };
    if body_bytes > ANSWER_BYTES_MAX {
        return Answer::Bad("an answer of more than 1 MiB".into());
    }
    let Some(body) = bytes.get(head_bytes..head_bytes + body_bytes) else { return Answer::Half };
    let code = response.code.unwrap_or(0);
    let results = if header("content-type").is_some_and(|value| value.starts_with("application/x-protobuf")) {
        proto_results(body)
    } else {
        json_results(body)
    };
    let refused = |reason: String| {
        vec![Ended { outcome: Outcome::Refused, offset: 0, is_merged: false, reason }; messages]
    };
    let ended = match (code, results) {
        (200..=299 | 429 | 503, Some(results)) => results,
        (400..=499, _) => refused(problem_code(body).unwrap_or_else(|| format!("http_{code}"))),
        (503, None) => {
            let problem = problem_code(body).filter(|problem| says_nothing_taken(problem));
            problem.map(refused).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let (outcomes, offsets): (Vec<Outcome>, Vec<u64>) =
        ended.iter().map(|ended| (ended.outcome, ended.offset)).unzip();
    let merged = ended.iter().filter(|ended| ended.is_merged).count() as u64;
    let mut refusals = BTreeMap::new();
    for ended in ended.into_iter().filter(|ended| ended.outcome == Outcome::Refused) {
        *refusals.entry(ended.reason).or_insert(0) += 1;
    }
    let retry_after_ms = header("retry-after").and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let retry_after_ms = retry_after_ms.map(|seconds| seconds.saturating_mul(1_000));
    let plain = code / 100 == 2 && outcomes.iter().all(|outcome| *outcome == Outcome::Ok);
    let trouble = (!plain).then(|| {
        let shown: String = String::from_utf8_lossy(body).chars().take(200).collect();
        format!("HTTP {code}: {shown}")
    });
    let keeps = !header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Answer::Whole {
        code,
        bytes: head_bytes + body_bytes,
        outcomes,
        offsets,
        merged,
        refusals,
        retry_after_ms,
        trouble,
        keeps,
    }
}

/// Whether a 503's problem promises that nothing was taken. `shard_silent` and strangers' codes don't.
fn says_nothing_taken(problem: &str) -> bool {
    CODES_NOTHING_TAKEN.contains(&problem)
}

fn problem_code(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<JsonProblem>(body).ok().map(|problem| problem.code)
}

fn json_results(body: &[u8]) -> Option<Vec<Ended>> {
    let answer: JsonAnswer = serde_json::from_slice(body).ok()?;
    Some(
        answer
            .results
            .into_iter()
            .map(|result| ended(&result.result, result.offset, result.reason))
            .collect(),
    )
}

fn proto_results(body: &[u8]) -> Option<Vec<Ended>> {
    let answer = proto::PublishAnswer::decode(body).ok()?;
    Some(
        answer
            .results
            .into_iter()
            .map(|result| ended(&result.result, result.offset, result.reason))
            .collect(),
    )
}

fn ended(result: &str, offset: u64, reason: String) -> Ended {
    let outcome = match result {
        "accepted" | "durable" | "merged" => Outcome::Ok,
        // The first attempt was stored after all: only a reliable message has an offset.
        "duplicate" if offset > 0 => Outcome::Ok,
        "shed" => Outcome::Refused,
        // `unavailable` says try again; `duplicate` can't be for a message without an id.
        _ => Outcome::Unknown,
    };
    Ended { outcome, offset, is_merged: result == "merged", reason }
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

    fn outcomes(answer: Answer) -> Vec<Outcome> {
        match answer {
            Answer::Whole { outcomes, .. } => outcomes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn results_say_how_each_message_ended() {
        let body = r#"{"results":[{"result":"accepted"},{"result":"shed","reason":"room_full"}]}"#;
        let answer = http(200, body);
        assert_eq!(outcomes(read_answer(&answer, 2)), [Outcome::Ok, Outcome::Refused]);
        assert_eq!(outcomes(read_answer(&http(429, body), 2)), [Outcome::Ok, Outcome::Refused]);
        assert_eq!(read_answer(&answer[..answer.len() - 1], 2), Answer::Half);
        let results = vec![proto::PublishResult { result: "accepted".into(), ..Default::default() }];
        let body = proto::PublishAnswer { results }.encode_to_vec();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend(body);
        assert_eq!(outcomes(read_answer(&answer, 1)), [Outcome::Ok]);
    }

    #[test]
    fn a_durable_message_and_a_duplicate_of_one_have_their_offset() {
        let body = r#"{"results":[{"result":"durable","offset":7},{"result":"duplicate","offset":3},{"result":"duplicate"},
            {"result":"unavailable","reason":"store_failing","retry_after_ms":1000}]}"#;
        let Answer::Whole { outcomes, offsets, .. } = read_answer(&http(200, body), 4) else { panic!() };
        assert_eq!(outcomes, [Outcome::Ok, Outcome::Ok, Outcome::Unknown, Outcome::Unknown]);
        assert_eq!(offsets, [7, 3, 0, 0]);
        let busy = b"HTTP/1.1 503 X\r\nRetry-After: 2\r\nContent-Length: 2\r\n\r\n{}";
        let Answer::Whole { retry_after_ms, .. } = read_answer(busy, 1) else { panic!() };
        assert_eq!(retry_after_ms, Some(2_000));
    }

    #[test]
    fn what_was_merged_was_taken_and_what_was_shed_has_its_reason() {
        let body = r#"{"results":[{"result":"merged"},{"result":"shed","reason":"type_rate"},
            {"result":"shed","reason":"room_full"},{"result":"shed","reason":"type_rate"}]}"#;
        let Answer::Whole { outcomes, merged, refusals, .. } = read_answer(&http(200, body), 4) else {
            panic!()
        };
        assert_eq!((outcomes[0], merged), (Outcome::Ok, 1));
        assert_eq!(refusals, BTreeMap::from([("room_full".into(), 1), ("type_rate".into(), 2)]));
        for (code, body, reason) in [
            (429, r#"{"code":"key_rate"}"#, "key_rate"),
            (503, r#"{"code":"inbox_full"}"#, "inbox_full"),
            (413, "too large", "http_413"),
        ] {
            let Answer::Whole { refusals, .. } = read_answer(&http(code, body), 3) else { panic!() };
            assert_eq!(refusals, BTreeMap::from([(reason.into(), 3)]));
        }
    }

    #[test]
    fn a_refusal_is_final_and_a_failure_is_unknown() {
        assert_eq!(outcomes(read_answer(&http(400, "{}"), 2)), [Outcome::Refused; 2]);
        assert_eq!(outcomes(read_answer(&http(500, "{}"), 2)), []);
        for code in CODES_NOTHING_TAKEN {
            let problem = http(503, &format!(r#"{{"code":"{code}"}}"#));
            assert_eq!(outcomes(read_answer(&problem, 2)), [Outcome::Refused; 2], "{code}");
        }
        let shed = r#"{"code":"shed","results":[{"result":"shed"}]}"#;
        assert_eq!(outcomes(read_answer(&http(503, shed), 1)), [Outcome::Refused]);
        for body in [r#"{"code":"shard_silent"}"#, "{}", "busy"] {
            assert_eq!(outcomes(read_answer(&http(503, body), 2)), [], "{body}");
        }
        assert_eq!(outcomes(read_answer(&http(500, r#"{"code":"inbox_full"}"#), 1)), []);
        assert!(matches!(read_answer(b"SSH-2.0-x\r\n\r\n", 1), Answer::Bad(_)));
    }
}
