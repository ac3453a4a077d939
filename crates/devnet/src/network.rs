//! A whole network on one machine: validators, price feeds, account owners, a follower that checks them.

use crate::{
    follower::Follower,
    scenario::{self, ATOMS_PER_USD, ISSUER, Scenario, Spec, account_key},
};
use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_utils::channel::oneshot;
use hdrhistogram::Histogram;
use seawall_chain::{
    app::{BuildPolicy, Monitor},
    block::{Block, PublicKey},
    crypto::Identity,
    engine::Timeouts,
    machine::Step,
    store::StateCommitment,
    timeline::Timeline,
};
use seawall_ledger::Compartment;
use seawall_node::{
    config_file::{ReplayConfig, ValidatorConfig},
    feeds::ReplaySource,
    files::from_hex,
    genesis_file,
    keys::Keys,
    log,
    process::{self, Options as NodeOptions, Running, wall_ms},
    stdio::ZoneTrial,
};
use seawall_replay::{
    Replay, assign_feeds,
    behaviour::{Behaviour, BehaviourSpec, HealthView, Intent},
    traffic::{AccountView, OpenOrder, Traffic, TrafficSpec, View},
};
use seawall_types::{
    AccountId, Action, Atoms, ChainId, Digest, Domain, Height, Nonce, PriceState, Recipient, Side, Signature,
    SignedAction,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Chain id of development networks.
pub const CHAIN: ChainId = ChainId(0x5ea_da11);
/// Blocks for which an owner's action stays valid.
const ACTION_LIFETIME_BLOCKS: u64 = 16;
/// How often owners look at their accounts: each time a share of them, everybody once a second.
const OWNER_TICK: Duration = Duration::from_millis(100);
const OWNER_SHARES: u64 = 10;
/// Messages from validators that wait for the follower. At the limit validators wait for it.
const MAX_REPORTS: usize = 4_096;
/// How long validators may take to reach the last height once the replay is over.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How long a chain may stand still, with nobody about to be restarted, before the run is given up.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Equity over maintenance margin, in parts per million, below which an account counts as at risk.
const AT_RISK_PPM: u32 = 1_500_000;

/// What a devnet is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Validators.
    pub validators: usize,
    /// Accounts with a position.
    pub accounts: usize,
    /// Seed of keys, book and owners.
    pub seed: u64,
    /// Milliseconds of replayed time a millisecond of wall time.
    pub speed: u32,
    /// Where validators keep their files: empty, as a follower executes the chain from its first block.
    pub data: PathBuf,
    /// Wall time between blocks, at least.
    pub interval: Duration,
    /// Go on after the replay, until stopped.
    pub keep: bool,
    /// Which validators are killed when, counted from the start.
    pub kills: Vec<(usize, Duration)>,
    /// Which are started again when.
    pub restarts: Vec<(usize, Duration)>,
    /// Run validators as processes of this program instead of threads.
    pub processes: Option<PathBuf>,
    /// Run the full-scan reference afterwards.
    pub check_reference: bool,
    /// Over how many zones the markets are spread.
    pub zones: u8,
    /// Orders to send.
    pub traffic: Option<TrafficSpec>,
    /// What is done to which zone of every validator, and when.
    pub trials: Vec<(u8, Duration, ZoneTrial)>,
}

/// How orders go, for the display.
#[derive(Clone, Debug, Default)]
pub struct OrdersView {
    /// Orders that settlement took.
    pub placed: u64,
    /// Fills.
    pub fills: u64,
    /// What was bought, dollars.
    pub volume_usd: f64,
    /// Blocks that the slowest zone is behind.
    pub lag_blocks: u64,
    /// Fills of liquidation closes.
    pub closes: u64,
    /// Inboxes that became void.
    pub voided: u64,
    /// By market: what rests within 1 % of the mark, dollars bid and asked.
    pub depth_usd: Vec<(f64, f64)>,
}

/// What the display shows.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Share of the replay that has passed, in thousandths.
    pub progress_permille: u64,
    /// Replayed time, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Height.
    pub height: u64,
    /// Blocks a second, over the last second.
    pub blocks_per_s: f64,
    /// Finality percentiles, milliseconds on the wall.
    pub finality_ms: (f64, f64),
    /// Symbol, price in dollars, state.
    pub markets: Vec<(String, f64, PriceState)>,
    /// Accounts below one and a half times maintenance.
    pub at_risk: u64,
    /// Accounts liquidated so far.
    pub liquidated: u64,
    /// Legs taken over by backstops.
    pub backstop: u64,
    /// Insurance fund, dollars.
    pub insurance_usd: f64,
    /// Positions deleveraged.
    pub adl: u64,
    /// Deficits, dollars.
    pub bad_debt_usd: f64,
    /// Whether every atom is accounted for.
    pub conserved: bool,
    /// Which validators run.
    pub running: Vec<bool>,
    /// Top-ups and withdrawals so far.
    pub owners: (u64, u64),
    /// Orders, where there are any.
    pub orders: Option<OrdersView>,
}

/// Told how a devnet goes.
pub trait Display {
    /// Something happened, once.
    fn note(&mut self, text: &str);
    /// How it stands, about every 200 ms.
    fn update(&mut self, snapshot: &Snapshot);
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Delays in blocks.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Delays {
    /// Median.
    pub p50: u64,
    /// Longest.
    pub max: u64,
}

/// A market at the end.
#[derive(Clone, Debug, Serialize)]
pub struct MarketReport {
    /// Symbol.
    pub symbol: String,
    /// Seconds of replayed time in which its price was not Fresh.
    pub non_fresh_seconds: f64,
    /// Share of the replay in which it was.
    pub fresh_share: f64,
    /// State at the end.
    pub state: &'static str,
    /// Last price, dollars.
    pub price_usd: f64,
}

/// What a run ended with.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seed.
    pub seed: u64,
    /// Replay.
    pub replay: String,
    /// Validators.
    pub validators: usize,
    /// Accounts of the opening book.
    pub accounts: usize,
    /// Markets.
    pub markets: Vec<MarketReport>,
    /// What is not real data.
    pub synthetic: Vec<&'static str>,
    /// Final blocks.
    pub blocks: u64,
    /// Replayed time.
    pub replayed_minutes: u64,
    /// Wall time from the start of a proposal to its finalisation at its proposer.
    pub finality_ms: Percentiles,
    /// Compartments worked on by the liquidation ladder.
    pub liquidations: u64,
    /// Accounts liquidated at least once.
    pub accounts_liquidated: u64,
    /// First ladder step less first breach at a fresh price.
    pub liquidation_delay_blocks: Delays,
    /// Blocks whose liquidation budget did not suffice.
    pub budget_hits: u64,
    /// Top-ups.
    pub top_ups: u64,
    /// Withdrawals.
    pub withdrawals: u64,
    /// Transfers.
    pub transfers: u64,
    /// Legs taken over by backstops.
    pub backstop_takeovers: u64,
    /// Deficits found.
    pub bad_debt_atoms: i128,
    /// Deficits charged to deleveraged positions or left to nobody.
    pub socialised_atoms: i128,
    /// Insurance fund at the end.
    pub insurance_fund_atoms: i128,
    /// Positions deleveraged.
    pub adl_events: u64,
    /// Seconds in which any market was not Fresh, summed over markets.
    pub non_fresh_seconds: f64,
    /// Largest shortfall left waiting after a block.
    pub unliquidated_breach_atoms_max: i128,
    /// Legs liquidated without a fresh price.
    pub stale_price_liquidations: u64,
    /// Orders that settlement took.
    pub orders: u64,
    /// Orders that it refused inside bulk actions.
    pub orders_refused: u64,
    /// Fills: both sides of a trade.
    pub fills: u64,
    /// What was bought in auctions, at their prices.
    pub volume_atoms: i128,
    /// How far zones were behind after blocks, where they owed an outcome.
    pub zone_lag_blocks: Delays,
    /// Inboxes without an outcome in time.
    pub auctions_voided: u64,
    /// Fills of liquidation closes.
    pub liquidation_closes_in_auction: u64,
    /// What these lost against the mark of their auction, weighted by volume; null if there were none.
    pub liquidation_slippage_bps: Option<f64>,
    /// What changed with the first trial of a zone; null without one.
    pub zone_trial: Option<TrialReport>,
    /// Whether every atom is accounted for.
    pub conserved: bool,
    /// Heights with two final blocks.
    pub forks: u64,
    /// State root of the last block.
    pub state_root: String,
    /// Height of the last block.
    pub height: u64,
    /// Whether the full-scan reference agreed; absent if it was not asked.
    pub reference_agrees: Option<bool>,
    /// Wall time of the run.
    pub wall_s: f64,
    /// Largest resident memory of the processes.
    pub peak_rss_mb: u64,
    /// Whether it was interrupted before the replay was over.
    pub interrupted: bool,
    /// Invariants that broke; empty in a good run.
    pub broken: Vec<String>,
}

/// Finality and liquidation before and after a zone was harmed on every validator.
#[derive(Clone, Debug, Serialize)]
pub struct TrialReport {
    /// What was done.
    pub trial: String,
    /// Seconds after the start.
    pub at_s: f64,
    /// Finality before.
    pub finality_ms_before: Percentiles,
    /// Finality after.
    pub finality_ms_after: Percentiles,
    /// Liquidation delays before.
    pub liquidation_delay_blocks_before: Delays,
    /// Liquidation delays after.
    pub liquidation_delay_blocks_after: Delays,
    /// Whether the medians of finality and of the delay are less than 10 % worse than before; null if nothing was final
    /// before.
    pub within_ten_percent: Option<bool>,
}

/// What validators tell the devnet.
enum Told {
    Final(usize, Box<Block>),
    Finality(Duration),
    Ready(usize, Box<Link>),
    Ended(usize, Result<()>),
}

struct Reporter {
    index: usize,
    sender: mpsc::SyncSender<Told>,
}

impl Monitor for Reporter {
    fn finalized(&self, block: &Block, _: Digest, _: &Step) {
        // A closed channel means that the devnet is over.
        let _ = self.sender.send(Told::Final(self.index, Box::new(block.clone())));
    }
}

/// How actions reach a validator.
enum Link {
    Thread(Running),
    Process(ChildStdin),
}

impl Link {
    fn submit(&mut self, action: SignedAction) {
        match self {
            Self::Thread(running) => {
                if let Err(error) = running.submitter.submit(action) {
                    tracing::debug!(%error, "an owner's action was not taken");
                }
            }
            Self::Process(input) => {
                // A process that is gone is noticed by the thread that reads its output.
                let _ = writeln!(input, "{}", hex(&action.encode())).and_then(|()| input.flush());
            }
        }
    }
}

impl Link {
    fn inflict(&mut self, zone: u8, trial: ZoneTrial) {
        match self {
            Self::Thread(running) => trial.inflict(&running.zones, zone),
            Self::Process(input) => {
                let _ = writeln!(input, "{}", trial.line(zone)).and_then(|()| input.flush());
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[derive(Default)]
struct Node {
    stop: Option<oneshot::Sender<()>>,
    child: Option<Child>,
    thread: Option<thread::JoinHandle<()>>,
    running: Option<Box<Link>>,
}

impl Node {
    /// Ends the validator at once: a process by a signal that it cannot handle, a thread by dropping its
    /// runtime. Neither can write anything more.
    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.running = None;
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn peak_rss_mb(&self) -> u64 {
        self.child.as_ref().map_or(0, |child| peak_rss_mb(&child.id().to_string()))
    }
}

/// Reads what a validator process says until it ends.
fn read_process(
    index: usize,
    output: ChildStdout,
    input: ChildStdin,
    sender: &mpsc::SyncSender<Told>,
) -> Result<()> {
    let mut input = Some(input);
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("final", text)) => {
                let bytes = from_hex(text).map_err(|error| anyhow!("a final block: {error}"))?;
                let block = Block::decode(Bytes::from(bytes)).context("a final block does not decode")?;
                sender.send(Told::Final(index, Box::new(block)))?;
            }
            Some(("finality_us", text)) => {
                let _ = sender.try_send(Told::Finality(Duration::from_micros(text.parse()?)));
            }
            None if line == "ready" => {
                if let Some(input) = input.take() {
                    sender.send(Told::Ready(index, Box::new(Link::Process(input))))?;
                }
            }
            _ => bail!("said something unknown: {line}"),
        }
    }
    bail!("its process ended")
}

struct Network {
    scenario: Scenario,
    genesis: Arc<seawall_chain::genesis::Genesis>,
    commitment: StateCommitment,
    replay: Arc<Replay>,
    feeds: Vec<Vec<usize>>,
    addresses: Vec<(PublicKey, SocketAddr)>,
    timeline: Timeline,
    options: Options,
    sender: mpsc::SyncSender<Told>,
    nodes: Vec<Node>,
}

impl Network {
    fn start(&mut self, index: usize) -> Result<()> {
        match self.options.processes.clone() {
            Some(program) => self.start_process(index, &program),
            None => self.start_thread(index),
        }
    }

    /// Submits actions to validators that run, in turn.
    fn submit(&mut self, actions: Vec<SignedAction>, turn: &mut usize) {
        for action in actions {
            let count = self.nodes.len();
            let place = (0..count)
                .map(|offset| (*turn + offset) % count)
                .find(|index| self.nodes[*index].running.is_some());
            if let Some(index) = place
                && let Some(link) = &mut self.nodes[index].running
            {
                *turn = index + 1;
                link.submit(action);
            }
        }
    }

    fn start_process(&mut self, index: usize, program: &Path) -> Result<()> {
        let (identity, share) = self.scenario.dealt.members[index].clone();
        let keys = PathBuf::from(format!("keys-{index}.toml"));
        Keys { identity, share }.write(&self.options.data.join(&keys))?;
        let config = ValidatorConfig {
            genesis: PathBuf::from(genesis_file::GENESIS_FILE),
            keys,
            data: PathBuf::from(format!("validator-{index}")),
            listen: self.addresses[index].1,
            block_interval: self.options.interval,
            metrics: None,
            submit: None,
            timeline: self.timeline,
            replay: Some(ReplayConfig { name: self.replay.name.clone(), feeds: self.feeds[index].clone() }),
            log: log::quiet(),
            peers: self.addresses.clone(),
        };
        let path = self.options.data.join(format!("validator-{index}.toml"));
        config.write(&path)?;
        let mut child = Command::new(program)
            .args(["validator", "--stdio", "--config"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("the child's output is piped")?;
        let input = child.stdin.take().context("the child's input is piped")?;
        let sender = self.sender.clone();
        let thread = thread::Builder::new().name(format!("validator-{index}")).spawn(move || {
            let result = read_process(index, output, input, &sender);
            let _ = sender.try_send(Told::Ended(index, result));
        })?;
        self.nodes[index] = Node { child: Some(child), thread: Some(thread), ..Node::default() };
        Ok(())
    }

    fn start_thread(&mut self, index: usize) -> Result<()> {
        let (identity, share) = self.scenario.dealt.members[index].clone();
        let source =
            ReplaySource::new(self.replay.clone(), self.feeds[index].clone(), &self.scenario.sources)
                .map_err(|error| anyhow!("price sources of validator {index}: {error}"))?;
        let finality = self.sender.clone();
        let options = NodeOptions {
            genesis: self.genesis.clone(),
            commitment: self.commitment,
            identity,
            share,
            listen: self.addresses[index].1,
            peers: self.addresses.clone(),
            directory: self.options.data.join(format!("validator-{index}")),
            source: Arc::new(source),
            timeline: self.timeline,
            policy: BuildPolicy { interval: self.options.interval, ..BuildPolicy::default() },
            monitor: Arc::new(Reporter { index, sender: self.sender.clone() }),
            metrics: None,
            submit: None,
            probe: Arc::new(move |finalized| {
                if let Some(elapsed) = finalized.since_proposal {
                    let _ = finality.try_send(Told::Finality(elapsed));
                }
            }),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, ended) = (self.sender.clone(), self.sender.clone());
        let thread = thread::Builder::new().name(format!("validator-{index}")).spawn(move || {
            let run = std::panic::AssertUnwindSafe(|| {
                process::run(
                    options,
                    stopped,
                    Box::new(move |running| {
                        let _ = ready.send(Told::Ready(index, Box::new(Link::Thread(running))));
                    }),
                )
            });
            let result = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default();
                Err(anyhow!("validator {index} panicked: {text}"))
            });
            let _ = ended.try_send(Told::Ended(index, result));
        })?;
        self.nodes[index] = Node { stop: Some(stop), thread: Some(thread), ..Node::default() };
        Ok(())
    }
}

/// Signs for accounts.
struct Signers {
    seed: u64,
    /// Next nonce of each account: counted upwards, so that those of a busy account are one run.
    nonces: BTreeMap<AccountId, u64>,
    keys: BTreeMap<AccountId, Identity>,
}

impl Signers {
    const fn new(seed: u64) -> Self {
        Self { seed, nonces: BTreeMap::new(), keys: BTreeMap::new() }
    }

    fn sign(&mut self, account: AccountId, expiry: Height, action: Action) -> SignedAction {
        let nonce = self.nonces.entry(account).or_default();
        *nonce += 1;
        let nonce = Nonce(*nonce);
        let key = self.keys.entry(account).or_insert_with(|| account_key(account, self.seed));
        let mut signed =
            SignedAction { chain: CHAIN, account, nonce, expiry, action, signature: Signature::default() };
        signed.signature = key.sign(Domain::Action, CHAIN, &signed.message());
        signed
    }
}

/// Who trades: sees each final block, signs what the tape and the makers decide.
struct Traders {
    traffic: Traffic,
    /// The account of the first.
    first: u64,
    signers: Signers,
    /// The last height that they have seen.
    seen: Height,
}

impl Traders {
    fn look(&mut self, follower: &Follower) -> Vec<SignedAction> {
        let ledger = &follower.world().ledger;
        let height = ledger.globals().height;
        if height == self.seen {
            return Vec::new();
        }
        self.seen = height;
        let marks: Vec<_> =
            ledger.markets().map(|(_, market)| market.mark.and_then(|mark| mark.fresh())).collect();
        let views: Vec<AccountView> = (0..self.traffic.accounts() as u64)
            .map(|place| {
                let id = AccountId(self.first + place);
                let positions = ledger.account(id).map_or_else(Vec::new, |account| {
                    account.positions.iter().map(|position| (position.market, position.lots)).collect()
                });
                let open = ledger.orders_of(id).filter(|(_, order)| !order.ended);
                let orders = open
                    .map(|(_, order)| OpenOrder {
                        market: order.terms.market,
                        cloid: order.terms.cloid,
                        side: order.terms.side,
                        lots: order.live(),
                        leaving: order.leaving.is_some(),
                    })
                    .collect();
                AccountView { positions, orders }
            })
            .collect();
        let view = View { height, time_ms: ledger.globals().time.get(), marks: &marks, accounts: &views };
        let wanted = self.traffic.step(&view);
        wanted
            .into_iter()
            .map(|own| self.signers.sign(AccountId(self.first + own.account as u64), own.expiry, own.action))
            .collect()
    }
}

/// Account owners: look at their accounts, sign what they decide, submit it.
struct Owners {
    behaviour: Behaviour,
    users: usize,
    share: u64,
    signers: Signers,
    steps_done: Vec<u64>,
    /// By share: what waits for a deposit to arrive.
    later: Vec<Vec<(AccountId, Action)>>,
}

impl Owners {
    fn new(users: usize, seed: u64) -> Self {
        let spec = BehaviourSpec { seed, ..BehaviourSpec::default() };
        Self {
            behaviour: Behaviour::new(spec, users),
            users,
            share: 0,
            signers: Signers::new(seed),
            steps_done: vec![0; users],
            later: vec![Vec::new(); OWNER_SHARES as usize],
        }
    }

    /// One share of the owners looks; `step` counts replayed seconds.
    fn look(&mut self, follower: &Follower, step: u64) -> Vec<SignedAction> {
        let ledger = &follower.world().ledger;
        let height = ledger.globals().height;
        let first = self.share;
        let mut wanted = std::mem::take(&mut self.later[first as usize]);
        let mut later = Vec::new();
        self.share = (self.share + 1) % OWNER_SHARES;
        for user in (first as usize..self.users).step_by(OWNER_SHARES as usize) {
            let id = AccountId(user as u64 + 1);
            let Some(account) = ledger.account(id) else { continue };
            let Some(cross) = ledger.health(id) else { continue };
            let isolated = account
                .positions
                .iter()
                .filter(|position| position.mode == seawall_types::MarginMode::Isolated)
                .filter_map(|position| {
                    let health = ledger.health_of(id, Compartment::Isolated(position.market))?;
                    Some((position.market, health))
                })
                .min_by_key(|(_, health)| health.equity.get() - health.maintenance.get());
            // Owners look at their weakest part; what leaves or arrives is cross collateral.
            let (market, health) = match isolated {
                Some((market, health)) if cross.maintenance.get() == 0 => (Some(market), health),
                _ => (None, cross),
            };
            let view = HealthView {
                equity: health.equity.get(),
                maintenance: health.maintenance.get(),
                withdrawable: cross.withdrawable.get(),
            };
            let from = self.steps_done[user].max(step.saturating_sub(120));
            self.steps_done[user] = step;
            let intent = (from..step).find_map(|step| self.behaviour.decide(user, step, view));
            match intent {
                None => {}
                Some(Intent::TopUp(amount)) => {
                    wanted.push((ISSUER, Action::Deposit { to: id, amount: Atoms(amount) }));
                    if let Some(market) = market {
                        // Refused while the deposit is on its way: sent at the owner's next look.
                        later.push((id, Action::TopUpIsolated { market, amount: Atoms(amount) }));
                    }
                }
                Some(Intent::Withdraw(amount)) => wanted.push((
                    id,
                    Action::Withdraw { amount: Atoms(amount), recipient: Recipient(account.owner.0) },
                )),
                Some(Intent::Transfer(to, amount)) => {
                    wanted
                        .push((id, Action::Transfer { to: AccountId(to as u64 + 1), amount: Atoms(amount) }));
                }
            }
        }
        self.later[first as usize] = later;
        let expiry = Height(height.get() + ACTION_LIFETIME_BLOCKS);
        wanted.into_iter().map(|(account, action)| self.signers.sign(account, expiry, action)).collect()
    }
}

/// Chain time that a leader's turn can take: the interval and the timeout of a leader that is dead.
pub fn leader_turn_ms(interval: Duration, speed: u32) -> u64 {
    let turn = interval + Timeouts::default().leader;
    u64::try_from(turn.as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(speed))
}

/// Finds free loopback ports.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}

/// Largest resident memory of a process so far, in MiB; `self` is this one.
pub fn peak_rss_mb(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024)
}

/// Runs a devnet to the end of its replay.
///
/// # Errors
/// If it cannot start, or a final block does not execute. Broken invariants are in the report.
#[allow(clippy::too_many_lines)]
pub fn run(
    replay: Replay,
    options: Options,
    display: &mut dyn Display,
    interrupted: &AtomicBool,
) -> Result<Report> {
    let begun = Instant::now();
    display.note(&format!(
        "drawing a book of {} accounts over {} markets (seed {}); prices are real, book and owners are synthetic",
        options.accounts,
        replay.markets.len(),
        options.seed
    ));
    let spec = Spec {
        chain: CHAIN,
        validators: options.validators,
        accounts: options.accounts,
        seed: options.seed,
        leader_turn_ms: leader_turn_ms(options.interval, options.speed),
        zones: options.zones,
        speed: options.speed,
        traffic: options.traffic.clone(),
    };
    let mut scenario = scenario::build(&replay, &spec)?;
    let zones = scenario.genesis.ledger.markets.iter().map(|market| market.orders.zone).max().unwrap_or(0);
    if let Some((zone, ..)) = options.trials.iter().find(|(zone, ..)| *zone > zones) {
        bail!("there is no zone {zone}; they are numbered from 0 to {zones}");
    }
    let mut traders = scenario.traffic.take().map(|traffic| Traders {
        traffic,
        first: scenario.traffic_account(0).get(),
        signers: Signers::new(options.seed),
        seen: Height(0),
    });
    for (index, _) in options.kills.iter().chain(&options.restarts) {
        if *index >= options.validators {
            bail!("there is no validator {index}; they are numbered from 0 to {}", options.validators - 1);
        }
    }
    let genesis = Arc::new(scenario.genesis.clone());
    let [now, most] = genesis.rescue_budgets();
    display.note(&format!("rescues: {now}"));
    display.note(&format!("rescues, worst case: {most}"));
    display.note("hashing the genesis state");
    let commitment = genesis_file::commitment(&genesis)?;
    genesis_file::write(&options.data, &genesis, &commitment)?;
    let mut follower = Follower::new(&genesis, &commitment, options.check_reference)?;

    let addresses = free_addresses(options.validators)?;
    let addresses: Vec<_> =
        scenario.dealt.members.iter().map(|(identity, _)| identity.public()).zip(addresses).collect();
    let feeds = assign_feeds(&replay, options.validators, options.seed);
    // Validators seed their stores first; the replay begins when they can be expected to run.
    let warm_up_ms = 1_500 + options.accounts as u64 * options.validators as u64 / 400;
    let timeline = Timeline {
        wall_origin_ms: wall_ms() + warm_up_ms,
        chain_origin_ms: replay.start_ms,
        speed: options.speed,
    };
    let (sender, receiver) = mpsc::sync_channel(MAX_REPORTS);
    let replay = Arc::new(replay);
    let users = scenario.users;
    let mut network = Network {
        genesis: genesis.clone(),
        scenario,
        commitment,
        replay: replay.clone(),
        feeds,
        addresses,
        timeline,
        nodes: (0..options.validators).map(|_| Node::default()).collect(),
        options: options.clone(),
        sender,
    };
    display.note(&format!("starting {} validators", options.validators));
    for index in 0..options.validators {
        network.start(index)?;
    }

    let started = Instant::now();
    let mut owners = Owners::new(users, options.seed);
    let empty = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3)?;
    let mut finality = empty.clone();
    let mut broken: Vec<String> = Vec::new();
    let mut trials = options.trials.clone();
    trials.sort_by_key(|(_, at, _)| *at);
    let mut trial: Option<Trial> = None;
    let mut depth_usd = Vec::new();
    let mut kills = options.kills.clone();
    let mut restarts = options.restarts.clone();
    let mut expected: Vec<bool> = vec![true; options.validators];
    let mut last_update = Instant::now();
    let mut last_owners = Instant::now();
    let mut last_heavy = Instant::now() - Duration::from_secs(1);
    let mut last_blocks = (Instant::now(), 0u64, 0.0f64);
    let mut at_risk = 0;
    let mut conserved = true;
    let mut over: Option<(Instant, Height)> = None;
    let mut late: VecDeque<Told> = VecDeque::new();
    let mut last_progress = (Instant::now(), 0);
    let mut submit_to = 0usize;

    loop {
        let told = match late.pop_front() {
            Some(told) => Ok(told),
            None => receiver.recv_timeout(Duration::from_millis(20)),
        };
        match told {
            Ok(Told::Final(index, block)) => follower.report(index, *block)?,
            Ok(Told::Finality(elapsed)) => {
                finality.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
            }
            // One that was killed before it was ready is not running any more.
            Ok(Told::Ready(index, _)) if !expected[index] => {}
            Ok(Told::Ready(index, running)) => {
                display.note(&format!("validator {index} runs"));
                network.nodes[index].running = Some(running);
            }
            Ok(Told::Ended(index, result)) => {
                if expected[index] {
                    match result {
                        Ok(()) => broken.push(format!("validator {index} stopped by itself")),
                        Err(error) => broken.push(format!("validator {index} failed: {error:#}")),
                    }
                    break;
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("every validator is gone"),
        }

        let now = started.elapsed();
        while let Some(place) = kills.iter().position(|(_, at)| *at <= now) {
            let (index, _) = kills.swap_remove(place);
            display.note(&format!("killing validator {index}"));
            expected[index] = false;
            // The node's thread may be waiting for room in the channel: it must be drained meanwhile.
            let mut node = std::mem::take(&mut network.nodes[index]);
            let stopper = thread::spawn(move || node.stop());
            while !stopper.is_finished() {
                match receiver.recv_timeout(Duration::from_millis(5)) {
                    Ok(Told::Final(index, block)) => follower.report(index, *block)?,
                    // What else was told meanwhile is looked at when the validator is down.
                    Ok(other @ (Told::Ready(..) | Told::Ended(..))) => late.push_back(other),
                    _ => {}
                }
            }
        }
        while let Some(place) = restarts.iter().position(|(_, at)| *at <= now) {
            let (index, _) = restarts.swap_remove(place);
            if expected[index] {
                bail!("validator {index} is to be restarted but was not killed");
            }
            display.note(&format!("restarting validator {index} from its directory"));
            expected[index] = true;
            network.start(index)?;
        }

        // A validator that is not up yet would start its zones after the trial.
        let ready =
            (0..options.validators).all(|index| !expected[index] || network.nodes[index].running.is_some());
        while let Some((zone, _, what)) = trials.first().copied().filter(|(_, at, _)| *at <= now && ready) {
            trials.remove(0);
            let text = format!("zone {zone}: {}", trial_text(what));
            display.note(&format!("{text}, on every validator"));
            for node in &mut network.nodes {
                if let Some(link) = &mut node.running {
                    link.inflict(zone, what);
                }
            }
            let delays = follower.figures().delays.clone();
            trial.get_or_insert_with(|| Trial {
                text,
                at: now,
                finality: std::mem::replace(&mut finality, empty.clone()),
                delays,
            });
        }

        let blocks = follower.figures().blocks;
        if blocks != last_progress.1 || !restarts.is_empty() {
            last_progress = (Instant::now(), blocks);
        } else if over.is_none() && last_progress.0.elapsed() > STANDSTILL {
            let up = expected.iter().filter(|up| **up).count();
            let (count, faults) = (options.validators, (options.validators - 1) / 3);
            broken.push(format!(
                "no block became final within {STANDSTILL:?}; {up} of {count} validators run, a quorum is {}",
                count - faults
            ));
            break;
        }

        let time_ms = follower.figures().time_ms;
        let step = time_ms.saturating_sub(replay.start_ms) / 1_000;
        if last_owners.elapsed() >= OWNER_TICK && over.is_none() && time_ms > replay.start_ms {
            last_owners = Instant::now();
            network.submit(owners.look(&follower, step), &mut submit_to);
        }
        if let Some(traders) = traders.as_mut().filter(|_| over.is_none() && time_ms > replay.start_ms) {
            network.submit(traders.look(&follower), &mut submit_to);
        }

        if last_heavy.elapsed() >= Duration::from_secs(1) {
            last_heavy = Instant::now();
            at_risk = follower.world().ledger.count_at_risk(AT_RISK_PPM);
            if traders.is_some() {
                depth_usd = depth(&follower);
            }
            if let Err(error) = follower.world().ledger.audit() {
                conserved = false;
                broken.push(format!("conservation: {error}"));
                break;
            }
            let (since, before, _) = last_blocks;
            let blocks = follower.figures().blocks;
            let rate = (blocks - before) as f64 / since.elapsed().as_secs_f64().max(0.001);
            last_blocks = (Instant::now(), blocks, rate);
        }
        if last_update.elapsed() >= Duration::from_millis(200) {
            last_update = Instant::now();
            let shown = Shown { at_risk, conserved, blocks_per_s: last_blocks.2, depth_usd: &depth_usd };
            display.update(&snapshot(&follower, &network, &finality, shown));
        }

        if interrupted.load(Ordering::Relaxed) {
            display.note("interrupted");
            break;
        }
        if over.is_none() && time_ms >= replay.end_ms && !options.keep && restarts.is_empty() {
            let height = follower.world().ledger.globals().height;
            display.note(&format!(
                "the replay is over at block {height}; waiting for every validator to reach it"
            ));
            over = Some((Instant::now(), height));
        }
        if let Some((since, height)) = over {
            let reached = (0..options.validators)
                .filter(|index| expected[*index])
                .all(|index| follower.tip(index).is_some_and(|tip| tip >= height));
            if reached {
                break;
            }
            if since.elapsed() > CATCH_UP {
                broken.push(format!("a validator did not reach block {height} within {CATCH_UP:?}"));
                break;
            }
        }
    }

    let stopped_early = interrupted.load(Ordering::Relaxed);
    let shown = Shown { at_risk, conserved, blocks_per_s: last_blocks.2, depth_usd: &depth_usd };
    display.update(&snapshot(&follower, &network, &finality, shown));
    display.note("stopping validators");
    let children_mb: u64 = network.nodes.iter().map(Node::peak_rss_mb).sum();
    expected.fill(false);
    let nodes = std::mem::take(&mut network.nodes);
    let stopper = thread::spawn(move || nodes.into_iter().for_each(|mut node| node.stop()));
    while !stopper.is_finished() {
        if let Ok(Told::Final(index, block)) = receiver.recv_timeout(Duration::from_millis(5)) {
            follower.report(index, *block)?;
        }
    }
    while let Ok(told) = receiver.try_recv() {
        if let Told::Final(index, block) = told {
            follower.report(index, *block)?;
        }
    }
    let wall_s = begun.elapsed().as_secs_f64();
    let peak_rss_mb = children_mb + peak_rss_mb("self");

    if let Err(error) = follower.world().ledger.audit() {
        conserved = false;
        broken.push(format!("conservation: {error}"));
    }
    let reference_agrees = if options.check_reference {
        display.note("running the full-scan reference over the same history");
        match follower.check_reference(&genesis, &commitment, |_| {}) {
            Ok(()) => Some(true),
            Err(error) => {
                broken.push(format!("reference: {error:#}"));
                Some(false)
            }
        }
    } else {
        None
    };
    Ok(finish(
        &follower,
        &replay,
        &options,
        &finality,
        trial,
        broken,
        Ending { conserved, reference_agrees, wall_s, peak_rss_mb, interrupted: stopped_early },
    ))
}

/// What a snapshot shows and the follower does not know.
#[derive(Clone, Copy)]
struct Shown<'a> {
    at_risk: u64,
    conserved: bool,
    blocks_per_s: f64,
    depth_usd: &'a [(f64, f64)],
}

/// A zone was harmed: how things were until then.
struct Trial {
    text: String,
    at: Duration,
    finality: Histogram<u64>,
    delays: BTreeMap<u64, u64>,
}

fn trial_text(trial: ZoneTrial) -> String {
    match trial {
        ZoneTrial::Kill => "killed".into(),
        ZoneTrial::Start => "started again".into(),
        ZoneTrial::Slow(times) => format!("slowed {times} times"),
    }
}

/// By market: what rests within 1 % of the mark, dollars bid and asked.
fn depth(follower: &Follower) -> Vec<(f64, f64)> {
    let ledger = &follower.world().ledger;
    let mut depth: Vec<(i128, i128)> = ledger.markets().map(|_| (0, 0)).collect();
    for (_, order) in ledger.open_orders().filter(|(_, order)| order.waiting.is_none()) {
        let Some(market) = ledger.market(order.terms.market) else { continue };
        let Some((mark, _)) = market.mark.map(|mark| mark.last_known()) else { continue };
        let limit = order.terms.limit;
        if limit.get().abs_diff(mark.get()) <= mark.get() / 100 {
            let (bid, ask) = &mut depth[usize::from(order.terms.market.get())];
            let side = if order.terms.side == Side::Buy { bid } else { ask };
            *side += market.params.unit(limit) * i128::from(order.live().get());
        }
    }
    depth.into_iter().map(|(bid, ask)| (usd(bid), usd(ask))).collect()
}

fn snapshot(follower: &Follower, network: &Network, finality: &Histogram<u64>, shown: Shown<'_>) -> Snapshot {
    let Shown { at_risk, conserved, blocks_per_s, depth_usd } = shown;
    let figures = follower.figures();
    let replay = &network.replay;
    let length = (replay.end_ms - replay.start_ms).max(1);
    let ledger = &follower.world().ledger;
    Snapshot {
        progress_permille: figures.time_ms.saturating_sub(replay.start_ms).min(length) * 1_000 / length,
        time_ms: figures.time_ms,
        height: ledger.globals().height.get(),
        blocks_per_s,
        finality_ms: percentiles(finality),
        markets: prices(follower, replay),
        at_risk,
        liquidated: figures.liquidated.len() as u64,
        backstop: figures.backstop_takeovers,
        insurance_usd: usd(ledger.globals().insurance.get()),
        adl: figures.adl_events,
        bad_debt_usd: usd(figures.bad_debt_atoms),
        conserved,
        running: network.nodes.iter().map(|node| node.running.is_some()).collect(),
        owners: (figures.top_ups, figures.withdrawals),
        orders: network.options.traffic.is_some().then(|| OrdersView {
            placed: figures.orders.placed,
            fills: figures.orders.fills,
            volume_usd: usd(figures.orders.volume_atoms),
            lag_blocks: follower.lag(),
            closes: figures.orders.closes,
            voided: figures.orders.voided,
            depth_usd: depth_usd.to_vec(),
        }),
    }
}

fn usd(atoms: i128) -> f64 {
    atoms as f64 / ATOMS_PER_USD as f64
}

fn percentiles(finality: &Histogram<u64>) -> (f64, f64) {
    let ms = |quantile| finality.value_at_quantile(quantile) as f64 / 1_000.0;
    (ms(0.5), ms(0.99))
}

fn prices(follower: &Follower, replay: &Replay) -> Vec<(String, f64, PriceState)> {
    follower
        .states()
        .map(|(market, state)| {
            let listing = &replay.markets[usize::from(market.get())];
            let tick: f64 = listing.tick_usd.parse().unwrap_or(0.0);
            let ticks = follower.world().oracle.mark(market).map_or(0, |mark| mark.last_known().0.get());
            (listing.symbol.clone(), ticks as f64 * tick, state)
        })
        .collect()
}

fn delays_of(counts: &BTreeMap<u64, u64>) -> Delays {
    let half = counts.values().sum::<u64>().div_ceil(2).max(1);
    let mut seen = 0;
    let median = counts.iter().find(|(_, count)| {
        seen += **count;
        seen >= half
    });
    let max = counts.last_key_value().map_or(0, |(delay, _)| *delay);
    Delays { p50: median.map_or(0, |(delay, _)| *delay), max }
}

struct Ending {
    conserved: bool,
    reference_agrees: Option<bool>,
    wall_s: f64,
    peak_rss_mb: u64,
    interrupted: bool,
}

fn finish(
    follower: &Follower,
    replay: &Replay,
    options: &Options,
    finality: &Histogram<u64>,
    trial: Option<Trial>,
    mut broken: Vec<String>,
    ending: Ending,
) -> Report {
    let figures = follower.figures();
    let replayed_ms = (figures.time_ms - replay.start_ms).max(1);
    let delays = delays_of(&figures.delays);
    if follower.forks() > 0 {
        broken.push(format!("{} heights have two final blocks", follower.forks()));
    }
    if figures.stale_price_liquidations > 0 {
        broken
            .push(format!("{} legs were liquidated without a fresh price", figures.stale_price_liquidations));
    }
    if delays.max > 0 && figures.budget_hits == 0 {
        broken
            .push(format!("a liquidation came {} blocks late although the budget was never hit", delays.max));
    }
    let mut whole = finality.clone();
    let trial = trial.map(|trial| {
        let before = trial.finality;
        // Both were made alike, so they add up.
        let _ = whole.add(&before);
        let after: BTreeMap<u64, u64> = figures
            .delays
            .iter()
            .map(|(delay, count)| (*delay, count - trial.delays.get(delay).copied().unwrap_or(0)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let of = |histogram: &Histogram<u64>| {
            let (p50, p99) = percentiles(histogram);
            Percentiles { p50, p99 }
        };
        let (fast, slow) = (of(&before), of(finality));
        let (early, late) = (delays_of(&trial.delays), delays_of(&after));
        TrialReport {
            trial: trial.text,
            at_s: trial.at.as_secs_f64(),
            within_ten_percent: (!before.is_empty())
                .then_some(slow.p50 <= fast.p50 * 1.1 && late.p50 * 10 <= early.p50 * 11),
            finality_ms_before: fast,
            finality_ms_after: slow,
            liquidation_delay_blocks_before: early,
            liquidation_delay_blocks_after: late,
        }
    });
    let (p50, p99) = percentiles(&whole);
    let markets: Vec<MarketReport> = prices(follower, replay)
        .into_iter()
        .zip(&figures.non_fresh_ms)
        .map(|((symbol, price_usd, state), non_fresh_ms)| MarketReport {
            symbol,
            non_fresh_seconds: *non_fresh_ms as f64 / 1_000.0,
            fresh_share: 1.0 - *non_fresh_ms as f64 / replayed_ms as f64,
            state: state.name(),
            price_usd,
        })
        .collect();
    let globals = follower.world().ledger.globals();
    Report {
        seed: options.seed,
        replay: replay.name.clone(),
        validators: options.validators,
        accounts: options.accounts,
        synthetic: ["the opening book of positions", "what account owners do"]
            .into_iter()
            .chain(options.traffic.is_some().then_some(
                "orders: a recorded tape of BTC laid around the prices of every market, and market makers",
            ))
            .collect(),
        blocks: figures.blocks,
        replayed_minutes: follower.replayed_minutes(),
        finality_ms: Percentiles { p50, p99 },
        liquidations: figures.liquidations,
        accounts_liquidated: figures.liquidated.len() as u64,
        liquidation_delay_blocks: delays,
        budget_hits: figures.budget_hits,
        top_ups: figures.top_ups,
        withdrawals: figures.withdrawals,
        transfers: figures.transfers,
        backstop_takeovers: figures.backstop_takeovers,
        bad_debt_atoms: figures.bad_debt_atoms,
        socialised_atoms: figures.socialised_atoms,
        insurance_fund_atoms: globals.insurance.get(),
        adl_events: figures.adl_events,
        non_fresh_seconds: markets.iter().map(|market| market.non_fresh_seconds).sum(),
        markets,
        unliquidated_breach_atoms_max: figures.unliquidated_breach_atoms_max,
        stale_price_liquidations: figures.stale_price_liquidations,
        orders: figures.orders.placed,
        orders_refused: figures.orders.refused,
        fills: figures.orders.fills,
        volume_atoms: figures.orders.volume_atoms,
        zone_lag_blocks: delays_of(&figures.orders.lags),
        auctions_voided: figures.orders.voided,
        liquidation_closes_in_auction: figures.orders.closes,
        liquidation_slippage_bps: figures.orders.slippage_bps(),
        zone_trial: trial,
        conserved: ending.conserved,
        forks: follower.forks(),
        state_root: follower.state_root().to_string(),
        height: globals.height.get(),
        reference_agrees: ending.reference_agrees,
        wall_s: ending.wall_s,
        peak_rss_mb: ending.peak_rss_mb,
        interrupted: ending.interrupted,
        broken,
    }
}

/// Writes a report beside others: `ROOT/NAME-SEED/report.json`. Returns the path.
///
/// # Errors
/// If the file cannot be written.
pub fn write_report(root: &Path, report: &Report) -> Result<PathBuf> {
    let directory = root.join(format!("{}-{}", report.replay, report.seed));
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let path = directory.join("report.json");
    std::fs::write(&path, serde_json::to_vec_pretty(report)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
