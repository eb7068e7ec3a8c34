//! The readers beside the writer: reads that meet a closed store or damage, and reads at the stop.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use roomcast::store::memory::Memory;
use roomcast::store::port::Port;
use roomcast::store::time::{Stamp, StoreNow};
use roomcast::store::writer::{StoreHandle, start};
use roomcast::store::{
    Append, Page, Purged, ReadError, Reader, Store, StoreAnswer, StoreError, StoreHoldings, StoreRequest,
    Stored,
};
use roomcast_core::room::id::RoomName;

use super::{append, room};

/// A store in memory with readers, whose appends wait at a gate.
#[derive(Debug, Clone, Default)]
struct Gated(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    memory: Mutex<Memory>,
    is_shut: Mutex<bool>,
    changed: Condvar,
    appends_waiting: AtomicUsize,
    /// The calls of the writer, in order.
    calls: Mutex<Vec<&'static str>>,
    /// The reads that will meet a closed store.
    closed_reads: AtomicUsize,
    /// True: readers meet damage.
    is_damaged: AtomicBool,
    /// The reads that met damage.
    damaged_reads: AtomicUsize,
}

impl Gated {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap()
    }

    fn shut(&self, is_shut: bool) {
        *self.0.is_shut.lock().unwrap() = is_shut;
        self.0.changed.notify_all();
    }

    fn wait_for_an_append(&self) {
        while self.0.appends_waiting.load(Ordering::Acquire) == 0 {
            pause(Duration::from_millis(1));
        }
    }

    fn called(&self, call: &'static str) {
        self.0.calls.lock().unwrap().push(call);
    }
}

impl Store for Gated {
    fn load(&mut self, room: &RoomName, whole: u64, now: StoreNow) -> Result<Option<Stored>, StoreError> {
        self.called("load");
        self.memory().load(room, whole, now)
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        self.memory().page(room, after, bytes_max)
    }

    fn append(
        &mut self,
        appends: &[Append],
        now: StoreNow,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.called("append");
        self.0.appends_waiting.fetch_add(1, Ordering::AcqRel);
        drop(self.0.changed.wait_while(self.0.is_shut.lock().unwrap(), |is_shut| *is_shut).unwrap());
        self.memory().append(appends, now)
    }

    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError> {
        self.memory().forget(room)
    }

    fn purge(&mut self, _now: StoreNow, _rows_max: usize) -> Result<Purged, StoreError> {
        Ok(Purged::default())
    }

    fn prove(&mut self, now: StoreNow, bytes: usize) -> Result<(), StoreError> {
        self.memory().prove(now, bytes)
    }

    fn stamp(&self) -> Option<Stamp> {
        self.memory().stamp()
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(Arc::new(self.clone()))
    }

    fn is_open(&self) -> bool {
        true
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn holdings(&self) -> StoreHoldings {
        self.memory().holdings()
    }

    fn trouble(&self) -> &'static str {
        ""
    }
}

impl Gated {
    fn meets(&self) -> Result<(), ReadError> {
        let closed =
            self.0.closed_reads.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if closed.is_ok() {
            return Err(ReadError::Closed);
        }
        if self.0.is_damaged.load(Ordering::Acquire) {
            self.0.damaged_reads.fetch_add(1, Ordering::AcqRel);
            return Err(ReadError::Damaged);
        }
        Ok(())
    }
}

impl Reader for Gated {
    fn load(&self, room: &RoomName, whole: u64, now: StoreNow) -> Result<Option<Stored>, ReadError> {
        self.meets()?;
        Ok(self.memory().load(room, whole, now).unwrap())
    }

    fn page(&self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, ReadError> {
        self.meets()?;
        Ok(self.memory().page(room, after, bytes_max).unwrap())
    }
}

fn started(store: &Gated) -> (StoreHandle, Port, Receiver<()>) {
    let (woken, wakes) = channel();
    let wake = Box::new(move || woken.send(()).unwrap_or_default());
    let mut handle = start(Box::new(store.clone()), vec![wake]).unwrap();
    let port = handle.ports.pop().unwrap();
    (handle, port, wakes)
}

fn load(name: &str) -> StoreRequest {
    StoreRequest::Load { room: room(name), life: 1, whole_after: 0 }
}

/// Lets the threads of the store go on.
fn pause(time: Duration) {
    let (_held, never) = channel::<()>();
    never.recv_timeout(time).unwrap_err();
}

#[track_caller]
fn next(port: &mut Port, wakes: &Receiver<()>) -> StoreAnswer {
    loop {
        if let Some(answer) = port.next_answer() {
            return answer;
        }
        wakes.recv_timeout(Duration::from_secs(20)).expect("an answer wakes its shard");
    }
}

#[test]
fn a_read_that_meets_a_closed_store_waits_for_the_reopening() {
    let store = Gated::default();
    let (handle, mut port, wakes) = started(&store);
    store.0.closed_reads.store(3, Ordering::Release);
    port.send(load("a")).unwrap();
    assert!(matches!(next(&mut port, &wakes), StoreAnswer::Loaded { .. }));
    let tally = handle.health.tally();
    assert_eq!((tally.reads_failed, tally.rooms_aside), (0, 0), "the room is innocent");
    drop(handle);
}

#[test]
fn a_read_behind_an_append_is_answered_although_the_readers_have_stopped() {
    let store = Gated::default();
    let (mut handle, mut port, _wakes) = started(&store);
    store.shut(true);
    port.send(StoreRequest::Append(append("a", 1..=1))).unwrap();
    store.wait_for_an_append();
    port.send(load("a")).unwrap();
    // A read that waits for a reopening at the stop.
    store.0.closed_reads.store(1, Ordering::Release);
    port.send(load("b")).unwrap();
    let ports = std::mem::take(&mut handle.ports);
    let stopping = thread::spawn(move || drop(handle));
    // The readers end at once, while the writer waits at the gate.
    pause(Duration::from_millis(200));
    store.shut(false);
    stopping.join().unwrap();
    drop(ports);
    let answers: Vec<_> = std::iter::from_fn(|| port.next_answer()).collect();
    assert!(matches!(answers[0], StoreAnswer::Durable { through: 1, .. }), "{answers:?}");
    let loaded = answers.iter().filter(|answer| matches!(answer, StoreAnswer::Loaded { .. })).count();
    assert_eq!(loaded, 2, "{answers:?}");
}

#[test]
fn repairs_come_one_by_one_between_the_commits() {
    let store = Gated::default();
    let (handle, mut port, wakes) = started(&store);
    store.0.is_damaged.store(true, Ordering::Release);
    store.shut(true);
    port.send(StoreRequest::Append(append("a", 1..=1))).unwrap();
    store.wait_for_an_append();
    for name in ["b", "c", "d", "e", "f"] {
        port.send(load(name)).unwrap();
    }
    // The readers hand all of them back, while the writer waits at the gate.
    while store.0.damaged_reads.load(Ordering::Acquire) < 5 {
        pause(Duration::from_millis(1));
    }
    port.send(StoreRequest::Append(append("a", 2..=2))).unwrap();
    store.shut(false);
    (0..7).for_each(|_| drop(next(&mut port, &wakes)));
    let calls = store.0.calls.lock().unwrap().clone();
    assert_eq!(calls, ["append", "load", "append", "load", "load", "load", "load"]);
    drop(handle);
}
