//! stand-in
use crate::connection::Grant;

/// stand-in
#[derive(Debug, Clone)]
pub struct PublisherKeys;
/// stand-in
#[derive(Debug, Clone)]
pub struct DeviceKeys;
/// stand-in
#[derive(Debug, Clone)]
pub struct Origins;
/// stand-in
#[derive(Debug, Clone, Copy)]
pub struct Refused;

impl PublisherKeys {
    /// stand-in
    ///
    /// # Errors
    /// stand-in
    pub fn admits(&self, authorization: Option<&str>) -> Result<(), Refused> {
        if authorization == Some("Bearer bad") { Err(Refused) } else { Ok(()) }
    }
}

impl DeviceKeys {
    /// stand-in
    ///
    /// # Errors
    /// stand-in
    pub fn grant(&self, token: Option<&str>, _unix_s: u64) -> Result<Grant, Refused> {
        if token == Some("bad") { Err(Refused) } else { Ok(Grant::Any) }
    }
}

impl Origins {
    /// stand-in
    #[must_use]
    pub fn allows(&self, origin: Option<&str>) -> bool {
        origin != Some("https://evil.example")
    }
}

impl Refused {
    /// stand-in
    #[must_use]
    pub fn status(&self) -> u16 {
        401
    }

    /// stand-in
    #[must_use]
    pub fn code(&self) -> &'static str {
        "unauthorized"
    }
}
