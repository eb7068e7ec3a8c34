//! The slots of this node, between the view of the cluster and the log: the view's orders to the log, and the news of
//! the log for the view. Pure.
//!
//! An order waits here while the log's queue is full. The last order of a slot counts, so there are at most two for
//! each slot.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::store::jetstream::orders::{LogNews, LogOrder};
use roomcast_core::cluster::node::NodeName;
use roomcast_core::cluster::view::{View, ViewWord};
use roomcast_core::cluster::{OwnNode, Slot, Term};

/// The view of the cluster, and the orders on their way to the log.
#[derive(Debug)]
pub(super) struct Tenure {
    pub(super) view: View,
    waiting: BTreeMap<Slot, SlotOrders>,
}

/// The orders of a slot that wait, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct SlotOrders {
    release: bool,
    /// The highest term heard.
    claim: Option<Term>,
    reclaim: bool,
    renew: bool,
}

impl Tenure {
    pub(super) fn new(own: OwnNode, now: Instant) -> Self {
        Self { view: View::new(own, now), waiting: BTreeMap::new() }
    }

    /// Takes news of the log.
    pub(super) fn hear(&mut self, news: LogNews, now: Instant) {
        match news {
            LogNews::Claimed { slot, term, behind } => self.view.claimed(slot, term, behind, now),
            LogNews::Proven { slot, sent } => self.view.proven(slot, sent, now),
            LogNews::Fenced { slot, by, node } => match NodeName::parse(&node) {
                Some(node) => self.view.fenced(slot, by, &node, now),
                // The slot is lost all the same, to a node that nobody can name.
                None => self.view.lost(slot, by, now),
            },
        }
    }

    /// The next word of the view that is no order to the log.
    pub(super) fn poll_word(&mut self) -> Option<ViewWord> {
        while let Some(word) = self.view.poll_word() {
            match word {
                ViewWord::Claim { slot, heard } => {
                    let orders = self.waiting.entry(slot).or_default();
                    orders.claim = Some(heard);
                    orders.renew = false;
                }
                // An earlier claim that has not left is void.
                ViewWord::Release { slot } => {
                    self.waiting.insert(slot, SlotOrders { release: true, ..SlotOrders::default() });
                }
                ViewWord::Renew { slot } => self.waiting.entry(slot).or_default().renew = true,
                word => return Some(word),
            }
        }
        None
    }

    /// Orders a further claim of a slot that this node holds.
    pub(super) fn reclaim(&mut self, slot: Slot) {
        self.waiting.entry(slot).or_default().reclaim = true;
    }

    /// Gives waiting orders to the log, until `give` hands one back.
    pub(super) fn order(&mut self, mut give: impl FnMut(LogOrder) -> Result<(), LogOrder>) {
        while let Some(mut entry) = self.waiting.first_entry() {
            let slot = *entry.key();
            let orders = entry.get_mut();
            if orders.release {
                if give(LogOrder::Release { slot }).is_err() {
                    return;
                }
                orders.release = false;
            }
            if let Some(heard) = orders.claim {
                if give(LogOrder::Claim { slot, heard }).is_err() {
                    return;
                }
                orders.claim = None;
            }
            if orders.reclaim {
                if give(LogOrder::Reclaim { slot }).is_err() {
                    return;
                }
                orders.reclaim = false;
            }
            if orders.renew && give(LogOrder::Renew { slot }).is_err() {
                return;
            }
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use roomcast_core::cluster::node::{Heartbeat, NodeLoad};
    use roomcast_core::cluster::{SlotHome, SlotStanding};
    use roomcast_core::limits::{BEAT_INTERVAL, SETTLED_AFTER, VIEW_INTERVAL};
    use std::time::Duration;

    fn own() -> OwnNode {
        let name = NodeName::parse("node-1").unwrap();
        OwnNode { name, incarnation: 1, shards: 2, dead_after: Duration::from_secs(3) }
    }

    /// A node alone whose echoes come, long enough to claim.
    fn settled(now: &mut Instant) -> (Tenure, Vec<ViewWord>) {
        let mut tenure = Tenure::new(own(), *now);
        let mut words = Vec::new();
        let end = *now + SETTLED_AFTER + BEAT_INTERVAL;
        while *now < end {
            tenure.view.due(*now);
            while let Some(word) = tenure.poll_word() {
                if word == ViewWord::Beat {
                    let beat: Heartbeat = tenure.view.heartbeat(NodeLoad::default(), *now);
                    tenure.view.hear(&beat, *now);
                }
                words.push(word);
            }
            *now += VIEW_INTERVAL;
        }
        (tenure, words)
    }

    fn given(tenure: &mut Tenure, places: usize) -> Vec<LogOrder> {
        let mut taken = Vec::new();
        tenure.order(|order| {
            if taken.len() == places {
                return Err(order);
            }
            taken.push(order);
            Ok(())
        });
        taken
    }

    #[test]
    fn orders_wait_while_the_log_is_full_and_come_once() {
        let mut now = clock::now().instant;
        let (mut tenure, _) = settled(&mut now);
        let heard = Term::default();
        let claim = |slot| LogOrder::Claim { slot, heard };
        assert_eq!(given(&mut tenure, 100), Slot::all().take(100).map(claim).collect::<Vec<_>>());
        assert_eq!(given(&mut tenure, 256), Slot::all().skip(100).map(claim).collect::<Vec<_>>());
        assert_eq!(given(&mut tenure, 256), []);
    }

    #[test]
    fn news_of_the_log_change_standings_and_a_fence_by_a_nameless_node_is_a_loss() {
        let mut now = clock::now().instant;
        let (mut tenure, _) = settled(&mut now);
        let term = Term { generation: 0, sequence: 5 };
        tenure.hear(LogNews::Claimed { slot: Slot(3), term, behind: Term::default() }, now);
        let here = SlotStanding { home: SlotHome::Here, term };
        let words: Vec<_> = std::iter::from_fn(|| tenure.poll_word()).collect();
        assert!(words.contains(&ViewWord::Stands { slot: Slot(3), standing: here }));
        let by = Term { generation: 0, sequence: 6 };
        tenure.hear(LogNews::Fenced { slot: Slot(3), by, node: "no name".to_owned() }, now);
        let nobody = SlotStanding { home: SlotHome::Nobody, term: by };
        assert_eq!(tenure.poll_word(), Some(ViewWord::Stands { slot: Slot(3), standing: nobody }));
    }

    #[test]
    fn a_release_takes_back_a_claim_that_has_not_left() {
        let mut now = clock::now().instant;
        let (mut tenure, _) = settled(&mut now);
        tenure.view.drain(now);
        tenure.view.due(now + VIEW_INTERVAL);
        while tenure.poll_word().is_some() {}
        let released = Slot::all().map(|slot| LogOrder::Release { slot });
        assert_eq!(given(&mut tenure, 256), released.collect::<Vec<_>>());
    }
}
