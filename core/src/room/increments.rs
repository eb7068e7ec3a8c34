//! Counter messages before the next batch, by type, for the account.

use std::collections::BTreeMap;
use std::time::Instant;

use super::id::TypeName;
use super::ladder::{COUNTERS_INTERVAL, Step};

/// The counter messages of a room before their batch.
#[derive(Debug, Default)]
pub(super) struct Increments {
    /// Type -> waiting counter messages.
    by_type: BTreeMap<TypeName, u64>,
    /// The arrival of the oldest; `None` exactly when nothing waits.
    since: Option<Instant>,
    /// The last batch with a change of counters.
    told_at: Option<Instant>,
}

/// The counter messages of one batch.
#[derive(Debug)]
pub(super) struct ToldIncrements {
    pub(super) by_type: BTreeMap<TypeName, u64>,
    pub(super) since: Instant,
}

impl Increments {
    pub(super) fn add(&mut self, type_name: &TypeName, now: Instant) {
        self.since.get_or_insert(now);
        // No `entry`: the name would be cloned for each like.
        match self.by_type.get_mut(type_name) {
            Some(waiting) => *waiting += 1,
            None => _ = self.by_type.insert(type_name.clone(), 1),
        }
    }

    /// The arrival of the oldest waiting message.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    pub(super) fn sum(&self) -> u64 {
        self.by_type.values().sum()
    }

    pub(super) fn of_type(&self, type_name: &TypeName) -> u64 {
        self.by_type.get(type_name).copied().unwrap_or(0)
    }

    /// The moment up to which the ladder holds counters back; `None`: counters leave with the next batch.
    pub(super) fn held_until(&self, step: Step) -> Option<Instant> {
        let told_at = self.told_at.filter(|_| step >= Step::CountersSlow)?;
        Some(told_at + COUNTERS_INTERVAL)
    }

    /// Gives up all waiting messages; `None` if nothing waits.
    pub(super) fn take(&mut self) -> Option<ToldIncrements> {
        let since = self.since.take()?;
        Some(ToldIncrements { by_type: std::mem::take(&mut self.by_type), since })
    }

    /// A batch changed a counter.
    pub(super) fn told(&mut self, now: Instant) {
        self.told_at = Some(now);
    }
}
