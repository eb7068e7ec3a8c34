//! A device's opening handshake: what it asks, and whether the answer is roomcast's. Pure.

use crate::wire::doors::Door;
use crate::wire::frame::Encoding;

/// Longest answer to a handshake. Past it the answer is nobody's we know.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What all devices of a worker ask, but for the room.
#[derive(Debug)]
pub(crate) struct Handshake {
    door: Door,
    encoding: Encoding,
    device_token: Option<String>,
    key: String,
    accept: String,
}

/// What the bytes read so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandshakeAnswer {
    /// Not the whole answer yet.
    Half,
    /// The connection speaks frames from here on.
    Upgraded {
        /// Bytes of the answer; frames begin behind them.
        bytes: usize,
    },
    /// Refused, in words.
    Refused(String),
}

impl Handshake {
    /// A handshake at `door`.
    #[must_use]
    pub(crate) fn new(door: Door, encoding: Encoding, device_token: Option<String>) -> Self {
        // One key for all: it only proves that the answer is to a handshake and not to something else.
        let key = "bG9hZGdlbi1sb2FkZ2VuIQ==".to_owned();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        Self { door, encoding, device_token, key, accept }
    }

    /// The opcode that carries frames of this encoding.
    #[must_use]
    pub(crate) fn opcode(&self) -> u8 {
        self.encoding.opcode()
    }

    /// Where the door is.
    #[must_use]
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// The encoding it asks for.
    #[must_use]
    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The header that says who the device is; empty without a token.
    fn authorization(&self) -> String {
        match &self.device_token {
            Some(token) => format!("Authorization: Bearer {token}\r\n"),
            None => String::new(),
        }
    }

    /// The request for what `room`'s reliable stream holds behind `cursor`, or all of it.
    #[must_use]
    pub(crate) fn pull(&self, room: &str, cursor: Option<&str>) -> Vec<u8> {
        let after = cursor.map(|cursor| format!("?after={cursor}")).unwrap_or_default();
        let host = self.door.authority();
        let authorization = self.authorization();
        format!(
            "GET /v1/rooms/{room}/reliable{after} HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n"
        )
        .into_bytes()
    }

    /// The request for a place in `room`; `query` begins with `?` or is empty.
    #[must_use]
    pub(crate) fn request(&self, room: &str, query: &str) -> Vec<u8> {
        let authorization = self.authorization();
        format!(
            "GET /v1/rooms/{room}/ws{query} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: {}\r\n{authorization}\r\n",
            self.door.authority(),
            self.key,
            self.encoding.subprotocol(),
        )
        .into_bytes()
    }

    /// Judges what was read so far.
    #[must_use]
    pub(crate) fn answer(&self, bytes: &[u8]) -> HandshakeAnswer {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < ANSWER_BYTES_MAX => return HandshakeAnswer::Half,
            Ok(httparse::Status::Partial) => return HandshakeAnswer::Refused("an endless answer".into()),
            Err(error) => return HandshakeAnswer::Refused(format!("no HTTP answer: {error}")),
        };
        let code = response.code.unwrap_or(0);
        if code != 101 {
            return HandshakeAnswer::Refused(format!("HTTP {code}"));
        }
        let header = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or("")
        };
        if header("sec-websocket-accept") != self.accept {
            return HandshakeAnswer::Refused("an upgrade without the right Sec-WebSocket-Accept".into());
        }
        if header("sec-websocket-protocol") != self.encoding.subprotocol() {
            return HandshakeAnswer::Refused(format!(
                "not roomcast: it does not speak {}",
                self.encoding.subprotocol()
            ));
        }
        HandshakeAnswer::Upgraded { bytes: length }
    }
}
