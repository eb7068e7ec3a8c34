//! The room's buffer: messages gather here until the room flushes, and leave in batches that fit one frame.
//!
//! Pure: no socket, no task, no clock. It does not know when to flush; that is `Pace`'s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::id::{Key, TypeName};
use super::message::{Class, Message};
use super::pace::Waiting;
use crate::config::limits::{
    GATHERED_BYTES_MAX, GATHERED_MESSAGES_MAX, STREAM_BYTES_MAX, STREAM_MESSAGES_MAX,
};

/// An empty buffer that had to hold more than this gives its memory back.
const ROOMY: usize = 64;

/// Messages gathered for their room's next flush.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Oldest first: the remainder of the last cut, then what arrived since.
    gathered: VecDeque<Gathered>,
    /// How many messages left before the oldest one gathered: turns a place into an index.
    left_before: u64,
    /// Invariant: the sum of `wire_bytes` over `gathered`.
    gathered_bytes: usize,
    /// Invariant: how many of `gathered` are urgent.
    urgent: usize,
    /// Where the waiting message of a key stands.
    places: BTreeMap<(TypeName, Key), u64>,
}

#[derive(Debug)]
struct Gathered {
    message: Arc<Message>,
    /// When the first message of this place came; a merge does not make it younger.
    since: Instant,
    /// Messages this one replaced.
    merged: u64,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// It waits behind the others.
    Gathered,
    /// It took the place of a waiting one of its type and key.
    Merged,
    /// Too much waits already; nothing changed.
    Full,
}

/// One cut: the messages of a batch in room order, and how many each had replaced in sum, by type.
#[derive(Debug, Default)]
pub struct Cut {
    /// In room order.
    pub messages: Vec<Arc<Message>>,
    /// Types with at least one.
    pub merged: BTreeMap<TypeName, u64>,
}

impl Buffer {
    /// Takes in one message behind the others.
    pub fn push(&mut self, message: Message, now: Instant) -> Push {
        if !self.has_room_for(message.wire_bytes, 1) {
            return Push::Full;
        }
        self.gathered_bytes += message.wire_bytes;
        self.urgent += usize::from(message.policy.urgent);
        self.gathered.push_back(Gathered { message: Arc::new(message), since: now, merged: 0 });
        self.check_invariants();
        Push::Gathered
    }

    /// Takes in a durable message behind the others, whatever waits: its publisher has been promised.
    pub fn push_durable(&mut self, message: Arc<Message>, now: Instant) {
        self.gathered_bytes += message.wire_bytes;
        self.urgent += usize::from(message.policy.urgent);
        self.gathered.push_back(Gathered { message, since: now, merged: 0 });
        self.check_invariants();
    }

    /// Gives up what is durable: the stream it is of is no more.
    pub fn give_up_durable(&mut self) -> Vec<Arc<Message>> {
        let mut given_up = Vec::new();
        let gathered = std::mem::take(&mut self.gathered);
        // Places are counted from the first: they are made anew.
        self.places.clear();
        for one in gathered {
            if one.message.offset > 0 {
                self.gathered_bytes -= one.message.wire_bytes;
                self.urgent -= usize::from(one.message.policy.urgent);
                given_up.push(one.message);
                continue;
            }
            if let (Class::Latest | Class::Lossy, Some(key)) = (one.message.class(), &one.message.key) {
                let place = self.left_before + self.gathered.len() as u64;
                self.places.insert((one.message.type_name.clone(), key.clone()), place);
            }
            self.gathered.push_back(one);
        }
        self.check_invariants();
        given_up
    }

    /// Whether nothing more is taken in but what is durable.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.has_room_for(0, 1)
    }

    /// Takes in one message, in the place of a waiting one of its type and key if there is one.
    pub fn merge(&mut self, message: Message, now: Instant) -> Push {
        let key = message.key.clone().expect("only messages with a key merge");
        let name = (message.type_name.clone(), key);
        let Some(place) = self.places.get(&name).copied() else {
            let place = self.left_before + self.gathered.len() as u64;
            let push = self.push(message, now);
            if push == Push::Gathered {
                self.places.insert(name, place);
            }
            return push;
        };
        let index = self.index_of(place);
        let old_bytes = self.gathered[index].message.wire_bytes;
        if message.wire_bytes > old_bytes && !self.has_room_for(message.wire_bytes - old_bytes, 0) {
            return Push::Full;
        }
        let waiting = &mut self.gathered[index];
        self.gathered_bytes = self.gathered_bytes - old_bytes + message.wire_bytes;
        self.urgent =
            self.urgent - usize::from(waiting.message.policy.urgent) + usize::from(message.policy.urgent);
        waiting.message = Arc::new(message);
        waiting.merged += 1;
        self.check_invariants();
        Push::Merged
    }

    /// Gives up the oldest messages that fit `messages_max` and `bytes_max`, at least one if there is any. The
    /// remainder keeps its order and its age.
    pub fn cut(&mut self, messages_max: usize, bytes_max: usize) -> Cut {
        let mut cut = Cut::default();
        let mut bytes = 0;
        while let Some(next) = self.gathered.front() {
            let fits = cut.messages.len() < messages_max && bytes + next.message.wire_bytes <= bytes_max;
            if !fits && !cut.messages.is_empty() {
                break;
            }
            bytes += next.message.wire_bytes;
            self.give_up_oldest(&mut cut);
        }
        self.gathered_bytes -= bytes;
        if self.gathered.is_empty() && self.gathered.capacity() > ROOMY {
            self.gathered = VecDeque::new();
        }
        self.check_invariants();
        cut
    }

    /// What `Pace` needs to know; `None` when nothing is gathered.
    #[must_use]
    pub fn waiting(&self, messages_max: usize, bytes_max: usize) -> Option<Waiting> {
        let oldest = self.gathered.front()?.since;
        let batches = (self.gathered.len() / messages_max).max(self.gathered_bytes / bytes_max);
        Some(Waiting { oldest, batches, bytes: self.gathered_bytes, urgent: self.urgent > 0 })
    }

    /// Messages gathered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gathered.len()
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Messages gathered, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.gathered.iter().map(|gathered| &*gathered.message)
    }

    /// Messages gathered, by type.
    #[must_use]
    pub fn by_type(&self) -> BTreeMap<TypeName, Backlog> {
        let mut backlog: BTreeMap<TypeName, Backlog> = BTreeMap::new();
        for gathered in &self.gathered {
            let of_type = backlog.entry(gathered.message.type_name.clone()).or_default();
            of_type.messages += 1;
            of_type.merged += gathered.merged;
        }
        backlog
    }

    fn has_room_for(&self, bytes: usize, messages: usize) -> bool {
        self.gathered.len() + messages <= GATHERED_MESSAGES_MAX
            && self.gathered_bytes + bytes <= GATHERED_BYTES_MAX
    }

    fn give_up_oldest(&mut self, cut: &mut Cut) {
        let Some(oldest) = self.gathered.pop_front() else { return };
        let message = oldest.message;
        if let Some(key) = message.key.as_ref().filter(|_| !self.places.is_empty()) {
            let name = (message.type_name.clone(), key.clone());
            if self.places.get(&name) == Some(&self.left_before) {
                self.places.remove(&name);
            }
        }
        if oldest.merged > 0 {
            *cut.merged.entry(message.type_name.clone()).or_default() += oldest.merged;
        }
        self.urgent -= usize::from(message.policy.urgent);
        self.left_before += 1;
        cut.messages.push(message);
    }

    fn index_of(&self, place: u64) -> usize {
        usize::try_from(place - self.left_before).expect("a place is within the buffer")
    }

    fn check_invariants(&self) {
        // A room's stream has a bound of its own; recalls come on top of it.
        debug_assert!(self.gathered.len() <= GATHERED_MESSAGES_MAX + 2 * STREAM_MESSAGES_MAX);
        debug_assert!(self.gathered_bytes <= GATHERED_BYTES_MAX + 2 * STREAM_BYTES_MAX);
        // The sums are walked for small buffers only: tests fill large ones, and a quadratic check helps nobody.
        if cfg!(debug_assertions) && self.gathered.len() <= 64 {
            let bytes: usize = self.gathered.iter().map(|gathered| gathered.message.wire_bytes).sum();
            let urgent = self.gathered.iter().filter(|gathered| gathered.message.policy.urgent).count();
            debug_assert_eq!((bytes, urgent), (self.gathered_bytes, self.urgent));
            debug_assert!(self.places.len() <= self.gathered.len());
        }
    }
}

/// What waits of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Messages that will leave.
    pub messages: u64,
    /// Messages those have replaced.
    pub merged: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Now;
    use crate::room::message::sample;

    fn keyed(key: &str, payload: &str) -> Message {
        Message { key: Some(Key::parse(key).unwrap()), ..sample("price", payload) }
    }

    fn payloads(cut: &Cut) -> Vec<&[u8]> {
        cut.messages.iter().map(|message| &message.payload.bytes()[..]).collect()
    }

    #[test]
    fn a_cut_keeps_the_order_and_the_remainder_leads_the_next_batch() {
        let (mut buffer, now) = (Buffer::default(), Now::read().instant);
        for n in 0..5 {
            buffer.push(sample("chat", &n.to_string()), now + Duration::from_millis(n));
        }
        assert_eq!(payloads(&buffer.cut(3, 10_000)), [b"0", b"1", b"2"]);
        let waiting = buffer.waiting(100, 10_000).unwrap();
        assert_eq!(waiting.oldest, now + Duration::from_millis(3), "the remainder keeps its age");
        assert_eq!(payloads(&buffer.cut(3, 10_000)), [b"3", b"4"]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_message_larger_than_a_batch_leaves_alone() {
        let (mut buffer, now) = (Buffer::default(), Now::read().instant);
        buffer.push(sample("chat", &"9".repeat(500)), now);
        buffer.push(sample("chat", "1"), now);
        assert_eq!(buffer.cut(100, 300).messages.len(), 1);
        assert_eq!(buffer.cut(100, 300).messages.len(), 1);
    }

    #[test]
    fn a_later_value_takes_the_place_of_the_waiting_one_of_its_key() {
        let (mut buffer, now) = (Buffer::default(), Now::read().instant);
        assert_eq!(buffer.merge(keyed("a", "1"), now), Push::Gathered);
        assert_eq!(buffer.push(sample("chat", "2"), now), Push::Gathered);
        assert_eq!(buffer.merge(keyed("a", "3"), now + Duration::from_secs(1)), Push::Merged);
        assert_eq!(buffer.waiting(100, 10_000).unwrap().oldest, now, "a merge makes nothing younger");
        let cut = buffer.cut(100, 10_000);
        assert_eq!(payloads(&cut), [b"3", b"2"]);
        assert_eq!(cut.merged.values().sum::<u64>(), 1);
        assert_eq!(buffer.merge(keyed("a", "4"), now), Push::Gathered, "what has left is not merged into");
    }

    #[test]
    fn past_its_bounds_it_takes_nothing() {
        let (mut buffer, now) = (Buffer::default(), Now::read().instant);
        for _ in 0..GATHERED_MESSAGES_MAX {
            assert_eq!(buffer.push(sample("chat", "1"), now), Push::Gathered);
        }
        assert_eq!(buffer.push(sample("chat", "1"), now), Push::Full);
        buffer.cut(1, 10_000);
        assert_eq!(buffer.push(sample("chat", "1"), now), Push::Gathered);
        let mut large = Buffer::default();
        let whole = Message { wire_bytes: GATHERED_BYTES_MAX, ..sample("chat", "1") };
        assert_eq!(large.push(whole, now), Push::Gathered);
        assert_eq!(large.push(sample("chat", "1"), now), Push::Full);
    }
}
