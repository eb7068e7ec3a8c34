//! What publishers ask of the rooms whose home this shard is.

use std::time::Instant;

use super::Shard;
use crate::shard::connection::Socket;
use roomcast_core::now::Now;
use roomcast_core::room::id::{Epoch, RoomName, Run, Seen};
use roomcast_core::room::message::{Message, Published};
use roomcast_core::room::pace::{RoomSettings, Unfit};
use roomcast_core::room::receipt::Acks;
use roomcast_core::room::view::{ClosedView, HistoryPage, RoomLine, RoomView, StreamRefusal};
use roomcast_core::room::{Ask, Counts, Input, Told};
use roomcast_core::wire::frame::{self, Head};

/// Why a room was not configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotConfigured {
    /// It is not open and can't be: the shard drains, or holds as many rooms as it may.
    NotOpened,
    /// The settings don't fit it.
    Unfit(Unfit),
}

impl<S: Socket> Shard<S> {
    /// Publishes checked messages; the answer comes through `poll_answer` with the same ticket.
    pub fn publish(&mut self, ticket: u64, room: &RoomName, messages: Vec<Message>, now: Now) {
        if self.is_draining() {
            self.answers.push_back((ticket, Published::Draining));
            return;
        }
        match self.open(room, now.instant) {
            Some(key) => self.tell_room(key, Input::Publish { ticket, messages }, now),
            None => self.answers.push_back((ticket, Published::RoomsFull)),
        }
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
        let unfit = match self.room_of.get(room) {
            Some(key) => self.rooms[*key].room.unfit(&settings),
            None => settings.unfit(&self.plan.rules, settings.types.len()),
        };
        if let Some(unfit) = unfit {
            return Err(NotConfigured::Unfit(unfit));
        }
        let opened = if self.is_draining() { None } else { self.open(room, now.instant) };
        let key = opened.ok_or(NotConfigured::NotOpened)?;
        self.tell_room(key, Input::Configure(settings), now);
        self.describe(room, now.instant).ok_or(NotConfigured::NotOpened)
    }

    /// What a room shows of itself; `None` if it is not open.
    #[must_use]
    pub fn describe(&self, room: &RoomName, now: Instant) -> Option<RoomView> {
        let key = *self.room_of.get(room)?;
        let home = &self.rooms[key];
        Some(RoomView { hot: home.heat.width() > 1, ..home.room.view(self.plan.index, now) })
    }

    /// Its `limit` rooms with most members, most first.
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

    /// Closes a room; its members are told, and what still waits in it is shed. `None` if it was not open.
    pub fn close_room(&mut self, room: &RoomName, now: Now) -> Option<ClosedView> {
        let key = *self.room_of.get(room)?;
        let members = self.rooms[key].room.members();
        self.tell_room(key, Input::Flush, now);
        self.room_of.get(room)?;
        let view = ClosedView { room: room.to_string(), members, shed: self.rooms[key].room.rest() };
        self.tell_room(key, Input::Close, now);
        Some(view)
    }

    /// The newest `limit` messages of a room's history after `seen`; `None` if it is not open.
    pub fn history(
        &mut self,
        room: &RoomName,
        seen: Option<Seen>,
        limit: usize,
        now: Now,
    ) -> Option<HistoryPage> {
        let key = *self.room_of.get(room)?;
        let room = &mut self.rooms[key].room;
        let (after, resumed) = room.resume(seen, now.instant);
        let mut snapshot = room.snapshot(after, None, now);
        let cut_short = snapshot.cut_short || snapshot.history.len() > limit;
        snapshot.history.drain(..snapshot.history.len().saturating_sub(limit));
        let head = Head { room: room.name(), run: room.run(), seq: snapshot.seq };
        Some(HistoryPage { json: frame::history_page(head, resumed && !cut_short, &snapshot) })
    }

    /// Asks something of a room's reliable stream; the answer comes through `poll_told` with the same ticket.
    pub fn ask(&mut self, ticket: u64, room: &RoomName, ask: Ask, now: Now) {
        let refusal = if self.is_draining() && matches!(ask, Ask::Recall { .. }) {
            StreamRefusal::Draining
        } else if let Some(key) = self.open(room, now.instant) {
            return self.tell_room(key, Input::Ask { ticket, ask }, now);
        } else {
            StreamRefusal::RoomsFull
        };
        let told = match ask {
            Ask::Receipt { .. } => Told::Receipt(Err(refusal), Acks::default()),
            Ask::Recall { .. } => Told::Recalled(Err(refusal)),
            Ask::Pull { .. } => Told::Pulled(Err(refusal)),
        };
        self.told.push_back((ticket, told));
    }

    /// The acknowledgements of a message that members on this shard gave; `None`: it counts none.
    #[must_use]
    pub fn acks(&self, room: &RoomName, epoch: Epoch, offset: u64) -> Option<Acks> {
        let segment = &self.segments[*self.segment_of.get(room)? as usize].segment;
        segment.acks(offset).filter(|_| segment.epoch() == Some(epoch)).cloned()
    }

    /// What this shard counts of a room's members, with the life of the room that it is of.
    #[must_use]
    pub fn counts(&self, room: &RoomName) -> Option<(Run, Counts)> {
        let placed = &self.segments[*self.segment_of.get(room)? as usize];
        Some((placed.segment.run(), placed.counts))
    }

    /// The next answer to an ask, with the ticket it came with.
    pub fn poll_told(&mut self) -> Option<(u64, Told)> {
        self.told.pop_front()
    }
}
