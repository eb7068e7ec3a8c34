//! Facts about what a room does when more comes than fits, or than it may take.

use super::*;
use crate::limits::INTEGER_MAX;
use crate::room::bucket::Bucket;
use crate::room::id::{Key, TypeName};
use crate::room::ladder::Step;
use crate::room::policy::{Merge, PolicyChange, Priority, TypeRate};

fn gift() -> Message {
    let policy = TypePolicy { priority: Priority::High, ..TypePolicy::of(Class::Normal) };
    Message { policy, ..sample("gift", "7") }
}

fn likes(count: u64) -> Message {
    Message { policy: TypePolicy::of(Class::Counter), count, ..sample("like", "") }
}

fn enter() -> Message {
    Message { policy: TypePolicy::of(Class::Lossy), ..sample("enter", "1") }
}

fn showing(normal_per_second: u32, high_per_second: u32) -> RoomSettings {
    RoomSettings {
        normal_per_second: Some(normal_per_second),
        high_per_second: Some(high_per_second),
        ..RoomSettings::default()
    }
}

fn changing(type_name: &str, change: PolicyChange) -> RoomSettings {
    let types = vec![(TypeName::parse(type_name).unwrap(), change)];
    RoomSettings { types, ..RoomSettings::default() }
}

fn skipped_of(batches: &[Batch], type_name: &str) -> u64 {
    let skipped = batches.iter().flat_map(|batch| &batch.skipped);
    skipped.filter(|(name, _)| name.as_str() == type_name).map(|(_, count)| count).sum()
}

impl Bench {
    fn configured(settings: RoomSettings) -> Self {
        let mut bench = Self::with_members(50);
        bench.tell(Input::Configure(settings));
        bench
    }

    fn degraded(step: Step) -> Self {
        let mut bench = Self::with_members(50);
        bench.tell(Input::Degrade(step));
        bench
    }

    fn account(&self, type_name: &str) -> view::AccountView {
        self.room.view(0, self.now.instant).account[type_name].clone()
    }
}

#[test]
fn a_flood_of_chat_does_not_delay_a_gift() {
    let mut bench = Bench::with_members(50);
    // Four batches are before the segment: the flood has the room full.
    bench.publish(chats(5000));
    bench.publish(vec![gift()]);
    bench.now = bench.now.later(WINDOW);
    let left =
        batches(bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 1, cost: None } }));
    assert_eq!((left.len(), count_of(&left, "gift")), (1, 1), "it is in the very next batch");
    assert_eq!(bench.account("chat").shed.len(), 0, "and chat waits for its turn");
}

#[test]
fn a_device_is_shown_no_more_than_configured_and_told_of_the_rest() {
    let mut bench = Bench::configured(showing(40, 0));
    let mut shown = Vec::new();
    let mut accepted = 0;
    let mut skipped = 0;
    for n in 0..1000 {
        bench.now = bench.now.later(Duration::from_millis(10));
        let offered = if n < 900 { 100 } else { 0 };
        let (verdicts, mut left) = bench.publish(chats(offered));
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Accepted));
        accepted += verdicts.len() as u64;
        left.extend(bench.taken());
        assert!(bench.room.gathered() <= 200, "what has no prospect is not kept");
        shown.push(count_of(&left, "chat"));
        skipped += skipped_of(&left, "chat");
    }
    assert!(shown.windows(100).all(|second| second.iter().sum::<usize>() <= 40), "in any second");
    let sum = shown.iter().sum::<usize>();
    assert!((300..=360).contains(&sum), "{sum} in nine seconds");
    assert_eq!(accepted, sum as u64 + skipped, "every message is accounted for");
    let account = bench.account("chat");
    assert_eq!((account.accepted, account.delivered, account.waiting), (accepted, sum as u64, 0));
    assert_eq!(account.shed["sampled"], skipped);
}

#[test]
fn gifts_past_what_is_shown_wait_for_their_turn_and_do_not_keep_the_room_awake() {
    let mut bench = Bench::configured(showing(0, 10));
    let (_, mut left) = bench.publish((0..25).map(|_| gift()).collect());
    let mut awakenings = 0;
    while count_of(&left, "gift") < 25 {
        let due = bench.room.poll_deadline().expect("gifts wait");
        let later = due.saturating_duration_since(bench.now.instant);
        left.extend(bench.wait(later));
        left.extend(bench.taken());
        awakenings += 1;
    }
    assert!(awakenings <= 40, "{awakenings} in about two seconds");
    assert_eq!(bench.account("gift").delivered, 25);
}

#[test]
fn an_urgent_flush_leaves_what_is_sampled_to_its_window() {
    let mut bench = Bench::configured(showing(40, 0));
    bench.publish(chats(30));
    let alert = Message { policy: TypePolicy { urgent: true, ..gift().policy }, ..sample("alert", "1") };
    let (_, left) = bench.publish(vec![alert]);
    assert_eq!((count_of(&left, "alert"), count_of(&left, "chat"), skipped_of(&left, "chat")), (1, 0, 0));
    let left = bench.wait(WINDOW);
    assert_eq!(count_of(&left, "chat"), 30);
}

/// Its type may be urgent: a sample is drawn when the window is over, not at each of them.
#[test]
fn an_urgent_message_that_is_sampled_does_not_keep_the_room_awake() {
    let mut bench = Bench::configured(showing(5, 0));
    let policy = TypePolicy { urgent: true, ..TypePolicy::of(Class::Normal) };
    bench.publish(vec![Message { policy, ..sample("alert", "1") }]);
    let due = bench.room.poll_deadline().unwrap();
    assert!(due >= bench.now.instant + WINDOW, "{:?}", due - bench.now.instant);
    assert_eq!(count_of(&bench.wait(WINDOW), "alert"), 1);
}

#[test]
fn a_room_takes_so_many_of_a_type_and_of_all() {
    let rate = Some(TypeRate { per_second: 10, burst: 3 });
    let policy = TypePolicy { rate, ..TypePolicy::of(Class::Normal) };
    let limited = || (0..5).map(|_| Message { policy, ..sample("ask", "1") }).collect();
    let mut bench = Bench::with_members(50);
    let shed = Verdict::Shed(ShedReason::TypeRate);
    assert_eq!(bench.publish(limited()).0[2..], [Verdict::Accepted, shed, shed]);
    bench.now = bench.now.later(Duration::from_millis(100));
    assert_eq!(bench.publish(limited()).0[..2], [Verdict::Accepted, shed]);
    let account = bench.account("ask");
    assert_eq!((account.accepted, account.refused["type_rate"]), (4, 6));

    let settings = RoomSettings { messages_per_second: Some(2), ..RoomSettings::default() };
    bench.tell(Input::Configure(settings));
    let room_rate = Verdict::Shed(ShedReason::RoomRate);
    assert_eq!(bench.publish(chats(3)).0, [Verdict::Accepted, Verdict::Accepted, room_rate]);
    assert_eq!(bench.publish(vec![likes(1)]).0, [room_rate], "counters, too");
    assert_eq!((bench.tally.over_type_rate, bench.tally.over_room_rate), (6, 2));
}

#[test]
fn a_retry_of_what_was_taken_is_a_duplicate_whatever_the_rate() {
    let settings = RoomSettings { messages_per_second: Some(1), ..RoomSettings::default() };
    let mut bench = Bench::configured(settings);
    let one = || vec![Message { id: Some(MessageId::parse("a").unwrap()), ..sample("chat", "1") }];
    assert_eq!(bench.publish(one()).0, [Verdict::Accepted]);
    assert_eq!(bench.publish(one()).0, [Verdict::Duplicate { offset: None }]);
}

#[test]
fn a_room_that_only_observes_takes_everything_and_counts() {
    let rules = RoomRules { messages_per_second: 2, observe_only: true, ..RoomRules::default() };
    let mut bench = Bench::new();
    bench.room = Room::new(RoomName::parse("r1").unwrap(), Run(7), rules, bench.now.instant);
    assert_eq!(bench.publish(chats(5)).0, [Verdict::Accepted; 5]);
    assert_eq!(bench.tally.over_room_rate, 3);
}

#[test]
fn a_room_may_treat_a_type_otherwise() {
    let change = PolicyChange { merge: Some(Merge::First), history: Some(false), ..PolicyChange::default() };
    let mut bench = Bench::configured(changing("chat", change));
    assert_eq!(bench.publish(chats(3)).0, [Verdict::Accepted, Verdict::Merged, Verdict::Merged]);
    let left = bench.wait(WINDOW);
    assert_eq!((count_of(&left, "chat"), left[0].merged[0].1), (1, 2));
    let snapshot = bench.room.snapshot(Seq(0), None, bench.now);
    assert!(snapshot.history.is_empty(), "not kept for late joiners");
    // A later change leaves the earlier ones as they are.
    let change = PolicyChange { priority: Some(Priority::Low), ..PolicyChange::default() };
    bench.tell(Input::Configure(changing("chat", change)));
    let shown = &bench.room.view(0, bench.now.instant).rules.types["chat"];
    assert_eq!((shown.priority, shown.merge, shown.history), (Some("low"), Some("first"), Some(false)));
}

#[test]
fn combos_count_up_and_their_sum_fits_the_frame_it_was_sized_for() {
    let change = PolicyChange { merge: Some(Merge::Sum), ..PolicyChange::default() };
    let mut bench = Bench::configured(changing("gift", change));
    let rose = || Message { key: Key::parse("a:rose").ok(), count: 1_000_000_000, ..gift() };
    let before = rose().wire_bytes;
    bench.publish((0..50).map(|_| rose()).collect());
    let left = bench.wait(WINDOW);
    assert_eq!(left[0].messages[0].count, 50_000_000_000);
    assert!(left[0].messages[0].wire_bytes >= before + "\"count\":50000000000,".len());
    assert_eq!(left[0].merged[0].1, 49);
}

#[test]
fn on_the_first_step_lossy_messages_are_shed_and_the_others_are_not() {
    let mut bench = Bench::degraded(Step::LossyOff);
    let verdicts = bench.publish(vec![enter(), sample("chat", "1"), likes(1)]).0;
    assert_eq!(verdicts, [Verdict::Shed(ShedReason::LossyOff), Verdict::Accepted, Verdict::Accepted]);
    bench.tell(Input::Degrade(Step::Calm));
    assert_eq!(bench.publish(vec![enter()]).0, [Verdict::Accepted]);
}

#[test]
fn on_the_second_step_counters_are_told_once_a_second_and_nothing_is_lost() {
    let mut bench = Bench::degraded(Step::CountersSlow);
    let mut told = 0;
    let mut total = 0;
    for n in 0..100 {
        let (_, mut left) = bench.publish(vec![likes(3), sample("chat", &n.to_string())]);
        left.extend(bench.wait(WINDOW));
        left.extend(bench.taken());
        for change in left.iter().flat_map(|batch| &batch.counters) {
            told += 1;
            total = change.total;
        }
    }
    assert!((10..=11).contains(&told), "{told} times in ten seconds");
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.room.view(0, bench.now.instant).counters["like"], 300, "told up to {total} before");
    let account = bench.account("like");
    assert_eq!((account.accepted, account.delivered, account.waiting), (100, 100, 0));
}

#[test]
fn counters_that_wait_for_their_second_leave_when_the_room_has_to_flush() {
    let mut bench = Bench::degraded(Step::CountersSlow);
    bench.publish(vec![likes(3)]);
    bench.wait(WINDOW);
    bench.publish(vec![likes(4)]);
    assert!(bench.wait(WINDOW).is_empty());
    let left = batches(bench.tell(Input::Flush));
    assert_eq!((left.len(), left[0].counters[0].total), (1, 7));
    assert!(bench.room.gathering.waiting().is_none());
}

#[test]
fn on_the_third_step_normal_messages_are_sampled_and_gifts_are_not() {
    for (configured, most) in [(0, 20), (40, 20), (10, 5)] {
        let mut bench = Bench::degraded(Step::NormalSampled);
        bench.tell(Input::Configure(showing(configured, 0)));
        bench.publish([chats(500), (0..30).map(|_| gift()).collect()].concat());
        let left = bench.wait(WINDOW);
        assert_eq!((count_of(&left, "chat"), count_of(&left, "gift")), (most, 30), "{configured}");
        assert_eq!(skipped_of(&left, "chat"), 500 - most as u64);
    }
}

#[test]
fn on_the_fourth_step_rooms_gather_as_long_as_they_may_and_coupons_do_not_wait() {
    let mut bench = Bench::degraded(Step::WindowWidest);
    assert!(bench.publish(chats(150)).1.is_empty(), "a whole batch waits, too");
    assert!(bench.wait(Duration::from_millis(900)).is_empty());
    let alert = Message { policy: TypePolicy { urgent: true, ..gift().policy }, ..sample("alert", "1") };
    assert_eq!(count_of(&bench.publish(vec![alert]).1, "alert"), 1);
    assert_eq!(bench.room.view(0, bench.now.instant).window_ms, 1000);
}

#[test]
fn a_counter_that_is_full_says_so() {
    let mut bench = Bench::with_members(50);
    bench.publish(vec![likes(INTEGER_MAX - 1)]);
    assert_eq!(bench.publish(vec![likes(5)]).0, [Verdict::Saturated]);
    assert_eq!(bench.wait(WINDOW)[0].counters[0].total, INTEGER_MAX);
}

/// Devices that know a seq hear of the next one with what was dropped meanwhile, be it nothing but that.
#[test]
fn what_was_dropped_is_told_even_if_nothing_is_left_to_send() {
    let mut bench = Bench::configured(showing(1, 0));
    bench.publish(chats(3));
    assert_eq!(count_of(&bench.wait(WINDOW), "chat"), 1);
    bench.publish(chats(2));
    let left = bench.wait(WINDOW);
    assert_eq!((left[0].messages.len(), skipped_of(&left, "chat")), (0, 2));
    let want = RefreshWant { encoding: Encoding::Json, since: Seq(0), sent: 0, small: false, latest: None };
    let refresh = bench.room.state.refresh(want, None).unwrap();
    assert_eq!(refresh.missed.skipped[0].1, 5, "one that was behind all the while hears the same in sum");
}

#[test]
fn a_rate_of_a_million_lets_a_million_through() {
    let now = Now::made_up().instant;
    let mut bucket = Bucket::new(1_000_000, Duration::from_secs(1), now);
    assert!((0..1_000_000).all(|_| bucket.take(now)));
    assert!(!bucket.take(now));
}
