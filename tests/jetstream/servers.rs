//! Real NATS servers on loopback, each with a configuration file and a folder of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use async_nats::jetstream::{self, Context};

use super::print;
use super::support::{Folder, until};

/// The account of operators, as a node on loopback asks for it.
const SYSTEM_ACCOUNT: &str = "accounts { $SYS { users: [{ user: sys, password: sys }] } }";

/// A nats-server of this machine. `None`: there is none, and the caller's test has not run.
pub(crate) fn program(test: &str) -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/nats/bin/nats-server");
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let found = named.or_else(|| installed.is_file().then_some(installed));
    if found.is_none() {
        print(&format!("skipped: TJ {test}: NOT RUN: no nats-server; bash scripts/nats.sh installs one"));
    }
    found
}

/// The settings of the servers of a test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) count: usize,
    /// The servers sync before they acknowledge.
    pub(crate) syncs: bool,
    /// The system account has a user.
    pub(crate) has_system_user: bool,
}

/// One server that syncs, with a user of the system account.
pub(crate) const ONE: Setting = Setting { count: 1, syncs: true, has_system_user: true };
/// Three such servers.
pub(crate) const THREE: Setting = Setting { count: 3, ..ONE };

/// Running servers, killed on drop.
#[derive(Debug)]
pub(crate) struct Servers {
    program: PathBuf,
    folder: Folder,
    ports: Vec<u16>,
    running: Vec<Option<Child>>,
}

impl Servers {
    /// Starts servers, and waits until JetStream answers. `None`: this machine has no nats-server.
    pub(crate) async fn start(test: &str, setting: Setting) -> Option<Self> {
        let program = program(test)?;
        let folder = Folder::new();
        let ports = free_ports(2 * setting.count);
        let (clients, routes) = ports.split_at(setting.count);
        for (number, client) in clients.iter().enumerate() {
            let store = folder.path().join(format!("n{number}"));
            let sync = if setting.syncs { "always" } else { "2m" };
            let mut text = format!(
                "server_name: n{number}\nlisten: \"127.0.0.1:{client}\"\nmax_payload: 1MB\n\
                 jetstream {{ store_dir: \"{}\", max_file_store: 100GB, sync_interval: {sync} }}\n",
                store.display()
            );
            if setting.has_system_user {
                text += SYSTEM_ACCOUNT;
            }
            if setting.count > 1 {
                let others: Vec<String> =
                    routes.iter().map(|route| format!("\"nats://127.0.0.1:{route}\"")).collect();
                let route = routes[number];
                let others = others.join(", ");
                text +=
                    &format!("\ncluster {{ name: c, listen: \"127.0.0.1:{route}\", routes: [{others}] }}\n");
            }
            std::fs::write(folder.path().join(format!("n{number}.conf")), text).unwrap();
        }
        let running = (0..setting.count).map(|_| None).collect();
        let mut servers = Self { program, folder, ports: clients.to_vec(), running };
        (0..setting.count).for_each(|number| servers.run(number));
        servers.ready().await;
        Some(servers)
    }

    /// Starts a server again.
    pub(crate) fn run(&mut self, number: usize) {
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.folder.path().join(format!("n{number}.conf")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running[number] = Some(child.unwrap());
    }

    /// Ends a server as a crash of its process would.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.running[number].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The number of the server that leads a stream.
    pub(crate) async fn leader(&self, stream: &str) -> usize {
        let jetstream = self.jetstream().await;
        let named = until("the leader of the stream", async || {
            let stream = jetstream.get_stream(stream).await.ok()?;
            stream.cached_info().cluster.as_ref()?.leader.clone()
        });
        named.await.trim_start_matches('n').parse().unwrap()
    }

    /// The URLs of the servers, as a list in TOML.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> =
            self.ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        format!("[{}]", urls.join(", "))
    }

    /// A client of the streams.
    pub(crate) async fn jetstream(&self) -> Context {
        let servers: Vec<async_nats::ServerAddr> =
            self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}").parse().unwrap()).collect();
        let client =
            until("a NATS server", async || Box::pin(async_nats::connect(servers.clone())).await.ok()).await;
        jetstream::new(client)
    }

    /// Waits until the servers make streams.
    async fn ready(&self) {
        let jetstream = self.jetstream().await;
        until("JetStream", async || jetstream.query_account().await.ok()).await;
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.running.len()).for_each(|number| self.kill(number));
    }
}

/// Free ports. Routes between servers are in their configuration, so port 0 would not do.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
