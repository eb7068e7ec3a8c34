//! The audience of a room, and the engine's own message to devices: the number of members, at most once a
//! second, after a change.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::id::{Key, TypeName};
use super::message::{Class, Message, Payload};
use super::policy::TypePolicy;
use crate::limits::AUDIENCE_INTERVAL;

/// The type and key under which the engine publishes the audience.
pub const ONLINE: &str = "online";

/// The number of members last told to devices, and the moment of the next message.
#[derive(Debug, Default)]
pub struct Audience {
    told: u64,
    /// `None` while devices know the present number.
    pub(super) due: Option<Instant>,
    /// The audience expected by the publisher.
    pub(super) expected: Option<u64>,
}

impl Audience {
    /// Notes the number of members. The first change sets the moment of the message, and later changes join
    /// in.
    pub(super) fn changed(&mut self, members: u64, now: Instant) {
        if members == self.told {
            self.due = None;
        } else {
            self.due.get_or_insert(now + AUDIENCE_INTERVAL);
        }
    }

    /// Devices will hear this number: the room has accepted the message.
    pub(super) fn told(&mut self, members: u64) {
        self.told = members;
        self.due = None;
    }

    /// The room has shed the message. Devices still know the earlier number, so the next message is due after
    /// a pause.
    pub(super) fn shed(&mut self, now: Instant) {
        self.due = Some(now + AUDIENCE_INTERVAL);
    }

    /// The engine's message about the number of members.
    pub fn message(members: u64) -> Message {
        let type_name = TypeName::parse(ONLINE).expect("a constant");
        let payload = Payload::Json(Bytes::from(members.to_string()));
        Message {
            key: Some(Key::parse(ONLINE).expect("a constant")),
            // Type, key, time and braces around at most 16 digits: 96 bytes hold them in either encoding.
            wire_bytes: 96,
            ttl: Duration::ZERO,
            ..Message::new(type_name, TypePolicy::of(Class::Latest), payload)
        }
    }
}
