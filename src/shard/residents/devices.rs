//! Devices: their bytes and frames, and the answers that they get at once.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::Residents;
use super::connection::{Connection, Socket};
use crate::auth::Grant;
use crate::seat::Seat;
use roomcast_core::limits::{DEVICE_MESSAGE_BYTES_MAX, TOKEN_FRAME_COST};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Encoding, RoomName};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::device::{self, DeviceFrame, Refusal, Token};
use roomcast_core::wire::frame::{self, Notice};
use roomcast_core::wire::reader::Incoming;

impl<S: Socket> Residents<S> {
    /// Takes in a connection. The result is its key, valid while the connection lives.
    pub fn connect(&mut self, socket: S, encoding: Encoding, grant: Grant, seat: Seat, now: Now) -> u64 {
        self.connections.insert(Connection::new(socket, encoding, grant, seat, now.instant))
    }

    /// Takes bytes off the connection's socket. Afterwards `bytes` holds nothing of use.
    pub fn receive(&mut self, key: u64, bytes: &mut [u8], now: Now) {
        let Some(index) = self.connections.find(key) else { return };
        let mut reader = std::mem::take(&mut self.connections[index].reader);
        let read =
            reader.feed(bytes, DEVICE_MESSAGE_BYTES_MAX, &mut |incoming| self.hear(key, &incoming, now));
        // A frame of its own may have ended the connection.
        let Some(index) = self.connections.find(key) else { return };
        self.connections[index].reader = reader;
        if let Err(reason) = read {
            self.close(index, reason, now);
        }
    }

    /// The connection's socket takes more.
    pub fn writable(&mut self, key: u64, now: Now) {
        if let Some(index) = self.connections.find(key) {
            self.drain_connection(index, now);
        }
    }

    /// The connection's socket ended or failed.
    pub fn hang_up(&mut self, key: u64, now: Now) {
        let Some(index) = self.connections.find(key) else { return };
        self.close(index, CloseReason::Gone, now);
        self.connections.ended.push(index);
    }

    /// Closes up to `most` connections of the address with this share of the seats, so that another address
    /// finds a seat. Connections that are owed something go first. Returns the number of closed connections.
    pub fn give_way(&mut self, share: u16, most: u32, now: Now) -> u32 {
        let mut gone = 0;
        for index in self.connections.of_share(share, most) {
            self.close(index, CloseReason::Crowded, now);
            gone += 1;
        }
        gone
    }

    /// Closes up to `most` connections with 4005: those with one room, which `url_of` has a URL for. Returns
    /// the number of closed connections.
    ///
    /// A connection younger than [`ELSEWHERE_INTERVAL`](roomcast_core::limits::ELSEWHERE_INTERVAL) stays: a
    /// device that comes back all the same is served for so long.
    pub fn send_elsewhere(
        &mut self,
        url_of: &dyn Fn(&RoomName) -> Option<Arc<str>>,
        most: u32,
        now: Now,
    ) -> u32 {
        let mut goes = Vec::new();
        for placed in self.segments.iter() {
            if goes.len() >= most as usize {
                break;
            }
            let Some(url) = url_of(placed.segment.room()) else { continue };
            let old = placed.segment.connections().filter(|index| self.connections.is_old(*index));
            // Another room of the device may have its home here.
            let alone = old.filter(|index| {
                let connection = &self.connections[*index];
                connection.places.len() == 1 && connection.deferred.is_empty() && connection.closing.is_none()
            });
            goes.extend(alone.take(most as usize - goes.len()).map(|index| (index, Arc::clone(&url))));
        }
        for (index, url) in &goes {
            self.send_away(*index, url, now);
        }
        u32::try_from(goes.len()).unwrap_or(most)
    }

    /// Cuts the connection because of a defect of the engine.
    pub(crate) fn abort(&mut self, key: u64, now: Now) {
        if let Some(index) = self.connections.find(key) {
            self.close(index, CloseReason::Internal, now);
        }
    }

    /// The connection of a key, while it lives.
    pub fn connection(&mut self, key: u64) -> Option<&mut Connection<S>> {
        let index = self.connections.find(key)?;
        self.connections.living(index)
    }

    /// Takes a frame of a device.
    fn hear(&mut self, key: u64, incoming: &Incoming<'_>, now: Now) -> ControlFlow<()> {
        let Some(index) = self.connections.find(key) else { return ControlFlow::Break(()) };
        let connection = &mut self.connections[index];
        // A device that was told to go has nothing more to say.
        if connection.closing.is_some() {
            return ControlFlow::Break(());
        }
        if !connection.hear(now.instant) {
            self.close(index, CloseReason::FrameFlood, now);
            return ControlFlow::Break(());
        }
        match incoming {
            Incoming::Ping(payload) => self.answer(index, &frame::websocket_pong(payload), now),
            Incoming::Close(_) => {
                self.close(index, CloseReason::DeviceClosed, now);
                return ControlFlow::Break(());
            }
            Incoming::Pong | Incoming::Fragment => {}
            Incoming::Text(_) | Incoming::Binary(_) => match device::parse(connection.encoding, incoming) {
                Ok(frame) => frame.into_iter().for_each(|frame| self.obey(key, index, frame, now)),
                Err(Refusal::Answer(bad)) => {
                    let error = Notice::Error { code: bad.code, room: None, field: bad.field };
                    self.notify(index, error, now);
                }
                Err(Refusal::Close(reason)) => {
                    self.close(index, reason, now);
                    return ControlFlow::Break(());
                }
            },
        }
        ControlFlow::Continue(())
    }

    fn obey(&mut self, key: u64, index: u32, frame: DeviceFrame, now: Now) {
        match frame {
            DeviceFrame::Ping => self.notify(index, Notice::Pong, now),
            DeviceFrame::Ack(acks) => {
                for ack in acks {
                    let taken = self.acknowledge(index, &ack, now.instant);
                    *(if taken { &mut self.tally.acks } else { &mut self.tally.acks_ignored }) += 1;
                }
            }
            DeviceFrame::Join { room, cursor } => self.join(key, &room, None, cursor, now),
            DeviceFrame::Leave { room } => self.leave(index, &room, now),
            DeviceFrame::Token(token) => self.take_token(index, &token, now),
        }
    }

    /// Takes a fresh token in place of the former one. A token that is not good changes nothing: the former
    /// one counts until it ends.
    fn take_token(&mut self, index: u32, token: &Token, now: Now) {
        // A signature costs more than all other frames, so a flood of tokens is one sooner.
        if !self.connections[index].charge(TOKEN_FRAME_COST) {
            return self.close(index, CloseReason::FrameFlood, now);
        }
        let grant = match self.plan.device_keys.grant(Some(&token.0), now.unix_ms / 1000) {
            Ok(grant) => grant,
            Err(refused) => {
                let error = Notice::Error { code: refused.name(), room: None, field: Some("token") };
                return self.notify(index, error, now);
            }
        };
        // A token for other rooms would leave the device where it may not be.
        if let Some(room) = self.first_room_outside(index, &grant) {
            let error = Notice::Error { code: "room_not_granted", room: Some(&room), field: Some("token") };
            return self.notify(index, error, now);
        }
        let taken = Notice::TokenTaken { expires_s: grant.expires_s() };
        self.connections[index].grant = grant;
        self.notify(index, taken, now);
    }

    /// A room of the connection that a grant does not cover.
    fn first_room_outside(&self, index: u32, grant: &Grant) -> Option<RoomName> {
        let connection = &self.connections[index];
        let joined = connection.places.iter().map(|place| self.segments[place.segment].segment.room());
        let mut rooms = joined.chain(connection.deferred.iter().map(|deferred| &deferred.room));
        rooms.find(|room| !grant.covers(room)).cloned()
    }

    fn leave(&mut self, index: u32, room: &RoomName, now: Now) {
        let segment = self.segments.find(room);
        let connection = &mut self.connections[index];
        let at = connection.places.iter().position(|place| Some(place.segment) == segment);
        if let Some(at) = at {
            let place = connection.places.remove(at);
            connection.forget_history(place.segment);
            self.connections.note_patient(index);
            self.give_up_place(place);
        } else if let Some(at) = connection.deferred.iter().position(|deferred| deferred.room == *room)
            && let Some(join) = connection.deferred.remove(at)
        {
            let key = self.connections.key(index);
            self.forget_homeless(key, &join);
        } else {
            let error = Notice::Error { code: "not_joined", room: Some(room), field: Some("room") };
            return self.notify(index, error, now);
        }
        self.notify(index, Notice::Left(room), now);
        // The join that was given up may have been the one that others waited for.
        self.send_deferred_join(index);
    }

    /// Sends a connection an answer to its device, or closes it if its device reads none of its answers.
    pub(super) fn notify(&mut self, index: u32, notice: Notice<'_>, now: Now) {
        let frame = frame::notice(notice, self.connections[index].encoding);
        self.answer(index, &frame, now);
    }

    fn answer(&mut self, index: u32, frame: &Bytes, now: Now) {
        let fits = self.connections[index].answer(frame, now.instant);
        self.connections.note_waiting(index);
        if !fits {
            self.close(index, CloseReason::FrameFlood, now);
        }
    }
}
