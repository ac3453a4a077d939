//! What a validator measures of each lane, and what the queueing model predicts for the same arrivals and blocks.
//!
//! Every [`WINDOW`] the figures of the window that ended are set, each beside its prediction:
//!
//! | figure (`lanes_measured`, `lanes_predicted`) | measured | predicted |
//! | --- | --- | --- |
//! | `arrivals_per_s` | actions that came to the pool, those it gave up included | the same: it is what is asked |
//! | `carried_per_s` | actions of final blocks | arrivals without what pools drop |
//! | `delay_mean_ms`, `delay_p50_ms`, `delay_p99_ms` | from pooled here to final here | wait for a block by the model, and the mean finality of own proposals |
//! | `dropped_share` | of arrivals, what queue or pool turned away | by the pool alone |
//! | `utilisation` | | offered by what blocks have room for |
//!
//! The model is asked about blocks of the mean interval and variation that were measured, with room for what one core
//! executes in that time by the committed calibration and at most what this validator builds. A figure that there
//! is none of is not set: of an empty window, or a lane without room for its load. Actions that reached the pool of the
//! leader later than this one wait longer than predicted; what waits in front of the signature checks is in neither.
//!
//! Floats are allowed here: nothing of this reaches a block.

use crate::model::{Costs, MISSED_BLOCKS, pools, reserve};
use commonware_runtime::{
    Metrics,
    telemetry::metrics::{Counter, Histogram, MetricsExt as _, Registered, raw},
};
use hdrhistogram::Histogram as Delays;
use seawall_chain::{
    app::Monitor, block::Block, gate::Finalized, ingress::Submitter, machine::Step, mempool::Watcher,
};
use seawall_queueing::{
    arrivals::MAX_SLOT_SCV,
    kingman::Law,
    lanes::{Block as Places, Sharing},
    model::{Chain, Delay, Flow, Lane as Predicted, Mix, Model, Prediction, Risk},
    units::{Invalid, Ms, PerSecond},
};
use seawall_types::{AccountId, Digest, Height, Lane, Nonce, SignedAction};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// How long is measured before figures are set.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Actions whose delay is measured at a time. Of more, the delay is not measured, and they are counted as untimed.
pub const MAX_TIMED: usize = 1 << 18;
/// Longest delay that is told from a longer one.
const MAX_DELAY_US: u64 = 600_000_000;
/// Upper ends of the histogram of delays, in milliseconds.
const DELAY_BUCKETS_MS: [f64; 12] =
    [25.0, 50.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 60_000.0];

type Gauge = raw::Gauge<f64, AtomicU64>;
type Figures = Registered<raw::Family<[(&'static str, &'static str); 1], Gauge>>;

/// What was measured of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LaneWindow {
    /// Actions a second that came.
    pub arrivals_per_s: f64,
    /// Actions a second that final blocks carried.
    pub carried_per_s: f64,
    /// Of what came, what was turned away. Nothing if nothing came.
    pub dropped_share: Option<f64>,
    /// Mean, p50 and p99 from pooled to final. Nothing if nothing was timed.
    pub delay_ms: Option<[f64; 3]>,
}

/// What was measured of a validator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Mean time between two final blocks, if there were two.
    pub interval_ms: Option<f64>,
    /// Squared coefficient of variation of that time.
    pub interval_scv: f64,
    /// Mean time from the building of own proposals to their finality, if there were any.
    pub finality_ms: Option<f64>,
    /// Rescues and trades.
    pub lanes: [LaneWindow; 2],
}

impl Window {
    /// What the model says of the same arrivals and blocks, if blocks of at most `most` actions became final; own
    /// proposals, too, because otherwise nobody here knows how long finality takes.
    ///
    /// # Errors
    /// If more arrived than the model can describe.
    pub fn predict(&self, most: u32) -> Result<Option<Prediction>, Invalid> {
        let (Some(interval_ms), Some(finality_ms)) = (self.interval_ms, self.finality_ms) else {
            return Ok(None);
        };
        let places = Costs::committed().places(interval_ms).min(most).max(1);
        let (rescue_pool, trade_pool) = pools();
        let model = Model::new(Chain {
            slot_ms: Ms::new(interval_ms.max(Model::MIN_SLOT_MS))?,
            slot_scv: self.interval_scv.clamp(0.0, MAX_SLOT_SCV),
            block: Places::new(places, reserve(places), Sharing::Lent)?,
            rescue_pool,
            trade_pool,
            check: Law::constant(Ms::ZERO),
            relay_ms: Ms::ZERO,
            finality_ms: Ms::new(finality_ms)?,
            missed_blocks: MISSED_BLOCKS,
        })?;
        let [rescue, trade] = self.lanes.map(|lane| PerSecond::new(lane.arrivals_per_s).map(Flow::poisson));
        let mix = Mix { system: PerSecond::ZERO, rescue: rescue?, trade: trade? };
        model.predict(&mix, &Risk::default()).map(Some)
    }
}

struct Waiting {
    since: Instant,
    expiry: Height,
}

/// What adds up in a window.
struct Sums {
    pooled: [u64; 2],
    carried: [u64; 2],
    dropped: [u64; 2],
    delays_us: [Delays<u64>; 2],
    intervals: u64,
    interval_ms: f64,
    interval_ms2: f64,
    proposals: u64,
    finality_ms: f64,
    since: Instant,
}

impl Sums {
    fn new(since: Instant) -> Self {
        let delays =
            || Delays::new_with_bounds(1, MAX_DELAY_US, 3).expect("three digits between constant bounds");
        Self {
            pooled: [0; 2],
            carried: [0; 2],
            dropped: [0; 2],
            delays_us: [delays(), delays()],
            intervals: 0,
            interval_ms: 0.0,
            interval_ms2: 0.0,
            proposals: 0,
            finality_ms: 0.0,
            since,
        }
    }

    fn window(&self, now: Instant) -> Window {
        let seconds = now.duration_since(self.since).as_secs_f64().max(1e-3);
        let lane = |index: usize| {
            let delays = &self.delays_us[index];
            // What the pool gave up after it had taken it came once.
            let arrived = self.pooled[index] + self.dropped[index];
            let quantile = |share: f64| delays.value_at_quantile(share) as f64 / 1e3;
            LaneWindow {
                arrivals_per_s: arrived as f64 / seconds,
                carried_per_s: self.carried[index] as f64 / seconds,
                dropped_share: (arrived > 0).then(|| self.dropped[index] as f64 / arrived as f64),
                delay_ms: (!delays.is_empty()).then(|| [delays.mean() / 1e3, quantile(0.5), quantile(0.99)]),
            }
        };
        let count = self.intervals as f64;
        let mean = (self.intervals > 0).then(|| self.interval_ms / count);
        let scv = mean
            .filter(|mean| *mean > 0.0)
            .map_or(0.0, |mean| (self.interval_ms2 / count / (mean * mean) - 1.0).max(0.0));
        Window {
            interval_ms: mean,
            interval_scv: scv,
            finality_ms: (self.proposals > 0).then(|| self.finality_ms / self.proposals as f64),
            lanes: [lane(0), lane(1)],
        }
    }
}

struct State {
    waiting: HashMap<(AccountId, Nonce), Waiting>,
    sums: Sums,
    last_block: Option<Instant>,
    height: Height,
    /// What was turned away in front of the pool when it was last asked.
    shed: [u64; 2],
}

/// What is registered of a lane.
struct LaneMetrics {
    pooled: Counter,
    carried: Counter,
    weight: Counter,
    dropped: Counter,
    delay_ms: Histogram,
    measured: Figures,
    predicted: Figures,
}

struct Shared {
    state: Mutex<State>,
    lanes: [LaneMetrics; 2],
    blocks: Counter,
    untimed: Counter,
    interval_ms: Registered<Gauge>,
    finality_ms: Registered<Gauge>,
    /// What a block that is built here carries at most.
    most: u32,
}

/// Measures. Its clones are the same.
#[derive(Clone)]
pub struct Meter {
    shared: Arc<Shared>,
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Rescue => 0,
        Lane::Trade => 1,
    }
}

fn set(figures: &Figures, name: &'static str, value: Option<f64>) {
    let label = [("figure", name)];
    match value {
        Some(value) => {
            figures.get_or_create(&label).set(value);
        }
        None => {
            figures.remove(&label);
        }
    }
}

impl Meter {
    /// A meter of a validator whose blocks carry at most `most` actions, with its metrics below this context.
    pub fn new(context: &impl Metrics, most: usize) -> Self {
        let lane = |name: &'static str| {
            let context = context.child("lanes").with_attribute("lane", name);
            LaneMetrics {
                pooled: context.counter("pooled", "Actions that were checked and pooled"),
                carried: context.counter("carried", "Actions that final blocks carried"),
                weight: context.counter("weight", "The same by weight: each order of a bulk action counts"),
                dropped: context.counter("dropped", "Actions that queue or pool turned away"),
                delay_ms: context.histogram("delay_ms", "From pooled to final, in ms", DELAY_BUCKETS_MS),
                measured: context.family("measured", "What was measured in the last window"),
                predicted: context.family("predicted", "What the queueing model predicts for it"),
            }
        };
        let now = Instant::now();
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    waiting: HashMap::new(),
                    sums: Sums::new(now),
                    last_block: None,
                    height: Height(0),
                    shed: [0; 2],
                }),
                lanes: [lane("rescue"), lane("trade")],
                blocks: context.counter("final_blocks", "Blocks that became final"),
                untimed: context
                    .counter("untimed", "Pooled actions whose delay is not measured: too many wait"),
                interval_ms: context.register(
                    "block_interval_ms",
                    "Mean time between final blocks in the last window",
                    Gauge::default(),
                ),
                finality_ms: context.register(
                    "finality_ms",
                    "Mean time from building to finality of own proposals in the last window",
                    Gauge::default(),
                ),
                most: u32::try_from(most).unwrap_or(u32::MAX).max(1),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("a thread panicked while it held the meter")
    }

    /// Notes a finality certificate that this validator sees.
    pub fn certified(&self, finalized: &Finalized) {
        if let Some(elapsed) = finalized.since_proposal {
            let mut state = self.lock();
            state.sums.proposals += 1;
            state.sums.finality_ms += elapsed.as_secs_f64() * 1e3;
        }
    }

    /// Ends the window: what was measured in it, which is also set as metrics. What the queues turned away comes from
    /// `submitter`.
    pub fn measure(&self, submitter: &Submitter) -> Window {
        let (rescues, trades) = submitter.shed();
        let now = Instant::now();
        let mut state = self.lock();
        for (index, shed) in [rescues, trades].into_iter().enumerate() {
            let new = shed.saturating_sub(state.shed[index]);
            state.shed[index] = shed;
            state.sums.dropped[index] += new;
            self.shared.lanes[index].dropped.inc_by(new);
        }
        let window = state.sums.window(now);
        state.sums = Sums::new(now);
        let height = state.height;
        state.waiting.retain(|_, waiting| waiting.expiry > height);
        drop(state);
        if let Some(interval_ms) = window.interval_ms {
            self.shared.interval_ms.set(interval_ms);
        }
        if let Some(finality_ms) = window.finality_ms {
            self.shared.finality_ms.set(finality_ms);
        }
        for (metrics, lane) in self.shared.lanes.iter().zip(window.lanes) {
            set(&metrics.measured, "arrivals_per_s", Some(lane.arrivals_per_s));
            set(&metrics.measured, "carried_per_s", Some(lane.carried_per_s));
            set(&metrics.measured, "dropped_share", lane.dropped_share);
            set(&metrics.measured, "delay_mean_ms", lane.delay_ms.map(|[mean, ..]| mean));
            set(&metrics.measured, "delay_p50_ms", lane.delay_ms.map(|[_, p50, _]| p50));
            set(&metrics.measured, "delay_p99_ms", lane.delay_ms.map(|[.., p99]| p99));
        }
        window
    }

    /// Sets what the model says of a window beside it. Takes as long as the model does.
    pub fn compare(&self, window: &Window) {
        let prediction = window.predict(self.shared.most).unwrap_or_else(|error| {
            tracing::debug!(%error, "the model has no prediction for what was measured");
            None
        });
        let lanes = [prediction.map(|found| found.rescue), prediction.map(|found| found.trade)];
        for ((metrics, lane), measured) in self.shared.lanes.iter().zip(lanes).zip(window.lanes) {
            let [mean, p50, p99] = lane.as_ref().map_or([None; 3], delays);
            set(&metrics.predicted, "arrivals_per_s", lane.map(|_| measured.arrivals_per_s));
            set(&metrics.predicted, "carried_per_s", lane.map(|lane| lane.carried.get()));
            set(&metrics.predicted, "dropped_share", lane.map(|lane| lane.dropped.get()));
            set(&metrics.predicted, "delay_mean_ms", mean);
            set(&metrics.predicted, "delay_p50_ms", p50);
            set(&metrics.predicted, "delay_p99_ms", p99);
            set(&metrics.predicted, "utilisation", lane.map(|lane| lane.utilisation));
        }
    }
}

/// Mean, p50 and p99, as far as the model has them.
fn delays(lane: &Predicted) -> [Option<f64>; 3] {
    match lane.delay {
        Delay::Steady { mean_ms, p50_ms, p99_ms, .. } => [mean_ms, p50_ms, p99_ms].map(|ms| Some(ms.get())),
        Delay::Saturated { mean_ms } => [Some(mean_ms.get()), None, None],
        Delay::Unbounded => [None; 3],
    }
}

impl Watcher for Meter {
    fn pooled(&self, action: &SignedAction) {
        let lane = index(action.action.lane());
        self.shared.lanes[lane].pooled.inc();
        let mut state = self.lock();
        state.sums.pooled[lane] += 1;
        if state.waiting.len() >= MAX_TIMED {
            self.shared.untimed.inc();
            return;
        }
        let waiting = Waiting { since: Instant::now(), expiry: action.expiry };
        state.waiting.insert((action.account, action.nonce), waiting);
    }

    fn shed(&self, action: &SignedAction) {
        let lane = index(action.action.lane());
        self.shared.lanes[lane].dropped.inc();
        let mut state = self.lock();
        state.sums.dropped[lane] += 1;
        // It had been pooled, and came once.
        if state.waiting.remove(&(action.account, action.nonce)).is_some() {
            state.sums.pooled[lane] = state.sums.pooled[lane].saturating_sub(1);
        }
    }
}

impl Monitor for Meter {
    fn finalized(&self, block: &Block, _: Digest, _: &Step) {
        let now = Instant::now();
        self.shared.blocks.inc();
        let mut state = self.lock();
        state.height = block.header.height;
        if let Some(last) = state.last_block.replace(now) {
            let interval_ms = now.duration_since(last).as_secs_f64() * 1e3;
            state.sums.intervals += 1;
            state.sums.interval_ms += interval_ms;
            state.sums.interval_ms2 += interval_ms * interval_ms;
        }
        for action in &block.body.actions {
            let lane = index(action.action.lane());
            let metrics = &self.shared.lanes[lane];
            metrics.carried.inc();
            metrics.weight.inc_by(action.action.weight() as u64);
            state.sums.carried[lane] += 1;
            if let Some(waiting) = state.waiting.remove(&(action.account, action.nonce)) {
                let delay = now.duration_since(waiting.since);
                metrics.delay_ms.observe(delay.as_secs_f64() * 1e3);
                let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
                state.sums.delays_us[lane].saturating_record(delay_us.max(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(rescue: f64, trade: f64) -> Window {
        let lane = |arrivals_per_s| LaneWindow { arrivals_per_s, ..LaneWindow::default() };
        Window {
            interval_ms: Some(100.0),
            interval_scv: 0.0,
            finality_ms: Some(80.0),
            lanes: [lane(rescue), lane(trade)],
        }
    }

    #[test]
    fn a_lane_with_little_load_is_predicted_to_wait_half_a_block_and_finality() {
        let found = window(10.0, 100.0).predict(16_384).unwrap().unwrap();
        for lane in [found.rescue, found.trade] {
            let [Some(mean), Some(p50), Some(p99)] = delays(&lane) else { panic!("{lane:?}") };
            assert!((mean - 130.0).abs() < 1.0 && (p50 - 130.0).abs() < 1.0, "{mean} {p50}");
            assert!((p99 - 179.0).abs() < 1.0, "{p99}");
        }
    }

    #[test]
    fn trades_beyond_capacity_have_no_quantile_and_rescues_keep_theirs() {
        let calm = window(10.0, 100.0).predict(1_000).unwrap().unwrap();
        let over = window(10.0, 50_000.0).predict(1_000).unwrap().unwrap();
        assert!(delays(&over.trade)[2].is_none());
        assert!(over.trade.dropped.get() > 0.7 && over.trade.utilisation > 1.0);
        assert_eq!(delays(&calm.rescue), delays(&over.rescue));
    }

    #[test]
    fn without_blocks_or_own_proposals_there_is_no_prediction() {
        let whole = window(1.0, 1.0);
        for part in [Window { interval_ms: None, ..whole }, Window { finality_ms: None, ..whole }] {
            assert_eq!(part.predict(100).unwrap(), None);
        }
        assert!(window(f64::NAN, 1.0).predict(100).is_err());
    }

    #[test]
    fn a_window_is_what_was_summed_in_it() {
        let start = Instant::now();
        let mut sums = Sums::new(start);
        (sums.pooled, sums.dropped, sums.carried) = ([10, 60], [0, 20], [10, 50]);
        for delay_us in [100_000, 200_000, 300_000] {
            sums.delays_us[0].record(delay_us).unwrap();
        }
        for interval_ms in [50.0, 150.0] {
            sums.intervals += 1;
            sums.interval_ms += interval_ms;
            sums.interval_ms2 += interval_ms * interval_ms;
        }
        let found = sums.window(start + Duration::from_secs(2));
        assert_eq!(found.interval_ms, Some(100.0));
        assert!((found.interval_scv - 0.25).abs() < 1e-9);
        assert_eq!((found.lanes[0].arrivals_per_s, found.lanes[0].dropped_share), (5.0, Some(0.0)));
        assert_eq!((found.lanes[1].arrivals_per_s, found.lanes[1].dropped_share), (40.0, Some(0.25)));
        let [mean, p50, p99] = found.lanes[0].delay_ms.unwrap();
        assert!((mean - 200.0).abs() < 1.0 && (p50 - 200.0).abs() < 1.0 && (p99 - 300.0).abs() < 1.0);
        assert_eq!(found.lanes[1].delay_ms, None);
        let empty = Sums::new(start).window(start + Duration::from_secs(1));
        assert_eq!((empty.interval_ms, empty.finality_ms, empty.lanes[0].dropped_share), (None, None, None));
    }
}
