//! The room's buffer: messages gather here until the room flushes, and leave in batches that fit one frame.
//!
//! Each rank has a queue, and higher ranks leave first. A message may merge with a waiting message of the
//! same type and key. In a full room a message takes the place of the oldest of the lowest rank below. The
//! dropped messages had been accepted, so the room's members are told of them with the next cut.
//!
//! Pure: no socket, no task, no clock. The moment of a flush is decided by `Pace`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::id::{Key, TypeName};
use super::message::{Class, Message, ShedReason, Verdict};
use super::pace::Waiting;
use super::policy::{Merge, Priority};
use super::tally::RoomTally;
use crate::limits::{
    GATHERED_BYTES_MAX, GATHERED_MESSAGES_MAX, INTEGER_MAX, STREAM_BYTES_MAX, STREAM_MESSAGES_MAX,
};

mod cut;

pub use self::cut::{Allowance, Budget, Cut};

/// Memory that an empty queue keeps, in messages.
const ROOMY: usize = 64;

/// The verdict on a message for which no other message makes room.
const FULL: Verdict = Verdict::Shed(ShedReason::RoomFull);

/// Messages gathered for their room's next flush.
#[derive(Debug, Default)]
pub struct Buffer {
    queues: [RankQueue; Rank::ALL.len()],
    /// Messages entered so far. The next message takes this number as place in the room's order.
    entered: u64,
    /// Merge name -> the waiting message that later messages merge with.
    places: BTreeMap<MergeName, Place>,
    /// Accepted messages dropped since the last cut, by type.
    pub(super) dropped: BTreeMap<TypeName, DroppedOfType>,
    /// The moment of the first drop since the last cut.
    dropped_since: Option<Instant>,
    /// The last cut, if messages of rank `High` stayed behind for lack of allowance. Their wait counts from
    /// there.
    held_since: Option<Instant>,
    /// The moment of a flush with room for everything, and so in room order. A flush is several cuts at the
    /// same moment.
    in_order_at: Option<Instant>,
    /// The rank whose head was too large for the rest of the last batch. The next batch begins with this
    /// rank.
    passed_over: Option<Rank>,
}

/// Order of leaving; higher ranks leave first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Low,
    Normal,
    High,
    /// A message per key; never sampled, never expired.
    Latest,
    Reliable,
}

impl Rank {
    const ALL: [Self; 5] = [Self::Low, Self::Normal, Self::High, Self::Latest, Self::Reliable];
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

    /// The ranks dropped to make room for this rank, in this order. No rank drops latest values: devices
    /// would miss the newest value.
    fn below(self) -> &'static [Self] {
        match self {
            Self::Low => &[],
            Self::Normal => &[Self::Low],
            Self::High => &[Self::Low, Self::Normal],
            Self::Latest | Self::Reliable => &[Self::Low, Self::Normal, Self::High],
        }
    }
}

/// The messages of a rank.
#[derive(Debug, Default)]
struct RankQueue {
    /// In room order.
    gathered: VecDeque<Gathered>,
    /// Invariant: the sum of `wire_bytes` over `gathered`.
    bytes: usize,
    /// Invariant: the number of urgent messages in `gathered`.
    urgent: usize,
}

#[derive(Debug)]
struct Gathered {
    message: Arc<Message>,
    /// Place in the room's order.
    entry: u64,
    /// Arrival of the first message of this place. A merge does not make the place younger.
    since: Instant,
    /// Further messages merged into this message.
    merged: u64,
}

/// Messages of the same merge name leave as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct MergeName {
    type_name: TypeName,
    /// `None`: all messages of the type without a key.
    key: Option<Key>,
}

impl MergeName {
    /// The merge name of a message; `None`: the message merges with nothing.
    fn of(message: &Message) -> Option<Self> {
        match (message.policy.merge, &message.key) {
            // Without a key there is no telling which value a later one replaces.
            (Merge::None, _) | (Merge::Latest | Merge::Sum, None) => None,
            (_, key) => Some(Self { type_name: message.type_name.clone(), key: key.clone() }),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    rank: Rank,
    entry: u64,
}

/// Messages of a type dropped after acceptance.
#[derive(Debug)]
pub(super) struct DroppedOfType {
    pub(super) class: Class,
    pub(super) by_reason: BTreeMap<ShedReason, u64>,
    /// Further messages merged into the dropped messages.
    pub(super) merged: u64,
}

impl DroppedOfType {
    /// The number of dropped messages.
    pub(super) fn count(&self) -> u64 {
        self.by_reason.values().sum()
    }

    /// Counts the dropped messages as shed.
    pub(super) fn add_to(&self, tally: &mut RoomTally) {
        for (reason, count) in &self.by_reason {
            tally.shed[*reason as usize].add(self.class, *count);
        }
    }
}

impl Buffer {
    /// Takes in a message: merged with a waiting message of the same name, or behind the others. A message is
    /// shed if the room is full of messages of the same or a higher rank; then nothing changed.
    pub fn push(&mut self, message: Message, now: Instant) -> Verdict {
        let verdict = match MergeName::of(&message) {
            Some(name) => self.push_or_merge(name, message, now),
            None => self.push_behind(message, now).map_or(FULL, |_| Verdict::Accepted),
        };
        self.check_invariants();
        verdict
    }

    /// Takes in a durable message behind the others. A full room takes the message as well: the publisher has
    /// been told `durable`, and the stream's own bounds keep the excess small.
    pub(super) fn push_durable(&mut self, message: Arc<Message>, now: Instant) {
        // If nothing may make enough room, nothing is dropped for an excess that stays.
        self.make_room(Rank::Reliable, message.wire_bytes, 1, now);
        self.enter(Rank::Reliable, message, now);
        self.check_invariants();
    }

    /// Takes out all durable messages: their stream is no more.
    pub(super) fn give_up_durable(&mut self) -> Vec<Arc<Message>> {
        // Durable messages never merge, so `places` names none of them.
        let queue = std::mem::take(&mut self.queues[Rank::Reliable as usize]);
        self.check_invariants();
        queue.gathered.into_iter().map(|gathered| gathered.message).collect()
    }

    /// Takes out the durable messages that have expired meanwhile.
    pub(super) fn give_up_expired(&mut self, has_expired: impl Fn(u64) -> bool) -> Vec<Arc<Message>> {
        let queue = &mut self.queues[Rank::Reliable as usize];
        // Mostly none waits, or none has expired, and the queue is left alone.
        if !queue.gathered.iter().any(|gathered| has_expired(gathered.message.offset)) {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut queue.gathered);
        let is_expired = |gathered: &Gathered| has_expired(gathered.message.offset);
        let (expired, alive): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(is_expired);
        self.queues[Rank::Reliable as usize].gathered = alive;
        expired.iter().for_each(|gathered| self.left(Rank::Reliable, gathered));
        self.check_invariants();
        expired.into_iter().map(|gathered| gathered.message).collect()
    }

    /// True if too many messages wait for another reliable message. The room asks before the message goes to
    /// the store.
    pub(super) fn is_full(&self) -> bool {
        !self.may_make_room(Rank::Reliable, 0, 1)
    }

    /// The part of the buffer for `Pace` to weigh; `None` if nothing could leave.
    pub(super) fn waiting(&self, budget: &Budget) -> Option<Waiting> {
        let since = |rank: Rank| {
            let oldest = self.queue(rank).gathered.front()?.since;
            // A message held for lack of allowance is overdue for ever, and would have the room flush without
            // a pause.
            let held = self.held_since.filter(|_| rank == Rank::High);
            Some(held.map_or(oldest, |held| held.max(oldest)))
        };
        let oldest = Rank::ALL.into_iter().filter_map(since).chain(self.dropped_since).min()?;
        let mut messages = 0;
        let mut bytes = 0;
        let mut urgent = 0;
        // A rank that is sampled or held back makes no batch whole: only a part of it leaves with a window.
        for rank in Rank::ALL.into_iter().filter(|rank| !budget.holds_back(*rank)) {
            let queue = self.queue(rank);
            messages += queue.gathered.len();
            bytes += queue.bytes;
            urgent += queue.urgent;
        }
        // An urgent gift under a reading rate still asks for a flush, until a cut had no allowance for it.
        if budget.holds_back(Rank::High) && self.held_since.is_none() {
            urgent += self.queue(Rank::High).urgent;
        }
        let batches = (messages / budget.messages_max).max(bytes / budget.bytes_max);
        Some(Waiting { oldest, batches, bytes, urgent: urgent > 0 })
    }

    /// Arrival of the oldest message gathered.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let heads = self.queues.iter().filter_map(|queue| queue.gathered.front());
        heads.min_by_key(|head| head.entry).map(|head| head.since)
    }

    /// Messages to draw a sample of: normal and low.
    pub(super) fn sampled_len(&self) -> usize {
        self.queue(Rank::Normal).gathered.len() + self.queue(Rank::Low).gathered.len()
    }

    /// Messages gathered.
    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(|queue| queue.gathered.len()).sum()
    }

    /// True if nothing is gathered. Dropped messages may still have to be told.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.gathered.is_empty())
    }

    /// Messages gathered, by type.
    pub(super) fn by_type(&self) -> BTreeMap<TypeName, Backlog> {
        let mut backlog: BTreeMap<TypeName, Backlog> = BTreeMap::new();
        for gathered in self.iter() {
            let of_type = backlog.entry(gathered.message.type_name.clone()).or_default();
            of_type.messages += 1;
            of_type.merged += gathered.merged;
        }
        backlog
    }

    /// The class of each message gathered.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> {
        self.iter().map(|gathered| gathered.message.class())
    }

    fn iter(&self) -> impl Iterator<Item = &Gathered> {
        self.queues.iter().flat_map(|queue| &queue.gathered)
    }

    fn push_or_merge(&mut self, name: MergeName, mut message: Message, now: Instant) -> Verdict {
        let rank = Rank::of(&message);
        // A `PUT` may have moved the type to another rank: the waiting message stays where it is, and this
        // one begins a place of its own.
        let place = self.places.get(&name).copied().filter(|place| place.rank == rank);
        let Some((index, queue)) = place.and_then(|place| {
            let queue = &mut self.queues[rank as usize];
            let index = queue.gathered.binary_search_by_key(&place.entry, |gathered| gathered.entry).ok()?;
            Some((index, queue))
        }) else {
            return self.push_named(name, message, now);
        };
        let waiting = &mut queue.gathered[index];
        // The first message stays as it is: no byte more, so no room to make.
        if message.policy.merge == Merge::First {
            waiting.merged += 1;
            return Verdict::Merged;
        }
        if message.policy.merge == Merge::Sum {
            let sum = message.count.saturating_add(waiting.message.count);
            // A JSON reader would round a greater sum: the later message begins another place.
            if sum > INTEGER_MAX {
                return self.push_named(name, message, now);
            }
            message.count = sum;
        }
        // The later payload may be larger than the one that gave up its place.
        let more = message.wire_bytes.saturating_sub(waiting.message.wire_bytes);
        // Only lower ranks make room, so `index` still names the waiting message.
        if more > 0 && !self.make_room(rank, more, 0, now) {
            return FULL;
        }
        let queue = &mut self.queues[rank as usize];
        let waiting = &mut queue.gathered[index];
        queue.bytes = queue.bytes - waiting.message.wire_bytes + message.wire_bytes;
        queue.urgent =
            queue.urgent - usize::from(waiting.message.policy.urgent) + usize::from(message.policy.urgent);
        waiting.message = Arc::new(message);
        waiting.merged += 1;
        Verdict::Merged
    }

    /// Takes in a message for later messages of `name` to merge with.
    fn push_named(&mut self, name: MergeName, message: Message, now: Instant) -> Verdict {
        let rank = Rank::of(&message);
        let Some(entry) = self.push_behind(message, now) else { return FULL };
        self.places.insert(name, Place { rank, entry });
        Verdict::Accepted
    }

    /// Returns the message's place in the room's order; `None`: the room is full.
    fn push_behind(&mut self, message: Message, now: Instant) -> Option<u64> {
        let rank = Rank::of(&message);
        let has_room = self.make_room(rank, message.wire_bytes, 1, now);
        has_room.then(|| self.enter(rank, Arc::new(message), now))
    }

    fn enter(&mut self, rank: Rank, message: Arc<Message>, now: Instant) -> u64 {
        let entry = self.entered;
        self.entered += 1;
        // The flush under way was found to take everything before this message. With this message it may not.
        self.in_order_at = None;
        let queue = &mut self.queues[rank as usize];
        queue.urgent += usize::from(message.policy.urgent);
        queue.bytes += message.wire_bytes;
        queue.gathered.push_back(Gathered { message, entry, since: now, merged: 0 });
        entry
    }

    fn queue(&self, rank: Rank) -> &RankQueue {
        &self.queues[rank as usize]
    }

    fn bytes(&self) -> usize {
        self.queues.iter().map(|queue| queue.bytes).sum()
    }

    fn has_room_for(&self, bytes: usize, messages: usize) -> bool {
        self.len() + messages <= GATHERED_MESSAGES_MAX && self.bytes() + bytes <= GATHERED_BYTES_MAX
    }

    /// True if there is room once all ranks that make room for `rank` have gone.
    fn may_make_room(&self, rank: Rank, bytes: usize, messages: usize) -> bool {
        let mut messages_after = self.len() + messages;
        let mut bytes_after = self.bytes() + bytes;
        for queue in rank.below().iter().map(|rank| self.queue(*rank)) {
            messages_after -= queue.gathered.len();
            bytes_after -= queue.bytes;
        }
        messages_after <= GATHERED_MESSAGES_MAX && bytes_after <= GATHERED_BYTES_MAX
    }

    /// Drops the oldest of the lowest ranks below `rank` until there is room. Returns false, and drops
    /// nothing, if all of those would not make enough room.
    fn make_room(&mut self, rank: Rank, bytes: usize, messages: usize, now: Instant) -> bool {
        if self.has_room_for(bytes, messages) {
            return true;
        }
        // Asked first: a message that is refused anyway costs no other message its place.
        if !self.may_make_room(rank, bytes, messages) {
            return false;
        }
        for below in rank.below() {
            while !self.has_room_for(bytes, messages) {
                let Some(oldest) = self.take_oldest(*below) else { break };
                self.drop_gathered(&oldest, ShedReason::RoomFull, now);
            }
        }
        true
    }

    fn drop_gathered(&mut self, gathered: &Gathered, reason: ShedReason, now: Instant) {
        let message = &gathered.message;
        let of_type = self.dropped.entry(message.type_name.clone()).or_insert_with(|| DroppedOfType {
            class: message.class(),
            by_reason: BTreeMap::new(),
            merged: 0,
        });
        *of_type.by_reason.entry(reason).or_default() += 1;
        of_type.merged += gathered.merged;
        self.dropped_since.get_or_insert(now);
    }

    fn take_oldest(&mut self, rank: Rank) -> Option<Gathered> {
        let gathered = self.queues[rank as usize].gathered.pop_front()?;
        self.left(rank, &gathered);
        Some(gathered)
    }

    /// Keeps the sums and places after a message has left the queue of `rank`.
    fn left(&mut self, rank: Rank, gathered: &Gathered) {
        let message = &gathered.message;
        let queue = &mut self.queues[rank as usize];
        queue.bytes -= message.wire_bytes;
        queue.urgent -= usize::from(message.policy.urgent);
        // Rooms without merging types, most of them, build no name per message.
        if self.places.is_empty() {
            return;
        }
        let Some(name) = MergeName::of(message) else { return };
        // A later message may have begun another place of the same name: that place stays.
        if self.places.get(&name) == Some(&Place { rank, entry: gathered.entry }) {
            self.places.remove(&name);
        }
    }

    fn check_invariants(&self) {
        // Durable messages come on top of a full room: one stream of them, and as many recalls.
        debug_assert!(self.len() <= GATHERED_MESSAGES_MAX + 2 * STREAM_MESSAGES_MAX);
        debug_assert!(self.bytes() <= GATHERED_BYTES_MAX + 2 * STREAM_BYTES_MAX);
        // The sums are walked for small buffers only: tests fill large ones, and a quadratic check helps
        // nobody.
        if cfg!(debug_assertions) && self.len() <= 64 {
            for queue in &self.queues {
                let bytes: usize = queue.gathered.iter().map(|gathered| gathered.message.wire_bytes).sum();
                let urgent = queue.gathered.iter().filter(|gathered| gathered.message.policy.urgent).count();
                debug_assert_eq!((bytes, urgent), (queue.bytes, queue.urgent));
                let entries = queue.gathered.iter().map(|gathered| gathered.entry);
                debug_assert!(entries.is_sorted(), "a queue keeps the room's order");
            }
            debug_assert!(self.places.len() <= self.len());
            debug_assert_eq!(self.dropped.is_empty(), self.dropped_since.is_none());
        }
    }
}

/// The waiting messages of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backlog {
    /// Messages still to leave.
    pub(super) messages: u64,
    /// Further messages merged into `messages`.
    pub(super) merged: u64,
}

#[cfg(test)]
mod tests;
