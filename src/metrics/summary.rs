//! The log lines that strangers cause: one line per reason and second, however often the reason came up.
//!
//! A line per connection would let anybody fill the disk: a handshake and one bad frame, in a loop, wrote
//! 28 000 lines in 5 s.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::{debug, error, info, warn};

use super::DoorName;
use roomcast_core::wire::close::{CloseReason, LogLevel};

/// Counts of the present second.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Indexed by reason.
    closed: [AtomicU64; CloseReason::ALL.len()],
    /// Sockets that a shard could not take in, with the last error.
    not_taken_in: Noted,
    /// Indexed by door: failed accepts, with the last error.
    accept_failed: [Noted; DoorName::ALL.len()],
}

#[derive(Debug, Default)]
struct Noted(Mutex<(u64, String)>);

/// A line of the log, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Closed { reason: CloseReason, connections: u64 },
    NotTakenIn { connections: u64, error: String },
    AcceptFailed { door: DoorName, times: u64, error: String },
}

impl Noted {
    fn note(&self, error: &std::io::Error) {
        let mut noted = self.0.lock();
        noted.0 += 1;
        // The text is made once a second: a flood of failures must not cost an allocation each.
        if noted.1.is_empty() {
            noted.1 = error.to_string();
        }
    }

    fn take(&self) -> Option<(u64, String)> {
        let noted = std::mem::take(&mut *self.0.lock());
        (noted.0 > 0).then_some(noted)
    }
}

impl Summary {
    /// Notes closed connections, indexed by reason.
    pub(super) fn closed(&self, connections: &[u64; CloseReason::ALL.len()]) {
        for (noted, connections) in self.closed.iter().zip(connections) {
            // Most turns close nothing, and all shards share the counters.
            if *connections > 0 {
                noted.fetch_add(*connections, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn not_taken_in(&self, error: &std::io::Error) {
        self.not_taken_in.note(error);
    }

    pub(super) fn accept_failed(&self, door: DoorName, error: &std::io::Error) {
        self.accept_failed[door as usize].note(error);
    }

    /// The lines of the counts since the last call.
    pub(super) fn take(&self) -> Vec<Line> {
        let closed = CloseReason::ALL.into_iter().filter_map(|reason| {
            let connections = self.closed[reason as usize].swap(0, Ordering::Relaxed);
            (connections > 0).then_some(Line::Closed { reason, connections })
        });
        let taken_in = self.not_taken_in.take();
        let taken_in = taken_in.map(|(connections, error)| Line::NotTakenIn { connections, error });
        let accepts = DoorName::ALL.into_iter().filter_map(|door| {
            let (times, error) = self.accept_failed[door as usize].take()?;
            Some(Line::AcceptFailed { door, times, error })
        });
        closed.chain(taken_in).chain(accepts).collect()
    }
}

impl Line {
    /// Writes the line.
    pub(super) fn write(self) {
        match self {
            Self::Closed { reason, connections } => {
                let reason_name = reason.name();
                match reason.log_level() {
                    LogLevel::Debug => debug!(reason = reason_name, connections, "closed"),
                    LogLevel::Info => info!(reason = reason_name, connections, "closed"),
                    LogLevel::Error => error!(reason = reason_name, connections, "closed"),
                }
            }
            Self::NotTakenIn { connections, error } => {
                warn!(connections, %error, "connections could not be taken in");
            }
            Self::AcceptFailed { door, times, error } => {
                warn!(door = door.name(), times, %error, "cannot accept connections; the door pauses");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_line_per_reason_however_many_connections_it_took() {
        let summary = Summary::default();
        let mut turn = [0; CloseReason::ALL.len()];
        turn[CloseReason::ProtocolError as usize] = 1;
        for _ in 0..28_469 {
            summary.closed(&turn);
        }
        turn[CloseReason::ProtocolError as usize] = 0;
        turn[CloseReason::Silent as usize] = 3;
        summary.closed(&turn);
        let broken = std::io::Error::other("no descriptor");
        for _ in 0..1000 {
            summary.accept_failed(DoorName::Viewer, &broken);
        }
        let closed = |reason, connections| Line::Closed { reason, connections };
        assert_eq!(
            summary.take(),
            [
                closed(CloseReason::ProtocolError, 28_469),
                closed(CloseReason::Silent, 3),
                Line::AcceptFailed { door: DoorName::Viewer, times: 1000, error: "no descriptor".to_owned() },
            ]
        );
        assert_eq!(summary.take(), [], "the next second begins with nothing");
    }
}
