//! The bounded way into the shards from the doors: each call names what it does when the way is full.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout_at};
use tracing::debug;

use super::ask::Question;
use super::board::Board;
use super::directory::Directory;
use super::homes::Homes;
use super::homes::heat::HeatRules;
use super::homes::publishers::{NotConfigured, Spread};
use super::lane::LaneBounds;
use super::socket::DeviceSocket;
use super::way_in::{PublishRequest, WayIn};
use super::ways::ToNodes;
use super::{Plan, Shard, directory, lane, run};
use crate::auth::Grant;
use crate::clock;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::seat::{GiveWay, Seat};
use crate::store::writer::{StoreHandle, Wake};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Cursor, DeviceName, Encoding, Epoch, NameKey, RoomName, Seen};
use roomcast_core::room::ladder::{RoomStep, Step};
use roomcast_core::room::message::{Message, Published};
use roomcast_core::room::pace::RoomSettings;
use roomcast_core::room::receipt::{HomeReceipt, SegmentReceipt};
use roomcast_core::room::view::{ClosedView, RecallView, RoomLine, RoomView, StreamRefusal};
use roomcast_core::room::{Ask, Counts, Told};
use roomcast_core::wire::frame;

/// The shard's way in is full: nothing was taken. The publisher hears 503 with `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's inbox is full")]
pub struct Busy;

/// The reason why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nothing was taken.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The shard took the request and ended without an answer. The outcome is unknown.
    #[error("the shard ended without an answer")]
    Silent,
}

/// The answer of a shard.
pub type Answered<T> = Result<T, Unanswered>;

/// A device's request, as the viewer door knows it before the 101.
#[derive(Debug)]
pub struct Hello {
    /// The room of the URL.
    pub room: RoomName,
    /// Encoding of the frames, from the subprotocol.
    pub encoding: Encoding,
    /// The parameter `cursor=`.
    pub cursor: Option<Cursor>,
    /// The parameter `seen=`.
    pub seen: Option<Seen>,
    /// The parameter `device=`.
    pub device: Option<DeviceName>,
    /// The rooms that the device may join.
    pub grant: Grant,
    /// A place among the node's connections.
    pub seat: Seat,
}

/// A device whose handshake is over: its plain socket, on its way to a shard.
#[derive(Debug)]
pub struct Arrival {
    /// Non-blocking, no longer registered with any runtime.
    pub stream: std::net::TcpStream,
    /// Bytes read beyond the request.
    pub early: Bytes,
    /// The request.
    pub hello: Hello,
}

/// A request of a door to a shard.
#[derive(Debug)]
pub(super) enum DoorRequest {
    /// Answered at once.
    Question(Question),
    /// About a room's reliable stream. Answered when the room knows: the store may have to be read or
    /// written.
    Stream { room: RoomName, ask: Ask, reply: oneshot::Sender<Told> },
    /// Answered when all that waited has left.
    Drain { reply: oneshot::Sender<()> },
    /// Answered when no connection is left.
    Farewell { reply: oneshot::Sender<()> },
    /// As `Farewell`, and the rooms go on for the devices of other nodes.
    PartWithDevices { reply: oneshot::Sender<()> },
}

/// A request on its way to a shard, and the way of the answer.
struct Errand {
    request: DoorRequest,
    answer: oneshot::Receiver<()>,
}

/// All shards of the node, as the doors see them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    ways_in: Arc<[Arc<WayIn>]>,
    home_key: NameKey,
    /// Locked for one look-up at a time, by joins, and by homes a few times a second.
    directory: Arc<Mutex<Directory>>,
    board: Arc<Board>,
    /// The bounds past which a room takes further shards.
    heat: HeatRules,
}

/// The URL of the node to which the devices of a room are sent; `None`: they stay.
pub type UrlOf = Arc<dyn Fn(&RoomName) -> Option<Arc<str>> + Send + Sync>;

impl Shards {
    /// Starts a thread per shard. `store` starts the store, with a port for each wake, and names the ways to other
    /// nodes in a cluster.
    ///
    /// # Errors
    /// Those of `store`. Or the system gives no more threads, runtimes or random numbers. Threads already started
    /// are stopped.
    pub(crate) fn start<E: From<io::Error>>(
        config: &Config,
        store: impl FnOnce(Vec<Wake>) -> Result<(StoreHandle, Option<ToNodes>), E>,
        metrics: &Metrics,
    ) -> Result<(Self, Vec<JoinHandle<()>>, StoreHandle), E> {
        let count = config.shards;
        let ways_in: Arc<[Arc<WayIn>]> = (0..count).map(|_| Arc::new(WayIn::new())).collect();
        let hot_rooms: Arc<BTreeSet<RoomName>> = Arc::new(config.hot_rooms.iter().cloned().collect());
        let home_key = directory::draw_home_key()?;
        let directory = Arc::new(Mutex::new(Directory::new(count, home_key, Arc::clone(&hot_rooms))));
        let board = Arc::new(Board::new(count, config.outbound_bytes_max));
        // The same for every shard.
        let mut heat = Plan::new(0, count, config.flush, config.heartbeat, 0).heat;
        heat.hot_members = config.hot_members;
        let shards = Self { ways_in: Arc::clone(&ways_in), home_key, directory, board, heat };
        let wakes =
            ways_in.iter().cloned().map(|way_in| -> Wake { Box::new(move || way_in.wake.notify_one()) });
        let (mut store, to_nodes) = store(wakes.collect())?;
        let mut threads = Vec::new();
        let lanes = lane::mesh(count, LaneBounds::default());
        for (index, (lanes, port)) in lanes.into_iter().zip(store.ports.drain(..)).enumerate() {
            let run_seed = getrandom::u64().map_err(io::Error::other)?;
            let mut plan = Plan::new(index, count, config.flush, config.heartbeat, run_seed);
            plan.home_key = home_key;
            plan.device_keys = config.device_keys.clone();
            plan.heat = heat;
            plan.hot_rooms = Arc::clone(&hot_rooms);
            plan.meter = clock::thread_cpu;
            let way = to_nodes.as_ref().map(|to| (Arc::clone(&to.slots), to.ways[index].clone()));
            let started = run::start(plan, lanes, way, shards.clone(), port, metrics.clone());
            threads.push(started.inspect_err(|_| shards.stop())?);
        }
        Ok((shards, threads, store))
    }

    /// The key of `directory::home` on this node.
    pub(crate) fn home_key(&self) -> NameKey {
        self.home_key
    }

    /// A function that wakes a shard.
    pub(crate) fn waker(&self, shard: usize) -> Arc<dyn Fn() + Send + Sync> {
        let way_in = Arc::clone(&self.ways_in[shard]);
        Arc::new(move || way_in.wake.notify_one())
    }

    /// Has every shard take over the parts of a configuration that a reload may change. The caller bounds the
    /// wait.
    pub async fn follow(&self, config: &Config) {
        self.board.limit_owed(config.outbound_bytes_max);
        // A shard that is silent must not keep the others at keys that are no keys any more.
        self.tell_all(|| {
            let rules = config.flush;
            let keys = config.device_keys.clone();
            let (question, answer) = Question::new(move |shard, _| {
                shard.homes.follow(rules);
                shard.residents.follow(rules, keys);
            });
            Errand { request: DoorRequest::Question(question), answer }
        })
        .await;
    }

    /// Publishes checked messages to a room, all of them or none entering its inbox.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn publish(&self, room: RoomName, messages: Vec<Message>) -> Answered<Published> {
        let (reply, answer) = oneshot::channel();
        let bytes = messages.iter().map(|message| message.wire_bytes).sum();
        let at = clock::now().instant;
        self.ways_in[self.home(&room)].push_publish(PublishRequest { room, messages, bytes, at, reply })?;
        answer.await.map_err(|_| Unanswered::Silent)
    }

    /// Opens or configures a room.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait. The inner error is the room's own reason.
    pub async fn configure(
        &self,
        room: RoomName,
        settings: RoomSettings,
    ) -> Answered<Result<Box<RoomView>, NotConfigured>> {
        let view = self.ask_home(&room, |homes, room, now| {
            // Boxed, as each view on its way: an answer is part of every future that waits for it.
            homes.configure(room, settings, now).map(Box::new)
        });
        match view.await? {
            Ok(view) => Ok(Ok(self.whole(room, view).await)),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// The view of a room; `None` if the room is not open.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn describe(&self, room: RoomName) -> Answered<Option<Box<RoomView>>> {
        let view = self.ask_home(&room, |homes, room, now| {
            // An idle room hears of a step with its next input, which may be far away.
            homes.tell_step_to(room, now);
            homes.describe(room, now.instant).map(Box::new)
        });
        let Some(view) = view.await? else { return Ok(None) };
        Ok(Some(self.whole(room, view).await))
    }

    /// Completes a home's view of a room with the counts of other shards, and with the placement of further
    /// devices. The home has answered, so a shard that is silent for `COUNTS_AGE_MAX` only leaves its
    /// counts out.
    async fn whole(&self, room: RoomName, mut view: Box<RoomView>) -> Box<RoomView> {
        // The places behind the shards are other nodes, which the door asks.
        let here = view.shards.iter().map(|segment| segment.shard).filter(|shard| *shard < self.count());
        let counts = self.counts_on(here.collect(), &room, &view.run).await;
        for (shard, counts) in counts {
            if let Some(segment) = view.shards.iter_mut().find(|segment| segment.shard == shard) {
                segment.counts = counts;
                view.counts += counts;
            }
        }
        view.placed_on = self.directory().shards_of(&room);
        view
    }

    /// The counts of a room's members on this node, for the home of the room on another node. A shard that is
    /// silent for `COUNTS_AGE_MAX` only leaves its counts out.
    pub async fn counts(&self, room: &RoomName, run: &str) -> Counts {
        let mut sum = Counts::default();
        for (_, counts) in self.counts_on((0..self.count()).collect(), room, run).await {
            sum += counts;
        }
        sum
    }

    async fn counts_on(&self, shards: Vec<usize>, room: &RoomName, run: &str) -> Vec<(usize, Counts)> {
        let deadline = clock::now().instant + COUNTS_AGE_MAX;
        let asked = shards.into_iter().map(|shard| {
            let room = room.clone();
            (shard, self.send(shard, move |shard, _| shard.residents.counts(&room)))
        });
        // All of them first, so that the slowest shard bounds the wait.
        let asked: Vec<_> = asked.collect();
        let mut heard = Vec::new();
        for (shard, answer) in asked {
            let Ok(answer) = answer else { continue };
            // A shard may know another life of the room.
            if let Ok(Ok(Some((of, counts)))) = timeout_at(deadline.into(), answer).await
                && of.to_string() == run
            {
                heard.push((shard, counts));
            }
        }
        heard
    }

    /// The `limit` rooms with most members, over all shards.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn rooms_by_members(&self, limit: usize) -> Answered<Vec<RoomLine>> {
        let mut lines = Vec::new();
        for shard in 0..self.count() {
            let asked = self.ask(shard, move |shard, now| shard.homes.rooms_by_members(limit, now.instant));
            lines.extend(asked.await?);
        }
        lines.sort_by(|a, b| b.members.cmp(&a.members).then_with(|| a.room.cmp(&b.room)));
        lines.truncate(limit);
        Ok(lines)
    }

    /// Closes a room and tells the members. `None` if the room was not open.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn close(&self, room: RoomName) -> Answered<Option<ClosedView>> {
        self.ask_home(&room, |homes, room, now| homes.close_room(room, now)).await
    }

    /// Closes a room and tells the members, and forgets the room's reliable stream.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait. The inner error is the reason why the stream stays.
    pub async fn end_stream(&self, room: RoomName) -> Result<Result<ClosedView, StreamRefusal>, Unanswered> {
        let told = self.ask_stream(room, Ask::EndStream).await?;
        let Told::StreamEnded(ended) = told else { unreachable!("each ask has its own answer") };
        Ok(ended)
    }

    /// The newest `limit` messages of a room's history after `seen`; `None` if the room is not open.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn history(&self, room: RoomName, seen: Option<Seen>, limit: usize) -> Answered<Option<Bytes>> {
        self.ask_home(&room, move |homes, room, now| homes.history(room, seen, limit, now)).await
    }

    /// The home's part of the receipt of a reliable message. [`Shards::receipt_part`] of each node with
    /// members completes it.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait. The inner error is the reason why there is no receipt.
    pub async fn receipt(
        &self,
        room: RoomName,
        offset: u64,
    ) -> Answered<Result<Box<HomeReceipt>, StreamRefusal>> {
        let told = self.ask_stream(room, Ask::Receipt { offset }).await?;
        let Told::Receipt(receipt) = told else { unreachable!("each ask has its own answer") };
        Ok(receipt)
    }

    /// The part of this node's members in a receipt: counts of the devices that have the message.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn receipt_part(&self, room: &RoomName, epoch: Epoch, offset: u64) -> Answered<SegmentReceipt> {
        let mut all = SegmentReceipt::default();
        for shard in 0..self.count() {
            let room = room.clone();
            let part = self.ask(shard, move |shard, _| shard.residents.receipt(&room, epoch, offset)).await?;
            part.into_iter().for_each(|part| all.merge(part));
        }
        Ok(all)
    }

    /// The spread of a room with its home here; `None`: the room is not open.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn spread(&self, room: &RoomName) -> Answered<Option<Spread>> {
        self.ask_home(room, |homes, room, now| homes.spread(room, now.instant)).await
    }

    /// The bounds past which a room takes further nodes: those of a shard, for all shards of a node.
    #[must_use]
    pub fn heat_of_nodes(&self, nodes: usize) -> HeatRules {
        let HeatRules { shards, hot_members, hot_permille } = self.heat;
        let of_node = |of_shard: u64| of_shard.saturating_mul(shards as u64);
        HeatRules {
            shards: nodes.max(1),
            hot_members: of_node(hot_members),
            hot_permille: of_node(hot_permille),
        }
    }

    /// True if the room is in `shards.hot_rooms`.
    #[must_use]
    pub fn is_listed(&self, room: &RoomName) -> bool {
        self.directory().is_listed(room)
    }

    /// Takes a reliable message back: durable when the result is `Ok(Ok(_))`. A second recall gives the
    /// first.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait. The inner error is the reason why the message stays.
    pub async fn recall(&self, room: RoomName, offset: u64) -> Answered<Result<RecallView, StreamRefusal>> {
        let told = self.ask_stream(room, Ask::Recall { offset }).await?;
        let Told::Recalled(recalled) = told else { unreachable!("each ask has its own answer") };
        Ok(recalled)
    }

    /// One page of the reliable messages that are alive behind a cursor. Without a cursor, or with a cursor
    /// of another epoch, the page starts at the beginning.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait. The inner error is the reason why there is no page.
    pub async fn reliable(
        &self,
        room: RoomName,
        after: Option<Cursor>,
    ) -> Answered<Result<Bytes, StreamRefusal>> {
        let told = self.ask_stream(room.clone(), Ask::Pull { after }).await?;
        let Told::Pulled(pulled) = told else { unreachable!("each ask has its own answer") };
        // Encoded here, on the door's thread: a page of 64 KiB would hold up the shard's passes.
        Ok(pulled.map(|(opening, reset)| frame::reliable_page(&room, &opening, reset)))
    }

    /// A room's step of the ladder; `None`: the room is not open.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn room_step(&self, room: RoomName) -> Answered<Option<RoomStep>> {
        self.ask_home(&room, |homes, room, _| homes.room_step(room)).await
    }

    /// Gives an open room a step of its own, or takes the step back. `None`: the room is not open.
    ///
    /// # Errors
    /// [`Unanswered`]. The caller bounds the wait.
    pub async fn set_own_step(&self, room: RoomName, step: Option<Step>) -> Answered<Option<RoomStep>> {
        self.ask_home(&room, move |homes, room, now| homes.set_own_step(room, step, now)).await
    }

    /// The board of all shards' steps.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// True if the room takes no device: the door answers 503 before the upgrade.
    #[must_use]
    pub fn refuses_joins(&self, room: &RoomName) -> bool {
        let own = self.directory().step_of(room);
        own.unwrap_or_else(|| self.board.in_force(self.home(room))) == Step::JoinsRefused
    }

    /// By shard: true if the shard answers within a second.
    pub async fn answering(&self) -> Vec<bool> {
        let deadline = clock::now().instant + Duration::from_secs(1);
        let asked: Vec<_> = (0..self.count()).map(|shard| self.send(shard, |_, _| ())).collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(match answer {
                Ok(answer) => matches!(timeout_at(deadline.into(), answer).await, Ok(Ok(()))),
                Err(Busy) => false,
            });
        }
        answers
    }

    /// Has connections of an address give way to another address, until the call is met.
    pub async fn give_way(&self, call: GiveWay) {
        let mut left = call.connections;
        for shard in 0..self.count() {
            // A shard that is full or silent keeps its connections: another call comes with the next refusal.
            let asked = self.ask(shard, move |shard, now| shard.residents.give_way(call.share, left, now));
            left = left.saturating_sub(asked.await.unwrap_or(0));
            if left == 0 {
                return;
            }
        }
    }

    /// Has up to `most` devices go to other nodes: those older than
    /// [`ELSEWHERE_INTERVAL`](roomcast_core::limits::ELSEWHERE_INTERVAL) whose only room `url_of` has a URL
    /// for. Returns the number of closed connections.
    pub async fn send_elsewhere(&self, url_of: UrlOf, most: u32) -> u32 {
        let mut left = most;
        for shard in 0..self.count() {
            let url_of = Arc::clone(&url_of);
            // A shard that is full or silent keeps its connections: the next second asks again.
            let asked =
                self.ask(shard, move |shard, now| shard.residents.send_elsewhere(&*url_of, left, now));
            left = left.saturating_sub(asked.await.unwrap_or(0));
            if left == 0 {
                break;
            }
        }
        most - left
    }

    /// Hands a device to the shard that placement names.
    ///
    /// # Errors
    /// [`Busy`]: the shard has too many arrivals waiting, and the socket is closed.
    pub fn admit(&self, arrival: Arrival) -> Result<(), Busy> {
        let room = arrival.hello.room.clone();
        let shard = self.directory().find(&room, |shard| self.has_space(shard)).ok_or(Busy)?;
        self.ways_in[shard].arrivals.push(arrival).map_err(|_| Busy)?;
        self.directory().placed(&room, shard);
        self.ways_in[shard].wake.notify_one();
        Ok(())
    }

    /// True if an arrival for this room would find a place. If not, the door answers 503 before the upgrade.
    #[must_use]
    pub fn has_room_for(&self, room: &RoomName) -> bool {
        self.directory().find(room, |shard| self.has_space(shard)).is_some()
    }

    fn has_space(&self, shard: usize) -> bool {
        !self.ways_in[shard].arrivals.is_full()
    }

    /// Rooms whose further devices are placed on several shards.
    #[must_use]
    pub fn hot_rooms(&self) -> usize {
        self.directory().hot_rooms()
    }

    /// Stops all shards at once. Their threads end; connections are cut.
    pub fn stop(&self) {
        for way_in in &*self.ways_in {
            way_in.stopped.store(true, Ordering::Relaxed);
            way_in.wake.notify_one();
        }
    }

    /// The placement of rooms. No caller holds the lock while waiting for anything.
    pub(super) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock()
    }

    /// The way into a shard.
    pub(super) fn way_in(&self, shard: usize) -> &WayIn {
        &self.ways_in[shard]
    }

    fn count(&self) -> usize {
        self.ways_in.len()
    }

    fn home(&self, room: &RoomName) -> usize {
        directory::home(room, self.home_key, self.count())
    }

    /// Asks the home of a room, and waits for the answer.
    async fn ask_home<T: Send + 'static>(
        &self,
        room: &RoomName,
        ask: impl FnOnce(&mut Homes, &RoomName, Now) -> T + Send + 'static,
    ) -> Answered<T> {
        let name = room.clone();
        self.ask(self.home(room), move |shard, now| ask(&mut shard.homes, &name, now)).await
    }

    /// Asks a shard, and waits for the answer.
    async fn ask<T: Send + 'static>(
        &self,
        shard: usize,
        ask: impl FnOnce(&mut Shard<DeviceSocket>, Now) -> T + Send + 'static,
    ) -> Answered<T> {
        self.send(shard, ask)?.await.map_err(|_| Unanswered::Silent)
    }

    /// Sends a question to a shard. The answer comes through the receiver.
    fn send<T: Send + 'static>(
        &self,
        shard: usize,
        ask: impl FnOnce(&mut Shard<DeviceSocket>, Now) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Busy> {
        let (question, answer) = Question::new(ask);
        self.ways_in[shard].push_request(DoorRequest::Question(question))?;
        Ok(answer)
    }

    /// Stops a shard in the middle of a request, with its queue full, until the result is dropped.
    #[cfg(test)]
    pub(crate) async fn keep_busy(&self, shard: usize) -> std::sync::mpsc::Sender<()> {
        let (work, over) = std::sync::mpsc::channel::<()>();
        drop(self.send(shard, move |_, _| {
            let _ = over.recv();
        }));
        // The shard takes its requests by turns: the queue is full for good once it stays full.
        for _ in 0..100 {
            while self.send(shard, |_, _| ()).is_ok() {}
            sleep(Duration::from_millis(1)).await;
        }
        work
    }

    /// Asks the home of a room about the reliable stream, and waits for the answer.
    async fn ask_stream(&self, room: RoomName, ask: Ask) -> Answered<Told> {
        let (reply, answer) = oneshot::channel();
        self.ways_in[self.home(&room)].push_request(DoorRequest::Stream { room, ask, reply })?;
        answer.await.map_err(|_| Unanswered::Silent)
    }

    /// Has the directory hear what homes have to say about placement and steps.
    pub(super) fn hear_homes(&self, homes: &mut Homes) {
        while let Some(scatter) = homes.poll_scatter() {
            debug!(room = %scatter.room, width = scatter.width, "a hot room is placed anew");
            self.directory().scatter(scatter);
        }
        while let Some(own) = homes.poll_own_step() {
            self.directory().own_step(own);
        }
    }

    pub(super) async fn ask_all(&self, request: impl Fn(oneshot::Sender<()>) -> DoorRequest) {
        self.tell_all(|| {
            let (reply, answer) = oneshot::channel();
            Errand { request: request(reply), answer }
        })
        .await;
    }

    /// Sends every shard a request at once and waits for all answers. A stopped shard counts as done. A shard
    /// with a full queue is asked again until the request fits.
    async fn tell_all(&self, errand: impl Fn() -> Errand) {
        let mut answers = Vec::new();
        let mut untold: Vec<_> = self.ways_in.iter().collect();
        loop {
            untold.retain(|way_in| {
                let Errand { request, answer } = errand();
                let is_told = way_in.push_request(request).is_ok();
                answers.extend(is_told.then_some(answer));
                !is_told && !way_in.stopped.load(Ordering::Relaxed)
            });
            if untold.is_empty() {
                break;
            }
            sleep(FULL_QUEUE_PAUSE).await;
        }
        for answer in answers {
            answer.await.ok();
        }
    }
}

/// Longest wait of a room's view for the counts of other shards.
const COUNTS_AGE_MAX: Duration = Duration::from_secs(1);

/// Pause before a shard with a full request queue is asked again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::Args;
    use crate::seat::Seats;
    use crate::store::{StoreAnswer, StoreRequest};
    use roomcast_core::room::pace::RoomRules;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    fn heat(shards: usize) -> HeatRules {
        Plan::new(0, shards, RoomRules::default(), Duration::from_secs(10), 1).heat
    }

    /// A shard that takes nothing by itself.
    fn asleep() -> Shards {
        let home_key = NameKey::default();
        let directory = Arc::new(Mutex::new(Directory::new(1, home_key, Arc::default())));
        let ways_in = Arc::new([Arc::new(WayIn::new())]);
        Shards { ways_in, home_key, directory, board: Arc::new(Board::new(1, 1)), heat: heat(1) }
    }

    fn room() -> RoomName {
        RoomName::parse("r1").unwrap()
    }

    #[tokio::test]
    async fn a_shard_that_ends_with_a_request_leaves_its_outcome_unknown() {
        let shards = asleep();
        let way_in = &shards.ways_in[0];
        let (configured, published, ()) = tokio::join!(
            shards.configure(room(), RoomSettings::default()),
            shards.publish(room(), Vec::new()),
            async {
                drop(way_in.requests.pop());
                drop(way_in.publishes.pop());
            }
        );
        assert_eq!(configured.unwrap_err(), Unanswered::Silent);
        assert_eq!(published.unwrap_err(), Unanswered::Silent);
    }

    /// A shard that has no other.
    fn alone() -> Shard<DeviceSocket> {
        let plan = Plan::new(0, 1, RoomRules::default(), Duration::from_secs(10), 1);
        Shard::new(plan, lane::mesh(1, LaneBounds::default()).remove(0), clock::now().instant)
    }

    /// Has a shard answer the next question that waits for it.
    fn answer_next(shards: &Shards, shard: usize, answering: &mut Shard<DeviceSocket>) {
        let Some(DoorRequest::Question(asked)) = shards.ways_in[shard].requests.pop() else {
            panic!("a question")
        };
        asked.answer(answering, shards, clock::now());
    }

    /// Fills the queue of a shard with requests.
    fn fill(shards: &Shards, shard: usize) {
        while shards.send(shard, |_, _| ()).is_ok() {}
    }

    #[tokio::test]
    async fn a_room_that_can_not_be_opened_is_no_full_inbox() {
        let shards = asleep();
        let mut shard = alone();
        shard.drain();
        let (configured, ()) = tokio::join!(shards.configure(room(), RoomSettings::default()), async {
            answer_next(&shards, 0, &mut shard);
        });
        assert_eq!(configured.unwrap().unwrap_err(), NotConfigured::NotOpened);
    }

    #[tokio::test]
    async fn a_shard_whose_queue_is_full_is_told_to_drain_once_it_has_room() {
        let shards = asleep();
        let way_in = &shards.ways_in[0];
        fill(&shards, 0);
        assert_eq!(shards.close(room()).await.unwrap_err(), Unanswered::Busy(Busy), "nothing was taken");
        let mut heard = Vec::new();
        let shard = async {
            while heard.len() < 3 {
                match way_in.requests.pop() {
                    Some(DoorRequest::Drain { reply } | DoorRequest::Farewell { reply }) => {
                        heard.push(());
                        reply.send(()).unwrap();
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::join!(shards.drain(), shard);
        assert_eq!(heard.len(), 3, "drain, drain, farewell");
    }

    #[tokio::test]
    async fn a_silent_shard_keeps_no_other_from_following_a_reload() {
        let home_key = NameKey::default();
        let directory = Arc::new(Mutex::new(Directory::new(2, home_key, Arc::default())));
        let ways_in = Arc::new([Arc::new(WayIn::new()), Arc::new(WayIn::new())]);
        let shards =
            Shards { ways_in, home_key, directory, board: Arc::new(Board::new(2, 1)), heat: heat(2) };
        let config = Config::load(&Args::default(), std::iter::empty()).unwrap();
        let follow = shards.follow(&config);
        assert!(timeout(Duration::ZERO, follow).await.is_err(), "nobody answers");
        answer_next(&shards, 1, &mut alone());
    }

    /// Another shard, which holds a few of the room's members, has its queue full of requests.
    #[tokio::test]
    async fn what_a_home_has_done_is_not_said_to_be_untaken_because_another_shard_is_busy() {
        let home_key = NameKey::default();
        let directory = Arc::new(Mutex::new(Directory::new(2, home_key, Arc::default())));
        let ways_in = Arc::new([Arc::new(WayIn::new()), Arc::new(WayIn::new())]);
        let shards =
            Shards { ways_in, home_key, directory, board: Arc::new(Board::new(2, 1)), heat: heat(2) };
        let home = directory::home(&room(), home_key, 2);
        let mut pair: Vec<Shard<DeviceSocket>> = lane::mesh(2, LaneBounds::default())
            .into_iter()
            .enumerate()
            .map(|(index, lanes)| {
                let plan = Plan::new(index, 2, RoomRules::default(), Duration::from_secs(10), 1);
                Shard::new(plan, lanes, clock::now().instant)
            })
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let device = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = DeviceSocket::new(listener.accept().await.unwrap().0);
        let seat = Seats::new(1).take().unwrap();
        let now = clock::now();
        let key = pair[1 - home].residents.connect(socket, Encoding::Json, Grant::Any, seat, now);
        pair[1 - home].residents.join(key, &room(), None, None, now);
        pair[1 - home].turn(now);
        pair[home].turn(now);
        // The join waits until the home knows the stream.
        let Some(StoreRequest::Load { room: of, life, .. }) = pair[home].homes.poll_store() else {
            panic!("a load")
        };
        pair[home].homes.take_stored(StoreAnswer::Loaded { room: of, life, stream: None }, now);
        fill(&shards, 1 - home);
        let (configured, ()) = tokio::join!(shards.configure(room(), RoomSettings::default()), async {
            answer_next(&shards, home, &mut pair[home]);
        });
        let view = configured.expect("it was taken").unwrap();
        assert_eq!(view.shards.iter().map(|segment| segment.shard).collect::<Vec<_>>(), [1 - home]);
        drop(device);
    }
}
