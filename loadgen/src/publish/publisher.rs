//! The publisher: requests at their time over HTTP/1.1 keep-alive connections, on a thread of its own.
//!
//! Open loop: a request leaves at the due time, whatever became of earlier requests, as long as a connection
//! is free or may be opened. While all connections are busy the request waits. Latency counts from the
//! schedule, so the wait is in the figures. Such a wait is the node's, whose answers are late. A request
//! leaving late with a free connection shows this machine's own lateness, which is recorded apart.
//!
//! Several doors are used in turn, each by the connections of its own.
//!
//! A connection carries one request at a time. Chat is sent once, because a message without an `id` cannot be
//! repeated safely: without an answer the message is unknown. A reliable message is sent again with the same
//! `id` until an answer comes (`attempts`).

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::clock::{monotonic_ns, thread_processor_ns};
use crate::figures::latency::Latency;
use crate::figures::timeline::Timeline;
use crate::ledger::{Outcome, Published};
use crate::machine::busy::Busiest;
use crate::publish::answer::read_answer;
use crate::publish::attempts::{Attempts, Next, Tried};
use crate::publish::request::{Requests, Traffic};
use crate::scenario::plan::Plan;
use crate::stop;
use crate::wire::exchange::Exchange;

/// Requests in flight at one time, and so connections. Later requests wait for an answer.
const IN_FLIGHT_MAX: usize = 64;
/// Longest wait for an answer. Past the wait the messages of the request are unknown.
const ANSWER_AGE_MAX_NS: u64 = 10_000_000_000;
/// Longest time of publishing past the end of the schedule. Past it open requests are unknown and requests
/// that never left are refused: a node that answers late, or never, holds up no run.
const AFTER_END_NS: u64 = 4_000_000_000;
/// Longest wait for answers after a signal.
const AFTER_STOP_NS: u64 = 2_000_000_000;
/// Longest time without a look at the clock and at the wish to stop.
const WAIT_MAX_NS: u64 = 100_000_000;
/// Reason of messages that no connection was free for until the end.
const NEVER_SENT: &str = "never_sent";
/// Refusals and failures told in words.
const TROUBLES_MAX: usize = 5;
const TIMER: Token = Token(usize::MAX);

/// The result of publishing.
#[derive(Debug)]
pub(crate) struct Outcomes {
    pub(crate) published: Published,
    /// Time from the moment at which a message was due and a connection free to the message's leaving.
    pub(crate) lateness: Latency,
    /// Time from a request's leaving to the answer.
    pub(crate) answer_latency: Latency,
    /// The same for the whole run, warm-up included, by the time of leaving.
    pub(crate) answers: Timeline,
    /// Answers by status code.
    pub(crate) codes: BTreeMap<u16, u64>,
    /// Messages that took the place of a waiting message.
    pub(crate) merged: u64,
    /// Refused messages by reason; each attempt counts.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Attempts after a request's first.
    pub(crate) retried: u64,
    /// The first few refusals and failures, in words.
    pub(crate) troubles: Vec<String>,
    /// The part of a processor used by the publisher's thread in the busiest second, from the start to the
    /// last answer.
    pub(crate) busy: f64,
    /// Time of the latest answer; 0 without an answer.
    pub(crate) answered_ns: u64,
    /// Start of the time covered by lateness and answer latency.
    timed_from_ns: u64,
}

impl Outcomes {
    /// Outcomes without figures.
    pub(crate) fn new(published: Published) -> Self {
        Self {
            published,
            lateness: Latency::default(),
            answer_latency: Latency::default(),
            answers: Timeline::default(),
            codes: BTreeMap::new(),
            merged: 0,
            refusals: BTreeMap::new(),
            retried: 0,
            troubles: Vec::new(),
            busy: 0.0,
            answered_ns: 0,
            timed_from_ns: 0,
        }
    }

    fn answered(&mut self, code: u16, sent_ns: u64, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(sent_ns);
        self.answered_ns = now_ns;
        self.answer_latency.record(took_ns, u64::from(sent_ns >= self.timed_from_ns));
        let after_start_ns = sent_ns.saturating_sub(self.published.schedule.start_ns);
        self.answers.record(after_start_ns, took_ns, 1);
        *self.codes.entry(code).or_default() += 1;
    }

    fn note(&mut self, trouble: String) {
        if self.troubles.len() < TROUBLES_MAX {
            self.troubles.push(trouble);
        }
    }
}

#[derive(Debug)]
struct Connection {
    exchange: Exchange,
    /// The request in flight, and the time of leaving.
    flight: Option<(u64, u64)>,
}

/// Slots of connections without a request in flight.
#[derive(Debug)]
struct Free {
    /// The most recently used last: a few connections stay warm, and the node closes the rest.
    slots: Vec<usize>,
    /// The end of the last time without a free slot.
    since_ns: u64,
}

impl Free {
    fn all(slots: usize) -> Self {
        Self { slots: (0..slots).rev().collect(), since_ns: 0 }
    }

    /// Takes out the most recently used slot that is `wanted`, or else the most recently used of all.
    fn take(&mut self, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        match self.slots.iter().rposition(|slot| wanted(*slot)) {
            Some(place) => Some(self.slots.remove(place)),
            None => self.slots.pop(),
        }
    }

    fn give(&mut self, slot: usize, now_ns: u64) {
        if self.slots.is_empty() {
            self.since_ns = now_ns;
        }
        self.slots.push(slot);
    }

    /// The part of a message's wait caused by this machine: due, with a free slot, and still here.
    fn late_ns(&self, due_ns: u64, now_ns: u64) -> u64 {
        now_ns.saturating_sub(due_ns.max(self.since_ns))
    }
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    request: u64,
    slot: usize,
    sent_ns: u64,
}

struct Publisher {
    poll: Poll,
    timer: TimerFd,
    doors: Vec<SocketAddr>,
    /// Attempts so far: each goes to the door after the last one's.
    turn: usize,
    requests: Requests,
    connections: Vec<Option<Connection>>,
    free: Free,
    /// Requests in the order of their leaving, for their deadlines. Answered requests stay until they reach
    /// the front.
    flights: VecDeque<Flight>,
    attempts: Attempts,
    busiest: Busiest,
    outcomes: Outcomes,
    /// Time at which publishing ends, whatever the node does.
    gives_up_ns: u64,
}

/// Publishes `traffic` in the rooms of `plan`, and waits for the answers: at most [`AFTER_END_NS`] past the end
/// of the plan.
///
/// # Errors
/// When the kernel gives no epoll or timer descriptor.
pub(crate) fn publish(plan: &Plan, traffic: Traffic) -> std::io::Result<Outcomes> {
    let poll = Poll::new()?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
    let published = Published::new(traffic.load.schedule.clone());
    let start_ns = published.schedule.start_ns;
    let timed_from_ns = start_ns + plan.warm_up_ms * 1_000_000;
    let mut publisher = Publisher {
        poll,
        timer,
        doors: plan.target.publisher_doors.iter().map(|door| door.address).collect(),
        turn: 0,
        attempts: Attempts::new(traffic.attempts_max),
        requests: Requests::new(plan, traffic),
        connections: (0..IN_FLIGHT_MAX).map(|_| None).collect(),
        free: Free::all(IN_FLIGHT_MAX),
        flights: VecDeque::new(),
        busiest: Busiest::from(start_ns, thread_processor_ns()),
        outcomes: Outcomes { timed_from_ns, ..Outcomes::new(published) },
        gives_up_ns: start_ns + plan.seconds_milli * 1_000_000 + AFTER_END_NS,
    };
    publisher.run()?;
    publisher.outcomes.busy = publisher.busiest.end(monotonic_ns(), thread_processor_ns());
    Ok(publisher.outcomes)
}

impl Publisher {
    fn run(&mut self) -> std::io::Result<()> {
        let schedule = self.outcomes.published.schedule.clone();
        let mut events = Events::with_capacity(IN_FLIGHT_MAX + 1);
        let mut next = 0;
        let mut requests = schedule.requests();
        while next < requests || self.is_open() {
            let mut now_ns = monotonic_ns();
            if now_ns >= self.gives_up_ns {
                self.give_up(next..requests, now_ns);
                return Ok(());
            }
            if next < requests && stop::is_wanted() {
                // The rest of the schedule was neither sent nor refused: the run ended before.
                requests = next;
                self.gives_up_ns = self.gives_up_ns.min(now_ns + AFTER_STOP_NS);
            }
            // Repeated requests go first: their messages have waited longest.
            while !self.free.slots.is_empty()
                && let Some(request) = self.attempts.take_due(now_ns)
            {
                let Some(slot) = self.next_slot() else { break };
                self.outcomes.retried += 1;
                self.leave(slot, request, now_ns);
            }
            while next < requests && schedule.request_due_ns(next) <= now_ns {
                let Some(slot) = self.next_slot() else { break };
                self.send(slot, next);
                next += 1;
                // A burst takes time, and the lateness of its last request is part of the figures.
                now_ns = monotonic_ns();
            }
            self.expire(now_ns);
            self.busiest.look(now_ns, thread_processor_ns);
            let due = (next < requests).then(|| schedule.request_due_ns(next));
            // Without a free slot only an answer helps, and a due time in the past would spin.
            let due =
                due.into_iter().chain(self.attempts.due_ns()).min().filter(|_| !self.free.slots.is_empty());
            // The last open request may have ended above, and then no event follows.
            let is_over = next >= requests && !self.is_open();
            if due.is_none_or(|due_ns| due_ns > now_ns) && !is_over {
                self.wait(&mut events, due)?;
            }
        }
        Ok(())
    }

    /// Takes out a free slot: of the next door in turn, or of another door if that door's slots are all in
    /// use.
    fn next_slot(&mut self) -> Option<usize> {
        self.turn = (self.turn + 1) % self.doors.len();
        self.free.take(|slot| slot % self.doors.len() == self.turn)
    }

    /// A request waits for its answer or for its next attempt.
    fn is_open(&self) -> bool {
        self.free.slots.len() < IN_FLIGHT_MAX || self.attempts.due_ns().is_some()
    }

    /// Ends publishing with requests still open. The `unsent` requests never left, so no device may get their
    /// messages.
    #[cold]
    fn give_up(&mut self, unsent: Range<u64>, now_ns: u64) {
        let open = IN_FLIGHT_MAX - self.free.slots.len();
        self.connections.clear();
        let mut messages = 0;
        for request in unsent {
            let numbers = self.outcomes.published.schedule.numbers_of(request);
            messages += numbers.end - numbers.start;
            self.outcomes.published.answered(request, now_ns, numbers.map(|_| Outcome::Refused));
        }
        if messages > 0 {
            *self.outcomes.refusals.entry(NEVER_SENT.to_owned()).or_default() += messages;
        }
        let waited_s = AFTER_END_NS / 1_000_000_000;
        let trouble = format!(
            "gave up {waited_s} s after the end: {open} requests without an answer, {messages} messages never sent"
        );
        // First, because the list may be full of the requests that led here.
        self.outcomes.troubles.insert(0, trouble);
        self.outcomes.troubles.truncate(TROUBLES_MAX);
    }

    /// Waits for an answer or for the next request's time, at most [`WAIT_MAX_NS`].
    fn wait(&mut self, events: &mut Events, due_ns: Option<u64>) -> std::io::Result<()> {
        let deadline = self.flights.front().map(|flight| flight.sent_ns + ANSWER_AGE_MAX_NS);
        let latest_ns = self.gives_up_ns.min(monotonic_ns() + WAIT_MAX_NS);
        let wake_ns = due_ns.into_iter().chain(deadline).fold(latest_ns, u64::min);
        // epoll's own timeout counts milliseconds, too coarse for a schedule of thousands of requests a second.
        let at = TimeSpec::from(std::time::Duration::from_nanos(wake_ns));
        self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        match self.poll.poll(events, None) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in events.iter() {
            let slot = event.token().0;
            // A connection may be gone by an earlier event of the same poll.
            if event.token() == TIMER || self.connections[slot].is_none() {
                continue;
            }
            if event.is_writable() {
                self.write(slot);
            }
            if event.is_readable() || event.is_read_closed() {
                self.read(slot);
            }
        }
        Ok(())
    }

    fn send(&mut self, slot: usize, request: u64) {
        let now_ns = monotonic_ns();
        self.outcomes.published.sent(request, now_ns);
        let schedule = &self.outcomes.published.schedule;
        let numbers = schedule.numbers_of(request);
        let due_ns = schedule.request_due_ns(request);
        let late_ns = self.free.late_ns(due_ns, now_ns);
        let is_timed = u64::from(due_ns >= self.outcomes.timed_from_ns);
        self.outcomes.lateness.record(late_ns, (numbers.end - numbers.start) * is_timed);
        self.leave(slot, request, now_ns);
    }

    /// Makes an attempt at a request.
    fn leave(&mut self, slot: usize, request: u64, now_ns: u64) {
        if self.connections[slot].is_none() {
            match self.open(slot) {
                Ok(connection) => self.connections[slot] = Some(connection),
                Err(error) => return self.settle_without_connection(slot, request, &error.to_string()),
            }
        }
        let Some(connection) = &mut self.connections[slot] else { return };
        connection.flight = Some((request, now_ns));
        let door = slot % self.doors.len();
        self.requests.write(&self.outcomes.published.schedule, request, door, connection.exchange.begin());
        self.flights.push_back(Flight { request, slot, sent_ns: now_ns });
        self.write(slot);
    }

    fn open(&self, slot: usize) -> std::io::Result<Connection> {
        let mut stream = TcpStream::connect(self.doors[slot % self.doors.len()])?;
        // Nagle's algorithm would hold back a small request until the last answer's acknowledgement.
        stream.set_nodelay(true)?;
        self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { exchange: Exchange::new(stream, Vec::new()), flight: None })
    }

    fn write(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        if let Err(error) = connection.exchange.send() {
            self.fail(slot, &error.to_string());
        }
    }

    fn read(&mut self, slot: usize) {
        while let Some(connection) = &mut self.connections[slot] {
            match connection.exchange.receive() {
                Ok(true) => self.take_answer(slot),
                Ok(false) => return,
                Err(error) => self.fail(slot, &error.to_string()),
            }
        }
    }

    fn take_answer(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        // Pipelined bytes would be taken for the answer to the next request.
        let Some((request, sent_ns)) = connection.flight else {
            return self.fail(slot, "an answer to nothing");
        };
        let numbers = self.outcomes.published.schedule.numbers_of(request);
        let messages = usize::try_from(numbers.end - numbers.start).unwrap_or(usize::MAX);
        let answer = match read_answer(&connection.exchange.answer, messages) {
            Ok(None) => return,
            Ok(Some(answer)) => answer,
            Err(reason) => return self.fail(slot, &reason),
        };
        let now_ns = monotonic_ns();
        connection.exchange.answer.drain(..answer.bytes);
        connection.flight = None;
        if !answer.keeps {
            self.connections[slot] = None;
        }
        self.free.give(slot, now_ns);
        let outcomes: Vec<Outcome> = answer.results.iter().map(|result| result.outcome).collect();
        self.outcomes.answered(answer.code, sent_ns, now_ns);
        for (number, result) in numbers.zip(answer.results) {
            self.outcomes.merged += u64::from(result.is_merged);
            if result.offset > 0 {
                self.outcomes.published.placed(number, result.offset);
            }
            if result.outcome == Outcome::Refused {
                *self.outcomes.refusals.entry(result.reason).or_default() += 1;
            }
        }
        let tried = Tried::of(answer.code, &outcomes, answer.retry_after_ms);
        match self.attempts.next(request, tried, now_ns, answer.retry_after_ms) {
            Next::Again => {}
            Next::Unknown => self.outcomes.published.answered(request, now_ns, []),
            Next::Settled => self.outcomes.published.answered(request, now_ns, outcomes),
        }
        if let Some(trouble) = answer.trouble {
            self.outcomes.note(trouble);
        }
    }

    /// Gives up a connection. A request in flight there stays unknown, and may be tried again.
    #[cold]
    fn fail(&mut self, slot: usize, reason: &str) {
        let Some(connection) = self.connections[slot].take() else { return };
        // The node closes connections that were free for long. Only an interrupted request is trouble.
        if let Some((request, _)) = connection.flight {
            self.outcomes.note(format!("request {request}: {reason}"));
            let now_ns = monotonic_ns();
            self.free.give(slot, now_ns);
            // Settled, unknown or to be repeated: its messages are unknown already since they left.
            let _: Next = self.attempts.next(request, Tried::Lost, now_ns, None);
        }
    }

    #[cold]
    fn settle_without_connection(&mut self, slot: usize, request: u64, reason: &str) {
        let now_ns = monotonic_ns();
        // Nothing left this machine, so no message may appear, unless an earlier attempt did leave.
        if self.attempts.next(request, Tried::NotTaken, now_ns, None) == Next::Settled {
            let numbers = self.outcomes.published.schedule.numbers_of(request);
            let refused = numbers.map(|_| Outcome::Refused);
            self.outcomes.published.answered(request, now_ns, refused);
        }
        self.outcomes.note(format!("request {request}: {reason}"));
        self.free.give(slot, now_ns);
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(Flight { request, slot, sent_ns }) = self.flights.front().copied() {
            let open = self.connections[slot].as_ref().and_then(|connection| connection.flight);
            // An answered request's entry, or the entry of an earlier attempt at the same slot, is stale.
            let is_open = open == Some((request, sent_ns));
            if is_open && now_ns < sent_ns + ANSWER_AGE_MAX_NS {
                return;
            }
            self.flights.pop_front();
            if is_open {
                self.fail(slot, "no answer in 10 s");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_are_used_in_turn_and_one_with_all_slots_in_use_holds_up_nobody() {
        let mut free = Free::all(6);
        let mut take = |door: usize| free.take(|slot| slot % 3 == door);
        assert_eq!([take(1), take(2), take(0), take(1)], [Some(1), Some(2), Some(0), Some(4)]);
        assert_eq!([take(1), take(0), take(0)], [Some(3), Some(5), None], "of another door");
    }

    #[test]
    fn waiting_for_an_answer_is_not_the_generators_lateness() {
        let mut free = Free::all(2);
        assert_eq!((free.late_ns(1_000, 1_500), free.slots.pop(), free.slots.pop()), (500, Some(0), Some(1)));
        assert!(free.slots.is_empty(), "all wait for the node");
        free.give(1, 90_000);
        free.give(0, 95_000);
        assert_eq!(free.slots.pop(), Some(0));
        assert_eq!(free.late_ns(2_000, 95_010), 5_010, "due long ago, and it could leave from 90 000 on");
        assert_eq!(free.late_ns(95_000, 95_010), 10);
    }
}
