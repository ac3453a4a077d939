//! What settling an auction costs the ledger: fills a second on one core, reservations included.
//!
//! 10,000 accounts hold a few cross positions each in ten markets of one zone, and have orders that rest in the
//! markets of their positions. In each block some of them take: their orders enter the zone's inbox, the zone
//! holds its auctions, and the next block settles the outcome. What is measured is `Ledger::settle`: the check
//! of the outcome, the trades with their fees, and what is reserved afterwards. The zone runs outside of it. So does
//! the rest of the block, of which the end is measured apart, because that is where the changes are
//! collected. Authenticated storage is not part of the ledger.

use core::fmt;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::ProgressBar;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use seawall_ledger::{Ledger, OrderParams};
use seawall_market::{MarketParams, Params, Zone};
use seawall_types::{
    AccountId, Action, Height, Kind, Lots, MarketId, Nonce, Outcome, PriceTicks, Side, Terms, TimeMs, limits,
};
use serde::{Deserialize, Serialize};

use crate::{
    callgrind::{Error, Region, Runner, measured_region},
    clock::seconds,
    population::{self, PRICE},
    sweep::grouped,
    workload::Workload,
};

/// What is promised: fills a second of one core.
const TARGET: u64 = 300_000;
/// Blocks whose instructions are counted.
const COUNTED: u32 = 2;
/// Blocks that are timed.
const TIMED: u32 = 10;
/// Blocks before the first that counts.
const AGEING: u32 = 2;
/// Orders that rest in each market of an account's positions.
const RESTING: u32 = 2;
/// Ticks between the middle and the last order that rests: half of the band.
const DEPTH: u64 = PRICE / 200;

/// A population and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Accounts.
    pub accounts: u64,
    /// Markets.
    pub markets: u16,
    /// Positions of each account, cross.
    pub legs: u16,
    /// Orders that take in a block.
    pub takers: u32,
    /// Blocks.
    pub blocks: u32,
}

impl Default for Case {
    fn default() -> Self {
        Self { accounts: 10_000, markets: 10, legs: 3, takers: 5_000, blocks: TIMED }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of what.
    pub case: Case,
    /// Orders that rest when the outcome is settled.
    pub orders: u64,
    /// Fills of a block, of the median block.
    pub fills: u64,
    /// Records of a block: fills, cuts, ends and slides.
    pub records: u64,
    /// Instructions of a fill: settling.
    pub instructions: f64,
    /// Nanoseconds of a fill: settling, in the fastest block and in the median one.
    pub ns_min: f64,
    /// The median.
    pub ns_median: f64,
    /// Fills a second at that median.
    pub fills_per_second: u64,
    /// Nanoseconds of a fill at the end of the block, in the median block: collecting the changes.
    pub end_ns_median: f64,
    /// Fills a second with both.
    pub fills_per_second_with_end: u64,
}

/// What is said of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    orders: u64,
    fills: u64,
    records: u64,
}

/// Measures.
///
/// # Errors
/// If instructions cannot be counted.
pub fn run(runner: &Runner, progress: &ProgressBar) -> Result<Report, Error> {
    let case = Case { blocks: COUNTED, ..Case::default() };
    let regions = runner.count::<Facts>(&Workload::Fills(case), progress)?;
    progress.set_message("timing");
    let (mut settled, mut ended, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    let timed = Case { blocks: TIMED, ..case };
    let mut settle = |work: &mut dyn FnMut()| settled.push(seconds(work));
    let mut end = |work: &mut dyn FnMut()| ended.push(seconds(work));
    play(&timed, &mut settle, &mut end, &mut |seen| facts.push(seen));
    report(timed, &regions, &facts, &settled, &ended)
}

fn report(
    case: Case,
    regions: &[Region<Facts>],
    facts: &[Facts],
    settled: &[f64],
    ended: &[f64],
) -> Result<Report, Error> {
    let nothing = || Error::Regions { announced: 0, seen: 0 };
    let fills = |seen: &Facts| seen.fills.max(1) as f64;
    let sorted = |seconds: &[f64]| {
        let mut each: Vec<f64> =
            seconds.iter().zip(facts).map(|(time, seen)| time * 1e9 / fills(seen)).collect();
        each.sort_by(f64::total_cmp);
        each
    };
    let (settled, ended) = (sorted(settled), sorted(ended));
    let median = |each: &[f64]| each.get(each.len() / 2).copied().ok_or_else(nothing);
    let counted: u64 = regions.iter().map(|region| region.instructions).sum();
    let counted_fills: f64 = regions.iter().map(|region| fills(&region.facts)).sum();
    let last = facts.last().ok_or_else(nothing)?;
    let (ns, end) = (median(&settled)?, median(&ended)?);
    Ok(Report {
        case,
        orders: last.orders,
        fills: last.fills,
        records: last.records,
        instructions: counted as f64 / counted_fills,
        ns_min: settled[0],
        ns_median: ns,
        fills_per_second: (1e9 / ns).round() as u64,
        end_ns_median: end,
        fills_per_second_with_end: (1e9 / (ns + end)).round() as u64,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        let Case { accounts, markets, legs, .. } = self.case;
        table.set_header([
            format!("fills of {} accounts, {legs} positions each, {markets} markets", grouped(accounts)),
            String::new(),
        ]);
        for (name, value) in [
            ("orders in the ledger", grouped(self.orders)),
            ("fills in a block", grouped(self.fills)),
            ("records in a block", grouped(self.records)),
            ("settling a fill, instructions", format!("{:.0}", self.instructions)),
            ("settling a fill, ns min / median", format!("{:.0} / {:.0}", self.ns_min, self.ns_median)),
            ("fills a second and core", grouped(self.fills_per_second)),
            ("target", grouped(TARGET)),
            ("the same at the end of the block, ns", format!("{:.0}", self.end_ns_median)),
            ("fills a second and core with that", grouped(self.fills_per_second_with_end)),
        ] {
            table.add_row([name.to_owned(), value]);
        }
        write!(f, "{table}")
    }
}

/// A ledger, its zone, and who does what.
struct Venue {
    ledger: Ledger,
    zone: Zone,
    rng: ChaCha8Rng,
    case: Case,
    nonce: u64,
    /// What the zone said of the last block.
    waiting: Option<Outcome>,
}

impl Venue {
    fn new(case: &Case) -> Self {
        let orders = OrderParams { max_records: 1 << 20, ..OrderParams::default() };
        let ledger = population::trading(case.accounts, case.legs, case.markets, orders);
        let market = MarketParams { min_lots: orders.min_lots, max_orders: limits::MAX_ORDERS_PER_MARKET };
        let params = Params {
            markets: (0..case.markets).map(|id| (MarketId(id), market)).collect(),
            max_orders_per_account: orders.max_per_account.into(),
        };
        let zone = Zone::new(params).expect("the parameters are in their range");
        Self { ledger, zone, rng: ChaCha8Rng::seed_from_u64(3), case: *case, nonce: 0, waiting: None }
    }

    /// Begins a block. Prices stand still.
    fn begin(&mut self) {
        let time = TimeMs(self.ledger.globals().time.0 + population::INTERVAL_MS);
        self.ledger.begin_block(self.ledger.globals().height.next(), time);
        let markets = (0..self.case.markets).map(|id| population::fresh(MarketId(id), PRICE));
        self.ledger.set_marks(&markets.collect::<Vec<_>>());
        self.ledger.accrue_funding();
    }

    fn place(&mut self, account: AccountId, terms: Terms) {
        self.nonce += 1;
        let expiry = Height(self.ledger.globals().height.0 + 8);
        let placed = self.ledger.apply(account, Nonce(self.nonce), expiry, &Action::Place(terms));
        placed.expect("an account here can afford its orders");
    }

    fn any(&mut self) -> (AccountId, u16) {
        let account = self.rng.random_range(1..=self.case.accounts);
        (AccountId(account), self.rng.random_range(0..self.case.legs))
    }

    /// The market of an account's position, and the side of its orders there: one, so that nobody crosses itself.
    fn place_of(&self, account: AccountId, leg: u16) -> (MarketId, Side) {
        let side = if (account.0 + u64::from(leg)).is_multiple_of(2) { Side::Buy } else { Side::Sell };
        (population::market_of(account.0 - 1, leg, self.case.markets), side)
    }

    /// An order that rests in the market of a position.
    fn rest(&mut self, account: AccountId, leg: u16) {
        let (market, side) = self.place_of(account, leg);
        let away = 1 + self.rng.random_range(0..DEPTH) * self.rng.random_range(0..DEPTH) / DEPTH;
        let limit = if side == Side::Buy { PRICE - away } else { PRICE + away };
        let lots = self.rng.random_range(1..=20);
        self.place(account, terms(market, side, limit, lots, Kind::Limit));
    }

    /// An order that reaches through the whole book. In a block all of a market are on one side, so that they do not
    /// meet each other; in the next one they are on the other.
    fn take(&mut self) {
        let height = self.ledger.globals().height.0;
        let (account, market, side) = loop {
            let (account, leg) = self.any();
            let (market, side) = self.place_of(account, leg);
            if ((height + u64::from(market.0)).is_multiple_of(2)) == (side == Side::Buy) {
                break (account, market, side);
            }
        };
        let limit = if side == Side::Buy { PRICE + 2 * DEPTH } else { PRICE - 2 * DEPTH };
        let lots = self.rng.random_range(1..=20);
        self.place(account, terms(market, side, limit, lots, Kind::Ioc));
    }

    /// A block that settles what waits and then takes orders. `settle` and `end` are handed what may be measured.
    fn block(
        &mut self,
        place: impl FnOnce(&mut Self),
        settle: &mut dyn FnMut(&mut dyn FnMut()),
        end: &mut dyn FnMut(&mut dyn FnMut()),
    ) -> Facts {
        self.begin();
        let mut facts = Facts { orders: 0, fills: 0, records: 0 };
        if let Some(outcome) = self.waiting.take() {
            facts.fills = outcome.markets.iter().map(|market| market.fills.len() as u64).sum();
            facts.records = outcome.markets.iter().map(|market| market.records() as u64).sum();
            facts.orders = self.zone.orders().count() as u64;
            settle(&mut || drop(self.ledger.settle(0, &outcome).expect("the zone is honest")));
        }
        place(self);
        end(&mut || drop(self.ledger.end_block()));
        let height = self.ledger.globals().height;
        if let Some(inbox) = self.ledger.inbox(0, height) {
            self.waiting = Some(self.zone.apply(&inbox).expect("the ledger made the inbox"));
        }
        facts
    }
}

fn terms(market: MarketId, side: Side, limit: u64, lots: i64, kind: Kind) -> Terms {
    let (limit, lots) = (PriceTicks(limit), Lots(lots));
    Terms { market, side, limit, lots, kind, reduce_only: false, good_til: None, cloid: None }
}

/// Blocks that settle the auctions of the block before: `settle` and `end` are handed what is to be measured.
pub(crate) fn play(
    case: &Case,
    settle: &mut dyn FnMut(&mut dyn FnMut()),
    end: &mut dyn FnMut(&mut dyn FnMut()),
    say: &mut dyn FnMut(Facts),
) {
    let mut venue = Venue::new(case);
    // Over several blocks, because a block takes so many orders and no more.
    for leg in 0..case.legs {
        for _ in 0..RESTING {
            let fill = |venue: &mut Venue| {
                for account in 0..case.accounts {
                    venue.rest(AccountId(account + 1), leg);
                }
            };
            venue.block(fill, &mut |work| work(), &mut |work| work());
        }
    }
    let full = case.accounts * u64::from(case.legs) * u64::from(RESTING);
    let trade = |venue: &mut Venue| {
        // Others take the place of what was filled.
        for _ in venue.zone.orders().count() as u64..full {
            let (account, leg) = venue.any();
            venue.rest(account, leg);
        }
        (0..case.takers).for_each(|_| venue.take());
    };
    for _ in 0..=AGEING {
        venue.block(trade, &mut |work| work(), &mut |work| work());
    }
    for _ in 0..case.blocks {
        say(venue.block(trade, settle, end));
    }
    assert_eq!(venue.ledger.audit(), Ok(()), "what was measured was wrong");
}

/// The workload.
pub(crate) fn work(case: &Case, say: &mut dyn FnMut(Facts)) {
    play(case, &mut |work| measured_region(work), &mut |work| work(), say);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takers_meet_the_book_and_everything_is_settled() {
        let case = Case { accounts: 200, markets: 10, legs: 3, takers: 100, blocks: 3 };
        let mut seen = Vec::new();
        work(&case, &mut |facts| seen.push(facts));
        assert_eq!(seen.len(), 3);
        for facts in seen {
            // Every taker trades. One who rests may meet several of them.
            assert!(facts.fills > 150 && facts.records > facts.fills, "{facts:?}");
            assert!((1_000..=1_200).contains(&facts.orders), "{facts:?}");
        }
    }

    #[test]
    fn figures_are_of_a_fill() {
        let facts = Facts { orders: 1, fills: 100, records: 2 };
        let region = Region { facts, instructions: 500_000 };
        let report =
            report(Case::default(), &[region.clone(), region], &[facts; 3], &[3e-4, 1e-4, 2e-4], &[1e-4; 3]);
        let report = report.unwrap();
        assert_eq!((report.instructions, report.fills), (5_000.0, 100));
        assert!((report.ns_median - 2_000.0).abs() < 1e-6 && (report.ns_min - 1_000.0).abs() < 1e-6);
        assert_eq!((report.fills_per_second, report.fills_per_second_with_end), (500_000, 333_333));
        assert!(super::report(Case::default(), &[], &[], &[], &[]).is_err());
    }
}
