//! Calls from node to node: a request of a publisher, a device or an operator, without its credentials, for
//! the node that orders the room. The home answers as its own doors do, and never forwards a call again.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use hyper::{Method, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use roomcast_core::cluster::NodeKey;
use roomcast_core::limits::{NODE_CALLS_MAX, SHARD_ANSWER_AGE_MAX};

/// A request for another node. The caller has checked the credentials and the caller's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRequest {
    /// The method of the request.
    pub(crate) method: Method,
    /// Path and query, as typed. Parameters with a credential are left out.
    pub(crate) target: String,
    /// The content type of the body.
    pub(crate) content_type: Option<String>,
    /// The body, whole.
    pub(crate) body: Bytes,
    /// Messages of the body, rising, that the limit of the publisher's key has shed: the home leaves them out.
    pub(crate) shed: Vec<u32>,
}

/// The answer to a [`NodeRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeAnswer {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// The content type of the body.
    pub(crate) content_type: String,
    /// The header `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u64>,
    /// The body, whole.
    pub(crate) body: Bytes,
}

/// The reason for a call without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailed {
    /// Nothing was sent: too much waits for the other node, or no link leads there.
    #[error("too much waits for the other node")]
    Busy,
    /// The other node may have taken the request: the link began anew, or the answer did not come.
    #[error("the other node did not answer")]
    Unknown,
}

/// The outcome of a call.
pub(crate) type CallOutcome = Result<NodeAnswer, CallFailed>;

/// A call on its way to the cluster's thread.
#[derive(Debug)]
pub(crate) struct CallOut {
    pub(crate) node: NodeKey,
    pub(crate) request: NodeRequest,
    pub(crate) reply: oneshot::Sender<CallOutcome>,
}

/// A call of another node, for the doors of this one.
#[derive(Debug)]
pub(crate) struct CallIn {
    pub(crate) request: NodeRequest,
    pub(crate) reply: oneshot::Sender<NodeAnswer>,
}

/// The way of calls of other nodes from the cluster's thread to the doors. Past [`NODE_CALLS_MAX`] the thread
/// answers that this node is busy.
pub(crate) fn calls_in() -> (mpsc::Sender<CallIn>, mpsc::Receiver<CallIn>) {
    mpsc::channel(NODE_CALLS_MAX)
}

/// The doors' way to other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) queue: Arc<ArrayQueue<CallOut>>,
    /// Wakes the cluster's thread.
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Calls {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { queue: Arc::new(ArrayQueue::new(NODE_CALLS_MAX)), wake }
    }

    /// Sends a request to another node. The answer comes through the receiver; a receiver that is dropped
    /// leaves the outcome unknown.
    ///
    /// # Errors
    /// [`CallFailed::Busy`].
    pub(crate) fn send(
        &self,
        node: NodeKey,
        request: NodeRequest,
    ) -> Result<oneshot::Receiver<CallOutcome>, CallFailed> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(CallOut { node, request, reply }).map_err(|_| CallFailed::Busy)?;
        (self.wake)();
        Ok(answer)
    }

    /// Asks another node, for at most [`SHARD_ANSWER_AGE_MAX`].
    ///
    /// # Errors
    /// [`CallFailed`].
    pub(crate) async fn call(&self, node: NodeKey, request: NodeRequest) -> CallOutcome {
        let answer = self.send(node, request)?;
        let answered = timeout(SHARD_ANSWER_AGE_MAX, answer).await;
        answered.unwrap_or(Ok(Err(CallFailed::Unknown))).unwrap_or(Err(CallFailed::Unknown))
    }
}
