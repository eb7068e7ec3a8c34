//! Why connections close: one table of codes, names, advice and labels.

use std::time::Duration;

/// What a device whose connection closed should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: it asked for it.
    None,
    /// Come back within this time, at a moment of its own choosing, with its cursor.
    Reconnect(Duration),
    /// Stay away until something changed: the same again would end the same.
    StayAway,
}

/// Why a connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The device said close.
    DeviceClosed,
    /// The device's socket ended or failed without a close.
    Gone,
    /// It broke RFC 6455: an unmasked frame, a reserved bit, a bad opcode, a bad close.
    ProtocolError,
    /// It sent the other encoding's kind of message, or one that is none of ours.
    Unsupported,
    /// Text that is not UTF-8.
    NotUtf8,
    /// More frames than it may send.
    FrameFlood,
    /// A message past the limit.
    TooBig,
    /// A defect of the engine that cost this connection.
    Internal,
    /// The node is draining.
    Draining,
    /// Silent for 2.5 heartbeats.
    Silent,
    /// Took nothing of what it was owed for too long.
    NoProgress,
    /// Behind for too long.
    Behind,
    /// Its last room was closed.
    RoomClosed,
}

impl CloseReason {
    /// The whole table, in order.
    pub const ALL: [Self; 13] = [
        Self::DeviceClosed,
        Self::Gone,
        Self::ProtocolError,
        Self::Unsupported,
        Self::NotUtf8,
        Self::FrameFlood,
        Self::TooBig,
        Self::Internal,
        Self::Draining,
        Self::Silent,
        Self::NoProgress,
        Self::Behind,
        Self::RoomClosed,
    ];

    /// Its metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        // stand-in
        const NAMES: [&str; 13] = [
            "device_closed",
            "gone",
            "protocol_error",
            "unsupported",
            "not_utf8",
            "frame_flood",
            "too_big",
            "internal",
            "draining",
            "silent",
            "no_progress",
            "behind",
            "room_closed",
        ];
        NAMES[self.index()]
    }

    /// Its place in tables by reason.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
