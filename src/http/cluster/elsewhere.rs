//! Devices that came to a wrong node: a node that is short of seats or of processor time sends devices of
//! rooms elsewhere to the homes of their rooms, with 4005. A home that is short itself gets none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::ClusterDoors;
use crate::http::Node;
use crate::http::accept::{Stop, stopped};
use crate::shard::handle::UrlOf;
use roomcast_core::cluster::{NodeKey, SlotHome};
use roomcast_core::limits::{ELSEWHERE_PER_SECOND, SHARD_ANSWER_AGE_MAX};
use roomcast_core::room::id::RoomName;

/// Looks once a second, until the doors stop, and sends at most [`ELSEWHERE_PER_SECOND`] devices away.
pub(super) async fn keep_room(node: Arc<Node>, mut stop: Stop) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = seconds.tick() => {}
        }
        let Some(url_of) = node.cluster.as_ref().and_then(|cluster| cluster.elsewhere(&node)) else {
            continue;
        };
        // A silent shard must not hold the look of the other seconds up for ever.
        timeout(SHARD_ANSWER_AGE_MAX, node.shards.send_elsewhere(url_of, ELSEWHERE_PER_SECOND)).await.ok();
    }
}

impl ClusterDoors {
    /// The URLs for devices that are to go; `None`: this node has room for its devices, or is stopping.
    pub(super) fn elsewhere(&self, node: &Node) -> Option<UrlOf> {
        let loads = self.loads(node);
        let here = loads.iter().find(|load| load.node == SlotHome::Here)?;
        if !here.is_open || !here.is_short() {
            return None;
        }
        let fit = loads.iter().filter(|load| load.is_open && !load.is_short() && !load.url.is_empty());
        let urls: BTreeMap<NodeKey, Arc<str>> = fit
            .filter_map(|load| match load.node {
                SlotHome::There(key) => Some((key, Arc::from(load.url.as_str()))),
                SlotHome::Here | SlotHome::Frozen | SlotHome::Nobody => None,
            })
            .collect();
        if urls.is_empty() {
            return None;
        }
        let slots = Arc::clone(&self.slots);
        let standings = slots.all().standings;
        Some(Arc::new(move |room: &RoomName| match standings[slots.of(room).index()].home {
            SlotHome::There(key) => urls.get(&key).cloned(),
            SlotHome::Here | SlotHome::Frozen | SlotHome::Nobody => None,
        }))
    }
}
