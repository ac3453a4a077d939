//! What a validator's own sources say: from quotes to one report a market.
//!
//! A *source* is an independent place that quotes a market: an exchange's feed, a file in a replay. Each
//! has one latest quote, with the time that the source itself gives it. A quote is *fresh* while
//!
//! - its price is within the market's range (zero never is), and
//! - its time is at most `max_age_ms` before now and at most `max_ahead_ms` after it. The second limit is
//!   there because a quote from a broken clock's future would never grow old.
//!
//! Age is by the quote's time stamp alone. A price that repeats is not frozen: a quiet market repeats. A
//! source that is frozen stops moving its time stamps, and drops out.
//!
//! # Older quotes
//! A venue that trades every few minutes is no price of its own, but between two that trade and disagree it
//! is a witness. So a quote no longer fresh, yet at most `max_vote_age_ms` old, *votes* in the median, the
//! youngest first, as long as fresh quotes stay more than half of the voters: one fresh quote admits none,
//! two admit one, three admit two. Whatever the old ones say, both medians then lie within the range of the
//! fresh quotes, and without a fresh quote there is no price. Only fresh quotes are claimed as `sources`, so
//! an old one never helps to confirm a jump.
//!
//! # The report
//! With `k` voters sorted as `x[0..k]` the report is `low = x[(k-1)/2]` and `high = x[k/2]`; `spread` is
//! between the outermost fresh quotes and `sources` their number. Fewer than half of the voters, however far
//! off, cannot move either median outside the range of the others.

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
    /// Oldest quote that is fresh, in milliseconds before now.
    pub max_age_ms: u64,
    /// Oldest quote that still votes beside fresh ones, in milliseconds before now. At most `max_age_ms`:
    /// only fresh ones vote.
    pub max_vote_age_ms: u64,
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
    /// Whether a quote is fresh at `now`.
    pub fn is_fresh(&self, price: PriceTicks, time: TimeMs, now: TimeMs) -> bool {
        self.is_price(price, time, now) && now.0.saturating_sub(time.0) <= self.max_age_ms
    }

    /// Whether a quote is a price at all, however old.
    fn is_price(&self, price: PriceTicks, time: TimeMs, now: TimeMs) -> bool {
        price.0 > 0
            && self.min_price <= price
            && price <= self.max_price
            && time.0.saturating_sub(now.0) <= self.max_ahead_ms
    }

    /// What these quotes say at `now`; nothing if none is fresh. Their order does not matter.
    fn weigh(&self, quotes: impl Iterator<Item = Quote>, now: TimeMs) -> Option<PriceReport> {
        let (mut fresh, mut old) = (Vec::new(), Vec::new());
        for quote in quotes.filter(|quote| self.is_price(quote.price, quote.time, now)) {
            let age_ms = now.0.saturating_sub(quote.time.0);
            if age_ms <= self.max_age_ms {
                fresh.push(quote.price);
            } else if age_ms <= self.max_vote_age_ms {
                old.push((age_ms, quote.price));
            }
        }
        let heard = aggregate(&fresh)?;
        // Of two that are equally old, the lower price votes first: the order of sources decides nothing.
        old.sort_unstable();
        let mut voters = fresh.clone();
        voters.extend(old.into_iter().take(fresh.len().saturating_sub(1)).map(|(_, price)| price));
        let voted = aggregate(&voters)?;
        Some(PriceReport { low: voted.low, high: voted.high, ..heard })
    }
}

/// The report that these quotes make; nothing if there are none. The order of `prices` does not matter.
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
    /// can reorder must sort before. A price of zero or out of range is kept too and never counts: it is
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

    /// What this validator reports at `now`, by ascending market; a market without a fresh quote is left
    /// out, which means "no price".
    pub fn report(&self, now: TimeMs) -> Vec<(MarketId, PriceReport)> {
        (0..)
            .map(MarketId)
            .zip(&self.markets)
            .filter_map(|(id, market)| {
                let report = market.params.weigh(market.quotes.values().copied(), now)?;
                Some((id, report))
            })
            .collect()
    }
}
