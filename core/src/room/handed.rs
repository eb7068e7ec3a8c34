//! The words of a room for its next home (`RoomState` of `proto/cluster.proto`), and the room that goes on there: in
//! the same run, at the next seq.
//!
//! A room is handed over once it is *settled*: nothing waits in it, for the store or for a reader. Each part of the
//! room has its own words (`handed` and `of_handed`), and reads those of another node as a stranger's.
//!
//! The words have a bound. Past it the past of account and totals is left out first, then the history, then ids. A room
//! that is larger all the same is not handed over: its next home begins another run.
//!
//! The reliable stream is in the log. The next home loads it before anybody hears of the room.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prost::Message as _;

use super::account::Account;
use super::counters::Counters;
use super::exchange::{Census, Output};
use super::history::History;
use super::id::{Encoding, Epoch, Key, MessageId, RoomName, Run, Seq, TypeName};
use super::ids::Ids;
use super::latest::Latest;
use super::message::{Class, Message, Payload};
use super::pace::{RoomRules, RoomSettings};
use super::policy::{Merge, PolicyChange, Priority, TypePolicy, TypeRate};
use super::segments::Enrolled;
use super::state::RoomState;
use super::stream::{Phase, Stream};
use super::{Counts, Room};
use crate::limits::{INTEGER_MAX, ROOM_STATE_BYTES_MAX, ROOM_TYPES_MAX};
use crate::node_proto as pb;
use crate::now::{Now, millis};

/// The words are none of a room, or a room can't be said in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHanded;

/// A local segment that was a part of its node's branch, and has its home on its node from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalSegment {
    /// The index of the shard.
    pub shard: usize,
    /// The members.
    pub census: Census,
    /// Batches that the segment has not taken.
    pub queued: usize,
}

impl Room {
    /// True if nothing is on its way in the room: its state can be said in words.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let is_known = match self.stream.phase {
            Phase::Ready => true,
            // Members whose place in the stream is not known have to be welcomed again.
            Phase::Cold => self.members() == 0,
            Phase::Failing { is_known, .. } => is_known,
            Phase::Loading { .. } => false,
        };
        is_known
            && self.gathering.waiting().is_none()
            && self.gathering.is_empty()
            && !self.waits_for_store()
            && self.readers.waiting.is_empty()
            && self.not_durable() == 0
            && self.segments.is_quiet_here()
    }

    /// The words for the next home of a settled room. `nodes`: the life of the node of a place. `own`: the life of this
    /// node. `node_rules`: those of this node.
    ///
    /// # Errors
    /// [`NotHanded`]: the words would be too many, or a segment of this node has not told its members.
    pub fn hand_over(
        &mut self,
        nodes: impl Fn(usize) -> Option<u64>,
        own: u64,
        node_rules: &RoomRules,
        now: Now,
    ) -> Result<pb::RoomState, NotHanded> {
        // Otherwise nobody could count off members of this node at the next home.
        let here = self.segments.own_roll().ok_or(NotHanded)?;
        let place = |incarnation: u64, roll: &BTreeMap<Enrolled, u32>| {
            let members = roll.iter().map(|(member, count)| member.handed(*count)).collect();
            pb::RoomPlace { incarnation, members }
        };
        let others = self.segments.rolls().filter_map(|(at, roll)| Some(place(nodes(at)?, roll)));
        let mut places: Vec<_> = others.collect();
        if !here.is_empty() {
            places.push(place(own, &here));
        }
        let mut said = pb::RoomState {
            room: self.name.as_str().into(),
            run: self.run.0,
            seq: self.state.seq.0,
            is_published: self.life.is_published,
            shown: Some(self.state.handed(now.instant)),
            stream: Some(self.stream.hand_over()),
            ids: self.ids.handed(now.instant),
            settings: Some(self.settings(node_rules)),
            own_step: 0,
            places,
            ended: Some(pb::Counts {
                written: self.segments.ended.written,
                queued: self.segments.ended.queued,
                skipped: self.segments.ended.skipped,
                acked: self.segments.ended.acked,
            }),
        };
        if fit(&mut said) { Ok(said) } else { Err(NotHanded) }
    }

    /// The room of another node's words. `place` gives the place of a node's life. `here`: the segments of this node,
    /// whose members the words count under `own`, the life of this node.
    ///
    /// # Errors
    /// [`NotHanded`]: no home says so.
    pub fn of_handed(
        said: pb::RoomState,
        place: impl Fn(u64) -> Option<usize>,
        own: u64,
        here: &[LocalSegment],
        node_rules: RoomRules,
        now: Now,
    ) -> Result<Self, NotHanded> {
        let name = RoomName::parse(&said.room).map_err(|_| NotHanded)?;
        let head = Seq(said.seq);
        let mut room = Self::new(name, Run(said.run), node_rules, now.instant);
        let shown = said.shown.unwrap_or_default();
        room.state = RoomState::of_handed(shown, head, now.instant).ok_or(NotHanded)?;
        room.stream = Stream::of_handed(said.stream.unwrap_or_default()).ok_or(NotHanded)?;
        room.ids = Ids::of_handed(said.ids, now.instant).ok_or(NotHanded)?;
        let settings = of_settings(said.settings.unwrap_or_default()).ok_or(NotHanded)?;
        if room.unfit(&settings).is_some() || head.0 > INTEGER_MAX {
            return Err(NotHanded);
        }
        room.configure(&settings, now.instant);
        room.life.is_published = said.is_published;
        let ended = said.ended.unwrap_or_default();
        room.segments.ended += Counts {
            written: ended.written,
            queued: ended.queued,
            skipped: ended.skipped,
            acked: ended.acked,
        };
        for said in said.places {
            let roll = said.members.into_iter().map(Enrolled::of_handed).collect::<Option<BTreeMap<_, _>>>();
            let roll = roll.ok_or(NotHanded)?;
            room.take_place(said.incarnation, roll, &place, own, here)?;
        }
        room.members_changed(now.instant);
        room.life.is_paused = true;
        room.go_on_with_stream(now);
        Ok(room)
    }

    /// Takes over the members of a node.
    fn take_place(
        &mut self,
        incarnation: u64,
        roll: BTreeMap<Enrolled, u32>,
        place: impl Fn(u64) -> Option<usize>,
        own: u64,
        here: &[LocalSegment],
    ) -> Result<(), NotHanded> {
        let members = roll.values().copied().map(u64::from).sum::<u64>();
        if incarnation == own && here.iter().map(|segment| segment.census.members()).sum::<u64>() == members {
            here.iter().for_each(|one| self.segments.take_over(one.shard, one.census, one.queued));
        } else if let Some(place) = place(incarnation).filter(|_| incarnation != own) {
            return if self.segments.enroll(place, roll) { Ok(()) } else { Err(NotHanded) };
        } else {
            // Nobody hears of these members again: they join anew.
            for (member, count) in roll {
                for _ in 0..count {
                    self.count_off(&member.departure());
                }
            }
        }
        Ok(())
    }

    /// Asks for the stream, or goes on if nobody has ever asked for it.
    fn go_on_with_stream(&mut self, now: Now) {
        if self.stream.is_handed() {
            self.begin_load(now);
        } else {
            self.go_on();
        }
    }

    /// The room orders from now on.
    pub(super) fn go_on(&mut self) {
        self.life.is_paused = false;
        self.outputs.push_back(Output::Adopted);
    }

    /// The settings that are not those of the node.
    fn settings(&self, node: &RoomRules) -> pb::RoomSettings {
        fn own<T: PartialEq + Copy>(own: T, node: T) -> Option<T> {
            (own != node).then_some(own)
        }
        let rules = &self.gathering.pace.rules;
        let quotas = own(rules.quotas, node.quotas).map_or_else(Vec::new, |own| own.permille.to_vec());
        let size = |size: usize| size as u64;
        pb::RoomSettings {
            expected_audience: self.audience.expected,
            gather_ms: own(rules.gather, node.gather).map(millis),
            messages_max: own(rules.messages_max, node.messages_max).map(size),
            bytes_max: own(rules.bytes_max, node.bytes_max).map(size),
            direct_members: own(rules.direct_members, node.direct_members),
            urgent_spacing_ms: own(rules.urgent_spacing, node.urgent_spacing).map(millis),
            gather_max_ms: own(rules.gather_max, node.gather_max).map(millis),
            quotas_permille: quotas,
            normal_per_second: own(rules.readable.normal_per_second, node.readable.normal_per_second),
            high_per_second: own(rules.readable.high_per_second, node.readable.high_per_second),
            messages_per_second: own(rules.messages_per_second, node.messages_per_second),
            idle_close_ms: self.life.idle_close.map(millis),
            types: self.limits.changes.iter().map(|(name, change)| type_settings(name, change)).collect(),
        }
    }
}

/// Leaves out what is worth least until the words fit. False: they don't.
fn fit(said: &mut pb::RoomState) -> bool {
    let fits = |said: &pb::RoomState| said.encoded_len() <= ROOM_STATE_BYTES_MAX;
    if fits(said) {
        return true;
    }
    let seq = said.seq;
    if let Some(shown) = &mut said.shown {
        // Members behind this seq come back afresh.
        shown.account_floor = seq;
        let columns = shown.account.iter_mut();
        let totals =
            columns.flat_map(|column| [&mut column.delivered, &mut column.merged, &mut column.skipped]);
        let counters = shown.counters.iter_mut().map(|counter| &mut counter.told);
        for total in totals.chain(counters).flatten() {
            total.base = total.totals.last().copied().unwrap_or(total.base);
            total.seqs.clear();
            total.totals.clear();
        }
    }
    if !fits(said)
        && let Some(shown) = &mut said.shown
    {
        shown.whole_after = seq;
        shown.history.clear();
    }
    if !fits(said) {
        said.ids.clear();
    }
    fits(said)
}

impl RoomState {
    /// The state for the next home of the room.
    fn handed(&self, now: Instant) -> pb::RoomShown {
        pb::RoomShown {
            history: self.history.handed(now),
            whole_after: self.history.whole_after().0,
            latest: self.latest.handed(),
            counters: self.counters.handed(),
            account: self.account.handed(),
            account_floor: self.account.floor().0,
        }
    }

    /// The state of a former home, as of the batch `head`. `None`: no home says so.
    pub(super) fn of_handed(said: pb::RoomShown, head: Seq, now: Instant) -> Option<Self> {
        let pb::RoomShown { history, whole_after, latest, counters, account, account_floor } = said;
        Some(Self {
            seq: head,
            counters: Counters::of_handed(counters, head)?,
            latest: Latest::of_handed(latest, head)?,
            history: History::of_handed(history, Seq(whole_after), head, now)?,
            account: Account::of_handed(account, Seq(account_floor), head)?,
        })
    }
}

impl Enrolled {
    fn handed(self, count: u32) -> pb::Enrolled {
        let encoding = match self.encoding {
            Encoding::Json => pb::Encoding::Json,
            Encoding::Proto => pb::Encoding::Proto,
        };
        pb::Enrolled {
            encoding: encoding.into(),
            epoch: self.epoch.map(|epoch| epoch.0),
            counts_from: (self.counts_from != u64::MAX).then_some(self.counts_from),
            device: self.device,
            count,
        }
    }

    fn of_handed(said: pb::Enrolled) -> Option<(Self, u32)> {
        let encoding = match pb::Encoding::try_from(said.encoding) {
            Ok(pb::Encoding::Json) => Encoding::Json,
            Ok(pb::Encoding::Proto) => Encoding::Proto,
            Ok(pb::Encoding::Unspecified) | Err(_) => return None,
        };
        let pb::Enrolled { epoch, counts_from, device, count, .. } = said;
        let counts_from = counts_from.unwrap_or(u64::MAX);
        (count > 0).then_some((Self { encoding, epoch: epoch.map(Epoch), counts_from, device }, count))
    }
}

/// The words of a message that devices were shown with the batch `seq`.
pub(super) fn message(seq: Seq, message: &Message) -> pb::ShownMessage {
    pb::ShownMessage {
        seq: seq.0,
        r#type: message.type_name.as_str().into(),
        key: message.key.as_ref().map_or_else(String::new, |key| key.as_str().into()),
        id: message.id.as_ref().map_or_else(String::new, |id| id.as_str().into()),
        payload: message.payload.bytes().clone(),
        is_opaque: matches!(message.payload, Payload::Opaque(_)),
        count: message.count,
        at_ms: message.at_ms,
        offset: message.offset,
        recall: message.recall,
        wire_bytes: u32::try_from(message.wire_bytes).unwrap_or(u32::MAX),
        is_summed: message.policy.merge == Merge::Sum,
        age_ms: 0,
        class: message.class() as u32,
        has_value: true,
    }
}

/// A message that a former home has shown, and its batch. `None`: no home says so.
pub(super) fn of_message(said: pb::ShownMessage, head: Seq) -> Option<(Seq, Message)> {
    let class = Class::ALL.get(said.class as usize)?;
    let key = (!said.key.is_empty()).then(|| Key::parse(&said.key));
    let id = (!said.id.is_empty()).then(|| MessageId::parse(&said.id));
    let wire_bytes = said.wire_bytes as usize;
    let numbers = [said.count, said.at_ms, said.offset, said.recall];
    let is_possible = said.seq <= head.0
        && numbers.iter().all(|number| *number <= INTEGER_MAX)
        && (said.payload.len()..=ROOM_STATE_BYTES_MAX).contains(&wire_bytes);
    let merge = if said.is_summed { Merge::Sum } else { Merge::None };
    let policy = TypePolicy { merge, history: true, ..TypePolicy::of(*class) };
    let payload = if said.is_opaque { Payload::Opaque(said.payload) } else { Payload::Json(said.payload) };
    let message = Message {
        key: key.transpose().ok()?,
        id: id.transpose().ok()?,
        count: said.count,
        at_ms: said.at_ms,
        offset: said.offset,
        recall: said.recall,
        wire_bytes,
        ..Message::new(TypeName::parse(&said.r#type).ok()?, policy, payload)
    };
    is_possible.then_some((Seq(said.seq), message))
}

fn type_settings(name: &TypeName, change: &PolicyChange) -> pb::TypeSettings {
    let rate = |rate: Option<TypeRate>| {
        let TypeRate { per_second, burst } = rate.unwrap_or(TypeRate { per_second: 0, burst: 0 });
        pb::TypeRate { per_second, burst }
    };
    pb::TypeSettings {
        r#type: name.as_str().into(),
        priority: change.priority.map(|priority| priority as u32),
        merge: change.merge.map(|merge| merge as u32),
        urgent: change.urgent,
        ttl_ms: change.ttl.map(millis),
        rate: change.rate.map(rate),
        history: change.history,
        weight: change.weight,
    }
}

/// The settings of another node's words. `None`: no home says so.
fn of_settings(said: pb::RoomSettings) -> Option<RoomSettings> {
    let ms = |ms: Option<u64>| match ms {
        Some(ms) if ms > INTEGER_MAX => None,
        ms => Some(ms.map(Duration::from_millis)),
    };
    let size = |size: Option<u64>| match size {
        Some(size) => usize::try_from(size).ok().filter(|size| *size > 0).map(Some),
        None => Some(None),
    };
    let quotas: [Option<u32>; Priority::ALL.len()] = match said.quotas_permille[..] {
        [] => [None; Priority::ALL.len()],
        _ => <[u32; Priority::ALL.len()]>::try_from(said.quotas_permille).ok()?.map(Some),
    };
    if said.expected_audience.is_some_and(|expected| expected > INTEGER_MAX) {
        return None;
    }
    if said.types.len() > ROOM_TYPES_MAX || quotas.iter().flatten().any(|permille| *permille > 1000) {
        return None;
    }
    let change = |said: pb::TypeSettings| {
        let priority = said.priority.map(|at| Priority::ALL.get(at as usize).copied().ok_or(()));
        let merge = said.merge.map(|at| Merge::ALL.get(at as usize).copied().ok_or(()));
        let rate = |said: pb::TypeRate| match (said.per_second, said.burst) {
            (0, _) => None,
            (per_second, burst) => Some(TypeRate { per_second, burst: burst.max(1) }),
        };
        let change = PolicyChange {
            priority: priority.transpose().ok()?,
            merge: merge.transpose().ok()?,
            urgent: said.urgent,
            ttl: ms(said.ttl_ms)?,
            rate: said.rate.map(rate),
            history: said.history,
            weight: said.weight.map(|weight| weight.max(1)),
        };
        Some((TypeName::parse(&said.r#type).ok()?, change))
    };
    Some(RoomSettings {
        expected_audience: said.expected_audience,
        gather: ms(said.gather_ms)?,
        messages_max: size(said.messages_max)?,
        bytes_max: size(said.bytes_max)?,
        direct_members: said.direct_members,
        urgent_spacing: ms(said.urgent_spacing_ms)?,
        gather_max: ms(said.gather_max_ms)?,
        quotas_permille: quotas,
        normal_per_second: said.normal_per_second,
        high_per_second: said.high_per_second,
        messages_per_second: said.messages_per_second,
        types: said.types.into_iter().map(change).collect::<Option<_>>()?,
        idle_close: ms(said.idle_close_ms)?,
    })
}

#[cfg(test)]
mod tests;
