//! The login to NATS: servers, credentials and the options of each connection. The log's thread and the thread
//! of the cluster connect with it, each for itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::time::sleep;

use crate::clock;
use crate::config::cluster::ClusterConfig;
use roomcast_core::limits::{
    NATS_CONNECT_AGE_MAX, NATS_CONNECT_PAUSE, NATS_CREDENTIALS_BYTES_MAX, NATS_PING_INTERVAL, NATS_QUEUE_MAX,
    NATS_START_AGE_MAX,
};

/// User and password of the system account on servers of this machine, where the configuration names no
/// credentials.
const LOCAL_SYSTEM: &str = "sys";

/// The servers of a cluster, and the ways in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    servers: Vec<String>,
    /// The name of the connection, for operators of the servers: `rc/node-1`.
    name: String,
    inbox: String,
    credentials: Option<PathBuf>,
    system: SystemLogin,
    /// Commands of the node that wait for the connection. Above: the next one waits with its sender.
    queue: usize,
    /// The servers are tried in their order.
    is_in_order: bool,
}

/// The way into the system account.
#[derive(Debug, Clone)]
enum SystemLogin {
    Credentials(PathBuf),
    /// Servers on loopback: the user `sys`.
    Local,
    /// No credentials, and the servers are elsewhere.
    Missing,
}

/// The reason for no connection, for operators.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// A file of credentials is no such file.
    #[error("{}: {why}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The problem with it.
        why: String,
    },
    /// A server refused the credentials.
    #[error("the NATS servers {servers} refuse the {account} account's credentials: {why}")]
    Refused {
        /// The servers that were tried.
        servers: String,
        /// The account: `cluster` or `system`.
        account: &'static str,
        /// The server's word.
        why: String,
    },
    /// No server was reached in time.
    #[error("no NATS server is reached at {servers} ({why}): start one there, or change cluster.nats")]
    Unreached {
        /// The servers that were tried.
        servers: String,
        /// The last error.
        why: String,
    },
    /// The system account needs credentials that the configuration does not name.
    #[error("cluster.system_credentials names no file")]
    NoSystemCredentials,
}

impl Login {
    /// The login of a node.
    pub(crate) fn of(config: &ClusterConfig) -> Self {
        let ClusterConfig { servers, name, node, credentials, .. } = config;
        let system = match &config.system_credentials {
            Some(path) => SystemLogin::Credentials(path.clone()),
            None if config.is_local() => SystemLogin::Local,
            None => SystemLogin::Missing,
        };
        Self {
            servers: servers.clone(),
            name: format!("{name}/{node}"),
            inbox: format!("_INBOX_{name}_{node}"),
            credentials: credentials.clone(),
            system,
            queue: NATS_QUEUE_MAX,
            is_in_order: false,
        }
    }

    /// The same login with a shorter queue of commands.
    pub(crate) fn with_queue(self, queue: usize) -> Self {
        Self { queue, ..self }
    }

    /// The same login with its servers in a fixed order, which begins `turns` servers further.
    pub(crate) fn turned(&self, turns: usize) -> Self {
        let mut turned = Self { is_in_order: true, ..self.clone() };
        let count = turned.servers.len().max(1);
        turned.servers.rotate_left(turns % count);
        turned
    }

    /// The error of a connection that ended as soon as it was made.
    pub(crate) fn unreached(&self, why: &dyn std::fmt::Display) -> NatsError {
        NatsError::Unreached { servers: self.servers.join(", "), why: why.to_string() }
    }

    /// Connects to a server of the cluster's account, with tries for `NATS_START_AGE_MAX`. The client then
    /// reconnects by itself, for ever. `heard` hears of each connection and of each loss.
    ///
    /// # Errors
    /// [`NatsError`].
    pub(crate) async fn connect(
        &self,
        heard: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Client, NatsError> {
        let heard = Arc::new(heard);
        let options = || -> Result<ConnectOptions, NatsError> {
            let heard = Arc::clone(&heard);
            let options = match &self.credentials {
                Some(path) => with_credentials(path)?,
                None => ConnectOptions::new(),
            };
            Ok(options.event_callback(move |event| {
                heard(event);
                std::future::ready(())
            }))
        };
        self.connect_with(options, "cluster", NATS_START_AGE_MAX).await
    }

    /// Connects to the system account, with one try at each server. The caller drops the client after use.
    ///
    /// # Errors
    /// [`NatsError`].
    pub(crate) async fn connect_to_system(&self) -> Result<Client, NatsError> {
        let options = || match &self.system {
            SystemLogin::Credentials(path) => with_credentials(path),
            SystemLogin::Local => {
                Ok(ConnectOptions::with_user_and_password(LOCAL_SYSTEM.to_owned(), LOCAL_SYSTEM.to_owned()))
            }
            SystemLogin::Missing => Err(NatsError::NoSystemCredentials),
        };
        self.connect_with(options, "system", Duration::ZERO).await
    }

    async fn connect_with(
        &self,
        options: impl Fn() -> Result<ConnectOptions, NatsError>,
        account: &'static str,
        patience: Duration,
    ) -> Result<Client, NatsError> {
        let servers = || self.servers.join(", ");
        let addresses: Result<Vec<ServerAddr>, _> =
            self.servers.iter().map(|server| server.parse()).collect();
        let addresses =
            addresses.map_err(|why| NatsError::Unreached { servers: servers(), why: why.to_string() })?;
        let until: Instant = clock::now().instant + patience;
        loop {
            // The files are read again for each try: somebody may be exchanging them.
            let options = if self.is_in_order { options()?.retain_servers_order() } else { options()? };
            let options = options
                .name(&self.name)
                .client_capacity(self.queue)
                .custom_inbox_prefix(&self.inbox)
                .ping_interval(NATS_PING_INTERVAL)
                .connection_timeout(NATS_CONNECT_AGE_MAX)
                .reconnect_delay_callback(|tries| match tries {
                    0 | 1 => Duration::ZERO,
                    _ => NATS_CONNECT_PAUSE,
                });
            let error = match Box::pin(options.connect(addresses.clone())).await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if is_refusal(&error) {
                return Err(NatsError::Refused { servers: servers(), account, why: error.to_string() });
            }
            if clock::now().instant + NATS_CONNECT_PAUSE >= until {
                return Err(NatsError::Unreached { servers: servers(), why: error.to_string() });
            }
            sleep(NATS_CONNECT_PAUSE).await;
        }
    }
}

/// True for an error that a further try meets again.
fn is_refusal(error: &ConnectError) -> bool {
    matches!(error.kind(), ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication)
}

/// Options with the credentials of a file: a `.creds` file, or the seed of an nkey.
fn with_credentials(path: &Path) -> Result<ConnectOptions, NatsError> {
    let wrong = |why: String| NatsError::Credentials { path: path.to_owned(), why };
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(NATS_CREDENTIALS_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| wrong(error.to_string()))?;
    // Seeds of users begin with these letters, by the form of nkeys.
    if text.trim_start().starts_with("SU") {
        return Ok(ConnectOptions::with_nkey(text.trim().to_owned()));
    }
    ConnectOptions::with_credentials(&text)
        .map_err(|error: io::Error| wrong(format!("no credentials of NATS ({error})")))
}
