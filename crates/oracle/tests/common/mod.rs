//! A committee that reports to an oracle, block by block.

#![allow(dead_code, unused_imports, missing_docs)]

pub use seawall_oracle::*;
pub use seawall_types::{
    Height, Mark, MarketId, Ppm, PriceReport,
    PriceState::{self, Disputed, Fresh, Quarantined, Reopening, Stale},
    PriceTicks, TimeMs, ValidatorId,
};

pub const M: MarketId = MarketId(0);
pub const START: u64 = 1_760_000_000_000;
pub const PRICE: u64 = 100_000;
pub const TURN: u64 = 1_000;

/// Band 1 %, gate 5 %, stale after 10 s, an outage after 60 s, 30 s of grace, an hour to quarantine.
pub fn market() -> MarketParams {
    MarketParams {
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
        report_max_age_heights: 40,
        report_max_age_ms: 10_000,
        band_ppm: Ppm(10_000),
        gate_ppm: Ppm(50_000),
        min_sources: 2,
        stale_after_ms: 10_000,
        outage_after_ms: 60_000,
        grace_ms: 30_000,
        quarantine_after_ms: 3_600_000,
    }
}

pub fn params(markets: &[MarketParams]) -> OracleParams {
    OracleParams { leader_turn_ms: TURN, halt_after_ms: 60_000, markets: markets.to_vec() }
}

pub fn report(low: u64, high: u64, sources: u8) -> PriceReport {
    PriceReport {
        low: PriceTicks(low),
        high: PriceTicks(high),
        spread: PriceTicks(high.saturating_sub(low)),
        sources,
    }
}

/// A report of three agreeing sources.
pub fn at(price: u64) -> Option<PriceReport> {
    Some(report(price, price, 3))
}

/// One market and a committee.
pub struct Chain {
    pub oracle: Oracle,
    pub n: usize,
    pub f: usize,
    pub seq: u64,
}

impl Chain {
    pub fn with(n: usize, market: MarketParams, initial: Option<u64>) -> Self {
        let oracle =
            Oracle::genesis(params(&[market]), n, &[initial.map(PriceTicks)], TimeMs(START)).unwrap();
        Self { oracle, n, f: (n - 1) / 3, seq: 0 }
    }

    pub fn new(n: usize) -> Self {
        Self::with(n, market(), Some(PRICE))
    }

    pub fn q(&self) -> usize {
        self.n - self.f
    }

    /// A block `after_ms` later with these observations: author and its report, or "no price".
    pub fn observe(&mut self, after_ms: u64, said: &[(usize, Option<PriceReport>)]) -> Step {
        self.seq += 1;
        let prices: Vec<(ValidatorId, Vec<(MarketId, PriceReport)>)> = said
            .iter()
            .map(|(author, report)| {
                (ValidatorId(*author as u16), report.iter().map(|report| (M, *report)).collect())
            })
            .collect();
        let reported: Vec<_> = prices
            .iter()
            .map(|(author, prices)| Reported { author: *author, seq: self.seq, prices })
            .collect();
        let head = self.oracle.state().head;
        self.oracle.step(head.height.next(), TimeMs(head.time.0 + after_ms), &reported).unwrap()
    }

    /// A block in which every member says the same.
    pub fn all(&mut self, after_ms: u64, report: Option<PriceReport>) -> Step {
        let said: Vec<_> = (0..self.n).map(|author| (author, report)).collect();
        self.observe(after_ms, &said)
    }

    /// Blocks a second apart, in which every member says the same.
    pub fn run(&mut self, seconds: u64, report: Option<PriceReport>) {
        for _ in 0..seconds {
            self.all(1_000, report);
        }
    }

    pub fn state(&self) -> PriceState {
        self.record().state
    }

    pub fn record(&self) -> MarketOracle {
        *self.oracle.market(M).unwrap()
    }

    pub fn price(&self) -> u64 {
        self.record().last.unwrap().0
    }
}
