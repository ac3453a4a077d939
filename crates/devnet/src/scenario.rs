//! From a replay to a chain: market parameters, the opening book and the committee.
//!
//! Prices are real. The opening book and what account owners do are drawn from the documented
//! distributions of [`seawall_replay`], seeded. Orders, where they are asked for, are a recorded tape of one market
//! laid around the prices of all, and market makers. Nothing else is synthetic.

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use seawall_chain::{
    crypto::Identity,
    genesis::{Dealt, Genesis, deal_committee},
};
use seawall_ledger::{
    BackstopParams, ChainParams, FundingParams, GenesisAccount, GenesisPosition, LiquidationParams,
    MarketParams, OrderParams, RescueParams, TierParams,
};
use seawall_node::feeds::source_params;
use seawall_oracle::{MarketParams as OracleMarket, OracleParams, SourceParams};
use seawall_replay::{
    Replay,
    book::{self, Book, BookSpec},
    traffic::{Traffic, TrafficMarket, TrafficSpec},
};
use seawall_types::{AccountId, Atoms, ChainId, Lots, MarginMode, MarketId, Ppm, PriceTicks, TimeMs, limits};

/// Atoms of one US dollar.
pub const ATOMS_PER_USD: i128 = 1_000_000;
/// The account that issues deposits in a scenario.
pub const ISSUER: AccountId = AccountId(0);
/// Keys of accounts are derived from their index above this seed, keys of validators below it.
const ACCOUNT_KEY_SEED: u64 = 1 << 32;
const VALIDATOR_KEY_SEED: u64 = 1 << 20;

/// Bars without an update after which a market is stale.
const STALE_BARS: u64 = 3;

/// Orders that an account may have in a market.
const MAX_ORDERS_PER_ACCOUNT: u16 = 256;

/// Markets with the deepest books get the widest leverage.
const MAJORS: [&str; 3] = ["BTC", "ETH", "SOL"];

/// What a scenario is made from.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Chain id.
    pub chain: ChainId,
    /// Validators.
    pub validators: usize,
    /// Accounts with a position.
    pub accounts: usize,
    /// Seed of keys, book and behaviour.
    pub seed: u64,
    /// Chain time that one leader's turn can take, its timeout included.
    pub leader_turn_ms: u64,
    /// Over how many zones the markets are spread, in turn.
    pub zones: u8,
    /// Replayed time a wall time: what the traffic runs at.
    pub speed: u32,
    /// Orders to send; nothing where nobody trades.
    pub traffic: Option<TrafficSpec>,
}

/// Blocks that liquidation waits for an auction before the ladder goes on without it, where orders are traded. An
/// outcome settles three or four blocks after its inbox.
const LATE_AFTER_BLOCKS: u32 = 6;

/// A chain ready to start.
pub struct Scenario {
    /// Genesis.
    pub genesis: Genesis,
    /// The committee's secrets.
    pub dealt: Dealt,
    /// What each market's sources are held to.
    pub sources: Vec<SourceParams>,
    /// Owners of accounts `1..`: account `i` belongs to user `i - 1`.
    pub users: usize,
    /// What sends orders, from accounts after the users'.
    pub traffic: Option<Traffic>,
}

impl Scenario {
    /// The account of a place among those of the traffic.
    pub const fn traffic_account(&self, place: usize) -> AccountId {
        AccountId((1 + self.users + place) as u64)
    }
}

/// Key of an account's owner. Derived from the index alone: development networks only.
pub fn account_key(account: AccountId, seed: u64) -> Identity {
    Identity::insecure(ACCOUNT_KEY_SEED + seed.wrapping_mul(1 << 33) + account.get())
}

fn tiers(major: bool) -> Vec<TierParams> {
    let usd = |usd: i128| Atoms(usd * ATOMS_PER_USD);
    let tier = |up_to, initial_ppm, maintenance_ppm| TierParams {
        up_to_notional: usd(up_to),
        initial_ppm: Ppm(initial_ppm),
        maintenance_ppm: Ppm(maintenance_ppm),
    };
    // The shape of published venue schedules: halved leverage at each step in size.
    if major {
        vec![
            tier(1_000_000, 25_000, 12_500),
            tier(10_000_000, 50_000, 25_000),
            tier(4_000_000_000, 100_000, 50_000),
        ]
    } else {
        vec![
            tier(250_000, 50_000, 25_000),
            tier(2_000_000, 100_000, 50_000),
            tier(4_000_000_000, 200_000, 100_000),
        ]
    }
}

/// Initial margin on a whole notional, in parts per million, rounded up: what the book must respect.
fn initial_ppm(tiers: &[TierParams], notional: i128) -> u32 {
    let tier = tiers.iter().find(|tier| notional <= tier.up_to_notional.get()).or(tiers.last());
    tier.map_or(limits::MAX_PPM, |tier| tier.initial_ppm.get())
}

/// Builds a scenario.
///
/// # Errors
/// If the replay cannot carry a book, or a parameter does not hold.
pub fn build(replay: &Replay, spec: &Spec) -> Result<Scenario> {
    let majors: Vec<bool> = replay
        .markets
        .iter()
        .map(|market| MAJORS.iter().any(|major| market.symbol.starts_with(major)))
        .collect();
    let schedules: Vec<Vec<TierParams>> = majors.iter().map(|major| tiers(*major)).collect();
    let book_spec = BookSpec { accounts: spec.accounts, seed: spec.seed, ..BookSpec::default() };
    let book = book::generate(replay, &book_spec, |market, notional| {
        initial_ppm(&schedules[usize::from(market.get())], notional)
    })
    .context("the opening book cannot be drawn")?;

    // One dead leader must never make a market stale: f + 1 turns, each up to a leader's timeout, in chain
    // time. And no sooner than a recording of bars can say that a venue is gone.
    let faults = (spec.validators.max(1) as u64 - 1) / 3;
    let bar_ms = (0..replay.markets.len() as u16).map(|id| replay.bar_ms(MarketId(id))).max().unwrap_or(0);
    let max_age_ms = (STALE_BARS * bar_ms).max((faults + 1) * spec.leader_turn_ms);
    let mut markets = Vec::new();
    let mut oracle_markets = Vec::new();
    let mut prices = Vec::new();
    for (index, listing) in replay.markets.iter().enumerate() {
        let id = MarketId(u16::try_from(index).context("too many markets")?);
        let major = majors[index];
        let first = listing.first_price.get();
        let (min_price, max_price) = (PriceTicks((first / 100).max(1)), PriceTicks(first.saturating_mul(20)));
        let open = book.open_interest[index].max(1);
        let per_lot = i128::from(first) * i128::from(listing.atoms_per_tick_lot);
        let fund = (i128::from(open) * per_lot / 20).max(1);
        markets.push(MarketParams {
            symbol: listing.symbol.parse().with_context(|| format!("market name {}", listing.symbol))?,
            atoms_per_tick_lot: listing.atoms_per_tick_lot,
            min_price,
            max_price,
            tiers: schedules[index].clone(),
            taker_fee_ppm: Ppm(450),
            maker_fee_ppm: Ppm(150),
            funding: FundingParams { interval_ms: 3_600_000, cap_ppm: Ppm(5_000), interest_ppm: 12 },
            band_ppm: Ppm(10_000),
            blind_range_ppm: Ppm(100_000),
            open_interest_cap: Lots(open.saturating_mul(2)),
            account_cap: Lots(open.saturating_mul(2)),
            isolated_only: false,
            liquidation: LiquidationParams { penalty_ppm: Ppm(5_000) },
            backstop: BackstopParams {
                initial_fund: Atoms(fund),
                capacity_lots: Lots((open / 2).max(1)),
                per_block_lots: Lots((open / 10).max(1)),
            },
            orders: OrderParams {
                zone: (index % usize::from(spec.zones.max(1))) as u8,
                max_per_account: MAX_ORDERS_PER_ACCOUNT,
                // Where nobody trades, an auction can close nothing.
                late_after: if spec.traffic.is_some() { LATE_AFTER_BLOCKS } else { 0 },
                // All zones together fit a block, so that none keeps another out.
                max_records: (limits::MAX_RECORDS_PER_BLOCK as u32 / u32::from(spec.zones.max(1)))
                    .min(OrderParams::default().max_records),
                ..OrderParams::default()
            },
        });
        let count = replay.feeds_of(id).filter(|place| !replay.feeds[*place].values.is_empty()).count();
        oracle_markets.push(OracleMarket {
            min_price,
            max_price,
            report_max_age_heights: 64.max(2 * spec.validators as u64),
            report_max_age_ms: max_age_ms,
            band_ppm: Ppm(20_000),
            gate_ppm: Ppm(if major { 100_000 } else { 150_000 }),
            // With two venues a jump is already confirmed by both when both live; when one is silent, the
            // other is most of what there is.
            min_sources: if count >= 3 { 2 } else { 1 },
            stale_after_ms: max_age_ms,
            outage_after_ms: 5 * max_age_ms,
            grace_ms: max_age_ms,
            quarantine_after_ms: 60 * max_age_ms,
        });
        prices.push(Some(listing.first_price));
    }

    let sources = source_params(replay, &oracle_markets);
    let mut accounts = genesis_accounts(&book, spec.seed);
    let users = accounts.len() - 1;
    let traffic = match &spec.traffic {
        None => None,
        Some(orders) => Some(traffic(replay, spec, orders.clone(), &markets, &book)?),
    };
    if let Some(traffic) = &traffic {
        let first = accounts.len() as u64;
        accounts.extend((0..traffic.accounts()).map(|place| GenesisAccount {
            owner: account_key(AccountId(first + place as u64), spec.seed).key(),
            collateral: Atoms(traffic.collateral_atoms(place)),
            positions: Vec::new(),
        }));
    }
    let insurance: i128 = markets.iter().map(|market| market.backstop.initial_fund.get()).sum();
    // Whoever is there may come to carry risk. The issuer stands for a bridge: it books the top-ups of everybody.
    let rescues = RescueParams {
        issuer_tokens: limits::MAX_RESCUE_TOKENS,
        min_transfer: Atoms(ATOMS_PER_USD / 100),
        ..RescueParams::default()
    };
    let rescues = rescues.for_accounts(accounts.len() as u64);
    let ledger = ChainParams {
        chain: spec.chain,
        issuer: ISSUER,
        insurance: Atoms(insurance),
        liquidation_steps: 20_000,
        max_wait_blocks: 10,
        rescues,
        markets,
    };
    let oracle = OracleParams {
        leader_turn_ms: spec.leader_turn_ms.max(1),
        halt_after_ms: 10 * max_age_ms,
        markets: oracle_markets,
    };
    let identities = (0..spec.validators as u64)
        .map(|index| Identity::insecure(VALIDATOR_KEY_SEED + spec.seed.wrapping_mul(1 << 33) + index))
        .collect();
    let dealt = deal_committee(ChaCha20Rng::seed_from_u64(spec.seed), identities)?;
    let genesis = Genesis {
        time: TimeMs(replay.start_ms),
        ledger,
        oracle,
        prices,
        members: dealt.set.clone(),
        group: dealt.group.clone(),
        accounts,
    };
    Ok(Scenario { genesis, dealt, sources, users, traffic })
}

/// Orders around the replay's prices: the tape and the makers of [`seawall_replay::traffic`].
fn traffic(
    replay: &Replay,
    spec: &Spec,
    orders: TrafficSpec,
    markets: &[MarketParams],
    book: &Book,
) -> Result<Traffic> {
    let infos: Vec<TrafficMarket> = replay
        .markets
        .iter()
        .zip(markets)
        .zip(&book.open_interest)
        .map(|((listing, market), open_interest)| TrafficMarket {
            weight_ppm: listing.weight_ppm,
            first_price: listing.first_price,
            atoms_per_tick_lot: market.atoms_per_tick_lot,
            open_interest: Lots(*open_interest),
            band_ppm: market.band_ppm,
            min_price: market.min_price,
            max_price: market.max_price,
            min_lots: market.orders.min_lots,
            max_per_account: market.orders.max_per_account,
            account_cap: market.account_cap,
        })
        .collect();
    let orders = TrafficSpec { seed: spec.seed, ..orders };
    Traffic::new(orders, &replay.name, &infos, spec.speed).context("the traffic cannot be set up")
}

/// The issuer, then the book's accounts.
fn genesis_accounts(book: &Book, seed: u64) -> Vec<GenesisAccount> {
    let issuer = GenesisAccount {
        owner: account_key(ISSUER, seed).key(),
        collateral: Atoms::ZERO,
        positions: Vec::new(),
    };
    let users = (1..).zip(&book.accounts).map(|(index, account)| GenesisAccount {
        owner: account_key(AccountId(index), seed).key(),
        collateral: Atoms(account.collateral_atoms),
        positions: account
            .positions
            .iter()
            .map(|position| GenesisPosition {
                market: position.market,
                lots: Lots(position.lots),
                cost: Atoms(position.cost_atoms),
                mode: if position.isolated_collateral.is_some() {
                    MarginMode::Isolated
                } else {
                    MarginMode::Cross
                },
                isolated: Atoms(position.isolated_collateral.unwrap_or(0)),
            })
            .collect(),
    });
    std::iter::once(issuer).chain(users).collect()
}
