//! The doors of the node under load: their addresses, and plain HTTP questions.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::monotonic_ns;
use crate::wire::http::{FOREIGN_HOST, Head, authorization, foreign_host, read_head};

/// Longest time of a question at a door before and during the run, from the connect to the last byte.
pub(crate) const ANSWER_AGE_MAX: Duration = Duration::from_secs(5);
/// The same after the run: a node without load answers in milliseconds, and the report waits.
pub(crate) const ANSWER_AGE_MAX_AFTER: Duration = Duration::from_secs(2);
/// Largest answer read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A door, as typed and as resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) scheme: String,
    /// `HOST:PORT` as typed.
    pub(crate) authority: String,
    pub(crate) address: SocketAddr,
}

impl Door {
    /// The node is on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// A request for `path`. The door closes the connection after its answer.
    pub(crate) fn request(&self, path: &str, bearer: Option<&str>) -> String {
        let authorization = authorization(bearer);
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Connection: close\r\n\r\n", self.authority)
    }

    /// Asks for `path` and gives the status code of the answer.
    ///
    /// # Errors
    /// A sentence, when no HTTP answer came within `age_max`.
    pub(crate) fn ask(&self, path: &str, bearer: Option<&str>, age_max: Duration) -> Result<u16, String> {
        self.exchange(path, bearer, age_max, |received| {
            Ok(read_head(received, ANSWER_BYTES_MAX)?.map(|head| head.code))
        })
    }

    /// Asks for `path` and gives the body of the answer.
    ///
    /// # Errors
    /// A sentence, when no answer with a body came within `age_max`.
    pub(crate) fn read(&self, path: &str, age_max: Duration) -> Result<String, String> {
        self.exchange(path, None, age_max, |received| {
            let Some(head) = read_head(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
            let body = head.body(received, ANSWER_BYTES_MAX)?;
            Ok(body.map(|body| String::from_utf8_lossy(body).into_owned()))
        })
    }

    /// The values of metrics without labels at the operator door; `None` for a metric absent there.
    ///
    /// # Errors
    /// A sentence, when no answer came within `age_max`.
    pub(crate) fn metrics<const N: usize>(
        &self,
        names: [&str; N],
        age_max: Duration,
    ) -> Result<[Option<u64>; N], String> {
        let metrics = self.read("/metrics", age_max);
        let metrics = metrics.map_err(|reason| format!("operator door {self}: {reason}"))?;
        let value = |name: &str| {
            let mut lines = metrics.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        };
        Ok(names.map(value))
    }

    /// Sends one request and reads until `take` finds the wanted part of the answer, for `age_max` in all.
    ///
    /// # Errors
    /// A sentence, when no HTTP answer came in time.
    pub(crate) fn exchange<T>(
        &self,
        path: &str,
        bearer: Option<&str>,
        age_max: Duration,
        take: impl Fn(&[u8]) -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        // The kernel says "resource temporarily unavailable" for a time that is over.
        let no_answer = || format!("no answer in {} s", age_max.as_secs_f64());
        let said = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => no_answer(),
            _ => error.to_string(),
        };
        let deadline_ns = monotonic_ns() + u64::try_from(age_max.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut stream = TcpStream::connect_timeout(&self.address, age_max).map_err(said)?;
        stream.set_write_timeout(Some(age_max)).map_err(said)?;
        stream.write_all(self.request(path, bearer).as_bytes()).map_err(said)?;
        let mut answer = Vec::new();
        let mut chunk = [0; 16 * 1024];
        // `take` refuses an answer past its limit.
        loop {
            // The limit is for the whole answer: a door that sends a byte now and then holds up nobody.
            let left_ns = deadline_ns.checked_sub(monotonic_ns()).filter(|left_ns| *left_ns > 0);
            let left = Duration::from_nanos(left_ns.ok_or_else(no_answer)?);
            stream.set_read_timeout(Some(left)).map_err(said)?;
            let read = stream.read(&mut chunk).map_err(said)?;
            answer.extend_from_slice(&chunk[..read]);
            // An operator would look for the mistake in the flags, and it is in the node's configuration.
            if let Ok(Some(Head { code: FOREIGN_HOST, .. })) = read_head(&answer, ANSWER_BYTES_MAX) {
                return Err(foreign_host(&self.authority));
            }
            if let Some(taken) = take(&answer)? {
                return Ok(taken);
            }
            // The door closes after its answer, because the request asked for that.
            if read == 0 {
                return Err("no HTTP answer, or half of one".into());
            }
        }
    }
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
        // A URL copied from a browser ends with a slash.
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
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_door_that_accepts_and_does_not_answer_is_named_in_words_after_its_limit() {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mute: Door = format!("http://{}", door.local_addr().unwrap()).parse().unwrap();
        let age_max = Duration::from_millis(50);
        assert_eq!(mute.ask("/readyz", None, age_max), Err("no answer in 0.05 s".to_owned()));
        // A byte now and then is no answer either: the limit is for the whole.
        let dripping = std::thread::spawn(move || {
            let (_first, _) = door.accept().unwrap();
            let (mut stream, _) = door.accept().unwrap();
            while stream.write_all(b"H").is_ok() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        let take = |_: &[u8]| Ok(None::<()>);
        assert_eq!(mute.exchange("/", None, age_max, take), Err("no answer in 0.05 s".to_owned()));
        dripping.join().unwrap();
    }

    #[test]
    fn a_door_that_does_not_know_its_name_is_explained_to_every_question() {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let named = Door {
            authority: "roomcast:7601".to_owned(),
            ..format!("http://{}", door.local_addr().unwrap()).parse().unwrap()
        };
        let answering = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = door.accept().unwrap();
                stream.write_all(b"HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
        });
        let explained = Err(foreign_host("roomcast:7601"));
        assert_eq!(named.ask("/v1/rooms", None, ANSWER_AGE_MAX), explained);
        assert_eq!(named.read("/metrics", ANSWER_AGE_MAX).map(drop), explained.map(drop));
        answering.join().unwrap();
    }

    #[test]
    fn a_door_is_a_scheme_a_host_and_a_port() {
        let door: Door = "ws://127.0.0.1:7600".parse().unwrap();
        assert_eq!((&*door.authority, &*door.to_string()), ("127.0.0.1:7600", "ws://127.0.0.1:7600"));
        assert_eq!(door.scheme, "ws");
        for wrong in ["127.0.0.1:7600", "ws://127.0.0.1", "ws://:x", ""] {
            assert!(wrong.parse::<Door>().is_err(), "{wrong}");
        }
    }
}
