//! The store's numbers and troubles, for `/readyz`, metrics and logs. The writer and the readers write; any
//! thread reads.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use roomcast_core::cluster::Slot;
use roomcast_core::limits::STORE_READERS;
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

use super::StoreHoldings;
use super::aside::{Aside, RoomAside, RoomCall, Standing};

/// The state of the store, shared between the writer and the readers. A read never waits for the disk.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tally: StoreTally,
    /// The slots of a log whose last operation failed or had no answer, rising.
    slots_troubled: Vec<Slot>,
    trouble: Option<Trouble>,
    aside: Aside,
    /// The start of the call under way of each thread: the writer's first.
    calls_began: [Option<Instant>; 1 + STORE_READERS],
}

/// The place of the writer in the list of calls. The readers have the places behind.
pub(super) const WRITER: usize = 0;

/// A trouble of the store, from the first failure to the first write and sync after a reopening.
///
/// A store on a full disk can be opened, and fails at the next write, again and again. All of these failures
/// are a single trouble. Without messages to store, the writer writes a proof.
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
    /// Failed reads of rooms, apart from `failures`.
    pub reads_failed: u64,
    /// Failed writes of a room alone, apart from `failures`.
    pub writes_failed: u64,
    /// Rooms put aside now.
    pub rooms_aside: u64,
    /// The slots, for a store on JetStream.
    pub log: LogTally,
}

/// The slots of a log, and the counts of their claims since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogTally {
    /// Slots that this node holds now.
    pub held: u64,
    /// Slots that this node claims now.
    pub claiming: u64,
    /// Claims that the cluster ordered.
    pub claims_ordered: u64,
    /// Claims of the log's own, after an append of unknown outcome.
    pub claims_reopened: u64,
    /// Slots lost to another node's claim.
    pub fenced: u64,
    /// Records of an older term behind a newer claim. Above 0: the fence has failed.
    pub out_of_term: u64,
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

    /// The time since the oldest call under way began, or zero without a call. A hanging disk shows here
    /// alone: its call neither fails nor ends.
    #[must_use]
    pub fn under_way(&self, now: Now) -> Duration {
        let oldest = self.state.lock().calls_began.into_iter().flatten().min();
        oldest.map_or(Duration::ZERO, |began| now.instant.saturating_duration_since(began))
    }

    /// The rooms that are put aside, in order of name: the first `STORE_ASIDE_LISTED_MAX`. The tally has their
    /// number.
    #[must_use]
    pub fn rooms_aside(&self) -> Vec<RoomAside> {
        self.state.lock().aside.rooms()
    }

    /// The slots of a log whose last operation failed or had no answer, rising. As of the log's last look.
    #[must_use]
    pub fn slots_troubled(&self) -> Vec<Slot> {
        self.state.lock().slots_troubled.clone()
    }

    /// The counts so far.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        let state = self.state.lock();
        StoreTally { rooms_aside: state.aside.count() as u64, ..state.tally }
    }

    pub(super) fn call_begins(&self, thread: usize, now: Now) {
        self.state.lock().calls_began[thread] = Some(now.instant);
    }

    /// Notes the end of a call, successful or not. The readers know nothing of the holdings.
    pub(super) fn call_ended(&self, thread: usize, holdings: Option<StoreHoldings>) {
        let mut state = self.state.lock();
        state.calls_began[thread] = None;
        if let Some(holdings) = holdings {
            state.tally.bytes = holdings.bytes;
            state.tally.quarantined = holdings.quarantined;
        }
    }

    pub(super) fn standing(&self, room: &RoomName, call: RoomCall, now: Now) -> Standing {
        self.state.lock().aside.standing(room, call, now.instant)
    }

    /// The standing of each room before a write, in order.
    pub(super) fn standings<'a>(&self, rooms: impl Iterator<Item = &'a RoomName>, now: Now) -> Vec<Standing> {
        let state = self.state.lock();
        rooms.map(|room| state.aside.standing(room, RoomCall::Write, now.instant)).collect()
    }

    /// Notes a failed call of a room. The store and all other rooms go on.
    pub(super) fn room_failed(&self, room: &RoomName, call: RoomCall, why: &str, now: Now) {
        let is_put_aside = {
            let mut state = self.state.lock();
            match call {
                RoomCall::Load | RoomCall::Page => state.tally.reads_failed += 1,
                RoomCall::Write => state.tally.writes_failed += 1,
            }
            state.aside.failed(room, call, why, now)
        };
        if !is_put_aside {
            tracing::debug!(%room, ?call, why, "a call for a room's stream failed");
        } else if call == RoomCall::Write {
            tracing::error!(%room, why, "a room's stream can't be written: the room is put aside, the others go on");
        } else {
            tracing::error!(%room, why, "a room's stream can't be read: the room is put aside, the others go on");
        }
    }

    /// Notes a call of a room that succeeded.
    pub(super) fn room_succeeded(&self, room: &RoomName, call: RoomCall) {
        if self.state.lock().aside.succeeded(room, call) {
            tracing::info!(%room, ?call, "the room's stream is well again");
        }
    }

    /// Notes the rooms of a commit that succeeded.
    pub(super) fn rooms_written<'a>(&self, rooms: impl Iterator<Item = &'a RoomName>) {
        let mut state = self.state.lock();
        for room in rooms {
            if state.aside.succeeded(room, RoomCall::Write) {
                tracing::info!(%room, "the room's stream can be written again");
            }
        }
    }

    /// Lets go of rooms aside that nobody has asked for since.
    pub(super) fn forget_old(&self, now: Now) {
        self.state.lock().aside.forget_old(now.instant);
    }

    pub(super) fn committed(&self, messages: usize, took: Duration, now: Now) {
        self.healed(now);
        self.counted(messages, took);
    }

    /// Counts a commit. The trouble of one slot is not over because another one is well.
    pub(super) fn counted(&self, messages: usize, took: Duration) {
        let tally = &mut self.state.lock().tally;
        tally.commits += 1;
        tally.commit_time += took;
        tally.messages += messages as u64;
    }

    /// Notes the sizes and the slots of a log.
    pub(super) fn holds(&self, holdings: StoreHoldings, log: LogTally, slots_troubled: Vec<Slot>) {
        let mut state = self.state.lock();
        state.tally.bytes = holdings.bytes;
        state.tally.quarantined = holdings.quarantined;
        state.tally.log = log;
        state.slots_troubled = slots_troubled;
    }

    pub(super) fn purged(&self, rows: usize) {
        self.state.lock().tally.purged += rows as u64;
    }

    /// Notes a failed purge that met damage: nobody waits for a purge, so the store is well all the same.
    pub(super) fn purge_failed(&self, why: &str) {
        self.state.lock().tally.failures += 1;
        tracing::warn!(why, "a purge met damage: it is tried again with fewer rows");
    }

    pub(super) fn failed(&self, why: &str, now: Now) {
        let was_well = {
            let mut state = self.state.lock();
            state.tally.failures += 1;
            let since = state.trouble.as_ref().map_or(now, |trouble| trouble.since);
            state.trouble.replace(Trouble { since, why: why.to_owned() }).is_none()
        };
        if was_well {
            // Outside the lock, and once for each trouble: a full disk would otherwise fill the log as well.
            tracing::warn!(why, "the store fails: reliable messages are refused until it is well");
        }
    }

    pub(super) fn reopened(&self) {
        self.state.lock().tally.reopenings += 1;
    }

    /// Ends the trouble: a write was synced.
    pub(super) fn healed(&self, now: Now) {
        let trouble = self.state.lock().trouble.take();
        if let Some(trouble) = trouble {
            let failed_for = now.instant.saturating_duration_since(trouble.since.instant);
            tracing::info!(?failed_for, "the store is well again");
        }
    }
}
