//! The operator door: is the process there, may traffic come, what is it doing.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;

use crate::config::limits::{DESCRIPTORS_KEPT, DOOR_CONNECTIONS_MAX, IDLE_AGE_MAX};
use crate::connection::accept::{Answer, Door};
use crate::metrics::DoorName;

use super::problem::Problem;
use super::request::check_host;
use super::{JSON, Node, answer, answer_json};

/// The door of those who keep the node running.
#[derive(Debug)]
pub struct OperatorDoor {
    node: Arc<Node>,
}

/// `/readyz`: whether traffic may come, and what stands in its way.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards_silent: Vec<usize>,
}

impl OperatorDoor {
    /// A door to this node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        check_host(request.version(), request.headers())?;
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
            return Err(Problem::not_found());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Problem::method_not_allowed("GET, HEAD"));
        }
        match path {
            "/healthz" => Ok(answer_json(&Readiness::of("ok"))),
            "/readyz" => Ok(self.readiness().await.into_answer()),
            _ => Ok(self.metrics()),
        }
    }

    async fn readiness(&self) -> Readiness {
        // A draining node is not ready whatever its shards say; the balancer must hear it at once.
        let answering = if self.node.is_draining() { Vec::new() } else { self.node.shards.answering().await };
        Readiness::judge(self.node.is_draining(), &answering)
    }

    fn metrics(&self) -> Answer {
        const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer(StatusCode::OK, TEXT, self.node.metrics.render().into())
    }
}

impl Readiness {
    fn of(status: &'static str) -> Self {
        Self { status, reasons: Vec::new(), shards_silent: Vec::new() }
    }

    fn judge(is_draining: bool, shards_answering: &[bool]) -> Self {
        let silent = shards_answering.iter().enumerate().filter(|(_, answers)| !**answers);
        let shards_silent: Vec<usize> = silent.map(|(shard, _)| shard).collect();
        let mut reasons = Vec::new();
        if is_draining {
            reasons.push("draining");
        }
        if !shards_silent.is_empty() {
            reasons.push("shards_silent");
        }
        let status = if reasons.is_empty() { "ready" } else { "not_ready" };
        Self { status, reasons, shards_silent }
    }

    fn into_answer(self) -> Answer {
        let status = if self.reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let json = serde_json::to_vec(&self).expect("names and numbers are JSON");
        answer(status, JSON, json.into())
    }
}

impl Door for OperatorDoor {
    const NAME: DoorName = DoorName::Operator;
    const CONNECTIONS_MAX: usize = DOOR_CONNECTIONS_MAX;
    const IDLE_AGE_MAX: Option<Duration> = Some(IDLE_AGE_MAX);
    const DESCRIPTORS_LEFT: u64 = DESCRIPTORS_KEPT / 4;

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        self.route(request).await.unwrap_or_else(Problem::into_answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_every_shard_answers() {
        let ready = Readiness::judge(false, &[true, true]);
        assert_eq!(serde_json::to_string(&ready).unwrap(), r#"{"status":"ready"}"#);
        assert_eq!(ready.into_answer().status(), 200);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let silent = Readiness::judge(false, &[true, false, false]);
        assert_eq!(
            serde_json::to_string(&silent).unwrap(),
            r#"{"status":"not_ready","reasons":["shards_silent"],"shards_silent":[1,2]}"#
        );
        assert_eq!(silent.into_answer().status(), 503);
        assert_eq!(Readiness::judge(true, &[]).reasons, ["draining"]);
    }
}
