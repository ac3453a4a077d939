//! Actions that wait for a block. One bounded pool a lane, so that a flood of trades cannot push a
//! rescue out of memory.
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
    inclusion::{self, RescueName},
};
use commonware_codec::Encode as _;
use commonware_utils::channel::oneshot;
use seawall_ledger::Ledger;
use seawall_types::{
    AccountId, ChainId, Digest, Domain, Height, Key, Lane, Nonce, Observation, Refusal, RescueRef,
    SignedAction, ValidatorId, limits::MAX_OWED_PER_BLOCK,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};
use thiserror::Error;

/// Most rescues that wait at a time. One more is refused with [`SubmitError::PoolFull`], unless another member lists it:
/// then the youngest that nobody lists is forgotten.
pub const MAX_POOLED_RESCUES: usize = 65_536;
/// Most trades that wait at a time. One more is refused with [`SubmitError::PoolFull`].
pub const MAX_POOLED_TRADES: usize = 65_536;

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
    lanes: [BTreeMap<u64, Pooled>; 2],
    named: BTreeMap<(AccountId, Nonce), (usize, u64)>,
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
}

const RESCUES: usize = lane_index(Lane::Rescue);

/// The pool, shared by the submission side and the proposer.
#[derive(Clone, Default)]
pub struct Mempool {
    inner: Arc<Mutex<Inner>>,
}

const fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Rescue => 0,
        Lane::Trade => 1,
    }
}

const fn lane_limit(lane: Lane) -> usize {
    match lane {
        Lane::Rescue => MAX_POOLED_RESCUES,
        Lane::Trade => MAX_POOLED_TRADES,
    }
}

impl Mempool {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the mempool")
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
        let lane = action.action.lane();
        let name = (action.account, action.nonce);
        let mut inner = self.lock();
        let same = inner.named.get(&name).copied();
        let yields = |(other, place): (usize, u64)| {
            lane == Lane::Rescue
                && (other != RESCUES
                    || inner.lanes[RESCUES].get(&place).is_some_and(|own| is_over(&own.action)))
        };
        if same.is_some_and(|same| !yields(same)) {
            return Err(SubmitError::Duplicate);
        }
        let grows = same.is_none_or(|(other, _)| other != lane_index(lane));
        if grows && inner.lanes[lane_index(lane)].len() >= lane_limit(lane) {
            let wanted = |name: &RescueName| inner.wanted.values().any(|names| names.contains(name));
            let unwanted = || {
                let youngest = inner.lanes[RESCUES].iter().rev();
                youngest
                    .map(|(place, own)| (*place, (own.action.account, own.action.nonce)))
                    .find(|(_, name)| !wanted(name))
            };
            let yielding = (lane == Lane::Rescue && wanted(&name)).then(unwanted).flatten();
            let Some((place, gone)) = yielding else {
                return Err(SubmitError::PoolFull { lane });
            };
            inner.lanes[RESCUES].remove(&place);
            inner.named.remove(&gone);
        }
        if let Some((other, place)) = same {
            inner.lanes[other].remove(&place);
        }
        let place = inner.next;
        inner.next += 1;
        inner.named.insert(name, (lane_index(lane), place));
        let settled = action.account.get() < inner.accounts;
        let pooled = Pooled { action, signers, relayed: false, settled };
        inner.lanes[lane_index(lane)].insert(place, pooled);
        if lane == Lane::Rescue {
            for waiter in inner.waiters.drain(..) {
                let _ = waiter.send(());
            }
        }
        Ok(())
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

    /// The oldest rescues that may be listed, at most so many, by ascending name.
    pub fn listed(&self, limit: usize) -> Vec<RescueRef> {
        let inner = self.lock();
        let ready = inner.lanes[RESCUES].values().filter(|pooled| pooled.relayed && pooled.settled);
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

    /// The oldest rescues that are listed, or would be once they are relayed, to be sent once more.
    pub fn waiting_rescues(&self, limit: usize) -> Vec<SignedAction> {
        let inner = self.lock();
        let settled = inner.lanes[RESCUES].values().filter(|pooled| pooled.settled);
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
    /// `owner` finds, rescues first and within the lane's reserve, of at most `limit` together by weight. Actions are checked against the newest state,
    /// which may be on a fork that loses: there an account can be another's, or not exist. Nobody else would notice while
    /// a block is built, and every block with such an action is invalid.
    pub fn candidates(
        &self,
        limit: usize,
        owed: &BTreeSet<RescueName>,
        owner: impl Fn(AccountId) -> Option<Key>,
    ) -> Vec<SignedAction> {
        let inner = self.lock();
        let mut chosen: Vec<SignedAction> =
            owed.iter().filter_map(|name| inner.rescue(name)).map(|pooled| pooled.action.clone()).collect();
        let mut weight: usize = chosen.iter().map(|action| action.action.weight()).sum();
        // What is not owed has the lane's reserve and no more, or rescues would shut trades out.
        let reserve = MAX_OWED_PER_BLOCK.saturating_sub(chosen.len());
        let [rescues, trades] = &inner.lanes;
        let free = |pooled: &&Pooled| {
            !owed.contains(&(pooled.action.account, pooled.action.nonce)) && pooled.stands(&owner)
        };
        let others =
            rescues.values().filter(free).take(reserve).chain(trades.values().filter(free)).take_while(
                |pooled| {
                    weight += pooled.action.action.weight();
                    weight <= limit
                },
            );
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
                    gone.push((pooled.action.account, pooled.action.nonce));
                }
            }
        }
        drop(inner);
        self.remove(gone.iter().map(|(account, nonce)| (account, nonce)));
    }

    /// Forgets actions that a finalised block answered, or that can never be answered with success.
    pub fn remove<'a>(&self, names: impl IntoIterator<Item = (&'a AccountId, &'a Nonce)>) {
        let mut inner = self.lock();
        for (account, nonce) in names {
            if let Some((lane, place)) = inner.named.remove(&(*account, *nonce)) {
                inner.lanes[lane].remove(&place);
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
            if let Some((lane, place)) = inner.named.remove(&name) {
                inner.lanes[lane].remove(&place);
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
