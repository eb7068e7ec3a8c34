//! How the store fares: for `/readyz`, metrics and logs. Written by the writer alone, read by anybody at any time.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use roomcast_core::limits::STORE_HEALED_AFTER;
use roomcast_core::now::Now;

use super::Holdings;

/// Shared between the writer and those who ask. Reading never waits for the disk.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    commits: AtomicU64,
    commit_nanos: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    reopenings: AtomicU64,
    quarantined: AtomicU64,
    purged: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<Trouble>,
    /// When it was opened anew, while it is not known whether it is well.
    reopened: Option<Instant>,
    /// When the call under way began.
    call_began: Option<Instant>,
}

/// Why and since when the store fails. On a full disk it can be opened, and fails at the next write, again and again: that is one
/// trouble, so it ends with a write, or after `STORE_HEALED_AFTER` without any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When it failed first.
    pub since: Now,
    /// What the last try said.
    pub why: String,
}

/// What the store has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreTally {
    /// Commits of messages.
    pub commits: u64,
    /// How long they took together, syncs included.
    pub commit_time: Duration,
    /// Messages made durable.
    pub messages: u64,
    /// Bytes it holds, rows and their keys.
    pub bytes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Times it was opened anew.
    pub reopenings: u64,
    /// Rows and entries that were found damaged.
    pub quarantined: u64,
    /// Rows removed because their time had passed.
    pub purged: u64,
}

impl Health {
    pub(super) fn new(holdings: Holdings) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            state: Mutex::default(),
            commits: zero(),
            commit_nanos: zero(),
            messages: zero(),
            bytes: AtomicU64::new(holdings.bytes),
            failures: zero(),
            reopenings: zero(),
            quarantined: AtomicU64::new(holdings.quarantined),
            purged: zero(),
        }
    }

    /// Why and since when it fails; `None`: it is well.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.state().trouble.clone()
    }

    /// How long the call under way takes already; zero: there is none. A disk that hangs shows here alone.
    #[must_use]
    pub fn under_way(&self, now: Now) -> Duration {
        self.state().call_began.map_or(Duration::ZERO, |began| now.instant.saturating_duration_since(began))
    }

    /// What it has done so far.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        StoreTally {
            commits: self.commits.load(Relaxed),
            commit_time: Duration::from_nanos(self.commit_nanos.load(Relaxed)),
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            failures: self.failures.load(Relaxed),
            reopenings: self.reopenings.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            purged: self.purged.load(Relaxed),
        }
    }

    pub(super) fn call_begins(&self, now: Now) {
        self.state().call_began = Some(now.instant);
    }

    /// A call ended, well or not.
    pub(super) fn call_ended(&self, holdings: Holdings) {
        self.state().call_began = None;
        self.bytes.store(holdings.bytes, Relaxed);
        self.quarantined.store(holdings.quarantined, Relaxed);
    }

    pub(super) fn committed(&self, messages: usize, took: Duration, now: Now) {
        self.healed(now);
        self.commits.fetch_add(1, Relaxed);
        self.commit_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.messages.fetch_add(messages as u64, Relaxed);
    }

    pub(super) fn purged(&self, rows: usize) {
        self.purged.fetch_add(rows as u64, Relaxed);
    }

    pub(super) fn failed(&self, why: &str, now: Now) {
        self.failures.fetch_add(1, Relaxed);
        let was_well = {
            let mut state = self.state();
            state.reopened = None;
            let since = state.trouble.as_ref().map_or(now, |trouble| trouble.since);
            state.trouble.replace(Trouble { since, why: why.to_owned() }).is_none()
        };
        if was_well {
            tracing::warn!(why, "the store fails: reliable messages are refused until it is well");
        }
    }

    pub(super) fn reopened(&self, now: Now) {
        self.reopenings.fetch_add(1, Relaxed);
        self.state().reopened = Some(now.instant);
    }

    /// Nothing fails. Where nothing is written either, that has to go on for a while.
    pub(super) fn heal_in_time(&self, now: Now) {
        let reopened = self.state().reopened;
        if reopened.is_some_and(|reopened| reopened + STORE_HEALED_AFTER <= now.instant) {
            self.healed(now);
        }
    }

    fn healed(&self, now: Now) {
        let trouble = {
            let mut state = self.state();
            state.reopened = None;
            state.trouble.take()
        };
        if let Some(trouble) = trouble {
            let failed_for = now.instant.saturating_duration_since(trouble.since.instant);
            tracing::info!(?failed_for, "the store is well again");
        }
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }
}
