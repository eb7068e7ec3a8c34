//! A door's socket that gives up on a peer which is too slow: with the head of a request, between requests, or with
//! taking an answer.
//!
//! hyper's own header timeout also runs between requests, so it would either cut idle publishers off after five
//! seconds or let a slow head take a minute; it also allocates a timer per request. This one knows the difference and
//! allocates one timer per connection. Request bodies have their own deadline, where they are read.

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

/// Where a connection stands, shared between its socket and what answers its requests.
#[derive(Debug)]
pub struct Pulse {
    /// Odd while a request is being answered; grows by one at each change.
    turns: AtomicU32,
    late: AtomicBool,
    /// Whether an answer is known and not wholly with the kernel.
    owes: AtomicBool,
    accepted: Instant,
    /// When the last answer was taken, in milliseconds after `accepted`.
    silent_ms: AtomicU64,
    /// Whether its door needs the place.
    to_give_way: AtomicBool,
    asked: Notify,
}

impl Pulse {
    /// Of a connection that was accepted now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            turns: AtomicU32::new(0),
            late: AtomicBool::new(false),
            owes: AtomicBool::new(false),
            accepted: now,
            silent_ms: AtomicU64::new(0),
            to_give_way: AtomicBool::new(false),
            asked: Notify::new(),
        }
    }

    /// A request's head is complete.
    pub fn request_began(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is known.
    pub fn request_answered(&self) {
        self.owes.store(true, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel has the whole answer. Without one that was owed, nothing happens.
    pub fn answer_taken(&self) {
        if self.owes.load(Ordering::Relaxed) {
            let silent = clock::now().instant.saturating_duration_since(self.accepted);
            self.silent_ms.store(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.owes.store(false, Ordering::Relaxed);
        }
    }

    /// Since when its door waits for a whole request; `None` while it is the door's turn.
    #[must_use]
    pub fn silent_since(&self) -> Option<Instant> {
        let is_doors_turn = self.turns.load(Ordering::Relaxed) % 2 == 1 || self.owes.load(Ordering::Relaxed);
        let since = || self.accepted + Duration::from_millis(self.silent_ms.load(Ordering::Relaxed));
        (!is_doors_turn).then(since)
    }

    /// Its door needs the place for another one.
    pub fn ask_to_give_way(&self) {
        self.to_give_way.store(true, Ordering::Relaxed);
        self.asked.notify_one();
    }

    /// Whether it was asked to.
    #[must_use]
    pub fn is_to_give_way(&self) -> bool {
        self.to_give_way.load(Ordering::Relaxed)
    }

    /// Ready once the connection was asked to give way, unless its request came in the meantime.
    pub async fn gives_way(&self) {
        loop {
            self.asked.notified().await;
            if self.silent_since().is_some() {
                return;
            }
        }
    }

    /// Whether the peer was given up on.
    #[must_use]
    pub fn was_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }
}

/// What the next bytes will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// The first byte of a further request.
    Request,
    /// The rest of a head. A new connection starts here: it has come to say something.
    Head,
}

/// A socket under deadlines.
#[derive(Debug)]
pub struct PacedStream {
    io: TokioIo<TcpStream>,
    pulse: Arc<Pulse>,
    awaits: Awaits,
    /// The turn of the pulse that `awaits` belongs to.
    turn: u32,
    idle_age_max: Duration,
    reading: Pin<Box<Sleep>>,
    /// Whether `reading` stands at the deadline of `awaits`.
    armed: bool,
    /// Exists from the moment the peer did not take the whole of an answer until it has.
    writing: Option<Pin<Box<Sleep>>>,
}

impl PacedStream {
    /// A freshly accepted socket; the first head is due within [`HANDSHAKE_AGE_MAX`] from now.
    #[must_use]
    pub fn new(stream: TcpStream, idle_age_max: Duration, pulse: Arc<Pulse>) -> Self {
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

    /// The plain socket.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.io.into_inner()
    }

    /// After the socket had nothing to read.
    fn poll_reading_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = self.pulse.turns.load(Ordering::Relaxed);
        // While an answer is under way the peer is to read, not to write: its deadline is the writing one.
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
            // Nobody was kept waiting.
            Awaits::Request => Err(io::ErrorKind::TimedOut.into()),
            Awaits::Head => Err(self.give_up()),
        })
    }

    /// A request was answered since the last read: the next byte begins another one.
    fn notice_turn(&mut self, turn: u32) {
        if self.turn != turn {
            self.turn = turn;
            self.awaits = Awaits::Request;
            self.armed = false;
        }
    }

    /// After the socket gave bytes. A head's deadline counts from its first byte and is never re-armed by later ones.
    fn notice_bytes(&mut self) {
        self.notice_turn(self.pulse.turns.load(Ordering::Relaxed));
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

    /// hyper flushes when it has given the socket everything: the answer was taken.
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
