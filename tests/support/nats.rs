//! Real nats-servers on loopback: one, or several that make up a cluster, with JetStream and a folder of their own.
//!
//! Tests, the unit tests of the cluster's thread and a bench include this file by its path, so it uses only std.
//! Each waits for ready servers in its own way.
#![allow(dead_code, reason = "each user needs a part of it")]
#![allow(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// The settings of servers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NatsSetting {
    pub(crate) count: usize,
    /// The servers sync before they acknowledge.
    pub(crate) syncs: bool,
    /// The system account has the user that a node asks for on loopback.
    pub(crate) has_system_user: bool,
}

impl NatsSetting {
    /// One server that syncs, with a user of the system account.
    pub(crate) const ONE: Self = Self { count: 1, syncs: true, has_system_user: true };
    /// Three such servers.
    pub(crate) const THREE: Self = Self { count: 3, ..Self::ONE };
}

/// A network namespace, and its address.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
}

impl Namespace {
    /// A command in the namespace, or in that of the test. The process of the command becomes that of the program.
    pub(crate) fn command(place: Option<&Self>, program: impl AsRef<OsStr>) -> Command {
        let Some(Self { name, .. }) = place else { return Command::new(program) };
        // `ip netns exec` would take all mounts along into a namespace of mounts, and keep them mounted there.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{name}")).arg(program);
        command
    }
}

/// The place of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct NatsPlace {
    /// `None`: loopback.
    pub(crate) namespace: Option<Namespace>,
    /// The folder of its streams. `None`: one of temporary files.
    pub(crate) store: Option<PathBuf>,
}

/// The nkey of a user of the system account, for nodes off loopback. A secret of nobody: its servers live in tests.
const SYSTEM_SEED: &str = "SUAHE33PNVRWC43UEB2GK43UOM5CA3TPEBZWKY3SMV2CAYLUEBQWY3H7VE";
const SYSTEM_KEY: &str = "UCTL7NQVBBLYSH7XLJNBC5TBF2ESWHRS5XI6GMSJRDBMIT5ZKBMHVQKQ";

/// The ports of a server in a namespace of its own: for clients, for routes, for the monitor.
const PORTS: [u16; 3] = [4222, 6222, 8222];

/// NATS servers, killed on drop.
#[derive(Debug)]
pub(crate) struct NatsServers {
    program: PathBuf,
    folder: PathBuf,
    setting: NatsSetting,
    servers: Vec<NatsServer>,
}

#[derive(Debug)]
struct NatsServer {
    place: NatsPlace,
    clients: SocketAddr,
    routes: SocketAddr,
    monitor: SocketAddr,
    /// `None`: killed.
    child: Option<Child>,
}

impl NatsServers {
    /// Starts servers. `None`, and a line on stderr: this machine has no nats-server, and the caller has not run.
    pub(crate) fn spawn(caller: &str, setting: NatsSetting) -> Option<Self> {
        Self::spawn_at(caller, setting, vec![NatsPlace::default(); setting.count])
    }

    /// As [`NatsServers::spawn`], each server at a place.
    pub(crate) fn spawn_at(caller: &str, setting: NatsSetting, places: Vec<NatsPlace>) -> Option<Self> {
        let Some(program) = nats_server() else {
            let line =
                format!("skipped: {caller}: NOT RUN: no nats-server; bash scripts/nats.sh installs one");
            writeln!(io::stderr(), "{line}").ok();
            return None;
        };
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("roomcast-nats-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Routes between servers are in their configuration, so port 0 would not do. Bound all at once, so that no
        // two servers get the same port. At an address of their own, since nobody else may take the port of a server
        // that is down: a node that connects again and again may even meet itself there.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, high | 1, low, u8::try_from(number % 250).unwrap() + 2);
        let bound: Vec<TcpListener> =
            (0..3 * setting.count).map(|_| TcpListener::bind((address, 0)).unwrap()).collect();
        let ports: Vec<SocketAddr> = bound.iter().map(|port| port.local_addr().unwrap()).collect();
        drop(bound);
        let server = |(place, ports): (NatsPlace, &[SocketAddr])| {
            let at = |port: usize| match &place.namespace {
                Some(namespace) => SocketAddr::from((namespace.address, PORTS[port])),
                None => ports[port],
            };
            NatsServer { clients: at(0), routes: at(1), monitor: at(2), place, child: None }
        };
        let made = places.into_iter().zip(ports.chunks(3)).map(server).collect();
        fs::write(folder.join("system.nk"), SYSTEM_SEED).unwrap();
        let mut servers = Self { program, folder, setting, servers: made };
        (0..setting.count).for_each(|server| servers.start_one(server));
        Some(servers)
    }

    /// Starts a server that does not run, with what it has on disk.
    pub(crate) fn start_one(&mut self, server: usize) {
        let config = self.folder.join(format!("n{server}.conf"));
        fs::write(&config, self.config(server)).unwrap();
        let log = File::options().create(true).append(true).open(config.with_extension("log")).unwrap();
        let mut command = Namespace::command(self.servers[server].place.namespace.as_ref(), &self.program);
        command.arg("--config").arg(config).stdout(Stdio::null()).stderr(log);
        self.servers[server].child = Some(command.spawn().unwrap());
    }

    /// The configuration of a server, as docs/cluster.md asks for it.
    fn config(&self, server: usize) -> String {
        let NatsServer { place, clients, routes, monitor, .. } = &self.servers[server];
        let folder = place.store.clone().unwrap_or_else(|| self.folder.join(format!("n{server}")));
        let sync = if self.setting.syncs { "always" } else { "2m" };
        let mut text = format!(
            "server_name: n{server}\n\
             listen: \"{clients}\"\n\
             http: \"{monitor}\"\n\
             max_pending: 64MB\n\
             no_fast_producer_stall: true\n\
             jetstream {{ store_dir: \"{}\", max_file_store: 100GB, sync_interval: {sync} }}\n",
            folder.display()
        );
        if self.setting.has_system_user {
            let users = format!("{{ user: sys, password: sys }}, {{ nkey: {SYSTEM_KEY} }}");
            text += &format!("accounts {{ $SYS {{ users: [{users}] }} }}\n");
        }
        // A lone server that is told of a cluster waits for the others for ever.
        if self.servers.len() > 1 {
            let others: Vec<String> =
                self.servers.iter().map(|server| format!("\"nats://{}\"", server.routes)).collect();
            let others = others.join(", ");
            text += &format!("cluster {{ name: test, listen: \"{routes}\", routes: [{others}] }}\n");
        }
        text
    }

    /// Ends a server as a crash of its process would.
    pub(crate) fn kill(&mut self, server: usize) {
        if let Some(mut child) = self.servers[server].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The file with the key of the system account's user.
    pub(crate) fn system_credentials(&self) -> PathBuf {
        self.folder.join("system.nk")
    }

    /// The processes that run.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Child> {
        self.servers.iter().filter_map(|server| server.child.as_ref())
    }

    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    /// The addresses of the servers for clients.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.clients).collect()
    }

    /// The URLs of the servers for clients.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.clients().iter().map(|client| format!("nats://{client}")).collect()
    }

    /// The URLs as the value of `cluster.nats`.
    pub(crate) fn toml(&self) -> String {
        let urls: Vec<String> = self.urls().iter().map(|url| format!("\"{url}\"")).collect();
        format!("[{}]", urls.join(", "))
    }

    /// The address at which a server tells of itself over HTTP.
    pub(crate) fn monitor(&self, server: usize) -> SocketAddr {
        self.servers[server].monitor
    }

    /// True if all servers take clients.
    pub(crate) fn are_open(&self) -> bool {
        self.servers.iter().all(|server| TcpStream::connect(server.clients).is_ok())
    }
}

impl Drop for NatsServers {
    fn drop(&mut self) {
        (0..self.servers.len()).for_each(|server| self.kill(server));
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// A nats-server of this machine: the one that is named, or the one that `scripts/nats.sh` installs.
fn nats_server() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/nats/bin/nats-server");
    named.or_else(|| installed.is_file().then_some(installed))
}
