//! Synthetic accounts and markets, and how a block goes through the ledger.

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use seawall_ledger::{
    BackstopParams, BlockDelta, ChainParams, FundingParams, GenesisAccount, GenesisPosition, Ledger,
    LiquidationParams, MarketParams, NoVenue, OrderParams, RescueParams, SweepReport, TierParams,
};
use seawall_types::{
    AccountId, Atoms, ChainId, Key, Lots, MarginMode, Mark, MarketId, Ppm, PriceState, PriceTicks, TimeMs,
};

/// The price at which everything opens, in ticks.
pub const PRICE: u64 = 1_000_000;
/// Atoms that a lot gains with a tick: a lot is worth 10 USD.
const TICK: u32 = 10;
/// Worth of a lot, in atoms.
const LOT: i128 = PRICE as i128 * TICK as i128;
/// Maintenance margin of every position here, in ppm of its notional: all are within the first tier.
const MAINTENANCE: i128 = 12_500;
/// Markets: as many as one account can be in.
pub const MARKETS: u16 = 16;
/// The markets from this one on have a backstop that takes nothing...
const DRY_FROM: u16 = 8;
/// ...and those from this one on never move.
const QUIET_FROM: u16 = 10;
/// Time between blocks, in milliseconds.
pub(crate) const INTERVAL_MS: u64 = 500;
/// How far a market moves in a case, in ppm.
pub const MOVE_PPM: u64 = 1_000;

/// Who opens with which positions. Account 0 is the issuer, the others follow.
#[derive(Clone, Debug)]
pub enum Accounts {
    /// All alike: one position in each of the first markets, far from a breach.
    Uniform {
        /// Accounts.
        count: u64,
        /// Positions of each.
        legs: u16,
    },
    /// Two positions each, in any markets; one in fifty has eight cross positions, one in ten has its second
    /// position isolated, and a thousandth makes the market in all of them. All are far from a breach but
    /// those that the cases place.
    Placed {
        /// Accounts.
        count: u64,
        /// What will move, and who is placed to react.
        cases: Vec<Case>,
    },
}

/// One market moves against some accounts that were placed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// The market.
    pub market: MarketId,
    /// Whether it falls; else it rises.
    pub falls: bool,
    /// Accounts that will be in breach.
    pub breaching: u64,
    /// Accounts that will be beyond a threshold of theirs and not in breach.
    pub touched: u64,
}

impl Case {
    /// Whether what is liquidated here is deleveraged: no backstop takes it.
    pub fn is_dry(&self) -> bool {
        self.market.0 >= DRY_FROM
    }

    /// The market's price after the move.
    pub fn price(&self) -> u64 {
        let delta = PRICE * MOVE_PPM / 1_000_000;
        if self.falls { PRICE - delta } else { PRICE + delta }
    }
}

/// Every number of breaches with every number of touched accounts, one market and direction each; and the
/// smallest numbers of breaches once more in the markets without a backstop.
///
/// # Panics
/// If there are more cases than markets can carry.
pub fn cases(breaching: &[u64], touched: &[u64]) -> Vec<Case> {
    let mut cases: Vec<Case> = breaching
        .iter()
        .flat_map(|&breaching| touched.iter().map(move |&touched| (breaching, touched)))
        .enumerate()
        .map(|(at, (breaching, touched))| Case {
            market: MarketId(at as u16 / 2),
            falls: at % 2 == 0,
            breaching,
            touched,
        })
        .collect();
    assert!(cases.iter().all(|case| case.market.0 < DRY_FROM), "a market for each two cases");
    let dry = breaching.iter().copied().filter(|breaching| (1..=1_000).contains(breaching));
    cases.extend((DRY_FROM..QUIET_FROM).zip(dry).map(|(market, breaching)| Case {
        market: MarketId(market),
        falls: true,
        breaching,
        touched: 0,
    }));
    cases
}

fn market(at: u16) -> MarketParams {
    let usd = |usd: i128| Atoms(usd * 1_000_000);
    let tier = |up_to, initial, maintenance| TierParams {
        up_to_notional: usd(up_to),
        initial_ppm: Ppm(initial),
        maintenance_ppm: Ppm(maintenance),
    };
    let most = Lots(4_000_000_000);
    let takes = if (DRY_FROM..QUIET_FROM).contains(&at) { Lots(0) } else { most };
    MarketParams {
        symbol: format!("M{at}").parse().expect("a symbol"),
        atoms_per_tick_lot: TICK,
        min_price: PriceTicks(1),
        max_price: PriceTicks(PRICE * 20),
        tiers: vec![
            tier(1_000_000, 25_000, MAINTENANCE as u32),
            tier(10_000_000, 50_000, 25_000),
            tier(4_000_000_000, 100_000, 50_000),
        ],
        taker_fee_ppm: Ppm(450),
        maker_fee_ppm: Ppm(150),
        funding: FundingParams { interval_ms: 3_600_000, cap_ppm: Ppm(5_000), interest_ppm: 12 },
        band_ppm: Ppm(10_000),
        blind_range_ppm: Ppm(100_000),
        open_interest_cap: most,
        account_cap: most,
        isolated_only: false,
        liquidation: LiquidationParams { penalty_ppm: Ppm(5_000) },
        backstop: BackstopParams {
            initial_fund: usd(1_000_000_000),
            capacity_lots: takes,
            per_block_lots: takes,
        },
        orders: seawall_ledger::OrderParams::default(),
    }
}

/// A ledger before its first block.
///
/// # Panics
/// If fewer accounts are asked for than the cases place.
pub fn ledger(accounts: &Accounts) -> Ledger {
    let users = match accounts {
        Accounts::Uniform { count, legs } => uniform(*count, *legs),
        Accounts::Placed { count, cases } => placed(*count, cases),
    };
    genesis((0..MARKETS).map(market).collect(), users)
}

fn genesis(markets: Vec<MarketParams>, users: Vec<GenesisAccount>) -> Ledger {
    let params = ChainParams {
        chain: ChainId(1),
        issuer: AccountId(0),
        insurance: Atoms(1_000_000_000_000_000),
        liquidation_steps: 100_000,
        max_wait_blocks: 10,
        rescues: RescueParams::default().for_accounts(users.len() as u64),
        markets,
    };
    let issuer = GenesisAccount { owner: Key([0; 32]), collateral: Atoms::ZERO, positions: Vec::new() };
    Ledger::genesis(&params, TimeMs(1_000), std::iter::once(issuer).chain(users)).expect("a sound genesis")
}

/// A ledger before its first block, of accounts that trade: so many cross positions each, in some of the markets
/// (see [`market_of`]), a fifth of their notional as collateral. Two neighbours are each other's counterparty.
///
/// # Panics
/// If the number of accounts is odd.
pub fn trading(count: u64, legs: u16, markets: u16, orders: OrderParams) -> Ledger {
    assert!(count.is_multiple_of(2), "accounts come in pairs");
    let user = |index: u64| {
        let side = if index.is_multiple_of(2) { 1 } else { -1 };
        let positions = (0..legs).map(|leg| position(market_of(index, leg, markets).0, side * 1_000, None));
        account(index, i128::from(legs) * 1_000 * LOT / 5, positions.collect())
    };
    let markets = (0..markets).map(|at| MarketParams { orders, ..market(at) }).collect();
    genesis(markets, (0..count).map(user).collect())
}

/// The market of a position of an account of [`trading`], by the account's place and the position's.
pub fn market_of(index: u64, leg: u16, markets: u16) -> MarketId {
    // Steps of three meet ten markets before they come back.
    MarketId(((index / 2 + 3 * u64::from(leg)) % u64::from(markets)) as u16)
}

fn position(market: u16, lots: i64, isolated: Option<i128>) -> GenesisPosition {
    GenesisPosition {
        market: MarketId(market),
        lots: Lots(lots),
        cost: Atoms(i128::from(lots) * LOT),
        mode: if isolated.is_some() { MarginMode::Isolated } else { MarginMode::Cross },
        isolated: Atoms(isolated.unwrap_or(0)),
    }
}

fn account(index: u64, collateral: i128, mut positions: Vec<GenesisPosition>) -> GenesisAccount {
    positions.sort_unstable_by_key(|position| position.market);
    let mut owner = [0; 32];
    owner[..8].copy_from_slice(&index.to_le_bytes());
    GenesisAccount { owner: Key(owner), collateral: Atoms(collateral), positions }
}

fn uniform(count: u64, legs: u16) -> Vec<GenesisAccount> {
    (0..count)
        .map(|index| {
            let side = if index % 2 == 0 { 1 } else { -1 };
            let positions = (0..legs).map(|market| position(market, side * 1_000, None)).collect();
            account(index, i128::from(legs) * 1_000 * LOT / 5, positions)
        })
        .collect()
}

#[derive(Clone, Copy)]
enum Role {
    /// Reacts to this case; in breach or only touched.
    Placed(Case, bool),
    /// Far from everything.
    Far,
}

fn placed(count: u64, cases: &[Case]) -> Vec<GenesisAccount> {
    let mut rng = ChaCha8Rng::seed_from_u64(count);
    let makers = (count / 1_000).max(2);
    let mut roles: Vec<Role> = Vec::with_capacity(count as usize);
    for &case in cases {
        roles.extend((0..case.breaching).map(|_| Role::Placed(case, true)));
        roles.extend((0..case.touched).map(|_| Role::Placed(case, false)));
    }
    let others = (count - makers).checked_sub(roles.len() as u64).expect("more accounts than are placed");
    roles.extend((0..others).map(|_| Role::Far));
    roles.shuffle(&mut rng);
    let mut net = [0i64; MARKETS as usize];
    let mut accounts = Vec::with_capacity(count as usize);
    for role in roles {
        let index = accounts.len() as u64;
        let account = match role {
            Role::Placed(case, breaching) => near(index, case, breaching, &mut rng),
            Role::Far => far(index, &mut rng),
        };
        for position in &account.positions {
            net[usize::from(position.market.0)] += position.lots.0;
        }
        accounts.push(account);
    }
    // Market makers hold what is left over in every market.
    for maker in 0..makers {
        let mut positions = Vec::new();
        for (market, net) in (0..).zip(net) {
            let rest = i64::from((maker as i64) < net.abs() % makers as i64);
            let lots = -net.signum() * (net.abs() / makers as i64 + rest);
            if lots != 0 {
                positions.push(position(market, lots, None));
            }
        }
        let notional: i128 = positions.iter().map(|position| position.cost.0.abs()).sum();
        accounts.push(account(accounts.len() as u64, notional / 2 + 1_000_000, positions));
    }
    accounts
}

/// An account that the case moves against: its larger leg is in the market that moves, the other one, three
/// quarters of its size, in one that never does.
///
/// The larger leg, of notional 1, loses 0.001 when its market moves, of which 1.25 % is relieved or added as
/// maintenance. Slack of 0.0009 is a breach then, slack of 0.002 is not. Neither is so little that the
/// index examines the account in every block: it reserves 1/32 of the maintenance of 1.75 of notional, 0.0007,
/// for funding. The rest is split over the legs by size, and 4/7 of the rest of 0.002 is below 0.001, so the
/// account's threshold is crossed.
fn near(index: u64, case: Case, breaching: bool, rng: &mut ChaCha8Rng) -> GenesisAccount {
    let quarters = rng.random_range(25..750i64);
    let side = if case.falls { 1 } else { -1 };
    let other = if rng.random_range(0..2) == 0 { 1 } else { -1 };
    let quiet = rng.random_range(QUIET_FROM..MARKETS);
    let (large, small) = (4 * quarters, 3 * quarters);
    let maintenance = i128::from(large + small) * LOT * MAINTENANCE / 1_000_000;
    let slack = i128::from(large) * LOT * if breaching { 900 } else { 2_000 } / 1_000_000;
    account(
        index,
        maintenance + slack,
        vec![position(case.market.0, side * large, None), position(quiet, other * small, None)],
    )
}

/// An account that no case reaches: the least slack is 5 % of its notional.
fn far(index: u64, rng: &mut ChaCha8Rng) -> GenesisAccount {
    let legs = if rng.random_range(0..50) == 0 { 8 } else { 2 };
    let isolates = legs == 2 && rng.random_range(0..10) == 0;
    let (from, step) = (rng.random_range(0..MARKETS), 2 * rng.random_range(0..MARKETS / 2) + 1);
    let (mut collateral, mut positions) = (0, Vec::with_capacity(legs));
    for leg in 0..legs as u16 {
        let lots = rng.random_range(100..3_000i64) * if rng.random_range(0..2) == 0 { 1 } else { -1 };
        let share = MAINTENANCE + i128::from(rng.random_range(50_000..500_000u32));
        let margin = i128::from(lots.abs()) * LOT * share / 1_000_000;
        // An odd step meets every market before it comes back.
        let market = (from + leg * step) % MARKETS;
        if isolates && leg == 1 {
            positions.push(position(market, lots, Some(margin)));
        } else {
            collateral += margin;
            positions.push(position(market, lots, None));
        }
    }
    account(index, collateral, positions)
}

/// Fresh marks of all markets at the price at which everything opens.
pub fn opening() -> Vec<(MarketId, Mark)> {
    (0..MARKETS).map(|market| fresh(MarketId(market), PRICE)).collect()
}

/// A fresh mark.
pub fn fresh(market: MarketId, price: u64) -> (MarketId, Mark) {
    (market, Mark::new(PriceState::Fresh, PriceTicks(price), TimeMs(1)))
}

/// A whole block of prices and nothing else, an interval after the last one.
pub fn block(ledger: &mut Ledger, marks: &[(MarketId, Mark)]) -> (SweepReport, BlockDelta) {
    let time = TimeMs(ledger.globals().time.0 + INTERVAL_MS);
    block_at(ledger, time, marks)
}

/// A whole block of prices and nothing else.
pub fn block_at(ledger: &mut Ledger, time: TimeMs, marks: &[(MarketId, Mark)]) -> (SweepReport, BlockDelta) {
    ledger.begin_block(ledger.globals().height.next(), time);
    ledger.set_marks(marks);
    ledger.accrue_funding();
    let report = ledger.sweep(&mut NoVenue);
    (report, ledger.end_block())
}
