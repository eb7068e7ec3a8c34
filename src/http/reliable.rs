//! Reliable messages as their publisher sees them afterwards: how many devices have one, and taking it back.

use crate::http::accept::Answer;
use roomcast_core::room::id::RoomName;

use super::problem::Problem;
use super::{Node, answer_json, from_shard};

/// `GET /v1/rooms/{room}/reliable/{offset}`: the receipt.
///
/// # Errors
/// 404 `room_not_open` or `offset_unknown`; 503.
pub async fn receipt(node: &Node, room: RoomName, offset: u64) -> Result<Answer, Problem> {
    let receipt = from_shard(node.shards.receipt(room, offset)).await??;
    Ok(answer_json(&receipt))
}

/// `DELETE /v1/rooms/{room}/reliable/{offset}`: the recall, which is durable when this is answered. Recalling again
/// answers with the first recall, so a request whose outcome is unknown may be repeated.
///
/// # Errors
/// 404 `room_not_open` or `offset_unknown`, 409 `not_alive`; 503, by the reason's name where it was not stored.
pub async fn recall(node: &Node, room: RoomName, offset: u64) -> Result<Answer, Problem> {
    if node.is_draining() {
        return Err(Problem::draining());
    }
    let recall = from_shard(node.shards.recall(room, offset)).await??;
    Ok(answer_json(&recall))
}
