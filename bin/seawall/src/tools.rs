//! The commands around a validator: making its files, running it, looking into what it left.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use seawall_chain::{app::BuildPolicy, timeline::Timeline};
use seawall_devnet::{
    network::{CHAIN, leader_turn_ms},
    scenario::{self, Spec},
};
use seawall_node::{
    config_file::{LogConfig, MAX_INTERVAL_MS, ReplayConfig, ValidatorConfig},
    export, genesis_file,
    inspect::{self, Query},
    keys::Keys,
    log,
    process::wall_ms,
    stdio,
    verify::{self, Progress, Verified},
};
use seawall_replay::{ClockTime, assign_feeds};
use seawall_types::{AccountId, Height};
use std::{
    io::IsTerminal as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Makes the files of a network over a recorded crash: genesis, accounts, and for each validator its keys
/// and configuration.
#[derive(Args)]
pub struct GenesisArgs {
    /// Directory for the files; must not hold a genesis yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Validators.
    #[arg(long, default_value_t = 4)]
    validators: usize,
    /// Accounts with leveraged positions.
    #[arg(long, default_value_t = 100_000)]
    accounts: usize,
    /// Seed of keys, opening book and group key. Anybody who knows it knows every key.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Recorded crash.
    #[arg(long, default_value = seawall_replay::DEFAULT_REPLAY)]
    replay: String,
    /// From this minute (UTC).
    #[arg(long, value_name = "HH:MM")]
    from: Option<ClockTime>,
    /// To this minute (UTC, exclusive).
    #[arg(long, value_name = "HH:MM")]
    to: Option<ClockTime>,
    /// Replayed seconds a second.
    #[arg(long, default_value_t = 60)]
    speed: u32,
    /// Zones over which the markets are spread.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    zones: u8,
    /// Seconds from now at which the replay begins.
    #[arg(long, default_value_t = 15)]
    starts_in_s: u64,
    /// Wall time between blocks, at least.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    interval_ms: u64,
    /// Validator i listens on this port + i of the loopback address.
    #[arg(long, default_value_t = 7_000)]
    port: u16,
}

/// A year, in seconds: a start further away is a mistake.
const MAX_START_S: u64 = 366 * 86_400;

/// Writes the files of a network.
pub fn genesis(args: GenesisArgs) -> Result<ExitCode> {
    let replay = seawall_replay::load(&args.replay, args.from, args.to)?;
    if args.out.join(genesis_file::GENESIS_FILE).exists() {
        bail!("{} holds a genesis already", args.out.display());
    }
    // Everything that a validator would refuse, before a file is written.
    if args.speed == 0 {
        bail!("--speed must be at least 1");
    }
    if args.interval_ms > MAX_INTERVAL_MS {
        bail!("--interval-ms must be at most {MAX_INTERVAL_MS}");
    }
    if args.starts_in_s > MAX_START_S {
        bail!("--starts-in-s must be at most {MAX_START_S}");
    }
    if usize::from(u16::MAX - args.port) + 1 < args.validators {
        bail!("--port {} is too high for {} validators", args.port, args.validators);
    }
    let spec = Spec {
        chain: CHAIN,
        validators: args.validators,
        accounts: args.accounts,
        seed: args.seed,
        leader_turn_ms: leader_turn_ms(Duration::from_millis(args.interval_ms), args.speed),
        zones: args.zones,
        speed: args.speed,
        traffic: None,
    };
    let scenario = scenario::build(&replay, &spec)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let commitment = genesis_file::commitment(&scenario.genesis)?;
    let path = genesis_file::write(&args.out, &scenario.genesis, &commitment)?;
    println!("{}", path.display());
    let [now, most] = scenario.genesis.rescue_budgets();
    println!("rescues: {now}");
    println!("rescues, worst case: {most}");
    let feeds = assign_feeds(&replay, args.validators, args.seed);
    let mut peers = Vec::new();
    for (index, (identity, _)) in scenario.dealt.members.iter().enumerate() {
        let port = args
            .port
            .checked_add(u16::try_from(index).context("too many validators")?)
            .context("--port is too high for so many validators")?;
        peers.push((identity.public(), SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }
    let timeline = Timeline {
        wall_origin_ms: wall_ms() + args.starts_in_s * 1_000,
        chain_origin_ms: replay.start_ms,
        speed: args.speed,
    };
    for (index, (identity, share)) in scenario.dealt.members.into_iter().enumerate() {
        let keys = args.out.join(format!("keys-{index}.toml"));
        Keys { identity, share }.write(&keys)?;
        let config = ValidatorConfig {
            genesis: path.file_name().map(PathBuf::from).unwrap_or_default(),
            keys: PathBuf::from(format!("keys-{index}.toml")),
            data: PathBuf::from(format!("data-{index}")),
            listen: peers[index].1,
            block_interval: Duration::from_millis(args.interval_ms),
            metrics: None,
            submit: None,
            timeline,
            replay: Some(ReplayConfig { name: args.replay.clone(), feeds: feeds[index].clone() }),
            log: LogConfig::default(),
            peers: peers.clone(),
        };
        let path = args.out.join(format!("validator-{index}.toml"));
        config.write(&path)?;
        println!("{}", path.display());
    }
    println!("the group key was dealt by this program: for development networks only");
    Ok(ExitCode::SUCCESS)
}

/// Runs one validator.
#[derive(Args)]
pub struct ValidatorArgs {
    /// Its configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write each final block to standard output and take actions from standard input, as lines of hex.
    #[arg(long)]
    stdio: bool,
}

/// Runs one validator until it is interrupted.
pub fn validator(args: ValidatorArgs) -> Result<ExitCode> {
    let config = ValidatorConfig::read(&args.config)?;
    log::start(&config.log)?;
    let policy = BuildPolicy { interval: config.block_interval, ..BuildPolicy::default() };
    stdio::run(&config, policy, args.stdio)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the public part of a file of keys, after checking all of it.
#[derive(Args)]
pub struct KeysArgs {
    /// The file.
    file: PathBuf,
}

/// Shows a file of keys.
pub fn keys(args: KeysArgs) -> Result<ExitCode> {
    let (keys, warnings) = Keys::read(&args.file)?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    println!("public key   {}", keys.identity.key());
    println!("share index  {}", keys.share.index.get());
    Ok(ExitCode::SUCCESS)
}

/// What a data directory belongs to.
#[derive(Args)]
pub struct Directory {
    /// The data directory of a stopped validator.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The genesis file of its chain. [default: genesis.json in the directory above]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

type Loaded = (seawall_chain::genesis::Genesis, seawall_chain::store::StateCommitment);

fn load_genesis(data: &Path, genesis: Option<&Path>) -> Result<Loaded> {
    let path = genesis.map_or_else(
        || data.parent().unwrap_or(Path::new(".")).join(genesis_file::GENESIS_FILE),
        Path::to_path_buf,
    );
    Ok(genesis_file::read(&path)?)
}

/// Looks into a data directory.
#[derive(Args)]
pub struct InspectArgs {
    #[command(flatten)]
    directory: Directory,
    /// An account, by number.
    #[arg(long, group = "what")]
    account: Option<u64>,
    /// A market, by name or number.
    #[arg(long, group = "what")]
    market: Option<String>,
    /// A final block, by height.
    #[arg(long, group = "what")]
    block: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Looks into a data directory.
pub fn inspect(args: InspectArgs) -> Result<ExitCode> {
    let (genesis, commitment) = load_genesis(&args.directory.data, args.directory.genesis.as_deref())?;
    let query = match (args.account, args.market, args.block) {
        (Some(account), _, _) => Query::Account(AccountId(account)),
        (_, Some(market), _) => Query::Market(market),
        (_, _, Some(block)) => Query::Block(Height(block)),
        _ => Query::Summary,
    };
    let report = inspect::inspect(&args.directory.data, &genesis, &commitment, &query)?;
    if args.json {
        println!("{}", report.json())
    } else {
        print!("{report}")
    }
    Ok(ExitCode::SUCCESS)
}

fn bar() -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(
        ProgressStyle::with_template("{bar:40.cyan/blue} block {pos} of {len}  {eta} left")
            .expect("the template is constant"),
    );
    bar
}

fn show(bar: &ProgressBar) -> impl FnMut(Progress) + Send + use<> {
    let bar = bar.clone();
    move |progress| {
        bar.set_length(progress.last.get());
        bar.set_position(progress.height.get());
    }
}

fn told(verified: &Verified) {
    println!("blocks        {}", verified.height);
    println!("certificates  {}", verified.certificates);
    println!("actions       {}", verified.actions);
    println!("last block    {}", verified.digest);
    println!("state root    {}", verified.state_root);
}

/// Executes a chain again from genesis and compares every root.
#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    directory: Directory,
}

/// Verifies a chain.
pub fn verify(args: VerifyArgs) -> Result<ExitCode> {
    let (genesis, commitment) = load_genesis(&args.directory.data, args.directory.genesis.as_deref())?;
    let bar = bar();
    let verified = verify::verify(&args.directory.data, &genesis, &commitment, show(&bar))?;
    bar.finish_and_clear();
    told(&verified);
    println!("every certificate and every root holds");
    Ok(ExitCode::SUCCESS)
}

/// Writes the final blocks of a chain to one file.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    directory: Directory,
    /// The file; must not exist.
    file: PathBuf,
}

/// Exports a chain.
pub fn export(args: ExportArgs) -> Result<ExitCode> {
    let (genesis, commitment) = load_genesis(&args.directory.data, args.directory.genesis.as_deref())?;
    let bar = bar();
    let exported = export::export(&args.directory.data, &genesis, &commitment, &args.file, show(&bar))?;
    bar.finish_and_clear();
    println!("{} blocks, {} bytes, sha256 {}", exported.height, exported.bytes, exported.sha256);
    Ok(ExitCode::SUCCESS)
}

/// Verifies an exported chain and builds a data directory from it.
#[derive(Args)]
pub struct ImportArgs {
    /// The file.
    file: PathBuf,
    /// The directory to build; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The genesis file of the chain. [default: genesis.json in the directory above]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

/// Imports a chain.
pub fn import(args: ImportArgs) -> Result<ExitCode> {
    let (genesis, commitment) = load_genesis(&args.data, args.genesis.as_deref())?;
    let bar = bar();
    let verified = export::import(&args.file, &genesis, &commitment, &args.data, show(&bar))?;
    bar.finish_and_clear();
    told(&verified);
    Ok(ExitCode::SUCCESS)
}
