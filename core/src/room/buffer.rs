//! The room's buffer: messages gather here until the room flushes, and leave in batches that fit one frame.
//!
//! They wait in lanes, by who goes first. A message that finds one of its type and key waiting may merge with it; one
//! that finds too much waiting takes the place of the oldest of the lowest priority, if that is below its own. What is
//! dropped here was accepted before: it is told to the room's members with the next cut.
//!
//! Pure: no socket, no task, no clock. It does not know when to flush; that is `Pace`'s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::id::{Key, TypeName};
use super::message::{Class, Message, ShedReason};
use super::pace::Waiting;
use super::policy::{Merge, Priority};
use crate::limits::{
    GATHERED_BYTES_MAX, GATHERED_MESSAGES_MAX, INTEGER_MAX, STREAM_BYTES_MAX, STREAM_MESSAGES_MAX,
};

mod cut;

pub use self::cut::{Allowance, Budget, Cut};

/// An empty lane that had to hold more than this gives its memory back.
const ROOMY: usize = 64;

/// Messages gathered for their room's next flush.
#[derive(Debug, Default)]
pub struct Buffer {
    lanes: [Lane; Rank::COUNT],
    /// How many messages have entered: the number of the next one, and so its place in the room's order.
    entered: u64,
    /// Where the message waits that later ones of its type and key merge with. Without a key: all of the type.
    places: BTreeMap<(TypeName, Option<Key>), Place>,
    /// What was dropped since the last cut, and since when something was.
    dropped: Dropped,
    dropped_since: Option<Instant>,
    /// The last cut left messages of rank `High` behind that may not be shown yet: they wait as if they had come then.
    held_since: Option<Instant>,
    /// The flush of this moment takes all that waits, and so takes it in room order.
    in_order_at: Option<Instant>,
    /// The head of this rank found no room beside others in the last cut, and goes before them in the next.
    passed_over: Option<Rank>,
}

/// Where a message waits; the higher ranks go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Low,
    Normal,
    High,
    /// One of each key: never sampled, never too late.
    Latest,
    Reliable,
}

impl Rank {
    const COUNT: usize = 5;
    const ALL: [Self; Self::COUNT] = [Self::Low, Self::Normal, Self::High, Self::Latest, Self::Reliable];

    /// Those that are never sampled.
    const NOT_SAMPLED: &[Self] = &[Self::High, Self::Latest, Self::Reliable];

    fn of(message: &Message) -> Self {
        match (message.class(), message.policy.priority) {
            (Class::Reliable, _) => Self::Reliable,
            (Class::Latest, _) => Self::Latest,
            (_, Priority::High) => Self::High,
            (_, Priority::Normal) => Self::Normal,
            (_, Priority::Low) => Self::Low,
        }
    }

    /// The ranks that make room for this one, the first to go first.
    fn below(self) -> &'static [Self] {
        match self {
            Self::Low => &[],
            Self::Normal => &[Self::Low],
            Self::High => &[Self::Low, Self::Normal],
            Self::Latest | Self::Reliable => &[Self::Low, Self::Normal, Self::High],
        }
    }
}

/// Messages of one rank.
#[derive(Debug, Default)]
struct Lane {
    /// In the order they entered.
    gathered: VecDeque<Gathered>,
    /// Invariant: the sum of `wire_bytes` over `gathered`.
    bytes: usize,
    /// Invariant: how many of `gathered` are urgent.
    urgent: usize,
}

#[derive(Debug)]
struct Gathered {
    message: Arc<Message>,
    /// Its place in the room's order.
    entry: u64,
    /// When the first message of this place came; a merge does not make it younger.
    since: Instant,
    /// Messages it stands for beside itself.
    merged: u64,
}

impl Gathered {
    /// Whether its turn did not come in time.
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= self.message.ttl
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    rank: Rank,
    entry: u64,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// It waits behind the others.
    Gathered,
    /// It and a waiting one of its type and key are one now.
    Merged,
    /// Too much waits that is not less important; nothing changed.
    Full,
}

/// What was dropped though it had been accepted, by type and class.
#[derive(Debug, Default)]
pub struct Dropped(BTreeMap<TypeName, OfType>);

#[derive(Debug)]
struct OfType {
    class: Class,
    by_reason: BTreeMap<ShedReason, u64>,
    /// Messages that those stood for beside themselves.
    merged: u64,
}

impl Dropped {
    fn add(&mut self, gathered: &Gathered, reason: ShedReason) {
        let message = &gathered.message;
        let of_type = self.0.entry(message.type_name.clone()).or_insert_with(|| OfType {
            class: message.class(),
            by_reason: BTreeMap::new(),
            merged: 0,
        });
        *of_type.by_reason.entry(reason).or_default() += 1;
        of_type.merged += gathered.merged;
    }

    /// How many of each type.
    pub fn by_type(&self) -> impl Iterator<Item = (&TypeName, u64)> {
        self.0.iter().map(|(type_name, of_type)| (type_name, of_type.by_reason.values().sum()))
    }

    /// Of one type: messages that those dropped stood for beside themselves, and how many were dropped for which reason.
    #[must_use]
    pub fn of(&self, type_name: &TypeName) -> Option<(u64, &BTreeMap<ShedReason, u64>)> {
        self.0.get(type_name).map(|of_type| (of_type.merged, &of_type.by_reason))
    }

    /// Messages that those dropped stood for beside themselves, by type.
    pub fn merged(&self) -> impl Iterator<Item = (&TypeName, u64)> {
        self.0.iter().filter(|(_, of_type)| of_type.merged > 0).map(|(name, of_type)| (name, of_type.merged))
    }

    /// Each type and reason, with the type's class.
    pub fn reasons(&self) -> impl Iterator<Item = (&TypeName, Class, ShedReason, u64)> {
        self.0.iter().flat_map(|(type_name, of_type)| {
            of_type.by_reason.iter().map(move |(reason, count)| (type_name, of_type.class, *reason, *count))
        })
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Buffer {
    /// Takes in one message: with a waiting one of its type and key if it merges, behind the others if not.
    pub fn push(&mut self, message: Message, now: Instant) -> Push {
        let push = match merge_name(&message) {
            Some(name) => self.push_or_merge(name, message, now),
            None => self.push_behind(message, now).map_or(Push::Full, |_| Push::Gathered),
        };
        self.check_invariants();
        push
    }

    /// Takes in a durable message behind the others, whatever waits: its publisher has been promised.
    pub fn push_durable(&mut self, message: Arc<Message>, now: Instant) {
        if self.may_make_room(Rank::Reliable, message.wire_bytes, 1) {
            self.make_room(Rank::Reliable, message.wire_bytes, 1, now);
        }
        self.enter(Rank::Reliable, message, now);
        self.check_invariants();
    }

    /// Gives up what is durable: the stream it is of is no more.
    pub fn give_up_durable(&mut self) -> Vec<Arc<Message>> {
        let lane = std::mem::take(&mut self.lanes[Rank::Reliable as usize]);
        self.check_invariants();
        lane.gathered.into_iter().map(|one| one.message).collect()
    }

    /// Whether no reliable message is taken in: too many of them wait already.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.may_make_room(Rank::Reliable, 0, 1)
    }

    /// What `Pace` needs to know; `None` when nothing waits that could leave. Ranks that are sampled, or held back, do not
    /// make a batch whole: only so many of them leave with a window.
    #[must_use]
    pub fn waiting(&self, budget: &Budget) -> Option<Waiting> {
        let since = |rank: Rank| {
            let oldest = self.lane(rank).gathered.front()?.since;
            let held = self.held_since.filter(|_| rank == Rank::High);
            Some(held.map_or(oldest, |held| held.max(oldest)))
        };
        let oldest = Rank::ALL.into_iter().filter_map(since).chain(self.dropped_since).min()?;
        let (mut messages, mut bytes, mut urgent) = (0, 0, 0);
        for rank in Rank::ALL.into_iter().filter(|rank| !budget.holds_back(*rank)) {
            let lane = self.lane(rank);
            (messages, bytes, urgent) =
                (messages + lane.gathered.len(), bytes + lane.bytes, urgent + lane.urgent);
        }
        if budget.holds_back(Rank::High) && self.held_since.is_none() {
            urgent += self.lane(Rank::High).urgent;
        }
        let batches = (messages / budget.messages_max).max(bytes / budget.bytes_max);
        Some(Waiting { oldest, batches, bytes, urgent: urgent > 0 })
    }

    /// When the oldest message gathered came.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.oldest_of(&Rank::ALL).map(|(_, since)| since)
    }

    /// The oldest of these ranks: its place in the room's order, and when it came.
    fn oldest_of(&self, ranks: &[Rank]) -> Option<(u64, Instant)> {
        let heads = ranks.iter().filter_map(|rank| self.lane(*rank).gathered.front());
        heads.map(|head| (head.entry, head.since)).min()
    }

    /// Messages gathered that a sample may be drawn of.
    #[must_use]
    pub fn sampled_len(&self) -> usize {
        self.lane(Rank::Normal).gathered.len() + self.lane(Rank::Low).gathered.len()
    }

    /// Messages gathered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.gathered.len()).sum()
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.gathered.is_empty())
    }

    /// Messages gathered, by type.
    #[must_use]
    pub fn by_type(&self) -> BTreeMap<TypeName, Backlog> {
        let mut backlog: BTreeMap<TypeName, Backlog> = BTreeMap::new();
        for gathered in self.iter() {
            let of_type = backlog.entry(gathered.message.type_name.clone()).or_default();
            of_type.messages += 1;
            of_type.merged += gathered.merged;
        }
        backlog
    }

    /// Messages gathered, by class.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
        self.iter().map(|gathered| gathered.message.class())
    }

    /// What was dropped since the last cut.
    #[must_use]
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    fn iter(&self) -> impl Iterator<Item = &Gathered> {
        self.lanes.iter().flat_map(|lane| &lane.gathered)
    }

    fn push_or_merge(&mut self, name: (TypeName, Option<Key>), mut message: Message, now: Instant) -> Push {
        let rank = Rank::of(&message);
        let place = self.places.get(&name).copied().filter(|place| place.rank == rank);
        let Some((index, lane)) = place.and_then(|place| {
            let lane = &mut self.lanes[rank as usize];
            Some((lane.index_of(place.entry)?, lane))
        }) else {
            return self.push_named(name, message, now);
        };
        let waiting = &mut lane.gathered[index];
        if message.policy.merge == Merge::First {
            waiting.merged += 1;
            return Push::Merged;
        }
        if message.policy.merge == Merge::Sum {
            let sum = message.count.saturating_add(waiting.message.count);
            if sum > INTEGER_MAX {
                // A sum that can't travel: this one begins another.
                return self.push_named(name, message, now);
            }
            message.count = sum;
        }
        let more = message.wire_bytes.saturating_sub(waiting.message.wire_bytes);
        if more > 0 && !self.has_room_for(more, 0) {
            if !self.may_make_room(rank, more, 0) {
                return Push::Full;
            }
            self.make_room(rank, more, 0, now);
        }
        let lane = &mut self.lanes[rank as usize];
        let waiting = &mut lane.gathered[index];
        lane.bytes = lane.bytes - waiting.message.wire_bytes + message.wire_bytes;
        lane.urgent =
            lane.urgent - usize::from(waiting.message.policy.urgent) + usize::from(message.policy.urgent);
        waiting.message = Arc::new(message);
        waiting.merged += 1;
        Push::Merged
    }

    /// Takes in a message that later ones of its name merge with.
    fn push_named(&mut self, name: (TypeName, Option<Key>), message: Message, now: Instant) -> Push {
        let rank = Rank::of(&message);
        let Some(entry) = self.push_behind(message, now) else { return Push::Full };
        self.places.insert(name, Place { rank, entry });
        Push::Gathered
    }

    fn push_behind(&mut self, message: Message, now: Instant) -> Option<u64> {
        let (rank, bytes) = (Rank::of(&message), message.wire_bytes);
        if !self.has_room_for(bytes, 1) {
            if !self.may_make_room(rank, bytes, 1) {
                return None;
            }
            self.make_room(rank, bytes, 1, now);
        }
        Some(self.enter(rank, Arc::new(message), now))
    }

    fn enter(&mut self, rank: Rank, message: Arc<Message>, now: Instant) -> u64 {
        let entry = self.entered;
        self.entered += 1;
        // What was decided for those before it need not hold for this one.
        self.in_order_at = None;
        let lane = &mut self.lanes[rank as usize];
        lane.urgent += usize::from(message.policy.urgent);
        lane.bytes += message.wire_bytes;
        lane.gathered.push_back(Gathered { message, entry, since: now, merged: 0 });
        entry
    }

    fn lane(&self, rank: Rank) -> &Lane {
        &self.lanes[rank as usize]
    }

    fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    fn has_room_for(&self, bytes: usize, messages: usize) -> bool {
        self.len() + messages <= GATHERED_MESSAGES_MAX && self.bytes() + bytes <= GATHERED_BYTES_MAX
    }

    /// Whether there is room for a message of this rank once all that make room for it have gone.
    fn may_make_room(&self, rank: Rank, bytes: usize, messages: usize) -> bool {
        let mut stays = (self.len(), self.bytes());
        for lane in rank.below().iter().map(|rank| self.lane(*rank)) {
            stays = (stays.0 - lane.gathered.len(), stays.1 - lane.bytes);
        }
        stays.0 + messages <= GATHERED_MESSAGES_MAX && stays.1 + bytes <= GATHERED_BYTES_MAX
    }

    /// Drops the oldest of the lowest ranks below `rank` until there is room.
    fn make_room(&mut self, rank: Rank, bytes: usize, messages: usize, now: Instant) {
        for below in rank.below() {
            while !self.has_room_for(bytes, messages) {
                let Some(oldest) = self.take_oldest(*below) else { break };
                self.drop_gathered(&oldest, ShedReason::RoomFull, now);
            }
        }
    }

    fn drop_gathered(&mut self, gathered: &Gathered, reason: ShedReason, now: Instant) {
        self.dropped.add(gathered, reason);
        self.dropped_since.get_or_insert(now);
    }

    fn take_oldest(&mut self, rank: Rank) -> Option<Gathered> {
        let gathered = self.lanes[rank as usize].gathered.pop_front()?;
        self.left(rank, &gathered);
        Some(gathered)
    }

    /// A message is no longer in its lane.
    fn left(&mut self, rank: Rank, gathered: &Gathered) {
        let message = &gathered.message;
        let lane = &mut self.lanes[rank as usize];
        lane.bytes -= message.wire_bytes;
        lane.urgent -= usize::from(message.policy.urgent);
        if self.places.is_empty() {
            return;
        }
        let Some(name) = merge_name(message) else { return };
        if self.places.get(&name) == Some(&Place { rank, entry: gathered.entry }) {
            self.places.remove(&name);
        }
    }

    fn check_invariants(&self) {
        // A room's stream has a bound of its own; recalls come on top of it.
        debug_assert!(self.len() <= GATHERED_MESSAGES_MAX + 2 * STREAM_MESSAGES_MAX);
        debug_assert!(self.bytes() <= GATHERED_BYTES_MAX + 2 * STREAM_BYTES_MAX);
        // The sums are walked for small buffers only: tests fill large ones, and a quadratic check helps nobody.
        if cfg!(debug_assertions) && self.len() <= 64 {
            for lane in &self.lanes {
                let bytes: usize = lane.gathered.iter().map(|gathered| gathered.message.wire_bytes).sum();
                let urgent = lane.gathered.iter().filter(|gathered| gathered.message.policy.urgent).count();
                debug_assert_eq!((bytes, urgent), (lane.bytes, lane.urgent));
                let entries = lane.gathered.iter().map(|gathered| gathered.entry);
                debug_assert!(entries.is_sorted(), "a lane keeps the room's order");
            }
            debug_assert!(self.places.len() <= self.len());
            debug_assert_eq!(self.dropped.is_empty(), self.dropped_since.is_none());
        }
    }
}

impl Lane {
    fn index_of(&self, entry: u64) -> Option<usize> {
        self.gathered.binary_search_by_key(&entry, |gathered| gathered.entry).ok()
    }
}

/// Under which name a message merges with others; `None`: it does not.
fn merge_name(message: &Message) -> Option<(TypeName, Option<Key>)> {
    match (message.policy.merge, &message.key) {
        (Merge::None, _) | (Merge::Latest | Merge::Sum, None) => None,
        (_, key) => Some((message.type_name.clone(), key.clone())),
    }
}

/// What waits of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Messages that will leave.
    pub messages: u64,
    /// Messages those stand for beside themselves.
    pub merged: u64,
}

#[cfg(test)]
mod tests;
