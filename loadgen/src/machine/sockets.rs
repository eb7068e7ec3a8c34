//! How this generator's devices connect: without waiting, and from as many addresses as they need, because one address has
//! about 28 000 ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Where this process's devices come from, where their door is not on loopback.
static ELSEWHERE: OnceLock<Vec<IpAddr>> = OnceLock::new();
/// Whose turn it is of those.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Devices of this process come from these addresses in turn, where their door is not on loopback. The first to say any
/// is heeded; without one the kernel chooses.
pub(crate) fn come_from(sources: Vec<IpAddr>) {
    if !sources.is_empty() {
        // What a machine's own worker was told goes before what its coordinator says.
        drop(ELSEWHERE.set(sources));
    }
}

/// The address that the next connection to `door` comes from; `None`: the kernel chooses.
fn next_source(door: SocketAddr, loopback: Ipv4Addr) -> Option<IpAddr> {
    if door.ip().is_loopback() {
        return door.is_ipv4().then_some(loopback.into());
    }
    let sources = ELSEWHERE.get()?;
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    sources.get(turn % sources.len()).copied().filter(|source| source.is_ipv4() == door.is_ipv4())
}

/// A connection to `door` that is being made. `source` is the loopback address it comes from, where the door is on
/// loopback; `receive_bytes` is what the kernel may hold for it, where that is not left to the kernel.
///
/// # Errors
/// When there is no descriptor, or no port, for it.
pub(crate) fn connect(
    door: SocketAddr,
    source: Ipv4Addr,
    receive_bytes: Option<usize>,
) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(door), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = next_source(door, source) {
        // The port is chosen at connect, per (source, door) pair: many addresses, each with all its ports.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&door.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
