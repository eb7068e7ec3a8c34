//! Facts of a slot's log, one by one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Bench, DAY, EPOCH, SECOND, SLOT, SimLog, append, claim, message, node, room};
use crate::store::jetstream::ops::{LogHeard, LogOp, LogOpKind};
use crate::store::jetstream::orders::{LogNews, LogOrder};
use crate::store::jetstream::record::{Content, LogRecord, LogRow};
use crate::store::row::Marks;
use crate::store::{Append, Asked, StoreAnswer, StoreError, StoreRequest, Stored};
use roomcast_core::cluster::Term;
use roomcast_core::cluster::node::NODE_VERSION;
use roomcast_core::limits::{
    LOG_APPEND_PATIENCE, LOG_CLAIM_PATIENCE_MAX, LOG_NEWER_PAUSE, LOG_RECORD_BYTES_MAX, LOG_RETRY_PAUSE,
    LOG_SLOT_BYTES_MAX, LOG_SLOT_REQUESTS_MAX,
};
use roomcast_core::room::message::Message;

const MINUTE: Duration = Duration::from_secs(60);

impl Bench {
    fn append(&mut self, append: Append) {
        self.request(StoreRequest::Append(append));
    }

    fn load(&mut self, name: &str) -> Option<Stored> {
        self.answers();
        self.request(StoreRequest::Load { room: room(name), life: 1, whole_after: 0 });
        match self.answers().pop() {
            Some(StoreAnswer::Loaded { stream, .. }) => stream,
            other => panic!("{other:?}"),
        }
    }

    /// Another node's entry, straight into the log.
    fn put(&mut self, term: Term, number: u64, content: Content) -> Term {
        self.put_in(1, term, number, content)
    }

    /// Such an entry in a version.
    fn put_in(&mut self, version: u8, term: Term, number: u64, content: Content) -> Term {
        let record = LogRecord { term, number, content };
        let op = LogOpKind::Append {
            expect: None,
            message_id: format!("other {number}"),
            ttl: DAY,
            rows: 0,
            entry: record.encode(SLOT, version),
        };
        match self.log.perform(&op, self.now) {
            LogHeard::Appended { sequence } => record.term_at(sequence),
            other => panic!("{other:?}"),
        }
    }

    /// The kinds and terms of everything that was appended.
    fn written(&self) -> Vec<LogRecord> {
        let parse = |(_, entry, _): &(u64, Bytes, _)| LogRecord::parse(SLOT, entry).unwrap();
        self.log.history.iter().map(parse).collect()
    }

    /// The operation that waits for its answer.
    fn unanswered(&mut self) -> LogOp {
        self.unanswered.pop().expect("an operation waits")
    }

    fn errors(&mut self) -> Vec<StoreError> {
        let error = |answer| match answer {
            StoreAnswer::Failed { error, .. } => error,
            other => panic!("{other:?}"),
        };
        self.answers().into_iter().map(error).collect()
    }
}

fn claimed(news: &[LogNews]) -> Vec<Term> {
    news.iter()
        .filter_map(|news| if let LogNews::Claimed { term, .. } = news { Some(*term) } else { None })
        .collect()
}

fn proven(sent: Instant) -> LogNews {
    LogNews::Proven { slot: SLOT, sent }
}

fn offsets(stream: Option<Stored>) -> Vec<u64> {
    stream.into_iter().flat_map(|stream| stream.records).map(|record| record.offset).collect()
}

fn durable(bench: &mut Bench) -> Vec<u64> {
    let through = |answer| match answer {
        StoreAnswer::Durable { through, .. } => through,
        other => panic!("{other:?}"),
    };
    bench.answers().into_iter().map(through).collect()
}

#[test]
fn a_machine_without_its_slot_fails_every_request_at_once() {
    let mut bench = Bench::new(u64::MAX);
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    bench.is_silent = true;
    bench.order(&claim(Term::default()));
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(bench.errors(), [StoreError::Failing; 2]);
}

#[test]
fn a_claim_without_an_answer_is_made_again_and_no_request_waits_for_it() {
    let mut bench = Bench::new(u64::MAX);
    bench.is_silent = true;
    bench.order(&claim(Term::default()));
    bench.wait(LOG_APPEND_PATIENCE * 3);
    let ids: Vec<_> = bench
        .unanswered
        .iter()
        .map(|op| match &op.kind {
            LogOpKind::Append { expect: None, message_id, .. } => message_id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 3, "the patience doubles with each try");
    assert!(ids.is_sorted_by(|a, b| a != b), "each try has an id of its own: {ids:?}");
    // An answer to a try that was given up is ignored.
    let first = bench.unanswered[0].id;
    bench.hear(first, LogHeard::Appended { sequence: 5 });
    assert!(bench.news.is_empty());
    bench.is_silent = false;
    bench.wait(LOG_CLAIM_PATIENCE_MAX);
    assert_eq!(claimed(&bench.news).len(), 1);
}

#[test]
fn a_read_that_ends_before_the_claim_goes_on() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    (1..=3).for_each(|offset| bench.append(append("a", 1, offset..=offset, now)));
    bench.order(&LogOrder::Release { slot: SLOT });
    bench.is_silent = true;
    bench.order(&claim(Term::default()));
    let op = bench.unanswered();
    let heard = bench.log.perform(&op.kind, now);
    bench.hear(op.id, heard);
    let op = bench.unanswered();
    let LogOpKind::Read { from: 1, through } = op.kind else { panic!("{op:?}") };
    let entries = bench.log.read(1, through - 2, now);
    bench.hear(op.id, LogHeard::Read { entries, done: true });
    assert_eq!(claimed(&bench.news), [], "the replica lags");
    bench.is_silent = false;
    bench.wait(LOG_RETRY_PAUSE);
    assert_eq!(claimed(&bench.news).len(), 1);
    assert_eq!(offsets(bench.load("a")), [1, 2, 3]);
}

#[test]
fn a_claim_that_is_not_above_every_term_heard_is_repeated_with_the_next_generation() {
    let mut bench = Bench::new(u64::MAX);
    bench.order(&claim(Term { generation: 4, sequence: 1000 }));
    bench.wait(LOG_RETRY_PAUSE);
    assert_eq!(claimed(&bench.news), [Term { generation: 5, sequence: 2 }]);
}

#[test]
fn a_claim_of_a_higher_generation_in_the_log_is_passed() {
    let mut bench = Bench::new(u64::MAX);
    let other = Content::Claim(node("b", 9));
    bench.put(Term { generation: 3, sequence: 0 }, 1, other);
    bench.order(&claim(Term::default()));
    bench.wait(LOG_RETRY_PAUSE);
    assert_eq!(claimed(&bench.news), [Term { generation: 3, sequence: 3 }]);
}

#[test]
fn a_later_claim_fences_the_home_and_names_the_other_node() {
    let mut bench = Bench::held(u64::MAX);
    let by = bench.put(Term::default(), 1, Content::Claim(node("b", 9)));
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(bench.errors(), [StoreError::Failing]);
    assert_eq!(bench.news, [LogNews::Fenced { slot: SLOT, by, node: "b".into() }]);
    bench.append(append("a", 2, 1..=1, now));
    assert_eq!(bench.errors(), [StoreError::Failing], "the slot is released");
}

#[test]
fn a_record_behind_a_later_claim_fences_too_without_a_name() {
    let mut bench = Bench::held(u64::MAX);
    let by = bench.put(Term::default(), 1, Content::Claim(node("b", 9)));
    bench.put(by, 2, Content::Forget(room("x")));
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(bench.news, [LogNews::Fenced { slot: SLOT, by, node: String::new() }]);
}

#[test]
fn a_record_of_a_later_version_fences_under_no_higher_term_than_its_home_has() {
    let mut bench = Bench::held(u64::MAX);
    let own = bench.written()[0].term_at(bench.log.history[0].0);
    let theirs = bench.put_in(NODE_VERSION + 1, Term::default(), 1, Content::Claim(node("b", 9)));
    bench.put_in(NODE_VERSION + 1, theirs, 2, Content::Forget(room("x")));
    bench.put_in(NODE_VERSION + 1, theirs, 3, Content::Forget(room("y")));
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(bench.errors(), [StoreError::Failing]);
    let [LogNews::Fenced { by, ref node, .. }] = bench.news[..] else { panic!("{:?}", bench.news) };
    // Above it this node would hear the home's own heartbeats no more.
    assert!(own < by && by <= theirs && node.is_empty(), "{own:?} < {by:?} <= {theirs:?}");
    assert_eq!(bench.log.history.len(), 4, "no claim ends the right of the other home");
}

#[test]
fn a_slot_whose_log_has_entries_of_a_later_version_is_not_held_and_claimed_again_after_a_pause() {
    let mut bench = Bench::new(u64::MAX);
    bench.put_in(NODE_VERSION + 1, Term::default(), 1, Content::Claim(node("b", 9)));
    bench.order(&claim(Term::default()));
    bench.wait(LOG_NEWER_PAUSE - SECOND);
    assert_eq!((bench.log.history.len(), bench.news.len()), (2, 0), "a claim, and no news of it");
    bench.wait(SECOND);
    assert_eq!((bench.log.history.len(), bench.news.len()), (3, 0));
    // Once they have expired, the slot is held.
    bench.wait(DAY);
    assert_eq!(claimed(&bench.news).len(), 1);
    assert_eq!(bench.machine.holdings().quarantined, 0, "no entry was damaged");
}

#[test]
fn a_home_that_meets_entries_of_a_later_version_has_lost_its_slot() {
    let mut bench = Bench::held(u64::MAX);
    bench.is_silent = true;
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    // The append is lost, and another node has the slot meanwhile.
    bench.put_in(NODE_VERSION + 1, Term::default(), 1, Content::Claim(node("b", 9)));
    bench.is_silent = false;
    bench.wait(LOG_APPEND_PATIENCE);
    let by = Term { generation: 0, sequence: 3 };
    assert_eq!(bench.news, [LogNews::Fenced { slot: SLOT, by, node: String::new() }]);
    assert_eq!(bench.errors(), [StoreError::Failing]);
    // An order is no reason to end the right of the next home at once.
    bench.order(&claim(by));
    bench.wait(LOG_NEWER_PAUSE - SECOND);
    assert_eq!(bench.log.history.len(), 3);
    bench.wait(SECOND);
    assert_eq!((bench.log.history.len(), bench.news.len()), (4, 1));
}

#[test]
fn new_entries_are_of_the_version_that_was_told() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.machine.write_version(NODE_VERSION + 1);
    bench.append(append("a", 1, 1..=1, now));
    bench.machine.write_version(1);
    bench.append(append("a", 1, 2..=2, now));
    let newer = |(_, entry, _): &(u64, Bytes, _)| LogRecord::is_newer(SLOT, entry);
    assert_eq!(bench.log.history.iter().map(newer).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn a_late_claim_of_this_node_is_followed_by_another_one() {
    let mut bench = Bench::held(u64::MAX);
    let late = bench.put(Term::default(), 1, Content::Claim(node("a", 1)));
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(bench.errors(), [StoreError::Failing]);
    assert!(claimed(&bench.news)[0] > late);
    bench.append(append("a", 2, 1..=1, now));
    assert_eq!(durable(&mut bench), [1]);
}

#[test]
fn a_refused_record_that_is_the_last_of_the_log_is_acknowledged() {
    let mut bench = Bench::held(u64::MAX);
    bench.is_silent = true;
    let now = bench.now;
    bench.append(append("a", 1, 1..=2, now));
    let op = bench.unanswered();
    // The first try of the client is in the log, and its second one is refused.
    bench.log.perform(&op.kind, now);
    bench.is_silent = false;
    bench.hear(op.id, LogHeard::Refused);
    assert_eq!(durable(&mut bench), [2]);
    bench.append(append("a", 1, 3..=3, now));
    assert_eq!((durable(&mut bench), bench.log.history.len()), (vec![3], 3));
}

#[test]
fn an_expired_last_record_is_no_fence() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    bench.wait(20 * MINUTE);
    let now = bench.now;
    bench.news.clear();
    bench.append(append("a", 1, 2..=2, now));
    assert_eq!(durable(&mut bench), [1, 2]);
    assert_eq!(claimed(&bench.news), [], "the home goes on under its term");
}

#[test]
fn an_append_without_an_answer_has_failed_and_is_found_by_the_next_load() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.is_silent = true;
    bench.append(append("a", 1, 1..=2, now));
    bench.append(append("a", 1, 3..=3, now));
    bench.append(append("b", 1, 1..=1, now));
    bench.request(StoreRequest::Load { room: room("b"), life: 1, whole_after: 0 });
    let op = bench.unanswered();
    bench.log.perform(&op.kind, now);
    bench.is_silent = false;
    bench.wait(LOG_APPEND_PATIENCE);
    // The append of the other room and its load have waited for the reopening.
    let answers = bench.answers();
    assert!(
        matches!(
            answers[..],
            [
                StoreAnswer::Failed { error: StoreError::Failing, .. },
                StoreAnswer::Failed { error: StoreError::Failing, .. },
                StoreAnswer::Durable { through: 1, .. },
                StoreAnswer::Loaded { .. },
            ]
        ),
        "{answers:?}"
    );
    assert_eq!(claimed(&bench.news), [Term { generation: 0, sequence: 3 }]);
    assert_eq!(offsets(bench.load("a")), [1, 2], "3 was never sent");
}

#[test]
fn a_claim_of_another_node_in_between_fences_before_the_slot_is_held_again() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.append(append("b", 1, 1..=1, now));
    assert_eq!(durable(&mut bench), [1]);
    bench.is_silent = true;
    bench.append(append("a", 1, 1..=1, now));
    bench.append(append("b", 1, 2..=2, now));
    bench.request(StoreRequest::Load { room: room("c"), life: 1, whole_after: 0 });
    // The append is lost, another node takes the slot and forgets a room, and falls silent.
    bench.put(Term { generation: 0, sequence: 0 }, 1, Content::Claim(node("c", 3)));
    let by = bench.put(Term::default(), 2, Content::Claim(node("b", 9)));
    bench.put(by, 3, Content::Forget(room("b")));
    bench.is_silent = false;
    bench.wait(LOG_APPEND_PATIENCE);
    let term = Term { generation: 0, sequence: by.sequence + 2 };
    let fenced = LogNews::Fenced { slot: SLOT, by, node: "b".into() };
    assert_eq!(bench.news, [fenced, LogNews::Claimed { slot: SLOT, term, behind: by }]);
    // The load of the room without a write was answered before.
    let answers = bench.answers();
    assert!(matches!(answers[0], StoreAnswer::Loaded { .. }), "{answers:?}");
    assert!(
        answers[1..].iter().all(|answer| matches!(
            answer,
            StoreAnswer::Failed { error: StoreError::Failing, asked: Asked::Append, .. }
        )) && answers.len() == 3,
        "{answers:?}"
    );
    assert_eq!(bench.load("b"), None);
}

#[test]
fn a_claim_of_another_node_before_the_own_term_fences_nobody() {
    let mut bench = Bench::new(u64::MAX);
    bench.put(Term::default(), 1, Content::Claim(node("b", 9)));
    bench.order(&claim(Term::default()));
    assert_eq!(claimed(&std::mem::take(&mut bench.news)).len(), 1);
    let now = bench.now;
    bench.is_silent = true;
    bench.append(append("a", 1, 1..=1, now));
    bench.is_silent = false;
    bench.wait(LOG_APPEND_PATIENCE);
    assert!(matches!(bench.news[..], [LogNews::Claimed { .. }]), "{:?}", bench.news);
}

#[test]
fn a_claim_names_the_last_other_claim_before_it_and_a_further_claim_tells_whether_one_came_between() {
    let mut bench = Bench::new(u64::MAX);
    let former = bench.put(Term::default(), 1, Content::Claim(node("b", 9)));
    bench.order(&claim(Term::default()));
    let first = claimed(&bench.news)[0];
    assert_eq!(bench.news, [LogNews::Claimed { slot: SLOT, term: first, behind: former }]);
    bench.news.clear();
    bench.order(&LogOrder::Reclaim { slot: SLOT });
    let second = Term { generation: 0, sequence: first.sequence + 1 };
    assert_eq!(bench.news, [LogNews::Claimed { slot: SLOT, term: second, behind: former }]);
    bench.news.clear();
    // The claim of another node lives shorter than its renewals.
    let by = bench.put(Term::default(), 5, Content::Claim(node("c", 3)));
    bench.put(by, 6, Content::Renewal(node("c", 3)));
    bench.order(&LogOrder::Reclaim { slot: SLOT });
    let term = Term { generation: 0, sequence: by.sequence + 2 };
    let fenced = LogNews::Fenced { slot: SLOT, by, node: "c".into() };
    assert_eq!(bench.news, [fenced, LogNews::Claimed { slot: SLOT, term, behind: by }]);
}

#[test]
fn a_claim_of_another_node_in_a_log_that_has_shrunk_fences_too() {
    let mut bench = Bench::new(u64::MAX);
    bench.log.gap = 1000;
    bench.order(&claim(Term::default()));
    bench.news.clear();
    let now = bench.now;
    bench.is_silent = true;
    bench.append(append("a", 1, 1..=1, now));
    bench.log = SimLog::default();
    let by = bench.put(Term::default(), 1, Content::Claim(node("b", 9)));
    bench.is_silent = false;
    bench.wait(LOG_APPEND_PATIENCE + SECOND);
    let fenced = LogNews::Fenced { slot: SLOT, by, node: "b".into() };
    let term = Term { generation: 1, sequence: 3 };
    assert_eq!(bench.news, [fenced, LogNews::Claimed { slot: SLOT, term, behind: by }]);
}

#[test]
fn a_long_silence_fails_what_waits_after_a_second_and_all_else_at_once() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.is_silent = true;
    bench.append(append("a", 1, 1..=1, now));
    bench.append(append("b", 1, 1..=1, now));
    bench.wait(LOG_APPEND_PATIENCE);
    assert_eq!(bench.errors().len(), 1, "only the one under way");
    bench.wait(LOG_APPEND_PATIENCE);
    assert_eq!(bench.errors().len(), 1);
    bench.append(append("c", 1, 1..=1, now));
    assert_eq!(bench.errors().len(), 1);
    bench.is_silent = false;
    bench.wait(LOG_CLAIM_PATIENCE_MAX);
    bench.append(append("c", 2, 1..=1, now));
    assert_eq!(durable(&mut bench), [1]);
}

#[test]
fn an_operation_without_an_answer_is_told_and_its_late_answer_matters_no_more() {
    let mut bench = Bench::held(u64::MAX);
    bench.is_silent = true;
    bench.append(append("a", 1, 1..=1, bench.now));
    for what in ["the append", "the claim behind it"] {
        let op = bench.unanswered();
        assert!(bench.machine.awaits(op.id), "{what}");
        let until = bench.machine.poll_deadline().unwrap();
        bench.now = bench.now.later(until.saturating_duration_since(bench.now.instant));
        assert!(bench.machine.due(bench.now), "{what}");
        bench.settle();
        assert!(!bench.machine.awaits(op.id), "{what}");
    }
    bench.wait(LOG_APPEND_PATIENCE);
    bench.is_silent = false;
    bench.wait(LOG_CLAIM_PATIENCE_MAX);
    assert!(!bench.machine.due(bench.now), "it is held, and nothing is under way");
}

#[test]
fn a_record_without_its_turn_fails_alone_and_the_slot_stays() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.is_in_line = true;
    bench.append(append("a", 1, 1..=1, now));
    bench.wait(LOG_APPEND_PATIENCE);
    assert_eq!(bench.errors(), [StoreError::Failing]);
    assert!(bench.unanswered.iter().all(|op| !bench.machine.awaits(op.id)), "it leaves no more");
    bench.is_in_line = false;
    bench.append(append("a", 2, 1..=1, now));
    assert_eq!(durable(&mut bench), [1]);
    assert_eq!(bench.news.len(), 1, "no claim: {:?}", bench.news);
}

#[test]
fn an_ordered_renewal_is_told_as_a_proof_and_appends_are_told_twice_a_second() {
    let mut bench = Bench::held(u64::MAX);
    bench.order(&LogOrder::Renew { slot: SLOT });
    assert_eq!(std::mem::take(&mut bench.news), [proven(bench.now.instant)]);
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(bench.news, []);
    bench.wait(SECOND / 2);
    bench.append(append("a", 1, 2..=2, now));
    bench.append(append("a", 1, 3..=3, now));
    assert_eq!(std::mem::take(&mut bench.news), [proven(bench.now.instant)]);
    bench.order(&LogOrder::Renew { slot: SLOT });
    assert_eq!(bench.news, [proven(bench.now.instant)]);
}

#[test]
fn a_proof_names_the_first_sending_of_its_append() {
    let mut bench = Bench::held(u64::MAX);
    let began = bench.now;
    bench.is_silent = true;
    bench.order(&LogOrder::Renew { slot: SLOT });
    let op = bench.unanswered();
    // The first try of the client is in the log, and its second one is refused.
    bench.log.perform(&op.kind, began);
    bench.wait(SECOND / 2);
    bench.order(&LogOrder::Renew { slot: SLOT });
    bench.hear(op.id, LogHeard::Refused);
    let op = bench.unanswered();
    let heard = bench.log.perform(&op.kind, bench.now);
    bench.hear(op.id, heard);
    assert_eq!(std::mem::take(&mut bench.news), [proven(began.instant)]);
    // The second order came while the append was under way, so another one follows.
    let op = bench.unanswered();
    let heard = bench.log.perform(&op.kind, bench.now);
    bench.hear(op.id, heard);
    assert_eq!(bench.news, [proven(bench.now.instant)]);
}

#[test]
fn an_append_says_its_messages() {
    let mut bench = Bench::new(u64::MAX);
    bench.is_silent = true;
    bench.order(&claim(Term::default()));
    let op = bench.unanswered();
    assert!(matches!(op.kind, LogOpKind::Append { rows: 0, .. }), "{op:?}");
    let mut bench = Bench::held(u64::MAX);
    bench.is_silent = true;
    let now = bench.now;
    bench.append(append("a", 1, 1..=3, now));
    bench.order(&LogOrder::Renew { slot: SLOT });
    let op = bench.unanswered();
    assert!(matches!(op.kind, LogOpKind::Append { rows: 3, .. }), "{op:?}");
    let heard = bench.log.perform(&op.kind, now);
    bench.hear(op.id, heard);
    let op = bench.unanswered();
    assert!(matches!(op.kind, LogOpKind::Append { rows: 0, .. }), "{op:?}");
}

#[test]
fn a_quiet_home_renews_its_claim_each_day() {
    let mut bench = Bench::held(u64::MAX);
    let before = bench.written().len();
    bench.wait(DAY * 30 + MINUTE);
    let renewals = bench.written().split_off(before);
    assert_eq!(renewals.len(), 30);
    assert!(renewals.iter().all(|record| record.content == Content::Renewal(node("a", 1))));
    let now = bench.now;
    bench.news.clear();
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!((durable(&mut bench), claimed(&bench.news)), (vec![1], vec![]));
}

#[test]
fn a_shard_has_a_bounded_part_of_a_slot() {
    let mut bench = Bench::held(u64::MAX);
    bench.is_silent = true;
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    for _ in 1..LOG_SLOT_REQUESTS_MAX {
        bench.request(StoreRequest::Load { room: room("a"), life: 1, whole_after: 0 });
    }
    assert_eq!(bench.errors(), []);
    bench.append(append("b", 1, 1..=1, now));
    bench.request(StoreRequest::Load { room: room("b"), life: 1, whole_after: 0 });
    assert_eq!(bench.errors(), [StoreError::Busy; 2]);
    bench.machine.request(1, StoreRequest::Load { room: room("b"), life: 1, whole_after: 0 }, now);
    assert!(matches!(bench.machine.poll_answer(), Some((1, StoreAnswer::Loaded { .. }))), "another shard");
    let mut bench = Bench::held(u64::MAX);
    bench.is_silent = true;
    let large = |offset| {
        let message =
            Message { wire_bytes: LOG_SLOT_BYTES_MAX, ..Message::clone(&message(offset, SECOND, b"")) };
        Append { messages: vec![Arc::new(message)], ..append("a", 1, 1..=1, now) }
    };
    bench.append(large(1));
    bench.append(large(2));
    assert_eq!(bench.errors(), [StoreError::Busy]);
}

#[test]
fn an_append_larger_than_a_record_is_durable_with_its_last_record() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    let payload = vec![7; 16 * 1024];
    let messages: Vec<_> = (1..=80).map(|offset| message(offset, MINUTE, &payload)).collect();
    bench.append(Append { messages, ..append("a", 1, 1..=1, now) });
    assert_eq!(durable(&mut bench), [80]);
    let sizes: Vec<_> = bench.log.history[1..].iter().map(|(_, entry, _)| entry.len()).collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|bytes| *bytes <= LOG_RECORD_BYTES_MAX), "{sizes:?}");
    assert_eq!(offsets(bench.load("a")).len(), 80);
}

#[test]
fn waiting_appends_leave_in_one_record_and_long_lives_in_another() {
    let mut bench = Bench::held(u64::MAX);
    bench.is_silent = true;
    let now = bench.now;
    bench.append(append("x", 1, 1..=1, now));
    let op = bench.unanswered();
    for name in ["a", "b", "c", "d"] {
        let ttl = if name == "b" { DAY } else { MINUTE };
        bench.append(Append { messages: vec![message(1, ttl, b"1")], ..append(name, 1, 1..=1, now) });
        bench.append(Append { messages: vec![message(2, MINUTE, b"2")], ..append(name, 1, 1..=1, now) });
    }
    bench.is_silent = false;
    let heard = bench.log.perform(&op.kind, now);
    bench.hear(op.id, heard);
    let rows = |record: LogRecord| match record.content {
        Content::Rows(rows) => {
            rows.iter().map(|row| format!("{}{}", row.room, row.message.offset)).collect::<String>()
        }
        other => panic!("{other:?}"),
    };
    let written: Vec<_> = bench.written().split_off(2).into_iter().map(rows).collect();
    assert_eq!(written, ["a1a2c1c2d1d2", "b1", "b2"]);
}

#[test]
fn a_recall_stays_in_the_log_as_long_as_the_message_it_recalls() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.append(Append { messages: vec![message(1, DAY, b"1")], ..append("a", 1, 1..=1, now) });
    let recall = Arc::new(Message { recall: 1, ..Message::clone(&message(2, SECOND, b"2")) });
    bench.append(Append { messages: vec![recall], ..append("a", 1, 1..=1, now) });
    bench.wait(DAY - MINUTE);
    bench.order(&LogOrder::Release { slot: SLOT });
    bench.order(&claim(Term::default()));
    let stream = bench.load("a").unwrap();
    assert_eq!((stream.head, stream.records.len(), stream.records[0].recalled_by), (2, 1, 2));
}

#[test]
fn a_head_outlives_the_row_at_the_head_while_older_rows_live_on() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.append(Append { messages: vec![message(1, DAY, b"1")], ..append("a", 1, 1..=1, now) });
    bench.append(append("a", 1, 2..=2, now));
    bench.wait(20 * MINUTE);
    bench.order(&LogOrder::Release { slot: SLOT });
    bench.order(&claim(Term::default()));
    let stream = bench.load("a").unwrap();
    assert_eq!((stream.head, offsets(Some(stream))), (2, vec![1]));
}

#[test]
fn an_emptied_room_is_remembered_for_seven_days_by_every_home() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.append(append("a", 1, 1..=3, now));
    bench.wait(10 * MINUTE + DAY * 7 - MINUTE);
    bench.order(&LogOrder::Release { slot: SLOT });
    bench.order(&claim(Term::default()));
    let stream = bench.load("a").unwrap();
    assert_eq!((stream.epoch, stream.head, stream.records.len()), (EPOCH, 3, 0));
    bench.wait(2 * MINUTE);
    assert_eq!(bench.load("a"), None);
}

#[test]
fn a_row_of_an_older_term_behind_a_newer_claim_is_counted_and_never_served() {
    let mut bench = Bench::held(u64::MAX);
    let old = claimed(&[LogNews::Claimed {
        slot: SLOT,
        term: Term { generation: 0, sequence: 1 },
        behind: Term::default(),
    }])[0];
    bench.put(Term::default(), 1, Content::Claim(node("b", 9)));
    let message = message(1, MINUTE, b"late");
    let marks = Marks::of(EPOCH, bench.now.unix_ms, &message);
    bench.put(old, 2, Content::Rows(vec![LogRow { room: room("a"), marks, message }]));
    bench.order(&LogOrder::Release { slot: SLOT });
    bench.order(&claim(Term::default()));
    assert_eq!(bench.machine.out_of_term(), 1);
    assert_eq!(bench.load("a"), None);
}

#[test]
fn a_full_log_refuses_appends_and_takes_them_again_later() {
    let mut bench = Bench::held(u64::MAX);
    let now = bench.now;
    bench.log.is_full = true;
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(bench.errors(), [StoreError::Full]);
    bench.order(&LogOrder::Renew { slot: SLOT });
    bench.wait(10 * SECOND);
    assert_eq!(bench.news, []);
    bench.log.is_full = false;
    bench.wait(SECOND);
    assert_eq!(bench.news, [proven(bench.now.instant)]);
    bench.append(append("a", 2, 1..=1, now));
    assert_eq!(durable(&mut bench), [1]);
}

#[test]
fn payloads_past_the_bound_are_read_from_the_log_and_a_lost_one_is_left_out() {
    let mut bench = Bench::held(u64::MAX);
    bench.machine.bound_payloads(2000);
    let now = bench.now;
    for offset in 1..=80 {
        bench.append(append("a", 1, offset..=offset, now));
    }
    assert_eq!(bench.load("a").unwrap().tail.len(), 80);
    assert_eq!(bench.machine.holdings().quarantined, 0);
    bench.is_silent = true;
    bench.request(StoreRequest::Load { room: room("a"), life: 1, whole_after: 0 });
    let op = bench.unanswered();
    let LogOpKind::Get { sequences } = &op.kind else { panic!("{op:?}") };
    assert_eq!(sequences.len(), 64, "the bound of a read");
    let mut entries = bench.log.get(sequences, now);
    entries.remove(0);
    bench.is_silent = false;
    bench.hear(op.id, LogHeard::Read { entries, done: true });
    let Some(StoreAnswer::Loaded { stream, .. }) = bench.answers().pop() else { panic!() };
    assert_eq!(offsets(stream), (2..=80).collect::<Vec<_>>());
    assert_eq!(bench.machine.holdings().quarantined, 1);
}

#[test]
fn a_read_without_an_answer_fails_alone() {
    let mut bench = Bench::held(u64::MAX);
    bench.machine.bound_payloads(0);
    let now = bench.now;
    bench.append(append("a", 1, 1..=1, now));
    assert_eq!(durable(&mut bench), [1]);
    bench.is_silent = true;
    bench.request(StoreRequest::Page { room: room("a"), life: 1, after: 0, bytes_max: 10 });
    bench.wait(6 * SECOND);
    assert_eq!(bench.errors(), [StoreError::Failing]);
    bench.is_silent = false;
    assert_eq!(offsets(bench.load("a")), [1]);
    assert_eq!(claimed(&bench.news), []);
}
