//! One cut: the messages of a batch, chosen by priority, and by a fair sample under a reading rate.
//!
//! **Shares.** A batch of M messages and B bytes reserves ⌈M × share⌉ and ⌈B × share⌉ for each priority.
//! Unused and unreserved space goes to latest, high and normal messages in room order, then to low. Example:
//! M = 10 with shares of 0.5 (high), 0.2 (normal), 0.1 (low). In a flood of high messages 5 + 2 + 1 are
//! reserved, and the other 2 places go to high as well: 7 high, 2 normal, 1 low.
//!
//! **Sample.** Each message of weight w has the lot −ln(u) ÷ w, with u uniform in (0, 1], and the smallest
//! lots leave. (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006, in logarithmic
//! form.) Example: of messages with weights 5 and 1, a sample of 1 draws the first in 5 of 6 cases. The
//! number u follows from the message's place in the room's order alone. So messages without a prospect may be
//! dropped early or late, and the sample is the same.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::{Buffer, DroppedOfType, Gathered, ROOMY, Rank, RankQueue};
use crate::room::id::{TypeName, mix};
use crate::room::message::{Message, ShedReason};
use crate::room::pace::Quotas;
use crate::room::policy::Priority;

/// The bounds of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Messages of a batch, at least 1.
    pub messages_max: usize,
    /// Bytes of a batch in the larger encoding, at least 1.
    pub bytes_max: usize,
    /// Batches to leave with this flush, the present cut included.
    pub batches: usize,
    /// Reserved shares by priority.
    pub quotas: Quotas,
    /// Messages of normal and low priority together to be shown now.
    pub normal: Allowance,
    /// Messages of high priority to be shown now. Latest and reliable messages don't count.
    pub high: Allowance,
}

/// The number of messages to be shown now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// No limit but the batch.
    Any,
    /// At most this many messages.
    AtMost(usize),
    /// None in this cut, and none dropped: an early flush leaves the sample to the window.
    Later,
}

impl Budget {
    /// True if a reading rate applies to the rank.
    pub(super) fn holds_back(&self, rank: Rank) -> bool {
        match rank {
            Rank::Low | Rank::Normal => self.normal != Allowance::Any,
            Rank::High => self.high != Allowance::Any,
            Rank::Latest | Rank::Reliable => false,
        }
    }

    fn reserved(&self, priority: Priority) -> Space {
        let permille = self.quotas.permille[priority as usize] as usize;
        // Rounded up: a share is at least one message.
        Space {
            messages: (self.messages_max * permille).div_ceil(1000),
            bytes: (self.bytes_max * permille).div_ceil(1000),
        }
    }
}

/// Space for further messages and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    messages: usize,
    bytes: usize,
}

impl Space {
    fn fits(self, bytes: usize) -> bool {
        self.messages > 0 && bytes <= self.bytes
    }

    fn take(&mut self, bytes: usize) {
        // Saturating: a message larger than a batch leaves alone, past the bound.
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The messages of a batch, and the messages dropped since the last cut.
#[derive(Debug, Default)]
pub struct Cut {
    /// In room order.
    pub messages: Vec<Arc<Message>>,
    /// Further messages merged into `messages` and into dropped messages, by type; each at least 1.
    pub(in crate::room) merged: BTreeMap<TypeName, u64>,
    /// Accepted messages dropped since the last cut.
    pub(in crate::room) dropped: BTreeMap<TypeName, DroppedOfType>,
    /// Messages of normal or low priority in `messages`.
    pub(in crate::room) normal: usize,
    /// Messages of high priority in `messages`. Latest and reliable messages don't count.
    pub(in crate::room) high: usize,
    /// Acceptance of the oldest of `messages`.
    pub(in crate::room) oldest: Option<Instant>,
}

/// A cut under way.
struct Draw {
    rest: Space,
    high: Allowance,
    taken: Vec<Gathered>,
    now: Instant,
}

/// A message's lot; the smallest lots are drawn.
#[derive(Clone, Copy)]
struct Lot {
    value: f64,
    entry: u64,
}

impl Lot {
    fn of(gathered: &Gathered, seed: u64) -> Self {
        // 53 bits are exact in a double. Plus 1: the logarithm of 0 is no lot.
        #[expect(clippy::cast_precision_loss, reason = "2^53 at most")]
        let even = ((mix(seed ^ mix(gathered.entry)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let value = -even.ln() / f64::from(gathered.message.policy.weight.max(1));
        Self { value, entry: gathered.entry }
    }

    fn order(&self, other: &Self) -> Ordering {
        self.value.total_cmp(&other.value).then(self.entry.cmp(&other.entry))
    }
}

impl Buffer {
    /// Takes a batch out: as much as fits `budget`, at least a message if any may leave. The remainder keeps
    /// order and age. If everything leaves with this flush, the batch is in room order. Otherwise reliable
    /// messages go first, then the shares (file head). `seed` keeps the samples of two rooms apart.
    pub fn cut(&mut self, budget: &Budget, seed: u64, now: Instant) -> Cut {
        // First: an expired message may take neither a lot nor a place in a share.
        for rank in Rank::ALL {
            self.drop_expired(rank, now);
        }
        if let Allowance::AtMost(shown) = budget.normal {
            self.sample(shown, seed, now);
        }
        let whole = Space { messages: budget.messages_max, bytes: budget.bytes_max };
        let mut draw = Draw { rest: whole, high: budget.high, taken: Vec::new(), now };
        let leaving = if budget.normal == Allowance::Later { Rank::NOT_SAMPLED } else { &Rank::ALL };
        if self.fits(leaving, budget) {
            self.in_order_at = Some(now);
        }
        // Kept for the later cuts of this flush, which have fewer batches left.
        if self.in_order_at == Some(now) {
            self.draw(leaving, whole, &mut draw);
        } else {
            self.draw_by_rank(budget, whole, &mut draw);
        }
        let is_held = draw.high == Allowance::AtMost(0) && !self.queue(Rank::High).gathered.is_empty();
        self.held_since = is_held.then_some(now);
        self.give_back_memory();
        let cut = self.finish(draw.taken);
        self.check_invariants();
        cut
    }

    /// Drops the messages without a prospect of being drawn. Devices are never shown more than `shown`
    /// messages at once.
    pub fn thin(&mut self, shown: usize, seed: u64, now: Instant) {
        // Only at twice the number, so that the cost per message stays constant.
        if self.sampled_len() > 2 * shown + ROOMY {
            self.sample(shown, seed, now);
        }
    }

    /// True if all messages of `ranks` leave with this flush, at any filling of the batches. A batch ends at
    /// `messages_max`, or for the bytes of the next message. In the second case the batch and the next hold
    /// more than `bytes_max` together. So M messages of B bytes take at most M ÷ `messages_max` + 2 × B ÷
    /// `bytes_max` + 1 batches.
    fn fits(&self, ranks: &[Rank], budget: &Budget) -> bool {
        let sum = |of: fn(&RankQueue) -> usize| ranks.iter().map(|rank| of(self.queue(*rank))).sum::<usize>();
        let messages = sum(|queue| queue.gathered.len());
        let bytes = sum(|queue| queue.bytes);
        messages / budget.messages_max + 2 * bytes / budget.bytes_max < budget.batches
            || (messages <= budget.messages_max && bytes <= budget.bytes_max)
    }

    /// Fills a batch of which not everything leaves.
    fn draw_by_rank(&mut self, budget: &Budget, whole: Space, draw: &mut Draw) {
        self.draw(&[Rank::Reliable], whole, draw);
        // If reliable messages stay behind, nothing passes them: a chat may follow one of them in its
        // request.
        if !self.queue(Rank::Reliable).gathered.is_empty() {
            return;
        }
        // A head too large for the rest of the last batch would lose to small ones again and again. It goes
        // first now.
        let leaves = |rank: &mut Rank| budget.normal != Allowance::Later || *rank > Rank::Normal;
        if let Some(rank) = self.passed_over.take_if(leaves) {
            self.draw(&[rank], Space { messages: 1, ..whole }, draw);
        }
        self.draw(&[Rank::Latest, Rank::High], budget.reserved(Priority::High), draw);
        if budget.normal == Allowance::Later {
            self.draw(&[Rank::Latest, Rank::High], whole, draw);
            return;
        }
        self.draw(&[Rank::Normal], budget.reserved(Priority::Normal), draw);
        self.draw(&[Rank::Low], budget.reserved(Priority::Low), draw);
        let stopped_at = self.draw(&[Rank::Latest, Rank::High, Rank::Normal], whole, draw);
        // A batch full by messages says nothing about the size of the head.
        self.passed_over = stopped_at.filter(|_| draw.rest.messages > 0);
        self.draw(&[Rank::Low], whole, draw);
    }

    /// Takes messages of `ranks` in room order, as far as `limit` and the rest of the batch reach. Returns
    /// the rank of the first message without room.
    fn draw(&mut self, ranks: &[Rank], mut limit: Space, draw: &mut Draw) -> Option<Rank> {
        // A share of 0 takes nothing, not even a first message.
        let mut is_first = limit.messages > 0;
        loop {
            let is_held = |rank: Rank| rank == Rank::High && draw.high == Allowance::AtMost(0);
            let first = ranks.iter().filter(|rank| !is_held(**rank)).filter_map(|rank| {
                let first = self.queue(*rank).gathered.front()?;
                Some((first.entry, *rank, first.message.wire_bytes))
            });
            let (_, rank, bytes) = first.min()?;
            // A message with a shorter ttl may have stood behind one with a longer ttl.
            if self.drop_expired(rank, draw.now) {
                continue;
            }
            // A message larger than its share has the share to itself. A message larger than a batch leaves
            // alone.
            let has_room = if is_first {
                draw.rest.fits(bytes) || draw.taken.is_empty()
            } else {
                limit.fits(bytes) && draw.rest.fits(bytes)
            };
            // Smaller messages behind this one stay as well: within a rank the order holds.
            if !has_room {
                return Some(rank);
            }
            let gathered = self.take_oldest(rank)?;
            is_first = false;
            limit.take(bytes);
            draw.rest.take(bytes);
            if rank == Rank::High
                && let Allowance::AtMost(left) = &mut draw.high
            {
                *left -= 1;
            }
            draw.taken.push(gathered);
        }
    }

    /// Puts the taken messages in room order, and takes over the drops since the last cut.
    fn finish(&mut self, mut taken: Vec<Gathered>) -> Cut {
        taken.sort_unstable_by_key(|gathered| gathered.entry);
        let oldest = taken.iter().map(|gathered| gathered.since).min();
        let mut cut = Cut { dropped: std::mem::take(&mut self.dropped), oldest, ..Cut::default() };
        self.dropped_since = None;
        for (type_name, dropped) in cut.dropped.iter().filter(|(_, dropped)| dropped.merged > 0) {
            cut.merged.insert(type_name.clone(), dropped.merged);
        }
        for gathered in taken {
            match Rank::of(&gathered.message) {
                Rank::Low | Rank::Normal => cut.normal += 1,
                Rank::High => cut.high += 1,
                Rank::Latest | Rank::Reliable => {}
            }
            if gathered.merged > 0 {
                *cut.merged.entry(gathered.message.type_name.clone()).or_default() += gathered.merged;
            }
            cut.messages.push(gathered.message);
        }
        cut
    }

    /// Drops the expired messages at the head of a rank; true if there were any.
    fn drop_expired(&mut self, rank: Rank, now: Instant) -> bool {
        // A latest value is never too late. A reliable message expires in the stream, not here.
        if rank > Rank::High {
            return false;
        }
        let is_expired = |first: &Gathered| now.saturating_duration_since(first.since) >= first.message.ttl;
        let mut has_dropped = false;
        while self.queue(rank).gathered.front().is_some_and(is_expired)
            && let Some(expired) = self.take_oldest(rank)
        {
            self.drop_gathered(&expired, ShedReason::Expired, now);
            has_dropped = true;
        }
        has_dropped
    }

    /// Draws `shown` messages, first normal, then low, and drops all others of both ranks.
    fn sample(&mut self, shown: usize, seed: u64, now: Instant) {
        self.sample_rank(Rank::Normal, shown, seed, now);
        let left = shown - self.queue(Rank::Normal).gathered.len().min(shown);
        self.sample_rank(Rank::Low, left, seed, now);
    }

    fn sample_rank(&mut self, rank: Rank, shown: usize, seed: u64, now: Instant) {
        let queue = &mut self.queues[rank as usize];
        if queue.gathered.len() <= shown {
            return;
        }
        let mut lots: Vec<Lot> = queue.gathered.iter().map(|gathered| Lot::of(gathered, seed)).collect();
        // Linear: only the border between drawn and dropped is sorted out, not the lots.
        if shown > 0 {
            lots.select_nth_unstable_by(shown - 1, Lot::order);
        }
        let mut drawn: Vec<u64> = lots[..shown].iter().map(|lot| lot.entry).collect();
        drawn.sort_unstable();
        let all = std::mem::take(&mut queue.gathered);
        let mut drawn = drawn.into_iter().peekable();
        for gathered in all {
            if drawn.next_if_eq(&gathered.entry).is_some() {
                self.queues[rank as usize].gathered.push_back(gathered);
            } else {
                self.left(rank, &gathered);
                self.drop_gathered(&gathered, ShedReason::Sampled, now);
            }
        }
    }

    fn give_back_memory(&mut self) {
        for queue in &mut self.queues {
            if queue.gathered.is_empty() && queue.gathered.capacity() > ROOMY {
                queue.gathered = VecDeque::new();
            }
        }
    }
}
