//! A replay's feeds as a validator's price sources.

use seawall_chain::observer::PriceSource;
use seawall_oracle::{SourceError, SourceId, SourceParams, Sources};
use seawall_replay::Replay;
use seawall_types::{MarketId, PriceReport, TimeMs};
use std::sync::{Arc, Mutex};

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
