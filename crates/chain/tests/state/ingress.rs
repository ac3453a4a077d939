//! The way of an action into the pool, without a network.

use super::common::*;
use commonware_cryptography::Digestible as _;
use commonware_parallel::Sequential;
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use commonware_utils::channel::mpsc;
use seawall_chain::{
    block::from_consensus,
    ingress::{CONNECTION_SHARE, Checker, MAX_STRIKES, Origin, Passed, QueueLimits, Submitter, TRADE_BATCH},
    machine::Machine,
    mempool::{Mempool, PoolLimits, SubmitError},
    submissions::{State, Submissions},
    work::{Costs, Work},
};
use seawall_ledger::RescueParams;
use seawall_types::*;
use std::{collections::BTreeSet, future::Future, time::Duration};

/// What a test has at hand.
struct Bench {
    context: deterministic::Context,
    submitter: Submitter,
    mempool: Mempool,
    passed: [mpsc::Receiver<Passed>; 2],
}

/// Runs the ingress of a validator that stands at genesis and takes a millisecond for a signature.
fn with_ingress<F: Future<Output = ()>>(
    queues: QueueLimits,
    pools: PoolLimits,
    test: impl FnOnce(Bench) -> F + Send + 'static,
) {
    with_fixture(Fixture::new(20, 4, 40), queues, pools, test);
}

fn with_fixture<F: Future<Output = ()>>(
    fixture: Fixture,
    queues: QueueLimits,
    pools: PoolLimits,
    test: impl FnOnce(Bench) -> F + Send + 'static,
) {
    deterministic::Runner::seeded(1).start(|context| async move {
        let machine = Machine::empty();
        let head = from_consensus(fixture.genesis.block(&fixture.commitment).digest());
        let mut world = fixture.genesis.world().unwrap();
        let marks: Vec<_> = world.oracle.marks().collect();
        world.ledger.begin_block(Height(1), TimeMs(START + 1));
        world.ledger.set_marks(&marks);
        world.ledger.end_block();
        machine.load(head, world);
        let submissions = Submissions::default();
        let mempool = Mempool::new(pools, submissions.clone());
        let (rescues, passed_rescues) = mpsc::channel(1 << 14);
        let (trades, passed_trades) = mpsc::channel(1 << 14);
        let costs = Costs::charged(|work| match work {
            Work::Ingress { signatures, .. } => Duration::from_millis(u64::from(signatures)),
            _ => Duration::ZERO,
        });
        let (checker, submitter) = Checker::new(
            context.child("ingress"),
            CHAIN,
            machine,
            mempool.clone(),
            submissions,
            queues,
            [rescues, trades],
            costs,
            Sequential,
        );
        checker.start();
        let passed = [passed_rescues, passed_trades];
        test(Bench { context: context.child("test"), submitter, mempool, passed }).await;
    });
}

fn withdrawal(account: u64, nonce: u64) -> SignedAction {
    let recipient = Recipient([7; 32]);
    signed(AccountId(account), nonce, 50, Action::Withdraw { amount: Atoms(1), recipient })
}

fn order(account: u64, nonce: u64) -> SignedAction {
    let terms = Terms {
        market: MarketId(0),
        side: Side::Buy,
        limit: PriceTicks(100_000),
        lots: Lots(1),
        kind: Kind::Ioc,
        reduce_only: false,
        good_til: None,
        cloid: None,
    };
    signed(AccountId(account), nonce, 50, Action::PlaceMany(vec![terms]))
}

fn cancel(account: u64, nonce: u64) -> SignedAction {
    let names = vec![(MarketId(0), Name::Cloid(Cloid(1)))];
    signed(AccountId(account), nonce, 50, Action::CancelMany(names))
}

fn rescue(account: u64, nonce: u64) -> SignedAction {
    signed(AccountId(account), nonce, 50, Action::ScheduleCancel { at: None })
}

#[test]
fn a_flood_of_trades_delays_a_rescue_by_no_more_than_a_batch_of_them() {
    with_ingress(QueueLimits::default(), PoolLimits::default(), |bench| async move {
        for nonce in 0..4_000 {
            bench.submitter.submit(order(1 + nonce % 30, 1_000 + nonce)).unwrap();
        }
        // In the middle of some batch.
        bench.context.sleep(Duration::from_millis(130)).await;
        let begun = bench.context.current();
        let id = bench.submitter.submit(rescue(3, 1)).unwrap();
        assert_eq!(bench.submitter.state(&id), State::Received);
        while bench.submitter.state(&id) != State::Pooled {
            bench.context.sleep(Duration::from_millis(1)).await;
        }
        let waited = bench.context.current().duration_since(begun).unwrap();
        assert!(waited <= Duration::from_millis(TRADE_BATCH as u64 + 2), "{waited:?}");
        let (_, trades) = bench.submitter.waiting();
        assert!(trades > 3_000, "{trades} still wait");
    });
}

/// To find out which signatures of a batch are bad takes many times as long as to find that all are good.
#[test]
fn bad_signatures_among_trades_delay_a_rescue_by_no_more_than_a_batch_of_good_ones() {
    with_ingress(QueueLimits::default(), PoolLimits::default(), |bench| async move {
        for nonce in 0..4 * TRADE_BATCH as u64 {
            let mut action = order(1 + nonce % 30, 1_000 + nonce);
            action.signature.0[5] ^= 1;
            bench.submitter.submit_from(1 + nonce / 32, action).unwrap();
        }
        for nonce in 0..6 {
            bench.context.sleep(Duration::from_millis(70 + 29 * nonce)).await;
            let begun = bench.context.current();
            let id = bench.submitter.submit(rescue(3, nonce)).unwrap();
            while bench.submitter.state(&id) != State::Pooled {
                bench.context.sleep(Duration::from_millis(1)).await;
            }
            let waited = bench.context.current().duration_since(begun).unwrap();
            assert!(waited <= Duration::from_millis(TRADE_BATCH as u64 + 2), "{waited:?}");
        }
        assert!(bench.submitter.waiting().1 > 0, "the flood is not over");
    });
}

#[test]
fn one_connection_takes_no_place_from_others_and_no_lane_from_the_other() {
    let queues = QueueLimits { rescues: 64, trades: 64, ..QueueLimits::default() };
    with_ingress(queues, PoolLimits::default(), |bench| async move {
        let mut taken = 0;
        for nonce in 0..1_000 {
            taken += usize::from(bench.submitter.submit_from(7, order(1, 1_000 + nonce)).is_ok());
        }
        assert_eq!(taken, 64 / CONNECTION_SHARE);
        assert_eq!(bench.submitter.shed(), (0, 1_000 - taken as u64));
        let other = bench.submitter.submit_from(8, order(2, 1)).unwrap();
        // The tools of the process may fill what is left, and then only what matters more has a place.
        while bench.submitter.submit(order(3, 5_000 + taken as u64)).is_ok() {
            taken += 1;
        }
        assert_eq!(bench.submitter.waiting(), (0, 64));
        let full = Err(SubmitError::PoolFull { lane: Lane::Trade });
        assert_eq!(bench.submitter.submit_from(9, order(4, 1)), full);
        assert!(
            bench.submitter.submit_from(9, cancel(4, 2)).is_ok(),
            "a cancel has the place of the last order"
        );
        assert!(bench.submitter.submit_from(9, rescue(4, 3)).is_ok(), "rescues have places of their own");
        assert_eq!(bench.submitter.waiting(), (1, 64));
        bench.context.sleep(Duration::from_secs(1)).await;
        assert_eq!(bench.submitter.state(&other), State::Pooled);
        assert_eq!(bench.submitter.waiting(), (0, 0));
    });
}

#[test]
fn a_bad_signature_is_found_among_good_ones_and_counts_against_its_sender() {
    with_ingress(QueueLimits::default(), PoolLimits::default(), |mut bench| async move {
        let bad = BTreeSet::from([3u64, 17, 40]);
        let mut ids = Vec::new();
        for nonce in 0..TRADE_BATCH as u64 {
            let mut action = order(1 + nonce % 30, 100 + nonce);
            if bad.contains(&nonce) {
                action.signature.0[5] ^= 1;
            }
            ids.push(bench.submitter.submit_from(5, action).unwrap());
        }
        bench.context.sleep(Duration::from_secs(1)).await;
        for (nonce, id) in (0..).zip(&ids) {
            let want =
                if bad.contains(&nonce) { State::Refused(Refusal::BadSignature) } else { State::Pooled };
            assert_eq!(bench.submitter.state(id), want, "{nonce}");
        }
        assert_eq!(bench.mempool.len(), (0, TRADE_BATCH - bad.len()));
        let mut relayed = 0;
        while let Ok(passed) = bench.passed[1].try_recv() {
            assert_eq!(passed.origin, Origin::Connection(5));
            relayed += 1;
        }
        assert_eq!(relayed, TRADE_BATCH - bad.len(), "what is bad is not sent on");
        // Whoever goes on like that is not listened to for a while.
        for nonce in 0..u64::from(MAX_STRIKES) {
            let mut action = rescue(2, 1_000 + nonce);
            action.signature.0[5] ^= 1;
            bench.submitter.submit_from(5, action).unwrap();
        }
        bench.context.sleep(Duration::from_secs(2)).await;
        assert!(bench.submitter.submit_from(5, rescue(2, 9_000)).is_err());
        assert!(bench.submitter.submit_from(6, rescue(2, 9_000)).is_ok(), "others are");
    });
}

#[test]
fn a_full_pool_sheds_what_can_add_risk_first_and_says_so() {
    let pools = PoolLimits { trades: 16, ..PoolLimits::default() };
    with_ingress(QueueLimits::default(), pools, |bench| async move {
        let orders: Vec<_> =
            (0..16).map(|nonce| bench.submitter.submit(order(1, 100 + nonce)).unwrap()).collect();
        bench.context.sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.mempool.len(), (0, 16));
        let late = bench.submitter.submit(order(2, 1)).unwrap();
        let cancels: Vec<_> = (0..3).map(|nonce| bench.submitter.submit(cancel(3, nonce)).unwrap()).collect();
        let out: Vec<_> = (0..4).map(|nonce| bench.submitter.submit(withdrawal(4, nonce)).unwrap()).collect();
        let saved = bench.submitter.submit(rescue(5, 1)).unwrap();
        bench.context.sleep(Duration::from_millis(100)).await;
        let states = |ids: &[Digest]| ids.iter().map(|id| bench.submitter.state(id)).collect::<Vec<_>>();
        assert_eq!(bench.submitter.state(&late), State::Shed, "the youngest of the last rank");
        assert_eq!(bench.submitter.state(&saved), State::Pooled, "rescues are not in this");
        assert_eq!(states(&cancels), [State::Pooled; 3]);
        assert_eq!(
            states(&out),
            [State::Pooled, State::Pooled, State::Shed, State::Shed],
            "their share, no more"
        );
        assert_eq!(states(&orders[11..]), [State::Shed; 5]);
        assert_eq!(states(&orders[..11]), [State::Pooled; 11]);
        assert_eq!(bench.mempool.len(), (1, 16));
        // Sent again, it is looked at again.
        bench.mempool.remove([(&AccountId(1), &Nonce(100))]);
        assert_eq!(bench.submitter.submit(order(2, 1)), Ok(late));
        bench.context.sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.submitter.state(&late), State::Pooled);
    });
}

#[test]
fn withdrawals_have_a_slow_share_of_a_block_that_orders_cannot_take() {
    with_ingress(QueueLimits::default(), PoolLimits::default(), |bench| async move {
        for nonce in 0..200 {
            bench.submitter.submit(order(1 + nonce % 30, 100 + nonce)).unwrap();
        }
        for nonce in 0..20 {
            bench.submitter.submit(withdrawal(31, nonce)).unwrap();
        }
        bench.submitter.submit(cancel(32, 1)).unwrap();
        bench.context.sleep(Duration::from_secs(1)).await;
        let keys = |account: AccountId| Some(owner(account).key());
        let taken = |limit| {
            let actions = bench.mempool.candidates(limit, &BTreeSet::new(), keys, |_| u32::MAX);
            let count = |wanted: &str| actions.iter().filter(|own| own.action.name() == wanted).count();
            (count("cancel_many"), count("withdraw"), count("place_many"), actions.len())
        };
        assert_eq!(taken(100), (1, 3, 96, 100), "one in 32 of what is left, rounded down");
        assert_eq!(taken(3), (1, 1, 1, 3), "and one at least");
        assert_eq!(taken(1 << 14), (1, 20, 200, 221), "all of them where there is room");
    });
}

#[test]
fn a_rescue_beyond_the_tokens_is_refused_where_it_is_submitted_with_the_blocks_to_wait() {
    let rescues = RescueParams {
        base_tokens: 3,
        pool_tokens: 0,
        issuer_tokens: 100,
        refill_blocks: 8,
        reserve_blocks: 4,
        ..RescueParams::default()
    };
    let fixture = Fixture::rationed(20, 4, 40, rescues);
    with_fixture(fixture, QueueLimits::default(), PoolLimits::default(), |bench| async move {
        // Of one batch as of several.
        let ids: Vec<_> = (0..5).map(|nonce| bench.submitter.submit(rescue(1, nonce)).unwrap()).collect();
        bench.context.sleep(Duration::from_millis(100)).await;
        let late = bench.submitter.submit(rescue(1, 9)).unwrap();
        let other = bench.submitter.submit(rescue(2, 1)).unwrap();
        let trade = bench.submitter.submit(withdrawal(1, 20)).unwrap();
        bench.context.sleep(Duration::from_millis(100)).await;
        let states: Vec<_> = ids.iter().map(|id| bench.submitter.state(id)).collect();
        // A token is eight parts, and three come back in a block.
        let rationed = State::Rationed { blocks: 3 };
        assert_eq!(states, [State::Pooled, State::Pooled, State::Pooled, rationed, rationed]);
        assert_eq!(bench.submitter.state(&late), rationed);
        assert_eq!(bench.submitter.state(&other), State::Pooled, "nobody else is held up");
        assert!(!matches!(bench.submitter.state(&trade), State::Rationed { .. }));
        assert_eq!(bench.mempool.len().0, 4);
        // Once they are answered, it is looked at again.
        bench.mempool.remove(
            (0..3)
                .map(|nonce| (AccountId(1), Nonce(nonce)))
                .collect::<Vec<_>>()
                .iter()
                .map(|(account, nonce)| (account, nonce)),
        );
        assert_eq!(bench.submitter.submit(rescue(1, 9)), Ok(late));
        bench.context.sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.submitter.state(&late), State::Pooled);
    });
}
