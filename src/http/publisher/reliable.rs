//! The calls on a published reliable message: receipt and recall.

use crate::http::accept::Answer;
use crate::http::cluster::parts::whole_receipt;
use crate::http::problem::Problem;
use crate::http::{Node, answer_json, from_shard};
use roomcast_core::room::id::RoomName;

/// `GET /v1/rooms/{room}/reliable/{offset}`: answers with the receipt.
///
/// # Errors
/// 404 `room_not_open` or `offset_unknown`; 503.
pub(super) async fn receipt(node: &Node, room: RoomName, offset: u64) -> Result<Answer, Problem> {
    Ok(answer_json(&whole_receipt(node, room, offset).await?))
}

/// `DELETE /v1/rooms/{room}/reliable/{offset}`: recalls the message. The recall is durable before the answer.
///
/// A second recall is answered with the first, so a request without an answer may be repeated.
///
/// # Errors
/// 404 `room_not_open` or `offset_unknown`, 409 `not_alive`; 503, with the store's reason if the recall was
/// not stored.
pub(super) async fn recall(node: &Node, room: RoomName, offset: u64) -> Result<Answer, Problem> {
    let recall = from_shard(node.shards.recall(room, offset)).await??;
    Ok(answer_json(&recall))
}
