//! The arithmetic of settlement: small total functions, generic over their integer.
//!
//! Production runs them on `i128`; a prover can run the very same code on its own integers. Nothing
//! here knows accounts, markets or blocks.
//!
//! Units. A *unit* is the value of one lot in atoms (price in ticks x atoms per tick and lot). A
//! *ppm-atom* is 10^-6 atom: margin requirements stay in ppm-atoms while they are summed over legs and
//! are rounded once at the end, so that splitting a requirement never adds dust.
//!
//! Rounding. Every function that rounds says which way. What an account owes is rounded up, what it
//! receives is rounded down, and the difference belongs to the insurance fund, which the caller credits.
//!
//! Bounds. With `|lots| x unit <= 2^62` (enforced by market parameters), every product below stays
//! under `2^126`, so `i128` cannot overflow.

use core::ops::{Add, Mul, Neg, Sub};

/// The integer that the arithmetic runs on.
pub trait Int:
    Copy + Ord + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self>
{
    /// The same number.
    fn from_i64(value: i64) -> Self;

    /// Quotient rounded towards minus infinity. `by` is positive.
    fn floor_div(self, by: Self) -> Self;

    /// Quotient rounded towards plus infinity. `by` is positive.
    #[inline]
    fn ceil_div(self, by: Self) -> Self {
        -((-self).floor_div(by))
    }

    /// Zero.
    #[inline]
    fn zero() -> Self {
        Self::from_i64(0)
    }

    /// Distance from zero.
    #[inline]
    fn magnitude(self) -> Self {
        if self < Self::zero() { -self } else { self }
    }
}

impl Int for i128 {
    #[inline]
    fn from_i64(value: i64) -> Self {
        Self::from(value)
    }

    #[inline]
    fn floor_div(self, by: Self) -> Self {
        debug_assert!(by > 0);
        // One instruction for what fits a word, which is nearly everything; a routine for the rest.
        if let (Ok(value), Ok(by)) = (i64::try_from(self), i64::try_from(by)) {
            return Self::from(value.div_euclid(by));
        }
        let quotient = self / by;
        if quotient * by > self { quotient - 1 } else { quotient }
    }
}

/// One million: ppm-atoms per atom.
#[inline]
pub fn million<I: Int>() -> I {
    I::from_i64(1_000_000)
}

/// The funding scale, 2^32.
#[inline]
pub fn funding_scale<I: Int>() -> I {
    I::from_i64(1 << 32)
}

/// One tier of a margin schedule, with the deductions that make the schedule continuous.
///
/// Inside a tier, `requirement = notional x rate - deduction`. Rates never fall from tier to tier, so
/// the schedule is the upper envelope of its lines: continuous, monotone and convex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier<I> {
    /// Upper end of the tier, inclusive, in atoms. The last tier has no end; its value is not read.
    pub up_to: I,
    /// Initial margin rate, ppm.
    pub initial_ppm: I,
    /// Maintenance margin rate, ppm.
    pub maintenance_ppm: I,
    /// Deduction from `notional x initial_ppm`, in ppm-atoms.
    pub initial_deduction: I,
    /// Deduction from `notional x maintenance_ppm`, in ppm-atoms.
    pub maintenance_deduction: I,
}

/// Margin requirements, in ppm-atoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margin<I> {
    /// What opening needs.
    pub initial: I,
    /// What staying open needs.
    pub maintenance: I,
}

/// Tiers from their bounds and rates, in ascending order of notional: `(up_to, initial, maintenance)`.
pub fn schedule<I: Int>(rates: impl Iterator<Item = (I, I, I)>) -> impl Iterator<Item = Tier<I>> {
    let mut last: Option<Tier<I>> = None;
    rates.map(move |(up_to, initial_ppm, maintenance_ppm)| {
        let (initial_deduction, maintenance_deduction) = match last {
            None => (I::zero(), I::zero()),
            Some(below) => (
                below.initial_deduction + below.up_to * (initial_ppm - below.initial_ppm),
                below.maintenance_deduction + below.up_to * (maintenance_ppm - below.maintenance_ppm),
            ),
        };
        let tier = Tier { up_to, initial_ppm, maintenance_ppm, initial_deduction, maintenance_deduction };
        last = Some(tier);
        tier
    })
}

/// The tier in which a notional lies. `tiers` is not empty.
#[inline]
pub fn tier_of<I: Int>(notional: I, tiers: &[Tier<I>]) -> &Tier<I> {
    let mut at = 0;
    while at + 1 < tiers.len() && notional > tiers[at].up_to {
        at += 1;
    }
    &tiers[at]
}

/// Margin of a position, in ppm-atoms: exact. `notional` is not negative.
#[inline]
pub fn margin<I: Int>(notional: I, tiers: &[Tier<I>]) -> Margin<I> {
    let tier = tier_of(notional, tiers);
    Margin {
        initial: notional * tier.initial_ppm - tier.initial_deduction,
        maintenance: notional * tier.maintenance_ppm - tier.maintenance_deduction,
    }
}

/// Value of a position in atoms: exact, signed like `lots`.
#[inline]
pub fn value<I: Int>(unit: I, lots: I) -> I {
    unit * lots
}

/// Profit of a position in atoms at a unit value: exact.
#[inline]
pub fn pnl<I: Int>(unit: I, lots: I, cost: I) -> I {
    value(unit, lots) - cost
}

/// What a position owes for funding in atoms, negative when it receives. `growth` is the growth of the
/// cumulative index, scaled. Rounded up: payers pay up, receivers receive down, dust to the insurance
/// fund.
#[inline]
pub fn funding_owed<I: Int>(lots: I, growth: I) -> I {
    (lots * growth).ceil_div(funding_scale())
}

/// The fee on a traded notional in atoms. Rounded up, dust to the insurance fund with the fee.
#[inline]
pub fn fee<I: Int>(notional: I, rate_ppm: I) -> I {
    (notional * rate_ppm).ceil_div(million())
}

/// The penalty on a liquidated notional in atoms, never more than `equity` (nor negative). Rounded up
/// below that cap, to whoever takes the position over.
#[inline]
pub fn penalty<I: Int>(notional: I, rate_ppm: I, equity: I) -> I {
    fee(notional, rate_ppm).min(equity.max(I::zero()))
}

/// The part of a position's quote cost that leaves with `closed` of its `lots` (same sign, `closed` not
/// larger). Rounded down; what is left stays in the same position, so nobody gains the dust.
#[inline]
pub fn released_cost<I: Int>(cost: I, closed: I, lots: I) -> I {
    if closed == lots { cost } else { (cost * closed.magnitude()).floor_div(lots.magnitude()) }
}

/// Growth of the cumulative funding index over a time: `unit` value per lot in atoms, `rate_ppm` per
/// `interval_ms`. Scaled; rounded down, which favours neither side because both use the same index.
#[inline]
pub fn funding_growth<I: Int>(unit: I, rate_ppm: I, elapsed_ms: I, interval_ms: I) -> I {
    let whole = (unit * rate_ppm * funding_scale()).floor_div(million());
    (whole * elapsed_ms.min(interval_ms)).floor_div(interval_ms)
}

/// What one order can cost against the mark when it fills whole, in atoms: the distance from the mark to the worst
/// price at which it may fill, if that is adverse, and the fee there. `lots` is not negative, `worst` is the
/// highest unit value at which a purchase fills, or the lowest for a sale. A better price costs less: what the
/// price gains, the fee on it does not eat, because no rate is above 100 %. The fee is rounded up.
#[inline]
pub fn friction<I: Int>(unit: I, worst: I, buys: bool, lots: I, rate_ppm: I) -> I {
    let adverse = if buys { worst - unit } else { unit - worst };
    adverse.max(I::zero()) * lots + fee(worst * lots, rate_ppm)
}

/// The rate of initial margin that a leverage stands for, in ppm. `leverage` is positive. Rounded up.
#[inline]
pub fn leverage_rate<I: Int>(leverage: I) -> I {
    million::<I>().ceil_div(leverage)
}

/// Initial margin of a position whose owner wants no more leverage than `own_ppm` leaves, in ppm-atoms: exact. The
/// larger of two convex schedules is convex, and grows with every lot by at least the lowest rate of either, so
/// whatever holds for closing under the market's schedule holds under this one.
#[inline]
pub fn own_margin<I: Int>(notional: I, tiers: &[Tier<I>], own_ppm: I) -> I {
    margin(notional, tiers).initial.max(notional * own_ppm)
}

/// By how much the initial margin of a leg of `lots` (signed) can grow when any of `buys` and any of `sells` (not
/// negative) fill, in ppm-atoms: exact, never negative. The position ends between `lots - sells` and
/// `lots + buys`, and the requirement is convex in it, so it is largest at an end.
pub fn worst_growth<I: Int>(unit: I, lots: I, buys: I, sells: I, tiers: &[Tier<I>], own_ppm: I) -> I {
    let needs = |lots: I| own_margin(unit * lots.magnitude(), tiers, own_ppm);
    (needs(lots + buys).max(needs(lots - sells)) - needs(lots)).max(I::zero())
}

/// A compartment as liquidation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distress<I> {
    /// Equity in atoms.
    pub equity: I,
    /// Initial margin of all legs, in ppm-atoms.
    pub initial: I,
}

/// Whether closing `closed` lots (not negative) of a leg of `lots` (not negative) at its unit value, less the
/// penalty, restores initial margin.
pub fn restores<I: Int>(
    of: Distress<I>,
    unit: I,
    lots: I,
    closed: I,
    rate_ppm: I,
    tiers: &[Tier<I>],
) -> bool {
    let before = margin(unit * lots, tiers).initial;
    let after = margin(unit * (lots - closed), tiers).initial;
    let equity = of.equity - penalty(unit * closed, rate_ppm, of.equity);
    equity * million() >= of.initial - before + after
}

/// The fewest lots of a leg (at most all of `lots`, which is positive) whose close at the unit value less
/// the penalty restores initial margin; all of them if that is not enough. The penalty rate is below
/// every margin rate, so each further lot helps and bisection finds the fewest.
pub fn lots_to_close<I: Int>(of: Distress<I>, unit: I, lots: I, rate_ppm: I, tiers: &[Tier<I>]) -> I {
    let (mut no, mut yes) = (I::zero(), lots);
    // Invariant: `yes` restores (or is everything), `no` does not (or is nothing). 63 halvings at most.
    while yes - no > I::from_i64(1) {
        let middle = (no + yes).floor_div(I::from_i64(2));
        if restores(of, unit, lots, middle, rate_ppm, tiers) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    yes
}

/// The unit value at which a leg's share of equity ends (its bankruptcy price x atoms per tick and lot).
/// Rounded against the account: up for a long (it may not sell lower), down for a short.
pub fn bankruptcy_unit<I: Int>(unit: I, lots: I, equity_share: I) -> I {
    if lots > I::zero() { unit - equity_share.floor_div(lots) } else { unit + equity_share.floor_div(-lots) }
}

/// Splits `total` (not negative) pro rata to `weights` (none negative) by largest remainder; ties go to
/// the earlier place. The parts sum to `total` exactly, and with `total <= sum of weights` no part exceeds
/// its weight. With no weight at all, everything falls to the first place.
pub fn apportion<I: Int>(total: I, weights: &[I]) -> Vec<I> {
    let sum = weights.iter().fold(I::zero(), |sum, &weight| sum + weight);
    if sum == I::zero() {
        let mut parts = vec![I::zero(); weights.len()];
        if let Some(first) = parts.first_mut() {
            *first = total;
        }
        return parts;
    }
    let mut left = total;
    let mut remainders = Vec::with_capacity(weights.len());
    let mut parts: Vec<I> = Vec::with_capacity(weights.len());
    for (place, &weight) in weights.iter().enumerate() {
        let part = (total * weight).floor_div(sum);
        left = left - part;
        remainders.push((-(total * weight - part * sum), place));
        parts.push(part);
    }
    remainders.sort_unstable();
    for (remainder, place) in remainders {
        if left == I::zero() || remainder == I::zero() {
            break;
        }
        parts[place] = parts[place] + I::from_i64(1);
        left = left - I::from_i64(1);
    }
    parts
}

/// Who pays a deficit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waterfall<I> {
    /// The market's ring-fenced fund.
    pub fund: I,
    /// The insurance fund.
    pub insurance: I,
    /// Nobody yet: left for auto-deleveraging.
    pub left: I,
}

/// A deficit (not negative) down the waterfall: market's fund first, then insurance. Exact.
pub fn waterfall<I: Int>(deficit: I, fund: I, insurance: I) -> Waterfall<I> {
    let from_fund = deficit.min(fund.max(I::zero()));
    let from_insurance = (deficit - from_fund).min(insurance.max(I::zero()));
    Waterfall { fund: from_fund, insurance: from_insurance, left: deficit - from_fund - from_insurance }
}
