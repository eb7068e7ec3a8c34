//! `roomcast-loadgen floor`: the least processor time of a broadcast on this machine.
//!
//! A loop of non-blocking `send` of the same bytes to many plain TCP connections, round after round. A child
//! process holds the other ends and only reads. A server's time above the floor is its own; the floor is the
//! kernel's.

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
use crate::machine::child;
use crate::machine::descriptors::devices_per_process;

/// Longest wait for the next receiver.
const RECEIVER_AGE_MAX: Duration = Duration::from_secs(10);

/// Longest wait for the receivers' process to end after its connections.
const RECEIVERS_END_NS: u64 = 5_000_000_000;

/// Linux acknowledges the first segments of a connection at once (TCP_MAX_QUICKACKS), on loopback within the
/// sender's `send`. Each of these sends costs a microsecond more than later sends, so these rounds are not
/// measured.
const QUICK_ACKS: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FloorShape {
    pub(crate) devices: u32,
    /// Bytes of each send.
    pub(crate) frame_bytes: usize,
    /// Rounds in 1 000 seconds. A round sends once to every device.
    pub(crate) rate_milli: u64,
    /// Measured rounds.
    pub(crate) rounds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Floor {
    pub(crate) devices: u32,
    pub(crate) frame_bytes: usize,
    pub(crate) rounds_per_s: f64,
    /// Sends taken whole.
    pub(crate) sends: u64,
    /// Sends taken in part or not at all, without a retry. Any such send makes the figure doubtful.
    pub(crate) blocked: u64,
    /// Sender's processor time per send.
    pub(crate) cpu_per_send_ns: f64,
}

impl Floor {
    /// Measures after some uncounted rounds, because new connections are slower.
    ///
    /// The receivers run on the processors of this process. Under `taskset`, which keeps a load off its
    /// server's processors, the sender takes the other processors, as the server would.
    ///
    /// # Errors
    /// A sentence when a connection can't be made or breaks.
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
        // A thread of its own: its processor time and its processors are not the process's.
        let sending = std::thread::spawn(move || send_rounds(&sockets, shape));
        let floor = sending.join().map_err(|_| "the sender broke down".to_owned())?;
        // Its connections are closed by now.
        child::end_by(&mut receivers.0, monotonic_ns() + RECEIVERS_END_NS);
        floor
    }
}

/// The child process with the other ends; killed on drop.
#[derive(Debug)]
struct Receivers(Child);

impl Receivers {
    fn start(sender: SocketAddr, receivers: u32) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("receivers").arg(sender.to_string()).arg(receivers.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(Self)
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Accepts the receivers and greets each with a byte. Receivers wait for greetings before further connects.
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

#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    whole: u64,
    blocked: u64,
}

fn send_rounds(sockets: &[TcpStream], shape: FloorShape) -> Result<Floor, String> {
    step_aside();
    let frame = vec![b'x'; shape.frame_bytes];
    let failed = |error: std::io::Error| format!("sending: {error}");
    // Warm-up: the quick acknowledgements, then one frame of the measured size.
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
    // A floor per send needs at least one send.
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

/// The measured loop.
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

/// Moves the calling thread to the processors closed to this process, if any.
fn step_aside() {
    let this_thread = Pid::from_raw(0);
    let Ok(mine) = sched_getaffinity(this_thread) else { return };
    let mut others = CpuSet::new();
    for processor in (0..CpuSet::count()).filter(|processor| mine.is_set(*processor) == Ok(false)) {
        others.set(processor).ok();
    }
    // Without such processors the kernel refuses, and the thread stays.
    sched_setaffinity(this_thread, &others).ok();
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "floor        {:.0} ns of processor time per send: {} devices, {} bytes, {} rounds/s; {} sends, \
             {} would block",
            self.cpu_per_send_ns, self.devices, self.frame_bytes, self.rounds_per_s, self.sends, self.blocked
        )
    }
}
