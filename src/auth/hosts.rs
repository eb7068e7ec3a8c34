//! Hosts: the names by which callers reach a door without keys.
//!
//! A stranger's page can point a name of its own at this machine (DNS rebinding). Its requests then look like
//! those of a program beside the node: same address, no preflight. Only the `Host` header tells them apart.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::BadCredential;
use super::origins::split_port;

/// The configured names of hosts, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// The names that [`Self::check`] returned.
    pub(crate) fn of(names: BTreeSet<String>) -> Self {
        Self(names)
    }

    /// Checks a configured name. Returns the name in lower case.
    ///
    /// # Errors
    /// [`BadCredential`] with the spelling.
    pub(crate) fn check(name: &str) -> Result<String, BadCredential> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_address = name.parse::<IpAddr>().is_ok();
        if is_address || (!name.is_empty() && name.len() <= 253 && name.chars().all(fits)) {
            return Ok(name.to_ascii_lowercase());
        }
        Err(BadCredential { allowed: "a host name or an IP address, without a port" })
    }

    /// True if the `Host` header of a request to the door on `door` names this machine, or a configured name.
    /// The port does not count: it may be forwarded.
    pub(crate) fn are_reached_by(&self, host: &str, door: IpAddr) -> bool {
        split_port(host).is_some_and(|(host, _)| self.holds(host, door))
    }

    /// True if a page of `origin` is a page of this machine, or of a configured name.
    pub(crate) fn serve_page(&self, origin: &str, door: IpAddr) -> bool {
        // An origin led nowhere: at a door on every address it tells nothing that an address is named.
        let door = if door.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { door };
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| self.are_reached_by(authority, door))
    }

    fn holds(&self, host: &str, door: IpAddr) -> bool {
        let host = host.to_ascii_lowercase();
        if host == "localhost" || self.0.contains(&host) {
            return true;
        }
        let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let ip: Option<IpAddr> = match in_brackets {
            Some(ip) => ip.parse().ok().map(|ip: Ipv6Addr| ip.into()),
            None => host.parse().ok().map(|ip: Ipv4Addr| ip.into()),
        };
        // An address that led here is this machine's: no page can point it elsewhere.
        ip.is_some_and(|ip| {
            let ip = ip.to_canonical();
            let is_listed = self.0.contains(&ip.to_string());
            is_listed || ip.is_loopback() || ip == door.to_canonical() || door.is_unspecified()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Hosts {
        Hosts::of(names.iter().map(|name| Hosts::check(name).unwrap()).collect())
    }

    #[test]
    fn a_door_without_keys_is_reached_by_this_machine_s_names_alone() {
        let hosts = hosts(&["Roomcast.internal", "203.0.113.7"]);
        let door: IpAddr = "10.0.0.5".parse().unwrap();
        for own in [
            "localhost",
            "LOCALHOST:7601",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:7601",
            "10.0.0.5",
            "10.0.0.5:7601",
            "[::ffff:10.0.0.5]:7601",
            "roomcast.INTERNAL:7601",
            "203.0.113.7",
        ] {
            assert!(hosts.are_reached_by(own, door), "{own}");
            assert!(hosts.serve_page(&format!("http://{own}"), door), "{own}");
        }
        for foreign in [
            "",
            ":7601",
            "evil.example",
            "evil.example:7601",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.6",
            "0.0.0.0",
            "[::2]",
            "[::1]evil",
            "::1",
            "localhost:99999",
            "roomcast.internal.evil.example",
        ] {
            assert!(!hosts.are_reached_by(foreign, door), "{foreign}");
            assert!(!hosts.serve_page(&format!("https://{foreign}"), door), "{foreign}");
        }
        for foreign in
            ["null", "", "localhost", "file://", "ftp://localhost", "http://localhost@evil.example"]
        {
            assert!(!hosts.serve_page(foreign, door), "{foreign}");
        }
    }

    #[test]
    fn a_door_on_every_address_is_reached_by_any_address_and_by_no_other_name() {
        for door in ["0.0.0.0", "::"] {
            let door: IpAddr = door.parse().unwrap();
            assert!(Hosts::default().are_reached_by("10.0.0.6:7601", door));
            assert!(Hosts::default().are_reached_by("[2001:db8::1]", door));
            assert!(!Hosts::default().are_reached_by("evil.example", door));
            assert!(!Hosts::default().serve_page("http://203.0.113.66", door), "a stranger's page");
            assert!(Hosts::default().serve_page("http://127.0.0.1:7600", door));
        }
    }

    #[test]
    fn a_host_is_configured_without_a_port() {
        for bad in ["", "a:80", "http://a", "a/b", "*.a", "[::1]", "a b"] {
            assert!(Hosts::check(bad).is_err(), "{bad}");
        }
        for good in ["roomcast", "a.b-c_d", "10.0.0.1", "2001:db8::1"] {
            assert!(Hosts::check(good).is_ok(), "{good}");
        }
    }
}
