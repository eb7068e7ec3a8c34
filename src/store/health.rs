//! The store's numbers and troubles, for `/readyz`, metrics and logs. The writer alone writes; any thread
//! reads.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use roomcast_core::limits::STORE_HEALED_AFTER;
use roomcast_core::now::Now;

use super::StoreHoldings;

/// The state of the store, shared between the writer and the readers. A read never waits for the disk.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tally: StoreTally,
    trouble: Option<Trouble>,
    /// The time of the last reopening, until a write or `STORE_HEALED_AFTER` shows that the store is well.
    reopened: Option<Instant>,
    /// The start of the call under way.
    call_began: Option<Instant>,
}

/// A trouble of the store, from the first failure to the first write after a reopening.
///
/// A store on a full disk can be opened, and fails at the next write, again and again. All of these failures
/// are a single trouble. Without writes, a trouble ends `STORE_HEALED_AFTER` after the reopening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The time of the first failure.
    pub since: Now,
    /// The error of the last failure.
    pub why: String,
}

/// The counts of the store since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreTally {
    /// Commits of messages.
    pub commits: u64,
    /// The total time of all commits, syncs included.
    pub commit_time: Duration,
    /// Messages made durable.
    pub messages: u64,
    /// Bytes of all rows and their keys.
    pub bytes: u64,
    /// Failed calls.
    pub failures: u64,
    /// Successful reopenings.
    pub reopenings: u64,
    /// Rows and entries found damaged.
    pub quarantined: u64,
    /// Expired rows removed.
    pub purged: u64,
}

impl Health {
    pub(super) fn new(holdings: StoreHoldings) -> Self {
        let StoreHoldings { bytes, quarantined } = holdings;
        let tally = StoreTally { bytes, quarantined, ..StoreTally::default() };
        Self { state: Mutex::new(State { tally, ..State::default() }) }
    }

    /// The trouble of the store. `None` while the store is well.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.state.lock().trouble.clone()
    }

    /// The time since the call under way began, or zero without a call. A hanging disk shows here alone: its
    /// call neither fails nor ends.
    #[must_use]
    pub fn under_way(&self, now: Now) -> Duration {
        self.state
            .lock()
            .call_began
            .map_or(Duration::ZERO, |began| now.instant.saturating_duration_since(began))
    }

    /// The counts so far.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        self.state.lock().tally
    }

    pub(super) fn call_begins(&self, now: Now) {
        self.state.lock().call_began = Some(now.instant);
    }

    /// Notes the end of a call, successful or not.
    pub(super) fn call_ended(&self, holdings: StoreHoldings) {
        let mut state = self.state.lock();
        state.call_began = None;
        state.tally.bytes = holdings.bytes;
        state.tally.quarantined = holdings.quarantined;
    }

    pub(super) fn committed(&self, messages: usize, took: Duration, now: Now) {
        self.healed(now);
        let tally = &mut self.state.lock().tally;
        tally.commits += 1;
        tally.commit_time += took;
        tally.messages += messages as u64;
    }

    pub(super) fn purged(&self, rows: usize) {
        self.state.lock().tally.purged += rows as u64;
    }

    pub(super) fn failed(&self, why: &str, now: Now) {
        let was_well = {
            let mut state = self.state.lock();
            state.tally.failures += 1;
            state.reopened = None;
            let since = state.trouble.as_ref().map_or(now, |trouble| trouble.since);
            state.trouble.replace(Trouble { since, why: why.to_owned() }).is_none()
        };
        if was_well {
            // Outside the lock, and once for each trouble: a full disk would otherwise fill the log as well.
            tracing::warn!(why, "the store fails: reliable messages are refused until it is well");
        }
    }

    pub(super) fn reopened(&self, now: Now) {
        let mut state = self.state.lock();
        state.tally.reopenings += 1;
        state.reopened = Some(now.instant);
    }

    /// Ends a trouble without writes, `STORE_HEALED_AFTER` after the reopening.
    pub(super) fn heal_in_time(&self, now: Now) {
        let reopened = self.state.lock().reopened;
        if reopened.is_some_and(|reopened| reopened + STORE_HEALED_AFTER <= now.instant) {
            self.healed(now);
        }
    }

    fn healed(&self, now: Now) {
        let trouble = {
            let mut state = self.state.lock();
            state.reopened = None;
            state.trouble.take()
        };
        if let Some(trouble) = trouble {
            let failed_for = now.instant.saturating_duration_since(trouble.since.instant);
            tracing::info!(?failed_for, "the store is well again");
        }
    }
}
