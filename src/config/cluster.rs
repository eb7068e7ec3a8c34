//! The section `[cluster]`: the checked values, and their checks.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use rustix::system::uname;

use super::resolve::{Resolver, shown};
use roomcast_core::limits::{
    CLUSTER_NAME_MAX, DEAD_AFTER_LEAST, DEAD_AFTER_MOST, NATS_SERVERS_MAX, NODE_NAME_MAX, REGION_MAX,
    REPLICAS_MAX, VIEWER_URL_MAX,
};
use roomcast_core::now::millis;

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

impl ClusterConfig {
    /// True if every NATS server is on loopback.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.servers.iter().all(|server| is_loopback(server))
    }
}

impl Resolver<'_> {
    /// The section `[cluster]`; `None` without NATS servers. Each value is checked all the same: a mistake must not
    /// come up only with the servers.
    pub(super) fn cluster(&mut self) -> Option<ClusterConfig> {
        let dead_after = millis(DEAD_AFTER_LEAST)..=millis(DEAD_AFTER_MOST);
        let cluster = ClusterConfig {
            servers: self.servers(),
            name: self.name("cluster.name", CLUSTER_NAME_MAX, Case::Small),
            node: self.node(),
            region: self.name("cluster.region", REGION_MAX, Case::Small),
            viewer_url: self.viewer_url(),
            credentials: self.file("cluster.credentials"),
            system_credentials: self.file("cluster.system_credentials"),
            replicas: self.whole("cluster.replicas", 1..=REPLICAS_MAX as u64, "copies"),
            dead_after: Duration::from_millis(self.whole(
                "cluster.dead_after_ms",
                dead_after,
                "milliseconds",
            )),
            allow_unsynced: self.switch("cluster.allow_unsynced"),
            insecure: self.switch("cluster.insecure"),
        };
        if cluster.name.is_empty() {
            self.refuse(self.entry("cluster.name"), "cluster.name", "at least one letter", &[]);
        }
        if cluster.servers.is_empty() {
            return None;
        }
        self.servers_guarded(&cluster);
        self.no_other_store();
        Some(cluster)
    }

    fn servers(&mut self) -> Vec<String> {
        const ALLOWED: &str = "nats://host:port or tls://host:port, without user and password";
        let entry = self.entry("cluster.nats");
        let Some(typed) = entry.value.as_array().filter(|typed| typed.len() <= NATS_SERVERS_MAX) else {
            self.refuse(entry, "cluster.nats", format!("a list of at most {NATS_SERVERS_MAX} URLs"), &[]);
            return Vec::new();
        };
        let mut servers = Vec::new();
        for (at, value) in typed.iter().enumerate() {
            match value.as_str().filter(|url| is_url(url, &["nats", "tls"])) {
                Some(url) => servers.push(url.trim_end_matches('/').to_owned()),
                // Never quoted: somebody may have typed a password in it.
                None => {
                    self.mistaken(&entry.source, format!("cluster.nats[{at}]"), "is no such URL", ALLOWED);
                }
            }
        }
        servers
    }

    /// A word of subjects and streams. A dot, a space, `*` or `>` in it would name other subjects.
    fn name(&mut self, key: &str, letters_max: usize, case: Case) -> String {
        let allowed = format!("at most {letters_max} {}, digits, - and _", case.letters());
        let typed = self.text(key, &allowed);
        let entry = self.entry(key);
        if entry.value.is_str()
            && (typed.len() > letters_max || !typed.chars().all(|letter| case.has(letter)))
        {
            self.refuse(entry, key, allowed, &[]);
        }
        typed.to_owned()
    }

    fn node(&mut self) -> String {
        let typed = self.name("cluster.node", NODE_NAME_MAX, Case::Any);
        if !typed.is_empty() {
            return typed;
        }
        let host = uname();
        let host = host.nodename().to_string_lossy();
        let letters = host.chars().map(|letter| if Case::Any.has(letter) { letter } else { '-' });
        let name: String = letters.take(NODE_NAME_MAX).collect();
        if name.is_empty() { "node".to_owned() } else { name }
    }

    fn viewer_url(&mut self) -> String {
        let allowed = format!("a URL with ws:// or wss://, at most {VIEWER_URL_MAX} letters");
        let typed = self.text("cluster.viewer_url", &allowed);
        let entry = self.entry("cluster.viewer_url");
        if !typed.is_empty() && (typed.len() > VIEWER_URL_MAX || !is_url(typed, &["ws", "wss"])) {
            self.refuse(entry, "cluster.viewer_url", allowed, &[]);
        }
        typed.to_owned()
    }

    fn file(&mut self, key: &str) -> Option<PathBuf> {
        const ALLOWED: &str = "a file, or \"\" for none";
        let typed = self.text(key, ALLOWED);
        if typed.is_empty() {
            return None;
        }
        let entry = self.entry(key);
        let path = entry.source.path(typed);
        if !path.is_file() {
            let wrong = format!("{} is no file", shown(&entry.value));
            self.mistaken(&entry.source, key, wrong, ALLOWED);
        }
        Some(path)
    }

    /// Adds a mistake for servers off loopback that everybody on the way may read, or write to.
    fn servers_guarded(&mut self, cluster: &ClusterConfig) {
        if cluster.is_local() || cluster.insecure {
            return;
        }
        let source = &self.entry("cluster.nats").source;
        let far = cluster.servers.iter().filter(|server| !is_loopback(server));
        for server in far.filter(|server| !server.starts_with("tls://")) {
            let wrong = format!("{server} is not loopback, and has no TLS");
            self.mistaken(source, "cluster.nats", wrong, "tls://, a loopback address, or cluster.insecure");
        }
        if cluster.credentials.is_none() {
            let allowed = "cluster.credentials, loopback addresses, or cluster.insecure";
            self.mistaken(source, "cluster.nats", "needs credentials off loopback", allowed);
        }
    }

    /// Adds a mistake for a store that the node would not use: its owner may believe that the messages are there.
    fn no_other_store(&mut self) {
        let cluster = &self.entry("cluster.nats").source;
        for key in ["store.data_dir", "store.ephemeral"] {
            let entry = self.entry(key);
            // A printed configuration says `ephemeral = false`.
            if entry.source.layer() > 0 && entry.value.as_bool() != Some(false) {
                let wrong =
                    format!("stands beside cluster.nats ({cluster}), with which JetStream is the store");
                self.mistaken(&entry.source, key, wrong, "one of them");
            }
        }
    }
}

/// The letters of a name.
#[derive(Debug, Clone, Copy)]
enum Case {
    Small,
    Any,
}

impl Case {
    fn has(self, letter: char) -> bool {
        let is_letter = match self {
            Self::Small => letter.is_ascii_lowercase(),
            Self::Any => letter.is_ascii_alphabetic(),
        };
        is_letter || letter.is_ascii_digit() || matches!(letter, '-' | '_')
    }

    fn letters(self) -> &'static str {
        match self {
            Self::Small => "small letters",
            Self::Any => "letters",
        }
    }
}

/// True for a URL of one of these schemes with a host, and without a user.
fn is_url(typed: &str, schemes: &[&str]) -> bool {
    typed.parse::<Uri>().is_ok_and(|uri| {
        let is_known = uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
        let host = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        is_known && host.is_some_and(|host| !host.host().is_empty())
    })
}

/// True for a server on this machine.
fn is_loopback(server: &str) -> bool {
    let Ok(uri) = server.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}
