//! A question to the operator door of a running node, for the commands of `roomcast` that ask one. Plain HTTP/1.1: a
//! container has no curl, and a question needs no client of a runtime.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::clock;

/// An operator door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpsDoor {
    /// `HOST:PORT` as typed, for the header `Host`.
    authority: String,
    /// The addresses of the host, each to be tried.
    addresses: Vec<SocketAddr>,
}

/// A question to a door, with its bounds.
#[derive(Debug, Clone, Copy)]
pub struct DoorQuestion<'a> {
    /// The path.
    pub path: &'a str,
    /// The bearer key, if the door wants one.
    pub key: Option<&'a str>,
    /// Time from the question to the end of the answer. Later: an error.
    pub age_max: Duration,
    /// Bytes of the answer. Above: an error.
    pub bytes_max: u64,
}

/// A door's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorAnswer {
    /// The status code.
    pub status: u16,
    /// The body, whole.
    pub body: String,
}

impl OpsDoor {
    /// The door of a node on this machine that listens there.
    #[must_use]
    pub fn of(listen: SocketAddr) -> Self {
        let address = from_inside(listen);
        Self { authority: address.to_string(), addresses: vec![address] }
    }

    /// Reads a URL, `http://HOST:PORT`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(url: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: http://HOST:PORT";
        let rest =
            url.strip_prefix("http://").ok_or_else(|| format!("{url:?} is no URL of a door; {ALLOWED}"))?;
        // A URL copied from a browser ends with a slash.
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte);
        if !authority.bytes().all(is_host) {
            return Err(format!("{authority:?} is no HOST:PORT; {ALLOWED}"));
        }
        let addresses =
            authority.to_socket_addrs().map_err(|error| format!("{authority:?}: {error}; {ALLOWED}"))?;
        Ok(Self { authority: authority.to_owned(), addresses: addresses.collect() })
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// No answer in time, too large a one, or none of HTTP.
    pub fn ask(&self, question: &DoorQuestion<'_>) -> io::Result<DoorAnswer> {
        let deadline = clock::now().instant + question.age_max;
        let left = || {
            let left = deadline.saturating_duration_since(clock::now().instant);
            // A socket takes no time of zero.
            if left.is_zero() { Err(late(question)) } else { Ok(left) }
        };
        let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
        let mut door = None;
        for address in &self.addresses {
            match TcpStream::connect_timeout(address, left()?) {
                Ok(connected) => {
                    door = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let mut door = door.ok_or(last)?;
        let DoorQuestion { path, key, .. } = question;
        let authorization = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\n{authorization}connection: close\r\n\r\n",
            self.authority
        );
        door.set_write_timeout(Some(left()?))?;
        door.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            // For the whole answer: a door that sends a byte now and then holds up nobody.
            door.set_read_timeout(Some(left()?))?;
            match door.read(&mut chunk) {
                Ok(0) => return DoorAnswer::read(&answer),
                Ok(read) => answer.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(late(question));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if answer.len() as u64 > question.bytes_max {
                return Err(io::Error::other(format!("an answer of more than {} bytes", question.bytes_max)));
            }
        }
    }
}

impl fmt::Display for OpsDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl DoorAnswer {
    /// Reads an answer of which the door has closed the connection.
    fn read(bytes: &[u8]) -> io::Result<Self> {
        let strange = || io::Error::other("no HTTP answer, or half of one");
        let text = str::from_utf8(bytes).map_err(|_| strange())?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        // The doors name the length of each body. A shorter one has been cut off.
        let length = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let is_whole = length.is_none_or(|(_, length)| length.trim().parse() == Ok(body.len()));
        match status {
            Some(status) if is_whole => Ok(Self { status, body: body.to_owned() }),
            _ => Err(strange()),
        }
    }
}

/// The kernel says "resource temporarily unavailable" for a time that is over.
fn late(question: &DoorQuestion<'_>) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("no answer in {} s", question.age_max.as_secs_f64()))
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
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const QUESTION: DoorQuestion<'_> =
        DoorQuestion { path: "/x", key: Some("k"), age_max: Duration::from_secs(20), bytes_max: 300 };

    /// A door that says these bytes, and the request that it heard.
    fn said(bytes: &'static str, question: &DoorQuestion<'_>) -> (io::Result<DoorAnswer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = OpsDoor::of(listener.local_addr().unwrap());
        let node = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                heard.push(byte[0]);
            }
            stream.write_all(bytes.as_bytes()).unwrap();
            String::from_utf8(heard).unwrap()
        });
        let answer = door.ask(question);
        (answer, node.join().unwrap())
    }

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

    #[test]
    fn a_door_is_http_a_host_and_a_port() {
        for url in ["http://127.0.0.1:7602", "http://127.0.0.1:7602/"] {
            assert_eq!(OpsDoor::parse(url), Ok(OpsDoor::of("127.0.0.1:7602".parse().unwrap())), "{url}");
        }
        for url in
            ["127.0.0.1:7602", "https://127.0.0.1:7602", "http://127.0.0.1", "http://a b:1", "http://:x", ""]
        {
            let why = OpsDoor::parse(url).unwrap_err();
            assert!(why.ends_with("allowed: http://HOST:PORT"), "{url}: {why}");
        }
    }

    #[test]
    fn a_door_is_asked_with_its_name_and_the_key() {
        let (answer, heard) = said("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", &QUESTION);
        assert_eq!(answer.unwrap(), DoorAnswer { status: 404, body: "{}".to_owned() });
        let host = heard.lines().nth(1).unwrap();
        assert!(host.starts_with("host: 127.0.0.1:"), "{heard}");
        assert!(heard.starts_with("GET /x HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("\r\nauthorization: Bearer k\r\nconnection: close\r\n"), "{heard}");
    }

    #[test]
    fn half_an_answer_is_none_and_so_is_a_stranger_s() {
        for bytes in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
        ] {
            let (answer, _) = said(bytes, &QUESTION);
            assert_eq!(answer.unwrap_err().to_string(), "no HTTP answer, or half of one", "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_past_its_bounds_is_none() {
        let (answer, _) = said("HTTP/1.1 200 OK\r\n\r\n{}", &DoorQuestion { bytes_max: 20, ..QUESTION });
        assert_eq!(answer.unwrap_err().to_string(), "an answer of more than 20 bytes");
        // A door that takes the question and says nothing.
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = OpsDoor::of(mute.local_addr().unwrap());
        let question = DoorQuestion { age_max: Duration::from_millis(50), ..QUESTION };
        assert_eq!(door.ask(&question).unwrap_err().to_string(), "no answer in 0.05 s");
        drop(mute);
        assert_eq!(door.ask(&QUESTION).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
