//! Settles the ledger of messages, room by room: a type's publishes against the devices' sight of the type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::published::{Outcome, Published};
use super::seen::{RoomSeen, TypeSeen};
use super::span::Spans;
use super::tally::add_fields;
use super::violation::{Kind, Violations};
use crate::scenario::mix::Load;

/// A type of the mix with its publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    /// Place of the type in the mix.
    pub(crate) kind: u8,
    pub(crate) load: &'a Load,
    pub(crate) published: &'a Published,
    /// Another run publishes to the same rooms. Skips, merges and totals may then exceed this run's
    /// publishes. All other rules hold for this run's messages as ever.
    pub(crate) others: bool,
}

/// The account of a type in a room, as added up by any device there throughout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Accepted messages; of a counter their counts.
    pub(crate) accepted: u64,
    /// Messages in batches sent to some device; of a counter the last total.
    pub(crate) given: u64,
    /// Another run's messages in the same batches.
    pub(crate) others: u64,
    /// Messages merged away before leaving.
    pub(crate) merged: u64,
    /// Messages told as skipped to everybody: shed before leaving, or in batches sent to no device.
    pub(crate) skipped: u64,
    /// Messages accepted shortly before the end of a run of the room, and not broadcast: the classes but the
    /// reliable one promise nothing there.
    #[serde(default)]
    pub(crate) lost_with_run: u64,
}

impl Account {
    /// Adds the account of another room.
    pub(crate) fn add(&mut self, other: Self) {
        add_fields!(self, other; accepted, given, others, merged, skipped, lost_with_run);
    }
}

/// Judges a type in a room that had devices, and gives the account. `seen` is the merged sight of all
/// workers.
///
/// The devices were welcomed before the first publish, so each device owes an account of every accepted
/// message: received in a batch, or told as skipped or merged. Messages of unknown publishes may be missing.
pub(crate) fn check(case: &Case<'_>, seen: &RoomSeen, violations: &mut Violations) -> Account {
    let room = RoomCase::new(case, seen);
    room.check_appearances(violations);
    room.check_order(violations);
    let mut spans = room.spans(violations);
    room.check_starts(&mut spans, violations);
    room.check_ends(&mut spans, violations);
    let account = room.check_totals(&mut spans, violations);
    room.check_counts(account, violations);
    account
}

pub(super) struct RoomCase<'a> {
    case: &'a Case<'a>,
    seen: &'a RoomSeen,
    pub(super) of_type: &'a TypeSeen,
    /// The beginning of every example.
    pub(super) name: String,
    /// At least 1.
    pub(super) devices: u64,
}

/// Distances between seqs: in messages that entered the room, and in merged messages.
#[derive(Default)]
pub(super) struct Accounts {
    all: Spans,
    merged: Spans,
}

impl<'a> RoomCase<'a> {
    pub(super) fn new(case: &'a Case<'a>, seen: &'a RoomSeen) -> Self {
        let of_type = &seen.types[usize::from(case.kind)];
        let name = format!("room {}: {}", seen.room, case.load.type_name);
        let devices = seen.starts.values().map(|witness| witness.devices).sum::<u64>().max(1);
        Self { case, seen, of_type, name, devices }
    }

    fn number(&self, place: u32) -> u64 {
        self.case.published.schedule.number_at(self.seen.room, place)
    }

    /// Every message in the room's order: the seq of the batch, and the place.
    pub(super) fn order(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> {
        let batches = self.of_type.batches.iter();
        let order: Vec<(u64, u32)> =
            batches.flat_map(|(seq, numbers)| numbers.iter().map(|place| (*seq, place))).collect();
        order.into_iter()
    }

    /// Each message is in the room once, and only without a refusal.
    pub(super) fn check_appearances(&self, violations: &mut Violations) {
        let mut first_seen: BTreeMap<u32, u64> = BTreeMap::new();
        let Self { name, devices, .. } = self;
        for (seq, place) in self.order() {
            let number = self.number(place);
            if let Some(first) = first_seen.insert(place, seq) {
                violations.add(Kind::Twice, *devices, || {
                    format!("{name}: message {number} in batch {first} and again in batch {seq}")
                });
            }
            match self.case.published.outcome(number) {
                // An unknown publish may have been taken.
                Outcome::Ok | Outcome::Unknown => {}
                Outcome::Refused => violations.add(Kind::RefusedAppeared, *devices, || {
                    format!("{name}: message {number} was refused but is in batch {seq}")
                }),
                Outcome::Unsent => violations.add(Kind::Foreign, *devices, || {
                    format!("{name}: message {number} is in batch {seq} but was never sent")
                }),
            }
        }
    }

    /// A message answered before another was sent stands before the other, and a request keeps its
    /// order. Requests overlapping in time may stand either way round. A later message may take the place
    /// of an earlier message of equal key, so with keys the order is asked within each key.
    pub(super) fn check_order(&self, violations: &mut Violations) {
        let published = self.case.published;
        let schedule = &self.case.published.schedule;
        let Self { name, devices, .. } = self;
        let mut behind: BTreeMap<u32, Behind> = BTreeMap::new();
        // Backwards, so that one value is enough: the earliest answer of all messages behind.
        for (seq, place) in self.order().rev() {
            let number = self.number(place);
            let nothing = Behind { earliest_answer: u64::MAX, answered: 0, next: None };
            let behind = behind.entry(self.case.load.key_number(number)).or_insert(nothing);
            if behind.earliest_answer < published.sent_ns(number) {
                violations.add(Kind::OutOfOrder, *devices, || {
                    let later = behind.answered;
                    format!(
                        "{name}: message {number} (batch {seq}) stands before message {later}, \
                         which was accepted before it \
                         was sent"
                    )
                });
            }
            if let Some(later) = behind.next.filter(|later| *later < number)
                && schedule.request_of(later) == schedule.request_of(number)
            {
                // Within a request the answer times are equal and prove nothing, but the request lists an
                // order.
                violations.add(Kind::OutOfOrder, *devices, || {
                    format!("{name}: message {number} stands before {later} of its own request")
                });
            }
            behind.next = Some(number);
            if published.answered_ns(number) < behind.earliest_answer {
                behind.earliest_answer = published.answered_ns(number);
                behind.answered = number;
            }
        }
    }

    /// Joins the claims of all frames. Of two contradicting claims, one at least is inexact.
    pub(super) fn spans(&self, violations: &mut Violations) -> Accounts {
        let mut spans = Accounts::default();
        for (claim, witness) in &self.seen.claims {
            let told = claim.of(self.case.kind);
            let agrees = spans.all.state(claim.after, claim.through, told.account());
            if !(spans.merged.state(claim.after, claim.through, told.merged) && agrees) {
                violations.add(Kind::SkipInexact, witness.devices, || {
                    format!(
                        "{}: device {} was given {} in batches {} to {}, and told of {} skipped \
                         and {} merged; others' frames \
                         come to {:?}, {:?} of them merged",
                        self.name,
                        witness.example,
                        told.messages,
                        claim.after + 1,
                        claim.through,
                        told.skipped,
                        told.merged,
                        spans.all.between(claim.after, claim.through),
                        spans.merged.between(claim.after, claim.through)
                    )
                });
            }
        }
        spans
    }

    /// Every message of the room lies after every device's welcome.
    fn check_starts(&self, spans: &mut Accounts, violations: &mut Violations) {
        let Self { name, seen, .. } = self;
        let Some((first, _)) = seen.starts.first_key_value() else { return };
        let batches = &self.of_type.batches;
        for (start, witness) in &seen.starts {
            let in_batches = batches.range(..=start).map(|(_, numbers)| numbers.count()).sum();
            // Both are lower bounds: claims may not join the two seqs, and batches may have been sent to
            // nobody.
            let before = spans.all.entered(*first, *start).max(in_batches);
            violations.add(Kind::Lost, before * witness.devices, || {
                format!("{name}: device {} was welcomed at {start}, past {before} messages", witness.example)
            });
        }
    }

    /// Every message of the room lies before every device's end.
    pub(super) fn check_ends(&self, spans: &mut Accounts, violations: &mut Violations) {
        let Self { name, seen, .. } = self;
        let Some((last, _)) = seen.ends.last_key_value() else { return };
        let batches = &self.of_type.batches;
        for (end, witness) in &seen.ends {
            let in_batches = batches.range(end + 1..).map(|(_, numbers)| numbers.count()).sum();
            let after = spans.all.entered(*end, *last).max(in_batches);
            violations.add(Kind::Lost, after * witness.devices, || {
                format!("{name}: device {} ended at batch {end}, {after} messages early", witness.example)
            });
        }
    }

    /// Skips and merges are exactly the messages not received, and no accepted message is in neither.
    fn check_totals(&self, spans: &mut Accounts, violations: &mut Violations) -> Account {
        let published = self.case.published;
        let Self { name, devices, .. } = self;
        let mut is_seen = vec![false; published.schedule.messages_of(self.seen.room) as usize];
        for (_, place) in self.order() {
            // A forged place beyond the schedule is found elsewhere.
            if let Some(seen) = is_seen.get_mut(place as usize) {
                *seen = true;
            }
        }
        let missing = |outcome: Outcome| {
            let unseen = published.numbers_in(self.seen.room).zip(&is_seen).filter(|(_, seen)| !**seen);
            unseen.map(|(number, _)| number).filter(move |number| published.outcome(*number) == outcome)
        };
        let missing_ok = missing(Outcome::Ok).count() as u64;
        let missing_unknown = missing(Outcome::Unknown).count() as u64;
        let (told, merged) = self.told_but_unseen(spans);
        violations.add(Kind::Lost, missing_ok.saturating_sub(told) * devices, || {
            let examples: Vec<u64> = missing(Outcome::Ok).take(3).collect();
            format!(
                "{name}: accepted, neither seen nor told as skipped or merged: {missing_ok} less {told}: {examples:?}…"
            )
        });
        let too_many = told.saturating_sub(missing_ok + missing_unknown);
        // Another run's messages may be told as skipped, too, and do not appear in this run's ledger.
        violations.add(Kind::SkipInexact, if self.case.others { 0 } else { too_many }, || {
            format!("{name}: {told} messages told as skipped or merged; {missing_ok} of those accepted were not seen")
        });
        let all = published.numbers_in(self.seen.room).map(|number| published.outcome(number));
        Account {
            accepted: all.filter(|outcome| *outcome == Outcome::Ok).count() as u64,
            given: self.of_type.batches.values().map(|numbers| numbers.count()).sum(),
            others: self.of_type.others.values().sum(),
            merged,
            skipped: told.saturating_sub(merged),
            lost_with_run: 0,
        }
    }

    /// Messages between the first welcome and the last end without a batch sent to any device, and the
    /// number of merged messages among these.
    pub(super) fn told_but_unseen(&self, spans: &mut Accounts) -> (u64, u64) {
        let Some((start, _)) = self.seen.starts.first_key_value() else { return (0, 0) };
        let Some((end, _)) = self.seen.ends.last_key_value() else { return (0, 0) };
        // Batches up to the first welcome are judged by `check_starts`.
        let ours: u64 = self.of_type.batches.range(start + 1..).map(|(_, numbers)| numbers.count()).sum();
        let others: u64 = self.of_type.others.range(start + 1..).map(|(_, count)| count).sum();
        let told = spans.all.entered(*start, *end).saturating_sub(ours + others);
        (told, spans.merged.entered(*start, *end).min(told))
    }

    /// The counts of each key's messages add up to the accepted count; to less only where messages were
    /// skipped.
    fn check_counts(&self, account: Account, violations: &mut Violations) {
        let Case { load, published, others, .. } = *self.case;
        // Another run's messages of the same key may have taken the place of ours, or ours of theirs.
        if others {
            return;
        }
        let keys = load.keys.max(1) as usize;
        let mut given = vec![0_u64; keys];
        let mut accepted = vec![0_u64; keys];
        let mut unknown = vec![0_u64; keys];
        let key = |number: u64| load.key_number(number) as usize;
        for (seq, numbers) in &self.of_type.batches {
            let counts = self.of_type.counts.get(seq);
            for (place, index) in numbers.iter().zip(0..) {
                let count = counts.and_then(|counts| counts.get(index)).copied().unwrap_or(1);
                given[key(self.number(place))] += count;
            }
        }
        // Types without counts are judged by their messages alone.
        if given.iter().sum::<u64>() == account.given && load.count.is_none() {
            return;
        }
        for number in published.numbers_in(self.seen.room) {
            match published.outcome(number) {
                Outcome::Ok => accepted[key(number)] += load.each(),
                Outcome::Unknown => unknown[key(number)] += load.each(),
                Outcome::Refused | Outcome::Unsent => {}
            }
        }
        for index in 0..keys {
            // A skipped message may be of any key, so no key has a lower bound then.
            let least = if account.skipped > 0 { 0 } else { accepted[index] };
            let sum = given[index];
            let most = accepted[index] + unknown[index];
            violations.add(Kind::CountInexact, u64::from(!(least..=most).contains(&sum)), || {
                format!("{}: the messages of key k{index} count {sum}; accepted were {most}", self.name)
            });
        }
    }
}

/// The messages of a key behind a place in the room's order.
#[derive(Debug)]
struct Behind {
    /// The earliest answer among the messages, and the message.
    earliest_answer: u64,
    answered: u64,
    next: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::super::seen::{Claim, Told};
    use super::*;
    use crate::scenario::mix::Class;
    use crate::scenario::payload::Length;
    use crate::scenario::schedule::Schedule;

    fn load(count: Option<u32>, keys: u32) -> Load {
        let schedule = Schedule::even(10, 1_000, 1, 1);
        Load {
            type_name: "gift".into(),
            class: Class::Normal,
            schedule,
            count,
            keys,
            length: Length::Fixed(60),
        }
    }

    /// Ten messages to one room, one request after the other, all accepted.
    fn published() -> Published {
        let mut published = Published::new(load(None, 0).schedule);
        for request in 0..10 {
            published.sent(request, 100 * request);
            published.answered(request, 100 * request + 50, [Outcome::Ok]);
        }
        published
    }

    fn claim(after: u64, through: u64, messages: u64, skipped: u64, merged: u64) -> Claim {
        let told = Told { messages, skipped, merged, ..Told::default() };
        Claim { after, through, told: Box::new([told]) }
    }

    /// "These were skipped after `after` up to `through`."
    fn refresh(after: u64, through: u64, skipped: u64) -> Claim {
        claim(after, through, 0, skipped, 0)
    }

    /// Two devices welcomed at 5, ended at the last batch, with these batches from 6 on.
    fn seen(batches: &[&[u32]]) -> RoomSeen {
        let mut seen = RoomSeen::new(0, 1);
        let mut end = 5;
        for (seq, places) in (6..).zip(batches) {
            seen.types[0].batches.insert(seq, places.to_vec().into());
            seen.claimed(claim(seq - 1, seq, places.len() as u64, 0, 0), 0);
            end = seq;
        }
        for device in 0..2 {
            seen.started(5, device);
            seen.ended(end, device);
        }
        seen
    }

    fn without(mut seen: RoomSeen, seqs: std::ops::RangeInclusive<u64>) -> RoomSeen {
        seen.types[0].batches.retain(|seq, _| !seqs.contains(seq));
        seen.claims.retain(|claim, _| !seqs.contains(&claim.through));
        seen
    }

    fn verdict_on(load: &Load, published: &Published, seen: &RoomSeen) -> Violations {
        let mut violations = Violations::default();
        check(&Case { kind: 0, load, published, others: false }, seen, &mut violations);
        violations
    }

    fn verdict(published: &Published, seen: &RoomSeen) -> Violations {
        verdict_on(&load(None, 0), published, seen)
    }

    #[test]
    fn a_faultless_room_has_no_violations() {
        let violations = verdict(&published(), &seen(&[&[0, 1, 2], &[], &[3, 4, 5, 6, 7, 8, 9]]));
        assert!(violations.is_empty(), "{violations}");
    }

    #[test]
    fn a_message_in_no_batch_is_lost_for_every_device() {
        let violations = verdict(&published(), &seen(&[&[0, 1, 2], &[4, 5, 6, 7, 8, 9]]));
        assert_eq!(violations.count(Kind::Lost), 2);
    }

    #[test]
    fn a_message_in_two_batches_is_there_twice() {
        let violations = verdict(&published(), &seen(&[&[0, 1, 2, 3], &[3, 4, 5, 6, 7, 8, 9]]));
        assert_eq!(violations.count(Kind::Twice), 2);
    }

    #[test]
    fn messages_that_were_published_one_after_the_other_keep_their_order() {
        let swapped = verdict(&published(), &seen(&[&[0, 2, 1, 3], &[4, 5, 6, 7, 8, 9]]));
        assert_eq!(swapped.count(Kind::OutOfOrder), 2);
        let mut overlapping = published();
        overlapping.sent(1, 100);
        overlapping.answered(1, 260, [Outcome::Ok]);
        assert!(verdict(&overlapping, &seen(&[&[0, 2, 1, 3], &[4, 5, 6, 7, 8, 9]])).is_empty());
    }

    #[test]
    fn where_there_are_keys_order_is_asked_within_each() {
        let two = load(None, 2);
        let across = seen(&[&[0, 2, 1, 3], &[4, 5, 6, 7, 8, 9]]);
        assert!(verdict_on(&two, &published(), &across).is_empty());
        let within = seen(&[&[2, 1, 0, 3], &[4, 5, 6, 7, 8, 9]]);
        assert_eq!(verdict_on(&two, &published(), &within).count(Kind::OutOfOrder), 2);
    }

    #[test]
    fn a_refused_message_must_not_appear_and_an_unknown_one_may() {
        let mut published = published();
        published.answered(4, 450, [Outcome::Refused]);
        published.answered(5, 550, [Outcome::Unknown]);
        let all = verdict(&published, &seen(&[&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]));
        assert_eq!(all.count(Kind::RefusedAppeared), 2);
        assert!(verdict(&published, &seen(&[&[0, 1, 2, 3, 6, 7, 8, 9]])).is_empty());
        assert!(verdict(&published, &seen(&[&[0, 1, 2, 3, 5, 6, 7, 8, 9]])).is_empty());
    }

    #[test]
    fn a_skip_that_counts_exactly_what_was_skipped_is_no_violation() {
        let mut room = seen(&[&[0, 1, 2], &[3, 4], &[5, 6], &[7, 8, 9]]);
        room.claimed(refresh(6, 8, 4), 1);
        assert!(verdict(&published(), &room).is_empty());
        room.claimed(refresh(7, 8, 1), 1);
        assert_eq!(verdict(&published(), &room).count(Kind::SkipInexact), 1);
    }

    #[test]
    fn batches_that_nobody_was_sent_must_hold_what_is_missing() {
        let room = without(seen(&[&[0, 1, 2], &[], &[], &[7, 8, 9]]), 7..=8);
        let told = |skipped| {
            let mut room = room.clone();
            room.claimed(refresh(6, 8, skipped), 0);
            room.claimed(refresh(6, 8, skipped), 1);
            verdict(&published(), &room)
        };
        assert!(told(4).is_empty());
        assert_eq!(told(3).count(Kind::Lost), 2);
        assert_eq!(told(6).count(Kind::SkipInexact), 2);
    }

    /// Batch 7 says that some of its type were shed and merged before it left.
    fn shed(skipped: u64, merged: u64) -> RoomSeen {
        let mut room = seen(&[&[0, 1, 2], &[6], &[7, 8, 9]]);
        room.claims.retain(|claim, _| claim.through != 7);
        room.claimed(claim(6, 7, 1, skipped, merged), 0);
        room
    }

    #[test]
    fn what_was_shed_and_merged_before_it_left_is_accounted_for() {
        for (skipped, merged) in [(3, 0), (0, 3), (1, 2)] {
            let violations = verdict(&published(), &shed(skipped, merged));
            assert!(violations.is_empty(), "{violations}");
            let load = load(None, 0);
            let case = Case { kind: 0, load: &load, published: &published(), others: false };
            let account = check(&case, &shed(skipped, merged), &mut Violations::default());
            assert_eq!(account, Account { accepted: 10, given: 7, merged, skipped, ..Account::default() });
        }
        assert_eq!(verdict(&published(), &shed(2, 0)).count(Kind::Lost), 2);
        assert_eq!(verdict(&published(), &shed(1, 1)).count(Kind::Lost), 2);
        assert_eq!(verdict(&published(), &shed(4, 0)).count(Kind::SkipInexact), 1);
    }

    #[test]
    fn another_run_may_be_told_as_skipped_but_hides_no_loss() {
        let others = |room: &RoomSeen| {
            let load = load(None, 0);
            let mut violations = Violations::default();
            check(
                &Case { kind: 0, load: &load, published: &published(), others: true },
                room,
                &mut violations,
            );
            violations
        };
        assert!(others(&shed(400, 0)).is_empty());
        assert_eq!(others(&shed(2, 0)).count(Kind::Lost), 2);
        let mut room = shed(3, 0);
        room.claims.retain(|claim, _| claim.through != 7);
        room.claimed(claim(6, 7, 6, 2, 0), 0);
        room.types[0].others.insert(7, 5);
        assert_eq!(
            others(&room).count(Kind::Lost),
            2,
            "theirs that were given are not ours that were skipped"
        );
    }

    #[test]
    fn the_counts_of_a_key_come_to_what_was_accepted_of_it() {
        let gifts = load(Some(3), 2);
        let exact = {
            let mut room = seen(&[&[0, 1], &[8, 9]]);
            room.claims.retain(|claim, _| claim.through != 7);
            room.claimed(claim(6, 7, 2, 0, 6), 0);
            room.types[0].counts.insert(6, vec![3, 3]);
            room.types[0].counts.insert(7, vec![12, 12]);
            room
        };
        let violations = verdict_on(&gifts, &published(), &exact);
        assert!(violations.is_empty(), "{violations}");
        for wrong in [vec![12, 11], vec![13, 12], vec![9, 15]] {
            let mut room = exact.clone();
            room.types[0].counts.insert(7, wrong);
            assert!(verdict_on(&gifts, &published(), &room).count(Kind::CountInexact) > 0);
        }
    }

    #[test]
    fn a_device_that_ends_early_lost_the_rest() {
        let mut room = seen(&[&[0, 1, 2], &[3, 4, 5, 6, 7, 8, 9]]);
        room.ended(6, 9);
        room.started(5, 9);
        assert_eq!(verdict(&published(), &room).count(Kind::Lost), 7);
    }

    #[test]
    fn workers_that_saw_one_batch_differently_are_told() {
        let mut one = seen(&[&[0, 1, 2]]);
        assert_eq!(one.merge(seen(&[&[0, 2, 1]])), [6]);
        assert!(one.merge(seen(&[&[0, 1, 2]])).is_empty());
    }
}
