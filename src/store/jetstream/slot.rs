//! The machine of one slot's log: claims, commits, loads and pages. Pure: no client, clock or thread.
//!
//! The caller passes orders, requests, answers of the client and due deadlines in, each with `now`. After each
//! input the caller drains `poll_op`, `poll_answer` and `poll_news` to `None`, and calls `due` at
//! `poll_deadline`.

use std::time::Instant;

use roomcast_core::cluster::Slot;
use roomcast_core::now::Now;

use super::ops::{LogHeard, LogOp, OpId};
use super::orders::{LogNews, LogOrder};
use crate::store::time::StoreClock;
use crate::store::{StoreAnswer, StoreHoldings, StoreRequest};

/// The node that claims, as its claims in the log name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimant {
    /// The name of the node, at most 255 bytes.
    pub(super) node: String,
    /// The random number of the node's life.
    pub(super) incarnation: u64,
}

/// The log of one slot, as this node uses it. A machine without the slot keeps nothing.
#[derive(Debug)]
pub(super) struct SlotLog {}

impl SlotLog {
    /// A machine that does not hold its slot. `bytes_max` bounds the bytes of the slot's rows: above, appends
    /// fail with `StoreError::Full`.
    pub(super) fn new(slot: Slot, own: Claimant, clock: StoreClock, bytes_max: u64) -> Self {
        let _ = (slot, own, clock, bytes_max);
        Self {}
    }

    /// Takes an order of the cluster for this slot.
    pub(super) fn order(&mut self, order: &LogOrder, now: Now) {
        let _ = (order, now);
    }

    /// Takes a request of the shard at `desk`. Each request gets one answer; the answers of a room come in the
    /// order of its requests, but for `StoreError::Busy`, which comes at once.
    ///
    /// The caller has answered appends of broken lives itself (`Desk::broken_life`): the machine fails only the
    /// appends of the life that wait behind the failed one, in the same turn.
    pub(super) fn request(&mut self, desk: usize, request: StoreRequest, now: Now) {
        let _ = (desk, request, now);
    }

    /// Takes an answer of the client. Answers to operations that were given up are ignored.
    pub(super) fn hear(&mut self, id: OpId, heard: LogHeard, now: Now) {
        let _ = (id, heard, now);
    }

    /// Acts on all deadlines up to `now`.
    pub(super) fn due(&mut self, now: Now) {
        let _ = now;
    }

    /// The next operation for the client.
    pub(super) fn poll_op(&mut self) -> Option<LogOp> {
        None
    }

    /// The next answer, with the desk of its request.
    pub(super) fn poll_answer(&mut self) -> Option<(usize, StoreAnswer)> {
        None
    }

    /// The next word for the cluster.
    pub(super) fn poll_news(&mut self) -> Option<LogNews> {
        None
    }

    /// The moment of the next `due`.
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        None
    }

    /// The bytes of the slot's rows, and the damaged records met since the start.
    pub(super) fn holdings(&self) -> StoreHoldings {
        StoreHoldings::default()
    }

    /// Records of an older term met behind a newer claim since the start. Above 0: the fence has failed.
    pub(super) fn out_of_term(&self) -> u64 {
        0
    }
}
