//! Why connections close: one table of codes, names, advice and labels. The protocol's documentation, the metrics and
//! the log all read it; nothing else names a close code.

use std::time::Duration;

use crate::limits::{RECONNECT_SOON, RECONNECT_WITHIN};

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

/// How loudly a close is logged. Whatever devices can cause in numbers is `Debug`, so that a bad hour of the network
/// does not become a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Part of an ordinary day.
    Debug,
    /// A device that misbehaved: somebody may want to know which program it was.
    Info,
    /// A defect of ours.
    Error,
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
    /// What its welcome said, or could not say, of a room's reliable stream holds no longer.
    StreamChanged,
}

/// One row of the table.
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
    /// The whole table, in order.
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

    /// The table. Codes below 4000 are RFC 6455's and IANA's; those from 4000 on are ours.
    const fn row(self) -> Row {
        use Advice::{Reconnect, StayAway};
        use LogLevel::{Debug, Error, Info};
        const SOON: Advice = Reconnect(RECONNECT_SOON);
        const SPREAD: Advice = Reconnect(RECONNECT_WITHIN);
        match self {
            Self::DeviceClosed => {
                Row::new(1000, "device_closed", Advice::None, Debug, "the device said close")
            }
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

    /// Its place in tables by reason.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The WebSocket close code. `None`: there is nobody left to send one to.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        self.row().code
    }

    /// Its name: the close frame's reason text, and the metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What the device should do.
    #[must_use]
    pub fn advice(self) -> Advice {
        self.row().advice
    }

    /// How loudly it is logged.
    #[must_use]
    pub fn log_level(self) -> LogLevel {
        self.row().log_level
    }

    /// What happened, for a reader: a clause in lower case without a full stop.
    #[must_use]
    pub fn cause(self) -> &'static str {
        self.row().cause
    }

    /// Its row of the table in `docs/protocol.md`: code, name, cause, advice.
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
