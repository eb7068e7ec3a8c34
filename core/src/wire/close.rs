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

named! {
    /// Reason for the close of a connection. The name is the reason text of the close frame, and the label of
    /// the metric.
    pub enum CloseReason {
        /// The device sent a close frame.
        DeviceClosed = "device_closed",
        /// The device's socket ended or failed without a close.
        Gone = "gone",
        /// The device broke RFC 6455: an unmasked frame, a reserved bit, a bad opcode, a bad close.
        ProtocolError = "protocol_error",
        /// The device sent a text message on a binary connection, or the reverse.
        Unsupported = "unsupported",
        /// The device sent text outside UTF-8.
        NotUtf8 = "not_utf8",
        /// The device sent more frames than
        /// [`DEVICE_FRAMES_PER_SECOND`](crate::limits::DEVICE_FRAMES_PER_SECOND) allows, or asked for more
        /// answers than the outbox holds.
        FrameFlood = "frame_flood",
        /// The device sent a message above
        /// [`DEVICE_MESSAGE_BYTES_MAX`](crate::limits::DEVICE_MESSAGE_BYTES_MAX).
        TooBig = "too_big",
        /// A defect of the engine ended the connection.
        Internal = "internal",
        /// The node is draining.
        Draining = "draining",
        /// The device was silent for 2.5 heartbeats.
        Silent = "silent",
        /// The device took nothing for [`PROGRESS_AGE_MAX`](crate::limits::PROGRESS_AGE_MAX), or was owed a
        /// frame for [`OWED_AGE_MAX`](crate::limits::OWED_AGE_MAX).
        NoProgress = "no_progress",
        /// The connection was behind for [`BEHIND_AGE_MAX`](crate::limits::BEHIND_AGE_MAX).
        Behind = "behind",
        /// The publisher closed the last room of the connection.
        RoomClosed = "room_closed",
        /// The epoch in the welcome of a room is out of date: the reliable stream became known, or is
        /// another.
        StreamChanged = "stream_changed",
        /// The node's places are all taken, and the address of the device holds more than another one that
        /// misses a place.
        Crowded = "crowded",
        /// Another node holds the room, and this node is short of places. The reason text of the close frame
        /// is the URL of that node.
        Elsewhere = "elsewhere",
        /// The device's token ended, and the device sent no fresh one.
        TokenExpired = "token_expired",
    }
}

/// A row of the table.
struct Row {
    code: Option<u16>,
    advice: Advice,
    log_level: LogLevel,
    cause: &'static str,
}

impl Row {
    const fn new(code: Option<u16>, advice: Advice, log_level: LogLevel, cause: &'static str) -> Self {
        Self { code, advice, log_level, cause }
    }
}

impl CloseReason {
    /// The table. Codes below 4000 are registered (RFC 6455 §7.4, IANA). Codes from 4000 on are private use,
    /// and mean what this table says.
    const fn row(self) -> Row {
        use Advice::{Reconnect, StayAway};
        use LogLevel::{Debug, Error, Info};
        const SOON: Advice = Reconnect(RECONNECT_SOON);
        const SPREAD: Advice = Reconnect(RECONNECT_WITHIN);
        match self {
            Self::DeviceClosed => Row::new(Some(1000), Advice::None, Debug, "the device said close"),
            Self::Gone => Row::new(None, SOON, Debug, "the socket ended or failed without a close"),
            Self::ProtocolError => {
                Row::new(Some(1002), StayAway, Info, "a frame that RFC 6455 does not allow")
            }
            Self::Unsupported => {
                Row::new(Some(1003), StayAway, Info, "text where binary was agreed on, or the reverse")
            }
            Self::NotUtf8 => Row::new(Some(1007), StayAway, Info, "text that is not UTF-8"),
            Self::FrameFlood => Row::new(Some(1008), StayAway, Info, "more frames than a device may send"),
            Self::TooBig => Row::new(Some(1009), StayAway, Info, "a message larger than a device may send"),
            // A defect may end many connections at once, so the reconnects spread as widely as after a drain.
            Self::Internal => {
                Row::new(Some(1011), SPREAD, Error, "a defect of the engine that cost this connection")
            }
            Self::Draining => Row::new(Some(1012), SPREAD, Debug, "the node is stopping"),
            Self::Silent => Row::new(Some(4000), SOON, Debug, "nothing heard for 2.5 heartbeats"),
            Self::NoProgress => {
                Row::new(Some(4001), SOON, Debug, "took nothing of what it was owed for too long")
            }
            Self::Behind => Row::new(Some(4002), SOON, Debug, "behind for too long"),
            Self::RoomClosed => Row::new(Some(4003), StayAway, Debug, "its last room was closed"),
            Self::StreamChanged => {
                let cause = "the room's reliable stream became known, or is another, since the welcome";
                Row::new(Some(4004), SOON, Debug, cause)
            }
            Self::Elsewhere => {
                let cause = "another node holds its room, and this one is short of places; the reason is that \
                             node's URL";
                Row::new(Some(4005), SOON, Debug, cause)
            }
            Self::TokenExpired => Row::new(
                Some(4006),
                SOON,
                Debug,
                "its token ended, and it sent no fresh one; it needs one to come back",
            ),
            Self::Crowded => {
                let cause = "the node is full, and the device's address holds most places";
                Row::new(Some(1013), SPREAD, Debug, cause)
            }
        }
    }

    /// WebSocket close code. `None` for [`Self::Gone`]: no peer is left to receive a close frame.
    pub fn code(self) -> Option<u16> {
        self.row().code
    }

    /// Log level of the close.
    pub fn log_level(self) -> LogLevel {
        self.row().log_level
    }

    /// Row of the table in `docs/protocol.md`: code, name, cause, advice.
    pub fn markdown_row(self) -> String {
        let code = self.code().map_or_else(|| "–".to_owned(), |code| code.to_string());
        let advice = match self.row().advice {
            Advice::None => "nothing".to_owned(),
            Advice::Reconnect(within) => format!("reconnect within {} s", within.as_secs()),
            Advice::StayAway => "stay away".to_owned(),
        };
        format!("| {code} | `{}` | {} | {advice} |", self.name(), self.row().cause)
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
            assert_eq!(reason as usize, index, "{reason:?}");
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
            let away = reason.row().advice == Advice::StayAway;
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
