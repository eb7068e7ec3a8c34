//! The answers to other nodes' requests, by the code of the doors. The other node has checked the
//! credentials; the contents are checked again, since peers are strangers.

use std::sync::Arc;

use hyper::{Method, Uri};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::{parts, sent_back};
use crate::clock;
use crate::cluster::calls::{CallIn, NodeAnswer, NodeRequest};
use crate::http::Node;
use crate::http::accept::{Answer, Stop, stopped};
use crate::http::ops::answer_ladder;
use crate::http::problem::Problem;
use crate::http::publisher;
use crate::http::request::Query;
use crate::http::routes::{Part, Route};
use crate::http::viewer::answer_pull;
use roomcast_core::limits::{HAND_OVER_HOLD_MAX, NODE_CALLS_ANSWERED_MAX};

/// Answers the calls of other nodes until the doors stop, [`NODE_CALLS_ANSWERED_MAX`] at the same time.
pub(super) async fn answer_calls(node: Arc<Node>, mut calls: mpsc::Receiver<CallIn>, mut stop: Stop) {
    let places = Arc::new(Semaphore::new(NODE_CALLS_ANSWERED_MAX));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, calls.recv().await?))
        };
        let next = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            next = next => next,
        };
        // The cluster's thread has ended.
        let Some((place, CallIn { request, reply })) = next else { return };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            // The other node may have stopped waiting.
            reply.send(answered_somewhere(&node, request).await).ok();
            drop(place);
        });
    }
}

/// Answers a request. A slot that is handed over has it wait, and then it goes to the next home: the other node may not
/// know yet. No other request is sent on.
async fn answered_somewhere(node: &Node, request: NodeRequest) -> NodeAnswer {
    let until = clock::now().instant + HAND_OVER_HOLD_MAX;
    loop {
        let slot = node.cluster.as_ref().and_then(|cluster| cluster.slot_of(&request.target));
        if let (Some(cluster), Some(slot)) = (&node.cluster, slot) {
            let left = until.saturating_duration_since(clock::now().instant);
            // Past the time the request is refused below.
            timeout(left, cluster.left(slot)).await.ok();
            if let Some(next) = cluster.next_home(node, slot) {
                let answer = next.call(request).await;
                return match answer {
                    Ok(answer) => answer,
                    Err(problem) => sent_back(problem.into_answer()).await,
                };
            }
        }
        let answer = Box::pin(answered(node, request.clone())).await;
        // Nothing was taken: the rooms had settled for the hand-over already.
        let is_homeless =
            answer.as_ref().is_err_and(|problem| matches!(problem.code(), "no_home" | "not_home"));
        let moves = |slot| node.cluster.as_ref().is_some_and(|cluster| cluster.moves(slot));
        if !is_homeless || !slot.is_some_and(moves) || clock::now().instant >= until {
            return sent_back(answer.unwrap_or_else(Problem::into_answer)).await;
        }
    }
}

async fn answered(node: &Node, request: NodeRequest) -> Result<Answer, Problem> {
    let target = Uri::try_from(request.target.as_str());
    let uri = target.map_err(|_| Problem::bad("bad_request", "target", "a path and a query"))?;
    let query = Query::of(&uri);
    if let Some(part) = parts::answer_part(node, uri.path(), query).await {
        return part;
    }
    if let Some(answer) = answer_ladder(node, &request, uri.path()).await {
        return answer;
    }
    match Route::of(uri.path()) {
        Some(Route::Part(room, part @ (Part::History | Part::Reliable))) if request.method == Method::GET => {
            answer_pull(node, room, part, query).await
        }
        _ => Box::pin(publisher::answer_node(node, &request, &uri)).await,
    }
}
