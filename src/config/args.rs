//! stand-in

/// stand-in
#[derive(Debug, Clone, clap::Parser)]
pub struct Args {
    /// stand-in
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// stand-in
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// stand-in
    Serve,
}
