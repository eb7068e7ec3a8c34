//! When a room flushes. One type owns the window; whatever wants to change it passes bounds to it.

use std::time::{Duration, Instant};

use super::id::TypeName;
use super::ladder::Step;
use super::policy::{PolicyChange, Priority};
use crate::limits::{DIRECT_SPACING, OUTBOX_BYTES_MAX, ROOM_TYPES_MAX, SEGMENT_QUEUED_MAX};

/// The rules of a room, as configured (`flush.*`, `readable.*`, `limits.*`) and overridden by `PUT /v1/rooms/{room}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomRules {
    /// How long the oldest message waits for company.
    pub gather: Duration,
    /// Messages of one batch.
    pub messages_max: usize,
    /// Bytes of one batch, as encoded.
    pub bytes_max: usize,
    /// Up to this many members a room flushes at once.
    pub direct_members: u64,
    /// Early flushes for urgent messages are at least this far apart.
    pub urgent_spacing: Duration,
    /// How far the window may widen; a `gather` that is longer stays as it is.
    pub gather_max: Duration,
    /// What passes may take of a shard, in thousandths of its time.
    pub cpu_permille: u32,
    /// What of a batch is reserved for whom.
    pub quotas: Quotas,
    /// What devices are asked to show.
    pub readable: Readable,
    /// Messages that its publishers may send a second, and at once; 0: as many as come.
    pub messages_per_second: u32,
    /// Past a rate of messages nothing is refused, only counted.
    pub observe_only: bool,
}

/// Parts of a batch's budget, in messages and in bytes, that are reserved by priority, in thousandths. What is not
/// reserved, and what is not used of it, high and normal share in room order; low takes what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// In the order of [`Priority::ALL`]; together at most 1000.
    pub permille: [u32; Priority::ALL.len()],
}

impl Default for Quotas {
    fn default() -> Self {
        Self { permille: [0, 0, 500] }
    }
}

impl Quotas {
    /// These with what is named in their stead.
    #[must_use]
    pub fn with(self, permille: [Option<u32>; Priority::ALL.len()]) -> Self {
        Self { permille: std::array::from_fn(|at| permille[at].unwrap_or(self.permille[at])) }
    }

    /// All of them together, in thousandths of a batch.
    #[must_use]
    pub fn sum_permille(self) -> u32 {
        self.permille.iter().sum()
    }
}

/// What a device is asked to show a second of one room; 0: as much as comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readable {
    /// Messages of normal and low priority. Past it: sampled.
    pub normal_per_second: u32,
    /// Messages of high priority, reliable and latest ones aside. Past it: they wait for their turn.
    pub high_per_second: u32,
}

impl Default for RoomRules {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(100),
            messages_max: 100,
            bytes_max: 32 * 1024,
            direct_members: 20,
            urgent_spacing: Duration::from_millis(20),
            gather_max: Duration::from_secs(1),
            cpu_permille: 600,
            quotas: Quotas::default(),
            readable: Readable::default(),
            messages_per_second: 0,
            observe_only: false,
        }
    }
}

impl RoomRules {
    /// These rules with what `settings` name in their stead.
    #[must_use]
    pub fn with(self, settings: &RoomSettings) -> Self {
        Self {
            gather: settings.gather.unwrap_or(self.gather),
            messages_max: settings.messages_max.unwrap_or(self.messages_max),
            bytes_max: settings.bytes_max.unwrap_or(self.bytes_max),
            direct_members: settings.direct_members.unwrap_or(self.direct_members),
            urgent_spacing: settings.urgent_spacing.unwrap_or(self.urgent_spacing),
            gather_max: settings.gather_max.unwrap_or(self.gather_max),
            quotas: self.quotas.with(settings.quotas_permille),
            readable: Readable {
                normal_per_second: settings.normal_per_second.unwrap_or(self.readable.normal_per_second),
                high_per_second: settings.high_per_second.unwrap_or(self.readable.high_per_second),
            },
            messages_per_second: settings.messages_per_second.unwrap_or(self.messages_per_second),
            ..self
        }
    }

    /// How far apart passes of so much processor time have to be, so that they take no more of a shard than they may.
    #[must_use]
    pub fn spacing(&self, pass: Duration) -> Duration {
        pass.saturating_mul(1000) / self.cpu_permille.max(1)
    }

    /// The widest that the window may be.
    #[must_use]
    pub fn window_max(&self) -> Duration {
        self.gather_max.max(self.gather)
    }
}

/// What a room's passes cost on the shard where they cost most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassCost {
    /// Processor time of one pass.
    pub pass: Duration,
    /// By how much that shard has its rooms' windows widened because of all of them together, in thousandths; at least
    /// 1000.
    pub stretch_permille: u32,
}

impl Default for PassCost {
    fn default() -> Self {
        Self { pass: Duration::ZERO, stretch_permille: STRETCH_NONE }
    }
}

/// The stretch of a shard whose passes fit their share.
pub const STRETCH_NONE: u32 = 1000;

/// What waits in a buffer, as far as the pace is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// When the oldest message came.
    pub oldest: Instant,
    /// Whole batches that wait.
    pub batches: usize,
    /// Bytes that wait, as encoded.
    pub bytes: usize,
    /// An urgent message waits.
    pub urgent: bool,
}

/// The pace of one room.
#[derive(Debug, Default)]
pub struct Pace {
    rules: RoomRules,
    last_flush: Option<Instant>,
    last_early: Option<Instant>,
    /// A flush found that nothing may leave yet.
    last_idle: Option<Instant>,
    cost: PassCost,
    /// The window is as wide as it ever is, whatever passes cost.
    is_widest: bool,
}

impl Pace {
    /// A pace of these rules.
    #[must_use]
    pub fn new(rules: RoomRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &RoomRules {
        &self.rules
    }

    /// Changes what `settings` names.
    pub fn configure(&mut self, settings: &RoomSettings) {
        self.rules = self.rules.with(settings);
    }

    /// What the room's passes cost from now on.
    pub fn passes_cost(&mut self, cost: PassCost) {
        self.cost = cost;
    }

    /// What the ladder has the room do from now on.
    pub fn degrade(&mut self, step: Step) {
        self.is_widest = step >= Step::WindowWidest;
    }

    /// How long the oldest message may have to wait in a room of so many members. For a room that flushes directly it is
    /// what two flushes are apart.
    #[must_use]
    pub fn window(&self, members: u64) -> Duration {
        self.gather(members).max(self.spacing(members))
    }

    /// When what waits has to leave. Never re-armed by later messages: by age it depends on the oldest and on the last flush;
    /// later ones can only bring it forward.
    #[must_use]
    pub fn due(&self, waiting: Waiting, members: u64) -> Instant {
        let affordable = self.affordable(waiting.oldest, members);
        if self.is_early(waiting, members) {
            return affordable;
        }
        let by_age = self.gathered(waiting.oldest, members).max(affordable);
        if waiting.urgent { by_age.min(self.early_due(waiting.oldest, members)) } else { by_age }
    }

    /// Whether whole batches flush as soon as that can be afforded: if two such passes fit a window, or if no more fits one
    /// pass. Otherwise a pass now would be followed by another when the window is over, and cost each member a write more.
    fn is_early(&self, waiting: Waiting, members: u64) -> bool {
        let is_cheap = !self.is_widest && self.rules.spacing(self.cost.pass) * 2 <= self.unstretched(members);
        let is_much = waiting.batches >= SEGMENT_QUEUED_MAX || waiting.bytes >= OUTBOX_BYTES_MAX;
        waiting.batches > 0 && (is_cheap || is_much)
    }

    /// The first moment at which urgent messages may flush early.
    #[must_use]
    pub fn early_due(&self, since: Instant, members: u64) -> Instant {
        let affordable = self.affordable(since, members);
        self.last_early.map_or(affordable, |last| affordable.max(last + self.rules.urgent_spacing))
    }

    /// Whether what came at `oldest` may stay behind when a flush goes out now: a further one can be afforded by the time it
    /// has gathered long enough.
    #[must_use]
    pub fn may_wait(&self, oldest: Instant, members: u64, now: Instant) -> bool {
        let gathered = self.gathered(oldest, members);
        gathered > now && gathered >= self.affordable(now, members)
    }

    /// When a message that came at `oldest` has waited for company long enough, whatever its room's passes cost. On a
    /// strained shard flushes keep farther apart, but what comes after a pause waits no longer for that.
    fn gathered(&self, oldest: Instant, members: u64) -> Instant {
        let (gather, stretched) = (self.unstretched(members), self.gather(members));
        match self.last_flush.max(self.last_idle) {
            _ if !self.is_direct(members) => {
                let since = self.last_flush.map_or(oldest, |last| last.min(oldest));
                (oldest + gather).max(since + stretched)
            }
            Some(last) => oldest.max(last + stretched),
            None => oldest,
        }
    }

    /// The first moment from `since` on at which a further pass stays inside the write budget. What comes after a pause
    /// need not wait for it: the budget was not used meanwhile.
    fn affordable(&self, since: Instant, members: u64) -> Instant {
        self.last_flush.map_or(since, |last| since.max(last + self.spacing(members)))
    }

    /// How far apart passes have to be so that they keep to their share, as far as they may. Where the shard is strained,
    /// early flushes of rooms that cost little alone are held apart, too: the more, the more it is strained.
    fn spacing(&self, members: u64) -> Duration {
        let PassCost { pass, stretch_permille } = self.cost;
        let alone = stretched(self.rules.spacing(pass), stretch_permille);
        let of_all = stretched(self.unstretched(members), stretch_permille - STRETCH_NONE);
        alone.max(of_all).min(self.rules.gather_max)
    }

    /// How long the oldest message gathers company, as far as the shard lets it leave again.
    fn gather(&self, members: u64) -> Duration {
        if self.is_widest {
            return self.rules.window_max();
        }
        let gather = self.unstretched(members);
        stretched(gather, self.cost.stretch_permille).min(self.rules.gather_max.max(gather))
    }

    fn unstretched(&self, members: u64) -> Duration {
        if self.is_direct(members) { self.rules.gather.min(DIRECT_SPACING) } else { self.rules.gather }
    }

    /// A batch left for its age or its size.
    pub fn flushed(&mut self, now: Instant) {
        self.last_flush = Some(now);
    }

    /// It was due, but nothing that waits may leave yet: that costs no pass, and yet is not tried again at once.
    pub fn idled(&mut self, now: Instant) {
        self.last_idle = Some(now);
    }

    /// Urgent messages left early.
    pub fn flushed_early(&mut self, now: Instant) {
        self.last_early = Some(now);
    }

    fn is_direct(&self, members: u64) -> bool {
        members <= self.rules.direct_members
    }
}

fn stretched(duration: Duration, permille: u32) -> Duration {
    duration.saturating_mul(permille) / STRETCH_NONE
}

/// What `PUT /v1/rooms/{room}` may change. `None` leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomSettings {
    /// How many devices the publisher expects.
    pub expected_audience: Option<u64>,
    /// How long the oldest message waits for company.
    pub gather: Option<Duration>,
    /// Messages of one batch.
    pub messages_max: Option<usize>,
    /// Bytes of one batch.
    pub bytes_max: Option<usize>,
    /// Up to this many members the room flushes at once.
    pub direct_members: Option<u64>,
    /// Early flushes for urgent messages are at least this far apart.
    pub urgent_spacing: Option<Duration>,
    /// How far the window may widen.
    pub gather_max: Option<Duration>,
    /// What of a batch is reserved for whom, in thousandths, in the order of [`Priority::ALL`].
    pub quotas_permille: [Option<u32>; Priority::ALL.len()],
    /// Messages of normal and low priority that a device is asked to show a second.
    pub normal_per_second: Option<u32>,
    /// Messages of high priority that a device is asked to show a second.
    pub high_per_second: Option<u32>,
    /// Messages that its publishers may send a second.
    pub messages_per_second: Option<u32>,
    /// What it does otherwise for some types; each at most once.
    pub types: Vec<(TypeName, PolicyChange)>,
    /// The room closes after this long without a published message.
    pub idle_close: Option<Duration>,
}

/// Why settings, each of them as it may be, can't be a room's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// More of a batch would be reserved than there is.
    Quotas {
        /// All quotas together.
        permille: u32,
    },
    /// More than [`ROOM_TYPES_MAX`] types would be treated otherwise.
    Types,
}

impl RoomSettings {
    /// Why they don't fit a room of these rules, which would treat so many types otherwise.
    #[must_use]
    pub fn unfit(&self, rules: &RoomRules, types: usize) -> Option<Unfit> {
        let permille = rules.with(self).quotas.sum_permille();
        if permille > 1000 {
            return Some(Unfit::Quotas { permille });
        }
        (types > ROOM_TYPES_MAX).then_some(Unfit::Types)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now::Now;

    const MANY: u64 = 1000;

    fn waiting(oldest: Instant) -> Waiting {
        Waiting { oldest, batches: 0, bytes: 0, urgent: false }
    }

    #[test]
    fn the_oldest_message_waits_for_the_window_and_no_longer() {
        let (pace, now) = (Pace::default(), Now::made_up().instant);
        assert_eq!(pace.due(waiting(now), MANY), now + Duration::from_millis(100));
    }

    #[test]
    fn a_small_room_flushes_at_once_and_then_keeps_its_spacing() {
        let (mut pace, now) = (Pace::default(), Now::made_up().instant);
        assert_eq!(pace.due(waiting(now), 20), now);
        pace.flushed(now);
        assert_eq!(pace.due(waiting(now), 20), now + DIRECT_SPACING);
        assert_eq!(pace.due(waiting(now), 21), now + Duration::from_millis(100));
    }

    #[test]
    fn a_whole_batch_waits_for_nothing() {
        let (pace, now) = (Pace::default(), Now::made_up().instant);
        assert_eq!(pace.due(Waiting { batches: 1, ..waiting(now) }, MANY), now);
    }

    /// A pass that takes this long.
    fn costing(pass_ms: u64) -> PassCost {
        PassCost { pass: Duration::from_millis(pass_ms), ..PassCost::default() }
    }

    #[test]
    fn the_window_widens_so_that_passes_keep_to_their_share_and_narrows_again() {
        let (mut pace, now) = (Pace::default(), Now::made_up().instant);
        for (pass_ms, window_ms) in [(59, 100), (60, 100), (90, 150), (600, 1000), (5000, 1000), (30, 100)] {
            pace.passes_cost(costing(pass_ms));
            let window = Duration::from_millis(window_ms);
            assert_eq!(pace.window(MANY), window, "passes of {pass_ms} ms");
            pace.flushed(now);
            assert_eq!(pace.due(waiting(now), MANY), now + window);
            let after_a_pause = now + window * 2;
            assert_eq!(pace.due(waiting(after_a_pause), MANY), after_a_pause + Duration::from_millis(100));
        }
    }

    #[test]
    fn a_shard_that_is_strained_by_many_rooms_widens_each_window_in_proportion() {
        let (mut pace, now) = (Pace::default(), Now::made_up().instant);
        pace.passes_cost(PassCost { stretch_permille: 1500, ..costing(90) });
        assert_eq!(pace.window(MANY), Duration::from_millis(225));
        pace.passes_cost(PassCost { stretch_permille: 1500, ..PassCost::default() });
        assert_eq!(pace.window(MANY), Duration::from_millis(150));
        assert_eq!(pace.window(5), DIRECT_SPACING * 3 / 2);
        pace.flushed(now);
        let (soon, after_a_pause) = (now + Duration::from_millis(10), now + Duration::from_secs(3600));
        assert_eq!(pace.due(waiting(soon), MANY), now + Duration::from_millis(150));
        assert_eq!(pace.due(waiting(after_a_pause), MANY), after_a_pause + Duration::from_millis(100));
    }

    #[test]
    fn early_flushes_of_cheap_rooms_are_held_apart_the_more_the_more_the_shard_is_strained() {
        let (mut pace, now) = (Pace::default(), Now::made_up().instant);
        pace.flushed(now);
        let full = Waiting { batches: 1, ..waiting(now) };
        for (stretch_permille, apart_ms) in [(1000, 0), (1010, 1), (1500, 50), (3000, 200), (20_000, 1000)] {
            pace.passes_cost(PassCost { stretch_permille, ..PassCost::default() });
            assert_eq!(pace.due(full, MANY), now + Duration::from_millis(apart_ms), "{stretch_permille}");
        }
    }

    /// A room may gather for as long as it likes; its coupons may not.
    #[test]
    fn a_coupon_never_waits_longer_than_the_widest_window() {
        let rules = RoomRules { gather: Duration::from_secs(10), ..RoomRules::default() };
        let (mut pace, now) = (Pace::new(rules), Now::made_up().instant);
        pace.passes_cost(PassCost { stretch_permille: 1500, ..costing(20_000) });
        pace.flushed(now);
        let urgent = Waiting { urgent: true, ..waiting(now + Duration::from_millis(1)) };
        assert_eq!(pace.due(urgent, MANY), now + rules.gather_max);
    }

    #[test]
    fn a_gather_time_beyond_the_widest_window_stays_as_configured() {
        let gather = Duration::from_secs(5);
        let mut pace = Pace::new(RoomRules { gather, ..RoomRules::default() });
        pace.passes_cost(costing(50_000));
        assert_eq!(pace.window(MANY), gather);
    }

    #[test]
    fn whole_batches_and_urgent_messages_stay_inside_the_write_budget() {
        let (mut pace, now) = (Pace::default(), Now::made_up().instant);
        pace.passes_cost(costing(30));
        pace.flushed(now);
        let later = now + Duration::from_millis(1);
        let affordable = now + Duration::from_millis(50);
        assert_eq!(pace.due(Waiting { batches: 1, ..waiting(later) }, MANY), affordable);
        let (dear, window_over) = (now + Duration::from_millis(60), later + Duration::from_millis(100));
        pace.passes_cost(costing(36));
        assert_eq!(pace.due(Waiting { batches: 1, ..waiting(later) }, MANY), window_over);
        assert_eq!(pace.due(Waiting { batches: 3, ..waiting(later) }, MANY), window_over);
        assert_eq!(pace.due(Waiting { batches: 4, ..waiting(later) }, MANY), dear, "no pass takes more");
        let much = Waiting { batches: 2, bytes: OUTBOX_BYTES_MAX, ..waiting(later) };
        assert_eq!(pace.due(much, MANY), dear, "no device is to owe more");
        pace.passes_cost(costing(30));
        assert_eq!(pace.due(Waiting { urgent: true, ..waiting(later) }, MANY), affordable);
        // What an early cut left behind is due soon, but a pass has just begun.
        let left = now.checked_sub(Duration::from_millis(99)).unwrap();
        assert_eq!(pace.due(waiting(left), MANY), affordable);
    }

    #[test]
    fn urgent_messages_flush_early_but_not_more_often_than_their_spacing() {
        let (mut pace, now) = (Pace::default(), Now::made_up().instant);
        let urgent = Waiting { urgent: true, ..waiting(now) };
        assert_eq!(pace.due(urgent, MANY), now);
        pace.flushed_early(now);
        assert_eq!(pace.due(urgent, MANY), now + Duration::from_millis(20));
    }
}
