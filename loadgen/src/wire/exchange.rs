//! An HTTP request and the answer over a non-blocking connection.

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};

use mio::net::TcpStream;

#[derive(Debug)]
pub(crate) struct Exchange {
    stream: TcpStream,
    request: Vec<u8>,
    /// Bytes of `request` in the kernel's hands.
    sent: usize,
    /// The bytes received and not yet consumed.
    pub(crate) answer: Vec<u8>,
}

impl Exchange {
    pub(crate) fn new(stream: TcpStream, request: Vec<u8>) -> Self {
        Self { stream, request, sent: 0, answer: Vec::new() }
    }

    /// Empties the request for the next use of the same connection.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        self.sent = 0;
        self.request.clear();
        &mut self.request
    }

    /// Sends as much of the request as the kernel takes now.
    pub(crate) fn send(&mut self) -> Result<()> {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(0) => return Err(Error::other("the connection takes no more bytes")),
                Ok(written) => self.sent += written,
                // Still connecting, or the kernel's buffer is full. The next readiness event continues.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends a read to the answer. `false`: the kernel has no bytes now.
    pub(crate) fn receive(&mut self) -> Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::other("ended without an answer")),
                Ok(read) => {
                    self.answer.extend_from_slice(&chunk[..read]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
