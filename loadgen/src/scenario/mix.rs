//! The mix of a run: the published types with their rates, classes and keys. Pure.
//!
//! Each type has a schedule of its own, so a type with slow answers delays no other.

use std::str::FromStr;

use roomcast_core::room::id::TypeName;
use serde::{Deserialize, Serialize};

use crate::scenario::payload::Length;
use crate::scenario::schedule::Schedule;

/// Most types with a `readable_max`.
pub(crate) const LIMITS_MAX: usize = 4;
/// Most types of one run: a frame's account names each type by one byte.
pub(crate) const TYPES_MAX: usize = 16;
/// Most keys of one type: the ledger keeps a sum for each.
pub(crate) const KEYS_MAX: u32 = 10_000;
/// Largest count of one message; the publisher door refuses more.
pub(crate) const COUNT_MAX: u32 = 1_000_000_000;
/// A request holds at most the messages due within this time, so a slow type does not wait to fill requests.
const REQUEST_MS: u64 = 10;

roomcast_core::named! {
    /// The engine's promise for a type.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub(crate) enum Class {
        Reliable = "reliable",
        Normal = "normal",
        Latest = "latest",
        Counter = "counter",
        Lossy = "lossy",
    }
}

impl Class {
    /// The class built into the node for a type: normal for unknown types.
    pub(crate) fn of(type_name: &str) -> Self {
        match type_name {
            "red_packet" | "coupon" | "product_card" => Self::Reliable,
            "like" => Self::Counter,
            "enter" | "follow" => Self::Lossy,
            _ => Self::Normal,
        }
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|class| class.name() == text)
            .ok_or_else(|| format!("{text:?} is no class: reliable, normal, latest, counter or lossy"))
    }
}

/// Checks a type's name, count and keys against its class.
///
/// # Errors
/// A sentence with the type's name first.
pub(crate) fn check_type(type_name: &str, class: Class, count: Option<u32>, keys: u32) -> Result<(), String> {
    TypeName::parse(type_name).map_err(|bad| format!("{type_name}: a type is {bad}"))?;
    // The node publishes the online counter itself.
    if type_name == "online" {
        return Err("online is the engine's own".into());
    }
    if count.is_some_and(|count| !(1..=COUNT_MAX).contains(&count)) {
        return Err(format!("{type_name}: count from 1 to {COUNT_MAX}"));
    }
    if keys > KEYS_MAX {
        return Err(format!("{type_name}: keys up to {KEYS_MAX}"));
    }
    // Only classes that the engine merges carry a count.
    if count.is_some() && matches!(class, Class::Reliable | Class::Latest) {
        return Err(format!("{type_name}: a {} message has no count", class.name()));
    }
    // The ledger keeps no keys of reliable messages and counters.
    if keys > 0 && matches!(class, Class::Reliable | Class::Counter) {
        return Err(format!("{type_name}: a {} message has no key here", class.name()));
    }
    Ok(())
}

/// Reads a number from 1 to `most`.
pub(crate) fn within(text: &str, most: u32, what: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{text:?}: {what} from 1 to {most}"))
}

/// Messages of one request: those due in 10 ms at this rate, from 1 to `most`.
pub(crate) fn messages_per_request(rate_milli: u64, most: u32) -> u32 {
    let due = rate_milli.saturating_mul(REQUEST_MS) / 1_000_000;
    u32::try_from(due).unwrap_or(u32::MAX).clamp(1, most)
}

/// The most messages a second that a device may be given of a type: `TYPE=N`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) type_name: String,
    pub(crate) per_second: u32,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (type_name, most) = text.split_once('=').ok_or("a limit is TYPE=N")?;
        Ok(Self {
            type_name: type_name.to_owned(),
            per_second: within(most, 1_000_000, "messages a second")?,
        })
    }
}

/// A published type of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) type_name: String,
    pub(crate) class: Class,
    /// The run sets the start when publishing begins.
    pub(crate) schedule: Schedule,
    /// Units in each message; `None`: messages have no count.
    pub(crate) count: Option<u32>,
    /// Number of keys; 0: messages have no key.
    pub(crate) keys: u32,
    pub(crate) length: Length,
}

impl Load {
    pub(crate) fn is_counter(&self) -> bool {
        self.class == Class::Counter
    }

    /// Units in one message.
    pub(crate) fn each(&self) -> u64 {
        self.count.map_or(1, u64::from)
    }

    /// The key number of message `number`: keys in turn within each room; 0 without keys.
    pub(crate) fn key_number(&self, number: u64) -> u32 {
        if self.keys == 0 { 0 } else { self.schedule.place_of(number) % self.keys }
    }

    pub(crate) fn key(&self, number: u64) -> Option<String> {
        (self.keys > 0).then(|| format!("k{}", self.key_number(number)))
    }
}

/// The reliable types of a run, with their weights. All share one schedule, and each message draws its type
/// by weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReliableTypes(Vec<(String, u64)>);

impl ReliableTypes {
    /// Weights may be 0, but not all.
    pub(crate) fn new(types: Vec<(String, u64)>) -> Self {
        assert!(
            types.iter().any(|(_, weight)| *weight > 0),
            "a run that publishes reliably publishes something"
        );
        Self(types)
    }

    /// The type of message `number`.
    pub(crate) fn of(&self, number: u64) -> &str {
        // Multiplicative hash: the high bits are well mixed, and each process draws the same type.
        let all: u64 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut drawn = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % all;
        let found = self.0.iter().find(|(_, weight)| {
            let is_in = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            is_in
        });
        found.map_or("", |(type_name, _)| type_name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(type_name, _)| &**type_name)
    }
}

/// The seed of a type's payloads (FNV-1a over the name), so payloads of two types never match.
pub(crate) fn type_seed(seed: u64, type_name: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    type_name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_of_built_in_types_are_the_nodes() {
        let node = roomcast::config::Config::load(&Default::default(), std::iter::empty()).unwrap();
        for (type_name, policy) in node.types.iter().filter(|(type_name, _)| type_name.as_str() != "online") {
            assert_eq!(Class::of(type_name.as_str()).name(), policy.class.name(), "{type_name}");
        }
    }

    #[test]
    fn each_reliable_type_has_its_part() {
        let types = ReliableTypes::new(vec![("coupon".into(), 3_000), ("red_packet".into(), 1_000)]);
        let coupons = (0..10_000).filter(|number| types.of(*number) == "coupon").count();
        assert!((7_300..7_700).contains(&coupons), "{coupons}");
        let only = ReliableTypes::new(vec![("coupon".into(), 1)]);
        assert!((0..100).all(|number| only.of(number) == "coupon"));
    }

    #[test]
    fn slow_types_are_not_held_back_to_fill_requests() {
        assert_eq!(messages_per_request(10_000_000, 1_000), 100);
        assert_eq!(messages_per_request(10_000_000, 50), 50);
        assert_eq!(messages_per_request(20_000, 100), 1);
        assert_eq!(messages_per_request(u64::MAX, 100), 100);
    }
}
