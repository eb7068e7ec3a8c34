//! Facts about a room that goes on at its next home, and about words that are none of a room.

use super::*;
use crate::limits::SHARDS_MAX;
use crate::room::Roll;
use crate::room::exchange::{Ask, Departure, Input, Join, RefreshWant, SegmentSaid, Told};
use crate::room::id::Cursor;
use crate::room::message::{Published, Unavailable, Verdict, sample};
use crate::room::stored::{Asked, Record, Stored};
use crate::room::tally::RoomTally;

/// The place of another node with members, and that of the next home.
const NODE: usize = SHARDS_MAX + 3;
const NEXT: usize = SHARDS_MAX + 4;
/// The life of the next home.
const OWN: u64 = u64::MAX;

/// A home of the room, and the log that both homes have in common.
struct Home {
    room: Room,
    now: Now,
    tally: RoomTally,
    stored: Stored,
    answers: Vec<Published>,
    told: Vec<Told>,
    batches: Vec<Seq>,
    is_adopted: bool,
    is_lost: bool,
    refreshes: usize,
}

impl Home {
    fn of(room: Room, stored: Stored, now: Now) -> Self {
        Self {
            room,
            now,
            tally: RoomTally::default(),
            stored,
            answers: Vec::new(),
            told: Vec::new(),
            batches: Vec::new(),
            is_adopted: false,
            is_lost: false,
            refreshes: 0,
        }
    }

    fn first() -> Self {
        let now = Now::made_up();
        let room = Room::new(RoomName::parse("r1").unwrap(), Run(7), RoomRules::default(), now.instant);
        let stored = Stored { epoch: Epoch(0), head: 0, records: Vec::new(), tail: Vec::new() };
        Self::of(room, stored, now)
    }

    fn tell(&mut self, input: Input) {
        self.room.handle(input, self.now, &mut self.tally);
        self.take_outputs();
    }

    /// Takes all outputs, and plays the store.
    fn take_outputs(&mut self) {
        while let Some(output) = self.room.poll_output() {
            let answer = match output {
                Output::Load { life, .. } => {
                    let stored = (self.stored.head > 0).then(|| self.stored.clone());
                    Some(Input::Loaded { life, stored })
                }
                Output::Append { life, epoch, messages, .. } => {
                    self.stored.epoch = epoch;
                    for message in messages {
                        self.stored.head = message.offset;
                        self.stored.records.push(Record::of(&message, self.now.instant));
                        self.stored.tail.push(message);
                    }
                    Some(Input::Durable { life, through: self.stored.head })
                }
                Output::Published { published, .. } => {
                    self.answers.push(published);
                    None
                }
                Output::Told { told, .. } => {
                    self.told.push(told);
                    None
                }
                Output::Batch { batch, .. } => {
                    self.batches.push(batch.seq);
                    None
                }
                Output::Refreshed { refresh, .. } => {
                    self.refreshes += usize::from(refresh.is_some());
                    None
                }
                Output::Adopted => {
                    self.is_adopted = true;
                    None
                }
                Output::Lost => {
                    self.is_lost = true;
                    None
                }
                _ => None,
            };
            if let Some(answer) = answer {
                self.room.handle(answer, self.now, &mut self.tally);
            }
        }
    }

    fn join(&mut self, place: usize, device: u64) {
        let join = Join {
            shard: 0,
            connection: device,
            join: 1,
            encoding: Encoding::Json,
            seen: None,
            cursor: None,
            device,
            moved: false,
        };
        self.tell(Input::Segment { shard: place, said: SegmentSaid::Join(join) });
    }

    fn publish(&mut self, message: Message) -> Verdict {
        self.tell(Input::Publish { ticket: 1, messages: vec![message] });
        self.tell(Input::Flush);
        match self.answers.pop() {
            Some(Published::Taken(verdicts)) => verdicts[0],
            other => panic!("{other:?}"),
        }
    }

    /// The batches that were cut are in passes.
    fn take_all(&mut self) {
        for place in [NODE, NEXT] {
            let said = SegmentSaid::TakenThrough { seq: self.room.seq(), cost: None };
            self.tell(Input::Segment { shard: place, said });
        }
    }

    fn receipt(&mut self, offset: u64) -> (u64, u64) {
        self.tell(Input::Ask { ticket: 1, ask: Ask::Receipt { offset } });
        match self.told.pop() {
            Some(Told::Receipt(Ok(receipt))) => (receipt.view.online, receipt.view.devices),
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self) {
        self.tell(Input::Flush);
        self.take_all();
        assert!(self.room.is_settled());
        self.tell(Input::Pause(true));
    }

    fn state(&mut self) -> pb::RoomState {
        self.settle();
        self.room.hand_over(|place| u64::try_from(place).ok(), 1, &RoomRules::default(), self.now).unwrap()
    }

    /// The room at its next home, where `NEXT` was the place of the members there, on one shard.
    fn next(&self, mut state: pb::RoomState, here: &[LocalSegment]) -> Self {
        for place in &mut state.places {
            if place.incarnation == NEXT as u64 {
                place.incarnation = OWN;
            }
        }
        let place = |place| usize::try_from(place).ok().filter(|place| *place == NODE);
        let room = Room::of_handed(state, place, OWN, here, RoomRules::default(), self.now).unwrap();
        let mut next = Self::of(room, self.stored.clone(), self.now);
        next.take_outputs();
        next
    }
}

fn of_class(class: Class, type_name: &str, payload: &str) -> Message {
    let policy = TypePolicy::of(class);
    Message { policy, ttl: policy.ttl, ..sample(type_name, payload) }
}

fn local(members: u32) -> LocalSegment {
    LocalSegment { shard: 1, census: Census([members, 0]), queued: 0 }
}

/// A room with two members on each of two nodes, some of each class of messages, and an id that was used.
fn lively() -> Home {
    let mut home = Home::first();
    for (place, device) in [(NODE, 11), (NODE, 0), (NEXT, 12), (NEXT, 0)] {
        home.join(place, device);
    }
    for n in 0..5 {
        home.publish(sample("chat", &n.to_string()));
        home.take_all();
    }
    let key = Key::parse("k").unwrap();
    home.publish(Message { key: Some(key), ..of_class(Class::Latest, "price", "7") });
    home.publish(Message { count: 3, ..of_class(Class::Counter, "like", "1") });
    home.take_all();
    let id = MessageId::parse("once").unwrap();
    home.publish(Message { id: Some(id), ..sample("chat", "\"with an id\"") });
    assert_eq!(home.publish(of_class(Class::Reliable, "coupon", "1")), Verdict::Durable { offset: 1 });
    home.take_all();
    home
}

#[test]
fn a_room_goes_on_in_the_same_run_at_the_next_seq_with_all_that_devices_were_shown() {
    let mut home = lively();
    let run = home.room.run();
    let seq = home.room.seq();
    let state = home.state();
    let shown = home.room.snapshot(Seq(0), Some(0), home.now);
    let mut next = home.next(state, &[local(2)]);
    assert!(next.is_adopted, "the stream is loaded");
    assert_eq!((next.room.run(), next.room.seq(), next.room.members()), (run, seq, 4));
    assert_eq!(next.room.local_members(), 2);
    let snapshot = next.room.snapshot(Seq(0), Some(0), next.now);
    let past = |snapshot: &crate::room::Snapshot| -> Vec<(Seq, Payload, u64)> {
        let past = snapshot.history.iter();
        past.map(|past| (past.seq, past.message.payload.clone(), past.message.at_ms)).collect()
    };
    assert_eq!(past(&snapshot), past(&shown));
    assert_eq!(snapshot.counters, shown.counters);
    assert_eq!(snapshot.latest.len(), shown.latest.len());
    let stream = |snapshot: &crate::room::Snapshot| {
        let stream = snapshot.stream.clone().unwrap();
        (stream.epoch, stream.offset, stream.carried.messages.len())
    };
    assert_eq!(stream(&snapshot), stream(&shown));
    next.publish(sample("chat", "6"));
    assert_eq!(next.batches, [seq.next()]);
}

#[test]
fn the_next_home_knows_the_used_ids_and_gives_no_offset_twice() {
    let mut home = lively();
    let state = home.state();
    let mut next = home.next(state, &[local(2)]);
    let id = MessageId::parse("once").unwrap();
    let again = Message { id: Some(id), ..sample("chat", "\"with an id\"") };
    assert_eq!(next.publish(again), Verdict::Duplicate { offset: None });
    assert_eq!(next.publish(of_class(Class::Reliable, "coupon", "2")), Verdict::Durable { offset: 2 });
}

#[test]
fn receipts_go_on_and_members_that_leave_are_counted_off() {
    let mut home = lively();
    let before = home.receipt(1);
    assert_eq!(before, (4, 2));
    let state = home.state();
    let mut next = home.next(state, &[local(2)]);
    assert_eq!(next.receipt(1), before);
    assert_eq!(next.publish(of_class(Class::Reliable, "coupon", "2")), Verdict::Durable { offset: 2 });
    assert_eq!(next.receipt(2), before);
    let epoch = next.room.epoch();
    let left = Departure { encoding: Encoding::Json, epoch, acked: 1, counts_from: 0, device: 11 };
    next.tell(Input::Segment { shard: NODE, said: SegmentSaid::Left(left) });
    next.tell(Input::Segment { shard: 1, said: SegmentSaid::Left(Departure { device: 0, ..left }) });
    assert_eq!((next.room.members(), next.tally.stale_words), (2, 0));
    next.tell(Input::PlaceLost { place: NODE });
    assert_eq!((next.room.members(), next.room.devices()), (1, 1));
}

#[test]
fn a_member_that_is_behind_gets_its_refresh_at_the_next_home() {
    let mut home = lively();
    let state = home.state();
    let mut next = home.next(state, &[local(2)]);
    let want = RefreshWant { encoding: Encoding::Json, since: Seq(2), sent: 0, small: false, latest: None };
    next.tell(Input::Segment { shard: NODE, said: SegmentSaid::Refresh(want) });
    assert_eq!(next.refreshes, 1);
}

#[test]
fn settings_and_the_account_of_a_room_go_along() {
    let mut home = lively();
    let name = TypeName::parse("chat").unwrap();
    let change = PolicyChange { weight: Some(9), rate: Some(None), ..PolicyChange::default() };
    let settings = RoomSettings {
        gather: Some(Duration::from_millis(250)),
        quotas_permille: [Some(1), Some(2), Some(3)],
        expected_audience: Some(99),
        idle_close: Some(Duration::from_secs(7_200)),
        types: vec![(name, change)],
        ..RoomSettings::default()
    };
    home.tell(Input::Configure(settings));
    let state = home.state();
    let next = home.next(state, &[local(2)]);
    let shown = |home: &Home| {
        let view = home.room.view(0, home.now.instant);
        serde_json::json!([view.rules, view.account, view.counters])
    };
    assert_eq!(shown(&next), shown(&home));
    assert_eq!(next.room.gathering.pace.rules, home.room.gathering.pace.rules);
    assert_eq!(next.room.limits.changes, home.room.limits.changes);
    assert_eq!(next.room.life.idle_close, home.room.life.idle_close);
    assert_eq!(next.room.expected_members(), 99);
}

#[test]
fn a_paused_room_cuts_nothing_refuses_publishes_and_goes_on_if_it_stays() {
    let mut home = lively();
    let seq = home.room.seq();
    home.settle();
    home.tell(Input::Publish { ticket: 1, messages: vec![sample("chat", "9")] });
    assert!(matches!(home.answers.pop(), Some(Published::Homeless(_))));
    home.now = home.now.later(Duration::from_secs(5));
    home.tell(Input::Due);
    assert_eq!((home.room.seq(), home.room.poll_deadline()), (seq, None));
    home.tell(Input::Pause(false));
    home.publish(sample("chat", "9"));
    assert!(home.room.seq() > seq);
}

#[test]
fn a_room_with_members_here_or_with_something_on_its_way_is_not_handed_over() {
    let mut home = lively();
    home.join(0, 5);
    home.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 9, cost: None } });
    home.settle();
    let said = home.room.hand_over(|place| u64::try_from(place).ok(), 1, &RoomRules::default(), home.now);
    assert_eq!(said, Err(NotHanded));
    let mut waiting = lively();
    waiting.tell(Input::Publish { ticket: 1, messages: vec![sample("chat", "waits")] });
    if waiting.room.gathered() > 0 {
        assert!(!waiting.room.is_settled());
    }
}

#[test]
fn members_of_the_home_itself_go_along_once_their_segment_has_told_them() {
    let mut home = lively();
    home.join(0, 21);
    home.join(0, 22);
    home.publish(sample("chat", "9"));
    home.take_all();
    assert!(!home.room.is_settled(), "the segment has not taken the batch");
    home.tell(Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 1, cost: None } });
    home.settle();
    let member =
        |device| Departure { encoding: Encoding::Json, epoch: None, acked: 0, counts_from: 1, device };
    let told = |home: &mut Home, devices: &[u64]| {
        let mut roll = Box::<Roll>::default();
        assert!(devices.iter().all(|device| roll.add(&member(*device))));
        home.tell(Input::Segment { shard: 0, said: SegmentSaid::Enrolled { attempt: 1, roll: Some(roll) } });
    };
    let said = |home: &mut Home| {
        let place = |place| u64::try_from(place).ok();
        let said = home.room.hand_over(place, 1, &RoomRules::default(), home.now);
        let of_home = |said: pb::RoomState| said.places.into_iter().find(|place| place.incarnation == 1);
        said.map(|said| {
            of_home(said).map(|place| place.members.iter().map(|it| it.device).collect::<Vec<_>>())
        })
    };
    assert_eq!(said(&mut home), Err(NotHanded), "nothing told");
    told(&mut home, &[21]);
    assert_eq!(said(&mut home), Err(NotHanded), "one of two");
    told(&mut home, &[21, 22]);
    assert_eq!(said(&mut home), Ok(Some(vec![21, 22])));
    home.tell(Input::Segment { shard: 0, said: SegmentSaid::Left(member(21)) });
    assert_eq!(said(&mut home), Ok(Some(vec![22])));
    home.tell(Input::Pause(false));
    home.join(0, 23);
    home.settle();
    assert_eq!(said(&mut home), Err(NotHanded), "a roll from before");
}

#[test]
fn members_without_a_place_at_the_next_home_are_counted_off() {
    let mut home = lively();
    let state = home.state();
    // The branch there has other members than the former home thinks.
    let next = home.next(state, &[local(1)]);
    assert_eq!((next.room.members(), next.room.local_members(), next.room.devices()), (2, 0, 1));
}

#[test]
fn a_room_whose_stream_does_not_come_begins_anew_and_what_waited_is_answered() {
    let mut home = lively();
    let state = home.state();
    let place = |place| usize::try_from(place).ok().filter(|place| *place == NODE);
    let room = Room::of_handed(state, place, OWN, &[], RoomRules::default(), home.now).unwrap();
    let mut next = Home::of(room, home.stored.clone(), home.now);
    let Some(Output::Load { life, .. }) = next.room.poll_output() else { panic!("a load") };
    next.tell(Input::Publish { ticket: 1, messages: vec![sample("chat", "waits")] });
    next.join(NODE, 77);
    assert!(next.answers.is_empty() && !next.is_adopted, "all wait for the stream");
    let reason = Unavailable::StoreFailing;
    next.tell(Input::StoreFailed { life, asked: Asked::Load, reason });
    assert!(next.is_lost && !next.is_adopted);
    assert!(matches!(next.answers[..], [Published::Homeless(_)]), "{:?}", next.answers);
}

#[test]
fn an_append_whose_outcome_nobody_knew_is_sent_by_the_next_home() {
    let mut home = lively();
    let state = home.state();
    let late = Message { offset: 2, ..of_class(Class::Reliable, "coupon", "late") };
    home.stored.head = 2;
    home.stored.records.push(Record::of(&late, home.now.instant));
    home.stored.tail.push(std::sync::Arc::new(late));
    let mut next = home.next(state, &[local(2)]);
    next.tell(Input::Flush);
    assert_eq!(next.batches.len(), 1);
    let cursor = Some(Cursor { epoch: next.room.epoch().unwrap(), offset: 1 });
    next.tell(Input::Ask { ticket: 1, ask: Ask::Pull { after: cursor } });
    let Some(Told::Pulled(Ok((opening, None)))) = next.told.pop() else { panic!("a page") };
    assert_eq!(opening.carried.messages.iter().map(|message| message.offset).collect::<Vec<_>>(), [2]);
}

#[test]
fn words_that_are_too_many_leave_out_the_past_first_and_a_larger_room_stays() {
    let mut home = lively();
    let state = home.state();
    let mut large = state.clone();
    let shown = large.shown.as_mut().unwrap();
    shown.history[0].payload = vec![b'1'; ROOM_STATE_BYTES_MAX].into();
    assert!(fit(&mut large));
    let shown = large.shown.as_ref().unwrap();
    assert_eq!((shown.history.len(), shown.whole_after, shown.account_floor), (0, state.seq, state.seq));
    let next = home.next(large, &[local(2)]);
    assert!(next.is_adopted);
    let mut larger = state;
    larger.shown.as_mut().unwrap().latest[0].payload = vec![b'1'; ROOM_STATE_BYTES_MAX].into();
    assert!(!fit(&mut larger));
}

#[test]
fn words_of_a_stranger_are_refused_or_make_a_room_and_never_panic() {
    let mut home = lively();
    let whole = home.state().encode_to_vec();
    let mut read = 0;
    let mut refused = 0;
    for seed in 0..4_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = whole.clone();
        if rng.u8(..4) == 0 {
            bytes.truncate(rng.usize(..bytes.len()));
        }
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
        let Ok(state) = pb::RoomState::decode(&bytes[..]) else { continue };
        let place =
            |place| usize::try_from(place).ok().filter(|place| (SHARDS_MAX..SHARDS_MAX + 9).contains(place));
        match Room::of_handed(state, place, OWN, &[], RoomRules::default(), home.now) {
            Ok(room) => {
                read += 1;
                let mut next = Home::of(room, home.stored.clone(), home.now);
                next.take_outputs();
                next.tell(Input::Publish { ticket: 1, messages: vec![sample("chat", "1")] });
                next.tell(Input::PlaceLost { place: NODE });
                next.tell(Input::Flush);
            }
            Err(NotHanded) => refused += 1,
        }
    }
    assert!(read > 100 && refused > 300, "{read} read, {refused} refused");
}
