//! The benchmarks as commands, for whichever program offers them.

use crate::{auction, callgrind::Runner, fills, margin, sweep, workload};
use clap::Subcommand;
use indicatif::ProgressBar;
use serde::Serialize;
use std::{error::Error, fmt::Display, io::IsTerminal as _, path::PathBuf, time::Duration};

/// What can be measured.
#[derive(Subcommand)]
pub enum Command {
    /// Instructions of a margin check.
    Margin(Counted),
    /// Instructions of a block's liquidation sweep: what they depend on, through a crash, after a gap.
    Sweep(Counted),
    /// Instructions and time of an auction: what they depend on, and the worst cases.
    Auction(Counted),
    /// Fills that the ledger settles in a second of one core, and the instructions of one.
    Fills(Counted),
    /// The auction beside published matching engines, on the same steps: time of a step, by a floor's.
    #[cfg(feature = "peers")]
    Peers {
        /// Orders that rest before the first step that counts.
        #[arg(long, default_value_t = 50_000)]
        resting: u32,
        /// Steps that count.
        #[arg(long, default_value_t = 200_000)]
        steps: u32,
        /// Repetitions.
        #[arg(long, default_value_t = 11)]
        repetitions: u32,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Execution and state root of full blocks over many accounts.
    #[cfg(feature = "chain")]
    Execution {
        /// Accounts, with two positions each.
        #[arg(long, default_value_t = 1_000_000)]
        accounts: u64,
        /// Actions a block: a quarter each of deposits, transfers, fills and withdrawals.
        #[arg(long, default_value_t = 10_000)]
        actions: u64,
        /// Blocks that count.
        #[arg(long, default_value_t = 10)]
        blocks: usize,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Orders through one validator, from their bytes to the state root: placed and cancelled, some filled.
    #[cfg(feature = "chain")]
    Orders {
        /// Accounts.
        #[arg(long, default_value_t = 10_000)]
        accounts: u64,
        /// Orders that each of them has resting before the first block that counts.
        #[arg(long, default_value_t = 20)]
        resting: u32,
        /// Orders that a block places or cancels.
        #[arg(long, default_value_t = 12_000)]
        requests: u32,
        /// Orders under one signature; several values run one after the other.
        #[arg(long, value_delimiter = ',', default_values_t = [20, 1])]
        batch: Vec<u32>,
        /// Blocks that count.
        #[arg(long, default_value_t = 10)]
        blocks: usize,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Memory of a validator with many accounts, and its restart after it was killed.
    #[cfg(feature = "chain")]
    Restart {
        /// Accounts, with two positions each.
        #[arg(long, default_value_t = 1_000_000)]
        accounts: u64,
        /// Program whose `validator` command is measured; this one if it has that command.
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// Rescues while trades come at up to ten times the capacity: four validator processes, real sockets.
    #[cfg(feature = "chain")]
    Overload {
        /// Trades a second while capacity is measured: more than it.
        #[arg(long, value_name = "PER_S", default_value_t = 20_000.0)]
        probe_rate: f64,
        /// Rescues a second.
        #[arg(long, value_name = "PER_S", default_value_t = 200.0)]
        rescue_rate: f64,
        /// Seconds of each point.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Program whose `validator` command is measured; this one if it has that command.
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// What sends actions for `overload`.
    #[cfg(feature = "chain")]
    #[command(hide = true)]
    OverloadGenerator {
        /// Addresses of validators, in JSON.
        submit: String,
    },
    /// Finality of simulated networks of 4 and 10 regions against the bound that distance sets.
    #[cfg(feature = "chain")]
    Finality {
        /// Simulated seconds of each network.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Actions a block, whose cost is charged; several values run several networks.
        #[arg(long, value_delimiter = ',', default_values_t = [0, 200, 1_000])]
        actions: Vec<u32>,
        /// Seed of the runs.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// How the result is shown.
        #[command(flatten)]
        output: Output,
    },
    /// What work costs on this machine, as in `storms/calibration.toml`.
    #[cfg(feature = "chain")]
    Calibrate {
        /// Accounts over which actions are executed.
        #[arg(long, default_value_t = 1_000_000)]
        accounts: u64,
    },
    /// What runs under valgrind.
    #[command(hide = true)]
    Workload {
        /// Which one, in JSON.
        workload: String,
    },
}

/// How results are shown.
#[derive(Clone, Copy, clap::Args)]
pub struct Output {
    /// Prints one object and nothing else.
    #[arg(long)]
    json: bool,
}

/// Options of what is counted under callgrind.
#[derive(clap::Args)]
pub struct Counted {
    #[command(flatten)]
    output: Output,
    /// Keeps callgrind's files here, for callgrind_annotate.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// The program that offers these commands.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Arguments that lead to them.
    pub prefix: &'a [&'a str],
    /// Whether it has a `validator` command.
    pub validates: bool,
}

/// Runs one.
///
/// # Errors
/// If it cannot be measured; the text says why and what to do.
pub fn run(command: Command, host: Host<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let progress =
        if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    progress.enable_steady_tick(Duration::from_millis(200));
    let counted = |options: &Counted| -> Result<Runner, Box<dyn Error + Send + Sync>> {
        let arguments = host.prefix.iter().copied().chain(["workload"]);
        Ok(Runner::this_program(arguments)?.keeping(options.keep.clone()))
    };
    match command {
        Command::Margin(options) => {
            show(&margin::run(&counted(&options)?, &progress)?, options.output, &progress)
        }
        Command::Sweep(options) => {
            show(&sweep::run(&counted(&options)?, &progress)?, options.output, &progress)
        }
        Command::Fills(options) => {
            show(&fills::run(&counted(&options)?, &progress)?, options.output, &progress)
        }
        Command::Auction(options) => {
            show(&auction::run(&counted(&options)?, &progress)?, options.output, &progress)
        }
        #[cfg(feature = "peers")]
        Command::Peers { resting, steps, repetitions, output } => {
            let spec = crate::peers::Spec { resting, steps, repetitions };
            show(&crate::peers::run(&spec, &progress)?, output, &progress)
        }
        #[cfg(feature = "chain")]
        Command::Execution { accounts, actions, blocks, output } => {
            let spec = crate::execution::Spec { accounts, actions, blocks };
            show(&crate::execution::run(&spec, &progress)?, output, &progress)
        }
        #[cfg(feature = "chain")]
        Command::Orders { accounts, resting, requests, batch, blocks, output } => {
            for batch in batch {
                let spec = crate::orders::Spec { accounts, resting, requests, batch, blocks };
                show(&crate::orders::run(&spec, &progress)?, output, &progress)?;
            }
            Ok(())
        }
        #[cfg(feature = "chain")]
        Command::Restart { accounts, program, output } => {
            let program = program_of(program, host)?;
            show(&crate::restart::run(accounts, &program, &progress)?, output, &progress)
        }
        #[cfg(feature = "chain")]
        Command::Overload { probe_rate, rescue_rate, seconds, program, output } => {
            let spec = crate::overload::Spec { probe_per_s: probe_rate, rescue_per_s: rescue_rate, seconds };
            let program = program_of(program, host)?;
            show(&crate::overload::run(&spec, &program, host.prefix, &progress)?, output, &progress)
        }
        #[cfg(feature = "chain")]
        Command::OverloadGenerator { submit } => Ok(crate::overload::generate(&submit)?),
        #[cfg(feature = "chain")]
        Command::Finality { seconds, actions, seed, output } => {
            let calibration = seawall_storm::calibration::Calibration::committed()?;
            let mut reports = Vec::new();
            for regions in [&seawall_storm::topology::FOUR[..], &seawall_storm::topology::TEN[..]] {
                let topology = seawall_storm::topology::Topology::aws(regions)?;
                for &actions in &actions {
                    let spec = crate::finality::Spec { seconds, actions, seed };
                    reports.push(crate::finality::run(&topology, &calibration, &spec, &progress)?);
                }
            }
            show(&crate::finality::Reports(reports), output, &progress)
        }
        #[cfg(feature = "chain")]
        Command::Calibrate { accounts } => {
            let measured = crate::calibration::measure(accounts, &progress)?;
            progress.finish_and_clear();
            print!("{}", toml::to_string(&measured)?);
            Ok(())
        }
        Command::Workload { workload } => Ok(workload::work(&workload)?),
    }
}

/// The program whose `validator` command is measured.
#[cfg(feature = "chain")]
fn program_of(program: Option<PathBuf>, host: Host<'_>) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    match program {
        Some(program) => Ok(program),
        None if host.validates => Ok(std::env::current_exe()?),
        None => Err("name the program to measure: --program target/release/seawall".into()),
    }
}

fn show<R: Serialize + Display>(
    report: &R,
    output: Output,
    progress: &ProgressBar,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    progress.finish_and_clear();
    if output.json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
