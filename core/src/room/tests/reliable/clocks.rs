//! Facts about time: a message lives by the monotonic clock, and nothing expired is sent on any path.

use super::*;

const HOUR_MS: u64 = 3_600_000;

impl Bench {
    /// The wall clock steps. The monotonic clock goes on.
    fn step_the_wall_clock(&mut self, unix_ms: u64) {
        self.now = Now { unix_ms, ..self.now };
    }

    /// The payloads in a welcome for a device without anything.
    fn welcomed(&mut self) -> Vec<String> {
        let opening = self.room.snapshot(Seq(0), Some(0), self.now).stream.unwrap();
        payloads(&opening.carried.messages)
    }
}

fn payloads(messages: &[Arc<Message>]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.payload.bytes().to_vec()).unwrap()).collect()
}

fn short(payload: &str) -> Message {
    Message { ttl: Duration::from_secs(1), ..coupon(payload) }
}

#[test]
fn a_step_of_the_wall_clock_kills_no_message_and_frees_no_id() {
    let mut bench = Bench::ready();
    bench.publish(vec![with_id("a", coupon("1")), short("2")]);
    bench.sync();
    for unix_ms in [bench.now.unix_ms + HOUR_MS, bench.now.unix_ms - HOUR_MS] {
        bench.step_the_wall_clock(unix_ms);
        bench.wait(Duration::from_millis(100));
        assert_eq!(bench.welcomed(), ["1", "2"]);
        let again = bench.publish(vec![with_id("a", coupon("1"))]);
        assert_eq!(verdicts(&again), Some(&[Verdict::Duplicate { offset: Some(1) }][..]));
        assert!(bench.receipt(1).is_ok_and(|receipt| !receipt.expired));
    }
}

#[test]
fn a_wall_clock_that_went_back_keeps_no_message_and_no_id_alive() {
    let mut bench = Bench::ready();
    bench.publish(vec![with_id("a", coupon("1"))]);
    bench.sync();
    bench.step_the_wall_clock(bench.now.unix_ms - 24 * HOUR_MS);
    bench.wait(Duration::from_secs(600));
    assert!(bench.welcomed().is_empty());
    bench.publish(vec![with_id("a", coupon("1"))]);
    assert_eq!(verdicts(&bench.sync()), Some(&[Verdict::Durable { offset: 2 }][..]));
}

#[test]
fn a_recall_lives_as_long_as_its_message_would_have_whatever_the_wall_clock_does() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.wait(Duration::from_secs(100));
    bench.step_the_wall_clock(bench.now.unix_ms + HOUR_MS);
    bench.tell(Input::Ask { ticket: 5, ask: Ask::Recall { offset: 1 } });
    let Some(Output::Append { messages, .. }) = bench.asked.first() else { panic!("an append") };
    assert_eq!(messages[0].ttl, Duration::from_secs(500));
}

#[test]
fn a_message_that_its_row_says_is_recalled_stays_dead_without_the_recall() {
    let mut bench = Bench::cold();
    bench.tell(join(1, None));
    let coupons = [1, 2].map(|offset| {
        let at_ms = bench.now.unix_ms;
        Arc::new(Message { offset, at_ms, ..coupon(&offset.to_string()) })
    });
    // The recall had offset 3, and its row was damaged.
    let mut stored = stored(&bench, Epoch(5), 3, coupons.to_vec());
    stored.as_mut().unwrap().records[0].recalled_by = 3;
    bench.load(stored);
    assert_eq!(bench.welcomed(), ["2"]);
    assert_eq!(bench.receipt(1).unwrap().recalled_by, Some(3));
}

#[test]
fn what_expires_before_its_sync_is_durable_and_never_sent() {
    let mut bench = Bench::ready();
    bench.publish(vec![short("late"), sample("chat", "in time")]);
    bench.now = bench.now.later(Duration::from_secs(1));
    let outputs = bench.sync();
    assert_eq!(verdicts(&outputs), Some(&[Verdict::Durable { offset: 1 }, Verdict::Accepted][..]));
    let mut left = sent(&outputs);
    left.extend(sent(&bench.wait(Duration::from_millis(200))));
    assert!(left.contains(&"in time".to_owned()) && !left.contains(&"late".to_owned()), "{left:?}");
    let receipt = bench.receipt(1).unwrap();
    assert_eq!((receipt.expired, receipt.online, receipt.acknowledged), (true, 0, 0));
    assert_eq!(bench.tally.shed[ShedReason::Expired as usize].0[Class::Reliable as usize], 1);
    bench.publish(vec![coupon("3")]);
    assert_eq!(spans(&bench.sync()), [(0, 2)], "the next part of the stream has a hole");
}

#[test]
fn what_turns_out_durable_after_its_expiry_is_not_sent() {
    let mut bench = Bench::ready();
    bench.publish(vec![short("1")]);
    let (_, messages) = bench.fail();
    bench.wait(STORE_RETRY);
    let epoch = bench.room.epoch().unwrap();
    let outputs = bench.load(stored(&bench, epoch, 1, messages));
    assert!(sent(&outputs).is_empty(), "{outputs:?}");
}

#[test]
fn nothing_expired_is_in_a_refresh_a_carry_a_pull_or_a_welcome() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1"), short("2")]);
    bench.sync();
    let deaths = bench.room.deaths();
    bench.now = bench.now.later(Duration::from_secs(1));
    let want = RefreshWant { encoding: Encoding::Json, since: Seq(0), sent: 0, small: false, latest: None };
    let refreshed = bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Refresh(want) });
    let [Output::Refreshed { refresh: Some(refresh), .. }] = &refreshed[..] else { panic!("{refreshed:?}") };
    assert_eq!(payloads(&refresh.carried.as_ref().unwrap().messages), ["1"]);
    assert_eq!(bench.room.deaths(), deaths + 1, "a shared welcome is encoded anew");
    let want = CarryWant { encoding: Encoding::Json, reach: Reach { after: 0, through: 2 } };
    let carried = bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Carry(want) });
    let [Output::Carried { carried: Some(carried), .. }] = &carried[..] else { panic!("{carried:?}") };
    assert_eq!(payloads(&carried.messages), ["1"]);
    let pulled = bench.tell(Input::Ask { ticket: 3, ask: Ask::Pull { after: None } });
    let [Output::Told { told: Told::Pulled(Ok((opening, _))), .. }] = &pulled[..] else {
        panic!("{pulled:?}")
    };
    assert_eq!(payloads(&opening.carried.messages), ["1"]);
    assert_eq!(bench.welcomed(), ["1"]);
}

#[test]
fn a_message_that_expires_while_its_page_is_read_is_not_in_the_page() {
    let mut bench = Bench::ready();
    bench.publish((1..=TAIL_MESSAGES_MAX + 10).map(|n| short(&n.to_string())).collect());
    let Some(Output::Append { messages, .. }) = bench.asked.first() else { panic!("an append") };
    let messages = messages.clone();
    bench.sync();
    let want = RefreshWant { encoding: Encoding::Json, since: Seq(0), sent: 0, small: false, latest: None };
    bench.tell(Input::Segment { shard: 0, said: SegmentSaid::Refresh(want) });
    let Output::Page { life, after, .. } = bench.asked.remove(0) else { panic!("a page") };
    bench.now = bench.now.later(Duration::from_secs(1));
    let page = Page { messages: messages[..5].to_vec(), through: 5 };
    let outputs = bench.tell(Input::Paged { life, after, page });
    let [Output::Refreshed { refresh: Some(refresh), .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(refresh.carried.as_ref().is_none_or(|carried| carried.messages.is_empty()));
}

#[test]
fn an_append_tells_what_recreates_a_forgotten_entry() {
    let mut bench = Bench::ready();
    for (offset, durable) in [(1, 0), (2, 1), (3, 2)] {
        bench.publish(vec![coupon("1")]);
        let Some(Output::Append { durable: told, messages, accepted, .. }) = bench.asked.first() else {
            panic!("an append")
        };
        assert_eq!((messages[0].offset, *told, *accepted), (offset, durable, bench.now.instant));
        bench.sync();
    }
}
