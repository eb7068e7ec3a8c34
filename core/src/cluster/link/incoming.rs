//! The receiving half of a link: the order of messages, the entries for the owner, and the ack that is due.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::message::{LinkAck, LinkMessage, Shape, Sort};
use crate::limits::{
    LINK_ACK_AGE_MAX, LINK_ACK_ENTRIES, LINK_ACK_MESSAGES, LINK_ENTRY_BYTES_MAX, LINK_HELD_BYTES_MAX,
    LINK_HELD_MESSAGES_MAX, LINK_MESSAGE_ENTRIES_MAX, LINK_SKIPS_MAX, LINK_WAITING_BYTES_MAX,
    LINK_WAITING_ENTRIES_MAX,
};

/// The receiving half of a link.
#[derive(Debug, Default)]
pub(super) struct TakingHalf {
    /// Every message up to this one was taken or skipped.
    pub(super) taken: u64,
    /// The last kept message taken.
    kept_taken: u64,
    /// Messages whose batches were skipped, rising, as far as the other node has not settled them.
    skips: VecDeque<RangeInclusive<u64>>,
    /// Messages behind a kept one that has not come.
    held: BTreeMap<u64, LinkMessage>,
    held_bytes: usize,
    /// An entry whose last part has not come.
    joining: Option<JoiningEntry>,
    /// Entries for the owner.
    entries: VecDeque<Bytes>,
    entries_bytes: usize,
    /// The moment of the next ack. `None`: nothing is to acknowledge.
    pub(super) ack_at: Option<Instant>,
    unacked_messages: usize,
    unacked_entries: usize,
}

/// An entry of which some parts have come.
#[derive(Debug)]
struct JoiningEntry {
    /// The message with the next part.
    next: u64,
    parts: Vec<Bytes>,
    bytes: usize,
}

/// The other node, or the owner, left a bound: the link begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PastBound;

impl TakingHalf {
    /// Takes a message, and the held ones behind it.
    pub(super) fn take(&mut self, message: LinkMessage, now: Instant) -> Result<(), PastBound> {
        // Held ones that found too much waiting come first.
        self.deliver_held()?;
        if message.seq > self.taken && self.is_full() {
            // Without an ack the message comes again, or its batches lapse.
            self.ack_by(now + LINK_ACK_AGE_MAX);
            return Ok(());
        }
        self.unacked_messages += 1;
        self.unacked_entries += message.entries.len();
        self.settle(message.floor);
        if message.seq <= self.taken {
            // The ack was lost, or a batch comes too late.
            self.ack_at = Some(now);
            return Ok(());
        }
        let is_full = self.unacked_messages >= LINK_ACK_MESSAGES || self.unacked_entries >= LINK_ACK_ENTRIES;
        self.ack_by(if is_full { now } else { now + LINK_ACK_AGE_MAX });
        if message.kept_before > self.kept_taken {
            self.hold(message);
            return Ok(());
        }
        self.deliver(message)?;
        self.deliver_held()
    }

    /// True if so much waits for the owner that no further message is taken.
    fn is_full(&self) -> bool {
        self.entries.len() >= LINK_WAITING_ENTRIES_MAX / 2 || self.entries_bytes >= LINK_WAITING_BYTES_MAX / 2
    }

    /// Takes held messages that nothing is missing before, while the owner takes entries.
    fn deliver_held(&mut self) -> Result<(), PastBound> {
        while !self.is_full()
            && let Some(next) = self.held.first_entry()
        {
            if next.get().kept_before > self.kept_taken {
                break;
            }
            let message = next.remove();
            self.held_bytes -= message.bytes;
            // Another message may have gone by it.
            if message.seq > self.taken {
                self.deliver(message)?;
            }
        }
        Ok(())
    }

    /// An ack is due at `at` or before.
    pub(super) fn ack_by(&mut self, at: Instant) {
        self.ack_at = Some(self.ack_at.map_or(at, |due| due.min(at)));
    }

    /// Forgets skips that the other node has settled.
    fn settle(&mut self, floor: u64) {
        while self.skips.pop_front_if(|skip| *skip.end() < floor).is_some() {}
    }

    fn hold(&mut self, message: LinkMessage) {
        let bytes = message.bytes;
        let has_room =
            self.held.len() < LINK_HELD_MESSAGES_MAX && self.held_bytes + bytes <= LINK_HELD_BYTES_MAX;
        if has_room && !self.held.contains_key(&message.seq) {
            self.held_bytes += bytes;
            self.held.insert(message.seq, message);
        }
    }

    /// Takes the message behind `kept_taken`. Missing messages in between had batches alone, and are skipped.
    fn deliver(&mut self, message: LinkMessage) -> Result<(), PastBound> {
        let seq = message.seq;
        if seq > self.taken + 1 {
            self.skip(self.taken + 1..=seq - 1)?;
        }
        self.taken = seq;
        match message.sort {
            Sort::Lapsing => {}
            Sort::Kept => self.kept_taken = seq,
            Sort::Stripped => {
                self.kept_taken = seq;
                self.skip(seq..=seq)?;
            }
        }
        match message.shape {
            Shape::Whole => {
                self.joining = None;
                for entry in message.entries {
                    self.give(entry);
                }
                Ok(())
            }
            Shape::Part { is_first, is_last } => self.join(seq, message.entries, is_first, is_last),
        }
    }

    fn skip(&mut self, seqs: RangeInclusive<u64>) -> Result<(), PastBound> {
        match self.skips.back_mut() {
            Some(last) if *last.end() + 1 == *seqs.start() => *last = *last.start()..=*seqs.end(),
            _ => self.skips.push_back(seqs),
        }
        if self.skips.len() > LINK_SKIPS_MAX { Err(PastBound) } else { Ok(()) }
    }

    /// Adds a part to its entry, and gives the entry with its last part.
    fn join(&mut self, seq: u64, parts: Vec<Bytes>, is_first: bool, is_last: bool) -> Result<(), PastBound> {
        if is_first {
            self.joining = Some(JoiningEntry { next: seq, parts: Vec::new(), bytes: 0 });
        }
        // A part of a batch was lost: the others are worth nothing.
        let Some(mut joining) = self.joining.take().filter(|joining| joining.next == seq) else {
            return Ok(());
        };
        joining.next = seq + 1;
        for part in parts {
            joining.bytes += part.len();
            joining.parts.push(part);
        }
        if joining.bytes > LINK_ENTRY_BYTES_MAX {
            return Err(PastBound);
        }
        if is_last {
            let mut entry = BytesMut::with_capacity(joining.bytes);
            joining.parts.iter().for_each(|part| entry.extend_from_slice(part));
            self.give(entry.freeze());
        } else {
            self.joining = Some(joining);
        }
        Ok(())
    }

    fn give(&mut self, entry: Bytes) {
        self.entries_bytes += entry.len();
        self.entries.push_back(entry);
    }

    pub(super) fn poll_entry(&mut self) -> Option<Bytes> {
        let entry = self.entries.pop_front()?;
        self.entries_bytes -= entry.len();
        Some(entry)
    }

    /// The ack for a message that leaves now.
    pub(super) fn take_ack(&mut self) -> LinkAck {
        self.ack_at = None;
        self.unacked_messages = 0;
        self.unacked_entries = 0;
        LinkAck { through: self.taken, skips: self.skips.iter().cloned().collect() }
    }

    /// True if something has come in this generation.
    pub(super) fn is_begun(&self) -> bool {
        self.taken > 0 || !self.held.is_empty()
    }

    /// True if messages wait for a lost one.
    #[cfg(test)]
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Checks the bounds of a simulated link.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert!(self.held.len() <= LINK_HELD_MESSAGES_MAX && self.held_bytes <= LINK_HELD_BYTES_MAX);
        assert_eq!(self.held_bytes, self.held.values().map(|message| message.bytes).sum::<usize>());
        assert!(self.skips.len() <= LINK_SKIPS_MAX);
        assert!(self.entries.len() <= LINK_WAITING_ENTRIES_MAX);
        assert!(self.entries_bytes <= LINK_WAITING_BYTES_MAX);
    }
}

const _: () = {
    let half = LINK_WAITING_ENTRIES_MAX / 2;
    assert!(half + LINK_MESSAGE_ENTRIES_MAX <= LINK_WAITING_ENTRIES_MAX, "a message fits");
    assert!(LINK_WAITING_BYTES_MAX / 2 >= LINK_ENTRY_BYTES_MAX, "so does the largest entry");
};
