//! The close table: code, name, advice and log level of every reason to close a connection.
//!
//! The protocol's documentation, the metrics and the log read this table. No other file names a close code.

use std::time::Duration;

use crate::limits::{RECONNECT_SOON, RECONNECT_WITHIN};

/// Advice to a device after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// No action: the device asked for the close.
    None,
    /// Come back with the cursor, at a random moment within this time. The random moment spreads the joins
    /// after a mass close.
    Reconnect(Duration),
    /// Stay away until the program or the room has changed: the same connection would be closed again.
    StayAway,
}

/// Log level of a close. A reason with many closes in a bad hour of the network is `Debug`: the log must not
/// fill the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// An ordinary close.
    Debug,
    /// A misbehaving device: an operator may look for the program behind the closes.
    Info,
    /// A defect of the engine.
    Error,
}

/// Reason for the close of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The device sent a close frame.
    DeviceClosed,
    /// The device's socket ended or failed without a close.
    Gone,
    /// The device broke RFC 6455: an unmasked frame, a reserved bit, a bad opcode, a bad close.
    ProtocolError,
    /// The device sent a text message on a binary connection, or the reverse.
    Unsupported,
    /// The device sent text outside UTF-8.
    NotUtf8,
    /// The device sent more frames than [`DEVICE_FRAMES_PER_SECOND`](crate::limits::DEVICE_FRAMES_PER_SECOND)
    /// allows, or asked for more answers than the outbox holds.
    FrameFlood,
    /// The device sent a message above
    /// [`DEVICE_MESSAGE_BYTES_MAX`](crate::limits::DEVICE_MESSAGE_BYTES_MAX).
    TooBig,
    /// A defect of the engine ended the connection.
    Internal,
    /// The node is draining.
    Draining,
    /// The device was silent for 2.5 heartbeats.
    Silent,
    /// The device took nothing for [`PROGRESS_AGE_MAX`](crate::limits::PROGRESS_AGE_MAX), or was owed a frame
    /// for [`OWED_AGE_MAX`](crate::limits::OWED_AGE_MAX).
    NoProgress,
    /// The connection was behind for [`BEHIND_AGE_MAX`](crate::limits::BEHIND_AGE_MAX).
    Behind,
    /// The publisher closed the last room of the connection.
    RoomClosed,
    /// The epoch in the welcome of a room is out of date: the reliable stream became known, or is another.
    StreamChanged,
}

struct Row {
    code: Option<u16>,
    name: &'static str,
    advice: Advice,
    log_level: LogLevel,
    cause: &'static str,
}

impl Row {
    const fn new(
        code: u16,
        name: &'static str,
        advice: Advice,
        log_level: LogLevel,
        cause: &'static str,
    ) -> Self {
        Self { code: Some(code), name, advice, log_level, cause }
    }
}

impl CloseReason {
    /// All reasons, in the order of the table. Invariant: a reason stands at its `index`.
    pub const ALL: [Self; 14] = [
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
        Self::StreamChanged,
    ];

    /// The table. Codes below 4000 are registered (RFC 6455 §7.4, IANA). Codes from 4000 on are private use,
    /// and mean what this table says.
    const fn row(self) -> Row {
        use Advice::{Reconnect, StayAway};
        use LogLevel::{Debug, Error, Info};
        const SOON: Advice = Reconnect(RECONNECT_SOON);
        const SPREAD: Advice = Reconnect(RECONNECT_WITHIN);
        match self {
            Self::DeviceClosed => {
                Row::new(1000, "device_closed", Advice::None, Debug, "the device said close")
            }
            // No `Row::new`: the only reason without a code.
            Self::Gone => Row {
                code: None,
                name: "gone",
                advice: SOON,
                log_level: Debug,
                cause: "the socket ended or failed without a close",
            },
            Self::ProtocolError => {
                Row::new(1002, "protocol_error", StayAway, Info, "a frame that RFC 6455 does not allow")
            }
            Self::Unsupported => Row::new(
                1003,
                "unsupported",
                StayAway,
                Info,
                "text where binary was agreed on, or the reverse",
            ),
            Self::NotUtf8 => Row::new(1007, "not_utf8", StayAway, Info, "text that is not UTF-8"),
            Self::FrameFlood => {
                Row::new(1008, "frame_flood", StayAway, Info, "more frames than a device may send")
            }
            Self::TooBig => {
                Row::new(1009, "too_big", StayAway, Info, "a message larger than a device may send")
            }
            // A defect may end many connections at once, so the reconnects spread as widely as after a drain.
            Self::Internal => {
                Row::new(1011, "internal", SPREAD, Error, "a defect of the engine that cost this connection")
            }
            Self::Draining => Row::new(1012, "draining", SPREAD, Debug, "the node is stopping"),
            Self::Silent => Row::new(4000, "silent", SOON, Debug, "nothing heard for 2.5 heartbeats"),
            Self::NoProgress => {
                Row::new(4001, "no_progress", SOON, Debug, "took nothing of what it was owed for too long")
            }
            Self::Behind => Row::new(4002, "behind", SOON, Debug, "behind for too long"),
            Self::RoomClosed => Row::new(4003, "room_closed", StayAway, Debug, "its last room was closed"),
            Self::StreamChanged => Row::new(
                4004,
                "stream_changed",
                SOON,
                Debug,
                "the room's reliable stream became known, or is another, since the welcome",
            ),
        }
    }

    /// Place of the reason in [`Self::ALL`], for arrays by reason.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// WebSocket close code. `None` for [`Self::Gone`]: no peer is left to receive a close frame.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        self.row().code
    }

    /// Stable name in lower case: the reason text of the close frame, and the label of the metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Advice to the device.
    #[must_use]
    pub fn advice(self) -> Advice {
        self.row().advice
    }

    /// Log level of the close.
    #[must_use]
    pub fn log_level(self) -> LogLevel {
        self.row().log_level
    }

    /// Cause in words: a clause in lower case without a full stop.
    #[must_use]
    pub fn cause(self) -> &'static str {
        self.row().cause
    }

    /// Row of the table in `docs/protocol.md`: code, name, cause, advice.
    #[must_use]
    pub fn markdown_row(self) -> String {
        let code = self.code().map_or_else(|| "–".to_owned(), |code| code.to_string());
        let advice = match self.advice() {
            Advice::None => "nothing".to_owned(),
            Advice::Reconnect(within) => format!("reconnect within {} s", within.as_secs()),
            Advice::StayAway => "stay away".to_owned(),
        };
        format!("| {code} | `{}` | {} | {advice} |", self.name(), self.cause())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_has_its_own_index_code_and_name() {
        let mut codes = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{reason:?}");
            assert!(names.insert(reason.name()), "{reason:?}");
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            match reason.code() {
                Some(code) => assert!(codes.insert(code), "{reason:?}"),
                None => assert_eq!(reason, CloseReason::Gone),
            }
        }
        assert_eq!(names.len(), CloseReason::ALL.len());
    }

    #[test]
    fn codes_are_ones_that_may_be_sent() {
        for code in CloseReason::ALL.into_iter().filter_map(CloseReason::code) {
            assert!(crate::wire::reader::is_close_code(code), "{code}");
        }
    }

    #[test]
    fn only_misbehaviour_and_an_ended_room_keep_a_device_away() {
        for reason in CloseReason::ALL {
            let misbehaved = reason.log_level() == LogLevel::Info;
            let away = reason.advice() == Advice::StayAway;
            assert_eq!(away, misbehaved || reason == CloseReason::RoomClosed, "{reason:?}");
        }
    }

    #[test]
    fn a_row_of_the_documentation_says_all_of_it() {
        assert_eq!(
            CloseReason::Draining.markdown_row(),
            "| 1012 | `draining` | the node is stopping | reconnect within 30 s |"
        );
        assert!(CloseReason::Gone.markdown_row().starts_with("| – | `gone` |"));
    }
}
