//! A connection: its socket, its outbox, and its places in rooms. Generic over the socket, so that a
//! simulated world can give a socket that takes a few bytes at a time.

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
    /// Writes as many bytes as the socket takes now.
    ///
    /// # Errors
    /// `WouldBlock`: the socket takes nothing now. Anything else: the socket is broken.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as many bytes of several parts as the socket takes now.
    ///
    /// # Errors
    /// The same as of `try_write`.
    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Asks for a wake once the socket takes more. Called after each `WouldBlock`.
    fn tell_when_writable(&mut self);

    /// Says that nothing more will be written.
    fn finish(&mut self);
}

/// A place of a connection in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoomPlace {
    /// The room's segment on this shard.
    pub(super) segment: u32,
    /// Slot in the segment; `None` while the join is on the way.
    pub(super) slot: Option<u32>,
    /// Number of the join, among the connection's. A join that was given up may be answered after the next
    /// was sent.
    pub(super) join: u32,
}

/// A join that waits until the welcome before it has been taken.
#[derive(Debug, Clone)]
pub(super) struct Deferred {
    /// The room to join.
    pub(super) room: RoomName,
    /// The device's cursor in that room.
    pub(super) cursor: Option<Cursor>,
}

/// A WebSocket connection.
#[derive(Debug)]
pub struct Connection<S> {
    /// The socket.
    pub socket: S,
    outbox: Option<Box<Outbox>>,
    /// The socket has failed.
    pub(super) broken: bool,
    /// Encoding of the device's frames.
    pub(super) encoding: Encoding,
    /// The reason of the close, from the moment on at which the connection is told to go.
    pub(super) closing: Option<CloseReason>,
    /// Tells this connection from an earlier one at the same index; 0 until the connection is in the table.
    pub(super) generation: u32,
    /// Frames still allowed at once, in thousandths.
    allowance_milli: u32,
    /// Moment of the device's last frame.
    pub(super) heard_at: Instant,
    /// The reader of the device's frames; holds bytes of a half-sent frame.
    pub(super) reader: FrameReader,
    /// Places in rooms, joined or on the way.
    pub(super) places: Vec<RoomPlace>,
    /// Joins that wait for their turn: a connection is owed at most one welcome at a time.
    pub(super) deferred: VecDeque<Deferred>,
    /// Number of joins sent to homes.
    pub(super) joins: u32,
    /// A hash of the device's name; 0: no name given.
    pub device: u64,
    /// The rooms that the device may join.
    pub(super) grant: Grant,
    /// A place among the node's connections, given back when the connection is dropped.
    pub(super) seat: Seat,
}

/// The fate of owed frames when a connection is told to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Owed frames are delivered, as far as the linger allows.
    Deliver,
    /// Owed frames are dropped, but for the one that has begun.
    Drop,
}

/// The result of draining a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// Something is still owed.
    No,
    /// Nothing is owed any more.
    Yes,
    /// The socket is broken.
    Broken,
}

impl<S: Socket> Connection<S> {
    /// A connection that has just been upgraded.
    pub(super) fn new(socket: S, encoding: Encoding, grant: Grant, seat: Seat, now: Instant) -> Self {
        Self {
            socket,
            outbox: None,
            broken: false,
            encoding,
            closing: None,
            generation: 0,
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

    /// Offers frames. They are written now if nothing is owed, and owed as far as the bounds allow otherwise.
    #[inline]
    pub(super) fn offer(&mut self, frames: &[Bytes], now: Instant) -> Offer {
        if let (None, [frame]) = (&self.outbox, frames) {
            match self.socket.try_write(frame) {
                Ok(written) if written == frame.len() => return Offer::Written,
                written => return self.owe_rest(frames, written, now),
            }
        }
        self.offer_slowly(frames, now)
    }

    /// Offers a frame the device has asked for. `false`: the device has asked for too much without
    /// reading.
    #[must_use]
    pub(super) fn answer(&mut self, frame: &Bytes, now: Instant) -> bool {
        match &mut self.outbox {
            Some(outbox) if self.closing.is_none() => {
                let fits = outbox.owed_frames() < OUTBOX_NOTICES_MAX;
                if fits {
                    outbox.owe(frame.clone(), now);
                }
                fits
            }
            // Nothing is owed, so the frame is taken, whatever its size.
            _ => {
                self.offer(std::slice::from_ref(frame), now) != Offer::Refused { taken: 0 }
                    || self.closing.is_some()
            }
        }
    }

    /// Offers a welcome, which is exempt from the bounds. `may_join` makes sure that no other welcome is
    /// owed.
    pub(super) fn welcome(&mut self, frame: &Bytes, now: Instant) {
        match &mut self.outbox {
            Some(outbox) if self.closing.is_none() => outbox.owe_welcome(frame.clone(), now),
            // A fresh socket takes nothing before its first readiness. The welcome is then owed, and still
            // exempt.
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

    /// True if a further join may be sent to its home: no other is unanswered, and nothing is owed.
    pub(super) fn may_join(&self) -> bool {
        self.outbox.is_none() && self.places.iter().all(|place| place.slot.is_some())
    }

    /// True if a join of that room waits for its turn.
    pub(super) fn has_deferred(&self, room: &RoomName) -> bool {
        self.deferred.iter().any(|deferred| deferred.room == *room)
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

    /// Owes the rest of `frames`, of which the socket took `written` bytes.
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

    /// Writes owed frames, as far as the socket takes them.
    pub(super) fn drain(&mut self, now: Instant) -> Drained {
        while let Some(outbox) = &mut self.outbox {
            if self.broken {
                return Drained::Broken;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut slices);
            match self.socket.try_write_vectored(&slices[..count]) {
                Ok(written) => {
                    if outbox.took(written, now) {
                        self.outbox = None;
                        return Drained::Yes;
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

    /// Says goodbye. The begun frame is finished, the other owed frames are delivered or dropped, and `last`
    /// ends the stream.
    pub(super) fn say_last(&mut self, rest: Rest, last: impl IntoIterator<Item = Bytes>, now: Instant) {
        let outbox = self.outbox.get_or_insert_with(|| Box::new(Outbox::new(now)));
        if rest == Rest::Drop {
            outbox.keep_only_begun();
        }
        for frame in last {
            outbox.owe(frame, now);
        }
    }

    /// True if anything is owed.
    pub(in crate::shard) fn is_waiting(&self) -> bool {
        self.outbox.is_some()
    }

    /// True if frames were refused since the outbox was last empty.
    pub(super) fn is_behind(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.is_behind())
    }

    /// Bytes owed, a welcome included.
    pub(super) fn owed_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.held_bytes())
    }

    /// The reason to close the connection, if its outbox is past a deadline.
    pub(super) fn overdue(&self, now: Instant) -> Option<CloseReason> {
        self.outbox.as_ref().and_then(|outbox| outbox.overdue(now))
    }

    /// Counts a costly frame of the device as `frames` further ones. `false`: the device sends too many.
    pub(super) fn charge(&mut self, frames: u32) -> bool {
        let milli = frames * 1000;
        let allowed = self.allowance_milli >= milli;
        self.allowance_milli = self.allowance_milli.saturating_sub(milli);
        allowed
    }

    /// Counts a frame of the device. `false`: the device sends too many. A bucket of two seconds' worth is
    /// refilled by the time since the last frame.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
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

/// Frames a second allowed to a device with `rooms` rooms.
fn frames_per_second(rooms: usize) -> u32 {
    DEVICE_FRAMES_PER_SECOND + DEVICE_FRAMES_PER_SECOND_AND_ROOM * u32::try_from(rooms).unwrap_or(u32::MAX)
}

fn burst_milli(rooms: usize) -> u32 {
    2 * 1000 * frames_per_second(rooms)
}

const _: () = assert!(OUTBOX_BYTES_MAX >= 1024, "a goodbye fits");
