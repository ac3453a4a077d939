//! Which validator hears what.

use seawall_replay::{DEFAULT_REPLAY, Feed, FeedValue, Replay, assign::SOURCES, assign_feeds, catalog, load};
use seawall_types::{MarketId, PriceTicks};
use std::collections::BTreeSet;

/// One market with this many venues; venue `i` always says `1000 + i`.
fn with_venues(venues: u64) -> Replay {
    let mut replay = load("btc-2022-11-08", None, None).unwrap();
    replay.feeds = (0..venues)
        .map(|venue| Feed {
            bar_ms: 60_000,
            venue: format!("venue-{venue}"),
            market: MarketId(0),
            values: vec![FeedValue { visible_ms: 0, stamp_ms: 0, price: PriceTicks(1_000 + venue) }],
        })
        .collect();
    replay
}

fn lower_and_upper_median(prices: &mut [u64]) -> (u64, u64) {
    prices.sort_unstable();
    (prices[(prices.len() - 1) / 2], prices[prices.len() / 2])
}

#[test]
fn where_three_venues_exist_no_venue_is_decisive_for_any_validator() {
    for venues in 3..=9 {
        let replay = with_venues(venues);
        let assigned = assign_feeds(&replay, 7, 1);
        for liar in 0..venues as usize {
            for lie in [1, u64::MAX] {
                for feeds in &assigned {
                    let say =
                        |feed: usize| if feed == liar { lie } else { replay.feeds[feed].values[0].price.0 };
                    let mut said: Vec<u64> = feeds.iter().map(|feed| say(*feed)).collect();
                    let honest = || feeds.iter().filter(|feed| **feed != liar).map(|feed| say(*feed));
                    let range = honest().min().unwrap()..=honest().max().unwrap();
                    let (low, high) = lower_and_upper_median(&mut said);
                    assert!(range.contains(&low) && range.contains(&high), "{venues} venues, {feeds:?}");
                }
            }
        }
    }
}

#[test]
fn every_validator_has_as_many_sources_as_there_are_up_to_three() {
    for info in catalog() {
        let replay = load(info.name, None, None).unwrap();
        for feeds in assign_feeds(&replay, 10, 3) {
            for market in 0..replay.markets.len() {
                let market = MarketId(market as u16);
                let heard = feeds.iter().filter(|feed| replay.feeds[**feed].market == market).count();
                assert_eq!(heard, replay.feeds_of(market).count().min(SOURCES));
            }
            assert!(feeds.is_sorted_by(|a, b| a < b));
        }
    }
}

#[test]
fn listeners_are_spread_evenly_and_subsets_differ() {
    for venues in 4..=9 {
        let replay = with_venues(venues);
        let assigned = assign_feeds(&replay, 20, 5);
        let listeners: Vec<usize> = (0..venues as usize)
            .map(|venue| assigned.iter().filter(|feeds| feeds.contains(&venue)).count())
            .collect();
        assert!(listeners.iter().max().unwrap() - listeners.iter().min().unwrap() <= 1, "{listeners:?}");
        let subsets: BTreeSet<&Vec<usize>> = assigned.iter().collect();
        assert!(subsets.len() >= 3, "{subsets:?}");
    }
}

#[test]
fn the_assignment_is_a_function_of_its_seed() {
    let replay = with_venues(8);
    assert_eq!(assign_feeds(&replay, 13, 9), assign_feeds(&replay, 13, 9));
    assert_ne!(assign_feeds(&replay, 13, 9), assign_feeds(&replay, 13, 10));
    assert!(assign_feeds(&load(DEFAULT_REPLAY, None, None).unwrap(), 0, 0).is_empty());
}
