//! The coordinator's worker processes, on this machine or on others: starts workers, sends orders, reads
//! words.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{monotonic_ns, sleep_until};
use crate::devices::assignment::Assignment;
use crate::error::RunError;
use crate::fleet::remote::{self, Difference, Ping};
use crate::fleet::words::{Order, Progress, Word, WorkerResult};
use crate::machine::child;
use crate::machine::descriptors::{DEVICES_PER_PROCESS_MAX, devices_per_process};
use crate::scenario::plan::Plan;
use crate::stop;
use crate::wire::doors::Door;

/// Most workers of a run, and of a machine with `--listen`.
pub(crate) const WORKERS_MAX: u32 = 250;
/// Most handshakes under way over all workers. The node takes 1 024 half-open connections.
pub(crate) const HANDSHAKES_MAX: u32 = 256;
/// Most words waiting for the coordinator. Past them workers block on their pipe.
const WORDS_MAX: usize = 64;
/// Clock questions to each remote worker after the run.
const PINGS_AFTER: usize = 8;
/// Longest wait for the answer to a clock question.
const CLOCK_AGE_MAX_NS: u64 = 5_000_000_000;
/// Longest wait for the workers' word that they know the start. Past it the run is given up.
const START_AGE_MAX_NS: u64 = 10_000_000_000;
/// Longest wait for the workers' results past the settling. Past it the run is given up, and the first worker
/// without a result is named.
const RESULT_AGE_MAX_NS: u64 = 60_000_000_000;
/// Longest wait for the workers' ends. Past it they are killed.
const END_AGE_MAX_NS: u64 = 5_000_000_000;
/// Longest wait for a word without a look at the wish to stop.
const LOOK_NS: u64 = 100_000_000;
/// Orders that wait for one worker. A worker gets four orders in a run and some clock questions.
const ORDERS_MAX: usize = 16;

/// Longest word: the result of a worker with many rooms and reliable messages has some hundreds of megabytes.
const WORD_BYTES_MAX: u64 = 1 << 30;

/// Worker index and its word; `None`: the worker ended.
type HeardWord = (usize, Option<Word>);

/// The latest progress of each worker. A new report replaces an untaken one, so progress never queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latest(Arc<Mutex<Vec<Progress>>>);

impl Latest {
    fn hear(&self, worker: usize, said: Progress) {
        let mut workers = self.0.lock();
        if workers.len() <= worker {
            workers.resize_with(worker + 1, Progress::default);
        }
        workers[worker].go_on(said);
    }

    /// The sum over all workers. Latencies cover the time since the last call.
    pub(crate) fn take(&self) -> Progress {
        let mut workers = self.0.lock();
        let mut all = Progress::default();
        for worker in workers.iter_mut() {
            all.add(worker);
            worker.latency.clear();
        }
        all
    }
}

pub(crate) struct Fleet {
    workers: Vec<Worker>,
    words: Receiver<HeardWord>,
    /// Shared with other threads, which may ask while this thread waits.
    pub(crate) latest: Latest,
    viewer_doors: Vec<Door>,
}

struct Worker {
    place: WorkerAt,
    /// Lines for the worker. Its writing thread ends, and closes the worker's stdin, when the sender is dropped.
    orders: Option<SyncSender<Vec<u8>>>,
}

enum WorkerAt {
    Here(Child),
    There { stream: TcpStream, difference: Difference, at: String },
}

impl Fleet {
    /// Starts the workers and orders them to connect.
    ///
    /// # Errors
    /// [`RunError::Usage`] when the devices need too many workers or a process can't start;
    /// [`RunError::Target`] when a remote worker is out of reach.
    pub(crate) fn start(plan: &Plan) -> Result<Self, RunError> {
        let workers = workers_for(plan).map_err(RunError::Usage)?;
        let (sender, words) = sync_channel(WORDS_MAX);
        let viewer_doors = plan.target.viewer_doors.clone();
        let mut fleet = Self { workers: Vec::new(), words, latest: Latest::default(), viewer_doors };
        // Each run draws its own addresses, so lingering ports of the last run are not in the way.
        let subnet = fastrand::u8(1..=250);
        for worker in 0..workers {
            let source = Ipv4Addr::new(127, 0, subnet, u8::try_from(worker % 250 + 1).unwrap_or(1));
            let handshakes_max = HANDSHAKES_MAX.div_ceil(workers);
            let plan = plan.clone();
            fleet.add(Assignment { plan, worker, workers, source, handshakes_max, ahead_ns: 0 }, &sender)?;
        }
        Ok(fleet)
    }

    fn add(&mut self, mut assignment: Assignment, sender: &SyncSender<HeardWord>) -> Result<(), RunError> {
        let index = self.workers.len();
        let starting = |error: std::io::Error| RunError::Usage(format!("starting a worker process: {error}"));
        let machines = &assignment.plan.target.remote_workers;
        let (worker, words): (Worker, Box<dyn Read + Send>) = if machines.is_empty() {
            let mut command = worker_process().map_err(starting)?;
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(starting)?;
            let orders = child.stdin.take().map(write_orders);
            let mute = || RunError::Usage("a worker process without an output".into());
            let stdout = child.stdout.take().ok_or_else(mute)?;
            (Worker { place: WorkerAt::Here(child), orders }, Box::new(stdout))
        } else {
            let at = machines[index % machines.len()].clone();
            let (stream, difference) = remote::connect(&at).map_err(RunError::Target)?;
            let orders = stream.try_clone().map_err(starting)?;
            let words = stream.try_clone().map_err(starting)?;
            let place = WorkerAt::There { stream, difference, at };
            assignment.ahead_ns = difference.ahead_ns;
            (Worker { place, orders: Some(write_orders(orders)) }, Box::new(words))
        };
        self.workers.push(worker);
        let sender = sender.clone();
        let latest = self.latest.clone();
        std::thread::spawn(move || hear_words(words, index, &sender, &latest));
        self.order(index, &Order::Connect(Box::new(assignment))).map_err(starting)
    }

    fn order(&mut self, index: usize, order: &Order) -> std::io::Result<()> {
        let Some(orders) = &self.workers[index].orders else { return Ok(()) };
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        orders.try_send(line).map_err(|_| std::io::Error::other("too many wait, or the worker ended"))
    }

    pub(crate) fn order_all(&mut self, order: &Order) -> Result<(), RunError> {
        (0..self.workers.len()).try_for_each(|index| self.tell(index, order))
    }

    fn tell(&mut self, index: usize, order: &Order) -> Result<(), RunError> {
        self.order(index, order).map_err(|error| self.worker(index, &format!("takes no orders: {error}")))
    }

    fn worker(&self, index: usize, what: &str) -> RunError {
        let number = index + 1;
        let workers = self.workers.len();
        let at = match self.workers.get(index).map(|worker| &worker.place) {
            Some(WorkerAt::There { at, .. }) => format!(" ({at})"),
            Some(WorkerAt::Here(_)) | None => String::new(),
        };
        RunError::Target(format!("worker {number} of {workers}{at} {what}"))
    }

    fn at_door(&self, reason: &str) -> RunError {
        let doors: Vec<String> = self.viewer_doors.iter().map(ToString::to_string).collect();
        RunError::Target(format!("viewer door {}: {reason}", doors.join(", ")))
    }

    /// The trouble behind an unexpected word.
    fn failure(&self, heard: HeardWord) -> RunError {
        let (index, word) = heard;
        match word {
            Some(Word::Failed { reason }) => self.at_door(&reason),
            Some(other) => self.worker(index, &format!("spoke out of turn: {other:?}")),
            None => self.worker(index, "ended"),
        }
    }

    /// Largest possible error of remote workers' times: the error known before the run plus the drift since.
    /// 0 where all workers are on this machine.
    ///
    /// # Errors
    /// [`RunError::Target`] when a worker gave up or ended.
    pub(crate) fn clock_error_ns(&mut self) -> Result<u64, RunError> {
        let mut most_ns = 0;
        for index in 0..self.workers.len() {
            // Workers on this machine share its monotonic clock.
            let WorkerAt::There { difference, .. } = self.workers[index].place else { continue };
            let mut pings = Vec::new();
            while pings.len() < PINGS_AFTER {
                let sent_ns = monotonic_ns();
                self.tell(index, &Order::Clock)?;
                match self.hear(sent_ns + CLOCK_AGE_MAX_NS)? {
                    (who, Some(Word::Clock { monotonic_ns: theirs_ns })) if who == index => {
                        pings.push(Ping { sent_ns, theirs_ns, received_ns: monotonic_ns() });
                    }
                    other => return Err(self.failure(other)),
                }
            }
            let now =
                Difference::of(&pings).ok_or_else(|| self.worker(index, "has a clock centuries away"))?;
            most_ns = most_ns.max(difference.error_after(&now));
        }
        Ok(most_ns)
    }

    /// Processor time of all workers' main threads so far.
    ///
    /// # Errors
    /// A sentence when the kernel gives no figure, or a worker is remote.
    pub(crate) fn processor_ns(&self) -> Result<u64, String> {
        let of_worker = |worker: &Worker| {
            let WorkerAt::Here(child) = &worker.place else { return Err("a worker is elsewhere".to_owned()) };
            let id = child.id();
            let file = format!("/proc/{id}/task/{id}/schedstat");
            let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
            let used = text.split_whitespace().next().and_then(|used| used.parse::<u64>().ok());
            used.ok_or_else(|| format!("{file}: {text:?}"))
        };
        self.workers.iter().map(of_worker).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Waits until every device is in its room.
    ///
    /// # Errors
    /// [`RunError::Target`] when a worker gave up or ended, or after `connect_seconds`.
    pub(crate) fn await_ready(
        &self,
        connect_seconds: u64,
        mut tell: impl FnMut(u64),
    ) -> Result<(), RunError> {
        let mut connected = vec![0; self.workers.len()];
        let mut ready = 0;
        let deadline_ns = monotonic_ns() + connect_seconds * 1_000_000_000;
        while ready < self.workers.len() {
            // A worker alive but not ready is still waiting for the door.
            let reason = format!("not every device was in its room after {connect_seconds} s");
            let late = |_| self.at_door(&reason);
            let heard = match self.hear(deadline_ns.min(monotonic_ns() + LOOK_NS)) {
                Err(_) if stop::is_wanted() => {
                    return Err(RunError::Stopped("stopped by a signal before the first publish".into()));
                }
                Err(_) if monotonic_ns() < deadline_ns => continue,
                heard => heard.map_err(late)?,
            };
            match heard {
                (index, Some(Word::Ready { devices })) => {
                    connected[index] = devices;
                    ready += 1;
                }
                (index, Some(Word::Connected { devices })) => connected[index] = devices,
                other => return Err(self.failure(other)),
            }
            tell(connected.iter().sum());
        }
        Ok(())
    }

    /// Waits until every worker knows the start.
    pub(crate) fn await_started(&self) -> Result<(), RunError> {
        let deadline_ns = monotonic_ns() + START_AGE_MAX_NS;
        for _ in 0..self.workers.len() {
            match self.hear(deadline_ns)? {
                (_, Some(Word::Started)) => {}
                other => return Err(self.failure(other)),
            }
        }
        Ok(())
    }

    /// Waits for every worker's result.
    ///
    /// # Errors
    /// [`RunError::Target`] when a worker gave up or ended without a result, or [`RESULT_AGE_MAX_NS`] after `grace_ms`.
    pub(crate) fn await_results(&self, grace_ms: u64) -> Result<Vec<WorkerResult>, RunError> {
        let deadline_ns = monotonic_ns() + grace_ms * 1_000_000 + RESULT_AGE_MAX_NS;
        let mut results: Vec<Option<WorkerResult>> = self.workers.iter().map(|_| None).collect();
        while let Some(awaited) = results.iter().position(Option::is_none) {
            let late = |_| self.worker(awaited, "gave no result in time");
            match self.hear(deadline_ns).map_err(late)? {
                (index, Some(Word::Result(outcome))) => results[index] = Some(*outcome),
                // After its result a worker may end.
                (index, None) if results[index].is_some() => {}
                other => return Err(self.failure(other)),
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Waits until `time_ns`, a time without words from workers.
    ///
    /// # Errors
    /// [`RunError::Target`] as soon as a worker gave up or ended.
    pub(crate) fn stay_until(&self, time_ns: u64) -> Result<(), RunError> {
        let left = Duration::from_nanos(time_ns.saturating_sub(monotonic_ns()));
        match self.words.recv_timeout(left) {
            Ok(heard) => Err(self.failure(heard)),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            // A run without devices has no workers, and only publishes.
            Err(RecvTimeoutError::Disconnected) if self.workers.is_empty() => {
                sleep_until(time_ns);
                Ok(())
            }
            Err(RecvTimeoutError::Disconnected) => Err(RunError::Target("all workers ended".into())),
        }
    }

    fn hear(&self, deadline_ns: u64) -> Result<HeardWord, RunError> {
        let left = Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns()));
        let late = |_| RunError::Target("workers did not answer in time".into());
        self.words.recv_timeout(left).map_err(late)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // A worker ends when its stdin closes.
            drop(worker.orders.take());
            if let WorkerAt::There { stream, .. } = &worker.place {
                drop(stream.shutdown(Shutdown::Write));
            }
        }
        let deadline_ns = monotonic_ns() + END_AGE_MAX_NS;
        for worker in &mut self.workers {
            if let WorkerAt::Here(child) = &mut worker.place {
                child::end_by(child, deadline_ns);
            }
        }
    }
}

/// Writes a worker's orders on a thread of their own: a worker that was stopped (SIGSTOP) leaves its pipe full,
/// and the coordinator's own waits have limits.
fn write_orders(mut to: impl Write + Send + 'static) -> SyncSender<Vec<u8>> {
    let (sender, lines) = sync_channel::<Vec<u8>>(ORDERS_MAX);
    std::thread::spawn(move || {
        // After a failed write the worker has ended, which its words say as well.
        while lines.recv().is_ok_and(|line| to.write_all(&line).and_then(|()| to.flush()).is_ok()) {}
    });
    sender
}

/// Forwards a worker's words until the first line without a valid word.
fn hear_words(words: Box<dyn Read + Send>, index: usize, sender: &SyncSender<HeardWord>, latest: &Latest) {
    let mut words = BufReader::new(words);
    while let Some(word) = next_word(&mut words, WORD_BYTES_MAX) {
        match word {
            Word::Progress(said) => latest.hear(index, said),
            word => {
                if sender.send((index, Some(word))).is_err() {
                    return;
                }
            }
        }
    }
    drop(sender.send((index, None)));
}

/// The word on the next line; `None` at the end, for an invalid line, or past `bytes_max`.
fn next_word(words: &mut impl BufRead, bytes_max: u64) -> Option<Word> {
    let mut line = String::new();
    words.take(bytes_max).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

pub(crate) fn worker_process() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    // A worker's devices take a few megabytes; huge pages would round these up to many.
    command.arg("worker").env("MIMALLOC_ALLOW_THP", "0");
    // Ctrl-C is for the coordinator, which wants the workers' results. They end with their stdin.
    command.process_group(0);
    Ok(command)
}

/// The number of workers. On this machine the descriptor limit gives the devices of each; on remote machines
/// each machine gets the same number of workers.
fn workers_for(plan: &Plan) -> Result<u32, String> {
    let machines = u32::try_from(plan.target.remote_workers.len()).unwrap_or(u32::MAX);
    let (capacity, least) = match machines {
        0 => (devices_per_process()?, plan.target.workers),
        machines => (DEVICES_PER_PROCESS_MAX, plan.target.workers.max(machines).next_multiple_of(machines)),
    };
    let needed = plan.devices.div_ceil(capacity).next_multiple_of(machines.max(1));
    let workers = needed.max(least).min(plan.devices);
    if workers > WORKERS_MAX {
        return Err(format!(
            "{} devices need {workers} workers at {capacity} each, and a run has at most {WORKERS_MAX}; \
             raise `ulimit -n`",
            plan.devices
        ));
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Two workers on no machine, with these words.
    fn fleet(said: Vec<HeardWord>) -> Fleet {
        let (sender, words) = sync_channel(WORDS_MAX);
        said.into_iter().for_each(|heard| sender.send(heard).unwrap());
        let place = |_| WorkerAt::Here(Command::new("true").spawn().unwrap());
        let workers = (0..2).map(place).map(|place| Worker { place, orders: None }).collect();
        let viewer_doors = vec!["ws://127.0.0.1:7600".parse().unwrap()];
        Fleet { workers, words, latest: Latest::default(), viewer_doors }
    }

    #[test]
    fn a_worker_that_ends_without_a_result_is_named_at_once_and_one_with_may_end() {
        let result = || Some(Word::Result(Box::default()));
        let trouble = |fleet: &Fleet| fleet.await_results(0).unwrap_err().to_string();
        let ended = fleet(vec![(0, result()), (0, None), (1, None)]);
        assert_eq!(trouble(&ended), "worker 2 of 2 ended");
        assert_eq!(fleet(vec![(1, result()), (1, None), (0, result())]).await_results(0).unwrap().len(), 2);
    }

    #[test]
    fn only_what_a_worker_says_of_the_door_is_the_doors() {
        let failed = Word::Failed { reason: "device 3: refused".into() };
        let trouble = |said| fleet(vec![said]).await_ready(1, |_| {}).unwrap_err().to_string();
        assert_eq!(trouble((1, Some(failed))), "viewer door ws://127.0.0.1:7600: device 3: refused");
        assert_eq!(trouble((0, None)), "worker 1 of 2 ended");
        let wild = trouble((0, Some(Word::Started)));
        assert!(wild.starts_with("worker 1 of 2 spoke out of turn"), "{wild}");
    }

    #[test]
    fn a_word_has_its_limit() {
        let next = |bytes_max| next_word(&mut "\"started\"\nrest".as_bytes(), bytes_max);
        assert!(matches!(next(10), Some(Word::Started)));
        assert!(next(8).is_none());
    }

    #[test]
    fn what_workers_say_is_put_together_and_its_latencies_are_given_once() {
        let latest = Latest::default();
        let said = |frames, count| Progress { frames, latency: vec![(100, count)], ..Progress::default() };
        latest.hear(1, said(5, 1));
        latest.hear(0, said(7, 1));
        latest.hear(1, said(6, 2));
        assert_eq!(latest.take(), said(13, 4));
        assert_eq!(latest.take(), Progress { frames: 13, ..Progress::default() });
    }
}
