//! Settles the ledger: what was published against what was seen, room by room.

use std::collections::BTreeMap;

use super::published::{Outcome, Published};
use super::seen::RoomSeen;
use super::span::Spans;
use super::violation::{Kind, Violations};

/// Judges one room that had devices. `seen` is what all workers saw of it, merged.
///
/// Its devices were all welcomed before the first publish, so each of them owes an account of every message the room
/// accepted: received in a batch, or counted in a `skipped`. Messages whose publish is unknown may be missing.
pub(crate) fn check(published: &Published, seen: &RoomSeen, violations: &mut Violations) {
    let room = Room { published, seen };
    room.check_appearances(violations);
    room.check_order(violations);
    room.check_starts_and_ends(violations);
    room.check_totals(violations);
}

/// Judges one of several lives of a room in memory: the node was restarted while it was open. What was gathered or on its
/// way then is gone, as the class allows, so only what is there is judged: nothing twice, in order, nothing refused.
pub(crate) fn check_one_life(published: &Published, seen: &RoomSeen, violations: &mut Violations) {
    let room = Room { published, seen };
    room.check_appearances(violations);
    room.check_order(violations);
}

struct Room<'a> {
    published: &'a Published,
    seen: &'a RoomSeen,
}

impl Room<'_> {
    fn number(&self, place: u32) -> u64 {
        self.published.schedule().number_at(self.seen.room, place)
    }

    fn devices(&self) -> u64 {
        self.seen.starts.values().map(|witness| witness.devices).sum::<u64>().max(1)
    }

    /// Every message in the room's order, with the batch it came in.
    fn order(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> {
        let order: Vec<(u64, u32)> = self
            .seen
            .batches
            .iter()
            .flat_map(|(seq, numbers)| numbers.iter().map(|place| (*seq, place)))
            .collect();
        order.into_iter()
    }

    /// Each message is in the room once, and only if its publish was not refused.
    fn check_appearances(&self, violations: &mut Violations) {
        let mut first_seen: BTreeMap<u32, u64> = BTreeMap::new();
        let devices = self.devices();
        for (seq, place) in self.order() {
            let room = self.seen.room;
            if let Some(first) = first_seen.insert(place, seq) {
                violations.add(Kind::Twice, devices, || {
                    format!(
                        "room {room}: message {} in batch {first} and again in batch {seq}",
                        self.number(place)
                    )
                });
            }
            match self.published.outcome(self.number(place)) {
                Outcome::Ok | Outcome::Unknown => {}
                Outcome::Refused => violations.add(Kind::RefusedAppeared, devices, || {
                    format!("room {room}: message {} was refused but is in batch {seq}", self.number(place))
                }),
                Outcome::Unsent => violations.add(Kind::Foreign, devices, || {
                    format!(
                        "room {room}: message {} is in batch {seq} but was never sent",
                        self.number(place)
                    )
                }),
            }
        }
    }

    /// A message that was answered before another was sent comes before it, and one request keeps its own order.
    /// Requests that overlapped in time may stand either way round.
    fn check_order(&self, violations: &mut Violations) {
        let (mut earliest_answer, mut answered) = (u64::MAX, 0);
        let mut next: Option<u64> = None;
        for (seq, place) in self.order().rev() {
            let number = self.number(place);
            if earliest_answer < self.published.sent_ns(number) {
                violations.add(Kind::OutOfOrder, self.devices(), || {
                    format!(
                        "room {}: message {number} (batch {seq}) stands before message {answered}, which was \
                         accepted before it was sent",
                        self.seen.room
                    )
                });
            }
            let schedule = self.published.schedule();
            if let Some(later) = next.filter(|later| *later < number)
                && schedule.request_of(later) == schedule.request_of(number)
            {
                violations.add(Kind::OutOfOrder, self.devices(), || {
                    format!(
                        "room {}: message {number} stands before {later} of its own request",
                        self.seen.room
                    )
                });
            }
            next = Some(number);
            if self.published.answered_ns(number) < earliest_answer {
                (earliest_answer, answered) = (self.published.answered_ns(number), number);
            }
        }
    }

    /// Every batch with messages lies after every device's welcome and before every device's end.
    fn check_starts_and_ends(&self, violations: &mut Violations) {
        let (seen, room) = (self.seen, self.seen.room);
        for (start, witness) in &seen.starts {
            let before: u64 = seen.batches.range(..=start).map(|(_, numbers)| numbers.count()).sum();
            violations.add(Kind::Lost, before * witness.devices, || {
                format!(
                    "room {room}: device {} was welcomed at {start}, past {before} messages",
                    witness.example
                )
            });
        }
        for (end, witness) in &seen.ends {
            let after: u64 = seen.batches.range(end + 1..).map(|(_, numbers)| numbers.count()).sum();
            violations.add(Kind::Lost, after * witness.devices, || {
                format!(
                    "room {room}: device {} ended at batch {end}, {after} messages early",
                    witness.example
                )
            });
        }
    }

    /// What devices were told they missed is exactly what they missed, and nothing accepted is in neither.
    fn check_totals(&self, violations: &mut Violations) {
        let (seen, room) = (self.seen, self.seen.room);
        let mut spans = Spans::default();
        for (seq, numbers) in &seen.batches {
            // Each batch is stated once, so none can contradict another.
            let _: bool = spans.state(seq.saturating_sub(1), *seq, numbers.count());
        }
        for (claim, witness) in &seen.claims {
            if !spans.state(claim.after, claim.through, claim.count) {
                violations.add(Kind::SkipInexact, witness.devices, || {
                    format!(
                        "room {room}: device {} was told of {} messages skipped in batches {} to {}, which held {:?}",
                        witness.example,
                        claim.count,
                        claim.after + 1,
                        claim.through,
                        spans.between(claim.after, claim.through)
                    )
                });
            }
        }
        let mut waiting: Vec<bool> = vec![true; self.published.schedule().messages_of(room) as usize];
        for (_, place) in self.order() {
            if let Some(place) = waiting.get_mut(place as usize) {
                *place = false;
            }
        }
        let missing = |outcome: Outcome| {
            let waiting = waiting.iter().zip(0_u32..).filter(|(waiting, _)| **waiting);
            waiting
                .map(|(_, place)| self.number(place))
                .filter(move |number| self.published.outcome(*number) == outcome)
        };
        let missing_ok = missing(Outcome::Ok).count() as u64;
        let missing_unknown = missing(Outcome::Unknown).count() as u64;
        // Batches that nobody was sent: their messages were told as skipped to everybody.
        let told = self.told_but_unseen(&mut spans);
        violations.add(Kind::Lost, missing_ok.saturating_sub(told) * self.devices(), || {
            let examples: Vec<u64> = missing(Outcome::Ok).take(3).collect();
            format!("room {room}: accepted, neither seen nor told as skipped: {missing_ok} less {told}: {examples:?}…")
        });
        violations.add(Kind::SkipInexact, told.saturating_sub(missing_ok + missing_unknown), || {
            format!("room {room}: {told} messages told as skipped that were never published")
        });
    }

    /// Messages between the first welcome and the last end that are in no batch anybody was sent.
    fn told_but_unseen(&self, spans: &mut Spans) -> u64 {
        let (Some((start, _)), Some((end, _))) =
            (self.seen.starts.first_key_value(), self.seen.ends.last_key_value())
        else {
            return 0;
        };
        let seen: u64 = self.seen.batches.range(start + 1..).map(|(_, numbers)| numbers.count()).sum();
        let accounted = spans.between(*start, *end).and_then(|between| u64::try_from(between).ok());
        accounted.map_or(0, |accounted| accounted.saturating_sub(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::Claim;
    use super::*;
    use crate::schedule::Schedule;

    /// Ten messages to one room, one request after the other, all accepted.
    fn published() -> Published {
        let schedule =
            Schedule { start_ns: 0, messages: 10, rate_milli: 1_000, rooms: 1, messages_per_request: 1 };
        let mut published = Published::new(schedule);
        for request in 0..10 {
            published.sent(request, 100 * request);
            published.answered(request, 100 * request + 50, [Outcome::Ok]);
        }
        published
    }

    /// Two devices welcomed at 5, ended at the last batch, with these batches from 6 on.
    fn seen(batches: &[&[u32]]) -> RoomSeen {
        let mut seen = RoomSeen::new(0);
        let mut end = 5;
        for (seq, places) in (6..).zip(batches) {
            seen.batches.insert(seq, places.to_vec().into());
            end = seq;
        }
        for device in 0..2 {
            seen.started(5, device);
            seen.ended(end, device);
        }
        seen
    }

    fn verdict(published: &Published, seen: &RoomSeen) -> Violations {
        let mut violations = Violations::default();
        check(published, seen, &mut violations);
        violations
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
        room.claimed(Claim { after: 6, through: 8, count: 4 }, 1);
        assert!(verdict(&published(), &room).is_empty());
        room.claimed(Claim { after: 7, through: 8, count: 1 }, 1);
        assert_eq!(verdict(&published(), &room).count(Kind::SkipInexact), 1);
    }

    #[test]
    fn batches_that_nobody_was_sent_must_hold_what_is_missing() {
        let mut room = seen(&[&[0, 1, 2], &[], &[], &[7, 8, 9]]);
        room.batches.remove(&7);
        room.batches.remove(&8);
        room.claimed(Claim { after: 6, through: 8, count: 4 }, 0);
        room.claimed(Claim { after: 6, through: 8, count: 4 }, 1);
        assert!(verdict(&published(), &room).is_empty());
        let mut short = room.clone();
        short.claims.clear();
        short.claimed(Claim { after: 6, through: 8, count: 3 }, 0);
        assert_eq!(verdict(&published(), &short).count(Kind::Lost), 2);
        let mut long = room;
        long.claims.clear();
        long.claimed(Claim { after: 6, through: 8, count: 6 }, 0);
        assert_eq!(verdict(&published(), &long).count(Kind::SkipInexact), 2);
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
