//! The command line: as typed, and resolved into a checked plan before anything is connected.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::audience::Audience;
use crate::awkward::Awkward;
use crate::doors::Door;
use crate::fleet::DEVICES_PER_PROCESS_MAX;
use crate::floor::Shape;
use crate::frame::{Encoding, FRAME_BYTES_MAX};
use crate::mix::{self, Class, Limit, Load, TYPES_MAX, Wanted};
use crate::payload::PAYLOAD_BYTES_MIN;
use crate::readable::LIMITS_MAX;
use crate::schedule::Schedule;
use crate::seating::Sizes;

/// Most messages of one run: what the ledger keeps of each must fit memory.
const MESSAGES_MAX: u64 = 100_000_000;
/// Most reliable messages of one run: the ledger keeps a row of each, with the instants at which it was applied.
const RELIABLE_MESSAGES_MAX: u64 = 2_000_000;
/// Most messages of one request, as the publisher door takes them.
const MESSAGES_PER_REQUEST_MAX: i64 = 1_000;
/// Largest payload the publisher door takes.
const PAYLOAD_BYTES_MAX: usize = roomcast::config::limits::PAYLOAD_BYTES_MAX;

/// Loads a roomcast node as a live room does, and checks every device's stream.
#[derive(Debug, Parser)]
#[command(name = "roomcast-loadgen", version)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect devices, publish at a steady rate, check what every device got.
    Run(Box<RunArgs>),
    /// Measure the least processor time that a send to many devices costs on this machine.
    Floor(FloorArgs),
    /// Find the most that holds an objective, along one axis.
    FindMax(Box<crate::find_max::FindMaxArgs>),
    /// Measure the node at many points, for `plan`.
    Sweep(Box<crate::sweep::SweepArgs>),
    /// Say how many nodes an audience needs, from a sweep.
    Plan(Box<crate::capacity::PlanArgs>),
    /// Say whether a report is worse than an older one, or only different by noise.
    Compare(crate::compare::CompareArgs),
    /// Measure what this machine can generate and check.
    Selftest(crate::selftest::SelftestArgs),
    /// Hold some of a run's devices: started by `run`, or on another machine with --listen.
    Worker(crate::listen::WorkerArgs),
    /// Hold the other ends of a floor's connections; started by `floor`.
    #[command(hide = true)]
    Receivers {
        /// Where the sender listens.
        sender: SocketAddr,
        /// How many.
        receivers: usize,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Plain TCP connections to send to: 1 to 19 000, because one process holds them all.
    #[arg(long, default_value_t = 10_000)]
    devices: u32,
    /// Bytes of each send.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// Rounds a second, each a send to every device; up to three decimals.
    #[arg(long, default_value = "5", value_parser = thousandths)]
    rate: u64,
    /// How long to send; up to three decimals.
    #[arg(long, default_value = "8", value_parser = thousandths)]
    seconds: u64,
    /// Write the figures here as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A checked floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FloorPlan {
    pub(crate) shape: Shape,
    pub(crate) json: Option<PathBuf>,
}

impl FloorArgs {
    /// Checks everything that can be checked without connecting.
    ///
    /// # Errors
    /// One line that says what is wrong, and where.
    pub(crate) fn resolve(self) -> Result<FloorPlan, String> {
        if !(1..=DEVICES_PER_PROCESS_MAX).contains(&self.devices) {
            return Err(format!(
                "--devices: 1 to {DEVICES_PER_PROCESS_MAX}: one process holds them all, and may open about 20 000 descriptors"
            ));
        }
        if !(1..=FRAME_BYTES_MAX).contains(&self.bytes) {
            return Err(format!("--bytes: 1 to {FRAME_BYTES_MAX}"));
        }
        let rounds = messages_of("--rate", self.rate, self.seconds, MESSAGES_MAX)?;
        if rounds == 0 {
            return Err("--rate, --seconds: must be more than 0".into());
        }
        openable(self.json.as_ref())?;
        let shape = Shape { devices: self.devices, frame_bytes: self.bytes, rate_milli: self.rate, rounds };
        Ok(FloorPlan { shape, json: self.json })
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Devices to connect, spread over the rooms round robin. 0: publish only.
    #[arg(long, default_value_t = 1_000)]
    devices: u32,
    /// Rooms to publish to, round robin. Rooms without a device are published to, and not checked.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rooms: u32,
    /// Chat messages a second, over all rooms; up to three decimals. 10 where no type is named, else 0.
    #[arg(long, value_parser = thousandths)]
    rate: Option<u64>,
    /// A type to publish, as often as there are types: `chat=10000`, `like=1000x50` (each a count of 50), `gift=20:5`
    /// (five keys in turn), `poll/counter=5` (a class that its name does not say). A reliable one has an id, is tried
    /// again and held to I1 to I7; a run has at most one.
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
    #[arg(long, default_value = "0", value_parser = thousandths)]
    reliable_rate: u64,
    /// Type of the reliable messages; the node must have it in class reliable.
    #[arg(long, default_value = "coupon")]
    reliable_type: String,
    /// How long a reliable message lives. Without it: as its type says, which is taken to be at least 10 minutes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=604_800_000))]
    ttl_ms: Option<u64>,
    /// Share of the devices (0 to 1) that drop some of their acknowledgements.
    #[arg(long, default_value = "0", value_parser = share)]
    drop_acks_share: u32,
    /// The part of its acknowledgements (0 to 1) that such a device drops.
    #[arg(long, default_value = "0.5", value_parser = share)]
    drop_acks: u32,
    /// Share of the devices (0 to 1) that stop reading, each about once a minute.
    #[arg(long, default_value = "0", value_parser = share)]
    stall_share: u32,
    /// For how long they stop reading. Past 10 s the node closes them, and they come back.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    stall_seconds: u64,
    /// Share of the devices (0 to 1) that cut their connection without a close every 2 to 12 s, and are back within 1 s
    /// with `cursor=` and `seen=`.
    #[arg(long, default_value = "0", value_parser = share)]
    reconnect_share: u32,
    /// The node is killed and restarted during the run: devices come back with their cursor, trying every 100 to 300 ms,
    /// and the publisher tries the same id again. Without it a lost connection is a violation.
    #[arg(long)]
    through_restarts: bool,
    /// After the last publish, how long devices may take at most to get what they are owed.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    settle_seconds: u64,
    /// How long to publish; up to three decimals.
    #[arg(long, default_value = "10", value_parser = thousandths)]
    seconds: u64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 300)]
    payload_bytes: usize,
    /// How devices' frames and publishes are spelt.
    #[arg(long, value_enum, default_value = "json")]
    encoding: Encoding,
    /// Write the report here as JSON, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where devices connect.
    #[arg(long, default_value = "ws://127.0.0.1:7600")]
    viewer_door: Door,
    /// Where messages are published.
    #[arg(long, default_value = "http://127.0.0.1:7601")]
    publisher_door: Door,
    /// Where the node says whether it is ready.
    #[arg(long, default_value = "http://127.0.0.1:7602")]
    ops_door: Door,
    /// Messages of one publish request, all to one room. A type named by --type has no more in it than it is due in 10 ms.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MESSAGES_PER_REQUEST_MAX))]
    messages_per_request: u32,
    /// Seed of the payloads' filler, and of everything that is drawn: which devices are awkward, and when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What room names begin with; a part that no other run has follows.
    #[arg(long, default_value = "lg")]
    room_prefix: String,
    /// What room names begin with, and nothing after it that other runs have not: they publish to the same rooms.
    #[arg(long, conflicts_with = "room_prefix")]
    room_stem: Option<String>,
    /// Worker processes to spread the devices over, at least; more are started when descriptors ask for it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=250))]
    workers: u32,
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
}

/// What is published reliably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reliable {
    pub(crate) schedule: Schedule,
    pub(crate) type_name: String,
    pub(crate) ttl_ms: Option<u64>,
}

/// Many devices that cut their connections at one time and come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Storm {
    /// After the first publish is due.
    pub(crate) at_ms: u64,
    /// Of the devices that are there, in millionths.
    pub(crate) share: u32,
    /// They come back evenly over this time.
    pub(crate) back_within_ms: u64,
}

/// Something that is done to the node, by a command of the shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// After the first publish is due.
    pub(crate) at_ms: u64,
    pub(crate) run: String,
}

/// A checked run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What is published of each type but reliable ones; their start is not set yet.
    pub(crate) loads: Vec<Load>,
    pub(crate) rooms: u32,
    pub(crate) messages_per_request: u32,
    /// What devices may be given at most.
    pub(crate) limits: Vec<Limit>,
    /// Another run publishes to the same rooms.
    pub(crate) others: bool,
    /// What is published reliably, if anything; its start is not set yet.
    pub(crate) reliable: Option<Reliable>,
    pub(crate) awkward: Awkward,
    pub(crate) settle_ms: u64,
    pub(crate) devices: u32,
    /// How many of the devices are there when; the most is `devices`.
    pub(crate) audience: Audience,
    pub(crate) sizes: Sizes,
    /// What is due before it is in the ledger and in no other figure.
    pub(crate) warm_up_ms: u64,
    pub(crate) storms: Vec<Storm>,
    pub(crate) faults: Vec<Fault>,
    /// What the run is held to: conditions of `slo`.
    pub(crate) thresholds: Vec<String>,
    pub(crate) seconds_milli: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) encoding: Encoding,
    pub(crate) json: Option<PathBuf>,
    pub(crate) html: Option<PathBuf>,
    pub(crate) junit: Option<PathBuf>,
    pub(crate) viewer_door: Door,
    pub(crate) publisher_door: Door,
    pub(crate) ops_door: Door,
    pub(crate) seed: u64,
    /// What the names of this run's rooms begin with.
    pub(crate) room_stem: String,
    pub(crate) workers_min: u32,
    /// Workers on other machines, `HOST:PORT`; none: on this one.
    pub(crate) remote_workers: Vec<String>,
    /// Addresses that devices come from, in turn, where the door is not on loopback; none: the kernel's choice.
    pub(crate) sources: Vec<std::net::IpAddr>,
    /// The whole scenario, as a scenario file.
    pub(crate) scenario: String,
    /// What repeats the run.
    pub(crate) command: String,
    pub(crate) connect_seconds: u64,
    /// Whether the floor is measured after the run.
    pub(crate) measures_floor: bool,
    pub(crate) publisher_key: Option<String>,
    pub(crate) device_token: Option<String>,
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
            Axis::Devices => run.devices = number,
            Axis::Rate => run.rate = Some(value * 1_000),
            Axis::Rooms => run.rooms = number,
            Axis::PayloadBytes => run.payload_bytes = usize::try_from(value).unwrap_or(usize::MAX),
        }
        run
    }

    /// The same run as one of many: for so long, and with no floor after it.
    #[must_use]
    pub(crate) fn probing(&self, seconds_milli: u64) -> Self {
        Self { seconds: seconds_milli, no_floor: true, ..self.clone() }
    }

    /// The same doors with chat of another shape, and no other types.
    #[must_use]
    pub(crate) fn shaped(&self, shape: &crate::model::Shape) -> Self {
        Self {
            devices: shape.devices,
            rooms: shape.rooms,
            rate: Some(shape.rate_milli()),
            types: Vec::new(),
            payload_bytes: shape.payload_bytes,
            messages_per_request: shape.messages_per_request,
            encoding: shape.encoding,
            reliable_rate: shape.reliable_rate_milli(),
            reconnect_share: shape.reconnect_share_millionths(),
            ..self.clone()
        }
    }

    /// Checks everything that can be checked without connecting.
    ///
    /// # Errors
    /// One line that says what is wrong, and where.
    pub(crate) fn resolve(self) -> Result<Plan, String> {
        if self.seconds == 0 {
            return Err("--seconds: must be more than 0".into());
        }
        if !(PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&self.payload_bytes) {
            return Err(format!("--payload-bytes: {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX}"));
        }
        let loads = self.loads()?;
        let reliable = self.reliable()?;
        if loads.is_empty() && reliable.is_none() {
            return Err("--rate: must be more than 0, or --reliable-rate, or --type".into());
        }
        self.check_limits(&loads)?;
        let awkward = self.awkward();
        for (flag, door, scheme) in [
            ("--viewer-door", &self.viewer_door, "ws"),
            ("--publisher-door", &self.publisher_door, "http"),
            ("--ops-door", &self.ops_door, "http"),
        ] {
            if !door.is_scheme(scheme) {
                return Err(format!("{flag}: {door} must begin with {scheme}://"));
            }
        }
        let flag = if self.room_stem.is_some() { "--room-stem" } else { "--room-prefix" };
        let own_stem = || format!("{}-{:08x}", self.room_prefix, fastrand::u32(..));
        let room_stem = self.room_stem.clone().unwrap_or_else(own_stem);
        roomcast::room::id::RoomName::parse(&format!("{room_stem}-{}", self.rooms))
            .map_err(|bad| format!("{flag}: a room name is {bad}"))?;
        openable(self.json.as_ref())?;
        Ok(Plan {
            loads,
            rooms: self.rooms,
            messages_per_request: self.messages_per_request,
            limits: self.readable_max,
            others: self.others,
            reliable,
            awkward,
            settle_ms: self.settle_seconds * 1_000,
            devices: self.devices,
            audience: Audience::steady(self.devices),
            sizes: Sizes::Even,
            warm_up_ms: 0,
            storms: Vec::new(),
            faults: Vec::new(),
            thresholds: Vec::new(),
            seconds_milli: self.seconds,
            payload_bytes: self.payload_bytes,
            encoding: self.encoding,
            json: self.json,
            html: None,
            junit: None,
            viewer_door: self.viewer_door,
            publisher_door: self.publisher_door,
            ops_door: self.ops_door,
            seed: self.seed,
            room_stem,
            workers_min: self.workers,
            remote_workers: Vec::new(),
            sources: Vec::new(),
            scenario: String::new(),
            command: String::new(),
            connect_seconds: self.connect_seconds,
            measures_floor: !self.no_floor,
            publisher_key: self.publisher_key.or_else(|| std::env::var("ROOMCAST_PUBLISHER_KEY").ok()),
            device_token: self.device_token.or_else(|| std::env::var("ROOMCAST_DEVICE_TOKEN").ok()),
        })
    }
}

impl RunArgs {
    /// The types that are published but the reliable one, chat of `--rate` first.
    fn loads(&self) -> Result<Vec<Load>, String> {
        let rate = self.rate.unwrap_or(if self.types.is_empty() { 10_000 } else { 0 });
        let mut loads = Vec::new();
        if rate > 0 {
            let messages = messages_of("--rate", rate, self.seconds, MESSAGES_MAX)?;
            let schedule = self.schedule(rate, messages, self.messages_per_request);
            let type_name = "chat".to_owned();
            loads.push(Load { type_name, class: Class::Normal, schedule, count: None, keys: 0 });
        }
        for wanted in self.types.iter().filter(|wanted| wanted.class != Class::Reliable) {
            let flag = format!("--type {}", wanted.type_name);
            if loads.iter().any(|load| load.type_name == wanted.type_name) {
                return Err(format!("{flag}: named twice"));
            }
            let messages = messages_of(&flag, wanted.rate_milli, self.seconds, MESSAGES_MAX)?;
            let per_request = mix::messages_per_request(wanted.rate_milli, self.messages_per_request);
            loads.push(Load {
                type_name: wanted.type_name.clone(),
                class: wanted.class,
                schedule: self.schedule(wanted.rate_milli, messages, per_request),
                count: wanted.count,
                keys: wanted.keys,
            });
        }
        if loads.len() > TYPES_MAX {
            return Err(format!("--type: at most {TYPES_MAX} types"));
        }
        Ok(loads)
    }

    fn schedule(&self, rate_milli: u64, messages: u64, messages_per_request: u32) -> Schedule {
        Schedule { start_ns: 0, messages, rate_milli, rooms: self.rooms, messages_per_request }
    }

    fn check_limits(&self, loads: &[Load]) -> Result<(), String> {
        if self.readable_max.len() > LIMITS_MAX {
            return Err(format!("--readable-max: at most {LIMITS_MAX} types"));
        }
        for (place, Limit { type_name, .. }) in self.readable_max.iter().enumerate() {
            let known = loads.iter().any(|load| load.type_name == *type_name && !load.is_counter());
            if !known || self.readable_max[..place].iter().any(|limit| limit.type_name == *type_name) {
                return Err(format!(
                    "--readable-max {type_name}: no type of messages of this run, or named twice"
                ));
            }
        }
        Ok(())
    }

    fn reliable(&self) -> Result<Option<Reliable>, String> {
        let mut wanted = self.types.iter().filter(|wanted| wanted.class == Class::Reliable);
        let (flag, type_name, rate_milli) = match (wanted.next(), wanted.next()) {
            (None, _) if self.reliable_rate == 0 => return Ok(None),
            (None, _) => ("--reliable-rate", &self.reliable_type, self.reliable_rate),
            (Some(only), None) if self.reliable_rate == 0 => ("--type", &only.type_name, only.rate_milli),
            (Some(one), other) => {
                let other = other.map_or("--reliable-rate", |other| &other.type_name);
                return Err(format!(
                    "--type {}: one reliable type a run, and {other} is another",
                    one.type_name
                ));
            }
        };
        roomcast::room::id::TypeName::parse(type_name)
            .map_err(|bad| format!("--reliable-type: a type is {bad}"))?;
        let messages = messages_of(flag, rate_milli, self.seconds, RELIABLE_MESSAGES_MAX)?;
        let schedule = self.schedule(rate_milli, messages, 1);
        Ok(Some(Reliable { schedule, type_name: type_name.clone(), ttl_ms: self.ttl_ms }))
    }

    fn awkward(&self) -> Awkward {
        Awkward {
            drop_acks_share: self.drop_acks_share,
            drop_acks: self.drop_acks,
            stall_share: self.stall_share,
            stall_ns: self.stall_seconds * 1_000_000_000,
            reconnect_share: self.reconnect_share,
            through_restarts: self.through_restarts,
        }
    }
}

/// Whether a report can be written there; better known before the load than after.
fn openable(json: Option<&PathBuf>) -> Result<(), String> {
    let Some(path) = json else { return Ok(()) };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    opened.map_or_else(|error| Err(format!("--json {}: {error}", path.display())), |_| Ok(()))
}

/// Messages of a run at a rate and for a time that are given in thousandths.
fn messages_of(flag: &str, rate_milli: u64, seconds_milli: u64, most: u64) -> Result<u64, String> {
    let messages = (u128::from(rate_milli) * u128::from(seconds_milli)).div_ceil(1_000_000);
    let messages = u64::try_from(messages).ok().filter(|messages| *messages <= most);
    messages.ok_or_else(|| format!("{flag} × --seconds: at most {most} messages"))
}

/// A share from 0 to 1, in millionths.
fn share(text: &str) -> Result<u32, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("{text} is not between 0 and 1"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    let millionths = (share * 1_000_000.0).round() as u32;
    Ok(millionths)
}

/// A decimal with up to three places, in thousandths: exact, where a float would not be.
pub(crate) fn thousandths(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let wrong = || format!("{text:?} is no number with at most three decimals");
    if part.len() > 3 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What `run` with these flags comes to.
    pub(crate) fn resolve(flags: &str) -> Result<Plan, String> {
        let line = ["roomcast-loadgen", "run"].into_iter().chain(flags.split_whitespace());
        match CommandLine::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Run(args) => args.resolve(),
            _ => Err("run was typed".into()),
        }
    }

    fn resolve_floor(flags: &str) -> Result<FloorPlan, String> {
        let line = ["roomcast-loadgen", "floor"].into_iter().chain(flags.split_whitespace());
        match CommandLine::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Floor(args) => args.resolve(),
            _ => Err("floor was typed".into()),
        }
    }

    #[test]
    fn a_floor_fits_one_process() {
        let plan = resolve_floor("--devices 19000 --rate 2.5 --seconds 8").unwrap();
        let shape = Shape { devices: 19_000, frame_bytes: 300, rate_milli: 2_500, rounds: 20 };
        assert_eq!(plan.shape, shape);
        for (flags, named) in [
            ("--devices 19001", "--devices: 1 to 19000"),
            ("--devices 0", "--devices"),
            ("--bytes 0", "--bytes"),
            ("--bytes 2000000", "--bytes"),
            ("--rate 0", "--rate"),
            ("--seconds 0", "--seconds"),
            ("--json /nowhere/at/all.json", "--json"),
        ] {
            let error = resolve_floor(flags).unwrap_err();
            assert!(error.contains(named), "{flags}: {error}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(thousandths("0.1"), Ok(100));
        assert_eq!(thousandths("1000"), Ok(1_000_000));
        for wrong in ["", ".", "1.2345", "-1", "1e3", "1.+2", "x"] {
            assert!(thousandths(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bad_input_is_named_before_any_load() {
        for (flags, named) in [
            ("--rooms 0", "--rooms"),
            ("--rate 0", "--rate"),
            ("--rate fast", "--rate"),
            ("--reliable-rate 1000000 --seconds 1000", "--reliable-rate"),
            ("--reliable-rate 1 --reliable-type A!", "--reliable-type"),
            ("--ttl-ms 5", "--ttl-ms"),
            ("--drop-acks-share 1.5", "--drop-acks-share"),
            ("--settle-seconds 0", "--settle-seconds"),
            ("--seconds 0", "--seconds"),
            ("--payload-bytes 10", "--payload-bytes"),
            ("--payload-bytes 99999", "--payload-bytes"),
            ("--rate 1000000 --seconds 1000000", "--rate"),
            ("--json /nowhere/at/all.json", "--json"),
            ("--viewer-door http://127.0.0.1:1", "--viewer-door"),
            ("--viewer-door nonsense", "--viewer-door"),
            ("--room-prefix a/b", "--room-prefix"),
            ("--speed 3", "--speed"),
            ("--type chat", "NAME[/CLASS]=RATE"),
            ("--type chat=1 --type chat=2", "--type chat: named twice"),
            ("--type chat=1 --rate 2", "--type chat: named twice"),
            ("--type coupon=1 --type red_packet=1", "--type coupon: one reliable type"),
            ("--type coupon=1 --reliable-rate 1", "--reliable-rate is another"),
            ("--type chat=1000000 --seconds 1000", "--type chat"),
            ("--type gift=1 --readable-max chat=40", "--readable-max chat"),
            ("--type like=1 --readable-max like=40", "--readable-max like"),
            ("--readable-max chat=0", "--readable-max"),
            ("--room-stem a/b", "--room-stem"),
            ("--room-stem a --room-prefix b", "--room-"),
        ] {
            let error = resolve(flags).unwrap_err();
            assert!(error.contains(named), "{flags}: {error}");
        }
    }

    #[test]
    fn reliable_messages_may_go_alone_or_beside_chat() {
        let plan = resolve("--rate 0 --reliable-rate 2 --seconds 60 --drop-acks-share 0.1").unwrap();
        assert_eq!(plan.loads, []);
        assert_eq!(plan.reliable.map(|reliable| reliable.schedule.messages), Some(120));
        assert_eq!((plan.awkward.drop_acks_share, plan.awkward.drop_acks), (100_000, 500_000));
        assert_eq!(resolve("--rate 1").unwrap().reliable, None);
    }

    #[test]
    fn a_mix_has_a_schedule_of_each_type() {
        let mix = "--type chat=10000 --type gift=20:5 --type like=1000x50 --type red_packet=0.5";
        let plan =
            resolve(&format!("{mix} --seconds 60 --messages-per-request 50 --readable-max chat=40")).unwrap();
        let messages: Vec<u64> = plan.loads.iter().map(|load| load.schedule.messages).collect();
        assert_eq!(messages, [600_000, 1_200, 60_000]);
        let per_request: Vec<u32> =
            plan.loads.iter().map(|load| load.schedule.messages_per_request).collect();
        assert_eq!(per_request, [50, 1, 10]);
        assert_eq!((plan.loads[1].keys, plan.loads[2].each()), (5, 50));
        let reliable = plan.reliable.unwrap();
        assert_eq!((&*reliable.type_name, reliable.schedule.messages), ("red_packet", 30));
        let chat = &resolve("").unwrap().loads;
        assert_eq!((chat.len(), &*chat[0].type_name, chat[0].schedule.rate_milli), (1, "chat", 10_000));
        assert_eq!(resolve("--room-stem shared").unwrap().room_stem, "shared");
    }

    #[test]
    fn the_last_message_is_due_before_the_end() {
        let plan = resolve("--rate 0.1 --seconds 5").unwrap();
        assert_eq!(plan.loads[0].schedule.messages, 1);
        assert_eq!(resolve("--rate 200 --seconds 30").unwrap().loads[0].schedule.messages, 6_000);
    }
}
