//! The paths under `/v1/rooms`. Pure: text goes in, a route comes out. Methods and permissions are the doors'
//! business.

use roomcast_core::limits::INTEGER_MAX;
use roomcast_core::named;
use roomcast_core::room::id::RoomName;

use super::problem::Problem;
use super::request::percent_decoded;

/// The target of a path under `/v1/rooms`, at the publisher door and at the viewer door. Rooms and offsets
/// are as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/v1/rooms`
    Rooms,
    /// `/v1/rooms/{room}`
    Room(&'a str),
    /// `/v1/rooms/{room}/{part}`
    Part(&'a str, Part),
    /// `/v1/rooms/{room}/reliable/{offset}`
    ReliableMessage(&'a str, &'a str),
}

named! {
    /// A part of a room with a path.
    pub(super) enum Part {
        /// Publish.
        Messages = "messages",
        /// Join.
        Ws = "ws",
        /// Read what was sent.
        History = "history",
        /// Read what must arrive.
        Reliable = "reliable",
    }
}

impl<'a> Route<'a> {
    /// The target of `path`. `None`: no door has this path.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/rooms")?;
        if rest.is_empty() {
            return Some(Self::Rooms);
        }
        // At most four parts: the fourth, if there is one, says that the path is too long.
        let mut segments = rest.strip_prefix('/')?.splitn(4, '/');
        let room = segments.next()?;
        let Some(name) = segments.next() else { return Some(Self::Room(room)) };
        let part = Part::ALL.into_iter().find(|part| part.name() == name)?;
        match (part, segments.next(), segments.next()) {
            (part, None, _) => Some(Self::Part(room, part)),
            (Part::Reliable, Some(offset), None) => Some(Self::ReliableMessage(room, offset)),
            _ => None,
        }
    }
}

/// Decodes and checks the room of a path.
///
/// # Errors
/// 400 `bad_room`.
pub(super) fn room_name(typed: &str) -> Result<RoomName, Problem> {
    let bad = |allowed| Problem::bad("bad_room", "room", allowed);
    let name = percent_decoded(typed).ok_or_else(|| bad("percent-encoded UTF-8"))?;
    RoomName::parse(&name).map_err(|error| bad(error.allowed))
}

/// Reads the offset of a path. The first offset of a reliable stream is 1.
///
/// # Errors
/// 400 `bad_offset`.
pub(super) fn offset(typed: &str) -> Result<u64, Problem> {
    // Digits alone: Rust's parser would also take "+1".
    let number = if typed.bytes().all(|byte| byte.is_ascii_digit()) { typed.parse().ok() } else { None };
    number
        .filter(|number| (1..=INTEGER_MAX).contains(number))
        .ok_or_else(|| Problem::bad("bad_offset", "offset", format!("an integer from 1 to {INTEGER_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_rooms_and_their_parts() {
        assert_eq!(Route::of("/v1/rooms"), Some(Route::Rooms));
        assert_eq!(Route::of("/v1/rooms/r1"), Some(Route::Room("r1")));
        assert_eq!(Route::of("/v1/rooms/"), Some(Route::Room("")));
        assert_eq!(Route::of("/v1/rooms/r1/messages"), Some(Route::Part("r1", Part::Messages)));
        assert_eq!(Route::of("/v1/rooms/r1/ws"), Some(Route::Part("r1", Part::Ws)));
        assert_eq!(Route::of("/v1/rooms/r1/history"), Some(Route::Part("r1", Part::History)));
        assert_eq!(Route::of("/v1/rooms/r1/reliable"), Some(Route::Part("r1", Part::Reliable)));
        assert_eq!(Route::of("/v1/rooms/r1/reliable/7"), Some(Route::ReliableMessage("r1", "7")));
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in [
            "/",
            "",
            "/v1",
            "/v1/roomsx",
            "/v1/rooms/r1/",
            "/v1/rooms/r1/chat",
            "/v1/rooms/r1/ws/x",
            "/v2/rooms",
            "/v1/rooms/r1/messages/1",
            "/v1/rooms/r1/reliable/7/8",
        ] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn an_offset_is_an_integer_that_travels() {
        assert_eq!(offset("1").unwrap(), 1);
        assert_eq!(offset("9007199254740991").unwrap(), INTEGER_MAX);
        for bad in ["", "0", "-1", "+1", "1.0", "x", " 1", "%31", "9007199254740992", "99999999999999999999"]
        {
            let problem = offset(bad).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "bad_offset"), "{bad}");
            assert_eq!(problem.named_field(), Some("offset"));
        }
    }

    #[test]
    fn a_room_may_be_percent_encoded_and_keeps_to_its_alphabet() {
        assert_eq!(room_name("live%3A42").unwrap().as_str(), "live:42");
        for bad in ["", "a%2Fb", "%", "%ff", "a%20b"] {
            let problem = room_name(bad).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "bad_room"), "{bad}");
        }
    }
}
