//! The nodes second by second: their `/metrics`, and the kernel's socket memory where the nodes are on this
//! machine.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::monotonic_ns;
use crate::figures::ratio;
use crate::figures::timeline::Moment;
use crate::machine::environment::{file, page_bytes};
use crate::scenario::plan::Plan;
use crate::wire::doors::{ANSWER_AGE_MAX, Door};

/// First interval between readings.
const EVERY_MS: u64 = 1_000;
/// Most samples of a run: two hours of seconds. Past this, every second reading is dropped and the interval
/// doubles.
const SAMPLES_MAX: usize = 7_200;
/// The metric of the slots that a node orders.
const SLOTS_HERE: &str = "roomcast_slots{state=\"here\"}";

/// One interval of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// End of the interval, after the first publish; negative before.
    pub(crate) at_ms: i64,
    /// Processors kept busy.
    pub(crate) cpu: f64,
    pub(crate) resident_bytes: u64,
    /// Kernel memory of all TCP sockets of this machine; `None` for a remote node.
    pub(crate) socket_bytes: Option<u64>,
    /// TCP sockets of this machine, both ends; `None` for a remote node.
    pub(crate) sockets: Option<u64>,
    pub(crate) connections: u64,
    /// Messages accepted, a second.
    pub(crate) published_per_s: f64,
    /// Frames sent, a second.
    pub(crate) frames_per_s: f64,
    /// Messages delivered, a second, by due time in quarters of a second. Counted by the devices, not the
    /// node.
    pub(crate) deliveries_per_s: f64,
    /// The highest ladder step among the shards.
    pub(crate) ladder_step: u64,
}

/// One interval of one node of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeSample {
    /// As `at_ms` of the sample of all nodes.
    pub(crate) at_ms: i64,
    /// Processors kept busy.
    pub(crate) cpu: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) connections: u64,
    /// Messages accepted, a second.
    pub(crate) published_per_s: f64,
    /// Frames sent, a second.
    pub(crate) frames_per_s: f64,
    /// The highest ladder step among the shards.
    pub(crate) ladder_step: u64,
    /// Slots of the cluster that the node orders; `None` for a lone node.
    pub(crate) slots: Option<u64>,
}

/// One node of several.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeFigures {
    pub(crate) name: String,
    /// The operator door.
    pub(crate) door: String,
    /// A node without an answer has no sample, and none for its first reading after.
    pub(crate) samples: Vec<NodeSample>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct NodeReading {
    cpu_us: u64,
    resident_bytes: u64,
    connections: u64,
    accepted: u64,
    frames: u64,
    ladder_step: u64,
    slots: Option<u64>,
}

impl NodeReading {
    /// Sums the shards' and classes' rows; `None` without processor time, which every node has.
    fn of(metrics: &str) -> Option<Self> {
        let mut reading = Self::default();
        let mut has_cpu = false;
        for line in metrics.lines() {
            let Some((metric, value)) = line.rsplit_once(' ') else { continue };
            // Ratios are no whole numbers, and none of them is read here.
            let Ok(value) = value.parse::<u64>() else { continue };
            let sum = match metric.split('{').next().unwrap_or(metric) {
                "roomcast_cpu_microseconds_total" => {
                    has_cpu = true;
                    &mut reading.cpu_us
                }
                "roomcast_resident_bytes" => &mut reading.resident_bytes,
                "roomcast_connections" => &mut reading.connections,
                "roomcast_messages_accepted_total" => &mut reading.accepted,
                "roomcast_frames_total" => &mut reading.frames,
                _ if metric == SLOTS_HERE => {
                    reading.slots = Some(value);
                    continue;
                }
                "roomcast_ladder_step" => {
                    reading.ladder_step = reading.ladder_step.max(value);
                    continue;
                }
                _ => continue,
            };
            *sum = sum.saturating_add(value);
        }
        has_cpu.then_some(reading)
    }

    /// Adds another node's reading; of ladders the highest counts.
    fn add(&mut self, other: &Self) {
        self.cpu_us += other.cpu_us;
        self.resident_bytes += other.resident_bytes;
        self.connections += other.connections;
        self.accepted += other.accepted;
        self.frames += other.frames;
        self.ladder_step = self.ladder_step.max(other.ladder_step);
    }

    /// The counters' growth. A restarted node counts from 0.
    fn grown_since(&self, before: &Self) -> Self {
        // Any counter that fell shows a restart.
        let is_anew =
            self.cpu_us < before.cpu_us || self.accepted < before.accepted || self.frames < before.frames;
        let from = if is_anew { Self::default() } else { *before };
        Self {
            cpu_us: self.cpu_us - from.cpu_us,
            accepted: self.accepted - from.accepted,
            frames: self.frames - from.frames,
            ..*self
        }
    }
}

/// The readings of all nodes as one. A node that is silent for a while, or begins anew, does not make the
/// counters fall.
#[derive(Debug)]
struct NodesReading {
    /// The last reading of each node.
    last: Vec<NodeReading>,
    /// The counters' growth so far.
    grown: NodeReading,
}

impl NodesReading {
    fn of(nodes: usize) -> Self {
        Self { last: vec![NodeReading::default(); nodes], grown: NodeReading::default() }
    }

    /// Adds up the readings of the nodes, in the order of the doors; `None` while no node answers.
    fn sum(&mut self, readings: &[Option<NodeReading>]) -> Option<NodeReading> {
        let mut present = NodeReading::default();
        let mut any = false;
        for (last, reading) in self.last.iter_mut().zip(readings) {
            let Some(reading) = reading else { continue };
            present.add(&reading.grown_since(last));
            *last = *reading;
            any = true;
        }
        let NodeReading { cpu_us, accepted, frames, .. } = present;
        self.grown.add(&NodeReading { cpu_us, accepted, frames, ..NodeReading::default() });
        let NodeReading { cpu_us, accepted, frames, .. } = self.grown;
        any.then_some(NodeReading { cpu_us, accepted, frames, ..present })
    }
}

/// Asks all doors at once: a node that hangs takes no reading from the others.
fn read(doors: &[Door]) -> Vec<Option<NodeReading>> {
    // With several nodes an answer that is due at the next reading comes too late.
    let age_max = if doors.len() > 1 { Duration::from_millis(EVERY_MS) } else { ANSWER_AGE_MAX };
    std::thread::scope(|scope| {
        let ask = |door: &'_ Door| NodeReading::of(&door.read("/metrics", age_max).ok()?);
        let asked: Vec<_> = doors.iter().map(|door| scope.spawn(move || ask(door))).collect();
        asked.into_iter().map(|asked| asked.join().ok().flatten()).collect()
    })
}

/// TCP in `/proc/net/sockstat` and `/proc/net/sockstat6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kernel {
    pages: u64,
    sockets: u64,
}

impl Kernel {
    /// `None` without a line of TCP.
    fn of(sockstat: &str, sockstat6: &str) -> Option<Self> {
        let value = |text: &str, protocol: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
            let mut words = line.split_whitespace().skip_while(|word| *word != name).skip(1);
            words.next()?.parse::<u64>().ok()
        };
        Some(Self {
            pages: value(sockstat, "TCP:", "mem")?,
            sockets: value(sockstat, "TCP:", "inuse")? + value(sockstat6, "TCP6:", "inuse").unwrap_or(0),
        })
    }

    fn read() -> Option<Self> {
        Self::of(&file("/proc/net/sockstat"), &file("/proc/net/sockstat6"))
    }
}

#[derive(Debug, Clone)]
struct Timed {
    at_ns: u64,
    together: NodeReading,
    kernel: Option<Kernel>,
    /// The nodes in the order of the doors; `None` without an answer.
    nodes: Vec<Option<NodeReading>>,
}

/// The kept readings of a run.
#[derive(Debug)]
struct Series {
    readings: Vec<Timed>,
    every_ms: u64,
    start_ns: u64,
    page_bytes: u64,
}

impl Series {
    fn new(start_ns: u64) -> Self {
        Self { readings: Vec::new(), every_ms: EVERY_MS, start_ns, page_bytes: page_bytes() }
    }

    fn push(&mut self, reading: Timed) {
        self.readings.push(reading);
        // The first reading is only the base of the second, and makes no sample.
        if self.readings.len() > SAMPLES_MAX + 1 {
            let mut place = 0;
            self.readings.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every_ms *= 2;
        }
    }

    fn samples(&self) -> impl DoubleEndedIterator<Item = Sample> {
        self.readings.windows(2).map(|pair| self.sample(&pair[0], &pair[1]))
    }

    fn sample(&self, before: &Timed, after: &Timed) -> Sample {
        let of = self.sample_of(before, &before.together, after, &after.together);
        Sample {
            at_ms: of.at_ms,
            cpu: of.cpu,
            resident_bytes: of.resident_bytes,
            socket_bytes: after.kernel.map(|kernel| kernel.pages.saturating_mul(self.page_bytes)),
            sockets: after.kernel.map(|kernel| kernel.sockets),
            connections: of.connections,
            published_per_s: of.published_per_s,
            frames_per_s: of.frames_per_s,
            deliveries_per_s: 0.0,
            ladder_step: of.ladder_step,
        }
    }

    /// The samples of the node at the door of this place.
    fn samples_at(&self, place: usize) -> impl Iterator<Item = NodeSample> {
        self.readings.windows(2).filter_map(move |pair| {
            let of = |timed: &Timed| timed.nodes.get(place).copied().flatten();
            Some(self.sample_of(&pair[0], &of(&pair[0])?, &pair[1], &of(&pair[1])?))
        })
    }

    fn sample_of(&self, from: &Timed, before: &NodeReading, to: &Timed, after: &NodeReading) -> NodeSample {
        let grown = after.grown_since(before);
        let took_us = (to.at_ns.saturating_sub(from.at_ns) / 1_000).max(1);
        let per_s = |count: u64| ratio(count.saturating_mul(1_000_000), took_us);
        let from_start_ns = i128::from(to.at_ns) - i128::from(self.start_ns);
        NodeSample {
            at_ms: i64::try_from(from_start_ns / 1_000_000).unwrap_or(i64::MAX),
            cpu: ratio(grown.cpu_us, took_us),
            resident_bytes: after.resident_bytes,
            connections: after.connections,
            published_per_s: per_s(grown.accepted),
            frames_per_s: per_s(grown.frames),
            ladder_step: after.ladder_step,
            slots: after.slots,
        }
    }
}

/// Reads the nodes every second until the end.
#[derive(Debug)]
pub(crate) struct ServerWatch {
    /// `None` once the reading is to end.
    stop: Option<Sender<()>>,
    asking: JoinHandle<()>,
    pub(crate) lately: Lately,
}

/// The samples so far, shared with other threads.
#[derive(Debug, Clone)]
pub(crate) struct Lately(Arc<Mutex<Series>>);

impl Lately {
    pub(crate) fn last(&self) -> Option<Sample> {
        self.0.lock().samples().next_back()
    }
}

impl ServerWatch {
    /// Starts reading on a thread of its own; times count from `start_ns`. A node without an answer, as
    /// during a restart, has no sample.
    pub(crate) fn begin(doors: Vec<Door>, start_ns: u64) -> Self {
        let (stop, stopped) = channel();
        let is_here = doors.iter().all(Door::is_loopback);
        let mut all = NodesReading::of(doors.len());
        let lately = Lately(Arc::new(Mutex::new(Series::new(start_ns))));
        let told = lately.clone();
        let asking = std::thread::spawn(move || {
            loop {
                let asked_ns = monotonic_ns();
                let nodes = read(&doors);
                if let Some(together) = all.sum(&nodes) {
                    let kernel = is_here.then(Kernel::read).flatten();
                    told.0.lock().push(Timed { at_ns: monotonic_ns(), together, kernel, nodes });
                }
                let next_ns = asked_ns + told.0.lock().every_ms * 1_000_000;
                let rest = Duration::from_nanos(next_ns.saturating_sub(monotonic_ns()));
                // The other end of the channel is dropped to stop this thread.
                if stopped.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { stop: Some(stop), asking, lately }
    }

    /// Begins no further reading. A reading under way ends by its own limit.
    pub(crate) fn hush(&mut self) {
        drop(self.stop.take());
    }

    /// The samples of all nodes together, and of each of several nodes.
    pub(crate) fn end(mut self, plan: &Plan) -> (Vec<Sample>, Vec<NodeFigures>) {
        self.hush();
        drop(self.asking.join());
        let series = self.lately.0.lock();
        let doors = plan.nodes.iter().zip(&plan.target.ops_doors).enumerate();
        // The samples of a lone node are those of all nodes.
        let several = doors.filter(|_| plan.nodes.len() > 1);
        let nodes = several.map(|(place, (name, door))| NodeFigures {
            name: name.clone(),
            door: door.to_string(),
            samples: series.samples_at(place).collect(),
        });
        (series.samples().collect(), nodes.collect())
    }
}

/// Adds the devices' deliveries, from all types' timelines, to the samples of their time.
pub(crate) fn enter_deliveries<'a>(samples: &mut [Sample], moments: impl IntoIterator<Item = &'a Moment>) {
    let mut delivered = vec![0_u64; samples.len()];
    for moment in moments {
        let at_ms = i64::try_from(moment.at_ms).unwrap_or(i64::MAX);
        // Moments past the last sample have no row.
        let place = samples.partition_point(|sample| sample.at_ms <= at_ms);
        if let Some(count) = delivered.get_mut(place) {
            *count += moment.count;
        }
    }
    let mut before_ms = None;
    for (sample, count) in samples.iter_mut().zip(delivered) {
        let from_ms = before_ms.unwrap_or(0_i64).min(sample.at_ms);
        let took_ms = u64::try_from(sample.at_ms - from_ms).unwrap_or(0);
        sample.deliveries_per_s = ratio(count * 1_000, took_ms);
        before_ms = Some(sample.at_ms);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    const METRICS: &str = "# HELP roomcast_frames_total Frames.\n# TYPE roomcast_frames_total counter\n\
        roomcast_frames_total{kind=\"level\"} 90\nroomcast_frames_total{kind=\"refresh\"} 10\n\
        roomcast_messages_accepted_total{class=\"normal\"} 7\nroomcast_messages_accepted_total{class=\"counter\"} 3\n\
        roomcast_connections{shard=\"0\"} 4\nroomcast_connections{shard=\"1\"} 5\n\
        roomcast_connections_waiting{shard=\"0\"} 99\n\
        roomcast_ladder_step{shard=\"0\"} 1\nroomcast_ladder_step{shard=\"1\"} 3\n\
        roomcast_shard_busy_ratio{shard=\"0\"} 0.25\nroomcast_cpu_microseconds_total 500000\n\
        roomcast_resident_bytes 1024\nroomcast_slots{state=\"here\"} 86\nroomcast_slots{state=\"there\"} 170\n";

    fn at(at_ms: u64, cpu_us: u64, frames: u64) -> Timed {
        let together = NodeReading { cpu_us, frames, ..NodeReading::default() };
        Timed { at_ns: at_ms * 1_000_000, together, kernel: None, nodes: Vec::new() }
    }

    fn sampled(start_ms: u64, readings: impl IntoIterator<Item = Timed>) -> Vec<Sample> {
        let mut series = Series::new(start_ms * 1_000_000);
        readings.into_iter().for_each(|reading| series.push(reading));
        series.samples().collect()
    }

    #[test]
    fn shards_and_classes_are_added_and_of_ladders_the_highest_counts() {
        let reading = NodeReading {
            cpu_us: 500_000,
            resident_bytes: 1_024,
            connections: 9,
            accepted: 10,
            frames: 100,
            ladder_step: 3,
            slots: Some(86),
        };
        assert_eq!(NodeReading::of(METRICS), Some(reading));
        for other in
            ["", "<html>hello</html>", "roomcast_cpu_microseconds_total", "x 1\nroomcast_frames_total nan"]
        {
            assert_eq!(NodeReading::of(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_kernels_memory_is_in_pages_and_its_sockets_of_both_protocols() {
        let sockstat = "sockets: used 13\nTCP: inuse 7 orphan 0 tw 2 alloc 9 mem 55\nUDP: inuse 1 mem 3\n";
        let both = Kernel::of(sockstat, "TCP6: inuse 4\nUDP6: inuse 0\n");
        assert_eq!(both, Some(Kernel { pages: 55, sockets: 11 }));
        assert_eq!(Kernel::of(sockstat, ""), Some(Kernel { pages: 55, sockets: 7 }));
        assert_eq!(Kernel::of("UDP: inuse 1 mem 3\n", ""), None);
    }

    #[test]
    fn a_sample_is_what_was_between_two_readings() {
        let samples =
            sampled(1_000, [at(900, 100_000, 5), at(1_900, 600_000, 205), at(3_900, 1_600_000, 205)]);
        assert_eq!(samples.iter().map(|sample| sample.at_ms).collect::<Vec<_>>(), [900, 2_900]);
        assert_eq!((samples[0].cpu, samples[0].frames_per_s), (0.5, 200.0));
        assert_eq!((samples[1].cpu, samples[1].frames_per_s), (0.5, 0.0));
        assert_eq!(sampled(1_000, [at(0, 0, 0), at(10, 1, 1)])[0].at_ms, -990, "before the start");
    }

    #[test]
    fn a_node_that_was_restarted_counts_from_nothing() {
        let samples = sampled(0, [at(1_000, 9_000_000, 500), at(3_000, 200_000, 600)]);
        assert_eq!((samples[0].cpu, samples[0].frames_per_s), (0.1, 300.0));
    }

    #[test]
    fn nodes_are_added_up_and_one_that_dies_takes_nothing_back() {
        let mut nodes = NodesReading::of(2);
        let node = |cpu_us, connections| {
            Some(NodeReading { cpu_us, connections, ladder_step: connections, ..NodeReading::default() })
        };
        let mut sum = |one, other| {
            let sum = nodes.sum(&[one, other]);
            sum.map(|sum| (sum.cpu_us, sum.connections, sum.ladder_step))
        };
        assert_eq!(sum(node(100, 3), node(50, 2)), Some((150, 5, 3)));
        assert_eq!(sum(node(110, 3), None), Some((160, 3, 3)));
        assert_eq!(sum(None, None), None);
        assert_eq!(sum(node(120, 3), node(5, 1)), Some((175, 4, 3)), "the other began anew");
    }

    #[test]
    fn a_node_that_is_silent_has_no_sample_until_its_second_reading_after() {
        let node = |cpu_us| Some(NodeReading { cpu_us, ..NodeReading::default() });
        let read = [
            [node(0), node(0)],
            [node(500_000), node(250_000)],
            [None, node(500_000)],
            [node(700_000), node(750_000)],
            [node(800_000), node(1_000_000)],
        ];
        let mut series = Series::new(0);
        for (second, nodes) in (0..).zip(read) {
            series.push(Timed { nodes: nodes.to_vec(), ..at(second * 1_000, 0, 0) });
        }
        let samples = |place| series.samples_at(place).map(|of| (of.at_ms, of.cpu)).collect::<Vec<_>>();
        assert_eq!(samples(0), [(1_000, 0.5), (4_000, 0.1)]);
        assert_eq!(samples(1), [(1_000, 0.25), (2_000, 0.25), (3_000, 0.25), (4_000, 0.25)]);
        assert_eq!(series.samples().count(), 4, "on the same axis of time");
    }

    #[test]
    fn a_node_that_hangs_takes_no_reading_from_the_others() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let well = listen();
        let hung = listen();
        let doors =
            [&hung, &well].map(|door| format!("http://{}", door.local_addr().unwrap()).parse().unwrap());
        let answering = std::thread::spawn(move || {
            let mut asked = well.accept().unwrap().0;
            assert!(asked.read(&mut [0; 1_024]).unwrap() > 0);
            write!(asked, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{METRICS}", METRICS.len()).unwrap();
        });
        let readings = read(&doors);
        answering.join().unwrap();
        assert_eq!(readings, [None, NodeReading::of(METRICS)]);
    }

    #[test]
    fn a_long_run_has_half_as_many_samples_of_twice_the_time() {
        let mut series = Series::new(0);
        let mut at_ms = 0;
        while at_ms < 3_000 * SAMPLES_MAX as u64 {
            series.push(at(at_ms, at_ms * 500, at_ms));
            at_ms += series.every_ms;
        }
        assert!(series.readings.len() <= SAMPLES_MAX + 1);
        assert_eq!(series.every_ms, 4 * EVERY_MS);
        let samples: Vec<Sample> = series.samples().collect();
        assert!(samples.iter().all(|sample| (sample.cpu - 0.5).abs() < 1e-9));
        assert!(samples.is_sorted_by_key(|sample| sample.at_ms));
        assert_eq!(samples[0].at_ms, 4_000);
    }

    #[test]
    fn deliveries_are_those_due_since_the_sample_before() {
        let sample = |at_ms| Sample { at_ms, ..Sample::default() };
        let moment = |(at_ms, count)| Moment { at_ms, count, p50_ms: 0.0, p99_ms: 0.0, max_ms: 0.0 };
        let moments = [(0, 50), (250, 50), (500, 10), (1_500, 30), (2_500, 7)].map(moment);
        let mut samples = [sample(-500), sample(500), sample(2_500)];
        enter_deliveries(&mut samples, &moments);
        assert_eq!(samples.map(|sample| sample.deliveries_per_s), [0.0, 100.0, 20.0]);
    }
}
