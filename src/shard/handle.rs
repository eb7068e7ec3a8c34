//! The bounded way into the shards from the doors: each call names what it does when the way is full.

#![allow(unused_variables, clippy::unused_async, clippy::needless_pass_by_value, reason = "stand-in")]
use std::sync::Arc;

use bytes::Bytes;

use crate::connection::Grant;
use crate::connection::Seat;
use crate::room::id::{Cursor, DeviceName, Encoding, RoomName, Seen};
use crate::room::message::{Message, Published};
use crate::room::pace::RoomSettings;
use crate::room::view::{HistoryPage, RoomLine, RoomView};

/// The shard's way in is full, or it has stopped. The publisher hears 503 with `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's inbox is full")]
pub struct Busy;

/// What the viewer door learnt of a device before it answered 101.
#[derive(Debug)]
pub struct Hello {
    /// The room of the URL.
    pub room: RoomName,
    /// From the subprotocol.
    pub encoding: Encoding,
    /// `cursor=`
    pub cursor: Option<Cursor>,
    /// `seen=`
    pub seen: Option<Seen>,
    /// `device=`
    pub device: Option<DeviceName>,
    /// Which rooms it may join.
    pub grant: Grant,
    /// Its place among the node's connections.
    pub seat: Seat,
}

/// A device whose handshake is over: its plain socket, on its way to a shard.
#[derive(Debug)]
pub struct Arrival {
    /// Non-blocking, no longer registered with any runtime.
    pub stream: std::net::TcpStream,
    /// What was read beyond the request.
    pub early: Bytes,
    /// What the request said.
    pub hello: Hello,
}

/// All shards of the node, as the doors see them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    handles: Arc<[()]>,
}

/// stand-in
#[derive(Debug, Clone)]
pub struct ShardsPlan {
    /// stand-in
    pub count: usize,
    /// stand-in
    pub rules: crate::room::pace::FlushRules,
    /// stand-in
    pub types: crate::room::message::Types,
    /// stand-in
    pub heartbeat: std::time::Duration,
}

impl Shards {
    /// stand-in
    #[must_use]
    pub fn start(
        plan: &ShardsPlan,
        _metrics: crate::metrics::Metrics,
    ) -> (Self, Vec<std::thread::JoinHandle<()>>) {
        (Self { handles: vec![(); plan.count].into() }, Vec::new())
    }

    /// Publishes checked messages to a room, all of them or none entering its inbox.
    ///
    /// # Errors
    /// [`Busy`] when the home's inbox is full: nothing was taken.
    pub async fn publish(&self, room: RoomName, messages: Vec<Message>) -> Result<Published, Busy> {
        // stand-in
        Ok(Published::Taken(vec![crate::room::message::Verdict::Accepted; messages.len()]))
    }

    /// Opens or configures a room.
    ///
    /// # Errors
    /// [`Busy`] when the home does not answer or the node holds as many rooms as it may.
    pub async fn configure(&self, room: RoomName, settings: RoomSettings) -> Result<RoomView, Busy> {
        // stand-in
        Err(Busy)
    }

    /// What a room shows of itself; `None` if it is not open.
    ///
    /// # Errors
    /// [`Busy`] when the home's request queue is full.
    pub async fn describe(&self, room: RoomName) -> Result<Option<RoomView>, Busy> {
        // stand-in
        Ok(None)
    }

    /// The `limit` rooms with most members, over all shards.
    ///
    /// # Errors
    /// [`Busy`] when a shard's request queue is full.
    pub async fn rooms_by_members(&self, limit: usize) -> Result<Vec<RoomLine>, Busy> {
        // stand-in
        Ok(Vec::new())
    }

    /// Closes a room; its members are told. How many there were; `None` if it was not open.
    ///
    /// # Errors
    /// [`Busy`] when the home's request queue is full.
    pub async fn close(&self, room: RoomName) -> Result<Option<u64>, Busy> {
        // stand-in
        Ok(None)
    }

    /// The newest `limit` messages of a room's history after `seen`; `None` if it is not open.
    ///
    /// # Errors
    /// [`Busy`] when the home's request queue is full.
    pub async fn history(
        &self,
        room: RoomName,
        seen: Option<Seen>,
        limit: usize,
    ) -> Result<Option<HistoryPage>, Busy> {
        // stand-in
        Ok(None)
    }

    /// Whether each shard answers within a second, by index.
    pub async fn answering(&self) -> Vec<bool> {
        // stand-in
        vec![true; self.handles.len()]
    }

    /// Hands a device to the shard that placement names.
    ///
    /// # Errors
    /// [`Busy`] when that shard has too many arrivals waiting: the socket is closed.
    pub fn admit(&self, arrival: Arrival) -> Result<(), Busy> {
        // stand-in
        Ok(())
    }

    /// Whether an arrival for this room would find a place, so that the door can answer 503 before it upgrades.
    pub fn has_room_for(&self, room: &RoomName) -> bool {
        // stand-in
        true
    }

    /// Drains: publishes are refused, buffers flush, devices get `bye` and 1012. Returns when every connection is
    /// gone, or at the deadline (`DRAIN_AGE_MAX`).
    pub async fn drain(&self) {
        // stand-in
    }
}
