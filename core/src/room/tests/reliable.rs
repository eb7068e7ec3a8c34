//! Facts about a room's reliable messages, with the store played by the test.

use std::sync::Arc;
use std::time::Duration;

use super::super::*;
use crate::limits::{
    ROOM_TYPES_MAX, STORE_PATIENCE, STORE_RETRY, STREAM_MESSAGES_MAX, STREAM_RECALLS_MAX, TAIL_MESSAGES_MAX,
};
use crate::room::id::{Cursor, Encoding, Epoch, MessageId, TypeName};
use crate::room::message::{Published, ShedReason, Unavailable, Verdict, sample};
use crate::room::policy::TypePolicy;
use crate::room::receipt::{Acks, SegmentReceipt};
use crate::room::stored::{Asked, Page, Record, Stored};
use crate::room::view::StreamRefusal;

mod clocks;
mod moves;
mod receipts;
mod sizes;

/// A room, what its store holds, and what came out of both.
struct Bench {
    room: Room,
    now: Now,
    tally: RoomTally,
    /// What was asked of the store and not answered.
    asked: Vec<Output>,
}

impl Bench {
    fn cold() -> Self {
        let now = Now { unix_ms: 1_800_000_000_000, ..Now::made_up() };
        let name = RoomName::parse("r1").unwrap();
        let room = Room::new(name, Run(7), RoomRules::default(), now.instant);
        Self { room, now, tally: RoomTally::default(), asked: Vec::new() }
    }

    /// A room that nothing was stored of, with one member.
    fn ready() -> Self {
        let mut bench = Self::cold();
        bench.tell(join(1, None));
        bench.load(None);
        // Its passes cost nothing, so that none waits for another.
        let cost = Some(WriteCost { per_member: Duration::ZERO, ..WriteCost::default() });
        bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 0, cost } });
        bench
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.room.handle(input, self.now, &mut self.tally);
        let is_for_store = |output: &Output| {
            matches!(
                output,
                Output::Load { .. } | Output::Append { .. } | Output::Page { .. } | Output::Forget { .. }
            )
        };
        let (store, mut outputs) =
            std::iter::from_fn(|| self.room.poll_output()).partition::<Vec<_>, _>(is_for_store);
        self.asked.extend(store);
        // The segment takes each batch at once.
        let batches = outputs.iter().filter(|output| matches!(output, Output::Batch { .. })).count();
        if batches > 0 && self.room.members() > 0 {
            outputs.extend(
                self.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches, cost: None } }),
            );
        }
        outputs
    }

    fn load(&mut self, stored: Option<Stored>) -> Vec<Output> {
        let Output::Load { life, .. } = self.asked.remove(0) else { panic!("a load was asked for") };
        self.tell(Input::Loaded { life, stored })
    }

    /// The oldest append is synced.
    fn sync(&mut self) -> Vec<Output> {
        let Output::Append { life, messages, .. } = self.asked.remove(0) else { panic!("an append") };
        self.tell(Input::Durable { life, through: messages.last().unwrap().offset })
    }

    /// The oldest append fails. What it was to store.
    fn fail(&mut self) -> (Vec<Output>, Vec<Arc<Message>>) {
        let Output::Append { life, messages, .. } = self.asked.remove(0) else { panic!("an append") };
        let failed = Input::StoreFailed { life, asked: Asked::Append, reason: Unavailable::StoreFailing };
        (self.tell(failed), messages)
    }

    fn publish(&mut self, messages: Vec<Message>) -> Vec<Output> {
        self.tell(Input::Publish { ticket: 1, messages })
    }

    fn wait(&mut self, by: Duration) -> Vec<Output> {
        self.now = self.now.later(by);
        self.tell(Input::Due)
    }

    /// The receipt, with the named devices that have acknowledged on their segments.
    fn receipt_with(&mut self, offset: u64, devices: &[u64]) -> Result<view::ReceiptView, StreamRefusal> {
        let told = self.tell(Input::Ask { ticket: 2, ask: Ask::Receipt { offset } });
        let segment = SegmentReceipt { acks: Acks::default(), devices: devices.to_vec() };
        match told.into_iter().next() {
            Some(Output::Told { told: Told::Receipt(receipt), .. }) => {
                receipt.map(|home| home.with([segment]))
            }
            other => panic!("{other:?}"),
        }
    }

    fn receipt(&mut self, offset: u64) -> Result<view::ReceiptView, StreamRefusal> {
        self.receipt_with(offset, &[])
    }

    fn cursor(&self, offset: u64) -> Cursor {
        Cursor { epoch: self.room.epoch().unwrap(), offset }
    }
}

fn join(connection: u64, cursor: Option<Cursor>) -> Input {
    let join = Join {
        shard: 0,
        connection,
        join: 1,
        encoding: Encoding::Json,
        seen: None,
        cursor,
        device: 0,
        moved: false,
    };
    Input::Segment { shard: 0, said: SegmentSaid::Join(join) }
}

fn left(bench: &Bench, acked: u64) -> Input {
    let epoch = bench.room.epoch();
    let left = Departure { encoding: Encoding::Json, epoch, acked, counts_from: 0, device: 0 };
    Input::Segment { shard: 0, said: SegmentSaid::Left(left) }
}

/// A connection of a device with a name comes.
fn named(device: u64, cursor: Option<Cursor>) -> Input {
    let join = Join {
        shard: 0,
        connection: 1,
        join: 1,
        encoding: Encoding::Json,
        seen: None,
        cursor,
        device,
        moved: false,
    };
    Input::Segment { shard: 0, said: SegmentSaid::Join(join) }
}

/// A connection of a device with a name goes.
fn named_left(bench: &Bench, device: u64, acked: u64) -> Input {
    let epoch = bench.room.epoch();
    let left = Departure { encoding: Encoding::Json, epoch, acked, counts_from: 0, device };
    Input::Segment { shard: 0, said: SegmentSaid::Left(left) }
}

fn coupon(payload: &str) -> Message {
    let ttl = Duration::from_secs(600);
    Message { policy: TypePolicy::of(Class::Reliable), ttl, ..sample("coupon", payload) }
}

/// A stream as the store gives it back now. The messages are as old as their `at_ms` says.
fn stored(bench: &Bench, epoch: Epoch, head: u64, messages: Vec<Arc<Message>>) -> Option<Stored> {
    let now = bench.now;
    let record = |message: &Arc<Message>| {
        let age = Duration::from_millis(now.unix_ms.saturating_sub(message.at_ms));
        Record::of(message, now.instant - age)
    };
    Some(Stored { epoch, head, records: messages.iter().map(record).collect(), tail: messages })
}

fn with_id(id: &str, message: Message) -> Message {
    Message { id: Some(MessageId::parse(id).unwrap()), ..message }
}

fn verdicts(outputs: &[Output]) -> Option<&[Verdict]> {
    outputs.iter().find_map(|output| match output {
        Output::Published { published: Published::Taken(verdicts), .. } => Some(&verdicts[..]),
        _ => None,
    })
}

/// The payloads that left, in order.
fn sent(outputs: &[Output]) -> Vec<String> {
    let batches = outputs.iter().filter_map(|output| match output {
        Output::Batch { batch, .. } => Some(batch),
        _ => None,
    });
    let payload = |message: &Arc<Message>| String::from_utf8(message.payload.bytes().to_vec()).unwrap();
    batches.flat_map(|batch| batch.messages.iter().map(payload)).collect()
}

fn spans(outputs: &[Output]) -> Vec<(u64, u64)> {
    let span = |output: &Output| match output {
        Output::Batch { batch, .. } => batch.span.map(|span| (span.after, span.through)),
        _ => None,
    };
    outputs.iter().filter_map(span).collect()
}

#[test]
fn nothing_reliable_leaves_before_it_is_durable_and_what_follows_it_waits_with_it() {
    let mut bench = Bench::ready();
    let outputs = bench.publish(vec![sample("chat", "1"), coupon("2"), sample("chat", "3")]);
    assert_eq!((verdicts(&outputs), sent(&outputs)), (None, vec!["1".to_owned()]));
    assert!(sent(&bench.wait(Duration::from_millis(500))).is_empty());
    let outputs = bench.sync();
    assert_eq!(
        verdicts(&outputs),
        Some(&[Verdict::Accepted, Verdict::Durable { offset: 1 }, Verdict::Accepted][..])
    );
    assert_eq!((sent(&outputs), spans(&outputs)), (vec!["2".to_owned(), "3".to_owned()], vec![(0, 1)]));
}

#[test]
fn if_the_store_fails_the_publisher_is_told_and_the_rest_goes_on() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1"), sample("chat", "2"), coupon("3")]);
    let (outputs, _) = bench.fail();
    let unavailable = Verdict::Unavailable(Unavailable::StoreFailing);
    assert_eq!(verdicts(&outputs), Some(&[unavailable, Verdict::Accepted, unavailable][..]));
    assert_eq!(sent(&outputs), ["2"]);
    let outputs = bench.publish(vec![coupon("4")]);
    assert_eq!(verdicts(&outputs), Some(&[unavailable][..]), "the store is left alone for a while");
    bench.wait(STORE_RETRY);
    let epoch = bench.room.epoch().unwrap();
    bench.load(stored(&bench, epoch, 0, Vec::new()));
    bench.publish(vec![coupon("5")]);
    assert_eq!(verdicts(&bench.sync()), Some(&[Verdict::Durable { offset: 1 }][..]), "the offset is free");
}

#[test]
fn what_turns_out_durable_after_an_error_is_sent_and_its_retry_is_a_duplicate() {
    let mut bench = Bench::ready();
    bench.publish(vec![with_id("a", coupon("1"))]);
    let (_, messages) = bench.fail();
    bench.wait(STORE_RETRY);
    let epoch = bench.room.epoch().unwrap();
    let outputs = bench.load(stored(&bench, epoch, 1, messages));
    assert_eq!((sent(&outputs), spans(&outputs)), (vec!["1".to_owned()], vec![(0, 1)]));
    let outputs = bench.publish(vec![with_id("a", coupon("1"))]);
    assert_eq!(verdicts(&outputs), Some(&[Verdict::Duplicate { offset: Some(1) }][..]));
}

#[test]
fn the_id_of_a_message_that_may_be_stored_is_not_free_before_the_store_has_told() {
    let mut bench = Bench::ready();
    bench.publish(vec![with_id("a", coupon("1"))]);
    bench.fail();
    let reused = bench.publish(vec![with_id("a", sample("chat", "2"))]);
    assert!(matches!(reused[..], [Output::Published { published: Published::IdReused { index: 0 }, .. }]));
    bench.wait(STORE_RETRY);
    let epoch = bench.room.epoch().unwrap();
    bench.load(stored(&bench, epoch, 0, Vec::new()));
    let outputs = bench.publish(vec![with_id("a", sample("chat", "2"))]);
    assert_eq!(verdicts(&outputs), Some(&[Verdict::Accepted][..]), "nothing was stored");
}

#[test]
fn an_answer_to_what_was_given_up_makes_nothing_durable() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    bench.publish(vec![coupon("2")]);
    let Output::Append { life, .. } = bench.asked.pop().unwrap() else { panic!("the second append") };
    bench.fail();
    bench.tell(Input::Durable { life, through: 2 });
    assert_eq!(bench.room.view(0, bench.now.instant).head.offset, 0);
}

#[test]
fn a_duplicate_of_one_in_flight_waits_for_its_outcome() {
    let mut bench = Bench::ready();
    bench.publish(vec![with_id("a", coupon("1"))]);
    assert_eq!(verdicts(&bench.publish(vec![with_id("a", coupon("1")), sample("chat", "2")])), None);
    let outputs = bench.sync();
    let answers: Vec<_> =
        outputs.iter().filter_map(|output| verdicts(std::slice::from_ref(output))).collect();
    assert_eq!(answers[0], [Verdict::Durable { offset: 1 }]);
    assert_eq!(answers[1], [Verdict::Duplicate { offset: Some(1) }, Verdict::Accepted]);
    assert_eq!(sent(&outputs), ["1", "2"]);
    let reused = bench.publish(vec![with_id("a", coupon("other"))]);
    assert!(matches!(reused[..], [Output::Published { published: Published::IdReused { index: 0 }, .. }]));
}

#[test]
fn a_recall_is_a_reliable_message_and_what_it_takes_back_is_alive_no_more() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    bench.sync();
    let recall = |ticket| Input::Ask { ticket, ask: Ask::Recall { offset: 1 } };
    bench.tell(recall(5));
    assert!(bench.tell(recall(6)).is_empty(), "the second waits for the first");
    let outputs = bench.sync();
    let offsets: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Told { ticket, told: Told::Recalled(Ok(recall)) } => Some((*ticket, recall.offset)),
            _ => None,
        })
        .collect();
    assert_eq!(offsets, [(5, 2), (6, 2)]);
    assert_eq!(spans(&bench.wait(Duration::from_millis(20))), [(1, 2)]);
    let opening = bench.room.snapshot(Seq(0), Some(0), bench.now).stream.unwrap();
    assert_eq!(opening.carried.messages.len(), 1, "the recall alone");
    assert_eq!((opening.carried.messages[0].recall, opening.carried.span.through), (1, 2));
    let refused = bench.tell(Input::Ask { ticket: 7, ask: Ask::Recall { offset: 2 } });
    let [Output::Told { told: Told::Recalled(refused), .. }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(*refused, Err(StreamRefusal::NotAlive));
}

#[test]
fn an_expired_message_leaves_a_hole_and_makes_room() {
    let mut bench = Bench::ready();
    let short = |n: usize| Message { ttl: Duration::from_secs(1), ..coupon(&n.to_string()) };
    for _ in 0..2 {
        bench.publish((0..STREAM_MESSAGES_MAX).map(short).collect());
        bench.sync();
        let full = bench.publish(vec![coupon("one more")]);
        assert_eq!(verdicts(&full), Some(&[Verdict::Unavailable(Unavailable::StreamFull)][..]));
        bench.wait(Duration::from_secs(1));
    }
    let opening = bench.room.snapshot(Seq(0), Some(5), bench.now).stream.unwrap();
    assert!(opening.carried.messages.is_empty());
    assert_eq!((opening.carried.span.after, opening.carried.span.through), (5, 2048));
}

#[test]
fn a_cursor_that_can_not_be_honoured_gets_a_reset_and_offset_0_never_does() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1"), coupon("2")]);
    bench.sync();
    let other = Epoch(bench.room.epoch().unwrap().0 ^ 1);
    let stands = |bench: &mut Bench, cursor| {
        let outputs = bench.tell(join(9, Some(cursor)));
        let [Output::Welcomed(welcomed)] = &outputs[..] else { panic!("{outputs:?}") };
        welcomed.stands.map(|stands| (stands.after, stands.reset)).unwrap()
    };
    let one = bench.cursor(1);
    let ahead = bench.cursor(3);
    assert_eq!(stands(&mut bench, one), (1, None));
    assert_eq!(stands(&mut bench, ahead), (0, Some("ahead")));
    assert_eq!(stands(&mut bench, Cursor { epoch: other, offset: 1 }), (0, Some("epoch_changed")));
    assert_eq!(stands(&mut bench, Cursor { epoch: other, offset: 0 }), (0, None));
}

#[test]
fn a_receipt_adds_up_whoever_comes_and_goes() {
    let mut bench = Bench::ready();
    bench.tell(join(2, None));
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.tell(left(&bench, 0));
    let counts = |bench: &mut Bench| {
        let receipt = bench.receipt(1).unwrap();
        (receipt.online, receipt.acknowledged, receipt.left)
    };
    assert_eq!(counts(&mut bench), (2, 0, 1));
    let lacks = bench.cursor(0);
    let has = bench.cursor(1);
    bench.tell(join(3, Some(lacks)));
    assert_eq!(counts(&mut bench), (3, 0, 1), "a further connection is pending");
    bench.tell(left(&bench, 0));
    bench.tell(join(4, Some(has)));
    assert_eq!(counts(&mut bench), (3, 0, 2), "nobody knows whose departure it was");
    bench.tell(join(5, None));
    assert_eq!(counts(&mut bench), (3, 0, 2), "who was not there does not count");
    assert_eq!(bench.receipt(2).unwrap_err(), StreamRefusal::NoOffset);
}

#[test]
fn what_is_not_at_hand_is_read_from_the_store() {
    let mut bench = Bench::ready();
    let count = TAIL_MESSAGES_MAX + 10;
    bench.publish((0..count).map(|n| coupon(&n.to_string())).collect());
    let Some(Output::Append { messages, .. }) = bench.asked.first() else { panic!("an append") };
    let messages = messages.clone();
    bench.sync();
    let refresh = Input::Segment {
        shard: 0,
        said: SegmentSaid::Refresh(RefreshWant {
            encoding: Encoding::Json,
            since: bench.room.seq(),
            sent: 3,
            small: false,
            latest: None,
        }),
    };
    assert!(bench.tell(refresh).is_empty());
    let Output::Page { life, after: 3, .. } = bench.asked.remove(0) else { panic!("a page") };
    bench.tell(Input::StoreFailed {
        life,
        asked: Asked::Page { after: 3 },
        reason: Unavailable::StoreFailing,
    });
    assert!(bench.asked.is_empty(), "the store is left alone for a while");
    bench.wait(STORE_RETRY);
    let Output::Page { life, after: 3, .. } = bench.asked.remove(0) else { panic!("the page again") };
    let page = Page { messages: messages[3..20].to_vec(), through: 20 };
    let outputs = bench.tell(Input::Paged { life, after: 3, page });
    let [Output::Refreshed { want: RefreshWant { sent: 3, .. }, head, refresh: Some(refresh), .. }] =
        &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    let carried = refresh.carried.as_ref().unwrap();
    assert_eq!((*head, carried.span.after, carried.span.through), (count as u64, 3, 20));
    assert_eq!(carried.messages.len(), 17);
}

#[test]
fn joins_wait_for_the_stream_and_then_do_without_it() {
    let mut bench = Bench::cold();
    assert!(bench.tell(join(1, None)).is_empty());
    let outputs = bench.wait(STORE_PATIENCE);
    let [Output::Welcomed(welcomed)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(welcomed.stands, None);
    assert!(bench.room.snapshot(Seq(0), None, bench.now).stream.is_none());
    let outputs = bench.publish(vec![coupon("1")]);
    assert_eq!(verdicts(&outputs), Some(&[Verdict::Unavailable(Unavailable::StoreFailing)][..]));
    let outputs = bench.load(None);
    assert!(
        matches!(outputs[..], [Output::StreamChanged]),
        "those who do not know it come back: {outputs:?}"
    );
}

#[test]
fn a_stream_that_became_another_sends_its_members_for_a_new_welcome() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.publish(vec![coupon("2")]);
    bench.fail();
    bench.wait(STORE_RETRY);
    let outputs = bench.load(stored(&bench, Epoch(5), 9, Vec::new()));
    assert!(matches!(outputs[..], [Output::StreamChanged]), "{outputs:?}");
    assert_eq!(bench.room.epoch(), Some(Epoch(5)));
}

/// A room with a coupon on its way used to stay open behind the answer of `DELETE`. A `PUT` after it was lost,
/// and a coupon was refused.
#[test]
fn a_closed_room_tells_its_members_at_once_and_its_publishers_after_the_store() {
    let mut bench = Bench::ready();
    bench.publish(vec![sample("chat", "0"), coupon("1"), sample("chat", "2")]);
    assert!(matches!(bench.tell(Input::Close)[..], [Output::Closed]));
    let Some(Output::Append { life, .. }) = bench.asked.first() else { panic!("an append") };
    assert!(bench.room.waits_for_store() && bench.room.awaits(*life));
    let outputs = bench.sync();
    let durable = Verdict::Durable { offset: 1 };
    let shed = Verdict::Shed(ShedReason::RoomClosed);
    assert_eq!(verdicts(&outputs), Some(&[Verdict::Accepted, durable, shed][..]));
    assert!(sent(&outputs).is_empty() && !bench.room.waits_for_store(), "{outputs:?}");
}

#[test]
fn a_room_that_strangers_pulled_from_leaves_nothing_behind() {
    let mut bench = Bench::cold();
    bench.tell(Input::Ask { ticket: 3, ask: Ask::Pull { after: None } });
    let outputs = bench.load(None);
    assert!(
        matches!(
            outputs[..],
            [Output::Told { ticket: 3, told: Told::Pulled(Err(StreamRefusal::NoRoom)) }, Output::Idle]
        ),
        "{outputs:?}"
    );
}

#[test]
fn who_pulls_from_a_store_that_fails_hears_so_and_the_next_is_not_held_up() {
    let mut bench = Bench::ready();
    bench.publish((0..TAIL_MESSAGES_MAX + 10).map(|n| coupon(&n.to_string())).collect());
    bench.sync();
    bench.publish(vec![coupon("in flight")]);
    let pull = |ticket| Input::Ask { ticket, ask: Ask::Pull { after: None } };
    assert!(bench.tell(pull(3)).is_empty());
    let (outputs, _) = bench.fail();
    let refused = |output: &Output| {
        matches!(output, Output::Told { told: Told::Pulled(Err(StreamRefusal::Unavailable(_))), .. })
    };
    assert!(outputs.iter().any(refused), "{outputs:?}");
    assert!(bench.tell(pull(4)).iter().all(refused), "while the store is left alone");
    bench.asked.clear();
    bench.wait(STORE_RETRY);
    bench.tell(pull(5));
    assert!(bench.asked.iter().any(|asked| matches!(asked, Output::Page { after: 0, .. })));
}

#[test]
fn members_go_on_without_what_can_not_be_read() {
    let mut bench = Bench::ready();
    bench.publish((0..TAIL_MESSAGES_MAX + 10).map(|n| coupon(&n.to_string())).collect());
    bench.sync();
    bench.tell(Input::Segment {
        shard: 0,
        said: SegmentSaid::Refresh(RefreshWant {
            encoding: Encoding::Json,
            since: Seq(0),
            sent: 0,
            small: false,
            latest: None,
        }),
    });
    let Output::Page { life, .. } = bench.asked.remove(0) else { panic!("a page") };
    let failed =
        Input::StoreFailed { life, asked: Asked::Page { after: 0 }, reason: Unavailable::StoreFailing };
    let outputs = bench.tell(failed);
    let [Output::Refreshed { refresh: Some(refresh), head, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(refresh.carried.is_none() && *head > 0, "it is still catching up");
}

#[test]
fn an_id_that_was_used_again_counts_from_its_last_use() {
    let mut bench = Bench::cold();
    bench.tell(join(1, None));
    let aged = |offset, age_s: u64| {
        let at_ms = bench.now.unix_ms - age_s * 1000;
        Arc::new(Message { offset, at_ms, ..with_id("a", coupon("1")) })
    };
    let messages = vec![aged(1, 400), aged(2, 1)];
    bench.load(stored(&bench, Epoch(5), 2, messages));
    let outputs = bench.publish(vec![with_id("a", coupon("1"))]);
    assert_eq!(verdicts(&outputs), Some(&[Verdict::Duplicate { offset: Some(2) }][..]));
}

#[test]
fn what_waits_for_the_stream_of_a_room_that_closes_is_answered_before() {
    let mut bench = Bench::cold();
    bench.tell(join(1, None));
    bench.publish(vec![coupon("1")]);
    let outputs = bench.tell(Input::Close);
    assert_eq!(verdicts(&outputs), Some(&[Verdict::Unavailable(Unavailable::StoreBusy)][..]));
    assert!(
        matches!(outputs[..], [Output::Welcomed(_), Output::Published { .. }, Output::Closed]),
        "{outputs:?}"
    );
    assert!(!bench.room.waits_for_store());
}

#[test]
fn what_was_to_be_sent_of_a_stream_that_is_no_more_is_not() {
    let mut bench = Bench::ready();
    bench.tell(join(2, None));
    // The urgent flush before it keeps the second one waiting.
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.publish(vec![coupon("2")]);
    bench.sync();
    bench.publish(vec![coupon("3")]);
    bench.fail();
    bench.wait(Duration::ZERO);
    bench.now = bench.now.later(STORE_RETRY);
    bench.room.handle(Input::Publish { ticket: 9, messages: vec![coupon("4")] }, bench.now, &mut bench.tally);
    let outputs: Vec<_> = std::iter::from_fn(|| bench.room.poll_output()).collect();
    let life = outputs.iter().find_map(|output| match output {
        Output::Load { life, .. } => Some(*life),
        _ => None,
    });
    let stored = stored(&bench, Epoch(5), 0, Vec::new());
    let outputs = bench.tell(Input::Loaded { life: life.unwrap(), stored });
    assert!(matches!(outputs[0], Output::StreamChanged), "{outputs:?}");
    bench.sync();
    assert_eq!(spans(&bench.wait(Duration::from_millis(20))), [(0, 1)], "the first of the new stream");
}

#[test]
fn a_full_store_is_asked_again_after_a_while_without_loading_what_is_known() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    let Output::Append { life, .. } = bench.asked.remove(0) else { panic!("an append") };
    let full = Input::StoreFailed { life, asked: Asked::Append, reason: Unavailable::StoreFull };
    assert_eq!(verdicts(&bench.tell(full)), Some(&[Verdict::Unavailable(Unavailable::StoreFull)][..]));
    bench.wait(STORE_RETRY);
    bench.publish(vec![coupon("2")]);
    assert_eq!(verdicts(&bench.sync()), Some(&[Verdict::Durable { offset: 1 }][..]));
}

#[test]
fn what_is_dead_is_not_read_and_what_is_alive_behind_it_is_carried() {
    let mut bench = Bench::ready();
    let short = |n: usize| Message { ttl: Duration::from_secs(1), ..coupon(&n.to_string()) };
    bench.publish((1..=10).map(short).collect());
    bench.sync();
    bench.publish((11..=TAIL_MESSAGES_MAX + 20).map(|n| coupon(&n.to_string())).collect());
    let Some(Output::Append { messages, .. }) = bench.asked.first() else { panic!("an append") };
    let messages = messages.clone();
    bench.sync();
    bench.wait(Duration::from_secs(2));
    let reach = Reach { after: 0, through: 12 };
    bench.tell(Input::Segment {
        shard: 0,
        said: SegmentSaid::Carry(CarryWant { encoding: Encoding::Json, reach }),
    });
    let Output::Page { life, after, .. } = bench.asked.remove(0) else { panic!("a page") };
    assert_eq!(after, 10, "nothing before is alive");
    let page = Page { messages: messages[..5].to_vec(), through: 15 };
    let outputs = bench.tell(Input::Paged { life, after, page });
    let [Output::Carried { carried: Some(carried), floor: 10, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((carried.span.after, carried.span.through, carried.messages.len()), (0, 12, 2));
}

#[test]
fn a_store_that_does_not_know_what_it_has_synced_is_asked_for_all_of_it_again() {
    let mut bench = Bench::ready();
    bench.publish((0..TAIL_MESSAGES_MAX + 10).map(|n| coupon(&n.to_string())).collect());
    bench.sync();
    bench.tell(Input::Segment {
        shard: 0,
        said: SegmentSaid::Refresh(RefreshWant {
            encoding: Encoding::Json,
            since: Seq(0),
            sent: 0,
            small: false,
            latest: None,
        }),
    });
    let Output::Page { life, after, .. } = bench.asked.remove(0) else { panic!("a page") };
    bench.tell(Input::Paged { life, after, page: Page { messages: Vec::new(), through: after } });
    bench.wait(STORE_RETRY);
    assert!(bench.asked.iter().any(|asked| matches!(asked, Output::Load { .. })), "{:?}", bench.asked);
}

#[test]
fn a_room_without_publishes_closes_although_its_store_is_slow() {
    let mut bench = Bench::ready();
    let idle_close = Some(Duration::from_secs(5));
    bench.tell(Input::Configure(RoomSettings { idle_close, ..RoomSettings::default() }));
    bench.publish(vec![coupon("1")]);
    assert!(matches!(bench.wait(Duration::from_secs(6)).last(), Some(Output::Closed)));
    assert_eq!(verdicts(&bench.sync()), Some(&[Verdict::Durable { offset: 1 }][..]));
}

/// The online, devices, acknowledged and left of a receipt.
#[test]
fn a_waiting_message_has_its_id_from_the_moment_its_request_is_taken() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1"), with_id("x", sample("chat", "A"))]);
    let reused = bench.publish(vec![with_id("x", sample("chat", "B"))]);
    assert!(matches!(reused[..], [Output::Published { published: Published::IdReused { index: 0 }, .. }]));
    let reused = bench.publish(vec![with_id("x", coupon("B"))]);
    assert!(matches!(reused[..], [Output::Published { published: Published::IdReused { index: 0 }, .. }]));
    assert_eq!(verdicts(&bench.publish(vec![with_id("x", sample("chat", "A"))])), None, "a retry waits");
    let outputs = bench.sync();
    let answers: Vec<_> =
        outputs.iter().filter_map(|output| verdicts(std::slice::from_ref(output))).collect();
    assert_eq!(answers[0], [Verdict::Durable { offset: 1 }, Verdict::Accepted]);
    assert_eq!(answers[1], [Verdict::Duplicate { offset: None }]);
    let reused = bench.publish(vec![with_id("x", sample("chat", "B"))]);
    assert!(matches!(reused[..], [Output::Published { published: Published::IdReused { index: 0 }, .. }]));
}

#[test]
fn a_retry_takes_the_place_of_a_waiting_message_that_is_shed() {
    let mut bench = Bench::ready();
    let limit = RoomSettings { messages_per_second: Some(1), ..RoomSettings::default() };
    bench.tell(Input::Configure(limit));
    bench.wait(Duration::from_secs(2));
    bench.publish(vec![coupon("1"), with_id("x", sample("chat", "A"))]);
    bench.publish(vec![with_id("x", sample("chat", "A"))]);
    let outputs = bench.sync();
    let answers: Vec<_> =
        outputs.iter().filter_map(|output| verdicts(std::slice::from_ref(output))).collect();
    let shed = Verdict::Shed(ShedReason::RoomRate);
    assert_eq!((answers[0][1], answers[1]), (shed, &[shed][..]), "no retry hears of a duplicate");
}

/// 256 type names of a publisher used to shut coupons out for the life of the room, and a recall with them.
#[test]
fn reliable_types_and_the_engines_own_have_room_beside_all_others() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    bench.sync();
    let many = (0..2 * ROOM_TYPES_MAX).map(|n| sample(&format!("t{n}"), "1")).collect();
    let outputs = bench.publish(many);
    let taken = verdicts(&outputs).unwrap().iter().filter(|verdict| **verdict == Verdict::Accepted).count();
    assert_eq!(taken, ROOM_TYPES_MAX);
    let packet = Message { type_name: TypeName::parse("red_packet").unwrap(), ..coupon("2") };
    bench.publish(vec![packet]);
    assert_eq!(verdicts(&bench.sync()), Some(&[Verdict::Durable { offset: 2 }][..]));
    bench.tell(Input::Ask { ticket: 3, ask: Ask::Recall { offset: 2 } });
    let recalled = bench.sync();
    assert!(recalled.iter().any(|output| matches!(output, Output::Told { told: Told::Recalled(Ok(_)), .. })));
    let outputs = bench.wait(Duration::from_secs(2));
    assert!(sent(&outputs).contains(&"1".to_owned()), "online leaves: {:?}", sent(&outputs));
}

/// A recall used to take the place that its message gave back.
#[test]
fn a_recall_frees_the_place_of_its_message() {
    let mut bench = Bench::ready();
    bench.publish((0..STREAM_MESSAGES_MAX).map(|n| coupon(&n.to_string())).collect());
    bench.sync();
    let refused = Verdict::Unavailable(Unavailable::StreamFull);
    assert_eq!(verdicts(&bench.publish(vec![coupon("more")])), Some(&[refused][..]));
    for offset in 1..=10 {
        bench.tell(Input::Ask { ticket: 3, ask: Ask::Recall { offset } });
        bench.sync();
    }
    bench.publish((0..11).map(|n| coupon(&n.to_string())).collect());
    let outputs = bench.sync();
    let results = verdicts(&outputs).unwrap();
    assert!(results[..10].iter().all(|verdict| matches!(verdict, Verdict::Durable { .. })), "{results:?}");
    assert_eq!(results[10], refused);
}

#[test]
fn recalls_past_their_bound_take_places_again_and_are_never_refused() {
    let mut bench = Bench::ready();
    let mut alive = 0;
    for _ in 0..3 {
        let outputs = bench.publish((0..STREAM_MESSAGES_MAX).map(|n| coupon(&n.to_string())).collect());
        if let Some(refused) = verdicts(&outputs) {
            assert!(refused.iter().all(|v| *v == Verdict::Unavailable(Unavailable::StreamFull)));
            break;
        }
        let outputs = bench.sync();
        let offsets = verdicts(&outputs).unwrap().iter().filter_map(|verdict| match verdict {
            Verdict::Durable { offset } => Some(*offset),
            _ => None,
        });
        for offset in offsets.collect::<Vec<_>>() {
            bench.tell(Input::Ask { ticket: 3, ask: Ask::Recall { offset } });
            bench.sync();
            alive += 1;
        }
    }
    assert_eq!(alive, STREAM_RECALLS_MAX + STREAM_MESSAGES_MAX, "the recalls themselves");
}

#[test]
fn the_end_of_a_stream_is_told_after_the_store_has_forgotten_it() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    bench.sync();
    let outputs = bench.tell(Input::Ask { ticket: 3, ask: Ask::EndStream });
    assert!(matches!(outputs[..], [Output::Closed]), "{outputs:?}");
    let Some(Output::Forget { life }) = bench.asked.pop() else { panic!("{:?}", bench.asked) };
    assert!(bench.room.awaits(life));
    let outputs = bench.tell(Input::Forgotten { life, existed: true });
    let [Output::Told { ticket: 3, told: Told::StreamEnded(Ok(view)) }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(view.members, 1);
    assert!(!bench.room.waits_for_store());
}
