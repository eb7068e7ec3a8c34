//! The world's disk: the engine's own writer over a store in memory. The store fails, fills up and heals as
//! drawn. A copy of every stored message is kept for the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use roomcast::store::memory::Memory;
use roomcast::store::{Append, Page, Purged, Store, StoreError, StoreHoldings, Stored};
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
    /// A load or a page.
    Read,
    /// The next call of any sort.
    Any,
}

/// A stored message.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) message: Arc<Message>,
    /// The latest wall-clock time seen up to the append, in ms.
    pub(crate) wall_max: u64,
    /// The offset of the recall. 0: not recalled.
    pub(crate) recalled_by: u64,
}

/// The content of the disk, which survives a crash, and its present faults.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) memory: Memory,
    pub(crate) now: Now,
    /// The latest wall-clock time seen so far, in ms.
    pub(crate) wall_max: u64,
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
            wall_max: now.unix_ms,
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
        self.wall_max = self.wall_max.max(now.unix_ms);
    }

    /// Ends every fault.
    pub(crate) fn heal(&mut self) {
        self.fault = None;
        self.full = false;
        self.heals_at = self.now.instant;
    }

    /// The node starts over the same disk.
    pub(crate) fn start(&mut self) {
        self.failing = false;
    }

    /// The stored epoch of a room's stream.
    pub(crate) fn epoch(&mut self, room: &RoomName) -> Option<Epoch> {
        self.memory.load(room).expect("memory never fails").map(|stored| stored.epoch)
    }

    /// Every message ever stored in one life of a room's stream.
    pub(crate) fn of(&self, room: &str, epoch: u64) -> &[Written] {
        self.written.get(&(room.to_owned(), epoch)).map_or(&[], Vec::as_slice)
    }

    /// True if the message is not recalled, and not expired at any wall-clock time seen so far.
    pub(crate) fn is_surely_alive(&self, written: &Written) -> bool {
        written.recalled_by == 0 && written.message.expires_ms() > self.wall_max
    }

    fn fails(&mut self, faults: &[Fault]) -> Result<(), StoreError> {
        if self.fault.is_some_and(|fault| faults.contains(&fault)) {
            self.fault = None;
            self.failing = true;
        }
        if self.failing { Err(StoreError::Failing) } else { Ok(()) }
    }

    fn note(&mut self, append: &Append) {
        let wall_max = self.wall_max;
        let stream = self.written.entry((append.room.to_string(), append.epoch.0)).or_default();
        for message in &append.messages {
            assert_eq!(message.offset, stream.len() as u64 + 1, "offsets are given out once");
            if let Some(at) = message.recall.checked_sub(1) {
                let recalled = &mut stream[usize::try_from(at).unwrap()];
                assert_eq!(recalled.recalled_by, 0, "a message is recalled once");
                recalled.recalled_by = message.offset;
            }
            stream.push(Written { message: Arc::clone(message), wall_max, recalled_by: 0 });
        }
    }
}

impl Store for SimStore {
    fn load(&mut self, room: &RoomName) -> Result<Option<Stored>, StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::Read, Fault::Any])?;
        disk.memory.load(room)
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::Read, Fault::Any])?;
        disk.memory.page(room, after, bytes_max)
    }

    fn append(&mut self, appends: &[Append]) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::AppendBefore, Fault::Any])?;
        if disk.full {
            return Ok(vec![Err(StoreError::Full); appends.len()]);
        }
        let outcomes = disk.memory.append(appends)?;
        for (append, outcome) in appends.iter().zip(&outcomes) {
            if outcome.is_ok() {
                disk.note(append);
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

    fn purge(&mut self, now_ms: u64, rows_max: usize) -> Result<Purged, StoreError> {
        let mut disk = self.disk();
        disk.fails(&[Fault::Any])?;
        disk.memory.purge(now_ms, rows_max)
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
