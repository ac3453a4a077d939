//! What a validator's own sources say: from quotes to one report a market.
//!
//! A *source* is an independent place that quotes a market: an exchange's feed, a file in a replay. Each
//! has one latest quote, with the time that the source itself gives it. A quote counts while
//!
//! - its price is within the market's range (zero never is), and
//! - its time is at most `max_age_ms` before now and at most `max_ahead_ms` after it. The second limit is
//!   there because a quote from a broken clock's future would never grow old.
//!
//! Age is by the quote's time stamp alone. A price that repeats is not frozen: a quiet market repeats. A
//! source that is frozen stops moving its time stamps, and drops out.
//!
//! With `k` counting quotes sorted as `x[0..k]` the report is `low = x[(k-1)/2]`, `high = x[k/2]`,
//! `spread = x[k-1] - x[0]` and `sources = k`. Fewer than half of the sources, however far off, cannot move
//! either median outside the range of the others.

use seawall_types::{
    MarketId, PriceReport, PriceTicks, TimeMs,
    limits::{MAX_MARKETS, MAX_SOURCES},
};
use std::collections::BTreeMap;
use thiserror::Error;

/// A source, by the validator's own numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct SourceId(pub u16);

/// What counts as a quote of one market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct SourceParams {
    /// Oldest quote that counts, in milliseconds before now.
    pub max_age_ms: u64,
    /// Most that a quote's time may be ahead of now, in milliseconds.
    pub max_ahead_ms: u64,
    /// Lowest price, in ticks.
    pub min_price: PriceTicks,
    /// Highest price, in ticks.
    pub max_price: PriceTicks,
}

/// Why a quote is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// No such market.
    #[error("no market {0}")]
    UnknownMarket(MarketId),
    /// The market has [`MAX_SOURCES`] sources already; remove one first.
    #[error("market {0} has {MAX_SOURCES} sources already")]
    TooManySources(MarketId),
    /// More than [`MAX_MARKETS`] markets.
    #[error("{0} markets, at most {MAX_MARKETS} are allowed")]
    TooManyMarkets(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quote {
    price: PriceTicks,
    time: TimeMs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Market {
    params: SourceParams,
    quotes: BTreeMap<SourceId, Quote>,
}

/// The latest quote of every source: at most [`MAX_SOURCES`] a market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    markets: Vec<Market>,
}

impl SourceParams {
    /// Whether a quote counts at `now`.
    pub fn counts(&self, price: PriceTicks, time: TimeMs, now: TimeMs) -> bool {
        price.0 > 0
            && self.min_price <= price
            && price <= self.max_price
            && now.0.saturating_sub(time.0) <= self.max_age_ms
            && time.0.saturating_sub(now.0) <= self.max_ahead_ms
    }
}

/// The report that counting quotes make; nothing if there are none. The order of `prices` does not matter.
///
/// Prices of zero are left out. Of more than [`MAX_SOURCES`], all count for the medians and the report claims
/// [`MAX_SOURCES`].
pub fn aggregate(prices: &[PriceTicks]) -> Option<PriceReport> {
    let mut sorted: Vec<_> = prices.iter().copied().filter(|price| price.0 > 0).collect();
    sorted.sort_unstable();
    let (first, last) = (sorted.first()?, sorted.last()?);
    let k = sorted.len();
    Some(PriceReport {
        low: *sorted.get((k - 1) / 2)?,
        high: *sorted.get(k / 2)?,
        spread: PriceTicks(last.0 - first.0),
        sources: u8::try_from(k).unwrap_or(MAX_SOURCES).min(MAX_SOURCES),
    })
}

impl Sources {
    /// No quotes yet, for the markets in the order of [`MarketId`].
    ///
    /// # Errors
    /// [`SourceError::TooManyMarkets`].
    pub fn new(markets: &[SourceParams]) -> Result<Self, SourceError> {
        if markets.len() > MAX_MARKETS {
            return Err(SourceError::TooManyMarkets(markets.len()));
        }
        let market = |&params| Market { params, quotes: BTreeMap::new() };
        Ok(Self { markets: markets.iter().map(market).collect() })
    }

    /// Takes a quote: `price` in ticks, `time` as the source stamps it. The latest call of a source wins
    /// whatever its time stamp, so that one stamp from the far future cannot lock a source out; a feed that
    /// can reorder must sort before. A price of zero or out of range is kept too and does not count: it is
    /// how a source says that it has none.
    ///
    /// # Errors
    /// [`SourceError::UnknownMarket`], or [`SourceError::TooManySources`] for a further source.
    pub fn update(
        &mut self,
        source: SourceId,
        market: MarketId,
        price: PriceTicks,
        time: TimeMs,
    ) -> Result<(), SourceError> {
        let entry = self.markets.get_mut(usize::from(market.0)).ok_or(SourceError::UnknownMarket(market))?;
        if entry.quotes.len() >= usize::from(MAX_SOURCES) && !entry.quotes.contains_key(&source) {
            return Err(SourceError::TooManySources(market));
        }
        entry.quotes.insert(source, Quote { price, time });
        Ok(())
    }

    /// Forgets a source in every market.
    pub fn remove(&mut self, source: SourceId) {
        for market in &mut self.markets {
            market.quotes.remove(&source);
        }
    }

    /// What this validator reports at `now`, by ascending market; a market without a counting quote is left
    /// out, which means "no price".
    pub fn report(&self, now: TimeMs) -> Vec<(MarketId, PriceReport)> {
        (0..)
            .map(MarketId)
            .zip(&self.markets)
            .filter_map(|(id, market)| {
                let counting: Vec<_> = market
                    .quotes
                    .values()
                    .filter(|quote| market.params.counts(quote.price, quote.time, now))
                    .map(|quote| quote.price)
                    .collect();
                aggregate(&counting).map(|report| (id, report))
            })
            .collect()
    }
}
