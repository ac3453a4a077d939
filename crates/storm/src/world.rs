//! From a scenario to a chain: prices, markets, the opening book, keys and the committee. All of it follows from the
//! scenario and the seed.
//!
//! Prices are those of a shipped replay, or a path of a stated shape that three synthetic venues show. The opening book is
//! drawn by [`seawall_replay::book`]. After its accounts come the traders: flat, with collateral, for actions that add risk.
//! Margin schedules, fees and funds are those of the development network.

use crate::scenario::{Plan, SyntheticPlan};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use seawall_chain::{
    crypto::Identity,
    engine::Timeouts,
    genesis::{Dealt, Genesis, GenesisError, deal_committee},
};
use seawall_ledger::{
    BackstopParams, ChainParams, FundingParams, GenesisAccount, GenesisPosition, LiquidationParams,
    MarketParams, OrderParams, RescueParams, TierParams,
};
use seawall_oracle::{MarketParams as OracleMarket, OracleParams, SourceParams};
use seawall_replay::{
    ClockTime, Feed, FeedValue, MarketListing, Replay, ReplayError,
    book::{self, BookError, BookSpec},
};
use seawall_types::{AccountId, Atoms, ChainId, Lots, MarginMode, MarketId, Ppm, PriceTicks, TimeMs, limits};
use thiserror::Error;

/// The chain of every storm.
pub const CHAIN: ChainId = ChainId(7_777);
/// The account that issues deposits.
pub const ISSUER: AccountId = AccountId(0);
/// Chain time at which synthetic paths begin.
pub const SYNTHETIC_START_MS: u64 = 1_760_000_000_000;

const ATOMS_PER_USD: i128 = 1_000_000;
const ACCOUNT_KEYS: u64 = 1 << 32;
const VALIDATOR_KEYS: u64 = 1 << 20;
/// Opening price of a synthetic market, and what makes its lot worth five dollars.
const SYNTHETIC_TICKS: u64 = 100_000;
const SYNTHETIC_ATOMS: u32 = 50;
const SYNTHETIC_VENUES: [&str; 3] = ["venue-a", "venue-b", "venue-c"];
/// Virtual time between two values of a synthetic venue.
const SYNTHETIC_STEP_MS: u64 = 250;
/// Collateral of a trader: never in the way of an order of the lab.
const TRADER_ATOMS: i128 = 1_000_000 * ATOMS_PER_USD;
/// Bars without an update after which a market is stale, for which a value is fresh, and for which it still votes.
const STALE_BARS: u64 = 3;
const FRESH_BARS: u64 = 3;
const VOTE_BARS: u64 = 15;
/// Most that a stamp may be ahead of a validator's clock, in chain time.
const MAX_AHEAD_MS: u64 = 1_000;
/// Blocks that liquidation waits for an auction.
const LATE_AFTER_BLOCKS: u32 = 6;
const MAJORS: [&str; 3] = ["BTC", "ETH", "SOL"];

/// A scenario that makes no chain.
#[derive(Debug, Error)]
pub enum WorldError {
    /// The replay does not load.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A market that the replay does not have.
    #[error("the replay {replay} has no market {symbol}; it has {known}")]
    Symbol {
        /// Replay.
        replay: String,
        /// Asked for.
        symbol: String,
        /// What there is.
        known: String,
    },
    /// The replay ends before the storm does.
    #[error(
        "the storm takes {needed_s} s of replayed time, and the replay's window has {has_s} s; widen it, or lower speed"
    )]
    TooShort {
        /// Needed.
        needed_s: u64,
        /// There.
        has_s: u64,
    },
    /// The book cannot be drawn.
    #[error("the opening book cannot be drawn: {0}")]
    Book(#[from] BookError),
    /// A name that is none.
    #[error("{0} is no name of a market")]
    Name(String),
    /// The genesis does not hold.
    #[error("the genesis does not hold: {0}")]
    Genesis(#[from] GenesisError),
}

/// A chain ready to start.
pub struct World {
    /// Prices.
    pub replay: Replay,
    /// Genesis.
    pub genesis: Genesis,
    /// Secrets of the committee.
    pub dealt: Dealt,
    /// What each market's sources are held to.
    pub sources: Vec<SourceParams>,
    /// Accounts with positions: `1..=book`. Traders follow.
    pub book: u64,
}

/// Key of an account's owner.
pub fn account_key(account: AccountId, seed: u64) -> Identity {
    Identity::insecure(ACCOUNT_KEYS + (seed % (1 << 20)) * (1 << 33) + account.get())
}

/// A number that looks random and is the same everywhere.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn synthetic(plan: &Plan, shape: &SyntheticPlan, seed: u64) -> Replay {
    let speed = u64::from(plan.market.speed);
    let price_at = |virtual_ms: u64| {
        let after = shape.path.partition_point(|point| point.at_ms <= virtual_ms);
        let ppm = match (after.checked_sub(1).map(|last| shape.path[last]), shape.path.get(after)) {
            (Some(a), Some(b)) => {
                let (way, gone) = (i128::from(b.at_ms - a.at_ms), i128::from(virtual_ms - a.at_ms));
                i128::from(a.ppm) + (i128::from(b.ppm) - i128::from(a.ppm)) * gone / way
            }
            (Some(only), None) | (None, Some(&only)) => i128::from(only.ppm),
            (None, None) => 1_000_000,
        };
        i128::from(SYNTHETIC_TICKS) * ppm / 1_000_000
    };
    let steps = plan.length_ms() / SYNTHETIC_STEP_MS + 1;
    let mut feeds = Vec::new();
    for market in 0..shape.symbols.len() as u64 {
        for (venue, name) in (0..).zip(SYNTHETIC_VENUES) {
            let value = |step: u64| {
                let fair = price_at(step * SYNTHETIC_STEP_MS);
                let noise = match shape.noise_ppm {
                    0 => 0,
                    most => i128::from(
                        mix(seed ^ mix(market << 8 ^ venue) ^ step << 20) % u64::from(2 * most + 1),
                    ),
                };
                let price = fair + fair * (noise - i128::from(shape.noise_ppm)) / 1_000_000;
                let at = SYNTHETIC_START_MS + step * SYNTHETIC_STEP_MS * speed;
                let price = PriceTicks(u64::try_from(price.max(1)).unwrap_or(1));
                FeedValue { visible_ms: at, stamp_ms: at, price }
            };
            feeds.push(Feed {
                venue: name.to_owned(),
                market: MarketId(market as u16),
                bar_ms: 4 * SYNTHETIC_STEP_MS * speed,
                values: (0..steps).map(value).collect(),
            });
        }
    }
    let count = shape.symbols.len() as u32;
    let listing = |(place, symbol): (u32, &String)| {
        let own = |feed: &&Feed| u32::from(feed.market.get()) == place;
        let prices = || feeds.iter().filter(own).flat_map(|feed| &feed.values).map(|value| value.price);
        let first = PriceTicks(u64::try_from(price_at(0).max(1)).unwrap_or(1));
        MarketListing {
            symbol: symbol.clone(),
            tick_usd: "0.01".into(),
            lot: "0.005".into(),
            atoms_per_tick_lot: SYNTHETIC_ATOMS,
            first_price: first,
            lowest_price: prices().min().unwrap_or(first),
            highest_price: prices().max().unwrap_or(first),
            weight_ppm: if place + 1 == count {
                1_000_000 - (count - 1) * (1_000_000 / count)
            } else {
                1_000_000 / count
            },
        }
    };
    let markets = (0..).zip(&shape.symbols).map(listing).collect();
    let end_ms = SYNTHETIC_START_MS + steps * SYNTHETIC_STEP_MS * speed;
    Replay { name: "synthetic".into(), start_ms: SYNTHETIC_START_MS, end_ms, markets, feeds }
}

/// The markets of a replay with these symbols, numbered anew in the replay's order.
fn select(mut replay: Replay, symbols: &[String]) -> Result<Replay, WorldError> {
    if symbols.is_empty() {
        return Ok(replay);
    }
    let known = || replay.markets.iter().map(|market| market.symbol.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(symbol) =
        symbols.iter().find(|symbol| !replay.markets.iter().any(|own| own.symbol == **symbol))
    {
        return Err(WorldError::Symbol {
            replay: replay.name.clone(),
            symbol: symbol.clone(),
            known: known(),
        });
    }
    let kept: Vec<usize> =
        (0..replay.markets.len()).filter(|place| symbols.contains(&replay.markets[*place].symbol)).collect();
    let number = |market: MarketId| kept.iter().position(|place| *place == usize::from(market.get()));
    replay.feeds = replay
        .feeds
        .into_iter()
        .filter_map(|feed| number(feed.market).map(|place| Feed { market: MarketId(place as u16), ..feed }))
        .collect();
    let total: u64 = kept.iter().map(|place| u64::from(replay.markets[*place].weight_ppm)).sum();
    replay.markets = kept.iter().map(|place| replay.markets[*place].clone()).collect();
    // What rounding leaves goes to the first.
    let mut left = 1_000_000;
    for market in replay.markets.iter_mut().rev() {
        market.weight_ppm = (u64::from(market.weight_ppm) * 1_000_000 / total.max(1)) as u32;
        left -= market.weight_ppm;
    }
    if let Some(first) = replay.markets.first_mut() {
        first.weight_ppm += left;
    }
    Ok(replay)
}

fn tiers(major: bool) -> Vec<TierParams> {
    let tier = |up_to: i128, initial_ppm, maintenance_ppm| TierParams {
        up_to_notional: Atoms(up_to * ATOMS_PER_USD),
        initial_ppm: Ppm(initial_ppm),
        maintenance_ppm: Ppm(maintenance_ppm),
    };
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

impl World {
    /// The chain of a scenario, from a seed.
    ///
    /// # Errors
    /// If the replay, the book or the genesis does not hold.
    pub fn build(plan: &Plan, seed: u64, timeouts: &Timeouts) -> Result<Self, WorldError> {
        let replay = match (&plan.market.replay, &plan.market.synthetic) {
            (Some(name), _) => {
                let clock = |text: &Option<String>| text.as_deref().map(str::parse::<ClockTime>).transpose();
                let whole = seawall_replay::load(name, clock(&plan.market.from)?, clock(&plan.market.to)?)?;
                select(whole, &plan.market.symbols)?
            }
            (None, Some(shape)) => synthetic(plan, shape, seed),
            (None, None) => unreachable!("a scenario was checked"),
        };
        let needed_ms = plan.length_ms() * u64::from(plan.market.speed);
        let has_ms = replay.end_ms - replay.start_ms;
        if needed_ms > has_ms + 1_000 * u64::from(plan.market.speed) {
            return Err(WorldError::TooShort { needed_s: needed_ms / 1_000, has_s: has_ms / 1_000 });
        }
        let schedules: Vec<Vec<TierParams>> = replay
            .markets
            .iter()
            .map(|market| tiers(MAJORS.iter().any(|major| market.symbol.starts_with(major))))
            .collect();
        let mut spec = BookSpec { accounts: plan.book.accounts, seed, ..BookSpec::default() };
        if !plan.book.leverage.is_empty() {
            spec.leverage = plan.book.leverage.clone();
        }
        if let Some(long) = plan.book.long {
            spec.long_ppm = (long.0 * 1e6) as u32;
        }
        let book = book::generate(&replay, &spec, |market, notional| {
            let tiers = &schedules[usize::from(market.get())];
            let tier = tiers.iter().find(|tier| notional <= tier.up_to_notional.get()).or(tiers.last());
            tier.map_or(limits::MAX_PPM, |tier| tier.initial_ppm.get())
        })?;

        let validators = plan.validators();
        let faults = (validators as u64 - 1) / 3;
        let leader_turn_ms = timeouts.leader.as_millis() as u64 * u64::from(plan.market.speed);
        let bar_ms =
            (0..replay.markets.len() as u16).map(|id| replay.bar_ms(MarketId(id))).max().unwrap_or(0);
        let max_age_ms = (STALE_BARS * bar_ms).max((faults + 1) * leader_turn_ms);
        let (mut markets, mut oracle_markets, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        for (index, listing) in replay.markets.iter().enumerate() {
            let id = MarketId(index as u16);
            let first = listing.first_price.get();
            let (min_price, max_price) = (PriceTicks((first / 100).max(1)), PriceTicks(first * 20));
            let open = book.open_interest[index].max(1);
            let fund = i128::from(open) * i128::from(first) * i128::from(listing.atoms_per_tick_lot) / 20;
            markets.push(MarketParams {
                symbol: listing.symbol.parse().map_err(|_| WorldError::Name(listing.symbol.clone()))?,
                atoms_per_tick_lot: listing.atoms_per_tick_lot,
                min_price,
                max_price,
                tiers: schedules[index].clone(),
                taker_fee_ppm: Ppm(450),
                maker_fee_ppm: Ppm(150),
                funding: FundingParams { interval_ms: 3_600_000, cap_ppm: Ppm(5_000), interest_ppm: 12 },
                band_ppm: Ppm(10_000),
                blind_range_ppm: Ppm(100_000),
                open_interest_cap: Lots(open.saturating_mul(4).min(limits::MAX_LOTS)),
                account_cap: Lots(open.saturating_mul(4).min(limits::MAX_LOTS)),
                isolated_only: false,
                liquidation: LiquidationParams { penalty_ppm: Ppm(5_000) },
                backstop: BackstopParams {
                    initial_fund: Atoms(fund.max(1)),
                    capacity_lots: Lots((open / 2).max(1)),
                    per_block_lots: Lots((open / 10).max(1)),
                },
                orders: OrderParams {
                    zone: (index % 2) as u8,
                    max_per_account: 256,
                    late_after: LATE_AFTER_BLOCKS,
                    ..OrderParams::default()
                },
            });
            let venues = replay.feeds_of(id).filter(|place| !replay.feeds[*place].values.is_empty()).count();
            let major = MAJORS.iter().any(|major| listing.symbol.starts_with(major));
            oracle_markets.push(OracleMarket {
                min_price,
                max_price,
                report_max_age_heights: 64.max(2 * validators as u64),
                report_max_age_ms: max_age_ms,
                band_ppm: Ppm(20_000),
                gate_ppm: Ppm(if major { 100_000 } else { 150_000 }),
                min_sources: if venues >= 3 { 2 } else { 1 },
                stale_after_ms: max_age_ms,
                outage_after_ms: 5 * max_age_ms,
                grace_ms: max_age_ms,
                quarantine_after_ms: 60 * max_age_ms,
            });
            sources.push(SourceParams {
                max_age_ms: FRESH_BARS * replay.bar_ms(id),
                max_vote_age_ms: VOTE_BARS * replay.bar_ms(id),
                max_ahead_ms: MAX_AHEAD_MS * u64::from(plan.market.speed),
                min_price,
                max_price,
            });
        }
        let owned = |account: u64, collateral, positions| GenesisAccount {
            owner: account_key(AccountId(account), seed).key(),
            collateral: Atoms(collateral),
            positions,
        };
        let mut accounts = vec![owned(0, 0, Vec::new())];
        for (id, account) in (1..).zip(&book.accounts) {
            let position = |own: &book::BookPosition| GenesisPosition {
                market: own.market,
                lots: Lots(own.lots),
                cost: Atoms(own.cost_atoms),
                mode: if own.isolated_collateral.is_some() {
                    MarginMode::Isolated
                } else {
                    MarginMode::Cross
                },
                isolated: Atoms(own.isolated_collateral.unwrap_or(0)),
            };
            accounts.push(owned(
                id,
                account.collateral_atoms,
                account.positions.iter().map(position).collect(),
            ));
        }
        let book_accounts = accounts.len() as u64 - 1;
        for trader in 0..plan.book.traders as u64 {
            accounts.push(owned(1 + book_accounts + trader, TRADER_ATOMS, Vec::new()));
        }
        let insurance: i128 = markets.iter().map(|market| market.backstop.initial_fund.get()).sum();
        // The issuer stands for a bridge: it books the top-ups of everybody.
        let rescues = RescueParams { issuer_tokens: limits::MAX_RESCUE_TOKENS, ..RescueParams::default() };
        let rescues = rescues.for_accounts(accounts.len() as u64);
        let identities = (0..validators as u64)
            .map(|index| Identity::insecure(VALIDATOR_KEYS + (seed % (1 << 20)) * (1 << 33) + index))
            .collect();
        let dealt = deal_committee(ChaCha20Rng::seed_from_u64(seed), identities)?;
        let genesis = Genesis {
            time: TimeMs(replay.start_ms),
            ledger: ChainParams {
                chain: CHAIN,
                issuer: ISSUER,
                insurance: Atoms(insurance),
                liquidation_steps: 20_000,
                max_wait_blocks: 10,
                rescues,
                markets,
            },
            oracle: OracleParams {
                leader_turn_ms: leader_turn_ms.max(1),
                halt_after_ms: 10 * max_age_ms,
                markets: oracle_markets,
            },
            prices: replay.markets.iter().map(|market| Some(market.first_price)).collect(),
            members: dealt.set.clone(),
            group: dealt.group.clone(),
            accounts,
        };
        Ok(Self { replay, genesis, dealt, sources, book: book_accounts })
    }
}
