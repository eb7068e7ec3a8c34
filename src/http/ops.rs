//! The operator door: is the process there, may traffic come, what is it doing, what does it leave out.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;

use crate::clock::{self, node_cpu};
use crate::http::accept::{Answer, Door};
use crate::metrics::DoorName;
use crate::store::health::Trouble;
use roomcast_core::limits::{DESCRIPTORS_KEPT, DOOR_CONNECTIONS_MAX, IDLE_AGE_MAX, STORE_CALL_AGE_MAX};
use roomcast_core::now::millis;
use roomcast_core::room::ladder::Step;

use super::ladder::{Whose, ladder};
use super::problem::Problem;
use super::request::check_host;
use super::{JSON, Node, answer, answer_json};

/// The door of those who keep the node running.
#[derive(Debug)]
pub struct OperatorDoor {
    node: Arc<Node>,
}

/// `/readyz`: whether traffic may come, and what stands in its way: names, and what there is to say of each.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards_silent: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_failing: Option<StoreFailing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_slow: Option<StoreSlow>,
    /// Shards that need a wider window than rooms may have. They go on, later than asked: no reason to send devices away,
    /// one to send the next room elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards_strained: Vec<ShardStrained>,
    /// Shards that stand on a step of the ladder: they leave something out, and do the rest as promised.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shards_degraded: Vec<ShardDegraded>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ShardDegraded {
    shard: usize,
    step: u8,
    name: &'static str,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ShardStrained {
    shard: usize,
    /// The gather window that would keep writing to its share.
    window_needed_ms: u64,
    /// The widest there may be.
    window_max_ms: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct StoreFailing {
    /// Unix milliseconds.
    since: u64,
    /// What the last try said.
    why: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct StoreSlow {
    /// How long the store's call under way takes already.
    call_ms: u64,
}

/// What readiness is judged by.
#[derive(Debug, Default)]
struct Signs {
    is_draining: bool,
    /// By shard.
    answering: Vec<bool>,
    trouble: Option<Trouble>,
    /// How long the store's call under way takes already.
    under_way: Duration,
    /// By shard.
    windows_needed: Vec<Duration>,
    window_max: Duration,
    /// By shard.
    steps: Vec<Step>,
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
        if let Some(whose) = Whose::of(path) {
            return ladder(&self.node, whose?, request).await;
        }
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
        let store = &self.node.store;
        Readiness::judge(Signs {
            is_draining: self.node.is_draining(),
            answering,
            trouble: store.trouble(),
            under_way: store.under_way(clock::now()),
            windows_needed: self.node.metrics.held().iter().map(|held| held.window_needed).collect(),
            window_max: self.node.window_max,
            steps: self.node.shards.board().steps(),
        })
    }

    fn metrics(&self) -> Answer {
        const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        let Node { metrics, store, shards, .. } = &*self.node;
        metrics.hot(shards.hot_rooms());
        metrics.show_store(&store.tally(), store.trouble().as_ref(), store.under_way(clock::now()));
        metrics.show_process(node_cpu(), resident_bytes());
        answer(StatusCode::OK, TEXT, metrics.render().into())
    }
}

/// Memory of this process that is in use, as Linux says it; 0 where nobody does. A read of `/proc` waits for no disk.
fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_in).unwrap_or(0)
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

impl Readiness {
    fn of(status: &'static str) -> Self {
        Self { status, ..Self::default() }
    }

    fn judge(signs: Signs) -> Self {
        let Signs { is_draining, answering, trouble, under_way, windows_needed, window_max, steps } = signs;
        let silent = answering.iter().enumerate().filter(|(_, answers)| !**answers);
        let shards_silent: Vec<usize> = silent.map(|(shard, _)| shard).collect();
        let store_failing =
            trouble.map(|trouble| StoreFailing { since: trouble.since.unix_ms, why: trouble.why });
        let store_slow = (under_way > STORE_CALL_AGE_MAX).then(|| StoreSlow { call_ms: millis(under_way) });
        let strained = windows_needed.into_iter().enumerate().filter(|(_, needed)| *needed > window_max);
        let shards_strained = strained.map(|(shard, needed)| ShardStrained {
            shard,
            window_needed_ms: millis(needed),
            window_max_ms: millis(window_max),
        });
        let reasons: Vec<&str> = [
            (is_draining, "draining"),
            (!shards_silent.is_empty(), "shards_silent"),
            (store_failing.is_some(), "store_failing"),
            (store_slow.is_some(), "store_slow"),
        ]
        .into_iter()
        .filter_map(|(stands_in_the_way, name)| stands_in_the_way.then_some(name))
        .collect();
        let status = if reasons.is_empty() { "ready" } else { "not_ready" };
        let shards_strained = shards_strained.collect();
        let degraded = steps.into_iter().enumerate().filter(|(_, step)| *step != Step::Calm);
        let degraded =
            degraded.map(|(shard, step)| ShardDegraded { shard, step: step.number(), name: step.name() });
        let shards_degraded = degraded.collect();
        Self { status, reasons, shards_silent, store_failing, store_slow, shards_strained, shards_degraded }
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
    use roomcast_core::now::Now;

    #[test]
    fn a_node_is_ready_when_every_shard_answers() {
        let ready = Readiness::judge(Signs {
            answering: vec![true, true],
            under_way: STORE_CALL_AGE_MAX,
            ..Signs::default()
        });
        assert_eq!(serde_json::to_string(&ready).unwrap(), r#"{"status":"ready"}"#);
        assert_eq!(ready.into_answer().status(), 200);
    }

    #[test]
    fn the_memory_of_this_process_is_found() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t    1208 kB\nThreads:\t1\n"), Some(1208 * 1024));
        assert_eq!(resident_in("Name:\tVmRSS\n"), None);
        assert!(cfg!(not(target_os = "linux")) || resident_bytes() > 0);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let silent = Readiness::judge(Signs { answering: vec![true, false, false], ..Signs::default() });
        assert_eq!(
            serde_json::to_string(&silent).unwrap(),
            r#"{"status":"not_ready","reasons":["shards_silent"],"shards_silent":[1,2]}"#
        );
        assert_eq!(silent.into_answer().status(), 503);
        let draining = Readiness::judge(Signs { is_draining: true, ..Signs::default() });
        assert_eq!(draining.reasons, ["draining"]);
    }

    #[test]
    fn a_shard_with_more_to_write_than_it_may_is_named_and_goes_on() {
        let window_max = Duration::from_secs(1);
        let windows_needed = vec![window_max, Duration::from_millis(1170)];
        let strained = Readiness::judge(Signs {
            answering: vec![true; 2],
            windows_needed,
            window_max,
            ..Signs::default()
        });
        assert_eq!(
            serde_json::to_value(&strained).unwrap(),
            serde_json::json!({
                "status": "ready",
                "shards_strained": [{"shard": 1, "window_needed_ms": 1170, "window_max_ms": 1000}],
            })
        );
        assert_eq!(strained.into_answer().status(), 200);
    }

    #[test]
    fn a_shard_that_leaves_something_out_is_named_and_goes_on() {
        let steps = vec![Step::Calm, Step::CountersSlow];
        let degraded = Readiness::judge(Signs { answering: vec![true; 2], steps, ..Signs::default() });
        assert_eq!(
            serde_json::to_value(&degraded).unwrap(),
            serde_json::json!({
                "status": "ready",
                "shards_degraded": [{"shard": 1, "step": 2, "name": "counters_slow"}],
            })
        );
        assert_eq!(degraded.into_answer().status(), 200);
    }

    #[test]
    fn a_store_that_fails_or_hangs_stands_in_the_way() {
        let since = Now { unix_ms: 1_795_243_015_617, ..clock::now() };
        let trouble = Some(Trouble { since, why: "storing messages failed: I/O error".into() });
        let under_way = STORE_CALL_AGE_MAX + Duration::from_millis(12);
        let stuck = Readiness::judge(Signs { answering: vec![true], trouble, under_way, ..Signs::default() });
        assert_eq!(
            serde_json::to_value(&stuck).unwrap(),
            serde_json::json!({
                "status": "not_ready",
                "reasons": ["store_failing", "store_slow"],
                "store_failing": {"since": 1_795_243_015_617_u64, "why": "storing messages failed: I/O error"},
                "store_slow": {"call_ms": 5012},
            })
        );
        assert_eq!(stuck.into_answer().status(), 503);
    }
}
