//! The sending half of a link: entries that wait, messages without an ack, and the time of both.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::Bytes;

use super::message::{LinkAck, Shape, Sort};
use super::round_trip::RoundTrip;
use super::{LinkEntry, LinkEvent, LinkTally};
use crate::limits::{
    LINK_BATCH_BYTES_MAX, LINK_BATCHES_MAX, LINK_BUNDLE_BYTES_MAX, LINK_BUNDLED_BYTES_MAX,
    LINK_ENTRY_BYTES_MAX, LINK_HEADER_BYTES_MAX, LINK_KEPT_AGE_MAX, LINK_KEPT_BYTES_MAX,
    LINK_MESSAGE_BYTES_MAX, LINK_MESSAGE_ENTRIES_MAX, LINK_REPEAT_BYTES_MAX, LINK_REPEAT_PAUSE,
};

/// Bytes of an entry, or of a part, in a message of its own. The length takes four bytes of the header's share.
const PART_BYTES_MAX: usize = LINK_MESSAGE_BYTES_MAX - LINK_HEADER_BYTES_MAX;

/// The sending half of a link.
#[derive(Debug)]
pub(super) struct SendingHalf<T> {
    /// Entries not yet sent, in order.
    waiting: VecDeque<WaitingEntry<T>>,
    /// For each batch among `waiting`, the moment of its push.
    batches_waiting: VecDeque<Instant>,
    /// Bytes of the first waiting entry that have left as parts.
    parted_bytes: usize,
    /// Kept messages without an ack, by seq.
    kept: VecDeque<KeptMessage>,
    /// Messages with batches and without an ack, by seq.
    batches: VecDeque<BatchMessage<T>>,
    /// The last message sent.
    pub(super) seq: u64,
    /// The last kept message sent.
    kept_seq: u64,
    /// Bytes of all kept entries that wait or have no ack.
    pub(super) kept_bytes: usize,
    /// Batches that wait or have no ack.
    batches_open: usize,
    batch_bytes_open: usize,
    /// Kept messages to send again now.
    repeats: VecDeque<u64>,
    repeat_at: Option<Instant>,
    pub(super) trip: RoundTrip,
}

#[derive(Debug)]
struct WaitingEntry<T> {
    bytes: Bytes,
    /// `None`: the entry is kept.
    tag: Option<T>,
    since: Instant,
}

#[derive(Debug)]
struct KeptMessage {
    seq: u64,
    kept_before: u64,
    /// Entries, without the batches of the message. Empty for the first message after a reset.
    entries: Vec<Bytes>,
    bytes: usize,
    shape: Shape,
    /// The message had batches.
    had_batches: bool,
    /// The push of the first entry.
    since: Instant,
    sent_at: Instant,
    is_repeated: bool,
}

#[derive(Debug)]
struct BatchMessage<T> {
    /// The message; for a batch in parts, the messages from the first to the last part.
    seqs: RangeInclusive<u64>,
    tags: Vec<T>,
    bytes: usize,
    since: Instant,
    sent_at: Instant,
}

/// A message that is ready to leave, but for the parts of the other half.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) seq: u64,
    pub(super) kept_before: u64,
    pub(super) sort: Sort,
    pub(super) shape: Shape,
    pub(super) entries: Vec<Bytes>,
    pub(super) bytes: usize,
}

impl Ready {
    /// A message that only acknowledges.
    pub(super) const ACK: Self = Self {
        seq: 0,
        kept_before: 0,
        sort: Sort::Lapsing,
        shape: Shape::Whole,
        entries: Vec::new(),
        bytes: 0,
    };
}

/// The fate of a pushed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    Waits,
    Lapsed,
    /// Kept entries are past their bound.
    Full,
}

impl<T> SendingHalf<T> {
    pub(super) fn new(trip: RoundTrip) -> Self {
        Self {
            waiting: VecDeque::new(),
            batches_waiting: VecDeque::new(),
            parted_bytes: 0,
            kept: VecDeque::new(),
            batches: VecDeque::new(),
            seq: 0,
            kept_seq: 0,
            kept_bytes: 0,
            batches_open: 0,
            batch_bytes_open: 0,
            repeats: VecDeque::new(),
            repeat_at: None,
            trip,
        }
    }

    /// Begins with a kept message without entries: the other node learns of a reset, even if nothing else is said.
    pub(super) fn greet(&mut self, now: Instant) {
        self.seq = 1;
        self.kept_seq = 1;
        self.kept.push_back(KeptMessage {
            seq: 1,
            kept_before: 0,
            entries: Vec::new(),
            bytes: 0,
            shape: Shape::Whole,
            had_batches: false,
            since: now,
            sent_at: now,
            is_repeated: true,
        });
        self.repeats.push_back(1);
        self.repeat_at = Some(now + self.trip.repeat_after());
    }

    pub(super) fn push(
        &mut self,
        entry: LinkEntry<T>,
        events: &mut VecDeque<LinkEvent<T>>,
        now: Instant,
    ) -> Pushed {
        let (bytes, tag) = match entry {
            LinkEntry::Batch { bytes, tag } => {
                let is_full = self.batches_open >= LINK_BATCHES_MAX
                    || self.batch_bytes_open + bytes.len() > LINK_BATCH_BYTES_MAX
                    || bytes.len() > LINK_ENTRY_BYTES_MAX;
                if is_full {
                    events.push_back(LinkEvent::Lapsed { tag });
                    return Pushed::Lapsed;
                }
                self.batches_open += 1;
                self.batch_bytes_open += bytes.len();
                self.batches_waiting.push_back(now);
                (bytes, Some(tag))
            }
            LinkEntry::Kept(bytes) => {
                self.kept_bytes += bytes.len();
                if self.kept_bytes > LINK_KEPT_BYTES_MAX || bytes.len() > LINK_ENTRY_BYTES_MAX {
                    return Pushed::Full;
                }
                (bytes, None)
            }
        };
        self.waiting.push_back(WaitingEntry { bytes, tag, since: now });
        Pushed::Waits
    }

    /// The next message to send: repeated ones first, since all others are held behind them.
    pub(super) fn poll_ready(&mut self, tally: &mut LinkTally, now: Instant) -> Option<Ready> {
        while let Some(seq) = self.repeats.pop_front() {
            // An ack may have come since.
            if let Ok(at) = self.kept.binary_search_by_key(&seq, |message| message.seq) {
                let message = &mut self.kept[at];
                message.sent_at = now;
                tally.repeated += u64::from(!message.entries.is_empty());
                let sort = if message.had_batches { Sort::Stripped } else { Sort::Kept };
                let KeptMessage { seq, kept_before, shape, bytes, .. } = *message;
                let entries = message.entries.clone();
                return Some(Ready { seq, kept_before, sort, shape, entries, bytes });
            }
        }
        let first = self.waiting.front()?;
        let ready =
            if first.bytes.len() > PART_BYTES_MAX { self.next_part(now)? } else { self.next_bundle(now) };
        tally.entries += ready.entries.len() as u64;
        Some(ready)
    }

    /// The next part of the first waiting entry.
    fn next_part(&mut self, now: Instant) -> Option<Ready> {
        let entry = self.waiting.front()?;
        let from = self.parted_bytes;
        let to = entry.bytes.len().min(from + PART_BYTES_MAX);
        let part = entry.bytes.slice(from..to);
        let shape = Shape::Part { is_first: from == 0, is_last: to == entry.bytes.len() };
        let is_last = to == entry.bytes.len();
        let since = entry.since;
        let bytes = part.len();
        let kept_before = self.kept_seq;
        self.seq += 1;
        let seq = self.seq;
        self.parted_bytes = to;
        let sort = if entry.tag.is_some() { Sort::Lapsing } else { Sort::Kept };
        if sort == Sort::Kept {
            self.keep(vec![part.clone()], shape, false, since, now);
        }
        if is_last {
            let entry = self.waiting.pop_front()?;
            let parts = entry.bytes.len().div_ceil(PART_BYTES_MAX) as u64;
            self.parted_bytes = 0;
            if let Some(tag) = entry.tag {
                self.batches_waiting.pop_front();
                let seqs = seq + 1 - parts..=seq;
                let bytes = entry.bytes.len();
                self.batches.push_back(BatchMessage { seqs, tags: vec![tag], bytes, since, sent_at: now });
            }
        }
        Some(Ready { seq, kept_before, sort, shape, entries: vec![part], bytes })
    }

    /// Takes waiting entries into one message: a large one alone, or small ones as far as they fit.
    fn next_bundle(&mut self, now: Instant) -> Ready {
        let kept_before = self.kept_seq;
        self.seq += 1;
        let seq = self.seq;
        let mut entries = Vec::new();
        let mut kept = Vec::new();
        let mut tags = Vec::new();
        let mut batch_bytes = 0;
        let mut bytes = 0;
        let mut since = now;
        while let Some(entry) = self.waiting.front() {
            let is_bundled = entry.bytes.len() < LINK_BUNDLED_BYTES_MAX
                && bytes + entry.bytes.len() <= LINK_BUNDLE_BYTES_MAX
                && entries.len() < LINK_MESSAGE_ENTRIES_MAX;
            if !entries.is_empty() && !is_bundled {
                break;
            }
            let WaitingEntry { bytes: entry, tag, since: pushed } =
                self.waiting.pop_front().expect("the loop has seen it");
            since = since.min(pushed);
            bytes += entry.len();
            entries.push(entry.clone());
            match tag {
                Some(tag) => {
                    self.batches_waiting.pop_front();
                    batch_bytes += entry.len();
                    tags.push(tag);
                }
                None => kept.push(entry),
            }
            if bytes >= LINK_BUNDLED_BYTES_MAX && entries.len() == 1 {
                break;
            }
        }
        let sort = if kept.is_empty() { Sort::Lapsing } else { Sort::Kept };
        if sort == Sort::Kept {
            self.keep(kept, Shape::Whole, !tags.is_empty(), since, now);
        }
        if !tags.is_empty() {
            self.batches.push_back(BatchMessage {
                seqs: seq..=seq,
                tags,
                bytes: batch_bytes,
                since,
                sent_at: now,
            });
        }
        Ready { seq, kept_before, sort, shape: Shape::Whole, entries, bytes }
    }

    /// Notes the kept entries of the message `self.seq`, which leaves now.
    fn keep(&mut self, entries: Vec<Bytes>, shape: Shape, had_batches: bool, since: Instant, now: Instant) {
        let seq = self.seq;
        let kept_before = self.kept_seq;
        let bytes = entries.iter().map(Bytes::len).sum();
        self.kept.push_back(KeptMessage {
            seq,
            kept_before,
            entries,
            bytes,
            shape,
            had_batches,
            since,
            sent_at: now,
            is_repeated: false,
        });
        self.kept_seq = seq;
        let trip = self.trip;
        self.repeat_at.get_or_insert_with(|| now + trip.repeat_after());
    }

    /// Takes an ack. Batches of skipped messages have lapsed.
    pub(super) fn acked(&mut self, ack: &LinkAck, events: &mut VecDeque<LinkEvent<T>>, now: Instant) {
        let mut sample = None;
        let mut is_progress = false;
        while let Some(message) = self.kept.pop_front_if(|message| message.seq <= ack.through) {
            is_progress = true;
            self.kept_bytes -= message.bytes;
            if !message.is_repeated {
                sample = Some(message.sent_at);
            }
        }
        while let Some(message) = self.batches.pop_front_if(|message| *message.seqs.end() <= ack.through) {
            self.batches_open -= message.tags.len();
            self.batch_bytes_open -= message.bytes;
            let is_skipped = |skip: &RangeInclusive<u64>| {
                skip.start() <= message.seqs.end() && message.seqs.start() <= skip.end()
            };
            if ack.skips.iter().any(is_skipped) {
                events.extend(message.tags.into_iter().map(|tag| LinkEvent::Lapsed { tag }));
            } else {
                sample = sample.max(Some(message.sent_at));
            }
        }
        if let Some(sent_at) = sample {
            self.trip.measured(now.saturating_duration_since(sent_at));
        }
        if is_progress {
            self.trip.attempts = 0;
            let next = self.kept.front().map(|message| message.sent_at + self.trip.repeat_after());
            self.repeat_at = next.map(|at| at.max(now));
        }
    }

    /// Lets batches lapse that have waited too long for an ack, and marks messages to repeat.
    pub(super) fn due(&mut self, events: &mut VecDeque<LinkEvent<T>>, now: Instant) {
        let batch_age_max = self.trip.batch_age_max();
        let is_late = |since: Instant| since + batch_age_max <= now;
        while let Some(message) = self.batches.pop_front_if(|message| is_late(message.since)) {
            self.batches_open -= message.tags.len();
            self.batch_bytes_open -= message.bytes;
            events.extend(message.tags.into_iter().map(|tag| LinkEvent::Lapsed { tag }));
        }
        if self.batches_waiting.front().is_some_and(|since| is_late(*since)) {
            self.lapse_waiting(events, is_late);
        }
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeat(now);
        }
    }

    fn lapse_waiting(&mut self, events: &mut VecDeque<LinkEvent<T>>, is_late: impl Fn(Instant) -> bool) {
        // The rest of a parted batch is worth nothing without its last part, and leaves all the same: the part is
        // at most one entry.
        let begun = usize::from(self.parted_bytes > 0);
        let entries = std::mem::take(&mut self.waiting);
        for (at, entry) in entries.into_iter().enumerate() {
            match entry.tag {
                Some(tag) if at >= begun && is_late(entry.since) => {
                    self.batches_open -= 1;
                    self.batch_bytes_open -= entry.bytes.len();
                    events.push_back(LinkEvent::Lapsed { tag });
                }
                tag => self.waiting.push_back(WaitingEntry { tag, ..entry }),
            }
        }
        self.batches_waiting.clear();
        let batches = self.waiting.iter().filter(|entry| entry.tag.is_some());
        self.batches_waiting.extend(batches.map(|entry| entry.since));
    }

    /// Marks the oldest kept messages to send again, as far as their time has come and the burst allows.
    fn repeat(&mut self, now: Instant) {
        let after = self.trip.repeat_after();
        self.repeats.clear();
        self.repeat_at = None;
        let mut bytes = 0;
        for message in &mut self.kept {
            if message.sent_at + after > now {
                break;
            }
            if bytes >= LINK_REPEAT_BYTES_MAX {
                self.repeat_at = Some(now + LINK_REPEAT_PAUSE);
                return;
            }
            bytes += message.bytes;
            message.sent_at = now;
            message.is_repeated = true;
            self.repeats.push_back(message.seq);
        }
        self.trip.attempts += 1;
        let next = self.kept.front().map(|message| message.sent_at + self.trip.repeat_after());
        self.repeat_at = next.map(|at| at.max(now + LINK_REPEAT_PAUSE));
    }

    /// The push of the oldest kept entry that waits or has no ack.
    pub(super) fn oldest_kept(&self) -> Option<Instant> {
        // The greeting is no entry of the owner: a node that hears nothing is not told of the same reset again.
        let mut sent = self.kept.iter().take(2).filter(|message| !message.entries.is_empty());
        let waiting = || self.waiting.iter().find(|entry| entry.tag.is_none()).map(|entry| entry.since);
        sent.next().map(|message| message.since).or_else(waiting)
    }

    /// All messages before this one are settled.
    pub(super) fn floor(&self) -> u64 {
        let kept = self.kept.front().map_or(u64::MAX, |message| message.seq);
        let batch = self.batches.front().map_or(u64::MAX, |message| *message.seqs.start());
        // Parts of a batch under way have no place in `batches` yet.
        let parted = if self.parted_bytes > 0 { 1 } else { self.seq + 1 };
        kept.min(batch).min(parted)
    }

    /// The moment of the next [`SendingHalf::due`] or [`SendingHalf::poll_ready`].
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        let sent = self.batches.front().map(|message| message.since);
        let waiting = self.batches_waiting.front().copied();
        let batch = sent.into_iter().chain(waiting).min().map(|since| since + self.trip.batch_age_max());
        let kept = self.oldest_kept().map(|since| since + LINK_KEPT_AGE_MAX);
        [batch, kept, self.repeat_at].into_iter().flatten().min()
    }

    /// Checks the sums of a simulated link.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let waiting_kept = self.waiting.iter().filter(|entry| entry.tag.is_none());
        let waiting: usize = waiting_kept.map(|entry| entry.bytes.len()).sum();
        let sent: usize = self.kept.iter().map(|message| message.bytes).sum();
        let parted = match self.waiting.front() {
            Some(entry) if entry.tag.is_none() => self.parted_bytes,
            _ => 0,
        };
        let acked_parts = (waiting + sent).saturating_sub(self.kept_bytes);
        assert!(acked_parts <= parted, "the kept bytes add up");
        let tags: usize = self.batches.iter().map(|message| message.tags.len()).sum();
        assert_eq!(self.batches_open, tags + self.batches_waiting.len());
        assert!(self.batches_open <= LINK_BATCHES_MAX && self.batch_bytes_open <= LINK_BATCH_BYTES_MAX);
        assert!(self.kept_bytes <= LINK_KEPT_BYTES_MAX);
    }
}
