//! Finality of simulated networks against the bound that distance sets.
//!
//! Whole validators, the ones that run in production, under the deterministic runtime: one in each region, on
//! links with the real one-way times. The simulated clock stands still while code runs, so what work costs is
//! charged from the committed [`calibration`](seawall_storm::calibration): executing a block where it is built and
//! where it is checked, and on every hop what a validator does between a message and its answer.
//!
//! Measured is what the bound bounds: from the moment a leader begins to build, to the finality certificate at the
//! median validator.

use crate::chain::{Calm, START, genesis};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use commonware_p2p::{
    Manager as _,
    simulated::{self, Link, Network},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use commonware_utils::{NZUsize, Probability};
use indicatif::ProgressBar;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use seawall_chain::{
    app::{BuildPolicy, NoMonitor},
    block::PublicKey,
    engine::{self, Channel, Config, Timeouts},
    ingress::QueueLimits,
    mempool::PoolLimits,
    store,
    timeline::Timeline,
    work::{Costs, Work},
};
use seawall_storm::{
    calibration::Calibration,
    topology::{Topology, median},
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

/// Views at the start that do not count: stores are opened, peers are found.
const WARM_UP_VIEWS: u64 = 20;
/// How far the simulated clock moves when all tasks have had their turn.
const CYCLE: Duration = Duration::from_micros(10);

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Simulated time, in seconds.
    pub seconds: u64,
    /// Actions a block, whose cost is charged.
    pub actions: u32,
    /// Seed of the run.
    pub seed: u64,
}

/// One network.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Regions.
    pub regions: Vec<String>,
    /// Actions a block, whose cost is charged.
    pub actions: u32,
    /// Blocks measured.
    pub blocks: usize,
    /// Views that were lost, of all.
    pub lost_views: u64,
    /// Median time between final blocks.
    pub block_ms: f64,
    /// Bound, averaged over the blocks' leaders.
    pub bound_ms: f64,
    /// From proposal to the certificate at the median validator: mean, p50 and p99.
    pub finality_ms: f64,
    /// Median block.
    pub finality_p50_ms: f64,
    /// Slow block.
    pub finality_p99_ms: f64,
    /// Mean over bound.
    pub ratio: f64,
    /// The same for the blocks of each leader.
    pub leaders: Vec<Leader>,
}

/// The blocks of one leader.
#[derive(Clone, Debug, Serialize)]
pub struct Leader {
    /// Where it is.
    pub region: String,
    /// Blocks measured.
    pub blocks: usize,
    /// Bound.
    pub bound_ms: f64,
    /// Mean.
    pub finality_ms: f64,
}

#[derive(Default)]
struct View {
    leader: Option<usize>,
    begun: Option<SystemTime>,
    seen: Vec<SystemTime>,
}

type Views = Arc<Mutex<BTreeMap<u64, View>>>;

fn elapsed_ms(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64() * 1e3
}

/// Runs one network.
///
/// # Errors
/// If a validator does not start, or nothing becomes final.
pub fn run(
    topology: &Topology,
    calibration: &Calibration,
    spec: &Spec,
    progress: &ProgressBar,
) -> anyhow::Result<Report> {
    let n = topology.places.len();
    let views = Views::default();
    let told = views.clone();
    let links = topology.clone();
    let (calibration, spec) = (*calibration, *spec);
    let progress = progress.clone();
    let config = deterministic::Config::new().with_seed(spec.seed).with_cycle(CYCLE);
    let started: anyhow::Result<()> = deterministic::Runner::new(config).start(|context| async move {
        let rng = ChaCha20Rng::seed_from_u64(spec.seed);
        let (genesis, dealt) = genesis(n as u64, 0, rng)?;
        let genesis = Arc::new(genesis);
        let seed = store::config("genesis", Sequential, store::page_cache());
        let commitment = store::seed(context.child("seed"), seed, genesis.world()?.records()).await?;
        let (network, oracle) = Network::<_, PublicKey>::new(
            context.child("network"),
            simulated::Config {
                max_size: engine::max_message_bytes(n as u32),
                max_peers_per_set: NZUsize!(n),
                disconnect_on_block: true,
                tracked_peer_sets: NZUsize!(1),
            },
        );
        network.start();
        oracle.manager().track(0, genesis.members.clone());
        let keys: Vec<PublicKey> = genesis.members.iter().cloned().collect();
        for (from, sender) in keys.iter().enumerate() {
            for (to, receiver) in keys.iter().enumerate().filter(|(to, _)| *to != from) {
                let link = Link {
                    latency: links.one_way(from, to) + calibration.vote(),
                    jitter: Duration::ZERO,
                    success_rate: Probability::new(1, 1).expect("one of one is a probability"),
                };
                oracle
                    .add_link(sender.clone(), receiver.clone(), link)
                    .await
                    .map_err(|error| anyhow::anyhow!("{error}"))?;
            }
        }
        let mut running = Vec::new();
        for (index, (identity, share)) in dealt.members.into_iter().enumerate() {
            let public = keys[index].clone();
            let mut channels = Vec::new();
            for channel in Channel::ALL {
                let pair = oracle
                    .control(public.clone())
                    .register(channel as u64, channel.quota())
                    .await
                    .map_err(|error| anyhow::anyhow!("{error}"))?;
                channels.push(pair);
            }
            let views = told.clone();
            let config = Config {
                genesis: genesis.clone(),
                commitment,
                identity,
                share,
                source: Arc::new(Calm),
                timeline: Timeline { wall_origin_ms: 0, chain_origin_ms: START.get(), speed: 1 },
                clock_tolerance: Duration::from_secs(1),
                policy: BuildPolicy { interval: Duration::ZERO, ..BuildPolicy::default() },
                timeouts: Timeouts::default(),
                monitor: Arc::new(NoMonitor),
                probe: Arc::new(move |finalized: seawall_chain::gate::Finalized| {
                    let mut views = views.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let view = views.entry(finalized.view).or_default();
                    view.seen.push(finalized.at);
                    if let Some(since) = finalized.since_proposal {
                        view.leader = Some(index);
                        view.begun = finalized.at.checked_sub(since);
                    }
                }),
                queues: QueueLimits::default(),
                pools: PoolLimits::default(),
                costs: Costs::charged(move |work| match work {
                    Work::Build { .. } => calibration.build(spec.actions),
                    Work::Verify { .. } => calibration.verify(spec.actions, n as u32),
                    Work::Ingress { .. } => Duration::ZERO,
                }),
                enter_zone: Arc::new(|| {}),
                retained_blocks: None,
                cache_pages: NZUsize!(1_024),
                strategy: Sequential,
                prefix: format!("validator-{index}"),
            };
            let started = engine::start(
                context.child("validator").with_attribute("index", index),
                config,
                oracle.manager(),
                oracle.control(public),
                channels,
            )
            .await?;
            running.push(started);
        }
        for second in 0..spec.seconds {
            context.sleep(Duration::from_secs(1)).await;
            progress.set_message(format!("{n} regions, simulated second {} of {}", second + 1, spec.seconds));
        }
        Ok(())
    });
    started?;
    let views = views.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    report(topology, spec.actions, &views)
}

fn report(topology: &Topology, actions: u32, views: &BTreeMap<u64, View>) -> anyhow::Result<Report> {
    let n = topology.places.len();
    let (mut taken, mut bounds, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_leader = vec![Vec::new(); n];
    for view in views.range(WARM_UP_VIEWS..).map(|(_, view)| view) {
        // The last views are cut off before everybody has seen their end.
        let (Some(leader), Some(begun)) = (view.leader, view.begun) else { continue };
        let mut seen: Vec<f64> = view.seen.iter().map(|at| elapsed_ms(begun, *at)).collect();
        if seen.len() < n {
            continue;
        }
        ends.push(begun);
        let finality = median(&mut seen);
        by_leader[leader].push(finality);
        taken.push(finality);
        bounds.push(topology.bound_ms(leader));
    }
    anyhow::ensure!(taken.len() > n, "only {} blocks became final", taken.len());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (finality_ms, bound_ms) = (mean(&taken), mean(&bounds));
    let mut gaps: Vec<f64> = ends.windows(2).map(|pair| elapsed_ms(pair[0], pair[1])).collect();
    let (first, last) = (
        views.range(WARM_UP_VIEWS..).next().map_or(0, |(view, _)| *view),
        views.last_key_value().map_or(0, |(view, _)| *view),
    );
    let final_views = views.range(first..).count() as u64;
    taken.sort_by(f64::total_cmp);
    let leaders = by_leader.iter().enumerate().map(|(leader, taken)| Leader {
        region: topology.places[leader].clone(),
        blocks: taken.len(),
        bound_ms: topology.bound_ms(leader),
        finality_ms: mean(taken),
    });
    Ok(Report {
        leaders: leaders.collect(),
        regions: topology.places.clone(),
        actions,
        blocks: taken.len(),
        lost_views: (last - first + 1).saturating_sub(final_views),
        block_ms: median(&mut gaps),
        bound_ms,
        finality_ms,
        finality_p50_ms: taken[taken.len() / 2],
        finality_p99_ms: taken[taken.len() * 99 / 100],
        ratio: finality_ms / bound_ms,
    })
}

/// Several networks.
#[derive(Clone, Debug, Serialize)]
pub struct Reports(pub Vec<Report>);

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header([
            "regions",
            "actions a block",
            "blocks",
            "lost views",
            "block ms",
            "bound ms",
            "finality ms: mean",
            "p50",
            "p99",
            "mean / bound",
        ]);
        for report in &self.0 {
            table.add_row([
                report.regions.len().to_string(),
                report.actions.to_string(),
                report.blocks.to_string(),
                report.lost_views.to_string(),
                format!("{:.0}", report.block_ms),
                format!("{:.1}", report.bound_ms),
                format!("{:.1}", report.finality_ms),
                format!("{:.1}", report.finality_p50_ms),
                format!("{:.1}", report.finality_p99_ms),
                format!("{:.3}", report.ratio),
            ]);
        }
        write!(f, "{table}")
    }
}
