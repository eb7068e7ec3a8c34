//! The room's record of a reliable message, beside the message itself.

use std::time::Instant;

use super::id::{MessageId, TypeName};
use super::receipt::{Acks, Receipt};
use super::stored::Record;
use crate::now::millis;

/// The record of a reliable message. The record outlives the message: a receipt is asked for after expiry,
/// too.
#[derive(Debug)]
pub struct Entry {
    /// Place in the stream, from 1.
    pub offset: u64,
    /// The message's type.
    pub type_name: TypeName,
    /// The publisher's id, if any.
    pub id: Option<MessageId>,
    /// The moment of acceptance, unix milliseconds.
    pub at_ms: u64,
    /// The moment of expiry as told at the acceptance, unix milliseconds.
    pub expires_ms: u64,
    /// The moment of acceptance by the monotonic clock.
    pub(super) accepted: Instant,
    /// The moment of expiry by the monotonic clock, which decides.
    pub(super) expires: Instant,
    /// The offset that this message recalls; 0: none.
    pub recall: u64,
    /// The offset of this message's durable recall; 0: none.
    pub recalled_by: u64,
    /// The offset of this message's recall while the store has not answered; 0: none.
    pub(super) recalling: u64,
    /// Size in the larger encoding.
    pub(super) bytes: usize,
    /// True until the message expires or is recalled.
    pub(super) is_alive: bool,
    /// True: the message expired before it could leave, and went to nobody.
    pub(super) is_unsent: bool,
    /// Members at the send, members that left since, and devices that came back.
    pub receipt: Receipt,
    /// Acknowledgements counted by former segments.
    pub acks: Acks,
}

impl Entry {
    /// The entry of a message with a new offset, or from the store.
    pub(super) fn of(record: &Record, now: Instant) -> Self {
        Self {
            offset: record.offset,
            type_name: record.type_name.clone(),
            id: record.id.clone(),
            at_ms: record.at_ms,
            expires_ms: record.at_ms.saturating_add(millis(record.ttl)),
            accepted: record.accepted,
            expires: record.expires,
            recall: record.recall,
            recalled_by: record.recalled_by,
            recalling: 0,
            bytes: record.wire_bytes,
            is_alive: record.recalled_by == 0 && record.expires > now,
            is_unsent: false,
            receipt: Receipt::default(),
            acks: Acks::default(),
        }
    }
}
