//! Facts about places on other nodes, and about a room whose home is in doubt, or another one.

use super::*;
use crate::limits::SHARDS_MAX;
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
    say(&mut bench, NODE, SegmentSaid::Taken { batches: 1, cost: None });
    assert_eq!((bench.room.members(), bench.receipt(1).unwrap().pending), (3, 3));
    bench.tell(Input::PlaceLost { place: NODE });
    let receipt = bench.receipt(1).unwrap();
    assert_eq!((bench.room.members(), receipt.online, receipt.left, receipt.pending), (1, 3, 2, 1));
    for left in [named, unnamed] {
        say(&mut bench, NODE, SegmentSaid::Left(left));
    }
    say(&mut bench, NODE, SegmentSaid::Taken { batches: 3, cost: None });
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
    for _ in 0..crate::limits::SEGMENT_QUEUED_MAX {
        bench.publish(coupon());
        bench.sync();
        // Early flushes keep a distance.
        bench.wait(Duration::from_secs(1));
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
