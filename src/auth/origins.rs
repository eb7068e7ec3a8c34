//! Origins: the web pages that may open the viewer door.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::BadCredential;

/// The web pages that may open the viewer door. A request without an `Origin` header is not from a web page,
/// and passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Pages of this machine: the default of a door on loopback.
    Loopback,
    /// Exactly the listed origins, compared as text.
    Listed(BTreeSet<String>),
}

impl Origins {
    /// The default of a door on `ip`: pages of this machine for a loopback address, no page for any other.
    pub(crate) fn default_for(ip: IpAddr) -> Self {
        if ip.to_canonical().is_loopback() { Self::Loopback } else { Self::Listed(BTreeSet::new()) }
    }

    /// True if a request with the `Origin` header `origin` may pass.
    #[must_use]
    pub fn allows(&self, origin: Option<&str>) -> bool {
        // Browsers send the header with each handshake (RFC 6455 §10.2): without one the caller is an app.
        let Some(origin) = origin else { return true };
        match self {
            // Not `null`: every sandboxed frame of every page sends it, so it stands for anybody.
            Self::Loopback => is_loopback_origin(origin),
            Self::Listed(listed) => listed.contains(origin),
        }
    }

    /// Checks one entry of a configured list: `null`, or an origin in the spelling of browsers. Any other
    /// spelling would never match, since origins are compared as text.
    ///
    /// # Errors
    /// [`BadCredential`] with the spelling of browsers.
    pub(crate) fn check(entry: &str) -> Result<(), BadCredential> {
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
        // Browsers leave the default port out, so an entry that has it would match no page.
        let default_port = matches!((scheme, port), ("http", Some(80)) | ("https", Some(443)));
        if scheme_fits && host_fits && !default_port { Ok(()) } else { Err(ALLOWED) }
    }
}

/// True for `http` or `https` from `localhost`, 127.0.0.0/8 or `[::1]`, on any port.
fn is_loopback_origin(origin: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let Some((host, _)) = authority.and_then(split_port) else { return false };
    // The whole host is compared: "localhost.evil.example" begins like ours and belongs to a stranger.
    host == "localhost" || host == "[::1]" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Host and port of an authority. `None` if the port is not spelt as browsers spell ports.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // An IPv6 address has colons within its brackets.
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].find(':') else { return Some((authority, None)) };
    let (host, port) = authority.split_at(after_brackets + colon);
    let digits = &port[1..];
    let port: u16 = digits.parse().ok()?;
    // parse also takes "+80" and "0443", which no browser sends.
    (port.to_string() == digits).then_some((host, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_door_admits_this_machines_pages() {
        let origins = Origins::default_for("127.0.0.1".parse().unwrap());
        for good in [
            "http://localhost",
            "https://localhost:3000",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "https://[::1]:5173",
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
            "null",
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
}
