//! `POST /v1/rooms/{room}/messages`: checks a request whole, gives its messages to the room, and answers with
//! a result per message.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};

use super::key_limits::KeyLimits;
use crate::clock;
use crate::cluster::calls::NodeRequest;
use crate::http::accept::{Answer, Request};
use crate::http::cluster::{Effect, sent_on};
use crate::http::problem::Problem;
use crate::http::request::{body_encoding, read_body};
use crate::http::{InForce, JSON, JSON_TYPE, Node, PROTO, PROTO_TYPE, answer, from_shard};
use crate::metrics::Metrics;
use roomcast_core::limits;
use roomcast_core::room::id::{Encoding, RoomName};
use roomcast_core::room::message::{Class, Message, Published, ShedReason, Verdict};
use roomcast_core::room::policy::Types;
use roomcast_core::room::tally::ByClass;
use roomcast_core::wire::publish;

/// The answer to most publishes, encoded once.
const ONE_ACCEPTED_JSON: &[u8] = br#"{"results":[{"result":"accepted"}]}"#;

/// The caller of a request, and the configuration that has let the caller in.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) in_force: Arc<InForce>,
    /// The index of the caller's key in `in_force`. After a reload, it may be the index of another key.
    pub(super) key: usize,
}

/// Publishes the messages of one request to `room`. Messages past the limit of the caller's key are shed here;
/// the rest goes on, to the room's home if that is another node.
///
/// # Errors
/// A problem means: nothing was taken, unless the code is `shard_silent`, `node_silent`, `store_failing` or
/// `store_busy`.
pub(super) async fn publish(
    node: &Node,
    caller: Caller,
    room: RoomName,
    request: Request,
) -> Result<Answer, Problem> {
    if node.is_draining() {
        return Err(Problem::draining());
    }
    let (parts, body) = request.into_parts();
    let encoding = body_encoding(&parts.headers)?;
    let body = read_body(&parts.extensions, body).await?;
    let Caller { in_force, key } = caller;
    let mut messages = parsed(&body, encoding, &in_force.config.types)?;
    // Before the limit: a request that nobody answers takes nothing of it.
    let home = node.settled_home(&room, Effect::Change).await?;
    let shed = past_limit(&node.metrics, &in_force.key_limits, key, &mut messages);
    drop(in_force);
    match home {
        // All messages were shed: the home has nothing to order.
        Some(home) if !messages.is_empty() => {
            drop(messages);
            let content_type = match encoding {
                Encoding::Json => JSON_TYPE,
                Encoding::Proto => PROTO_TYPE,
            };
            let mut request = sent_on(&parts.method, &parts.uri, Some(content_type), body);
            request.shed = shed.into_iter().filter_map(|at| u32::try_from(at).ok()).collect();
            drop(parts);
            // Boxed: a publish at home must not carry the bytes of the other way.
            Box::pin(home.answer(request)).await
        }
        Some(_) | None => {
            // The messages own their payloads. The answer may take 10 s, and the request's buffers must not
            // wait with it.
            drop(body);
            drop(parts);
            order(node, room, encoding, messages, &shed).await
        }
    }
}

/// Publishes the messages of a request that another node has sent here, but for those that the other node has
/// shed.
///
/// # Errors
/// As [`publish`], 503 `not_home`, and 400 `bad_value` for shed messages that are not in the request.
pub(super) async fn publish_for_node(
    node: &Node,
    room: RoomName,
    request: &NodeRequest,
) -> Result<Answer, Problem> {
    // Also while the node drains: its slots are handed over one by one.
    node.check_is_home(&room, Effect::Change)?;
    let encoding = match request.content_type.as_deref() {
        Some(PROTO_TYPE) => Encoding::Proto,
        _ => Encoding::Json,
    };
    let mut messages = parsed(&request.body, encoding, &node.in_force().config.types)?;
    let shed: Vec<usize> = request.shed.iter().map(|at| *at as usize).collect();
    // Peers are strangers: the results would come in another order than the messages.
    let is_rising = shed.is_sorted_by(|a, b| a < b);
    if !is_rising || shed.last().is_some_and(|last| *last >= messages.len()) {
        return Err(Problem::bad("bad_value", "shed", "places of messages, rising"));
    }
    let mut at = 0;
    messages.retain(|_| {
        at += 1;
        shed.binary_search(&(at - 1)).is_err()
    });
    order(node, room, encoding, messages, &shed).await
}

fn parsed(body: &Bytes, encoding: Encoding, types: &Types) -> Result<Vec<Message>, Problem> {
    Ok(match encoding {
        Encoding::Json => publish::parse_json(body, types)?,
        Encoding::Proto => publish::parse_proto(body, types)?,
    })
}

/// Gives messages to a room that this node orders. `shed` has the places in the request of the messages that
/// were shed.
async fn order(
    node: &Node,
    room: RoomName,
    encoding: Encoding,
    messages: Vec<Message>,
    shed: &[usize],
) -> Result<Answer, Problem> {
    // All messages were shed: the room has nothing to order, and a cold room is not opened for nothing.
    let published = if messages.is_empty() {
        Published::Taken(Vec::new())
    } else {
        from_shard(node.shards.publish(room, messages)).await?
    };
    match published {
        Published::Taken(verdicts) => taken(encoding, &with_shed(verdicts, shed)),
        // The room counts without the shed messages; the publisher counts with them.
        Published::IdReused { index } => {
            let index = (0..).filter(|at| shed.binary_search(at).is_err()).nth(index).unwrap_or(index);
            Err(id_reused(index))
        }
        Published::RoomsFull => Err(Problem::rooms_full()),
        Published::Draining => Err(Problem::draining()),
        Published::Homeless(homeless) => Err(Problem::homeless(homeless)),
    }
}

/// Removes the messages past the key's limit, the last ones first. Returns their indices in the request,
/// rising.
fn past_limit(
    metrics: &Metrics,
    key_limits: &KeyLimits,
    key: usize,
    messages: &mut Vec<Message>,
) -> Vec<usize> {
    let is_reliable = |message: &Message| message.class() == Class::Reliable;
    let reliable = messages.iter().filter(|message| is_reliable(message)).count();
    let mut within = key_limits.take(key, reliable, messages.len() - reliable, clock::now().instant);
    if within.over == 0 {
        return Vec::new();
    }
    let mut shed = Vec::new();
    let mut by_class = ByClass::default();
    let mut at = 0;
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
    metrics.past_key_rate(within.over as u64, &by_class);
    shed
}

/// Adds a verdict for each message past the key's limit, and restores the order of the
/// request.
fn with_shed(verdicts: Vec<Verdict>, shed: &[usize]) -> Vec<Verdict> {
    // Nearly every request; the verdicts are not copied.
    if shed.is_empty() {
        return verdicts;
    }
    let count = verdicts.len() + shed.len();
    let mut of_room = verdicts.into_iter();
    let past = Verdict::Shed(ShedReason::KeyRate);
    (0..count)
        .map(|at| if shed.binary_search(&at).is_ok() { past } else { of_room.next().unwrap_or(past) })
        .collect()
}

fn id_reused(index: usize) -> Problem {
    Problem::new(StatusCode::CONFLICT, "id_reused")
        .field(format!("messages[{index}].id"))
        .allowed("one id for one message: this id belongs to another payload; nothing was taken")
}

/// 200 if at least one message was taken. Else 429 if all messages were past a limit, or 503.
fn taken(encoding: Encoding, verdicts: &[Verdict]) -> Result<Answer, Problem> {
    match (encoding, refusal(verdicts)) {
        (Encoding::Json, None) => {
            let results = match verdicts {
                [Verdict::Accepted] => Bytes::from_static(ONE_ACCEPTED_JSON),
                _ => publish::answer_json(verdicts).into(),
            };
            Ok(answer(StatusCode::OK, JSON, results))
        }
        (Encoding::Proto, None) => Ok(answer(StatusCode::OK, PROTO, publish::answer_proto(verdicts).into())),
        (Encoding::Json, Some(problem)) => Err(problem.members(publish::answer_json(verdicts))),
        // A problem is JSON, so it can't carry results in protobuf: the status says the rest.
        (Encoding::Proto, Some(problem)) => {
            let results = publish::answer_proto(verdicts).into();
            let mut answer = answer(problem.status(), PROTO, results);
            let wait = HeaderValue::from(limits::RETRY_AFTER.as_secs().max(1));
            answer.headers_mut().insert(RETRY_AFTER, wait);
            Ok(answer)
        }
    }
}

/// The problem of a request without a taken message. `None`: a message was taken.
///
/// The first case decides:
///
/// 1. An *unknown* reliable message: the publisher must repeat it with the same id.
/// 2. Any other reliable message without a place in the store.
/// 3. A limit, if every message was past a limit: the limit of the first message.
/// 4. Any other shedding.
fn refusal(verdicts: &[Verdict]) -> Option<Problem> {
    let mut not_stored = None;
    let mut limit = None;
    let mut only_limits = true;
    for verdict in verdicts {
        match *verdict {
            Verdict::Accepted
            | Verdict::Saturated
            | Verdict::Durable { .. }
            | Verdict::Merged
            | Verdict::Duplicate { .. } => return None,
            Verdict::Unavailable(reason) if reason.is_unknown() => not_stored = Some(reason),
            Verdict::Unavailable(reason) => not_stored = not_stored.or(Some(reason)),
            Verdict::Shed(reason) if reason.is_limit() => limit = limit.or(Some(reason)),
            Verdict::Shed(_) => only_limits = false,
        }
    }
    match (not_stored, limit) {
        (Some(reason), _) => Some(reason.into()),
        (None, Some(limit)) if only_limits => Some(Problem::past_limit(limit)),
        // Cannot be: the parsers refuse a request without messages.
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
