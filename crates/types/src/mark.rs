//! A price that cannot be read without its state.

use crate::{PriceTicks, TimeMs};

/// Whether a market's price may be acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PriceState {
    /// Corroborated by a quorum within the freshness window.
    Fresh,
    /// No corroborated update for longer than the market's staleness limit.
    Stale,
    /// A jump beyond the market's gate that too few sources confirm.
    Disputed,
    /// Prices are back after an outage; rescues act, liquidation waits for the grace period's end.
    Reopening,
    /// Blind for too long, or failed: out of service until it is reopened or settled.
    Quarantined,
}

impl PriceState {
    /// The name used in displays and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Disputed => "disputed",
            Self::Reopening => "reopening",
            Self::Quarantined => "quarantined",
        }
    }
}

/// The mark price of a market: the last corroborated price and the state that says what it is worth.
///
/// There is no way to the number that does not pass the state: [`Mark::fresh`] gives it only when it
/// may be acted upon, [`Mark::last_known`] names what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    state: PriceState,
    last: PriceTicks,
    updated: TimeMs,
}

impl Mark {
    /// A mark as the oracle computed it. `last` is the last corroborated price (never zero) and
    /// `updated` the block time at which it was corroborated.
    ///
    /// # Panics
    /// If `last` is zero: zero is no price, so a caller that has none must not build a mark.
    pub const fn new(state: PriceState, last: PriceTicks, updated: TimeMs) -> Self {
        assert!(last.0 > 0, "zero is no price");
        Self { state, last, updated }
    }

    /// The state.
    pub const fn state(&self) -> PriceState {
        self.state
    }

    /// Whether the price may be acted upon.
    pub const fn is_fresh(&self) -> bool {
        matches!(self.state, PriceState::Fresh)
    }

    /// The price, if it may be acted upon.
    pub const fn fresh(&self) -> Option<PriceTicks> {
        match self.state {
            PriceState::Fresh => Some(self.last),
            _ => None,
        }
    }

    /// The last corroborated price, whatever its state is now, and that state.
    pub const fn last_known(&self) -> (PriceTicks, PriceState) {
        (self.last, self.state)
    }

    /// Block time of the last corroborated update.
    pub const fn updated(&self) -> TimeMs {
        self.updated
    }
}
