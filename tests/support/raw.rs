//! A device that keeps to no rule: a plain socket behind a proper handshake, fed any bytes that a test has in
//! mind.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::publisher::read_answer;
use super::{Doors, Encoding, comes};

/// The plain socket of a device that was let in.
#[derive(Debug)]
pub(crate) struct RawDevice {
    pub(crate) stream: TcpStream,
    /// Bytes that were read and are not part of a whole frame yet.
    unread: Vec<u8>,
}

/// One frame as it came: its opcode and its payload.
pub(crate) type RawFrame = (u8, Vec<u8>);

/// The head of a handshake, to be ended by an empty line.
pub(crate) fn handshake_head(doors: &Doors, target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        doors.viewer
    )
}

/// A frame as a device sends it, its mask all zeros: valid, and the payload is what travels.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

impl RawDevice {
    /// Joins a room with a small receive buffer; the welcome is not read.
    pub(crate) async fn join(doors: &Doors, room: &str, encoding: Encoding) -> Self {
        comes("a handshake", async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(doors.viewer).await.unwrap();
            let head = handshake_head(doors, &format!("/v1/rooms/{room}/ws"));
            let head = format!("{head}sec-websocket-protocol: {}\r\n\r\n", encoding.subprotocol());
            stream.write_all(head.as_bytes()).await.unwrap();
            // Byte by byte up to the empty line: the bytes behind the answer belong to the frames.
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.unwrap());
            }
            assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
            Self { stream, unread: Vec::new() }
        })
        .await
    }

    /// Sends bytes, as far as the node takes them: a closed connection takes no more.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        drop(comes("a write", self.stream.write_all(bytes)).await);
    }

    /// The next frame. `None`: the connection ended.
    pub(crate) async fn frame(&mut self) -> Option<RawFrame> {
        loop {
            if let Some((length, frame)) = whole(&self.unread) {
                self.unread.drain(..length);
                return Some(frame);
            }
            let read = comes("a frame", self.stream.read_buf(&mut self.unread)).await;
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// Reads to the close frame and returns its code. `None`: the connection ended without one.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            let (opcode, payload) = self.frame().await?;
            if opcode == 8 {
                return Some(u16::from_be_bytes([payload[0], payload[1]]));
            }
        }
    }
}

/// The first frame of `bytes` with its length, if all of it is there.
fn whole(bytes: &[u8]) -> Option<(usize, RawFrame)> {
    let opcode = bytes.first()? & 0x0f;
    let short = *bytes.get(1)?;
    assert_eq!(short & 0x80, 0, "a server never masks");
    let (head, length) = match short {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())).unwrap()),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(head..head + length)?.to_vec();
    Some((head + length, (opcode, payload)))
}
