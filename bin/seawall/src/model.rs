//! `seawall model`: what the queueing model predicts.

use anyhow::Result;
use seawall_node::{genesis_file, model::Spec};
use std::{path::PathBuf, process::ExitCode};

/// Predicts for each lane delay, loss and worst case, and how long risk lets an action take.
#[derive(clap::Args)]
pub struct Args {
    /// Takes the number of validators and the highest leverage from this genesis file.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Rescues a second.
    #[arg(long, default_value_t = Spec::default().rescue_per_s)]
    rescues: f64,
    /// Trades a second.
    #[arg(long, default_value_t = Spec::default().trade_per_s)]
    trades: f64,
    /// Rescues that admission lets through at once; needed for a worst case.
    #[arg(long, requires = "rescue_refill")]
    rescue_burst: Option<f64>,
    /// Rescues a second that admission lets through for good.
    #[arg(long, requires = "rescue_burst")]
    rescue_refill: Option<f64>,
    /// Trades that admission lets through at once; needed for a worst case.
    #[arg(long, requires = "trade_refill")]
    trade_burst: Option<f64>,
    /// Trades a second that admission lets through for good.
    #[arg(long, requires = "trade_burst")]
    trade_refill: Option<f64>,
    /// Validators. [default: 4]
    #[arg(long, conflicts_with = "genesis")]
    validators: Option<u32>,
    /// Mean time between blocks.
    #[arg(long, value_name = "MS", default_value_t = Spec::default().interval_ms)]
    interval_ms: f64,
    /// Variance of that time, by its mean squared.
    #[arg(long, default_value_t = Spec::default().interval_scv)]
    interval_scv: f64,
    /// Actions that a block takes. [default: what a core checks and executes between two blocks]
    #[arg(long)]
    places: Option<u32>,
    /// Cores that check signatures.
    #[arg(long, default_value_t = Spec::default().cores)]
    cores: u32,
    /// From a checked action to the pools of the next leaders.
    #[arg(long, value_name = "MS", default_value_t = Spec::default().relay_ms)]
    relay_ms: f64,
    /// From a block to its finality.
    #[arg(long, value_name = "MS", default_value_t = Spec::default().finality_ms)]
    finality_ms: f64,
    /// Volatility of a year, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = Spec::default().volatility_percent)]
    volatility: f64,
    /// Leverage of the position that waits. [default: 20, or the highest of the genesis file]
    #[arg(long)]
    leverage: Option<f64>,
    /// How likely it may be that it goes bankrupt while an action waits.
    #[arg(long, value_name = "PROBABILITY", default_value_t = Spec::default().target)]
    target: f64,
    /// Print one object.
    #[arg(long)]
    json: bool,
}

/// Predicts.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut spec = Spec::default();
    if let Some(path) = &args.genesis {
        spec = spec.of(&genesis_file::read(path)?.0);
    }
    let spec = Spec {
        validators: args.validators.unwrap_or(spec.validators),
        interval_ms: args.interval_ms,
        interval_scv: args.interval_scv,
        places: args.places,
        cores: args.cores,
        relay_ms: args.relay_ms,
        finality_ms: args.finality_ms,
        rescue_per_s: args.rescues,
        trade_per_s: args.trades,
        rescue_bucket: args.rescue_burst.zip(args.rescue_refill),
        trade_bucket: args.trade_burst.zip(args.trade_refill),
        volatility_percent: args.volatility,
        leverage: args.leverage.unwrap_or(spec.leverage),
        target: args.target,
    };
    let report = spec.predict()?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}
