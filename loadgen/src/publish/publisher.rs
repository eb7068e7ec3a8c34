//! Publishes by the schedule, over HTTP/1.1 keep-alive connections, on a thread of its own.
//!
//! Open loop: a request leaves when it is due, whether or not earlier ones were answered, as long as a connection is
//! free or may be opened. When all are busy it waits: latency counts from the schedule, so nothing is hidden by it. That
//! wait is the node's, which answers late; how late a request left though one was free is this machine's, and is recorded
//! as lateness. One request at a time per connection. Chat is sent once, because a message
//! without an `id` can't be repeated safely: what got no answer is unknown. A reliable one is sent again with the same
//! `id` until it is answered (`attempts`), and unknown until then.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
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
use crate::publish::answer::{Answer, read_answer};
use crate::publish::attempts::{Attempts, Next, Tried};
use crate::publish::request::{Requests, Traffic};
use crate::scenario::payload::Payloads;
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;

/// Requests in flight at one time. Past it, later ones wait for an answer.
const IN_FLIGHT_MAX: usize = 64;
/// An answer that takes longer leaves its messages unknown.
const ANSWER_AGE_MAX_NS: u64 = 10_000_000_000;
const TIMER: Token = Token(usize::MAX);

/// How to publish.
#[derive(Debug)]
pub(crate) struct PublisherPlan {
    /// Where.
    pub(crate) door: Door,
    /// How requests are spelt.
    pub(crate) encoding: Encoding,
    /// Sent as a bearer token.
    pub(crate) publisher_key: Option<String>,
    /// Rooms by index.
    pub(crate) room_names: Vec<String>,
    /// What messages hold.
    pub(crate) payloads: Payloads,
    /// What they are.
    pub(crate) traffic: Traffic,
    /// What is due, or leaves, so soon after the start is not timed.
    pub(crate) warm_up_ns: u64,
}

/// What publishing brought.
#[derive(Debug)]
pub(crate) struct Outcomes {
    /// How every message ended.
    pub(crate) published: Published,
    /// How much later each message left than it was due and could leave.
    pub(crate) lateness: Latency,
    /// From when a request left to its answer.
    pub(crate) answer_latency: Latency,
    /// The same over the time of the run, by when requests left.
    pub(crate) answers: Timeline,
    /// Answers by their status.
    pub(crate) codes: BTreeMap<u16, u64>,
    /// Messages that took the place of a waiting one.
    pub(crate) merged: u64,
    /// Messages that were not taken, by reason; each attempt counts.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Attempts after a message's first.
    pub(crate) retried: u64,
    /// The first few refusals and failures, in words.
    pub(crate) troubles: Vec<String>,
    /// The part of a processor that the publisher's thread used in its busiest second from the start to the last answer.
    pub(crate) busy: f64,
    /// What is due, or leaves, before this is in no histogram.
    timed_from_ns: u64,
}

impl Outcomes {
    /// Nothing but how messages ended, or none yet.
    #[must_use]
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
            timed_from_ns: 0,
        }
    }

    fn answered(&mut self, code: u16, sent_ns: u64, now_ns: u64) {
        let took_ns = now_ns.saturating_sub(sent_ns);
        self.answer_latency.record(took_ns, u64::from(sent_ns >= self.timed_from_ns));
        let after_start_ns = sent_ns.saturating_sub(self.published.schedule().start_ns);
        self.answers.record(after_start_ns, took_ns, 1);
        *self.codes.entry(code).or_default() += 1;
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// What is being sent, and how much of it is gone.
    out: Vec<u8>,
    out_sent: usize,
    answer: Vec<u8>,
    /// The request in flight and when it left.
    flight: Option<(u64, u64)>,
}

/// Places for requests that nothing is in flight at.
#[derive(Debug)]
struct Free {
    /// The most recently used last, so that few stay warm and the rest lapse.
    slots: Vec<usize>,
    /// When there was one again after there was none.
    since_ns: u64,
}

impl Free {
    fn all(slots: usize) -> Self {
        Self { slots: (0..slots).rev().collect(), since_ns: 0 }
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn take(&mut self) -> Option<usize> {
        self.slots.pop()
    }

    fn give(&mut self, slot: usize, now_ns: u64) {
        if self.slots.is_empty() {
            self.since_ns = now_ns;
        }
        self.slots.push(slot);
    }

    /// How late what leaves now does so by this machine's doing: from when it was due and there was a place for it.
    fn late_ns(&self, due_ns: u64, now_ns: u64) -> u64 {
        now_ns.saturating_sub(due_ns.max(self.since_ns))
    }
}

struct Publisher {
    poll: Poll,
    timer: TimerFd,
    door: Door,
    requests: Requests,
    connections: Vec<Option<Connection>>,
    free: Free,
    /// Requests in flight in the order they left, for their deadlines.
    flights: VecDeque<(u64, usize, u64)>,
    in_flight: usize,
    attempts: Attempts,
    busiest: Busiest,
    outcomes: Outcomes,
}

/// Publishes all of `published`'s schedule, and waits for the answers.
///
/// # Errors
/// When the kernel gives no epoll or timer descriptor.
pub(crate) fn publish(plan: PublisherPlan, published: Published) -> std::io::Result<Outcomes> {
    let poll = Poll::new()?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
    poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
    let attempts_max = plan.traffic.attempts_max;
    let start_ns = published.schedule().start_ns;
    let timed_from_ns = start_ns + plan.warm_up_ns;
    let mut publisher = Publisher {
        poll,
        timer,
        door: plan.door.clone(),
        requests: Requests::new(plan),
        connections: (0..IN_FLIGHT_MAX).map(|_| None).collect(),
        free: Free::all(IN_FLIGHT_MAX),
        flights: VecDeque::new(),
        in_flight: 0,
        attempts: Attempts::new(attempts_max),
        busiest: Busiest::from(start_ns, thread_processor_ns()),
        outcomes: Outcomes { timed_from_ns, ..Outcomes::new(published) },
    };
    publisher.run()?;
    publisher.outcomes.busy = publisher.busiest.end(monotonic_ns(), thread_processor_ns());
    Ok(publisher.outcomes)
}

impl Publisher {
    fn run(&mut self) -> std::io::Result<()> {
        let schedule = self.outcomes.published.schedule().clone();
        let mut events = Events::with_capacity(IN_FLIGHT_MAX + 1);
        let mut next = 0;
        while next < schedule.requests() || self.in_flight > 0 || self.attempts.due_ns().is_some() {
            let mut now_ns = monotonic_ns();
            while !self.free.is_empty()
                && let Some(request) = self.attempts.take_due(now_ns)
            {
                let Some(slot) = self.free.take() else { break };
                self.outcomes.retried += 1;
                self.leave(slot, request, now_ns);
            }
            while next < schedule.requests() && schedule.request_due_ns(next) <= now_ns {
                let Some(slot) = self.free.take() else { break };
                self.send(slot, next);
                next += 1;
                now_ns = monotonic_ns();
            }
            self.expire(now_ns);
            if self.busiest.is_due(now_ns) {
                self.busiest.read(now_ns, thread_processor_ns());
            }
            let due = (next < schedule.requests()).then(|| schedule.request_due_ns(next));
            let due = due.into_iter().chain(self.attempts.due_ns()).min().filter(|_| !self.free.is_empty());
            if due.is_none_or(|due_ns| due_ns > now_ns) {
                self.wait(&mut events, due)?;
            }
        }
        Ok(())
    }

    /// Waits for an answer, or for the next request's time; to the microsecond, as epoll's own timeout can't.
    fn wait(&mut self, events: &mut Events, due_ns: Option<u64>) -> std::io::Result<()> {
        let deadline = self.flights.front().map(|(_, _, sent_ns)| sent_ns + ANSWER_AGE_MAX_NS);
        if let Some(wake_ns) = due_ns.into_iter().chain(deadline).min() {
            let at = TimeSpec::from(std::time::Duration::from_nanos(wake_ns));
            self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        }
        match self.poll.poll(events, None) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in events.iter() {
            let slot = event.token().0;
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
        let schedule = self.outcomes.published.schedule();
        let numbers = schedule.numbers_of(request);
        let due_ns = schedule.request_due_ns(request);
        let late_ns = self.free.late_ns(due_ns, now_ns);
        let is_timed = u64::from(due_ns >= self.outcomes.timed_from_ns);
        self.outcomes.lateness.record(late_ns, (numbers.end - numbers.start) * is_timed);
        self.leave(slot, request, now_ns);
    }

    /// One attempt at a request.
    fn leave(&mut self, slot: usize, request: u64, now_ns: u64) {
        self.in_flight += 1;
        if self.connections[slot].is_none() {
            match self.open(slot) {
                Ok(connection) => self.connections[slot] = Some(connection),
                Err(error) => return self.settle_without_connection(slot, request, &error.to_string()),
            }
        }
        let Some(connection) = &mut self.connections[slot] else { return };
        connection.flight = Some((request, now_ns));
        connection.out.clear();
        connection.out_sent = 0;
        self.requests.write(self.outcomes.published.schedule(), request, &mut connection.out);
        self.flights.push_back((request, slot, now_ns));
        self.write(slot);
    }

    fn open(&self, slot: usize) -> std::io::Result<Connection> {
        let mut stream = TcpStream::connect(self.door.address())?;
        stream.set_nodelay(true)?;
        self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { stream, out: Vec::new(), out_sent: 0, answer: Vec::new(), flight: None })
    }

    fn write(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        while connection.out_sent < connection.out.len() {
            match connection.stream.write(&connection.out[connection.out_sent..]) {
                Ok(0) => return self.fail(slot, "the connection takes nothing more"),
                Ok(written) => connection.out_sent += written,
                // Not connected yet, or full: the next readiness goes on.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(slot, &error.to_string()),
            }
        }
    }

    fn read(&mut self, slot: usize) {
        let mut chunk = [0; 16 * 1024];
        loop {
            let Some(connection) = &mut self.connections[slot] else { return };
            match connection.stream.read(&mut chunk) {
                Ok(0) => return self.fail(slot, "ended without an answer"),
                Ok(read) => {
                    connection.answer.extend_from_slice(&chunk[..read]);
                    self.take_answer(slot);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.fail(slot, &error.to_string()),
            }
        }
    }

    fn take_answer(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let Some((request, sent_ns)) = connection.flight else {
            return self.fail(slot, "an answer to nothing");
        };
        let numbers = self.outcomes.published.schedule().numbers_of(request);
        let messages = usize::try_from(numbers.end - numbers.start).unwrap_or(usize::MAX);
        match read_answer(&connection.answer, messages) {
            Answer::Half => {}
            Answer::Bad(reason) => self.fail(slot, &reason),
            Answer::Whole {
                code,
                bytes,
                outcomes,
                offsets,
                merged,
                refusals,
                retry_after_ms,
                trouble,
                keeps,
            } => {
                let now_ns = monotonic_ns();
                connection.answer.drain(..bytes);
                connection.flight = None;
                self.outcomes.answered(code, sent_ns, now_ns);
                self.outcomes.merged += merged;
                for (reason, count) in refusals {
                    *self.outcomes.refusals.entry(reason).or_default() += count;
                }
                if !keeps {
                    self.connections[slot] = None;
                }
                self.in_flight -= 1;
                self.free.give(slot, now_ns);
                for (number, offset) in numbers.zip(offsets).filter(|(_, offset)| *offset > 0) {
                    self.outcomes.published.placed(number, offset);
                }
                let tried = Tried::of(code, &outcomes, retry_after_ms);
                match self.attempts.next(request, tried, now_ns, retry_after_ms) {
                    Next::Again => {}
                    Next::Unknown => self.outcomes.published.answered(request, now_ns, []),
                    Next::Settled => self.outcomes.published.answered(request, now_ns, outcomes),
                }
                if let Some(trouble) = trouble {
                    self.note(trouble);
                }
            }
        }
    }

    /// A connection that is of no use any more. What was in flight on it stays unknown.
    #[cold]
    fn fail(&mut self, slot: usize, reason: &str) {
        let Some(connection) = self.connections[slot].take() else { return };
        // The server closes connections that were free for long; only one in flight is trouble.
        if let Some((request, _)) = connection.flight {
            self.note(format!("request {request}: {reason}"));
            self.in_flight -= 1;
            let now_ns = monotonic_ns();
            self.free.give(slot, now_ns);
            // What becomes of it, unknown or tried again, it is unknown as yet.
            let _: Next = self.attempts.next(request, Tried::Lost, now_ns, None);
        }
    }

    #[cold]
    fn settle_without_connection(&mut self, slot: usize, request: u64, reason: &str) {
        // Nothing left this machine, so nothing may appear; unless an earlier attempt did leave.
        let now_ns = monotonic_ns();
        if self.attempts.next(request, Tried::NotTaken, now_ns, None) == Next::Settled {
            let numbers = self.outcomes.published.schedule().numbers_of(request);
            let refused = numbers.map(|_| Outcome::Refused);
            self.outcomes.published.answered(request, now_ns, refused);
        }
        self.note(format!("request {request}: {reason}"));
        self.in_flight -= 1;
        self.free.give(slot, now_ns);
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some((request, slot, sent_ns)) = self.flights.front().copied() {
            let open = self.connections[slot].as_ref().and_then(|connection| connection.flight);
            if open != Some((request, sent_ns)) {
                self.flights.pop_front();
            } else if now_ns >= sent_ns + ANSWER_AGE_MAX_NS {
                self.flights.pop_front();
                self.fail(slot, "no answer in 10 s");
            } else {
                return;
            }
        }
    }

    fn note(&mut self, trouble: String) {
        if self.outcomes.troubles.len() < 5 {
            self.outcomes.troubles.push(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_an_answer_is_not_the_generators_lateness() {
        let mut free = Free::all(2);
        assert_eq!((free.late_ns(1_000, 1_500), free.take(), free.take()), (500, Some(0), Some(1)));
        assert!(free.is_empty(), "all wait for the node");
        free.give(1, 90_000);
        free.give(0, 95_000);
        assert_eq!(free.take(), Some(0));
        assert_eq!(free.late_ns(2_000, 95_010), 5_010, "due long ago, and it could leave from 90 000 on");
        assert_eq!(free.late_ns(95_000, 95_010), 10);
    }
}
