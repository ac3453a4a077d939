//! Instructions of a margin check: equity, maintenance and initial margin of a cross account, funding
//! included, with every price fresh.
//!
//! The slope between two numbers of checks, so that whatever surrounds the loop cancels.

use core::fmt;
use std::hint::black_box;

use indicatif::ProgressBar;
use seawall_types::AccountId;
use serde::{Deserialize, Serialize};

use crate::{
    callgrind::{Error, Runner, measured_region},
    population::{self, Accounts},
    workload::Workload,
};

/// Positions of the accounts, with the most instructions that a check of theirs should take.
pub const TARGETS: [(u16, u64); 3] = [(2, 0), (4, 900), (8, 1_600)];
/// Checks of the two regions.
const CHECKS: [u64; 2] = [100_000, 300_000];
/// Accounts that are checked in turn.
const ACCOUNTS: u64 = 1_024;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// By number of positions.
    pub checks: Vec<Check>,
}

/// A margin check of accounts with so many positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Positions.
    pub positions: u16,
    /// Instructions of a check, to the tenth.
    pub instructions: f64,
    /// What it should stay below; zero if nothing was promised.
    pub target: u64,
}

/// Measures.
///
/// # Errors
/// If instructions cannot be counted.
pub fn run(runner: &Runner, progress: &ProgressBar) -> Result<Report, Error> {
    let mut checks = Vec::new();
    for (legs, target) in TARGETS {
        let workload = Workload::Margin { legs, checks: CHECKS.to_vec() };
        let regions = runner.count::<Checked>(&workload, progress)?;
        let slope = match regions.as_slice() {
            [few, many] => {
                (many.instructions - few.instructions) as f64 / (many.facts.checks - few.facts.checks) as f64
            }
            _ => return Err(Error::Regions { announced: CHECKS.len(), seen: regions.len() }),
        };
        checks.push(Check { positions: legs, instructions: (slope * 10.0).round() / 10.0, target });
    }
    Ok(Report { checks })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["margin check of an account with", "instructions", "target"]);
        for check in &self.checks {
            let target = if check.target == 0 { "-".into() } else { check.target.to_string() };
            table.add_row([
                format!("{} positions", check.positions),
                format!("{:.0}", check.instructions),
                target,
            ]);
        }
        write!(f, "{table}")
    }
}

/// What the workload says of a region.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Checked {
    checks: u64,
    in_breach: u64,
}

/// The workload.
pub(crate) fn work(legs: u16, regions: &[u64], say: &mut dyn FnMut(Checked)) {
    let mut ledger = population::ledger(&Accounts::Uniform { count: ACCOUNTS, legs });
    // Two blocks, so that positions owe funding.
    for _ in 0..2 {
        population::block(&mut ledger, &[]);
    }
    for &checks in regions {
        let mut in_breach = 0;
        measured_region(&mut || {
            for n in 0..checks {
                let id = AccountId(1 + n % ACCOUNTS);
                let check = black_box(ledger.margin_check(black_box(id)));
                in_breach += u64::from(check.is_some_and(|check| check.in_breach));
            }
        });
        say(Checked { checks, in_breach });
    }
}
