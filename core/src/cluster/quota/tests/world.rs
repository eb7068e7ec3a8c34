//! A world of nodes that share one limit: a bus with delays, losses and repeats, demand that moves, nodes that come, go
//! and are cut off. Times of the world are microseconds. The clocks of the nodes run at different speeds.

use std::collections::BTreeMap;

use super::*;
use crate::room::bucket::Bucket;

const MS: u64 = 1000;
pub(super) const S: u64 = 1000 * MS;
/// A step of the world.
const STEP: u64 = 2 * MS;
/// Places a second.
const LIMIT: u64 = 1000;
/// A node without its echo answers 503 from then on.
const DEAF_AFTER: u64 = 2 * S;
/// Time for which a known node counts.
const KNOWN: u64 = 60 * S;
/// Time after a change in which the part of a lost node may be free.
const SETTLED_AFTER: u64 = 9 * S;

/// The bus.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    lost_permille: u32,
    late_permille: u32,
    late_max: u64,
}

impl Weather {
    pub(super) const CALM: Self = Self { lost_permille: 0, late_permille: 0, late_max: 1 };
    pub(super) const STORM: Self = Self { lost_permille: 100, late_permille: 100, late_max: 5 * S };
}

#[derive(Debug, Clone)]
enum Word {
    Report(QuotaReport),
    Shares(QuotaShares),
    /// A node has claimed the limit's slot.
    Claim(Term, usize),
}

struct WorldNode {
    name: NodeName,
    life: u64,
    is_up: bool,
    cut_at: Option<u64>,
    /// From then on the doors are open.
    opens_at: u64,
    holder: QuotaHolder,
    divider: QuotaDivider,
    next_look: u64,
    /// The home of the limit's slot, as the node has heard.
    home: Option<(Term, usize)>,
    /// Node -> the last heartbeat.
    heard: BTreeMap<usize, u64>,
    /// Thousandths of the world's speed.
    speed: u64,
    bucket: Bucket,
    /// Demand a second: reliable, others.
    demand: [u64; 2],
    /// Demand towards which the present one moves.
    goal: [u64; 2],
    asked: [u64; 2],
    /// Parts of a place that are asked for in the next step, in millionths.
    fraction: [u64; 2],
}

/// A count since the begin of the judged time.
#[derive(Debug, Default)]
struct Count {
    began: u64,
    asked: [u64; 2],
    passed: [u64; 2],
    /// Places that would have passed through a single door: the limit or the demand, whichever is less. In millionths.
    could_pass: u64,
    words: u64,
    /// Time above the limit since the last change, and the longest such time.
    over: u64,
    over_max: u64,
    over_most_permille: u64,
    /// The largest error of a second without a change, in thousandths of the limit.
    calm_error: u64,
}

pub(super) struct World {
    seed: u64,
    random: fastrand::Rng,
    base: Instant,
    now: u64,
    weather: Weather,
    nodes: Vec<WorldNode>,
    bus: BTreeMap<(u64, u64), (usize, Word)>,
    words: u64,
    claims: u64,
    /// A takeover under way.
    takeover_at: Option<u64>,
    changed_at: u64,
    /// The last moment at which a node with open doors had no share.
    lapsed_at: u64,
    count: Count,
    /// The rates in force in this second, times microseconds.
    second: u128,
    takeovers: u64,
    cuts: u64,
    starts: u64,
}

/// Counts over worlds.
#[derive(Debug, Default)]
pub(super) struct Sums {
    worlds: u64,
    seconds: u64,
    over_max_us: u64,
    over_most_permille: u64,
    calm_error_permille: u64,
    reliable_asked: u64,
    reliable_passed: u64,
    others_asked: u64,
    others_passed: u64,
    could_pass: u64,
    words: u64,
    pub(super) takeovers: u64,
    pub(super) cuts: u64,
    pub(super) starts: u64,
}

impl World {
    /// Seeds: fixed ones and a drawn one, or the one of `SEED`.
    pub(super) fn seeds(fixed: u64) -> Vec<u64> {
        match std::env::var("SEED") {
            Ok(seed) => vec![seed.parse().unwrap()],
            Err(_) => (1..=fixed).chain([fastrand::u64(1000..)]).collect(),
        }
    }

    pub(super) fn new(seed: u64, nodes: usize, weather: Weather) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let base = Now::made_up().instant;
        let nodes = (0..nodes).map(|at| WorldNode::new(at, base, random.u64(980..1020))).collect();
        let mut world = Self {
            seed,
            random,
            base,
            now: 0,
            weather,
            nodes,
            bus: BTreeMap::new(),
            words: 0,
            claims: 0,
            takeover_at: Some(0),
            changed_at: 0,
            lapsed_at: 0,
            count: Count::default(),
            second: 0,
            takeovers: 0,
            cuts: 0,
            starts: 0,
        };
        for at in 0..world.nodes.len() {
            world.nodes[at].demand = world.wish();
            world.nodes[at].goal = world.wish();
            world.nodes[at].next_look = world.random.u64(0..100 * MS);
        }
        world
    }

    /// The clock of a node.
    fn clock(&self, node: usize) -> Instant {
        self.base + Duration::from_micros(self.now * self.nodes[node].speed / 1000)
    }

    /// A demand for a node: the sum over ten nodes is often above the limit.
    fn wish(&mut self) -> [u64; 2] {
        let busy = self.random.u64(0..3);
        [busy * self.random.u64(0..30), busy * self.random.u64(0..200)]
    }

    pub(super) fn begin_count(&mut self) {
        self.count = Count { began: self.now, ..Count::default() };
    }

    pub(super) fn run(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some(entry) = self.bus.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, word) = entry.remove();
            self.deliver(to, word);
        }
        if self.takeover_at.is_some_and(|at| at <= self.now) {
            self.take_over();
        }
        if self.now.is_multiple_of(500 * MS) {
            self.beat();
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_up {
                self.drive(at);
                self.ask(at);
            }
        }
        self.judge();
    }

    /// Demand moves towards its goal by a tenth of the way in 100 ms, and the goal changes from time to time.
    fn ask(&mut self, at: usize) {
        if self.now.is_multiple_of(100 * MS) {
            if self.random.u32(0..50) == 0 {
                self.nodes[at].goal = self.wish();
            }
            let node = &mut self.nodes[at];
            for (demand, goal) in node.demand.iter_mut().zip(node.goal) {
                *demand = (*demand * 9 + goal).div_ceil(10);
            }
        }
        let now = self.clock(at);
        let is_open = self.is_open(at);
        let node = &mut self.nodes[at];
        let Some(rate) = node.holder.rate(QUOTA, now).filter(|_| is_open) else { return };
        node.bucket.follow(rate.interval(), Duration::from_secs(1), now);
        for class in [1, 0] {
            node.fraction[class] += node.demand[class] * STEP;
            let places = node.fraction[class] / S;
            node.fraction[class] %= S;
            node.asked[class] += places;
            self.count.asked[class] += places;
            for _ in 0..places {
                let is_taken = if class == 0 { node.bucket.take_first(now) } else { node.bucket.take(now) };
                self.count.passed[class] += u64::from(is_taken);
            }
        }
    }

    /// True for a node that lets messages pass.
    fn is_open(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.is_up && self.now >= node.opens_at && !self.is_deaf(at)
    }

    fn is_deaf(&self, at: usize) -> bool {
        self.nodes[at].cut_at.is_some_and(|cut| self.now >= cut + DEAF_AFTER)
    }

    fn is_on_bus(&self, at: usize) -> bool {
        self.nodes[at].is_up && self.nodes[at].cut_at.is_none()
    }

    /// The claim with which a node has the right to divide.
    fn right(&self, at: usize) -> Option<Term> {
        let home = self.nodes[at].home.filter(|(_, home)| *home == at && !self.is_deaf(at));
        home.map(|(term, _)| term)
    }

    fn beat(&mut self) {
        let on_bus: Vec<usize> = (0..self.nodes.len()).filter(|at| self.is_on_bus(*at)).collect();
        for from in &on_bus {
            for to in on_bus.iter().filter(|to| *to != from) {
                self.nodes[*to].heard.insert(*from, self.now);
                // Heartbeats tell the slots of their node.
                if let Some((term, home)) = self.nodes[*from].home.filter(|(_, home)| home == from) {
                    self.nodes[*to].hear_claim(term, home);
                }
            }
        }
    }

    fn drive(&mut self, at: usize) {
        let now = self.clock(at);
        let term = self.right(at);
        let node = &mut self.nodes[at];
        if node.next_look <= self.now {
            node.next_look = self.now + 100 * MS;
            let known = node.heard.values().filter(|heard| **heard + KNOWN > self.now).count();
            let [reliable, others] = node.asked;
            let asked = QuotaAsked { quota: QUOTA, limit: rate(LIMIT), nodes: known + 1, reliable, others };
            let is_open = self.now >= node.opens_at;
            node.holder.look(if is_open { std::slice::from_ref(&asked) } else { &[] }, now);
        }
        if node.divider.poll_deadline().is_some_and(|due| due <= now) {
            node.divider.due(|_| term, now);
        }
        self.send_all(at);
    }

    fn send_all(&mut self, at: usize) {
        let now = self.clock(at);
        loop {
            let node = &mut self.nodes[at];
            let home = node.home.map(|(_, home)| home);
            if let Some((_, report)) = node.holder.poll_report(|_| home.map(node_name), now) {
                self.send(at, home.unwrap(), Word::Report(report));
            } else if let Some(shares) = node.divider.poll_shares() {
                let to = self.nodes.iter().position(|node| node.name == shares.node).unwrap();
                self.send(at, to, Word::Shares(shares));
            } else {
                return;
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, word: Word) {
        if from == to {
            return self.take(to, word);
        }
        self.count.words += 1;
        if !self.is_on_bus(from) {
            return;
        }
        let Weather { lost_permille, late_permille, late_max } = self.weather;
        let random = &mut self.random;
        let mut is = |permille| random.u32(0..1000) < permille;
        let copies = u64::from(!is(lost_permille)) + u64::from(is(late_permille));
        let late: Vec<bool> = (0..copies).map(|_| is(late_permille)).collect();
        for is_late in late {
            let delay = self.random.u64(if is_late { 0..late_max } else { 200..3 * MS });
            self.post(delay, to, word.clone());
        }
    }

    fn post(&mut self, delay: u64, to: usize, word: Word) {
        self.words += 1;
        self.bus.insert((self.now + delay, self.words), (to, word));
    }

    fn deliver(&mut self, to: usize, word: Word) {
        if self.is_on_bus(to) {
            self.take(to, word);
            self.send_all(to);
        }
    }

    fn take(&mut self, to: usize, word: Word) {
        let now = self.clock(to);
        let term = self.right(to);
        let node = &mut self.nodes[to];
        match word {
            Word::Report(report) => node.divider.hear(&report, |_| term, now),
            Word::Shares(shares) => {
                let heard = node.home.map(|(term, _)| term).unwrap_or_default();
                node.holder.take(&shares, |_| heard, now);
            }
            Word::Claim(term, home) => node.hear_claim(term, home),
        }
    }

    /// A living node claims the slot.
    fn take_over(&mut self) {
        self.takeover_at = None;
        let able = (0..self.nodes.len()).filter(|at| self.is_open(*at) && self.is_on_bus(*at));
        let able: Vec<usize> = able.collect();
        let Some(claimant) = self.random.choice(able) else { return };
        self.claims += 1;
        self.takeovers += 1;
        let term = term(self.claims);
        self.nodes[claimant].hear_claim(term, claimant);
        for to in (0..self.nodes.len()).filter(|to| *to != claimant) {
            let delay = self.random.u64(200..20 * MS);
            self.post(delay, to, Word::Claim(term, claimant));
        }
    }

    fn home(&self) -> Option<usize> {
        self.nodes.iter().filter_map(|node| node.home).max().map(|(_, home)| home)
    }

    /// A node comes, goes, or is cut off for a while. The divider goes more often than its share.
    pub(super) fn change(&mut self) {
        self.changed_at = self.now;
        self.count.over = 0;
        let home = self.home();
        let away: Vec<usize> = (0..self.nodes.len()).filter(|at| !self.is_on_bus(*at)).collect();
        let chosen = match self.random.u32(0..3) {
            0 => self.random.choice(away),
            1 => home,
            _ => None,
        };
        let at = chosen.unwrap_or_else(|| self.random.usize(0..self.nodes.len()));
        if !self.nodes[at].is_up {
            self.starts += 1;
            self.nodes[at].start(self.now, self.base);
        } else if self.nodes[at].cut_at.is_some() {
            self.nodes[at].cut_at = None;
            // A node forgets nobody while it is deaf.
            self.nodes[at].heard.values_mut().for_each(|heard| *heard = self.now);
        } else {
            if self.random.bool() {
                self.nodes[at].is_up = false;
            } else {
                self.cuts += 1;
                self.nodes[at].cut_at = Some(self.now);
            }
            if home == Some(at) {
                self.takeover_at = Some(self.now + self.random.u64(1100 * MS..4 * S));
            }
        }
    }

    /// Looks at the rates in force.
    fn judge(&mut self) {
        let open: Vec<usize> = (0..self.nodes.len()).filter(|at| self.is_open(*at)).collect();
        let in_force = |at: &usize| self.nodes[*at].holder.rate(QUOTA, self.clock(*at)).unwrap_or_default();
        let sum: u64 = open.iter().map(|at| in_force(at).permille()).sum();
        let demand: u64 = open.iter().map(|at| self.nodes[*at].demand.iter().sum::<u64>()).sum();
        let permille = sum / LIMIT;
        // A node whose words are all lost for 3 s has no share: it does not wait for the others.
        if open.iter().any(|at| !self.nodes[*at].holder.has_share(QUOTA, self.clock(*at))) {
            self.lapsed_at = self.now;
        }
        let is_excused = self.weather.lost_permille > 0 && self.now <= self.lapsed_at + S;
        let count = &mut self.count;
        count.could_pass += demand.min(LIMIT) * STEP;
        if permille > 1020 && !is_excused {
            count.over += STEP;
            count.over_max = count.over_max.max(count.over);
            count.over_most_permille = count.over_most_permille.max(permille);
        }
        self.second += u128::from(sum) * u128::from(STEP);
        if self.now.is_multiple_of(S) {
            let mean = u64::try_from(self.second / u128::from(S * LIMIT)).unwrap();
            self.second = 0;
            if self.now > self.changed_at + SETTLED_AFTER {
                count.calm_error = count.calm_error.max(mean.abs_diff(1000));
            }
        }
    }

    fn time(&self) -> u64 {
        self.now - self.count.began
    }

    /// The sum of the shares was never past the limit, and at most the limit and a burst has passed.
    pub(super) fn check_over(&self) {
        let Count { over_max, over_most_permille, passed, .. } = self.count;
        let seed = self.seed;
        assert_eq!(over_max, 0, "seed {seed}: {over_most_permille} ‰ of the limit in force");
        // Reliable messages have a second burst, and clocks run 2 % faster than the world's.
        let most = LIMIT * (self.time() / S + 2) * 102 / 100;
        let passed = passed[0] + passed[1];
        assert!(passed <= most, "seed {seed}: {passed} of {most}");
    }

    pub(super) fn check_calm(&self) {
        self.check_over();
        let Count { calm_error, passed, could_pass, .. } = self.count;
        let seed = self.seed;
        assert!(calm_error <= 20, "seed {seed}: an error of {calm_error} ‰ in a second");
        let passed = passed[0] + passed[1];
        assert!(passed * 100 >= could_pass / S * 90, "seed {seed}: {passed} of {}", could_pass / S);
    }

    pub(super) fn check_changes(&self) {
        let Count { over_max, calm_error, .. } = self.count;
        let seed = self.seed;
        assert!(over_max <= S, "seed {seed}: the sum passed for {over_max} µs after a change");
        assert!(calm_error <= 20, "seed {seed}: an error of {calm_error} ‰ in a second");
    }
}

fn node_name(at: usize) -> NodeName {
    name(&format!("node-{at}"))
}

impl WorldNode {
    fn new(at: usize, base: Instant, speed: u64) -> Self {
        let name = node_name(at);
        Self {
            holder: QuotaHolder::new(name.clone(), 1, base),
            divider: QuotaDivider::default(),
            name,
            life: 1,
            is_up: true,
            cut_at: None,
            opens_at: 0,
            next_look: 0,
            home: None,
            heard: BTreeMap::new(),
            speed,
            bucket: Bucket::new(1, Duration::from_secs(1), base),
            demand: [0; 2],
            goal: [0; 2],
            asked: [0; 2],
            fraction: [0; 2],
        }
    }

    /// A next life, which listens before its doors open.
    fn start(&mut self, now: u64, base: Instant) {
        let own = base + Duration::from_micros(now * self.speed / 1000);
        self.life += 1;
        self.is_up = true;
        self.opens_at = now + 1500 * MS;
        self.holder = QuotaHolder::new(self.name.clone(), self.life, own);
        self.divider = QuotaDivider::default();
        self.next_look = now;
        self.home = None;
        self.heard.clear();
        self.bucket = Bucket::new(1, Duration::from_secs(1), own);
        self.asked = [0; 2];
    }

    fn hear_claim(&mut self, term: Term, home: usize) {
        if self.home.is_none_or(|(known, _)| term > known) {
            self.home = Some((term, home));
        }
    }
}

impl Sums {
    pub(super) fn add(&mut self, world: &World) {
        let Count { asked, passed, .. } = world.count;
        self.worlds += 1;
        self.seconds += world.time() / S;
        self.over_max_us = self.over_max_us.max(world.count.over_max);
        self.over_most_permille = self.over_most_permille.max(world.count.over_most_permille);
        self.calm_error_permille = self.calm_error_permille.max(world.count.calm_error);
        self.reliable_asked += asked[0];
        self.reliable_passed += passed[0];
        self.others_asked += asked[1];
        self.others_passed += passed[1];
        self.could_pass += world.count.could_pass / S;
        self.words += world.count.words;
        self.takeovers += world.takeovers;
        self.cuts += world.cuts;
        self.starts += world.starts;
    }

    /// Prints the figures, for people.
    pub(super) fn tell(&self, name: &str) {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "{name}: {self:?}").ok();
    }
}
