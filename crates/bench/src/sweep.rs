//! Instructions of a block's liquidation sweep.
//!
//! What is counted is a whole block that carries prices and no actions: taking over marks, funding, the
//! sweep, and the end of the block with its check of conservation and its list of changes. Authenticated
//! storage is not part of the ledger, nor of these figures.
//!
//! # What it depends on
//!
//! `a + b x breaching + c x total + d x touched`, over blocks in which one market moves by 0.1 %:
//! *total* accounts exist; *breaching* ones are in breach in that block; *touched* ones were examined, because
//! a threshold of theirs was crossed or because the block before changed them, and are not in breach. Sizes of
//! the first three differ by orders of magnitude, so the fit is by relative residuals; otherwise the
//! largest block would decide all coefficients. Besides, `c` is read off directly, from the blocks in which
//! nothing is in breach and nothing is touched.
//!
//! In the blocks of the fit a backstop takes over what is liquidated. Blocks that deleverage instead are
//! listed apart.

use core::fmt;
use std::collections::BTreeSet;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::ProgressBar;
use seawall_ledger::{BlockDelta, Event, SweepReport};
use seawall_types::{Mark, MarketId, PriceTicks, TimeMs};
use serde::{Deserialize, Serialize};

use crate::{
    callgrind::{Error, Region, Runner, measured_region},
    crash,
    fit::least_squares,
    population::{self, Accounts, Case, PRICE},
    workload::Workload,
};

/// Accounts of the fit.
const TOTALS: [u64; 3] = [100_000, 300_000, 1_000_000];
/// Accounts in breach.
const BREACHING: [u64; 4] = [0, 10, 1_000, 10_000];
/// Accounts touched and not in breach.
const TOUCHED: [u64; 3] = [0, 500, 5_000];
/// Size of the gap, in ppm.
const GAP_PPM: u64 = 50_000;
/// Blocks after the gap that are counted.
const BLOCKS_AFTER_GAP: usize = 10;

/// A recorded crash to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// Accounts of the opening book.
    pub accounts: u64,
    /// Seed of the book.
    pub seed: u64,
    /// Replayed time between two blocks.
    pub step_ms: u64,
}

impl Default for Storm {
    fn default() -> Self {
        Self { accounts: 100_000, seed: 0, step_ms: 1_000 }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What a block costs after one market moved.
    pub moves: Moves,
    /// What the blocks of a crash cost.
    pub crash: Crash,
    /// What a gap costs.
    pub gap: Gap,
}

/// The fit and what it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moves {
    /// Instructions of a block whatever happens.
    pub a_per_block: Coefficient,
    /// Instructions of each account in breach.
    pub b_per_breaching: Coefficient,
    /// Instructions of each account that exists.
    pub c_per_account: Coefficient,
    /// Instructions of each account touched and not in breach.
    pub d_per_touched: Coefficient,
    /// `c` once more: slope of the blocks in which nothing is in breach nor touched, from the smallest to the
    /// largest total.
    pub c_of_quiet_blocks: f64,
    /// Share of the variance explained, of relative residuals.
    pub r_squared: f64,
    /// Largest residual, relative to what was observed.
    pub worst_residual: f64,
    /// How alike the regressors are: 1 is not at all, above 30 is too much.
    pub condition: f64,
    /// The blocks of the fit.
    pub blocks: Vec<Observed>,
    /// Blocks that deleverage, which are not part of it.
    pub deleveraging: Vec<Observed>,
}

/// A coefficient with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coefficient {
    /// Instructions.
    pub value: f64,
    /// Standard error.
    pub error: f64,
}

/// A block of the fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// What it was like.
    pub block: MoveFacts,
    /// Its instructions.
    pub instructions: u64,
    /// What the fit says of it.
    pub fitted: f64,
}

/// What a workload of moves says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveFacts {
    /// Whether a market moved; else it is the block after one that did.
    pub moved: bool,
    /// Accounts that exist.
    pub total: u64,
    /// Accounts in breach.
    pub breaching: u64,
    /// Accounts examined that are not in breach.
    pub touched: u64,
    /// Legs that were closed.
    pub legs: u64,
    /// Whether the market has no backstop.
    pub dry: bool,
    /// Positions reduced by deleveraging.
    pub deleveraged: u64,
}

/// A crash, block by block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crash {
    /// What was replayed.
    pub storm: Storm,
    /// Blocks.
    pub blocks: u64,
    /// Accounts liquidated, each counted once.
    pub accounts_liquidated: u64,
    /// Compartments in breach, summed over blocks.
    pub breaches: u64,
    /// Accounts examined, summed over blocks.
    pub examined: u64,
    /// Positions reduced by deleveraging.
    pub deleveraged: u64,
    /// Instructions of all blocks.
    pub instructions: u64,
    /// Of one block: mean.
    pub mean: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Most.
    pub max: u64,
    /// All instructions, shared by the accounts liquidated.
    pub per_liquidated: u64,
    /// Instructions of a block, shared by all accounts.
    pub per_account_and_block: f64,
}

/// A gap in every market at once, from the opening book.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The book.
    pub storm: Storm,
    /// Size of the gap.
    pub gap_ppm: u64,
    /// Accounts examined in the block of the gap.
    pub examined: u64,
    /// Compartments in breach.
    pub breaching: u64,
    /// Legs closed.
    pub legs: u64,
    /// Positions reduced by deleveraging.
    pub deleveraged: u64,
    /// Instructions of the block.
    pub instructions: u64,
    /// The same, shared by the accounts examined.
    pub per_examined: u64,
    /// The same, shared by all accounts.
    pub per_account: u64,
    /// Instructions of the blocks after it, in which nothing moves.
    pub after: Vec<u64>,
}

/// Measures.
///
/// # Errors
/// If instructions cannot be counted.
pub fn run(runner: &Runner, progress: &ProgressBar) -> Result<Report, Error> {
    let storm = Storm::default();
    let gap = gap(storm, &runner.count(&Workload::Gap(storm), progress)?)?;
    let mut blocks = Vec::new();
    for accounts in TOTALS {
        let workload = Workload::Moves { accounts, breaching: BREACHING.to_vec(), touched: TOUCHED.to_vec() };
        blocks.extend(runner.count::<MoveFacts>(&workload, progress)?);
    }
    let moves = moves(&blocks)?;
    let crash = crash_report(storm, &runner.count(&Workload::Crash(storm), progress)?);
    Ok(Report { moves, crash, gap })
}

fn moves(regions: &[Region<MoveFacts>]) -> Result<Moves, Error> {
    let observed = |region: &Region<MoveFacts>| Observed {
        block: region.facts,
        instructions: region.instructions,
        fitted: 0.0,
    };
    let (dry, wet): (Vec<_>, Vec<_>) = regions.iter().map(observed).partition(|seen| seen.block.dry);
    let rows: Vec<_> = wet
        .iter()
        .map(|Observed { block, instructions, .. }| {
            let regressors = [1, block.breaching, block.total, block.touched];
            (regressors.map(|count| count as f64).to_vec(), *instructions as f64)
        })
        .collect();
    let weights: Vec<f64> = rows.iter().map(|(_, instructions)| 1.0 / instructions).collect();
    let fit = least_squares(&rows, &weights).ok_or_else(|| Error::Unreadable {
        what: "a set of blocks that a line can be put through",
        text: format!("{} blocks", rows.len()),
    })?;
    let blocks: Vec<_> =
        wet.iter().zip(&fit.fitted).map(|(seen, &fitted)| Observed { fitted, ..*seen }).collect();
    let worst_residual =
        blocks.iter().map(|seen| (seen.fitted / seen.instructions as f64 - 1.0).abs()).fold(0.0, f64::max);
    let quiet = |total: u64| {
        let seen: Vec<f64> = blocks
            .iter()
            .filter(|seen| seen.block.moved && seen.block.breaching + seen.block.touched == 0)
            .filter(|seen| seen.block.total == total)
            .map(|seen| seen.instructions as f64)
            .collect();
        seen.iter().sum::<f64>() / seen.len() as f64
    };
    let totals = || blocks.iter().map(|seen| seen.block.total);
    let (least, most) = (totals().min().unwrap_or(0), totals().max().unwrap_or(0));
    let coefficient = |at: usize| Coefficient { value: fit.coefficients[at], error: fit.errors[at] };
    Ok(Moves {
        a_per_block: coefficient(0),
        b_per_breaching: coefficient(1),
        c_per_account: coefficient(2),
        d_per_touched: coefficient(3),
        c_of_quiet_blocks: (quiet(most) - quiet(least)) / (most - least) as f64,
        r_squared: fit.r_squared,
        worst_residual,
        condition: fit.condition,
        blocks,
        deleveraging: dry,
    })
}

/// What the storms say of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StormFacts {
    examined: u64,
    breaching: u64,
    legs: u64,
    deleveraged: u64,
    /// Accounts that had a leg closed.
    liquidated: Vec<u64>,
}

fn crash_report(storm: Storm, regions: &[Region<StormFacts>]) -> Crash {
    let mut costs: Vec<u64> = regions.iter().map(|region| region.instructions).collect();
    costs.sort_unstable();
    let at = |share: usize| costs.get((costs.len() * share / 100).min(costs.len() - 1)).copied().unwrap_or(0);
    let sum = |of: fn(&StormFacts) -> u64| regions.iter().map(|region| of(&region.facts)).sum();
    let liquidated: BTreeSet<u64> =
        regions.iter().flat_map(|region| &region.facts.liquidated).copied().collect();
    let instructions: u64 = costs.iter().sum();
    let mean = instructions / (regions.len() as u64).max(1);
    Crash {
        storm,
        blocks: regions.len() as u64,
        accounts_liquidated: liquidated.len() as u64,
        breaches: sum(|facts| facts.breaching),
        examined: sum(|facts| facts.examined),
        deleveraged: sum(|facts| facts.deleveraged),
        instructions,
        mean,
        p50: at(50),
        p99: at(99),
        max: at(100),
        per_liquidated: instructions / (liquidated.len() as u64).max(1),
        per_account_and_block: mean as f64 / storm.accounts as f64,
    }
}

fn gap(storm: Storm, regions: &[Region<StormFacts>]) -> Result<Gap, Error> {
    let [first, after @ ..] = regions else {
        return Err(Error::Regions { announced: 1, seen: 0 });
    };
    let facts = &first.facts;
    Ok(Gap {
        storm,
        gap_ppm: GAP_PPM,
        examined: facts.examined,
        breaching: facts.breaching,
        legs: facts.legs,
        deleveraged: facts.deleveraged,
        instructions: first.instructions,
        per_examined: first.instructions / facts.examined.max(1),
        per_account: first.instructions / storm.accounts,
        after: after.iter().map(|region| region.instructions).collect(),
    })
}

/// With separators, so that a figure can be read.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = || {
            let mut table = Table::new();
            table.load_preset(UTF8_FULL_CONDENSED);
            table
        };
        let Self { moves, crash, gap } = self;
        let mut fit = table();
        fit.set_header(["one market moves 0.1 %", "instructions", "standard error"]);
        for (name, coefficient) in [
            ("a: a block", moves.a_per_block),
            ("b: an account in breach", moves.b_per_breaching),
            ("c: an account that exists", moves.c_per_account),
            ("d: an account touched, not in breach", moves.d_per_touched),
        ] {
            let digits = if coefficient.value.abs() < 10.0 { 4 } else { 0 };
            fit.add_row([
                name.into(),
                format!("{:.digits$}", coefficient.value),
                format!("{:.digits$}", coefficient.error),
            ]);
        }
        fit.add_row([
            "c, from quiet blocks alone".into(),
            format!("{:.4}", moves.c_of_quiet_blocks),
            String::new(),
        ]);
        writeln!(f, "{fit}")?;
        writeln!(
            f,
            "{} blocks, R2 {:.5}, largest residual {:.1} %, condition {:.1}",
            moves.blocks.len(),
            moves.r_squared,
            moves.worst_residual * 100.0,
            moves.condition
        )?;
        let mut blocks = table();
        blocks.set_header(["total", "breaching", "touched", "legs closed", "instructions", "fit"]);
        for Observed { block, instructions, fitted } in &moves.blocks {
            blocks.add_row([
                grouped(block.total),
                grouped(block.breaching),
                grouped(block.touched),
                grouped(block.legs),
                grouped(*instructions),
                format!("{:+.1} %", (fitted / *instructions as f64 - 1.0) * 100.0),
            ]);
        }
        writeln!(f, "{blocks}")?;
        let mut dry = table();
        dry.set_header(["deleveraging: total", "breaching", "counterparties", "instructions"]);
        for Observed { block, instructions, .. } in moves.deleveraging.iter().filter(|seen| seen.block.moved)
        {
            dry.add_row([
                grouped(block.total),
                grouped(block.breaching),
                grouped(block.deleveraged),
                grouped(*instructions),
            ]);
        }
        writeln!(f, "{dry}")?;
        let mut storm = table();
        storm.set_header([
            format!(
                "crash of 2025-10-10, {} accounts, a block every {} ms",
                grouped(crash.storm.accounts),
                crash.storm.step_ms
            ),
            String::new(),
        ]);
        for (name, value) in [
            ("blocks", crash.blocks),
            ("accounts liquidated", crash.accounts_liquidated),
            ("positions deleveraged", crash.deleveraged),
            ("accounts examined", crash.examined),
            ("instructions a block, mean", crash.mean),
            ("median", crash.p50),
            ("99th percentile", crash.p99),
            ("most", crash.max),
            ("instructions for each account liquidated", crash.per_liquidated),
        ] {
            storm.add_row([name.to_owned(), grouped(value)]);
        }
        storm.add_row([
            "instructions for each account and block".to_owned(),
            format!("{:.2}", crash.per_account_and_block),
        ]);
        writeln!(f, "{storm}")?;
        let mut jump = table();
        jump.set_header([
            format!(
                "a gap of {} % in every market, {} accounts",
                gap.gap_ppm / 10_000,
                grouped(gap.storm.accounts)
            ),
            String::new(),
        ]);
        for (name, value) in [
            ("accounts examined", gap.examined),
            ("compartments in breach", gap.breaching),
            ("legs closed", gap.legs),
            ("positions deleveraged", gap.deleveraged),
            ("instructions of the block", gap.instructions),
            ("for each account examined", gap.per_examined),
            ("for each account that exists", gap.per_account),
            ("instructions of the ten blocks after it", gap.after.iter().sum()),
        ] {
            jump.add_row([name.to_owned(), grouped(value)]);
        }
        write!(f, "{jump}")
    }
}

/// The workload of moves: for each case a block with the move and one without, then the price returns.
pub(crate) fn work_moves(accounts: u64, breaching: &[u64], touched: &[u64], say: &mut dyn FnMut(MoveFacts)) {
    let cases = population::cases(breaching, touched);
    let mut ledger = population::ledger(&Accounts::Placed { count: accounts, cases: cases.clone() });
    // The first block examines everybody.
    population::block(&mut ledger, &population::opening());
    population::block(&mut ledger, &[]);
    for case in cases {
        for moved in [true, false] {
            let marks = if moved { vec![population::fresh(case.market, case.price())] } else { Vec::new() };
            let mut done = None;
            measured_region(&mut || done = Some(population::block(&mut ledger, &marks)));
            let (report, _) = done.expect("the block was executed");
            say(facts(moved, accounts, &case, &report));
        }
        population::block(&mut ledger, &[population::fresh(case.market, PRICE)]);
        population::block(&mut ledger, &[]);
    }
}

fn facts(moved: bool, total: u64, case: &Case, report: &SweepReport) -> MoveFacts {
    MoveFacts {
        moved,
        total,
        breaching: report.in_breach,
        touched: report.examined - report.in_breach,
        legs: report.steps,
        dry: case.is_dry(),
        deleveraged: report.deleveraged,
    }
}

fn storm_facts(report: &SweepReport, delta: &BlockDelta) -> StormFacts {
    let liquidated: BTreeSet<u64> = delta
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Liquidated(event) => Some(event.account.0),
            _ => None,
        })
        .collect();
    StormFacts {
        examined: report.examined,
        breaching: report.in_breach,
        legs: report.steps,
        deleveraged: report.deleveraged,
        liquidated: liquidated.into_iter().collect(),
    }
}

/// The workload of a crash.
pub(crate) fn work_crash(storm: &Storm, say: &mut dyn FnMut(StormFacts)) {
    let (replay, mut ledger) = crash::open(storm.accounts, storm.seed);
    population::block_at(&mut ledger, TimeMs(replay.start_ms - 1_000), &crash::opening(&replay));
    let mut now = replay.start_ms;
    while now < replay.end_ms {
        let marks = crash::marks(&replay, now);
        let mut done = None;
        measured_region(&mut || done = Some(population::block_at(&mut ledger, TimeMs(now), &marks)));
        let (report, delta) = done.expect("the block was executed");
        say(storm_facts(&report, &delta));
        now += storm.step_ms;
    }
}

/// The workload of a gap.
pub(crate) fn work_gap(storm: &Storm, say: &mut dyn FnMut(StormFacts)) {
    let (replay, mut ledger) = crash::open(storm.accounts, storm.seed);
    let opening = crash::opening(&replay);
    population::block(&mut ledger, &opening);
    population::block(&mut ledger, &[]);
    let lower = |&(market, mark): &(MarketId, Mark)| {
        let (PriceTicks(price), state) = mark.last_known();
        (market, Mark::new(state, PriceTicks(price - price * GAP_PPM / 1_000_000), mark.updated()))
    };
    let gap: Vec<_> = opening.iter().map(lower).collect();
    for marks in std::iter::once(gap).chain(std::iter::repeat_n(Vec::new(), BLOCKS_AFTER_GAP)) {
        let mut done = None;
        measured_region(&mut || done = Some(population::block(&mut ledger, &marks)));
        let (report, delta) = done.expect("the block was executed");
        say(storm_facts(&report, &delta));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_place_exactly_the_accounts_that_they_promise() {
        let mut seen = Vec::new();
        work_moves(2_000, &[0, 5, 60], &[0, 40], &mut |facts| seen.push(facts));
        let moved: Vec<_> = seen.iter().filter(|facts| facts.moved && !facts.dry).collect();
        let found: Vec<_> = moved.iter().map(|facts| (facts.breaching, facts.touched)).collect();
        assert_eq!(found, [(0, 0), (0, 40), (5, 0), (5, 40), (60, 0), (60, 40)]);
        for (moved, after) in seen.iter().zip(&seen[1..]).step_by(2) {
            assert!(!after.moved && after.breaching == 0);
            // Who was liquidated is examined again, with the backstops that took over.
            assert!(after.touched >= moved.breaching);
        }
        let dry: Vec<_> = seen.iter().filter(|facts| facts.moved && facts.dry).collect();
        assert_eq!(dry.len(), 2);
        assert!(dry.iter().all(|facts| facts.deleveraged > 0));
    }

    #[test]
    fn the_fit_finds_coefficients_again() {
        let mut regions = Vec::new();
        for total in [1_000, 10_000] {
            for breaching in [0, 10, 100] {
                for touched in [0, 50] {
                    let instructions = 20_000 + 9_000 * breaching + 2 * total + 700 * touched;
                    let facts = MoveFacts {
                        moved: true,
                        total,
                        breaching,
                        touched,
                        legs: 0,
                        dry: false,
                        deleveraged: 0,
                    };
                    regions.push(Region { facts, instructions });
                }
            }
        }
        let moves = moves(&regions).unwrap();
        let near = |found: f64, right: f64| assert!((found - right).abs() < 1e-3, "{found} for {right}");
        near(moves.a_per_block.value, 20_000.0);
        near(moves.b_per_breaching.value, 9_000.0);
        near(moves.c_per_account.value, 2.0);
        near(moves.c_of_quiet_blocks, 2.0);
        near(moves.d_per_touched.value, 700.0);
        assert!(moves.r_squared > 0.999_999);
    }

    #[test]
    fn a_crash_liquidates_and_a_gap_breaches() {
        let storm = Storm { accounts: 2_000, seed: 0, step_ms: 60_000 };
        let (mut crash, mut gap) = (Vec::new(), Vec::new());
        work_crash(&storm, &mut |facts| crash.push(facts));
        assert_eq!(crash.len(), 60);
        assert!(crash.iter().map(|facts| facts.liquidated.len()).sum::<usize>() > 100);
        work_gap(&storm, &mut |facts| gap.push(facts));
        assert_eq!(gap.len(), 1 + BLOCKS_AFTER_GAP);
        assert!(gap[0].breaching > 10 && gap[0].examined >= gap[0].breaching / 2);
    }

    #[test]
    fn figures_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
