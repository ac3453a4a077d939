//! What queueing theory says of a run, from its cadence alone: [`seawall_queueing`] knows nothing of the simulation.
//!
//! What goes in is measured where no formula has it (the time between blocks and its variation, finality) and stated where
//! it is a parameter (places, pools, a signature check, the way to a leader). What comes out is put beside the lanes'
//! latencies.

use crate::{
    calibration::Calibration,
    record::{Lanes, PredictedLane, Prediction, Totals},
    scenario::Plan,
    sim::{RESERVE, Setup},
};
use seawall_chain::mempool::PoolLimits;
use seawall_queueing::{
    kingman::Law,
    lanes::{Block, Sharing},
    model::{Chain, Delay, Flow, Lane, Mix, Model, Risk},
    units::{Invalid, Ms, PerSecond},
};

/// Blocks that may leave without a rescue that waits: those in flight with pipelined proposals.
const MISSED_BLOCKS: u32 = 1;

fn check_ms(plan: &Plan, calibration: &Calibration) -> f64 {
    calibration.verify_us * plan.capacity.slowdown / f64::from(plan.capacity.cores) / 1e3
}

fn lane(own: &Lane) -> PredictedLane {
    let (regime, mean, p50, p99) = match own.delay {
        Delay::Steady { mean_ms, p50_ms, p99_ms, .. } => {
            ("steady", Some(mean_ms.get()), Some(p50_ms.get()), Some(p99_ms.get()))
        }
        Delay::Saturated { mean_ms } => ("saturated", Some(mean_ms.get()), None, None),
        Delay::Unbounded => ("unbounded", None, None, None),
    };
    PredictedLane {
        regime: regime.to_owned(),
        utilisation: own.utilisation.is_finite().then_some(own.utilisation),
        mean_ms: mean,
        p50_ms: p50,
        p99_ms: p99,
        dropped: own.dropped.get(),
        carried_per_second: own.carried.get(),
    }
}

/// The prediction for a run; nothing if no two blocks were final, or the model refuses the load.
pub fn predict(setup: &Setup, lanes: &Lanes, totals: &Totals, ends_ms: &[u64]) -> Option<Prediction> {
    let gaps: Vec<f64> = ends_ms.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
    if gaps.is_empty() || mean <= 0.0 {
        return None;
    }
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    model(setup, lanes, totals, mean, variance / (mean * mean)).ok()
}

fn model(
    setup: &Setup,
    lanes: &Lanes,
    totals: &Totals,
    slot_ms: f64,
    scv: f64,
) -> Result<Prediction, Invalid> {
    let plan = &setup.plan;
    let n = setup.topology.places.len() as f64;
    let ways: f64 = setup.topology.one_way_ms.iter().flatten().sum();
    let hop_ms = ways / (n * n) + setup.calibration.vote().as_secs_f64() * 1e3;
    let places = plan.capacity.block_weight;
    let scaled = |most: usize| ((most as f64 / plan.capacity.slowdown) as u32).max(64);
    let pools = PoolLimits::default();
    let chain = Chain {
        slot_ms: Ms::new(slot_ms)?,
        slot_scv: scv,
        block: Block::new(places, RESERVE.min(places), Sharing::WholeBlock)?,
        rescue_pool: scaled(pools.rescues),
        trade_pool: scaled(pools.trades),
        check: Law::constant(Ms::new(check_ms(plan, &setup.calibration))?),
        relay_ms: Ms::new(hop_ms)?,
        finality_ms: Ms::new(totals.finality_p50_ms as f64)?,
        missed_blocks: MISSED_BLOCKS,
    };
    let seconds = plan.duration_ms as f64 / 1e3;
    // Every gateway checks its own share of what is sent.
    let each = |sent: u64| PerSecond::new(sent as f64 / seconds);
    let mix = Mix {
        system: PerSecond::new(n * 1e3 / slot_ms)?,
        rescue: Flow::poisson(each(lanes.rescue.sent)?),
        trade: Flow::poisson(each(lanes.trade.sent)?),
    };
    // The gateways' cores work side by side: one server that is as fast as all of them.
    let together = Chain { check: Law::constant(Ms::new(check_ms(plan, &setup.calibration) / n)?), ..chain };
    let found = Model::new(together)?.predict(&mix, &Risk::default())?;
    Ok(Prediction {
        rescue: lane(&found.rescue),
        trade: lane(&found.trade),
        assumptions: format!(
            "slots of {slot_ms:.0} ms (squared coefficient of variation {scv:.2}) and {:.0} ms to finality as measured; \
             {places} places a block, rescues first; Poisson arrivals at the mean rate of the storm; {hop_ms:.0} ms from a \
             gateway to a leader; {:.2} ms a signature check at each of {n} gateways",
            chain.finality_ms.get(),
            check_ms(plan, &setup.calibration),
        ),
    })
}
