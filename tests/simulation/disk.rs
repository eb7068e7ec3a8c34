//! The world's disk: the engine's own writer over a store in memory. The store fails, fills up and heals as
//! drawn. A copy of every stored message is kept for the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use roomcast::store::memory::Memory;
use roomcast::store::time::{Stamp, StoreNow};
use roomcast::store::{Append, Page, Purged, ReadError, Reader, Store, StoreError, StoreHoldings, Stored};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;

/// The call that fails next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An append that stores nothing.
    AppendBefore,
    /// An append that stores everything.
    AppendAfter,
    /// A load or a page. The store goes on.
    Read,
    /// The next call of any sort.
    Any,
}

/// A stored message.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) message: Arc<Message>,
    pub(crate) accepted: Instant,
    /// The drift of the disk at the append.
    drift: Drift,
    /// The offset of the recall. 0: not recalled.
    pub(crate) recalled_by: u64,
}

/// The distance of the store's clock to the true time, because the wall clock stepped before a restart and
/// behind the last commit.
#[derive(Debug, Clone, Copy, Default)]
struct Drift {
    /// Time by which messages may expire too early.
    early: Duration,
    /// Time by which messages may expire too late.
    late: Duration,
}

/// The inaccuracy of a restart: both clocks are stored in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(3);

/// The content of the disk, which survives a crash, and its present faults.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) memory: Memory,
    pub(crate) now: Now,
    /// The time of the last commit.
    stamped_at: Instant,
    drift: Drift,
    /// Room -> the time up to which its reads fail.
    pub(crate) unreadable: BTreeMap<RoomName, Instant>,
    /// Reads of unreadable rooms.
    pub(crate) reads_failed: u64,
    /// Writes that failed.
    pub(crate) writes_failed: u64,
    pub(crate) fault: Option<Fault>,
    /// The first moment at which a failed store can be opened again.
    pub(crate) heals_at: Instant,
    pub(crate) full: bool,
    failing: bool,
    /// Room and epoch -> every message ever stored, by rising offset.
    pub(crate) written: BTreeMap<(String, u64), Vec<Written>>,
    /// Room and epoch of the streams that a publisher has ended.
    pub(crate) forgotten: BTreeSet<(String, u64)>,
}

/// The writer's store: a handle to the disk.
#[derive(Debug, Clone)]
pub(crate) struct SimStore(Arc<Mutex<Disk>>);

impl SimStore {
    pub(crate) fn new(now: Now) -> Self {
        let disk = Disk {
            memory: Memory::default(),
            now,
            stamped_at: now.instant,
            drift: Drift::default(),
            unreadable: BTreeMap::new(),
            reads_failed: 0,
            writes_failed: 0,
            fault: None,
            heals_at: now.instant,
            full: false,
            failing: false,
            written: BTreeMap::new(),
            forgotten: BTreeSet::new(),
        };
        Self(Arc::new(Mutex::new(disk)))
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl Disk {
    pub(crate) fn pass_to(&mut self, now: Now) {
        self.now = now;
    }

    /// Ends every fault.
    pub(crate) fn heal(&mut self) {
        self.fault = None;
        self.full = false;
        self.unreadable.clear();
        self.heals_at = self.now.instant;
    }

    /// The node starts over the same disk.
    pub(crate) fn start(&mut self) {
        self.failing = false;
        let Some(stamp) = self.memory.stamp() else { return };
        let counted = Duration::from_millis(self.now.unix_ms.saturating_sub(stamp.wall_ms));
        let passed = self.now.instant - self.stamped_at;
        self.drift.early += counted.saturating_sub(passed) + ROUNDING;
        self.drift.late += passed.saturating_sub(counted) + ROUNDING;
    }

    /// The stored epoch of a room's stream.
    pub(crate) fn epoch(&mut self, room: &RoomName) -> Option<Epoch> {
        let now = StoreNow { instant: self.now.instant, stamp: Stamp::default(), noted: Stamp::default() };
        self.memory.load(room, 0, now).expect("memory never fails").map(|stored| stored.epoch)
    }

    /// Every message ever stored in one life of a room's stream.
    pub(crate) fn of(&self, room: &str, epoch: u64) -> &[Written] {
        self.written.get(&(room.to_owned(), epoch)).map_or(&[], Vec::as_slice)
    }

    /// True if the message is not recalled, and has not expired on any clock.
    pub(crate) fn is_surely_alive(&self, written: &Written) -> bool {
        written.recalled_by == 0 && !self.may_be_older_than(written, self.now.instant, written.message.ttl)
    }

    /// True if the message may be as old as `age` at a moment, whatever the wall clock did.
    pub(crate) fn may_be_older_than(&self, written: &Written, at: Instant, age: Duration) -> bool {
        let early = self.drift.early - written.drift.early;
        at.saturating_duration_since(written.accepted) + early + ROUNDING >= age
    }

    /// True if the message had expired at a moment, whatever the wall clock did.
    pub(crate) fn was_surely_expired(&self, written: &Written, at: Instant) -> bool {
        let late = self.drift.late - written.drift.late;
        at.saturating_duration_since(written.accepted) > written.message.ttl + late + ROUNDING
    }

    /// A write fails, and all after it until a reopening.
    fn fails(&mut self, faults: &[Fault]) -> Result<(), StoreError> {
        if self.fault.is_some_and(|fault| faults.contains(&fault)) {
            self.fault = None;
            self.failing = true;
        }
        self.writes_failed += u64::from(self.failing);
        if self.failing { Err(StoreError::Failing) } else { Ok(()) }
    }

    /// A read fails alone.
    fn read_fails(&mut self, room: &RoomName) -> Result<(), StoreError> {
        if self.fault.take_if(|fault| matches!(fault, Fault::Read | Fault::Any)).is_some() {
            return Err(StoreError::Failing);
        }
        let is_unreadable = self.unreadable.get(room).is_some_and(|until| *until > self.now.instant);
        self.reads_failed += u64::from(is_unreadable);
        if self.failing || is_unreadable { Err(StoreError::Failing) } else { Ok(()) }
    }

    fn committed(&mut self) {
        self.stamped_at = self.now.instant;
    }

    fn note(&mut self, append: &Append) {
        let drift = self.drift;
        let accepted = append.accepted;
        let stream = self.written.entry((append.room.to_string(), append.epoch.0)).or_default();
        for message in &append.messages {
            assert_eq!(message.offset, stream.len() as u64 + 1, "offsets are given out once");
            if let Some(at) = message.recall.checked_sub(1) {
                let recalled = &mut stream[usize::try_from(at).unwrap()];
                assert_eq!(recalled.recalled_by, 0, "a message is recalled once");
                recalled.recalled_by = message.offset;
            }
            stream.push(Written { message: Arc::clone(message), accepted, drift, recalled_by: 0 });
        }
    }
}

impl SimStore {
    /// A read beside the writer. It meets a closed store where the writer would fail.
    fn read_beside<T>(
        &self,
        room: &RoomName,
        read: impl FnOnce(&mut Memory) -> Result<T, StoreError>,
    ) -> Result<T, ReadError> {
        let mut disk = self.disk();
        if disk.failing {
            return Err(ReadError::Closed);
        }
        disk.read_fails(room).map_err(|_| ReadError::Failed("as the world drew it".into()))?;
        Ok(read(&mut disk.memory).expect("memory never fails"))
    }
}

impl Reader for SimStore {
    fn load(&self, room: &RoomName, whole_after: u64, now: StoreNow) -> Result<Option<Stored>, ReadError> {
        self.read_beside(room, |memory| memory.load(room, whole_after, now))
    }

    fn page(&self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, ReadError> {
        self.read_beside(room, |memory| memory.page(room, after, bytes_max))
    }
}

impl Store for SimStore {
    fn load(
        &mut self,
        room: &RoomName,
        whole_after: u64,
        now: StoreNow,
    ) -> Result<Option<Stored>, StoreError> {
        let mut disk = self.disk();
        disk.read_fails(room)?;
        disk.memory.load(room, whole_after, now)
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        let mut disk = self.disk();
        disk.read_fails(room)?;
        disk.memory.page(room, after, bytes_max)
    }

    fn append(
        &mut self,
        appends: &[Append],
        now: StoreNow,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::AppendBefore, Fault::Any])?;
        if disk.full {
            return Ok(vec![Err(StoreError::Full); appends.len()]);
        }
        let outcomes = disk.memory.append(appends, now)?;
        for (append, outcome) in appends.iter().zip(&outcomes) {
            if outcome.is_ok() {
                disk.note(append);
                disk.committed();
            }
        }
        disk.fails(&[Fault::AppendAfter])?;
        Ok(outcomes)
    }

    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::AppendBefore, Fault::Any])?;
        if let Some(epoch) = disk.epoch(room) {
            disk.forgotten.insert((room.to_string(), epoch.0));
        }
        disk.memory.forget(room)
    }

    fn purge(&mut self, now: StoreNow, rows_max: usize) -> Result<Purged, StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::Any])?;
        let purged = disk.memory.purge(now, rows_max)?;
        if purged.looked_at > 0 {
            disk.committed();
        }
        Ok(purged)
    }

    fn prove(&mut self, now: StoreNow, bytes: usize) -> Result<(), StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::AppendBefore, Fault::Any])?;
        disk.committed();
        disk.memory.prove(now, bytes)
    }

    fn stamp(&self) -> Option<Stamp> {
        self.disk().memory.stamp()
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(Arc::new(self.clone()))
    }

    fn is_open(&self) -> bool {
        !self.disk().failing
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let mut disk = self.disk();
        disk.failing &= disk.now.instant < disk.heals_at;
        if disk.failing { Err(StoreError::Failing) } else { Ok(()) }
    }

    fn holdings(&self) -> StoreHoldings {
        self.disk().memory.holdings()
    }

    fn trouble(&self) -> &'static str {
        "as the world drew it"
    }
}
