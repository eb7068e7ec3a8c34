//! A device that is behind and takes bytes again gets three things in order: reliable messages, the latest
//! state, then new messages. Messages from the time behind are not sent later. The device only hears their
//! number.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use roomcast_core::limits::OUTBOX_FRAMES_MAX;
use roomcast_core::room::id::{Encoding, RoomName};
use roomcast_core::room::message::{Published, Verdict};
use roomcast_core::room::pace::RoomSettings;

use crate::device::{Counts, Device, Heard};
use crate::regressions::Bench;
use crate::socket::Pipe;
use crate::world::name;

const TYPES: [&str; 4] = ["chat", "chat", "enter", "price"];
const ROUNDS: usize = 12;

fn device(key: u64, pipe: &Rc<RefCell<Pipe>>) -> Device {
    Device::new(0, key, Encoding::Json, Rc::clone(pipe), true)
}

/// Publishes one round of chat, merging notices, a price and a coupon. Returns the accepted messages by type.
fn round(bench: &mut Bench, room: &RoomName, n: usize) -> Counts {
    let chat = |index| format!(r#"{{"type":"chat","payload":"{n}.{index} {}"}}"#, "x".repeat(100));
    let enter = |index| format!(r#"{{"type":"enter","key":"who","payload":{index}}}"#);
    let mut names = vec!["chat"; 40];
    let mut bodies: Vec<String> = (0..40).map(chat).collect();
    for index in 0..3 {
        names.push("enter");
        bodies.push(enter(index));
    }
    names.push("price");
    bodies.push(format!(r#"{{"type":"price","key":"p","payload":{n}}}"#));
    bench.publish(room, &format!(r#"{{"messages":[{}]}}"#, bodies.join(",")));
    bench.publish(room, &format!(r#"{{"type":"coupon","payload":{n}}}"#));
    bench.rest();
    let mut accepted = Counts::new();
    while let Some((_, published)) = bench.shard.homes.poll_answer() {
        let Published::Taken(verdicts) = published else { panic!("{published:?}") };
        for (type_name, verdict) in names.iter().zip(&verdicts).filter(|_| verdicts.len() > 1) {
            assert!(matches!(verdict, Verdict::Accepted | Verdict::Merged), "{type_name}: {verdict:?}");
            *accepted.entry((*type_name).to_owned()).or_default() += 1;
        }
    }
    bench.wait(Duration::from_millis(200));
    accepted
}

/// Sums the messages, merges and skips of each type in a device's frames.
fn accounted(device: &Device) -> Counts {
    let mut counts = Counts::new();
    for (_, heard) in &device.heard {
        let Heard::Batch { skipped, content, .. } = heard else { continue };
        let told = content.messages.iter().map(|told| (&told.type_name, 1));
        let counted = skipped.iter().chain(&content.merged).map(|(name, count)| (name, *count));
        for (type_name, count) in told.chain(counted).filter(|(name, _)| TYPES.contains(&name.as_str())) {
            *counts.entry(type_name.clone()).or_default() += count;
        }
    }
    counts
}

/// The number of skipped messages in all frames of a device.
fn told_skipped(device: &Device) -> u64 {
    let batches = device.heard.iter().filter_map(|(_, heard)| match heard {
        Heard::Batch { skipped, .. } => Some(skipped.values().sum::<u64>()),
        _ => None,
    });
    batches.sum()
}

/// The indexes of the frames that take a device past more than the next batch.
fn jumps(device: &Device) -> Vec<usize> {
    let seqs: Vec<u64> = device
        .heard
        .iter()
        .filter_map(|(_, heard)| match heard {
            Heard::Batch { seq, .. } | Heard::Welcome { seq, .. } => Some(*seq),
            Heard::History { .. } | Heard::Left | Heard::Closed => None,
        })
        .collect();
    (1..seqs.len()).filter(|index| seqs[*index] > seqs[*index - 1] + 1).collect()
}

#[test]
fn who_was_behind_gets_coupons_and_prices_and_is_told_how_much_was_said() {
    // The first case shows all messages, the second limits normal messages to 7 a second.
    for normal_per_second in [0, 7] {
        let mut bench = Bench::new(128);
        let room = name("r");
        let settings = RoomSettings { normal_per_second: Some(normal_per_second), ..RoomSettings::default() };
        bench.shard.homes.configure(&room, settings, bench.now).expect("it fits");
        let (seeing_key, seeing_pipe) = bench.join(&room, None, usize::MAX);
        let (slow_key, slow_pipe) = bench.join(&room, None, usize::MAX);
        let mut seeing = device(seeing_key, &seeing_pipe);
        let mut slow = device(slow_key, &slow_pipe);
        bench.rest();
        bench.wait(Duration::from_secs(2));
        slow.read(usize::MAX);
        slow_pipe.borrow_mut().capacity = 100;
        let mut accepted = BTreeMap::new();
        for n in 1..=ROUNDS {
            for (type_name, count) in round(&mut bench, &room, n) {
                *accepted.entry(type_name).or_default() += count;
            }
        }
        slow_pipe.borrow_mut().capacity = usize::MAX;
        for _ in 0..4 {
            if slow.read(usize::MAX) {
                bench.shard.residents.writable(slow_key, bench.now);
            }
            bench.rest();
        }
        for (type_name, count) in round(&mut bench, &room, ROUNDS + 1) {
            *accepted.entry(type_name).or_default() += count;
        }
        slow.read(usize::MAX);
        seeing.read(usize::MAX);

        assert!(jumps(&seeing).is_empty(), "who reads misses nothing");
        assert_eq!(accounted(&seeing), accepted, "at {normal_per_second} a second");
        assert_eq!(accounted(&slow), accepted, "at {normal_per_second} a second");
        // Level frames count the room's own skips, a refresh also the device's. The metric has both.
        let told = told_skipped(&seeing) + told_skipped(&slow);
        assert!(told > 0 && (told_skipped(&seeing) > 0) == (normal_per_second > 0));
        assert_eq!(bench.shard.take_tally().messages_skipped, told, "at {normal_per_second} a second");
        let [jump] = jumps(&slow)[..] else { panic!("one refresh brings it up: {:?}", jumps(&slow)) };
        let Heard::Batch { latest, content, carried, part, .. } = &slow.heard[jump].1 else { unreachable!() };
        assert!(content.messages.is_empty(), "nothing that was said meanwhile: {content:?}");
        let prices: Vec<&str> = latest.iter().map(|told| told.payload.as_str()).collect();
        assert_eq!(prices, [ROUNDS.to_string()], "the newest price alone");
        let coupons: Vec<u64> = part.iter().flat_map(|part| &part.messages).map(|told| told.offset).collect();
        let last = ROUNDS as u64;
        assert!(*carried > 0 && coupons.last() == Some(&last) && coupons.is_sorted(), "{coupons:?}");
        let owed = slow.heard[..jump].iter().filter(|(_, heard)| matches!(heard, Heard::Batch { .. }));
        // The outbox from before the fall, and the batch before that with the audience.
        assert!(owed.count() <= OUTBOX_FRAMES_MAX + 2, "no backlog");
        let offsets = slow.heard.iter().flat_map(|(_, heard)| match heard {
            Heard::Batch { part: Some(part), .. } => part.messages.iter().map(|told| told.offset).collect(),
            _ => Vec::new(),
        });
        let mut offsets: Vec<u64> = offsets.collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert!(offsets.into_iter().eq(1..=last + 1), "every coupon has arrived");
    }
}
