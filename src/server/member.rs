//! The node as a member of a cluster: the log in place of the store, the cluster's thread, and the ways between
//! that thread, the shards and the doors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::StartError;
use crate::clock;
use crate::cluster::calls::{CallIn, calls_in};
use crate::cluster::quotas::meter::QuotaMeters;
use crate::cluster::thread::{ClusterBell, ClusterHandle, ClusterPlan, draw_incarnation, drawn_at_ms, start};
use crate::config::cluster::ClusterConfig;
use crate::http::Node;
use crate::http::accept::Stop;
use crate::http::cluster::{ClusterDoors, serve};
use crate::metrics::Metrics;
use crate::seat::Seats;
use crate::shard::handle::Shards;
use crate::shard::slots::Slots;
use crate::shard::ways::{ToNodes, Way, WayOut};
use crate::store::handle::StoreHandle;
use crate::store::jetstream::{self, LogWay};
use crate::store::writer::Wake;
use roomcast_core::cluster::SlotHome;
use roomcast_core::cluster::node::NodeLoad;
use roomcast_core::limits::CLUSTER_SETTLE_AGE_MAX;

/// Pause between two looks at the slots of a node that starts.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A node that has opened its log, before its cluster's thread runs.
pub(super) struct Member {
    config: ClusterConfig,
    incarnation: u64,
    bell: ClusterBell,
    slots: Arc<Slots>,
    ways: Vec<Arc<Way>>,
    log: LogWay,
    meters: Arc<QuotaMeters>,
}

/// A member of a running cluster, and the calls of other nodes for the doors.
pub(super) struct Joined {
    config: ClusterConfig,
    incarnation: u64,
    handle: ClusterHandle,
    meters: Arc<QuotaMeters>,
    calls: mpsc::Receiver<CallIn>,
}

impl Member {
    /// Opens the log of the cluster in place of a store, with a port for each of `wakes`.
    ///
    /// # Errors
    /// [`StartError`]; then no thread runs.
    pub(super) fn open(
        config: &ClusterConfig,
        wakes: Vec<Wake>,
        metrics: &Metrics,
    ) -> Result<(Self, StoreHandle), StartError> {
        let incarnation = draw_incarnation(clock::now())?;
        let metrics = metrics.clone();
        let committed = Box::new(move |took, rows| metrics.record_logged(took, rows));
        let ways = wakes.iter().map(|_| Way::new()).collect();
        let (store, log) = jetstream::start(config, incarnation, wakes, committed)?;
        let slots = Arc::new(Slots::new(log.slot_key()));
        let meters = Arc::new(QuotaMeters::new(log.slot_key(), &config.region));
        let bell = ClusterBell::default();
        Ok((Self { config: config.clone(), incarnation, bell, slots, ways, log, meters }, store))
    }

    /// The way of each shard to other nodes.
    pub(super) fn to_nodes(&self) -> ToNodes {
        let out = |way| WayOut { way: Arc::clone(way), wake: self.bell.ring() };
        ToNodes { slots: Arc::clone(&self.slots), ways: self.ways.iter().map(out).collect() }
    }

    /// Starts the cluster's thread. Returns once each slot has a home, as far as the node knows, or after
    /// [`CLUSTER_SETTLE_AGE_MAX`]: then `/readyz` says what is missing.
    ///
    /// # Errors
    /// [`StartError`]; then the thread does not run.
    pub(super) fn join(
        self,
        viewer: SocketAddr,
        shards: &Shards,
        seats: &Seats,
        metrics: &Metrics,
    ) -> Result<Joined, StartError> {
        let Self { mut config, incarnation, bell, slots, ways, log, meters } = self;
        // On loopback, devices find the door at its own address.
        if config.viewer_url.is_empty() && viewer.ip().is_loopback() {
            config.viewer_url = format!("ws://{viewer}");
        }
        let (calls_in, calls) = calls_in();
        let seats = seats.clone();
        let reported = metrics.clone();
        let metrics = metrics.clone();
        let shards_count = u32::try_from(ways.len()).map_err(io::Error::other)?;
        let load = move || NodeLoad {
            shards: shards_count,
            seats: seats.seats_max(),
            free_seats: seats.seats_max().saturating_sub(seats.taken()),
            busy_permille: metrics.held().iter().map(|held| held.busy_permille).max().unwrap_or(0),
            ..NodeLoad::default()
        };
        let shard_wakes = (0..ways.len()).map(|shard| shards.waker(shard));
        let plan = ClusterPlan {
            config: config.clone(),
            incarnation,
            shards: shards_count,
            slots: Arc::clone(&slots),
            log,
            home_key: shards.home_key(),
            ways: ways.iter().cloned().zip(shard_wakes).map(|(way, wake)| WayOut { way, wake }).collect(),
            calls_in,
            meters: Arc::clone(&meters),
            bell,
            load: Box::new(load),
            report: Box::new(move |report| reported.cluster_reported(report)),
        };
        let handle = start(plan)?;
        settle(&slots);
        Ok(Joined { config, incarnation, handle, meters, calls })
    }
}

impl Joined {
    /// The cluster for the doors.
    pub(super) fn doors(&self) -> ClusterDoors {
        let ClusterHandle { slots, calls, shown, .. } = &self.handle;
        let meters = self.meters();
        let started_at = drawn_at_ms(self.incarnation);
        ClusterDoors::new(
            &self.config,
            started_at,
            Arc::clone(slots),
            calls.clone(),
            Arc::clone(shown),
            meters,
        )
    }

    /// The limits of the cluster for the doors.
    pub(super) fn meters(&self) -> Arc<QuotaMeters> {
        Arc::clone(&self.meters)
    }

    /// Has the doors of `node` answer the calls of other nodes, on the runtime that is entered.
    pub(super) fn serve(self, node: &Arc<Node>, stop: &Stop) -> ClusterHandle {
        serve(node, self.calls, stop);
        self.handle
    }
}

/// Waits until each slot has a home.
fn settle(slots: &Slots) {
    let until = clock::now().instant + CLUSTER_SETTLE_AGE_MAX;
    loop {
        let without = slots.all().standings.iter().filter(|slot| slot.home == SlotHome::Nobody).count();
        if without == 0 {
            info!("each slot has a home");
            return;
        }
        if clock::now().instant >= until {
            warn!(without, "slots without a home: their rooms are refused until a node claims them");
            return;
        }
        // The start of a process: nobody waits for this thread, and the slots have no event for it.
        thread::park_timeout(LOOK_INTERVAL);
    }
}
