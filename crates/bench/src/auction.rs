//! What an auction costs: a whole round of a zone, from the inbox to the outcome.
//!
//! The book is aged: it was filled over many heights, and auctions were held on it before the first that counts,
//! so that its memory lies as it does after a while. Before each auction that counts it is filled up to its size
//! again, and cancels name orders that rest.
//!
//! The power law says how the cost grows: `instructions ~ incoming^x x book^y`. `n log n` would be an `x` of 1.1
//! from a thousand to ten thousand orders.
//!
//! The worst cases are shapes that an adversary may choose. They touch more orders than come in, so they are told by
//! the orders they touch: those that come in, and those that trade.

use core::fmt;
use std::collections::BTreeMap;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::ProgressBar;
use seawall_market::{
    Band, Entry, Inbox, Kind, MarketParams, Name, Order, OrderId, Outcome, Params, Reference, Request, Terms,
    Zone, limits,
};
use seawall_types::{AccountId, Height, Lots, MarketId, PriceTicks, Side};
use serde::{Deserialize, Serialize};

use crate::{
    callgrind::{Error, Region, Runner, measured_region},
    clock::seconds,
    fit::least_squares,
    flow::{Flow, MIDDLE, Placement, Step},
    sweep::grouped,
    workload::Workload,
};

/// Orders that come in, for the fit.
const INCOMING: [u32; 4] = [1_000, 2_000, 5_000, 10_000];
/// Orders that rest, for the fit.
const RESTING: [u32; 3] = [1_000, 10_000, 100_000];
/// What is promised: instructions of an order that comes in, and milliseconds of the auction, at the largest sizes.
const TARGET_INSTRUCTIONS: f64 = 600.0;
const TARGET_MS: f64 = 1.5;
/// Auctions of which the instructions are counted.
const COUNTED: u32 = 3;
/// Auctions that are timed.
const TIMED: u32 = 40;
/// Auctions before the first that counts.
const AGEING: u32 = 10;
/// Heights over which the book was filled.
const HEIGHTS: u32 = 200;
/// Who has orders: ten each in the largest book.
const ACCOUNTS: u64 = 10_000;
const MARKET: MarketId = MarketId(0);

/// What comes in, and into which book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The flow of [`crate::flow`].
    Mixed,
    /// The same, with client ids, which cancels name, and with a height at which orders expire.
    Named,
    /// The whole book is one group at one price. What comes in takes half of it, shared pro rata.
    OnePrice,
    /// Everything that comes in and everything that rests trades.
    Everything,
    /// Accounts that cross themselves with as many orders as they may have.
    Selves,
}

impl Shape {
    const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "45 % cancel, 45 % rest, 10 % cross",
            Self::Named => "the same, with client ids and expiry",
            Self::OnePrice => "one price, half the book pro rata",
            Self::Everything => "everything crosses",
            Self::Selves => "accounts cross themselves",
        }
    }
}

/// Auctions of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What comes in.
    pub shape: Shape,
    /// How many entries.
    pub incoming: u32,
    /// Orders in the book before it.
    pub resting: u32,
    /// How many auctions.
    pub auctions: u32,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Every case.
    pub cases: Vec<Measured>,
    /// Power of the number of orders that come in.
    pub power_of_incoming: Power,
    /// Power of the number of orders that rest.
    pub power_of_resting: Power,
    /// Share of the variance of the logarithm that the power law explains.
    pub r_squared: f64,
}

/// An exponent with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// The exponent.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

/// What auctions of one kind cost, each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Which.
    pub case: Case,
    /// Fills, of the median auction.
    pub fills: u64,
    /// Instructions, of the median auction.
    pub instructions: u64,
    /// Instructions of each order that comes in.
    pub per_incoming: f64,
    /// Instructions of each order that comes in or trades.
    pub per_touched: f64,
    /// Milliseconds of the fastest auction.
    pub ms_min: f64,
    /// Milliseconds of the median auction.
    pub ms_median: f64,
}

/// What is said of an auction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Orders in the book before it.
    pub resting: u64,
    /// Entries.
    pub incoming: u64,
    /// Fills.
    pub fills: u64,
    /// Orders that came in or traded.
    pub touched: u64,
    /// Orders that ended.
    pub ends: u64,
}

/// Measures.
///
/// # Errors
/// If instructions cannot be counted.
pub fn run(runner: &Runner, progress: &ProgressBar) -> Result<Report, Error> {
    let mut cases: Vec<Case> = RESTING
        .iter()
        .flat_map(|&resting| INCOMING.map(|incoming| (resting, incoming)))
        .map(|(resting, incoming)| Case { shape: Shape::Mixed, incoming, resting, auctions: COUNTED })
        .collect();
    for shape in [Shape::Named, Shape::OnePrice, Shape::Everything, Shape::Selves] {
        cases.push(Case { shape, incoming: 10_000, resting: 100_000, auctions: COUNTED });
    }
    let mut measured = Vec::new();
    for case in cases {
        let regions = runner.count::<Facts>(&Workload::Auction(case), progress)?;
        progress.set_message(format!("timing {}", Workload::Auction(case).name()));
        measured.push(measure(case, &regions, &times(case)));
    }
    report(measured)
}

/// Milliseconds of auctions of this kind, in this process.
fn times(case: Case) -> Vec<f64> {
    let mut times = Vec::new();
    let mut time = |work: &mut dyn FnMut()| times.push(seconds(work) * 1e3);
    play(&Case { auctions: TIMED, ..case }, &mut time, &mut |_| ());
    times
}

fn measure(case: Case, regions: &[Region<Facts>], times: &[f64]) -> Measured {
    let mut regions: Vec<_> = regions.iter().collect();
    regions.sort_unstable_by_key(|region| region.instructions);
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let median = regions[regions.len() / 2];
    let share = |orders: u64| median.instructions as f64 / orders.max(1) as f64;
    Measured {
        case,
        fills: median.facts.fills,
        instructions: median.instructions,
        per_incoming: share(median.facts.incoming),
        per_touched: share(median.facts.touched),
        ms_min: times.first().copied().unwrap_or_default(),
        ms_median: times.get(times.len() / 2).copied().unwrap_or_default(),
    }
}

fn report(cases: Vec<Measured>) -> Result<Report, Error> {
    let rows: Vec<_> = cases
        .iter()
        .filter(|own| own.case.shape == Shape::Mixed)
        .map(|own| {
            let logs = [own.case.incoming, own.case.resting].map(|count| f64::from(count).ln());
            (vec![1.0, logs[0], logs[1]], (own.instructions as f64).ln())
        })
        .collect();
    let fit = least_squares(&rows, &vec![1.0; rows.len()]).ok_or_else(|| Error::Unreadable {
        what: "a set of auctions that a line can be put through",
        text: format!("{} auctions", rows.len()),
    })?;
    let power = |at: usize| Power { value: fit.coefficients[at], error: fit.errors[at] };
    Ok(Report { cases, power_of_incoming: power(1), power_of_resting: power(2), r_squared: fit.r_squared })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header([
            "one auction",
            "incoming",
            "book",
            "fills",
            "instructions",
            "per incoming",
            "per touched",
            "ms min",
            "median",
        ]);
        for own in &self.cases {
            table.add_row([
                own.case.shape.name().to_owned(),
                grouped(own.case.incoming.into()),
                grouped(own.case.resting.into()),
                grouped(own.fills),
                grouped(own.instructions),
                format!("{:.0}", own.per_incoming),
                format!("{:.0}", own.per_touched),
                format!("{:.2}", own.ms_min),
                format!("{:.2}", own.ms_median),
            ]);
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "instructions of the mix ~ incoming^{:.3} (± {:.3}) x book^{:.3} (± {:.3}), R2 {:.4}",
            self.power_of_incoming.value,
            self.power_of_incoming.error,
            self.power_of_resting.value,
            self.power_of_resting.error,
            self.r_squared
        )?;
        write!(
            f,
            "target of the mix, 10,000 into 100,000: {TARGET_INSTRUCTIONS} instructions per incoming, {TARGET_MS} ms"
        )
    }
}

/// A zone of one market without orders.
pub(crate) fn zone() -> Zone {
    let market = MarketParams { min_lots: Lots(1), max_orders: limits::MAX_ORDERS_PER_MARKET };
    let params =
        Params { markets: [(MARKET, market)].into(), max_orders_per_account: limits::MAX_ORDERS_PER_ACCOUNT };
    Zone::new(params).expect("the parameters are in their range")
}

fn reference(mark: u64) -> Reference {
    let band = Band { low: PriceTicks(mark - mark / 100), high: PriceTicks(mark + mark / 100) };
    Reference { mark: PriceTicks(mark), band }
}

/// A flow through a zone.
pub(crate) struct Stream {
    pub zone: Zone,
    pub flow: Flow,
    named: bool,
    /// By number of the step: the order it placed, and whose it is.
    placed: Vec<(OrderId, AccountId)>,
}

impl Stream {
    pub fn new(seed: u64, named: bool) -> Self {
        Self { zone: zone(), flow: Flow::new(seed), named, placed: Vec::new() }
    }

    /// These steps as the zone's next inbox.
    pub fn inbox(&mut self, steps: &[Step]) -> Inbox {
        let height = self.zone.height().next();
        let mut entries = BTreeMap::new();
        for (index, step) in (0..).zip(steps) {
            let id = OrderId { height, index };
            let number = self.placed.len() as u64;
            // An odd factor, so that neighbours in time are not neighbours in the list of accounts.
            let account = AccountId(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ACCOUNTS);
            let (account, request) = match *step {
                Step::Place(own) => (account, Request::Place(self.terms(own, number, height))),
                Step::Cancel(of) => {
                    let (order, account) = self.placed[of as usize];
                    let name = if self.named {
                        Name::Cloid(seawall_market::Cloid(of.into()))
                    } else {
                        Name::Id(order)
                    };
                    (account, Request::Cancel { market: MARKET, order: name })
                }
            };
            self.placed.push((id, account));
            entries.insert(index, Entry { account, request });
        }
        let references = [(MARKET, reference(self.flow.middle()))].into();
        Inbox { height, salt: salt(height), references, entries }
    }

    fn terms(&self, own: Placement, number: u64, height: Height) -> Terms {
        let mut terms = terms(own);
        if self.named {
            terms.cloid = Some(seawall_market::Cloid(number));
            terms.good_til = Some(Height(height.0 + 1_000));
        }
        terms
    }

    pub fn apply(&mut self, inbox: &Inbox) -> Outcome {
        self.zone.apply(inbox).expect("the inbox is made for the zone")
    }

    /// Fills the book up to this size, over some heights, and some more for what crossed on the way.
    fn fill_up(&mut self, size: u32, heights: u32) {
        let mut left = heights;
        loop {
            let room = size.saturating_sub(self.zone.orders().count() as u32);
            if room == 0 {
                break;
            }
            let steps = self.flow.resting(room.div_ceil(left));
            let inbox = self.inbox(&steps);
            self.apply(&inbox);
            left = left.saturating_sub(1).max(1);
        }
        let Self { zone, flow, placed, .. } = self;
        flow.retain(|number| {
            let (id, account) = placed[number as usize];
            zone.orders_of(MARKET, account).any(|order| order.id == id)
        });
    }
}

fn salt(height: Height) -> [u8; 32] {
    core::array::from_fn(|at| (height.0 >> (at % 8)) as u8 ^ at as u8)
}

fn terms(own: Placement) -> Terms {
    Terms {
        market: MARKET,
        side: own.side,
        limit: PriceTicks(own.limit),
        lots: Lots(own.lots),
        kind: if own.immediate { Kind::Ioc } else { Kind::Limit },
        reduce_only: false,
        good_til: None,
        cloid: None,
    }
}

/// The auctions of a case: `measure` is handed what is to be measured.
pub(crate) fn play(case: &Case, measure: &mut dyn FnMut(&mut dyn FnMut()), say: &mut dyn FnMut(Facts)) {
    match case.shape {
        Shape::Mixed | Shape::Named => {
            let mut stream = Stream::new(1, case.shape == Shape::Named);
            stream.fill_up(case.resting, HEIGHTS);
            for auction in 0..AGEING + case.auctions {
                stream.fill_up(case.resting, 1);
                let steps = stream.flow.mixed(case.incoming);
                let inbox = stream.inbox(&steps);
                if auction < AGEING {
                    stream.apply(&inbox);
                } else {
                    say(one(&mut stream.zone, &inbox, measure));
                }
            }
        }
        Shape::OnePrice | Shape::Everything | Shape::Selves => {
            let (book, inbox) = worst(case);
            for _ in 0..case.auctions {
                let mut zone = book.clone();
                say(one(&mut zone, &inbox, measure));
            }
        }
    }
}

fn one(zone: &mut Zone, inbox: &Inbox, measure: &mut dyn FnMut(&mut dyn FnMut())) -> Facts {
    let resting = zone.orders().count() as u64;
    let mut outcome = None;
    measure(&mut || outcome = Some(zone.apply(inbox)));
    let outcome = outcome.expect("it was measured").expect("the inbox is made for the zone");
    let (mut fills, mut ends, mut older) = (0, 0, 0);
    for market in &outcome.markets {
        fills += market.fills.len() as u64;
        ends += market.ends.len() as u64;
        older += market.fills.iter().filter(|fill| fill.maker).count() as u64;
    }
    let incoming = inbox.entries.len() as u64;
    Facts { resting, incoming, fills, touched: incoming + older, ends }
}

/// The book and the inbox of a worst case.
fn worst(case: &Case) -> (Zone, Inbox) {
    let per_account = limits::MAX_ORDERS_PER_ACCOUNT as u64;
    let rest = |n: u32| {
        let limit = match case.shape {
            Shape::OnePrice => MIDDLE,
            _ => MIDDLE + u64::from(n % 500),
        };
        let own = Placement { side: Side::Sell, limit, lots: 7 + i64::from(n % 11), immediate: false };
        let id = OrderId { height: Height(1), index: n };
        Order { id, account: AccountId(u64::from(n) / per_account), terms: terms(own) }
    };
    let orders: Vec<Order> = (0..case.resting).map(rest).collect();
    let open: i64 = orders.iter().map(|order| order.terms.lots.0).sum();
    let wanted = if case.shape == Shape::Everything { open } else { open / 2 };
    let (each, more) = (wanted / i64::from(case.incoming), wanted % i64::from(case.incoming));
    let entry = |n: u32| {
        let lots = each + i64::from(i64::from(n) < more);
        let own = Placement { side: Side::Buy, limit: MIDDLE + 500, lots, immediate: true };
        let account = match case.shape {
            // The same accounts as those that sell.
            Shape::Selves => u64::from(n) / per_account,
            _ => 1 << 20 | u64::from(n),
        };
        (n, Entry { account: AccountId(account), request: Request::Place(terms(own)) })
    };
    let inbox = Inbox {
        height: Height(2),
        salt: salt(Height(2)),
        references: [(MARKET, reference(MIDDLE))].into(),
        entries: (0..case.incoming).map(entry).collect(),
    };
    let params = zone().params().clone();
    (Zone::from_orders(params, Height(1), orders).expect("the orders rest"), inbox)
}

/// The workload.
pub(crate) fn work(case: &Case, say: &mut dyn FnMut(Facts)) {
    play(case, &mut |work| measured_region(work), say);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(shape: Shape, incoming: u32, resting: u32) -> Vec<Facts> {
        let mut seen = Vec::new();
        work(&Case { shape, incoming, resting, auctions: 2 }, &mut |facts| seen.push(facts));
        seen
    }

    #[test]
    fn the_mix_meets_a_full_book_and_trades() {
        for shape in [Shape::Mixed, Shape::Named] {
            for seen in facts(shape, 1_000, 3_000) {
                assert_eq!((seen.resting, seen.incoming), (3_000, 1_000));
                // A tenth crosses, and 45 % cancel what rests.
                assert!(seen.fills > 50, "{seen:?}");
                assert!((500..700).contains(&seen.ends), "{seen:?}");
            }
        }
    }

    #[test]
    fn the_worst_cases_are_what_they_say() {
        for seen in facts(Shape::OnePrice, 100, 4_000) {
            // Half of the lots of everybody who rests, but for orders that get none.
            assert_eq!((seen.fills, seen.ends), (4_100, 100), "{seen:?}");
        }
        for seen in facts(Shape::Everything, 100, 4_000) {
            assert_eq!((seen.fills, seen.ends), (4_100, 4_100), "{seen:?}");
        }
        for seen in facts(Shape::Selves, 512, 4_096) {
            assert!(seen.ends >= 512, "{seen:?}");
        }
    }

    #[test]
    fn the_power_law_is_found_again() {
        let cases = RESTING.iter().flat_map(|&resting| INCOMING.map(|incoming| (resting, incoming)));
        let cases = cases.map(|(resting, incoming)| {
            let case = Case { shape: Shape::Mixed, incoming, resting, auctions: 1 };
            let instructions = 300.0 * f64::from(incoming) * f64::from(resting).powf(0.25);
            let facts =
                Facts { resting: resting.into(), incoming: incoming.into(), fills: 0, touched: 1, ends: 0 };
            measure(case, &[Region { facts, instructions: instructions as u64 }], &[3.0, 1.0, 2.0])
        });
        let report = report(cases.collect()).unwrap();
        assert!((report.power_of_incoming.value - 1.0).abs() < 1e-3);
        assert!((report.power_of_resting.value - 0.25).abs() < 1e-3);
        assert!(report.cases.iter().all(|own| (own.ms_min, own.ms_median) == (1.0, 2.0)));
    }
}
