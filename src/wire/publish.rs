//! stand-in
use bytes::Bytes;

use crate::room::id::TypeName;
use crate::room::message::{Message, Payload, Types, Verdict};

/// stand-in
#[derive(Debug)]
pub struct PublishError {
    /// stand-in
    pub status: u16,
    /// stand-in
    pub code: &'static str,
    /// stand-in
    pub field: Option<String>,
    /// stand-in
    pub allowed: String,
}

/// stand-in
///
/// # Errors
/// stand-in
pub fn parse_json(request: &[u8], types: &Types) -> Result<Vec<Message>, PublishError> {
    #[derive(serde::Deserialize)]
    struct One<'a> {
        r#type: &'a str,
        payload: &'a serde_json::value::RawValue,
    }
    let bad = |code| PublishError { status: 400, code, field: None, allowed: "stand-in".to_owned() };
    let one: One<'_> = serde_json::from_slice(request).map_err(|_| bad("bad_json"))?;
    let type_name = TypeName::parse(one.r#type).map_err(|_| bad("bad_type"))?;
    let policy = types.policy(&type_name);
    Ok(vec![Message {
        type_name,
        class: policy.class,
        urgent: policy.urgent,
        key: None,
        id: None,
        payload: Payload::Json(Bytes::copy_from_slice(one.payload.get().as_bytes())),
        count: 1,
        at_ms: 0,
    }])
}

/// stand-in
///
/// # Errors
/// stand-in
pub fn parse_proto(_request: &[u8], _types: &Types) -> Result<Vec<Message>, PublishError> {
    Err(PublishError { status: 400, code: "bad_proto", field: None, allowed: "stand-in".to_owned() })
}

/// stand-in
#[must_use]
pub fn answer_json(verdicts: &[Verdict]) -> Vec<u8> {
    let results: Vec<String> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Shed(reason) => format!(r#"{{"result":"shed","reason":"{}"}}"#, reason.name()),
            Verdict::Accepted | Verdict::Merged | Verdict::Durable { .. } | Verdict::Duplicate { .. } => {
                r#"{"result":"accepted"}"#.to_owned()
            }
        })
        .collect();
    format!(r#"{{"results":[{}]}}"#, results.join(",")).into_bytes()
}

/// stand-in
#[must_use]
pub fn answer_proto(verdicts: &[Verdict]) -> Vec<u8> {
    vec![0; verdicts.len()]
}
