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
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use crate::clock;
use roomcast_core::limits::{ANSWER_AGE_MAX, HANDSHAKE_AGE_MAX};

/// The state of one connection, shared by the socket, the door's answers and the door's places.
///
/// All atomics are relaxed. A door may see an old state and ask in vain: `gives_way` looks again, on the
/// connection's own task.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Changes between "the peer's turn" (even) and "the door's turn" (odd). Grows by one at each change.
    turns: AtomicU32,
    /// The peer missed the deadline of a head or of an answer.
    pub(super) late: AtomicBool,
    /// An answer is known, and part of the answer is not with the kernel yet.
    owes: AtomicBool,
    accepted: Instant,
    /// The moment at which the peer's last answer was taken, in milliseconds after `accepted`.
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
            accepted: now,
            silent_ms: AtomicU64::new(0),
            asked: Notify::new(),
        }
    }

    /// Notes a complete request head: the door's turn begins.
    pub(super) fn request_began(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a known answer: the peer's turn begins once the kernel has the whole answer.
    pub(super) fn request_answered(&self) {
        // `owes` first: between the two stores the connection must never look silent.
        self.owes.store(true, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the kernel has taken the whole answer. Without an owed answer, nothing happens.
    pub(super) fn answer_taken(&self) {
        if self.owes.load(Ordering::Relaxed) {
            let silent = clock::now().instant.saturating_duration_since(self.accepted);
            self.silent_ms.store(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.owes.store(false, Ordering::Relaxed);
        }
    }

    /// The moment since which the door has waited for a whole request. `None`: the door has its turn.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let is_doors_turn = self.turns.load(Ordering::Relaxed) % 2 == 1 || self.owes.load(Ordering::Relaxed);
        let since = || self.accepted + Duration::from_millis(self.silent_ms.load(Ordering::Relaxed));
        (!is_doors_turn).then(since)
    }

    /// Returns once the connection was asked to give way and still has no whole request.
    pub(super) async fn gives_way(&self) {
        loop {
            self.asked.notified().await;
            // A request may have come between the question and now: then the connection has earned its place.
            if self.silent_since().is_some() {
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
        }
    }

    /// The plain socket, without deadlines.
    pub(in crate::http) fn into_stream(self) -> TcpStream {
        self.io.into_inner()
    }

    /// Checks the deadline for reading, after the socket had nothing to read.
    fn poll_reading_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = self.pulse.turns.load(Ordering::Relaxed);
        // While an answer is under way, the peer has to read, not to write: the writing deadline applies.
        if turn % 2 == 1 || self.pulse.owes.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.notice_turn(turn);
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
        }
    }

    /// Notes bytes from the socket. Only the first byte of a head sets the head's deadline.
    fn notice_bytes(&mut self) {
        self.notice_turn(self.pulse.turns.load(Ordering::Relaxed));
        // Later bytes never re-arm the deadline: one byte every 4 s could otherwise hold a place for hours.
        if self.awaits == Awaits::Request {
            self.awaits = Awaits::Head;
            self.armed = false;
        }
    }

    #[cold]
    fn poll_writing_deadline<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = self.writing.get_or_insert_with(|| Box::pin(sleep(ANSWER_AGE_MAX)));
        deadline.as_mut().poll(cx).map(|()| Err(self.give_up()))
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
        match Pin::new(&mut self.io).poll_read(cx, buf) {
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
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Pending => self.poll_writing_deadline(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    /// Notes a taken answer: hyper flushes once the socket has accepted the whole answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing = None;
        self.pulse.answer_taken();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.poll_writing_deadline(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }
}
