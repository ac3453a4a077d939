//! Actions that wait for a block. One bounded pool a lane, so that a flood of trades cannot push a
//! rescue out of memory.

use crate::crypto;
use seawall_types::{AccountId, ChainId, Domain, Height, Key, Lane, Nonce, Refusal, SignedAction};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};
use thiserror::Error;

/// Most rescues that wait at a time. One more is refused with [`SubmitError::PoolFull`].
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
}

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

    /// Pools an action that has been checked, with what [`check_signatures`] found.
    pub fn insert(&self, action: SignedAction, signers: Signers) -> Result<(), SubmitError> {
        let lane = action.action.lane();
        let name = (action.account, action.nonce);
        let mut inner = self.lock();
        if inner.named.contains_key(&name) {
            return Err(SubmitError::Duplicate);
        }
        if inner.lanes[lane_index(lane)].len() >= lane_limit(lane) {
            return Err(SubmitError::PoolFull { lane });
        }
        let place = inner.next;
        inner.next += 1;
        inner.named.insert(name, (lane_index(lane), place));
        inner.lanes[lane_index(lane)].insert(place, Pooled { action, signers });
        Ok(())
    }

    /// The oldest waiting actions whose signatures are good under the keys that `owner` finds, rescues first, of at most
    /// `limit` together by weight. Actions are checked against the newest state, which may be on a fork that loses:
    /// there an account can be another's, or not exist. Nobody else would notice while a block is built,
    /// and every block with such an action is invalid.
    pub fn candidates(&self, limit: usize, owner: impl Fn(AccountId) -> Option<Key>) -> Vec<SignedAction> {
        let inner = self.lock();
        let waiting = inner.lanes.iter().flat_map(BTreeMap::values);
        let mut weight = 0;
        waiting
            .filter(|pooled| pooled.stands(&owner))
            .take_while(|pooled| {
                weight += pooled.action.action.weight();
                weight <= limit
            })
            .map(|pooled| pooled.action.clone())
            .collect()
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
