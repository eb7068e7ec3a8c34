//! The `roomcast` program: arguments → configuration → server → signal → drain.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use roomcast::config::args::{Args, Command, Look};
use roomcast::config::{self, Config, Log, LogFormat};
use roomcast::server::{Server, StartError};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code: the arguments or the configuration have mistakes.
const BAD_CONFIGURATION: u8 = 1;
/// Exit code: the system refused a port, a thread or the store.
const CANNOT_START: u8 = 2;
/// Exit code: a second signal ended the drain.
const CUT_SHORT: u8 = 3;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // `--help` and `--version` are errors to clap, and answers to the caller.
        Err(asked) if !asked.use_stderr() => return say(io::stdout(), &asked.to_string()),
        Err(mistake) => return refuse(mistake, BAD_CONFIGURATION),
    };
    let show = |text: String| say(io::stdout(), &text);
    let done = match args.asked() {
        Command::Serve => Config::load(&args, config::environment()).map(serve),
        Command::Config(Look::Check { .. }) => config::check(&args, config::environment()).map(show),
        Command::Config(Look::Print { .. }) => config::print(&args, config::environment()).map(show),
    };
    done.unwrap_or_else(|mistakes| refuse(mistakes, BAD_CONFIGURATION))
}

fn refuse(why: impl Display, code: u8) -> ExitCode {
    say(io::stderr(), &format!("{why}\n"));
    ExitCode::from(code)
}

fn serve(config: Config) -> ExitCode {
    log(config.log);
    // A runtime of its own: the server's threads end with the drain, and a second signal must be heard until
    // then.
    let signals = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = signals.map_err(StartError::from).and_then(|signals| Ok((signals, Server::start(config)?)));
    match started {
        Ok((signals, server)) => signals.block_on(until_told_to_stop(server)),
        Err(error) => refuse(error, CANNOT_START),
    }
}

/// Waits for the first signal, and drains. A second signal ends the drain.
async fn until_told_to_stop(server: Server) -> ExitCode {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return ExitCode::from(CANNOT_START);
    };
    let _ = say(io::stdout(), &server.doors());
    tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
    tokio::select! {
        () = server.drain() => ExitCode::SUCCESS,
        _ = term.recv() => ExitCode::from(CUT_SHORT),
        _ = int.recv() => ExitCode::from(CUT_SHORT),
    }
}

fn log(log: Log) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// Writes `text`, and returns a failure if the pipe is closed. A closed pipe must not stop a server.
fn say(mut to: impl Write, text: &str) -> ExitCode {
    to.write_all(text.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}
