//! Publish requests in JSON: one walk of serde, without a buffer for the request.
//!
//! Each visitor notes the field under way, so that every mistake has a path.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::room::message::Message;
use crate::room::policy::Types;

use super::{Field, Given, MessageDraft, PublishError, Request};

/// Reads a request in JSON: one message object, or `{"messages":[…]}` with 1 to
/// [`REQUEST_MESSAGES_MAX`](crate::limits::REQUEST_MESSAGES_MAX).
///
/// The caller bounds `body` by [`REQUEST_BYTES_MAX`](crate::limits::REQUEST_BYTES_MAX). The messages have
/// `at_ms` 0 until their home accepts them.
///
/// # Errors
/// [`PublishError`] for the first mistake.
pub fn parse(body: &[u8], types: &Types) -> Result<Vec<Message>, PublishError> {
    let mut reading = RequestReading { request: Request::new(types), refusal: None };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let top = RequestObject { reading: &mut reading, is_top: true };
    let outcome = top.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match outcome {
        Ok(()) => reading.request.end(),
        Err(error) => Err(reading.blame(&error)),
    }
}

struct RequestReading<'t> {
    request: Request<'t>,
    /// Mistake found by this file. An error of serde is a text alone, so the parts wait here.
    refusal: Option<PublishError>,
}

impl RequestReading<'_> {
    /// Keeps the refusal, and returns an error to stop serde.
    fn refuse<E: serde::de::Error>(&mut self, refusal: PublishError) -> E {
        self.refusal = Some(refusal);
        // The text is never shown: `blame` takes the refusal first.
        E::custom("refused")
    }

    /// Turns an error of serde into a refusal with a code and a path.
    fn blame(&mut self, error: &serde_json::Error) -> PublishError {
        if let Some(refusal) = self.refusal.take() {
            return refusal;
        }
        match self.request.field {
            // serde checks a payload while taking it as raw text. The place is one of the whole request.
            Some(Field::Payload) => self.request.not_json(format!("in the request: {error}")),
            Some(field) if error.is_data() => self.request.bad_value(field),
            None if error.is_data() => {
                self.request.refusal(400, "bad_value", None, OBJECT_ALLOWED.to_owned())
            }
            // Broken syntax: serde's text with line and column helps more than the rules of a field.
            field => self.request.refusal(400, "bad_json", field, format!("one JSON object: {error}")),
        }
    }

    /// Refuses an unknown field. The path gives back at most [`FIELD_NAME_CHARS_SHOWN`] characters of its
    /// name.
    fn unknown<E: serde::de::Error>(&mut self, name: &str) -> E {
        let shown: String = name.chars().take(FIELD_NAME_CHARS_SHOWN).collect();
        let field = self.request.path(Some(&shown));
        let allowed = FIELDS_ALLOWED.to_owned();
        self.refuse(PublishError { status: 400, code: "unknown_field", field, allowed, detail: None })
    }
}

/// An object of a request: a message, or `{"messages":[…]}` at the top.
struct RequestObject<'r, 't> {
    reading: &'r mut RequestReading<'t>,
    is_top: bool,
}

impl<'de> DeserializeSeed<'de> for RequestObject<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Before the message is read: a list above the limit costs no further parsing.
        if !self.is_top {
            self.reading.request.begin_message().map_err(|refusal| self.reading.refuse(refusal))?;
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RequestObject<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(OBJECT_ALLOWED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { reading, is_top } = self;
        let mut spelt = Spelt::default();
        let mut is_list = false;
        while let Some(name) = map.next_key::<FieldName<'de>>()? {
            match name {
                // The list stands alone: fields beside the list would belong to no message.
                FieldName::Known(Field::Messages) if is_top && !is_list && spelt.seen == 0 => {
                    is_list = true;
                    reading.request.field = Some(Field::Messages);
                    map.next_value_seed(List(reading))?;
                    // A mistake behind the list belongs to no message.
                    reading.request.index = None;
                    reading.request.field = None;
                }
                FieldName::Known(field) if !is_list && field != Field::Messages => {
                    spelt.read(field, &mut map, reading)?;
                }
                FieldName::Known(field) => return Err(reading.unknown(field.name())),
                FieldName::Unknown(name) => return Err(reading.unknown(&name)),
            }
        }
        if is_list { Ok(()) } else { spelt.take(reading) }
    }
}

struct List<'r, 't>(&'r mut RequestReading<'t>);

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(()) = list.next_element_seed(RequestObject { reading: self.0, is_top: false })? {}
        Ok(())
    }
}

/// A message under way.
#[derive(Default)]
struct Spelt<'a> {
    /// One bit for each field read so far.
    seen: u8,
    draft: MessageDraft<'a>,
}

impl<'a> Spelt<'a> {
    fn read<A: MapAccess<'a>>(
        &mut self,
        field: Field,
        map: &mut A,
        reading: &mut RequestReading<'_>,
    ) -> Result<(), A::Error> {
        reading.request.field = Some(field);
        let bit = 1 << field as u8;
        // Readers disagree on the winner of a repeated name (RFC 7493 §2.3 forbids repetition).
        if self.seen & bit != 0 {
            let refusal =
                reading.request.refusal(400, "bad_value", Some(field), "each field at most once".to_owned());
            return Err(reading.refuse(refusal));
        }
        self.seen |= bit;
        match field {
            Field::Type => self.draft.type_name = Some(map.next_value::<Text<'a>>()?.0),
            // Not an `Option`: JSON `null` is a payload like any other.
            Field::Payload => {
                self.draft.payload = Given::Json(map.next_value::<&RawValue>()?.get().as_bytes());
            }
            Field::PayloadB64 => self.draft.payload = Given::Base64(map.next_value::<Text<'a>>()?.0),
            // `Option`s: `null` counts as left out.
            Field::Id => self.draft.id = map.next_value::<Option<Text<'a>>>()?.map(|text| text.0),
            Field::Key => self.draft.key = map.next_value::<Option<Text<'a>>>()?.map(|text| text.0),
            Field::Count => self.draft.count = map.next_value()?,
            Field::TtlMs => self.draft.ttl_ms = map.next_value()?,
            // A message has no list inside.
            Field::Messages => return Err(reading.unknown(field.name())),
        }
        // Between two fields, a mistake belongs to the message as a whole.
        reading.request.field = None;
        Ok(())
    }

    fn take<E: serde::de::Error>(&self, reading: &mut RequestReading<'_>) -> Result<(), E> {
        // Two payloads for one message.
        if self.seen & TWO_PAYLOADS == TWO_PAYLOADS {
            let refusal = reading.request.bad_value(Field::PayloadB64);
            return Err(reading.refuse(refusal));
        }
        reading.request.take(&self.draft).map_err(|refusal| reading.refuse(refusal))
    }
}

/// A string of the request: borrowed, or copied if the text has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

enum FieldName<'a> {
    Known(Field),
    Unknown(Cow<'a, str>),
}

impl<'de> Deserialize<'de> for FieldName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(name) = Text::deserialize(deserializer)?;
        let known = Field::ALL.into_iter().find(|field| field.name() == name);
        Ok(known.map_or(FieldName::Unknown(name), FieldName::Known))
    }
}

const TWO_PAYLOADS: u8 = 1 << Field::Payload as u8 | 1 << Field::PayloadB64 as u8;
const OBJECT_ALLOWED: &str = "an object: a message, or {\"messages\":[…]} at the top";
const FIELDS_ALLOWED: &str =
    "type, payload or payload_b64, id, key, count and ttl_ms; or messages alone at the top";
/// Characters of an unknown field's name in an answer. A hostile name would fill the answer otherwise.
const FIELD_NAME_CHARS_SHOWN: usize = 64;
