//! The homes and the store: requests of rooms, and the store's answers to them.

use super::Homes;
use crate::store::{StoreAnswer, StoreError, StoreRequest};
use roomcast_core::now::Now;
use roomcast_core::room::Input;
use roomcast_core::room::message::Unavailable;

impl Homes {
    /// The next request to the store.
    pub fn poll_store(&mut self) -> Option<StoreRequest> {
        self.store_requests.pop_front()
    }

    /// Takes back a request the store has no place for now.
    pub(crate) fn store_is_busy(&mut self, request: StoreRequest, now: Now) {
        match request {
            // A publisher waits for the append, and is to hear at once that it can't be had.
            StoreRequest::Append(_) => self.take_stored(request.failed(StoreError::Busy), now),
            // Rooms to be loaded and readers bound the others, so they wait in line.
            StoreRequest::Load { .. } | StoreRequest::Page { .. } | StoreRequest::Forget { .. } => {
                self.store_requests.push_front(request);
            }
        }
    }

    /// Takes an answer of the store.
    pub fn take_stored(&mut self, answer: StoreAnswer, now: Now) {
        let (room, life, input) = match answer {
            StoreAnswer::Loaded { room, life, stream } => {
                (room, life, Input::Loaded { life, stored: stream })
            }
            StoreAnswer::Durable { room, life, through } => (room, life, Input::Durable { life, through }),
            StoreAnswer::Paged { room, life, after, page } => {
                (room, life, Input::Paged { life, after, page })
            }
            StoreAnswer::Forgotten { room, life, existed } => {
                (room, life, Input::Forgotten { life, existed })
            }
            StoreAnswer::Failed { room, life, asked, error } => {
                let reason = unavailable(error);
                (room, life, Input::StoreFailed { life, asked, reason })
            }
        };
        // The name may belong to the room's next life by now.
        let leaving = self.leaving.iter().position(|left| *left.name() == room && left.awaits(life));
        if let Some(at) = leaving {
            return self.tell_leaving(at, input, now);
        }
        // Nobody waits for an answer to a room that is gone; the room itself knows its lives apart.
        if let Some(key) = self.room_of.get(&room).copied() {
            self.tell_room(key, input, now);
        }
    }
}

/// An error of the store, in the words publishers hear.
fn unavailable(error: StoreError) -> Unavailable {
    match error {
        StoreError::Failing | StoreError::Moved => Unavailable::StoreFailing,
        StoreError::Full => Unavailable::StoreFull,
        StoreError::Busy => Unavailable::StoreBusy,
    }
}
