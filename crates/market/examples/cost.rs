//! What an auction costs beside a large book: the same small inbox on books of 1,000 and 100,000 resting orders,
//! and a large inbox on both. Only the ratios inside one run mean something.
//!
//! ```sh
//! cargo run --release -p seawall-market --example cost
//! ```

use seawall_market::{
    Band, Entry, Inbox, Kind, MarketParams, Order, OrderId, Params, Reference, Request, Terms, Zone,
};
use seawall_types::{AccountId, Height, Lots, MarketId, PriceTicks, Side};
use std::{hint::black_box, time::Instant};

const MARKET: MarketId = MarketId(0);
const MIDDLE: u64 = 100_000;

fn terms(side: Side, lots: i64, limit: u64, kind: Kind) -> Terms {
    let (limit, lots) = (PriceTicks(limit), Lots(lots));
    Terms { market: MARKET, side, limit, lots, kind, reduce_only: false, good_til: None, cloid: None }
}

/// A book of so many orders, ten a level on both sides of the middle.
fn book(orders: u32) -> Zone {
    let market = MarketParams { min_lots: Lots(1), max_orders: 1 << 17 };
    let params = Params { markets: [(MARKET, market)].into(), max_orders_per_account: 256 };
    let order = |n: u32| {
        let away = 1 + u64::from(n) / 20;
        let (side, limit) =
            if n.is_multiple_of(2) { (Side::Buy, MIDDLE - away) } else { (Side::Sell, MIDDLE + away) };
        let id = OrderId { height: Height(1 + u64::from(n) % 1000), index: n };
        Order { id, account: AccountId(u64::from(n) / 100), terms: terms(side, 10, limit, Kind::Limit) }
    };
    Zone::from_orders(params, Height(1000), (0..orders).map(order)).expect("the orders rest")
}

/// Market orders of one lot, half of them on either side, of accounts that have nothing in the book.
fn inbox(height: u64, entries: u32) -> Inbox {
    let entry = |n: u32| {
        let (side, limit) = if n.is_multiple_of(2) { (Side::Buy, 1 << 39) } else { (Side::Sell, 1) };
        let request = Request::Place(terms(side, 1 + i64::from(n % 3), limit, Kind::Ioc));
        (n, Entry { account: AccountId(1 << 20 | u64::from(n)), request })
    };
    let band = Band { low: PriceTicks(MIDDLE / 2), high: PriceTicks(2 * MIDDLE) };
    Inbox {
        height: Height(height),
        salt: [7; 32],
        references: [(MARKET, Reference { mark: PriceTicks(MIDDLE), band })].into(),
        entries: (0..entries).map(entry).collect(),
    }
}

/// Nanoseconds of one height, the median of many.
fn measure(zone: &Zone, entries: u32, rounds: u64) -> u128 {
    let mut zone = zone.clone();
    let mut times: Vec<u128> = (0..rounds)
        .map(|round| {
            let inbox = inbox(1001 + round, entries);
            let start = Instant::now();
            black_box(zone.apply(&inbox).expect("the inbox is good"));
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let (small, large) = (book(1_000), book(100_000));
    println!("{:>8} {:>14} {:>14} {:>7}", "entries", "1,000 resting", "100,000", "ratio");
    for (entries, rounds) in [(0, 1000), (10, 300), (100, 30), (1000, 3)] {
        let (one, other) = (measure(&small, entries, rounds), measure(&large, entries, rounds));
        let ratio = 100 * other / one.max(1);
        println!("{entries:>8} {one:>11} ns {other:>11} ns {:>4}.{:02}", ratio / 100, ratio % 100);
    }
}
