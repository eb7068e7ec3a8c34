//! The health check of a container, whose image has no shell and no curl: a question to the node's own operator
//! door.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use roomcast_core::limits::{HEALTH_AGE_MAX, HEALTH_BYTES_MAX};

/// Asks the node with this operator door for `/healthz`, and returns its answer.
///
/// # Errors
/// No node answers there in time, or it does not answer 200.
pub fn check(ops_listen: SocketAddr) -> io::Result<String> {
    let mut door = TcpStream::connect_timeout(&from_inside(ops_listen), HEALTH_AGE_MAX)?;
    door.set_read_timeout(Some(HEALTH_AGE_MAX))?;
    door.set_write_timeout(Some(HEALTH_AGE_MAX))?;
    door.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    door.take(HEALTH_BYTES_MAX).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("not healthy: {answer:?}"))),
    }
}

/// The address under which a process of the same machine reaches a door.
fn from_inside(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        // A door on all addresses is on loopback as well.
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:7602", "127.0.0.1:7602"),
            ("[::]:7602", "[::1]:7602"),
            ("10.0.0.7:7602", "10.0.0.7:7602"),
        ] {
            assert_eq!(from_inside(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
