//! The world's sockets: a pipe to a device that takes as much as the device leaves room for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use roomcast::shard::connection::Socket;

/// What lies between a shard's socket and its device.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Written by the shard, not read by the device yet.
    pub(crate) in_flight: Vec<u8>,
    /// How many bytes fit.
    pub(crate) capacity: usize,
    /// The shard wants to be told when something fits again.
    pub(crate) armed: bool,
    /// The shard has ended its side, or dropped the connection.
    pub(crate) ended: bool,
    /// The device has reset it: every write fails.
    pub(crate) broken: bool,
    /// Where the frames lay that were written from, so that shared ones can be told from copies.
    pub(crate) frames_at: BTreeSet<usize>,
    /// Writes of which a part was taken.
    pub(crate) partial_writes: u64,
    /// Writes of which anything was taken.
    pub(crate) writes: u64,
}

thread_local! {
    /// What writes cost, and have cost together: each test has a thread, and so a meter, of its own.
    static WRITE_COST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The processor time that all writes took, as a shard's plan asks for it.
pub(crate) fn meter() -> Duration {
    SPENT.get()
}

/// Each write costs so much from now on.
pub(crate) fn writes_cost(cost: Duration) {
    WRITE_COST.set(cost);
}

/// The shard's end of a pipe.
#[derive(Debug)]
pub(crate) struct SimSocket(pub(crate) Rc<RefCell<Pipe>>);

impl SimSocket {
    /// A socket that holds `capacity` bytes, and the device's end of it.
    pub(crate) fn new(capacity: usize) -> (Self, Rc<RefCell<Pipe>>) {
        let pipe = Pipe {
            in_flight: Vec::new(),
            capacity,
            armed: false,
            ended: false,
            broken: false,
            frames_at: BTreeSet::new(),
            partial_writes: 0,
            writes: 0,
        };
        let pipe = Rc::new(RefCell::new(pipe));
        (Self(Rc::clone(&pipe)), pipe)
    }
}

impl Socket for SimSocket {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        SPENT.set(SPENT.get() + WRITE_COST.get());
        let mut pipe = self.0.borrow_mut();
        if pipe.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        pipe.frames_at.extend(parts.iter().map(|part| part.as_ptr().addr()));
        let free = pipe.capacity.saturating_sub(pipe.in_flight.len());
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        if free == 0 && whole > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.writes += 1;
        let mut left = free.min(whole);
        pipe.partial_writes += u64::from(left < whole);
        let written = left;
        for part in parts {
            let taken = left.min(part.len());
            pipe.in_flight.extend_from_slice(&part[..taken]);
            left -= taken;
        }
        Ok(written)
    }

    fn tell_when_writable(&mut self) {
        self.0.borrow_mut().armed = true;
    }

    fn finish(&mut self) {
        self.0.borrow_mut().ended = true;
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.0.borrow_mut().ended = true;
    }
}
