//! What a room keeps of one reliable message, beside the message itself.

use super::id::{MessageId, TypeName};
use super::message::Message;
use super::receipt::{Acks, Receipt};

/// What is kept of one reliable message.
#[derive(Debug)]
pub struct Entry {
    /// Its place in the stream.
    pub offset: u64,
    /// Its type.
    pub type_name: TypeName,
    /// The publisher's own id.
    pub id: Option<MessageId>,
    /// When the engine took it in, unix milliseconds.
    pub at_ms: u64,
    /// When it expires, unix milliseconds.
    pub expires_ms: u64,
    /// What it takes back; 0: nothing.
    pub recall: u64,
    /// The offset of its recall, once that is durable; 0: none.
    pub recalled_by: u64,
    /// The offset of its recall on the way to the store; 0: none.
    pub(super) recalling: u64,
    pub(super) bytes: usize,
    /// Expired or recalled.
    pub(super) dead: bool,
    /// Who has it.
    pub receipt: Receipt,
    /// Acknowledgements that segments counted which are no more.
    pub acks: Acks,
}

impl Entry {
    /// Of a message that has just got its offset, or comes from the store.
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
            dead: false,
            receipt: Receipt::default(),
            acks: Acks::default(),
        }
    }

    /// Whether it may still be sent.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.dead
    }

    /// The offset of its recall, durable or on the way to the store; 0: none.
    #[must_use]
    pub fn recall_offset(&self) -> u64 {
        self.recalled_by.max(self.recalling)
    }
}
