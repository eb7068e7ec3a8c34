//! The publishes that wait for the store. A message behind a reliable one of its request waits with it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::message::{Message, Verdict};
use crate::limits::{GATHERED_BYTES_MAX, GATHERED_MESSAGES_MAX};

/// The party that hears what became of messages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    /// A publisher.
    Publish { ticket: u64 },
    /// A publisher that takes the message at `offset` back.
    Recall { ticket: u64, offset: u64 },
}

/// One message of a publish that waits.
#[derive(Debug)]
pub(super) enum PendingMessage {
    /// The verdict is known, and waits for those before it.
    Decided(Verdict),
    /// The message is not reliable, and waits for a reliable one before it.
    Behind(Message),
    /// The message is on its way to the store.
    InStore(Arc<Message>),
    /// The message repeats one that is on its way to the store, at this offset.
    Twin(u64),
}

impl PendingMessage {
    /// The offset that the store has to answer for first; 0: none.
    fn awaited(&self) -> u64 {
        match self {
            Self::InStore(message) => message.offset,
            Self::Twin(offset) => *offset,
            Self::Decided(_) | Self::Behind(_) => 0,
        }
    }

    /// Bytes that nothing else accounts for: the stream counts what is on its way to the store.
    fn bytes(&self) -> usize {
        match self {
            Self::Behind(message) => message.wire_bytes,
            Self::InStore(_) | Self::Decided(_) | Self::Twin(_) => 0,
        }
    }
}

/// A publish that waits for the store.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) whose: Whose,
    /// The verdicts on its first messages.
    pub(super) verdicts: Vec<Verdict>,
    /// The other messages. The first one waits for the store.
    rest: VecDeque<PendingMessage>,
}

impl Pending {
    pub(super) fn new(whose: Whose) -> Self {
        Self { whose, verdicts: Vec::new(), rest: VecDeque::new() }
    }

    /// Whether every message so far has its verdict.
    pub(super) fn is_decided(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn push(&mut self, message: PendingMessage) {
        match message {
            PendingMessage::Decided(verdict) if self.is_decided() => self.verdicts.push(verdict),
            message => self.rest.push_back(message),
        }
    }
}

/// All publishes of one room that wait for the store, in the order of the offsets they wait for.
#[derive(Debug, Default)]
pub(super) struct PendingPublishes {
    queue: VecDeque<Pending>,
    /// Messages without a verdict. Bounded as what gathers is, but for one request.
    messages: usize,
    /// Their bytes, those on their way to the store aside. Bounded likewise.
    bytes: usize,
}

impl PendingPublishes {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether no further reliable message may wait.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= GATHERED_MESSAGES_MAX || self.bytes >= GATHERED_BYTES_MAX
    }

    /// Has a publish wait that is not decided yet.
    pub(super) fn push(&mut self, pending: Pending) {
        self.messages += pending.rest.len();
        self.bytes += pending.rest.iter().map(PendingMessage::bytes).sum::<usize>();
        self.queue.push_back(pending);
    }

    /// Takes the next message, which needs a verdict. `None` if nothing waits, or if the next message waits for an offset
    /// past `answered`, the last one that the store has answered for.
    pub(super) fn pop(&mut self, answered: u64) -> Option<PendingMessage> {
        let rest = &mut self.queue.front_mut()?.rest;
        let message = rest.pop_front_if(|message| message.awaited() <= answered)?;
        self.messages -= 1;
        self.bytes -= message.bytes();
        Some(message)
    }

    /// Puts down the verdict on the message that was popped. Returns its publish once that is decided.
    pub(super) fn decide(&mut self, verdict: Verdict) -> Option<Pending> {
        let first = self.queue.front_mut()?;
        first.verdicts.push(verdict);
        if first.is_decided() { self.queue.pop_front() } else { None }
    }
}
