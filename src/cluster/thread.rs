//! The cluster's thread: hears the bus and the log, drives view and links, and writes the standings of slots.
//!
//! The loop waits for one of {message, news of the log, word of a shard or a door, deadline, stop} and takes a bounded
//! turn. It never waits for the bus to take a message: what finds no place stays with its link.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as handover;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc};
use tokio::task;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::bus::{Bus, BusHeard, BusPost, Subjects};
use super::calls::{CallIn, Calls};
use super::exchange::{Exchange, ExchangePlan};
use super::hand_over::{HandOverDesk, Moving};
use super::heartbeat::{decode_beat, decode_claim, encode_beat, encode_claim};
use super::quotas::QuotaDesk;
use super::quotas::meter::QuotaMeters;
use super::shown::{ClusterShown, PeerShown, ShownCell};
use super::tenure::Tenure;
use crate::clock;
use crate::config::cluster::ClusterConfig;
use crate::metrics::tally::ClusterReport;
use crate::nats::{Login, NatsError};
use crate::shard::slots::Slots;
use crate::shard::ways::WayOut;
use crate::store::jetstream::LogWay;
use roomcast_core::cluster::node::{NodeLoad, NodeName};
use roomcast_core::cluster::view::ViewWord;
use roomcast_core::cluster::{OwnNode, Slot, SlotHome};
use roomcast_core::limits::{
    CLUSTER_SHOWN_INTERVAL, GOODBYE_AGE_MAX, LOG_NEWS_MAX, NODE_SENDS_MAX, NODE_TURN_MESSAGES_MAX,
    SUSPENSION_MAX,
};
use roomcast_core::now::Now;
use roomcast_core::room::id::NameKey;

/// Pause between two turns while the bus takes no message.
const FULL_BUS_PAUSE: Duration = Duration::from_millis(5);

/// The parts of a node that its cluster thread connects with other nodes.
pub(crate) struct ClusterPlan {
    /// The section `[cluster]`.
    pub(crate) config: ClusterConfig,
    /// The life of the node, of [`draw_incarnation`], the same as in its log.
    pub(crate) incarnation: u64,
    /// Number of shards.
    pub(crate) shards: u32,
    /// The standings that the thread writes.
    pub(crate) slots: Arc<Slots>,
    /// The way to the log.
    pub(crate) log: LogWay,
    /// The key of `directory::home` on this node.
    pub(crate) home_key: NameKey,
    /// The way of each shard, in order. `wake` wakes the shard.
    pub(crate) ways: Vec<WayOut>,
    /// Calls of other nodes, for the doors.
    pub(crate) calls_in: mpsc::Sender<CallIn>,
    /// The limits of the cluster, as the doors meter them.
    pub(crate) meters: Arc<QuotaMeters>,
    /// The bell of the thread, which wakes it.
    pub(crate) bell: ClusterBell,
    /// Reads seats and load. Region and URL come from the configuration.
    pub(crate) load: Box<dyn FnMut() -> NodeLoad + Send>,
    /// Takes reports for metrics.
    pub(crate) report: Box<dyn FnMut(ClusterReport<'_>) + Send>,
}

impl fmt::Debug for ClusterPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterPlan").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// The reason why a node finds no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterStartError {
    /// No connection to the bus.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The system gives no thread or runtime.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Wakes the cluster's thread. Made before the shards, whose ways ring it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterBell {
    wake: Arc<Notify>,
}

impl ClusterBell {
    /// A function that wakes the thread.
    pub(crate) fn ring(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wake = Arc::clone(&self.wake);
        Arc::new(move || wake.notify_one())
    }
}

/// The orders of the server to the thread.
#[derive(Debug, Default)]
struct ClusterStage {
    is_draining: AtomicBool,
    is_handing_over: AtomicBool,
    is_stopped: AtomicBool,
    /// True: this node holds no slot that another one could take.
    has_handed_over: AtomicBool,
    handed_over: Notify,
}

/// The running thread. Dropping the handle ends it without a goodbye.
#[derive(Debug)]
pub(crate) struct ClusterHandle {
    /// The doors' way to other nodes.
    pub(crate) calls: Calls,
    /// The standings of all slots.
    pub(crate) slots: Arc<Slots>,
    /// The cluster for the doors.
    pub(crate) shown: Arc<ShownCell>,
    stage: Arc<ClusterStage>,
    bell: ClusterBell,
    thread: Option<JoinHandle<()>>,
    /// Cuts the thread short: it drops everything without a word.
    cut: Arc<Notify>,
    must_leave: Arc<LeaveBell>,
}

/// The reason for a node to leave its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyLeave {
    /// A later process runs under the node's name, and the other nodes hear that one.
    NameTaken,
    /// A bug has ended the cluster's thread. Its panic was printed.
    ThreadEnded,
}

/// The thread's word that the node has to leave.
#[derive(Debug, Default)]
struct LeaveBell {
    is_name_taken: AtomicBool,
    rung: Notify,
}

/// Rings when the thread ends, by a panic too.
struct EndBell(Arc<LeaveBell>);

impl Drop for EndBell {
    fn drop(&mut self) {
        self.0.rung.notify_one();
    }
}

impl ClusterHandle {
    /// Tells the others that this node takes no further slots and devices.
    pub(crate) fn drain(&self) {
        self.stage.is_draining.store(true, Ordering::Release);
        self.bell.wake.notify_one();
    }

    /// True if another node may take slots of this one.
    pub(crate) fn has_taker(&self) -> bool {
        self.shown.newest().peers.iter().any(|peer| peer.is_alive && !peer.is_draining)
    }

    /// Hands all slots over to the other nodes. Returns once none is left that another node could take; the caller
    /// bounds the wait.
    pub(crate) async fn hand_over(&self) {
        self.stage.is_handing_over.store(true, Ordering::Release);
        self.bell.wake.notify_one();
        while !self.stage.has_handed_over.load(Ordering::Acquire) {
            self.stage.handed_over.notified().await;
        }
    }

    /// Waits until the node has to leave.
    pub(crate) async fn must_leave(&self) -> WhyLeave {
        self.must_leave.rung.notified().await;
        let is_name_taken = self.must_leave.is_name_taken.load(Ordering::Acquire);
        if is_name_taken { WhyLeave::NameTaken } else { WhyLeave::ThreadEnded }
    }

    /// Says goodbye and ends the thread, within [`GOODBYE_AGE_MAX`]. The other nodes claim the slots at once, so the
    /// shards and the log must have ended their work.
    pub(crate) fn stop(mut self) {
        self.stage.is_stopped.store(true, Ordering::Release);
        self.bell.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the cluster's thread had panicked");
        }
    }
}

impl Drop for ClusterHandle {
    fn drop(&mut self) {
        self.cut.notify_one();
    }
}

/// Bits of the number of a node's life that are drawn. The upper ones are the wall clock's.
const DRAWN_BITS: u32 = 20;

/// Draws the number of a node's life: the wall clock in the upper bits, so that a later life has a higher number.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn draw_incarnation(now: Now) -> io::Result<u64> {
    let drawn = getrandom::u64().map_err(io::Error::other)?;
    Ok(now.unix_ms << DRAWN_BITS | drawn >> (u64::BITS - DRAWN_BITS))
}

/// The begin of a life with this number, in unix milliseconds.
pub(crate) fn drawn_at_ms(incarnation: u64) -> u64 {
    incarnation >> DRAWN_BITS
}

/// Connects to the bus and starts the thread. The node hears the others from now on, and claims slots once it has
/// listened for a while.
///
/// # Errors
/// [`ClusterStartError`]; then no thread runs.
pub(crate) fn start(plan: ClusterPlan) -> Result<ClusterHandle, ClusterStartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let calls = Calls::new(plan.bell.ring());
    let shown = Arc::new(ShownCell::new(clock::now().instant));
    let slots = Arc::clone(&plan.slots);
    let stage = Arc::<ClusterStage>::default();
    let bell = plan.bell.clone();
    let cut = Arc::<Notify>::default();
    let must_leave = Arc::<LeaveBell>::default();
    let (ready, is_ready) = handover::sync_channel(1);
    let thread = {
        let calls = calls.clone();
        let shown = Arc::clone(&shown);
        let stage = Arc::clone(&stage);
        let cut = Arc::clone(&cut);
        let end = EndBell(Arc::clone(&must_leave));
        thread::Builder::new().name("cluster".into()).spawn(move || {
            let end = end;
            runtime.block_on(async move {
                let name = NodeName::parse(&plan.config.node).expect("the configuration checks the name");
                let login = Login::of(&plan.config).with_queue(NODE_SENDS_MAX);
                let bus = Bus::open(&login, Subjects::new(&plan.config.name, name.clone())).await;
                let bus = match bus {
                    Ok(bus) => bus,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let mut shell = ClusterShell::new(plan, name, login, bus, &calls, shown);
                shell.stage = stage;
                shell.must_leave.clone_from(&end.0);
                if ready.send(Ok(())).is_ok() {
                    tokio::select! {
                        () = shell.run() => {}
                        () = cut.notified() => {}
                    }
                }
            });
        })?
    };
    let gone = || Err(ClusterStartError::System(io::Error::other("its thread ended: the panic was printed")));
    is_ready.recv().map_or_else(|_| gone(), |ready| Ok(ready?))?;
    Ok(ClusterHandle { calls, slots, shown, stage, bell, thread: Some(thread), cut, must_leave })
}

/// The thread's parts.
struct ClusterShell {
    login: Login,
    subjects: Subjects,
    bus: Bus,
    /// A connection to another server, under way.
    next_bus: Option<task::JoinHandle<Result<Bus, NatsError>>>,
    /// Connections made so far: each begins with another server.
    turns: usize,
    /// A message of a link that found no place. It leaves before any other one.
    kept: Option<BusPost>,
    tenure: Tenure,
    exchange: Exchange,
    quotas: QuotaDesk,
    log: LogWay,
    slots: Arc<Slots>,
    ways: Vec<WayOut>,
    shown: Arc<ShownCell>,
    show_at: Instant,
    must_leave: Arc<LeaveBell>,
    bell: ClusterBell,
    region: String,
    viewer_url: String,
    load: Box<dyn FnMut() -> NodeLoad + Send>,
    report: Box<dyn FnMut(ClusterReport<'_>) + Send>,
    hand_overs: HandOverDesk,
    stage: Arc<ClusterStage>,
    /// Slot -> the last word of the living node that ordered it, while nobody does.
    lost: BTreeMap<Slot, Instant>,
    suspended: Duration,
    is_draining: bool,
    /// Words that were no words of a node.
    unreadable: u64,
}

impl ClusterShell {
    fn new(
        plan: ClusterPlan,
        name: NodeName,
        login: Login,
        bus: Bus,
        calls: &Calls,
        shown: Arc<ShownCell>,
    ) -> Self {
        let now = clock::now().instant;
        let ClusterPlan {
            config,
            incarnation,
            shards,
            slots,
            log,
            home_key,
            ways,
            calls_in,
            meters,
            bell,
            load,
            report,
        } = plan;
        let exchange = Exchange::new(ExchangePlan {
            incarnation,
            home_key,
            ways: ways.clone(),
            calls: Arc::clone(&calls.queue),
            calls_in,
            wake: bell.ring(),
        });
        let subjects = Subjects::new(&config.name, name.clone());
        let own = OwnNode { name, incarnation, shards, dead_after: config.dead_after };
        let hand_overs = HandOverDesk::new(ways.len(), Arc::clone(&slots), now);
        let quotas = QuotaDesk::new(&own, &config.region, Arc::clone(&slots), meters, now);
        Self {
            login,
            subjects,
            bus,
            next_bus: None,
            turns: 0,
            kept: None,
            tenure: Tenure::new(own, now),
            exchange,
            quotas,
            log,
            slots,
            ways,
            shown,
            show_at: now,
            must_leave: Arc::default(),
            bell,
            region: config.region,
            viewer_url: config.viewer_url,
            load,
            report,
            hand_overs,
            stage: Arc::default(),
            lost: BTreeMap::new(),
            suspended: clock::suspended(),
            is_draining: false,
            unreadable: 0,
        }
    }

    async fn run(mut self) {
        let stage = Arc::clone(&self.stage);
        loop {
            // In this order: a pause between the two readings must not lengthen the right to order.
            let since_boot = clock::since_boot();
            let now = clock::now();
            if stage.is_stopped.load(Ordering::Acquire) {
                return Box::pin(self.say_goodbye(now)).await;
            }
            if stage.is_draining.load(Ordering::Acquire) && !self.is_draining {
                self.is_draining = true;
                self.tenure.view.drain(now.instant);
            }
            if stage.is_handing_over.load(Ordering::Acquire) {
                self.hand_overs.give_all();
            }
            let is_more = self.turn(now, since_boot);
            let mut deadline = if is_more { now.instant } else { self.deadline() };
            if self.kept.is_some() {
                // The links may not send what is due: nothing is to be done before the bus takes a message.
                deadline = deadline.max(now.instant + FULL_BUS_PAUSE);
            }
            let kept = self.kept.as_ref().map(|posted| self.bus.send(posted));
            tokio::select! {
                heard = self.bus.next() => self.hear_all(heard),
                () = self.log.news_came() => {}
                () = self.bell.wake.notified() => {}
                () = async { kept.expect("the branch has a message").await }, if kept.is_some() => self.kept = None,
                bus = async { self.next_bus.as_mut().expect("the branch has a bus").await },
                    if self.next_bus.is_some() => self.change_bus(bus),
                () = sleep_until(deadline.into()) => {}
            }
        }
    }

    /// Takes a bounded turn. `since_boot`: the time since the machine's boot, read before `now`. True: there is more to
    /// do at once.
    fn turn(&mut self, now: Now, since_boot: Duration) -> bool {
        let suspended = clock::suspended();
        if suspended > self.suspended + SUSPENSION_MAX {
            warn!("the machine was suspended: all slots freeze until they are proven");
            self.tenure.view.slept(now.instant);
            self.quotas.slept(now.instant);
        }
        self.suspended = suspended;
        // The log has a queue of this length.
        for _ in 0..LOG_NEWS_MAX {
            let Some(news) = self.log.next_news() else { break };
            self.tenure.hear(news, now.instant);
        }
        self.tenure.view.due(now.instant);
        self.take_words(now);
        let right = self.tenure.view.right_until(now.instant).saturating_duration_since(now.instant);
        if self.slots.move_right(since_boot + right) {
            self.ways.iter().for_each(|way| (way.wake)());
        }
        self.log.write_version(self.tenure.view.version());
        self.tenure.order(|order| self.log.order(order));
        let is_more = self.exchange.turn(now);
        self.hand_over(now);
        self.send_links();
        self.quotas.due(&self.tenure.view, now.instant);
        self.send_quotas(now.instant);
        if self.show_at <= now.instant {
            self.show_at = now.instant + CLUSTER_SHOWN_INTERVAL;
            self.show(now.instant);
            self.report(now);
        }
        is_more
    }

    /// Goes on with the hand-overs of slots.
    fn hand_over(&mut self, now: Now) {
        let mut moving = Moving { tenure: &mut self.tenure, exchange: &mut self.exchange };
        self.hand_overs.turn(&mut moving, now);
        // Hand-overs may have given orders.
        self.take_words(now);
        self.tenure.order(|order| self.log.order(order));
        if self.stage.is_handing_over.load(Ordering::Acquire) && self.hand_overs.is_done(&self.tenure) {
            self.stage.has_handed_over.store(true, Ordering::Release);
            self.stage.handed_over.notify_one();
        }
    }

    fn deadline(&self) -> Instant {
        let view = self.tenure.view.poll_deadline().min(self.show_at).min(self.quotas.poll_deadline());
        let others = [self.exchange.poll_deadline(), self.hand_overs.poll_deadline()];
        others.into_iter().flatten().fold(view, Instant::min)
    }

    /// Takes a message, and those that are there already.
    fn hear_all(&mut self, first: BusHeard) {
        let now = clock::now();
        self.hear(first, now);
        for _ in 1..NODE_TURN_MESSAGES_MAX {
            let Some(heard) = self.bus.next_ready() else { break };
            self.hear(heard, now);
        }
    }

    fn hear(&mut self, heard: BusHeard, now: Now) {
        let readable = match heard {
            BusHeard::Link(bytes) => {
                self.exchange.take(bytes, now);
                Ok(())
            }
            BusHeard::Beat { sender, bytes } => {
                decode_beat(&sender, &bytes).map(|beat| self.tenure.view.hear(&beat, now.instant))
            }
            BusHeard::Quota(bytes) => self.quotas.hear(&bytes, now.instant),
            BusHeard::Claim(bytes) => {
                decode_claim(&bytes).map(|claim| self.tenure.view.hear_claim(&claim, now.instant))
            }
            BusHeard::NobodyAt { node, number } => {
                if let Some(node) = NodeName::parse(&node) {
                    self.tenure.view.no_responder(&node, number, now.instant);
                }
                Ok(())
            }
        };
        if let Err(error) = readable {
            self.unreadable += 1;
            debug!(%error, count = self.unreadable, "a message on the cluster's subjects is dropped");
        }
        // A peer that is met now may be in the next message.
        self.take_words(now);
    }

    /// Acts on the words of the view.
    fn take_words(&mut self, now: Now) {
        let mut is_changed = false;
        while let Some(word) = self.tenure.poll_word() {
            match word {
                ViewWord::Met { node, incarnation, version } => {
                    let name = self.tenure.view.name_of(node).map(NodeName::as_str);
                    info!(node = name, key = node.0, "another node lives");
                    self.exchange.meet(node, incarnation, version, now);
                    self.show_at = now.instant;
                }
                ViewWord::Parted { node } => {
                    let peer = self.tenure.view.name_of(node).map_or("", NodeName::as_str);
                    warn!(node = peer, key = node.0, "another node is dead, or has left");
                    self.hand_overs.lost(node, now.instant);
                    if let Some(tally) = self.exchange.part(node, now) {
                        // Nothing waits for a node that has left.
                        (self.report)(ClusterReport::Link { peer, tally, age: Duration::ZERO });
                    }
                    self.show_at = now.instant;
                }
                ViewWord::Stands { slot, standing } => {
                    debug!(slot = slot.0, ?standing, "a slot stands anew");
                    self.note_takeover(slot, standing.home, now.instant);
                    self.hand_overs.stands(slot, standing, now.instant);
                    is_changed = true;
                }
                ViewWord::Handed { slot } => self.hand_overs.handed(slot),
                // Heartbeats tell the slots again, so a lost claim costs half a second.
                ViewWord::Tell(claim) => self.post(&self.subjects.claim(encode_claim(&claim))),
                ViewWord::Beat => {
                    let beat = self.beat(now.instant);
                    self.post(&self.subjects.beat(beat));
                }
                ViewWord::Probe { name, number } => self.post(&self.bus.probe(&name, number)),
                ViewWord::Reconnect => self.reconnect(),
                ViewWord::NameTaken => {
                    error!("a later process runs under this node's name (cluster.node): this one drains");
                    self.must_leave.is_name_taken.store(true, Ordering::Release);
                    self.must_leave.rung.notify_one();
                }
                ViewWord::Claim { .. } | ViewWord::Release { .. } | ViewWord::Renew { .. } => {
                    unreachable!("tenure keeps the orders of the log")
                }
            }
        }
        // Together with the standings: a new home says its rooms to the right node.
        if is_changed {
            self.slots.set_heirs(self.tenure.view.heirs().into_iter());
            self.ways.iter().for_each(|way| (way.wake)());
        }
    }

    fn beat(&mut self, now: Instant) -> Bytes {
        let load =
            NodeLoad { region: self.region.clone(), viewer_url: self.viewer_url.clone(), ..(self.load)() };
        encode_beat(&self.tenure.view.heartbeat(load, now))
    }

    /// Sends a message that may be lost.
    fn post(&self, posted: &BusPost) {
        if !self.bus.try_send(posted) {
            debug!("a word to all nodes found no place");
        }
    }

    /// Gives messages of links to the bus, until it takes no more.
    fn send_links(&mut self) {
        while self.kept.is_none()
            && let Some((node, bytes)) = self.exchange.poll_send()
        {
            // A node that is forgotten has no link any more.
            let Some(name) = self.tenure.view.name_of(node) else { continue };
            let posted = self.subjects.link(name, bytes);
            if !self.bus.try_send(&posted) {
                self.kept = Some(posted);
            }
        }
    }

    /// Sends words about shares. Nodes report again soon, and each report is answered.
    fn send_quotas(&mut self, now: Instant) {
        while let Some((node, bytes)) = self.quotas.poll_send(&self.tenure.view, now) {
            self.post(&self.subjects.quota(&node, bytes));
        }
    }

    /// Begins to connect to another server. The connection in use may still come back meanwhile.
    ///
    /// The client could reconnect by itself, but its order to do so waits behind the bytes that a stopped server
    /// does not take.
    fn reconnect(&mut self) {
        if self.next_bus.is_none() {
            warn!("the node does not hear what it should: it connects to another NATS server");
            self.turns += 1;
            let login = self.login.turned(self.turns);
            let subjects = self.subjects.clone();
            self.next_bus = Some(tokio::spawn(async move { Bus::open(&login, subjects).await }));
        }
    }

    fn change_bus(&mut self, opened: Result<Result<Bus, NatsError>, task::JoinError>) {
        self.next_bus = None;
        match opened {
            Ok(Ok(bus)) => {
                self.bus = bus;
                self.tenure.view.beat_now(clock::now().instant);
            }
            Ok(Err(error)) => warn!(%error, "no other NATS server is reached"),
            Err(error) => warn!(%error, "a connection to another NATS server failed"),
        }
    }

    /// Shows the cluster to the doors.
    fn show(&self, now: Instant) {
        let view = &self.tenure.view;
        let peers = view.peers().map(|(name, peer)| PeerShown {
            key: peer.key,
            name: name.as_str().to_owned(),
            viewer_url: peer.load.viewer_url.clone(),
            region: peer.load.region.clone(),
            seats: peer.load.seats,
            free_seats: peer.load.free_seats,
            busy_permille: peer.load.busy_permille,
            is_draining: peer.is_draining,
            is_deaf: peer.is_deaf,
            is_alive: peer.is_alive,
            has_ended: peer.has_ended(),
            words_version: peer.version,
            heard_at: peer.heard_at,
            link: self.exchange.lag(peer.key, now),
        });
        let echo_at = view.echo_at().unwrap_or_else(|| self.shown.newest().echo_at.min(now));
        let heirs = view.heirs();
        if self.slots.set_heirs(heirs.iter().copied()) {
            self.ways.iter().for_each(|way| (way.wake)());
        }
        self.shown.show(ClusterShown { echo_at, peers: peers.collect(), heirs });
    }

    fn report(&mut self, now: Now) {
        for (node, tally, age) in self.exchange.take_tallies(now) {
            let peer = self.tenure.view.name_of(node).map_or("", NodeName::as_str);
            (self.report)(ClusterReport::Link { peer, tally, age });
        }
        for outcome in self.hand_overs.take_outcomes() {
            (self.report)(ClusterReport::HandOver { outcome });
        }
        if let Some(echo) = self.tenure.view.echo_at() {
            (self.report)(ClusterReport::Echo { age: now.instant.saturating_duration_since(echo) });
        }
    }

    /// Notes a slot without a home, and reports how long this node took to become the home.
    fn note_takeover(&mut self, slot: Slot, home: SlotHome, now: Instant) {
        match home {
            SlotHome::Nobody => {
                if let SlotHome::There(former) = self.slots.standing(slot).home {
                    self.lost.insert(slot, self.tenure.view.heard_at(former).unwrap_or(now));
                }
            }
            SlotHome::Here => {
                if let Some(heard) = self.lost.remove(&slot) {
                    (self.report)(ClusterReport::Takeover { took: now.saturating_duration_since(heard) });
                }
            }
            SlotHome::There(_) => drop(self.lost.remove(&slot)),
            SlotHome::Frozen => {}
        }
    }

    async fn say_goodbye(mut self, now: Now) {
        self.tenure.view.leave(now.instant);
        let goodbye = self.beat(now.instant);
        let goodbye = self.bus.send(&self.subjects.beat(goodbye));
        let sent = async {
            goodbye.await;
            self.bus.flush().await;
        };
        if Box::pin(timeout(GOODBYE_AGE_MAX, sent)).await.is_err() {
            warn!("the goodbye to the other nodes did not leave");
        }
    }
}

#[cfg(test)]
mod tests;
