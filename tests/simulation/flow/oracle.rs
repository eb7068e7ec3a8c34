//! The flow world's own account. Merged messages share one place. Each place leaves once, in the order of
//! entry within its rank, or is told as skipped. The account uses none of the room's code for accounts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roomcast_core::limits::{GATHERED_MESSAGES_MAX, INTEGER_MAX};
use roomcast_core::room::ladder::Step;
use roomcast_core::room::message::{Class, Message, ShedReason, Verdict};
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::policy::{Merge, Priority, TypePolicy};
use roomcast_core::room::view::AccountView;
use roomcast_core::room::{Batch, Refresh};

use crate::world::Coverage;

const SECOND: Duration = Duration::from_secs(1);
/// The most batches that leave with one flush.
const FLUSH_BATCHES: usize = 4;

/// One message of a publish, before its verdict.
#[derive(Debug, Clone)]
pub(super) struct Entering {
    pub(super) name: &'static str,
    pub(super) key: Option<String>,
    pub(super) number: u64,
    pub(super) count: u64,
    pub(super) promise: Promise,
    /// The number of high-priority messages and latest values up to and including this message.
    pub(super) ahead: usize,
}

/// A promise to a message beside its place in the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    None,
    /// The message leaves within two windows under any load.
    WithinWindows,
}

/// The messages that merged into one.
#[derive(Debug)]
struct Place {
    name: &'static str,
    numbers: Vec<u64>,
    count: u64,
    since: Instant,
    promise: Promise,
    /// The number of coupons that waited when the place was made.
    coupons_ahead: usize,
    left: bool,
}

/// The outcomes of one type, from the batches and the answers.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Accepted, saturated or durable messages. Each is a place or an increment.
    places: u64,
    merges: u64,
    messages: u64,
    merged: u64,
    skipped: u64,
}

/// The content of one batch.
#[derive(Debug, Default)]
struct Told {
    missed: BTreeMap<String, u64>,
    merged: BTreeMap<String, u64>,
    dropped: u64,
}

/// One message of a batch.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    entry: usize,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Oracle {
    rules: RoomRules,
    /// The time of each pass. `None`: drawn, so unknown here.
    pass: Option<Duration>,
    coupons_waiting: usize,
    types: BTreeMap<String, TypePolicy>,
    offered: BTreeMap<u64, Vec<Entering>>,
    /// Every place, in the order of entry.
    places: Vec<Place>,
    open: BTreeMap<(&'static str, Option<String>), usize>,
    by_number: BTreeMap<u64, usize>,
    sums: BTreeMap<String, Sums>,
    refused: BTreeMap<(String, &'static str), u64>,
    batches: Vec<Told>,
    /// Rank -> the last place that left.
    last: BTreeMap<u8, usize>,
    /// Likes published, likes told.
    likes: (u64, u64),
    likes_told: Option<Instant>,
    /// The time of each batch, with the number of messages of normal and low priority, and of high priority.
    shown: Vec<(Instant, usize, usize)>,
    /// The batches that this step has flushed.
    flush: Vec<Vec<Leaving>>,
    flush_dropped: bool,
    latest: BTreeMap<String, (u64, u64)>,
}

fn rank(policy: &TypePolicy) -> u8 {
    match (policy.class, policy.priority) {
        (Class::Reliable, _) => 4,
        (Class::Latest, _) => 3,
        (_, Priority::High) => 2,
        (_, Priority::Normal) => 1,
        (_, Priority::Low) => 0,
    }
}

fn number_of(message: &Message) -> u64 {
    let text = std::str::from_utf8(message.payload.bytes()).expect("text");
    text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A moment, and the ladder's step at that moment.
#[derive(Debug, Clone, Copy)]
struct Moment {
    step: Step,
    now: Instant,
}

impl Oracle {
    pub(super) fn new(
        types: &BTreeMap<&'static str, TypePolicy>,
        rules: RoomRules,
        pass: Option<Duration>,
    ) -> Self {
        Self {
            rules,
            pass,
            coupons_waiting: 0,
            types: types.iter().map(|(name, policy)| ((*name).to_owned(), *policy)).collect(),
            offered: BTreeMap::new(),
            places: Vec::new(),
            open: BTreeMap::new(),
            by_number: BTreeMap::new(),
            sums: BTreeMap::new(),
            refused: BTreeMap::new(),
            batches: Vec::new(),
            last: BTreeMap::new(),
            likes: (0, 0),
            likes_told: None,
            shown: Vec::new(),
            flush: Vec::new(),
            flush_dropped: false,
            latest: BTreeMap::new(),
        }
    }

    /// Takes in a publish. The answer may come later.
    pub(super) fn offer(&mut self, ticket: u64, entering: &[Entering]) {
        if !entering.is_empty() {
            self.offered.insert(ticket, entering.to_vec());
        }
    }

    pub(super) fn answered(
        &mut self,
        ticket: u64,
        verdicts: &[Verdict],
        step: Step,
        now: Instant,
        coverage: &mut Coverage,
    ) {
        let entering = self.offered.remove(&ticket).expect("each was offered");
        assert_eq!(entering.len(), verdicts.len(), "one verdict for each");
        for (one, verdict) in entering.iter().zip(verdicts) {
            self.enter(one, *verdict, step, now, coverage);
        }
    }

    fn enter(&mut self, one: &Entering, verdict: Verdict, step: Step, now: Instant, coverage: &mut Coverage) {
        let policy = self.types[one.name];
        let sums = self.sums.entry(one.name.to_owned()).or_default();
        if policy.class == Class::Lossy {
            let taken = !matches!(verdict, Verdict::Shed(_));
            assert!(!(taken && step >= Step::LossyOff), "lossy messages are off at {step:?}");
        }
        match verdict {
            Verdict::Shed(reason) => {
                *self.refused.entry((one.name.to_owned(), reason.name())).or_default() += 1;
                let lossy_off = policy.class == Class::Lossy && step >= Step::LossyOff;
                assert!(reason != ShedReason::LossyOff || lossy_off, "{} at {step:?}", one.name);
                let branch = match reason {
                    ShedReason::RoomFull => "room full",
                    ShedReason::TypeRate => "type rate",
                    ShedReason::RoomRate => "room rate",
                    ShedReason::LossyOff => "lossy off",
                    other => panic!("{} was shed: {other:?}", one.name),
                };
                coverage.count(branch, 1);
                assert!(
                    one.promise == Promise::None || reason != ShedReason::RoomFull,
                    "a {} within its reserve finds room",
                    one.name
                );
                return;
            }
            Verdict::Accepted | Verdict::Saturated | Verdict::Durable { .. } => sums.places += 1,
            Verdict::Merged => sums.merges += 1,
            other => panic!("a {} was answered with {other:?}", one.name),
        }
        if policy.class == Class::Counter {
            coverage.count("saturated", u64::from(verdict == Verdict::Saturated));
            let full = self.likes.0 + one.count > INTEGER_MAX;
            assert_eq!(verdict == Verdict::Saturated, full, "a total that can not grow says so");
            self.likes.0 = (self.likes.0 + one.count).min(INTEGER_MAX);
            return;
        }
        if policy.class == Class::Latest {
            self.latest.entry(one.key.clone().expect("it has one")).or_default().0 = one.number;
        }
        let name = (one.name, one.key.clone());
        if verdict == Verdict::Merged {
            let place = self.open[&name];
            self.by_number.insert(one.number, place);
            let place = &mut self.places[place];
            assert!(!place.left, "nothing merges with what has left");
            place.numbers.push(one.number);
            place.count += one.count;
            return;
        }
        if let Some(before) = self.open.get(&name).map(|place| &self.places[*place]) {
            let is_sum = policy.merge == Merge::Sum && one.key.is_some();
            let is_more = before.count.saturating_add(one.count) > INTEGER_MAX;
            coverage.count("a sum begins another", u64::from(is_sum && is_more && !before.left));
        }
        self.by_number.insert(one.number, self.places.len());
        self.open.insert(name, self.places.len());
        let coupons_ahead = self.coupons_waiting;
        self.coupons_waiting += usize::from(policy.class == Class::Reliable);
        self.places.push(Place {
            coupons_ahead,
            name: one.name,
            numbers: vec![one.number],
            count: one.count,
            since: now,
            promise: one.promise,
            left: false,
        });
    }

    /// Takes in a batch. `window` is the widest window so far.
    pub(super) fn hear(
        &mut self,
        batch: &Batch,
        step: Step,
        now: Instant,
        window: Duration,
        coverage: &mut Coverage,
    ) {
        let mut told = Told::default();
        let mut leaving = Vec::new();
        let mut normal = 0;
        let mut high = 0;
        for message in &batch.messages {
            let name = message.type_name.to_string();
            if message.class() != Class::Reliable {
                *told.missed.entry(name.clone()).or_default() += 1;
            }
            self.sums.entry(name.clone()).or_default().messages += 1;
            if name == "online" {
                continue;
            }
            match rank(&self.types[&name]) {
                0 | 1 => normal += 1,
                2 => high += 1,
                _ => {}
            }
            leaving.push(self.leave(message, &name, Moment { step, now }, window, coverage));
        }
        assert!(leaving.is_sorted_by_key(|one| one.entry), "a batch stands in room order: {leaving:?}");
        for (name, count) in &batch.merged {
            told.merged.insert(name.to_string(), *count);
            self.sums.entry(name.to_string()).or_default().merged += count;
        }
        for (name, count) in &batch.skipped {
            *told.missed.entry(name.to_string()).or_default() += count;
            told.dropped += count;
            self.sums.entry(name.to_string()).or_default().skipped += count;
        }
        self.flush_dropped |= told.dropped > 0;
        coverage.count("told with no message", u64::from(batch.messages.is_empty() && told.dropped > 0));
        for change in &batch.counters {
            self.likes.1 += change.add;
            assert_eq!(self.likes.1, change.total, "a total is what was told of it");
            if step >= Step::CountersSlow {
                let apart = self.likes_told.is_none_or(|told| told + SECOND <= now);
                assert!(apart, "counters are told once a second at {step:?}");
                coverage.count("counters slow", 1);
            }
            self.likes_told = Some(now);
        }
        self.check_shown(normal, high, step, now, coverage);
        self.batches.push(told);
        assert_eq!(self.batches.len() as u64, batch.seq.0, "seqs have no holes");
        self.flush.push(leaving);
    }

    fn leave(
        &mut self,
        message: &Message,
        name: &str,
        at: Moment,
        window: Duration,
        coverage: &mut Coverage,
    ) -> Leaving {
        let Moment { step, now } = at;
        let policy = self.types[name];
        let number = number_of(message);
        let entry = self.by_number[&number];
        let rank = rank(&policy);
        let before = self.last.insert(rank, entry);
        assert!(
            before.is_none_or(|before| before < entry),
            "{name} {number} left before what entered earlier"
        );
        let place = &mut self.places[entry];
        assert_eq!(place.name, name);
        assert!(!place.left, "{name} {number} leaves once");
        place.left = true;
        let shown = if policy.merge == Merge::First { place.numbers.first() } else { place.numbers.last() };
        assert_eq!(shown, Some(&number), "{name} stands for {:?}", place.numbers);
        if policy.merge == Merge::Sum {
            assert_eq!(message.count, place.count, "the sum of {name} {:?}", place.numbers);
        }
        let waited = now.saturating_duration_since(place.since);
        if policy.class == Class::Reliable {
            self.coupons_waiting -= 1;
            if let Some(pass) = self.pass {
                // An earlier pass ends first, the next pass must be within the budget, and urgent flushes
                // keep their spacing.
                let flushes = u32::try_from(1 + place.coupons_ahead / FLUSH_BATCHES).expect("few");
                let most =
                    (pass * 1000 / self.rules.cpu_permille + pass + self.rules.urgent_spacing) * flushes;
                assert!(waited <= most + Duration::from_millis(10), "a coupon waited {waited:?} of {most:?}");
                coverage.count("a coupon in time", 1);
                coverage.count("a coupon on the widest window", u64::from(step >= Step::WindowWidest));
            }
        }
        if rank < 3 {
            let all_alike = self.types.values().filter(|policy| policy.class != Class::Reliable);
            let is_alike = all_alike.clone().all(|other| other.ttl == policy.ttl);
            assert!(!is_alike || waited < policy.ttl, "{name} {number} left after {waited:?}");
        }
        if place.promise == Promise::WithinWindows {
            coverage.count("a gift within its reserve", 1);
            let most = window * 2 + Duration::from_millis(50);
            assert!(
                waited <= most,
                "{name} {number} was within its reserve and waited {waited:?} of {most:?}"
            );
        }
        if let Some(key) = message.key.as_ref().filter(|_| policy.class == Class::Latest) {
            self.latest.entry(key.to_string()).or_default().1 = number;
        }
        Leaving { entry, bytes: message.wire_bytes }
    }

    /// Checks that no second has more messages than devices are asked to show.
    fn check_shown(&mut self, normal: usize, high: usize, step: Step, now: Instant, coverage: &mut Coverage) {
        let configured = self.rules.readable.normal_per_second;
        let normal_max = match (step >= Step::NormalSampled, configured) {
            (true, 0) => 20,
            (true, some) => some.div_ceil(2),
            (false, some) => some,
        } as usize;
        // A room without a limit keeps no count, so earlier messages don't count against a new limit.
        self.shown.push((now, if normal_max > 0 { normal } else { 0 }, high));
        let within = self.shown.iter().rev().take_while(|(at, ..)| *at + SECOND > now);
        let sums = within.fold((0, 0), |sums, (_, normal, high)| (sums.0 + normal, sums.1 + high));
        if normal > 0 && normal_max > 0 {
            assert!(sums.0 <= normal_max, "{} of {normal_max} were shown in a second at {step:?}", sums.0);
            coverage.count("sampled harder", u64::from(step >= Step::NormalSampled));
        }
        let high_max = self.rules.readable.high_per_second as usize;
        if high > 0 && high_max > 0 {
            assert!(sums.1 <= high_max, "{} of {high_max} of high priority in a second", sums.1);
        }
    }

    /// Ends a step, and checks the order of its flush. `gathered` messages wait, `coupons` of which are
    /// reliable.
    pub(super) fn flushed(&mut self, gathered: usize, is_told: bool, coupons: u64, coverage: &mut Coverage) {
        let flush = std::mem::take(&mut self.flush);
        let dropped = std::mem::take(&mut self.flush_dropped);
        if flush.is_empty() {
            return;
        }
        let all: Vec<Leaving> = flush.iter().flatten().copied().collect();
        let bytes: usize = all.iter().map(|one| one.bytes).sum();
        let fits = all.len() / self.rules.messages_max + 2 * bytes / self.rules.bytes_max < FLUSH_BATCHES;
        let is_limited = self.rules.readable.normal_per_second + self.rules.readable.high_per_second > 0;
        let ordered = all.is_sorted_by_key(|one| one.entry);
        if gathered == 0 && fits && !dropped && !is_limited {
            coverage.count("several batches in room order", u64::from(flush.len() > 1));
        }
        let rank_of = |one: &Leaving| rank(&self.types[self.places[one.entry].name]);
        let urgent = |one: &Leaving| self.types[self.places[one.entry].name].urgent;
        if is_limited && gathered > 0 && all.iter().any(urgent) {
            coverage.count("early cut while sampling", u64::from(!all.iter().any(|one| rank_of(one) == 1)));
        }
        coverage.count("reserve used", u64::from(!ordered && gathered > 0));
        if coupons > 0 {
            let last = flush.last().expect("not empty");
            assert!(last.iter().all(|one| rank_of(one) == 4), "{coupons} coupons wait behind others");
        }
        if is_told && gathered == 0 {
            for (name, sums) in self.sums.iter().filter(|(name, _)| *name != "online" && *name != "like") {
                assert_eq!(sums.places, sums.messages + sums.skipped, "{name}: {sums:?}");
                assert_eq!(sums.merges, sums.merged, "{name}: {sums:?}");
            }
        }
        assert!(gathered <= GATHERED_MESSAGES_MAX + 2048, "what waits is bounded");
    }

    /// Checks that the room's account of a type equals the account of its publishers and members.
    pub(super) fn check_type(&self, name: &str, account: &AccountView) {
        if name == "online" {
            return;
        }
        let sums = self.sums.get(name).copied().unwrap_or_default();
        assert_eq!(account.accepted, sums.places + sums.merges, "{name} was accepted");
        // While a publish waits for the store, its refusals may be counted before the answer is heard.
        if self.offered.is_empty() {
            let known = self.refused.iter().filter(|((of, _), _)| of == name);
            let known: BTreeMap<_, _> = known.map(|((_, why), count)| ((*why).to_owned(), *count)).collect();
            assert_eq!(account.refused, known, "{name} was refused");
        }
        if name != "like" {
            assert_eq!(account.delivered, sums.messages, "{name} left");
            assert_eq!(account.merged, sums.merges, "{name} merged");
            assert!(account.shed.values().sum::<u64>() >= sums.skipped, "{name} was told as skipped");
        }
    }

    /// Checks the refresh of a member that lacks the batches in (since, to].
    pub(super) fn refreshed(&self, since: u64, to: u64, refresh: &Refresh, coverage: &mut Coverage) {
        assert_eq!(to, self.batches.len() as u64);
        let mut missed = BTreeMap::new();
        let mut merged = BTreeMap::new();
        let from = usize::try_from(since).expect("few");
        for told in &self.batches[from..] {
            for (name, count) in &told.missed {
                *missed.entry(name.clone()).or_default() += count;
            }
            for (name, count) in &told.merged {
                *merged.entry(name.clone()).or_default() += count;
            }
            coverage.count("refresh over what was dropped", u64::from(told.dropped > 0));
        }
        let named = |counts: &[(roomcast_core::room::id::TypeName, u64)]| -> BTreeMap<String, u64> {
            counts.iter().map(|(name, count)| (name.to_string(), *count)).collect()
        };
        assert_eq!(named(&refresh.missed.skipped), missed, "skipped in ({since}, {to}]");
        assert_eq!(named(&refresh.missed.merged), merged, "merged in ({since}, {to}]");
    }

    /// Checks the account after quiet.
    pub(super) fn check_end(&self) {
        assert!(self.offered.is_empty(), "each publish was answered");
        assert_eq!(self.likes.0, self.likes.1, "every like was told");
        for (key, (accepted, told)) in &self.latest {
            assert_eq!(accepted, told, "the newest value of {key} was told");
        }
        let mut dropped: BTreeMap<&str, u64> = BTreeMap::new();
        for place in self.places.iter().filter(|place| !place.left) {
            assert!(place.promise == Promise::None, "a {} within its reserve was dropped", place.name);
            assert!(!["coupon", "price"].contains(&place.name), "a {} is never dropped", place.name);
            *dropped.entry(place.name).or_default() += 1;
        }
        for (name, sums) in self.sums.iter().filter(|(name, _)| *name != "online" && *name != "like") {
            assert_eq!(
                dropped.get(name.as_str()).copied().unwrap_or(0),
                sums.skipped,
                "{name} was told as skipped"
            );
            assert_eq!(
                sums.places + sums.merges,
                sums.messages + sums.skipped + sums.merged,
                "{name}: {sums:?}"
            );
        }
    }
}
