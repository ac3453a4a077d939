//! A recorded crash as a ledger and marks: the replay's opening book, and in every block the median of what
//! each market's venues show.
//!
//! No validators, no oracle and no owners: prices go straight into the ledger. A market is fresh while one
//! of its venues shows a value younger than [`FRESH_MS`].

use seawall_ledger::{
    BackstopParams, ChainParams, FundingParams, GenesisAccount, GenesisPosition, Ledger, LiquidationParams,
    MarketParams, RescueParams, TierParams,
};
use seawall_replay::{
    DEFAULT_REPLAY, Replay,
    book::{self, BookSpec},
};
use seawall_types::{
    AccountId, Atoms, ChainId, Key, Lots, MarginMode, Mark, MarketId, Ppm, PriceState, PriceTicks, TimeMs,
    limits::MAX_PPM,
};

/// How long a value stands for a market.
pub const FRESH_MS: u64 = 120_000;
/// Markets with the widest leverage.
const MAJORS: [&str; 3] = ["BTC", "ETH", "SOL"];

fn tiers(symbol: &str) -> Vec<TierParams> {
    let major = MAJORS.iter().any(|major| symbol.starts_with(major));
    let rows: [(i128, u32); 3] = if major {
        [(1_000_000, 25_000), (10_000_000, 50_000), (4_000_000_000, 100_000)]
    } else {
        [(250_000, 50_000), (2_000_000, 100_000), (4_000_000_000, 200_000)]
    };
    rows.map(|(usd, initial)| TierParams {
        up_to_notional: Atoms(usd * 1_000_000),
        initial_ppm: Ppm(initial),
        maintenance_ppm: Ppm(initial / 2),
    })
    .to_vec()
}

/// The crash and a ledger before its first block, with so many accounts of the replay's opening book.
///
/// # Panics
/// If the embedded recording does not carry the book.
pub fn open(accounts: u64, seed: u64) -> (Replay, Ledger) {
    let replay = seawall_replay::load(DEFAULT_REPLAY, None, None).expect("the embedded recording loads");
    let schedules: Vec<_> = replay.markets.iter().map(|market| tiers(&market.symbol)).collect();
    let spec = BookSpec { accounts: accounts as usize, seed, ..BookSpec::default() };
    let book = book::generate(&replay, &spec, |market, notional| {
        let tiers = &schedules[usize::from(market.0)];
        let tier = tiers.iter().find(|tier| notional <= tier.up_to_notional.0);
        tier.map_or(MAX_PPM, |tier| tier.initial_ppm.0)
    })
    .expect("a book can be drawn");
    let markets: Vec<_> = replay
        .markets
        .iter()
        .zip(&schedules)
        .zip(&book.open_interest)
        .map(|((listing, tiers), &open)| {
            let open = open.max(1);
            let lot = i128::from(listing.first_price.0) * i128::from(listing.atoms_per_tick_lot);
            MarketParams {
                symbol: listing.symbol.parse().expect("a symbol"),
                atoms_per_tick_lot: listing.atoms_per_tick_lot,
                min_price: PriceTicks((listing.first_price.0 / 100).max(1)),
                max_price: PriceTicks(listing.first_price.0 * 20),
                tiers: tiers.clone(),
                taker_fee_ppm: Ppm(450),
                maker_fee_ppm: Ppm(150),
                funding: FundingParams { interval_ms: 3_600_000, cap_ppm: Ppm(5_000), interest_ppm: 12 },
                band_ppm: Ppm(10_000),
                blind_range_ppm: Ppm(100_000),
                open_interest_cap: Lots(open * 2),
                account_cap: Lots(open * 2),
                isolated_only: false,
                liquidation: LiquidationParams { penalty_ppm: Ppm(5_000) },
                // A fund of a twentieth of the open interest; half of it can be held, a tenth taken a block.
                backstop: BackstopParams {
                    initial_fund: Atoms((i128::from(open) * lot / 20).max(1)),
                    capacity_lots: Lots((open / 2).max(1)),
                    per_block_lots: Lots((open / 10).max(1)),
                },
                orders: seawall_ledger::OrderParams::default(),
            }
        })
        .collect();
    let params = ChainParams {
        chain: ChainId(1),
        issuer: AccountId(0),
        insurance: Atoms(markets.iter().map(|market| market.backstop.initial_fund.0).sum()),
        liquidation_steps: 20_000,
        max_wait_blocks: 10,
        rescues: RescueParams::default().for_accounts(book.accounts.len() as u64),
        markets,
    };
    let issuer = GenesisAccount { owner: Key([0; 32]), collateral: Atoms::ZERO, positions: Vec::new() };
    let users = book.accounts.iter().map(|account| GenesisAccount {
        owner: Key([1; 32]),
        collateral: Atoms(account.collateral_atoms),
        positions: account
            .positions
            .iter()
            .map(|position| GenesisPosition {
                market: position.market,
                lots: Lots(position.lots),
                cost: Atoms(position.cost_atoms),
                mode: match position.isolated_collateral {
                    Some(_) => MarginMode::Isolated,
                    None => MarginMode::Cross,
                },
                isolated: Atoms(position.isolated_collateral.unwrap_or(0)),
            })
            .collect(),
    });
    let genesis =
        Ledger::genesis(&params, TimeMs(replay.start_ms - 2_000), std::iter::once(issuer).chain(users));
    (replay, genesis.expect("a sound genesis"))
}

/// Fresh marks at the prices at which the book was opened.
pub fn opening(replay: &Replay) -> Vec<(MarketId, Mark)> {
    let time = TimeMs(replay.start_ms);
    (0..)
        .zip(&replay.markets)
        .map(|(market, listing)| (MarketId(market), Mark::new(PriceState::Fresh, listing.first_price, time)))
        .collect()
}

/// What the venues show at an instant: the lower median of the values that are young enough, or else of all,
/// as stale. A market that no venue has shown yet has no mark.
pub fn marks(replay: &Replay, now_ms: u64) -> Vec<(MarketId, Mark)> {
    let mut marks = Vec::with_capacity(replay.markets.len());
    for market in (0..replay.markets.len()).map(|at| MarketId(at as u16)) {
        let shown: Vec<(PriceTicks, u64)> =
            replay.feeds_of(market).filter_map(|feed| replay.feeds[feed].at(now_ms)).collect();
        let median = |mut values: Vec<(PriceTicks, u64)>| {
            values.sort_unstable();
            values.get(values.len().checked_sub(1)? / 2).copied()
        };
        let young: Vec<_> = shown.iter().copied().filter(|(_, stamp)| stamp + FRESH_MS > now_ms).collect();
        let state = if young.is_empty() { PriceState::Stale } else { PriceState::Fresh };
        if let Some((price, stamp)) = median(if young.is_empty() { shown } else { young }) {
            marks.push((market, Mark::new(state, price, TimeMs(stamp))));
        }
    }
    marks
}
