//! Claims about orders that wait for a trigger, and about scheduled cancels, one by one.

mod common;

use common::{
    ALICE, BOB, BTC, Chain, PRICE, close, fresh, mark, nothing, order, order_params, trades, users,
};
use seawall_ledger::*;
use seawall_types::*;

const ETH: MarketId = MarketId(1);
const DOGE: MarketId = MarketId(2);

fn above(price: u64) -> Trigger {
    Trigger { price: PriceTicks(price), crossing: Crossing::Above }
}

fn below(price: u64) -> Trigger {
    Trigger { price: PriceTicks(price), crossing: Crossing::Below }
}

fn arm(chain: &mut Chain, who: AccountId, trigger: Trigger, terms: Terms) -> OrderId {
    match chain.apply(who, Action::PlaceTrigger { trigger, terms }) {
        Ok(Receipt::Waiting { order }) => order,
        other => panic!("{other:?}"),
    }
}

/// A stop market: immediate, at whatever price the band allows.
fn stop(side: Side, lots: i64) -> Terms {
    let limit = PriceTicks(if side == Side::Sell { 1 } else { limits::MAX_PRICE_TICKS });
    Terms { limit, kind: Kind::Ioc, ..close(side, lots) }
}

/// The sweep, the turns, and the end of a block; then the next one. Gives the report and what was told.
fn pass(chain: &mut Chain, price: u64) -> (TriggerReport, Vec<Event>) {
    chain.ledger.sweep(&mut NoVenue);
    let report = chain.ledger.activate_triggers();
    chain.next(price);
    let told = chain.delta.as_ref().unwrap().events.clone();
    (report, told.into_iter().filter(is_about_triggers).collect())
}

fn is_about_triggers(event: &Event) -> bool {
    matches!(event, Event::Activated { .. } | Event::TriggerEnded { .. } | Event::ScheduledCancel { .. })
}

fn ended(trigger: OrderId, account: AccountId, reason: TriggerEnd) -> Event {
    Event::TriggerEnded { trigger, account, market: BTC, reason }
}

fn entries(chain: &Chain, zone: u8, height: u64) -> Vec<(u32, AccountId, Request)> {
    let inbox = chain.ledger.inbox(zone, Height(height)).unwrap();
    inbox.entries.into_iter().map(|(index, own)| (index, own.account, own.request)).collect()
}

#[test]
fn a_crossing_is_kept_in_its_block_and_the_order_enters_its_zone_under_an_id_that_is_told() {
    let mut chain = Chain::new(10_000_000);
    chain.trade(ALICE, BOB, true, 10);
    let terms = Terms { cloid: Some(Cloid(7)), ..stop(Side::Sell, 10) };
    let trigger = arm(&mut chain, ALICE, below(49_000), terms);
    assert!(trigger.is_trigger());
    assert_eq!(chain.account(ALICE).reserved, Atoms::ZERO);
    let (report, told) = pass(&mut chain, 49_001);
    assert_eq!((report, told), (TriggerReport::default(), vec![]));
    assert_eq!(chain.ledger.next_part(0), None, "a zone gets no inbox for what waits");
    let (report, _) = pass(&mut chain, 49_000);
    assert_eq!(report, TriggerReport::default(), "a tick before its price");
    let (report, told) = pass(&mut chain, PRICE);
    assert_eq!(report, TriggerReport { crossed: 1, activated: 1, ended: 0, waiting: 0 });
    let entered = OrderId { height: Height(3), index: 0 };
    let event = Event::Activated { trigger, order: entered, account: ALICE, market: BTC, lots: Lots(10) };
    assert_eq!(told, [event]);
    assert_eq!(chain.ledger.order(trigger), None);
    let open = chain.ledger.order(entered).unwrap();
    assert_eq!((open.terms, open.waiting, open.account), (terms, None, ALICE));
    assert_eq!(entries(&chain, 0, 3), [(0, ALICE, Request::Place(terms))]);
    chain.end();
}

#[test]
fn a_mark_from_either_side_crosses_at_the_price_and_only_a_fresh_one() {
    let cases = [
        ("rises to it", above(51_000), 51_000, true),
        ("rises beyond it", above(51_000), 60_000, true),
        ("stays a tick below", above(51_000), 50_999, false),
        ("falls", above(51_000), 40_000, false),
        ("falls to it", below(49_000), 49_000, true),
        ("falls beyond it", below(49_000), 45_000, true),
        ("stays a tick above", below(49_000), 49_001, false),
        ("rises", below(49_000), 52_000, false),
    ];
    for (claim, trigger, price, crosses) in cases {
        let mut chain = Chain::new(100_000_000);
        let id = arm(&mut chain, ALICE, trigger, order(BTC, Side::Buy, PRICE, 1));
        chain.next(PRICE);
        for state in [PriceState::Stale, PriceState::Disputed, PriceState::Reopening, PriceState::Quarantined]
        {
            chain.ledger.set_marks(&[(BTC, mark(state, price))]);
            assert_eq!(chain.ledger.activate_triggers(), TriggerReport::default(), "{claim}, {state:?}");
        }
        chain.ledger.set_marks(&[(BTC, fresh(price))]);
        let report = chain.ledger.activate_triggers();
        assert_eq!((report.crossed, report.activated), (crosses as u64, crosses as u64), "{claim}");
        assert_eq!(chain.ledger.order(id).is_none(), crosses, "{claim}");
        chain.end();
    }
}

#[test]
fn what_was_crossed_has_its_turn_wherever_the_mark_goes_closes_first_then_by_height_then_by_id() {
    let mut params = order_params();
    params.markets[0].orders.max_activations = 2;
    let mut chain = Chain::new(100_000_000);
    chain.ledger = Ledger::genesis(&params, TimeMs(1), users(6, 100_000_000)).unwrap();
    chain.begin(PRICE);
    chain.trade(ALICE, BOB, true, 10);
    let buy = order(BTC, Side::Buy, PRICE, 1);
    let risky: Vec<_> = (0..3).map(|_| arm(&mut chain, BOB, below(49_000), buy)).collect();
    let first = arm(&mut chain, ALICE, below(48_000), stop(Side::Sell, 2));
    let closes: Vec<_> = (0..2).map(|_| arm(&mut chain, ALICE, below(49_000), stop(Side::Sell, 2))).collect();
    let who = |told: Vec<Event>| -> Vec<OrderId> {
        let trigger = |event: &Event| match event {
            Event::Activated { trigger, .. } => Some(*trigger),
            _ => None,
        };
        told.iter().filter_map(trigger).collect()
    };
    pass(&mut chain, 49_000);
    let (report, told) = pass(&mut chain, 60_000);
    assert_eq!(report, TriggerReport { crossed: 5, activated: 2, ended: 0, waiting: 3 });
    assert_eq!(who(told), closes, "closes first");
    assert_eq!(chain.ledger.order(risky[0]).unwrap().waiting.unwrap().crossed, Some(Height(2)));
    // In between the market is blind: nobody loses his place.
    chain.ledger.set_marks(&[(BTC, mark(PriceState::Stale, 60_000))]);
    let (report, _) = pass(&mut chain, 48_000);
    assert_eq!((report.activated, report.waiting), (0, 3));
    let (_, told) = pass(&mut chain, PRICE);
    assert_eq!(who(told), [first, risky[0]], "a close that is crossed later goes first all the same");
    let (report, told) = pass(&mut chain, PRICE);
    assert_eq!((who(told), report.waiting), (risky[1..].to_vec(), 0));
    chain.end();
}

#[test]
fn what_a_trigger_is_refused_for() {
    let mut chain = Chain::new(10_000_000);
    chain.trade(ALICE, BOB, true, 10);
    let buy = order(BTC, Side::Buy, PRICE, 5);
    arm(&mut chain, ALICE, above(51_000), Terms { cloid: Some(Cloid(1)), ..buy });
    let stale = order(DOGE, Side::Buy, 700, 5);
    chain.ledger.set_marks(&[(DOGE, mark(PriceState::Stale, 700))]);
    let (kind, reduce_only) = (Kind::PostOnly(OnCross::Cancel), true);
    let cases = [
        ("no price", above(0), buy, Refusal::NotPositive),
        ("a price beyond all", above(limits::MAX_PRICE_TICKS + 1), buy, Refusal::TooLarge),
        ("no market", above(60_000), order(MarketId(9), Side::Buy, 1, 1), Refusal::UnknownMarket),
        ("no lots", above(60_000), Terms { lots: Lots(0), ..buy }, Refusal::NotPositive),
        ("no limit", above(60_000), Terms { limit: PriceTicks(0), ..buy }, Refusal::NotPositive),
        ("post-only", above(60_000), Terms { kind, ..buy }, Refusal::TriggerKind),
        ("liquidation", above(60_000), Terms { kind: Kind::Liquidation, ..buy }, Refusal::TriggerKind),
        ("the mark is there", above(PRICE), buy, Refusal::TriggerCrossed),
        ("the mark is beyond", below(PRICE + 1), buy, Refusal::TriggerCrossed),
        ("a name in use", above(60_000), Terms { cloid: Some(Cloid(1)), ..buy }, Refusal::DuplicateCloid),
        ("expired", above(60_000), Terms { good_til: Some(Height(0)), ..buy }, Refusal::OrderExpired),
        ("risk without a price", above(800), stale, Refusal::PriceNotFresh),
        (
            "more than the margin",
            above(60_000),
            order(BTC, Side::Buy, PRICE, 9_000),
            Refusal::InsufficientMargin,
        ),
        ("more than the cap", above(60_000), order(BTC, Side::Buy, PRICE, 20_000), Refusal::PositionCap),
        ("more than the position", above(60_000), close(Side::Sell, 11), Refusal::ClosingLots),
        ("the wrong side", above(60_000), close(Side::Buy, 1), Refusal::ClosingLots),
        (
            "no position",
            above(4_000),
            Terms { reduce_only, ..order(ETH, Side::Sell, 1, 1) },
            Refusal::ClosingLots,
        ),
    ];
    let before: Vec<_> = chain.ledger.records().collect();
    for (claim, trigger, terms, refusal) in cases {
        let refused =
            chain.ledger.check(ALICE, Nonce(900), Height(3), &Action::PlaceTrigger { trigger, terms });
        assert_eq!(refused, Err(refusal), "{claim}");
        assert_eq!(chain.apply(ALICE, Action::PlaceTrigger { trigger, terms }), Err(refusal), "{claim}");
    }
    assert_eq!(chain.ledger.records().collect::<Vec<_>>(), before);
    for _ in 1..64 {
        arm(&mut chain, ALICE, above(60_000), close(Side::Sell, 1));
    }
    let one_more = Action::PlaceTrigger { trigger: above(60_000), terms: close(Side::Sell, 1) };
    assert_eq!(chain.apply(ALICE, one_more), Err(Refusal::TooManyOrders));
    assert_eq!(chain.apply(ALICE, Action::Place(buy)), Err(Refusal::TooManyOrders), "they count together");
    chain.end();
}

#[test]
fn a_trigger_that_adds_risk_reserves_as_if_it_was_in_its_zone() {
    let cases = [order(BTC, Side::Buy, PRICE, 20), order(BTC, Side::Sell, 49_500, 7), stop(Side::Buy, 3)];
    for terms in cases {
        let terms = Terms { reduce_only: false, ..terms };
        let (mut waits, mut rests) = (Chain::new(10_000_000), Chain::new(10_000_000));
        let id = arm(&mut waits, ALICE, above(50_500), terms);
        rests.place(ALICE, terms);
        assert!(waits.account(ALICE).reserved > Atoms::ZERO);
        for price in [49_000, PRICE, 50_499] {
            waits.next(price);
            rests.next(price);
            rests.ledger.settle(0, &nothing(rests.ledger.next_part(0).unwrap().0.0)).ok();
        }
        // Bands of auctions that are not settled count for what is in a zone and for what enters it.
        assert_eq!(waits.account(ALICE).reserved, {
            let mut alone = Chain::new(10_000_000);
            alone.next(50_499);
            alone.place(ALICE, terms);
            alone.account(ALICE).reserved
        });
        let cancel = Action::Cancel { market: BTC, order: Name::Id(id) };
        assert_eq!(waits.apply(ALICE, cancel), Ok(Receipt::Cancelling { orders: 1 }));
        assert_eq!(waits.account(ALICE).reserved, Atoms::ZERO, "released at once");
        waits.end();
    }
}

#[test]
fn a_stop_loss_and_a_take_profit_wait_for_the_same_lots_and_nothing_closes_twice() {
    let mut chain = Chain::new(10_000_000);
    chain.trade(ALICE, BOB, true, 10);
    let loss = arm(&mut chain, ALICE, below(49_000), stop(Side::Sell, 10));
    let gain =
        arm(&mut chain, ALICE, above(51_000), Terms { limit: PriceTicks(51_000), ..close(Side::Sell, 10) });
    let sell = order(BTC, Side::Sell, PRICE, 10);
    assert!(
        chain.ledger.check(ALICE, Nonce(900), Height(3), &Action::Place(sell)).is_ok(),
        "what waits to close holds no lots"
    );
    chain.next(51_000);
    let (_, told) = pass(&mut chain, 51_000);
    assert!(matches!(told[..], [Event::Activated { trigger, .. }] if trigger == gain));
    let placed = chain.ledger.orders_of(ALICE).find(|(_, order)| order.waiting.is_none()).unwrap().0;
    let bid = chain.place(BOB, order(BTC, Side::Buy, 51_000, 10));
    chain.next(51_000);
    let resting = Outcome { markets: vec![], ..nothing(2) };
    chain.ledger.settle(0, &resting).unwrap();
    let fills = [(placed, ALICE, Side::Sell, 4, false), (bid, BOB, Side::Buy, 4, false)];
    chain.ledger.settle(0, &trades(3, BTC, 51_000, &fills)).unwrap();
    assert!(chain.ledger.order(loss).is_some(), "there is a position of 6");
    chain.next(51_000);
    let fills = [(placed, ALICE, Side::Sell, 6, true), (bid, BOB, Side::Buy, 6, true)];
    chain.ledger.settle(0, &trades(4, BTC, 51_000, &fills)).unwrap();
    assert_eq!((chain.lots(ALICE), chain.ledger.order(loss)), (0, None), "it has nothing to close any more");
    chain.end();
    assert!(chain.delta.unwrap().events.contains(&ended(loss, ALICE, TriggerEnd::PositionGone)));
}

#[test]
fn at_its_turn_a_close_takes_the_lots_that_are_there_or_ends() {
    // What else would close of 10 lots, what is left of a stop for all of them, and why nothing is.
    let part = |lots| vec![close(Side::Sell, lots)];
    let cases: [(&str, Vec<Terms>, Result<i64, TriggerEnd>); 5] = [
        ("nothing else", vec![], Ok(10)),
        ("a close of 4", part(4), Ok(6)),
        ("a sale of 4", vec![order(BTC, Side::Sell, 60_000, 4)], Ok(6)),
        ("a close of all", part(10), Err(TriggerEnd::NoClosingLots)),
        ("purchases", vec![order(BTC, Side::Buy, 40_000, 4)], Ok(10)),
    ];
    for (claim, others, left) in cases {
        let mut chain = Chain::new(10_000_000);
        chain.trade(ALICE, BOB, true, 10);
        let trigger = arm(&mut chain, ALICE, below(49_000), stop(Side::Sell, 10));
        for terms in others {
            chain.place(ALICE, terms);
        }
        chain.next(49_000);
        let (report, told) = pass(&mut chain, 49_000);
        match (&told[..], left) {
            ([Event::Activated { trigger: id, lots, .. }], Ok(left)) => {
                assert_eq!((*id, lots.0), (trigger, left), "{claim}");
            }
            ([event], Err(reason)) => assert_eq!(*event, ended(trigger, ALICE, reason), "{claim}"),
            other => panic!("{claim}: {other:?}"),
        }
        assert_eq!(report.activated + report.ended, 1, "{claim}");
        assert_eq!(chain.ledger.order(trigger), None, "{claim}: none is stranded");
        chain.end();
    }
}

#[test]
fn closes_that_wait_end_with_the_position_however_it_goes() {
    type Undoing = fn(&mut Chain);
    let cases: [(&str, Undoing, bool); 4] = [
        ("a quoted trade closes it", |chain| chain.trade(ALICE, BOB, false, 10), true),
        ("a quoted trade turns it", |chain| chain.trade(ALICE, BOB, false, 15), true),
        ("a quoted trade makes it smaller", |chain| chain.trade(ALICE, BOB, false, 9), false),
        (
            "liquidation takes it",
            |chain| {
                let all = chain.account(ALICE).collateral.0 - 60_000;
                let recipient = Recipient::default();
                chain.apply(ALICE, Action::Withdraw { amount: Atoms(all), recipient }).unwrap();
                chain.next(42_000);
                chain.ledger.sweep(&mut NoVenue);
                assert_eq!(chain.lots(ALICE), 0);
            },
            true,
        ),
    ];
    for (claim, undo, ends) in cases {
        let mut chain = Chain::new(10_000_000);
        chain.trade(ALICE, BOB, true, 10);
        let low = arm(&mut chain, ALICE, below(30_000), stop(Side::Sell, 10));
        let buys = arm(&mut chain, BOB, above(70_000), stop(Side::Buy, 10));
        undo(&mut chain);
        assert_eq!(chain.ledger.order(low).is_none(), ends, "{claim}");
        let bob = chain.lots(BOB) >= 0;
        assert_eq!(chain.ledger.order(buys).is_none(), bob, "{claim}: the other side, too");
        chain.end();
        let told = chain.delta.unwrap().events;
        assert_eq!(told.contains(&ended(low, ALICE, TriggerEnd::PositionGone)), ends, "{claim}");
    }
}

#[test]
fn where_available_is_below_zero_what_waits_to_add_risk_ends_at_once_and_closes_stay() {
    let mut chain = Chain::new(1_200_000);
    chain.trade(ALICE, BOB, true, 200);
    let adds = arm(&mut chain, ALICE, above(60_000), order(BTC, Side::Buy, 60_000, 100));
    let closes = arm(&mut chain, ALICE, below(40_000), stop(Side::Sell, 200));
    chain.next(PRICE * 95 / 100);
    assert_eq!(chain.ledger.sweep(&mut NoVenue).in_breach, 0, "nobody is liquidated");
    assert_eq!((chain.ledger.order(adds), chain.account(ALICE).reserved), (None, Atoms::ZERO));
    assert!(chain.ledger.order(closes).is_some());
    chain.end();
    let told = chain.delta.unwrap().events;
    assert_eq!(told, [ended(adds, ALICE, TriggerEnd::MarginLost)]);
    assert_eq!(chain.ledger.next_part(0), None, "no auction has to hear of it");
}

/// Liquidation and deleveraging change accounts after their risk was looked at.
#[test]
fn a_turn_adds_no_risk_to_an_account_below_its_initial_margin() {
    for (collateral, fits) in [(1_200_000, false), (2_000_000, true)] {
        let mut chain = Chain::new(collateral);
        chain.trade(ALICE, BOB, true, 200);
        let adds = arm(&mut chain, ALICE, below(47_500), order(BTC, Side::Buy, PRICE, 100));
        chain.next(47_500);
        let report = chain.ledger.activate_triggers();
        assert_eq!((report.crossed, report.activated, report.ended), (1, fits as u64, !fits as u64));
        chain.end();
        let told = chain.delta.unwrap().events;
        assert_eq!(told.contains(&ended(adds, ALICE, TriggerEnd::MarginLost)), !fits);
    }
}

#[test]
fn each_way_to_end_a_trigger_is_named() {
    let good_til = Some(Height(2));
    let buy = order(BTC, Side::Buy, 60_000, 1);
    let cancel = |order: Name| Action::Cancel { market: BTC, order };
    let all = |market, keep_reduce_only| Action::CancelAll { market, keep_reduce_only };
    let mut chain = Chain::new(100_000_000);
    chain.trade(ALICE, BOB, true, 10);
    let mut named = |terms: Terms| arm(&mut chain, ALICE, above(70_000), terms);
    let by_id = named(buy);
    let by_cloid = named(Terms { cloid: Some(Cloid(3)), ..buy });
    let expires = named(Terms { good_til, ..buy });
    let kept = named(close(Side::Sell, 10));
    let one = Ok(Receipt::Cancelling { orders: 1 });
    let receipts = [
        chain.apply(ALICE, cancel(Name::Id(by_id))),
        chain.apply(ALICE, cancel(Name::Cloid(Cloid(3)))),
        chain.apply(ALICE, cancel(Name::Id(by_id))),
        chain.apply(BOB, cancel(Name::Id(kept))),
        chain.apply(
            ALICE,
            Action::Modify { market: BTC, order: Name::Id(kept), limit: PriceTicks(1), lots: Lots(1) },
        ),
        chain.apply(ALICE, all(Some(ETH), false)),
    ];
    let gone = Err(Refusal::UnknownOrder);
    assert_eq!(
        receipts,
        [one, one, gone, gone, Err(Refusal::TriggerWaits), Ok(Receipt::Cancelling { orders: 0 })]
    );
    let cancelled = TriggerEnd::Cancelled;
    let (_, told) = pass(&mut chain, PRICE);
    assert_eq!(told, [ended(by_id, ALICE, cancelled), ended(by_cloid, ALICE, cancelled)]);
    let (_, told) = pass(&mut chain, PRICE);
    assert_eq!(told, [], "good until the end of block 2");
    let (report, told) = pass(&mut chain, PRICE);
    assert_eq!((report.ended, told), (1, vec![ended(expires, ALICE, TriggerEnd::Expired)]));
    let again = arm(&mut chain, ALICE, above(70_000), buy);
    assert_eq!(chain.apply(ALICE, all(None, true)), one);
    assert_eq!((chain.ledger.order(again), chain.ledger.order(kept).is_some()), (None, true));
    assert_eq!(chain.apply(ALICE, all(Some(BTC), false)), one);
    assert_eq!(chain.ledger.orders_of(ALICE).count(), 0);
    let last = arm(&mut chain, ALICE, above(70_000), buy);
    assert!(last > again, "an id is used once, however soon its order ended");
    assert_eq!(chain.ledger.next_part(0), None, "all of it without a zone");
    chain.end();
}

#[test]
fn a_trigger_is_nothing_to_its_zone() {
    let mut chain = Chain::new(100_000_000);
    let trigger = arm(&mut chain, ALICE, above(70_000), order(BTC, Side::Buy, 60_000, 5));
    let bid = chain.place(BOB, order(BTC, Side::Buy, PRICE, 1));
    chain.next(PRICE);
    assert_eq!(chain.ledger.resting(0).1, []);
    let mut names = nothing(1);
    names.markets.push(MarketOutcome {
        market: BTC,
        price: None,
        fills: vec![],
        cuts: vec![],
        ends: vec![End { order: trigger, reason: EndReason::Cancelled, lots: Lots(5) }],
        slides: vec![],
    });
    assert_eq!(chain.ledger.settle(0, &names), Err(Fault::UnknownOrder(trigger).into()));
    chain.next(PRICE);
    chain.next(PRICE);
    assert_eq!(chain.ledger.void_overdue(), [1, 2, 3].map(|height| (0, Height(height))));
    assert_eq!((chain.ledger.order(bid), chain.ledger.order(trigger).is_some()), (None, true));
    chain.next(PRICE);
    assert_eq!((chain.ledger.resting(0).1.len(), chain.ledger.next_part(0)), (0, None));
    let mode = Action::SetMarginMode { market: BTC, mode: MarginMode::Isolated };
    assert_eq!(chain.apply(ALICE, mode), Err(Refusal::OrdersOpen));
    chain.end();
}

#[test]
fn crossed_triggers_of_a_market_out_of_service_end() {
    let mut params = order_params();
    params.markets[0].orders.max_activations = 1;
    let mut chain = Chain::new(100_000_000);
    chain.ledger = Ledger::genesis(&params, TimeMs(1), users(6, 100_000_000)).unwrap();
    chain.begin(PRICE);
    let buy = order(BTC, Side::Buy, 60_000, 1);
    let ids: Vec<_> = (0..3).map(|_| arm(&mut chain, ALICE, above(51_000), buy)).collect();
    let far = arm(&mut chain, ALICE, above(99_000), buy);
    pass(&mut chain, 51_000);
    let (report, _) = pass(&mut chain, 51_000);
    assert_eq!((report.activated, report.waiting), (1, 2));
    for (id, left) in [(ids[1], 1), (ids[2], 0)] {
        chain.ledger.set_marks(&[(BTC, mark(PriceState::Quarantined, 51_000))]);
        let (report, told) = pass(&mut chain, 51_000);
        assert_eq!((report.waiting, told), (left, vec![ended(id, ALICE, TriggerEnd::MarketQuarantined)]));
    }
    assert!(chain.ledger.order(far).is_some(), "nothing has happened to it");
    chain.end();
}

#[test]
fn records_of_triggers_that_cannot_be_are_refused() {
    let mut chain = Chain::new(10_000_000);
    chain.trade(ALICE, BOB, true, 10);
    let closes = arm(&mut chain, ALICE, below(49_000), stop(Side::Sell, 10));
    chain.next(PRICE);
    chain.end();
    let key = RecordKey::Order(closes);
    let with = |change: &dyn Fn(&mut OpenOrder)| {
        let list = chain.ledger.records().map(|(key, mut record)| {
            if let Record::Order(order) = &mut record {
                change(order);
            }
            (key, record)
        });
        Ledger::from_records(list.collect::<Vec<_>>().into_iter()).map(|_| ())
    };
    let crossed = |at| move |own: &mut OpenOrder| own.waiting.as_mut().unwrap().crossed = Some(Height(at));
    let (malformed, orphan) = (RestoreError::Order(key), RestoreError::Audit(AuditError::Trigger(closes)));
    type Spoil<'a> = &'a dyn Fn(&mut OpenOrder);
    let cases: [(&str, Spoil<'_>, RestoreError); 13] = [
        ("crossed before it was placed", &crossed(0), malformed),
        ("crossed in the future", &crossed(3), malformed),
        ("no price", &|own| own.waiting.as_mut().unwrap().trigger.price = PriceTicks(0), malformed),
        ("no limit", &|own| own.terms.limit = PriceTicks(0), malformed),
        ("no lots", &|own| own.terms.lots = Lots(0), malformed),
        ("post-only", &|own| own.terms.kind = Kind::PostOnly(OnCross::Cancel), malformed),
        ("liquidation", &|own| own.terms.kind = Kind::Liquidation, malformed),
        ("filled", &|own| own.spent = Lots(1), malformed),
        ("moved", &|own| own.slid = Some(PriceTicks(1)), malformed),
        ("ended", &|own| own.ended = true, malformed),
        ("cancelled", &|own| own.leaving = Some(Height(1)), malformed),
        ("in its zone by an id of none", &|own| own.waiting = None, malformed),
        ("nothing to close", &|own| own.terms.side = Side::Buy, orphan),
    ];
    assert_eq!(with(&crossed(2)), Ok(()));
    for (claim, change, error) in cases {
        assert_eq!(with(change), Err(error), "{claim}");
    }
    let moved = chain.ledger.records().map(|(own, record)| match own {
        RecordKey::Order(id) => (RecordKey::Order(OrderId { index: 0, ..id }), record),
        _ => (own, record),
    });
    let entry = RecordKey::Order(OrderId { index: 0, ..closes });
    let refused = Ledger::from_records(moved.collect::<Vec<_>>().into_iter()).map(|_| ());
    assert_eq!(refused, Err(RestoreError::Order(entry)), "an entry's id");
}

/// All of them in one block, too: its cost is bounded by the limit.
#[test]
fn a_market_holds_so_many_triggers_and_one_mark_can_cross_them_all() {
    let (accounts, each) = (1_024, 64);
    assert_eq!(accounts * each, limits::MAX_TRIGGERS_PER_MARKET as u64);
    let mut params = order_params();
    params.markets[0].orders.max_activations = limits::MAX_ACTIVATIONS_PER_BLOCK as u16;
    let mut chain = Chain::new(0);
    chain.ledger = Ledger::genesis(&params, TimeMs(1), users(accounts + 2, 100_000_000)).unwrap();
    chain.begin(PRICE);
    let terms = order(BTC, Side::Buy, 60_000, 1);
    for id in 1..=accounts {
        for _ in 0..each {
            arm(&mut chain, AccountId(id), above(51_000), terms);
        }
    }
    let (last, trigger) = (AccountId(accounts + 1), above(51_000));
    assert_eq!(chain.apply(last, Action::PlaceTrigger { trigger, terms }), Err(Refusal::TooManyTriggers));
    assert!(
        chain.apply(last, Action::PlaceTrigger { trigger, terms: Terms { market: ETH, ..terms } }).is_ok()
    );
    chain.next(51_000);
    let (crossed, turns) = (accounts * each, limits::MAX_ACTIVATIONS_PER_BLOCK as u64);
    let report = chain.ledger.activate_triggers();
    assert_eq!(report, TriggerReport { crossed, activated: turns, ended: 0, waiting: crossed - turns });
    chain.next(PRICE);
    let report = chain.ledger.activate_triggers();
    assert_eq!((report.crossed, report.activated), (0, turns));
    arm(&mut chain, last, above(51_000), terms);
    chain.end();
}

#[test]
fn what_finds_no_room_in_the_inbox_keeps_its_turn() {
    const MARKETS: u16 = 9;
    let mut one = common::market("X", 1);
    one.orders.max_activations = limits::MAX_ACTIVATIONS_PER_BLOCK as u16;
    let named = |at| MarketParams { symbol: format!("X{at}").parse().unwrap(), ..one.clone() };
    let params = ChainParams { markets: (0..MARKETS).map(named).collect(), ..common::params() };
    let mut chain = Chain::new(0);
    chain.ledger = Ledger::genesis(&params, TimeMs(1), users(1_200, 1_000_000_000)).unwrap();
    let begin = |chain: &mut Chain, price: u64| {
        let height = chain.ledger.globals().height.next();
        chain.ledger.begin_block(height, TimeMs(1 + height.0 * 100));
        chain.ledger.set_marks(&(0..MARKETS).map(|at| (MarketId(at), fresh(price))).collect::<Vec<_>>());
    };
    begin(&mut chain, 500);
    // An account each for the orders of a market, so that none has many.
    for (id, at) in (1..).zip((0..MARKETS).flat_map(|at| [at; 64])) {
        for _ in 0..64 {
            arm(&mut chain, AccountId(id), above(510), order(MarketId(at), Side::Buy, 500, 1));
        }
    }
    chain.end();
    begin(&mut chain, 510);
    let asked = limits::MAX_ENTRIES_PER_INBOX / 2;
    for (id, at) in (600..).zip((0..8).flat_map(|at| [at; 64])) {
        let many = vec![order(MarketId(at), Side::Buy, 500, 1); 64];
        chain.apply(AccountId(id), Action::PlaceMany(many)).unwrap();
    }
    let one_more = Action::Place(order(MarketId(8), Side::Buy, 500, 1));
    assert_eq!(chain.apply(AccountId(1_199), one_more), Err(Refusal::InboxFull));
    let report = chain.ledger.activate_triggers();
    assert_eq!((report.activated, report.ended, report.waiting), (asked as u64, 0, 4_096));
    chain.end();
    begin(&mut chain, 500);
    let report = chain.ledger.activate_triggers();
    assert_eq!((report.crossed, report.activated, report.waiting), (0, 4_096, 0));
    chain.end();
}

#[test]
fn a_scheduled_cancel_ends_all_orders_once_when_block_time_has_come() {
    let mut chain = Chain::new(10_000_000);
    let at = |chain: &Chain, ahead: u64| Some(TimeMs(chain.ledger.globals().time.0 + ahead));
    let soon = Action::ScheduleCancel { at: at(&chain, limits::MIN_SCHEDULE_MS - 1) };
    assert_eq!(chain.apply(ALICE, soon), Err(Refusal::ScheduledTooSoon));
    let due = at(&chain, limits::MIN_SCHEDULE_MS);
    assert_eq!(chain.apply(ALICE, Action::ScheduleCancel { at: due }), Ok(Receipt::Scheduled));
    assert_eq!(chain.account(ALICE).cancel_at, due);
    chain.trade(ALICE, BOB, true, 10);
    let live = chain.place(ALICE, order(BTC, Side::Buy, PRICE, 1));
    let eth = chain.place(ALICE, order(ETH, Side::Buy, 3_000, 1));
    let closes = arm(&mut chain, ALICE, below(49_000), stop(Side::Sell, 10));
    let others = chain.place(BOB, order(BTC, Side::Sell, 51_000, 1));
    chain.next(PRICE);
    assert_eq!(chain.ledger.run_scheduled_cancels(), 0);
    chain.end();
    let height = chain.ledger.globals().height.next();
    chain.ledger.begin_block(height, due.unwrap());
    assert_eq!(chain.ledger.run_scheduled_cancels(), 1);
    assert_eq!(chain.ledger.order(closes), None);
    for (id, leaving) in [(live, Some(height)), (eth, Some(height)), (others, None)] {
        assert_eq!(chain.ledger.order(id).unwrap().leaving, leaving);
    }
    assert_eq!((chain.account(ALICE).cancel_at, chain.ledger.run_scheduled_cancels()), (None, 0), "once");
    chain.end();
    let told = chain.delta.as_ref().unwrap().events.clone();
    let event = Event::ScheduledCancel { account: ALICE, orders: 3 };
    assert_eq!(told, [ended(closes, ALICE, TriggerEnd::Scheduled), event]);
    let all = Request::CancelAll { market: None, keep_reduce_only: false };
    assert_eq!(entries(&chain, 0, height.0), [(0, ALICE, all)]);
    assert_eq!(entries(&chain, 1, height.0), [(1, ALICE, all)]);
}

#[test]
fn a_switch_that_is_set_anew_or_taken_off_does_nothing() {
    let mut chain = Chain::new(10_000_000);
    let first = chain.ledger.globals().time.0 + 5_000;
    for (who, after) in [(ALICE, Some(TimeMs(first + 10_000))), (BOB, None)] {
        chain.place(who, order(BTC, Side::Buy, PRICE, 1));
        chain.apply(who, Action::ScheduleCancel { at: Some(TimeMs(first)) }).unwrap();
        chain.apply(who, Action::ScheduleCancel { at: after }).unwrap();
    }
    chain.end();
    let restored = Ledger::from_records(chain.ledger.records()).unwrap();
    for mut ledger in [chain.ledger, restored] {
        ledger.begin_block(Height(2), TimeMs(first));
        assert_eq!(ledger.run_scheduled_cancels(), 0);
        ledger.end_block();
        ledger.begin_block(Height(3), TimeMs(first + 10_000));
        assert_eq!(ledger.run_scheduled_cancels(), 1);
        ledger.end_block();
    }
}

#[test]
fn more_switches_than_a_block_carries_out_wait_the_oldest_first() {
    let count = limits::MAX_SCHEDULED_PER_BLOCK as u64 + 2;
    let mut ledger = Ledger::genesis(&order_params(), TimeMs(1), users(count + 1, 1_000_000)).unwrap();
    ledger.begin_block(Height(1), TimeMs(2));
    for id in 1..=count {
        // The higher the id, the older.
        let at = Some(TimeMs(10_000 - id));
        ledger.apply(AccountId(id), Nonce(1), Height(3), &Action::ScheduleCancel { at }).unwrap();
    }
    ledger.end_block();
    ledger.begin_block(Height(2), TimeMs(10_000));
    assert_eq!(ledger.run_scheduled_cancels(), count - 2);
    let armed: Vec<u64> =
        (1..=count).filter(|id| ledger.account(AccountId(*id)).unwrap().cancel_at.is_some()).collect();
    assert_eq!(armed, [1, 2]);
    ledger.end_block();
    ledger.begin_block(Height(3), TimeMs(10_001));
    assert_eq!(ledger.run_scheduled_cancels(), 2);
    ledger.end_block();
}
