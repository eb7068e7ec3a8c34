//! Facts about a whole room.

mod flow;
mod mended;
mod reliable;

use std::time::Duration;

use super::message::{Message, Published, ShedReason, Verdict, sample};
use super::*;
use crate::limits::{
    ACCOUNT_SEQS_MAX, AUDIENCE_INTERVAL, GATHERED_BYTES_MAX, GATHERED_MESSAGES_MAX, ROOM_IDLE,
    SEGMENT_QUEUED_MAX,
};
use crate::room::id::{Encoding, Key, MessageId};
use crate::room::policy::TypePolicy;

/// The gather window of a room that is large enough to have one.
const WINDOW: Duration = Duration::from_millis(100);

/// A room with a clock and what came out of it.
struct Bench {
    room: Room,
    now: Now,
    tally: RoomTally,
}

impl Bench {
    fn new() -> Self {
        let now = Now::made_up();
        let name = RoomName::parse("r1").unwrap();
        Self {
            room: Room::new(name, Run(7), RoomRules::default(), now.instant),
            now,
            tally: RoomTally::default(),
        }
    }

    /// A room with so many members on shard 0.
    fn with_members(members: u64) -> Self {
        let mut bench = Self::new();
        for connection in 0..members {
            let join = Join {
                shard: 0,
                connection,
                join: 1,
                encoding: Encoding::Json,
                seen: None,
                cursor: None,
                device: 0,
                moved: false,
            };
            bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Join(join) });
        }
        bench
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.room.handle(input, self.now, &mut self.tally);
        let mut outputs: Vec<Output> = std::iter::from_fn(|| self.room.poll_output()).collect();
        // Nothing is stored of it.
        if let Some(at) = outputs.iter().position(|output| matches!(output, Output::Load { .. }))
            && let Output::Load { life, .. } = outputs.remove(at)
        {
            outputs.extend(self.tell(Input::Loaded { life, stored: None }));
        }
        outputs
    }

    fn publish(&mut self, messages: Vec<Message>) -> (Vec<Verdict>, Vec<Batch>) {
        let mut outputs = self.tell(Input::Publish { ticket: 1, messages });
        let Output::Published { published: Published::Taken(verdicts), .. } = outputs.remove(0) else {
            panic!("the answer comes first");
        };
        (verdicts, batches(outputs))
    }

    /// Whatever was cut is in a pass now; what is due then.
    fn taken(&mut self) -> Vec<Batch> {
        let untaken = SEGMENT_QUEUED_MAX - self.room.segments.batches_left();
        batches(
            self.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: untaken, cost: None } }),
        )
    }

    fn wait(&mut self, by: Duration) -> Vec<Batch> {
        self.now = self.now.later(by);
        batches(self.tell(Input::Due))
    }
}

fn batches(outputs: Vec<Output>) -> Vec<Batch> {
    let batch = |output| if let Output::Batch { batch, .. } = output { Some(batch) } else { None };
    outputs.into_iter().filter_map(batch).collect()
}

fn count_of(batches: &[Batch], type_name: &str) -> usize {
    let messages = batches.iter().flat_map(|batch| &batch.messages);
    messages.filter(|message| message.type_name.as_str() == type_name).count()
}

fn chats(count: usize) -> Vec<Message> {
    (0..count).map(|n| sample("chat", &n.to_string())).collect()
}

#[test]
fn messages_gather_from_the_first_one_and_leave_together() {
    let mut bench = Bench::with_members(50);
    assert!(bench.publish(chats(1)).1.is_empty());
    assert!(bench.wait(Duration::from_millis(60)).is_empty());
    assert!(bench.publish(chats(1)).1.is_empty(), "a later message does not flush");
    let left = bench.wait(Duration::from_millis(40));
    assert_eq!(left[0].messages.len(), 2, "100 ms after the first");
    assert_eq!((left.len(), left[0].seq), (1, Seq(1)));
}

#[test]
fn a_full_batch_leaves_at_once_and_its_remainder_keeps_its_deadline() {
    let mut bench = Bench::with_members(50);
    let (_, left) = bench.publish(chats(150));
    assert_eq!(left.iter().map(|batch| batch.messages.len()).collect::<Vec<_>>(), [100]);
    assert_eq!(bench.wait(Duration::from_millis(100))[0].messages.len(), 50);
}

#[test]
fn a_room_stops_cutting_while_a_segment_has_four_batches_before_it() {
    let mut bench = Bench::with_members(50);
    assert_eq!(bench.publish(chats(900)).1.len(), 4);
    assert_eq!(bench.wait(Duration::from_millis(500)).len(), 0);
    assert_eq!(
        batches(bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 2, cost: None } }))
            .len(),
        2
    );
    assert_eq!(bench.room.gathered(), 300);
}

#[test]
fn a_room_without_members_never_waits_for_anybody() {
    let mut bench = Bench::new();
    assert_eq!(bench.publish(chats(900)).1.len(), 9);
}

#[test]
fn too_much_at_once_is_shed_and_said_so() {
    let mut bench = Bench::with_members(50);
    let (verdicts, _) = bench.publish(chats(GATHERED_MESSAGES_MAX));
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Accepted));
    let (verdicts, _) = bench.publish(chats(1000));
    let shed = verdicts.iter().filter(|verdict| **verdict == Verdict::Shed(ShedReason::RoomFull)).count();
    assert_eq!(shed, 600, "four batches of a hundred have left");
    assert_eq!(bench.room.view(0, bench.now.instant).account["chat"].refused["room_full"], 600);
}

#[test]
fn an_urgent_message_takes_the_others_with_it_and_the_next_keeps_its_spacing() {
    let mut bench = Bench::with_members(50);
    bench.publish(chats(2));
    let urgent = || {
        vec![Message {
            policy: TypePolicy { urgent: true, ..TypePolicy::of(Class::Normal) },
            ..sample("alert", "1")
        }]
    };
    assert_eq!(bench.publish(urgent()).1[0].messages.len(), 3);
    assert!(bench.publish(urgent()).1.is_empty());
    assert_eq!(bench.wait(Duration::from_millis(20)).len(), 1);
}

/// The remainder used to wait for the next pass that could be afforded, which may be a second later.
#[test]
fn what_an_early_flush_leaves_behind_keeps_its_deadline_or_goes_along() {
    let mut bench = Bench::with_members(50);
    let urgent = || {
        vec![Message {
            policy: TypePolicy { urgent: true, ..TypePolicy::of(Class::Normal) },
            ..sample("alert", "1")
        }]
    };
    // Passes of 120 ms: they have to be 200 ms apart.
    let cost = WriteCost { per_member: Duration::from_micros(2400), ..WriteCost::default() };
    assert_eq!(bench.publish(urgent()).1.len(), 1);
    bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 1, cost: Some(cost) } });
    bench.publish(chats(99));
    bench.wait(Duration::from_millis(100));
    bench.publish([urgent(), chats(30)].concat());
    let left = bench.wait(Duration::from_millis(100));
    let sizes: Vec<usize> = left.iter().map(|batch| batch.messages.len()).collect();
    assert_eq!(sizes, [100, 30], "a pass goes out anyway, and the next would come too late for the rest");
    bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 2, cost: None } });
    // Where passes cost next to nothing, what has come only just waits for company.
    bench.tell(Input::Segment {
        shard: 0,
        said: SegmentSaid::Taken { batches: 0, cost: Some(WriteCost::default()) },
    });
    bench.wait(Duration::from_millis(200));
    let (_, left) = bench.publish([urgent(), chats(130)].concat());
    assert_eq!(left.iter().map(|batch| batch.messages.len()).collect::<Vec<_>>(), [100]);
}

#[test]
fn a_retry_with_the_same_id_is_a_duplicate_and_another_message_is_refused() {
    let mut bench = Bench::new();
    let with_id = |payload| Message { id: Some(MessageId::parse("a").unwrap()), ..sample("chat", payload) };
    assert_eq!(bench.publish(vec![with_id("1")]).0, [Verdict::Accepted]);
    assert_eq!(bench.publish(vec![with_id("1")]).0, [Verdict::Duplicate { offset: None }]);
    let outputs = bench.tell(Input::Publish { ticket: 2, messages: vec![sample("chat", "0"), with_id("2")] });
    let refused = matches!(outputs[0], Output::Published { published: Published::IdReused { index: 1 }, .. });
    assert!(refused, "{outputs:?}");
    assert_eq!(bench.room.view(0, bench.now.instant).account["chat"].accepted, 1, "nothing of it was taken");
}

#[test]
fn a_welcome_is_the_room_as_of_one_seq() {
    let mut bench = Bench::new();
    let price = Message {
        policy: TypePolicy::of(Class::Latest),
        key: Some(Key::parse("p").unwrap()),
        ..sample("price", "5")
    };
    let like = Message { policy: TypePolicy::of(Class::Counter), count: 3, ..sample("like", "") };
    bench.publish(vec![sample("chat", "1"), price, like.clone()]);
    bench.publish(vec![like]);
    let now = bench.now;
    let snapshot = bench.room.snapshot(Seq(0), None, now);
    assert_eq!((snapshot.seq, snapshot.history.len(), snapshot.latest.len()), (Seq(1), 1, 1));
    assert_eq!(snapshot.counters[0].1, 3, "what waits has not been told yet");
}

#[test]
fn the_audience_is_told_a_second_after_it_changed_and_not_again() {
    let mut bench = Bench::with_members(3);
    assert!(bench.wait(AUDIENCE_INTERVAL - Duration::from_millis(1)).is_empty());
    let told = bench.wait(Duration::from_millis(1));
    assert_eq!(&told[0].messages[0].payload.bytes()[..], b"3");
    assert!(bench.wait(AUDIENCE_INTERVAL * 5).is_empty());
}

/// The number counted as told all the same, so devices kept the wrong one until the next member came or left.
#[test]
fn an_audience_message_that_was_shed_does_not_count_as_told_and_is_tried_again_a_second_later() {
    let mut bench = Bench::with_members(3);
    let large = |n: usize| Message {
        policy: TypePolicy::of(Class::Latest),
        key: Some(Key::parse(&n.to_string()).unwrap()),
        wire_bytes: GATHERED_BYTES_MAX / 2,
        ..sample("price", "1")
    };
    // Four batches are before the segment, and two latest values, which nothing displaces, fill the room.
    for n in 0..6 {
        assert_eq!(bench.publish(vec![large(n)]).0, [Verdict::Accepted]);
        bench.wait(Duration::from_millis(10));
    }
    assert_eq!(bench.room.gathered(), 2);
    assert_eq!(count_of(&bench.wait(AUDIENCE_INTERVAL), "online"), 0);
    assert_eq!(bench.tally.shed[ShedReason::RoomFull as usize].0[Class::Latest as usize], 1);
    let mut left = bench.taken();
    left.extend(bench.wait(AUDIENCE_INTERVAL - Duration::from_millis(1)));
    assert_eq!(count_of(&left, "online"), 0, "not at once");
    let told = bench.wait(Duration::from_millis(1));
    assert_eq!(&told[0].messages[0].payload.bytes()[..], b"3");
    assert!(bench.wait(AUDIENCE_INTERVAL * 5).is_empty());
}

#[test]
fn a_member_behind_further_than_the_account_reaches_is_told_so() {
    let mut bench = Bench::new();
    for _ in 0..ACCOUNT_SEQS_MAX * 2 {
        bench.publish(chats(100));
    }
    let refresh = |since| Input::Segment {
        shard: 0,
        said: SegmentSaid::Refresh(RefreshWant {
            encoding: Encoding::Json,
            since,
            sent: 0,
            small: false,
            latest: None,
        }),
    };
    let answered = |outputs: &[Output]| matches!(outputs, [Output::Refreshed { refresh: Some(_), .. }]);
    assert!(!answered(&bench.tell(refresh(Seq(1)))));
    let recent = Seq(bench.room.seq().0 - 10);
    let outputs = bench.tell(refresh(recent));
    assert!(answered(&outputs));
    let [Output::Refreshed { refresh: Some(refresh), .. }] = &outputs[..] else { unreachable!() };
    assert_eq!(refresh.missed.skipped[0].1, 1000);
}

#[test]
fn a_room_that_nobody_uses_is_forgotten_and_one_with_members_is_not() {
    let mut empty = Bench::new();
    empty.publish(chats(1));
    empty.now = empty.now.later(ROOM_IDLE);
    assert!(matches!(empty.tell(Input::Due)[..], [Output::Idle]));
    let mut used = Bench::with_members(1);
    used.now = used.now.later(ROOM_IDLE);
    assert!(!used.tell(Input::Due).iter().any(|output| matches!(output, Output::Idle)));
}

#[test]
fn a_room_told_to_close_when_idle_closes_after_its_last_publish() {
    let mut bench = Bench::with_members(1);
    let idle_close = Some(Duration::from_secs(5));
    bench.tell(Input::Configure(RoomSettings { idle_close, ..RoomSettings::default() }));
    bench.now = bench.now.later(Duration::from_secs(4));
    bench.publish(chats(1));
    bench.now = bench.now.later(Duration::from_secs(4));
    assert!(!bench.tell(Input::Due).iter().any(|output| matches!(output, Output::Closed)));
    bench.now = bench.now.later(Duration::from_secs(1));
    assert!(bench.tell(Input::Due).iter().any(|output| matches!(output, Output::Closed)));
}
