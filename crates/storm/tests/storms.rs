//! Short storms. Each test is a claim about the lab or about the chain in it; one binary, so that the consensus stack is
//! linked once.

use seawall_storm::{
    campaign::{Campaign, Line},
    record::{Criterion, Record, Verdict},
    run::{Options, run},
    scenario::Scenario,
};
use std::sync::Mutex;

/// Four validators near each other, a calm or a falling market, rescues and some trades.
fn scenario(duration_ms: u64, rest: &str) -> Scenario {
    let text = format!(
        r#"
hypothesis = "it holds"
duration_ms = {duration_ms}
drain_ms = 3_000
warmup_ms = 500

[network]
regions = [{{ name = "eu-west-1", validators = 2 }}, {{ name = "eu-central-1", validators = 2 }}]
jitter_ms = 1

[capacity]
slowdown = 40
block_weight = 40

[market]
speed = 10

[market.synthetic]
symbols = ["BTC"]
path = [{{ at_ms = 0, ppm = 1_000_000 }}, {{ at_ms = 500, ppm = 1_000_000 }}, {{ at_ms = 2_500, ppm = 900_000 }}]
noise_ppm = 200

[book]
accounts = 60
traders = 40

[[traffic]]
lane = "rescue"
per_second = 8

[[traffic]]
lane = "trade"
rate = 0.2
{rest}
"#
    );
    Scenario::parse("test.toml", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn ran(scenario: &Scenario, seed: u64) -> Record {
    run(scenario, &Options { seed, ..Options::default() }).unwrap_or_else(|error| panic!("{error}"))
}

fn criterion<'a>(record: &'a Record, name: &str) -> &'a Criterion {
    record.criteria.iter().find(|own| own.name == name).unwrap_or_else(|| panic!("no criterion {name}"))
}

/// Safety holds whatever else does not.
fn safe(record: &Record) {
    for name in ["forks", "conservation", "stale_price_liquidations", "p1", "validators"] {
        let own = criterion(record, name);
        assert!(own.met, "{own:?}");
    }
}

fn held(record: &Record) {
    let unmet: Vec<_> = record.criteria.iter().filter(|own| !own.met).collect();
    assert!(unmet.is_empty(), "{unmet:?}");
    assert_eq!(record.verdict, Verdict::Held);
}

const CALM: &str =
    "\n[criteria]\nrescues_missing = 0\nliquidation_delay_blocks = 0\nliquidated_at_least = 1\n";

#[test]
fn the_same_seed_gives_the_same_record_and_another_gives_another() {
    let storm = scenario(3_000, CALM);
    let (first, again, other) = (ran(&storm, 7), ran(&storm, 7), ran(&storm, 8));
    held(&first);
    assert_eq!(first.digest, again.digest);
    assert_eq!(first.runs, again.runs);
    assert_ne!(first.digest, other.digest);
    let run = &first.runs[0];
    assert!(run.lanes.rescue.executed > 10 && run.lanes.trade.executed > 10, "{:?}", run.totals);
    assert!(run.safety.p1_checked > 10, "{:?}", run.safety);
    assert!(run.lanes.rescue.latency.p50_ms > run.network.bound_ms / 2.0);
    assert!(run.prediction.is_some());
    let json = serde_json::to_string(&first).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), first, "a record survives its file");
}

#[test]
fn a_demand_that_cannot_be_met_is_not_met() {
    let record = ran(&scenario(2_000, "\n[criteria]\nrescue_p99_ms = 1\nfinality_p99_ms = 1\n"), 1);
    safe(&record);
    assert_eq!(record.verdict, Verdict::NotHeld);
    for name in ["rescue_p99_ms", "finality_p99_ms"] {
        let own = criterion(&record, name);
        assert!(!own.met && own.measured.is_some_and(|measured| measured > 1.0), "{own:?}");
    }
}

#[test]
fn a_demand_without_anything_to_measure_is_not_met() {
    let record = ran(&scenario(2_000, "\n[criteria]\ncensored_blocks = 5\n"), 1);
    assert_eq!(record.verdict, Verdict::NotHeld);
    assert!(criterion(&record, "censored_blocks").measured.is_none());
}

/// A fault for two of four seconds, and how often it fired.
fn fault(text: &str, seed: u64) -> Record {
    let record = ran(&scenario(4_000, &format!("\n[[fault]]\n{text}\n[criteria]\n")), seed);
    safe(&record);
    let fired = criterion(&record, "faults_fired");
    assert!(fired.met, "{text}: {fired:?}");
    record
}

#[test]
fn a_crashed_validator_comes_back_on_its_disk() {
    for seed in 0..2 {
        let record =
            fault("kind = \"crash\"\nat_ms = 1_000\nuntil_ms = 2_500\nwho = { validators = [1] }", seed);
        let run = &record.runs[0];
        assert_eq!(run.network.validators[1].starts, 2);
        assert!(run.heals[0].finality_after_ms.is_some());
        assert_eq!(run.faults[0].fired, 1);
    }
}

#[test]
fn a_partition_without_a_quorum_halts_and_heals() {
    let record =
        fault("kind = \"partition\"\nat_ms = 1_000\nuntil_ms = 3_000\nwho = { region = \"eu-west-1\" }", 3);
    let heal = &record.runs[0].heals[0];
    assert!(heal.was_halted, "{heal:?}");
    assert!(heal.finality_after_ms.is_some(), "{heal:?}");
    assert!(record.runs[0].totals.longest_gap_ms >= 1_500, "{:?}", record.runs[0].totals);
}

#[test]
fn links_can_lose_delay_double_and_reorder() {
    let who = "at_ms = 1_000\nuntil_ms = 3_000\nwho = { validators = [0] }";
    for (seed, text) in [
        format!("kind = \"loss\"\nshare = 0.3\n{who}"),
        format!("kind = \"delay\"\ndelay_ms = 80\njitter_ms = 20\ntowards = {{ validators = [1] }}\n{who}"),
        format!("kind = \"duplicate\"\nshare = 0.5\n{who}"),
        format!("kind = \"reorder\"\nshare = 0.3\ndelay_ms = 40\n{who}"),
    ]
    .into_iter()
    .enumerate()
    {
        let record = fault(&text, seed as u64);
        assert!(record.runs[0].totals.blocks > 10, "{text}: {:?}", record.runs[0].totals);
    }
}

#[test]
fn an_attack_on_the_next_leaders_is_felt_and_survived() {
    let record = fault("kind = \"hunt_leader\"\nshare = 0.9\nat_ms = 1_000\nuntil_ms = 2_500", 4);
    assert!(record.runs[0].faults[0].fired > 10);
}

#[test]
fn feeds_can_die_freeze_and_lie_and_clocks_can_be_wrong() {
    for (seed, text) in [
        "kind = \"feed_death\"\nat_ms = 500\nwho = { validators = [2] }",
        "kind = \"feed_freeze\"\nat_ms = 500\nwho = { validators = [2] }",
        "kind = \"feed_skew\"\nskew_ppm = 50_000\nat_ms = 500\nwho = { validators = [2] }",
        "kind = \"clock_skew\"\ndelay_ms = 300\nwho = { validators = [2] }",
    ]
    .into_iter()
    .enumerate()
    {
        let record = fault(text, seed as u64);
        assert!(record.runs[0].totals.accounts_liquidated > 0, "{text}: {:?}", record.runs[0].totals);
    }
}

#[test]
fn one_of_four_may_do_what_it_likes() {
    for (seed, text) in [
        "kind = \"censor\"\naccounts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
        "kind = \"withhold_observations\"",
        "kind = \"never_propose\"",
        "kind = \"list_phantoms\"",
        "kind = \"lie_price\"\nppm = 3_000_000",
        "kind = \"lie_time\"\nclock_ms = 3_600_000",
    ]
    .into_iter()
    .enumerate()
    {
        let rest =
            format!("\n[[byzantine]]\n{text}\nvalidators = [1]\n[criteria]\nliquidated_at_least = 1\n");
        let record = ran(&scenario(4_000, &rest), seed as u64);
        safe(&record);
        held(&record);
    }
}

#[test]
fn a_validator_that_runs_twice_forks_nothing() {
    for seed in 0..2 {
        let rest = "\n[[byzantine]]\nkind = \"equivocate\"\nvalidators = [1]\n[criteria]\n";
        let record = ran(&scenario(5_000, rest), seed);
        safe(&record);
        assert!(criterion(&record, "faults_fired").met, "{:?}", record.runs[0].faults);
        assert!(record.runs[0].totals.blocks > 10, "{:?}", record.runs[0].totals);
    }
}

#[test]
fn a_campaign_goes_on_where_it_stopped_and_names_the_seeds_that_failed() {
    let directory = std::env::temp_dir().join(format!("seawall-campaign-{}", std::process::id()));
    let ledger = directory.join("test.jsonl");
    let storm = scenario(1_000, "\n[criteria]\nrescue_p99_ms = 1\n");
    let told = Mutex::new(Vec::new());
    let listen = |line: &Line| told.lock().unwrap().push(line.seed);
    let campaign = |seeds| Campaign { seeds, jobs: 1, ledger: ledger.clone(), commit: Some("abc".into()) };
    let first = campaign(0..1).run(&storm, &listen).unwrap();
    assert_eq!((first.held, first.not_held.len()), (0, 1));
    // A torn line is run again, a whole one is not.
    let whole = std::fs::read_to_string(&ledger).unwrap();
    std::fs::write(&ledger, format!("{whole}{{\"scenario\":\"te")).unwrap();
    let second = campaign(0..2).run(&storm, &listen).unwrap();
    assert_eq!(*told.lock().unwrap(), [0, 1]);
    assert_eq!(second.not_held.iter().map(|line| line.seed).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(second.not_held[0].failed, ["rescue_p99_ms"]);
    std::fs::remove_dir_all(directory).unwrap();
}
