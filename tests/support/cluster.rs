//! Several nodes in processes of their own over real nats-servers, on free ports.
//!
//! Without a nats-server on this machine there is no cluster, and the test that wants one says so.

use std::io::{Write as _, stderr};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::cut::Way;
use super::nats::{Namespace, NatsPlace, NatsServers, NatsSetting};
use super::netns::Net;
use super::{Door, Doors, Process, until};

/// Rooms whose homes are asked for, so many that they lie in most slots of a node.
const ROOMS_ASKED: usize = 64;
/// The build under test.
const BINARY: &str = env!("CARGO_BIN_EXE_roomcast");
/// Shards of each node.
const SHARDS: usize = 2;

/// A free port on loopback.
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The ports of a node in a namespace of its own: viewer, publisher, ops.
const PORTS: [u16; 3] = [7600, 7601, 7602];

/// Nodes over NATS servers.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: NatsServers,
    /// `None`: killed.
    nodes: Vec<Option<Process>>,
    /// The doors of each node, which a node that starts again has as before.
    pub(crate) doors: Vec<Doors>,
    /// The ways of the nodes to the only server, if the test cuts them.
    pub(crate) ways: Vec<Way>,
    /// The namespaces of the nodes and behind them those of the servers. `None`: all are on loopback.
    pub(crate) net: Option<Net>,
    settings: Settings,
}

/// The start of a node.
#[derive(Debug, Clone, Copy)]
struct NodeStart<'a> {
    /// The build.
    binary: &'a Path,
    number: usize,
    /// `None`: on free ports.
    on: Option<Doors>,
    /// The value of `cluster.nats`.
    nats: &'a str,
    settings: Settings,
    /// `None`: on this machine's network.
    place: Option<&'a Namespace>,
}

impl<'a> NodeStart<'a> {
    fn of(number: usize, nats: &'a str) -> Self {
        Self { binary: Path::new(BINARY), number, on: None, nats, settings: &[], place: None }
    }
}

/// Variables of the environment of each node.
type Settings = &'static [(&'static str, &'static str)];

impl Cluster {
    /// Starts all at once, and waits until each node knows the homes of rooms. `None`, and a line on stderr: this
    /// machine has no nats-server.
    pub(crate) async fn start(test: &str, servers: usize, nodes: usize) -> Option<Self> {
        Box::pin(Self::start_with(test, servers, nodes, &[])).await
    }

    /// As [`Cluster::start`], with settings of all nodes.
    pub(crate) async fn start_with(
        test: &str,
        servers: usize,
        nodes: usize,
        settings: Settings,
    ) -> Option<Self> {
        let servers = NatsServers::start(test, servers).await?;
        Some(Box::pin(Self::on(servers, nodes, settings, None)).await)
    }

    /// As [`Cluster::start`], on these servers.
    pub(crate) async fn on(servers: NatsServers, nodes: usize, settings: Settings, net: Option<Net>) -> Self {
        let nats = servers.toml();
        let place = |node: usize| net.as_ref().map(|net| &net.hosts[node]);
        let starting = (0..nodes).map(|node| {
            let start = NodeStart { settings, place: place(node), ..NodeStart::of(node, &nats) };
            servers.node(start)
        });
        let nodes: Vec<Process> = join_all(starting).await;
        Self { settings, net, ..Box::pin(Self::of(servers, nodes, Vec::new())).await }
    }

    /// As [`Cluster::start`], each node and each server in a network namespace of its own. `None`, and a line on
    /// stderr: this machine has none, or no nats-server.
    pub(crate) async fn start_apart(test: &str, servers: usize, nodes: usize) -> Option<Self> {
        let net = match Net::new(nodes + servers) {
            Ok(net) => net,
            Err(why) => {
                writeln!(stderr(), "skipped: {test}: NOT RUN: {why}").ok();
                return None;
            }
        };
        let place = |host: &Namespace| NatsPlace { namespace: Some(host.clone()), store: None };
        let places = net.hosts[nodes..].iter().map(place).collect();
        let setting = NatsSetting { count: servers, ..NatsSetting::ONE };
        let servers = NatsServers::start_at(test, setting, places).await?;
        Some(Box::pin(Self::on(servers, nodes, &[], Some(net))).await)
    }

    /// As [`Cluster::start`], with one server, and a way of its own from each node to it.
    pub(crate) async fn start_on_ways(test: &str, nodes: usize) -> Option<Self> {
        let servers = NatsServers::start(test, 1).await?;
        let ways = join_all((0..nodes).map(|_| Way::to(servers.clients()[0]))).await;
        let urls: Vec<String> = ways.iter().map(|way| format!("[\"nats://{}\"]", way.address)).collect();
        let starting = urls.iter().enumerate().map(|(node, nats)| servers.node(NodeStart::of(node, nats)));
        let nodes: Vec<Process> = join_all(starting).await;
        Some(Box::pin(Self::of(servers, nodes, ways)).await)
    }

    async fn of(servers: NatsServers, nodes: Vec<Process>, ways: Vec<Way>) -> Self {
        let doors = nodes.iter().map(|node| node.doors).collect();
        let nodes = nodes.into_iter().map(Some).collect();
        let cluster = Self { servers, nodes, doors, ways, net: None, settings: &[] };
        cluster.is_whole().await;
        cluster
    }

    /// Waits until each living node is ready, and knows the homes of many rooms.
    pub(crate) async fn is_whole(&self) {
        for (node, doors) in self.nodes.iter().zip(&self.doors) {
            if node.is_none() {
                continue;
            }
            let is_ready = async || (doors.ops_door().get("/readyz").await.status == 200).then_some(());
            until("a ready node", is_ready).await;
            for room in 0..ROOMS_ASKED {
                until("a home", async || self.named(doors, &format!("room-{room}")).await).await;
            }
        }
    }

    /// The number of the first node of a room's route, as these doors tell it.
    async fn named(&self, doors: &Doors, room: &str) -> Option<usize> {
        let answer =
            doors.viewer_door().try_request("GET", &format!("/v1/route?room={room}"), &[], b"").await?;
        let route = (answer.status == 200).then(|| answer.json())?;
        let url = route["nodes"][0]["url"].as_str()?.to_owned();
        self.doors.iter().position(|doors| url == format!("ws://{}", doors.viewer))
    }

    /// Ends a node as a crash would.
    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].take() {
            process.kill();
        }
    }

    /// Sends a signal to a living node.
    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        self.process(node).signal(signal);
    }

    /// The process of a living node.
    pub(crate) fn process(&self, node: usize) -> &Process {
        self.nodes[node].as_ref().expect("a living node")
    }

    /// Has a node drain, and waits for its end.
    pub(crate) async fn drain(&mut self, node: usize) {
        let mut process = self.nodes[node].take().expect("a living node");
        process.signal(Signal::TERM);
        assert_eq!(process.exit_code().await, Some(0), "node {node}");
    }

    /// Starts a node that has ended again, on its doors.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.restart_as(Path::new(BINARY), node).await;
    }

    /// As [`Cluster::restart`], from another build.
    pub(crate) async fn restart_as(&mut self, binary: &Path, node: usize) {
        assert!(self.nodes[node].is_none(), "node {node} lives");
        self.nodes[node] = Some(self.again(binary, node).await);
    }

    /// Kills all nodes and starts them again: all that they know then comes from the log.
    pub(crate) async fn renew(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.kill(node));
        let nodes = join_all((0..self.nodes.len()).map(|node| self.again(Path::new(BINARY), node))).await;
        self.nodes = nodes.into_iter().map(Some).collect();
        self.is_whole().await;
    }

    /// Starts a node on the doors that it had.
    async fn again(&self, binary: &Path, node: usize) -> Process {
        let nats = self.servers.toml();
        let start = NodeStart {
            binary,
            on: Some(self.doors[node]),
            settings: self.settings,
            place: self.net.as_ref().map(|net| &net.hosts[node]),
            ..NodeStart::of(node, &nats)
        };
        self.servers.node(start).await
    }

    /// The number of the node that orders a room, by the route that the node `at` tells.
    pub(crate) async fn home(&self, at: usize, room: &str) -> usize {
        until("a route", async || self.named(&self.doors[at], room).await).await
    }

    /// A room, of names that begin with `name`, that the node `home` orders.
    pub(crate) async fn room_at(&self, home: usize, name: &str) -> String {
        // A node that has begun again may have no slot, and then no name would do.
        for number in 0..500 {
            let room = format!("{name}-{number}");
            if self.home(home, &room).await == home {
                return room;
            }
        }
        panic!("node {home} orders no room of 500")
    }

    /// A node with a slot of its own.
    pub(crate) async fn any_home(&self, name: &str) -> usize {
        let living = self.nodes.iter().position(Option::is_some).expect("a living node");
        self.home(living, name).await
    }

    /// The numbers of all nodes but one.
    pub(crate) fn others(&self, node: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != node).collect()
    }
}

impl NatsServers {
    /// Starts servers that make up one cluster, and waits until JetStream has a leader.
    async fn start(test: &str, count: usize) -> Option<Self> {
        let setting = NatsSetting { count, ..NatsSetting::ONE };
        Self::start_at(test, setting, vec![NatsPlace::default(); count]).await
    }

    /// As [`NatsServers::start`], each server at a place.
    pub(crate) async fn start_at(test: &str, setting: NatsSetting, places: Vec<NatsPlace>) -> Option<Self> {
        let servers = Self::spawn_at(test, setting, places)?;
        for server in 0..servers.count() {
            servers.is_healthy(server).await;
        }
        Some(servers)
    }

    /// Waits until a server's part of JetStream is up to date.
    pub(crate) async fn is_healthy(&self, server: usize) {
        let monitor = Door(self.monitor(server));
        until("a healthy nats-server", async || {
            let answer = monitor.try_request("GET", "/healthz", &[], b"").await?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// The server that leads JetStream.
    pub(crate) async fn leader(&self) -> usize {
        until("a leader", async || {
            let answer = Door(self.monitor(0)).try_request("GET", "/jsz", &[], b"").await?;
            let leader = answer.json()["meta_cluster"]["leader"].as_str()?.to_owned();
            (0..self.count()).find(|server| leader == format!("n{server}"))
        })
        .await
    }

    /// Stops or continues all servers.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for child in self.children() {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    /// Starts a node of the cluster.
    async fn node(&self, start: NodeStart<'_>) -> Process {
        let NodeStart { binary, number, on, nats, settings, place } = start;
        let on = on.unwrap_or_else(|| match place {
            Some(place) => {
                let [viewer, publisher, ops] = PORTS.map(|port| SocketAddr::from((place.address, port)));
                Doors { viewer, publisher, ops }
            }
            None => Doors { viewer: FREE, publisher: FREE, ops: FREE },
        });
        let mut command = Namespace::command(place, binary);
        command
            .args([
                "--viewer-listen",
                &on.viewer.to_string(),
                "--publisher-listen",
                &on.publisher.to_string(),
            ])
            .args(["--ops-listen", &on.ops.to_string(), "--shards", &SHARDS.to_string()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(settings.iter().copied())
            .env("ROOMCAST__CLUSTER__NATS", nats)
            .env("ROOMCAST__CLUSTER__NODE", format!("node-{number}"))
            .env("ROOMCAST__CLUSTER__REPLICAS", self.count().min(3).to_string());
        if place.is_some() {
            command
                .args(["--insecure", "--insecure-nats"])
                .env("ROOMCAST__CLUSTER__SYSTEM_CREDENTIALS", self.system_credentials())
                .env("ROOMCAST__CLUSTER__VIEWER_URL", format!("ws://{}", on.viewer));
        }
        Process::as_typed(command).await
    }
}

/// The epoch and the run that a welcome names.
pub(crate) fn life(welcome: &Value) -> (String, String) {
    let text = |name: &str| welcome[name].as_str().unwrap_or_default().to_owned();
    (text("epoch"), text("run"))
}
