//! What the table promises, claim by claim.

mod common;
use common::*;

const SIZES: [usize; 7] = [1, 4, 5, 6, 7, 10, 13];

#[test]
fn a_quorum_is_all_but_the_faulty() {
    for (n, f, q) in [(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 3), (5, 1, 4), (6, 1, 5), (7, 2, 5), (10, 3, 7)]
    {
        let committee = Committee::new(n).unwrap();
        assert_eq!((committee.faults(), committee.quorum()), (f, q), "n = {n}");
    }
    assert_eq!(Committee::new(0), Err(CommitteeError::Size(0)));
    assert_eq!(Committee::new(201), Err(CommitteeError::Size(201)));
}

#[test]
fn agreement_moves_the_price_and_stays_fresh() {
    for n in SIZES {
        let mut chain = Chain::new(n);
        for price in [100_000, 101_000, 103_000, 99_000, 95_500] {
            let step = chain.all(250, at(price));
            let now = chain.oracle.state().head.time;
            assert_eq!(step.marks, [(M, Mark::new(Fresh, PriceTicks(price), now))], "n = {n}");
            assert_eq!(step.events, []);
        }
    }
}

#[test]
fn no_price_of_any_kind_ages_to_stale_at_the_limit_and_not_before() {
    let silent = None;
    let zero = Some(report(0, 0, 3));
    let below = Some(report(0, 100_000, 3));
    let above = at(10_000_001);
    let half_above = Some(report(100_000, 10_000_001, 3));
    let reversed = Some(report(100_001, 100_000, 3));
    let sourceless = Some(report(100_000, 100_000, 0));
    for said in [silent, zero, below, above, half_above, reversed, sourceless] {
        let mut chain = Chain::new(4);
        chain.all(1_000, at(PRICE));
        let updated = chain.record().updated;
        chain.run(10, said);
        assert_eq!(chain.state(), Fresh, "{said:?}");
        let step = chain.all(1, said);
        assert_eq!(step.marks, [(M, Mark::new(Stale, PriceTicks(PRICE), updated))], "{said:?}");
        assert_eq!(step.events, [OracleEvent::State { market: M, from: Fresh, to: Stale }]);
    }
}

#[test]
fn an_observation_that_names_a_market_twice_has_no_price_for_it_and_unknown_markets_are_ignored() {
    let mut oracle =
        Oracle::genesis(params(&[market(), market()]), 1, &[Some(PriceTicks(PRICE)); 2], TimeMs(START))
            .unwrap();
    let good = report(PRICE + 1, PRICE + 1, 3);
    let prices = [(M, good), (MarketId(1), good), (M, good), (MarketId(2), good), (MarketId(u16::MAX), good)];
    let said = [Reported { author: ValidatorId(0), seq: 1, prices: &prices }];
    let step = oracle.step(Height(1), TimeMs(START + 1), &said).unwrap();
    assert_eq!(step.marks.iter().map(|(market, _)| *market).collect::<Vec<_>>(), [MarketId(1)]);
    assert_eq!(oracle.state().reporters[0].reports, [None, Some(good)]);
}

#[test]
fn a_price_that_repeats_is_not_stale() {
    let mut chain = Chain::new(4);
    chain.run(7_200, at(PRICE));
    assert_eq!(chain.state(), Fresh);
    assert_eq!(chain.record().updated, chain.oracle.state().head.time);
}

#[test]
fn confirmed_jumps_are_fresh_at_once_however_large() {
    for jumped in [PRICE * 10, PRICE / 10, PRICE * 65 / 100, PRICE * 3 / 2, 1, 10_000_000] {
        for n in SIZES {
            let mut chain = Chain::new(n);
            let step = chain.all(1_000, at(jumped));
            assert_eq!((chain.state(), chain.price()), (Fresh, jumped));
            let event = OracleEvent::JumpConfirmed {
                market: M,
                from: Some(PriceTicks(PRICE)),
                to: PriceTicks(jumped),
            };
            assert_eq!(step.events, [event]);
        }
    }
}

#[test]
fn jumps_that_the_sources_do_not_bear_out_are_disputed_at_once() {
    let too_few_sources = Some(report(80_000, 80_000, 1));
    let half_the_sources = Some(report(65_000, 100_000, 2));
    let half_upwards = Some(report(100_000, 1_000_000, 2));
    // One of the two medians is beyond the gate, and so is their midpoint.
    let just_high = Some(report(103_000, 108_000, 4));
    let just_low = Some(report(92_500, 97_000, 4));
    for said in [too_few_sources, half_the_sources, half_upwards, just_high, just_low] {
        for n in SIZES {
            let mut chain = Chain::new(n);
            let step = chain.all(1_000, said);
            assert_eq!((chain.state(), chain.price()), (Disputed, PRICE), "n = {n}, {said:?}");
            assert!(matches!(
                step.events[0],
                OracleEvent::PriceDisputed { last: Some(PriceTicks(PRICE)), .. }
            ));
            assert_eq!(
                chain.record().disputed,
                Some(PriceTicks((said.unwrap().low.0 + said.unwrap().high.0) / 2))
            );
        }
    }
}

#[test]
fn sources_that_split_in_two_dispute_even_a_price_inside_the_gate() {
    // The midpoint moves by 4 %, but one half of the sources is 8 % away from the other.
    let mut chain = Chain::new(4);
    chain.all(1_000, Some(report(92_000, 100_000, 4)));
    assert_eq!((chain.state(), chain.price()), (Disputed, PRICE));
}

#[test]
fn the_bands_edge_is_inside() {
    for (third, corroborates) in [(101_000, true), (101_001, false), (99_000, true), (98_999, false)] {
        let mut chain = Chain::new(4);
        // Two at 100,000 and one abstainer: the third decides.
        let said = [(0, at(PRICE)), (1, at(PRICE)), (2, at(third)), (3, None)];
        assert_eq!(chain.observe(1_000, &said).marks.len() == 1, corroborates, "{third}");
    }
}

#[test]
fn the_gates_edge_is_no_jump() {
    for (price, jumps) in [(105_000, false), (105_001, true), (95_000, false), (94_999, true)] {
        let mut chain = Chain::new(4);
        chain.all(1_000, Some(report(price, price, 1)));
        assert_eq!(chain.state() == Disputed, jumps, "{price}");
    }
}

#[test]
fn honest_reports_either_side_of_the_gates_edge_confirm_each_other() {
    for prices in [[94_500, 94_800, 94_900, 95_100], [105_400, 105_100, 105_050, 104_900]] {
        let mut chain = Chain::new(4);
        let said: Vec<_> = prices.into_iter().map(at).enumerate().collect();
        chain.observe(1_000, &said);
        assert_eq!(chain.state(), Fresh);
        assert_ne!(chain.price(), PRICE);
    }
}

#[test]
fn a_dispute_ends_by_confirmation_or_by_return_and_by_nothing_else() {
    let doubted = Some(report(80_000, 80_000, 1));
    for (end, price) in [(at(80_000), 80_000), (Some(report(99_000, 99_000, 1)), 99_000)] {
        let mut chain = Chain::new(4);
        chain.run(10, doubted);
        assert_eq!(chain.state(), Disputed);
        // Silence does not end it, for longer than a price may age.
        chain.run(20, None);
        assert_eq!(chain.state(), Disputed);
        chain.all(1_000, end);
        assert_eq!((chain.state(), chain.price()), (Fresh, price));
    }
}

#[test]
fn a_long_dispute_ends_in_reopening_and_an_endless_one_in_quarantine() {
    let doubted = Some(report(80_000, 80_000, 1));
    let mut chain = Chain::new(4);
    chain.run(61, doubted);
    chain.all(1_000, at(80_000));
    assert_eq!((chain.state(), chain.price()), (Reopening, 80_000));

    let mut chain = Chain::new(4);
    chain.run(3_600, doubted);
    assert_eq!(chain.state(), Disputed);
    chain.run(1, doubted);
    assert_eq!(chain.state(), Quarantined);
    chain.run(100, at(PRICE));
    assert_eq!((chain.state(), chain.price()), (Quarantined, PRICE));
}

#[test]
fn a_market_with_one_source_needs_no_second() {
    for jumped in [PRICE * 2, PRICE / 2] {
        let mut chain = Chain::with(4, MarketParams { min_sources: 1, ..market() }, Some(PRICE));
        chain.all(1_000, Some(report(jumped, jumped, 1)));
        assert_eq!((chain.state(), chain.price()), (Fresh, jumped));
    }
}

#[test]
fn a_venue_off_by_35_percent_is_shrugged_off_by_every_validator_with_three() {
    let mut feeds = Sources::new(&[SourceParams {
        max_age_ms: 120_000,
        max_vote_age_ms: 0,
        max_ahead_ms: 1_000,
        min_price: PriceTicks(1),
        max_price: PriceTicks(10_000_000),
    }])
    .unwrap();
    let mut chain = Chain::new(4);
    for minute in 0..30 {
        // Falls 2 % a minute; the third venue is 35 % below all along.
        let price = PRICE - PRICE * 2 * minute / 100;
        let now = TimeMs(START + minute * 60_000);
        for (venue, quote) in [price, price + 100, price * 65 / 100].into_iter().enumerate() {
            feeds.update(SourceId(venue as u16), M, PriceTicks(quote), now).unwrap();
        }
        for second in 1..=30 {
            let now = TimeMs(now.0 + second * 2_000);
            let said = feeds.report(now).first().map(|(_, report)| *report);
            chain.all(2_000, said);
            assert_eq!((chain.state(), chain.price()), (Fresh, price));
        }
    }
}

#[test]
fn f_abstainers_cannot_make_a_market_stale() {
    for n in SIZES {
        let mut chain = Chain::new(n);
        let said: Vec<_> = (chain.f..n).map(|author| (author, at(PRICE))).collect();
        for _ in 0..1_000 {
            chain.observe(1_000, &said);
            assert_eq!(chain.state(), Fresh, "n = {n}");
        }
        // One more abstainer can.
        for _ in 0..25 {
            let mut said = said.clone();
            said[0].1 = None;
            chain.observe(1_000, &said);
        }
        assert_eq!(chain.state(), Stale, "n = {n}");
    }
}

#[test]
fn f_liars_move_the_price_nowhere_beyond_the_honest_ones() {
    let lies = [Some(report(1, 1, 64)), at(10_000_000), Some(report(0, 0, 0)), at(PRICE * 65 / 100), None];
    for n in SIZES {
        for lie in lies {
            let mut chain = Chain::new(n);
            for _ in 0..100 {
                let said: Vec<_> =
                    (0..n)
                        .map(|author| {
                            if author < chain.f { (author, lie) } else { (author, at(PRICE + author as u64)) }
                        })
                        .collect();
                chain.observe(1_000, &said);
                assert_eq!(chain.state(), Fresh, "n = {n}");
                assert!((PRICE + chain.f as u64..PRICE + n as u64).contains(&chain.price()));
            }
        }
    }
}

#[test]
fn f_liars_cannot_dispute_a_true_jump_by_withholding_their_confirmation() {
    let jumped = 80_000;
    for n in [4, 5, 6, 7, 10, 13] {
        let mut chain = Chain::new(n);
        chain.all(1_000, at(PRICE));
        // Their leader carries as few honest reports of the jump as it can; they report it, unconfirmed.
        let withheld = Some(report(jumped, jumped, 1));
        let said: Vec<_> = (0..chain.q())
            .map(|author| (author, if author < chain.f { withheld } else { at(jumped) }))
            .collect();
        for _ in 0..9 {
            chain.observe(1_000, &said);
            assert_eq!((chain.state(), chain.price()), (Fresh, PRICE), "n = {n}");
        }
        // The next honest leader carries what it has.
        let said: Vec<_> =
            (0..n).map(|author| (author, if author < chain.f { withheld } else { at(jumped) })).collect();
        chain.observe(1_000, &said);
        assert_eq!((chain.state(), chain.price()), (Fresh, jumped), "n = {n}");
    }
}

#[test]
fn leaders_that_pick_the_worst_quorum_in_f_of_every_f_plus_one_turns_change_nothing() {
    // They always leave out the same f honest members and carry f wild lies; an honest leader takes all.
    for n in [4, 5, 6, 7, 10, 13] {
        let mut chain = Chain::new(n);
        let (f, q) = (chain.f, chain.q());
        for turn in 0..3_000usize {
            let price = PRICE + (turn as u64 % 40) * 20;
            let honest_turn = turn % (f + 1) == f;
            let said: Vec<_> = (0..if honest_turn { n } else { q })
                .map(|author| (author, if author < f { at(PRICE * 10) } else { at(price) }))
                .collect();
            chain.observe(TURN, &said);
            assert_eq!(chain.state(), Fresh, "n = {n}, turn {turn}");
            assert!((PRICE..=PRICE + 780).contains(&chain.price()));
        }
    }
}

#[test]
fn leaders_that_pick_the_worst_quorum_in_every_turn_change_nothing_if_nobody_lies() {
    // Which quorum they leave in changes as slowly as the reports' age allows.
    for n in [4, 5, 6, 7, 10, 13] {
        let mut chain = Chain::new(n);
        let q = chain.q();
        for turn in 0..3_000usize {
            let price = PRICE + (turn as u64 % 40) * 20;
            let said: Vec<_> = (0..q).map(|member| ((member + turn / 7) % n, at(price))).collect();
            chain.observe(TURN, &said);
            assert_eq!(chain.state(), Fresh, "n = {n}, turn {turn}");
        }
    }
}

#[test]
fn all_sources_die_and_return() {
    let mut chain = Chain::new(4);
    chain.run(5, at(PRICE));
    let updated = chain.record().updated;
    chain.run(120, None);
    assert_eq!(chain.state(), Stale);
    assert_eq!(chain.record().blind_since, Some(updated));
    // Back, and elsewhere: the sources confirm it, so it is the price; nothing is liquidated on it yet.
    let step = chain.all(1_000, at(70_000));
    assert_eq!((chain.state(), chain.price()), (Reopening, 70_000));
    assert!(step.events.contains(&OracleEvent::State { market: M, from: Stale, to: Reopening }));
    for second in 1..30 {
        chain.all(1_000, at(70_000 + second));
        assert_eq!((chain.state(), chain.price()), (Reopening, 70_000 + second));
    }
    let step = chain.all(1_000, at(70_000));
    assert_eq!(step.events, [OracleEvent::State { market: M, from: Reopening, to: Fresh }]);
    let record = chain.record();
    assert_eq!((record.blind_since, record.grace_since, record.must_reopen), (None, None, false));
}

#[test]
fn a_short_silence_returns_straight_to_fresh() {
    let mut chain = Chain::new(4);
    chain.run(59, None);
    assert_eq!(chain.state(), Stale);
    chain.all(1_000, at(PRICE));
    assert_eq!(chain.state(), Fresh);
    // One more second is an outage.
    chain.run(60, None);
    chain.all(1_000, at(PRICE));
    assert_eq!(chain.state(), Reopening);
}

#[test]
fn prices_that_fail_again_in_the_grace_period_begin_it_anew() {
    let mut chain = Chain::new(4);
    chain.run(61, None);
    chain.run(29, at(PRICE));
    assert_eq!(chain.state(), Reopening);
    chain.run(11, None);
    assert_eq!(chain.state(), Stale);
    assert_eq!(chain.record().blind_since, Some(TimeMs(START)), "blind ever since it left Fresh");
    chain.run(30, at(PRICE));
    assert_eq!(chain.state(), Reopening);
    chain.run(1, at(PRICE));
    assert_eq!(chain.state(), Fresh);

    // A dispute in the grace period as well.
    let mut chain = Chain::new(4);
    chain.run(61, None);
    chain.run(20, at(PRICE));
    chain.run(2, Some(report(50_000, 50_000, 1)));
    assert_eq!(chain.state(), Disputed);
    chain.run(30, at(PRICE));
    assert_eq!(chain.state(), Reopening);
    chain.run(1, at(PRICE));
    assert_eq!(chain.state(), Fresh);
}

#[test]
fn grace_does_not_end_in_a_block_without_a_price() {
    let mut chain = Chain::new(4);
    chain.run(61, None);
    chain.run(30, at(PRICE));
    chain.run(5, None);
    assert_eq!(chain.state(), Reopening);
    chain.run(1, at(PRICE));
    assert_eq!(chain.state(), Fresh);
}

#[test]
fn an_eight_hour_halt_reopens_before_it_is_fresh_and_is_no_quarantine() {
    let hours = 8 * 3_600_000;
    let mut chain = Chain::new(4);
    chain.run(5, at(PRICE));
    // Reports of f members short of a quorum in the first block: those from before the halt do not help.
    let said = [(0, at(70_000)), (1, at(70_000)), (2, None)];
    let step = chain.observe(hours, &said);
    assert_eq!((chain.state(), chain.price()), (Stale, PRICE));
    assert_eq!(step.events[0], OracleEvent::Halted { gap_ms: hours });
    chain.all(1_000, at(70_000));
    assert_eq!((chain.state(), chain.price()), (Reopening, 70_000));
    chain.run(29, at(70_000));
    assert_eq!(chain.state(), Reopening);
    chain.run(1, at(70_000));
    assert_eq!(chain.state(), Fresh);

    // With a quorum in the first block, Reopening begins in it.
    let step = chain.all(hours, at(PRICE));
    assert_eq!((chain.state(), chain.price()), (Reopening, PRICE));
    assert!(step.events.contains(&OracleEvent::State { market: M, from: Fresh, to: Reopening }));
}

#[test]
fn a_halt_in_the_grace_period_begins_it_anew() {
    let mut chain = Chain::new(4);
    chain.all(100_000, at(PRICE));
    chain.run(29, at(PRICE));
    chain.all(100_000, at(PRICE));
    assert_eq!(chain.record().grace_since, Some(chain.oracle.state().head.time));
    chain.run(29, at(PRICE));
    assert_eq!(chain.state(), Reopening);
    chain.run(1, at(PRICE));
    assert_eq!(chain.state(), Fresh);
}

#[test]
fn a_halt_forces_reopening_even_where_the_other_limits_are_longer() {
    let mut chain = Chain::with(
        4,
        MarketParams { stale_after_ms: 300_000, outage_after_ms: 600_000, ..market() },
        Some(PRICE),
    );
    chain.all(60_000, at(PRICE));
    assert_eq!(chain.state(), Fresh);
    chain.all(60_001, at(PRICE));
    assert_eq!(chain.state(), Reopening);
}

#[test]
fn quarantine_counts_running_time_and_ends_by_decision_and_reopening() {
    let mut chain = Chain::new(4);
    chain.run(1_800, None);
    chain.all(8 * 3_600_000, None);
    chain.run(3_600, None);
    assert_eq!(chain.state(), Stale);
    assert!(!chain.oracle.reopen(M), "not quarantined");
    let step = chain.all(1_000, None);
    assert_eq!(step.events, [OracleEvent::State { market: M, from: Stale, to: Quarantined }]);
    chain.run(100, at(PRICE));
    assert_eq!(chain.state(), Quarantined);

    assert!(chain.oracle.reopen(M));
    assert!(!chain.oracle.reopen(MarketId(1)), "no such market");
    assert_eq!(chain.state(), Stale);
    // The clock begins anew: it is not quarantined again at once.
    chain.run(10, None);
    assert_eq!(chain.state(), Stale);
    chain.run(30, at(PRICE));
    assert_eq!(chain.state(), Reopening);
    chain.run(1, at(PRICE));
    assert_eq!(chain.state(), Fresh);
}

#[test]
fn a_market_without_a_price_has_no_mark_until_its_sources_agree_and_then_reopens() {
    let mut chain = Chain::with(4, market(), None);
    assert_eq!(chain.oracle.mark(M), None);
    chain.run(7_200, None);
    assert_eq!((chain.state(), chain.oracle.marks().count()), (Stale, 0));
    chain.all(1_000, Some(report(PRICE, PRICE, 1)));
    assert_eq!((chain.state(), chain.oracle.mark(M)), (Disputed, None));
    let step = chain.all(1_000, at(PRICE));
    assert_eq!(step.marks, [(M, Mark::new(Reopening, PriceTicks(PRICE), chain.record().updated))]);
    chain.run(30, at(PRICE));
    assert_eq!(chain.state(), Fresh);
}

#[test]
fn reports_of_silent_members_count_for_their_age_in_heights_and_in_time() {
    // A row counts in 40 heights and for 10 s. Member 0 goes silent; with another one that says "no price"
    // its report is needed for the quorum.
    let others = [(1, at(PRICE)), (2, at(PRICE)), (3, None)];
    for (after_ms, last_counting) in [(10, 39), (1_000, 10)] {
        let mut chain = Chain::new(4);
        chain.all(1_000, at(PRICE));
        for block in 1..=60 {
            let updates = chain.observe(after_ms, &others).marks.len();
            assert_eq!(updates == 1, block <= last_counting, "every {after_ms} ms, block {block}");
            if block > last_counting {
                break;
            }
        }
    }
}

#[test]
fn silence_of_everyone_is_stale_after_the_reports_age_and_the_price_does() {
    let mut chain = Chain::new(4);
    chain.all(1_000, at(PRICE));
    let two = [(0, at(PRICE)), (1, at(PRICE)), (2, None)];
    for second in 1..=21 {
        chain.observe(1_000, &two);
        assert_eq!(chain.state(), if second <= 20 { Fresh } else { Stale }, "second {second}");
    }
}

#[test]
fn blocks_that_break_the_rules_change_nothing() {
    let mut chain = Chain::new(4);
    chain.seq = 10;
    chain.all(1_000, at(PRICE));
    let before = chain.oracle.clone();
    let (height, time) = (Height(2), TimeMs(START + 1_001));
    let said = |author, seq| Reported { author: ValidatorId(author), seq, prices: &[] };
    let good = [said(0, 12), said(1, 12), said(2, 12)];
    let cases: [(Height, TimeMs, &[Reported<'_>], StepError); 7] = [
        (Height(1), time, &good, StepError::Height { have: Height(1), last: Height(1) }),
        (Height(3), time, &good, StepError::Height { have: Height(3), last: Height(1) }),
        (
            height,
            TimeMs(START + 1_000),
            &good,
            StepError::Time { have: TimeMs(START + 1_000), last: TimeMs(START + 1_000) },
        ),
        (height, time, &good[..2], StepError::TooFew { have: 2, need: 3 }),
        (height, time, &[said(0, 12), said(1, 12), said(4, 12)], StepError::NotMember(ValidatorId(4))),
        (height, time, &[said(0, 12), said(1, 12), said(0, 13)], StepError::Duplicate(ValidatorId(0))),
        (
            height,
            time,
            &[said(0, 12), said(1, 11), said(2, 12)],
            StepError::OldSeq { author: ValidatorId(1), have: 11, last: 11 },
        ),
    ];
    for (height, time, observations, error) in cases {
        assert_eq!(chain.oracle.check(height, time, observations), Err(error));
        assert_eq!(chain.oracle.step(height, time, observations), Err(error));
        assert_eq!(chain.oracle, before);
    }
    chain.oracle.step(height, time, &good).unwrap();
    assert_eq!(chain.oracle.last_seq(ValidatorId(0)), Some(12));
    assert_eq!(chain.oracle.last_seq(ValidatorId(3)), Some(11));
    assert_eq!(chain.oracle.last_seq(ValidatorId(4)), None);
}

#[test]
fn the_ends_of_height_time_and_price_do_not_panic() {
    let wide = MarketParams { max_price: PriceTicks((1 << 40) - 1), ..market() };
    let mut state = Chain::with(1, wide, Some((1 << 40) - 1)).oracle.state().clone();
    state.head.height = Height(u64::MAX - 1);
    state.head.time = TimeMs(u64::MAX - 1);
    let mut oracle = Oracle::restore(params(&[wide]), state).unwrap();
    let prices = [(M, report(u64::MAX, u64::MAX, 255))];
    let said = |seq| [Reported { author: ValidatorId(0), seq, prices: &prices }];
    oracle.step(Height(u64::MAX), TimeMs(u64::MAX), &said(1)).unwrap();
    let end = oracle.step(Height(0), TimeMs(0), &said(2));
    assert!(matches!(end, Err(StepError::Height { .. })));
    assert_eq!(block_time(TimeMs(u64::MAX), &[TimeMs(0)]), Some(TimeMs(u64::MAX)));

    let mut chain = Chain::with(1, wide, Some((1 << 40) - 1));
    chain.all(1_000, at(1));
    assert_eq!((chain.state(), chain.price()), (Fresh, 1));
    chain.all(1_000, at((1 << 40) - 1));
    assert_eq!((chain.state(), chain.price()), (Fresh, (1 << 40) - 1));
}

#[test]
fn genesis_names_what_is_wrong() {
    let begin = |n, initial: &[Option<PriceTicks>]| {
        Oracle::genesis(params(&[market()]), n, initial, TimeMs(START)).map(|_| ())
    };
    let some = [Some(PriceTicks(PRICE))];
    assert_eq!(begin(4, &some), Ok(()));
    assert_eq!(begin(0, &some), Err(GenesisError::Committee(CommitteeError::Size(0))));
    assert_eq!(begin(4, &[]), Err(GenesisError::PriceCount { have: 0, need: 1 }));
    for bad in [0, 10_000_001] {
        assert_eq!(begin(4, &[Some(PriceTicks(bad))]), Err(GenesisError::PriceRange(M)));
    }
    // 49 members need f + 1 = 17 turns, and reports count for the time of 10.
    assert!(matches!(begin(49, &some), Err(GenesisError::Params(ParamsError::ReportAge { .. }))));
}

#[test]
fn restore_takes_what_blocks_produce_and_refuses_what_they_cannot() {
    let good = Chain::new(4).oracle.state().clone();
    let restore = |state: OracleState| Oracle::restore(params(&[market()]), state).map(|_| ());
    assert_eq!(restore(good.clone()), Ok(()));
    type Break = fn(&mut OracleState);
    let breaks: [(Break, RestoreError); 9] = [
        (|state| state.reporters.clear(), RestoreError::Committee(CommitteeError::Size(0))),
        (|state| state.markets.clear(), RestoreError::Markets { have: 0, need: 1 }),
        (|state| state.reporters[2].reports.clear(), RestoreError::Row(ValidatorId(2))),
        (|state| state.reporters[1].reports[0] = Some(report(0, 0, 1)), RestoreError::Row(ValidatorId(1))),
        (|state| state.markets[0].last = Some(PriceTicks(0)), RestoreError::Record(M)),
        (|state| state.markets[0].last = None, RestoreError::Record(M)),
        (|state| state.markets[0].state = Stale, RestoreError::Record(M)),
        (|state| state.markets[0].grace_since = Some(TimeMs(1)), RestoreError::Record(M)),
        (|state| state.markets[0].must_reopen = true, RestoreError::Record(M)),
    ];
    for (index, (damage, error)) in breaks.into_iter().enumerate() {
        let mut state = good.clone();
        damage(&mut state);
        assert_eq!(restore(state), Err(error), "case {index}");
    }
}

#[test]
fn parameters_that_break_a_promise_are_refused_by_name() {
    use ParamsError as E;
    type Break = fn(&mut OracleParams);
    let cases: [(Break, E); 19] = [
        (|p| p.markets = vec![market(); 257], E::TooManyMarkets(257)),
        (|p| p.leader_turn_ms = 0, E::NoLeaderTurn),
        (|p| p.halt_after_ms = u64::MAX, E::DurationTooLong),
        (|p| p.halt_after_ms = 1_999, E::HaltTooShort { have: 1_999, need: 2_000 }),
        (|p| p.markets[0].quarantine_after_ms = u64::MAX, E::DurationTooLong),
        (|p| p.markets[0].min_price = PriceTicks(0), E::PriceRange(M)),
        (|p| p.markets[0].max_price = PriceTicks(1 << 40), E::PriceRange(M)),
        (|p| p.markets[0].max_price = PriceTicks(0), E::PriceRange(M)),
        (|p| p.markets[0].report_max_age_heights = 1, E::ReportHeights { market: M, have: 1, need: 2 }),
        (|p| p.markets[0].report_max_age_ms = 1_999, E::ReportAge { market: M, have: 1_999, need: 2_000 }),
        (|p| p.markets[0].report_max_age_ms = 60_001, E::ReportOutlivesHalt(M)),
        (|p| p.markets[0].band_ppm = Ppm(0), E::NoBand(M)),
        (|p| p.markets[0].gate_ppm = Ppm(1_000_000), E::GateTooWide(M)),
        // 1.05 x (1 - 0.047620) < 1.
        (|p| p.markets[0].band_ppm = Ppm(47_620), E::BandOutsideGate(M)),
        (|p| p.markets[0].min_sources = 65, E::MinSources(M)),
        (|p| p.markets[0].stale_after_ms = 1_999, E::StaleTooShort { market: M, have: 1_999, need: 2_000 }),
        (|p| p.markets[0].outage_after_ms = 9_999, E::OutageTooShort(M)),
        (|p| p.markets[0].grace_ms = 1_999, E::GraceTooShort { market: M, have: 1_999, need: 2_000 }),
        (|p| p.markets[0].quarantine_after_ms = 60_000, E::QuarantineTooShort(M)),
    ];
    let committee = Committee::new(4).unwrap();
    assert_eq!(params(&[market()]).validate(committee), Ok(()));
    for (index, (damage, error)) in cases.into_iter().enumerate() {
        let mut bad = params(&[market()]);
        damage(&mut bad);
        assert_eq!(bad.validate(committee), Err(error), "case {index}");
    }
}
