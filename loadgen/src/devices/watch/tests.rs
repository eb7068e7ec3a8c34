//! Frames a faultless and a misbehaving server would send, and what the watch makes of them.

use super::*;
use crate::ledger::{ApplyTimes, Case, Outcome, Published, check, check_counter, check_stream};
use crate::scenario::habits::DeviceHabits;
use crate::scenario::mix::{Load, ReliableTypes, type_seed};
use crate::scenario::payload::{Length, Payloads};
use crate::scenario::plan::Reliable;
use crate::scenario::schedule::Schedule;

mod late;

const ROOM: &str = "lg-1-0";

fn schedule() -> Schedule {
    Schedule::even(12, 1_000_000, 1, 1)
}

/// Twelve chat messages, and what else is named.
fn loads(others: &[(&str, Class)]) -> Vec<Load> {
    let load = |(name, class): &(&str, Class)| Load {
        type_name: (*name).to_owned(),
        class: *class,
        schedule: schedule(),
        count: None,
        keys: 0,
        length: Length::Fixed(60),
    };
    [("chat", Class::Normal)].iter().chain(others).map(load).collect()
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
    message_of("chat", number)
}

fn message_of(type_name: &str, number: u64) -> String {
    let mut payload = Vec::new();
    Payloads::new(Length::Fixed(60), type_seed(1, type_name)).write(&schedule(), number, &mut payload);
    format!(r#"{{"type":"{type_name}","payload":{},"at":1}}"#, String::from_utf8(payload).unwrap())
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
    fn unwelcomed() -> Self {
        Self::of(Known::new(loads(&[]), &[], 1))
    }

    fn of(known: Known) -> Self {
        let watch = Watch::new(known, Encoding::Json, "lg-1", &[0]);
        Self { watch, tracks: [Track::default(); 3] }
    }

    fn new() -> Self {
        Self::unwelcomed().welcomed()
    }

    fn welcomed(mut self) -> Self {
        let bench = &mut self;
        let welcome =
            format!(r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":4,"heartbeat_ms":25000}}"#);
        for device in 0..3 {
            assert_eq!(
                bench.hear(device, &welcome),
                Heard::Welcomed { heartbeat_ms: 25_000, ack_within_ms: None }
            );
        }
        self
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
        let load = &loads(&[])[0];
        let case = Case { kind: 0, load, published: &published, others: false };
        check(&case, &seen, &mut violations);
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
    assert!(bench.watch.is_complete(0, &[12]) && bench.watch.is_level(bench.tracks[0], seat(0), 0));
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

/// What is published reliably beside the chat: three messages, at offsets 1 to 3.
fn with_streams(bench: Bench) -> Bench {
    let length = Length::Fixed(60);
    let original = crate::devices::streams::Original {
        reliable: Reliable {
            schedule: Schedule::even(3, 1_000_000, 1, 1),
            types: ReliableTypes::new(vec![("coupon".into(), 1)]),
            ttl_ms: None,
            length,
        },
        payloads: Payloads::new(length, 2),
        others: false,
    };
    let Bench { watch, tracks } = bench;
    Bench { watch: Watch { streams: Some(Streams::new(original, [0], 20_000)), ..watch }, tracks }
}

fn coupon(offset: u64) -> String {
    let number = offset - 1;
    let mut payload = Vec::new();
    let schedule = Schedule::even(3, 1_000_000, 1, 1);
    let payloads = Payloads::new(Length::Fixed(60), 2);
    payloads.write(&schedule, number, &mut payload);
    let payload = String::from_utf8(payload).unwrap();
    let id = payloads.id(number);
    format!(r#"{{"type":"coupon","payload":{payload},"id":"{id}","at":1,"offset":{offset}}}"#)
}

/// A bench whose devices were welcomed with an epoch, at offset 0.
fn streaming() -> Bench {
    let mut bench = with_streams(Bench::unwelcomed());
    let welcome = format!(
        r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":4,"heartbeat_ms":25000,"epoch":"0e","offset":0}}"#
    );
    bench.all_hear(&welcome);
    bench
}

fn mixed(seq: u64, span: [u64; 2], carried: &[u64], messages: &[String]) -> String {
    let carried: Vec<String> = carried.iter().map(|offset| coupon(*offset)).collect();
    format!(
        r#"{{"kind":"batch","room":"{ROOM}","run":"0a","seq":{seq},"after":{},"through":{},
            "ack_within_ms":300,"carried":[{}],"messages":[{}]}}"#,
        span[0],
        span[1],
        carried.join(","),
        messages.join(",")
    )
}

#[test]
fn a_reliable_message_among_chat_is_applied_once_and_by_every_device() {
    let mut bench = streaming();
    let level = mixed(5, [0, 1], &[], &[message(0), coupon(1), message(1)]);
    for device in 0..3 {
        assert_eq!(bench.hear(device, &level), Heard::Judged { ack_within_ms: Some(300) });
    }
    // Carried again beside a batch, to two of them; the third has the level frame.
    let composed = mixed(6, [0, 2], &[1], &[coupon(2), message(2)]);
    bench.hear(0, &composed);
    bench.hear(1, &composed);
    bench.hear(2, &mixed(6, [1, 2], &[], &[coupon(2), message(2)]));
    let tally = bench.watch.streams.as_ref().unwrap().tally;
    assert_eq!((tally.applied, tally.duplicates), (6, 2));
    assert!(bench.tracks.iter().all(|track| track.place.offset == 2));
    assert_eq!(bench.watch.tally.deliveries, 9, "chat alone");
    assert!(bench.watch.violations.is_empty(), "{}", bench.watch.violations);
}

#[test]
fn a_device_that_lacks_something_before_a_frame_wants_to_pull() {
    let mut bench = streaming();
    bench.hear(0, &mixed(5, [1, 2], &[], &[coupon(2)]));
    let place = bench.tracks[0].place;
    assert_eq!((place.offset, place.wanted), (0, 2));
    let text = format!(
        r#"{{"room":"{ROOM}","epoch":"0e","offset":2,"after":0,"through":2,"reliable":[{},{}]}}"#,
        coupon(1),
        coupon(2)
    );
    let page = crate::wire::frame::decode_page(text.as_bytes()).unwrap();
    let streams = bench.watch.streams.as_mut().unwrap();
    let place = &mut bench.tracks[0].place;
    streams.take_page(place, seat(0), &page, 1_000_000_000, &mut bench.watch.violations);
    assert_eq!((place.offset, place.wanted), (2, 2));
    assert!(bench.watch.violations.is_empty(), "{}", bench.watch.violations);
}

#[test]
fn offsets_that_do_not_rise_or_stand_for_two_messages_are_told() {
    let mut bench = streaming();
    bench.hear(0, &mixed(5, [0, 2], &[], &[coupon(2), coupon(1)]));
    assert_eq!(bench.watch.violations.count(Kind::I4OffsetOrder), 1);
    let other = coupon(3).replace(r#""offset":3"#, r#""offset":2"#);
    bench.hear(1, &mixed(5, [0, 2], &[], &[coupon(1), other]));
    assert!(bench.watch.violations.count(Kind::I4OffsetOrder) > 1, "{}", bench.watch.violations);
}

#[test]
fn a_device_that_comes_back_asks_with_what_it_has() {
    let mut bench = streaming();
    assert_eq!(bench.watch.resume_query(Track::default(), seat(0)), "");
    bench.hear(0, &mixed(5, [0, 1], &[], &[coupon(1)]));
    assert_eq!(bench.watch.resume_query(bench.tracks[0], seat(0)), "?cursor=0e:1&seen=0a:5");
    bench.watch.leave(&mut bench.tracks[0]);
    let back = format!(
        r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":9,"heartbeat_ms":25000,"resumed":true,"reset":null,
            "epoch":"0e","offset":3,"after":1,"through":3,"ack_within_ms":200,"history":[{}],"reliable":[{},{}]}}"#,
        message(3),
        coupon(2),
        coupon(3)
    );
    let welcomed = Heard::Welcomed { heartbeat_ms: 25_000, ack_within_ms: Some(200) };
    assert_eq!(bench.hear(0, &back), welcomed);
    assert_eq!((bench.tracks[0].place.offset, bench.tracks[0].seq), (3, Some(9)));
    assert!(bench.watch.violations.is_empty(), "{}", bench.watch.violations);
    bench.watch.leave(&mut bench.tracks[0]);
    let reset = back.replace(r#""reset":null"#, r#""reset":"epoch_changed""#);
    bench.hear(0, &reset);
    assert_eq!(bench.watch.violations.count(Kind::I4FalseReset), 1);
    bench.watch.leave(&mut bench.tracks[1]);
    let honest = back.replace(r#""epoch":"0e""#, r#""epoch":"0f""#).replace(r#""after":1"#, r#""after":0"#);
    bench.hear(1, &honest.replace(r#""reliable":["#, &format!(r#""reliable":[{},"#, coupon(1))));
    assert_eq!(bench.tracks[1].place.offset, 3, "a cursor at offset 0 is never reset");
    assert_eq!(bench.watch.violations.count(Kind::I4FalseReset), 1);
}

/// Chat, gifts, and a counter.
fn mixed_bench() -> Bench {
    Bench::of(Known::new(loads(&[("gift", Class::Normal), ("like", Class::Counter)]), &[], 1)).welcomed()
}

/// A batch of chat with what else it says.
fn batch_saying(seq: u64, numbers: &[u64], said: &str) -> String {
    batch(seq, numbers).replace("\"messages\"", &format!("{said},\"messages\""))
}

#[test]
fn a_level_batch_that_says_what_was_shed_is_decoded_once_and_counts_for_every_device() {
    let mut bench = Bench::new();
    bench.all_hear(&batch_saying(5, &[0, 3], r#""skipped":{"chat":2}"#));
    assert!(!bench.watch.is_complete(0, &[12]));
    bench.all_hear(&batch_saying(6, &[5, 11], r#""skipped":{"chat":5},"merged":{"chat":1}"#));
    assert!(bench.watch.is_complete(0, &[12]) && !bench.watch.is_complete(0, &[13]));
    assert_eq!(bench.watch.tally.decoded, 3 + 2);
    assert_eq!((bench.watch.tally.deliveries, bench.watch.tally.skipped), (12, 21));
    let figures = |bench: &mut Bench| {
        bench.watch.lives[0].copies.settle(&mut bench.watch.figures);
        let chat = &bench.watch.figures.types[0];
        (chat.latency.percentiles().count, chat.skipped, chat.merged)
    };
    assert_eq!(figures(&mut bench), (12, 21, 3));
    assert!(bench.verdict().is_empty());
}

#[test]
fn a_count_of_what_was_shed_that_is_too_small_is_a_loss_and_one_too_large_is_told() {
    for (skipped, kind) in [(7, Kind::Lost), (9, Kind::SkipInexact)] {
        let mut bench = Bench::new();
        bench.all_hear(&batch_saying(5, &[0, 3, 7, 11], &format!(r#""skipped":{{"chat":{skipped}}}"#)));
        assert!(bench.verdict().count(kind) > 0, "{skipped}");
    }
}

#[test]
fn a_refresh_brings_together_what_was_given_and_what_was_shed() {
    for (skipped, inexact) in [(7, 0), (6, 1)] {
        let mut bench = Bench::new();
        for device in 0..2 {
            bench.hear(device, &batch_saying(5, &[0, 3], r#""skipped":{"chat":2}"#));
            bench.hear(device, &batch(6, &[4, 5, 6]));
        }
        bench.hear(2, &refresh(6, skipped));
        bench.all_hear(&batch(7, &[7, 8, 9, 10, 11]));
        assert_eq!(bench.verdict().count(Kind::SkipInexact), inexact, "{skipped}");
    }
}

#[test]
fn a_batch_of_a_counter_alone_is_no_gap_and_its_totals_are_kept() {
    let mut bench = mixed_bench();
    bench.all_hear(&batch_saying(5, &[], r#""counters":{"like":{"add":50,"total":50}}"#));
    bench.all_hear(&batch_saying(6, &[0], r#""counters":{"like":{"add":150,"total":200}}"#));
    assert!(bench.watch.violations.is_empty(), "{}", bench.watch.violations);
    assert!(bench.watch.is_complete(0, &[1, 0, 200]) && !bench.watch.is_complete(0, &[1, 0, 201]));
    assert!(bench.watch.is_level(bench.tracks[0], seat(0), 0));
    bench.hear(0, &batch_saying(7, &[], r#""counters":{"like":{"add":1,"total":201}}"#));
    assert!(!bench.watch.is_level(bench.tracks[1], seat(1), 0), "others have more");
}

/// A welcome need not have room for all latest values.
#[test]
fn latest_values_may_follow_at_the_seq_held_and_nothing_else_may() {
    let mut bench = Bench::of(Known::new(loads(&[("price", Class::Latest)]), &[], 1)).welcomed();
    let holding = |value: String| batch_saying(4, &[], &format!(r#""latest":[{value}]"#));
    bench.hear(0, &holding(message_of("price", 0)));
    bench.hear(0, &holding(message_of("price", 1)));
    bench.all_hear(&batch(5, &[0]));
    assert!(bench.watch.violations.is_empty(), "{}", bench.watch.violations);
    bench.hear(1, &holding(message(0)));
    assert_eq!(bench.watch.violations.count(Kind::Foreign), 1, "chat is no latest value");
}

#[test]
fn each_type_has_messages_of_its_own() {
    let mut bench = mixed_bench();
    let gift = format!(r#"{},{}"#, message(0), message_of("gift", 0));
    bench.all_hear(&batch(5, &[]).replace("[]", &format!("[{gift}]")));
    assert!(bench.watch.violations.is_empty(), "{}", bench.watch.violations);
    let dressed = message(1).replace("\"chat\"", "\"gift\"");
    bench.hear(0, &batch(6, &[]).replace("[]", &format!("[{dressed}]")));
    assert_eq!(bench.watch.violations.count(Kind::Foreign), 1, "chat in a gift's clothes");
}

#[test]
fn another_runs_messages_are_foreign_unless_it_may_be_here() {
    let theirs = || {
        let mut payload = Vec::new();
        Payloads::new(Length::Fixed(60), type_seed(2, "chat")).write(&schedule(), 3, &mut payload);
        let payload = String::from_utf8(payload).unwrap();
        batch(5, &[0, 1]).replace(":[{", &format!(r#":[{{"type":"chat","payload":{payload},"at":1}},{{"#))
    };
    let mut bench = Bench::new();
    bench.hear(0, &theirs());
    assert_eq!(bench.watch.violations.count(Kind::Foreign), 1);
    let mut bench = Bench::new();
    bench.watch.known.others = true;
    bench.all_hear(&theirs());
    assert!(bench.watch.violations.is_empty(), "{}", bench.watch.violations);
    assert_eq!(bench.watch.tally.deliveries, 6, "ours alone");
    assert_eq!(bench.watch.finish().remove(0).types[0].others.get(&5), Some(&1));
}
