//! Further attempts at requests: which requests, and at which time. Pure.
//!
//! A refusal is final only when no earlier attempt may have been taken. After an attempt without an answer,
//! the node may have taken the request, so a later refusal leaves the request unknown.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::ledger::Outcome;

/// Wait for the next attempt where no answer names a wait, times the attempts so far.
const BACKOFF_NS: u64 = 100_000_000;
/// Longest wait for the next attempt, even where an answer asks for more.
const BACKOFF_MAX_NS: u64 = 2_000_000_000;

/// Time for each allowed attempt. A long wait for an answer uses up the time of later attempts.
const ATTEMPT_AGE_NS: u64 = 1_500_000_000;

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// Taken, or refused with 4xx.
    Final(Outcome),
    /// Not taken, and worth another attempt: 503, 429 with a wait, or the request never left.
    NotTaken,
    /// No answer, or an answer without outcomes.
    Lost,
}

impl Tried {
    /// Reads an answer's code, outcomes and wait as the end of the attempt.
    pub(crate) fn of(code: u16, outcomes: &[Outcome], retry_after_ms: Option<u64>) -> Self {
        // A 429 without a wait is a quota for good: another attempt would be refused as well.
        let may_again = code == 503 || (code == 429 && retry_after_ms.is_some());
        match outcomes {
            [] => Self::Lost,
            all if all.contains(&Outcome::Unknown) => Self::Lost,
            [Outcome::Refused, ..] if may_again => Self::NotTaken,
            [first, ..] => Self::Final(*first),
        }
    }
}

/// The state of a request after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another attempt follows. Until then the request is unknown.
    Again,
    /// The last attempt decides.
    Settled,
    /// No attempt is left, or an earlier attempt may have been taken.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    attempts: u32,
    /// The end of the first attempt.
    since_ns: u64,
    /// An earlier attempt may have been taken.
    doubtful: bool,
}

/// The attempts of a publisher.
#[derive(Debug)]
pub(crate) struct Attempts {
    attempts_max: u32,
    /// Unsettled requests with a failed attempt: at most the requests sent.
    open: BTreeMap<u64, Open>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Attempts {
    /// Allows `attempts_max` attempts at each request. With 1, every attempt settles the request.
    pub(crate) fn new(attempts_max: u32) -> Self {
        Self { attempts_max, open: BTreeMap::new(), due: BinaryHeap::new() }
    }

    /// Takes note of the end of an attempt at `request`, and plans another where allowed.
    pub(crate) fn next(
        &mut self,
        request: u64,
        tried: Tried,
        now_ns: u64,
        retry_after_ms: Option<u64>,
    ) -> Next {
        // Chat has no `id`, so a second attempt could publish the message twice.
        if self.attempts_max <= 1 {
            return Next::Settled;
        }
        let begun = || Open { attempts: 0, since_ns: now_ns, doubtful: false };
        let mut open = self.open.remove(&request).unwrap_or_else(begun);
        open.attempts += 1;
        match tried {
            Tried::Final(Outcome::Refused) if open.doubtful => return Next::Unknown,
            Tried::Final(_) => return Next::Settled,
            Tried::Lost => open.doubtful = true,
            Tried::NotTaken => {}
        }
        let until_ns = open.since_ns + u64::from(self.attempts_max) * ATTEMPT_AGE_NS;
        if open.attempts >= self.attempts_max || now_ns >= until_ns {
            // A request that no attempt left in doubt was refused each time, so the refusal counts.
            return if open.doubtful { Next::Unknown } else { Next::Settled };
        }
        let wait_ns = retry_after_ms
            .map_or_else(|| BACKOFF_NS * u64::from(open.attempts), |ms| ms.saturating_mul(1_000_000))
            .min(BACKOFF_MAX_NS);
        self.open.insert(request, open);
        self.due.push(Reverse((now_ns + wait_ns, request)));
        Next::Again
    }

    /// The time of the next attempt.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Takes out a request whose next attempt is due.
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
