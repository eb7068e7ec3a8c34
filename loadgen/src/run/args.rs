//! The arguments of `run`, first as typed, then resolved into a checked plan before any connection.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;
use roomcast_core::room::id::{RoomName, TypeName};
use serde::{Deserialize, Serialize};

use crate::fleet::remote;
use crate::report::output::openable;
use crate::scenario::file::{DoorsSection, Scenario, TypeSection};
use crate::scenario::mix::{COUNT_MAX, Class, KEYS_MAX, Limit, check_type, within};
use crate::scenario::payload::Length;
use crate::scenario::plan::{Plan, Target, room_name};
use crate::scenario::units::{Rate, Share, Span};
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;

/// The rate of chat without a scenario and without a type.
const CHAT_RATE: Rate = Rate::of_milli(10_000);
/// The type of reliable messages without --reliable-type.
const RELIABLE_TYPE: &str = "coupon";
/// Flags with secret values.
const SECRETS: [&str; 2] = ["--publisher-key", "--device-token"];

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// A scenario file, or a shipped scenario: quick, hot-room, double-eleven, red-packet, raid,
    /// reconnect-storm, rolling-restart, node-loss, small-rooms, soak. Other flags change the scenario, and
    /// `--set` changes any key of the scenario.
    #[arg(long, value_name = "FILE-OR-NAME")]
    scenario: Option<String>,
    /// A key of the scenario and a value, any number of times: `viewers.devices=5000`, `types.chat.rate=20`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Devices to connect, spread over the rooms; 1 000 without a scenario. With 0 the run only publishes.
    #[arg(long)]
    devices: Option<u32>,
    /// Rooms to publish to; 1 without a scenario. Rooms without a device are not checked.
    #[arg(long)]
    rooms: Option<u32>,
    /// Chat messages a second, over all rooms; up to three decimals. The default is 10 without a named type,
    /// else 0. --rate, --type and --reliable-rate replace the types of a scenario.
    #[arg(long)]
    rate: Option<Rate>,
    /// A type to publish, once for each type: `chat=10000`, `like=1000x50` (each publish counts 50),
    /// `gift=20:5` (five keys in turn), `poll/counter=5` (a class other than the usual class of the name).
    /// Reliable messages have an id, are tried again, and are held to I1 to I7.
    #[arg(long = "type", value_name = "NAME[/CLASS]=RATE[xCOUNT][:KEYS]")]
    types: Vec<NamedType>,
    /// Most messages of a type a second for a device; more fail the run. Once for each type.
    #[arg(long, value_name = "TYPE=N")]
    readable_max: Vec<Limit>,
    /// Another run with another --seed publishes to the same rooms: messages of the other run are counted,
    /// not judged.
    #[arg(long)]
    others: bool,
    /// Reliable messages a second, over all rooms, beside the chat; up to three decimals. Each message has an
    /// id and is tried again until the node answers. Devices acknowledge and pull, and are held to I1 to I7.
    #[arg(long)]
    reliable_rate: Option<Rate>,
    /// Type of the messages of --reliable-rate; the default is `coupon`. The node must have the type in class
    /// reliable.
    #[arg(long)]
    reliable_type: Option<String>,
    /// Life of every reliable message in milliseconds. The default is the life of the type, taken to be at
    /// least 10 minutes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=604_800_000))]
    ttl_ms: Option<u64>,
    /// Share of the devices (0 to 1) with dropped acknowledgements.
    #[arg(long)]
    drop_acks_share: Option<Share>,
    /// Share of the acknowledgements (0 to 1) dropped by a device of --drop-acks-share; the default is 0.5.
    #[arg(long)]
    drop_acks: Option<Share>,
    /// Share of the devices (0 to 1) with pauses in reading, about one a minute each.
    #[arg(long)]
    stall_share: Option<Share>,
    /// Length of a pause in reading; the default is 5 s. After 10 s the node closes the connection, and the
    /// device comes back.
    #[arg(long)]
    stall_seconds: Option<Span>,
    /// Share of the devices (0 to 1) with a connection cut every 2 to 12 s, without a close. Such a device
    /// comes back within 1 s with `cursor=` and `seen=`.
    #[arg(long)]
    reconnect_share: Option<Share>,
    /// Expect restarts of the node during the run: devices try to come back with a cursor every 100 to 300
    /// ms, and the publisher tries the same id again. Without this flag a lost connection is a violation.
    #[arg(long)]
    through_restarts: bool,
    /// Most time after the last publish for devices to get every owed message; the default is 6 s.
    #[arg(long)]
    settle_seconds: Option<Span>,
    /// Time of publishing; 10 s without a scenario. A number of seconds, or a number with a unit: 90s, 2m.
    #[arg(long)]
    seconds: Option<Span>,
    /// Time at the start of publishing without latencies: messages due then count in the ledger alone.
    #[arg(long)]
    warm_up: Option<Span>,
    /// Bytes of each payload of every type; 300 without a scenario.
    #[arg(long)]
    payload_bytes: Option<usize>,
    /// Encoding of frames and publishes; JSON without a scenario.
    #[arg(long, value_enum)]
    encoding: Option<Encoding>,
    /// A condition on the run, any number of times: `p99<300ms`, `apply_p99<3s`, `gift.p99<1s`, `loss=0`.
    #[arg(long = "threshold", value_name = "CONDITION")]
    thresholds: Vec<String>,
    /// Most messages of a publish request, all to the same room; never more of a type than are due in 10 ms.
    #[arg(long)]
    messages_per_request: Option<u32>,
    /// Seed of every random choice: filler of payloads, awkward devices and their times.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    target: Target,
    /// The sum of the rates of all types in thousandths, before any other rate.
    #[arg(skip)]
    rate_in_all: Option<u64>,
}

/// A type of the command line: `NAME[/CLASS]=RATE[xCOUNT][:KEYS]`.
#[derive(Debug, Clone)]
struct NamedType {
    name: String,
    published: TypeSection,
}

impl FromStr for NamedType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("a type is NAME[/CLASS]=RATE[xCOUNT][:KEYS]")?;
        let (name, class) = match name.split_once('/') {
            Some((name, class)) => (name, class.parse()?),
            None => (name, Class::of(name)),
        };
        let (rest, keys) = match rest.split_once(':') {
            Some((rest, keys)) => (rest, within(keys, KEYS_MAX, "keys")?),
            None => (rest, 0),
        };
        let (rate, count) = match rest.split_once('x') {
            Some((rate, count)) => (rate, Some(within(count, COUNT_MAX, "count")?)),
            None => (rest, None),
        };
        let rate: Rate = rate.parse()?;
        if rate.milli() == 0 {
            return Err(format!("{name}: a rate is more than 0"));
        }
        check_type(name, class, count, keys)?;
        let published = TypeSection { class: Some(class), count, keys, ..TypeSection::at(rate) };
        Ok(Self { name: name.to_owned(), published })
    }
}

/// Parses flags as the command line does.
pub(crate) fn typed<A: Args>(flags: &str) -> Result<A, String> {
    let words = std::iter::once("roomcast-loadgen").chain(flags.split_whitespace());
    let typed = A::augment_args(clap::Command::new("roomcast-loadgen")).try_get_matches_from(words);
    typed.and_then(|typed| A::from_arg_matches(&typed)).map_err(|error| error.to_string())
}

/// The quantity that `find-max` and `sweep` change from run to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Axis {
    Devices,
    /// Messages a second of all types together; each type keeps a fixed share.
    Rate,
    Rooms,
    PayloadBytes,
}

impl RunArgs {
    /// The same run with another value on `axis`.
    pub(crate) fn at(&self, axis: Axis, value: u64) -> Self {
        let mut run = self.clone();
        // Values past the range of a field are past the bounds of `resolve` too, which refuses them.
        let number = u32::try_from(value).unwrap_or(u32::MAX);
        match axis {
            Axis::Devices => run.devices = Some(number),
            Axis::Rate => run.rate_in_all = Some(value.saturating_mul(1_000)),
            Axis::Rooms => run.rooms = Some(number),
            Axis::PayloadBytes => run.payload_bytes = Some(usize::try_from(value).unwrap_or(usize::MAX)),
        }
        run
    }

    /// The same run as a probe: shorter, and without a floor.
    pub(crate) fn probing(&self, seconds: Span) -> Self {
        let mut run = Self { seconds: Some(seconds), ..self.clone() };
        run.target.no_floor = true;
        run
    }

    pub(crate) fn warmed_up(self, warm_up: Span) -> Self {
        Self { warm_up: Some(warm_up), ..self }
    }

    /// Refuses the first typed flag among `flags`, which are pairs of a flag without effect and the text on
    /// its replacement.
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
            "--html" => self.target.html.is_some(),
            "--junit" => self.target.junit.is_some(),
            _ => false,
        };
        let typed = flags.iter().find(|(flag, _)| is_typed(flag));
        typed.map_or(Ok(()), |(flag, instead)| Err(format!("{flag} can't be used here: {instead}")))
    }

    /// The same doors with chat of another shape, and with reliable messages alone beside the chat.
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
            // `resolve` refuses a ttl without reliable messages.
            ttl_ms: self.ttl_ms.filter(|_| shape.reliable_rate_milli() > 0),
            reconnect_share: Some(Share::of_millionths(shape.reconnect_share_millionths())),
            ..self.clone()
        }
    }

    /// Checks everything that needs no connection.
    pub(crate) fn resolve(self) -> Result<Plan, String> {
        let scenario = self.scenario()?;
        scenario.resolve(target(self.target, &scenario)?)
    }

    /// The scenario changed by the other flags.
    fn scenario(&self) -> Result<Scenario, String> {
        let mut scenario = Scenario::load(self.scenario.as_deref(), &self.sets)?;
        set(&mut scenario.viewers.devices, self.devices);
        set(&mut scenario.rooms.count, self.rooms);
        set(&mut scenario.seconds, self.seconds);
        set(&mut scenario.warm_up, self.warm_up);
        set(&mut scenario.settle, self.settle_seconds);
        if let Some(bytes) = self.payload_bytes {
            // The flag outdoes the lengths of single types too.
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
        // Last, because the scale applies to the types of every other flag.
        if let Some(total_milli) = self.rate_in_all {
            scenario.scale_rates(total_milli);
        }
        Ok(scenario)
    }

    /// The types named by flags; `None` if no flag names a type.
    fn types(&self) -> Result<Option<BTreeMap<String, TypeSection>>, String> {
        if self.reliable_type.is_some() && self.reliable_rate.is_none() {
            return Err("--reliable-type: needs --reliable-rate".into());
        }
        if self.rate.is_none() && self.reliable_rate.is_none() && self.types.is_empty() {
            return Ok(None);
        }
        // Beside named types or a scenario, chat has to be asked for.
        let named = !self.types.is_empty() || self.scenario.is_some();
        let default = if named { Rate::default() } else { CHAT_RATE };
        let chat = TypeSection::at(self.rate.unwrap_or(default));
        let reliable = TypeSection::at(self.reliable_rate.unwrap_or_default());
        let reliable = TypeSection { class: Some(Class::Reliable), ..reliable };
        let reliable_type = self.reliable_type.as_deref().unwrap_or(RELIABLE_TYPE);
        let plain = [("--rate", "chat", chat), ("--reliable-rate", reliable_type, reliable)];
        // A rate of 0 switches a type off.
        let plain = plain.into_iter().filter(|(_, _, published)| published.rate.milli() > 0);
        let wanted = self.types.iter().map(|wanted| ("--type", &*wanted.name, wanted.published.clone()));
        let mut types = BTreeMap::new();
        for (flag, type_name, published) in plain.chain(wanted) {
            TypeName::parse(type_name).map_err(|bad| format!("--reliable-type: a type is {bad}"))?;
            if types.insert(type_name.to_owned(), published).is_some() {
                return Err(format!("{flag} {type_name}: named twice"));
            }
        }
        if types.is_empty() {
            return Err("--rate: must be more than 0 without --reliable-rate and --type".into());
        }
        Ok(Some(types))
    }
}

/// The target with every default filled in, after the checks that need no connection.
fn target(mut target: Target, scenario: &Scenario) -> Result<Target, String> {
    fill_doors(&mut target, &scenario.doors)?;
    check_elsewhere(&target)?;
    let mut flag = "--room-stem";
    if target.room_stem.is_empty() {
        flag = "--room-prefix";
        // Rooms of an earlier run would bring history and old streams.
        target.room_stem = format!("{}-{:08x}", target.room_prefix, fastrand::u32(..));
    }
    RoomName::parse(&room_name(&target.room_stem, scenario.rooms.count))
        .map_err(|bad| format!("{flag}: a room name is {bad}"))?;
    for (flag, path) in [("--json", &target.json), ("--html", &target.html), ("--junit", &target.junit)] {
        openable(flag, path.as_ref())?;
    }
    target.command = command_line(std::env::args());
    target.publisher_key = target.publisher_key.or_else(|| std::env::var("ROOMCAST_PUBLISHER_KEY").ok());
    target.device_token = target.device_token.or_else(|| std::env::var("ROOMCAST_DEVICE_TOKEN").ok());
    Ok(target)
}

/// Fills in the doors of the scenario, or else the default, where no flag names a door, and checks all.
fn fill_doors(target: &mut Target, scenario: &DoorsSection) -> Result<(), String> {
    let DoorsSection { viewer, publisher, ops, route, .. } = scenario;
    if target.route.is_none() && target.viewer_doors.is_empty() && !route.is_empty() {
        target.route = Some(route.parse().map_err(|error| format!("doors.route: {error}"))?);
    }
    if let Some(route) = &target.route {
        if route.scheme != "http" {
            return Err(format!("--route: {route} must begin with http://"));
        }
        if !(target.viewer_doors.is_empty() && viewer.is_empty()) {
            return Err("--route: the answers name the viewer doors, so --viewer-door has no use here".into());
        }
        // The asked door is a viewer door too: a device without an answer goes there.
        target.viewer_doors.push(Door { scheme: "ws".to_owned(), ..route.clone() });
    }
    for (flag, key, doors, named, default) in [
        ("--viewer-door", "doors.viewer", &mut target.viewer_doors, viewer, "ws://127.0.0.1:7600"),
        (
            "--publisher-door",
            "doors.publisher",
            &mut target.publisher_doors,
            publisher,
            "http://127.0.0.1:7601",
        ),
        ("--ops-door", "doors.ops", &mut target.ops_doors, ops, "http://127.0.0.1:7602"),
    ] {
        if doors.is_empty() {
            let parsed = named.iter().map(|door| door.parse());
            *doors = parsed.collect::<Result<_, _>>().map_err(|error: String| format!("{key}: {error}"))?;
        }
        if doors.is_empty() {
            doors.push(default.parse()?);
        }
        let scheme = default.split(':').next().unwrap_or_default();
        if let Some(door) = doors.iter().find(|door| door.scheme != scheme) {
            return Err(format!("{flag}: {door} must begin with {scheme}://"));
        }
    }
    Ok(())
}

/// Checks that workers on other machines can reach the viewer doors, and devices come from their addresses.
fn check_elsewhere(target: &Target) -> Result<(), String> {
    target.viewer_doors.iter().try_for_each(|door| check_elsewhere_at(door, target))
}

fn check_elsewhere_at(door: &Door, target: &Target) -> Result<(), String> {
    for worker in &target.remote_workers {
        let address = remote::resolve(worker).map_err(|reason| format!("--worker {worker}: {reason}"))?;
        // On the other machine a loopback address leads to the other machine.
        if door.is_loopback() && !address.ip().is_loopback() {
            return Err(format!(
                "--worker {worker}: on that machine --viewer-door {door} is that machine itself; name an address of \
                 this machine"
            ));
        }
    }
    match target.sources.iter().find(|source| source.is_ipv4() != door.address.is_ipv4()) {
        // IPv4 and IPv6 do not mix on a connection.
        Some(other) => Err(format!("--source {other}: can't connect to {door}")),
        None => Ok(()),
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// The command line for a shell that repeats the run, without secrets.
fn command_line(words: impl Iterator<Item = String>) -> String {
    // A secret is a word of its own after its flag, or follows a `=`.
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

#[cfg(test)]
pub(crate) mod tests;
