//! `POST /v1/rooms/{room}/messages`: checks a request whole, hands its messages to the room, and says what became of
//! each of them.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};

use crate::clock;
use crate::http::accept::Answer;
use roomcast_core::limits;
use roomcast_core::room::id::{Encoding, RoomName};
use roomcast_core::room::message::{Class, Message, Published, ShedReason, Verdict};
use roomcast_core::room::tally::ByClass;
use roomcast_core::wire::publish;

use super::problem::Problem;
use super::request::{body_encoding, read_body};
use super::{JSON, Node, PROTO, answer, from_shard};

/// The answer to most publishes, spelt once.
const ONE_ACCEPTED_JSON: &[u8] = br#"{"results":[{"result":"accepted"}]}"#;

/// Publishes the messages of one request, which came with this publisher key, to `room`. Messages past the key's limit are
/// shed here; the rest goes on.
///
/// # Errors
/// A problem: then nothing was taken, unless its code is `shard_silent`.
pub async fn publish(
    node: &Node,
    key: usize,
    room: RoomName,
    request: Request<Incoming>,
) -> Result<Answer, Problem> {
    if node.is_draining() {
        return Err(Problem::draining());
    }
    let (parts, body) = request.into_parts();
    let encoding = body_encoding(&parts.headers)?;
    let body = read_body(body).await?;
    let mut messages = match encoding {
        Encoding::Json => publish::parse_json(&body, &node.types)?,
        Encoding::Proto => publish::parse_proto(&body, &node.types)?,
    };
    // The messages own their payloads; the request need not wait with them.
    drop((body, parts));
    let shed = past_limit(node, key, &mut messages);
    let published = if messages.is_empty() {
        Published::Taken(Vec::new())
    } else {
        from_shard(node.shards.publish(room, messages)).await?
    };
    match published {
        Published::Taken(verdicts) => taken(encoding, &with_shed(verdicts, &shed)),
        // As the publisher counts them.
        Published::IdReused { index } => {
            let index = (0..).filter(|at| shed.binary_search(at).is_err()).nth(index).unwrap_or(index);
            Err(id_reused(index))
        }
        Published::RoomsFull => Err(Problem::rooms_full()),
        Published::Draining => Err(Problem::draining()),
    }
}

/// Takes off the messages that are past the key's limit: the last ones, reliable or not. Where they stood, rising.
fn past_limit(node: &Node, key: usize, messages: &mut Vec<Message>) -> Vec<usize> {
    let is_reliable = |message: &Message| message.class() == Class::Reliable;
    let reliable = messages.iter().filter(|message| is_reliable(message)).count();
    let mut within = node.key_limits.take(key, reliable, messages.len() - reliable, clock::now().instant);
    if within.over == 0 {
        return Vec::new();
    }
    let (mut shed, mut by_class, mut at) = (Vec::new(), ByClass::default(), 0);
    messages.retain(|message| {
        let left = if is_reliable(message) { &mut within.reliable } else { &mut within.others };
        let stays = *left > 0;
        *left = left.saturating_sub(1);
        if !stays {
            by_class.add(message.class(), 1);
            shed.push(at);
        }
        at += 1;
        stays
    });
    node.metrics.past_key_rate(within.over as u64, &by_class);
    shed
}

/// The verdicts on a request's messages in their order: those of the room, and that some were past the key's limit.
fn with_shed(verdicts: Vec<Verdict>, shed: &[usize]) -> Vec<Verdict> {
    if shed.is_empty() {
        return verdicts;
    }
    let (count, mut of_room) = (verdicts.len() + shed.len(), verdicts.into_iter());
    let past = Verdict::Shed(ShedReason::KeyRate);
    (0..count)
        .map(|at| if shed.binary_search(&at).is_ok() { past } else { of_room.next().unwrap_or(past) })
        .collect()
}

fn id_reused(index: usize) -> Problem {
    Problem::new(StatusCode::CONFLICT, "id_reused")
        .field(format!("messages[{index}].id"))
        .allowed("an id of its own for each message; nothing was taken")
}

/// 200 if at least one message was taken; else 429 if all were past a limit, 503 if not.
fn taken(encoding: Encoding, verdicts: &[Verdict]) -> Result<Answer, Problem> {
    match (encoding, why_nothing(verdicts)) {
        (Encoding::Json, None) => {
            let results = match verdicts {
                [Verdict::Accepted] => Bytes::from_static(ONE_ACCEPTED_JSON),
                _ => publish::answer_json(verdicts).into(),
            };
            Ok(answer(StatusCode::OK, JSON, results))
        }
        (Encoding::Proto, None) => Ok(answer(StatusCode::OK, PROTO, publish::answer_proto(verdicts).into())),
        (Encoding::Json, Some(problem)) => Err(problem.members(publish::answer_json(verdicts))),
        (Encoding::Proto, Some(problem)) => {
            let results = publish::answer_proto(verdicts).into();
            let mut answer = answer(problem.status(), PROTO, results);
            let wait = HeaderValue::from(limits::RETRY_AFTER.as_secs().max(1));
            answer.headers_mut().insert(RETRY_AFTER, wait);
            Ok(answer)
        }
    }
}

/// The problem of a request of which nothing was taken: what became of its reliable messages, since that is what its
/// publisher has to act on, and before all that something is unknown; if there is none, that all were shed: if each was for
/// a limit, for that of the first.
fn why_nothing(verdicts: &[Verdict]) -> Option<Problem> {
    let mut why = None;
    let (mut limit, mut only_limits) = (None, true);
    for verdict in verdicts {
        match *verdict {
            Verdict::Accepted
            | Verdict::Saturated
            | Verdict::Durable { .. }
            | Verdict::Merged
            | Verdict::Duplicate { .. } => return None,
            Verdict::Unavailable(reason) if reason.is_unknown() => why = Some(reason),
            Verdict::Unavailable(reason) => why = why.or(Some(reason)),
            Verdict::Shed(reason) if reason.is_limit() => limit = limit.or(Some(reason)),
            Verdict::Shed(_) => only_limits = false,
        }
    }
    match (why, limit) {
        (Some(reason), _) => Some(reason.into()),
        (None, Some(limit)) if only_limits => Some(Problem::past_limit(limit)),
        (None, _) if verdicts.is_empty() => None,
        (None, _) => Some(Problem::unavailable("shed", "every message of this request was shed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::room::message::Unavailable;

    const SHED: Verdict = Verdict::Shed(ShedReason::RoomFull);

    #[test]
    fn the_answer_spelt_once_is_the_one_that_would_be_spelt() {
        assert_eq!(ONE_ACCEPTED_JSON, publish::answer_json(&[Verdict::Accepted]));
    }

    #[test]
    fn one_message_taken_makes_it_a_200() {
        for encoding in Encoding::ALL {
            assert_eq!(taken(encoding, &[SHED, Verdict::Accepted]).unwrap().status(), 200);
            assert_eq!(taken(encoding, &[Verdict::Duplicate { offset: None }]).unwrap().status(), 200);
        }
    }

    #[test]
    fn all_shed_makes_it_a_503_that_says_when_to_try_again() {
        let json = taken(Encoding::Json, &[SHED, SHED]).unwrap_err().into_answer();
        let proto = taken(Encoding::Proto, &[SHED]).unwrap();
        for answer in [json, proto] {
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers()[RETRY_AFTER], "1");
        }
    }

    #[test]
    fn what_was_not_stored_gives_the_problem_its_code() {
        let [failing, full] = [Unavailable::StoreFailing, Unavailable::StreamFull].map(Verdict::Unavailable);
        for (verdicts, code) in [
            (vec![SHED, full, failing], "store_failing"),
            (vec![SHED, full], "stream_full"),
            (vec![SHED], "shed"),
        ] {
            let problem = taken(Encoding::Json, &verdicts).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (503, code));
            assert_eq!(problem.into_answer().headers()[RETRY_AFTER], "1");
            assert_eq!(taken(Encoding::Proto, &verdicts).unwrap().status(), 503);
        }
        let durable = Verdict::Durable { offset: 1 };
        assert_eq!(taken(Encoding::Json, &[failing, SHED, durable]).unwrap().status(), 200);
    }

    #[test]
    fn all_past_a_limit_makes_it_a_429_with_the_limit_s_name() {
        let [key, room, of_type] =
            [ShedReason::KeyRate, ShedReason::RoomRate, ShedReason::TypeRate].map(Verdict::Shed);
        let failing = Verdict::Unavailable(Unavailable::StoreFailing);
        for (verdicts, status, code) in [
            (vec![key], 429, "key_rate"),
            (vec![room, key], 429, "room_rate"),
            (vec![of_type, of_type, key], 429, "type_rate"),
            (vec![key, SHED], 503, "shed"),
            (vec![SHED, room], 503, "shed"),
            (vec![key, failing], 503, "store_failing"),
        ] {
            let problem = taken(Encoding::Json, &verdicts).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code), "{verdicts:?}");
            assert_eq!(problem.into_answer().headers()[RETRY_AFTER], "1");
            let proto = taken(Encoding::Proto, &verdicts).unwrap();
            assert_eq!((proto.status().as_u16(), &proto.headers()[RETRY_AFTER]), (status, &1.into()));
        }
        assert_eq!(taken(Encoding::Json, &[Verdict::Accepted, key]).unwrap().status(), 200);
    }

    #[test]
    fn a_reused_id_is_named() {
        let problem = id_reused(3);
        assert_eq!((problem.status().as_u16(), problem.code()), (409, "id_reused"));
        assert_eq!(problem.named_field(), Some("messages[3].id"));
    }
}
