//! The answers to other nodes' requests, by the code of the doors. The other node has checked the
//! credentials; the contents are checked again, since peers are strangers.

use std::sync::Arc;

use hyper::{Method, Uri};
use tokio::sync::{Semaphore, mpsc};

use super::{parts, sent_back};
use crate::cluster::calls::{CallIn, NodeRequest};
use crate::http::Node;
use crate::http::accept::{Answer, Stop, stopped};
use crate::http::ops::answer_ladder;
use crate::http::problem::Problem;
use crate::http::publisher;
use crate::http::request::Query;
use crate::http::routes::{Part, Route};
use crate::http::viewer::answer_pull;
use roomcast_core::limits::NODE_CALLS_ANSWERED_MAX;

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
            let answer = answered(&node, request).await.unwrap_or_else(Problem::into_answer);
            // The other node may have stopped waiting.
            reply.send(sent_back(answer).await).ok();
            drop(place);
        });
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
