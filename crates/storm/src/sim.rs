//! One run: whole validators, the ones that run in production, on a simulated network, from genesis to the storm's end.
//!
//! The simulated clock stands still while code runs, so work is charged to it, from the committed
//! [`calibration`](crate::calibration):
//!
//! | work | charge |
//! | --- | --- |
//! | a batch of signatures at the ingress | checks x slowdown / cores |
//! | building a block | executions x slowdown, one signature |
//! | checking a block | checks of actions x slowdown / cores, of observations; executions x slowdown |
//! | a hop of the agreement | certificate, vote and disk sync, on every message's way |
//! | bytes | the bandwidth of both ends, shared fairly |
//!
//! Queues and pools are as many times smaller as processors are slower, so that what waits in them waits as long as it would
//! in production.
//!
//! What happens is written down by whoever sees it: validators tell of blocks and certificates, the wire of observations,
//! gateways of submissions. [`judge`](crate::judge) makes sense of it afterwards.

use crate::{
    calibration::Calibration,
    feeds::{self, Feeds},
    record::Backlog,
    scenario::{ByzantineKind, FaultKind, LaneName, Plan},
    topology::Topology,
    traffic::{Sight, Traffic, helps},
    wire::{Half, Inbox, Outbox, Wire},
    world::{CHAIN, World, WorldError, account_key},
};
use commonware_consensus::Viewable as _;
use commonware_p2p::{
    Manager as _,
    simulated::{self, Link, Network, Oracle},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock as _, Handle, Runner as _, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::{NZUsize, Probability};
use seawall_chain::{
    app::{BuildPolicy, Monitor},
    block::{Block, PublicKey},
    engine::{self, Channel, Config, Timeouts},
    gate::Finalized,
    genesis::Genesis,
    ingress::{QueueLimits, Submitter},
    machine::{Answer, Machine, Step},
    mempool::{Mempool, PoolLimits, Signers},
    observer::PriceSource,
    store::{self, StateCommitment},
    submissions::{State, SubmissionId},
    timeline::Timeline,
    work::{Costs, Work},
};
use seawall_ledger::Event;
use seawall_replay::{Replay, assign_feeds};
use seawall_types::{
    AccountId, Action, Digest, Domain, Height, Mark, MarketId, Nonce, Signature, SignedAction, TimeMs,
    limits::MAX_OWED_PER_BLOCK,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use thiserror::Error;

/// How far the simulated clock moves when all tasks have had their turn.
const CYCLE: Duration = Duration::from_micros(50);
/// How often gateways look at what is due, and pools are asked what they hold.
const LOOK_MS: u64 = 5;
/// How often what waits is written down.
pub const SAMPLE_MS: u64 = 100;
/// How far a block's time may be from a validator's clock, as in a process.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);
/// How often a validator that lists phantoms invents one.
const PHANTOM_MS: u64 = 200;
/// Least places of a queue or pool, however slow processors are.
const MIN_PLACES: usize = 64;

/// A run that did not take place.
#[derive(Debug, Error)]
pub enum SimError {
    /// The scenario makes no chain.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A part of the simulation failed.
    #[error("the simulation failed: {0}")]
    Simulator(String),
    /// More than the lab offers in a run.
    #[error(
        "the scenario offers about {0:.0} actions in a run; at most {1:.0} can be, so raise slowdown or shorten it"
    )]
    TooMuch(f64, f64),
}

/// The name of an action on the chain.
pub type ActionName = (AccountId, Nonce);

/// An action as it was sent.
pub struct Sent {
    /// Signer and nonce.
    pub name: ActionName,
    /// Lane.
    pub lane: LaneName,
    /// Kind.
    pub kind: &'static str,
    /// Whom and how much it helps.
    pub helps: Option<(u64, i128)>,
    /// Gateway.
    pub to: usize,
    /// When, in microseconds since the storm began.
    pub at_us: u64,
    /// What names it at its gateway, if that took it.
    pub id: Option<SubmissionId>,
    /// Why its gateway did not take it, or gave it up.
    pub refused: Option<String>,
    /// When f+1 honest members held it.
    pub held_us: Option<u64>,
    /// The action itself, of rescues.
    pub action: Option<SignedAction>,
}

/// A final block.
pub struct Seen {
    /// The block.
    pub block: Block,
    /// Its digest.
    pub digest: Digest,
    /// What the ledger told.
    pub events: Vec<Event>,
    /// Marks that changed.
    pub marks: Vec<(MarketId, Mark)>,
    /// One answer an action.
    pub answers: Vec<Answer>,
    /// Liquidations at prices that were not fresh.
    pub stale_price_liquidations: u64,
    /// Compartments that the ladder worked on.
    pub liquidations: u64,
}

/// Everything that was seen.
#[derive(Default)]
pub struct Log {
    /// Final blocks by height, as the first validator told of them.
    pub blocks: BTreeMap<u64, Seen>,
    /// Heights of which validators told different blocks.
    pub forks: BTreeSet<u64>,
    /// When each validator had applied each height.
    pub applied: BTreeMap<u64, BTreeMap<usize, u64>>,
    /// When each validator had a certificate of each view.
    pub certified: BTreeMap<u64, BTreeMap<usize, u64>>,
    /// When the leader of a view began to build.
    pub begun: BTreeMap<u64, u64>,
    /// When each member first told another that it lists a rescue.
    pub listings: BTreeMap<ActionName, BTreeMap<usize, u64>>,
    /// Everything that was sent.
    pub sent: Vec<Sent>,
    /// Names in final blocks.
    pub included: BTreeSet<ActionName>,
    /// What waited.
    pub backlog: Vec<Backlog>,
    /// What should not happen.
    pub faults: Vec<String>,
    /// Lives of each validator in which it came up.
    pub starts: Vec<u32>,
    /// How often each fault did something.
    pub fired: Vec<u64>,
    /// How often each Byzantine plan did something.
    pub byzantine_fired: Vec<u64>,
    /// Rescues that fewer than f+1 honest members hold, by place in `sent`.
    waiting: Vec<(usize, SignedAction)>,
    last: BTreeMap<usize, u64>,
}

/// A log that many write.
pub type Logbook = Arc<Mutex<Log>>;

fn open(book: &Mutex<Log>) -> MutexGuard<'_, Log> {
    book.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a run is.
pub struct Setup {
    /// Scenario.
    pub plan: Plan,
    /// Seed.
    pub seed: u64,
    /// Point of the sweep.
    pub multiple: Option<f64>,
    /// What work costs.
    pub calibration: Calibration,
    /// Places.
    pub topology: Topology,
    /// Timeouts of consensus.
    pub timeouts: Timeouts,
    /// Prices.
    pub replay: Arc<Replay>,
    /// Genesis.
    pub genesis: Arc<Genesis>,
    /// Accounts with positions.
    pub book: u64,
    /// Actions a second that multiples are of.
    pub capacity: f64,
    world: Mutex<Option<World>>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Virtual time that passed.
    pub virtual_ms: u64,
    /// Of so much.
    pub of_ms: u64,
    /// Last final height.
    pub height: u64,
}

impl Setup {
    /// Prepares a run.
    ///
    /// # Errors
    /// If the scenario makes no chain, or offers more than the lab takes.
    pub fn new(
        plan: &Plan,
        seed: u64,
        multiple: Option<f64>,
        calibration: Calibration,
    ) -> Result<Self, SimError> {
        let timeouts = timeouts(plan);
        let world = World::build(plan, seed, &timeouts)?;
        let topology =
            Topology::aws(&plan.places()).map_err(|error| SimError::Simulator(error.to_string()))?;
        let capacity = capacity(plan, &calibration, &topology);
        let offered: f64 = plan
            .traffic
            .iter()
            .map(|flow| {
                let seconds = (plan.end_of(flow) - flow.from_ms) as f64 / 1e3;
                let swept = multiple.unwrap_or(0.0);
                match (flow.once_each, flow.per_second) {
                    (true, _) => plan.accounts() as f64,
                    (_, Some(rate)) => rate * seconds,
                    (_, None) => flow.rate.unwrap_or(swept) * capacity * seconds,
                }
            })
            .sum();
        if offered > crate::scenario::MAX_OFFERED {
            return Err(SimError::TooMuch(offered, crate::scenario::MAX_OFFERED));
        }
        Ok(Self {
            plan: plan.clone(),
            seed,
            multiple,
            calibration,
            topology,
            timeouts,
            replay: Arc::new(world.replay.clone()),
            genesis: Arc::new(world.genesis.clone()),
            book: world.book,
            capacity,
            world: Mutex::new(Some(world)),
        })
    }

    /// How many may be Byzantine.
    pub fn faulty(&self) -> usize {
        (self.plan.validators() - 1) / 3
    }
}

fn timeouts(plan: &Plan) -> Timeouts {
    let leader = Duration::from_millis(plan.network.leader_timeout_ms);
    Timeouts {
        leader,
        certification: leader * 2,
        retry: leader / 6,
        fetch: leader / 3,
        ..Timeouts::default()
    }
}

/// Actions a second of the lab's chain when blocks are full: the block's weight by the time from one block to the next, which
/// is what building and checking it takes, and two hops to a quorum. Everything is averaged over leaders. Real load changes
/// how full blocks are; this figure is what multiples of load mean, and no claim.
pub fn capacity(plan: &Plan, calibration: &Calibration, topology: &Topology) -> f64 {
    let weight = plan.capacity.block_weight;
    let costs = Charges::new(plan, calibration);
    let n = topology.places.len();
    let hops_ms: f64 = (0..n).map(|leader| topology.bound_ms(leader)).sum::<f64>() / n as f64 * 2.0 / 3.0;
    let votes = 2.0 * calibration.vote().as_secs_f64() * 1e3;
    let work = costs.of(Work::Build { actions: weight })
        + costs.of(Work::Verify { actions: weight, signatures: weight + n as u32 + 1 });
    let slot_ms = (hops_ms + votes + work.as_secs_f64() * 1e3).max(plan.capacity.interval_ms as f64);
    f64::from(weight) * 1e3 / slot_ms
}

/// What work is charged.
#[derive(Clone, Copy, Debug)]
pub struct Charges {
    calibration: Calibration,
    slowdown: f64,
    cores: f64,
    members: u32,
}

impl Charges {
    /// The charges of a scenario.
    pub fn new(plan: &Plan, calibration: &Calibration) -> Self {
        Self {
            calibration: *calibration,
            slowdown: plan.capacity.slowdown,
            cores: f64::from(plan.capacity.cores),
            members: plan.validators() as u32,
        }
    }

    /// Virtual time that a piece of work takes.
    pub fn of(&self, work: Work) -> Duration {
        let own = &self.calibration;
        let check = |signatures: u32| own.verify_us * f64::from(signatures) / self.cores;
        let us = match work {
            Work::Ingress { signatures, .. } => check(signatures) * self.slowdown,
            Work::Build { actions } => own.action_us * f64::from(actions) * self.slowdown + own.sign_us,
            Work::Verify { actions, signatures } => {
                // Observations and the leader's signature are of the block, whatever the load.
                let of_block = signatures.min(self.members + 1);
                check(signatures - of_block) * self.slowdown
                    + check(of_block)
                    + own.action_us * f64::from(actions) * self.slowdown
            }
        };
        Duration::from_secs_f64(us / 1e6)
    }
}

struct Live {
    submitter: Submitter,
    mempool: Mempool,
    machine: Machine,
}

/// What everybody in a run shares.
#[derive(Clone)]
struct Run {
    setup: Arc<Setup>,
    book: Logbook,
    wire: Wire,
    origin: SystemTime,
    live: Arc<Vec<Mutex<Option<Live>>>>,
    commitment: StateCommitment,
    oracle: Oracle<PublicKey, deterministic::Context>,
    feed_counts: Arc<Vec<AtomicU64>>,
    assigned: Arc<Vec<Vec<usize>>>,
    sources: Arc<Vec<seawall_oracle::SourceParams>>,
    phantoms: Arc<AtomicU64>,
}

struct Recorder {
    run: Run,
    clock: Arc<deterministic::Context>,
    place: usize,
    counts: bool,
}

impl Monitor for Recorder {
    fn finalized(&self, block: &Block, digest: Digest, step: &Step) {
        let height = block.header.height.get();
        let now_us = self.run.us(self.clock.current());
        let mut log = open(&self.run.book);
        let log = &mut *log;
        if !self.counts {
            return;
        }
        if let Some(last) = log.last.insert(self.place, height)
            && height != last + 1
        {
            log.faults.push(format!("validator {} told of block {height} after {last}", self.place));
        }
        log.applied.entry(height).or_default().entry(self.place).or_insert(now_us);
        if let Some(known) = log.blocks.get(&height) {
            if known.digest != digest {
                log.forks.insert(height);
            }
            return;
        }
        log.included.extend(block.body.actions.iter().map(|action| (action.account, action.nonce)));
        let seen = Seen {
            block: block.clone(),
            digest,
            events: step.events().to_vec(),
            marks: step.marks.clone(),
            answers: step.answers.clone(),
            stale_price_liquidations: step.sweep.stale_price_liquidations,
            liquidations: step.sweep.liquidations,
        };
        log.blocks.insert(height, seen);
    }
}

impl Run {
    fn us(&self, at: SystemTime) -> u64 {
        at.duration_since(self.origin).map_or(0, |elapsed| elapsed.as_micros() as u64)
    }

    fn seat(&self, place: usize) -> MutexGuard<'_, Option<Live>> {
        self.live[place].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn truth(&self) -> Timeline {
        let origin_ms =
            self.origin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Timeline {
            wall_origin_ms: origin_ms,
            chain_origin_ms: self.setup.replay.start_ms,
            speed: self.setup.plan.market.speed,
        }
    }

    /// How far ahead the clock of a validator is, in virtual ms.
    fn ahead_ms(&self, place: usize) -> i64 {
        let plan = &self.setup.plan;
        let skewed = plan.fault.iter().filter(|fault| fault.kind == FaultKind::ClockSkew);
        let skew: i64 =
            skewed.filter(|fault| plan.who(&fault.who).contains(&place)).map(|fault| fault.delay_ms).sum();
        let lies = plan.byzantine_of().remove(&place).unwrap_or_default();
        let lied = lies.iter().filter(|own| own.kind == ByzantineKind::LieTime).map(|own| own.clock_ms);
        skew + lied.sum::<i64>()
    }

    fn config(
        &self,
        place: usize,
        half: Option<Half>,
        clock: Arc<deterministic::Context>,
    ) -> Config<Sequential> {
        let setup = &self.setup;
        let plan = &setup.plan;
        let (identity, share) = {
            let world = setup.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            world.as_ref().expect("secrets are kept while a run lasts").dealt.members[place].clone()
        };
        let truth = self.truth();
        let ahead_chain_ms = self.ahead_ms(place) * i64::from(truth.speed);
        let lies = plan.byzantine_of().remove(&place).unwrap_or_default();
        let mut withholds = BTreeSet::new();
        for own in lies.iter().filter(|own| own.kind == ByzantineKind::Censor) {
            withholds.extend(censored(plan, own).into_iter().map(AccountId));
        }
        // The second half of a validator that runs twice sees its own clock a little later: its blocks differ.
        let apart = if half == Some(Half::Second) { i64::from(truth.speed) } else { 0 };
        let charges = Charges::new(plan, &setup.calibration);
        let (run, probed) = (self.clone(), self.clone());
        let counts = half.is_none();
        let places = |most: usize| ((most as f64 / plan.capacity.slowdown) as usize).max(MIN_PLACES);
        let (queues, pools) = (QueueLimits::default(), PoolLimits::default());
        let suffix = if half == Some(Half::Second) { "-twin" } else { "" };
        Config {
            genesis: setup.genesis.clone(),
            commitment: self.commitment,
            identity,
            share,
            source: Arc::new(Feeds::new(
                plan,
                place,
                setup.replay.clone(),
                self.assigned[place].clone(),
                &self.sources,
                truth,
                ahead_chain_ms,
                self.feed_counts.clone(),
            )) as Arc<dyn PriceSource>,
            timeline: Timeline {
                chain_origin_ms: truth.chain_origin_ms.saturating_add_signed(ahead_chain_ms + apart),
                ..truth
            },
            clock_tolerance: CLOCK_TOLERANCE,
            policy: BuildPolicy {
                interval: Duration::from_millis(plan.capacity.interval_ms),
                max_actions: plan.capacity.block_weight as usize,
                withholds: Arc::new(withholds),
                ..BuildPolicy::default()
            },
            timeouts: setup.timeouts,
            monitor: Arc::new(Recorder { run, clock, place, counts }),
            probe: Arc::new(move |seen: Finalized| {
                probed.wire.finalized(seen.view);
                if !counts {
                    return;
                }
                let mut log = open(&probed.book);
                let now = probed.us(seen.at);
                log.certified.entry(seen.view).or_default().entry(place).or_insert(now);
                if let Some(since) = seen.since_proposal {
                    log.begun.entry(seen.view).or_insert(now.saturating_sub(since.as_micros() as u64));
                }
            }),
            queues: QueueLimits { rescues: places(queues.rescues), trades: places(queues.trades), ..queues },
            pools: PoolLimits { rescues: places(pools.rescues), trades: places(pools.trades), ..pools },
            costs: Costs::charged(move |work| charges.of(work)),
            enter_zone: Arc::new(|| {}),
            retained_blocks: None,
            cache_pages: NZUsize!(1_024),
            strategy: Sequential,
            prefix: format!("validator-{place}{suffix}"),
        }
    }

    /// Starts a validator, or both halves of one that runs twice.
    async fn start(
        &self,
        context: &deterministic::Context,
        place: usize,
        life: u32,
    ) -> Result<Handle<()>, SimError> {
        let public: PublicKey =
            self.setup.genesis.members.iter().nth(place).expect("a place of the committee").clone();
        let context = context.child("validator").with_attribute("place", place).with_attribute("life", life);
        let mut raw = Vec::new();
        for channel in Channel::ALL {
            let control = self.oracle.control(public.clone());
            let pair = control
                .register(channel as u64, channel.quota())
                .await
                .map_err(|error| SimError::Simulator(error.to_string()))?;
            raw.push((channel, pair));
        }
        let lies = self.setup.plan.byzantine_of().remove(&place).unwrap_or_default();
        let has = |kind| lies.iter().any(|own| own.kind == kind);
        let (twice, phantoms) = (has(ByzantineKind::Equivocate), has(ByzantineKind::ListPhantoms));
        let run = self.clone();
        Ok(context.spawn(move |context| async move {
            let halves = if twice { vec![Some(Half::First), Some(Half::Second)] } else { vec![None] };
            let mut ends: Vec<Vec<(Outbox, Inbox)>> = halves.iter().map(|_| Vec::new()).collect();
            let member = seawall_types::ValidatorId(place as u16);
            for (channel, pair) in raw {
                let wires = context.child("wires").with_attribute("channel", channel as u64);
                let wrapped = run.wire.wrap(wires, member, channel, pair, &halves);
                for (own, end) in ends.iter_mut().zip(wrapped) {
                    own.push(end);
                }
            }
            let mut handles = Vec::new();
            for (half, channels) in halves.into_iter().zip(ends) {
                let clock = Arc::new(context.child("clock"));
                let config = run.config(place, half, clock);
                let name = if half == Some(Half::Second) { "twin" } else { "engine" };
                let control = run.oracle.control(public.clone());
                let started =
                    engine::start(context.child(name), config, run.oracle.manager(), control, channels).await;
                let (handle, validator) = match started {
                    Ok(started) => started,
                    Err(error) => {
                        open(&run.book).faults.push(format!("validator {place} did not start: {error}"));
                        return;
                    }
                };
                handles.push(handle);
                if half != Some(Half::Second) {
                    let live = Live {
                        submitter: validator.submitter.clone(),
                        mempool: validator.mempool.clone(),
                        machine: validator.machine.clone(),
                    };
                    *run.seat(place) = Some(live);
                    open(&run.book).starts[place] += 1;
                }
                if phantoms {
                    let (run, mempool) = (run.clone(), validator.mempool.clone());
                    context.child("phantoms").spawn(move |context| async move {
                        run.invent(&context, place, &mempool).await;
                    });
                }
            }
            for handle in handles {
                if let Err(error) = handle.await {
                    open(&run.book).faults.push(format!("consensus of validator {place} ended: {error}"));
                }
            }
        }))
    }

    /// Puts rescues into a pool whose signatures are bad: nobody else will ever have them.
    async fn invent(&self, context: &deterministic::Context, place: usize, mempool: &Mempool) {
        let (first, count) = (1_u64 << 62, self.setup.plan.accounts());
        for number in 0.. {
            context.sleep(Duration::from_millis(PHANTOM_MS)).await;
            let account = AccountId(1 + crate::world::mix(number ^ place as u64) % (count - 1));
            let mut action = SignedAction {
                chain: CHAIN,
                account,
                nonce: Nonce(first + number),
                expiry: Height(seawall_types::limits::MAX_EXPIRY_BLOCKS / 2),
                action: Action::ScheduleCancel { at: None },
                signature: Signature::default(),
            };
            let key = account_key(account, self.setup.seed);
            action.signature = key.sign(Domain::Action, CHAIN, &action.message());
            action.signature.0[3] ^= 1;
            let (name, signers) = ((account, action.nonce), Signers { account: key.key(), maker: None });
            if mempool.insert(action, signers, |_| false).is_ok() {
                mempool.relayed(&name);
                self.phantoms.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Sends what is due, all through the storm.
    async fn send(&self, context: &deterministic::Context, mut traffic: Traffic) {
        let places = self.setup.plan.validators();
        while let Some(next_ms) = traffic.next_ms() {
            let at = self.origin + Duration::from_millis((next_ms / LOOK_MS as f64).ceil() as u64 * LOOK_MS);
            if at > context.current() {
                context.sleep_until(at).await;
            }
            let now_ms = self.us(context.current()) as f64 / 1e3;
            let mut sights: BTreeMap<usize, Sight> = BTreeMap::new();
            while let Some(due) = traffic.take(now_ms) {
                // A user whose gateway is down goes to the next.
                let to = (0..places).map(|step| (due.to + step) % places).find(|to| self.seat(*to).is_some());
                let Some(to) = to else { continue };
                let sight = match sights.get(&to) {
                    Some(sight) => sight.clone(),
                    None => {
                        let Some(sight) = self.sight(to) else { continue };
                        sights.entry(to).or_insert(sight).clone()
                    }
                };
                let action = traffic.make(&due, &sight);
                let (name, kind, helps) =
                    ((action.account, action.nonce), action.action.name(), helps(&action));
                let connection = 1 + action.account.get();
                let kept = (due.lane == LaneName::Rescue).then(|| action.clone());
                let answer = {
                    let seat = self.seat(to);
                    let live = seat.as_ref().expect("found to be running");
                    live.submitter.submit_from(connection, action)
                };
                let (id, refused) = match answer {
                    Ok(id) => (Some(id), None),
                    Err(error) => (None, Some(error.to_string())),
                };
                let mut log = open(&self.book);
                if let Some(action) = kept.clone().filter(|_| id.is_some()) {
                    let place = log.sent.len();
                    log.waiting.push((place, action));
                }
                log.sent.push(Sent {
                    name,
                    lane: due.lane,
                    kind,
                    helps,
                    to,
                    at_us: (due.at_ms * 1e3) as u64,
                    id,
                    refused,
                    held_us: None,
                    action: kept,
                });
            }
        }
    }

    fn sight(&self, place: usize) -> Option<Sight> {
        let seat = self.seat(place);
        seat.as_ref()?.machine.read(|world| Sight {
            height: world.ledger.globals().height,
            time: world.ledger.globals().time,
            prices: world
                .ledger
                .markets()
                .map(|(_, market)| market.mark.map(|mark| mark.last_known().0))
                .collect(),
        })
    }

    /// Writes down who holds which rescues, and what waits.
    async fn watch(&self, context: &deterministic::Context) {
        let honest = self.honest();
        let needed = self.setup.faulty() + 1;
        let mut sampled = 0;
        loop {
            let now_us = self.us(context.current());
            self.look(now_us, &honest, needed, &mut sampled);
            context.sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    fn look(&self, now_us: u64, honest: &[usize], needed: usize, sampled: &mut u64) {
        let mut log = open(&self.book);
        let log = &mut *log;
        let (sent, included) = (&mut log.sent, &log.included);
        log.waiting.retain(|(place, action)| {
            let own = &mut sent[*place];
            let holds =
                |member: &&usize| self.seat(**member).as_ref().is_some_and(|live| live.mempool.holds(action));
            // A block may be quicker than a look: then everybody holds it.
            let over = included.contains(&own.name);
            if over || honest.iter().filter(holds).count() >= needed {
                own.held_us = Some(now_us);
            }
            own.held_us.is_none()
        });
        if now_us / 1_000 >= *sampled {
            *sampled += SAMPLE_MS;
            let sample = self.sample(now_us / 1_000, log);
            log.backlog.push(sample);
        }
    }

    fn honest(&self) -> Vec<usize> {
        let liars = self.setup.plan.byzantine_of();
        (0..self.setup.plan.validators()).filter(|place| !liars.contains_key(place)).collect()
    }

    fn sample(&self, at_ms: u64, log: &Log) -> Backlog {
        let mut all: [Vec<u64>; 4] = Default::default();
        for place in 0..self.setup.plan.validators() {
            if let Some(live) = self.seat(place).as_ref() {
                let ((a, b), (c, d)) = (live.submitter.waiting(), live.mempool.len());
                for (list, value) in all.iter_mut().zip([a, b, c, d]) {
                    list.push(value as u64);
                }
            }
        }
        let running = all[0].len() as u32;
        let [ingress_rescues, ingress_trades, pooled_rescues, pooled_trades] = all.map(|mut list| {
            list.sort_unstable();
            list.get(list.len() / 2).copied().unwrap_or(0)
        });
        let height = log.blocks.last_key_value().map_or(0, |(height, _)| *height);
        Backlog { at_ms, ingress_rescues, ingress_trades, pooled_rescues, pooled_trades, height, running }
    }

    /// What gateways say in the end of what no block carries.
    fn ask_gateways(&self) {
        let mut log = open(&self.book);
        let log = &mut *log;
        for own in &mut log.sent {
            let Some(id) = own.id.filter(|_| !log.included.contains(&own.name)) else { continue };
            let seat = self.seat(own.to);
            let state = seat.as_ref().map(|live| live.submitter.state(&id));
            own.refused = match state {
                Some(State::Refused(refusal)) => Some(refusal.to_string()),
                Some(State::Shed) => Some("shed".into()),
                Some(State::Unknown) | None => Some("its gateway went down".into()),
                // Expired without a block: the chain never took it, and its gateway had.
                _ => None,
            };
        }
    }
}

/// Whom a censor leaves out.
pub fn censored(plan: &Plan, own: &crate::scenario::ByzantinePlan) -> BTreeSet<u64> {
    let mut accounts: BTreeSet<u64> = own.accounts.iter().copied().collect();
    if let Some(region) = &own.region {
        let places = plan.places();
        let all: Vec<usize> = (0..plan.validators()).collect();
        let from_there = |account: &u64| places[crate::traffic::gateway(*account, &all)] == region;
        accounts.extend((1..plan.accounts()).filter(from_there));
    }
    accounts
}

/// Simulates a run from genesis to the storm's end.
///
/// # Errors
/// If the simulation itself fails. What a validator does wrong is in the log.
pub fn simulate(setup: &Arc<Setup>, progress: Arc<dyn Fn(Progress) + Send + Sync>) -> Result<Log, SimError> {
    let book: Logbook = Arc::default();
    open(&book).starts = vec![0; setup.plan.validators()];
    let config = deterministic::Config::new().with_seed(setup.seed).with_cycle(CYCLE);
    let (own, kept) = (setup.clone(), book.clone());
    let done: Result<(), SimError> = deterministic::Runner::new(config)
        .start(|context| async move { drive(context, own, kept, progress).await });
    done?;
    // Whoever still holds a clone has nothing to write any more.
    Ok(std::mem::take(&mut *open(&book)))
}

async fn drive(
    context: deterministic::Context,
    setup: Arc<Setup>,
    book: Logbook,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
) -> Result<(), SimError> {
    let failed = |error: &dyn std::fmt::Display| SimError::Simulator(error.to_string());
    let plan = &setup.plan;
    let count = plan.validators();
    let records = setup.genesis.world().map_err(WorldError::Genesis)?;
    let seed = store::config("genesis", Sequential, store::page_cache());
    let commitment =
        store::seed(context.child("seed"), seed, records.records()).await.map_err(|error| failed(&error))?;
    drop(records);
    let (network, oracle) = Network::<_, PublicKey>::new(
        context.child("network"),
        simulated::Config {
            max_size: engine::max_message_bytes(count as u32),
            max_peers_per_set: NonZeroUsize::new(count).expect("a committee has members"),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(1),
        },
    );
    network.start();
    oracle.manager().track(0, setup.genesis.members.clone());
    let keys: Vec<PublicKey> = setup.genesis.members.iter().cloned().collect();
    let always = Probability::new(1, 1).expect("one of one is a probability");
    for (from, sender) in keys.iter().enumerate() {
        if let Some(mbit) = plan.network.bandwidth_mbit {
            let bytes = Some(mbit as usize * 125_000);
            oracle.limit_bandwidth(sender.clone(), bytes, bytes).await.map_err(|error| failed(&error))?;
        }
        for (to, receiver) in keys.iter().enumerate().filter(|(to, _)| *to != from) {
            let share = plan.network.asymmetry.0 * if from < to { 1.0 } else { -1.0 };
            let link = Link {
                latency: setup.topology.one_way(from, to).mul_f64(1.0 + share) + setup.calibration.vote(),
                jitter: Duration::from_secs_f64(plan.network.jitter_ms / 1e3),
                success_rate: always,
            };
            oracle.add_link(sender.clone(), receiver.clone(), link).await.map_err(|error| failed(&error))?;
        }
    }
    let origin = context.current();
    let committee = setup.genesis.committee();
    let mut muted = Vec::new();
    for own in &plan.byzantine {
        let channel = match own.kind {
            ByzantineKind::WithholdObservations => Channel::Observations,
            ByzantineKind::NeverPropose => Channel::Blocks,
            _ => continue,
        };
        muted.extend(own.validators.iter().map(|place| (*place, channel)));
    }
    let told = book.clone();
    let listener = Arc::new(move |author: usize, at: SystemTime, said: &seawall_types::Observation| {
        let us = at.duration_since(origin).map_or(0, |elapsed| elapsed.as_micros() as u64);
        let mut log = open(&told);
        for listed in &said.rescues {
            log.listings.entry((listed.account, listed.nonce)).or_default().entry(author).or_insert(us);
        }
    });
    let wire = Wire::new(plan, setup.seed, origin, committee, muted.clone(), listener);
    let sources = {
        let world = setup.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        world.as_ref().expect("secrets are kept while a run lasts").sources.clone()
    };
    let run = Run {
        setup: setup.clone(),
        book: book.clone(),
        wire,
        origin,
        live: Arc::new((0..count).map(|_| Mutex::new(None)).collect()),
        commitment,
        oracle,
        feed_counts: Arc::new(plan.fault.iter().map(|_| AtomicU64::new(0)).collect()),
        assigned: Arc::new(assign_feeds(&setup.replay, count, setup.seed)),
        sources: Arc::new(sources),
        phantoms: Arc::default(),
    };
    let mut lives = vec![0; count];
    let mut handles = Vec::new();
    for place in 0..count {
        handles.push(Some(run.start(&context, place, 0).await?));
    }
    let traffic =
        Traffic::new(plan, setup.seed, setup.capacity, setup.multiple, &setup.genesis.accounts, setup.book);
    let (sender, watcher) = (run.clone(), run.clone());
    let sending =
        context.child("users").spawn(move |context| async move { sender.send(&context, traffic).await });
    let watching = context.child("watch").spawn(move |context| async move { watcher.watch(&context).await });

    // Crashes and restarts, and a second's pause between two reports of progress.
    let mut events: Vec<(u64, usize, usize, bool)> = Vec::new();
    for (fault, own) in plan.fault.iter().enumerate().filter(|(_, own)| own.kind == FaultKind::Crash) {
        for place in plan.who(&own.who) {
            events.push((own.at_ms, fault, place, false));
            events.extend(own.until_ms.map(|until| (until, fault, place, true)));
        }
    }
    events.sort_unstable();
    let mut down: Vec<u32> = vec![0; count];
    let mut crashes = vec![0_u64; plan.fault.len()];
    let mut events = events.into_iter().peekable();
    let end_ms = plan.length_ms();
    let mut now_ms = 0;
    while now_ms < end_ms {
        let next = (now_ms / 1_000 + 1) * 1_000;
        let next = next.min(end_ms).min(events.peek().map_or(end_ms, |event| event.0.max(now_ms)));
        context.sleep_until(origin + Duration::from_millis(next)).await;
        now_ms = next;
        while let Some((_, fault, place, up)) = events.next_if(|event| event.0 <= now_ms) {
            if up {
                down[place] -= 1;
                if down[place] == 0 {
                    lives[place] += 1;
                    handles[place] = Some(run.start(&context, place, lives[place]).await?);
                }
                continue;
            }
            down[place] += 1;
            if let Some(handle) = handles[place].take() {
                handle.abort();
                crashes[fault] += 1;
                *run.seat(place) = None;
                open(&book).last.remove(&place);
            }
        }
        let height = open(&book).blocks.last_key_value().map_or(0, |(height, _)| *height);
        progress(Progress { virtual_ms: now_ms, of_ms: end_ms, height });
    }
    sending.abort();
    watching.abort();
    run.ask_gateways();
    let mut log = open(&book);
    log.fired = feeds::add_counts(&run.wire, &run.feed_counts);
    for (fired, crashed) in log.fired.iter_mut().zip(&crashes) {
        *fired += crashed;
    }
    let byzantine = plan.byzantine.iter().map(|own| {
        let sum =
            |count: &dyn Fn(usize) -> u64| own.validators.iter().map(|place| count(*place)).sum::<u64>();
        match own.kind {
            ByzantineKind::WithholdObservations => sum(&|place| run.wire.muted(place, Channel::Observations)),
            ByzantineKind::NeverPropose => sum(&|place| run.wire.muted(place, Channel::Blocks)),
            ByzantineKind::Equivocate => sum(&|place| run.wire.told_apart(place)),
            ByzantineKind::ListPhantoms => run.phantoms.load(Ordering::Relaxed),
            // These act in what blocks carry: the judge counts them.
            ByzantineKind::Censor | ByzantineKind::LiePrice | ByzantineKind::LieTime => 0,
        }
    });
    log.byzantine_fired = byzantine.collect();
    Ok(())
}

/// Chain time as virtual time.
pub fn virtual_ms(setup: &Setup, time: TimeMs) -> u64 {
    time.get().saturating_sub(setup.replay.start_ms) / u64::from(setup.plan.market.speed)
}

/// The view of a block.
pub fn view_of(block: &Block) -> u64 {
    block.context.view().get()
}

/// The reserve of rescues in a block.
pub const RESERVE: u32 = MAX_OWED_PER_BLOCK as u32;
