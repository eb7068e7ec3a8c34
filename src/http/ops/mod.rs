//! The operator door: health, readiness, metrics, the ladder, and the cluster over all nodes.

mod ladder;
mod readiness;

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};

use crate::clock::{self, node_cpu};
use crate::config::Config;
use crate::metrics::{Allocations, DoorName, LimitsHeld};
use roomcast_core::limits::{DOOR_CONNECTIONS_MAX, IDLE_AGE_MAX, STORE_BYTES_MAX};

use super::accept::{Answer, Door, Request};
use super::cluster::ClusterDoors;
use super::cluster::status::{CLUSTER_PATH, status};
use super::foreign::check_not_foreign;
use super::problem::Problem;
use super::request::{check_head, only};
use super::{Node, answer, answer_json};

pub(super) use ladder::{NodeLadder, answer_ladder, ladder_here};
use ladder::{StepOwner, ladder};
use readiness::{ClusterSigns, Readiness, Signs};

/// The door of operators and their monitoring.
#[derive(Debug)]
pub(crate) struct OperatorDoor {
    pub(crate) node: Arc<Node>,
}

impl OperatorDoor {
    async fn readiness(&self) -> Readiness {
        // A draining node is never ready. The balancer must hear so at once, without a wait for the shards.
        let answering = if self.node.is_leaving() { Vec::new() } else { self.node.shards.answering().await };
        let store = &self.node.store;
        Readiness::judge(Signs {
            is_draining: self.node.is_leaving(),
            answering,
            trouble: store.trouble(),
            rooms_aside: store.rooms_aside(),
            under_way: store.under_way(clock::now()),
            windows_needed: self.node.metrics.held().iter().map(|held| held.window_needed).collect(),
            window_max: self.node.in_force().config.flush.window_max(),
            descriptors: self.node.descriptors.held(),
            steps: self.node.shards.board().steps(),
            cluster: self.node.cluster.as_ref().map(ClusterSigns::of),
        })
    }

    fn check_caller(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let in_force = self.node.in_force();
        let Config { ops_keys, hosts, ops_listen, .. } = &in_force.config;
        ops_keys.admits(only(headers, &AUTHORIZATION))?;
        if ops_keys.is_open() {
            check_not_foreign(headers, hosts, ops_listen.ip())?;
        }
        Ok(())
    }

    /// The shares of this node of the cluster's limits.
    fn allocations(&self) -> Allocations {
        let mut allocations = Allocations::default();
        let Some(cluster) = &self.node.cluster else { return allocations };
        for (allocation, share) in allocations.keys.iter_mut().zip(self.node.in_force().key_limits.shares()) {
            *allocation = share;
        }
        allocations.joins = self.node.admission.lock().share().unwrap_or_default();
        allocations.without_share = cluster.meters.without_share();
        allocations
    }

    fn metrics(&self) -> Answer {
        const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        let Node { metrics, store, shards, descriptors, cluster, .. } = &*self.node;
        // These gauges cost a system call or a lock, so they are refreshed per scrape and not per second.
        metrics.hot(shards.hot_rooms());
        metrics.show_slots(cluster.as_ref().map(ClusterDoors::slot_counts).unwrap_or_default());
        metrics.show_allocations(&self.allocations());
        metrics.show_store(&store.tally(), store.trouble().as_ref(), store.under_way(clock::now()));
        metrics.show_process(node_cpu(), resident_bytes());
        let held = descriptors.held();
        metrics.show_limits(&LimitsHeld {
            connections_max: held.connections_max,
            descriptors: held.taken,
            descriptors_max: held.max,
            store_bytes_max: STORE_BYTES_MAX,
            outbound_owed_max: shards.board().owed_max(),
        });
        answer(StatusCode::OK, TEXT, metrics.render().into())
    }
}

/// Resident memory of this process, from Linux's `/proc`; 0 on other systems. A read of `/proc` waits for no
/// disk.
fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_in).unwrap_or(0)
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

impl Door for OperatorDoor {
    const NAME: DoorName = DoorName::Operator;
    const CONNECTIONS_MAX: usize = DOOR_CONNECTIONS_MAX;
    const IDLE_AGE_MAX: Option<Duration> = Some(IDLE_AGE_MAX);

    async fn answer(&self, request: Request) -> Result<Answer, Problem> {
        check_head(request.version(), request.headers())?;
        let path = request.uri().path();
        // Balancers and orchestrators have no key, and name the node as they like.
        if !matches!(path, "/healthz" | "/readyz") {
            self.check_caller(request.headers())?;
        }
        if let Some(owner) = StepOwner::of(path) {
            return ladder(&self.node, owner?, request).await;
        }
        if !matches!(path, "/healthz" | "/readyz" | "/metrics" | CLUSTER_PATH) {
            return Err(Problem::not_found());
        }
        // Load balancers probe with HEAD as well.
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Problem::method_not_allowed("GET, HEAD"));
        }
        match path {
            // Asks no shard and no store: an orchestrator must not restart a node for a slow disk.
            "/healthz" => Ok(answer_json(&Readiness::of("ok"))),
            "/readyz" => Ok(self.readiness().await.into_answer()),
            CLUSTER_PATH => status(&self.node).await,
            _ => Ok(self.metrics()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_process_is_found() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t    1208 kB\nThreads:\t1\n"), Some(1208 * 1024));
        assert_eq!(resident_in("Name:\tVmRSS\n"), None);
        assert!(cfg!(not(target_os = "linux")) || resident_bytes() > 0);
    }
}
