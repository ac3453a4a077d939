//! What a compartment is worth and what it needs.
//!
//! One pass over the legs, sums in atoms and ppm-atoms, and a division only when a reader wants atoms.

use seawall_types::{Atoms, FundingIndex};

use crate::{
    kernel::{self, Tier, million},
    state::{Account, AccountKind, Compartment, Market},
};

/// How legs without a fresh price are valued. Fresh legs are always valued at the mark price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valuation {
    /// Within the blind range, in the account's favour: whether to liquidate.
    Favourable,
    /// Within the blind range, against the account: whether to let it add risk or take value out.
    Adverse,
    /// At the last known price: displays, and what a counterparty can be charged.
    Plain,
}

/// Health of a compartment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Collateral with all profit, blind legs at their last known price. Rounded down.
    pub equity: Atoms,
    /// What it needs to stay open. Rounded up.
    pub maintenance: Atoms,
    /// What it needs to add risk. Rounded up.
    pub initial: Atoms,
    /// What new risk can use: equity, blind legs valued against the account, less initial and reserved.
    pub available: Atoms,
    /// What can be taken out: as available, but unrealised profit does not count. Zero while blind.
    pub withdrawable: Atoms,
    /// Whether a leg has no fresh price.
    pub blind: bool,
}

/// What a margin check says of a compartment: health as the sweep sees it, blind legs in the account's favour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarginCheck {
    /// Collateral with all profit. Rounded down.
    pub equity: Atoms,
    /// What it needs to stay open. Rounded up.
    pub maintenance: Atoms,
    /// What liquidation restores: as what it needs to add risk, but for leverage of the account's own. Rounded up.
    pub initial: Atoms,
    /// Whether equity is below maintenance.
    pub in_breach: bool,
}

/// Sums over the legs of a compartment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Atoms.
    pub equity: i128,
    /// ppm-atoms.
    pub initial: i128,
    /// ppm-atoms.
    pub maintenance: i128,
    /// Whether some leg is not fresh.
    pub blind: bool,
    /// Whether some leg is fresh.
    pub fresh: bool,
}

impl Sums {
    /// Equity below maintenance.
    #[inline]
    pub fn in_breach(&self) -> bool {
        self.equity * 1_000_000 < self.maintenance
    }

    /// Equity at or above initial margin.
    #[inline]
    pub fn covers_initial(&self) -> bool {
        self.equity * 1_000_000 >= self.initial
    }

    /// Initial margin in atoms, rounded up.
    #[inline]
    pub fn initial_atoms(&self) -> i128 {
        kernel::Int::ceil_div(self.initial, million())
    }

    /// Maintenance margin in atoms, rounded up.
    #[inline]
    pub fn maintenance_atoms(&self) -> i128 {
        kernel::Int::ceil_div(self.maintenance, million())
    }
}

/// What valuation needs of a market, laid out to be read often. Derived from its record.
#[derive(Clone, Debug)]
pub(crate) struct Sheet {
    /// Value of a lot at the last known price, in atoms.
    pub unit: i64,
    /// The same at the upper end of the blind range; equal to `unit` when fresh.
    pub up: i64,
    /// The same at the lower end.
    pub down: i64,
    /// Whether there was ever a price.
    pub priced: bool,
    /// Whether the price may be acted upon: fresh and not quarantined.
    pub fresh: bool,
    /// Funding index.
    pub index: FundingIndex,
    /// Margin schedule.
    pub tiers: Box<[Tier<i128>]>,
}

impl Sheet {
    pub fn new(market: &Market) -> Self {
        let tiers = market.params.schedule().into_boxed_slice();
        let mut sheet =
            Self { unit: 0, up: 0, down: 0, priced: false, fresh: false, index: FundingIndex(0), tiers };
        sheet.update(market);
        sheet
    }

    /// Takes over price, state and index of a market whose parameters did not change.
    pub fn update(&mut self, market: &Market) {
        self.index = market.funding_index;
        let Some(mark) = market.mark else {
            (self.unit, self.up, self.down, self.priced, self.fresh) = (0, 0, 0, false, false);
            return;
        };
        let unit = market.params.unit(mark.last_known().0) as i64;
        self.unit = unit;
        self.priced = true;
        self.fresh = mark.is_fresh() && market.quarantined.is_none();
        if self.fresh {
            (self.up, self.down) = (unit, unit);
        } else {
            let range = i128::from(market.params.blind_range_ppm.0);
            self.up = kernel::Int::ceil_div(i128::from(unit) * (1_000_000 + range), 1_000_000) as i64;
            self.down = kernel::Int::floor_div(i128::from(unit) * (1_000_000 - range), 1_000_000) as i64;
        }
    }

    /// The unit value at which `lots` count.
    #[inline]
    pub fn unit_for(&self, lots: i64, valuation: Valuation) -> i64 {
        match (valuation, lots > 0) {
            (Valuation::Plain, _) => self.unit,
            (Valuation::Favourable, true) | (Valuation::Adverse, false) => self.up,
            (Valuation::Favourable, false) | (Valuation::Adverse, true) => self.down,
        }
    }

    /// Unrealised profit of a position after funding, in atoms, rounded down. A position in a market that
    /// never had a price counts at its cost.
    #[inline]
    pub fn profit(&self, lots: i64, cost: Atoms, entry: FundingIndex, valuation: Valuation) -> i128 {
        let owed = if self.index == entry {
            0
        } else {
            kernel::funding_owed(i128::from(lots), self.index.0 - entry.0)
        };
        if self.priced {
            let unit = i128::from(self.unit_for(lots, valuation));
            kernel::pnl(unit, i128::from(lots), cost.0) - owed
        } else {
            -owed
        }
    }

    /// Margin of a position, in ppm-atoms.
    #[inline]
    pub fn margin(&self, lots: i64, valuation: Valuation) -> kernel::Margin<i128> {
        kernel::margin(self.notional(lots, valuation), &self.tiers)
    }

    /// Value of a position without its direction, in atoms.
    #[inline]
    pub fn notional(&self, lots: i64, valuation: Valuation) -> i128 {
        i128::from(self.unit_for(lots, valuation)) * i128::from(lots.unsigned_abs())
    }
}

/// Sums over a compartment. What the account's own leverage asks for is part of the initial margin, but not where
/// the question is whether to liquidate: liquidation takes no more for an owner's caution.
#[inline]
pub(crate) fn sums(
    account: &Account,
    compartment: Compartment,
    sheets: &[Sheet],
    valuation: Valuation,
) -> Sums {
    let mut sums = Sums {
        equity: account.collateral_of(compartment).0,
        initial: 0,
        maintenance: 0,
        blind: false,
        fresh: false,
    };
    for position in &account.positions {
        if position.compartment() != compartment {
            continue;
        }
        let sheet = &sheets[usize::from(position.market.0)];
        let lots = position.lots.0;
        sums.equity += sheet.profit(lots, position.cost, position.funding_entry, valuation);
        let margin = sheet.margin(lots, valuation);
        let own = if valuation == Valuation::Favourable { 0 } else { account.own_rate(position.market) };
        sums.initial +=
            if own == 0 { margin.initial } else { margin.initial.max(sheet.notional(lots, valuation) * own) };
        sums.maintenance += margin.maintenance;
        sums.blind |= !sheet.fresh;
        sums.fresh |= sheet.fresh;
    }
    sums
}

/// What can be taken out of a compartment, blind legs valued against it. Rounded down, never negative.
pub(crate) fn spare(account: &Account, compartment: Compartment, sheets: &[Sheet]) -> i128 {
    let sums = sums(account, compartment, sheets, Valuation::Adverse);
    let reserved = if compartment == Compartment::Cross { account.reserved.0 } else { 0 };
    let safe = account.collateral_of(compartment).0.min(sums.equity);
    (safe - sums.initial_atoms() - reserved).max(0)
}

/// Health of a compartment for readers.
pub(crate) fn health(account: &Account, compartment: Compartment, sheets: &[Sheet]) -> Health {
    let plain = sums(account, compartment, sheets, Valuation::Plain);
    let adverse = sums(account, compartment, sheets, Valuation::Adverse);
    let reserved = if compartment == Compartment::Cross { account.reserved.0 } else { 0 };
    let blocked = plain.blind || matches!(account.kind, AccountKind::Backstop(_));
    Health {
        equity: Atoms(plain.equity),
        maintenance: Atoms(plain.maintenance_atoms()),
        initial: Atoms(plain.initial_atoms()),
        available: Atoms(adverse.equity - adverse.initial_atoms() - reserved),
        withdrawable: Atoms(if blocked { 0 } else { spare(account, compartment, sheets) }),
        blind: plain.blind,
    }
}
