//! The real socket of a connection: tokio's, registered with its shard's runtime.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::residents::connection::Socket;

/// A device's socket. A drop wakes the task that reads the socket, so that the task ends too.
#[derive(Debug)]
pub(super) struct DeviceSocket {
    stream: TcpStream,
    /// Wakes the task that reads the socket and drains the outbox.
    waker: Waker,
}

impl DeviceSocket {
    /// A socket whose task has not run yet.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, waker: Waker::noop().clone() }
    }

    /// From now on the task of `cx` is woken.
    pub(super) fn adopt(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
    }

    /// Reads into `scratch`, or has the task of `cx` woken for the next bytes. 0: the device has ended.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(scratch);
        Pin::new(&mut self.stream).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }
}

impl Socket for DeviceSocket {
    #[inline]
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // sendmsg, as try_write is send: writev goes through what files need as well.
        self.stream.try_io(Interest::WRITABLE, || SockRef::from(&self.stream).send_vectored(parts))
    }

    fn tell_when_writable(&mut self) {
        let ready = self.stream.poll_write_ready(&mut Context::from_waker(&self.waker));
        // Already writable again, or failed: the task finds out which.
        if ready.is_ready() {
            self.waker.wake_by_ref();
        }
    }

    fn finish(&mut self) {
        // A socket that is broken already has nothing to finish.
        SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write).ok();
    }
}

impl Drop for DeviceSocket {
    fn drop(&mut self) {
        self.waker.wake_by_ref();
    }
}
