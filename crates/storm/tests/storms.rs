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
drain_ms = 1_200
warmup_ms = 300

[network]
regions = [{{ name = "eu-west-1", validators = 2 }}, {{ name = "eu-central-1", validators = 2 }}]
jitter_ms = 1
leader_timeout_ms = 600

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
    let storm = scenario(2_000, CALM);
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
    // A reader may be off by the last bit of a float, and by nothing else.
    let read: Record = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    assert_eq!((&read.digest, read.verdict), (&first.digest, first.verdict));
    let (own, back) = (&first.runs[0], &read.runs[0]);
    assert_eq!((&back.blocks, &back.marks, &back.book), (&own.blocks, &own.marks, &own.book));
    assert_eq!(back.lanes.rescue.traces, own.lanes.rescue.traces);
}

#[test]
fn a_demand_that_is_impossible_or_has_nothing_to_measure_is_not_met() {
    let demands = "\n[criteria]\nrescue_p99_ms = 1\nfinality_p99_ms = 1\ncensored_blocks = 5\n";
    let record = ran(&scenario(1_000, demands), 1);
    safe(&record);
    assert_eq!(record.verdict, Verdict::NotHeld);
    for name in ["rescue_p99_ms", "finality_p99_ms"] {
        let own = criterion(&record, name);
        assert!(!own.met && own.measured.is_some_and(|measured| measured > 1.0), "{own:?}");
    }
    let nothing = criterion(&record, "censored_blocks");
    assert!(!nothing.met && nothing.measured.is_none(), "{nothing:?}");
}

/// Faults within two seconds, all of which must fire.
fn faults(texts: &[&str], seed: u64) -> Record {
    let all: String = texts.iter().map(|text| format!("\n[[fault]]\n{text}\n")).collect();
    let record = ran(&scenario(2_000, &format!("{all}\n[criteria]\nliquidated_at_least = 1\n")), seed);
    safe(&record);
    let fired = criterion(&record, "faults_fired");
    assert!(fired.met, "{texts:?}: {fired:?}");
    record
}

#[test]
fn a_crashed_validator_comes_back_on_its_disk() {
    let record = faults(&["kind = \"crash\"\nat_ms = 500\nuntil_ms = 1_200\nwho = { validators = [1] }"], 0);
    let run = &record.runs[0];
    assert_eq!(run.network.validators[1].starts, 2);
    assert!(run.heals[0].finality_after_ms.is_some());
    assert_eq!(run.faults[0].fired, 1);
}

#[test]
fn a_partition_without_a_quorum_halts_and_heals() {
    let record =
        faults(&["kind = \"partition\"\nat_ms = 400\nuntil_ms = 1_600\nwho = { region = \"eu-west-1\" }"], 3);
    let run = &record.runs[0];
    assert!(run.heals[0].was_halted, "{:?}", run.heals);
    assert!(run.heals[0].finality_after_ms.is_some_and(|ms| ms < 1_000), "{:?}", run.heals);
    assert!(run.totals.longest_gap_ms >= 1_000, "{:?}", run.totals);
}

#[test]
fn links_lose_delay_double_and_reorder_and_the_chain_goes_on() {
    let record = faults(
        &[
            "kind = \"loss\"\nshare = 0.2\nwho = { validators = [0] }",
            "kind = \"delay\"\ndelay_ms = 60\njitter_ms = 20\nwho = { validators = [1] }\ntowards = { validators = [0] }",
            "kind = \"duplicate\"\nshare = 0.5\nwho = { validators = [2] }",
            "kind = \"reorder\"\nshare = 0.2\ndelay_ms = 40\nwho = { validators = [3] }",
        ],
        1,
    );
    assert!(record.runs[0].totals.blocks > 5, "{:?}", record.runs[0].totals);
}

#[test]
fn an_attack_on_the_next_leaders_is_felt_and_survived() {
    let record = faults(&["kind = \"hunt_leader\"\nshare = 0.9\nat_ms = 400\nuntil_ms = 1_000"], 4);
    assert!(record.runs[0].faults[0].fired > 10);
    assert!(record.runs[0].heals[0].finality_after_ms.is_some());
}

#[test]
fn the_feeds_of_one_validator_die_freeze_and_lie_and_its_clock_is_wrong() {
    let record = faults(
        &[
            "kind = \"feed_death\"\nat_ms = 300\nuntil_ms = 700\nwho = { validators = [2] }",
            "kind = \"feed_freeze\"\nat_ms = 700\nuntil_ms = 1_100\nwho = { validators = [2] }",
            "kind = \"feed_skew\"\nskew_ppm = 50_000\nat_ms = 1_100\nwho = { validators = [2] }",
            "kind = \"clock_skew\"\ndelay_ms = 300\nwho = { validators = [2] }",
        ],
        2,
    );
    assert!(criterion(&record, "liquidated_at_least").met, "{:?}", record.runs[0].totals);
}

#[test]
fn one_of_four_may_do_what_it_likes() {
    let liar = |text: &str| format!("\n[[byzantine]]\n{text}\nvalidators = [1]\n");
    let silent = liar("kind = \"withhold_observations\"");
    let false_witness = [
        "list_phantoms\"",
        "lie_price\"\nppm = 3_000_000",
        "lie_time\"\nclock_ms = 3_600_000",
        "never_propose\"",
    ]
    .map(|kind| liar(&format!("kind = \"{kind}")))
    .concat();
    for (seed, liars) in [silent, false_witness].into_iter().enumerate() {
        let record =
            ran(&scenario(2_000, &format!("{liars}\n[criteria]\nliquidated_at_least = 1\n")), seed as u64);
        safe(&record);
        held(&record);
    }
}

#[test]
fn censored_accounts_wait_for_few_blocks() {
    // Each of them stays within its tokens for rescues.
    let list: Vec<u64> = (1..=30).collect();
    let rest = format!(
        "kinds = [\"order\"]\n\n[[traffic]]\nlane = \"rescue\"\nper_second = 14\naccounts = {list:?}\nkinds = [\"cancel_all\"]\n\n\
         [[byzantine]]\nkind = \"censor\"\naccounts = {list:?}\nvalidators = [1]\n\n\
         [criteria]\nrescues_missing = 0\ncensored_blocks = 4\n"
    );
    let record = ran(&scenario(2_000, &rest), 5);
    held(&record);
}

#[test]
fn a_validator_that_runs_twice_forks_nothing() {
    let rest = "\n[[byzantine]]\nkind = \"equivocate\"\nvalidators = [1]\n[criteria]\n";
    let record = ran(&scenario(2_000, rest), 0);
    safe(&record);
    assert!(criterion(&record, "faults_fired").met, "{:?}", record.runs[0].faults);
    assert!(record.runs[0].totals.blocks > 4, "{:?}", record.runs[0].totals);
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
