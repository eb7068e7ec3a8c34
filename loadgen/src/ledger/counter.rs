//! Settles a counter of a room: accepted publishes, growth told to devices, and totals.

use super::published::Outcome;
use super::seen::RoomSeen;
use super::span::Spans;
use super::verdict::{Account, Case};
use super::violation::{Kind, Violations};

/// Stands for the beginning of a room's life, where every counter is 0.
const BEGINNING: u64 = u64::MAX;

/// Judges a counter of a room that had devices, and gives the account.
///
/// Each told growth and each told total is a statement about a single line of totals. Between two seqs, the
/// growths add up to the difference of the totals, whichever frames a device was sent. So a device whose
/// growths and totals disagree contradicts itself or the others, and the last total must be the
/// accepted count.
pub(crate) fn check_counter(case: &Case<'_>, seen: &RoomSeen, violations: &mut Violations) -> Account {
    let name = format!("room {}: {}", seen.room, case.load.type_name);
    let mut totals = Spans::default();
    for (start, witness) in &seen.starts {
        // Rooms are new, so no growth may lie before a first welcome.
        if !totals.state(BEGINNING, *start, 0) {
            violations.add(Kind::CounterInexact, witness.devices, || {
                format!("{name}: device {} began at {start}, past its growth", witness.example)
            });
        }
    }
    for (claim, witness) in &seen.claims {
        let told = claim.of(case.kind);
        let adds = totals.state(claim.after, claim.through, told.add);
        // Both statements are made, even after a contradiction, so that later frames are held to all of them.
        let total = told.total.is_none_or(|total| totals.state(BEGINNING, claim.through, total));
        if !(adds && total) {
            violations.add(Kind::CounterInexact, witness.devices, || {
                format!(
                    "{name}: device {} was told in batches {} to {} of {} more and {:?} in all; \
                     the others' frames add up \
                     to {:?} and {:?}",
                    witness.example,
                    claim.after + 1,
                    claim.through,
                    told.add,
                    told.total,
                    totals.between(claim.after, claim.through),
                    totals.between(BEGINNING, claim.through)
                )
            });
        }
    }
    let outcomes = case.published.numbers_in(seen.room).map(|number| case.published.outcome(number));
    let count =
        |wanted| outcomes.clone().filter(|outcome| *outcome == wanted).count() as u64 * case.load.each();
    let accepted = count(Outcome::Ok);
    let unknown = count(Outcome::Unknown);
    // Another run publishes to the same counter.
    let most = if case.others { u64::MAX } else { accepted + unknown };
    let mut last = 0;
    for (end, witness) in &seen.ends {
        let total = totals.between(BEGINNING, *end).and_then(|total| u64::try_from(total).ok());
        last = last.max(total.unwrap_or(0));
        if total.is_none_or(|total| !(accepted..=most).contains(&total)) {
            violations.add(Kind::CounterInexact, witness.devices, || {
                format!(
                    "{name}: device {} ended with a total of {total:?}; \
                     {accepted} were accepted and {unknown} are unknown",
                    witness.example
                )
            });
        }
    }
    Account { accepted, given: last, ..Account::default() }
}

#[cfg(test)]
mod tests {
    use super::super::published::Published;
    use super::super::seen::{Claim, Told};
    use super::*;
    use crate::scenario::mix::{Class, Load};
    use crate::scenario::payload::Length;
    use crate::scenario::schedule::Schedule;

    /// Ten publishes of 50 each, two devices from seq 5 to 8, and these claims for both.
    fn verdict(claims: &[(u64, u64, u64, Option<u64>)], unknown: bool) -> Violations {
        let schedule = Schedule::even(10, 1_000, 1, 1);
        let mut published = Published::new(schedule.clone());
        for request in 0..10 {
            published.sent(request, 100 * request);
            let outcome = if unknown && request == 4 { Outcome::Unknown } else { Outcome::Ok };
            published.answered(request, 100 * request + 50, [outcome]);
        }
        let load = Load {
            type_name: "like".into(),
            class: Class::Counter,
            schedule,
            count: Some(50),
            keys: 0,
            length: Length::Fixed(60),
        };
        let mut seen = RoomSeen::new(0, 1);
        for (after, through, add, total) in claims {
            let told = Told { add: *add, total: *total, ..Told::default() };
            for device in 0..2 {
                seen.claimed(Claim { after: *after, through: *through, told: Box::new([told]) }, device);
            }
        }
        for device in 0..2 {
            seen.started(5, device);
            seen.ended(8, device);
        }
        let mut violations = Violations::default();
        let case = Case { kind: 0, load: &load, published: &published, others: false };
        check_counter(&case, &seen, &mut violations);
        violations
    }

    const EXACT: [(u64, u64, u64, Option<u64>); 3] =
        [(5, 6, 100, Some(100)), (6, 7, 0, None), (7, 8, 400, Some(500))];

    #[test]
    fn totals_that_are_what_was_accepted_are_no_violation() {
        assert!(verdict(&EXACT, false).is_empty());
        assert!(verdict(&EXACT, true).is_empty(), "an unknown publish may have counted");
        let mut without = EXACT;
        without[2] = (7, 8, 350, Some(450));
        assert!(verdict(&without, true).is_empty(), "or not");
        let refreshed = [EXACT[0], EXACT[1], EXACT[2], (5, 7, 100, Some(100)), (6, 8, 400, Some(500))];
        assert!(verdict(&refreshed, false).is_empty());
    }

    #[test]
    fn a_total_that_is_off_is_found_wherever_it_is() {
        for wrong in [
            [EXACT[0], EXACT[1], (7, 8, 401, Some(501))],
            [EXACT[0], EXACT[1], (7, 8, 399, Some(499))],
            [EXACT[0], EXACT[1], (7, 8, 400, Some(499))],
            [EXACT[0], EXACT[1], (7, 8, 399, Some(500))],
            [(5, 6, 99, Some(100)), EXACT[1], EXACT[2]],
            [EXACT[0], (6, 7, 1, None), EXACT[2]],
            [EXACT[0], EXACT[1], (7, 8, 0, None)],
            [EXACT[0], EXACT[2], (5, 7, 100, Some(101))],
        ] {
            assert!(verdict(&wrong, false).count(Kind::CounterInexact) >= 2, "{wrong:?}");
        }
    }
}
