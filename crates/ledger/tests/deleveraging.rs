//! Deleveraging with more counterparties than it spreads over: what is found from the largest position down
//! is what a scan of everybody finds.

mod common;

use common::{Rng, fill, fresh, params};
use proptest::prelude::*;
use seawall_ledger::*;
use seawall_types::*;

const PRICE: i64 = 50_000;
const SHORTS: u64 = 4_000;

/// A backstop that takes nothing, so that whatever is liquidated is deleveraged.
fn parameters() -> ChainParams {
    let mut params = params();
    params.liquidation_steps = 10_000;
    params.markets.truncate(2);
    for market in &mut params.markets {
        market.open_interest_cap = Lots(900_000);
        market.account_cap = Lots(900_000);
        market.backstop.capacity_lots = Lots(0);
    }
    params
}

fn leg(market: u16, lots: i64, isolated: Option<i128>) -> GenesisPosition {
    let unit = if market == 0 { PRICE } else { 30_000 };
    GenesisPosition {
        market: MarketId(market),
        lots: Lots(lots),
        cost: Atoms(i128::from(lots * unit)),
        mode: if isolated.is_some() { MarginMode::Isolated } else { MarginMode::Cross },
        isolated: Atoms(isolated.unwrap_or(0)),
    }
}

/// Shorts of few sizes (so that there are ties), some hedged, isolated, in both markets or close to their
/// end; against longs of which some fall at each step, and one that never does.
fn book(rng: &mut Rng) -> Vec<GenesisAccount> {
    let account = |collateral: i128, positions: Vec<GenesisPosition>| GenesisAccount {
        owner: Key([0; 32]),
        collateral: Atoms(collateral),
        positions,
    };
    let mut accounts = vec![account(0, Vec::new())];
    let mut net = [0i64; 2];
    for _ in 0..SHORTS {
        let lots = -(1 + rng.below(40) as i64);
        let notional = i128::from(-lots * PRICE);
        let (collateral, legs) = match rng.below(10) {
            0 => (0, vec![leg(0, lots, Some(notional))]),
            1 => (2 * notional, vec![leg(0, lots, None), leg(1, 1 + rng.below(60) as i64, None)]),
            2..7 => (2 * notional, vec![leg(0, lots, None), leg(1, lots - 1 - rng.below(9) as i64, None)]),
            _ => (notional / [1, 2, 30][rng.below(3) as usize], vec![leg(0, lots, None)]),
        };
        for leg in &legs {
            net[usize::from(leg.market.0)] += leg.lots.0;
        }
        accounts.push(account(collateral, legs));
    }
    // The other side: sixty longs in each market, the first ones with the least behind them.
    for market in 0..2 {
        for long in 0..60 {
            let owed = -net[usize::from(market)];
            let legs = vec![leg(market, owed / 60 + i64::from(long < owed % 60), None)];
            let share = 40 + 4 * i128::from(long);
            accounts.push(account(legs[0].cost.0 * share / 1_000, legs));
        }
    }
    accounts.push(account(1_000_000_000_000, Vec::new()));
    accounts
}

/// Shorts sell more to the last long (the side is that of its quote): sizes grow, too.
fn sales(rng: &mut Rng, ledger: &Ledger, prices: [u64; 2], height: u64) -> Vec<(AccountId, Nonce, Action)> {
    let rich = AccountId(SHORTS + 121);
    (0..40)
        .map(|at| {
            let (taker, market) = (AccountId(1 + rng.below(SHORTS)), rng.below(2) as u16);
            let (price, nonce) = (prices[usize::from(market)], height * 100 + at);
            let lots = 1 + rng.below(60) as i64;
            (taker, Nonce(nonce), fill(ledger, taker, rich, market, Side::Buy, price, lots, nonce))
        })
        .collect()
}

#[derive(Default)]
struct Seen {
    deleveraged: u64,
    sold: u64,
}

fn play(seed: u64) -> Seen {
    let mut rng = Rng(seed);
    let mut indexed = Ledger::genesis(&parameters(), TimeMs(1_000), book(&mut rng).into_iter()).unwrap();
    let mut scanned = indexed.clone();
    scanned.set_sweep_mode(SweepMode::FullScan);
    let (mut prices, mut seen) = ([PRICE as u64, 3_000], Seen::default());
    for height in 1..12 {
        let sales = sales(&mut rng, &indexed, prices, height);
        let mut sold = 0;
        let mut block = |ledger: &mut Ledger| {
            ledger.begin_block(Height(height), TimeMs(1_000 + height * 500));
            ledger.set_marks(&[(MarketId(0), fresh(prices[0])), (MarketId(1), fresh(prices[1]))]);
            ledger.accrue_funding();
            let report = ledger.sweep(&mut NoVenue);
            for (taker, nonce, action) in &sales {
                sold += u64::from(ledger.apply(*taker, *nonce, Height(height + 3), action).is_ok());
            }
            (ledger.end_block(), report)
        };
        let ((delta, report), (reference, _)) = (block(&mut indexed), block(&mut scanned));
        assert_eq!(delta, reference, "seed {seed}, block {height}");
        // Undone and done again, the sizes are those of the records.
        if rng.chance(30) {
            indexed.revert(&delta);
            indexed.reapply(&delta);
        }
        seen.deleveraged += report.deleveraged;
        seen.sold += sold;
        prices = prices.map(|price| price * (975 + rng.below(40)) / 1_000);
    }
    assert_eq!(indexed.audit(), Ok(()));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Ties, hedges, isolated positions and accounts without equity, in several sweeps one after another.
    #[test]
    fn the_largest_positions_are_found_without_looking_at_all(seed in any::<u64>()) {
        play(seed);
    }
}

#[test]
fn the_book_deleverages_and_trades() {
    let seen = play(1);
    assert!(seen.deleveraged > 2_048 && seen.sold > 200, "{} {}", seen.deleveraged, seen.sold);
}
