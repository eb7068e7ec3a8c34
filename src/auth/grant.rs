//! The content of a device's token: the rooms that the device may join, and the end of the token.

use std::fmt;
use std::sync::Arc;

use roomcast_core::room::id::RoomName;

/// The rooms that a device may join, and for how long. One word: each idle connection keeps one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Every room, without an end: the viewer door has no keys.
    Any,
    /// The content of the device's token.
    Token(Arc<TokenGrant>),
}

/// The content of a device's token.
#[derive(PartialEq, Eq)]
pub struct TokenGrant {
    /// The `exp` of the token, in seconds since 1970.
    expires_s: u64,
    /// Whole names, and prefixes followed by `*`, each ended by a line end. One allocation for all of them.
    patterns: Box<str>,
}

impl Grant {
    /// The grant of a token. A pattern with a line end matches no room, and is left out.
    pub(super) fn of_token(expires_s: u64, rooms: &[String]) -> Self {
        let patterns = rooms.iter().filter(|pattern| !pattern.contains('\n'));
        let patterns: String = patterns.flat_map(|pattern| [pattern.as_str(), "\n"]).collect();
        Self::Token(Arc::new(TokenGrant { expires_s, patterns: patterns.into() }))
    }

    /// True if the device may join `room`.
    #[must_use]
    pub fn covers(&self, room: &RoomName) -> bool {
        let Self::Token(token) = self else { return true };
        token.patterns().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => room.as_str().starts_with(prefix),
            None => room.as_str() == pattern,
        })
    }

    /// The end of the grant, in seconds since 1970; `None`: there is no end.
    #[must_use]
    pub fn expires_s(&self) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::Token(token) => Some(token.expires_s),
        }
    }

    /// True if the grant has ended at `unix_ms`. RFC 7519 §4.1.4: a token is refused on or after its `exp`.
    #[must_use]
    pub fn is_over(&self, unix_ms: u64) -> bool {
        self.expires_s().is_some_and(|expires_s| unix_ms / 1000 >= expires_s)
    }
}

impl TokenGrant {
    fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.lines()
    }
}

impl fmt::Debug for TokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rooms: Vec<&str> = self.patterns().collect();
        f.debug_struct("TokenGrant").field("expires_s", &self.expires_s).field("rooms", &rooms).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_ends_at_its_second_and_an_open_door_s_never() {
        let grant = Grant::of_token(1000, &["r1".to_owned()]);
        assert!(!grant.is_over(999_999) && grant.is_over(1_000_000) && grant.is_over(u64::MAX));
        assert!(!Grant::Any.is_over(u64::MAX));
        assert_eq!((grant.expires_s(), Grant::Any.expires_s()), (Some(1000), None));
    }

    #[test]
    fn no_pattern_reaches_into_another_one() {
        let room = |name| RoomName::parse(name).unwrap();
        let grant = Grant::of_token(1, &["a\nb".to_owned(), "c".to_owned(), "d*".to_owned()]);
        for (name, covered) in
            [("a", false), ("b", false), ("c", true), ("cd", false), ("d", true), ("de", true)]
        {
            assert_eq!(grant.covers(&room(name)), covered, "{name}");
        }
        assert!(!Grant::of_token(1, &[]).covers(&room("c")), "nothing is granted");
        assert!(!Grant::of_token(1, &[String::new()]).covers(&room("c")));
    }

    #[test]
    fn a_grant_is_one_word_of_an_idle_connection() {
        assert_eq!(size_of::<Grant>(), size_of::<usize>());
    }
}
