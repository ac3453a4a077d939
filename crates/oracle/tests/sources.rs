//! What a validator makes of its own sources, claim by claim.

mod common;
use common::*;
use proptest::prelude::*;

const LIMITS: SourceParams = SourceParams {
    max_age_ms: 60_000,
    max_vote_age_ms: 300_000,
    max_ahead_ms: 1_000,
    min_price: PriceTicks(10),
    max_price: PriceTicks(1_000_000),
};

fn ticks(prices: &[u64]) -> Vec<PriceTicks> {
    prices.iter().copied().map(PriceTicks).collect()
}

#[test]
fn the_two_medians_and_the_spread() {
    let cases: [(&[u64], Option<PriceReport>); 8] = [
        (&[], None),
        (&[0, 0], None),
        (&[7], Some(report(7, 7, 1))),
        (&[9, 7], Some(report(7, 9, 2))),
        (&[65, 100, 101], Some(PriceReport { spread: PriceTicks(36), ..report(100, 100, 3) })),
        (&[4, 1, 3, 2], Some(PriceReport { spread: PriceTicks(3), ..report(2, 3, 4) })),
        (&[0, 5, 5, 5], Some(report(5, 5, 3))),
        (&[5; 300], Some(report(5, 5, 64))),
    ];
    for (prices, expected) in cases {
        assert_eq!(aggregate(&ticks(prices)), expected, "{prices:?}");
    }
}

#[test]
fn a_quote_is_fresh_by_its_own_time_and_range() {
    let now = START;
    let cases = [
        (100, now, true),
        (100, now - 60_000, true),
        (100, now - 60_001, false),
        (100, now + 1_000, true),
        (100, now + 1_001, false),
        (100, u64::MAX, false),
        (100, 0, false),
        (0, now, false),
        (9, now, false),
        (10, now, true),
        (1_000_000, now, true),
        (1_000_001, now, false),
    ];
    for (price, time, counts) in cases {
        let mut sources = Sources::new(&[LIMITS]).unwrap();
        sources.update(SourceId(1), M, PriceTicks(price), TimeMs(time)).unwrap();
        let expected: Vec<_> = counts.then(|| (M, report(price, price, 1))).into_iter().collect();
        assert_eq!(sources.report(TimeMs(now)), expected, "{price} at {time}");
    }
}

#[test]
fn zero_is_no_price_even_in_a_range_that_holds_it() {
    let limits = SourceParams { min_price: PriceTicks(0), ..LIMITS };
    assert!(!limits.is_fresh(PriceTicks(0), TimeMs(START), TimeMs(START)));
    assert!(limits.is_fresh(PriceTicks(1), TimeMs(START), TimeMs(START)));
}

#[test]
fn a_source_that_repeats_counts_and_one_whose_clock_stops_drops_out() {
    let mut sources = Sources::new(&[LIMITS]).unwrap();
    for minute in 0..10 {
        let now = TimeMs(START + minute * 60_000);
        sources.update(SourceId(1), M, PriceTicks(100), now).unwrap();
        sources.update(SourceId(2), M, PriceTicks(200), TimeMs(START)).unwrap();
        let expected = if minute <= 1 { report(100, 200, 2) } else { report(100, 100, 1) };
        assert_eq!(sources.report(now), [(M, expected)]);
    }
}

/// What sources make of quotes given as (price, age in milliseconds).
fn heard(limits: SourceParams, quotes: &[(u64, u64)]) -> Option<PriceReport> {
    let mut sources = Sources::new(&[limits]).unwrap();
    for (source, (price, age)) in (0..).map(SourceId).zip(quotes) {
        sources.update(source, M, PriceTicks(*price), TimeMs(START - age)).unwrap();
    }
    sources.report(TimeMs(START)).pop().map(|(_, report)| report)
}

#[test]
fn an_old_quote_votes_only_while_fresh_ones_are_the_majority() {
    let spread = |low: u64, high: u64, sources, spread| {
        Some(PriceReport { spread: PriceTicks(spread), ..report(low, high, sources) })
    };
    type Case<'a> = (&'a str, &'a [(u64, u64)], Option<PriceReport>);
    let cases: [Case<'_>; 9] = [
        ("alone it is no price", &[(100, 60_001)], None),
        ("two old ones are no price either", &[(100, 60_001), (100, 60_001)], None),
        ("beside one fresh quote it is not heard", &[(100, 0), (200, 60_001)], spread(100, 100, 1, 0)),
        (
            "it decides between two that disagree",
            &[(65, 0), (100, 0), (101, 300_000)],
            spread(100, 100, 2, 35),
        ),
        ("to either side", &[(65, 0), (100, 0), (60, 300_000)], spread(65, 65, 2, 35)),
        ("and may lie between them", &[(65, 0), (100, 0), (80, 300_000)], spread(80, 80, 2, 35)),
        ("too old is too old", &[(65, 0), (100, 0), (101, 300_001)], spread(65, 100, 2, 35)),
        (
            "the youngest vote first, and no more than fresh ones less one",
            &[(65, 0), (100, 0), (60, 100_000), (101, 90_000), (102, 110_000)],
            spread(100, 100, 2, 35),
        ),
        ("out of range is no vote", &[(65, 0), (100, 0), (9, 100_000)], spread(65, 100, 2, 35)),
    ];
    for (claim, quotes, expected) in cases {
        assert_eq!(heard(LIMITS, quotes), expected, "{claim}");
    }
    let narrow = SourceParams { max_vote_age_ms: 0, ..LIMITS };
    assert_eq!(heard(narrow, &[(65, 0), (100, 60_000), (101, 60_001)]), spread(65, 100, 2, 35));
}

#[test]
fn the_latest_call_wins_so_that_no_future_stamp_locks_a_source_out() {
    let mut sources = Sources::new(&[LIMITS]).unwrap();
    sources.update(SourceId(1), M, PriceTicks(500), TimeMs(u64::MAX)).unwrap();
    assert_eq!(sources.report(TimeMs(START)), []);
    sources.update(SourceId(1), M, PriceTicks(100), TimeMs(START)).unwrap();
    assert_eq!(sources.report(TimeMs(START)), [(M, report(100, 100, 1))]);
    sources.update(SourceId(1), M, PriceTicks(0), TimeMs(START)).unwrap();
    assert_eq!(sources.report(TimeMs(START)), []);
}

#[test]
fn sources_are_bounded_and_markets_apart() {
    let mut sources = Sources::new(&[LIMITS; 2]).unwrap();
    let now = TimeMs(START);
    for source in 0..64 {
        sources.update(SourceId(source), M, PriceTicks(100), now).unwrap();
    }
    assert_eq!(sources.update(SourceId(64), M, PriceTicks(1), now), Err(SourceError::TooManySources(M)));
    sources.update(SourceId(63), M, PriceTicks(100), now).unwrap();
    sources.update(SourceId(64), MarketId(1), PriceTicks(200), now).unwrap();
    let third = MarketId(2);
    assert_eq!(
        sources.update(SourceId(0), third, PriceTicks(1), now),
        Err(SourceError::UnknownMarket(third))
    );
    assert_eq!(sources.report(now), [(M, report(100, 100, 64)), (MarketId(1), report(200, 200, 1))]);
    sources.remove(SourceId(64));
    assert_eq!(sources.report(now), [(M, report(100, 100, 64))]);
    assert_eq!(Sources::new(&[LIMITS; 257]), Err(SourceError::TooManyMarkets(257)));
}

proptest! {
    #[test]
    fn old_quotes_never_move_a_report_outside_the_range_of_fresh_ones(
        quotes in prop::collection::vec((10u64..1_000_000, 0u64..400_000), 0..20),
        order in any::<prop::sample::Index>(),
    ) {
        let fresh: Vec<_> = quotes.iter().filter(|(_, age)| *age <= 60_000).map(|(price, _)| *price).collect();
        let said = heard(LIMITS, &quotes);
        prop_assert_eq!(said.is_some(), !fresh.is_empty());
        if let Some(said) = said {
            let (low, high) = (*fresh.iter().min().unwrap(), *fresh.iter().max().unwrap());
            prop_assert!(low <= said.low.0 && said.low <= said.high && said.high.0 <= high);
            prop_assert_eq!((usize::from(said.sources), said.spread.0), (fresh.len(), high - low));
            let mut turned = quotes.clone();
            turned.rotate_left(order.index(quotes.len()));
            prop_assert_eq!(heard(LIMITS, &turned), Some(said));
        }
    }

    #[test]
    fn fewer_than_half_the_sources_cannot_move_either_median_outside_the_others(
        honest in prop::collection::vec(1u64..1_000_000, 1..20),
        lies in prop::collection::vec(0u64..=u64::MAX, 0..20),
    ) {
        let lies = &lies[..lies.len().min(honest.len() - 1)];
        let mut all = ticks(&honest);
        all.extend(ticks(lies));
        let said = aggregate(&all).unwrap();
        let range = *honest.iter().min().unwrap()..=*honest.iter().max().unwrap();
        prop_assert!(range.contains(&said.low.0) && range.contains(&said.high.0));
        prop_assert!(said.low <= said.high && said.high.0 - said.low.0 <= said.spread.0);
    }

    #[test]
    fn most_sources_are_at_or_above_low_and_at_or_below_high(
        prices in prop::collection::vec(1u64..50, 1..64),
    ) {
        let said = aggregate(&ticks(&prices)).unwrap();
        let count = |pred: &dyn Fn(u64) -> bool| prices.iter().filter(|price| pred(**price)).count();
        prop_assert!(2 * count(&|price| price >= said.low.0) >= prices.len());
        prop_assert!(2 * count(&|price| price <= said.high.0) >= prices.len());
    }
}

#[test]
fn block_time_is_the_lower_median_and_always_advances() {
    let cases: [(u64, &[u64], Option<u64>); 7] = [
        (10, &[], None),
        (10, &[50], Some(50)),
        (10, &[50, 70], Some(50)),
        (10, &[70, 50, 60], Some(60)),
        (10, &[1, 2, 90, 99], Some(11)),
        (10, &[20, 30, 40, 50], Some(30)),
        (60, &[20, 30, 40, 50], Some(61)),
    ];
    for (parent, times, expected) in cases {
        let times: Vec<_> = times.iter().copied().map(TimeMs).collect();
        assert_eq!(block_time(TimeMs(parent), &times), expected.map(TimeMs), "{times:?}");
    }
}

proptest! {
    #[test]
    fn f_liars_cannot_move_the_median_time_outside_the_honest_range(
        n in 1usize..=100,
        missing in 0usize..=100,
        times in prop::collection::vec(START..START + 10_000, 100),
        lies in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), 0..=u64::MAX], 100),
        seed in any::<u64>(),
    ) {
        // Between q and n observations, f of them lies, in any order.
        let committee = Committee::new(n).unwrap();
        let (f, q) = (committee.faults(), committee.quorum());
        let k = n - missing % (n - q + 1);
        let honest = &times[..k - f];
        let mut observed: Vec<_> = honest.iter().chain(&lies[..f]).copied().map(TimeMs).collect();
        let turn = seed as usize % observed.len();
        observed.rotate_left(turn);
        let median = median_time(&observed).unwrap().0;
        prop_assert!(*honest.iter().min().unwrap() <= median && median <= *honest.iter().max().unwrap());
    }
}
