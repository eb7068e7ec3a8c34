//! What was typed, and what it means.
// stand-in
pub mod args;
pub mod limits;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::{DeviceKeys, Origins, PublisherKeys};
use crate::room::message::Types;
use crate::room::pace::FlushRules;

/// stand-in
#[derive(Debug, Clone)]
pub struct Config {
    /// stand-in
    pub viewer_listen: SocketAddr,
    /// stand-in
    pub publisher_listen: SocketAddr,
    /// stand-in
    pub ops_listen: SocketAddr,
    /// stand-in
    pub data_dir: Option<PathBuf>,
    /// stand-in
    pub shards: usize,
    /// stand-in
    pub flush: FlushRules,
    /// stand-in
    pub types: Types,
    /// stand-in
    pub heartbeat: Duration,
    /// stand-in
    pub publisher_keys: PublisherKeys,
    /// stand-in
    pub device_keys: DeviceKeys,
    /// stand-in
    pub origins: Origins,
    /// stand-in
    pub log: Log,
}

/// stand-in
#[derive(Debug, Clone)]
pub struct Log {
    /// stand-in
    pub json: bool,
    /// stand-in
    pub filter: String,
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
    pub fn load(_args: &args::Args, _env: impl Iterator<Item = (String, String)>) -> Result<Self, Mistakes> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self {
            viewer_listen: local(7600),
            publisher_listen: local(7601),
            ops_listen: local(7602),
            data_dir: None,
            shards: 1,
            flush: FlushRules::default(),
            types: Types::default(),
            heartbeat: limits::HEARTBEAT,
            publisher_keys: PublisherKeys,
            device_keys: DeviceKeys,
            origins: Origins,
            log: Log { json: false, filter: "info".to_owned() },
        })
    }
}
