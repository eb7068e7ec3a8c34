//! Trusted proxies: networks whose word about a peer's address counts.
//!
//! A proxy stands between devices and a door, so that all devices come from one address. Shares by address
//! would then starve everybody. A proxy in `proxy.trusted` names the device's address: at the start of the
//! connection (PROXY protocol, version 2), or with each request (`X-Forwarded-For`). A stranger's word about
//! its own address is passed over.
//!
//! Pure: text and bytes go in, addresses come out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::BadCredential;

/// The first bytes of a header of the PROXY protocol, version 2. No request begins with them.
const PROXY_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of such a header before the addresses: signature, command, family, length.
pub(crate) const PROXY_HEAD_BYTES: usize = 16;

/// The networks of trusted proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

/// A network: `10.0.0.0/8`, or an address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: u128,
    /// Bits that all addresses of the network share, of 128.
    mask: u128,
}

impl Network {
    /// Reads a network, or an address.
    ///
    /// # Errors
    /// [`BadCredential`] with the spelling.
    pub(crate) fn parse(text: &str) -> Result<Self, BadCredential> {
        const ALLOWED: BadCredential =
            BadCredential { allowed: "an IP address, or a network such as 10.0.0.0/8 or fd00::/8" };
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits.parse::<u32>().map_err(|_| ALLOWED)?)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| ALLOWED)?;
        // IPv4 networks live behind ::ffff:0:0/96.
        let (before, bits_max) = if ip.is_ipv4() { (96, 32) } else { (0, 128) };
        let bits = bits.unwrap_or(bits_max);
        if bits > bits_max {
            return Err(ALLOWED);
        }
        let host_bits = 128 - before - bits;
        let mask = if host_bits == 128 { 0 } else { u128::MAX << host_bits };
        Ok(Self { base: bits_of(ip) & mask, mask })
    }
}

fn bits_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl Proxies {
    /// The proxies of these networks.
    pub(crate) fn of(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// True if the word of a proxy at `ip` counts.
    pub(crate) fn trust(&self, ip: IpAddr) -> bool {
        let ip = bits_of(ip.to_canonical());
        self.0.iter().any(|network| ip & network.mask == network.base)
    }

    /// The address in `X-Forwarded-For`, from the values of its lines in order. Each proxy adds the address
    /// of its own peer at the end, so the last address of an untrusted peer is the device's. What stands
    /// before it is the device's own claim.
    pub(crate) fn forwarded<'a>(&self, lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<IpAddr> {
        let mut named = None;
        for entry in lines.rev().flat_map(|line| line.rsplit(',')) {
            let Some(ip) = ip_in(entry.trim()) else { break };
            named = Some(ip);
            if !self.trust(ip) {
                break;
            }
        }
        named
    }
}

/// The address of an entry: bare, in brackets, or with a port.
fn ip_in(entry: &str) -> Option<IpAddr> {
    let bare = || entry.parse().ok();
    let with_port = || entry.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(in_brackets)
}

/// The length of the addresses and extensions that follow the head of a PROXY header. `None`: no such head.
pub(crate) fn proxy_rest_bytes(head: &[u8; PROXY_HEAD_BYTES]) -> Option<usize> {
    let is_version_2 = head[..12] == PROXY_SIGNATURE && head[12] >> 4 == 2;
    is_version_2.then(|| usize::from(u16::from_be_bytes([head[14], head[15]])))
}

/// The address of the device in a PROXY header. `Ok(None)`: the proxy speaks for itself (a health check), or
/// of no internet address.
///
/// # Errors
/// The addresses are cut off, or the command is unknown. The protocol wants such a connection closed.
pub(crate) fn proxy_source(head: &[u8; PROXY_HEAD_BYTES], rest: &[u8]) -> Result<Option<IpAddr>, ()> {
    match (head[12] & 0xf, head[13] >> 4) {
        // LOCAL, and AF_UNSPEC and AF_UNIX.
        (0, _) | (1, 0 | 3) => Ok(None),
        // AF_INET: two addresses of 4 bytes, two ports.
        (1, 1) if rest.len() >= 12 => {
            Ok(rest.first_chunk().map(|source: &[u8; 4]| IpAddr::V4(Ipv4Addr::from(*source))))
        }
        // AF_INET6: two addresses of 16 bytes, two ports.
        (1, 2) if rest.len() >= 36 => {
            Ok(rest.first_chunk().map(|source: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(*source))))
        }
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies(networks: &[&str]) -> Proxies {
        Proxies::of(networks.iter().map(|network| Network::parse(network).unwrap()).collect())
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_other() {
        let proxies = proxies(&["10.1.0.0/16", "192.0.2.7", "fd00::/8"]);
        for inside in ["10.1.0.1", "10.1.255.255", "192.0.2.7", "::ffff:10.1.2.3", "fd12::1"] {
            assert!(proxies.trust(ip(inside)), "{inside}");
        }
        for outside in ["10.2.0.1", "192.0.2.8", "fe80::1", "::1", "127.0.0.1"] {
            assert!(!proxies.trust(ip(outside)), "{outside}");
        }
        assert!(!Proxies::default().trust(ip("127.0.0.1")), "nobody is trusted unasked");
        assert!(self::proxies(&["0.0.0.0/0"]).trust(ip("8.8.8.8")));
        assert!(!self::proxies(&["0.0.0.0/0"]).trust(ip("2001:db8::1")));
        for bad in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "proxy.example", "10.0.0.0/-1", "10.0.0.0/"]
        {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_untrusted_address_is_the_devices() {
        let proxies = proxies(&["10.0.0.0/8"]);
        let named = |lines: &[&str]| proxies.forwarded(lines.iter().copied());
        assert_eq!(named(&["203.0.113.9"]), Some(ip("203.0.113.9")));
        assert_eq!(named(&["1.1.1.1, 203.0.113.9, 10.0.0.5"]), Some(ip("203.0.113.9")), "1.1.1.1 is a claim");
        assert_eq!(named(&["1.1.1.1", "203.0.113.9"]), Some(ip("203.0.113.9")), "lines in order");
        assert_eq!(named(&["10.0.0.5, 10.0.0.6"]), Some(ip("10.0.0.5")));
        assert_eq!(named(&["203.0.113.9:4711"]), Some(ip("203.0.113.9")));
        assert_eq!(named(&["[2001:db8::1]:4711"]), Some(ip("2001:db8::1")));
        assert_eq!(named(&["[2001:db8::1]"]), Some(ip("2001:db8::1")));
        assert_eq!(named(&["203.0.113.9, unknown"]), None);
        assert_eq!(named(&["unknown, 10.0.0.5"]), Some(ip("10.0.0.5")));
        assert_eq!(named(&[]), None);
    }

    fn head(command: u8, family: u8, rest_bytes: u16) -> [u8; PROXY_HEAD_BYTES] {
        let mut head = [0; PROXY_HEAD_BYTES];
        head[..12].copy_from_slice(&PROXY_SIGNATURE);
        head[12] = command;
        head[13] = family;
        head[14..].copy_from_slice(&rest_bytes.to_be_bytes());
        head
    }

    #[test]
    fn a_proxy_header_names_the_source() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        assert_eq!(proxy_rest_bytes(&head(0x21, 0x11, 12)), Some(12));
        assert_eq!(proxy_source(&head(0x21, 0x11, 12), &v4), Ok(Some(ip("203.0.113.9"))));
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[15] = 1;
        assert_eq!(proxy_source(&head(0x21, 0x21, 36), &v6), Ok(Some(ip("2001:db8::1"))));
        assert_eq!(proxy_source(&head(0x20, 0x00, 0), &[]), Ok(None), "a health check");
        assert_eq!(proxy_source(&head(0x21, 0x00, 0), &[]), Ok(None));
        assert_eq!(proxy_source(&head(0x21, 0x11, 11), &v4[..11]), Err(()));
        assert_eq!(proxy_source(&head(0x22, 0x11, 12), &v4), Err(()));
        assert_eq!(proxy_rest_bytes(&head(0x11, 0x11, 12)), None, "version 1 in binary does not exist");
        assert_eq!(proxy_rest_bytes(b"GET / HTTP/1.1\r\n"), None);
    }
}
