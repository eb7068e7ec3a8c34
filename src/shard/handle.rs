//! The bounded way into the shards from the doors: each call names what it does when the way is full.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout_at};

use super::board::Board;
use super::directory::Directory;
use super::heat::HeatRules;
use super::lane::LaneBounds;
use super::publishers::NotConfigured;
use super::way_in::{PublishRequest, WayIn};
use super::{Plan, directory, lane, run};
use crate::auth::Grant;
use crate::clock;
use crate::metrics::Metrics;
use crate::seat::Seat;
use crate::store::Store;
use crate::store::writer::{self, StoreHandle, Wake};
use roomcast_core::room::Counts;
use roomcast_core::room::id::{Cursor, DeviceName, Encoding, Epoch, RoomName, Run, Seen};
use roomcast_core::room::ladder::{RoomStep, Step};
use roomcast_core::room::message::{Message, Published};
use roomcast_core::room::pace::{RoomRules, RoomSettings};
use roomcast_core::room::receipt::Acks;
use roomcast_core::room::view::{
    ClosedView, HistoryPage, RecallView, ReceiptView, ReliablePage, RoomLine, RoomView, StreamRefusal,
};

/// The shard's way in is full: nothing was taken. The publisher hears 503 with `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's inbox is full")]
pub struct Busy;

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nothing was taken.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The shard took the request and ended without an answer: what became of it is unknown.
    #[error("the shard ended without an answer")]
    Silent,
}

/// What the viewer door learnt of a device before it answered 101.
#[derive(Debug)]
pub struct Hello {
    /// The room of the URL.
    pub room: RoomName,
    /// From the subprotocol.
    pub encoding: Encoding,
    /// `cursor=`
    pub cursor: Option<Cursor>,
    /// `seen=`
    pub seen: Option<Seen>,
    /// `device=`
    pub device: Option<DeviceName>,
    /// Which rooms it may join.
    pub grant: Grant,
    /// Its place among the node's connections.
    pub seat: Seat,
}

/// A device whose handshake is over: its plain socket, on its way to a shard.
#[derive(Debug)]
pub struct Arrival {
    /// Non-blocking, no longer registered with any runtime.
    pub stream: std::net::TcpStream,
    /// What was read beyond the request.
    pub early: Bytes,
    /// What the request said.
    pub hello: Hello,
}

/// What the shards are started with.
#[derive(Debug, Clone)]
pub struct ShardsPlan {
    /// How many; at least one.
    pub count: usize,
    /// The flush policy of rooms that say nothing else.
    pub rules: RoomRules,
    /// How often devices are to ping.
    pub heartbeat: Duration,
    /// Members past which a room is hot.
    pub hot_members: u64,
    /// Rooms that are hot from the first device on.
    pub hot_rooms: Vec<RoomName>,
    /// Bytes that all devices together may be owed.
    pub outbound_bytes_max: u64,
}

/// A home's part of a receipt, and the acknowledgements of segments that are no more.
pub(super) type HomeReceipt = (Result<Box<ReceiptView>, StreamRefusal>, Acks);

/// Everything else a door asks of a shard.
#[derive(Debug)]
pub(super) enum Request {
    Configure {
        room: RoomName,
        settings: RoomSettings,
        reply: oneshot::Sender<Result<Box<RoomView>, NotConfigured>>,
    },
    Describe {
        room: RoomName,
        reply: oneshot::Sender<Option<Box<RoomView>>>,
    },
    RoomsByMembers {
        limit: usize,
        reply: oneshot::Sender<Vec<RoomLine>>,
    },
    /// What one shard counts of a room's members, and in which life of it.
    Counts {
        room: RoomName,
        reply: oneshot::Sender<Option<(Run, Counts)>>,
    },
    Close {
        room: RoomName,
        reply: oneshot::Sender<Option<ClosedView>>,
    },
    History {
        room: RoomName,
        seen: Option<Seen>,
        limit: usize,
        reply: oneshot::Sender<Option<HistoryPage>>,
    },
    Receipt {
        room: RoomName,
        offset: u64,
        reply: oneshot::Sender<HomeReceipt>,
    },
    /// What one shard counts of a receipt.
    Acks {
        room: RoomName,
        epoch: Epoch,
        offset: u64,
        reply: oneshot::Sender<Option<Acks>>,
    },
    Recall {
        room: RoomName,
        offset: u64,
        reply: oneshot::Sender<Result<RecallView, StreamRefusal>>,
    },
    Reliable {
        room: RoomName,
        after: Option<Cursor>,
        reply: oneshot::Sender<Result<ReliablePage, StreamRefusal>>,
    },
    /// Where a room stands on the ladder.
    RoomStep {
        room: RoomName,
        reply: oneshot::Sender<Option<RoomStep>>,
    },
    /// Gives it a step of its own, or takes it back.
    SetOwnStep {
        room: RoomName,
        step: Option<Step>,
        reply: oneshot::Sender<Option<RoomStep>>,
    },
    /// Answered when the request is taken: the shard takes turns.
    Answer {
        reply: oneshot::Sender<()>,
    },
    /// Answered when everything that waited has left.
    Drain {
        reply: oneshot::Sender<()>,
    },
    /// Answered when no connection is left.
    Farewell {
        reply: oneshot::Sender<()>,
    },
}

/// All shards of the node, as the doors see them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    ways_in: Arc<[Arc<WayIn>]>,
    /// Held for as long as one look-up takes: joins ask it, homes tell it a few times a second.
    directory: Arc<Mutex<Directory>>,
    board: Arc<Board>,
}

impl Shards {
    /// Starts one thread per shard.
    ///
    /// # Errors
    /// When the system gives no more threads, runtimes or random numbers; those already started are stopped.
    pub fn start(
        plan: &ShardsPlan,
        store: Box<dyn Store>,
        metrics: &Metrics,
    ) -> io::Result<(Self, Vec<JoinHandle<()>>, StoreHandle)> {
        let ways_in: Arc<[Arc<WayIn>]> = (0..plan.count).map(|_| Arc::new(WayIn::new())).collect();
        let hot_rooms: Arc<BTreeSet<RoomName>> = Arc::new(plan.hot_rooms.iter().cloned().collect());
        let directory = Arc::new(Mutex::new(Directory::new(plan.count, Arc::clone(&hot_rooms))));
        let board = Arc::new(Board::new(plan.count, plan.outbound_bytes_max));
        let shards = Self { ways_in: Arc::clone(&ways_in), directory, board };
        let wakes =
            ways_in.iter().cloned().map(|way_in| -> Wake { Box::new(move || way_in.wake.notify_one()) });
        let mut store = writer::start(store, wakes.collect())?;
        let mut threads = Vec::new();
        let lanes = lane::mesh(plan.count, LaneBounds::default());
        for (index, (peers, port)) in lanes.into_iter().zip(store.take_ports()).enumerate() {
            let run_seed = getrandom::u64().map_err(io::Error::other)?;
            let of_one = Plan::new(index, plan.count, plan.rules, plan.heartbeat, run_seed);
            let heat = HeatRules { hot_members: plan.hot_members, ..of_one.heat };
            let hot_rooms = Arc::clone(&hot_rooms);
            let of_one = Plan { heat, hot_rooms, meter: clock::thread_cpu, ..of_one };
            let started = run::start(of_one, peers, shards.clone(), port, metrics.clone());
            threads.push(started.inspect_err(|_| shards.stop())?);
        }
        Ok((shards, threads, store))
    }

    /// Publishes checked messages to a room, all of them or none entering its inbox.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound.
    pub async fn publish(&self, room: RoomName, messages: Vec<Message>) -> Result<Published, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let bytes = messages.iter().map(|message| message.wire_bytes).sum();
        let home = directory::home(&room, self.ways_in.len());
        let at = clock::now().instant;
        self.ways_in[home].push_publish(PublishRequest { room, messages, bytes, at, reply })?;
        answer.await.map_err(|_| Unanswered::Silent)
    }

    /// Opens or configures a room.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound. The inner error says why it was not configured.
    pub async fn configure(
        &self,
        room: RoomName,
        settings: RoomSettings,
    ) -> Result<Result<Box<RoomView>, NotConfigured>, Unanswered> {
        let named = room.clone();
        let view =
            self.ask(self.home(&room), |reply| Request::Configure { room: named, settings, reply }).await?;
        Ok(match view {
            Ok(view) => Ok(self.whole(room, view).await),
            Err(refused) => Err(refused),
        })
    }

    /// What a room shows of itself; `None` if it is not open.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound.
    pub async fn describe(&self, room: RoomName) -> Result<Option<Box<RoomView>>, Unanswered> {
        let named = room.clone();
        let view = self.ask(self.home(&room), |reply| Request::Describe { room: named, reply }).await?;
        Ok(match view {
            Some(view) => Some(self.whole(room, view).await),
            None => None,
        })
    }

    /// A home's view of its room, with what other shards count, and where further devices are placed. A shard that does not
    /// say within [`COUNTS_AGE_MAX`] has counted nothing, as far as this view goes: the home has answered.
    async fn whole(&self, room: RoomName, mut view: Box<RoomView>) -> Box<RoomView> {
        let deadline = clock::now().instant + COUNTS_AGE_MAX;
        let asked = view.shards.iter().map(|segment| {
            let (reply, answer) = oneshot::channel();
            let request = Request::Counts { room: room.clone(), reply };
            self.ways_in[segment.shard].push_request(request).map(|()| answer)
        });
        let asked: Vec<_> = asked.collect();
        for (segment, answer) in view.shards.iter_mut().zip(asked) {
            let Ok(answer) = answer else { continue };
            // A shard may know another life of the room.
            if let Ok(Ok(Some((run, counts)))) = timeout_at(deadline.into(), answer).await
                && run.to_string() == view.run
            {
                segment.counts = counts;
                view.counts += counts;
            }
        }
        view.placed_on = self.directory().shards_of(&room);
        view
    }

    /// The `limit` rooms with most members, over all shards.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound.
    pub async fn rooms_by_members(&self, limit: usize) -> Result<Vec<RoomLine>, Unanswered> {
        let mut lines = Vec::new();
        for shard in 0..self.ways_in.len() {
            lines.extend(self.ask(shard, |reply| Request::RoomsByMembers { limit, reply }).await?);
        }
        lines.sort_by(|a, b| b.members.cmp(&a.members).then_with(|| a.room.cmp(&b.room)));
        lines.truncate(limit);
        Ok(lines)
    }

    /// Closes a room; its members are told. `None` if it was not open.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound.
    pub async fn close(&self, room: RoomName) -> Result<Option<ClosedView>, Unanswered> {
        self.ask(self.home(&room), |reply| Request::Close { room, reply }).await
    }

    /// The newest `limit` messages of a room's history after `seen`; `None` if it is not open.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound.
    pub async fn history(
        &self,
        room: RoomName,
        seen: Option<Seen>,
        limit: usize,
    ) -> Result<Option<HistoryPage>, Unanswered> {
        self.ask(self.home(&room), |reply| Request::History { room, seen, limit, reply }).await
    }

    /// How many devices have a reliable message.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound. The inner error says why there is none.
    pub async fn receipt(
        &self,
        room: RoomName,
        offset: u64,
    ) -> Result<Result<ReceiptView, StreamRefusal>, Unanswered> {
        let home = self.home(&room);
        let (receipt, mut acks) =
            self.ask(home, |reply| Request::Receipt { room: room.clone(), offset, reply }).await?;
        let mut receipt = match receipt {
            Ok(receipt) => *receipt,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let epoch = receipt.epoch;
        for shard in 0..self.ways_in.len() {
            let counted =
                self.ask(shard, |reply| Request::Acks { room: room.clone(), epoch, offset, reply }).await?;
            counted.iter().for_each(|counted| acks.merge(counted));
        }
        receipt.acknowledged += acks.count;
        receipt.pending = receipt.online.saturating_sub(receipt.acknowledged + receipt.left);
        receipt.ack_ms = acks.times();
        Ok(Ok(receipt))
    }

    /// Takes a reliable message back: durable when this returns `Ok(Ok(_))`. Recalling it again gives the first recall.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound. The inner error says why it can't be recalled.
    pub async fn recall(
        &self,
        room: RoomName,
        offset: u64,
    ) -> Result<Result<RecallView, StreamRefusal>, Unanswered> {
        self.ask(self.home(&room), |reply| Request::Recall { room, offset, reply }).await
    }

    /// The reliable messages that are alive behind a cursor, as far as one page holds them; without a cursor, or with
    /// one that can't be honoured, from the beginning.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound. The inner error says why there is no page.
    pub async fn reliable(
        &self,
        room: RoomName,
        after: Option<Cursor>,
    ) -> Result<Result<ReliablePage, StreamRefusal>, Unanswered> {
        self.ask(self.home(&room), |reply| Request::Reliable { room, after, reply }).await
    }

    /// Where a room stands on the ladder; `None`: it is not open.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound.
    pub async fn room_step(&self, room: RoomName) -> Result<Option<RoomStep>, Unanswered> {
        self.ask(self.home(&room), |reply| Request::RoomStep { room, reply }).await
    }

    /// Gives an open room a step of its own, or takes it back; `None`: it is not open.
    ///
    /// # Errors
    /// [`Unanswered`]; how long it takes is for the caller to bound.
    pub async fn set_own_step(
        &self,
        room: RoomName,
        step: Option<Step>,
    ) -> Result<Option<RoomStep>, Unanswered> {
        self.ask(self.home(&room), |reply| Request::SetOwnStep { room, step, reply }).await
    }

    /// Where the shards stand on the ladder.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Whether the room takes no device, so that the door can answer 503 before it upgrades.
    #[must_use]
    pub fn refuses_joins(&self, room: &RoomName) -> bool {
        let own = self.directory().step_of(room);
        own.unwrap_or_else(|| self.board.in_force(self.home(room))) == Step::JoinsRefused
    }

    /// Whether each shard answers within a second, by index.
    pub async fn answering(&self) -> Vec<bool> {
        let deadline = clock::now().instant + Duration::from_secs(1);
        let asked: Vec<_> = (0..self.ways_in.len())
            .map(|shard| {
                let (reply, answer) = oneshot::channel();
                self.ways_in[shard].push_request(Request::Answer { reply }).map(|()| answer)
            })
            .collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(match answer {
                Ok(answer) => matches!(timeout_at(deadline.into(), answer).await, Ok(Ok(()))),
                Err(Busy) => false,
            });
        }
        answers
    }

    /// Hands a device to the shard that placement names.
    ///
    /// # Errors
    /// [`Busy`] when that shard has too many arrivals waiting: the socket is closed.
    pub fn admit(&self, arrival: Arrival) -> Result<(), Busy> {
        let room = arrival.hello.room.clone();
        let shard = self.directory().find(&room, |shard| self.has_space(shard)).ok_or(Busy)?;
        self.ways_in[shard].arrivals.push(arrival).map_err(|_| Busy)?;
        self.directory().placed(&room, shard);
        self.ways_in[shard].wake.notify_one();
        Ok(())
    }

    /// Whether an arrival for this room would find a place, so that the door can answer 503 before it upgrades.
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

    /// Drains: publishes are refused, buffers flush, devices get `bye` and 1012. Returns when every connection is
    /// gone; whoever calls it bounds the wait.
    pub async fn drain(&self) {
        // All shards flush before the first says goodbye: their batches have members on other shards. Once all have
        // answered, every batch has been taken into a pass; once they have answered again, those passes are over.
        self.ask_all(|reply| Request::Drain { reply }).await;
        self.ask_all(|reply| Request::Drain { reply }).await;
        self.ask_all(|reply| Request::Farewell { reply }).await;
    }

    /// Stops all shards at once. Their threads end; connections are cut.
    pub fn stop(&self) {
        for way_in in &*self.ways_in {
            way_in.stopped.store(true, Ordering::Relaxed);
            way_in.wake.notify_one();
        }
    }

    /// Where rooms are placed. Nobody holds it while waiting for anything.
    pub(super) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock()
    }

    /// The way into a shard.
    pub(super) fn way_in(&self, shard: usize) -> &WayIn {
        &self.ways_in[shard]
    }

    fn home(&self, room: &RoomName) -> usize {
        directory::home(room, self.ways_in.len())
    }

    async fn ask<T>(
        &self,
        shard: usize,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.ways_in[shard].push_request(request(reply))?;
        answer.await.map_err(|_| Unanswered::Silent)
    }

    /// Asks every shard at once and waits for all of them; one that has stopped counts as done, one whose queue is full
    /// is asked again until it takes the request.
    async fn ask_all(&self, request: impl Fn(oneshot::Sender<()>) -> Request) {
        let (mut answers, mut untold): (_, Vec<_>) = (Vec::new(), self.ways_in.iter().collect());
        loop {
            untold.retain(|way_in| {
                let (reply, answer) = oneshot::channel();
                let is_told = way_in.push_request(request(reply)).is_ok();
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

/// How long a view of a room waits for what other shards count.
const COUNTS_AGE_MAX: Duration = Duration::from_secs(1);

/// How long to wait before a shard whose request queue is full is asked again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard that takes nothing by itself.
    fn asleep() -> Shards {
        let directory = Arc::new(Mutex::new(Directory::new(1, Arc::default())));
        Shards { ways_in: Arc::new([Arc::new(WayIn::new())]), directory, board: Arc::new(Board::new(1, 1)) }
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

    #[tokio::test]
    async fn a_room_that_can_not_be_opened_is_no_full_inbox() {
        let shards = asleep();
        let (configured, ()) = tokio::join!(shards.configure(room(), RoomSettings::default()), async {
            let Some(Request::Configure { reply, .. }) = shards.ways_in[0].requests.pop() else { panic!() };
            reply.send(Err(NotConfigured::NotOpened)).unwrap();
        });
        assert_eq!(configured.unwrap().unwrap_err(), NotConfigured::NotOpened);
    }

    #[tokio::test]
    async fn a_shard_whose_queue_is_full_is_told_to_drain_once_it_has_room() {
        let shards = asleep();
        let way_in = &shards.ways_in[0];
        while way_in.push_request(Request::Answer { reply: oneshot::channel().0 }).is_ok() {}
        assert_eq!(shards.close(room()).await.unwrap_err(), Unanswered::Busy(Busy), "nothing was taken");
        let mut heard = Vec::new();
        let (shard, drain) = (
            async {
                while heard.len() < 3 {
                    match way_in.requests.pop() {
                        Some(Request::Drain { reply } | Request::Farewell { reply }) => {
                            heard.push(());
                            reply.send(()).unwrap();
                        }
                        _ => tokio::task::yield_now().await,
                    }
                }
            },
            shards.drain(),
        );
        tokio::join!(drain, shard);
        assert_eq!(heard.len(), 3, "drain, drain, farewell");
    }

    /// Another shard, which holds a few of the room's members, has its queue full of requests.
    #[tokio::test]
    async fn what_a_home_has_done_is_not_said_to_be_untaken_because_another_shard_is_busy() {
        use roomcast_core::room::Room;
        use roomcast_core::room::view::SegmentView;
        let directory = Arc::new(Mutex::new(Directory::new(2, Arc::default())));
        let ways_in = Arc::new([Arc::new(WayIn::new()), Arc::new(WayIn::new())]);
        let shards = Shards { ways_in, directory, board: Arc::new(Board::new(2, 1)) };
        let home = directory::home(&room(), 2);
        while shards.ways_in[1 - home].push_request(Request::Answer { reply: oneshot::channel().0 }).is_ok() {
        }
        let (configured, ()) = tokio::join!(shards.configure(room(), RoomSettings::default()), async {
            let Some(Request::Configure { reply, .. }) = shards.ways_in[home].requests.pop() else {
                panic!()
            };
            let now = clock::now().instant;
            let mut view = Room::new(room(), Run(1), RoomRules::default(), now).view(home, now);
            let counts = Counts::default();
            view.shards.push(SegmentView { shard: 1 - home, members: 1, pass_us: 7, counts });
            reply.send(Ok(Box::new(view))).unwrap();
        });
        assert!(configured.is_ok(), "it was taken: {configured:?}");
    }
}
