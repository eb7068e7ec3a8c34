//! The shell around a shard: its thread, its runtime, and the loop that waits for the next reason to take a
//! turn.
//!
//! One task per connection reads its socket and drains what it is owed; one loop takes what the doors and the
//! other shards sent, and gives the shard its turns. All of them live on this thread, so the shard is a plain
//! `RefCell`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::iter::from_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::sleep_until;
use tracing::{info, warn};

use super::directory::Load;
use super::handle::{Arrival, DoorRequest, Hello, Shards};
use super::inbox::{InboxTaken, Left, Queue};
use super::ladder::{Ladder, Pressure};
use super::lane::Lanes;
use super::slots::Slots;
use super::socket::DeviceSocket;
use super::way_in::PublishRequest;
use super::ways::WayOut;
use super::{Plan, Shard};
use crate::clock::{self, thread_cpu};
use crate::metrics::Metrics;
use crate::metrics::tally::Holdings;
use crate::store::StoreRequest;
use crate::store::port::Port;
use roomcast_core::limits::{KERNEL_UNSENT_BYTES_MIN, LOAD_INTERVAL};
use roomcast_core::now::{Now, millis};
use roomcast_core::room::Told;
use roomcast_core::room::ladder::StepChange;
use roomcast_core::room::message::Published;

/// Bytes of one read of a socket at most: several device frames of up to 4 KiB.
const SCRATCH_BYTES: usize = 16 * 1024;
/// Reads of a connection before others get their turn.
const READS_MAX: usize = 4;
/// Arrivals, requests and publishes of a turn, each at most.
const TAKES_MAX: usize = 128;
/// Messages after which a turn takes no further publish: publishers hear nothing before the turn is over.
const TAKES_MESSAGES_MAX: usize = 512;

/// Starts a shard's thread. `way`: the standings of slots and the way to other nodes, in a cluster.
pub(super) fn start(
    plan: Plan,
    lanes: Lanes,
    way: Option<(Arc<Slots>, WayOut)>,
    shards: Shards,
    store: Port,
    metrics: Metrics,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("shard-{}", plan.index)).spawn(move || {
        let now = clock::now().instant;
        let index = plan.index;
        let shard = Shard::new(plan, lanes, now);
        let shard = match way {
            Some((slots, way)) => shard.in_cluster(slots, way),
            None => shard,
        };
        let shell = Rc::new(Shell {
            index,
            shard: RefCell::new(shard),
            store: RefCell::new(store),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            shards,
            metrics,
            waits: RefCell::default(),
            queue: RefCell::default(),
            ladder: RefCell::new(Ladder::new(now)),
        });
        LocalSet::new().block_on(&runtime, shell.run());
    })
}

/// The state the tasks of a shard share.
struct Shell {
    index: usize,
    shard: RefCell<Shard<DeviceSocket>>,
    /// The way to the store, and back.
    store: RefCell<Port>,
    /// Buffer for reads of all connections, one at a time.
    scratch: RefCell<Box<[u8]>>,
    /// All shards: the own way in, the wakes of the others, and the placement of rooms.
    shards: Shards,
    metrics: Metrics,
    waits: RefCell<Waits>,
    /// The wait of publishes in the way in.
    queue: RefCell<Queue>,
    ladder: RefCell<Ladder>,
}

/// Answers the doors wait for.
#[derive(Default)]
struct Waits {
    tickets: u64,
    publishes: BTreeMap<u64, oneshot::Sender<Published>>,
    asks: BTreeMap<u64, oneshot::Sender<Told>>,
    drains: Vec<oneshot::Sender<()>>,
    farewells: Vec<oneshot::Sender<()>>,
    holdings_due: Option<Instant>,
    /// Moment of the last reading of this thread's processor time, and the reading.
    metered: Option<(Instant, Duration)>,
}

impl Waits {
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Processor time of this thread since the last call, in thousandths of the elapsed time.
    fn busy_permille(&mut self, now: Instant) -> u64 {
        let used = thread_cpu();
        let Some((at, before)) = self.metered.replace((now, used)) else { return 0 };
        let elapsed = now.saturating_duration_since(at).as_micros().max(1);
        u64::try_from(used.saturating_sub(before).as_micros() * 1000 / elapsed).unwrap_or(u64::MAX)
    }
}

impl Shell {
    async fn run(self: Rc<Self>) {
        let way_in = self.shards.way_in(self.index);
        let mut busy = false;
        while !way_in.stopped.load(Ordering::Relaxed) {
            if busy {
                // Readers and the driver get their turn between two of ours.
                yield_now().await;
            } else {
                let deadline = self.deadline();
                tokio::select! {
                    () = way_in.wake.notified() => {}
                    () = sleep_until(deadline.into()) => {}
                }
            }
            let now = clock::now();
            self.obey_ladder();
            // A stopped process finds publishes here, and may have no right to order any more.
            self.shard.borrow_mut().follow_slots(now);
            busy = self.take_in(now);
            self.weigh_ladder(now.instant);
            busy |= self.shard.borrow_mut().turn(now);
            self.give_out(now);
        }
    }

    /// Moment of the next turn if nothing happens. Gauges move even after the last connection has gone.
    fn deadline(&self) -> Instant {
        let deadline = self.shard.borrow().poll_deadline().min(self.ladder.borrow().due());
        self.waits.borrow().holdings_due.map_or(deadline, |due| deadline.min(due))
    }

    /// Takes a turn's worth of the doors' requests and the store's answers. True if more are there.
    fn take_in(self: &Rc<Self>, now: Now) -> bool {
        let way_in = self.shards.way_in(self.index);
        for arrival in from_fn(|| way_in.arrivals.pop()).take(TAKES_MAX) {
            self.take_arrival(arrival, now);
        }
        for request in from_fn(|| way_in.requests.pop()).take(TAKES_MAX) {
            self.take_request(request, now);
        }
        self.take_publishes(now);
        let mut answers = 0;
        for stored in from_fn(|| self.store.borrow_mut().next_answer()).take(TAKES_MAX) {
            self.shard.borrow_mut().homes.take_stored(stored, now);
            answers += 1;
        }
        answers == TAKES_MAX
            || !(way_in.arrivals.is_empty() && way_in.requests.is_empty() && way_in.publishes.is_empty())
    }

    fn take_publishes(&self, now: Now) {
        let way_in = self.shards.way_in(self.index);
        let mut taken = InboxTaken::default();
        for request in from_fn(|| way_in.publishes.pop()).take(TAKES_MAX) {
            let PublishRequest { room, messages, bytes, at, reply } = request;
            way_in.release(messages.len(), bytes);
            let waited = now.instant.saturating_duration_since(at);
            taken.messages += messages.len();
            taken.least = Some(taken.least.map_or(waited, |least| least.min(waited)));
            let mut waits = self.waits.borrow_mut();
            let ticket = waits.ticket();
            waits.publishes.insert(ticket, reply);
            // An operator who was answered before this was published has the step in force.
            self.obey_ladder();
            self.shard.borrow_mut().homes.publish(ticket, &room, messages, now);
            if taken.messages >= TAKES_MESSAGES_MAX {
                break;
            }
        }
        let left = if way_in.publishes.is_empty() { Left::Nothing } else { Left::Some };
        let mut queue = self.queue.borrow_mut();
        queue.took(taken, left, now.instant);
        if way_in.take_turned_away() {
            queue.turned_away(now.instant);
        }
        way_in.keep_to(queue.per_message_to_keep(self.ladder.borrow().step()));
    }

    /// Sets the step in force. Each room hears of a change with its next input.
    fn obey_ladder(&self) {
        self.shard.borrow_mut().homes.step = self.shards.board().in_force(self.index);
    }

    /// Weighs the ladder once an interval is over.
    fn weigh_ladder(&self, now: Instant) {
        let mut ladder = self.ladder.borrow_mut();
        if now < ladder.due() {
            return;
        }
        let board = self.shards.board();
        let owed = self.shard.borrow().residents.owed_bytes();
        board.owes(self.index, owed);
        let mut queue = self.queue.borrow_mut();
        let delay = queue.take_least();
        let turned_away = queue.take_turned_away();
        let strains = Pressure { delay, turned_away, owed_permille: board.owed_permille() };
        let change = ladder.weigh(strains, now);
        board.weighed(self.index, ladder.step(), strains.delay);
        self.metrics.degraded(self.index, board.in_force(self.index), owed);
        if let Some(change) = change {
            log_step(self.index, change, strains);
            self.metrics.step_changed(change);
        }
    }

    fn take_arrival(self: &Rc<Self>, arrival: Arrival, now: Now) {
        let Arrival { stream, early, hello } = arrival;
        let Hello { room, encoding, cursor, seen, device, grant, seat } = hello;
        let socket = match prepare(stream) {
            Ok(socket) => socket,
            // The device is gone already, or the machine is out of memory for it.
            Err(error) => return self.metrics.not_taken_in(&error),
        };
        let mut shard = self.shard.borrow_mut();
        let key = shard.residents.connect(DeviceSocket::new(socket), encoding, grant, seat, now);
        if let Some((connection, device)) = shard.residents.connection(key).zip(device) {
            connection.device = device.digest();
        }
        shard.residents.join(key, &room, seen, cursor, now);
        drop(shard);
        if !early.is_empty() {
            self.receive(key, &mut early.to_vec(), now);
        }
        let shell = Rc::clone(self);
        spawn_local(poll_fn(move |cx| shell.poll_connection(key, cx)));
    }

    fn take_request(&self, request: DoorRequest, now: Now) {
        let mut shard = self.shard.borrow_mut();
        match request {
            DoorRequest::Question(question) => question.answer(&mut shard, &self.shards, now),
            DoorRequest::Stream { room, ask, reply } => {
                let mut waits = self.waits.borrow_mut();
                let ticket = waits.ticket();
                waits.asks.insert(ticket, reply);
                shard.homes.ask(ticket, &room, ask, now);
            }
            DoorRequest::Drain { reply } => {
                shard.drain();
                self.waits.borrow_mut().drains.push(reply);
            }
            DoorRequest::PartWithDevices { reply } => {
                shard.residents.bid_farewell();
                self.waits.borrow_mut().farewells.push(reply);
            }
            DoorRequest::Farewell { reply } => {
                shard.bid_farewell();
                self.waits.borrow_mut().farewells.push(reply);
            }
        }
    }

    /// Sends requests of rooms to the store, as far as the store has places.
    fn ask_store(&self, now: Now) {
        let mut shard = self.shard.borrow_mut();
        let mut store = self.store.borrow_mut();
        while let Some(request) = shard.homes.poll_store() {
            let is_append = matches!(request, StoreRequest::Append(_));
            if let Err((request, _)) = store.send(request) {
                shard.homes.store_is_busy(request, now);
                if !is_append {
                    // The next answer makes a place, and wakes this shard.
                    return;
                }
                // Messages that waited behind the append may have left in a batch, which the next turn
                // writes.
                self.wake_own();
            }
        }
    }

    /// Gives out the results of a turn: answers, wakes, numbers.
    fn give_out(&self, now: Now) {
        self.ask_store(now);
        let mut shard = self.shard.borrow_mut();
        let mut waits = self.waits.borrow_mut();
        while let Some((ticket, published)) = shard.homes.poll_answer() {
            // The door may have stopped waiting, here and below: then nobody hears the answer.
            waits.publishes.remove(&ticket).map(|reply| reply.send(published));
        }
        while let Some((ticket, told)) = shard.homes.poll_told() {
            waits.asks.remove(&ticket).map(|reply| reply.send(told));
        }
        self.shards.hear_homes(&mut shard.homes);
        for peer in shard.poll_wakes() {
            self.shards.way_in(peer).wake.notify_one();
        }
        if !waits.drains.is_empty() && shard.is_flushed() {
            waits.drains.drain(..).for_each(|reply| reply.send(()).unwrap_or_default());
        }
        if !waits.farewells.is_empty() && shard.residents.is_deserted() {
            waits.farewells.drain(..).for_each(|reply| reply.send(()).unwrap_or_default());
        }
        let tally = shard.take_tally();
        // The turn took its time: what it wrote is as late as it is now.
        self.metrics.add(&tally, clock::now().instant);
        if waits.holdings_due.is_none_or(|due| due <= now.instant) {
            waits.holdings_due = Some(now.instant + LOAD_INTERVAL);
            let holdings = Holdings { busy_permille: waits.busy_permille(now.instant), ..shard.holdings() };
            let load = Load { busy_tenths: holdings.busy_permille / 100, connections: holdings.connections };
            self.shards.directory().loaded(self.index, load);
            self.metrics.hold(self.index, &holdings);
        }
    }

    /// Drains and reads a connection. Ready once the connection is gone.
    fn poll_connection(&self, key: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = self.scratch.borrow_mut();
        let now = clock::now();
        {
            let mut shard = self.shard.borrow_mut();
            let Some(connection) = shard.residents.connection(key) else { return Poll::Ready(()) };
            connection.socket.adopt(cx);
            if connection.is_waiting() {
                shard.residents.writable(key, now);
                self.wake_own();
            }
        }
        for _ in 0..READS_MAX {
            let mut shard = self.shard.borrow_mut();
            let Some(connection) = shard.residents.connection(key) else { return Poll::Ready(()) };
            match connection.socket.poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => {
                    shard.residents.hang_up(key, now);
                    self.wake_own();
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(read)) => {
                    drop(shard);
                    self.receive(key, &mut scratch[..read], now);
                    self.wake_own();
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the shard a device's bytes. A defect of the engine met in them costs this device its connection,
    /// and no other.
    fn receive(&self, key: u64, bytes: &mut [u8], now: Now) {
        let mut shard = self.shard.borrow_mut();
        if catch_unwind(AssertUnwindSafe(|| shard.residents.receive(key, bytes, now))).is_err() {
            shard.residents.abort(key, now);
        }
    }

    /// Has the loop take a turn: there are batches to write, lanes to pump, or answers to give.
    fn wake_own(&self) {
        self.shards.way_in(self.index).wake.notify_one();
    }
}

fn log_step(shard: usize, change: StepChange, strains: Pressure) {
    let StepChange { from, to } = change;
    let Pressure { delay, turned_away, owed_permille } = strains;
    let from = from.name();
    let step = to.name();
    let delay_ms = millis(delay);
    if change.is_up() {
        warn!(shard, from, step, delay_ms, turned_away, owed_permille, "the shard leaves out more");
    } else {
        info!(shard, from, step, delay_ms, turned_away, owed_permille, "the shard leaves out less");
    }
}

/// Registers a socket with this shard's runtime. Without the bound on unsent bytes the kernel would queue
/// megabytes for a device that stopped reading. Every device begins as a slow one.
fn prepare(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES_MIN)?;
    TcpStream::from_std(stream)
}
