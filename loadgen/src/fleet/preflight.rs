//! Before a run: the limits of this machine in the run's way, and the commands to lift these limits.
//!
//! Need and machine are plain numbers, and their comparison is pure. Only this machine's devices count:
//! workers elsewhere meet the limits of their own machines.

use std::fmt;
use std::io::Write as _;

use crate::devices::assignment::DEVICES_PER_SOURCE;
use crate::error::RunError;
use crate::fleet::processes::{HANDSHAKES_MAX, WORKERS_MAX};
use crate::machine::descriptors::{DESCRIPTORS_KEPT, DEVICES_PER_PROCESS_MAX};
use crate::machine::environment::{descriptors_max, file, memory_bytes, page_bytes, sysctl};
use crate::scenario::plan::Plan;

/// Most memory of a device in its worker.
const DEVICE_BYTES: u64 = 1_024;
/// Kernel memory of one end of an idle connection, from the kernel's caches (docs/benchmarks.md).
const SOCKET_BYTES: u64 = 4_768;
/// Memory of a connection in a node on this machine: some 700 bytes (docs/benchmarks.md), plus waiting
/// frames.
const CONNECTION_BYTES: u64 = 1_024;

/// The run's need of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineNeed {
    devices: u64,
    workers_min: u64,
    /// Source addresses towards a node on another machine. `None`: the node is on this machine, both ends of each
    /// connection are here, and every worker has loopback addresses of its own.
    sources: Option<u64>,
}

/// The limits of this machine. 0 or `None`: unknown, and no obstacle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Per process.
    descriptors_max: u64,
    /// Ephemeral ports for each pair of addresses.
    ports: u64,
    /// Longest accept queue.
    backlog_max: u64,
    files_max: u64,
    files_open: u64,
    memory_available_bytes: u64,
    /// Memory of all sockets past which the kernel shrinks buffers.
    tcp_pressure_bytes: u64,
    page_bytes: u64,
    /// Connections in the firewall's table; `None` without a firewall.
    tracked: Option<Tracked>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tracked {
    max: u64,
    count: u64,
}

/// One limit in the way of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) weight: Weight,
    /// The scarce resource.
    limit: &'static str,
    devices: u64,
    needed: u64,
    /// 0: unknown, and no obstacle.
    allowed: u64,
    /// Both are shown in units of this size.
    unit: u64,
    /// The remedy: a shell command or a flag.
    lift: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// The run is impossible.
    Stops,
    /// The run is possible, with worse figures.
    Slows,
}

/// Checks the run's need. Obstacles that slow the run are printed on stderr, one line each.
///
/// # Errors
/// [`RunError::Usage`] with all obstacles that stop the run, and their remedies.
pub(crate) fn look(plan: &Plan) -> Result<(), RunError> {
    let Some(need) = MachineNeed::of(plan) else { return Ok(()) };
    let (stopping, slowing): (Vec<Obstacle>, Vec<Obstacle>) =
        obstacles(&need, &Machine::read()).into_iter().partition(|obstacle| obstacle.weight == Weight::Stops);
    for obstacle in slowing {
        drop(writeln!(std::io::stderr(), "roomcast-loadgen: {obstacle}"));
    }
    if stopping.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = stopping.iter().map(ToString::to_string).collect();
    Err(RunError::Usage(lines.join("; ")))
}

pub(crate) fn obstacles(need: &MachineNeed, machine: &Machine) -> Vec<Obstacle> {
    let each = [processes, descriptors, ports, files, memory, tracking, tcp_memory, backlog];
    let limits = each.iter().map(|limit| limit(need, machine));
    limits.filter(|limit| limit.allowed > 0 && limit.needed > limit.allowed).collect()
}

impl MachineNeed {
    /// `None` when all devices are elsewhere.
    fn of(plan: &Plan) -> Option<Self> {
        let target = &plan.target;
        let sources = (!target.is_loopback()).then_some((target.sources.len() as u64).max(1));
        let workers_min = u64::from(target.workers);
        target.remote_workers.is_empty().then_some(Self {
            devices: plan.devices.into(),
            workers_min,
            sources,
        })
    }

    /// Ends of connections on this machine for each device.
    fn ends(&self) -> u64 {
        if self.sources.is_none() { 2 } else { 1 }
    }

    fn stops(&self, limit: &'static str, needed: u64, allowed: u64, lift: String) -> Obstacle {
        Obstacle { weight: Weight::Stops, limit, devices: self.devices, needed, allowed, unit: 1, lift }
    }
}

fn capacity(machine: &Machine) -> u64 {
    let allowed = machine.descriptors_max.saturating_sub(DESCRIPTORS_KEPT);
    allowed.clamp(1, u64::from(DEVICES_PER_PROCESS_MAX))
}

fn processes(need: &MachineNeed, _: &Machine) -> Obstacle {
    let most = u64::from(WORKERS_MAX) * u64::from(DEVICES_PER_PROCESS_MAX);
    let lift = "workers on other machines: --worker HOST:PORT".into();
    need.stops("devices on one machine", need.devices, most, lift)
}

fn descriptors(need: &MachineNeed, machine: &Machine) -> Obstacle {
    let most = u64::from(WORKERS_MAX) * u64::from(DEVICES_PER_PROCESS_MAX);
    let needed = need.devices.div_ceil(u64::from(WORKERS_MAX)) + DESCRIPTORS_KEPT;
    let lift = format!("`ulimit -n {needed}`, or nofile in /etc/security/limits.conf");
    // Past `most` no limit on descriptors helps.
    let holds =
        need.devices > most || need.devices <= capacity(machine).saturating_mul(u64::from(WORKERS_MAX));
    let allowed = if holds { 0 } else { machine.descriptors_max };
    need.stops("descriptors in each of 250 processes", needed, allowed, lift)
}

fn ports(need: &MachineNeed, machine: &Machine) -> Obstacle {
    /// Ports from 1 024 to 65 535, less one.
    const WIDEST: u64 = 64_511;
    let workers = need.devices.div_ceil(capacity(machine)).max(need.workers_min).max(1);
    let of_worker = need.devices.div_ceil(workers).div_ceil(DEVICES_PER_SOURCE as u64).max(1);
    let addresses = need.sources.unwrap_or(workers * of_worker);
    let more = if need.sources.is_none() { "more --workers" } else { "another --source ADDRESS" };
    let needed = need.devices.div_ceil(addresses);
    let lift = if needed > WIDEST {
        more.to_owned()
    } else {
        format!("`sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"`, or {more}")
    };
    need.stops("ports of each address that devices come from", needed, machine.ports, lift)
}

fn files(need: &MachineNeed, machine: &Machine) -> Obstacle {
    let needed = machine.files_open + need.devices * need.ends();
    let lift = format!("`sysctl -w fs.file-max={needed}`");
    need.stops("open files of all processes", needed, machine.files_max, lift)
}

fn memory(need: &MachineNeed, machine: &Machine) -> Obstacle {
    let node_bytes = if need.sources.is_none() { CONNECTION_BYTES } else { 0 };
    let needed = need.devices * (DEVICE_BYTES + SOCKET_BYTES * need.ends() + node_bytes);
    let lift = "fewer --devices, or workers on other machines: --worker HOST:PORT".into();
    let limit = need.stops("MiB of memory, at the least", needed, machine.memory_available_bytes, lift);
    Obstacle { unit: 1 << 20, ..limit }
}

/// A firewall with an empty table may have no rule for these connections, so an empty table only slows.
fn tracking(need: &MachineNeed, machine: &Machine) -> Obstacle {
    let Tracked { max, count } = machine.tracked.unwrap_or_default();
    let needed = count + need.devices;
    let lift = format!("`sysctl -w net.netfilter.nf_conntrack_max={needed}`");
    let weight = if count > 0 { Weight::Stops } else { Weight::Slows };
    Obstacle { weight, ..need.stops("connections that the firewall tracks", needed, max, lift) }
}

/// Need with one page waiting in each socket; any waiting frame takes at least a page.
fn tcp_memory(need: &MachineNeed, machine: &Machine) -> Obstacle {
    let pages = need.devices * need.ends();
    let lift = format!("`sysctl -w net.ipv4.tcp_mem=\"{pages} {} {}\"`", pages * 4 / 3, pages * 2);
    let limit = "MiB for what waits in sockets, a page in each";
    let slows = need.stops(limit, pages * machine.page_bytes, machine.tcp_pressure_bytes, lift);
    Obstacle { weight: Weight::Slows, unit: 1 << 20, ..slows }
}

fn backlog(need: &MachineNeed, machine: &Machine) -> Obstacle {
    let needed = need.devices.min(u64::from(HANDSHAKES_MAX));
    let lift = format!("`sysctl -w net.core.somaxconn={}` before the node is started", needed.max(4_096));
    // The queue is of the node's machine.
    let allowed = if need.sources.is_none() { machine.backlog_max } else { 0 };
    let limit = "connections that wait to be accepted";
    Obstacle { weight: Weight::Slows, ..need.stops(limit, needed, allowed, lift) }
}

impl Machine {
    fn read() -> Self {
        let number = |name: &str| sysctl(name)?.parse::<u64>().ok();
        let nth = |name: &str, place: usize| sysctl(name)?.split(' ').nth(place)?.parse::<u64>().ok();
        let port = |place| nth("net.ipv4.ip_local_port_range", place);
        let range = port(0).zip(port(1)).and_then(|(low, high)| high.checked_sub(low));
        let tracked = number("net.netfilter.nf_conntrack_max")
            .map(|max| Tracked { max, count: number("net.netfilter.nf_conntrack_count").unwrap_or(0) });
        Self {
            descriptors_max: descriptors_max(),
            ports: range.map_or(0, |between| between + 1),
            backlog_max: number("net.core.somaxconn").unwrap_or(0),
            files_max: number("fs.file-max").unwrap_or(0),
            files_open: nth("fs.file-nr", 0).unwrap_or(0),
            memory_available_bytes: memory_bytes(&file("/proc/meminfo"), "MemAvailable"),
            tcp_pressure_bytes: nth("net.ipv4.tcp_mem", 1).unwrap_or(0).saturating_mul(page_bytes()),
            page_bytes: page_bytes(),
            tracked: tracked.filter(|tracked| tracked.max > 0),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, lift, .. } = self;
        let devices = grouped(self.devices);
        let needed = grouped(self.needed.div_ceil(self.unit));
        let allowed = grouped(self.allowed.div_ceil(self.unit));
        write!(
            f,
            "{limit}: {devices} devices need {needed}, this machine allows {allowed}; lift it by {lift}"
        )
    }
}

/// Groups digits by three: 250 000.
fn grouped(number: u64) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{} {:03}", grouped(number / 1_000), number % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::tests::resolve;

    const WIDE: Machine = Machine {
        descriptors_max: 20_000,
        ports: 28_232,
        backlog_max: 4_096,
        files_max: 10_000_000,
        files_open: 6_000,
        memory_available_bytes: 64 << 30,
        tcp_pressure_bytes: 16 << 30,
        page_bytes: 4_096,
        tracked: Some(Tracked { max: 1_000_000, count: 10 }),
    };

    fn here(devices: u64) -> MachineNeed {
        MachineNeed { devices, workers_min: 1, sources: None }
    }

    fn elsewhere(devices: u64, sources: u64) -> MachineNeed {
        MachineNeed { devices, workers_min: 1, sources: Some(sources) }
    }

    fn only(need: &MachineNeed, machine: &Machine, weight: Weight) -> String {
        let found = obstacles(need, machine);
        let [only] = &*found else { panic!("{found:?}") };
        assert_eq!(only.weight, weight, "{only}");
        only.to_string()
    }

    #[test]
    fn a_machine_that_allows_all_or_says_nothing_is_in_nobodys_way() {
        assert_eq!(obstacles(&here(250_000), &WIDE), []);
        assert_eq!(obstacles(&elsewhere(250_000, 9), &WIDE), []);
        assert_eq!(obstacles(&here(250_000), &Machine { descriptors_max: 20_000, ..Machine::default() }), []);
        assert_eq!(obstacles(&here(0), &WIDE), []);
    }

    #[test]
    fn descriptors_are_counted_over_all_processes() {
        let machine = Machine { descriptors_max: 1_024, ..WIDE };
        assert_eq!(obstacles(&here(224_000), &machine), [], "896 in each of 250");
        let line = only(&here(250_000), &machine, Weight::Stops);
        assert_eq!(
            line,
            "descriptors in each of 250 processes: 250 000 devices need 1 128, this machine allows 1 024; lift it by \
             `ulimit -n 1128`, or nofile in /etc/security/limits.conf"
        );
    }

    #[test]
    fn more_devices_than_all_processes_hold_go_to_other_machines() {
        let vast =
            Machine { memory_available_bytes: 0, files_max: 0, tcp_pressure_bytes: 0, tracked: None, ..WIDE };
        let line = only(&here(5_000_000), &vast, Weight::Stops);
        assert!(line.contains("4 750 000") && line.contains("--worker"), "{line}");
    }

    #[test]
    fn an_address_has_so_many_ports() {
        let line = only(&elsewhere(60_000, 2), &WIDE, Weight::Stops);
        assert!(line.contains("need 30 000, this machine allows 28 232"), "{line}");
        assert!(line.contains("`sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"`"), "{line}");
        assert_eq!(obstacles(&elsewhere(60_000, 3), &WIDE), []);
        let line = only(&elsewhere(70_000, 1), &WIDE, Weight::Stops);
        assert!(line.ends_with("lift it by another --source ADDRESS"), "no range is so wide: {line}");
        assert_eq!(obstacles(&here(19_000), &Machine { ports: 10_000, ..WIDE }), []);
        let narrow = Machine { ports: 5_000, ..WIDE };
        assert!(only(&here(19_000), &narrow, Weight::Stops).contains("need 6 334"));
        assert!(only(&here(19_000), &narrow, Weight::Stops).contains("--workers"));
        assert_eq!(obstacles(&MachineNeed { workers_min: 4, ..here(19_000) }, &narrow), []);
    }

    #[test]
    fn on_loopback_both_ends_are_files_and_memory_of_this_machine() {
        let few = Machine { files_max: 150_000, ..WIDE };
        let line = only(&here(100_000), &few, Weight::Stops);
        assert!(line.contains("need 206 000") && line.contains("`sysctl -w fs.file-max=206000`"), "{line}");
        assert_eq!(obstacles(&elsewhere(100_000, 4), &few), []);
        let small = Machine { memory_available_bytes: 1 << 30, ..WIDE };
        assert!(only(&here(100_000), &small, Weight::Stops).contains("MiB of memory"));
        assert_eq!(obstacles(&elsewhere(100_000, 4), &small), []);
    }

    #[test]
    fn a_firewall_that_tracks_connections_stops_them_and_one_that_may_is_named() {
        let full = |count| Machine { tracked: Some(Tracked { max: 65_536, count }), ..WIDE };
        let line = only(&here(100_000), &full(7), Weight::Stops);
        assert!(line.contains("`sysctl -w net.netfilter.nf_conntrack_max=100007`"), "{line}");
        only(&here(100_000), &full(0), Weight::Slows);
        assert_eq!(obstacles(&here(100_000), &Machine { tracked: None, ..WIDE }), []);
    }

    #[test]
    fn little_memory_for_sockets_or_a_short_backlog_slow_a_run() {
        let tight = Machine { tcp_pressure_bytes: 512 << 20, ..WIDE };
        let line = only(&here(100_000), &tight, Weight::Slows);
        assert!(line.contains("need 782, this machine allows 512"), "{line}");
        assert!(line.contains("net.ipv4.tcp_mem=\"200000 266666 400000\""), "{line}");
        let short = Machine { backlog_max: 128, ..WIDE };
        assert!(only(&here(1_000), &short, Weight::Slows).contains("net.core.somaxconn"));
        assert_eq!(obstacles(&here(100), &short), []);
    }

    #[test]
    fn a_run_needs_what_its_flags_say() {
        let need = MachineNeed::of(&resolve("--devices 500 --workers 3").unwrap());
        assert_eq!(need, Some(MachineNeed { devices: 500, workers_min: 3, sources: None }));
        let flags = "--devices 500 --viewer-door ws://192.0.2.1:7600 --source 192.0.2.7 --source 192.0.2.8";
        assert_eq!(MachineNeed::of(&resolve(flags).unwrap()), Some(elsewhere(500, 2)));
        assert_eq!(MachineNeed::of(&resolve("--devices 500 --worker 127.0.0.1:7").unwrap()), None);
    }

    #[test]
    fn this_machine_says_what_it_allows() {
        let machine = Machine::read();
        assert!(machine.descriptors_max > 0 && machine.ports > 0 && machine.backlog_max > 0, "{machine:?}");
        assert!(machine.memory_available_bytes > 0 && machine.files_max > 0, "{machine:?}");
    }
}
