//! A storm from a scenario and a seed: one run for each point of the sweep, judged together.

use crate::{
    calibration::Calibration,
    judge::{self, Judge},
    record::{FORMAT, Record},
    scenario::{Scenario, ScenarioError},
    sim::{Progress, Setup, SimError, simulate},
};
use std::{path::PathBuf, sync::Arc, time::Instant};
use thiserror::Error;

/// Version of the program that ran a storm.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A storm that could not be run.
#[derive(Debug, Error)]
pub enum StormError {
    /// The scenario is refused.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The simulation did not take place.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// The storm ran, and its record cannot be played on the other chain.
    #[error("no baseline: {0}; leave it out with --no-baseline")]
    Baseline(#[from] crate::baseline::BaselineError),
    /// The calibration does not parse.
    #[error("storms/calibration.toml: {0}")]
    Calibration(String),
    /// A file that cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A name that is neither a file nor a storm that ships with the program.
    #[error("there is no file and no storm named {name}; storms are {known}")]
    NoStorm {
        /// Asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

/// Told of how far a storm is: the point of the sweep, of how many, and how far its run is.
pub type Told = Arc<dyn Fn(usize, usize, Progress) + Send + Sync>;

/// How a storm is run.
#[derive(Clone)]
pub struct Options {
    /// Seed.
    pub seed: u64,
    /// Commit that the program was built from; told on in the record.
    pub commit: Option<String>,
    /// Told of progress.
    pub told: Told,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, commit: None, told: Arc::new(|_, _, _| {}) }
    }
}

/// SHA-256 of a scenario's file, in hex.
pub fn digest_of(scenario: &Scenario) -> String {
    judge::hex(&seawall_chain::crypto::sha256_digest(&[scenario.text.as_bytes()]).0)
}

/// Runs a storm. The same scenario, seed and version give the same record, but for the real time it took.
///
/// # Errors
/// If it could not be run. A storm that did not hold is a record that says so.
pub fn run(scenario: &Scenario, options: &Options) -> Result<Record, StormError> {
    let begun = Instant::now();
    let calibration = Calibration::committed().map_err(|error| StormError::Calibration(error.to_string()))?;
    let points: Vec<Option<f64>> = match scenario.plan.sweep.as_slice() {
        [] => vec![None],
        sweep => sweep.iter().copied().map(Some).collect(),
    };
    let (mut runs, mut extras) = (Vec::new(), Vec::new());
    for (place, multiple) in points.iter().enumerate() {
        let setup = Arc::new(Setup::new(&scenario.plan, options.seed, *multiple, calibration)?);
        let (told, of) = (options.told.clone(), points.len());
        let log = simulate(&setup, Arc::new(move |progress| told(place, of, progress)))?;
        let judge = Judge::new(&setup, &log);
        runs.push(judge.run());
        extras.push(judge.extra());
    }
    let criteria = judge::criteria(scenario, &runs, &extras);
    let verdict = judge::verdict(&criteria);
    Ok(judge::seal(Record {
        format: FORMAT,
        scenario: scenario.name.clone(),
        scenario_text: scenario.text.clone(),
        scenario_digest: digest_of(scenario),
        hypothesis: scenario.plan.hypothesis.clone(),
        seed: options.seed,
        version: VERSION.to_owned(),
        commit: options.commit.clone(),
        wall_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        calibration_us: calibration.by_name(),
        runs,
        criteria,
        verdict,
        caveats: judge::caveats(scenario),
        digest: String::new(),
    }))
}
