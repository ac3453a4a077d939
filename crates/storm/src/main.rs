//! `seawall storm` alone: builds in a fraction of the time of the whole program.

use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Whole validators in simulation, in storms from a seed.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: seawall_storm::cli::Command,
}

fn main() -> ExitCode {
    // Whoever looks for what went wrong in a storm asks for it: validators that are attacked complain a lot.
    let filter = EnvFilter::try_from_env("SEAWALL_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    seawall_storm::cli::main(Cli::parse().command)
}
