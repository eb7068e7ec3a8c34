//! `roomcast-loadgen floor`: the least processor time that a broadcast can cost on this machine.
//!
//! A loop with nothing in it but a non-blocking `send` of the same bytes to each of many plain TCP connections, round
//! after round; a child process holds their other ends and does nothing but read. What a server needs per device and
//! frame above this is its own; what is below the floor is the kernel's.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock::{monotonic_ns, sleep_until, thread_processor_ns};
use crate::figures::ratio;
use crate::machine::descriptors::devices_per_process;

/// How long the sender waits for its next receiver.
const RECEIVER_AGE_MAX: Duration = Duration::from_secs(10);

/// Linux acknowledges what comes first on a connection at once (TCP_MAX_QUICKACKS), within the sender's `send` where both are
/// one machine: a microsecond more for each of so many sends, and no part of what a frame costs later.
const QUICK_ACKS: u32 = 16;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FloorShape {
    /// Connections that are sent to.
    pub(crate) devices: u32,
    /// Bytes of each send.
    pub(crate) frame_bytes: usize,
    /// Rounds in 1 000 seconds; in each round every device is sent to once.
    pub(crate) rate_milli: u64,
    /// Rounds that are measured.
    pub(crate) rounds: u64,
}

/// What a floor came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Floor {
    pub(crate) devices: u32,
    pub(crate) frame_bytes: usize,
    pub(crate) rounds_per_s: f64,
    /// Sends that were taken whole.
    pub(crate) sends: u64,
    /// Sends that would have blocked: taken in part or not at all, and not tried again. Any make the figure doubtful.
    pub(crate) blocked: u64,
    /// Processor time of the sender per send.
    pub(crate) cpu_per_send_ns: f64,
}

impl Floor {
    /// Sends in this shape. Some rounds before the first are not counted: new connections are slower.
    ///
    /// The receivers run on the processors this process may use. Where those are not all there are (`taskset`), which is
    /// how a load is kept off its server's processors, the sender takes the others, as the server would.
    ///
    /// # Errors
    /// A sentence, when the connections can't be made or break.
    pub(crate) fn measure(shape: FloorShape) -> Result<Self, String> {
        let capacity = devices_per_process()?;
        if shape.devices > capacity {
            let devices = shape.devices;
            return Err(format!(
                "--devices: {devices}, but a process may open {capacity}; raise `ulimit -n`"
            ));
        }
        let failed = |error: std::io::Error| error.to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
        let receivers = Receivers::start(listener.local_addr().map_err(failed)?, shape.devices);
        let mut receivers = receivers.map_err(|error| format!("starting the receivers' process: {error}"))?;
        let sockets = accept(listener, shape.devices)?;
        // A thread of its own: where it runs, and the processor time it has used, are not the process's.
        let sending = std::thread::spawn(move || send_rounds(&sockets, shape));
        let floor = sending.join().map_err(|_| "the sender broke down".to_owned())?;
        receivers.await_end();
        floor
    }
}

/// The child process that holds the other ends. It is ended with this.
#[derive(Debug)]
struct Receivers(Child);

impl Receivers {
    fn start(sender: SocketAddr, receivers: u32) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("receivers").arg(sender.to_string()).arg(receivers.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(Self)
    }

    /// Waits for it: its connections are closed.
    fn await_end(&mut self) {
        drop(self.0.wait());
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Takes so many connections and greets each with a byte, for which the receivers wait before they connect more.
fn accept(mut listener: TcpListener, devices: u32) -> Result<Vec<TcpStream>, String> {
    let failed = |error: std::io::Error| format!("connecting the receivers: {error}");
    let mut poll = Poll::new().map_err(failed)?;
    let mut events = Events::with_capacity(1);
    poll.registry().register(&mut listener, Token(0), Interest::READABLE).map_err(failed)?;
    let mut sockets = Vec::new();
    while sockets.len() < devices as usize {
        match listener.accept() {
            Ok((stream, _)) => {
                let mut socket = TcpStream::from(stream);
                socket.set_nodelay(true).and_then(|()| socket.write_all(b"!")).map_err(failed)?;
                sockets.push(socket);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match poll.poll(&mut events, Some(RECEIVER_AGE_MAX)) {
                    Err(error) if error.kind() != ErrorKind::Interrupted => return Err(failed(error)),
                    Ok(()) if events.is_empty() => {
                        return Err(format!("only {} of {devices} receivers connected", sockets.len()));
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(sockets)
}

/// What became of sends.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    whole: u64,
    blocked: u64,
}

fn send_rounds(sockets: &[TcpStream], shape: FloorShape) -> Result<Floor, String> {
    step_aside();
    let frame = vec![b'x'; shape.frame_bytes];
    let failed = |error: std::io::Error| format!("sending: {error}");
    for _ in 0..QUICK_ACKS {
        send_round(sockets, b"?", &mut Sent::default()).map_err(failed)?;
    }
    send_round(sockets, &frame, &mut Sent::default()).map_err(failed)?;
    let mut sent = Sent::default();
    let mut spent_ns = 0;
    let start_ns = monotonic_ns();
    for round in 1..=shape.rounds {
        let due_ns = u128::from(round) * 1_000_000_000_000 / u128::from(shape.rate_milli.max(1));
        sleep_until(start_ns + u64::try_from(due_ns).unwrap_or(u64::MAX / 2));
        let before_ns = thread_processor_ns();
        send_round(sockets, &frame, &mut sent).map_err(failed)?;
        spent_ns += thread_processor_ns() - before_ns;
    }
    if sent.whole == 0 {
        return Err("no send was complete".into());
    }
    Ok(Floor {
        devices: shape.devices,
        frame_bytes: shape.frame_bytes,
        rounds_per_s: ratio(shape.rate_milli, 1_000),
        sends: sent.whole,
        blocked: sent.blocked,
        cpu_per_send_ns: ratio(spent_ns, sent.whole),
    })
}

/// What is measured.
fn send_round(sockets: &[TcpStream], frame: &[u8], sent: &mut Sent) -> std::io::Result<()> {
    for mut socket in sockets {
        match socket.write(frame) {
            Ok(written) if written == frame.len() => sent.whole += 1,
            Ok(_) => sent.blocked += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => sent.blocked += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves the calling thread to the processors that this process is kept off, if there are any.
fn step_aside() {
    let this_thread = Pid::from_raw(0);
    let Ok(mine) = sched_getaffinity(this_thread) else { return };
    let mut others = CpuSet::new();
    for processor in (0..CpuSet::count()).filter(|processor| mine.is_set(*processor) == Ok(false)) {
        others.set(processor).ok();
    }
    // Where there are none the kernel refuses, and the thread stays where it is.
    sched_setaffinity(this_thread, &others).ok();
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "floor        {:.0} ns of processor time per send: {} devices, {} bytes, {} rounds/s; {} sends, {} would block",
            self.cpu_per_send_ns, self.devices, self.frame_bytes, self.rounds_per_s, self.sends, self.blocked
        )
    }
}
