//! Everything that a storm tells, as one piece of data: reports, baselines and ledgers are made from it alone.
//!
//! A [`Record`] has one [`Run`] for each point of the scenario's sweep, or exactly one. All instants are milliseconds of
//! virtual time since the storm began; negative ones do not exist. Heights and indices are those of the chain. Amounts are
//! atoms of the quote currency, prices ticks, sizes lots: a position of `lots` bought for `cost_atoms` gains
//! `lots x ticks x atoms_per_tick_lot - cost_atoms`.
//!
//! The same scenario, seed and version give the same record to the bit, but for [`Record::wall_ms`].
//!
//! | limit | of what | what happens at it |
//! | --- | --- | --- |
//! | [`MAX_SERIES`] | samples of a series | every other sample is left out until they fit |
//! | [`MAX_TRACES`] | traced actions of a lane | later ones count in the histograms and are not traced |
//! | [`MAX_LIQUIDATIONS`] | liquidations that are listed | later ones are only counted |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the shape of a record is called. Raised when a field changes its meaning.
pub const FORMAT: u32 = 1;
/// Most samples of a series.
pub const MAX_SERIES: usize = 4_096;
/// Most actions of a lane that are traced one by one.
pub const MAX_TRACES: usize = 65_536;
/// Most liquidations that are listed one by one.
pub const MAX_LIQUIDATIONS: usize = 65_536;

/// Whether a storm was survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every criterion is met.
    Held,
    /// At least one is not.
    NotHeld,
}

/// Everything that a storm tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the scenario: that of its file, without the ending.
    pub scenario: String,
    /// The file itself, comments included.
    pub scenario_text: String,
    /// SHA-256 of the file, in hex.
    pub scenario_digest: String,
    /// What the scenario claims.
    pub hypothesis: String,
    /// Where everything random comes from.
    pub seed: u64,
    /// Version of the program.
    pub version: String,
    /// Commit that it was built from, if whoever ran it said so.
    pub commit: Option<String>,
    /// How long it took on a real clock. Not part of [`Record::digest`], which is that of the rest.
    pub wall_ms: u64,
    /// What the simulated machines spend on work, in microseconds on one core, before [`Capacity::slowdown`]. By the
    /// names in `storms/calibration.toml`.
    pub calibration_us: BTreeMap<String, f64>,
    /// One for each point of the sweep; one if there is none.
    pub runs: Vec<Run>,
    /// Every criterion of the scenario, and those that every storm has, over all runs.
    pub criteria: Vec<Criterion>,
    /// Whether all of them are met.
    pub verdict: Verdict,
    /// What is not as in the real incident, or not as in production, in sentences.
    pub caveats: Vec<String>,
    /// SHA-256, in hex, of the record as JSON with `wall_ms` 0 and `digest` empty.
    pub digest: String,
}

/// A criterion and what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// As in the scenario's `[criteria]`.
    pub name: String,
    /// In words.
    pub claim: String,
    /// What was measured. Nothing if there was nothing to measure, which is not met.
    pub measured: Option<f64>,
    /// What it is held against.
    pub limit: f64,
    /// Whether `measured` may be at most or must be at least the limit.
    pub direction: Direction,
    /// Unit of both: `ms`, `blocks`, `actions`, `share`, `ratio`, `atoms`.
    pub unit: String,
    /// Whether it is met.
    pub met: bool,
    /// Where it was not, if there is more to say: the run, the block, the action.
    pub detail: String,
}

/// On which side of the limit a measured value must lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Measured at most limit.
    AtMost,
    /// Measured at least limit.
    AtLeast,
}

/// One simulated chain from genesis to the storm's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Which point of the sweep: `10x` for ten times the capacity. Empty if there is no sweep.
    pub label: String,
    /// Trades offered, in multiples of the capacity, if this is a point of a sweep over them.
    pub offered_multiple: Option<f64>,
    /// How long it lasted in virtual time, ms.
    pub virtual_ms: u64,
    /// Who takes part, and where.
    pub network: Network,
    /// What it can do.
    pub capacity: Capacity,
    /// The markets.
    pub markets: Vec<Market>,
    /// Every account at genesis, by id. The first is the issuer.
    pub book: Vec<Account>,
    /// Prices in sight of the validators, before noise and lies, when they change: the truth.
    pub index_prices: Vec<PricePoint>,
    /// Marks of the chain by block, when price or state change.
    pub marks: Vec<MarkPoint>,
    /// Every final block, by height.
    pub blocks: Vec<Block>,
    /// The lanes: what was offered, what became of it, how long it took.
    pub lanes: Lanes,
    /// What waits, over time.
    pub backlog: Vec<Backlog>,
    /// Faults of the timeline, when they began and ended, and how often each did something.
    pub faults: Vec<Fault>,
    /// Recoveries from faults that had an end.
    pub heals: Vec<Heal>,
    /// Accounts that liquidation took hold of, in order.
    pub liquidations: Vec<Liquidation>,
    /// Sums over the run.
    pub totals: Totals,
    /// What must be zero, and P1.
    pub safety: Safety,
    /// What queueing theory said of each lane for this run, if it had an answer.
    pub prediction: Option<Prediction>,
}

/// Who takes part, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// By index.
    pub validators: Vec<Validator>,
    /// Fewest members of a quorum.
    pub quorum: usize,
    /// Most members that may be Byzantine.
    pub faulty: usize,
    /// Names of the places, for `one_way_ms`.
    pub places: Vec<String>,
    /// `one_way_ms[from][to]` between places, before jitter and faults.
    pub one_way_ms: Vec<Vec<f64>>,
    /// Finality if nothing but distance took time, the mean over leaders, ms.
    pub bound_ms: f64,
}

/// A validator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// Place in the committee.
    pub index: usize,
    /// Where it is.
    pub place: String,
    /// What it does that the protocol forbids, by the names of the scenario. Empty if it is honest.
    pub byzantine: Vec<String>,
    /// Lives in which it came up: one and its restarts.
    pub starts: u32,
}

/// What a chain can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Cores of a validator that check signatures; execution uses one.
    pub cores: u32,
    /// Every processor is so many times slower than in the calibration, so that overload is cheap to simulate.
    pub slowdown: f64,
    /// Weight that a block takes at most, each order of a bulk action counting.
    pub block_weight: u32,
    /// Rescues that a block must carry at most because they are listed.
    pub rescue_reserve: u32,
    /// Shortest time between blocks, ms.
    pub interval_ms: u64,
    /// Actions a second that the scenario's multiples are multiples of: one core's checks and executions.
    pub actions_per_second: f64,
}

/// A market, as a chain with other rules needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Market {
    /// Id, the index in every list by market.
    pub market: u16,
    /// Name.
    pub symbol: String,
    /// Atoms that a lot gains for a tick.
    pub atoms_per_tick_lot: u32,
    /// Price at genesis.
    pub opening_ticks: u64,
    /// Margin tiers by notional, ascending: (up to this notional in atoms, initial, maintenance in parts per million).
    pub tiers: Vec<Tier>,
    /// Penalty of a liquidation, parts per million of the notional.
    pub penalty_ppm: u32,
    /// Fee of a taker, parts per million.
    pub taker_fee_ppm: u32,
    /// What the market's backstop fund holds at genesis.
    pub backstop_fund_atoms: i128,
}

/// A tier of a margin schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Notional up to which it reaches.
    pub up_to_notional_atoms: i128,
    /// Initial margin.
    pub initial_ppm: u32,
    /// Maintenance margin.
    pub maintenance_ppm: u32,
}

/// An account at genesis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Id.
    pub account: u64,
    /// Cross collateral.
    pub collateral_atoms: i128,
    /// Positions by market.
    pub positions: Vec<Position>,
}

/// A position at genesis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Market.
    pub market: u16,
    /// Size; negative is short.
    pub lots: i64,
    /// What it was bought for; negative for a short.
    pub cost_atoms: i128,
    /// Its own margin, if it is isolated.
    pub isolated_atoms: Option<i128>,
}

/// A price from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PricePoint {
    /// Since when.
    pub at_ms: u64,
    /// Market.
    pub market: u16,
    /// Price. None if there is none.
    pub ticks: Option<u64>,
}

/// A mark from a block on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkPoint {
    /// Since when it was final at f+1 honest validators.
    pub at_ms: u64,
    /// The block.
    pub height: u64,
    /// Market.
    pub market: u16,
    /// Last corroborated price.
    pub ticks: u64,
    /// `fresh`, `stale`, `disputed`, `reopening`, `quarantined`.
    pub state: String,
}

/// A final block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Height.
    pub height: u64,
    /// View.
    pub view: u64,
    /// Who led.
    pub leader: usize,
    /// Instant of its chain time, ms since the storm began.
    pub time_ms: u64,
    /// When the leader began to build it, if it lived to tell.
    pub begun_ms: Option<u64>,
    /// When the median validator of those that saw it had its finality certificate.
    pub final_ms: u64,
    /// Weight of its actions.
    pub weight: u32,
    /// Weight that it could have taken.
    pub capacity: u32,
    /// Encoded size.
    pub bytes: u32,
    /// Rescues that it had to carry.
    pub owed: u32,
    /// Rescues.
    pub rescues: u32,
    /// Trades.
    pub trades: u32,
    /// Actions of either lane that it refused.
    pub refused: u32,
    /// Steps of liquidations.
    pub liquidations: u32,
    /// Observations that it carries.
    pub observations: u32,
}

/// Both lanes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lanes {
    /// Rescues.
    pub rescue: Lane,
    /// Trades.
    pub trade: Lane,
}

/// A lane over a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lane {
    /// Length of an entry of `offered`, ms.
    pub bucket_ms: u64,
    /// What users sent and what became of it, by the instant at which it was sent.
    pub offered: Vec<Offered>,
    /// Actions sent.
    pub sent: u64,
    /// Of these, taken by the validator that they were sent to.
    pub admitted: u64,
    /// Refused by it at once, by reason.
    pub refused: BTreeMap<String, u64>,
    /// In a final block, executed.
    pub executed: u64,
    /// In a final block, refused there.
    pub answered: u64,
    /// Admitted, and in no final block when the storm ended although it was sent early enough to be.
    pub missing: u64,
    /// From sending to finality at the median validator.
    pub latency: Latency,
    /// From sending to a listing by f+1 honest members in final blocks. Empty for trades.
    pub listing: Latency,
    /// From that listing to finality. Empty for trades.
    pub inclusion: Latency,
    /// Actions one by one: every rescue, a sample of trades.
    pub traces: Vec<Trace>,
}

/// A bucket of a lane's offered load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offered {
    /// Begin of the bucket.
    pub at_ms: u64,
    /// Actions sent in it.
    pub sent: u64,
    /// Of these taken at once by the validator that they were sent to.
    pub admitted: u64,
    /// Of these in a final block by the end of the storm.
    pub included: u64,
    /// Actions in blocks that became final in this bucket, whenever they were sent.
    pub finalized: u64,
}

/// How long something took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Mean, ms.
    pub mean_ms: f64,
    /// Half of them at most.
    pub p50_ms: f64,
    /// 90 of 100.
    pub p90_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// All.
    pub max_ms: f64,
    /// (at most so many ms, how many above the previous bucket's end), ascending, empty ones left out.
    pub buckets: Vec<(f64, u64)>,
}

/// An action on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Who signed it.
    pub account: u64,
    /// Its nonce.
    pub nonce: u64,
    /// `deposit`, `top_up`, `cancel_all`, `withdraw`, …
    pub kind: String,
    /// For a deposit or top-up, whom and how much it helps.
    pub helps: Option<(u64, i128)>,
    /// The validator that it was sent to.
    pub to: usize,
    /// When.
    pub sent_ms: u64,
    /// Whether that validator took it, and why not.
    pub refused: Option<String>,
    /// When f+1 honest members held it.
    pub held_ms: Option<u64>,
    /// First height at whose end f+1 honest members had listed it in final blocks, or said so to a leader.
    pub listed_height: Option<u64>,
    /// When that was.
    pub listed_ms: Option<u64>,
    /// The block that has it.
    pub height: Option<u64>,
    /// When that block was final at the median validator.
    pub final_ms: Option<u64>,
    /// Whether the block refused it, and why.
    pub answer: Option<String>,
    /// Blocks that left it out between listing and inclusion, those in flight at its listing not counted.
    pub missed_blocks: Option<u64>,
}

/// What waits at an instant: the median over running validators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backlog {
    /// When.
    pub at_ms: u64,
    /// Rescues that wait for a signature check.
    pub ingress_rescues: u64,
    /// Trades that wait for one.
    pub ingress_trades: u64,
    /// Rescues that wait for a block.
    pub pooled_rescues: u64,
    /// Trades that wait for one.
    pub pooled_trades: u64,
    /// Last final height.
    pub height: u64,
    /// Validators that run.
    pub running: u32,
}

/// A fault of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// `crash`, `partition`, `loss`, … by the names of the scenario.
    pub kind: String,
    /// Whom it befell.
    pub validators: Vec<usize>,
    /// In words.
    pub what: String,
    /// Begin.
    pub from_ms: u64,
    /// End; the end of the storm if it has none.
    pub until_ms: u64,
    /// How often it did something: messages dropped, blocks withheld, prices changed, validators stopped. A fault that
    /// never did is no evidence of anything.
    pub fired: u64,
}

/// A recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heal {
    /// What ended.
    pub what: String,
    /// When.
    pub at_ms: u64,
    /// Until a block was final at a quorum that was built after it. Nothing if none ever was.
    pub finality_after_ms: Option<u64>,
    /// Whether the fault stopped finality at all.
    pub was_halted: bool,
}

/// An account that liquidation took hold of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liquidation {
    /// Whose.
    pub account: u64,
    /// Height at which it fell below maintenance.
    pub breached_height: u64,
    /// Height of the first step.
    pub height: u64,
    /// When that block was final.
    pub at_ms: u64,
}

/// Sums over a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Final blocks.
    pub blocks: u64,
    /// Views that led to none, as far as the last final one.
    pub lost_views: u64,
    /// Time between final blocks, median, ms.
    pub block_interval_p50_ms: u64,
    /// The longest time between two final blocks.
    pub longest_gap_ms: u64,
    /// From a leader's beginning to finality at the median validator.
    pub finality_p50_ms: u64,
    /// The same for 99 of 100 blocks.
    pub finality_p99_ms: u64,
    /// Accounts that liquidation took hold of.
    pub accounts_liquidated: u64,
    /// Steps from breach to first step, at most, in blocks.
    pub liquidation_delay_max_blocks: u64,
    /// Losses beyond collateral.
    pub bad_debt_atoms: i128,
    /// Of that, paid by other positions (auto-deleveraging) or left uncovered.
    pub socialised_atoms: i128,
    /// Penalties that liquidated accounts paid.
    pub penalties_atoms: i128,
}

/// What must be zero, and the first promise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safety {
    /// Heights at which two validators made different blocks final.
    pub forks: u64,
    /// Blocks after which value was not conserved, by a sum over all accounts.
    pub conservation_breaks: u64,
    /// Liquidations at a price that was not fresh.
    pub stale_price_liquidations: u64,
    /// Rescues to which the first promise was held: listed by f+1 honest members.
    pub p1_checked: u64,
    /// Of these, later than promised.
    pub p1_late: u64,
    /// Most blocks that left one of them out beyond those in flight.
    pub p1_worst_missed: u64,
    /// Bugs that validators told of themselves: panics, gaps in what was told to be final.
    pub faults: Vec<String>,
}

/// What queueing theory says of both lanes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// Rescues.
    pub rescue: PredictedLane,
    /// Trades.
    pub trade: PredictedLane,
    /// What went in: time between blocks and its variation, finality, relay, all in words.
    pub assumptions: String,
}

/// What queueing theory says of a lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictedLane {
    /// `steady`, `saturated` or `unbounded`.
    pub regime: String,
    /// Offered by what blocks have room for. None if they have none.
    pub utilisation: Option<f64>,
    /// Mean from sending to finality, where there is one.
    pub mean_ms: Option<f64>,
    /// Half of them at most.
    pub p50_ms: Option<f64>,
    /// 99 of 100.
    pub p99_ms: Option<f64>,
    /// Share that is dropped.
    pub dropped: f64,
    /// Actions that blocks carry a second.
    pub carried_per_second: f64,
}
