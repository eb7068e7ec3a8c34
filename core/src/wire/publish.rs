//! Publish requests and their answers: bytes of a request in, checked messages out, verdicts back into bytes.
//!
//! Pure. One pass reads the request. The bytes of a payload are checked once as one JSON value, and then
//! copied unread. The first mistake ends the reading and names the field: nothing of the request is accepted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes};
use prost::Message as _;

use crate::limits::{
    COUNT_MAX, LATEST_PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, REQUEST_MESSAGES_MAX,
    RETRY_AFTER, TTL_MAX, TTL_MIN,
};
use crate::now::millis;
use crate::room::audience::ONLINE;
use crate::room::id::{Key, MessageId, TypeName};
use crate::room::message::{Class, Message, Payload, Verdict};
use crate::room::policy::{TypePolicy, Types};

use super::ijson;
use crate::proto;

mod json;

pub use self::json::parse as parse_json;

/// First mistake of a publish request; the whole request is refused. The fields are those of the problem
/// response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {code}: {allowed}")]
pub struct PublishError {
    /// HTTP status: 400 or 413.
    pub status: u16,
    /// Stable code, for programs: `bad_json`, `bad_proto`, `unknown_field`, `missing_field`, `bad_value`,
    /// `payload_not_json`, `payload_too_large` or `latest_payload_too_large`.
    pub code: &'static str,
    /// Path of the field: `messages[3].key`, or `key` in a request of a single message. `None`: the whole
    /// request.
    pub field: Option<String>,
    /// Allowed values of the field, in words for people.
    pub allowed: String,
    /// Place and reason of the mistake, in words for people.
    pub detail: Option<String>,
}

/// Reads a request in protobuf, a `PublishRequest`, by the rules of [`parse_json`].
///
/// # Errors
/// [`PublishError`] for the first mistake.
pub fn parse_proto(body: &[u8], types: &Types) -> Result<Vec<Message>, PublishError> {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
    let mut request = Request::new(types);
    let mut rest = body;
    // Message by message: an empty message takes two bytes, so 1 MiB decoded at once would unfold into half a
    // million.
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(|_| request.bad_proto())?;
        // An unknown field of a later version is passed over, as proto3 does.
        if tag != MESSAGES_TAG || wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())
                .map_err(|_| request.bad_proto())?;
            continue;
        }
        request.begin_message()?;
        let bytes = decode_varint(&mut rest).ok().and_then(|n| usize::try_from(n).ok());
        let message = bytes.and_then(|n| rest.get(..n)).ok_or_else(|| request.bad_proto())?;
        rest.advance(message.len());
        let message = proto::PublishMessage::decode(message).map_err(|_| request.bad_proto())?;
        request.take(&MessageDraft {
            type_name: Some(message.r#type.as_str().into()),
            // proto3 can't tell an empty payload from an absent one.
            payload: match (message.json, message.payload.is_empty()) {
                (false, true) => Given::Nothing,
                (false, false) => Given::Opaque(&message.payload),
                (true, _) => Given::Unchecked(&message.payload),
            },
            id: Some(&*message.id).filter(|id| !id.is_empty()).map(Cow::from),
            key: Some(&*message.key).filter(|key| !key.is_empty()).map(Cow::from),
            count: message.count,
            ttl_ms: message.ttl_ms,
        })?;
    }
    request.end()
}

named! {
    enum Field {
        Messages = "messages",
        Type = "type",
        Payload = "payload",
        PayloadB64 = "payload_b64",
        Id = "id",
        Key = "key",
        Count = "count",
        TtlMs = "ttl_ms",
    }
}

impl Field {
    fn allowed(self) -> String {
        match self {
            Self::Messages => format!("an array of 1 to {REQUEST_MESSAGES_MAX} messages"),
            Self::Type => "a string: 1 to 64 characters of a-z 0-9 _ . -".to_owned(),
            Self::Payload => {
                format!("exactly one I-JSON value (RFC 7493), nested at most {PAYLOAD_DEPTH_MAX} deep")
            }
            Self::PayloadB64 => {
                "a string: bytes in standard base64 with padding, instead of payload".to_owned()
            }
            Self::Id => "a string: 1 to 64 bytes of text without control characters".to_owned(),
            Self::Key => "a string: 1 to 128 bytes of text without control characters".to_owned(),
            Self::Count => {
                format!(
                    "an integer from 1 to {COUNT_MAX}, for counters and types whose counts are summed only"
                )
            }
            Self::TtlMs => {
                let least = TTL_MIN.as_millis();
                let most = TTL_MAX.as_millis();
                format!("an integer from {least} to {most}, for reliable, normal and lossy messages only")
            }
        }
    }
}

/// A message before its checks, as the publisher spelt it. Strings are borrowed from the request, unless they
/// have escapes.
#[derive(Debug, Default)]
struct MessageDraft<'a> {
    type_name: Option<Cow<'a, str>>,
    payload: Given<'a>,
    id: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
    count: Option<u64>,
    ttl_ms: Option<u64>,
}

/// A payload before its checks, as the publisher spelt it.
#[derive(Debug, Default)]
enum Given<'a> {
    #[default]
    Nothing,
    /// Read by serde as a part of the request.
    Json(&'a [u8]),
    /// Marked JSON by the publisher and not yet checked.
    Unchecked(&'a [u8]),
    Base64(Cow<'a, str>),
    Opaque(&'a [u8]),
}

/// A request under way: the messages so far, and the place of the reading.
struct Request<'t> {
    types: &'t Types,
    messages: Vec<Message>,
    /// Last type without configuration. Such messages come in rows, and a row shares one allocated name.
    unconfigured: Option<TypeName>,
    /// Place of the message in the list. `None` for a single message: the path of a field has no prefix then.
    index: Option<usize>,
    /// Field under way, to blame for an error of serde.
    field: Option<Field>,
}

impl<'t> Request<'t> {
    fn new(types: &'t Types) -> Self {
        Self { types, messages: Vec::new(), unconfigured: None, index: None, field: None }
    }

    /// Moves to the next message of the list, and refuses a list above [`REQUEST_MESSAGES_MAX`].
    fn begin_message(&mut self) -> Result<(), PublishError> {
        if self.messages.len() == REQUEST_MESSAGES_MAX {
            // The mistake is in the list, so the path is `messages`, without the index of a message.
            self.index = None;
            return Err(self.bad_value(Field::Messages));
        }
        self.index = Some(self.messages.len());
        self.field = None;
        Ok(())
    }

    /// Ends the reading. An empty list is refused.
    fn end(mut self) -> Result<Vec<Message>, PublishError> {
        if self.messages.is_empty() {
            self.index = None;
            return Err(self.bad_value(Field::Messages));
        }
        Ok(self.messages)
    }

    /// Checks a message and adds it to the request.
    fn take(&mut self, draft: &MessageDraft<'_>) -> Result<(), PublishError> {
        let (type_name, policy) = self.type_of(draft)?;
        let payload = self.payload_of(draft, policy.class)?;
        let id = draft.id.as_deref().map(MessageId::parse).transpose();
        let id = id.map_err(|_| self.bad_value(Field::Id))?;
        let key = match draft.key.as_deref() {
            Some(key) => Some(Key::parse(key).map_err(|_| self.bad_value(Field::Key))?),
            // Design §9: a latest message without a key has the type as key. Every type name is a valid key.
            None if policy.class == Class::Latest => Key::parse(type_name.as_str()).ok(),
            None => None,
        };
        let count = match draft.count {
            Some(count) if policy.takes_count() && (1..=COUNT_MAX).contains(&count) => count,
            Some(_) => return Err(self.bad_value(Field::Count)),
            None => 1,
        };
        let ttl = match draft.ttl_ms.map(Duration::from_millis) {
            Some(ttl) if policy.takes_ttl() && (TTL_MIN..=TTL_MAX).contains(&ttl) => ttl,
            Some(_) => return Err(self.bad_value(Field::TtlMs)),
            None => policy.ttl,
        };
        // A publisher's number would stand in the place of the engine's, and be replaced within a second.
        if type_name.as_str() == ONLINE {
            let allowed = format!("a type other than {ONLINE}, which the engine publishes by itself");
            return Err(self.refusal(400, "bad_value", Some(Field::Type), allowed));
        }
        let mut message = Message { key, id, count, ttl, ..Message::new(type_name, policy, payload) };
        // Sized here, off the home's shard: every byte bound downstream counts `wire_bytes`.
        message.wire_bytes = super::frame::message_bytes(&message);
        self.messages.push(message);
        Ok(())
    }

    /// Name and policy of the type. The name of a configured type is shared, never allocated.
    fn type_of(&mut self, draft: &MessageDraft<'_>) -> Result<(TypeName, TypePolicy), PublishError> {
        // proto3 spells an absent type as an empty string.
        let Some(given) = draft.type_name.as_deref().filter(|given| !given.is_empty()) else {
            return Err(self.refusal(400, "missing_field", Some(Field::Type), Field::Type.allowed()));
        };
        if let Some((type_name, policy)) = self.types.configured(given) {
            return Ok((type_name.clone(), policy));
        }
        let type_name = match &self.unconfigured {
            Some(last) if last.as_str() == given => last.clone(),
            _ => TypeName::parse(given).map_err(|_| self.bad_value(Field::Type))?,
        };
        let policy = self.types.policy(&type_name);
        // Kept for the next message: 1 000 messages of one such type allocate the name once.
        self.unconfigured = Some(type_name.clone());
        Ok((type_name, policy))
    }

    /// Payload in memory apart from the request: a message in the history must not keep a request of 1 MiB
    /// alive. A counter may have no payload.
    fn payload_of(&self, draft: &MessageDraft<'_>, class: Class) -> Result<Payload, PublishError> {
        match &draft.payload {
            Given::Json(text) => self.json_payload(text, class),
            Given::Unchecked(text) if !text.is_empty() => self.json_payload(text, class),
            Given::Opaque(bytes) => {
                self.check_size(bytes.len(), Field::Payload, class)?;
                Ok(Payload::Opaque(Bytes::copy_from_slice(bytes)))
            }
            Given::Base64(text) if !text.is_empty() => {
                // The estimate spares the decoding of an oversized text. Padding makes up to two bytes of
                // difference, so the exact check follows.
                self.check_size((text.len() / 4 * 3).saturating_sub(2), Field::PayloadB64, class)?;
                let bytes = BASE64.decode(text.as_bytes()).map_err(|_| self.bad_value(Field::PayloadB64))?;
                self.check_size(bytes.len(), Field::PayloadB64, class)?;
                Ok(Payload::Opaque(bytes.into_boxed_slice().into()))
            }
            Given::Nothing | Given::Base64(_) | Given::Unchecked(_) => {
                // A like needs no payload: the count is the message.
                if class == Class::Counter {
                    return Ok(Payload::Opaque(Bytes::new()));
                }
                let allowed =
                    "a payload, or payload_b64, of at least one byte; only counters go without".to_owned();
                Err(self.refusal(400, "missing_field", Some(Field::Payload), allowed))
            }
        }
    }

    fn json_payload(&self, text: &[u8], class: Class) -> Result<Payload, PublishError> {
        // The size first: a payload above the limit costs no parsing.
        self.check_size(text.len(), Field::Payload, class)?;
        // Serde takes more than some client languages do, and one bad payload costs a device the whole frame.
        ijson::check(text).map_err(|fault| self.not_json(format!("{fault}")))?;
        Ok(Payload::Json(Bytes::copy_from_slice(text)))
    }

    fn check_size(&self, payload_bytes: usize, field: Field, class: Class) -> Result<(), PublishError> {
        // 413 above the bound of every class, 400 for a payload that another class would take.
        if payload_bytes > PAYLOAD_BYTES_MAX {
            let allowed = format!("at most {PAYLOAD_BYTES_MAX} bytes");
            return Err(self.refusal(413, "payload_too_large", Some(field), allowed));
        }
        if class == Class::Latest && payload_bytes > LATEST_PAYLOAD_BYTES_MAX {
            let allowed = format!("at most {LATEST_PAYLOAD_BYTES_MAX} bytes where the class is latest");
            return Err(self.refusal(400, "latest_payload_too_large", Some(field), allowed));
        }
        Ok(())
    }

    /// Refuses a payload. `detail` has the place and the reason.
    fn not_json(&self, detail: String) -> PublishError {
        let refusal = self.refusal(400, "payload_not_json", Some(Field::Payload), Field::Payload.allowed());
        PublishError { detail: Some(detail), ..refusal }
    }

    fn bad_value(&self, field: Field) -> PublishError {
        self.refusal(400, "bad_value", Some(field), field.allowed())
    }

    fn bad_proto(&self) -> PublishError {
        let allowed = "a roomcast.v1.PublishRequest, as in proto/room.proto".to_owned();
        self.refusal(400, "bad_proto", None, allowed)
    }

    fn refusal(
        &self,
        status: u16,
        code: &'static str,
        field: Option<Field>,
        allowed: String,
    ) -> PublishError {
        PublishError { status, code, field: self.path(field.map(Field::name)), allowed, detail: None }
    }

    /// Path of a field of the message under way.
    fn path(&self, name: Option<&str>) -> Option<String> {
        match (self.index, name) {
            (Some(index), Some(name)) => Some(format!("messages[{index}].{name}")),
            (Some(index), None) => Some(format!("messages[{index}]")),
            (None, name) => name.map(str::to_owned),
        }
    }
}

/// Answer to a taken request in JSON: `{"results":[…]}`, one result per message, in order.
pub fn answer_json(verdicts: &[Verdict]) -> Vec<u8> {
    let results: Vec<MessageResult> = verdicts.iter().copied().map(result_of).collect();
    serde_json::to_vec(&BTreeMap::from([("results", results)])).expect("memory takes every write")
}

/// Answer to a taken request in protobuf: a `PublishAnswer`, with the results of [`answer_json`].
pub fn answer_proto(verdicts: &[Verdict]) -> Vec<u8> {
    let results = verdicts.iter().map(|verdict| {
        let result = result_of(*verdict);
        proto::PublishResult {
            result: result.result.to_owned(),
            offset: result.offset.unwrap_or_default(),
            reason: result.reason.unwrap_or_default().to_owned(),
            retry_after_ms: result.retry_after_ms.unwrap_or_default(),
        }
    });
    proto::PublishAnswer { results: results.collect() }.encode_to_vec()
}

#[derive(serde::Serialize)]
struct MessageResult {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

fn result_of(verdict: Verdict) -> MessageResult {
    let plain = |result| MessageResult { result, offset: None, reason: None, retry_after_ms: None };
    match verdict {
        Verdict::Accepted => plain("accepted"),
        // The total stops at 2^53 − 1: the publisher learns that the count was not added whole.
        Verdict::Saturated => MessageResult { reason: Some("count_saturated"), ..plain("accepted") },
        Verdict::Durable { offset } => MessageResult { offset: Some(offset), ..plain("durable") },
        Verdict::Merged => plain("merged"),
        Verdict::Duplicate { offset } => MessageResult { offset, ..plain("duplicate") },
        Verdict::Shed(reason) => MessageResult {
            reason: Some(reason.name()),
            // No hint where waiting does not help: a full table of types stays full.
            retry_after_ms: reason.passes().then(|| millis(RETRY_AFTER)),
            ..plain("shed")
        },
        Verdict::Unavailable(reason) => MessageResult {
            reason: Some(reason.name()),
            retry_after_ms: Some(millis(RETRY_AFTER)),
            ..plain("unavailable")
        },
    }
}

/// Field number of `PublishRequest.messages`.
const MESSAGES_TAG: u32 = 1;

#[cfg(test)]
mod tests;
