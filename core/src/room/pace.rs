//! The pace of a room: the moments of flushes. `Pace` owns the window, and other parts pass bounds in.
//!
//! Passes must not take more of a shard than `cpu_share`, so expensive passes stand farther apart:
//!
//! ```text
//! spacing = min(max(stretch × pass / cpu_share, (stretch − 1) × gather), gather_max)
//! window  = max(spacing, min(stretch × gather, gather_max))
//! ```
//!
//! `pass` is members × the measured write cost of a member. `stretch` is the factor of all windows of a shard
//! whose rooms fit alone but not together; 1 otherwise. The term (stretch − 1) × gather holds early flushes
//! of cheap rooms apart while others strain the shard. A `gather` above `gather_max` stays as configured. In
//! a room of at most `direct_members` members, `gather` is at most 10 ms.
//!
//! Example: 10 000 members × 7 µs = 70 ms a pass, and 70 / 0.6 = 117 ms. With
//! a gather time of 100 ms and no stretch, the window is 117 ms. With a stretch of 1.5, the window is 1.5 ×
//! 117 = 175 ms.

use std::time::{Duration, Instant};

use super::id::TypeName;
use super::ladder::Step;
use super::policy::{PolicyChange, Priority};
use crate::limits::{DIRECT_SPACING, OUTBOX_BYTES_MAX, ROOM_TYPES_MAX, SEGMENT_QUEUED_MAX};

/// The rules of a room: the node's configuration (`flush.*`, `readable.*`, `limits.*`), overridden by
/// `PUT /v1/rooms/{room}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomRules {
    /// The time for which the oldest message waits for company.
    pub gather: Duration,
    /// Most messages of a batch.
    pub messages_max: usize,
    /// Most bytes of a batch, as encoded.
    pub bytes_max: usize,
    /// Most members with which a room flushes at once.
    pub direct_members: u64,
    /// The least time between early flushes for urgent messages.
    pub urgent_spacing: Duration,
    /// The widest window; a longer `gather` stays as configured.
    pub gather_max: Duration,
    /// The share of a shard's time for passes, in thousandths.
    pub cpu_permille: u32,
    /// The parts of a batch reserved by priority.
    pub quotas: Quotas,
    /// The messages shown to devices each second.
    pub readable: Readable,
    /// Most messages a second from publishers of the room, and at once; 0: no limit.
    pub messages_per_second: u32,
    /// Messages past a rate are counted, and none is refused.
    pub observe_only: bool,
}

/// Parts of a batch's budget, in messages and in bytes, reserved by priority, in thousandths. High and normal
/// share the rest, and whatever a reserve leaves unused, in room order. Low comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// The reserves in the order of [`Priority::ALL`]; at most 1000 together.
    pub permille: [u32; Priority::ALL.len()],
}

impl Default for Quotas {
    fn default() -> Self {
        Self { permille: [0, 0, 500] }
    }
}

/// Messages of a room that a device is shown a second; 0: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Readable {
    /// Messages of normal and low priority. Past the rate, a sample is drawn.
    pub normal_per_second: u32,
    /// Messages of high priority, without reliable and latest messages. Past the rate, messages wait.
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
    /// These rules, changed by `settings`.
    #[must_use]
    pub fn with(self, settings: &RoomSettings) -> Self {
        Self {
            gather: settings.gather.unwrap_or(self.gather),
            messages_max: settings.messages_max.unwrap_or(self.messages_max),
            bytes_max: settings.bytes_max.unwrap_or(self.bytes_max),
            direct_members: settings.direct_members.unwrap_or(self.direct_members),
            urgent_spacing: settings.urgent_spacing.unwrap_or(self.urgent_spacing),
            gather_max: settings.gather_max.unwrap_or(self.gather_max),
            quotas: Quotas {
                permille: std::array::from_fn(|at| {
                    settings.quotas_permille[at].unwrap_or(self.quotas.permille[at])
                }),
            },
            readable: Readable {
                normal_per_second: settings.normal_per_second.unwrap_or(self.readable.normal_per_second),
                high_per_second: settings.high_per_second.unwrap_or(self.readable.high_per_second),
            },
            messages_per_second: settings.messages_per_second.unwrap_or(self.messages_per_second),
            ..self
        }
    }

    /// These rules after the node's rules changed from `from` to `to`. A rule that is not the node's was given
    /// to the room by a publisher, and stays.
    #[must_use]
    pub fn following(self, from: &Self, to: &Self) -> Self {
        fn follow<T: PartialEq + Copy>(own: T, from: T, to: T) -> T {
            if own == from { to } else { own }
        }
        Self {
            gather: follow(self.gather, from.gather, to.gather),
            messages_max: follow(self.messages_max, from.messages_max, to.messages_max),
            bytes_max: follow(self.bytes_max, from.bytes_max, to.bytes_max),
            direct_members: follow(self.direct_members, from.direct_members, to.direct_members),
            urgent_spacing: follow(self.urgent_spacing, from.urgent_spacing, to.urgent_spacing),
            gather_max: follow(self.gather_max, from.gather_max, to.gather_max),
            cpu_permille: follow(self.cpu_permille, from.cpu_permille, to.cpu_permille),
            // As a whole: shares of two sources could add up to more than one.
            quotas: follow(self.quotas, from.quotas, to.quotas),
            readable: Readable {
                normal_per_second: follow(
                    self.readable.normal_per_second,
                    from.readable.normal_per_second,
                    to.readable.normal_per_second,
                ),
                high_per_second: follow(
                    self.readable.high_per_second,
                    from.readable.high_per_second,
                    to.readable.high_per_second,
                ),
            },
            messages_per_second: follow(
                self.messages_per_second,
                from.messages_per_second,
                to.messages_per_second,
            ),
            observe_only: to.observe_only,
        }
    }

    /// The least time between passes of this processor time under the room's share of a shard.
    pub fn spacing(&self, pass: Duration) -> Duration {
        pass.saturating_mul(1000) / self.cpu_permille.max(1)
    }

    /// The upper bound of all windows.
    pub fn window_max(&self) -> Duration {
        self.gather_max.max(self.gather)
    }
}

/// The cost of a room's passes, on the shard where passes have to be farthest apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassCost {
    /// Processor time of a pass.
    pub pass: Duration,
    /// The stretch of the shard, in thousandths; at least 1000.
    pub stretch_permille: u32,
}

impl Default for PassCost {
    fn default() -> Self {
        Self { pass: Duration::ZERO, stretch_permille: STRETCH_NONE }
    }
}

/// The stretch of a shard whose passes fit their share.
pub const STRETCH_NONE: u32 = 1000;

/// The gathering as the pace sees it: the grounds for a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The arrival of the oldest message.
    pub oldest: Instant,
    /// Number of whole batches.
    pub batches: usize,
    /// Bytes, as encoded.
    pub bytes: usize,
    /// An urgent message is among what waits.
    pub urgent: bool,
}

/// The pace of a room.
#[derive(Debug, Default)]
pub struct Pace {
    pub(super) rules: RoomRules,
    last_flush: Option<Instant>,
    /// The last batch of an early flush.
    pub(super) last_early: Option<Instant>,
    /// The last flush in which nothing was allowed to leave: no pass was spent, and yet the flush is not
    /// tried again at once.
    pub(super) last_idle: Option<Instant>,
    cost: PassCost,
    /// The ladder keeps the window at the widest, whatever passes cost.
    is_widest: bool,
}

impl Pace {
    pub(super) fn new(rules: RoomRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Changes the rules by `settings`.
    pub(super) fn configure(&mut self, settings: &RoomSettings) {
        self.rules = self.rules.with(settings);
    }

    /// Follows a change of the node's rules.
    pub(super) fn follow(&mut self, from: &RoomRules, to: &RoomRules) {
        self.rules = self.rules.following(from, to);
    }

    /// Sets the cost of passes from now on.
    pub fn passes_cost(&mut self, cost: PassCost) {
        self.cost = cost;
    }

    /// Takes over the step of the ladder.
    pub(super) fn degrade(&mut self, step: Step) {
        self.is_widest = step >= Step::WindowWidest;
    }

    /// The longest wait of the oldest message in a room of so many members. In a room with direct flushes,
    /// the time between two flushes.
    pub(super) fn window(&self, members: u64) -> Duration {
        self.gather(members).max(self.spacing(members))
    }

    /// The moment of the next flush. Later messages never re-arm the deadline. A whole batch or an urgent
    /// message brings the moment forward.
    pub fn due(&self, waiting: Waiting, members: u64) -> Instant {
        let affordable = self.affordable(waiting.oldest, members);
        if self.is_early(waiting, members) {
            return affordable;
        }
        let by_age = self.gathered(waiting.oldest, members).max(affordable);
        if !waiting.urgent {
            return by_age;
        }
        by_age.min(self.early_due(waiting.oldest, members))
    }

    /// Returns true if whole batches flush at the first affordable moment.
    fn is_early(&self, waiting: Waiting, members: u64) -> bool {
        if waiting.batches == 0 {
            return false;
        }
        // No pass takes more batches, and no device may owe more bytes, so waiting on would gain nothing.
        if waiting.batches >= SEGMENT_QUEUED_MAX || waiting.bytes >= OUTBOX_BYTES_MAX {
            return true;
        }
        // Two passes must fit a window. Otherwise this pass would be followed by another at the end of the
        // window, and cost each member one write more.
        !self.is_widest && self.rules.spacing(self.cost.pass) * 2 <= self.unstretched(members)
    }

    /// The first moment at which urgent messages may flush early.
    pub(super) fn early_due(&self, since: Instant, members: u64) -> Instant {
        let affordable = self.affordable(since, members);
        self.last_early.map_or(affordable, |last| affordable.max(last + self.rules.urgent_spacing))
    }

    /// Returns true if a message of the time `oldest` may stay behind in a flush now: a further flush will be
    /// affordable by the end of the message's window.
    pub(super) fn may_wait(&self, oldest: Instant, members: u64, now: Instant) -> bool {
        let gathered = self.gathered(oldest, members);
        gathered > now && gathered >= self.affordable(now, members)
    }

    /// The end of the gather time of a message of the time `oldest`, whatever passes cost.
    fn gathered(&self, oldest: Instant, members: u64) -> Instant {
        let stretched = self.gather(members);
        if self.is_direct(members) {
            // A flush in which nothing was allowed to leave counts as well: the room would be woken at once
            // again.
            let last = self.last_flush.max(self.last_idle);
            return last.map_or(oldest, |last| oldest.max(last + stretched));
        }
        // The stretch holds flushes apart, but a message after a pause waits no longer for it: the shard had
        // its rest.
        let since = self.last_flush.map_or(oldest, |last| last.min(oldest));
        (oldest + self.unstretched(members)).max(since + stretched)
    }

    /// The first moment from `since` on at which a further pass stays inside the write budget.
    fn affordable(&self, since: Instant, members: u64) -> Instant {
        // After a pause nothing is owed: the budget was not used meanwhile.
        self.last_flush.map_or(since, |last| since.max(last + self.spacing(members)))
    }

    /// The `spacing` of the formula above.
    fn spacing(&self, members: u64) -> Duration {
        let PassCost { pass, stretch_permille } = self.cost;
        let of_this_room = stretched(self.rules.spacing(pass), stretch_permille);
        let of_all_rooms = stretched(self.unstretched(members), stretch_permille - STRETCH_NONE);
        of_this_room.max(of_all_rooms).min(self.rules.gather_max)
    }

    /// The gather time, widened by the shard's stretch.
    fn gather(&self, members: u64) -> Duration {
        if self.is_widest {
            return self.rules.window_max();
        }
        let gather = self.unstretched(members);
        stretched(gather, self.cost.stretch_permille).min(self.rules.gather_max.max(gather))
    }

    /// The gather time on a calm shard.
    fn unstretched(&self, members: u64) -> Duration {
        if self.is_direct(members) { self.rules.gather.min(DIRECT_SPACING) } else { self.rules.gather }
    }

    /// A batch left.
    pub fn flushed(&mut self, now: Instant) {
        self.last_flush = Some(now);
    }

    fn is_direct(&self, members: u64) -> bool {
        members <= self.rules.direct_members
    }
}

fn stretched(duration: Duration, permille: u32) -> Duration {
    duration.saturating_mul(permille) / STRETCH_NONE
}

/// The settings in `PUT /v1/rooms/{room}`. `None` leaves a setting unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomSettings {
    /// The number of devices expected by the publisher.
    pub expected_audience: Option<u64>,
    /// The time for which the oldest message waits for company.
    pub gather: Option<Duration>,
    /// Most messages of a batch.
    pub messages_max: Option<usize>,
    /// Most bytes of a batch, as encoded.
    pub bytes_max: Option<usize>,
    /// Most members with which the room flushes at once.
    pub direct_members: Option<u64>,
    /// The least time between early flushes for urgent messages.
    pub urgent_spacing: Option<Duration>,
    /// The widest window.
    pub gather_max: Option<Duration>,
    /// The reserved parts of a batch, in thousandths, in the order of [`Priority::ALL`].
    pub quotas_permille: [Option<u32>; Priority::ALL.len()],
    /// Messages of normal and low priority shown to a device each second.
    pub normal_per_second: Option<u32>,
    /// Messages of high priority shown to a device each second.
    pub high_per_second: Option<u32>,
    /// Most messages a second from publishers of the room.
    pub messages_per_second: Option<u32>,
    /// Changes to the treatment of types; each type at most once.
    pub types: Vec<(TypeName, PolicyChange)>,
    /// The time without a publish after which the room closes.
    pub idle_close: Option<Duration>,
}

/// The reason why valid settings do not fit a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The reserves would exceed the batch.
    Quotas {
        /// The sum of all reserves, in thousandths of a batch.
        permille: u32,
    },
    /// The room would treat more than [`ROOM_TYPES_MAX`] types otherwise than the node.
    Types,
}

impl RoomSettings {
    /// The reason why the settings do not fit a room of `rules`. The room would treat `types` types otherwise
    /// than the node.
    pub fn unfit(&self, rules: &RoomRules, types: usize) -> Option<Unfit> {
        let permille = rules.with(self).quotas.permille.iter().sum();
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
        let pace = Pace::default();
        let now = Now::made_up().instant;
        assert_eq!(pace.due(waiting(now), MANY), now + Duration::from_millis(100));
    }

    #[test]
    fn a_small_room_flushes_at_once_and_then_keeps_its_spacing() {
        let mut pace = Pace::default();
        let now = Now::made_up().instant;
        assert_eq!(pace.due(waiting(now), 20), now);
        pace.flushed(now);
        assert_eq!(pace.due(waiting(now), 20), now + DIRECT_SPACING);
        assert_eq!(pace.due(waiting(now), 21), now + Duration::from_millis(100));
    }

    #[test]
    fn a_whole_batch_waits_for_nothing() {
        let pace = Pace::default();
        let now = Now::made_up().instant;
        assert_eq!(pace.due(Waiting { batches: 1, ..waiting(now) }, MANY), now);
    }

    /// A pass that takes this long.
    fn costing(pass_ms: u64) -> PassCost {
        PassCost { pass: Duration::from_millis(pass_ms), ..PassCost::default() }
    }

    #[test]
    fn the_window_widens_so_that_passes_keep_to_their_share_and_narrows_again() {
        let mut pace = Pace::default();
        let now = Now::made_up().instant;
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
        let mut pace = Pace::default();
        let now = Now::made_up().instant;
        pace.passes_cost(PassCost { stretch_permille: 1500, ..costing(90) });
        assert_eq!(pace.window(MANY), Duration::from_millis(225));
        pace.passes_cost(PassCost { stretch_permille: 1500, ..PassCost::default() });
        assert_eq!(pace.window(MANY), Duration::from_millis(150));
        assert_eq!(pace.window(5), DIRECT_SPACING * 3 / 2);
        pace.flushed(now);
        let soon = now + Duration::from_millis(10);
        let after_a_pause = now + Duration::from_secs(3600);
        assert_eq!(pace.due(waiting(soon), MANY), now + Duration::from_millis(150));
        assert_eq!(pace.due(waiting(after_a_pause), MANY), after_a_pause + Duration::from_millis(100));
    }

    #[test]
    fn early_flushes_of_cheap_rooms_are_held_apart_the_more_the_more_the_shard_is_strained() {
        let mut pace = Pace::default();
        let now = Now::made_up().instant;
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
        let mut pace = Pace::new(rules);
        let now = Now::made_up().instant;
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
        let mut pace = Pace::default();
        let now = Now::made_up().instant;
        pace.passes_cost(costing(30));
        pace.flushed(now);
        let later = now + Duration::from_millis(1);
        let affordable = now + Duration::from_millis(50);
        assert_eq!(pace.due(Waiting { batches: 1, ..waiting(later) }, MANY), affordable);
        let dear = now + Duration::from_millis(60);
        let window_over = later + Duration::from_millis(100);
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
        let mut pace = Pace::default();
        let now = Now::made_up().instant;
        let urgent = Waiting { urgent: true, ..waiting(now) };
        assert_eq!(pace.due(urgent, MANY), now);
        pace.last_early = Some(now);
        assert_eq!(pace.due(urgent, MANY), now + Duration::from_millis(20));
    }
}
