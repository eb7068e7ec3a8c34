// stand-in: the shape of the real file, without its parts
//! What was typed, and what it means.
//!
//! Four layers, the later over the earlier: `config/default.toml` (built in), a file, the environment, flags. `raw` lays
//! them over each other key by key and remembers where each value was typed; `resolve` checks and types what is in
//! force. Both collect every [`Mistake`] instead of stopping at the first, and nothing starts unless there is none.
//! Nothing here prints, binds a port or reads the process's environment, except [`environment`].

pub mod args;
pub mod flush;
pub mod limits;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{DeviceKeys, Origins, PublisherKeys};
use crate::room::message::Types;
use crate::room::pace::FlushRules;

use self::args::Args;

/// What begins a variable of the environment that is configuration.
pub const ENVIRONMENT_PREFIX: &str = "ROOMCAST__";

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
    /// `flush.*`: what rooms begin with.
    pub flush: FlushRules,
    /// `types.*`: the built-in types and the configured ones.
    pub types: Types,
    /// `viewer.heartbeat_ms`: how often a device pings.
    pub heartbeat: Duration,
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

/// stand-in
#[derive(Debug)]
pub struct Mistakes;

impl std::fmt::Display for Mistakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stand-in")
    }
}

impl Config {
    /// stand-in
    ///
    /// # Errors
    /// stand-in
    pub fn load(args: &Args, _environment: impl Iterator<Item = (String, String)>) -> Result<Self, Mistakes> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let parse = |text: &Option<String>, port| match text {
            Some(text) => text.parse().map_err(|_| Mistakes),
            None => Ok(local(port)),
        };
        Ok(Self {
            viewer_listen: parse(&args.flags.viewer_listen, 7600)?,
            publisher_listen: parse(&args.flags.publisher_listen, 7601)?,
            ops_listen: parse(&args.flags.ops_listen, 7602)?,
            data_dir: None,
            shards: 1,
            flush: FlushRules::default(),
            types: Types::default(),
            heartbeat: limits::HEARTBEAT,
            publisher_keys: PublisherKeys::new(Vec::new()),
            device_keys: DeviceKeys::new(Vec::new()),
            origins: Origins::default_for([127, 0, 0, 1].into()),
            log: Log { format: LogFormat::Text, level: tracing::Level::INFO },
            insecure: false,
        })
    }
}

/// stand-in
///
/// # Errors
/// stand-in
pub fn check(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<String, Mistakes> {
    Config::load(args, environment)?;
    Ok("the configuration is valid\n".to_owned())
}

/// stand-in
///
/// # Errors
/// stand-in
pub fn print(args: &Args, environment: impl Iterator<Item = (String, String)>) -> Result<String, Mistakes> {
    check(args, environment)
}

/// The process's variables that are configuration. What is not Unicode is kept with replacement characters, so that
/// it is reported as a mistake (`std::env::vars` would panic).
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
}
