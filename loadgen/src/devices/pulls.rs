//! Devices' pulls: `GET …/reliable?after=` at the viewer door, a connection each, on the same poll as the devices.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::machine::descriptors::PULLS_MAX;
use crate::wire::frame::StreamPage;
use crate::wire::page::{Read, read_page};

/// Longest wait for an answer.
const ANSWER_AGE_MAX_NS: u64 = 5_000_000_000;
/// The first token of a pull: far above those of devices.
const FIRST_TOKEN: usize = 1 << 40;

#[derive(Debug)]
struct Pull {
    device: usize,
    stream: TcpStream,
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    begun_ns: u64,
}

/// How a pull ended.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// For which device.
    pub(crate) device: usize,
    /// What came; `None`: nothing that is a page, so it is to be tried again.
    pub(crate) page: Option<StreamPage>,
}

/// The pulls of a worker.
#[derive(Debug)]
pub(crate) struct Pulls {
    slots: Vec<Option<Pull>>,
    /// Devices that wait for a slot: each at most once, so no more than there are devices.
    waiting: VecDeque<usize>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self { slots: (0..PULLS_MAX).map(|_| None).collect(), waiting: VecDeque::new() }
    }
}

impl Pulls {
    /// Whether a token is of a pull.
    #[must_use]
    pub(crate) fn owns(token: Token) -> bool {
        (FIRST_TOKEN..FIRST_TOKEN + PULLS_MAX).contains(&token.0)
    }

    /// A device wants to pull.
    pub(crate) fn want(&mut self, device: usize) {
        self.waiting.push_back(device);
    }

    /// The next device that may pull now.
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.slots.iter().all(Option::is_some) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Begins a pull over a connection that is being made.
    ///
    /// # Errors
    /// When the connection can't be watched.
    pub(crate) fn begin(
        &mut self,
        registry: &Registry,
        device: usize,
        mut stream: TcpStream,
        request: Vec<u8>,
        now_ns: u64,
    ) -> std::io::Result<()> {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(0);
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(FIRST_TOKEN + slot), interest)?;
        self.slots[slot] =
            Some(Pull { device, stream, request, sent: 0, answer: Vec::new(), begun_ns: now_ns });
        Ok(())
    }

    /// A pull's connection is ready. Gives how it ended, if it did.
    pub(crate) fn ready(&mut self, token: Token) -> Option<Pulled> {
        let slot = self.slots.get_mut(token.0.checked_sub(FIRST_TOKEN)?)?;
        let pull = slot.as_mut()?;
        let page = match pull.go_on() {
            Ok(None) => return None,
            Ok(Some(page)) => Some(page),
            Err(_) => None,
        };
        let device = pull.device;
        *slot = None;
        Some(Pulled { device, page })
    }

    /// A pull whose answer took too long.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Option<Pulled> {
        let is_old = |pull: &Pull| now_ns > pull.begun_ns + ANSWER_AGE_MAX_NS;
        let slot = self.slots.iter_mut().find(|slot| slot.as_ref().is_some_and(is_old))?;
        slot.take().map(|pull| Pulled { device: pull.device, page: None })
    }
}

impl Pull {
    fn go_on(&mut self) -> std::io::Result<Option<StreamPage>> {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.answer.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            match read_page(&self.answer) {
                Read::Half => {}
                Read::Whole(page) => return Ok(Some(page)),
                Read::Bad(reason) => return Err(std::io::Error::other(reason)),
            }
        }
    }
}
