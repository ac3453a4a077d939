//! The table against a naive model, which keeps the whole history and reads the rules off the module's
//! documentation, and the properties that no history may break.

mod common;
use common::*;
use proptest::prelude::*;

type Said = Vec<(usize, Option<PriceReport>)>;

/// A block as generated: milliseconds after the last, and what each observed member said.
#[derive(Clone, Debug)]
struct Block {
    after_ms: u64,
    said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Model {
    Fresh,
    Stale { since: u64, reopen: bool },
    Disputed { since: u64, reopen: bool },
    Reopening { since: u64, grace: u64 },
    Quarantined,
}

impl Model {
    fn name(self) -> PriceState {
        match self {
            Self::Fresh => Fresh,
            Self::Stale { .. } => Stale,
            Self::Disputed { .. } => Disputed,
            Self::Reopening { .. } => Reopening,
            Self::Quarantined => Quarantined,
        }
    }

    /// Since when it is blind, and whether it must reopen, given the last update.
    fn blind(self, updated: u64) -> (u64, bool) {
        match self {
            Self::Fresh | Self::Quarantined => (updated, false),
            Self::Stale { since, reopen } | Self::Disputed { since, reopen } => (since, reopen),
            Self::Reopening { since, .. } => (since, true),
        }
    }
}

/// Whether `a/b > c/d`.
fn above(a: i128, b: i128, c: i128, d: i128) -> bool {
    a * d > c * b
}

enum Verdict {
    Nothing,
    Good(i128),
    Doubted,
}

fn naive_price(rules: &MarketParams, n: usize, last: Option<i128>, reports: &[PriceReport]) -> Verdict {
    let million = 1_000_000;
    let (f, band, gate) = ((n - 1) / 3, i128::from(rules.band_ppm.0), i128::from(rules.gate_ppm.0));
    let q = n - f;
    if reports.len() < q {
        return Verdict::Nothing;
    }
    let mid = |r: &PriceReport| (i128::from(r.low.0) + i128::from(r.high.0)) / 2;
    // The least midpoint with at least half of all at or below it.
    let price = reports
        .iter()
        .map(mid)
        .filter(|m| 2 * reports.iter().filter(|r| mid(r) <= *m).count() >= reports.len())
        .min()
        .unwrap();
    let up = last.is_some_and(|last| above(price, last, million + gate, million));
    let down = last.is_some_and(|last| above(million - gate, million, price, last));
    let (mut yes, mut no) = (0, 0);
    for r in reports {
        if above((mid(r) - price).abs(), price, band, million) {
            continue;
        }
        let (low, high) = (i128::from(r.low.0), i128::from(r.high.0));
        let mut behind = !above(high - low, low, gate, million);
        if up || down || last.is_none() {
            behind &= r.sources >= rules.min_sources;
        }
        if up {
            let edge = last.unwrap() * (million + gate) * (million - band);
            behind &= low * million * million > edge && high * million * million > edge;
        }
        if down {
            let edge = last.unwrap() * (million - gate) * (million + band);
            behind &= low * million * million < edge && high * million * million < edge;
        }
        if behind { yes += 1 } else { no += 1 }
    }
    if yes >= q {
        Verdict::Good(price)
    } else if yes + no >= q && no > f {
        Verdict::Doubted
    } else {
        Verdict::Nothing
    }
}

/// State, last price and its time after each block.
fn naive(
    rules: &MarketParams,
    n: usize,
    initial: Option<u64>,
    blocks: &[Block],
) -> Vec<(PriceState, Option<u64>, u64)> {
    let halt = params(&[]).halt_after_ms;
    let mut times = vec![START];
    let (mut last, mut updated, mut running) = (initial.map(i128::from), START, START);
    let mut model =
        if initial.is_some() { Model::Fresh } else { Model::Stale { since: START, reopen: true } };
    let mut out = Vec::new();
    for height in 0..blocks.len() {
        let (before, now) = (times[height], times[height] + blocks[height].after_ms);
        times.push(now);
        // What each member said last, if that was not too long ago.
        let mut reports = Vec::new();
        for member in 0..n {
            let found = (0..=height).rev().find_map(|h| {
                blocks[h].said.iter().find(|(author, _)| *author == member).map(|said| (h, said.1))
            });
            if let Some((h, Some(r))) = found {
                let age = now - times[h + 1];
                let valid = r.low.0 >= rules.min_price.0
                    && r.low <= r.high
                    && r.high <= rules.max_price
                    && r.sources > 0;
                if valid
                    && height - h < rules.report_max_age_heights as usize
                    && age <= rules.report_max_age_ms
                {
                    reports.push(r);
                }
            }
        }
        let halted = now - before > halt;
        if halted {
            running = now;
        }
        let (since, mut reopen) = model.blind(updated);
        reopen |= halted;
        model = match model {
            Model::Fresh | Model::Reopening { .. } if halted || now - updated > rules.stale_after_ms => {
                Model::Stale { since, reopen }
            }
            Model::Stale { .. } => Model::Stale { since, reopen },
            Model::Disputed { .. } => Model::Disputed { since, reopen },
            other => other,
        };
        if model != Model::Quarantined {
            let verdict = naive_price(rules, n, last, &reports);
            let (since, reopen) = model.blind(updated);
            match verdict {
                Verdict::Good(price) => {
                    last = Some(price);
                    updated = now;
                    model = match model {
                        Model::Stale { .. } | Model::Disputed { .. }
                            if reopen || now - since > rules.outage_after_ms =>
                        {
                            Model::Reopening { since, grace: now }
                        }
                        Model::Reopening { grace, .. } if now - grace < rules.grace_ms => model,
                        _ => Model::Fresh,
                    };
                }
                Verdict::Doubted => model = Model::Disputed { since, reopen },
                Verdict::Nothing => {}
            }
            let blind = !matches!(model, Model::Fresh);
            if blind && last.is_some() && now - updated.max(running) > rules.quarantine_after_ms {
                model = Model::Quarantined;
            }
        }
        out.push((model.name(), last.map(|price| price as u64), updated));
    }
    out
}

/// Short limits, so that short histories reach every state.
fn rules() -> MarketParams {
    MarketParams {
        report_max_age_heights: 6,
        report_max_age_ms: 8_000,
        stale_after_ms: 9_000,
        outage_after_ms: 20_000,
        grace_ms: 8_000,
        quarantine_after_ms: 40_000,
        ..market()
    }
}

fn said() -> impl Strategy<Value = Option<PriceReport>> {
    let near = prop_oneof![Just(PRICE), 98_000u64..102_000];
    let far = prop_oneof![79_500u64..80_500, 94_000u64..96_000, 104_000u64..106_000];
    let wild = prop_oneof![Just(0), Just(10_000), Just(1_000_000), Just(10_000_001), any::<u64>()];
    prop_oneof![
        6 => (near, 0u64..500, 1u8..4).prop_map(|(low, width, sources)| Some(report(low, low + width, sources))),
        3 => (far, 0u64..500, 1u8..4).prop_map(|(low, width, sources)| Some(report(low, low + width, sources))),
        1 => (wild.clone(), wild, 0u8..4).prop_map(|(low, high, sources)| Some(report(low, high, sources))),
        1 => Just(None),
    ]
}

fn block(n: usize) -> impl Strategy<Value = Block> {
    let q = n - (n - 1) / 3;
    let members = prop::sample::subsequence((0..n).collect::<Vec<_>>(), q..=n);
    let after = prop_oneof![8 => 1u64..3_000, 1 => 3_000u64..25_000, 1 => 50_000u64..100_000];
    // Most blocks agree, or nothing would ever be corroborated.
    let agreed = (said(), prop::collection::vec(said(), n), prop::collection::vec(0u8..10, n)).prop_map(
        |(common, own, dissent)| -> Vec<_> {
            own.into_iter().zip(dissent).map(|(own, dice)| if dice == 0 { own } else { common }).collect()
        },
    );
    (after, members, agreed).prop_map(|(after_ms, members, reports)| Block {
        after_ms,
        said: members.into_iter().map(|member| (member, reports[member])).collect(),
    })
}

fn history() -> impl Strategy<Value = (usize, Option<u64>, Vec<Block>)> {
    let size = prop_oneof![Just(1usize), Just(4), Just(5), Just(6), Just(7), Just(10)];
    size.prop_flat_map(|n| {
        let initial = prop_oneof![4 => Just(Some(PRICE)), 1 => Just(None)];
        (Just(n), initial, prop::collection::vec(block(n), 1..60))
    })
}

/// What honest members and their adversary do in one leader turn.
#[derive(Clone, Debug)]
struct Turn {
    honest_leader: bool,
    /// Move of the true price, in ticks.
    drift: i64,
    /// Whether the true price jumps by a fifth, and to which side.
    jump: Option<bool>,
    /// What each honest member is off by, in ticks.
    noise: Vec<u64>,
    lies: Vec<Option<PriceReport>>,
    /// Which members a dishonest leader leaves out.
    left_out: Vec<usize>,
}

fn turn(n: usize) -> impl Strategy<Value = Turn> {
    let f = (n - 1) / 3;
    (
        prop::bool::weighted(0.3),
        -30i64..=30,
        prop::option::weighted(0.03, any::<bool>()),
        prop::collection::vec(0u64..200, n),
        prop::collection::vec(said(), f),
        prop::sample::subsequence((0..n).collect::<Vec<_>>(), 0..=f),
    )
        .prop_map(|(honest_leader, drift, jump, noise, lies, left_out)| Turn {
            honest_leader,
            drift,
            jump,
            noise,
            lies,
            left_out,
        })
}

fn turns() -> impl Strategy<Value = (usize, Vec<Turn>)> {
    let size = prop_oneof![Just(4usize), Just(5), Just(6), Just(7), Just(10), Just(13)];
    size.prop_flat_map(|n| (Just(n), prop::collection::vec(turn(n), 1..150)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_table_is_what_the_naive_model_says((n, initial, blocks) in history()) {
        let mut chain = Chain::with(n, rules(), initial);
        let expected = naive(&rules(), n, initial, &blocks);
        for (index, (block, expected)) in blocks.iter().zip(expected).enumerate() {
            chain.observe(block.after_ms, &block.said);
            let record = chain.record();
            let got = (record.state, record.last.map(|price| price.0), record.updated.0);
            prop_assert_eq!(got, expected, "block {}", index + 1);
        }
    }

    #[test]
    fn the_order_of_observations_in_a_block_changes_nothing(
        (n, initial, blocks) in history(),
        seed in any::<usize>(),
    ) {
        let mut one = Chain::with(n, rules(), initial);
        let mut other = Chain::with(n, rules(), initial);
        for (index, block) in blocks.iter().enumerate() {
            let mut turned = block.said.clone();
            let by = seed.wrapping_add(index) % turned.len();
            turned.rotate_left(by);
            if index % 2 == 0 {
                turned.reverse();
            }
            let said = one.observe(block.after_ms, &block.said);
            prop_assert_eq!(said, other.observe(block.after_ms, &turned));
            prop_assert_eq!(&one.oracle, &other.oracle);
        }
    }

    #[test]
    fn restored_state_goes_on_alike_and_steps_tell_every_change((n, initial, blocks) in history()) {
        let mut chain = Chain::with(n, rules(), initial);
        for block in &blocks {
            let copy = Oracle::restore(params(&[rules()]), chain.oracle.state().clone());
            prop_assert_eq!(copy.as_ref(), Ok(&chain.oracle));
            let (before, state) = (chain.oracle.mark(M), chain.state());
            let step = chain.observe(block.after_ms, &block.said);
            let after = chain.oracle.mark(M);
            prop_assert_eq!(step.marks.first().map(|(_, mark)| *mark), after.filter(|_| after != before));
            let told = step.events.contains(&OracleEvent::State { market: M, from: state, to: chain.state() });
            prop_assert_eq!(told, state != chain.state());
        }
    }

    #[test]
    fn no_leader_no_f_liars_and_no_jump_take_a_market_with_an_honest_quorum_out_of_fresh((n, turns) in turns()) {
        // Blocks are a leader turn apart; an honest leader comes within f + 1 turns and takes everything.
        // T_stale is 10 turns, twice what the largest committee here needs at least.
        let mut chain = Chain::new(n);
        let (f, q) = (chain.f, chain.q());
        let (mut truth, mut dishonest_run) = (PRICE as i64, 0);
        let mut recent: Vec<(u64, u64)> = Vec::new();
        for turn in turns {
            truth += turn.drift;
            match turn.jump {
                Some(true) if truth < 1_000_000 => truth += truth / 5,
                Some(false) if truth > 10_000 => truth -= truth / 5,
                _ => {}
            }
            // The drift and the noise of f + 1 turns stay within the band.
            let unit = (truth as u64) / 100_000 + 1;
            let honest = |member: usize| truth as u64 + turn.noise[member] * unit / 2;
            let takes_all = turn.honest_leader || dishonest_run == f;
            dishonest_run = if takes_all { 0 } else { dishonest_run + 1 };
            let said: Said = (0..n)
                .filter(|member| takes_all || !turn.left_out.contains(member))
                .map(|member| (member, if member < f { turn.lies[member] } else { at(honest(member)) }))
                .collect();
            assert!(said.len() >= q);
            let all: Vec<_> = (f..n).map(honest).collect();
            recent.push((*all.iter().min().unwrap(), *all.iter().max().unwrap()));
            chain.observe(TURN, &said);
            prop_assert_eq!(chain.state(), Fresh);
            // The price is one that honest members have reported within the last f + 1 turns, or between two.
            if chain.record().updated == chain.oracle.state().head.time {
                let window = &recent[recent.len().saturating_sub(f + 1)..];
                let low = window.iter().map(|range| range.0).min().unwrap();
                let high = window.iter().map(|range| range.1).max().unwrap();
                prop_assert!(low <= chain.price() && chain.price() <= high);
            }
        }
    }

    #[test]
    fn nothing_from_outside_panics(
        prices in prop::collection::vec((any::<u16>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u8>()), 0..20),
        after in any::<u64>(),
        seq in any::<u64>(),
    ) {
        let mut oracle = Oracle::genesis(params(&[market(); 3]), 1, &[None; 3], TimeMs(0)).unwrap();
        let prices: Vec<_> = prices
            .into_iter()
            .map(|(market, low, high, spread, sources)| {
                let report = PriceReport { spread: PriceTicks(spread), ..report(low, high, sources) };
                (MarketId(market % 4), report)
            })
            .collect();
        let said = [Reported { author: ValidatorId(0), seq, prices: &prices }];
        let _ = oracle.step(Height(1), TimeMs(after), &said);
    }
}

#[test]
fn short_histories_reach_every_state() {
    // A model that agrees because nothing ever happens would prove nothing.
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::new();
    let mut moves = std::collections::BTreeSet::new();
    for _ in 0..600 {
        let (n, initial, blocks) = history().new_tree(&mut runner).unwrap().current();
        let states = naive(&rules(), n, initial, &blocks);
        for pair in states.windows(2) {
            *seen.entry(pair[1].0).or_insert(0) += 1;
            moves.insert((pair[0].0, pair[1].0));
        }
    }
    for state in [Fresh, Stale, Disputed, Reopening, Quarantined] {
        assert!(seen.get(&state).is_some_and(|count| *count > 100), "{seen:?}");
    }
    assert!(moves.len() >= 18, "{moves:?}");
}
