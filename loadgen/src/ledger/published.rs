//! What the publisher did: when each request left, when its answer came, and how each message ended.

use crate::scenario::schedule::Schedule;

/// How one message's publish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Never sent.
    Unsent,
    /// Accepted: every device must get it.
    Ok,
    /// Refused with 4xx or a 503 that says nothing was taken, or shed: no device may get it.
    Refused,
    /// No answer, or one that says nothing: devices may get it or not.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    sent_ns: u64,
    answered_ns: u64,
}

/// The publisher's half of the ledger.
#[derive(Debug)]
pub(crate) struct Published {
    schedule: Schedule,
    attempts: Vec<Attempt>,
    outcomes: Vec<Outcome>,
    /// Offsets as answered, 0: none. Empty while no answer named one, so that chat pays nothing for it.
    offsets: Vec<u64>,
}

/// How many messages ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutcomeCounts {
    /// Accepted.
    pub(crate) ok: u64,
    /// Refused or shed.
    pub(crate) refused: u64,
    /// Nobody knows.
    pub(crate) unknown: u64,
}

impl Published {
    /// Nothing sent yet of `schedule`.
    #[must_use]
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

    /// The schedule it follows.
    #[must_use]
    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Request `request` begins to leave; until an answer comes its messages are unknown.
    pub(crate) fn sent(&mut self, request: u64, now_ns: u64) {
        let attempt = &mut self.attempts[index(request)];
        // The first attempt counts where there are several.
        attempt.sent_ns = attempt.sent_ns.min(now_ns);
        for number in self.schedule.numbers_of(request) {
            self.outcomes[index(number)] = Outcome::Unknown;
        }
    }

    /// The answer to `request` is here. `outcomes` are those of its messages in order; missing ones stay unknown.
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

    /// The answer named the offset of message `number`.
    pub(crate) fn placed(&mut self, number: u64, offset: u64) {
        if self.offsets.is_empty() {
            self.offsets = vec![0; self.outcomes.len()];
        }
        self.offsets[index(number)] = offset;
    }

    /// The offset that message `number` was answered with; 0: none.
    #[must_use]
    pub(crate) fn offset(&self, number: u64) -> u64 {
        self.offsets.get(index(number)).copied().unwrap_or(0)
    }

    /// The newest offset of each room that was answered.
    #[must_use]
    pub(crate) fn heads_by_room(&self) -> Vec<u64> {
        let mut heads = vec![0_u64; index(u64::from(self.schedule.rooms))];
        for (number, offset) in (0_u64..).zip(&self.offsets) {
            let head = &mut heads[index(u64::from(self.schedule.room_of(number)))];
            *head = (*head).max(*offset);
        }
        heads
    }

    /// How message `number` ended.
    #[must_use]
    pub(crate) fn outcome(&self, number: u64) -> Outcome {
        self.outcomes[index(number)]
    }

    /// When message `number` began to leave; `u64::MAX` when it never did.
    #[must_use]
    pub(crate) fn sent_ns(&self, number: u64) -> u64 {
        self.attempts[index(self.schedule.request_of(number))].sent_ns
    }

    /// When the answer to message `number` came; `u64::MAX` when none did.
    #[must_use]
    pub(crate) fn answered_ns(&self, number: u64) -> u64 {
        self.attempts[index(self.schedule.request_of(number))].answered_ns
    }

    /// How many ended how.
    #[must_use]
    pub(crate) fn outcomes(&self) -> OutcomeCounts {
        let mut all = OutcomeCounts::default();
        for outcome in &self.outcomes {
            match outcome {
                Outcome::Ok => all.ok += 1,
                Outcome::Refused => all.refused += 1,
                Outcome::Unknown => all.unknown += 1,
                Outcome::Unsent => {}
            }
        }
        all
    }

    /// How many messages of each room were accepted, each of which stands for `each`.
    #[must_use]
    pub(crate) fn ok_by_room(&self, each: u64) -> Vec<u64> {
        let mut rooms = vec![0_u64; index(u64::from(self.schedule.rooms))];
        for (number, outcome) in (0_u64..).zip(&self.outcomes) {
            if *outcome == Outcome::Ok {
                rooms[index(u64::from(self.schedule.room_of(number)))] += each;
            }
        }
        rooms
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("Published::new made room for it")
}
