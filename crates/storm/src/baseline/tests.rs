//! Cases that can be computed by hand, and the day that the calibration was fitted to.

use super::*;
use crate::record::{
    Account, Capacity, FORMAT, Lane, Lanes, MarkPoint, Market, Network, Offered, Position, Safety, Tier,
    Totals, Trace, Verdict,
};

fn position(lots: i64, cost_atoms: i128) -> Position {
    Position { market: 0, lots, cost_atoms, isolated_atoms: None }
}

/// One market at 1,000 ticks; initial margin 10 %, maintenance 5 %, penalty 2 %. Account 1 is long 1,000 lots with
/// 100,000 atoms, account 2 is short as much with ten times that. A block every 100 ms, ten actions in each.
fn run(marks: &[u64]) -> Run {
    let block = |(at, _): (usize, &u64)| Block {
        height: at as u64 + 1,
        view: at as u64 + 1,
        leader: 0,
        time_ms: 100 * (at as u64 + 1),
        begun_ms: None,
        final_ms: 100 * (at as u64 + 1) + 50,
        weight: 0,
        capacity: 10,
        bytes: 0,
        owed: 0,
        rescues: 0,
        trades: 0,
        refused: 0,
        liquidations: 0,
        observations: 0,
    };
    let lane = || Lane {
        bucket_ms: 100,
        offered: Vec::new(),
        sent: 0,
        admitted: 0,
        refused: BTreeMap::new(),
        executed: 0,
        answered: 0,
        missing: 0,
        latency: Latency::default(),
        listing: Latency::default(),
        inclusion: Latency::default(),
        traces: Vec::new(),
    };
    let account = |account, collateral_atoms, positions| Account { account, collateral_atoms, positions };
    Run {
        label: String::new(),
        offered_multiple: None,
        virtual_ms: 100 * marks.len() as u64,
        network: Network {
            validators: Vec::new(),
            quorum: 3,
            faulty: 1,
            places: Vec::new(),
            one_way_ms: Vec::new(),
            bound_ms: 0.0,
        },
        capacity: Capacity {
            cores: 1,
            slowdown: 1.0,
            block_weight: 10,
            rescue_reserve: 10,
            interval_ms: 100,
            actions_per_second: 100.0,
        },
        markets: vec![Market {
            market: 0,
            symbol: "ETH-PERP".into(),
            atoms_per_tick_lot: 1,
            opening_ticks: 1_000,
            tiers: vec![Tier {
                up_to_notional_atoms: 1 << 40,
                initial_ppm: 100_000,
                maintenance_ppm: 50_000,
            }],
            penalty_ppm: 20_000,
            taker_fee_ppm: 0,
            backstop_fund_atoms: 0,
        }],
        book: vec![
            account(0, 0, vec![]),
            account(1, 100_000, vec![position(1_000, 1_000_000)]),
            account(2, 1_000_000, vec![position(-1_000, -1_000_000)]),
        ],
        index_prices: Vec::new(),
        marks: marks
            .iter()
            .enumerate()
            .map(|(at, &ticks)| MarkPoint {
                at_ms: 100 * (at as u64 + 1),
                height: at as u64 + 1,
                market: 0,
                ticks,
                state: "fresh".into(),
            })
            .collect(),
        blocks: marks.iter().enumerate().map(block).collect(),
        lanes: Lanes { rescue: lane(), trade: lane() },
        backlog: Vec::new(),
        faults: Vec::new(),
        heals: Vec::new(),
        liquidations: Vec::new(),
        totals: Totals::default(),
        safety: Safety::default(),
        prediction: None,
    }
}

fn record(run: Run) -> Record {
    Record {
        format: FORMAT,
        scenario: "by-hand".into(),
        scenario_text: String::new(),
        scenario_digest: String::new(),
        hypothesis: String::new(),
        seed: 3,
        version: String::new(),
        commit: None,
        wall_ms: 0,
        calibration_us: BTreeMap::new(),
        runs: vec![run],
        criteria: Vec::new(),
        verdict: Verdict::Held,
        caveats: Vec::new(),
        digest: String::new(),
    }
}

/// One keeper with the capital of the book and a generous script.
fn terms() -> Calibration {
    let mut terms = Calibration::committed();
    terms.assumed.keepers = 1;
    terms.assumed.capital_ppm = 1_000_000;
    terms.calibrated.fee_cap_quiet_multiple = 1e6;
    terms
}

fn result(run: Run, terms: &Calibration) -> BaselineRun {
    play(&record(run), terms).unwrap().runs.remove(0)
}

fn top_up(sent_ms: u64, atoms: i128) -> Trace {
    Trace {
        account: 0,
        nonce: 1,
        kind: "deposit".into(),
        helps: Some((1, atoms)),
        to: 0,
        sent_ms,
        refused: None,
        held_ms: None,
        listed_height: None,
        listed_ms: None,
        height: None,
        final_ms: None,
        answer: None,
        missed_blocks: None,
    }
}

/// A hundred times what blocks have room for, in every bucket.
fn crowd(run: &mut Run) {
    let buckets = run.blocks.len() as u64;
    let bucket = |at| Offered { at_ms: 100 * at, sent: 1_000, admitted: 1_000, included: 0, finalized: 0 };
    run.lanes.trade.offered = (0..buckets).map(bucket).collect();
}

#[test]
fn a_keeper_with_room_takes_a_breach_over_in_the_next_block_at_the_mark_less_the_penalty() {
    // At 940 equity is 100,000 - 60,000 = 40,000, below 5 % of 940,000. The penalty is 18,800: 18 ticks of 1,000 lots.
    let out = result(run(&[1_000, 940, 940, 940]), &terms());
    assert_eq!(out.breaches, Breaches { all: 1, served: 1, ..Breaches::default() });
    assert_eq!((out.keepers.sent, out.keepers.won, out.keepers.reverted), (1, 1, 0));
    assert_eq!(out.keepers.gained_atoms, 18_000);
    assert_eq!((out.delay_max_blocks, out.delay.max_ms), (1, 100.0));
    assert_eq!((out.unserved_share, out.bad_debt_atoms), (Some(0.0), 0));
}

#[test]
fn a_keeper_without_capital_for_all_takes_half() {
    // 50,000 of capital: 1,000 lots need 94,000 and gain 18,000; 500 need 47,000 and gain 9,000.
    let mut terms = terms();
    terms.assumed.capital_ppm = 45_455; // Of 1,100,000.
    let out = result(run(&[1_000, 940, 940, 940]), &terms);
    assert_eq!(out.keepers.gained_atoms, 9_000);
    assert_eq!(out.breaches.served, 1, "half of it is enough: 31,000 of equity against 23,500");
}

#[test]
fn of_two_keepers_the_second_pays_for_nothing() {
    let mut terms = terms();
    terms.assumed.keepers = 2;
    let out = result(run(&[1_000, 940, 940, 940]), &terms);
    assert_eq!((out.keepers.sent, out.keepers.won, out.keepers.reverted), (2, 1, 1));
    assert!(out.keepers.fees_atoms > 0);
}

#[test]
fn a_script_that_does_not_pay_the_fees_of_the_day_leaves_a_deficit() {
    // At 890 equity is -10,000: no keeper has a reason to come any more.
    let mut crash = run(&[1_000, 1_000, 940, 940, 890, 890]);
    crowd(&mut crash);
    let mut terms = terms();
    terms.calibrated.fee_cap_quiet_multiple = 1.0;
    let out = result(crash, &terms);
    assert_eq!(out.breaches, Breaches { all: 1, too_late: 1, ..Breaches::default() });
    assert_eq!(out.unserved_share, Some(1.0));
    assert_eq!((out.bad_debt_atoms, out.gapped_debt_atoms), (10_000, 0));
    assert_eq!(out.keepers.won, 0);
    assert_eq!(out.trades_included, 60, "blocks are full");
}

#[test]
fn a_price_that_jumps_over_all_equity_is_no_fault_of_keepers() {
    let out = result(run(&[1_000, 890, 950, 890]), &terms());
    assert_eq!(out.breaches, Breaches { all: 1, gapped: 1, ..Breaches::default() });
    assert_eq!((out.bad_debt_atoms, out.gapped_debt_atoms), (10_000, 10_000), "written off once");
    assert_eq!((out.keepers.sent, out.unserved_share), (0, None));
}

#[test]
fn no_keeper_comes_for_less_than_its_transaction_costs() {
    let mut crash = run(&[1_000, 1_000, 940, 940, 940]);
    crowd(&mut crash);
    let mut terms = terms();
    // The transaction costs the whole penalty at a quiet fee, and fees are not quiet.
    terms.assumed.cost_ppm_of_median_penalty = 1_000_000;
    let out = result(crash, &terms);
    assert_eq!((out.keepers.won, out.breaches.served), (0, 0));
    assert_eq!(out.breaches.undecided, 1);
}

#[test]
fn a_breach_that_nobody_serves_in_time_is_left_alone() {
    let mut marks = vec![1_000, 1_000];
    marks.extend([940; 20]);
    let mut crash = run(&marks);
    crowd(&mut crash);
    let mut terms = terms();
    terms.calibrated.fee_cap_quiet_multiple = 1.0;
    terms.assumed.patience_blocks = 10;
    let out = result(crash, &terms);
    assert_eq!(out.breaches, Breaches { all: 1, left_alone: 1, ..Breaches::default() });
    assert_eq!(out.bad_debt_atoms, 0, "its equity has not ended");
}

#[test]
fn a_rescue_in_a_quiet_block_saves_its_account() {
    // Sent at 210, in the block of 300, which is final at 350: 10,000 more are 50,000 against 47,000.
    let mut saved = run(&[1_000, 940, 940, 940]);
    saved.lanes.rescue.traces = vec![top_up(210, 10_000)];
    let mut terms = terms();
    terms.calibrated.fee_cap_quiet_multiple = 0.0;
    let out = result(saved, &terms);
    assert_eq!(out.breaches, Breaches { all: 1, recovered: 1, ..Breaches::default() });
    assert_eq!((out.rescues_included, out.rescue_p99_of_sent_ms), (1, Some(140.0)));
    assert_eq!(out.unserved_share, None, "there was no liquidation");
}

#[test]
fn rescues_wait_behind_whoever_pays_more() {
    let mut crowded = run(&[1_000; 30]);
    crowd(&mut crowded);
    crowded.lanes.rescue.traces = (0..100).map(|at| top_up(100 + at, 1)).collect();
    let out = result(crowded, &terms());
    assert!(out.rescues_included < 50, "{} of 100 in blocks that hold 1 of 100", out.rescues_included);
    assert_eq!(out.rescue_p99_of_sent_ms, None);
    assert!(out.points.iter().skip(1).all(|point| point.lowest_fee_gwei > 0.0));
}

#[test]
fn rescues_that_are_never_final_count_with_the_time_until_the_end() {
    let all = [(0, Some(50)), (10, None), (10, Some(40)), (5_990, None)];
    let bins = bins(6_000, all.into_iter());
    assert_eq!(bins.len(), 2);
    assert_eq!(bins[0], Bin { at_ms: 0, sent: 3, included: 2, p50_ms: 50.0, max_ms: 5_990.0 });
    assert_eq!(bins[1], Bin { at_ms: 5_900, sent: 1, included: 0, p50_ms: 10.0, max_ms: 10.0 });
}

#[test]
fn nobody_is_liquidated_at_a_price_that_is_not_fresh() {
    let mut blind = run(&[1_000, 940, 940]);
    blind.marks[1].state = "stale".into();
    blind.marks[2].state = "stale".into();
    let out = result(blind, &terms());
    assert_eq!((out.breaches.all, out.keepers.sent), (0, 0));
}

#[test]
fn a_block_has_room_for_what_it_carried_or_could_have_carried() {
    let mut block = run(&[1_000]).blocks.remove(0);
    (block.time_ms, block.capacity) = (1_100, 1_000);
    block.weight = 7;
    assert_eq!(room(&block, 1_000, 100.0), 10, "100 a second for 100 ms");
    block.weight = 700;
    assert_eq!(room(&block, 1_000, 100.0), 700);
    block.weight = 0;
    assert_eq!(room(&block, 0, 10_000.0), 1_000, "the limit of the block");
}

#[test]
fn the_same_record_gives_the_same_result_and_another_seed_another() {
    let mut crowded = run(&[1_000, 1_000, 940, 940, 930, 930, 930, 930]);
    crowd(&mut crowded);
    crowded.lanes.rescue.traces = (0..20).map(|at| top_up(100 + at, 1)).collect();
    let mut record = record(crowded);
    let first = play(&record, &terms()).unwrap();
    assert_eq!(first, play(&record, &terms()).unwrap());
    record.seed += 1;
    assert_ne!(first, play(&record, &terms()).unwrap());
}

#[test]
fn only_the_storm_that_it_was_fitted_to_is_calibrated() {
    let mut record = record(run(&[1_000]));
    let terms = Calibration::committed();
    assert!(!play(&record, &terms).unwrap().calibrated);
    record.scenario = terms.calibrated.storm.clone();
    assert!(play(&record, &terms).unwrap().calibrated);
}

const FROM: (u16, u16) = (10, 30);
const TO: (u16, u16) = (11, 0);
const PACE: u64 = 15;

/// The part of the day that `storms/black-thursday.toml` plays, with blocks at even intervals instead of consensus, and
/// prices in straight lines between recorded ones.
fn black_thursday(from: (u16, u16), to: (u16, u16), pace: u64) -> Record {
    use seawall_replay::{ClockTime, book, load};
    const INTERVAL_MS: u64 = 350;
    const PER_BLOCK: u64 = 35;
    let clock = |(hour, minute)| ClockTime::new(hour, minute);
    let replay = load("eth-2020-03-12", clock(from), clock(to)).unwrap();
    let feed = &replay.feeds[0];
    let path: Vec<(u64, u64)> = feed
        .values
        .iter()
        .map(|seen| (seen.visible_ms.saturating_sub(replay.start_ms) / pace, seen.price.0))
        .collect();
    let listing = &replay.markets[0];
    let spec = book::BookSpec { accounts: 2_000, ..book::BookSpec::default() };
    let drawn = book::generate(&replay, &spec, |_, notional| {
        [(1_000_000_000_000, 25_000), (10_000_000_000_000, 50_000)]
            .iter()
            .find(|tier| notional <= tier.0)
            .map_or(100_000, |tier| tier.1)
    })
    .unwrap();
    let virtual_ms = (replay.end_ms - replay.start_ms) / pace;
    let prices: Vec<u64> = (1..=virtual_ms / INTERVAL_MS)
        .map(|at| {
            let now = at * INTERVAL_MS;
            let next = path.iter().position(|point| point.0 > now).unwrap_or(path.len() - 1).max(1);
            let ((from, low), (to, high)) = (path[next - 1], path[next]);
            let share = (now.min(to) - from) as f64 / (to - from) as f64;
            (low as f64 + (high as f64 - low as f64) * share) as u64
        })
        .collect();
    let mut run = run(&prices);
    run.markets[0] = Market {
        market: 0,
        symbol: listing.symbol.clone(),
        atoms_per_tick_lot: listing.atoms_per_tick_lot,
        opening_ticks: listing.first_price.0,
        tiers: [(1_000_000, 25_000, 12_500), (10_000_000, 50_000, 25_000), (4_000_000_000, 100_000, 50_000)]
            .map(|(usd, initial_ppm, maintenance_ppm)| Tier {
                up_to_notional_atoms: usd * 1_000_000,
                initial_ppm,
                maintenance_ppm,
            })
            .into(),
        penalty_ppm: 5_000,
        taker_fee_ppm: 450,
        backstop_fund_atoms: 0,
    };
    run.book = vec![Account { account: 0, collateral_atoms: 0, positions: vec![] }];
    for own in &drawn.accounts {
        run.book.push(Account {
            account: run.book.len() as u64,
            collateral_atoms: own.collateral_atoms,
            positions: own
                .positions
                .iter()
                .map(|own| Position {
                    market: own.market.0,
                    lots: own.lots,
                    cost_atoms: own.cost_atoms,
                    isolated_atoms: own.isolated_collateral,
                })
                .collect(),
        });
    }
    run.capacity.actions_per_second = PER_BLOCK as f64 * 1_000.0 / INTERVAL_MS as f64;
    for (at, block) in run.blocks.iter_mut().enumerate() {
        block.time_ms = (at as u64 + 1) * INTERVAL_MS;
        block.final_ms = block.time_ms + 200;
        block.capacity = 10_000;
    }
    run.lanes.trade.bucket_ms = INTERVAL_MS;
    let offered = |at| Offered { at_ms: at * INTERVAL_MS, sent: 100 * PER_BLOCK, ..Offered::default() };
    run.lanes.trade.offered = (0..run.blocks.len() as u64).map(offered).collect();
    let mut record = record(run);
    record.scenario = "black-thursday".into();
    record
}

#[test]
fn keepers_leave_as_many_liquidations_unserved_on_black_thursday_as_were_recorded() {
    let terms = Calibration::committed();
    let record = black_thursday(FROM, TO, PACE);
    let out = play(&record, &terms).unwrap();
    let share = out.runs[0].unserved_share.unwrap();
    assert!(out.runs[0].breaches.all > 200, "{:?}", out.runs[0].breaches);
    let range = terms.calibrated.unserved_share_low..=terms.calibrated.unserved_share_high;
    assert!(range.contains(&share), "{share} of {:?}", out.runs[0].breaches);
}

const BLACK_THURSDAY: &str = include_str!("../../../../storms/black-thursday.toml");

#[test]
fn black_thursday_follows_the_recorded_prices_and_fees() {
    let storm: toml::Table = BLACK_THURSDAY.parse().unwrap();
    let whole = |value: &toml::Value| value.as_integer().unwrap() as u64;
    let day = Calibration::committed().day["black-thursday"];
    let pace = u64::from(day.pace);
    assert_eq!(whole(&storm["market"]["speed"]), pace);
    let duration_ms = whole(&storm["duration_ms"]);

    // The path: every recorded value of the window, in its order, at its instant.
    let from = (day.from_minute as u16 / 60, day.from_minute as u16 % 60);
    let replay =
        seawall_replay::load("eth-2020-03-12", seawall_replay::ClockTime::new(from.0, from.1), None).unwrap();
    let open = replay.markets[0].first_price.0;
    let values = replay.feeds[0].values.iter();
    let recorded: Vec<(u64, u64)> = values
        .map(|seen| (seen.visible_ms.saturating_sub(replay.start_ms) / pace, seen.price.0))
        .take_while(|seen| seen.0 < duration_ms)
        .collect();
    let path = storm["market"]["synthetic"]["path"].as_array().unwrap();
    assert_eq!(path.len(), recorded.len());
    for (point, (at_ms, ticks)) in path.iter().zip(recorded) {
        assert_eq!(whole(&point["at_ms"]), at_ms);
        let share = ticks as f64 / open as f64 * 1e6;
        assert!((whole(&point["ppm"]) as f64 - share).abs() < 20.0, "{point}: {share}");
    }

    // The load: 100 at the dearest ten minutes, in the others as much less as gas was cheaper.
    let flows = storm["traffic"].as_array().unwrap().iter();
    let flows: Vec<_> = flows.filter(|flow| flow["lane"].as_str() == Some("trade")).collect();
    let first = day.from_minute as usize / 10;
    let gas = &extracts::gas()[first..first + flows.len()];
    assert_eq!(flows.len() as u64 * extracts::GAS_BUCKET_MS / pace, duration_ms);
    let dearest = gas.iter().map(|bucket| bucket.p60_wei).fold(0.0, f64::max);
    for (at, (flow, bucket)) in flows.iter().zip(gas).enumerate() {
        let rate = flow["rate"].as_float().unwrap();
        assert!((rate - 100.0 * bucket.p60_wei / dearest).abs() < 0.06, "{flow}");
        assert_eq!(whole(&flow["from_ms"]), at as u64 * extracts::GAS_BUCKET_MS / pace);
    }
}
