//! What the queueing model predicts for a chain and a load, for people and for programs.
//!
//! The formulas are those of [`seawall_queueing`]; here are the numbers that go in and how the answer is shown. A block
//! takes as many actions as the protocol allows, or as one core can check and execute between two blocks by the
//! costs of `storms/calibration.toml`, whichever is less.
//!
//! A position of leverage `L` is `1 / L` of its price away from bankruptcy. From that distance and the volatility follows
//! how long an action may take.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use seawall_chain::{
    genesis::Genesis,
    mempool::{MAX_POOLED_RESCUES, MAX_POOLED_TRADES},
};
use seawall_queueing::{
    curves::Bucket,
    kingman::Law,
    lanes::{Block, Sharing},
    model::{Chain, Delay, Flow, Lane, Mix, Model, Prediction, Risk},
    risk::{Deadline, Exposure},
    units::{Bps, Invalid, Ms, PerSecond, Probability},
};
use seawall_types::limits::{MAX_ACTIONS_PER_BLOCK, MAX_OWED_PER_BLOCK, MAX_VALIDATORS};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::OnceLock};
use thiserror::Error;

/// Blocks that may leave without a rescue that waits: with pipelined proposals two are under way already.
pub const MISSED_BLOCKS: u32 = 2;
/// Most cores that check signatures.
pub const MAX_CORES: u32 = 1_024;
/// Largest leverage that is asked about.
pub const MAX_LEVERAGE: f64 = 10_000.0;

/// Of the committed calibration, what the model needs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Costs {
    /// Checking a signature in a batch, in microseconds of a core.
    pub verify_us: f64,
    /// Executing an action and its share of the state root, in microseconds of a core.
    pub action_us: f64,
}

impl Costs {
    /// The committed ones.
    ///
    /// # Panics
    /// If the file that this program was built with is no calibration; a test reads it.
    pub fn committed() -> Self {
        static COSTS: OnceLock<Costs> = OnceLock::new();
        *COSTS.get_or_init(|| {
            toml::from_str(include_str!("../../../storms/calibration.toml"))
                .expect("storms/calibration.toml holds verify_us and action_us")
        })
    }

    /// Actions that one core checks and executes in so many milliseconds, rounded down: at least one, and at most what the
    /// protocol lets a block carry.
    pub fn places(&self, interval_ms: f64) -> u32 {
        let most = u32::try_from(MAX_ACTIONS_PER_BLOCK).unwrap_or(u32::MAX);
        // The cast saturates, and makes zero of NaN.
        ((interval_ms * 1e3 / (self.verify_us + self.action_us)) as u32).clamp(1, most)
    }
}

/// Rescues that a block of so many places takes at most.
pub fn reserve(places: u32) -> u32 {
    places.min(u32::try_from(MAX_OWED_PER_BLOCK).unwrap_or(u32::MAX))
}

/// The pools of a validator: rescues, trades.
pub fn pools() -> (u32, u32) {
    let places = |most: usize| u32::try_from(most).unwrap_or(u32::MAX);
    (places(MAX_POOLED_RESCUES), places(MAX_POOLED_TRADES))
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spec {
    /// Members of the committee. Each sends an observation a block, which is checked before all else.
    pub validators: u32,
    /// Mean time between blocks.
    pub interval_ms: f64,
    /// Squared coefficient of variation of that time.
    pub interval_scv: f64,
    /// Actions that a block takes; what the calibration gives if not set.
    pub places: Option<u32>,
    /// Cores that check signatures.
    pub cores: u32,
    /// From a checked action to the pools of the next leaders.
    pub relay_ms: f64,
    /// From a block that leaves to its finality.
    pub finality_ms: f64,
    /// Rescues a second.
    pub rescue_per_s: f64,
    /// Trades a second.
    pub trade_per_s: f64,
    /// Rescues that admission lets through at once, and a second after that; without it there is no worst case.
    pub rescue_bucket: Option<(f64, f64)>,
    /// The same for trades.
    pub trade_bucket: Option<(f64, f64)>,
    /// Volatility of a year, in percent of the price.
    pub volatility_percent: f64,
    /// Notional by equity of the position that waits.
    pub leverage: f64,
    /// How likely it may be that it goes bankrupt meanwhile.
    pub target: f64,
}

impl Default for Spec {
    /// Four regions of a cloud: three hops of about 52 ms to a quorum, and a little more.
    fn default() -> Self {
        Self {
            validators: 4,
            interval_ms: 100.0,
            interval_scv: 0.0,
            places: None,
            cores: 1,
            relay_ms: 52.0,
            finality_ms: 173.0,
            rescue_per_s: 100.0,
            trade_per_s: 10_000.0,
            rescue_bucket: None,
            trade_bucket: None,
            volatility_percent: 100.0,
            leverage: 20.0,
            target: 1e-6,
        }
    }
}

/// Why there is no prediction. Load beyond what is served is not among it: that is an answer.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum SpecError {
    /// No committee has so many members.
    #[error("validators: {0} is not from 1 to {most}", most = MAX_VALIDATORS)]
    Validators(u32),
    /// No cores, or too many.
    #[error("cores: {0} is not from 1 to {most}", most = MAX_CORES)]
    Cores(u32),
    /// No leverage.
    #[error("leverage: {0} is not from 1 to {most}", most = MAX_LEVERAGE)]
    Leverage(f64),
    /// A number that the model does not take.
    #[error("{name}: {error}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What is wrong with it.
        error: Invalid,
    },
    /// Numbers that the model does not take together.
    #[error(transparent)]
    Model(#[from] Invalid),
}

impl Spec {
    /// What a genesis file says: how many validators there are, and the highest leverage that any market allows.
    #[must_use]
    pub fn of(self, genesis: &Genesis) -> Self {
        let tiers = genesis.ledger.markets.iter().flat_map(|market| &market.tiers);
        let least = tiers.map(|tier| tier.initial_ppm.0).filter(|ppm| *ppm > 0).min();
        Self {
            validators: u32::try_from(genesis.members.iter().count()).unwrap_or(u32::MAX),
            leverage: least.map_or(self.leverage, |ppm| 1e6 / ppm as f64),
            ..self
        }
    }

    /// Places of a block.
    pub fn places(&self) -> u32 {
        self.places.unwrap_or_else(|| Costs::committed().places(self.interval_ms))
    }

    fn ask(&self) -> Result<(Model, Mix, Risk), SpecError> {
        fn value<T>(name: &'static str, found: Result<T, Invalid>) -> Result<T, SpecError> {
            found.map_err(|error| SpecError::Value { name, error })
        }
        if !(1..=MAX_VALIDATORS).contains(&(self.validators as usize)) {
            return Err(SpecError::Validators(self.validators));
        }
        if !(1..=MAX_CORES).contains(&self.cores) {
            return Err(SpecError::Cores(self.cores));
        }
        if !(1.0..=MAX_LEVERAGE).contains(&self.leverage) {
            return Err(SpecError::Leverage(self.leverage));
        }
        let places = self.places();
        let (rescue_pool, trade_pool) = pools();
        let check_ms = Costs::committed().verify_us / 1e3 / f64::from(self.cores);
        let chain = Chain {
            slot_ms: value("interval", Ms::new(self.interval_ms))?,
            slot_scv: self.interval_scv,
            block: value("places", Block::new(places, reserve(places).max(1), Sharing::Lent))?,
            rescue_pool,
            trade_pool,
            check: Law::constant(value("check", Ms::new(check_ms))?),
            relay_ms: value("relay", Ms::new(self.relay_ms))?,
            finality_ms: value("finality", Ms::new(self.finality_ms))?,
            missed_blocks: MISSED_BLOCKS,
        };
        let model = value("interval", Model::new(chain))?;
        let flow = |name, rate: f64, bucket: Option<(f64, f64)>| -> Result<Flow, SpecError> {
            let bucket = bucket.map(|(burst, refill)| {
                Bucket::new(burst, value(name, PerSecond::new(refill))?)
                    .map_err(|error| SpecError::Value { name, error })
            });
            let rate = value(name, PerSecond::new(rate))?;
            Ok(Flow { bucket: bucket.transpose()?, ..Flow::poisson(rate) })
        };
        let system = f64::from(self.validators) * 1e3 / self.interval_ms;
        let mix = Mix {
            system: value("interval", PerSecond::new(system))?,
            rescue: flow("rescues", self.rescue_per_s, self.rescue_bucket)?,
            trade: flow("trades", self.trade_per_s, self.trade_bucket)?,
        };
        let yearly = value("volatility", Bps::new(self.volatility_percent * 100.0))?;
        let risk = Risk {
            exposure: Exposure {
                distance: value("leverage", Bps::new(10_000.0 / self.leverage))?,
                volatility_per_sqrt_day: Exposure::daily(yearly),
                ..Exposure::default()
            },
            target: value("target", Probability::new(self.target))?,
        };
        Ok((model, mix, risk))
    }

    /// What the model predicts.
    ///
    /// # Errors
    /// If a number means nothing; the error names it.
    pub fn predict(&self) -> Result<Report, SpecError> {
        let (model, mix, risk) = self.ask()?;
        Ok(Report { spec: *self, places: self.places(), prediction: model.predict(&mix, &risk)? })
    }
}

/// What was asked, and the answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was asked.
    pub spec: Spec,
    /// Places of a block.
    pub places: u32,
    /// The answer.
    pub prediction: Prediction,
}

fn ms(value: Ms) -> String {
    match value.get() {
        small if small < 10.0 => format!("{small:.2} ms"),
        short if short < 1e4 => format!("{short:.0} ms"),
        long if long < 3.6e6 => format!("{:.1} s", long / 1e3),
        long if long < 3.2e10 => format!("{:.1} h", long / 3.6e6),
        ages => format!("{:.0} years", ages / 3.156e10),
    }
}

fn share(value: Probability) -> String {
    match value.get() {
        none if none <= 0.0 => "0".to_owned(),
        small if small < 1e-3 => format!("{small:.0e}"),
        large => format!("{:.2} %", large * 100.0),
    }
}

/// Mean and p99 as text; a lane without room says so.
fn delays(delay: Delay) -> (String, String) {
    match delay {
        Delay::Steady { mean_ms, p99_ms, .. } => (ms(mean_ms), ms(p99_ms)),
        Delay::Saturated { mean_ms } => (ms(mean_ms), "saturated".to_owned()),
        Delay::Unbounded => ("unbounded".to_owned(), "unbounded".to_owned()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = &self.spec;
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header([
            "lane",
            "offered",
            "load",
            "mean",
            "p99",
            "dropped",
            "carried",
            "worst case",
            "too late",
            "bankrupt",
        ]);
        let mut row = |name: &str, offered: f64, lane: &Lane| {
            let (mean, p99) = delays(lane.delay);
            let worst = match lane.bound {
                Some(bound) => match bound.delay_ms {
                    Some(delay) => format!("{} blocks, {}", bound.blocks, ms(delay)),
                    None => format!("{} blocks", bound.blocks),
                },
                None => "none".to_owned(),
            };
            table.add_row([
                name.to_owned(),
                format!("{offered:.0}/s"),
                format!("{:.3}", lane.utilisation),
                mean,
                p99,
                share(lane.dropped),
                format!("{:.0}/s", lane.carried.get()),
                worst,
                share(lane.cost.late),
                share(lane.cost.bad_debt),
            ]);
        };
        row("rescue", spec.rescue_per_s, &self.prediction.rescue);
        row("trade", spec.trade_per_s, &self.prediction.trade);
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "{} validators; a block of {} actions, {} of them for rescues, every {} ms; final {} ms later",
            spec.validators,
            self.places,
            reserve(self.places),
            spec.interval_ms,
            spec.finality_ms
        )?;
        let deadline = match self.prediction.deadline {
            Deadline::Within(within) => format!("{} at most", ms(within)),
            Deadline::Never => "as long as you like".to_owned(),
        };
        writeln!(
            f,
            "risk: at {} % volatility and leverage {} an action may take {deadline}, for a probability of {} to go bankrupt",
            spec.volatility_percent, spec.leverage, spec.target
        )?;
        write!(f, "worst case: of what token buckets admit; \"none\" where no bucket limits the lane")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(lane: &Lane) -> (f64, f64) {
        match lane.delay {
            Delay::Steady { mean_ms, p99_ms, .. } => (mean_ms.get(), p99_ms.get()),
            other => panic!("not steady: {other:?}"),
        }
    }

    #[test]
    fn the_prediction_is_the_librarys_for_the_same_chain_and_mix() {
        let spec = Spec {
            rescue_per_s: 400.0,
            trade_per_s: 3_000.0,
            places: Some(900),
            rescue_bucket: Some((500.0, 450.0)),
            ..Spec::default()
        };
        let model = Model::new(Chain {
            slot_ms: Ms::new(100.0).unwrap(),
            slot_scv: 0.0,
            block: Block::new(900, 900, Sharing::Lent).unwrap(),
            rescue_pool: 65_536,
            trade_pool: 65_536,
            check: Law::constant(Ms::new(Costs::committed().verify_us / 1e3).unwrap()),
            relay_ms: Ms::new(52.0).unwrap(),
            finality_ms: Ms::new(173.0).unwrap(),
            missed_blocks: 2,
        })
        .unwrap();
        let rate = |value| PerSecond::new(value).unwrap();
        let bucket = Some(Bucket::new(500.0, rate(450.0)).unwrap());
        let mix = Mix {
            system: rate(40.0),
            rescue: Flow { bucket, ..Flow::poisson(rate(400.0)) },
            trade: Flow::poisson(rate(3_000.0)),
        };
        let risk = Risk {
            exposure: Exposure {
                distance: Bps::new(500.0).unwrap(),
                volatility_per_sqrt_day: Exposure::daily(Bps::new(10_000.0).unwrap()),
                ..Exposure::default()
            },
            target: Probability::new(1e-6).unwrap(),
        };
        let report = spec.predict().unwrap();
        assert_eq!(report.prediction, model.predict(&mix, &risk).unwrap());
        let bound = report.prediction.rescue.bound.unwrap();
        assert!(bound.delay_ms.unwrap().get() > steady(&report.prediction.rescue).1);
    }

    #[test]
    fn without_load_an_action_waits_half_a_block_and_what_cannot_be_helped() {
        let spec = Spec { rescue_per_s: 0.0, trade_per_s: 0.0, ..Spec::default() };
        let found = spec.predict().unwrap().prediction;
        for lane in [found.rescue, found.trade] {
            let (mean, p99) = steady(&lane);
            assert!((mean - (50.0 + 52.0 + 173.0)).abs() < 0.1, "{mean}");
            assert!((p99 - (99.0 + 52.0 + 173.0)).abs() < 0.5, "{p99}");
            assert_eq!((lane.dropped, lane.utilisation, lane.carried.get()), (Probability::ZERO, 0.0, 0.0));
        }
    }

    #[test]
    fn load_at_and_beyond_capacity_is_an_answer_and_rescues_do_not_see_it() {
        let at = |trade_per_s| {
            let spec = Spec { places: Some(1_000), cores: 16, trade_per_s, ..Spec::default() };
            spec.predict().unwrap().prediction
        };
        let (calm, full, over) = (at(1_000.0), at(9_900.0), at(100_000.0));
        let (calm_ms, over_ms) = (steady(&calm.rescue).1, steady(&over.rescue).1);
        assert!((over_ms - calm_ms).abs() < 0.1, "{calm_ms} {over_ms}");
        // All places are offered their worth, 100 of 10,000 a second to rescues.
        assert!((full.trade.utilisation - 1.0).abs() < 1e-9, "{full:?}");
        assert!(matches!(full.trade.delay, Delay::Saturated { .. } | Delay::Unbounded), "{full:?}");
        assert!((over.trade.carried.get() - 9_900.0).abs() < 100.0, "{over:?}");
        assert!((over.trade.dropped.get() - 0.901).abs() < 0.001, "{over:?}");
        assert_eq!(over.trade.cost.late, Probability::MAX);
        let text = at(100_000.0);
        assert!(!matches!(text.trade.delay, Delay::Steady { .. }));
    }

    #[test]
    fn the_deadline_is_where_bankruptcy_is_as_likely_as_allowed() {
        let report = Spec::default().predict().unwrap();
        let Deadline::Within(within) = report.prediction.deadline else { panic!("{report:?}") };
        let exposure = Exposure {
            distance: Bps::new(500.0).unwrap(),
            volatility_per_sqrt_day: Exposure::daily(Bps::new(10_000.0).unwrap()),
            ..Exposure::default()
        };
        assert!((exposure.crosses(within).get() / 1e-6 - 1.0).abs() < 1e-3);
        let calm = Spec { volatility_percent: 0.0, ..Spec::default() }.predict().unwrap();
        assert_eq!(calm.prediction.deadline, Deadline::Never);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        type Change = fn(&mut Spec);
        let cases: [(&str, Change); 12] = [
            ("validators", |spec| spec.validators = 0),
            ("validators", |spec| spec.validators = 100_000),
            ("cores", |spec| spec.cores = 0),
            ("leverage", |spec| spec.leverage = 0.5),
            ("leverage", |spec| spec.leverage = f64::NAN),
            ("places", |spec| spec.places = Some(0)),
            ("interval", |spec| spec.interval_ms = 0.0),
            ("interval", |spec| spec.interval_scv = -1.0),
            ("finality", |spec| spec.finality_ms = f64::INFINITY),
            ("trades", |spec| spec.trade_per_s = -1.0),
            ("rescues", |spec| spec.rescue_bucket = Some((-1.0, 0.0))),
            ("target", |spec| spec.target = 1.5),
        ];
        for (name, change) in cases {
            let mut spec = Spec::default();
            change(&mut spec);
            let error = spec.predict().unwrap_err().to_string();
            assert!(error.starts_with(name), "{name}: {error}");
        }
    }

    #[test]
    fn the_committed_calibration_says_how_many_actions_fit_between_blocks() {
        let costs = Costs::committed();
        let places = costs.places(100.0);
        assert!((f64::from(places) * (costs.verify_us + costs.action_us) / 1e5 - 1.0).abs() < 1e-3);
        assert_eq!(costs.places(1e9), 16_384);
        assert_eq!((costs.places(0.0), costs.places(f64::NAN)), (1, 1));
    }

    #[test]
    fn table_and_json_say_the_same() {
        let report = Spec { trade_per_s: 1e6, ..Spec::default() }.predict().unwrap();
        let json = serde_json::to_value(report).unwrap();
        assert_eq!(json["spec"]["trade_per_s"], 1e6);
        let mean = json["prediction"]["rescue"]["delay"]["steady"]["mean_ms"].as_f64().unwrap();
        let text = report.to_string();
        assert!(text.contains(&format!("{mean:.0} ms")), "{text}");
        assert!(text.contains("1000000/s") && text.contains("leverage 20"), "{text}");
    }
}
