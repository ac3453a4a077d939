//! The same storm on a chain that sells block space to the highest fee and leaves liquidation to keepers.
//!
//! It is given what the storm's own run had: the instants of its blocks, their room, its marks with their states, its book,
//! and everything that users sent. It is also given what such chains do not have: consensus that never suffers from
//! load, prices inside consensus, every signature checked for nothing, and a pool that everybody sees at once. So whatever
//! it loses, it loses to two rules alone: who pays more goes first, and nobody is liquidated unless a keeper's transaction
//! says so. The ledger is the same code, without its sweep.
//!
//! # A block
//!
//! 1. What was sent before the block was begun enters one pool: traders and owners bid as people did on 2020-03-12 (see
//!    [`fees`]), owners bid again while they wait.
//! 2. Keepers look at the state after the block before. For each leg of a compartment in breach, largest gain first, a
//!    keeper that has capital and no transaction on the way for it bids a step more than the lowest fee of the last full
//!    block, at most what the leg gains it, at most what its script allows. Scripts that are outbid bid again.
//! 3. Marks move. The highest bids are executed until the block has no room. A keeper takes the leg over at the mark less
//!    the penalty, or less what equity is left; a second one that comes for it pays for nothing.
//! 4. What keepers took over a while ago they sell outside at the mark, which gives their capital back.
//!
//! # What became of a breach
//!
//! A compartment that falls below its maintenance margin is served if a keeper took all of it that had to go while it had
//! equity left; too late if its equity ended first; left alone if nobody came in [`Assumed::patience_blocks`]. If its
//! price came back or its owner's rescue arrived, it recovered and was no liquidation. If the price that broke it left
//! no equity at once, it gapped, which no rule of priority could have helped. The share unserved is
//! (too late + left alone) / (served + too late + left alone).
//!
//! Nobody gains by a compartment whose equity has ended, so nobody buys it: it is written off at that block's mark, its
//! deficit is bad debt, and it is not looked at again. That is kind: where a bid of zero won, as on 2020-03-12, the whole
//! collateral was lost.
//!
//! # Room of a block
//!
//! What the run's block carried, or what its machines could have carried in the time since the block before, up to the
//! block's limit, whichever is more.
//!
//! | limit | of what | what happens at it |
//! | --- | --- | --- |
//! | [`fees::MAX_POOLED`] | transactions in the pool | the lowest fee leaves |
//! | twice the room of a block | new trades of a block that are pooled, highest fees first | the others never get near a block |
//! | [`MAX_POINTS`] | points of the series | every other one is left out |

pub mod fees;

use crate::{
    extracts,
    record::{Block, Latency, Record, Run},
};
use fees::{FeeCurve, FeeMwei, Place, Pool, Tx};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use seawall_ledger::{
    BackstopParams, ChainParams, Compartment, FundingParams, GenesisAccount, GenesisError, GenesisPosition,
    Health, Ledger, LiquidationParams, MarketParams, OrderParams, RescueParams, Symbol, TierParams, kernel,
};
use seawall_types::{
    AccountId, Action, Atoms, ChainId, Height, Key, Lots, MarginMode, Mark, MarketId, Nonce, Ppm, PriceState,
    PriceTicks, Quote, Refusal, Side, Signature, TimeMs, limits,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use thiserror::Error;

/// Most points of a series.
pub const MAX_POINTS: usize = 2_048;
/// Bins of the time of a storm.
pub const BINS: u64 = 60;
/// Most halvings of a leg for which a keeper lacks capital.
const MAX_HALVINGS: u32 = 8;
const CHAIN: ChainId = ChainId(0);
const ISSUER: AccountId = AccountId(0);
const PPM: i128 = 1_000_000;

/// What decides how keepers and users behave: `storms/baseline.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// What was fitted, and to what.
    pub calibrated: Calibrated,
    /// What was not.
    pub assumed: Assumed,
    /// Storms that go through the recorded day, and how.
    pub day: BTreeMap<String, Day>,
}

/// How a storm goes through 2020-03-12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Day {
    /// Minute of the day (UTC) at which it begins.
    pub from_minute: u32,
    /// Milliseconds of the day in one of the storm.
    pub pace: u32,
}

/// The number that was fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrated {
    /// The storm that it was fitted to.
    pub storm: String,
    /// What the middle keeper's script pays at most, in multiples of the fee of a quiet hour.
    pub fee_cap_quiet_multiple: f64,
    /// The recorded share of liquidations that nobody served is at least this in that storm.
    pub unserved_share_low: f64,
    /// And at most this.
    pub unserved_share_high: f64,
}

/// Numbers with a source or marked as assumptions in `storms/baseline.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumed {
    /// How many keepers there are.
    pub keepers: u32,
    /// Highest fee cap by lowest.
    pub cap_spread: f64,
    /// Capital of all keepers, parts per million of the book's collateral.
    pub capital_ppm: u32,
    /// Cost of a keeper's transaction at the fee of a quiet hour, parts per million of the median position's penalty.
    pub cost_ppm_of_median_penalty: u32,
    /// Transactions that a keeper has on the way at most.
    pub in_flight: u32,
    /// How much more than the last lowest fee a keeper bids, parts per million.
    pub step_ppm: u32,
    /// Blocks until a breach counts as left alone, and until keepers sell what they took over.
    pub patience_blocks: u64,
    /// Blocks after which owners bid again.
    pub rebid_blocks: u64,
    /// Blocks after which trades leave the pool.
    pub trade_life_blocks: u64,
}

impl Calibration {
    /// The committed one.
    ///
    /// # Panics
    /// If `storms/baseline.toml` is malformed, which the tests exclude.
    pub fn committed() -> Self {
        toml::from_str(include_str!("../../../storms/baseline.toml"))
            .unwrap_or_else(|error| panic!("storms/baseline.toml: {error}"))
    }
}

/// Why a record cannot be played again.
#[derive(Debug, Error)]
pub enum BaselineError {
    /// The record's book or markets do not make a ledger.
    #[error("the book of this record does not make a ledger: {0}")]
    Genesis(#[from] GenesisError),
    /// A market's name is none.
    #[error("market {0} has a name that no market can have")]
    Symbol(u16),
    /// A state that no price has.
    #[error("`{0}` is no state of a price")]
    State(String),
}

/// How a storm ends on the other chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Whether the calibration was fitted to this storm.
    pub calibrated: bool,
    /// The same in a sentence.
    pub calibration: String,
    /// What went in.
    pub terms: Calibration,
    /// Where fees come from, in a sentence.
    pub fees: String,
    /// One for each run of the record.
    pub runs: Vec<BaselineRun>,
}

/// How a run ends on the other chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineRun {
    /// The run's.
    pub label: String,
    /// Room of all blocks, in actions.
    pub room: u64,
    /// Trades that were offered.
    pub trades_offered: u64,
    /// Trades in blocks.
    pub trades_included: u64,
    /// Rescues that were sent.
    pub rescues_sent: u64,
    /// Rescues in blocks.
    pub rescues_included: u64,
    /// From sending to finality, of those in blocks.
    pub rescue_latency: Latency,
    /// The time within which half of all that were sent were final. Nothing if half of them never were.
    pub rescue_p50_of_sent_ms: Option<f64>,
    /// The same for 99 of 100.
    pub rescue_p99_of_sent_ms: Option<f64>,
    /// How long rescues took, by when they were sent.
    pub rescue_bins: Vec<Bin>,
    /// What became of every breach.
    pub breaches: Breaches,
    /// Unserved liquidations by all. Nothing if there was none.
    pub unserved_share: Option<f64>,
    /// From the block of the breach to that of the keeper, of those that were served.
    pub delay: Latency,
    /// The same in blocks, at most.
    pub delay_max_blocks: u64,
    /// What keepers did.
    pub keepers: Keepers,
    /// Negative equity that was written off.
    pub bad_debt_atoms: i128,
    /// Of that, of compartments whose equity the price jumped over.
    pub gapped_debt_atoms: i128,
    /// Over time.
    pub points: Vec<Point>,
}

/// Rescues that were sent at about the same time. Those that were never final count with the time until the storm's end:
/// they took at least that long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bin {
    /// Begin of the bin.
    pub at_ms: u64,
    /// How many.
    pub sent: u64,
    /// Of these, in a final block.
    pub included: u64,
    /// Half of them at most.
    pub p50_ms: f64,
    /// All.
    pub max_ms: f64,
}

/// Sorts rescues into [`BINS`] bins by the instant at which they were sent. `rescues` are (sent, final).
pub fn bins(virtual_ms: u64, rescues: impl Iterator<Item = (u64, Option<u64>)>) -> Vec<Bin> {
    let width = virtual_ms.div_ceil(BINS).max(1);
    let mut all: BTreeMap<u64, (u64, Vec<u64>)> = BTreeMap::new();
    for (sent, end) in rescues {
        let (included, took) = all.entry(sent / width).or_default();
        *included += u64::from(end.is_some());
        took.push(end.unwrap_or(virtual_ms.max(sent)).saturating_sub(sent));
    }
    all.into_iter()
        .map(|(at, (included, mut took))| {
            took.sort_unstable();
            Bin {
                at_ms: at * width,
                sent: took.len() as u64,
                included,
                p50_ms: took[(took.len() - 1) / 2] as f64,
                max_ms: took[took.len() - 1] as f64,
            }
        })
        .collect()
}

/// What became of compartments that fell below their maintenance margin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaches {
    /// All.
    pub all: u64,
    /// A keeper closed them in time.
    pub served: u64,
    /// Their equity ended first.
    pub too_late: u64,
    /// Nobody came while patience lasted.
    pub left_alone: u64,
    /// The price that broke them left no equity.
    pub gapped: u64,
    /// Their price came back, or a rescue.
    pub recovered: u64,
    /// The storm ended first.
    pub undecided: u64,
}

impl Breaches {
    /// Unserved liquidations by all.
    pub fn unserved_share(&self) -> Option<f64> {
        let unserved = self.too_late + self.left_alone;
        let all = unserved + self.served;
        (all > 0).then(|| unserved as f64 / all as f64)
    }
}

/// What keepers did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keepers {
    /// Transactions that they sent, not counting new bids for the same.
    pub sent: u64,
    /// In blocks, having taken something over.
    pub won: u64,
    /// In blocks, having come too late or without capital.
    pub reverted: u64,
    /// What they gained on taking over.
    pub gained_atoms: i128,
    /// What they paid for block space.
    pub fees_atoms: i128,
}

/// The other chain after a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// When it was final.
    pub at_ms: u64,
    /// The lowest fee in it, 10^9 wei for a unit of gas; zero if it had room left.
    pub lowest_fee_gwei: f64,
    /// Transactions that wait.
    pub waiting: u64,
    /// Rescues that wait.
    pub waiting_rescues: u64,
    /// Compartments in breach.
    pub in_breach: u64,
    /// Liquidations that keepers have served so far.
    pub served: u64,
    /// Liquidations that came too late or were left alone so far.
    pub unserved: u64,
    /// Negative equity that was written off so far.
    pub bad_debt_atoms: i128,
}

/// Fees over the time of a storm.
#[derive(Clone, Debug)]
struct FeeClock {
    curves: Vec<FeeCurve>,
    /// Milliseconds into the recorded day at which the storm begins, and how much faster than the day it goes. Nothing: the
    /// dearest ten minutes of the day throughout.
    day: Option<(u64, u32)>,
    dearest: usize,
    /// The fee of a quiet hour.
    quiet: FeeMwei,
}

impl FeeClock {
    /// Of a storm that goes through the recorded day, or of any other.
    fn new(scenario: &str, terms: &Calibration) -> Self {
        let gas = extracts::gas();
        let mut hour: Vec<f64> = gas.iter().take(6).map(|bucket| bucket.p60_wei).collect();
        hour.sort_by(f64::total_cmp);
        let dearest = (0..gas.len()).max_by(|&a, &b| gas[a].p60_wei.total_cmp(&gas[b].p60_wei)).unwrap_or(0);
        Self {
            curves: gas.iter().map(FeeCurve::new).collect(),
            day: terms.day.get(scenario).map(|day| (u64::from(day.from_minute) * 60_000, day.pace)),
            dearest,
            quiet: FeeMwei(((hour[2] + hour[3]) / 2.0 / 1e6) as u64),
        }
    }

    fn at(&self, storm_ms: u64) -> &FeeCurve {
        let bucket = self.day.map_or(self.dearest, |(from_ms, speed)| {
            usize::try_from((from_ms + storm_ms * u64::from(speed)) / extracts::GAS_BUCKET_MS)
                .unwrap_or(usize::MAX)
        });
        &self.curves[bucket.min(self.curves.len() - 1)]
    }

    fn describe(&self) -> String {
        match self.day {
            Some((_, speed)) => format!(
                "Fees are drawn from the percentiles recorded on Ethereum on 2020-03-12, at the storm's pace of {speed} x."
            ),
            None => format!(
                "Fees are drawn from the percentiles of the dearest ten minutes recorded on Ethereum on 2020-03-12 ({} UTC).",
                &extracts::gas()[self.dearest].bucket_start[11..16]
            ),
        }
    }
}

/// Which part of an account: a market for an isolated position, nothing for cross.
type Part = (AccountId, Option<MarketId>);

fn compartment(part: Part) -> Compartment {
    part.1.map_or(Compartment::Cross, Compartment::Isolated)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Served,
    TooLate,
    LeftAlone,
    Gapped,
    Recovered,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    since: u64,
    since_ms: u64,
    touched: bool,
    end: Option<End>,
}

#[derive(Clone, Debug)]
struct Keeper {
    account: AccountId,
    cap: FeeMwei,
    on_the_way: BTreeMap<(AccountId, MarketId), u64>,
    /// (height at which it is sold, market, lots).
    inventory: VecDeque<(u64, MarketId, i64)>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    keeper: usize,
    part: Part,
    market: MarketId,
    fee: FeeMwei,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rescue {
    bid: Option<(FeeMwei, Place, u64)>,
    final_ms: Option<u64>,
}

struct Other<'a> {
    run: &'a Run,
    terms: &'a Calibration,
    clock: &'a FeeClock,
    ledger: Ledger,
    rng: ChaCha8Rng,
    pool: Pool,
    nonces: BTreeMap<AccountId, u64>,
    rescues: Vec<Rescue>,
    /// Rescues that wait, by when they were sent.
    waiting: Vec<usize>,
    keepers: Vec<Keeper>,
    outside: AccountId,
    sent: BTreeMap<u64, Sent>,
    names: u64,
    cases: BTreeMap<Part, Case>,
    written_off: BTreeSet<Part>,
    delays: Vec<(u64, u64)>,
    /// The lowest fee of the last block if it was full.
    lowest: FeeMwei,
    median_penalty: i128,
    out: BaselineRun,
}

/// Plays every run of a record on the other chain. The same record and calibration give the same result.
///
/// # Errors
/// If the record's book or markets are malformed.
pub fn play(record: &Record, terms: &Calibration) -> Result<Baseline, BaselineError> {
    let clock = FeeClock::new(&record.scenario, terms);
    let runs = record.runs.iter().enumerate();
    let runs = runs.map(|(at, run)| play_run(run, record.seed ^ ((at as u64) << 32), terms, &clock));
    let calibrated = record.scenario == terms.calibrated.storm;
    let of = &terms.calibrated;
    let calibration = if calibrated {
        format!(
            "calibrated: keepers' fee cap ({} x a quiet fee) was fitted so that this storm leaves {:.0} to {:.0} of 100 \
             liquidations unserved, as in the incident",
            of.fee_cap_quiet_multiple,
            of.unserved_share_low * 100.0,
            of.unserved_share_high * 100.0
        )
    } else {
        format!(
            "uncalibrated: no incident like this storm is recorded; keepers' fee cap ({} x a quiet fee) is that of {}",
            of.fee_cap_quiet_multiple, of.storm
        )
    };
    Ok(Baseline {
        calibrated,
        calibration,
        terms: terms.clone(),
        fees: clock.describe(),
        runs: runs.collect::<Result<_, _>>()?,
    })
}

/// Actions that a block has room for; see the [module](self).
pub fn room(block: &Block, previous_ms: u64, actions_per_second: f64) -> u32 {
    let elapsed_s = block.time_ms.saturating_sub(previous_ms) as f64 / 1e3;
    let could = (actions_per_second * elapsed_s).max(0.0) as u32; // Saturates; rounded down.
    block.weight.max(could.min(block.capacity))
}

fn play_run(
    run: &Run,
    seed: u64,
    terms: &Calibration,
    clock: &FeeClock,
) -> Result<BaselineRun, BaselineError> {
    let mut other = Other::new(run, seed, terms, clock)?;
    let mut marks = run.marks.iter().peekable();
    let mut traders = Arrivals::new(run);
    let mut order: Vec<usize> = (0..run.lanes.rescue.traces.len()).collect();
    order.sort_by_key(|&at| run.lanes.rescue.traces[at].sent_ms);
    let mut coming = order.into_iter().peekable();
    let (mut previous_ms, mut time) = (0, 1);
    for (at, block) in run.blocks.iter().enumerate() {
        let height = at as u64 + 1;
        let room = room(block, previous_ms, run.capacity.actions_per_second);
        let closed_ms = block.begun_ms.unwrap_or(block.time_ms).max(previous_ms);
        previous_ms = block.time_ms;

        let count = traders.until(closed_ms);
        other.trades(height, closed_ms, count, room);
        while let Some(rescue) = coming.next_if(|&at| run.lanes.rescue.traces[at].sent_ms <= closed_ms) {
            other.waiting.push(rescue);
        }
        other.owners(height, closed_ms);
        other.watch(height);

        time = (time + 1).max(1 + block.time_ms);
        other.ledger.begin_block(Height(height), TimeMs(time));
        let mut moved = BTreeMap::new();
        while let Some(mark) = marks.next_if(|mark| mark.height <= block.height) {
            let state = state(&mark.state)?;
            moved.insert(
                MarketId(mark.market),
                Mark::new(state, PriceTicks(mark.ticks.clamp(1, limits::MAX_PRICE_TICKS)), TimeMs(time)),
            );
        }
        other.ledger.set_marks(&moved.into_iter().collect::<Vec<_>>());
        other.execute(height, block.final_ms, room);
        other.sell(height);
        other.ledger.end_block();
        other.count(height, block.final_ms);
    }
    Ok(other.finish())
}

fn state(name: &str) -> Result<PriceState, BaselineError> {
    [
        PriceState::Fresh,
        PriceState::Stale,
        PriceState::Disputed,
        PriceState::Reopening,
        PriceState::Quarantined,
    ]
    .into_iter()
    .find(|state| state.name() == name)
    .ok_or_else(|| BaselineError::State(name.to_owned()))
}

/// Trades that were offered, by time.
struct Arrivals<'a> {
    run: &'a Run,
    given: u64,
}

impl<'a> Arrivals<'a> {
    fn new(run: &'a Run) -> Self {
        Self { run, given: 0 }
    }

    /// How many came since this was asked last. Within a bucket they come evenly; rounded down, the rest comes later.
    fn until(&mut self, at_ms: u64) -> u64 {
        let lane = &self.run.lanes.trade;
        let length = u128::from(lane.bucket_ms.max(1));
        let sum = |bucket: &crate::record::Offered| {
            let passed = u128::from(at_ms.saturating_sub(bucket.at_ms)).min(length);
            (u128::from(bucket.sent) * passed / length) as u64
        };
        let all: u64 = lane.offered.iter().take_while(|bucket| bucket.at_ms < at_ms).map(sum).sum();
        let new = all.saturating_sub(self.given);
        self.given += new;
        new
    }
}

impl<'a> Other<'a> {
    fn new(
        run: &'a Run,
        seed: u64,
        terms: &'a Calibration,
        clock: &'a FeeClock,
    ) -> Result<Self, BaselineError> {
        let params = chain(run)?;
        let mut accounts: Vec<GenesisAccount> = run.book.iter().map(genesis_account).collect();
        let collateral: i128 = run.book.iter().map(|account| account.collateral_atoms).sum();
        let market = |id: u16| run.markets.iter().find(|market| market.market == id);
        let notional = |id: u16, lots: i64| {
            market(id).map_or(0, |market| {
                i128::from(lots.unsigned_abs())
                    * i128::from(market.opening_ticks)
                    * i128::from(market.atoms_per_tick_lot)
            })
        };
        let positions = || run.book.iter().flat_map(|account| &account.positions);
        let open: i128 = positions().map(|position| notional(position.market, position.lots)).sum();
        let mut penalties: Vec<i128> = positions()
            .filter_map(|position| {
                let rate = i128::from(market(position.market)?.penalty_ppm);
                Some(kernel::fee(notional(position.market, position.lots), rate))
            })
            .collect();
        penalties.sort_unstable();

        let assumed = &terms.assumed;
        let capital = collateral * i128::from(assumed.capital_ppm) / PPM / i128::from(assumed.keepers.max(1));
        let mut keepers = Vec::new();
        for at in 0..assumed.keepers {
            let account = AccountId(accounts.len() as u64);
            accounts.push(flat(capital));
            let step = f64::from(at) / f64::from(assumed.keepers.max(2) - 1) - 0.5;
            let multiple = terms.calibrated.fee_cap_quiet_multiple * libm::pow(assumed.cap_spread, step);
            keepers.push(Keeper {
                account,
                cap: FeeMwei((clock.quiet.0 as f64 * multiple) as u64),
                on_the_way: BTreeMap::new(),
                inventory: VecDeque::new(),
            });
        }
        // The world outside takes what keepers sell: it never lacks margin.
        let outside = AccountId(accounts.len() as u64);
        accounts.push(flat(open));
        let ledger = Ledger::genesis(&params, TimeMs(1), accounts.into_iter())?;
        Ok(Self {
            run,
            terms,
            clock,
            ledger,
            rng: ChaCha8Rng::seed_from_u64(seed),
            pool: Pool::default(),
            nonces: BTreeMap::new(),
            rescues: vec![Rescue::default(); run.lanes.rescue.traces.len()],
            waiting: Vec::new(),
            keepers,
            outside,
            sent: BTreeMap::new(),
            names: 0,
            cases: BTreeMap::new(),
            written_off: BTreeSet::new(),
            delays: Vec::new(),
            lowest: FeeMwei(0),
            median_penalty: penalties.get(penalties.len() / 2).copied().unwrap_or(0),
            out: BaselineRun {
                label: run.label.clone(),
                room: 0,
                trades_offered: 0,
                trades_included: 0,
                rescues_sent: run.lanes.rescue.traces.len() as u64,
                rescues_included: 0,
                rescue_latency: Latency::default(),
                rescue_p50_of_sent_ms: None,
                rescue_p99_of_sent_ms: None,
                rescue_bins: Vec::new(),
                breaches: Breaches::default(),
                unserved_share: None,
                delay: Latency::default(),
                delay_max_blocks: 0,
                keepers: Keepers::default(),
                bad_debt_atoms: 0,
                gapped_debt_atoms: 0,
                points: Vec::new(),
            },
        })
    }

    /// What a keeper's transaction costs at a fee. Rounded up.
    fn cost(&self, fee: FeeMwei) -> i128 {
        let ppm = i128::from(self.terms.assumed.cost_ppm_of_median_penalty);
        kernel::Int::ceil_div(
            self.median_penalty * ppm * i128::from(fee.0),
            PPM * i128::from(self.clock.quiet.0.max(1)),
        )
    }

    /// The highest fee at which a gain still pays. Rounded down.
    fn worth(&self, gain: i128) -> FeeMwei {
        let unit = self.median_penalty * i128::from(self.terms.assumed.cost_ppm_of_median_penalty);
        if unit == 0 {
            return FeeMwei(u64::MAX);
        }
        let fee = gain.max(0) * PPM * i128::from(self.clock.quiet.0) / unit;
        FeeMwei(u64::try_from(fee).unwrap_or(u64::MAX))
    }

    fn add(&mut self, fee: FeeMwei, tx: Tx) -> Place {
        let (place, dropped) = self.pool.add(fee, tx);
        if let Some(Tx::Keeper(name)) = dropped {
            self.forget(name);
        }
        place
    }

    fn forget(&mut self, name: u64) -> Option<Sent> {
        let sent = self.sent.remove(&name)?;
        self.keepers[sent.keeper].on_the_way.remove(&(sent.part.0, sent.market));
        Some(sent)
    }

    fn trades(&mut self, height: u64, now_ms: u64, count: u64, room: u32) {
        self.out.trades_offered += count;
        let until = height + self.terms.assumed.trade_life_blocks;
        let curve = self.clock.at(now_ms);
        for fee in curve.highest(&mut self.rng, count, 2 * room as usize) {
            self.add(fee, Tx::Trade { until });
        }
    }

    /// Owners bid, and bid again.
    fn owners(&mut self, height: u64, now_ms: u64) {
        let waiting = std::mem::take(&mut self.waiting);
        let curve = self.clock.at(now_ms);
        for &at in &waiting {
            let fee = match self.rescues[at].bid {
                None => curve.draw(&mut self.rng),
                Some((fee, place, since)) if height >= since + self.terms.assumed.rebid_blocks => {
                    self.pool.remove(place);
                    fee.raised(100_000).max(curve.draw(&mut self.rng))
                }
                Some(_) => continue,
            };
            let place = self.add(fee, Tx::Rescue(at));
            self.rescues[at].bid = Some((fee, place, height));
        }
        self.waiting = waiting;
    }

    fn health(&self, part: Part) -> Option<Health> {
        self.ledger.health_of(part.0, compartment(part))
    }

    /// Markets and lots of a compartment.
    fn legs(&self, part: Part) -> Vec<(MarketId, i64)> {
        let Some(account) = self.ledger.account(part.0) else { return Vec::new() };
        let own = account.positions.iter().filter(|position| position.compartment() == compartment(part));
        own.map(|position| (position.market, position.lots.0)).collect()
    }

    fn mark(&self, market: MarketId) -> Option<(PriceTicks, i128)> {
        let market = self.ledger.market(market)?;
        let mark = market.mark?.fresh()?;
        Some((mark, market.params.unit(mark)))
    }

    /// What a keeper gains by taking a leg over now: the penalty, at most the leg's share of equity.
    fn gain(&self, part: Part, market: MarketId) -> Option<i128> {
        let health = self.health(part).filter(|health| health.equity < health.maintenance)?;
        let mut all = 0;
        let mut own = None;
        for (leg, lots) in self.legs(part) {
            let unit = self.mark(leg).map(|(_, unit)| unit);
            let notional = unit.map(|unit| unit * i128::from(lots.unsigned_abs()));
            all += notional.unwrap_or(0);
            if leg == market {
                own = notional;
            }
        }
        let own = own?;
        let rate = i128::from(self.ledger.market(market)?.params.liquidation.penalty_ppm.0);
        let share = health.equity.0.max(0) * own / all.max(1);
        Some(kernel::fee(own, rate).min(share))
    }

    /// Keepers look at the state and bid.
    fn watch(&mut self, height: u64) {
        let mut prizes = Vec::new();
        for &part in self.cases.keys() {
            for (market, _) in self.legs(part) {
                if let Some(gain) = self.gain(part, market).filter(|gain| *gain > 0) {
                    prizes.push((core::cmp::Reverse(gain), part, market));
                }
            }
        }
        prizes.sort_unstable();
        let step = u64::from(self.terms.assumed.step_ppm);
        let bid = self.lowest.raised(step);
        for keeper in 0..self.keepers.len() {
            let cap = self.keepers[keeper].cap;
            let margin = |of: &Self, market: MarketId| {
                let params = &of.ledger.market(market)?.params;
                Some(i128::from(params.tiers.first()?.initial_ppm.0))
            };
            let mut free =
                self.ledger.health(self.keepers[keeper].account).map_or(0, |health| health.available.0);
            for &(core::cmp::Reverse(gain), part, market) in &prizes {
                let fee = bid.min(cap).min(self.worth(gain));
                let own = self.keepers[keeper].on_the_way.get(&(part.0, market)).copied();
                if let Some(sent) = own.and_then(|name| self.sent.get(&name)).copied() {
                    // A pool takes a new bid for the same only if it is a step higher.
                    if sent.fee < self.lowest && fee >= sent.fee.raised(100_000) {
                        self.pool.remove(sent.place);
                        self.forget(own.unwrap_or_default());
                        self.send(keeper, part, market, fee);
                    }
                    continue;
                }
                let busy = self.keepers[keeper].on_the_way.len() >= self.terms.assumed.in_flight as usize;
                let lots = self.legs(part).into_iter().find(|leg| leg.0 == market).map_or(0, |leg| leg.1);
                let unit = self.mark(market).map_or(0, |(_, unit)| unit);
                let needs = margin(self, market)
                    .map_or(0, |ppm| kernel::fee(unit * i128::from(lots.unsigned_abs()), ppm));
                if busy || free <= 0 || fee.0 == 0 {
                    continue;
                }
                free -= needs;
                self.out.keepers.sent += 1;
                self.send(keeper, part, market, fee);
            }
        }
        // Whose prize is gone takes the bid back.
        let wanted: BTreeSet<_> = prizes.iter().map(|(_, part, market)| (*part, *market)).collect();
        let gone: Vec<u64> = self
            .sent
            .iter()
            .filter(|(_, sent)| !wanted.contains(&(sent.part, sent.market)))
            .map(|(name, _)| *name)
            .collect();
        for name in gone {
            if let Some(sent) = self.forget(name) {
                self.pool.remove(sent.place);
            }
        }
        debug_assert!(height > self.ledger.globals().height.0);
    }

    fn send(&mut self, keeper: usize, part: Part, market: MarketId, fee: FeeMwei) {
        let name = self.names;
        self.names += 1;
        let (place, dropped) = self.pool.add(fee, Tx::Keeper(name));
        if dropped != Some(Tx::Keeper(name)) {
            self.sent.insert(name, Sent { keeper, part, market, fee, place });
            self.keepers[keeper].on_the_way.insert((part.0, market), name);
        }
        if let Some(Tx::Keeper(other)) = dropped {
            self.forget(other);
        }
    }

    /// Executes the highest bids.
    fn execute(&mut self, height: u64, final_ms: u64, room: u32) {
        self.out.room += u64::from(room);
        let mut left = room;
        let mut lowest = FeeMwei(0);
        while left > 0 {
            let Some((fee, tx)) = self.pool.take_highest() else {
                lowest = FeeMwei(0);
                break;
            };
            match tx {
                Tx::Trade { until } if until < height => continue,
                Tx::Trade { .. } => self.out.trades_included += 1,
                Tx::Rescue(at) => {
                    self.rescues[at].final_ms = Some(final_ms);
                    self.out.rescues_included += 1;
                    self.rescue(height, at);
                }
                Tx::Keeper(name) => {
                    if let Some(sent) = self.forget(name) {
                        self.out.keepers.fees_atoms += self.cost(fee);
                        match self.take_over(height, &sent) {
                            Some(gained) => {
                                self.out.keepers.won += 1;
                                self.out.keepers.gained_atoms += gained;
                            }
                            None => self.out.keepers.reverted += 1,
                        }
                    }
                }
            }
            lowest = fee;
            left -= 1;
        }
        self.lowest = lowest;
        let rescues = &self.rescues;
        self.waiting.retain(|&at| rescues[at].final_ms.is_none());
    }

    fn nonce(&mut self, account: AccountId) -> Nonce {
        let next = self.nonces.entry(account).or_default();
        *next += 1;
        Nonce(*next)
    }

    /// Does to the ledger what an owner's rescue does there. A refusal changes nothing.
    fn rescue(&mut self, height: u64, at: usize) {
        let trace = &self.run.lanes.rescue.traces[at];
        let Some((helped, atoms)) = trace.helps else { return };
        let (helped, amount) = (AccountId(helped), Atoms(atoms));
        let signer = AccountId(trace.account);
        let (signer, action) = match trace.kind.as_str() {
            "transfer" => (signer, Action::Transfer { to: helped, amount }),
            "top_up_isolated" => {
                let worst = self.ledger.account(helped).and_then(|account| {
                    let isolated = account.positions.iter().filter(|own| own.mode == MarginMode::Isolated);
                    isolated
                        .filter_map(|own| {
                            let health = self.health((helped, Some(own.market)))?;
                            Some((health.equity.0 - health.maintenance.0, own.market))
                        })
                        .min()
                });
                match worst {
                    Some((_, market)) => (helped, Action::TopUpIsolated { market, amount }),
                    None => return,
                }
            }
            _ => (ISSUER, Action::Deposit { to: helped, amount }),
        };
        let nonce = self.nonce(signer);
        // A refusal is what the owner's transaction would have met there, too.
        let _refused = self.ledger.apply(signer, nonce, Height(height), &action).is_err();
    }

    /// A keeper takes a leg over, or as much as it has margin for. What it gained, if anything was taken.
    fn take_over(&mut self, height: u64, sent: &Sent) -> Option<i128> {
        let gain = self.gain(sent.part, sent.market)?;
        let (mark, unit) = self.mark(sent.market)?;
        let lots = self.legs(sent.part).into_iter().find(|leg| leg.0 == sent.market)?.1;
        let size = i128::from(lots.unsigned_abs());
        let tick = unit / i128::from(mark.0);
        let params = &self.ledger.market(sent.market)?.params;
        let band = mark.0 * u64::from(params.band_ppm.0) / 1_000_000;
        // Rounded towards the mark: the dust is the owner's.
        let discount = u64::try_from(gain / (size * tick)).unwrap_or(u64::MAX).min(band);
        let (side, price) = if lots > 0 {
            (Side::Sell, PriceTicks(mark.0 - discount))
        } else {
            (Side::Buy, PriceTicks(mark.0 + discount))
        };
        let keeper = self.keepers[sent.keeper].account;
        let mut take = lots.unsigned_abs() as i64;
        for _ in 0..MAX_HALVINGS {
            match self.fill(height, sent.part.0, keeper, sent.market, side, price, take) {
                Ok(()) => {
                    let sold = height + self.terms.assumed.patience_blocks;
                    let signed = if lots > 0 { take } else { -take };
                    self.keepers[sent.keeper].inventory.push_back((sold, sent.market, signed));
                    if let Some(case) = self.cases.get_mut(&sent.part) {
                        case.touched = true;
                    }
                    return Some(i128::from(discount) * tick * i128::from(take));
                }
                Err(Refusal::InsufficientMargin) if take > 1 => take /= 2,
                Err(_) => return None,
            }
        }
        None
    }

    #[allow(clippy::too_many_arguments)]
    fn fill(
        &mut self,
        height: u64,
        maker: AccountId,
        taker: AccountId,
        market: MarketId,
        side: Side,
        price: PriceTicks,
        lots: i64,
    ) -> Result<(), Refusal> {
        let (own, others) = (self.nonce(taker), self.nonce(maker));
        let expiry = Height(height);
        let quote = Quote {
            chain: CHAIN,
            maker,
            taker,
            market,
            side,
            price,
            lots: Lots(lots),
            nonce: others,
            expiry,
        };
        let fill = Action::Fill { quote, quote_signature: Signature::default(), lots: Lots(lots) };
        self.ledger.apply(taker, own, expiry, &fill).map(|_| ())
    }

    /// Keepers sell outside, at the mark, what they took over long enough ago.
    fn sell(&mut self, height: u64) {
        for at in 0..self.keepers.len() {
            while let Some(&(due, market, lots)) = self.keepers[at].inventory.front() {
                if due > height {
                    break;
                }
                let keeper = self.keepers[at].account;
                let held = self.ledger.account(keeper).map_or(0, |account| account.lots(market).0);
                // Legs of either side that it took over may have cancelled each other out.
                let size = if (held > 0) == (lots > 0) { held.abs().min(lots.abs()) } else { 0 };
                if size > 0 {
                    let Some((mark, _)) = self.mark(market) else { break };
                    let side = if held > 0 { Side::Buy } else { Side::Sell };
                    if self.fill(height, self.outside, keeper, market, side, mark, size).is_err() {
                        break;
                    }
                }
                self.keepers[at].inventory.pop_front();
            }
        }
    }

    /// Looks for new breaches and at what became of the old ones.
    fn count(&mut self, height: u64, final_ms: u64) {
        for account in 0..self.run.book.len() as u64 {
            let id = AccountId(account);
            let Some(account) = self.ledger.account(id).filter(|account| !account.positions.is_empty())
            else {
                continue;
            };
            let isolated = account.positions.iter().filter(|own| own.mode == MarginMode::Isolated);
            let mut parts: Vec<Part> = isolated.map(|own| (id, Some(own.market))).collect();
            if parts.len() < account.positions.len() {
                parts.push((id, None));
            }
            for part in parts {
                let breach = self.health(part).is_some_and(|health| {
                    !health.blind && health.maintenance.0 > 0 && health.equity < health.maintenance
                });
                if breach && !self.cases.contains_key(&part) && !self.written_off.contains(&part) {
                    self.out.breaches.all += 1;
                    let case = Case { since: height, since_ms: final_ms, touched: false, end: None };
                    self.cases.insert(part, case);
                }
            }
        }
        let mut found = Vec::new();
        for (&part, case) in &self.cases {
            let health = self.health(part).filter(|_| !self.legs(part).is_empty());
            let equity = health.as_ref().map_or(0, |health| health.equity.0);
            let end = if health.is_none_or(|health| health.equity >= health.maintenance) {
                Some(if case.touched { End::Served } else { End::Recovered })
            } else if equity < 0 {
                Some(if case.since == height { End::Gapped } else { End::TooLate })
            } else {
                let patience = self.terms.assumed.patience_blocks;
                (height >= case.since + patience && !case.touched).then_some(End::LeftAlone)
            };
            if let Some(end) = end {
                found.push((part, end, equity));
            }
        }
        for (part, end, equity) in found {
            let Some(case) = self.cases.get_mut(&part) else { continue };
            let out = &mut self.out;
            // What was left alone may still be served or lose its equity: it counts once.
            if case.end.replace(end).is_none() {
                match end {
                    End::Served => {
                        out.breaches.served += 1;
                        self.delays.push((height - case.since, final_ms.saturating_sub(case.since_ms)));
                    }
                    End::TooLate => out.breaches.too_late += 1,
                    End::LeftAlone => out.breaches.left_alone += 1,
                    End::Gapped => out.breaches.gapped += 1,
                    End::Recovered => out.breaches.recovered += 1,
                }
            }
            if equity < 0 {
                out.bad_debt_atoms -= equity;
                if end == End::Gapped {
                    out.gapped_debt_atoms -= equity;
                }
                self.written_off.insert(part);
            }
            if end != End::LeftAlone {
                self.cases.remove(&part);
            }
        }
        self.out.points.push(Point {
            at_ms: final_ms,
            lowest_fee_gwei: self.lowest.gwei(),
            waiting: self.pool.waiting() as u64,
            waiting_rescues: self.waiting.len() as u64,
            in_breach: self.cases.len() as u64,
            served: self.out.breaches.served,
            unserved: self.out.breaches.too_late + self.out.breaches.left_alone,
            bad_debt_atoms: self.out.bad_debt_atoms,
        });
    }

    fn finish(mut self) -> BaselineRun {
        let traces = &self.run.lanes.rescue.traces;
        let both = self.rescues.iter().zip(traces);
        self.out.rescue_bins =
            bins(self.run.virtual_ms, both.map(|(rescue, trace)| (trace.sent_ms, rescue.final_ms)));
        let latencies = self.rescues.iter().zip(traces);
        let mut latencies: Vec<u64> = latencies
            .filter_map(|(rescue, trace)| Some(rescue.final_ms?.saturating_sub(trace.sent_ms)))
            .collect();
        latencies.sort_unstable();
        let out = &mut self.out;
        let of_sent = |percent: usize| {
            let rank = (traces.len() * percent).div_ceil(100).max(1) - 1;
            latencies.get(rank).map(|ms| *ms as f64)
        };
        out.rescue_p50_of_sent_ms = of_sent(50);
        out.rescue_p99_of_sent_ms = of_sent(99);
        out.rescue_latency = latency(&latencies);
        out.breaches.undecided = self.cases.values().filter(|case| case.end.is_none()).count() as u64;
        out.unserved_share = out.breaches.unserved_share();
        let mut delays: Vec<u64> = self.delays.iter().map(|delay| delay.1).collect();
        delays.sort_unstable();
        out.delay = latency(&delays);
        out.delay_max_blocks = self.delays.iter().map(|delay| delay.0).max().unwrap_or(0);
        while out.points.len() > MAX_POINTS {
            let mut odd = true;
            out.points.retain(|_| {
                odd = !odd;
                odd
            });
        }
        self.out
    }
}

/// A distribution of sorted milliseconds. Buckets grow by a quarter.
fn latency(sorted: &[u64]) -> Latency {
    let Some(&max) = sorted.last() else { return Latency::default() };
    let at = |per_mille: usize| sorted[(sorted.len() * per_mille).div_ceil(1_000).max(1) - 1] as f64;
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    let mut end = 16.0;
    let mut rest = sorted;
    while !rest.is_empty() {
        let count = rest.partition_point(|ms| *ms as f64 <= end);
        if count > 0 {
            buckets.push((end, count as u64));
        }
        rest = &rest[count..];
        end *= 1.25;
    }
    Latency {
        count: sorted.len() as u64,
        mean_ms: sorted.iter().sum::<u64>() as f64 / sorted.len() as f64,
        p50_ms: at(500),
        p90_ms: at(900),
        p99_ms: at(990),
        p999_ms: at(999),
        max_ms: max as f64,
        buckets,
    }
}

fn flat(collateral: i128) -> GenesisAccount {
    GenesisAccount {
        owner: Key::default(),
        collateral: Atoms(collateral.clamp(0, limits::MAX_AMOUNT_ATOMS)),
        positions: Vec::new(),
    }
}

fn genesis_account(account: &crate::record::Account) -> GenesisAccount {
    let mut positions: Vec<GenesisPosition> = account
        .positions
        .iter()
        .map(|own| GenesisPosition {
            market: MarketId(own.market),
            lots: Lots(own.lots),
            cost: Atoms(own.cost_atoms),
            mode: if own.isolated_atoms.is_some() { MarginMode::Isolated } else { MarginMode::Cross },
            isolated: Atoms(own.isolated_atoms.unwrap_or(0)),
        })
        .collect();
    positions.sort_by_key(|position| position.market);
    GenesisAccount { owner: Key::default(), collateral: Atoms(account.collateral_atoms), positions }
}

/// The same markets without fees, funding and backstops, with room for what keepers take over.
fn chain(run: &Run) -> Result<ChainParams, BaselineError> {
    let mut markets = Vec::new();
    for market in &run.markets {
        let marks = run.marks.iter().filter(|mark| mark.market == market.market).map(|mark| mark.ticks);
        let highest = marks.max().unwrap_or(0).max(market.opening_ticks).saturating_mul(2);
        let own = run.book.iter().flat_map(|account| &account.positions);
        let own = own.filter(|position| position.market == market.market);
        let open: i64 = own.map(|position| position.lots.max(0)).sum();
        let tiers: Vec<TierParams> = market
            .tiers
            .iter()
            .map(|tier| TierParams {
                up_to_notional: Atoms(tier.up_to_notional_atoms),
                initial_ppm: Ppm(tier.initial_ppm),
                maintenance_ppm: Ppm(tier.maintenance_ppm),
            })
            .collect();
        let narrowest =
            tiers.iter().map(|tier| tier.initial_ppm.0.saturating_sub(tier.maintenance_ppm.0)).min();
        markets.push(MarketParams {
            symbol: market.symbol.parse::<Symbol>().map_err(|_| BaselineError::Symbol(market.market))?,
            atoms_per_tick_lot: market.atoms_per_tick_lot,
            min_price: PriceTicks(1),
            max_price: PriceTicks(highest.clamp(2, limits::MAX_PRICE_TICKS)),
            tiers,
            taker_fee_ppm: Ppm(0),
            maker_fee_ppm: Ppm(0),
            funding: FundingParams { interval_ms: 1, cap_ppm: Ppm(0), interest_ppm: 0 },
            band_ppm: Ppm(narrowest.unwrap_or(0).saturating_sub(1)),
            blind_range_ppm: Ppm(0),
            open_interest_cap: Lots(open.saturating_mul(2).max(1)),
            account_cap: Lots(open.saturating_mul(2).max(1)),
            isolated_only: false,
            liquidation: LiquidationParams { penalty_ppm: Ppm(market.penalty_ppm) },
            backstop: BackstopParams {
                initial_fund: Atoms(0),
                capacity_lots: Lots(0),
                per_block_lots: Lots(0),
            },
            orders: OrderParams::default(),
        });
    }
    // That chain rations by fee and by nothing else: as many tokens as an account can have.
    let rescues = RescueParams {
        flat_tokens: limits::MAX_RESCUE_TOKENS - RescueParams::default().account_tokens,
        issuer_tokens: limits::MAX_RESCUE_TOKENS,
        ..RescueParams::default()
    };
    let rescues = rescues.for_accounts(run.book.len() as u64);
    Ok(ChainParams {
        chain: CHAIN,
        issuer: ISSUER,
        insurance: Atoms(0),
        liquidation_steps: 1,
        max_wait_blocks: 1,
        rescues,
        markets,
    })
}

#[cfg(test)]
mod tests;
