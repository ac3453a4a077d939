//! A replay's feeds as a validator's price sources.

use seawall_chain::observer::PriceSource;
use seawall_oracle::{MarketParams, SourceError, SourceId, SourceParams, Sources};
use seawall_replay::Replay;
use seawall_types::{MarketId, PriceReport, TimeMs};
use std::sync::{Arc, Mutex};

/// Bars for which a value is fresh. A minute without a trade must not silence a venue that trades in the
/// next one, and two in a row must.
const FRESH_BARS: u64 = 3;
/// Bars for which a value still votes between fresh ones that disagree. The thinnest venue that a shipped
/// replay has is silent for up to fourteen.
const VOTE_BARS: u64 = 15;
/// Most that a stamp may be ahead of a validator's own clock.
const MAX_AHEAD_MS: u64 = 1_000;

/// What the sources of each market are held to, by the bars of the recording and the markets' own limits.
pub fn source_params(replay: &Replay, markets: &[MarketParams]) -> Vec<SourceParams> {
    (0..)
        .map(MarketId)
        .zip(markets)
        .map(|(id, market)| SourceParams {
            max_age_ms: FRESH_BARS * replay.bar_ms(id),
            max_vote_age_ms: VOTE_BARS * replay.bar_ms(id),
            max_ahead_ms: MAX_AHEAD_MS,
            min_price: market.min_price,
            max_price: market.max_price,
        })
        .collect()
}

/// Polls some of a replay's feeds. A feed shows a value no earlier than its venue did.
pub struct ReplaySource {
    replay: Arc<Replay>,
    feeds: Vec<usize>,
    sources: Mutex<Sources>,
}

impl ReplaySource {
    /// A source over the feeds with these indices; indices that the replay does not have are ignored.
    ///
    /// # Errors
    /// If the parameters do not fit the markets, or a market has too many feeds.
    pub fn new(replay: Arc<Replay>, feeds: Vec<usize>, params: &[SourceParams]) -> Result<Self, SourceError> {
        Ok(Self { replay, feeds, sources: Mutex::new(Sources::new(params)?) })
    }
}

impl PriceSource for ReplaySource {
    fn report(&self, now: TimeMs) -> Vec<(MarketId, PriceReport)> {
        let mut sources = self.sources.lock().expect("a thread panicked while it held the sources");
        for &index in &self.feeds {
            let Some(feed) = self.replay.feeds.get(index) else { continue };
            let Some((price, stamp_ms)) = feed.at(now.get()) else { continue };
            let source = SourceId(u16::try_from(index).expect("a replay has few feeds"));
            if let Err(error) = sources.update(source, feed.market, price, TimeMs(stamp_ms)) {
                tracing::debug!(venue = feed.venue, %error, "dropped a quote");
            }
        }
        sources.report(now)
    }
}
