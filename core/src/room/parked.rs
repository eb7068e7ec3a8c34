//! The inputs parked until the room's stream is loaded.

use std::collections::VecDeque;

use super::exchange::Input;
use crate::limits::PARKED_MAX;

/// Parked inputs, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Parked {
    inputs: VecDeque<Input>,
    /// Messages of the publishes among `inputs`.
    messages: usize,
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Has an input wait. Past the bound, the input comes back.
    pub(super) fn park(&mut self, input: Input) -> Option<Input> {
        if !self.has_room_for(&input) {
            return Some(input);
        }
        if let Input::Publish { messages, .. } = &input {
            self.messages += messages.len();
        }
        self.inputs.push_back(input);
        None
    }

    /// Gives up all inputs.
    pub(super) fn take(&mut self) -> VecDeque<Input> {
        std::mem::take(self).inputs
    }

    fn has_room_for(&self, input: &Input) -> bool {
        match input {
            Input::Publish { messages, .. } => self.messages + messages.len() <= PARKED_MAX,
            // A connection joins once, so joins are bounded by connections.
            _ if input.is_join() => true,
            _ => self.inputs.len() < PARKED_MAX,
        }
    }
}
