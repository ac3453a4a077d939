//! Execution without consensus: which blocks are valid, how the state walks between forks, how it is stored.

mod common;
#[path = "state/ingress.rs"]
mod ingress;
use common::*;

use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_consensus::{
    marshal::ancestry,
    types::{Epoch, Round, View},
};
use commonware_cryptography::{Digested, Digestible as _, sha256};
use commonware_glue::stateful::{
    Application as _, Finality,
    db::{DatabaseSet, Merkleized as _, Shared, Unmerkleized as _},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use proptest::{collection::vec, option, prelude::*};
use seawall_chain::{
    app::{App, BuildPolicy, NoMonitor, Parts, check_form},
    block::{Block, Context, body_digest, from_consensus, outcome_digest, outcomes_root, to_consensus},
    evidence::{Equivocation, Evidence, SignedHeader},
    inclusion,
    machine::{Answer, Brought, Executed, Machine, Purpose, Step, World},
    mempool::{MAX_POOLED_RESCUES, Mempool, Signers, SubmitError, check_signatures},
    observer::{Config as ObserverConfig, Observer, PriceSource},
    proofs::ParentProofs,
    records::{self as codec, ChainRecord, EntryPage, MAX_RECORD_BYTES, Stored},
    store::{self, Db, Tag},
    submissions::Submissions,
    timeline::Timeline,
    work::Costs,
    zones::Zones,
};
use seawall_ledger::{
    Account, AccountKind, Bucket, Event, Exit, Globals, Market, NonceRun, Nonces, OpenOrder, Position,
    QuarantineReason, Record, RecordKey, RescueParams, Waiting, ZoneEntry, ZoneInbox, ZoneState,
    params::{BackstopParams, FundingParams, LiquidationParams, MarketParams, TierParams},
};
use seawall_oracle::{Head, MarketOracle, ReporterRow};
use seawall_types::{block::OpsTarget, testing as any_, *};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

struct Silent;

impl PriceSource for Silent {
    fn report(&self, _: TimeMs) -> Vec<(MarketId, PriceReport)> {
        Vec::new()
    }
}

/// What `author` says for `view`, signed.
fn said(fixture: &Fixture, author: u16, view: u64, seq: u64, time: u64, ppm: u64) -> Observation {
    let prices = (0..MARKETS.len())
        .map(|market| {
            let price = PriceTicks(MARKETS[market] * ppm / 1_000_000);
            let report = PriceReport { low: price, high: price, spread: PriceTicks(0), sources: 3 };
            (MarketId(market as u16), report)
        })
        .collect();
    let said = Observation {
        chain: CHAIN,
        epoch: 0,
        view,
        seq,
        time: TimeMs(time),
        prices,
        rescues: Vec::new(),
        outcomes: Vec::new(),
        health: Health::default(),
        author: ValidatorId(author),
        signature: Signature::default(),
    };
    sign(fixture, said)
}

fn sign(fixture: &Fixture, mut said: Observation) -> Observation {
    let author = usize::from(said.author.get()) % fixture.members.len();
    said.signature = fixture.members[author].0.sign(Domain::Observation, said.chain, &said.message());
    said
}

type Databases = Shared<Db<deterministic::Context, Sequential>>;

async fn databases(context: deterministic::Context, config: store::DbConfig<Sequential>) -> Databases {
    <Databases as DatabaseSet<deterministic::Context>>::init(context, config, None).await
}

/// A block of view 1 on genesis, before it is signed.
#[derive(Clone)]
struct Draft {
    view: u64,
    leader: usize,
    header: Header,
    observations: Vec<Observation>,
    actions: Vec<SignedAction>,
    parent_proof: Option<ParentProof>,
    outcomes: Vec<ZoneOutcome>,
    forged: bool,
}

/// Asks a fresh application about blocks on genesis. `change` gets an honest block's parts, with the right
/// roots for its body; with `reseal` the roots follow what it changed in the body, where that executes.
fn judge(
    fixture: &Fixture,
    actions: Vec<SignedAction>,
    reseal: bool,
    change: impl FnOnce(&mut Draft) + Send + 'static,
) -> bool {
    let fixture = fixture.clone();
    deterministic::Runner::seeded(0).start(|context| async move {
        let genesis = fixture.genesis.block(&fixture.commitment);
        let parent = from_consensus(genesis.digest());
        let config = store::config("judge", Sequential, store::page_cache());
        let world = fixture.genesis.world().unwrap();
        store::seed(context.child("seed"), config.clone(), world.records()).await.unwrap();
        let databases: Databases = databases(context.child("db"), config).await;

        let observations =
            (0..4).map(|author| said(&fixture, author, 1, 1, START + 1_000, 990_000)).collect();
        let header = Header {
            version: block::VERSION,
            chain: CHAIN,
            epoch: 0,
            height: Height(1),
            parent,
            time: TimeMs(START + 1_000),
            body: Digest::default(),
            state_root: Digest::default(),
            ops: OpsTarget { root: Digest::default(), start: 0, end: 1 },
            outcomes_root: outcomes_root(&[]),
            exits_root: Digest::default(),
        };
        let mut draft = Draft {
            view: 1,
            leader: 1,
            header,
            observations,
            actions,
            parent_proof: None,
            outcomes: Vec::new(),
            forged: false,
        };
        let mut change = Some(change);
        if reseal {
            (change.take().unwrap())(&mut draft);
        }
        let brought = Brought {
            time: None,
            observations: draft.observations.clone(),
            parent_proof: draft.parent_proof,
            outcomes: draft.outcomes.clone(),
            actions: draft.actions.clone(),
        };
        let executed = fixture.genesis.world().unwrap().execute(parent, Height(1), brought, Purpose::Verify);
        if reseal {
            draft.header.outcomes_root = outcomes_root(&draft.outcomes);
        }
        if let Ok(Executed { step, .. }) = executed {
            let mut batch = databases.new_batches().await;
            for (key, value) in step.writes() {
                batch = batch.write(key, value);
            }
            let sealed = batch.merkleize().await.unwrap();
            draft.header.state_root = Digest(sealed.root().0);
            draft.header.ops = OpsTarget {
                root: Digest(sealed.ops_root().0),
                start: *sealed.sync_boundary(),
                end: *sealed.bounds().tip.size,
            };
            draft.header.exits_root = step.exits_root;
            draft.header.time = step.time;
        }
        if let Some(change) = change {
            change(&mut draft);
        }

        let body = Body {
            observations: draft.observations,
            actions: draft.actions,
            parent_proof: draft.parent_proof,
            outcomes: draft.outcomes,
        };
        draft.header.body = body_digest(&body);
        let consensus = Context {
            round: Round::new(Epoch::zero(), View::new(draft.view)),
            leader: fixture.keys()[draft.leader].clone(),
            parent: (View::zero(), to_consensus(parent)),
        };
        let signer = &fixture.members[if draft.forged { draft.leader ^ 1 } else { draft.leader }].0;
        let block = Block::sign(consensus.clone(), draft.header, body, signer);

        let committee = fixture.genesis.committee();
        let (_, observatory) = Observer::new(
            context.child("observer"),
            ObserverConfig {
                committee: committee.clone(),
                me: ValidatorId(0),
                identity: fixture.members[0].0.clone(),
                timeline: Timeline::LIVE,
                zones: Zones::default(),
                mempool: Mempool::default(),
                machine: Machine::empty(),
                retry: Duration::from_secs(1),
            },
            Arc::new(Silent),
        );
        let mut app = App::new(Parts {
            chain: CHAIN,
            committee,
            identity: fixture.members[0].0.clone(),
            genesis: genesis.clone(),
            oracle: fixture.genesis.oracle.clone(),
            machine: Machine::empty(),
            mempool: Mempool::default(),
            observatory,
            proofs: ParentProofs::default(),
            zones: Zones::default(),
            evidence: Evidence::new(fixture.genesis.committee()),
            policy: BuildPolicy::default(),
            monitor: Arc::new(NoMonitor),
            submissions: Submissions::default(),
            costs: Costs::none(),
            strategy: Sequential,
        });
        let digested = |block: Block| {
            let digest: sha256::Digest = block.digest();
            Digested::precomputed(block, digest)
        };
        let ancestry = ancestry::from_iter([digested(block), digested(genesis)]);
        let batches = databases.new_batches().await;
        app.process((context.child("process"), consensus), ancestry, batches, Finality::Candidate)
            .await
            .is_some()
    })
}

fn fixture() -> Fixture {
    Fixture::new(20, 4, 40)
}

fn good_actions() -> Vec<SignedAction> {
    vec![
        signed(ISSUER, 1, 10, Action::Deposit { to: AccountId(1), amount: Atoms(5) }),
        signed(ISSUER, 2, 10, Action::Withdraw { amount: Atoms(5), recipient: Recipient([1; 32]) }),
    ]
}

#[test]
fn an_honest_block_is_valid_with_and_without_actions_and_with_a_bare_quorum() {
    let fixture = fixture();
    assert!(judge(&fixture, Vec::new(), false, |_| {}));
    assert!(judge(&fixture, good_actions(), false, |_| {}));
    assert!(judge(&fixture, good_actions(), true, |draft| {
        draft.observations.remove(2);
    }));
}

/// A block of a leader for a view, as far as its leader signs it; `salt` makes it another one.
fn empty_block(fixture: &Fixture, leader: usize, view: u64, salt: u64) -> Block {
    let mut block = fixture.genesis.block(&fixture.commitment);
    block.header.height = Height(view);
    block.header.time = TimeMs(START + salt);
    let context = Context {
        round: Round::new(Epoch::zero(), View::new(view)),
        leader: fixture.keys()[leader].clone(),
        parent: (View::zero(), to_consensus(block.header.parent)),
    };
    Block::sign(context, block.header, block.body, &fixture.members[leader].0)
}

#[test]
fn two_blocks_of_one_leader_for_one_view_prove_who_signed_them_and_nothing_else_does() {
    let fixture = fixture();
    let committee = fixture.genesis.committee();
    let culprit = |first: &Block, second: &Block| {
        Equivocation { first: SignedHeader::of(first), second: SignedHeader::of(second) }.culprit(&committee)
    };
    let own = empty_block(&fixture, 2, 7, 1);
    let other = empty_block(&fixture, 2, 7, 2);
    assert_eq!(culprit(&own, &other), Some(ValidatorId(2)));
    assert_eq!(culprit(&other, &own), Some(ValidatorId(2)));

    let mut resigned = own.clone();
    resigned.signature.0[0] ^= 1;
    let mut forged = other.clone();
    forged.signature = own.signature;
    let mut elsewhere = other.clone();
    elsewhere.header.chain = ChainId(78);
    let elsewhere = Block::sign(elsewhere.context, elsewhere.header, elsewhere.body, &fixture.members[2].0);
    let mut stranger = other.clone();
    stranger.context.leader = owner(AccountId(1)).public();
    let stranger = Block::sign(stranger.context, stranger.header, stranger.body, &owner(AccountId(1)));
    for (claim, second) in [
        ("a block against itself", own.clone()),
        ("a block and its copy under a bad signature", resigned),
        ("a block of another view", empty_block(&fixture, 2, 8, 2)),
        ("a block of another leader", empty_block(&fixture, 1, 7, 2)),
        ("a block that the leader did not sign", forged),
        ("a block of another chain", elsewhere),
        ("a block of nobody in the committee", stranger),
    ] {
        assert_eq!(culprit(&own, &second), None, "{claim}");
        assert_eq!(culprit(&second, &own), None, "{claim}");
    }

    let proof = Equivocation { first: SignedHeader::of(&own), second: SignedHeader::of(&other) };
    assert_eq!(Equivocation::decode(proof.encode()).unwrap(), proof, "a proof travels");
    let evidence = Evidence::new(committee.clone());
    for block in [&own, &own, &empty_block(&fixture, 1, 7, 3), &other, &empty_block(&fixture, 2, 7, 4)] {
        evidence.note(block);
    }
    let found = evidence.equivocations();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [ValidatorId(2)], "one proof a member");
    assert_eq!(found[&ValidatorId(2)].culprit(&committee), Some(ValidatorId(2)));
}

#[test]
fn a_refused_rescue_is_answered_and_a_refused_trade_makes_the_block_invalid() {
    let fixture = fixture();
    let rich = Atoms(1_000_000_000_000_000);
    let rescue = signed(AccountId(1), 1, 10, Action::Transfer { to: AccountId(2), amount: rich });
    assert!(judge(&fixture, vec![rescue], false, |_| {}));
    let trade = signed(AccountId(1), 1, 10, Action::Withdraw { amount: rich, recipient: Recipient([1; 32]) });
    assert!(!judge(&fixture, vec![trade], false, |_| {}));
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
    let order = |terms| signed(AccountId(1), 1, 10, Action::Place(terms));
    assert!(judge(&fixture, vec![order(terms)], false, |_| {}), "an order waits for its auction");
    let nowhere = Terms { market: MarketId(9), ..terms };
    assert!(!judge(&fixture, vec![order(nowhere)], false, |_| {}));
}

#[test]
fn a_block_that_breaks_one_rule_is_invalid() {
    type Change = fn(&mut Draft);
    // Whether the roots follow the changed body, so that nothing but the broken rule is wrong.
    let cases: Vec<(&str, bool, Change)> = vec![
        ("another chain", false, |draft| draft.header.chain = ChainId(78)),
        ("another epoch", false, |draft| draft.header.epoch = 1),
        ("another outcomes root", false, |draft| draft.header.outcomes_root = Digest([1; 32])),
        ("a proof that a quorum voted for the first block", true, |draft| {
            draft.parent_proof = Some(ParentProof { finalized: false, signature: GroupSignature::default() });
        }),
        ("a wrong state root", false, |draft| draft.header.state_root.0[0] ^= 1),
        ("a wrong root of operations", false, |draft| draft.header.ops.root.0[31] ^= 1),
        ("a wrong end of operations", false, |draft| draft.header.ops.end += 1),
        ("a wrong start of operations", false, |draft| draft.header.ops.start += 1),
        ("a wrong exits root", false, |draft| draft.header.exits_root.0[0] ^= 1),
        ("time one later", false, |draft| draft.header.time.0 += 1),
        ("time one earlier", false, |draft| draft.header.time.0 -= 1),
        ("another validator's signature", false, |draft| draft.forged = true),
        ("fewer observations than a quorum", true, |draft| draft.observations.truncate(2)),
        ("no observations", true, |draft| draft.observations.clear()),
        ("a forged observation", true, |draft| draft.observations[2].signature.0[5] ^= 1),
        ("an observation that was changed", true, |draft| draft.observations[2].prices.clear()),
        ("a signature of another observer", true, |draft| {
            draft.observations[2].signature = draft.observations[1].signature;
        }),
        ("an observation of another view", true, |draft| draft.view = 2),
        ("an action with a bad signature", true, |draft| draft.actions[0].signature.0[0] ^= 1),
        ("an action that was changed", true, |draft| {
            draft.actions[0].action = Action::Deposit { to: AccountId(1), amount: Atoms(6) };
        }),
        ("an action for another chain", true, |draft| draft.actions[0].chain = ChainId(78)),
        ("an action of nobody", true, |draft| draft.actions[1].account = AccountId(1 << 40)),
        ("an action twice", true, |draft| {
            let twice = draft.actions[1].clone();
            draft.actions.push(twice);
        }),
        ("an expired action", true, |draft| {
            draft.actions[0] = signed(ISSUER, 1, 0, Action::Deposit { to: AccountId(1), amount: Atoms(5) });
        }),
        ("a backstop that signs", true, |draft| {
            draft.actions[0] =
                signed(AccountId(41), 1, 10, Action::Transfer { to: AccountId(1), amount: Atoms(1) });
        }),
        ("an action left out after sealing", false, |draft| {
            draft.actions.pop();
        }),
        ("an observation left out after sealing", false, |draft| {
            draft.observations.pop();
        }),
    ];
    let fixture = fixture();
    let accepted: Vec<_> = cases
        .into_iter()
        .filter(|(_, reseal, change)| judge(&fixture, good_actions(), *reseal, *change))
        .map(|(name, ..)| name)
        .collect();
    assert!(accepted.is_empty(), "accepted: {accepted:?}");
    for (name, broken) in [
        ("chain", Observation { chain: ChainId(78), ..said(&fixture, 2, 1, 1, START + 1_000, 990_000) }),
        ("epoch", Observation { epoch: 1, ..said(&fixture, 2, 1, 1, START + 1_000, 990_000) }),
        ("view", Observation { view: 2, ..said(&fixture, 2, 1, 1, START + 1_000, 990_000) }),
        ("author", Observation { author: ValidatorId(9), ..said(&fixture, 2, 1, 1, START + 1_000, 990_000) }),
        (
            "rescues",
            Observation {
                rescues: vec![RescueRef {
                    account: AccountId(1),
                    nonce: Nonce(1),
                    expiry: Height(10),
                    digest: Digest::default(),
                }],
                ..said(&fixture, 2, 1, 1, START + 1_000, 990_000)
            },
        ),
    ] {
        let signed = sign(&fixture, broken);
        let place = if name == "author" { 3 } else { 2 };
        assert!(
            !judge(&fixture, good_actions(), true, move |draft| draft.observations[place] = signed),
            "a well signed observation with another {name} is accepted"
        );
    }
}

#[test]
fn an_outcome_needs_f_plus_one_attestations_in_its_own_block_and_a_block_that_settles_what_is_not_next_is_invalid()
 {
    let fixture = fixture();
    let own = |zone| ZoneOutcome {
        zone,
        voided: Height(0),
        outcome: Outcome { height: Height(1), part: 0, last: true, markets: Vec::new() },
    };
    let committee = fixture.genesis.committee();
    let verdict = |attest: &[(u16, ZoneOutcome)], settled: Vec<ZoneOutcome>| {
        let observations = (0..4)
            .map(|author| {
                let listed = attest.iter().filter(|(who, _)| *who == author).map(|(_, own)| OutcomeRef {
                    zone: own.zone.into(),
                    height: own.outcome.height.get(),
                    digest: outcome_digest(own),
                });
                let said = said(&fixture, author, 1, 1, START + 1_000, 990_000);
                sign(&fixture, Observation { outcomes: listed.collect(), ..said })
            })
            .collect();
        let block = block_with(&fixture, observations, settled);
        let parent = from_consensus(fixture.genesis.block(&fixture.commitment).digest());
        check_form(&committee, &block, Height(0), parent)
    };
    let other = ZoneOutcome { outcome: Outcome { last: false, ..own(0).outcome }, ..own(0) };
    let settled = || vec![own(0)];
    assert_eq!(verdict(&[], Vec::new()), Ok(()));
    assert_eq!(verdict(&[(0, own(0)), (3, own(0))], settled()), Ok(()));
    assert_eq!(verdict(&[(0, own(0)), (1, own(0)), (2, other.clone())], settled()), Ok(()));
    let cases = [
        ("nobody", vec![]),
        ("f validators", vec![(0, own(0))]),
        ("one validator twice", vec![(0, own(0)), (0, own(0))]),
        ("f + 1 for another digest", vec![(0, own(0)), (1, other.clone()), (2, other)]),
        ("f + 1 for another zone", vec![(0, own(1)), (1, own(1)), (2, own(0))]),
    ];
    for (claim, attest) in cases {
        assert!(verdict(&attest, settled()).is_err(), "attested by {claim}");
    }
    // Attested by all, and refused by settlement: nothing waits for an outcome.
    let refused = judge(&fixture, Vec::new(), true, {
        let fixture = fixture.clone();
        let own = own(0);
        move |draft| {
            for said in &mut draft.observations {
                let digest = outcome_digest(&own);
                said.outcomes = vec![OutcomeRef { zone: 0, height: 1, digest }];
                *said = sign(&fixture, said.clone());
            }
            draft.outcomes = vec![own];
        }
    });
    assert!(!refused);
}

/// A block on genesis whose form is right, but for what it is given.
fn block_with(fixture: &Fixture, observations: Vec<Observation>, outcomes: Vec<ZoneOutcome>) -> Block {
    let mut block = fixture.genesis.block(&fixture.commitment);
    block.header.parent = from_consensus(block.digest());
    block.context.round = Round::new(Epoch::zero(), View::new(1));
    block.header.height = Height(1);
    block.header.outcomes_root = outcomes_root(&outcomes);
    block.body.observations = observations;
    block.body.outcomes = outcomes;
    block
}

#[test]
fn observations_are_by_ascending_author_each_at_most_once() {
    let fixture = fixture();
    let committee = fixture.genesis.committee();
    let genesis = fixture.genesis.block(&fixture.commitment);
    let parent = from_consensus(genesis.digest());
    let verdict = |authors: &[u16]| {
        let say = |author: &u16| said(&fixture, *author, 1, 1, START + 1_000, 990_000);
        let block = block_with(&fixture, authors.iter().map(say).collect(), Vec::new());
        check_form(&committee, &block, Height(0), parent)
    };
    for good in [&[0, 1, 2, 3][..], &[0, 1, 3], &[1, 2, 3]] {
        assert_eq!(verdict(good), Ok(()), "{good:?}");
    }
    for bad in [&[1, 0, 2, 3][..], &[0, 1, 3, 2], &[0, 1, 1, 2], &[0, 0, 0, 0], &[0, 1], &[], &[0, 1, 2, 4]] {
        assert!(verdict(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_observation_counts_once_on_a_chain() {
    let fixture = fixture();
    let mut world = fixture.genesis.world().unwrap();
    let observations = |seq, time| -> Vec<_> {
        (0..4).map(|author| said(&fixture, author, 1, seq, START + time, 990_000)).collect()
    };
    let mut execute = |height, observations: &[Observation]| {
        let brought = Brought { observations: observations.to_vec(), ..Brought::default() };
        world
            .execute(Digest::default(), Height(height), brought, Purpose::Verify)
            .map(|executed| executed.step.time)
    };
    assert_eq!(execute(1, &observations(5, 100)), Ok(TimeMs(START + 100)));
    assert!(execute(2, &observations(5, 200)).is_err(), "replayed");
    assert!(execute(2, &observations(4, 200)).is_err(), "older");
    // Time never stands still or runs back, whatever the clocks say.
    assert_eq!(execute(2, &observations(6, 50)), Ok(TimeMs(START + 101)));
}

#[test]
fn an_action_of_an_account_that_only_another_fork_opened_stays_out_of_the_block() {
    let fixture = fixture();
    let world = fixture.genesis.world().unwrap();
    let opened = AccountId(world.ledger.globals().accounts);
    let newcomer = owner(opened);
    let open = signed(ISSUER, 1, 99, Action::Open { owner: newcomer.key(), amount: Atoms(50) });
    let spend = signed(opened, 1, 99, Action::Transfer { to: AccountId(1), amount: Atoms(5) });

    // On one fork the account was opened, so the transfer was pooled. That fork lost.
    let mempool = Mempool::default();
    let pool = |action: &SignedAction| {
        let known = |account| {
            if account == opened { Some(newcomer.key()) } else { world.ledger.owner(account).copied() }
        };
        mempool.insert(action.clone(), check_signatures(CHAIN, action, known).unwrap(), |_| false).unwrap();
    };
    pool(&open);
    pool(&spend);

    let none = BTreeSet::new();
    let tokens = |_| u32::MAX;
    let candidates = mempool.candidates(100, &none, |account| world.ledger.owner(account).copied(), tokens);
    assert_eq!(candidates, std::slice::from_ref(&open));
    assert!(judge(&fixture, candidates, false, |_| {}), "what a leader takes makes a valid block");
    assert!(!judge(&fixture, vec![open.clone(), spend.clone()], false, |_| {}), "both at once never do");
    // If somebody else got the number, the transfer waits in vain; if its signer did, its turn has come.
    assert_eq!(mempool.candidates(100, &none, |_| Some(owner(AccountId(1)).key()), tokens), []);
    let both = |account| if account == opened { Some(newcomer.key()) } else { Some(owner(ISSUER).key()) };
    assert_eq!(mempool.candidates(100, &none, both, tokens), [open.clone(), spend.clone()]);

    // Nor is it listed before the account is final, and under its final owner.
    for action in [&open, &spend] {
        mempool.relayed(&(action.account, action.nonce));
    }
    let listed = |mempool: &Mempool| -> Vec<_> {
        mempool.listed(9, tokens).into_iter().map(|listed| (listed.account, listed.nonce)).collect()
    };
    assert_eq!(listed(&mempool), [], "nothing is final");
    mempool.settle(opened.get(), both);
    assert_eq!(listed(&mempool), [(open.account, open.nonce)]);
    mempool.settle(opened.get() + 1, |_| Some(owner(AccountId(1)).key()));
    assert_eq!(listed(&mempool), [(open.account, open.nonce)]);
    assert_eq!(mempool.len(), (1, 0), "somebody else's: it is forgotten");
    pool(&spend);
    mempool.relayed(&(spend.account, spend.nonce));
    assert_eq!(listed(&mempool), [(open.account, open.nonce), (spend.account, spend.nonce)]);
}

/// What somebody lists has to find its way into the pool of whoever leads, whatever its signer sent there before.
#[test]
fn nothing_that_a_user_sends_keeps_a_rescue_out_of_the_pool_that_another_member_lists() {
    let user = AccountId(1);
    let mempool = Mempool::default();
    let signers = Signers { account: owner(user).key(), maker: None };
    let rescue = |nonce, expiry| signed(user, nonce, expiry, Action::ScheduleCancel { at: None });
    let trade =
        |nonce| signed(user, nonce, 50, Action::Withdraw { amount: Atoms(1), recipient: Recipient([1; 32]) });
    let held = |nonce| -> Vec<_> {
        let all = mempool.candidates(usize::MAX, &BTreeSet::new(), |_| Some(owner(user).key()), |_| u32::MAX);
        let of = |action: &SignedAction| (action.action.lane(), action.expiry.get());
        all.iter().filter(|action| action.nonce == Nonce(nonce)).map(of).collect()
    };
    // A chain at height 8: what expires by then is over.
    let insert = |action| mempool.insert(action, signers, |held: &SignedAction| held.expiry <= Height(8));
    assert_eq!(insert(trade(1)), Ok(()));
    assert_eq!(insert(rescue(1, 8)), Ok(()), "a trade of its name makes room");
    assert_eq!(held(1), [(Lane::Rescue, 8)]);
    assert_eq!(insert(trade(1)), Err(SubmitError::Duplicate));
    assert_eq!(insert(rescue(1, 9)), Ok(()), "so does a rescue that is over");
    assert_eq!(held(1), [(Lane::Rescue, 9)]);
    assert_eq!(insert(rescue(1, 9)), Err(SubmitError::Duplicate));
    assert_eq!(insert(rescue(1, 30)), Err(SubmitError::Duplicate), "and no other");
    assert_eq!(mempool.len(), (1, 0));

    insert(rescue(2, 8)).unwrap();
    for nonce in 3..=MAX_POOLED_RESCUES as u64 {
        insert(SignedAction { nonce: Nonce(nonce), ..rescue(1, 9) }).unwrap();
    }
    let name = |action: &SignedAction| RescueRef {
        account: user,
        nonce: action.nonce,
        expiry: action.expiry,
        digest: Digest::default(),
    };
    let (one, two) = (rescue(1 << 20, 9), rescue((1 << 20) + 1, 9));
    let full = Err(SubmitError::PoolFull { lane: Lane::Rescue });
    assert_eq!(insert(one.clone()), full);
    mempool.want(ValidatorId(2), &[name(&one)]);
    assert_eq!(insert(one.clone()), Ok(()), "another member lists it");
    assert_eq!(mempool.len(), (MAX_POOLED_RESCUES, 0), "and one that nobody lists made room");
    // Of what is not owed the oldest are candidates, so the newest are looked for by name.
    assert!(mempool.holds(&one) && !mempool.holds(&rescue(MAX_POOLED_RESCUES as u64, 9)));
    mempool.want(ValidatorId(2), &[name(&one)]);
    assert_eq!(insert(two), full);
    assert_eq!(insert(rescue(2, 9)), Ok(()), "what takes the place of another needs no room");
}

#[test]
fn a_block_carries_what_its_observations_list_and_its_nonces_allow() {
    let fixture = fixture();
    let cry = |nonce, expiry| signed(AccountId(1), nonce, expiry, Action::ScheduleCancel { at: None });
    let other = signed(AccountId(1), 7, 10, Action::CancelAll { market: None, keep_reduce_only: true });
    let refused = Action::Transfer { to: AccountId(2), amount: Atoms(1_000_000_000_000_000) };
    let refused = signed(AccountId(1), 7, 10, refused);
    let name = |account, nonce, expiry| RescueRef {
        account: AccountId(account),
        nonce: Nonce(nonce),
        expiry: Height(expiry),
        digest: Digest([3; 32]),
    };
    let nobody = 1 << 40;
    let cases: Vec<(&str, Vec<RescueRef>, Vec<SignedAction>, bool)> = vec![
        ("listed and carried", vec![name(1, 7, 10)], vec![cry(7, 10)], true),
        ("listed and left out", vec![name(1, 7, 10)], vec![], false),
        ("another body of the name", vec![name(1, 7, 10)], vec![other.clone()], true),
        ("another nonce of the account", vec![name(1, 7, 10)], vec![cry(8, 10)], false),
        ("one that is refused", vec![name(1, 7, 10)], vec![refused], true),
        ("one of two", vec![name(1, 7, 10), name(1, 8, 10)], vec![cry(7, 10)], false),
        ("a body of the name that has expired", vec![name(1, 7, 10)], vec![cry(7, 0)], false),
        ("one that has expired", vec![name(1, 7, 0)], vec![], true),
        ("one that expires too late", vec![name(1, 7, 1 << 50)], vec![], true),
        ("one of nobody", vec![name(nobody, 7, 10)], vec![], true),
        ("one of a backstop", vec![name(41, 7, 10)], vec![], true),
        ("two expiries of one name, one over", vec![name(1, 7, 0), name(1, 7, 10)], vec![], false),
        ("carried and not listed", vec![], vec![cry(7, 10)], true),
    ];
    for (case, listed, actions, valid) in cases {
        let signers = fixture.clone();
        let found = judge(&fixture, actions, true, move |draft| {
            draft.observations[2].rescues = listed;
            draft.observations[2] = sign(&signers, draft.observations[2].clone());
        });
        assert_eq!(found, valid, "{case}");
    }
    // A block owes what its own observations list, so the listing has to be in it.
    let signers = fixture.clone();
    assert!(judge(&fixture, vec![], true, move |draft| {
        draft.observations[2].rescues = vec![name(1, 7, 10)];
        draft.observations[2] = sign(&signers, draft.observations[2].clone());
        draft.observations.remove(2);
    }));
}

/// The order of a block is a promise: whoever tops up in time is not liquidated by the price that made it necessary.
#[test]
fn a_top_up_saves_its_account_from_the_sweep_of_its_own_block() {
    let fixture = fixture();
    let parent = from_consensus(fixture.genesis.block(&fixture.commitment).digest());
    let hit = |actions: Vec<SignedAction>| -> BTreeSet<AccountId> {
        let mut world = fixture.genesis.world().unwrap();
        let observations =
            (0..4).map(|author| said(&fixture, author, 1, 1, START + 1_000, 930_000)).collect();
        let brought = Brought { observations, actions, ..Brought::default() };
        let executed = world.execute(parent, Height(1), brought, Purpose::Verify).unwrap();
        let of = |event: &Event| match event {
            Event::Liquidated(own) => Some(own.account),
            Event::Closing { account, .. } => Some(*account),
            _ => None,
        };
        executed.step.events().iter().filter_map(of).collect()
    };
    let all = hit(Vec::new());
    let cross = |account: &AccountId| {
        let positions = &fixture.genesis.accounts[account.get() as usize].positions;
        positions.iter().all(|position| position.mode == MarginMode::Cross)
    };
    let victim = *all.iter().find(|account| cross(account)).expect("the price puts some in breach");
    let amount = Atoms(1_000_000_000);
    let saved = signed(ISSUER, 1, 10, Action::Deposit { to: victim, amount });
    let rest: BTreeSet<AccountId> = all.iter().copied().filter(|account| *account != victim).collect();
    assert!(!rest.is_empty());
    assert_eq!(hit(vec![saved]), rest, "all others, and not the one that was topped up");
}

/// Two that are owed, and room for one nonce: the other is answered without one. A block that could carry neither both
/// nor one would be a way to stop the chain.
#[test]
fn rescues_that_are_owed_and_shut_each_other_out_are_both_answered() {
    let fixture = fixture();
    let mut world = fixture.genesis.world().unwrap();
    let mut parent = from_consensus(fixture.genesis.block(&fixture.commitment).digest());
    let observations = |height: u64, rescues: Vec<RescueRef>| -> Vec<_> {
        let said = (0..4).map(|author| said(&fixture, author, 1, height, START + 1_000 * height, 990_000));
        said.map(|said| sign(&fixture, Observation { rescues: rescues.clone(), ..said })).collect()
    };
    let action = |nonce| signed(AccountId(1), nonce, 90, Action::ScheduleCancel { at: None });
    let name = |action: &SignedAction| RescueRef {
        account: action.account,
        nonce: action.nonce,
        expiry: action.expiry,
        digest: Digest::default(),
    };
    // Every other nonce: no two are one run.
    let all: Vec<SignedAction> = (1..limits::MAX_NONCE_RUNS as u64).map(|nonce| action(2 * nonce)).collect();
    let brought = Brought { observations: observations(1, vec![]), actions: all, ..Brought::default() };
    world.execute(parent, Height(1), brought, Purpose::Verify).unwrap();
    parent = Digest([1; 32]);
    let (one, two) = (action(1 << 20), action(1 << 21));
    for purpose in [Purpose::Build, Purpose::Verify] {
        let owed =
            inclusion::owed(&world.ledger, parent, Height(2), &observations(2, vec![name(&one), name(&two)]));
        assert_eq!(owed.len(), 2);
        let brought = Brought {
            observations: observations(2, vec![name(&one), name(&two)]),
            actions: vec![one.clone(), two.clone()],
            ..Brought::default()
        };
        let Executed { step, actions, .. } = world.execute(parent, Height(2), brought, purpose).unwrap();
        assert_eq!(actions.len(), 2);
        assert!(matches!(step.answers[0], Answer::Done(_)));
        assert_eq!(step.answers[1], Answer::Refused(Refusal::NonceWindowFull));
        // Nobody owes it a second time.
        let again = inclusion::owed(&world.ledger, parent, Height(3), &observations(3, vec![name(&two)]));
        assert!(again.is_empty());
        world.undo(&step);
    }
}

/// What one observation of this member lists.
fn listing(fixture: &Fixture, rescues: Vec<RescueRef>) -> Observation {
    Observation { rescues, ..said(fixture, 0, 1, 1, START, 990_000) }
}

fn listed(account: AccountId, nonce: u64) -> RescueRef {
    RescueRef { account, nonce: Nonce(nonce), expiry: Height(9), digest: Digest::default() }
}

#[test]
fn of_more_than_a_block_owes_the_nearest_to_a_breach_come_first() {
    let fixture = fixture();
    let mut world = fixture.genesis.world().unwrap();
    // Prices, and an account without risk.
    let brought = Brought {
        observations: (0..4).map(|author| said(&fixture, author, 1, 1, START + 1_000, 990_000)).collect(),
        actions: vec![signed(
            ISSUER,
            1,
            9,
            Action::Open { owner: owner(AccountId(1)).key(), amount: Atoms(5_000_000) },
        )],
        ..Brought::default()
    };
    let flat = AccountId(world.ledger.globals().accounts);
    world.execute(Digest([9; 32]), Height(1), brought, Purpose::Verify).unwrap();
    let ledger = &world.ledger;
    let height = Height(1 << 20);
    let reference = |account, nonce| RescueRef { expiry: height, ..listed(account, nonce) };

    let each = limits::MAX_RESCUES_PER_OBSERVATION as u64;
    let (issued, of_flat) = (limits::MAX_ISSUER_FIRST as u64 + 88, 90);
    let mut all: Vec<RescueRef> = (0..issued).map(|nonce| reference(ISSUER, nonce)).collect();
    all.extend((0..of_flat).map(|nonce| reference(flat, nonce)));
    for account in 1..=40 {
        all.extend((0..110).map(|nonce| reference(AccountId(account), nonce)));
    }
    let observations: Vec<_> =
        all.chunks(each as usize).map(|rescues| listing(&fixture, rescues.to_vec())).collect();
    let pick = |draw| inclusion::owed(ledger, Digest([draw; 32]), height, &observations);
    let one = pick(1);
    let count = |owed: &BTreeSet<inclusion::RescueName>, account| {
        owed.iter().filter(|(own, _)| *own == account).count() as u64
    };
    assert_eq!(one.len(), limits::MAX_OWED_PER_BLOCK);
    assert_eq!(one, pick(1));
    // The issuer's share, by nonce; none of those without risk, nor of the rest of the issuer's.
    assert_eq!(count(&one, ISSUER), limits::MAX_ISSUER_FIRST as u64);
    assert!(one.contains(&(ISSUER, Nonce(limits::MAX_ISSUER_FIRST as u64 - 1))));
    assert_eq!(count(&one, flat), 0);
    // By distance, worked out here: equity over maintenance of each compartment, the least of an account.
    let distance = |account: u64| {
        let id = AccountId(account);
        let own = ledger.account(id).unwrap();
        let of = |compartment| {
            ledger.health_of(id, compartment).map(|health| (health.equity.get(), health.maintenance.get()))
        };
        let cross = of(seawall_ledger::Compartment::Cross);
        let isolated = own
            .positions
            .iter()
            .filter_map(|position| of(seawall_ledger::Compartment::Isolated(position.market)));
        let worth = cross.into_iter().chain(isolated).filter(|(_, need)| *need > 0);
        worth.map(|(equity, need)| equity.max(0) * 1_000 / need).min().unwrap()
    };
    let ranked: Vec<(i128, u64)> =
        (1..=40).map(|account| (distance(account), count(&one, AccountId(account)))).collect();
    let room = limits::MAX_OWED_PER_BLOCK as u64 - limits::MAX_ISSUER_FIRST as u64;
    assert_eq!(ranked.iter().map(|(_, taken)| taken).sum::<u64>(), room);
    let last = ranked.iter().filter(|(_, taken)| *taken > 0).map(|(far, _)| *far).max().unwrap();
    let first_left = ranked.iter().filter(|(_, taken)| *taken < 110).map(|(far, _)| *far).min().unwrap();
    assert!(last <= first_left + 1, "nobody comes before somebody nearer: {ranked:?}");
    assert!(ranked.iter().any(|(far, taken)| *far > last + 100 && *taken == 0), "{ranked:?}");
    // Among equals the draw decides, and nothing else.
    let two = pick(2);
    assert_ne!(one, two, "those at the edge are drawn");
    for (account, (far, taken)) in (1..).zip(&ranked).filter(|(_, (far, _))| far.abs_diff(last) > 1) {
        assert_eq!(count(&two, AccountId(account)), *taken, "account {account} at {far}");
    }
    // What is left waits in full blocks: the backlog over what a block has room for.
    let (mut left, mut blocks) = (all.clone(), 0);
    while !left.is_empty() {
        let observations: Vec<_> =
            left.chunks(each as usize).map(|rescues| listing(&fixture, rescues.to_vec())).collect();
        let owed = inclusion::owed(ledger, Digest([blocks; 32]), height, &observations);
        assert_eq!(owed.len(), left.len().min(limits::MAX_OWED_PER_BLOCK));
        left.retain(|listed| !owed.contains(&(listed.account, listed.nonce)));
        blocks += 1;
    }
    assert_eq!(usize::from(blocks), all.len().div_ceil(limits::MAX_OWED_PER_BLOCK));
}

/// The parent's leader knows what it signs; what the committee signs of its block it does not.
#[test]
fn the_draw_is_what_the_committee_signed_of_the_parent_where_a_block_says_so() {
    let proof = |byte, finalized| ParentProof { finalized, signature: GroupSignature([byte; 48]) };
    let draw = |parent, proof: Option<ParentProof>| inclusion::draw(Digest([parent; 32]), proof.as_ref());
    assert_eq!(draw(1, Some(proof(7, false))), draw(2, Some(proof(7, false))));
    assert_ne!(draw(1, Some(proof(7, false))), draw(1, Some(proof(8, false))));
    assert_ne!(draw(1, Some(proof(7, false))), draw(1, Some(proof(7, true))));
    assert_ne!(draw(1, None), draw(2, None));
}

/// Few tokens: account 1 has three.
fn rationed() -> Fixture {
    let rescues = RescueParams {
        base_tokens: 3,
        pool_tokens: 0,
        flat_tokens: 1,
        issuer_tokens: 100,
        refill_blocks: 8,
        reserve_blocks: 4,
        ..RescueParams::default()
    };
    Fixture::rationed(20, 4, 40, rescues)
}

#[test]
fn a_block_carries_what_its_observations_list_as_far_as_each_signer_has_tokens() {
    let fixture = rationed();
    let switch = |account, nonce| signed(AccountId(account), nonce, 10, Action::ScheduleCancel { at: None });
    let names =
        |nonces: &[u64]| -> Vec<_> { nonces.iter().map(|nonce| listed(AccountId(1), *nonce)).collect() };
    let own = |nonces: &[u64]| -> Vec<_> { nonces.iter().map(|nonce| switch(1, *nonce)).collect() };
    // With what costs nothing of the envelope but is refused: it takes a token as well.
    let refused = signed(AccountId(1), 0, 10, Action::Transfer { to: AccountId(2), amount: Atoms(1 << 58) });
    let cases: Vec<(&str, Vec<RescueRef>, Vec<SignedAction>, bool)> = vec![
        ("as many as there are tokens", names(&[5, 6, 7]), own(&[5, 6, 7]), true),
        ("the first by nonce of more", names(&[5, 6, 7, 8, 9]), own(&[5, 6, 7]), true),
        ("others of more", names(&[5, 6, 7, 8, 9]), own(&[5, 6, 8]), false),
        ("all of more", names(&[5, 6, 7, 8]), own(&[5, 6, 7, 8]), false),
        ("more than tokens and not listed", vec![], own(&[5, 6, 7, 8]), false),
        ("a token taken from one that is owed", names(&[5, 6, 7]), own(&[3, 5, 6, 7]), false),
        ("one in its place", names(&[5, 6, 7]), own(&[3, 5, 6]), false),
        (
            "a refusal that takes a token",
            names(&[5, 6, 7]),
            [vec![refused.clone()], own(&[5, 6, 7])].concat(),
            false,
        ),
        ("the same within tokens", names(&[5, 6]), [vec![refused], own(&[5, 6])].concat(), true),
        (
            "another signer's have nothing to do with it",
            names(&[5, 6, 7]),
            [own(&[5, 6, 7]), vec![switch(2, 1), switch(2, 2), switch(2, 3)]].concat(),
            true,
        ),
    ];
    for (case, listed, actions, valid) in cases {
        let signers = fixture.clone();
        let found = judge(&fixture, actions, true, move |draft| {
            draft.observations[2].rescues = listed;
            draft.observations[2] = sign(&signers, draft.observations[2].clone());
        });
        assert_eq!(found, valid, "{case}");
    }
}

/// A member that lies, or a user that tells each member something else, makes an observation bind no more than the
/// tokens; and what a leader need not have it need not hold.
#[test]
fn a_signer_that_lists_more_than_its_tokens_takes_nobodys_place() {
    let fixture = rationed();
    let world = fixture.genesis.world().unwrap();
    let (user, height) = (AccountId(1), Height(1));
    let mempool = Mempool::default();
    let signers = Signers { account: owner(user).key(), maker: None };
    mempool.settle(50, |account| Some(owner(account).key()));
    for nonce in 1..=6 {
        let action = signed(user, nonce, 9, Action::ScheduleCancel { at: None });
        mempool.insert(action, signers, |_| false).unwrap();
        mempool.relayed(&(user, Nonce(nonce)));
    }
    assert_eq!(mempool.waiting_of(user), 6);
    let tokens = |account| world.ledger.rescue_tokens_at(account, height);
    let names: Vec<_> = mempool.listed(99, tokens).into_iter().map(|listed| listed.nonce).collect();
    assert_eq!(names, [1, 2, 3].map(Nonce), "no more are listed than could be owed");
    // Those that are owed and others share the tokens.
    let owed = BTreeSet::from([(user, Nonce(5)), (user, Nonce(6))]);
    let known = |account: AccountId| world.ledger.owner(account).copied();
    let chosen: BTreeSet<_> =
        mempool.candidates(99, &owed, known, tokens).into_iter().map(|own| own.nonce).collect();
    assert_eq!(chosen, BTreeSet::from([1, 5, 6].map(Nonce)));

    let held = |name: &inclusion::RescueName| (name.1 <= Nonce(6)).then_some(Height(9));
    let covers = |nonces: &[u64]| {
        let said = listing(&fixture, nonces.iter().map(|nonce| listed(user, *nonce)).collect());
        inclusion::covers(&world.ledger, height, &said, held)
    };
    assert!(covers(&[4, 5, 6, 7, 8]), "nobody needs the bodies beyond the tokens");
    assert!(!covers(&[5, 6, 7]), "of those within them everybody does");
    let owed = |lists: &[&[u64]]| {
        let said: Vec<_> = lists
            .iter()
            .map(|nonces| listing(&fixture, nonces.iter().map(|nonce| listed(user, *nonce)).collect()))
            .collect();
        let owed = inclusion::owed(&world.ledger, Digest::default(), height, &said);
        owed.into_iter().map(|(_, nonce)| nonce.get()).collect::<Vec<_>>()
    };
    assert_eq!(owed(&[&[4, 5, 6], &[1, 9]]), [1, 4, 5]);
    assert_eq!(owed(&[&[9], &[7, 8]]), [7, 8, 9]);
}

// ---- Walks between forks ----

struct Node {
    parent: usize,
    digest: Digest,
    height: u64,
    brought: Brought,
    state: BTreeMap<store::StateKey, store::StateValue>,
    events: Vec<Event>,
    answers: Vec<Answer>,
}

#[derive(Clone, Debug)]
enum Move {
    /// Execute a block on a known one and name it.
    Extend { on: usize, salt: u64, price_ppm: u64 },
    /// Execute and walk away from it without naming it.
    Abandon { on: usize, salt: u64, price_ppm: u64 },
    /// Execute again what is known.
    Again { which: usize },
    /// Stand somewhere.
    Go { to: usize },
    /// Execute something invalid.
    Fail { on: usize },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let ppm = 700_000..1_050_000u64;
    vec(
        prop_oneof![
            4 => (any::<usize>(), any::<u64>(), ppm.clone())
                .prop_map(|(on, salt, price_ppm)| Move::Extend { on, salt, price_ppm }),
            1 => (any::<usize>(), any::<u64>(), ppm)
                .prop_map(|(on, salt, price_ppm)| Move::Abandon { on, salt, price_ppm }),
            1 => any::<usize>().prop_map(|which| Move::Again { which }),
            3 => any::<usize>().prop_map(|to| Move::Go { to }),
            1 => any::<usize>().prop_map(|on| Move::Fail { on }),
        ],
        1..40,
    )
}

/// What block `height` carries, and with it its execution on a world that has seen nothing else.
fn unsigned(author: u16, height: u64, salt: u64, ppm: u64) -> Observation {
    let time = START + height * 20_000 + mix(salt ^ u64::from(author)) % 3_000;
    let prices = (0..MARKETS.len())
        .map(|market| {
            let price = PriceTicks(MARKETS[market] * ppm / 1_000_000);
            let report = PriceReport { low: price, high: price, spread: PriceTicks(0), sources: 3 };
            (MarketId(market as u16), report)
        })
        .collect();
    Observation {
        chain: CHAIN,
        epoch: 0,
        view: height,
        seq: height,
        time: TimeMs(time),
        prices,
        rescues: Vec::new(),
        outcomes: Vec::new(),
        health: Health::default(),
        author: ValidatorId(author),
        signature: Signature::default(),
    }
}

/// What a leader may bring on a node: outcomes that zones owe there, as somebody computes them who has nothing but the
/// state, one time out of three not.
fn content(machine: &Machine, on: &Node, salt: u64, ppm: u64) -> Brought {
    let height = on.height + 1;
    let actions = (0..mix(salt) % 12).map(|which| random_action(salt ^ which << 7, height, 40)).collect();
    let mut signature = GroupSignature::default();
    signature.0[..8].copy_from_slice(&salt.to_be_bytes());
    let zones = |world: &World| world.ledger.zones().into_keys().collect::<Vec<_>>();
    let settles = |zone: &u8| !mix(salt ^ u64::from(*zone) << 17).is_multiple_of(3);
    let outcomes = machine
        .read_at(on.digest, |world| {
            zones(world).into_iter().filter(settles).flat_map(|zone| owed(&world.ledger, zone)).collect()
        })
        .unwrap();
    Brought {
        time: None,
        observations: (0..4).map(|author| unsigned(author, height, salt, ppm)).collect(),
        parent_proof: (on.height > 0).then_some(ParentProof { finalized: false, signature }),
        outcomes,
        actions,
    }
}

fn run_on(machine: &Machine, on: &Node, brought: Brought, purpose: Purpose) -> Executed {
    machine
        .execute(on.digest, Height(on.height + 1), brought, purpose)
        .expect("every named block can be reached")
        .unwrap()
}

/// The state at a node by execution of its ancestors alone.
fn fresh(
    fixture: &Fixture,
    nodes: &[Node],
    place: usize,
) -> (BTreeMap<store::StateKey, store::StateValue>, Arc<Step>) {
    let mut path = vec![place];
    while *path.last().unwrap() != 0 {
        path.push(nodes[*path.last().unwrap()].parent);
    }
    let mut world = fixture.genesis.world().unwrap();
    let mut last = None;
    for node in path.iter().rev().skip(1).map(|place| &nodes[*place]) {
        let executed = world
            .execute(nodes[node.parent].digest, Height(node.height), node.brought.clone(), Purpose::Verify)
            .expect("what a leader built is valid");
        world.ledger.audit().unwrap();
        last = Some(executed.step);
    }
    (records(&world), last.unwrap())
}

fn walk(fixture: &Fixture, moves: Vec<Move>) {
    let machine = Machine::empty();
    let world = fixture.genesis.world().unwrap();
    let mut nodes = vec![Node {
        parent: 0,
        digest: Digest([255; 32]),
        height: 0,
        brought: Brought::default(),
        state: records(&world),
        events: Vec::new(),
        answers: Vec::new(),
    }];
    machine.load(nodes[0].digest, world);
    for step in moves {
        match step {
            Move::Extend { on, salt, price_ppm } => {
                let on = on % nodes.len();
                let brought = content(&machine, &nodes[on], salt, price_ppm);
                let built = run_on(&machine, &nodes[on], brought.clone(), Purpose::Build);
                assert_eq!(built.step.answers.len(), built.actions.len());
                let mut digest = Digest::default();
                digest.0[..8].copy_from_slice(&(nodes.len() as u64).to_be_bytes());
                if salt % 3 == 0 {
                    // Others may move the world between an execution and its naming.
                    assert!(machine.position(nodes[(salt >> 8) as usize % nodes.len()].digest));
                }
                machine.adopt(digest, built.step.clone());
                nodes.push(Node {
                    parent: on,
                    digest,
                    height: nodes[on].height + 1,
                    brought: Brought {
                        time: Some(built.step.time),
                        outcomes: built.outcomes,
                        actions: built.actions,
                        ..brought
                    },
                    state: BTreeMap::new(),
                    events: built.step.events().to_vec(),
                    answers: built.step.answers.clone(),
                });
                let place = nodes.len() - 1;
                let (state, again) = fresh(fixture, &nodes, place);
                // A leader's left-out actions leave no trace: a verifier sees the same events and writes.
                assert_eq!(again.events(), built.step.events());
                assert_eq!(again.answers, built.step.answers);
                assert_eq!(again.writes(), built.step.writes());
                nodes[place].state = state;
            }
            Move::Abandon { on, salt, price_ppm } => {
                let on = on % nodes.len();
                let brought = content(&machine, &nodes[on], salt, price_ppm);
                run_on(&machine, &nodes[on], brought, Purpose::Build);
            }
            Move::Again { which } => {
                let which = &nodes[which % nodes.len()];
                if which.height == 0 {
                    continue;
                }
                let on = &nodes[which.parent];
                let again = run_on(&machine, on, which.brought.clone(), Purpose::Verify);
                assert_eq!(again.step.events(), which.events);
                assert_eq!(again.step.answers, which.answers);
                machine.adopt(which.digest, again.step);
            }
            Move::Go { to } => {
                let to = &nodes[to % nodes.len()];
                assert!(machine.read_at(to.digest, records).unwrap() == to.state);
            }
            Move::Fail { on } => {
                let on = &nodes[on % nodes.len()];
                let brought = content(&machine, on, 1, 1_000_000);
                let trade =
                    Action::Withdraw { amount: Atoms(1_000_000_000_000_000), recipient: Recipient([0; 32]) };
                let good = Action::Deposit { to: AccountId(1), amount: Atoms(1) };
                let actions = vec![signed(ISSUER, 1, 99, good), signed(AccountId(1), 1, 99, trade)];
                let height = Height(on.height + 1);
                let failed =
                    machine.execute(on.digest, height, Brought { actions, ..brought }, Purpose::Verify);
                assert!(failed.unwrap().is_err());
                assert!(machine.read_at(on.digest, records).unwrap() == on.state);
            }
        }
    }
    for node in nodes.iter().rev().chain(&nodes) {
        assert!(machine.read_at(node.digest, records).unwrap() == node.state, "at height {}", node.height);
    }
    // Once a block is final, what descends from it is still there and what does not is gone.
    let last = nodes.len() - 1;
    let mut line = vec![last];
    while *line.last().unwrap() != 0 {
        line.push(nodes[*line.last().unwrap()].parent);
    }
    let settled = line[line.len() / 2];
    machine.finalize(nodes[settled].digest, Height(nodes[settled].height));
    for node in &nodes {
        if let Some(held) = machine.read_at(node.digest, records) {
            assert!(held == node.state, "at height {} after finality", node.height);
        }
    }
    assert!(machine.read_at(nodes[settled].digest, records).is_some());
    assert!(machine.read_at(nodes[last].digest, records).is_some());
}

#[test]
fn a_walk_between_forks_equals_a_fresh_replay() {
    let fixture = Fixture::new(21, 4, 40);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&moves(), |moves| {
            walk(&fixture, moves);
            Ok(())
        })
        .unwrap();
}

// ---- The stored form ----

fn lots_() -> impl Strategy<Value = Lots> {
    any_::lots()
}

fn text() -> impl Strategy<Value = seawall_ledger::params::Symbol> {
    "[A-Z0-9-]{1,16}".prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    fn tier()(up_to in any_::atoms(), initial in any_::ppm(), maintenance in any_::ppm()) -> TierParams {
        TierParams { up_to_notional: up_to, initial_ppm: initial, maintenance_ppm: maintenance }
    }
}

prop_compose! {
    fn params_()(
        symbol in text(),
        per in any::<u32>(),
        (low, high) in (any_::price(), any_::price()),
        tiers in vec(tier(), 0..=limits::MAX_TIERS),
        (taker, maker, cap, band, blind, penalty) in
            (any_::ppm(), any_::ppm(), any_::ppm(), any_::ppm(), any_::ppm(), any_::ppm()),
        interval_ms in any::<u64>(),
        interest_ppm in any::<i32>(),
        (open, account, capacity, per_block) in (lots_(), lots_(), lots_(), lots_()),
        isolated_only in any::<bool>(),
        fund in any_::atoms(),
    ) -> MarketParams {
        MarketParams {
            symbol,
            atoms_per_tick_lot: per,
            min_price: low,
            max_price: high,
            tiers,
            taker_fee_ppm: taker,
            maker_fee_ppm: maker,
            funding: FundingParams { interval_ms, cap_ppm: cap, interest_ppm },
            band_ppm: band,
            blind_range_ppm: blind,
            open_interest_cap: open,
            account_cap: account,
            isolated_only,
            liquidation: LiquidationParams { penalty_ppm: penalty },
            backstop: BackstopParams { initial_fund: fund, capacity_lots: capacity, per_block_lots: per_block },
            orders: seawall_ledger::OrderParams::default(),
        }
    }
}

prop_compose! {
    fn market_()(
        params in params_().boxed(),
        mark in option::of(any_::mark()),
        funding_index in any_::funding_index(),
        funding_pool in any_::atoms(),
        funding_dust in any::<u64>(),
        open_interest in lots_(),
        backstop in any_::account_id(),
        quarantined in option::of(any_::height()),
    ) -> Market {
        let quarantined = quarantined.map(|height| (height, QuarantineReason::UncoveredDeficit));
        Market { params, mark, funding_index, funding_pool, funding_dust, open_interest, backstop, quarantined }
    }
}

prop_compose! {
    fn position_()(
        market in any_::market_id(),
        lots in lots_(),
        cost in any_::atoms(),
        funding_entry in any_::funding_index(),
        mode in any_::margin_mode(),
        isolated in any_::atoms(),
        breached in option::of(any_::height()),
    ) -> Position {
        Position { market, lots, cost, funding_entry, mode, isolated, breached }
    }
}

/// Up to as many as there can be, from a seed: a thousand strategies would not fit a test's stack.
fn nonces_() -> impl Strategy<Value = Nonces> {
    let count = prop_oneof![4 => 0..8usize, 1 => Just(limits::MAX_NONCE_RUNS)];
    (count, any::<u64>()).prop_map(|(count, salt)| {
        let draw = |which: usize| mix(salt ^ which as u64);
        // Different expiries, so that no two runs are one.
        let runs: BTreeMap<_, _> = (0..count)
            .map(|which| {
                let first = draw(!which) >> 1;
                let run = NonceRun {
                    expiry: Height(draw(which) >> (which % 40)),
                    first: Nonce(first),
                    last: Nonce(first + (draw(which << 20) >> (which % 64)) / 2),
                };
                (run.expiry, run)
            })
            .collect();
        Nonces::from_runs(runs.into_values().collect()).expect("sorted, and by different expiries")
    })
}

prop_compose! {
    fn account_()(
        owner in any_::key(),
        kind in prop_oneof![
            Just(AccountKind::User),
            Just(AccountKind::Issuer),
            any_::market_id().prop_map(AccountKind::Backstop),
        ],
        collateral in any_::atoms(),
        positions in vec(position_().boxed(), 0..=limits::MAX_POSITIONS_PER_ACCOUNT),
        isolated in vec(any_::market_id(), 0..20),
        nonces in nonces_(),
        breached in option::of(any_::height()),
        leverage in vec((any_::market_id(), any::<u32>()), 0..5),
        cancel_at in option::of(any_::time()),
        tokens in option::of((any::<u32>(), any_::height()).prop_map(|(parts, at)| Bucket { parts, at })),
    ) -> Account {
        Account {
            owner, kind, collateral, reserved: Atoms::ZERO, positions, isolated, nonces, breached, leverage, cancel_at,
            tokens,
        }
    }
}

prop_compose! {
    fn globals_()(
        chain in any_::chain_id(),
        issuer in any_::account_id(),
        (liquidation_steps, max_wait_blocks) in (any::<u32>(), any::<u32>()),
        (height, time) in (any_::height(), any_::time()),
        (supply, insurance, uncovered) in (any_::atoms(), any_::atoms(), any_::atoms()),
        (accounts, exits) in (any::<u64>(), any::<u64>()),
        (tokens, min_transfer) in (any::<[u32; 7]>(), any_::atoms()),
    ) -> Globals {
        let [base_tokens, pool_tokens, account_tokens, flat_tokens, issuer_tokens, refill_blocks, reserve_blocks] =
            tokens;
        let rescues = RescueParams {
            base_tokens, pool_tokens, account_tokens, flat_tokens, issuer_tokens, refill_blocks, reserve_blocks,
            min_transfer,
        };
        Globals {
            chain, issuer, liquidation_steps, max_wait_blocks, rescues, height, time, supply, insurance, uncovered,
            accounts, exits,
        }
    }
}

fn time_option() -> impl Strategy<Value = Option<TimeMs>> {
    option::of(any_::time())
}

prop_compose! {
    fn market_oracle()(
        state in any_::price_state(),
        (last, disputed) in (option::of(any_::price()), option::of(any_::price())),
        (updated, updated_height) in (any_::time(), any_::height()),
        (blind_since, grace_since, reopened) in (time_option(), time_option(), time_option()),
        must_reopen in any::<bool>(),
    ) -> MarketOracle {
        MarketOracle {
            state, last, updated, updated_height, blind_since, must_reopen, grace_since, disputed, reopened,
        }
    }
}

prop_compose! {
    fn reporter()(
        seq in option::of(any::<u64>()),
        (height, time) in (any_::height(), any_::time()),
        reports in vec(option::of(any_::price_report()), 0..=limits::MAX_MARKETS),
    ) -> ReporterRow {
        ReporterRow { seq, height, time, reports }
    }
}

fn order_id() -> impl Strategy<Value = OrderId> {
    (0..1u64 << 36, 0..limits::MAX_ENTRIES_PER_INBOX as u32)
        .prop_map(|(height, index)| OrderId { height: Height(height), index })
}

prop_compose! {
    fn open_order()(
        account in any_::account_id(),
        terms in any_::terms(),
        spent in any::<prop::sample::Index>(),
        slid in option::of(any_::price()),
        ended in any::<bool>(),
        leaving in option::of(any_::height()),
        waiting in option::of((any_::price(), any::<bool>(), option::of(any_::height()))),
    ) -> OpenOrder {
        let waiting = waiting.map(|(price, above, crossed)| Waiting {
            trigger: Trigger { price, crossing: if above { Crossing::Above } else { Crossing::Below } },
            crossed,
        });
        let spent = Lots(spent.index(terms.lots.get() as usize + 1) as i64);
        OpenOrder { account, terms, spent, slid, ended, leaving, waiting }
    }
}

fn inbox() -> impl Strategy<Value = ZoneInbox> {
    let reference = prop::array::uniform3(any_::price()).prop_map(|mut prices| {
        prices.sort_unstable();
        let [low, mark, high] = prices;
        Reference { mark, band: Band { low, high } }
    });
    let references = prop::collection::btree_map(any_::market_id(), reference, 0..20);
    (references, any::<u32>(), any::<u32>(), option::of(any::<[u8; 32]>()))
        .prop_map(|(references, parts, end, salt)| ZoneInbox { references, parts, end, salt })
}

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        globals_().boxed().prop_map(|globals| Stored::Ledger(RecordKey::Globals, Record::Globals(globals))),
        (any_::market_id(), market_().boxed())
            .prop_map(|(id, market)| Stored::Ledger(RecordKey::Market(id), Record::Market(Box::new(market)))),
        (0..1u64 << 56, account_().boxed()).prop_map(|(id, account)| Stored::Ledger(
            RecordKey::Account(AccountId(id)),
            Record::Account(account)
        )),
        (0..1u64 << 56, any_::account_id(), any_::recipient(), any_::atoms(), any_::height()).prop_map(
            |(index, account, recipient, amount, height)| Stored::Ledger(
                RecordKey::Exit(index),
                Record::Exit(Exit { account, recipient, amount, height })
            )
        ),
        (any::<u8>(), any_::height(), any_::height()).prop_map(|(zone, ended, voided)| Stored::Ledger(
            RecordKey::Zone(zone),
            Record::Zone(ZoneState { ended, voided })
        )),
        (any::<u8>(), 0..1u64 << 36, inbox()).prop_map(|(zone, height, inbox)| Stored::Ledger(
            RecordKey::Inbox(zone, Height(height)),
            Record::Inbox(inbox)
        )),
        (
            order_id(),
            any::<u8>(),
            prop::collection::btree_map(0..64u32, (any_::account_id(), any_::terms()), 1..65)
        )
            .prop_map(|(id, zone, page)| {
                let first = id.index % (1 << 16) / 64 * 64;
                let own = |(place, (account, terms))| {
                    let entry = Entry { account, request: Request::Place(terms) };
                    (OrderId { index: first + place, ..id }, ZoneEntry { zone, entry })
                };
                Stored::Entries(page.into_iter().map(own).collect())
            }),
        (order_id(), open_order())
            .prop_map(|(id, order)| Stored::Ledger(RecordKey::Order(id), Record::Order(order))),
        (any_::market_id(), market_oracle().boxed())
            .prop_map(|(id, market)| Stored::MarketOracle(id, market)),
        (any::<u16>(), reporter().boxed()).prop_map(|(id, row)| Stored::Reporter(id, row)),
        (any_::digest(), any_::height(), any_::time(), any_::time(), any::<u64>()).prop_map(
            |(exits_root, height, time, running_since, order_slots)| Stored::Chain(ChainRecord {
                exits_root,
                order_slots,
                oracle: Head { height, time, running_since }
            })
        ),
    ]
}

fn encode(stored: &Stored) -> (Tag, u64, Vec<u8>) {
    match stored {
        Stored::Ledger(RecordKey::Order(id), Record::Order(order)) => {
            assert_eq!(codec::ledger_key(RecordKey::Order(*id)), None);
            // The name is in the record, so any slot will do.
            (Tag::Order, u64::from(id.index), codec::encode_order(*id, order))
        }
        Stored::Entries(entries) => {
            let (first, own) = entries[0];
            assert_eq!(codec::ledger_key(RecordKey::Entry(first)), None);
            let page = EntryPage::of(first, own.zone);
            let entries: Vec<_> = entries.iter().map(|(id, own)| (*id, own.entry)).collect();
            (Tag::Entry, page.index(), codec::encode_entries(&entries))
        }
        Stored::Ledger(key, record) => {
            let (tag, index) = match *key {
                RecordKey::Globals => (Tag::Globals, 0),
                RecordKey::Market(id) => (Tag::Market, u64::from(id.get())),
                RecordKey::Account(id) => (Tag::Account, id.get()),
                RecordKey::Exit(index) => (Tag::Exit, index),
                RecordKey::Zone(zone) => (Tag::Zone, u64::from(zone)),
                RecordKey::Inbox(zone, height) => (Tag::Inbox, u64::from(zone) << 48 | height.get()),
                RecordKey::Entry(id) | RecordKey::Order(id) => panic!("{id} has no key"),
            };
            assert_eq!(codec::ledger_key(*key), Some(store::key(tag, index)));
            (tag, index, codec::encode_ledger(record))
        }
        Stored::MarketOracle(id, market) => {
            (Tag::MarketOracle, u64::from(id.get()), codec::encode_market_oracle(market))
        }
        Stored::Reporter(id, row) => (Tag::Reporter, u64::from(*id), codec::encode_reporter(row)),
        Stored::Chain(chain) => (Tag::Chain, 0, codec::encode_chain(chain)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_record_reads_back_as_it_was_and_fits(stored in stored()) {
        let (tag, index, bytes) = encode(&stored);
        prop_assert!(bytes.len() <= MAX_RECORD_BYTES, "{} bytes", bytes.len());
        prop_assert_eq!(codec::decode(tag, index, &bytes).unwrap(), stored);
    }

    #[test]
    fn a_damaged_record_is_an_error_or_has_one_encoding(
        stored in stored(),
        flips in vec((any::<prop::sample::Index>(), 0..8u8), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (tag, index, bytes) = encode(&stored);
        let shorter = &bytes[..cut.index(bytes.len())];
        prop_assert!(codec::decode(tag, index, shorter).is_err(), "a prefix decodes");
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert!(codec::decode(tag, index, &longer).is_err(), "trailing bytes are ignored");
        let mut flipped = bytes;
        for (place, bit) in flips {
            let place = place.index(flipped.len());
            flipped[place] ^= 1 << bit;
        }
        if let Ok(other) = codec::decode(tag, index, &flipped) {
            prop_assert_eq!(encode(&other).2, flipped, "two encodings of {:?}", other);
        }
    }

    #[test]
    fn noise_never_panics_the_decoder(tag in 0..11usize, index in any::<u64>(), bytes in vec(any::<u8>(), 0..600)) {
        let tags = [
            Tag::Globals, Tag::Market, Tag::Account, Tag::Exit, Tag::MarketOracle, Tag::Reporter, Tag::Chain,
            Tag::Zone, Tag::Inbox, Tag::Entry, Tag::Order,
        ];
        if let Ok(stored) = codec::decode(tags[tag], index & ((1 << 56) - 1), &bytes) {
            prop_assert_eq!(encode(&stored).2, bytes);
        }
    }
}
