//! Limits of the whole cluster: a limit per second is divided over the nodes, again each second, by their demand.
//!
//! The divider of a limit is the home node of the limit's slot, as each node sees it. A node that asks for places has
//! a [`QuotaHolder`]; the divider has a [`QuotaDivider`]. Pure, both.
//!
//! 1. Each holder reports its demand twice a second: a [`QuotaReport`]. The divider answers each report with a share.
//! 2. Once a second the divider divides anew (`division::divide`). Nodes with a smaller share hear so first. They
//!    report at once, and then the others hear of their larger shares.
//! 3. A share ends [`QUOTA_SHARE_AGE_MAX`] after the sending of the report that it answers. A holder without a share
//!    keeps to limit ÷ known nodes.
//!
//! The shares in force never pass the limit while one node divides: a part counts as held from the sending of a share
//! until a later report says otherwise, or until the share must have ended. So neither a lost word nor a lost node
//! gives a part twice. A new divider knows nobody's share. It begins with the parts that the holders report, and the
//! rest of the limit is free once the shares of its predecessor must have ended.
//!
//! [`QUOTA_SHARE_AGE_MAX`]: crate::limits::QUOTA_SHARE_AGE_MAX

mod divider;
mod division;
mod holder;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use divider::QuotaDivider;
pub use holder::{QuotaAsked, QuotaHolder};

use super::node::NodeName;
use super::{Slot, Term};
use crate::limits::QUOTA_PLACES_MAX;
use crate::room::id::NameKey;

/// A limit of the cluster, the same number on each node. The number is a keyed hash: no name and no publisher's key
/// travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaId(pub u64);

impl QuotaId {
    /// The limit of a name under the key of the cluster's slots.
    #[must_use]
    pub fn of(name: &[u8], key: NameKey) -> Self {
        Self(key.hash_bytes(name))
    }

    /// The slot whose home node divides the limit.
    #[must_use]
    pub fn slot(self) -> Slot {
        Slot(self.0.to_le_bytes()[0])
    }
}

/// Places a second, in thousandths: ten nodes may share two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct QuotaRate(u64);

impl QuotaRate {
    /// Whole places a second, at most [`QUOTA_PLACES_MAX`].
    #[must_use]
    pub fn per_second(places: u64) -> Self {
        Self(places.min(QUOTA_PLACES_MAX) * 1000)
    }

    /// Thousandths of a place a second. `None` for more than [`QUOTA_PLACES_MAX`] places.
    #[must_use]
    pub fn of_permille(permille: u64) -> Option<Self> {
        (permille <= QUOTA_PLACES_MAX * 1000).then_some(Self(permille))
    }

    /// The rate in thousandths of a place a second.
    #[must_use]
    pub fn permille(self) -> u64 {
        self.0
    }

    /// The part of a node among `nodes`, at least a thousandth of a place.
    #[must_use]
    pub fn among(self, nodes: usize) -> Self {
        Self((self.0 / nodes.max(1) as u64).max(1))
    }

    /// The time between two places.
    #[must_use]
    pub fn interval(self) -> Duration {
        Duration::from_nanos(1_000_000_000_000 / self.0.max(1))
    }
}

/// The demand of a node for places of a limit, whether the places were given or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaDemand {
    /// Demand for reliable messages, which go first.
    pub reliable: QuotaRate,
    /// Demand for all else.
    pub others: QuotaRate,
}

/// A report of a holder to the divider of some of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaReport {
    /// The node of the holder.
    pub node: NodeName,
    /// The life of the node.
    pub incarnation: u64,
    /// The time of sending, in microseconds of the holder's own count. Shares repeat the number.
    pub sent_us: u64,
    /// A line for each limit.
    pub lines: Vec<QuotaLine>,
}

/// A limit, as a holder reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLine {
    /// The limit.
    pub quota: QuotaId,
    /// Places a second of the whole cluster, as the node is configured.
    pub limit: QuotaRate,
    /// Demand of the last second.
    pub demand: QuotaDemand,
    /// The rate in force at the node.
    pub rate: QuotaRate,
    /// The last share that the holder took.
    pub taken: Option<QuotaMark>,
}

/// The place of a share among all shares of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuotaMark {
    /// The claim with which the divider holds the limit's slot.
    pub term: Term,
    /// The number of the share within the term, from 1.
    pub number: u64,
}

/// Shares of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaShares {
    /// The node.
    pub node: NodeName,
    /// The life of the node.
    pub incarnation: u64,
    /// A share for each limit.
    pub shares: Vec<QuotaShare>,
}

/// A node's share of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaShare {
    /// The limit.
    pub quota: QuotaId,
    /// The mark of the share.
    pub mark: QuotaMark,
    /// The time of sending of the report that the share answers.
    pub sent_us: u64,
    /// Places a second for the node.
    pub rate: QuotaRate,
}
