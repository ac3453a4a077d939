//! The prices that a validator sees: some feeds of the replay, and what faults and lies make of them.

use crate::{
    scenario::{ByzantineKind, FaultKind, Plan},
    wire::Wire,
};
use seawall_chain::{observer::PriceSource, timeline::Timeline};
use seawall_oracle::{SourceId, SourceParams, Sources};
use seawall_replay::Replay;
use seawall_types::{MarketId, PriceReport, PriceTicks, TimeMs};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

/// A fault of this validator's feeds.
#[derive(Clone, Copy, Debug)]
struct Hurt {
    fault: usize,
    kind: FaultKind,
    from_ms: u64,
    until_ms: u64,
    skew_ppm: i64,
}

/// A validator's price sources.
pub struct Feeds {
    replay: Arc<Replay>,
    feeds: Vec<usize>,
    sources: Mutex<Sources>,
    /// True chain time of virtual time.
    truth: Timeline,
    /// What this validator's clock is ahead of the truth, in chain ms.
    ahead_ms: i64,
    hurts: Vec<Hurt>,
    /// Parts per million of the true price that a liar reports.
    lie_ppm: Option<u64>,
    fired: Arc<Vec<AtomicU64>>,
}

impl Feeds {
    /// The feeds with these indices, for the validator at `place`.
    ///
    /// # Panics
    /// If a market has more feeds than sources may be, which no shipped replay does.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        plan: &Plan,
        place: usize,
        replay: Arc<Replay>,
        feeds: Vec<usize>,
        params: &[SourceParams],
        truth: Timeline,
        ahead_ms: i64,
        fired: Arc<Vec<AtomicU64>>,
    ) -> Self {
        let hurts = plan
            .fault
            .iter()
            .enumerate()
            .filter(|(_, fault)| plan.who(&fault.who).contains(&place))
            .filter(|(_, fault)| {
                matches!(fault.kind, FaultKind::FeedDeath | FaultKind::FeedFreeze | FaultKind::FeedSkew)
            })
            .map(|(index, fault)| Hurt {
                fault: index,
                kind: fault.kind,
                from_ms: fault.at_ms,
                until_ms: fault.until_ms.unwrap_or(u64::MAX),
                skew_ppm: fault.skew_ppm,
            });
        let lies = plan.byzantine_of();
        let lie = lies.get(&place).and_then(|own| own.iter().find(|own| own.kind == ByzantineKind::LiePrice));
        Self {
            replay,
            feeds,
            sources: Mutex::new(
                Sources::new(params).expect("a replay has at most as many markets as a chain"),
            ),
            truth,
            ahead_ms,
            hurts: hurts.collect(),
            lie_ppm: lie.map(|lie| lie.ppm),
            fired,
        }
    }
}

impl PriceSource for Feeds {
    fn report(&self, now: TimeMs) -> Vec<(MarketId, PriceReport)> {
        let true_ms = now.get().saturating_add_signed(-self.ahead_ms);
        let virtual_ms =
            true_ms.saturating_sub(self.truth.chain_origin_ms) / u64::from(self.truth.speed.max(1));
        let hurt = self.hurts.iter().filter(|hurt| (hurt.from_ms..hurt.until_ms).contains(&virtual_ms));
        let (mut read_ms, mut ppm) = (true_ms, 1_000_000i64);
        for own in hurt {
            self.fired[own.fault].fetch_add(1, Ordering::Relaxed);
            match own.kind {
                FaultKind::FeedDeath => return Vec::new(),
                FaultKind::FeedFreeze => {
                    let began = self.truth.chain_origin_ms + own.from_ms * u64::from(self.truth.speed);
                    read_ms = read_ms.min(began);
                }
                _ => ppm += own.skew_ppm,
            }
        }
        if let Some(lie) = self.lie_ppm {
            ppm = i64::try_from(lie).unwrap_or(i64::MAX);
        }
        let mut sources = self.sources.lock().expect("no thread panics with the sources");
        for &index in &self.feeds {
            let feed = &self.replay.feeds[index];
            let Some((price, stamp_ms)) = feed.at(read_ms) else { continue };
            let told = u128::from(price.get()) * u128::from(ppm.max(1).unsigned_abs()) / 1_000_000;
            let told = PriceTicks(u64::try_from(told).unwrap_or(u64::MAX).max(1));
            let source = SourceId(u16::try_from(index).expect("a replay has few feeds"));
            // A quote that the market cannot be is one that no source would count.
            let _ = sources.update(source, feed.market, told, TimeMs(stamp_ms));
        }
        sources.report(now)
    }
}

/// The price that most venues show at a chain time: the lower median of the newest values.
pub fn index_price(replay: &Replay, market: MarketId, at_ms: u64) -> Option<PriceTicks> {
    let mut prices: Vec<PriceTicks> =
        replay.feeds_of(market).filter_map(|place| Some(replay.feeds[place].at(at_ms)?.0)).collect();
    prices.sort_unstable();
    prices.get(prices.len().checked_sub(1)? / 2).copied()
}

/// Faults of feeds are counted where they act, faults of the wire on the wire.
pub fn add_counts(wire: &Wire, feeds: &[AtomicU64]) -> Vec<u64> {
    wire.fired().iter().zip(feeds).map(|(a, b)| a + b.load(Ordering::Relaxed)).collect()
}
