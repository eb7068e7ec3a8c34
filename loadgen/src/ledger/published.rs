//! The publisher's half of the ledger: the times of each request and the outcome of each message.

use std::collections::BTreeMap;

use crate::scenario::schedule::Schedule;

/// The end of a message's publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unsent,
    /// Accepted: every device must get the message.
    Ok,
    /// Shed, or refused with 4xx or with a 503 that promises that nothing was taken: no device may get the
    /// message.
    Refused,
    /// No answer, or an answer without outcomes: devices may get the message or not.
    Unknown,
}

/// The times of a request; `u64::MAX` while an event has not happened.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    sent_ns: u64,
    answered_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) schedule: Schedule,
    attempts: Vec<Attempt>,
    outcomes: Vec<Outcome>,
    /// Offsets by message, 0: none. Empty until an answer names an offset, so chat costs no memory here.
    offsets: Vec<u64>,
}

/// Messages by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutcomeCounts {
    pub(crate) ok: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

impl Published {
    /// A ledger of `schedule` without a sent message.
    pub(crate) fn new(schedule: Schedule) -> Self {
        let requests = usize::try_from(schedule.requests()).expect("a run's requests fit memory");
        let messages = usize::try_from(schedule.messages).expect("a run's messages fit memory");
        Self {
            schedule,
            attempts: vec![Attempt { sent_ns: u64::MAX, answered_ns: u64::MAX }; requests],
            outcomes: vec![Outcome::Unsent; messages],
            offsets: Vec::new(),
        }
    }

    /// Notes the beginning of `request`. Until an answer comes, the messages are unknown.
    pub(crate) fn sent(&mut self, request: u64, now_ns: u64) {
        let attempt = &mut self.attempts[index(request)];
        // A device may have the message since the first of several attempts.
        attempt.sent_ns = attempt.sent_ns.min(now_ns);
        for number in self.schedule.numbers_of(request) {
            self.outcomes[index(number)] = Outcome::Unknown;
        }
    }

    /// Notes the answer to `request`, with outcomes in the order of the messages. A message without an
    /// outcome stays unknown.
    pub(crate) fn answered(
        &mut self,
        request: u64,
        now_ns: u64,
        outcomes: impl IntoIterator<Item = Outcome>,
    ) {
        self.attempts[index(request)].answered_ns = now_ns;
        for (number, outcome) in self.schedule.numbers_of(request).zip(outcomes) {
            self.outcomes[index(number)] = outcome;
        }
    }

    /// Notes the answered offset of message `number`.
    pub(crate) fn placed(&mut self, number: u64, offset: u64) {
        self.offsets.resize(self.outcomes.len(), 0);
        self.offsets[index(number)] = offset;
    }

    /// The answered offset of message `number`; 0: none.
    pub(crate) fn offset(&self, number: u64) -> u64 {
        self.offsets.get(index(number)).copied().unwrap_or(0)
    }

    /// The newest answered offset of each room.
    pub(crate) fn heads_by_room(&self) -> Vec<u64> {
        let mut heads = vec![0_u64; index(u64::from(self.schedule.rooms))];
        for (number, offset) in (0_u64..).zip(&self.offsets) {
            let head = &mut heads[index(u64::from(self.schedule.room_of(number)))];
            *head = (*head).max(*offset);
        }
        heads
    }

    pub(crate) fn outcome(&self, number: u64) -> Outcome {
        self.outcomes[index(number)]
    }

    /// The time at which message `number` first began to leave.
    pub(crate) fn sent_ns(&self, number: u64) -> u64 {
        self.attempts[index(self.schedule.request_of(number))].sent_ns
    }

    /// The time of the answer to message `number`.
    pub(crate) fn answered_ns(&self, number: u64) -> u64 {
        self.attempts[index(self.schedule.request_of(number))].answered_ns
    }

    /// The numbers of a room's messages, in the order of the schedule.
    pub(crate) fn numbers_in(&self, room: u32) -> impl Iterator<Item = u64> + Clone + '_ {
        (0..self.schedule.messages_of(room)).map(move |place| self.schedule.number_at(room, place))
    }

    pub(crate) fn outcomes(&self) -> OutcomeCounts {
        let count = |wanted| self.outcomes.iter().filter(|outcome| **outcome == wanted).count() as u64;
        OutcomeCounts {
            ok: count(Outcome::Ok),
            refused: count(Outcome::Refused),
            unknown: count(Outcome::Unknown),
        }
    }

    /// Second after the start -> messages due in that second that were refused or are unknown.
    pub(crate) fn failed_by_second(&self) -> BTreeMap<u64, u64> {
        let mut seconds = BTreeMap::new();
        let failed = |(_, outcome): &(u64, &Outcome)| matches!(outcome, Outcome::Refused | Outcome::Unknown);
        for (number, _) in (0_u64..).zip(&self.outcomes).filter(failed) {
            let after_ns = self.schedule.due_ns(number).saturating_sub(self.schedule.start_ns);
            *seconds.entry(after_ns / 1_000_000_000).or_default() += 1;
        }
        seconds
    }

    /// Accepted messages of each room, times the count `each` of a message.
    pub(crate) fn ok_by_room(&self, each: u64) -> Vec<u64> {
        let mut rooms = vec![0_u64; index(u64::from(self.schedule.rooms))];
        for (number, _) in (0_u64..).zip(&self.outcomes).filter(|(_, outcome)| **outcome == Outcome::Ok) {
            rooms[index(u64::from(self.schedule.room_of(number)))] += each;
        }
        rooms
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("Published::new made room for it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_in_the_second_of_their_due_time() {
        let schedule = Schedule::even(6, 2_000, 1, 1).starting(5_000_000_000);
        let mut published = Published::new(schedule);
        for (number, outcome) in
            (0..).zip([Outcome::Ok, Outcome::Refused, Outcome::Unknown, Outcome::Ok, Outcome::Refused])
        {
            published.sent(number, 0);
            published.answered(number, 9_000_000_000, [outcome]);
        }
        assert_eq!(published.failed_by_second(), BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
    }
}
