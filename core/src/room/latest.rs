//! The newest value of each key of class latest, as devices have been told it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{Key, Seq, TypeName};
use super::message::Message;
use crate::limits::LATEST_KEYS_MAX;

/// The latest values of one room.
#[derive(Debug, Default)]
pub struct Latest(BTreeMap<(TypeName, Key), Option<Told>>);

#[derive(Debug)]
struct Told {
    seq: Seq,
    message: Arc<Message>,
}

impl Latest {
    /// Keeps a place for a key. `false`: the room keeps as many as it may.
    pub fn admit(&mut self, type_name: &TypeName, key: &Key) -> bool {
        let full = self.0.len() >= LATEST_KEYS_MAX;
        let place = (type_name.clone(), key.clone());
        if full && !self.0.contains_key(&place) {
            return false;
        }
        self.0.entry(place).or_insert(None);
        true
    }

    /// The batch `seq` tells devices this value.
    pub fn record(&mut self, seq: Seq, message: &Arc<Message>) {
        let key = message.key.clone().expect("class latest always has a key");
        self.0.insert((message.type_name.clone(), key), Some(Told { seq, message: Arc::clone(message) }));
    }

    /// The values that the batches after `seq` told, in the order they were told.
    #[must_use]
    pub fn since(&self, seq: Seq) -> Vec<Arc<Message>> {
        let mut told: Vec<&Told> = self.0.values().flatten().filter(|told| told.seq > seq).collect();
        told.sort_by_key(|told| told.seq);
        told.into_iter().map(|told| Arc::clone(&told.message)).collect()
    }
}
