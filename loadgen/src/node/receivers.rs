//! The floor's child process: sockets that are only read. Ends when the sender has closed all sockets.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock::{monotonic_ns, sleep_until};
use crate::machine::descriptors::devices_per_process;
use crate::machine::sockets;

/// Largest read.
const SCRATCH_BYTES: usize = 1024 * 1024;
/// Most readiness events of one turn.
const EVENTS_MAX: usize = 4096;
/// Source addresses, used in turn.
const SOURCES: usize = 8;

/// Rest before each read. A run's devices are busy, so few sends find a device asleep. Without the rest, one
/// send in twelve would wake a receiver at the sender's cost.
const REST_NS: u64 = 200_000;
/// Most ungreeted connections. More could overflow the sender's backlog.
const UNGREETED_MAX: usize = 64;

#[derive(Debug)]
struct Receiver {
    /// `None` once closed.
    stream: Option<TcpStream>,
    /// The sender took the connection and sent its first byte.
    is_greeted: bool,
}

/// Connects `count` receivers to `sender` and reads until all are closed.
///
/// # Errors
/// When a connection fails or ends before its greeting, or epoll fails.
pub(crate) fn run(sender: SocketAddr, count: usize) -> std::io::Result<()> {
    // Raises the descriptor limit.
    devices_per_process().map_err(std::io::Error::other)?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut scratch = vec![0; SCRATCH_BYTES];
    let subnet = fastrand::u8(1..=250);
    let mut receivers: Vec<Receiver> = Vec::with_capacity(count);
    let mut greeted = 0;
    let mut open = count;
    while open > 0 {
        while receivers.len() < count && receivers.len() - greeted < UNGREETED_MAX {
            let host = u8::try_from(receivers.len() % SOURCES + 1).unwrap_or(1);
            let mut stream = sockets::connect(sender, Ipv4Addr::new(127, 0, subnet, host), None)?;
            poll.registry().register(&mut stream, Token(receivers.len()), Interest::READABLE)?;
            receivers.push(Receiver { stream: Some(stream), is_greeted: false });
        }
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        // While this thread rests here and not in epoll, sends wake nobody.
        sleep_until(monotonic_ns() + REST_NS);
        for event in &events {
            let receiver = &mut receivers[event.token().0];
            let Some(stream) = &mut receiver.stream else { continue };
            let is_over = is_over(stream, event.is_read_closed(), &mut scratch);
            if is_over {
                receiver.stream = None;
                open -= 1;
            }
            // Fewer connections would measure a smaller floor without notice.
            if !receiver.is_greeted && is_over {
                return Err(std::io::Error::other("the sender took not every connection"));
            }
            greeted += usize::from(!receiver.is_greeted);
            receiver.is_greeted = true;
        }
    }
    Ok(())
}

/// Reads all waiting bytes; true at the end of the stream. A read below the scratch size has emptied the
/// socket (epoll(7)), unless the other end is closing.
fn is_over(stream: &mut TcpStream, closing: bool, scratch: &mut [u8]) -> bool {
    loop {
        match stream.read(scratch) {
            Ok(0) => return true,
            Ok(read) if read < scratch.len() && !closing => return false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}
