//! Claims about what an action may not do, one refusal a row, each without a trace.

mod common;

use common::*;
use seawall_ledger::*;
use seawall_types::*;

const A: AccountId = AccountId(1);
const B: AccountId = AccountId(2);
const NOBODY: AccountId = AccountId(9_999);
const BTC: MarketId = MarketId(0);
const ETH: MarketId = MarketId(1);
const DOGE: MarketId = MarketId(2);
const MAX: i128 = limits::MAX_AMOUNT_ATOMS;

/// A chain at height 1 with prices 50,000, 3,000 and 700, in the middle of block 2.
fn world() -> Ledger {
    let mut params = params();
    for market in &mut params.markets {
        market.funding.interest_ppm = 0;
    }
    // Enough to fill a window of nonces in one block.
    params.rescues = RescueParams {
        pool_tokens: 1 << 20,
        account_tokens: 4_096,
        refill_blocks: 1_024,
        reserve_blocks: 512,
        ..RescueParams::default()
    };
    params.markets[0].account_cap = Lots(100);
    params.markets[0].open_interest_cap = Lots(150);
    params.markets[0].backstop.capacity_lots = Lots(100);
    params.markets[0].backstop.per_block_lots = Lots(100);
    let mut ledger = Ledger::genesis(&params, TimeMs(0), users(8, 10_000_000)).unwrap();
    let marks = [(BTC, fresh(50_000)), (ETH, fresh(3_000)), (DOGE, fresh(700))];
    ledger.begin_block(Height(1), TimeMs(1));
    ledger.set_marks(&marks);
    ledger.end_block();
    ledger.begin_block(Height(2), TimeMs(2));
    ledger
}

fn backstop(ledger: &Ledger) -> AccountId {
    ledger.market(BTC).unwrap().backstop
}

fn refuse(ledger: &mut Ledger, who: AccountId, action: &Action, refusal: Refusal) {
    refuse_with(ledger, who, Nonce(u64::MAX), ledger.globals().height, action, refusal);
}

fn refuse_with(
    ledger: &mut Ledger,
    who: AccountId,
    nonce: Nonce,
    expiry: Height,
    action: &Action,
    refusal: Refusal,
) {
    let before = records(ledger);
    assert_eq!(ledger.check(who, nonce, expiry, action), Err(refusal), "{action:?}");
    assert_eq!(ledger.apply(who, nonce, expiry, action), Err(refusal), "{action:?}");
    assert_eq!(records(ledger), before, "{refusal} left a trace");
}

fn accept(ledger: &mut Ledger, who: AccountId, nonce: u64, action: &Action) -> Receipt {
    let height = ledger.globals().height;
    ledger.apply(who, Nonce(nonce), height, action).unwrap_or_else(|refusal| panic!("{action:?}: {refusal}"))
}

fn buy(ledger: &Ledger, market: MarketId, price: u64, lots: i64, nonce: u64) -> Action {
    fill(ledger, A, B, market.0, Side::Sell, price, lots, nonce)
}

fn transfer(to: AccountId, amount: i128) -> Action {
    Action::Transfer { to, amount: Atoms(amount) }
}

fn withdraw(amount: i128) -> Action {
    Action::Withdraw { amount: Atoms(amount), recipient: Recipient::default() }
}

fn next_block(ledger: &mut Ledger, marks: &[(MarketId, Mark)]) {
    ledger.end_block();
    let (height, time) = (ledger.globals().height.next(), ledger.globals().time.0 + 1);
    ledger.begin_block(height, TimeMs(time));
    ledger.set_marks(marks);
}

#[test]
fn amounts_and_parties() {
    let ledger = &mut world();
    let protocol = backstop(ledger);
    let open = |amount| Action::Open { owner: Key::default(), amount: Atoms(amount) };
    let deposit = |to, amount| Action::Deposit { to, amount: Atoms(amount) };
    let rows = [
        (A, open(1), Refusal::NotIssuer),
        (ISSUER, open(-1), Refusal::NotPositive),
        (ISSUER, open(MAX + 1), Refusal::TooLarge),
        (ISSUER, open(MAX), Refusal::TooLarge),
        (A, deposit(B, 1), Refusal::NotIssuer),
        (ISSUER, deposit(B, 0), Refusal::NotPositive),
        (ISSUER, deposit(B, -1), Refusal::NotPositive),
        (ISSUER, deposit(B, i128::MAX), Refusal::TooLarge),
        (ISSUER, deposit(B, MAX), Refusal::TooLarge),
        (ISSUER, deposit(NOBODY, 1), Refusal::UnknownBeneficiary),
        (ISSUER, deposit(protocol, 1), Refusal::ProtocolAccount),
        (A, transfer(B, 0), Refusal::NotPositive),
        (A, transfer(B, i128::MIN), Refusal::NotPositive),
        (A, transfer(B, i128::MAX), Refusal::TooLarge),
        (A, transfer(B, 10_000_001), Refusal::InsufficientCollateral),
        (A, transfer(A, 1), Refusal::SelfDealing),
        (A, transfer(NOBODY, 1), Refusal::UnknownBeneficiary),
        (A, transfer(protocol, 1), Refusal::ProtocolAccount),
        (A, withdraw(0), Refusal::NotPositive),
        (A, withdraw(-5), Refusal::NotPositive),
        (A, withdraw(10_000_001), Refusal::InsufficientCollateral),
        (A, withdraw(MAX), Refusal::InsufficientCollateral),
        (NOBODY, withdraw(1), Refusal::UnknownAccount),
        (AccountId(u64::MAX), withdraw(1), Refusal::UnknownAccount),
        (protocol, withdraw(1), Refusal::ProtocolAccount),
        (A, Action::TopUpIsolated { market: BTC, amount: Atoms(1) }, Refusal::NoIsolatedPosition),
        (A, Action::TopUpIsolated { market: MarketId(99), amount: Atoms(1) }, Refusal::UnknownMarket),
        (A, Action::TopUpIsolated { market: BTC, amount: Atoms(0) }, Refusal::NotPositive),
        (A, Action::ReleaseIsolated { market: BTC, amount: Atoms(1) }, Refusal::NoIsolatedPosition),
        (A, Action::ReleaseIsolated { market: BTC, amount: Atoms(-1) }, Refusal::NotPositive),
        (A, Action::SetMarginMode { market: DOGE, mode: MarginMode::Cross }, Refusal::IsolatedOnly),
        (A, Action::SetMarginMode { market: MarketId(3), mode: MarginMode::Cross }, Refusal::UnknownMarket),
    ];
    for (who, action, refusal) in rows {
        refuse(ledger, who, &action, refusal);
    }
}

#[test]
fn nonces_and_expiries() {
    let ledger = &mut world();
    let now = ledger.globals().height;
    let action = transfer(B, 1);
    let far = Height(now.0 + limits::MAX_EXPIRY_BLOCKS);
    refuse_with(ledger, A, Nonce(1), Height(now.0 - 1), &action, Refusal::Expired);
    refuse_with(ledger, A, Nonce(1), Height(far.0 + 1), &action, Refusal::ExpiryTooFar);
    refuse_with(ledger, A, Nonce(1), Height(u64::MAX), &action, Refusal::ExpiryTooFar);
    ledger.apply(A, Nonce(1), far, &action).unwrap();
    refuse_with(ledger, A, Nonce(1), now, &action, Refusal::NonceUsed);
    refuse_with(ledger, A, Nonce(1), far, &action, Refusal::NonceUsed);
    assert_eq!(ledger.spend_nonce(A, Nonce(1), far), Err(Refusal::NonceUsed));
    for place in 1..limits::MAX_NONCE_RUNS as u64 {
        ledger.spend_nonce(A, Nonce(10 * place), now).unwrap();
    }
    refuse_with(ledger, A, Nonce(1_000_000), far, &action, Refusal::NonceWindowFull);
    // What follows a used nonce and expires with it takes no room.
    ledger.spend_nonce(A, Nonce(11), now).unwrap();
    ledger.spend_nonce(A, Nonce(2), far).unwrap();
    let quote = fill(ledger, B, A, 1, Side::Sell, 3_000, 1, 1_000_000);
    refuse(ledger, B, &quote, Refusal::NonceWindowFull);
    // A block later all but the far one have expired: there is room, and their numbers are free again.
    next_block(ledger, &[]);
    ledger.apply(A, Nonce(10), ledger.globals().height, &action).unwrap();
    assert_eq!(ledger.account(A).unwrap().nonces.runs().len(), 2);
    refuse_with(ledger, A, Nonce(1), far, &action, Refusal::NonceUsed);
}

#[test]
fn quotes() {
    let ledger = &mut world();
    let protocol = backstop(ledger);
    let good = || match buy(&world(), ETH, 3_000, 10, 1) {
        Action::Fill { quote, .. } => quote,
        _ => unreachable!(),
    };
    let with = |change: &dyn Fn(&mut Quote), lots: i64| {
        let mut quote = good();
        change(&mut quote);
        Action::Fill { quote, quote_signature: Signature::default(), lots: Lots(lots) }
    };
    let far = limits::MAX_EXPIRY_BLOCKS;
    let rows = [
        (with(&|_| (), 0), Refusal::NotPositive),
        (with(&|_| (), -1), Refusal::NotPositive),
        (with(&|_| (), i64::MIN), Refusal::NotPositive),
        (with(&|_| (), i64::MAX), Refusal::TooLarge),
        (with(&|_| (), 11), Refusal::QuoteMismatch),
        (with(&|quote| quote.chain = ChainId(8), 1), Refusal::QuoteMismatch),
        (with(&|quote| quote.taker = B, 1), Refusal::QuoteMismatch),
        (with(&|quote| quote.maker = A, 1), Refusal::SelfDealing),
        (with(&|quote| quote.maker = NOBODY, 1), Refusal::UnknownBeneficiary),
        (with(&|quote| quote.maker = protocol, 1), Refusal::ProtocolAccount),
        (with(&|quote| quote.market = MarketId(3), 1), Refusal::UnknownMarket),
        (with(&|quote| quote.expiry = Height(1), 1), Refusal::QuoteExpired),
        (with(&|quote| quote.expiry = Height(far + 3), 1), Refusal::QuoteExpired),
        (with(&|quote| quote.price = PriceTicks(0), 1), Refusal::OutsideBand),
        (with(&|quote| quote.price = PriceTicks(3_061), 1), Refusal::OutsideBand),
        (with(&|quote| quote.price = PriceTicks(2_939), 1), Refusal::OutsideBand),
        (with(&|quote| quote.price = PriceTicks(u64::MAX), 1), Refusal::OutsideBand),
    ];
    for (action, refusal) in rows {
        refuse(ledger, A, &action, refusal);
    }
    accept(ledger, A, 1, &with(&|_| (), 4));
    refuse(ledger, A, &with(&|_| (), 4), Refusal::QuoteUsed);
}

#[test]
fn margin_and_caps() {
    let ledger = &mut world();
    // 10,000,000 atoms carry 6,666 lots of ETH at 30,000 atoms and 5 %, fees aside.
    let action = buy(ledger, ETH, 3_000, 6_667, 1);
    refuse(ledger, A, &action, Refusal::InsufficientMargin);
    // The maker spends what it has; the taker does not lack it.
    accept(ledger, B, 900, &transfer(A, 9_990_000));
    let action = buy(ledger, ETH, 3_000, 100, 2);
    refuse(ledger, A, &action, Refusal::CounterpartyMargin);
    accept(ledger, A, 901, &transfer(B, 9_990_000));

    let action = buy(ledger, BTC, 50_000, 101, 3);
    refuse(ledger, A, &action, Refusal::PositionCap);
    let action = buy(ledger, BTC, 50_000, 90, 4);
    accept(ledger, A, 902, &action);
    let action = fill(ledger, AccountId(3), AccountId(4), 0, Side::Sell, 50_000, 61, 5);
    refuse(ledger, AccountId(3), &action, Refusal::OpenInterestCap);
    let action = fill(ledger, AccountId(3), AccountId(4), 0, Side::Sell, 50_000, 60, 6);
    accept(ledger, AccountId(3), 903, &action);
    // At the cap, lots may still change hands.
    let action = fill(ledger, AccountId(5), A, 0, Side::Sell, 50_000, 10, 7);
    accept(ledger, AccountId(5), 904, &action);
    assert_eq!(ledger.market(BTC).unwrap().open_interest, Lots(150));

    let mode = Action::SetMarginMode { market: BTC, mode: MarginMode::Isolated };
    refuse(ledger, A, &mode, Refusal::PositionOpen);
    let release = Action::ReleaseIsolated { market: BTC, amount: Atoms(1) };
    refuse(ledger, A, &release, Refusal::NoIsolatedPosition);
    // 80 lots x 50,000 at 5 % are 200,000 atoms of initial margin: to the atom.
    let health = ledger.health(A).unwrap();
    assert_eq!(health.initial, Atoms(200_000));
    let spare = health.withdrawable.0;
    refuse(ledger, A, &withdraw(spare + 1), Refusal::InsufficientCollateral);
    refuse(ledger, A, &transfer(B, spare + 1), Refusal::InsufficientCollateral);
    accept(ledger, A, 905, &withdraw(spare));
    assert_eq!(ledger.health(A).unwrap().available, Atoms(0));
    refuse(ledger, A, &withdraw(1), Refusal::InsufficientCollateral);
    assert_eq!(ledger.exit(0).unwrap().amount, Atoms(spare));
    ledger.end_block();
}

#[test]
fn unrealised_profit_cannot_be_withdrawn() {
    let ledger = &mut world();
    let action = buy(ledger, ETH, 3_000, 100, 1);
    accept(ledger, A, 900, &action);
    next_block(ledger, &[(ETH, fresh(4_000))]);
    let health = ledger.health(A).unwrap();
    let collateral = ledger.account(A).unwrap().collateral;
    assert!(health.equity.0 > collateral.0 + 900_000, "the profit is in the equity");
    assert_eq!(health.withdrawable, collateral - health.initial);
    // A loss counts at once.
    let loser = ledger.health(B).unwrap();
    assert_eq!(loser.withdrawable, loser.equity - loser.initial);
}

#[test]
fn a_blind_market_adds_no_risk_and_lets_no_value_out() {
    for state in [PriceState::Stale, PriceState::Disputed, PriceState::Reopening, PriceState::Quarantined] {
        let ledger = &mut world();
        let action = buy(ledger, ETH, 3_000, 100, 1);
        accept(ledger, A, 900, &action);
        let action = buy(ledger, DOGE, 700, 10, 2);
        accept(ledger, A, 901, &action);
        next_block(ledger, &[(ETH, mark(state, 3_000)), (DOGE, mark(state, 700))]);
        let quarantined = state == PriceState::Quarantined;
        let refusal = if quarantined { Refusal::MarketQuarantined } else { Refusal::PriceNotFresh };
        let action = buy(ledger, ETH, 3_000, 1, 3);
        refuse(ledger, A, &action, refusal);
        // Even if only one side adds risk.
        let action = fill(ledger, AccountId(3), A, 1, Side::Sell, 3_000, 1, 4);
        refuse(ledger, AccountId(3), &action, refusal);
        refuse(ledger, A, &withdraw(1), Refusal::BlindPosition);
        refuse(ledger, A, &transfer(B, 1), Refusal::BlindPosition);
        let release = Action::ReleaseIsolated { market: DOGE, amount: Atoms(1) };
        refuse(ledger, A, &release, Refusal::BlindPosition);
        assert_eq!(ledger.health(A).unwrap().withdrawable, Atoms(0));
        // Rescues act, and so does who holds nothing blind.
        accept(ledger, A, 902, &Action::TopUpIsolated { market: DOGE, amount: Atoms(1) });
        accept(ledger, AccountId(3), 903, &transfer(A, 1));
        accept(ledger, AccountId(3), 904, &withdraw(1));
        if !quarantined {
            // Both sides close: no risk is added.
            let action = fill(ledger, B, A, 1, Side::Sell, 3_000, 100, 5);
            let Action::Fill { mut quote, quote_signature, lots } = action else { unreachable!() };
            quote.expiry = ledger.globals().height;
            accept(ledger, B, 905, &Action::Fill { quote, quote_signature, lots });
            assert_eq!(ledger.market(ETH).unwrap().open_interest, Lots(0));
        }
        ledger.end_block();
        assert_eq!(ledger.audit(), Ok(()));
    }
}

#[test]
fn a_market_without_a_price_does_not_trade() {
    let mut ledger = Ledger::genesis(&params(), TimeMs(0), users(3, 1_000_000)).unwrap();
    ledger.begin_block(Height(1), TimeMs(1));
    let action = buy(&ledger, ETH, 3_000, 1, 1);
    refuse(&mut ledger, A, &action, Refusal::PriceNotFresh);
    // A price outside the market's range is no price.
    ledger.set_marks(&[(ETH, fresh(9)), (BTC, fresh(limits::MAX_PRICE_TICKS))]);
    assert_eq!(ledger.market(ETH).unwrap().mark, None);
    ledger.set_marks(&[(ETH, fresh(3_000))]);
    ledger.set_marks(&[(ETH, fresh(9))]);
    assert_eq!(ledger.market(ETH).unwrap().mark, Some(mark(PriceState::Disputed, 3_000)));
}

#[test]
fn positions_in_too_many_markets() {
    let mut params = params();
    params.markets = (0..=limits::MAX_POSITIONS_PER_ACCOUNT).map(|n| market(&format!("M{n}"), 1)).collect();
    let mut ledger = Ledger::genesis(&params, TimeMs(0), users(4, 10_000_000)).unwrap();
    ledger.begin_block(Height(1), TimeMs(1));
    let marks: Vec<_> = ledger.markets().map(|(id, _)| (id, fresh(1_000))).collect();
    ledger.set_marks(&marks);
    for n in 0..limits::MAX_POSITIONS_PER_ACCOUNT as u64 {
        let action = buy(&ledger, MarketId(n as u16), 1_000, 1, n);
        accept(&mut ledger, A, 900 + n, &action);
    }
    let last = MarketId(limits::MAX_POSITIONS_PER_ACCOUNT as u16);
    let action = buy(&ledger, last, 1_000, 1, 99);
    refuse(&mut ledger, A, &action, Refusal::TooManyPositions);
}

#[test]
fn an_isolated_position_takes_just_its_margin_and_returns_it() {
    let ledger = &mut world();
    accept(ledger, A, 900, &Action::SetMarginMode { market: ETH, mode: MarginMode::Isolated });
    let before = ledger.account(A).unwrap().collateral;
    let action = buy(ledger, ETH, 3_000, 100, 1);
    accept(ledger, A, 901, &action);
    let account = ledger.account(A).unwrap();
    // 100 lots x 30,000 atoms: 5 % initial margin, and a fee of 500 ppm.
    assert_eq!(account.position(ETH).unwrap().isolated, Atoms(150_000));
    assert_eq!(account.collateral, before - Atoms(150_000 + 1_500));
    let compartment = Compartment::Isolated(ETH);
    assert_eq!(ledger.health_of(A, compartment).unwrap().available, Atoms(0));
    accept(ledger, A, 902, &Action::TopUpIsolated { market: ETH, amount: Atoms(1_000) });
    let too_much = Action::ReleaseIsolated { market: ETH, amount: Atoms(1_001) };
    refuse(ledger, A, &too_much, Refusal::InsufficientCollateral);
    accept(ledger, A, 903, &Action::ReleaseIsolated { market: ETH, amount: Atoms(1_000) });
    let huge = Action::TopUpIsolated { market: ETH, amount: Atoms(MAX) };
    refuse(ledger, A, &huge, Refusal::InsufficientCollateral);
    let action = fill(ledger, A, B, 1, Side::Buy, 3_000, 100, 2);
    accept(ledger, A, 904, &action);
    assert_eq!(ledger.account(A).unwrap().collateral, before - Atoms(3_000));
    assert_eq!(ledger.account(A).unwrap().positions, vec![]);
}
