//! The cluster as this node sees it, for the doors: routes, readiness, lists of rooms. The cluster's thread
//! writes, and the doors read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use roomcast_core::cluster::status::NodeState;
use roomcast_core::cluster::{NodeKey, SlotHome};

/// The newest view of the cluster.
#[derive(Debug)]
pub(crate) struct ShownCell {
    /// Locked for one copy of a pointer at a time.
    newest: RwLock<Arc<ClusterShown>>,
}

/// A view of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterShown {
    /// The moment at which this node last heard its own heartbeat.
    pub(crate) echo_at: Instant,
    /// The other nodes that were heard of within the last minute and said no goodbye, alive or not.
    pub(crate) peers: Vec<PeerShown>,
    /// Slot -> the next live node in the slot's rendezvous order behind its home: `Here`, `There` or
    /// `Nobody`. Empty before the first heartbeats.
    pub(crate) heirs: Vec<SlotHome>,
}

/// Another node, as its last heartbeat tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerShown {
    pub(crate) key: NodeKey,
    /// `cluster.node` of the peer.
    pub(crate) name: String,
    /// `cluster.viewer_url` of the peer. Empty: devices can't be sent there.
    pub(crate) viewer_url: String,
    pub(crate) region: String,
    /// Connections that the node may hold.
    pub(crate) seats: u64,
    /// Connections that the node may still take.
    pub(crate) free_seats: u64,
    /// Processor time of the node's busiest shard in the last second, in thousandths.
    pub(crate) busy_permille: u64,
    pub(crate) is_draining: bool,
    /// True for a peer without its own echo.
    pub(crate) is_deaf: bool,
    /// False once this node counts the peer as dead.
    pub(crate) is_alive: bool,
    /// True for a dead peer to whose subject nobody listens.
    pub(crate) has_ended: bool,
    /// The version of the peer's words.
    pub(crate) words_version: u8,
    /// The moment of its last heartbeat.
    pub(crate) heard_at: Instant,
    /// The link to the peer; `None`: no link leads there.
    pub(crate) link: Option<LinkLag>,
}

/// The entries of a link without an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkLag {
    /// The age of the oldest kept entry.
    pub(crate) age: Duration,
    /// Bytes of all kept entries.
    pub(crate) kept_bytes: usize,
}

impl PeerShown {
    /// The state of the peer, as far as its heartbeats and the link tell.
    pub(crate) fn state(&self) -> NodeState {
        if !self.is_alive {
            return if self.has_ended { NodeState::Ended } else { NodeState::Silent };
        }
        match self.link {
            None => NodeState::Unlinked,
            Some(_) if self.is_deaf => NodeState::Deaf,
            Some(_) if self.is_draining => NodeState::Draining,
            Some(_) => NodeState::Serving,
        }
    }
}

impl ShownCell {
    /// A view of a cluster without other nodes.
    pub(crate) fn new(now: Instant) -> Self {
        let nobody = ClusterShown { echo_at: now, peers: Vec::new(), heirs: Vec::new() };
        Self { newest: RwLock::new(Arc::new(nobody)) }
    }

    /// The newest view.
    pub(crate) fn newest(&self) -> Arc<ClusterShown> {
        Arc::clone(&self.newest.read())
    }

    /// Replaces the view.
    pub(crate) fn show(&self, view: ClusterShown) {
        *self.newest.write() = Arc::new(view);
    }
}

impl ClusterShown {
    /// A living or dead node by its key.
    pub(crate) fn peer(&self, key: NodeKey) -> Option<&PeerShown> {
        self.peers.iter().find(|peer| peer.key == key)
    }
}
