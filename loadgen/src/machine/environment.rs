//! The generator's machine, for the comparison of two reports.

use std::collections::BTreeMap;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// Kernel settings that matter to many connections.
const SYSCTLS: [&str; 10] = [
    "fs.file-max",
    "fs.nr_open",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
    "vm.max_map_count",
];

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    /// Processors open to this process.
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
    /// Hard limit on descriptors of a process; 0 where unknown.
    #[serde(default)]
    pub(crate) descriptors_max: u64,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) loadgen: String,
}

impl Environment {
    /// Unknown fields are empty or 0.
    pub(crate) fn read() -> Self {
        let sysctls = SYSCTLS.iter().filter_map(|name| Some(((*name).to_owned(), sysctl(name)?)));
        Self {
            kernel: sysctl("kernel.osrelease").unwrap_or_default(),
            processor: processor_name(&file("/proc/cpuinfo")),
            processors: processors(),
            memory_bytes: memory_bytes(&file("/proc/meminfo"), "MemTotal"),
            descriptors_max: descriptors_max(),
            sysctls: sysctls.collect(),
            loadgen: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A kernel setting, with words separated by one space; `None` where unknown to this kernel.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A row of `/proc/meminfo` or `/proc/self/status`, in bytes; 0 for a missing row.
pub(crate) fn memory_bytes(rows: &str, row: &str) -> u64 {
    let mut rows = rows.lines().filter_map(|line| line.split_once(':'));
    let kib = rows.find(|(name, _)| *name == row).and_then(|(_, value)| value.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1_024)
}

/// The whole of a small kernel file; empty where unreadable.
pub(crate) fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

pub(crate) fn descriptors_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard)
}

fn processors() -> usize {
    let mine = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|processor| mine.is_set(*processor) == Ok(true)).count()
}

/// x86 has "model name"; other processors have a similar row, or none.
fn processor_name(cpuinfo: &str) -> String {
    let rows = || cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let named = |wanted: &str| rows().find(|(name, _)| name.trim() == wanted);
    let found = named("model name").or_else(|| named("Model")).or_else(|| named("CPU part"));
    found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

pub(crate) fn page_bytes() -> u64 {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4_096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_whole_name() {
        let meminfo = "MemTotal:       32881000 kB\nMemFree:         100 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(memory_bytes(meminfo, "MemAvailable"), 2 << 20);
        assert_eq!((memory_bytes(meminfo, "Mem"), memory_bytes("", "MemTotal")), (0, 0));
        let status = "Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!((memory_bytes(status, "VmHWM"), memory_bytes("Name:\tx\n", "VmHWM")), (2 << 20, 0));
        let cpuinfo =
            "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A Processor @ 2 GHz\nmodel name\t: another\n";
        assert_eq!(processor_name(cpuinfo), "A Processor @ 2 GHz");
        assert_eq!(processor_name("nothing"), "");
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let here = Environment::read();
        assert!(!here.kernel.is_empty() && here.processors > 0 && here.memory_bytes > 0, "{here:?}");
        assert!(here.sysctls.contains_key("net.core.somaxconn") && here.descriptors_max > 0, "{here:?}");
        assert_eq!(sysctl("no.such.setting"), None);
    }
}
