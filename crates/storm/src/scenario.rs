//! Scenario files: what a storm is made of, with a bound on everything.
//!
//! ```toml
//! # A header says what really happened, with figures and sources.
//! hypothesis = "…"                 # one sentence that the criteria test
//! duration_ms = 10_000             # traffic and faults
//! drain_ms = 4_000                 # then nobody sends, and what waits is answered
//! warmup_ms = 2_000                # what is sent before does not count in latencies
//! sweep = [0.5, 1, 10, 100]        # one run for each: every flow of trades without a rate of its own has this one
//!
//! [network]
//! regions = [{ name = "us-east-1", validators = 2 }, { name = "sa-east-1" }]
//! jitter_ms = 1.0                  # standard deviation of each one-way time
//! asymmetry = 0.1                  # one direction this share longer, the other shorter
//! loss = 0.001                     # share of messages that never arrive; duplicate and reorder alike
//! bandwidth_mbit = 1_000           # of each validator, each way
//! leader_timeout_ms = 3_000        # the other timeouts of consensus keep their proportion to it
//!
//! [capacity]
//! slowdown = 100.0                 # checks and executions take so many times as long as calibrated
//! block_weight = 40                # most actions of a block
//! cores = 1
//! interval_ms = 0                  # shortest time between blocks
//!
//! [market]
//! replay = "crash-2025-10-10"      # or [market.synthetic]
//! symbols = ["BTC", "ETH"]
//! from = "21:10"
//! to = "21:20"
//! speed = 10                       # replayed ms a virtual ms
//!
//! [market.synthetic]               # symbols = ["BTC"], path = points of (at_ms, ppm of the opening price)
//!
//! [book]
//! accounts = 500                   # drawn by seawall_replay::book
//! traders = 100                    # flat accounts with collateral, who sign trades
//!
//! [[traffic]]
//! lane = "rescue"                  # or "trade"
//! rate = 0.05                      # multiple of the capacity; or per_second; or once_each: every account, once
//! from_ms = 0
//! until_ms = 10_000
//! to = { region = "us-east-1" }    # { all = true }, { validators = [0, 1] }
//!
//! [[fault]]
//! kind = "crash"                   # see [`FaultKind`]
//! at_ms = 3_000
//! until_ms = 6_000
//! who = { validators = [2] }
//!
//! [[byzantine]]
//! kind = "censor"                  # see [`ByzantineKind`]
//! validators = [0]
//! accounts = [7]
//!
//! [criteria]                       # see [`Criteria`]; forks, conservation, stale prices and P1 are always held
//! rescue_p99_ms = 900
//! ```
//!
//! Unknown fields are refused. An error names file, line and field.

use crate::topology::{TEN, Topology};
use serde::{Deserialize, Deserializer, de};
use std::{collections::BTreeMap, fmt, ops::Range};
use thiserror::Error;

/// Longest storm, virtual.
pub const MAX_DURATION_MS: u64 = 24 * 3_600_000;
/// Most validators.
pub const MAX_VALIDATORS: usize = 40;
/// Most accounts with positions, and most traders.
pub const MAX_ACCOUNTS: usize = 100_000;
/// Most entries of each list.
pub const MAX_ENTRIES: usize = 256;
/// Most points of a sweep.
pub const MAX_SWEEP: usize = 16;
/// Most multiples of capacity that a flow offers.
pub const MAX_MULTIPLE: f64 = 1_000.0;
/// Most actions that a run offers, expected: more is refused before it begins.
pub const MAX_OFFERED: f64 = 20e6;
/// Largest file.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A scenario is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}: {what}")]
pub struct ScenarioError {
    /// File or embedded name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with which field.
    pub what: String,
}

/// A share, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Share(pub f64);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Number::deserialize(deserializer)?.0;
        if (0.0..=1.0).contains(&value) {
            return Ok(Self(value));
        }
        Err(de::Error::custom(format!("a share is between 0 and 1, not {value}")))
    }
}

/// A number that is written with or without a point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
                if value.is_finite() {
                    return Ok(Number(value));
                }
                Err(E::custom("a number must be finite"))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Number::deserialize(deserializer).map(|number| number.0)
}

fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    Ok(Vec::<Number>::deserialize(deserializer)?.into_iter().map(|number| number.0).collect())
}

fn maybe_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    number(deserializer).map(Some)
}

/// A parsed and checked scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Name: the file's, without directory and ending.
    pub name: String,
    /// The file.
    pub text: String,
    /// What it says.
    pub plan: Plan,
}

/// What a scenario file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What is claimed.
    pub hypothesis: String,
    /// Length of traffic and faults.
    pub duration_ms: u64,
    /// Time after it in which nothing is sent.
    #[serde(default)]
    pub drain_ms: u64,
    /// Time at the start whose latencies do not count.
    #[serde(default)]
    pub warmup_ms: u64,
    /// Multiples of capacity at which trades are offered, one run each.
    #[serde(default, deserialize_with = "numbers")]
    pub sweep: Vec<f64>,
    /// Where validators are.
    pub network: NetworkPlan,
    /// What they can do.
    pub capacity: CapacityPlan,
    /// What prices do.
    pub market: MarketPlan,
    /// Who holds what.
    pub book: BookPlan,
    /// What users send.
    #[serde(default)]
    pub traffic: Vec<TrafficPlan>,
    /// What breaks.
    #[serde(default)]
    pub fault: Vec<FaultPlan>,
    /// Who lies.
    #[serde(default)]
    pub byzantine: Vec<ByzantinePlan>,
    /// What must hold.
    pub criteria: Criteria,
}

/// The network.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPlan {
    /// Regions of `data/network/aws-rtt.csv`, in the order in which validators are placed.
    pub regions: Vec<RegionPlan>,
    /// Standard deviation of a link's one-way time.
    #[serde(default, deserialize_with = "number")]
    pub jitter_ms: f64,
    /// How much longer, by share, the way from a lower to a higher place is; the way back is as much shorter.
    #[serde(default)]
    pub asymmetry: Share,
    /// Messages that do not arrive.
    #[serde(default)]
    pub loss: Share,
    /// Messages that arrive twice.
    #[serde(default)]
    pub duplicate: Share,
    /// Messages that are overtaken by later ones.
    #[serde(default)]
    pub reorder: Share,
    /// Of each validator, each way; not limited if left out.
    #[serde(default)]
    pub bandwidth_mbit: Option<u32>,
    /// How long a leader has to propose. Certification has twice as long, a retry comes after a sixth, a request to a peer is
    /// given up after a third: as in production, where it is [`PRODUCTION_LEADER_MS`].
    #[serde(default = "production_leader")]
    pub leader_timeout_ms: u64,
}

/// What a leader has in production.
pub const PRODUCTION_LEADER_MS: u64 = 3_000;

const fn production_leader() -> u64 {
    PRODUCTION_LEADER_MS
}

/// Validators of a region.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionPlan {
    /// Name in the table of round trips.
    pub name: String,
    /// How many; one if left out.
    #[serde(default = "one")]
    pub validators: usize,
}

const fn one() -> usize {
    1
}

const fn one_core() -> u32 {
    1
}

/// What validators can do.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityPlan {
    /// Signature checks and executions take so many times as long as calibrated. Votes, certificates and disk do not: they
    /// do not depend on load.
    #[serde(deserialize_with = "number")]
    pub slowdown: f64,
    /// Most actions of a block, by weight.
    pub block_weight: u32,
    /// Cores that check signatures.
    #[serde(default = "one_core")]
    pub cores: u32,
    /// Shortest time between blocks.
    #[serde(default)]
    pub interval_ms: u64,
}

/// Prices.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarketPlan {
    /// Name of a shipped replay.
    #[serde(default)]
    pub replay: Option<String>,
    /// Its markets that trade here; all if left out.
    #[serde(default)]
    pub symbols: Vec<String>,
    /// Time of day (UTC) at which it begins.
    #[serde(default)]
    pub from: Option<String>,
    /// Time of day at which it ends.
    #[serde(default)]
    pub to: Option<String>,
    /// Chain time a virtual time.
    #[serde(default = "one_core")]
    pub speed: u32,
    /// A stated shape instead of a replay.
    #[serde(default)]
    pub synthetic: Option<SyntheticPlan>,
}

/// A price path of a stated shape, the same in all its markets: it runs in straight lines between points.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyntheticPlan {
    /// Markets, all with this path.
    pub symbols: Vec<String>,
    /// Points by ascending time.
    pub path: Vec<PathPoint>,
    /// Uniform noise on top, in parts per million, new each 250 ms of virtual time.
    #[serde(default)]
    pub noise_ppm: u32,
}

/// A point of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathPoint {
    /// When, in virtual time.
    pub at_ms: u64,
    /// Price, in parts per million of the opening price.
    pub ppm: u64,
}

/// Accounts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookPlan {
    /// Accounts with positions.
    pub accounts: usize,
    /// Flat accounts with collateral that sign trades.
    pub traders: usize,
    /// Leverage that accounts choose, with the weight of each; that of [`seawall_replay::book`] if left out.
    #[serde(default)]
    pub leverage: Vec<(u32, u32)>,
    /// Share of accounts that are long; that of [`seawall_replay::book`] if left out.
    #[serde(default)]
    pub long: Option<Share>,
}

/// A lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneName {
    /// What lowers risk.
    Rescue,
    /// Everything else.
    Trade,
}

/// What users send. Open loop: instants are drawn beforehand, and nobody waits for an answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficPlan {
    /// Lane.
    pub lane: LaneName,
    /// Multiple of the capacity. A flow of trades without any rate takes the sweep's.
    #[serde(default, deserialize_with = "maybe_number")]
    pub rate: Option<f64>,
    /// Actions a second instead.
    #[serde(default, deserialize_with = "maybe_number")]
    pub per_second: Option<f64>,
    /// Instead of a rate: every account with positions sends one, at instants that are spread evenly over the flow's time
    /// at random.
    #[serde(default)]
    pub once_each: bool,
    /// Begin.
    #[serde(default)]
    pub from_ms: u64,
    /// End; the storm's if left out.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// To whom; to all if left out, each user to one.
    #[serde(default)]
    pub to: Who,
    /// Kinds of actions; those of [`crate::traffic`] for the lane if left out.
    #[serde(default)]
    pub kinds: Vec<ActionName>,
    /// Only these accounts sign; all of the lane's if left out.
    #[serde(default)]
    pub accounts: Vec<u64>,
}

/// Actions that users of the lab send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionName {
    /// The issuer credits the account: value from outside.
    Deposit,
    /// Free collateral into an isolated position; a transfer of the least amount to the next account if it has none.
    TopUp,
    /// All orders end.
    CancelAll,
    /// A dead man's switch is set.
    ScheduleCancel,
    /// An immediate order near the mark.
    Order,
    /// A withdrawal of the least amount.
    Withdraw,
}

impl ActionName {
    /// The lane of the kind.
    pub const fn lane(self) -> LaneName {
        match self {
            Self::Deposit | Self::TopUp | Self::CancelAll | Self::ScheduleCancel => LaneName::Rescue,
            Self::Order | Self::Withdraw => LaneName::Trade,
        }
    }
}

/// Some of the validators. Nothing said is everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// By place.
    #[serde(default)]
    pub validators: Vec<usize>,
    /// All of a region.
    #[serde(default)]
    pub region: Option<String>,
}

/// What breaks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// What.
    pub kind: FaultKind,
    /// When it begins.
    #[serde(default)]
    pub at_ms: u64,
    /// When it ends; never if left out.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// Whom it befalls: the senders of messages, the owners of feeds.
    #[serde(default)]
    pub who: Who,
    /// Of link faults: towards whom.
    #[serde(default)]
    pub towards: Who,
    /// Share of messages: of `loss`, `duplicate`, `reorder`, `hunt_leader`; everything if left out.
    #[serde(default)]
    pub share: Option<Share>,
    /// Added time: of `delay`, of the jumps of `reorder`, of `clock_skew` (may be negative).
    #[serde(default)]
    pub delay_ms: i64,
    /// Standard deviation of the added time of `delay`.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Of `feed_skew`: parts per million on top of true prices, may be negative.
    #[serde(default)]
    pub skew_ppm: i64,
    /// Of `hunt_leader`: how many leaders, from the next one on, are hit at a time.
    #[serde(default = "two")]
    pub leaders: u64,
}

const fn two() -> u64 {
    2
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The process is killed; at the end of the fault it starts again on what it had on disk.
    Crash,
    /// No message passes between `who` and everybody else, or `towards` if that is given; both ways.
    Partition,
    /// A share of the messages from `who` to `towards` gets lost.
    Loss,
    /// Messages from `who` to `towards` take longer, and stay in their order.
    Delay,
    /// A share arrives twice.
    Duplicate,
    /// A share arrives `delay_ms` later than what was sent after it.
    Reorder,
    /// A share of everything that the leaders of the coming views send and get is lost, whoever they are.
    HuntLeader,
    /// Price sources are gone.
    FeedDeath,
    /// Price sources repeat their last values with their last time stamps.
    FeedFreeze,
    /// Price sources are wrong by `skew_ppm`.
    FeedSkew,
    /// The clock is wrong by `delay_ms`, through the whole storm.
    ClockSkew,
}

impl FaultKind {
    /// The name in scenarios and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Partition => "partition",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::HuntLeader => "hunt_leader",
            Self::FeedDeath => "feed_death",
            Self::FeedFreeze => "feed_freeze",
            Self::FeedSkew => "feed_skew",
            Self::ClockSkew => "clock_skew",
        }
    }
}

/// Who breaks the protocol, and how. At most f validators in all.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByzantinePlan {
    /// How.
    pub kind: ByzantineKind,
    /// Who.
    pub validators: Vec<usize>,
    /// Of `censor`: whom.
    #[serde(default)]
    pub accounts: Vec<u64>,
    /// Of `censor`: everybody whose rescues reach the chain through this region.
    #[serde(default)]
    pub region: Option<String>,
    /// Of `lie_price`: parts per million of the true price.
    #[serde(default)]
    pub ppm: u64,
    /// Of `lie_time`: by how much its clock is off.
    #[serde(default)]
    pub clock_ms: i64,
}

/// Ways of breaking the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByzantineKind {
    /// Leads blocks without the actions of some accounts, and without the observations that list them, as far as rules let it.
    Censor,
    /// Sends no observations.
    WithholdObservations,
    /// Sends no blocks.
    NeverPropose,
    /// Lists rescues that nobody has and that no block can carry.
    ListPhantoms,
    /// Reports wrong prices.
    LiePrice,
    /// Reports a wrong time.
    LieTime,
    /// Runs twice under one key: the halves tell different members different things.
    Equivocate,
}

impl ByzantineKind {
    /// The name in scenarios and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Censor => "censor",
            Self::WithholdObservations => "withhold_observations",
            Self::NeverPropose => "never_propose",
            Self::ListPhantoms => "list_phantoms",
            Self::LiePrice => "lie_price",
            Self::LieTime => "lie_time",
            Self::Equivocate => "equivocate",
        }
    }
}

/// What must hold beside what every storm demands (no forks, value conserved, no stale-price liquidation, P1 for every
/// rescue, every fault fired, and finality after each heal). Every figure is over all runs of the sweep unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Criteria {
    /// Rescues, from sending to finality: 99 of 100 within this time, in every run.
    #[serde(deserialize_with = "maybe_number")]
    pub rescue_p99_ms: Option<f64>,
    /// Rescues' p99 at the highest offered load by that at the lowest, at most.
    #[serde(deserialize_with = "maybe_number")]
    pub rescue_p99_growth: Option<f64>,
    /// Admitted rescues that are in no final block, at most.
    pub rescues_missing: Option<u64>,
    /// Trades in final blocks a second at ten times the capacity (or the next point of the sweep above), by the peak of the
    /// sweep, at least.
    #[serde(deserialize_with = "maybe_number")]
    pub goodput_at_ten: Option<f64>,
    /// Executed trades a second by the capacity, at least.
    #[serde(deserialize_with = "maybe_number")]
    pub goodput: Option<f64>,
    /// Finality from the leader's beginning, 99 of 100 blocks, ms.
    #[serde(deserialize_with = "maybe_number")]
    pub finality_p99_ms: Option<f64>,
    /// Until finality is back after each heal, ms. A second if left out.
    #[serde(deserialize_with = "maybe_number")]
    pub recovery_ms: Option<f64>,
    /// The longest time between two final blocks, ms.
    #[serde(deserialize_with = "maybe_number")]
    pub longest_gap_ms: Option<f64>,
    /// Blocks from breach to the first step of liquidation, at most.
    pub liquidation_delay_blocks: Option<u64>,
    /// Accounts liquidated, at least: without them a storm says nothing of liquidation.
    pub liquidated_at_least: Option<u64>,
    /// Losses that other positions had to pay, by all collateral at genesis, at most.
    #[serde(deserialize_with = "maybe_number")]
    pub socialised_share: Option<f64>,
    /// Blocks of other leaders that a censored account's rescue waits, at most: those that leave it out after its sending.
    pub censored_blocks: Option<u64>,
}

impl Scenario {
    /// Parses and checks. `name` is the file's path, or an embedded storm's name.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let error = |line: usize, what: String| ScenarioError {
            file: name.to_owned(),
            line,
            what: what.trim().to_owned(),
        };
        if text.len() > MAX_FILE_BYTES {
            return Err(error(1, format!("a scenario has at most {MAX_FILE_BYTES} bytes")));
        }
        let plan: Plan = toml::from_str(text).map_err(|parse| {
            let at = parse.span().map_or(0, |span: Range<usize>| span.start);
            error(text[..at.min(text.len())].matches('\n').count() + 1, parse.message().to_owned())
        })?;
        plan.check().map_err(|(section, index, what)| error(line_of(text, section, index), what))?;
        let stem = name.rsplit('/').next().unwrap_or(name);
        Ok(Self { name: stem.strip_suffix(".toml").unwrap_or(stem).to_owned(), text: text.to_owned(), plan })
    }

    /// What the header comment says.
    pub fn header(&self) -> String {
        let lines = self.text.lines().take_while(|line| line.starts_with('#'));
        lines.map(|line| line.trim_start_matches('#').trim()).collect::<Vec<_>>().join("\n")
    }
}

/// The line of the `index`-th table of this name; the first line if there is none.
fn line_of(text: &str, section: &str, index: usize) -> usize {
    let heads = [format!("[[{section}]]"), format!("[{section}]"), format!("{section} ")];
    let mut lines =
        (1..).zip(text.lines()).filter(|(_, line)| heads.iter().any(|head| line.trim().starts_with(head)));
    lines.nth(index).map_or(1, |(line, _)| line)
}

type Flaw = (&'static str, usize, String);

fn within<T: PartialOrd + fmt::Display>(
    section: &'static str,
    index: usize,
    field: &str,
    value: T,
    (least, most): (T, T),
) -> Result<(), Flaw> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err((section, index, format!("{field} is {value}; it must be between {least} and {most}")))
}

impl Plan {
    /// Virtual time of a run.
    pub const fn length_ms(&self) -> u64 {
        self.duration_ms + self.drain_ms
    }

    /// How many validators there are.
    pub fn validators(&self) -> usize {
        self.network.regions.iter().map(|region| region.validators).sum()
    }

    /// The region of each validator, by its place in the committee.
    pub fn places(&self) -> Vec<&str> {
        let regions = self.network.regions.iter();
        regions.flat_map(|region| std::iter::repeat_n(region.name.as_str(), region.validators)).collect()
    }

    /// The validators that `who` names.
    pub fn who(&self, who: &Who) -> Vec<usize> {
        let all = 0..self.validators();
        match &who.region {
            Some(region) => {
                let places = self.places();
                all.filter(|place| places[*place] == region).collect()
            }
            None if who.validators.is_empty() => all.collect(),
            None => who.validators.clone(),
        }
    }

    /// What each validator does that the protocol forbids.
    pub fn byzantine_of(&self) -> BTreeMap<usize, Vec<&ByzantinePlan>> {
        let mut all: BTreeMap<usize, Vec<&ByzantinePlan>> = BTreeMap::new();
        for plan in &self.byzantine {
            for place in &plan.validators {
                all.entry(*place).or_default().push(plan);
            }
        }
        all
    }

    /// When a flow ends.
    pub fn end_of(&self, flow: &TrafficPlan) -> u64 {
        flow.until_ms.unwrap_or(self.duration_ms).min(self.duration_ms)
    }

    fn check(&self) -> Result<(), Flaw> {
        let top = |field, value, bounds| within(field, 0, field, value, bounds);
        if self.hypothesis.trim().is_empty() {
            return Err(("hypothesis", 0, "hypothesis says what is claimed, in a sentence".into()));
        }
        top("duration_ms", self.duration_ms, (1_000, MAX_DURATION_MS))?;
        top("drain_ms", self.drain_ms, (0, MAX_DURATION_MS))?;
        top("warmup_ms", self.warmup_ms, (0, self.duration_ms))?;
        top("sweep", self.sweep.len() as u64, (0, MAX_SWEEP as u64))?;
        for point in &self.sweep {
            within("sweep", 0, "a point of sweep", *point, (0.0, MAX_MULTIPLE))?;
        }
        if self.sweep.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(("sweep", 0, "the points of sweep must ascend".into()));
        }
        self.check_network()?;
        let capacity = |field, value, bounds| within("capacity", 0, field, value, bounds);
        capacity("slowdown", self.capacity.slowdown, (1.0, 10_000.0))?;
        capacity("block_weight", f64::from(self.capacity.block_weight), (1.0, 16_384.0))?;
        capacity("cores", f64::from(self.capacity.cores), (1.0, 256.0))?;
        capacity("interval_ms", self.capacity.interval_ms as f64, (0.0, 60_000.0))?;
        self.check_market()?;
        let book = |field, value, bounds| within("book", 0, field, value, bounds);
        book("accounts", self.book.accounts as u64, (10, MAX_ACCOUNTS as u64))?;
        book("traders", self.book.traders as u64, (1, MAX_ACCOUNTS as u64))?;
        for (index, flow) in self.traffic.iter().enumerate() {
            self.check_flow(index, flow)?;
        }
        for (index, fault) in self.fault.iter().enumerate() {
            self.check_fault(index, fault)?;
        }
        self.check_byzantine()
    }

    fn check_who(&self, section: &'static str, index: usize, who: &Who) -> Result<(), Flaw> {
        let count = self.validators();
        if let Some(place) = who.validators.iter().find(|place| **place >= count) {
            return Err((
                section,
                index,
                format!("there is no validator {place}; there are {count}, from 0"),
            ));
        }
        if who.region.is_some() && !who.validators.is_empty() {
            return Err((section, index, "name validators or a region, not both".into()));
        }
        match &who.region {
            Some(region) if !self.places().contains(&region.as_str()) => {
                Err((section, index, format!("no validator is in region {region}")))
            }
            _ => Ok(()),
        }
    }

    fn check_network(&self) -> Result<(), Flaw> {
        within("network", 0, "the number of regions", self.network.regions.len(), (1, MAX_ENTRIES))?;
        within("network", 0, "the number of validators", self.validators(), (1, MAX_VALIDATORS))?;
        within("network", 0, "jitter_ms", self.network.jitter_ms, (0.0, 1_000.0))?;
        within("network", 0, "asymmetry", self.network.asymmetry.0, (0.0, 0.9))?;
        within("network", 0, "leader_timeout_ms", self.network.leader_timeout_ms, (100, 60_000))?;
        within("network", 0, "bandwidth_mbit", self.network.bandwidth_mbit.unwrap_or(1), (1, 1_000_000))?;
        for region in &self.network.regions {
            // The way from a place to itself is in no table, so each is asked for beside another one.
            let other = if region.name == TEN[0] { TEN[1] } else { TEN[0] };
            if let Err(error) = Topology::aws(&[&region.name, other]) {
                let known = TEN.join(", ");
                let what = format!("{error}; known are {known} and the others of data/network/aws-rtt.csv");
                return Err(("network", 0, what));
            }
        }
        Topology::aws(&self.places()).map(|_| ()).map_err(|error| ("network", 0, error.to_string()))
    }

    fn check_market(&self) -> Result<(), Flaw> {
        let flaw = |what: &str| Err(("market", 0, what.to_owned()));
        within("market", 0, "speed", self.market.speed, (1, 10_000))?;
        match (&self.market.replay, &self.market.synthetic) {
            (Some(_), Some(_)) | (None, None) => flaw("name a replay, or give [market.synthetic]; not both"),
            (Some(name), None) => {
                if !seawall_replay::catalog().iter().any(|known| known.name == name) {
                    let known: Vec<&str> = seawall_replay::catalog().iter().map(|known| known.name).collect();
                    return flaw(&format!("there is no replay {name}; there are {}", known.join(", ")));
                }
                Ok(())
            }
            (None, Some(synthetic)) => {
                within("market", 0, "the number of symbols", synthetic.symbols.len(), (1, 32))?;
                within("market", 0, "the number of points", synthetic.path.len(), (1, MAX_ENTRIES))?;
                within("market", 0, "noise_ppm", synthetic.noise_ppm, (0, 100_000))?;
                for point in &synthetic.path {
                    within("market", 0, "ppm", point.ppm, (10_000, 10_000_000))?;
                }
                if synthetic.path.windows(2).any(|pair| pair[0].at_ms >= pair[1].at_ms) {
                    return flaw("the points of path must ascend in time");
                }
                Ok(())
            }
        }
    }

    fn check_flow(&self, index: usize, flow: &TrafficPlan) -> Result<(), Flaw> {
        let flaw = |what: String| Err(("traffic", index, what));
        self.check_who("traffic", index, &flow.to)?;
        within("traffic", index, "rate", flow.rate.unwrap_or(0.0), (0.0, MAX_MULTIPLE))?;
        within("traffic", index, "per_second", flow.per_second.unwrap_or(0.0), (0.0, 1e6))?;
        within("traffic", index, "from_ms", flow.from_ms, (0, self.duration_ms))?;
        within("traffic", index, "until_ms", self.end_of(flow), (flow.from_ms, self.duration_ms))?;
        let said = usize::from(flow.rate.is_some())
            + usize::from(flow.per_second.is_some())
            + usize::from(flow.once_each);
        let swept = flow.lane == LaneName::Trade && !self.sweep.is_empty();
        if said > 1 || (said == 0 && !swept) {
            return flaw(
                "give one of rate, per_second and once_each; a flow of trades may take the sweep's".into(),
            );
        }
        if let Some(kind) = flow.kinds.iter().find(|kind| kind.lane() != flow.lane) {
            return flaw(format!("{kind:?} is no action of the lane {:?}", flow.lane));
        }
        let accounts = self.accounts();
        if let Some(account) = flow.accounts.iter().find(|account| **account == 0 || **account >= accounts) {
            return flaw(format!("accounts are 1 to {}, not {account}", accounts - 1));
        }
        Ok(())
    }

    /// Accounts at genesis, the issuer included.
    pub const fn accounts(&self) -> u64 {
        (1 + self.book.accounts + self.book.traders) as u64
    }

    fn check_fault(&self, index: usize, fault: &FaultPlan) -> Result<(), Flaw> {
        let flaw = |what: &str| Err(("fault", index, what.to_owned()));
        self.check_who("fault", index, &fault.who)?;
        self.check_who("fault", index, &fault.towards)?;
        within("fault", index, "at_ms", fault.at_ms, (0, self.duration_ms))?;
        if fault.until_ms.is_some_and(|until| until <= fault.at_ms || until > self.length_ms()) {
            return flaw("until_ms must be after at_ms and within the storm");
        }
        within("fault", index, "delay_ms", fault.delay_ms, (-86_400_000, 86_400_000))?;
        within("fault", index, "jitter_ms", fault.jitter_ms, (0, 60_000))?;
        within("fault", index, "skew_ppm", fault.skew_ppm, (-900_000, 10_000_000))?;
        within("fault", index, "leaders", fault.leaders, (1, 16))?;
        match fault.kind {
            FaultKind::ClockSkew if fault.at_ms != 0 || fault.until_ms.is_some() => {
                flaw("a clock is skewed through the whole storm: leave at_ms and until_ms out")
            }
            FaultKind::Delay | FaultKind::Reorder if fault.delay_ms <= 0 => flaw("delay_ms must be positive"),
            FaultKind::FeedSkew if fault.skew_ppm == 0 => flaw("skew_ppm must not be zero"),
            FaultKind::Partition
                if fault.towards == Who::default() && self.who(&fault.who).len() == self.validators() =>
            {
                flaw("a partition needs two sides: say who")
            }
            _ => Ok(()),
        }
    }

    fn check_byzantine(&self) -> Result<(), Flaw> {
        let count = self.validators();
        let faults = count.saturating_sub(1) / 3;
        for (index, plan) in self.byzantine.iter().enumerate() {
            let flaw = |what: String| Err(("byzantine", index, what));
            self.check_who("byzantine", index, &Who { validators: plan.validators.clone(), region: None })?;
            match plan.kind {
                ByzantineKind::Censor if plan.accounts.is_empty() && plan.region.is_none() => {
                    return flaw("censor needs accounts or a region".into());
                }
                ByzantineKind::LiePrice if !(1..=100_000_000).contains(&plan.ppm) => {
                    return flaw("lie_price needs ppm between 1 and 100000000".into());
                }
                _ => {}
            }
        }
        let liars = self.byzantine_of().len();
        if liars > faults {
            return Err((
                "byzantine",
                0,
                format!("{liars} of {count} validators are Byzantine, at most {faults} may be"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
hypothesis = "nothing breaks"
duration_ms = 5_000

[network]
regions = [{ name = "us-east-1", validators = 4 }]

[capacity]
slowdown = 1
block_weight = 100

[market.synthetic]
symbols = ["BTC"]
path = [{ at_ms = 0, ppm = 1_000_000 }]

[book]
accounts = 20
traders = 5

[[traffic]]
lane = "rescue"
rate = 0.5

[criteria]
rescue_p99_ms = 100
"#;

    fn refused(from: &str, to: &str) -> ScenarioError {
        assert!(GOOD.contains(from), "{from}");
        Scenario::parse("storms/a.toml", &GOOD.replace(from, to)).unwrap_err()
    }

    #[test]
    fn a_scenario_reads_and_is_named_after_its_file() {
        let scenario = Scenario::parse("storms/a.toml", GOOD).unwrap();
        assert_eq!(scenario.name, "a");
        assert_eq!(scenario.plan.validators(), 4);
        assert_eq!(scenario.plan.criteria.rescue_p99_ms, Some(100.0));
    }

    #[test]
    fn an_error_names_file_line_and_field() {
        for (from, to, line, says) in [
            ("rate = 0.5", "rates = 0.5", 22, "rates"),
            ("rate = 0.5", "rate = 5000", 20, "rate is 5000"),
            ("slowdown = 1", "slowdown = 0", 8, "slowdown"),
            ("us-east-1", "the-moon-1", 5, "the-moon-1"),
            ("accounts = 20", "accounts = 2", 16, "accounts"),
            ("lane = \"rescue\"", "lane = \"vip\"", 21, "vip"),
            ("path = [{ at_ms = 0, ppm = 1_000_000 }]", "path = []", 0, "points"),
            ("duration_ms = 5_000", "duration_ms = -1", 3, "-1"),
            ("rate = 0.5", "to = { validators = [4] }\nrate = 1", 20, "no validator 4"),
            ("rate = 0.5", "kinds = [\"order\"]\nrate = 1", 20, "Order"),
        ] {
            let error = refused(from, to);
            assert_eq!(error.file, "storms/a.toml");
            assert!(line == 0 || error.line == line, "{to}: {error}");
            assert!(error.what.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn more_than_f_byzantine_validators_are_refused() {
        let bad = format!("{GOOD}\n[[byzantine]]\nkind = \"never_propose\"\nvalidators = [0, 1]\n");
        let error = Scenario::parse("b", &bad).unwrap_err();
        assert!(error.what.contains("at most 1"), "{error}");
    }
}
