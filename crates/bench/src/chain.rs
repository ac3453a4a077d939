//! What benchmarks of whole validators and of the authenticated state share: a chain without a story.
//!
//! Accounts come in pairs, a long and a short, each with a cross position in two markets, all far from
//! liquidation: these benchmarks measure settlement, the sweep has its own ([`sweep`](crate::sweep)).

use seawall_chain::{
    crypto::Identity,
    genesis::{Dealt, Genesis, GenesisError, deal_committee},
    observer::PriceSource,
};
use seawall_ledger::{
    BackstopParams, ChainParams, FundingParams, GenesisAccount, GenesisPosition, LiquidationParams,
    MarketParams, OrderParams, RescueParams, TierParams,
};
use seawall_oracle::{MarketParams as OracleMarket, OracleParams};
use seawall_types::{
    AccountId, Action, Atoms, ChainId, Domain, Health, Height, Lots, MarginMode, MarketId, Nonce,
    Observation, Ppm, PriceReport, PriceTicks, Signature, SignedAction, TimeMs, ValidatorId, limits,
};

/// The chain's id.
pub const CHAIN: ChainId = ChainId(9_001);
/// Markets.
pub const MARKETS: u16 = 14;
/// Price of every market, in ticks.
pub const PRICE: PriceTicks = PriceTicks(100_000);
/// Time of block 0.
pub const START: TimeMs = TimeMs(1_760_000_000_000);
/// Account that issues deposits.
pub const ISSUER: AccountId = AccountId(0);
/// Collateral of every account: its two positions are worth a tenth of it each.
const COLLATERAL: i128 = 10_000_000_000;
const LOTS: i64 = 10_000;

/// Key of an account's owner, or of a validator above [`VALIDATORS`].
pub fn owner(account: AccountId) -> Identity {
    Identity::insecure(account.get())
}

const VALIDATORS: u64 = 1 << 40;

fn market(index: u16) -> MarketParams {
    MarketParams {
        symbol: format!("M{index}").parse().expect("a short name"),
        atoms_per_tick_lot: 1,
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
        tiers: vec![
            TierParams {
                up_to_notional: Atoms(1_000_000_000_000),
                initial_ppm: Ppm(50_000),
                maintenance_ppm: Ppm(25_000),
            },
            TierParams {
                up_to_notional: Atoms(1 << 62),
                initial_ppm: Ppm(100_000),
                maintenance_ppm: Ppm(50_000),
            },
        ],
        taker_fee_ppm: Ppm(450),
        maker_fee_ppm: Ppm(150),
        funding: FundingParams { interval_ms: 28_800_000, cap_ppm: Ppm(7_500), interest_ppm: 100 },
        band_ppm: Ppm(10_000),
        blind_range_ppm: Ppm(100_000),
        open_interest_cap: Lots(1 << 34),
        account_cap: Lots(1 << 30),
        isolated_only: false,
        liquidation: LiquidationParams { penalty_ppm: Ppm(5_000) },
        backstop: BackstopParams {
            initial_fund: Atoms(1_000_000_000_000),
            capacity_lots: Lots(1 << 30),
            per_block_lots: Lots(1 << 30),
        },
        orders: OrderParams::default(),
    }
}

fn oracle() -> OracleParams {
    let market = OracleMarket {
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
        report_max_age_heights: 64,
        report_max_age_ms: 60_000,
        band_ppm: Ppm(10_000),
        gate_ppm: Ppm(100_000),
        min_sources: 1,
        stale_after_ms: 60_000,
        outage_after_ms: 300_000,
        grace_ms: 60_000,
        quarantine_after_ms: 3_600_000,
    };
    OracleParams { leader_turn_ms: 3_000, halt_after_ms: 600_000, markets: vec![market; MARKETS.into()] }
}

fn accounts(count: u64) -> impl Iterator<Item = GenesisAccount> {
    let issuer = GenesisAccount { owner: owner(ISSUER).key(), collateral: Atoms(0), positions: Vec::new() };
    let users = (0..count).map(|place| {
        let sign = if place % 2 == 0 { 1 } else { -1 };
        let first = (place / 2 % u64::from(MARKETS)) as u16;
        let mut markets = [first, (first + 5) % MARKETS];
        markets.sort_unstable();
        let positions = markets.map(|market| GenesisPosition {
            market: MarketId(market),
            lots: Lots(sign * LOTS),
            cost: Atoms(i128::from(sign * LOTS) * i128::from(PRICE.get())),
            mode: MarginMode::Cross,
            isolated: Atoms(0),
        });
        GenesisAccount {
            owner: owner(AccountId(place + 1)).key(),
            collateral: Atoms(COLLATERAL),
            positions: positions.to_vec(),
        }
    });
    std::iter::once(issuer).chain(users)
}

/// A chain of `validators` with an issuer and `count` accounts; an even number, as longs equal shorts.
///
/// # Errors
/// If there are no or too many validators.
pub fn genesis(
    validators: u64,
    count: u64,
    rng: impl rand_core::CryptoRng,
) -> Result<(Genesis, Dealt), GenesisError> {
    let identities = (0..validators).map(|index| Identity::insecure(VALIDATORS + index)).collect();
    let dealt = deal_committee(rng, identities)?;
    let genesis = Genesis {
        time: START,
        ledger: ChainParams {
            chain: CHAIN,
            issuer: ISSUER,
            insurance: Atoms(1_000_000_000_000),
            liquidation_steps: 1_000,
            max_wait_blocks: 10,
            rescues: RescueParams { issuer_tokens: limits::MAX_RESCUE_TOKENS, ..RescueParams::default() }
                .for_accounts(count),
            markets: (0..MARKETS).map(market).collect(),
        },
        oracle: oracle(),
        prices: vec![Some(PRICE); MARKETS.into()],
        members: dealt.set.clone(),
        group: dealt.group.clone(),
        accounts: accounts(count & !1).collect(),
    };
    Ok((genesis, dealt))
}

/// What every source says in a calm market.
pub fn prices() -> Vec<(MarketId, PriceReport)> {
    prices_at(PRICE)
}

/// What every source says where all markets have one price.
pub fn prices_at(price: PriceTicks) -> Vec<(MarketId, PriceReport)> {
    let report = PriceReport { low: price, high: price, spread: PriceTicks(0), sources: 3 };
    (0..MARKETS).map(|market| (MarketId(market), report)).collect()
}

/// A source that always says the same.
pub struct Calm;

impl PriceSource for Calm {
    fn report(&self, _: TimeMs) -> Vec<(MarketId, PriceReport)> {
        prices()
    }
}

/// An action that its owner has signed and the block of this height may carry, no later one.
pub fn signed(account: AccountId, nonce: u64, height: u64, action: Action) -> SignedAction {
    let mut signed = SignedAction {
        chain: CHAIN,
        account,
        nonce: Nonce(nonce),
        expiry: Height(height),
        action,
        signature: Signature::default(),
    };
    signed.signature = owner(account).sign(Domain::Action, CHAIN, &signed.message());
    signed
}

/// What the validator of a committee of one observes.
pub fn observe(identity: &Identity, height: u64, price: PriceTicks) -> Observation {
    let mut observation = Observation {
        chain: CHAIN,
        epoch: 0,
        view: height,
        seq: height,
        time: TimeMs(START.get() + 250 * height),
        prices: prices_at(price),
        rescues: Vec::new(),
        outcomes: Vec::new(),
        health: Health::default(),
        author: ValidatorId(0),
        signature: Signature::default(),
    };
    observation.signature = identity.sign(Domain::Observation, CHAIN, &observation.message());
    observation
}
