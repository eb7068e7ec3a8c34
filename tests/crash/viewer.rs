//! A device as docs/protocol.md spells it in ten lines: it keeps its cursor, applies each message once, acknowledges, comes
//! back with its cursor, and pulls where it finds a gap. It notes what it applied, and what must not be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant as Moment, sleep, sleep_until};

use super::ledger::{Found, name_of};
use super::support::device::reliable;
use super::support::{Device, Doors, Encoding, Handshake, Heard};

/// The last offset of each room, once that is known; a device that has it is done.
pub(crate) type Goal = watch::Receiver<Option<BTreeMap<String, u64>>>;

/// One message as it was applied.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) found: Found,
    pub(crate) at: Instant,
    /// When the connection that brought it began.
    pub(crate) joined_at: Instant,
}

/// A device of one room, over all of its connections.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) name: String,
    room: String,
    encoding: Encoding,
    doors: Doors,
    random: fastrand::Rng,
    /// Half of its acknowledgements get lost.
    loses_acks: bool,
    /// It breaks its connection itself now and then.
    is_restless: bool,
    cursor: Option<(String, u64)>,
    joined_at: Instant,
    /// When the acknowledgement that is due is to be sent.
    ack_at: Option<Moment>,
    pub(crate) applied: BTreeMap<u64, Applied>,
    pub(crate) duplicates: u64,
    pub(crate) returns: u64,
    pub(crate) gaps: u64,
    pub(crate) violations: Vec<String>,
}

/// For tokio's timers.
fn now() -> Moment {
    Moment::from_std(roomcast::clock::now().instant)
}

/// The connection is of no more use.
struct Broken;

impl Viewer {
    pub(crate) fn new(room: &str, number: usize, doors: Doors, mut random: fastrand::Rng) -> Self {
        Self {
            name: format!("{room}/{number}"),
            room: room.to_owned(),
            encoding: Encoding::ALL[number % Encoding::ALL.len()],
            doors,
            loses_acks: random.u8(..) < 50,
            is_restless: random.u8(..) < 50,
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

    /// Lives until it has everything up to the goal.
    pub(crate) async fn live(mut self, mut goal: Goal) -> Self {
        while !self.is_done(&goal) {
            let cursor = self.cursor.as_ref().map(|(epoch, offset)| format!("&cursor={epoch}:{offset}"));
            let query = format!("device={}{}", self.name.replace('/', "."), cursor.unwrap_or_default());
            let handshake = Handshake::new(self.encoding).query(query);
            self.joined_at = roomcast::clock::now().instant;
            match Box::pin(Device::try_join(&self.doors, &self.room, handshake)).await {
                Ok(device) => {
                    self.returns += 1;
                    // How it broke is of no interest: it comes back.
                    Box::pin(self.follow(device, &mut goal)).await.ok();
                }
                Err(_) => sleep(Duration::from_millis(self.random.u64(10..80))).await,
            }
        }
        self
    }

    fn is_done(&self, goal: &Goal) -> bool {
        let at = self.cursor.as_ref().map_or(0, |(_, offset)| *offset);
        goal.borrow().as_ref().is_some_and(|goal| at >= goal[&self.room])
    }

    /// Listens on one connection until it ends, or there is nothing more to come.
    async fn follow(&mut self, mut device: Device, goal: &mut Goal) -> Result<(), Broken> {
        self.ack_at = None;
        let welcome = device.welcome.take();
        self.greet(&welcome);
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
                () = sleep_until(ack_at) => self.acknowledge(&mut device).await?,
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

    /// A welcome, or a page: which life of the stream it is of.
    fn greet(&mut self, told: &Value) {
        let (Some(epoch), Some(after)) = (told["epoch"].as_str(), told["after"].as_u64()) else { return };
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
        if let Some(room) = frame["room"].as_str()
            && room != self.room
        {
            self.violations.push(format!("I5: it heard of {room}"));
        }
        let (Some(after), Some(through)) = (frame["after"].as_u64(), frame["through"].as_u64()) else {
            return Ok(());
        };
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
            let answer = self.doors.viewer_door().try_request("GET", &path, &[], b"").await;
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
