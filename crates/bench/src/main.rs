//! The benchmarks as a program of its own. Without the feature `chain` it is built in a minute.

use clap::Parser;
use mimalloc::MiMalloc;
use seawall_bench::cli::{self, Command, Host};
use std::process::ExitCode;

/// The one of the program that is measured.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What Seawall costs.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match cli::run(Args::parse().command, Host { prefix: &[], validates: false }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("seawall-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
