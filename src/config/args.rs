//! The command line, as typed. Values are text here: `resolve` checks the values of all layers together, and
//! reports a flag's mistakes with all others.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

/// The command line of `roomcast`: flags and commands.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "roomcast", version, about = "The broadcast engine for live rooms.")]
pub struct Args {
    /// The command. None: `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags. A flag replaces the value of the file and of the environment.
    #[command(flatten)]
    pub flags: Flags,
}

/// The commands of `roomcast`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Open the three doors and serve (the default).
    #[default]
    Serve,
    /// Check or print the configuration without serving.
    #[command(subcommand)]
    Config(Look),
    /// Ask the node with this configuration, on this machine, for /healthz. Exit code 0: it serves; 1: it does not.
    Health,
    /// Ask a running node about its cluster.
    #[command(subcommand)]
    Cluster(ClusterAsk),
}

/// The commands of `roomcast cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ClusterAsk {
    /// Print all nodes, slots and links. Exit code 0: all is well; 2: no status is to be had; 3: something is wrong.
    Status(StatusFlags),
}

/// The flags of `roomcast cluster status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct StatusFlags {
    /// The operator door of any node of the cluster [default: that of this configuration, on this machine].
    #[arg(long, value_name = "URL")]
    pub ops_door: Option<String>,
    /// A file with the key that the door wants (ops.keys).
    #[arg(long, value_name = "FILE")]
    pub ops_key_file: Option<PathBuf>,
    /// Print the answer of the door, JSON, in place of the table.
    #[arg(long)]
    pub json: bool,
}

/// The commands of `roomcast config`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Look {
    /// Report every mistake of the configuration at once.
    Check {
        /// The configuration file, in place of --config.
        file: Option<PathBuf>,
    },
    /// Print the configuration in force as TOML, without secrets, each line with its source.
    Print {
        /// The configuration file, in place of --config.
        file: Option<PathBuf>,
    },
}

/// The highest layer of the configuration. Each flag may stand before or after the command.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// A TOML file with changes to the defaults (config/default.toml).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The address of the door for devices [default: 127.0.0.1:7600].
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub viewer_listen: Option<String>,
    /// The address of the door for publishers [default: 127.0.0.1:7601].
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub publisher_listen: Option<String>,
    /// The address of the door for health and metrics [default: 127.0.0.1:7602].
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub ops_listen: Option<String>,
    /// The folder of the store for reliable messages [default: data].
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// Keep reliable messages in memory alone; a restart forgets them.
    #[arg(long, global = true)]
    pub ephemeral: bool,
    /// The number of shard threads, or auto [default: auto, one per core].
    #[arg(long, global = true, value_name = "N")]
    pub shards: Option<String>,
    /// Let all doors listen off loopback without authentication.
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Let NATS servers off loopback be used without credentials and without TLS.
    #[arg(long, global = true)]
    pub insecure_nats: bool,
}

impl Args {
    /// The command to run.
    #[must_use]
    pub fn asked(&self) -> Command {
        self.command.clone().unwrap_or_default()
    }

    /// The file typed after `config check` or `config print`.
    pub(super) fn looked_at(&self) -> Option<&Path> {
        match &self.command {
            Some(Command::Config(Look::Check { file } | Look::Print { file })) => file.as_deref(),
            Some(Command::Serve | Command::Health | Command::Cluster(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_stand_before_or_after_the_command_or_without_one() {
        Args::command().debug_assert();
        for line in [
            "roomcast --shards 2 --ephemeral",
            "roomcast serve --shards 2 --ephemeral",
            "roomcast --shards 2 serve --ephemeral",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(args.asked(), Command::Serve, "{line}");
            assert_eq!(args.flags.shards.as_deref(), Some("2"), "{line}");
            assert!(args.flags.ephemeral, "{line}");
        }
    }

    #[test]
    fn a_status_takes_flags_of_its_own_beside_those_of_the_node() {
        let line = "roomcast cluster status --ops-door http://node-1:7602 --json --config a.toml";
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let ops_door = Some("http://node-1:7602".to_owned());
        let flags = StatusFlags { ops_door, ops_key_file: None, json: true };
        assert_eq!(args.asked(), Command::Cluster(ClusterAsk::Status(flags)));
        assert_eq!((args.flags.config.as_deref(), args.looked_at()), (Some(Path::new("a.toml")), None));
        assert!(Args::try_parse_from(["roomcast", "cluster"]).is_err());
        assert!(Args::try_parse_from(["roomcast", "--ops-door", "x"]).is_err());
    }

    #[test]
    fn config_takes_a_file_of_its_own() {
        let args = Args::try_parse_from(["roomcast", "config", "print", "a.toml", "--insecure"]).unwrap();
        assert_eq!(args.looked_at(), Some(Path::new("a.toml")));
        assert!(args.flags.insecure);
        assert!(Args::try_parse_from(["roomcast", "config"]).is_err());
        assert!(Args::try_parse_from(["roomcast", "--shard", "2"]).is_err());
    }
}
