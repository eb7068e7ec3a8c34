//! The words between a node's cluster and its log: who holds which slot is decided by claims in the log, and
//! wanted by the cluster.

use std::time::Instant;

use roomcast_core::cluster::{Slot, Term};

/// A word of the cluster to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOrder {
    /// Claim the slot, read the log up to the claim, and serve its rooms. Answered by [`LogNews::Claimed`]. A
    /// failed claim is tried again until it succeeds, or until [`LogOrder::Release`].
    Claim {
        /// The slot.
        slot: Slot,
        /// The highest term heard of the slot. A claim that is not above it is repeated with the next
        /// generation.
        heard: Term,
    },
    /// Serve the slot's rooms no longer. Requests on their way fail, and the log is left as it is.
    Release {
        /// The slot.
        slot: Slot,
    },
    /// Claim the held slot again: an append of another node that is under way is in the log before the claim, or comes
    /// behind it. Answered by [`LogNews::Claimed`], behind [`LogNews::Fenced`] if another node has claimed in between.
    Reclaim {
        /// The slot.
        slot: Slot,
    },
    /// Append a renewal, which proves that no other node has claimed the slot. Answered by [`LogNews::Proven`],
    /// [`LogNews::Fenced`], or not at all while the log is silent.
    Renew {
        /// The slot.
        slot: Slot,
    },
}

/// A word of the log to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogNews {
    /// The slot is held under this term, and its rooms can be loaded. Also said after a reopening by a claim of
    /// the log's own: the home stays, under a higher term.
    Claimed {
        /// The slot.
        slot: Slot,
        /// The term of the claim.
        term: Term,
        /// The term of the last claim of another node before it. The lowest term: none was read.
        behind: Term,
    },
    /// An append of this node was acknowledged: nobody else had claimed the slot when it was sent.
    Proven {
        /// The slot.
        slot: Slot,
        /// The first sending of the append, by the clock of [`Now`](roomcast_core::now::Now). An older proof than a
        /// freeze of the slot does not thaw it.
        sent: Instant,
    },
    /// Another node has claimed the slot. Unanswered appends have failed as unknown, and the slot is released.
    Fenced {
        /// The slot.
        slot: Slot,
        /// The term of the later claim.
        by: Term,
        /// The name of the node that has claimed.
        node: String,
    },
}

impl LogOrder {
    /// The slot of the order.
    pub(super) fn slot(&self) -> Slot {
        match self {
            Self::Claim { slot, .. }
            | Self::Release { slot }
            | Self::Reclaim { slot }
            | Self::Renew { slot } => *slot,
        }
    }
}

impl LogNews {
    /// The slot of the word.
    pub(super) fn slot(&self) -> Slot {
        match self {
            Self::Claimed { slot, .. } | Self::Proven { slot, .. } | Self::Fenced { slot, .. } => *slot,
        }
    }
}
