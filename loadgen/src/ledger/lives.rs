//! Settles a type in a room with several lives: a run of the room ended, with a node or in a takeover, and another
//! began.
//!
//! A home that dies takes along the messages that it had accepted and not broadcast, as the classes but the
//! reliable one allow. Such messages were answered shortly before the run's last batch at the earliest, and sent
//! before the next run's first welcome at the latest. A takeover has a bound in time: messages accepted long before
//! that welcome are owed, however late the next run begins. All other accepted messages are owed as in a single life.

use std::collections::BTreeMap;

use super::published::Outcome;
use super::seen::RoomSeen;
use super::verdict::{Account, Case, RoomCase};
use super::violation::{Kind, Violations};

/// Longest time from an answer to the broadcast of the message, and longest time for which a home that is cut off
/// goes on to accept messages (docs/cluster.md).
const RUN_END_NS: u64 = 2_000_000_000;
/// Longest takeover, from the last message accepted by the former home to the first welcome of the next one: 3 s of
/// silence until the home counts as dead (`cluster.dead_after_ms`, by default), 5 to 7 s for the election of a
/// leader, if the home's machine took a NATS server along, and up to 4 s of patience with a claim. A longer gap
/// excuses nothing.
const TAKEOVER_AGE_MAX_NS: u64 = 15_000_000_000;

/// Judges a type over the lives of a room, the earliest first, and gives the account of all lives.
///
/// Messages missing in all lives are judged only if each life had a device from its welcome to its end. A lone
/// node that restarts cuts all devices off, and nobody is there at the end of the run and the beginning of the
/// next.
pub(crate) fn check_lives(case: &Case<'_>, lives: &[&RoomSeen], violations: &mut Violations) -> Account {
    let rooms: Vec<RoomCase<'_>> = lives.iter().map(|seen| RoomCase::new(case, seen)).collect();
    for room in &rooms {
        room.check_appearances(violations);
        room.check_order(violations);
    }
    check_twice(&rooms, violations);
    if !lives.iter().all(|seen| seen.is_watched()) {
        return Account::default();
    }
    let mut account = Account::default();
    for (place, room) in rooms.iter().enumerate() {
        let mut spans = room.spans(violations);
        // Devices leave a run that is over at different batches, and enter the next at different batches.
        if place + 1 == rooms.len() {
            room.check_ends(&mut spans, violations);
        }
        let (told, merged) = room.told_but_unseen(&mut spans);
        account.given += room.of_type.batches.values().map(|numbers| numbers.count()).sum::<u64>();
        account.others += room.of_type.others.values().sum::<u64>();
        account.merged += merged;
        account.skipped += told - merged;
    }
    check_missing(case, lives, &rooms, &mut account, violations);
    account
}

/// No message is in two lives.
fn check_twice(rooms: &[RoomCase<'_>], violations: &mut Violations) {
    let mut first_life: BTreeMap<u32, usize> = BTreeMap::new();
    for (life, room) in rooms.iter().enumerate() {
        for (seq, place) in room.order() {
            let first = *first_life.entry(place).or_insert(life);
            if first != life {
                violations.add(Kind::Twice, room.devices, || {
                    format!("{}: a message of run {first} is in batch {seq} of run {life} again", room.name)
                });
            }
        }
    }
}

/// Accepted messages in no life are told as skipped or merged, or were lost with a run.
fn check_missing(
    case: &Case<'_>,
    lives: &[&RoomSeen],
    rooms: &[RoomCase<'_>],
    account: &mut Account,
    violations: &mut Violations,
) {
    let published = case.published;
    let Some(last) = rooms.last() else { return };
    let mut unseen: Vec<bool> = published.numbers_in(lives[0].room).map(|_| true).collect();
    for (_, place) in rooms.iter().flat_map(RoomCase::order) {
        // A forged place beyond the schedule is found elsewhere.
        if let Some(unseen) = unseen.get_mut(place as usize) {
            *unseen = false;
        }
    }
    let numbers = published.numbers_in(lives[0].room).zip(&unseen);
    let of =
        |wanted: Outcome| numbers.clone().filter(move |(number, _)| published.outcome(*number) == wanted);
    account.accepted = of(Outcome::Ok).count() as u64;
    let missing: Vec<u64> =
        of(Outcome::Ok).filter(|(_, unseen)| **unseen).map(|(number, _)| number).collect();
    let missing_unknown = of(Outcome::Unknown).filter(|(_, unseen)| **unseen).count() as u64;
    let owed: Vec<u64> =
        missing.iter().copied().filter(|number| !may_be_lost(case, lives, *number)).collect();
    let told = account.merged + account.skipped;
    let lost = (owed.len() as u64).saturating_sub(told);
    account.lost_with_run = (missing.len() as u64).saturating_sub(told).saturating_sub(lost);
    violations.add(Kind::Lost, lost * last.devices, || {
        let examples = &owed[..owed.len().min(3)];
        format!(
            "{}: accepted, in no run, not told as skipped or merged, and not at the end of a run: {examples:?}…",
            last.name
        )
    });
    let too_many = told.saturating_sub(missing.len() as u64 + missing_unknown);
    violations.add(Kind::SkipInexact, if case.others { 0 } else { too_many }, || {
        format!("{}: {told} messages told as skipped or merged, {too_many} more than are missing", last.name)
    });
}

/// The message was on its way while a run ended.
fn may_be_lost(case: &Case<'_>, lives: &[&RoomSeen], number: u64) -> bool {
    let sent_ns = case.published.sent_ns(number);
    let answered_ns = case.published.answered_ns(number);
    lives.windows(2).any(|pair| {
        // A life without a batch ended after its first welcome at the earliest.
        let ended_ns = pair[0].last_ns.max(pair[0].first_ns);
        let until_ns = pair[1].first_ns.max(ended_ns.saturating_add(RUN_END_NS));
        // A quiet room says nothing for long before the end of its run, so the bound counts from the next run back.
        let since_ns = ended_ns.max(pair[1].first_ns.saturating_sub(TAKEOVER_AGE_MAX_NS));
        sent_ns < until_ns && answered_ns.saturating_add(RUN_END_NS) >= since_ns
    })
}

#[cfg(test)]
mod tests {
    use super::super::published::Published;
    use super::super::seen::{Claim, Told};
    use super::*;
    use crate::scenario::mix::{Class, Load};
    use crate::scenario::payload::Length;
    use crate::scenario::schedule::Schedule;

    const SECOND_NS: u64 = 1_000_000_000;

    /// One message a second, each answered 10 ms later. Two devices see these messages in batches of one, in two
    /// runs: the first ends at 4.5 s, the second begins at 6.2 s.
    fn verdict(first: &[u32], second: &[u32], skipped: u64) -> (Violations, Account) {
        verdict_of(12, 6_200_000_000, first, second, skipped)
    }

    /// The same for so many messages, where the second run begins at `begins_ns`.
    fn verdict_of(
        messages: u64,
        begins_ns: u64,
        first: &[u32],
        second: &[u32],
        skipped: u64,
    ) -> (Violations, Account) {
        let schedule = Schedule::even(messages, 1_000, 1, 1);
        let mut published = Published::new(schedule.clone());
        for request in 0..messages {
            published.sent(request, request * SECOND_NS);
            published.answered(request, request * SECOND_NS + 10_000_000, [Outcome::Ok]);
        }
        let load = Load {
            type_name: "chat".into(),
            class: Class::Normal,
            schedule,
            count: None,
            keys: 0,
            length: Length::Fixed(60),
        };
        let life = |places: &[u32], skipped: u64| {
            let mut seen = RoomSeen::new(0, 1);
            let mut seq = 0;
            for place in places {
                seq += 1;
                seen.types[0].batches.insert(seq, vec![*place].into());
                let skipped = if seq == 1 { skipped } else { 0 };
                let told = Told { messages: 1, skipped, ..Told::default() };
                seen.claimed(Claim { after: seq - 1, through: seq, told: Box::new([told]) }, 0);
            }
            for device in 0..2 {
                seen.started(0, device);
                seen.ended(seq, device);
            }
            seen
        };
        let former = RoomSeen { first_ns: 1, last_ns: 4_500_000_000, ..life(first, 0) };
        let last_ns = messages * SECOND_NS;
        let later = RoomSeen { first_ns: begins_ns, last_ns, ..life(second, skipped) };
        let mut violations = Violations::default();
        let case = Case { kind: 0, load: &load, published: &published, others: false };
        let account = check_lives(&case, &[&former, &later], &mut violations);
        (violations, account)
    }

    #[test]
    fn messages_on_their_way_at_the_end_of_a_run_may_be_lost_with_it() {
        let (violations, account) = verdict(&[0, 1, 2, 3, 4], &[7, 8, 9, 10, 11], 0);
        assert!(violations.is_empty(), "{violations}");
        let all = Account { accepted: 12, given: 10, lost_with_run: 2, ..Account::default() };
        assert_eq!(account, all);
        let (violations, account) = verdict(&[0, 1, 2, 3, 4], &[6, 7, 8, 9, 10, 11], 1);
        assert!(violations.is_empty(), "{violations}");
        assert_eq!((account.skipped, account.lost_with_run), (1, 0));
    }

    #[test]
    fn a_message_lost_long_before_or_after_the_end_is_a_broken_promise() {
        let (violations, _) = verdict(&[0, 2, 3, 4], &[7, 8, 9, 10, 11], 0);
        assert_eq!(violations.count(Kind::Lost), 2, "{violations}");
        let (violations, account) = verdict(&[0, 1, 2, 3, 4], &[7, 8, 10, 11], 0);
        assert_eq!((violations.count(Kind::Lost), account.lost_with_run), (2, 2), "{violations}");
    }

    #[test]
    fn a_gap_between_two_runs_excuses_no_more_than_a_takeover_takes() {
        // The second run begins at 30.5 s: a takeover that takes 15 s begins at 15.5 s, and what was answered up to
        // 2 s before may have died with the former home.
        let first: Vec<u32> = (0..5).collect();
        let second: Vec<u32> = (31..40).collect();
        let (violations, account) = verdict_of(40, 30_500_000_000, &first, &second, 0);
        assert_eq!(account.lost_with_run, 17, "messages 14 to 30");
        assert_eq!(violations.count(Kind::Lost), 9 * 2, "messages 5 to 13, at two devices: {violations}");
    }

    #[test]
    fn a_quiet_room_says_nothing_before_its_run_ends_and_owes_nothing_more_for_it() {
        // One batch at 4.5 s, and the next message dies with its home 20 s later.
        let (first, second): (Vec<u32>, Vec<u32>) = ((0..23).collect(), (25..40).collect());
        let (violations, account) = verdict_of(40, 25_000_000_000, &first, &second, 0);
        assert!(violations.is_empty(), "{violations}");
        assert_eq!(account.lost_with_run, 2);
    }

    #[test]
    fn a_message_in_two_runs_came_twice_and_too_many_skips_are_inexact() {
        let (violations, _) = verdict(&[0, 1, 2, 3, 4, 5, 6], &[6, 7, 8, 9, 10, 11], 0);
        assert_eq!(violations.count(Kind::Twice), 2, "{violations}");
        let (violations, _) = verdict(&[0, 1, 2, 3, 4, 5, 6], &[7, 8, 9, 10, 11], 3);
        assert_eq!(violations.count(Kind::SkipInexact), 3, "{violations}");
    }
}
