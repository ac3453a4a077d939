//! The auction beside continuous books, on the same steps in the same order.
//!
//! | venue | what it is |
//! | --- | --- |
//! | floor | price-time priority in two ordered maps: forty lines, what any engine should at least equal |
//! | matchcore, orderbook-rs | published engines with price-time priority |
//! | auction, 1,000 and 10,000 | our zone, with so many steps in an inbox |
//!
//! A step is handed over as the venue wants it, and what it says of trades is read into one list: both are part of
//! the time. Every repetition runs all venues one after the other; a ratio is taken inside a repetition, and the
//! median of the ratios is told. Time is that of the thread on its core.
//!
//! Continuous books that follow the same rules must say the same: before anything is timed, their trades and
//! cancels are compared one by one with those of a floor; matchcore's with those of one that lets orders trade
//! beyond their limits, as it does. Auctions trade otherwise by design, so there the check is
//! settlement's own, and that every lot that was placed is traded, cut, ended or open.

use core::{cmp::Reverse, fmt};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::ProgressBar;
use seawall_market::{Inbox, Order, OrderId, Outcome, Request};
use seawall_types::{Lots, Side};
use serde::Serialize;
use thiserror::Error;

use crate::{
    auction::Stream,
    clock::seconds,
    flow::{Flow, Step},
    sweep::grouped,
};

const SEED: u64 = 11;

/// What is run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spec {
    /// Orders that rest before the first step that counts.
    pub resting: u32,
    /// Steps.
    pub steps: u32,
    /// Repetitions.
    pub repetitions: u32,
}

/// Why there is no comparison.
#[derive(Debug, Error)]
pub enum Error {
    /// Continuous books disagree.
    #[error("step {step}: {venue} says {said}, the floor says {expected}")]
    Disagree {
        /// Who.
        venue: &'static str,
        /// Where.
        step: usize,
        /// What it says.
        said: String,
        /// What it should say.
        expected: String,
    },
    /// The auction breaks a rule of its own.
    #[error("the auction: {0}")]
    Auction(String),
}

/// A trade of a continuous book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trade {
    maker: u32,
    price: u64,
    lots: i64,
}

/// A continuous book. `number` is that of the step, and of the order that it places.
trait Venue {
    fn name(&self) -> &'static str;

    /// Does a step and appends its trades. Says whether a cancel found its order.
    fn step(&mut self, number: u32, step: &Step, trades: &mut Vec<Trade>) -> bool;
}

/// The floor.
#[derive(Default)]
struct Floor {
    bids: BTreeMap<(Reverse<u64>, u32), i64>,
    asks: BTreeMap<(u64, u32), i64>,
    /// By number: side and limit of an order that rested.
    placed: Vec<Option<(Side, u64)>>,
    /// An order that crosses trades on beyond its limit. See [`Matchcore`].
    beyond: bool,
}

impl Floor {
    /// Takes lots from the other side: first in line first.
    fn take<K: Ord + Copy>(
        line: &mut BTreeMap<K, i64>,
        lots: &mut i64,
        named: impl Fn(K) -> (u64, u32),
        accepts: impl Fn(u64) -> bool,
        beyond: bool,
        trades: &mut Vec<Trade>,
    ) {
        let mut crosses = false;
        while *lots > 0
            && let Some(mut first) = line.first_entry()
            && let (price, maker) = named(*first.key())
            && (accepts(price) || beyond && crosses)
        {
            crosses = true;
            let traded = (*lots).min(*first.get());
            *lots -= traded;
            *first.get_mut() -= traded;
            if *first.get() == 0 {
                first.remove();
            }
            trades.push(Trade { maker, price, lots: traded });
        }
    }
}

impl Venue for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn step(&mut self, number: u32, step: &Step, trades: &mut Vec<Trade>) -> bool {
        let own = match *step {
            Step::Cancel(of) => {
                self.placed.push(None);
                return match self.placed[of as usize].take() {
                    Some((Side::Buy, limit)) => self.bids.remove(&(Reverse(limit), of)).is_some(),
                    Some((Side::Sell, limit)) => self.asks.remove(&(limit, of)).is_some(),
                    None => false,
                };
            }
            Step::Place(own) => own,
        };
        let mut lots = own.lots;
        match own.side {
            Side::Buy => {
                let accepts = |price| price <= own.limit;
                Self::take(&mut self.asks, &mut lots, |key| key, accepts, self.beyond, trades);
            }
            Side::Sell => {
                let (named, accepts) = (|(Reverse(price), maker)| (price, maker), |price| price >= own.limit);
                Self::take(&mut self.bids, &mut lots, named, accepts, self.beyond, trades);
            }
        }
        let rests = lots > 0 && !own.immediate;
        self.placed.push(rests.then_some((own.side, own.limit)));
        match own.side {
            _ if !rests => {}
            Side::Buy => drop(self.bids.insert((Reverse(own.limit), number), lots)),
            Side::Sell => drop(self.asks.insert((own.limit, number), lots)),
        }
        false
    }
}

/// Version 0.4.0 checks an order's limit against the best of the other side only: an order that crosses trades on
/// through whatever rests there (`submit_crossable_order` matches without a limit). So its trades are compared
/// with those of a floor that does the same, and there are more of them.
struct Matchcore(matchcore::OrderBook);

impl Venue for Matchcore {
    fn name(&self) -> &'static str {
        "matchcore"
    }

    fn step(&mut self, number: u32, step: &Step, trades: &mut Vec<Trade>) -> bool {
        use matchcore::{
            CancelCmd, Command, CommandKind, CommandMeta, CommandOutcome, CommandReport, LimitOrder,
            NewOrder, OrderFlags, OrderId, OrderKind, Price, Quantity, QuantityPolicy, SequenceNumber,
            SubmitCmd, TimeInForce, Timestamp,
        };
        let meta = CommandMeta {
            sequence_number: SequenceNumber(number.into()),
            timestamp: Timestamp(number.into()),
        };
        let kind = match *step {
            Step::Cancel(of) => {
                CommandKind::Cancel(CancelCmd { order_id: OrderId(of.into()), order_kind: OrderKind::Limit })
            }
            Step::Place(own) => {
                let side = if own.side == Side::Buy { matchcore::Side::Buy } else { matchcore::Side::Sell };
                let force = if own.immediate { TimeInForce::Ioc } else { TimeInForce::Gtc };
                let quantity = QuantityPolicy::Standard { quantity: Quantity(own.lots as u64) };
                let order = LimitOrder::new(Price(own.limit), quantity, OrderFlags::new(side, false, force));
                CommandKind::Submit(SubmitCmd { order: NewOrder::Limit(order) })
            }
        };
        match self.0.execute(&Command { meta, kind }) {
            CommandOutcome::Applied(CommandReport::Submit(effects) | CommandReport::Amend(effects)) => {
                let traded = effects.target_order().match_result().into_iter().flat_map(|own| own.trades());
                trades.extend(traded.map(|trade| Trade {
                    maker: trade.maker_order_id().0 as u32,
                    price: trade.price().0,
                    lots: trade.quantity().0 as i64,
                }));
                false
            }
            CommandOutcome::Applied(CommandReport::Cancel) => true,
            CommandOutcome::Rejected(_) => false,
        }
    }
}

struct OrderbookRs {
    book: orderbook_rs::OrderBook<()>,
    heard: Arc<Mutex<Vec<Trade>>>,
}

impl OrderbookRs {
    fn new() -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let own = heard.clone();
        let listen = move |result: &orderbook_rs::TradeResult| {
            let traded = result.match_result.trades().as_vec().iter().map(|trade| Trade {
                maker: number_of(trade.maker_order_id()),
                price: trade.price().as_u128() as u64,
                lots: trade.quantity().as_u64() as i64,
            });
            own.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(traded);
        };
        Self { book: orderbook_rs::OrderBook::with_trade_listener("X", Arc::new(listen)), heard }
    }
}

fn number_of(id: orderbook_rs::Id) -> u32 {
    match id {
        orderbook_rs::Id::Sequential(number) => number as u32,
        _ => u32::MAX,
    }
}

impl Venue for OrderbookRs {
    fn name(&self) -> &'static str {
        "orderbook-rs"
    }

    fn step(&mut self, number: u32, step: &Step, trades: &mut Vec<Trade>) -> bool {
        use orderbook_rs::{Id, TimeInForce};
        let found = match *step {
            Step::Cancel(of) => {
                self.book.cancel_order(Id::Sequential(of.into())).is_ok_and(|cancelled| cancelled.is_some())
            }
            Step::Place(own) => {
                let side =
                    if own.side == Side::Buy { orderbook_rs::Side::Buy } else { orderbook_rs::Side::Sell };
                let force = if own.immediate { TimeInForce::Ioc } else { TimeInForce::Gtc };
                let (id, price, lots) = (Id::Sequential(number.into()), own.limit.into(), own.lots as u64);
                // An immediate order that finds too little is an error there; its trades are heard all the same.
                drop(self.book.add_limit_order(id, price, lots, side, force, None));
                false
            }
        };
        trades.append(&mut self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        found
    }
}

/// The steps before those that count, and those.
fn steps(spec: &Spec) -> (Vec<Step>, Vec<Step>) {
    let mut flow = Flow::new(SEED);
    (flow.resting(spec.resting), flow.mixed(spec.steps))
}

/// What a venue did in the steps that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Trades of a continuous book; fills that take of an auction.
    pub trades: u64,
    /// Lots traded, each counted once.
    pub lots: u64,
    /// Cancels that found their order.
    pub cancels: u64,
}

fn continuous(spec: &Spec, venue: &mut dyn Venue) -> (f64, Done) {
    let (before, counted) = steps(spec);
    let (mut trades, mut done) = (Vec::new(), Done::default());
    for (number, step) in (0..).zip(&before) {
        venue.step(number, step, &mut trades);
    }
    let time = seconds(&mut || {
        for (number, step) in (spec.resting..).zip(&counted) {
            trades.clear();
            done.cancels += u64::from(venue.step(number, step, &mut trades));
            done.trades += trades.len() as u64;
            done.lots += trades.iter().map(|trade| trade.lots as u64).sum::<u64>();
        }
    });
    (time, done)
}

/// Compares a continuous book with a floor, step by step.
fn agree(spec: &Spec, venue: &mut dyn Venue, mut floor: Floor) -> Result<(), Error> {
    let (before, counted) = steps(spec);
    for (number, step) in (0..).zip(before.iter().chain(&counted)) {
        let (mut expected, mut said) = (Vec::new(), Vec::new());
        let found = (floor.step(number, step, &mut expected), venue.step(number, step, &mut said));
        if found.0 != found.1 || expected != said {
            return Err(Error::Disagree {
                venue: venue.name(),
                step: number as usize,
                said: format!("{} {said:?}", found.1),
                expected: format!("{} {expected:?}, of {step:?}", found.0),
            });
        }
    }
    Ok(())
}

/// Our zone, with so many steps in an inbox. `see` is shown every inbox with its outcome.
fn auctions(spec: &Spec, batch: usize, see: &mut dyn FnMut(&Inbox, &Outcome)) -> (f64, Done, Stream) {
    let (before, counted) = steps(spec);
    let (mut stream, mut done) = (Stream::new(SEED, false), Done::default());
    for steps in before.chunks(batch) {
        let inbox = stream.inbox(steps);
        see(&inbox, &stream.apply(&inbox));
    }
    let mut time = 0.0;
    for steps in counted.chunks(batch) {
        let (mut inbox, mut outcome) = (None, None);
        time += seconds(&mut || {
            let made = stream.inbox(steps);
            outcome = Some(stream.apply(&made));
            inbox = Some(made);
        });
        let (inbox, outcome) = (inbox.expect("it was made"), outcome.expect("it was held"));
        for market in &outcome.markets {
            done.trades += market.fills.iter().filter(|fill| !fill.maker).count() as u64;
            done.lots += market.volume().0 as u64;
            let cancelled = |end: &&seawall_market::End| end.reason == seawall_market::EndReason::Cancelled;
            done.cancels += market.ends.iter().filter(cancelled).count() as u64;
        }
        see(&inbox, &outcome);
    }
    (time, done, stream)
}

/// Settlement's check of every outcome, and of what is open in the end.
fn conserve(spec: &Spec, batch: usize) -> Result<(), Error> {
    let mut orders: BTreeMap<OrderId, Order> = BTreeMap::new();
    let mut fault = None;
    let (_, _, stream) = auctions(spec, batch, &mut |inbox, outcome| {
        for (index, entry) in &inbox.entries {
            if let Request::Place(terms) = entry.request {
                let id = OrderId { height: inbox.height, index: *index };
                orders.insert(id, Order { id, account: entry.account, terms });
            }
        }
        if let Err(error) = outcome.check(|id| orders.get(&id).copied(), &inbox.references) {
            fault.get_or_insert(format!("height {}: {error}", inbox.height));
        }
        for market in &outcome.markets {
            let spent = (market.fills.iter().map(|fill| (fill.order, fill.lots)))
                .chain(market.cuts.iter().map(|cut| (cut.order, cut.lots)));
            for (id, lots) in spent {
                if let Some(order) = orders.get_mut(&id) {
                    order.terms.lots -= lots;
                }
            }
            for end in &market.ends {
                orders.remove(&end.order);
            }
        }
    });
    if fault.is_none() && !orders.values().eq(stream.zone.orders()) {
        fault = Some("what is open is not what was placed less what traded and ended".into());
    }
    if fault.is_none() && orders.values().any(|order| order.terms.lots <= Lots::ZERO) {
        fault = Some("an order without lots is open".into());
    }
    fault.map_or(Ok(()), |fault| Err(Error::Auction(fault)))
}

/// One venue's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub venue: String,
    /// Nanoseconds a step: the fastest repetition, and the median.
    pub ns_min: f64,
    /// The median.
    pub ns_median: f64,
    /// Time by that of the floor in the same repetition: the median.
    pub ratio: f64,
    /// The least and the largest of these ratios.
    pub ratios: (f64, f64),
    /// What it did.
    pub done: Done,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub spec: Spec,
    /// By venue, the floor first.
    pub rows: Vec<Row>,
}

/// Checks, then measures.
///
/// # Errors
/// If continuous books disagree, or an auction breaks a rule.
pub fn run(spec: &Spec, progress: &ProgressBar) -> Result<Report, Error> {
    progress.set_message("comparing");
    agree(spec, &mut Matchcore(matchcore::OrderBook::new("X")), Floor { beyond: true, ..Floor::default() })?;
    agree(spec, &mut OrderbookRs::new(), Floor::default())?;
    const BATCHES: [usize; 2] = [1_000, 10_000];
    for batch in BATCHES {
        conserve(spec, batch)?;
    }
    let mut runs: Vec<Vec<(String, f64, Done)>> = Vec::new();
    for repetition in 0..spec.repetitions {
        progress.set_message(format!("repetition {} of {}", repetition + 1, spec.repetitions));
        let mut run = Vec::new();
        let venues: [Box<dyn Venue>; 3] = [
            Box::new(Floor::default()),
            Box::new(Matchcore(matchcore::OrderBook::new("X"))),
            Box::new(OrderbookRs::new()),
        ];
        for mut venue in venues {
            let (time, done) = continuous(spec, venue.as_mut());
            run.push((venue.name().to_owned(), time, done));
        }
        for batch in BATCHES {
            let (time, done, _) = auctions(spec, batch, &mut |_, _| ());
            run.push((format!("auction, {} steps each", grouped(batch as u64)), time, done));
        }
        runs.push(run);
    }
    Ok(Report { spec: *spec, rows: rows(spec, &runs) })
}

fn rows(spec: &Spec, runs: &[Vec<(String, f64, Done)>]) -> Vec<Row> {
    let venues = runs.first().map_or(&[][..], |run| run);
    let sorted = |values: &mut dyn Iterator<Item = f64>| {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let row = |(at, (venue, _, done)): (usize, &(String, f64, Done))| {
        let ns = sorted(&mut runs.iter().map(|run| run[at].1 * 1e9 / f64::from(spec.steps.max(1))));
        let ratios = sorted(&mut runs.iter().map(|run| run[at].1 / run[0].1));
        Row {
            venue: venue.clone(),
            ns_min: ns[0],
            ns_median: ns[ns.len() / 2],
            ratio: ratios[ratios.len() / 2],
            ratios: (ratios[0], ratios[ratios.len() - 1]),
            done: *done,
        }
    };
    venues.iter().enumerate().map(row).collect()
}

/// What each does: of the published engines in the version that is measured, by its own documentation.
const FEATURES: [(&str, [&str; 4]); 11] = [
    ("", ["floor", "matchcore 0.4.0", "orderbook-rs 0.15.3", "auction"]),
    ("matching", ["price, time", "price, time", "price, time", "one price a batch"]),
    ("an order's limit holds", ["yes", "for its first trade only", "yes", "yes"]),
    ("order inside a batch decides", ["yes", "yes", "yes", "no: pro rata, lots by salt"]),
    ("same steps, same result", ["yes", "yes", "yes (ids and clock injected)", "yes, ties included"]),
    ("threads", ["one", "one", "many, lock-free", "one a zone"]),
    ("self-trade prevention", ["no", "no", "yes, by mode", "yes, always"]),
    ("limits of an account", ["no", "no", "yes (orders, notional)", "yes (orders)"]),
    ("margin reserved, settled elsewhere", ["no", "no", "no", "yes, by the ledger"]),
    ("rebuilt from", ["-", "serialised state", "snapshot or journal", "open orders and height"]),
    ("stop, iceberg, pegged orders", ["no", "yes", "yes", "no"]),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = || {
            let mut table = Table::new();
            table.load_preset(UTF8_FULL_CONDENSED);
            table
        };
        let Spec { resting, steps, repetitions } = self.spec;
        writeln!(
            f,
            "{} steps (45 % cancel, 45 % rest, 10 % cross) after {} that rest; {repetitions} repetitions, CPU time",
            grouped(steps.into()),
            grouped(resting.into())
        )?;
        let mut figures = table();
        figures.set_header([
            "venue",
            "ns a step, min",
            "median",
            "by the floor's",
            "min to max",
            "trades",
            "lots",
            "cancels",
        ]);
        for row in &self.rows {
            figures.add_row([
                row.venue.clone(),
                format!("{:.0}", row.ns_min),
                format!("{:.0}", row.ns_median),
                format!("{:.2}", row.ratio),
                format!("{:.2} to {:.2}", row.ratios.0, row.ratios.1),
                grouped(row.done.trades),
                grouped(row.done.lots),
                grouped(row.done.cancels),
            ]);
        }
        writeln!(f, "{figures}")?;
        let mut features = table();
        for (at, (name, venues)) in FEATURES.iter().enumerate() {
            let row: Vec<&str> = std::iter::once(*name).chain(*venues).collect();
            if at == 0 {
                features.set_header(row);
            } else {
                features.add_row(row);
            }
        }
        write!(f, "{features}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Placement;

    const SPEC: Spec = Spec { resting: 500, steps: 5_000, repetitions: 1 };

    fn place(side: Side, limit: u64, lots: i64, immediate: bool) -> Step {
        Step::Place(Placement { side, limit, lots, immediate })
    }

    #[test]
    fn the_floor_trades_by_price_then_time_and_rests_what_is_left() {
        let mut floor = Floor::default();
        let steps = [
            place(Side::Sell, 101, 5, false),
            place(Side::Sell, 100, 5, false),
            place(Side::Sell, 100, 5, false),
            place(Side::Buy, 101, 12, false),
            place(Side::Buy, 99, 3, false),
            place(Side::Sell, 99, 9, true),
            Step::Cancel(0),
            Step::Cancel(0),
            Step::Cancel(1),
        ];
        let (mut trades, mut found) = (Vec::new(), Vec::new());
        for (number, step) in (0..).zip(&steps) {
            found.push(floor.step(number, step, &mut trades));
        }
        let trades: Vec<_> = trades.iter().map(|trade| (trade.maker, trade.price, trade.lots)).collect();
        assert_eq!(trades, [(1, 100, 5), (2, 100, 5), (0, 101, 2), (4, 99, 3)]);
        assert_eq!(found[6..], [true, false, false], "once, and not after it traded");
        assert!(floor.bids.is_empty() && floor.asks.is_empty());
    }

    #[test]
    fn continuous_books_say_the_same() {
        let beyond = || Floor { beyond: true, ..Floor::default() };
        agree(&SPEC, &mut Matchcore(matchcore::OrderBook::new("X")), beyond()).unwrap();
        agree(&SPEC, &mut OrderbookRs::new(), Floor::default()).unwrap();
        assert!(agree(&SPEC, &mut OrderbookRs::new(), beyond()).is_err(), "the flow shows the difference");
        let (_, done) = continuous(&SPEC, &mut Floor::default());
        assert!(done.trades > 300 && done.cancels > 1_500, "{done:?}");
    }

    #[test]
    fn a_book_that_forgets_is_found_out() {
        struct Forgets(Floor);
        impl Venue for Forgets {
            fn name(&self) -> &'static str {
                "forgets"
            }
            fn step(&mut self, number: u32, step: &Step, trades: &mut Vec<Trade>) -> bool {
                let found = self.0.step(number, step, trades);
                if number == 700 { !found } else { found }
            }
        }
        let error = agree(&SPEC, &mut Forgets(Floor::default()), Floor::default()).unwrap_err();
        assert!(matches!(error, Error::Disagree { venue: "forgets", step: 700, .. }), "{error}");
    }

    #[test]
    fn auctions_conserve() {
        for batch in [1, 100, 5_000] {
            conserve(&SPEC, batch).unwrap();
        }
    }

    #[test]
    fn ratios_are_taken_inside_a_repetition() {
        let run = |floor: f64, other: f64| {
            vec![("a".to_owned(), floor, Done::default()), ("b".to_owned(), other, Done::default())]
        };
        let spec = Spec { resting: 0, steps: 1_000, repetitions: 3 };
        let rows = rows(&spec, &[run(1e-3, 2e-3), run(2e-3, 6e-3), run(4e-3, 20e-3)]);
        assert_eq!((rows[1].ratio, rows[1].ratios), (3.0, (2.0, 5.0)));
        assert!((rows[1].ns_median - 6_000.0).abs() < 1e-6 && (rows[0].ns_min - 1_000.0).abs() < 1e-6);
    }
}
