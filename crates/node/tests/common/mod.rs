//! A chain with one validator, small enough to be run for real in a test: its genesis, its prices, and a
//! directory that it filled over TCP and tokio.

#![allow(dead_code, missing_docs)]

use commonware_utils::channel::oneshot;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use seawall_chain::{
    app::{BuildPolicy, Monitor},
    block::Block,
    crypto::Identity,
    genesis::{Dealt, Genesis, deal_committee},
    machine::Step,
    observer::PriceSource,
    store::StateCommitment,
    timeline::Timeline,
};
use seawall_ledger::{
    BackstopParams, ChainParams, FundingParams, GenesisAccount, GenesisPosition, LiquidationParams,
    MarketParams, TierParams,
};
use seawall_node::{genesis_file, process};
use seawall_oracle::{MarketParams as OracleMarket, OracleParams};
use seawall_types::*;
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tempfile::TempDir;

pub const CHAIN: ChainId = ChainId(41);
pub const ISSUER: AccountId = AccountId(0);
pub const PRICES: [u64; 2] = [100_000, 4_000];
pub const BLOCKS: u64 = 40;

pub fn owner(account: AccountId) -> Identity {
    Identity::insecure(5_000_000 + account.get())
}

fn market(symbol: &str) -> MarketParams {
    let tier = |up_to: i128, initial, maintenance| TierParams {
        up_to_notional: Atoms(up_to),
        initial_ppm: Ppm(initial),
        maintenance_ppm: Ppm(maintenance),
    };
    MarketParams {
        symbol: symbol.parse().unwrap(),
        atoms_per_tick_lot: 1,
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
        tiers: vec![tier(1_000_000_000_000, 50_000, 20_000), tier(1 << 62, 100_000, 50_000)],
        taker_fee_ppm: Ppm(500),
        maker_fee_ppm: Ppm(100),
        funding: FundingParams { interval_ms: 28_800_000, cap_ppm: Ppm(7_500), interest_ppm: -100 },
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
        orders: seawall_ledger::OrderParams::default(),
    }
}

/// A genesis with `pairs` longs and as many shorts in each market, and the committee's secrets.
pub fn genesis(pairs: u64, validators: u64) -> (Genesis, Dealt) {
    let identities = (0..validators).map(|index| Identity::insecure(900 + index)).collect();
    let dealt = deal_committee(ChaCha20Rng::seed_from_u64(3), identities).unwrap();
    let mut accounts = vec![GenesisAccount {
        owner: owner(ISSUER).key(),
        collateral: Atoms(1_000_000_000),
        positions: Vec::new(),
    }];
    for pair in 0..pairs {
        for sign in [1, -1] {
            let position = |market: u16, isolated: Option<i128>| {
                let lots = 10 + (pair % 90) as i64;
                GenesisPosition {
                    market: MarketId(market),
                    lots: Lots(lots * sign),
                    cost: Atoms(i128::from(PRICES[usize::from(market)]) * i128::from(lots * sign)),
                    mode: if isolated.is_some() { MarginMode::Isolated } else { MarginMode::Cross },
                    isolated: Atoms(isolated.unwrap_or(0)),
                }
            };
            let positions = match pair % 3 {
                0 => vec![position(0, None), position(1, Some(250_000))],
                1 => vec![position(1, Some(0))],
                _ => vec![position(1, None)],
            };
            accounts.push(GenesisAccount {
                owner: owner(AccountId(accounts.len() as u64)).key(),
                collateral: Atoms(2_000_000),
                positions,
            });
        }
    }
    let oracle = OracleMarket {
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
        report_max_age_heights: 16,
        report_max_age_ms: 60_000,
        band_ppm: Ppm(20_000),
        gate_ppm: Ppm(60_000),
        min_sources: 1,
        stale_after_ms: 60_000,
        outage_after_ms: 180_000,
        grace_ms: 60_000,
        quarantine_after_ms: 3_600_000,
    };
    let genesis = Genesis {
        time: TimeMs(process::wall_ms()),
        ledger: ChainParams {
            chain: CHAIN,
            issuer: ISSUER,
            insurance: Atoms(100_000_000_000),
            liquidation_steps: 64,
            max_wait_blocks: 20,
            rescues: seawall_ledger::RescueParams::default(),
            markets: vec![market("BTC"), market("ETH-2")],
        },
        oracle: OracleParams { leader_turn_ms: 10_000, halt_after_ms: 600_000, markets: vec![oracle; 2] },
        prices: vec![Some(PriceTicks(PRICES[0])), None],
        members: dealt.set.clone(),
        group: dealt.group.clone(),
        accounts,
    };
    (genesis, dealt)
}

struct Feed;

impl PriceSource for Feed {
    fn report(&self, now: TimeMs) -> Vec<(MarketId, PriceReport)> {
        let report = |index: u16| {
            let price = PriceTicks(PRICES[usize::from(index)] + now.get() / 50 % 40);
            let report = PriceReport { low: price, high: price, spread: PriceTicks(0), sources: 2 };
            (MarketId(index), report)
        };
        vec![report(0), report(1)]
    }
}

/// Stops the validator at a height.
struct Until {
    height: u64,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    first: Arc<Mutex<Option<Height>>>,
}

impl Monitor for Until {
    fn finalized(&self, block: &Block, _: Digest, _: &Step) {
        self.first.lock().unwrap().get_or_insert(block.header.height);
        if block.header.height.get() >= self.height
            && let Some(stop) = self.stop.lock().unwrap().take()
        {
            let _ = stop.send(());
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

/// Runs the only validator of a chain in `directory` until block `height` is final, with a few deposits
/// and transfers. Returns the first block that it told of.
pub fn run(
    directory: &Path,
    genesis: &Arc<Genesis>,
    commitment: StateCommitment,
    dealt: &Dealt,
    height: u64,
) -> Height {
    let (identity, share) = dealt.members[0].clone();
    let (stop, stopped) = oneshot::channel();
    let first = Arc::default();
    let options = process::Options {
        genesis: genesis.clone(),
        commitment,
        listen: "127.0.0.1:0".parse().unwrap(),
        peers: vec![(identity.public(), "127.0.0.1:1".parse().unwrap())],
        identity,
        share,
        directory: directory.into(),
        source: Arc::new(Feed),
        timeline: Timeline::LIVE,
        policy: BuildPolicy { interval: Duration::from_millis(20), ..BuildPolicy::default() },
        monitor: Arc::new(Until { height, stop: Mutex::new(Some(stop)), first: Arc::clone(&first) }),
        probe: Arc::new(|_| {}),
        metrics: None,
        submit: None,
    };
    let ready = move |running: process::Running| {
        let submitter = running.submitter;
        std::thread::spawn(move || {
            for nonce in 0..BLOCKS {
                std::thread::sleep(Duration::from_millis(15));
                let amount = Atoms(1_000 + i128::from(nonce));
                let action = match nonce % 3 {
                    0 => Action::Deposit { to: AccountId(1 + nonce % 7), amount },
                    1 => Action::Withdraw { amount, recipient: Recipient([7; 32]) },
                    _ => Action::Transfer { to: AccountId(2), amount },
                };
                let _ = submitter.submit(signed(ISSUER, 1_000 * height + nonce, 10_000, action));
            }
        });
    };
    process::run(options, stopped, Box::new(ready)).unwrap();
    first.lock().unwrap().expect("a block was final")
}

/// A chain that one validator made.
pub struct Fixture {
    pub genesis: Arc<Genesis>,
    pub commitment: StateCommitment,
    pub dealt: Dealt,
    directory: TempDir,
}

impl Fixture {
    /// The one that all tests share: run once.
    pub fn get() -> &'static Self {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| {
            let (genesis, dealt) = genesis(6, 1);
            let commitment = genesis_file::commitment(&genesis).unwrap();
            let genesis = Arc::new(genesis);
            let directory = tempfile::tempdir().unwrap();
            run(directory.path(), &genesis, commitment, &dealt, BLOCKS);
            Fixture { genesis, commitment, dealt, directory }
        })
    }

    /// A copy of the directory, to be read or spoiled.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_all(self.directory.path(), copy.path());
        copy
    }
}

pub fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}
