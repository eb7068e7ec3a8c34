//! Authentication: publishers by bearer key, devices by signed token, web pages by origin.
//!
//! Pure: no door, no file, no clock. The caller passes the time in as `unix_s`. A key, a secret or a token
//! never appears in an error, a `Debug` or a log; a refusal is told by a code alone.
//!
//! - `keys`: publisher keys, as hashes.
//! - `tokens`: the keys that sign devices' tokens. A valid token becomes a [`Grant`].
//! - `origins`: the allow-list of web pages.
//! - `proxies`: the networks whose word about a device's address counts.

mod grant;
mod keys;
mod origins;
mod proxies;
mod tokens;

pub use self::grant::Grant;
pub use self::keys::PublisherKeys;
pub(crate) use self::keys::{KeyHash, bearer};
pub use self::origins::Origins;
pub use self::proxies::Proxies;
pub(crate) use self::proxies::{Network, PROXY_HEAD_BYTES, proxy_rest_bytes, proxy_source};
pub(crate) use self::tokens::DeviceKey;
pub use self::tokens::DeviceKeys;

use roomcast_core::named;

named! {
    /// The reason of a door to refuse a caller, by the stable code of the problem response. The presented key
    /// or token is not part of it.
    #[derive(thiserror::Error)]
    #[error("{}", self.name())]
    pub enum Refused {
        /// The publisher door has keys, and the request has no bearer key.
        KeyMissing = "key_missing",
        /// The bearer key is not among the active keys.
        KeyUnknown = "key_unknown",
        /// The viewer door has keys, and the handshake has no token.
        TokenMissing = "token_missing",
        /// The token is malformed, not signed by a configured key, not valid yet, or lacks a required claim.
        TokenInvalid = "token_invalid",
        /// The `exp` of the token has passed.
        TokenExpired = "token_expired",
        /// The token is valid and does not name this room.
        RoomNotGranted = "room_not_granted",
    }
}

impl Refused {
    /// The HTTP status: 401 if other credentials could help, 403 if the credentials are valid but too narrow.
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
        let codes: BTreeSet<&str> = Refused::ALL.iter().map(|refused| refused.name()).collect();
        assert_eq!(codes.len(), Refused::ALL.len());
        assert!(
            Refused::ALL
                .iter()
                .all(|refused| (refused.status() == 403) == (*refused == Refused::RoomNotGranted))
        );
    }
}
