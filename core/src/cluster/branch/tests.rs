//! Facts of a branch: words of segments to the home, and words of the home to segments.

use super::*;
use crate::limits::{BRANCH_PAUSED_AGE_MAX, BRANCH_PAUSED_WORDS_MAX};
use crate::now::Now;
use crate::room::LocalSegment;

const HOME: NodeKey = NodeKey(7);
const OTHER: NodeKey = NodeKey(8);
const RUN: Run = Run(70);

fn join(shard: u16, connection: u64, moved: bool) -> Join {
    let encoding = Encoding::Json;
    Join { shard, connection, join: 1, encoding, seen: None, cursor: None, device: 0, moved }
}

/// The names of a join in an answer of the home.
fn key(shard: u16, connection: u64, ticket: u32) -> JoinKey {
    JoinKey { shard, connection, join: ticket }
}

fn departure() -> Departure {
    Departure { encoding: Encoding::Json, epoch: None, acked: 0, counts_from: 0, device: 0 }
}

fn welcoming(shard: u16, connection: u64, ticket: u32) -> Welcoming {
    let departure = departure();
    Welcoming { key: key(shard, connection, ticket), epoch: None, encoding: Encoding::Json, departure }
}

/// Sends all joins.
fn send_joins(branch: &mut Branch) {
    while branch.sends_to().is_some() {
        branch.send_join(Now::made_up().instant);
    }
}

/// The own words of a branch, its joins among them, in short.
fn said(branch: &mut Branch) -> Vec<String> {
    send_joins(branch);
    std::iter::from_fn(|| branch.poll_said())
        .map(|said| match said {
            BranchSaid::ToHome { node, said, .. } => {
                let said = match said {
                    SegmentSaid::Join(join) => format!("join {}", join.connection),
                    SegmentSaid::TakenThrough { seq, cost } => match cost {
                        Some(cost) => format!("taken {} in {:?}", seq.0, cost.per_member),
                        None => format!("taken {}", seq.0),
                    },
                    other => format!("{other:?}").chars().take_while(|c| c.is_alphabetic()).collect(),
                };
                format!("{}: {said}", node.0)
            }
            BranchSaid::ToHere(join) => format!("here: join {}", join.connection),
            BranchSaid::GaveBack(join) => format!("back: join {}", join.connection),
            BranchSaid::Moved { shard, .. } => format!("moved {shard}"),
            BranchSaid::StreamChanged { shard, .. } => format!("changed {shard}"),
            BranchSaid::Gap { shard, seq, .. } => format!("gap {shard} {}", seq.0),
            BranchSaid::Refused(key) => format!("refused {}", key.connection),
        })
        .collect()
}

/// A branch with a member on each of two shards.
fn branch(now: Instant) -> Branch {
    let mut branch = Branch::default();
    for shard in [0, 1] {
        let at = usize::from(shard);
        branch.hear(at, None, SegmentSaid::Join(join(shard, at as u64, false)), SlotHome::There(HOME), now);
        send_joins(&mut branch);
        let welcome = welcoming(shard, at as u64, u32::from(shard) + 1);
        assert_eq!(branch.welcome(HOME, RUN, &welcome).unwrap().join, 1, "as its connection counts");
    }
    assert_eq!(said(&mut branch), ["7: join 0", "7: join 1"]);
    branch
}

fn hear(branch: &mut Branch, shard: usize, said: SegmentSaid) {
    branch.hear(shard, Some(RUN), said, SlotHome::There(HOME), Now::made_up().instant);
}

#[test]
fn a_batch_is_taken_once_all_segments_have_taken_it_at_the_cost_of_the_slowest() {
    let mut branch = branch(Now::made_up().instant);
    assert_eq!(branch.level(HOME, RUN, Seq(1)), [0, 1]);
    let cost = |ms| Some(WriteCost { per_member: Duration::from_millis(ms), stretch_permille: 1000 });
    hear(&mut branch, 0, SegmentSaid::Taken { batches: 1, cost: cost(8) });
    assert!(said(&mut branch).is_empty());
    hear(&mut branch, 1, SegmentSaid::Taken { batches: 1, cost: cost(2) });
    assert_eq!(said(&mut branch), ["7: taken 1 in 4ms"], "8 ms over two members");
    assert_eq!(branch.level(HOME, RUN, Seq(2)), [0, 1]);
    branch.lapsed(1, Seq(2));
    hear(&mut branch, 0, SegmentSaid::Taken { batches: 1, cost: None });
    assert_eq!(said(&mut branch), ["7: taken 2"]);
    hear(&mut branch, 0, SegmentSaid::Taken { batches: 1, cost: None });
    assert_eq!((said(&mut branch).len(), branch.take_stale()), (0, 1), "it was sent none");
}

#[test]
fn a_segment_with_a_full_queue_hears_of_a_gap_and_a_batch_for_nobody_is_taken_at_once() {
    let mut branch = branch(Now::made_up().instant);
    for seq in 1..=SEGMENT_QUEUED_MAX as u64 {
        assert_eq!(branch.level(HOME, RUN, Seq(seq)), [0, 1]);
        hear(&mut branch, 1, SegmentSaid::Taken { batches: 1, cost: None });
    }
    assert_eq!(branch.level(HOME, RUN, Seq(9)), [1]);
    hear(&mut branch, 0, SegmentSaid::Taken { batches: SEGMENT_QUEUED_MAX, cost: None });
    hear(&mut branch, 1, SegmentSaid::Taken { batches: 1, cost: None });
    assert_eq!(said(&mut branch), ["gap 0 9", "7: taken 4", "7: taken 9"]);
    for shard in [0, 1] {
        hear(&mut branch, shard, SegmentSaid::Left(departure()));
    }
    said(&mut branch);
    assert!(branch.level(HOME, RUN, Seq(10)).is_empty());
    assert_eq!(said(&mut branch), ["7: taken 10"]);
    assert!(branch.is_idle());
}

#[test]
fn equal_requests_are_asked_once_and_answered_to_each_shard() {
    let mut branch = branch(Now::made_up().instant);
    let want = RefreshWant { encoding: Encoding::Json, since: Seq(3), sent: 0, small: false, latest: None };
    for shard in [0, 1, 1] {
        hear(&mut branch, shard, SegmentSaid::Refresh(want));
    }
    assert_eq!(said(&mut branch), ["7: Refresh"]);
    assert_eq!(branch.refreshed(HOME, RUN, &want), [0, 1]);
    assert!(branch.refreshed(HOME, RUN, &want).is_empty(), "it is answered");
}

#[test]
fn after_a_reset_members_join_again_and_words_from_before_count_for_nothing() {
    let now = Now::made_up().instant;
    let mut branch = branch(now);
    branch.hear(0, None, SegmentSaid::Join(join(0, 5, false)), SlotHome::There(HOME), now);
    said(&mut branch);
    branch.reset(HOME, SlotHome::There(HOME));
    assert_eq!(said(&mut branch), ["moved 0", "moved 1", "7: join 5"]);
    // The same run goes on at the home.
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 5, 3)).is_none(), "the answer to the first sending");
    assert_eq!(said(&mut branch), ["7: Left"]);
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 5, 4)).is_some());
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    assert!(said(&mut branch).is_empty(), "the word is about the former life");
    hear(&mut branch, 0, SegmentSaid::Moved);
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    assert_eq!(said(&mut branch), ["7: Left"]);
}

#[test]
fn a_moved_home_is_left_with_a_word_and_joins_under_way_go_to_the_new_one() {
    let now = Now::made_up().instant;
    let mut branch = branch(now);
    branch.hear(0, None, SegmentSaid::Join(join(0, 5, false)), SlotHome::There(HOME), now);
    said(&mut branch);
    branch.follow(SlotHome::There(OTHER));
    assert_eq!(said(&mut branch), ["7: Moved", "moved 0", "moved 1", "8: join 5"]);
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 5, 3)).is_none(), "not the home any more");
    assert_eq!(said(&mut branch), ["7: Left"]);
    assert!(branch.refused(OTHER, key(0, 5, 4), true).is_none());
    branch.due(SlotHome::There(OTHER), now);
    assert_eq!(said(&mut branch), ["8: join 5"], "asked again");
    branch.follow(SlotHome::Here);
    assert_eq!(said(&mut branch), ["here: join 5"]);
}

#[test]
fn a_home_that_was_left_before_its_first_welcome_counts_off_the_member_and_its_batches() {
    let now = Now::made_up().instant;
    let mut branch = Branch::default();
    branch.hear(0, None, SegmentSaid::Join(join(0, 5, false)), SlotHome::There(HOME), now);
    send_joins(&mut branch);
    branch.follow(SlotHome::There(OTHER));
    assert_eq!(said(&mut branch), ["7: join 5", "8: join 5"], "no life of the room is known to be left");
    // The slot has come back to that home meanwhile, and the branch is the last to hear of it.
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 5, 1)).is_none());
    assert!(branch.level(HOME, RUN, Seq(1)).is_empty(), "a batch for that member");
    branch.follow(SlotHome::There(HOME));
    assert_eq!(said(&mut branch), ["7: Left", "7: taken 1", "7: join 5"]);
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 5, 3)).is_some());
}

#[test]
fn newcomers_are_refused_in_the_end_and_members_wait() {
    let now = Now::made_up().instant;
    let mut branch = Branch::default();
    branch.hear(0, None, SegmentSaid::Join(join(0, 1, false)), SlotHome::There(HOME), now);
    branch.hear(0, None, SegmentSaid::Join(join(0, 2, true)), SlotHome::There(HOME), now);
    assert_eq!(said(&mut branch), ["7: join 1", "7: join 2"]);
    branch.due(SlotHome::There(HOME), now + 2 * NO_HOME_AGE_MAX);
    assert_eq!(said(&mut branch), ["refused 1", "back: join 2"]);
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 1, 1)).is_none());
    assert_eq!(said(&mut branch), ["7: Left"], "the home counts it off again");
}

#[test]
fn joins_without_a_home_go_back_to_their_connections() {
    let now = Now::made_up().instant;
    let mut branch = Branch::default();
    for home in [SlotHome::Nobody, SlotHome::Frozen] {
        branch.hear(0, None, SegmentSaid::Join(join(0, 5, true)), home, now);
        assert_eq!(said(&mut branch), ["back: join 5"]);
        branch.hear(0, None, SegmentSaid::Join(join(0, 5, true)), SlotHome::There(HOME), now);
        assert_eq!(said(&mut branch), ["7: join 5"]);
        branch.follow(home);
        assert_eq!(
            (said(&mut branch), branch.has_joins()),
            (vec!["back: join 5".to_owned()], home == SlotHome::Nobody)
        );
    }
    branch.hear(0, None, SegmentSaid::Join(join(0, 6, true)), SlotHome::There(HOME), now);
    said(&mut branch);
    branch.reset(HOME, SlotHome::Nobody);
    assert_eq!((said(&mut branch), branch.is_idle()), (vec!["back: join 6".to_owned()], true));
}

#[test]
fn another_life_of_the_room_or_of_its_stream_is_told_before_its_first_welcome() {
    let now = Now::made_up().instant;
    let mut branch = branch(now);
    for connection in [5, 6] {
        branch.hear(0, None, SegmentSaid::Join(join(0, connection, false)), SlotHome::There(HOME), now);
    }
    said(&mut branch);
    assert!(branch.welcome(HOME, RUN, &Welcoming { epoch: Some(Epoch(1)), ..welcoming(0, 5, 3) }).is_some());
    assert_eq!(said(&mut branch), ["changed 0", "changed 1"]);
    assert!(branch.welcome(HOME, Run(71), &welcoming(0, 6, 4)).is_some());
    assert_eq!(said(&mut branch), ["moved 0", "moved 1"]);
    assert_eq!(branch.members(), 1);
}

#[test]
fn batches_that_pass_a_stuck_segment_are_reported_with_its_own() {
    let mut branch = branch(Now::made_up().instant);
    for seq in 1..=100 {
        let _shards = branch.level(HOME, RUN, Seq(seq));
        hear(&mut branch, 1, SegmentSaid::Taken { batches: 1, cost: None });
        assert!(branch.batches.len() <= SEGMENT_QUEUED_MAX, "{}", branch.batches.len());
    }
    assert_eq!(said(&mut branch), [] as [&str; 0], "one gap for all, once the segment goes on");
    hear(&mut branch, 0, SegmentSaid::Taken { batches: SEGMENT_QUEUED_MAX, cost: None });
    assert_eq!(said(&mut branch), ["gap 0 100", "7: taken 100"]);
}

#[test]
fn a_join_whose_answer_is_lost_gives_its_place_back_and_goes_back_to_its_connection() {
    let now = Now::made_up().instant;
    let mut branch = Branch::default();
    branch.hear(0, None, SegmentSaid::Join(join(0, 5, true)), SlotHome::There(HOME), now);
    branch.send_join(now);
    assert_eq!((said(&mut branch), branch.joins_sent()), (vec!["7: join 5".to_owned()], Some((HOME, 1))));
    branch.due(SlotHome::There(HOME), now + NODE_JOIN_AGE_MAX);
    assert_eq!((branch.joins_sent(), branch.sends_to()), (None, None));
    assert_eq!(said(&mut branch), ["back: join 5"]);
    branch.hear(0, None, SegmentSaid::Join(join(0, 5, true)), SlotHome::There(HOME), now);
    assert_eq!(said(&mut branch), ["7: join 5"]);
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 5, 1)).is_none(), "the answer to the first sending");
    assert!(branch.welcome(HOME, RUN, &welcoming(0, 5, 2)).is_some());
    assert!(!branch.has_joins());
}

/// A branch of [`branch`] that its home has paused.
fn paused(now: Instant) -> Branch {
    let mut branch = branch(now);
    assert_eq!(branch.level(HOME, RUN, Seq(4)), [0, 1]);
    for shard in [0, 1] {
        hear(&mut branch, shard, SegmentSaid::Taken { batches: 1, cost: None });
    }
    branch.pause(HOME, RUN, 1, now);
    assert_eq!(said(&mut branch), ["7: taken 4", "7: Paused"]);
    branch
}

fn want() -> RefreshWant {
    RefreshWant { encoding: Encoding::Json, since: Seq(3), sent: 0, small: false, latest: None }
}

#[test]
fn a_paused_branch_keeps_its_words_for_the_next_home_and_its_members_notice_nothing() {
    let now = Now::made_up().instant;
    let mut branch = paused(now);
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    hear(&mut branch, 1, SegmentSaid::Refresh(want()));
    branch.hear(1, None, SegmentSaid::Join(join(1, 5, false)), SlotHome::There(HOME), now);
    // The slot may be known to stand elsewhere before the next home has the room.
    branch.follow(SlotHome::There(OTHER));
    assert_eq!(said(&mut branch), [""; 0]);
    branch.adopted(OTHER, RUN, Seq(4));
    assert_eq!(said(&mut branch), ["8: Paused", "8: Left", "8: Refresh", "8: join 5"]);
    assert_eq!(branch.level(OTHER, RUN, Seq(5)), [1]);
    assert_eq!(branch.refreshed(OTHER, RUN, &want()), [1]);
    assert!(branch.level(HOME, RUN, Seq(6)).is_empty(), "nobody hears the former home");
}

#[test]
fn the_next_home_may_be_heard_before_its_claim_is_known() {
    let now = Now::made_up().instant;
    let mut branch = paused(now);
    branch.adopted(OTHER, RUN, Seq(6));
    assert_eq!(said(&mut branch), ["8: Paused", "gap 0 6", "gap 1 6"], "batches had lapsed");
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    branch.due(SlotHome::There(HOME), now);
    branch.follow(SlotHome::There(OTHER));
    assert_eq!(said(&mut branch), ["8: Left"]);
}

#[test]
fn a_home_that_goes_on_hears_the_kept_words() {
    let now = Now::made_up().instant;
    let mut branch = paused(now);
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    hear(&mut branch, 1, SegmentSaid::Refresh(want()));
    branch.hear(1, None, SegmentSaid::Join(join(1, 5, false)), SlotHome::There(HOME), now);
    branch.resumed(HOME, RUN);
    assert_eq!(said(&mut branch), ["7: Left", "7: Refresh", "7: join 5"]);
    assert_eq!(branch.level(HOME, RUN, Seq(5)), [1]);
}

#[test]
fn a_pause_without_a_next_home_ends_with_joins() {
    let now = Now::made_up().instant;
    let ends: [fn(&mut Branch, Instant); 4] = [
        |branch, now| branch.due(SlotHome::There(OTHER), now + BRANCH_PAUSED_AGE_MAX),
        |branch, _| branch.reset(HOME, SlotHome::There(OTHER)),
        |branch, _| branch.home_moved(OTHER, RUN),
        |branch, _| branch.follow(SlotHome::Here),
    ];
    for end in ends {
        let mut branch = paused(now);
        end(&mut branch, now);
        assert!(said(&mut branch).ends_with(&["moved 0".to_owned(), "moved 1".to_owned()]));
        // The next home comes late: it counts the members off.
        branch.adopted(OTHER, RUN, Seq(4));
        assert_eq!(said(&mut branch), ["8: Moved"]);
    }
}

#[test]
fn words_past_the_bound_of_a_pause_end_it() {
    let now = Now::made_up().instant;
    let mut branch = paused(now);
    let early = SegmentSaid::AckedEarly {
        epoch: None,
        early: crate::room::EarlyAck { reach: crate::room::Reach::default(), is_named: false },
    };
    let SegmentSaid::AckedEarly { epoch, early } = early else { unreachable!() };
    for _ in 0..BRANCH_PAUSED_WORDS_MAX {
        hear(&mut branch, 0, SegmentSaid::AckedEarly { epoch, early });
    }
    assert_eq!(said(&mut branch), [""; 0]);
    hear(&mut branch, 0, SegmentSaid::AckedEarly { epoch, early });
    assert_eq!(said(&mut branch), ["7: Moved", "moved 0", "moved 1"]);
}

#[test]
fn the_branch_of_the_next_home_hands_its_segments_in() {
    let now = Now::made_up().instant;
    let mut branch = branch(now);
    assert_eq!(branch.level(HOME, RUN, Seq(1)), [0, 1]);
    hear(&mut branch, 0, SegmentSaid::Taken { batches: 1, cost: None });
    branch.pause(HOME, RUN, 1, now);
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    hear(&mut branch, 1, SegmentSaid::Refresh(want()));
    branch.hear(1, None, SegmentSaid::Join(join(1, 5, false)), SlotHome::There(HOME), now);
    assert!(branch.hand_in(Run(71)).is_none(), "another life");
    let here = branch.hand_in(RUN).unwrap();
    let segment = |shard, queued| LocalSegment { shard, census: Census([1, 0]), queued };
    // The member on shard 0 has left behind the pause: its word comes with the others.
    assert_eq!(here.segments, [segment(0, 0), segment(1, 1)]);
    assert_eq!(here.seq, Seq(1));
    assert!(matches!(here.words[..], [(0, SegmentSaid::Left(_)), (1, SegmentSaid::Refresh(_))]));
    assert_eq!(here.joins.iter().map(|join| join.connection).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_pause_is_answered_by_a_branch_that_knows_nothing_of_the_room() {
    let mut branch = Branch::default();
    branch.pause(HOME, RUN, 1, Now::made_up().instant);
    assert_eq!(said(&mut branch), ["7: Paused"]);
    assert!(branch.is_idle() && !branch.is_paused());
}

/// The branch of a room of this node with a member on each of two shards, which is handed over to `OTHER`.
fn standing_in(now: Instant) -> Branch {
    let segments = vec![(0, Census([1, 0])), (1, Census([1, 0]))];
    let room = HandedOut { to: OTHER, run: RUN, epoch: None, seq: Seq(4), segments };
    Branch::standing_in(9, room, now)
}

#[test]
fn a_branch_that_stands_in_goes_to_the_next_home_and_its_members_notice_nothing() {
    let now = Now::made_up().instant;
    let mut branch = standing_in(now);
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    // The room is still here, whatever becomes of the right to order, and of the way to the next home.
    branch.follow(SlotHome::Frozen);
    branch.reset(OTHER, SlotHome::Here);
    branch.due(SlotHome::Here, now + BRANCH_PAUSED_AGE_MAX);
    assert!(branch.stands_in());
    assert_eq!(said(&mut branch), [""; 0]);
    branch.follow(SlotHome::There(OTHER));
    assert!(!branch.stands_in() && branch.is_paused());
    branch.adopted(OTHER, RUN, Seq(4));
    assert_eq!(said(&mut branch), ["8: Paused", "8: Left"]);
    assert_eq!(branch.level(OTHER, RUN, Seq(5)), [1]);
}

#[test]
fn a_room_that_goes_on_here_has_each_word_of_its_members_from_the_branch_that_stood_in() {
    let now = Now::made_up().instant;
    let mut branch = standing_in(now);
    let reach = crate::room::Reach::default();
    // More than have a place.
    for _ in 0..BRANCH_PAUSED_WORDS_MAX + 9 {
        let early = crate::room::EarlyAck { reach, is_named: false };
        hear(&mut branch, 0, SegmentSaid::AckedEarly { epoch: None, early });
    }
    // Past the bound, and the last members all the same.
    hear(&mut branch, 0, SegmentSaid::Left(departure()));
    hear(&mut branch, 1, SegmentSaid::Left(departure()));
    let here = branch.hand_in(RUN).unwrap();
    assert_eq!(here.words.len(), BRANCH_PAUSED_WORDS_MAX + 2);
    assert!(matches!(here.words.last(), Some((1, SegmentSaid::Left(_)))));
}

#[test]
fn the_members_of_a_branch_that_stood_in_join_again_if_the_room_goes_another_way() {
    let now = Now::made_up().instant;
    let mut branch = standing_in(now);
    branch.parted(Run(71));
    assert!(branch.stands_in(), "another life");
    branch.parted(RUN);
    assert_eq!(said(&mut branch), ["moved 0", "moved 1"]);
    let mut branch = standing_in(now);
    branch.follow(SlotHome::There(HOME));
    branch.due(SlotHome::There(HOME), now + BRANCH_PAUSED_AGE_MAX);
    assert_eq!(said(&mut branch), ["8: Moved", "moved 0", "moved 1"], "nobody has gone on with the room");
}
