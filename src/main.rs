//! The `roomcast` program: arguments → configuration → server → signals → drain.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use roomcast::config::args::{Args, ClusterAsk, Command, Look, StatusFlags};
use roomcast::config::{self, Config, Loaded, Log, LogFormat, Reloaded};
use roomcast::door::OpsDoor;
use roomcast::health;
use roomcast::server::{Server, StartError, WhyLeave};
use roomcast::status::{Status, key_in};
use roomcast_core::limits::RELOAD_AGE_MAX;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code: the arguments or the configuration have mistakes.
const BAD_CONFIGURATION: u8 = 1;
/// Exit code of `roomcast health`. Docker takes 1 for unhealthy, and reserves the others.
const NOT_HEALTHY: u8 = 1;
/// Exit code: the system refused a port, a thread or the store.
const CANNOT_START: u8 = 2;
/// Exit code of `roomcast cluster status`: no door answers, or its node is alone.
const NO_STATUS: u8 = 2;
/// Exit code of `roomcast cluster status`: something is wrong with the cluster.
const NOT_WELL: u8 = 3;
/// Exit code: a second signal ended the drain.
const CUT_SHORT: u8 = 3;
/// Exit code: the node drained, since a later process has its name in the cluster. A restart would end that one.
const NAME_TAKEN: u8 = 4;
/// Exit code: the node drained, since a bug had ended its cluster's thread.
const CLUSTER_ENDED: u8 = 5;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // `--help` and `--version` are errors to clap, and answers to the caller.
        Err(asked) if !asked.use_stderr() => return say(io::stdout(), &asked.to_string()),
        Err(mistake) => return refuse(mistake, BAD_CONFIGURATION),
    };
    let show = |text: String| say(io::stdout(), &text);
    let done = match args.asked() {
        Command::Serve => return serve(&args),
        Command::Health => return health(&args),
        Command::Cluster(ClusterAsk::Status(flags)) => return cluster_status(&args, &flags),
        Command::Config(Look::Check { .. }) => config::check(&args, config::environment()).map(show),
        Command::Config(Look::Print { .. }) => config::print(&args, config::environment()).map(show),
    };
    done.unwrap_or_else(|mistakes| refuse(mistakes, BAD_CONFIGURATION))
}

fn health(args: &Args) -> ExitCode {
    match Config::load(args, config::environment()) {
        Ok(config) => match health::check(config.ops_listen) {
            Ok(answer) => say(io::stdout(), &format!("{answer}\n")),
            Err(error) => refuse(format!("{}: {error}", config.ops_listen), NOT_HEALTHY),
        },
        Err(mistakes) => refuse(mistakes, BAD_CONFIGURATION),
    }
}

fn cluster_status(args: &Args, flags: &StatusFlags) -> ExitCode {
    let door = match &flags.ops_door {
        // Without the configuration: an operator's machine has none.
        Some(url) => OpsDoor::parse(url).map_err(|why| format!("--ops-door: {why}")),
        None => Config::load(args, config::environment())
            .map(|config| OpsDoor::of(config.ops_listen))
            .map_err(|mistakes| mistakes.to_string()),
    };
    let key = flags.ops_key_file.as_deref().map(key_in).transpose();
    let key = key.map_err(|why| format!("--ops-key-file: {why}"));
    let (door, key) = match door.and_then(|door| Ok((door, key?))) {
        Ok(asked) => asked,
        Err(mistake) => return refuse(mistake, BAD_CONFIGURATION),
    };
    match Status::ask(&door, key.as_deref()) {
        Ok(status) => {
            let text = if flags.json { format!("{}\n", status.json) } else { status.table() };
            let said = say(io::stdout(), &text);
            if status.is_well() { said } else { ExitCode::from(NOT_WELL) }
        }
        Err(why) => refuse(format!("{door}: {why}"), NO_STATUS),
    }
}

fn refuse(why: impl Display, code: u8) -> ExitCode {
    say(io::stderr(), &format!("{why}\n"));
    ExitCode::from(code)
}

fn serve(args: &Args) -> ExitCode {
    // A runtime of its own: the server's threads end with the drain, and a second signal must be heard until
    // then.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(StartError::from) {
        Ok(runtime) => {
            let code = runtime.block_on(serve_until_told_to_stop(args));
            // Not awaited: a reload may still wait for a disk.
            runtime.shutdown_background();
            code
        }
        Err(error) => refuse(error, CANNOT_START),
    }
}

/// The signals that a node obeys.
struct Signals {
    reload: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal. True for a reload.
    async fn is_reload(&mut self) -> bool {
        tokio::select! {
            _ = self.reload.recv() => true,
            _ = self.term.recv() => false,
            _ = self.int.recv() => false,
        }
    }

    /// Waits for a signal to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Serves until the first signal to stop, or until the node has to leave its cluster, and drains. A further signal
/// ends the drain.
async fn serve_until_told_to_stop(args: &Args) -> ExitCode {
    // Caught first: a reload that comes during the start would kill the process.
    let Ok(mut signals) = Signals::catch() else { return ExitCode::from(CANNOT_START) };
    let mut loaded = match Loaded::load(args, config::environment()) {
        Ok(loaded) => Arc::new(loaded),
        Err(mistakes) => return refuse(mistakes, BAD_CONFIGURATION),
    };
    let level = log(loaded.config.log);
    let server = match Server::start(loaded.config.clone()) {
        Ok(server) => server,
        Err(error) => return refuse(error, CANNOT_START),
    };
    let _ = say(io::stdout(), &server.doors());
    let mut stops = 1;
    let code = loop {
        tokio::select! {
            is_reload = signals.is_reload() => {
                if !is_reload {
                    break ExitCode::SUCCESS;
                }
            }
            why = server.must_leave() => {
                // A supervisor that sees the drain may stop the node: devices are told goodbye all the same.
                stops = 2;
                break ExitCode::from(match why {
                    WhyLeave::NameTaken => NAME_TAKEN,
                    WhyLeave::ThreadEnded => CLUSTER_ENDED,
                });
            }
        }
        // A stop is heard during a reload, too: a file on a disk that hangs takes as long as the disk.
        tokio::select! {
            biased;
            () = signals.stop() => break ExitCode::SUCCESS,
            reloaded = Box::pin(reload_configuration(args, Arc::clone(&loaded), &server, &level)) => {
                loaded = reloaded;
            }
        }
    };
    let cut_short = async {
        for _ in 0..stops {
            signals.stop().await;
        }
    };
    tokio::select! {
        () = server.drain() => code,
        () = cut_short => ExitCode::from(CUT_SHORT),
    }
}

/// Loads the configuration again, and has the server take it over. Returns the configuration in force.
async fn reload_configuration(
    args: &Args,
    running: Arc<Loaded>,
    server: &Server,
    level: &LogLevel,
) -> Arc<Loaded> {
    let args = args.clone();
    let former = Arc::clone(&running);
    let reading = spawn_blocking(move || former.reload(&args, config::environment()));
    // A file may never end: a pipe that nobody writes to, or a disk that hangs. The next signal must be heard.
    let Ok(read) = timeout(RELOAD_AGE_MAX, reading).await else {
        let within_s = RELOAD_AGE_MAX.as_secs();
        error!(within_s, "the configuration is not reloaded: its files could not be read in time");
        server.keep_configuration();
        return running;
    };
    let Reloaded { loaded, changed, waiting } = match read {
        Ok(Ok(reloaded)) => reloaded,
        Err(defect) => {
            error!(%defect, "the configuration is not reloaded");
            server.keep_configuration();
            return running;
        }
        Ok(Err(mistakes)) => {
            for mistake in mistakes.0 {
                error!(%mistake, "the configuration is not reloaded");
            }
            server.keep_configuration();
            return running;
        }
    };
    let new_level = LevelFilter::from_level(loaded.config.log.level);
    if level.modify(|level| *level = new_level).is_err() {
        warn!("the log keeps its level");
    }
    server.reconfigure(loaded.config.clone()).await;
    info!(changed = changed.join(", "), "the configuration is reloaded");
    for key in waiting {
        warn!(key, "this key changed and needs a restart; its old value stays in force");
    }
    Arc::new(loaded)
}

/// The way to change the level of the log.
type LogLevel = reload::Handle<LevelFilter, Registry>;

fn log(log: Log) -> LogLevel {
    let (level, handle) = reload::Layer::new(LevelFilter::from_level(log.level));
    let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let log_of_level = tracing_subscriber::registry().with(level);
    match log.format {
        LogFormat::Text => log_of_level.with(lines).init(),
        LogFormat::Json => log_of_level.with(lines.json()).init(),
    }
    handle
}

/// Writes `text`, and returns a failure if the pipe is closed. A closed pipe must not stop a server.
fn say(mut to: impl Write, text: &str) -> ExitCode {
    to.write_all(text.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
