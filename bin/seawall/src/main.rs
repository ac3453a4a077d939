//! Seawall: a settlement layer for crypto derivatives.

mod devnet;
mod display;
mod model;
mod tools;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use seawall_node::log;
use std::process::ExitCode;

/// Zones run on threads that give way to all others and may be stopped anywhere, also while they allocate. This allocator
/// has no lock that they could hold then; the system's has. It is also faster at the small records of a block.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A settlement layer for crypto derivatives that keeps liquidating, margining and finalising while
/// everything around it is on fire.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a network of validators on this machine through a recorded crash.
    Devnet(devnet::Args),
    /// Runs one validator.
    Validator(tools::ValidatorArgs),
    /// Makes the files of a network: genesis, accounts, keys and configurations.
    Genesis(tools::GenesisArgs),
    /// Shows the public part of a file of keys.
    Keys(tools::KeysArgs),
    /// Looks into the data directory of a stopped validator: an account, a market, a block.
    Inspect(tools::InspectArgs),
    /// Executes a chain again from genesis and compares every root.
    Verify(tools::VerifyArgs),
    /// Writes the final blocks of a chain to one file.
    Export(tools::ExportArgs),
    /// Verifies an exported chain and builds a data directory from it.
    Import(tools::ImportArgs),
    /// Predicts delay and loss of each lane for a load, and how long risk lets an action take.
    Model(model::Args),
    /// Recorded crashes.
    #[command(subcommand)]
    Replay(Replay),
    /// Storms: whole validators in simulation, through overload, faults and lies, from a seed.
    #[command(subcommand)]
    Storm(seawall_storm::cli::Command),
    /// Measures what Seawall costs: margin checks, sweeps, execution, restarts, finality.
    #[cfg(feature = "bench")]
    #[command(subcommand)]
    Bench(seawall_bench::cli::Command),
    /// Measures what Seawall costs. Not in this build: add `--features bench`.
    #[cfg(not(feature = "bench"))]
    Bench {
        /// What would be measured.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Subcommand)]
enum Replay {
    /// Lists the recorded crashes that ship with the program.
    List,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // A validator logs what its configuration says.
    if !matches!(command, Command::Validator(_))
        && let Err(error) = log::start(&log::quiet())
    {
        eprintln!("seawall: {error:#}");
    }
    let outcome = match command {
        Command::Devnet(args) => devnet::run(args),
        Command::Validator(args) => tools::validator(args),
        Command::Genesis(args) => tools::genesis(args),
        Command::Keys(args) => tools::keys(args),
        Command::Inspect(args) => tools::inspect(args),
        Command::Verify(args) => tools::verify(args),
        Command::Export(args) => tools::export(args),
        Command::Import(args) => tools::import(args),
        Command::Model(args) => model::run(args),
        Command::Replay(Replay::List) => {
            devnet::list_replays();
            Ok(ExitCode::SUCCESS)
        }
        Command::Storm(command) => return seawall_storm::cli::main(command),
        #[cfg(feature = "bench")]
        Command::Bench(command) => {
            let host = seawall_bench::cli::Host { prefix: &["bench"], validates: true };
            seawall_bench::cli::run(command, host)
                .map(|()| ExitCode::SUCCESS)
                .map_err(|error| anyhow::anyhow!(error))
        }
        #[cfg(not(feature = "bench"))]
        Command::Bench { arguments } => Err(anyhow::anyhow!(
            "this build has no benchmarks; run: cargo run --release --features bench -- bench {}",
            arguments.join(" ")
        )),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("seawall: {error:#}");
        ExitCode::FAILURE
    })
}
