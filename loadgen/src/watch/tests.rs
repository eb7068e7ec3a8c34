//! Frames a faultless and a misbehaving server would send, and what the watch makes of them.

use super::*;
use crate::ledger::{Outcome, Published, check};

const ROOM: &str = "lg-1-0";

fn schedule() -> Schedule {
    Schedule { start_ns: 0, messages: 12, rate_milli: 1_000_000, rooms: 1, messages_per_request: 1 }
}

/// A watch of one room with three devices, all welcomed at seq 4.
struct Bench {
    watch: Watch,
    tracks: [Track; 3],
}

fn seat(device: u32) -> Seat {
    Seat { device, place: 0 }
}

fn message(number: u64) -> String {
    let mut payload = Vec::new();
    Payloads::new(60, 1).write(&schedule(), number, &mut payload);
    format!(r#"{{"type":"chat","payload":{},"at":1}}"#, String::from_utf8(payload).unwrap())
}

fn batch(seq: u64, numbers: &[u64]) -> String {
    let messages: Vec<String> = numbers.iter().map(|number| message(*number)).collect();
    format!(
        r#"{{"kind":"batch","room":"{ROOM}","run":"0a","seq":{seq},"messages":[{}]}}"#,
        messages.join(",")
    )
}

fn refresh(seq: u64, skipped: u64) -> String {
    format!(r#"{{"kind":"batch","room":"{ROOM}","run":"0a","seq":{seq},"skipped":{{"chat":{skipped}}}}}"#)
}

impl Bench {
    fn new() -> Self {
        let room = RoomToWatch { room: 0, name: ROOM.into(), devices: 3 };
        let watch = Watch::new(schedule(), Encoding::Json, Payloads::new(60, 1), [room]);
        let mut bench = Self { watch, tracks: [Track::default(); 3] };
        let welcome =
            format!(r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":4,"heartbeat_ms":25000}}"#);
        for device in 0..3 {
            assert_eq!(
                bench.hear(device, &welcome),
                Heard::Welcomed { heartbeat_ms: 25_000, ack_within_ms: None }
            );
        }
        bench
    }

    fn hear(&mut self, device: u32, frame: &str) -> Heard {
        self.watch.hear(&mut self.tracks[device as usize], seat(device), frame.as_bytes(), 1_000_000_000)
    }

    fn all_hear(&mut self, frame: &str) {
        for device in 0..3 {
            self.hear(device, frame);
        }
    }

    fn verdict(mut self) -> Violations {
        let mut published = Published::new(schedule());
        for request in 0..12 {
            published.sent(request, 10 * request);
            published.answered(request, 10 * request + 5, [Outcome::Ok]);
        }
        for device in 0..3 {
            self.watch.end(self.tracks[device as usize], seat(device), 2_000_000_000);
        }
        let seen = self.watch.finish().remove(0);
        let mut violations = std::mem::take(&mut self.watch.violations);
        check(&published, &seen, &mut violations);
        violations
    }
}

#[test]
fn a_faultless_stream_is_decoded_once_for_all_devices() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    bench.all_hear(&batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    assert_eq!(bench.watch.tally.decoded, 3 + 2, "three welcomes, two batches");
    assert_eq!(bench.watch.tally.deliveries, 36);
    assert!(bench.watch.is_complete(0, 12) && bench.watch.is_level(bench.tracks[0], seat(0), 0));
    assert!(bench.verdict().is_empty());
}

#[test]
fn a_message_missing_for_one_device_is_lost() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    for device in 0..2 {
        bench.hear(device, &batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    }
    bench.hear(2, &batch(6, &[4, 5, 7, 8, 9, 10, 11]));
    assert_eq!(bench.verdict().count(Kind::Lost), 1);
}

#[test]
fn a_swap_for_one_device_is_out_of_order() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    for device in 0..2 {
        bench.hear(device, &batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    }
    bench.hear(2, &batch(6, &[5, 4, 6, 7, 8, 9, 10, 11]));
    assert_eq!(bench.verdict().count(Kind::OutOfOrder), 1);
}

#[test]
fn one_changed_byte_for_one_device_is_altered() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    let honest = batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]);
    for device in 0..2 {
        bench.hear(device, &honest);
    }
    // The byte before the closing quote of the last payload.
    let at = honest.rfind("\",\"at\"").unwrap() - 1;
    let other = if &honest[at..=at] == "x" { "y" } else { "x" };
    let altered = format!("{}{other}{}", &honest[..at], &honest[at + 1..]);
    bench.hear(2, &altered);
    assert_eq!(bench.verdict().count(Kind::Altered), 1);
}

#[test]
fn a_frame_sent_twice_to_one_device_is_seen() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    bench.all_hear(&batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    bench.hear(1, &batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    assert_eq!(bench.verdict().count(Kind::Twice), 8);
}

#[test]
fn an_exact_refresh_is_no_violation_and_an_inexact_one_is() {
    for (skipped, inexact) in [(6, 0), (5, 1)] {
        let mut bench = Bench::new();
        bench.all_hear(&batch(5, &[0, 1, 2, 3]));
        // Device 2 is refreshed before anybody was read what it missed.
        bench.hear(2, &refresh(7, skipped));
        for device in 0..2 {
            bench.hear(device, &batch(6, &[4, 5]));
            bench.hear(device, &batch(7, &[6, 7, 8, 9]));
        }
        bench.all_hear(&batch(8, &[10, 11]));
        assert_eq!(bench.watch.tally.skipped, skipped);
        assert_eq!(bench.verdict().count(Kind::SkipInexact), inexact);
    }
}

#[test]
fn a_batch_may_carry_the_account_of_those_before_it() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    for device in 0..2 {
        bench.hear(device, &batch(6, &[4, 5]));
        bench.hear(device, &batch(7, &[6, 7, 8, 9, 10, 11]));
    }
    let composed =
        batch(7, &[6, 7, 8, 9, 10, 11]).replace("\"messages\"", "\"skipped\":{\"chat\":2},\"messages\"");
    bench.hear(2, &composed);
    assert!(bench.verdict().is_empty());
}

#[test]
fn a_batch_that_says_what_was_merged_is_level_all_the_same() {
    let mut bench = Bench::new();
    let merged = batch(5, &[0, 1, 2, 3]).replace("\"messages\"", "\"merged\":{\"online\":1},\"messages\"");
    bench.all_hear(&merged);
    bench.all_hear(&batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    assert_eq!(bench.watch.tally.decoded, 3 + 2);
    assert!(bench.verdict().is_empty());
}

#[test]
fn other_bytes_around_the_same_messages_are_altered_too() {
    let mut bench = Bench::new();
    bench.hear(0, &batch(5, &[0, 1]));
    bench.hear(1, &batch(5, &[0, 1]).replacen("\"at\":1", "\"at\":2", 1));
    assert_eq!(bench.watch.violations.count(Kind::Altered), 1);
}

#[test]
fn a_jump_without_a_word_is_a_gap() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    for device in 0..2 {
        bench.hear(device, &batch(6, &[4, 5]));
    }
    bench.all_hear(&batch(7, &[6, 7, 8, 9, 10, 11]));
    let violations = bench.verdict();
    assert_eq!(violations.count(Kind::Gap), 1);
}

#[test]
fn the_engines_own_messages_are_tolerated_and_nobody_elses() {
    let mut bench = Bench::new();
    let online = |kind: &str| batch(5, &[]).replace("[]", &format!(r#"[{{"type":"{kind}","payload":3}}]"#));
    bench.all_hear(&online("online"));
    bench.all_hear(&batch(6, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]));
    assert!(bench.verdict().is_empty());
    let mut bench = Bench::new();
    bench.hear(0, &online("gift"));
    assert_eq!(bench.watch.violations.count(Kind::Foreign), 1);
}

#[test]
fn what_cannot_be_read_is_counted_and_a_first_frame_must_be_a_welcome() {
    let mut bench = Bench::new();
    bench.hear(0, "{\"kind\":");
    assert_eq!(bench.watch.violations.count(Kind::Undecodable), 1);
    bench.tracks[1] = Track::default();
    assert_eq!(bench.hear(1, "{}"), Heard::NotAWelcome);
    assert_eq!(bench.hear(1, &batch(5, &[0])), Heard::NotAWelcome);
}
