//! The accounts with which a chain starts into a storm.
//!
//! No venue publishes its book, so this one is drawn. What is known of real ones is matched where it
//! can be; every other number is an estimate, says so, and is a field of [`BookSpec`].
//!
//! | what | default | why |
//! | --- | --- | --- |
//! | body of an account's notional | lognormal, median 1,500 USD, sigma 1.7 | estimate; sizes span "individuals that trade small, risky positions" to "wealthy agents" (Soska et al., *Towards Understanding Cryptocurrency Derivatives: A Case Study of BitMEX*, WWW 2021) |
//! | tail | 1.5 % of accounts, Pareto above 100,000 USD, exponent 1.3, cut at 50 million | estimate between Zipf's law of wealth (1) and the 3/2 of trading volume (Gabaix et al., *A theory of power-law distributions in financial market fluctuations*, Nature 423, 2003) |
//! | mean that follows | about 12,000 USD | `CoinGlass` counted 19.1 billion USD over 1.62 million traders liquidated on 2025-10-10: 11,800 USD each |
//! | leverage | mixture from 2x to 50x, mean 10.6x, used to 40-100 % | estimate; those liquidated on BitMEX averaged 60x (Cheng, Deng, Wang, Yu, *Liquidation, Leverage and Optimal Margin in Bitcoin Futures Markets*, arXiv 2102.04591), venues of today allow less |
//! | long share | 62 % of directional accounts | estimate; 87 % of what was liquidated on 2025-10-10 was long (`CoinGlass`), but that is the losing side, not the book |
//! | isolated, hedged, several markets | 25 %, 10 %, 20 % of accounts | estimate |
//! | markets | by [`MarketListing::weight_ppm`](crate::MarketListing::weight_ppm) | the recording |
//!
//! Larger accounts use less leverage: above 100,000 USD it shrinks with the 0.15th power of size
//! (estimate), and the market's own initial margin caps it at every size.
//!
//! All positions are entered at the first price, so an account starts with its collateral as equity.
//! What longs and shorts leave over is held by a few market makers at low leverage, so that in every
//! market the lots sum to zero and, at one entry price, so do the costs, exactly.

use crate::Replay;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Pareto};
use seawall_types::{
    MarketId,
    limits::{MAX_ACCOUNTS, MAX_AMOUNT_ATOMS, MAX_LOTS, MAX_POSITIONS_PER_ACCOUNT, MAX_PPM},
};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use thiserror::Error;

/// Atoms in a USD, for the amounts of [`BookSpec`].
const ATOMS_PER_USD: f64 = 1_000_000.0;
/// Above this notional an account uses less leverage the larger it is.
const LARGE_ACCOUNT_USD: f64 = 100_000.0;
/// How fast leverage shrinks with size beyond that.
const LEVERAGE_SIZE_EXPONENT: f64 = 0.15;
/// Smallest share of its chosen leverage that an account uses.
const LEAST_USE_OF_LEVERAGE: f64 = 0.4;
/// Collateral above the initial margin, as a share of it, for accounts at the cap of their leverage:
/// at least this, so that rounding or a tick never puts a new account below its initial margin.
const MARGIN_SLACK_PPM: Range<u32> = 20_000..300_000;
/// Most legs of an account that trades several markets.
const MAX_LEGS: usize = 5;
/// A leg of a directional account that goes the other way.
const CONTRARY_LEG_PPM: u32 = 150_000;
/// How many accounts there are to each market maker, unless said otherwise.
const ACCOUNTS_PER_MAKER: usize = 1_000;
/// Fewest and most market makers, unless said otherwise.
const MAKERS: Range<usize> = 2..200;
/// Leverage of a market maker: half of what it holds is paid for.
const MAKER_LEVERAGE: i128 = 2;
/// Least collateral of a market maker, in atoms: 10,000 USD.
const MAKER_FLOOR_ATOMS: i128 = 10_000_000_000;

/// What book to draw. The defaults are explained in the [module](self).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BookSpec {
    /// Accounts, market makers included.
    pub accounts: usize,
    /// Seed. Account `i` is the same in books of any size, as long as it is no market maker.
    pub seed: u64,
    /// Market makers; `None`: one for every thousand accounts, 2 to 200.
    pub makers: Option<usize>,
    /// Median notional of an account.
    pub median_notional_usd: f64,
    /// Sigma of the lognormal body.
    pub body_sigma: f64,
    /// Share of accounts in the tail.
    pub tail_ppm: u32,
    /// Where the tail starts.
    pub tail_from_usd: f64,
    /// Exponent of the tail; above 1, or there is no mean.
    pub tail_exponent: f64,
    /// Largest notional of an account that is no market maker, and of its position in the heaviest
    /// market; in a lighter one as much less as that weighs less, because nobody finds the other side.
    pub max_notional_usd: f64,
    /// Share of accounts that are long.
    pub long_ppm: u32,
    /// Share of accounts with isolated positions.
    pub isolated_ppm: u32,
    /// Share of accounts that are long one market and short others.
    pub hedged_ppm: u32,
    /// Share of accounts with cross positions in several markets.
    pub several_ppm: u32,
    /// Leverage that accounts choose, with the weight of each choice.
    pub leverage: Vec<(u32, u32)>,
}

impl Default for BookSpec {
    fn default() -> Self {
        Self {
            accounts: 100_000,
            seed: 0,
            makers: None,
            median_notional_usd: 1_500.0,
            body_sigma: 1.7,
            tail_ppm: 15_000,
            tail_from_usd: 100_000.0,
            tail_exponent: 1.3,
            max_notional_usd: 50_000_000.0,
            long_ppm: 620_000,
            isolated_ppm: 250_000,
            hedged_ppm: 100_000,
            several_ppm: 200_000,
            leverage: vec![(2, 14), (3, 16), (5, 22), (10, 24), (20, 14), (25, 4), (40, 5), (50, 1)],
        }
    }
}

/// Why a book cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BookError {
    /// A field of the spec is out of range.
    #[error("{0}")]
    Spec(String),
    /// The residual of a market is larger than its market makers can hold.
    #[error("the residual of market {market} is beyond what {makers} market makers can hold")]
    Residual {
        /// Market.
        market: MarketId,
        /// Market makers of it.
        makers: usize,
    },
}

/// Accounts and their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// Every account; its place is its index for [`behaviour`](crate::behaviour) too.
    pub accounts: Vec<BookAccount>,
    /// Places of the market makers: the last ones.
    pub makers: Range<usize>,
    /// Lots that are long in each market, which are as many as are short.
    pub open_interest: Vec<i64>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookAccount {
    /// Cross collateral, in atoms.
    pub collateral_atoms: i128,
    /// Positions, by ascending market.
    pub positions: Vec<BookPosition>,
}

/// A position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookPosition {
    /// Market.
    pub market: MarketId,
    /// Size; positive is long; never zero.
    pub lots: i64,
    /// What was paid for it, in atoms: lots x price x atoms per tick and lot, negative for a short.
    pub cost_atoms: i128,
    /// Its own collateral, in atoms, if it is isolated.
    pub isolated_collateral: Option<i128>,
}

impl Book {
    /// All collateral, cross and isolated: what the genesis must hold against it.
    pub fn total_collateral(&self) -> i128 {
        self.accounts.iter().map(BookAccount::total_collateral).sum()
    }
}

impl BookAccount {
    /// Cross and isolated collateral together.
    pub fn total_collateral(&self) -> i128 {
        let isolated: i128 = self.positions.iter().filter_map(|position| position.isolated_collateral).sum();
        self.collateral_atoms + isolated
    }
}

/// A market while a book is drawn.
struct Market {
    /// Worth of one lot at the first price, in atoms.
    lot_atoms: i128,
    /// Weights up to and including this market.
    cumulative: u32,
    /// Largest position of an account that is no market maker, in atoms.
    most_atoms: f64,
}

/// How an account holds its positions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Isolated,
    Hedged,
    Several,
    Single,
}

/// Draws a book. `initial_margin_ppm(market, notional in atoms)` is the rate at which a position of that
/// size must be margined on the whole of its notional.
///
/// Every account starts above its initial margin, summed over its positions without offsets.
///
/// # Errors
/// A spec that is out of range.
pub fn generate(
    replay: &Replay,
    spec: &BookSpec,
    initial_margin_ppm: impl Fn(MarketId, i128) -> u32,
) -> Result<Book, BookError> {
    let drawer = Drawer::new(replay, spec, initial_margin_ppm)?;
    let takers = spec.accounts - drawer.makers;
    let base = ChaCha8Rng::seed_from_u64(spec.seed);
    let mut net = vec![0i64; drawer.markets.len()];
    let mut open_interest = vec![0i64; drawer.markets.len()];
    let mut accounts = Vec::with_capacity(spec.accounts);
    for index in 0..takers {
        // A stream of its own for each account: it does not depend on how many others there are.
        let mut rng = base.clone();
        rng.set_stream(index as u64);
        let account = drawer.account(&mut rng);
        for position in &account.positions {
            net[usize::from(position.market.0)] += position.lots;
        }
        accounts.push(account);
    }
    accounts.extend(drawer.market_makers(&net)?);
    for position in accounts.iter().flat_map(|account| &account.positions) {
        open_interest[usize::from(position.market.0)] += position.lots.max(0);
    }
    Ok(Book { accounts, makers: takers..spec.accounts, open_interest })
}

struct Drawer<'a, F> {
    spec: &'a BookSpec,
    markets: Vec<Market>,
    makers: usize,
    body: LogNormal<f64>,
    tail: Pareto<f64>,
    leverage_total: u32,
    initial_margin_ppm: F,
}

impl<'a, F: Fn(MarketId, i128) -> u32> Drawer<'a, F> {
    fn new(replay: &Replay, spec: &'a BookSpec, initial_margin_ppm: F) -> Result<Self, BookError> {
        let bad = |reason: &str| BookError::Spec(reason.to_owned());
        let groups = replay.markets.len().div_ceil(MAX_POSITIONS_PER_ACCOUNT);
        let usual = (spec.accounts / ACCOUNTS_PER_MAKER).clamp(MAKERS.start, MAKERS.end).max(groups);
        let makers = spec.makers.unwrap_or(usual);
        if replay.markets.is_empty() {
            return Err(bad("a book needs a market"));
        }
        if makers < groups || makers > spec.accounts || spec.accounts as u64 > MAX_ACCOUNTS {
            return Err(BookError::Spec(format!(
                "{} accounts with {makers} market makers: at least {groups} must be market makers, and at \
                 most {MAX_ACCOUNTS} accounts can be",
                spec.accounts
            )));
        }
        if [spec.tail_ppm, spec.long_ppm].iter().any(|share| *share > MAX_PPM)
            || u64::from(spec.isolated_ppm) + u64::from(spec.hedged_ppm) + u64::from(spec.several_ppm)
                > u64::from(MAX_PPM)
        {
            return Err(bad("shares are parts per million of all accounts"));
        }
        let most = MAX_AMOUNT_ATOMS as f64 / ATOMS_PER_USD / 1e3;
        let sizes = [spec.median_notional_usd, spec.tail_from_usd, spec.max_notional_usd];
        if sizes.iter().any(|usd| !(1.0..=most).contains(usd)) || !(1.01..=10.0).contains(&spec.tail_exponent)
        {
            return Err(bad("notionals must be at least 1 USD and the tail's exponent above 1"));
        }
        let leverage_total = spec
            .leverage
            .iter()
            .filter(|(leverage, _)| *leverage > 0)
            .try_fold(0u32, |total, (_, weight)| total.checked_add(*weight))
            .filter(|total| *total > 0 && spec.leverage.iter().all(|(leverage, _)| *leverage > 0))
            .ok_or_else(|| bad("leverage needs a choice with a weight, each at least 1x"))?;
        let heaviest = replay.markets.iter().map(|market| market.weight_ppm).max().unwrap_or(1);
        let mut cumulative = 0;
        let markets = replay
            .markets
            .iter()
            .map(|market| {
                cumulative += market.weight_ppm;
                let lot_atoms = i128::from(market.first_price.0) * i128::from(market.atoms_per_tick_lot);
                let share = f64::from(market.weight_ppm) / f64::from(heaviest);
                Market { lot_atoms, cumulative, most_atoms: spec.max_notional_usd * ATOMS_PER_USD * share }
            })
            .collect();
        Ok(Self {
            spec,
            markets,
            makers,
            body: LogNormal::new(spec.median_notional_usd.ln(), spec.body_sigma)
                .map_err(|_| bad("the body's sigma is not a number"))?,
            tail: Pareto::new(spec.tail_from_usd, spec.tail_exponent)
                .map_err(|_| bad("the tail is not a Pareto"))?,
            leverage_total,
            initial_margin_ppm,
        })
    }

    fn account(&self, rng: &mut ChaCha8Rng) -> BookAccount {
        let spec = self.spec;
        let drawn = if hit(rng, spec.tail_ppm) { self.tail.sample(rng) } else { self.body.sample(rng) };
        let notional_usd = drawn.min(spec.max_notional_usd);
        let kind = self.kind(rng);
        let long = hit(rng, spec.long_ppm);
        let markets = self.draw_markets(rng, kind);
        // Legs share the notional; a hedge's short legs together are 60 to 100 % of its long one.
        let hedge = rng.random_range(0.6..1.0);
        let legs = markets.len();
        let shares: Vec<f64> = (0..legs)
            .map(|leg| match (kind, leg) {
                (Kind::Hedged, 0) if legs > 1 => 1.0 / (1.0 + hedge),
                (Kind::Hedged, _) if legs > 1 => hedge / (1.0 + hedge) / (legs - 1) as f64,
                _ => 1.0 / legs as f64,
            })
            .collect();
        let leverage = self.draw_leverage(rng, notional_usd);
        let slack = rng.random_range(MARGIN_SLACK_PPM);
        let mut positions = Vec::with_capacity(legs);
        let (mut cross, mut isolated_sum) = (0i128, 0i128);
        for (leg, (market, share)) in markets.into_iter().zip(shares).enumerate() {
            let buy = match kind {
                Kind::Hedged if legs > 1 => leg == 0,
                _ => long != (leg > 0 && hit(rng, CONTRARY_LEG_PPM)),
            };
            let Market { lot_atoms, most_atoms, .. } = self.markets[usize::from(market.0)];
            let wanted = (notional_usd * share * ATOMS_PER_USD).min(most_atoms) / lot_atoms as f64;
            let size = (wanted.round() as i64).clamp(1, MAX_LOTS);
            let lots = if buy { size } else { -size };
            let notional = i128::from(size) * lot_atoms;
            let required = self.required(market, notional, slack);
            let backing = ((notional as f64 / leverage) as i128).max(required);
            let isolated_collateral = (kind == Kind::Isolated).then_some(backing);
            if kind == Kind::Isolated {
                isolated_sum += backing;
            } else {
                cross += backing;
            }
            positions.push(BookPosition {
                market,
                lots,
                cost_atoms: i128::from(lots) * lot_atoms,
                isolated_collateral,
            });
        }
        // Somebody who isolates keeps something aside: a tenth to all of it again.
        if kind == Kind::Isolated {
            cross = isolated_sum * i128::from(rng.random_range(100_000..MAX_PPM)) / i128::from(MAX_PPM);
        }
        positions.sort_unstable_by_key(|position| position.market);
        BookAccount { collateral_atoms: cross, positions }
    }

    fn kind(&self, rng: &mut ChaCha8Rng) -> Kind {
        let draw = rng.random_range(0..MAX_PPM);
        let isolated = self.spec.isolated_ppm;
        let hedged = isolated + self.spec.hedged_ppm;
        let several = hedged + self.spec.several_ppm;
        match draw {
            _ if draw < isolated => Kind::Isolated,
            _ if draw < hedged => Kind::Hedged,
            _ if draw < several => Kind::Several,
            _ => Kind::Single,
        }
    }

    fn draw_markets(&self, rng: &mut ChaCha8Rng, kind: Kind) -> Vec<MarketId> {
        let legs = match kind {
            Kind::Single => 1,
            Kind::Isolated => rng.random_range(1..=2),
            Kind::Hedged | Kind::Several => rng.random_range(2..=MAX_LEGS),
        };
        let mut chosen: Vec<MarketId> = Vec::with_capacity(legs);
        let total = self.markets.last().map_or(1, |market| market.cumulative);
        while chosen.len() < legs.min(self.markets.len()) {
            let draw = rng.random_range(0..total);
            let mut place = self.markets.partition_point(|market| market.cumulative <= draw);
            // A market that is held already passes the leg on to the next one, so that this ends.
            while chosen.contains(&MarketId(place as u16)) {
                place = (place + 1) % self.markets.len();
            }
            chosen.push(MarketId(place as u16));
        }
        chosen
    }

    fn draw_leverage(&self, rng: &mut ChaCha8Rng, notional_usd: f64) -> f64 {
        let mut draw = rng.random_range(0..self.leverage_total);
        let mut chosen = 1;
        for (leverage, weight) in &self.spec.leverage {
            chosen = *leverage;
            match draw.checked_sub(*weight) {
                Some(rest) => draw = rest,
                None => break,
            }
        }
        let used = rng.random_range(LEAST_USE_OF_LEVERAGE..1.0);
        let size = (notional_usd / LARGE_ACCOUNT_USD).max(1.0).powf(-LEVERAGE_SIZE_EXPONENT);
        (f64::from(chosen) * used * size).max(1.0)
    }

    /// Initial margin with some slack, rounded up.
    fn required(&self, market: MarketId, notional: i128, slack_ppm: u32) -> i128 {
        let rate = i128::from((self.initial_margin_ppm)(market, notional));
        let ppm = i128::from(MAX_PPM);
        let margin = (notional * rate + ppm - 1) / ppm;
        margin + margin * i128::from(slack_ppm) / ppm + 1
    }

    /// The accounts that take the other side of what is left over.
    fn market_makers(&self, net: &[i64]) -> Result<Vec<BookAccount>, BookError> {
        let groups = net.len().div_ceil(MAX_POSITIONS_PER_ACCOUNT);
        let mut makers = vec![BookAccount { collateral_atoms: 0, positions: Vec::new() }; self.makers];
        for (place, residual) in net.iter().enumerate() {
            let market = MarketId(place as u16);
            let group = place / MAX_POSITIONS_PER_ACCOUNT;
            let members: Vec<usize> = (group..self.makers).step_by(groups).collect();
            let count = members.len() as i64;
            let (each, extra) = (-residual / count, -residual % count);
            for (rank, member) in members.into_iter().enumerate() {
                let lots = each + if (rank as i64) < extra.abs() { extra.signum() } else { 0 };
                if lots.abs() > MAX_LOTS {
                    return Err(BookError::Residual { market, makers: count as usize });
                }
                if lots == 0 {
                    continue;
                }
                let cost_atoms = i128::from(lots) * self.markets[place].lot_atoms;
                let backing =
                    (cost_atoms.abs() / MAKER_LEVERAGE).max(2 * self.required(market, cost_atoms.abs(), 0));
                makers[member].collateral_atoms += backing;
                makers[member].positions.push(BookPosition {
                    market,
                    lots,
                    cost_atoms,
                    isolated_collateral: None,
                });
            }
        }
        for maker in &mut makers {
            maker.collateral_atoms = maker.collateral_atoms.max(MAKER_FLOOR_ATOMS);
        }
        Ok(makers)
    }
}

fn hit(rng: &mut ChaCha8Rng, ppm: u32) -> bool {
    rng.random_range(0..MAX_PPM) < ppm
}
