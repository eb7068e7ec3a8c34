//! The doors: what arrives over HTTP is checked here, and answered.
//!
//! Each door is a shell over the shards' bounded way in (`shard::handle`). Nothing here knows what a room does with a
//! message; nothing that arrives can panic, and every wait has a named limit.

pub mod accept;
pub mod admission;
pub mod key_limits;
pub mod ladder;
pub mod ops;
pub mod paced;
pub mod places;
pub mod problem;
pub mod publish;
pub mod publisher;
pub mod reliable;
pub mod request;
pub mod rooms;
pub mod routes;
pub mod settings;
pub mod upgrade;
pub mod viewer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::time::timeout;

use crate::auth::{DeviceKeys, Origins, PublisherKeys};
use crate::http::accept::Answer;
use crate::http::admission::Admission;
use crate::metrics::Metrics;
use crate::seat::Seats;
use crate::shard::handle::{Shards, Unanswered};
use crate::store::health::Health;
use roomcast_core::limits::SHARD_ANSWER_AGE_MAX;
use roomcast_core::room::policy::Types;

use key_limits::KeyLimits;
use problem::Problem;

/// The node as its doors see it; shared by all three.
#[derive(Debug)]
pub struct Node {
    /// The way to the rooms.
    pub shards: Shards,
    /// What the configuration says of message types.
    pub types: Types,
    /// How much each publisher key may publish.
    pub key_limits: KeyLimits,
    /// Who may publish.
    pub publisher_keys: PublisherKeys,
    /// Which devices may join.
    pub device_keys: DeviceKeys,
    /// Which pages' devices may join.
    pub origins: Origins,
    /// How fast devices may come in.
    pub admission: Admission,
    /// Places for devices.
    pub seats: Seats,
    /// Places for answers with a page of history or of reliable messages, each taken until the kernel has the whole of it.
    pub pulls: Seats,
    /// The widest gather window that rooms have unless configured otherwise.
    pub window_max: Duration,
    /// How the store fares.
    pub store: Arc<Health>,
    /// What operators see.
    pub metrics: Metrics,
    /// Set once, when the drain begins.
    pub draining: AtomicBool,
}

impl Node {
    /// Whether publishes and joins are refused because the node stops.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// `application/json`
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// `application/x-protobuf`
pub const PROTO: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// An answer of this status, content type and body.
#[must_use]
pub fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Answer::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// A 200 whose body is this value's JSON.
#[must_use]
pub fn answer_json(value: &impl serde::Serialize) -> Answer {
    let json = serde_json::to_vec(value).expect("views have text keys and finite numbers");
    answer(StatusCode::OK, JSON, json.into())
}

/// What a shard answers, if it does so in time. A publish whose answer did not come is *unknown*, as the 503 says.
async fn from_shard<T>(request: impl Future<Output = Result<T, Unanswered>> + Send) -> Result<T, Problem> {
    match timeout(SHARD_ANSWER_AGE_MAX, request).await {
        Ok(answered) => answered.map_err(Problem::from),
        Err(_) => Err(Problem::shard_silent()),
    }
}
