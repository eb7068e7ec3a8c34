//! A world of views over a bus that loses, delays, repeats and parts, with a linear log for each slot. The clocks of
//! the nodes run at different speeds. Times of the world are microseconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::cluster::handover::HandOvers;
use crate::limits::VIEW_INTERVAL;
use crate::now::Now;

mod handed;

pub(super) const MS: u64 = 1000;
pub(super) const S: u64 = 1000 * MS;

/// Longest time for which two nodes order a slot: the right of the first one, a look, and the way of a word.
const OVERLAP_MAX: u64 = 2400 * MS;

/// The events that each sweep has to reach.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    pub(super) takeovers: u64,
    pub(super) freezes: u64,
    pub(super) thaws: u64,
    pub(super) two_claims: u64,
    pub(super) reconnects: u64,
    pub(super) fences: u64,
    pub(super) releases: u64,
    pub(super) met_claims: u64,
    pub(super) shrunken: u64,
    pub(super) handed: u64,
    pub(super) declined: u64,
    pub(super) resumed: u64,
    pub(super) reclaims: u64,
    /// Claims of an offer with another claim in between.
    pub(super) void: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Beat(Heartbeat),
    Claim(Claim),
    Offer(Offer),
    Declined { slot: Slot, attempt: u64, by: NodeName },
}

/// The offer of a slot, with the room that stands for all of its rooms.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    slot: Slot,
    from: NodeName,
    attempt: u64,
    term: Term,
    room: SimRoom,
}

/// A run and its last seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SimRoom {
    run: u64,
    seq: u64,
}

/// A request to the log, or its answer.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// `former`: the term that the machine has held.
    Claim {
        heard: Term,
        former: Option<Term>,
    },
    Renew {
        held: Term,
        sent: Instant,
    },
}

#[derive(Debug, Clone)]
enum News {
    /// The term, and that of the last claim of another node before.
    Claimed(Term, Term),
    Proven(Instant),
    Fenced(Term, usize),
}

#[derive(Debug, Clone)]
enum Event {
    Due,
    Deliver(Message),
    NoResponder {
        name: NodeName,
        number: u64,
    },
    /// An operation reaches the log.
    Reach {
        slot: Slot,
        op: Op,
        epoch: u64,
    },
    /// The log's machine of the node learns of the outcome.
    Answer {
        slot: Slot,
        news: News,
        epoch: u64,
    },
    /// The machine tries its claim again.
    Retry {
        slot: Slot,
        epoch: u64,
    },
    /// The shards have said all rooms of a slot.
    Packed {
        slot: Slot,
        attempt: u64,
    },
    Start,
    Resume,
}

/// The machine of a slot's log on a node.
#[derive(Debug, Clone, Copy, Default)]
struct Machine {
    held: Option<Term>,
    claiming: Option<Term>,
    /// Rises with each order that makes answers under way void.
    epoch: u64,
}

pub(super) struct WorldNode {
    pub(super) view: View,
    pub(super) name: NodeName,
    pub(super) life: u64,
    pub(super) is_up: bool,
    /// The machine is gone: no server says that nobody listens.
    pub(super) is_gone: bool,
    paused_until: u64,
    pub(super) hears_bus: bool,
    pub(super) reaches_bus: bool,
    pub(super) reaches_log: bool,
    /// Thousandths of the world's speed.
    speed: u64,
    machines: Vec<Machine>,
    pub(super) standings: Vec<SlotStanding>,
    due_at: u64,
    pub(super) handed: HandedRooms,
}

/// The part of a node in hand-overs.
pub(super) struct HandedRooms {
    pub(super) giving: HandOvers,
    /// Slots whose rooms are paused.
    paused: BTreeSet<Slot>,
    /// The rooms of the slots that the node holds.
    rooms: BTreeMap<Slot, SimRoom>,
    /// Rooms of offers that the node has taken.
    taking: BTreeMap<Slot, SimRoom>,
    came: BTreeMap<Slot, SimRoom>,
}

impl HandedRooms {
    fn new(now: Instant) -> Self {
        Self {
            giving: HandOvers::new(1, now),
            paused: BTreeSet::new(),
            rooms: BTreeMap::new(),
            taking: BTreeMap::new(),
            came: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct LoggedClaim {
    term: Term,
    by: usize,
    life: u64,
    at: u64,
}

pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    pub(super) now: u64,
    base: Instant,
    pub(super) nodes: Vec<WorldNode>,
    events: BTreeMap<(u64, u64), (usize, u64, Event)>,
    next_event: u64,
    /// From, to.
    pub(super) cuts: Vec<Vec<bool>>,
    pub(super) loss_permille: u32,
    pub(super) delay_max: u64,
    pub(super) log_down_until: u64,
    pub(super) slow_claims_permille: u32,
    pub(super) reconnects_help: bool,
    /// The slot whose words are in the trace.
    pub(super) traced: Slot,
    /// The slot that has broken a rule.
    pub(super) failed: Option<Slot>,
    sequence: u64,
    /// Slot -> claims, oldest first.
    claims: Vec<Vec<LoggedClaim>>,
    /// Slots that were handed over, or nearly.
    moved: BTreeSet<Slot>,
    runs: u64,
    /// Slot, run and seq -> the node that has cut the batch.
    batches: BTreeMap<(Slot, SimRoom), usize>,
    /// Slot -> nodes that order it, as bits, and the begin of an overlap.
    ordering: Vec<u8>,
    overlap_since: Vec<u64>,
    last_home: Vec<Option<usize>>,
    pub(super) coverage: Coverage,
    pub(super) trace: VecDeque<String>,
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let base = Now::made_up().instant;
        let nodes: Vec<_> = (0..nodes)
            .map(|index| {
                let name = NodeName::parse(&format!("node-{index}")).unwrap();
                WorldNode {
                    view: View::new(own(&name, 1), base),
                    name,
                    life: 1,
                    is_up: true,
                    is_gone: false,
                    paused_until: 0,
                    hears_bus: true,
                    reaches_bus: true,
                    reaches_log: true,
                    speed: rng.u64(980..1020),
                    machines: vec![Machine::default(); SLOTS],
                    standings: vec![SlotStanding::default(); SLOTS],
                    due_at: 0,
                    handed: HandedRooms::new(base),
                }
            })
            .collect();
        let count = nodes.len();
        let mut world = Self {
            rng,
            now: 0,
            base,
            nodes,
            events: BTreeMap::new(),
            next_event: 0,
            cuts: vec![vec![false; count]; count],
            loss_permille: 0,
            delay_max: 3 * MS,
            log_down_until: 0,
            slow_claims_permille: 0,
            reconnects_help: false,
            traced: Slot(0),
            failed: None,
            sequence: 0,
            claims: vec![Vec::new(); SLOTS],
            moved: BTreeSet::new(),
            runs: 0,
            batches: BTreeMap::new(),
            ordering: vec![0; SLOTS],
            overlap_since: vec![0; SLOTS],
            last_home: vec![None; SLOTS],
            coverage: Coverage::default(),
            trace: VecDeque::new(),
        };
        for node in 0..count {
            world.drive(node);
        }
        world
    }

    fn log(&mut self, node: usize, text: impl FnOnce() -> String) {
        if self.trace.len() == 400 {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:9.3} node-{node} {}", self.now as f64 / 1e6, text()));
    }

    fn log_slot(&mut self, node: usize, slot: Slot, text: impl FnOnce() -> String) {
        if slot == self.traced {
            self.log(node, || format!("{slot:?}: {}", text()));
        }
    }

    /// The clock of a node.
    pub(super) fn clock(&self, node: usize) -> Instant {
        self.base + std::time::Duration::from_micros(self.now / 1000 * self.nodes[node].speed)
    }

    fn at(&mut self, time: u64, node: usize, event: Event) {
        self.next_event += 1;
        let life = self.nodes[node].life;
        self.events.insert((time.max(self.now), self.next_event), (node, life, event));
    }

    pub(super) fn run(&mut self, until: u64) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
            let (time, _) = *entry.key();
            let (node, life, event) = entry.remove();
            self.now = time;
            self.take(node, life, event);
        }
        self.now = until;
    }

    fn take(&mut self, node: usize, life: u64, event: Event) {
        if let Event::Reach { slot, op, epoch } = event {
            return self.reach(node, life, slot, op, epoch);
        }
        if life != self.nodes[node].life || !self.nodes[node].is_up && !matches!(event, Event::Start) {
            return;
        }
        let resumes = self.nodes[node].paused_until;
        if resumes > self.now {
            return self.at(resumes, node, event);
        }
        let now = self.clock(node);
        match event {
            Event::Due if self.nodes[node].due_at > self.now => return,
            Event::Due => {
                self.nodes[node].view.due(now);
                self.hand_over_next(node, now);
            }
            Event::Packed { slot, attempt } => {
                self.nodes[node].handed.giving.packed(slot, attempt, 0, true, now);
            }
            Event::Deliver(Message::Offer(offer)) => self.take_offer(node, offer, now),
            Event::Deliver(Message::Declined { slot, attempt, by }) => {
                let at = &mut self.nodes[node];
                if let Some(by) = at.view.members.key_of(&by) {
                    at.handed.giving.declined(by, slot, attempt, now);
                }
            }
            Event::Deliver(Message::Beat(beat)) => self.nodes[node].view.hear(&beat, now),
            Event::Deliver(Message::Claim(claim)) => {
                let at = &mut self.nodes[node];
                let Machine { held, claiming, .. } = at.machines[claim.slot.index()];
                let is_met = claim.node == at.name && held.is_none() && claiming.is_none();
                self.coverage.met_claims += u64::from(is_met);
                at.view.hear_claim(&claim, now);
            }
            Event::NoResponder { name, number } => self.nodes[node].view.no_responder(&name, number, now),
            Event::Answer { slot, news, epoch } => self.answer(node, slot, &news, epoch),
            Event::Retry { slot, epoch } => {
                let machine = self.nodes[node].machines[slot.index()];
                if let Some(heard) = machine.claiming.filter(|_| machine.epoch == epoch) {
                    self.claim(node, slot, heard);
                }
                return;
            }
            Event::Start => self.start(node),
            Event::Resume => self.reorder(node),
            Event::Reach { .. } => unreachable!("taken above"),
        }
        self.drive(node);
        self.cut(node);
    }

    fn answer(&mut self, node: usize, slot: Slot, news: &News, epoch: u64) {
        let now = self.clock(node);
        let machine = &mut self.nodes[node].machines[slot.index()];
        if machine.epoch != epoch {
            return;
        }
        self.log_slot(node, slot, || format!("{news:?}"));
        let machine = &mut self.nodes[node].machines[slot.index()];
        match news {
            News::Claimed(term, behind) => {
                machine.held = Some(*term);
                machine.claiming = None;
                self.nodes[node].view.claimed(slot, *term, *behind, now);
            }
            News::Proven(sent) => self.nodes[node].view.proven(slot, *sent, now),
            News::Fenced(by, other) => {
                *machine = Machine { epoch: machine.epoch + 1, ..Machine::default() };
                self.coverage.fences += 1;
                let name = self.nodes[*other].name.clone();
                self.nodes[node].view.fenced(slot, *by, &name, now);
            }
        }
    }

    /// Takes the words of a view, and sets its next deadline.
    pub(super) fn drive(&mut self, node: usize) {
        while let Some(word) = self.nodes[node].view.poll_word() {
            if let ViewWord::Claim { slot, .. } | ViewWord::Release { slot } | ViewWord::Renew { slot } =
                &word
            {
                self.log_slot(node, *slot, || format!("{word:?}"));
            }
            match word {
                ViewWord::Beat => {
                    let now = self.clock(node);
                    let load = NodeLoad { shards: 2, ..NodeLoad::default() };
                    let beat = self.nodes[node].view.heartbeat(load, now);
                    self.publish(node, &Message::Beat(beat));
                }
                ViewWord::Tell(claim) => self.publish(node, &Message::Claim(claim)),
                ViewWord::Probe { name, number } => self.probe(node, &name, number),
                ViewWord::Reconnect => self.reconnect(node),
                ViewWord::Stands { slot, standing } => self.stand(node, slot, standing),
                ViewWord::Claim { slot, heard } => {
                    let machine = &mut self.nodes[node].machines[slot.index()];
                    machine.epoch += 1;
                    machine.claiming = Some(heard);
                    self.claim(node, slot, heard);
                }
                ViewWord::Release { slot } => {
                    self.coverage.releases += 1;
                    let machine = &mut self.nodes[node].machines[slot.index()];
                    *machine = Machine { epoch: machine.epoch + 1, ..Machine::default() };
                }
                ViewWord::Renew { slot } => {
                    let sent = self.clock(node);
                    if let Some(held) = self.nodes[node].machines[slot.index()].held {
                        self.ask_log(node, slot, Op::Renew { held, sent });
                    }
                }
                ViewWord::Met { .. } | ViewWord::Parted { .. } => self.log(node, || format!("{word:?}")),
                ViewWord::Handed { slot } => {
                    let at = &mut self.nodes[node].handed;
                    at.came.extend(at.taking.remove(&slot).map(|room| (slot, room)));
                }
                ViewWord::NameTaken => panic!("no two processes have one name"),
            }
        }
        self.take_hand_over_words(node);
        let wait = self.nodes[node].view.poll_deadline().saturating_duration_since(self.clock(node));
        let due = self.now + u64::try_from(wait.as_micros()).unwrap() * 1000 / self.nodes[node].speed + MS;
        self.nodes[node].due_at = due;
        self.at(due, node, Event::Due);
    }

    fn publish(&mut self, from: usize, message: &Message) {
        for to in 0..self.nodes.len() {
            let is_cut = self.cuts[from][to] || !self.nodes[from].reaches_bus || !self.nodes[to].hears_bus;
            if is_cut || self.rng.u32(0..1000) < self.loss_permille {
                continue;
            }
            let copies = if self.rng.u32(0..50) == 0 { 2 } else { 1 };
            for _ in 0..copies {
                let time = self.now + self.rng.u64(200..self.delay_max);
                self.at(time, to, Event::Deliver(message.clone()));
            }
        }
    }

    fn probe(&mut self, from: usize, name: &NodeName, number: u64) {
        let to = self.nodes.iter().position(|node| node.name == *name).unwrap();
        let is_there = self.nodes[to].is_up || self.nodes[to].is_gone;
        // Servers that are parted from the node's server don't know that it listens.
        let is_cut = self.cuts[from][to] && self.rng.bool();
        if self.nodes[from].reaches_bus && self.nodes[from].hears_bus && (!is_there || is_cut) {
            let time = self.now + self.rng.u64(MS..100 * MS);
            self.at(time, from, Event::NoResponder { name: name.clone(), number });
        }
    }

    fn reconnect(&mut self, node: usize) {
        self.coverage.reconnects += 1;
        self.log(node, || "reconnects".to_owned());
        // Another server may be better.
        if self.reconnects_help && self.rng.u32(0..10) == 0 {
            self.nodes[node].hears_bus = true;
            self.nodes[node].reaches_bus = true;
            for other in 0..self.nodes.len() {
                self.cuts[node][other] = false;
                self.cuts[other][node] = false;
            }
        }
    }

    fn claim(&mut self, node: usize, slot: Slot, heard: Term) {
        let former = self.nodes[node].machines[slot.index()].held;
        self.ask_log(node, slot, Op::Claim { heard, former });
        let epoch = self.nodes[node].machines[slot.index()].epoch;
        self.at(self.now + S, node, Event::Retry { slot, epoch });
    }

    fn ask_log(&mut self, node: usize, slot: Slot, op: Op) {
        if !self.nodes[node].reaches_log {
            return;
        }
        let epoch = self.nodes[node].machines[slot.index()].epoch;
        let mut time = self.now + self.rng.u64(200..2 * MS);
        if matches!(op, Op::Claim { .. }) && self.rng.u32(0..1000) < self.slow_claims_permille {
            // Buffered on a slow way, and tried again meanwhile.
            time += self.rng.u64(0..3 * S);
        }
        self.at(time, node, Event::Reach { slot, op, epoch });
    }

    fn reach(&mut self, node: usize, life: u64, slot: Slot, op: Op, epoch: u64) {
        if self.now < self.log_down_until {
            // Stored once there is a leader, or lost.
            if self.rng.bool() {
                self.at(self.log_down_until, node, Event::Reach { slot, op, epoch });
            }
            return;
        }
        let last = self.claims[slot.index()].last().copied();
        let news = match op {
            Op::Claim { heard, former } => {
                self.sequence += 1;
                let generation = heard.generation + u64::from(self.sequence <= heard.sequence);
                let term = Term { generation, sequence: self.sequence };
                let is_other = |last: LoggedClaim| last.by != node && self.now - last.at < 2 * S;
                self.coverage.two_claims += u64::from(last.is_some_and(is_other));
                let claims = &mut self.claims[slot.index()];
                let mut others = claims.iter().filter(|claim| claim.by != node || claim.life != life);
                let behind = others.clone().map(|claim| claim.term).max().unwrap_or_default();
                let between = others.rfind(|claim| former.is_some_and(|former| claim.term > former));
                let fenced = between.map(|claim| News::Fenced(claim.term, claim.by));
                claims.push(LoggedClaim { term, by: node, life, at: self.now });
                fenced.unwrap_or(News::Claimed(term, behind))
            }
            Op::Renew { held, sent } => match last {
                Some(LoggedClaim { term, by, .. }) if term == held && by == node => News::Proven(sent),
                Some(LoggedClaim { term, by, .. }) if term > held => News::Fenced(term, by),
                // The log has shrunk: the machine claims by itself.
                _ => {
                    self.coverage.shrunken += 1;
                    if self.nodes[node].machines[slot.index()].epoch == epoch {
                        self.ask_log(node, slot, Op::Claim { heard: held, former: Some(held) });
                    }
                    return;
                }
            },
        };
        if self.nodes[node].reaches_log {
            let load = if matches!(news, News::Claimed(..)) { 60 * MS } else { 2 * MS };
            let time = self.now + self.rng.u64(200..load);
            // An answer of a former life, or of a machine that was told otherwise, is not heard there.
            self.at(time, node, Event::Answer { slot, news, epoch });
        }
    }

    fn stand(&mut self, node: usize, slot: Slot, standing: SlotStanding) {
        let former = std::mem::replace(&mut self.nodes[node].standings[slot.index()], standing);
        assert!(standing.term >= former.term, "the terms of {slot:?} fall at node-{node}");
        self.log_slot(node, slot, || format!("{standing:?}"));
        match (former.home, standing.home) {
            (_, SlotHome::Frozen) => self.coverage.freezes += 1,
            (SlotHome::Frozen, SlotHome::Here) if former.term == standing.term => self.coverage.thaws += 1,
            (_, SlotHome::Here) => {
                let last = self.last_home[slot.index()].replace(node);
                self.coverage.takeovers += u64::from(last.is_some_and(|last| last != node));
            }
            _ => {}
        }
        self.stand_rooms(node, slot, former, standing);
        self.order(node, slot);
    }

    /// Keeps the account of nodes that order a slot.
    fn order(&mut self, node: usize, slot: Slot) {
        let at = &self.nodes[node];
        let orders =
            at.is_up && at.paused_until <= self.now && at.standings[slot.index()].home == SlotHome::Here;
        let before = self.ordering[slot.index()];
        let after = if orders { before | 1 << node } else { before & !(1 << node) };
        self.ordering[slot.index()] = after;
        if before.count_ones() > 1 {
            let overlap = self.now - self.overlap_since[slot.index()];
            self.failed = (overlap > OVERLAP_MAX).then_some(slot);
            assert!(
                overlap <= OVERLAP_MAX,
                "{slot:?} was ordered by two nodes ({before:b}) for {overlap} µs"
            );
        }
        if after.count_ones() > 1 && before.count_ones() < 2 {
            self.overlap_since[slot.index()] = self.now;
        }
    }

    pub(super) fn reorder(&mut self, node: usize) {
        Slot::all().for_each(|slot| self.order(node, slot));
    }

    /// Ends the process of a node.
    pub(super) fn kill(&mut self, node: usize, is_gone: bool) {
        self.log(node, || format!("is killed, machine gone: {is_gone}"));
        self.nodes[node].is_up = false;
        self.nodes[node].is_gone = is_gone;
        self.reorder(node);
    }

    pub(super) fn say_goodbye(&mut self, node: usize) {
        let now = self.clock(node);
        self.nodes[node].view.leave(now);
        self.nodes[node].view.due(now);
        self.drive(node);
        self.kill(node, false);
    }

    pub(super) fn start_at(&mut self, node: usize, time: u64) {
        self.nodes[node].life += 1;
        self.at(time, node, Event::Start);
    }

    fn start(&mut self, node: usize) {
        self.log(node, || "starts".to_owned());
        let now = self.clock(node);
        let at = &mut self.nodes[node];
        at.is_up = true;
        at.is_gone = false;
        at.view = View::new(own(&at.name, at.life), now);
        at.machines.fill(Machine::default());
        at.standings.fill(SlotStanding::default());
        at.handed = HandedRooms::new(now);
    }

    pub(super) fn pause(&mut self, node: usize, time: u64) {
        self.log(node, || format!("is stopped for {} ms", time / MS));
        let until = self.now + time;
        self.nodes[node].paused_until = until;
        self.reorder(node);
        // In front of everything that waits for the node.
        self.at(until, node, Event::Resume);
    }

    /// Takes the newest claims out of the log.
    pub(super) fn shrink(&mut self) {
        self.sequence = self.sequence * 9 / 10;
        let kept = self.sequence;
        for claims in &mut self.claims {
            claims.retain(|claim| claim.term.sequence <= kept);
        }
    }

    /// Ends all faults. Dead nodes start.
    pub(super) fn heal(&mut self) {
        self.log(0, || "and all others are healed".to_owned());
        self.cuts.iter_mut().for_each(|row| row.fill(false));
        self.loss_permille = 0;
        self.delay_max = 3 * MS;
        self.log_down_until = 0;
        self.slow_claims_permille = 0;
        for node in 0..self.nodes.len() {
            let at = &mut self.nodes[node];
            at.hears_bus = true;
            at.reaches_bus = true;
            at.reaches_log = true;
            at.paused_until = at.paused_until.min(self.now);
            if !at.is_up {
                self.start_at(node, self.now);
            }
            self.reorder(node);
        }
    }

    /// The slots without exactly one home that all living nodes agree on.
    pub(super) fn homeless(&self) -> Vec<Slot> {
        let is_homed = |slot: &Slot| {
            let living = || self.nodes.iter().filter(|node| node.is_up);
            let home = |node: &WorldNode| node.standings[slot.index()].home;
            let mut here = living().filter(|node| home(node) == SlotHome::Here);
            let (Some(at), None) = (here.next(), here.next()) else { return false };
            let follows = |node: &&WorldNode| match home(node) {
                SlotHome::There(key) => node.view.name_of(key) == Some(&at.name),
                SlotHome::Here => true,
                SlotHome::Nobody | SlotHome::Frozen => false,
            };
            living().filter(follows).count() == living().count()
        };
        Slot::all().filter(|slot| !is_homed(slot)).collect()
    }

    /// The slots with this standing on a node.
    pub(super) fn count(&self, node: usize, home: SlotHome) -> usize {
        self.nodes[node].standings.iter().filter(|standing| standing.home == home).count()
    }

    /// Runs until a fact is true. The result is the time that it took.
    pub(super) fn run_until(&mut self, time_max: u64, fact: impl Fn(&Self) -> bool) -> u64 {
        let begin = self.now;
        while !fact(self) {
            assert!(self.now - begin < time_max, "not after {time_max} µs");
            self.run(self.now + 10 * MS);
        }
        self.now - begin
    }
}

fn own(name: &NodeName, incarnation: u64) -> OwnNode {
    let dead_after = VIEW_INTERVAL * 30;
    OwnNode { name: name.clone(), incarnation, shards: 2, dead_after }
}
