//! How this generator's devices connect: without waiting, and on loopback from addresses of their own, because one
//! address has about 28 000 ports.

use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

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
    if door.is_ipv4() && door.ip().is_loopback() {
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
