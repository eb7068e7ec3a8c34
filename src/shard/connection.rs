//! A connection as its shard holds it: its socket, what it is owed, and its places in rooms. Generic over the socket,
//! so that a simulated world can give it one that takes a few bytes at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::auth::Grant;
use crate::seat::Seat;
use roomcast_core::fanout::Offer;
use roomcast_core::fanout::outbox::{Outbox, SLICES_MAX};
use roomcast_core::limits::{
    DEVICE_FRAMES_PER_SECOND, DEVICE_FRAMES_PER_SECOND_AND_ROOM, OUTBOX_BYTES_MAX, OUTBOX_NOTICES_MAX,
};
use roomcast_core::room::id::{Cursor, Encoding, RoomName};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::reader::FrameReader;

/// A non-blocking socket. Errors other than `WouldBlock` are final.
pub trait Socket {
    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; anything else when it is broken.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes what the socket takes now of several parts.
    ///
    /// # Errors
    /// As `try_write`.
    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Asks to be told when it takes more. Called after each `WouldBlock`.
    fn tell_when_writable(&mut self);

    /// Says that nothing more will be written.
    fn finish(&mut self);
}

/// One place of a connection in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The room's segment on this shard.
    pub segment: u32,
    /// Its slot there; `None` while its join is on the way.
    pub slot: Option<u32>,
    /// Which of the connection's joins it came by: one that was given up may be answered after the next was sent.
    pub join: u32,
}

/// A join that waits for its turn.
#[derive(Debug, Clone)]
pub struct Deferred {
    /// Which room.
    pub room: RoomName,
    /// Where the device left off.
    pub cursor: Option<Cursor>,
}

/// One WebSocket connection.
#[derive(Debug)]
pub struct Connection<S> {
    /// The socket.
    pub socket: S,
    outbox: Option<Box<Outbox>>,
    broken: bool,
    /// How its frames are spelt.
    pub encoding: Encoding,
    /// Why it is being closed, once it is.
    pub closing: Option<CloseReason>,
    /// Tells this connection from one that had its index before.
    pub generation: u32,
    /// Frames it may still send at once, in thousandths.
    allowance_milli: u32,
    /// When it was last heard.
    pub heard_at: Instant,
    /// What it has half sent.
    pub reader: FrameReader,
    /// Its rooms.
    pub places: Vec<Place>,
    /// Joins that wait until the welcome before them has been taken: at most one is owed at a time.
    deferred: VecDeque<Deferred>,
    /// Joins it has sent.
    pub joins: u32,
    /// A hash of the device's name; 0: it gave none.
    pub device: u64,
    /// Which rooms it may join.
    pub grant: Grant,
    /// Its place among the node's connections; given back when the connection is dropped.
    pub seat: Seat,
}

/// What becomes of what a connection is owed when it is told to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It is delivered, as far as the linger allows.
    Deliver,
    /// It is dropped.
    Drop,
}

/// What draining came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// It still waits.
    No,
    /// Nothing is owed any more, and it never was behind.
    Yes,
    /// Nothing is owed any more, and it missed frames meanwhile.
    AfterBehind,
    /// The socket is broken.
    Broken,
}

impl<S: Socket> Connection<S> {
    /// A connection that has just been upgraded.
    pub fn new(
        socket: S,
        generation: u32,
        encoding: Encoding,
        grant: Grant,
        seat: Seat,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            outbox: None,
            broken: false,
            encoding,
            closing: None,
            generation,
            allowance_milli: burst_milli(1),
            heard_at: now,
            reader: FrameReader::default(),
            places: Vec::new(),
            deferred: VecDeque::new(),
            joins: 0,
            device: 0,
            grant,
            seat,
        }
    }

    /// Offers frames: written now if nothing is owed, owed as far as the bounds allow otherwise.
    #[inline]
    pub fn offer(&mut self, frames: &[Bytes], now: Instant) -> Offer {
        if let (None, [frame]) = (&self.outbox, frames) {
            match self.socket.try_write(frame) {
                Ok(written) if written == frame.len() => return Offer::Written,
                written => return self.owe_rest(frames, written, now),
            }
        }
        self.offer_slowly(frames, now)
    }

    /// Offers a frame that the device has asked for. `false`: it has asked for too much without reading any of it.
    #[must_use]
    pub fn answer(&mut self, frame: &Bytes, now: Instant) -> bool {
        match &mut self.outbox {
            Some(outbox) if self.closing.is_none() => {
                let fits = outbox.owed_frames() < OUTBOX_NOTICES_MAX;
                if fits {
                    outbox.owe(frame.clone(), now);
                }
                fits
            }
            // Nothing is owed: the frame is taken in, whatever its size.
            _ => {
                self.offer(std::slice::from_ref(frame), now) != Offer::Refused { taken: 0 }
                    || self.closing.is_some()
            }
        }
    }

    /// Offers a welcome, which is exempt from the bounds: `may_join` has seen to it that it is the only one.
    pub fn welcome(&mut self, frame: &Bytes, now: Instant) {
        match &mut self.outbox {
            Some(outbox) if self.closing.is_none() => outbox.owe_welcome(frame.clone(), now),
            // A fresh socket takes nothing before its first readiness: then the bounds must not count it either.
            None if self.closing.is_none() => {
                let written = self.socket.try_write(frame);
                if !matches!(written, Ok(bytes) if bytes == frame.len()) {
                    self.owe_rest(std::slice::from_ref(frame), written, now);
                    self.outbox.as_mut().expect("something is owed").exempt_first();
                }
            }
            _ => {}
        }
    }

    /// Whether a further join may be sent to its home: no other is unanswered, and nothing is owed.
    pub fn may_join(&self) -> bool {
        self.outbox.is_none() && self.places.iter().all(|place| place.slot.is_some())
    }

    /// Has a join wait for its turn.
    pub fn defer(&mut self, deferred: Deferred) {
        self.deferred.push_back(deferred);
    }

    /// The next join whose turn has come.
    pub fn next_deferred(&mut self) -> Option<Deferred> {
        self.deferred.pop_front()
    }

    /// Whether a join of that room waits for its turn.
    pub fn has_deferred(&self, room: &RoomName) -> bool {
        self.deferred.iter().any(|deferred| deferred.room == *room)
    }

    /// Gives up a join that waits for its turn.
    pub fn forget_deferred(&mut self, room: &RoomName) {
        self.deferred.retain(|deferred| deferred.room != *room);
    }

    /// Rooms it is a member of, joins or waits to join.
    pub fn rooms(&self) -> usize {
        self.places.len() + self.deferred.len()
    }

    #[cold]
    fn offer_slowly(&mut self, frames: &[Bytes], now: Instant) -> Offer {
        if self.outbox.is_some() || self.broken || self.closing.is_some() {
            return self.owe(frames, now);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = slices.iter_mut().zip(frames).map(|(slice, frame)| *slice = IoSlice::new(frame)).count();
        let written = self.socket.try_write_vectored(&slices[..count]);
        let whole: usize = frames.iter().map(Bytes::len).sum();
        if matches!(written, Ok(bytes) if bytes == whole) {
            return Offer::Written;
        }
        self.owe_rest(frames, written, now)
    }

    /// The socket took `written` of `frames`; the rest is owed.
    #[cold]
    fn owe_rest(&mut self, frames: &[Bytes], written: io::Result<usize>, now: Instant) -> Offer {
        let mut written = match written {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.broken = true;
                0
            }
        };
        let mut outbox = Box::new(Outbox::new(now));
        let mut taken = 0;
        for frame in frames {
            if written >= frame.len() {
                written -= frame.len();
            } else if written > 0 {
                outbox.owe_tail(frame.slice(written..), now);
                written = 0;
            } else if !outbox.offer(frame, now) {
                break;
            }
            taken += 1;
        }
        self.outbox = Some(outbox);
        self.socket.tell_when_writable();
        if taken == frames.len() { Offer::Queued } else { Offer::Refused { taken } }
    }

    fn owe(&mut self, frames: &[Bytes], now: Instant) -> Offer {
        if self.closing.is_some() {
            return Offer::Refused { taken: 0 };
        }
        let outbox = self.outbox.get_or_insert_with(|| Box::new(Outbox::new(now)));
        let taken = frames.iter().take_while(|frame| outbox.offer(frame, now)).count();
        if taken == frames.len() { Offer::Queued } else { Offer::Refused { taken } }
    }

    /// Writes what is owed, as far as the socket takes it.
    pub fn drain(&mut self, now: Instant) -> Drained {
        while let Some(outbox) = &mut self.outbox {
            if self.broken {
                return Drained::Broken;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut slices);
            match self.socket.try_write_vectored(&slices[..count]) {
                Ok(written) => {
                    if outbox.took(written, now) {
                        let was_behind = outbox.is_behind();
                        self.outbox = None;
                        return if was_behind { Drained::AfterBehind } else { Drained::Yes };
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.tell_when_writable();
                    return Drained::No;
                }
                Err(_) => self.broken = true,
            }
        }
        if self.broken { Drained::Broken } else { Drained::Yes }
    }

    /// Says goodbye: what was begun is finished, the rest of what is owed is delivered or dropped, and nothing but `last`
    /// follows.
    pub fn say_last(&mut self, rest: Rest, last: impl IntoIterator<Item = Bytes>, now: Instant) {
        let outbox = self.outbox.get_or_insert_with(|| Box::new(Outbox::new(now)));
        if rest == Rest::Drop {
            outbox.keep_only_begun();
        }
        for frame in last {
            outbox.owe(frame, now);
        }
    }

    /// Whether anything is owed.
    pub fn is_waiting(&self) -> bool {
        self.outbox.is_some()
    }

    /// Whether frames were refused since it last drained.
    pub fn is_behind(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.is_behind())
    }

    /// Whether its socket has failed.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes owed, a welcome included.
    pub fn owed_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.held_bytes())
    }

    /// Why it has to be closed, if it has waited past a deadline.
    pub fn overdue(&self, now: Instant) -> Option<CloseReason> {
        self.outbox.as_ref().and_then(|outbox| outbox.overdue(now))
    }

    /// A frame of the device arrived. Whether it may send that many: a bucket of two seconds' worth, refilled by the
    /// time since it was last heard.
    pub fn hear(&mut self, now: Instant) -> bool {
        let rooms = self.places.len();
        let quiet = now.saturating_duration_since(self.heard_at).min(Duration::from_secs(2));
        self.heard_at = now;
        let quiet_ms = u32::try_from(quiet.as_millis()).unwrap_or(u32::MAX);
        let refill = quiet_ms.saturating_mul(frames_per_second(rooms));
        self.allowance_milli = self.allowance_milli.saturating_add(refill).min(burst_milli(rooms));
        let allowed = self.allowance_milli >= 1000;
        self.allowance_milli = self.allowance_milli.saturating_sub(1000);
        allowed
    }
}

/// Frames a second a device with so many rooms may send.
fn frames_per_second(rooms: usize) -> u32 {
    DEVICE_FRAMES_PER_SECOND + DEVICE_FRAMES_PER_SECOND_AND_ROOM * u32::try_from(rooms).unwrap_or(u32::MAX)
}

fn burst_milli(rooms: usize) -> u32 {
    2 * 1000 * frames_per_second(rooms)
}

const _: () = assert!(OUTBOX_BYTES_MAX >= 1024, "a goodbye fits");
