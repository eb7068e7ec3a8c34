//! Settles a room's reliable stream: I1 to I7 over the publishes, the devices' cursors, and the store after
//! the run.

use std::collections::{BTreeMap, BTreeSet};

use super::published::{Outcome, Published};
use super::stream::{OffsetSeen, Passed, StreamSeen, TICK_SHIFT, What};
use super::violation::{Kind, Violations};
use crate::figures::latency::Latency;
use crate::figures::timeline::Timeline;
use crate::scenario::habits::SIP_EVERY_NS;

/// Time from a device's return, and from a message's answer, within which the message is to be applied (I2).
pub(crate) const APPLY_AGE_MAX_NS: u64 = 3_000_000_000;

/// Bytes per second from which a device has the 3 s: 64 kbit/s.
const PROMISED_BYTES_PER_S: u64 = 8_000;

/// Greatest difference between the clocks of node and generator at a message's expiry.
const EXPIRY_SLACK_NS: u64 = 200_000_000;

/// Time within which a slow reader is to apply a message (I2): 3 s at 64 kbit/s and above, below in proportion,
/// and the time between two of its reads.
///
/// At most 24 000 bytes stand before the end of a message: 3 s at 8 000 bytes/s. Example: at 2 000 bytes/s 12 s,
/// and 0.1 s until the next read.
pub(crate) fn slow_apply_age_max_ns(bytes_per_s: u32) -> u64 {
    let bytes_per_s = u64::from(bytes_per_s).clamp(1, PROMISED_BYTES_PER_S);
    APPLY_AGE_MAX_NS * PROMISED_BYTES_PER_S / bytes_per_s + SIP_EVERY_NS
}

/// The live messages of a room's stream in the store after the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) epoch: String,
    /// By offset.
    pub(crate) messages: BTreeMap<u64, What>,
    /// Time of the question, in `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) asked_ns: u64,
}

/// Times that devices took to apply reliable messages.
#[derive(Debug, Default)]
pub(crate) struct ApplyTimes {
    /// Start of the time covered by `from_answer` and `from_due`.
    timed_from_ns: u64,
    /// The time of a slow reader, by [`slow_apply_age_max_ns`].
    slow_age_max_ns: u64,
    /// From the answer `durable`, to slow readers.
    pub(crate) slow: Latency,
    /// From the answer `durable`.
    pub(crate) from_answer: Latency,
    /// From the due time of the message.
    pub(crate) from_due: Latency,
    /// The same for the whole run, by due time.
    pub(crate) over_time: Timeline,
}

impl ApplyTimes {
    /// Empty times, of messages due from `timed_from_ns` on. Slow readers have `slow_age_max_ns`.
    pub(crate) fn since(timed_from_ns: u64, slow_age_max_ns: u64) -> Self {
        Self { timed_from_ns, slow_age_max_ns, ..Self::default() }
    }
}

/// Judges the reliable stream of a room.
///
/// `lives` are the stream's epochs, merged over all workers. `stored` is the pull after the run; `None` when
/// the pull failed, which is a finding elsewhere. A message lives `ttl_ns` from the first sending at least.
pub(crate) fn check_stream(
    published: &Published,
    lives: &[StreamSeen],
    stored: Option<&Stored>,
    ttl_ns: u64,
    times: &mut ApplyTimes,
    violations: &mut Violations,
) {
    for seen in lives {
        let life = StreamLife { published, seen, ttl_ns, only: lives.len() == 1 };
        life.check_offsets(violations);
        life.check_times(times, violations);
        life.check_holes(violations);
        life.check_ends(violations);
        // Offsets of another epoch say nothing of this one.
        if let Some(stored) = stored.filter(|stored| stored.epoch == seen.epoch) {
            life.check_seen_is_stored(stored, violations);
        }
    }
}

/// Judges the store's content of `room` after the run (I1, I3, I6, I7), with or without devices in the room.
pub(crate) fn check_stored(
    published: &Published,
    room: u32,
    stored: &Stored,
    ttl_ns: u64,
    violations: &mut Violations,
) {
    let mut there: BTreeMap<u64, u64> = BTreeMap::new();
    let mut recalled = BTreeSet::new();
    for (offset, what) in &stored.messages {
        match what {
            // A recalled message leaves the store before its expiry.
            What::Recall(of) => drop(recalled.insert(*of)),
            What::Other => {}
            What::Message(number) => {
                if let Some(first) = there.insert(*number, *offset) {
                    violations.add(Kind::I3AppliedTwice, 1, || {
                        format!(
                            "I3 room {room}: message {number} is stored at offset {first} and at {offset}"
                        )
                    });
                }
                check_outcome(published, room, *number, *offset, violations);
            }
        }
    }
    for number in published.numbers_in(room) {
        let answered = published.offset(number);
        let expires_ns = published.sent_ns(number).saturating_add(ttl_ns);
        // Only a live message with the answer `durable` must be in the store.
        if published.outcome(number) != Outcome::Ok
            || recalled.contains(&answered)
            || stored.asked_ns + EXPIRY_SLACK_NS >= expires_ns
        {
            continue;
        }
        match there.get(&number) {
            // A duplicate's answer may name no offset.
            Some(offset) if *offset == answered || answered == 0 => {}
            found => violations.add(Kind::I1NotStored, 1, || {
                format!(
                    "I1 room {room}: message {number} was answered durable at offset {answered} of epoch {}; the store \
                     has it at {found:?}",
                    stored.epoch
                )
            }),
        }
    }
}

fn check_outcome(published: &Published, room: u32, number: u64, offset: u64, violations: &mut Violations) {
    let (kind, invariant) = match published.outcome(number) {
        // An unknown publish may have been stored.
        Outcome::Ok | Outcome::Unknown => return,
        Outcome::Refused => (Kind::I7RefusedAppeared, "I7 (refused)"),
        Outcome::Unsent => (Kind::I6NotPublished, "I6 (never sent)"),
    };
    violations.add(kind, 1, || format!("{invariant} room {room}: message {number} is at offset {offset}"));
}

struct StreamLife<'a> {
    published: &'a Published,
    seen: &'a StreamSeen,
    ttl_ns: u64,
    /// The room had no other epoch, so the answers' offsets belong to this epoch.
    only: bool,
}

impl StreamLife<'_> {
    fn messages(&self) -> impl Iterator<Item = (u64, u64, &OffsetSeen)> {
        self.seen.offsets.iter().filter_map(|(offset, seen)| match seen.what {
            What::Message(number) => Some((*offset, number, seen)),
            What::Recall(_) | What::Other => None,
        })
    }

    fn recalled(&self) -> BTreeSet<u64> {
        let recalls = self.seen.offsets.values().filter_map(|seen| match seen.what {
            What::Recall(of) => Some(of),
            What::Message(_) | What::Other => None,
        });
        recalls.collect()
    }

    /// Every message known to stand in this epoch, by offset. At an offset both answered and applied, the
    /// applied message counts.
    fn known(&self) -> BTreeMap<u64, u64> {
        let mut known: BTreeMap<u64, u64> = BTreeMap::new();
        // Answers do not name an epoch. With several epochs, an answered offset may belong to any.
        if self.only {
            let ok = |number: &u64| self.published.outcome(*number) == Outcome::Ok;
            let answered = self.published.numbers_in(self.seen.room).filter(ok);
            let placed = answered.map(|number| (self.published.offset(number), number));
            known.extend(placed.filter(|(offset, _)| *offset > 0));
        }
        known.extend(self.messages().map(|(offset, number, _)| (offset, number)));
        known
    }

    /// Each message has a single offset (I3), as in the answer (I4), and was neither refused nor
    /// unsent (I6, I7).
    fn check_offsets(&self, violations: &mut Violations) {
        let mut first: BTreeMap<u64, u64> = BTreeMap::new();
        let room = self.seen.room;
        for (offset, number, seen) in self.messages() {
            check_outcome(self.published, room, number, offset, violations);
            if let Some(first) = first.insert(number, offset) {
                violations.add(Kind::I3AppliedTwice, seen.devices().max(1), || {
                    format!(
                        "I3 room {room}: device {} applied message {number} at offset {first} and at {offset}",
                        seen.slowest.1
                    )
                });
            }
            let answered = self.published.offset(number);
            // In a later epoch the store may have given the message another offset.
            if self.only && answered > 0 && answered != offset && first.get(&number) == Some(&offset) {
                violations.add(Kind::I4OffsetOrder, seen.devices().max(1), || {
                    format!(
                        "I4 room {room}: device {}: message {number} came at offset {offset}, \
                         its answer said {answered}",
                        seen.slowest.1
                    )
                });
            }
        }
        self.check_order(violations);
    }

    /// A message durable before another was sent has the lower offset (I4).
    fn check_order(&self, violations: &mut Violations) {
        // Backwards: the earliest answer of all offsets behind, and its offset.
        let mut earliest_answer = u64::MAX;
        let mut answered = 0;
        for (offset, number) in self.known().into_iter().rev() {
            if earliest_answer < self.published.sent_ns(number) {
                violations.add(Kind::I4OffsetOrder, 1, || {
                    format!(
                        "I4 room {}: offset {offset} stands before offset {answered}, \
                         which was durable before it was sent",
                        self.seen.room
                    )
                });
            }
            let ended = self.published.outcome(number) == Outcome::Ok;
            if ended && self.published.answered_ns(number) < earliest_answer {
                earliest_answer = self.published.answered_ns(number);
                answered = offset;
            }
        }
    }

    /// Messages are applied within 3 s of the answer (I2). Devices soon after a return are counted apart, in
    /// `after_return`.
    fn check_times(&self, times: &mut ApplyTimes, violations: &mut Violations) {
        let start_ns = self.published.schedule.start_ns;
        for (offset, number, seen) in self.messages() {
            let due_ns = self.published.schedule.due_ns(number);
            let answered_ns = self.published.answered_ns(number);
            let ok = self.published.outcome(number) == Outcome::Ok;
            let is_timed = u64::from(due_ns >= times.timed_from_ns);
            let mut late = 0;
            for (tick, count) in &seen.applied {
                // The tick's end: a time is overstated rather than understated.
                let applied_ns = start_ns + ((u64::from(*tick) + 1) << TICK_SHIFT);
                let since_due_ns = applied_ns.saturating_sub(due_ns);
                times.from_due.record(since_due_ns, u64::from(*count) * is_timed);
                times.over_time.record(due_ns.saturating_sub(start_ns), since_due_ns, u64::from(*count));
                // Without an answer there is no time from which the 3 s count.
                if ok {
                    let took_ns = applied_ns.saturating_sub(answered_ns);
                    times.from_answer.record(took_ns, u64::from(*count) * is_timed);
                    late += u64::from(*count) * u64::from(took_ns > APPLY_AGE_MAX_NS);
                }
            }
            violations.add(Kind::I2Late, late, || {
                let slowest_ns = start_ns + (u64::from(seen.slowest.0) << TICK_SHIFT);
                let ms = slowest_ns.saturating_sub(answered_ns) / 1_000_000;
                format!(
                    "I2 room {}: device {} applied offset {offset} {ms} ms after it was durable",
                    self.seen.room, seen.slowest.1
                )
            });
            if ok {
                self.check_slow_readers(offset, answered_ns, times, violations);
            }
        }
    }

    /// Slow readers apply a message within the time of their rate (I2).
    fn check_slow_readers(
        &self,
        offset: u64,
        answered_ns: u64,
        times: &mut ApplyTimes,
        violations: &mut Violations,
    ) {
        let Some(seen) = self.seen.offsets.get(&offset) else { return };
        let start_ns = self.published.schedule.start_ns;
        let took_ns = |tick: u32| (start_ns + (u64::from(tick) << TICK_SHIFT)).saturating_sub(answered_ns);
        let mut late = 0;
        for (tick, count) in &seen.applied_slowly {
            // The tick's end, as for other devices.
            let took_ns = took_ns(tick.saturating_add(1));
            times.slow.record(took_ns, u64::from(*count));
            late += u64::from(*count) * u64::from(took_ns > times.slow_age_max_ns);
        }
        violations.add(Kind::I2Late, late, || {
            let (tick, device) = seen.slowest_reader;
            let ms = took_ns(tick) / 1_000_000;
            let allowed_ms = times.slow_age_max_ns / 1_000_000;
            format!(
                "I2 room {}: device {device}, a slow reader, applied offset {offset} {ms} ms after it was durable; \
                 at its rate {allowed_ms} ms are allowed",
                self.seen.room
            )
        });
    }

    /// Every passed offset is recalled or expired (I4), and no device was owed an expired one (I2).
    fn check_holes(&self, violations: &mut Violations) {
        let known = self.known();
        let recalled = self.recalled();
        let room = self.seen.room;
        for (offset, passed) in &self.seen.holes {
            // The node need not carry a recalled message.
            if recalled.contains(offset) {
                continue;
            }
            let witness = passed.witness;
            let fault = match known.get(offset) {
                Some(number) if passed.first_ns + EXPIRY_SLACK_NS >= self.expires_ns(*number) => {
                    let owed = self.was_owed(*number, passed);
                    owed.then_some((Kind::I2NotApplied, "I2", "expired before the device was given it"))
                }
                Some(_) => Some((Kind::I4OffsetMissing, "I4", "neither expired nor recalled")),
                // An offset without any message: the store counted up without storing.
                None => Some((Kind::I4OffsetMissing, "I4", "and nobody knows a message there")),
            };
            if let Some((kind, invariant, why)) = fault {
                violations.add(kind, witness.devices, || {
                    format!(
                        "{invariant} room {room}: device {} passed over offset {offset}: {why}",
                        witness.example
                    )
                });
            }
        }
    }

    /// Every device ended past every message owed to the device. I2 covers answered messages, I4 messages
    /// broadcast without an answer.
    fn check_ends(&self, violations: &mut Violations) {
        let known = self.known();
        let recalled = self.recalled();
        let room = self.seen.room;
        for (end, passed) in &self.seen.ends {
            for (offset, number) in known.range(end + 1..) {
                if recalled.contains(offset) || !self.was_owed(*number, passed) {
                    continue;
                }
                let ok = self.published.outcome(*number) == Outcome::Ok;
                let (kind, invariant) =
                    if ok { (Kind::I2NotApplied, "I2") } else { (Kind::I4OffsetMissing, "I4") };
                violations.add(kind, passed.witness.devices, || {
                    format!(
                        "{invariant} room {room}: device {} ended at offset {end} and never applied offset {offset}",
                        passed.witness.example
                    )
                });
            }
        }
    }

    fn expires_ns(&self, number: u64) -> u64 {
        self.published.sent_ns(number).saturating_add(self.ttl_ns)
    }

    /// A message is owed to devices that had 3 s for it before its expiry, counted from durable and from
    /// their return.
    fn was_owed(&self, number: u64, passed: &Passed) -> bool {
        let answered_ns = self.published.answered_ns(number);
        // A message broadcast without an answer was durable at some unknown time after its sending.
        let durable_ns = if answered_ns == u64::MAX { self.published.sent_ns(number) } else { answered_ns };
        let until_ns = passed.first_ns.min(self.expires_ns(number).saturating_sub(EXPIRY_SLACK_NS));
        until_ns >= durable_ns.max(passed.returned_ns).saturating_add(APPLY_AGE_MAX_NS)
    }

    /// A message given to a device was durable before, so the store still has the message (I1).
    fn check_seen_is_stored(&self, stored: &Stored, violations: &mut Violations) {
        let recalled = self.recalled();
        for (offset, number, seen) in self.messages() {
            let is_stored = stored.messages.get(&offset) == Some(&What::Message(number));
            let expired = stored.asked_ns + EXPIRY_SLACK_NS >= self.expires_ns(number);
            // `check_stored` looks for the messages with an answer.
            let answered = self.published.outcome(number) == Outcome::Ok;
            if !is_stored && !expired && !answered && !recalled.contains(&offset) {
                violations.add(Kind::I1NotStored, 1, || {
                    format!(
                        "I1 room {}: device {} was given offset {offset}, message {number}; the store has {:?} there",
                        self.seen.room,
                        seen.slowest.1,
                        stored.messages.get(&offset)
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
