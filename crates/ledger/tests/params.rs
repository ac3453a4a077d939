//! Claims about parameters: each condition has a name.
#![allow(clippy::type_complexity)]

mod common;

use common::*;
use seawall_ledger::*;
use seawall_types::*;

#[test]
fn each_condition_on_a_market_has_a_name() {
    let id = MarketId(1);
    let rows: Vec<(fn(&mut MarketParams), ParamsError)> = vec![
        (|m| m.atoms_per_tick_lot = 0, ParamsError::AtomsPerTickLot(id)),
        (|m| m.atoms_per_tick_lot = limits::MAX_ATOMS_PER_TICK_LOT + 1, ParamsError::AtomsPerTickLot(id)),
        (|m| m.min_price = PriceTicks(0), ParamsError::PriceRange(id)),
        (|m| m.max_price = m.min_price, ParamsError::PriceRange(id)),
        (|m| m.max_price = PriceTicks(u64::MAX), ParamsError::PriceRange(id)),
        (|m| m.tiers.clear(), ParamsError::TierCount(id)),
        (|m| m.tiers = vec![m.tiers[0]; limits::MAX_TIERS + 1], ParamsError::TierCount(id)),
        (|m| m.tiers[0].up_to_notional = Atoms(0), ParamsError::TierOrder(id)),
        (|m| m.tiers[1].up_to_notional = m.tiers[0].up_to_notional, ParamsError::TierOrder(id)),
        (|m| m.tiers[2].up_to_notional = Atoms(i128::MAX), ParamsError::TierOrder(id)),
        (|m| m.tiers[0].maintenance_ppm = Ppm(0), ParamsError::TierRates(id)),
        (|m| m.tiers[0].maintenance_ppm = m.tiers[0].initial_ppm, ParamsError::TierRates(id)),
        (|m| m.tiers[2].initial_ppm = Ppm(1_000_001), ParamsError::TierRates(id)),
        (|m| m.tiers[1] = tier(m.tiers[1].up_to_notional.0, 49_999, 25_000), ParamsError::TierRates(id)),
        (|m| m.band_ppm = Ppm(24_500), ParamsError::BandTooWide(id)),
        (|m| m.band_ppm = Ppm(u32::MAX), ParamsError::BandTooWide(id)),
        (|m| m.liquidation.penalty_ppm = Ppm(25_000), ParamsError::Penalty(id)),
        (|m| m.blind_range_ppm = Ppm(1_000_000), ParamsError::BlindRange(id)),
        (|m| m.funding.interval_ms = 0, ParamsError::Funding(id)),
        (|m| m.funding.interval_ms = u64::MAX, ParamsError::Funding(id)),
        (|m| m.funding.interest_ppm = i32::MIN, ParamsError::Funding(id)),
        (|m| m.account_cap = Lots(0), ParamsError::Caps(id)),
        (|m| m.account_cap = Lots(m.open_interest_cap.0 + 1), ParamsError::Caps(id)),
        (|m| m.open_interest_cap = Lots(i64::MAX), ParamsError::Caps(id)),
        (|m| m.open_interest_cap = Lots(limits::MAX_LOTS), ParamsError::NotionalTooLarge(id)),
        (|m| m.backstop.initial_fund = Atoms(-1), ParamsError::Backstop(id)),
        (|m| m.backstop.capacity_lots = Lots(-1), ParamsError::Backstop(id)),
        (|m| m.backstop.per_block_lots = Lots(i64::MAX), ParamsError::Backstop(id)),
        (|m| m.orders.min_lots = Lots(0), ParamsError::Orders(id)),
        (|m| m.orders.min_lots = Lots(m.account_cap.0 + 1), ParamsError::Orders(id)),
        (|m| m.orders.max_per_account = 0, ParamsError::Orders(id)),
        (|m| m.orders.max_per_account = 257, ParamsError::Orders(id)),
        (|m| m.orders.void_after = 0, ParamsError::Orders(id)),
        (|m| m.orders.void_after = 257, ParamsError::Orders(id)),
        (|m| m.orders.late_after = m.orders.void_after + 1, ParamsError::Orders(id)),
        (|m| m.orders.max_records = 3, ParamsError::Orders(id)),
        (|m| m.orders.max_activations = 0, ParamsError::Orders(id)),
        (|m| m.orders.max_activations = 4_097, ParamsError::Orders(id)),
        (|m| m.orders.void_after = 7, ParamsError::ZoneDisagrees(id)),
        (|m| m.orders.max_records = 7, ParamsError::ZoneDisagrees(id)),
        (|m| m.symbol = "BTC-PERP".parse().unwrap(), ParamsError::DuplicateSymbol(id)),
    ];
    assert_eq!(params().validate(), Ok(()));
    for (spoil, error) in rows {
        let mut params = params();
        spoil(&mut params.markets[1]);
        assert_eq!(params.validate(), Err(error));
    }
}

#[test]
fn each_condition_on_a_chain_has_a_name() {
    let rows: Vec<(fn(&mut ChainParams), ParamsError)> = vec![
        (|c| c.markets.clear(), ParamsError::MarketCount),
        (|c| c.insurance = Atoms(-1), ParamsError::Insurance),
        (|c| c.liquidation_steps = 0, ParamsError::LiquidationSteps),
        (|c| c.max_wait_blocks = 0, ParamsError::MaxWait),
        (|c| c.max_wait_blocks = u32::MAX, ParamsError::MaxWait),
    ];
    for (spoil, error) in rows {
        let mut params = params();
        spoil(&mut params);
        assert_eq!(params.validate(), Err(error));
    }
}

#[test]
fn symbols() {
    for text in ["", "btc", "A B", "ABCDEFGHIJKLMNOPQ", "Ä"] {
        assert_eq!(text.parse::<Symbol>(), Err(ParamsError::BadSymbol), "{text}");
    }
    assert_eq!("ABCDEFGHIJKLMNOP".parse::<Symbol>().unwrap().as_str(), "ABCDEFGHIJKLMNOP");
}

#[test]
fn a_genesis_must_balance() {
    let position = |lots: i64, cost: i128| GenesisPosition {
        market: MarketId(0),
        lots: Lots(lots),
        cost: Atoms(cost),
        mode: MarginMode::Cross,
        isolated: Atoms(0),
    };
    let genesis = |issuer: u64, list: &[(i128, Vec<GenesisPosition>)]| {
        let mut params = params();
        params.issuer = AccountId(issuer);
        let accounts = list.iter().cloned().map(|(collateral, positions)| GenesisAccount {
            owner: Key::default(),
            collateral: Atoms(collateral),
            positions,
        });
        Ledger::genesis(&params, TimeMs(0), accounts).map(|ledger| ledger.globals().insurance.0)
    };
    let pair = |lots: i64, costs: [i128; 2]| {
        [(0, vec![position(lots, costs[0])]), (0, vec![position(-lots, costs[1])])]
    };
    let btc = MarketId(0);
    let first = AccountId(0);
    assert_eq!(genesis(0, &pair(5, [500, -500])), Ok(100_000_000));
    assert_eq!(genesis(0, &pair(5, [500, -499])), Ok(100_000_001), "a remainder goes to insurance");
    assert_eq!(genesis(0, &pair(5, [500, -498])), Err(GenesisError::Costs(btc)));
    assert_eq!(genesis(0, &pair(5, [500, -501])), Err(GenesisError::Costs(btc)));
    assert_eq!(genesis(2, &pair(5, [500, -500])), Err(GenesisError::NoIssuer));
    assert_eq!(genesis(0, &[(0, vec![position(5, 0)])]), Err(GenesisError::OpenInterest(btc)));
    assert_eq!(genesis(0, &pair(20_001, [0, 0])), Err(GenesisError::Position(first)));
    assert_eq!(genesis(0, &pair(i64::MIN + 1, [0, 0])), Err(GenesisError::Position(first)));
    assert_eq!(genesis(0, &[(0, vec![position(0, 0)])]), Err(GenesisError::Position(first)));
    assert_eq!(genesis(0, &[(0, vec![position(1, i128::MIN)])]), Err(GenesisError::Position(first)));
    assert_eq!(genesis(0, &[(-1, vec![])]), Err(GenesisError::Collateral(first)));
    assert_eq!(genesis(0, &[(limits::MAX_AMOUNT_ATOMS, vec![])]), Err(GenesisError::Supply));
}

#[test]
fn records_that_do_not_add_up_are_refused() {
    let ledger = Ledger::genesis(&params(), TimeMs(0), users(3, 1_000)).unwrap();
    let spoil = |change: &dyn Fn(&mut Vec<(RecordKey, Record)>)| {
        let mut list = records(&ledger);
        change(&mut list);
        Ledger::from_records(list.into_iter()).map(|_| ())
    };
    assert_eq!(spoil(&|list| list.reverse()), Ok(()));
    assert_eq!(spoil(&|list| drop(list.remove(0))), Err(RestoreError::Missing(RecordKey::Globals)));
    let last = AccountId(ledger.globals().accounts - 1);
    let missing = Err(RestoreError::Missing(RecordKey::Account(last)));
    assert_eq!(spoil(&|list| drop(list.pop())), missing);
    let twice = Err(RestoreError::Misplaced(RecordKey::Globals));
    assert_eq!(spoil(&|list| list.push(list[0].clone())), twice);
    let rich = spoil(&|list| {
        for (_, record) in list {
            if let Record::Account(account) = record {
                account.collateral.0 += 1;
            }
        }
    });
    assert!(matches!(rich, Err(RestoreError::Audit(AuditError::Conservation { .. }))));
}
