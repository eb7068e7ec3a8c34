//! Facts of the hand-overs, and seeds of two homes over one log.

use std::time::Duration;

use super::*;
use crate::cluster::OwnNode;
use crate::cluster::node::NodeName;
use crate::now::Now;

const TO: NodeKey = NodeKey(7);
const TERM: Term = Term { generation: 0, sequence: 8 };
const MS: Duration = Duration::from_millis(1);

fn words(giving: &mut HandOvers) -> Vec<HandOverWord> {
    std::iter::from_fn(|| giving.poll_word()).collect()
}

/// A hand-over of a slot that both shards have packed.
fn offered(now: Instant) -> HandOvers {
    let mut giving = HandOvers::new(2, now);
    giving.begin(Slot(3), TO, TERM, now);
    giving.packed(Slot(3), 1, 0, true, now);
    assert_eq!(words(&mut giving), [HandOverWord::Pack { slot: Slot(3), to: TO, attempt: 1 }]);
    giving.packed(Slot(3), 1, 1, true, now);
    assert_eq!(words(&mut giving), [HandOverWord::Offer { slot: Slot(3), to: TO, attempt: 1, term: TERM }]);
    giving
}

fn standing(home: SlotHome, sequence: u64) -> SlotStanding {
    SlotStanding { home, term: Term { generation: 0, sequence } }
}

#[test]
fn a_slot_is_offered_once_each_shard_has_said_its_rooms_and_given_with_the_claim_of_the_next_home() {
    let now = Now::made_up().instant;
    let mut giving = offered(now);
    assert!(giving.stands(Slot(3), standing(SlotHome::There(TO), 9), now));
    giving.due(now + HAND_OVER_AGE_MAX);
    assert_eq!(words(&mut giving), [HandOverWord::End { slot: Slot(3), is_given: true }]);
    assert!(giving.may_begin(Slot(3), now));
}

#[test]
fn a_few_slots_are_on_their_way_at_the_same_time() {
    let now = Now::made_up().instant;
    let mut giving = HandOvers::new(1, now);
    for slot in 0..4 {
        assert!(giving.may_begin(Slot(slot), now) && giving.has_place());
        giving.begin(Slot(slot), TO, TERM, now);
        assert!(!giving.may_begin(Slot(slot), now));
    }
    assert!(!giving.has_place() && !giving.may_begin(Slot(9), now));
}

#[test]
fn a_look_for_balance_comes_once_in_an_interval_also_while_no_further_slot_may_go() {
    let now = Now::made_up().instant;
    let own = OwnNode {
        name: NodeName::parse("node-1").unwrap(),
        incarnation: 1,
        shards: 1,
        dead_after: Duration::from_secs(2),
    };
    let mut view = View::new(own, now);
    let mut giving = HandOvers::new(1, now);
    for slot in 0..4 {
        giving.begin(Slot(slot), TO, TERM, now);
        giving.packed(Slot(slot), u64::from(slot) + 1, 0, true, now);
    }
    // The log does not answer the claims by which these would end.
    let late = now + BALANCE_INTERVAL;
    giving.due(late);
    assert_eq!(giving.begin_next(&mut view, late), []);
    assert_eq!(giving.poll_deadline(), Some(late + BALANCE_INTERVAL));
}

#[test]
fn before_the_offer_a_late_hand_over_goes_on_at_once_and_rests() {
    let now = Now::made_up().instant;
    let mut giving = HandOvers::new(1, now);
    giving.begin(Slot(3), TO, TERM, now);
    giving.due(now + HAND_OVER_PACK_AGE_MAX - MS);
    assert_eq!(words(&mut giving).len(), 1);
    let late = now + HAND_OVER_PACK_AGE_MAX;
    giving.due(late);
    assert_eq!(words(&mut giving), [HandOverWord::Resume { slot: Slot(3) }]);
    giving.packed(Slot(3), 1, 0, true, now);
    assert_eq!(words(&mut giving), [], "a late word of a shard");
    assert!(!giving.may_begin(Slot(3), late) && giving.may_begin(Slot(3), late + HAND_OVER_RETRY));
}

#[test]
fn behind_the_offer_the_home_claims_by_itself_before_it_goes_on() {
    let now = Now::made_up().instant;
    let mut giving = offered(now);
    giving.due(now + HAND_OVER_AGE_MAX);
    assert_eq!(words(&mut giving), [HandOverWord::Reclaim { slot: Slot(3) }]);
    giving.declined(TO, Slot(3), 1, now);
    assert_eq!(words(&mut giving), [], "the log alone decides");
    assert!(!giving.stands(Slot(3), standing(SlotHome::Here, 9), now));
    assert_eq!(words(&mut giving), [HandOverWord::Resume { slot: Slot(3) }]);
}

#[test]
fn another_claim_ends_the_hand_over_and_it_is_given_to_nobody() {
    let now = Now::made_up().instant;
    let mut giving = offered(now);
    assert!(!giving.stands(Slot(3), standing(SlotHome::There(NodeKey(1)), 9), now));
    assert_eq!(words(&mut giving), [HandOverWord::End { slot: Slot(3), is_given: false }]);
}

#[test]
fn balance_gives_up_for_a_room_that_cannot_go_along_and_a_drain_goes_on_without_it() {
    let now = Now::made_up().instant;
    let mut giving = HandOvers::new(1, now);
    giving.begin(Slot(3), TO, TERM, now);
    giving.packed(Slot(3), 1, 0, false, now);
    assert_eq!(words(&mut giving).last(), Some(&HandOverWord::Resume { slot: Slot(3) }));
    assert!(
        !giving.may_begin(Slot(3), now + HAND_OVER_RETRY)
            && giving.may_begin(Slot(3), now + BALANCE_CALM_AGE)
    );
    giving.give_all();
    assert!(giving.may_begin(Slot(3), now));
    giving.begin(Slot(4), TO, TERM, now);
    giving.packed(Slot(4), 2, 0, false, now);
    let offer = HandOverWord::Offer { slot: Slot(4), to: TO, attempt: 2, term: TERM };
    assert_eq!(words(&mut giving).last(), Some(&offer));
}

#[test]
fn a_home_that_declines_leaves_the_slot_where_it_is() {
    let now = Now::made_up().instant;
    let mut giving = offered(now);
    giving.declined(NodeKey(1), Slot(3), 1, now);
    giving.declined(TO, Slot(3), 2, now);
    assert_eq!(words(&mut giving), [], "words about another offer");
    giving.declined(TO, Slot(3), 1, now);
    assert_eq!(words(&mut giving), [HandOverWord::Resume { slot: Slot(3) }]);
}

#[test]
fn a_lost_node_ends_its_hand_overs_as_silence_does() {
    let now = Now::made_up().instant;
    let mut giving = offered(now);
    giving.begin(Slot(4), TO, TERM, now);
    giving.begin(Slot(5), NodeKey(1), TERM, now);
    words(&mut giving);
    giving.lost(TO, now);
    let ended = [HandOverWord::Reclaim { slot: Slot(3) }, HandOverWord::Resume { slot: Slot(4) }];
    assert_eq!(words(&mut giving), ended);
}
