//! A small node driven by hand: shards, the real directory, a store without faults and a made-up meter.
//! Devices read everything at once.

use std::time::Duration;

use roomcast::auth::Grant;
use roomcast::seat::Seats;
use roomcast::shard::directory::Directory;
use roomcast::shard::homes::heat::HeatRules;
use roomcast::shard::lane::{LaneBounds, mesh};
use roomcast::shard::{Plan, Shard};
use roomcast::store::port::Port;
use roomcast::store::writer::{Wake, Writer};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Cursor, DeviceName, Encoding};
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::view::{ReceiptView, RoomView};
use roomcast_core::room::{Ask, Counts, Told};
use roomcast_core::wire::publish;

use crate::crowd::said;
use crate::device::{Device, Heard};
use crate::disk::SimStore;
use crate::socket::{SimSocket, meter};
use crate::world::{home, name, types};

pub(crate) struct Node {
    pub(crate) shards: Vec<Shard<SimSocket>>,
    busy: Vec<bool>,
    pub(crate) directory: Directory,
    pub(crate) now: Now,
    /// Every device that ever joined.
    pub(crate) devices: Vec<Device>,
    writer: Writer,
    ports: Vec<Port>,
    seats: Seats,
    tickets: u64,
    store: SimStore,
    plan: Plan,
}

impl Node {
    /// A node of `heat.shards` shards. A room becomes hot by `heat` alone.
    pub(crate) fn new(rules: RoomRules, heat: HeatRules) -> Self {
        let now = roomcast::clock::now();
        let plan = Plan { heat, meter, ..Plan::new(0, heat.shards, rules, Duration::from_secs(36_000), 1) };
        Self::over(SimStore::new(now), plan, now)
    }

    /// The node ends at once, and starts anew over the same disk. Every device is gone.
    pub(crate) fn crash(&mut self) {
        let plan = Plan { run_seed: self.plan.run_seed + 1000, ..self.plan.clone() };
        *self = Self::over(self.store.clone(), plan, self.now);
    }

    fn over(store: SimStore, plan: Plan, now: Now) -> Self {
        let shards = plan.shards;
        let peers = mesh(shards, LaneBounds::default()).into_iter().enumerate();
        let shard = |(index, peers)| Shard::new(Plan { index, ..plan.clone() }, peers, now.instant);
        let wakes = (0..shards).map(|_| Box::new(|| ()) as Wake).collect();
        let writer = Writer::new(Box::new(store.clone()), wakes, now);
        Self {
            shards: peers.map(shard).collect(),
            busy: vec![false; shards],
            directory: Directory::new(shards, plan.home_key, plan.hot_rooms.clone()),
            now,
            devices: Vec::new(),
            ports: writer.ports(),
            writer,
            seats: Seats::new(1000),
            tickets: 0,
            store,
            plan,
        }
    }

    /// A device joins on a shard, and is a member at the return. Returns the index of the connection.
    pub(crate) fn join_at(
        &mut self,
        shard: usize,
        room: &str,
        device: Option<&str>,
        cursor: Option<Cursor>,
    ) -> usize {
        let (socket, pipe) = SimSocket::new(usize::MAX);
        let encoding = Encoding::ALL[self.devices.len() % 2];
        let seat = self.seats.take().expect("a seat");
        let residents = &mut self.shards[shard].residents;
        let key = residents.connect(socket, encoding, Grant::Any, seat, self.now);
        if let (Some(device), Some(connection)) = (device, residents.connection(key)) {
            connection.device = DeviceName::parse(device).unwrap().digest();
        }
        residents.join(key, &name(room), None, cursor, self.now);
        self.busy[shard] = true;
        self.devices.push(Device::new(shard, key, encoding, pipe, true));
        self.rest();
        self.devices.len() - 1
    }

    /// A device says a frame, written as JSON.
    pub(crate) fn say(&mut self, index: usize, text: &str) {
        let Device { shard, key, encoding, .. } = self.devices[index];
        let mut frame = said(encoding, text);
        self.shards[shard].residents.receive(key, &mut frame, self.now);
        self.busy[shard] = true;
        self.rest();
    }

    /// The answer to an ask about a room's stream.
    pub(crate) fn ask(&mut self, room: &str, ask: Ask) -> Told {
        let home = home(room, self.shards.len());
        self.tickets += 1;
        self.shards[home].homes.ask(self.tickets, &name(room), ask, self.now);
        self.busy[home] = true;
        self.rest();
        self.shards[home].homes.poll_told().expect("the ask is answered").1
    }

    /// The receipt of a message, put together as the handle of the shards does.
    pub(crate) fn receipt(&mut self, room: &str, offset: u64) -> ReceiptView {
        let Told::Receipt(Ok(of_home)) = self.ask(room, Ask::Receipt { offset }) else {
            panic!("a receipt of {offset}")
        };
        let epoch = of_home.view.epoch;
        let parts =
            self.shards.iter().filter_map(|shard| shard.residents.receipt(&name(room), epoch, offset));
        let parts: Vec<_> = parts.collect();
        of_home.with(parts)
    }

    /// A device joins at the directory's place, and is a member at the return. Returns the device's index.
    pub(crate) fn join(&mut self, room: &str) -> usize {
        let shard = self.directory.find(&name(room), |_| true).expect("no shard is full");
        self.directory.placed(&name(room), shard);
        let (socket, pipe) = SimSocket::new(usize::MAX);
        let encoding = Encoding::ALL[self.devices.len() % 2];
        let seat = self.seats.take().expect("a seat");
        let key = self.shards[shard].residents.connect(socket, encoding, Grant::Any, seat, self.now);
        self.shards[shard].residents.join(key, &name(room), None, None, self.now);
        self.busy[shard] = true;
        self.devices.push(Device::new(shard, key, encoding, pipe, true));
        self.rest();
        self.devices.len() - 1
    }

    pub(crate) fn leave(&mut self, index: usize) {
        let Device { shard, key, .. } = self.devices[index];
        self.shards[shard].residents.hang_up(key, self.now);
        self.busy[shard] = true;
        self.rest();
    }

    pub(crate) fn publish(&mut self, room: &str, body: &str) {
        let messages = publish::parse_json(body.as_bytes(), &types()).expect("valid messages");
        let home = home(room, self.shards.len());
        self.tickets += 1;
        self.shards[home].homes.publish(self.tickets, &name(room), messages, self.now);
        self.busy[home] = true;
        self.rest();
    }

    /// Publishes messages of this type with numbers as payloads.
    pub(crate) fn publish_numbers(&mut self, room: &str, type_name: &str, numbers: std::ops::Range<u64>) {
        let message = |number| format!(r#"{{"type":"{type_name}","payload":{number}}}"#);
        let messages: Vec<String> = numbers.map(message).collect();
        self.publish(room, &format!(r#"{{"messages":[{}]}}"#, messages.join(",")));
    }

    /// Lets time pass, from one deadline to the next.
    pub(crate) fn wait(&mut self, by: Duration) {
        let end = self.now.instant + by;
        while self.now.instant < end {
            let next = self.shards.iter().map(Shard::poll_deadline).min().expect("it has shards");
            let next = next.max(self.now.instant + Duration::from_micros(100)).min(end);
            self.now = self.now.later(next - self.now.instant);
            self.rest();
        }
    }

    /// Runs every part until nothing is left to do at this moment.
    pub(crate) fn rest(&mut self) {
        for _ in 0..100_000 {
            let is_due =
                |index: &usize| self.busy[*index] || self.shards[*index].poll_deadline() <= self.now.instant;
            match (0..self.shards.len()).find(is_due) {
                Some(index) => self.turn(index),
                None if self.store_works() => {}
                None => return self.read_all(),
            }
        }
        panic!("the shards never come to rest");
    }

    fn read_all(&mut self) {
        for device in &mut self.devices {
            let is_waited_for = device.read(usize::MAX);
            assert!(!is_waited_for, "its pipe takes everything at once");
        }
    }

    fn turn(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        self.busy[index] = shard.turn(self.now);
        shard.check_invariants();
        shard.poll_wakes().for_each(|peer| self.busy[peer] = true);
        while let Some(request) = shard.homes.poll_store() {
            self.ports[index].send(request).expect("few requests are under way");
        }
        while let Some(scatter) = shard.homes.poll_scatter() {
            self.directory.scatter(scatter);
        }
    }

    fn store_works(&mut self) -> bool {
        self.writer.turn(self.now);
        let mut worked = false;
        for (index, port) in self.ports.iter_mut().enumerate() {
            while let Some(answer) = port.next_answer() {
                self.shards[index].homes.take_stored(answer, self.now);
                self.busy[index] = true;
                worked = true;
            }
        }
        worked
    }

    /// A room's view, with the counts of all shards.
    pub(crate) fn view(&self, room: &str) -> RoomView {
        let home = &self.shards[home(room, self.shards.len())];
        let mut view = home.homes.describe(&name(room), self.now.instant).expect("it is open");
        for shard in &self.shards {
            let counted = shard.residents.counts(&name(room)).filter(|(run, _)| run.to_string() == view.run);
            view.counts += counted.map_or_else(Counts::default, |(_, counts)| counts);
        }
        view
    }

    pub(crate) fn window_ms(&self, room: &str) -> u64 {
        self.view(room).window_ms
    }

    /// Members by shard.
    pub(crate) fn members(&self, room: &str) -> Vec<u64> {
        let mut members = vec![0; self.shards.len()];
        for segment in self.view(room).shards {
            members[segment.shard] = segment.members;
        }
        members
    }

    /// The numbers that a device has heard, beginning with the history of its welcome.
    pub(crate) fn heard(&self, index: usize) -> Vec<u64> {
        let messages = self.devices[index].heard.iter().flat_map(|(_, heard)| match heard {
            Heard::Welcome { history, .. } => history.as_slice(),
            Heard::Batch { content, .. } => content.messages.as_slice(),
            Heard::History { .. } | Heard::Left | Heard::Closed => &[],
        });
        messages
            .filter(|told| told.key.is_empty())
            .map(|told| told.payload.parse().expect("a number"))
            .collect()
    }

    /// The number of batch frames that all devices have heard, gone devices included.
    pub(crate) fn batches_heard(&self) -> u64 {
        let batches = self.devices.iter().map(|device| {
            device.heard.iter().filter(|(_, heard)| matches!(heard, Heard::Batch { .. })).count() as u64
        });
        batches.sum()
    }
}
