//! Who may: publishers by bearer key, devices by signed token, browsers by origin.
//!
//! Pure: no door, no file, no clock (the caller passes `unix_s`). A key, a secret or a token never appears in an
//! error, a `Debug` or a log; what is refused is told by a code alone.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use roomcast_core::limits::{SECRET_BYTES_MIN, TOKEN_BYTES_MAX, TOKEN_ROOMS_MAX, TOKEN_SKEW};
use roomcast_core::room::id::RoomName;

/// Which rooms a device may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Any: the door is open.
    Any,
    /// Those its token names, each a whole name or a prefix with `*` at its end.
    Rooms(Arc<[String]>),
}

impl Grant {
    /// Whether it covers `room`.
    #[must_use]
    pub fn covers(&self, room: &RoomName) -> bool {
        match self {
            Self::Any => true,
            Self::Rooms(patterns) => patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => room.as_str().starts_with(prefix),
                None => room.as_str() == pattern,
            }),
        }
    }
}

/// Why a door refused somebody. It never holds what was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.code())]
pub enum Refused {
    /// The publisher door wants a bearer key and none came.
    KeyMissing,
    /// The bearer key is none of the active ones.
    KeyUnknown,
    /// The viewer door wants a token and none came.
    TokenMissing,
    /// Malformed, signed by nobody we know, not valid yet, or without the claims it needs.
    TokenInvalid,
    /// Its `exp` has passed.
    TokenExpired,
    /// The token is good, but does not name this room.
    RoomNotGranted,
}

impl Refused {
    /// All of them.
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

    /// The HTTP status: 401 where other credentials could help, 403 where they are good but do not reach this far.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::KeyMissing
            | Self::KeyUnknown
            | Self::TokenMissing
            | Self::TokenInvalid
            | Self::TokenExpired => 401,
            Self::RoomNotGranted => 403,
        }
    }
}

/// Why something configured can't be a key or an origin: a sentence that says what is allowed, never what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{allowed}")]
pub struct BadCredential {
    /// What is allowed.
    pub allowed: &'static str,
}

/// The token of an `Authorization: Bearer …` header: the scheme in any case, one or more spaces, something after it.
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, rest) = authorization.trim().split_once(' ')?;
    let presented = rest.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !presented.is_empty()).then_some(presented)
}

/// One publisher key, as its SHA-256: the key itself is never configured.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Reads `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`BadCredential`] says what is allowed; the hash of the empty text is refused, since it is what a script
    /// with an unset variable makes.
    pub fn parse(text: &str) -> Result<Self, BadCredential> {
        const ALLOWED: BadCredential = BadCredential {
            allowed: "\"sha256:\" and 64 hexadecimal digits, not of the empty text: printf %s \"$KEY\" | sha256sum",
        };
        let digits = text.strip_prefix("sha256:").ok_or(ALLOWED)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return Err(ALLOWED);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_digit(pair[0]).ok_or(ALLOWED)? << 4) | hex_digit(pair[1]).ok_or(ALLOWED)?;
        }
        if hash == <[u8; 32]>::from(Sha256::digest(b"")) {
            return Err(ALLOWED);
        }
        Ok(Self(hash))
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash([redacted])")
    }
}

/// The publisher keys that admit now. None: the door is open. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PublisherKeys(Arc<[KeyHash]>);

impl PublisherKeys {
    /// These keys; configuration holds them to `PUBLISHER_KEYS_MAX`.
    #[must_use]
    pub fn new(keys: Vec<KeyHash>) -> Self {
        Self(keys.into())
    }

    /// Whether anybody may publish.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Admits a request by its `Authorization` header, and tells which key it came with: its place in the configured list, 0
    /// where the door is open. Takes the same time whichever key it is, or none.
    ///
    /// # Errors
    /// [`Refused::KeyMissing`] without a bearer key, [`Refused::KeyUnknown`] with another one.
    pub fn admits(&self, authorization: Option<&str>) -> Result<usize, Refused> {
        if self.is_open() {
            return Ok(0);
        }
        let presented = authorization.and_then(bearer).ok_or(Refused::KeyMissing)?;
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let (mut known, mut place) = (Choice::from(0), 0_u64);
        for (index, key) in (0_u64..).zip(self.0.iter()) {
            let is_this = key.0.ct_eq(&hash);
            place.conditional_assign(&index, is_this);
            known |= is_this;
        }
        let place = usize::try_from(place).ok().filter(|_| known.into());
        place.ok_or(Refused::KeyUnknown)
    }
}

/// One key that devices' tokens are signed with. Its algorithm is part of it: a token that names another one is not
/// even tried, so a public key can never serve as an HS256 secret.
#[derive(Clone)]
pub struct DeviceKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl DeviceKey {
    /// A shared secret for HS256, at least 32 bytes.
    ///
    /// # Errors
    /// [`BadCredential`] for a shorter one.
    pub fn hs256(kid: Option<String>, secret: &[u8]) -> Result<Self, BadCredential> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(BadCredential { allowed: "a secret of at least 32 bytes, as HS256 asks for" });
        }
        Ok(Self { kid, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) })
    }

    /// An Ed25519 public key: base64 of its 32 bytes (either alphabet, padded or not), or a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`BadCredential`] if it is neither, or no point of the curve.
    pub fn eddsa(kid: Option<String>, public_key: &str) -> Result<Self, BadCredential> {
        const ALLOWED: BadCredential = BadCredential {
            allowed: "an Ed25519 public key: base64 of its 32 bytes, or a PEM \"PUBLIC KEY\"",
        };
        let bytes = ed25519_bytes(public_key).ok_or(ALLOWED)?;
        let key = DecodingKey::from_ed_der(&bytes);
        let trial = jsonwebtoken::crypto::verify("", b"", &key, Algorithm::EdDSA);
        if trial.is_err_and(|trouble| matches!(trouble.kind(), ErrorKind::InvalidEddsaKey)) {
            return Err(ALLOWED);
        }
        Ok(Self { kid, algorithm: Algorithm::EdDSA, key })
    }

    /// The name a token may choose it by.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// A key fits a token's header if the algorithm is its own, and the names agree where both have one.
    fn fits(&self, header: &jsonwebtoken::Header) -> bool {
        let named_otherwise = matches!((&self.kid, &header.kid), (Some(own), Some(asked)) if own != asked);
        self.algorithm == header.alg && !named_otherwise
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({:?}, kid {:?}, [redacted])", self.algorithm, self.kid)
    }
}

/// The 32 bytes of an Ed25519 public key, from base64 or PEM.
fn ed25519_bytes(text: &str) -> Option<[u8; 32]> {
    /// What RFC 8410 puts before the 32 bytes in a `SubjectPublicKeyInfo`.
    const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let text = text.trim();
    let pem = text
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"));
    let plain: String = pem
        .unwrap_or(text)
        .chars()
        .filter(|c| !c.is_ascii_whitespace() && *c != '=')
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    let bytes = STANDARD_NO_PAD.decode(plain).ok()?;
    let raw = if pem.is_some() { bytes.strip_prefix(&SPKI_PREFIX)? } else { &bytes };
    raw.try_into().ok()
}

/// The claims we read. Integers only: a text, a fraction or a negative number is refused with the whole token
/// (jsonwebtoken below 10.3 let an `exp` that was text pass, CVE-2026-25537). A claim that stands twice is refused, too.
#[derive(Deserialize)]
struct Claims {
    exp: u64,
    nbf: Option<u64>,
    rooms: Vec<String>,
}

/// The keys that devices' tokens may be signed with. None: the door is open. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DeviceKeys(Arc<[DeviceKey]>);

impl DeviceKeys {
    /// These keys; configuration holds them to `DEVICE_KEYS_MAX`.
    #[must_use]
    pub fn new(keys: Vec<DeviceKey>) -> Self {
        Self(keys.into())
    }

    /// Whether any device may join any room.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// What a device's token grants at `unix_s` (seconds since 1970). A token is good until the second before its
    /// `exp`, and from its `nbf` on, less [`TOKEN_SKEW`].
    ///
    /// # Errors
    /// [`Refused::TokenMissing`], [`Refused::TokenInvalid`], [`Refused::TokenExpired`].
    pub fn grant(&self, token: Option<&str>, unix_s: u64) -> Result<Grant, Refused> {
        if self.is_open() {
            return Ok(Grant::Any);
        }
        let token = token.filter(|token| !token.is_empty()).ok_or(Refused::TokenMissing)?;
        let claims = self.claims(token).ok_or(Refused::TokenInvalid)?;
        if unix_s >= claims.exp {
            return Err(Refused::TokenExpired);
        }
        let not_yet = claims.nbf.is_some_and(|nbf| nbf > unix_s.saturating_add(TOKEN_SKEW.as_secs()));
        if not_yet || claims.rooms.len() > TOKEN_ROOMS_MAX {
            return Err(Refused::TokenInvalid);
        }
        Ok(Grant::Rooms(claims.rooms.into()))
    }

    /// The claims of a token that one of the keys has signed. Why it has none stays unsaid: whoever forges learns nothing.
    fn claims(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: an extension we do not know and must not ignore. We know none.
            return None;
        }
        let signed = self.0.iter().filter(|key| key.fits(&header)).find_map(|key| {
            let mut signature_only = Validation::new(key.algorithm);
            signature_only.required_spec_claims.clear();
            signature_only.validate_exp = false;
            signature_only.validate_aud = false;
            jsonwebtoken::decode::<Claims>(token, &key.key, &signature_only).ok()
        })?;
        Some(signed.claims)
    }
}

/// Which web pages may open the viewer door. A request without an `Origin` comes from no page, and passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Pages of this machine, and `null` (a page from a file): the default of a door on loopback.
    Loopback,
    /// Exactly these.
    Listed(BTreeSet<String>),
}

impl Origins {
    /// The default of a door that listens on `ip`: this machine's pages on loopback, none elsewhere.
    #[must_use]
    pub fn default_for(ip: IpAddr) -> Self {
        if ip.to_canonical().is_loopback() { Self::Loopback } else { Self::Listed(BTreeSet::new()) }
    }

    /// Whether a request with this `Origin` header may pass.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        match self {
            Self::Loopback => origin == "null" || is_loopback_origin(origin),
            Self::Listed(listed) => listed.contains(origin),
        }
    }

    /// Checks one entry of a list: `null`, or an origin exactly as browsers spell it, since it is compared as text.
    ///
    /// # Errors
    /// [`BadCredential`] says how browsers spell it.
    pub fn check(entry: &str) -> Result<(), BadCredential> {
        const ALLOWED: BadCredential = BadCredential {
            allowed: "\"null\", or scheme://host[:port] as browsers send it: lower case, no path, no closing slash, \
                      no default port, no *",
        };
        if entry == "null" {
            return Ok(());
        }
        let (scheme, authority) = entry.split_once("://").ok_or(ALLOWED)?;
        let (host, port) = split_port(authority).ok_or(ALLOWED)?;
        let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
        let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok() && ip == ip.to_ascii_lowercase(),
            None => {
                let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
                !host.is_empty() && host.chars().all(fits)
            }
        };
        let default_port = matches!((scheme, port), ("http", Some(80)) | ("https", Some(443)));
        if scheme_fits && host_fits && !default_port { Ok(()) } else { Err(ALLOWED) }
    }
}

/// `http` or `https` from `localhost`, 127.0.0.0/8 or `[::1]`, whatever the port.
fn is_loopback_origin(origin: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let Some((host, _)) = authority.and_then(split_port) else { return false };
    host == "localhost" || host == "[::1]" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Host and port of an authority. `None` if the port is no number as browsers write it.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].find(':') else { return Some((authority, None)) };
    let (host, port) = authority.split_at(after_brackets + colon);
    let digits = &port[1..];
    let port: u16 = digits.parse().ok()?;
    (port.to_string() == digits).then_some((host, Some(port)))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use roomcast_core::room::id::RoomName;

    const SECRET: &[u8] = b"canary-secret-of-thirty-two-bytes!";
    const NOW: u64 = 1_800_000_000;
    /// RFC 8410 §7 / RFC 8032 §7.1, test 1: the private key and its public half.
    const ED_PRIVATE: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    const ED_PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn ed_signer() -> EncodingKey {
        let mut pkcs8 = vec![
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
        ];
        pkcs8.extend(base64::engine::general_purpose::STANDARD.decode(ED_PRIVATE).unwrap());
        EncodingKey::from_ed_der(&pkcs8)
    }

    fn signed(header: &Header, claims: &Value, signer: &EncodingKey) -> String {
        jsonwebtoken::encode(header, claims, signer).unwrap()
    }

    fn hs256(claims: &Value) -> String {
        signed(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET))
    }

    fn hs256_keys() -> DeviceKeys {
        DeviceKeys::new(vec![DeviceKey::hs256(None, SECRET).unwrap()])
    }

    fn eddsa_keys() -> DeviceKeys {
        DeviceKeys::new(vec![DeviceKey::eddsa(None, ED_PUBLIC).unwrap()])
    }

    fn hash_of(key: &str) -> KeyHash {
        let digits: String =
            Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        KeyHash::parse(&format!("sha256:{digits}")).unwrap()
    }

    #[test]
    fn a_publisher_door_without_keys_is_open() {
        assert_eq!(PublisherKeys::default().admits(None), Ok(0));
        assert_eq!(PublisherKeys::default().admits(Some("Bearer anything")), Ok(0));
    }

    #[test]
    fn both_active_publisher_keys_admit_and_no_other_does() {
        let keys = PublisherKeys::new(vec![hash_of("old"), hash_of("new")]);
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
    fn a_viewer_door_without_keys_is_open() {
        assert_eq!(DeviceKeys::default().grant(None, NOW), Ok(Grant::Any));
    }

    #[test]
    fn a_token_grants_the_rooms_it_names_and_prefixes_with_a_star() {
        let token = hs256(&json!({"exp": NOW + 60, "rooms": ["live:1", "shop-*"]}));
        let grant = hs256_keys().grant(Some(&token), NOW).unwrap();
        for (room, covered) in
            [("live:1", true), ("live:12", false), ("shop-", true), ("shop-9", true), ("shop", false)]
        {
            assert_eq!(grant.covers(&RoomName::parse(room).unwrap()), covered, "{room}");
        }
        let all = hs256_keys().grant(Some(&hs256(&json!({"exp": NOW + 60, "rooms": ["*"]}))), NOW).unwrap();
        assert!(all.covers(&RoomName::parse("any").unwrap()));
        let none = hs256_keys().grant(Some(&hs256(&json!({"exp": NOW + 60, "rooms": []}))), NOW).unwrap();
        assert!(!none.covers(&RoomName::parse("any").unwrap()), "an empty list grants nothing");
    }

    #[test]
    fn a_token_ends_at_exp_and_begins_at_nbf_by_the_clock_that_is_passed_in() {
        let keys = hs256_keys();
        let token = hs256(&json!({"exp": 1000, "nbf": 500, "aud": "someone", "rooms": ["r"]}));
        assert!(
            keys.grant(Some(&token), 999).is_ok(),
            "long past by the machine's clock, which is not asked"
        );
        assert_eq!(keys.grant(Some(&token), 1000), Err(Refused::TokenExpired));
        assert!(keys.grant(Some(&token), 500 - TOKEN_SKEW.as_secs()).is_ok());
        assert_eq!(keys.grant(Some(&token), 499 - TOKEN_SKEW.as_secs()), Err(Refused::TokenInvalid));
        assert_eq!(keys.grant(Some(&token), u64::MAX), Err(Refused::TokenExpired), "no overflow");
    }

    #[test]
    fn claims_of_another_type_are_refused_never_skipped() {
        let many: Vec<String> = (0..=TOKEN_ROOMS_MAX).map(|n| format!("r{n}")).collect();
        for claims in [
            json!({"rooms": ["r"]}),
            json!({"exp": NOW + 60}),
            json!({"exp": (NOW + 60).to_string(), "rooms": ["r"]}),
            json!({"exp": null, "rooms": ["r"]}),
            json!({"exp": 1.9e9, "rooms": ["r"]}),
            json!({"exp": -1, "rooms": ["r"]}),
            json!({"exp": [NOW + 60], "rooms": ["r"]}),
            json!({"exp": NOW + 60, "nbf": "0", "rooms": ["r"]}),
            json!({"exp": NOW + 60, "rooms": "r"}),
            json!({"exp": NOW + 60, "rooms": [1]}),
            json!({"exp": NOW + 60, "rooms": many}),
            json!(["r"]),
        ] {
            assert_eq!(
                hs256_keys().grant(Some(&hs256(&claims)), NOW),
                Err(Refused::TokenInvalid),
                "{claims}"
            );
        }
    }

    #[test]
    fn a_token_that_is_missing_is_told_from_one_that_is_invalid() {
        let keys = hs256_keys();
        assert_eq!(keys.grant(None, NOW), Err(Refused::TokenMissing));
        assert_eq!(keys.grant(Some(""), NOW), Err(Refused::TokenMissing));
        let good = hs256(&json!({"exp": NOW + 60, "rooms": ["r"]}));
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        let cut = &good[..good.len() - 4];
        for bad in ["x", "..", "a.b.c", "é.é.é", &long, cut, &format!("{good}.x")] {
            assert_eq!(keys.grant(Some(bad), NOW), Err(Refused::TokenInvalid), "{bad:.40}");
        }
    }

    #[test]
    fn any_changed_byte_of_a_token_is_refused() {
        let keys = hs256_keys();
        let token = hs256(&json!({"exp": NOW + 60, "rooms": ["r"]}));
        for at in 0..token.len() - 1 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(keys.grant(Some(&changed), NOW), Err(Refused::TokenInvalid), "byte {at}");
        }
    }

    #[test]
    fn the_public_key_never_serves_as_an_hs256_secret() {
        let claims = json!({"exp": NOW + 60, "rooms": ["*"]});
        let raw = base64::engine::general_purpose::STANDARD.decode(ED_PUBLIC).unwrap();
        for secret in [raw.as_slice(), ED_PUBLIC.as_bytes()] {
            let forged = signed(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret));
            assert_eq!(eddsa_keys().grant(Some(&forged), NOW), Err(Refused::TokenInvalid));
        }
        let genuine = signed(&Header::new(Algorithm::EdDSA), &claims, &ed_signer());
        assert!(eddsa_keys().grant(Some(&genuine), NOW).is_ok());
        assert_eq!(hs256_keys().grant(Some(&genuine), NOW), Err(Refused::TokenInvalid));
        let hs384 = signed(&Header::new(Algorithm::HS384), &claims, &EncodingKey::from_secret(SECRET));
        assert_eq!(
            hs256_keys().grant(Some(&hs384), NOW),
            Err(Refused::TokenInvalid),
            "not even a sibling algorithm"
        );
    }

    #[test]
    fn alg_none_is_refused_however_it_is_spelt() {
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let claims = url.encode(json!({"exp": NOW + 60, "rooms": ["*"]}).to_string());
        for alg in ["none", "None", "NONE", ""] {
            let header = url.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
            for signature in ["", "AAAA"] {
                let token = format!("{header}.{claims}.{signature}");
                assert_eq!(hs256_keys().grant(Some(&token), NOW), Err(Refused::TokenInvalid), "{alg:?}");
            }
        }
    }

    #[test]
    fn kid_chooses_a_key_and_critical_extensions_are_refused() {
        let other = b"another-secret-of-thirty-two-bytes";
        let keys = DeviceKeys::new(vec![
            DeviceKey::hs256(Some("a".into()), SECRET).unwrap(),
            DeviceKey::hs256(Some("b".into()), other).unwrap(),
        ]);
        let claims = json!({"exp": NOW + 60, "rooms": ["r"]});
        let with = |kid: Option<&str>, secret: &[u8]| {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = kid.map(str::to_owned);
            signed(&header, &claims, &EncodingKey::from_secret(secret))
        };
        assert!(keys.grant(Some(&with(Some("b"), other)), NOW).is_ok());
        assert!(keys.grant(Some(&with(None, other)), NOW).is_ok(), "without a kid each key is tried");
        assert_eq!(keys.grant(Some(&with(Some("a"), other)), NOW), Err(Refused::TokenInvalid));
        assert_eq!(keys.grant(Some(&with(Some("c"), SECRET)), NOW), Err(Refused::TokenInvalid));
        let mut critical = Header::new(Algorithm::HS256);
        critical.crit = Some(vec!["b64".into()]);
        let token = signed(&critical, &claims, &EncodingKey::from_secret(SECRET));
        assert_eq!(keys.grant(Some(&token), NOW), Err(Refused::TokenInvalid));
    }

    #[test]
    fn an_ed25519_key_is_read_from_base64_and_pem() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        let url_safe = ED_PUBLIC.replace('/', "_").replace('+', "-").replace('=', "");
        let token =
            signed(&Header::new(Algorithm::EdDSA), &json!({"exp": NOW + 60, "rooms": []}), &ed_signer());
        for spelt in [ED_PUBLIC, pem, &url_safe] {
            let keys = DeviceKeys::new(vec![DeviceKey::eddsa(None, spelt).unwrap()]);
            assert!(keys.grant(Some(&token), NOW).is_ok(), "{spelt}");
        }
        let no_point = STANDARD_NO_PAD.encode([2_u8; 32]);
        for bad in ["", "AAAA", "not base64!", &no_point] {
            assert!(DeviceKey::eddsa(None, bad).is_err(), "{bad:?}");
        }
        assert!(DeviceKey::hs256(None, &[7; SECRET_BYTES_MIN - 1]).is_err());
    }

    #[test]
    fn a_loopback_door_admits_this_machines_pages_and_null() {
        let origins = Origins::default_for("127.0.0.1".parse().unwrap());
        for good in [
            "http://localhost",
            "https://localhost:3000",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "https://[::1]:5173",
            "null",
        ] {
            assert!(origins.allows(Some(good)), "{good}");
        }
        for bad in [
            "",
            "https://shop.example",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "ftp://localhost",
            "http://localhost@evil.example",
            "http://evil.example:80@localhost",
            "http://localhost:",
            "http://localhost:99999",
            "http://localhost/",
            "http://[::1]evil",
            "http://[::2]",
            "localhost",
            "NULL",
            "http://128.0.0.1",
        ] {
            assert!(!origins.allows(Some(bad)), "{bad}");
        }
        assert!(origins.allows(None), "no page, no origin");
    }

    #[test]
    fn a_door_elsewhere_admits_no_page_that_is_not_listed() {
        let none = Origins::default_for("0.0.0.0".parse().unwrap());
        assert!(none.allows(None));
        for page in ["null", "http://localhost", "https://shop.example"] {
            assert!(!none.allows(Some(page)), "{page}");
        }
        let listed = Origins::Listed(BTreeSet::from(["https://shop.example".to_owned()]));
        assert!(listed.allows(Some("https://shop.example")));
        for other in [
            "https://shop.example:8443",
            "http://shop.example",
            "https://a.shop.example",
            "https://shop.example/",
            "null",
        ] {
            assert!(!listed.allows(Some(other)), "{other}");
        }
        assert_eq!(Origins::default_for("::ffff:127.0.0.1".parse().unwrap()), Origins::Loopback);
    }

    #[test]
    fn an_origin_is_configured_as_browsers_spell_it() {
        for good in [
            "null",
            "https://shop.example",
            "http://localhost:3000",
            "https://[::1]:5173",
            "capacitor://localhost",
        ] {
            assert_eq!(Origins::check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "*",
            "shop.example",
            "https://",
            "https://*.shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://shop.example:0443",
            "https://a b",
            "://x",
        ] {
            assert!(Origins::check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_and_errors_never_show_a_secret() {
        let secret = "canary-secret-of-thirty-two-bytes!";
        let publisher = PublisherKeys::new(vec![hash_of(secret)]);
        let digits: String =
            Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let token = hs256(&json!({"exp": 1, "rooms": ["r"]}));
        let refused = hs256_keys().grant(Some(&token), NOW).unwrap_err();
        let short = DeviceKey::hs256(None, b"canary").unwrap_err();
        let unhashed = KeyHash::parse("canary").unwrap_err();
        let shown = format!(
            "{publisher:?} {:#?} {:?} {refused:?} {refused} {short:?} {short} {unhashed:?} {unhashed}",
            hs256_keys(),
            eddsa_keys()
        );
        let bytes_shown = format!("{:?}", &SECRET[..4]);
        for leak in ["canary", &digits, &digits[..8], bytes_shown.trim_matches(['[', ']']), &token, "11qYAY"]
        {
            assert!(!shown.contains(leak), "{leak} in {shown}");
        }
    }

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
