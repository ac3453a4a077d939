//! What the documentation of the crate claims, case by case.

mod common;

use common::{history, id, params};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use seawall_market::{
    Band, Cloid, Cut, CutReason, End, EndReason, Entry, Fault, Inbox, InboxError, Kind, Level, MarketParams,
    Name, OnCross, Order, OrderId, Outcome, Params, ParamsError, Reference, Request, RestoreError, Slide,
    Terms, Zone, limits,
};
use seawall_types::{
    AccountId, Height, Lots, MarketId, PriceTicks, Side,
    limits::{MAX_LOTS, MAX_PRICE_TICKS},
};
use std::collections::{BTreeMap, BTreeSet};

const M: MarketId = MarketId(0);

fn at(mark: u64, low: u64, high: u64) -> Reference {
    Reference { mark: PriceTicks(mark), band: Band { low: PriceTicks(low), high: PriceTicks(high) } }
}

fn wide(mark: u64) -> Reference {
    at(mark, 1, 1000)
}

fn terms(side: Side, lots: i64, limit: u64) -> Terms {
    Terms {
        market: M,
        side,
        limit: PriceTicks(limit),
        lots: Lots(lots),
        kind: Kind::Limit,
        reduce_only: false,
        good_til: None,
        cloid: None,
    }
}

fn buy(lots: i64, limit: u64) -> Terms {
    terms(Side::Buy, lots, limit)
}

fn sell(lots: i64, limit: u64) -> Terms {
    terms(Side::Sell, lots, limit)
}

fn of_kind(kind: Kind, terms: Terms) -> Terms {
    Terms { kind, ..terms }
}

/// A zone of two markets, without a minimum and with caps out of reach.
fn zone() -> Zone {
    Zone::new(params(1, 1000, 100)).unwrap()
}

type Asked = (u64, Request);

fn place(account: u64, terms: Terms) -> Asked {
    (account, Request::Place(terms))
}

fn named(id: OrderId) -> Name {
    Name::Id(id)
}

fn inbox(height: u64, salt: u8, reference: Option<Reference>, asked: &[Asked]) -> Inbox {
    let entries =
        asked.iter().map(|(account, request)| Entry { account: AccountId(*account), request: *request });
    Inbox {
        height: Height(height),
        salt: [salt; 32],
        references: reference.map(|reference| (M, reference)).into_iter().collect(),
        entries: (0..).zip(entries).collect(),
    }
}

/// The next height of a zone.
fn step(zone: &mut Zone, reference: Option<Reference>, asked: &[Asked]) -> Outcome {
    let height = zone.height().0 + 1;
    zone.apply(&inbox(height, 7, reference, asked)).unwrap()
}

fn price(outcome: &Outcome) -> Option<u64> {
    outcome.markets.iter().find(|market| market.market == M)?.price.map(|price| price.0)
}

fn fills(outcome: &Outcome) -> Vec<(OrderId, i64)> {
    outcome.markets.iter().flat_map(|m| &m.fills).map(|fill| (fill.order, fill.lots.0)).collect()
}

fn ends(outcome: &Outcome) -> Vec<(OrderId, EndReason, i64)> {
    outcome.markets.iter().flat_map(|m| &m.ends).map(|end| (end.order, end.reason, end.lots.0)).collect()
}

fn cuts(outcome: &Outcome) -> Vec<(OrderId, CutReason, i64)> {
    outcome.markets.iter().flat_map(|m| &m.cuts).map(|cut| (cut.order, cut.reason, cut.lots.0)).collect()
}

fn open(zone: &Zone) -> Vec<(OrderId, i64)> {
    zone.orders().map(|order| (order.id, order.terms.lots.0)).collect()
}

// ---------------------------------------------------------------------------------------------
// Price

#[test]
fn the_price_has_most_volume_then_least_imbalance_then_fills_better_orders_then_is_near_the_mark_then_low() {
    type Book = &'static [(i64, u64)];
    type Case = (&'static str, Book, Book, u64, Option<(u64, i64)>);
    let cases: [Case; 16] = [
        ("nothing crosses", &[(5, 99)], &[(5, 100)], 100, None),
        ("one side is empty", &[(5, 99)], &[], 100, None),
        ("one tick suits both", &[(5, 100)], &[(5, 100)], 500, Some((100, 5))),
        ("equal sizes: the mark, where it suits both", &[(5, 110)], &[(5, 100)], 104, Some((104, 5))),
        (
            "equal sizes, mark above: the highest that suits both",
            &[(5, 110)],
            &[(5, 100)],
            300,
            Some((110, 5)),
        ),
        ("equal sizes, mark below: the lowest that suits both", &[(5, 110)], &[(5, 100)], 3, Some((100, 5))),
        ("a small buyer pays the ask, not the mark", &[(2, 200)], &[(5, 100)], 150, Some((100, 2))),
        ("a small seller gets the bid, not the mark", &[(5, 100)], &[(2, 1)], 50, Some((100, 2))),
        (
            "it pays up to where its size is met",
            &[(7, 200)],
            &[(5, 100), (5, 103), (5, 120)],
            110,
            Some((103, 7)),
        ),
        (
            "met exactly, it pays up to the next ask at most",
            &[(5, 200)],
            &[(5, 100), (5, 103)],
            150,
            Some((102, 5)),
        ),
        ("volume goes before the mark", &[(10, 105), (1, 200)], &[(10, 100), (1, 190)], 195, Some((105, 10))),
        (
            "imbalance goes before the mark: more is left of the bid",
            &[(5, 101), (4, 100)],
            &[(5, 99), (3, 101)],
            100,
            Some((101, 5)),
        ),
        (
            "imbalance goes before the mark: more is left of the ask",
            &[(5, 101), (3, 100)],
            &[(5, 99), (4, 101)],
            101,
            Some((100, 5)),
        ),
        (
            "as much is left on either side: the nearer to a mark above",
            &[(5, 101), (3, 100)],
            &[(5, 99), (3, 101)],
            300,
            Some((101, 5)),
        ),
        (
            "as much is left on either side: the nearer to a mark below",
            &[(5, 101), (3, 100)],
            &[(5, 99), (3, 101)],
            100,
            Some((100, 5)),
        ),
        (
            "what is left behind the last pair does not move the price",
            &[(5, 110), (9, 90)],
            &[(5, 100), (9, 120)],
            105,
            Some((105, 5)),
        ),
    ];
    for (claim, bids, asks, mark, expected) in cases {
        let mut zone = zone();
        let bids = bids.iter().map(|(lots, limit)| buy(*lots, *limit));
        let asks = asks.iter().map(|(lots, limit)| sell(*lots, *limit));
        let asked: Vec<Asked> =
            (0..).zip(bids.chain(asks)).map(|(account, terms)| place(account, terms)).collect();
        step(&mut zone, None, &asked);
        let shown = zone.indicative(M, &wide(mark));
        assert_eq!(shown, expected.map(|(price, lots)| (PriceTicks(price), Lots(lots))), "{claim}");
        let outcome = step(&mut zone, Some(wide(mark)), &[]);
        assert_eq!(price(&outcome), expected.map(|(price, _)| price), "{claim}");
        let volume = outcome.markets.first().map_or(Lots(0), |market| market.volume());
        assert_eq!(volume.0, expected.map_or(0, |(_, volume)| volume), "{claim}");
    }
}

#[test]
fn orders_outside_the_band_sit_out_and_come_back_with_it() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, buy(5, 120)), place(2, sell(5, 80)), place(3, buy(5, 101))]);
    // Neither the aggressive bid nor the aggressive ask takes part: 101 is alone.
    let outcome = step(&mut zone, Some(at(100, 95, 105)), &[]);
    assert_eq!(outcome.markets, []);
    let outcome = step(&mut zone, Some(at(100, 80, 105)), &[]);
    assert_eq!((price(&outcome), fills(&outcome)), (Some(100), vec![(id(1, 1), 5), (id(1, 2), 5)]));
    assert_eq!(open(&zone), [(id(1, 0), 5)]);
}

#[test]
fn an_ioc_beyond_the_band_is_a_market_order_and_one_short_of_it_ends() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, sell(5, 104)), place(1, sell(5, 106))]);
    let market = of_kind(Kind::Ioc, buy(9, MAX_PRICE_TICKS));
    let short = of_kind(Kind::Ioc, buy(9, 94));
    let outcome = step(&mut zone, Some(at(100, 95, 105)), &[place(2, market), place(3, short)]);
    assert_eq!((price(&outcome), fills(&outcome)), (Some(105), vec![(id(1, 0), 5), (id(2, 0), 5)]));
    assert_eq!(
        ends(&outcome),
        [
            (id(1, 0), EndReason::Filled, 0),
            (id(2, 0), EndReason::IocRemainder, 4),
            (id(2, 1), EndReason::IocRemainder, 9)
        ]
    );
}

// ---------------------------------------------------------------------------------------------
// Allocation

#[test]
fn at_the_margin_liquidation_goes_first_then_earlier_auctions_then_pro_rata() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, sell(10, 100))]);
    step(&mut zone, None, &[place(2, sell(6, 100)), place(3, sell(3, 100)), place(4, sell(3, 99))]);
    let close = of_kind(Kind::Liquidation, sell(4, 100));
    let outcome =
        step(&mut zone, Some(wide(100)), &[place(5, sell(8, 100)), place(6, close), place(7, buy(23, 100))]);
    // 3 of the better one, 4 of the close, 10 of the first auction, and 6 pro rata of 9 in the second.
    let expected =
        [(id(1, 0), 10), (id(2, 0), 4), (id(2, 1), 2), (id(2, 2), 3), (id(3, 1), 4), (id(3, 2), 23)];
    assert_eq!((price(&outcome), fills(&outcome)), (Some(100), expected.to_vec()));
    let makers: Vec<bool> = outcome.markets[0].fills.iter().map(|fill| fill.maker).collect();
    assert_eq!(makers, [true, true, true, true, false, false]);
}

#[test]
fn remainders_go_to_the_largest_and_equal_ones_by_the_salt_alone() {
    // 5 lots for 4, 4 and 2: exactly 2, 2 and 1. And 4 lots: 1.6, 1.6 and 0.8, so the third gets one and one
    // of the first two gets two.
    let shares = |lots: i64, salt: u8| {
        let mut zone = zone();
        let asked = [
            place(1, sell(4, 100)),
            place(2, sell(4, 100)),
            place(3, sell(2, 100)),
            place(4, buy(lots, 100)),
        ];
        let outcome = zone.apply(&inbox(1, salt, Some(wide(100)), &asked)).unwrap();
        fills(&outcome)[..3].iter().map(|(_, lots)| *lots).collect::<Vec<_>>()
    };
    let mut drawn = BTreeSet::new();
    for salt in 0..32 {
        assert_eq!(shares(5, salt), [2, 2, 1]);
        drawn.insert(shares(4, salt));
    }
    assert_eq!(drawn, BTreeSet::from([vec![2, 1, 1], vec![1, 2, 1]]));
}

#[test]
fn lots_are_drawn_evenly() {
    // Two equal orders and one lot: over many salts each wins about half.
    let mut won = 0;
    for salt in 0..=255 {
        let mut zone = zone();
        let asked = [place(1, sell(1, 100)), place(2, sell(1, 100)), place(3, buy(1, 100))];
        let outcome = zone.apply(&inbox(1, salt, Some(wide(100)), &asked)).unwrap();
        won += usize::from(fills(&outcome)[0].0 == id(1, 0));
    }
    assert!((96..160).contains(&won), "{won} of 256");
}

#[test]
fn the_largest_sizes_and_prices_trade_exactly() {
    let mut zone = Zone::new(params(1, limits::MAX_ORDERS_PER_MARKET, 256)).unwrap();
    let top = at(MAX_PRICE_TICKS, 1, MAX_PRICE_TICKS);
    let count = 300;
    let mut asked: Vec<Asked> =
        (0..count).map(|account| place(account, sell(MAX_LOTS, MAX_PRICE_TICKS))).collect();
    asked.push(place(count, buy(MAX_LOTS, MAX_PRICE_TICKS)));
    asked.push(place(count + 1, buy(1, MAX_PRICE_TICKS)));
    let outcome = step(&mut zone, Some(top), &asked);
    assert_eq!(price(&outcome), Some(MAX_PRICE_TICKS));
    assert_eq!(outcome.markets[0].volume(), Lots(MAX_LOTS + 1));
    let sold: Vec<i64> = fills(&outcome)[..count as usize].iter().map(|(_, lots)| *lots).collect();
    let least = (MAX_LOTS + 1) / count as i64;
    assert!(sold.iter().all(|lots| (least..=least + 1).contains(lots)));
    assert_eq!(sold.iter().sum::<i64>(), MAX_LOTS + 1);
}

// ---------------------------------------------------------------------------------------------
// Kinds

#[test]
fn post_only_is_judged_against_what_rested_inside_the_band() {
    let cancel = Kind::PostOnly(OnCross::Cancel);
    let slide = Kind::PostOnly(OnCross::Slide);
    // Resting: a bid at 90, an ask at 110, and an ask at 70 that sits out.
    let cases: [(&str, Terms, Option<u64>); 10] = [
        ("what does not take rests", of_kind(cancel, buy(1, 109)), Some(109)),
        ("what would take is cancelled", of_kind(cancel, buy(1, 110)), None),
        ("or slides to one tick before it", of_kind(slide, buy(1, 115)), Some(109)),
        ("the same for a seller", of_kind(cancel, sell(1, 91)), Some(91)),
        ("cancelled", of_kind(cancel, sell(1, 90)), None),
        ("slid", of_kind(slide, sell(1, 85)), Some(91)),
        ("orders that sit out take no part", of_kind(cancel, buy(1, 80)), Some(80)),
        ("not even as a target of a slide", of_kind(slide, buy(1, 109)), Some(109)),
        ("its own account's orders count", Terms { reduce_only: true, ..of_kind(cancel, sell(1, 90)) }, None),
        ("a plain limit takes", buy(1, 110), None),
    ];
    for (claim, terms, rests) in cases {
        let mut zone = zone();
        step(&mut zone, None, &[place(9, buy(5, 90)), place(2, sell(5, 110)), place(3, sell(5, 70))]);
        let outcome = step(&mut zone, Some(at(100, 75, 130)), &[place(9, terms)]);
        assert_eq!(zone.order(M, id(2, 0)).map(|order| order.terms.limit.0), rests, "{claim}");
        let slid = rests.filter(|limit| *limit != terms.limit.0);
        let expected: Vec<_> =
            slid.map(|limit| Slide { order: id(2, 0), limit: PriceTicks(limit) }).into_iter().collect();
        assert_eq!(
            outcome.markets.iter().flat_map(|m| m.slides.clone()).collect::<Vec<_>>(),
            expected,
            "{claim}"
        );
        if terms.kind == Kind::Limit {
            assert_eq!(price(&outcome), Some(110), "{claim}");
        } else if rests.is_none() {
            assert_eq!(ends(&outcome), [(id(2, 0), EndReason::PostOnlyWouldTake, 1)], "{claim}");
        }
    }
}

#[test]
fn post_only_orders_of_one_auction_trade_with_each_other_and_with_new_ones() {
    let mut zone = zone();
    let post = |terms| of_kind(Kind::PostOnly(OnCross::Cancel), terms);
    let outcome =
        step(&mut zone, Some(wide(100)), &[place(1, post(buy(3, 105))), place(2, post(sell(3, 95)))]);
    assert_eq!((price(&outcome), fills(&outcome).len()), (Some(100), 2));
}

#[test]
fn a_post_only_order_that_has_nowhere_to_slide_is_cancelled() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, sell(5, 1))]);
    let outcome = step(&mut zone, None, &[place(2, of_kind(Kind::PostOnly(OnCross::Slide), buy(5, 4)))]);
    assert_eq!(ends(&outcome), [(id(2, 0), EndReason::PostOnlyWouldTake, 5)]);
    let mut zone = self::zone();
    step(&mut zone, None, &[place(1, buy(5, MAX_PRICE_TICKS))]);
    let outcome = step(&mut zone, None, &[place(2, of_kind(Kind::PostOnly(OnCross::Slide), sell(5, 4)))]);
    assert_eq!(ends(&outcome), [(id(2, 0), EndReason::PostOnlyWouldTake, 5)]);
}

#[test]
fn a_market_without_a_fresh_mark_cancels_and_rests_and_does_not_trade() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, buy(5, 110)), place(1, buy(5, 109))]);
    let asked = [
        place(2, sell(5, 100)),
        place(3, of_kind(Kind::Ioc, sell(5, 100))),
        place(4, of_kind(Kind::Liquidation, sell(5, 100))),
        (1, Request::Cancel { market: M, order: named(id(1, 1)) }),
    ];
    let outcome = step(&mut zone, None, &asked);
    assert_eq!(price(&outcome), None);
    assert_eq!(
        ends(&outcome),
        [
            (id(1, 1), EndReason::Cancelled, 5),
            (id(2, 1), EndReason::IocRemainder, 5),
            (id(2, 2), EndReason::IocRemainder, 5)
        ]
    );
    assert_eq!(open(&zone), [(id(1, 0), 5), (id(2, 0), 5)]);
    // Back again, what crossed meanwhile trades.
    assert_eq!(price(&step(&mut zone, Some(wide(100)), &[])), Some(100));
}

#[test]
fn an_order_takes_part_up_to_its_good_til_height() {
    let mut zone = zone();
    let until = |height, terms| Terms { good_til: Some(Height(height)), ..terms };
    let asked =
        [place(1, until(2, buy(5, 100))), place(1, until(1, buy(5, 99))), place(1, until(0, buy(5, 98)))];
    let outcome = step(&mut zone, Some(wide(100)), &asked);
    assert_eq!(ends(&outcome), [(id(1, 2), EndReason::Expired, 5)]);
    let outcome = step(&mut zone, Some(wide(100)), &[place(2, sell(2, 1))]);
    assert_eq!(ends(&outcome), [(id(1, 1), EndReason::Expired, 5), (id(2, 0), EndReason::Filled, 0)]);
    let outcome = step(&mut zone, None, &[]);
    assert_eq!(ends(&outcome), [(id(1, 0), EndReason::Expired, 3)]);
}

// ---------------------------------------------------------------------------------------------
// Self-crossing

#[test]
fn self_crossing_quantity_is_cancelled_on_both_sides_newest_first() {
    type Own = &'static [(Side, i64, u64)];
    use Side::{Buy, Sell};
    // Placed in this sequence by one account; then what is left of each.
    let cases: [(&str, Own, &[i64]); 7] = [
        ("what does not cross stays", &[(Buy, 5, 99), (Sell, 5, 100)], &[5, 5]),
        ("the smaller size is lost by both", &[(Buy, 10, 100), (Sell, 4, 99)], &[6, 0]),
        ("whichever came first", &[(Sell, 4, 99), (Buy, 10, 100)], &[0, 6]),
        ("the newest of several goes first", &[(Buy, 5, 100), (Buy, 5, 100), (Sell, 7, 100)], &[3, 0, 0]),
        ("at any price", &[(Buy, 5, 110), (Buy, 5, 101), (Sell, 7, 100)], &[3, 0, 0]),
        (
            "an order that crosses nothing is not touched",
            &[(Buy, 5, 110), (Buy, 5, 99), (Sell, 7, 100)],
            &[0, 5, 2],
        ),
        (
            "the newest looks for partners before older ones do",
            &[(Buy, 3, 105), (Sell, 3, 100), (Buy, 3, 103)],
            &[3, 0, 0],
        ),
    ];
    for (claim, own, left) in cases {
        for carried in [false, true] {
            let mut zone = zone();
            let asked: Vec<Asked> =
                own.iter().map(|(side, lots, limit)| place(1, terms(*side, *lots, *limit))).collect();
            // The same whether they arrive together or crossed already while there was no auction.
            let first = step(&mut zone, Some(wide(100)).filter(|_| !carried), &asked);
            let outcome = if carried { step(&mut zone, Some(wide(100)), &[]) } else { first };
            let rest: Vec<i64> = (0..own.len() as u32)
                .map(|index| zone.order(M, id(1, index)).map_or(0, |order| order.terms.lots.0))
                .collect();
            assert_eq!(rest, left, "{claim}");
            assert_eq!(price(&outcome), None, "{claim}");
            for (at, (_, lots, _)) in own.iter().enumerate() {
                let order = id(1, at as u32);
                let cut = cuts(&outcome).contains(&(order, CutReason::SelfCross, lots - left[at]));
                let end = ends(&outcome).contains(&(order, EndReason::SelfCross, *lots));
                assert_eq!((cut, end), (left[at] != 0 && left[at] != *lots, left[at] == 0), "{claim}");
            }
        }
    }
}

#[test]
fn orders_yield_whole_to_a_liquidation_close_of_their_account() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, buy(9, 100)), place(1, buy(9, 97)), place(2, buy(3, 99))]);
    let close = of_kind(Kind::Liquidation, sell(4, 98));
    let outcome = step(&mut zone, Some(wide(98)), &[place(1, close), place(1, sell(1, 97))]);
    assert_eq!((price(&outcome), fills(&outcome)), (Some(98), vec![(id(1, 2), 3), (id(2, 0), 3)]));
    assert_eq!(
        ends(&outcome),
        [
            (id(1, 0), EndReason::SelfCross, 9),
            (id(1, 2), EndReason::Filled, 0),
            (id(2, 0), EndReason::IocRemainder, 1),
            (id(2, 1), EndReason::SelfCross, 1)
        ]
    );
    assert_eq!(cuts(&outcome), [(id(1, 1), CutReason::SelfCross, 1)]);
}

#[test]
fn accounts_cross_each_other_and_not_themselves() {
    let mut zone = zone();
    let asked =
        [place(1, buy(5, 101)), place(1, sell(5, 100)), place(2, buy(5, 101)), place(3, sell(5, 100))];
    let outcome = step(&mut zone, Some(wide(100)), &asked);
    assert_eq!(fills(&outcome), [(id(1, 2), 5), (id(1, 3), 5)]);
    assert_eq!(
        ends(&outcome)[..2],
        [(id(1, 0), EndReason::SelfCross, 5), (id(1, 1), EndReason::SelfCross, 5)]
    );
}

// ---------------------------------------------------------------------------------------------
// Cancels, modifications, reductions

#[test]
fn cancels_find_by_id_by_cloid_and_all_and_only_own_orders() {
    let mut zone = zone();
    let with = |cloid, terms| Terms { cloid: Some(Cloid(cloid)), ..terms };
    let other = |terms| Terms { market: MarketId(1), ..terms };
    let reduce = |terms| Terms { reduce_only: true, ..terms };
    let placed = [
        place(1, with(4, buy(1, 10))),
        place(2, with(4, buy(1, 10))),
        place(1, reduce(buy(1, 11))),
        place(1, other(buy(1, 12))),
        place(2, buy(1, 13)),
    ];
    let cancel = |account, order| (account, Request::Cancel { market: M, order });
    let all = |account, market, keep_reduce_only| (account, Request::CancelAll { market, keep_reduce_only });
    let cases: [(&str, Asked, &[u32]); 8] = [
        ("by id", cancel(1, named(id(1, 0))), &[1, 2, 4, 3]),
        ("not another account's", cancel(1, named(id(1, 4))), &[0, 1, 2, 4, 3]),
        ("not in another market", cancel(1, named(id(1, 3))), &[0, 1, 2, 4, 3]),
        ("by cloid, which is the account's own", cancel(2, Name::Cloid(Cloid(4))), &[0, 2, 4, 3]),
        ("all", all(1, None, false), &[1, 4]),
        ("all of one market", all(1, Some(M), false), &[1, 4, 3]),
        ("all but closes", all(1, None, true), &[1, 2, 4]),
        ("nothing there", all(5, None, false), &[0, 1, 2, 4, 3]),
    ];
    step(&mut zone, None, &placed);
    for (claim, asked, left) in cases {
        let mut zone = zone.clone();
        step(&mut zone, None, &[asked]);
        assert_eq!(zone.orders().map(|order| order.id.index).collect::<Vec<_>>(), left, "{claim}");
    }
}

#[test]
fn a_cancel_finds_what_came_before_it_in_its_inbox_and_not_what_came_after() {
    let mut zone = zone();
    let all = (1, Request::CancelAll { market: None, keep_reduce_only: false });
    let outcome = step(&mut zone, Some(wide(100)), &[place(1, buy(1, 10)), all, place(1, buy(1, 11))]);
    assert_eq!(ends(&outcome), [(id(1, 0), EndReason::Cancelled, 1)]);
    assert_eq!(open(&zone), [(id(1, 2), 1)]);
}

#[test]
fn a_liquidation_close_is_nobodys_to_end() {
    let mut zone = zone();
    let close = Terms { cloid: Some(Cloid(1)), ..of_kind(Kind::Liquidation, sell(5, 1)) };
    let asked = [
        place(1, close),
        (1, Request::CancelAll { market: None, keep_reduce_only: false }),
        (1, Request::Cancel { market: M, order: Name::Cloid(Cloid(1)) }),
        (1, Request::Modify { market: M, order: named(id(1, 0)), limit: PriceTicks(9), lots: Lots(1) }),
        (1, Request::Reduce { market: M, order: id(1, 0), by: Lots(1) }),
        place(2, buy(5, 100)),
    ];
    let outcome = step(&mut zone, Some(wide(100)), &asked);
    assert_eq!(fills(&outcome), [(id(1, 0), 5), (id(1, 5), 5)]);
}

#[test]
fn a_modification_keeps_priority_only_if_it_just_reduces() {
    let modify = |limit, lots| {
        (1, Request::Modify { market: M, order: named(id(1, 0)), limit: PriceTicks(limit), lots: Lots(lots) })
    };
    let merged = (id(2, 0), EndReason::Merged);
    let replaced = (id(1, 0), EndReason::Replaced);
    type Case = (&'static str, Asked, (OrderId, EndReason), Option<i64>, OrderId, i64);
    let cases: [Case; 5] = [
        ("fewer lots", modify(100, 3), merged, Some(5), id(1, 0), 3),
        ("as many lots", modify(100, 8), merged, None, id(1, 0), 8),
        ("more lots", modify(100, 9), replaced, None, id(2, 0), 9),
        ("a better price", modify(101, 3), replaced, None, id(2, 0), 3),
        ("a worse price", modify(99, 8), replaced, None, id(2, 0), 8),
    ];
    for (claim, asked, end, cut, order, lots) in cases {
        let mut zone = zone();
        step(&mut zone, None, &[place(1, Terms { cloid: Some(Cloid(3)), ..buy(8, 100) })]);
        let outcome = step(&mut zone, Some(wide(100)), &[asked]);
        let (ended, reason, _) = ends(&outcome)[0];
        assert_eq!((ended, reason), end, "{claim}");
        let expected: Vec<_> = cut.map(|lots| (id(1, 0), CutReason::Modified, lots)).into_iter().collect();
        assert_eq!(cuts(&outcome), expected, "{claim}");
        assert_eq!(open(&zone), [(order, lots)], "{claim}");
        assert_eq!(zone.order(M, order).unwrap().terms.cloid, Some(Cloid(3)), "{claim}");
    }
}

#[test]
fn a_modification_that_finds_nothing_or_asks_for_too_little_changes_nothing() {
    let mut zone = Zone::new(params(5, 1000, 100)).unwrap();
    let modify = |order, lots| {
        (1, Request::Modify { market: M, order: named(order), limit: PriceTicks(90), lots: Lots(lots) })
    };
    step(&mut zone, None, &[place(1, buy(8, 100)), place(1, Terms { reduce_only: true, ..buy(2, 100) })]);
    let outcome = step(&mut zone, None, &[modify(id(1, 0), 4), modify(id(9, 9), 7), modify(id(1, 1), 1)]);
    assert_eq!(
        ends(&outcome),
        [
            (id(1, 1), EndReason::Replaced, 2),
            (id(2, 0), EndReason::BelowMinimum, 4),
            (id(2, 1), EndReason::NotFound, 7)
        ]
    );
    assert_eq!(open(&zone), [(id(1, 0), 8), (id(2, 2), 1)]);
}

#[test]
fn settlement_takes_lots_back_by_as_many_as_it_says() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, buy(8, 100)), place(1, buy(8, 99))]);
    let reduce = |order, by| (1, Request::Reduce { market: M, order, by: Lots(by) });
    let asked = [reduce(id(1, 0), 3), reduce(id(1, 0), 2), reduce(id(1, 1), 9), reduce(id(7, 7), 1)];
    let outcome = step(&mut zone, None, &asked);
    assert_eq!(cuts(&outcome), [(id(1, 0), CutReason::Reduced, 5)]);
    assert_eq!(ends(&outcome), [(id(1, 1), EndReason::Reduced, 8)]);
    assert_eq!(open(&zone), [(id(1, 0), 3)]);
}

// ---------------------------------------------------------------------------------------------
// Bounds

#[test]
fn what_is_too_small_too_many_or_named_twice_is_refused_by_name() {
    let mut zone = Zone::new(params(5, 1000, 2)).unwrap();
    let with = |cloid, terms| Terms { cloid: Some(Cloid(cloid)), ..terms };
    let ioc = |terms| of_kind(Kind::Ioc, terms);
    let asked = [
        place(1, buy(4, 10)),
        place(1, Terms { reduce_only: true, ..with(1, buy(1, 10)) }),
        place(1, with(1, buy(5, 10))),
        place(1, Terms { market: MarketId(1), ..with(1, buy(5, 10)) }),
        place(1, buy(5, 10)),
        place(1, buy(5, 10)),
        // IOCs count apart from what rests, and have the same cap.
        place(1, ioc(buy(5, 11))),
        place(1, ioc(buy(5, 11))),
        place(1, ioc(buy(5, 11))),
        // Closes in a breach have no cap and no minimum.
        place(1, of_kind(Kind::Liquidation, buy(1, 10))),
        place(2, sell(11, 10)),
    ];
    let outcome = step(&mut zone, Some(wide(10)), &asked);
    let refused: Vec<_> = ends(&outcome)
        .into_iter()
        .filter(|(_, reason, _)| *reason != EndReason::Filled)
        .map(|(id, reason, _)| (id.index, reason))
        .collect();
    assert_eq!(
        refused,
        [
            (0, EndReason::BelowMinimum),
            (2, EndReason::DuplicateCloid),
            (5, EndReason::TooManyOpen),
            (8, EndReason::TooManyOpen)
        ]
    );
    // A client id is free again once its order has ended.
    let all = (1, Request::CancelAll { market: None, keep_reduce_only: false });
    let outcome = step(&mut zone, None, &[all, place(1, with(1, buy(5, 10)))]);
    assert!(ends(&outcome).iter().all(|(_, reason, _)| *reason == EndReason::Cancelled));
    assert_eq!(zone.orders_of(M, AccountId(1)).map(|order| order.id).collect::<Vec<_>>(), [id(2, 1)]);
}

#[test]
fn a_full_market_draws_who_gets_in_closes_first_and_immediate_orders_need_no_room() {
    let mut winners = BTreeSet::new();
    for salt in 0..32 {
        let mut zone = Zone::new(params(1, 3, 100)).unwrap();
        step(&mut zone, None, &[place(9, buy(5, 10))]);
        let close = Terms { reduce_only: true, ..sell(1, 20) };
        let asked = [
            place(1, sell(1, 20)),
            place(2, sell(1, 20)),
            place(3, sell(1, 20)),
            place(4, close),
            place(5, of_kind(Kind::Ioc, sell(5, 10))),
        ];
        let outcome = zone.apply(&inbox(2, salt, Some(wide(15)), &asked)).unwrap();
        assert_eq!(price(&outcome), Some(10));
        let full: Vec<_> = ends(&outcome).into_iter().filter(|end| end.1 == EndReason::MarketFull).collect();
        assert_eq!(full.len(), 2);
        assert!(zone.order(M, id(2, 3)).is_some());
        winners.extend((0..3).filter(|index| zone.order(M, id(2, *index)).is_some()));
    }
    assert_eq!(winners, BTreeSet::from([0, 1, 2]));
}

#[test]
fn an_inbox_that_settlement_cannot_have_made_is_refused_and_changes_nothing() {
    let mut zone = zone();
    step(&mut zone, None, &[place(1, buy(5, 10))]);
    let ask = |request| inbox(2, 0, Some(wide(10)), &[place(1, buy(5, 10)), (1, request)]);
    let modify = |limit, lots| Request::Modify { market: M, order: named(id(1, 0)), limit, lots };
    let away = Request::Place(Terms { market: MarketId(5), ..buy(1, 1) });
    let mut crowd = inbox(2, 0, None, &[]);
    let entry =
        Entry { account: AccountId(1), request: Request::CancelAll { market: None, keep_reduce_only: true } };
    let many = limits::MAX_ENTRIES_PER_INBOX as u32 + 1;
    crowd.entries = (0..many).map(|index| (index, entry)).collect();
    let mut elsewhere = inbox(2, 0, None, &[]);
    elsewhere.references.insert(MarketId(7), wide(10));
    let reference = |reference| inbox(2, 0, Some(reference), &[]);
    let height = |height| InboxError::Height { height: Height(height), applied: Height(1) };
    let cases = [
        (inbox(1, 0, None, &[]), height(1)),
        (inbox(0, 0, None, &[]), height(0)),
        (crowd, InboxError::TooManyEntries(many as usize)),
        (elsewhere, InboxError::UnknownMarket(MarketId(7))),
        (ask(away), InboxError::UnknownMarket(MarketId(5))),
        (reference(at(0, 1, 2)), InboxError::BadReference(M)),
        (reference(at(1, 0, 2)), InboxError::BadReference(M)),
        (reference(at(1, 3, 2)), InboxError::BadReference(M)),
        (reference(at(1, 1, MAX_PRICE_TICKS + 1)), InboxError::BadReference(M)),
        (ask(Request::Place(buy(0, 1))), InboxError::OutOfRange(1)),
        (ask(Request::Place(buy(-1, 1))), InboxError::OutOfRange(1)),
        (ask(Request::Place(buy(MAX_LOTS + 1, 1))), InboxError::OutOfRange(1)),
        (ask(Request::Place(buy(1, 0))), InboxError::OutOfRange(1)),
        (ask(Request::Place(buy(1, MAX_PRICE_TICKS + 1))), InboxError::OutOfRange(1)),
        (ask(modify(PriceTicks(0), Lots(1))), InboxError::OutOfRange(1)),
        (ask(modify(PriceTicks(1), Lots(0))), InboxError::OutOfRange(1)),
        (ask(Request::Reduce { market: M, order: id(1, 0), by: Lots(0) }), InboxError::OutOfRange(1)),
    ];
    let before = zone.clone();
    for (inbox, error) in cases {
        assert_eq!(zone.apply(&inbox), Err(error));
        assert_eq!(zone, before);
    }
}

#[test]
fn orders_that_no_zone_holds_are_refused() {
    let order = |index, terms| Order { id: id(3, index), account: AccountId(1), terms };
    let good = order(0, Terms { cloid: Some(Cloid(1)), ..buy(5, 10) });
    let restore = |orders: &[Order]| Zone::from_orders(params(1, 2, 2), Height(3), orders.iter().copied());
    assert_eq!(restore(&[good]).map(|zone| zone.orders().copied().collect::<Vec<_>>()), Ok(vec![good]));
    let bad = [
        good,
        order(1, Terms { cloid: Some(Cloid(1)), ..buy(5, 10) }),
        order(1, buy(0, 10)),
        order(1, buy(5, 0)),
        order(1, of_kind(Kind::Ioc, buy(5, 10))),
        order(1, of_kind(Kind::Liquidation, buy(5, 10))),
        order(1, Terms { market: MarketId(3), ..buy(5, 10) }),
        order(1, Terms { good_til: Some(Height(2)), ..buy(5, 10) }),
        Order { id: id(4, 0), ..order(1, buy(5, 10)) },
    ];
    for bad in bad {
        assert_eq!(restore(&[good, bad]), Err(RestoreError::Order(bad.id)), "{bad:?}");
    }
    let third = order(2, buy(5, 10));
    assert_eq!(restore(&[good, order(1, buy(5, 10)), third]), Err(RestoreError::Order(third.id)));
    let third = Order { account: AccountId(2), ..third };
    assert_eq!(restore(&[good, order(1, buy(5, 10)), third]), Err(RestoreError::Order(third.id)));
}

#[test]
fn parameters_out_of_their_range_are_refused() {
    let good = params(1, 10, 10);
    assert!(Zone::new(good.clone()).is_ok());
    let with = |min_lots, max_orders| {
        let mut params = good.clone();
        params.markets.insert(M, MarketParams { min_lots: Lots(min_lots), max_orders });
        Zone::new(params).map(|_| ())
    };
    for (min_lots, max_orders) in
        [(0, 10), (-1, 10), (MAX_LOTS + 1, 10), (1, 0), (1, limits::MAX_ORDERS_PER_MARKET + 1)]
    {
        assert_eq!(with(min_lots, max_orders), Err(ParamsError::Market(M)));
    }
    for cap in [0, limits::MAX_ORDERS_PER_ACCOUNT + 1] {
        let params = Params { max_orders_per_account: cap, ..good.clone() };
        assert_eq!(Zone::new(params), Err(ParamsError::AccountCap));
    }
    let market = good.markets[&M];
    let markets = (0..257).map(|id| (MarketId(id), market)).collect();
    assert_eq!(Zone::new(Params { markets, ..good }), Err(ParamsError::TooManyMarkets));
}

// ---------------------------------------------------------------------------------------------
// Display

#[test]
fn levels_are_shown_from_the_best() {
    let mut zone = zone();
    let asked = [
        place(1, buy(5, 10)),
        place(2, buy(6, 10)),
        place(3, buy(1, 12)),
        place(4, sell(2, 20)),
        place(5, sell(3, 15)),
    ];
    step(&mut zone, Some(wide(13)), &asked);
    let level = |price, lots, orders| Level { price: PriceTicks(price), lots: Lots(lots), orders };
    let levels = zone.levels(M, 2).unwrap();
    assert_eq!(levels.bids, [level(12, 1, 1), level(10, 11, 2)]);
    assert_eq!(levels.asks, [level(15, 3, 1), level(20, 2, 1)]);
    assert_eq!(zone.levels(M, 1).unwrap().bids, [level(12, 1, 1)]);
    assert_eq!(zone.levels(MarketId(9), 1), None);
    assert_eq!(zone.indicative(MarketId(9), &wide(10)), None);
}

// ---------------------------------------------------------------------------------------------
// Checks

#[test]
fn every_fault_is_found_and_named() {
    let mut zone = zone();
    let slide = Kind::PostOnly(OnCross::Slide);
    let mut known: BTreeMap<OrderId, Order> = BTreeMap::new();
    let first = [place(1, sell(5, 100)), place(2, sell(5, 101)), place(6, buy(2, 50))];
    step(&mut zone, None, &first);
    known.extend(zone.orders().map(|order| (order.id, *order)));
    let asked = [
        place(3, buy(7, 101)),
        place(4, of_kind(slide, buy(1, 300))),
        place(5, of_kind(Kind::Ioc, buy(1, 90))),
        (6, Request::Reduce { market: M, order: id(1, 2), by: Lots(1) }),
    ];
    let inbox = inbox(2, 7, Some(at(100, 60, 200)), &asked);
    for (index, (account, request)) in (0..).zip(&asked) {
        if let Request::Place(terms) = request {
            let order = Order { id: id(2, index), account: AccountId(*account), terms: *terms };
            known.insert(order.id, order);
        }
    }
    let good = zone.apply(&inbox).unwrap();
    let check = |outcome: &Outcome| outcome.check(|id| known.get(&id).copied(), &inbox.references);
    assert_eq!(check(&good), Ok(()));
    assert_eq!(good.markets[0].price, Some(PriceTicks(101)));

    type Damage = fn(&mut Outcome);
    let cases: [(Fault, Damage); 24] = [
        (Fault::Markets, |o| o.markets.push(o.markets[0].clone())),
        (Fault::NotCanonical(M), |o| o.markets[0].fills.reverse()),
        (Fault::NotCanonical(M), |o| {
            let fill = o.markets[0].fills[0];
            o.markets[0].fills.insert(0, fill);
        }),
        (Fault::NotCanonical(M), |o| {
            o.markets[0] = seawall_market::MarketOutcome {
                market: M,
                price: None,
                fills: vec![],
                cuts: vec![],
                ends: vec![],
                slides: vec![],
            }
        }),
        (Fault::OutOfRange(id(1, 0)), |o| o.markets[0].fills[0].lots = Lots(0)),
        (Fault::OutOfRange(id(1, 0)), |o| o.markets[0].fills[0].lots = Lots(-5)),
        (Fault::OutOfRange(id(1, 2)), |o| o.markets[0].cuts[0].lots = Lots(MAX_LOTS + 1)),
        (Fault::OutOfRange(id(2, 2)), |o| o.markets[0].ends[2].reason = EndReason::Filled),
        (Fault::PriceWithoutFills(M), |o| o.markets[0].price = None),
        (Fault::PriceWithoutFills(M), |o| o.markets[0].price = Some(PriceTicks(0))),
        (Fault::PriceWithoutFills(M), |o| o.markets[0].fills.clear()),
        (Fault::OutsideBand(M), |o| o.markets[0].price = Some(PriceTicks(201))),
        (Fault::UnknownOrder(id(2, 3)), |o| o.markets[0].fills[2].order = id(2, 3)),
        (Fault::NoAuction(MarketId(1)), |o| o.markets[0].market = MarketId(1)),
        (Fault::WrongFill(id(1, 0)), |o| o.markets[0].fills[0].account = AccountId(9)),
        (Fault::WrongFill(id(1, 0)), |o| o.markets[0].fills[0].maker = false),
        (Fault::WrongFill(id(2, 0)), |o| o.markets[0].fills[2].side = Side::Sell),
        (Fault::BeyondLimit(id(1, 1)), |o| o.markets[0].price = Some(PriceTicks(100))),
        (Fault::BeyondLimit(id(2, 0)), |o| o.markets[0].price = Some(PriceTicks(102))),
        (Fault::TooManyLots(id(1, 0)), |o| o.markets[0].fills[0].lots = Lots(6)),
        (Fault::TooManyLots(id(1, 2)), |o| o.markets[0].cuts[0].lots = Lots(3)),
        (Fault::WrongEnd(id(2, 2)), |o| o.markets[0].ends[2].lots = Lots(2)),
        (Fault::WrongSlide(id(2, 1)), |o| o.markets[0].slides[0].limit = PriceTicks(300)),
        (Fault::Unbalanced(M), |o| o.markets[0].fills[1].lots = Lots(1)),
    ];
    assert_eq!(good.markets[0].cuts, [Cut { order: id(1, 2), reason: CutReason::Reduced, lots: Lots(1) }]);
    assert_eq!(
        good.markets[0].ends[2],
        End { order: id(2, 2), reason: EndReason::IocRemainder, lots: Lots(1) }
    );
    for (at, (fault, damage)) in cases.into_iter().enumerate() {
        let mut outcome = good.clone();
        damage(&mut outcome);
        assert_eq!(check(&outcome), Err(fault), "case {at}");
    }
    // An order with nothing left that goes on, and an immediate one that does.
    let mut outcome = good.clone();
    outcome.markets[0].ends.remove(0);
    assert_eq!(check(&outcome), Err(Fault::WrongEnd(id(1, 0))));
    let mut outcome = good;
    outcome.markets[0].ends.pop();
    outcome.markets[0].cuts.push(Cut { order: id(2, 2), reason: CutReason::Modified, lots: Lots(1) });
    assert_eq!(check(&outcome), Err(Fault::WrongEnd(id(2, 2))));
}

// ---------------------------------------------------------------------------------------------
// The tests themselves

#[test]
fn the_histories_that_are_drawn_reach_every_reason() {
    let mut runner = TestRunner::deterministic();
    let strategy = history(6);
    let (mut reached, mut cut, mut slides, mut makers, mut shared) =
        (BTreeMap::new(), BTreeMap::new(), 0, 0, 0);
    for round in 0..400 {
        let inboxes = strategy.new_tree(&mut runner).unwrap().current();
        let params = if round % 2 == 0 { params(3, 7, 3) } else { params(1, 1000, 100) };
        let mut zone = Zone::new(params).unwrap();
        for inbox in &inboxes {
            let outcome = zone.apply(inbox).unwrap();
            for market in outcome.markets {
                market.ends.iter().for_each(|end| *reached.entry(end.reason).or_insert(0) += 1);
                market.cuts.iter().for_each(|own| *cut.entry(own.reason).or_insert(0) += 1);
                slides += market.slides.len();
                makers += market.fills.iter().filter(|fill| fill.maker).count();
                let partial = |fill: &&seawall_market::Fill| zone.order(market.market, fill.order).is_some();
                shared += usize::from(market.fills.iter().filter(partial).count() > 1);
            }
        }
    }
    let least = |counts: &[usize]| counts.iter().copied().min().unwrap_or(0);
    assert_eq!(reached.len(), 14, "{reached:?}");
    assert_eq!(cut.len(), 3, "{cut:?}");
    let counts: Vec<usize> =
        reached.values().chain(cut.values()).copied().chain([slides, makers, shared]).collect();
    assert!(least(&counts) >= 10, "{reached:?} {cut:?} {slides} {makers} {shared}");
}
