//! Workers on other machines, from the coordinator's side: connection, key and clock difference.
//!
//! A worker translates its clock to the coordinator's, so all times are of one clock. The difference is
//! measured by Cristian's algorithm (1989), as in NTP: among many questions the fastest answer is the most
//! precise, to half of its round trip. Example: sent at 100, answered 175, received at 150: ahead by 175 -
//! 100 - 25 = 50, to ±25.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::clock::monotonic_ns;
use crate::fleet::words::{Order, Word};

/// Environment variable with the key of remote workers.
pub(crate) const KEY_VARIABLE: &str = "ROOMCAST_WORKER_KEY";
/// Longest wait for each word before the run.
const WORD_AGE_MAX: Duration = Duration::from_secs(5);
/// Longest time in which a remote worker takes no byte of an order. Past this time the worker counts as gone.
const ORDER_AGE_MAX: Duration = Duration::from_secs(30);
/// A silent peer counts as gone after three times this interval.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Clock questions before the run.
const PINGS: usize = 32;
/// Longest word before the run.
const WORD_BYTES_MAX: u64 = 64 * 1024;

/// One clock question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ping {
    pub(crate) sent_ns: u64,
    /// The other clock's answer.
    pub(crate) theirs_ns: u64,
    pub(crate) received_ns: u64,
}

/// The lead of another clock over this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) ahead_ns: i64,
    /// Largest error of `ahead_ns`, either way.
    pub(crate) error_ns: u64,
}

impl Difference {
    /// The difference by the fastest answer; `None` without answers.
    pub(crate) fn of(pings: &[Ping]) -> Option<Self> {
        let took_ns = |ping: &Ping| ping.received_ns.saturating_sub(ping.sent_ns);
        let best = pings.iter().min_by_key(|ping| took_ns(ping))?;
        let error_ns = took_ns(best).div_ceil(2);
        let ahead_ns = i128::from(best.theirs_ns) - i128::from(best.sent_ns) - i128::from(error_ns);
        Some(Self { ahead_ns: i64::try_from(ahead_ns).ok()?, error_ns })
    }

    /// Largest error of times at the end of a run. The worker translated its clock by `self`; `now` is the
    /// remaining difference, so `now` shows the drift during the run.
    pub(crate) fn error_after(&self, now: &Self) -> u64 {
        self.error_ns.max(now.ahead_ns.unsigned_abs() + now.error_ns)
    }
}

/// Connects to a worker, sends the key and measures the clock difference.
///
/// # Errors
/// A sentence with the worker and the mistake.
pub(crate) fn connect(worker: &str) -> Result<(TcpStream, Difference), String> {
    let connected = || -> Result<_, String> {
        let address = resolve(worker)?;
        let stream = TcpStream::connect_timeout(&address, WORD_AGE_MAX);
        let mut stream = stream.map_err(|error| error.to_string())?;
        let difference = ask_time(&mut stream)?;
        Ok((stream, difference))
    };
    connected().map_err(|reason| format!("worker {worker}: {reason}"))
}

pub(crate) fn resolve(worker: &str) -> Result<SocketAddr, String> {
    let mut addresses = worker.to_socket_addrs().map_err(|error| format!("no HOST:PORT: {error}"))?;
    addresses.next().ok_or_else(|| "has no address".into())
}

/// Enables TCP keepalive, so a vanished peer is noticed after 30 s.
pub(crate) fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(2);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn ask_time(stream: &mut TcpStream) -> Result<Difference, String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => "no answer in 5 s; is it `roomcast-loadgen worker --listen`?".into(),
        _ => error.to_string(),
    };
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(WORD_AGE_MAX)).map_err(failed)?;
    stream.set_write_timeout(Some(WORD_AGE_MAX)).map_err(failed)?;
    let key = std::env::var(KEY_VARIABLE).unwrap_or_default();
    stream.write_all(format!("{key}\n").as_bytes()).map_err(failed)?;
    let mut question = serde_json::to_vec(&Order::Clock).map_err(|error| error.to_string())?;
    question.push(b'\n');
    // A worker sends nothing unasked before its connect order, so this reader loses no word when dropped.
    let mut words = BufReader::new(stream.try_clone().map_err(failed)?);
    let mut pings = Vec::new();
    let mut word = String::new();
    while pings.len() < PINGS {
        let sent_ns = monotonic_ns();
        stream.write_all(&question).map_err(failed)?;
        word.clear();
        words.by_ref().take(WORD_BYTES_MAX).read_line(&mut word).map_err(failed)?;
        let received_ns = monotonic_ns();
        match serde_json::from_str(&word) {
            Ok(Word::Clock { monotonic_ns: theirs_ns }) => {
                pings.push(Ping { sent_ns, theirs_ns, received_ns });
            }
            Ok(Word::Failed { reason }) => return Err(reason),
            _ if word.is_empty() => return Err("it ended the connection".into()),
            _ => return Err("it is no worker of this version of roomcast-loadgen".into()),
        }
    }
    stream.set_read_timeout(None).map_err(failed)?;
    stream.set_write_timeout(Some(ORDER_AGE_MAX)).map_err(failed)?;
    keep_alive(stream).map_err(failed)?;
    Difference::of(&pings).ok_or_else(|| "its clock is centuries away".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question to a clock ahead by `ahead_ns`, with these travel times.
    fn ping(ahead_ns: i64, there_ns: u64, back_ns: u64) -> Ping {
        let sent_ns = 1_000_000_000_000;
        let theirs_ns = (sent_ns + there_ns).saturating_add_signed(ahead_ns);
        Ping { sent_ns, theirs_ns, received_ns: sent_ns + there_ns + back_ns }
    }

    #[test]
    fn the_shortest_question_says_it_best() {
        for ahead_ns in [-500_000_000_000, 0, 77, 3_000_000_000_000] {
            let pings = [ping(ahead_ns, 900, 8_000), ping(ahead_ns, 50, 50), ping(ahead_ns, 20, 4_000)];
            assert_eq!(Difference::of(&pings), Some(Difference { ahead_ns, error_ns: 50 }));
        }
        assert_eq!(Difference::of(&[]), None);
    }

    #[test]
    fn it_is_wrong_by_no_more_than_its_error_however_the_ways_differ() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..1_000 {
            let ahead_ns = random.i64(-1_000_000_000..1_000_000_000);
            let pings: Vec<Ping> = (0..PINGS)
                .map(|_| ping(ahead_ns, random.u64(..2_000_000), random.u64(..2_000_000)))
                .collect();
            let found = Difference::of(&pings).unwrap();
            assert!(
                (found.ahead_ns - ahead_ns).unsigned_abs() <= found.error_ns,
                "seed {seed}: {found:?} of {ahead_ns}"
            );
        }
    }

    #[test]
    fn clocks_that_went_apart_during_the_run_are_as_wrong_as_that() {
        let before = Difference { ahead_ns: 5_000_000, error_ns: 100 };
        assert_eq!(before.error_after(&Difference { ahead_ns: -3_000, error_ns: 40 }), 3_040);
        assert_eq!(before.error_after(&Difference { ahead_ns: 10, error_ns: 40 }), 100);
    }
}
