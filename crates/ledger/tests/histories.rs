//! Claims about any history: long random ones, run twice and walked back and forth.

mod common;

use common::*;
use proptest::prelude::*;
use seawall_ledger::*;

fn genesis() -> Ledger {
    Ledger::genesis(&params(), seawall_types::TimeMs(1_000), users(USERS, 300_000_000)).unwrap()
}

/// The part of a report that every validator must agree on.
fn agreed(report: SweepReport) -> SweepReport {
    SweepReport { examined: 0, ..report }
}

#[derive(Default, Debug)]
struct Seen {
    liquidations: u64,
    partial: u64,
    takeovers: u64,
    deleveraged: u64,
    fund: i128,
    insurance: i128,
    socialised: i128,
    uncovered: i128,
    waiting: u64,
    delay: u64,
    fills: u64,
    examined: u64,
    accounts: u64,
}

fn play(seed: u64, blocks: usize, seen: &mut Seen) {
    play_from(Story::new(seed), genesis, blocks, seen);
}

fn play_from(mut story: Story, genesis: fn() -> Ledger, blocks: usize, seen: &mut Seen) {
    let seed = story.rng.0;
    let mut indexed = genesis();
    let mut scanned = genesis();
    scanned.set_sweep_mode(SweepMode::FullScan);
    let mut deltas: Vec<(Script, BlockDelta)> = Vec::new();
    for block in 0..blocks {
        let script = story.script(&indexed);
        let before = indexed.globals().clone();
        let (delta, outcome) = run(&mut indexed, &script);
        let (reference, expected) = run(&mut scanned, &script);
        assert_eq!(delta, reference, "seed {seed}, block {block}: indexed sweep differs from full scan");
        assert_eq!(outcome.receipts, expected.receipts);
        assert_eq!(agreed(outcome.report), agreed(expected.report));
        assert_eq!(indexed.audit(), Ok(()), "seed {seed}, block {block}");
        let report = outcome.report;
        assert_eq!(report.stale_price_liquidations, 0);
        assert!(report.longest_delay_blocks <= u64::from(before.max_wait_blocks), "nobody waits longer");
        assert!(delta.changes.windows(2).all(|pair| pair[0].0 < pair[1].0), "changes are sorted");
        assert!(delta.changes.iter().all(|(_, before, after)| before != after));
        seen.liquidations += report.liquidations;
        seen.partial += report.partial;
        seen.takeovers += report.backstop_takeovers;
        seen.deleveraged += report.deleveraged;
        seen.fund += report.fund_draw.0;
        seen.insurance += report.insurance_draw.0;
        seen.socialised += report.socialised.0;
        seen.uncovered += report.uncovered.0;
        seen.waiting += report.waiting;
        seen.delay = seen.delay.max(report.longest_delay_blocks);
        seen.fills += outcome.receipts.iter().filter(|r| matches!(r, Ok(Receipt::Filled(_)))).count() as u64;
        seen.examined += report.examined;
        seen.accounts += before.accounts;
        deltas.push((script, delta));

        // Now and then: walk back a few blocks, perhaps onto a fork, and return.
        if story.rng.chance(10) {
            let depth = 1 + story.rng.below(deltas.len().min(6) as u64) as usize;
            let tip = records(&indexed);
            for (_, delta) in deltas.iter().rev().take(depth) {
                indexed.revert(delta);
            }
            assert_eq!(indexed.audit(), Ok(()));
            if story.rng.chance(50) {
                let mut fork = Story::new(seed ^ block as u64 ^ 0xf0);
                fork.prices.clone_from(&story.prices);
                let script = fork.script(&indexed);
                let (delta, _) = run(&mut indexed, &script);
                indexed.revert(&delta);
            }
            let at = deltas.len() - depth;
            if story.rng.chance(50) {
                for (_, delta) in &deltas[at..] {
                    indexed.reapply(delta);
                }
            } else {
                for (script, delta) in &deltas[at..] {
                    assert_eq!(&run(&mut indexed, script).0, delta, "seed {seed}: a block run again differs");
                }
            }
            assert_eq!(records(&indexed), tip, "seed {seed}: there and back again");
        }
        // Now and then: restart from the records alone.
        if story.rng.chance(5) {
            let restored = Ledger::from_records(indexed.records()).unwrap();
            assert_eq!(records(&restored), records(&indexed));
            indexed = restored;
        }
    }
}

#[test]
fn the_histories_reach_every_rung_of_the_ladder() {
    let mut seen = Seen::default();
    for seed in 0..30 {
        play(seed, 150, &mut seen);
    }
    println!("{seen:?}");
    assert!(seen.fills > 1_000);
    assert!(seen.partial > 0 && seen.takeovers > 0 && seen.deleveraged > 0);
    assert!(seen.fund > 0 && seen.insurance > 0 && seen.socialised > 0);
    assert!(seen.waiting > 0 && seen.delay > 0);
}

/// 300 accounts with random leverage in three markets.
fn crowd() -> Ledger {
    let mut rng = Rng(11);
    let mut params = params();
    for market in &mut params.markets {
        market.backstop.initial_fund = seawall_types::Atoms(50_000_000_000);
        market.open_interest_cap = seawall_types::Lots(2_000_000);
        market.backstop.capacity_lots = seawall_types::Lots(100_000);
        market.backstop.per_block_lots = seawall_types::Lots(100_000);
    }
    let prices = [50_000i128, 30_000, 2_100];
    let mut accounts: Vec<GenesisAccount> = users(300, 0).collect();
    for pair in accounts.chunks_mut(2) {
        for (at, price) in prices.iter().enumerate() {
            let lots = (5_000_000 / price) as i64 * (1 + rng.below(5) as i64);
            let lots = if rng.chance(50) { lots } else { -lots };
            for (account, lots) in pair.iter_mut().zip([lots, -lots]) {
                let isolated = at == 2;
                let margin = price * i128::from(lots.abs()) * (26 + i128::from(rng.below(400))) / 1_000;
                account.collateral.0 += if isolated { 0 } else { margin };
                account.positions.push(GenesisPosition {
                    market: seawall_types::MarketId(at as u16),
                    lots: seawall_types::Lots(lots),
                    cost: seawall_types::Atoms(price * i128::from(lots)),
                    mode: if isolated {
                        seawall_types::MarginMode::Isolated
                    } else {
                        seawall_types::MarginMode::Cross
                    },
                    isolated: seawall_types::Atoms(if isolated { margin } else { 0 }),
                });
            }
        }
    }
    Ledger::genesis(&params, seawall_types::TimeMs(1_000), accounts.into_iter()).unwrap()
}

/// Calm markets with heavy funding: the index must be exact while it looks at few accounts.
#[test]
fn the_sweep_looks_at_few_accounts_and_misses_none() {
    let mut seen = Seen::default();
    for seed in 100..110 {
        let story = Story { calm: true, ..Story::new(seed) };
        play_from(story, crowd, 300, &mut seen);
    }
    println!("{seen:?}");
    assert!(seen.liquidations > 500);
    assert!(seen.examined * 5 < seen.accounts, "less than a fifth, actions included");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Value is conserved after every block; the index finds what a scan finds; undo and redo are exact;
    /// a restart changes nothing.
    #[test]
    fn every_history_conserves_value_and_can_be_walked_back(seed in any::<u64>()) {
        play(seed, 60, &mut Seen::default());
    }
}
