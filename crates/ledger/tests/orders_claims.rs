//! Claims about orders, one by one; and the reservation against every way in which orders can fill.

mod common;

use common::{
    ALICE, BOB, BTC, Chain, PRICE, close, fresh, market, nothing, order, order_params as params, tier,
    trades, users,
};
use proptest::prelude::*;
use seawall_ledger::*;
use seawall_types::*;

type Records = Vec<(RecordKey, Record)>;

#[test]
fn an_order_reserves_until_its_cancel_is_settled_and_fills_on_the_way_count() {
    let mut chain = Chain::new(10_000_000);
    let buy = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 20));
    let sell = chain.place(BOB, order(BTC, Side::Sell, PRICE, 5));
    let reserved = chain.account(ALICE).reserved;
    assert!(reserved > Atoms::ZERO);
    chain.next(PRICE);
    let cancel = Action::Cancel { market: BTC, order: Name::Id(buy) };
    assert_eq!(chain.apply(ALICE, cancel.clone()), Ok(Receipt::Cancelling { orders: 1 }));
    assert_eq!(chain.apply(ALICE, cancel), Err(Refusal::UnknownOrder), "it is on its way out");
    assert_eq!(chain.account(ALICE).reserved, reserved, "the auction before can still fill it");
    chain.next(PRICE);
    let filled =
        trades(1, BTC, PRICE, &[(buy, ALICE, Side::Buy, 5, false), (sell, BOB, Side::Sell, 5, true)]);
    let report = chain.ledger.settle(0, &filled).unwrap();
    assert_eq!(report.fills.len(), 2);
    assert_eq!((chain.lots(ALICE), chain.lots(BOB)), (5, -5));
    let fee = kernel::fee(5 * PRICE as i128, 500);
    assert_eq!(
        chain.account(ALICE).collateral,
        Atoms(10_000_000 - fee),
        "both arrived in this auction: takers"
    );
    assert!(chain.account(ALICE).reserved > Atoms::ZERO);
    let mut cancelled = nothing(2);
    cancelled.markets.push(MarketOutcome {
        price: None,
        fills: Vec::new(),
        ends: vec![End { order: buy, reason: EndReason::Cancelled, lots: Lots(15) }],
        ..filled.markets[0].clone()
    });
    chain.ledger.settle(0, &cancelled).unwrap();
    assert_eq!(chain.account(ALICE).reserved, Atoms::ZERO);
    assert_eq!(chain.ledger.next_part(0), None, "without orders there are no inboxes");
    chain.next(PRICE);
    chain.end();
    let delta = chain.delta.as_ref().unwrap();
    assert!(delta.changes.iter().all(|(key, ..)| *key <= RecordKey::Exit(u64::MAX)), "{:?}", delta.changes);
}

#[test]
fn what_is_wrong_with_an_outcome_is_named_and_changes_nothing() {
    let mut chain = Chain::new(10_000_000);
    let buy = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 20));
    let sell = chain.place(BOB, Terms { kind: Kind::Ioc, ..order(BTC, Side::Sell, PRICE, 20) });
    chain.place(BOB, order(MarketId(1), Side::Sell, 3_000, 2));
    chain.next(PRICE);
    chain.place(ALICE, order(BTC, Side::Buy, PRICE, 1));
    chain.next(PRICE);
    let pair = |bought: i64, sold: i64| {
        [(buy, ALICE, Side::Buy, bought, false), (sell, BOB, Side::Sell, sold, sold == 20)]
    };
    let good = trades(1, BTC, PRICE, &[(buy, ALICE, Side::Buy, 20, true), (sell, BOB, Side::Sell, 20, true)]);
    let with = |change: &dyn Fn(&mut Outcome)| {
        let mut outcome = good.clone();
        change(&mut outcome);
        outcome
    };
    let outside = PRICE * 103 / 100;
    let cases: Vec<(&str, u8, Outcome, SettleFault)> = vec![
        ("a zone without inboxes", 7, good.clone(), SettleFault::Nothing(7)),
        ("a later height", 0, nothing(2), SettleFault::NotNext(Height(1))),
        ("a height without an inbox", 0, nothing(9), SettleFault::NotNext(Height(1))),
        ("a later part", 0, with(&|own| own.part = 1), SettleFault::NotNextPart(0)),
        ("a market of another zone", 1, good.clone(), SettleFault::ForeignMarket(BTC)),
        (
            "a price outside the band",
            0,
            trades(1, BTC, outside, &pair(20, 20)),
            Fault::OutsideBand(BTC).into(),
        ),
        ("beyond the limit", 0, trades(1, BTC, PRICE + 1, &pair(20, 20)), Fault::BeyondLimit(buy).into()),
        ("beyond open lots", 0, trades(1, BTC, PRICE, &pair(21, 20)), Fault::TooManyLots(buy).into()),
        ("bought is not sold", 0, trades(1, BTC, PRICE, &pair(19, 20)), Fault::Unbalanced(BTC).into()),
        (
            "an immediate order that goes on",
            0,
            trades(1, BTC, PRICE, &pair(10, 10)),
            Fault::WrongEnd(sell).into(),
        ),
        ("an immediate order that is not named", 0, nothing(1), SettleFault::GoesOn(sell)),
        (
            "somebody else's fill",
            0,
            with(&|own| own.markets[0].fills[0].account = BOB),
            Fault::WrongFill(buy).into(),
        ),
        (
            "an order that is not known",
            0,
            with(&|own| own.markets[0].fills[0].order = OrderId { height: Height(0), index: 0 }),
            Fault::UnknownOrder(OrderId { height: Height(0), index: 0 }).into(),
        ),
    ];
    let before: Vec<_> = chain.ledger.records().collect();
    for (claim, zone, outcome, fault) in cases {
        assert_eq!(chain.ledger.settle(zone, &outcome), Err(fault), "{claim}");
        assert_eq!(chain.ledger.records().collect::<Vec<_>>(), before, "{claim}");
    }
    assert_eq!(chain.ledger.void_overdue(), [], "not old enough");
    assert!(chain.ledger.settle(0, &good).is_ok());
    assert_eq!(chain.ledger.settle(0, &good), Err(SettleFault::NotNext(Height(2))), "each height ends once");
}

#[test]
fn more_records_than_a_block_may_settle_wait() {
    let mut params = params();
    params.markets.truncate(1);
    params.markets[0].orders.max_records = 4;
    let mut chain = Chain::new(10_000_000);
    chain.ledger = Ledger::genesis(&params, TimeMs(1), users(6, 10_000_000)).unwrap();
    chain.ledger.begin_block(Height(1), TimeMs(2));
    chain.ledger.set_marks(&[(BTC, fresh(PRICE))]);
    let orders: Vec<_> = (0..5).map(|_| chain.place(ALICE, order(BTC, Side::Buy, PRICE, 1))).collect();
    chain.end();
    chain.ledger.begin_block(Height(2), TimeMs(3));
    let ends =
        orders.iter().map(|id| End { order: *id, reason: EndReason::MarketFull, lots: Lots(1) }).collect();
    let mut outcome = trades(1, BTC, PRICE, &[]);
    (outcome.markets[0].price, outcome.markets[0].ends) = (None, ends);
    assert_eq!(chain.ledger.settle(0, &outcome), Err(SettleFault::TooManyRecords(5)));
    let parts = outcome.split(4);
    assert!(chain.ledger.settle(0, &parts[0]).is_ok());
    assert_eq!(chain.ledger.settle(0, &parts[1]), Err(SettleFault::TooManyRecords(1)), "in this block");
    chain.end();
    chain.ledger.begin_block(Height(3), TimeMs(4));
    assert!(chain.ledger.settle(0, &parts[1]).is_ok());
    assert_eq!(chain.account(ALICE).reserved, Atoms::ZERO);
}

#[test]
fn a_void_inbox_ends_its_placements_keeps_its_cancels_and_takes_later_ones_with_it() {
    let mut chain = Chain::new(10_000_000);
    let rests = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 2));
    let gone = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 3));
    chain.next(PRICE);
    chain.ledger.settle(0, &nothing(1)).unwrap();
    chain.apply(ALICE, Action::Cancel { market: BTC, order: Name::Id(gone) }).unwrap();
    let new = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 4));
    chain.next(PRICE);
    let later = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 5));
    chain.next(PRICE);
    assert_eq!(chain.ledger.void_overdue(), vec![]);
    chain.next(PRICE);
    assert_eq!(chain.ledger.settle(0, &nothing(2)), Err(SettleFault::Overdue));
    assert_eq!(chain.ledger.void_overdue(), [2, 3, 4].map(|height| (0, Height(height))));
    let open: Vec<_> = chain.ledger.orders_of(ALICE).map(|(id, _)| id).collect();
    assert_eq!(open, [rests]);
    assert!([new, later].iter().all(|id| chain.ledger.order(*id).is_none()));
    assert_eq!((chain.ledger.next_part(0), chain.ledger.last_void(0)), (None, Height(4)));
    assert_eq!(chain.ledger.resting(0).1.len(), 1, "what rested before");
    chain.end();
}

#[test]
fn where_available_is_below_zero_risk_leaves_before_any_liquidation_and_closes_stay() {
    let mut chain = Chain::new(1_200_000);
    chain.trade(ALICE, BOB, true, 200);
    let adds = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 100));
    let Ok(Receipt::Placed { order: closes }) = chain.apply(ALICE, Action::Close(close(Side::Sell, 200)))
    else {
        panic!("a close is placed")
    };
    chain.next(PRICE);
    assert_eq!(chain.ledger.sweep(&mut NoVenue).in_breach, 0);
    assert_eq!(chain.ledger.order(adds).unwrap().leaving, None);
    chain.next(PRICE * 95 / 100);
    assert_eq!(chain.ledger.sweep(&mut NoVenue).in_breach, 0, "nobody is liquidated");
    assert_eq!(chain.ledger.order(adds).unwrap().leaving, Some(Height(3)));
    assert_eq!(chain.ledger.order(closes).unwrap().leaving, None);
    let entries = |chain: &Chain| {
        let inbox = chain.ledger.inbox(0, Height(3)).unwrap();
        inbox.entries.into_values().map(|entry| (entry.account, entry.request)).collect::<Vec<_>>()
    };
    chain.next(PRICE);
    let cancel = Request::CancelAll { market: Some(BTC), keep_reduce_only: true };
    assert_eq!(entries(&chain), [(ALICE, cancel)]);
    chain.ledger.sweep(&mut NoVenue);
    chain.end();
}

#[test]
fn a_position_that_is_taken_over_takes_its_closes_on_the_way_with_it() {
    let mut chain = Chain::new(1_000_000);
    chain.ledger = Ledger::genesis(
        &params(),
        TimeMs(1),
        users(6, 0).enumerate().map(|(at, own)| GenesisAccount {
            collateral: Atoms(if at == 1 { 1_200_000 } else { 900_000_000 }),
            ..own
        }),
    )
    .unwrap();
    chain.begin(PRICE);
    chain.trade(ALICE, BOB, true, 200);
    let sell = chain.place(ALICE, close(Side::Sell, 200));
    let buy = chain.place(BOB, order(BTC, Side::Buy, PRICE, 200));
    chain.next(PRICE * 88 / 100);
    chain.ledger.sweep(&mut NoVenue);
    let backstop = chain.ledger.market(BTC).unwrap().backstop;
    assert_eq!((chain.lots(ALICE), chain.lots(backstop)), (0, 200), "the backstop took it over");
    assert_eq!(chain.ledger.order(sell).unwrap().leaving, Some(Height(2)), "what it closed is gone");
    chain.next(PRICE * 88 / 100);
    let filled =
        trades(1, BTC, PRICE, &[(sell, ALICE, Side::Sell, 200, true), (buy, BOB, Side::Buy, 200, true)]);
    let report = chain.ledger.settle(0, &filled).unwrap();
    assert_eq!(report.fills.iter().map(|fill| fill.carried.0).collect::<Vec<_>>(), [200, 0]);
    assert_eq!((chain.lots(ALICE), chain.lots(backstop), chain.lots(BOB)), (0, 0, 0), "nothing closes twice");
    chain.end();
}

#[test]
fn a_fill_is_settled_whatever_the_equity_and_the_sweep_of_the_block_follows() {
    let mut chain = Chain::new(900_000_000);
    chain
        .apply(ALICE, Action::Withdraw { amount: Atoms(899_000_000), recipient: Recipient::default() })
        .unwrap();
    let buy = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 300));
    let sell = chain.place(BOB, order(BTC, Side::Sell, PRICE, 300));
    chain.next(PRICE * 9 / 10);
    chain.ledger.sweep(&mut NoVenue);
    assert_eq!(chain.ledger.order(buy).unwrap().leaving, Some(Height(2)));
    chain.next(PRICE * 9 / 10);
    let filled =
        trades(1, BTC, PRICE, &[(buy, ALICE, Side::Buy, 300, true), (sell, BOB, Side::Sell, 300, true)]);
    chain.ledger.settle(0, &filled).unwrap();
    assert!(chain.ledger.health(ALICE).unwrap().equity < Atoms::ZERO);
    let report = chain.ledger.sweep(&mut NoVenue);
    assert_eq!((report.liquidations, chain.lots(ALICE)), (1, 0));
    chain.end();
}

#[test]
fn an_isolated_position_takes_its_margin_from_cross_when_it_is_filled() {
    let doge = MarketId(2);
    let mut chain = Chain::new(10_000_000);
    let buy = chain.place(ALICE, order(doge, Side::Buy, 700, 1_000));
    let sell = chain.place(BOB, order(doge, Side::Sell, 700, 1_000));
    let reserved = chain.account(ALICE).reserved;
    chain.next(PRICE);
    chain
        .ledger
        .settle(
            0,
            &trades(
                1,
                doge,
                700,
                &[(buy, ALICE, Side::Buy, 1_000, true), (sell, BOB, Side::Sell, 1_000, true)],
            ),
        )
        .unwrap();
    let account = chain.account(ALICE);
    let position = account.position(doge).unwrap();
    assert_eq!(position.mode, MarginMode::Isolated);
    let initial = 700 * 3 * 1_000 / 20;
    assert_eq!(position.isolated, Atoms(initial));
    assert_eq!(account.reserved, Atoms::ZERO);
    assert_eq!(Atoms(10_000_000) - account.collateral, reserved, "just what was reserved");
    chain.end();
}

#[test]
fn closing_lots_are_reserved_once() {
    let mut chain = Chain::new(10_000_000);
    chain.trade(ALICE, BOB, true, 10);
    let refused = |chain: &mut Chain, action: Action| chain.apply(ALICE, action).unwrap_err();
    assert_eq!(refused(&mut chain, Action::Close(order(BTC, Side::Sell, PRICE, 5))), Refusal::NotReduceOnly);
    assert_eq!(refused(&mut chain, Action::Close(close(Side::Sell, 11))), Refusal::ClosingLots);
    assert_eq!(refused(&mut chain, Action::Close(close(Side::Buy, 1))), Refusal::ClosingLots);
    let first = chain.place(ALICE, close(Side::Sell, 6));
    assert_eq!(refused(&mut chain, Action::Close(close(Side::Sell, 5))), Refusal::ClosingLots);
    assert_eq!(refused(&mut chain, Action::Place(order(BTC, Side::Sell, PRICE, 5))), Refusal::ClosingLots);
    assert_eq!(chain.account(ALICE).reserved, Atoms::ZERO, "lots, not margin");
    let sale = common::fill(&chain.ledger, ALICE, BOB, 0, Side::Buy, PRICE, 5, 77);
    assert_eq!(refused(&mut chain, sale), Refusal::ClosingLots, "a quoted fill, too");
    chain.place(ALICE, order(BTC, Side::Sell, PRICE, 4));
    let more =
        Action::Modify { market: BTC, order: Name::Id(first), limit: PriceTicks(PRICE), lots: Lots(6) };
    assert_eq!(refused(&mut chain, more), Refusal::ClosingLots, "both may fill");
    chain.end();
}

#[test]
fn orders_under_one_signature_have_their_own_status() {
    let mut chain = Chain::new(10_000_000);
    let good = order(BTC, Side::Buy, PRICE, 1);
    let many =
        vec![good, Terms { kind: Kind::Liquidation, ..good }, good, Terms { market: MarketId(9), ..good }];
    let Ok(Receipt::PlacedMany(statuses)) = chain.apply(ALICE, Action::PlaceMany(many)) else {
        panic!("an action that places many is accepted")
    };
    let id = |index| OrderId { height: Height(1), index };
    let expected = [Ok(id(0)), Err(Refusal::OrderKind), Ok(id(1)), Err(Refusal::UnknownMarket)];
    assert_eq!(statuses.iter().collect::<Vec<_>>(), expected);
    assert_eq!(chain.apply(ALICE, Action::PlaceMany(Vec::new())), Err(Refusal::OrderCount));
    assert_eq!(chain.apply(ALICE, Action::PlaceMany(vec![good; 65])), Err(Refusal::OrderCount));
    chain.end();
}

#[test]
fn names_under_one_signature_end_what_they_would_end_one_by_one() {
    let mut chain = Chain::new(10_000_000);
    let named = |cloid| Terms { cloid: Some(Cloid(cloid)), ..order(BTC, Side::Buy, PRICE, 1) };
    let ids: Vec<_> = (1..=4).map(|cloid| chain.place(ALICE, named(cloid))).collect();
    let foreign = chain.place(BOB, named(1));
    chain.next(PRICE);
    let names = vec![
        (BTC, Name::Id(ids[0])),
        (BTC, Name::Cloid(Cloid(2))),
        (BTC, Name::Cloid(Cloid(2))),
        (BTC, Name::Id(foreign)),
        (MarketId(9), Name::Id(ids[2])),
        (MarketId(1), Name::Id(ids[2])),
        (BTC, Name::Id(ids[3])),
    ];
    let mut alone = chain.ledger.clone();
    let unknown = Err(Refusal::UnknownOrder);
    let expected = [Ok(()), Ok(()), unknown, unknown, Err(Refusal::UnknownMarket), unknown, Ok(())];
    for (nonce, ((market, order), expected)) in (1_000..).zip(names.iter().zip(expected)) {
        let expiry = alone.globals().height;
        let cancel = Action::Cancel { market: *market, order: *order };
        let answer = alone.apply(ALICE, Nonce(nonce), expiry, &cancel);
        assert_eq!(answer.map(drop), expected, "{market} {order:?}");
    }
    let Ok(Receipt::CancellingMany { orders: 3, verdicts }) = chain.apply(ALICE, Action::CancelMany(names))
    else {
        panic!("three of the names are of orders")
    };
    assert_eq!(verdicts.iter().collect::<Vec<_>>(), expected);
    assert!(chain.ledger.open_orders().eq(alone.open_orders()));
    assert_eq!(chain.ledger.order(ids[2]).unwrap().leaving, None);
    for count in [0, 65] {
        let names = vec![(BTC, Name::Id(ids[2])); count];
        assert_eq!(chain.apply(ALICE, Action::CancelMany(names)), Err(Refusal::OrderCount));
    }
    chain.end();
    alone.end_block();
    let height = chain.ledger.globals().height;
    assert!(
        chain.ledger.inbox(0, height).is_some() && chain.ledger.inbox(0, height) == alone.inbox(0, height)
    );
}

#[test]
fn records_of_orders_that_do_not_fit_together_are_refused() {
    let mut chain = Chain::new(10_000_000);
    let id = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 1));
    chain.end();
    let spoil = |change: &dyn Fn(&mut Records)| {
        let mut list: Records = chain.ledger.records().collect();
        change(&mut list);
        Ledger::from_records(list.into_iter()).map(|_| ())
    };
    let without = |key: RecordKey| spoil(&|list| list.retain(|(own, _)| *own != key));
    let with = |change: &dyn Fn(&mut OpenOrder)| {
        spoil(&|list| {
            for (_, record) in list {
                if let Record::Order(order) = record {
                    change(order);
                }
            }
        })
    };
    let key = RecordKey::Order(id);
    assert_eq!(spoil(&|list| list.reverse()), Ok(()));
    // What is reserved follows from the rest, whatever the records say.
    let unreserved = chain.ledger.records().map(|(key, record)| match record {
        Record::Account(own) => (key, Record::Account(Account { reserved: Atoms(5), ..own })),
        record => (key, record),
    });
    let read = Ledger::from_records(unreserved).unwrap();
    assert!(read.account(ALICE).unwrap().reserved > Atoms::ZERO && read.records().eq(chain.ledger.records()));
    let cases = [
        ("no inbox", without(RecordKey::Inbox(0, id.height)), RestoreError::Order(RecordKey::Entry(id))),
        ("no market", with(&|own| own.terms.market = MarketId(9)), RestoreError::Order(key)),
        ("no account", with(&|own| own.account = AccountId(99)), RestoreError::Order(key)),
        ("no lots", with(&|own| own.terms.lots = Lots(0)), RestoreError::Order(key)),
        ("more spent than there was", with(&|own| own.spent = Lots(2)), RestoreError::Order(key)),
        ("a cancel in no inbox", with(&|own| own.leaving = Some(Height(7))), RestoreError::Order(key)),
        ("twice", spoil(&|list| list.push(list[list.len() - 1].clone())), RestoreError::Misplaced(key)),
    ];
    for (claim, refused, error) in cases {
        assert_eq!(refused, Err(error), "{claim}");
    }
}

#[test]
fn an_order_that_expires_while_its_zone_is_void_ends_with_the_void_and_what_rests_can_be_rebuilt() {
    let mut chain = Chain::new(10_000_000);
    let until = |height| Terms { good_til: Some(Height(height)), ..order(BTC, Side::Buy, PRICE, 2) };
    let placed: Vec<OrderId> = [2, 3, 4, 5].map(|height| chain.place(ALICE, until(height))).into();
    chain.next(PRICE);
    chain.ledger.settle(0, &nothing(1)).unwrap();
    for _ in 0..3 {
        chain.place(BOB, order(BTC, Side::Buy, PRICE, 1));
        chain.next(PRICE);
    }
    assert_eq!(chain.ledger.void_overdue(), [2, 3, 4].map(|height| (0, Height(height))));
    // An order takes part up to and including its good-til height; the zone goes on after height 4.
    let (ended, rests) = chain.ledger.resting(0);
    assert_eq!(
        (ended, rests.iter().map(|order| order.id).collect::<Vec<_>>()),
        (Height(4), placed[2..].to_vec())
    );
    assert!(rests.iter().all(|order| order.terms.good_til.is_none_or(|good_til| good_til >= ended)));
    chain.end();
}

#[test]
fn a_zone_that_is_behind_takes_fewer_orders_that_add_risk_and_nothing_else_less() {
    let mut params = params();
    for at in [0, 2] {
        let orders = params.markets[at].orders;
        params.markets[at].orders =
            OrderParams { void_after: 40, shed_after: 2, max_per_account: 256, ..orders };
    }
    let ledger = Ledger::genesis(&params, TimeMs(1), users(6, 900_000_000)).unwrap();
    let mut chain = Chain { ledger, nonce: 0, delta: None };
    chain.begin(PRICE);
    chain.trade(ALICE, BOB, true, 10);
    let resting = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 1));
    let many = Action::PlaceMany(vec![order(BTC, Side::Buy, PRICE, 1); 40]);
    let half_of_all = 1 << 15;
    // Blocks that the zone is behind, and how many of forty orders it takes then.
    for (behind, takes) in [(2, 40), (3, 40), (11, 40), (12, 32), (13, 16), (17, 1), (18, 0), (39, 0)] {
        while chain.ledger.globals().height.0 < 1 + behind {
            chain.next(PRICE);
            chain.ledger.void_overdue();
        }
        let Ok(Receipt::PlacedMany(statuses)) = chain.apply(BOB, many.clone()) else { panic!() };
        let admitted = statuses.iter().filter(Result::is_ok).count();
        assert_eq!(admitted, takes.min(half_of_all >> (behind - 2)), "{behind} blocks behind");
        let refused = statuses.iter().filter_map(Result::err).all(|refusal| refusal == Refusal::ZoneLate);
        assert!(refused, "{behind} blocks behind");
        let elsewhere = order(MarketId(1), Side::Buy, 3_000, 1);
        chain.place(BOB, elsewhere);
        let leave = Action::CancelAll { market: None, keep_reduce_only: false };
        chain.apply(BOB, leave).unwrap();
        if behind == 39 {
            chain.place(ALICE, close(Side::Sell, 10));
            let cancel = Action::Cancel { market: BTC, order: Name::Id(resting) };
            chain.apply(ALICE, cancel).unwrap();
        }
    }
    chain.end();
}

#[test]
fn the_next_block_salts_the_auctions_of_a_block() {
    let mut chain = Chain::new(900_000_000);
    chain.place(ALICE, order(BTC, Side::Buy, PRICE, 1));
    chain.place(BOB, order(MarketId(1), Side::Buy, 3_000, 1));
    chain.next(PRICE);
    for zone in [0, 1] {
        let inbox = chain.ledger.inbox(zone, Height(1)).unwrap();
        assert_eq!((inbox.salt, chain.ledger.is_salted(zone, Height(1))), ([0; 32], false));
    }
    chain.ledger.salt_inboxes([7; 32]);
    chain.next(PRICE);
    chain.ledger.salt_inboxes([8; 32]);
    for zone in [0, 1] {
        for (height, salt) in [(1, [7; 32]), (2, [8; 32])] {
            let inbox = chain.ledger.inbox(zone, Height(height)).unwrap();
            assert_eq!((inbox.salt, chain.ledger.is_salted(zone, Height(height))), (salt, true));
        }
    }
    let delta = chain.ledger.end_block();
    chain.ledger.revert(&delta);
    assert!(!chain.ledger.is_salted(0, Height(2)), "undone with the block");
}

/// A position of 200 lots in breach with equity left, in a market whose zone closes positions, after the sweep of
/// block 2 has sent its close there. A bid for all of it waits.
fn in_breach() -> (Chain, OrderId, OrderId, i64) {
    let mut params = params();
    (params.markets[0].orders.late_after, params.markets[2].orders.late_after) = (2, 2);
    let accounts = users(6, 0).enumerate().map(|(at, own)| GenesisAccount {
        collateral: Atoms(if at == 1 { 1_200_000 } else { 900_000_000 }),
        ..own
    });
    let ledger = Ledger::genesis(&params, TimeMs(1), accounts).unwrap();
    let mut chain = Chain { ledger, nonce: 0, delta: None };
    chain.begin(PRICE);
    chain.trade(ALICE, BOB, true, 200);
    chain.next(PRICE * 90 / 100);
    let bid = chain.place(BOB, order(BTC, Side::Buy, PRICE * 90 / 100, 200));
    let report = chain.ledger.sweep(&mut NoVenue);
    assert_eq!((report.in_breach, report.steps, chain.lots(ALICE)), (1, 1, 200), "its close is on its way");
    let (close, order) = chain.ledger.orders_of(ALICE).next().map(|(id, order)| (id, *order)).unwrap();
    assert_eq!((order.terms.kind, order.terms.side), (Kind::Liquidation, Side::Sell));
    let lots = order.terms.lots.0;
    assert!(0 < lots && lots < 200, "the fewest lots that restore initial margin");
    let equity = 1_200_000 - kernel::fee(200 * PRICE as i128, 500) - 200 * (PRICE / 10) as i128;
    let worst = i128::from(PRICE * 90 / 100 - order.terms.limit.0) * 200;
    assert!(0 <= equity - worst && equity - worst < 200, "down to where its equity ends");
    (chain, close, bid, lots)
}

#[test]
fn liquidation_closes_in_the_auction_and_a_fill_restores_the_account() {
    let (mut chain, close, bid, lots) = in_breach();
    chain.next(PRICE * 90 / 100);
    let fills = [(close, ALICE, Side::Sell, lots, true), (bid, BOB, Side::Buy, lots, false)];
    let (fund, before) = (chain.ledger.market(BTC).unwrap().backstop, chain.account(ALICE).clone());
    let had = chain.account(fund).collateral;
    let report = chain.ledger.settle(0, &trades(2, BTC, PRICE * 90 / 100, &fills)).unwrap();
    let penalty = report.fills.iter().find(|fill| fill.order == close).unwrap().fee;
    assert_eq!(penalty.0, kernel::fee(i128::from(lots) * (PRICE * 90 / 100) as i128, 10_000));
    assert_eq!(chain.account(fund).collateral - had, penalty, "to the fund");
    assert!(before.breached.is_some());
    let report = chain.ledger.sweep(&mut NoVenue);
    assert_eq!((report.in_breach, report.steps, chain.lots(ALICE)), (0, 0, 200 - lots));
    assert_eq!(chain.account(ALICE).breached, None);
    chain.end();
}

#[test]
fn what_a_close_leaves_goes_down_the_ladder_when_its_outcome_is_settled() {
    let (mut chain, close, _, lots) = in_breach();
    chain.next(PRICE * 90 / 100);
    let mut unfilled = trades(2, BTC, PRICE, &[]);
    unfilled.markets[0].price = None;
    unfilled.markets[0].ends = vec![End { order: close, reason: EndReason::IocRemainder, lots: Lots(lots) }];
    chain.ledger.settle(0, &unfilled).unwrap();
    let report = chain.ledger.sweep(&mut NoVenue);
    assert_eq!((report.backstop_takeovers, chain.lots(ALICE)), (1, 200 - lots));
    chain.end();
}

#[test]
fn when_the_zone_is_late_the_ladder_goes_on_and_a_late_close_closes_what_the_backstop_took() {
    let (mut chain, close, bid, lots) = in_breach();
    chain.next(PRICE * 90 / 100);
    let report = chain.ledger.sweep(&mut NoVenue);
    assert_eq!(
        (report.steps, chain.lots(ALICE)),
        (0, 200),
        "one block is not late, and nothing is sent twice"
    );
    chain.next(PRICE * 88 / 100);
    chain.ledger.sweep(&mut NoVenue);
    let fund = chain.ledger.market(BTC).unwrap().backstop;
    assert_eq!((chain.lots(ALICE), chain.lots(fund)), (0, 200), "without equity all of it");
    let fills = [(close, ALICE, Side::Sell, lots, true), (bid, BOB, Side::Buy, lots, false)];
    let report = chain.ledger.settle(0, &trades(2, BTC, PRICE * 90 / 100, &fills)).unwrap();
    assert_eq!(report.fills.iter().map(|fill| fill.carried.0).sum::<i64>(), lots);
    assert_eq!((chain.lots(ALICE), chain.lots(fund)), (0, 200 - lots), "nothing closes twice");
    chain.end();
}

/// Initial margin bracket by bracket, in ppm-atoms.
fn bracket(notional: i128, tiers: &[TierParams]) -> i128 {
    let (mut total, mut below) = (0, 0);
    for (at, tier) in tiers.iter().enumerate() {
        let top = if at + 1 == tiers.len() { notional } else { notional.min(tier.up_to_notional.0) };
        total += (top - below).max(0) * i128::from(tier.initial_ppm.0);
        below = below.max(top);
    }
    total
}

/// The most that initial margin, losses against the mark and fees can grow by: every order filled with any of its
/// lots at any price of the band that it accepts. In ppm-atoms.
fn worst(mark: i64, held: i64, orders: &[(bool, i64, i64)], tiers: &[TierParams], band: (i64, i64)) -> i128 {
    fn go(
        mark: i64,
        held: i64,
        cost: i128,
        rest: &[(bool, i64, i64)],
        tiers: &[TierParams],
        band: (i64, i64),
    ) -> i128 {
        let Some(((buys, limit, lots), rest)) = rest.split_first() else {
            return bracket(i128::from(mark * held.abs()), tiers) + cost * 1_000_000;
        };
        let mut most = go(mark, held, cost, rest, tiers, band);
        for price in band.0..=band.1 {
            if if *buys { price > *limit } else { price < *limit } {
                continue;
            }
            for filled in 1..=*lots {
                let sign = if *buys { 1 } else { -1 };
                let fee = (i128::from(price * filled) * 500 + 999_999) / 1_000_000;
                let loss = i128::from(sign * (price - mark) * filled).max(0);
                most = most.max(go(mark, held + sign * filled, cost + loss + fee, rest, tiers, band));
            }
        }
        most
    }
    go(mark, held, 0, orders, tiers, band) - bracket(i128::from(mark * held.abs()), tiers)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing that can fill costs more than is reserved; and if all orders go one way and open, something does
    /// cost as much.
    #[test]
    fn a_reservation_is_the_worst_of_all_fills(
        held in -6i64..=6,
        orders in prop::collection::vec((any::<bool>(), 95i64..=105, 1i64..=3), 1..=3),
        one_way in any::<bool>(),
    ) {
        let mut one = market("BTC-PERP", 1);
        one.tiers = vec![tier(300, 50_000, 25_000), tier(700, 200_000, 50_000), tier(1_000, 600_000, 60_000)];
        one.orders.min_lots = Lots(1);
        let params = ChainParams { markets: vec![one], ..common::params() };
        let leg = |lots: i64| (lots != 0).then_some(GenesisPosition {
            market: BTC,
            lots: Lots(lots),
            cost: Atoms(i128::from(100 * lots)),
            mode: MarginMode::Cross,
            isolated: Atoms(0),
        });
        let accounts = [0, held, -held].map(|lots| GenesisAccount {
            owner: Key::default(),
            collateral: Atoms(1_000_000),
            positions: leg(lots).into_iter().collect(),
        });
        let mut ledger = Ledger::genesis(&params, TimeMs(1), accounts.into_iter()).unwrap();
        ledger.begin_block(Height(1), TimeMs(2));
        ledger.set_marks(&[(BTC, fresh(100))]);
        let opens = held >= 0;
        let orders: Vec<_> =
            orders.into_iter().map(|(buys, limit, lots)| (if one_way { opens } else { buys }, limit, lots)).collect();
        for (nonce, (buys, limit, lots)) in orders.iter().enumerate() {
            let side = if *buys { Side::Buy } else { Side::Sell };
            let terms = order(BTC, side, *limit as u64, *lots);
            ledger.apply(ALICE, Nonce(nonce as u64), Height(3), &Action::Place(terms)).unwrap();
        }
        let reserved = ledger.account(ALICE).unwrap().reserved.0;
        let worst = worst(100, held, &orders, &params.markets[0].tiers, (98, 102));
        prop_assert!(worst <= reserved * 1_000_000, "{} reserved, {} may be needed", reserved, worst);
        let all_can = orders.iter().all(|(buys, limit, _)| if *buys { *limit >= 98 } else { *limit <= 102 });
        if one_way && all_can {
            // A fill on the good side of the mark gains, which is not counted on; its fee is that of its limit.
            let limits_adverse =
                orders.iter().all(|(buys, limit, _)| if *buys { *limit >= 100 } else { *limit <= 100 });
            prop_assert!(!limits_adverse || (reserved - 1) * 1_000_000 < worst, "{} reserved for {}", reserved, worst);
        }
    }
}
