//! Clients of the NATS servers of a test.

use async_nats::jetstream::{self, Context};
use roomcast_core::limits::LOG_STREAMS;

use super::support::nats::{NatsServers, NatsSetting};
use super::support::until;

impl NatsServers {
    /// Starts servers, and waits until they make streams. `None`: this machine has no nats-server.
    pub(crate) async fn with_streams(test: &str, setting: NatsSetting) -> Option<Self> {
        let servers = Self::spawn(test, setting)?;
        let jetstream = servers.jetstream().await;
        until("JetStream", async || jetstream.query_account().await.ok()).await;
        Some(servers)
    }

    /// A client of the streams.
    pub(crate) async fn jetstream(&self) -> Context {
        let servers: Vec<async_nats::ServerAddr> =
            self.urls().iter().map(|url| url.parse().unwrap()).collect();
        let client =
            until("a NATS server", async || Box::pin(async_nats::connect(servers.clone())).await.ok()).await;
        jetstream::new(client)
    }

    /// Gives each stream of the log so much space.
    pub(crate) async fn limit_streams(&self, bytes_max: u64) {
        let jetstream = self.jetstream().await;
        for number in 0..LOG_STREAMS {
            let stream = jetstream.get_stream(format!("RC_LOG_{number}")).await.unwrap();
            let mut config = stream.cached_info().config.clone();
            config.max_bytes = i64::try_from(bytes_max).unwrap();
            Box::pin(jetstream.update_stream(config)).await.unwrap();
        }
    }

    /// The number of the server that leads a stream.
    pub(crate) async fn leader_of(&self, stream: &str) -> usize {
        let jetstream = self.jetstream().await;
        let named = until("the leader of the stream", async || {
            let stream = jetstream.get_stream(stream).await.ok()?;
            stream.cached_info().cluster.as_ref()?.leader.clone()
        });
        named.await.trim_start_matches('n').parse().unwrap()
    }
}
