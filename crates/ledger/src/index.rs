//! The sweep's index: finds every compartment in breach without looking at the others.
//!
//! The health of a compartment is `H = C + sum of h_i`, where the worth `h_i` of leg `i` (profit less
//! maintenance) falls monotonically as its price moves against it. When a compartment is examined, its slack
//! is split over its legs, and each leg gets the threshold at which it would have lost its part. While
//! no leg is beyond its threshold, the losses sum to less than the slack and the compartment cannot be in
//! breach. A threshold is a static fact about an account that nobody touched: it does not matter by which
//! path, or on which fork, prices came to where they are.
//!
//! **Key.** Thresholds are kept on the *funding-adjusted value of a lot*, `A = unit - (index - anchor)`,
//! in fixed point: profit depends on nothing else, so funding alone never moves a threshold. The margin
//! requirement depends on `unit = A + (index - anchor)`; it is bounded from above by assuming the highest
//! index of the market's current window, `anchor +- drift`. Outside the window the market is anchored anew
//! and its accounts are examined again: rare, because the drift is 1/32 of a lot's value.
//!
//! **Split.** The slack is shared in proportion to each leg's maintenance margin, which stands for its
//! volatility. A long loses at most `L d (1 - m0)` when `A` falls by `d`, where `m0` is the lowest
//! maintenance rate (the schedule is convex, so each atom of notional lost relieves at least that). A short
//! loses at most `L d (1 + m2)` when `A` rises by `d`, where `m2` is the rate at twice the notional; `d` is
//! capped so that the notional cannot more than double.
//!
//! **Blind legs** have no threshold: an account that was examined with one is listed with the market
//! and examined again whenever the market's price or state changes.
//!
//! **Sizes.** Besides, positions are kept by size, so that deleveraging finds the largest ones without a scan.
//!
//! All of it is derived. Validators may hold different thresholds; the set of compartments found in
//! breach is exact on each of them.

use std::collections::BTreeSet;

use seawall_types::FundingIndex;

use crate::{
    health::{self, Sheet, Sums, Valuation},
    kernel::{self, Int, tier_of},
    ledger::{Ledger, compartments},
    state::{Compartment, Market},
};

/// Where the index holds a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub threshold: i64,
    /// Signed, when the account was examined.
    pub lots: i64,
    pub market: u16,
}

/// The index of one market.
#[derive(Clone, Debug)]
pub(crate) struct MarketIndex {
    /// Longs by the value below which they must be examined.
    pub longs: BTreeSet<(i64, u32)>,
    /// Shorts by the value above which they must be examined.
    pub shorts: BTreeSet<(i64, u32)>,
    /// Longs by size, for deleveraging. Those of dirty accounts are out of date, all others are exact.
    pub long_sizes: BTreeSet<(i64, u32)>,
    /// Shorts by size.
    pub short_sizes: BTreeSet<(i64, u32)>,
    /// Accounts examined while the market was blind, to be examined again when it changes.
    pub blind: BTreeSet<u32>,
    /// Whether price or state changed since the last sweep.
    pub moved: bool,
    /// Whether everything must be examined again: parameters changed.
    pub stale: bool,
    anchor: FundingIndex,
    /// Half width of the window around the anchor, scaled like the index.
    drift: i128,
    /// Fractional bits of thresholds.
    bits: u32,
}

/// The window is 1/32 of a lot's value when it is anchored.
const DRIFT_SHIFT: u32 = 5;

impl MarketIndex {
    pub fn new(market: &Market) -> Self {
        let most = market.params.unit(market.params.max_price);
        // |A| stays below unit + drift < 2^(bits of the highest unit + 1); two bits of room for splits.
        let whole = 128 - most.leading_zeros();
        Self {
            longs: BTreeSet::new(),
            shorts: BTreeSet::new(),
            long_sizes: BTreeSet::new(),
            short_sizes: BTreeSet::new(),
            blind: BTreeSet::new(),
            moved: true,
            stale: false,
            anchor: market.funding_index,
            drift: 0,
            bits: 60u32.saturating_sub(whole).min(32),
        }
    }

    /// Whether the market must be anchored anew: the index left its window, or the price moved so far that
    /// the window is too narrow or too wide for it.
    fn outside(&self, sheet: &Sheet) -> bool {
        let right = (i128::from(sheet.unit) << 32) >> DRIFT_SHIFT;
        (sheet.index.0 - self.anchor.0).abs() > self.drift
            || (sheet.priced && (self.drift > 4 * right || 4 * self.drift < right))
    }

    fn anchor(&mut self, sheet: &Sheet) {
        self.anchor = sheet.index;
        self.drift = (i128::from(sheet.unit) << 32) >> DRIFT_SHIFT;
    }

    /// The funding-adjusted value of a lot, rounded down to the index's precision.
    fn adjusted(&self, sheet: &Sheet) -> i64 {
        let exact = (i128::from(sheet.unit) << 32) - (sheet.index.0 - self.anchor.0);
        (exact >> (32 - self.bits)) as i64
    }

    /// How far the index can still rise inside the window, in scaled atoms a lot.
    fn headroom(&self, sheet: &Sheet) -> i128 {
        self.anchor.0 + self.drift - sheet.index.0
    }

    fn thresholds(&mut self, lots: i64) -> &mut BTreeSet<(i64, u32)> {
        if lots > 0 { &mut self.longs } else { &mut self.shorts }
    }

    fn sizes(&mut self, lots: i64) -> &mut BTreeSet<(i64, u32)> {
        if lots > 0 { &mut self.long_sizes } else { &mut self.short_sizes }
    }

    /// Puts a new entry in the place of an old one. What did not change is not touched: the size of whoever
    /// did not trade, and the threshold of whoever waits.
    fn replace(&mut self, id: u32, old: Option<Entry>, new: Option<Entry>) {
        let threshold = |entry: Entry| (entry.threshold, entry.lots > 0);
        if old.map(threshold) != new.map(threshold) {
            if let Some(old) = old {
                self.thresholds(old.lots).remove(&(old.threshold, id));
            }
            if let Some(new) = new {
                self.thresholds(new.lots).insert((new.threshold, id));
            }
        }
        if old.map(|old| old.lots) != new.map(|new| new.lots) {
            if let Some(old) = old {
                self.sizes(old.lots).remove(&(old.lots.abs(), id));
            }
            if let Some(new) = new {
                self.sizes(new.lots).insert((new.lots.abs(), id));
            }
        }
    }
}

/// A compartment found in breach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    pub account: u32,
    pub compartment: Compartment,
    pub sums: Sums,
}

impl Ledger {
    /// Takes an account out of the index.
    pub(crate) fn unindex(&mut self, id: u32) {
        let entries = core::mem::take(&mut self.slots[id as usize].entries);
        for entry in entries {
            let index = &mut self.index[usize::from(entry.market)];
            index.replace(id, Some(entry), None);
            index.blind.remove(&id);
        }
        self.hot.remove(&id);
    }

    /// Examines an account exactly: reports its compartments in breach that have a fresh leg, and puts all
    /// its legs into the index anew. `old` is scratch space.
    fn examine(&mut self, id: u32, found: &mut Vec<Breach>, old: &mut Vec<Entry>) {
        let Self { slots, sheets, index, hot, .. } = self;
        let slot = &mut slots[id as usize];
        old.clear();
        old.append(&mut slot.entries);
        slot.entries.reserve_exact(slot.account.positions.len());
        let mut close = slot.account.breached.is_some();
        for compartment in compartments(&slot.account) {
            close |= slot.account.breached(compartment).is_some();
            let sums = health::sums(&slot.account, compartment, sheets, Valuation::Favourable);
            let in_breach = sums.in_breach();
            if in_breach && sums.fresh {
                found.push(Breach { account: id, compartment, sums });
                close = true;
            }
            let legs = || slot.account.positions.iter().filter(|leg| leg.compartment() == compartment);
            // Slack after all roundings: one atom for each leg's funding, two for the requirement's.
            let mut slack = sums.equity - sums.maintenance_atoms() - 2;
            let mut weights = 0;
            for leg in legs() {
                let at = usize::from(leg.market.0);
                slack -= 1;
                if sheets[at].fresh {
                    weights += sheets[at].margin(leg.lots.0, Valuation::Plain).maintenance;
                    slack -= allowance(&sheets[at], &index[at], leg.lots.0);
                }
            }
            let slack = slack.min(1 << 62);
            let shift = (128 - i128::leading_zeros(weights)).saturating_sub(62);
            for leg in legs() {
                let at = usize::from(leg.market.0);
                let (sheet, market) = (&sheets[at], &mut index[at]);
                let lots = leg.lots.0;
                let blind = !sheet.fresh;
                if blind {
                    market.blind.insert(id);
                } else if !market.blind.is_empty() {
                    market.blind.remove(&id);
                }
                let distance = if blind || in_breach {
                    None
                } else {
                    let weight = sheet.margin(lots, Valuation::Plain).maintenance;
                    // Both factors are cut to 2^62, so the product fits.
                    let share =
                        if slack < 0 { -1 } else { slack * (weight >> shift) / ((weights >> shift) + 1) };
                    match reach(sheet, market, lots, share) {
                        Reach::Never => None,
                        Reach::Within(distance) => Some(distance),
                        Reach::Short => {
                            close = true;
                            None
                        }
                    }
                };
                let threshold = match (distance, lots > 0) {
                    (None, true) => i64::MIN,
                    (None, false) => i64::MAX,
                    (Some(distance), true) => market.adjusted(sheet).saturating_sub(distance),
                    (Some(distance), false) => market.adjusted(sheet).saturating_add(distance),
                };
                let entry = Entry { threshold, lots, market: leg.market.0 };
                let place = old.iter().position(|old| old.market == entry.market);
                market.replace(id, place.map(|place| old.swap_remove(place)), Some(entry));
                slot.entries.push(entry);
            }
        }
        for gone in old.drain(..) {
            let market = &mut index[usize::from(gone.market)];
            market.replace(id, Some(gone), None);
            market.blind.remove(&id);
        }
        if close {
            hot.insert(id);
        } else {
            hot.remove(&id);
        }
    }

    /// Every compartment in breach at the current marks that has a fresh leg, by account and compartment;
    /// and the accounts that were examined, ascending.
    pub(crate) fn find_breaches(&mut self, everybody: bool) -> (Vec<Breach>, Vec<u32>) {
        let mut examine = core::mem::take(&mut self.dirty);
        for &id in &examine {
            self.slots[id as usize].dirty = false;
        }
        examine.extend(&self.hot);
        for (sheet, index) in self.sheets.iter().zip(&mut self.index) {
            // A market that lost its only price (its first block was undone) counts positions at cost.
            if index.stale || index.outside(sheet) || (index.moved && !sheet.priced) {
                index.anchor(sheet);
                examine.extend(index.longs.iter().chain(&index.shorts).map(|&(_, id)| id));
                index.stale = false;
            }
            if index.moved {
                examine.extend(&index.blind);
                index.moved = false;
            }
            // Also while blind: an account with a threshold here was examined at a fresh price, and a price
            // that moves blindly may be worse for it than that, whatever the blind range adds.
            let now = index.adjusted(sheet);
            examine.extend(index.longs.iter().rev().take_while(|(at, _)| *at > now).map(|&(_, id)| id));
            examine.extend(index.shorts.iter().take_while(|(at, _)| *at < now).map(|&(_, id)| id));
        }
        if everybody {
            examine = (0..self.slots.len() as u32).collect();
        }
        examine.sort_unstable();
        examine.dedup();
        let (mut found, mut scratch) = (Vec::new(), Vec::new());
        for &id in &examine {
            self.examine(id, &mut found, &mut scratch);
        }
        (found, examine)
    }
}

/// What the requirement of a leg can still grow by through funding alone inside the window. Rounded up.
fn allowance(sheet: &Sheet, index: &MarketIndex, lots: i64) -> i128 {
    let size = i128::from(lots.unsigned_abs());
    let rate = rate_at_twice(sheet, size);
    let headroom = index.headroom(sheet).max(0).ceil_div(1 << 32);
    (size * headroom * rate).ceil_div(1_000_000)
}

/// Maintenance rate at twice the notional: no rate below that is higher.
fn rate_at_twice(sheet: &Sheet, size: i128) -> i128 {
    tier_of(2 * kernel::value(i128::from(sheet.unit), size), &sheet.tiers).maintenance_ppm
}

enum Reach {
    /// No price can use the share up.
    Never,
    /// The distance in fixed point that cannot use the share up.
    Within(i64),
    /// The share is too small for any distance.
    Short,
}

/// How far the adjusted value may move against a leg before it can have lost `share` atoms.
fn reach(sheet: &Sheet, index: &MarketIndex, lots: i64, share: i128) -> Reach {
    if share < 0 {
        return Reach::Short;
    }
    let size = i128::from(lots.unsigned_abs());
    let unit = i128::from(sheet.unit) << index.bits;
    // 2^64 x 2^32 x 2^20 is below 2^127; two units cover the rounding of the values compared.
    let budget = (share << index.bits) * 1_000_000;
    let distance = if lots > 0 {
        let lowest = sheet.tiers[0].maintenance_ppm;
        let distance = budget.floor_div(size * (1_000_000 - lowest).max(1)) - 2;
        if distance > unit + (index.drift >> (32 - index.bits)) * 2 {
            return Reach::Never;
        }
        distance
    } else {
        let headroom = index.headroom(sheet).max(0).ceil_div(1 << (32 - index.bits));
        let most = (unit - headroom).max(0);
        (budget.floor_div(size * (1_000_000 + rate_at_twice(sheet, size)))).min(most) - 2
    };
    if distance < 0 { Reach::Short } else { Reach::Within(distance as i64) }
}
