//! The branches of a shard: the stand-ins of homes on other nodes. To the segments of its node a branch is the
//! home of the room, and to the home the branch is one place.

use std::time::Instant;

use super::lane::{Control, Delivery, HomeLanes};
use super::ways::ToNode;
use roomcast_core::cluster::{NodeKey, Slot, Standing};
use roomcast_core::now::Now;

/// The branches of a shard.
#[derive(Debug, Default)]
pub(super) struct Branches {}

impl Branches {
    /// Takes the words of a segment on `shard` whose room has its home on another node, or nowhere at present.
    pub(super) fn take_control(
        &mut self,
        shard: usize,
        control: Control,
        standing: Standing,
        lanes: &mut HomeLanes,
        now: Now,
    ) {
        let _ = (shard, control, standing, lanes, now);
    }

    /// Takes the words of a home on another node.
    pub(super) fn take_delivery(
        &mut self,
        node: NodeKey,
        delivery: Delivery,
        lanes: &mut HomeLanes,
        now: Now,
    ) {
        let _ = (node, delivery, lanes, now);
    }

    /// The link to a node begins anew: the members of rooms with their home there join again.
    pub(super) fn reset(&mut self, node: NodeKey, lanes: &mut HomeLanes, now: Now) {
        let _ = (node, lanes, now);
    }

    /// A slot stands anew. Members of its rooms join again if their home is another one.
    pub(super) fn moved(&mut self, slot: Slot, standing: Standing, lanes: &mut HomeLanes, now: Now) {
        let _ = (slot, standing, lanes, now);
    }

    /// The next word to another node.
    pub(super) fn poll_word(&mut self) -> Option<ToNode> {
        None
    }

    /// The moment of the next [`Branches::due`].
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        None
    }

    /// Does what is due: refuses joins that have waited too long for a home.
    pub(super) fn due(&mut self, lanes: &mut HomeLanes, now: Now) {
        let _ = (lanes, now);
    }
}
