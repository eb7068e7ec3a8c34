//! What flow control once got wrong: one fact for each.

use super::*;
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::room::buffer::{Allowance, Budget, Buffer};
use crate::room::id::{Key, Seen};
use crate::room::limit::Limits;
use crate::room::pace::Quotas;
use crate::room::policy::{PolicyChange, Priority, TypeRate};

fn high(payload: &str) -> Message {
    let policy = TypePolicy { priority: Priority::High, ..TypePolicy::of(Class::Normal) };
    Message { policy, ..sample("gift", payload) }
}

fn coupon() -> Message {
    let policy = TypePolicy::of(Class::Reliable);
    Message { ttl: policy.ttl, policy, ..sample("coupon", "1") }
}

fn budget(messages_max: usize, bytes_max: usize) -> Budget {
    let quotas = Quotas::default();
    Budget { messages_max, bytes_max, batches: 1, quotas, normal: Allowance::Any, high: Allowance::Any }
}

/// Takes back the first reliable message, which has to be possible.
fn recall_first(bench: &mut Bench) {
    let outputs = bench.tell(Input::Ask { ticket: 2, ask: Ask::Recall { offset: 1 } });
    let told = durable(bench, outputs).into_iter().find_map(|output| match output {
        Output::Told { told: Told::Recalled(told), .. } => Some(told),
        _ => None,
    });
    assert!(matches!(told, Some(Ok(_))), "{told:?}");
}

/// As far as the store is concerned: durable at once.
fn durable(bench: &mut Bench, outputs: Vec<Output>) -> Vec<Output> {
    let mut all = Vec::new();
    for output in outputs {
        if let Output::Append { life, ref messages, .. } = output {
            let through = messages.last().unwrap().offset;
            let more = bench.tell(Input::Durable { life, through });
            all.push(output);
            all.extend(more);
        } else {
            all.push(output);
        }
    }
    all
}

#[test]
fn a_large_gift_does_not_close_the_reserve_for_the_gifts_behind_it() {
    let mut bench = Bench::with_members(50);
    bench.publish(chats(9_000));
    bench.publish(vec![high(&"x".repeat(PAYLOAD_BYTES_MAX))]);
    bench.publish((0..10).map(|n| high(&n.to_string())).collect());
    let mut left = Vec::new();
    for _ in 0..3 {
        left.extend(bench.taken());
        bench.publish(chats(400));
        left.extend(bench.wait(WINDOW));
    }
    let seqs = left.iter().map(|batch| batch.seq.0).max();
    assert_eq!(count_of(&left, "gift"), 11, "twelve batches and 300 ms later (last seq {seqs:?})");
}

#[test]
fn a_large_chat_does_not_stop_all_chat_while_gifts_fill_their_half() {
    for normal in [Allowance::Any, Allowance::AtMost(51)] {
        let (mut buffer, now) = (Buffer::default(), Now::made_up().instant);
        buffer.push(Message { wire_bytes: 21_900, ..sample("chat", "0") }, now);
        for n in 0..50 {
            buffer.push(sample("chat", &n.to_string()), now);
        }
        let mut chats_left = 0;
        for _ in 0..150 {
            for _ in 0..100 {
                buffer.push(Message { wire_bytes: 320, ..high("1") }, now);
            }
            let cut = buffer.cut(&Budget { normal, ..budget(100, 32 * 1024) }, 7, now);
            chats_left += cut.messages.iter().filter(|m| m.type_name.as_str() == "chat").count();
        }
        assert_eq!(chats_left, 51, "{normal:?}");
    }
}

#[test]
fn a_recall_is_not_refused_because_chat_used_up_the_rooms_rate() {
    let mut bench = Bench::with_members(50);
    let outputs = bench.tell(Input::Publish { ticket: 1, messages: vec![coupon()] });
    durable(&mut bench, outputs);
    bench.tell(Input::Configure(RoomSettings { messages_per_second: Some(10), ..RoomSettings::default() }));
    bench.publish(chats(100));
    recall_first(&mut bench);
}

#[test]
fn a_recall_is_not_refused_because_of_what_it_takes_back() {
    let mut bench = Bench::with_members(50);
    let rate = Some(Some(TypeRate { per_second: 1, burst: 1 }));
    let types = vec![(TypeName::parse("coupon").unwrap(), PolicyChange { rate, ..PolicyChange::default() })];
    bench.tell(Input::Configure(RoomSettings { types, ..RoomSettings::default() }));
    let outputs = bench.tell(Input::Publish { ticket: 1, messages: vec![coupon()] });
    durable(&mut bench, outputs);
    recall_first(&mut bench);
}

#[test]
fn a_coupon_is_not_shed_because_chat_used_up_the_rooms_rate() {
    let mut bench = Bench::with_members(50);
    bench.tell(Input::Configure(RoomSettings { messages_per_second: Some(10), ..RoomSettings::default() }));
    bench.publish(chats(100));
    let outputs = bench.tell(Input::Publish { ticket: 1, messages: vec![coupon()] });
    let outputs = durable(&mut bench, outputs);
    let verdicts = outputs.iter().find_map(|output| match output {
        Output::Published { published: Published::Taken(verdicts), .. } => Some(verdicts.clone()),
        _ => None,
    });
    assert_eq!(verdicts, Some(vec![Verdict::Durable { offset: 1 }]));
}

#[test]
fn what_was_dropped_and_not_told_when_the_room_closes_is_counted() {
    let mut bench = Bench::with_members(50);
    for _ in 0..11 {
        bench.publish(chats(1_000)); // 400 leave; 10 000 wait, 600 are refused
    }
    let gifts: Vec<Message> = (0..500).map(|n| high(&n.to_string())).collect();
    bench.publish(gifts); // 500 chats make room; no cut can tell it: four batches are before the segment
    bench.tell(Input::Close);
    let rest = bench.room.rest();
    bench.room.shed_rest(&mut bench.tally);
    let normal = Class::Normal as usize;
    let accepted = bench.tally.accepted.0[normal];
    let refused = 600;
    let shed: u64 = bench.tally.shed.iter().map(|by_class| by_class.0[normal]).sum();
    let delivered = 400;
    assert_eq!(accepted, delivered + shed - refused, "accepted = delivered + shed; rest() says {rest}");
}

#[test]
fn what_waited_past_its_ttl_is_not_sent() {
    let (mut buffer, now) = (Buffer::default(), Now::made_up().instant);
    buffer.push(Message { ttl: Duration::from_secs(60), ..high("patient") }, now);
    buffer.push(Message { ttl: Duration::from_secs(1), ..high("flash") }, now);
    let cut = buffer.cut(&budget(100, 32 * 1024), 7, now + Duration::from_secs(30));
    assert_eq!(cut.messages.len(), 1, "the second one expired 29 s ago");
}

#[test]
fn what_leaves_whole_with_one_flush_leaves_in_room_order_however_it_fills_batches() {
    let (mut buffer, now) = (Buffer::default(), Now::made_up().instant);
    let sized = |message: Message, wire_bytes| Message { wire_bytes, ..message };
    buffer.push(sized(sample("chat", "0"), 50), now);
    buffer.push(sized(sample("chat", "1"), 980), now);
    buffer.push(sized(sample("chat", "2"), 350), now);
    buffer.push(sized(high("3"), 360), now);
    let mut order = Vec::new();
    let mut batches = 4;
    while batches > 0 && !buffer.is_empty() {
        let cut = buffer.cut(&Budget { batches, ..budget(100, 1000) }, 7, now);
        order.extend(cut.messages.iter().map(|m| String::from_utf8(m.payload.bytes().to_vec()).unwrap()));
        batches -= 1;
    }
    assert!(buffer.is_empty());
    assert_eq!(order, ["0", "1", "2", "3"]);
}

#[test]
fn what_the_room_refuses_takes_no_place_in_its_types_rate() {
    let (mut limits, now) = (Limits::default(), Now::made_up().instant);
    let mut tally = RoomTally::default();
    let rules = RoomRules { messages_per_second: 10, ..RoomRules::default() };
    for chat in chats(10) {
        assert_eq!(limits.refuses(&chat, &rules, now, &mut tally), None);
    }
    let rate = Some(TypeRate { per_second: 1, burst: 1 });
    let rated = |payload| {
        let plain = high(payload);
        Message { policy: TypePolicy { rate, ..plain.policy }, ..plain }
    };
    assert_eq!(limits.refuses(&rated("1"), &rules, now, &mut tally), Some(ShedReason::RoomRate));
    // None was taken so far; the room has a place again.
    let later = now + Duration::from_millis(200);
    assert_eq!(limits.refuses(&rated("1"), &rules, later, &mut tally), None);
}

#[test]
fn a_flood_of_gifts_does_not_keep_out_the_latest_value() {
    let mut bench = Bench::with_members(50);
    bench.tell(Input::Configure(RoomSettings { high_per_second: Some(10), ..RoomSettings::default() }));
    for _ in 0..11 {
        bench.publish((0..1000).map(|n| high(&n.to_string())).collect());
    }
    let price = Message {
        policy: TypePolicy::of(Class::Latest),
        key: Some(Key::parse("a").unwrap()),
        ..sample("price", "7")
    };
    assert_eq!(bench.publish(vec![price]).0, [Verdict::Accepted]);
}

#[test]
fn types_of_which_nothing_was_taken_keep_no_other_out() {
    let mut bench = Bench::with_members(50);
    bench.tell(Input::Configure(RoomSettings { messages_per_second: Some(1), ..RoomSettings::default() }));
    let strange = (0..1000).map(|n| sample(&format!("t{n}"), "1")).collect();
    let (verdicts, _) = bench.publish(strange);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Accepted).count(), 1);
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.publish(chats(1)).0, [Verdict::Accepted], "one type was taken in, of 256");
}

#[test]
fn types_that_found_the_room_full_keep_no_other_out() {
    let mut bench = Bench::with_members(50);
    for _ in 0..11 {
        bench.publish((0..1000).map(|n| high(&n.to_string())).collect());
    }
    let (verdicts, _) = bench.publish((0..300).map(|n| sample(&format!("t{n}"), "1")).collect());
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Shed(ShedReason::RoomFull)));
    assert_eq!(bench.publish(vec![Message { ..high("1") }]).0, [Verdict::Shed(ShedReason::RoomFull)]);
    bench.taken();
    bench.wait(WINDOW);
    assert_eq!(bench.publish(chats(1)).0, [Verdict::Accepted]);
}

#[test]
fn what_is_within_the_readable_rate_is_not_sampled() {
    for members in [5, 50] {
        let mut bench = Bench::with_members(members);
        bench.tell(Input::Configure(RoomSettings { normal_per_second: Some(40), ..RoomSettings::default() }));
        bench.wait(Duration::from_secs(30));
        let mut left = bench.publish(chats(24)).1;
        left.extend(bench.wait(WINDOW));
        bench.taken();
        left.extend(bench.publish(chats(12)).1);
        left.extend(bench.wait(WINDOW));
        let skipped: u64 = left.iter().flat_map(|batch| &batch.skipped).map(|(_, count)| count).sum();
        assert_eq!((count_of(&left, "chat"), skipped), (36, 0), "36 of 40 a second, {members} members");
    }
}

#[test]
fn a_reserve_is_at_least_one_message() {
    let (mut buffer, now) = (Buffer::default(), Now::made_up().instant);
    for n in 0..100 {
        buffer.push(sample("chat", &n.to_string()), now);
    }
    buffer.push(high("1"), now);
    let gifts = (0..4)
        .flat_map(|_| buffer.cut(&budget(1, 32 * 1024), 7, now).messages)
        .filter(|m| m.type_name.as_str() == "gift")
        .count();
    assert_eq!(gifts, 1, "within the first four batches");
}

#[test]
fn a_room_in_which_something_waits_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.tell(Input::Configure(RoomSettings { high_per_second: Some(1), ..RoomSettings::default() }));
    let patient = |n: usize| Message { ttl: Duration::from_secs(3600), ..high(&n.to_string()) };
    bench.publish((0..700).map(patient).collect());
    let forgotten = (0..20_000).find(|_| {
        bench.now = bench.now.later(WINDOW);
        bench.tell(Input::Due).iter().any(|output| matches!(output, Output::Idle))
    });
    assert!(forgotten.is_some_and(|tenths| tenths > 6900), "{forgotten:?}: it takes 700 s to tell them all");
    assert_eq!(bench.room.rest(), 0);
}

#[test]
fn a_batch_says_when_its_oldest_message_was_accepted() {
    let mut bench = Bench::with_members(50);
    bench.tell(Input::Configure(RoomSettings { high_per_second: Some(1), ..RoomSettings::default() }));
    bench.wait(Duration::from_secs(5));
    let accepted = bench.now.instant;
    let mut left = bench.publish((0..2).map(|n| high(&n.to_string())).collect()).1;
    for _ in 0..30 {
        left.extend(bench.wait(WINDOW));
        bench.taken();
    }
    let gifts: Vec<_> =
        left.iter().filter(|b| b.messages.iter().any(|m| m.type_name.as_str() == "gift")).collect();
    assert_eq!(gifts.len(), 2);
    let late = gifts[1].oldest - accepted;
    assert_eq!(late, Duration::ZERO, "the second gift was accepted with the first");
}

#[test]
fn a_view_says_how_old_the_oldest_is() {
    let mut bench = Bench::with_members(50);
    bench.tell(Input::Configure(RoomSettings { high_per_second: Some(1), ..RoomSettings::default() }));
    bench.wait(Duration::from_secs(5));
    bench.publish((0..10).map(|n| high(&n.to_string())).collect());
    for _ in 0..50 {
        bench.wait(WINDOW);
        bench.taken();
    }
    let backlog = bench.room.view(0, bench.now.instant).backlog;
    assert!(backlog.gathered > 0 && backlog.oldest_ms >= 5000, "{backlog:?}, and they came 5 s ago");
}

#[test]
fn a_room_that_went_quiet_keeps_no_slots() {
    let mut bench = Bench::with_members(5);
    let (normal_per_second, high_per_second) = (Some(100), Some(100));
    bench.tell(Input::Configure(RoomSettings {
        normal_per_second,
        high_per_second,
        ..RoomSettings::default()
    }));
    for _ in 0..100 {
        bench.publish(vec![sample("chat", "1"), high("1")]);
        bench.wait(Duration::from_millis(21));
        bench.taken();
    }
    assert!(!bench.room.shown_normal.is_empty() && !bench.room.shown_high.is_empty());
    for _ in 0..20 {
        bench.wait(Duration::from_secs(30));
    }
    assert!(bench.room.shown_normal.is_empty() && bench.room.shown_high.is_empty(), "ten minutes later");
}

#[test]
fn an_urgent_gift_leaves_at_once_while_it_may_be_shown() {
    let mut bench = Bench::with_members(50);
    bench.tell(Input::Configure(RoomSettings { high_per_second: Some(10), ..RoomSettings::default() }));
    bench.wait(Duration::from_secs(5));
    let plain = high("1");
    let urgent = Message { policy: TypePolicy { urgent: true, ..plain.policy }, ..plain };
    assert_eq!(count_of(&bench.publish(vec![urgent]).1, "gift"), 1, "nothing was shown for five seconds");
}

#[test]
fn who_missed_what_is_not_kept_is_not_said_to_have_resumed() {
    let mut bench = Bench::with_members(50);
    bench.publish(chats(1));
    bench.wait(WINDOW);
    bench.taken();
    let seen = Seen { run: bench.room.run(), seq: bench.room.seq() };
    let plain = sample("notice", "1");
    let notice = Message { policy: TypePolicy { history: false, ..plain.policy }, ..plain };
    bench.publish(vec![notice]);
    bench.wait(WINDOW);
    assert!(bench.room.seq() > seen.seq);
    let now = bench.now;
    let (after, resumed) = bench.room.resume(Some(seen), now.instant);
    let history = bench.room.snapshot(after, None, now).history;
    assert!(
        !resumed || history.iter().any(|past| past.message.type_name.as_str() == "notice"),
        "resumed {resumed}"
    );
}

#[test]
fn who_missed_what_was_sampled_away_is_not_said_to_have_resumed() {
    let mut bench = Bench::with_members(50);
    bench.tell(Input::Configure(RoomSettings { normal_per_second: Some(10), ..RoomSettings::default() }));
    bench.wait(Duration::from_secs(5));
    bench.publish(chats(1));
    bench.wait(WINDOW);
    bench.taken();
    let seen = Seen { run: bench.room.run(), seq: bench.room.seq() };
    bench.publish(chats(60));
    let left = bench.wait(WINDOW);
    assert!(left[0].skipped[0].1 > 50);
    let (_, resumed) = bench.room.resume(Some(seen), bench.now.instant);
    assert!(!resumed, "of 60 accepted since, {} are in the history", left[0].messages.len());
}
