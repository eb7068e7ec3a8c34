//! Assembles the parts of one node, and owns the order in which they stop.
//!
//! Several servers can live in one process: only the descriptor limit is global, and it is only raised.

mod member;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::clock;
pub use crate::cluster::thread::WhyLeave;
use crate::cluster::thread::{ClusterHandle, ClusterStartError};
use crate::config::Config;
use crate::http::accept::places::Places;
use crate::http::accept::{Descriptors, Door, Doorway, accept, stopped};
use crate::http::ops::OperatorDoor;
use crate::http::publisher::PublisherDoor;
use crate::http::viewer::ViewerDoor;
use crate::http::viewer::admission::Admission;
use crate::http::{InForce, Node, Stage};
use crate::metrics::{DoorName, Metrics, ReloadOutcome};
use crate::seat::Seats;
use crate::shard::handle::Shards;
use crate::shard::ways::ToNodes;
use crate::store::Store;
use crate::store::jetstream::LogStartError;
use crate::store::memory::Memory;
use crate::store::redb::{OpenError, Redb};
use crate::store::writer::{self, StoreHandle, Wake};
use roomcast_core::limits::{
    DESCRIPTORS_KEPT, DOORS_LINGER, DRAIN_AGE_MAX, FAREWELL_AGE_MAX, HAND_OVER_DRAIN_AGE_MAX,
    HAND_OVER_LINGER, KERNEL_UNACKED_AGE_MAX, KERNEL_UNSENT_BYTES_MAX, LISTEN_BACKLOG, PULLS_MAX,
    SHARD_ANSWER_AGE_MAX, STORE_BYTES_MAX,
};
use roomcast_core::now::millis;

use member::{Joined, Member};

/// Time between two foldings of histogram observations into their buckets.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// Time covered by a summary of the log.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// The reason why a server did not start. No port is held, and no thread runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address of a door can't be bound.
    #[error("the {} door cannot listen on {address}: {cause}", door.name())]
    Bind {
        /// The door.
        door: DoorName,
        /// The door's configured address.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// The doors' runtime could not be built.
    #[error("cannot start the doors: {0}")]
    Runtime(#[from] io::Error),
    /// The process may open too few descriptors.
    #[error(
        "the limit of open files is {limit}, and this configuration needs {needed}: raise it (ulimit -n, or \
         LimitNOFILE= in a unit), or lower limits.connections"
    )]
    Descriptors {
        /// The limit in force.
        limit: u64,
        /// The least limit with which the node would start.
        needed: u64,
    },
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The log in JetStream can't be opened.
    #[error(transparent)]
    Log(#[from] LogStartError),
    /// The node finds no cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterStartError),
    /// The metrics could not be built.
    #[error("cannot build the metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// A running node. Dropping it stops it at once; [`Server::drain`] stops it gracefully.
#[derive(Debug)]
pub struct Server {
    node: Arc<Node>,
    /// Address of the viewer door, for devices.
    pub viewer_addr: SocketAddr,
    /// Address of the publisher door, for backends.
    pub publisher_addr: SocketAddr,
    /// Address of the operator door, for health and metrics.
    pub ops_addr: SocketAddr,
    stop_doors: watch::Sender<bool>,
    doors: DoorsRuntime,
    shards: Vec<JoinHandle<()>>,
    /// `None` once it was stopped.
    store: Option<StoreHandle>,
    /// `None` without a cluster, and once it was stopped.
    cluster: Option<ClusterHandle>,
    /// Tells the shards about the last reload.
    following: Mutex<Option<task::JoinHandle<()>>>,
}

impl Server {
    /// Starts a node: all ports first (0 chooses a free one), then the shards, then the doors.
    ///
    /// # Errors
    /// [`StartError`]; then no port is held and no thread runs.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let descriptors_max = descriptors();
        let connections_max = places(descriptors_max, config.connections)?;
        let viewer = Bound::at(DoorName::Viewer, config.viewer_listen)?;
        let publisher = Bound::at(DoorName::Publisher, config.publisher_listen)?;
        let ops = Bound::at(DoorName::Operator, config.ops_listen)?;
        let viewer_addr = viewer.address;
        let publisher_addr = publisher.address;
        let ops_addr = ops.address;

        let metrics = Metrics::new(config.shards)?;
        let doors = DoorsRuntime::new()?;
        let mut member = None;
        let start = |wakes| start_store(&config, wakes, &metrics, &mut member);
        let (shards, threads, store) = Shards::start(&config, start, &metrics)?;
        let seats = Seats::shared(connections_max);
        let join = |member: Member| member.join(viewer_addr, &shards, &seats, &metrics);
        let joined = member.map(join).transpose().inspect_err(|_| shards.stop())?;
        let proxies = Arc::new(config.proxies.clone());
        warn_of_open_doors(&config);
        let descriptors = Descriptors::new(seats.clone(), descriptors_max);
        let meters = joined.as_ref().map(Joined::meters);
        let joins = meters.as_ref().map(|meters| meters.of_joins(config.joins_per_second));
        let node = Arc::new(Node {
            shards,
            admission: Mutex::new(Admission::new(config.joins_per_second, joins, clock::now().instant)),
            in_force: RwLock::new(Arc::new(InForce::new(config, meters))),
            seats,
            descriptors: descriptors.clone(),
            store: Arc::clone(&store.health),
            pulls: Places::new(PULLS_MAX),
            cluster: joined.as_ref().map(Joined::doors),
            metrics: metrics.clone(),
            stage: AtomicU8::new(Stage::Serving as u8),
        });

        let (stop_doors, stop) = watch::channel(false);
        let doorway = Doorway { metrics, descriptors, proxies, stop };
        let cluster = {
            // Sockets register with the runtime that is entered.
            let _doors = doors.enter();
            open(viewer, ViewerDoor { node: Arc::clone(&node) }, &doorway)?;
            open(publisher, PublisherDoor { node: Arc::clone(&node) }, &doorway)?;
            open(ops, OperatorDoor { node: Arc::clone(&node) }, &doorway)?;
            let cluster = joined.map(|joined| joined.serve(&node, &doorway.stop));
            tokio::spawn(keep_up(doorway.metrics, doorway.stop));
            cluster
        };
        info!(%viewer_addr, %publisher_addr, %ops_addr, shards = threads.len(), descriptors_max, "started");
        Ok(Self {
            node,
            viewer_addr,
            publisher_addr,
            ops_addr,
            stop_doors,
            doors,
            shards: threads,
            store: Some(store),
            cluster,
            following: Mutex::default(),
        })
    }

    /// The addresses of the three doors as a text for people, with a line to try.
    #[must_use]
    pub fn doors(&self) -> String {
        let Self { viewer_addr, publisher_addr, ops_addr, .. } = self;
        format!(
            "viewer door     ws://{viewer_addr}/v1/rooms/{{room}}/ws\n\
             publisher door  http://{publisher_addr}\n\
             operator door   http://{ops_addr}/metrics\n\n\
             curl http://{publisher_addr}/v1/rooms/r1/messages -H 'content-type: application/json' \
             -d '{{\"type\":\"chat\",\"payload\":\"hello\"}}'\n"
        )
    }

    /// Takes over a configuration, but for the keys that need a restart. Returns once all shards follow, or once
    /// a shard has been silent for [`SHARD_ANSWER_AGE_MAX`]; a silent shard is told on, and the reload counts as
    /// done when it follows.
    pub async fn reconfigure(&self, config: Config) {
        warn_of_open_doors(&config);
        // The doors first: a key that was taken back must not open a door for as long as a shard is silent.
        self.node.reconfigure(config.clone());
        // The newest configuration wins: a shard that heard the former one later would go back to it.
        let former = self.following.lock().take();
        if let Some(former) = former {
            former.abort();
            // An error is the end by `abort`.
            drop(former.await);
        }
        let node = Arc::clone(&self.node);
        let (followed, all_follow) = oneshot::channel();
        let following = self.doors.spawn(async move {
            node.shards.follow(&config).await;
            node.metrics.reloaded(ReloadOutcome::Done);
            // The caller may have stopped waiting.
            let _ = followed.send(());
        });
        *self.following.lock() = Some(following);
        if timeout(SHARD_ANSWER_AGE_MAX, all_follow).await.is_err() {
            warn!("a shard is silent: it keeps the former configuration until it takes requests again");
        }
    }

    /// Counts a configuration with mistakes, which changes nothing.
    pub fn keep_configuration(&self) {
        self.node.metrics.reloaded(ReloadOutcome::Refused);
    }

    /// Waits until the node has to leave its cluster. Without a cluster: for ever.
    pub async fn must_leave(&self) -> WhyLeave {
        match &self.cluster {
            Some(cluster) => cluster.must_leave().await,
            None => pending().await,
        }
    }

    /// Stops gracefully, within [`DRAIN_AGE_MAX`]: readiness fails at once. After the notice, publishes are
    /// refused. In a cluster, devices hear `bye`, and the slots go to other nodes. Then buffers flush and devices
    /// hear `bye`; the doors stop after the shards, so publishers and balancers are answered throughout; the store
    /// stops last.
    pub async fn drain(mut self) {
        let notice = self.node.in_force().config.drain_notice;
        self.node.begin(Stage::Leaving);
        self.node.metrics.draining();
        if let Some(cluster) = &self.cluster {
            cluster.drain();
        }
        info!(connections = self.node.seats.taken(), notice_ms = millis(notice), "draining");
        // A balancer asks every few seconds. Until it has asked, its devices are still served here.
        sleep(notice).await;
        self.node.begin(Stage::Draining);
        let began = clock::now().instant;
        if let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.has_taker()) {
            // The rest of the time is for the shards and the doors.
            let left = DRAIN_AGE_MAX.saturating_sub(notice + DOORS_LINGER * 4);
            Box::pin(hand_over(&self.node, cluster, left)).await;
        }
        let used = notice + clock::now().instant.saturating_duration_since(began);
        let shards_age_max = DRAIN_AGE_MAX.saturating_sub(used + DOORS_LINGER * 2);
        if timeout(shards_age_max, self.node.shards.drain()).await.is_err() {
            warn!(connections = self.node.seats.taken(), "the drain took too long; connections are cut");
        }
        self.stop_doors.send_replace(true);
        // Every loop, connection and task of the doors holds a receiver or ends with one that does.
        if timeout(DOORS_LINGER, self.stop_doors.closed()).await.is_err() {
            warn!("requests under way at the doors are cut");
        }
        self.join_shards();
        if let Some(store) = self.store.take() {
            // What was acknowledged is synced already: a disk that hangs need not be waited for.
            let stopped = task::spawn_blocking(move || drop(store));
            if timeout(DOORS_LINGER, stopped).await.is_err() {
                warn!("the store does not end");
            }
        }
        if let Some(cluster) = self.cluster.take() {
            // Behind the log: the other nodes claim the slots at once.
            let stopped = task::spawn_blocking(move || cluster.stop());
            if timeout(DOORS_LINGER, stopped).await.is_err() {
                warn!("the cluster's thread does not end");
            }
        }
        info!("drained");
    }

    /// Joins threads that have ended. A shard that hangs must not hold the process up.
    fn join_shards(&mut self) {
        self.node.shards.stop();
        for (shard, thread) in self.shards.drain(..).enumerate() {
            if thread.is_finished() && thread.join().is_err() {
                warn!(shard, "a shard had panicked");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.node.shards.stop();
    }
}

/// Says goodbye to the devices of a node, and hands its slots over. First the devices: rooms without members here are
/// small words to their next homes. `left`: the time for both.
async fn hand_over(node: &Node, cluster: &ClusterHandle, left: Duration) {
    if timeout(FAREWELL_AGE_MAX.min(left / 2), node.shards.part_with_devices()).await.is_err() {
        warn!(
            connections = node.seats.taken(),
            "devices are slow to go; their rooms are handed over with them"
        );
    }
    let began = clock::now().instant;
    if timeout(HAND_OVER_DRAIN_AGE_MAX.min(left / 2), cluster.hand_over()).await.is_err() {
        warn!("slots are left that were not handed over: other nodes take them over");
    }
    // A request of a node that had not heard of the next home has an answer here.
    sleep(HAND_OVER_LINGER).await;
    info!(
        took_ms = millis(clock::now().instant.saturating_duration_since(began)),
        "the slots are handed over"
    );
}

/// Starts the store of the configuration. `member` gets the node's part in a cluster.
fn start_store(
    config: &Config,
    wakes: Vec<Wake>,
    metrics: &Metrics,
    member: &mut Option<Member>,
) -> Result<(StoreHandle, Option<ToNodes>), StartError> {
    if let Some(cluster) = &config.cluster {
        let (opened, store) = Member::open(cluster, wakes, metrics)?;
        let to_nodes = opened.to_nodes();
        *member = Some(opened);
        return Ok((store, Some(to_nodes)));
    }
    let store: Box<dyn Store> = match &config.data_dir {
        Some(folder) => Box::new(Redb::open(folder)?),
        None => Box::new(Memory::new(STORE_BYTES_MAX)),
    };
    Ok((writer::start(store, wakes)?, None))
}

/// The places for devices under a limit of descriptors. `asked` is the least number that the configuration
/// asks for.
fn places(limit: u64, asked: Option<u64>) -> Result<u64, StartError> {
    // A node without a place for a device would start, answer every join with 503, and look well.
    let needed = DESCRIPTORS_KEPT + asked.unwrap_or(1);
    if limit < needed {
        return Err(StartError::Descriptors { limit, needed });
    }
    Ok(asked.unwrap_or(limit - DESCRIPTORS_KEPT))
}

/// Writes a line for each door off loopback that asks nobody for a key.
fn warn_of_open_doors(config: &Config) {
    for (door, address, is_open) in [
        (DoorName::Viewer, config.viewer_listen, config.device_keys.is_open()),
        (DoorName::Publisher, config.publisher_listen, config.publisher_keys.is_open()),
        (DoorName::Operator, config.ops_listen, config.ops_keys.is_open()),
    ] {
        if is_open && !address.ip().to_canonical().is_loopback() {
            warn!(door = door.name(), %address, "the door is open to everybody who reaches it: it has no keys");
        }
    }
}

/// Raises the limit of descriptors as far as the system allows. The result is the limit in force.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        warn!(%error, "cannot raise the limit of open files");
    }
    // `None` is "unlimited", but the kernel holds to fs.nr_open, 2^20 by default.
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// The runtime of all three doors. It ends in the background: a runtime must not be waited for on a thread of
/// another one, where tests start and drop servers.
#[derive(Debug)]
struct DoorsRuntime(Option<Runtime>);

impl DoorsRuntime {
    /// The shards need the cores more: a handshake or a publish costs the doors some 20 µs, so half of the cores, and
    /// at most four, keep up with them.
    fn new() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads((cores / 2).clamp(1, 4))
            .thread_name("doors")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }
}

impl Deref for DoorsRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("the runtime is there until the drop")
    }
}

impl Drop for DoorsRuntime {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// A door's port, bound, but not served yet.
struct Bound {
    socket: Socket,
    address: SocketAddr,
}

impl Bound {
    fn at(door: DoorName, address: SocketAddr) -> Result<Self, StartError> {
        Self::listen(address).map_err(|cause| StartError::Bind { door, address, cause })
    }

    fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Without it, a stopped node could not start again for a minute.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Inherited by the connections. An answer that a peer does not read stays with the door, under the
        // door's deadline, instead of in the kernel, where closing would leave it behind without an owner or
        // an end. No SO_SNDBUF: the sockets become devices', whose buffers the kernel must go on to tune.
        socket.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES_MAX)?;
        socket.set_tcp_user_timeout(Some(KERNEL_UNACKED_AGE_MAX))?;
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self { socket, address })
    }
}

/// Opens a door on the runtime that is entered.
fn open<D: Door>(at: Bound, door: D, doorway: &Doorway) -> io::Result<()> {
    let listener = TcpListener::from_std(at.socket.into())?;
    tokio::spawn(accept(listener, Arc::new(door), doorway.clone()));
    Ok(())
}

/// Keeps histograms folded, scraped or not, and writes the log's summaries.
async fn keep_up(metrics: Metrics, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(METRICS_UPKEEP);
    let mut seconds = interval(SUMMARY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The last second of a node is told too.
            () = stopped(&mut stop) => return metrics.write_summary(),
            _ = ticks.tick() => metrics.run_upkeep(),
            _ = seconds.tick() => metrics.write_summary(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{BearerKeys, KeyHash};
    use crate::config::args::Args;
    use roomcast_core::room::id::RoomName;
    use roomcast_core::room::pace::RoomSettings;

    fn anywhere() -> Config {
        let mut args = Args::default();
        let free = Some("127.0.0.1:0".to_owned());
        args.flags.viewer_listen.clone_from(&free);
        args.flags.publisher_listen.clone_from(&free);
        args.flags.ops_listen = free;
        args.flags.ephemeral = true;
        args.flags.shards = Some("1".to_owned());
        Config::load(&args, std::iter::empty()).unwrap()
    }

    #[tokio::test]
    async fn servers_of_one_process_live_and_stop_apart() {
        let one = Server::start(anywhere()).unwrap();
        let other = Server::start(anywhere()).unwrap();
        let doors = [one.viewer_addr, one.publisher_addr, one.ops_addr];
        assert!(doors.iter().all(|door| door.port() != 0 && one.doors().contains(&door.to_string())));
        one.drain().await;
        for door in doors {
            assert!(tokio::net::TcpStream::connect(door).await.is_err(), "{door} is closed");
        }
        assert!(tokio::net::TcpStream::connect(other.publisher_addr).await.is_ok());
        drop(other);
    }

    #[tokio::test]
    async fn a_door_is_locked_before_any_shard_has_answered() {
        let server = Server::start(anywhere()).unwrap();
        let locked = Config { publisher_keys: a_key(), ..anywhere() };
        // Polled once: the shards have had no time to answer.
        drop(timeout(Duration::ZERO, server.reconfigure(locked)).await);
        assert!(!server.node.in_force().config.publisher_keys.is_open());
    }

    #[tokio::test]
    async fn a_shard_that_takes_nothing_follows_the_newest_reload_once_it_takes_again() {
        let server = Server::start(anywhere()).unwrap();
        let done = || server.node.metrics.render().contains("roomcast_reloads_total{outcome=\"done\"} 1");
        let work = server.node.shards.keep_busy(0).await;
        for rate in [7, 8] {
            let mut config = anywhere();
            config.flush.messages_per_second = rate;
            // The caller stops waiting long before the shard has taken the request.
            assert!(timeout(Duration::from_millis(20), server.reconfigure(config)).await.is_err());
        }
        assert!(!done(), "no shard follows yet");
        drop(work);
        timeout(DRAIN_AGE_MAX, async {
            while !done() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the shard follows, and the newest reload alone counts");
        let room = RoomName::parse("r1").unwrap();
        let view = server.node.shards.configure(room, RoomSettings::default()).await.unwrap().unwrap();
        assert_eq!(serde_json::to_value(&view).unwrap()["rules"]["limits"]["room_messages_per_second"], 8);
    }

    fn a_key() -> BearerKeys {
        BearerKeys::new(vec![KeyHash::parse(&format!("sha256:{}", "ab".repeat(32))).unwrap()])
    }

    #[test]
    fn what_a_peer_does_not_read_has_a_bound_on_every_connection_of_a_door() {
        let bound = Bound::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        bound.socket.set_nonblocking(false).unwrap();
        let _peer = std::net::TcpStream::connect(bound.address).unwrap();
        let (accepted, _) = bound.socket.accept().unwrap();
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), KERNEL_UNSENT_BYTES_MAX);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(KERNEL_UNACKED_AGE_MAX));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_and_no_other_is_kept() {
        let one = Server::start(anywhere()).unwrap();
        let mut config = anywhere();
        config.ops_listen = one.ops_addr;
        let refused = Server::start(config).unwrap_err();
        assert!(matches!(refused, StartError::Bind { door: DoorName::Operator, .. }), "{refused}");
        assert!(
            refused.to_string().starts_with("the operator door cannot listen on 127.0.0.1:"),
            "{refused}"
        );
    }
}
