//! Claims about the leverage that an account chooses for itself.

mod common;

use common::{ALICE, BOB, BTC, Chain, PRICE, close, order, order_params, tier, users};
use proptest::prelude::*;
use seawall_ledger::*;
use seawall_types::*;

const DOGE: MarketId = MarketId(2);

fn choose(chain: &mut Chain, market: MarketId, leverage: u32) -> Result<Receipt, Refusal> {
    chain.apply(ALICE, Action::SetLeverage { market, leverage })
}

const SET: Result<Receipt, Refusal> = Ok(Receipt::LeverageSet);

#[test]
fn it_raises_initial_margin_and_nothing_else() {
    let notional = 20 * PRICE as i128;
    let cases = [(20, 50_000), (19, 52_632), (10, 100_000), (3, 333_334), (1, 1_000_000)];
    for (leverage, ppm) in cases {
        let mut chain = Chain::new(100_000_000);
        chain.trade(ALICE, BOB, true, 20);
        let before = chain.ledger.health(ALICE).unwrap();
        let (sweep, mark) = (chain.ledger.margin_check(ALICE), chain.account(ALICE).collateral);
        assert_eq!(choose(&mut chain, BTC, leverage), SET);
        let initial = Atoms(notional * ppm / 1_000_000);
        let after = chain.ledger.health(ALICE).unwrap();
        assert_eq!((after.initial, after.maintenance), (initial, before.maintenance), "{leverage}");
        let more = initial - before.initial;
        assert_eq!(after.available, before.available - more, "{leverage}");
        assert_eq!(after.withdrawable, before.withdrawable - more, "{leverage}");
        assert_eq!((after.equity, chain.account(ALICE).collateral), (before.equity, mark));
        assert_eq!(chain.ledger.margin_check(ALICE), sweep, "the sweep sees nothing of it");
        let kept = (leverage < 20).then_some((BTC, leverage));
        assert_eq!(chain.account(ALICE).leverage, Vec::from_iter(kept), "the maximum is what holds anyway");
        chain.end();
        assert_eq!(Ledger::from_records(chain.ledger.records()).unwrap().health(ALICE), Some(after));
    }
}

#[test]
fn what_it_is_refused_for() {
    let mut chain = Chain::new(10_000_000);
    assert_eq!(choose(&mut chain, MarketId(9), 1), Err(Refusal::UnknownMarket));
    for leverage in [0, 21, u32::MAX] {
        assert_eq!(choose(&mut chain, BTC, leverage), Err(Refusal::LeverageRange), "{leverage}");
    }
    // 100 lots are 5,000,000 atoms: at 1 they are half the account, at 2 a quarter.
    chain.trade(ALICE, BOB, true, 100);
    chain.place(ALICE, order(BTC, Side::Buy, PRICE, 110));
    let before: Vec<_> = chain.ledger.records().collect();
    assert_eq!(choose(&mut chain, BTC, 1), Err(Refusal::InsufficientMargin), "position and order");
    assert_eq!(chain.ledger.records().collect::<Vec<_>>(), before);
    let reserved = chain.account(ALICE).reserved.0;
    assert_eq!(choose(&mut chain, BTC, 2), SET);
    assert!(chain.account(ALICE).reserved.0 > reserved * 5, "the order as well");
    assert_eq!(choose(&mut chain, BTC, 1), Err(Refusal::InsufficientMargin));
    // Where nothing is open there is nothing to cover.
    assert_eq!(choose(&mut chain, MarketId(1), 1), SET);
    let amount = chain.ledger.health(ALICE).unwrap().withdrawable;
    chain.apply(ALICE, Action::Withdraw { amount, recipient: Recipient::default() }).unwrap();
    chain.next(PRICE * 90 / 100);
    assert!(chain.ledger.health(ALICE).unwrap().available < Atoms::ZERO);
    assert_eq!(choose(&mut chain, BTC, 3), SET, "what lowers the requirement is always allowed");
    assert_eq!(choose(&mut chain, BTC, 20), SET);
    assert_eq!(choose(&mut chain, BTC, 2), Err(Refusal::InsufficientMargin), "and what raises it is not");
    chain.end();
}

#[test]
fn new_risk_needs_it_in_orders_quoted_fills_and_triggers() {
    let trigger = Trigger { price: PriceTicks(60_000), crossing: Crossing::Above };
    // 100 lots are 5,000,000 atoms, and 112 lots with their fee are more than there is.
    for (lots, leverage, fits) in [(100, 1, true), (200, 2, true), (112, 1, false), (224, 2, false)] {
        let mut chain = Chain::new(5_600_000);
        choose(&mut chain, BTC, leverage).unwrap();
        let terms = order(BTC, Side::Buy, PRICE, lots);
        let quoted = common::fill(&chain.ledger, ALICE, BOB, 0, Side::Sell, PRICE, lots, 900);
        for action in [Action::Place(terms), Action::PlaceTrigger { trigger, terms }, quoted] {
            // The maker of the quote has chosen nothing.
            let expected = if fits { Ok(()) } else { Err(Refusal::InsufficientMargin) };
            let height = chain.ledger.globals().height;
            let checked = chain.ledger.check(ALICE, Nonce(77), height, &action);
            assert_eq!(checked, expected, "{lots} lots at {leverage}: {}", action.name());
        }
        chain.end();
    }
}

#[test]
fn an_isolated_position_takes_what_it_needs_under_it() {
    let mut chain = Chain::new(10_000_000);
    choose(&mut chain, DOGE, 4).unwrap();
    let action = common::fill(&chain.ledger, ALICE, BOB, 2, Side::Sell, 700, 100, 900);
    chain.apply(ALICE, action).unwrap();
    let notional = 700 * 3 * 100;
    let position = chain.account(ALICE).position(DOGE).unwrap();
    assert_eq!(position.isolated, Atoms(notional / 4));
    assert_eq!(
        choose(&mut chain, DOGE, 3),
        Err(Refusal::InsufficientMargin),
        "its own margin covers it or not"
    );
    let (market, amount) = (DOGE, Atoms(notional / 3 - notional / 4 + 1));
    chain.apply(ALICE, Action::TopUpIsolated { market, amount }).unwrap();
    assert_eq!(choose(&mut chain, DOGE, 3), SET);
    let release = Action::ReleaseIsolated { market, amount };
    assert_eq!(chain.apply(ALICE, release.clone()), Err(Refusal::InsufficientCollateral));
    assert_eq!(choose(&mut chain, DOGE, 4), SET);
    assert!(chain.apply(ALICE, release).is_ok());
    chain.end();
}

#[test]
fn liquidation_takes_no_more_for_it() {
    let fates = [20, 1].map(|leverage| {
        let accounts = users(6, 0).enumerate().map(|(at, own)| GenesisAccount {
            collateral: Atoms(if at == 1 { 1_100_000 } else { 900_000_000 }),
            ..own
        });
        let mut chain = Chain::new(0);
        chain.ledger = Ledger::genesis(&order_params(), TimeMs(1), accounts).unwrap();
        chain.begin(PRICE);
        chain.trade(ALICE, BOB, true, 200);
        chain.end();
        // No account can choose what its margin does not cover, but a mark can take it there, so a record can say so.
        let records = chain.ledger.records().map(|(key, mut record)| {
            if let (RecordKey::Account(ALICE), Record::Account(account)) = (key, &mut record) {
                account.leverage = if leverage < 20 { vec![(BTC, leverage)] } else { vec![] };
            }
            (key, record)
        });
        chain.ledger = Ledger::from_records(records.collect::<Vec<_>>().into_iter()).unwrap();
        chain.begin(PRICE * 91 / 100);
        let report = chain.ledger.sweep(&mut NoVenue);
        chain.end();
        (report.in_breach, report.partial, chain.lots(ALICE), chain.account(ALICE).collateral)
    });
    assert_eq!(fates[0], fates[1]);
    let (in_breach, partial, lots, _) = fates[0];
    assert_eq!((in_breach, partial), (1, 1));
    assert!(0 < lots && lots < 200);
}

#[test]
fn a_close_is_never_refused_for_it() {
    let mut chain = Chain::new(6_000_000);
    chain.trade(ALICE, BOB, true, 200);
    choose(&mut chain, BTC, 2).unwrap();
    chain.next(PRICE * 70 / 100);
    assert!(chain.ledger.health(ALICE).unwrap().available < Atoms::ZERO);
    assert_eq!(
        chain.apply(ALICE, Action::Place(order(BTC, Side::Buy, PRICE, 1))),
        Err(Refusal::InsufficientMargin)
    );
    assert!(chain.apply(ALICE, Action::Close(close(Side::Sell, 100))).is_ok());
    chain.trade(ALICE, BOB, false, 40);
    assert_eq!(chain.lots(ALICE), 160);
    chain.end();
}

#[test]
fn records_of_leverages_out_of_order_or_range_are_refused() {
    let mut chain = Chain::new(10_000_000);
    chain.end();
    let with = |leverage: &[(u16, u32)]| {
        let records = chain.ledger.records().map(|(key, mut record)| {
            if let (RecordKey::Account(ALICE), Record::Account(account)) = (key, &mut record) {
                account.leverage = leverage.iter().map(|(market, own)| (MarketId(*market), *own)).collect();
            }
            (key, record)
        });
        Ledger::from_records(records.collect::<Vec<_>>().into_iter()).map(|_| ())
    };
    assert_eq!(with(&[(0, 1), (1, 19)]), Ok(()));
    for wrong in [&[(0, 0)][..], &[(0, 20)], &[(1, 3), (0, 3)], &[(0, 3), (0, 3)], &[(3, 1)]] {
        assert_eq!(with(wrong), Err(RestoreError::Account(ALICE)), "{wrong:?}");
    }
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The larger of two requirements; closing lowers it by more than the worst that a close can cost.
    #[test]
    fn own_margin_is_the_larger_requirement_and_each_closed_lot_pays_for_itself(
        unit in 1i128..=1_000,
        lots in 1i128..=1_000,
        leverage in 1u32..=20,
    ) {
        let rates = [tier(20_000, 50_000, 25_000), tier(300_000, 100_000, 50_000), tier(900_000, 400_000, 60_000)];
        let of = |tier: &TierParams| {
            (tier.up_to_notional.0, i128::from(tier.initial_ppm.0), i128::from(tier.maintenance_ppm.0))
        };
        let tiers: Vec<_> = kernel::schedule(rates.iter().map(of)).collect();
        let own = (1_000_000 + i128::from(leverage) - 1) / i128::from(leverage);
        prop_assert_eq!(kernel::leverage_rate(i128::from(leverage)), own);
        let needs = |lots: i128| kernel::own_margin(unit * lots, &tiers, own);
        prop_assert_eq!(needs(lots), bracket(unit * lots, &rates).max(unit * lots * own));
        prop_assert!(needs(lots) - needs(lots - 1) >= unit * 50_000, "at least the first tier's rate");
        let (buys, sells) = (lots / 3, lots / 2);
        let growth = kernel::worst_growth(unit, lots, buys, sells, &tiers, own);
        let worst = (-sells..=buys).map(|more| needs(lots + more) - needs(lots)).max().unwrap();
        prop_assert_eq!(growth, worst.max(0));
    }
}
