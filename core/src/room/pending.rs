//! The publishes that wait for the store. Within a request, messages behind a reliable message wait as well.
//!
//! A waiting message reserves its id: the request is taken, and no later one may use the id for another
//! message.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::id::MessageId;
use super::ids::Fingerprint;
use super::message::{Message, Verdict};
use crate::limits::{GATHERED_BYTES_MAX, GATHERED_MESSAGES_MAX};

/// The recipient of verdicts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    /// A publisher.
    Publish { ticket: u64 },
    /// A publisher with a recall of the message at `offset`.
    Recall { ticket: u64, offset: u64 },
}

/// A message of a waiting publish.
#[derive(Debug)]
pub(super) enum PendingMessage {
    /// The verdict is known, and waits for earlier verdicts.
    Decided(Verdict),
    /// The message is below class reliable, and waits for an earlier reliable message.
    Behind(Message),
    /// The message is on the way to the store.
    InStore(Arc<Message>),
    /// The message repeats a message on the way to the store, at this offset.
    Twin(u64),
}

impl PendingMessage {
    /// The offset awaited before the verdict; 0: none.
    fn awaited(&self) -> u64 {
        match self {
            Self::InStore(message) => message.offset,
            Self::Twin(offset) => *offset,
            Self::Decided(_) | Self::Behind(_) => 0,
        }
    }

    /// Bytes counted here alone: the stream counts the messages on the way to the store.
    fn bytes(&self) -> usize {
        match self {
            Self::Behind(message) => message.wire_bytes,
            Self::InStore(_) | Self::Decided(_) | Self::Twin(_) => 0,
        }
    }
}

/// A publish before the store.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) whose: Whose,
    /// The verdicts on the first messages.
    pub(super) verdicts: Vec<Verdict>,
    /// The other messages. The first one waits for the store.
    rest: VecDeque<PendingMessage>,
}

impl Pending {
    pub(super) fn new(whose: Whose) -> Self {
        Self { whose, verdicts: Vec::new(), rest: VecDeque::new() }
    }

    /// Returns true if every message so far has its verdict.
    pub(super) fn is_decided(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn push(&mut self, message: PendingMessage) {
        match message {
            // Verdicts answer in the order of the request, so a later one waits for all before it.
            PendingMessage::Decided(verdict) if self.is_decided() => self.verdicts.push(verdict),
            message => self.rest.push_back(message),
        }
    }
}

/// All waiting publishes of a room, in order of the awaited offsets.
#[derive(Debug, Default)]
pub(super) struct PendingPublishes {
    pub(super) queue: VecDeque<Pending>,
    /// Messages without a verdict. Bounded as the buffer is, but for a last request.
    messages: usize,
    /// The bytes of such messages, without those on the way to the store. Bounded likewise.
    bytes: usize,
    /// The ids of messages behind a reliable one. The stream knows the ids of reliable messages.
    reserved: BTreeMap<MessageId, Reserved>,
}

/// A reserved id.
#[derive(Debug, Clone, Copy)]
struct Reserved {
    fingerprint: Fingerprint,
    /// Waiting messages with the id: the first, and its retries.
    messages: usize,
}

impl PendingPublishes {
    /// Returns true if no further reliable message may wait.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= GATHERED_MESSAGES_MAX || self.bytes >= GATHERED_BYTES_MAX
    }

    /// Takes in an undecided publish.
    pub(super) fn push(&mut self, pending: Pending) {
        self.messages += pending.rest.len();
        self.bytes += pending.rest.iter().map(PendingMessage::bytes).sum::<usize>();
        for message in &pending.rest {
            if let PendingMessage::Behind(message) = message
                && let Some(id) = &message.id
            {
                let reserved = Reserved { fingerprint: Fingerprint::of(message), messages: 0 };
                self.reserved.entry(id.clone()).or_insert(reserved).messages += 1;
            }
        }
        self.queue.push_back(pending);
    }

    /// The waiting message of an id.
    pub(super) fn reserved(&self, id: &MessageId) -> Option<Fingerprint> {
        self.reserved.get(id).map(|reserved| reserved.fingerprint)
    }

    /// Takes the next message in need of a verdict. `None` if nothing waits, or if the next message waits for
    /// an offset past `answered`, the last offset answered by the store.
    pub(super) fn pop(&mut self, answered: u64) -> Option<PendingMessage> {
        let rest = &mut self.queue.front_mut()?.rest;
        let message = rest.pop_front_if(|message| message.awaited() <= answered)?;
        self.messages -= 1;
        self.bytes -= message.bytes();
        if let PendingMessage::Behind(Message { id: Some(id), .. }) = &message
            && let Some(reserved) = self.reserved.get_mut(id)
        {
            reserved.messages -= 1;
            // The verdict follows at once, and with it the room's own knowledge of the id.
            if reserved.messages == 0 {
                self.reserved.remove(id);
            }
        }
        Some(message)
    }

    /// Puts down the verdict on the popped message. Returns the publish once all its messages have a verdict.
    pub(super) fn decide(&mut self, verdict: Verdict) -> Option<Pending> {
        let first = self.queue.front_mut()?;
        first.verdicts.push(verdict);
        if first.is_decided() { self.queue.pop_front() } else { None }
    }
}
