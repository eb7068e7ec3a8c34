//! Bare rooms under floods. The room's own account of flow control is held against the oracle's account. The
//! oracle knows only the publishers' answers and the batches.
//!
//! Each seed is one room with drawn rules, types, rates and quotas. Passes and store answers take drawn
//! times. A failing seed is printed. `ROOMCAST_FLOW=n` replays seed n alone, `ROOMCAST_SEEDS=n` draws n
//! seeds.

mod oracle;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use roomcast_core::limits::{ACCOUNT_SEQS_MAX, GATHERED_MESSAGES_MAX, INTEGER_MAX};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Encoding, Key, RoomName, Run, Seq, TypeName};
use roomcast_core::room::ladder::Step;
use roomcast_core::room::message::{Class, Message, Payload, Published};
use roomcast_core::room::pace::{Quotas, Readable, RoomRules};
use roomcast_core::room::policy::{Merge, Priority, TypePolicy, TypeRate};
use roomcast_core::room::tally::RoomTally;
use roomcast_core::room::view::AccountView;
use roomcast_core::room::{Input, Join, Output, RefreshWant, Room, SegmentSaid, WriteCost};
use roomcast_core::wire::frame;

use self::oracle::{Entering, Oracle, Promise};
use crate::world::Coverage;
use crate::{number, print};

const SEEDS: u64 = 500;
/// The least number of times that each rare branch is reached.
const REACHED_MIN: u64 = 5;
const BRANCHES: [&str; 25] = [
    "room full",
    "evicted low",
    "evicted normal",
    "evicted high",
    "sampled by a push",
    "sampled by a cut",
    "expired",
    "high held back",
    "saturated",
    "a sum begins another",
    "early cut while sampling",
    "reserve used",
    "several batches in room order",
    "type rate",
    "room rate",
    "observed only",
    "lossy off",
    "counters slow",
    "sampled harder",
    "window widest",
    "told with no message",
    "refresh over what was dropped",
    "a gift within its reserve",
    "a coupon in time",
    "a coupon on the widest window",
];
const TYPES: [&str; 9] = ["gift", "boast", "chat", "alert", "whisper", "enter", "follow", "price", "like"];
const COUPON: &str = "coupon";

/// An answer that comes back to the room later.
enum Later {
    Taken { cost: Option<WriteCost> },
    Durable { life: u64, through: u64 },
}

/// One room with its made-up surroundings.
struct Flow {
    rng: Rng,
    now: Now,
    room: Room,
    rules: RoomRules,
    step: Step,
    tally: RoomTally,
    members: u64,
    types: BTreeMap<&'static str, TypePolicy>,
    later: Vec<(Instant, Later)>,
    /// The time of each pass. `None`: drawn for each pass.
    pass: Option<Duration>,
    has_coupons: bool,
    has_large: bool,
    /// True: some counts are so large that sums reach the largest number on the wire.
    has_huge_counts: bool,
    /// The longest wait of every message. `None`: each type has its own.
    ttl: Option<Duration>,
    window_max: Duration,
    account: BTreeMap<String, AccountView>,
    number: u64,
    ticket: u64,
    sent: u64,
    oracle: Oracle,
    coverage: Coverage,
}

fn draw_types(rng: &mut Rng, ttl: Option<Duration>) -> BTreeMap<&'static str, TypePolicy> {
    let of = TypePolicy::of;
    let policy = |name: &'static str| match name {
        "gift" => TypePolicy { priority: Priority::High, merge: Merge::Sum, ..of(Class::Normal) },
        "boast" => TypePolicy { priority: Priority::High, ..of(Class::Normal) },
        "alert" => TypePolicy { urgent: true, ..of(Class::Normal) },
        "whisper" => TypePolicy { priority: Priority::Low, weight: 3, ..of(Class::Normal) },
        "enter" => TypePolicy { merge: Merge::First, ..of(Class::Lossy) },
        "follow" => of(Class::Lossy),
        "price" => of(Class::Latest),
        "like" => of(Class::Counter),
        COUPON => of(Class::Reliable),
        _ => of(Class::Normal),
    };
    let with_rate = |name| {
        let rate = TypeRate { per_second: rng.u32(1..200), burst: rng.u32(1..300) };
        let rate = Some(rate).filter(|_| name != COUPON && rng.u8(..12) == 0);
        let ttl = ttl.unwrap_or_else(|| Duration::from_millis(rng.u64(1000..10_000)));
        let policy: TypePolicy = policy(name);
        let ttl = if policy.class == Class::Reliable { policy.ttl } else { ttl };
        (name, TypePolicy { rate, ttl, ..policy })
    };
    TYPES.into_iter().chain([COUPON]).map(with_rate).collect()
}

fn draw_rules(rng: &mut Rng) -> RoomRules {
    let messages_max = *rng.choice(&[3, 10, 50, 100]).expect("some");
    let per_second = |rng: &mut Rng, most| if rng.bool() { 0 } else { rng.u32(1..=most) };
    let quotas = match rng.u8(..3) {
        0 => [rng.u32(0..300), rng.u32(0..300), rng.u32(0..=400)],
        1 => [0, 0, rng.u32(0..=1000)],
        _ => Quotas::default().permille,
    };
    RoomRules {
        gather: Duration::from_millis(rng.u64(10..=200)),
        messages_max,
        bytes_max: *rng.choice(&[400, 4000, 32 * 1024]).expect("some"),
        quotas: Quotas { permille: quotas },
        readable: Readable { normal_per_second: per_second(rng, 60), high_per_second: per_second(rng, 30) },
        messages_per_second: if rng.u8(..6) == 0 { rng.u32(50..2000) } else { 0 },
        observe_only: rng.u8(..4) == 0,
        ..RoomRules::default()
    }
}

impl Flow {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Now { unix_ms: 1_800_000_000_000, ..roomcast::clock::now() };
        let rules = draw_rules(&mut rng);
        let ttl = rng.bool().then(|| Duration::from_millis(rng.u64(1000..10_000)));
        let types = draw_types(&mut rng, ttl);
        let name = RoomName::parse("flow").expect("a name");
        let pass = (rng.u8(..3) > 0).then(|| Duration::from_millis(rng.u64(0..=60)));
        let mut flow = Self {
            room: Room::new(name, Run(rng.u64(..)), rules, now.instant),
            members: *rng.choice(&[0, 5, 50]).expect("some"),
            has_coupons: rng.bool(),
            has_large: rng.u8(..4) == 0,
            has_huge_counts: rng.u8(..4) == 0,
            rng,
            now,
            rules,
            step: Step::Calm,
            tally: RoomTally::default(),
            oracle: Oracle::new(&types, rules, pass),
            types,
            later: Vec::new(),
            pass,
            ttl,
            window_max: Duration::ZERO,
            account: BTreeMap::new(),
            number: 0,
            ticket: 0,
            sent: 0,
            coverage: Coverage::default(),
        };
        for connection in 0..flow.members {
            let encoding = Encoding::Json;
            let seen = None;
            let cursor = None;
            let join =
                Join { shard: 0, connection, join: 1, encoding, seen, cursor, device: 0, moved: false };
            flow.tell(Input::Segment { shard: 0, said: SegmentSaid::Join(join) }, &[]);
        }
        flow
    }

    fn run(&mut self) {
        for _ in 0..self.rng.usize(20..120) {
            let by = Duration::from_millis(self.rng.u64(1..60));
            self.pass_time(by);
            match self.rng.u8(..20) {
                0..12 => self.publish(),
                12 | 13 => self.flood(),
                14 | 15 => self.refresh(),
                16 => self.climb(),
                17 => self.pass_time(Duration::from_millis(1500)),
                _ => {}
            }
        }
        self.pass_time(Duration::from_secs(40));
        assert_eq!(self.room.gathered(), 0, "after quiet nothing waits");
        assert!(self.room.is_flushed(), "after quiet nothing is to be told");
        self.refresh_from(0);
        self.oracle.check_end();
    }

    /// Publishes a few messages of drawn types.
    fn publish(&mut self) {
        let mut names = Vec::new();
        // A message behind a reliable message waits for the store. The oracle needs the verdict at the entry,
        // so coupons come alone.
        if self.has_coupons && self.rng.u8(..3) == 0 {
            names.resize(self.rng.usize(1..=4), COUPON);
        }
        for _ in 0..self.rng.usize(1..=12) {
            names.push(*self.rng.choice(&TYPES).expect("some"));
        }
        self.send(&names);
    }

    /// Publishes many messages of one type.
    fn flood(&mut self) {
        let many = match self.rng.u8(..12) {
            0 => GATHERED_MESSAGES_MAX + 2000,
            1..4 => 3000,
            _ => 300,
        };
        let name = *self.rng.choice(&["chat", "chat", "whisper", "boast", "gift", "like"]).expect("some");
        let names = vec![name; self.rng.usize(many / 2..many)];
        self.send(&names);
    }

    fn send(&mut self, names: &[&'static str]) {
        let messages: Vec<Message> = names.iter().map(|name| self.draw_message(name)).collect();
        let high = |account: &BTreeMap<String, AccountView>| {
            ["gift", "boast", "price", "online"]
                .iter()
                .map(|name| account.get(*name).map_or(0, |account| account.waiting))
                .sum::<u64>()
        };
        let mut ahead = high(&self.account) as usize;
        let entering = names.iter().zip(&messages).map(|(name, message)| {
            ahead += usize::from(["gift", "boast", "price"].contains(name));
            Entering {
                name,
                key: message.key.as_ref().map(ToString::to_string),
                number: self.number - (messages.len() - 1) as u64,
                count: message.count,
                promise: Promise::None,
                ahead,
            }
        });
        let mut entering: Vec<Entering> = entering.collect();
        for (index, one) in entering.iter_mut().enumerate() {
            one.number += index as u64;
            one.promise = self.promise(one);
        }
        self.ticket += 1;
        self.tell(Input::Publish { ticket: self.ticket, messages }, &entering);
    }

    /// `WithinWindows` if the message leaves in time under any load.
    fn promise(&self, one: &Entering) -> Promise {
        let is_high = ["gift", "boast"].contains(&one.name);
        let reserve = self.rules.quotas.permille[Priority::High as usize] as usize;
        let fits = one.ahead < self.rules.messages_max * reserve / 1000
            && one.ahead * 300 < self.rules.bytes_max * reserve / 1000;
        let is_shown = self.rules.readable.high_per_second == 0;
        let is_prompt = self.pass.is_some() && !self.has_coupons && !self.has_large;
        if is_high && fits && is_shown && is_prompt { Promise::WithinWindows } else { Promise::None }
    }

    fn draw_message(&mut self, name: &'static str) -> Message {
        self.number += 1;
        let policy = self.types[name];
        let key = match name {
            "gift" => self.rng.u8(..4).checked_sub(1),
            "follow" | "price" => Some(self.rng.u8(..4)),
            _ => None,
        };
        let count = match (policy.takes_count(), self.rng.u8(..60)) {
            (false, _) => 1,
            (true, 0) if self.has_huge_counts => INTEGER_MAX / 3,
            (true, _) => self.rng.u64(1..1000),
        };
        let padding = if self.has_large { self.rng.usize(0..900) } else { self.rng.usize(0..60) };
        let payload = format!("{} {}", self.number, "x".repeat(padding));
        let mut message = Message {
            type_name: TypeName::parse(name).expect("a type"),
            policy,
            key: key.map(|key| Key::parse(&format!("k{key}")).expect("a key")),
            id: None,
            payload: Payload::Opaque(Bytes::from(payload)),
            count,
            ttl: policy.ttl,
            offset: 0,
            recall: 0,
            at_ms: 0,
            wire_bytes: 0,
        };
        message.wire_bytes = frame::message_bytes(&message);
        message
    }

    fn climb(&mut self) {
        self.step = *self.rng.choice(&Step::ALL).expect("some");
        self.tell(Input::Degrade(self.step), &[]);
    }

    /// Checks the refresh of a member whose last batch is a drawn seq.
    fn refresh(&mut self) {
        let since = self.rng.u64(..=self.room.seq().0);
        self.refresh_from(since);
    }

    fn refresh_from(&mut self, since: u64) {
        if self.members > 0 {
            let encoding = Encoding::Json;
            let sent = self.sent;
            self.tell(
                Input::Segment {
                    shard: 0,
                    said: SegmentSaid::Refresh(RefreshWant {
                        encoding,
                        since: Seq(since),
                        small: false,
                        latest: None,
                        sent,
                    }),
                },
                &[],
            );
        }
    }

    /// Lets time pass, with everything that falls due until then.
    fn pass_time(&mut self, by: Duration) {
        let until = self.now.instant + by;
        loop {
            let later = self.later.iter().enumerate().min_by_key(|(_, (at, _))| *at);
            let later = later.map(|(index, (at, _))| (*at, index)).filter(|(at, _)| *at <= until);
            let due = self.room.poll_deadline().filter(|due| *due <= until);
            match (later, due) {
                (Some((at, index)), due) if due.is_none_or(|due| at <= due) => {
                    self.move_to(at);
                    let input = match self.later.swap_remove(index).1 {
                        Later::Taken { cost } => {
                            Input::Segment { shard: 0, said: SegmentSaid::Taken { batches: 1, cost } }
                        }
                        Later::Durable { life, through } => Input::Durable { life, through },
                    };
                    self.tell(input, &[]);
                }
                (_, Some(due)) => {
                    self.move_to(due);
                    self.tell(Input::Due, &[]);
                    let next = self.room.poll_deadline();
                    let again = next.filter(|next| *next <= self.now.instant);
                    assert!(again.is_none(), "a room asks for no second turn at once: {:?}", self.account);
                }
                _ => return self.move_to(until),
            }
        }
    }

    fn move_to(&mut self, instant: Instant) {
        self.now = self.now.later(instant.saturating_duration_since(self.now.instant));
    }

    /// Hands the room an input, takes the outputs, and compares the room's account with the oracle's.
    fn tell(&mut self, input: Input, entering: &[Entering]) {
        let is_push = matches!(input, Input::Publish { .. });
        let over_rate = self.tally.over_type_rate + self.tally.over_room_rate;
        self.room.handle(input, self.now, &mut self.tally);
        self.oracle.offer(self.ticket, entering);
        let mut batches = 0;
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Published { ticket, published: Published::Taken(verdicts) } => {
                    self.oracle.answered(ticket, &verdicts, self.step, self.now.instant, &mut self.coverage);
                    self.note_rates(over_rate);
                }
                Output::Batch { batch, segments, sent } => {
                    batches += 1;
                    self.sent = sent;
                    if !segments.is_empty() {
                        self.pass_begins();
                    }
                    let window = self.window_max;
                    self.oracle.hear(&batch, self.step, self.now.instant, window, &mut self.coverage);
                }
                Output::Append { life, messages, .. } => {
                    let through = messages.last().expect("some").offset;
                    // The store answers in the order of the requests.
                    let last = self.later.iter().filter(|(_, later)| matches!(later, Later::Durable { .. }));
                    let last = last.map(|(at, _)| *at).max().unwrap_or(self.now.instant);
                    let at = last.max(self.now.instant) + Duration::from_millis(self.rng.u64(0..30));
                    self.later.push((at, Later::Durable { life, through }));
                }
                Output::Load { life, .. } => {
                    self.room.handle(Input::Loaded { life, stored: None }, self.now, &mut self.tally);
                }
                Output::Refreshed { want: RefreshWant { since, .. }, to, refresh, .. } => {
                    if let Some(refresh) = refresh {
                        self.oracle.refreshed(since.0, to.0, &refresh, &mut self.coverage);
                    } else {
                        assert!(since.0 + ACCOUNT_SEQS_MAX < to.0, "the account reaches back to {since:?}");
                    }
                }
                Output::Welcomed(_) => {}
                // Only a room without members and messages is idle.
                Output::Idle => assert_eq!((self.members, self.number), (0, 0)),
                other => panic!("{other:?} was not asked for"),
            }
        }
        self.check_account(entering, is_push, batches);
    }

    fn note_rates(&mut self, before: u64) {
        let more = self.tally.over_type_rate + self.tally.over_room_rate - before;
        self.coverage.count("observed only", if self.rules.observe_only { more } else { 0 });
    }

    fn pass_begins(&mut self) {
        let members = u32::try_from(self.members).expect("few").max(1);
        let (took, cost) = match self.pass {
            Some(pass) => (pass, Some(WriteCost { per_member: pass / members, ..WriteCost::default() })),
            None => (Duration::from_millis(self.rng.u64(0..400)), None),
        };
        self.later.push((self.now.instant + took, Later::Taken { cost }));
    }

    /// Checks after each step that the room's account adds up and equals the oracle's.
    fn check_account(&mut self, entering: &[Entering], is_push: bool, batches: usize) {
        let view = self.room.view(0, self.now.instant);
        self.window_max = self.window_max.max(Duration::from_millis(view.window_ms));
        if self.step >= Step::WindowWidest {
            assert!(view.window_ms >= 1000, "the window is as wide as it ever is: {} ms", view.window_ms);
            self.coverage.count("window widest", 1);
        }
        let shed = |account: &BTreeMap<String, AccountView>, name: &str, reason: &str| {
            account.get(name).and_then(|account| account.shed.get(reason)).copied().unwrap_or(0)
        };
        let waiting = |name: &str| view.account.get(name).map_or(0, |account| account.waiting);
        for (name, account) in &view.account {
            let sum =
                account.delivered + account.merged + account.shed.values().sum::<u64>() + account.waiting;
            assert_eq!(account.accepted, sum, "conservation of {name}: {account:?}");
            self.oracle.check_type(name, account);
            let more = |reason| shed(&view.account, name, reason) - shed(&self.account, name, reason);
            self.coverage.count("expired", more("expired"));
            let branch = if batches == 0 { "sampled by a push" } else { "sampled by a cut" };
            self.coverage.count(branch, more("sampled"));
            let evicted = more("room_full");
            if evicted > 0 {
                let (branch, below): (_, &[&str]) = match name.as_str() {
                    "whisper" | "enter" | "follow" => ("evicted low", &[]),
                    "chat" | "alert" => ("evicted normal", &["whisper", "enter", "follow"]),
                    _ => ("evicted high", &["whisper", "enter", "follow", "chat", "alert"]),
                };
                self.coverage.count(branch, evicted);
                let is_alone = entering.windows(2).all(|two| two[0].name == two[1].name);
                let left: u64 = below.iter().map(|name| waiting(name)).sum();
                assert!(
                    !is_alone || !is_push || left == 0,
                    "{evicted} {name} made room while {left} below waited"
                );
            }
            assert!(shed(&view.account, COUPON, "room_full") == 0, "a coupon is never dropped");
        }
        if batches > 0 {
            let held = waiting("gift") + waiting("boast");
            let is_limited = self.rules.readable.high_per_second > 0;
            self.coverage.count("high held back", u64::from(is_limited && held > 0));
        }
        self.oracle.flushed(
            self.room.gathered(),
            !self.room.may_flush(),
            waiting(COUPON),
            &mut self.coverage,
        );
        self.account = view.account;
    }
}

fn live(seed: u64) -> Coverage {
    let mut flow = Flow::new(seed);
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| flow.run()));
    if let Err(panic) = run {
        let Flow { rules, members, pass, step, has_coupons, has_large, ttl, .. } = &flow;
        print(&format!(
            "flow seed {seed} failed: {members} members, {step:?}, passes {pass:?}, coupons {has_coupons}, \
             large {has_large}, ttl {ttl:?}, {rules:?}"
        ));
        print(&format!("replay it with ROOMCAST_FLOW={seed}"));
        std::panic::resume_unwind(panic);
    }
    flow.coverage
}

#[test]
fn every_message_is_accounted_for_in_every_flood_and_each_rare_branch_is_reached() {
    if let Some(seed) = number("ROOMCAST_FLOW") {
        live(seed);
        return;
    }
    let seeds = number("ROOMCAST_SEEDS").unwrap_or(SEEDS);
    let from = number("ROOMCAST_FROM").unwrap_or(0);
    let mut coverage = Coverage::default();
    for seed in from..from + seeds {
        for (branch, times) in live(seed).0 {
            coverage.count(branch, times);
        }
    }
    print(&format!("{seeds} rooms under floods; how often each rare branch was reached:"));
    for branch in BRANCHES {
        let times = coverage.0.get(branch).copied().unwrap_or(0);
        print(&format!("  {branch:<32}{times:>9}"));
        assert!(times >= REACHED_MIN || seeds < SEEDS, "{branch} was reached {times} times");
    }
}
