//! The exchange: the words of this node's shards and doors, over one link to each other node.
//!
//! The cluster's thread owns the exchange, gives it the messages of the bus, and sends the messages that the
//! exchange makes. The exchange waits for nothing and reads no clock.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc;

use super::calls::{CallIn, CallOut};
use crate::shard::ways::WayOut;
use roomcast_core::cluster::NodeKey;
use roomcast_core::now::Now;
use roomcast_core::room::id::NameKey;

/// The parts of the node that an exchange connects with other nodes.
#[derive(Clone)]
pub(crate) struct ExchangePlan {
    /// The incarnation of this node.
    pub(crate) incarnation: u64,
    /// The key of `directory::home` on this node.
    pub(crate) home_key: NameKey,
    /// The way of each shard, in order. `wake` wakes the shard.
    pub(crate) ways: Vec<WayOut>,
    /// Calls of the doors.
    pub(crate) calls: Arc<ArrayQueue<CallOut>>,
    /// Calls of other nodes, for the doors.
    pub(crate) calls_in: mpsc::Sender<CallIn>,
    /// Wakes the thread of the exchange.
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ExchangePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangePlan").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// The counts of one link since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkCounts {
    /// Bytes of messages sent.
    pub(crate) bytes: u64,
    /// Entries sent.
    pub(crate) frames: u64,
    /// Batches left out.
    pub(crate) lapsed: u64,
    /// Messages sent again.
    pub(crate) repeated: u64,
    /// Begins anew.
    pub(crate) resets: u64,
    /// Messages and words dropped: of a former life, or unreadable.
    pub(crate) stale: u64,
}

/// A link, as metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkShown {
    /// The other node.
    pub(crate) node: NodeKey,
    /// The counts since the last look.
    pub(crate) counts: LinkCounts,
    /// The age of the oldest kept entry without an ack.
    pub(crate) age: Duration,
}

/// The links of a node.
#[derive(Debug)]
pub(crate) struct Exchange {
    plan: ExchangePlan,
}

impl Exchange {
    /// An exchange without links.
    pub(crate) fn new(plan: ExchangePlan) -> Self {
        Self { plan }
    }

    /// Begins a link to a node. `incarnation` is that of the other node.
    pub(crate) fn meet(&mut self, node: NodeKey, incarnation: u64, now: Now) {
        let _ = (node, incarnation, now);
    }

    /// Ends the link to a node, which is dead or has said goodbye. Shards hear a reset, and calls are unknown.
    pub(crate) fn part(&mut self, node: NodeKey, now: Now) {
        let _ = (node, now);
    }

    /// Takes a message of the bus. Bytes of strangers, of former lives and of unknown versions are dropped.
    pub(crate) fn take(&mut self, message: Bytes, now: Now) {
        let _ = (message, now);
    }

    /// Takes a bounded turn: words of shards, calls, answers, and deadlines. True if there is more to do at
    /// once. The caller sends everything of [`Exchange::poll_send`] behind each turn.
    pub(crate) fn turn(&mut self, now: Now) -> bool {
        let _ = now;
        false
    }

    /// The next message for a node's subject.
    pub(crate) fn poll_send(&mut self) -> Option<(NodeKey, Bytes)> {
        None
    }

    /// The moment of the next [`Exchange::turn`], unless something happens before.
    pub(crate) fn poll_deadline(&self) -> Option<Instant> {
        None
    }

    /// The links, for metrics. The counts begin anew.
    pub(crate) fn take_shown(&mut self, now: Now) -> Vec<LinkShown> {
        let _ = now;
        Vec::new()
    }
}
