//! The way into one shard: what may wait there, and who is refused first when too much does.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use tokio::sync::{Notify, oneshot};

use super::handle::{Arrival, Busy, Request};
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
    /// When it was given to the shard.
    pub(super) at: Instant,
    pub(super) reply: oneshot::Sender<Published>,
}

impl PublishRequest {
    /// Whether it holds a reliable message.
    fn is_reliable(&self) -> bool {
        self.messages.iter().any(|message| message.class() == Class::Reliable)
    }
}

/// The way into one shard: bounded queues, and what wakes it.
#[derive(Debug)]
pub(super) struct WayIn {
    pub(super) publishes: ArrayQueue<PublishRequest>,
    pub(super) requests: ArrayQueue<Request>,
    pub(super) arrivals: ArrayQueue<Arrival>,
    /// Messages and bytes in `publishes`.
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Nanoseconds that one message takes while the queue is to be kept short; 0: it is not.
    per_message: AtomicU64,
    /// A publish was refused since the shard last asked.
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
    /// [`Busy`] when it is past a bound, or would wait too long: nothing was taken.
    pub(super) fn push_publish(&self, request: PublishRequest) -> Result<(), Busy> {
        let (messages, bytes) = (request.messages.len(), request.bytes);
        // Reserved first, so that two doors can't both take the last place.
        let before = self.messages.fetch_add(messages, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // What has to arrive is refused last of all.
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

    /// Whether what comes behind so many messages waits too long in a queue that is to be kept short. Never behind none: a time that
    /// nobody has updated for a while keeps nobody out of an empty inbox.
    fn is_late(&self, before: usize) -> bool {
        let per_message = Duration::from_nanos(self.per_message.load(Ordering::Relaxed));
        per_message.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX)) >= INBOX_AGE_MAX
    }

    /// What one message takes; `None`: the queue need not be kept short.
    pub(super) fn keep_to(&self, per_message: Option<Duration>) {
        let nanos =
            per_message.map_or(0, |per_message| u64::try_from(per_message.as_nanos()).unwrap_or(u64::MAX));
        // Most turns change nothing, and the doors read it.
        if self.per_message.load(Ordering::Relaxed) != nanos {
            self.per_message.store(nanos, Ordering::Relaxed);
        }
    }

    /// Whether a publish was refused since this was last asked.
    pub(super) fn take_turned_away(&self) -> bool {
        // Asked in every turn, and hardly ever so.
        self.turned_away.load(Ordering::Relaxed) && self.turned_away.swap(false, Ordering::Relaxed)
    }

    /// A publish was taken out.
    pub(super) fn release(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lets another request in.
    ///
    /// # Errors
    /// [`Busy`] when as many wait as may.
    pub(super) fn push_request(&self, request: Request) -> Result<(), Busy> {
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
        let (messages, bytes) = (vec![message.clone(); messages], message.wire_bytes * messages);
        let (room, at) = (RoomName::parse("r1").unwrap(), clock::now().instant);
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
