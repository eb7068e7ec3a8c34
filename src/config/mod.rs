//! Configuration: from typed values to a checked [`Config`].
//!
//! Four layers, the later over the earlier: `config/default.toml` (built in), a file, the environment, flags.
//! `raw` lays the layers over each other key by key, and keeps the source of each value. `resolve` checks the
//! values in force and turns each into its type. Both collect every [`Mistake`] instead of stopping at the
//! first, and nothing starts with a mistake.
//!
//! Nothing in this module prints or binds a port. Only [`environment`] reads the process's environment.

pub mod args;
pub mod cluster;
pub mod flush;
mod lines;
mod mistake;
pub mod policy;
mod raw;
mod resolve;
mod shown;
mod types;
mod variable;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{BearerKeys, DeviceKeys, Hosts, Origins, Proxies};
use roomcast_core::room::id::RoomName;
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::policy::Types;

pub use self::mistake::{Mistake, Mistakes, Source};

use self::args::Args;
use self::raw::Raw;

/// The prefix of configuration in the environment.
const ENVIRONMENT_PREFIX: &str = "ROOMCAST__";
/// The prefix of misspelt configuration, and of the variables in `variable`.
const OUR_PREFIX: &str = "ROOMCAST_";

/// The checked configuration of a node. `Debug` shows no key and no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// `cluster.*`: the place in a cluster. `None`: the node is alone, with a store of its own.
    pub cluster: Option<cluster::ClusterConfig>,
    /// `viewer.listen`: the address of the door for devices.
    pub viewer_listen: SocketAddr,
    /// `publisher.listen`: the address of the door for publishers.
    pub publisher_listen: SocketAddr,
    /// `ops.listen`: the address of the door for operators.
    pub ops_listen: SocketAddr,
    /// `store.data_dir`: the folder of the store. `None` with `store.ephemeral`, and in a cluster.
    pub data_dir: Option<PathBuf>,
    /// `shards.count`, at least 1. For "auto": the number of cores this process may use.
    pub shards: usize,
    /// `shards.hot_members`: a room with more members is hot.
    pub hot_members: u64,
    /// `shards.hot_rooms`: rooms to be hot from the first device on.
    pub hot_rooms: Vec<RoomName>,
    /// `flush.*`, `readable.*` and the limits of a room: the rules of a new room.
    pub flush: RoomRules,
    /// `types.*`: the built-in and the configured message types.
    pub types: Types,
    /// `viewer.heartbeat_ms`: the time between two pings of a device.
    pub heartbeat: Duration,
    /// `viewer.joins_per_second`, at least 1. Further devices are told to come back later.
    pub joins_per_second: u32,
    /// `limits.key_messages_per_second`: messages of each publisher key per second, and at once. 0: no
    /// limit.
    pub key_messages_per_second: u32,
    /// `limits.outbound_bytes`: the most bytes owed to all devices together. Lossy messages are shed past
    /// 80 % of the limit; no device joins past 90 %.
    pub outbound_bytes_max: u64,
    /// `publisher.keys`: the active keys of publishers. None: the door is open.
    pub publisher_keys: BearerKeys,
    /// `ops.keys`: the active keys of operators. None: the door is open.
    pub ops_keys: BearerKeys,
    /// `auth.*`: the keys of device tokens, and the claims that a token needs. No key: the door is open.
    pub device_keys: DeviceKeys,
    /// `viewer.origins`: the web pages allowed at the viewer door.
    pub origins: Origins,
    /// `proxy.trusted`: the proxies whose word about a device's address counts.
    pub proxies: Proxies,
    /// `log.*`: the form and the level of the log.
    pub log: Log,
    /// `hosts`: the names under which callers reach the doors without keys.
    pub hosts: Hosts,
    /// `viewer.insecure`, `publisher.insecure`, `ops.insecure`: the door may be open off loopback.
    pub insecure: Insecure,
    /// `limits.connections`: the places of devices that the node must have. `None`: as many as the
    /// descriptors allow.
    pub connections: Option<u64>,
    /// `drain.notice_ms`: the time for which a node says that it will stop, and still serves.
    pub drain_notice: Duration,
}

/// The doors that may be open off loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Insecure {
    /// The viewer door.
    pub viewer: bool,
    /// The publisher door.
    pub publisher: bool,
    /// The operator door.
    pub ops: bool,
}

/// The form and the level of the node's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// `log.format`: the form of each line.
    pub format: LogFormat,
    /// `log.level`: the least severe level in the log.
    pub level: tracing::Level,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people, in colour on a terminal.
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

impl Config {
    /// Reads the configuration file and the secret files, and returns the configuration in force: defaults,
    /// then the file of `args`, then the `ROOMCAST__…` variables of `environment`, then the flags. An unknown
    /// `ROOMCAST_…` variable is a mistake; other variables are ignored.
    ///
    /// # Errors
    /// [`Mistakes`]: every mistake, with the source and the allowed values.
    pub fn load(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<Self, Mistakes> {
        Loaded::load(args, environment).map(|loaded| loaded.config)
    }
}

/// A configuration in force, with its typed values: a reload compares them with those of the same files.
pub struct Loaded {
    raw: Raw,
    /// The checked configuration.
    pub config: Config,
}

// The typed values may hold secrets.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// The outcome of a reload.
#[derive(Debug)]
pub struct Reloaded {
    /// The configuration to take over. Keys that need a restart have their old values.
    pub loaded: Loaded,
    /// Changed keys that are in force from now on.
    pub changed: Vec<String>,
    /// Changed keys that wait for a restart.
    pub waiting: Vec<&'static str>,
}

impl Loaded {
    /// Loads a configuration, as [`Config::load`] does.
    ///
    /// # Errors
    /// [`Mistakes`], as from [`Config::load`].
    pub fn load(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<Self, Mistakes> {
        let (raw, mistakes) = Raw::layered(args, environment);
        Self::resolve(raw, mistakes)
    }

    /// Loads the configuration again, and checks it as a whole.
    ///
    /// # Errors
    /// [`Mistakes`] of the new configuration, or of its values beside the old ones that need a restart. Then
    /// nothing is to be changed.
    pub fn reload(
        &self,
        args: &Args,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Reloaded, Mistakes> {
        let mut raw = Self::load(args, environment)?.raw;
        let waiting = raw.keep_what_needs_a_restart(&self.raw);
        let mut changed = raw.differing(&self.raw);
        // Once more, since the doors stay where they are: a door that will move to loopback is not there yet,
        // and must not lose its keys.
        let loaded = Self::resolve(raw, Vec::new())?;
        // A secret may change in its file, under the same path.
        if !changed.iter().any(|key| key == "auth.device_keys")
            && !loaded.config.device_keys.are_keys_of(&self.config.device_keys)
        {
            changed.push("auth.device_keys (the content of a secret_file)".to_owned());
        }
        let opened = self.doors_opened_by(&loaded);
        if opened.is_empty() {
            Ok(Reloaded { loaded, changed, waiting })
        } else {
            Err(Mistakes(loaded.raw.with_lines(opened)))
        }
    }

    /// A mistake for each door that would lose its last key.
    fn doors_opened_by(&self, later: &Self) -> Vec<Mistake> {
        let is_open = |config: &Config| {
            [config.device_keys.is_open(), config.publisher_keys.is_open(), config.ops_keys.is_open()]
        };
        let before = is_open(&self.config);
        let after = is_open(&later.config);
        let keys = ["auth.device_keys", "publisher.keys", "ops.keys"];
        let opened = keys.into_iter().zip(before).zip(after).filter(|((_, before), after)| !before && *after);
        // An editor or a copy empties the file for a moment. Read then, it would open the doors on loopback.
        opened
            .map(|((key, _), _)| {
                let source = &later.raw.entry(key).source;
                Mistake::new(source, key, "would lose its last key", "a key; only a restart opens a door")
            })
            .collect()
    }

    fn resolve(raw: Raw, mut mistakes: Vec<Mistake>) -> Result<Self, Mistakes> {
        match resolve::resolve(&raw, &mut mistakes) {
            Some(config) => Ok(Self { raw, config }),
            None => Err(Mistakes(raw.with_lines(mistakes))),
        }
    }
}

/// `roomcast config check`: one line for a valid configuration.
///
/// # Errors
/// [`Mistakes`], as from [`Config::load`].
pub fn check(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<String, Mistakes> {
    Config::load(args, environment)?;
    Ok("the configuration is valid\n".to_owned())
}

/// `roomcast config print`: the configuration in force as TOML, without secrets, with the source of each
/// line.
///
/// # Errors
/// [`Mistakes`], as from [`Config::load`].
pub fn print(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<String, Mistakes> {
    Loaded::load(args, environment).map(|Loaded { raw, config }| shown::shown(&raw, &config))
}

/// The process's variables with the prefix `ROOMCAST_`.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    // std::env::vars panics at a variable that is not Unicode, whosever it is. With replacement characters
    // such a value is reported as a mistake.
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(OUR_PREFIX))
}
