//! Heartbeats and claims as bytes (`proto/heartbeat.proto`). Their readers trust nobody: a word with a mistake is
//! dropped as a whole.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use roomcast_core::cluster::node::{Claim, HeardNode, Heartbeat, HeldSlot, NodeLoad, NodeName};
use roomcast_core::cluster::{Slot, Term};
use roomcast_core::limits::{
    BEAT_BYTES_MAX, NODES_MAX, REGION_MAX, SHARDS_MAX, TERM_PART_MAX, VIEWER_URL_MAX,
};
use roomcast_core::node_proto as wire;

/// The reason why a word of a stranger is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no word of a node: {0}")]
pub(super) struct Unreadable(pub(super) &'static str);

/// The bytes of a heartbeat.
pub(super) fn encode_beat(beat: &Heartbeat) -> Bytes {
    let Heartbeat {
        node,
        incarnation,
        number,
        version,
        load,
        is_draining,
        is_deaf,
        is_leaving,
        slots,
        heard,
    } = beat;
    let slots = slots.iter().map(|HeldSlot { slot, term }| wire::HeldSlot {
        slot: u32::from(slot.0),
        generation: term.generation,
        sequence: term.sequence,
    });
    let heard = heard.iter().map(|HeardNode { name, incarnation, age }| wire::HeardNode {
        node: name.as_str().to_owned(),
        incarnation: *incarnation,
        // Up: a node must not seem to be heard later than it was.
        age_ms: u32::try_from(age.as_micros().div_ceil(1000)).unwrap_or(u32::MAX),
    });
    let beat = wire::Heartbeat {
        node: node.as_str().to_owned(),
        incarnation: *incarnation,
        number: *number,
        version: u32::from(*version),
        region: load.region.clone(),
        viewer_url: load.viewer_url.clone(),
        shards: load.shards,
        seats: load.seats,
        free_seats: load.free_seats,
        busy_permille: load.busy_permille,
        draining: *is_draining,
        leaving: *is_leaving,
        deaf: *is_deaf,
        slots: slots.collect(),
        heard: heard.collect(),
    };
    beat.encode_to_vec().into()
}

/// Reads a heartbeat from the subject of the node `sender`.
///
/// # Errors
/// [`Unreadable`]: the bytes are no heartbeat of that node.
pub(super) fn decode_beat(sender: &str, bytes: &[u8]) -> Result<Heartbeat, Unreadable> {
    if bytes.len() > BEAT_BYTES_MAX {
        return Err(Unreadable("too long"));
    }
    let beat = wire::Heartbeat::decode(bytes).map_err(|_| Unreadable("not protobuf"))?;
    // The NATS servers let a node write to its own subject alone.
    if beat.node != sender {
        return Err(Unreadable("another node's name"));
    }
    let shards_max = u32::try_from(SHARDS_MAX).expect("a node has few shards");
    if beat.region.len() > REGION_MAX || beat.viewer_url.len() > VIEWER_URL_MAX {
        return Err(Unreadable("a text is too long"));
    }
    if !(1..=shards_max).contains(&beat.shards) || beat.number == 0 || beat.heard.len() > NODES_MAX {
        return Err(Unreadable("a number is out of bounds"));
    }
    let mut slots: Vec<HeldSlot> = Vec::new();
    for held in &beat.slots {
        let slot = slot(held.slot)?;
        // Rising slots are at most 256.
        if slots.last().is_some_and(|last| last.slot >= slot) {
            return Err(Unreadable("slots do not rise"));
        }
        slots.push(HeldSlot { slot, term: term(held.generation, held.sequence)? });
    }
    let heard: Result<Vec<HeardNode>, Unreadable> = beat.heard.iter().map(heard_node).collect();
    Ok(Heartbeat {
        node: name(&beat.node)?,
        incarnation: beat.incarnation,
        number: beat.number,
        version: u8::try_from(beat.version).map_err(|_| Unreadable("a number is out of bounds"))?,
        load: NodeLoad {
            region: beat.region,
            viewer_url: beat.viewer_url,
            shards: beat.shards,
            seats: beat.seats,
            free_seats: beat.free_seats,
            busy_permille: beat.busy_permille,
        },
        is_draining: beat.draining,
        is_deaf: beat.deaf,
        is_leaving: beat.leaving,
        slots,
        heard: heard?,
    })
}

/// The bytes of a claim.
pub(super) fn encode_claim(claim: &Claim) -> Bytes {
    let Claim { slot, term, node } = claim;
    let claim = wire::Claim {
        slot: u32::from(slot.0),
        generation: term.generation,
        sequence: term.sequence,
        node: node.as_str().to_owned(),
    };
    claim.encode_to_vec().into()
}

/// Reads a claim.
///
/// # Errors
/// [`Unreadable`]: the bytes are no claim.
pub(super) fn decode_claim(bytes: &[u8]) -> Result<Claim, Unreadable> {
    if bytes.len() > BEAT_BYTES_MAX {
        return Err(Unreadable("too long"));
    }
    let claim = wire::Claim::decode(bytes).map_err(|_| Unreadable("not protobuf"))?;
    Ok(Claim {
        slot: slot(claim.slot)?,
        term: term(claim.generation, claim.sequence)?,
        node: name(&claim.node)?,
    })
}

fn heard_node(heard: &wire::HeardNode) -> Result<HeardNode, Unreadable> {
    let age = Duration::from_millis(heard.age_ms.into());
    Ok(HeardNode { name: name(&heard.node)?, incarnation: heard.incarnation, age })
}

pub(super) fn name(text: &str) -> Result<NodeName, Unreadable> {
    NodeName::parse(text).ok_or(Unreadable("no name of a node"))
}

fn slot(number: u32) -> Result<Slot, Unreadable> {
    u8::try_from(number).map(Slot).map_err(|_| Unreadable("no slot"))
}

pub(super) fn term(generation: u64, sequence: u64) -> Result<Term, Unreadable> {
    // The next generation and the next sequence have to fit.
    if generation > TERM_PART_MAX || !(1..=TERM_PART_MAX).contains(&sequence) {
        return Err(Unreadable("no term"));
    }
    Ok(Term { generation, sequence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn full_beat() -> Heartbeat {
        let term = Term { generation: TERM_PART_MAX, sequence: TERM_PART_MAX };
        let heard = (0..NODES_MAX).map(|index| HeardNode {
            name: name_of(&format!("{index:x>64}")),
            incarnation: u64::MAX,
            age: Duration::from_millis(999),
        });
        Heartbeat {
            node: name_of("node-1"),
            incarnation: 7,
            number: u64::MAX,
            version: 1,
            load: NodeLoad {
                region: "r".repeat(REGION_MAX),
                viewer_url: "u".repeat(VIEWER_URL_MAX),
                shards: 256,
                seats: u64::MAX,
                free_seats: 3,
                busy_permille: 1000,
            },
            is_draining: true,
            is_deaf: true,
            is_leaving: true,
            slots: Slot::all().map(|slot| HeldSlot { slot, term }).collect(),
            heard: heard.collect(),
        }
    }

    #[test]
    fn the_longest_heartbeat_fits_and_comes_back() {
        let bytes = encode_beat(&full_beat());
        assert!(bytes.len() <= BEAT_BYTES_MAX, "{}", bytes.len());
        assert_eq!(decode_beat("node-1", &bytes), Ok(full_beat()));
    }

    #[test]
    fn a_claim_comes_back() {
        let claim = Claim { slot: Slot(255), term: Term { generation: 0, sequence: 1 }, node: name_of("a") };
        assert_eq!(decode_claim(&encode_claim(&claim)), Ok(claim));
    }

    #[test]
    fn an_age_is_never_younger_than_it_was() {
        let mut beat = full_beat();
        beat.heard[0].age = Duration::from_micros(1001);
        let read = decode_beat("node-1", &encode_beat(&beat)).unwrap();
        assert_eq!(read.heard[0].age, Duration::from_millis(2));
    }

    type Spoil = fn(&mut Heartbeat);

    #[test]
    fn a_heartbeat_with_a_mistake_is_dropped() {
        let spoilt: [(&str, Spoil); 9] = [
            ("another name", |beat| beat.node = name_of("node-2")),
            ("no number", |beat| beat.number = 0),
            ("no shard", |beat| beat.load.shards = 0),
            ("too many shards", |beat| beat.load.shards = 257),
            ("long region", |beat| beat.load.region.push('x')),
            ("long URL", |beat| beat.load.viewer_url.push('x')),
            ("a slot twice", |beat| beat.slots[1].slot = Slot(0)),
            ("no term", |beat| beat.slots[0].term.sequence = 0),
            ("too many nodes", |beat| beat.heard.push(beat.heard[0].clone())),
        ];
        for (mistake, spoil) in spoilt {
            let mut beat = full_beat();
            spoil(&mut beat);
            assert!(decode_beat("node-1", &encode_beat(&beat)).is_err(), "{mistake}");
        }
        assert!(decode_beat("node-1", &vec![0; BEAT_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn strange_bytes_are_no_word_and_no_panic() {
        let mut rng = fastrand::Rng::with_seed(15);
        let good = encode_beat(&full_beat());
        for _ in 0..2000 {
            let mut bytes = good[..rng.usize(0..good.len())].to_vec();
            for _ in 0..rng.usize(0..4) {
                if let Some(byte) = rng.choice(bytes.iter_mut()) {
                    *byte = rng.u8(..);
                }
            }
            drop(decode_beat("node-1", &bytes));
            drop(decode_claim(&bytes));
        }
    }
}
