//! How a step of the ladder reaches the rooms of a shard: the shard's own, or one that an operator gave to a room.

use super::Shard;
use super::directory::OwnStep;
use crate::shard::connection::Socket;
use roomcast_core::now::Now;
use roomcast_core::room::Input;
use roomcast_core::room::id::RoomName;
use roomcast_core::room::ladder::{RoomStep, Step};

impl<S: Socket> Shard<S> {
    /// The step in force from now on, for rooms that have none of their own.
    pub fn degrade(&mut self, step: Step) {
        self.step = step;
    }

    /// Gives an open room a step of its own, or takes it back. `None`: it is not open.
    pub fn set_own_step(&mut self, room: &RoomName, step: Option<Step>, now: Now) -> Option<RoomStep> {
        let key = *self.room_of.get(room)?;
        self.rooms[key].own_step = step;
        self.own_steps.push_back(OwnStep { room: room.clone(), step });
        self.tell_step(key, now);
        self.room_step(room)
    }

    /// Where an open room stands on the ladder; `None`: it is not open.
    #[must_use]
    pub fn room_step(&self, room: &RoomName) -> Option<RoomStep> {
        let own = self.rooms[*self.room_of.get(room)?].own_step;
        Some(RoomStep { own, in_force: own.unwrap_or(self.step) })
    }

    /// The step in force for a room, open or not.
    pub(super) fn step_for(&self, room: &RoomName) -> Step {
        self.room_step(room).map_or(self.step, |step| step.in_force)
    }

    /// Tells an open room which step is in force for it, so that it shows it.
    pub(super) fn tell_step_to(&mut self, room: &RoomName, now: Now) {
        if let Some(key) = self.room_of.get(room).copied() {
            self.tell_step(key, now);
        }
    }

    /// Tells a room which step is in force for it, unless it knows. Whatever else it is told comes after this: a change
    /// reaches rooms one by one as something happens in them, instead of all two hundred thousand at once.
    pub(super) fn tell_step(&mut self, key: usize, now: Now) {
        let home = &mut self.rooms[key];
        let step = home.own_step.unwrap_or(self.step);
        if home.told_step != step {
            home.told_step = step;
            home.room.handle(Input::Degrade(step), now, &mut self.tally.rooms);
            self.take_outputs(key, now);
        }
    }
}
