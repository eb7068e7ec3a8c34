//! The reader of device frames against random bytes. The result is the same for every cut, the reader holds
//! no more than its bound, and neither the reader nor the parser behind it panics.

use std::ops::ControlFlow;

use prost::Message as _;
use roomcast_core::limits::{INTEGER_MAX, ROOMS_PER_CONNECTION_MAX};
use roomcast_core::proto;
use roomcast_core::room::id::{Encoding, Epoch, RoomName};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::device::{self, Ack, DeviceFrame};
use roomcast_core::wire::reader::{FrameReader, Incoming};
use serde_json::{Value, json};

const MESSAGE_BYTES_MAX: usize = 180;

/// All frames of a reader, in order, and its end.
#[derive(Debug, PartialEq)]
struct Heard {
    frames: Vec<String>,
    outcome: Result<(), CloseReason>,
}

/// Feeds `bytes`, cut at `cuts`, which rise.
fn hear(bytes: &[u8], cuts: &[usize], seed: u64) -> Heard {
    let mut reader = FrameReader::default();
    let mut frames = Vec::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        let mut scratch = bytes[from..to].to_vec();
        let outcome = reader.feed(&mut scratch, MESSAGE_BYTES_MAX, &mut |incoming| {
            frames.push(format!("{incoming:?}"));
            for encoding in Encoding::ALL {
                drop(device::parse(encoding, &incoming));
            }
            ControlFlow::Continue(())
        });
        assert!(reader.held_bytes() <= MESSAGE_BYTES_MAX + 512, "seed {seed}: {}", reader.held_bytes());
        if outcome.is_err() {
            return Heard { frames, outcome };
        }
        from = to;
    }
    Heard { frames, outcome: Ok(()) }
}

fn frame(rng: &mut fastrand::Rng, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask: [u8; 4] = std::array::from_fn(|_| rng.u8(..));
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => bytes.push(0x80 | short),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).expect("payloads here are small").to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn payload(rng: &mut fastrand::Rng) -> Vec<u8> {
    match rng.u8(..7) {
        0 => br#"{"kind":"ack","room":"r1","epoch":"00000000000000ff","offset":8}"#.to_vec(),
        1 => br#"{"kind":"ack","acks":[{"offset":1},{"room":"r2","offset":0}]}"#.to_vec(),
        2 => br#"{"kind":"join","room":"r2","cursor":"00000000000000ff:7"}"#.to_vec(),
        3 => "ação €𝄞 ".repeat(rng.usize(..16)).into_bytes(),
        4 => (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
        5 => vec![0x0a, 0x04, 0x0a, 0x02, 0x18, 0x08],
        _ => Vec::new(),
    }
}

/// Mostly well-formed frames: messages, whole and in fragments, with control frames between them.
fn stream(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..6) {
        let payload = payload(rng);
        let kind = if str::from_utf8(&payload).is_ok() && rng.u8(..8) > 0 { 1 } else { 2 };
        match rng.u8(..8) {
            0..3 => bytes.extend(frame(rng, 0x80 | kind, &payload)),
            3..6 => {
                let at = rng.usize(..=payload.len());
                bytes.extend(frame(rng, kind, &payload[..at]));
                if rng.bool() {
                    bytes.extend(frame(rng, 0x89, b"between"));
                }
                bytes.extend(frame(rng, 0x80, &payload[at..]));
            }
            6 => bytes.extend(frame(rng, 0x8a, &payload[..payload.len().min(125)])),
            _ if rng.u8(..8) == 0 => bytes.extend(frame(rng, 0x88, &[0x03, 0xe8])),
            _ => bytes.extend(frame(rng, 0x89, b"ping")),
        }
    }
    bytes
}

fn cuts(rng: &mut fastrand::Rng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..rng.usize(..12)).map(|_| rng.usize(..=len)).collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn however_the_bytes_are_cut_the_reader_says_the_same() {
    let mut good = 0;
    let mut bad = [0; CloseReason::ALL.len()];
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = stream(&mut rng);
        // Every other stream is damaged in a few places.
        for _ in 0..if rng.bool() { rng.usize(1..4) } else { 0 } {
            let at = rng.usize(..bytes.len());
            match rng.u8(..3) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes[at] ^= 1 << rng.u8(..8),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let whole = hear(&bytes, &[], seed);
        assert_eq!(hear(&bytes, &cuts(&mut rng, bytes.len()), seed), whole, "seed {seed}");
        let each_byte: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(hear(&bytes, &each_byte, seed), whole, "seed {seed}, byte by byte");
        match whole.outcome {
            Ok(()) => good += 1,
            Err(reason) => bad[reason as usize] += 1,
        }
    }
    assert!(good > 5_000, "{good}");
    for reason in [CloseReason::ProtocolError, CloseReason::NotUtf8, CloseReason::TooBig] {
        assert!(bad[reason as usize] > 100, "{reason:?} was reached {} times", bad[reason as usize]);
    }
}

#[test]
fn undamaged_fragments_give_back_the_whole() {
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let text: String =
            (0..rng.usize(1..60)).map(|_| *rng.choice(&['a', 'é', '€', '𝄞']).unwrap()).collect();
        let mut at = cuts(&mut rng, text.len());
        at.push(text.len());
        let mut bytes = Vec::new();
        let mut from = 0;
        for (index, &to) in at.iter().enumerate() {
            let first = u8::from(index == 0) | if index + 1 == at.len() { 0x80 } else { 0 };
            bytes.extend(frame(&mut rng, first, &text.as_bytes()[from..to]));
            from = to;
        }
        let heard = hear(&bytes, &cuts(&mut rng, bytes.len()), seed);
        assert_eq!(heard.frames.len(), at.len(), "seed {seed}: each frame is counted");
        assert_eq!(heard.frames.last(), Some(&format!("{:?}", Incoming::Text(&text))), "seed {seed}");
        assert_eq!(heard.outcome, Ok(()), "seed {seed}");
    }
}

#[test]
fn noise_and_announced_lengths_cost_nothing() {
    for seed in 0..50_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes: Vec<u8> = (0..rng.usize(1..40)).map(|_| rng.u8(..)).collect();
        if rng.bool() {
            // A plausible first byte and any length, so that noise gets past the header.
            bytes[0] = *rng.choice(&[0x81, 0x82, 0x01, 0x02, 0x88, 0x89]).unwrap();
            if let Some(second) = bytes.get_mut(1) {
                *second |= 0x80;
            }
        }
        let whole = hear(&bytes, &[], seed);
        assert_eq!(hear(&bytes, &cuts(&mut rng, bytes.len()), seed), whole, "seed {seed}");
    }
}

/// Only an acknowledgement moves a cursor, so its meaning must not depend on its encoding.
#[test]
fn acks_say_the_same_in_both_encodings() {
    for seed in 0..2_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let entries: Vec<proto::AckEntry> = (0..rng.usize(1..=ROOMS_PER_CONNECTION_MAX))
            .map(|_| proto::AckEntry {
                room: if rng.bool() { format!("live:{}", rng.u8(..)) } else { String::new() },
                epoch: if rng.bool() { format!("{:016x}", rng.u64(..)) } else { String::new() },
                offset: rng.u64(..=INTEGER_MAX) >> rng.u32(..54),
            })
            .collect();
        let leaves_out = rng.bool();
        let spelt = |entry: &proto::AckEntry| {
            let mut object = json!({ "room": entry.room, "epoch": entry.epoch, "offset": entry.offset });
            // Null, a missing field and an empty one are the same.
            for name in ["room", "epoch"].into_iter().filter(|_| leaves_out) {
                if object[name] == "" {
                    object[name] = Value::Null;
                }
            }
            object
        };
        let mut text = json!({ "kind": "ack", "acks": entries.iter().map(spelt).collect::<Vec<_>>() });
        if rng.bool()
            && let [entry] = &*entries
        {
            text = spelt(entry);
            text["kind"] = "ack".into();
        }
        let in_json = device::parse(Encoding::Json, &Incoming::Text(&text.to_string())).unwrap().unwrap();
        let wanted = entries.iter().map(|entry| Ack {
            room: RoomName::parse(&entry.room).ok(),
            epoch: u64::from_str_radix(&entry.epoch, 16).ok().map(Epoch),
            offset: entry.offset,
        });
        assert_eq!(in_json, DeviceFrame::Ack(wanted.collect()), "seed {seed}");
        let frame =
            proto::DeviceFrame { frame: Some(proto::device_frame::Frame::Ack(proto::Ack { acks: entries })) };
        let in_proto = device::parse(Encoding::Proto, &Incoming::Binary(&frame.encode_to_vec())).unwrap();
        assert_eq!(in_proto, Some(in_json), "seed {seed}");
    }
}
