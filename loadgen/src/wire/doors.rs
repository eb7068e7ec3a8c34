//! The doors of the node under load: where they are, whether roomcast is behind them, and what they say.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a door may take to answer before the run.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(5);
/// Largest answer that is read. Past it what is here has to do.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// One door, as typed and as resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Door {
    scheme: String,
    authority: String,
    address: SocketAddr,
}

impl Door {
    /// `host:port` as typed.
    #[must_use]
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it was typed with this scheme.
    #[must_use]
    pub(crate) fn is_scheme(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    /// Asks for `path` and gives the status code of the answer.
    ///
    /// # Errors
    /// A sentence that says why there was no HTTP answer.
    pub(crate) fn ask(&self, path: &str, bearer: Option<&str>) -> Result<u16, String> {
        let has_head = |answer: &[u8]| answer.windows(4).any(|end| end == b"\r\n\r\n");
        let answer = self.exchange(path, bearer, has_head).map_err(|error| error.to_string())?;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&answer).map_err(|error| format!("no HTTP answer: {error}"))?;
        response.code.ok_or_else(|| "no HTTP answer".to_owned())
    }

    /// Asks for `path` and gives the body of the answer.
    ///
    /// # Errors
    /// A sentence that says why there was no answer, or none with a body.
    pub(crate) fn read(&self, path: &str) -> Result<String, String> {
        let is_whole = |answer: &[u8]| body(answer).is_some();
        let answer = self.exchange(path, None, is_whole).map_err(|error| error.to_string())?;
        let body = body(&answer).ok_or("half an answer, or one without a Content-Length")?;
        Ok(String::from_utf8_lossy(body).into_owned())
    }

    /// The values of metrics without labels, at the operator door, where it has them.
    ///
    /// # Errors
    /// A sentence that says why there is no answer.
    pub(crate) fn metrics<const N: usize>(&self, names: [&str; N]) -> Result<[Option<u64>; N], String> {
        let metrics = self.read("/metrics").map_err(|reason| format!("operator door {self}: {reason}"))?;
        let value = |name: &str| {
            let mut lines = metrics.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        };
        Ok(names.map(value))
    }

    fn exchange(
        &self,
        path: &str,
        bearer: Option<&str>,
        is_enough: impl Fn(&[u8]) -> bool,
    ) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_AGE_MAX)?;
        stream.set_read_timeout(Some(ANSWER_AGE_MAX))?;
        stream.set_write_timeout(Some(ANSWER_AGE_MAX))?;
        let authorization = bearer.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Connection: close\r\n\r\n",
            self.authority
        )?;
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while answer.len() < ANSWER_BYTES_MAX && !is_enough(&answer) {
            match stream.read(&mut chunk)? {
                0 => break,
                read => answer.extend_from_slice(&chunk[..read]),
            }
        }
        Ok(answer)
    }
}

/// The body of an answer, once all of it is here.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = response.parse(answer).ok()? else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    let body_bytes: usize = std::str::from_utf8(length.value).ok()?.trim().parse().ok()?;
    answer.get(head_bytes..head_bytes.checked_add(body_bytes)?)
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("a door is SCHEME://HOST:PORT")?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let address = authority
            .to_socket_addrs()
            .map_err(|error| format!("{authority:?} is no HOST:PORT: {error}"))?
            .next()
            .ok_or_else(|| format!("{authority:?} has no address"))?;
        Ok(Self { scheme: scheme.to_owned(), authority: authority.to_owned(), address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_there_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na 1\nb";
        for end in 0..answer.len() {
            assert_eq!(body(&answer[..end]), None, "{end} bytes");
        }
        assert_eq!(body(answer), Some(&b"a 1\nb"[..]));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nendless"), None);
    }

    #[test]
    fn a_door_is_a_scheme_a_host_and_a_port() {
        let door: Door = "ws://127.0.0.1:7600".parse().unwrap();
        assert_eq!((door.authority(), door.to_string().as_str()), ("127.0.0.1:7600", "ws://127.0.0.1:7600"));
        assert!(door.is_scheme("ws") && !door.is_scheme("http"));
        for wrong in ["127.0.0.1:7600", "ws://127.0.0.1", "ws://:x", ""] {
            assert!(wrong.parse::<Door>().is_err(), "{wrong}");
        }
    }
}
