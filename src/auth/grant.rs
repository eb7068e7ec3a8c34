//! The rooms that one device may join.

use std::sync::Arc;

use roomcast_core::room::id::RoomName;

/// The rooms that a device may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Every room: the viewer door has no keys.
    Any,
    /// The rooms of the device's token. Each entry is a whole name, or a prefix followed by `*`.
    Rooms(Arc<[String]>),
}

impl Grant {
    /// True if the device may join `room`.
    #[must_use]
    pub fn covers(&self, room: &RoomName) -> bool {
        match self {
            Self::Any => true,
            Self::Rooms(patterns) => patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => room.as_str().starts_with(prefix),
                None => room.as_str() == pattern,
            }),
        }
    }
}
