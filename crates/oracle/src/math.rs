//! Comparisons of prices by ratios, exact in integers: every product is below
//! 2^64 x 2^21 x 2^21, so 128 bits always hold it.

use seawall_types::{Ppm, PriceReport, PriceTicks};

const ONE: u128 = 1_000_000;

/// The direction of a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// A price beyond the gate around the last corroborated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    last: PriceTicks,
    gate: Ppm,
    direction: Direction,
}

fn wide(x: PriceTicks) -> u128 {
    u128::from(x.0)
}

fn ppm(rate: Ppm) -> u128 {
    u128::from(rate.0).min(ONE)
}

/// Whether `x` is within `band` of `center`, relative to `center`; the edge is inside.
pub(crate) fn within(x: PriceTicks, center: PriceTicks, band: Ppm) -> bool {
    wide(x).abs_diff(wide(center)) * ONE <= wide(center) * ppm(band)
}

/// The middle of a report, rounded down.
pub(crate) fn midpoint(report: &PriceReport) -> PriceTicks {
    PriceTicks(report.low.0.midpoint(report.high.0))
}

/// Whether a report's own medians lie farther apart than `gate`, relative to the lower one.
pub(crate) fn split(report: &PriceReport, gate: Ppm) -> bool {
    (wide(report.high).saturating_sub(wide(report.low))) * ONE > wide(report.low) * ppm(gate)
}

impl Jump {
    /// The jump from `last` to `price`, if it is beyond `gate`; the gate's edge is no jump.
    pub(crate) fn between(last: PriceTicks, price: PriceTicks, gate: Ppm) -> Option<Self> {
        let direction = if wide(price) * ONE > wide(last) * (ONE + ppm(gate)) {
            Direction::Up
        } else if wide(price) * ONE < wide(last) * (ONE - ppm(gate)) {
            Direction::Down
        } else {
            return None;
        };
        Some(Self { last, gate, direction })
    }

    /// Whether `x` is beyond the gate on this jump's side, with the gate's edge one band nearer.
    ///
    /// Without that allowance, honest reports a little either side of the edge would leave a price just
    /// beyond it unconfirmed although all of them agree on it.
    pub(crate) fn reaches(&self, x: PriceTicks, band: Ppm) -> bool {
        let (x, last, gate, band) = (wide(x) * ONE * ONE, wide(self.last), ppm(self.gate), ppm(band));
        match self.direction {
            Direction::Up => x > last * (ONE + gate) * (ONE - band),
            Direction::Down => x < last * (ONE - gate) * (ONE + band),
        }
    }
}
