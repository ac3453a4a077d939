//! Claims about liquidation, one scenario each.

mod common;

use common::*;
use seawall_ledger::*;
use seawall_types::*;

const BTC: MarketId = MarketId(0);
const ETH: MarketId = MarketId(1);

/// One market or more without funding, fees or backstop, unless the test adds them.
fn bare(markets: usize) -> ChainParams {
    let mut params = params();
    params.insurance = Atoms(0);
    params.liquidation_steps = 1_000;
    params.max_wait_blocks = 10;
    params.markets = (0..markets)
        .map(|n| {
            let mut market = market(&format!("M{n}"), 1);
            market.funding.interest_ppm = 0;
            market.taker_fee_ppm = Ppm(0);
            market.maker_fee_ppm = Ppm(0);
            market.tiers.truncate(1);
            market.backstop =
                BackstopParams { initial_fund: Atoms(0), capacity_lots: Lots(0), per_block_lots: Lots(0) };
            market
        })
        .collect();
    params
}

fn leg(market: MarketId, lots: i64, price: i128) -> GenesisPosition {
    GenesisPosition {
        market,
        lots: Lots(lots),
        cost: Atoms(i128::from(lots) * price),
        mode: MarginMode::Cross,
        isolated: Atoms(0),
    }
}

fn isolated(market: MarketId, lots: i64, price: i128, collateral: i128) -> GenesisPosition {
    GenesisPosition { mode: MarginMode::Isolated, isolated: Atoms(collateral), ..leg(market, lots, price) }
}

/// Accounts 1, 2, ... after an idle issuer.
fn world(params: &ChainParams, accounts: &[(i128, &[GenesisPosition])]) -> Ledger {
    let issuer = GenesisAccount { owner: Key::default(), collateral: Atoms(0), positions: vec![] };
    let accounts = accounts.iter().map(|(collateral, positions)| GenesisAccount {
        owner: Key::default(),
        collateral: Atoms(*collateral),
        positions: positions.to_vec(),
    });
    Ledger::genesis(params, TimeMs(0), core::iter::once(issuer).chain(accounts)).unwrap()
}

fn block(ledger: &mut Ledger, marks: &[(MarketId, Mark)]) -> (SweepReport, Vec<Event>) {
    block_with(ledger, marks, &mut NoVenue)
}

fn block_with(
    ledger: &mut Ledger,
    marks: &[(MarketId, Mark)],
    venue: &mut dyn CloseVenue,
) -> (SweepReport, Vec<Event>) {
    let height = ledger.globals().height.next();
    ledger.begin_block(height, TimeMs(height.0 * 1_000));
    ledger.set_marks(marks);
    ledger.accrue_funding();
    let report = ledger.sweep(venue);
    let delta = ledger.end_block();
    assert_eq!(ledger.audit(), Ok(()));
    assert_eq!(report.stale_price_liquidations, 0);
    (report, delta.events)
}

fn account(ledger: &Ledger, id: u64) -> &Account {
    ledger.account(AccountId(id)).unwrap()
}

fn lots(ledger: &Ledger, id: u64, market: MarketId) -> i64 {
    account(ledger, id).lots(market).0
}

#[test]
fn a_partial_close_restores_initial_margin_with_the_fewest_lots() {
    let mut params = bare(1);
    params.markets[0].backstop = BackstopParams {
        initial_fund: Atoms(10_000_000),
        capacity_lots: Lots(1_000),
        per_block_lots: Lots(1_000),
    };
    // 100 lots at 1,000 with 4,400: equity at 980 is 2,400, maintenance 2,450.
    let mut ledger = world(&params, &[(4_400, &[leg(BTC, 100, 1_000)]), (1 << 30, &[leg(BTC, -100, 1_000)])]);
    let (report, _) = block(&mut ledger, &[(BTC, fresh(1_000))]);
    assert_eq!(report.in_breach, 0);
    let (report, events) = block(&mut ledger, &[(BTC, fresh(980))]);
    assert_eq!(
        (report.in_breach, report.liquidations, report.partial, report.backstop_takeovers),
        (1, 1, 1, 1)
    );
    let Event::Liquidated(event) = &events[0] else { panic!("{events:?}") };
    let health = ledger.health(AccountId(1)).unwrap();
    assert!(health.equity >= health.initial, "{health:?}");
    // With one lot less it would not have been: 49 atoms of margin a lot against 9.8 of penalty.
    assert!(health.equity.0 - health.initial.0 < 40, "{health:?}");
    assert_eq!(event.backstop.0, 100 - lots(&ledger, 1, BTC));
    assert_eq!(event.penalty.0, (event.backstop.0 as i128 * 980 * 10_000 + 999_999) / 1_000_000);
    let backstop = ledger.market(BTC).unwrap().backstop;
    assert_eq!(ledger.health(backstop).unwrap().equity, Atoms(10_000_000) + event.penalty);
    assert_eq!((event.breached, event.height), (Height(2), Height(2)), "no delay");
}

#[test]
fn the_backstop_is_capped_by_capacity_block_limit_and_fund() {
    for (fund, capacity, per_block, most) in
        [(10_000_000, 7, 1_000, 7), (10_000_000, 1_000, 5, 5), (500, 1_000, 1_000, 10), (0, 1_000, 1_000, 0)]
    {
        let mut params = bare(1);
        params.markets[0].backstop = BackstopParams {
            initial_fund: Atoms(fund),
            capacity_lots: Lots(capacity),
            per_block_lots: Lots(per_block),
        };
        let mut ledger =
            world(&params, &[(4_400, &[leg(BTC, 100, 1_000)]), (1 << 30, &[leg(BTC, -100, 1_000)])]);
        block(&mut ledger, &[(BTC, fresh(1_000))]);
        let (report, events) = block(&mut ledger, &[(BTC, fresh(980))]);
        let Some(Event::Liquidated(event)) =
            events.iter().find(|event| matches!(event, Event::Liquidated(_)))
        else {
            panic!("{events:?}")
        };
        assert_eq!(event.backstop, Lots(most), "fund {fund}, capacity {capacity}, per block {per_block}");
        assert!(event.deleveraged.0 > 0, "the rest is deleveraged");
        assert_eq!(lots(&ledger, 2, BTC), -100 + event.deleveraged.0);
        assert_eq!(report.uncovered, Atoms(0));
        // The counterparty got its lots at the mark price less the penalty: never worse than the mark.
        assert!(events.iter().all(|event| !matches!(event, Event::Deleveraged { gain, .. } if gain.0 < 0)));
    }
}

#[test]
fn a_deficit_is_paid_by_the_fund_then_insurance_then_by_the_other_side_at_the_bankruptcy_price() {
    // 100 lots at 1,000 with 5,000; at 900 the deficit is 5,000.
    for (fund, insurance, from_fund, from_insurance, charged) in
        [(6_000, 6_000, 5_000, 0, 0), (2_000, 6_000, 2_000, 3_000, 0), (2_000, 1_000, 2_000, 1_000, 2_000)]
    {
        let mut params = bare(1);
        params.insurance = Atoms(insurance);
        params.markets[0].backstop.initial_fund = Atoms(fund);
        let mut ledger =
            world(&params, &[(5_000, &[leg(BTC, 100, 1_000)]), (50_000, &[leg(BTC, -100, 1_000)])]);
        block(&mut ledger, &[(BTC, fresh(1_000))]);
        let (report, _) = block(&mut ledger, &[(BTC, fresh(900))]);
        assert_eq!(report.bad_debt, Atoms(5_000));
        assert_eq!(
            (report.fund_draw.0, report.insurance_draw.0, report.socialised.0, report.uncovered.0),
            (from_fund, from_insurance, charged, 0)
        );
        assert_eq!(account(&ledger, 1).collateral, Atoms(0));
        assert_eq!(account(&ledger, 1).positions, vec![]);
        assert_eq!(account(&ledger, 2).collateral, Atoms(50_000 + 10_000 - charged));
        assert_eq!(ledger.market(BTC).unwrap().open_interest, Lots(0));
        assert_eq!(ledger.market(BTC).unwrap().quarantined, None);
    }
}

#[test]
fn what_nobody_can_pay_is_booked_and_quarantines_only_its_market() {
    let mut params = bare(2);
    params.liquidation_steps = 1;
    let (long, short, newcomer) = (AccountId(1), AccountId(2), AccountId(3));
    let mut ledger = world(
        &params,
        &[
            (5_000, &[leg(BTC, 100, 1_000)]),
            (5_000, &[leg(BTC, -100, 1_000)]),
            (4_500, &[]),
            (50_000, &[leg(ETH, 1_000, 1_000)]),
            (1 << 30, &[leg(ETH, -1_000, 1_000)]),
        ],
    );
    block(&mut ledger, &[(BTC, fresh(1_000)), (ETH, fresh(1_000))]);
    // The long's deficit of 5,000 waits behind a larger one. Meanwhile the short sells its gain to a
    // newcomer who has just the initial margin, and takes it off the chain.
    let height = ledger.globals().height.next();
    ledger.begin_block(height, TimeMs(height.0 * 1_000));
    ledger.set_marks(&[(BTC, fresh(900)), (ETH, fresh(900))]);
    let report = ledger.sweep(&mut NoVenue);
    assert_eq!((report.liquidations, report.waiting), (1, 1));
    let action = fill(&ledger, short, newcomer, 0, Side::Sell, 900, 100, 1);
    ledger.apply(short, Nonce(1), height, &action).unwrap();
    let action = Action::Withdraw { amount: Atoms(15_000), recipient: Recipient::default() };
    ledger.apply(short, Nonce(2), height, &action).unwrap();
    ledger.end_block();
    let (report, events) = block(&mut ledger, &[]);
    assert_eq!(report.bad_debt, Atoms(5_000));
    assert_eq!(report.socialised, Atoms(4_500), "no more than the newcomer has");
    assert_eq!(report.uncovered, Atoms(500), "{events:?}");
    assert_eq!(ledger.globals().uncovered, Atoms(500));
    assert_eq!(ledger.account(newcomer).unwrap().collateral, Atoms(0));
    assert_eq!(ledger.account(long).unwrap().collateral, Atoms(0));
    let reason = QuarantineReason::UncoveredDeficit;
    assert_eq!(ledger.market(BTC).unwrap().quarantined, Some((Height(3), reason)));
    // Nobody trades there any more; the other market goes on.
    let height = ledger.globals().height.next();
    ledger.begin_block(height, TimeMs(height.0 * 1_000));
    let (a, b) = (AccountId(4), AccountId(5));
    let action = fill(&ledger, b, a, 0, Side::Buy, 900, 1, 2);
    assert_eq!(ledger.check(b, Nonce(3), height, &action), Err(Refusal::MarketQuarantined));
    ledger.end_block();
    assert_eq!(ledger.market(ETH).unwrap().quarantined, None);
}

#[test]
fn all_open_interest_can_be_liquidated_with_empty_funds() {
    for price in [100, 9_000] {
        let mut params = bare(2);
        params.max_wait_blocks = 1;
        let sides: Vec<[GenesisPosition; 1]> =
            (0..20).map(|n| [leg(BTC, if n % 2 == 0 { 50 } else { -50 }, 1_000)]).collect();
        let mut accounts: Vec<(i128, &[GenesisPosition])> =
            sides.iter().map(|leg| (2_600, &leg[..])).collect();
        let other = [[leg(ETH, 10, 1_000)], [leg(ETH, -10, 1_000)]];
        accounts.extend(other.iter().map(|leg| (100_000, &leg[..])));
        let mut ledger = world(&params, &accounts);
        block(&mut ledger, &[(BTC, fresh(1_000)), (ETH, fresh(1_000))]);
        let supply = ledger.globals().supply;
        let (report, _) = block(&mut ledger, &[(BTC, fresh(price))]);
        assert_eq!(report.liquidations, 10);
        assert_eq!(ledger.market(BTC).unwrap().open_interest, Lots(0));
        assert_eq!(ledger.globals().supply, supply);
        assert_eq!(report.uncovered, Atoms(0), "the winners' gains carry the losers' deficits");
        assert!((1..=20).all(|id| account(&ledger, id).collateral.0 >= 0));
        // Everybody together still holds what was put in.
        assert_eq!((1..=20).map(|id| account(&ledger, id).collateral.0).sum::<i128>(), 20 * 2_600);
        assert_eq!(ledger.market(ETH).unwrap().open_interest, Lots(10), "other markets go on");
        let (report, _) = block(&mut ledger, &[(ETH, fresh(1_010))]);
        assert_eq!(report.in_breach, 0);
    }
}

#[test]
fn an_isolated_deficit_never_touches_cross() {
    let params = bare(2);
    let mut ledger = world(
        &params,
        &[
            (777, &[isolated(BTC, 100, 1_000, 5_000)]),
            (100_000, &[leg(BTC, -60, 1_000)]),
            (888, &[isolated(BTC, -40, 1_000, 50_000)]),
        ],
    );
    block(&mut ledger, &[(BTC, fresh(1_000))]);
    let (report, _) = block(&mut ledger, &[(BTC, fresh(500))]);
    assert_eq!(report.bad_debt, Atoms(45_000));
    assert_eq!(account(&ledger, 1).collateral, Atoms(777));
    assert_eq!(account(&ledger, 1).positions, vec![]);
    // Cross in trouble does not touch an isolated position either.
    let mut ledger = world(
        &params,
        &[
            (5_000, &[isolated(BTC, 100, 1_000, 50_000), leg(ETH, 100, 1_000)]),
            (1 << 30, &[leg(BTC, -100, 1_000), leg(ETH, -100, 1_000)]),
        ],
    );
    block(&mut ledger, &[(BTC, fresh(1_000)), (ETH, fresh(1_000))]);
    block(&mut ledger, &[(ETH, fresh(500))]);
    let account = account(&ledger, 1);
    assert_eq!(account.collateral, Atoms(0));
    assert_eq!(account.position(BTC).unwrap().lots, Lots(100));
    assert_eq!(account.position(BTC).unwrap().isolated, Atoms(50_000));
}

#[test]
fn blind_legs_count_in_favour_within_the_range_and_are_never_liquidated() {
    let params = bare(2);
    let build = || {
        world(
            &params,
            &[
                (14_000, &[leg(BTC, 100, 1_000), leg(ETH, 100, 1_000)]),
                (1 << 30, &[leg(BTC, -100, 1_000), leg(ETH, -100, 1_000)]),
            ],
        )
    };
    // Fresh: a fall of ETH to 880 leaves 2,000 against about 4,700.
    let mut ledger = build();
    block(&mut ledger, &[(BTC, fresh(1_000)), (ETH, fresh(1_000))]);
    assert_eq!(block(&mut ledger, &[(ETH, fresh(880))]).0.in_breach, 1);
    // BTC blind: it counts as if up to 10 % higher, so the same fall is no breach ...
    let mut ledger = build();
    block(&mut ledger, &[(BTC, fresh(1_000)), (ETH, fresh(1_000))]);
    let blind = (BTC, mark(PriceState::Stale, 1_000));
    assert_eq!(block(&mut ledger, &[blind, (ETH, fresh(880))]).0.in_breach, 0);
    // ... a deeper one is, and closes the fresh leg alone.
    let (report, events) = block(&mut ledger, &[(ETH, fresh(780))]);
    assert_eq!(report.in_breach, 1);
    assert!(events.iter().all(|event| !matches!(event, Event::Liquidated(event) if event.market == BTC)));
    assert_eq!(lots(&ledger, 1, BTC), 100);
    assert!(lots(&ledger, 1, ETH) < 100);
    // When the price is back, the favour ends: found although no price moved.
    let mut ledger = build();
    block(&mut ledger, &[(BTC, fresh(1_000)), (ETH, fresh(1_000))]);
    block(&mut ledger, &[blind, (ETH, fresh(880))]);
    assert_eq!(block(&mut ledger, &[(BTC, mark(PriceState::Reopening, 1_000))]).0.in_breach, 0);
    assert_eq!(block(&mut ledger, &[(BTC, fresh(1_000))]).0.in_breach, 1);
}

#[test]
fn a_compartment_with_blind_legs_only_is_left_alone() {
    let mut ledger =
        world(&bare(1), &[(5_000, &[leg(BTC, 100, 1_000)]), (1 << 30, &[leg(BTC, -100, 1_000)])]);
    block(&mut ledger, &[(BTC, fresh(1_000))]);
    for state in [PriceState::Stale, PriceState::Disputed, PriceState::Reopening, PriceState::Quarantined] {
        let (report, events) = block(&mut ledger, &[(BTC, mark(state, 500))]);
        assert_eq!((report.in_breach, events.len()), (0, 0));
    }
    assert_eq!(block(&mut ledger, &[(BTC, fresh(500))]).0.liquidations, 1);
}

#[test]
fn largest_shortfall_first_inside_the_budget_and_nobody_waits_longer_than_the_limit() {
    let mut params = bare(1);
    params.liquidation_steps = 1;
    params.max_wait_blocks = 4;
    params.markets[0].backstop = BackstopParams {
        initial_fund: Atoms(100_000_000),
        capacity_lots: Lots(100_000),
        per_block_lots: Lots(100_000),
    };
    let legs: Vec<[GenesisPosition; 1]> = (0..6).map(|n| [leg(BTC, 10 * (n + 1), 1_000)]).collect();
    let short = [leg(BTC, -210, 1_000)];
    let mut accounts: Vec<(i128, &[GenesisPosition])> = Vec::new();
    for (n, leg) in legs.iter().enumerate() {
        accounts.push((300 * (n as i128 + 1), &leg[..]));
    }
    accounts.push((1 << 30, &short));
    let mut ledger = world(&params, &accounts);
    block(&mut ledger, &[(BTC, fresh(1_000))]);
    // All six fall into breach at once; 6 compartments over 4 blocks are 2 a block at first.
    let mut order = Vec::new();
    let mut delays = Vec::new();
    for n in 0..6 {
        let (report, events) = block(&mut ledger, &[(BTC, fresh(985))]);
        assert_eq!(report.budget_hits, u64::from(report.waiting > 0));
        assert_eq!(report.unliquidated_breach.0 > 0, report.waiting > 0);
        assert!(n > 0 || report.steps == 2);
        for event in events {
            if let Event::Liquidated(event) = event {
                order.push(event.account.0);
                delays.push(event.height.0 - event.breached.0);
            }
        }
    }
    assert_eq!(order, [6, 5, 4, 3, 2, 1], "largest shortfall first");
    assert!(delays.iter().all(|delay| *delay <= 4), "{delays:?}");
    assert!(ledger.records().all(|(_, record)| match record {
        Record::Account(account) => account.breached.is_none(),
        _ => true,
    }));
}

#[test]
fn who_recovers_waits_no_more() {
    let mut params = bare(1);
    params.liquidation_steps = 1;
    let mut ledger = world(
        &params,
        &[(300, &[leg(BTC, 10, 1_000)]), (600, &[leg(BTC, 20, 1_000)]), (1 << 30, &[leg(BTC, -30, 1_000)])],
    );
    block(&mut ledger, &[(BTC, fresh(1_000))]);
    let (report, _) = block(&mut ledger, &[(BTC, fresh(985))]);
    assert_eq!((report.liquidations, report.waiting), (1, 1));
    assert_eq!(account(&ledger, 1).breached, Some(Height(2)));
    let (report, _) = block(&mut ledger, &[(BTC, fresh(1_000))]);
    assert_eq!(report.in_breach, 0);
    assert_eq!(account(&ledger, 1).breached, None);
}

#[test]
fn deleveraging_takes_net_exposure_first_and_hedges_last_pro_rata() {
    // Account 1 is bankrupt with 100 lots. Others: 60 and 30 short without a hedge, 50 short against a
    // long of the same size elsewhere.
    let params = bare(2);
    let build = |bankrupt: i64| {
        world(
            &params,
            &[
                (0, &[leg(BTC, bankrupt, 1_000)]),
                (1 << 30, &[leg(BTC, -60, 1_000)]),
                (1 << 30, &[leg(BTC, -30, 1_000)]),
                (1 << 30, &[leg(BTC, -50, 1_000), leg(ETH, 50, 1_000)]),
                (1 << 30, &[leg(BTC, 140 - bankrupt, 1_000), leg(ETH, -50, 1_000)]),
            ],
        )
    };
    // (lots of the bankrupt, what accounts 2, 3 and 4 keep)
    for (bankrupt, left) in [(45, [-30, -15, -50]), (46, [-29, -15, -50]), (100, [0, 0, -40])] {
        let mut ledger = build(bankrupt);
        block(&mut ledger, &[(BTC, fresh(1_000)), (ETH, fresh(1_000))]);
        assert_eq!(lots(&ledger, 1, BTC), 0);
        let kept = [2, 3, 4].map(|id| lots(&ledger, id, BTC));
        assert_eq!(kept, left, "bankrupt with {bankrupt} lots");
    }
}

#[test]
fn longs_and_shorts_to_be_deleveraged_close_against_each_other() {
    let params = bare(1);
    let mut ledger = world(
        &params,
        &[
            (10, &[leg(BTC, 40, 1_000)]),
            (10, &[leg(BTC, -40, 1_000)]),
            (1 << 30, &[leg(BTC, 60, 1_000)]),
            (1 << 30, &[leg(BTC, -60, 1_000)]),
        ],
    );
    let (report, events) = block(&mut ledger, &[(BTC, fresh(1_000))]);
    assert_eq!((report.liquidations, report.deleveraged), (2, 0), "{events:?}");
    assert_eq!((lots(&ledger, 3, BTC), lots(&ledger, 4, BTC)), (60, -60));
    assert_eq!(ledger.market(BTC).unwrap().open_interest, Lots(60));
    assert_eq!(ledger.globals().insurance, Atoms(20), "penalties without a taker are insurance income");
}

/// Buys at its price.
struct Buyer(AccountId, PriceTicks, Vec<CloseOrder>);

impl CloseVenue for Buyer {
    fn close(&mut self, order: &CloseOrder) -> Vec<VenueFill> {
        self.2.push(*order);
        vec![VenueFill { maker: self.0, lots: order.lots.abs(), price: self.1 }]
    }
}

#[test]
fn a_venue_comes_before_the_backstop_and_sells_no_lower_than_bankruptcy() {
    // Equity at 980 is 2,400 on 100 lots: bankruptcy at 956.
    for (price, filled) in [(979, true), (956, true), (955, false)] {
        let params = bare(1);
        let mut ledger = world(
            &params,
            &[(4_400, &[leg(BTC, 100, 1_000)]), (1 << 30, &[leg(BTC, -100, 1_000)]), (1 << 30, &[])],
        );
        block(&mut ledger, &[(BTC, fresh(1_000))]);
        let mut venue = Buyer(AccountId(3), PriceTicks(price), Vec::new());
        let (_, events) = block_with(&mut ledger, &[(BTC, fresh(980))], &mut venue);
        assert_eq!(venue.2[0].limit, PriceTicks(956));
        assert!(venue.2[0].lots.0 < 0);
        assert_eq!(lots(&ledger, 3, BTC) > 0, filled, "at {price}: {events:?}");
        assert!(lots(&ledger, 1, BTC) < 100, "filled or not, the breach ends");
    }
}

#[test]
fn funding_moves_value_from_longs_to_shorts_and_dust_to_insurance() {
    let mut params = bare(1);
    params.markets[0].funding = FundingParams { interval_ms: 3_000, cap_ppm: Ppm(7_500), interest_ppm: 100 };
    let mut ledger = world(&params, &[(100_000, &[leg(BTC, 7, 1_000)]), (100_000, &[leg(BTC, -7, 1_000)])]);
    // 7 lots x 1,000 x 100 ppm x 1/3 a block: 0.2333 atoms a block.
    let start = block(&mut ledger, &[(BTC, fresh(1_000))]);
    assert_eq!(start.0.in_breach, 0);
    for _ in 0..29 {
        block(&mut ledger, &[]);
    }
    assert_eq!(ledger.health(AccountId(1)).unwrap().equity, Atoms(100_000 - 7), "rounded against the payer");
    assert_eq!(ledger.health(AccountId(2)).unwrap().equity, Atoms(100_000 + 6), "and the receiver");
    // While blind, no funding accrues.
    let index = ledger.market(BTC).unwrap().funding_index;
    block(&mut ledger, &[(BTC, mark(PriceState::Stale, 1_000))]);
    block(&mut ledger, &[]);
    assert_eq!(ledger.market(BTC).unwrap().funding_index, index);
    // Closing settles: the pool holds what is not yet a whole atom of dust.
    let height = ledger.globals().height.next();
    ledger.begin_block(height, TimeMs(height.0 * 1_000));
    let close = fill(&ledger, AccountId(1), AccountId(2), 0, Side::Buy, 1_000, 7, 1);
    ledger.apply(AccountId(1), Nonce(1), height, &close).unwrap();
    ledger.end_block();
    let market = ledger.market(BTC).unwrap();
    assert_eq!(account(&ledger, 1).collateral + account(&ledger, 2).collateral, Atoms(200_000 - 1));
    assert_eq!(market.funding_pool + ledger.globals().insurance, Atoms(1));
}
