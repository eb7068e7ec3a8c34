//! Questions a shard answers at once: each with the type of its answer, and the one place that gives it.

use std::fmt;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Shard;
use super::handle::Shards;
use super::homes::publishers::NotConfigured;
use super::socket::DeviceSocket;
use roomcast_core::now::Now;
use roomcast_core::room::Counts;
use roomcast_core::room::id::{Epoch, RoomName, Run, Seen};
use roomcast_core::room::ladder::{RoomStep, Step};
use roomcast_core::room::pace::RoomSettings;
use roomcast_core::room::receipt::Acks;
use roomcast_core::room::view::{ClosedView, RoomLine, RoomView};

/// A question to a shard.
pub(super) trait Question: fmt::Debug + Send + 'static {
    /// The answer.
    type Answer: Send;

    /// The shard's answer.
    fn answer(self, shard: &mut Shard<DeviceSocket>, now: Now) -> Self::Answer;
}

/// A question on its way to a shard, with the way back.
#[derive(Debug)]
pub(super) struct Posed<Q: Question> {
    pub(super) question: Q,
    pub(super) reply: oneshot::Sender<Q::Answer>,
}

/// Any [`Posed`], as it waits in a shard's way in.
pub(super) trait AnyPosed: fmt::Debug + Send {
    /// Answers the question.
    fn answer(self: Box<Self>, shard: &mut Shard<DeviceSocket>, shards: &Shards, now: Now);
}

impl<Q: Question> AnyPosed for Posed<Q>
where
    Q::Answer: fmt::Debug,
{
    fn answer(self: Box<Self>, shard: &mut Shard<DeviceSocket>, shards: &Shards, now: Now) {
        let answer = self.question.answer(shard, now);
        // First, so that whoever hears the answer finds the viewer door placing and refusing devices as it
        // says.
        shards.hear_homes(&mut shard.homes);
        reply(self.reply, answer);
    }
}

/// Sends an answer. The door may have stopped waiting: then nobody hears it.
pub(super) fn reply<T>(reply: oneshot::Sender<T>, answer: T) {
    reply.send(answer).ok();
}

/// Opens or configures a room.
#[derive(Debug)]
pub(super) struct Configure {
    pub(super) room: RoomName,
    pub(super) settings: RoomSettings,
}

impl Question for Configure {
    type Answer = Result<Box<RoomView>, NotConfigured>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, now: Now) -> Self::Answer {
        shard.homes.configure(&self.room, self.settings, now).map(Box::new)
    }
}

/// Asks for the home's view of a room.
#[derive(Debug)]
pub(super) struct Describe {
    pub(super) room: RoomName,
}

impl Question for Describe {
    type Answer = Option<Box<RoomView>>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, now: Now) -> Self::Answer {
        // An idle room hears of a step with its next input, which may be far away.
        shard.homes.tell_step_to(&self.room, now);
        shard.homes.describe(&self.room, now.instant).map(Box::new)
    }
}

/// Asks for the shard's rooms with most members.
#[derive(Debug)]
pub(super) struct RoomsByMembers {
    pub(super) limit: usize,
}

impl Question for RoomsByMembers {
    type Answer = Vec<RoomLine>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, now: Now) -> Self::Answer {
        shard.homes.rooms_by_members(self.limit, now.instant)
    }
}

/// Asks for a shard's counts of a room's members, with the life of the room.
#[derive(Debug)]
pub(super) struct CountsOf {
    pub(super) room: RoomName,
}

impl Question for CountsOf {
    type Answer = Option<(Run, Counts)>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, _: Now) -> Self::Answer {
        shard.residents.counts(&self.room)
    }
}

/// Closes a room.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) room: RoomName,
}

impl Question for Close {
    type Answer = Option<ClosedView>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, now: Now) -> Self::Answer {
        shard.homes.close_room(&self.room, now)
    }
}

/// Asks for the newest messages of a room's history.
#[derive(Debug)]
pub(super) struct History {
    pub(super) room: RoomName,
    pub(super) seen: Option<Seen>,
    pub(super) limit: usize,
}

impl Question for History {
    type Answer = Option<Bytes>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, now: Now) -> Self::Answer {
        shard.homes.history(&self.room, self.seen, self.limit, now)
    }
}

/// Asks for a shard's part of a receipt.
#[derive(Debug)]
pub(super) struct AcksOf {
    pub(super) room: RoomName,
    pub(super) epoch: Epoch,
    pub(super) offset: u64,
}

impl Question for AcksOf {
    type Answer = Option<Acks>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, _: Now) -> Self::Answer {
        shard.residents.acks(&self.room, self.epoch, self.offset)
    }
}

/// Asks for a room's step of the ladder.
#[derive(Debug)]
pub(super) struct StepOf {
    pub(super) room: RoomName,
}

impl Question for StepOf {
    type Answer = Option<RoomStep>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, _: Now) -> Self::Answer {
        shard.homes.room_step(&self.room)
    }
}

/// Gives a room a step of its own, or takes the step back.
#[derive(Debug)]
pub(super) struct SetOwnStep {
    pub(super) room: RoomName,
    pub(super) step: Option<Step>,
}

impl Question for SetOwnStep {
    type Answer = Option<RoomStep>;

    fn answer(self, shard: &mut Shard<DeviceSocket>, now: Now) -> Self::Answer {
        shard.homes.set_own_step(&self.room, self.step, now)
    }
}

/// Asks for a sign of life: the shard takes turns.
#[derive(Debug)]
pub(super) struct Awake;

impl Question for Awake {
    type Answer = ();

    fn answer(self, _: &mut Shard<DeviceSocket>, _: Now) -> Self::Answer {}
}
