//! A child process of the floor: sockets that are read and nothing else. It ends when the sender has closed them all.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock::{monotonic_ns, sleep_until};
use crate::machine::descriptors::devices_per_process;
use crate::machine::sockets;

/// Largest read.
const SCRATCH_BYTES: usize = 1024 * 1024;
/// Readiness events taken in one turn.
const EVENTS_MAX: usize = 4096;
/// Addresses that they come from, in turn.
const SOURCES: usize = 8;

/// How long they rest before they read what is there. The devices of a run have more to do than to read, so that few sends
/// find them asleep; receivers that slept after each read would be woken by one send in twelve, at the sender's cost.
const REST_NS: u64 = 200_000;
/// Connections that the sender has not greeted yet. Past it no other is begun, so that its backlog can't overflow.
const UNGREETED_MAX: usize = 64;

/// One receiver's end.
#[derive(Debug)]
struct Receiver {
    /// `None` once it is closed.
    stream: Option<TcpStream>,
    /// Whether the sender has taken the connection: it says so with a first byte.
    is_greeted: bool,
}

/// Connects so many receivers to `sender` and reads until each of them is closed.
///
/// # Errors
/// When a connection can't be begun or ends before it was greeted, or the kernel gives no epoll descriptor.
pub(crate) fn run(sender: SocketAddr, count: usize) -> std::io::Result<()> {
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
        // While it rests here, and not in epoll, what is sent to it wakes nobody.
        sleep_until(monotonic_ns() + REST_NS);
        for event in &events {
            let receiver = &mut receivers[event.token().0];
            let Some(stream) = &mut receiver.stream else { continue };
            let is_over = is_over(stream, event.is_read_closed(), &mut scratch);
            if is_over {
                receiver.stream = None;
                open -= 1;
            }
            if !receiver.is_greeted && is_over {
                return Err(std::io::Error::other("the sender took not every connection"));
            }
            greeted += usize::from(!receiver.is_greeted);
            receiver.is_greeted = true;
        }
    }
    Ok(())
}

/// Reads what is there, and says whether that was all there ever will be. A read that did not fill the scratch emptied
/// the socket (epoll(7)), unless its other end is closing.
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
