//! A small chain to simulate: its genesis, prices that crash on a seed, and whole validators under the
//! deterministic runtime, with everything that they make final written down.

#![allow(dead_code, missing_docs)]

use commonware_consensus::Roundable as _;
use commonware_consensus::types::Height as ConsensusHeight;
use commonware_cryptography::Digestible as _;
use commonware_glue::simulate::{
    action::{Action as Act, Crash, Schedule},
    engine::{ChannelPair, EngineDefinition, InitContext},
    exit::ExitCondition,
    plan::PlanBuilder,
    processed::ProcessedHeight,
    team::Team,
    tracker::{FinalizationUpdate, ProgressTracker},
};
use commonware_p2p::{
    Manager as _,
    simulated::{self, Link, Network},
};
use commonware_parallel::{Rayon, Sequential};
use commonware_runtime::{
    Clock as _, Handle, Quota, Runner as _, Spawner as _, Supervisor as _, deterministic,
};
use commonware_utils::{NZUsize, Probability, channel::mpsc};
use seawall_chain::{
    app::{BuildPolicy, Monitor},
    block::{Block, PublicKey, from_consensus},
    crypto::Identity,
    engine::{self, Channel, Config, Timeouts},
    genesis::{Dealt, Genesis, deal_committee},
    ingress::{QueueLimits, Submitter},
    machine::{Answer, Machine, Settled, Step, World},
    mempool::{PoolLimits, Signers},
    observer::PriceSource,
    store::{self, StateCommitment, StateKey, StateValue},
    submissions::State,
    timeline::Timeline,
    work::{Costs, Work},
    zones::{ZoneFault, ZoneStatus},
};
use seawall_ledger::{
    AccountKind, ChainParams, Event, GenesisAccount, GenesisPosition, Ledger, OrderParams, RescueParams,
    params::{BackstopParams, FundingParams, LiquidationParams, MarketParams, TierParams},
};
use seawall_oracle::{MarketParams as OracleMarket, OracleEvent, OracleParams};
use seawall_types::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

pub const START: u64 = 1_760_000_000_000;
pub const CHAIN: ChainId = ChainId(77);
pub const SPEED: u32 = 10;
pub const MARKETS: [u64; 3] = [100_000, 40_000, 7_000];
pub const MAX_SPREAD_PPM: u64 = 400;
pub const GRACE_MS: u64 = 60_000;
pub const HALT_MS: u64 = 600_000;
pub const REPORT_AGE_MS: u64 = 60_000;
pub const ISSUER: AccountId = AccountId(0);

/// Fixed here, so that the oracle's limits and every test's clock fit them whatever production uses.
pub const TIMEOUTS: Timeouts = Timeouts {
    leader: Duration::from_millis(1_500),
    certification: Duration::from_millis(3_000),
    retry: Duration::from_millis(500),
    skip: Duration::from_secs(5),
    fetch: Duration::from_secs(1),
};

/// A number that looks random and is the same everywhere.
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Prices that wiggle, and fall by `depth_ppm` between two instants after [`START`].
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub seed: u64,
    pub from_ms: u64,
    pub until_ms: u64,
    pub depth_ppm: u64,
}

impl Path {
    pub fn crash(seed: u64) -> Self {
        Self { seed, from_ms: 8_000, until_ms: 38_000, depth_ppm: 200_000 + mix(seed) % 40_000 }
    }

    /// The price itself, before any validator's own noise.
    pub fn price(&self, market: usize, time: TimeMs) -> u64 {
        let elapsed = time.get().saturating_sub(START);
        let fallen = elapsed.clamp(self.from_ms, self.until_ms) - self.from_ms;
        let drop = u128::from(self.depth_ppm) * u128::from(fallen)
            / u128::from((self.until_ms - self.from_ms).max(1));
        let wiggle = u128::from(mix(self.seed ^ (elapsed / 1_000) << 8 ^ market as u64) % 2_000);
        let ppm = 1_000_000 - drop + wiggle;
        u64::try_from(u128::from(MARKETS[market]) * ppm / 1_000_000).unwrap()
    }
}

/// How a validator's prices and clock lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lie {
    pub times: u64,
    pub over: u64,
    pub clock_ms: i64,
}

struct Feed {
    path: Path,
    index: u64,
    lie: Option<Lie>,
}

impl PriceSource for Feed {
    fn report(&self, now: TimeMs) -> Vec<(MarketId, PriceReport)> {
        let now = match self.lie {
            Some(lie) => TimeMs(now.get().saturating_add_signed(-lie.clock_ms)),
            None => now,
        };
        (0..MARKETS.len())
            .map(|market| {
                let fair = self.path.price(market, now);
                let noise =
                    mix(self.index ^ ((now.get() / 500) << 4)) % (fair * MAX_SPREAD_PPM / 1_000_000).max(1);
                let mut price = fair + noise;
                if let Some(lie) = self.lie {
                    price = (price * lie.times.max(1) / lie.over.max(1)).max(1);
                }
                let price = PriceTicks(price);
                let report = PriceReport { low: price, high: price, spread: PriceTicks(0), sources: 3 };
                (MarketId(market as u16), report)
            })
            .collect()
    }
}

/// A committee of `validators` and `accounts` users: longs and shorts in pairs, most of them leveraged.
#[derive(Clone)]
pub struct Fixture {
    pub genesis: Arc<Genesis>,
    pub commitment: StateCommitment,
    pub members: Arc<Vec<(Identity, commonware_cryptography::bls12381::primitives::group::Share)>>,
}

pub fn owner(account: AccountId) -> Identity {
    Identity::insecure(1_000_000 + account.get())
}

fn market_params(index: usize) -> MarketParams {
    let tier = |up_to: i128, initial, maintenance| TierParams {
        up_to_notional: Atoms(up_to),
        initial_ppm: Ppm(initial),
        maintenance_ppm: Ppm(maintenance),
    };
    MarketParams {
        symbol: ["BTC", "ETH", "SOL"][index].parse().unwrap(),
        atoms_per_tick_lot: 1,
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
        tiers: vec![tier(1_000_000_000_000, 50_000, 20_000), tier(1 << 62, 100_000, 50_000)],
        taker_fee_ppm: Ppm(500),
        maker_fee_ppm: Ppm(100),
        funding: FundingParams { interval_ms: 28_800_000, cap_ppm: Ppm(7_500), interest_ppm: 100 },
        band_ppm: Ppm(10_000),
        blind_range_ppm: Ppm(200_000),
        open_interest_cap: Lots(1 << 30),
        account_cap: Lots(1 << 28),
        isolated_only: false,
        liquidation: LiquidationParams { penalty_ppm: Ppm(5_000) },
        backstop: BackstopParams {
            initial_fund: Atoms(50_000_000_000),
            capacity_lots: Lots(40_000),
            per_block_lots: Lots(4_000),
        },
        orders: OrderParams {
            zone: u8::from(index == 2),
            late_after: 6,
            void_after: 16,
            shed_after: 10,
            max_records: 48,
            ..OrderParams::default()
        },
    }
}

pub fn oracle_params() -> OracleParams {
    let market = OracleMarket {
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
        report_max_age_heights: 8,
        report_max_age_ms: REPORT_AGE_MS,
        band_ppm: Ppm(20_000),
        gate_ppm: Ppm(60_000),
        min_sources: 2,
        stale_after_ms: 60_000,
        outage_after_ms: 180_000,
        grace_ms: GRACE_MS,
        quarantine_after_ms: 3_600_000,
    };
    OracleParams { leader_turn_ms: 15_000, halt_after_ms: HALT_MS, markets: vec![market; MARKETS.len()] }
}

impl Fixture {
    /// With tokens for more rescues than most tests sign.
    pub fn new(seed: u64, validators: u64, accounts: u64) -> Self {
        Self::with_budget(seed, validators, accounts, 64)
    }

    /// The same with so many liquidation steps a block.
    pub fn with_budget(seed: u64, validators: u64, accounts: u64, liquidation_steps: u32) -> Self {
        let rescues = RescueParams {
            base_tokens: 2_000,
            flat_tokens: 2_000,
            refill_blocks: 1_024,
            reserve_blocks: 512,
            ..RescueParams::default()
        };
        Self::made(seed, validators, accounts, liquidation_steps, rescues)
    }

    /// With rescues rationed like this.
    pub fn rationed(seed: u64, validators: u64, accounts: u64, rescues: RescueParams) -> Self {
        Self::made(seed, validators, accounts, 64, rescues)
    }

    fn made(
        seed: u64,
        validators: u64,
        accounts: u64,
        liquidation_steps: u32,
        rescues: RescueParams,
    ) -> Self {
        let runner = deterministic::Runner::seeded(seed);
        runner.start(|mut context| async move {
            let identities = (0..validators).map(|index| Identity::insecure(seed << 8 | index)).collect();
            let Dealt { members, set, group } = deal_committee(&mut context, identities).unwrap();
            let mut users = vec![GenesisAccount {
                owner: owner(ISSUER).key(),
                collateral: Atoms(1_000_000_000),
                positions: Vec::new(),
            }];
            for pair in 0..accounts / 2 {
                let market = (pair % MARKETS.len() as u64) as usize;
                let lots = 100 + (mix(seed ^ pair) % 900) as i64;
                let cost = i128::from(MARKETS[market]) * i128::from(lots);
                for sign in [1, -1] {
                    let leverage = 3 + i128::from(mix(seed ^ pair << 1 ^ sign as u64) % 16);
                    let isolated = mix(pair ^ sign as u64).is_multiple_of(5);
                    let margin = Atoms(cost / leverage);
                    let position = GenesisPosition {
                        market: MarketId(market as u16),
                        lots: Lots(lots * sign),
                        cost: Atoms(cost * i128::from(sign)),
                        mode: if isolated { MarginMode::Isolated } else { MarginMode::Cross },
                        isolated: if isolated { margin } else { Atoms::ZERO },
                    };
                    let id = AccountId(users.len() as u64);
                    users.push(GenesisAccount {
                        owner: owner(id).key(),
                        collateral: if isolated { Atoms(10_000) } else { margin },
                        positions: vec![position],
                    });
                }
            }
            let genesis = Genesis {
                time: TimeMs(START),
                ledger: ChainParams {
                    chain: CHAIN,
                    issuer: ISSUER,
                    insurance: Atoms(100_000_000_000),
                    liquidation_steps,
                    max_wait_blocks: 20,
                    rescues,
                    markets: (0..MARKETS.len()).map(market_params).collect(),
                },
                oracle: oracle_params(),
                prices: MARKETS.iter().map(|price| Some(PriceTicks(*price))).collect(),
                members: set,
                group,
                accounts: users,
            };
            let world = genesis.world().unwrap();
            let config = store::config("fixture", Sequential, store::page_cache());
            let commitment = store::seed(context.child("seed"), config, world.records()).await.unwrap();
            Self { genesis: Arc::new(genesis), commitment, members: Arc::new(members) }
        })
    }

    /// The public keys, in the order of [`ValidatorId`].
    pub fn keys(&self) -> Vec<PublicKey> {
        self.genesis.members.iter().cloned().collect()
    }
}

/// A final block as one validator told of it.
#[derive(Clone)]
pub struct Seen {
    pub block: Block,
    pub digest: Digest,
    pub events: Vec<Event>,
    pub oracle_events: Vec<OracleEvent>,
    pub marks: Vec<(MarketId, Mark)>,
    pub answers: Vec<Answer>,
    pub settled: Vec<Settled>,
    pub voided: Vec<(u8, Height)>,
    pub lags: BTreeMap<u8, u64>,
    pub stale_price_liquidations: u64,
}

impl Seen {
    pub fn fills(&self) -> usize {
        self.settled.iter().map(|settled| settled.report.fills.len()).sum()
    }
}

/// What one validator did over all its lives.
#[derive(Default)]
pub struct Seat {
    pub blocks: BTreeMap<u64, Seen>,
    pub machine: Option<Machine>,
    pub starts: u32,
    pub errors: Vec<String>,
    pub faults: Vec<String>,
    /// Lives in which the validator came up.
    pub up: Vec<u32>,
    /// Wall time from proposal to finality of its own blocks, ms.
    pub finality_ms: Vec<u64>,
    /// Its zones, as they were last.
    pub zones: BTreeMap<u8, ZoneStatus>,
    /// What it answered about what was submitted to it, in each of its lives: every state, in turn.
    pub answers: BTreeMap<(u32, Digest), Vec<State>>,
    /// What waited longest for its checks: rescues, trades.
    pub queued: (usize, usize),
    last: Option<u64>,
}

pub type Seats = Arc<Vec<Arc<Mutex<Seat>>>>;

pub fn seat(seats: &Seats, index: usize) -> MutexGuard<'_, Seat> {
    seats[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Recorder {
    seat: Arc<Mutex<Seat>>,
    public: PublicKey,
    monitor: mpsc::UnboundedSender<FinalizationUpdate<PublicKey>>,
}

impl Monitor for Recorder {
    fn finalized(&self, block: &Block, digest: Digest, step: &Step) {
        let height = block.header.height.get();
        let mut seat = self.seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seat = &mut *seat;
        if let Some(last) = seat.last.replace(height)
            && height != last + 1
        {
            seat.faults.push(format!("final block {height} was told after {last}"));
        }
        if let Some(known) = seat.blocks.get(&height) {
            if known.digest != digest || known.events != step.events() || known.marks != step.marks {
                seat.faults.push(format!("block {height} was told twice and differently"));
            }
        } else if height > 1 && !seat.blocks.contains_key(&(height - 1)) {
            seat.faults.push(format!("final block {} was never told", height - 1));
        }
        let seen = Seen {
            block: block.clone(),
            digest,
            events: step.events().to_vec(),
            oracle_events: step.oracle_events.clone(),
            marks: step.marks.clone(),
            answers: step.answers.clone(),
            settled: step.settled.clone(),
            voided: step.voided.clone(),
            lags: step.zone_lags.clone(),
            stale_price_liquidations: step.sweep.stale_price_liquidations,
        };
        seat.blocks.insert(height, seen);
        let _ = self.monitor.send(FinalizationUpdate {
            pk: self.public.clone(),
            round: block.context.round(),
            height: ConsensusHeight::new(height),
            block_digest: digest.0.to_vec(),
        });
    }
}

/// Whole validators, as the simulator starts, crashes and restarts them.
#[derive(Clone)]
pub struct Validators {
    pub fixture: Fixture,
    pub path: Path,
    pub lies: BTreeMap<usize, Lie>,
    /// Validators that hash and check signatures with several threads.
    pub threaded: Vec<usize>,
    /// Whether users trade meanwhile.
    pub traffic: bool,
    /// What is done to zones.
    pub trials: Vec<Trial>,
    /// Accounts whose actions a validator leaves out where it can when it leads.
    pub withholds: BTreeMap<usize, AccountId>,
    /// What users submit to a validator, and when.
    pub submits: Vec<Submit>,
    /// Work takes so many times what it was measured to take; no time at all if zero.
    pub slowdown: u32,
    pub seats: Seats,
}

/// What work was measured to take, so many times over.
pub fn calibrated(slowdown: u32) -> Costs {
    let measured: toml::Table = include_str!("../../../../storms/calibration.toml").parse().unwrap();
    let us = |name: &str| Duration::from_secs_f64(measured[name].as_float().unwrap() / 1e6) * slowdown;
    let (sign, verify, action) = (us("sign_us"), us("verify_us"), us("action_us"));
    Costs::charged(move |work| match work {
        Work::Ingress { signatures, .. } => verify * signatures,
        Work::Build { actions } => action * actions + sign,
        Work::Verify { actions, signatures } => action * actions + verify * signatures,
    })
}

/// An action that reaches a validator at a time.
#[derive(Clone, Debug)]
pub struct Submit {
    pub validator: usize,
    pub at_ms: u64,
    pub action: SignedAction,
    /// Into its pool without a check, as a validator does that lists what it should not.
    pub forged: bool,
}

/// Something that is done to a zone of a validator at a time, in each of its lives.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub validator: usize,
    pub at_ms: u64,
    pub zone: u8,
    pub what: What,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Kill,
    Revive,
    Afflict(ZoneFault),
}

/// The same trial of one zone on these validators.
pub fn trials(
    validators: std::ops::Range<usize>,
    zone: u8,
    at_ms: u64,
    what: What,
) -> impl Iterator<Item = Trial> {
    validators.map(move |validator| Trial { validator, at_ms, zone, what })
}

impl Validators {
    pub fn new(fixture: &Fixture, path: Path) -> Self {
        logs();
        let seats = (0..fixture.genesis.members.len()).map(|_| Arc::default()).collect();
        Self {
            fixture: fixture.clone(),
            path,
            lies: BTreeMap::new(),
            threaded: Vec::new(),
            traffic: true,
            trials: Vec::new(),
            withholds: BTreeMap::new(),
            submits: Vec::new(),
            slowdown: 0,
            seats: Arc::new(seats),
        }
    }
}

type Net = ChannelPair<PublicKey>;

/// A validator that is ready to start.
pub struct Ready {
    context: deterministic::Context,
    config: Box<dyn FnOnce() -> Config<Rayon> + Send>,
    oracle: simulated::Oracle<PublicKey, deterministic::Context>,
    public: PublicKey,
    channels: Vec<Net>,
    seat: Arc<Mutex<Seat>>,
    index: usize,
    traffic: bool,
    trials: Vec<Trial>,
    submits: Vec<Submit>,
}

/// What the simulator can ask about a running validator.
pub struct Watched(pub Arc<Mutex<Seat>>);

impl ProcessedHeight for Watched {
    async fn processed_height(&self) -> u64 {
        let seat = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seat.last.unwrap_or(0)
    }
}

impl EngineDefinition for Validators {
    type PublicKey = PublicKey;
    type Engine = Ready;
    type State = Watched;

    fn participants(&self) -> Vec<PublicKey> {
        self.fixture.keys()
    }

    fn channels(&self) -> Vec<(u64, Quota)> {
        Channel::ALL.iter().map(|channel| (*channel as u64, channel.quota())).collect()
    }

    fn max_message_size(&self) -> u32 {
        engine::max_message_bytes(u32::try_from(self.fixture.genesis.members.len()).unwrap())
    }

    async fn init(&self, init: InitContext<'_, PublicKey>) -> (Ready, Watched) {
        let InitContext { context, index, public_key, oracle, channels, monitor, .. } = init;
        let seat = self.seats[index].clone();
        {
            let mut seat = seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            seat.starts += 1;
            seat.last = None;
        }
        let (identity, share) = self.fixture.members[index].clone();
        let lie = self.lies.get(&index).copied();
        let clock_ms = lie.map_or(0, |lie| lie.clock_ms);
        let genesis = self.fixture.genesis.clone();
        let commitment = self.fixture.commitment;
        let path = self.path;
        let recorder = Recorder { seat: seat.clone(), public: public_key.clone(), monitor };
        let threaded = self.threaded.contains(&index);
        let probed = seat.clone();
        let withholds = Arc::new(self.withholds.get(&index).copied().into_iter().collect());
        let slowdown = self.slowdown;
        let config = move || {
            Config {
                genesis,
                commitment,
                identity,
                share,
                source: Arc::new(Feed { path, index: index as u64, lie }),
                timeline: Timeline {
                    wall_origin_ms: 0,
                    chain_origin_ms: START.saturating_add_signed(clock_ms),
                    speed: SPEED,
                },
                clock_tolerance: Duration::from_millis(500),
                policy: BuildPolicy { withholds, ..BuildPolicy::default() },
                timeouts: TIMEOUTS,
                monitor: Arc::new(recorder),
                probe: Arc::new(move |finalized: seawall_chain::gate::Finalized| {
                    if let Some(since) = finalized.since_proposal {
                        let mut seat = probed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        seat.finality_ms.push(since.as_millis() as u64);
                    }
                }),
                queues: QueueLimits::default(),
                pools: PoolLimits::default(),
                costs: if slowdown == 0 { Costs::none() } else { calibrated(slowdown) },
                enter_zone: Arc::new(|| {}),
                retained_blocks: None,
                cache_pages: NZUsize!(1_024),
                // One type for both cases: a validator takes minutes to compile.
                strategy: Rayon::new(if threaded { NZUsize!(3) } else { NZUsize!(1) }).unwrap(),
                prefix: format!("validator-{index}"),
            }
        };
        let ready = Ready {
            context,
            config: Box::new(config),
            oracle: oracle.clone(),
            public: public_key.clone(),
            channels,
            seat: seat.clone(),
            index,
            traffic: self.traffic,
            trials: self.trials.iter().filter(|trial| trial.validator == index).copied().collect(),
            submits: self.submits.iter().filter(|submit| submit.validator == index).cloned().collect(),
        };
        (ready, Watched(seat))
    }

    fn start(ready: Ready) -> Handle<()> {
        let context = ready.context.child("run");
        context.spawn(move |context| async move {
            let config = (ready.config)();
            let Ready { oracle, public, channels, seat, index, traffic, trials, submits, .. } = ready;
            run(context, config, oracle, public, channels, seat, index, traffic, trials, submits).await;
        })
    }
}

#[allow(clippy::too_many_arguments)]
async fn run(
    context: deterministic::Context,
    config: Config<Rayon>,
    oracle: simulated::Oracle<PublicKey, deterministic::Context>,
    public: PublicKey,
    channels: Vec<Net>,
    seat: Arc<Mutex<Seat>>,
    index: usize,
    traffic: bool,
    mut trials: Vec<Trial>,
    mut submits: Vec<Submit>,
) {
    let started =
        engine::start(context.child("validator"), config, oracle.manager(), oracle.control(public), channels)
            .await;
    let (handle, validator) = match started {
        Ok(started) => started,
        Err(error) => {
            let mut seat = seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            seat.errors.push(error.to_string());
            return;
        }
    };
    {
        let mut seat = seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seat.machine = Some(validator.machine.clone());
        let life = seat.starts;
        seat.up.push(life);
    }
    let life = seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner).starts;
    let submitter = Asked { submitter: validator.submitter.clone(), seat: seat.clone(), life };
    let asking = async {
        loop {
            context.sleep(Duration::from_millis(20)).await;
            submitter.ask();
        }
    };
    trials.sort_by_key(|trial| trial.at_ms);
    let zones = async {
        for trial in trials {
            let until = UNIX_EPOCH + Duration::from_millis(trial.at_ms);
            if let Ok(wait) = until.duration_since(context.current()) {
                context.sleep(wait).await;
            }
            match trial.what {
                What::Kill => drop(validator.zones.kill(trial.zone)),
                What::Revive => drop(validator.zones.revive(trial.zone)),
                What::Afflict(fault) => validator.zones.afflict(trial.zone, fault),
            }
        }
        loop {
            context.sleep(Duration::from_millis(50)).await;
            let mut seat = seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let names = validator.zones.names().into_iter();
            seat.zones = names.filter_map(|zone| Some((zone, validator.zones.status(zone)?))).collect();
        }
    };
    submits.sort_by_key(|submit| submit.at_ms);
    let submitting = async {
        for Submit { at_ms, action, forged, .. } in submits {
            let until = UNIX_EPOCH + Duration::from_millis(at_ms);
            if let Ok(wait) = until.duration_since(context.current()) {
                context.sleep(wait).await;
            }
            if forged {
                let signers = Signers { account: owner(action.account).key(), maker: None };
                let name = (action.account, action.nonce);
                validator.mempool.insert(action, signers, |_| false).unwrap();
                validator.mempool.relayed(&name);
            } else {
                // Whoever tests it looks for it in the chain.
                let _ = submitter.submit(action);
            }
        }
        std::future::pending::<()>().await;
    };
    let users = async {
        if !traffic {
            std::future::pending::<()>().await;
        }
        loop {
            context.sleep(Duration::from_millis(70 + 10 * index as u64)).await;
            let now = context.current().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let known = validator.machine.read(|world| {
                let marks =
                    world.ledger.markets().map(|(_, market)| market.mark.and_then(|mark| mark.fresh()));
                (world.ledger.globals().height, marks.collect::<Vec<_>>())
            });
            if let Some((height, marks)) = known {
                trade(&submitter, index as u64, now as u64, height, &marks);
            }
        }
    };
    commonware_macros::select! {
        result = handle => {
            if let Err(error) = result {
                let mut seat = seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                seat.errors.push(format!("consensus ended: {error}"));
            }
        },
        _ = users => {},
        _ = zones => {},
        _ = submitting => {},
        _ = asking => {},
    }
}

/// Submits, and writes down what it is answered about it later.
struct Asked {
    submitter: Submitter,
    seat: Arc<Mutex<Seat>>,
    life: u32,
}

impl Asked {
    fn submit(&self, action: SignedAction) -> Result<Digest, seawall_chain::mempool::SubmitError> {
        let id = self.submitter.submit(action)?;
        let mut seat = self.seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seat.answers.entry((self.life, id)).or_default();
        let (rescues, trades) = self.submitter.waiting();
        seat.queued = (seat.queued.0.max(rescues), seat.queued.1.max(trades));
        Ok(id)
    }

    fn ask(&self) {
        let mut seat = self.seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((life, id), states) in &mut seat.answers {
            let last = states.last().copied();
            if *life == self.life && !last.is_some_and(State::is_answered) {
                let state = self.submitter.state(id);
                if last != Some(state) {
                    states.push(state);
                }
            }
        }
    }
}

/// No answer about a submission is contradicted by the chain, and none is owed for long.
fn check_answers(chain: &BTreeMap<u64, Seen>, seats: &Seats) {
    let mut carried: BTreeMap<Digest, Vec<(Height, Option<Refusal>)>> = BTreeMap::new();
    for seen in chain.values() {
        for (action, answer) in seen.block.body.actions.iter().zip(&seen.answers) {
            let refusal = match answer {
                Answer::Done(_) => None,
                Answer::Refused(refusal) => Some(*refusal),
            };
            let id = seawall_chain::mempool::action_digest(action);
            carried.entry(id).or_default().push((seen.block.header.height, refusal));
        }
    }
    for index in 0..seats.len() {
        let seat = seat(seats, index);
        let last = seat.last.unwrap_or(0);
        for ((life, id), states) in &seat.answers {
            let blocks = carried.get(id).cloned().unwrap_or_default();
            for state in states {
                match state {
                    State::Final { height, refusal } => {
                        assert!(
                            blocks.contains(&(*height, *refusal)),
                            "validator {index}: {states:?}, chain: {blocks:?}"
                        );
                    }
                    State::Expired => {
                        assert!(blocks.is_empty(), "validator {index}: {states:?}, chain: {blocks:?}")
                    }
                    State::Unknown => panic!("validator {index} has forgotten what it was sent: {states:?}"),
                    _ => {}
                }
            }
            // A while after its block became final whoever took it says so.
            let long_final = blocks.iter().any(|(height, _)| height.get() + 20 < last);
            let taken = states.iter().any(|state| matches!(state, State::Pooled | State::Included { .. }));
            if *life == seat.starts && seat.up.contains(life) && long_final && taken {
                assert!(
                    states.iter().any(|state| matches!(state, State::Final { .. })),
                    "validator {index}: {states:?}, chain: {blocks:?}"
                );
            }
        }
    }
}

pub fn signed(account: AccountId, nonce: u64, expiry: u64, action: Action) -> SignedAction {
    let mut signed = SignedAction {
        chain: CHAIN,
        account,
        nonce: Nonce(nonce),
        expiry: Height(expiry),
        action,
        signature: Signature::default(),
    };
    signed.signature = owner(account).sign(Domain::Action, CHAIN, &signed.message());
    signed
}

/// A fill of a quote, both signed.
pub fn fill(
    maker: u64,
    taker: u64,
    market: u16,
    price: u64,
    lots: i64,
    nonce: u64,
    expiry: u64,
) -> SignedAction {
    let quote = Quote {
        chain: CHAIN,
        maker: AccountId(maker),
        taker: AccountId(taker),
        market: MarketId(market),
        side: if nonce.is_multiple_of(2) { Side::Buy } else { Side::Sell },
        price: PriceTicks(price),
        lots: Lots(lots),
        nonce: Nonce(nonce),
        expiry: Height(expiry),
    };
    let quote_signature = owner(quote.maker).sign(Domain::Quote, CHAIN, &quote.message());
    signed(AccountId(taker), nonce, expiry, Action::Fill { quote, quote_signature, lots: Lots(lots) })
}

/// A user action, a function of who submits it and when. Many are refused, as in life.
pub fn random_action(salt: u64, height: u64, accounts: u64) -> SignedAction {
    let draw = |which: u64| mix(salt.wrapping_mul(31).wrapping_add(which));
    let user = 1 + draw(1) % (accounts - 1);
    let other = 1 + draw(2) % (accounts - 1);
    let nonce = draw(3);
    let expiry = height + 1 + draw(4) % 40;
    let amount = Atoms(i128::from(1 + draw(5) % 100_000));
    let market = MarketId((draw(6) % 3) as u16);
    let terms = |which: u64| {
        let price = MARKETS[market.get() as usize] * (980 + draw(8 + which) % 40) / 1_000;
        Terms {
            market,
            side: if draw(9 + which) % 2 == 0 { Side::Buy } else { Side::Sell },
            limit: PriceTicks(price),
            lots: Lots(1 + (draw(10 + which) % 20) as i64),
            kind: [Kind::Limit, Kind::Limit, Kind::Ioc, Kind::PostOnly(OnCross::Slide)]
                [(draw(11 + which) % 4) as usize],
            reduce_only: false,
            good_til: (draw(12 + which) % 3 == 0).then_some(Height(height + draw(13 + which) % 20)),
            cloid: (draw(14 + which) % 2 == 0).then_some(Cloid(draw(15 + which) % 6)),
        }
    };
    let action = match draw(7) % 18 {
        8..=9 => Action::Place(terms(0)),
        10 => Action::PlaceMany((0..1 + draw(16) % 5).map(|which| terms(20 * which)).collect()),
        11 => Action::Close(Terms { reduce_only: true, ..terms(0) }),
        12 if draw(14) % 4 == 0 => Action::CancelRisk { market, order: Name::Cloid(Cloid(draw(15) % 6)) },
        12 if draw(14) % 2 == 0 => Action::Cancel { market, order: Name::Cloid(Cloid(draw(15) % 6)) },
        12 => Action::CancelMany(
            (0..3).map(|which| (market, Name::Cloid(Cloid(draw(15 + which) % 6)))).collect(),
        ),
        13 => Action::CancelAll { market: None, keep_reduce_only: draw(16) % 2 == 0 },
        14..=15 => {
            let terms = Terms { kind: Kind::Ioc, reduce_only: draw(16) % 2 == 0, ..terms(0) };
            let crossing = if draw(17) % 2 == 0 { Crossing::Above } else { Crossing::Below };
            let price = PriceTicks(MARKETS[market.get() as usize] * (950 + draw(18) % 100) / 1_000);
            Action::PlaceTrigger { trigger: Trigger { price, crossing }, terms }
        }
        16 => Action::ScheduleCancel { at: Some(TimeMs(START + height * 20_000 + draw(16) % 100_000)) },
        17 => Action::SetLeverage { market, leverage: 1 + (draw(16) % 20) as u32 },
        0 => {
            return signed(
                ISSUER,
                nonce,
                expiry,
                Action::Open { owner: owner(AccountId(user)).key(), amount },
            );
        }
        1 => return signed(ISSUER, nonce, expiry, Action::Deposit { to: AccountId(user), amount }),
        2 => Action::Transfer { to: AccountId(other), amount },
        3 => Action::TopUpIsolated { market, amount },
        4 => Action::ReleaseIsolated { market, amount },
        5 => Action::Withdraw { amount, recipient: Recipient([7; 32]) },
        6 => Action::SetMarginMode { market, mode: MarginMode::Isolated },
        _ => {
            let price = MARKETS[market.get() as usize] * (970 + draw(8) % 40) / 1_000;
            return fill(user, other, market.get(), price, 1 + (draw(9) % 20) as i64, nonce, expiry);
        }
    };
    signed(AccountId(user), nonce, expiry, action)
}

fn trade(submitter: &Asked, index: u64, now: u64, height: Height, marks: &[Option<PriceTicks>]) {
    let salt = mix(now) ^ index;
    let _ = submitter.submit(random_action(salt, height.get(), 150));
    // Two who want the same at the mark.
    let market = mix(salt) % MARKETS.len() as u64;
    let Some(mark) = marks.get(market as usize).copied().flatten() else { return };
    for (place, side) in (1..).zip([Side::Buy, Side::Sell]) {
        let terms = Terms {
            market: MarketId(market as u16),
            side,
            limit: mark,
            lots: Lots(1 + (mix(salt ^ 5) % 4) as i64),
            kind: Kind::Limit,
            reduce_only: false,
            good_til: Some(Height(height.get() + 8)),
            cloid: None,
        };
        let user = AccountId(1 + mix(salt ^ place << 9) % 149);
        let _ = submitter.submit(signed(user, mix(salt ^ place), height.get() + 20, Action::Place(terms)));
    }
}

/// Done once `count` validators that run have made `height` final.
#[derive(Clone)]
pub struct Reached {
    pub height: u64,
    pub count: usize,
}

impl ExitCondition<PublicKey, Watched> for Reached {
    fn name(&self) -> &str {
        "reached"
    }

    fn requires_polling(&self) -> bool {
        true
    }

    fn reached<'a>(
        &'a self,
        _: &'a ProgressTracker<PublicKey>,
        states: &'a [&'a Watched],
        _: usize,
    ) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send + 'a>> {
        Box::pin(async move {
            let mut count = 0;
            for state in states {
                count += usize::from(state.processed_height().await >= self.height);
            }
            Ok(count >= self.count)
        })
    }
}

/// A link as between data centres of one region.
pub fn link() -> Link {
    Link {
        latency: Duration::from_millis(10),
        jitter: Duration::from_millis(5),
        success_rate: Probability::new(1, 1).unwrap(),
    }
}

/// A link on which nothing arrives.
pub fn cut() -> Link {
    Link { success_rate: Probability::new(0, 1).unwrap(), ..link() }
}

pub fn plan(validators: &Validators, seed: u64, height: u64, count: usize) -> PlanBuilder<Validators> {
    PlanBuilder::new(validators.clone())
        .seed(seed)
        .link(link())
        .exit_condition(Reached { height, count })
        .timeout(Duration::from_secs(7_200))
}

pub fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Cuts every link between the two sides at `ms`.
pub fn split(
    mut schedule: Schedule<PublicKey>,
    ms: u64,
    a: &[PublicKey],
    b: &[PublicKey],
) -> Schedule<PublicKey> {
    for from in a {
        for to in b {
            for (from, to) in [(from, to), (to, from)] {
                let act = Act::UpdateLink { from: from.clone(), to: to.clone(), link: cut() };
                schedule = schedule.at(at(ms), act);
            }
        }
    }
    schedule
}

pub fn scheduled(schedule: Schedule<PublicKey>) -> Crash<PublicKey> {
    Crash::Schedule(schedule)
}

/// Runs all validators for `time`. Whoever calls cuts the power by returning.
pub async fn live(context: deterministic::Context, validators: Validators, time: Duration) {
    let (network, oracle) = Network::<_, PublicKey>::new(
        context.child("network"),
        simulated::Config {
            max_size: validators.max_message_size(),
            max_peers_per_set: NZUsize!(validators.seats.len()),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(1),
        },
    );
    network.start();
    let keys = validators.participants();
    oracle.manager().track(0, validators.fixture.genesis.members.clone());
    let (monitor, mut told) = mpsc::unbounded_channel();
    let mut team = Team::new(validators, keys);
    team.start(&context, &oracle, link(), monitor, &BTreeSet::new()).await;
    let mut tracker = ProgressTracker::default();
    let end = context.current() + time;
    commonware_macros::select! {
        _ = context.sleep_until(end) => {},
        _ = async {
            while let Some(update) = told.recv().await {
                tracker.observe(update).unwrap();
            }
        } => {},
    }
}

/// Shows what validators log, as far as `RUST_LOG` asks for it.
pub fn logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

/// Every record of a world.
pub fn records(world: &World) -> BTreeMap<StateKey, StateValue> {
    world.records().collect()
}

/// The parts of the outcome that a zone owes next, computed from the state alone; none before its salt is there.
pub fn owed(ledger: &Ledger, zone: u8) -> Vec<ZoneOutcome> {
    let Some((height, next)) = ledger.next_part(zone).filter(|(height, _)| ledger.is_salted(zone, *height))
    else {
        return Vec::new();
    };
    let params = |market: &MarketId| {
        let orders = ledger.market(*market).unwrap().params.orders;
        let own = seawall_market::MarketParams { min_lots: orders.min_lots, max_orders: 1 << 17 };
        (*market, own)
    };
    let markets = &ledger.zones()[&zone];
    let records = ledger.market(markets[0]).unwrap().params.orders.max_records as usize;
    let (ended, orders) = ledger.resting(zone);
    let params =
        seawall_market::Params { markets: markets.iter().map(params).collect(), max_orders_per_account: 256 };
    let mut own = seawall_market::Zone::from_orders(params, ended, orders).unwrap();
    let outcome = own.apply(&ledger.inbox(zone, height).unwrap()).unwrap();
    let parts = outcome.split(records).into_iter().filter(|own| own.part >= next);
    let voided = ledger.last_void(zone);
    parts.map(|outcome| ZoneOutcome { zone, voided, outcome }).collect()
}

/// Tokens for rescues by the words of their specification, counted apart from the ledger: what each user posted and
/// whether it carries risk is read from the state before and after a block.
pub struct Buckets {
    rescues: RescueParams,
    /// Parts (`refill_blocks` are a token) after a height. Whoever is not named has a full bucket.
    parts: BTreeMap<AccountId, (u64, u64)>,
    /// Kind, posted and at risk, before the block.
    facts: BTreeMap<AccountId, (AccountKind, i128, bool)>,
    total: i128,
}

impl Buckets {
    pub fn new(ledger: &Ledger) -> Self {
        let mut own = Self {
            rescues: ledger.globals().rescues,
            parts: BTreeMap::new(),
            facts: BTreeMap::new(),
            total: 0,
        };
        own.look(ledger);
        own
    }

    fn look(&mut self, ledger: &Ledger) {
        self.facts = (0..ledger.globals().accounts)
            .map(|id| {
                let account = ledger.account(AccountId(id)).unwrap();
                let isolated = account.positions.iter().map(|position| position.isolated.get().max(0));
                let posted = account.collateral.get().max(0) + isolated.sum::<i128>();
                let risk = !account.positions.is_empty() || ledger.orders_of(AccountId(id)).count() > 0;
                (AccountId(id), (account.kind, posted, risk))
            })
            .collect();
        let users = self.facts.values().filter(|(kind, ..)| *kind == AccountKind::User);
        self.total = users.map(|(_, posted, _)| posted).sum();
    }

    fn parts_at(&self, account: AccountId, height: u64) -> u64 {
        let own = &self.rescues;
        let burst = match self.facts.get(&account) {
            None | Some((AccountKind::Backstop(_), ..)) => 0,
            Some((AccountKind::Issuer, ..)) => u64::from(own.issuer_tokens),
            Some((AccountKind::User, posted, risk)) => {
                let share = (posted * i128::from(own.pool_tokens)).checked_div(self.total).unwrap_or(0);
                let floor = if *risk { own.base_tokens } else { own.flat_tokens };
                u64::from(floor) + u64::try_from(share).unwrap().min(u64::from(own.account_tokens))
            }
        };
        let full = burst * u64::from(own.refill_blocks);
        self.parts.get(&account).map_or(full, |(parts, at)| full.min(parts + burst * (height - at)))
    }

    /// Tokens that an account has in the block of this height, which is the next one.
    pub fn tokens(&self, account: AccountId, height: u64) -> u64 {
        self.parts_at(account, height) / u64::from(self.rescues.refill_blocks)
    }

    /// After the block of this height, which carried so many rescues of each account.
    pub fn follow(&mut self, ledger: &Ledger, height: u64, carried: &BTreeMap<AccountId, u64>) {
        let token = u64::from(self.rescues.refill_blocks);
        let settled: BTreeMap<AccountId, u64> =
            self.facts.keys().map(|id| (*id, self.parts_at(*id, height))).collect();
        let before = self.facts.clone();
        self.look(ledger);
        for (id, (kind, posted, risk)) in &self.facts {
            let spent = carried.get(id).copied().unwrap_or(0);
            let Some((_, old, was)) = before.get(id) else {
                self.parts.insert(*id, (u64::from(self.rescues.flat_tokens) * token, height));
                continue;
            };
            if spent > 0 || (*kind == AccountKind::User && (posted > old || (*risk && !was))) {
                self.parts.insert(*id, (settled[id] - spent * token, height));
            }
        }
    }
}

/// Checks what must hold of any run: one chain, told without gaps or contradictions; each validator's memory
/// is what a replay of that chain from genesis gives; value is conserved; nothing is liquidated blindly.
/// Returns the chain.
pub fn check_run(fixture: &Fixture, seats: &Seats) -> Vec<Seen> {
    let mut chain: BTreeMap<u64, Seen> = BTreeMap::new();
    for index in 0..seats.len() {
        let seat = seat(seats, index);
        assert!(seat.faults.is_empty(), "validator {index}: {:?}", seat.faults);
        for (height, seen) in &seat.blocks {
            let known = chain.entry(*height).or_insert_with(|| seen.clone());
            assert_eq!(known.digest, seen.digest, "validator {index} disagrees at height {height}");
            assert_eq!(known.events, seen.events, "validator {index} did something else at {height}");
            assert_eq!(known.answers, seen.answers, "validator {index} answered otherwise at {height}");
            assert_eq!(seen.stale_price_liquidations, 0, "height {height}");
        }
    }
    check_answers(&chain, seats);
    let mut world = fixture.genesis.world().unwrap();
    let mut parent = from_consensus(fixture.genesis.block(&fixture.commitment).digest());
    let mut states = BTreeMap::from([(parent, records(&world))]);
    let mut spent: BTreeSet<(AccountId, Nonce)> = BTreeSet::new();
    let mut buckets = Buckets::new(&world.ledger);
    for (want, (height, seen)) in (1..).zip(&chain) {
        let before = spent.clone();
        for (action, answer) in seen.block.body.actions.iter().zip(&seen.answers) {
            // An answer that spends no nonce answers nothing: the rescue is still owed.
            let unspent =
                [Refusal::Expired, Refusal::ExpiryTooFar, Refusal::NonceWindowFull].map(Answer::Refused);
            if !unspent.contains(answer) {
                spent.insert((action.account, action.nonce));
            }
            if let Action::Fill { quote, .. } = &action.action {
                spent.insert((quote.maker, quote.nonce));
            }
        }
        // Listed means carried, within the tokens of each signer; and nothing is carried beyond them.
        let mut carried: BTreeMap<AccountId, BTreeSet<Nonce>> = BTreeMap::new();
        for own in seen.block.body.actions.iter().filter(|own| own.action.lane() == Lane::Rescue) {
            carried.entry(own.account).or_default().insert(own.nonce);
        }
        let mut open: BTreeMap<AccountId, BTreeSet<Nonce>> = BTreeMap::new();
        for listed in seen.block.body.observations.iter().flat_map(|observation| &observation.rescues) {
            let name = (listed.account, listed.nonce);
            if !before.contains(&name) && listed.expiry.get() >= *height {
                open.entry(listed.account).or_default().insert(listed.nonce);
            }
        }
        for (account, nonces) in &open {
            let tokens = buckets.tokens(*account, *height);
            for nonce in nonces.iter().take(tokens as usize) {
                let answered = carried.get(account).is_some_and(|own| own.contains(nonce));
                assert!(answered, "block {height} does not carry rescue {nonce} of account {account}");
            }
        }
        let carried: BTreeMap<AccountId, u64> =
            carried.into_iter().map(|(account, nonces)| (account, nonces.len() as u64)).collect();
        for (account, count) in &carried {
            let tokens = buckets.tokens(*account, *height);
            assert!(
                *count <= tokens,
                "block {height}: {count} rescues of account {account}, {tokens} tokens"
            );
        }
        assert_eq!(*height, want, "heights follow each other");
        let header = &seen.block.header;
        assert_eq!(header.parent, parent);
        for own in &seen.block.body.outcomes {
            let owed = seawall_chain::zones::owed(&world.ledger, own.zone);
            assert!(owed.contains(own), "height {height}: {:?} is not what the state gives", own.place());
        }
        let executed = world
            .execute(
                parent,
                header.height,
                seawall_chain::machine::Brought::by(&seen.block),
                seawall_chain::machine::Purpose::Verify,
            )
            .unwrap_or_else(|invalid| panic!("block {height} does not replay: {invalid}"));
        assert_eq!(executed.step.events(), seen.events, "height {height}");
        assert_eq!(executed.step.exits_root, header.exits_root);
        world.ledger.audit().unwrap_or_else(|error| panic!("after block {height}: {error}"));
        buckets.follow(&world.ledger, *height, &carried);
        parent = seen.digest;
        states.insert(parent, records(&world));
    }
    for index in 0..seats.len() {
        let seat = seat(seats, index);
        let last = seat.blocks.values().next_back().map(|seen| seen.digest);
        if let (Some(machine), Some(last)) = (&seat.machine, last)
            && let Some(held) = machine.read_at(last, records)
        {
            assert!(held == states[&last], "validator {index} holds another state than a replay gives");
        }
    }
    chain.into_values().collect()
}

pub fn liquidations(chain: &[Seen]) -> usize {
    chain.iter().flat_map(|seen| &seen.events).filter(|event| matches!(event, Event::Liquidated(_))).count()
}
