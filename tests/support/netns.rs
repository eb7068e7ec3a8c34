//! Network namespaces of a test. Each has a link of its own to one router, and so has the test. The router can drop
//! what goes from one namespace to another, and a link can be made slow. Needs root, `ip` and `tc` of iproute2, and
//! `nsenter`: a test that goes on without them has to say so.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::nats::Namespace;

/// Nets on one machine at a time. Each has 256 of the addresses that are set aside for benchmarks (RFC 2544).
const NETS_MAX: u8 = 255;

/// The rate of a slow link, as `tc` spells it.
const SLOW: &str = "2mbit";

/// Namespaces around a router, removed on drop. The processes in them must have ended by then.
#[derive(Debug)]
pub(crate) struct Net {
    router: String,
    /// Names the test's own link, which no two nets of a machine share.
    number: u8,
    pub(crate) hosts: Vec<Namespace>,
    /// From a host to a host.
    cuts: BTreeSet<[usize; 2]>,
}

impl Net {
    /// Makes so many namespaces, fewer than 60.
    ///
    /// # Errors
    ///
    /// A sentence that says what is missing here: root, a program, or a free number.
    pub(crate) fn new(hosts: usize) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".into());
        }
        static MADE: AtomicU32 = AtomicU32::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let router = format!("roomcast-{}-{made}", std::process::id());
        for number in 0..NETS_MAX {
            let router = router.clone();
            let mut net = Self { router, number, hosts: Vec::new(), cuts: BTreeSet::new() };
            net.batch(None, &[format!("netns add {}", net.router)])?;
            let link = format!("link add {} type veth peer name test netns {}", net.link(), net.router);
            // The name is taken by a net of another process, or of another test.
            if net.batch(None, &[link]).is_err_and(|why| why.contains("File exists")) {
                net.remove_namespaces();
                continue;
            }
            net.fill(hosts)?;
            return Ok(net);
        }
        Err(format!("{NETS_MAX} nets are in use"))
    }

    /// Gives the router its link to the test, and makes the hosts.
    fn fill(&mut self, hosts: usize) -> Result<(), String> {
        let [router, test] = [self.address(0, 1), self.address(0, 2)];
        let all = self.address(0, 0);
        let link = self.link();
        self.batch(
            Some(&self.router),
            &[
                "link set lo up".into(),
                format!("address add {router}/30 dev test"),
                "link set test up".into(),
            ],
        )?;
        self.batch(
            None,
            &[
                format!("address add {test}/30 dev {link}"),
                format!("link set {link} up"),
                format!("route add {all}/24 via {router}"),
            ],
        )?;
        let mut forward =
            Namespace::command(Some(&Namespace { name: self.router.clone(), address: router }), "sh");
        run(forward.args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]), "")?;
        (0..hosts).try_for_each(|host| self.add(host))
    }

    fn add(&mut self, host: usize) -> Result<(), String> {
        let [router, address] = [self.address(host + 1, 1), self.address(host + 1, 2)];
        let name = format!("{}-{host}", self.router);
        self.hosts.push(Namespace { name: name.clone(), address });
        self.batch(None, &[format!("netns add {name}")])?;
        self.batch(
            Some(&self.router),
            &[
                format!("link add host{host} type veth peer name wire netns {name}"),
                format!("address add {router}/30 dev host{host}"),
                format!("link set host{host} up"),
            ],
        )?;
        self.batch(
            Some(&name),
            &[
                "link set lo up".into(),
                format!("address add {address}/30 dev wire"),
                "link set wire up".into(),
                format!("route add default via {router}"),
            ],
        )
    }

    /// The address of an end of a link: 1 is the router's.
    fn address(&self, link: usize, end: u8) -> Ipv4Addr {
        let link = u8::try_from(link).unwrap();
        Ipv4Addr::new(198, 18, self.number, 4 * link + end)
    }

    fn link(&self) -> String {
        format!("rc-test{}", self.number)
    }

    /// Drops all packets from one host to another, without a word to either.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        if self.cuts.insert([from, to]) {
            self.rule("add", from, to);
        }
    }

    /// Drops all packets between two hosts.
    pub(crate) fn cut_both(&mut self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Ends all cuts.
    pub(crate) fn heal(&mut self) {
        for [from, to] in std::mem::take(&mut self.cuts) {
            self.rule("del", from, to);
        }
    }

    fn rule(&self, verb: &str, from: usize, to: usize) {
        let [from, to] = [from, to].map(|host| self.hosts[host].address);
        self.batch(Some(&self.router), &[format!("rule {verb} from {from} to {to} blackhole")]).unwrap();
    }

    /// Lets a host's link carry no more than [`SLOW`] in either direction.
    pub(crate) fn slow_down(&self, host: usize) {
        for (namespace, link) in self.ends(host) {
            // Packets that the kernel has not cut up yet are larger than the bucket.
            self.batch(Some(&namespace), &[format!("link set {link} gso_max_size 1500")]).unwrap();
            let shape = ["root", "tbf", "rate", SLOW, "burst", "16kb", "latency", "400ms"];
            tc(&namespace, &["qdisc", "add", "dev", &link], &shape).unwrap();
        }
    }

    /// Ends [`Net::slow_down`].
    pub(crate) fn speed_up(&self, host: usize) {
        for (namespace, link) in self.ends(host) {
            tc(&namespace, &["qdisc", "del", "dev", &link], &["root"]).unwrap();
            self.batch(Some(&namespace), &[format!("link set {link} gso_max_size 65536")]).unwrap();
        }
    }

    /// The namespace and the name of either end of a host's link.
    fn ends(&self, host: usize) -> [(String, String); 2] {
        [(self.router.clone(), format!("host{host}")), (self.hosts[host].name.clone(), "wire".to_owned())]
    }

    /// Does these commands of `ip` in a namespace, or in that of the test.
    fn batch(&self, namespace: Option<&str>, commands: &[String]) -> Result<(), String> {
        let mut ip = Command::new("ip");
        if let Some(namespace) = namespace {
            ip.args(["-n", namespace]);
        }
        run(ip.args(["-batch", "-"]), &commands.join("\n"))
    }

    fn remove_namespaces(&self) {
        for name in self.hosts.iter().map(|host| &host.name).chain([&self.router]) {
            self.batch(None, &[format!("netns del {name}")]).ok();
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Both ends of the link go at once, and the test's route with them.
        self.batch(None, &[format!("link del {}", self.link())]).ok();
        self.remove_namespaces();
    }
}

fn tc(namespace: &str, device: &[&str], shape: &[&str]) -> Result<(), String> {
    run(Command::new("tc").args(["-n", namespace]).args(device).args(shape), "")
}

fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("{command:?}: {error}"))?;
    let written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() && written.is_ok() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", input.trim(), String::from_utf8_lossy(&output.stderr).trim()))
}
