//! The running store, as the server holds it: a file or memory with its threads, or the log's thread.

use std::sync::Arc;

use super::health::Health;
use super::jetstream::LogThread;
use super::port::Port;
use super::writer::StoreThreads;

/// The running store. Dropping the handle stores and answers every sent request, and then stops the threads.
/// Before a file the drop waits as long as the disk takes, before JetStream for `LOG_STOP_AGE_MAX`.
#[derive(Debug)]
pub struct StoreHandle {
    /// A port for each shard, in the order of the wakes.
    pub ports: Vec<Port>,
    /// The numbers and troubles of the store.
    pub health: Arc<Health>,
    running: RunningStore,
}

/// The threads of a store.
#[derive(Debug)]
pub(super) enum RunningStore {
    /// A file, or memory.
    Writer(StoreThreads),
    /// JetStream.
    Log(LogThread),
}

impl StoreHandle {
    pub(super) fn new(ports: Vec<Port>, health: Arc<Health>, running: RunningStore) -> Self {
        Self { ports, health, running }
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        match &mut self.running {
            RunningStore::Writer(threads) => threads.stop(),
            RunningStore::Log(thread) => thread.stop(),
        }
    }
}
