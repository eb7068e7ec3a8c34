//! The room's record of a reliable message, beside the message itself.

use super::id::{MessageId, TypeName};
use super::message::Message;
use super::receipt::{Acks, Receipt};

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
    /// The moment of expiry, unix milliseconds.
    pub expires_ms: u64,
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
    /// Members at the send, members that left since, and devices that came back.
    pub receipt: Receipt,
    /// Acknowledgements counted by former segments.
    pub acks: Acks,
}

impl Entry {
    /// The record of a message with a new offset, or from the store.
    pub(super) fn of(message: &Message) -> Self {
        Self {
            offset: message.offset,
            type_name: message.type_name.clone(),
            id: message.id.clone(),
            at_ms: message.at_ms,
            expires_ms: message.expires_ms(),
            recall: message.recall,
            recalled_by: 0,
            recalling: 0,
            bytes: message.wire_bytes,
            is_alive: true,
            receipt: Receipt::default(),
            acks: Acks::default(),
        }
    }
}
