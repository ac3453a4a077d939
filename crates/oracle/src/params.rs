//! Every limit of the oracle, and the combinations that are refused.
//!
//! A *leader turn* is the longest time that one leader can hold the chain up: its block's interval, or the
//! timeout of its view if it fails. With `f` Byzantine members, `f` turns in a row can be lost or used to
//! leave observations out; the next leader is honest. So whatever must not happen because of them takes
//! at least `f + 1` turns. Where leaders are drawn and not rotated, longer runs are possible, and these
//! limits should be set for the longest run that one is prepared to meet.

use crate::Committee;
use seawall_types::{
    MarketId, Ppm, PriceTicks,
    limits::{MAX_MARKETS, MAX_PPM, MAX_PRICE_TICKS, MAX_SOURCES},
};
use thiserror::Error;

/// Longest duration that a parameter can name, in milliseconds: about a year.
pub const MAX_DURATION_MS: u64 = 366 * 24 * 3_600_000;

/// Parameters of the whole oracle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct OracleParams {
    /// Longest that one leader can hold the chain up, in milliseconds of block time. Positive.
    pub leader_turn_ms: u64,
    /// A gap between two blocks longer than this, in milliseconds of block time, means that the chain was
    /// down: nobody could act, so every market must reopen.
    pub halt_after_ms: u64,
    /// One entry a market, in the order of [`MarketId`].
    pub markets: Vec<MarketParams>,
}

/// Parameters of one market. Durations are milliseconds of block time; rates are parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct MarketParams {
    /// Lowest price, in ticks; at least 1. A report below it is no price.
    pub min_price: PriceTicks,
    /// Highest price, in ticks; at most [`MAX_PRICE_TICKS`]. A report above it is no price.
    pub max_price: PriceTicks,
    /// `A`: a report counts in this many heights, the one that carried it included. At least `f + 1`.
    pub report_max_age_heights: u64,
    /// `T_age`: a report counts while it is not older than this. At least `f + 1` leader turns, and at most
    /// [`OracleParams::halt_after_ms`], so that no report from before a halt counts after it.
    pub report_max_age_ms: u64,
    /// How far from the price a report may lie and still corroborate it, relative to the price. Positive. It
    /// should cover what honest members differ by, and what the price moves in `f + 1` leader turns.
    pub band_ppm: Ppm,
    /// A price farther than this from the last corroborated one, relative to that one, is a jump. Below
    /// 100 %, and such that `(1 + gate)(1 - band) > 1`: the band lies inside the gate.
    pub gate_ppm: Ppm,
    /// Sources that a validator needs in order to confirm a jump: `1..=MAX_SOURCES`.
    pub min_sources: u8,
    /// `T_stale`: without an update for longer than this the price is stale. At least `f + 1` leader turns.
    pub stale_after_ms: u64,
    /// A market that was blind for longer than this goes through Reopening; at least `stale_after_ms`.
    pub outage_after_ms: u64,
    /// Grace period of Reopening. At least `f + 1` leader turns, so that a rescue cannot be kept out of it.
    pub grace_ms: u64,
    /// Blind for longer than this, while the chain runs, a market is quarantined. Above `outage_after_ms`.
    pub quarantine_after_ms: u64,
}

/// Why parameters are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParamsError {
    /// More than [`MAX_MARKETS`] markets.
    #[error("{0} markets, at most {MAX_MARKETS} are allowed")]
    TooManyMarkets(usize),
    /// A leader turn of zero.
    #[error("leader_turn_ms must be positive")]
    NoLeaderTurn,
    /// A duration above [`MAX_DURATION_MS`].
    #[error("a duration is longer than {MAX_DURATION_MS} ms")]
    DurationTooLong,
    /// A halt that `f` failed leaders in a row can cause.
    #[error("halt_after_ms is {have}, f + 1 leader turns are {need}")]
    HaltTooShort {
        /// As given, in milliseconds.
        have: u64,
        /// Least, in milliseconds.
        need: u64,
    },
    /// The range is empty, reaches zero, or is beyond [`MAX_PRICE_TICKS`].
    #[error("market {0}: the price range must lie within 1..={MAX_PRICE_TICKS}")]
    PriceRange(MarketId),
    /// Reports would stop counting before an honest leader's turn.
    #[error("market {market}: reports count in {have} heights, f + 1 are {need}")]
    ReportHeights {
        /// Where.
        market: MarketId,
        /// As given, in heights.
        have: u64,
        /// Least, in heights.
        need: u64,
    },
    /// Reports would stop counting before an honest leader's turn.
    #[error("market {market}: reports count for {have} ms, f + 1 leader turns are {need}")]
    ReportAge {
        /// Where.
        market: MarketId,
        /// As given, in milliseconds.
        have: u64,
        /// Least, in milliseconds.
        need: u64,
    },
    /// Reports from before a halt would count after it.
    #[error("market {0}: report_max_age_ms is above halt_after_ms")]
    ReportOutlivesHalt(MarketId),
    /// A band of zero, which honest reports that differ by a tick would miss.
    #[error("market {0}: band_ppm must be positive")]
    NoBand(MarketId),
    /// A gate of 100 % or more, which no fall could ever pass.
    #[error("market {0}: gate_ppm must be below 1000000")]
    GateTooWide(MarketId),
    /// The band reaches the gate: a report near the last price could confirm a jump.
    #[error("market {0}: the band must lie inside the gate, (1 + gate)(1 - band) > 1")]
    BandOutsideGate(MarketId),
    /// Zero, or more sources than a validator can claim.
    #[error("market {0}: min_sources must lie within 1..={MAX_SOURCES}")]
    MinSources(MarketId),
    /// `f` failed leaders in a row could make the market stale.
    #[error("market {market}: stale_after_ms is {have}, f + 1 leader turns are {need}")]
    StaleTooShort {
        /// Where.
        market: MarketId,
        /// As given, in milliseconds.
        have: u64,
        /// Least, in milliseconds.
        need: u64,
    },
    /// An outage that begins before the price is stale.
    #[error("market {0}: outage_after_ms is below stale_after_ms")]
    OutageTooShort(MarketId),
    /// `f` leaders in a row could keep rescues out of the whole grace period.
    #[error("market {market}: grace_ms is {have}, f + 1 leader turns are {need}")]
    GraceTooShort {
        /// Where.
        market: MarketId,
        /// As given, in milliseconds.
        have: u64,
        /// Least, in milliseconds.
        need: u64,
    },
    /// Quarantine before an outage is one.
    #[error("market {0}: quarantine_after_ms must be above outage_after_ms")]
    QuarantineTooShort(MarketId),
}

impl OracleParams {
    /// Checks every limit for a committee.
    ///
    /// # Errors
    /// The first [`ParamsError`], the oracle's own limits first, then by market.
    pub fn validate(&self, committee: Committee) -> Result<(), ParamsError> {
        if self.markets.len() > MAX_MARKETS {
            return Err(ParamsError::TooManyMarkets(self.markets.len()));
        }
        if self.leader_turn_ms == 0 {
            return Err(ParamsError::NoLeaderTurn);
        }
        if self.leader_turn_ms.max(self.halt_after_ms) > MAX_DURATION_MS {
            return Err(ParamsError::DurationTooLong);
        }
        let turns = committee.faults() as u64 + 1;
        // At most 67 turns of a year each: no overflow.
        let need = turns * self.leader_turn_ms;
        if self.halt_after_ms < need {
            return Err(ParamsError::HaltTooShort { have: self.halt_after_ms, need });
        }
        // At most MAX_MARKETS = 256 markets: the id fits.
        (0..)
            .map(MarketId)
            .zip(&self.markets)
            .try_for_each(|(market, params)| params.validate(market, turns, need, self.halt_after_ms))
    }

    /// Parameters of `market`, if there is such a market.
    pub fn market(&self, market: MarketId) -> Option<&MarketParams> {
        self.markets.get(usize::from(market.0))
    }
}

impl MarketParams {
    fn validate(&self, market: MarketId, turns: u64, need: u64, halt: u64) -> Result<(), ParamsError> {
        let durations = [
            self.report_max_age_ms,
            self.stale_after_ms,
            self.outage_after_ms,
            self.grace_ms,
            self.quarantine_after_ms,
        ];
        if durations.into_iter().any(|duration| duration > MAX_DURATION_MS) {
            return Err(ParamsError::DurationTooLong);
        }
        if self.min_price.0 == 0 || self.min_price > self.max_price || self.max_price.0 > MAX_PRICE_TICKS {
            return Err(ParamsError::PriceRange(market));
        }
        if self.report_max_age_heights < turns {
            return Err(ParamsError::ReportHeights {
                market,
                have: self.report_max_age_heights,
                need: turns,
            });
        }
        if self.report_max_age_ms < need {
            return Err(ParamsError::ReportAge { market, have: self.report_max_age_ms, need });
        }
        if self.report_max_age_ms > halt {
            return Err(ParamsError::ReportOutlivesHalt(market));
        }
        if self.band_ppm.0 == 0 {
            return Err(ParamsError::NoBand(market));
        }
        if self.gate_ppm.0 >= MAX_PPM {
            return Err(ParamsError::GateTooWide(market));
        }
        let one = u64::from(MAX_PPM);
        let (band, gate) = (u64::from(self.band_ppm.0), u64::from(self.gate_ppm.0));
        if band >= one || (one + gate) * (one - band) <= one * one {
            return Err(ParamsError::BandOutsideGate(market));
        }
        if self.min_sources == 0 || self.min_sources > MAX_SOURCES {
            return Err(ParamsError::MinSources(market));
        }
        if self.stale_after_ms < need {
            return Err(ParamsError::StaleTooShort { market, have: self.stale_after_ms, need });
        }
        if self.outage_after_ms < self.stale_after_ms {
            return Err(ParamsError::OutageTooShort(market));
        }
        if self.grace_ms < need {
            return Err(ParamsError::GraceTooShort { market, have: self.grace_ms, need });
        }
        if self.quarantine_after_ms <= self.outage_after_ms {
            return Err(ParamsError::QuarantineTooShort(market));
        }
        Ok(())
    }

    /// Whether a price lies within this market's range.
    pub fn in_range(&self, price: PriceTicks) -> bool {
        self.min_price <= price && price <= self.max_price
    }
}
