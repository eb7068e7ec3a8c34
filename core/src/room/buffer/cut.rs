//! What a cut takes: quotas by priority, and a fair sample where devices are asked to show only so much.
//!
//! A sample is drawn by lots: each message has an exponential one, divided by its weight, and the smallest leave
//! (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006, in its logarithmic form). A lot follows
//! from the message's place in the room's order alone. So it does not matter when those with no prospect are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Buffer, Dropped, Gathered, Lane, ROOMY, Rank};
use crate::room::id::{TypeName, mix};
use crate::room::message::{Message, ShedReason};
use crate::room::pace::Quotas;
use crate::room::policy::Priority;

/// What one cut may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Messages of one batch; at least 1.
    pub messages_max: usize,
    /// Bytes of one batch, as encoded; at least 1.
    pub bytes_max: usize,
    /// Batches that may leave with this flush, this one counted.
    pub batches: usize,
    /// What of a batch is reserved for whom.
    pub quotas: Quotas,
    /// What devices may be shown now of normal and low priority together.
    pub normal: Allowance,
    /// What devices may be shown now of high priority, latest values and reliable messages aside.
    pub high: Allowance,
}

/// How much of something devices may be shown now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// As much as fits.
    Any,
    /// So many.
    AtMost(usize),
    /// Nothing is decided yet: all of it stays as it is.
    Later,
}

impl Budget {
    /// Whether not all of a rank leaves as soon as it fits.
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

/// Messages and bytes that still fit.
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
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// One cut: the messages of a batch in room order, and what became of others since the last one.
#[derive(Debug, Default)]
pub struct Cut {
    /// In room order.
    pub messages: Vec<Arc<Message>>,
    /// How many they, and those dropped, stood for beside themselves, by type. Types with at least one.
    pub merged: BTreeMap<TypeName, u64>,
    /// What was accepted and dropped since the last cut.
    pub dropped: Dropped,
    /// How many of `messages` are of normal or low priority.
    pub normal: usize,
    /// How many are of high priority, latest values and reliable messages aside.
    pub high: usize,
    /// When the oldest of `messages` was accepted.
    pub oldest: Option<Instant>,
}

/// A cut under way.
struct Draw {
    rest: Space,
    high: Allowance,
    taken: Vec<(Rank, Gathered)>,
    now: Instant,
}

impl Buffer {
    /// Gives up what fits `budget`, at least one message if any may leave. The remainder keeps its order and its age.
    /// Where all that may leave does so with this flush, it leaves in room order. Where not, reliable messages go first;
    /// then each priority has what is reserved for it; the rest goes to latest, high and normal in room order; low takes
    /// what is left. `seed` makes the lots of one room others than those of the next.
    pub fn cut(&mut self, budget: &Budget, seed: u64, now: Instant) -> Cut {
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
        if self.in_order_at == Some(now) {
            self.draw(leaving, whole, &mut draw);
        } else {
            self.draw_by_rank(budget, whole, &mut draw);
        }
        let held = draw.high == Allowance::AtMost(0) && !self.lane(Rank::High).gathered.is_empty();
        self.held_since = held.then_some(now);
        self.give_back_memory();
        let cut = self.told(draw.taken);
        self.check_invariants();
        cut
    }

    /// Drops what would not be drawn in any case: devices are never shown more than `shown` at once.
    pub fn thin(&mut self, shown: usize, seed: u64, now: Instant) {
        // Now and then, so that each message costs little.
        if self.sampled_len() > 2 * shown + ROOMY {
            self.sample(shown, seed, now);
        }
    }

    /// Whether all messages of these ranks leave with this flush, however they fill its batches: any two of them that follow
    /// each other hold more than one batch's bytes, or one has its messages.
    fn fits(&self, ranks: &[Rank], budget: &Budget) -> bool {
        let sum = |of: fn(&Lane) -> usize| ranks.iter().map(|rank| of(self.lane(*rank))).sum::<usize>();
        let (messages, bytes) = (sum(|lane| lane.gathered.len()), sum(|lane| lane.bytes));
        messages / budget.messages_max + (2 * bytes).div_euclid(budget.bytes_max) < budget.batches
            || (messages <= budget.messages_max && bytes <= budget.bytes_max)
    }

    /// Takes what fits where something has to stay behind.
    fn draw_by_rank(&mut self, budget: &Budget, whole: Space, draw: &mut Draw) {
        self.draw(&[Rank::Reliable], whole, draw);
        if !self.lane(Rank::Reliable).gathered.is_empty() {
            // Nothing goes before a reliable message that it followed in its request.
            return;
        }
        let leaves = |rank: &mut Rank| budget.normal != Allowance::Later || *rank > Rank::Normal;
        if let Some(rank) = self.passed_over.take_if(leaves) {
            // It was too large for what others had left: now it is not.
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
        self.passed_over = stopped_at.filter(|_| draw.rest.messages > 0);
        self.draw(&[Rank::Low], whole, draw);
    }

    /// Takes messages of these ranks in the order they entered, as far as `limit` and what is left of the batch hold them. The
    /// rank of the first that found too little room.
    fn draw(&mut self, ranks: &[Rank], mut limit: Space, draw: &mut Draw) -> Option<Rank> {
        let mut is_first = limit.messages > 0;
        loop {
            let is_held = |rank: Rank| rank == Rank::High && draw.high == Allowance::AtMost(0);
            let first = ranks.iter().filter(|rank| !is_held(**rank)).filter_map(|rank| {
                let first = self.lane(*rank).gathered.front()?;
                Some((first.entry, *rank, first.message.wire_bytes))
            });
            let (_, rank, bytes) = first.min()?;
            if self.drop_expired(rank, draw.now) {
                continue;
            }
            // One that is larger than its share has the share to itself, and one that no batch has room for leaves alone.
            let has_room = if is_first {
                draw.rest.fits(bytes) || draw.taken.is_empty()
            } else {
                limit.fits(bytes) && draw.rest.fits(bytes)
            };
            if !has_room {
                return Some(rank);
            }
            let gathered = self.take_oldest(rank)?;
            is_first = false;
            limit.take(bytes);
            draw.rest.take(bytes);
            if let (Rank::High, Allowance::AtMost(left)) = (rank, &mut draw.high) {
                *left -= 1;
            }
            draw.taken.push((rank, gathered));
        }
    }

    fn told(&mut self, mut taken: Vec<(Rank, Gathered)>) -> Cut {
        taken.sort_unstable_by_key(|(_, gathered)| gathered.entry);
        let oldest = taken.iter().map(|(_, gathered)| gathered.since).min();
        let mut cut = Cut { dropped: std::mem::take(&mut self.dropped), oldest, ..Cut::default() };
        self.dropped_since = None;
        for (type_name, merged) in cut.dropped.merged() {
            cut.merged.insert(type_name.clone(), merged);
        }
        for (rank, gathered) in taken {
            match rank {
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

    /// Drops those at the head of a rank that waited longer than they may. Whether there were any.
    fn drop_expired(&mut self, rank: Rank, now: Instant) -> bool {
        let mut has_dropped = false;
        while rank <= Rank::High
            && self.lane(rank).gathered.front().is_some_and(|first| first.is_expired(now))
        {
            let Some(expired) = self.take_oldest(rank) else { break };
            self.drop_gathered(&expired, ShedReason::Expired, now);
            has_dropped = true;
        }
        has_dropped
    }

    /// Draws `shown` messages of normal priority and, if they are fewer, of low; drops the others.
    fn sample(&mut self, shown: usize, seed: u64, now: Instant) {
        self.sample_rank(Rank::Normal, shown, seed, now);
        let left = shown - self.lane(Rank::Normal).gathered.len().min(shown);
        self.sample_rank(Rank::Low, left, seed, now);
    }

    fn sample_rank(&mut self, rank: Rank, shown: usize, seed: u64, now: Instant) {
        let lane = &mut self.lanes[rank as usize];
        if lane.gathered.len() <= shown {
            return;
        }
        let mut lots: Vec<(f64, u64)> = lane.gathered.iter().map(|one| (lot(seed, one), one.entry)).collect();
        let by_lot = |a: &(f64, u64), b: &(f64, u64)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        if shown > 0 {
            lots.select_nth_unstable_by(shown - 1, by_lot);
        }
        let mut drawn: Vec<u64> = lots[..shown].iter().map(|(_, entry)| *entry).collect();
        drawn.sort_unstable();
        let all = std::mem::take(&mut lane.gathered);
        let mut drawn = drawn.into_iter().peekable();
        for gathered in all {
            if drawn.next_if_eq(&gathered.entry).is_some() {
                self.lanes[rank as usize].gathered.push_back(gathered);
            } else {
                self.left(rank, &gathered);
                self.drop_gathered(&gathered, ShedReason::Sampled, now);
            }
        }
    }

    fn give_back_memory(&mut self) {
        for lane in &mut self.lanes {
            if lane.gathered.is_empty() && lane.gathered.capacity() > ROOMY {
                lane.gathered = std::collections::VecDeque::new();
            }
        }
    }
}

/// The lot of a message; the smallest are drawn.
fn lot(seed: u64, gathered: &Gathered) -> f64 {
    // 53 bits, never 0: what a double holds exactly.
    #[expect(clippy::cast_precision_loss, reason = "2^53 at most")]
    let even = ((mix(seed ^ mix(gathered.entry)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    -even.ln() / f64::from(gathered.message.policy.weight.max(1))
}
