//! A disk in memory under redb. The disk remembers the writes between syncs, and fails or loses power when
//! told. Like a kernel, it counts the pages of a failed sync as clean.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use redb::{Builder, StorageBackend};
use roomcast::store::redb::{OpenBackend, OpenError, Redb};

/// The failing calls, counted over all writes and syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The first failing call. 0: the next call.
    pub(crate) after: usize,
    /// The number of failing calls from there on.
    pub(crate) times: usize,
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// `EIO`. A failing write writes its first half.
    Io,
    /// `ENOSPC`. A failing write writes nothing.
    Full,
    /// The call returns only after a thaw, and fails then.
    Freeze,
    /// The same, for syncs alone.
    FreezeSync,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
    Sync,
}

#[derive(Debug, Default)]
struct State {
    /// The kernel's cache: the content that reads see.
    cache: Vec<u8>,
    /// The content that survives a loss of power.
    synced: Vec<u8>,
    /// Writes since the last sync. A failed sync forgets them.
    dirty: Vec<Op>,
    /// All writes and syncs since the recording began.
    log: Option<Vec<Op>>,
    fault: Option<Fault>,
    /// Writes and syncs so far.
    steps: usize,
    frozen: bool,
    thawed: bool,
    /// Reads of these bytes fail with `EIO`.
    unreadable: Option<Range<usize>>,
}

/// A disk shared by all its handles.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    /// Notified at each freeze and thaw.
    changed: Arc<Condvar>,
}

impl Disk {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().synced.clone_from(&bytes);
        disk.state().cache = bytes;
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn opener(&self) -> OpenBackend {
        let disk = self.clone();
        Box::new(move |builder: &Builder| builder.create_with_backend(disk.clone()))
    }

    pub(crate) fn store(&self) -> Result<Redb, OpenError> {
        Redb::over(self.opener(), u64::MAX)
    }

    /// A store that keeps no page in memory, so that each read sees the disk.
    pub(crate) fn store_without_cache(&self) -> Result<Redb, OpenError> {
        let disk = self.clone();
        let open: OpenBackend = Box::new(move |_: &Builder| {
            let mut builder = Builder::new();
            builder.set_cache_size(0).create_with_backend(disk.clone())
        });
        Redb::over(open, u64::MAX)
    }

    /// Turns bits of one byte under an open store.
    pub(crate) fn turn(&self, place: usize, bits: u8) {
        let mut state = self.state();
        state.cache[place] ^= bits;
        state.synced[place] ^= bits;
    }

    /// Has reads of these bytes fail.
    pub(crate) fn fail_reads(&self, bytes: Option<Range<usize>>) {
        self.state().unreadable = bytes;
    }

    /// The content that reads see now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().cache.clone()
    }

    /// The disk after a loss of power at this moment: without every write that was not synced.
    pub(crate) fn after_power_loss(&self) -> Self {
        Self::holding(self.state().synced.clone())
    }

    pub(crate) fn record(&self) {
        self.state().log = Some(Vec::new());
    }

    pub(crate) fn recorded(&self) -> Vec<Op> {
        self.state().log.take().unwrap_or_default()
    }

    pub(crate) fn steps(&self) -> usize {
        self.state().steps
    }

    pub(crate) fn fail(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.steps = 0;
        state.fault = fault;
    }

    pub(crate) fn wait_until_frozen(&self) {
        drop(self.changed.wait_while(self.state(), |state| !state.frozen).unwrap());
    }

    /// Waits for the freeze. False if `done` came first, so no freeze will come.
    pub(crate) fn wait_until_frozen_or(&self, done: impl Fn() -> bool) -> bool {
        let mut state = self.state();
        while !state.frozen && !done() {
            state = self.changed.wait_timeout(state, Duration::from_millis(5)).unwrap().0;
        }
        state.frozen
    }

    pub(crate) fn thaw(&self) {
        self.state().thawed = true;
        self.changed.notify_all();
    }

    /// Counts a write or sync, and returns its failure, if any.
    fn step(&self, is_sync: bool) -> Option<FaultKind> {
        let mut state = self.state();
        if !is_sync && state.fault.is_some_and(|fault| fault.kind == FaultKind::FreezeSync) {
            return None;
        }
        let step = state.steps;
        state.steps += 1;
        let fault = state.fault?;
        if !(fault.after..fault.after.saturating_add(fault.times)).contains(&step) {
            return None;
        }
        if matches!(fault.kind, FaultKind::Freeze | FaultKind::FreezeSync) {
            state.frozen = true;
            self.changed.notify_all();
            drop(self.changed.wait_while(state, |state| !state.thawed).unwrap());
        }
        Some(fault.kind)
    }
}

/// Applies `op` to the content of a disk.
pub(crate) fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { offset, bytes: written } => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
        Op::SetLen(len) => bytes.resize(*len, 0),
        Op::Sync => {}
    }
}

fn error(kind: FaultKind) -> io::Error {
    io::Error::from_raw_os_error(if kind == FaultKind::Full { 28 } else { 5 })
}

impl State {
    fn wrote(&mut self, op: Op) {
        apply(&mut self.cache, &op);
        if let Some(log) = &mut self.log {
            log.push(op.clone());
        }
        self.dirty.push(op);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let offset = usize::try_from(offset).unwrap();
        if state.unreadable.as_ref().is_some_and(|bad| bad.start < offset + out.len() && offset < bad.end) {
            return Err(error(FaultKind::Io));
        }
        let found = state.cache.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if let Some(kind) = self.step(false) {
            return Err(error(kind));
        }
        self.state().wrote(Op::SetLen(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let fault = self.step(true);
        let mut state = self.state();
        let dirty = std::mem::take(&mut state.dirty);
        if let Some(kind) = fault {
            // The kernel has marked the pages clean, so no later sync writes them.
            return Err(error(kind));
        }
        for op in &dirty {
            apply(&mut state.synced, op);
        }
        if let Some(log) = &mut state.log {
            log.push(Op::Sync);
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.step(false);
        let offset = usize::try_from(offset).unwrap();
        match fault {
            Some(FaultKind::Io) => {
                let half = bytes[..bytes.len() / 2].to_vec();
                self.state().wrote(Op::Write { offset, bytes: half });
            }
            Some(_) => {}
            None => self.state().wrote(Op::Write { offset, bytes: bytes.to_vec() }),
        }
        fault.map_or(Ok(()), |kind| Err(error(kind)))
    }
}
