//! Facts about places on other nodes, and about a room whose home is in doubt, or another one.

use super::*;
use crate::limits::{NODE_BATCH_AGE_MIN, NODE_HOLD_AGE_MAX, SEGMENT_QUEUED_MAX, SHARDS_MAX};
use crate::room::message::Homeless;

/// The place of another node.
const NODE: usize = SHARDS_MAX + 3;

fn coupon() -> Vec<Message> {
    let policy = TypePolicy { urgent: true, ..TypePolicy::of(Class::Reliable) };
    vec![Message { policy, ttl: policy.ttl, ..sample("coupon", "1") }]
}

/// A member at a place, with its departure.
fn join_at(bench: &mut Bench, place: usize, device: u64) -> Departure {
    let Input::Segment { said, .. } = named(device, None) else { panic!("a join") };
    let outputs = bench.tell(Input::Segment { shard: place, said });
    let stands = outputs.iter().find_map(|output| match output {
        Output::Welcomed(welcomed) => welcomed.stands,
        _ => None,
    });
    let Stands { counts_from, device, .. } = stands.expect("the stream is known");
    let epoch = bench.room.epoch();
    Departure { encoding: Encoding::Json, epoch, acked: 0, counts_from, device }
}

fn say(bench: &mut Bench, place: usize, said: SegmentSaid) -> Vec<Output> {
    bench.tell(Input::Segment { shard: place, said })
}

#[test]
fn the_members_of_a_lost_place_count_as_gone_and_words_about_them_change_nothing() {
    let mut bench = Bench::ready();
    let named = join_at(&mut bench, NODE, 77);
    let unnamed = join_at(&mut bench, NODE, 0);
    bench.publish(coupon());
    bench.sync();
    say(&mut bench, NODE, SegmentSaid::TakenThrough { seq: Seq(9), cost: None });
    assert_eq!((bench.room.members(), bench.receipt(1).unwrap().pending), (3, 3));
    bench.tell(Input::PlaceLost { place: NODE });
    let receipt = bench.receipt(1).unwrap();
    assert_eq!((bench.room.members(), receipt.online, receipt.left, receipt.pending), (1, 3, 2, 1));
    for left in [named, unnamed] {
        say(&mut bench, NODE, SegmentSaid::Left(left));
    }
    say(&mut bench, NODE, SegmentSaid::TakenThrough { seq: Seq(9), cost: None });
    assert_eq!((bench.room.members(), bench.tally.stale_words), (1, 3));
    assert_eq!(bench.receipt(1).unwrap(), receipt);
}

#[test]
fn a_departure_of_another_member_than_the_place_has_changes_nothing() {
    let mut bench = Bench::ready();
    let left = join_at(&mut bench, NODE, 77);
    for wrong in [Departure { device: 78, ..left }, Departure { counts_from: 9, ..left }] {
        say(&mut bench, NODE, SegmentSaid::Left(wrong));
    }
    assert_eq!((bench.room.members(), bench.tally.stale_words), (2, 2));
    say(&mut bench, NODE, SegmentSaid::Left(left));
    say(&mut bench, NODE, SegmentSaid::Left(left));
    assert_eq!((bench.room.members(), bench.tally.stale_words), (1, 3));
}

#[test]
fn a_place_that_is_lost_holds_up_no_batch() {
    let mut bench = Bench::ready();
    join_at(&mut bench, NODE, 77);
    for _ in 0..SEGMENT_QUEUED_MAX {
        bench.publish(coupon());
        bench.sync();
        // Early flushes keep a distance.
        bench.wait(Duration::from_millis(20));
    }
    assert!(!bench.room.may_cut());
    bench.tell(Input::PlaceLost { place: NODE });
    assert!(bench.room.may_cut());
}

fn is_batch(output: &Output) -> bool {
    matches!(output, Output::Batch { .. })
}

fn is_homeless(output: &Output) -> bool {
    let homeless = Published::Homeless(Homeless::NoHome);
    matches!(output, Output::Published { published, .. } if *published == homeless)
}

#[test]
fn a_frozen_room_cuts_nothing_and_goes_on_once_it_thaws() {
    let mut bench = Bench::ready();
    bench.publish(coupon());
    bench.tell(Input::Freeze(true));
    let outputs = bench.sync();
    assert!(matches!(outputs[..], [Output::Published { published: Published::Taken(_), .. }]), "{outputs:?}");
    assert!(is_homeless(&bench.publish(coupon())[0]));
    assert!(!bench.wait(Duration::from_secs(5)).iter().any(is_batch));
    assert!(bench.tell(Input::Freeze(false)).iter().any(is_batch));
}

#[test]
fn a_lost_room_answers_everybody_and_tells_no_member_of_an_end() {
    let mut bench = Bench::ready();
    bench.publish(coupon());
    let outputs = bench.tell(Input::Lost);
    let unknown = Published::Taken(vec![Verdict::Unavailable(Unavailable::StoreFailing)]);
    let [Output::Published { published, .. }, Output::Lost] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(*published, unknown);
    assert!(!bench.room.waits_for_store());
}

#[test]
fn a_room_lost_before_its_stream_is_loaded_gives_joins_back() {
    let mut bench = Bench::cold();
    bench.tell(join(1, None));
    bench.publish(coupon());
    let outputs = bench.tell(Input::Lost);
    let [Output::GaveBack { place: 0, join }, refused, Output::Lost] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(join.connection == 1 && is_homeless(refused));
}

/// Taken later, the join would be a member that nobody ever counts off.
#[test]
fn a_join_that_waits_for_the_stream_is_lost_with_its_place_and_others_are_not() {
    for said in [None, Some(SegmentSaid::Moved)] {
        let mut bench = Bench::cold();
        let Input::Segment { said: here, .. } = join(1, None) else { panic!("a join") };
        let Input::Segment { said: there, .. } = join(2, None) else { panic!("a join") };
        bench.tell(Input::Segment { shard: 0, said: here });
        say(&mut bench, NODE, there);
        assert!(bench.room.has_place(NODE));
        match said {
            None => bench.tell(Input::PlaceLost { place: NODE }),
            Some(moved) => say(&mut bench, NODE, moved),
        };
        assert!(!bench.room.has_place(NODE));
        let outputs = bench.load(None);
        let welcomed = outputs.iter().filter(|output| matches!(output, Output::Welcomed(_))).count();
        assert_eq!((welcomed, bench.room.members(), bench.tally.stale_words), (1, 1, 0), "{outputs:?}");
    }
}

/// A room of 50 members here that cost nothing, one member at `NODE`, and a batch that it was sent.
fn with_late_node() -> Bench {
    let mut bench = Bench::ready();
    join_at(&mut bench, NODE, 77);
    for _ in 0..SEGMENT_QUEUED_MAX {
        bench.publish(coupon());
        bench.sync();
        bench.wait(Duration::from_millis(20));
    }
    assert!(!bench.room.may_cut());
    bench
}

fn gaps(outputs: &[Output]) -> Vec<(usize, Seq)> {
    let gap =
        |output: &Output| if let Output::Gap { place, seq } = output { Some((*place, *seq)) } else { None };
    outputs.iter().filter_map(gap).collect()
}

#[test]
fn a_node_that_takes_no_batch_into_a_pass_holds_a_room_for_a_quarter_second_and_no_longer() {
    let mut bench = with_late_node();
    let begun = bench.now.instant - Duration::from_millis(20 * SEGMENT_QUEUED_MAX as u64);
    bench.publish(coupon());
    assert!(!bench.sync().iter().any(is_batch));
    assert_eq!(bench.room.poll_deadline(), Some(begun + NODE_HOLD_AGE_MAX));
    let outputs = bench.wait(NODE_HOLD_AGE_MAX);
    assert!(outputs.iter().any(is_batch) && gaps(&outputs).is_empty(), "{outputs:?}");
    // The room awaits a word of the batches all the same.
    assert_eq!(gaps(&bench.wait(NODE_BATCH_AGE_MIN)), [(NODE, Seq(4))]);
    // Nothing more is awaited of the node until it is level.
    goes_on(&mut bench, 3 * SEGMENT_QUEUED_MAX);
    say(&mut bench, NODE, SegmentSaid::TakenThrough { seq: Seq(4), cost: None });
    goes_on(&mut bench, 3 * SEGMENT_QUEUED_MAX);
    let seq = newest(&bench);
    say(&mut bench, NODE, SegmentSaid::TakenThrough { seq, cost: None });
    goes_on(&mut bench, SEGMENT_QUEUED_MAX - 1);
    assert_eq!(bench.room.segments.batches_left(), 1, "the node sets the pace again");
}

/// Cuts so many batches, none of them late.
fn goes_on(bench: &mut Bench, batches: usize) {
    for _ in 0..batches {
        bench.publish(coupon());
        bench.sync();
        let outputs = bench.wait(Duration::from_millis(20));
        assert!(gaps(&outputs).is_empty() && bench.room.may_cut() && bench.room.gathered() == 0);
    }
}

fn newest(bench: &Bench) -> Seq {
    bench.room.state.seq
}

/// One batch was cut for each that the link gave up: a stuck node had all others wait for 60 ms a batch.
#[test]
fn a_node_whose_link_gives_up_a_batch_holds_no_batch_until_it_is_level() {
    let mut bench = with_late_node();
    bench.tell(Input::Lapsed { place: NODE, seq: Seq(1) });
    goes_on(&mut bench, 3 * SEGMENT_QUEUED_MAX);
    // A slow link: the node takes batches, each long after its cut.
    for behind in [12, 4, 2] {
        let seq = Seq(newest(&bench).0 - behind);
        say(&mut bench, NODE, SegmentSaid::TakenThrough { seq, cost: None });
        goes_on(&mut bench, 3 * SEGMENT_QUEUED_MAX);
    }
    let seq = Seq(newest(&bench).0 - 1);
    say(&mut bench, NODE, SegmentSaid::TakenThrough { seq, cost: None });
    goes_on(&mut bench, SEGMENT_QUEUED_MAX - 1);
    assert_eq!(bench.room.segments.batches_left(), 1, "the node sets the pace again");
}

/// The home cut faster than the node took batches, by a batch for each lapse.
#[test]
fn a_batch_that_lapsed_and_is_taken_all_the_same_counts_once() {
    let mut bench = with_late_node();
    bench.tell(Input::Lapsed { place: NODE, seq: Seq(2) });
    for stale in [0, 1] {
        say(&mut bench, NODE, SegmentSaid::TakenThrough { seq: Seq(2), cost: None });
        assert_eq!(bench.tally.stale_words, stale, "the first batch was awaited");
    }
}
