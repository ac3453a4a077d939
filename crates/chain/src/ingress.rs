//! The way of an action from a user or a peer into the pool.
//!
//! ```text
//!  users ── offer ─┐   a queue a lane                      one task
//!                  ├─▶ rescues ──▶ at most RESCUE_BATCH ─┐
//!  peers ── offer ─┤                                     ├─▶ cheap checks ─▶ signatures, at once ─▶ pool ─▶ relay
//!                  └─▶ trades  ──▶ at most TRADE_BATCH ──┘
//! ```
//!
//! The lane of an action follows from its kind, so it is known before anything is checked. Each lane has a queue of its own,
//! bounded by number and by bytes, and whoever sends has a share of it: a flood of trades takes no room from rescues, and
//! one connection none from the others. What does not fit is turned away at once and costs next to nothing.
//!
//! One task empties the queues, rescues first. It looks at what is cheap before any signature (chain, expiry, nonce,
//! margin), and then at all signatures of a batch together, which halves their cost. A rescue that arrives waits for the batch
//! that is under way and for nothing else; so batches of trades are small, while those of rescues may be large. A
//! batch that fails is halved, and each half is a batch of its own, until every bad signature is found: that takes up to
//! `1 + log2 n` times as long as a good one, and rescues that come meanwhile are not kept waiting for it. Each bad signature
//! counts against whoever sent it: after [`MAX_STRIKES`] nothing more is taken from there until they are forgiven, half of
//! them at a time.

use crate::{
    app::add_actions,
    crypto::Batch,
    machine::Machine,
    mempool::{Mempool, Rank, Signers, SubmitError},
    submissions::{State, SubmissionId, Submissions},
    work::{Costs, Work},
};
use commonware_codec::EncodeSize as _;
use commonware_parallel::Strategy;
use commonware_runtime::{Clock, Handle, Metrics, Spawner};
use commonware_utils::channel::mpsc;
use rand_core::CryptoRng;
use seawall_ledger::Ledger;
use seawall_types::{AccountId, Action, ChainId, Key, Lane, Nonce, Refusal, SignedAction, ValidatorId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tracing::{debug, warn};

/// Rescues whose signatures are checked at once.
pub const RESCUE_BATCH: usize = 256;
/// Trades whose signatures are checked at once: about a millisecond, for which a rescue may have to wait.
pub const TRADE_BATCH: usize = 64;
/// The connection of this process's own tools: it may fill a queue.
pub const OWN: u64 = 0;
/// Of a queue's places a user's connection has one in so many, and at least one.
pub const CONNECTION_SHARE: usize = 8;
/// Of a queue's places another member has one in so many, and at least one.
pub const PEER_SHARE: usize = 2;
/// Bad signatures after which nothing more is taken from whoever sent them.
pub const MAX_STRIKES: u32 = 64;
/// Senders whose bad signatures are remembered. Beyond it the one with the fewest is forgotten.
const MAX_SUSPECTS: usize = 4_096;
/// How long to wait for the state, of a validator that starts or that loads it again.
const NO_STATE: Duration = Duration::from_millis(50);

/// How much waits for its checks at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Rescues.
    pub rescues: usize,
    /// Trades.
    pub trades: usize,
    /// Bytes of rescues, as encoded.
    pub rescue_bytes: usize,
    /// Bytes of trades, as encoded.
    pub trade_bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { rescues: 16_384, trades: 16_384, rescue_bytes: 8 << 20, trade_bytes: 32 << 20 }
    }
}

/// Who sent an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A user or tool of this validator, by its connection.
    Connection(u64),
    /// Another member.
    Peer(ValidatorId),
}

struct Arrived {
    action: SignedAction,
    origin: Origin,
    bytes: usize,
}

/// Actions of a lane that wait for their checks, by rank and age.
#[derive(Default)]
struct Queue {
    waiting: BTreeMap<(Rank, u64), Arrived>,
    bytes: usize,
    of: BTreeMap<Origin, usize>,
    names: BTreeMap<(AccountId, Nonce), (Rank, u64)>,
}

impl Queue {
    fn take(&mut self, place: (Rank, u64)) -> Option<Arrived> {
        let arrived = self.waiting.remove(&place)?;
        self.bytes -= arrived.bytes;
        if let Some(count) = self.of.get_mut(&arrived.origin) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&arrived.origin);
            }
        }
        let name = (arrived.action.account, arrived.action.nonce);
        if self.names.get(&name) == Some(&place) {
            self.names.remove(&name);
        }
        Some(arrived)
    }
}

#[derive(Default)]
struct Inner {
    limits: QueueLimits,
    next: u64,
    rescues: Queue,
    trades: Queue,
    strikes: BTreeMap<Origin, u32>,
    /// Actions of each lane that were turned away since the start.
    shed: [u64; 2],
}

impl Inner {
    fn queue(&mut self, lane: Lane) -> (&mut Queue, usize, usize) {
        match lane {
            Lane::Rescue => (&mut self.rescues, self.limits.rescues, self.limits.rescue_bytes),
            Lane::Trade => (&mut self.trades, self.limits.trades, self.limits.trade_bytes),
        }
    }

    /// Whether one more of this rank and size may wait, and which one has to go for it.
    fn room(&mut self, lane: Lane, rank: Rank, origin: Origin, bytes: usize) -> Option<Option<(Rank, u64)>> {
        if self.strikes.get(&origin).is_some_and(|strikes| *strikes >= MAX_STRIKES) {
            return None;
        }
        let (queue, most, most_bytes) = self.queue(lane);
        let share = match origin {
            Origin::Connection(OWN) => most,
            Origin::Connection(_) => (most / CONNECTION_SHARE).max(1),
            Origin::Peer(_) => (most / PEER_SHARE).max(1),
        };
        if queue.of.get(&origin).is_some_and(|held| *held >= share) {
            return None;
        }
        if queue.waiting.len() < most && queue.bytes + bytes <= most_bytes {
            return Some(None);
        }
        let (last, held) = queue.waiting.last_key_value()?;
        (last.0 > rank && queue.bytes + bytes <= most_bytes + held.bytes).then_some(Some(*last))
    }
}

/// Where actions arrive.
#[derive(Clone)]
pub struct Ingress {
    inner: Arc<Mutex<Inner>>,
    wake: mpsc::Sender<()>,
    mempool: Mempool,
    submissions: Submissions,
}

impl Ingress {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the ingress")
    }

    /// Lets an action wait for its checks. False if there is no room for it.
    pub fn offer(&self, action: SignedAction, origin: Origin) -> bool {
        let (lane, rank) = (action.action.lane(), Rank::of(&action.action));
        let (bytes, name) = (action.encode_size(), (action.account, action.nonce));
        if self.mempool.holds(&action) {
            self.submissions.note(&action, State::Pooled);
            return true;
        }
        let gone = {
            let mut inner = self.lock();
            let (queue, ..) = inner.queue(lane);
            // Members send rescues to each other more than once on purpose.
            let same = queue.names.get(&name).and_then(|place| queue.waiting.get(place));
            if same.is_some_and(|same| same.action == action) {
                return true;
            }
            let Some(yields) = inner.room(lane, rank, origin, bytes) else {
                inner.shed[lane as usize] += 1;
                return false;
            };
            let place = (rank, inner.next);
            inner.next += 1;
            let (queue, ..) = inner.queue(lane);
            let gone = yields.and_then(|place| queue.take(place));
            queue.bytes += bytes;
            *queue.of.entry(origin).or_default() += 1;
            queue.names.insert(name, place);
            queue.waiting.insert(place, Arrived { action, origin, bytes });
            if gone.is_some() {
                inner.shed[lane as usize] += 1;
            }
            gone
        };
        if let Some(gone) = gone {
            self.submissions.note(&gone.action, State::Shed);
        }
        // A full queue of wake-ups wakes as well.
        let _ = self.wake.try_send(());
        true
    }

    /// The first actions of a lane.
    fn batch(&self, lane: Lane, most: usize) -> Vec<Arrived> {
        let mut inner = self.lock();
        let (queue, ..) = inner.queue(lane);
        let places: Vec<_> = queue.waiting.keys().take(most).copied().collect();
        places.into_iter().filter_map(|place| queue.take(place)).collect()
    }

    fn strike(&self, origin: Origin) {
        // Many users may be behind the process's own tools, and one of them must not shut the others out.
        if origin == Origin::Connection(OWN) {
            return;
        }
        let mut inner = self.lock();
        *inner.strikes.entry(origin).or_default() += 1;
        if inner.strikes.len() > MAX_SUSPECTS {
            let least = inner.strikes.iter().min_by_key(|(_, strikes)| **strikes).map(|(origin, _)| *origin);
            if let Some(least) = least {
                inner.strikes.remove(&least);
            }
        }
    }

    /// Forgives half of what counts against anybody.
    pub(crate) fn forgive(&self) {
        self.lock().strikes.retain(|_, strikes| {
            *strikes /= 2;
            *strikes > 0
        });
    }

    /// Rescues and trades that wait for their checks.
    pub fn len(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.rescues.waiting.len(), inner.trades.waiting.len())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// Rescues and trades that were turned away since the start.
    pub fn shed(&self) -> (u64, u64) {
        let [rescues, trades] = self.lock().shed;
        (rescues, trades)
    }
}

/// Where users and tools submit to this validator.
#[derive(Clone)]
pub struct Submitter {
    /// Where they arrive.
    pub ingress: Ingress,
}

impl Submitter {
    /// Takes an action in that this process's own tools send.
    ///
    /// # Errors
    /// If there is no room for it. Whatever else becomes of it, its [state](Self::state) says.
    pub fn submit(&self, action: SignedAction) -> Result<SubmissionId, SubmitError> {
        self.submit_from(OWN, action)
    }

    /// The same, for one connection of many.
    ///
    /// # Errors
    /// If there is no room for it, or none for this connection.
    pub fn submit_from(&self, connection: u64, action: SignedAction) -> Result<SubmissionId, SubmitError> {
        let (origin, lane) = (Origin::Connection(connection), action.action.lane());
        let full = SubmitError::PoolFull { lane };
        // Before anything is hashed: whoever floods is turned away cheaply.
        if self.ingress.lock().room(lane, Rank::of(&action.action), origin, action.encode_size()).is_none() {
            self.ingress.lock().shed[lane as usize] += 1;
            return Err(full);
        }
        let (id, fresh) = self.ingress.submissions.receive(&action);
        if fresh && !self.ingress.offer(action.clone(), origin) {
            self.ingress.submissions.note(&action, State::Shed);
            return Err(full);
        }
        Ok(id)
    }

    /// What became of a submission.
    pub fn state(&self, id: &SubmissionId) -> State {
        self.ingress.submissions.state(id)
    }

    /// Rescues and trades that wait for their checks.
    pub fn waiting(&self) -> (usize, usize) {
        self.ingress.len()
    }

    /// Rescues and trades that were turned away since the start.
    pub fn shed(&self) -> (u64, u64) {
        self.ingress.shed()
    }
}

/// An action that was pooled and has to be sent on.
pub struct Passed {
    /// The action.
    pub action: SignedAction,
    /// Who sent it here.
    pub origin: Origin,
}

/// The task that empties the queues.
pub struct Checker<E, S> {
    context: E,
    chain: ChainId,
    machine: Machine,
    ingress: Ingress,
    wake: mpsc::Receiver<()>,
    /// A queue a lane to whoever relays.
    passed: [mpsc::Sender<Passed>; 2],
    /// Parts of a batch of each lane that has failed or was not finished, last first: no more than one batch together.
    parts: [Vec<Vec<Arrived>>; 2],
    costs: Costs,
    strategy: S,
}

/// What was found of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    /// So many signatures were looked at.
    Signatures(u32),
    /// There is no state to check anything against.
    NoState,
}

impl<E, S> Checker<E, S>
where
    E: Spawner + Clock + Metrics + CryptoRng,
    S: Strategy,
{
    /// Creates the task and where actions arrive for it.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        context: E,
        chain: ChainId,
        machine: Machine,
        mempool: Mempool,
        submissions: Submissions,
        limits: QueueLimits,
        passed: [mpsc::Sender<Passed>; 2],
        costs: Costs,
        strategy: S,
    ) -> (Self, Submitter) {
        let (sender, wake) = mpsc::channel(1);
        let inner = Arc::new(Mutex::new(Inner { limits, ..Inner::default() }));
        let ingress = Ingress { inner, wake: sender, mempool, submissions };
        let submitter = Submitter { ingress: ingress.clone() };
        let parts = [Vec::new(), Vec::new()];
        (Self { context, chain, machine, ingress, wake, passed, parts, costs, strategy }, submitter)
    }

    /// Spawns the task on a thread of its own: what it computes must not keep the executor from consensus.
    pub fn start(self) -> Handle<()> {
        let context = self.context.child("run").dedicated();
        context.spawn(move |context| self.run(context))
    }

    async fn run(mut self, mut context: E) {
        loop {
            while let Some((lane, batch)) = self.next() {
                match self.check(&mut context, lane, batch) {
                    Checked::Signatures(signatures) => {
                        self.costs.spend(&context, Work::Ingress { lane, signatures }).await;
                        // A thread of its own yields to nobody, but a simulation has one for all.
                        context.sleep(Duration::ZERO).await;
                    }
                    Checked::NoState => context.sleep(NO_STATE).await,
                }
            }
            if self.wake.recv().await.is_none() {
                return;
            }
        }
    }

    /// The next batch: rescues if there are any, and in each lane what is left of a batch before another one.
    fn next(&mut self) -> Option<(Lane, Vec<Arrived>)> {
        [(Lane::Rescue, RESCUE_BATCH), (Lane::Trade, TRADE_BATCH)].into_iter().find_map(|(lane, most)| {
            let part = self.parts[lane as usize].pop();
            let batch = part.unwrap_or_else(|| self.ingress.batch(lane, most));
            (!batch.is_empty()).then_some((lane, batch))
        })
    }

    /// Checks a batch and pools what is good. If a signature is bad, its halves are batches to come.
    fn check(&mut self, rng: &mut impl CryptoRng, lane: Lane, batch: Vec<Arrived>) -> Checked {
        let mut good: Vec<(Arrived, Signers)> = Vec::with_capacity(batch.len());
        let mut refused = Vec::new();
        let mut batch = Some(batch);
        self.machine.read(|world| {
            for arrived in batch.take().into_iter().flatten() {
                // Nobody's signature is checked for a place that there is not.
                if !self.ingress.mempool.has_room(&arrived.action, arrived.bytes) {
                    self.ingress.mempool.give_up(&arrived.action);
                    continue;
                }
                if let Some(blocks) = self.lacks_token(&world.ledger, &arrived) {
                    self.ingress.submissions.note(&arrived.action, State::Rationed { blocks });
                    continue;
                }
                match keys(&world.ledger, self.chain, &arrived) {
                    Ok(signers) => good.push((arrived, signers)),
                    Err(refusal) => refused.push((arrived, refusal)),
                }
            }
        });
        if let Some(batch) = batch {
            self.parts[lane as usize].push(batch);
            return Checked::NoState;
        }
        // Outside the machine's lock: blocks are built and checked under it.
        let (looked, is_good) = self.verify(rng, &good);
        if !is_good {
            let mut own: Vec<Arrived> = good.drain(..).map(|(arrived, _)| arrived).collect();
            if own.len() == 1 {
                refused.extend(own.into_iter().map(|arrived| (arrived, Refusal::BadSignature)));
            } else {
                let rest = own.split_off(own.len() / 2);
                self.parts[lane as usize].extend([rest, own]);
            }
        }
        let mut good = Some(good);
        let mut passed = Vec::new();
        self.machine.read(|world| {
            for (arrived, signers) in good.take().into_iter().flatten() {
                // Another fork may be under it by now, where the account is another's.
                if world.ledger.owner(arrived.action.account) != Some(&signers.account) {
                    refused.push((arrived, Refusal::UnknownAccount));
                    continue;
                }
                // What the book learns now must not be final already.
                if let Err(refusal) = is_open(&world.ledger, &arrived.action) {
                    refused.push((arrived, refusal));
                    continue;
                }
                // Others of its batch may have taken the last ones.
                if let Some(blocks) = self.lacks_token(&world.ledger, &arrived) {
                    self.ingress.submissions.note(&arrived.action, State::Rationed { blocks });
                    continue;
                }
                let is_over = |held: &SignedAction| is_open(&world.ledger, held).is_err();
                let own = matches!(arrived.origin, Origin::Connection(_));
                // Before it is pooled: from then on a block may have it.
                if own {
                    self.ingress.submissions.note(&arrived.action, State::Pooled);
                } else {
                    self.ingress.submissions.learn(&arrived.action);
                }
                match self.ingress.mempool.pool(arrived.action.clone(), signers, own, is_over) {
                    Ok(()) => passed.push(Passed { action: arrived.action, origin: arrived.origin }),
                    Err(SubmitError::Duplicate) => {
                        if !self.ingress.mempool.holds(&arrived.action) {
                            refused.push((arrived, Refusal::NonceUsed));
                        }
                    }
                    Err(_) => self.ingress.mempool.give_up(&arrived.action),
                }
            }
        });
        if let Some(good) = good.filter(|good| !good.is_empty()) {
            // The state went while the signatures were checked. They are checked again.
            self.parts[lane as usize].push(good.into_iter().map(|(arrived, _)| arrived).collect());
        }
        for (arrived, refusal) in refused {
            if matches!(refusal, Refusal::BadSignature | Refusal::BadQuoteSignature) {
                self.ingress.strike(arrived.origin);
                if let Origin::Peer(peer) = arrived.origin {
                    warn!(%peer, account = %arrived.action.account, "peer relays an action with a bad signature");
                }
            } else {
                debug!(origin = ?arrived.origin, %refusal, "did not pool an action");
            }
            self.ingress.submissions.note(&arrived.action, State::Refused(refusal));
        }
        for own in passed {
            let lane = own.action.action.lane() as usize;
            if self.passed[lane].try_send(own).is_err() {
                debug!("relay queue is full; the action waits here until it is sent again");
            }
        }
        Checked::Signatures(looked)
    }

    /// In how many blocks a rescue has a token beside those of its signer that wait, if it has none now. What a peer relays
    /// may wait for tokens to come, as it can have one by the peer's state: as many as the account ever holds at once,
    /// twice, because those of blocks that are not final here wait too; and whatever is listed.
    fn lacks_token(&self, ledger: &Ledger, arrived: &Arrived) -> Option<u64> {
        let Arrived { action, origin, .. } = arrived;
        let mempool = &self.ingress.mempool;
        // Of an account that does not exist the refusal says so.
        if action.action.lane() != Lane::Rescue || ledger.owner(action.account).is_none() {
            return None;
        }
        let (account, next) = (action.account, ledger.globals().height.next());
        let waiting = mempool.waiting_of(account);
        let has = match origin {
            Origin::Connection(_) => waiting < ledger.rescue_tokens_at(account, next),
            Origin::Peer(_) => {
                waiting < 2 * ledger.rescue_burst(account) || mempool.is_wanted(&(account, action.nonce))
            }
        };
        if has || mempool.holds(action) {
            return None;
        }
        ledger.blocks_until_tokens(account, next, waiting.saturating_add(1))
    }

    /// How many signatures the actions have, and whether all of them are good.
    fn verify(&self, rng: &mut impl CryptoRng, own: &[(Arrived, Signers)]) -> (u32, bool) {
        let mut batch = Batch::new(self.chain);
        let owner = |signers: &Signers, account: AccountId| {
            let maker = signers.maker.filter(|(maker, _)| *maker == account).map(|(_, key)| key);
            maker.or(Some(signers.account))
        };
        let mut formed = true;
        for (arrived, signers) in own {
            let one = std::slice::from_ref(&arrived.action);
            formed &= add_actions(&mut batch, self.chain, one, |account| owner(signers, account)).is_ok();
        }
        let looked = u32::try_from(batch.len()).expect("a batch has bounds");
        (looked, formed && batch.verify(rng, &self.strategy))
    }
}

/// Whether the next block could carry it, for all that its envelope says.
fn is_open(ledger: &Ledger, action: &SignedAction) -> Result<(), Refusal> {
    ledger.check_envelope_at(ledger.globals().height.next(), action.account, action.nonce, action.expiry)
}

/// Everything but signatures: the keys under which they have to verify.
fn keys(ledger: &Ledger, chain: ChainId, arrived: &Arrived) -> Result<Signers, Refusal> {
    let action = &arrived.action;
    if action.chain != chain {
        return Err(Refusal::WrongChain);
    }
    is_open(ledger, action)?;
    // What a peer relays it may list, and then its answer is the chain's to give: see the mempool.
    let relayed = matches!(arrived.origin, Origin::Peer(_)) && action.action.lane() == Lane::Rescue;
    if !relayed {
        ledger.check(action.account, action.nonce, action.expiry, &action.action)?;
    }
    let own = |account: AccountId| -> Option<Key> { ledger.owner(account).copied() };
    let account = own(action.account).ok_or(Refusal::UnknownAccount)?;
    let maker = match &action.action {
        Action::Fill { quote, .. } if quote.chain != chain => return Err(Refusal::QuoteMismatch),
        Action::Fill { quote, .. } => {
            Some((quote.maker, own(quote.maker).ok_or(Refusal::UnknownBeneficiary)?))
        }
        _ => None,
    };
    Ok(Signers { account, maker })
}
