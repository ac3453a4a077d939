//! The ledger against a model that was written from the specification, not from the code: it keeps cash
//! flows instead of costs, integrates margin tier by tier, rounds leg by leg and scans everything.

mod common;

use std::collections::BTreeMap;

use common::*;
use proptest::prelude::*;
use seawall_ledger::*;
use seawall_types::*;

/// Margin of a notional in millionths of an atom, bracket by bracket.
fn bracket_margin(notional: i128, tiers: &[TierParams], rate: impl Fn(&TierParams) -> u32) -> i128 {
    let (mut floor, mut sum) = (0, 0);
    for (at, tier) in tiers.iter().enumerate() {
        let top = if at + 1 == tiers.len() { i128::MAX } else { tier.up_to_notional.0 };
        sum += (notional.min(top) - floor).max(0) * i128::from(rate(tier));
        floor = tier.up_to_notional.0;
    }
    sum
}

struct Leg {
    value: i128,
    maintenance: i128,
    fresh: bool,
}

/// A leg in the account's favour, from records alone.
fn favourable_leg(position: &Position, market: &Market) -> Leg {
    let growth = (market.funding_index.0 - position.funding_entry.0) * i128::from(position.lots.0);
    let scale = 1i128 << 32;
    let owed = growth.div_euclid(scale) + i128::from(growth.rem_euclid(scale) != 0);
    let Some(mark) = market.mark else {
        return Leg { value: -owed, maintenance: 0, fresh: false };
    };
    let fresh = mark.is_fresh() && market.quarantined.is_none();
    let mut unit = i128::from(mark.last_known().0.0) * i128::from(market.params.atoms_per_tick_lot);
    let range = i128::from(market.params.blind_range_ppm.0);
    if !fresh && position.lots.0 > 0 {
        unit = (unit * (1_000_000 + range) + 999_999) / 1_000_000;
    } else if !fresh {
        unit = unit * (1_000_000 - range) / 1_000_000;
    }
    let lots = i128::from(position.lots.0);
    let maintenance = bracket_margin(unit * lots.abs(), &market.params.tiers, |tier| tier.maintenance_ppm.0);
    Leg { value: unit * lots - position.cost.0 - owed, maintenance, fresh }
}

/// Every compartment in breach with a fresh leg, by scanning the records.
fn breaches(ledger: &Ledger) -> Vec<(AccountId, Compartment)> {
    let mut found = Vec::new();
    for at in 0..ledger.globals().accounts {
        let account = ledger.account(AccountId(at)).unwrap();
        let mut compartments = BTreeMap::new();
        compartments.insert(Compartment::Cross, (account.collateral.0, 0, false));
        for position in &account.positions {
            let leg = favourable_leg(position, ledger.market(position.market).unwrap());
            let key = match position.mode {
                MarginMode::Cross => Compartment::Cross,
                MarginMode::Isolated => Compartment::Isolated(position.market),
            };
            let sums = compartments.entry(key).or_insert((position.isolated.0, 0, false));
            *sums = (sums.0 + leg.value, sums.1 + leg.maintenance, sums.2 | leg.fresh);
        }
        for (key, (equity, maintenance, fresh)) in compartments {
            if fresh && equity * 1_000_000 < maintenance {
                found.push((AccountId(at), key));
            }
        }
    }
    found
}

/// Cash of every account, whatever its compartments, and its funding.
#[derive(Default)]
struct Cash {
    atoms: i128,
    lots: BTreeMap<MarketId, i128>,
    /// Scaled.
    funding: i128,
}

struct Model {
    accounts: Vec<Cash>,
    index: Vec<i128>,
}

impl Model {
    fn new(ledger: &Ledger) -> Self {
        let accounts = (0..ledger.globals().accounts)
            .map(|at| Cash { atoms: ledger.account(AccountId(at)).unwrap().collateral.0, ..Cash::default() })
            .collect();
        Self { accounts, index: vec![0; ledger.markets().len()] }
    }

    fn of(&mut self, id: AccountId) -> &mut Cash {
        &mut self.accounts[id.0 as usize]
    }

    fn move_lots(&mut self, id: AccountId, market: MarketId, lots: i128, unit: i128) {
        let cash = self.of(id);
        *cash.lots.entry(market).or_default() += lots;
        cash.atoms -= lots * unit;
    }

    fn fund(&mut self, ledger: &Ledger) {
        for (id, market) in ledger.markets() {
            let growth = market.funding_index.0 - self.index[usize::from(id.0)];
            self.index[usize::from(id.0)] = market.funding_index.0;
            for cash in &mut self.accounts {
                cash.funding += growth * cash.lots.get(&id).copied().unwrap_or_default();
            }
        }
    }

    fn receipt(&mut self, ledger: &Ledger, who: AccountId, action: &Action, receipt: Receipt) {
        match (action, receipt) {
            (Action::Open { amount, .. }, Receipt::Opened { account }) => {
                assert_eq!(account.0, self.accounts.len() as u64, "account ids are dense");
                self.accounts.push(Cash { atoms: amount.0, ..Cash::default() });
            }
            (Action::Deposit { to, amount }, Receipt::Deposited) => self.of(*to).atoms += amount.0,
            (Action::Transfer { to, amount }, Receipt::Transferred) => {
                self.of(who).atoms -= amount.0;
                self.of(*to).atoms += amount.0;
            }
            (Action::Withdraw { amount, .. }, Receipt::Withdrawn { .. }) => self.of(who).atoms -= amount.0,
            (_, Receipt::Moved | Receipt::ModeSet) => {}
            (Action::Fill { .. }, Receipt::Filled(filled)) => {
                let params = &ledger.market(filled.market).unwrap().params;
                let unit = i128::from(filled.price.0) * i128::from(params.atoms_per_tick_lot);
                let lots = i128::from(filled.lots.0);
                let signed = if filled.side == Side::Buy { lots } else { -lots };
                let fee = |ppm: Ppm| (unit * lots * i128::from(ppm.0) + 999_999) / 1_000_000;
                assert_eq!(filled.taker_fee.0, fee(params.taker_fee_ppm));
                assert_eq!(filled.maker_fee.0, fee(params.maker_fee_ppm));
                self.move_lots(filled.taker, filled.market, signed, unit);
                self.move_lots(filled.maker, filled.market, -signed, unit);
                self.of(filled.taker).atoms -= filled.taker_fee.0;
                self.of(filled.maker).atoms -= filled.maker_fee.0;
            }
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, ledger: &Ledger, event: &Event) {
        let unit = |market: MarketId, price: PriceTicks| {
            i128::from(price.0) * i128::from(ledger.market(market).unwrap().params.atoms_per_tick_lot)
        };
        match event {
            Event::Liquidated(event) => {
                let closed = i128::from(event.backstop.0 + event.deleveraged.0);
                let signed = -closed * i128::from(event.position.0.signum());
                self.move_lots(event.account, event.market, signed, unit(event.market, event.mark));
                self.of(event.account).atoms += event.deficit.0 - event.penalty.0;
            }
            Event::Deleveraged { market, account, lots, mark, gain } => {
                self.move_lots(*account, *market, i128::from(lots.0), unit(*market, *mark));
                self.of(*account).atoms += gain.0;
            }
            Event::DeficitTaken { account, amount, .. } => self.of(*account).atoms += amount.0,
            _ => {}
        }
    }

    /// Equity of an account at the last known prices, from cash alone.
    fn check(&self, ledger: &Ledger, slack: i128) {
        for (at, cash) in self.accounts.iter().enumerate() {
            let id = AccountId(at as u64);
            let account = ledger.account(id).unwrap();
            if matches!(account.kind, AccountKind::Backstop(_)) {
                continue;
            }
            for (market, _) in ledger.markets() {
                let lots = cash.lots.get(&market).copied().unwrap_or_default();
                assert_eq!(i128::from(account.lots(market).0), lots, "lots of account {id}");
            }
            let mut equity = cash.atoms - cash.funding.div_euclid(1 << 32);
            for (market, lots) in &cash.lots {
                let record = ledger.market(*market).unwrap();
                let price = record.mark.map_or(0, |mark| mark.last_known().0.0);
                equity += lots * i128::from(price) * i128::from(record.params.atoms_per_tick_lot);
            }
            let mut held = ledger.health(id).unwrap().equity.0;
            for position in account.positions.iter().filter(|leg| leg.mode == MarginMode::Isolated) {
                held += ledger.health_of(id, Compartment::Isolated(position.market)).unwrap().equity.0;
            }
            let off = equity - held;
            assert!((-1..=slack).contains(&off), "account {id}: {held} held, {equity} in cash");
        }
    }
}

fn play(seed: u64, blocks: i128) {
    let mut story = Story::new(seed);
    let genesis = users(USERS, 300_000_000);
    let mut ledger = Ledger::genesis(&params(), TimeMs(1_000), genesis).unwrap();
    let mut model = Model::new(&ledger);
    for block in 0..blocks {
        let script = story.script(&ledger);
        let (height, time) = (ledger.globals().height.next(), ledger.globals().time.0 + script.elapsed);
        ledger.begin_block(height, TimeMs(time));
        ledger.set_marks(&script.marks);
        ledger.accrue_funding();
        model.fund(&ledger);
        for (who, nonce, action) in &script.rescues {
            if let Ok(receipt) = ledger.apply(*who, *nonce, Height(height.0 + 3), action) {
                model.receipt(&ledger, *who, action, receipt);
            }
        }
        let expected = breaches(&ledger);
        let report = ledger.sweep(&mut NoVenue);
        assert_eq!(report.in_breach, expected.len() as u64, "seed {seed}, block {block}: breaches found");
        let mut trades = Vec::new();
        for (who, nonce, action) in &script.trades {
            if let Ok(receipt) = ledger.apply(*who, *nonce, Height(height.0 + 3), action) {
                trades.push((*who, action, receipt));
            }
        }
        let delta = ledger.end_block();
        for event in &delta.events {
            if let Event::Liquidated(event) = event {
                assert!(
                    expected.contains(&(event.account, event.compartment)),
                    "seed {seed}, block {block}: a healthy compartment was liquidated"
                );
            }
            model.event(&ledger, event);
        }
        for (who, action, receipt) in trades {
            model.receipt(&ledger, who, action, receipt);
        }
        // Each settlement of funding rounds against the account by less than an atom, and there are at
        // most a few a block and market.
        model.check(&ledger, 60 * (block + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lots are equal and equity agrees with cash to the rounding of funding, after every block; the
    /// sweep finds exactly what a scan of the records finds, and liquidates nothing else.
    #[test]
    fn the_ledger_agrees_with_a_model_of_cash_flows(seed in any::<u64>()) {
        play(seed, 60);
    }
}
