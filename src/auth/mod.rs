//! Authentication: publishers by bearer key, devices by signed token, web pages by origin.
//!
//! Pure: no door, no file, no clock. The caller passes the time in as `unix_s`. A key, a secret or a token
//! never appears in an error, a `Debug` or a log; a refusal is told by a code alone.
//!
//! - `keys`: publisher keys, as hashes.
//! - `tokens`: the keys that sign devices' tokens. A valid token becomes a [`Grant`].
//! - `origins`: the allow-list of web pages.

mod grant;
mod keys;
mod origins;
mod tokens;

pub use self::grant::Grant;
pub use self::keys::PublisherKeys;
pub(crate) use self::keys::{KeyHash, bearer};
pub use self::origins::Origins;
pub(crate) use self::tokens::DeviceKey;
pub use self::tokens::DeviceKeys;

/// The reason of a door to refuse a caller. The presented key or token is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.code())]
pub enum Refused {
    /// The publisher door has keys, and the request has no bearer key.
    KeyMissing,
    /// The bearer key is not among the active keys.
    KeyUnknown,
    /// The viewer door has keys, and the handshake has no token.
    TokenMissing,
    /// The token is malformed, not signed by a configured key, not valid yet, or lacks a required claim.
    TokenInvalid,
    /// The `exp` of the token has passed.
    TokenExpired,
    /// The token is valid and does not name this room.
    RoomNotGranted,
}

impl Refused {
    /// Every reason once, for tests of the documents.
    pub const ALL: [Self; 6] = [
        Self::KeyMissing,
        Self::KeyUnknown,
        Self::TokenMissing,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::RoomNotGranted,
    ];

    /// The stable code of the problem response and of the metric.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::KeyMissing => "key_missing",
            Self::KeyUnknown => "key_unknown",
            Self::TokenMissing => "token_missing",
            Self::TokenInvalid => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::RoomNotGranted => "room_not_granted",
        }
    }

    /// The HTTP status: 401 if other credentials could help, 403 if the credentials are valid but too narrow.
    #[must_use]
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::RoomNotGranted => 403,
            _ => 401,
        }
    }
}

/// A configured text that cannot be a key or an origin. The typed text is not repeated: a secret may be in
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{allowed}")]
pub(crate) struct BadCredential {
    /// The allowed spelling, to complete the sentence "allowed: …".
    pub(crate) allowed: &'static str,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_refusal_has_its_own_code() {
        let codes: BTreeSet<&str> = Refused::ALL.iter().map(|refused| refused.code()).collect();
        assert_eq!(codes.len(), Refused::ALL.len());
        assert!(
            Refused::ALL
                .iter()
                .all(|refused| (refused.status() == 403) == (*refused == Refused::RoomNotGranted))
        );
    }
}
