//! Device tokens: the keys that sign them, and the check of a token against its keys and the time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use roomcast_core::limits::{SECRET_BYTES_MIN, TOKEN_BYTES_MAX, TOKEN_LIFETIME, TOKEN_ROOMS_MAX, TOKEN_SKEW};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tracing::debug;

use super::{BadCredential, Grant, Refused};

/// A key that signs devices' tokens, with its algorithm. A token of another algorithm is not tried with the
/// key, so a public key can never serve as an HS256 secret.
#[derive(Clone)]
pub(crate) struct DeviceKey {
    /// The key's name. A token may choose its key by the same name.
    pub(crate) kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// SHA-256 of the secret or of the public key, to tell one key from another.
    digest: [u8; 32],
}

impl PartialEq for DeviceKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.algorithm == other.algorithm && self.digest == other.digest
    }
}

impl DeviceKey {
    /// A shared secret for HS256, at least 32 bytes.
    ///
    /// # Errors
    /// [`BadCredential`] for a shorter secret.
    pub(crate) fn hs256(kid: Option<String>, secret: &[u8]) -> Result<Self, BadCredential> {
        // RFC 7518 §3.2: a key of at least the size of the hash. A shorter one can be guessed from any token.
        if secret.len() < SECRET_BYTES_MIN {
            return Err(BadCredential { allowed: "a secret of at least 32 bytes, as HS256 asks for" });
        }
        let digest = Sha256::digest(secret).into();
        Ok(Self { kid, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret), digest })
    }

    /// An Ed25519 public key: base64 of its 32 bytes (either alphabet, padded or not), or a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`BadCredential`] for any other text, for 32 bytes that are not a point of the curve, and for a point of
    /// small order: 32 zeros, for example.
    pub(crate) fn eddsa(kid: Option<String>, public_key: &str) -> Result<Self, BadCredential> {
        const ALLOWED: BadCredential = BadCredential {
            allowed: "an Ed25519 public key: base64 of its 32 bytes, or a PEM \"PUBLIC KEY\"",
        };
        let bytes = ed25519_bytes(public_key).filter(|bytes| !is_of_small_order(bytes)).ok_or(ALLOWED)?;
        let key = DecodingKey::from_ed_der(&bytes);
        // from_ed_der takes any bytes. Without this trial a mistyped key would refuse every device, one by
        // one.
        let trial = jsonwebtoken::crypto::verify("", b"", &key, Algorithm::EdDSA);
        if trial.is_err_and(|trouble| matches!(trouble.kind(), ErrorKind::InvalidEddsaKey)) {
            return Err(ALLOWED);
        }
        Ok(Self { kid, algorithm: Algorithm::EdDSA, key, digest: Sha256::digest(bytes).into() })
    }

    /// True if the algorithm of the header is the key's own, and the names agree where both have a name.
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

/// True for a point of small order, in any of its spellings (the list of libsodium's `ge25519_has_small_order`).
/// Under such a key, a signature that anybody can make fits many texts.
fn is_of_small_order(key: &[u8; 32]) -> bool {
    const fn spelt(first: u8, rest: u8, last: u8) -> [u8; 32] {
        let mut bytes = [rest; 32];
        bytes[0] = first;
        bytes[31] = last;
        bytes
    }
    /// The two points of order 8.
    const EIGHTH: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut plain = *key;
    // The sign of x is no part of the order.
    plain[31] &= 0x7f;
    let others = [
        spelt(0, 0, 0),
        spelt(1, 0, 0),
        spelt(0xec, 0xff, 0x7f),
        spelt(0xed, 0xff, 0x7f),
        spelt(0xee, 0xff, 0x7f),
    ];
    others.contains(&plain) || EIGHTH.contains(&plain)
}

/// The 32 bytes of an Ed25519 public key, from base64 or PEM.
fn ed25519_bytes(text: &str) -> Option<[u8; 32]> {
    /// The bytes before the key in a `SubjectPublicKeyInfo` (RFC 8410 §4).
    const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let text = text.trim();
    let pem = text
        .strip_prefix("-----BEGIN PUBLIC KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"));
    // Both alphabets of base64 are in use for keys; with the padding left out, one decoder reads all four
    // forms.
    let plain = pem.unwrap_or(text).replace('-', "+").replace('_', "/");
    let plain: String = plain.chars().filter(|c| !c.is_ascii_whitespace() && *c != '=').collect();
    let bytes = STANDARD_NO_PAD.decode(plain).ok()?;
    let raw = if pem.is_some() { bytes.strip_prefix(&SPKI_PREFIX)? } else { &bytes };
    raw.try_into().ok()
}

/// The claims of a token. Times are integers: a text, a fraction or a negative number refuses the whole token
/// (jsonwebtoken below 10.3 passed an `exp` spelt as text, CVE-2026-25537). So does a claim spelt twice.
#[derive(Deserialize)]
struct Claims {
    exp: u64,
    nbf: Option<u64>,
    rooms: Vec<String>,
    aud: Option<Audience>,
    iss: Option<String>,
}

/// The `aud` of a token: one audience, or a list (RFC 7519 §4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    /// True if one of the audiences is among `expected`.
    fn is_among(&self, expected: &[String]) -> bool {
        match self {
            Self::One(audience) => expected.contains(audience),
            Self::Several(audiences) => audiences.iter().any(|audience| expected.contains(audience)),
        }
    }
}

/// The claims that a token needs beside its signature, its times and its rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Values of `aud`, of which a token has one. None: a token has no `aud`.
    pub audiences: Vec<String>,
    /// Values of `iss`, of which a token has one. None: any.
    pub issuers: Vec<String>,
    /// The farthest `exp`, from now on.
    pub lifetime_max: Duration,
}

impl Default for Expected {
    fn default() -> Self {
        Self { audiences: Vec::new(), issuers: Vec::new(), lifetime_max: TOKEN_LIFETIME }
    }
}

impl Expected {
    /// # Errors
    /// The failed check.
    fn check(&self, claims: &Claims, unix_s: u64) -> Result<(), &'static str> {
        // RFC 7519 §4.1.3: a token for another audience must be rejected. Without a configured audience, every
        // one is another. With one, a token without `aud` was not made for this node.
        let is_meant = match &claims.aud {
            Some(audience) => audience.is_among(&self.audiences),
            None => self.audiences.is_empty(),
        };
        if !is_meant {
            return Err("aud");
        }
        let is_trusted = claims.iss.as_ref().is_some_and(|issuer| self.issuers.contains(issuer));
        if !is_trusted && !self.issuers.is_empty() {
            return Err("iss");
        }
        // An `exp` in milliseconds, say: it would live for millennia.
        if claims.exp > unix_s.saturating_add(self.lifetime_max.as_secs()) {
            return Err("exp: past auth.lifetime_max_s");
        }
        Ok(())
    }
}

/// The keys that may sign devices' tokens. An empty list opens the door. A clone shares the list.
#[derive(Debug, Clone, Default)]
pub struct DeviceKeys {
    keys: Arc<[DeviceKey]>,
    expected: Arc<Expected>,
}

impl DeviceKeys {
    /// The keys in configured order. The configuration keeps the list within `DEVICE_KEYS_MAX`.
    pub(crate) fn new(keys: Vec<DeviceKey>, expected: Expected) -> Self {
        Self { keys: keys.into(), expected: Arc::new(expected) }
    }

    /// True if both hold the same keys, whatever other claims they expect.
    pub(crate) fn are_keys_of(&self, other: &Self) -> bool {
        self.keys == other.keys
    }

    /// True without keys: any device may join any room.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// The grant of a device's token at `unix_s`, in seconds since 1970. A token is valid from [`TOKEN_SKEW`]
    /// before its `nbf` until the second before its `exp`, if its other claims are as expected.
    ///
    /// # Errors
    /// [`Refused::TokenMissing`], [`Refused::TokenInvalid`], [`Refused::TokenExpired`].
    pub fn grant(&self, token: Option<&str>, unix_s: u64) -> Result<Grant, Refused> {
        if self.is_open() {
            return Ok(Grant::Any);
        }
        let token = token.filter(|token| !token.is_empty()).ok_or(Refused::TokenMissing)?;
        let claims = self.claims(token).map_err(invalid)?;
        // RFC 7519 §4.1.4: a token is refused on or after its `exp`.
        if unix_s >= claims.exp {
            return Err(Refused::TokenExpired);
        }
        // The issuer's clock may run ahead of ours (RFC 7519 §4.1.5): a token issued just now must not be
        // refused.
        if claims.nbf.is_some_and(|nbf| nbf > unix_s.saturating_add(TOKEN_SKEW.as_secs())) {
            return Err(invalid("nbf"));
        }
        if claims.rooms.len() > TOKEN_ROOMS_MAX {
            return Err(invalid("number of rooms"));
        }
        self.expected.check(&claims, unix_s).map_err(invalid)?;
        Ok(Grant::of_token(claims.exp, &claims.rooms))
    }

    /// The claims of a token signed by one of the keys.
    ///
    /// # Errors
    /// The failed check, for the log alone: a caller that heard it could forge step by step.
    fn claims(&self, token: &str) -> Result<Claims, &'static str> {
        // Before any decoding: the length bounds the work that a stranger can cause.
        if token.len() > TOKEN_BYTES_MAX {
            return Err("length");
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| "header")?;
        // RFC 7515 §4.1.11: an unknown extension must not be ignored, and no extension is known here.
        if header.crit.is_some() {
            return Err("crit");
        }
        let mut failed = "alg or kid";
        let signed = self.keys.iter().filter(|key| key.fits(&header)).find_map(|key| {
            // The library would ask the machine's clock, and would let claims of other types pass. `grant`
            // checks the times, and `Claims` the types.
            let mut signature_only = Validation::new(key.algorithm);
            signature_only.required_spec_claims.clear();
            signature_only.validate_exp = false;
            signature_only.validate_aud = false;
            let decoded = jsonwebtoken::decode::<Claims>(token, &key.key, &signature_only);
            decoded.inspect_err(|error| failed = failed_check(error.kind())).ok()
        });
        Ok(signed.ok_or(failed)?.claims)
    }
}

/// Notes the failed check of a token in the log. Neither the token nor a claim is in the line.
fn invalid(check: &'static str) -> Refused {
    debug!(check, "a device's token is invalid");
    Refused::TokenInvalid
}

fn failed_check(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::Json(_) => "form of exp, nbf, aud, iss or rooms",
        _ => "form of the token",
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use roomcast_core::room::id::RoomName;
    use serde_json::{Value, json};

    use super::*;

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
        DeviceKeys::new(vec![DeviceKey::hs256(None, SECRET).unwrap()], Expected::default())
    }

    fn eddsa_keys() -> DeviceKeys {
        DeviceKeys::new(vec![DeviceKey::eddsa(None, ED_PUBLIC).unwrap()], Expected::default())
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
        let token = hs256(&json!({"exp": 1000, "nbf": 500, "sub": "someone", "rooms": ["r"]}));
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
            json!({"exp": NOW + 60, "rooms": ["r"], "aud": 1}),
            json!({"exp": NOW + 60, "rooms": ["r"], "aud": [1]}),
            json!({"exp": NOW + 60, "rooms": ["r"], "iss": ["me"]}),
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
    fn a_token_for_another_audience_or_of_another_issuer_is_refused() {
        let key = || vec![DeviceKey::hs256(None, SECRET).unwrap()];
        let expected =
            Expected { audiences: vec!["live".into()], issuers: vec!["shop".into()], ..Expected::default() };
        let strict = DeviceKeys::new(key(), expected);
        let claims = |aud: Value, iss: Value| {
            let mut claims = json!({"exp": NOW + 60, "rooms": ["r"]});
            claims["aud"] = aud;
            claims["iss"] = iss;
            hs256(&claims)
        };
        for (aud, iss, by_default, by_strict) in [
            (json!(null), json!(null), true, false),
            (json!("live"), json!("shop"), false, true),
            (json!(["ads", "live"]), json!("shop"), false, true),
            (json!(["ads"]), json!("shop"), false, false),
            (json!([]), json!("shop"), false, false),
            (json!("live"), json!("ads"), false, false),
            (json!("live"), json!(null), false, false),
            (json!(null), json!("shop"), true, false),
        ] {
            let token = claims(aud.clone(), iss.clone());
            assert_eq!(hs256_keys().grant(Some(&token), NOW).is_ok(), by_default, "{aud} {iss}");
            assert_eq!(strict.grant(Some(&token), NOW).is_ok(), by_strict, "{aud} {iss}");
        }
    }

    #[test]
    fn an_exp_in_milliseconds_is_past_the_longest_lifetime() {
        let keys = hs256_keys();
        let longest = NOW + TOKEN_LIFETIME.as_secs();
        for (exp, good) in [(longest, true), (longest + 1, false), (NOW * 1000, false), (u64::MAX, false)] {
            let token = hs256(&json!({"exp": exp, "rooms": ["r"]}));
            assert_eq!(keys.grant(Some(&token), NOW).is_ok(), good, "{exp}");
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
        let keys = vec![
            DeviceKey::hs256(Some("a".into()), SECRET).unwrap(),
            DeviceKey::hs256(Some("b".into()), other).unwrap(),
        ];
        let keys = DeviceKeys::new(keys, Expected::default());
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
        let pem = "-----BEGIN PUBLIC KEY-----\n\
            MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
            -----END PUBLIC KEY-----\n";
        let url_safe = ED_PUBLIC.replace('/', "_").replace('+', "-").replace('=', "");
        let token =
            signed(&Header::new(Algorithm::EdDSA), &json!({"exp": NOW + 60, "rooms": []}), &ed_signer());
        for spelt in [ED_PUBLIC, pem, &url_safe] {
            let keys = DeviceKeys::new(vec![DeviceKey::eddsa(None, spelt).unwrap()], Expected::default());
            assert!(keys.grant(Some(&token), NOW).is_ok(), "{spelt}");
        }
        let no_point = STANDARD_NO_PAD.encode([2_u8; 32]);
        for bad in ["", "AAAA", "not base64!", &no_point] {
            assert!(DeviceKey::eddsa(None, bad).is_err(), "{bad:?}");
        }
        assert!(DeviceKey::hs256(None, &[7; SECRET_BYTES_MIN - 1]).is_err());
    }

    #[test]
    fn debug_and_errors_never_show_a_secret_or_a_token() {
        let token = hs256(&json!({"exp": 1, "rooms": ["r"]}));
        let refused = hs256_keys().grant(Some(&token), NOW).unwrap_err();
        let short = DeviceKey::hs256(None, b"canary").unwrap_err();
        let shown = format!("{:#?} {:?} {refused:?} {refused} {short:?} {short}", hs256_keys(), eddsa_keys());
        let bytes_shown = format!("{:?}", &SECRET[..4]);
        for leak in ["canary", bytes_shown.trim_matches(['[', ']']), &token, "11qYAY"] {
            assert!(!shown.contains(leak), "{leak} in {shown}");
        }
    }
}
