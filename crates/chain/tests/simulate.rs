//! Whole validators under the deterministic runtime. Each test is a claim; each run is a function of its seed.

mod common;
use common::*;
use commonware_consensus::Viewable as _;
use commonware_glue::simulate::action::{Action as Act, Schedule};
use commonware_runtime::deterministic::{self, PartialWriteMode, WriteConfig};
use commonware_utils::Probability;
use seawall_chain::{submissions::State, zones::ZoneFault};
use seawall_ledger::{Event, RescueParams};
use seawall_oracle::OracleEvent;
use seawall_types::{AccountId, Action, Atoms, Lane, PriceState, Recipient, TimeMs};

const ACCOUNTS: u64 = 200;

#[test]
fn four_honest_validators_agree_through_a_crash_and_liquidate() {
    let fixture = Fixture::new(1, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(1));
    plan(&validators, 1, 50, 4).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    assert!(chain.len() >= 50);
    assert_eq!(chain[0].block.context.view().get(), 1, "the very first view makes a block");
    let moved = chain.iter().filter(|seen| !seen.marks.is_empty()).count();
    assert!(moved > 40, "prices moved in {moved} blocks");
    assert!(liquidations(&chain) > 20, "{} liquidations", liquidations(&chain));
    let actions: usize = chain.iter().map(|seen| seen.answers.len()).sum();
    assert!(actions > 20, "{actions} actions");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let fixture = Fixture::new(2, 4, ACCOUNTS);
    let run = |seed| {
        let validators = Validators::new(&fixture, Path::crash(2));
        let result = plan(&validators, seed, 15, 4).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        let roots: Vec<_> = chain.iter().map(|seen| seen.block.header.state_root).collect();
        (roots, result.state)
    };
    let (first, again, other) = (run(7), run(7), run(8));
    assert!(first.0.len() >= 15);
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
    assert_ne!(first.1, other.1);
}

#[test]
fn a_crashed_validator_catches_up_and_never_contradicts_itself() {
    for seed in 0..3 {
        let fixture = Fixture::new(3, 4, ACCOUNTS);
        let validators = Validators::new(&fixture, Path::crash(3));
        let keys = fixture.keys();
        let victim = (seed % 4) as usize;
        let schedule = Schedule::new()
            .at(at(1_003 + 37 * seed), Act::Crash(keys[victim].clone()))
            .at(at(4_000), Act::Restart(keys[victim].clone()))
            .at(at(5_511), Act::Crash(keys[victim].clone()))
            .at(at(5_600), Act::Restart(keys[victim].clone()));
        plan(&validators, seed, 50, 4).crash(scheduled(schedule)).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        assert_eq!(seat(&validators.seats, victim).starts, 3);
        // `check_run` found no gap, so the victim told of what it missed as well.
        assert!(seat(&validators.seats, victim).blocks.len() >= 50);
        assert!(liquidations(&chain) > 0);
    }
}

/// Runs the validators from power cut to power cut: what was written and not yet synced is torn.
#[test]
fn power_cuts_that_tear_unsynced_writes_lose_nothing_that_was_final() {
    let fixture = Fixture::new(9, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(9));
    let half = Probability::new(1, 2).unwrap();
    let torn = WriteConfig {
        failure_rate: Probability::new(0, 1).unwrap(),
        retention_rate: half,
        mode: PartialWriteMode::Subset,
    };
    let config = deterministic::Config::new()
        .with_seed(9)
        .with_storage_fault_config(deterministic::FaultConfig::default().write(torn));
    let mut runner = deterministic::Runner::new(config);
    let mut heights = Vec::new();
    for life in 0..5 {
        let definition = validators.clone();
        let ((), checkpoint) =
            runner.start_and_recover(|context| live(context, definition, at(4_300 + 211 * life)));
        runner = deterministic::Runner::from(checkpoint);
        heights.push((0..4).map(|index| seat(&validators.seats, index).blocks.len()).max().unwrap());
    }
    check_run(&fixture, &validators.seats);
    assert!(heights.windows(2).filter(|pair| pair[0] < pair[1]).count() >= 3, "{heights:?}");
    assert!((0..4).all(|index| seat(&validators.seats, index).errors.is_empty()));
}

#[test]
fn failing_writes_stop_a_validator_or_are_survived_and_never_yield_a_wrong_answer() {
    let mut hurt = 0;
    for seed in 0..4 {
        let fixture = Fixture::new(10, 4, ACCOUNTS);
        let validators = Validators::new(&fixture, Path::crash(10));
        let faults = deterministic::FaultConfig::default()
            .write(WriteConfig {
                failure_rate: Probability::new(1, 40).unwrap(),
                retention_rate: Probability::new(1, 2).unwrap(),
                mode: PartialWriteMode::Prefix,
            })
            .sync(Probability::new(1, 200).unwrap());
        let mut schedule = Schedule::new()
            .at(at(2_500), Act::SetStorageFault(faults))
            .at(at(2_900), Act::SetStorageFault(deterministic::FaultConfig::default()));
        for (place, key) in (0..).zip(fixture.keys()) {
            schedule = schedule
                .at(at(6_000 + 900 * place), Act::Crash(key.clone()))
                .at(at(6_300 + 900 * place), Act::Restart(key));
        }
        plan(&validators, seed, 60, 4).crash(scheduled(schedule)).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        let quiet = chain.windows(2).any(|pair| {
            pair[1].block.header.time.get() - pair[0].block.header.time.get() > 2_000 * u64::from(SPEED)
        });
        hurt += usize::from(quiet);
    }
    assert!(hurt > 0, "no fault was ever felt");
}

#[test]
fn a_validator_whose_disk_does_not_open_stays_down_and_the_others_go_on() {
    let fixture = Fixture::new(11, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(11));
    let victim = fixture.keys()[2].clone();
    let broken = deterministic::FaultConfig::default().scan(Probability::new(1, 1).unwrap());
    let schedule = Schedule::new()
        .at(at(2_500), Act::Crash(victim.clone()))
        .at(at(2_600), Act::SetStorageFault(broken))
        .at(at(2_700), Act::Restart(victim.clone()))
        .at(at(4_500), Act::SetStorageFault(deterministic::FaultConfig::default()))
        .at(at(4_600), Act::Crash(victim.clone()))
        .at(at(5_000), Act::Restart(victim));
    plan(&validators, 11, 50, 4).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    assert_eq!(seat(&validators.seats, 2).up, [1, 3], "it came up on a broken disk");
    let window = |from: u64, until: u64| {
        let bound = |wall: u64| START + wall * u64::from(SPEED);
        let inside = |seen: &&Seen| (bound(from)..bound(until)).contains(&seen.block.header.time.get());
        chain.iter().filter(inside).count()
    };
    assert!(window(2_700, 4_600) >= 3, "{} blocks while it was down", window(2_700, 4_600));
    assert!(seat(&validators.seats, 2).blocks.len() >= 50, "it caught up");
}

#[test]
fn a_validator_with_another_members_share_does_not_start() {
    let mut fixture = Fixture::new(12, 4, ACCOUNTS);
    let mut members = (*fixture.members).clone();
    members[3].1 = members[2].1.clone();
    fixture.members = std::sync::Arc::new(members);
    let validators = Validators::new(&fixture, Path::crash(12));
    plan(&validators, 12, 10, 3).build().run().unwrap();
    let victim = seat(&validators.seats, 3);
    assert!(victim.up.is_empty());
    assert!(victim.errors[0].contains("another member's"), "{:?}", victim.errors);
}

#[test]
fn all_validators_crash_at_once_and_go_on() {
    let fixture = Fixture::new(4, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(4));
    let mut schedule = Schedule::new();
    for key in fixture.keys() {
        schedule = schedule.at(at(1_500), Act::Crash(key));
    }
    for key in fixture.keys() {
        schedule = schedule.at(at(1_600), Act::Restart(key));
    }
    plan(&validators, 4, 40, 4).crash(scheduled(schedule)).build().run().unwrap();
    check_run(&fixture, &validators.seats);
}

#[test]
fn two_against_two_halts_without_a_fork_and_resumes() {
    let fixture = Fixture::new(5, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(5));
    let keys = fixture.keys();
    let (cut_at, heal_at) = (2_000, 12_000);
    let schedule = split(Schedule::new(), cut_at, &keys[..2], &keys[2..]).at(at(heal_at), Act::Heal(link()));
    plan(&validators, 5, 50, 4).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    let chain_time = |wall: u64| START + wall * u64::from(SPEED);
    // A block that was under way when the links broke may still carry a quorum's votes.
    let during = |seen: &&Seen| {
        let time = seen.block.header.time.get();
        chain_time(cut_at + 200) < time && time < chain_time(heal_at)
    };
    let halted = chain.iter().filter(during).count();
    assert!(halted <= 1, "{halted} blocks while no quorum could talk");
    let after = chain.iter().filter(|seen| seen.block.header.time.get() > chain_time(heal_at)).count();
    assert!(after > 20, "{after} blocks after the links healed");
}

#[test]
fn after_eight_hours_down_markets_reopen_and_nothing_is_liquidated_before_the_grace_is_over() {
    let hours_ms = 8 * 3_600_000;
    let down_ms = hours_ms / u64::from(SPEED);
    let fixture = Fixture::new(6, 4, ACCOUNTS);
    // All of the fall happens while nobody can act.
    let path = Path { seed: 6, from_ms: 30_000, until_ms: hours_ms, depth_ppm: 250_000 };
    let validators = Validators::new(&fixture, path);
    let mut schedule = Schedule::new();
    for key in fixture.keys() {
        schedule = schedule.at(at(4_000), Act::Crash(key));
    }
    for key in fixture.keys() {
        schedule = schedule.at(at(4_000 + down_ms), Act::Restart(key));
    }
    plan(&validators, 6, 120, 4).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);

    let first = chain
        .iter()
        .position(|seen| seen.oracle_events.iter().any(|event| matches!(event, OracleEvent::Halted { .. })))
        .expect("the halt is noticed");
    let before = chain[first - 1].block.header.time.get();
    let back = chain[first].block.header.time.get();
    assert!(back - before > hours_ms - 60_000, "{} ms of chain time passed", back - before);

    let mut states = vec![PriceState::Fresh; MARKETS.len()];
    let mut reopened = vec![None; MARKETS.len()];
    let mut liquidated = 0;
    for (place, seen) in chain.iter().enumerate() {
        let time = seen.block.header.time.get();
        for (market, mark) in &seen.marks {
            let market = usize::from(market.get());
            let (_, state) = mark.last_known();
            if place >= first && state == PriceState::Reopening && reopened[market].is_none() {
                reopened[market] = Some(time);
            }
            states[market] = state;
        }
        if place == first {
            assert!(
                states.iter().all(|state| *state != PriceState::Fresh),
                "{states:?} right after the halt"
            );
        }
        for event in &seen.events {
            if let Event::Liquidated(leg) = event {
                let market = usize::from(leg.market.get());
                assert_eq!(states[market], PriceState::Fresh, "height {}", leg.height);
                if place >= first {
                    let since = reopened[market].expect("it reopened first");
                    assert!(time >= since + GRACE_MS, "liquidated {} ms into the grace", time - since);
                    liquidated += 1;
                }
            }
        }
    }
    assert!(reopened.iter().all(Option::is_some), "{reopened:?}");
    assert_eq!(states, vec![PriceState::Fresh; MARKETS.len()]);
    assert!(liquidated > 20, "{liquidated} liquidations once the grace was over");
}

#[test]
fn threads_change_nothing_that_is_agreed() {
    let fixture = Fixture::new(7, 4, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(7));
    validators.threaded = vec![1, 3];
    plan(&validators, 7, 40, 4).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    let led = |index: u16| {
        let key = &fixture.keys()[usize::from(index)];
        chain.iter().filter(|seen| seen.block.context.leader == *key).count()
    };
    assert!((0..4).all(|index| led(index) > 5), "everybody's blocks were everybody's to check");
}

#[test]
fn f_liars_change_neither_price_nor_time() {
    const DAY: i64 = 86_400_000;
    let lies = [
        Lie { times: 10, over: 1, clock_ms: 0 },
        Lie { times: 1, over: 10, clock_ms: 0 },
        Lie { times: 10, over: 1, clock_ms: DAY },
        Lie { times: 1, over: 10, clock_ms: -DAY },
    ];
    for (seed, lie) in (0..).zip(lies) {
        let fixture = Fixture::new(8, 4, ACCOUNTS);
        let mut validators = Validators::new(&fixture, Path::crash(8));
        validators.lies.insert(seed as usize, lie);
        plan(&validators, seed, 30, 3).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        let mut carried = 0;
        for seen in &chain {
            let (header, body) = (&seen.block.header, &seen.block.body);
            let honest: Vec<_> =
                body.observations.iter().filter(|said| u64::from(said.author.get()) != seed).collect();
            carried += body.observations.len() - honest.len();
            let low = honest.iter().map(|said| said.time).min().unwrap();
            let high = honest.iter().map(|said| said.time).max().unwrap();
            assert!(low <= header.time && header.time <= high, "{lie:?}: {low} {} {high}", header.time);
            for (market, mark) in &seen.marks {
                let (price, state) = mark.last_known();
                assert_eq!(state, PriceState::Fresh, "{lie:?} at {}", header.height);
                // An honest report is at most REPORT_AGE_MS old where it counts, and at most a leader's turn
                // newer than the median clock.
                let fair: Vec<_> = (0..=(REPORT_AGE_MS + 20_000) / 250)
                    .map(|step| TimeMs(header.time.get() + 20_000 - 250 * step))
                    .map(|time| validators.path.price(usize::from(market.get()), time))
                    .collect();
                let (least, most) = (*fair.iter().min().unwrap(), *fair.iter().max().unwrap());
                let most = most + most * MAX_SPREAD_PPM / 1_000_000 + 1;
                assert!(least <= price.get() && price.get() <= most, "{lie:?}: {least} {price} {most}");
            }
        }
        assert!(carried > 5, "{lie:?}: the liar was heard {carried} times");
    }
}

// ---- Rescues ----

/// The block that carries an action, and in how many blocks before it the action could have been: those whose time is
/// later than its submission.
fn carried(chain: &[Seen], submit: &Submit) -> Option<(u64, usize)> {
    let name = (submit.action.account, submit.action.nonce);
    let block = chain.iter().find(|seen| {
        let actions = &seen.block.body.actions;
        actions.iter().any(|action| (action.account, action.nonce) == name)
    })?;
    let height = block.block.header.height;
    let sent = START + u64::from(SPEED) * submit.at_ms;
    let later = |seen: &&Seen| seen.block.header.time.get() > sent && seen.block.header.height < height;
    Some((height.get(), chain.iter().filter(later).count()))
}

fn submit(validator: usize, at_ms: u64, nonce: u64, action: Action) -> Submit {
    let action = signed(VICTIM, nonce, 500, action);
    Submit { validator, at_ms, action, forged: false }
}

const VICTIM: AccountId = AccountId(7);

/// Rescues of one account, one at a time, to one validator after the other.
fn cries(validators: usize) -> Vec<Submit> {
    (0..12)
        .map(|place| {
            let action = match place % 2 {
                0 => Action::CancelAll { market: None, keep_reduce_only: false },
                _ => Action::ScheduleCancel { at: None },
            };
            submit(place % validators, 2_000 + 331 * place as u64, 1 + place as u64, action)
        })
        .collect()
}

/// Whom a block leaves out it cannot silence: any quorum of observations has somebody who lists the rescue. Before all
/// have heard of it, a leader can choose those who have not, once.
#[test]
fn a_rescue_is_in_one_of_the_next_blocks_although_every_leader_leaves_its_account_out() {
    for (members, seed) in [(4, 0), (5, 1), (7, 2)] {
        let fixture = Fixture::new(40, members as u64, ACCOUNTS);
        let mut validators = Validators::new(&fixture, Path::crash(40));
        validators.withholds = (0..members).map(|index| (index, VICTIM)).collect();
        validators.submits = cries(members);
        let withdraw = Action::Withdraw { amount: Atoms(1), recipient: Recipient([1; 32]) };
        validators.submits.push(submit(0, 1_500, 99, withdraw));
        plan(&validators, seed, 60, members).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        for submit in &validators.submits {
            let found = carried(&chain, submit);
            if submit.action.action.lane() == Lane::Trade {
                assert_eq!(found, None, "leaders do leave out what they may");
            } else {
                let (height, blocks) = found.unwrap_or_else(|| panic!("{submit:?} is in no block"));
                assert!(blocks <= 2, "{members} members, seed {seed}: {blocks} blocks before {height}");
            }
        }
    }
}

/// A validator that hears one other and is heard by it alone.
#[test]
fn a_rescue_finds_its_way_around_broken_links() {
    let fixture = Fixture::new(41, 4, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(41));
    validators.submits = cries(1);
    let keys = fixture.keys();
    let schedule = split(Schedule::new(), 1_500, &keys[..1], &keys[1..3]);
    plan(&validators, 41, 60, 3).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    for submit in &validators.submits {
        let (height, blocks) = carried(&chain, submit).unwrap_or_else(|| panic!("{submit:?} is in no block"));
        assert!(blocks <= 3, "{blocks} blocks before {height}");
    }
}

/// With a silent member a leader needs the observations of all others. So it needs every body that one of them lists,
/// whatever the same user sent to it under the same nonce.
#[test]
fn a_user_who_tells_each_member_something_else_stops_nobody() {
    let fixture = Fixture::new(43, 4, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(43));
    for nonce in 1..=12 {
        for member in 0..3 {
            let action = match (nonce + member) % 3 {
                0 => Action::Withdraw { amount: Atoms(1), recipient: Recipient([1; 32]) },
                1 => Action::CancelAll { market: None, keep_reduce_only: false },
                _ => Action::ScheduleCancel { at: None },
            };
            validators.submits.push(submit(member as usize, 2_000 + 211 * nonce, nonce, action));
        }
    }
    let schedule = Schedule::new().at(at(1_000), Act::Crash(fixture.keys()[3].clone()));
    plan(&validators, 43, 60, 3).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    for one in validators.submits.iter().filter(|one| one.action.action.lane() == Lane::Rescue) {
        let (height, blocks) = carried(&chain, one).unwrap_or_else(|| panic!("{one:?} is in no block"));
        assert!(blocks <= 4, "{blocks} blocks before {height}");
    }
}

/// Both sides of a partition collect more rescues than an observation lists. Then each has to learn what the other lists.
#[test]
fn after_a_partition_in_which_both_sides_collected_rescues_all_of_them_are_answered() {
    let fixture = Fixture::new(44, 4, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(44));
    for nonce in 1..=600 {
        let member = (nonce % 2) as usize * 2;
        let one = submit(member, 2_500 + nonce, nonce, Action::ScheduleCancel { at: None });
        validators.submits.push(one);
    }
    let keys = fixture.keys();
    let schedule = split(Schedule::new(), 2_000, &keys[..2], &keys[2..]).at(at(6_000), Act::Heal(link()));
    plan(&validators, 44, 60, 4).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    for one in &validators.submits {
        assert!(carried(&chain, one).is_some(), "{one:?} is in no block");
    }
}

/// A user tells each member of more rescues than it has tokens for, and one member takes them all. It gets what its tokens
/// are worth and no more (see [`check_run`]), and nobody else waits for it.
#[test]
fn a_user_who_signs_more_rescues_than_it_has_tokens_for_holds_up_nobody_else() {
    let rescues = RescueParams {
        base_tokens: 3,
        pool_tokens: 0,
        issuer_tokens: 100,
        refill_blocks: 8,
        reserve_blocks: 4,
        ..RescueParams::default()
    };
    let fixture = Fixture::rationed(45, 4, ACCOUNTS, rescues);
    let mut validators = Validators::new(&fixture, Path::crash(45));
    for nonce in 1..=400 {
        let one = submit((nonce % 4) as usize, 2_000 + nonce / 8, nonce, Action::ScheduleCancel { at: None });
        validators.submits.push(Submit { forged: nonce % 4 == 3, ..one });
    }
    let neighbours: Vec<Submit> = (0..6)
        .map(|place| {
            let switch = Action::ScheduleCancel { at: None };
            let action = signed(AccountId(20 + place), 7_000, 500, switch);
            Submit { validator: (place % 3) as usize, at_ms: 2_100 + 200 * place, action, forged: false }
        })
        .collect();
    validators.submits.extend(neighbours.iter().cloned());
    plan(&validators, 45, 60, 4).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    for one in &neighbours {
        let (height, blocks) = carried(&chain, one).unwrap_or_else(|| panic!("{one:?} is in no block"));
        assert!(blocks <= 3, "{blocks} blocks before {height}");
    }
    let own = validators.submits.iter().filter(|one| one.action.account == VICTIM);
    let answered = own.filter(|one| carried(&chain, one).is_some()).count();
    // Three at once, and three in eight blocks from then on, while it carries risk.
    assert!((4..=3 + chain.len() * 3 / 8).contains(&answered), "{answered} of 400");
}

/// What nobody else has, and what no block can carry: others leave the observation out.
#[test]
fn a_validator_that_lists_what_cannot_be_carried_stops_nothing() {
    let fixture = Fixture::new(42, 4, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(42));
    validators.submits = cries(4);
    for nonce in 0..20 {
        let mut lie = submit(3, 1_000 + 100 * nonce, 1_000 + nonce, Action::ScheduleCancel { at: None });
        lie.action.signature.0[3] ^= 1;
        validators.submits.push(Submit { forged: true, ..lie });
    }
    plan(&validators, 42, 60, 3).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    let from = |seen: &&Seen| seen.block.body.observations.iter().any(|said| said.author.get() == 3);
    let heard = chain.iter().filter(from).map(|seen| seen.block.header.height.get()).max();
    assert!(heard.is_some_and(|last| last < 20), "its observations bind nobody: {heard:?}");
    for submit in &validators.submits {
        let found = carried(&chain, submit);
        if submit.forged {
            assert_eq!(found, None);
        } else {
            let (height, blocks) = found.unwrap_or_else(|| panic!("{submit:?} is in no block"));
            assert!(blocks <= 3, "{blocks} blocks before {height}");
        }
    }
}

// ---- Submissions ----

/// Trades of an account that can always afford them, to one validator.
fn withdrawals(validator: usize, count: u64, from_ms: u64) -> Vec<Submit> {
    (0..count)
        .map(|nonce| {
            let action = Action::Withdraw { amount: Atoms(1), recipient: Recipient([1; 32]) };
            let action = signed(ISSUER, 10_000 + nonce, 500, action);
            Submit { validator, at_ms: from_ms + 173 * nonce, action, forged: false }
        })
        .collect()
}

/// Whom it was submitted to leads every seventh view only.
#[test]
fn a_trade_reaches_the_next_leaders_and_waits_for_no_turn_of_its_own_validator() {
    let fixture = Fixture::new(45, 7, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(45));
    validators.traffic = false;
    validators.submits = withdrawals(0, 14, 1_500);
    plan(&validators, 45, 60, 7).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    for submit in &validators.submits {
        let (height, blocks) = carried(&chain, submit).unwrap_or_else(|| panic!("{submit:?} is in no block"));
        assert!(blocks <= 3, "{blocks} blocks before {height}");
    }
}

/// Two of seven say nothing, so a trade goes to nobody but them now and then. Later leaders get it all the same.
#[test]
fn a_trade_that_silent_leaders_were_sent_is_sent_to_others_again() {
    let fixture = Fixture::new(46, 7, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(46));
    validators.traffic = false;
    validators.submits = withdrawals(0, 14, 2_000);
    let keys = fixture.keys();
    let schedule =
        Schedule::new().at(at(1_000), Act::Crash(keys[3].clone())).at(at(1_000), Act::Crash(keys[4].clone()));
    plan(&validators, 46, 60, 5).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    for submit in &validators.submits {
        let (height, blocks) = carried(&chain, submit).unwrap_or_else(|| panic!("{submit:?} is in no block"));
        assert!(blocks <= 7, "{blocks} blocks before {height}");
    }
}

#[test]
fn observations_of_all_who_speak_are_in_blocks_although_one_of_the_next_two_leaders_is_silent() {
    let fixture = Fixture::new(47, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(47));
    let silent = 2;
    let schedule = Schedule::new().at(at(1_000), Act::Crash(fixture.keys()[silent].clone()));
    plan(&validators, 47, 60, 3).crash(scheduled(schedule)).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    // A quorum of four is three: without one of those who speak there is no block.
    let late: Vec<&Seen> =
        chain.iter().filter(|seen| seen.block.header.time.get() > START + u64::from(SPEED) * 1_500).collect();
    assert!(late.len() > 30, "{} blocks", late.len());
    for seen in late {
        let authors: Vec<u16> = seen.block.body.observations.iter().map(|said| said.author.get()).collect();
        assert_eq!(authors, [0, 1, 3], "height {}", seen.block.header.height);
        assert_ne!(seen.block.context.leader, fixture.keys()[silent]);
    }
}

/// A book is lost with the process. Whoever sends again then what was done long ago is not told that it was not.
#[test]
fn what_was_done_before_a_restart_is_not_denied_after_it() {
    for seed in 0..2 {
        let fixture = Fixture::new(48, 4, ACCOUNTS);
        let mut validators = Validators::new(&fixture, Path::crash(48));
        for nonce in 1..=10 {
            let action = signed(VICTIM, nonce, 25, Action::ScheduleCancel { at: None });
            let at_ms = 800 + 61 * nonce;
            validators.submits.push(Submit { validator: nonce as usize % 4, at_ms, action, forged: false });
        }
        // Once before and once after what was submitted has expired: what is due is submitted again at each start.
        let mut schedule = Schedule::new();
        for (begin, apart, pause) in [(1_900 + 53 * seed, 400, 150), (9_000, 700, 200)] {
            for (place, key) in (0..).zip(fixture.keys()) {
                let down = begin + apart * place;
                schedule =
                    schedule.at(at(down), Act::Crash(key.clone())).at(at(down + pause), Act::Restart(key));
            }
        }
        plan(&validators, seed, 110, 4).crash(scheduled(schedule)).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        for submit in &validators.submits {
            let id = seawall_chain::mempool::action_digest(&submit.action);
            let (height, _) = carried(&chain, submit).unwrap_or_else(|| panic!("{submit:?} is in no block"));
            assert!(height <= 25);
            let seat = seat(&validators.seats, submit.validator);
            let told: Vec<_> = seat.answers.iter().filter(|((_, own), _)| *own == id).collect();
            assert!(told.len() >= 3, "submitted in each life: {told:?}");
            for (_, states) in told {
                assert!(!states.contains(&State::Expired), "block {height} carries it: {states:?}");
            }
        }
    }
}

// ---- Zones ----

/// Heights that the chain settled whole, by zone.
fn settled(chain: &[Seen], zone: u8) -> Vec<u64> {
    let parts = chain.iter().flat_map(|seen| &seen.block.body.outcomes);
    parts.filter(|own| own.zone == zone && own.outcome.last).map(|own| own.outcome.height.get()).collect()
}

#[test]
fn orders_trade_and_their_outcomes_settle_within_a_few_blocks() {
    let fixture = Fixture::new(30, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(30));
    plan(&validators, 30, 80, 4).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    let fills: usize = chain.iter().map(Seen::fills).sum();
    assert!(fills > 20, "{fills} fills");
    for zone in [0, 1] {
        assert!(settled(&chain, zone).len() > 40, "zone {zone}: {:?}", settled(&chain, zone));
        let most = chain.iter().filter_map(|seen| seen.lags.get(&zone)).max();
        assert!(most.is_some_and(|lag| *lag <= 6), "zone {zone} was {most:?} blocks behind");
    }
    assert!(chain.iter().all(|seen| seen.voided.is_empty()));
    for index in 0..4 {
        for (zone, status) in &seat(&validators.seats, index).zones {
            assert_eq!((status.disagreements, status.rebuilds), (0, 1), "validator {index}, zone {zone}");
        }
    }
}

#[test]
fn a_zone_that_dies_on_a_minority_is_missed_by_nobody_and_comes_back_from_the_state() {
    for seed in 0..3 {
        let fixture = Fixture::new(31, 4, ACCOUNTS);
        let mut validators = Validators::new(&fixture, Path::crash(31));
        // Wherever the block of that moment is.
        let (kill, revive) = (1_500 + 171 * seed, 4_000 + 93 * seed);
        validators.trials.extend(trials(2..3, 0, kill, What::Kill));
        validators.trials.extend(trials(2..3, 0, revive, What::Revive));
        plan(&validators, seed, 80, 4).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        assert!(chain.iter().all(|seen| seen.voided.is_empty()), "the others attest and settle");
        let status = |index| seat(&validators.seats, index).zones[&0].clone();
        let (well, back) = (status(0), status(2));
        assert_eq!((back.running, back.disagreements), (true, 0));
        assert!(back.rebuilds >= 2, "rebuilt from the state");
        assert!(back.computed.get() + 3 >= well.computed.get(), "{} after {}", back.computed, well.computed);
    }
}

#[test]
fn a_zone_that_computes_something_else_on_f_validators_changes_nothing_and_is_told_so() {
    let fixture = Fixture::new(32, 4, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(32));
    validators.trials.extend(trials(1..2, 0, 1_000, What::Afflict(ZoneFault::Wrong)));
    plan(&validators, 32, 80, 4).build().run().unwrap();
    // Every settled outcome is the one that the state gives.
    let chain = check_run(&fixture, &validators.seats);
    assert!(chain.iter().map(Seen::fills).sum::<usize>() > 10);
    assert!(chain.iter().all(|seen| seen.voided.is_empty()));
    let status = |index| seat(&validators.seats, index).zones[&0].clone();
    assert!(status(1).disagreements > 0, "it was found wrong");
    assert!((0..4).filter(|index| *index != 1).all(|index| status(index).disagreements == 0));
}

#[test]
fn with_a_zone_dead_everywhere_its_inboxes_become_void_and_nothing_else_stops() {
    let fixture = Fixture::new(33, 4, ACCOUNTS);
    let mut validators = Validators::new(&fixture, Path::crash(33));
    validators.trials.extend(trials(0..4, 0, 1_200, What::Kill));
    validators.trials.extend(trials(0..4, 0, 7_500, What::Revive));
    plan(&validators, 33, 120, 4).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    let voided: Vec<u64> =
        chain.iter().flat_map(|seen| &seen.voided).filter(|own| own.0 == 0).map(|own| own.1.get()).collect();
    assert!(voided.len() > 5, "{voided:?}");
    assert!(chain.iter().all(|seen| seen.voided.iter().all(|(zone, _)| *zone == 0)));
    let dead = chain.iter().filter(|seen| !seen.voided.is_empty());
    let (first, last) = (voided[0], voided[voided.len() - 1]);
    assert!(dead.count() >= 2, "all that wait, each time that the oldest is overdue");
    // The other zone trades meanwhile, and positions in breach of both are worked on without the auctions.
    let other = settled(&chain, 1).into_iter().filter(|height| (first..=last).contains(height)).count();
    assert!(other > 5, "{other} outcomes of the other zone");
    let meanwhile: Vec<Seen> = chain
        .iter()
        .filter(|seen| (first..=last).contains(&seen.block.header.height.get()))
        .cloned()
        .collect();
    assert!(liquidations(&meanwhile) > 0);
    let late = meanwhile.iter().flat_map(|seen| &seen.events).filter_map(|event| match event {
        Event::Liquidated(own) => Some(own.height.get() - own.breached.get()),
        _ => None,
    });
    // Nobody waits for a zone for longer than it may be late.
    assert!(late.max().is_some_and(|blocks| blocks <= 7));
    assert!(settled(&chain, 0).iter().any(|height| *height > last), "it trades again: {voided:?}");
}

/// Machines ten times as slow as the one on which costs were measured, so that they show beside the network.
const SLOWDOWN: u32 = 10;

#[test]
fn neither_a_dead_zone_nor_one_a_hundred_times_as_slow_changes_finality_or_liquidation() {
    // Room for everybody: whoever waits here waits for a zone.
    let fixture = Fixture::with_budget(34, 4, ACCOUNTS, 1_000);
    let run = |traffic: bool, what: Option<What>| {
        let mut validators = Validators::new(&fixture, Path::crash(34));
        validators.traffic = traffic;
        validators.slowdown = SLOWDOWN;
        for zone in [0, 1] {
            validators.trials.extend(what.into_iter().flat_map(|what| trials(0..4, zone, 10, what)));
        }
        plan(&validators, 34, 100, 4).build().run().unwrap();
        let chain = check_run(&fixture, &validators.seats);
        let mut finality: Vec<u64> =
            (0..4).flat_map(|index| seat(&validators.seats, index).finality_ms.clone()).collect();
        finality.sort_unstable();
        let at = |sorted: &[u64], percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        let mut first: std::collections::BTreeMap<_, u64> = std::collections::BTreeMap::new();
        for (seen, event) in chain.iter().flat_map(|seen| seen.events.iter().map(move |event| (seen, event)))
        {
            let height = seen.block.header.height.get();
            match event {
                Event::Closing { account, compartment, breached, .. } => {
                    first.entry((*account, *compartment, *breached)).or_insert(height - breached.get());
                }
                Event::Liquidated(own) => {
                    first
                        .entry((own.account, own.compartment, own.breached))
                        .or_insert(height - own.breached.get());
                }
                _ => {}
            }
        }
        assert!(first.len() > 10, "{} breaches", first.len());
        let mut delays: Vec<u64> = first.into_values().collect();
        delays.sort_unstable();
        [(at(&finality, 50), at(&finality, 99)), (at(&delays, 50), at(&delays, 99))]
    };
    let calm = run(false, None);
    let well = run(true, None);
    // An auction here takes no simulated time; a hundred milliseconds is a block.
    let slow = run(true, Some(What::Afflict(ZoneFault::Delayed(std::time::Duration::from_millis(100)))));
    let dead = run(true, Some(What::Kill));
    let told = format!(
        "p50, p99 of finality in ms and of the ladder's first steps in blocks: without orders {calm:?}, \
        with {well:?}, zones slow {slow:?}, dead {dead:?}"
    );
    eprintln!("{told}");
    let [calm_finality, calm_delay] = calm;
    for [finality, delay] in [well, slow, dead] {
        let close = |a: u64, b: u64| a * 10 <= b * 11 && b * 10 <= a * 11;
        assert!(close(finality.0, calm_finality.0) && close(finality.1, calm_finality.1), "{told}");
        // Sooner is no harm.
        let later = |own: u64, calm: u64| own * 10 > calm * 11;
        assert!(!later(delay.0, calm_delay.0) && !later(delay.1, calm_delay.1), "{told}");
    }
}
