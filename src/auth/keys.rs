//! Bearer keys of publishers and operators: the configured hashes, and the check of an `Authorization` header
//! against all of them.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::{BadCredential, Refused};

/// The text after the scheme of an `Authorization: Bearer …` header. The scheme may have any case, and any
/// number of spaces may follow. `None` for another scheme or an empty rest.
pub(crate) fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, rest) = authorization.trim().split_once(' ')?;
    let presented = rest.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !presented.is_empty()).then_some(presented)
}

/// The SHA-256 of one bearer key. The key itself is never configured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash([u8; 32]);

impl KeyHash {
    /// Reads `sha256:` and 64 hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`BadCredential`] for any other text, and for the hash of the empty text.
    pub(crate) fn parse(text: &str) -> Result<Self, BadCredential> {
        const ALLOWED: BadCredential = BadCredential {
            allowed: "\"sha256:\" and 64 hexadecimal digits, not of the empty text: printf %s \"$KEY\" | sha256sum",
        };
        let digits = text.strip_prefix("sha256:").ok_or(ALLOWED)?.as_bytes();
        let mut hash = [0; 32];
        // chunks_exact would pass over an odd digit at the end, and zip over digits that are missing.
        if digits.len() != 64 {
            return Err(ALLOWED);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_digit(pair[0]).ok_or(ALLOWED)? << 4) | hex_digit(pair[1]).ok_or(ALLOWED)?;
        }
        // A script whose $KEY is unset prints this hash: the door would look locked, and its key would be "".
        if hash == <[u8; 32]>::from(Sha256::digest(b"")) {
            return Err(ALLOWED);
        }
        Ok(Self(hash))
    }

    /// The bytes of the hash.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

// A hash of a weak key can be looked up, so even the hash stays out of logs.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash([redacted])")
    }
}

/// The active keys of a door. An empty list opens the door. A clone shares the list.
#[derive(Debug, Clone, Default)]
pub struct BearerKeys(Arc<[KeyHash]>);

impl BearerKeys {
    /// The keys in configured order. The configuration keeps the list within `PUBLISHER_KEYS_MAX`.
    pub(crate) fn new(keys: Vec<KeyHash>) -> Self {
        Self(keys.into())
    }

    /// True without keys: any caller may use the door.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// The active keys, in the order of their indices.
    pub(crate) fn hashes(&self) -> &[KeyHash] {
        &self.0
    }

    /// Checks the `Authorization` header of a request and returns the index of the key in the configured
    /// list, or 0 for an open door. The time does not depend on the matching key.
    ///
    /// # Errors
    /// [`Refused::KeyMissing`] without a bearer key, [`Refused::KeyUnknown`] for a key that is not active.
    pub fn admits(&self, authorization: Option<&str>) -> Result<usize, Refused> {
        if self.is_open() {
            return Ok(0);
        }
        let presented = authorization.and_then(bearer).ok_or(Refused::KeyMissing)?;
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let mut is_known = Choice::from(0);
        let mut place = 0_u64;
        // Every key is compared in constant time, and the loop never ends early: the time of an answer must
        // not tell how many bytes of a hash were right, or which of the keys is in use.
        for (index, key) in (0_u64..).zip(self.0.iter()) {
            let is_this = key.0.ct_eq(&hash);
            place.conditional_assign(&index, is_this);
            is_known |= is_this;
        }
        let place = usize::try_from(place).ok().filter(|_| is_known.into());
        place.ok_or(Refused::KeyUnknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(key: &str) -> KeyHash {
        let digits: String =
            Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        KeyHash::parse(&format!("sha256:{digits}")).unwrap()
    }

    #[test]
    fn a_publisher_door_without_keys_is_open() {
        assert_eq!(BearerKeys::default().admits(None), Ok(0));
        assert_eq!(BearerKeys::default().admits(Some("Bearer anything")), Ok(0));
    }

    #[test]
    fn both_active_publisher_keys_admit_and_no_other_does() {
        let keys = BearerKeys::new(vec![hash_of("old"), hash_of("new")]);
        for (good, place) in [("Bearer old", 0), ("bearer new", 1), ("BEARER  new ", 1)] {
            assert_eq!(keys.admits(Some(good)), Ok(place), "{good:?}");
        }
        for missing in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic b2xk"), Some("old")] {
            assert_eq!(keys.admits(missing), Err(Refused::KeyMissing), "{missing:?}");
        }
        for unknown in ["Bearer olD", "Bearer oldnew", "Bearer old new"] {
            assert_eq!(keys.admits(Some(unknown)), Err(Refused::KeyUnknown), "{unknown:?}");
        }
    }

    #[test]
    fn a_key_hash_is_sha256_and_64_digits() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let twice = "é".repeat(32);
        for bad in [
            "",
            "secret",
            "sha256:",
            "sha256:zz",
            empty,
            &format!("sha256:{twice}"),
            &format!("md5:{}", "0".repeat(64)),
        ] {
            assert!(KeyHash::parse(bad).is_err(), "{bad:?}");
        }
        assert!(KeyHash::parse(&format!("sha256:{}", "aB".repeat(32))).is_ok());
    }

    #[test]
    fn debug_and_errors_never_show_a_publisher_key() {
        let secret = "canary-secret-of-thirty-two-bytes!";
        let keys = BearerKeys::new(vec![hash_of(secret)]);
        let digits: String =
            Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let unhashed = KeyHash::parse("canary").unwrap_err();
        let shown = format!("{keys:?} {keys:#?} {unhashed:?} {unhashed}");
        for leak in ["canary", &digits, &digits[..8]] {
            assert!(!shown.contains(leak), "{leak} in {shown}");
        }
    }
}
