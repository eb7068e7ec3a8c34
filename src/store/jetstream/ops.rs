//! The words between the machines of slots and the client of JetStream. The client keeps no state of a slot:
//! each operation is answered once, or not at all while the client is away. A machine has its own deadlines.

use bytes::Bytes;

use roomcast_core::cluster::Slot;
use std::time::Duration;

/// The number of an operation, unique in the life of the process. An answer to an operation that its machine
/// has given up is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OpId(pub(super) u64);

/// An operation on the log of a slot: on the messages of the subject `rc.log.<slot>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogOp {
    pub(super) id: OpId,
    pub(super) slot: Slot,
    pub(super) kind: LogOpKind,
}

/// The sort of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogOpKind {
    /// Appends an entry. Answered by [`LogHeard::Appended`], [`LogHeard::Refused`] or [`LogHeard::Unknown`].
    Append {
        /// The stream sequence that the last message of the subject must have; `None`: any (a claim).
        expect: Option<u64>,
        /// The header `Nats-Msg-Id`.
        message_id: String,
        /// The header `Nats-TTL`.
        ttl: Duration,
        /// The bytes of the entry.
        entry: Bytes,
        /// Messages in the entry, for metrics. 0: no record of messages.
        rows: usize,
    },
    /// Reads the leader's last message of the subject. Answered by [`LogHeard::Last`] or [`LogHeard::Unknown`].
    Last,
    /// Reads the messages of the subject from `from` up to `through`, both sequences inclusive, in order.
    /// Answered by any number of [`LogHeard::Read`]s, the last of them `done`, or by [`LogHeard::Unknown`].
    Read {
        /// The first sequence.
        from: u64,
        /// The last sequence.
        through: u64,
    },
    /// Reads the messages with these sequences. Answered by [`LogHeard::Read`] with `done`, without those that
    /// have expired, or by [`LogHeard::Unknown`].
    Get {
        /// The sequences, rising; at most 64.
        sequences: Vec<u64>,
    },
}

/// A message of a slot's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEntry {
    /// The stream sequence.
    pub(super) sequence: u64,
    /// The bytes of the entry.
    pub(super) entry: Bytes,
}

/// The answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogHeard {
    /// The append is in the log. A repeated append, too, is answered with the sequence of the first.
    Appended {
        /// The stream sequence.
        sequence: u64,
    },
    /// The expectation did not hold (10071), or another append of the subject was under way (10164).
    Refused,
    /// The streams have no place for the append: nothing was stored. Never said of a repeat, since its first
    /// sending may be in the log.
    Full,
    /// The last message; `None`: the subject has none.
    Last(Option<LogEntry>),
    /// A part of what was read, in order of sequence.
    Read {
        /// The messages.
        entries: Vec<LogEntry>,
        /// True: the read is over.
        done: bool,
    },
    /// The operation failed, or its answer was lost. An append may be in the log, now or later. The text is for
    /// operators.
    Unknown(String),
}
