//! The way into a shard: bounded queues for publishes, requests and arrivals. Reliable publishes are
//! refused last.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use tokio::sync::{Notify, oneshot};

use super::handle::{Arrival, Busy, DoorRequest};
use roomcast_core::limits::{
    HALF_OPEN_MAX, INBOX_AGE_MAX, INBOX_BEST_EFFORT_BYTES_MAX, INBOX_BEST_EFFORT_MESSAGES_MAX,
    INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, REQUESTS_MAX,
};
use roomcast_core::room::id::RoomName;
use roomcast_core::room::message::{Class, Message, Published};

/// A publish on its way to its room's home.
#[derive(Debug)]
pub(super) struct PublishRequest {
    pub(super) room: RoomName,
    pub(super) messages: Vec<Message>,
    pub(super) bytes: usize,
    /// Moment at which the door gave the publish to the shard.
    pub(super) at: Instant,
    pub(super) reply: oneshot::Sender<Published>,
}

impl PublishRequest {
    /// True if one of the messages is reliable.
    fn is_reliable(&self) -> bool {
        self.messages.iter().any(|message| message.class() == Class::Reliable)
    }
}

/// The way into a shard: bounded queues, and what wakes it.
#[derive(Debug)]
pub(super) struct WayIn {
    pub(super) publishes: ArrayQueue<PublishRequest>,
    pub(super) requests: ArrayQueue<DoorRequest>,
    pub(super) arrivals: ArrayQueue<Arrival>,
    /// Messages and bytes in `publishes`.
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Nanoseconds per message while the queue is kept short; 0: no bound in time.
    per_message: AtomicU64,
    /// True if a publish was refused since the shard last asked.
    turned_away: AtomicBool,
    pub(super) stopped: AtomicBool,
    pub(super) wake: Notify,
}

impl WayIn {
    pub(super) fn new() -> Self {
        Self {
            publishes: ArrayQueue::new(INBOX_MESSAGES_MAX),
            requests: ArrayQueue::new(REQUESTS_MAX),
            arrivals: ArrayQueue::new(HALF_OPEN_MAX),
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            per_message: AtomicU64::new(0),
            turned_away: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Lets a publish in.
    ///
    /// # Errors
    /// [`Busy`]: the publish is past a bound, or would wait too long. Nothing was taken.
    pub(super) fn push_publish(&self, request: PublishRequest) -> Result<(), Busy> {
        let messages = request.messages.len();
        let bytes = request.bytes;
        // Reserved first, so that two doors can't both take the last place.
        let before = self.messages.fetch_add(messages, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A quarter of the inbox is kept for reliable messages, and no wait is too long for them.
        let (messages_max, bytes_max, is_late) = if request.is_reliable() {
            (INBOX_MESSAGES_MAX, INBOX_BYTES_MAX, false)
        } else {
            (INBOX_BEST_EFFORT_MESSAGES_MAX, INBOX_BEST_EFFORT_BYTES_MAX, self.is_late(before))
        };
        let fits = before + messages <= messages_max && bytes_before + bytes <= bytes_max;
        if !fits || is_late || self.publishes.push(request).is_err() {
            self.release(messages, bytes);
            self.turned_away.store(true, Ordering::Relaxed);
            return Err(Busy);
        }
        self.wake.notify_one();
        Ok(())
    }

    /// True if a publish behind `before` messages would wait too long in a queue that is kept short. An empty
    /// inbox is never too late: a time per message from long ago keeps nobody out.
    fn is_late(&self, before: usize) -> bool {
        let per_message = Duration::from_nanos(self.per_message.load(Ordering::Relaxed));
        per_message.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX)) >= INBOX_AGE_MAX
    }

    /// Sets the time per message by which the queue is kept short; `None`: no bound in time.
    pub(super) fn keep_to(&self, per_message: Option<Duration>) {
        let nanos =
            per_message.map_or(0, |per_message| u64::try_from(per_message.as_nanos()).unwrap_or(u64::MAX));
        // Most turns change nothing, and a write would take the cache line from the doors.
        if self.per_message.load(Ordering::Relaxed) != nanos {
            self.per_message.store(nanos, Ordering::Relaxed);
        }
    }

    /// True if a publish was refused since the last call.
    pub(super) fn take_turned_away(&self) -> bool {
        // Read in every turn and hardly ever set, so a plain load comes first.
        self.turned_away.load(Ordering::Relaxed) && self.turned_away.swap(false, Ordering::Relaxed)
    }

    /// Gives back the space of a publish that was taken out.
    pub(super) fn release(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lets another request in.
    ///
    /// # Errors
    /// [`Busy`]: the queue is full.
    pub(super) fn push_request(&self, request: DoorRequest) -> Result<(), Busy> {
        self.requests.push(request).map_err(|_| Busy)?;
        self.wake.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use roomcast_core::room::message::sample;
    use roomcast_core::room::policy::TypePolicy;

    fn publish(class: Class, messages: usize) -> PublishRequest {
        let message = Message { policy: TypePolicy::of(class), ..sample("t", "1") };
        let bytes = message.wire_bytes * messages;
        let messages = vec![message; messages];
        let room = RoomName::parse("r1").unwrap();
        let at = clock::now().instant;
        PublishRequest { room, messages, bytes, at, reply: oneshot::channel().0 }
    }

    /// How many publishes of so many messages of a class go in.
    fn pushed(way_in: &WayIn, class: Class, messages: usize) -> usize {
        std::iter::from_fn(|| way_in.push_publish(publish(class, messages)).ok()).count()
    }

    #[test]
    fn a_quarter_of_the_inbox_is_kept_for_what_has_to_arrive() {
        let way_in = WayIn::new();
        assert_eq!(pushed(&way_in, Class::Normal, 512), 6);
        assert!(way_in.take_turned_away() && !way_in.take_turned_away());
        assert_eq!(pushed(&way_in, Class::Reliable, 512), 2);
        let large = |class| PublishRequest { bytes: INBOX_BYTES_MAX / 4, ..publish(class, 1) };
        let way_in = WayIn::new();
        for (class, fitting) in [(Class::Lossy, 3), (Class::Reliable, 1)] {
            let pushed = std::iter::from_fn(|| way_in.push_publish(large(class)).ok());
            assert_eq!(pushed.count(), fitting, "{class:?}");
        }
    }

    #[test]
    fn while_a_queue_stands_it_is_kept_as_short_as_its_time_per_message_asks() {
        let way_in = WayIn::new();
        way_in.keep_to(Some(Duration::from_millis(1)));
        assert_eq!(pushed(&way_in, Class::Normal, 1), 25);
        assert_eq!(way_in.push_publish(publish(Class::Reliable, 1)), Ok(()), "what has to arrive comes in");
        let mixed = [publish(Class::Normal, 1), publish(Class::Reliable, 1)].map(|one| one.messages).concat();
        let mixed = PublishRequest { messages: mixed, ..publish(Class::Normal, 0) };
        assert_eq!(way_in.push_publish(mixed), Ok(()), "and takes along what was sent with it");
        way_in.keep_to(None);
        assert_eq!(way_in.push_publish(publish(Class::Normal, 1)), Ok(()));
    }

    #[test]
    fn an_empty_inbox_lets_a_publish_in_whatever_was_said_of_its_time_per_message() {
        let way_in = WayIn::new();
        way_in.keep_to(Some(Duration::MAX));
        assert_eq!(way_in.push_publish(publish(Class::Lossy, 1000)), Ok(()));
        assert_eq!(way_in.push_publish(publish(Class::Lossy, 1)), Err(Busy));
        let request = way_in.publishes.pop().unwrap();
        way_in.release(request.messages.len(), request.bytes);
        assert_eq!(way_in.push_publish(publish(Class::Lossy, 1)), Ok(()));
    }
}
