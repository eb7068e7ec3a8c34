//! The arguments of `run`: as typed, and resolved into a checked plan before anything is connected.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::fleet::remote;
use crate::report::output::openable;
use crate::scenario::file::{Scenario, TypeSection};
use crate::scenario::mix::{Class, Limit, Wanted};
use crate::scenario::payload::Length;
use crate::scenario::plan::{Plan, Target};
use crate::scenario::units::{Rate, Share, Span};
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;

/// Chat where nothing is said of what is published.
const CHAT_RATE: Rate = Rate::of_milli(10_000);
/// What is published reliably where --reliable-type does not say.
const RELIABLE_TYPE: &str = "coupon";

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// A scenario file, or one that is shipped: quick, hot-room, double-eleven, red-packet, raid, reconnect-storm,
    /// small-rooms, soak. Other flags change it; `--set` changes any key of it.
    #[arg(long, value_name = "FILE-OR-NAME")]
    scenario: Option<String>,
    /// A key of the scenario and its value, as often as wanted: `viewers.devices=5000`, `types.chat.rate=20`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Devices to connect, spread over the rooms; 1 000 without a scenario. 0: publish only.
    #[arg(long)]
    devices: Option<u32>,
    /// Rooms to publish to; one without a scenario. Rooms without a device are published to, and not checked.
    #[arg(long)]
    rooms: Option<u32>,
    /// Chat messages a second, over all rooms; up to three decimals. 10 where no type is named, else 0. This, --type and
    /// --reliable-rate take the place of a scenario's types.
    #[arg(long)]
    rate: Option<Rate>,
    /// A type to publish, as often as there are types: `chat=10000`, `like=1000x50` (each a count of 50), `gift=20:5`
    /// (five keys in turn), `poll/counter=5` (a class that its name does not say). A reliable one has an id, is tried
    /// again and held to I1 to I7.
    #[arg(long = "type", value_name = "NAME[/CLASS]=RATE[xCOUNT][:KEYS]")]
    types: Vec<Wanted>,
    /// Fail when a device is given more messages of a type than so many a second; as often as there are types.
    #[arg(long, value_name = "TYPE=N")]
    readable_max: Vec<Limit>,
    /// Another run, with another --seed, publishes to these rooms: its messages are counted and not judged.
    #[arg(long)]
    others: bool,
    /// Reliable messages a second, over all rooms, beside the chat; up to three decimals. Each has an id and is tried
    /// again until it is answered; devices acknowledge, pull what they lack, and are held to I1 to I7.
    #[arg(long)]
    reliable_rate: Option<Rate>,
    /// Type of the reliable messages of --reliable-rate, `coupon` without it; the node must have it in class reliable.
    #[arg(long)]
    reliable_type: Option<String>,
    /// How long a reliable message lives, of whatever type. Without it: as its type says, which is taken to be at least 10 minutes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=604_800_000))]
    ttl_ms: Option<u64>,
    /// Share of the devices (0 to 1) that drop some of their acknowledgements.
    #[arg(long)]
    drop_acks_share: Option<Share>,
    /// The part of its acknowledgements (0 to 1) that such a device drops; a half without it.
    #[arg(long)]
    drop_acks: Option<Share>,
    /// Share of the devices (0 to 1) that stop reading, each about once a minute.
    #[arg(long)]
    stall_share: Option<Share>,
    /// For how long they stop reading; 5 s without it. Past 10 s the node closes them, and they come back.
    #[arg(long)]
    stall_seconds: Option<Span>,
    /// Share of the devices (0 to 1) that cut their connection without a close every 2 to 12 s, and are back within 1 s
    /// with `cursor=` and `seen=`.
    #[arg(long)]
    reconnect_share: Option<Share>,
    /// The node is killed and restarted during the run: devices come back with their cursor, trying every 100 to 300 ms,
    /// and the publisher tries the same id again. Without it a lost connection is a violation.
    #[arg(long)]
    through_restarts: bool,
    /// After the last publish, how long devices may take at most to get what they are owed; 6 s without it.
    #[arg(long)]
    settle_seconds: Option<Span>,
    /// How long to publish; 10 s without a scenario. A number of seconds, or with a unit: 90s, 2m.
    #[arg(long)]
    seconds: Option<Span>,
    /// What is due in the first of it is in the ledger and in no latency.
    #[arg(long)]
    warm_up: Option<Span>,
    /// Bytes of each payload, of whatever type; 300 without a scenario.
    #[arg(long)]
    payload_bytes: Option<usize>,
    /// How devices' frames and publishes are spelt; JSON without a scenario.
    #[arg(long, value_enum)]
    encoding: Option<Encoding>,
    /// What the run is held to, as often as wanted: `p99<300ms`, `apply_p99<3s`, `gift.p99<1s`, `loss=0`.
    #[arg(long = "threshold", value_name = "CONDITION")]
    thresholds: Vec<String>,
    /// Messages of one publish request, all to one room; of a type no more than it is due in 10 ms.
    #[arg(long)]
    messages_per_request: Option<u32>,
    /// Seed of the payloads' filler, and of everything that is drawn: which devices are awkward, and when.
    #[arg(long)]
    seed: Option<u64>,
    /// Write the report here as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report here as a page for people, too.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write what the run was held to here as JUnit's XML, too.
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Where devices connect.
    #[arg(long, default_value = "ws://127.0.0.1:7600")]
    viewer_door: Door,
    /// Where messages are published.
    #[arg(long, default_value = "http://127.0.0.1:7601")]
    publisher_door: Door,
    /// Where the node says whether it is ready.
    #[arg(long, default_value = "http://127.0.0.1:7602")]
    ops_door: Door,
    /// What room names begin with; a part that no other run has follows.
    #[arg(long, default_value = "lg")]
    room_prefix: String,
    /// What room names begin with, and nothing after it that other runs have not: they publish to the same rooms.
    #[arg(long, conflicts_with = "room_prefix")]
    room_stem: Option<String>,
    /// Worker processes to spread the devices over, at least; more are started when descriptors ask for it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=250))]
    workers: u32,
    /// A machine that holds its part of the devices, as often as there are some: `HOST:PORT` of its `worker --listen`. The
    /// key is in `ROOMCAST_WORKER_KEY`. Without one the devices are on this machine.
    #[arg(long = "worker", value_name = "HOST:PORT")]
    remote_workers: Vec<String>,
    /// An address that devices come from, in turn with others, where the viewer door is not on loopback.
    #[arg(long = "source", value_name = "ADDRESS")]
    sources: Vec<std::net::IpAddr>,
    /// Give up when the devices are not all in their rooms after so many seconds.
    #[arg(long, default_value_t = 120)]
    connect_seconds: u64,
    /// Do not measure the floor after the run. It takes three seconds at most, and only where the node is on loopback.
    #[arg(long)]
    no_floor: bool,
    /// Bearer key for the publisher door. Without it: `ROOMCAST_PUBLISHER_KEY`.
    #[arg(long)]
    publisher_key: Option<String>,
    /// Token for the viewer door. Without it: `ROOMCAST_DEVICE_TOKEN`.
    #[arg(long)]
    device_token: Option<String>,
    /// The sum of all types' rates, in thousandths, whatever else is said.
    #[arg(skip)]
    rate_in_all: Option<u64>,
}

/// The arguments of a command with these flags, as if they had been typed.
///
/// # Errors
/// What the parser of the command line says.
pub(crate) fn typed<A: Args>(flags: &str) -> Result<A, String> {
    let words = std::iter::once("roomcast-loadgen").chain(flags.split_whitespace());
    let typed = A::augment_args(clap::Command::new("roomcast-loadgen")).try_get_matches_from(words);
    typed.and_then(|typed| A::from_arg_matches(&typed)).map_err(|error| error.to_string())
}

/// What `find-max` and `sweep` turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Axis {
    Devices,
    /// Messages a second of all types together; each keeps its part.
    Rate,
    Rooms,
    PayloadBytes,
}

impl RunArgs {
    /// The same run with another value along an axis.
    #[must_use]
    pub(crate) fn at(&self, axis: Axis, value: u64) -> Self {
        let mut run = self.clone();
        let number = u32::try_from(value).unwrap_or(u32::MAX);
        match axis {
            Axis::Devices => run.devices = Some(number),
            Axis::Rate => run.rate_in_all = Some(value.saturating_mul(1_000)),
            Axis::Rooms => run.rooms = Some(number),
            Axis::PayloadBytes => run.payload_bytes = Some(usize::try_from(value).unwrap_or(usize::MAX)),
        }
        run
    }

    /// The same run as one of many: for so long, and with no floor after it.
    #[must_use]
    pub(crate) fn probing(&self, seconds: Span) -> Self {
        Self { seconds: Some(seconds), no_floor: true, ..self.clone() }
    }

    /// The same with this warm-up, whatever else is said.
    #[must_use]
    pub(crate) fn warmed_up(self, warm_up: Span) -> Self {
        Self { warm_up: Some(warm_up), ..self }
    }

    /// Refuses flags of `run` that a command would not heed, each with what is there instead.
    ///
    /// # Errors
    /// One line that names the first of them that was typed.
    pub(crate) fn refuse(&self, flags: &[(&str, &str)]) -> Result<(), String> {
        let is_typed = |flag: &str| match flag {
            "--scenario" => self.scenario.is_some(),
            "--set" => !self.sets.is_empty(),
            "--devices" => self.devices.is_some(),
            "--rooms" => self.rooms.is_some(),
            "--rate" => self.rate.is_some(),
            "--type" => !self.types.is_empty(),
            "--reliable-rate" => self.reliable_rate.is_some(),
            "--payload-bytes" => self.payload_bytes.is_some(),
            "--messages-per-request" => self.messages_per_request.is_some(),
            "--reconnect-share" => self.reconnect_share.is_some(),
            "--seconds" => self.seconds.is_some(),
            "--warm-up" => self.warm_up.is_some(),
            "--threshold" => !self.thresholds.is_empty(),
            "--html" => self.html.is_some(),
            "--junit" => self.junit.is_some(),
            _ => false,
        };
        let typed = flags.iter().find(|(flag, _)| is_typed(flag));
        typed.map_or(Ok(()), |(flag, instead)| Err(format!("{flag} can't be used here: {instead}")))
    }

    /// The same doors with chat of another shape, and no other types.
    #[must_use]
    pub(crate) fn shaped(&self, shape: &crate::scenario::shape::RunShape) -> Self {
        Self {
            scenario: None,
            sets: Vec::new(),
            devices: Some(shape.devices),
            rooms: Some(shape.rooms),
            rate: Some(Rate::of_milli(shape.rate_milli())),
            types: Vec::new(),
            payload_bytes: Some(shape.payload_bytes),
            messages_per_request: Some(shape.messages_per_request),
            encoding: Some(shape.encoding),
            reliable_rate: Some(Rate::of_milli(shape.reliable_rate_milli())),
            ttl_ms: self.ttl_ms.filter(|_| shape.reliable_rate_milli() > 0),
            reconnect_share: Some(Share::of_millionths(shape.reconnect_share_millionths())),
            ..self.clone()
        }
    }

    /// Checks everything that can be checked without connecting.
    ///
    /// # Errors
    /// One line that says what is wrong, and where.
    pub(crate) fn resolve(self) -> Result<Plan, String> {
        let scenario = self.scenario()?;
        scenario.resolve(self.target(scenario.rooms.count)?)
    }

    /// The scenario with what other flags say.
    fn scenario(&self) -> Result<Scenario, String> {
        let mut scenario = Scenario::load(self.scenario.as_deref(), &self.sets)?;
        set(&mut scenario.viewers.devices, self.devices);
        set(&mut scenario.rooms.count, self.rooms);
        set(&mut scenario.seconds, self.seconds);
        set(&mut scenario.warm_up, self.warm_up);
        set(&mut scenario.settle, self.settle_seconds);
        if let Some(bytes) = self.payload_bytes {
            scenario.payload = Length::Fixed(bytes);
            scenario.types.values_mut().for_each(|published| published.payload = None);
        }
        set(&mut scenario.encoding, self.encoding);
        set(&mut scenario.messages_per_request, self.messages_per_request);
        set(&mut scenario.seed, self.seed);
        set(&mut scenario.habits.drop_acks_share, self.drop_acks_share);
        set(&mut scenario.habits.drop_acks, self.drop_acks);
        set(&mut scenario.habits.stall_share, self.stall_share);
        set(&mut scenario.habits.stall, self.stall_seconds);
        set(&mut scenario.habits.reconnect_share, self.reconnect_share);
        scenario.others |= self.others;
        scenario.through_restarts |= self.through_restarts;
        scenario.thresholds.extend(self.thresholds.iter().cloned());
        for Limit { type_name, per_second } in &self.readable_max {
            if scenario.readable_max.insert(type_name.clone(), *per_second).is_some() {
                return Err(format!("--readable-max {type_name}: named twice"));
            }
        }
        if let Some(types) = self.types()? {
            scenario.types = types;
        } else if scenario.types.is_empty() {
            scenario.types.insert("chat".to_owned(), TypeSection::at(CHAT_RATE));
        }
        if let Some(ttl_ms) = self.ttl_ms {
            scenario.set_ttl(Span::of_ms(ttl_ms)).map_err(|why| format!("--ttl-ms: {why}"))?;
        }
        if let Some(total_milli) = self.rate_in_all {
            scenario.scale_rates(total_milli);
        }
        Ok(scenario)
    }

    /// The types that flags name; `None`: they name none.
    fn types(&self) -> Result<Option<BTreeMap<String, TypeSection>>, String> {
        if self.reliable_type.is_some() && self.reliable_rate.is_none() {
            return Err("--reliable-type: goes with --reliable-rate".into());
        }
        if self.rate.is_none() && self.reliable_rate.is_none() && self.types.is_empty() {
            return Ok(None);
        }
        let named = !self.types.is_empty() || self.scenario.is_some();
        let default = if named { Rate::default() } else { CHAT_RATE };
        let chat = self.rate.unwrap_or(default);
        let reliable = self.reliable_rate.unwrap_or_default();
        let plain = [
            ("--rate", "chat", TypeSection::at(chat)),
            (
                "--reliable-rate",
                self.reliable_type.as_deref().unwrap_or(RELIABLE_TYPE),
                TypeSection { class: Some(Class::Reliable), ..TypeSection::at(reliable) },
            ),
        ];
        let plain = plain.into_iter().filter(|(_, _, published)| published.rate.milli() > 0);
        let plain = plain.map(|(flag, type_name, published)| (flag, type_name.to_owned(), published));
        let wanted = self.types.iter().map(|wanted| {
            let published = TypeSection {
                class: Some(wanted.class),
                count: wanted.count,
                keys: wanted.keys,
                ..TypeSection::at(Rate::of_milli(wanted.rate_milli))
            };
            ("--type", wanted.type_name.clone(), published)
        });
        let mut types = BTreeMap::new();
        for (flag, type_name, published) in plain.chain(wanted) {
            roomcast_core::room::id::TypeName::parse(&type_name)
                .map_err(|bad| format!("--reliable-type: a type is {bad}"))?;
            if types.insert(type_name.clone(), published).is_some() {
                return Err(format!("{flag} {type_name}: named twice"));
            }
        }
        if types.is_empty() {
            return Err("--rate: must be more than 0, or --reliable-rate, or --type".into());
        }
        Ok(Some(types))
    }

    /// Workers that can be reached, and addresses that devices can come from.
    fn check_elsewhere(&self) -> Result<(), String> {
        let door = self.viewer_door.address();
        for worker in &self.remote_workers {
            let address = remote::resolve(worker).map_err(|reason| format!("--worker {worker}: {reason}"))?;
            if door.ip().is_loopback() && !address.ip().is_loopback() {
                return Err(format!(
                    "--worker {worker}: there --viewer-door {} is that machine itself; name this machine's address",
                    self.viewer_door
                ));
            }
        }
        match self.sources.iter().find(|source| source.is_ipv4() != door.is_ipv4()) {
            Some(other) => Err(format!("--source {other}: nothing comes from there to {}", self.viewer_door)),
            None => Ok(()),
        }
    }

    fn target(self, rooms: u32) -> Result<Target, String> {
        for (flag, door, scheme) in [
            ("--viewer-door", &self.viewer_door, "ws"),
            ("--publisher-door", &self.publisher_door, "http"),
            ("--ops-door", &self.ops_door, "http"),
        ] {
            if !door.is_scheme(scheme) {
                return Err(format!("{flag}: {door} must begin with {scheme}://"));
            }
        }
        self.check_elsewhere()?;
        let flag = if self.room_stem.is_some() { "--room-stem" } else { "--room-prefix" };
        let own_stem = || format!("{}-{:08x}", self.room_prefix, fastrand::u32(..));
        let room_stem = self.room_stem.clone().unwrap_or_else(own_stem);
        roomcast_core::room::id::RoomName::parse(&format!("{room_stem}-{rooms}"))
            .map_err(|bad| format!("{flag}: a room name is {bad}"))?;
        for (flag, path) in [("--json", &self.json), ("--html", &self.html), ("--junit", &self.junit)] {
            openable(flag, path.as_ref())?;
        }
        Ok(Target {
            room_stem,
            viewer_door: self.viewer_door,
            publisher_door: self.publisher_door,
            ops_door: self.ops_door,
            workers_min: self.workers,
            remote_workers: self.remote_workers,
            sources: self.sources,
            connect_seconds: self.connect_seconds,
            measures_floor: !self.no_floor,
            json: self.json,
            html: self.html,
            junit: self.junit,
            command: command_line(std::env::args()),
            publisher_key: self.publisher_key.or_else(|| std::env::var("ROOMCAST_PUBLISHER_KEY").ok()),
            device_token: self.device_token.or_else(|| std::env::var("ROOMCAST_DEVICE_TOKEN").ok()),
        })
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// What repeats the run, for a shell; without its secrets.
fn command_line(words: impl Iterator<Item = String>) -> String {
    let mut is_secret = false;
    let shown = words.skip(1).map(|word| {
        let secret = std::mem::replace(&mut is_secret, SECRETS.contains(&&*word));
        let assigned =
            SECRETS.iter().find(|flag| word.strip_prefix(**flag).is_some_and(|rest| rest.starts_with('=')));
        match assigned {
            _ if secret => "…".to_owned(),
            Some(flag) => format!("{flag}=…"),
            None if word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=./:,".contains(&byte)) => {
                word
            }
            None => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    std::iter::once("roomcast-loadgen".to_owned()).chain(shown).collect::<Vec<_>>().join(" ")
}

/// Flags whose values are shown to nobody.
const SECRETS: [&str; 2] = ["--publisher-key", "--device-token"];

#[cfg(test)]
pub(crate) mod tests;
