//! Facts about devices that join after the first messages: kept back, repeated and forged messages are found.

use super::*;

/// A bench whose third device comes when the room has been given `numbers` in batch 5.
fn joined_late(history: &str) -> Bench {
    let mut bench = Bench::new();
    bench.watch.leave(&mut bench.tracks[2]);
    bench.tracks[2] = Track::late(DeviceHabits::default());
    for device in 0..2 {
        bench.hear(device, &batch(5, &[0, 1, 2, 3]));
    }
    let welcome = format!(
        r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":5,"heartbeat_ms":25000,"history":[{history}]}}"#
    );
    assert_eq!(bench.hear(2, &welcome), Heard::Welcomed { heartbeat_ms: 25_000, ack_within_ms: None });
    bench
}

#[test]
fn a_late_joiner_owes_no_account_of_what_was_before_and_its_history_is_judged() {
    let mut bench = joined_late(&[message(2), message(3)].join(","));
    bench.all_hear(&batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    assert!(bench.tracks[1].is_throughout() && !bench.tracks[2].is_throughout());
    assert_eq!(bench.tracks[2].place.returned_ns, 1_000_000_000);
    assert!(bench.verdict().is_empty());
    let foreign = message(2).replace("\"chat\"", "\"gift\"");
    assert_eq!(joined_late(&foreign).watch.violations.count(Kind::Foreign), 1);
    let stale = message(2);
    let at = stale.rfind("\",\"at\"").unwrap() - 1;
    let other = if &stale[at..=at] == "x" { "y" } else { "x" };
    let altered = format!("{}{other}{}", &stale[..at], &stale[at + 1..]);
    assert_eq!(joined_late(&altered).watch.violations.count(Kind::Altered), 1);
}

#[test]
fn what_a_late_joiner_is_not_given_or_given_twice_afterwards_is_found() {
    for (frames, kind) in [
        (vec![batch(6, &[4, 5, 7, 8, 9, 10, 11])], Kind::Lost),
        (vec![batch(6, &[5, 4, 6, 7, 8, 9, 10, 11])], Kind::OutOfOrder),
        (vec![batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]), batch(6, &[4, 5, 6, 7, 8, 9, 10, 11])], Kind::Twice),
        (vec![batch(7, &[])], Kind::Gap),
        (vec![batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]).replace(ROOM, "lg-1-1")], Kind::Foreign),
    ] {
        let mut bench = joined_late("");
        for device in 0..2 {
            bench.hear(device, &batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
        }
        for frame in &frames {
            bench.hear(2, frame);
        }
        assert_eq!(bench.watch.violations.count(kind).min(1), 1, "{kind:?}: {}", bench.watch.violations);
    }
}

#[test]
fn a_device_that_left_is_not_held_to_what_came_afterwards() {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    bench.watch.leave(&mut bench.tracks[2]);
    for device in 0..2 {
        bench.hear(device, &batch(6, &[4, 5, 6, 7, 8, 9, 10, 11]));
    }
    assert!(bench.verdict().is_empty());
}

#[test]
fn a_total_that_a_late_joiner_is_told_is_held_to_those_of_batches() {
    for (total, kind, inexact) in [(200, "like", 0), (199, "like", 1), (200, "love", 1)] {
        let mut bench = mixed_bench();
        bench.watch.leave(&mut bench.tracks[2]);
        bench.tracks[2] = Track::late(DeviceHabits::default());
        for device in 0..2 {
            bench.hear(device, &batch_saying(5, &[], r#""counters":{"like":{"add":200,"total":200}}"#));
        }
        let welcome = format!(
            r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":5,"heartbeat_ms":25000,
                "counters":{{"{kind}":{total}}}}}"#
        );
        bench.hear(2, &welcome);
        let seen = bench.watch.finish().remove(0);
        let load = &loads(&[("like", Class::Counter)])[1];
        let published = Published::new(schedule());
        let case = Case { kind: 2, load, published: &published, others: false };
        let mut violations = Violations::default();
        check_counter(&case, &seen, &mut violations);
        assert_eq!(violations.count(Kind::CounterInexact), inexact, "{kind} {total}");
    }
}

/// The ledger's judgement of a late joiner, welcomed with `reliable` of a stream with head 3. All three coupons
/// were durable 3 s and more before the end.
fn late_stream(span: [u64; 2], reliable: &[u64], next: &[String]) -> (Violations, u64) {
    let mut bench = streaming();
    bench.watch.leave(&mut bench.tracks[2]);
    bench.tracks[2] = Track::late(DeviceHabits::default());
    for device in 0..2 {
        bench.hear(device, &mixed(5, [0, 3], &[], &[coupon(1), coupon(2), coupon(3)]));
    }
    let reliable: Vec<String> = reliable.iter().map(|offset| coupon(*offset)).collect();
    let welcome = format!(
        r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":5,"heartbeat_ms":25000,
            "epoch":"0e","offset":3,"after":{},
            "through":{},"ack_within_ms":200,"reliable":[{}]}}"#,
        span[0],
        span[1],
        reliable.join(",")
    );
    bench.hear(2, &welcome);
    for frame in next {
        bench.hear(2, frame);
    }
    for device in 0..3 {
        bench.watch.end(bench.tracks[device as usize], seat(device), 9_000_000_000);
    }
    let mut published = Published::new(Schedule::even(3, 1_000_000, 1, 1));
    for request in 0..3 {
        published.sent(request, 10 * request);
        published.answered(request, 10 * request + 5, [Outcome::Ok]);
        published.placed(request, request + 1);
    }
    let mut violations = std::mem::take(&mut bench.watch.violations);
    let streams = bench.watch.streams.as_mut().unwrap();
    let lives = streams.finish();
    let tally = streams.tally;
    let ttl_ns = 600_000_000_000;
    check_stream(&published, &lives, None, ttl_ns, &mut ApplyTimes::default(), &mut violations);
    (violations, tally.duplicates)
}

#[test]
fn a_late_joiner_is_given_all_that_is_alive_once() {
    let (violations, duplicates) = late_stream([0, 3], &[1, 2, 3], &[]);
    assert!(violations.is_empty() && duplicates == 0, "{violations}");
    let (violations, duplicates) =
        late_stream([0, 3], &[1, 2, 3], &[mixed(6, [1, 3], &[2, 3], &[message(0)])]);
    assert!(
        violations.is_empty() && duplicates == 2,
        "carried again, which is allowed and counted: {violations}"
    );
    let (violations, _) = late_stream([0, 2], &[1, 2], &[mixed(6, [2, 3], &[3], &[message(0)])]);
    assert!(violations.is_empty(), "the rest comes behind the welcome: {violations}");
}

#[test]
fn what_is_kept_from_a_late_joiner_is_found() {
    let (violations, _) = late_stream([0, 3], &[1, 3], &[]);
    assert_eq!(violations.count(Kind::I4OffsetMissing), 1, "passed over: {violations}");
    let (violations, _) = late_stream([1, 3], &[2, 3], &[]);
    assert_eq!(violations.count(Kind::I4OffsetMissing), 1, "begun behind it: {violations}");
    let (violations, _) = late_stream([0, 2], &[1, 2], &[]);
    assert_eq!(violations.count(Kind::I2NotApplied), 1, "never told of the last: {violations}");
    let forged = mixed(6, [0, 3], &[], &[]).replace(
        r#""carried":[]"#,
        &format!(r#""carried":[{}]"#, coupon(3).replace(r#""offset":3"#, r#""offset":1"#)),
    );
    let (violations, _) = late_stream([0, 3], &[1, 2, 3], &[forged]);
    assert!(violations.count(Kind::I4OffsetOrder) > 0, "another message at an offset: {violations}");
}

/// The verdict on a room whose devices were all away once: the first two from batch 5 on, the third from batch 6 on.
/// The first is back at `back_at`, and is given batch 7.
fn taken_in_turns(back_at: u64, sixth: &[u64]) -> (Violations, bool) {
    let mut bench = Bench::new();
    bench.all_hear(&batch(5, &[0, 1, 2, 3]));
    bench.watch.leave(&mut bench.tracks[0]);
    bench.watch.leave(&mut bench.tracks[1]);
    bench.hear(2, &batch(6, sixth));
    bench.watch.leave(&mut bench.tracks[2]);
    let welcome =
        format!(r#"{{"kind":"welcome","room":"{ROOM}","run":"0a","seq":{back_at},"heartbeat_ms":25000}}"#);
    bench.hear(0, &welcome);
    bench.hear(0, &batch(back_at + 1, &[8, 9, 10, 11]));
    let mut published = Published::new(schedule());
    for request in 0..12 {
        published.sent(request, 10 * request);
        published.answered(request, 10 * request + 5, [Outcome::Ok]);
    }
    for device in 0..3 {
        bench.watch.end(bench.tracks[device as usize], seat(device), 2_000_000_000);
    }
    let mut seen = bench.watch.finish().remove(0);
    assert!(!seen.is_watched());
    seen.rely_on_relay();
    let load = &loads(&[])[0];
    let mut violations = std::mem::take(&mut bench.watch.violations);
    check(&Case { kind: 0, load, published: &published, others: false }, &seen, &mut violations);
    (violations, seen.is_watched())
}

#[test]
fn devices_that_take_turns_stand_for_one_that_is_there_throughout() {
    let (violations, is_watched) = taken_in_turns(6, &[4, 5, 6, 7]);
    assert!(violations.is_empty() && is_watched, "{violations}");
    let (violations, is_watched) = taken_in_turns(6, &[4, 6, 7]);
    assert!(violations.count(Kind::Lost) == 1 && is_watched, "{violations}");
    assert!(!taken_in_turns(7, &[4, 5, 6, 7]).1, "nobody was there for batch 7");
}
