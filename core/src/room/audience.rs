//! The engine's own message: how many members a room has, at most once a second, when it changed.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::id::{Key, TypeName};
use super::message::{Class, Message, Payload};
use super::policy::TypePolicy;
use crate::limits::AUDIENCE_INTERVAL;

/// The type under which the engine publishes the audience.
pub const ONLINE: &str = "online";

/// What devices have been told of a room's audience, and when they hear next.
#[derive(Debug, Default)]
pub struct Audience {
    told: u64,
    due: Option<Instant>,
}

impl Audience {
    /// The room has `members` now. The first change sets the moment; later ones join it.
    pub fn changed(&mut self, members: u64, now: Instant) {
        if members == self.told {
            self.due = None;
        } else {
            self.due.get_or_insert(now + AUDIENCE_INTERVAL);
        }
    }

    /// When devices are to hear; `None` when they know.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The message that tells them.
    pub fn tell(&mut self, members: u64) -> Message {
        (self.told, self.due) = (members, None);
        let count = Bytes::from(members.to_string());
        Message {
            type_name: TypeName::parse(ONLINE).expect("a constant"),
            policy: TypePolicy::of(Class::Latest),
            key: Some(Key::parse(ONLINE).expect("a constant")),
            id: None,
            // Type, key, time and braces around at most 16 digits: 96 bytes hold them in either encoding.
            wire_bytes: 96,
            payload: Payload::Json(count),
            count: 1,
            ttl: Duration::ZERO,
            offset: 0,
            recall: 0,
            at_ms: 0,
        }
    }
}
