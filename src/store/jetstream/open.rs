//! The start of the log: the client, the streams, and the proof that they sync.

use std::io;
use std::sync::Arc;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, Event};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use roomcast_core::limits::{LOG_START_AGE_MAX, NATS_CONNECT_PAUSE, NATS_PAYLOAD_LEAST};

use super::proof::{self, Proven, Unproven};
use super::streams::{Streams, StreamsError};
use crate::clock;
use crate::config::cluster::ClusterConfig;
use crate::nats::{Login, NatsError};

/// The reason for a log that does not start. No thread runs, and no connection is open.
#[derive(Debug, thiserror::Error)]
pub enum LogStartError {
    /// No connection.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The servers take small messages alone.
    #[error("the NATS servers take messages of {0} bytes: set max_payload to {NATS_PAYLOAD_LEAST} or more")]
    Payload(usize),
    /// The streams can't be used.
    #[error(transparent)]
    Streams(#[from] StreamsError),
    /// Acknowledged messages could be lost.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The system gives no thread.
    #[error("cannot start the log: {0}")]
    Thread(#[from] io::Error),
}

/// An open log.
pub(super) struct OpenLog {
    pub(super) login: Login,
    pub(super) client: Client,
    pub(super) jetstream: Context,
    pub(super) streams: Arc<Streams>,
    /// `None`: the configuration asks for no proof.
    pub(super) proven: Option<Proven>,
    /// Notified of each reconnect.
    pub(super) reconnected: Arc<Notify>,
}

/// Opens the log of a cluster.
pub(super) async fn open(config: &ClusterConfig) -> Result<OpenLog, LogStartError> {
    let login = Login::of(config);
    let reconnected = Arc::new(Notify::new());
    let connected = Arc::clone(&reconnected);
    let client = login.connect(move |event| heard(&event, &connected)).await?;
    let server = client.server_info();
    if server.max_payload < NATS_PAYLOAD_LEAST {
        return Err(LogStartError::Payload(server.max_payload));
    }
    let jetstream = jetstream::new(client.clone());
    let mut streams = found(&jetstream, config).await?;
    if streams.servers.is_empty() {
        // A server that is in no cluster names itself alone.
        streams.servers.insert(server.server_name);
    }
    let proven = if config.allow_unsynced {
        warn!("cluster.allow_unsynced: acknowledged messages may be lost with the power");
        None
    } else {
        Some(proof::ask(&login, &streams.servers).await?)
    };
    let cluster = format!("{:016x}", streams.identity.cluster);
    info!(servers = ?streams.servers, cluster, "the log is open");
    Ok(OpenLog { login, client, jetstream, streams: Arc::new(streams), proven, reconnected })
}

/// The streams, with tries for `LOG_START_AGE_MAX`: servers that have just started elect their leaders first.
async fn found(jetstream: &Context, config: &ClusterConfig) -> Result<Streams, StreamsError> {
    let until = clock::now().instant + LOG_START_AGE_MAX;
    loop {
        let error = match Box::pin(Streams::open(jetstream, &config.name, config.replicas)).await {
            Ok(streams) => return Ok(streams),
            Err(error @ (StreamsError::Shape { .. } | StreamsError::NoRandom(_))) => return Err(error),
            Err(error) => error,
        };
        if clock::now().instant + NATS_CONNECT_PAUSE >= until {
            return Err(error);
        }
        info!(%error, "the streams are not there yet");
        sleep(NATS_CONNECT_PAUSE).await;
    }
}

/// Notes the client's events.
fn heard(event: &Event, reconnected: &Notify) {
    match event {
        Event::Connected => reconnected.notify_one(),
        Event::Disconnected => warn!("the NATS server is gone: another one is tried"),
        event => info!(%event, "the NATS client"),
    }
}
