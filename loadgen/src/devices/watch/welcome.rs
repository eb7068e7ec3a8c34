//! Welcomes: of a device of the beginning, of a late joiner, and of a returning device. Pure.

use super::life::WatchedRoom;
use super::{Heard, Watch};
use crate::devices::known::{ENGINE_TYPE, Which};
use crate::devices::track::{Seat, Track};
use crate::ledger::{Claim, Kind, RoomSeen};
use crate::wire::frame::{History, Welcome};

/// The room is empty, because nothing is published so far.
#[derive(Debug, Clone, Copy)]
struct IsNew(bool);

impl Watch {
    pub(super) fn hear_welcome(
        &mut self,
        track: &mut Track,
        seat: Seat,
        welcome: &Welcome,
        now_ns: u64,
    ) -> Heard {
        // A device pings by the heartbeat, and 0 would have it ping without end.
        if welcome.room != self.lives[seat.place].name || welcome.heartbeat_ms == 0 {
            return Heard::NotAWelcome;
        }
        let life = self.life(seat, &welcome.run, now_ns);
        let same_life = track.seq.is_some() && track.life as usize == life;
        // Within one life of the room the seq never falls.
        if let Some(seq) = track.seq.filter(|seq| same_life && *seq > welcome.seq) {
            let at = welcome.seq;
            self.broke(Kind::OutOfOrder, seat, format_args!("welcomed at {at} when it held {seq}"));
        }
        let first = track.seq.is_none() && !track.was_away;
        let came_back = track.seq.is_some();
        self.judge_held(seat, life, welcome, IsNew(first));
        if first {
            for (name, total) in self.known.grown(welcome) {
                self.violations.add(Kind::CounterInexact, 1, || {
                    format!("device {}: {name} stands at {total} in the welcome of a new room", seat.device)
                });
            }
            self.lives[life].seen.stays.begins_with(seat.device);
        } else {
            track.place.returned_ns = now_ns;
            self.claim_totals(seat, life, welcome);
        }
        track.seq = Some(welcome.seq);
        track.start_seq = welcome.seq;
        track.life = u32::try_from(life).unwrap_or(u32::MAX);
        track.is_in = true;
        self.lives[life].copies.arrived();
        // A return to the same room goes on with the device's own second and total.
        if let Some(readers) = self.readers.as_mut().filter(|_| !came_back) {
            readers.arrive(seat.device);
        }
        let brought = self.streams.as_mut().and_then(|streams| {
            streams.tally.reconnects += u64::from(came_back);
            streams.welcome(&mut track.place, seat, welcome, now_ns, &mut self.violations)
        });
        let ack_within_ms =
            brought.filter(|brought| brought.through > 0).map(|brought| brought.ack_within_ms);
        Heard::Welcomed { heartbeat_ms: welcome.heartbeat_ms.into(), ack_within_ms }
    }

    /// Judges a welcome on a connection that was welcomed before, at `held`: the room has another home, or the
    /// home another link to the device's node.
    ///
    /// A new run is judged from its welcome on. The device was there all the time, so the batches behind the
    /// welcome are owed to it. A welcome to the same run is a return: the batches in between are not.
    pub(super) fn hear_rewelcome(
        &mut self,
        track: &mut Track,
        seat: Seat,
        welcome: &Welcome,
        held: u64,
        now_ns: u64,
    ) -> Heard {
        if welcome.room != self.lives[seat.place].name || welcome.heartbeat_ms == 0 {
            self.broke(Kind::Foreign, seat, format_args!("welcomed to room {:?} again", welcome.room));
            return Heard::Judged { ack_within_ms: None };
        }
        let former = track.life as usize;
        let life = self.life(seat, &welcome.run, now_ns);
        if life == former {
            if welcome.seq < held {
                let at = welcome.seq;
                self.broke(Kind::OutOfOrder, seat, format_args!("welcomed at {at} when it held {held}"));
            }
            if welcome.seq > held {
                self.lives[life].seen.stays.add(track.start_seq, held);
                track.start_seq = welcome.seq;
                track.was_away = true;
            }
        } else {
            let seen = &mut self.lives[former].seen;
            seen.stays.add(track.start_seq, held);
            seen.stays.ends_with(seat.device);
            if !track.was_away {
                seen.started(track.start_seq, seat.device);
                seen.ended(held, seat.device);
            }
            self.lives[former].copies.left();
            track.start_seq = welcome.seq;
            self.lives[life].seen.stays.begins_with(seat.device);
            self.lives[life].copies.arrived();
        }
        self.judge_held(seat, life, welcome, IsNew(false));
        self.claim_totals(seat, life, welcome);
        track.seq = Some(welcome.seq);
        track.life = u32::try_from(life).unwrap_or(u32::MAX);
        track.place.returned_ns = now_ns;
        let streams = self.streams.as_mut();
        let brought = streams.and_then(|streams| {
            streams.welcome(&mut track.place, seat, welcome, now_ns, &mut self.violations)
        });
        let ack_within_ms =
            brought.filter(|brought| brought.through > 0).map(|brought| brought.ack_within_ms);
        Heard::Rewelcomed { heartbeat_ms: welcome.heartbeat_ms.into(), ack_within_ms }
    }

    /// Judges the history and the latest values of a welcome.
    fn judge_held(&mut self, seat: Seat, life: usize, welcome: &Welcome, is_new: IsNew) {
        let held = welcome.history.iter().chain(&welcome.latest);
        for message in held.filter(|message| message.r#type != ENGINE_TYPE) {
            // Rooms are new: before the first publish, no message of this run can be in their history.
            if is_new.0 {
                let reason = format_args!("a {} in the welcome of a new room", message.r#type);
                self.broke(Kind::Foreign, seat, reason);
            } else if message.offset == 0 {
                let _: Option<Which> = self.judge_message(seat, life, message, welcome.seq);
            }
        }
    }

    /// Judges a piece of history: messages of this run and room, of batches up to the seq held. They are owed
    /// to nobody, so the account stays as it is.
    pub(super) fn hear_history(&mut self, track: &Track, seat: Seat, piece: &History, held: u64) {
        let life = track.life as usize;
        let room = &self.lives[life];
        if piece.room != room.name || piece.run != room.seen.run || piece.seq > held {
            let reason = format_args!("history {} of room {} run {}", piece.seq, piece.room, piece.run);
            return self.broke(Kind::Foreign, seat, reason);
        }
        for message in piece.history.iter().filter(|message| message.r#type != ENGINE_TYPE) {
            let _: Option<Which> = self.judge_message(seat, life, message, piece.seq);
        }
    }

    /// Enters a welcome's totals as a claim about the welcome's seq, where totals and batches must agree.
    fn claim_totals(&mut self, seat: Seat, life: usize, welcome: &Welcome) {
        let told = self.known.totals(welcome);
        if !told.is_empty() {
            let claim = Claim { after: welcome.seq, through: welcome.seq, told };
            self.lives[life].seen.claimed(claim, seat.device);
        }
    }

    /// The place of the life with this run of the device's room. An unknown run begins a life.
    fn life(&mut self, seat: Seat, run: &str, now_ns: u64) -> usize {
        let first = &mut self.lives[seat.place];
        // The first welcome of a room names its run.
        if first.seen.run.is_empty() {
            run.clone_into(&mut first.seen.run);
            first.seen.first_ns = now_ns;
        }
        if first.seen.run == run {
            return seat.place;
        }
        let index = first.seen.room;
        let name = first.name.clone();
        let mut later = self.lives.iter().skip(self.rooms);
        if let Some(known) = later.position(|life| life.seen.room == index && life.seen.run == run) {
            return self.rooms + known;
        }
        // Only a restart of the node, or a takeover, begins a new run, and the user said whether the node is restarted.
        if !self.through_restarts {
            let runs = (&self.lives[seat.place].seen.run, run);
            self.violations
                .add(Kind::Unexpected, 1, || format!("device {}: runs {runs:?} of one room", seat.device));
        }
        let mut seen = RoomSeen::new(index, self.known.types.len());
        seen.first_ns = now_ns;
        run.clone_into(&mut seen.run);
        self.lives.push(WatchedRoom::new(name, self.lives.len(), seen));
        self.lives.len() - 1
    }

    /// The query of a returning device: `?cursor=EPOCH:OFFSET&seen=RUN:SEQ`. Empty for a first join.
    pub(crate) fn resume_query(&self, track: Track, seat: Seat) -> String {
        let Some(seq) = track.seq else { return String::new() };
        let cursor = self.streams.as_ref().and_then(|streams| streams.cursor(track.place, seat));
        let cursor = cursor.map(|cursor| format!("cursor={cursor}&")).unwrap_or_default();
        format!("?{cursor}seen={}:{seq}", self.lives[track.life as usize].seen.run)
    }
}
