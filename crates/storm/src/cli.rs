//! `seawall storm`: lists storms, runs one, runs many seeds of one.
//!
//! Exit codes: 0 if the storm held, 1 if it did not, 2 if it could not be run.

use crate::{
    baseline::{self, Calibration},
    campaign::{Campaign, Line, MAX_SEEDS},
    record::{Criterion, Direction, Record, Verdict},
    report,
    run::{Options, StormError, run},
    sim::Progress,
    storms,
};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use std::{ops::Range, path::PathBuf, process::ExitCode, sync::Arc};

/// What to do with storms.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Explains the storms that ship with the program.
    List,
    /// Runs a storm: whole validators in simulation, from a seed.
    Run(RunArgs),
    /// Runs many seeds of a storm, and goes on where an earlier call stopped.
    Campaign(CampaignArgs),
}

/// Options of `storm run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// A storm's name, or a scenario file.
    pub storm: String,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Prints the whole record as JSON on standard output, instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Directory for the report, as a page and as data; `runs/storms/NAME-SEED` if not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Shows beside it how the storm ends on a fee-ordered chain with keepers: what reports do unless told otherwise.
    #[arg(long, overrides_with = "no_baseline")]
    pub baseline: bool,
    /// Leaves the fee-ordered chain out of the report.
    #[arg(long)]
    pub no_baseline: bool,
    /// Commit that the program was built from, to be told on in the record.
    #[arg(long)]
    pub commit: Option<String>,
}

/// Options of `storm campaign`.
#[derive(Clone, Debug, Args)]
pub struct CampaignArgs {
    /// A storm's name, or a scenario file.
    pub storm: String,
    /// Seeds, from the first up to but not including the last.
    #[arg(long, default_value = "0..1000", value_parser = seeds)]
    pub seeds: Range<u64>,
    /// Runs at a time.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// The ledger; `runs/storms/NAME.jsonl` if not given.
    #[arg(long)]
    pub ledger: Option<PathBuf>,
    /// Commit that the program was built from, to be told on in the ledger.
    #[arg(long)]
    pub commit: Option<String>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text} is no range of seeds; write it as 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(wrong)?;
    let (first, end) = (first.parse().map_err(|_| wrong())?, end.parse().map_err(|_| wrong())?);
    if first >= end || end - first > MAX_SEEDS {
        return Err(format!("{text} is empty, or more than {MAX_SEEDS} seeds"));
    }
    Ok(first..end)
}

/// Does what is asked.
pub fn main(command: Command) -> ExitCode {
    let done = match command {
        Command::List => list(),
        Command::Run(args) => one(&args),
        Command::Campaign(args) => many(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("seawall storm: {error}");
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<bool, StormError> {
    for (name, _) in storms::SHIPPED {
        let storm = storms::shipped(name).expect("it is in the list")?;
        println!("{name}\n    {}", storm.plan.hypothesis);
        for line in storm.header().lines() {
            println!("    | {line}");
        }
        let places = storm.plan.places();
        println!("    validators: {} ({})", places.len(), places.join(", "));
        let criteria = toml::from_str::<toml::Table>(&storm.text).ok();
        let criteria = criteria.as_ref().and_then(|table| table.get("criteria")?.as_table());
        for (name, limit) in criteria.into_iter().flatten() {
            println!("    demands {name} = {limit}");
        }
        println!();
    }
    println!(
        "every storm also demands: no fork, value conserved, no liquidation at a stale price, the first promise for every"
    );
    println!("rescue, that every fault fired, and finality again within a second of a heal");
    Ok(true)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {msg} [{elapsed}]");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn one(args: &RunArgs) -> Result<bool, StormError> {
    let storm = storms::find(&args.storm)?;
    let bar = bar();
    let shown = bar.clone();
    let told = Arc::new(move |point: usize, of: usize, progress: Progress| {
        shown.set_length(of as u64 * progress.of_ms);
        shown.set_position(point as u64 * progress.of_ms + progress.virtual_ms);
        let run = if of > 1 { format!("run {} of {of}, ", point + 1) } else { String::new() };
        shown.set_message(format!("{run}second {}, height {}", progress.virtual_ms / 1_000, progress.height));
    });
    let record = run(&storm, &Options { seed: args.seed, commit: args.commit.clone(), told })?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&record).expect("a record is plain data"));
    } else {
        println!("{}", table(&record));
    }
    let default = || PathBuf::from(format!("runs/storms/{}-{}", storm.name, args.seed));
    let out = args.out.clone().unwrap_or_else(default);
    let other = (!args.no_baseline).then(|| baseline::play(&record, &Calibration::committed()));
    let other = other.transpose()?;
    let written = report::write(&out, &record, other.as_ref());
    let (page, _) = written.map_err(|error| StormError::File { path: out, error })?;
    eprintln!("report: {}", page.display());
    Ok(record.verdict == Verdict::Held)
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn measured(criterion: &Criterion) -> String {
    criterion.measured.map_or_else(|| "nothing".to_owned(), number)
}

fn demanded(criterion: &Criterion) -> String {
    let sign = match criterion.direction {
        Direction::AtMost => "at most",
        Direction::AtLeast => "at least",
    };
    format!("{sign} {} {}", number(criterion.limit), criterion.unit)
}

/// A record in two tables: what each run gave, and every criterion.
pub fn table(record: &Record) -> String {
    let mut runs = Table::new();
    runs.load_preset(UTF8_FULL_CONDENSED);
    runs.set_header([
        "run",
        "blocks",
        "finality p50/p99 ms",
        "rescues",
        "p50/p99 ms",
        "predicted",
        "missed",
        "trades",
        "in blocks",
        "liquidated",
    ]);
    for run in &record.runs {
        let rescue = &run.lanes.rescue;
        let predicted = run.prediction.as_ref().and_then(|own| own.rescue.p50_ms.zip(own.rescue.p99_ms));
        runs.add_row([
            run.label.clone(),
            run.totals.blocks.to_string(),
            format!("{} / {}", run.totals.finality_p50_ms, run.totals.finality_p99_ms),
            format!("{} of {}", rescue.executed + rescue.answered, rescue.sent),
            format!("{:.0} / {:.0}", rescue.latency.p50_ms, rescue.latency.p99_ms),
            predicted.map_or_else(|| "-".into(), |(p50, p99)| format!("{p50:.0} / {p99:.0}")),
            run.safety.p1_worst_missed.to_string(),
            run.lanes.trade.sent.to_string(),
            run.lanes.trade.executed.to_string(),
            run.totals.accounts_liquidated.to_string(),
        ]);
    }
    let mut criteria = Table::new();
    criteria.load_preset(UTF8_FULL_CONDENSED);
    criteria.set_header(["criterion", "measured", "demanded", ""]);
    for own in &record.criteria {
        criteria.add_row([
            own.name.clone(),
            measured(own),
            demanded(own),
            if own.met { "met" } else { "NOT MET" }.to_owned(),
        ]);
    }
    let details: Vec<String> = record
        .criteria
        .iter()
        .filter(|own| !own.met && !own.detail.is_empty())
        .map(|own| format!("{}: {}", own.name, own.detail))
        .collect();
    let fired: Vec<String> = record
        .runs
        .first()
        .into_iter()
        .flat_map(|run| &run.faults)
        .map(|fault| format!("{} fired {} times", fault.what, fault.fired))
        .collect();
    let verdict = match record.verdict {
        Verdict::Held => "HELD",
        Verdict::NotHeld => "NOT HELD",
    };
    let mut lines = vec![record.hypothesis.clone(), runs.to_string(), criteria.to_string()];
    lines.extend(fired);
    lines.extend(details);
    lines.push(format!(
        "{verdict}: {}, seed {}, record {}; again with: seawall storm run {} --seed {}",
        record.scenario,
        record.seed,
        record.digest.get(..16).unwrap_or_default(),
        record.scenario,
        record.seed
    ));
    lines.join("\n")
}

fn many(args: &CampaignArgs) -> Result<bool, StormError> {
    let storm = storms::find(&args.storm)?;
    let ledger =
        args.ledger.clone().unwrap_or_else(|| PathBuf::from(format!("runs/storms/{}.jsonl", storm.name)));
    let campaign = Campaign {
        seeds: args.seeds.clone(),
        jobs: args.jobs,
        ledger: ledger.clone(),
        commit: args.commit.clone(),
    };
    let bar = bar();
    bar.set_length(args.seeds.end - args.seeds.start);
    let told = |line: &Line| {
        bar.inc(1);
        if line.verdict != Some(Verdict::Held) {
            bar.println(format!(
                "{}; again with: seawall storm run {} --seed {}",
                failure(line),
                args.storm,
                line.seed
            ));
        }
    };
    let summary = campaign.run(&storm, &told)?;
    bar.finish_and_clear();
    println!(
        "{}: {} held, {} did not, {} did not run; ledger {}",
        storm.name,
        summary.held,
        summary.not_held.len(),
        summary.broken.len(),
        ledger.display()
    );
    for line in summary.not_held.iter().chain(&summary.broken) {
        println!("{}; again with: seawall storm run {} --seed {}", failure(line), args.storm, line.seed);
    }
    Ok(summary.not_held.is_empty() && summary.broken.is_empty())
}

fn failure(line: &Line) -> String {
    format!("seed {}: {}", line.seed, line.failed.join(", "))
}
