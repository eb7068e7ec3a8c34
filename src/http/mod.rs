//! The three doors: requests arrive over HTTP, are checked, and are answered.
//!
//! `accept` holds the loop in front of every door. `publisher`, `viewer` and `ops` hold one door each, with
//! the calls of the door. `cluster` sends requests to other nodes, and answers theirs. `routes`, `request`
//! and `problem` serve all doors.
//!
//! A door passes checked values to the shards' bounded way in (`shard::handle`). A door must not decide what
//! a room does with a message. Bytes from the network never panic, and every wait has a named limit.

pub(crate) mod accept;
pub(crate) mod cluster;
mod foreign;
pub(crate) mod ops;
mod problem;
pub(crate) mod publisher;
mod request;
mod routes;
pub(crate) mod viewer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use parking_lot::{Mutex, RwLock};
use tokio::time::timeout;

use crate::clock;
use crate::cluster::quotas::meter::QuotaMeters;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::seat::Seats;
use crate::shard::handle::{Answered, Shards, Unanswered};
use crate::store::health::Health;
use roomcast_core::limits::SHARD_ANSWER_AGE_MAX;

use accept::places::Places;
use accept::{Answer, Descriptors};
use cluster::ClusterDoors;
use problem::Problem;
use publisher::key_limits::KeyLimits;
use viewer::admission::Admission;

/// The parts of the node for the doors, shared by all three.
#[derive(Debug)]
pub(crate) struct Node {
    /// The bounded way in to the rooms.
    pub(crate) shards: Shards,
    /// Locked for one look at each request, and for a reload.
    pub(crate) in_force: RwLock<Arc<InForce>>,
    /// The rate of handshakes over the whole node.
    pub(crate) admission: Mutex<Admission>,
    /// One seat per device connection.
    pub(crate) seats: Seats,
    pub(crate) descriptors: Descriptors,
    /// One place per page of history or reliable messages, held until the kernel has the whole page.
    pub(crate) pulls: Places,
    pub(crate) store: Arc<Health>,
    /// `None`: this node is alone.
    pub(crate) cluster: Option<ClusterDoors>,
    pub(crate) metrics: Metrics,
    /// The node's stage of life, as the number of a [`Stage`]. It never goes back.
    pub(crate) stage: AtomicU8,
}

/// A stage of a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The node serves.
    Serving,
    /// The node serves, and tells balancers that it will stop.
    Leaving,
    /// Publishes and joins are refused.
    Draining,
}

/// The configuration that a reload replaces, as the doors read it.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) config: Config,
    /// The message rate of each publisher key.
    pub(crate) key_limits: KeyLimits,
}

impl InForce {
    /// The configuration of a node's start. Publisher keys begin with a full second's worth of messages. `meters` has
    /// the limits of the cluster around the node.
    pub(crate) fn new(config: Config, meters: Option<Arc<QuotaMeters>>) -> Self {
        let rate = config.key_messages_per_second;
        let limits = KeyLimits::new(rate, &config.publisher_keys, meters, clock::now().instant);
        Self::with(config, limits)
    }

    /// The configuration in force from now on, in place of this one. A key whose limit stays goes on with the
    /// rest of its second: otherwise each reload would give each publisher a further burst.
    fn replaced_by(&self, config: Config) -> Self {
        let rate = config.key_messages_per_second;
        let limits = self.key_limits.replaced_by(rate, &config.publisher_keys, clock::now().instant);
        Self::with(config, limits)
    }

    fn with(config: Config, mut key_limits: KeyLimits) -> Self {
        key_limits.observe_only = config.flush.observe_only;
        Self { config, key_limits }
    }
}

impl Node {
    /// The configuration in force.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read())
    }

    /// Takes over a configuration.
    pub(crate) fn reconfigure(&self, config: Config) {
        let joins_per_second = config.joins_per_second;
        let mut in_force = self.in_force.write();
        let next = Arc::new(in_force.replaced_by(config));
        let before = std::mem::replace(&mut *in_force, next);
        drop(in_force);
        // A new line would let a second burst of devices in.
        if before.config.joins_per_second != joins_per_second {
            let meter = self.cluster.as_ref().map(|cluster| cluster.meters.of_joins(joins_per_second));
            *self.admission.lock() = Admission::new(joins_per_second, meter, clock::now().instant);
        }
    }

    /// True from the start of the drain on: publishes and joins are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.stage.load(Ordering::Relaxed) >= Stage::Draining as u8
    }

    /// True from the notice of a drain on: balancers are to look for another node.
    pub(crate) fn is_leaving(&self) -> bool {
        self.stage.load(Ordering::Relaxed) >= Stage::Leaving as u8
    }

    /// Begins a stage.
    pub(crate) fn begin(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
    }
}

const JSON_TYPE: &str = "application/json";
const PROTO_TYPE: &str = "application/x-protobuf";
const JSON: HeaderValue = HeaderValue::from_static(JSON_TYPE);
const PROTO: HeaderValue = HeaderValue::from_static(PROTO_TYPE);

fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Answer::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A 200 with the JSON of `value` as its body.
fn answer_json(value: &impl serde::Serialize) -> Answer {
    let json = serde_json::to_vec(value).expect("views have text keys and finite numbers");
    answer(StatusCode::OK, JSON, json.into())
}

/// Waits at most [`SHARD_ANSWER_AGE_MAX`] for a shard's answer to `request`.
///
/// A publish without an answer is *unknown*: the shard may still take the messages. The 503 says so.
async fn from_shard<T>(request: impl Future<Output = Answered<T>> + Send) -> Result<T, Problem> {
    let answered = timeout(SHARD_ANSWER_AGE_MAX, request).await;
    answered.unwrap_or(Err(Unanswered::Silent)).map_err(Problem::from)
}
