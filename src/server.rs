//! Assembles the parts of one node, and owns the order in which they stop.
//!
//! Several servers can live in one process: only the descriptor limit is global, and it is only raised.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::clock;
use crate::config::Config;
use crate::http::Node;
use crate::http::accept::places::Places;
use crate::http::accept::{Descriptors, Door, Doorway, accept, stopped};
use crate::http::ops::OperatorDoor;
use crate::http::publisher::PublisherDoor;
use crate::http::publisher::key_limits::KeyLimits;
use crate::http::viewer::ViewerDoor;
use crate::http::viewer::admission::Admission;
use crate::metrics::{DoorName, Metrics};
use crate::seat::Seats;
use crate::shard::handle::Shards;
use crate::store::Store;
use crate::store::health::Health;
use crate::store::memory::Memory;
use crate::store::redb::{OpenError, Redb};
use crate::store::writer::StoreHandle;
use roomcast_core::limits::{
    DESCRIPTORS_KEPT, DOORS_LINGER, DRAIN_AGE_MAX, KERNEL_UNACKED_AGE_MAX, KERNEL_UNSENT_BYTES_MAX,
    LISTEN_BACKLOG, PULLS_MAX, STORE_BYTES_MAX,
};

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
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
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
    /// `None` only while it is being dropped.
    doors: Option<Runtime>,
    shards: Vec<JoinHandle<()>>,
    /// `None` once it was stopped.
    store: Option<StoreHandle>,
}

impl Server {
    /// Starts a node: all ports first (0 chooses a free one), then the shards, then the doors.
    ///
    /// # Errors
    /// [`StartError`]; then no port is held and no thread runs.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let viewer = Bound::at(DoorName::Viewer, config.viewer_listen)?;
        let publisher = Bound::at(DoorName::Publisher, config.publisher_listen)?;
        let ops = Bound::at(DoorName::Operator, config.ops_listen)?;
        let viewer_addr = viewer.address;
        let publisher_addr = publisher.address;
        let ops_addr = ops.address;

        let metrics = Metrics::new(config.shards)?;
        let doors = doors_runtime()?;
        let store: Box<dyn Store> = match &config.data_dir {
            Some(folder) => Box::new(Redb::open(folder)?),
            None => Box::new(Memory::new(STORE_BYTES_MAX)),
        };
        let (shards, threads, store) = Shards::start(&config, store, &metrics)?;
        let descriptors_max = descriptors();
        let seats = Seats::shared(descriptors_max.saturating_sub(DESCRIPTORS_KEPT));
        let proxies = Arc::new(config.proxies.clone());
        let node = Arc::new(node(config, shards, seats.clone(), Arc::clone(&store.health), metrics.clone()));

        let (stop_doors, stop) = watch::channel(false);
        let descriptors = Descriptors::new(seats, descriptors_max);
        let doorway = Doorway { metrics, descriptors, proxies, stop };
        {
            // Sockets register with the runtime that is entered.
            let _doors = doors.enter();
            open(viewer, ViewerDoor { node: Arc::clone(&node) }, &doorway)?;
            open(publisher, PublisherDoor { node: Arc::clone(&node) }, &doorway)?;
            open(ops, OperatorDoor { node: Arc::clone(&node) }, &doorway)?;
            tokio::spawn(keep_up(doorway.metrics, doorway.stop));
        }
        info!(%viewer_addr, %publisher_addr, %ops_addr, shards = threads.len(), descriptors_max, "started");
        Ok(Self {
            node,
            viewer_addr,
            publisher_addr,
            ops_addr,
            stop_doors,
            doors: Some(doors),
            shards: threads,
            store: Some(store),
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

    /// Stops gracefully, within [`DRAIN_AGE_MAX`]: readiness fails and publishes are refused at once; buffers
    /// flush and devices hear `bye`; the doors stop after the shards, so publishers and balancers are
    /// answered throughout; the store stops last.
    pub async fn drain(mut self) {
        self.node.draining.store(true, Ordering::Relaxed);
        self.node.metrics.draining();
        info!(connections = self.node.seats.taken(), "draining");
        let shards_age_max = DRAIN_AGE_MAX.saturating_sub(DOORS_LINGER * 2);
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
            let stopped = tokio::task::spawn_blocking(move || drop(store));
            if timeout(DOORS_LINGER, stopped).await.is_err() {
                warn!("the store does not end");
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
        if let Some(doors) = self.doors.take() {
            // A runtime must not be waited for on a thread of another one, where tests drop servers.
            doors.shutdown_background();
        }
    }
}

fn node(config: Config, shards: Shards, seats: Seats, store: Arc<Health>, metrics: Metrics) -> Node {
    let now = clock::now().instant;
    let mut key_limits = KeyLimits::new(config.key_messages_per_second, config.publisher_keys.count(), now);
    key_limits.observe_only = config.flush.observe_only;
    Node {
        shards,
        window_max: config.flush.window_max(),
        types: config.types,
        key_limits,
        publisher_keys: config.publisher_keys,
        device_keys: config.device_keys,
        origins: config.origins,
        admission: Mutex::new(Admission::new(config.joins_per_second, now)),
        seats,
        store,
        pulls: Places::new(PULLS_MAX),
        metrics,
        draining: AtomicBool::new(false),
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

/// The runtime of all three doors. The shards need the cores more: a handshake or a publish costs the doors
/// some 20 µs, so half of the cores, and at most four, keep up with them.
fn doors_runtime() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(1, 4))
        .thread_name("doors")
        .enable_all()
        .build()
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
    use crate::config::args::Args;

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
