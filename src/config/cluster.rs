//! The section `[cluster]`.

use std::path::PathBuf;
use std::time::Duration;

/// The place of a node in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `cluster.nats`: the URLs of the NATS servers, at least one.
    pub servers: Vec<String>,
    /// `cluster.name`: the first word of all subjects.
    pub name: String,
    /// `cluster.node`: the name of this node, unique in the cluster.
    pub node: String,
    /// `cluster.region`: the region told by `/v1/route`.
    pub region: String,
    /// `cluster.viewer_url`: the URL under which devices reach this node.
    pub viewer_url: String,
    /// `cluster.credentials`: the credentials of the cluster's account.
    pub credentials: Option<PathBuf>,
    /// `cluster.system_credentials`: the credentials of the system account, for the proof of syncs.
    pub system_credentials: Option<PathBuf>,
    /// `cluster.replicas`: copies of each stream.
    pub replicas: usize,
    /// `cluster.dead_after_ms`: the silence after which a node counts as dead.
    pub dead_after: Duration,
    /// `cluster.allow_unsynced`: the node starts on servers that acknowledge before their sync.
    pub allow_unsynced: bool,
    /// `cluster.insecure`: NATS servers off loopback may be used without credentials.
    pub insecure: bool,
}
