//! Questions that a shard answers at once, on their way from the doors.

use std::fmt;

use tokio::sync::oneshot;

use super::Shard;
use super::handle::Shards;
use super::socket::DeviceSocket;
use roomcast_core::now::Now;

/// A question, as it waits in a shard's way in: a function that the shard runs in its turn.
pub(super) struct Question(Box<InTurn>);

type InTurn = dyn FnOnce(&mut Shard<DeviceSocket>, &Shards, Now) + Send;

impl Question {
    /// A question, and the way of its answer back to the door.
    pub(super) fn new<T: Send + 'static>(
        ask: impl FnOnce(&mut Shard<DeviceSocket>, Now) -> T + Send + 'static,
    ) -> (Self, oneshot::Receiver<T>) {
        let (reply, answer) = oneshot::channel();
        let question = move |shard: &mut Shard<DeviceSocket>, shards: &Shards, now: Now| {
            let answer = ask(shard, now);
            // First, so that whoever hears the answer finds the viewer door placing and refusing devices as
            // it says.
            shards.hear_homes(&mut shard.homes);
            // The door may have stopped waiting: then nobody hears the answer.
            reply.send(answer).ok();
        };
        (Self(Box::new(question)), answer)
    }

    /// Answers the question.
    pub(super) fn answer(self, shard: &mut Shard<DeviceSocket>, shards: &Shards, now: Now) {
        (self.0)(shard, shards, now);
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}
