//! `roomcast-loadgen worker --listen`: workers for coordinators on other machines.
//!
//! As with inetd, each connection becomes stdin and stdout of a worker process, so a worker knows nothing of
//! sockets. A coordinator can make this machine open thousands of connections to any address, so a key guards
//! the port.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::clock::{monotonic_ns, sleep_until};
use crate::error::RunError;
use crate::fleet::processes::{WORKERS_MAX, worker_process};
use crate::fleet::remote::{KEY_VARIABLE, keep_alive};
use crate::fleet::words::Word;
use crate::fleet::worker;
use crate::machine::descriptors::devices_per_process;
use crate::machine::sockets;

/// Longest wait for a coordinator's key.
const KEY_AGE_MAX_NS: u64 = 5_000_000_000;
/// Most connections without a key so far. Such connections take no worker's place.
const STRANGERS_MAX: usize = 16;
/// Wait after a failed accept, as when descriptors are used up.
const TAKE_AGAIN_NS: u64 = 100_000_000;
const KEY_BYTES_MAX: usize = 256;

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Listen here for coordinators of other machines; each connection gets a worker process. Without this
    /// flag orders come on stdin. Off loopback, both sides need the same key in `ROOMCAST_WORKER_KEY`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Address of this machine for its devices, whatever the coordinator says; repeat for more, used in turn.
    /// One address reaches one door with about 28 000 devices.
    #[arg(long = "source", value_name = "ADDRESS")]
    sources: Vec<IpAddr>,
}

/// Runs a worker on stdin and stdout, or with `--listen` a worker for each connecting coordinator.
///
/// # Errors
/// [`RunError::Usage`] when the address or the key is unusable; [`RunError::Target`] when a worker fails.
pub(crate) fn run(args: &WorkerArgs) -> Result<(), RunError> {
    let Some(address) = args.listen else {
        sockets::come_from(args.sources.clone());
        return worker::run().map_err(|error| RunError::Target(error.to_string()));
    };
    let usage = |reason: &dyn std::fmt::Display| RunError::Usage(format!("--listen {address}: {reason}"));
    let key = std::env::var(KEY_VARIABLE).unwrap_or_default();
    if key.len() > KEY_BYTES_MAX || key.contains('\n') {
        return Err(usage(&format_args!("{KEY_VARIABLE}: at most {KEY_BYTES_MAX} bytes of one line")));
    }
    // Loopback is as open as this machine's accounts.
    if key.is_empty() && !address.ip().is_loopback() {
        return Err(usage(&format_args!("anybody could use this machine; set {KEY_VARIABLE}")));
    }
    // Workers inherit the descriptor limit, raised to the hard limit here.
    devices_per_process().map_err(|reason| usage(&reason))?;
    let listener = TcpListener::bind(address).map_err(|error| usage(&error))?;
    let listening = listener.local_addr().map_err(|error| usage(&error))?;
    drop(writeln!(std::io::stderr(), "taking coordinators at {listening}"));
    let place = Arc::new(WorkerHost { key, sources: args.sources.clone(), ..WorkerHost::default() });
    for taken in listener.incoming() {
        let Ok(stream) = taken else {
            sleep_until(monotonic_ns() + TAKE_AGAIN_NS);
            continue;
        };
        let held = Arc::clone(&place);
        std::thread::spawn(move || {
            let outcome = held.serve(stream);
            if let Err(reason) = outcome {
                drop(writeln!(std::io::stderr(), "{reason}"));
            }
        });
    }
    Ok(())
}

/// State shared by all workers of this machine.
#[derive(Debug, Default)]
struct WorkerHost {
    key: String,
    sources: Vec<IpAddr>,
    strangers: Admission,
    workers: Admission,
}

/// Counts the holders of a bounded number of places; each holder keeps a clone.
#[derive(Debug, Default)]
struct Admission(Arc<()>);

impl Admission {
    /// One of `most` places; `None` where all are taken.
    fn enter(&self, most: usize) -> Option<Arc<()>> {
        // `self` and the newcomer hold a clone as well.
        Some(Arc::clone(&self.0)).filter(|held| Arc::strong_count(held) <= most + 1)
    }
}

impl WorkerHost {
    /// Runs a worker process for this connection, and waits for its end.
    fn serve(&self, mut stream: TcpStream) -> Result<(), String> {
        let peer = stream.peer_addr().map_or_else(|_| "somebody".to_owned(), |peer| peer.to_string());
        let Some(stranger) = self.strangers.enter(STRANGERS_MAX) else {
            refuse(&mut stream, &format!("{STRANGERS_MAX} others are about to say the {KEY_VARIABLE}"));
            return Err(format!("{peer}: refused, {STRANGERS_MAX} others have said no key yet"));
        };
        match read_key(&mut stream) {
            Some(said) if said == self.key.as_bytes() => {}
            said => {
                refuse(&mut stream, &format!("wants another {KEY_VARIABLE}"));
                let wrong = if said.is_some() { "another key" } else { "no key" };
                return Err(format!("{peer}: refused, it said {wrong}"));
            }
        }
        // Free the stranger's place: a worker's run may take hours.
        drop(stranger);
        let Some(_worker) = self.workers.enter(WORKERS_MAX as usize) else {
            refuse(&mut stream, &format!("this machine has {WORKERS_MAX} workers already"));
            return Err(format!("{peer}: refused, {WORKERS_MAX} workers are here already"));
        };
        let failed = |error: std::io::Error| format!("{peer}: {error}");
        // Without keepalive a vanished coordinator would leave its worker running for ever.
        keep_alive(&stream).map_err(failed)?;
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(None)).map_err(failed)?;
        let orders: OwnedFd = stream.try_clone().map_err(failed)?.into();
        let words: OwnedFd = stream.into();
        let mut command = worker_process().map_err(failed)?;
        command.stdin(Stdio::from(orders)).stdout(Stdio::from(words));
        for source in &self.sources {
            command.arg("--source").arg(source.to_string());
        }
        let mut child = command.spawn().map_err(failed)?;
        // The command holds this process's copies of the connection, which would keep the connection open.
        drop(command);
        child.wait().map(drop).map_err(failed)
    }
}

fn refuse(stream: &mut TcpStream, reason: &str) {
    let word = Word::Failed { reason: reason.to_owned() };
    let line = serde_json::to_string(&word).unwrap_or_default();
    drop(stream.write_all(format!("{line}\n").as_bytes()));
}

/// Reads the first line byte by byte, because all later bytes belong to the worker. `None`: no line in time,
/// or a line past the limit.
fn read_key(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let deadline_ns = monotonic_ns() + KEY_AGE_MAX_NS;
    let mut key = Vec::new();
    let mut byte = [0];
    while key.len() <= KEY_BYTES_MAX {
        let left = Duration::from_nanos(deadline_ns.checked_sub(monotonic_ns()).filter(|left| *left > 0)?);
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut byte) {
            Ok(1) if byte == *b"\n" => return Some(key),
            Ok(1) => key.push(byte[0]),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Shutdown};

    fn key_of(said: &[u8]) -> (Option<Vec<u8>>, Vec<u8>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut coordinator = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        coordinator.write_all(said).unwrap();
        coordinator.shutdown(Shutdown::Write).unwrap();
        let key = read_key(&mut stream);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (key, rest)
    }

    #[test]
    fn a_key_is_one_line_and_what_follows_is_left_for_the_worker() {
        assert_eq!(key_of(b"secret\n{\"clock\"}\n"), (Some(b"secret".to_vec()), b"{\"clock\"}\n".to_vec()));
        assert_eq!(key_of(b"\nrest"), (Some(Vec::new()), b"rest".to_vec()));
        assert_eq!(key_of(b"no end"), (None, Vec::new()));
        assert_eq!(key_of(&[b'x'; 300]).0, None);
    }

    #[test]
    fn whoever_leaves_makes_room() {
        let room = Admission::default();
        let held: Vec<_> = (0..2).map_while(|_| room.enter(2)).collect();
        assert_eq!((held.len(), room.enter(2).is_none()), (2, true));
        drop(held);
        assert!(room.enter(2).is_some());
    }
}
