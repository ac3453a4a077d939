//! Pages of records that were made by hand.

use super::*;
use crate::record::{
    Account, Backlog, Block, Capacity, FORMAT, Fault, Heal, Lanes, Liquidation, MarkPoint, Market, Network,
    Offered, Position, Prediction, PricePoint, Safety, Tier, Totals, Trace, Validator,
};
use std::collections::BTreeMap;

/// A made-up run of a minute: load grows tenfold in its middle, one validator is down for a while, prices fall and are
/// once disputed. `load` is the multiple of capacity in the middle.
fn run(label: &str, load: f64) -> Run {
    let wave = |ms: u64| ((ms / 100) as f64 * 0.37).sin() * 0.5 + ((ms / 100) as f64 * 0.11).cos();
    let busy = |ms: u64| (20_000..40_000).contains(&ms);
    let latency = |base: f64, count: u64| Latency {
        count,
        mean_ms: base * 1.1,
        p50_ms: base,
        p90_ms: base * 1.4,
        p99_ms: base * 1.8,
        p999_ms: base * 2.2,
        max_ms: base * 2.3,
        buckets: (0..16).map(|at| (base * (0.7 + 0.1 * f64::from(at)), count / 16)).collect(),
    };
    let offered = |per_second: f64, busy_by: f64| {
        let bucket = |at_ms| {
            let sent = (per_second * if busy(at_ms) { busy_by } else { 1.0 }) as u64;
            Offered { at_ms, sent, admitted: sent.min(90), included: sent.min(80), finalized: sent.min(80) }
        };
        (0..60).map(|second| bucket(second * 1_000)).collect::<Vec<_>>()
    };
    let traces = (0..600).map(|at| Trace {
        account: 0,
        nonce: at,
        kind: "deposit".into(),
        helps: Some((at % 50 + 1, 1_000_000)),
        to: 0,
        sent_ms: at * 97,
        refused: None,
        held_ms: Some(at * 97 + 80),
        listed_height: Some(at / 4),
        listed_ms: Some(at * 97 + 200),
        height: Some(at / 4 + 1),
        final_ms: Some(at * 97 + 420 + (at * 37 % 160)),
        answer: None,
        missed_blocks: Some(0),
    });
    let lane = |per_second, busy_by, base| Lane {
        bucket_ms: 1_000,
        offered: offered(per_second, busy_by),
        sent: 6_000,
        admitted: 5_000,
        refused: BTreeMap::from([("PoolFull".into(), 1_000)]),
        executed: 4_800,
        answered: 40,
        missing: 0,
        latency: latency(base, 4_800),
        listing: latency(base / 2.0, 4_800),
        inclusion: latency(base / 2.0, 4_800),
        traces: Vec::new(),
    };
    let mut rescue = lane(8.0, 1.0, 430.0);
    rescue.traces = traces.collect();
    let price = |ms: u64| (20_000.0 - 0.09 * ms as f64 + 120.0 * wave(ms)) as u64;
    let predicted = |regime: &str, p50: Option<f64>, p99: Option<f64>| PredictedLane {
        regime: regime.into(),
        utilisation: Some(0.4),
        mean_ms: p50,
        p50_ms: p50,
        p99_ms: p99,
        dropped: 0.2,
        carried_per_second: 80.0,
    };
    Run {
        label: label.into(),
        offered_multiple: (!label.is_empty()).then_some(load),
        virtual_ms: 60_000,
        network: Network {
            validators: (0..4)
                .map(|index| Validator {
                    index,
                    place: ["us-east-1", "eu-west-1", "ap-northeast-1", "sa-east-1"][index].into(),
                    byzantine: if index == 3 { vec!["censor".into()] } else { Vec::new() },
                    starts: 1 + u32::from(index == 2),
                })
                .collect(),
            quorum: 3,
            faulty: 1,
            places: ["us-east-1", "eu-west-1", "ap-northeast-1", "sa-east-1"].map(String::from).into(),
            one_way_ms: vec![vec![0.0; 4]; 4],
            bound_ms: 231.0,
        },
        capacity: Capacity {
            cores: 1,
            slowdown: 300.0,
            block_weight: 64,
            rescue_reserve: 32,
            interval_ms: 100,
            actions_per_second: 90.0,
        },
        markets: vec![Market {
            market: 0,
            symbol: "ETH-PERP".into(),
            atoms_per_tick_lot: 100,
            opening_ticks: 20_000,
            tiers: vec![Tier { up_to_notional_atoms: 1 << 50, initial_ppm: 50_000, maintenance_ppm: 25_000 }],
            penalty_ppm: 5_000,
            taker_fee_ppm: 450,
            backstop_fund_atoms: 0,
        }],
        book: (0..=100)
            .map(|account| Account {
                account,
                collateral_atoms: if account == 0 {
                    0
                } else {
                    1_000_000_000 + 60_000_000 * i128::from(account)
                },
                positions: match account {
                    0 => vec![],
                    at => {
                        let lots = if at % 2 == 0 { -10_000 } else { 10_000 };
                        let cost_atoms = i128::from(lots) * 20_000 * 100;
                        vec![Position { market: 0, lots, cost_atoms, isolated_atoms: None }]
                    }
                },
            })
            .collect(),
        index_prices: (0..600)
            .map(|at| PricePoint { at_ms: at * 100, market: 0, ticks: Some(price(at * 100)) })
            .collect(),
        marks: (0..150)
            .map(|at| MarkPoint {
                at_ms: at * 400 + 300,
                height: at + 1,
                market: 0,
                ticks: price(at * 400),
                state: if (60..75).contains(&at) { "disputed" } else { "fresh" }.into(),
            })
            .collect(),
        blocks: (0..150)
            .map(|at| Block {
                height: at + 1,
                view: at + 1 + at / 40,
                leader: at as usize % 4,
                time_ms: at * 400 + 60,
                begun_ms: Some(at * 400 + 50),
                final_ms: at * 400 + 310 + (at * 53 % 70),
                weight: if busy(at * 400) { 64 } else { 12 },
                capacity: 64,
                bytes: 9_000,
                owed: 3,
                rescues: 4,
                trades: 30,
                refused: 1,
                liquidations: 1,
                observations: 3,
            })
            .collect(),
        lanes: Lanes { rescue, trade: lane(45.0, load * 2.0, 610.0) },
        backlog: (0..240)
            .map(|at| Backlog {
                at_ms: at * 250,
                ingress_rescues: at % 3,
                ingress_trades: if busy(at * 250) { 900 } else { 5 },
                pooled_rescues: at % 5,
                pooled_trades: if busy(at * 250) { 4_000 + at } else { 20 },
                height: at / 2,
                running: 4,
            })
            .collect(),
        faults: vec![
            Fault {
                kind: "crash".into(),
                validators: vec![2],
                what: "validator 2 is killed and starts again".into(),
                from_ms: 24_000,
                until_ms: 31_000,
                fired: 1,
            },
            Fault {
                kind: "loss".into(),
                validators: vec![0, 1],
                what: "one message of five gets lost".into(),
                from_ms: 45_000,
                until_ms: 52_000,
                fired: 8_123,
            },
        ],
        heals: vec![Heal {
            what: "crash of 2".into(),
            at_ms: 31_000,
            finality_after_ms: Some(310),
            was_halted: false,
        }],
        liquidations: (0..40)
            .map(|at| Liquidation {
                account: at + 1,
                breached_height: at * 3,
                height: at * 3,
                at_ms: at * 1_200 + 9_000,
            })
            .collect(),
        totals: Totals {
            blocks: 150,
            lost_views: 4,
            block_interval_p50_ms: 400,
            longest_gap_ms: 1_310,
            finality_p50_ms: 280,
            finality_p99_ms: 330,
            accounts_liquidated: 40,
            liquidation_delay_max_blocks: 0,
            bad_debt_atoms: 12_000_000,
            socialised_atoms: 0,
            penalties_atoms: 90_000_000,
        },
        safety: Safety { p1_checked: 600, p1_worst_missed: 1, ..Safety::default() },
        prediction: Some(Prediction {
            rescue: predicted("steady", Some(441.0), Some(760.0)),
            trade: predicted("saturated", Some(900.0), None),
            assumptions: "Blocks every 400 ms (variation 0.2), finality 280 ms, relay 60 ms.".into(),
        }),
    }
}

fn record(runs: Vec<Run>, met: bool) -> Record {
    let criterion = |name: &str, claim: &str, measured, limit, unit: &str, met| Criterion {
        name: name.into(),
        claim: claim.into(),
        measured,
        limit,
        direction: Direction::AtMost,
        unit: unit.into(),
        met,
        detail: String::new(),
    };
    Record {
        format: FORMAT,
        scenario: "made-up".into(),
        scenario_text: "# <b>A made-up storm</b>\nhypothesis = \"x < y & z\"\n".into(),
        scenario_digest: "0123456789abcdef0123".into(),
        hypothesis:
            "Rescues take as long at a hundred times the load as at half of it & nobody is liquidated at a \
                     price that is not fresh."
                .into(),
        seed: 7,
        version: "0.1.0".into(),
        commit: None,
        wall_ms: 83_000,
        calibration_us: BTreeMap::from([("verify_us".into(), 14.4), ("action_us".into(), 10.5)]),
        runs,
        criteria: vec![
            criterion(
                "rescue_p99_ms",
                "99 of 100 rescues are final within the limit",
                Some(774.0),
                900.0,
                "ms",
                true,
            ),
            criterion(
                "forks",
                "no two validators make different blocks final",
                Some(0.0),
                0.0,
                "blocks",
                true,
            ),
            criterion("socialised", "what others pay", Some(0.0213), 0.01, "share", met),
        ],
        verdict: if met { Verdict::Held } else { Verdict::NotHeld },
        caveats: vec!["The book of positions is synthetic.".into()],
        digest: "fedcba9876543210fedc".into(),
    }
}

#[test]
fn a_page_needs_nothing_from_outside_and_no_script() {
    let record = record(vec![run("", 10.0)], true);
    let baseline = baseline::play(&record, &baseline::Calibration::committed()).unwrap();
    let page = html(&record, Some(&baseline));
    for outside in ["http:", "https:", "<script", "<img", "<link", "@import", "url("] {
        let found = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(outside), "{outside}");
    }
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

#[test]
fn a_page_says_verdict_criteria_seed_scenario_and_how_to_run_it_again() {
    let record = record(vec![run("", 10.0)], false);
    let page = html(&record, None);
    for said in [
        "✗ not held",
        "2 of 3 criteria met",
        "2.13 %",
        "at most 1 %",
        "774 ms",
        "seawall storm run made-up --seed 7",
        "&lt;b&gt;A made-up storm&lt;/b&gt;",
        "300 times as long as calibrated",
        "validator 2 is killed and starts again",
        "The book of positions is synthetic.",
        "prefers-color-scheme: dark",
        "width=device-width",
    ] {
        assert!(page.contains(said), "the page does not say `{said}`");
    }
    assert!(!page.contains("fee-ordered"), "there is no baseline");
    let missed = page.find("what others pay").unwrap();
    assert!(missed < page.find("99 of 100 rescues").unwrap(), "what is not met comes first");
}

#[test]
fn charts_have_their_series_and_shade_faults() {
    let run = run("", 10.0);
    for chart in
        [distribution(&run, None), over_time(&run, None), backlog(&run, None), throughput(&run), blocks(&run)]
    {
        assert!(!chart.is_empty(), "{}", chart.title);
        let svg = chart.svg();
        assert!(svg.starts_with("<svg role=\"img\"") && svg.contains("viewBox"), "{}", &svg[..120]);
        assert!(svg.contains("polyline"), "{}", chart.title);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", chart.title);
    }
    let fault = "#E69F00";
    assert!(over_time(&run, None).svg().contains(fault) && !distribution(&run, None).svg().contains(fault));
    assert_eq!(prices(&run, 0).bands.len(), 1, "one span of disputed prices");
    assert!(prices(&run, 1).is_empty(), "there is no such market");
}

#[test]
fn a_sweep_shows_its_runs_beside_each_other_and_a_record_without_data_still_makes_a_page() {
    let runs = [0.5, 1.0, 10.0, 100.0].map(|load| run(&format!("{load}x"), load));
    let page = html(&record(runs.into(), true), None);
    assert!(page.contains("Over the sweep") && page.contains("At 100x"));
    let mut empty = run("", 1.0);
    for lane in [&mut empty.lanes.rescue, &mut empty.lanes.trade] {
        (lane.offered, lane.traces, lane.latency) = Default::default();
    }
    (empty.blocks, empty.marks, empty.backlog, empty.liquidations) = Default::default();
    (empty.index_prices, empty.faults, empty.heals, empty.prediction) = Default::default();
    let page = html(&record(vec![empty], true), None);
    assert!(page.contains("Criteria"));
    assert!(html(&record(vec![], true), None).contains("Criteria"));
}

#[test]
fn numbers_are_written_for_people() {
    assert_eq!(span(3.25), "3.25 ms");
    assert_eq!(span(774.4), "774 ms");
    assert_eq!(span(83_000.0), "83.0 s");
    assert_eq!(money(1_234_567_000_000), "$1.23M");
    assert_eq!(money(-2_500_000), "$-2.50");
    assert_eq!(grouped(1_234_567.0), "1,234,567");
    assert_eq!(percent(0.5), "50 %");
    assert_eq!(quantity(1.1, "ratio"), "1.1 x");
    assert_eq!(quantity(0.0, "blocks"), "0 blocks");
}

#[test]
fn a_report_is_written_as_a_page_and_as_data_that_reads_back() {
    let directory = tempfile::tempdir().unwrap();
    let record = record(vec![run("", 10.0)], true);
    let (page, data) = write(&directory.path().join("made-up-7"), &record, None).unwrap();
    assert_eq!(std::fs::read_to_string(page).unwrap(), html(&record, None));
    let data: serde_json::Value = serde_json::from_slice(&std::fs::read(data).unwrap()).unwrap();
    let read: Record = serde_json::from_value(data["record"].clone()).unwrap();
    // Floats are read back but for their last bit; everything else is what it was.
    assert_eq!(read.runs[0].blocks, record.runs[0].blocks);
    assert_eq!((read.digest, read.criteria.len()), (record.digest.clone(), record.criteria.len()));
}
