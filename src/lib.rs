//! roomcast
pub mod auth;
pub mod clock;
pub mod config;
pub mod connection;
pub mod fanout;
pub mod http;
pub mod metrics;
pub mod room;
pub mod server;
pub mod shard;
pub mod wire;
