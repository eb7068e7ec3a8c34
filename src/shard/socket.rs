//! The real socket of a connection: tokio's, registered with its shard's runtime.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::residents::connection::Socket;
use roomcast_core::fanout::drain_rate::Progress;

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

    fn progress(&self) -> Progress {
        let mut info = [0; TCP_INFO_BYTES];
        let filled = tcp_info(&self.stream, &mut info);
        let number = |at: usize| {
            let bytes = info[..filled].get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        if filled < TCP_INFO_BYTES {
            // A kernel before 4.19 does not count so far: the device stays unproven.
            return Progress { queued: u64::MAX, ..Progress::default() };
        }
        let acked = number(tcp_info_at::BYTES_ACKED);
        let in_flight = number(tcp_info_at::BYTES_SENT).saturating_sub(number(tcp_info_at::BYTES_RETRANS));
        let unsent = number(tcp_info_at::NOTSENT_BYTES) & u64::from(u32::MAX);
        Progress {
            queued: in_flight.saturating_sub(acked) + unsent,
            acked,
            busy: Duration::from_micros(number(tcp_info_at::BUSY_TIME)),
        }
    }

    fn set_unsent_max(&mut self, bytes: u32) {
        // A socket that is broken already has no use for a bound.
        SockRef::from(&self.stream).set_tcp_notsent_lowat(bytes).ok();
    }
}

/// Bytes of `struct tcp_info` (`linux/tcp.h`) up to the fields that are read.
const TCP_INFO_BYTES: usize = 216;

/// Places of fields in `struct tcp_info`. The kernel only ever adds fields at its end.
mod tcp_info_at {
    /// Bytes acknowledged by the peer.
    pub(super) const BYTES_ACKED: usize = 120;
    /// Bytes in the send buffer that were not sent once, 32 bits.
    pub(super) const NOTSENT_BYTES: usize = 144;
    /// Microseconds with bytes to send, or to have acknowledged.
    pub(super) const BUSY_TIME: usize = 168;
    /// Bytes sent, repeated ones included.
    pub(super) const BYTES_SENT: usize = 200;
    /// Bytes sent again.
    pub(super) const BYTES_RETRANS: usize = 208;
}

/// Reads what the kernel counts about a connection. Returns the number of bytes that it filled in.
#[expect(unsafe_code, reason = "the call has no safe name in the libraries that are here")]
fn tcp_info(stream: &TcpStream, info: &mut [u8; TCP_INFO_BYTES]) -> usize {
    let mut length = libc::socklen_t::try_from(info.len()).expect("a few hundred bytes");
    // SAFETY: the kernel writes at most `length` bytes, which `info` has, and the descriptor lives as long as
    // `stream`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { length as usize } else { 0 }
}

impl Drop for DeviceSocket {
    fn drop(&mut self) {
        self.waker.wake_by_ref();
    }
}
