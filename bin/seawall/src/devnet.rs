//! `seawall devnet`.

use crate::display::{Plain, Terminal, summary};
use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args as ClapArgs;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use seawall_devnet::network::{self as devnet, Display, Options};
use seawall_node::{genesis_file::GENESIS_FILE, stdio::ZoneTrial};
use seawall_replay::{ClockTime, traffic::TrafficSpec};
use std::{
    io::IsTerminal as _,
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Validators that one machine can be asked to run.
const MAX_LOCAL_VALIDATORS: usize = 32;

/// Options of the devnet.
#[derive(ClapArgs)]
pub struct Args {
    /// Validators.
    #[arg(long, default_value_t = 4)]
    validators: usize,
    /// Accounts with leveraged positions.
    #[arg(long, default_value_t = 100_000)]
    accounts: usize,
    /// Seed of keys, opening book and owners' behaviour.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Recorded crash to replay; `seawall replay list` names them.
    #[arg(long, default_value = seawall_replay::DEFAULT_REPLAY)]
    replay: String,
    /// Replay from this minute (UTC).
    #[arg(long, value_name = "HH:MM")]
    from: Option<ClockTime>,
    /// Replay to this minute (UTC, exclusive).
    #[arg(long, value_name = "HH:MM")]
    to: Option<ClockTime>,
    /// Replayed seconds a second.
    #[arg(long, default_value_t = 60)]
    speed: u32,
    /// Wall time between blocks, at least.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    interval_ms: u64,
    /// Where validators keep their files. [default: a fresh directory under runs/]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Run each validator as a process of its own.
    #[arg(long)]
    processes: bool,
    /// Print one JSON object, last on stdout.
    #[arg(long)]
    json: bool,
    /// Go on after the replay, until interrupted.
    #[arg(long)]
    keep: bool,
    /// Kill a validator: `2@20s`. Can be given several times.
    #[arg(long, value_name = "VALIDATOR@TIME", value_parser = validator_event)]
    kill: Vec<(usize, Duration)>,
    /// Start a killed validator again: `2@35s`. Can be given several times.
    #[arg(long, value_name = "VALIDATOR@TIME", value_parser = validator_event)]
    restart: Vec<(usize, Duration)>,
    /// Trade: the recorded tape laid around the prices of every market, and market makers.
    #[arg(long)]
    traffic: bool,
    /// Pace of the tape, in percent of the recorded one. Market makers follow prices at their own.
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    traffic_rate: u32,
    /// Zones over which the markets are spread.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    zones: u8,
    /// Kill a zone on every validator: `1@20s`. Can be given several times.
    #[arg(long, value_name = "ZONE@TIME", value_parser = zone_event, requires = "traffic")]
    kill_zone: Vec<(u8, Duration)>,
    /// Start a killed zone again: `1@35s`. Can be given several times.
    #[arg(long, value_name = "ZONE@TIME", value_parser = zone_event, requires = "traffic")]
    restart_zone: Vec<(u8, Duration)>,
    /// Make the auctions of a zone a hundred times as slow on every validator, burning the processor: `1@20s`.
    #[arg(long, value_name = "ZONE@TIME", value_parser = zone_event, requires = "traffic")]
    slow_zone: Vec<(u8, Duration)>,
    /// Afterwards, execute the same history again with a scan of every account in every block, and compare.
    #[arg(long)]
    check_reference: bool,
}

fn event<T: FromStr>(text: &str) -> Result<(T, Duration), String> {
    let (number, time) = text.split_once('@').ok_or("write it as NUMBER@TIME, like 2@20s")?;
    let number = number.parse().map_err(|_| format!("{number} is no number of one"))?;
    let time = humantime::parse_duration(time).map_err(|error| format!("{time}: {error}"))?;
    Ok((number, time))
}

fn validator_event(text: &str) -> Result<(usize, Duration), String> {
    event(text)
}

fn zone_event(text: &str) -> Result<(u8, Duration), String> {
    event(text)
}

/// How much slower `--slow-zone` makes auctions.
const SLOWER: u32 = 100;

/// Exit code of a run that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;

/// Runs the devnet and prints what came of it.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.validators == 0 || args.validators > MAX_LOCAL_VALIDATORS {
        bail!("--validators must be between 1 and {MAX_LOCAL_VALIDATORS}");
    }
    if args.accounts == 0 {
        bail!("--accounts must be at least 1");
    }
    if args.speed == 0 {
        bail!("--speed must be at least 1");
    }
    let replay = seawall_replay::load(&args.replay, args.from, args.to)?;
    let root = PathBuf::from("runs");
    let data = match args.data {
        Some(data) => data,
        None => {
            let data = root.join(format!("{}-{}", replay.name, args.seed)).join("data");
            if data.exists() {
                std::fs::remove_dir_all(&data)
                    .with_context(|| format!("cannot remove the last run's {}", data.display()))?;
            }
            data
        }
    };
    if data.join(GENESIS_FILE).exists() {
        bail!("{} holds an earlier devnet; name another directory, or remove it", data.display());
    }
    for directory in [&data, &root] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }

    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|error| anyhow!("cannot listen for interrupts: {error}"))?;

    let traffic = args.traffic.then(|| TrafficSpec {
        // A percent is ten thousand millionths.
        rate_ppm: args.traffic_rate * 10_000,
        ..TrafficSpec::default()
    });
    let of = |events: Vec<(u8, Duration)>, trial| events.into_iter().map(move |(zone, at)| (zone, at, trial));
    let trials = of(args.kill_zone, ZoneTrial::Kill)
        .chain(of(args.restart_zone, ZoneTrial::Start))
        .chain(of(args.slow_zone, ZoneTrial::Slow(SLOWER)))
        .collect();
    let options = Options {
        validators: args.validators,
        accounts: args.accounts,
        seed: args.seed,
        speed: args.speed,
        data,
        interval: Duration::from_millis(args.interval_ms),
        keep: args.keep,
        kills: args.kill,
        restarts: args.restart,
        processes: if args.processes {
            Some(std::env::current_exe().context("cannot find this program")?)
        } else {
            None
        },
        check_reference: args.check_reference,
        zones: args.zones,
        traffic,
        trials,
    };
    let mut display: Box<dyn Display> = if std::io::stderr().is_terminal() && !args.json {
        Box::new(Terminal::new())
    } else {
        Box::new(Plain::new())
    };
    let report = devnet::run(replay, options, display.as_mut(), &interrupted)?;
    drop(display);
    let path = devnet::write_report(&root, &report)?;
    if !args.json {
        println!("{}", summary(&report));
        println!("report: {}", path.display());
    }
    for broken in &report.broken {
        eprintln!("broken: {broken}");
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(match report.broken.last() {
        None if report.interrupted => {
            eprintln!("seawall: interrupted before the replay was over");
            ExitCode::from(INTERRUPTED)
        }
        None => ExitCode::SUCCESS,
        Some(broken) => {
            if !args.json {
                println!("invariant broken: {broken}");
            }
            ExitCode::FAILURE
        }
    })
}

/// Prints the catalogue of replays.
pub fn list_replays() {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["name", "what", "minutes", "markets", "venues"]);
    for replay in seawall_replay::catalog() {
        table.add_row([
            replay.name.to_owned(),
            replay.title.to_owned(),
            ((replay.end_ms - replay.start_ms) / 60_000).to_string(),
            replay.assets.len().to_string(),
            replay.venues.to_string(),
        ]);
    }
    println!("{table}");
}
