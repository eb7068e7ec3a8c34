//! A device's opening handshake: the request, and the check of the answer. Pure.

use crate::wire::doors::Door;
use crate::wire::frame::Encoding;
use crate::wire::http::{FOREIGN_HOST, authorization, foreign_host, read_head};

/// Largest head of an answer to a handshake.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// One key for all devices: the key only proves that the answer belongs to a handshake.
const KEY: &str = "bG9hZGdlbi1sb2FkZ2VuIQ==";

/// The handshakes of a worker's devices, the same but for the door and the room.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) encoding: Encoding,
    /// The `Authorization` line; empty without a device token.
    authorization: String,
    accept: String,
}

impl Handshake {
    pub(crate) fn new(encoding: Encoding, device_token: Option<&str>) -> Self {
        let accept = tungstenite::handshake::derive_accept_key(KEY.as_bytes());
        Self { encoding, authorization: authorization(device_token), accept }
    }

    /// The request to `door` for a place in `room`; `query` begins with `?` or is empty.
    pub(crate) fn request(&self, door: &Door, room: &str, query: &str) -> Vec<u8> {
        format!(
            "GET /v1/rooms/{room}/ws{query} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: {}\r\n{}\r\n",
            door.authority,
            self.encoding.subprotocol(),
            self.authorization
        )
        .into_bytes()
    }

    /// The length of a whole answer of `door` that accepts the device: frames begin behind. `None` while bytes are
    /// missing.
    ///
    /// # Errors
    /// A sentence about an answer that refuses the device, or that is not roomcast's.
    pub(crate) fn answer(&self, door: &Door, received: &[u8]) -> Result<Option<usize>, String> {
        let Some(head) = read_head(received, ANSWER_BYTES_MAX)? else { return Ok(None) };
        if head.code == FOREIGN_HOST {
            return Err(foreign_host(&door.authority));
        }
        if head.code != 101 {
            return Err(format!("HTTP {}", head.code));
        }
        // RFC 6455, 4.1: without the right key the answer is to another request.
        if head.header("sec-websocket-accept") != Some(&*self.accept) {
            return Err("an upgrade without the right Sec-WebSocket-Accept".into());
        }
        let subprotocol = self.encoding.subprotocol();
        // Another WebSocket server accepts the upgrade too, but does not choose the subprotocol.
        if head.header("sec-websocket-protocol") != Some(subprotocol) {
            return Err(format!("not roomcast: it does not speak {subprotocol}"));
        }
        Ok(Some(head.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_that_does_not_know_the_host_is_explained_with_the_remedy() {
        let door = Door {
            scheme: "ws".into(),
            authority: "roomcast:7600".into(),
            address: ([127, 0, 0, 1], 1).into(),
        };
        let handshake = Handshake::new(Encoding::Json, None);
        let answer = b"HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\n\r\n";
        let refused = handshake.answer(&door, answer).unwrap_err();
        let remedy = "add \"roomcast\" to `hosts` in the node's configuration";
        assert!(refused.contains("HTTP 421") && refused.contains(remedy), "{refused}");
        assert!(foreign_host("[2001:db8::1]:7600").contains("add \"2001:db8::1\" to"));
    }
}
