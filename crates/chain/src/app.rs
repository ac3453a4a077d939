//! The consensus application: builds blocks and decides which are valid.
//!
//! # Validity
//!
//! A block on parent `p` in a context is valid if and only if
//!
//! 1. version, chain and epoch are this chain's; height is `p + 1`; the parent digest is `p`'s;
//! 2. the leader that the context names signed it, and a quorum voted for its parent;
//! 3. it holds observations of at least `q` distinct members by ascending author, signed for the
//!    block's own view, each newer than its author's last on this chain;
//! 4. its time is `max(p + 1 ms, median of the observed times)`;
//! 5. each part of an outcome that it settles is attested by `f + 1` of its own observations, and settlement refuses
//!    none of them;
//! 6. rescues come before trades and in their order, every signature verifies under the key that the parent's state holds,
//!    no trade is refused, every rescue takes a token of its signer, and one that is refused spends its nonce, too;
//! 7. it carries the rescues that its observations make it owe ([`inclusion`](crate::inclusion));
//! 8. executed in the order of [`machine`](crate::machine), it yields the state root, operations log,
//!    outcomes root and exits root of its header.
//!
//! An outcome that `f + 1` attest was computed by an honest validator. Nobody has to have a zone of its own to check
//! that, so nobody waits for one.
//!
//! Everything in this list is a pure function of the block, its context and the parent's state. Clocks
//! wait elsewhere ([`gate`](crate::gate)).

use crate::{
    block::{Block, Context, body_digest, from_consensus, outcome_digest, root_of_digests},
    committee::{Committee, Scheme},
    crypto::{Batch, Identity, key_of},
    evidence::Evidence,
    inclusion,
    machine::{Answer, Brought, Executed, Machine, Purpose, Step, World},
    mempool::Mempool,
    observer::Observatory,
    proofs::{self, ParentProofs},
    store::{Db, StateKey, StateReader, StateValue, StoreError},
    submissions::{State, Submissions},
    work::{Costs, Work},
    zones::{self, Zones},
};
use commonware_consensus::{Heightable as _, Viewable as _, marshal::ancestry::Ancestry};
use commonware_cryptography::{Digestible as _, sha256};
use commonware_glue::stateful::{
    Application, Finality, Input, Proposed,
    db::{DatabaseSet, Merkleized as _, Shared, Unmerkleized as _},
};
use commonware_parallel::Strategy;
use commonware_runtime::{Clock, Metrics, Spawner};
use commonware_storage::{Context as StorageContext, merkle::Location, qmdb::sync::Target};
use commonware_utils::non_empty_range;
use futures::StreamExt as _;
use rand_core::CryptoRng;
use seawall_oracle::OracleParams;
use seawall_types::{
    AccountId, Action, Body, ChainId, Digest, Domain, Header, Height, Key, Observation, OutcomeRef, Refusal,
    SignedAction,
    block::{OpsTarget, VERSION},
    limits::MAX_ACTIONS_PER_BLOCK,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tracing::{debug, warn};

/// Told of every block once it is final and applied.
pub trait Monitor: Send + Sync + 'static {
    /// `block` is final; `step` is what it did.
    fn finalized(&self, block: &Block, digest: Digest, step: &Step);
}

/// A monitor that does nothing.
pub struct NoMonitor;

impl Monitor for NoMonitor {
    fn finalized(&self, _: &Block, _: Digest, _: &Step) {}
}

/// How a leader builds. Local: no other validator can tell.
#[derive(Clone, Debug)]
pub struct BuildPolicy {
    /// Wall time between the building of two blocks on one another, at least.
    pub interval: Duration,
    /// Wall time to wait for further observations once there is a quorum.
    pub linger: Duration,
    /// Most actions taken from the pool into one block, by weight: each order of a bulk action counts. What a block owes
    /// it carries in any case.
    pub max_actions: usize,
    /// Whose actions this leader leaves out wherever the rules let it: to show, in the lab, how far that gets it.
    pub withholds: Arc<BTreeSet<AccountId>>,
}

impl Default for BuildPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            linger: Duration::from_millis(5),
            max_actions: MAX_ACTIONS_PER_BLOCK,
            withholds: Arc::default(),
        }
    }
}

/// What an application is made of.
pub struct Parts<S> {
    /// Chain.
    pub chain: ChainId,
    /// The committee.
    pub committee: Committee,
    /// Own key, for blocks this validator leads.
    pub identity: Identity,
    /// The block at height 0.
    pub genesis: Block,
    /// Oracle parameters, needed to load a world.
    pub oracle: OracleParams,
    /// The state machine.
    pub machine: Machine,
    /// Waiting actions.
    pub mempool: Mempool,
    /// Heard observations.
    pub observatory: Observatory,
    /// Certificates of possible parents.
    pub proofs: ParentProofs,
    /// Zones beside settlement.
    pub zones: Zones,
    /// What can be held against leaders.
    pub evidence: Evidence,
    /// How blocks are built.
    pub policy: BuildPolicy,
    /// Told of final blocks.
    pub monitor: Arc<dyn Monitor>,
    /// What became of what was submitted here.
    pub submissions: Submissions,
    /// What a simulation charges for work.
    pub costs: Costs,
    /// How signatures are checked in parallel.
    pub strategy: S,
}

/// The application.
pub struct App<S> {
    parts: Arc<Parts<S>>,
    /// Checks what the committee signed.
    scheme: Arc<Scheme>,
    built: Arc<Mutex<Option<SystemTime>>>,
}

impl<S> Clone for App<S> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), scheme: self.scheme.clone(), built: self.built.clone() }
    }
}

impl<S> App<S> {
    /// Assembles an application.
    pub fn new(parts: Parts<S>) -> Self {
        let scheme = Arc::new(parts.committee.verifier());
        Self { parts: Arc::new(parts), scheme, built: Arc::default() }
    }
}

type Databases<E, S> = Shared<Db<E, S>>;
type Batch_<E, S> = <Databases<E, S> as DatabaseSet<E>>::Unmerkleized;

impl<E, S> StateReader for BatchReader<'_, E, S>
where
    E: StorageContext + Spawner,
    S: Strategy,
{
    async fn read_many(&self, keys: &[StateKey]) -> Result<Vec<Option<StateValue>>, StoreError> {
        let keys: Vec<&StateKey> = keys.iter().collect();
        self.0.get_many(&keys).await.map_err(StoreError::database)
    }
}

struct BatchReader<'a, E: StorageContext + Spawner, S: Strategy>(&'a Batch_<E, S>);

impl<S: Strategy> App<S> {
    /// Makes sure that the machine can stand at `parent`, reading it from the batch if it cannot.
    async fn ready<E>(&self, parent: Digest, batches: &Batch_<E, S>)
    where
        E: StorageContext + Spawner,
    {
        if self.parts.machine.position(parent) {
            return;
        }
        let world =
            World::load(&BatchReader::<E, S>(batches), self.parts.oracle.clone(), self.parts.committee.len())
                .await
                .unwrap_or_else(|error| panic!("cannot load the state of block {parent}: {error}"));
        debug!(%parent, "loaded the state from the store");
        self.parts.machine.load(parent, world);
    }

    /// Writes a step's changes and seals the batch.
    async fn seal<E>(
        step: &Step,
        mut batches: Batch_<E, S>,
    ) -> <Databases<E, S> as DatabaseSet<E>>::Merkleized
    where
        E: StorageContext + Spawner,
    {
        for (key, value) in step.writes() {
            batches = batches.write(key, value);
        }
        batches.merkleize().await.unwrap_or_else(|error| panic!("the state store failed: {error}"))
    }

    /// Waits for a quorum of observations for `view` that are news to the parent's state and list nothing that a block
    /// would owe and this validator does not hold, then a little for more.
    async fn observations<E>(
        &self,
        context: &E,
        batches: &Batch_<E, S>,
        parent: Digest,
        height: Height,
        view: u64,
    ) -> Vec<Observation>
    where
        E: StorageContext + Spawner + Clock,
    {
        let quorum = self.parts.committee.quorum();
        let mut patience = None;
        loop {
            let (changed, rescue) = (self.parts.observatory.changed(), self.parts.mempool.changed());
            let mut heard = self.parts.observatory.heard(view);
            self.ready::<E>(parent, batches).await;
            let read = self.parts.machine.read_at(parent, |world| {
                heard.retain(|observation| {
                    world.oracle.last_seq(observation.author).is_none_or(|last| observation.seq > last)
                });
                self.parts.mempool.retain_covered(&world.ledger, height, &mut heard);
            });
            // Somebody else moved the machine in between.
            if read.is_none() {
                continue;
            }
            withhold(&mut heard, &self.parts.policy.withholds, quorum);
            if heard.len() == self.parts.committee.len() {
                return heard;
            }
            if heard.len() >= quorum {
                let until = *patience.get_or_insert_with(|| context.current() + self.parts.policy.linger);
                let left = until.duration_since(context.current()).unwrap_or_default();
                if left.is_zero() {
                    return heard;
                }
                commonware_macros::select! {
                    _ = changed => {},
                    _ = rescue => {},
                    _ = context.sleep(left) => {},
                }
            } else {
                commonware_macros::select! {
                    _ = changed => {},
                    _ = rescue => {},
                }
            }
        }
    }

    /// Holds a leader back so that blocks do not follow each other faster than the policy says.
    async fn pace<E: Clock>(&self, context: &E) {
        let last = *self.built.lock().expect("a thread panicked while it held the pace");
        if let Some(last) = last {
            let next = last + self.parts.policy.interval;
            if let Ok(wait) = next.duration_since(context.current()) {
                context.sleep(wait).await;
            }
        }
    }

    fn mark_pace<E: Clock>(&self, context: &E) {
        *self.built.lock().expect("a thread panicked while it held the pace") = Some(context.current());
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("a block has bounds")
}

/// What actions weigh together.
fn weight(actions: &[SignedAction]) -> u32 {
    count(actions.iter().map(|action| action.action.weight()).sum())
}

/// Leaves out the observations that list most rescues of these accounts, as far as a quorum remains.
fn withhold(heard: &mut Vec<Observation>, accounts: &BTreeSet<AccountId>, quorum: usize) {
    if accounts.is_empty() {
        return;
    }
    let listed = |observation: &Observation| {
        observation.rescues.iter().filter(|listed| accounts.contains(&listed.account)).count()
    };
    heard.sort_by_key(listed);
    while heard.len() > quorum && heard.last().is_some_and(|last| listed(last) > 0) {
        heard.pop();
    }
    heard.sort_by_key(|observation| observation.author);
}

/// Rules 1 to 3 and the first half of 5, without signatures.
pub fn check_form(
    committee: &Committee,
    block: &Block,
    parent_height: Height,
    parent_digest: Digest,
) -> Result<(), &'static str> {
    let header = &block.header;
    let chain = committee.chain();
    if header.version != VERSION || header.chain != chain || header.epoch != 0 {
        return Err("made for another version, chain or epoch");
    }
    if header.height != parent_height.next() || header.parent != parent_digest {
        return Err("does not follow its parent");
    }
    let outcomes = &block.body.outcomes;
    let digests: Vec<Digest> = outcomes.iter().map(outcome_digest).collect();
    if header.outcomes_root != root_of_digests(digests.iter()) {
        return Err("its outcomes root is not that of its outcomes");
    }
    if committee.position(&block.context.leader).is_none() {
        return Err("its leader is not a member");
    }
    let view = block.context.view().get();
    let mut previous = None;
    for observation in &block.body.observations {
        if observation.chain != chain
            || observation.epoch != 0
            || observation.view != view
            || committee.key(observation.author).is_none()
        {
            return Err("holds an observation of another chain, epoch, view or of a stranger");
        }
        if previous.is_some_and(|previous| previous >= observation.author) {
            return Err("observations are not by ascending author");
        }
        previous = Some(observation.author);
    }
    if block.body.observations.len() < committee.quorum() {
        return Err("holds fewer observations than a quorum");
    }
    if !outcomes.is_empty() {
        let votes = zones::votes(&block.body.observations);
        for (own, digest) in outcomes.iter().zip(digests) {
            let (zone, height) = (u16::from(own.zone), own.outcome.height.get());
            let votes = votes.get(&OutcomeRef { zone, height, digest }).copied().unwrap_or(0);
            if votes < committee.attestors() {
                return Err("settles an outcome that too few of its observations attest");
            }
        }
    }
    Ok(())
}

/// Every signature of a block whose form was checked: its leader's, its observers' and its actions', under
/// the keys that the parent's state holds.
pub fn collect_signatures(
    committee: &Committee,
    block: &Block,
    owner: impl Fn(AccountId) -> Option<Key>,
) -> Result<Batch, Refusal> {
    let chain = committee.chain();
    let mut batch = Batch::new(chain);
    batch.add(
        &key_of(&block.context.leader),
        Domain::Block,
        Block::signing_payload(&block.context, &block.header),
        &block.signature,
    );
    for observation in &block.body.observations {
        let key = committee.key(observation.author).expect("the form was checked");
        batch.add(key, Domain::Observation, observation.message(), &observation.signature);
    }
    add_actions(&mut batch, chain, &block.body.actions, owner)?;
    Ok(batch)
}

/// Adds the signatures of `actions` to a batch; refuses what needs no curve to be refused.
pub fn add_actions(
    batch: &mut Batch,
    chain: ChainId,
    actions: &[SignedAction],
    owner: impl Fn(AccountId) -> Option<Key>,
) -> Result<(), Refusal> {
    for action in actions {
        if action.chain != chain {
            return Err(Refusal::WrongChain);
        }
        let key = owner(action.account).ok_or(Refusal::UnknownAccount)?;
        batch.add(&key, Domain::Action, action.message(), &action.signature);
        if let Action::Fill { quote, quote_signature, .. } = &action.action {
            if quote.chain != chain {
                return Err(Refusal::QuoteMismatch);
            }
            let maker = owner(quote.maker).ok_or(Refusal::UnknownBeneficiary)?;
            batch.add(&maker, Domain::Quote, quote.message(), quote_signature);
        }
    }
    Ok(())
}

fn ops_target<E, S>(merkleized: &<Databases<E, S> as DatabaseSet<E>>::Merkleized) -> OpsTarget
where
    E: StorageContext + Spawner,
    S: Strategy,
{
    OpsTarget {
        root: Digest(merkleized.ops_root().0),
        start: *merkleized.sync_boundary(),
        end: *merkleized.bounds().tip.size,
    }
}

impl<E, S> Application<E> for App<S>
where
    E: StorageContext + Spawner + Clock + Metrics + CryptoRng,
    S: Strategy,
{
    type SigningScheme = Scheme;
    type Context = Context;
    type Block = Block;
    type Databases = Databases<E, S>;
    type Captured = ();
    type Provider = ();
    type Input = ();

    fn sync_targets(block: &Block) -> <Self::Databases as DatabaseSet<E>>::SyncTargets {
        let ops = &block.header.ops;
        Target::new(
            sha256::Digest(ops.root.0),
            non_empty_range!(Location::new(ops.start), Location::new(ops.end)),
        )
    }

    async fn genesis(&mut self) -> Block {
        self.parts.genesis.clone()
    }

    async fn propose(
        &mut self,
        (context, consensus): (E, Context),
        ancestry: impl Ancestry<Block>,
        batches: <Self::Databases as DatabaseSet<E>>::Unmerkleized,
        _input: Input<(), ()>,
    ) -> Option<Proposed<Self, E>> {
        let mut ancestry = Box::pin(ancestry);
        let parent = ancestry.next().await?;
        let parent_digest = from_consensus(parent.digest());
        let view = consensus.view().get();
        let height = Height(parent.height().get() + 1);
        self.ready::<E>(parent_digest, &batches).await;
        let parent_proof = self.parts.proofs.of(parent.inner()).await;
        self.pace(&context).await;
        let observations = self.observations(&context, &batches, parent_digest, height, view).await;
        let enough = self.parts.committee.attestors();
        let attested = self.parts.zones.settleable(&observations, enough);

        // Others may move the machine while this proposal waits, and between any two calls.
        let executed = loop {
            self.ready::<E>(parent_digest, &batches).await;
            let candidates = self.parts.machine.read_at(parent_digest, |world| {
                let owner = |account: AccountId| world.ledger.owner(account).copied();
                let tokens = |account| world.ledger.rescue_tokens_at(account, height);
                let draw = inclusion::draw(parent_digest, parent_proof.as_ref());
                let owed = inclusion::owed(&world.ledger, draw, height, &observations);
                let most = self.parts.policy.max_actions;
                let mut actions = self.parts.mempool.candidates(most, &owed, owner, tokens);
                let withholds = &self.parts.policy.withholds;
                actions.retain(|own| {
                    !withholds.contains(&own.account) || owed.contains(&(own.account, own.nonce))
                });
                actions
            });
            let Some(actions) = candidates else { continue };
            let brought = Brought {
                time: None,
                observations: observations.clone(),
                parent_proof,
                outcomes: attested.clone(),
                actions,
            };
            let executed = self.parts.machine.execute(parent_digest, height, brought, Purpose::Build);
            if let Some(executed) = executed {
                break executed;
            }
        };
        let Executed { step, outcomes, actions, left_out } = match executed {
            Ok(executed) => executed,
            Err(invalid) => {
                warn!(view, %invalid, "could not build a block");
                return None;
            }
        };
        // What this state refuses for good is not worth another try; a nonce in flight may come back, and a token comes.
        let passing = [Refusal::NonceUsed, Refusal::NoRescueTokens];
        let hopeless = left_out.iter().filter(|(_, refusal)| !passing.contains(refusal));
        self.parts.mempool.remove(hopeless.clone().map(|(action, _)| (&action.account, &action.nonce)));
        for (action, refusal) in hopeless {
            self.parts.submissions.note(action, State::Refused(*refusal));
        }

        self.parts.costs.spend(&context, Work::Build { actions: weight(&actions) }).await;
        let merkleized = Self::seal::<E>(&step, batches).await;
        let digests: Vec<Digest> = outcomes.iter().map(outcome_digest).collect();
        let body = Body { observations, actions, parent_proof, outcomes };
        let header = Header {
            version: VERSION,
            chain: self.parts.chain,
            epoch: 0,
            height,
            parent: parent_digest,
            time: step.time,
            body: body_digest(&body),
            state_root: Digest(merkleized.root().0),
            ops: ops_target::<E, S>(&merkleized),
            outcomes_root: root_of_digests(digests.iter()),
            exits_root: step.exits_root,
        };
        let block = Block::sign(consensus, header, body, &self.parts.identity);
        self.parts.machine.adopt(from_consensus(block.digest()), step);
        self.parts.submissions.included(height, &block.body.actions);
        self.mark_pace(&context);
        Some(Proposed { block, merkleized })
    }

    async fn process(
        &mut self,
        (mut context, _consensus): (E, Context),
        ancestry: impl Ancestry<Block>,
        batches: <Self::Databases as DatabaseSet<E>>::Unmerkleized,
        finality: Finality,
    ) -> Option<<Self::Databases as DatabaseSet<E>>::Merkleized> {
        let mut ancestry = Box::pin(ancestry);
        let block = ancestry.next().await?;
        let digest = from_consensus(block.digest());
        let block = block.inner();
        let parent = ancestry.next().await?;
        let parent_digest = from_consensus(parent.digest());
        let height = block.header.height;
        let refuse = |reason: &dyn std::fmt::Display| {
            warn!(%height, %digest, leader = %block.context.leader, %reason, "block is invalid");
        };
        if let Err(reason) =
            check_form(&self.parts.committee, block, parent.inner().header.height, parent_digest)
        {
            refuse(&reason);
            return None;
        }
        let (mut signatures, actions) = (0, weight(&block.body.actions));
        // A final block was verified by a quorum; its signatures cannot change the state it yields.
        if finality == Finality::Candidate {
            signatures = count(block.body.actions.len() + block.body.observations.len() + 1);
            let proof = block.body.parent_proof.as_ref();
            let voted = proofs::proposal_of(parent.inner());
            if !proofs::verify(&self.scheme, voted.as_ref(), proof, &mut context, &self.parts.strategy) {
                refuse(&"it does not prove that a quorum voted for its parent");
                return None;
            }
            let collected = loop {
                self.ready::<E>(parent_digest, &batches).await;
                let collected = self.parts.machine.read_at(parent_digest, |world| {
                    let owner = |account: AccountId| world.ledger.owner(account).copied();
                    collect_signatures(&self.parts.committee, block, owner)
                });
                if let Some(collected) = collected {
                    break collected;
                }
            };
            match collected {
                Ok(batch) if batch.verify(&mut context, &self.parts.strategy) => {}
                Ok(_) => {
                    refuse(&"a signature is bad");
                    return None;
                }
                Err(refusal) => {
                    refuse(&format_args!("an action is refused: {refusal}"));
                    return None;
                }
            }
        }
        // From here on the leader's signature is known to be good.
        self.parts.evidence.note(block);
        // Another block's task may move the machine between any two calls. That says nothing about this
        // block, and a verdict is final: try again.
        let executed = loop {
            self.ready::<E>(parent_digest, &batches).await;
            let brought = Brought::by(block);
            let executed = self.parts.machine.execute(parent_digest, height, brought, Purpose::Verify);
            if let Some(executed) = executed {
                break executed;
            }
        };
        self.parts.costs.spend(&context, Work::Verify { actions, signatures }).await;
        let step = match executed {
            Ok(executed) => executed.step,
            Err(invalid) => {
                refuse(&invalid);
                self.parts.evidence.refused(block, invalid.to_string());
                return None;
            }
        };
        let merkleized = Self::seal::<E>(&step, batches).await;
        if merkleized.root().0 != block.header.state_root.0
            || ops_target::<E, S>(&merkleized) != block.header.ops
            || step.exits_root != block.header.exits_root
        {
            let reason = "its roots are not those of its execution";
            refuse(&reason);
            self.parts.evidence.refused(block, reason.into());
            return None;
        }
        self.parts.machine.adopt(digest, step);
        self.parts.submissions.included(height, &block.body.actions);
        self.mark_pace(&context);
        Some(merkleized)
    }

    async fn capture(
        &mut self,
        _context: (E, Context),
        _block: &Block,
        _batches: &<Self::Databases as DatabaseSet<E>>::Merkleized,
        _readers: <Self::Databases as DatabaseSet<E>>::Readers,
    ) {
    }

    async fn finalized(
        &mut self,
        _context: (E, Context),
        block: &Block,
        (): (),
        _readers: <Self::Databases as DatabaseSet<E>>::Readers,
    ) {
        let digest = from_consensus(block.digest());
        let names = block.body.actions.iter().map(|action| (&action.account, &action.nonce));
        self.parts.mempool.remove(names);
        self.parts.mempool.expire(block.header.height);
        let step = self.parts.machine.step(digest);
        // Of a block whose step is gone nobody knows what it did.
        let done = step.clone();
        let answers = done.as_deref().map_or(&[][..], |step| &step.answers);
        // While the machine can still stand here: zones that start are built from this state.
        let read = |read: &mut dyn FnMut(&World)| self.parts.machine.read_at(digest, read).is_some();
        self.parts.zones.finalized(block, step.as_deref(), read);
        let accounts = step.as_deref().and_then(Step::accounts);
        self.parts.machine.finalize(digest, block.header.height);
        // From here on the machine stands above this block, and so does every check: an action that comes to the book after
        // it is not found open where this block has carried it.
        let (known, unknown) = block.body.actions.split_at(answers.len());
        let refusals = answers.iter().map(|answer| match answer {
            Answer::Done(_) => None,
            Answer::Refused(refusal) => Some(*refusal),
        });
        let waits = |name: &_| self.parts.mempool.waits(name);
        self.parts.submissions.forget(unknown);
        self.parts.submissions.finalized(block.header.height, known.iter().zip(refusals), waits);
        // After the book: whoever is told here and asks there is told the same.
        if let Some(step) = step {
            self.parts.monitor.finalized(block, digest, &step);
        }
        // The machine stands above this block now, so whatever account it has that the block has is the same one.
        if let Some(accounts) = accounts {
            self.parts.machine.read(|world| {
                self.parts.mempool.settle(accounts, |account| world.ledger.owner(account).copied());
            });
        }
    }
}
