//! Members gone without a name before they had acknowledged everything. A departure costs one count, however
//! many messages the member lacked. The counts go into the receipts once each receipt is needed by itself.
//!
//! A network that fails takes ten thousand members at once, and a room may have a thousand reliable messages
//! alive. Ten million receipts would have to be changed otherwise.

use std::collections::BTreeMap;

use super::receipt::Receipt;

/// Departures in no receipt yet: the first lacking offset -> number of members. Such a member lacks every
/// message sent behind the offset as well, so departures are settled before more is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Departed(BTreeMap<u64, u64>);

impl Departed {
    /// Counts a member without the message at `first` and without everything sent behind.
    pub(super) fn leave(&mut self, first: u64) {
        *self.0.entry(first).or_default() += 1;
    }

    /// Members gone without the message at `offset`, a sent message.
    pub(super) fn lacking(&self, offset: u64) -> u64 {
        self.0.range(..=offset).map(|(_, members)| members).sum()
    }

    /// Moves the counts into the receipts of all messages sent, which come in order of offset.
    pub(super) fn settle<'a>(&mut self, receipts: impl Iterator<Item = (u64, &'a mut Receipt)>) {
        // Mostly nobody left since, and a walk over a thousand receipts is spared.
        if self.0.is_empty() {
            return;
        }
        let mut departures = std::mem::take(&mut self.0).into_iter().peekable();
        let mut lacking = 0;
        for (offset, receipt) in receipts {
            while let Some((_, members)) = departures.next_if(|(first, _)| *first <= offset) {
                lacking += members;
            }
            receipt.left += lacking;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_what_they_would_be_had_each_departure_gone_through_all_of_them() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let mut departed = Departed::default();
            let mut receipts: Vec<(u64, Receipt)> = (1..40).map(|n| (n * 3, Receipt::default())).collect();
            let mut by_hand = receipts.clone();
            for _ in 0..random.usize(..60) {
                let first = random.u64(..130);
                departed.leave(first);
                by_hand.iter_mut().filter(|(at, _)| *at >= first).for_each(|(_, receipt)| receipt.left += 1);
                let (at, receipt) = &receipts[random.usize(..receipts.len())];
                let (_, expected) = by_hand.iter().find(|(other, _)| other == at).unwrap();
                assert_eq!(receipt.left + departed.lacking(*at), expected.left, "seed {seed}");
                if random.u8(..10) == 0 {
                    departed.settle(receipts.iter_mut().map(|(at, receipt)| (*at, receipt)));
                    assert_eq!(receipts, by_hand, "seed {seed}");
                    assert_eq!(departed, Departed::default());
                }
            }
        }
    }
}
