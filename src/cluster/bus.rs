//! The bus between nodes: core NATS. One connection with the subjects of heartbeats, claims, links and quotas, and with
//! an inbox for the answers to probes.
//!
//! | subject | carries |
//! |---|---|
//! | `<name>.hb.<node>` | heartbeats of the node, also back to the node itself: the echo |
//! | `<name>.claims` | claims, at once |
//! | `<name>.n.<node>` | messages of links to the node; empty ones are probes |
//! | `<name>.quota.<node>` | reports and shares of limits of the cluster, for the node |
//!
//! A server answers a probe itself if nobody listens to the node's subject. A node that listens answers nothing.

use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_nats::{Client, Event, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::unconstrained;
use tracing::{info, warn};

use crate::nats::{Login, NatsError};
use roomcast_core::cluster::node::NodeName;

/// The subjects of a cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    cluster: Arc<str>,
    node: NodeName,
}

/// A message for the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BusPost {
    subject: String,
    /// The subject for answers of the server.
    reply: Option<String>,
    payload: Bytes,
}

/// A message of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BusHeard {
    /// A heartbeat on the subject of `sender`.
    Beat { sender: String, bytes: Bytes },
    /// A claim.
    Claim(Bytes),
    /// A message of a link.
    Link(Bytes),
    /// A word about shares of limits.
    Quota(Bytes),
    /// Nobody listens to the subject of the node.
    NobodyAt { node: String, number: u64 },
}

/// A connection to the bus.
#[derive(Debug)]
pub(super) struct Bus {
    client: Client,
    subjects: Subjects,
    beats: Subscriber,
    claims: Subscriber,
    links: Subscriber,
    quotas: Subscriber,
    answers: Subscriber,
    /// The begin of the subjects for answers to probes.
    inbox: String,
}

impl Subjects {
    pub(super) fn new(cluster: &str, node: NodeName) -> Self {
        Self { cluster: cluster.into(), node }
    }

    fn beats(&self, node: &str) -> String {
        format!("{}.hb.{node}", self.cluster)
    }

    fn claims(&self) -> String {
        format!("{}.claims", self.cluster)
    }

    fn node(&self, node: &NodeName) -> String {
        format!("{}.n.{node}", self.cluster)
    }

    fn quotas(&self, node: &NodeName) -> String {
        format!("{}.quota.{node}", self.cluster)
    }

    /// A heartbeat of this node.
    pub(super) fn beat(&self, payload: Bytes) -> BusPost {
        BusPost { subject: self.beats(self.node.as_str()), reply: None, payload }
    }

    /// A claim for all nodes.
    pub(super) fn claim(&self, payload: Bytes) -> BusPost {
        BusPost { subject: self.claims(), reply: None, payload }
    }

    /// A message of the link to a node.
    pub(super) fn link(&self, node: &NodeName, payload: Bytes) -> BusPost {
        BusPost { subject: self.node(node), reply: None, payload }
    }

    /// A word about shares of limits, for a node.
    pub(super) fn quota(&self, node: &NodeName, payload: Bytes) -> BusPost {
        BusPost { subject: self.quotas(node), reply: None, payload }
    }
}

impl Bus {
    /// Connects, and listens to all subjects of the node.
    ///
    /// # Errors
    /// [`NatsError`].
    pub(super) async fn open(login: &Login, subjects: Subjects) -> Result<Self, NatsError> {
        let client = login.connect(|event| note(&event)).await?;
        let inbox = client.new_inbox();
        let own = subjects.node(&subjects.node);
        let quotas = subjects.quotas(&subjects.node);
        let mut listening = Vec::new();
        for subject in [subjects.beats("*"), subjects.claims(), own, quotas, format!("{inbox}.*.*")] {
            listening.push(client.subscribe(subject).await.map_err(|error| login.unreached(&error))?);
        }
        let [beats, claims, links, quotas, answers] =
            <[Subscriber; 5]>::try_from(listening).expect("five subjects were listed");
        Ok(Self { client, subjects, beats, claims, links, quotas, answers, inbox })
    }

    /// A probe of a node.
    pub(super) fn probe(&self, node: &NodeName, number: u64) -> BusPost {
        let reply = Some(format!("{}.{node}.{number}", self.inbox));
        BusPost { subject: self.subjects.node(node), reply, payload: Bytes::new() }
    }

    /// The next message. Never ends while the connection is away. Loses nothing if it is dropped before its end.
    pub(super) async fn next(&mut self) -> BusHeard {
        loop {
            let heard = tokio::select! {
                Some(message) = self.beats.next() => beat(message),
                Some(message) = self.claims.next() => Some(BusHeard::Claim(message.payload)),
                Some(message) = self.links.next() => link(message),
                Some(message) = self.quotas.next() => Some(BusHeard::Quota(message.payload)),
                Some(message) = self.answers.next() => nobody_at(&self.inbox, &message),
                // The client has ended, and another one is on its way.
                else => pending().await,
            };
            if let Some(heard) = heard {
                return heard;
            }
        }
    }

    /// The next message that is there already.
    pub(super) fn next_ready(&mut self) -> Option<BusHeard> {
        poll_once(self.next())
    }

    /// Sends a message, if the connection's queue has a place. True: it is in the queue.
    pub(super) fn try_send(&self, posted: &BusPost) -> bool {
        poll_once(send(self.client.clone(), posted.clone())).is_some()
    }

    /// Sends a message once the connection's queue has a place. Nothing is sent if the future is dropped before.
    pub(super) fn send(&self, posted: &BusPost) -> impl Future<Output = ()> + use<> {
        send(self.client.clone(), posted.clone())
    }

    /// Waits until the server has everything that was sent.
    pub(super) async fn flush(&self) {
        if let Err(error) = self.client.flush().await {
            warn!(%error, "the last words of the node did not leave");
        }
    }
}

async fn send(client: Client, posted: BusPost) {
    let BusPost { subject, reply, payload } = posted;
    let sent = match reply {
        None => client.publish(subject, payload).await,
        Some(reply) => client.publish_with_reply(subject, reply, payload).await,
    };
    if let Err(error) = sent {
        // A message above `max_payload`, or a client that has ended: links repeat, and heartbeats come anew.
        warn!(%error, "a message to other nodes was not sent");
    }
}

/// The output of a future that is ready now.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    // Without the budget of the task: a full budget looks like a full queue.
    let future = pin!(unconstrained(future));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn beat(message: Message) -> Option<BusHeard> {
    let sender = message.subject.as_str().rsplit('.').next()?.to_owned();
    Some(BusHeard::Beat { sender, bytes: message.payload })
}

fn link(message: Message) -> Option<BusHeard> {
    // A probe asks the server alone.
    (!message.payload.is_empty()).then_some(BusHeard::Link(message.payload))
}

fn nobody_at(inbox: &str, message: &Message) -> Option<BusHeard> {
    if message.status != Some(StatusCode::NO_RESPONDERS) {
        return None;
    }
    let (node, number) = message.subject.as_str().strip_prefix(inbox)?.strip_prefix('.')?.split_once('.')?;
    Some(BusHeard::NobodyAt { node: node.to_owned(), number: number.parse().ok()? })
}

/// Writes the story of the connection to the log.
fn note(event: &Event) {
    match event {
        Event::Connected => info!("connected to the other nodes over NATS"),
        Event::Disconnected => warn!("no NATS server: the other nodes are not reached"),
        // A connection that another one has replaced.
        Event::Closed => info!("a connection to NATS was closed"),
        Event::SlowConsumer(_) => warn!("messages of other nodes came too fast, and some were dropped"),
        Event::LameDuckMode | Event::Draining => info!(%event, "the NATS server leaves"),
        Event::ServerError(_) | Event::ClientError(_) => {
            warn!(%event, "an error on the way to the other nodes");
        }
    }
}
