//! A connection: its socket, its outbox, and its places in rooms. Generic over the socket, so that a
//! simulated world can give a socket that takes a few bytes at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::auth::Grant;
use crate::seat::Seat;
use roomcast_core::fanout::Offer;
use roomcast_core::fanout::drain_rate::{DrainRate, KernelRoom, Progress};
use roomcast_core::fanout::outbox::{self, Outbox, SLICES_MAX, Sample};
use roomcast_core::fanout::segment::Speed;
use roomcast_core::limits::{
    DEVICE_FRAMES_PER_SECOND, DEVICE_FRAMES_PER_SECOND_AND_ROOM, HISTORY_AGE_MAX, HISTORY_QUEUED_BYTES_MAX,
    KERNEL_QUEUED_BYTES_MIN, OUTBOX_BYTES_MAX, OUTBOX_NOTICES_MAX, PROOF_BYTES, RATE_TRIAL_INTERVAL,
    UNPROVEN_BYTES_MAX,
};
use roomcast_core::room::id::{Cursor, Encoding, RoomName, Seen};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::reader::FrameReader;

/// A non-blocking socket. Errors other than `WouldBlock` are final.
pub trait Socket {
    /// Writes as many bytes as the socket takes now. `is_segment`: the kernel adds nothing to them later. It
    /// looks at its bounds only where it begins a segment, and a segment takes up to 64 KiB.
    ///
    /// # Errors
    /// `WouldBlock`: the socket takes nothing now. Anything else: the socket is broken.
    fn try_write(&mut self, bytes: &[u8], is_segment: bool) -> io::Result<usize>;

    /// Writes as many bytes of several parts as the socket takes now.
    ///
    /// # Errors
    /// The same as of `try_write`.
    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>], is_segment: bool) -> io::Result<usize>;

    /// Asks for a wake once the socket takes more. Called after each `WouldBlock`.
    fn tell_when_writable(&mut self);

    /// Says that nothing more will be written.
    fn finish(&mut self);

    /// Counts of the kernel about the device. `None`: the kernel does not count so far.
    fn progress(&self) -> Option<Progress>;

    /// Sets the number of unsent bytes at which the socket takes no more.
    fn set_unsent_max(&mut self, bytes: u32);

    /// Sets the number of bytes without an acknowledgement at which the socket takes no more, unsent ones
    /// included. `None`: the kernel tunes the number. `had` is the former bound, and `queued` the present number,
    /// if known.
    fn set_queued_max(&mut self, bytes: Option<u32>, had: Option<u32>, queued: Option<u64>);
}

/// A place of a connection in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoomPlace {
    /// The room's segment on this shard.
    pub(super) segment: u32,
    pub(super) stands: PlaceStands,
    /// Number of the join, among the connection's. A join that was given up may be answered after the next
    /// was sent.
    pub(super) join: u32,
}

/// The standing of a connection in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceStands {
    /// The join of a newcomer is on its way.
    Joining,
    /// The join of a member of a moved room is on its way: the device knows that it is in the room.
    Rejoining,
    /// The connection is a member, in this slot of the segment.
    Member(u32),
}

impl RoomPlace {
    /// Slot in the segment; `None` while the join is on the way.
    pub(super) fn slot(self) -> Option<u32> {
        if let PlaceStands::Member(slot) = self.stands { Some(slot) } else { None }
    }
}

const _: () = assert!(size_of::<RoomPlace>() <= 16, "an idle connection pays two words for its room");

/// A join that waits until the welcome before it has been taken.
#[derive(Debug, Clone)]
pub(super) struct Deferred {
    /// The room to join.
    pub(super) room: RoomName,
    /// The last batch seen by the device.
    pub(super) seen: Option<Seen>,
    /// The device's cursor in that room.
    pub(super) cursor: Option<Cursor>,
    /// The connection was a member until the room moved.
    pub(super) moved: bool,
    /// The room has no home: other joins go first.
    pub(super) is_homeless: bool,
}

impl Deferred {
    /// The join of a newcomer.
    pub(super) fn new(room: &RoomName, seen: Option<Seen>, cursor: Option<Cursor>) -> Self {
        Self { room: room.clone(), seen, cursor, moved: false, is_homeless: false }
    }
}

/// Pieces of history that follow a welcome or a refresh.
#[derive(Debug)]
struct Pieces {
    /// Segment of the room.
    segment: u32,
    /// The pieces follow a refresh; those of a later refresh take their place.
    of_refresh: bool,
    /// Shared with other connections, newest first.
    frames: Arc<[Bytes]>,
    /// Index of the first piece that was not begun.
    next: usize,
    since: Instant,
}

/// The history that waits until nothing else is owed, and the proof of a fast device.
#[derive(Debug)]
struct Patient {
    /// The last is the first to go: the newest history. At most one welcome's and one refresh's for each room.
    history: Vec<Pieces>,
    /// Counts of the kernel at the begin of the present measurement.
    before: Progress,
    /// The begin. `None`: the begin of the connection.
    since: Option<Instant>,
    /// The last moment at which a slow device was offered as much as one of unknown rate.
    tried_at: Instant,
}

/// A WebSocket connection.
#[derive(Debug)]
pub struct Connection<S> {
    /// The socket.
    pub socket: S,
    outbox: Option<Box<Outbox>>,
    /// `None` for nearly every connection.
    patient: Option<Box<Patient>>,
    rate: DrainRate,
    /// Bytes that the kernel may hold, as it was told.
    kernel_room: KernelRoom,
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
            patient: None,
            rate: DrainRate::UNPROVEN,
            kernel_room: KernelRoom::NEW,
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
        if let (None, [frame]) = (&self.outbox, frames)
            && !self.kernel_room.is_bounded()
        {
            // No branch of its own: nearly every device takes the whole frame.
            match self.socket.try_write(frame, false) {
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
                let written = self.write(std::slice::from_ref(frame));
                let is_fresh = self.joins == 1 && matches!(&written, Err(error) if is_refusal(error));
                if !matches!(written, Ok(bytes) if bytes == frame.len()) {
                    self.owe_rest(std::slice::from_ref(frame), written, now);
                    let outbox = self.outbox.as_mut().expect("something is owed");
                    outbox.exempt_first();
                    if is_fresh {
                        outbox.is_of_fresh_socket();
                    }
                }
            }
            _ => {}
        }
    }

    /// Keeps pieces of history for later. Those of a refresh take the place of an earlier refresh's.
    pub(super) fn keep_history(
        &mut self,
        segment: u32,
        of_refresh: bool,
        frames: &Arc<[Bytes]>,
        now: Instant,
    ) {
        if frames.is_empty() || self.closing.is_some() {
            return;
        }
        let history = &mut self.patient(now).history;
        history.retain(|pieces| pieces.segment != segment || pieces.of_refresh != of_refresh);
        history.push(Pieces { segment, of_refresh, frames: Arc::clone(frames), next: 0, since: now });
    }

    /// Gives up history that is older than a room's own. A device that never gets so far must not hold the
    /// pieces of its welcome for hours.
    pub(super) fn age_history(&mut self, now: Instant) {
        if let Some(patient) = &mut self.patient {
            patient.history.retain(|pieces| now.saturating_duration_since(pieces.since) <= HISTORY_AGE_MAX);
        }
    }

    /// Gives up the history of a room that the connection leaves.
    pub(super) fn forget_history(&mut self, segment: u32) {
        if let Some(patient) = &mut self.patient {
            patient.history.retain(|pieces| pieces.segment != segment);
        }
    }

    /// True if pieces of history wait for their turn.
    pub(super) fn has_history(&self) -> bool {
        self.patient.as_ref().is_some_and(|patient| !patient.history.is_empty())
    }

    /// Begins pieces of history, if nothing is owed. A fast device gets them all at once, another one a piece
    /// at a time: while one is on its way, a reliable message waits.
    pub(super) fn begin_history(&mut self, now: Instant) {
        while self.outbox.is_none() && !self.broken && self.closing.is_none() && self.has_history() {
            let look = if self.rate.is_fast() { None } else { self.look(now) };
            let queued = look.map_or(0, |progress| progress.queued);
            let at_once = if self.rate.is_fast() { SLICES_MAX } else { 1 };
            if at_once == 1 && queued > HISTORY_QUEUED_BYTES_MAX {
                return; // The next sweep tries again.
            }
            if !self.write_history(at_once, now) {
                return;
            }
        }
        self.forget_patience();
    }

    /// Lets go of what is known of a device that is proven fast and has all its history.
    fn forget_patience(&mut self) {
        if self.rate.is_fast() && !self.has_history() {
            self.patient = None;
        }
    }

    /// Writes the next pieces, at most `at_once` of one room. `false`: the socket has taken nothing.
    fn write_history(&mut self, at_once: usize, now: Instant) -> bool {
        let Some(pieces) = self.patient.as_ref().and_then(|patient| patient.history.last()) else {
            return false;
        };
        let frames = Arc::clone(&pieces.frames);
        let offered = &frames[pieces.next..frames.len().min(pieces.next + at_once)];
        let written = self.write(offered);
        let Some(patient) = &mut self.patient else { return false };
        let Some(pieces) = patient.history.last_mut() else { return false };
        self.broken |= matches!(&written, Err(error) if !is_refusal(error));
        let (whole, begun) = pieces_taken(offered, written.unwrap_or(0));
        let is_owed = begun > 0 || (whole < offered.len() && self.rate.is_fast()) || self.broken;
        pieces.next += whole + usize::from(is_owed);
        if pieces.next >= frames.len() {
            patient.history.pop();
        }
        if is_owed {
            let mut outbox = Box::new(Outbox::new(now));
            if begun > 0 {
                outbox.owe_tail(offered[whole].slice(begun..), now);
                outbox.exempt_first();
            } else {
                outbox.owe_welcome(offered[whole].clone(), now);
            }
            outbox.refused(self.acked(), now);
            self.outbox = Some(outbox);
            self.socket.tell_when_writable();
        }
        // A piece that a slow device has not begun keeps its place: newer history may come before it.
        is_owed || whole > 0
    }

    /// True if the device takes frames of any size fast enough.
    pub(super) fn is_fast(&self) -> bool {
        self.rate.is_fast()
    }

    /// Speed of the device, for its segments.
    pub(super) fn speed(&self) -> Speed {
        if self.is_fast() { Speed::Fast } else { Speed::Unproven }
    }

    /// Bytes of level frames that may be offered now. Asks the kernel about a device that is not fast, so that
    /// one that gets better is found out.
    pub(super) fn room_for(&mut self, now: Instant) -> usize {
        // The outbox has its own bounds, and notes that the connection is behind.
        if self.outbox.is_some() || self.rate.is_fast() {
            return usize::MAX;
        }
        let queued = self.look(now).map_or(u64::MAX, |progress| progress.queued);
        if self.rate.is_fast() {
            return usize::MAX;
        }
        let room = self.rate.frame_room();
        if !self.rate.may_burst() && (queued > 0 || !self.is_trial_due(now)) {
            return room;
        }
        room.max(UNPROVEN_BYTES_MAX.saturating_sub(usize::try_from(queued).unwrap_or(usize::MAX)))
    }

    /// True once in each [`RATE_TRIAL_INTERVAL`].
    fn is_trial_due(&mut self, now: Instant) -> bool {
        let patient = self.patient(now);
        let is_due = now.saturating_duration_since(patient.tried_at) >= RATE_TRIAL_INTERVAL;
        if is_due {
            patient.tried_at = now;
        }
        is_due
    }

    /// Counts of the kernel about the device.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.socket.progress()
    }

    fn acked(&self) -> Option<u64> {
        self.socket.progress().map(|progress| progress.acked)
    }

    fn patient(&mut self, now: Instant) -> &mut Patient {
        self.patient.get_or_insert_with(|| {
            // A known rate is no matter of the connection's whole life: a phone that was fast an hour ago may be
            // slow now. So the measurement begins here.
            let known = self.rate.is_proven().then(|| self.socket.progress()).flatten();
            let since = known.map(|_| now);
            Box::new(Patient { history: Vec::new(), before: known.unwrap_or_default(), since, tried_at: now })
        })
    }

    /// Asks the kernel what the device took since the last look. The rate may be proven by it.
    fn look(&mut self, now: Instant) -> Option<Progress> {
        let progress = self.socket.progress()?;
        // A quiet device costs no memory: there is nothing to measure.
        if self.patient.is_none() && progress.queued == 0 && progress.acked < PROOF_BYTES.into() {
            return Some(progress);
        }
        let patient = self.patient(now);
        let Patient { before, since, .. } = *patient;
        let between = since.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        let is_measured = self.rate.bear_out(before, progress, between);
        // From an empty buffer on, the next look measures one burst alone.
        if is_measured || progress.queued == 0 {
            let patient = self.patient(now);
            (patient.before, patient.since) = (progress, Some(now));
        }
        self.bound_kernel(Some(progress));
        self.forget_patience();
        Some(progress)
    }

    /// Adds a sample of the rate at which the device takes bytes.
    fn sample(&mut self, sample: Option<Sample>, progress: Option<Progress>) {
        if let Some(Sample { bytes, between }) = sample {
            self.rate.sample(bytes, between);
            self.bound_kernel(progress);
        }
    }

    /// Bounds the bytes in the kernel by the rate of the device. Without it the kernel has as many on the way as
    /// a deep queue before a slow link takes, and a reliable message stands behind them.
    fn bound_kernel(&mut self, progress: Option<Progress>) {
        let round_trip = progress.map_or(Duration::ZERO, |progress| progress.round_trip);
        let wanted = self.rate.kernel_room(round_trip);
        let had = std::mem::replace(&mut self.kernel_room, wanted);
        if wanted.unsent_max() != had.unsent_max() {
            self.socket.set_unsent_max(wanted.unsent_max());
        }
        let queued = progress.map(|progress| progress.queued);
        let stands = queued.is_none_or(|queued| queued >= u64::from(KERNEL_QUEUED_BYTES_MIN));
        match (wanted.queued_max(), had.queued_max()) {
            (None, None) => {}
            // A healthy device has little on the way, and keeps the buffer that the kernel tunes.
            (Some(_), None) if !stands => self.kernel_room = wanted.without_queued_max(),
            (bytes, had) => self.socket.set_queued_max(bytes, had, queued),
        }
    }

    /// True if a further join may be sent to its home: no other is unanswered, and nothing is owed.
    pub(super) fn may_join(&self) -> bool {
        self.outbox.is_none() && self.places.iter().all(|place| place.slot().is_some())
    }

    /// Takes the next deferred join whose room has a home.
    pub(super) fn next_deferred(&mut self) -> Option<Deferred> {
        let at = self.deferred.iter().position(|deferred| !deferred.is_homeless)?;
        self.deferred.remove(at)
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
        let written = self.write(frames);
        let whole: usize = frames.iter().map(Bytes::len).sum();
        if matches!(written, Ok(bytes) if bytes == whole) {
            return Offer::Written;
        }
        self.owe_rest(frames, written, now)
    }

    /// Writes frames, as far as the socket takes them. A result short of the whole is a refusal.
    fn write(&mut self, frames: &[Bytes]) -> io::Result<usize> {
        if !self.kernel_room.is_bounded() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox::fill(&mut slices, frames, usize::MAX);
            return self.socket.try_write_vectored(&slices[..count], false);
        }
        // The kernel looks at its bound where a segment begins.
        let mut written = 0;
        for segment in frames.iter().flat_map(|frame| frame.chunks(self.kernel_room.write_max())) {
            match self.socket.try_write(segment, true) {
                Ok(bytes) => {
                    written += bytes;
                    if bytes < segment.len() {
                        break;
                    }
                }
                // A socket that has failed says so at the next write as well.
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Owes the rest of `frames`, of which the socket took `written` bytes.
    #[cold]
    fn owe_rest(&mut self, frames: &[Bytes], written: io::Result<usize>, now: Instant) -> Offer {
        let mut written = match written {
            Ok(written) => written,
            Err(error) if is_refusal(&error) => 0,
            Err(_) => {
                self.broken = true;
                0
            }
        };
        let mut outbox = Box::new(Outbox::new(now));
        let room = self.rate.outbox_room();
        let mut taken = 0;
        for frame in frames {
            if written >= frame.len() {
                written -= frame.len();
            } else if written > 0 {
                outbox.owe_tail(frame.slice(written..), now);
                written = 0;
            } else if !outbox.offer(frame, room, now) {
                break;
            }
            taken += 1;
        }
        outbox.refused(self.acked(), now);
        self.outbox = Some(outbox);
        self.socket.tell_when_writable();
        if taken == frames.len() { Offer::Queued } else { Offer::Refused { taken } }
    }

    fn owe(&mut self, frames: &[Bytes], now: Instant) -> Offer {
        if self.closing.is_some() {
            return Offer::Refused { taken: 0 };
        }
        let room = self.rate.outbox_room();
        let outbox = self.outbox.get_or_insert_with(|| Box::new(Outbox::new(now)));
        let taken = frames.iter().take_while(|frame| outbox.offer(frame, room, now)).count();
        if taken == frames.len() { Offer::Queued } else { Offer::Refused { taken } }
    }

    /// Writes owed frames, as far as the socket takes them.
    pub(super) fn drain(&mut self, now: Instant) -> Drained {
        while let Some(outbox) = &mut self.outbox {
            if self.broken {
                return Drained::Broken;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut slices, self.kernel_room.write_max());
            match self.socket.try_write_vectored(&slices[..count], self.kernel_room.is_bounded()) {
                Ok(written) => {
                    if outbox.took(written, now) {
                        self.outbox = None;
                        return Drained::Yes;
                    }
                }
                Err(error) if is_refusal(&error) => {
                    if outbox.is_sample_due(now) {
                        let progress = self.socket.progress();
                        let sample = outbox.refused(progress.map(|progress| progress.acked), now);
                        self.sample(sample, progress);
                    }
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
        // History is no promise.
        self.patient = None;
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

    /// Bytes of history that waits for its turn, about: all holders of a room's pieces share them, the home's
    /// cache among these.
    pub(super) fn history_bytes(&self) -> u64 {
        let share = |pieces: &Pieces| {
            let whole: usize = pieces.frames.iter().map(Bytes::len).sum();
            (whole / Arc::strong_count(&pieces.frames).max(1)) as u64
        };
        self.patient.iter().flat_map(|patient| &patient.history).map(share).sum()
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

/// True if the socket takes nothing now, and may take more later.
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Number of whole frames among the first `written` bytes of `frames`, and the bytes of the next one.
fn pieces_taken(frames: &[Bytes], written: usize) -> (usize, usize) {
    let mut rest = written;
    for (index, frame) in frames.iter().enumerate() {
        if rest < frame.len() {
            return (index, rest);
        }
        rest -= frame.len();
    }
    (frames.len(), 0)
}

/// Frames a second allowed to a device with `rooms` rooms.
fn frames_per_second(rooms: usize) -> u32 {
    DEVICE_FRAMES_PER_SECOND + DEVICE_FRAMES_PER_SECOND_AND_ROOM * u32::try_from(rooms).unwrap_or(u32::MAX)
}

fn burst_milli(rooms: usize) -> u32 {
    2 * 1000 * frames_per_second(rooms)
}

const _: () = assert!(OUTBOX_BYTES_MAX >= 1024, "a goodbye fits");
