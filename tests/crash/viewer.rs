//! A device as docs/protocol.md spells it in ten lines. It keeps its cursor, applies each message once,
//! acknowledges, comes back with its cursor, and pulls at a gap. It notes every applied message, and every
//! broken promise.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant as Moment, sleep, sleep_until};

use super::ledger::{Found, name_of};
use super::support::device::reliable;
use super::support::{Device, Doors, Encoding, Handshake, Heard};

/// The last offset of each room, once known. A device that has all of them is done.
pub(crate) type Goal = watch::Receiver<Option<BTreeMap<String, u64>>>;

/// One applied message.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) found: Found,
    pub(crate) at: Instant,
    /// The start of the connection that brought the message.
    pub(crate) joined_at: Instant,
}

/// A device of one room, over all of its connections.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) name: String,
    room: String,
    encoding: Encoding,
    /// The doors of all nodes. Each connection goes to the next node.
    doors: Vec<Doors>,
    turn: usize,
    random: fastrand::Rng,
    /// Half of its acknowledgements get lost.
    loses_acks: bool,
    /// The device changes its network now and then: it goes on with a new connection, and the node finds out
    /// about the old one late.
    is_restless: bool,
    /// The connection before the present one. Nobody listens to it.
    old: Option<Device>,
    cursor: Option<(String, u64)>,
    joined_at: Instant,
    /// The moment of the next acknowledgement.
    ack_at: Option<Moment>,
    pub(crate) applied: BTreeMap<u64, Applied>,
    pub(crate) duplicates: u64,
    pub(crate) returns: u64,
    pub(crate) gaps: u64,
    pub(crate) violations: Vec<String>,
}

/// The clock of tokio's timers.
fn now() -> Moment {
    Moment::from_std(roomcast::clock::now().instant)
}

/// The connection is of no more use.
struct Broken;

impl Viewer {
    pub(crate) fn new(room: &str, number: usize, doors: Vec<Doors>, mut random: fastrand::Rng) -> Self {
        Self {
            name: format!("{room}/{number}"),
            room: room.to_owned(),
            encoding: Encoding::ALL[number % Encoding::ALL.len()],
            doors,
            turn: number,
            loses_acks: random.u8(..) < 50,
            is_restless: random.u8(..) < 50,
            old: None,
            random,
            cursor: None,
            joined_at: roomcast::clock::now().instant,
            ack_at: None,
            applied: BTreeMap::new(),
            duplicates: 0,
            returns: 0,
            gaps: 0,
            violations: Vec::new(),
        }
    }

    pub(crate) fn room(&self) -> &str {
        &self.room
    }

    /// Lives until the device has everything up to the goal.
    pub(crate) async fn live(mut self, mut goal: Goal) -> Self {
        while !self.is_done(&goal) {
            let cursor = self.cursor.as_ref().map(|(epoch, offset)| format!("&cursor={epoch}:{offset}"));
            let query = format!("device={}{}", self.name.replace('/', "."), cursor.unwrap_or_default());
            let handshake = Handshake::new(self.encoding).query(query);
            self.joined_at = roomcast::clock::now().instant;
            self.turn += 1;
            match Box::pin(Device::try_join(&self.node(), &self.room, handshake)).await {
                Ok(mut device) => {
                    self.returns += 1;
                    // Every kind of end is the same: the device comes back.
                    Box::pin(self.follow(&mut device, &mut goal)).await.ok();
                    self.old = Some(device);
                }
                Err(_) => sleep(Duration::from_millis(self.random.u64(10..80))).await,
            }
        }
        self
    }

    /// The doors of the node of the present connection.
    fn node(&self) -> Doors {
        self.doors[self.turn % self.doors.len()]
    }

    fn is_done(&self, goal: &Goal) -> bool {
        let at = self.cursor.as_ref().map_or(0, |(_, offset)| *offset);
        goal.borrow().as_ref().is_some_and(|goal| at >= goal[&self.room])
    }

    /// Listens on one connection until it ends, or until the device has everything.
    async fn follow(&mut self, device: &mut Device, goal: &mut Goal) -> Result<(), Broken> {
        self.ack_at = None;
        let welcome = device.welcome.take();
        self.take(&welcome).await?;
        let life =
            Duration::from_millis(if self.is_restless { self.random.u64(300..3000) } else { 3_600_000 });
        let ends_at = now() + life;
        while !self.is_done(goal) {
            let ack_at = self.ack_at.unwrap_or(ends_at);
            tokio::select! {
                heard = device.listen() => match heard {
                    Heard::Frame(frame) => self.take(&frame).await?,
                    Heard::Closed(_) | Heard::Ended => return Err(Broken),
                },
                () = sleep_until(ack_at) => self.acknowledge(device).await?,
                () = sleep_until(ends_at) => return Err(Broken),
                _ = goal.changed() => {}
            }
        }
        Ok(())
    }

    async fn acknowledge(&mut self, device: &mut Device) -> Result<(), Broken> {
        self.ack_at = None;
        let Some((epoch, offset)) = &self.cursor else { return Ok(()) };
        if self.loses_acks && self.random.bool() {
            return Ok(());
        }
        let ack = json!({"kind": "ack", "room": self.room, "epoch": epoch, "offset": offset});
        device.try_say(&ack).await.map_err(|_| Broken)
    }

    /// Takes the epoch from a welcome or a page.
    fn greet(&mut self, told: &Value) {
        let Some(epoch) = told["epoch"].as_str() else { return };
        let Some(after) = told["after"].as_u64() else { return };
        let cursor = self.cursor.as_ref().filter(|(_, offset)| *offset > 0);
        if let Some((had, offset)) = cursor
            && (!told["reset"].is_null() || had != epoch)
        {
            self.violations.push(format!("I4: the cursor {had}:{offset} was reset by {told}"));
        }
        if self.cursor.as_ref().is_none_or(|(had, _)| !told["reset"].is_null() || had != epoch) {
            self.cursor = Some((epoch.to_owned(), after));
        }
    }

    async fn take(&mut self, frame: &Value) -> Result<(), Broken> {
        // Another node has taken the room over: the device is in a new life of the room from here on.
        if frame["kind"] == "welcome" {
            self.joined_at = roomcast::clock::now().instant;
            self.greet(frame);
        }
        if let Some(room) = frame["room"].as_str()
            && room != self.room
        {
            self.violations.push(format!("I5: it heard of {room}"));
        }
        let Some(after) = frame["after"].as_u64() else { return Ok(()) };
        let Some(through) = frame["through"].as_u64() else { return Ok(()) };
        if self.cursor.as_ref().is_some_and(|(_, offset)| after > *offset) {
            self.gaps += 1;
            self.pull().await?;
        }
        self.apply(frame, through);
        let within = frame["ack_within_ms"].as_u64().unwrap_or(200);
        let moment = now() + Duration::from_millis(self.random.u64(0..=within));
        self.ack_at.get_or_insert(moment);
        Ok(())
    }

    async fn pull(&mut self) -> Result<(), Broken> {
        loop {
            let (epoch, offset) = self.cursor.clone().ok_or(Broken)?;
            let path = format!("/v1/rooms/{}/reliable?after={epoch}:{offset}", self.room);
            let answer = self.node().viewer_door().try_request("GET", &path, &[], b"").await;
            let page = answer.filter(|answer| answer.status == 200).ok_or(Broken)?;
            let page: Value = serde_json::from_slice(&page.body).map_err(|_| Broken)?;
            self.greet(&page);
            let through = page["through"].as_u64().ok_or(Broken)?;
            self.apply(&page, through);
            if page["through"] == page["offset"] {
                return Ok(());
            }
        }
    }

    fn apply(&mut self, frame: &Value, through: u64) {
        let Some((_, offset)) = &mut self.cursor else {
            return self.violations.push(format!("I4: a frame before the welcome: {frame}"));
        };
        let mut last = 0;
        for message in reliable(frame) {
            let at = message["offset"].as_u64().unwrap();
            if at <= last || at > through {
                self.violations.push(format!("I4: offset {at} after {last}: {frame}"));
            }
            last = at;
            if at <= *offset {
                self.duplicates += 1;
                continue;
            }
            let found = (name_of(&message), message["payload"].clone());
            let applied = Applied { found, at: roomcast::clock::now().instant, joined_at: self.joined_at };
            if self.applied.insert(at, applied).is_some() {
                self.violations.push(format!("I3: offset {at} is applied again"));
            }
        }
        *offset = through.max(*offset);
    }
}
