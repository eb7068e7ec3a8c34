//! The devices' pulls: `GET …/reliable?after=` at the viewer door, each on its own connection, on the
//! devices' poll.

use std::collections::VecDeque;
use std::io::Error;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::machine::descriptors::PULLS_MAX;
use crate::wire::exchange::Exchange;
use crate::wire::frame::Welcome;
use crate::wire::page::read_page;

/// Longest wait for an answer.
const ANSWER_AGE_MAX_NS: u64 = 5_000_000_000;
/// The first token of a pull: far above the devices' tokens.
const FIRST_TOKEN: usize = 1 << 40;

#[derive(Debug)]
struct Pull {
    device: usize,
    exchange: Exchange,
    begun_ns: u64,
}

/// The end of a pull.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// Index of the device.
    pub(crate) device: usize,
    /// `None`: no page came, so another attempt is due.
    pub(crate) page: Option<Welcome>,
}

/// The pulls of a worker.
#[derive(Debug)]
pub(crate) struct Pulls {
    slots: Vec<Option<Pull>>,
    /// Devices waiting for a slot, each at most once.
    waiting: VecDeque<usize>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self { slots: (0..PULLS_MAX).map(|_| None).collect(), waiting: VecDeque::new() }
    }
}

impl Pulls {
    /// Tells a pull's token from a device's.
    pub(crate) fn owns(token: Token) -> bool {
        (FIRST_TOKEN..FIRST_TOKEN + PULLS_MAX).contains(&token.0)
    }

    /// Puts a device into the queue.
    pub(crate) fn want(&mut self, device: usize) {
        self.waiting.push_back(device);
    }

    /// The next waiting device, while a slot is free.
    pub(crate) fn next(&mut self) -> Option<usize> {
        // Each pull needs a descriptor, and `PULLS_MAX` of them are set aside.
        if self.slots.iter().all(Option::is_some) {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Begins a pull over a connection under way.
    ///
    /// # Errors
    /// When epoll does not take the connection.
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
        self.slots[slot] = Some(Pull { device, exchange: Exchange::new(stream, request), begun_ns: now_ns });
        Ok(())
    }

    /// Goes on with a pull whose connection is ready; `None` while the pull lasts.
    pub(crate) fn ready(&mut self, token: Token) -> Option<Pulled> {
        let slot = self.slots.get_mut(token.0.checked_sub(FIRST_TOKEN)?)?;
        // A failed pull is tried again by its device, whatever the reason.
        let page = slot.as_mut()?.go_on().map_or(Some(None), |page| page.map(Some))?;
        slot.take().map(|pull| Pulled { device: pull.device, page })
    }

    /// Gives up a pull whose answer took too long.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Option<Pulled> {
        let is_old = |pull: &mut Pull| now_ns > pull.begun_ns + ANSWER_AGE_MAX_NS;
        let pull = self.slots.iter_mut().find_map(|slot| slot.take_if(is_old))?;
        Some(Pulled { device: pull.device, page: None })
    }
}

impl Pull {
    fn go_on(&mut self) -> std::io::Result<Option<Welcome>> {
        self.exchange.send()?;
        while self.exchange.receive()? {
            if let Some(page) = read_page(&self.exchange.answer).map_err(Error::other)? {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }
}
