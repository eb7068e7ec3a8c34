//! The world's sockets: a pipe that takes bytes while the device leaves room.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use roomcast::shard::residents::connection::Socket;
use roomcast_core::fanout::drain_rate::Progress;
use roomcast_core::limits::KERNEL_UNSENT_BYTES_MIN;

/// The pipe between a shard's socket and its device.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// The bytes written by the shard and not yet read by the device.
    pub(crate) in_flight: Vec<u8>,
    /// The most bytes in flight.
    pub(crate) capacity: usize,
    /// True: the shard waits to hear that the pipe takes bytes again.
    pub(crate) armed: bool,
    /// True: the shard has ended its side, or dropped the connection.
    pub(crate) ended: bool,
    /// True: the device has reset the connection, so every write fails.
    pub(crate) broken: bool,
    /// The addresses of the written frames: shared frames have one address, copies have several.
    pub(crate) frames_at: BTreeSet<usize>,
    /// The number of writes taken in part.
    pub(crate) partial_writes: u64,
    /// The number of writes taken whole or in part.
    pub(crate) writes: u64,
    /// The bytes that the device has read.
    pub(crate) read: u64,
    /// The link between the pipe and the device. `None`: the device reads whenever the world says.
    pub(crate) link: Option<Link>,
    /// False: the kernel counts nothing about the device.
    pub(crate) is_counted: bool,
}

/// A link with a rate. Its kernel holds what is on the way, and unsent bytes up to the mark that the shard sets.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// Bytes a second, headers aside.
    pub(crate) rate: u32,
    /// Bytes that the link could have carried and did not carry yet, in millionths.
    due_millionths: u64,
    /// Time so far in which the link carried.
    busy: Duration,
    /// The time from the device back to the shard.
    delay: Duration,
    /// The time that the link has run.
    clock: Duration,
    /// Bytes that the device has, with the time at which the shard hears of them.
    unheard: VecDeque<Unheard>,
    /// Bytes on the way, which the shard's mark does not count.
    in_flight: usize,
    unsent_max: u32,
    /// The shard's bound on all bytes.
    queued_max: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Unheard {
    at: Duration,
    bytes: usize,
}

impl Link {
    fn unheard(&self) -> usize {
        self.unheard.iter().map(|unheard| unheard.bytes).sum()
    }
}

/// Segments on the way to a device with a small receive buffer.
const IN_FLIGHT_BYTES: usize = 3 * 1448;
/// Bytes on the way through the deep queue of a slow link, with buffers that the kernels tune.
const DEEP_QUEUE_BYTES: usize = 86_000;
/// The kernel ends a write between two segments.
const SEGMENT_BYTES: usize = 1448;

impl Pipe {
    /// Puts a link before the device.
    pub(crate) fn shape(&mut self, rate: u32) {
        let unsent_max = KERNEL_UNSENT_BYTES_MIN;
        self.link = Some(Link {
            rate,
            due_millionths: 0,
            busy: Duration::ZERO,
            delay: Duration::ZERO,
            clock: Duration::ZERO,
            unheard: VecDeque::new(),
            in_flight: IN_FLIGHT_BYTES,
            unsent_max,
            queued_max: None,
        });
        self.hold();
    }

    /// Puts a link with a deep queue before the device.
    pub(crate) fn shape_deep(&mut self, rate: u32) {
        self.shape(rate);
        self.link.as_mut().expect("it was put there").in_flight = DEEP_QUEUE_BYTES;
        self.hold();
    }

    /// Puts a link with a deep queue and a long way before the device.
    pub(crate) fn shape_far(&mut self, rate: u32, delay: Duration) {
        self.shape_deep(rate);
        self.link.as_mut().expect("it was put there").delay = delay;
    }

    fn hold(&mut self) {
        let Some(Link { in_flight, unsent_max, queued_max, .. }) = &self.link else { return };
        let tuned = in_flight + *unsent_max as usize;
        self.capacity = queued_max.map_or(tuned, |max| tuned.min(max as usize)) + SEGMENT_BYTES;
    }

    /// True if room may have come without a read: the shard hears late of bytes that a far device has.
    pub(crate) fn has_heard(&self) -> bool {
        let is_far = self.link.as_ref().is_some_and(|link| !link.delay.is_zero());
        is_far && self.queued() < self.capacity
    }

    /// Bytes without an acknowledgement.
    fn queued(&self) -> usize {
        self.in_flight.len() + self.link.as_ref().map_or(0, Link::unheard)
    }

    /// The bytes that the link carries in this time.
    pub(crate) fn carries(&mut self, time: Duration) -> usize {
        let waiting = self.in_flight.len();
        let Some(link) = &mut self.link else { return 0 };
        link.clock += time;
        while link.unheard.front().is_some_and(|unheard| unheard.at <= link.clock) {
            link.unheard.pop_front();
        }
        link.due_millionths += u64::from(link.rate) * time.as_micros() as u64;
        let carried = waiting.min((link.due_millionths / 1_000_000) as usize);
        // An idle link saves nothing up.
        let left = link.due_millionths - carried as u64 * 1_000_000;
        link.due_millionths = if carried == waiting { 0 } else { left };
        // The kernel is busy until it has heard of the last byte.
        let is_busy = waiting > 0 || !link.unheard.is_empty();
        let carrying = Duration::from_secs(carried as u64) / link.rate;
        link.busy += if link.delay.is_zero() { carrying } else { time * u32::from(is_busy) };
        if carried > 0 && !link.delay.is_zero() {
            link.unheard.push_back(Unheard { at: link.clock + link.delay, bytes: carried });
        }
        carried
    }

    /// Changes the rate of the link.
    pub(crate) fn change_rate(&mut self, rate: u32) {
        self.link.as_mut().expect("there is a link").rate = rate;
    }
}

thread_local! {
    /// The cost of a write; below, the sum so far. Each test has a thread, so each test has a meter of its
    /// own.
    static WRITE_COST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The processor time of all writes, as a shard's plan asks for it.
pub(crate) fn meter() -> Duration {
    SPENT.get()
}

/// Sets the cost of each further write.
pub(crate) fn writes_cost(cost: Duration) {
    WRITE_COST.set(cost);
}

/// The shard's end of a pipe.
#[derive(Debug)]
pub(crate) struct SimSocket(pub(crate) Rc<RefCell<Pipe>>);

impl SimSocket {
    /// A socket that holds `capacity` bytes, and the device's end of the pipe.
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
            read: 0,
            link: None,
            is_counted: true,
        };
        let pipe = Rc::new(RefCell::new(pipe));
        (Self(Rc::clone(&pipe)), pipe)
    }
}

impl Socket for SimSocket {
    fn try_write(&mut self, bytes: &[u8], is_segment: bool) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)], is_segment)
    }

    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>], _is_segment: bool) -> io::Result<usize> {
        SPENT.set(SPENT.get() + WRITE_COST.get());
        let mut pipe = self.0.borrow_mut();
        if pipe.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        pipe.frames_at.extend(parts.iter().map(|part| part.as_ptr().addr()));
        let free = pipe.capacity.saturating_sub(pipe.queued());
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

    fn progress(&self) -> Option<Progress> {
        let pipe = self.0.borrow();
        let queued = pipe.queued() as u64;
        let progress = match &pipe.link {
            Some(link) => {
                let acked = pipe.read - link.unheard() as u64;
                Progress { queued, acked, busy: link.busy, round_trip: link.delay }
            }
            // A device without a link is fast from its first byte on. One without a bound has a kernel that
            // takes everything, though the device itself may read later.
            None => {
                let queued = if pipe.capacity == usize::MAX { 0 } else { queued };
                Progress { queued, acked: FAST_FROM_THE_START + pipe.read, ..Progress::default() }
            }
        };
        pipe.is_counted.then_some(progress)
    }

    fn set_unsent_max(&mut self, bytes: u32) {
        let mut pipe = self.0.borrow_mut();
        if let Some(link) = &mut pipe.link {
            link.unsent_max = bytes;
        }
        pipe.hold();
    }

    fn set_queued_max(&mut self, bytes: Option<u32>, _had: Option<u32>, _queued: Option<u64>) {
        let mut pipe = self.0.borrow_mut();
        if let Some(link) = &mut pipe.link {
            link.queued_max = bytes;
        }
        pipe.hold();
    }
}

/// More than the engine asks as a proof.
const FAST_FROM_THE_START: u64 = 1_000_000;

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.0.borrow_mut().ended = true;
    }
}
