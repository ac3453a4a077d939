//! Many seeds of a scenario, and what came of each: a ledger of JSON lines that a later call goes on with.
//!
//! A line says seed, digest of the scenario, version, verdict, faults that fired, and digest of the record. A seed that is
//! in the ledger for this scenario and version is not run again. A line that cannot be read (a write was torn) is as
//! good as none.

use crate::{
    record::{Record, Verdict},
    run::{Options, StormError, digest_of, run},
    scenario::Scenario,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most seeds of a campaign.
pub const MAX_SEEDS: u64 = 1_000_000;
/// Most runs at a time.
pub const MAX_JOBS: usize = 256;

/// What came of a seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Scenario.
    pub scenario: String,
    /// SHA-256 of its file.
    pub scenario_digest: String,
    /// Seed.
    pub seed: u64,
    /// Version of the program.
    pub version: String,
    /// Commit, if whoever ran it said so.
    pub commit: Option<String>,
    /// Whether it held; nothing if it did not run to the end.
    pub verdict: Option<Verdict>,
    /// Names of criteria that were not met, or why it did not run.
    pub failed: Vec<String>,
    /// How often each kind of fault did something.
    pub fired: BTreeMap<String, u64>,
    /// Digest of the record.
    pub record: String,
}

impl Line {
    /// What a record says.
    pub fn of(record: &Record) -> Self {
        let mut fired: BTreeMap<String, u64> = BTreeMap::new();
        for fault in record.runs.iter().flat_map(|run| &run.faults) {
            *fired.entry(fault.kind.clone()).or_default() += fault.fired;
        }
        Self {
            scenario: record.scenario.clone(),
            scenario_digest: record.scenario_digest.clone(),
            seed: record.seed,
            version: record.version.clone(),
            commit: record.commit.clone(),
            verdict: Some(record.verdict),
            failed: record.criteria.iter().filter(|own| !own.met).map(|own| own.name.clone()).collect(),
            fired,
            record: record.digest.clone(),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Seeds.
    pub seeds: Range<u64>,
    /// Runs at a time.
    pub jobs: usize,
    /// The ledger.
    pub ledger: PathBuf,
    /// Commit that the program was built from.
    pub commit: Option<String>,
}

/// What came of all seeds, those of earlier calls included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Held.
    pub held: u64,
    /// Did not hold.
    pub not_held: Vec<Line>,
    /// Did not run to the end.
    pub broken: Vec<Line>,
}

fn known(path: &Path, scenario: &Scenario, version: &str) -> std::io::Result<Vec<Line>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let digest = digest_of(scenario);
    let mut lines = Vec::new();
    for line in BufReader::new(file).lines() {
        // Bytes that are no text, or no line, were torn.
        let Ok(Ok(line)) = line.map(|line| serde_json::from_str::<Line>(&line)) else { continue };
        if line.scenario_digest == digest && line.version == version && line.verdict.is_some() {
            lines.push(line);
        }
    }
    Ok(lines)
}

impl Campaign {
    /// Runs every seed that the ledger does not have yet, and tells of each as it ends.
    ///
    /// # Errors
    /// If the ledger cannot be read or written. A seed whose run fails is in the summary, and so are panics.
    pub fn run(&self, scenario: &Scenario, told: &(dyn Fn(&Line) + Sync)) -> Result<Summary, StormError> {
        let ledger = |error: std::io::Error| StormError::File { path: self.ledger.clone(), error };
        if let Some(parent) = self.ledger.parent() {
            fs::create_dir_all(parent).map_err(ledger)?;
        }
        let before = known(&self.ledger, scenario, crate::run::VERSION).map_err(ledger)?;
        let done: BTreeSet<u64> = before.iter().map(|line| line.seed).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(&self.ledger).map_err(ledger)?;
        // A torn last line must not swallow the next.
        file.write_all(b"\n").map_err(ledger)?;
        let (file, next) = (Mutex::new(file), AtomicU64::new(self.seeds.start));
        let lines = Mutex::new(before);
        let failure: Mutex<Option<std::io::Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, MAX_JOBS) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.seeds.end || failure.lock().is_ok_and(|failure| failure.is_some()) {
                            return;
                        }
                        if done.contains(&seed) {
                            continue;
                        }
                        let line = self.one(scenario, seed);
                        let text = serde_json::to_string(&line).expect("a line is plain data") + "\n";
                        if let Ok(mut file) = file.lock()
                            && let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.flush())
                            && let Ok(mut failure) = failure.lock()
                        {
                            *failure = Some(error);
                        }
                        told(&line);
                        if let Ok(mut lines) = lines.lock() {
                            lines.push(line);
                        }
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_default() {
            return Err(ledger(error));
        }
        let mut summary = Summary::default();
        let mut lines = lines.into_inner().unwrap_or_default();
        lines.retain(|line| self.seeds.contains(&line.seed));
        lines.sort_by_key(|line| line.seed);
        for line in lines {
            match line.verdict {
                Some(Verdict::Held) => summary.held += 1,
                Some(Verdict::NotHeld) => summary.not_held.push(line),
                None => summary.broken.push(line),
            }
        }
        Ok(summary)
    }

    fn one(&self, scenario: &Scenario, seed: u64) -> Line {
        let options = Options { seed, commit: self.commit.clone(), ..Options::default() };
        // A validator that panics ends its simulation, and must not end the campaign.
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(scenario, &options)));
        let broken = |why: String| Line {
            scenario: scenario.name.clone(),
            scenario_digest: digest_of(scenario),
            seed,
            version: crate::run::VERSION.to_owned(),
            commit: self.commit.clone(),
            verdict: None,
            failed: vec![why],
            fired: BTreeMap::new(),
            record: String::new(),
        };
        match ran {
            Ok(Ok(record)) => Line::of(&record),
            Ok(Err(error)) => broken(error.to_string()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                broken(format!("panic: {}", text.unwrap_or_default()))
            }
        }
    }
}
