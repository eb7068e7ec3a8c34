//! When a room flushes. One type owns the window; whatever wants to change it passes bounds to it.

use std::time::Duration;

/// The flush policy of a room, as configured (`flush.*`) and overridden by `PUT /v1/rooms/{room}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushRules {
    /// How long the oldest message waits for company.
    pub gather: Duration,
    /// Messages of one batch.
    pub messages_max: usize,
    /// Bytes of one batch, as encoded.
    pub bytes_max: usize,
    /// Up to this many members a room flushes at once.
    pub direct_members: u64,
    /// Early flushes for urgent messages are at least this far apart.
    pub urgent_spacing: Duration,
}

impl Default for FlushRules {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(100),
            messages_max: 100,
            bytes_max: 32 * 1024,
            direct_members: 20,
            urgent_spacing: Duration::from_millis(20),
        }
    }
}

/// What `PUT /v1/rooms/{room}` may change. `None` leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomSettings {
    /// How many devices the publisher expects.
    pub expected_audience: Option<u64>,
    /// How long the oldest message waits for company.
    pub gather: Option<Duration>,
    /// Messages of one batch.
    pub messages_max: Option<usize>,
    /// Bytes of one batch.
    pub bytes_max: Option<usize>,
    /// Up to this many members the room flushes at once.
    pub direct_members: Option<u64>,
    /// Early flushes for urgent messages are at least this far apart.
    pub urgent_spacing: Option<Duration>,
    /// The room closes after this long without a published message.
    pub idle_close: Option<Duration>,
}
