//! Facts about what waits, what leaves and what makes room.

use std::time::Duration;

use super::*;
use crate::now::Now;
use crate::room::message::sample;
use crate::room::pace::Quotas;
use crate::room::policy::TypePolicy;

const SEED: u64 = 7;

fn budget(messages_max: usize, bytes_max: usize) -> Budget {
    let quotas = Quotas::default();
    Budget { messages_max, bytes_max, batches: 1, quotas, normal: Allowance::Any, high: Allowance::Any }
}

fn shown(normal: usize) -> Budget {
    Budget { normal: Allowance::AtMost(normal), ..budget(100, 100_000) }
}

fn of(priority: Priority, payload: usize) -> Message {
    let policy = TypePolicy { priority, ..TypePolicy::of(Class::Normal) };
    Message { policy, ..sample(priority.name(), &payload.to_string()) }
}

fn merging(merge: Merge, key: Option<&str>, payload: &str) -> Message {
    let policy = TypePolicy { merge, ..TypePolicy::of(Class::Normal) };
    Message { policy, key: key.map(|key| Key::parse(key).unwrap()), ..sample(merge.name(), payload) }
}

fn payloads(cut: &Cut) -> Vec<&str> {
    cut.messages.iter().map(|message| std::str::from_utf8(message.payload.bytes()).unwrap()).collect()
}

fn dropped(cut: &Cut) -> Vec<(&str, ShedReason, u64)> {
    let mut reasons = Vec::new();
    for (name, dropped) in &cut.dropped {
        reasons.extend(dropped.by_reason.iter().map(|(reason, count)| (name.as_str(), *reason, *count)));
    }
    reasons
}

fn types(cut: &Cut) -> BTreeMap<&str, usize> {
    let mut types = BTreeMap::new();
    for message in &cut.messages {
        *types.entry(message.type_name.as_str()).or_default() += 1;
    }
    types
}

#[test]
fn a_cut_keeps_the_order_and_the_remainder_leads_the_next_batch() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..5 {
        buffer.push(sample("chat", &n.to_string()), now + Duration::from_millis(n));
    }
    assert_eq!(payloads(&buffer.cut(&budget(3, 10_000), SEED, now)), ["0", "1", "2"]);
    let waiting = buffer.waiting(&budget(100, 10_000)).unwrap();
    assert_eq!(waiting.oldest, now + Duration::from_millis(3), "the remainder keeps its age");
    assert_eq!(payloads(&buffer.cut(&budget(3, 10_000), SEED, now)), ["3", "4"]);
    assert!(buffer.is_empty());
}

#[test]
fn a_message_larger_than_a_batch_leaves_alone() {
    for priority in Priority::ALL {
        let mut buffer = Buffer::default();
        let now = Now::made_up().instant;
        buffer.push(Message { wire_bytes: 500, ..of(priority, 1) }, now);
        buffer.push(of(priority, 2), now);
        assert_eq!(buffer.cut(&budget(100, 300), SEED, now).messages.len(), 1, "{priority:?}");
        assert_eq!(buffer.cut(&budget(100, 300), SEED, now).messages.len(), 1);
    }
}

#[test]
fn a_later_value_takes_the_place_of_the_waiting_one_of_its_key() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    let price = |payload| merging(Merge::Latest, Some("a"), payload);
    assert_eq!(buffer.push(price("1"), now), Verdict::Accepted);
    assert_eq!(buffer.push(sample("chat", "2"), now), Verdict::Accepted);
    assert_eq!(buffer.push(price("3"), now + Duration::from_secs(1)), Verdict::Merged);
    assert_eq!(buffer.waiting(&budget(100, 10_000)).unwrap().oldest, now, "a merge makes nothing younger");
    let cut = buffer.cut(&budget(100, 10_000), SEED, now);
    assert_eq!(payloads(&cut), ["3", "2"]);
    assert_eq!(cut.merged.values().sum::<u64>(), 1);
    assert_eq!(buffer.push(price("4"), now), Verdict::Accepted, "what has left is not merged into");
}

#[test]
fn the_first_of_those_that_came_in_is_kept_and_the_others_are_counted() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..42 {
        let wanted = if n == 0 { Verdict::Accepted } else { Verdict::Merged };
        assert_eq!(buffer.push(merging(Merge::First, None, &n.to_string()), now), wanted);
    }
    assert_eq!(
        buffer.push(merging(Merge::First, Some("vip"), "99"), now),
        Verdict::Accepted,
        "a key is another"
    );
    let cut = buffer.cut(&budget(100, 10_000), SEED, now);
    assert_eq!(payloads(&cut), ["0", "99"]);
    assert_eq!(cut.merged.values().copied().collect::<Vec<_>>(), [41]);
}

#[test]
fn gifts_of_one_key_are_one_with_the_sum_of_their_counts_and_the_last_payload() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    let gift = |key, count, payload| Message { count, ..merging(Merge::Sum, key, payload) };
    assert_eq!(buffer.push(gift(Some("a"), 3, "1"), now), Verdict::Accepted);
    assert_eq!(buffer.push(gift(Some("b"), 1, "2"), now), Verdict::Accepted);
    assert_eq!(buffer.push(gift(Some("a"), 9, "3"), now), Verdict::Merged);
    assert_eq!(buffer.push(gift(None, 1, "4"), now), Verdict::Accepted);
    assert_eq!(buffer.push(gift(None, 1, "5"), now), Verdict::Accepted, "without a key nothing is summed");
    let cut = buffer.cut(&budget(100, 10_000), SEED, now);
    assert_eq!(payloads(&cut), ["3", "2", "4", "5"]);
    assert_eq!(cut.messages.iter().map(|one| one.count).collect::<Vec<_>>(), [12, 1, 1, 1]);
    assert_eq!(cut.merged.values().sum::<u64>(), 1);
}

#[test]
fn a_sum_that_can_not_travel_begins_another() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    let gift = |count| Message { count, ..merging(Merge::Sum, Some("a"), "1") };
    assert_eq!(buffer.push(gift(INTEGER_MAX - 1), now), Verdict::Accepted);
    assert_eq!(buffer.push(gift(2), now), Verdict::Accepted);
    assert_eq!(buffer.push(gift(3), now), Verdict::Merged, "into the second");
    let cut = buffer.cut(&budget(100, 10_000), SEED, now);
    assert_eq!(cut.messages.iter().map(|one| one.count).collect::<Vec<_>>(), [INTEGER_MAX - 1, 5]);
}

#[test]
fn past_its_bounds_it_takes_nothing_that_is_no_more_important_than_what_waits() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for _ in 0..GATHERED_MESSAGES_MAX {
        assert_eq!(buffer.push(sample("chat", "1"), now), Verdict::Accepted);
    }
    assert_eq!(buffer.push(sample("chat", "1"), now), FULL);
    assert_eq!(buffer.push(of(Priority::Low, 1), now), FULL);
    buffer.cut(&budget(1, 10_000), SEED, now);
    assert_eq!(buffer.push(sample("chat", "1"), now), Verdict::Accepted);
    let mut large = Buffer::default();
    let whole = Message { wire_bytes: GATHERED_BYTES_MAX, ..sample("chat", "1") };
    assert_eq!(large.push(whole, now), Verdict::Accepted);
    assert_eq!(large.push(sample("chat", "1"), now), FULL);
}

#[test]
fn the_oldest_of_the_lowest_priority_make_room_and_are_told() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..GATHERED_MESSAGES_MAX - 2 {
        buffer.push(of(Priority::Normal, n), now);
    }
    buffer.push(of(Priority::Low, 70), now);
    buffer.push(of(Priority::Low, 71), now);
    assert_eq!(buffer.push(of(Priority::Normal, 80), now), Verdict::Accepted);
    assert_eq!(buffer.push(of(Priority::High, 90), now), Verdict::Accepted);
    assert_eq!(
        buffer.push(of(Priority::High, 91), now),
        Verdict::Accepted,
        "no low one is left: a normal one goes"
    );
    assert_eq!(buffer.push(of(Priority::Normal, 81), now), FULL);
    assert_eq!(buffer.len(), GATHERED_MESSAGES_MAX);
    let cut = buffer.cut(&budget(2, 10_000), SEED, now);
    assert_eq!(dropped(&cut), [("low", ShedReason::RoomFull, 2), ("normal", ShedReason::RoomFull, 1)]);
    assert_eq!(payloads(&cut), ["1", "90"], "normal message 0 made room");
}

#[test]
fn a_coupon_finds_room_whatever_waits() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    while buffer.push(of(Priority::High, 1), now) == Verdict::Accepted {}
    assert!(!buffer.is_full());
    let coupon = Message { policy: TypePolicy::of(Class::Reliable), ..sample("coupon", "7") };
    buffer.push_durable(Arc::new(coupon), now);
    assert_eq!(buffer.len(), GATHERED_MESSAGES_MAX);
    let cut = buffer.cut(&budget(1, 10_000), SEED, now);
    assert_eq!(payloads(&cut), ["7"], "and goes first");
}

#[test]
fn half_a_batch_is_for_high_and_what_it_does_not_use_is_for_all() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..20 {
        buffer.push(of(Priority::Low, n), now);
        buffer.push(of(Priority::Normal, n), now);
    }
    assert_eq!(types(&buffer.cut(&budget(10, 10_000), SEED, now)), BTreeMap::from([("normal", 10)]));
    for n in 0..20 {
        buffer.push(of(Priority::High, n), now);
    }
    let half = BTreeMap::from([("high", 5), ("normal", 5)]);
    assert_eq!(types(&buffer.cut(&budget(10, 10_000), SEED, now)), half);
    for _ in 0..2 {
        buffer.cut(&budget(10, 10_000), SEED, now);
    }
    assert_eq!(types(&buffer.cut(&budget(100, 10_000), SEED, now)), BTreeMap::from([("low", 20)]));
    assert!(buffer.is_empty());
}

#[test]
fn a_reserve_of_bytes_holds_as_well() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..10 {
        buffer.push(Message { wire_bytes: 100, ..of(Priority::Normal, n) }, now);
    }
    for n in 0..10 {
        buffer.push(Message { wire_bytes: 100, ..of(Priority::High, n) }, now);
    }
    let half = BTreeMap::from([("high", 5), ("normal", 5)]);
    assert_eq!(types(&buffer.cut(&budget(100, 1000), SEED, now)), half);
}

#[test]
fn what_is_reserved_for_normal_and_low_is_theirs_in_a_flood_of_gifts() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..100 {
        buffer.push(of(Priority::High, n), now);
    }
    for n in 0..10 {
        buffer.push(of(Priority::Low, n), now);
        buffer.push(of(Priority::Normal, n), now);
    }
    let quotas = Quotas { permille: [100, 200, 500] };
    let cut = buffer.cut(&Budget { quotas, ..budget(10, 10_000) }, SEED, now);
    assert_eq!(types(&cut), BTreeMap::from([("high", 7), ("low", 1), ("normal", 2)]));
}

#[test]
fn within_a_batch_messages_stand_in_the_order_they_came() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    let order = [Priority::Low, Priority::High, Priority::Normal, Priority::High, Priority::Low];
    for (n, priority) in order.into_iter().enumerate() {
        buffer.push(of(priority, n), now);
    }
    assert_eq!(payloads(&buffer.cut(&budget(10, 10_000), SEED, now)), ["0", "1", "2", "3", "4"]);
}

#[test]
fn what_waited_too_long_is_dropped_and_told() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    let brief = |n| Message { ttl: Duration::from_secs(1), ..of(Priority::Low, n) };
    buffer.push(brief(1), now);
    buffer.push(brief(2), now + Duration::from_millis(500));
    buffer.push(of(Priority::Low, 3), now);
    let cut = buffer.cut(&budget(10, 10_000), SEED, now + Duration::from_secs(1));
    assert_eq!(payloads(&cut), ["2", "3"]);
    assert_eq!(dropped(&cut), [("low", ShedReason::Expired, 1)]);
}

#[test]
fn what_was_dropped_is_to_be_told_even_if_nothing_else_waits() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..1000 {
        buffer.push(of(Priority::Low, n), now);
    }
    buffer.thin(0, SEED, now);
    let waiting = buffer.waiting(&budget(10, 10_000)).expect("somebody is to hear of it");
    assert_eq!((waiting.batches, waiting.oldest), (0, now));
    assert_eq!(dropped(&buffer.cut(&shown(0), SEED, now)), [("low", ShedReason::Sampled, 1000)]);
    assert!(buffer.waiting(&budget(10, 10_000)).is_none());
}

/// Each of a hundred messages is in a sample of ten about as often as any other, wherever it stands.
#[test]
fn a_sample_is_fair() {
    let mut drawn = [0_u32; 100];
    let now = Now::made_up().instant;
    for seed in 0..2000 {
        let mut buffer = Buffer::default();
        for n in 0..100 {
            buffer.push(of(Priority::Normal, n), now);
        }
        let cut = buffer.cut(&shown(10), seed, now);
        assert_eq!(cut.messages.len(), 10);
        assert_eq!(dropped(&cut), [("normal", ShedReason::Sampled, 90)]);
        for payload in payloads(&cut) {
            drawn[payload.parse::<usize>().unwrap()] += 1;
        }
    }
    // 200 expected, standard deviation 13.4: five of them either way.
    assert!(drawn.iter().all(|times| (133..=267).contains(times)), "{drawn:?}");
}

#[test]
fn a_sample_keeps_to_weights_and_leaves_low_what_normal_does_not_use() {
    let mut heavy = 0;
    let now = Now::made_up().instant;
    for seed in 0..2000 {
        let mut buffer = Buffer::default();
        for n in 0..100 {
            let weight = if n < 50 { 1 } else { 5 };
            let policy = TypePolicy { weight, ..TypePolicy::of(Class::Normal) };
            buffer.push(Message { policy, ..sample("chat", &n.to_string()) }, now);
        }
        heavy += payloads(&buffer.cut(&shown(1), seed, now))
            .iter()
            .filter(|n| n.len() == 2 && **n >= "50")
            .count();
    }
    // Five sixths of 2 000 is 1 667, standard deviation 16.7.
    assert!((1580..=1750).contains(&heavy), "{heavy}");
    let mut buffer = Buffer::default();
    for n in 0..50 {
        buffer.push(of(Priority::Low, n), now);
        if n < 3 {
            buffer.push(of(Priority::Normal, n), now);
        }
    }
    let cut = buffer.cut(&shown(10), SEED, now);
    assert_eq!(types(&cut), BTreeMap::from([("low", 7), ("normal", 3)]));
}

#[test]
fn a_sample_is_the_same_however_early_those_without_a_prospect_are_dropped() {
    let now = Now::made_up().instant;
    let mut late = Buffer::default();
    let mut early = Buffer::default();
    for n in 0..2000 {
        late.push(of(Priority::Normal, n), now);
        early.push(of(Priority::Normal, n), now);
        early.thin(40, SEED, now);
        assert!(early.len() <= 2 * 40 + ROOMY + 1, "what waits is bounded");
    }
    let late = late.cut(&shown(20), SEED, now);
    let early = early.cut(&shown(20), SEED, now);
    assert_eq!(payloads(&late), payloads(&early));
    assert_eq!(dropped(&late), dropped(&early));
}

#[test]
fn gifts_past_what_may_be_shown_wait_and_coupons_and_prices_do_not() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..5 {
        buffer.push(of(Priority::High, n), now);
    }
    let price =
        Message { policy: TypePolicy::of(Class::Latest), key: Key::parse("p").ok(), ..sample("price", "9") };
    buffer.push(price, now);
    buffer.push_durable(
        Arc::new(Message { policy: TypePolicy::of(Class::Reliable), ..sample("coupon", "8") }),
        now,
    );
    let two = Budget { high: Allowance::AtMost(2), ..budget(100, 10_000) };
    let cut = buffer.cut(&two, SEED, now);
    assert_eq!((payloads(&cut), cut.high), (vec!["0", "1", "9", "8"], 2));
    let later = now + Duration::from_millis(100);
    let none = Budget { high: Allowance::AtMost(0), ..budget(100, 10_000) };
    assert!(buffer.cut(&none, SEED, later).messages.is_empty());
    let waiting = buffer.waiting(&none).unwrap();
    assert_eq!(
        (waiting.oldest, waiting.batches),
        (later, 0),
        "they do not make the room flush again at once"
    );
    assert_eq!(payloads(&buffer.cut(&two, SEED, later)), ["2", "3"]);
}

#[test]
fn an_early_cut_leaves_what_is_sampled_for_its_window() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..50 {
        buffer.push(of(Priority::Normal, n), now);
    }
    buffer.push(of(Priority::High, 90), now);
    let early = Budget { normal: Allowance::Later, ..budget(100, 10_000) };
    let cut = buffer.cut(&early, SEED, now);
    assert_eq!((payloads(&cut), cut.dropped.is_empty(), buffer.len()), (vec!["90"], true, 50));
}

/// The room's order is given up only for what has to stay behind.
#[test]
fn what_leaves_whole_with_one_flush_leaves_in_room_order() {
    let mut buffer = Buffer::default();
    let now = Now::made_up().instant;
    for n in 0..25 {
        let priority = if n % 2 == 0 { Priority::Low } else { Priority::High };
        buffer.push(Message { wire_bytes: 100 + 90 * (n % 3), ..of(priority, n) }, now);
    }
    let mut left = Vec::new();
    while !buffer.is_empty() {
        let cut = buffer.cut(&Budget { batches: 14, ..budget(10, 1000) }, SEED, now);
        left.extend(payloads(&cut).iter().map(|n| n.parse::<usize>().unwrap()));
    }
    assert!(left.iter().copied().eq(0..25), "{left:?}");
}
