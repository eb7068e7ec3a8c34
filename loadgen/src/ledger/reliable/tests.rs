//! A faultless stream, and one fault at a time.

use super::*;
use crate::scenario::schedule::Schedule;

const SECOND_NS: u64 = 1_000_000_000;
const TTL_NS: u64 = 60 * SECOND_NS;

/// Six messages to one room, a second apart, each answered durable 2 ms after it was sent; message n at offset n + 1.
fn published() -> Published {
    let schedule = Schedule::even(6, 1_000, 1, 1);
    let mut published = Published::new(schedule);
    for request in 0..6 {
        published.sent(request, request * SECOND_NS);
        published.answered(request, request * SECOND_NS + 2_000_000, [Outcome::Ok]);
        published.placed(request, request + 1);
    }
    published
}

/// Two devices that applied everything 10 ms after it was sent, and stood at offset 6 at 10 s.
fn seen() -> StreamSeen {
    let mut seen = StreamSeen::new(0, "0e");
    for number in 0..6 {
        for device in 0..2 {
            let after_start_ns = number * SECOND_NS + 10_000_000;
            seen.at(number + 1, What::Message(number), device).apply(after_start_ns, device);
        }
    }
    seen.ended(6, 0, 10 * SECOND_NS, 0);
    seen.ended(6, 1, 10 * SECOND_NS, 0);
    seen
}

fn stored() -> Stored {
    let messages = (0..6).map(|number| (number + 1, What::Message(number))).collect();
    Stored { epoch: "0e".into(), messages, asked_ns: 11 * SECOND_NS }
}

fn verdict(published: &Published, seen: StreamSeen, stored: &Stored) -> Violations {
    let mut times = ApplyTimes::default();
    let mut violations = Violations::default();
    check_stored(published, 0, stored, TTL_NS, &mut violations);
    check_stream(published, &[seen], Some(stored), TTL_NS, &mut times, &mut violations);
    violations
}

/// Exactly these, so many times each.
fn finds(violations: &Violations, expected: &[(Kind, u64)]) {
    for (kind, count) in expected {
        assert_eq!(violations.count(*kind), *count, "{kind:?}\n{violations}");
    }
    let kinds = violations.to_string().lines().filter(|line| !line.starts_with("    ")).count();
    assert_eq!(kinds, expected.len(), "{violations}");
}

#[test]
fn a_faultless_stream_has_no_violations_and_its_times() {
    let mut times = ApplyTimes::default();
    let mut violations = Violations::default();
    check_stream(&published(), &[seen()], Some(&stored()), TTL_NS, &mut times, &mut violations);
    finds(&violations, &[]);
    let figures = times.from_answer.percentiles();
    assert_eq!(figures.count, 12);
    assert!((8.0..8.6).contains(&figures.p50_ms), "{figures:?}");
    let moments = times.over_time.moments();
    assert_eq!(moments.iter().map(|moment| moment.count).sum::<u64>(), 12, "{moments:?}");
}

#[test]
fn i1_what_was_answered_durable_is_in_the_store() {
    let mut lost = stored();
    lost.messages.remove(&3);
    let violations = verdict(&published(), seen(), &lost);
    finds(&violations, &[(Kind::I1NotStored, 1)]);
    assert!(violations.to_string().contains("I1 room 0: message 2"), "{violations}");
    let mut expired = lost;
    expired.asked_ns = 2 * SECOND_NS + TTL_NS;
    finds(&verdict(&published(), seen(), &expired), &[]);
}

#[test]
fn i1_what_was_given_to_a_device_is_in_the_store_though_nobody_answered() {
    let mut published = published();
    published.answered(5, u64::MAX, [Outcome::Unknown]);
    let mut lost = stored();
    lost.messages.remove(&6);
    finds(&verdict(&published, seen(), &lost), &[(Kind::I1NotStored, 1)]);
}

#[test]
fn i2_applied_later_than_three_seconds_is_late() {
    let mut slow = seen();
    slow.at(4, What::Message(3), 7).apply(3 * SECOND_NS + 3_100_000_000, 7);
    let violations = verdict(&published(), slow, &stored());
    finds(&violations, &[(Kind::I2Late, 1)]);
    assert!(violations.to_string().contains("device 7 applied offset 4"), "{violations}");
}

#[test]
fn i2_a_slow_reader_has_the_time_of_its_rate() {
    assert_eq!(
        [20_000, 8_000, 4_000].map(|rate| slow_apply_age_max_ns(rate) / 1_000_000),
        [3_100, 3_100, 6_100]
    );
    for (rate, after_ms, is_late) in
        [(20_000, 3_090, false), (20_000, 3_110, true), (4_000, 6_090, false), (4_000, 6_110, true)]
    {
        let mut slow = seen();
        slow.at(4, What::Message(3), 7).apply_slowly(3 * SECOND_NS + 2_000_000 + after_ms * 1_000_000, 7);
        let mut times = ApplyTimes::since(0, slow_apply_age_max_ns(rate));
        let mut violations = Violations::default();
        check_stream(&published(), &[slow], Some(&stored()), TTL_NS, &mut times, &mut violations);
        finds(&violations, if is_late { &[(Kind::I2Late, 1)] } else { &[] });
        assert!(!is_late || violations.to_string().contains("device 7, a slow reader, applied offset 4"));
        assert_eq!((times.slow.percentiles().count, times.from_answer.percentiles().count), (1, 12));
    }
}

#[test]
fn i2_a_device_that_was_there_applied_everything_and_one_just_back_is_not_blamed() {
    let mut short = seen();
    short.ended(4, 9, 10 * SECOND_NS, 0);
    finds(&verdict(&published(), short, &stored()), &[(Kind::I2NotApplied, 2)]);
    let mut back = seen();
    back.ended(4, 9, 10 * SECOND_NS, 8 * SECOND_NS);
    finds(&verdict(&published(), back, &stored()), &[]);
}

#[test]
fn i3_one_message_has_one_offset() {
    let mut again = seen();
    again.at(7, What::Message(2), 1).apply(7 * SECOND_NS, 1);
    let violations = verdict(&published(), again, &stored());
    assert_eq!(violations.count(Kind::I3AppliedTwice), 1, "{violations}");
    let mut twice = stored();
    twice.messages.insert(7, What::Message(2));
    let violations = verdict(&published(), seen(), &twice);
    finds(&violations, &[(Kind::I3AppliedTwice, 1), (Kind::I1NotStored, 1)]);
}

#[test]
fn i4_nothing_is_passed_over_but_what_expired_or_was_recalled() {
    let mut hole = seen();
    hole.offsets.remove(&2);
    hole.passed_over(2, 1, 2 * SECOND_NS, 0);
    let violations = verdict(&published(), hole.clone(), &stored());
    finds(&violations, &[(Kind::I4OffsetMissing, 1)]);
    assert!(violations.to_string().contains("I4 room 0: device 1 passed over offset 2"), "{violations}");
    hole.at(7, What::Recall(2), 0).apply(6 * SECOND_NS, 0);
    finds(&verdict(&published(), hole, &stored()), &[]);
    let mut nobodys = seen();
    nobodys.passed_over(9, 1, 2 * SECOND_NS, 0);
    finds(&verdict(&published(), nobodys, &stored()), &[(Kind::I4OffsetMissing, 1)]);
}

#[test]
fn what_expired_while_a_device_was_away_is_no_fault_and_while_it_was_there_is_one() {
    let mut expired = seen();
    let late_ns = SECOND_NS + TTL_NS;
    expired.passed_over(2, 1, late_ns, late_ns - SECOND_NS);
    finds(&verdict(&published(), expired.clone(), &stored()), &[]);
    expired.passed_over(2, 0, late_ns, 0);
    finds(&verdict(&published(), expired, &stored()), &[(Kind::I2NotApplied, 2)]);
}

#[test]
fn i4_what_was_durable_before_another_was_sent_stands_before_it() {
    let mut published = published();
    published.placed(1, 3);
    published.placed(2, 2);
    let mut swapped = seen();
    swapped.offsets.get_mut(&2).unwrap().what = What::Message(2);
    swapped.offsets.get_mut(&3).unwrap().what = What::Message(1);
    let mut store = stored();
    store.messages.insert(2, What::Message(2));
    store.messages.insert(3, What::Message(1));
    let violations = verdict(&published, swapped, &store);
    assert_eq!(violations.count(Kind::I4OffsetOrder), 1, "{violations}");
}

#[test]
fn i4_an_answer_names_the_offset_at_which_the_message_came() {
    let mut published = published();
    published.placed(5, 8);
    let violations = verdict(&published, seen(), &stored());
    assert_eq!(violations.count(Kind::I4OffsetOrder), 2, "{violations}");
}

#[test]
fn i7_what_was_refused_never_appears_and_i6_nor_what_was_never_sent() {
    let mut published = published();
    published.answered(5, 5 * SECOND_NS, [Outcome::Refused]);
    published.placed(5, 0);
    finds(&verdict(&published, seen(), &stored()), &[(Kind::I7RefusedAppeared, 2)]);
    let schedule = published.schedule.clone();
    let unsent = Published::new(schedule);
    let violations = verdict(&unsent, seen(), &stored());
    assert_eq!(violations.count(Kind::I6NotPublished), 12, "{violations}");
}
