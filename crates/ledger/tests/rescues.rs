//! Tokens for rescues: against a plain model over random histories, and claim by claim.

mod common;

use std::collections::BTreeMap;

use common::*;
use proptest::prelude::*;
use seawall_ledger::*;
use seawall_types::*;

/// What the model needs of an account: its kind, what it posted, whether it carries risk.
type Facts = Vec<(AccountKind, i128, bool)>;

fn facts(ledger: &Ledger) -> Facts {
    (0..ledger.globals().accounts)
        .map(|id| {
            let account = ledger.account(AccountId(id)).unwrap();
            let isolated = account.positions.iter().map(|position| position.isolated.0.max(0));
            let posted = account.collateral.0.max(0) + isolated.sum::<i128>();
            let orders = ledger.orders_of(AccountId(id)).count();
            (account.kind, posted, !account.positions.is_empty() || orders > 0)
        })
        .collect()
}

/// Buckets by the words of the specification, in whole numbers: a token is `refill_blocks` parts.
struct Model {
    rescues: RescueParams,
    /// Parts and the height after which they were counted; whoever is not named has a full bucket.
    buckets: BTreeMap<u64, (u64, u64)>,
}

impl Model {
    fn burst(&self, facts: &Facts, id: u64) -> u64 {
        let own = |want: AccountKind| facts.iter().filter(move |(kind, ..)| *kind == want);
        let (kind, posted, at_risk) = facts[id as usize];
        let floor = match kind {
            AccountKind::Backstop(_) => return 0,
            AccountKind::Issuer => return u64::from(self.rescues.issuer_tokens),
            AccountKind::User if at_risk => self.rescues.base_tokens,
            AccountKind::User => self.rescues.flat_tokens,
        };
        let total: i128 = own(AccountKind::User).map(|(_, posted, _)| posted).sum();
        let share = (posted * i128::from(self.rescues.pool_tokens)).checked_div(total).unwrap_or(0);
        u64::from(floor) + u64::try_from(share).unwrap().min(u64::from(self.rescues.account_tokens))
    }

    fn parts(&self, facts: &Facts, id: u64, height: u64) -> u64 {
        let burst = self.burst(facts, id);
        let full = burst * u64::from(self.rescues.refill_blocks);
        let Some((parts, at)) = self.buckets.get(&id) else { return full };
        // Block by block.
        (*at..height).fold(*parts, |parts, _| full.min(parts + burst)).min(full)
    }

    fn tokens(&self, facts: &Facts, id: u64, height: u64) -> u64 {
        self.parts(facts, id, height) / u64::from(self.rescues.refill_blocks)
    }

    fn settle(&mut self, before: &Facts, after: &Facts, height: u64, spent: &BTreeMap<u64, u64>) {
        let token = u64::from(self.rescues.refill_blocks);
        for id in 0..after.len() as u64 {
            let spent = spent.get(&id).copied().unwrap_or(0);
            let Some((_, posted, at_risk)) = before.get(id as usize) else {
                assert_eq!(spent, 0, "nobody signs for an account that this block opens");
                self.buckets.insert(id, (u64::from(self.rescues.flat_tokens) * token, height));
                continue;
            };
            let (kind, now, risk_now) = after[id as usize];
            let grew = kind == AccountKind::User && (now > *posted || (risk_now && !at_risk));
            if spent > 0 || grew {
                let parts = self.parts(before, id, height) - spent * token;
                self.buckets.insert(id, (parts, height));
            }
        }
    }
}

fn rationed(rescues: RescueParams) -> ChainParams {
    ChainParams { rescues, ..params() }
}

/// Few tokens, so that histories meet every limit.
fn tight() -> RescueParams {
    RescueParams {
        base_tokens: 3,
        pool_tokens: 60,
        account_tokens: 5,
        flat_tokens: 1,
        issuer_tokens: 4,
        refill_blocks: 7,
        reserve_blocks: 2,
        min_transfer: Atoms(1),
    }
}

fn tokens(ledger: &Ledger, ahead: u64) -> Vec<u32> {
    let height = Height(ledger.globals().height.0 + ahead);
    (0..ledger.globals().accounts).map(|id| ledger.rescue_tokens_at(AccountId(id), height)).collect()
}

/// How often a rescue had a token, and how often not.
#[derive(Default)]
struct Met {
    answered: u32,
    without: u32,
}

fn play(seed: u64, blocks: usize, met: &mut Met) {
    let params = rationed(tight());
    let mut ledger = Ledger::genesis(&params, TimeMs(1), users(USERS, 1_000_000_000)).unwrap();
    let mut story = Story::new(seed);
    let mut model = Model { rescues: params.rescues, buckets: BTreeMap::new() };
    for block in 0..blocks as u64 {
        let before = facts(&ledger);
        let height = ledger.globals().height.next();
        let have = tokens(&ledger, 1);
        for (ahead, have) in [(1, have.clone()), (4, tokens(&ledger, 4)), (30, tokens(&ledger, 30))] {
            let want = (0..before.len() as u64).map(|id| model.tokens(&before, id, height.0 + ahead - 1));
            assert_eq!(have, want.map(|tokens| tokens as u32).collect::<Vec<_>>(), "block {height}");
        }
        // Whatever deposits do: base for each at risk, and the pool.
        let at_risk = |id: &u64| before[*id as usize].2 && before[*id as usize].0 == AccountKind::User;
        let risky: Vec<u64> = (0..before.len() as u64).filter(at_risk).collect();
        let held: u64 = risky.iter().map(|id| u64::from(have[*id as usize])).sum();
        let RescueParams { base_tokens, pool_tokens, .. } = params.rescues;
        assert!(held <= risky.len() as u64 * u64::from(base_tokens) + u64::from(pool_tokens));
        assert_eq!(ledger.rescue_budget().at_risk, risky.len() as u64);

        let mut script = story.script(&ledger);
        for place in 0..story.rng.below(12) {
            let who = AccountId(story.rng.below(4));
            script.rescues.push((
                who,
                Nonce(1 << 40 | block << 8 | place),
                Action::ScheduleCancel { at: None },
            ));
        }
        ledger.begin_block(height, TimeMs(ledger.globals().time.0 + script.elapsed));
        ledger.set_marks(&script.marks);
        ledger.accrue_funding();
        let mut spent: BTreeMap<u64, u64> = BTreeMap::new();
        for (list, sweeps) in [(&script.rescues, true), (&script.trades, false)] {
            for (who, nonce, action) in list {
                let expiry = Height(height.0 + 3);
                let rescue = action.lane() == Lane::Rescue;
                let left = u64::from(have.get(who.0 as usize).copied().unwrap_or(0))
                    - spent.get(&who.0).copied().unwrap_or(0);
                let envelope = ledger.check_envelope(*who, *nonce, expiry);
                let answer = ledger.apply(*who, *nonce, expiry, action);
                if !rescue || envelope.is_err() {
                    continue;
                }
                if left == 0 {
                    assert_eq!(answer, Err(Refusal::NoRescueTokens));
                    assert_eq!(ledger.spend_nonce(*who, *nonce, expiry), Err(Refusal::NoRescueTokens));
                    met.without += 1;
                    continue;
                }
                if answer.is_err() {
                    assert_eq!(ledger.spend_nonce(*who, *nonce, expiry), Ok(()), "a refusal is an answer");
                }
                *spent.entry(who.0).or_default() += 1;
                met.answered += 1;
            }
            if sweeps {
                ledger.sweep(&mut NoVenue);
            }
        }
        let delta = ledger.end_block();
        assert_eq!(ledger.audit(), Ok(()));
        model.settle(&before, &facts(&ledger), height.0, &spent);

        let (after, state) = (tokens(&ledger, 1), records(&ledger));
        ledger.revert(&delta);
        assert_eq!(tokens(&ledger, 1), have, "undone");
        assert_eq!(ledger.audit(), Ok(()));
        ledger.reapply(&delta);
        assert_eq!(tokens(&ledger, 1), after, "redone");
        assert_eq!(ledger.audit(), Ok(()));
        assert_eq!(records(&ledger), state);
        let loaded = Ledger::from_records(state.into_iter()).unwrap();
        assert_eq!(tokens(&loaded, 1), after, "loaded");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buckets_are_those_of_the_model_and_stay_within_the_bound(seed in any::<u64>()) {
        play(seed, 40, &mut Met::default());
    }

    /// However blocks are cut, parts are whole: many small settlements come to one large one.
    #[test]
    fn no_part_of_a_token_is_lost_to_rounding(blocks in 1u64..400, deposits in any::<u64>()) {
        let params = rationed(RescueParams { refill_blocks: 499, reserve_blocks: 7, ..tight() });
        let mut ledger = Ledger::genesis(&params, TimeMs(1), users(3, 1_000_000)).unwrap();
        let mut other = ledger.clone();
        for (ledger, gifts) in [(&mut ledger, deposits), (&mut other, 0)] {
            let mut nonce = 0;
            for height in 1..=blocks {
                ledger.begin_block(Height(height), TimeMs(1 + height));
                if height == 1 {
                    // Empty.
                    while ledger.apply(ALICE, Nonce(nonce), Height(height), &Action::ScheduleCancel { at: None }).is_ok() {
                        nonce += 1;
                    }
                } else if gifts >> (height % 64) & 1 == 1 {
                    let gift = Action::Transfer { to: ALICE, amount: Atoms(1) };
                    let _ = ledger.apply(BOB, Nonce(height), Height(height), &gift);
                }
                ledger.end_block();
            }
        }
        let at = |ledger: &Ledger| ledger.rescue_tokens_at(ALICE, Height(blocks + 1));
        prop_assert_eq!(at(&ledger), at(&other), "gifts neither take tokens nor hold them up");
    }
}

#[test]
fn histories_meet_both_a_token_and_the_lack_of_one() {
    let mut met = Met::default();
    (0..8).for_each(|seed| play(seed, 40, &mut met));
    assert!(met.answered > 300 && met.without > 100, "{} and {}", met.answered, met.without);
}

fn chain(rescues: RescueParams, collateral: i128) -> Chain {
    let params = ChainParams { rescues, ..order_params() };
    let ledger = Ledger::genesis(&params, TimeMs(1), users(6, collateral)).unwrap();
    let mut chain = Chain { ledger, nonce: 0, delta: None };
    chain.begin(PRICE);
    chain
}

fn left(chain: &Chain, who: AccountId) -> u32 {
    chain.ledger.rescue_tokens_at(who, chain.ledger.globals().height.next())
}

const SWITCH: Action = Action::ScheduleCancel { at: None };

#[test]
fn a_rescue_takes_a_token_of_its_signer_done_or_refused_and_a_trade_takes_none() {
    let mut chain = chain(tight(), 1_000_000_000);
    chain.next(PRICE);
    let (mine, theirs) =
        (chain.ledger.rescue_tokens_at(ALICE, Height(2)), chain.ledger.rescue_tokens_at(BOB, Height(2)));
    assert_eq!((mine, theirs), (6, 6), "flat, and the most of the pool");
    chain.apply(ALICE, Action::Transfer { to: BOB, amount: Atoms(5) }).unwrap();
    chain.apply(ALICE, Action::Withdraw { amount: Atoms(5), recipient: Recipient::default() }).unwrap();
    let refused = chain.apply(ALICE, Action::Transfer { to: BOB, amount: Atoms(i128::from(u32::MAX)) });
    assert_eq!(refused, Err(Refusal::InsufficientCollateral));
    let height = chain.ledger.globals().height;
    chain.ledger.spend_nonce(ALICE, Nonce(900), height).unwrap();
    // As of one whose nonce cannot be spent.
    chain.ledger.spend_token(ALICE).unwrap();
    chain.end();
    assert_eq!(chain.ledger.rescue_tokens_at(ALICE, height), 3);
    assert_eq!(chain.ledger.rescue_tokens_at(BOB, height), 6, "nobody else's");
    assert_eq!(chain.ledger.rescue_tokens_at(ALICE, Height(height.0 + 1)), 3);
    assert_eq!(chain.ledger.rescue_tokens_at(ALICE, Height(height.0 + 2)), 4);
    assert_eq!(chain.ledger.blocks_until_tokens(ALICE, height, 4), Some(2));
    assert_eq!(chain.ledger.rescue_tokens_at(ALICE, Height(height.0 + 4)), 6);
    assert_eq!(chain.ledger.rescue_tokens_at(ALICE, Height(u64::MAX)), 6, "no more than the burst");
}

#[test]
fn without_a_token_a_rescue_leaves_no_trace_and_other_actions_go_on() {
    let mut chain = chain(tight(), 1_000_000_000);
    (0..6).for_each(|_| assert!(chain.apply(ALICE, SWITCH).is_ok()));
    let before = records(&chain.ledger);
    assert_eq!(chain.apply(ALICE, SWITCH), Err(Refusal::NoRescueTokens));
    assert_eq!(chain.ledger.spend_nonce(ALICE, Nonce(99), Height(9)), Err(Refusal::NoRescueTokens));
    assert_eq!(chain.ledger.spend_token(ALICE), Err(Refusal::NoRescueTokens));
    assert_eq!(records(&chain.ledger), before);
    let withdraw = Action::Withdraw { amount: Atoms(5), recipient: Recipient::default() };
    assert!(chain.apply(ALICE, withdraw).is_ok());
    assert_eq!(left(&chain, AccountId(999)), 0, "nobody has none");
}

/// Margin that moves from account to account would otherwise bring a burst wherever it comes by.
#[test]
fn what_is_posted_brings_tokens_with_time_and_not_at_once() {
    let rescues = RescueParams { pool_tokens: 40, account_tokens: 40, refill_blocks: 40, ..tight() };
    let mut chain = chain(rescues, 0);
    chain.apply(ISSUER, Action::Deposit { to: ALICE, amount: Atoms(1_000_000) }).unwrap();
    assert_eq!(
        chain.apply(ALICE, Action::Transfer { to: BOB, amount: Atoms(10) }),
        Ok(Receipt::Transferred),
        "a deposit and the transfer that needs it, in one block"
    );
    chain.next(PRICE);
    // The one flat token is spent; a burst of 40 fills in 40 blocks.
    let at = |chain: &Chain, who| {
        let height = chain.ledger.globals().height;
        [0, 1, 20].map(|ahead| chain.ledger.rescue_tokens_at(who, Height(height.0 + ahead)))
    };
    assert_eq!(at(&chain, ALICE), [1, 2, 21], "40 or 41 parts a block");
    assert_eq!(chain.ledger.rescue_burst(ALICE), 40);
    (0..19).for_each(|_| chain.next(PRICE));
    let had = chain.ledger.rescue_tokens_at(ALICE, chain.ledger.globals().height);
    chain.apply(ALICE, Action::Transfer { to: BOB, amount: Atoms(900_000) }).unwrap();
    chain.next(PRICE);
    assert_eq!(had, 20);
    assert_eq!(chain.ledger.rescue_burst(BOB), 1 + 36);
    assert_eq!(at(&chain, BOB)[0], 1, "Bob starts from what he had");
    assert_eq!(at(&chain, ALICE)[0], 1 + 3, "Alice keeps no more than what is left is worth");
}

#[test]
fn a_cancel_of_risk_is_a_rescue_and_of_nothing_else() {
    let mut chain = chain(tight(), 1_000_000_000);
    let cancel = |order| Action::CancelRisk { market: BTC, order: Name::Id(order) };
    assert_eq!(cancel(OrderId { height: Height(1), index: 0 }).lane(), Lane::Rescue);
    assert_eq!(Action::Cancel { market: BTC, order: Name::Cloid(Cloid(1)) }.lane(), Lane::Trade);
    let limit = |side, reduce_only| Terms {
        market: BTC,
        side,
        limit: PriceTicks(PRICE),
        lots: Lots(5),
        kind: Kind::Limit,
        reduce_only,
        good_til: None,
        cloid: None,
    };
    let trade = fill(&chain.ledger, ALICE, BOB, 0, Side::Sell, PRICE, 10, 1 << 30);
    chain.apply(ALICE, trade).unwrap();
    let adding = chain.place(ALICE, limit(Side::Buy, false));
    let closing = chain.place(ALICE, limit(Side::Sell, true));
    let stop = Action::PlaceTrigger {
        trigger: Trigger { price: PriceTicks(PRICE / 2), crossing: Crossing::Below },
        terms: Terms { limit: PriceTicks(PRICE / 2), ..limit(Side::Buy, false) },
    };
    let stop = match chain.apply(ALICE, stop) {
        Ok(Receipt::Waiting { order }) => order,
        other => panic!("{other:?}"),
    };
    assert_eq!(chain.apply(ALICE, cancel(closing)), Err(Refusal::NotAdding));
    assert_eq!(chain.apply(ALICE, cancel(stop)), Err(Refusal::NotAdding));
    assert_eq!(chain.apply(BOB, cancel(adding)), Err(Refusal::UnknownOrder));
    assert_eq!(chain.apply(ALICE, cancel(adding)), Ok(Receipt::Cancelling { orders: 1 }));
    // Of what is gone: refused, and where a block carries it, answered.
    assert_eq!(chain.apply(ALICE, cancel(adding)), Err(Refusal::UnknownOrder));
    let height = chain.ledger.globals().height;
    chain.ledger.spend_nonce(ALICE, Nonce(1 << 50), height).unwrap();
    chain.end();
    assert_eq!(chain.ledger.rescue_tokens_at(ALICE, height), 4, "two of six");
}

#[test]
fn a_transfer_has_a_smallest_amount_and_leaves_initial_margin_behind() {
    let mut chain = chain(RescueParams { min_transfer: Atoms(500), ..tight() }, 10_000_000);
    let transfer = |amount| Action::Transfer { to: BOB, amount: Atoms(amount) };
    let trade = fill(&chain.ledger, ALICE, BOB, 0, Side::Sell, PRICE, 100, 1 << 30);
    chain.apply(ALICE, trade).unwrap();
    assert_eq!(chain.apply(ALICE, transfer(0)), Err(Refusal::NotPositive));
    assert_eq!(chain.apply(ALICE, transfer(499)), Err(Refusal::BelowTransferMinimum));
    let spare = chain.ledger.health(ALICE).unwrap().withdrawable.0;
    assert!(spare < 10_000_000);
    assert_eq!(chain.apply(ALICE, transfer(spare + 1)), Err(Refusal::InsufficientCollateral));
    assert_eq!(chain.apply(ALICE, transfer(spare)), Ok(Receipt::Transferred));
    let health = chain.ledger.health(ALICE).unwrap();
    assert_eq!((health.withdrawable.0, health.available.0), (0, 0));
}

/// One block of reserve, two accounts' worth of base tokens.
fn for_two() -> RescueParams {
    RescueParams { base_tokens: 2_000, pool_tokens: 50, reserve_blocks: 1, ..tight() }
}

#[test]
fn risk_is_opened_only_while_blocks_hold_a_reserve_for_its_rescues() {
    let mut chain = chain(for_two(), 1_000_000_000);
    let budget = chain.ledger.rescue_budget();
    assert_eq!((budget.at_risk, budget.at_risk_max), (0, 2));
    let order = |side, price: u64| Terms {
        market: BTC,
        side,
        limit: PriceTicks(price),
        lots: Lots(1),
        kind: Kind::Limit,
        reduce_only: false,
        good_til: None,
        cloid: None,
    };
    let [carol, dave] = [AccountId(3), AccountId(4)];
    // A bilateral trade makes two at once.
    chain.place(carol, order(Side::Buy, PRICE));
    let trade = fill(&chain.ledger, ALICE, BOB, 0, Side::Sell, PRICE, 1, 1 << 30);
    assert_eq!(chain.apply(ALICE, trade), Err(Refusal::RescueReserve));
    chain.place(ALICE, order(Side::Buy, PRICE));
    for refused in [
        Action::Place(order(Side::Buy, PRICE)),
        Action::PlaceMany(vec![order(Side::Buy, PRICE)]),
        Action::PlaceTrigger {
            trigger: Trigger { price: PriceTicks(PRICE / 2), crossing: Crossing::Below },
            terms: Terms { limit: PriceTicks(PRICE / 2), ..order(Side::Buy, PRICE) },
        },
    ] {
        assert_eq!(chain.apply(dave, refused), Err(Refusal::RescueReserve));
    }
    // Those that carry risk already go on, in this block and later ones.
    chain.place(ALICE, order(Side::Buy, PRICE - 1));
    chain.next(PRICE);
    assert_eq!(chain.ledger.rescue_budget().at_risk, 2);
    chain.place(carol, order(Side::Buy, PRICE - 1));
    assert_eq!(chain.apply(dave, Action::Place(order(Side::Buy, PRICE))), Err(Refusal::RescueReserve));
    // Carol's orders end with their zone's inboxes, three blocks on. Then there is room.
    chain.apply(carol, Action::CancelAll { market: None, keep_reduce_only: false }).unwrap();
    for _ in 0..5 {
        chain.next(PRICE);
        chain.ledger.void_overdue();
    }
    chain.next(PRICE);
    assert!(chain.ledger.rescue_budget().at_risk < 2);
    chain.place(dave, order(Side::Buy, PRICE));
}

#[test]
fn genesis_says_what_rescues_can_come_to_and_refuses_more_risk_than_it_reserves_for() {
    let position = |lots| GenesisPosition {
        market: BTC,
        lots: Lots(lots),
        cost: Atoms(i128::from(lots) * i128::from(PRICE)),
        mode: MarginMode::Cross,
        isolated: Atoms(0),
    };
    let genesis = |lots: &[i64]| {
        let own = |(at, user): (usize, GenesisAccount)| GenesisAccount {
            positions: lots.get(at.wrapping_sub(1)).map(|lots| position(*lots)).into_iter().collect(),
            ..user
        };
        let accounts = users(6, 1_000_000_000).enumerate().map(own);
        Ledger::genesis(&rationed(for_two()), TimeMs(1), accounts)
    };
    let ledger = genesis(&[1, -1]).unwrap();
    let budget = ledger.rescue_budget();
    assert_eq!((budget.at_risk, budget.at_risk_max, budget.tokens, budget.blocks), (2, 2, 4_054, 1));
    assert_eq!(budget.refill_per_block, 580, "of 4,096 in seven blocks");
    assert_eq!(tokens(&ledger, 1)[1], 2_005);
    assert_eq!(genesis(&[1, 1, -1, -1]).err(), Some(GenesisError::RescueReserve { at_risk: 4, most: 2 }));
    let many = RescueParams::default().for_accounts(1_000_000);
    assert_eq!(many.validate(), Ok(()));
    let budget = many.budget(1_000_000);
    assert!(budget.at_risk_max >= 1_000_000 && budget.blocks <= u64::from(many.reserve_blocks));
    assert!(budget.refill_per_block <= limits::MAX_OWED_PER_BLOCK as u64 / 2);
}

#[test]
fn rations_that_cannot_hold_are_refused_by_name() {
    let good = RescueParams::default();
    assert_eq!(good.validate(), Ok(()));
    let most = limits::MAX_RESCUE_TOKENS;
    for (bad, error) in [
        (RescueParams { base_tokens: 0, ..good }, ParamsError::RescueTokens),
        (RescueParams { flat_tokens: 0, ..good }, ParamsError::RescueTokens),
        (RescueParams { issuer_tokens: 0, ..good }, ParamsError::RescueTokens),
        (RescueParams { issuer_tokens: most + 1, ..good }, ParamsError::RescueTokens),
        (RescueParams { account_tokens: most, ..good }, ParamsError::RescueTokens),
        (RescueParams { account_tokens: u32::MAX, ..good }, ParamsError::RescueTokens),
        (RescueParams { reserve_blocks: 0, ..good }, ParamsError::RescueRefill),
        (RescueParams { refill_blocks: 2 * good.reserve_blocks - 1, ..good }, ParamsError::RescueRefill),
        (RescueParams { refill_blocks: limits::MAX_REFILL_BLOCKS + 1, ..good }, ParamsError::RescueRefill),
        (RescueParams { pool_tokens: u32::MAX, ..good }, ParamsError::RescueReserve),
        (RescueParams { min_transfer: Atoms(0), ..good }, ParamsError::MinTransfer),
        (RescueParams { min_transfer: Atoms(i128::MAX), ..good }, ParamsError::MinTransfer),
    ] {
        assert_eq!(bad.validate(), Err(error), "{bad:?}");
        assert_eq!(rationed(bad).validate(), Err(error));
    }
}

#[test]
fn the_nearer_to_a_breach_the_more_urgent() {
    let mut chain = chain(tight(), 100_000_000);
    let [carol, dave, erin] = [AccountId(3), AccountId(4), AccountId(5)];
    let large = fill(&chain.ledger, ALICE, BOB, 0, Side::Sell, PRICE, 1_000, 1 << 30);
    chain.apply(ALICE, large).unwrap();
    let small = fill(&chain.ledger, carol, BOB, 0, Side::Sell, PRICE, 10, (1 << 30) + 1);
    chain.apply(carol, small).unwrap();
    let resting = Terms {
        market: BTC,
        side: Side::Buy,
        limit: PriceTicks(PRICE - 9),
        lots: Lots(1),
        kind: Kind::Limit,
        reduce_only: false,
        good_til: None,
        cloid: None,
    };
    chain.place(dave, resting);
    chain.next(PRICE * 97 / 100);
    let urgency = |who| chain.ledger.urgency(who);
    let ranks = [ALICE, carol, dave, erin].map(urgency);
    assert!(ranks.is_sorted(), "{ranks:?}");
    assert!(matches!((ranks[0], ranks[2], ranks[3]), (Urgency::Worth(_), Urgency::Orders, Urgency::Flat)));
    let check = chain.ledger.margin_check(ALICE).unwrap();
    let worth = 1_000_000 * check.equity.0 / check.maintenance.0;
    assert!(
        matches!(ranks[0], Urgency::Worth(own) if i128::from(own).abs_diff(worth) <= worth.unsigned_abs() / 10_000)
    );
}
