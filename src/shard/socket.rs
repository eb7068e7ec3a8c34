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
    fn try_write(&mut self, bytes: &[u8], is_segment: bool) -> io::Result<usize> {
        let socket = SockRef::from(&self.stream);
        self.stream.try_io(Interest::WRITABLE, || socket.send_with_flags(bytes, flags(is_segment)))
    }

    fn try_write_vectored(&mut self, parts: &[IoSlice<'_>], is_segment: bool) -> io::Result<usize> {
        // sendmsg, as try_write is send: writev goes through what files need as well.
        let socket = SockRef::from(&self.stream);
        self.stream.try_io(Interest::WRITABLE, || socket.send_vectored_with_flags(parts, flags(is_segment)))
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

    fn progress(&self) -> Option<Progress> {
        let mut info = [0; TCP_INFO_BYTES];
        let filled = option(&self.stream, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info);
        let number = |at: usize| {
            let bytes = info[..filled].get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        if filled < TCP_INFO_BYTES {
            return None; // A kernel before 4.19.
        }
        let acked = number(tcp_info_at::BYTES_ACKED);
        let in_flight = number(tcp_info_at::BYTES_SENT).saturating_sub(number(tcp_info_at::BYTES_RETRANS));
        let unsent = number(tcp_info_at::NOTSENT_BYTES) & u64::from(u32::MAX);
        Some(Progress {
            queued: in_flight.saturating_sub(acked) + unsent,
            acked,
            busy: Duration::from_micros(number(tcp_info_at::BUSY_TIME)),
            round_trip: Duration::from_micros(number(tcp_info_at::MIN_RTT) & u64::from(u32::MAX)),
        })
    }

    fn set_unsent_max(&mut self, bytes: u32) {
        // A socket that is broken already has no use for a bound.
        SockRef::from(&self.stream).set_tcp_notsent_lowat(bytes).ok();
    }

    fn set_queued_max(&mut self, bytes: Option<u32>, had: Option<u32>, queued: Option<u64>) {
        let mut memory = [0; MEMORY_BYTES];
        let filled = option(&self.stream, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut memory);
        let number = |at: usize| {
            let bytes = memory[..filled].get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(|bytes| u64::from(u32::from_ne_bytes(bytes)))
        };
        let socket = SockRef::from(&self.stream);
        let Some(bytes) = bytes else {
            socket.set_send_buffer_size(SEND_BUFFER_FREE).ok();
            // The kernel tunes the buffer again. Before 5.14 it keeps the size set.
            set_option(&self.stream, libc::SOL_SOCKET, SO_BUF_LOCK, 0);
            return;
        };
        // The buffer is counted in memory: 1.2 bytes for a byte of large segments, and 5 of small ones.
        let held = number(memory_at::QUEUED).zip(queued).filter(|(_, queued)| *queued >= RATIO_BYTES_MIN);
        let (memory, queued) = held.unwrap_or((2, 1));
        let wanted = (u64::from(bytes) * memory / queued).clamp(SEND_BUFFER_MIN, SEND_BUFFER_MAX);
        let is_near = |now: u64| now.abs_diff(wanted) < wanted / 8;
        // A buffer that the kernel tunes may have this size by chance, and would go on growing.
        if had.is_none() || !number(memory_at::SEND_BUFFER).is_some_and(is_near) {
            // The kernel doubles the size.
            socket.set_send_buffer_size(usize::try_from(wanted / 2).expect("clamped")).ok();
        }
    }
}

/// Flags of a write. A broken connection is an error, and no signal.
fn flags(is_segment: bool) -> libc::c_int {
    libc::MSG_NOSIGNAL | if is_segment { libc::MSG_EOR } else { 0 }
}

/// Least bytes in the kernel by which their need of memory is estimated.
const RATIO_BYTES_MIN: u64 = 2 * 1024;
/// Send buffer of a device that is fast again, before the kernel tunes it.
const SEND_BUFFER_FREE: usize = 256 * 1024;
/// Bounds of the memory that the kernel may hold for a slow device. The kernel has a least size of its own.
const SEND_BUFFER_MIN: u64 = 4 * 1024;
const SEND_BUFFER_MAX: u64 = 512 * 1024;

/// Takes and gives back the lock on the sizes of buffers (`asm-generic/socket.h`).
const SO_BUF_LOCK: libc::c_int = 72;

/// Bytes of the numbers that `SO_MEMINFO` tells (`linux/sock_diag.h`), as far as they are read.
const MEMORY_BYTES: usize = 24;

/// Places of numbers of 32 bits in these bytes.
mod memory_at {
    /// Size of the send buffer.
    pub(super) const SEND_BUFFER: usize = 12;
    /// Memory of the bytes that were not acknowledged, unsent ones included.
    pub(super) const QUEUED: usize = 20;
}

/// Bytes of `struct tcp_info` (`linux/tcp.h`) up to the fields that are read.
const TCP_INFO_BYTES: usize = 216;

/// Places of fields in `struct tcp_info`. The kernel only ever adds fields at its end.
mod tcp_info_at {
    /// Bytes acknowledged by the peer.
    pub(super) const BYTES_ACKED: usize = 120;
    /// Bytes in the send buffer that were not sent once, 32 bits.
    pub(super) const NOTSENT_BYTES: usize = 144;
    /// The shortest round trip, in microseconds, 32 bits.
    pub(super) const MIN_RTT: usize = 148;
    /// Microseconds with bytes to send, or to have acknowledged.
    pub(super) const BUSY_TIME: usize = 168;
    /// Bytes sent, repeated ones included.
    pub(super) const BYTES_SENT: usize = 200;
    /// Bytes sent again.
    pub(super) const BYTES_RETRANS: usize = 208;
}

/// Reads what the kernel counts about a connection. Returns the number of bytes that it filled in.
#[expect(unsafe_code, reason = "the call has no safe name in the libraries that are here")]
fn option(stream: &TcpStream, level: libc::c_int, name: libc::c_int, into: &mut [u8]) -> usize {
    let mut length = libc::socklen_t::try_from(into.len()).expect("a few hundred bytes");
    // SAFETY: the kernel writes at most `length` bytes, which `into` has, and the descriptor lives as long as
    // `stream`.
    let result = unsafe {
        libc::getsockopt(stream.as_raw_fd(), level, name, into.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { length as usize } else { 0 }
}

/// Sets an option, if the kernel knows it.
#[expect(unsafe_code, reason = "the call has no safe name in the libraries that are here")]
fn set_option(stream: &TcpStream, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("four bytes");
    // SAFETY: the kernel reads `length` bytes, which `value` has, and the descriptor lives as long as `stream`.
    unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, (&raw const value).cast(), length) };
}

impl Drop for DeviceSocket {
    fn drop(&mut self) {
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes until the kernel takes no more. The bytes that stand in the kernel then.
    fn fill(socket: &mut DeviceSocket) -> u64 {
        while socket.try_write(&[0; 1000], true).is_ok() {}
        socket.progress().unwrap().queued
    }

    #[tokio::test]
    async fn a_bound_holds_what_stands_in_the_kernel_and_is_taken_back() {
        let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(door.local_addr().unwrap()), door.accept());
        let _deaf = accepted.unwrap();
        let mut socket = DeviceSocket::new(stream.unwrap());
        socket.stream.writable().await.unwrap();
        socket.set_queued_max(Some(8192), None, Some(0));
        let bounded = fill(&mut socket);
        assert!((1..=16 * 1024).contains(&bounded), "{bounded} bytes");
        socket.set_queued_max(None, Some(8192), Some(bounded));
        socket.stream.writable().await.unwrap();
        let free = fill(&mut socket);
        assert!(free >= 128 * 1024, "{free} bytes");
    }
}
