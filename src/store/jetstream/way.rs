//! The cluster's way to the log: orders in, words out. No call of this file waits, but for the next word.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use roomcast_core::cluster::Slot;
use roomcast_core::cluster::node::NODE_VERSION_OLDEST;
use roomcast_core::limits::{LOG_NEWS_MAX, LOG_ORDERS_MAX};
use roomcast_core::room::id::NameKey;

use super::orders::{LogNews, LogOrder};

/// The cluster's end of the way to the log. Cheap to clone; one owner takes the news.
#[derive(Clone)]
pub struct LogWay {
    queues: Arc<LogQueues>,
    /// Wakes the log's thread.
    log: Arc<Notify>,
    slot_key: NameKey,
}

#[derive(Debug)]
struct LogQueues {
    orders: ArrayQueue<LogOrder>,
    news: ArrayQueue<LogNews>,
    /// Notified of news.
    told: Notify,
    /// The version of new entries.
    version: AtomicU8,
}

impl fmt::Debug for LogWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWay").field("news", &self.queues.news.len()).finish_non_exhaustive()
    }
}

impl LogWay {
    /// The key that hashes rooms to slots, as the cluster's streams have it.
    #[must_use]
    pub fn slot_key(&self) -> NameKey {
        self.slot_key
    }

    /// Orders something.
    ///
    /// # Errors
    /// The order comes back while `LOG_ORDERS_MAX` others wait.
    pub fn order(&self, order: LogOrder) -> Result<(), LogOrder> {
        self.queues.orders.push(order)?;
        self.log.notify_one();
        Ok(())
    }

    /// Has new entries written in a version that every node of the cluster reads.
    pub fn write_version(&self, version: u8) {
        self.queues.version.store(version, Ordering::Relaxed);
    }

    /// The next word of the log. `None`: none waits.
    #[must_use]
    pub fn next_news(&self) -> Option<LogNews> {
        self.queues.news.pop()
    }

    /// Waits until a word may be there.
    pub async fn news_came(&self) {
        self.queues.told.notified().await;
    }
}

/// The log's end of the way.
#[derive(Debug)]
pub(super) struct WayToCluster {
    queues: Arc<LogQueues>,
    /// The last words of each slot that found no place, until they find one. True: a claim, which hides no fence
    /// before it.
    late: BTreeMap<(Slot, bool), LogNews>,
}

impl WayToCluster {
    /// Both ends. `log` wakes the log's thread.
    pub(super) fn pair(log: Arc<Notify>, slot_key: NameKey) -> (Self, LogWay) {
        let queues = Arc::new(LogQueues {
            orders: ArrayQueue::new(LOG_ORDERS_MAX),
            news: ArrayQueue::new(LOG_NEWS_MAX),
            told: Notify::new(),
            version: AtomicU8::new(NODE_VERSION_OLDEST),
        });
        let way = LogWay { queues: Arc::clone(&queues), log, slot_key };
        (Self { queues, late: BTreeMap::new() }, way)
    }

    /// The version of new entries.
    pub(super) fn version(&self) -> u8 {
        self.queues.version.load(Ordering::Relaxed)
    }

    pub(super) fn next_order(&self) -> Option<LogOrder> {
        self.queues.orders.pop()
    }

    /// Tells the cluster. A word behind a full queue waits in place of the slot's former words: the last one says how
    /// the slot stands.
    pub(super) fn tell(&mut self, news: LogNews) {
        let slot = news.slot();
        let is_late = self.late.range((slot, false)..=(slot, true)).next().is_some();
        let told = if is_late { Err(news) } else { self.queues.news.push(news) };
        match told {
            Ok(()) => self.queues.told.notify_one(),
            // The next append proves as much.
            Err(LogNews::Proven { .. }) => {}
            Err(news @ LogNews::Claimed { .. }) => drop(self.late.insert((slot, true), news)),
            Err(news @ LogNews::Fenced { .. }) => {
                self.late.remove(&(slot, true));
                self.late.insert((slot, false), news);
            }
        }
    }

    /// Tells words that found no place.
    pub(super) fn tell_late(&mut self) {
        while !self.queues.news.is_full()
            && let Some((_, news)) = self.late.pop_first()
        {
            // The log alone pushes, so the place is still there.
            if self.queues.news.push(news).is_ok() {
                self.queues.told.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_core::cluster::Term;

    fn claimed(slot: u8, sequence: u64) -> LogNews {
        LogNews::Claimed { slot: Slot(slot), term: Term { generation: 0, sequence }, behind: Term::default() }
    }

    fn fenced(slot: u8, sequence: u64) -> LogNews {
        LogNews::Fenced { slot: Slot(slot), by: Term { generation: 0, sequence }, node: "b".to_owned() }
    }

    #[test]
    fn the_last_word_of_each_slot_is_never_lost() {
        let (mut log, cluster) = WayToCluster::pair(Arc::new(Notify::new()), NameKey::default());
        for sequence in 0..LOG_NEWS_MAX as u64 {
            log.tell(claimed(1, sequence));
        }
        log.tell(claimed(2, 7));
        log.tell(LogNews::Proven { slot: Slot(3), sent: crate::clock::now().instant });
        log.tell(claimed(2, 8));
        log.tell(claimed(4, 4));
        for _ in 0..LOG_NEWS_MAX {
            assert!(cluster.next_news().is_some());
        }
        log.tell(fenced(2, 9));
        log.tell(claimed(2, 10));
        log.tell(claimed(2, 11));
        log.tell(fenced(4, 5));
        log.tell_late();
        let told: Vec<_> = std::iter::from_fn(|| cluster.next_news()).collect();
        // Who hears of the claim alone would go on with the rooms from before the fence.
        assert_eq!(told, [fenced(2, 9), claimed(2, 11), fenced(4, 5)]);
    }
}
