//! The three doors: requests arrive over HTTP, are checked, and are answered.
//!
//! `accept` holds the loop in front of every door. `publisher`, `viewer` and `ops` hold one door each, with
//! the calls of the door. `routes`, `request` and `problem` serve all doors.
//!
//! A door passes checked values to the shards' bounded way in (`shard::handle`). A door must not decide what
//! a room does with a message. Bytes from the network never panic, and every wait has a named limit.

pub(crate) mod accept;
pub(crate) mod ops;
mod problem;
pub(crate) mod publisher;
mod request;
mod routes;
pub(crate) mod viewer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::auth::{DeviceKeys, Origins, PublisherKeys};
use crate::metrics::Metrics;
use crate::seat::Seats;
use crate::shard::handle::{Answered, Shards, Unanswered};
use crate::store::health::Health;
use roomcast_core::limits::SHARD_ANSWER_AGE_MAX;
use roomcast_core::room::policy::Types;

use accept::Answer;
use accept::places::Places;
use problem::Problem;
use publisher::key_limits::KeyLimits;
use viewer::admission::Admission;

/// The parts of the node for the doors, shared by all three.
#[derive(Debug)]
pub(crate) struct Node {
    /// The bounded way in to the rooms.
    pub(crate) shards: Shards,
    /// The configured message types.
    pub(crate) types: Types,
    /// The message rate of each publisher key.
    pub(crate) key_limits: KeyLimits,
    pub(crate) publisher_keys: PublisherKeys,
    pub(crate) device_keys: DeviceKeys,
    /// The allow-list of page origins, at the viewer door alone.
    pub(crate) origins: Origins,
    /// The rate of handshakes over the whole node.
    pub(crate) admission: Mutex<Admission>,
    /// One seat per device connection.
    pub(crate) seats: Seats,
    /// One place per page of history or reliable messages, held until the kernel has the whole page.
    pub(crate) pulls: Places,
    /// The widest gather window of the configuration.
    pub(crate) window_max: Duration,
    pub(crate) store: Arc<Health>,
    pub(crate) metrics: Metrics,
    /// Set once, at the start of the drain, and never cleared.
    pub(crate) draining: AtomicBool,
}

impl Node {
    /// True from the start of the drain on: publishes and joins are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTO: HeaderValue = HeaderValue::from_static("application/x-protobuf");

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
