//! Requests of publishers and operators to the rooms of a shard.

use std::time::Instant;

use bytes::Bytes;

use super::heat::Fuel;
use super::{Homes, Opener};
use roomcast_core::cluster::{NodeKey, node_of_place};
use roomcast_core::now::Now;
use roomcast_core::room::id::{RoomName, Seen};
use roomcast_core::room::message::{Homeless, Message, Published};
use roomcast_core::room::pace::{RoomRules, RoomSettings, Unfit};
use roomcast_core::room::view::{ClosedView, RoomLine, RoomView, StreamRefusal};
use roomcast_core::room::{Ask, Input, Told};
use roomcast_core::wire::frame::{self, Head};

/// The reason why a room was not configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotConfigured {
    /// The room is not open and can't be: the shard drains, or holds as many rooms as it may.
    NotOpened,
    /// The settings don't fit the room.
    Unfit(Unfit),
    /// This node does not order the room.
    Homeless(Homeless),
}

/// The spread of a room over shards and nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// Members, or the expected audience if larger, and the cost of passes.
    pub fuel: Fuel,
    /// Other nodes with members, each with a count.
    pub nodes: Vec<(NodeKey, u64)>,
}

impl Homes {
    /// Publishes checked messages. The answer comes through `poll_answer` with the same ticket.
    pub fn publish(&mut self, ticket: u64, room: &RoomName, messages: Vec<Message>, now: Now) {
        if self.is_draining {
            self.answers.push_back((ticket, Published::Draining));
            return;
        }
        if let Some(homeless) = self.homeless(room) {
            self.answers.push_back((ticket, Published::Homeless(homeless)));
            return;
        }
        match self.open(room, Opener::Publisher, now.instant) {
            Some(key) => self.tell_room(key, Input::Publish { ticket, messages }, now),
            None => self.answers.push_back((ticket, Published::RoomsFull)),
        }
    }

    /// Takes over the node's rules, for new rooms and for open ones. An open room follows with its next
    /// input.
    pub fn follow(&mut self, rules: RoomRules) {
        for (_, home) in &mut self.rooms {
            home.room.follow(&self.plan.rules, &rules);
        }
        self.plan.rules = rules;
    }

    /// Opens or configures a room.
    ///
    /// # Errors
    /// [`NotConfigured`]; then nothing has changed.
    pub fn configure(
        &mut self,
        room: &RoomName,
        settings: RoomSettings,
        now: Now,
    ) -> Result<RoomView, NotConfigured> {
        if let Some(homeless) = self.homeless(room) {
            return Err(NotConfigured::Homeless(homeless));
        }
        let unfit = match self.room_of.get(room) {
            Some(key) => self.rooms[*key].room.unfit(&settings),
            None => settings.unfit(&self.plan.rules, settings.types.len()),
        };
        if let Some(unfit) = unfit {
            return Err(NotConfigured::Unfit(unfit));
        }
        let opened = if self.is_draining { None } else { self.open(room, Opener::Publisher, now.instant) };
        let key = opened.ok_or(NotConfigured::NotOpened)?;
        self.tell_room(key, Input::Configure(settings), now);
        self.describe(room, now.instant).ok_or(NotConfigured::NotOpened)
    }

    /// The view of a room; `None` if the room is not open.
    #[must_use]
    pub fn describe(&self, room: &RoomName, now: Instant) -> Option<RoomView> {
        let home = &self.rooms[*self.room_of.get(room)?];
        Some(RoomView { hot: home.heat.width() > 1, ..home.room.view(self.plan.index, now) })
    }

    /// The spread of a room; `None` if the room is not open.
    #[must_use]
    pub fn spread(&self, room: &RoomName, now: Instant) -> Option<Spread> {
        let room = &self.rooms[*self.room_of.get(room)?].room;
        let fuel = Fuel { members: room.expected_members(), permille: room.load_permille(now) };
        let places = room.segments();
        let nodes = places.filter_map(|(place, census)| Some((node_of_place(place)?, census.members())));
        Some(Spread { fuel, nodes: nodes.collect() })
    }

    /// The `limit` rooms with most members, most first.
    #[must_use]
    pub fn rooms_by_members(&self, limit: usize, now: Instant) -> Vec<RoomLine> {
        // Two numbers per room are sorted out first: the node may hold two hundred thousand.
        let mut ranks: Vec<(u64, usize)> =
            self.rooms.iter().map(|(key, home)| (u64::MAX - home.room.members(), key)).collect();
        if limit < ranks.len() {
            ranks.select_nth_unstable(limit);
            ranks.truncate(limit);
        }
        let mut lines: Vec<RoomLine> =
            ranks.into_iter().map(|(_, key)| self.rooms[key].line(self.plan.index, now)).collect();
        lines.sort_by(|a, b| b.members.cmp(&a.members).then_with(|| a.room.cmp(&b.room)));
        lines
    }

    /// Closes a room. Members are told, and everything that still waits in the room is shed. `None` if the
    /// room was not open.
    pub fn close_room(&mut self, room: &RoomName, now: Now) -> Option<ClosedView> {
        let key = *self.room_of.get(room)?;
        let members = self.rooms[key].room.members();
        // What fits before the segments still leaves.
        self.tell_room(key, Input::Flush, now);
        self.room_of.get(room)?;
        let view = ClosedView { room: room.to_string(), members, shed: self.rooms[key].room.rest() };
        self.tell_room(key, Input::Close, now);
        Some(view)
    }

    /// The newest `limit` messages of a room's history after `seen`; `None` if the room is not open.
    pub(crate) fn history(
        &mut self,
        room: &RoomName,
        seen: Option<Seen>,
        limit: usize,
        now: Now,
    ) -> Option<Bytes> {
        let key = *self.room_of.get(room)?;
        let room = &mut self.rooms[key].room;
        let (after, resumed) = room.resume(seen, now.instant);
        let mut snapshot = room.snapshot(after, None, now);
        let cut_short = snapshot.cut_short || snapshot.history.len() > limit;
        snapshot.history.drain(..snapshot.history.len().saturating_sub(limit));
        let head = Head { room: room.name(), run: room.run(), seq: snapshot.seq };
        Some(frame::history_page(head, resumed && !cut_short, &snapshot))
    }

    /// Asks a room about its reliable stream. The answer comes through `poll_told` with the same ticket.
    pub fn ask(&mut self, ticket: u64, room: &RoomName, ask: Ask, now: Now) {
        // Devices pull; receipts and recalls are publishers' calls.
        let opener = if matches!(ask, Ask::Pull { .. }) { Opener::Device } else { Opener::Publisher };
        // A recall is a message of the stream, and a draining node takes none. Readers are served to the end.
        let refusal = if self.is_draining && matches!(ask, Ask::Recall { .. } | Ask::EndStream) {
            StreamRefusal::Draining
        } else if let Some(homeless) = self.homeless_for(room, ask) {
            StreamRefusal::Homeless(homeless)
        } else if let Some(key) = self.open(room, opener, now.instant) {
            return self.tell_room(key, Input::Ask { ticket, ask }, now);
        } else {
            StreamRefusal::RoomsFull
        };
        self.told.push_back((ticket, Told::refused(ask, refusal)));
    }

    /// The next answer to an ask, with the ask's ticket.
    pub fn poll_told(&mut self) -> Option<(u64, Told)> {
        self.told.pop_front()
    }
}
