//! The deeds of the world's devices: join, leave, come back, read, acknowledge, stall and break.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast::auth::Grant;
use roomcast_core::room::Ask;
use roomcast_core::room::id::{DeviceName, Encoding, Epoch};

use crate::device::{Device, Heard};
use crate::keeps::{Cursor, Effect, Kept, Link, number_of};
use crate::publisher::{Asked, cursor_of};
use crate::socket::SimSocket;
use crate::world::{CLOSING, ROOMS, World, home, name};

const DEVICES_MAX: usize = 24;
/// The shortest time between two acknowledgements of a device, long enough to pass the flood guard.
const ACK_SPACING: Duration = Duration::from_millis(150);

impl World {
    /// Connects a room's first witness, or the successor of a gone witness.
    pub(crate) fn send_witness(&mut self, room: &'static str) {
        let keeps = match self.witnesses[room].last() {
            Some(last) => self.devices[*last].keeps,
            None => self.keeps_anew(),
        };
        let shard = home(room, self.shards.len());
        let witness = self.connect(shard, room, usize::MAX, keeps);
        self.witnesses.get_mut(room).expect("each room has its own").push(witness);
    }

    pub(crate) fn witness(&self, room: &str) -> usize {
        *self.witnesses[room].last().expect("each room has its own")
    }

    pub(crate) fn keeps_anew(&mut self) -> usize {
        self.kept.push(BTreeMap::new());
        self.kept.len() - 1
    }

    /// Draws the cursor of a joining device. Some cursors are made up, and some devices have lost what they
    /// kept.
    fn draw_cursor(&mut self, keeps: usize, room: &str) -> Link {
        let made_up = self.rng.u8(..40);
        let kept = self.kept[keeps].entry(room.to_owned()).or_default();
        if made_up == 0 {
            *kept = Kept::default();
        }
        let cursor = kept.cursor.clone();
        let (cursor, forged): (Option<Cursor>, bool) = match made_up {
            1 => (Some(("00000000000000ff".to_owned(), self.rng.u64(0..9))), true),
            2 => (cursor.map(|(epoch, offset)| (epoch, offset + 1000)), true),
            3 => (cursor.map(|(epoch, offset)| (epoch, offset + 1)), true),
            4 => (cursor.map(|(epoch, _)| (epoch, 0)), true),
            _ => (cursor, kept.made_up > 0),
        };
        if (1..5).contains(&made_up) && cursor.is_some() {
            let made_up = cursor.as_ref().map_or(0, |(_, offset)| *offset);
            *kept = Kept { cursor: cursor.clone(), made_up, ..Kept::default() };
        }
        Link { asked: cursor, forged, ..Link::default() }
    }

    pub(crate) fn connect(&mut self, shard: usize, room: &str, capacity: usize, keeps: usize) -> usize {
        let encoding = if self.rng.bool() { Encoding::Json } else { Encoding::Proto };
        let (socket, pipe) = SimSocket::new(capacity);
        let seat = self.seats.take().expect("a seat");
        if home(room, self.shards.len()) == shard {
            let passing = self.shards[shard].residents.is_passing(&name(room));
            self.coverage.count("join during a pass", u64::from(passing));
            self.coverage.count("parked join", u64::from(self.loading.contains(room)));
        }
        // An earlier connection of the same device loses the bytes in its pipe. A device that changes its
        // network is silent and deaf on the old one, and the node does not know yet.
        for former in self.devices.iter_mut().filter(|device| device.keeps == keeps) {
            if former.is_open() {
                self.coverage.count("device on two connections", 1);
                self.lingering.push((former.shard, former.key));
            }
            former.pipe.borrow_mut().in_flight.clear();
            former.deaf = true;
            former.rooms.clear();
        }
        let link = self.draw_cursor(keeps, room);
        // One device in six is at the end of a slow link.
        let is_slow = capacity != usize::MAX && self.rng.u8(..3) == 0;
        if is_slow {
            pipe.borrow_mut().shape(self.rng.u32(7_000..60_000));
        }
        let key = self.shards[shard].residents.connect(socket, encoding, Grant::Any, seat, self.now);
        if keeps.is_multiple_of(2)
            && let Some(connection) = self.shards[shard].residents.connection(key)
        {
            connection.device = DeviceName::parse(&format!("device-{keeps}")).unwrap().digest();
        }
        let cursor = link.asked.as_ref().map(cursor_of);
        self.shards[shard].residents.join(key, &name(room), None, cursor, self.now);
        self.busy[shard] = true;
        let mut device = Device::new(shard, key, encoding, pipe, capacity == usize::MAX);
        device.keeps = keeps;
        device.rooms.push(room.to_owned());
        let index = self.devices.len();
        self.say(format!("connect {index} ({keeps}) on shard {shard} to {room}, {capacity}, {link:?}"));
        device.links.insert(room.to_owned(), link);
        self.devices.push(device);
        self.give_out(shard);
        index
    }

    pub(crate) fn join_afresh(&mut self) {
        if self.devices.iter().filter(|device| device.is_open()).count() >= DEVICES_MAX {
            return;
        }
        let room = self.some_room();
        let shard = self.place(room);
        let capacity = if self.rng.bool() { usize::MAX } else { self.rng.usize(50..1500) };
        let keeps = self.some_device_to_come().unwrap_or_else(|| self.keeps_anew());
        self.connect(shard, room, capacity, keeps);
    }

    /// The node finds out that a connection is dead whose device has another since.
    pub(crate) fn find_dead(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.lingering.len());
        let (shard, key) = self.lingering.swap_remove(at);
        self.say(format!("the old connection {key} on shard {shard} dies"));
        self.shards[shard].residents.hang_up(key, self.now);
        self.busy[shard] = true;
    }

    /// A device, mostly an earlier one without a connection now.
    fn some_device_to_come(&mut self) -> Option<usize> {
        if self.rng.u8(..4) == 0
            && let Some(index) = self.some_device()
        {
            return Some(self.devices[index].keeps);
        }
        self.some_absent()
    }

    /// An earlier device without a connection now.
    fn some_absent(&mut self) -> Option<usize> {
        let is_absent =
            |keeps: &usize| !self.devices.iter().any(|device| device.keeps == *keeps && device.is_open());
        let absent: Vec<usize> = (0..self.kept.len()).filter(is_absent).collect();
        if self.rng.u8(..4) == 0 { None } else { self.rng.choice(absent) }
    }

    /// The publisher closes a room. Members hear of the close, and a connection without another room is
    /// closed.
    pub(crate) fn close_room(&mut self) {
        if self.scatter.runs.is_some() {
            return;
        }
        if self.rng.u8(..4) == 0 {
            self.ask(CLOSING, Asked::EndStream, Ask::EndStream);
        } else {
            let home = home(CLOSING, self.shards.len());
            self.say("close".to_owned());
            self.shards[home].homes.close_room(&name(CLOSING), self.now);
            self.busy[home] = true;
            self.give_out(home);
        }
        for device in &mut self.devices {
            device.rooms.retain(|room| room != CLOSING);
        }
    }

    /// Draws a room to join: mostly a room with a witness.
    fn some_room(&mut self) -> &'static str {
        if self.rng.u8(..8) == 0 { CLOSING } else { self.rng.choice(ROOMS).unwrap() }
    }

    pub(crate) fn join_further(&mut self) {
        let Some(index) = self.some_device() else { return };
        let room = self.some_room();
        let device = &mut self.devices[index];
        // Frames for the former place in the room are still on their way, so the device doesn't join again.
        if device.rooms.iter().any(|joined| joined == room) || device.links.contains_key(room) {
            return;
        }
        device.rooms.push(room.to_owned());
        let keeps = device.keeps;
        let link = self.draw_cursor(keeps, room);
        let cursor =
            link.asked.as_ref().map_or_else(String::new, |(epoch, offset)| format!("{epoch}:{offset}"));
        self.devices[index].links.insert(room.to_owned(), link);
        self.tell(index, &format!(r#"{{"kind":"join","room":"{room}","cursor":"{cursor}"}}"#));
    }

    pub(crate) fn leave(&mut self) {
        let Some(index) = self.some_device() else { return };
        let device = &self.devices[index];
        let shard = device.shard;
        let passing = |room: &String| self.shards[shard].residents.is_passing(&name(room));
        let passing = device.rooms.iter().any(passing);
        self.coverage.count("leave during a pass", u64::from(passing));
        if self.rng.bool() && !device.rooms.is_empty() {
            let room = self.devices[index].rooms.pop().unwrap();
            self.tell(index, &format!(r#"{{"kind":"leave","room":"{room}"}}"#));
        } else {
            self.say(format!("hang up {index}"));
            let device = &mut self.devices[index];
            device.rooms.clear();
            // From here on the device is silent and deaf, even if the shard has not dropped the connection
            // yet.
            device.pipe.borrow_mut().ended = true;
            let shard = device.shard;
            let key = device.key;
            self.shards[shard].residents.hang_up(key, self.now);
            self.busy[shard] = true;
        }
    }

    /// Writes a frame from a device to its shard, in the device's encoding, masked with zeros.
    pub(crate) fn tell(&mut self, index: usize, text: &str) {
        let device = &self.devices[index];
        let mut frame = said(device.encoding, text);
        let shard = device.shard;
        let key = device.key;
        self.say(format!("device {index} says {text}"));
        self.shards[shard].residents.receive(key, &mut frame, self.now);
        self.busy[shard] = true;
    }

    pub(crate) fn read(&mut self) {
        let Some(index) = self.some_device() else { return };
        let bytes = if self.rng.u8(..4) == 0 { usize::MAX } else { self.rng.usize(1..600) };
        let has_link = self.devices[index].pipe.borrow().link.is_some();
        if !self.devices[index].stalled && !has_link {
            self.read_from(index, bytes);
        }
    }

    pub(crate) fn read_from(&mut self, index: usize, bytes: usize) {
        let device = &mut self.devices[index];
        if device.deaf {
            return;
        }
        let partial = std::mem::take(&mut device.pipe.borrow_mut().partial_writes);
        let tell = device.read(bytes);
        let shard = device.shard;
        let key = device.key;
        self.coverage.count("partial write", partial);
        self.apply(index);
        if tell {
            self.shards[shard].residents.writable(key, self.now);
            self.busy[shard] = true;
        }
    }

    /// Applies the reliable messages that a device has read since the last call.
    fn apply(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let store = self.store.clone();
        let disk = store.disk();
        let mut lines = Vec::new();
        while let Some((room, heard)) = device.heard.get(device.taken) {
            device.taken += 1;
            lines.push(format!("device {index} hears in {room}: {}", heard.summary()));
            if matches!(heard, Heard::Left | Heard::Closed) {
                device.links.remove(room);
                continue;
            }
            let link = device.links.get_mut(room).expect("it has asked to join");
            let kept = self.kept[device.keeps].entry(room.clone()).or_default();
            let mut effect = Effect::default();
            match heard {
                Heard::Welcome { stream: Some(opened), .. } => {
                    check_recalled(
                        opened.part.messages.iter(),
                        opened.part.through,
                        &disk,
                        room,
                        &opened.epoch,
                    );
                    effect = kept.open(link, opened, &disk, room);
                    self.coverage.count("reset: epoch_changed", u64::from(opened.reset == "epoch_changed"));
                    self.coverage.count("reset: ahead", u64::from(opened.reset == "ahead"));
                }
                Heard::Welcome { stream: None, .. } => self.coverage.count("welcome without epoch", 1),
                Heard::Batch { part: Some(part), carried, .. } => {
                    let epoch =
                        link.epoch.clone().expect("a member that is told of the stream knows its epoch");
                    check_recalled(part.messages.iter().take(*carried), part.through, &disk, room, &epoch);
                    let repeats = device.healthy && part.after < link.acked_level;
                    assert!(!repeats, "{room}: {part:?} though {link:?} is acknowledged");
                    effect = kept.take(link, part, &disk, room);
                }
                Heard::Batch { part: None, content, .. } => {
                    assert!(content.messages.iter().all(|told| told.offset == 0), "{room}: {content:?}");
                }
                Heard::History { history, .. } => {
                    self.coverage.count("history piece", u64::from(!history.is_empty()));
                }
                Heard::Left | Heard::Closed => {}
            }
            self.coverage.count("recall", effect.recalls);
            self.coverage.count("expiry hole", effect.expired);
            self.coverage.count("applied", effect.applied);
            self.coverage.count("repeated", effect.repeated);
        }
        drop(disk);
        lines.into_iter().for_each(|line| self.say(line));
    }

    /// A device acknowledges the applied messages, sends a false acknowledgement, or sends none.
    pub(crate) fn acknowledge(&mut self) {
        let open = (0..self.devices.len()).filter(|index| self.devices[*index].is_open());
        let open: Vec<usize> = open.collect();
        let Some(index) = self.rng.choice(open) else { return };
        let rooms: Vec<String> = self.devices[index].links.keys().cloned().collect();
        let Some(room) = self.rng.choice(rooms) else { return };
        if !self.may_acknowledge(index) {
            return;
        }
        match self.rng.u8(..12) {
            // The acknowledgement is lost on the way.
            0 | 1 => self.devices[index].links.get_mut(&room).expect("listed").owes_ack = false,
            2 => self.acknowledge_falsely(index, &room),
            _ => self.acknowledge_in(index, &room),
        }
    }

    fn may_acknowledge(&mut self, index: usize) -> bool {
        let now = self.now.instant;
        let device = &mut self.devices[index];
        let may = device.acked_at.is_none_or(|at| now >= at + ACK_SPACING);
        if may {
            device.acked_at = Some(now);
        }
        may
    }

    /// Acknowledges an offset past the sent ones, an earlier offset, a foreign epoch, or a room not joined.
    /// The acknowledgement must not count.
    fn acknowledge_falsely(&mut self, index: usize, room: &str) {
        let link = &self.devices[index].links[room];
        let epoch = link.epoch.clone().unwrap_or_else(|| "00000000000000ff".to_owned());
        // With nothing acknowledged, the earlier offset is 0 as well, and the acknowledgement may count.
        let is_harmless = link.acked == 0;
        let how = self.rng.u8(..4);
        let (room, epoch, offset) = match how {
            0 => (room, epoch, link.sent + 500),
            1 => (room, epoch, link.acked.saturating_sub(1)),
            2 => (room, "00000000000000aa".to_owned(), link.sent),
            _ => ("nowhere", epoch, link.sent),
        };
        let shard = self.devices[index].shard;
        self.give_out(shard);
        self.tell(index, &ack(room, &epoch, offset));
        let tally = self.shards[shard].take_tally();
        assert!(tally.acks == 0 || (how == 1 && is_harmless), "{room}: an ack of {epoch}:{offset} counts");
        self.note(&tally);
    }

    pub(crate) fn acknowledge_in(&mut self, index: usize, room: &str) {
        let device = &self.devices[index];
        let link = &device.links[room];
        let kept = &self.kept[device.keeps][room];
        let is_member = device.stands_in(room);
        let Some(epoch) = link.epoch.clone() else { return };
        let Some((of, cursor)) = kept.cursor.clone() else { return };
        if of != epoch || !is_member || !device.is_open() {
            return;
        }
        let has_read = device.pipe.borrow().in_flight.is_empty();
        let shard = device.shard;
        let is_news = cursor > link.acked && cursor <= link.sent;
        let uncounted =
            self.shards[shard].residents.acks(&name(room), Epoch(number_of(&epoch)), cursor).is_none();
        self.coverage.count("late ack for an earlier segment", u64::from(is_news && uncounted));
        self.tell(index, &ack(room, &epoch, cursor));
        let link = self.devices[index].links.get_mut(room).expect("it is there");
        link.owes_ack = false;
        if cursor <= link.sent {
            link.acked = link.acked.max(cursor);
            link.acked_level = if has_read { link.acked } else { link.acked_level };
        }
    }

    /// Breaks a device's socket. The shard finds out at its next write or at a hang-up.
    pub(crate) fn reset(&mut self) {
        let Some(index) = self.some_device() else { return };
        self.say(format!("reset {index}"));
        let device = &mut self.devices[index];
        device.rooms.clear();
        device.healthy = false;
        device.pipe.borrow_mut().broken = true;
    }

    /// A device sends pings, and perhaps reads none of the pongs.
    pub(crate) fn ping(&mut self) {
        let Some(index) = self.some_device() else { return };
        for _ in 0..self.rng.usize(1..12) {
            self.tell(index, r#"{"kind":"ping"}"#);
        }
    }

    pub(crate) fn stall(&mut self) {
        let Some(index) = self.some_device() else { return };
        let device = &mut self.devices[index];
        if !device.healthy {
            device.stalled = !device.stalled;
            let stalled = device.stalled;
            device.pipe.borrow_mut().link = None;
            self.say(format!("device {index} stalled: {stalled}"));
        }
    }

    pub(crate) fn some_device(&mut self) -> Option<usize> {
        let open: Vec<usize> = (0..self.devices.len())
            .filter(|index| self.devices[*index].is_open() && !self.is_witness(*index))
            .collect();
        self.rng.choice(open)
    }

    pub(crate) fn is_witness(&self, index: usize) -> bool {
        self.witnesses.values().any(|witnesses| witnesses.contains(&index))
    }
}

/// Checks a carry: no message in it was recalled up to `through`.
fn check_recalled<'a>(
    carried: impl Iterator<Item = &'a crate::device::Told>,
    through: u64,
    disk: &crate::disk::Disk,
    room: &str,
    epoch: &str,
) {
    let written = disk.of(room, number_of(epoch));
    for told in carried {
        let recalled_by = crate::keeps::at(written, told.offset).recalled_by;
        assert!(recalled_by == 0 || recalled_by > through, "{room}: {told:?} was recalled by {recalled_by}");
    }
}

/// A frame from a device, masked with zeros.
pub(crate) fn said(encoding: Encoding, text: &str) -> Vec<u8> {
    let (opcode, payload) = match encoding {
        Encoding::Json => (0x81, text.as_bytes().to_vec()),
        Encoding::Proto => (0x82, proto_of(text)),
    };
    let mut frame = vec![opcode, 0x80 | u8::try_from(payload.len()).expect("short"), 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

pub(crate) fn ack(room: &str, epoch: &str, offset: u64) -> String {
    format!(r#"{{"kind":"ack","room":"{room}","epoch":"{epoch}","offset":{offset}}}"#)
}

fn proto_of(text: &str) -> Vec<u8> {
    use prost::Message as _;
    use roomcast_core::proto::{Ack, AckEntry, DeviceFrame, Join, Leave, Ping, device_frame::Frame};
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let room = field("room");
    let frame = match value["kind"].as_str() {
        Some("ping") => Frame::Ping(Ping {}),
        Some("join") => Frame::Join(Join { room, cursor: field("cursor") }),
        Some("ack") => {
            let offset = value["offset"].as_u64().unwrap_or(0);
            Frame::Ack(Ack { acks: vec![AckEntry { room, epoch: field("epoch"), offset }] })
        }
        _ => Frame::Leave(Leave { room }),
    };
    DeviceFrame { frame: Some(frame) }.encode_to_vec()
}
