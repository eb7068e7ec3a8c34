//! Names and numbers of the protocol, as types that can't be mixed up. Each `parse` is the only
//! check of an alphabet and a length.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use crate::limits::{
    DEVICE_NAME_BYTES_MAX, ID_BYTES_MAX, INTEGER_MAX, KEY_BYTES_MAX, ROOM_NAME_BYTES_MAX, TYPE_NAME_BYTES_MAX,
};

/// A refused name or number. The error's text is the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{allowed}")]
pub struct BadName {
    /// The rule, as a problem's `allowed`.
    pub allowed: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $allowed:literal, $fits:expr) => {
        name!($(#[$doc])* $name, $max, $allowed, $fits, but [""]);
    };
    ($(#[$doc:meta])* $name:ident, $max:expr, $allowed:literal, $fits:expr, but $forbidden:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as a name.
            ///
            /// # Errors
            /// [`BadName`] for a forbidden alphabet or length.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let fits: fn(char) -> bool = $fits;
                let is_forbidden = $forbidden.contains(&text);
                if text.is_empty() || text.len() > $max || is_forbidden || !text.chars().all(fits) {
                    return Err(BadName { allowed: $allowed });
                }
                Ok(Self(Arc::from(text)))
            }

            /// The text as parsed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A room's name: `[A-Za-z0-9_.:-]{1,128}`, but `.` and `..`. Clients and proxies take the two out of a
    /// path as steps, and would reach another room or none.
    RoomName,
    ROOM_NAME_BYTES_MAX,
    "1 to 128 characters of A-Z a-z 0-9 _ . : -, but not . or .. alone",
    |c| c.is_ascii_alphanumeric() || "_.:-".contains(c),
    but [".", ".."]
);
name!(
    /// A message type's name: `[a-z0-9_.-]{1,64}`.
    TypeName,
    TYPE_NAME_BYTES_MAX,
    "1 to 64 characters of a-z 0-9 _ . -",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c)
);
name!(
    /// A key of merging within a type: 1 to 128 bytes of text without control characters.
    Key,
    KEY_BYTES_MAX,
    "1 to 128 bytes of text without control characters",
    |c| !c.is_control()
);
name!(
    /// A publisher's own id of a message: 1 to 64 bytes of text without control characters.
    MessageId,
    ID_BYTES_MAX,
    "1 to 64 bytes of text without control characters",
    |c| !c.is_control()
);
name!(
    /// A device's own name: 1 to 64 bytes of text without control characters.
    DeviceName,
    DEVICE_NAME_BYTES_MAX,
    "1 to 64 bytes of text without control characters",
    |c| !c.is_control()
);

impl DeviceName {
    /// A hash for tables of devices; never 0, the mark of a device without a name.
    pub fn digest(&self) -> u64 {
        let digest =
            self.as_str().bytes().fold(0x9e37_79b9_7f4a_7c15, |hash, byte| mix(hash ^ u64::from(byte)));
        digest.max(1)
    }
}

/// Number of a batch within a run, from 1; 0: before the first batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The number of the next batch.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One life of a room in memory; 16 hexadecimal digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run(pub u64);

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One life of a room's reliable stream in the store; 16 hexadecimal digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of a stream begun in `run`. Each `load` of the run would begin another epoch.
    pub(super) fn begun_in(run: Run, load: u64) -> Self {
        // A run is random, so the epoch is too. The constant keeps an epoch from being the text of a run.
        Self(mix(run.0.wrapping_add(load) ^ 0x9e37_79b9_7f4a_7c15))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Spreads every input bit over all output bits: the finalizer of `SplitMix64` (Steele, Lea, Flood 2014).
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The key of a hash of room names. Without the key, nobody can find rooms that fall into one and the same share:
/// viewers name rooms, and would fill that share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NameKey(pub [u64; 2]);

impl NameKey {
    /// The hash of a room's name, as of [`NameKey::hash_bytes`].
    #[must_use]
    pub fn hash(self, room: &RoomName) -> u64 {
        self.hash_bytes(room.as_str().as_bytes())
    }

    /// SipHash-2-4 of a name under the key (Aumasson and Bernstein 2012): the same in every release.
    #[expect(deprecated, reason = "the other hashers of the standard library take no key of ours")]
    #[must_use]
    pub fn hash_bytes(self, name: &[u8]) -> u64 {
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0[0], self.0[1]);
        hasher.write(name);
        hasher.finish()
    }
}

/// The newest batch seen by a device, `RUN:SEQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The run of the batch.
    pub run: Run,
    /// The batch's number in `run`.
    pub seq: Seq,
}

impl Seen {
    /// Reads `RUN:SEQ`.
    ///
    /// # Errors
    /// [`BadName`] for any other shape.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let (run, seq) =
            pair(text).ok_or(BadName { allowed: "RUN:SEQ, 16 hexadecimal digits and an integer" })?;
        Ok(Self { run: Run(run), seq: Seq(seq) })
    }
}

/// A device's place in the reliable stream, `EPOCH:OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The life of the stream.
    pub epoch: Epoch,
    /// The last offset applied; 0: none yet.
    pub offset: u64,
}

impl Cursor {
    /// Reads `EPOCH:OFFSET`.
    ///
    /// # Errors
    /// [`BadName`] for any other shape.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let (epoch, offset) =
            pair(text).ok_or(BadName { allowed: "EPOCH:OFFSET, 16 hexadecimal digits and an integer" })?;
        Ok(Self { epoch: Epoch(epoch), offset })
    }
}

/// Parses 16 hexadecimal digits, a colon, and an integer up to `INTEGER_MAX`.
fn pair(text: &str) -> Option<(u64, u64)> {
    let (life, number) = text.split_once(':')?;
    // Digits alone: `parse` would take a sign as well.
    let is_digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| is_digits && *number <= INTEGER_MAX)?;
    Some((life_number(life)?, number))
}

/// A run or an epoch in its 16 hexadecimal digits.
pub(crate) fn life_number(text: &str) -> Option<u64> {
    // Digits alone: `from_str_radix` would take a sign as well.
    let is_digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digits { u64::from_str_radix(text, 16).ok() } else { None }
}

/// The spelling of a connection's frames, fixed by the subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// `roomcast.v1.json`: text frames.
    Json,
    /// `roomcast.v1.proto`: binary frames.
    Proto,
}

impl Encoding {
    /// All encodings, in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Json, Self::Proto];

    /// The WebSocket subprotocol of the encoding.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "roomcast.v1.json",
            Self::Proto => "roomcast.v1.proto",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet_and_length() {
        assert!(RoomName::parse("live:42_A.b-c").is_ok());
        assert!(RoomName::parse("...").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(129)] {
            assert!(RoomName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(TypeName::parse("red_packet").is_ok());
        assert!(TypeName::parse("Chat").is_err());
        assert!(Key::parse("price of a thing").is_ok());
        assert!(Key::parse("a\nb").is_err());
        assert!(Key::parse(&"k".repeat(129)).is_err());
    }

    #[test]
    fn a_cursor_is_sixteen_digits_and_an_integer() {
        let cursor = Cursor::parse("00000000000000ff:7").unwrap();
        assert_eq!((cursor.epoch.0, cursor.offset), (255, 7));
        for bad in
            ["", ":", "ff:7", "00000000000000ff:", "00000000000000ff:-1", "00000000000000ff:9007199254740992"]
        {
            assert!(Cursor::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Seen::parse("00000000000000ff:0").unwrap().run.to_string(), "00000000000000ff");
    }

    /// The two test vectors of the paper's appendix: messages of no byte and of bytes 0 to 14.
    #[test]
    #[expect(deprecated, reason = "the hasher of `NameKey::hash`")]
    fn the_hash_is_siphash_2_4() {
        let mut hasher = std::hash::SipHasher::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        hasher.write(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
    }
}
