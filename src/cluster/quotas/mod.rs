//! Limits of the whole cluster at this node: the holder of its shares, and the divider of the limits whose slots it
//! orders. The cluster's thread owns the desk, gives it words and time, and sends its words.

pub(crate) mod meter;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use self::meter::{KnownNodes, QuotaMeters};
use self::wire::{QuotaWord, decode, encode_report, encode_shares};
use super::heartbeat::Unreadable;
use crate::shard::slots::Slots;
use roomcast_core::cluster::node::NodeName;
use roomcast_core::cluster::quota::{QuotaDivider, QuotaHolder, QuotaId};
use roomcast_core::cluster::view::View;
use roomcast_core::cluster::{OwnNode, SlotHome, Term};
use roomcast_core::limits::QUOTA_LOOK_INTERVAL;

/// The holder, the divider, and the way between them and the doors.
#[derive(Debug)]
pub(super) struct QuotaDesk {
    own: NodeName,
    region: String,
    slots: Arc<Slots>,
    meters: Arc<QuotaMeters>,
    holder: QuotaHolder,
    divider: QuotaDivider,
    next_look: Instant,
}

impl QuotaDesk {
    pub(super) fn new(
        own: &OwnNode,
        region: &str,
        slots: Arc<Slots>,
        meters: Arc<QuotaMeters>,
        now: Instant,
    ) -> Self {
        Self {
            own: own.name.clone(),
            holder: QuotaHolder::new(own.name.clone(), own.incarnation, now),
            region: region.to_owned(),
            slots,
            meters,
            divider: QuotaDivider::default(),
            next_look: now,
        }
    }

    /// Takes the bytes of a word.
    ///
    /// # Errors
    /// [`Unreadable`]: the bytes are no such word.
    pub(super) fn hear(&mut self, bytes: &[u8], now: Instant) -> Result<(), Unreadable> {
        let word = decode(bytes)?;
        self.take(&word, now);
        Ok(())
    }

    fn take(&mut self, word: &QuotaWord, now: Instant) {
        let slots = &self.slots;
        match word {
            QuotaWord::Report(report) => self.divider.hear(report, |quota| right(slots, quota), now),
            QuotaWord::Shares(shares) => {
                self.holder.take(shares, |quota| slots.standing(quota.slot()).term, now);
                self.show(now);
            }
        }
    }

    /// Acts on the time.
    pub(super) fn due(&mut self, view: &View, now: Instant) {
        if now >= self.next_look {
            self.next_look = now + QUOTA_LOOK_INTERVAL;
            let known = self.known(view);
            self.holder.look(&self.meters.asked(known), now);
            self.show(now);
        }
        if self.divider.poll_deadline().is_some_and(|due| due <= now) {
            let slots = &self.slots;
            self.divider.due(|quota| right(slots, quota), now);
        }
    }

    fn known(&self, view: &View) -> KnownNodes {
        let mut known = KnownNodes { all: 1, region: 1 };
        for (_, peer) in view.peers() {
            known.all += 1;
            known.region += usize::from(peer.load.region == self.region);
        }
        known
    }

    /// Ends all shares: the machine was suspended.
    pub(super) fn slept(&mut self, now: Instant) {
        self.holder.forget_shares();
        self.show(now);
    }

    fn show(&self, now: Instant) {
        self.meters
            .set_rates(|quota| self.holder.rate(quota, now), |quota| self.holder.has_share(quota, now));
    }

    /// The next word for another node. Words of this node to itself are taken at once.
    pub(super) fn poll_send(&mut self, view: &View, now: Instant) -> Option<(NodeName, Bytes)> {
        loop {
            let slots = &self.slots;
            let divider = |quota: QuotaId| match slots.standing(quota.slot()).home {
                SlotHome::Here => Some(self.own.clone()),
                SlotHome::There(node) => view.name_of(node).cloned(),
                SlotHome::Frozen | SlotHome::Nobody => None,
            };
            if let Some((to, report)) = self.holder.poll_report(divider, now) {
                if to != self.own {
                    return Some((to, encode_report(&report, view.version())));
                }
                self.take(&QuotaWord::Report(report), now);
            } else if let Some(shares) = self.divider.poll_shares() {
                if shares.node != self.own {
                    return Some((shares.node.clone(), encode_shares(&shares, view.version())));
                }
                self.take(&QuotaWord::Shares(shares), now);
            } else {
                return None;
            }
        }
    }

    /// The moment of the next [`QuotaDesk::due`].
    pub(super) fn poll_deadline(&self) -> Instant {
        self.divider.poll_deadline().map_or(self.next_look, |due| due.min(self.next_look))
    }
}

/// The claim with which this node divides a limit.
fn right(slots: &Slots, quota: QuotaId) -> Option<Term> {
    let standing = slots.standing(quota.slot());
    (standing.home == SlotHome::Here).then_some(standing.term)
}

#[cfg(test)]
mod tests;
