//! What was typed, and what it means.
//!
//! Four layers, the later over the earlier: `config/default.toml` (built in), a file, the environment, flags. `raw` lays
//! them over each other key by key and remembers where each value was typed; `resolve` checks and types what is in
//! force. Both collect every [`Mistake`] instead of stopping at the first, and nothing starts unless there is none.
//! Nothing here prints, binds a port or reads the process's environment, except [`environment`].

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

use crate::auth::{DeviceKeys, Origins, PublisherKeys};
use roomcast_core::room::id::RoomName;
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::policy::Types;

pub use self::mistake::{Mistake, Mistakes, Source};

use self::args::Args;
use self::raw::Raw;

/// What begins a variable of the environment that is configuration.
pub const ENVIRONMENT_PREFIX: &str = "ROOMCAST__";
/// What begins one that is configuration misspelt, or belongs to somebody `variable` knows.
const OUR_PREFIX: &str = "ROOMCAST_";

/// The checked configuration of one node. Its `Debug` shows no key and no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// `viewer.listen`: where devices connect.
    pub viewer_listen: SocketAddr,
    /// `publisher.listen`: where backends publish.
    pub publisher_listen: SocketAddr,
    /// `ops.listen`: where health and metrics are served.
    pub ops_listen: SocketAddr,
    /// `store.data_dir`; `None` with `store.ephemeral`.
    pub data_dir: Option<PathBuf>,
    /// `shards.count`, at least 1; where it says "auto", the cores this process may use.
    pub shards: usize,
    /// `shards.hot_members`: members past which a room is hot.
    pub hot_members: u64,
    /// `shards.hot_rooms`: rooms that are hot from the first device on.
    pub hot_rooms: Vec<RoomName>,
    /// `flush.*`, `readable.*` and what of `limits.*` concerns rooms: what rooms begin with.
    pub flush: RoomRules,
    /// `types.*`: the built-in types and the configured ones.
    pub types: Types,
    /// `viewer.heartbeat_ms`: how often a device pings.
    pub heartbeat: Duration,
    /// `viewer.joins_per_second`, at least 1: past it devices are told to come back later.
    pub joins_per_second: u32,
    /// `limits.key_messages_per_second`: what each publisher key may publish a second, and at once; 0: as much as comes.
    pub key_messages_per_second: u32,
    /// `limits.outbound_bytes`: what the node's devices may be owed together. Past 80 % of it lossy messages are shed, past
    /// 90 % no device joins.
    pub outbound_bytes_max: u64,
    /// `publisher.keys`.
    pub publisher_keys: PublisherKeys,
    /// `auth.device_keys`.
    pub device_keys: DeviceKeys,
    /// `viewer.origins`.
    pub origins: Origins,
    /// `log.*`.
    pub log: Log,
    /// `insecure`: doors off loopback may be open.
    pub insecure: bool,
}

/// How the node logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// `log.format`.
    pub format: LogFormat,
    /// `log.level`: the least severe line that is written.
    pub level: tracing::Level,
}

/// How a log line is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The configuration in force: defaults, then the file that `args` names, then the `ROOMCAST__…` variables of
    /// `environment` (a `ROOMCAST_…` nobody knows is a mistake; others are passed over), then the flags. Reads the configuration file and the secret files.
    ///
    /// # Errors
    /// [`Mistakes`]: all of them, each with where it was typed and what is allowed.
    pub fn load(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<Self, Mistakes> {
        let (raw, mut mistakes) = Raw::layered(args, environment);
        match resolve::resolve(&raw, &mut mistakes) {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(Mistakes(mistakes)),
        }
    }
}

/// `roomcast config check`: one line that says that all is well.
///
/// # Errors
/// [`Mistakes`], as [`Config::load`].
pub fn check(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<String, Mistakes> {
    Config::load(args, environment)?;
    Ok("the configuration is valid\n".to_owned())
}

/// `roomcast config print`: the configuration in force as TOML, secrets left out, with where each line comes from.
///
/// # Errors
/// [`Mistakes`], as [`Config::load`].
pub fn print(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<String, Mistakes> {
    let (raw, mut mistakes) = Raw::layered(args, environment);
    match resolve::resolve(&raw, &mut mistakes) {
        Some(config) if mistakes.is_empty() => Ok(shown::shown(&raw, &config)),
        _ => Err(Mistakes(mistakes)),
    }
}

/// The process's variables that are configuration, or might be meant to be. What is not Unicode is kept with replacement characters, so that
/// it is reported as a mistake (`std::env::vars` would panic).
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(OUR_PREFIX))
}
