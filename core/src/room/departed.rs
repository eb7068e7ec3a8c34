//! Members that left without a name before they had acknowledged everything: counted once each, however many messages they
//! lacked, and put into the receipts when something asks for each receipt by itself.
//!
//! A network that fails takes ten thousand members at once; a room may have a thousand reliable messages alive.

use std::collections::BTreeMap;

use super::receipt::Receipt;

/// Departures that are in no receipt yet: members by the first offset they lacked. All of them lacked whatever was sent
/// behind it, so they have to be settled before more is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Departed(BTreeMap<u64, u64>);

impl Departed {
    /// A member left that lacked `first` and everything sent behind it.
    pub fn leave(&mut self, first: u64) {
        *self.0.entry(first).or_default() += 1;
    }

    /// How many of them lacked the message at `offset`, which was sent.
    #[must_use]
    pub fn lacking(&self, offset: u64) -> u64 {
        self.0.range(..=offset).map(|(_, members)| members).sum()
    }

    /// Puts them into the receipts of what was sent, which come in order of offset.
    pub fn settle<'a>(&mut self, receipts: impl Iterator<Item = (u64, &'a mut Receipt)>) {
        if self.0.is_empty() {
            return;
        }
        let mut departures = std::mem::take(&mut self.0).into_iter().peekable();
        let mut lacking = 0;
        for (offset, receipt) in receipts {
            while let Some((_, members)) = departures.next_if(|(first, _)| *first <= offset) {
                lacking += members;
            }
            receipt.leave_without_name(lacking);
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
                by_hand.iter_mut().filter(|(at, _)| *at >= first).for_each(|(_, receipt)| receipt.leave(0));
                let (at, receipt) = &receipts[random.usize(..receipts.len())];
                let (_, expected) = by_hand.iter().find(|(other, _)| other == at).unwrap();
                assert_eq!(receipt.left() + departed.lacking(*at), expected.left(), "seed {seed}");
                if random.u8(..10) == 0 {
                    departed.settle(receipts.iter_mut().map(|(at, receipt)| (*at, receipt)));
                    assert_eq!(receipts, by_hand, "seed {seed}");
                    assert_eq!(departed, Departed::default());
                }
            }
        }
    }
}
