//! A door's socket with deadlines for a slow peer: for the head of a request, for silence between two
//! requests, and for taking an answer.
//!
//! hyper's own header timeout also runs between requests. With 5 s, hyper would cut idle publishers off; with
//! 75 s, a slow head could take more than a minute. hyper also allocates a timer per request. `PacedStream`
//! tells the two waits apart and allocates one timer per connection. The deadline of a request's body is in
//! `request`, where the body is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use super::misread::{self, Misread};
use crate::clock;
use roomcast_core::limits::{
    ANSWER_AGE_MAX, FULL_DOOR_GRACE, HANDSHAKE_AGE_MAX, REFUSED_AGE_MAX, REFUSED_BYTES_MAX,
};

/// The state of one connection, shared by the socket, the door's answers and the door's places.
///
/// All atomics are relaxed. A door may see an old state and ask in vain: `gives_way` looks again, on the
/// connection's own task.
#[derive(Debug)]
pub(in crate::http) struct Pulse {
    /// Changes between "the peer's turn" (even) and "the door's turn" (odd). Grows by one at each change.
    turns: AtomicU32,
    /// The peer missed the deadline of a head or of an answer.
    pub(super) late: AtomicBool,
    /// An answer is known, and part of the answer is not with the kernel yet.
    owes: AtomicBool,
    /// The request was refused, and its body may not be read to the end.
    leaves_body: AtomicBool,
    /// The door has a head, and waits for the bytes of the body: the peer is to write, although the turn is
    /// the door's.
    awaits_body: AtomicBool,
    accepted: Instant,
    /// The moment since which the peer did nothing, in milliseconds after `accepted`: the last answer, or a part
    /// of one, was taken, or a part of a body came.
    silent_ms: AtomicU64,
    /// The door needs the place for another connection.
    pub(super) asked: Notify,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            turns: AtomicU32::new(0),
            late: AtomicBool::new(false),
            owes: AtomicBool::new(false),
            leaves_body: AtomicBool::new(false),
            awaits_body: AtomicBool::new(false),
            accepted: now,
            silent_ms: AtomicU64::new(0),
            asked: Notify::new(),
        }
    }

    /// Notes a complete request head: the door's turn begins.
    pub(super) fn request_began(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the door waits for the body of the request.
    pub(in crate::http) fn body_awaited(&self) {
        // The time first, as for an answer.
        self.stirs(clock::now().instant);
        self.awaits_body.store(true, Ordering::Relaxed);
    }

    /// Notes that a part of the body came.
    pub(in crate::http) fn body_part_came(&self) {
        self.stirs(clock::now().instant);
    }

    /// Notes that the door waits for no more of the body.
    pub(in crate::http) fn body_ended(&self) {
        self.awaits_body.store(false, Ordering::Relaxed);
    }

    /// Notes a known answer: the peer's turn begins once the kernel has the whole answer.
    pub(super) fn request_answered(&self, leaves_body: bool) {
        self.leaves_body.store(leaves_body, Ordering::Relaxed);
        // The time first: between the stores the connection must never look silent since long ago.
        self.stirs(clock::now().instant);
        self.owes.store(true, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the kernel has taken the whole answer. True if an answer was owed.
    pub(super) fn answer_taken(&self) -> bool {
        if !self.owes.load(Ordering::Relaxed) {
            return false;
        }
        self.stirs(clock::now().instant);
        self.owes.store(false, Ordering::Relaxed);
        true
    }

    /// Notes that the peer took a part of an answer.
    fn part_taken(&self) {
        if self.owes.load(Ordering::Relaxed) {
            self.stirs(clock::now().instant);
        }
    }

    fn stirs(&self, now: Instant) {
        let silent = now.saturating_duration_since(self.accepted);
        self.silent_ms.store(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The moment since which the door has waited for the peer: for a whole head, for a further part of a body,
    /// or for the taking of an answer. `None`: the door has its turn.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let since = || self.accepted + Duration::from_millis(self.silent_ms.load(Ordering::Relaxed));
        (self.is_peers_turn() || self.awaits_body.load(Ordering::Relaxed)).then(since)
    }

    fn is_peers_turn(&self) -> bool {
        self.turns.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// True until the first whole request: the connection is half open.
    pub(super) fn is_half_open(&self) -> bool {
        self.turns.load(Ordering::Relaxed) == 0
    }

    /// Returns once the connection was asked to give way and the door still waits for the peer.
    pub(super) async fn gives_way(&self) {
        loop {
            self.asked.notified().await;
            // A request may have come between the question and now: then the connection has earned its place. Its
            // body has the grace of any other silence.
            let Some(since) = self.silent_since() else { continue };
            if self.is_peers_turn()
                || clock::now().instant.saturating_duration_since(since) >= FULL_DOOR_GRACE
            {
                return;
            }
        }
    }
}

/// The bytes awaited from the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// The first byte of a further request: silence up to the door's idle time is fine.
    Request,
    /// The rest of a head. A new connection starts here, since a device connects in order to ask at once.
    Head,
}

/// A socket under deadlines.
#[derive(Debug)]
pub(crate) struct PacedStream {
    io: TokioIo<TcpStream>,
    pulse: Arc<Pulse>,
    awaits: Awaits,
    /// The value of `pulse.turns` for `awaits`.
    turn: u32,
    idle_age_max: Duration,
    reading: Pin<Box<Sleep>>,
    /// True if `reading` is set to the deadline of `awaits`.
    armed: bool,
    /// The deadline of an answer in progress.
    writing: Option<Pin<Box<Sleep>>>,
    /// Bytes of a head have come since the last request.
    has_begun: bool,
    /// The head announces a body of a length that no number holds.
    is_immense: bool,
    /// Our words for a refusal of hyper's own, and the bytes of them that the socket has taken.
    misread: Option<Misread>,
    /// The door has said its last; present from the first call of `poll_shutdown` on.
    parting: Option<Parting>,
}

/// The end of a connection with unread bytes: the peer may still write, and is to find the answer.
#[derive(Debug)]
struct Parting {
    deadline: Pin<Box<Sleep>>,
    left_bytes: usize,
}

impl PacedStream {
    /// Wraps a freshly accepted socket. The first head is due within [`HANDSHAKE_AGE_MAX`].
    pub(super) fn new(stream: TcpStream, idle_age_max: Duration, pulse: Arc<Pulse>) -> Self {
        Self {
            io: TokioIo::new(stream),
            pulse,
            awaits: Awaits::Head,
            turn: 0,
            idle_age_max,
            reading: Box::pin(sleep(HANDSHAKE_AGE_MAX)),
            armed: true,
            writing: None,
            has_begun: false,
            is_immense: false,
            misread: None,
            parting: None,
        }
    }

    /// The plain socket, without deadlines.
    pub(in crate::http) fn into_stream(self) -> TcpStream {
        self.io.into_inner()
    }

    /// Checks the deadline for reading, after the socket had nothing to read.
    fn poll_reading_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // While an answer is under way, the peer has to read, not to write: the writing deadline applies. The
        // end of the answer comes back here (`poll_flush`), or nothing would wake this task in time.
        if !self.pulse.is_peers_turn() || self.pulse.owes.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.notice_turn(self.pulse.turns.load(Ordering::Relaxed));
        if !self.armed {
            let age_max = match self.awaits {
                Awaits::Request => self.idle_age_max,
                Awaits::Head => HANDSHAKE_AGE_MAX,
            };
            self.reading.as_mut().reset((clock::now().instant + age_max).into());
            self.armed = true;
        }
        self.reading.as_mut().poll(cx).map(|()| match self.awaits {
            // An idle connection that closes is not late: its peer had asked for nothing.
            Awaits::Request => Err(io::ErrorKind::TimedOut.into()),
            Awaits::Head => Err(self.give_up()),
        })
    }

    /// Starts the wait for a further request if the last request was answered since the last read.
    fn notice_turn(&mut self, turn: u32) {
        if self.turn != turn {
            self.turn = turn;
            self.awaits = Awaits::Request;
            self.armed = false;
            self.has_begun = false;
        }
    }

    /// Notes bytes from the socket. Only the first byte of a head sets the head's deadline.
    fn notice_bytes(&mut self) {
        self.notice_turn(self.pulse.turns.load(Ordering::Relaxed));
        self.has_begun = true;
        // Later bytes never re-arm the deadline: one byte every 4 s could otherwise hold a place for hours.
        if self.awaits == Awaits::Request {
            self.awaits = Awaits::Head;
            self.armed = false;
        }
    }

    /// Reads a part of a head, and looks for a length that hyper would refuse without saying so.
    fn poll_read_head(&mut self, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 4 * 1024];
        let most = buf.remaining().min(scratch.len());
        let mut bytes = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(self.io.inner_mut()).poll_read(cx, &mut bytes))?;
        self.is_immense |= misread::announces_too_much(bytes.filled());
        buf.put_slice(bytes.filled());
        Poll::Ready(Ok(()))
    }

    /// Takes bytes that hyper writes by itself, without a request for the door: the refusal of a head that is
    /// none. hyper says a status alone, so our words go out instead.
    fn takes_hypers_own(&mut self, bytes: &[u8]) -> bool {
        if !self.pulse.is_peers_turn() || self.pulse.owes.load(Ordering::Relaxed) {
            return false;
        }
        if self.misread.is_none() {
            self.misread = Misread::instead_of(bytes, self.is_immense);
        }
        self.misread.is_some()
    }

    fn poll_misread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Misread { answer, written }) = &mut self.misread else { return Poll::Ready(Ok(())) };
        while *written < answer.len() {
            *written += ready!(Pin::new(&mut self.io).poll_write(cx, &answer[*written..]))?;
        }
        Poll::Ready(Ok(()))
    }

    #[cold]
    fn poll_writing_deadline<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = self.writing.get_or_insert_with(|| Box::pin(sleep(ANSWER_AGE_MAX)));
        deadline.as_mut().poll(cx).map(|()| Err(self.give_up()))
    }

    /// True if the peer may still be sending what nobody will read: the body of a refused request, or the rest
    /// of a head that is no head.
    fn leaves_bytes(&mut self) -> bool {
        self.notice_turn(self.pulse.turns.load(Ordering::Relaxed));
        match self.awaits {
            Awaits::Head => self.has_begun,
            Awaits::Request => self.pulse.leaves_body.load(Ordering::Relaxed),
        }
    }

    /// Reads and drops what the peer still sends, within [`REFUSED_BYTES_MAX`] and [`REFUSED_AGE_MAX`].
    ///
    /// A socket closed over unread bytes sends a reset. The reset overtakes the answer in the peer's kernel,
    /// and the peer's program reads an error in place of the answer.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(Parting { deadline, left_bytes }) = &mut self.parting else { return Poll::Ready(Ok(())) };
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 8 * 1024];
        loop {
            let mut bytes = ReadBuf::new(&mut scratch);
            ready!(Pin::new(self.io.inner_mut()).poll_read(cx, &mut bytes))?;
            let read = bytes.filled().len();
            // The peer has said its last too, or has got as much patience as a stranger gets.
            if read == 0 || read > *left_bytes {
                return Poll::Ready(Ok(()));
            }
            *left_bytes -= read;
        }
    }

    #[cold]
    fn give_up(&self) -> io::Error {
        self.pulse.late.store(true, Ordering::Relaxed);
        io::ErrorKind::TimedOut.into()
    }
}

impl Read for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // The bytes of a body are the request's business; those of a head pass through here once.
        let read = if self.pulse.is_peers_turn() {
            self.poll_read_head(cx, buf)
        } else {
            Pin::new(&mut self.io).poll_read(cx, buf)
        };
        match read {
            Poll::Ready(read) => {
                self.notice_bytes();
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_reading_deadline(cx),
        }
    }
}

impl Write for PacedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes_hypers_own(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Pending => self.poll_writing_deadline(cx),
            Poll::Ready(written) => {
                self.pulse.part_taken();
                Poll::Ready(written)
            }
        }
    }

    /// Notes a taken answer: hyper flushes once the socket has accepted the whole answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing = None;
        if self.pulse.answer_taken() && !self.idle_age_max.is_zero() {
            // The silence begins here. hyper may have asked for bytes while the door had its turn, and asks
            // again only when it is woken: without this timer, silence had no end.
            let _armed: Poll<io::Result<()>> = self.poll_reading_deadline(cx);
        }
        ready!(self.poll_misread(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Says the last, and waits for the peer to stop if the peer may still be sending.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.parting.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            if !self.leaves_bytes() {
                return Poll::Ready(Ok(()));
            }
            let deadline = Box::pin(sleep(REFUSED_AGE_MAX));
            self.parting = Some(Parting { deadline, left_bytes: REFUSED_BYTES_MAX });
        }
        self.poll_rest(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.first().is_some_and(|first| self.takes_hypers_own(first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        match Pin::new(&mut self.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.poll_writing_deadline(cx),
            Poll::Ready(written) => {
                self.pulse.part_taken();
                Poll::Ready(written)
            }
        }
    }
}
