//! `seawall storm` alone: builds in a fraction of the time of the whole program.

use clap::Parser;
use std::process::ExitCode;

/// Whole validators in simulation, in storms from a seed.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: seawall_storm::cli::Command,
}

fn main() -> ExitCode {
    seawall_storm::cli::main(Cli::parse().command)
}
