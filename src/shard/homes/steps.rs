//! The way of a step of the ladder to rooms: the shard's step, or one an operator gave to a room.

use super::Homes;
use crate::shard::directory::OwnStep;
use roomcast_core::now::Now;
use roomcast_core::room::Input;
use roomcast_core::room::id::RoomName;
use roomcast_core::room::ladder::{RoomStep, Step};

impl Homes {
    /// Gives an open room a step of its own, or takes the step back. `None`: the room is not open.
    pub(crate) fn set_own_step(&mut self, room: &RoomName, step: Option<Step>, now: Now) -> Option<RoomStep> {
        let key = *self.room_of.get(room)?;
        self.rooms[key].own_step = step;
        self.own_steps.push_back(OwnStep { room: room.clone(), step });
        self.tell_step(key, now);
        self.room_step(room)
    }

    /// The step of an open room; `None`: the room is not open.
    pub(crate) fn room_step(&self, room: &RoomName) -> Option<RoomStep> {
        let own = self.rooms[*self.room_of.get(room)?].own_step;
        Some(RoomStep { own, in_force: own.unwrap_or(self.step) })
    }

    /// The step in force for a room, open or not.
    pub(super) fn step_for(&self, room: &RoomName) -> Step {
        self.room_step(room).map_or(self.step, |step| step.in_force)
    }

    /// Tells an open room the step in force, so that its view shows the step.
    pub(crate) fn tell_step_to(&mut self, room: &RoomName, now: Now) {
        if let Some(key) = self.room_of.get(room).copied() {
            self.tell_step(key, now);
        }
    }

    /// Tells a room the step in force for it, unless the room knows. Comes before each other input: so a
    /// change reaches rooms one by one as something happens in them, instead of all two hundred thousand at
    /// once.
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
