//! The inputs parked until the room's stream is loaded.

use std::collections::VecDeque;

use super::exchange::{Input, SegmentSaid};
use crate::limits::PARKED_MAX;

/// Parked inputs, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Parked {
    pub(super) inputs: VecDeque<Input>,
    /// Messages of the publishes among `inputs`.
    messages: usize,
}

impl Parked {
    /// Has an input wait. Past the bound, the input comes back.
    pub(super) fn park(&mut self, input: Input) -> Option<Input> {
        let messages = if let Input::Publish { messages, .. } = &input { messages.len() } else { 0 };
        let has_room = match &input {
            Input::Publish { .. } => self.messages + messages <= PARKED_MAX,
            // A connection joins once, so joins are bounded by connections.
            _ if input.is_join() => true,
            _ => self.inputs.len() < PARKED_MAX,
        };
        if !has_room {
            return Some(input);
        }
        self.messages += messages;
        self.inputs.push_back(input);
        None
    }

    /// True if joins of a place wait.
    pub(super) fn has_joins_of(&self, place: usize) -> bool {
        self.inputs.iter().any(|input| is_join_of(input, place))
    }

    /// Drops the joins of a place.
    pub(super) fn drop_joins_of(&mut self, place: usize) {
        self.inputs.retain(|input| !is_join_of(input, place));
    }
}

fn is_join_of(input: &Input, place: usize) -> bool {
    matches!(input, Input::Segment { shard, said: SegmentSaid::Join(_) } if *shard == place)
}
