//! Actions that wait for a block. One bounded pool a lane, by number and by bytes, so that a flood of trades cannot push
//! a rescue out of memory.
//!
//! Trades wait by [`Rank`]: cancels before withdrawals before what can add risk. Blocks take them in that order, but of the
//! withdrawals only a share that leaves room for orders; a full pool forgets the youngest of the last rank, and whoever
//! sent it here is told so ([`State::Shed`]).
//!
//! This validator's observations list the rescues that wait here ([`Mempool::listed`]), so that every leader owes them:
//! see [`inclusion`](crate::inclusion). A listing that nobody can honour would keep the observation out of blocks, so
//! a rescue is listed only when
//!
//! - its body was relayed before ([`Mempool::relayed`]), so that whoever reads the listing has it, or will;
//! - its account is final ([`Mempool::settle`]): on a fork that loses, the account may have been another's, and what
//!   was checked under that key can be in no block.
//!
//! Whoever leads needs the bodies of what others list: with `f` members silent it needs those of every honest one. So
//! nothing that users do may keep one out of this pool: a rescue takes the place of a trade of its name, and of a rescue
//! that no block can carry any more; what others list is taken where the pool is full ([`Mempool::want`]), and what
//! peers relay is not asked whether the ledger would accept it now, which depends on when it is asked.

use crate::{
    crypto::{self, sha256_digest},
    inclusion::{self, Ration, RescueName},
    submissions::{State, Submissions},
};
use commonware_codec::{Encode as _, EncodeSize as _};
use commonware_utils::channel::oneshot;
use seawall_ledger::Ledger;
use seawall_types::{
    AccountId, Action, ChainId, Digest, Domain, Height, Key, Lane, Nonce, Observation, Refusal, RescueRef,
    SignedAction, ValidatorId, limits::MAX_OWED_PER_BLOCK,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};
use thiserror::Error;

/// Most rescues that wait at a time. One more is refused with [`SubmitError::PoolFull`], unless another member lists it:
/// then the youngest that nobody lists is forgotten.
pub const MAX_POOLED_RESCUES: usize = 65_536;
/// Most trades that wait at a time. One more takes the place of the youngest of a later rank, or is refused with
/// [`SubmitError::PoolFull`].
pub const MAX_POOLED_TRADES: usize = 65_536;
/// Most bytes of rescues, as encoded, that wait at a time. What happens at it is as for their number.
pub const MAX_RESCUE_BYTES: usize = 32 << 20;
/// Most bytes of trades, as encoded, that wait at a time. What happens at it is as for their number.
pub const MAX_TRADE_BYTES: usize = 64 << 20;
/// Of the places for trades withdrawals have one in so many. One more is refused with [`SubmitError::PoolFull`].
pub const WITHDRAWALS_OF_POOL: usize = 8;
/// Of the places in a block that rescues leave, withdrawals come before orders with one in so many, and with one at least:
/// slow, and guaranteed.
pub const WITHDRAWALS_OF_BLOCK: usize = 32;

/// How much waits at most. A simulation of slower machines scales it down with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Rescues.
    pub rescues: usize,
    /// Trades.
    pub trades: usize,
    /// Bytes of rescues.
    pub rescue_bytes: usize,
    /// Bytes of trades.
    pub trade_bytes: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            rescues: MAX_POOLED_RESCUES,
            trades: MAX_POOLED_TRADES,
            rescue_bytes: MAX_RESCUE_BYTES,
            trade_bytes: MAX_TRADE_BYTES,
        }
    }
}

impl PoolLimits {
    const fn of(&self, lane: usize) -> (usize, usize) {
        if lane == RESCUES { (self.rescues, self.rescue_bytes) } else { (self.trades, self.trade_bytes) }
    }
}

/// In which order actions of a lane are served, and the last of which are given up first. A function of the kind alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Rescues, which have their own lane; and of the trades, what takes orders back.
    Cancel,
    /// What takes value off the chain.
    Withdrawal,
    /// Everything else: it can add risk.
    Risk,
}

impl Rank {
    /// The rank of an action.
    pub const fn of(action: &Action) -> Self {
        match action {
            Action::Cancel { .. } | Action::CancelMany(_) => Self::Cancel,
            Action::Withdraw { .. } => Self::Withdrawal,
            _ => match action.lane() {
                Lane::Rescue => Self::Cancel,
                Lane::Trade => Self::Risk,
            },
        }
    }
}

/// Where an action waits: by rank, then by age.
type Place = (Rank, u64);

/// Why a submission was not pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The ledger would refuse it now.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The lane's pool is full.
    #[error("the {lane:?} pool is full; submit again later")]
    PoolFull {
        /// The lane.
        lane: Lane,
    },
    /// An action with this account and nonce already waits.
    #[error("an action with this account and nonce already waits")]
    Duplicate,
    /// The validator has not loaded its state yet.
    #[error("the validator is starting; submit again shortly")]
    Starting,
}

/// The keys under which the signatures of an action were found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signers {
    /// The signing account's.
    pub account: Key,
    /// The maker's, if the action takes a quote.
    pub maker: Option<(AccountId, Key)>,
}

struct Pooled {
    action: SignedAction,
    signers: Signers,
    bytes: usize,
    /// Whether it was submitted here: then it is this validator's to send on.
    own: bool,
    /// Whether it was sent to others.
    relayed: bool,
    /// Whether the signers are those that the account has in every block to come.
    settled: bool,
}

impl Pooled {
    /// Whether the accounts belong to whoever signed, as `owner` knows them.
    fn stands(&self, owner: impl Fn(AccountId) -> Option<Key>) -> bool {
        owner(self.action.account) == Some(self.signers.account)
            && self.signers.maker.is_none_or(|(maker, key)| owner(maker) == Some(key))
    }
}

#[derive(Default)]
struct Inner {
    next: u64,
    limits: PoolLimits,
    lanes: [BTreeMap<Place, Pooled>; 2],
    bytes: [usize; 2],
    withdrawals: usize,
    named: BTreeMap<(AccountId, Nonce), (usize, Place)>,
    /// Accounts of the last final block: they are whose they are.
    accounts: u64,
    /// What each member lists that does not wait here.
    wanted: BTreeMap<ValidatorId, BTreeSet<RescueName>>,
    /// Whoever waits for another rescue.
    waiters: Vec<oneshot::Sender<()>>,
}

impl Inner {
    fn rescue(&self, name: &RescueName) -> Option<&Pooled> {
        let (lane, place) = self.named.get(name)?;
        (*lane == RESCUES).then(|| self.lanes[RESCUES].get(place)).flatten()
    }

    /// Takes an action out.
    fn take(&mut self, lane: usize, place: Place) -> Option<SignedAction> {
        let pooled = self.lanes[lane].remove(&place)?;
        self.bytes[lane] -= pooled.bytes;
        self.withdrawals -= usize::from(place.0 == Rank::Withdrawal);
        let name = (pooled.action.account, pooled.action.nonce);
        if self.named.get(&name) == Some(&(lane, place)) {
            self.named.remove(&name);
        }
        Some(pooled.action)
    }

    /// Whether an action of `rank` and so many bytes has no room beside `gone` others that leave for it.
    fn is_full(&self, lane: usize, bytes: usize, gone: (usize, usize)) -> bool {
        let (most, most_bytes) = self.limits.of(lane);
        self.lanes[lane].len() + 1 > most + gone.0 || self.bytes[lane] + bytes > most_bytes + gone.1
    }

    /// Which action makes room for one of this lane, rank and name; nothing if it is this one that has to go.
    fn yielding(&self, lane: usize, rank: Rank, name: &RescueName) -> Option<Place> {
        if lane == RESCUES {
            let wanted = |name: &RescueName| self.wanted.values().any(|names| names.contains(name));
            if !wanted(name) {
                return None;
            }
            let youngest = self.lanes[RESCUES].iter().rev();
            return youngest
                .map(|(place, own)| (*place, (own.action.account, own.action.nonce)))
                .find(|(_, name)| !wanted(name))
                .map(|(place, _)| place);
        }
        let (last, _) = self.lanes[lane].last_key_value()?;
        (last.0 > rank).then_some(*last)
    }
}

const RESCUES: usize = lane_index(Lane::Rescue);
const TRADES: usize = lane_index(Lane::Trade);

/// Told of what a pool takes in and gives up, without its lock. Whoever is told must be quick: actions wait for it.
pub trait Watcher: Send + Sync + 'static {
    /// An action was pooled.
    fn pooled(&self, action: &SignedAction);

    /// It was given up for another, or had no place when it had been checked.
    fn shed(&self, action: &SignedAction);
}

/// The pool, shared by the submission side and the proposer.
#[derive(Clone, Default)]
pub struct Mempool {
    inner: Arc<Mutex<Inner>>,
    submissions: Submissions,
    watcher: Arc<OnceLock<Arc<dyn Watcher>>>,
}

const fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Rescue => 0,
        Lane::Trade => 1,
    }
}

impl Mempool {
    /// A pool within these limits that tells `submissions` what becomes of actions.
    pub fn new(limits: PoolLimits, submissions: Submissions) -> Self {
        let mempool = Self { submissions, ..Self::default() };
        mempool.lock().limits = limits;
        mempool
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the mempool")
    }

    /// Tells this watcher from now on. There is one: false if somebody else watches.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) -> bool {
        self.watcher.set(watcher).is_ok()
    }

    /// Notes that an action has no place here any more.
    pub(crate) fn give_up(&self, action: &SignedAction) {
        self.submissions.note(action, State::Shed);
        if let Some(watcher) = self.watcher.get() {
            watcher.shed(action);
        }
    }

    /// Whether this very action waits.
    pub fn holds(&self, action: &SignedAction) -> bool {
        let inner = self.lock();
        let held = inner.named.get(&(action.account, action.nonce));
        held.and_then(|(lane, place)| inner.lanes[*lane].get(place))
            .is_some_and(|pooled| pooled.action == *action)
    }

    /// Pools an action that has been checked, with what [`check_signatures`] found. `is_over` says of a rescue of the same
    /// name that waits here that no block can carry it any more.
    pub fn insert(
        &self,
        action: SignedAction,
        signers: Signers,
        is_over: impl Fn(&SignedAction) -> bool,
    ) -> Result<(), SubmitError> {
        self.pool(action, signers, false, is_over)
    }

    /// The same, saying whether the action was submitted to this validator.
    pub(crate) fn pool(
        &self,
        action: SignedAction,
        signers: Signers,
        own: bool,
        is_over: impl Fn(&SignedAction) -> bool,
    ) -> Result<(), SubmitError> {
        let (lane, rank) = (action.action.lane(), Rank::of(&action.action));
        let index = lane_index(lane);
        let name = (action.account, action.nonce);
        let bytes = action.encode_size();
        let mut inner = self.lock();
        let same = inner.named.get(&name).copied();
        let yields = |(other, place): (usize, Place)| {
            lane == Lane::Rescue
                && (other != RESCUES
                    || inner.lanes[RESCUES].get(&place).is_some_and(|held| is_over(&held.action)))
        };
        if same.is_some_and(|same| !yields(same)) {
            return Err(SubmitError::Duplicate);
        }
        let full = Err(SubmitError::PoolFull { lane });
        if rank == Rank::Withdrawal && inner.withdrawals >= (inner.limits.trades / WITHDRAWALS_OF_POOL).max(1)
        {
            return full;
        }
        let leaves = same.filter(|(other, _)| *other == index);
        let gone = leaves
            .and_then(|(_, place)| inner.lanes[index].get(&place))
            .map_or((0, 0), |held| (1, held.bytes));
        let mut shed = Vec::new();
        if inner.is_full(index, bytes, gone) {
            // One for one: whatever is larger than what it takes the place of waits for its sender to try again.
            let Some(place) = inner.yielding(index, rank, &name) else { return full };
            let held = inner.lanes[index].get(&place).map_or(0, |held| held.bytes);
            if inner.is_full(index, bytes, (gone.0 + 1, gone.1 + held)) {
                return full;
            }
            shed.extend(inner.take(index, place));
        }
        if let Some((other, place)) = same {
            shed.extend(inner.take(other, place));
        }
        let place = (rank, inner.next);
        inner.next += 1;
        inner.named.insert(name, (index, place));
        inner.bytes[index] += bytes;
        inner.withdrawals += usize::from(rank == Rank::Withdrawal);
        let settled = action.account.get() < inner.accounts;
        let told = self.watcher.get().map(|watcher| (watcher, action.clone()));
        inner.lanes[index].insert(place, Pooled { action, signers, bytes, own, relayed: false, settled });
        if lane == Lane::Rescue {
            for waiter in inner.waiters.drain(..) {
                let _ = waiter.send(());
            }
        }
        drop(inner);
        for action in shed {
            self.give_up(&action);
        }
        if let Some((watcher, action)) = told {
            watcher.pooled(&action);
        }
        Ok(())
    }

    /// The oldest trades that were submitted here and wait, at most so many: to be sent to leaders to come.
    pub(crate) fn own_trades(&self, limit: usize) -> Vec<SignedAction> {
        let inner = self.lock();
        let own = inner.lanes[TRADES].values().filter(|pooled| pooled.own);
        own.take(limit).map(|pooled| pooled.action.clone()).collect()
    }

    /// Whether an action of this name waits.
    pub(crate) fn waits(&self, name: &(AccountId, Nonce)) -> bool {
        self.lock().named.contains_key(name)
    }

    /// Whether an action of the lane, rank and size would be refused for want of room. Cheap, and only a hint.
    pub(crate) fn has_room(&self, action: &SignedAction, bytes: usize) -> bool {
        let inner = self.lock();
        let (lane, rank) = (lane_index(action.action.lane()), Rank::of(&action.action));
        let name = (action.account, action.nonce);
        !inner.is_full(lane, bytes, (0, 0)) || inner.yielding(lane, rank, &name).is_some()
    }

    /// Resolves when another rescue waits.
    pub fn changed(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        inner.waiters.retain(|waiter| !waiter.is_closed());
        inner.waiters.push(sender);
        receiver
    }

    /// Notes that a rescue was sent to others.
    pub fn relayed(&self, name: &RescueName) {
        let mut inner = self.lock();
        if let Some((RESCUES, place)) = inner.named.get(name).copied()
            && let Some(pooled) = inner.lanes[RESCUES].get_mut(&place)
        {
            pooled.relayed = true;
        }
    }

    /// How many rescues of an account wait here.
    pub fn waiting_of(&self, account: AccountId) -> u32 {
        let inner = self.lock();
        let own = inner.named.range((account, Nonce(0))..=(account, Nonce(u64::MAX)));
        own.filter(|(_, (lane, _))| *lane == RESCUES).count() as u32
    }

    /// Whether another member lists this rescue and it does not wait here.
    pub fn is_wanted(&self, name: &RescueName) -> bool {
        self.lock().wanted.values().any(|names| names.contains(name))
    }

    /// The oldest rescues that may be listed, at most so many, by ascending name. Of an account no more than it has
    /// `tokens` for: others could not be owed, and would take the places of those that are.
    pub fn listed(&self, limit: usize, tokens: impl Fn(AccountId) -> u32) -> Vec<RescueRef> {
        let inner = self.lock();
        let mut ration = Ration::new(tokens);
        let ready = inner.lanes[RESCUES]
            .values()
            .filter(|pooled| pooled.relayed && pooled.settled && ration.take(pooled.action.account));
        let mut listed: Vec<RescueRef> = ready
            .take(limit)
            .map(|Pooled { action, .. }| RescueRef {
                account: action.account,
                nonce: action.nonce,
                expiry: action.expiry,
                digest: action_digest(action),
            })
            .collect();
        listed.sort_unstable();
        listed
    }

    /// Notes what a member lists: it is taken when it comes, even if the pool is full.
    pub fn want(&self, author: ValidatorId, listed: &[RescueRef]) {
        let mut inner = self.lock();
        let missing: BTreeSet<RescueName> = listed
            .iter()
            .map(|listed| (listed.account, listed.nonce))
            .filter(|name| inner.rescue(name).is_none())
            .collect();
        if missing.is_empty() {
            inner.wanted.remove(&author);
        } else {
            inner.wanted.insert(author, missing);
        }
    }

    /// The oldest rescues that are listed, or would be once they are relayed, to be sent once more: within the `tokens` of
    /// each account, as they are listed.
    pub fn waiting_rescues(&self, limit: usize, tokens: impl Fn(AccountId) -> u32) -> Vec<SignedAction> {
        let inner = self.lock();
        let mut ration = Ration::new(tokens);
        let settled = inner.lanes[RESCUES]
            .values()
            .filter(|pooled| pooled.settled && ration.take(pooled.action.account));
        settled.take(limit).map(|pooled| pooled.action.clone()).collect()
    }

    /// Keeps those of the observations that list nothing which a block at `height` would owe and this pool does not hold.
    pub fn retain_covered(&self, ledger: &Ledger, height: Height, heard: &mut Vec<Observation>) {
        let inner = self.lock();
        let owner = |account: AccountId| ledger.owner(account).copied();
        let held = |name: &RescueName| {
            inner.rescue(name).filter(|pooled| pooled.stands(owner)).map(|pooled| pooled.action.expiry)
        };
        heard.retain(|observation| inclusion::covers(ledger, height, observation, held));
    }

    /// The actions for a block: those that it owes, and the oldest others whose signatures are good under the keys that
    /// `owner` finds, rescues first and within the lane's reserve and what their signers have `tokens` for, of at most
    /// `limit` together by weight. Actions are checked against the newest state, which may be on a fork that loses: there an
    /// account can be another's, or not exist. Nobody else would notice while a block is built, and every block with such
    /// an action is invalid.
    pub fn candidates(
        &self,
        limit: usize,
        owed: &BTreeSet<RescueName>,
        owner: impl Fn(AccountId) -> Option<Key>,
        tokens: impl Fn(AccountId) -> u32,
    ) -> Vec<SignedAction> {
        let inner = self.lock();
        let mut ration = Ration::new(tokens);
        for (account, _) in owed {
            ration.take(*account);
        }
        let mut chosen: Vec<SignedAction> =
            owed.iter().filter_map(|name| inner.rescue(name)).map(|pooled| pooled.action.clone()).collect();
        let mut weight: usize = chosen.iter().map(|action| action.action.weight()).sum();
        // What is not owed has the lane's reserve and no more, or rescues would shut trades out.
        let reserve = MAX_OWED_PER_BLOCK.saturating_sub(chosen.len());
        let [rescues, trades] = &inner.lanes;
        let free = |pooled: &&Pooled| {
            !owed.contains(&(pooled.action.account, pooled.action.nonce)) && pooled.stands(&owner)
        };
        let of =
            |rank: Rank| trades.range((rank, 0)..=(rank, u64::MAX)).map(|(_, pooled)| pooled).filter(free);
        let share = (limit.saturating_sub(weight) / WITHDRAWALS_OF_BLOCK).max(1);
        let others = rescues
            .values()
            .filter(free)
            .filter(|pooled| ration.take(pooled.action.account))
            .take(reserve)
            .chain(of(Rank::Cancel))
            .chain(of(Rank::Withdrawal).take(share))
            .chain(of(Rank::Risk))
            .chain(of(Rank::Withdrawal).skip(share))
            .take_while(|pooled| {
                weight += pooled.action.action.weight();
                weight <= limit
            });
        chosen.extend(others.map(|pooled| pooled.action.clone()));
        chosen
    }

    /// Notes how many accounts there are in a final block, and looks again at rescues of those that were not final
    /// before, under the keys that `owner` finds in a state above it. What does not stand there is forgotten.
    pub fn settle(&self, accounts: u64, owner: impl Fn(AccountId) -> Option<Key>) {
        let mut inner = self.lock();
        if accounts <= inner.accounts {
            return;
        }
        inner.accounts = accounts;
        let mut gone = Vec::new();
        for pooled in inner.lanes[RESCUES].values_mut() {
            if !pooled.settled && pooled.action.account.get() < accounts {
                pooled.settled = pooled.stands(&owner);
                if !pooled.settled {
                    gone.push(pooled.action.clone());
                }
            }
        }
        drop(inner);
        self.remove(gone.iter().map(|action| (&action.account, &action.nonce)));
        for action in gone {
            self.submissions.note(&action, State::Refused(Refusal::UnknownAccount));
        }
    }

    /// Forgets actions that a finalised block answered, or that can never be answered with success.
    pub fn remove<'a>(&self, names: impl IntoIterator<Item = (&'a AccountId, &'a Nonce)>) {
        let mut inner = self.lock();
        for (account, nonce) in names {
            if let Some((lane, place)) = inner.named.get(&(*account, *nonce)).copied() {
                inner.take(lane, place);
            }
        }
    }

    /// Forgets actions that no block above `height` can carry.
    pub fn expire(&self, height: Height) {
        let mut inner = self.lock();
        let expired: BTreeSet<(AccountId, Nonce)> = inner
            .lanes
            .iter()
            .flat_map(BTreeMap::values)
            .map(|pooled| &pooled.action)
            .filter(|action| action.expiry <= height)
            .map(|action| (action.account, action.nonce))
            .collect();
        for name in expired {
            if let Some((lane, place)) = inner.named.get(&name).copied() {
                inner.take(lane, place);
            }
        }
    }

    /// Number of waiting rescues and trades.
    pub fn len(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.lanes[0].len(), inner.lanes[1].len())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }
}

/// What a listing names of a signed action.
pub fn action_digest(action: &SignedAction) -> Digest {
    sha256_digest(&[&action.encode()])
}

/// Checks what does not need the ledger's balances: chain and signatures, under the keys that `owner` finds.
pub fn check_signatures(
    chain: ChainId,
    action: &SignedAction,
    owner: impl Fn(AccountId) -> Option<Key>,
) -> Result<Signers, Refusal> {
    if action.chain != chain {
        return Err(Refusal::WrongChain);
    }
    let key = owner(action.account).ok_or(Refusal::UnknownAccount)?;
    if !crypto::verify(&key, Domain::Action, chain, &action.message(), &action.signature) {
        return Err(Refusal::BadSignature);
    }
    let mut signers = Signers { account: key, maker: None };
    if let seawall_types::Action::Fill { quote, quote_signature, .. } = &action.action {
        if quote.chain != chain {
            return Err(Refusal::QuoteMismatch);
        }
        let maker = owner(quote.maker).ok_or(Refusal::UnknownBeneficiary)?;
        if !crypto::verify(&maker, Domain::Quote, chain, &quote.message(), quote_signature) {
            return Err(Refusal::BadQuoteSignature);
        }
        signers.maker = Some((quote.maker, maker));
    }
    Ok(signers)
}
