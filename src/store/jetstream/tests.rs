//! The slot's log against a simulated JetStream: facts one by one, twins with the store in memory, and random
//! schedules of two nodes.

mod facts;
mod records;
mod sim_log;
mod twins;
mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use roomcast_core::cluster::{Slot, Term};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Epoch, MessageId, RoomName};
use roomcast_core::room::message::{Class, Message, Payload, sample};
use roomcast_core::room::policy::TypePolicy;

use super::ops::{LogHeard, LogOp, OpId};
use super::orders::{LogNews, LogOrder};
use super::record::Claimant;
use super::slot::SlotLog;
use crate::clock;
use crate::store::time::{LastTimes, StoreClock};
use crate::store::{Append, StoreAnswer, StoreRequest};
use sim_log::SimLog;

const SLOT: Slot = Slot(7);
const EPOCH: Epoch = Epoch(0xabc);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

fn node(name: &str, incarnation: u64) -> Claimant {
    Claimant { node: name.into(), incarnation }
}

/// A reliable message whose payload is `text`.
fn message(offset: u64, ttl: Duration, text: &[u8]) -> Arc<Message> {
    Arc::new(Message {
        policy: TypePolicy::of(Class::Reliable),
        id: Some(MessageId::parse(&format!("id-{offset}")).unwrap()),
        payload: Payload::Opaque(Bytes::copy_from_slice(text)),
        ttl,
        offset,
        wire_bytes: 60 + text.len(),
        ..sample("coupon", "")
    })
}

fn append(name: &str, life: u64, offsets: std::ops::RangeInclusive<u64>, now: Now) -> Append {
    let messages = offsets.map(|offset| message(offset, Duration::from_secs(600), b"{}")).collect();
    Append { room: room(name), life, epoch: EPOCH, durable: 0, accepted: now.instant, messages }
}

fn claim(heard: Term) -> LogOrder {
    LogOrder::Claim { slot: SLOT, heard }
}

/// One machine over a log that answers at once, unless told otherwise.
struct Bench {
    now: Now,
    clock: StoreClock,
    log: SimLog,
    machine: SlotLog,
    /// Operations without an answer.
    unanswered: Vec<LogOp>,
    /// True: the log keeps still, and operations stay in `unanswered`.
    is_silent: bool,
    /// True: operations wait for their turn in `unanswered`.
    is_in_line: bool,
    answers: Vec<StoreAnswer>,
    news: Vec<LogNews>,
}

impl Bench {
    fn new(bytes_max: u64) -> Self {
        let now = clock::now();
        let clock = StoreClock::start(LastTimes::default(), now);
        Self {
            now,
            clock,
            log: SimLog::default(),
            machine: SlotLog::new(SLOT, node("a", 1), clock, bytes_max),
            unanswered: Vec::new(),
            is_silent: false,
            is_in_line: false,
            answers: Vec::new(),
            news: Vec::new(),
        }
    }

    /// A bench whose machine holds the slot.
    fn held(bytes_max: u64) -> Self {
        let mut bench = Self::new(bytes_max);
        bench.order(&claim(Term::default()));
        assert!(matches!(bench.news.pop(), Some(LogNews::Claimed { .. })));
        bench
    }

    fn order(&mut self, order: &LogOrder) {
        self.machine.order(order, self.now);
        self.settle();
    }

    fn request(&mut self, request: StoreRequest) {
        self.machine.request(0, request, self.now);
        self.settle();
    }

    fn hear(&mut self, id: OpId, heard: LogHeard) {
        self.machine.hear(id, heard, self.now);
        self.settle();
    }

    /// Moves time, with all deadlines on the way.
    fn wait(&mut self, by: Duration) {
        let end = self.now.later(by);
        while let Some(at) = self.machine.poll_deadline().filter(|at| *at <= end.instant) {
            self.now = self.now.later(at.saturating_duration_since(self.now.instant));
            self.machine.due(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// Has the log answer all operations, unless it is silent.
    fn settle(&mut self) {
        while let Some(op) = self.machine.poll_op() {
            if !self.is_in_line {
                self.machine.leaves(op.id, self.now);
            }
            if self.is_silent || self.is_in_line {
                self.unanswered.push(op);
                continue;
            }
            let heard = self.log.perform(&op.kind, self.now);
            self.machine.hear(op.id, heard, self.now);
        }
        while let Some((desk, answer)) = self.machine.poll_answer() {
            assert_eq!(desk, 0);
            self.answers.push(answer);
        }
        while let Some(news) = self.machine.poll_news() {
            self.news.push(news);
        }
        self.machine.check_invariants();
    }

    /// The answers so far.
    fn answers(&mut self) -> Vec<StoreAnswer> {
        std::mem::take(&mut self.answers)
    }
}
