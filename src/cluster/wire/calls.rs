//! Calls of the doors and their answers.

use hyper::{Method, StatusCode};

use super::{BadWord, pb};
use crate::cluster::calls::{CallFailed, CallOutcome, NodeAnswer, NodeRequest};
use pb::call_answer::Outcome;
use roomcast_core::limits::{
    NODE_CONTENT_TYPE_BYTES_MAX, NODE_TARGET_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_MESSAGES_MAX,
};

/// The methods of the doors, each with its number.
const METHODS: [(pb::Method, Method); 6] = [
    (pb::Method::Get, Method::GET),
    (pb::Method::Put, Method::PUT),
    (pb::Method::Post, Method::POST),
    (pb::Method::Delete, Method::DELETE),
    (pb::Method::Patch, Method::PATCH),
    (pb::Method::Head, Method::HEAD),
];

pub(super) fn encode_request(number: u64, request: &NodeRequest) -> pb::Call {
    let method = METHODS.iter().find(|(_, method)| *method == request.method);
    pb::Call {
        number,
        // A method without a number is none of the doors': the other node drops the call.
        method: method.map_or(pb::Method::Unspecified, |(method, _)| *method).into(),
        target: request.target.clone(),
        content_type: request.content_type.clone(),
        body: request.body.clone(),
        shed: request.shed.clone(),
    }
}

pub(super) fn decode_request(call: pb::Call) -> Result<NodeRequest, BadWord> {
    let method = METHODS.iter().find(|(method, _)| *method as i32 == call.method).ok_or(BadWord)?;
    let target = call.target;
    let is_target = target.len() <= NODE_TARGET_BYTES_MAX
        && target.starts_with('/')
        && target.bytes().all(|byte| byte.is_ascii_graphic());
    let is_rising = call.shed.is_sorted_by(|one, next| one < next);
    let fits = call.body.len() <= REQUEST_BYTES_MAX && call.shed.len() <= REQUEST_MESSAGES_MAX;
    let content_type = call.content_type.map(content_type).transpose()?;
    if !is_target || !is_rising || !fits {
        return Err(BadWord);
    }
    Ok(NodeRequest { method: method.1.clone(), target, content_type, body: call.body, shed: call.shed })
}

/// A content type that a header may have.
fn content_type(text: String) -> Result<String, BadWord> {
    let fits = text.len() <= NODE_CONTENT_TYPE_BYTES_MAX;
    let is_visible = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if fits && is_visible { Ok(text) } else { Err(BadWord) }
}

pub(super) fn encode_outcome(number: u64, outcome: &CallOutcome) -> pb::CallAnswer {
    let outcome = match outcome {
        Ok(answer) => Outcome::Answer(pb::Answer {
            status: answer.status.as_u16().into(),
            content_type: answer.content_type.clone(),
            retry_after_s: answer.retry_after,
            body: answer.body.clone(),
        }),
        Err(CallFailed::Busy) => Outcome::Busy(pb::Nothing {}),
        Err(CallFailed::Unknown) => Outcome::Unknown(pb::Nothing {}),
    };
    pb::CallAnswer { number, outcome: Some(outcome) }
}

pub(super) fn decode_outcome(answer: pb::CallAnswer) -> Result<CallOutcome, BadWord> {
    Ok(match answer.outcome.ok_or(BadWord)? {
        Outcome::Answer(answer) => {
            let status =
                u16::try_from(answer.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
            Ok(NodeAnswer {
                status: status.ok_or(BadWord)?,
                content_type: content_type(answer.content_type)?,
                retry_after: answer.retry_after_s,
                body: answer.body,
            })
        }
        Outcome::Busy(pb::Nothing {}) => Err(CallFailed::Busy),
        Outcome::Unknown(pb::Nothing {}) => Err(CallFailed::Unknown),
    })
}
