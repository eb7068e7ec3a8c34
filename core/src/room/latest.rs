//! The newest value of each key of class latest, as told to devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::audience::ONLINE;
use super::handed;
use super::id::{Key, Seq, TypeName};
use super::message::Message;
use crate::limits::LATEST_KEYS_MAX;
use crate::node_proto as pb;

/// The latest values of a room.
///
/// Each key has a number: its place among the room's keys, in the order in which the room met them. A key never
/// leaves, so the number stays.
#[derive(Debug, Default)]
pub(super) struct Latest {
    numbers: BTreeMap<(TypeName, Key), usize>,
    /// By number: the value told to devices. `None` keeps a place for a waiting value: past the bound a new key
    /// is refused at the publish, not at the cut.
    values: Vec<Option<LatestValue>>,
}

#[derive(Debug)]
struct LatestValue {
    /// The batch of the value.
    seq: Seq,
    message: Arc<Message>,
}

/// The place of a member among the latest values, where a frame had no room for all of them. Frames walk over
/// the keys in laps, so every key has its turn, however fast the others change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LatestPlace {
    /// The number of the next key.
    next: usize,
    /// The member knows the values of the keys from `next` on as of this seq, or a later one.
    ahead: Seq,
    /// The member knows the values of the keys before `next` as of this seq, or a later one.
    behind: Seq,
}

impl LatestPlace {
    /// The place of a member with all values as of `known`, for a frame at `seq`.
    #[must_use]
    pub fn begin(known: Seq, seq: Seq) -> Self {
        Self { next: 0, ahead: known, behind: seq }
    }

    /// The place with these parts, as another node says it. `next` may be past the keys of the room.
    #[must_use]
    pub fn at(next: u32, ahead: Seq, behind: Seq) -> Self {
        Self { next: next as usize, ahead, behind }
    }

    /// The number of the next key.
    #[must_use]
    pub fn next(self) -> u32 {
        u32::try_from(self.next).unwrap_or(u32::MAX)
    }

    /// The seq as of which the member knows the keys from the next one on.
    #[must_use]
    pub fn ahead(self) -> Seq {
        self.ahead
    }

    /// The seq as of which the member knows the keys before the next one.
    #[must_use]
    pub fn behind(self) -> Seq {
        self.behind
    }
}

/// The part of the latest values for one frame.
#[derive(Debug)]
pub(super) struct LatestPart {
    /// The values, in order of seq.
    pub(super) values: Vec<Arc<Message>>,
    /// The place from which further frames go on; `None`: no value is left.
    pub(super) rest: Option<LatestPlace>,
}

impl Latest {
    /// Keeps a place for a key. Returns false if the room keeps the most keys allowed.
    pub(super) fn admit(&mut self, type_name: &TypeName, key: &Key) -> bool {
        let is_full = self.values.len() >= LATEST_KEYS_MAX;
        if is_full && !self.numbers.contains_key(&(type_name.clone(), key.clone())) {
            return false;
        }
        self.make_place(type_name, key);
        true
    }

    /// Keeps a place for a key, past the bound as well.
    pub(super) fn make_place(&mut self, type_name: &TypeName, key: &Key) {
        self.number(type_name, key);
    }

    /// The number of a key, new if need be.
    fn number(&mut self, type_name: &TypeName, key: &Key) -> usize {
        let values = &mut self.values;
        *self.numbers.entry((type_name.clone(), key.clone())).or_insert_with(|| {
            values.push(None);
            values.len() - 1
        })
    }

    /// The batch `seq` tells devices this value.
    pub(super) fn record(&mut self, seq: Seq, message: &Arc<Message>) {
        let key = message.key.as_ref().expect("class latest always has a key");
        let number = self.number(&message.type_name, key);
        self.values[number] = Some(LatestValue { seq, message: Arc::clone(message) });
    }

    /// The values that a member at `place` lacks as of the present `seq`, as far as they fit `bytes_max`; at
    /// least one if `has_one`.
    pub(super) fn part(&self, place: LatestPlace, seq: Seq, bytes_max: usize, has_one: bool) -> LatestPart {
        let mut picked = Vec::new();
        let mut bytes = 0;
        let rest = self.lap(place, seq, |value| {
            let fits = bytes + value.message.wire_bytes <= bytes_max || (has_one && picked.is_empty());
            if fits {
                bytes += value.message.wire_bytes;
                picked.push(value);
            }
            fits
        });
        // The values are in order of key, and devices expect room order.
        picked.sort_by_key(|value: &&LatestValue| value.seq);
        LatestPart { values: picked.into_iter().map(|value| Arc::clone(&value.message)).collect(), rest }
    }

    /// Walks over the values that a member at `place` lacks, until `take` refuses one. The result is the place
    /// of the refused value.
    fn lap<'a>(
        &'a self,
        place: LatestPlace,
        seq: Seq,
        mut take: impl FnMut(&'a LatestValue) -> bool,
    ) -> Option<LatestPlace> {
        let LatestPlace { next, ahead, behind } = place;
        // Another node may name a place of a former life of the room.
        let first = next.min(self.values.len());
        let mut refused = |keys: std::ops::Range<usize>, known: Seq| {
            let values = self.values[keys.clone()].iter();
            let mut lacking = keys.zip(values).filter_map(|(number, value)| Some((number, value.as_ref()?)));
            lacking.find(|(_, value)| value.seq > known && !take(value)).map(|(number, _)| number)
        };
        if let Some(next) = refused(first..self.values.len(), ahead) {
            return Some(LatestPlace { next, ..place });
        }
        // The lap is over. In the next one, the keys that this frame has told already end the walk.
        let next = refused(0..first, behind)?;
        Some(LatestPlace { next, ahead: behind, behind: seq })
    }

    /// The values of batches behind `since`, for the node that would take the room over. The number of members is the
    /// engine's own, and counted anew there.
    pub(super) fn kept(&self, since: Seq) -> Vec<pb::ShownMessage> {
        let newer = self.values.iter().flatten().filter(|value| value.seq > since);
        let published = newer.filter(|value| value.message.type_name.as_str() != ONLINE);
        published.map(|value| handed::message(value.seq, &value.message)).collect()
    }

    /// The values for the next home of the room, in order of number. Of a key without a value, its names alone.
    pub(super) fn handed(&self) -> Vec<pb::ShownMessage> {
        let mut keys: Vec<(&(TypeName, Key), usize)> =
            self.numbers.iter().map(|(key, at)| (key, *at)).collect();
        keys.sort_by_key(|(_, number)| *number);
        let handed = |((type_name, key), number): (&(TypeName, Key), usize)| match &self.values[number] {
            Some(value) => handed::message(value.seq, &value.message),
            None => pb::ShownMessage {
                r#type: type_name.as_str().into(),
                key: key.as_str().into(),
                ..pb::ShownMessage::default()
            },
        };
        keys.into_iter().map(handed).collect()
    }

    /// The values of a former home, as of the batch `head`. `None`: no home says so.
    pub(super) fn of_handed(said: Vec<pb::ShownMessage>, head: Seq) -> Option<Self> {
        let mut latest = Self::default();
        // The engine's own key has a place past the bound.
        if said.len() > LATEST_KEYS_MAX + 1 {
            return None;
        }
        for (number, said) in said.into_iter().enumerate() {
            let key = (TypeName::parse(&said.r#type).ok()?, Key::parse(&said.key).ok()?);
            if latest.numbers.insert(key, number).is_some() {
                return None;
            }
            let value = if said.has_value { Some(handed::of_message(said, head)?) } else { None };
            latest.values.push(value.map(|(seq, message)| LatestValue { seq, message: Arc::new(message) }));
        }
        Some(latest)
    }

    /// The wire size of all values told to devices.
    pub(super) fn bytes(&self) -> usize {
        self.values.iter().flatten().map(|value| value.message.wire_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::message::sample;

    /// Tells the value of a key with the batch `seq`; each is of 1 000 bytes.
    fn tell(latest: &mut Latest, seq: u64, key: usize) {
        let key = Key::parse(&format!("k{key}")).unwrap();
        let message = Message { key: Some(key), wire_bytes: 1_000, ..sample("price", &seq.to_string()) };
        latest.record(Seq(seq), &Arc::new(message));
    }

    /// Key and payload of each value in a part.
    fn told(part: &LatestPart) -> Vec<String> {
        let told = |message: &Arc<Message>| {
            let payload = String::from_utf8_lossy(message.payload.bytes()).into_owned();
            format!("{}={payload}", message.key.as_ref().unwrap().as_str())
        };
        part.values.iter().map(told).collect()
    }

    #[test]
    fn values_without_room_follow_and_nothing_is_told_twice() {
        let mut latest = Latest::default();
        (1..=5).zip([8, 7, 6, 5, 4]).for_each(|(seq, key)| tell(&mut latest, seq, key));
        let first = latest.part(LatestPlace::begin(Seq(0), Seq(5)), Seq(5), 2_500, false);
        assert_eq!(told(&first), ["k8=1", "k7=2"]);
        let second = latest.part(first.rest.unwrap(), Seq(5), 2_500, false);
        assert_eq!(told(&second), ["k6=3", "k5=4"]);
        let third = latest.part(second.rest.unwrap(), Seq(5), 2_500, false);
        assert_eq!((told(&third), third.rest), (vec!["k4=5".to_owned()], None));
        let since = latest.part(LatestPlace::begin(Seq(4), Seq(5)), Seq(5), 2_500, false);
        assert_eq!((told(&since), since.rest), (vec!["k4=5".to_owned()], None));
    }

    #[test]
    fn a_value_that_changes_meanwhile_comes_again_and_each_key_has_its_turn() {
        let mut latest = Latest::default();
        (0..4).for_each(|key| tell(&mut latest, 1, key));
        let mut part = latest.part(LatestPlace::begin(Seq(0), Seq(1)), Seq(1), 1_000, false);
        let mut seen = told(&part);
        // The keys 0 and 1 change faster than the member is told of anything, until seq 6.
        for seq in 2..=8 {
            (0..if seq > 6 { 0 } else { 2 }).for_each(|key| tell(&mut latest, seq, key));
            part = latest.part(part.rest.unwrap(), Seq(seq), 1_000, false);
            seen.extend(told(&part));
        }
        assert_eq!(seen, ["k0=1", "k1=2", "k2=1", "k3=1", "k0=5", "k1=6", "k0=6", "k1=6"]);
        assert_eq!(part.rest, None, "now it has the newest of each");
    }

    #[test]
    fn a_value_larger_than_the_room_comes_alone_where_a_frame_has_nothing_else() {
        let mut latest = Latest::default();
        (0..2).for_each(|key| tell(&mut latest, 1, key));
        let begin = LatestPlace::begin(Seq(0), Seq(1));
        let none = latest.part(begin, Seq(1), 500, false);
        assert_eq!((told(&none).len(), none.rest), (0, Some(begin)));
        let one = latest.part(begin, Seq(1), 500, true);
        assert_eq!(told(&one), ["k0=1"]);
        assert_eq!(told(&latest.part(one.rest.unwrap(), Seq(1), 500, true)), ["k1=1"]);
    }

    /// Values may change between the frames, and frames may be small: the member has the newest values once
    /// no rest is left.
    #[test]
    fn with_no_rest_left_a_member_has_the_newest_value_of_each_key() {
        for seed in 0..500 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut latest = Latest::default();
            let mut newest = BTreeMap::new();
            let mut held = BTreeMap::new();
            let mut known = Seq(0);
            let mut rest = None;
            for seq in 1..200_u64 {
                for _ in 0..if seq < 150 { rng.usize(0..4) } else { 0 } {
                    let key = rng.usize(0..12);
                    tell(&mut latest, seq, key);
                    newest.insert(format!("k{key}"), seq.to_string());
                }
                if rng.bool() {
                    let place = rest.unwrap_or_else(|| LatestPlace::begin(known, Seq(seq)));
                    let part = latest.part(place, Seq(seq), rng.usize(0..4_000), true);
                    for told in told(&part) {
                        let (key, value) = told.split_once('=').unwrap();
                        held.insert(key.to_owned(), value.to_owned());
                    }
                    (known, rest) = (Seq(seq), part.rest);
                    assert!(rest.is_some() || held == newest, "seed {seed}: at {seq}");
                }
            }
            assert_eq!((rest, &held), (None, &newest), "seed {seed}");
        }
    }
}
