//! The newest value of each key of class latest, as told to devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{Key, Seq, TypeName};
use super::message::Message;
use crate::limits::LATEST_KEYS_MAX;

/// The latest values of a room.
///
/// The map holds type and key -> the value told to devices. `None` keeps a place for a waiting value:
/// past the bound a new key is refused at the publish, not at the cut.
#[derive(Debug, Default)]
pub(super) struct Latest(BTreeMap<(TypeName, Key), Option<LatestValue>>);

#[derive(Debug)]
struct LatestValue {
    /// The batch of the value.
    seq: Seq,
    message: Arc<Message>,
}

impl Latest {
    /// Keeps a place for a key. Returns false if the room keeps the most keys allowed.
    pub(super) fn admit(&mut self, type_name: &TypeName, key: &Key) -> bool {
        let is_full = self.0.len() >= LATEST_KEYS_MAX;
        let place = (type_name.clone(), key.clone());
        if is_full && !self.0.contains_key(&place) {
            return false;
        }
        self.0.entry(place).or_insert(None);
        true
    }

    /// Keeps a place for a key, past the bound as well.
    pub(super) fn make_place(&mut self, type_name: &TypeName, key: &Key) {
        self.0.entry((type_name.clone(), key.clone())).or_insert(None);
    }

    /// The batch `seq` tells devices this value.
    pub(super) fn record(&mut self, seq: Seq, message: &Arc<Message>) {
        let key = message.key.clone().expect("class latest always has a key");
        let value = LatestValue { seq, message: Arc::clone(message) };
        self.0.insert((message.type_name.clone(), key), Some(value));
    }

    /// The values in the batches after `seq`, in order of seq.
    pub(super) fn since(&self, seq: Seq) -> Vec<Arc<Message>> {
        let mut newer: Vec<&LatestValue> =
            self.0.values().flatten().filter(|value| value.seq > seq).collect();
        // The map is in order of key, and devices expect room order.
        newer.sort_by_key(|value| value.seq);
        newer.into_iter().map(|value| Arc::clone(&value.message)).collect()
    }

    /// The wire size of all values told to devices.
    pub(super) fn bytes(&self) -> usize {
        self.0.values().flatten().map(|value| value.message.wire_bytes).sum()
    }
}
