//! Non-blocking connects of devices, from many source addresses: one address has about 28 000 ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

/// Source addresses of this process's devices for doors off loopback.
static ELSEWHERE: OnceLock<Vec<IpAddr>> = OnceLock::new();
/// Number of addresses handed out.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Sets the source addresses for doors off loopback. The first non-empty list wins; without any the kernel
/// chooses.
pub(crate) fn come_from(sources: Vec<IpAddr>) {
    if !sources.is_empty() {
        // `--source` of a machine's own worker comes first, and so wins over the coordinator's list.
        drop(ELSEWHERE.set(sources));
    }
}

/// The source address of the next connection; `None`: the kernel chooses.
fn next_source(door: SocketAddr, loopback: Ipv4Addr) -> Option<IpAddr> {
    // All of 127.0.0.0/8 is this machine, so each worker takes addresses of its own without setup.
    if door.ip().is_loopback() {
        return door.is_ipv4().then_some(loopback.into());
    }
    let sources = ELSEWHERE.get()?;
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    sources.get(turn % sources.len()).copied().filter(|source| source.is_ipv4() == door.is_ipv4())
}

/// Begins a connection to `door`. `source` is used for a door on loopback; `receive_bytes` caps the kernel's
/// receive buffer.
///
/// # Errors
/// When descriptors or ports are used up.
pub(crate) fn connect(
    door: SocketAddr,
    source: Ipv4Addr,
    receive_bytes: Option<usize>,
) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(door), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = next_source(door, source) {
        // The kernel chooses the port at connect, per (source, door) pair, so every address has all its
        // ports.
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
        // The usual answer of a non-blocking connect.
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
