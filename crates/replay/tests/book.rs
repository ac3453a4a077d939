//! The drawn book is balanced, margined, heavy-tailed and the same for a seed.

use seawall_replay::{
    DEFAULT_REPLAY, Replay,
    book::{Book, BookError, BookSpec, generate},
    catalog, load,
};
use seawall_types::{MarketId, limits::MAX_POSITIONS_PER_ACCOUNT};

const USD: i128 = 1_000_000;

fn crash() -> Replay {
    load(DEFAULT_REPLAY, None, None).unwrap()
}

/// Rates like those of a large venue: BTC, ETH and SOL at 2.5 %, others at 5 %, more for large positions.
fn margin(replay: &Replay) -> impl Fn(MarketId, i128) -> u32 {
    let major: Vec<bool> =
        replay.markets.iter().map(|market| ["BTC", "ETH", "SOL"].contains(&market.symbol.as_str())).collect();
    move |market, notional| {
        let base = if major[usize::from(market.0)] { 25_000 } else { 50_000 };
        match notional / USD {
            0..1_000_000 => base,
            1_000_000..10_000_000 => base * 2,
            _ => base * 4,
        }
    }
}

fn draw(replay: &Replay, accounts: usize, seed: u64) -> Book {
    generate(replay, &BookSpec { accounts, seed, ..BookSpec::default() }, margin(replay)).unwrap()
}

fn notional(replay: &Replay, market: MarketId, lots: i64) -> i128 {
    let listing = &replay.markets[usize::from(market.0)];
    i128::from(lots) * i128::from(listing.first_price.0) * i128::from(listing.atoms_per_tick_lot)
}

#[test]
fn longs_equal_shorts_and_costs_sum_to_zero_in_every_market() {
    for info in catalog() {
        let replay = load(info.name, None, None).unwrap();
        for accounts in [2, 3, 10, 5_000] {
            let book = draw(&replay, accounts, 7);
            let (mut lots, mut costs) = (vec![0i64; replay.markets.len()], vec![0i128; replay.markets.len()]);
            let mut longs = lots.clone();
            for position in book.accounts.iter().flat_map(|account| &account.positions) {
                let market = usize::from(position.market.0);
                lots[market] += position.lots;
                longs[market] += position.lots.max(0);
                costs[market] += position.cost_atoms;
                assert_eq!(position.cost_atoms, notional(&replay, position.market, position.lots));
                assert_ne!(position.lots, 0);
            }
            assert!(lots.iter().all(|sum| *sum == 0), "{lots:?}");
            assert!(costs.iter().all(|sum| *sum == 0), "{costs:?}");
            assert_eq!(longs, book.open_interest);
            assert_eq!(book.accounts.len(), accounts);
        }
    }
}

#[test]
fn every_account_starts_above_its_initial_margin() {
    let replay = crash();
    let book = draw(&replay, 50_000, 1);
    let rate = margin(&replay);
    let required = |market, lots| {
        let size = notional(&replay, market, lots).abs();
        size * i128::from(rate(market, size)) / 1_000_000
    };
    for account in &book.accounts {
        let mut cross = 0;
        for position in &account.positions {
            let required = required(position.market, position.lots);
            match position.isolated_collateral {
                Some(own) => assert!(own > required, "{account:?}"),
                None => cross += required,
            }
        }
        assert!(account.collateral_atoms > cross, "{account:?}");
        let markets: Vec<MarketId> = account.positions.iter().map(|position| position.market).collect();
        assert!(markets.is_sorted_by(|a, b| a < b) && markets.len() <= MAX_POSITIONS_PER_ACCOUNT);
    }
}

#[test]
fn a_seed_gives_one_book_and_an_account_does_not_depend_on_how_many_others_there_are() {
    let replay = crash();
    let book = draw(&replay, 20_000, 3);
    assert_eq!(book, draw(&replay, 20_000, 3));
    assert_ne!(book, draw(&replay, 20_000, 4));
    let larger = draw(&replay, 30_000, 3);
    assert_eq!(book.accounts[..book.makers.start], larger.accounts[..book.makers.start]);
}

#[test]
fn sizes_are_heavy_tailed_around_the_published_mean() {
    let replay = crash();
    let book = draw(&replay, 100_000, 11);
    let mut sizes: Vec<f64> = book.accounts[..book.makers.start]
        .iter()
        .map(|account| {
            let sizes = account.positions.iter().map(|p| notional(&replay, p.market, p.lots).abs());
            sizes.sum::<i128>() as f64 / USD as f64
        })
        .collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    let total: f64 = sizes.iter().sum();
    let (mean, median) = (total / sizes.len() as f64, sizes[sizes.len() / 2]);
    assert!((9_000.0..16_000.0).contains(&mean), "mean {mean} USD");
    assert!((1_300.0..1_800.0).contains(&median), "median {median} USD");
    let top: f64 = sizes[..sizes.len() / 100].iter().sum::<f64>() / total;
    assert!((0.3..0.75).contains(&top), "the largest 1 % hold {top}");
    // Hill's estimator over the 500 largest, all of them in the Pareto tail.
    let hill = 500.0 / sizes[..500].iter().map(|size| (size / sizes[500]).ln()).sum::<f64>();
    assert!((1.1..1.6).contains(&hill), "tail exponent {hill}");
}

#[test]
fn the_mixture_of_accounts_is_that_of_the_spec() {
    let replay = crash();
    let book = draw(&replay, 100_000, 5);
    let takers = &book.accounts[..book.makers.start];
    let share = |count: usize| count as f64 / takers.len() as f64;
    let isolated = takers.iter().filter(|a| a.positions.iter().all(|p| p.isolated_collateral.is_some()));
    assert!((share(isolated.count()) - 0.25).abs() < 0.01);
    let cross_both_ways = takers.iter().filter(|account| {
        account.positions[0].isolated_collateral.is_none()
            && account.positions.iter().any(|p| p.lots > 0)
            && account.positions.iter().any(|p| p.lots < 0)
    });
    assert!((0.10..0.20).contains(&share(cross_both_ways.count())));
    let long: i64 = takers.iter().filter(|account| account.positions[0].lots > 0).count() as i64;
    assert!((0.5..0.7).contains(&(long as f64 / takers.len() as f64)));
}

/// The median over the venues that a listener hears at an instant.
fn median_at(replay: &Replay, market: MarketId, now_ms: u64) -> Option<u64> {
    let mut prices: Vec<u64> =
        replay.feeds_of(market).filter_map(|feed| Some(replay.feeds[feed].at(now_ms)?.0.0)).collect();
    prices.sort_unstable();
    prices.get(prices.len().checked_sub(1)? / 2).copied()
}

#[test]
fn the_crash_liquidates_a_realistic_share_of_accounts() {
    let replay = crash();
    let book = draw(&replay, 100_000, 2);
    let rate = margin(&replay);
    let mut marks: Vec<u64> = replay.markets.iter().map(|market| market.first_price.0).collect();
    let mut hit = vec![false; book.accounts.len()];
    let mut long_hit = 0;
    for now_ms in (replay.start_ms..replay.end_ms).step_by(5_000) {
        for (market, mark) in marks.iter_mut().enumerate() {
            *mark = median_at(&replay, MarketId(market as u16), now_ms).unwrap_or(*mark);
        }
        for (account, hit) in book.accounts.iter().zip(&mut hit).filter(|(_, hit)| !**hit) {
            let (mut equity, mut maintenance) = (account.collateral_atoms, 0);
            let mut isolated_breach = false;
            for position in &account.positions {
                let market = usize::from(position.market.0);
                let value = i128::from(position.lots)
                    * i128::from(marks[market])
                    * i128::from(replay.markets[market].atoms_per_tick_lot);
                let needed = value.abs() * i128::from(rate(position.market, value.abs())) / 2_000_000;
                match position.isolated_collateral {
                    Some(own) => isolated_breach |= own + value - position.cost_atoms < needed,
                    None => {
                        equity += value - position.cost_atoms;
                        maintenance += needed;
                    }
                }
            }
            if equity < maintenance || isolated_breach {
                *hit = true;
                long_hit += usize::from(account.positions[0].lots > 0);
            }
        }
    }
    let count = hit.iter().filter(|hit| **hit).count();
    println!("{count} of {} accounts liquidated, {long_hit} of them long", hit.len());
    assert!((10_000..60_000).contains(&count), "{count} accounts");
    assert!(long_hit * 10 > count * 8, "{long_hit} of {count} were long");
    assert!(!hit[book.makers.clone()].contains(&true), "market makers outlive the crash");
}

#[test]
fn impossible_specs_are_refused() {
    let replay = crash();
    let ok = BookSpec { accounts: 100, ..BookSpec::default() };
    for spec in [
        BookSpec { accounts: 0, ..ok.clone() },
        BookSpec { makers: Some(0), ..ok.clone() },
        BookSpec { makers: Some(101), ..ok.clone() },
        BookSpec { median_notional_usd: f64::NAN, ..ok.clone() },
        BookSpec { max_notional_usd: 1e30, ..ok.clone() },
        BookSpec { body_sigma: f64::INFINITY, ..ok.clone() },
        BookSpec { tail_exponent: 1.0, ..ok.clone() },
        BookSpec { isolated_ppm: 900_000, ..ok.clone() },
        BookSpec { long_ppm: 1_000_001, ..ok.clone() },
        BookSpec { leverage: vec![], ..ok.clone() },
        BookSpec { leverage: vec![(0, 1)], ..ok.clone() },
        BookSpec { leverage: vec![(1, u32::MAX), (2, 1)], ..ok.clone() },
    ] {
        assert!(matches!(generate(&replay, &spec, |_, _| 50_000), Err(BookError::Spec(_))), "{spec:?}");
    }
    assert!(generate(&replay, &ok, |_, _| 50_000).is_ok());
}
