//! The checks of a world at rest, and the checks at the end of a life of its node.

use std::time::Duration;

use roomcast::shard::Shard;
use roomcast_core::room::Ask;

use crate::device::{Device, Heard, Part};
use crate::keeps::{at, number_of};
use crate::oracle::{Record, check_lives, stands_at};
use crate::publisher::Asked;
use crate::world::{CLOSING, QUIET, ROOMS, World, mix_of, name};

/// The steps in which every device and store recovers. A failed store rests for a second and is opened again
/// after two. An unacknowledged message is carried after a second at most.
const QUIET_STEPS: usize = 140;
/// Such rests for rooms that were put aside: the pause of a room grows to a minute.
const ASIDE_STEPS_MAX: usize = 12;

impl World {
    /// Ends every fault, lets every device read and acknowledge, and lets every batch leave.
    pub(crate) fn settle(&mut self) {
        self.say("settle".to_owned());
        self.heal();
        while !self.lingering.is_empty() {
            self.find_dead();
        }
        for device in &mut self.devices {
            device.stalled = false;
            let mut pipe = device.pipe.borrow_mut();
            pipe.link = None;
            pipe.capacity = usize::MAX;
        }
        (0..QUIET_STEPS).for_each(|_| self.quiet_step());
        // A room aside is read again after its pause, and its devices then come back.
        for _ in 0..ASIDE_STEPS_MAX {
            if self.writer.health().rooms_aside().is_empty() {
                break;
            }
            (0..QUIET_STEPS).for_each(|_| self.quiet_step());
        }
        for _ in 0..40 {
            self.turn_until_idle();
            for index in 0..self.devices.len() {
                self.read_from(index, usize::MAX);
                self.acknowledge_all(index);
            }
            self.pass_time(Duration::from_millis(500));
        }
    }

    fn quiet_step(&mut self) {
        self.turn_until_idle();
        for index in 0..self.devices.len() {
            self.read_from(index, usize::MAX);
        }
        self.come_back();
        self.pass_time(Duration::from_millis(50));
    }

    /// Lets devices come back that were told so because of the stream.
    fn come_back(&mut self) {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            if device.closed == Some(4004) && !device.rooms.is_empty() {
                let keeps = device.keeps;
                let rooms = std::mem::take(&mut device.rooms);
                if !self.is_witness(index) {
                    let shard = self.rng.usize(..self.shards.len());
                    self.connect(shard, &rooms[0], usize::MAX, keeps);
                }
            }
        }
    }

    fn acknowledge_all(&mut self, index: usize) {
        let device = &self.devices[index];
        let owing = device.links.iter().filter(|(_, link)| link.owes_ack || link.acked < link.sent);
        let owing: Vec<String> = owing.map(|(room, _)| room.clone()).collect();
        for room in owing {
            self.acknowledge_in(index, &room);
        }
    }

    /// Lets a witness come back at once when told so, and checks that no message waits longer than its
    /// window.
    pub(crate) fn heed_witnesses(&mut self) {
        for room in ROOMS {
            let index = self.witness(room);
            self.read_from(index, usize::MAX);
            self.heed(index, room);
            if let Some(code) = self.devices[index].closed.filter(|_| !self.is_draining) {
                assert_eq!(code, 4004, "a witness of {room} is told to go");
                self.coverage.count("close stream_changed", 1);
                self.send_witness(room);
            }
        }
    }

    fn heed(&mut self, index: usize, room: &str) {
        let from = self.heeded.insert(index, self.devices[index].heard.len()).unwrap_or(0);
        let mut waited = 0;
        let mut was_full = false;
        for (_, heard) in &self.devices[index].heard[from..] {
            let Heard::Batch { seq, content, skipped, part, .. } = heard else { continue };
            let may_miss = self.is_troubled || self.witnesses[room].len() > 1;
            assert!(may_miss || skipped.is_empty(), "the witness of {room} misses nothing: {heard:?}");
            for told in &content.messages {
                assert!(!self.is_late(room, &told.payload, *seq), "{told:?} left too late");
            }
            self.check_unexpired(index, room, part.as_ref());
            waited += u64::from(was_full && !content.messages.is_empty());
            was_full = content.messages.len() >= self.messages_max;
        }
        self.coverage.count("remainder", waited);
    }

    /// Checks that no message in a frame to a witness had expired before the frame was made.
    fn check_unexpired(&self, index: usize, room: &str, part: Option<&Part>) {
        let Some(part) = part else { return };
        let Some(epoch) = self.devices[index].links.get(room).and_then(|link| link.epoch.as_ref()) else {
            return;
        };
        let disk = self.store.disk();
        let written = disk.of(room, number_of(epoch));
        for told in &part.messages {
            let expired = disk.was_surely_expired(at(written, told.offset), self.idle_at);
            assert!(!expired, "{room}: {told:?} had expired when it was sent");
        }
    }

    /// Checks after quiet: each remaining device has its rooms' newest batch and has applied all reliable
    /// messages.
    pub(crate) fn check_everybody_is_level(&mut self) {
        for room in ROOMS {
            let newest = stands_at(&self.devices[self.witness(room)], room).expect("a witness stays");
            for (index, device) in self.devices.iter().enumerate().filter(|(_, device)| device.is_open()) {
                if device.rooms.iter().any(|joined| joined == room) {
                    assert_eq!(stands_at(device, room), Some(newest), "device {index} in {room} after quiet");
                }
            }
        }
        for (index, device) in self.devices.iter().enumerate() {
            // A room closes later while the store is slow, together with the devices that came meanwhile.
            let closes = device.closed == Some(4003) && device.rooms.iter().all(|room| room == CLOSING);
            let well = device.is_open() || !device.healthy || device.rooms.is_empty() || closes;
            assert!(well, "device {index} was healthy and is gone: {:?}", device.closed);
            // A room may be closed before a device knows of the close.
            let unexplained = device.errors.iter().find(|(room, _)| room != CLOSING);
            assert_eq!(unexplained, None, "device {index}");
            if device.is_open() {
                for room in ROOMS.into_iter().chain([CLOSING]).filter(|room| device.stands_in(room)) {
                    self.check_applied(index, device, room);
                }
            }
        }
        assert_eq!(self.ledger.waiting(), 0, "each publish was answered");
        assert!(self.asked.is_empty(), "each ask was answered: {:?}", self.asked);
    }

    fn check_applied(&self, index: usize, device: &Device, room: &str) {
        let mut disk = self.store.disk();
        let kept = &self.kept[device.keeps][room];
        let Some(epoch) = disk.epoch(&name(room)) else { return };
        let written = disk.of(room, epoch.0);
        let (of, cursor) = kept.cursor.as_ref().expect("after quiet the stream is known");
        assert_eq!(*of, epoch.to_string(), "device {index} in {room}");
        let applied = kept.applied.get(of);
        for offset in kept.made_up + 1..=written.len() as u64 {
            let has = applied.is_some_and(|applied| applied.contains(&offset));
            let needed = disk.is_surely_alive(at(written, offset));
            assert!(has || !needed, "device {index} in {room} at {cursor} lacks {offset}");
        }
    }

    /// Checks after quiet that every device has acknowledged, so no receipt is pending.
    pub(crate) fn check_receipts(&mut self) {
        for room in ROOMS {
            let Some(epoch) = self.store.clone().disk().epoch(&name(room)) else { continue };
            let head = self.store.clone().disk().of(room, epoch.0).len() as u64;
            for offset in head.saturating_sub(8) + 1..=head {
                self.pending.remove(&(room.to_owned(), offset));
                let asked = Asked::Receipt { room: room.to_owned(), offset };
                self.ask(room, asked, Ask::Receipt { offset });
                self.turn_until_idle();
                let pending = self.pending.get(&(room.to_owned(), offset));
                assert!(pending.is_none_or(|pending| *pending == 0), "{room}: {pending:?} lack {offset}");
            }
        }
    }

    /// Checks ten silent seconds of a node with nothing but level members: few wakes, and no carry.
    pub(crate) fn check_silence(&mut self) {
        self.turn_until_idle();
        let carried = |world: &Self| world.coverage.0.get("carry").copied();
        let before = carried(self);
        let wakes = self.pause(Duration::from_secs(10));
        assert_eq!(carried(self), before, "members that are level are carried nothing");
        let sweeps = 21 * self.shards.len() as u64;
        let rooms = 2 * (ROOMS.len() as u64 + 2);
        assert!(wakes <= sweeps + rooms, "{wakes} deadlines in ten silent seconds");
    }

    pub(crate) fn drain(&mut self) {
        self.say("drain".to_owned());
        let room = ROOMS[0];
        self.publish_to(room);
        self.is_draining = true;
        self.shards.iter_mut().for_each(Shard::drain);
        // As in the handle: each shard answers after its own flush, and all shards are asked twice.
        for _ in 0..2 {
            let mut answered = vec![false; self.shards.len()];
            for _ in 0..100_000 {
                let index = self.rng.usize(..self.shards.len());
                self.turn(index);
                if self.rng.u8(..8) == 0 {
                    self.store_works_off();
                }
                answered[index] |= self.shards[index].is_flushed();
                if answered.iter().all(|answered| *answered) {
                    break;
                }
            }
            assert!(answered.iter().all(|answered| *answered), "a drain flushes everything");
        }
        self.check_everybody_was_written();
        self.shards.iter_mut().for_each(Shard::bid_farewell);
        self.busy.fill(true);
        self.turn_until_idle();
        let keeps = self.keeps_anew();
        let late = self.connect(0, room, usize::MAX, keeps);
        for _ in 0..40 {
            self.busy.fill(true);
            self.turn_until_idle();
            (0..self.devices.len()).for_each(|index| self.read_from(index, usize::MAX));
            self.pass_time(Duration::from_millis(50));
        }
        assert!(
            self.shards.iter().all(|shard| shard.residents.is_deserted()),
            "nobody is left after a drain"
        );
        for index in ROOMS.map(|room| self.witness(room)).into_iter().chain([late]) {
            let device = &self.devices[index];
            assert!(device.bye && device.closed == Some(1012), "a drained device hears bye and 1012");
        }
        self.coverage.count("drain", 1);
    }

    /// Checks that every healthy member has every batch once a drain reports the end.
    fn check_everybody_was_written(&mut self) {
        (0..self.devices.len()).for_each(|index| self.read_from(index, usize::MAX));
        for room in ROOMS {
            let newest = stands_at(&self.devices[self.witness(room)], room);
            let healthy = self.devices.iter().filter(|device| device.healthy && device.is_open());
            for device in healthy.filter(|device| device.rooms.iter().any(|joined| joined == room)) {
                assert_eq!(
                    stands_at(device, room),
                    newest,
                    "the drain's last batch of {room} reached everybody"
                );
            }
        }
    }

    /// Checks every story at the end of a life of the node.
    pub(crate) fn check_stories(&mut self, crashed: bool) {
        let turned_out = self.ledger.check_disk(&mut self.store.clone().disk());
        self.coverage.count("durable after an error", turned_out);
        for device in &self.devices {
            check_lives(device, CLOSING);
            check_lives(device, QUIET);
        }
        // The frames enter the digest: the same seed must give the same frames.
        for device in &self.devices {
            let heard = format!("{:?}", device.heard);
            self.digest = mix_of(self.digest, &heard);
        }
        for room in ROOMS {
            let witnesses: Vec<&Device> =
                self.witnesses[room].iter().map(|index| &self.devices[*index]).collect();
            let records = Record::of(&witnesses, room);
            let is_whole = records.len() == 1 && records[0].is_whole() && !crashed;
            self.ledger.check_order(&records, room, is_whole);
            if is_whole {
                self.check_sums(&records[0], room);
            }
            for device in &self.devices {
                let followed: u64 = records.iter().map(|record| record.check(device, room)).sum();
                self.coverage.count("latest values that follow", followed);
                let skips = device.heard.iter().any(|(of, heard)| {
                    of == room && matches!(heard, Heard::Batch { skipped, .. } if !skipped.is_empty())
                });
                // A device with more to catch up with than a welcome holds misses batches meanwhile.
                let catches_up = device.heard.iter().any(|(of, heard)| {
                    of == room
                        && matches!(heard, Heard::Welcome { stream: Some(opened), .. }
                            if opened.part.through < opened.offset)
                });
                let catches_up = catches_up || followed > 0;
                let may_skip = self.lapses > 0 || self.is_troubled || self.is_bulky || catches_up;
                assert!(
                    !(skips && device.healthy) || may_skip,
                    "a healthy device missed something in {room}"
                );
            }
        }
    }

    fn check_sums(&self, record: &Record, room: &str) {
        for type_name in ["price", "enter", "gift", "whisper"] {
            let arrived = record.count(type_name) + record.merged(type_name);
            assert_eq!(arrived, self.ledger.accepted(room, type_name).0, "{room}: {type_name}");
        }
        let likes = record.known().filter_map(|batch| batch.counters.get("like")).last();
        let accepted = self.ledger.accepted(room, "like").1;
        assert_eq!(likes.map_or(0, |change| change.1), accepted, "{room}: likes are exact");
    }
}
