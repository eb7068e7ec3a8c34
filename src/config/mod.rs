//! Configuration: from typed values to a checked [`Config`].
//!
//! Four layers, the later over the earlier: `config/default.toml` (built in), a file, the environment, flags.
//! `raw` lays the layers over each other key by key, and keeps the source of each value. `resolve` checks the
//! values in force and turns each into its type. Both collect every [`Mistake`] instead of stopping at the
//! first, and nothing starts with a mistake.
//!
//! Nothing in this module prints or binds a port. Only [`environment`] reads the process's environment.

pub mod args;
pub mod flush;
mod mistake;
pub mod policy;
mod raw;
mod resolve;
mod shown;
mod types;
mod variable;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{DeviceKeys, Origins, Proxies, PublisherKeys};
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
    /// `viewer.listen`: the address of the door for devices.
    pub viewer_listen: SocketAddr,
    /// `publisher.listen`: the address of the door for publishers.
    pub publisher_listen: SocketAddr,
    /// `ops.listen`: the address of the door for operators.
    pub ops_listen: SocketAddr,
    /// `store.data_dir`: the folder of the store. `None` with `store.ephemeral`.
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
    pub publisher_keys: PublisherKeys,
    /// `auth.device_keys`: the keys of device tokens. None: the door is open.
    pub device_keys: DeviceKeys,
    /// `viewer.origins`: the web pages allowed at the viewer door.
    pub origins: Origins,
    /// `proxy.trusted`: the proxies whose word about a device's address counts.
    pub proxies: Proxies,
    /// `log.*`: the form and the level of the log.
    pub log: Log,
    /// `insecure`: a door off loopback may be open.
    pub insecure: bool,
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
        resolved(args, environment).map(|(_, config)| config)
    }
}

/// The typed values, and the configuration from them.
fn resolved(
    args: &Args,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(Raw, Config), Mistakes> {
    let (raw, mut mistakes) = Raw::layered(args, environment);
    match resolve::resolve(&raw, &mut mistakes) {
        Some(config) => Ok((raw, config)),
        None => Err(Mistakes(mistakes)),
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
    resolved(args, environment).map(|(raw, config)| shown::shown(&raw, &config))
}

/// The process's variables with the prefix `ROOMCAST_`.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    // std::env::vars panics at a variable that is not Unicode, whosever it is. With replacement characters
    // such a value is reported as a mistake.
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(OUR_PREFIX))
}
