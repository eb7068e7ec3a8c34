//! Which requests are tried again, and when. Pure.
//!
//! A refusal is final only if no earlier attempt may have been taken: after one without an answer, nobody knows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::ledger::Outcome;

/// How long the next attempt waits where no answer says, times the attempts so far.
const BACKOFF_NS: u64 = 100_000_000;
/// Longest wait for the next attempt, whatever an answer asks for.
const BACKOFF_MAX_NS: u64 = 2_000_000_000;

/// Time for each attempt that is allowed, on the whole: attempts that get no answer for long are fewer.
const ATTEMPT_AGE_NS: u64 = 1_500_000_000;

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// Answered with what is final: taken, or refused with 4xx.
    Final(Outcome),
    /// Not taken, and may be tried again: 503, 429 that says when, or it never left.
    NotTaken,
    /// Nobody knows: no answer, or one that says nothing.
    Lost,
}

impl Tried {
    /// What an answer with this code and these outcomes says of its attempt.
    #[must_use]
    pub(crate) fn of(code: u16, outcomes: &[Outcome], retry_after_ms: Option<u64>) -> Self {
        let may_again = code == 503 || (code == 429 && retry_after_ms.is_some());
        match outcomes {
            [] => Self::Lost,
            all if all.contains(&Outcome::Unknown) => Self::Lost,
            [Outcome::Refused, ..] if may_again => Self::NotTaken,
            [first, ..] => Self::Final(*first),
        }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is tried again; until then it is unknown.
    Again,
    /// It is as its last attempt ended.
    Settled,
    /// Its attempts are used up, or an earlier one may have been taken.
    Unknown,
}

#[derive(Debug, Clone, Copy, Default)]
struct Open {
    attempts: u32,
    /// When the first one ended.
    since_ns: u64,
    /// An earlier attempt may have been taken.
    doubtful: bool,
}

/// The attempts of a publisher.
#[derive(Debug)]
pub(crate) struct Attempts {
    attempts_max: u32,
    /// Requests with a failed attempt that are not settled: at most as many as were sent.
    open: BTreeMap<u64, Open>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Attempts {
    /// At most so many attempts at each request; with one, every attempt settles it.
    #[must_use]
    pub(crate) fn new(attempts_max: u32) -> Self {
        Self { attempts_max, open: BTreeMap::new(), due: BinaryHeap::new() }
    }

    /// An attempt at `request` ended.
    pub(crate) fn next(
        &mut self,
        request: u64,
        tried: Tried,
        now_ns: u64,
        retry_after_ms: Option<u64>,
    ) -> Next {
        if self.attempts_max <= 1 {
            return Next::Settled;
        }
        let mut open = self.open.remove(&request).unwrap_or_default();
        if open.attempts == 0 {
            open.since_ns = now_ns;
        }
        open.attempts += 1;
        let until_ns = open.since_ns + u64::from(self.attempts_max) * ATTEMPT_AGE_NS;
        match tried {
            Tried::Final(Outcome::Refused) if open.doubtful => return Next::Unknown,
            Tried::Final(_) => return Next::Settled,
            Tried::Lost => open.doubtful = true,
            Tried::NotTaken => {}
        }
        if open.attempts >= self.attempts_max || now_ns >= until_ns {
            // Never taken, however often it was tried: a refusal.
            return if open.doubtful { Next::Unknown } else { Next::Settled };
        }
        let wait_ns = retry_after_ms
            .map_or_else(|| BACKOFF_NS * u64::from(open.attempts), |ms| ms.saturating_mul(1_000_000))
            .min(BACKOFF_MAX_NS);
        self.open.insert(request, open);
        self.due.push(Reverse((now_ns + wait_ns, request)));
        Next::Again
    }

    /// When the next attempt is due.
    #[must_use]
    pub(crate) fn due_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// A request whose next attempt is due.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        self.due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        self.due.pop().map(|Reverse((_, request))| request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn what_got_no_answer_is_tried_again_after_what_was_asked_for() {
        let mut attempts = Attempts::new(3);
        assert_eq!(attempts.next(7, Tried::Lost, 0, Some(1_000)), Next::Again);
        assert_eq!(attempts.take_due(SECOND_NS - 1), None);
        assert_eq!(attempts.take_due(SECOND_NS), Some(7));
        assert_eq!(attempts.next(7, Tried::Lost, SECOND_NS, None), Next::Again);
        assert_eq!(attempts.due_ns(), Some(SECOND_NS + 2 * BACKOFF_NS));
        assert_eq!(attempts.take_due(2 * SECOND_NS), Some(7));
        assert_eq!(attempts.next(7, Tried::Final(Outcome::Ok), SECOND_NS, None), Next::Settled);
        assert_eq!(attempts.due_ns(), None);
    }

    #[test]
    fn a_refusal_after_a_lost_attempt_is_unknown_and_attempts_are_bounded() {
        let mut attempts = Attempts::new(2);
        assert_eq!(attempts.next(1, Tried::Final(Outcome::Refused), 0, None), Next::Settled);
        assert_eq!(attempts.next(2, Tried::Lost, 0, None), Next::Again);
        assert_eq!(attempts.next(2, Tried::Final(Outcome::Refused), 0, None), Next::Unknown);
        assert_eq!(attempts.next(3, Tried::NotTaken, 0, None), Next::Again);
        assert_eq!(attempts.next(3, Tried::NotTaken, 0, None), Next::Settled);
        assert_eq!(attempts.next(4, Tried::NotTaken, 0, None), Next::Again);
        assert_eq!(attempts.next(4, Tried::Lost, 0, None), Next::Unknown);
    }
}
